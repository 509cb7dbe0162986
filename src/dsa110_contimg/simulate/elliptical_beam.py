"""A beam that is wider in one direction than across it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float, Single
from dsa110_contimg.sky.beam import RoundBeam

__all__ = ["EllipticalBeam"]


@dataclass(frozen=True)
class EllipticalBeam:
    """A round beam stretched eastward and squeezed northward, its area unchanged.

    Parameters
    ----------
    round_beam : RoundBeam
        The beam.
    ratio : float
        Width from east to west over that from north to south.
    """

    round_beam: RoundBeam
    ratio: float

    @property
    def form(self) -> str:
        """Form of the round beam."""
        return self.round_beam.form

    def voltage_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Voltage response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        root = np.sqrt(self.ratio)
        sine = np.minimum(np.hypot(lmn[:, 0] / root, lmn[:, 1] * root), 1.0)
        angle = np.arcsin(sine)
        return self.round_beam.voltage(np.where(lmn[:, 2] > -1, angle, np.pi - angle), freq_hz)

    def power_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Power response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        return np.asarray(self.voltage_towards(lmn, freq_hz) ** 2)

    def voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Voltage responses of antennas that point off by (nant, 2) east and north; (n, nchan, nant)."""
        moved = [lmn - np.array([east, north, 0.0]) for east, north in axes_rad]
        return np.stack([self.voltage_towards(at, freq_hz) for at in moved], axis=2).astype(np.float32)

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power of the round beam, radians."""
        return self.round_beam.fwhm_rad(freq_hz)

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of a null of the round beam, radians."""
        return self.round_beam.null_rad(freq_hz, order)

    def widened(self, factor: float) -> Self:
        """Return the same beam, wider by a factor."""
        return replace(self, round_beam=self.round_beam.widened(factor))
