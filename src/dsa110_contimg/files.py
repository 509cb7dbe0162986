"""Writing products: beside their final name, synced, renamed, so that readers see the old one or the new one.

What is in the making is called ``.NAME.MACHINE-PID-START-NUMBER.tmp``, with the ending of the name once more
where writers go by it (``.fits``, ``.png``). MACHINE stands for the host and its process numbers (a container
has its own), PID and START (clock ticks since boot) for one process and no later one with the same number,
NUMBER for one write of that process: no two writes share a name, and the leftovers of a process that was
killed can be told from the work of one that lives. Whoever writes the same product next removes them.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

__all__ = [
    "remove_leftovers",
    "replacing",
    "replacing_folder",
    "save_figure",
    "write_json",
    "write_table",
    "write_text",
]

#: Endings that writers go by. All others are left out, so that nobody who looks for, say, ``*.ms`` or
#: ``*.prom`` in a folder takes up what is in the making.
KEPT_SUFFIXES = {".fits", ".npz", ".pdf", ".png", ".svg"}
#: What another machine began can only be judged by its age: nothing takes a day to write.
FOREIGN_LEFTOVER_S = 86400.0

_BESIDE = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-\d+\.(?P<kind>tmp|old)(\.\w+)?"
)
_numbers = itertools.count(1)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a name beside a file to write to; at the end, sync what was written and rename it into place.

    After any exception, an interrupt among them, what was written is removed and the old file stays as it
    was; after a kill, too, the old file is there, and the next write of the same file removes the leftovers.

    Parameters
    ----------
    path : str or Path
        Final name. Its folder must be there. An existing file is replaced; a link is replaced as well, and
        what it leads to is not touched.

    Yields
    ------
    Path
        Absolute, in the same folder, where nothing is yet. Permissions are those of a new file, as the
        umask has them, whatever the old file's were.

    Raises
    ------
    OSError
        The folder cannot be read or written, nothing was written, or the disk did not take it. An error
        that a full or failing disk reports only when it syncs is raised too; from the sync of the folder,
        which comes last, the new file is in place but may not outlast a power cut.
    """
    final = Path(path).absolute()
    remove_leftovers(final)
    temporary = _beside(final, "tmp", final.suffix if final.suffix in KEPT_SUFFIXES else "")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(final)
    except BaseException:
        # What went wrong is told, not that the remains could not be removed: the next write tries again.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(final.parent)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Do as `replacing` does for a folder, a table for example.

    A folder cannot be renamed over another. The old one is moved aside first, for the moment between two
    renames; after a kill in that moment the next write of the same folder puts it back.

    Parameters
    ----------
    path : str or Path
        Final name; what bears it is replaced, a link but not what it leads to.

    Yields
    ------
    Path
        Absolute, in the same folder, where nothing is yet.

    Raises
    ------
    OSError
        As for `replacing`.
    """
    final = Path(path).absolute()
    remove_leftovers(final)
    temporary, old = _beside(final, "tmp"), _beside(final, "old")
    try:
        yield temporary
        _sync_tree(temporary)
        try:
            with suppress(FileNotFoundError):
                final.rename(old)
            temporary.rename(final)
        except BaseException:
            if not os.path.lexists(final):
                with suppress(FileNotFoundError):
                    old.rename(final)
            raise
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(final.parent)
    _remove(old)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that no longer live left in the making of a file or folder.

    What a living process writes stays, and so does for a day what another machine began.

    Parameters
    ----------
    path : str or Path
        Final name of the product; its folder must be there.

    Raises
    ------
    OSError
        The folder cannot be read.
    """
    final = Path(path).absolute()
    with os.scandir(final.parent) as entries:
        names = [entry.name for entry in entries]
    for found in filter(None, map(_BESIDE.fullmatch, names)):
        leftover = final.with_name(found[0])
        if found["name"] != final.name or _may_live(found, leftover):
            continue
        if found["kind"] == "old" and not os.path.lexists(final):
            # It was killed between moving the old folder aside and putting the new one into its place.
            with suppress(FileNotFoundError):  # another process has just done the same
                leftover.rename(final)
        else:
            _remove(leftover)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, as `replacing` does.

    Parameters
    ----------
    path : str or Path
        File to write.
    text : str
        All of it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, as `replacing` does.

    Parameters
    ----------
    path : str or Path
        File to write.
    values : mapping
        What it is to hold.

    Raises
    ------
    ValueError, TypeError
        JSON cannot hold a value: NaN and infinities for example.
    OSError
        It cannot be written.
    """
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_table(path: str | Path, table: Table, delimiter: str = " ") -> None:
    """Write a table as ECSV, as `replacing` does.

    Parameters
    ----------
    path : str or Path
        File to write.
    table : astropy.table.Table
        What it is to hold.
    delimiter : str
        A blank or a comma.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with replacing(path) as temporary:
        table.write(temporary, format="ascii.ecsv", delimiter=delimiter)


def save_figure(path: str | Path, figure: Figure, *, dpi: int, form: str = "png") -> None:
    """Save a figure, as `replacing` does.

    Parameters
    ----------
    path : str or Path
        File to write.
    figure : matplotlib.figure.Figure
        What to draw.
    dpi : int
        Pixels per inch.
    form : str
        ``"png"``, ``"pdf"`` or ``"svg"``, whatever the ending of the name.

    Raises
    ------
    ValueError
        Matplotlib does not know the form.
    OSError
        It cannot be written.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        # Saving draws twice, and would lay everything out twice.
        engine.execute(figure)
        figure.set_layout_engine("none")
    # Compressing harder takes longer than all the drawing, for a tenth of the size.
    packing: dict[str, Any] = {"pil_kwargs": {"compress_level": 1}} if form == "png" else {}
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=form, **packing)


def _beside(final: Path, kind: str, suffix: str = "") -> Path:
    """Return a name beside a product that nobody else uses."""
    pid = os.getpid()
    number = next(_numbers)
    return final.with_name(f".{final.name}.{_machine()}-{pid}-{_start_of(pid)}-{number}.{kind}{suffix}")


def _machine() -> str:
    """Stand for what gives processes their numbers: this host, or a container on it."""
    numbering = f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return hashlib.sha256(numbering.encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot (proc(5), stat, field 22); None once gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything. Zombies write no more.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _may_live(found: re.Match[str], leftover: Path) -> bool:
    """Return whether the process that made something in the making may still be at it."""
    if found["machine"] == _machine():
        return _start_of(int(found["pid"])) == int(found["start"])
    try:
        return time.time() - leftover.lstat().st_mtime < FOREIGN_LEFTOVER_S
    except FileNotFoundError:
        return True  # it has just been renamed: its process lived


def _remove(path: Path) -> None:
    """Remove a file, link or folder as far as that is possible; remains are left for the next write."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    # Another user's in a folder like /tmp, or another process was faster.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until the disk has a file or folder; raise what it could not take."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    """Sync a folder with all that is in it."""
    for folder, _, names in os.walk(path, onerror=_raise):
        for name in names:
            _sync(Path(folder, name))
        _sync_folder(Path(folder))


def _sync_folder(path: Path) -> None:
    """Sync the names in a folder."""
    try:
        _sync(path)
    except OSError as error:
        # Some network file systems have no sync of folders; they keep names by other means.
        if error.errno != errno.EINVAL:
            raise


def _raise(error: OSError) -> None:
    raise error
