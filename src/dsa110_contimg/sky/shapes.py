"""Gaussians on the sky, and in the plane of the direction cosines l and m of an image.

On the sky a Gaussian lies in the plane that touches it at its centre, its angle counts from north there. In
an image it lies in the plane of l and m, foreshortened, its angle counts from the m axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Float
from dsa110_contimg.sky.directions import lmn_from_radec, north_turned

__all__ = ["shapes_from_plane", "shapes_in_plane"]


def shapes_in_plane(
    ra_rad: Float,
    dec_rad: Float,
    shape: tuple[Float, Float, Float],
    centre: tuple[float, float],
) -> tuple[Float, Float, Float]:
    """Widths and angles in the plane of l and m of Gaussians on the sky.

    Parameters
    ----------
    ra_rad, dec_rad : ndarray, shape (n,)
        Their centres.
    shape : (ndarray, ndarray, ndarray), each of shape (n,)
        Full widths along and across the position angle, and the angle, radians.
    centre : (float, float)
        Centre of the image, radians.

    Returns
    -------
    major_rad, minor_rad, pa_rad : ndarray, shape (n,)
        The longer width first.
    """
    turned = north_turned(ra_rad, dec_rad, *centre)
    axes = _axes(shape[0], shape[1], shape[2] + turned)
    return _widths(_foreshortening(ra_rad, dec_rad, centre) @ axes)


def shapes_from_plane(
    ra_rad: Float,
    dec_rad: Float,
    shape: tuple[Float, Float, Float],
    centre: tuple[float, float],
) -> tuple[Float, Float, Float]:
    """Widths and angles on the sky of Gaussians in the plane of l and m: the inverse of `shapes_in_plane`."""
    axes = np.linalg.solve(_foreshortening(ra_rad, dec_rad, centre), _axes(*shape))
    major, minor, pa = _widths(axes)
    return major, minor, np.mod(pa - north_turned(ra_rad, dec_rad, *centre), np.pi)


def _axes(major: Float, minor: Float, pa: Float) -> Float:
    """Vectors (east, north) along and across, as columns; shape (n, 2, 2)."""
    sine, cosine = np.sin(pa), np.cos(pa)
    return np.moveaxis(np.array([[major * sine, minor * cosine], [major * cosine, -minor * sine]]), 2, 0)


def _widths(axes: NDArray[np.floating[Any]]) -> tuple[Float, Float, Float]:
    left, size, _ = np.linalg.svd(axes)
    major, minor = np.asarray(size[:, 0], dtype=np.float64), np.asarray(size[:, 1], dtype=np.float64)
    return major, minor, np.mod(np.arctan2(left[:, 0, 0], left[:, 1, 0]), np.pi)


def _foreshortening(ra_rad: Float, dec_rad: Float, centre: tuple[float, float]) -> Float:
    """Find what l and m change by along the axes of the phase centre turned to sources, (n, 2, 2)."""
    lmn = lmn_from_radec(ra_rad, dec_rad, *centre)
    lm = lmn[:, :2]
    share = np.maximum(lmn[:, 2] + 2.0, 1e-12)
    return np.eye(2) - lm[:, :, None] * lm[:, None, :] / share[:, None, None]
