"""Which beam a telescope has: a registry of dishes with the sources of their numbers, and the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.sky.beam import FORMS, AiryBeam, RoundBeam

__all__ = [
    "TELESCOPES",
    "BeamForm",
    "Dish",
    "beam_for_antenna",
    "choose_beam",
    "contradiction",
    "known_dish",
    "mixed_dishes",
]

BeamForm = Literal["auto", "airy", "gaussian", "cosine"]

#: A dish in the ANTENNA table is that of its telescope within this fraction.
SAME_DISH = 0.1
#: Dishes of one array that differ by more than this fraction are of several kinds.
MIXED = 0.01


@dataclass(frozen=True, kw_only=True)
class Dish:
    """The dish of a telescope.

    Attributes
    ----------
    name : str
        Telescope.
    aliases : tuple of str
        Further names in OBSERVATION tables; case does not count.
    dish_m : float
        Geometric diameter in metres, which ANTENNA tables have.
    effective_m : float
        Diameter in metres of the uniformly illuminated aperture whose beam at L band is as wide.
    blockage_m : float
        Diameter of the central blockage in metres, of an Airy beam.
    form : str
        Form of its beam.
    source : str
        Where the numbers are from.
    """

    name: str
    aliases: tuple[str, ...] = ()
    dish_m: float
    effective_m: float
    blockage_m: float = 0.0
    form: str = "airy"
    source: str

    @property
    def beam(self) -> RoundBeam:
        """Its beam."""
        return _beam(self.form, self.effective_m, self.blockage_m)


#: Dishes at L band. Where an observatory gives a width at half power, the effective diameter is 1.029
#: lambda over it. A telescope with phased-array feeds is not a dish with one beam: only what a single feed in
#: the focus would see is here, and a beam file says more.
TELESCOPES: tuple[Dish, ...] = (
    Dish(
        name="DSA-110",
        aliases=("DSA_110", "DSA110", "OVRO_MMA"),
        dish_m=4.65,
        effective_m=4.65,
        source="uniformly illuminated 4.65 m, the feed's shadow negligible: 2.71 deg at 1405 MHz",
    ),
    Dish(
        name="VLA",
        aliases=("EVLA", "JVLA"),
        dish_m=25.0,
        effective_m=24.5,
        blockage_m=2.36,
        source="25 m illuminated like 24.5 m, as CASA's PBMath has it; subreflector 2.36 m",
    ),
    Dish(
        name="MeerKAT",
        dish_m=13.5,
        effective_m=12.30,
        form="cosine",
        source="57.5 arcmin at 1.5 GHz, Mauch et al. (2020), ApJ 888, 61, equations 3 and 4",
    ),
    Dish(
        name="ATA",
        dish_m=6.1,
        effective_m=5.05,
        source="offset Gregorian of 6.1 m; 3.5 deg at 1 GHz, Welch et al. (2009)",
    ),
    Dish(
        name="ATCA",
        aliases=("AT",),
        dish_m=22.0,
        effective_m=22.1,
        form="gaussian",
        source="47.9 arcmin at 1 GHz in 1.15-1.88 GHz, Wieringa & Kesteven (1992), AT/39.3/010",
    ),
    Dish(
        name="ASKAP",
        dish_m=12.0,
        effective_m=12.0,
        source="12 m, Hotan et al. (2021), PASA 38, e009; beams of its phased-array feed are not these",
    ),
    Dish(
        name="WSRT",
        dish_m=25.0,
        effective_m=22.3,
        form="gaussian",
        source="power cos^6(68 r f), r in degrees and f in GHz, WSRT's guide for observers: 34.0 arcmin at "
        "1.4 GHz; beams of Apertif are not these",
    ),
    Dish(
        name="GMRT",
        aliases=("UGMRT",),
        dish_m=45.0,
        effective_m=31.3,
        source="45 m; 24.2 arcmin at 1.4 GHz by the observatory's polynomial for that band; others differ",
    ),
)

_BY_NAME = {name.upper(): dish for dish in TELESCOPES for name in (dish.name, *dish.aliases)}


def known_dish(telescope: str) -> Dish | None:
    """Look a telescope up by its name; None if it is not known."""
    return _BY_NAME.get(telescope.strip().upper())


def choose_beam(
    telescope: str, dish_diameter_m: Float, override_m: float | None = None, form: BeamForm = "auto"
) -> RoundBeam:
    """Choose the primary beam of an observation.

    Parameters
    ----------
    telescope : str
        TELESCOPE_NAME of the OBSERVATION table.
    dish_diameter_m : ndarray, shape (nant,)
        DISH_DIAMETER of the ANTENNA table in metres.
    override_m : float, optional
        Effective diameter in metres that an option asks for, whatever the tables say.
    form : str
        Form of the beam; auto: that of the telescope, an Airy pattern of one that is not known.

    Returns
    -------
    RoundBeam
        Of a known telescope with its blockage, in proportion to an effective diameter that is asked for.

    Raises
    ------
    MeasurementSetError
        As :func:`beam_for_antenna`.
    """
    known = known_dish(telescope)
    if override_m is not None:
        beam = AiryBeam(override_m) if known is None else known.beam.widened(known.effective_m / override_m)
    elif known is not None and contradiction(telescope, dish_diameter_m, override_m):
        beam = known.beam
    else:
        beam = beam_for_antenna(telescope, float(np.median(dish_diameter_m)))
    if form in ("auto", beam.form):
        return beam
    return _beam(form, beam.diameter_m, 0.0)


def contradiction(telescope: str, dish_diameter_m: Float, override_m: float | None = None) -> str:
    """Say that the ANTENNA table gives a known telescope another dish than it has; empty if it does not.

    Parameters as of :func:`choose_beam`, which takes the known dish then: converters fill in 25 m.
    """
    known, given = known_dish(telescope), float(np.median(dish_diameter_m))
    if override_m is not None or known is None or not given > 0 or _same(known, given):
        return ""
    return (
        f"DISH_DIAMETER is {given:g} m, the dishes of {telescope} have {known.dish_m:g} m, which is taken; "
        "--dish-diameter-m says otherwise"
    )


def mixed_dishes(dish_diameter_m: Float, override_m: float | None = None) -> str:
    """Say that the dishes of an array differ, which one beam for all is not right for; empty if they do not.

    Parameters as of :func:`choose_beam`, which takes their median.
    """
    given = dish_diameter_m[np.isfinite(dish_diameter_m) & (dish_diameter_m > 0)]
    if override_m is not None or given.size == 0 or np.ptp(given) <= MIXED * given.min():
        return ""
    sizes, counts = np.unique(given, return_counts=True)
    said = ", ".join(f"{n} of {size:g} m" for size, n in zip(sizes, counts, strict=True))
    return (
        f"the dishes differ ({said}): the beam of all is taken as that of their median, "
        f"{float(np.median(dish_diameter_m)):g} m"
    )


def beam_for_antenna(telescope: str, dish_diameter_m: float) -> RoundBeam:
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
    RoundBeam

    Raises
    ------
    MeasurementSetError
        If the telescope is unknown and the diameter is not positive.
    """
    known = known_dish(telescope)
    given = np.isfinite(dish_diameter_m) and dish_diameter_m > 0
    if known is not None and (not given or _same(known, dish_diameter_m)):
        return known.beam
    if not given:
        raise MeasurementSetError(
            f"no primary beam: telescope {telescope!r} is unknown and DISH_DIAMETER is {dish_diameter_m}",
            "ANTENNA",
            "fill DISH_DIAMETER or set dish_diameter_m",
        )
    return AiryBeam(float(dish_diameter_m))


def _same(known: Dish, given_m: float) -> bool:
    """Whether a diameter is that of a telescope, geometric or effective."""
    return any(abs(given_m / size - 1) <= SAME_DISH for size in (known.dish_m, known.effective_m))


def _beam(form: str, diameter_m: float, blockage_m: float) -> RoundBeam:
    return AiryBeam(diameter_m, blockage_m) if form == AiryBeam.form else FORMS[form](diameter_m)
