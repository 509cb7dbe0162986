"""How much a source varies, from its fluxes or from sums over them.

Modulation index V and reduced chi-squared eta are those of Swinbank et al. (2015), Astron. Comput. 11, 25,
and Rowlinson et al. (2019), Astron. Comput. 27, 111.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats

from dsa110_contimg.array_types import Float

__all__ = ["SUMS", "Variability", "sparkline", "structure_function", "sums_of", "variability"]

#: Sums that are kept of each source: number; weights 1/e^2, these times flux and its square; fluxes, their
#: squares, and the squares of their errors.
SUMS = ("n", "w", "wx", "wxx", "x", "xx", "ee")
BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
#: Most points of a light curve on a line of text.
MOST_LETTERS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Variability:
    """Metrics of sources, each of shape (n,); NaN with fewer than two fluxes.

    Attributes
    ----------
    mean_jy, mean_error_jy : ndarray
        Weighted mean flux and its error.
    modulation, modulation_error : ndarray
        V: standard deviation over mean, with what the errors of the fluxes make of it.
    intrinsic, intrinsic_error : ndarray
        The same with the errors of the fluxes taken out of the variance; zero where they explain it.
    eta, eta_error : ndarray
        Reduced chi-squared about the weighted mean: one for a constant source.
    probability : ndarray
        That a constant source would have such an eta or a larger one.
    """

    mean_jy: Float
    mean_error_jy: Float
    modulation: Float
    modulation_error: Float
    intrinsic: Float
    intrinsic_error: Float
    eta: Float
    eta_error: Float
    probability: Float


def sums_of(flux_jy: Float, error_jy: Float) -> Float:
    """Sum up a light curve, shape (7,): what `SUMS` names."""
    w = 1 / error_jy**2
    return np.array(
        [
            flux_jy.size,
            w.sum(),
            (w * flux_jy).sum(),
            (w * flux_jy**2).sum(),
            flux_jy.sum(),
            (flux_jy**2).sum(),
            (error_jy**2).sum(),
        ]
    )


def variability(sums: Float) -> Variability:
    """Work out the metrics.

    Parameters
    ----------
    sums : ndarray, shape (n, 7)
        Of :func:`sums_of`.

    Notes
    -----
    With N fluxes ``x`` of errors ``e``, mean ``m`` and standard deviation ``s``::

        V = s / m
        eta = sum((x - m_w)^2 / e^2) / (N - 1),  m_w weighted by 1 / e^2

    Their errors are those of the moments of normal variables: ``V sqrt(1 / (2 (N - 1)) + V^2 / N)``, and
    ``sqrt(2 (2 eta - 1) / (N - 1))`` where eta is above one, ``sqrt(2 / (N - 1))`` below.
    """
    n, w, wx, wxx, x, xx, ee = np.asarray(sums, dtype=np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(n >= 2, n, np.nan)
        mean, plain = wx / w, x / n
        variance = np.maximum(xx - x**2 / n, 0) / (n - 1)
        v = np.sqrt(variance) / np.abs(plain)
        eta = np.maximum(wxx - wx**2 / w, 0) / (n - 1)
        left = np.maximum(variance - ee / n, 0)
        intrinsic = np.sqrt(left) / np.abs(plain)
        of_variance = variance * np.sqrt(2 / (n - 1)) / plain**2
        return Variability(
            mean_jy=mean,
            mean_error_jy=1 / np.sqrt(w),
            modulation=v,
            modulation_error=v * np.sqrt(0.5 / (n - 1) + v**2 / n),
            intrinsic=intrinsic,
            # Where nothing is left, what could be hidden.
            intrinsic_error=np.where(
                intrinsic**2 > of_variance, of_variance / (2 * intrinsic), np.sqrt(of_variance)
            ),
            eta=eta,
            eta_error=np.sqrt(2 * np.maximum(2 * eta - 1, 1) / (n - 1)),
            probability=scipy.stats.chi2.sf(eta * (n - 1), n - 1),
        )


def structure_function(mjd: Float, flux_jy: Float, error_jy: Float) -> list[tuple[float, float, int]]:
    """Return how far apart fluxes are by how far apart in time.

    Parameters
    ----------
    mjd : ndarray, shape (n,)
        Times in days.
    flux_jy, error_jy : ndarray, shape (n,)
        Fluxes and their errors.

    Returns
    -------
    list of (float, float, int)
        Lag in days, the middle of a factor of two; ``sqrt(<(x_i - x_j)^2 - e_i^2 - e_j^2>)`` over the mean
        flux, zero where the errors explain it; number of pairs.
    """
    first, second = np.triu_indices(mjd.size, 1)
    lag = np.abs(mjd[second] - mjd[first])
    square = (flux_jy[second] - flux_jy[first]) ** 2 - error_jy[second] ** 2 - error_jy[first] ** 2
    octave = np.floor(np.log2(np.maximum(lag, 1e-6))).astype(int)
    found, mean = [], float(np.mean(flux_jy)) if flux_jy.size else 1.0
    for k in np.unique(octave):
        some = octave == k
        value = max(float(square[some].mean()), 0.0) ** 0.5 / abs(mean)
        found.append((float(2.0**k * 2**0.5), value, int(some.sum())))
    return found


def sparkline(flux_jy: Float) -> str:
    """Draw fluxes in a line of text, from the least to the most; of many, means of neighbours."""
    if not flux_jy.size:
        return ""
    parts = np.array_split(flux_jy, min(flux_jy.size, MOST_LETTERS))
    values = np.array([part.mean() for part in parts])
    low, span = values.min(), float(np.ptp(values)) or 1.0
    return "".join(BLOCKS[int(min(7, 8 * (v - low) / span))] for v in values)
