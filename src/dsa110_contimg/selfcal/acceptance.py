"""When a round of self-calibration is accepted, when it is rolled back, and how a run ended.

The rules alone; :mod:`dsa110_contimg.selfcal.stages.acceptance` makes the images that they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsa110_contimg.selfcal.sky_check import SkyCheck
from dsa110_contimg.selfcal.state import Outcome, Round, Verdict

__all__ = [
    "HOPELESS_SNR",
    "MIN_SOLVED_FRACTION",
    "Appraisal",
    "appraise_image",
    "appraise_solution",
    "confirmed_by_sources",
    "outcome_of",
    "worse_than_found",
]

MIN_SOLVED_FRACTION = 0.7
MAX_RMS_GROWTH = 1.05
MAX_BEAM_GROWTH = 1.05
#: Where the input leaves this much, gains must explain this fraction of what is above the noise. A sky that
#: is not there can be made to appear by its gains, but explains next to nothing.
UNEXPLAINED_CHI2 = 2.0
MIN_EXPLAINED = 0.1
FLUX_RATIO_RANGE = (0.9, 1.1)
#: Fluxes below this fraction of the catalogue's were lost by decorrelation.
DECORRELATED = 0.8
#: A start further from the catalogue than this was no measurement of calibrated sources.
CREDIBLE_RATIO = (0.5, 2.0)
#: A round that loses this much of the signal to noise has diverged.
DIVERGED_SNR = 0.8
#: A held-out chi-squared this near to the solution's own says that the input was calibrated already.
CONVERGED_CHI2 = 1.01
#: Where the solved phases recover so much more of the flux of held-out sources than those of the input, they
#: are better whatever noise and sidelobes do to an image of a part of the sky.
RECOVERED_MORE = 0.1
#: Where the image lost this much of its signal to noise, nothing confirms it.
HOPELESS_SNR = 0.5
#: The end may be worse than the beginning by this factor, each at its own weights: CLEAN is not exact. Where
#: held-out sources confirm the gains, sidelobes of what is outside the image may differ more than that.
AS_FOUND, AS_FOUND_CONFIRMED = 1.02, 1.1
#: A model that leaves more than this times the thermal variance does not explain the data.
EXPLAINED_CHI2 = 2.0


@dataclass(frozen=True)
class Appraisal:
    """What a state of the calibration is judged by; images at the same data, region, weighting and depth.

    Attributes
    ----------
    snr : float
        Peak over rms of the restored image.
    rms_jy : float
        Off-source rms in the units of the data.
    beam_area_sr : float
        Solid angle of the restoring beam.
    flux_ratio : float or None
        Median of image flux over the catalogue's, or over the sky model's where the sky is confirmed.
    amplitude : float
        Median of |g_i g_j| of the gains applied beyond the initial tables. Where a
        round sets the flux scale, the rms changes by it without any change of
        quality.
    """

    snr: float
    rms_jy: float
    beam_area_sr: float
    flux_ratio: float | None
    amplitude: float = 1.0


def appraise_solution(
    chi2_before: float, chi2_after: float, solved_fraction: float, *, of_input: bool = False
) -> Verdict:
    """Judge gains by themselves, before any image.

    Parameters
    ----------
    chi2_before, chi2_after : float
        Held-out chi-squared in units of thermal variance.
    solved_fraction : float
        Fraction of the solutions that are good.
    of_input : bool
        Whether `chi2_before` is that of the input, which the model must explain then.

    Returns
    -------
    Verdict
    """
    if not solved_fraction > MIN_SOLVED_FRACTION:
        return Verdict(False, f"only {100 * solved_fraction:.0f} % of the solutions are good")
    if not chi2_after <= chi2_before:
        return Verdict(
            False, f"predicts the held-out channels worse: chi2 {chi2_before:.5g} -> {chi2_after:.5g}"
        )
    explained = (chi2_before - chi2_after) / (chi2_before - 1) if chi2_before > 1 else 1.0
    if of_input and chi2_before > UNEXPLAINED_CHI2 and explained < MIN_EXPLAINED:
        return Verdict(
            False,
            f"the model explains {100 * explained:.0f} % of what is above the noise "
            f"(held-out chi2 {chi2_before:.5g} -> {chi2_after:.5g}): is it the right sky?",
        )
    return Verdict(True, f"held-out chi2 {chi2_before:.5g} -> {chi2_after:.5g}")


def appraise_image(before: Appraisal, after: Appraisal) -> Verdict:
    """Judge the image of a round against the best one so far.

    Parameters
    ----------
    before, after : Appraisal
        The best state so far and the new one.

    Returns
    -------
    Verdict
    """
    if not after.snr >= before.snr:
        return Verdict(
            False, f"signal to noise fell at equal depth: {before.snr:.1f} -> {after.snr:.1f}", "snr"
        )
    start, end = before.flux_ratio, after.flux_ratio
    units = before.amplitude / after.amplitude
    expected = before.rms_jy * units
    if start is not None and end is not None and 0 < start * units < DECORRELATED:
        # A decorrelated image has little of the flux and little of its sidelobes; both come back together.
        expected *= max(1.0, end / (start * units))
    if not after.rms_jy < MAX_RMS_GROWTH * expected:
        return Verdict(False, f"rms grew: {1e3 * expected:.3g} -> {1e3 * after.rms_jy:.3g} mJy", "rms")
    if not after.beam_area_sr < MAX_BEAM_GROWTH * before.beam_area_sr:
        growth = 100 * (after.beam_area_sr / before.beam_area_sr - 1)
        return Verdict(False, f"the beam's area grew by {growth:.0f} %", "beam")
    if start is not None and end is None and CREDIBLE_RATIO[0] <= start <= CREDIBLE_RATIO[1]:
        return Verdict(False, "no catalogued source is left to compare fluxes with", "flux")
    if start is not None and end is not None:
        low, high = FLUX_RATIO_RANGE
        kept = start > 0 and low <= end / start <= high
        if not kept and not abs(end - 1) < abs(start - 1):
            reason = f"fluxes moved away from the catalogue: ratio {start:.3f} -> {end:.3f}"
            return Verdict(False, reason, "flux")
    return Verdict(True, f"signal to noise at equal depth {before.snr:.1f} -> {after.snr:.1f}", "snr")


def confirmed_by_sources(
    verdict: Verdict, before: Appraisal, after: Appraisal, check: SkyCheck | None
) -> bool:
    """Whether held-out sources show that a round is better whose image was rejected for its noise.

    Sources outside a small image, coherent again after calibration, can hide in their sidelobes that
    everything has become better. A rejection for flux, or for the beam, stands.

    Parameters
    ----------
    verdict : Verdict
        Of the images.
    before, after : Appraisal
        The best state so far and the new one.
    check : SkyCheck or None
        What held-out sources say of the new one.
    """
    if check is None or not check.tells or verdict.subject not in ("snr", "rms"):
        return False
    return after.snr > HOPELESS_SNR * before.snr and check.phased.value > check.phased_input + max(
        RECOVERED_MORE, 3 * check.phased.error
    )


def worse_than_found(found: Appraisal, delivered: Appraisal, check: SkyCheck | None) -> str:
    """Say in which way what is delivered is worse than what was found, each at its own weights.

    Parameters
    ----------
    found, delivered : Appraisal
        Of the input and of the calibration that is to be kept.
    check : SkyCheck or None
        What held-out sources say of the calibration.

    Returns
    -------
    str
        Empty if it is not.
    """
    confirmed = check is not None and check.confirmed and check.phased.value > check.phased_input
    if found.snr > (AS_FOUND_CONFIRMED if confirmed else AS_FOUND) * delivered.snr:
        return f"signal to noise at the weights of each fell: {found.snr:.1f} -> {delivered.snr:.1f}"
    return ""


def outcome_of(
    rounds: Sequence[Round], snr_ratios: Sequence[float | None], chi2_input: float | None
) -> Outcome:
    """Say how a run ended.

    Parameters
    ----------
    rounds : sequence of Round
        All rounds.
    snr_ratios : sequence of float or None
        Of each round's image, its signal to noise over that of the input at the same depth; None without
        an image.
    chi2_input : float or None
        Held-out chi-squared of the input, if it was measured.

    Returns
    -------
    Outcome
    """
    accepted = [k for k, r in enumerate(rounds, 1) if r.verdict.accepted and r.image is not None]
    if accepted:
        kept = rounds[accepted[-1] - 1]
        judged = kept.image_verdict
        # The signal to noise that is told is that of the image that is delivered, which is made later.
        said = kept.verdict.reason if judged is None or judged.subject == "snr" else kept.reason
        return Outcome("improved", f"improved by round {accepted[-1]}: {said}")
    for this, ratio in zip(rounds, snr_ratios, strict=True):
        if ratio is not None and ratio < DIVERGED_SNR:
            return Outcome("diverged", f"diverged and rolled back: {this.reason}")
    reason = rounds[-1].reason if rounds else "no round was made"
    solved = [r for r in rounds if r.solution.solved_fraction > MIN_SOLVED_FRACTION]
    best = min((r.chi2_heldout for r in solved), default=0.0)
    explained = bool(solved) and best < EXPLAINED_CHI2
    if chi2_input is not None and explained and chi2_input < CONVERGED_CHI2 * best:
        return Outcome("converged", f"already calibrated, input kept: {reason}")
    return Outcome("no_improvement", f"input kept: {reason}")
