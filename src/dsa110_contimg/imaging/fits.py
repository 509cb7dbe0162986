"""Images on disk: FITS with the header that other imaging programs expect."""

from __future__ import annotations

import math
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

__all__ = ["FitsImage", "ImageHeader", "read_image", "write_image"]


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


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What a header says beside the place on the sky.

    Attributes
    ----------
    freq_hz, bandwidth_hz : float
        Centre and width of the band.
    telescope, observer, target, date_obs : str
        TELESCOP, OBSERVER, OBJECT and DATE-OBS (ISO 8601, UTC, with MJD-OBS); left out where empty.
    unit : str
        "JY/BEAM", or "JY/PIXEL" for a model.
    history : tuple of str
        HISTORY lines.
    """

    freq_hz: float
    bandwidth_hz: float
    telescope: str = ""
    observer: str = ""
    target: str = ""
    date_obs: str = ""
    unit: str = "JY/BEAM"
    history: tuple[str, ...] = ()


def write_image(
    path: Path,
    image: Image,
    grid: ImageGrid,
    beam: RestoringBeam | None = None,
    *,
    header: ImageHeader,
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
    header : ImageHeader
        What else the header says.

    Raises
    ------
    ImagingError
        If the image does not have the shape of its grid.
    ResourceError
        If the file cannot be written.
    """
    if image.shape != (grid.size, grid.size):
        raise ImagingError(f"image of shape {image.shape} for a grid of {grid.size} pixels", path)
    cards = _cards(grid, beam, header)
    hdu = fits.PrimaryHDU(np.asarray(image, np.float32)[None, None], cards)
    try:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            hdu.writeto(stream)
    except OSError as error:
        raise ResourceError(
            f"cannot write the image: {error.strerror or error}",
            path,
            "check the folder, its permissions and space",
        ) from error


def _cards(grid: ImageGrid, beam: RestoringBeam | None, header: ImageHeader) -> fits.Header:
    cards = fits.Header()
    cell = math.degrees(grid.cell_rad)
    axes = [
        ("RA---SIN", "deg", math.degrees(grid.ra_rad) % 360, -cell, grid.center + 1.0),
        ("DEC--SIN", "deg", math.degrees(grid.dec_rad), cell, grid.center + 1.0),
        ("FREQ", "Hz", header.freq_hz, header.bandwidth_hz, 1.0),
        ("STOKES", "", 1.0, 1.0, 1.0),
    ]
    for number, (kind, axis_unit, value, step, pixel) in enumerate(axes, start=1):
        cards[f"CTYPE{number}"] = kind
        cards[f"CRPIX{number}"] = pixel
        cards[f"CRVAL{number}"] = value
        cards[f"CDELT{number}"] = step
        cards[f"CUNIT{number}"] = axis_unit
    cards["RADESYS"] = "ICRS"
    cards["SPECSYS"] = "TOPOCENT"
    cards["RESTFRQ"] = header.freq_hz
    cards["BUNIT"] = header.unit
    cards["BTYPE"] = "Intensity"
    if beam is not None:
        cards["BMAJ"] = math.degrees(beam.major_rad)
        cards["BMIN"] = math.degrees(beam.minor_rad)
        cards["BPA"] = math.degrees(beam.pa_rad)
    words = {
        "TELESCOP": header.telescope,
        "OBSERVER": header.observer,
        "OBJECT": header.target,
        "DATE-OBS": header.date_obs,
    }
    for key, text in words.items():
        if text:
            # FITS knows ASCII alone, and names of fields may hold anything.
            cards[key] = text.encode("ascii", "backslashreplace").decode()
    if header.date_obs:
        cards["MJD-OBS"] = Time(header.date_obs, scale="utc").mjd
    cards["ORIGIN"] = f"dsa110-contimg {__version__}"
    for line in header.history:
        cards.add_history(line.encode("ascii", "backslashreplace").decode())
    return cards


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
