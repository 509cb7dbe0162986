"""Images on disk: FITS with the header that other imaging programs expect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import __version__
from dsa110_contimg.array_types import Image
from dsa110_contimg.errors import ImagingError, ResourceError
from dsa110_contimg.files import replacing
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.restoring_beam import RestoringBeam

__all__ = ["FitsImage", "read_image", "write_image"]


@dataclass(frozen=True)
class FitsImage:
    """An image read from disk.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        In FITS order ``[y, x]``.
    grid : ImageGrid
        Its place on the sky.
    beam : RestoringBeam or None
        The beam in the header, if there is one.
    freq_hz, bandwidth_hz : float
        Centre and width of the band; NaN where the header has no frequency axis.
    unit : str
        BUNIT.
    """

    image: Image
    grid: ImageGrid
    beam: RestoringBeam | None
    freq_hz: float
    bandwidth_hz: float
    unit: str


def write_image(
    path: Path,
    image: Image,
    grid: ImageGrid,
    beam: RestoringBeam | None = None,
    *,
    freq_hz: float,
    bandwidth_hz: float,
    telescope: str = "",
    observer: str = "",
    target: str = "",
    date_obs: str = "",
    unit: str = "JY/BEAM",
    history: Sequence[str] = (),
) -> None:
    """Write an image with the four axes RA, Dec, frequency and Stokes.

    The file is written beside its final name, synced and renamed: a reader sees the old file or the new one.

    Parameters
    ----------
    path : Path
        Name of the file; an existing one is replaced.
    image : ndarray, float32, shape (size, size)
        In FITS order ``[y, x]``.
    grid : ImageGrid
        Its grid.
    beam : RestoringBeam, optional
        Written as BMAJ, BMIN, BPA in degrees.
    freq_hz, bandwidth_hz : float
        Centre and width of the band.
    telescope, observer, target, date_obs : str
        TELESCOP, OBSERVER, OBJECT and DATE-OBS (ISO 8601, UTC, with MJD-OBS); left out where empty.
    unit : str
        "JY/BEAM", or "JY/PIXEL" for a model.
    history : sequence of str
        HISTORY lines.

    Raises
    ------
    ImagingError
        If the image does not have the shape of its grid.
    ResourceError
        If the file cannot be written.
    """
    if image.shape != (grid.size, grid.size):
        raise ImagingError(f"image of shape {image.shape} for a grid of {grid.size} pixels", path)
    header = fits.Header()
    cell = math.degrees(grid.cell_rad)
    axes = [
        ("RA---SIN", "deg", math.degrees(grid.ra_rad) % 360, -cell, grid.center + 1.0),
        ("DEC--SIN", "deg", math.degrees(grid.dec_rad), cell, grid.center + 1.0),
        ("FREQ", "Hz", freq_hz, bandwidth_hz, 1.0),
        ("STOKES", "", 1.0, 1.0, 1.0),
    ]
    for number, (kind, axis_unit, value, step, pixel) in enumerate(axes, start=1):
        header[f"CTYPE{number}"] = kind
        header[f"CRPIX{number}"] = pixel
        header[f"CRVAL{number}"] = value
        header[f"CDELT{number}"] = step
        header[f"CUNIT{number}"] = axis_unit
    header["RADESYS"] = "ICRS"
    header["SPECSYS"] = "TOPOCENT"
    header["RESTFRQ"] = freq_hz
    header["BUNIT"] = unit
    header["BTYPE"] = "Intensity"
    if beam is not None:
        header["BMAJ"] = math.degrees(beam.major_rad)
        header["BMIN"] = math.degrees(beam.minor_rad)
        header["BPA"] = math.degrees(beam.pa_rad)
    words = {"TELESCOP": telescope, "OBSERVER": observer, "OBJECT": target, "DATE-OBS": date_obs}
    for key, text in words.items():
        if text:
            header[key] = text
    if date_obs:
        header["MJD-OBS"] = Time(date_obs, scale="utc").mjd
    header["ORIGIN"] = f"dsa110-contimg {__version__}"
    for line in history:
        header.add_history(line)
    hdu = fits.PrimaryHDU(np.asarray(image, np.float32)[None, None], header)
    try:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            hdu.writeto(stream)
    except OSError as error:
        raise ResourceError(
            f"cannot write the image: {error.strerror or error}",
            path,
            "check the folder, its permissions and space",
        ) from error


def read_image(path: Path) -> FitsImage:
    """Read one square image in SIN projection, written by this package or by another imager.

    Parameters
    ----------
    path : Path
        A FITS file whose first unit has two axes, or further axes of length one.

    Raises
    ------
    ImagingError
        If the file is missing, not FITS, or not such an image.
    """
    try:
        with fits.open(path, memmap=False) as units:
            header, data = units[0].header, units[0].data
    except OSError as error:
        raise ImagingError(f"cannot read the image: {error}", path, "image again") from error
    image: NDArray[Any] = np.squeeze(data) if data is not None else np.zeros(0)
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise ImagingError(f"shape {image.shape} is not one square plane", path)
    size = image.shape[0]
    centred = all(header.get(f"CRPIX{axis}") == size // 2 + 1 for axis in (1, 2))
    square = math.isclose(-header.get("CDELT1", 0), header.get("CDELT2", 1), rel_tol=1e-9)
    projection = (header.get("CTYPE1"), header.get("CTYPE2"))
    if projection != ("RA---SIN", "DEC--SIN") or not centred or not square:
        raise ImagingError(
            f"axes {projection} are not RA---SIN, DEC--SIN with square pixels and a central reference",
            path,
        )
    cell, ra, dec = (math.radians(header[key]) for key in ("CDELT2", "CRVAL1", "CRVAL2"))
    grid = ImageGrid(size, cell, ra, dec)
    beam = None
    if "BMAJ" in header:
        beam = RestoringBeam(*(math.radians(header[key]) for key in ("BMAJ", "BMIN", "BPA")))
    axis = next((n for n in (3, 4) if header.get(f"CTYPE{n}") == "FREQ"), None)
    freq, bandwidth = (header[f"CRVAL{axis}"], header[f"CDELT{axis}"]) if axis else (math.nan, math.nan)
    return FitsImage(
        np.ascontiguousarray(image, np.float32),
        grid,
        beam,
        float(freq),
        float(bandwidth),
        header.get("BUNIT", ""),
    )
