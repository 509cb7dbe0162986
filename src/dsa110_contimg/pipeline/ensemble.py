"""The flux scale of an observation against all others, from sources that do not vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.imaging.measure import MAD_TO_SIGMA

__all__ = ["FEWEST", "EnsembleScale", "ensemble_scale"]

#: With fewer sources nothing is known.
FEWEST = 8
#: What is further off than so many sigma varies, or is disturbed.
CLIP, PASSES = 4.0, 10


@dataclass(frozen=True)
class EnsembleScale:
    """Fluxes of an observation over those of others: factor, relative error, number of sources."""

    scale: float
    error: float
    n: int


def ensemble_scale(
    flux_jy: Float, error_jy: Float, reference_jy: Float, reference_error_jy: Float
) -> EnsembleScale:
    """Find the factor by which the fluxes of an observation are off.

    Parameters
    ----------
    flux_jy, error_jy : ndarray, shape (n,)
        Of sources in the observation, without the error of its scale.
    reference_jy, reference_error_jy : ndarray, shape (n,)
        Of the same sources in other observations, or in the catalogue.

    Returns
    -------
    EnsembleScale
        Of one, with the scatter of a source for error, where there are too few.

    Notes
    -----
    The weighted mean of the ratios of the fluxes, without those more than four sigma from it. Its error is
    that of the weights, or that by the scatter if that is larger.
    """
    n = flux_jy.size
    if n < FEWEST:
        return EnsembleScale(1.0, 0.1 / max(n, 1) ** 0.5, n)
    ratio = flux_jy / reference_jy
    sigma = np.abs(ratio) * np.hypot(error_jy / flux_jy, reference_error_jy / reference_jy)
    kept, scale, times = np.ones(n, dtype=bool), float(np.median(ratio)), 1.0
    for _ in range(PASSES):
        pull = (ratio - scale) / sigma
        times = max(1.0, MAD_TO_SIGMA * float(np.median(np.abs(pull))))
        inside = np.abs(pull) <= CLIP * times
        if np.count_nonzero(inside) < FEWEST:
            break
        settled = np.array_equal(inside, kept)
        kept = inside
        scale = float(np.average(ratio[kept], weights=1 / sigma[kept] ** 2))
        if settled:
            break
    error = times / float(np.sqrt((1 / sigma[kept] ** 2).sum()))
    return EnsembleScale(scale, error / scale, int(np.count_nonzero(kept)))
