"""Primary beams: the Airy pattern of a circular aperture with a central blockage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import j1

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import MeasurementSetError

__all__ = ["AiryBeam", "beam_for_antenna", "choose_beam", "contradiction"]

SPEED_OF_LIGHT = 299_792_458.0

#: Effective aperture and blockage diameters in metres by telescope. VLA: a 25 m dish illuminated like
#: 24.5 m, subreflector 2.36 m. DSA-110: a uniformly illuminated 4.65 m dish, its feed's shadow negligible.
#: MeerKAT and ATA dishes are offset Gregorians without blockage.
KNOWN_APERTURES: dict[str, tuple[float, float]] = {
    "VLA": (24.5, 2.36),
    "EVLA": (24.5, 2.36),
    "DSA_110": (4.65, 0.0),
    "DSA-110": (4.65, 0.0),
    "DSA110": (4.65, 0.0),
    "OVRO_MMA": (4.65, 0.0),
    "MEERKAT": (13.5, 0.0),
    "ATA": (6.1, 0.0),
}

#: A dish in the ANTENNA table is that of its telescope within this fraction.
SAME_DISH = 0.1


@dataclass(frozen=True)
class AiryBeam:
    """Power beam of a uniformly illuminated circular aperture.

    Parameters
    ----------
    diameter_m : float
        Effective diameter of the aperture in metres.
    blockage_m : float, optional
        Diameter of the central blockage in metres.
    """

    diameter_m: float
    blockage_m: float = 0.0

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

        Notes
        -----
        Born & Wolf (1999), section 8.6.2: amplitude
        ``[A(x) - b^2 A(b x)] / (1 - b^2)`` with ``A(x) = 2 J1(x) / x``,
        ``x = pi D sin(theta) / lambda`` and b the ratio of the diameters.
        """
        theta = np.atleast_1d(np.asarray(separation_rad, dtype=np.float64))[:, None]
        freq = np.atleast_1d(np.asarray(freq_hz, dtype=np.float64))[None, :]
        x = np.pi * self.diameter_m * np.sin(np.minimum(theta, np.pi / 2)) * freq / SPEED_OF_LIGHT
        b = self.blockage_m / self.diameter_m
        amplitude = (_jinc(x) - b**2 * _jinc(b * x)) / (1.0 - b**2)
        return np.asarray(np.where(theta < np.pi / 2, amplitude, 0.0))

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power, 1.029 lambda/D for the unblocked aperture, radians."""
        return 1.029 * SPEED_OF_LIGHT / freq_hz / self.diameter_m

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the first or second null (1.220 and 2.233 lambda/D), radians."""
        factor = {1: 1.220, 2: 2.233}[order]
        return float(np.arcsin(min(1.0, factor * SPEED_OF_LIGHT / freq_hz / self.diameter_m)))


def _jinc(x: Float) -> Float:
    """``2 J1(x) / x`` with its limit 1 at zero."""
    safe = np.where(np.abs(x) < 1e-9, 1.0, x)
    return np.asarray(np.where(np.abs(x) < 1e-9, 1.0, 2.0 * j1(safe) / safe))


def choose_beam(telescope: str, dish_diameter_m: Float, override_m: float | None = None) -> AiryBeam:
    """Choose the primary beam of an observation.

    Parameters
    ----------
    telescope : str
        TELESCOPE_NAME of the OBSERVATION table.
    dish_diameter_m : ndarray, shape (nant,)
        DISH_DIAMETER of the ANTENNA table in metres.
    override_m : float, optional
        Effective diameter in metres that an option asks for, whatever the tables say.

    Returns
    -------
    AiryBeam

    Raises
    ------
    MeasurementSetError
        As :func:`beam_for_antenna`.
    """
    if override_m is not None:
        return AiryBeam(override_m)
    if contradiction(telescope, dish_diameter_m, override_m):
        return AiryBeam(*KNOWN_APERTURES[telescope.strip().upper()])
    return beam_for_antenna(telescope, float(np.median(dish_diameter_m)))


def contradiction(telescope: str, dish_diameter_m: Float, override_m: float | None = None) -> str:
    """Say that the ANTENNA table gives a known telescope another dish than it has; empty if it does not.

    Parameters as of :func:`choose_beam`, which takes the known dish then: converters fill in 25 m.
    """
    known, given = KNOWN_APERTURES.get(telescope.strip().upper()), float(np.median(dish_diameter_m))
    if override_m is not None or known is None or not given > 0 or abs(given / known[0] - 1) <= SAME_DISH:
        return ""
    return (
        f"DISH_DIAMETER is {given:g} m, the dishes of {telescope} have {known[0]:g} m, which is taken; "
        "--dish-diameter-m says otherwise"
    )


def beam_for_antenna(telescope: str, dish_diameter_m: float) -> AiryBeam:
    """Beam of a telescope by its name, else by its dish diameter.

    Parameters
    ----------
    telescope : str
        TELESCOPE_NAME of the OBSERVATION table.
    dish_diameter_m : float
        DISH_DIAMETER of the ANTENNA table in metres. For a known telescope it
        must lie within 10 % of the known dish, otherwise it wins: the name may
        stand for a mixed or simulated array.

    Returns
    -------
    AiryBeam

    Raises
    ------
    MeasurementSetError
        If the telescope is unknown and the diameter is not positive.
    """
    known = KNOWN_APERTURES.get(telescope.strip().upper())
    given = np.isfinite(dish_diameter_m) and dish_diameter_m > 0
    if known is not None and (not given or abs(dish_diameter_m / known[0] - 1) <= SAME_DISH):
        return AiryBeam(*known)
    if not given:
        raise MeasurementSetError(
            f"no primary beam: telescope {telescope!r} is unknown and DISH_DIAMETER is {dish_diameter_m}",
            "ANTENNA",
            "fill DISH_DIAMETER or set dish_diameter_m",
        )
    return AiryBeam(float(dish_diameter_m))
