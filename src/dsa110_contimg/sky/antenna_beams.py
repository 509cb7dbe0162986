"""Beams as they are: where each antenna's points, against where it is meant to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Single
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT, AiryBeam

__all__ = ["AntennaBeams"]

#: The voltage pattern is looked up in a table of this spacing in pi D sin(theta) / lambda: linear
#: interpolation is exact to 5e-7 of the peak.
TABLE_STEP = 4e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class AntennaBeams:
    """Pointing offsets of the antennas, whose beams are alike.

    Parameters
    ----------
    offset_rad : ndarray, shape (nant, 2)
        By how much each antenna points east and north of the pointing centre: direction cosines about it.
    """

    offset_rad: Float

    @property
    def common_rad(self) -> Float:
        """Mean offset, shape (2,): where the beam of an image of all baselines points, to first order."""
        return np.asarray(self.offset_rad.mean(axis=0))

    def voltages(self, beam: AiryBeam, lmn: Float, freq_hz: Float) -> Single:
        """Voltage patterns towards directions about the pointing centre.

        Parameters
        ----------
        beam : AiryBeam
            Nominal beam.
        lmn : ndarray, shape (n, 3)
            Direction cosines l, m and n - 1 about the pointing centre.
        freq_hz : ndarray, shape (nchan,)
            Frequencies in hertz.

        Returns
        -------
        ndarray of float32, shape (n, nchan, nant)
            One on the axis of each antenna, negative in the first sidelobe; zero beyond 90 degrees.
        """
        east, north = self.offset_rad.T
        axis = np.stack([east, north, np.sqrt(1 - east**2 - north**2)], axis=1)
        source = lmn + np.array([0.0, 0.0, 1.0])
        # The chord tells small angles to full precision, which the scalar product does not.
        square = ((source[:, None] - axis) ** 2).sum(axis=2)
        sine = np.where(square < 2, np.sqrt(square * (1 - np.minimum(square, 4.0) / 4)), np.nan)
        table = _table(beam.blockage_m / beam.diameter_m)
        out = np.empty((len(lmn), freq_hz.size, len(axis)), dtype=np.float32)
        _look_up(table, np.pi * beam.diameter_m / SPEED_OF_LIGHT * freq_hz, sine, out)
        return out


@lru_cache(maxsize=8)
def _table(blockage: float) -> Single:
    """Voltage pattern of an aperture one metre wide at multiples of `TABLE_STEP`, far beyond any sidelobe."""
    x = TABLE_STEP * np.arange(int(600 / TABLE_STEP))
    beam = AiryBeam(1.0, blockage)
    # sin(theta) = x / (pi D / lambda): a wavelength so short that all angles are small.
    scale = 1e4
    return np.asarray(beam.voltage(np.arcsin(x / scale), scale * SPEED_OF_LIGHT / np.pi)[:, 0], np.float32)


@numba.njit(parallel=True, cache=True)
def _look_up(table: Single, scale: Float, sine: Float, out: Single) -> None:
    n, nchan, nant = out.shape
    for k in numba.prange(n):
        for c in range(nchan):
            for p in range(nant):
                place = scale[c] * sine[k, p] / TABLE_STEP
                # Also of what lies behind the dish, whose sine is not a number.
                if not place < table.size - 1:
                    out[k, c, p] = np.float32(0)
                    continue
                below = int(place)
                part = np.float32(place - below)
                out[k, c, p] = table[below] + part * (table[below + 1] - table[below])
