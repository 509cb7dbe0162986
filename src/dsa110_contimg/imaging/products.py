"""Products of imaging: FITS files by name, and none left over from an earlier run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from astropy.time import Time

from dsa110_contimg import __version__
from dsa110_contimg.array_types import Image
from dsa110_contimg.imaging.clean import CleanResult
from dsa110_contimg.imaging.fits import ImageHeader, write_image
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.measure import ImageMetrics
from dsa110_contimg.visibilities import VisibilityReader

__all__ = ["ImageSet", "remove_others", "write_products"]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one field, and where they lie.

    Attributes
    ----------
    image, residual, model, psf : Path
        FITS files; Jy/beam, the model Jy/pixel.
    metrics : ImageMetrics
        Noise, peak and dynamic range; the region is everything more than three
        beams from a clean component.
    imager : str
        What made them.
    pb, image_pb : Path or None
        Primary beam, and the image divided by it, if asked for.
    mask : Path or None
        Catalogue mask, if asked for.
    channels : tuple of Path
        Images of the parts of the band, if asked for.
    """

    image: Path
    residual: Path
    model: Path
    psf: Path
    metrics: ImageMetrics
    imager: str
    pb: Path | None = None
    image_pb: Path | None = None
    mask: Path | None = None
    channels: tuple[Path, ...] = ()


def write_products(
    prefix: Path,
    images: dict[str, tuple[Image, str]],
    result: CleanResult,
    grid: ImageGrid,
    reader: VisibilityReader,
    imager: str = "the embedded engine",
) -> dict[str, Path]:
    """Write FITS images ``PREFIX-NAME.fits``.

    Parameters
    ----------
    prefix : Path
        Folder and beginning of the names.
    images : dict of str to (ndarray, str)
        Images by name, each with its unit.
    result : CleanResult
        For the beam.
    grid : ImageGrid
        Their grid.
    reader : VisibilityReader
        For telescope, field, time and frequency.
    imager : str
        For the history.

    Returns
    -------
    dict of str to Path
        Where they lie.
    """
    ms = reader.ms
    spws = [ms.spectral_window(s) for s in reader.selection.spw_ids]
    header = ImageHeader(
        freq_hz=float(reader.freq_hz.mean()),
        bandwidth_hz=float(sum(spw.width_hz.sum() for spw in spws)),
        telescope=ms.telescope,
        target=reader.field_name,
        date_obs=str(Time(float(reader.times[0]) / 86400.0, format="mjd", scale="utc").isot),
        history=(f"dsa110-contimg {__version__}, weighting and CLEAN by {imager}",),
    )
    paths = {}
    for name, (image, unit) in images.items():
        paths[name] = prefix.with_name(f"{prefix.name}-{name}.fits")
        write_image(
            paths[name],
            image,
            grid,
            result.beam,
            header=replace(header, unit=unit),
        )
    return paths


def remove_others(prefix: Path, made: set[Path]) -> None:
    """Remove products of an earlier run of this name that this one does not make: they would not fit."""
    optional = [prefix.with_name(f"{prefix.name}-{name}.fits") for name in ("image-pb", "pb", "mask")]
    channels = [p for p in prefix.parent.iterdir() if re.fullmatch(r"-\d{4}-image\.fits", _after(prefix, p))]
    for path in {*optional, *channels} - made:
        path.unlink(missing_ok=True)


def _after(prefix: Path, path: Path) -> str:
    return path.name.removeprefix(prefix.name) if path.name.startswith(prefix.name) else ""
