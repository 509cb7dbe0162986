"""The state of a self-calibration: values that do not change. A stage returns another one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.cross_validation import Score, Solution
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.phase_gradient import PhaseGradient
from dsa110_contimg.calibration.pointing import PointingFit
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.selfcal.data_weights import DataWeights, Outliers
from dsa110_contimg.selfcal.distortion import Distortion
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities, SkyVisibilities
from dsa110_contimg.selfcal.sky_check import Estimate, HeldoutSources, SkyCheck
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.selfcal.untouched_score import UntouchedScore
from dsa110_contimg.sky import ApparentSky, PrimaryBeam
from dsa110_contimg.sky.beam import RoundBeam
from dsa110_contimg.visibilities import NoiseBounds, NoiseScale

__all__ = ["BeamWidth", "CalState", "FluxScale", "MeasuredNoise", "Outcome", "Round", "Scale", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Accepted or not, and why.

    Attributes
    ----------
    accepted : bool
        Whether it is.
    reason : str
        In one line.
    subject : str
        By what an image was accepted or rejected: ``snr``, ``rms``, ``beam``, ``flux`` or ``sources``.
    """

    accepted: bool
    reason: str
    subject: str = ""


@dataclass(frozen=True)
class Scale:
    """Flux scale of a calibration.

    Attributes
    ----------
    of_input : float
        Fluxes of the input over those of the catalogue.
    error : float
        Its standard error, by the scatter of a good catalogue.
    taken_from : str
        ``input`` or ``catalogue``: whose scale the result has.
    """

    of_input: float
    error: float
    taken_from: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended: a status of ``selfcal_summary.json``, the reason in one line, what else is told."""

    status: str
    message: str
    remarks: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One solution and its fate.

    Attributes
    ----------
    solution : Solution
        The gains of this round.
    model : str
        What they were solved against: ``seed`` or ``clean``.
    tables : tuple of GainTable
        All gains after the initial tables, this round's last.
    verdict : Verdict
        Whether it is accepted.
    seconds : float
        Time it took.
    predicted_snr : float
        Signal to noise per antenna that the model promised.
    image : CalibratedImage or None
        Image of the data after `tables`, if one was made.
    image_verdict : Verdict or None
        How that compares with the image before it, each at the depth of the input's.
    """

    solution: Solution
    model: str
    tables: tuple[GainTable, ...]
    verdict: Verdict
    seconds: float
    predicted_snr: float = 0.0
    image: CalibratedImage | None = None
    image_verdict: Verdict | None = None

    @property
    def reason(self) -> str:
        """All that was said of it, in one line."""
        of_image = self.image_verdict.reason if self.image_verdict else ""
        return "; ".join(filter(None, [self.verdict.reason, of_image]))

    @property
    def chi2_heldout(self) -> float:
        """Residual variance on channels that were not solved on, in units of thermal variance."""
        return self.solution.score.chi2_heldout


@dataclass(frozen=True)
class FluxScale:
    """What flux scale and positions were off by before the sky model was rescaled.

    Attributes
    ----------
    n_sources : int
        Bright catalogue sources in the medians.
    flux_scale : float
        Median of measured over catalogue flux.
    offset_arcsec : (float, float) or None
        Median of measured minus catalogued position, east and north; None where only all sources together
        tell the scale, and nothing a position.
    """

    n_sources: int
    flux_scale: float
    offset_arcsec: tuple[float, float] | None


@dataclass(frozen=True)
class BeamWidth:
    """Width of the beam that was found and is used.

    Attributes
    ----------
    width : Estimate
        Over that of the beam that was assumed.
    assumed : PrimaryBeam
        That beam.
    """

    width: Estimate
    assumed: PrimaryBeam

    @property
    def remedy(self) -> str:
        """What to give for the next observation; empty for a beam without a diameter."""
        if not isinstance(self.assumed, RoundBeam):
            return ""
        return f"; --dish-diameter-m {self.assumed.diameter_m / self.width.value:.3g} says so beforehand"


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredNoise:
    """Noise of what a model leaves after gains.

    Attributes
    ----------
    model : ModelVisibilities
        The model.
    excess : ndarray, shape (nant, 2)
        Factor of each antenna on the variance of its visibilities.
    tables : tuple of GainTable
        The gains.
    bounds : NoiseBounds
        What was measured.
    """

    model: ModelVisibilities
    excess: Float
    tables: tuple[GainTable, ...]
    bounds: NoiseBounds

    def is_of(self, state: CalState) -> bool:
        """Whether a state has this model and these gains and weights."""
        same = self.model is state.model and self.tables == state.tables and not state.weights.window_factor
        return same and np.array_equal(self.excess, state.weights.excess)


