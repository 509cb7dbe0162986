"""Distances between directions on the sky."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float

__all__ = ["angular_separation", "separation_deg", "unit_vectors"]


def angular_separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Float:
    """Great-circle separation by the haversine formula, radians in, radians out.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : array_like
        Directions in radians; shapes broadcast.

    Returns
    -------
    ndarray
        Separations in radians, exact for small ones too.
    """
    ra1_, dec1_ = np.asarray(ra1, dtype=np.float64), np.asarray(dec1, dtype=np.float64)
    ra2_, dec2_ = np.asarray(ra2, dtype=np.float64), np.asarray(dec2, dtype=np.float64)
    hav = np.sin((dec2_ - dec1_) / 2) ** 2 + np.cos(dec1_) * np.cos(dec2_) * np.sin((ra2_ - ra1_) / 2) ** 2
    return np.asarray(2.0 * np.arcsin(np.sqrt(np.clip(hav, 0.0, 1.0))))


def separation_deg(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Float:
    """Return the same of directions in degrees, degrees."""
    return np.asarray(np.degrees(angular_separation(*(np.radians(x) for x in (ra1, dec1, ra2, dec2)))))


def unit_vectors(ra_rad: ArrayLike, dec_rad: ArrayLike) -> Float:
    """Return unit vectors of directions in radians, shape (..., 3)."""
    ra, dec = np.asarray(ra_rad, dtype=np.float64), np.asarray(dec_rad, dtype=np.float64)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
