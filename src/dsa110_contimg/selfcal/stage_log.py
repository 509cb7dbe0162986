"""A record of each stage of a run: what it was, when it began, how long it took, what was found."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from dsa110_contimg.files import write_text
from dsa110_contimg.progress import Progress

__all__ = ["StageLog"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StageLog:
    """Progress that is passed on, and kept as one JSON object a line.

    A stage begins with the first pass or picture of its name and ends where the
    next one begins, so that no time is left out. Its line is written when it
    ends; after a kill the last line is that of the last stage that was finished.

    Parameters
    ----------
    progress : Progress
        Where everything is passed on to.
    first : str
        Name of the stage that begins at once.

    Notes
    -----
    A context manager: leaving it ends the last stage, after an exception with
    the error noted. A line is noted once: trials that come out as the one before, to the last digit, would
    fill the terminal with what is known. Lines that were made before :meth:`write_to` are kept until then.
    Keys: ``stage``, ``start`` (UTC, ISO 8601), ``seconds``, ``noted`` (list
    of lines) and, of a stage that failed, ``error``.
    """

    def __init__(self, progress: Progress, first: str = "check") -> None:
        self._progress = progress
        self._path: Path | None = None
        self._ended: list[str] = []
        self._told: set[str] = set()
        #: Seconds by kind of work, each less what was charged to others within it.
        self.seconds: dict[str, float] = {}
        #: How much of each kind of work was done.
        self.counts: dict[str, int] = {}
        self._charged = 0.0
        self._begin(first)

    def write_to(self, path: Path) -> None:
        """Start the file anew with the stages so far."""
        write_text(path, "".join(self._ended))
        self._path = path

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through; a new label begins a stage."""
        if label != self._stage:
            self._end()
            self._begin(label)
        yield from self._progress.track(items, total, label)

    def note(self, text: str) -> None:
        """Note a line with the present stage, and pass it on, unless it has been noted before."""
        if text in self._told:
            return
        self._told.add(text)
        self._noted.append(text)
        self._progress.note(text)

    def count(self, what: str, number: int = 1) -> None:
        """Add to the count of a kind of work."""
        self.counts[what] = self.counts.get(what, 0) + number

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Charge the time to a kind of work, less what is charged to others within it."""
        started, before = time.perf_counter(), self._charged
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[what] = self.seconds.get(what, 0.0) + spent - (self._charged - before)
            self._charged = before + spent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(
            **({} if error is None else {"error": " ".join(str(error).split()) or type(error).__name__})
        )

    def _begin(self, stage: str) -> None:
        self._stage, self._noted = stage, list[str]()
        self._since, self._clock = datetime.now(UTC), time.perf_counter()

    def _end(self, **more: Any) -> None:
        record = {
            "stage": self._stage,
            "start": self._since.isoformat(timespec="milliseconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "noted": self._noted,
            **more,
        }
        line = json.dumps(record) + "\n"
        self._ended.append(line)
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                # A record must never fail a run.
                logger.warning("%s: no record of the stage %s: %s", self._path, self._stage, error)
