"""What speaks against a sky, a beam or a start: from figures to words and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.calibration.phase_gradient import PhaseGradient
from dsa110_contimg.selfcal.sky_check import FEWEST_SOURCES, MANY_AGREE, SIGNIFICANT, Estimate, SkyCheck
from dsa110_contimg.sky import ApparentSky, MixedBeam, PrimaryBeam
from dsa110_contimg.sky.beam import RoundBeam
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.sky.seed_spectra import FAR_IN_FREQUENCY

__all__ = [
    "ABSURD_WIDTH",
    "INFORMATION",
    "Carried",
    "Finding",
    "absurd_width",
    "carried",
    "coherent",
    "findings_of",
    "follows_from",
    "size_of_beam",
    "unexplained",
    "weightiest_first",
    "wrong_width",
]

#: Kinds of findings that say what was done, or what the figures say too; all others speak against a result.
INFORMATION = frozenset(
    {
        "bandpass_edges",
        "beam_corrected",
        "moved",
        "position",
        "scale",
        "extrapolated",
        "noise",
        "unexplained",
    }
)
#: Held-out sources have their catalogue flux within this, or within three errors of it.
RECOVERED_RANGE = (0.8, 1.2)
#: Below this fraction of it, and below the range by three errors, the sky is another one.
NOT_THERE = 0.6
#: Where so few sources are as the catalogue has them, and flux is missing, the sky is another one.
FEW_AGREE = 0.08
#: The phases of the input are better where they recover so much more of the held-out flux.
INPUT_BETTER = 0.05
#: Where few sources agree, a model has to explain this part of what the input holds beside the noise, if it
#: leaves more than `LEAVES_MUCH` times that.
EXPLAINS, LEAVES_MUCH = 0.7, 2.0
#: Gains that explain less of what a coherent input leaves are not what is wrong with it.
EXPLAINS_COHERENT = 0.2
#: Displacements at half power, and shifts of the whole sky, that are more than errors of a catalogue.
DISPLACED = 3 * ARCSEC
SHIFTED = 60 * ARCSEC
#: A rotation of the coordinates is so many times the shear that is seen with it, and leaves hardly a source
#: where it was.
PURE, STAY = 2.0, 0.3
#: Beams further off than this in width (fraction) and centre (of the radius of half power).
BEAM_WIDTH, BEAM_CENTRE, ABSURD_WIDTH = 0.03, 0.05, 0.4
#: Beams further off than this from an input without a position may be a shifted sky.
FAR_OFF = 0.1
#: What it may be that puts a beam elsewhere.
EITHER = (
    "either the dishes point there, or the phase centre or the time is off and all positions are wrong by as "
    "much; check the pointing, the phase centre and the times"
)
#: Errors by which a trend of the fluxes counts.
TREND_SIGMAS = 3.5
#: Changes of the recovered flux over the observation, and over the band.
TREND_TIME, TREND_FREQUENCY = 0.15, 0.3
#: Kinds of findings that are told by the catalogue's sources one by one.
OF_SOURCES = frozenset(
    ("input", "few", "stretched", "sheared", "beam_width", "beam_centre", "time", "frequency")
)
#: Kinds that say of what a beam of another width leaves that it is another sky.
OF_SKY = frozenset(("sky", "recovered", "shifted", "rotated"))
#: Probability below which delays do not have a gradient by chance.
BY_CHANCE = 1e-4
#: From this coherence of its antenna phases on, and for an array of some antennas, an input has a position.
COHERENT, FEWEST_ANTENNAS = 0.8, 8
#: Where less than this part of the flux is measured near the observed frequency, there is no flux scale.
MEASURED_FLUX = 0.5
#: A smaller part is not worth telling: the brightest sources of the sky, in sidelobes, have known spectra.
SOME_FLUX = 0.005


@dataclass(frozen=True)
class Carried:
    """How well the fluxes of the catalogue model are known at the frequency of the data.

    Attributes
    ----------
    factor : float
        In frequency, above one, by which they were carried.
    measured : float
        Fraction of the apparent flux that was measured near that frequency, or on both sides of it.
    error : float
        What spectral indices leave open of the flux of a source, as a fraction; weighted as held-out flux is.
    """

    factor: float = 1.0
    measured: float = 1.0
    error: float = 0.0

    @property
    def too_far(self) -> bool:
        """Whether the fluxes have no scale."""
        return self.measured < MEASURED_FLUX


def carried(listed: ApparentSky) -> Carried:
    """Tell how well the fluxes of a catalogue model are known at its frequency.

    Parameters
    ----------
    listed : ApparentSky
        The sources as listed, or a model of the user's own.
    """
    spectra, flux = listed.spectra, listed.apparent_jy
    if spectra is None:
        given = listed.sky.reference_freq_hz if listed.own_model is None else listed.own_model.reference_hz
        factor = 1.0 if given is None else float(np.exp(abs(np.log(listed.freq_hz / given))))
        return Carried(factor, float(factor <= FAR_IN_FREQUENCY))
    measured = float(flux[spectra.measured(listed.sky.name)].sum() / flux.sum())
    error = spectra.flux_errors(listed.sky.name)
    return Carried(spectra.factor(), measured, float(np.sqrt(np.average(error**2, weights=flux**2))))


@dataclass(frozen=True)
class Finding:
    """Something that speaks against the sky, the beam, the data or the start of a run.

    Attributes
    ----------
    kind : str
        One word for programs: sky, recovered, input, few, rotated, stretched, sheared, shifted, beam_width,
        beam_centre, beam_corrected, bandpass_edges, dish, polarisation, unsolved, time, frequency,
        extrapolated, unexplained, position, scale, untouched, noise, uvw, positions, changing.
    text : str
        What was found, the likely cause and what to do, without a full stop.
    status : str
        Status that the run gets for it: ``refused``, ``no_improvement``, or empty where it is for the
        reader to know only.
    """

    kind: str
    text: str
    status: str = ""


def coherent(gradient: PhaseGradient | None) -> bool:
    """Whether the antenna phases of the input were those of one sky, wherever it was."""
    return gradient is not None and gradient.n_antennas >= FEWEST_ANTENNAS and gradient.coherence >= COHERENT


def findings_of(
    check: SkyCheck,
    gradient: PhaseGradient | None,
    half_power_rad: float,
    spectra: Carried = Carried(),
    beam: PrimaryBeam | None = None,
    delays: PhaseGradient | None = None,
) -> tuple[Finding, ...]:
    """Say what speaks against a run.

    Parameters
    ----------
    check : SkyCheck
        What held-out sources say.
    gradient : PhaseGradient or None
        How far the gains move the sky.
    half_power_rad : float
        Radius of half power of the assumed beam.
    spectra : Carried
        How well the catalogue's fluxes are known at the frequency of the data.
    beam : PrimaryBeam, optional
        The assumed beam, for the diameter to give in place of its.
    delays : PhaseGradient or None, optional
        How far the delays that were solved for move the sky.

    Returns
    -------
    tuple of Finding
        The weightiest first.
    """
    found = [
        *_sky(check, spectra.error),
        *(_of_delays(delays) or _shift(check, gradient, half_power_rad)),
        *_displacements(check, half_power_rad),
        *_beam(check, beam),
        *_start(check),
        *_agreement(check),
        *_trends(check),
    ]
    if spectra.too_far:
        found.append(Finding("extrapolated", _extrapolated(check, spectra)))
    return weightiest_first(found)


def weightiest_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by their status: what is refused first, then what keeps the input, then the rest."""
    return tuple(sorted(found, key=lambda f: ("refused", "no_improvement", "").index(f.status)))


