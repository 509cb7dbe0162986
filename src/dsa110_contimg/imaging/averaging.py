"""Averaging channels before imaging: short baselines change little from one channel to the next."""

from __future__ import annotations

import numba
import numpy as np

from dsa110_contimg.array_types import Int, Vis, Weight
from dsa110_contimg.imaging.grid import SPEED_OF_LIGHT
from dsa110_contimg.imaging.stokes import StokesI

__all__ = ["average_channels"]

#: Channels that may be averaged: few choices, because each is gridded by itself.
FACTORS = (16, 4)
#: Loss of a source at the edge of the image that averaging may cause; a quarter of it halfway out.
MAX_LOSS = 0.01


def average_channels(chunk: StokesI, half_width_rad: float) -> dict[int, StokesI]:
    """Average channels as far as each baseline's length permits.

    Over a channel of width d the phase of a source at the angle x off the phase
    centre turns by ``2 pi d b sin(x) / c`` at most on a baseline of length b. Its mean
    loses the fraction ``(pi d b sin(x) / c)^2 / 6`` (bandwidth smearing: Bridle & Schwab
    1999, ASP Conf. Ser. 180, 371).

    Parameters
    ----------
    chunk : StokesI
        Visibilities of evenly spaced channels; others are left as they are.
    half_width_rad : float
        From the phase centre to the edge of the image.

    Returns
    -------
    dict of int to StokesI
        By the number of channels averaged, 1 for none; every row is in one of them.
    """
    n = chunk.freq_hz.size
    step = np.diff(chunk.freq_hz)
    if n < FACTORS[-1] or (np.abs(step - step[0]) > 1e-6 * abs(step[0])).any():
        return {1: chunk}
    width = abs(float(step[0])) * np.sin(min(half_width_rad, np.pi / 2)) / SPEED_OF_LIGHT
    turn = np.pi * width * np.hypot(chunk.uvw[:, 0], chunk.uvw[:, 1])
    factor = np.ones(turn.size, dtype=np.int64)
    for f in sorted(f for f in FACTORS if f <= n):
        factor[(f * turn) ** 2 / 6 < MAX_LOSS] = f
    out = {}
    for f in np.unique(factor):
        rows = np.flatnonzero(factor == f)
        if f == 1 and rows.size == factor.size:
            return {1: chunk}
        starts = np.arange(0, n, f)
        freq = np.add.reduceat(chunk.freq_hz, starts) / np.diff(starts, append=n)
        out[int(f)] = StokesI(
            chunk.uvw[rows], freq, *_average(rows, int(f), chunk.vis, chunk.weight, chunk.precision)
        )
    return out


@numba.njit(nogil=True, cache=True)
def _average(
    rows: Int,
    f: int,
    vis: Vis,
    weight: Weight,
    precision: Weight,
) -> tuple[Vis, Weight, Weight]:
    """Weighted means, sums of weights, and the inverse variances of the means."""
    n = vis.shape[1]
    shape = (rows.size, (n + f - 1) // f)
    mean, total = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    inverse = np.zeros(shape, np.float32)
    for k in range(rows.size):
        for c in range(shape[1]):
            value, sum_weight, variance = 0.0 + 0.0j, 0.0, 0.0
            for channel in range(c * f, min(n, c * f + f)):
                w = np.float64(weight[rows[k], channel])
                if w > 0:
                    value += w * vis[rows[k], channel]
                    sum_weight += w
                    variance += w * w / precision[rows[k], channel]
            if sum_weight > 0:
                mean[k, c] = value / sum_weight
                total[k, c] = sum_weight
                inverse[k, c] = sum_weight * sum_weight / variance
    return mean, total, inverse
