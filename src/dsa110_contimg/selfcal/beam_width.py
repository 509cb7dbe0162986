"""How wide the beam is: measured from fluxes across the field, and taken if held-out data gain by it.

Where sources were scaled to what was measured of them, one by one, they have taken a wrong width up. It shows
in the trend of these fluxes against the catalogue's with distance from the beam's centre. What depends on the
beam, the catalogue model first of all, is then made anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import CatalogCoverageError
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding, absurd_width, size_of_beam, wrong_width
from dsa110_contimg.selfcal.heldout_sources import halves
from dsa110_contimg.selfcal.params import SelfCalParams, with_beam
from dsa110_contimg.selfcal.sky_check import Estimate, beam_trends, width_misfit
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages import Stage, run_stages
from dsa110_contimg.selfcal.state import BeamWidth, CalState
from dsa110_contimg.selfcal.trial import improvement

__all__ = ["WidthFit", "fit_width", "solved_with_width"]

#: The width is measured again through the beam that was found, at most this often, or until it is within this
#: fraction of it: fluxes of faint sources, held to the catalogue's, tell a little less than all of it.
MOST_WIDTHS, SETTLED = 4, 0.005


@dataclass(frozen=True, kw_only=True)
class WidthFit:
    """Width of a beam that fluxes ask for.

    Attributes
    ----------
    width : Estimate
        Over that of the beam that is assumed.
    gains : (float, float)
        By how much the width from either half of the sources lowers chi-squared of the fluxes of the other
        one; negative where it makes them worse, not a number where a half tells no width.
    """

    width: Estimate
    gains: tuple[float, float]

    @property
    def asked(self) -> bool:
        """Whether all sources ask for another width, and either half predicts the other better with it."""
        within = wrong_width(self.width) and not absurd_width(self.width)
        return within and self.predicts

    @property
    def predicts(self) -> bool:
        """Whether either half predicts the fluxes of the other better with its width."""
        return all(gain > 0 for gain in self.gains)


def fit_width(data: CalibrationData, state: CalState) -> WidthFit | None:
    """Measure the width of the beam; None where no sources were measured."""
    measured, listed = state.measured, data.catalog_model
    if measured is None or listed is None:
        return None
    ra, dec = (float(x) for x in data.reader.pointing[len(data.reader.times) // 2])
    good = measured.good
    index, ratio, error = measured.index[good], measured.ratio[good], measured.ratio_error[good]
    lm = listed.sky.select(index).lmn(ra, dec)[:, :2]
    first = halves(listed, listed, (ra, dec), data.resolution_rad)[index]

    def width_of(part: Bool) -> Estimate:
        return beam_trends(ratio[part], error[part], lm[part], listed.beam, listed.freq_hz)[0]

    def gain(on: Bool) -> float:
        width, other = width_of(on).value, ~on
        if not np.isfinite(width):
            return float("nan")
        before, after = (
            width_misfit(ratio[other], error[other], lm[other], listed.beam, listed.freq_hz, at)
            for at in (1.0, width)
        )
        return before - after

    return WidthFit(width=width_of(np.ones(ratio.size, dtype=bool)), gains=(gain(first), gain(~first)))


def solved_with_width(
    stages: tuple[Stage, ...],
    params: SelfCalParams,
    data: CalibrationData,
    state: CalState,
    log: StageLog,
) -> tuple[SelfCalParams, CalibrationData, CalState]:
    """Pass a state through stages, again with the width that they measure while held-out data gain by it.

    Parameters
    ----------
    stages : tuple of Stage
        From the data to measured sources.
    params : SelfCalParams
        What was asked for.
    data : CalibrationData
        The data.
    state : CalState
        To begin with.
    log : StageLog
        Told what came out.

    Returns
    -------
    params, data, state
        With the beam that is kept, and the state after the stages.
    """
    config: SelfCalConfig = params.config
    assumed, total, error = params.context.beam, 1.0, float("nan")
    best = run_stages(stages, data, state, config, log)
    for _ in range(MOST_WIDTHS):
        fit = None if best.outcome is not None else fit_width(data, best)
        if fit is None or not (fit.asked if total == 1 else fit.predicts):
            if total == 1:
                log.note(_not_asked(fit))
            break
        factor = fit.width.value
        if abs(np.log(factor)) < SETTLED:
            break
        try:
            other = with_beam(params, assumed.widened(total * factor))
        except CatalogCoverageError as lacking:
            log.note(
                f"width of the beam: left as it is, for the catalogue does not reach as far: {lacking.what}"
            )
            break
        moved = data.with_catalogue(other.catalog_model, other.mask_sources)
        trial = run_stages(stages, moved, state, config, log)
        alike = trial
        if trial.outcome is None and bool(trial.bandpass) != bool(best.bandpass):
            # A bandpass takes up what a wrong beam changes over frequency: both with it or both without.
            spectral = config.with_options(spectral="bandpass" if best.bandpass else "off")
            alike = run_stages(stages, moved, state, spectral, log)
        better = alike.outcome is None and alike.last.verdict.accepted and improvement(best, alike) > 1
        log.note(
            f"width of the beam: {total * factor:.3f} +- {total * fit.width.error:.3f} times that of "
            f"{size_of_beam(assumed)}; held-out chi2 {best.last.chi2_heldout:.5g} -> "
            f"{alike.last.chi2_heldout if alike.rounds else float('nan'):.5g}: "
            f"{'kept' if better else 'left out'}"
        )
        if not better:
            break
        params, data, best, total = other, moved, trial, total * factor
        error = total * fit.width.error / factor
    if total == 1:
        return params, data, best
    found = BeamWidth(Estimate(total, error), assumed)
    off = f"{abs(100 * (total - 1)):.1f} +- {100 * error:.1f} % {'wider' if total > 1 else 'narrower'}"
    text = f"the beam is {off} than that of {size_of_beam(assumed)}, and taken so"
    finding = Finding("beam_corrected", text + found.remedy)
    return params, data, replace(best, beam_width=found, findings=(*best.findings, finding))


def _not_asked(fit: WidthFit | None) -> str:
    if fit is None or not np.isfinite(fit.width.value):
        return "width of the beam: too few sources tell it; left as it is"
    said = f"width of the beam: {fit.width.value:.3f} +- {fit.width.error:.3f} times that assumed"
    if absurd_width(fit.width):
        return f"{said}: too far off to be corrected"
    return f"{said}: left as it is"
