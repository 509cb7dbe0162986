"""The pixel grid of an image and its place on the sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ducc0
import numpy as np
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import ConfigError, ImagingError

__all__ = ["ImageGrid", "choose_grid"]

SPEED_OF_LIGHT = 299_792_458.0
ARCSEC = math.pi / (180 * 3600)

PIXELS_PER_FRINGE = (5, 4, 3)
COMFORTABLE_SIZE = 2560
FIELD_OF_VIEW_FWHM = 1.5
MIN_SIZE = 512
#: Direction cosines of a plane image, from edge to edge, stay below this.
WIDEST = 2.0
MAX_SIZE = 4096


@dataclass(frozen=True)
class ImageGrid:
    """A square image in SIN projection, stored as ``image[y, x]`` in FITS order.

    x grows to the west (right ascension falls), y to the north; the phase centre lies at the centre of the
    pixel ``size // 2`` (counted from 0) on both axes, as in ducc, WSClean and CASA.

    Parameters
    ----------
    size : int
        Pixels on a side; even.
    cell_rad : float
        Pixel size in radians of direction cosine.
    ra_rad, dec_rad : float
        ICRS direction of the phase centre.

    Raises
    ------
    ImagingError
        If the size is odd or below 32, or the cell is not positive.
    """

    size: int
    cell_rad: float
    ra_rad: float
    dec_rad: float

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise ImagingError(f"size {self.size} is not an even number of at least 32", "image grid")
        if not 0 < self.cell_rad * self.size < WIDEST:
            raise ImagingError(
                f"{self.size} pixels of {self.cell_rad / ARCSEC:.3g} arcsec do not fit on the sky",
                "image grid",
                "lower --size or --cell",
            )

    @property
    def center(self) -> int:
        """Pixel of the phase centre on both axes."""
        return self.size // 2

    def sky_to_lm(self, ra_rad: ArrayLike, dec_rad: ArrayLike) -> tuple[Float, Float]:
        """Direction cosines (l to the east, m to the north); NaN for directions behind the horizon."""
        dra = np.asarray(ra_rad, float) - self.ra_rad
        dec = np.asarray(dec_rad, float)
        sin0, cos0 = math.sin(self.dec_rad), math.cos(self.dec_rad)
        n = np.sin(dec) * sin0 + np.cos(dec) * cos0 * np.cos(dra)
        l = np.where(n > 0, np.cos(dec) * np.sin(dra), np.nan)  # noqa: E741
        m = np.where(n > 0, np.sin(dec) * cos0 - np.cos(dec) * sin0 * np.cos(dra), np.nan)
        return l, m

    def lm_to_sky(self, l: ArrayLike, m: ArrayLike) -> tuple[Float, Float]:  # noqa: E741
        """ICRS right ascension in [0, 2 pi) and declination, radians, of direction cosines."""
        ll, mm = np.asarray(l, float), np.asarray(m, float)
        with np.errstate(invalid="ignore"):
            # The corners of a very wide image lie behind the horizon.
            n = np.sqrt(1 - ll**2 - mm**2)
        sin0, cos0 = math.sin(self.dec_rad), math.cos(self.dec_rad)
        dec = np.arcsin(mm * cos0 + n * sin0)
        ra = self.ra_rad + np.arctan2(ll, n * cos0 - mm * sin0)
        return ra % (2 * math.pi), dec

    def lm_to_pixel(self, l: ArrayLike, m: ArrayLike) -> tuple[Float, Float]:  # noqa: E741
        """Fractional pixel (x, y), counted from 0, of direction cosines."""
        return self.center - np.asarray(l, float) / self.cell_rad, self.center + np.asarray(
            m, float
        ) / self.cell_rad

    def pixel_to_lm(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """Direction cosines of fractional pixels (x, y), counted from 0."""
        return (self.center - np.asarray(x, float)) * self.cell_rad, (
            np.asarray(y, float) - self.center
        ) * self.cell_rad

    @property
    def half_width_rad(self) -> float:
        """From the phase centre to the middle of an edge, radians."""
        return self.size / 2 * self.cell_rad

    def sky_to_pixel(self, ra_rad: ArrayLike, dec_rad: ArrayLike) -> tuple[Float, Float]:
        """Fractional pixel (x, y), counted from 0, of ICRS directions; NaN behind the horizon."""
        return self.lm_to_pixel(*self.sky_to_lm(ra_rad, dec_rad))

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """ICRS right ascension and declination in radians of fractional pixels (x, y), counted from 0."""
        return self.lm_to_sky(*self.pixel_to_lm(x, y))


def choose_grid(
    ra_rad: float,
    dec_rad: float,
    *,
    max_baseline_m: float,
    freq_lo_hz: float,
    freq_hi_hz: float,
    fwhm_rad: float | None,
) -> ImageGrid:
    """Grid that samples the synthesised beam and covers the primary beam.

    The cell is a fifth of the finest fringe, rounded down to two digits in arcseconds, or a fourth or third
    where the image would be larger than 2560 pixels otherwise; the field of view is 1.5 primary-beam widths;
    the size is the next one that transforms fast, between 512 and 4096 pixels (a wider field is cut: the cell
    stays).

    Parameters
    ----------
    ra_rad, dec_rad : float
        ICRS direction of the phase centre.
    max_baseline_m : float
        Longest projected baseline.
    freq_lo_hz, freq_hi_hz : float
        Lowest and highest frequency of the data.
    fwhm_rad : float or None
        Width at half maximum of the primary beam at the lowest frequency; None where no beam is known: the
        image has 512 pixels then.

    Raises
    ------
    ImagingError
        If a length or frequency is not positive.
    ConfigError
        If the field of view is wider than a plane image can be.
    """
    if fwhm_rad is None:
        fwhm_rad = 1e-12
    if not (max_baseline_m > 0 and 0 < freq_lo_hz <= freq_hi_hz and fwhm_rad > 0):
        raise ImagingError(
            f"cannot choose a grid for baseline {max_baseline_m} m, {freq_lo_hz} to {freq_hi_hz} Hz, "
            f"beam {fwhm_rad} rad",
            "image grid",
            "give --size and --cell",
        )
    fringe = SPEED_OF_LIGHT / freq_hi_hz / max_baseline_m / ARCSEC
    for pixels in PIXELS_PER_FRINGE:
        digit = 10.0 ** (math.floor(math.log10(fringe / pixels)) - 1)
        cell = math.floor(fringe / pixels / digit + 1e-9) * digit * ARCSEC
        if FIELD_OF_VIEW_FWHM * fwhm_rad / cell <= COMFORTABLE_SIZE:
            break
    size = min(max(math.ceil(FIELD_OF_VIEW_FWHM * fwhm_rad / cell), MIN_SIZE), MAX_SIZE)
    size += size % 2
    while ducc0.fft.good_size(size) != size:
        size += 2
    if size * cell >= WIDEST:
        raise ConfigError(
            f"field of view {math.degrees(min(FIELD_OF_VIEW_FWHM * fwhm_rad, math.pi)):.0f} deg: "
            f"not an L-band dish array, whose primary beam gives the size of the image",
            "image grid",
            f"give --size and --cell: baselines up to {max_baseline_m:.0f} m ask for a cell of "
            f"{cell / ARCSEC:.3g} arcsec, and size times cell must stay below {math.degrees(WIDEST):.0f} deg",
        )
    return ImageGrid(size, cell, ra_rad, dec_rad)
