"""What an image is worth: noise, dynamic range, and fluxes and positions against the catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Bool, Float, Image, Int
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.grid import ARCSEC, ImageGrid
from dsa110_contimg.imaging.median import median_of
from dsa110_contimg.imaging.restoring_beam import RestoringBeam

__all__ = [
    "ImageMetrics",
    "SourceFit",
    "compare_sources",
    "fit_source",
    "mad_rms",
    "measure_image",
    "off_source_or_sources_alone",
    "off_source_region",
]

MAD_TO_SIGMA = 1.4826  # of a normal distribution
OFF_SOURCE_BEAMS = 3.0
MIN_OFF_SOURCE = 0.05
ISOLATION_BEAMS = 3.0
ISOLATION_FLUX = 0.1
MIN_COMPARISON_SIGMA = 10.0
FEWEST_LINES = 3  # that tell a parabola


@dataclass(frozen=True)
class ImageMetrics:
    """Figures of one image.

    Parameters
    ----------
    snr : float
        Peak over rms.
    rms_jy : float
        1.4826 x median absolute deviation over the off-source region, Jy/beam.
    peak_jy : float
        Highest pixel, Jy/beam.
    peak_position : tuple of float
        Its ICRS right ascension and declination, radians.
    dynamic_range : float
        Peak over the absolute value of the most negative pixel.
    min_jy : float
        Most negative pixel, Jy/beam.
    thermal_rms_jy : float
        What thermal noise alone would give.
    thermal_ratio : float
        rms over thermal rms.
    flux_ratio : float or None
        Median of image flux over apparent catalogue flux; None where no source qualifies.
    flux_ratio_n : int
        Sources in that median.
    offset_arcsec : tuple of float or None
        Median of image minus catalogue position, (dRA cos Dec, dDec), of the same sources.
    """

    snr: float
    rms_jy: float
    peak_jy: float
    peak_position: tuple[float, float]
    dynamic_range: float
    min_jy: float
    thermal_rms_jy: float
    thermal_ratio: float
    flux_ratio: float | None
    flux_ratio_n: int
    offset_arcsec: tuple[float, float] | None


@dataclass(frozen=True)
class SourceFit:
    """Sub-pixel maximum of a source; all NaN where there is none.

    Parameters
    ----------
    x, y : float
        Position in pixels, counted from 0.
    peak_jy : float
        Fitted peak, Jy/beam.
    """

    x: float
    y: float
    peak_jy: float


NO_FIT = SourceFit(math.nan, math.nan, math.nan)


def off_source_or_sources_alone(
    grid: ImageGrid,
    source_l: ArrayLike,
    source_m: ArrayLike,
    model_image: Image | None,
    beam: RestoringBeam,
) -> Bool:
    """Off-source pixels; where clean components leave hardly any, those that keep off the sources alone.

    So many components are false ones, on bad data. Parameters as of :func:`off_source_region`.

    Raises
    ------
    ImagingError
        If the sources alone leave less than 5 % of the pixels.
    """
    try:
        return off_source_region(grid, source_l, source_m, model_image, beam)
    except ImagingError:
        return off_source_region(grid, source_l, source_m, None, beam)


def off_source_region(
    grid: ImageGrid,
    source_l: ArrayLike,
    source_m: ArrayLike,
    model_image: Image | None,
    beam: RestoringBeam,
) -> Bool:
    """Pixels more than three beams from every source and every clean component.

    Parameters
    ----------
    grid : ImageGrid
        Grid of the image.
    source_l, source_m : array_like, shape (n,)
        Direction cosines of the sources above 5 sigma; those outside the image count as far as they reach in.
    model_image : ndarray, float32, shape (size, size), optional
        Every pixel that is not 0 is a clean component.
    beam : RestoringBeam
        Three times its major axis is the distance kept; across a beam so long that nothing is left then,
        three times its minor axis.

    Returns
    -------
    ndarray, bool, shape (size, size)
        True off source.

    Raises
    ------
    ImagingError
        If less than 5 % of the pixels are left.
    """
    x, y = (np.atleast_1d(axis) for axis in grid.lm_to_pixel(source_l, source_m))
    if model_image is not None:
        rows, columns = np.nonzero(model_image)
        x, y = np.concatenate([x, columns]), np.concatenate([y, rows])
    known = np.isfinite(x) & np.isfinite(y)
    region = np.ones((grid.size, grid.size), np.bool_)
    _cut_discs(region, x[known], y[known], OFF_SOURCE_BEAMS * beam.major_rad / grid.cell_rad)
    if region.mean() < MIN_OFF_SOURCE:
        # The beam of few baselines is long: round what is cut, nothing is left beside it.
        region[:] = True
        beams = OFF_SOURCE_BEAMS / grid.cell_rad
        major, minor = beams * beam.major_rad, beams * beam.minor_rad
        _cut_ellipses(region, x[known], y[known], major, minor, beam.pa_rad)
    if region.mean() < MIN_OFF_SOURCE:
        raise ImagingError(
            f"only {100 * region.mean():.1f} % of the image is off source",
            f"{known.sum()} sources and clean components",
            "use a larger image, or clean less deep",
        )
    return region


def mad_rms(image: Image, region: Bool | None = None) -> float:
    """Robust rms, 1.4826 x median absolute deviation, over a region or the whole image; NaN if empty."""
    values = image.ravel() if region is None else image[region]
    if not values.size:
        return math.nan
    return float(MAD_TO_SIGMA * median_of(np.abs(values - median_of(values))))


def fit_source(image: Image, x: float, y: float, beam: RestoringBeam, grid: ImageGrid) -> SourceFit:
    """Position and peak of the source nearest to a catalogue position.

    The highest pixel within one beam (major axis) is the start; a second-order polynomial is fitted to the
    logarithm of the pixels above half of it, nine at least and in three rows and columns, in a box of one
    beam, weighted by the square of their value: exact for any Gaussian, and with the noise of the pixel
    values weighted evenly.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Jy/beam.
    x, y : float
        Where to look, pixels counted from 0.
    beam : RestoringBeam
        Beam of the image.
    grid : ImageGrid
        Its grid.

    Returns
    -------
    SourceFit
        All NaN where the search box leaves the image, or where it has no positive maximum.
    """
    fwhm = beam.major_rad / grid.cell_rad
    reach = math.ceil(fwhm)
    if not reach <= x < grid.size - reach - 1 or not reach <= y < grid.size - reach - 1:
        return NO_FIT
    rows, columns = np.mgrid[round(y) - reach : round(y) + reach + 1, round(x) - reach : round(x) + reach + 1]
    near = (rows - y) ** 2 + (columns - x) ** 2 <= max(fwhm, 1.0) ** 2
    best = int(np.argmax(np.where(near, image[rows, columns], -np.inf)))
    top, left = rows.flat[best], columns.flat[best]
    half = max(1, math.ceil(fwhm / 2))
    if min(top, left) < half or max(top, left) >= grid.size - half:
        return NO_FIT
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    box = image[top + dy, left + dx].astype(np.float64)
    # A beam of few pixels has too few above half its peak, or has them in two rows: more of the highest then.
    highest = np.sort(box, axis=None)[::-1]
    least = min(0.5 * box[half, half], highest[8])
    least = next((v for v in (least, *highest[highest < least]) if _spans(box >= v)), math.inf)
    use = (box > 0) & (box >= least)
    if not box[half, half] > 0 or not _spans(use):
        return NO_FIT
    value, u, v = box[use], dx[use].astype(float), dy[use].astype(float)
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
    c0, cu, cv, cuu, cuv, cvv = np.linalg.lstsq(terms * value[:, None], np.log(value) * value, rcond=None)[0]
    determinant = 4 * cuu * cvv - cuv**2
    if not (cuu < 0 and determinant > 0):
        return NO_FIT
    du = (cuv * cv - 2 * cvv * cu) / determinant
    dv = (cuv * cu - 2 * cuu * cv) / determinant
    if max(abs(du), abs(dv)) > half:
        return NO_FIT
    return SourceFit(float(left + du), float(top + dv), float(np.exp(c0 + (cu * du + cv * dv) / 2)))


def _spans(use: Bool) -> bool:
    """Whether pixels tell a parabola in either direction: three rows and three columns hold some."""
    return bool(use.any(axis=0).sum() >= FEWEST_LINES and use.any(axis=1).sum() >= FEWEST_LINES)


def measure_image(
    image: Image,
    grid: ImageGrid,
    beam: RestoringBeam,
    region: Bool,
    *,
    thermal_rms_jy: float,
    ra_rad: ArrayLike = (),
    dec_rad: ArrayLike = (),
    flux_jy: ArrayLike = (),
    is_point: ArrayLike = (),
) -> ImageMetrics:
    """Measure a restored image against its noise and a list of catalogued sources.

    Compared are the unresolved sources above 10 sigma inside the image that have no other one brighter than a
    tenth of them within three beams.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Restored image, Jy/beam, not corrected for the primary beam.
    grid : ImageGrid
        Its grid.
    beam : RestoringBeam
        Its beam.
    region : ndarray, bool, shape (size, size)
        Where to measure the rms: `off_source_region`.
    thermal_rms_jy : float
        Thermal rms of the image, `Imager.thermal_rms`.
    ra_rad, dec_rad : array_like, shape (n,)
        ICRS positions of the sources.
    flux_jy : array_like, shape (n,)
        Apparent flux densities (beam applied).
    is_point : array_like of bool, shape (n,)
        True where unresolved.

    Raises
    ------
    ImagingError
        If the image is not finite or the region is empty.
    """
    if not np.isfinite(image).all():
        raise ImagingError("image is not finite", "restored image", "check the data and the clean depth")
    if not region.any():
        raise ImagingError("off-source region is empty", "restored image")
    rms = mad_rms(image, region)
    top, left = divmod(int(np.argmax(image)), grid.size)
    peak, lowest = float(image[top, left]), float(image.min())
    ra, dec = grid.pixel_to_sky(left, top)
    _, ratios, offsets = compare_sources(
        image, grid, beam, rms, *(np.asarray(a) for a in (ra_rad, dec_rad, flux_jy, is_point))
    )
    return ImageMetrics(
        snr=_ratio(peak, rms),
        rms_jy=rms,
        peak_jy=peak,
        peak_position=(float(ra), float(dec)),
        dynamic_range=_ratio(peak, -lowest),
        min_jy=lowest,
        thermal_rms_jy=thermal_rms_jy,
        thermal_ratio=_ratio(rms, thermal_rms_jy),
        flux_ratio=float(np.median(ratios)) if len(ratios) else None,
        flux_ratio_n=len(ratios),
        offset_arcsec=(float(np.median(offsets[:, 0])), float(np.median(offsets[:, 1])))
        if len(ratios)
        else None,
    )


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.inf


def compare_sources(
    image: Image,
    grid: ImageGrid,
    beam: RestoringBeam,
    rms_jy: float,
    ra_rad: Float,
    dec_rad: Float,
    flux_jy: Float,
    is_point: Bool,
) -> tuple[Int, Float, Float]:
    """Hold the sources of a restored image that can be compared against a catalogue, one by one.

    Parameters
    ----------
    image, grid, beam, ra_rad, dec_rad, flux_jy, is_point
        As of :func:`measure_image`.
    rms_jy : float
        Noise of the image, Jy/beam.

    Returns
    -------
    index : ndarray of int, shape (k,)
        Which sources these are.
    ratio : ndarray, shape (k,)
        Flux in the image over that in the catalogue.
    offset_arcsec : ndarray, shape (k, 2)
        Image minus catalogue position, (dRA cos Dec, dDec).
    """
    x, y = grid.sky_to_pixel(ra_rad, dec_rad)
    near = ISOLATION_BEAMS * beam.major_rad / grid.cell_rad
    index, ratios, offsets = [], [], []
    for k in np.flatnonzero(
        is_point.astype(bool) & (flux_jy > MIN_COMPARISON_SIGMA * rms_jy) & np.isfinite(x)
    ):
        others = (x - x[k]) ** 2 + (y - y[k]) ** 2 < near**2
        others[k] = False
        if (flux_jy[others] > ISOLATION_FLUX * flux_jy[k]).any():
            continue
        fit = fit_source(image, x[k], y[k], beam, grid)
        if math.isnan(fit.peak_jy):
            continue
        fit_ra, fit_dec = grid.pixel_to_sky(fit.x, fit.y)
        dra = (float(fit_ra) - ra_rad[k] + math.pi) % (2 * math.pi) - math.pi
        index.append(int(k))
        ratios.append(fit.peak_jy / flux_jy[k])
        offsets.append((dra * math.cos(dec_rad[k]) / ARCSEC, (float(fit_dec) - dec_rad[k]) / ARCSEC))
    return np.array(index, dtype=np.int64), np.array(ratios), np.array(offsets).reshape(-1, 2)


@numba.njit(nogil=True, cache=True)
def _cut_discs(region: Bool, x: Float, y: Float, radius: float) -> None:
    size = region.shape[0]
    for k in range(len(x)):
        if not (-radius <= x[k] <= size + radius and -radius <= y[k] <= size + radius):
            continue
        for j in range(max(0, math.ceil(y[k] - radius)), min(size, math.floor(y[k] + radius) + 1)):
            reach = math.sqrt(max(0.0, radius**2 - (j - y[k]) ** 2))
            for i in range(max(0, math.ceil(x[k] - reach)), min(size, math.floor(x[k] + reach) + 1)):
                region[j, i] = False


@numba.njit(nogil=True, cache=True)
def _cut_ellipses(region: Bool, x: Float, y: Float, major: float, minor: float, pa_rad: float) -> None:
    size, sin, cos = region.shape[0], math.sin(pa_rad), math.cos(pa_rad)
    for k in range(len(x)):
        for j in range(max(0, math.ceil(y[k] - major)), min(size, math.floor(y[k] + major) + 1)):
            for i in range(max(0, math.ceil(x[k] - major)), min(size, math.floor(x[k] + major) + 1)):
                # x grows to the west.
                along, across = -(i - x[k]) * sin + (j - y[k]) * cos, (i - x[k]) * cos + (j - y[k]) * sin
                if (along / major) ** 2 + (across / minor) ** 2 <= 1:
                    region[j, i] = False
