"""Beams as they are: where each antenna's points, against where it is meant to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Single
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.mixed_beam import MixedBeam

__all__ = ["AntennaBeams"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AntennaBeams:
    """Pointing offsets of the antennas.

    Parameters
    ----------
    offset_rad : ndarray, shape (nant, 2)
        By how much each antenna points east and north of the pointing centre: direction cosines about it.
    known : ndarray of bool, shape (nant,), optional
        Antennas of which that is known; the others are taken to point where they should. All by default.
    squint_rad : ndarray, shape (2,), optional
        By how much the first receptor (X or R) of all antennas points further east and north than the second,
        each half of it off; both alike by default.
    """

    offset_rad: Float
    known: Bool | None = None
    squint_rad: Float | None = None

    @property
    def common_rad(self) -> Float:
        """Mean offset, shape (2,): where the beam of an image of all baselines points, to first order."""
        return np.asarray(self.offset_rad.mean(axis=0))

    def voltages(self, beam: PrimaryBeam, lmn: Float, freq_hz: Float) -> Single:
        """Voltage patterns towards directions about the pointing centre.

        Parameters
        ----------
        beam : PrimaryBeam
            Nominal beam, or those of all antennas.
        lmn : ndarray, shape (n, 3)
            Direction cosines l, m and n - 1 about the pointing centre.
        freq_hz : ndarray, shape (nchan,)
            Frequencies in hertz.

        Returns
        -------
        ndarray of float32, shape (n, nchan, nant)
            One on the axis of each antenna, negative in the first sidelobe; zero beyond 90 degrees.
        """
        if isinstance(beam, MixedBeam):
            return beam.own_voltages(lmn, self.offset_rad, freq_hz)
        return beam.voltages(lmn, self.offset_rad, freq_hz)
