"""Sources in an image: flux at a known place, noise around it, and what stands out where nothing is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage

from dsa110_contimg.array_types import Bool, Float, Image, Int
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.measure import MAD_TO_SIGMA, fit_source
from dsa110_contimg.imaging.restoring_beam import RestoringBeam

__all__ = ["Detections", "find_sources", "forced_peaks", "local_noise"]

#: Noise is taken of squares of so many beams on a side, and of at least so many pixels to a beam.
SQUARE_BEAMS, BEAM_PIXELS = 15.0, 3.2
#: Negative peaks from this depth on, in sigma, tell how many false sources there are.
TELLS_SIGMA = 3.5


def local_noise(
    image: Image, grid: ImageGrid, beam: RestoringBeam, square_beams: float = SQUARE_BEAMS
) -> Image:
    """Measure the noise of an image everywhere.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Without bright sources, Jy/beam.
    grid : ImageGrid
        Its grid.
    beam : RestoringBeam
        Its beam.
    square_beams : float
        Side of the squares in beams. The noise of a square of n is known to about 0.9 / n.

    Returns
    -------
    ndarray, float32, shape (size, size)
        1.4826 times the median absolute deviation in squares, linear between, Jy/beam.
    """
    size = grid.size
    side = math.ceil(square_beams * max(BEAM_PIXELS, beam.major_rad / grid.cell_rad))
    n = max(1, size // side)
    edges = np.linspace(0, size, n + 1).round().astype(int)
    coarse = np.empty((n, n))
    for j in range(n):
        for i in range(n):
            part = image[edges[j] : edges[j + 1], edges[i] : edges[i + 1]]
            coarse[j, i] = MAD_TO_SIGMA * np.median(np.abs(part - np.median(part)))
    at = (np.arange(size) + 0.5) * n / size - 0.5
    by_row = np.stack([np.interp(at, np.arange(n), row) for row in coarse])
    return np.stack([np.interp(at, np.arange(n), column) for column in by_row.T], axis=1).astype(np.float32)


def forced_peaks(image: Image, grid: ImageGrid, ra_rad: Float, dec_rad: Float) -> Float:
    """Read the brightness at given places, between pixels by cubic splines.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Jy/beam.
    grid : ImageGrid
        Its grid.
    ra_rad, dec_rad : ndarray, shape (n,)
        ICRS places.

    Returns
    -------
    ndarray, shape (n,)
        Jy/beam; not a number outside the image. Of a point source in the noise of an image, which is as
        smooth as its beam, this is the least-squares estimate of the flux.
    """
    x, y = grid.sky_to_pixel(ra_rad, dec_rad)
    inside = np.isfinite(x) & (x >= 0) & (y >= 0) & (x <= grid.size - 1) & (y <= grid.size - 1)
    found = np.full(np.shape(x), np.nan)
    if inside.any():
        found[inside] = scipy.ndimage.map_coordinates(
            image.astype(np.float64), [y[inside], x[inside]], order=3, mode="nearest"
        )
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What stands out of an image, and what its negative side says of that.

    Attributes
    ----------
    ra_rad, dec_rad : ndarray, shape (n,)
        ICRS places.
    peak_jy, noise_jy : ndarray, shape (n,)
        Fitted peak, and the noise around it, Jy/beam.
    position_error_rad : ndarray, shape (n,)
        Error of either coordinate by noise: beam / (2.35 signal to noise) (Condon 1997, PASP 109, 166).
    hole_ra_rad, hole_dec_rad, hole_jy, hole_sigma : ndarray, shape (m,)
        Negative peaks from 3.5 sigma on: places, depth in Jy/beam (positive), and in units of the noise.
    sigma : float
        Threshold of the positive ones.
    searched : float
        Fraction of the image that was searched.
    """

    ra_rad: Float
    dec_rad: Float
    peak_jy: Float
    noise_jy: Float
    position_error_rad: Float
    hole_ra_rad: Float
    hole_dec_rad: Float
    hole_jy: Float
    hole_sigma: Float
    sigma: float
    searched: float

    @property
    def n_negative(self) -> int:
        """Number of negative peaks beyond the threshold."""
        return int(np.count_nonzero(self.hole_sigma >= self.sigma))

    @property
    def false_expected(self) -> float:
        """False sources to expect.

        Noise, sidelobes and errors of calibration are as often negative as positive; sources never are.
        Where no negative peak is beyond the threshold, their number follows from the shallower ones: peaks of
        a Gaussian field above a level u are as many as ``u exp(-u^2 / 2)`` (Bond & Efstathiou 1987, MNRAS
        226, 655, for high peaks). The larger of the two is expected.
        """
        law = self.sigma * math.exp(-(self.sigma**2) / 2) / (TELLS_SIGMA * math.exp(-(TELLS_SIGMA**2) / 2))
        return max(float(self.n_negative), law * self.hole_sigma.size)

    def choose(self, peaks: Bool, holes: Bool) -> Detections:
        """Return some of the peaks and some of the negative ones, shapes (n,) and (m,)."""
        of_peaks = ("ra_rad", "dec_rad", "peak_jy", "noise_jy", "position_error_rad")
        of_holes = ("hole_ra_rad", "hole_dec_rad", "hole_jy", "hole_sigma")
        chosen = {name: getattr(self, name)[peaks] for name in of_peaks}
        return replace(self, **chosen, **{name: getattr(self, name)[holes] for name in of_holes})


