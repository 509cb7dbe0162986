"""Primary beams: what every beam can be asked, and the round ones that a formula gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import j1

from dsa110_contimg.array_types import Float, Single
from dsa110_contimg.sky.beam_table import look_up_voltages

__all__ = ["FORMS", "AiryBeam", "CosineBeam", "GaussianBeam", "PrimaryBeam", "RoundBeam", "chords"]

SPEED_OF_LIGHT = 299_792_458.0
#: Full width at half power of a uniformly illuminated aperture in units of lambda/D.
UNIFORM_WIDTH = 1.029
#: Nulls of the same.
UNIFORM_NULLS = {1: 1.220, 2: 2.233}
#: The transform of a cosine taper falls to half power at 1/1.189/2 of its scale.
COSINE_SCALE = 1.189


@runtime_checkable
class PrimaryBeam(Protocol):
    """The beam of a dish: whatever looks at the sky asks it, and asks nothing else.

    Directions are direction cosines l (east), m (north) and n - 1 about the pointing centre.
    """

    @property
    def form(self) -> str:
        """Name of the form, as the options have it."""
        ...

    def voltage_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Voltage response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        ...

    def power_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Power response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        ...

    def voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Voltage responses of antennas that point off by (nant, 2) east and north; (n, nchan, nant)."""
        ...

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power, radians."""
        ...

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the first or second null, or of what stands for it, radians."""
        ...

    def widened(self, factor: float) -> Self:
        """Return the same beam, wider by a factor."""
        ...


def chords(lmn: Float, axes_rad: Float) -> Float:
    """Sines of the angles between directions and axes that point off.

    Parameters
    ----------
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1 about the pointing centre.
    axes_rad : ndarray, shape (nant, 2)
        Direction cosines of the axes.

    Returns
    -------
    ndarray, shape (n, nant)
        Not a number beyond 90 degrees.
    """
    east, north = axes_rad.T
    axis = np.stack([east, north, np.sqrt(1 - east**2 - north**2)], axis=1)
    source = lmn + np.array([0.0, 0.0, 1.0])
    # The chord tells small angles to full precision, which the scalar product does not.
    square = ((source[:, None] - axis) ** 2).sum(axis=2)
    return np.where(square < 2, np.sqrt(square * (1 - np.minimum(square, 4.0) / 4)), np.nan)