@dataclass(frozen=True, kw_only=True, eq=False)
class CalState:
    """Everything that a stage may find out, and nothing that it could change.

    Rejecting a trial is returning the state that was there before it.

    Attributes
    ----------
    weights : DataWeights
        What the visibilities count for.
    found_outliers : mapping of int to ndarray of int
        Outliers seen on the way to this state that still have their weight, so that rounds that are
        compared see the same data.
    noise : NoiseScale
        Noise of the data: the lowest that was measured; of a finished run that of the final residual.
    noise_bounds : NoiseBounds or None
        The bounds that `noise` is the lowest of.
    noise_at_end : MeasuredNoise or None
        What the residual showed when the last weights were settled.
    model : ModelVisibilities or None
        What the gains are solved against.
    components : ApparentSky or None
        Clean components in the sky model that the catalogue does not list.
    bandpass : tuple of GainTable
        Delays or bandpass, applied before the gains of a round.
    statistics : BaselineStatistics or None
        Of the data against the model, at the weights that the newest solution used.
    by_sub_band : BaselineStatistics or None
        The same by parts of the windows, until the bandpass is settled.
    input_score : Score or None
        Of the input against the model; where every round has another model, against the first.
    rounds : tuple of Round
        Solutions; of an unseeded run each against the image before it.
    measured : SourceMeasurement or None
        Bright catalogue sources as the calibrated data show them.
    flux_scale : FluxScale or None
        What flux scale and position were off by, if the sky model was rescaled.
    pointing : PointingFit or None
        The newest solution for the antennas' pointing, if one was kept: the sky model has the offsets.
    distortion : Distortion or None
        What the sources that were not measured are displaced by, if that was kept.
    beam_width : BeamWidth or None
        Width of the beam, if another one than that assumed is used.
    heldout : HeldoutSources or None
        Sources measured with gains from others.
    sky_check : SkyCheck or None
        What they say.
    moved : PhaseGradient or None
        How far the gains move the sky of the input.
    scale : Scale or None
        Whose flux scale the newest round has.
    findings : tuple of Finding
        What speaks against sky, beam, data or start.
    sky_differs : bool
        Whether the sky has shown itself to be another than the catalogue's.
    untouched : UntouchedScore or None
        Of the calibration and of the input, on data that no step has used.
    mask : ndarray of bool, shape (size, size), or None
        Catalogue mask, made for the beam of the first image.
    n_judged : int
        Rounds, from the first, that have been judged by their images.
    tables : tuple of GainTable
        The calibration that is kept; empty while that is the input.
    kept_model : ModelVisibilities or None
        What `tables` were solved against.
    comparison_weights : tuple of GainTable
        Gains that the weights of the initial image follow, so that it can be compared; empty: its own.
    initial, image : CalibratedImage or None
        Images of the input and of the calibration that is kept.
    outcome : Outcome or None
        Set by the stage that ends the run.
    """

    weights: DataWeights
    found_outliers: Outliers = field(default_factory=dict)
    noise: NoiseScale = NoiseScale(math.nan)  # noqa: RUF009  frozen
    noise_bounds: NoiseBounds | None = None
    noise_at_end: MeasuredNoise | None = None
    model: ModelVisibilities | None = None
    components: ApparentSky | None = None
    bandpass: tuple[GainTable, ...] = ()
    statistics: BaselineStatistics | None = None
    by_sub_band: BaselineStatistics | None = None
    input_score: Score | None = None
    rounds: tuple[Round, ...] = ()
    measured: SourceMeasurement | None = None
    flux_scale: FluxScale | None = None
    pointing: PointingFit | None = None
    distortion: Distortion | None = None
    beam_width: BeamWidth | None = None
    heldout: HeldoutSources | None = None
    sky_check: SkyCheck | None = None
    moved: PhaseGradient | None = None
    scale: Scale | None = None
    findings: tuple[Finding, ...] = ()
    sky_differs: bool = False
    untouched: UntouchedScore | None = None
    mask: Bool | None = None
    n_judged: int = 0
    tables: tuple[GainTable, ...] = ()
    kept_model: ModelVisibilities | None = None
    comparison_weights: tuple[GainTable, ...] = ()
    initial: CalibratedImage | None = None
    image: CalibratedImage | None = None
    outcome: Outcome | None = None

    @property
    def sky_model(self) -> ApparentSky | None:
        """Components that the gains are solved against; None if the model is an image or there is none."""
        return self.model.sky if isinstance(self.model, SkyVisibilities) else None

    @property
    def noise_and_sidelobes(self) -> NoiseScale:
        """Noise with what the newest round leaves beside it, which disturbs a source as noise does."""
        return NoiseScale(self.noise.variance * max(1.0, self.last.chi2_heldout))

    @property
    def last(self) -> Round:
        """The newest round."""
        return self.rounds[-1]

    def at_lower_noise(
        self, measured: NoiseScale, fraction: float = 1.0, bounds: NoiseBounds | None = None
    ) -> CalState:
        """Return the state at a noise that is below a fraction of its own variance; else the state itself."""
        lower = measured.known and not fraction * self.noise.variance <= measured.variance
        return replace(self, noise=measured, noise_bounds=bounds) if lower else self

    def with_round(self, number: int, changed: Round) -> CalState:
        """Return the state with another round in place of one, counted from zero."""
        rounds = list(self.rounds)
        rounds[number] = changed
        return replace(self, rounds=tuple(rounds))
