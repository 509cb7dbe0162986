"""New Measurement Sets in a watched folder, taken once they are complete."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import MeasurementSetError, ResourceError
from dsa110_contimg.pipeline.naming import check_name, observed_at
from dsa110_contimg.pipeline.probe import Look, end_with_parent, look_into

__all__ = ["Arrivals", "fingerprint"]

logger = logging.getLogger(__name__)

#: casacore waits 20 s for a lock; what takes much longer than that hangs. It is looked at again after twice
#: as long every time, up to the longest.
PROBE_S, LONGEST_WAIT_S = 60.0, 3600.0
#: It is told of earlier.
SUSPECT_S = 25.0
#: What has not answered within this time is asked at the next look; so many may be without an answer.
ANSWERS_AT_ONCE_S, MOST_PROBES = 5.0, 4


@dataclass
class _Waiting:
    """A Measurement Set that is not complete yet: what it looked like, since when, and why.

    `hung` counts how often it did not answer, one time after the other.
    """

    print: tuple[int, int, int]
    unchanged_since: float
    look_again: float
    hung: int = 0
    why: str = ""


@dataclass(frozen=True)
class _Refusal:
    """What a refused name was, and when it is looked at again although it is still the same."""

    identity: tuple[int, ...]
    look_again: float


class Arrivals:
    """Look for complete Measurement Sets in a folder.

    One is complete when its marker is there (if one is asked for), no file in it
    has changed for ``settle_s``, and every column can be read to its last row. One
    that neither changes nor can be read is handed on after ``give_up_s``, so
    that it is accounted for; one that hangs keeps nothing else waiting. Tables
    that refer to the data of others are refused.

    Parameters
    ----------
    folder : Path
        Folder, looked into without its sub-folders.
    config : PipelineConfig
        Marker and times.
    known : callable
        Whether a Measurement Set has been taken before.
    refuse : callable
        Told what was refused and why: names and links that are not to be trusted,
        references to other tables, what never answers. It is looked at again when
        something else has its name, or once it answers.
    """

    def __init__(
        self,
        folder: Path,
        config: PipelineConfig,
        known: Callable[[Path], bool],
        refuse: Callable[[Path, str], None],
    ) -> None:
        if not folder.is_dir():
            raise ResourceError("no such folder", folder, "check the path")
        self.folder = folder.resolve()
        self.config = config
        self._known = known
        self._refuse = refuse
        self._waiting: dict[Path, _Waiting] = {}
        self._refused: dict[str, _Refusal] = {}
        #: Why the folder cannot be looked into; empty while it can.
        self.away = ""
        self._probes: dict[Path, _Probe] = {}
        self._idle: ProcessPoolExecutor | None = None

    @property
    def waiting(self) -> int:
        """How many are there but not complete."""
        return len(self._waiting)

    @property
    def hung(self) -> list[Path]:
        """Those that do not answer when they are read."""
        late = time.monotonic() - SUSPECT_S
        hung = {path.name for path, waiting in self._waiting.items() if waiting.hung}
        hung |= {path.name for path, probe in self._probes.items() if probe.since < late}
        hung |= {name for name, refusal in self._refused.items() if math.isfinite(refusal.look_again)}
        return [self.folder / name for name in sorted(hung)]

    def scan(self) -> list[Path]:
        """Return those that have become complete, oldest first."""
        complete, seen = [], set()
        try:
            names = sorted(p.name for p in self.folder.iterdir() if p.name.endswith(".ms"))
        except OSError as error:
            # A network disk may be away for a while.
            if not self.away:
                logger.error("%s: %s", self.folder, error.strerror, extra={"event": "watch_failed"})
            self.away = error.strerror or str(error)
            return []
        if self.away:
            logger.warning("%s: is there again", self.folder, extra={"event": "watch_back"})
            self.away = ""
        for name in [n for n in self._refused if n not in names]:
            del self._refused[name]
        for name in names:
            path = self.folder / name
            if self._is_refused(path) or self._known(path):
                continue
            seen.add(path)
            try:
                check_name(path)
                if self._complete(path):
                    complete.append(path)
                    self._refused.pop(name, None)
            except MeasurementSetError as error:
                self._keep_out(path, error.what)
            except FileNotFoundError:
                # It is being renamed or taken away.
                continue
        for path in set(self._waiting) - seen | set(complete):
            self._waiting.pop(path, None)
        for path in set(self._probes) - seen:
            self._forget_probe(path)
        return sorted(complete, key=lambda p: (observed_at(p), p.name))

    def _is_refused(self, path: Path) -> bool:
        refusal = self._refused.get(path.name)
        if refusal is None:
            return False
        return refusal.identity == _identity(path) and time.monotonic() < refusal.look_again

    def _keep_out(self, path: Path, why: str) -> None:
        """Refuse what is there; one that did not answer is asked again now and then, and told once."""
        waiting = self._waiting.pop(path, None)
        hung = waiting is not None and waiting.hung > 0
        before = self._refused.get(path.name)
        again = time.monotonic() + LONGEST_WAIT_S if hung else math.inf
        self._refused[path.name] = _Refusal(_identity(path), again)
        if before is None or before.identity != self._refused[path.name].identity:
            self._refuse(path, why)

    def close(self) -> None:
        """End the processes that look into tables."""
        for probe in self._probes.values():
            probe.end()
        self._probes.clear()
        if self._idle is not None:
            _end(self._idle)
            self._idle = None

    def _complete(self, path: Path) -> bool:
        now, found = time.monotonic(), fingerprint(path)
        before = self._waiting.get(path)
        if before is None or before.print != found:
            self._waiting[path] = _Waiting(found, now, now + self.config.settle_s)
            self._forget_probe(path)
            if before is not None or self.config.settle_s > 0:
                return False
        waiting = self._waiting[path]
        if now < waiting.look_again:
            return False
        marker = self.config.marker
        if marker and not path.with_name(path.name + marker).is_file():
            return False
        look = self._look_into(path, waiting)
        if look is None:
            return False
        if look.state == "whole":
            # It may have grown while it was looked at.
            return fingerprint(path) == found
        if look.state == "refused":
            raise MeasurementSetError(look.why, path)
        if look.why != waiting.why:
            waiting.why = look.why
            logger.info("not complete: %a: %s", str(path), look.why, extra={"event": "incomplete"})
        if now - waiting.unchanged_since <= self.config.give_up_s:
            return False
        if waiting.hung:
            raise MeasurementSetError(look.why, path)
        return True

    def _forget_probe(self, path: Path) -> None:
        probe = self._probes.pop(path, None)
        if probe is not None:
            probe.end()

    def _look_into(self, path: Path, waiting: _Waiting) -> Look | None:
        """Look into a table in a process of its own: casacore ends the process over some broken ones.

        None as long as there is no answer. Others are not kept waiting by one that does not answer, as a file
        on a network disk that hangs.
        """
        probe = self._probes.get(path)
        if probe is None:
            if len(self._probes) >= MOST_PROBES:
                return None
            idle, self._idle = self._idle, None
            try:
                probe = _Probe.of(path, idle)
            except BrokenProcessPool:
                probe = _Probe.of(path, None)
            self._probes[path] = probe
        now = time.monotonic()
        try:
            look = probe.future.result(max(0.0, probe.since + ANSWERS_AT_ONCE_S - now))
        except (BrokenProcessPool, CancelledError):
            look = Look("incomplete", "the process that read it was ended by it")
            probe.end()
        except TimeoutError:
            if now - probe.since < PROBE_S:
                return None
            look = Look("incomplete", "does not answer when it is read")
            waiting.hung += 1
            probe.end()
        else:
            waiting.hung = 0
            if self._idle is None:
                self._idle = probe.executor
            else:
                probe.end()
        del self._probes[path]
        wait = max(self.config.settle_s, self.config.poll_s)
        waiting.look_again = now + (min(PROBE_S * 2**waiting.hung, LONGEST_WAIT_S) if waiting.hung else wait)
        return look


@dataclass
class _Probe:
    """A process that looks into one Measurement Set, since when."""

    executor: ProcessPoolExecutor
    future: Future[Look]
    since: float

    @classmethod
    def of(cls, path: Path, executor: ProcessPoolExecutor | None) -> _Probe:
        if executor is None:
            context = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(1, context, initializer=end_with_parent)
        return cls(executor, executor.submit(look_into, path), time.monotonic())

    def end(self) -> None:
        _end(self.executor)


def _end(executor: ProcessPoolExecutor) -> None:
    """End a process that may hang."""
    for child in list(getattr(executor, "_processes", None) or {}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    executor.shutdown(wait=False, cancel_futures=True)


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when something else is put in the place of a name, and not by being read."""
    try:
        folder, table = os.lstat(path), path / "table.dat"
        made = os.lstat(table) if os.path.lexists(table) else None
        return (
            folder.st_ino,
            folder.st_mode,
            *((made.st_ino, made.st_mtime_ns, made.st_ctime_ns) if made else ()),
        )
    except OSError:
        return ()


def fingerprint(ms: Path) -> tuple[int, int, int]:
    """Return what changes while a Measurement Set is written: files, bytes, newest change in ns.

    Lock files are left out, since readers touch them too.

    Raises
    ------
    MeasurementSetError
        If it is no folder or holds a symbolic link: the pipeline writes into it
        and must not be led elsewhere.
    """
    files = size = newest = 0
    if ms.is_symlink() or not ms.is_dir():
        raise MeasurementSetError("is a symbolic link or no folder", ms, "put the folder itself there")
    folders = [os.fspath(ms)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise MeasurementSetError("holds a symbolic link", ms, "put the files themselves there")
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name != "table.lock":
                    status = entry.stat(follow_symlinks=False)
                    files, size = files + 1, size + status.st_size
                    newest = max(newest, status.st_mtime_ns)
    return files, size, newest
