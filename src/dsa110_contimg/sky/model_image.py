"""Models of the sky as FITS images of clean components, in jansky per pixel."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import SkyModelError
from dsa110_contimg.sky.component_list import ListedComponent

__all__ = ["read_image_model"]

#: More pixels than this with flux are not clean components, and take too long to predict one by one.
MOST_PIXELS = 200_000
#: Of an image of clean components at most this part is not exactly zero; of a restored one everything is not.
MOST_FILLED = 0.05
IMAGED = "give the image of clean components (WSClean: NAME-model.fits; CASA: NAME.model)"


def read_image_model(path: Path) -> tuple[list[ListedComponent], str]:
    """Read an image of clean components: a point at the centre of each pixel that is not zero.

    Parameters
    ----------
    path : Path
        FITS image in Jy/pixel of Stokes I at one frequency.

    Returns
    -------
    components : list of ListedComponent
        With flat spectra: an image of one frequency says nothing of them.
    frame : str
        Frame of their directions: ICRS or J2000.

    Raises
    ------
    SkyModelError
        If it is an image of something else.
    """
    from astropy.io import fits
    from astropy.wcs import WCS, FITSFixedWarning

    try:
        with fits.open(path) as hdus:
            hdu = next((h for h in hdus if getattr(h, "data", None) is not None and h.is_image), None)
            if hdu is None:
                raise SkyModelError("holds no image", path, IMAGED)
            header, data = hdu.header.copy(), np.asarray(hdu.data, dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise SkyModelError(
            f"is not a readable FITS file: {error}", path, "fetch or write it anew"
        ) from error
    _require_components(path, header, data)
    plane = data.reshape(data.shape[-2:]) if data.size == np.prod(data.shape[-2:]) else None
    if plane is None:
        raise SkyModelError(f"has {data.shape[:-2]} planes, not one", path, "give one frequency of Stokes I")
    if not np.isfinite(plane).all():
        raise SkyModelError("has pixels that are not numbers", path, IMAGED)
    row, column = np.nonzero(plane)
    if not 0 < row.size <= MOST_PIXELS:
        what = (
            f"has {row.size} pixels with flux, more than {MOST_PIXELS}" if row.size else "is zero everywhere"
        )
        raise SkyModelError(what, path, IMAGED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header).celestial
    frame = _frame(path, wcs)
    ra, dec = wcs.wcs_pix2world(column, row, 0)
    if not np.isfinite(ra).all():
        raise SkyModelError("has flux in pixels that are not on the sky", path, IMAGED)
    listed = [
        ListedComponent(
            name=f"pixel{x}_{y}",
            ra_rad=float(np.radians(a)),
            dec_rad=float(np.radians(d)),
            flux_jy=float(plane[y, x]),
        )
        for y, x, a, d in zip(row, column, ra, dec, strict=True)
    ]
    return listed, frame


def _require_components(path: Path, header: Any, data: Float) -> None:
    unit = str(header.get("BUNIT", "")).strip()
    plain = unit.lower().replace(" ", "").replace(".", "").replace("/", "")
    # WSClean up to 3.1 labels its images of components so, too.
    made_by = f"{header.get('ORIGIN', '')} {' '.join(map(str, header.get('HISTORY', [])))}".lower()
    sparse = np.count_nonzero(data) <= MOST_FILLED * data.size
    if plain == "jybeam" and "wsclean" in made_by and sparse:
        plain = "jypixel"
    if plain in ("jybeam", "jybeam-1"):
        raise SkyModelError(f"is an image in {unit}, which no sum of its pixels is the sky of", path, IMAGED)
    if plain not in ("jypixel", "jypix", "jypixel-1", "jypix-1"):
        what = f"has the unit {unit!r}" if unit else "has no unit (BUNIT)"
        raise SkyModelError(f"{what}, not Jy/pixel", path, IMAGED)
    for axis in range(1, int(header.get("NAXIS", 0)) + 1):
        if str(header.get(f"CTYPE{axis}", "")).strip().upper() == "STOKES":
            # The pixel of reference need not be the first.
            first = header.get(f"CRVAL{axis}", 1) + (1 - header.get(f"CRPIX{axis}", 1)) * header.get(
                f"CDELT{axis}", 1
            )
            if round(float(first)) != 1:
                raise SkyModelError("is an image of another Stokes parameter than I", path, "give Stokes I")


def _frame(path: Path, wcs: Any) -> str:
    kinds = [str(kind)[:4].rstrip("-") for kind in wcs.wcs.ctype]
    if kinds != ["RA", "DEC"]:
        raise SkyModelError(f"has the axes {', '.join(kinds) or 'none'}, not RA and Dec", path, IMAGED)
    frame, equinox = str(wcs.wcs.radesys).strip().upper(), float(wcs.wcs.equinox)
    if frame not in ("", "ICRS", "FK5") or (np.isfinite(equinox) and equinox != 2000.0):
        raise SkyModelError(f"is in {frame} of equinox {equinox:g}", path, "give ICRS or J2000")
    return "ICRS" if frame == "ICRS" else "J2000"
