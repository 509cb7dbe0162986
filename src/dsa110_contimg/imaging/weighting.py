"""Imaging weights: natural, uniform and Briggs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Weight
from dsa110_contimg.errors import ConfigError
from dsa110_contimg.imaging.grid import SPEED_OF_LIGHT, ImageGrid
from dsa110_contimg.imaging.stokes import StokesI

__all__ = ["Weighting", "imaging_weights"]

Weighting = Literal["natural", "uniform", "briggs"]


def imaging_weights(
    chunks: Sequence[StokesI],
    grid: ImageGrid,
    weighting: Weighting = "briggs",
    robust: float = 0.0,
) -> list[Weight]:
    """Weights with which visibilities enter the image.

    With ``W_k`` the sum of the weights in uv cell k, of all chunks, every visibility and its conjugate
    counted, natural weights are ``w``, uniform ones ``w / W_k``, and those of Briggs (1995, PhD thesis, New
    Mexico Tech, section 3.2) ``w / (1 + f^2 W_k)`` with
    ``f^2 = (5 10^-robust)^2 / (sum_k W_k^2 / sum_i w_i)``.

    Parameters
    ----------
    chunks : sequence of StokesI
        All the data of one image: the density of points is counted over them together.
    grid : ImageGrid
        The uv cell is ``1 / (size * cell)`` wavelengths. Baselines outside of the grid get weight 0.
    weighting : {"natural", "uniform", "briggs"}
        Kind of weights.
    robust : float
        From -2 (nearly uniform) to 2 (nearly natural); used by "briggs" alone.

    Returns
    -------
    list of ndarray, float32, shape (nrow, nchan)
        One array for each chunk; for natural weights the chunk's own, not copied.

    Raises
    ------
    ConfigError
        If the kind is not known or `robust` is not a number.
    """
    if weighting not in get_args(Weighting):
        raise ConfigError(f"unknown weighting {weighting!r}", "weighting", "use natural, uniform or briggs")
    if weighting == "natural":
        return [chunk.weight for chunk in chunks]
    if not np.isfinite(robust):
        raise ConfigError(f"robust is {robust}", "weighting", "use a number from -2 to 2")
    density = np.zeros((grid.size, grid.size))
    scale = grid.size * grid.cell_rad / SPEED_OF_LIGHT
    for chunk in chunks:
        _count(chunk.uvw, chunk.freq_hz * scale, chunk.weight, density)
    # Each visibility and its conjugate are both in the density, so both are in the sum of weights.
    total = density.sum()
    squared = np.vdot(density, density)
    if weighting == "uniform":
        offset, factor = 0.0, 1.0
    else:
        offset, factor = 1.0, (5 * 10.0**-robust) ** 2 * total / squared if squared > 0 else 0.0
    out = []
    for chunk in chunks:
        weight = np.empty_like(chunk.weight)
        _apply(chunk.uvw, chunk.freq_hz * scale, chunk.weight, density, offset, factor, weight)
        out.append(weight)
    return out


@numba.njit(nogil=True, cache=True)
def _count(
    uvw: Float,
    cells_per_metre: Float,
    weight: Weight,
    density: Float,
) -> None:
    size = density.shape[0]
    half = size // 2
    for row in range(weight.shape[0]):
        for chan in range(weight.shape[1]):
            iu = int(np.rint(uvw[row, 0] * cells_per_metre[chan]))
            iv = int(np.rint(uvw[row, 1] * cells_per_metre[chan]))
            if abs(iu) < half and abs(iv) < half:
                density[half + iv, half + iu] += weight[row, chan]
                density[half - iv, half - iu] += weight[row, chan]


@numba.njit(nogil=True, cache=True)
def _apply(
    uvw: Float,
    cells_per_metre: Float,
    weight: Weight,
    density: Float,
    offset: float,
    factor: float,
    out: Weight,
) -> None:
    size = density.shape[0]
    half = size // 2
    for row in range(weight.shape[0]):
        for chan in range(weight.shape[1]):
            iu = int(np.rint(uvw[row, 0] * cells_per_metre[chan]))
            iv = int(np.rint(uvw[row, 1] * cells_per_metre[chan]))
            if abs(iu) < half and abs(iv) < half and weight[row, chan] > 0:
                out[row, chan] = weight[row, chan] / (offset + factor * density[half + iv, half + iu])
            else:
                out[row, chan] = 0
