"""The main job: seed, solve, image, check, keep the best and roll back the rest."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.calibration.accept import (
    MIN_SOLVED_FRACTION,
    Appraisal,
    Verdict,
    appraise_image,
    appraise_solution,
)
from dsa110_contimg.calibration.account import MASK, Round, State, summary_of
from dsa110_contimg.calibration.anchor import SeedMeasurement, measure_seeds, tied_seed
from dsa110_contimg.calibration.antennas import ANTENNAS, antenna_report, antenna_verdicts
from dsa110_contimg.calibration.choose import MIN_HELDOUT_SNR, GainSolver, Score, Solution
from dsa110_contimg.calibration.completion import brighter, joined, lacking_sources
from dsa110_contimg.calibration.gains import GainTable, typical_amplitude
from dsa110_contimg.calibration.images import (
    CalibratedImage,
    make_image,
    measure,
    region_for,
)
from dsa110_contimg.calibration.observation import ImageModel, Observation, SeedModel, sub_band_edges
from dsa110_contimg.calibration.plan import Plan, make_plan, owned
from dsa110_contimg.calibration.production import make_image_with_wsclean
from dsa110_contimg.calibration.products import (
    SUMMARY,
    earlier_tables,
    write_everything,
    write_json,
)
from dsa110_contimg.calibration.solver import rank_reference_antennas
from dsa110_contimg.calibration.spectral import SUB_BANDS, solve_spectral
from dsa110_contimg.calibration.stages import STAGES, StageRecords
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.calibration.trust import QUALITY, seed_quality
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid, RestoringBeam
from dsa110_contimg.imaging.cli_imaging import grid_for
from dsa110_contimg.imaging.masks import catalog_mask, write_mask
from dsa110_contimg.imaging.wsclean import WSClean, detect_capabilities, open_wsclean
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.sky import Seed
from dsa110_contimg.visibilities import (
    recover_columns,
)

__all__ = ["SelfCalConfig", "SelfCalResult", "selfcal_ms"]

logger = logging.getLogger(__name__)

#: What time is charged to: `gather` makes the statistics, `solve` chooses and solves on them, `measure` is
#: for the fluxes and positions of the seeds.
STAGE_NAMES = ("total", "read", "predict", "gather", "solve", "measure", "image", "write")
#: An amplitude solution needs this signal to noise per antenna, or it adds more noise than it takes away.
MIN_AMPLITUDE_SNR = 10.0
#: Solutions this good in the median mean that there is a signal to calibrate on.
MIN_SIGNAL_SNR = 3.0
#: A round that loses this much of the signal to noise has diverged.
DIVERGED_SNR = 0.8
#: Unseeded rounds go on while the signal to noise grows by this factor.
WORTHWHILE_SNR = 1.02
#: A held-out chi-squared this near to the solution's own says that the input was calibrated already.
CONVERGED_CHI2 = 1.01
#: The seed is tied to the median of its sources at most this often, or until both are this near.
MOST_ANCHORS = 4
ANCHORED_SCALE = 0.005
ANCHORED_ARCSEC = 0.05
ANCHORED_CHI2 = 1.01
#: With fewer parts of the band there is no telling a delay.
FEWEST_SUB_BANDS = 4
#: After amplitudes are solved the flux scale of the seeds is near one, or the sky is another.
CREDIBLE_SCALE = 2.0
#: Outliers and noisy antennas are looked for at most this often.
MOST_MENDINGS = 3
#: A change of the flux scale by what joins the catalogue's sources that is worth undoing.
KEPT_SCALE = 0.005
#: What the catalogue lacks is looked for at most this often.
MOST_COMPLETIONS = 3
#: A noise measured on the calibrated residual counts where it is below this fraction of the one before.
REFINED_NOISE = 0.98
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


class _Run:
    """One self-calibration from plan to products."""

    def __init__(self, plan: Plan, progress: StageRecords) -> None:
        self.plan = plan
        self.config = plan.config
        self.progress = progress
        self.observation = Observation(plan.reader, plan.initial, progress)
        fwhm = plan.beam.fwhm_rad(float(plan.reader.freq_hz.min()))
        self.grid: ImageGrid = grid_for(plan.reader, plan.config, fwhm)
        self.seconds = dict.fromkeys(STAGE_NAMES, 0.0)
        self.noise = 0.0
        #: The model of a seeded run: the catalogue's sources, the bright ones where they were measured.
        self.seed: Seed | None = plan.seed
        self.improved = False
        self.statistics: BaselineStatistics | None = None
        self.measured: SeedMeasurement | None = None
        #: Delays and bandpass, where they were asked for and help.
        self.spectral: tuple[GainTable, ...] = ()
        #: Clean components that joined the catalogue's sources.
        self.extra: Seed | None = None
        #: Whether the sky has shown itself to be another than the catalogue's.
        self.foreign = False
        #: Image of what the present model leaves, and the tables it was made with.
        self.left: tuple[tuple[GainTable, ...], CalibratedImage] | None = None
        self.anchor: dict[str, Any] | None = None
        self.mask: NDArray[np.bool_] | None = None
        #: Maker of the final image, where it is not the embedded engine.
        self.wsclean: WSClean | None = None
        self.started = time.perf_counter()
        if plan.config.threads:
            numba.set_num_threads(min(plan.config.threads, os.cpu_count() or 1))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Charge the time to a stage, less what reading and predicting within it took."""
        started = time.perf_counter()
        inner = self.plan.reader.seconds + self.observation.predict_seconds
        try:
            yield
        finally:
            within = self.plan.reader.seconds + self.observation.predict_seconds - inner
            self.seconds[stage] += time.perf_counter() - started - within

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

    # Rounds

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
            rounds, before = self._anchored_rounds(rounds, before)
            for _ in range(MOST_COMPLETIONS):
                completed = None if self.foreign else self._completed_rounds(rounds)
                if completed is None:
                    break
                rounds, before = self._anchored_rounds(*completed)
            rounds, before = self._weighed_rounds(rounds, before)
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

    def _seeded_rounds(self, seed: Seed, like: Sequence[Round] = ()) -> tuple[list[Round], Score]:
        """Solve phases, then amplitudes where the signal allows; also the score of the input.

        Intervals are looked for near those of rounds made `like` these.
        """
        self.observation.set_model(SeedModel(seed))
        self.statistics = self._gather()
        if like:
            # Rounds that are compared see the same data.
            rounds, before = self._rounds(self._solver(), like)
            if self._refine_noise(rounds):
                rounds, before = self._rounds(self._solver(), like)
            return rounds, before
        for _ in range(MOST_MENDINGS):
            # Interference can bury every antenna: none is dropped for good before it is found.
            rounds, before = self._rounds(self._solver(preliminary=True))
            lower = self._refine_noise(rounds)
            # Interference and the like, of no weight from here on, must not bend the gains.
            left_out, noisy = self.observation.mend_weights()
            if left_out:
                self.progress.note(f"{left_out} visibilities far beyond the noise are left out")
            if noisy:
                self.progress.note(f"noisier than their weights say, and weighted down: {', '.join(noisy)}")
            if not (left_out or noisy or lower):
                break
            if left_out or noisy:
                self.statistics = self._gather()
        rounds, before = self._rounds(self._solver())
        return rounds, before

    def _refine_noise(self, rounds: list[Round]) -> bool:
        """Measure the noise on what the model leaves: wide channels no longer show the sky as noise then."""
        with self._timed("measure"):
            refined = self.observation.residual_noise(rounds[-1].tables).scale2
        lower = 0 < refined < REFINED_NOISE * 2 * self.noise**2
        if lower:
            self.noise = float(np.sqrt(refined / 2))
        return lower

    def _rounds(self, solver: GainSolver, like: Sequence[Round] = ()) -> tuple[list[Round], Score]:
        before = solver.unit_score()
        near = {r.solution.mode: r.solution for r in like}
        rounds = [self._solve(solver, "p", self.config.solint, "seed", self.spectral, before, near.get("p"))]
        if self.config.amplitude != "off" and rounds[0].solution.median_snr >= MIN_SIGNAL_SNR:
            base = rounds[0] if rounds[0].verdict.accepted else None
            second = self._amplitude_round(solver, base, before, "seed", near.get("ap"))
            if second is not None:
                rounds.append(second)
        return rounds, before

    def _find_spectral(self, seed: Seed) -> None:
        """Solve for delays and bandpass first, and keep them if other channels are predicted better.

        Before anything else: without them what is left would be taken for interference and noise.
        """
        kind = self.config.spectral
        if kind == "off":
            return
        windows = [self.plan.ms.spectral_window(s) for s in self.plan.selection.spw_ids]
        parts = min(-(-SUB_BANDS // len(windows)), min(w.freq_hz.size for w in windows))
        if parts * len(windows) < FEWEST_SUB_BANDS:
            self.progress.note(f"no delays: fewer than {FEWEST_SUB_BANDS} channels")
            return
        self.observation.set_model(SeedModel(seed))
        self.statistics = self._gather()
        plain = self._rounds(self._solver())[0][-1].solution.score.chi2_heldout
        with self._timed("solve"):
            statistics, _ = self.observation.gather((), parts)
            edges = [pairwise(sub_band_edges(w.freq_hz.size, parts)) for w in windows]
            freq = [w.freq_hz[a:b].mean() for w, e in zip(windows, edges, strict=True) for a, b in e]
            solver = self._solver(statistics, np.array(freq)).apart()
            found = solve_spectral(solver, np.array(freq), {w.id: w.freq_hz for w in windows}, kind)
        if found is None:
            self.progress.note("no delays: too little signal in each sub-band")
            return
        noise, self.spectral = self.noise, (found.table,)
        self.statistics = self._gather()
        chi2 = self._rounds(self._solver())[0][-1].solution.score.chi2_heldout * (self.noise / noise) ** 2
        if chi2 >= plain:
            self.spectral = ()
        self.progress.note(
            f"{kind}: delays of {1e9 * np.nanstd(found.delay_s):.2f} ns rms, held-out chi2 "
            f"{plain:.3f} -> {chi2:.3f}: {'kept' if self.spectral else 'left out'}"
        )

    def _weighed_rounds(self, rounds: list[Round], before: Score) -> tuple[list[Round], Score]:
        """Solve once more if the noise of antennas is another now that the model is what it will be."""
        with self._timed("measure"):
            changed = self.observation.measure_antennas(rounds[-1].tables)
        if not changed:
            return rounds, before
        self.progress.note(f"of another noise than the first model made them seem: {', '.join(changed)}")
        self.left = None
        self.statistics = self._gather()
        return self._anchored_rounds(*self._rounds(self._solver(), rounds))

    def _anchored_rounds(self, rounds: list[Round], before: Score) -> tuple[list[Round], Score]:
        """Solve again with the bright seeds tied to the median of all, while that predicts better."""
        catalogue, gained = self._catalogue, np.inf
        for _ in range(MOST_ANCHORS):
            with self._timed("measure"):
                measured = measure_seeds(
                    self.observation, rounds[-1].tables, self.seed or catalogue, catalogue, 2 * self.noise**2
                )
            if measured is None:
                break
            with_amplitudes = any(r.solution.mode == "ap" for r in rounds)
            if with_amplitudes and abs(np.log(max(measured.scale, 1e-9))) > np.log(CREDIBLE_SCALE):
                self.progress.note(
                    f"{measured.n_good} bright seeds have {measured.scale:.2f} times the flux that the "
                    "amplitudes were solved for: the sky is not that of the catalogue"
                )
                self.foreign = True
                break
            self.measured = measured
            east, north = (float(np.degrees(x) * 3600) for x in measured.offset_rad)
            near = abs(measured.scale - 1) < ANCHORED_SCALE and np.hypot(east, north) < ANCHORED_ARCSEC
            if near and gained < ANCHORED_CHI2:
                break
            self.progress.note(
                f"{measured.n_good} bright seeds: flux scale off by {100 * (measured.scale - 1):+.1f} %, "
                f"position by {east:+.2f}, {north:+.2f} arcsec; tied to their median"
            )
            tied = tied_seed(catalogue, measured, self.plan.reader.phase_center)
            again = self._if_better(joined(tied, self.extra), rounds)
            if again is None:
                break
            rounds, before, gained = again
            self.anchor = self.anchor or {
                "n_sources": measured.n_good,
                "flux_scale": measured.scale,
                "offset_arcsec": [east, north],
            }
        if gained < np.inf:
            # All intervals once more, against the model as it is now.
            rounds, before = self._rounds(self._solver())
        return rounds, before

    def _completed_rounds(self, rounds: list[Round]) -> tuple[list[Round], Score] | None:
        """Solve again with what the image shows and the catalogue lacks; None if there is nothing of it."""
        tables, model = rounds[-1].tables, self.seed or self._catalogue
        image = self._image(tables, "image of what the model leaves", subtract=True)
        self.left = (tables, image)
        reader = self.plan.reader
        found = lacking_sources(model, image, self.grid, reader.pointing, reader.freq_hz)
        if found is None:
            return None
        if found.apparent_jy.sum() > model.apparent_jy.sum():
            self.progress.note(
                f"{found.apparent_jy.sum():.3f} Jy that the catalogue lacks, more than it has: left out"
            )
            return None
        again = self._if_better(joined(model, found), rounds)
        self.progress.note(
            f"{len(found)} clean components of {found.apparent_jy.sum():.3f} Jy that the catalogue lacks "
            f"{'join the seed' if again else 'do not help the gains and are left out'}"
        )
        if again is None:
            return None
        self.extra = joined(self.extra, found) if self.extra else found
        return self._scale_kept(again[0], again[1], typical_amplitude(tables))

    def _scale_kept(self, rounds: list[Round], before: Score, amplitude: float) -> tuple[list[Round], Score]:
        """Keep the flux scale of the catalogue's sources, where they are too few to be measured.

        What the image adds beside them takes some of their flux, and the gains would grow for it.
        """
        factor = typical_amplitude(rounds[-1].tables) / amplitude
        if self.measured is not None or self.seed is None or abs(factor - 1) < KEPT_SCALE:
            return rounds, before
        self.seed = brighter(self.seed, factor)
        self.extra = brighter(self.extra, factor) if self.extra else None
        return self._seeded_rounds(self.seed, rounds)

    def _if_better(self, seed: Seed, rounds: list[Round]) -> tuple[list[Round], Score, float] | None:
        """Solve against another model; keep it if held-out channels are predicted better.

        Returns the rounds, the score of the input, and the factor by which the
        held-out chi-squared fell; None if the old model stays.
        """
        kept, noise, statistics = self.seed or self._catalogue, self.noise, self.statistics
        again, before = self._seeded_rounds(seed, rounds)
        # Both at the noise that the better model leaves.
        old = rounds[-1].solution.score.chi2_heldout * (noise / self.noise) ** 2
        new = again[-1].solution.score.chi2_heldout
        if again[-1].verdict.accepted and new < old:
            self.seed, self.left = seed, None
            return again, before, old / new
        self.observation.set_model(SeedModel(kept))
        self.statistics, self.noise = statistics, noise
        return None

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

    def _gather(self) -> BaselineStatistics:
        """Gather the statistics; the noise is the lowest that was measured so far."""
        with self._timed("gather"):
            statistics, noise = self.observation.gather(self.spectral)
        if not 0 < noise.scale2 < np.inf:
            raise MeasurementSetError(
                "no noise can be measured: the visibilities are all zero or infinite",
                self.plan.ms.path,
                "check DATA and WEIGHT",
            )
        measured = float(np.sqrt(noise.scale2 / 2))
        self.noise = min(measured, self.noise) if self.noise > 0 else measured
        return statistics

    def _solver(
        self,
        statistics: BaselineStatistics | None = None,
        freq_hz: NDArray[np.float64] | None = None,
        *,
        preliminary: bool = False,
    ) -> GainSolver:
        """Solver on the statistics at hand, or on others with windows of their own.

        A preliminary one assumes nothing of what shares a gain, and drops no antenna.
        """
        statistics, reader = statistics or self.statistics, self.plan.reader
        assert statistics is not None
        windows = [self.plan.ms.spectral_window(s) for s in self.plan.selection.spw_ids]
        shared: dict[str, bool | None] = {
            "common": {"auto": None, "G": False, "T": True}[self.config.gain_type],
            "combined": {"auto": None, "on": True, "off": False}[self.config.combine_spw],
        }
        if preliminary:
            shared = {"common": shared["common"] or False, "combined": shared["combined"] is not False}
        return GainSolver(
            statistics,
            times_s=reader.times,
            dump_s=reader.interval_s,
            scan=reader.scan,
            field_id=reader.field_id,
            freq_hz=np.array([float(w.freq_hz.mean()) for w in windows]) if freq_hz is None else freq_hz,
            reference_antennas=rank_reference_antennas(
                statistics, self.plan.ms.antennas.position_m, self.plan.reference_antennas
            ),
            noise_scale2=2 * self.noise**2,
            common=shared["common"],
            combine_spw=shared["combined"],
            combine_scans=self.config.combine_scans,
            min_snr=self.config.min_snr,
            min_baselines=self.config.min_baselines,
            min_heldout_snr=-np.inf if preliminary else MIN_HELDOUT_SNR,
        )

    def _solve(
        self,
        solver: GainSolver,
        mode: Any,
        solint: str,
        model: str,
        earlier: tuple[GainTable, ...],
        before: Score,
        near: Solution | None = None,
    ) -> Round:
        started = time.perf_counter()
        with self._timed("solve"):
            nearby = (near.solint, near.grouping) if near else ()
            solution = solver.best(mode, solint, *nearby)
        verdict = appraise_solution(
            before.chi2_heldout,
            solution.score.chi2_heldout,
            solution.solved_fraction,
            of_input=earlier == self.spectral and not self.improved,
        )
        self.progress.note(
            f"{'phases' if mode == 'p' else 'amplitudes and phases'} every {solution.solint_s:.0f} s: "
            f"signal to noise {solution.median_snr:.1f} per antenna, "
            f"{100 * solution.solved_fraction:.1f} % solved, {verdict.reason}"
        )
        return Round(
            solution,
            model,
            (*earlier, solution.table),
            verdict,
            time.perf_counter() - started,
            solver.predicted_snr(solution.solint, solution.grouping),
        )

    def _amplitude_round(
        self, solver: GainSolver, base: Round | None, before: Score, model: str, near: Solution | None = None
    ) -> Round | None:
        """Solve amplitudes on top of an accepted phase round; None if there is too little signal."""
        if base is not None:
            solver, before = solver.after(base.solution.table), base.solution.score
        new = self._solve(
            solver,
            "ap",
            self.config.amplitude_solint,
            model,
            base.tables if base else self.spectral,
            before,
            near,
        )
        if self.config.amplitude == "auto" and new.solution.median_snr < MIN_AMPLITUDE_SNR:
            self.progress.note(
                f"amplitudes left alone: signal to noise {new.solution.median_snr:.1f} per antenna "
                f"is under {MIN_AMPLITUDE_SNR:g}"
            )
            return None
        return new

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

    @property
    def _catalogue(self) -> Seed:
        assert self.plan.seed is not None
        return self.plan.seed

    def _appraisal(
        self,
        image: CalibratedImage,
        region: NDArray[np.bool_],
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

    # Images and products

    def _image(
        self,
        tables: tuple[GainTable, ...],
        label: str,
        *,
        depth_jy: float | None = None,
        subtract: bool = False,
        weight_tables: tuple[GainTable, ...] | None = None,
    ) -> CalibratedImage:
        with self._timed("image"):
            return make_image(
                self.observation,
                tables,
                self.grid,
                self.config,
                label,
                seed=self.seed if subtract else None,
                catalogue=self.plan.seed,
                depth_jy=depth_jy,
                noise=self.noise,
                weight_tables=weight_tables or None,
                mask_for=self._mask_for if self.config.catalog_mask else None,
            )

    def _mask_for(self, beam: RestoringBeam) -> NDArray[np.bool_]:
        """Catalogue mask, made for the beam of the first image: all are compared at the same mask."""
        if self.mask is None:
            assert self.plan.listed is not None
            radius = self.config.mask_radius_arcsec
            self.mask = catalog_mask(self.plan.listed.sky, self.grid, beam, radius)
            freq = self.plan.reader.freq_hz
            path = self.plan.output_dir / f"{MASK}.fits"
            write_mask(path, self.mask, self.grid, float(freq.mean()), float(np.ptp(freq)))
            self.progress.note(f"CLEAN in {100 * self.mask.mean():.2f} % of the image, around the seed")
        return self.mask

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