def follows_from(cause: Finding, finding: Finding) -> bool:
    """Whether a finding says nothing once a cause is known: of another sky no source tells place or beam.

    Parameters
    ----------
    cause : Finding
        Of kind sky, few, mirrored or shifted, or a beam that is refused.
    finding : Finding
        Another one of the same run.
    """
    if cause.kind == "beam_width":
        return bool(cause.status) and finding.kind in OF_SOURCES | OF_SKY
    more = {"mirrored": {"sky", "shifted", "rotated"}, "sky": set(), "few": set()}.get(cause.kind)
    return more is not None and finding.kind in OF_SOURCES | more


def unexplained(check: SkyCheck, chi2_input: float, chi2: float) -> tuple[Finding, ...]:
    """Say that a model explains too little of an incoherent input, where few sources speak for it.

    Two sources that outshine all others are where any model has two, shifted and turned: the flux of one,
    held out, comes back with gains from the other.

    Parameters
    ----------
    check : SkyCheck
        What held-out sources say.
    chi2_input, chi2 : float
        Held-out chi-squared of the input and of the newest round, in units of thermal variance.
    """
    explained = (chi2_input - chi2) / (chi2_input - 1) if chi2_input > 1 else 1.0
    was_coherent = check.tells and check.phased_input > check.phased.value / 2
    if was_coherent and chi2 > LEAVES_MUCH and explained < EXPLAINS_COHERENT:
        text = (
            f"gains explain {100 * explained:.0f} % of what the input, which is coherent, holds beside noise "
            f"and the model (held-out chi2 {chi2_input:.5g} -> {chi2:.5g}): is it the ionosphere, for which "
            "no gain of an antenna is right in all directions, or does the catalogue lack a bright source?"
        )
        return (Finding("input", text, "no_improvement"),)
    if chi2 < LEAVES_MUCH or explained > EXPLAINS or was_coherent or check.n_agreeing >= FEWEST_SOURCES:
        return ()
    text = (
        f"the model explains {100 * explained:.0f} % of what the data hold beside noise (held-out chi2 "
        f"{chi2_input:.5g} -> {chi2:.5g}), and {check.n_agreeing} sources are where and as bright as the "
        "catalogue has them: the sky is not the catalogue's"
    )
    return (Finding("sky", text, "refused"),)


