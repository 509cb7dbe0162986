"""Spectral windows of the same rows, brought together: what each of them needs is formed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["brought_together"]

T = TypeVar("T")


def brought_together(items: Iterable[tuple[tuple[int, ...], T]]) -> Iterator[list[T]]:
    """Yield what belongs together as soon as all of it is there.

    Parameters
    ----------
    items : iterable of (tuple of int, item)
        The numbers of the blocks that an item belongs with, its own among them, and the item.

    Yields
    ------
    list
        Items of one group, in the order in which they came; at the end those of groups that lack some.
    """
    waiting: dict[tuple[int, ...], list[T]] = {}
    for group, item in items:
        there = waiting.setdefault(group, [])
        there.append(item)
        if len(there) == len(group):
            yield waiting.pop(group)
    yield from waiting.values()
