"""Progress of long work, told to whoever wants to know."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["LogProgress", "Progress"]

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Progress(Protocol):
    """What long-running functions report to."""

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through, counting them against `total`."""
        ...

    def note(self, text: str) -> None:
        """Say in a line what has been found or begins."""
        ...


class LogProgress:
    """Notes go to the log; nothing is drawn."""

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through."""
        logger.debug("%s: %d steps", label, total)
        yield from items

    def note(self, text: str) -> None:
        """Log a line."""
        logger.info(text)