def _extrapolated(check: SkyCheck, spectra: Carried) -> str:
    """Say what is not known of fluxes that were carried far, and what is all the same."""
    some = f"a second catalogue measures {100 * spectra.measured:.0f} % of the flux alone"
    how = some if spectra.measured >= SOME_FLUX else "no second catalogue measures there"
    text = (
        f"the catalogue's fluxes are carried by a factor of {spectra.factor:.1f} in frequency, and {how}: "
        "the flux scale is not verified, and the mean gain amplitude is left at one"
    )
    if not check.tells or check.confirmed:
        return text
    if not check.phased_input < check.phased.value / 2:
        return f"{text}; of the sky only all held-out flux together speaks for the catalogue, no sources"
    return (
        f"{text}; that the phases are better is known from held-out sources ({check.phased_input:.2f} of "
        f"their flux as found, {check.phased.value:.2f} now), that amplitudes are is not"
    )


def _sky(check: SkyCheck, spectral_error: float) -> list[Finding]:
    flux = check.recovered
    if not check.tells:
        return []
    # Where the fluxes of either half are off by their spectra, so is what gains from one give of the other.
    flux = replace(flux, error=float(np.hypot(flux.error, spectral_error * flux.value)))
    said = f"held-out sources have {flux.value:.2f} +- {flux.error:.2f} of their catalogue flux"
    low, high = RECOVERED_RANGE
    if check.confirmed:
        # A few bright sources with wrong fluxes hold most of the flux.
        if low <= flux.value <= high or not flux.beyond(1.0, 3.0):
            return []
        text = (
            f"{said}, though {check.n_agreeing} of {check.n_sources} are where and as bright as it has them: "
            "check its brightest sources"
        )
        return [Finding("recovered", text)]
    if (
        not low <= flux.value <= high
        and low <= check.together.value <= high
        and not check.together.beyond(1.0, 3.0)
        and check.together.error * SIGNIFICANT < 1
    ):
        text = (
            f"{said}, most of which is that of a few, though all together have {check.together.value:.2f} +- "
            f"{check.together.error:.2f} in the median: check the brightest sources of the catalogue"
        )
        return [Finding("recovered", text)]
    if flux.value < NOT_THERE and flux.value + 3 * flux.error < low:
        return [Finding("sky", f"{said}: the sky is not the catalogue's", "refused")]
    if not low <= flux.value <= high and flux.beyond(1.0, 3.0):
        return [
            Finding("recovered", f"{said}: check the brightest sources of the catalogue", "no_improvement")
        ]
    return []


