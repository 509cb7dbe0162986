"""Upkeep of what is kept: products removed by age and verdict, observations known by other names."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dsa110_contimg.config import RetentionRule
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.files import write_json
from dsa110_contimg.pipeline.naming import ARMS, FAILURE, JOB, RECORD, check_name
from dsa110_contimg.pipeline.observation import ENDED, Observation, Selection
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.tables import require_own_data

__all__ = ["Pruned", "prune", "rename"]

#: What says what came of an observation, and that it is done: nothing of it is ever removed.
KEPT = (JOB, RECORD, FAILURE)
#: More removed, the higher.
LEVELS = {"": 0, "images": 1, "products": 2}


@dataclass(frozen=True)
class Pruned:
    """What was removed of an observation, or would be.

    Attributes
    ----------
    observation : Observation
        Whose it was.
    what : str
        ``images`` or ``products``.
    n_files, n_bytes : int
        How much it was.
    kept : str
        Why nothing was removed, if nothing was.
    away : bool
        Whether that needs a hand, as where a disk is away; not where it is in use.
    """

    observation: Observation
    what: str
    n_files: int
    n_bytes: int
    kept: str = ""
    away: bool = False


def prune(
    state: State, rules: tuple[RetentionRule, ...], *, dry_run: bool = False, now: float | None = None
) -> Iterator[Pruned]:
    """Remove products by their age and verdict, oldest first; what waits or runs is left alone.

    Parameters
    ----------
    state : State
        The run state.
    rules : tuple of RetentionRule
        What is removed, and when; where several apply, the one that removes most.
    dry_run : bool
        Only say what would be removed.
    now : float, optional
        Unix time in seconds to which ages are counted.

    Yields
    ------
    Pruned
        For each observation of which something is removed, after it is.
    """
    at = time.time() if now is None else now
    for o in reversed(state.latest(None, Selection(statuses=ENDED))):
        what = _due(o, rules, at)
        if what is None:
            continue
        if not o.folder.is_absolute() or o.folder.is_symlink() or not (o.folder / JOB).is_file():
            # What failed may never have made a folder.
            if o.status != "failed" or o.folder.exists():
                kept = f"{o.folder}: is not there, or not what a run has made"
                yield Pruned(o, what, 0, 0, kept, away=True)
            continue
        if dry_run:
            found = _measure(o, what)
            if found.n_files:
                yield found
            continue
        try:
            with _alone(o):
                # It may have been queued meanwhile.
                known = state.known(o.ms)
                if known is None or known.status not in ENDED or known.run_id != o.run_id:
                    continue
                found = _measure(o, what)
                for path in _files(o.folder, what):
                    path.unlink(missing_ok=True)
                for folder in _folders(o.folder, what):
                    shutil.rmtree(folder)
                detail = f"{what}: {found.n_files} files, {found.n_bytes / 1e6:.1f} MB"
                state.note_pruned(o, what, detail if found.n_files else "")
        except ResourceError as error:
            yield Pruned(o, what, 0, 0, str(error))
            continue
        except OSError as error:
            yield Pruned(o, what, 0, 0, f"{error.filename}: {error.strerror}", away=True)
            continue
        if found.n_files:
            yield found


def rename(state: State, old: Path, new: Path) -> Observation:
    """Know an observation by the new place and name of its Measurement Set; its products stay where they are.

    Parameters
    ----------
    state : State
        The run state.
    old, new : Path
        Where the Measurement Set was and is.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        If the old one is unknown or still there, the new one is none or known already, or it runs.
    """
    known = state.find(old)
    if os.path.lexists(old):
        raise InputError("is still there", old, f"move it to {new} first")
    if not (new / "table.dat").is_file():
        raise InputError("no such Measurement Set", new, "check the path")
    require_own_data(new)
    name, job = check_name(new), known.folder / JOB
    try:
        # By this a lost state is made anew.
        begun = json.loads(job.read_text("utf-8")) if job.exists() else None
        state.rename(known, name, new)
        if begun is not None:
            write_json(job, begun | {"ms": str(new)})
    except (OSError, ValueError, TypeError) as error:
        raise ResourceError(
            f"cannot be brought up to date ({error})", job, "check it and its disk, then rename it again"
        ) from None
    return replace(known, name=name, ms=new)


def _due(o: Observation, rules: tuple[RetentionRule, ...], now: float) -> str | None:
    """Return what is to be removed of an observation; None if nothing, or nothing more."""
    verdict = o.quality or "failed"
    due = [
        rule.what
        for rule in rules
        if rule.verdict in ("any", verdict) and o.ended_at and now - o.ended_at > rule.age_s
    ]
    most = max(due, key=LEVELS.__getitem__, default="")
    return most if LEVELS[most] > LEVELS[o.pruned] else None


def _measure(o: Observation, what: str) -> Pruned:
    sizes = [path.lstat().st_size for path in _files(o.folder, what)]
    return Pruned(o, what, len(sizes), sum(sizes))


def _files(folder: Path, what: str) -> list[Path]:
    """List what is to be removed; links are, and never what they lead to."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = []
    for root, folders, names in os.walk(folder):
        paths = [Path(root, name) for name in names]
        paths += [Path(root, name) for name in folders if Path(root, name).is_symlink()]
        if what == "products":
            found += [p for p in paths if p.parent != folder or p.name not in KEPT]
        elif Path(root) != folder:
            found += [p for p in paths if p.suffix == ".fits"]
        if Path(root) == folder:
            # Besides the runs' own folders there may be somebody's notes.
            folders[:] = [n for n in folders if what == "products" or n in ARMS]
    return found


def _folders(folder: Path, what: str) -> list[Path]:
    """List the folders that are empty once the files are gone."""
    if what != "products":
        return []
    return [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]


@contextlib.contextmanager
def _alone(o: Observation) -> Iterator[None]:
    """Keep workers away meanwhile; without its Measurement Set none can come."""
    if not o.ms.exists():
        yield
        return
    with lock_beside(o.ms, "contimg prune"):
        yield
