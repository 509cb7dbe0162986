"""CLEAN masks: from the catalogue, and as FITS."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool
from dsa110_contimg.errors import ConfigError, ImagingError, SeedError
from dsa110_contimg.imaging.fits import ImageHeader, read_image, write_image
from dsa110_contimg.imaging.grid import ARCSEC, ImageGrid
from dsa110_contimg.imaging.restoring_beam import RestoringBeam
from dsa110_contimg.sky import SkyModel

__all__ = ["MASK_BEAMS", "catalog_mask", "read_mask", "write_mask"]

#: Radius of a disc in units of the beam's major axis, where none is given.
MASK_BEAMS = 1.5


def catalog_mask(
    sky: SkyModel, grid: ImageGrid, beam: RestoringBeam, radius_arcsec: float | None = None
) -> Bool:
    """Discs around catalogued sources.

    Parameters
    ----------
    sky : SkyModel
        Sources.
    grid : ImageGrid
        Grid of the image.
    beam : RestoringBeam
        Beam of the image.
    radius_arcsec : float, optional
        Radius; by default 1.5 beams (major axis), so that the disc holds the main lobe. A source's own
        extent (half its major axis) comes on top of either.

    Returns
    -------
    ndarray, bool, shape (size, size)
        True where CLEAN components may be.

    Raises
    ------
    SeedError
        If no source lies in the image: an empty mask would stop CLEAN without a word.
    ConfigError
        If the discs are smaller than a pixel.
    """
    radius = MASK_BEAMS * beam.major_rad if radius_arcsec is None else radius_arcsec * ARCSEC
    if radius < grid.cell_rad / 2:
        raise ConfigError(
            f"a radius of {radius / ARCSEC:.3g} arcsec is less than half a pixel",
            "mask_radius_arcsec",
            f"at least {grid.cell_rad / ARCSEC:.3g}",
        )
    x, y = grid.sky_to_pixel(sky.ra_rad, sky.dec_rad)
    reach = (radius + sky.major_rad / 2) / grid.cell_rad
    mask = np.zeros((grid.size, grid.size), np.bool_)
    for cx, cy, r in zip(x, y, reach, strict=True):
        if not (np.isfinite(cx) and -r <= cx <= grid.size - 1 + r and -r <= cy <= grid.size - 1 + r):
            continue
        rows = slice(max(0, math.ceil(cy - r)), max(0, math.floor(cy + r) + 1))
        columns = slice(max(0, math.ceil(cx - r)), max(0, math.floor(cx + r) + 1))
        j, i = np.ogrid[rows, columns]
        part = mask[rows, columns]
        part |= ((i - cx) ** 2 + (j - cy) ** 2 <= r * r)[: part.shape[0], : part.shape[1]]
    if not mask.any():
        raise SeedError(
            f"empty mask: none of {len(sky)} sources lies in the image",
            "clean mask",
            "enlarge the image, or CLEAN without",
        )
    return mask


def write_mask(path: Path, mask: Bool, grid: ImageGrid, freq_hz: float, bandwidth_hz: float) -> None:
    """Write a mask as FITS, one and zero, as WSClean and `read_mask` take it."""
    write_image(
        path,
        mask.astype(np.float32),
        grid,
        header=ImageHeader(freq_hz=freq_hz, bandwidth_hz=bandwidth_hz, unit="", history=("CLEAN mask",)),
    )


def read_mask(path: Path, grid: ImageGrid) -> Bool:
    """Read a FITS mask for an image.

    Raises
    ------
    ConfigError
        If it cannot be read, is on another grid or is empty.
    """
    try:
        image = read_image(path)
    except ImagingError as error:
        raise ConfigError("is no FITS image that can be a mask", path, "give a FITS mask") from error
    x, y = grid.sky_to_pixel(image.grid.ra_rad, image.grid.dec_rad)
    apart = max(abs(float(x) - grid.center), abs(float(y) - grid.center))
    if image.grid.size != grid.size or abs(image.grid.cell_rad / grid.cell_rad - 1) > 1e-6 or not apart < 0.5:
        raise ConfigError(
            f"mask of {image.grid.size} pixels of {image.grid.cell_rad / ARCSEC:.4g} arcsec is not on "
            f"the grid of the image, {grid.size} of {grid.cell_rad / ARCSEC:.4g}",
            path,
            "give --size and --cell, or make it anew",
        )
    mask: Bool = np.nan_to_num(image.image) != 0
    if not mask.any():
        raise ConfigError("mask is empty", path, "CLEAN without a mask, or look for the sources missing")
    return mask
