"""Values that no receiver makes: not finite, or beyond all measure."""

from __future__ import annotations

import math

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Vis

__all__ = ["flag_impossible"]

#: No sky is so many times the median visibility of a block: what is comes from memory that was never written,
#: or from a conversion that went wrong.
BEYOND_ALL_MEASURE = 1e6
#: Where there are such values, whatever is so many times the median is taken to be of the same making.
BESIDE_THEM = 30.0
#: Squares of larger values leave the range of single precision.
LARGEST = 1e18
#: Visibilities that tell the median, about.
MEDIAN_OF = 4096


def flag_impossible(data: Vis, flag: Bool) -> int:
    """Flag, in place, what is not finite or beyond all measure.

    Parameters
    ----------
    data : ndarray of complex64, shape (nrow, nchan, ncorr)
        Visibilities.
    flag : ndarray of bool, same shape
        True where they are not used.

    Returns
    -------
    int
        How many finite visibilities were beyond all measure and not flagged.
    """
    flat, flagged = data.reshape(-1), flag.reshape(-1)
    # A step without a common divisor comes to all channels and correlations.
    step = max(1, flat.size // MEDIAN_OF)
    while math.gcd(step, math.prod(data.shape[1:])) > 1:
        step += 1
    some = flat[::step][~flagged[::step]]
    amplitude = np.abs(some[np.isfinite(some) & (some != 0)].astype(np.complex128))
    typical = float(np.median(amplitude)) if amplitude.size else LARGEST
    found = int(_flag_beyond(flat, flagged, np.float32(min(LARGEST, BEYOND_ALL_MEASURE * typical))))
    if found:
        found += int(_flag_beyond(flat, flagged, np.float32(min(LARGEST, BESIDE_THEM * typical))))
    return found


@numba.njit(parallel=True, cache=True)
def _flag_beyond(data: Vis, flag: Bool, limit: np.float32) -> int:
    found = 0
    for k in numba.prange(data.size):
        real, imag = data[k].real, data[k].imag
        if not (abs(real) <= limit and abs(imag) <= limit):
            if not flag[k] and np.isfinite(real) and np.isfinite(imag):
                found += 1
            flag[k] = True
    return found
