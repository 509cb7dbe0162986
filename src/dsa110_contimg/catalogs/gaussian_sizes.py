"""Sizes of sources from Gaussians that were fitted to an image: the beam taken out."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float

__all__ = ["deconvolved"]

#: A fit is wider than the beam if it exceeds it by so many standard errors, for 98 % (Condon et al. 1998,
#: AJ 115, 1693, section 5.2), and by this fraction of the beam, as sidelobes and motion of the sky widen it.
SIGNIFICANT, WIDENED = 2.33, 0.05


def deconvolved(
    fitted: tuple[Float, Float, Float], beam: tuple[Float, Float, Float], signal_to_noise: Float
) -> tuple[Float, Float, Float]:
    """Take an elliptical beam out of elliptical Gaussian fits.

    Parameters
    ----------
    fitted, beam : tuple of ndarray, shape (n,) each
        FWHM of the major and of the minor axis, any unit but the same, and position angle in degrees, north
        through east; those of the beam may be broadcast.
    signal_to_noise : ndarray, shape (n,)
        Of the fits; NaN where it is not known.

    Returns
    -------
    tuple of ndarray, shape (n,) each
        Major and minor axis and position angle of the source. All zero where the fit is not wider than the
        beam by more than its error; a minor axis that is no wider is zero.

    Notes
    -----
    Squared widths of Gaussians add as tensors under convolution, so those of the source are the eigenvalues
    of the fit's less the beam's (Wild 1970, Aust. J. Phys. 23, 113, in other words). The error of a fitted
    axis is sqrt(2) times the axis over the signal to noise (Condon 1997, PASP 109, 166, equation 21).
    """

    def tensor(ellipse: tuple[Float, Float, Float]) -> tuple[Float, Float, Float]:
        """Return the north-north, east-east and north-east elements of the squared widths."""
        major, minor, angle = ellipse[0] ** 2, ellipse[1] ** 2, np.radians(ellipse[2])
        cosine, sine = np.cos(angle), np.sin(angle)
        return (
            major * cosine**2 + minor * sine**2,
            major * sine**2 + minor * cosine**2,
            (major - minor) * sine * cosine,
        )

    north, east, cross = (np.asarray(f - b) for f, b in zip(tensor(fitted), tensor(beam), strict=True))
    mean, half = (north + east) / 2, np.hypot((north - east) / 2, cross)
    major, minor = np.sqrt(np.maximum(mean + half, 0.0)), np.sqrt(np.maximum(mean - half, 0.0))
    angle = np.degrees(np.arctan2(2 * cross, north - east) / 2) % 180.0
    error = np.nan_to_num(np.sqrt(2.0) / signal_to_noise, nan=0.0, posinf=0.0)
    # What the fit would have to exceed: the beam, by the error of the fit and by what widens all sources.
    wide = np.sqrt(major**2 + beam[0] * beam[1]) > np.sqrt(beam[0] * beam[1]) * (
        1 + WIDENED + SIGNIFICANT * error
    )
    return np.where(wide, major, 0.0), np.where(wide, minor, 0.0), np.where(wide, angle, 0.0)
