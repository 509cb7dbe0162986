"""Solution intervals: which dump belongs to which."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float, Int

__all__ = ["solution_intervals"]


def solution_intervals(
    times_s: Float, dump_s: float, scan: Int, solint: str | float, combine_scans: bool = True
) -> Int:
    """Assign each dump to a solution interval.

    Parameters
    ----------
    times_s : ndarray, shape (ntime,)
        Time stamps, seconds, ascending.
    dump_s : float
        Length of a dump in seconds.
    scan : ndarray of int, shape (ntime,)
        Scan numbers.
    solint : str or float
        Seconds, or ``"int"`` for every dump, ``"scan"``, ``"inf"`` for all together.
    combine_scans : bool
        Let an interval in seconds cross scan boundaries.

    Returns
    -------
    ndarray of int, shape (ntime,)
        Interval of each dump, from zero, ascending.
    """
    n = times_s.size
    if solint == "inf":
        return np.zeros(n, dtype=np.int64)
    if solint == "int":
        return np.arange(n, dtype=np.int64)
    new_scan = np.concatenate([[False], np.diff(scan) != 0])
    if solint == "scan":
        return np.asarray(np.cumsum(new_scan), dtype=np.int64)
    length = float(solint)
    out = np.zeros(n, dtype=np.int64)
    start = times_s[0] - dump_s / 2
    for k in range(1, n):
        # A dump belongs to the interval that its middle falls into.
        crossed = times_s[k] - start >= length * (1 - 1e-9)
        if crossed or (new_scan[k] and not combine_scans):
            out[k] = out[k - 1] + 1
            start = times_s[k] - dump_s / 2
        else:
            out[k] = out[k - 1]
    return out