@dataclass(frozen=True)
class RoundBeam(ABC):
    """Beam of a round dish: a function of ``x = pi D sin(theta) / lambda``.

    Parameters
    ----------
    diameter_m : float
        Effective diameter in metres: that of the uniformly illuminated aperture whose beam is as wide, with
        1.029 lambda/D at half power.
    """

    form: ClassVar[str] = ""

    diameter_m: float

    @abstractmethod
    def profile(self, x: Float) -> Float:
        """Voltage response by x, one at zero."""

    def power(self, separation_rad: ArrayLike, freq_hz: ArrayLike) -> Float:
        """Power response relative to the axis: the square of :meth:`voltage`, in [0, 1], shape (n, nchan)."""
        return np.asarray(self.voltage(separation_rad, freq_hz) ** 2)

    def voltage(self, separation_rad: ArrayLike, freq_hz: ArrayLike) -> Float:
        """Voltage response relative to the axis.

        Parameters
        ----------
        separation_rad : array_like, shape (n,)
            Angle from the pointing centre in radians.
        freq_hz : array_like, shape (nchan,)
            Frequencies in hertz.

        Returns
        -------
        ndarray, shape (n, nchan)
            Response, negative in every other sidelobe; zero beyond 90 degrees.
        """
        theta = np.atleast_1d(np.asarray(separation_rad, dtype=np.float64))[:, None]
        freq = np.atleast_1d(np.asarray(freq_hz, dtype=np.float64))[None, :]
        x = np.pi * self.diameter_m * np.sin(np.minimum(theta, np.pi / 2)) * freq / SPEED_OF_LIGHT
        return np.asarray(np.where(theta < np.pi / 2, self.profile(x), 0.0))

    def voltage_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Voltage response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        return self.voltage(np.arctan2(np.hypot(lmn[:, 0], lmn[:, 1]), 1 + lmn[:, 2]), freq_hz)

    def power_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Power response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        return np.asarray(self.voltage_towards(lmn, freq_hz) ** 2)

    def voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Voltage responses of antennas that point off by (nant, 2) east and north; (n, nchan, nant)."""
        scale = np.pi * self.diameter_m / SPEED_OF_LIGHT * freq_hz
        # Of the same shape, whatever the size.
        return look_up_voltages(self.widened(self.diameter_m), scale, chords(lmn, axes_rad))

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power, 1.029 lambda/D, radians."""
        return UNIFORM_WIDTH * SPEED_OF_LIGHT / freq_hz / self.diameter_m

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the first or second null (1.220 and 2.233 lambda/D of a uniform aperture), radians."""
        factor = UNIFORM_NULLS[order]
        return float(np.arcsin(min(1.0, factor * SPEED_OF_LIGHT / freq_hz / self.diameter_m)))

    def widened(self, factor: float) -> Self:
        """Return the beam of a dish that is smaller by a factor."""
        return replace(self, diameter_m=self.diameter_m / factor)


@dataclass(frozen=True)
class AiryBeam(RoundBeam):
    """Beam of a uniformly illuminated circular aperture.

    Parameters
    ----------
    diameter_m : float
        Effective diameter of the aperture in metres.
    blockage_m : float, optional
        Diameter of the central blockage in metres.

    Notes
    -----
    Born & Wolf (1999), section 8.6.2: amplitude ``[A(x) - b^2 A(b x)] / (1 - b^2)`` with
    ``A(x) = 2 J1(x) / x``, ``x = pi D sin(theta) / lambda`` and b the ratio of the diameters. Width and nulls
    are those without blockage.
    """

    form: ClassVar[str] = "airy"

    blockage_m: float = 0.0

    def profile(self, x: Float) -> Float:
        """Voltage response by ``pi D sin(theta) / lambda``, one at zero."""
        b = self.blockage_m / self.diameter_m
        return np.asarray((_jinc(x) - b**2 * _jinc(b * x)) / (1.0 - b**2))

    def widened(self, factor: float) -> Self:
        """Return the beam of a dish that is smaller by a factor, its blockage as well."""
        smaller = replace(self, diameter_m=self.diameter_m / factor)
        return replace(smaller, blockage_m=self.blockage_m / factor)


@dataclass(frozen=True)
class GaussianBeam(RoundBeam):
    """Gaussian beam as wide at half power as that of a uniformly illuminated aperture.

    Notes
    -----
    Power ``exp(-4 ln 2 (theta / FWHM)^2)``, Condon & Ransom (2016), Essential Radio Astronomy, equation
    3.118, with the sine in the place of the angle. It has no sidelobes; where nulls are asked for, those of
    the aperture stand for them: at the second one the response is 2e-6.
    """

    form: ClassVar[str] = "gaussian"

    def profile(self, x: Float) -> Float:
        """Voltage response by ``pi D sin(theta) / lambda``, one at zero."""
        return np.asarray(np.exp(-2 * np.log(2.0) * (x / (np.pi * UNIFORM_WIDTH)) ** 2))


@dataclass(frozen=True)
class CosineBeam(RoundBeam):
    """Beam of an illumination that falls to the edge as a cosine, with the width of an aperture of this size.

    Notes
    -----
    Power ``{cos(1.189 pi r) / [1 - 4 (1.189 r)^2]}^2``, r the angle over the width at half power: Condon &
    Ransom (2016), Essential Radio Astronomy, section 3.2.4, and for MeerKAT Mauch et al. (2020), ApJ 888, 61,
    equation 3. With the sine in the place of the angle. Its first sidelobe is 0.5 per cent of the axis.
    """

    form: ClassVar[str] = "cosine"

    def profile(self, x: Float) -> Float:
        """Voltage response by ``pi D sin(theta) / lambda``, one at zero."""
        u = COSINE_SCALE * x / (np.pi * UNIFORM_WIDTH)
        below = 1 - 4 * u**2
        # At u = 1/2 both are zero, and their ratio is pi / 4.
        near = np.abs(below) < 1e-6
        return np.where(near, np.pi / 4, np.cos(np.pi * u) / np.where(near, 1.0, below))

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the first or second null (1.262 and 2.103 times the width), radians."""
        factor = (order + 0.5) / COSINE_SCALE
        return float(np.arcsin(min(1.0, factor * self.fwhm_rad(freq_hz))))


#: Forms that a formula gives, by the names of the options.
FORMS: dict[str, type[RoundBeam]] = {kind.form: kind for kind in (AiryBeam, GaussianBeam, CosineBeam)}


def _jinc(x: Float) -> Float:
    """``2 J1(x) / x`` with its limit 1 at zero."""
    safe = np.where(np.abs(x) < 1e-9, 1.0, x)
    return np.asarray(np.where(np.abs(x) < 1e-9, 1.0, 2.0 * j1(safe) / safe))
