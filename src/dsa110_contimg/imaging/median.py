"""Medians of images, exactly, by counting: several times as fast as partial sorting on a single core."""

from __future__ import annotations

import numba
import numpy as np

from dsa110_contimg.array_types import Int, Single

__all__ = ["median_of"]

#: Up to so many values sorting is as fast.
FEW = 10_000
#: Bits of a number that are counted at a time.
HALF = 16


def median_of(values: Single) -> np.float32:
    """Return the median of single-precision numbers.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        At least one.

    Returns
    -------
    float32
        As ``numpy.median`` has it: not a number if any of the values is.
    """
    k = values.size // 2
    if values.size <= FEW:
        if np.isnan(values).any():
            return np.float32(np.nan)
        parts = np.partition(values, k)
        low = parts[k] if values.size % 2 else parts[:k].max()
        return np.float32((low + parts[k]) / 2)
    values = np.ascontiguousarray(values, dtype=np.float32)
    n_tasks = numba.get_num_threads()
    upper, has_nan = _count_upper(values, n_tasks)
    if has_nan:
        return np.float32(np.nan)
    before = np.cumsum(upper)
    ranks = (k,) if values.size % 2 else (k - 1, k)
    found = []
    for rank in ranks:
        half = int(np.searchsorted(before, rank, side="right"))
        below = rank - (int(before[half - 1]) if half else 0)
        lower = np.cumsum(_count_lower(values, half, n_tasks))
        found.append((half << HALF) | int(np.searchsorted(lower, below, side="right")))
    keys = np.array(found, dtype=np.uint32)
    # The keys of :func:`_key`, undone.
    negative = keys < np.uint32(1 << 31)
    bits = np.where(negative, ~keys, keys & np.uint32((1 << 31) - 1)).astype(np.uint32)
    return np.float32(bits.view(np.float32).mean(dtype=np.float32))


@numba.njit(inline="always")
def _key(bits: int) -> int:
    """Order-preserving integers of the bits of single-precision numbers: negative ones run backwards."""
    return np.uint32(~bits) if bits >> np.uint32(31) else np.uint32(bits | np.uint32(0x80000000))  # type: ignore[return-value]


@numba.njit(parallel=True, cache=True)
def _count_upper(values: Single, n_tasks: int) -> tuple[Int, bool]:
    counts = np.zeros((n_tasks, 1 << HALF), dtype=np.int64)
    nans = np.zeros(n_tasks, dtype=np.int64)
    bits = values.view(np.uint32)
    for task in numba.prange(n_tasks):
        of_task = counts[task]
        for i in range(task * bits.size // n_tasks, (task + 1) * bits.size // n_tasks):
            of_task[_key(bits[i]) >> np.uint32(HALF)] += 1
            if np.isnan(values[i]):
                nans[task] += 1
    return counts.sum(axis=0), nans.sum() > 0


@numba.njit(parallel=True, cache=True)
def _count_lower(values: Single, half: int, n_tasks: int) -> Int:
    counts = np.zeros((n_tasks, 1 << HALF), dtype=np.int64)
    bits = values.view(np.uint32)
    for task in numba.prange(n_tasks):
        of_task = counts[task]
        for i in range(task * bits.size // n_tasks, (task + 1) * bits.size // n_tasks):
            key = _key(bits[i])
            if key >> np.uint32(HALF) == half:
                of_task[key & np.uint32(0xFFFF)] += 1
    total: Int = np.sum(counts, axis=0)
    return total
