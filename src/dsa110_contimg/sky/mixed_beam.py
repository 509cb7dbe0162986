"""Beams of an array whose dishes differ: one for each kind of dish, and what they show together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float, Single
from dsa110_contimg.sky.beam import PrimaryBeam

__all__ = ["MixedBeam", "mixed_beam"]

#: Directions around the axis over which the mean beam's width is a mean, and radii at which it is looked at.
AROUND, RADII = 8, 400


@dataclass(frozen=True)
class MixedBeam:
    """Beams of antennas that are not all alike.

    Asked as one beam it is what an image of all baselines at equal weights is seen through: the square of the
    mean of the antennas' voltage patterns, which is the mean over baselines of their products but for the
    n-th part that n autocorrelations make. What a baseline itself sees is asked of :meth:`own_voltages`.

    Parameters
    ----------
    beams : tuple of PrimaryBeam
        One of each kind of dish.
    of_antenna : tuple of int, length nant
        Which of them each antenna has.
    """

    form: ClassVar[str] = "mixed"

    beams: tuple[PrimaryBeam, ...]
    of_antenna: tuple[int, ...]

    def voltage_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Mean voltage response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        of_kinds = (beam.voltage_towards(lmn, freq_hz) for beam in self.beams)
        return np.asarray(sum(s * v for s, v in zip(self._shares(), of_kinds, strict=True)))

    def power_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Square of the mean voltage response, of directions of shape (n, 3); shape (n, nchan)."""
        return np.asarray(self.voltage_towards(lmn, freq_hz) ** 2)

    def voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Mean voltage responses about axes that point off by (m, 2) east and north; (n, nchan, m)."""
        of_kinds = (beam.voltages(lmn, axes_rad, freq_hz) for beam in self.beams)
        mean = sum(s * v for s, v in zip(self._shares(), of_kinds, strict=True))
        return np.asarray(mean, dtype=np.float32)

    def own_voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Voltage responses of the antennas themselves, which point off by (nant, 2); (n, nchan, nant)."""
        kind = np.array(self.of_antenna)
        out = np.empty((len(lmn), np.size(freq_hz), kind.size), dtype=np.float32)
        for k, beam in enumerate(self.beams):
            antennas = np.flatnonzero(kind == k)
            # Antennas of a kind that point alike see alike.
            axes, which = np.unique(axes_rad[antennas], axis=0, return_inverse=True)
            out[:, :, antennas] = beam.voltages(lmn, axes, freq_hz)[:, :, which.reshape(-1)]
        return out

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power of the mean beam, mean over directions, radians."""
        widest = max(beam.fwhm_rad(freq_hz) for beam in self.beams)
        radius = np.linspace(0.0, min(widest, 1.5), RADII)
        half = []
        for angle in 2 * np.pi * np.arange(AROUND) / AROUND:
            l, m = np.sin(radius) * np.sin(angle), np.sin(radius) * np.cos(angle)  # noqa: E741
            lmn = np.stack([l, m, np.cos(radius) - 1], axis=1)
            power = self.power_towards(lmn, freq_hz)[:, 0]
            below = int(np.argmax(power < 0.5)) or RADII - 1
            part = (power[below - 1] - 0.5) / (power[below - 1] - power[below])
            half.append(radius[below - 1] + np.clip(part, 0.0, 1.0) * (radius[below] - radius[below - 1]))
        return float(2 * np.mean(half))

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the null of the widest beam, radians: no dish sees further out before it."""
        return max(beam.null_rad(freq_hz, order) for beam in self.beams)

    def widened(self, factor: float) -> Self:
        """Return the same beams, all wider by a factor."""
        return replace(self, beams=tuple(beam.widened(factor) for beam in self.beams))

    def _shares(self) -> Float:
        """Fraction of the antennas that have each beam."""
        return np.bincount(self.of_antenna, minlength=len(self.beams)) / len(self.of_antenna)


def mixed_beam(common: PrimaryBeam, others: Sequence[PrimaryBeam | None]) -> PrimaryBeam:
    """Return the beams of an array.

    Parameters
    ----------
    common : PrimaryBeam
        That of antennas with no other.
    others : sequence of PrimaryBeam or None, length nant
        Another one of each antenna, the same object where they are alike.

    Returns
    -------
    PrimaryBeam
        The common one where no antenna has another; that of all where all have the same.
    """
    beams, of_antenna = list[PrimaryBeam](), []
    for other in others:
        beam = common if other is None else other
        known = next((k for k, had in enumerate(beams) if had is beam or had == beam), None)
        if known is None:
            beams.append(beam)
        of_antenna.append(len(beams) - 1 if known is None else known)
    if len(beams) == 1:
        return beams[0]
    return MixedBeam(beams=tuple(beams), of_antenna=tuple(of_antenna))
