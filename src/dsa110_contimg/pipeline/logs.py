"""Structured logs: a JSON object a line, with the identifier of the run on every one."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["JsonFormatter", "json_log"]

ROOT = "dsa110_contimg"
#: A log of the driver, which never ends, is begun anew at this size; so many old ones stay.
LOG_BYTES = 16 << 20
OLD_LOGS = 4
#: What every record carries; anything else was added with ``extra``.
USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, fixed fields and those of ``extra``."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields,
        }
        values |= {k: v for k, v in vars(record).items() if k not in USUAL}
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log whose disk may be full or away for a while: what is logged then is missing, which stderr says."""

    failing = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; say when the disk begins and ceases to refuse them."""
        before, self.failing = self.failing, False
        super().emit(record)
        if self.failing != before:
            said = (
                "cannot be written; what is logged meanwhile is not in it"
                if self.failing
                else "is written again"
            )
            sys.stderr.write(f"{'error' if self.failing else 'note'}: {self.baseFilename}: {said}\n")

    def handleError(self, record: logging.LogRecord) -> None:
        """Note that the disk refuses it; anything else is told at length."""
        if isinstance(sys.exc_info()[1], OSError):
            self.failing = True
        else:
            super().handleError(record)

    def close(self) -> None:
        """Close it; what its disk does not take is lost."""
        with contextlib.suppress(OSError):
            super().close()


class _EventCounter(logging.Handler):
    """Count what is logged with ``extra={"event": ...}``."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if isinstance(event, str):
            self.counts[event] += 1


@contextlib.contextmanager
def json_log(file: Path, *, rotate: bool = False, **fields: Any) -> Iterator[Counter[str]]:
    """Write all that the package logs to a file as JSON lines.

    Parameters
    ----------
    file : Path
        Log file; lines are added to it.
    rotate : bool
        Begin a new one when it has grown large.
    **fields
        Put on every line, for example ``run_id``.

    Yields
    ------
    Counter
        How often each ``event`` was logged so far.
    """
    size, old = (LOG_BYTES, OLD_LOGS) if rotate else (0, 0)
    handler = _LogFile(file, maxBytes=size, backupCount=old, encoding="utf-8")
    handler.setFormatter(JsonFormatter(**fields))
    counter = _EventCounter()
    package = logging.getLogger(ROOT)
    before = package.level
    package.setLevel(min(logging.INFO, package.getEffectiveLevel()))
    for h in (handler, counter):
        h.setLevel(logging.INFO)
        package.addHandler(h)
    try:
        yield counter.counts
    finally:
        for h in (handler, counter):
            package.removeHandler(h)
        handler.close()
        package.setLevel(before)
