"""The restoring beam: fitting it, convolving with it, drawing Gaussians at exact positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike
from scipy.ndimage import label, map_coordinates
from scipy.optimize import least_squares

from dsa110_contimg.array_types import Float, Image
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.grid import ImageGrid

__all__ = ["POINT_SPREAD_FUNCTION", "RestoringBeam", "add_gaussians", "fit_beam", "restore"]

#: Where an error of its shape is said to be.
POINT_SPREAD_FUNCTION = "point spread function"

FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))

# CASA fits the part of the main lobe above this level, with height and centre fixed.
LOBE_CUT = 0.35

# Gaussians are drawn out to this many sigma, where they have fallen to 4e-9 of the peak.
REACH_SIGMA = 6.2


@dataclass(frozen=True)
class RestoringBeam:
    """Elliptical Gaussian beam.

    Parameters
    ----------
    major_rad, minor_rad : float
        Full widths at half maximum, radians.
    pa_rad : float
        Position angle of the major axis from north through east, in [-pi/2, pi/2).
    """

    major_rad: float
    minor_rad: float
    pa_rad: float

    @property
    def solid_angle_sr(self) -> float:
        """Integral of the beam with peak one."""
        return 2 * math.pi / FWHM_PER_SIGMA**2 * self.major_rad * self.minor_rad


def fit_beam(psf: Image, grid: ImageGrid) -> RestoringBeam:
    """Fit an elliptical Gaussian to the main lobe of a point spread function.

    As in CASA, height and centre are fixed and the fit runs over the connected pixels above 0.35. A lobe of
    fewer than 100 pixels is first interpolated to quarter pixels with a cubic spline.

    Parameters
    ----------
    psf : ndarray, float32, shape (size, size)
        Peak one at the centre.
    grid : ImageGrid
        Its grid.

    Raises
    ------
    ImagingError
        If the lobe is too small, reaches the border or is not like a Gaussian.
    """
    lobes, _ = label(psf > LOBE_CUT)
    main = lobes == lobes[grid.center, grid.center]
    if not psf[grid.center, grid.center] > LOBE_CUT or main.sum() < 5:
        raise ImagingError(
            "main lobe is less than 5 pixels large", POINT_SPREAD_FUNCTION, "use a smaller cell"
        )
    y, x = np.nonzero(main)
    if min(y.min(), x.min()) < 4 or max(y.max(), x.max()) > grid.size - 5:
        raise ImagingError(
            "main lobe reaches the border", POINT_SPREAD_FUNCTION, "use a larger cell or image"
        )
    values = psf[main]
    if len(values) < 100:
        margin = 4
        corner = np.array([y.min() - margin, x.min() - margin])
        cut = psf[corner[0] : y.max() + margin + 1, corner[1] : x.max() + margin + 1]
        fine = np.mgrid[0 : cut.shape[0] - 1 : 0.25, 0 : cut.shape[1] - 1 : 0.25]
        sampled = map_coordinates(cut, fine, order=3)
        lobes, _ = label(sampled > LOBE_CUT)
        start = 4 * (grid.center - corner)
        main = lobes == lobes[start[0], start[1]]
        y, x = fine[0][main] + corner[0], fine[1][main] + corner[1]
        values = sampled[main]
    dx, dy = x - float(grid.center), y - float(grid.center)
    basis = np.stack([dx * dx, 2 * dx * dy, dy * dy])
    # Half of the quadratic form: exp(-p . basis). The logarithm gives the start, exact for a Gaussian.
    first = np.linalg.lstsq(basis.T * values[:, None], -np.log(values) * values, rcond=None)[0]
    fit = least_squares(lambda p: np.exp(-p @ basis) - values, first, method="lm").x
    form = 2 * np.array([[fit[0], fit[1]], [fit[1], fit[2]]])
    if not np.isfinite(form).all() or np.linalg.eigvalsh(form)[0] <= 0:
        raise ImagingError("main lobe is not like a Gaussian", POINT_SPREAD_FUNCTION, "check the uv coverage")
    variances, axes = np.linalg.eigh(np.linalg.inv(form))
    minor, major = FWHM_PER_SIGMA * grid.cell_rad * np.sqrt(variances)
    # x grows to the west, so east is -x.
    pa = math.atan2(-axes[0, 1], axes[1, 1])
    return RestoringBeam(float(major), float(minor), (pa + math.pi / 2) % math.pi - math.pi / 2)


def restore(model_image: Image, beam: RestoringBeam, grid: ImageGrid, residual: Image) -> Image:
    """Residual plus the model convolved with the beam, Jy/beam.

    Parameters
    ----------
    model_image : ndarray, float32, shape (size, size)
        Jy/pixel.
    beam : RestoringBeam
        The Gaussian to convolve with; its peak is one, so a pixel of 1 Jy becomes 1 Jy/beam.
    grid : ImageGrid
        Grid of both images.
    residual : ndarray, float32, shape (size, size)
        Jy/beam.
    """
    if not model_image.any():
        return residual.copy()
    half = math.ceil(REACH_SIGMA * beam.major_rad / FWHM_PER_SIGMA / grid.cell_rad)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    (a, b), (_, c) = np.linalg.inv(_covariance(beam.major_rad, beam.minor_rad, beam.pa_rad, grid.cell_rad))
    kernel = np.exp(-0.5 * (a * x * x + 2 * b * x * y + c * y * y)).astype(np.float32)
    restored: Image = residual + _convolve(model_image, kernel)
    return restored


def _convolve(image: Image, kernel: Image) -> Image:
    """Convolve with a kernel of odd side, which does not shift; zero padding keeps the edges apart."""
    size, half = image.shape[0], kernel.shape[0] // 2
    shape = [scipy.fft.next_fast_len(size + 2 * half, real=True)] * 2
    transforms = [scipy.fft.rfft2(part, shape, workers=-1) for part in (image, kernel)]
    whole = scipy.fft.irfft2(transforms[0] * transforms[1], shape, workers=-1)
    convolved: Image = whole[half : half + size, half : half + size].astype(np.float32)
    return convolved


def add_gaussians(
    image: Image,
    grid: ImageGrid,
    l: ArrayLike,  # noqa: E741
    m: ArrayLike,
    flux_jy: ArrayLike,
    beam: RestoringBeam,
    major_rad: ArrayLike = 0.0,
    minor_rad: ArrayLike = 0.0,
    pa_rad: ArrayLike = 0.0,
) -> Image:
    """Image plus sky components drawn at their exact positions, convolved with the beam.

    A component of intrinsic widths (major, minor, pa) becomes a Gaussian with the sum of both covariances and
    the peak ``flux sqrt(|C_beam| / |C|)`` Jy/beam, which conserves its integrated flux.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Jy/beam; not changed.
    grid : ImageGrid
        Its grid.
    l, m : array_like, shape (n,)
        Direction cosines; components outside the image contribute what reaches into it, those at NaN nothing.
    flux_jy : array_like, shape (n,)
        Integrated flux densities.
    beam : RestoringBeam
        Beam of the image.
    major_rad, minor_rad, pa_rad : array_like, shape (n,) or scalar
        Intrinsic widths at half maximum and position angles; 0 for a point.
    """
    out = image.copy()
    x, y = grid.lm_to_pixel(l, m)
    x, y, flux, major, minor, pa = (
        np.ascontiguousarray(column, np.float64)
        for column in np.broadcast_arrays(
            np.atleast_1d(x), y, flux_jy, np.asarray(major_rad), np.asarray(minor_rad), np.asarray(pa_rad)
        )
    )
    restoring = _covariance(beam.major_rad, beam.minor_rad, beam.pa_rad, grid.cell_rad)
    total = restoring + np.moveaxis(_covariance(major, minor, pa, grid.cell_rad), -1, 0)
    peak = np.asarray(flux * np.sqrt(np.linalg.det(restoring) / np.linalg.det(total)), np.float64)
    inverse = np.asarray(np.linalg.inv(total), np.float64)
    visible = np.isfinite(x) & np.isfinite(y)
    _draw(out, x[visible], y[visible], peak[visible], inverse[visible], total[visible])
    return out


def _covariance(major: ArrayLike, minor: ArrayLike, pa: ArrayLike, cell: float) -> Float:
    """Covariance in square pixels, shape (2, 2, ...), of Gaussians in (x to the west, y to the north)."""
    along = (np.asarray(major) / (FWHM_PER_SIGMA * cell)) ** 2
    across = (np.asarray(minor) / (FWHM_PER_SIGMA * cell)) ** 2
    east, north = np.sin(pa), np.cos(pa)
    xx = along * east**2 + across * north**2
    yy = along * north**2 + across * east**2
    xy = (across - along) * east * north
    return np.array([[xx, xy], [xy, yy]])


@numba.njit(nogil=True, cache=True)
def _draw(
    image: Image,
    x: Float,
    y: Float,
    peak: Float,
    inverse: Float,
    covariance: Float,
) -> None:
    height, width = image.shape
    for k in range(len(x)):
        reach_x = REACH_SIGMA * math.sqrt(covariance[k, 0, 0])
        reach_y = REACH_SIGMA * math.sqrt(covariance[k, 1, 1])
        if not (-reach_x < x[k] < width + reach_x and -reach_y < y[k] < height + reach_y):
            continue
        for j in range(max(0, math.ceil(y[k] - reach_y)), min(height, math.floor(y[k] + reach_y) + 1)):
            dy = j - y[k]
            for i in range(max(0, math.ceil(x[k] - reach_x)), min(width, math.floor(x[k] + reach_x) + 1)):
                dx = i - x[k]
                form = (
                    inverse[k, 0, 0] * dx * dx + 2 * inverse[k, 0, 1] * dx * dy + inverse[k, 1, 1] * dy * dy
                )
                image[j, i] += peak[k] * math.exp(-0.5 * form)
