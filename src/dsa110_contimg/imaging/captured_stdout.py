"""Keep what compiled engines print off the standard output."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["captured_stdout"]

log = logging.getLogger("dsa110_contimg.imaging")

_LIBC = ctypes.CDLL(None)
# File descriptor 1 belongs to the whole process: overlapping redirections would restore each other's target.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def captured_stdout() -> Iterator[None]:
    """Send what arrives on the standard output to the log, line by line, at level DEBUG.

    Radler hands its C++ stream to Python's `sys.stdout` while it works, other libraries write to file
    descriptor 1: both are redirected, and restored in every case. It does not matter whether `sys.stdout`
    writes to the descriptor or has been replaced. Where a process has no descriptor 1, `sys.stdout` alone is
    redirected.
    """
    captured = io.StringIO()
    try:
        with _captured_descriptor(), contextlib.redirect_stdout(captured):
            yield
    finally:
        _log_lines(captured.getvalue())


@contextlib.contextmanager
def _captured_descriptor() -> Iterator[None]:
    with _ONE_AT_A_TIME:
        _flush()
        try:
            saved = os.dup(1)
        except OSError:
            yield
            return
        sink = os.memfd_create("imaging-stdout")
        try:
            os.dup2(sink, 1)
            try:
                yield
            finally:
                _flush()
                os.dup2(saved, 1)
        finally:
            os.close(saved)
            size = os.lseek(sink, 0, os.SEEK_CUR)
            text = os.pread(sink, size, 0).decode(errors="replace")
            os.close(sink)
            _log_lines(text)


def _log_lines(text: str) -> None:
    for line in text.splitlines():
        if line.strip():
            log.debug("%s", line.strip())


def _flush() -> None:
    """Empty the buffers above descriptor 1, so that no text ends on the wrong side of a redirection."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stdout.flush()
    _LIBC.fflush(None)
