"""How many radio sources there are: published counts at 1.4 GHz."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float

__all__ = ["BRIGHTEST_JY", "FAINTEST_JY", "counts_above", "differential_counts", "flux_above"]

#: Coefficients of Hopkins et al. (2003, AJ 125, 465), equation 3: the sixth-order fit to the counts of the
#: Phoenix survey and of others, 0.05 mJy to 1 Jy.
_FIT = (0.859, 0.508, 0.376, -0.049, -0.121, 0.057, -0.008)
#: Its coefficients are published to three digits, which no longer fix it in the janskys. From 0.15 Jy on
#: counts go on as in a Euclidean universe, S^-2.5, which is what NVSS lists to 15 % (tests); what is brighter
#: than 10 Jy is known by name (`dsa110_contimg.catalogs.bright_sources`).
FAINTEST_JY, FIT_ENDS_JY, BRIGHTEST_JY = 5e-5, 0.15, 10.0


def differential_counts(flux_jy: Float) -> Float:
    """Return dN/dS at 1.4 GHz.

    Parameters
    ----------
    flux_jy : ndarray, shape (n,)
        Flux density in jansky.

    Returns
    -------
    ndarray, shape (n,)
        Sources per jansky and steradian; zero outside 0.05 mJy to 10 Jy.

    Notes
    -----
    ``log10 (dN/dS S^2.5) = sum_i a_i (log10 S/mJy)^i`` (Hopkins et al. 2003, AJ 125, 465, equation 3).
    """
    flux = np.asarray(flux_jy, dtype=np.float64)
    x = np.log10(np.clip(flux, FAINTEST_JY, FIT_ENDS_JY) * 1e3)
    counts = 10 ** np.polynomial.polynomial.polyval(x, _FIT) * np.maximum(flux, 1e-12) ** -2.5
    return np.where((flux >= FAINTEST_JY) & (flux <= BRIGHTEST_JY), counts, 0.0)


def _grid(low_jy: float) -> Float:
    low = min(max(low_jy, FAINTEST_JY), BRIGHTEST_JY)
    return np.geomspace(low, BRIGHTEST_JY, 400)


def counts_above(flux_jy: float) -> float:
    """Return the number of sources per steradian above a flux density (jansky, 1.4 GHz)."""
    flux = _grid(flux_jy)
    return float(np.trapezoid(differential_counts(flux) * flux, np.log(flux)))


def flux_above(flux_jy: float) -> tuple[float, float]:
    """Return what sources above a flux density add up to, per steradian.

    Parameters
    ----------
    flux_jy : float
        Jansky, 1.4 GHz.

    Returns
    -------
    total, squared : float
        The sum of their fluxes in jansky, and that of their squares: the variance of the former.
    """
    flux = _grid(flux_jy)
    counts = differential_counts(flux) * flux
    return (
        float(np.trapezoid(counts * flux, np.log(flux))),
        float(np.trapezoid(counts * flux**2, np.log(flux))),
    )
