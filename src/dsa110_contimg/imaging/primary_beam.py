"""The primary beam as an image, for dividing it out."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from dsa110_contimg.array_types import Float, Image
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.sky import PrimaryBeam, lmn_from_radec

__all__ = ["PB_LIMIT", "beam_image", "correct_for_beam"]

#: Below this response the corrected image is blank: it would be noise alone.
PB_LIMIT = 0.1
#: The beam is evaluated on a coarse grid of about so many points a side and interpolated (cubic).
COARSE = 129
#: It changes slowly over frequency: so many groups of channels are enough.
BANDS = 16


def beam_image(
    grid: ImageGrid,
    beam: PrimaryBeam,
    pointing: Float,
    time_weight: Float,
    freq_hz: Float,
    freq_weight: Float,
) -> Image:
    """Power beam over an image, mean over dumps and channels with the weights of their data.

    Parameters
    ----------
    grid : ImageGrid
        Grid of the image.
    beam : PrimaryBeam
        Primary beam.
    pointing : ndarray, shape (ntime, 2)
        Where the dishes pointed at each dump, ICRS radians.
    time_weight : ndarray, shape (ntime,)
        Sum of the weights of each dump.
    freq_hz, freq_weight : ndarray, shape (nchan,)
        Channels, and the sum of the weights of each.

    Returns
    -------
    ndarray, float32, shape (size, size)
        1 at the pointing centre of a tracking telescope; a drift scan has less than that.
    """
    coarse = np.linspace(0, grid.size - 1, COARSE)
    ra, dec = grid.pixel_to_sky(*np.meshgrid(coarse, coarse))
    order = np.argsort(freq_hz)
    groups = [g for g in np.array_split(order, min(BANDS, len(order))) if freq_weight[g].sum() > 0]
    weight = np.array([freq_weight[g].sum() for g in groups])
    middle = np.array([np.average(freq_hz[g], weights=freq_weight[g]) for g in groups])
    total = np.zeros(ra.size)
    places, which = np.unique(pointing, axis=0, return_inverse=True)
    share = np.bincount(which.ravel(), weights=time_weight, minlength=len(places))
    for (ra0, dec0), part in zip(places, share, strict=True):
        towards = lmn_from_radec(ra.ravel(), dec.ravel(), float(ra0), float(dec0))
        total += part * (beam.power_towards(towards, middle) @ weight)
    total /= share.sum() * weight.sum()
    step = (COARSE - 1) / (grid.size - 1)
    rows, columns = np.mgrid[: grid.size, : grid.size] * step
    smooth = map_coordinates(total.reshape(COARSE, COARSE), [rows, columns], order=3, mode="nearest")
    return np.asarray(smooth, np.float32)


def correct_for_beam(image: Image, beam: Image) -> Image:
    """Divide an image by the beam; NaN below a response of 0.1."""
    return np.where(beam >= PB_LIMIT, image / np.maximum(beam, PB_LIMIT), np.float32(np.nan)).astype(
        np.float32
    )
