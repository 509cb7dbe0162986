"""Antenna coordinates from those of the baselines."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float, Int

__all__ = ["AntennaCoordinates"]


class AntennaCoordinates:
    """Antenna coordinates from those of the baselines, dump by dump, by least squares.

    Parameters
    ----------
    n_antennas, n_times : int
        Antennas and dumps.
    """

    def __init__(self, n_antennas: int, n_times: int) -> None:
        self._matrix = np.zeros((n_times, n_antennas, n_antennas))
        self._right = np.zeros((n_times, n_antennas, 2))

    def add(self, time_index: Int, antenna1: Int, antenna2: Int, uvw_m: Float) -> None:
        """Take in baselines, (nrow, 3) in metres, with their dumps and antennas, (nrow,)."""
        t, i, j = time_index, antenna1, antenna2
        for place, sign in (((t, i, i), 1.0), ((t, j, j), 1.0), ((t, i, j), -1.0), ((t, j, i), -1.0)):
            np.add.at(self._matrix, place, sign)
        np.add.at(self._right, (t, j), uvw_m[:, :2])
        np.add.at(self._right, (t, i), -uvw_m[:, :2])

    def solve(self) -> Float:
        """Coordinates u and v in metres, (ntime, nant, 2), about their mean; not numbers without a row."""
        n = self._matrix.shape[1]
        there = np.diagonal(self._matrix, axis1=1, axis2=2) > 0
        # The mean, which baselines do not tell, is held at zero.
        solved = np.linalg.solve(self._matrix + np.eye(n) * ~there[:, None] + 1.0 / n, self._right)
        return np.where(there[:, :, None], solved, np.nan)
