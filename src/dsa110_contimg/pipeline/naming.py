"""Names and paths: what is taken from outside, and where everything lies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dsa110_contimg.errors import CalTableError, MeasurementSetError, ResourceError
from dsa110_contimg.files import write_json

__all__ = [
    "ARMS",
    "DUMPS_S",
    "EARLIER",
    "FAILURE",
    "IMAGE",
    "JOB",
    "LOG",
    "RECORD",
    "STATE",
    "check_name",
    "claim",
    "find_caltables",
    "identity",
    "observed_at",
    "real_folder",
    "run_folder",
    "state_of",
]

#: Files in an observation's folder: the work in hand, what came of it, how a later run failed where good
#: products are kept, where these are while they are made anew (the run's identifier follows), the log, the
#: published image.
JOB = "job.json"
RECORD = "record.json"
FAILURE = "failure.json"
EARLIER = "earlier"
#: Files in an output folder: the state of all runs, where nothing else is asked for, and whose the folder is.
STATE = "pipeline.sqlite3"
OWNER = ".contimg-state.json"
LOG = "log.jsonl"
IMAGE = "image.fits"
#: Folders in an observation's folder: each self-calibration's own.
ARMS = ("seeded", "unseeded")

#: Sub-tables by which observations differ: directions and times.
IDENTIFYING = ("FIELD", "OBSERVATION")
#: Length of an observation of the DSA-110 (24 dumps), seconds.
DUMPS_S = 309.24
#: Names from outside become names of folders and values in logs, metrics and gain tables.
ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+,=@~-]*")
LONGEST = 200
#: Kinds of initial tables in the order in which they are applied.
TABLE_KINDS = ("bpcal", "gpcal", "2gcal")


def check_name(ms: Path) -> str:
    """Return the name of an observation: that of the Measurement Set without its ending.

    Raises
    ------
    MeasurementSetError
        If the name holds anything but letters, digits and ``._:+,=@~-``, does
        not begin with a letter or digit, or is very long.
    """
    name = ms.name.removesuffix(".ms")
    if not ALLOWED.fullmatch(name) or len(name) > LONGEST:
        raise MeasurementSetError(
            "is no name of an observation", ascii(str(ms)), "letters, digits and ._:+,=@~- make a name"
        )
    return name


def run_folder(outdir: Path, name: str, ms: Path, taken: bool) -> Path:
    """Return the folder of an observation's products.

    Parameters
    ----------
    outdir : Path
        Folder of all products.
    name : str
        Name of the observation.
    ms : Path
        Its Measurement Set.
    taken : bool
        Whether another Measurement Set of the same name has the plain folder.
    """
    suffix = "~" + hashlib.sha256(str(ms).encode()).hexdigest()[:8] if taken else ""
    return outdir / f"{name}{suffix}"


def real_folder(folder: Path) -> Path:
    """Make a folder of ours; one that leads elsewhere is refused.

    Raises
    ------
    ResourceError
        If it is a symbolic link or no folder, or cannot be made.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ResourceError("is a symbolic link or no folder", folder, "move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot be made ({error.strerror})", folder, "choose another output folder"
        ) from None
    return folder


def claim(outdir: Path, state_file: Path) -> None:
    """Note which state file an output folder belongs to; two would overwrite one another's products.

    Raises
    ------
    ResourceError
        If it belongs to another one.
    """
    path = state_of(outdir)
    if path is None:
        real = state_file.resolve()
        # What lies in the folder moves with it, and what lies elsewhere stays.
        mine = os.path.relpath(real, outdir.resolve())
        write_json(outdir / OWNER, {"state_file": mine, "absolute": str(real)})
        return
    if path == state_file.resolve():
        return
    remedy = f"give --state-file {path} or another output folder"
    if not path.exists():
        remedy = f"contimg state rebuild {outdir} --state-file {state_file} takes its products over"
    raise ResourceError(f"holds the products of another state file, {path}", outdir, remedy)


def state_of(outdir: Path) -> Path | None:
    """Return the state file that an output folder belongs to; None if it belongs to none.

    Raises
    ------
    ResourceError
        If the note of it cannot be read.
    """
    note = outdir / OWNER
    try:
        found = json.loads(note.read_text("utf-8"))
        beside = (outdir / str(found["state_file"])).resolve()
        fixed = Path(str(found.get("absolute", beside)))
        return fixed if fixed.exists() or not beside.exists() else beside
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResourceError(f"cannot be read ({error})", note, "move it away") from None


def identity(ms: Path) -> str:
    """Return what tells one observation from another of its name, wherever it lies; empty if nothing does.

    It is of the files of fields and observation, which calibration does not touch.
    """
    files = [f for name in IDENTIFYING for f in sorted((ms / name).glob("table.*")) if f.name != "table.lock"]
    if not files:
        return ""
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()[:32]


def observed_at(ms: Path) -> float:
    """Return when an observation began: by its name as the telescope gives it, else by the age of its file.

    Nothing is opened: the table may be of any kind.

    Parameters
    ----------
    ms : Path
        Measurement Set, usable or not.

    Returns
    -------
    float
        Unix time in seconds; now if there is nothing.
    """
    try:
        return datetime.strptime(ms.name, "%Y-%m-%dT%H:%M:%S.ms").replace(tzinfo=UTC).timestamp()
    except ValueError:
        found = next((p for p in (ms / "table.dat", ms) if os.path.lexists(p)), None)
        return os.lstat(found).st_mtime if found else time.time()


def find_caltables(
    ms: Path, folder: Path | None, rule: Literal["found", "required", "none"]
) -> tuple[Path, ...]:
    """Find the initial tables of an observation: ``STEM_FIELDS_bpcal``, ``_gpcal`` and ``_2gcal``.

    Parameters
    ----------
    ms : Path
        Measurement Set ``STEM.ms``.
    folder : Path, optional
        Where to look; beside the Measurement Set by default.
    rule : str
        ``found`` takes those that are there, ``required`` demands bandpass and
        gains, ``none`` looks for none.

    Returns
    -------
    tuple of Path
        Tables in the order in which they are applied; the field part of the
        name, for example ``0~23``, may be left out.

    Raises
    ------
    CalTableError
        If one is demanded and not there, or if there are several of a kind.
    """
    if rule == "none":
        return ()
    stem, folder = ms.name.removesuffix(".ms"), folder or ms.parent
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    tables = []
    for kind in TABLE_KINDS:
        pattern = re.compile(re.escape(stem) + r"(_\d+(~\d+)?)?_" + kind)
        found = [n for n in names if pattern.fullmatch(n)]
        if len(found) > 1:
            raise CalTableError(
                f"{len(found)} initial tables of one kind: {', '.join(found)}",
                folder,
                "keep one of each kind",
            )
        if not found and rule == "required" and kind != "2gcal":
            raise CalTableError(
                f"no initial table {stem}_*_{kind}", folder, "put it there or set caltables to found or none"
            )
        tables += [folder / n for n in found]
    return tuple(tables)