def _agreement(check: SkyCheck) -> list[Finding]:
    n = check.n_sources
    if n < FEWEST_SOURCES or not check.tells:
        return []
    if check.agreeing_fraction < FEW_AGREE and check.recovered.value < RECOVERED_RANGE[0]:
        text = (
            f"only {check.n_agreeing} of {n} bright sources are where and as bright as the catalogue has "
            "them: the sky is not the catalogue's"
        )
        return [Finding("few", text, "refused")]
    if check.agreeing_fraction < MANY_AGREE:
        text = (
            f"only {check.n_agreeing} of {n} bright sources are where and as bright as the catalogue has "
            "them: look at the source report"
        )
        return [Finding("few", text)]
    return []


def _shift(check: SkyCheck, gradient: PhaseGradient | None, half_power_rad: float) -> list[Finding]:
    """Tell whether the whole sky is somewhere else: by the gains of a coherent input, or by the beam."""
    if gradient is not None and coherent(gradient):
        size = float(np.hypot(*gradient.shift_rad))
        if size > max(SHIFTED, SIGNIFICANT * gradient.error_rad):
            text = (
                f"the sky is the catalogue's shifted by {np.degrees(size) * 60:.1f} arcmin from where the "
                "input has it: check the phase centre"
            )
            return [Finding("shifted", text, "refused")]
    if _is_turned(check, half_power_rad) and _is_pure(check):
        # Sources that are looked for where they are not tell no beam.
        return []
    east, north = check.pointing_arcmin
    off, error = np.hypot(east.value, north.value), np.hypot(east.error, north.error) / np.sqrt(2)
    if not off > max(TREND_SIGMAS * error, BEAM_CENTRE * np.degrees(half_power_rad) * 60):
        return []
    where = f"the fluxes of held-out sources put the beam {off:.0f} arcmin from where it is assumed"
    if check.agreeing_fraction < MANY_AGREE:
        text = f"{where}: the catalogue is shifted by so much; check the phase centre"
        return [Finding("shifted", text, "refused")]
    if gradient is not None and coherent(gradient):
        # The sky is where the input has it: it is the dishes that point elsewhere.
        return [Finding("beam_centre", f"{where}: check the pointing")]
    far = off > FAR_OFF * np.degrees(half_power_rad) * 60
    return [Finding("beam_centre", f"{where}: {EITHER}", "refused" if far else "")]


def _of_delays(delays: PhaseGradient | None) -> list[Finding]:
    """Tell whether delays are those of a sky elsewhere, which neither phases nor dishes can make of them."""
    if delays is None or delays.n_antennas < FEWEST_ANTENNAS or not delays.chance < BY_CHANCE:
        return []
    size = float(np.hypot(*delays.shift_rad))
    if not size > max(SHIFTED, SIGNIFICANT * delays.error_rad):
        return []
    text = (
        f"the delays of the antennas are those of a sky {np.degrees(size) * 60:.1f} arcmin from where the "
        "catalogue has it: check the phase centre and the time"
    )
    return [Finding("shifted", text, "refused")]


def _is_turned(check: SkyCheck, half_power_rad: float) -> bool:
    """Whether held-out sources lie as after a rotation, by more than errors of a catalogue."""
    rotation = check.rotation_deg
    return rotation.beyond(0, SIGNIFICANT) and np.radians(abs(rotation.value)) * half_power_rad > DISPLACED


def _is_pure(check: SkyCheck) -> bool:
    """Whether the rotation is more than what comes with the shear."""
    return bool(np.radians(abs(check.rotation_deg.value)) > PURE * check.shear.value)


