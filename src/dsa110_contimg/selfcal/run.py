"""The main job: seed, solve, image, check, keep the best and roll back the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool
from dsa110_contimg.calibration.cross_validation import Score
from dsa110_contimg.calibration.gains import GainTable, typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.files import write_json
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities
from dsa110_contimg.imaging.wsclean.runner import WSClean, open_wsclean
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.selfcal.acceptance import (
    MIN_SOLVED_FRACTION,
    Appraisal,
    Verdict,
    appraise_image,
)
from dsa110_contimg.selfcal.antenna_report import ANTENNAS, antenna_report, antenna_verdicts
from dsa110_contimg.selfcal.calibration_data import ImageModel
from dsa110_contimg.selfcal.imaging import (
    CalibratedImage,
    measure,
    region_for,
)
from dsa110_contimg.selfcal.params import Plan, make_plan, owned
from dsa110_contimg.selfcal.production import make_image_with_wsclean
from dsa110_contimg.selfcal.products import (
    SUMMARY,
    earlier_tables,
    write_everything,
)
from dsa110_contimg.selfcal.seeded import SeededRounds
from dsa110_contimg.selfcal.solve_round import MIN_SIGNAL_SNR
from dsa110_contimg.selfcal.source_report import QUALITY, seed_quality
from dsa110_contimg.selfcal.stage_log import STAGES, StageRecords
from dsa110_contimg.selfcal.summary import MASK, Round, State, summary_of
from dsa110_contimg.visibilities import (
    recover_columns,
)

__all__ = ["SelfCalConfig", "SelfCalResult", "selfcal_ms"]

logger = logging.getLogger(__name__)

#: A round that loses this much of the signal to noise has diverged.
DIVERGED_SNR = 0.8
#: Unseeded rounds go on while the signal to noise grows by this factor.
WORTHWHILE_SNR = 1.02
#: A held-out chi-squared this near to the solution's own says that the input was calibrated already.
CONVERGED_CHI2 = 1.01
#: Where the held-out chi-squared falls by this factor, a bad image is looked at again without the seed.
SECOND_LOOK_CHI2 = 1.1
#: Where the image lost this much, a second look would only show that the model was subtracted twice.
HOPELESS_SNR = 0.5
#: A model that leaves more than this times the thermal variance does not explain the data.
EXPLAINED_CHI2 = 2.0


@dataclass(frozen=True)
class SelfCalResult:
    """Outcome of :func:`selfcal_ms`.

    Attributes
    ----------
    status : str
        improved, converged, no_improvement, refused or diverged.
    message : str
        The reason, in one line.
    summary : dict
        What ``selfcal_summary.json`` holds.
    output_dir : Path
        Where the products lie.
    """

    status: str
    message: str
    summary: dict[str, Any]
    output_dir: Path

    @property
    def improved(self) -> bool:
        """True if the Measurement Set now holds a better calibration than before."""
        return self.status == "improved"


def selfcal_ms(
    ms_path: Path | str,
    output_dir: Path | str,
    config: SelfCalConfig | None = None,
    initial_caltables: Sequence[Path | str] | None = None,
    *,
    progress: Progress | None = None,
) -> SelfCalResult:
    """Self-calibrate one field of a Measurement Set.

    The catalogue's sky, as the telescope sees it, is the model; gains are
    solved against it on top of the initial tables, judged on channels that
    were not solved on, then by an image, and kept only if better. DATA is never
    written; MODEL_DATA and CORRECTED_DATA are written when the calibration
    improved, and what they held before is kept beside them.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set.
    output_dir : Path or str
        Folder for tables, images and summary; made if missing.
    config : SelfCalConfig, optional
        Options.
    initial_caltables : sequence of Path or str, optional
        CASA tables (B, G or T Jones) applied first, on the fly.
    progress : Progress, optional
        Where progress is reported.

    Returns
    -------
    SelfCalResult

    Raises
    ------
    InputError
        If something handed in cannot be used; nothing has been changed then.
    EngineError
        If an engine fails; the Measurement Set is as it was then.
    """
    path, out = Path(ms_path), Path(output_dir)
    with StageRecords(progress or LogProgress()) as records, owned(path, records):
        plan = make_plan(path, out, config or SelfCalConfig(), initial_caltables or ())
        return _Run(plan, records).execute()


class _Run(SeededRounds):
    """One self-calibration from plan to products."""

    def __init__(self, plan: Plan, progress: StageRecords) -> None:
        super().__init__(plan, progress)
        #: Maker of the final image, where it is not the embedded engine.
        self.wsclean: WSClean | None = None

    def execute(self) -> SelfCalResult:
        out = self.plan.output_dir
        out.mkdir(parents=True, exist_ok=True)
        if self.config.backend != "embedded":
            # Asked first: what is missing shall not show at the end.
            self.wsclean = open_wsclean(self.config, self.plan.ms.path, out)
            detect_capabilities(self.wsclean)
        earlier = earlier_tables(out / SUMMARY)
        # The summary marks a finished run: an old one goes first.
        (out / SUMMARY).unlink(missing_ok=True)
        (out / f"{MASK}.fits").unlink(missing_ok=True)
        self.progress.write_to(out / STAGES)
        recover_columns(self.plan.ms)
        state, initial, status, message = self._seeded() if self.plan.seed else self._unseeded()
        final = self._final_image(state, initial)
        quality = None
        if self.plan.seed is not None and self.seed is not None:
            quality = seed_quality(self.plan.seed, self.seed, self.measured)
        antennas = self._antennas(state)
        reports = {QUALITY: quality, ANTENNAS: antennas}
        with self._timed("write"):
            tables = write_everything(
                self.plan, self.observation, self.grid, state.tables, initial, final, earlier, reports
            )
        self.seconds["read"] = self.plan.reader.seconds
        self.seconds["predict"] = self.observation.predict_seconds
        self.seconds["total"] = time.perf_counter() - self.started
        summary = summary_of(
            self.plan,
            state,
            initial,
            final,
            grid=self.grid,
            noise=self.noise,
            status=status,
            message=message,
            tables=tables,
            anchor=self.anchor,
            quality=quality,
            antennas=antennas,
            data_hash=self.observation.data_hash,
            seconds=self.seconds,
        )
        write_json(out / SUMMARY, summary)
        return SelfCalResult(status, message, summary, out)

    def _antennas(self, state: State) -> Table | None:
        """Say of each antenna what became of it, if the calibration is kept."""
        last = next((r.solution for r in reversed(state.rounds) if r.tables == state.tables), None)
        if not state.tables or last is None or self.statistics is None:
            return None
        n = len(self.plan.ms.antennas)
        present = np.zeros((n, 2), dtype=bool)
        known = self.statistics.present()
        present[: len(known)] = known
        report = antenna_report(
            self.plan.ms.antennas.name,
            state.tables,
            last,
            self.plan.reader.times,
            present,
            self.observation.noise_factors,
        )
        for verdict, names in antenna_verdicts(report).items():
            self.progress.note(f"antennas, {verdict}: {', '.join(names)}")
        return report

    def _seeded(self) -> tuple[State, CalibratedImage, str, str]:
        """Solve phases, then amplitudes, against the seed; image once before and once after."""
        seed = self._catalogue
        self.progress.note(
            f"seed: {len(seed)} {seed.catalog.upper()} sources, {seed.apparent_jy.sum():.3f} Jy apparent, "
            f"the brightest {seed.apparent_jy[0]:.3f} Jy"
        )
        self._find_spectral(seed)
        rounds, before = self._seeded_rounds(seed)
        if rounds[0].solution.median_snr < MIN_SIGNAL_SNR:
            rounds[0].verdict = Verdict(False, "too little signal")
            initial = self._image((), "image before")
            return State((), initial, rounds), initial, "refused", self._too_little(rounds[0])
        if rounds[-1].verdict.accepted:
            rounds, before = self._perfected_rounds(rounds, before)
        # All images that are compared take their weights and flags from the last solution.
        weights = next((r.tables for r in reversed(rounds) if r.verdict.accepted), ())
        initial = self._image((), "image before", weight_tables=weights)
        chosen = self._accept_from_last(rounds, State((), initial), weights, before)
        outcome = self._outcome(rounds, initial, before)
        if chosen is not None and chosen.image is not None:
            return State(chosen.tables, chosen.image, rounds), initial, *outcome
        if weights:
            # The input is kept: its image is that of the input alone, as it was found.
            initial = self._image((), "image of the input")
        return State((), initial, rounds), initial, *outcome

    def _unseeded(self) -> tuple[State, CalibratedImage, str, str]:
        """Take the model from the image, round by round."""
        initial = self._image((), "image before")
        state = State((), initial)
        before: Score | None = None
        amplitude = False
        while len(state.rounds) < self.config.max_rounds:
            if not state.image.cleaned.model.any():
                message = "refused: the image holds nothing to calibrate on"
                return state, initial, "refused", message
            self.observation.set_model(ImageModel(state.image.cleaned.model, self.grid, self.config.threads))
            self.statistics = self._gather()
            solver = self._solver()
            now = solver.fixed_score(state.tables)
            before = before or now
            fresh = [self._solve(solver, "p", self.config.solint, "clean", (), now)]
            if fresh[0].solution.median_snr < MIN_SIGNAL_SNR:
                fresh[0].verdict = Verdict(False, "too little signal")
                state.rounds += fresh
                if not any(r.verdict.accepted for r in state.rounds):
                    return state, initial, "refused", self._too_little(fresh[0])
                break
            if amplitude:
                second = self._amplitude_round(
                    solver, fresh[0] if fresh[0].verdict.accepted else None, now, "clean"
                )
                if second is None:
                    break
                fresh.append(second)
            weights = next((r.tables for r in reversed(fresh) if r.verdict.accepted), ())
            if amplitude and weights:
                state.image = self._image(state.tables, "image at the new weights", weight_tables=weights)
            earlier = state.image.cleaned
            chosen = self._accept_from_last(fresh, state, weights)
            state.rounds += fresh
            worthwhile = False
            if chosen is not None and chosen.image is not None:
                worthwhile = chosen.image.cleaned.rms * WORTHWHILE_SNR < earlier.rms
                state = State(chosen.tables, chosen.image, state.rounds)
            if amplitude or (not worthwhile and self.config.amplitude == "off"):
                break
            amplitude = not worthwhile
        return state, initial, *self._outcome(state.rounds, initial, before)

    def _accept_from_last(
        self,
        rounds: list[Round],
        state: State,
        weights: tuple[GainTable, ...],
        before: Score | None = None,
    ) -> Round | None:
        """Image the last round its solution speaks for; if the image speaks against it, the one before."""
        for k in range(len(rounds) - 1, -1, -1):
            this, number = rounds[k], len(state.rounds) + k + 1
            if not this.verdict.accepted:
                continue
            started = time.perf_counter()
            amplitude = typical_amplitude(this.tables) / typical_amplitude(state.tables)
            this.image = self._image(
                this.tables,
                f"image after round {number}",
                depth_jy=state.image.cleaned.threshold_jy / amplitude,
                weight_tables=None if this.tables is weights else weights,
            )
            region = region_for(this.image, self.grid, self.plan.seed, self.noise)
            was = self._appraisal(state.image, region, state.tables)
            now = self._appraisal(this.image, region, this.tables)
            verdict = appraise_image(was, now)
            credible = now.snr > HOPELESS_SNR * was.snr
            if not verdict.accepted and credible and self._worth_second_look(this, before):
                verdict = self._second_look(this, state, weights, verdict)
            this.verdict = Verdict(verdict.accepted, f"{this.verdict.reason}; {verdict.reason}")
            this.seconds += time.perf_counter() - started
            self.progress.note(
                f"round {number} {'accepted' if verdict.accepted else 'rolled back'}: {verdict.reason}"
            )
            if verdict.accepted:
                self.improved = True
                return this
        return None

    def _worth_second_look(self, this: Round, before: Score | None) -> bool:
        """Whether the held-out channels say much better of a round than its image does."""
        return (
            self.plan.seed is not None
            and before is not None
            and before.chi2_heldout > SECOND_LOOK_CHI2 * this.solution.score.chi2_heldout
        )

    def _second_look(
        self, this: Round, state: State, weights: tuple[GainTable, ...], first: Verdict
    ) -> Verdict:
        """Compare the seed-subtracted images.

        Sources outside a small image, coherent again after calibration, can hide in
        their sidelobes that everything has become better.
        """
        was, now = (
            self._image(tables, "second look, seed subtracted", subtract=True, weight_tables=weights)
            for tables in (state.tables, this.tables)
        )
        region = region_for(now, self.grid, self.plan.seed, self.noise)
        verdict = appraise_image(
            self._appraisal(was, region, state.tables, own_depth=True),
            self._appraisal(now, region, this.tables, own_depth=True),
        )
        if verdict.accepted:
            return Verdict(True, f"{verdict.reason} with the seed subtracted (plain images: {first.reason})")
        return first

    def _appraisal(
        self,
        image: CalibratedImage,
        region: Bool,
        tables: tuple[GainTable, ...],
        own_depth: bool = False,
    ) -> Appraisal:
        compared = measure(image, self.grid, region, self.plan.seed, self.noise, shallow=not own_depth)
        # A shallow CLEAN leaves sidelobes on the fluxes: those are taken at the image's own depth.
        deep = measure(image, self.grid, region, self.plan.seed, self.noise)
        return Appraisal(
            compared.snr,
            compared.rms_jy,
            image.cleaned.beam.solid_angle_sr,
            deep.flux_ratio,
            typical_amplitude(tables),
        )

    def _outcome(
        self, rounds: list[Round], initial: CalibratedImage, before: Score | None
    ) -> tuple[str, str]:
        accepted = [k for k, r in enumerate(rounds, 1) if r.verdict.accepted and r.image is not None]
        if accepted:
            kept = rounds[accepted[-1] - 1]
            message = f"improved by round {accepted[-1]}: {kept.verdict.reason}"
            if kept.solution.score.chi2_heldout > EXPLAINED_CHI2:
                message += "; the model leaves far more than noise unexplained: check the result"
            return "improved", message
        reason = rounds[-1].verdict.reason if rounds else "no round was made"
        for r in rounds:
            if r.image is None:
                continue
            region = region_for(r.image, self.grid, self.plan.seed, self.noise)
            was = measure(initial, self.grid, region, self.plan.seed, self.noise)
            now = measure(r.image, self.grid, region, self.plan.seed, self.noise, shallow=True)
            if now.snr < DIVERGED_SNR * was.snr:
                return "diverged", f"diverged and rolled back: {r.verdict.reason}"
        solved = [r for r in rounds if r.solution.solved_fraction > MIN_SOLVED_FRACTION]
        best = min((r.solution.score.chi2_heldout for r in solved), default=0.0)
        explained = solved and best < EXPLAINED_CHI2
        if before is not None and explained and before.chi2_heldout < CONVERGED_CHI2 * best:
            return "converged", f"already calibrated, input kept: {reason}"
        return "no_improvement", f"input kept: {reason}"

    def _too_little(self, this: Round) -> str:
        return (
            f"refused: signal to noise {this.solution.median_snr:.1f} per antenna in "
            f"{this.solution.solint_s:.0f} s is under {MIN_SIGNAL_SNR:g} ({this.predicted_snr:.1f} was to be "
            "expected of the model if the data are in jansky); nothing was touched"
        )

    def _final_image(self, state: State, initial: CalibratedImage) -> CalibratedImage:
        """Make the image that is delivered: of the best round at its own depth, or the initial one."""
        if not state.tables:
            return initial
        with self._timed("image"):
            self.noise = float(np.sqrt(self.observation.residual_noise(state.tables).scale2 / 2))
        subtract = self.plan.seed is not None and self.config.imaging == "subtracted"
        if self.wsclean is not None:
            with self._timed("image"):
                return make_image_with_wsclean(
                    self.wsclean,
                    self.observation,
                    state.tables,
                    self.grid,
                    self.config,
                    self.plan.output_dir,
                    seed=self.seed if subtract else None,
                    catalogue=self.plan.seed,
                    noise=self.noise,
                    mask_for=self._mask_for if self.config.catalog_mask else None,
                )
        if not subtract:
            return self._image(state.tables, "final image")
        if self.left is not None and self.left[0] is state.tables:
            return self.left[1]
        return self._image(state.tables, "final image", subtract=True)
