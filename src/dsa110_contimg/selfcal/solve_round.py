"""What every round of a self-calibration works with: statistics, solver, images, and the time they take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.cross_validation import MIN_HELDOUT_SNR, GainSolver, Score, Solution
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.reference_antenna import rank_reference_antennas
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid, RestoringBeam
from dsa110_contimg.imaging.masks import catalog_mask, write_mask
from dsa110_contimg.imaging.obs_context import grid_for
from dsa110_contimg.selfcal.acceptance import appraise_solution
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.selfcal.imaging import CalibratedImage, make_image
from dsa110_contimg.selfcal.params import Plan
from dsa110_contimg.selfcal.stage_log import StageRecords
from dsa110_contimg.selfcal.summary import MASK, Round
from dsa110_contimg.sky import Seed

__all__ = ["MIN_SIGNAL_SNR", "Rounds"]

#: What time is charged to: `gather` makes the statistics, `solve` chooses and solves on them, `measure` is
#: for the fluxes and positions of the seeds.
STAGE_NAMES = ("total", "read", "predict", "gather", "solve", "measure", "image", "write")
#: An amplitude solution needs this signal to noise per antenna, or it adds more noise than it takes away.
MIN_AMPLITUDE_SNR = 10.0
#: Solutions this good in the median mean that there is a signal to calibrate on.
MIN_SIGNAL_SNR = 3.0


class Rounds:
    """Data, model and noise of one self-calibration, and how they are solved and imaged.

    Parameters
    ----------
    plan : Plan
        What is done.
    progress : StageRecords
        Where progress is reported.
    """

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
        #: Delays and bandpass, where they were asked for and help.
        self.spectral: tuple[GainTable, ...] = ()
        self.mask: Bool | None = None
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
        freq_hz: Float | None = None,
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

    def _mask_for(self, beam: RestoringBeam) -> Bool:
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
