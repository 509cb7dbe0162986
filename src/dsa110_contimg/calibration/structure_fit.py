"""The structure of a source that outshines its field, from visibility amplitudes alone.

Gains have no part in it but for their sizes, so that it can be known before they are, from any phases. The
price is an ambiguity: a source and its image turned by 180 degrees have the same amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize

from dsa110_contimg.array_types import Float
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["DoubleFit", "GaussianFit", "fit_double", "fit_gaussian"]

#: Separations that are tried, and samples that the search uses.
LONGEST_RAD = 150 * ARCSEC
SAMPLES = 8000
FEWEST_AMPLITUDES = 20
#: Squared amplitudes of a Gaussian fall by ``exp(-GAUSSIAN u^2 FWHM^2)``.
GAUSSIAN = np.pi**2 / (2 * np.log(2.0))
#: Part of the amplitudes that may be of interference.
MOST_WILD = 0.005
#: Widths that the search for a Gaussian begins with, and the part of the variance by which one has to be
#: better than those before.
FIRST_WIDTHS_ARCSEC, TOLD = (3.0, 15.0, 60.0), 1e-6
#: Most steps of the search along one axis.
MOST_STEPS = 120


@dataclass(frozen=True)
class DoubleFit:
    """Two points that the amplitudes ask for.

    Attributes
    ----------
    share : float
        Flux of the fainter point over that of both.
    separation_rad : (float, float)
        From one point to the other in l and m, radians.
    flux : float
        Flux of both, in the units of the amplitudes.
    unexplained : float
        Mean squared residual over that of a single point.
    """

    share: float
    separation_rad: tuple[float, float]
    flux: float
    unexplained: float


@dataclass(frozen=True)
class GaussianFit:
    """A Gaussian that the amplitudes ask for.

    Attributes
    ----------
    major_rad, minor_rad, pa_rad : float
        Full widths at half maximum, and position angle of the major axis, north through east, radians.
    flux : float
        Flux, in the units of the amplitudes.
    unexplained : float
        Mean squared residual over that of a point.
    """

    major_rad: float
    minor_rad: float
    pa_rad: float
    flux: float
    unexplained: float


def fit_gaussian(uv_wavelengths: Float, power: Float, weight: Float) -> GaussianFit | None:
    """Fit an elliptical Gaussian to squared visibility amplitudes.

    With the matrix S of its squared widths at half maximum the squared amplitude on a baseline u is
    ``F^2 exp(-(pi^2 / 2 ln 2) u^T S u)``. Turned by 180 degrees it is itself, unlike two points.

    Parameters
    ----------
    uv_wavelengths, power, weight
        As of :func:`fit_double`.

    Returns
    -------
    GaussianFit or None
        None if there are too few amplitudes.
    """
    some = _usable(uv_wavelengths, power, weight)
    if some is None:
        return None
    uv, y, w = some
    # Interference pulls a mean. What is resolved on most baselines is far above the typical on the others.
    y = np.minimum(y, 2 * float(np.quantile(y, 1 - MOST_WILD)))
    variance = float(w @ (y - float(w @ y)) ** 2)

    def spread(x: Float) -> Float:
        # Squares of a triangle keep the matrix positive.
        one, other = uv[:, 0] * x[0] + uv[:, 1] * x[1], uv[:, 1] * x[2]
        return np.asarray(GAUSSIAN * ARCSEC**2 * (one**2 + other**2))

    def residual(x: Float) -> Float:
        return np.asarray(np.sqrt(w) * (y - x[0] * np.exp(-spread(x[1:]))))

    best, found = np.inf, np.zeros(4)
    top = max(float(np.quantile(y, 1 - MOST_WILD)), 1e-12)
    for width in FIRST_WIDTHS_ARCSEC:
        start = np.array([top, width, 0.0, width])
        scale = np.array([top, width, width, width])
        fit = scipy.optimize.least_squares(residual, start, x_scale=scale)
        # An axis along which no baseline looks stays narrow.
        if fit.cost < best - TOLD * variance:
            best, found = float(fit.cost), fit.x
    total, p, q, r = (float(x) for x in found)
    squares, axes = np.linalg.eigh(np.array([[p * p, p * q], [p * q, q * q + r * r]]))
    minor, major = np.sqrt(np.maximum(squares, 0.0)) * ARCSEC
    return GaussianFit(
        major_rad=float(major),
        minor_rad=float(minor),
        pa_rad=float(np.arctan2(axes[0, 1], axes[1, 1])) % np.pi,
        flux=float(np.sqrt(max(total, 0.0))),
        unexplained=2 * best / max(variance, 1e-30),
    )


def _usable(uv_wavelengths: Float, power: Float, weight: Float) -> tuple[Float, Float, Float] | None:
    """Sample baselines, squared amplitudes and weights of sum one; None of too few."""
    used = np.flatnonzero((weight > 0) & np.isfinite(power))
    if used.size < FEWEST_AMPLITUDES:
        return None
    if used.size > SAMPLES:
        used = used[np.linspace(0, used.size - 1, SAMPLES).astype(int)]
    return uv_wavelengths[used], power[used], weight[used] / weight[used].sum()


def fit_double(uv_wavelengths: Float, power: Float, weight: Float) -> DoubleFit | None:
    """Fit two points to squared visibility amplitudes.

    With a share s of the flux S in one of two points that are d apart the squared amplitude on a baseline u
    is ``S^2 (1 - 4 s (1 - s) sin^2(pi u d))``.

    Parameters
    ----------
    uv_wavelengths : ndarray, shape (n, 2)
        Baselines.
    power : ndarray, shape (n,)
        Squared amplitudes, less their noise.
    weight : ndarray, shape (n,)
        Weights, zero where there is nothing.

    Returns
    -------
    DoubleFit or None
        None if there are too few amplitudes.
    """
    some = _usable(uv_wavelengths, power, weight)
    if some is None:
        return None
    uv, y, w = some
    # Interference and other sources pull a mean: no amplitude counts for more than a few typical ones.
    y = np.minimum(y, 4 * float(np.median(y)) + 1e-30)
    longest = float(np.hypot(*uv.T).max())
    steps = min(MOST_STEPS, max(4, int(np.ceil(LONGEST_RAD * longest * 3))))
    axis = np.linspace(-LONGEST_RAD, LONGEST_RAD, 2 * steps + 1)
    mean = float(w @ y)
    variance = float(w @ (y - mean) ** 2)
    best, found = 1.0, np.zeros(2)
    for m in axis[steps:]:
        phase = np.pi * (uv[:, :1] * axis + uv[:, 1:] * m)
        # Least squares of a constant and of the fringe, which is centred: what it explains of the variance.
        fringe = np.sin(phase) ** 2
        centred = fringe - w @ fringe
        power_of = np.maximum(w @ centred**2, 1e-12)
        along = (w * (y - mean)) @ centred
        explained = np.where(along < 0, along**2 / power_of, 0.0) / max(variance, 1e-30)
        k = int(np.argmax(explained))
        if 1 - explained[k] < best:
            best, found = float(1 - explained[k]), np.array([axis[k], m])

    def residual(x: Float) -> Float:
        model = x[0] * (1 - x[1] * np.sin(np.pi * (uv @ x[2:] * ARCSEC)) ** 2)
        return np.asarray(np.sqrt(w) * (y - model))

    start = np.array([float(np.quantile(y, 0.9)), 0.9, *(found / ARCSEC)])
    scale = np.array([max(start[0], 1e-12), 1.0, 1.0, 1.0])
    fit = scipy.optimize.least_squares(
        residual, start, x_scale=scale, bounds=([0, 0, -400, -400], [np.inf, 1, 400, 400])
    )
    total, depth, *apart = (float(x) for x in fit.x)
    share = (1 - np.sqrt(max(0.0, 1 - depth))) / 2
    return DoubleFit(
        share=float(share),
        separation_rad=(apart[0] * ARCSEC, apart[1] * ARCSEC),
        flux=float(np.sqrt(total)),
        unexplained=float(2 * fit.cost / max(variance, 1e-30)),
    )
