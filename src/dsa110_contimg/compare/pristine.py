"""A Measurement Set to work on that shares the bulk of its bytes with the original."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.visibilities.columns import require_space

__all__ = ["Snapshot", "pristine_copy"]

#: ioctl of Linux (linux/fs.h) that lets a file share another's blocks until one of them is written.
FICLONE = 0x40049409
#: Files of this size or more hold cells of columns that self-calibration only reads; smaller ones are copied.
BULK_BYTES = 1 << 20
#: What describes a table is written whenever a column is added.
DESCRIPTIONS = ("table.dat", "table.info", "table.lock")


def pristine_copy(source: Path, target: Path) -> int:
    """Make a Measurement Set that can be calibrated without the original being touched.

    Files are cloned where the file system can do that. Elsewhere large ones are
    hard-linked: self-calibration adds columns in files of their own, renames and
    removes columns, and never writes into the cells of one that is there. Where
    links are not possible either, everything is copied.

    Parameters
    ----------
    source : Path
        Measurement Set.
    target : Path
        Where the copy goes; what is there is replaced.

    Returns
    -------
    int
        Bytes that were really copied.

    Raises
    ------
    ResourceError
        If the disk has not enough room.
    """
    shutil.rmtree(target, ignore_errors=True)
    copied = 0
    for file in sorted(source.rglob("*")):
        new = target / file.relative_to(source)
        if file.is_dir():
            new.mkdir(parents=True, exist_ok=True)
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        if _cloned(file, new):
            continue
        size = file.stat().st_size
        if size >= BULK_BYTES and file.name not in DESCRIPTIONS:
            with contextlib.suppress(OSError):
                os.link(file, new)
                continue
            require_space(target, size, "a copy of the Measurement Set")
        shutil.copy2(file, new)
        copied += size
    return copied


def _cloned(file: Path, new: Path) -> bool:
    with file.open("rb") as old, new.open("wb") as fresh:
        try:
            fcntl.ioctl(fresh.fileno(), FICLONE, old.fileno())
        except OSError:
            pass
        else:
            shutil.copystat(file, new)
            return True
    new.unlink()
    return False


class Snapshot:
    """What the files of a Measurement Set look like, to prove later that nobody wrote to them.

    Parameters
    ----------
    ms : Path
        Measurement Set.
    """

    def __init__(self, ms: Path) -> None:
        self._ms, self._seen = ms, self._look(ms)

    @property
    def hash(self) -> str:
        """One word for names, sizes and times of writing of all files."""
        return hashlib.sha256(repr(sorted(self._seen.items())).encode()).hexdigest()[:16]

    def require_unchanged(self) -> None:
        """Raise MeasurementSetError if a file was written, added or removed since."""
        now = self._look(self._ms)
        changed = sorted(k for k in now.keys() | self._seen.keys() if now.get(k) != self._seen.get(k))
        if changed:
            raise MeasurementSetError(
                f"was changed while strategies were compared on it ({', '.join(changed[:3])})",
                self._ms,
                "see who writes to it and compare again",
            )

    @staticmethod
    def _look(ms: Path) -> dict[str, tuple[int, int]]:
        files = (p for p in ms.rglob("*") if p.is_file() and p.name != "table.lock")
        return {str(p.relative_to(ms)): ((s := p.stat()).st_size, s.st_mtime_ns) for p in files}
