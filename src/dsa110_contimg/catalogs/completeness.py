"""How faint a list of sources is complete, from its own counts."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float

__all__ = ["completeness_limit"]

BIN_DEX = 0.05
FIT_DEX = 0.8
COMPLETE = 0.9
LEAST_SOURCES = 500


def completeness_limit(flux_mjy: Float) -> float | None:
    """Estimate the flux density above which nine sources in ten are listed.

    Parameters
    ----------
    flux_mjy : ndarray, shape (n,)
        Flux densities in millijansky.

    Returns
    -------
    float or None
        Millijansky; None for too few sources, 500.

    Notes
    -----
    Counts in bins of 0.05 dex follow a power law over a decade of flux to within a few per cent at 1.4 GHz
    (Condon 1984, ApJ 287, 461). The law is fitted from 0.2 to 1 dex above the fullest bin; the limit is the
    lower edge of the faintest bin from which on all hold at least 0.9 of what the law carried on would give.
    """
    flux = flux_mjy[flux_mjy > 0.0]
    if len(flux) < LEAST_SOURCES:
        return None
    low = float(np.log10(flux.min()))
    n_bins = max(2, int(np.ceil((np.log10(flux.max()) - low) / BIN_DEX)))
    edges = low + BIN_DEX * np.arange(n_bins + 1)
    counts = np.histogram(np.log10(flux), edges)[0].astype(float)
    fullest = int(counts.argmax())
    begin = fullest + round(0.2 / BIN_DEX)
    middle = edges[:-1] + BIN_DEX / 2
    fitted = np.arange(begin, min(n_bins, begin + round(FIT_DEX / BIN_DEX)))
    fitted = fitted[counts[fitted] > 0]
    if len(fitted) < 4:
        return None
    slope, offset = np.polyfit(middle[fitted], np.log(counts[fitted]), 1, w=np.sqrt(counts[fitted]))
    expected = np.exp(offset + slope * middle[:begin])
    # Chance alone must not make a bin poor.
    poor = np.flatnonzero(counts[:begin] < COMPLETE * expected - 2.0 * np.sqrt(expected))
    return float(10 ** edges[poor[-1] + 1 if len(poor) else 0])
