"""New Measurement Sets in a watched folder, taken once they are complete."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import MeasurementSetError, ResourceError
from dsa110_contimg.pipeline.naming import check_name, observed_at
from dsa110_contimg.pipeline.probe import end_with_parent, readable

__all__ = ["Arrivals", "fingerprint"]

logger = logging.getLogger(__name__)

#: casacore waits 20 s for a lock; what takes much longer than that hangs.
PROBE_S = 90.0


@dataclass
class _Waiting:
    """A Measurement Set that is not complete yet: what it looked like, since when."""

    print: tuple[int, int, int]
    unchanged_since: float
    look_again: float


class Arrivals:
    """Look for complete Measurement Sets in a folder.

    One is complete when its marker is there (if one is asked for), no file in it
    has changed for ``settle_s``, and every column can be read to its last row. One
    that neither changes nor can be read is handed on after ``give_up_s``, so
    that it is accounted for.

    Parameters
    ----------
    folder : Path
        Folder, looked into without its sub-folders.
    config : PipelineConfig
        Marker and times.
    known : callable
        Whether a Measurement Set has been taken before.
    refuse : callable
        Told, once each, what was refused and why: names and links that are not
        to be trusted.
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
        self._refused: set[str] = set()
        self._prober: ProcessPoolExecutor | None = None

    @property
    def waiting(self) -> int:
        """How many are there but not complete."""
        return len(self._waiting)

    def scan(self) -> list[Path]:
        """Return those that have become complete, oldest first."""
        complete, seen = [], set()
        try:
            names = sorted(p.name for p in self.folder.iterdir() if p.name.endswith(".ms"))
        except OSError as error:
            # A network disk may be away for a while.
            logger.warning("%s: %s", self.folder, error.strerror, extra={"event": "watch_failed"})
            return []
        for name in names:
            path = self.folder / name
            if name in self._refused or self._known(path):
                continue
            seen.add(path)
            try:
                check_name(path)
                if self._complete(path):
                    complete.append(path)
            except MeasurementSetError as error:
                self._refused.add(name)
                self._refuse(path, error.what)
            except FileNotFoundError:
                # It is being renamed or taken away.
                continue
        for path in set(self._waiting) - seen | set(complete):
            self._waiting.pop(path, None)
        return sorted(complete, key=lambda p: (observed_at(p), p.name))

    def close(self) -> None:
        """End the process that looks into tables."""
        if self._prober is not None:
            self._prober.shutdown(wait=False, cancel_futures=True)

    def _complete(self, path: Path) -> bool:
        now, found = time.monotonic(), fingerprint(path)
        before = self._waiting.get(path)
        if before is None or before.print != found:
            self._waiting[path] = _Waiting(found, now, now + self.config.settle_s)
            if before is not None or self.config.settle_s > 0:
                return False
        waiting = self._waiting[path]
        if now < waiting.look_again:
            return False
        marker = self.config.marker
        if marker and not path.with_name(path.name + marker).is_file():
            return False
        if self._readable(path):
            # It may have grown while it was looked at.
            return fingerprint(path) == found
        waiting.look_again = now + max(self.config.settle_s, self.config.poll_s)
        return now - waiting.unchanged_since > self.config.give_up_s

    def _readable(self, path: Path) -> bool:
        """Look into the table in a process of its own: casacore ends the process over some broken ones."""
        if self._prober is None:
            context = multiprocessing.get_context("spawn")
            self._prober = ProcessPoolExecutor(1, context, initializer=end_with_parent)
        try:
            return self._prober.submit(readable, path).result(PROBE_S)
        except (BrokenProcessPool, TimeoutError):
            for child in list(getattr(self._prober, "_processes", None) or {}):
                os.kill(child, 9)
            self.close()
            self._prober = None
            return False


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
