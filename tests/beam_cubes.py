"""FITS cubes of beams, written as observatories write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from dsa110_contimg.sky import PrimaryBeam


def write_cube(
    path: Path,
    beam: PrimaryBeam,
    freq_hz: np.ndarray,
    *,
    half_deg: float = 5.0,
    pixels: int = 129,
    kind: str = "power",
    **header: Any,
) -> Path:
    """Write a beam about a reference direction, east to the left as on the sky, and return the path.

    Parameters
    ----------
    path : Path
        Where to.
    beam : PrimaryBeam
        What it is to hold.
    freq_hz : ndarray
        Planes, evenly spaced.
    half_deg : float
        Half the width of the image, degrees.
    pixels : int
        Pixels a side, odd.
    kind : str
        power or voltage.
    header
        Cards that replace those of a good file.
    """
    step = 2 * half_deg / (pixels - 1)
    place = np.radians((np.arange(pixels) - pixels // 2) * step)
    m, l = np.meshgrid(place, -place, indexing="ij")  # noqa: E741
    lmn = np.stack([l.ravel(), m.ravel(), np.sqrt(1 - l.ravel() ** 2 - m.ravel() ** 2) - 1], axis=1)
    response = beam.power_towards if kind == "power" else beam.voltage_towards
    cube = response(lmn, freq_hz).T.reshape(freq_hz.size, pixels, pixels)
    hdu = fits.PrimaryHDU(cube.astype(np.float32))
    spacing = float(np.diff(freq_hz).mean()) if freq_hz.size > 1 else 20e6
    cards = {
        **{
            "CTYPE1": "RA---SIN",
            "CRVAL1": 150.0,
            "CRPIX1": pixels // 2 + 1.0,
            "CDELT1": -step,
            "CUNIT1": "deg",
        },
        **{
            "CTYPE2": "DEC--SIN",
            "CRVAL2": 30.0,
            "CRPIX2": pixels // 2 + 1.0,
            "CDELT2": step,
            "CUNIT2": "deg",
        },
        **{"CTYPE3": "FREQ", "CRVAL3": freq_hz[0], "CRPIX3": 1.0, "CDELT3": spacing, "CUNIT3": "Hz"},
    }
    for name, value in (cards | header).items():
        if value is None:
            continue
        hdu.header[name] = value
    hdu.writeto(path, overwrite=True)
    return path