def find_sources(
    image: Image, noise: Image, grid: ImageGrid, beam: RestoringBeam, searched: Bool, sigma: float
) -> Detections:
    """Find what stands out of an image by so many sigma, and how far its negative side does.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Without the sources that are known, Jy/beam.
    noise : ndarray, float32, shape (size, size)
        Of :func:`local_noise`.
    grid : ImageGrid
        Their grid.
    beam : RestoringBeam
        Beam of the image.
    searched : ndarray of bool, shape (size, size)
        Where to look.
    sigma : float
        Threshold.

    Returns
    -------
    Detections
        What is left out of the peaks afterwards has to be left out of the negative ones by the same rule.
    """
    ratio = np.where(searched, image / np.maximum(noise, 1e-30), 0.0)
    rows, columns = np.nonzero(_peaks(-ratio, TELLS_SIGMA, beam, grid))
    hole_ra, hole_dec = grid.pixel_to_sky(columns.astype(np.float64), rows.astype(np.float64))
    hole_sigma: Float = -ratio[rows, columns].astype(np.float64)
    hole_jy: Float = -image[rows, columns].astype(np.float64)
    rows, columns = np.nonzero(_peaks(ratio, sigma, beam, grid))
    x, y, peak_jy = np.zeros(rows.size), np.zeros(rows.size), np.zeros(rows.size)
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        fit = fit_source(image, float(column), float(row), beam, grid)
        there = not math.isnan(fit.peak_jy)
        x[k], y[k] = (fit.x, fit.y) if there else (column, row)
        peak_jy[k] = fit.peak_jy if there else image[row, column]
    apart = _apart(x, y, ratio[rows, columns], 0.5 * beam.major_rad / grid.cell_rad)
    x, y, peak_jy = x[apart], y[apart], peak_jy[apart]
    around: Float = noise[rows[apart], columns[apart]].astype(np.float64)
    ra, dec = grid.pixel_to_sky(x, y)
    return Detections(
        ra_rad=np.asarray(ra, dtype=np.float64),
        dec_rad=np.asarray(dec, dtype=np.float64),
        peak_jy=peak_jy,
        noise_jy=around,
        position_error_rad=beam.major_rad / 2.355 * around / np.maximum(peak_jy, 1e-30),
        hole_ra_rad=np.asarray(hole_ra, dtype=np.float64),
        hole_dec_rad=np.asarray(hole_dec, dtype=np.float64),
        hole_jy=hole_jy,
        hole_sigma=hole_sigma,
        sigma=sigma,
        searched=float(searched.mean()),
    )


def _apart(x: Float, y: Float, height: Float, least: float) -> Bool:
    """Choose the highest peak of those whose fits came to one place, as on something extended, shape (n,)."""
    kept = np.zeros(x.size, dtype=bool)
    for k in np.argsort(-height, kind="stable"):
        kept[k] = not np.any(np.hypot(x[kept] - x[k], y[kept] - y[k]) < least)
    return kept


def _peaks(ratio: Float, sigma: float, beam: RestoringBeam, grid: ImageGrid) -> Bool:
    """Mark the highest pixels within half a beam, from a level on, off the edge, shape (size, size)."""
    reach = max(1, round(0.5 * beam.major_rad / grid.cell_rad))
    top = scipy.ndimage.maximum_filter(ratio, size=2 * reach + 1)
    found = (ratio >= sigma) & (ratio == top)
    edge: Int = np.arange(grid.size)
    inner = (edge > reach) & (edge < grid.size - 1 - reach)
    return np.asarray(found & inner & inner[:, None])
