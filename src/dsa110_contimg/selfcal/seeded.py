"""Rounds against the catalogue: weights mended, the seed tied to its median, what it lacks added."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dsa110_contimg.calibration.bandpass import SUB_BANDS, solve_spectral
from dsa110_contimg.calibration.cross_validation import Score
from dsa110_contimg.calibration.gains import GainTable, typical_amplitude
from dsa110_contimg.selfcal.calibration_data import SeedModel, sub_band_edges
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.params import Plan
from dsa110_contimg.selfcal.solve_round import Rounds
from dsa110_contimg.selfcal.stage_log import StageRecords
from dsa110_contimg.selfcal.stages.add_components import brighter, joined, lacking_sources
from dsa110_contimg.selfcal.stages.flux_scale import SeedMeasurement, measure_seeds, tied_seed
from dsa110_contimg.selfcal.summary import Round
from dsa110_contimg.sky import Seed

__all__ = ["SeededRounds"]

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


class SeededRounds(Rounds):
    """Rounds solved against the catalogue, and what they find out about it."""

    def __init__(self, plan: Plan, progress: StageRecords) -> None:
        super().__init__(plan, progress)
        self.measured: SeedMeasurement | None = None
        #: Clean components that joined the catalogue's sources.
        self.extra: Seed | None = None
        #: Whether the sky has shown itself to be another than the catalogue's.
        self.foreign = False
        #: Image of what the present model leaves, and the tables it was made with.
        self.left: tuple[tuple[GainTable, ...], CalibratedImage] | None = None
        self.anchor: dict[str, Any] | None = None

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

    def _perfected_rounds(self, rounds: list[Round], before: Score) -> tuple[list[Round], Score]:
        """Perfect the model while that helps, then weigh the antennas anew."""
        rounds, before = self._anchored_rounds(rounds, before)
        for _ in range(MOST_COMPLETIONS):
            completed = None if self.foreign else self._completed_rounds(rounds)
            if completed is None:
                break
            rounds, before = self._anchored_rounds(*completed)
        return self._weighed_rounds(rounds, before)

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

    @property
    def _catalogue(self) -> Seed:
        assert self.plan.seed is not None
        return self.plan.seed
