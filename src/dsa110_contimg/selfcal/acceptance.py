"""When a round of self-calibration is accepted, and when it is taken back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Appraisal", "Verdict", "appraise_image", "appraise_solution"]

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
        Median of image flux over apparent catalogue flux.
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


@dataclass(frozen=True)
class Verdict:
    """Accepted or not, and why."""

    accepted: bool
    reason: str


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
        return Verdict(False, f"signal to noise fell: {before.snr:.1f} -> {after.snr:.1f}")
    start, end = before.flux_ratio, after.flux_ratio
    units = before.amplitude / after.amplitude
    expected = before.rms_jy * units
    if start is not None and end is not None and 0 < start * units < DECORRELATED:
        # A decorrelated image has little of the flux and little of its sidelobes; both come back together.
        expected *= max(1.0, end / (start * units))
    if not after.rms_jy < MAX_RMS_GROWTH * expected:
        return Verdict(False, f"rms grew: {1e3 * expected:.3g} -> {1e3 * after.rms_jy:.3g} mJy")
    if not after.beam_area_sr < MAX_BEAM_GROWTH * before.beam_area_sr:
        growth = 100 * (after.beam_area_sr / before.beam_area_sr - 1)
        return Verdict(False, f"the beam's area grew by {growth:.0f} %")
    if start is not None and end is None and CREDIBLE_RATIO[0] <= start <= CREDIBLE_RATIO[1]:
        return Verdict(False, "no catalogued source is left to compare fluxes with")
    if start is not None and end is not None:
        low, high = FLUX_RATIO_RANGE
        kept = start > 0 and low <= end / start <= high
        if not kept and not abs(end - 1) < abs(start - 1):
            return Verdict(False, f"fluxes moved away from the catalogue: ratio {start:.3f} -> {end:.3f}")
    return Verdict(True, f"signal to noise {before.snr:.1f} -> {after.snr:.1f}")