def _displacements(check: SkyCheck, half_power_rad: float) -> list[Finding]:
    found = []
    rotation, stretch, shear = check.rotation_deg, check.stretch, check.shear
    sheared = shear.beyond(0, SIGNIFICANT)
    if sheared and shear.value * half_power_rad > DISPLACED:
        arcsec, error = (x * half_power_rad / ARCSEC for x in (shear.value, shear.error))
        text = (
            f"held-out sources are displaced by up to {arcsec:.1f} +- {error:.1f} arcsec at half power, in "
            "one direction otherwise than across it: the ionosphere, or refraction"
        )
        found.append(Finding("sheared", text))
    of_shear = sheared and not _is_pure(check) and check.agreeing_fraction > STAY
    if _is_turned(check, half_power_rad) and not of_shear:
        text = (
            f"the sky is the catalogue's rotated by {abs(rotation.value):.2f} deg or more about the phase "
            "centre: check the equinox of the coordinates"
        )
        found.append(Finding("rotated", text, "refused"))
    if stretch.beyond(0, SIGNIFICANT) and abs(stretch.value) * half_power_rad > DISPLACED:
        arcsec, error = (x * half_power_rad / ARCSEC for x in (stretch.value, stretch.error))
        text = (
            f"held-out sources lie further {'out' if arcsec > 0 else 'in'} than the catalogue has them, by "
            f"{abs(arcsec):.1f} +- {error:.1f} arcsec at half power: refraction, or a wrong frequency"
        )
        found.append(Finding("stretched", text))
    return found


def _start(check: SkyCheck) -> list[Finding]:
    if check.phased_input > check.phased.value + INPUT_BETTER:
        text = (
            "the phases of the input recover more of the flux of held-out sources "
            f"({check.phased_input:.2f}) than the solved ones ({check.phased.value:.2f}): is the brightest "
            "source resolved or double?"
        )
        return [Finding("input", text, "no_improvement")]
    return []


def wrong_width(width: Estimate) -> bool:
    """Whether a beam's width over that assumed is another one beyond doubt, and by more than matters."""
    return width.beyond(1, TREND_SIGMAS) and bool(abs(np.log(width.value)) > BEAM_WIDTH)


def absurd_width(width: Estimate) -> bool:
    """Whether a width is so far off that something else is wrong."""
    return bool(np.isfinite(width.value) and abs(np.log(width.value)) > ABSURD_WIDTH)


def size_of_beam(beam: PrimaryBeam) -> str:
    """Name a beam by its size."""
    if isinstance(beam, MixedBeam):
        return "the antennas' beams"
    return f"a dish of {beam.diameter_m:.3g} m" if isinstance(beam, RoundBeam) else "the beam file"


def _beam(check: SkyCheck, beam: PrimaryBeam | None) -> list[Finding]:
    width = check.beam_width
    if not wrong_width(width):
        return []
    percent = abs(100 * (width.value - 1))
    wider = f"{percent:.0f} +- {100 * width.error:.0f} % {'wider' if width.value > 1 else 'narrower'}"
    if isinstance(beam, RoundBeam):
        remedy = f"check DISH_DIAMETER, or give --dish-diameter-m {beam.diameter_m / width.value:.3g}"
    elif beam is not None:
        remedy = f"check {size_of_beam(beam)}"
    else:
        remedy = f"check DISH_DIAMETER, or give --dish-diameter-m {1 / width.value:.2f} times what it was"
    than = "assumed" if beam is None else f"that of {size_of_beam(beam)}"
    if not absurd_width(width):
        remedy += "; --solve-beam-width corrects it"
    text = f"by the fluxes of held-out sources the beam is {wider} than {than}: {remedy}"
    return [Finding("beam_width", text, "refused" if absurd_width(width) else "")]


def _trends(check: SkyCheck) -> list[Finding]:
    found: list[Finding] = []
    if check.n_sources < FEWEST_SOURCES:
        # A few sources come and go with the sidelobes of each other.
        return found
    for kind, trend, limit, axis, cause in (
        ("time", check.time_trend, TREND_TIME, "over the observation", "check the pointing"),
        ("frequency", check.frequency_trend, TREND_FREQUENCY, "over the band", "check the bandpass"),
    ):
        if trend.beyond(0, SIGNIFICANT) and abs(trend.value) > limit:
            text = f"the flux of held-out sources changes by {100 * trend.value:+.0f} % {axis}: {cause}"
            found.append(Finding(kind, text))
    return found
