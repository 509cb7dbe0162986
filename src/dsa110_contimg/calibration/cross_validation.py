"""Choosing solution intervals, and what shares a gain, by cross-validation on the baseline statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import SELFCAL_MAX_GAP, Gains, GainTable, Interpolation
from dsa110_contimg.calibration.solution_intervals import solution_intervals
from dsa110_contimg.calibration.solve_settings import Grouping, ObservationAxes, SolveSettings
from dsa110_contimg.calibration.solver import CalMode, SolveResult, solve
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["DUMPS_PER_INTERVAL", "MIN_HELDOUT_SNR", "Candidate", "GainSolver", "Score", "Solution"]

#: Multiples of a dump that are tried as solution intervals.
DUMPS_PER_INTERVAL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
#: Ways to interpolate between solutions that are tried.
INTERPOLATIONS: tuple[Interpolation, ...] = ("linear", "nearest")
#: An antenna whose gains predict the other half of its channels with less than this is noise alone.
MIN_HELDOUT_SNR = 3.0


@dataclass(frozen=True)
class Score:
    """Mean weighted squared residual, in units of what thermal noise alone leaves of it.

    Attributes
    ----------
    chi2_train : float
        On the half of the channels that was solved on, both ways averaged.
    chi2_heldout : float
        On the other half.
    """

    chi2_train: float
    chi2_heldout: float

    @property
    def expected(self) -> float:
        """Score to expect on new data of a solution from both halves.

        Half the difference is what the noise of the gains adds to the
        held-out score; twice the data halve it.
        """
        return self.chi2_heldout - (self.chi2_heldout - self.chi2_train) / 4


@dataclass(frozen=True)
class Candidate:
    """One way to solve that was tried.

    Attributes
    ----------
    score : Score
        Cross-validated.
    solint : str
        Interval as :func:`solution_intervals` takes it.
    solint_s : float
        Its length in seconds.
    interpolation : {"linear", "nearest"}
        Between solutions.
    grouping : Grouping
        What shares a gain.
    """

    score: Score
    solint: str
    solint_s: float
    interpolation: Interpolation
    grouping: Grouping


@dataclass(frozen=True, eq=False, kw_only=True)
class Solution:
    """A gain solution with what is known of it.

    Attributes
    ----------
    table : GainTable
        Gains from all channels.
    mode : {"p", "ap"}
        Phases only, or amplitudes and phases.
    solint : str
        Interval asked for or chosen.
    solint_s : float
        Median length of the intervals in seconds.
    score : Score
        Cross-validated.
    solved_fraction : float
        Unflagged fraction of the solutions of antennas that have data.
    median_snr : float
        Median signal to noise of the solutions of antennas that have data.
    heldout_snr : ndarray, shape (nspw, nant, npol)
        How far each antenna's gains from one half of the channels stand out of the
        noise on the other half, in sigma over the whole observation; about zero
        for an antenna of noise alone.
    iterations : int
        Largest number of sweeps over the antennas that an interval took.
    converged_fraction : float
        Fraction of the intervals, by polarisation and spectral window, that converged; what did not
        is flagged only if its signal to noise is too low.
    grouping : Grouping
        What shares a gain, as asked for or chosen.
    trials : tuple of Candidate
        All that was tried.
    """

    table: GainTable
    mode: CalMode
    solint: str
    solint_s: float
    score: Score
    solved_fraction: float
    median_snr: float
    heldout_snr: Float
    iterations: int
    converged_fraction: float
    grouping: Grouping
    trials: tuple[Candidate, ...] = ()

    @property
    def convergence_note(self) -> str:
        """Which part of the intervals did not converge, to stand before other words; empty if all did."""
        if self.converged_fraction == 1:
            return ""
        return f"{100 * (1 - self.converged_fraction):.1f} % not converged in {self.iterations} iterations, "


@dataclass(frozen=True, eq=False, kw_only=True)
class GainSolver:
    """Solves and scores gains on one set of statistics.

    Parameters
    ----------
    statistics : BaselineStatistics
        Of the data after all earlier tables.
    axes : ObservationAxes
        Their times and spectral windows.
    settings : SolveSettings
        Noise, reference antennas and limits.
    groupings : tuple of Grouping
        What may share a gain: whichever predicts held-out channels better. The others have to be
        better than the first.
    combine_scans : bool
        Intervals across scans.
    min_heldout_snr : float
        Limit under which an antenna is flagged altogether.
    """

    statistics: BaselineStatistics
    axes: ObservationAxes
    settings: SolveSettings
    groupings: tuple[Grouping, ...]
    combine_scans: bool = True
    min_heldout_snr: float = MIN_HELDOUT_SNR

    def after(self, table: GainTable) -> GainSolver:
        """Return a solver for what a table leaves to be solved."""
        gain, solved = self._on_dumps([table], self.statistics)
        return replace(self, statistics=self.statistics.after(gain, solved))

    def combine_spws(self) -> GainSolver:
        """Return a solver for gains that all spectral windows share."""
        return replace(self, groupings=(replace(self.groupings[0], combine_spw=True),))

    def per_spw(self) -> GainSolver:
        """Return a solver for a gain of each spectral window."""
        return replace(self, groupings=(replace(self.groupings[0], combine_spw=False),))

    def intervals_to_try(self) -> list[str]:
        """Intervals worth trying, shortest first: multiples of a dump, scans, everything."""
        n, dump = self.axes.times_s.size, self.axes.typical_dump_s
        found: dict[bytes, str] = {}
        multiples = [str(k * dump) for k in DUMPS_PER_INTERVAL if k < n]
        for solint in [*multiples, "scan", "inf"]:
            found.setdefault(self._intervals(solint).tobytes(), solint)
        return list(found.values())

    def unit_score(self) -> Score:
        """Score of the data as they are."""
        return self.fixed_score(())

    def fixed_score(self, tables: Sequence[GainTable]) -> Score:
        """Score of given gains, the product of tables."""
        return self._score([self._on_dumps(tables, self.statistics)] * 2, self.statistics)

    def best(
        self, mode: CalMode, solint: str, near: str | None = None, grouping: Grouping | None = None
    ) -> Solution:
        """Solve with an interval, or with the one that should predict new data best.

        Where it is left open what shares a gain, the interval is chosen for the first
        grouping; the others are tried at that interval, and one that predicts better
        looks for its own.

        Parameters
        ----------
        mode : {"p", "ap"}
            Phases only, or amplitudes and phases.
        solint : str
            ``"auto"``, or an interval as :func:`solution_intervals` takes it.
        near : str, optional
            Try only this interval and the next shorter and longer ones.
        grouping : Grouping, optional
            Try this one alone.

        Returns
        -------
        Solution
        """
        first, *others = [grouping] if grouping in self.groupings else self.groupings
        solints = self.intervals_to_try() if solint == "auto" else [solint]
        if near in solints:
            at = solints.index(near)
            solints = solints[max(0, at - 1) : at + 2]
        tried = [c for s in solints for c in self._candidates(mode, s, first)]
        best = min(tried, key=_expected)
        for other in others:
            more = self._candidates(mode, best.solint, other)
            if min(map(_expected, more)) < _expected(best):
                more += [c for s in solints if s != best.solint for c in self._candidates(mode, s, other)]
                best = min(more, key=_expected)
            tried += more
        return self._solution(mode, best, tuple(tried))

    def solve_like(self, solution: Solution, halves: Sequence[int] = (0, 1)) -> GainTable:
        """Solve at the interval, with the grouping and the antennas of another solution.

        Parameters
        ----------
        solution : Solution
            The other one.
        halves : sequence of int, optional
            Halves of the channels that are solved on; both by default.
        """
        grouping = solution.grouping
        unusable = solution.heldout_snr < self.min_heldout_snr
        result = self._solve(solution.mode, solution.solint, grouping, unusable=unusable, halves=halves)
        gains = result.gains
        if len(gains) < len(self.statistics.spw_ids):
            gains = dict.fromkeys(self.statistics.spw_ids, next(iter(gains.values())))
        return _table(gains, solution.mode, grouping, solution.table.interpolation)

    def left_by(self, tables: Sequence[GainTable], half: int) -> float:
        """Mean squared residual of gains from one half of the channels on the other, in thermal variances.

        Parameters
        ----------
        tables : sequence of GainTable
            Gains on top of those that the statistics were gathered with, from `half` alone.
        half : int
            That half, on which the factor that phases leave open is taken as well.
        """
        gain, solved = self._on_dumps(tables, self.statistics)
        n = max(1.0, float(self.statistics.count[1 - half].sum()))
        other = self.statistics.residuals(gain, solved, half)[1]
        return other / n / (self.settings.noise.variance * self.settings.noise_share)

    def predicted_snr(self, solint: str, grouping: Grouping | None = None) -> float:
        """Signal to noise per antenna that the model promises, before anything is solved.

        Median over antennas, intervals, polarisations and spectral windows of
        ``sqrt(2 sum_j B_ij / s2)``, the inverse error of a gain near one. It holds for data in the
        model's units.

        Parameters
        ----------
        solint : str
            Interval as :func:`solution_intervals` takes it.
        grouping : Grouping, optional
            What shares a gain; the first to be tried if not given.
        """
        interval, grouping = self._intervals(solint), grouping or self.groupings[0]
        starts = np.searchsorted(interval, np.arange(int(interval.max()) + 1))
        sums = self._sums(grouping)
        power = np.add.reduceat(sums.model.sum(axis=0), starts, axis=1)
        count = np.add.reduceat(sums.count.sum(axis=0), starts, axis=1)
        if not grouping.per_polarization:
            power, count = (x.sum(axis=-1, keepdims=True) for x in (power, count))
        of_antenna, seen = (sums.sum_to_antennas(x, axis=2) for x in (power, count))
        promised = np.sqrt(2 * of_antenna[seen > 0] / self.settings.noise.variance)
        return float(np.median(promised)) if promised.size else 0.0

    def scores(
        self, mode: CalMode, solint: str, grouping: Grouping | None = None
    ) -> dict[Interpolation, Score]:
        """Cross-validate: solve on either half of the channels, score on both; by way of interpolation."""
        grouping = grouping or self.groupings[0]
        sums = self._sums(grouping)
        gains = [self._solve(mode, solint, grouping, halves=[half]).gains for half in (0, 1)]
        return {
            how: self._score([self._on_dumps([_table(g, mode, grouping, how)], sums) for g in gains], sums)
            for how in INTERPOLATIONS
        }

    def heldout_by_block(self, n_dumps: int, grouping: Grouping) -> tuple[Int, Float, Float, Float]:
        """How well phases of blocks of dumps from one half of the channels predict the other half.

        Parameters
        ----------
        n_dumps : int
            Dumps in a block; each has gains of its own.
        grouping : Grouping
            What shares a gain.

        Returns
        -------
        block : ndarray of int, shape (ntime,)
            Block of each dump.
        aligned, power, error : ndarray, shape (nblock, nant, 2)
            As of :meth:`BaselineStatistics.by_block`, both ways and all windows together.
        """
        sums = self._sums(grouping)
        n_times = sums.n_times
        block = np.arange(n_times) // n_dumps
        starts = np.arange(0, n_times, n_dumps)
        unlimited = replace(self.settings, min_snr=0.0)
        aligned, power, error = 0.0, 0.0, 0.0
        for half in (0, 1):
            result = solve(sums, self.axes, block, unlimited, mode="p", grouping=grouping, halves=[half])
            of_blocks = np.stack([result.gains[spw].gain[:, :, 0] for spw in sums.spw_ids])
            solved = np.stack([~result.gains[spw].flag[:, :, 0] for spw in sums.spw_ids])
            shape = (len(sums.spw_ids), n_times, sums.n_antennas, 2)
            gain = np.broadcast_to(np.where(solved, of_blocks, 0)[:, block], shape)
            scale = sums.scale(gain, np.broadcast_to(solved[:, block], shape), 1 - half)
            sum_, power_, error_ = sums.by_block(gain, 1 - half, scale, starts)
            aligned, power = aligned + sum_.sum(axis=0), power + power_.sum(axis=0)
            # The two fits to noise alone are the same: their errors add, not the squares of them.
            error = error + np.sqrt((error_**2).sum(axis=0))
        return block, np.asarray(aligned), np.asarray(power), np.asarray(error)

    def _candidates(self, mode: CalMode, solint: str, grouping: Grouping) -> list[Candidate]:
        solint_s = float(np.median(np.bincount(self._intervals(solint), weights=self.axes.dump_s)))
        scores = self.scores(mode, solint, grouping)
        return [Candidate(score, solint, solint_s, how, grouping) for how, score in scores.items()]

    def _score(self, solved_on: Sequence[tuple[Complex, Bool]], sums: BaselineStatistics) -> Score:
        """Score gains (nspw, ntime, nant, 2), and where they are solved, from either half of the channels."""
        train = held = 0.0
        for half, (gain, solved) in enumerate(solved_on):
            on_own, on_other = sums.residuals(gain, solved, half)
            train += on_own
            held += on_other
        expected = self.settings.noise.variance * self.settings.noise_share
        n = max(1.0, sums.n_visibilities) * expected
        return Score(train / n, held / n)

    def _heldout_snr(self, mode: CalMode, chosen: Candidate) -> Float:
        """How well gains from one half of the channels predict the other, by antenna; see :class:`Solution`.

        Noise that was fitted to itself passes any limit on its signal to noise
        now and then, but noise of other channels knows nothing of it.
        """
        grouping, sums = chosen.grouping, self._sums(chosen.grouping)
        unlimited = replace(self.settings, min_snr=0.0)
        heldout_fits, errors = [], []
        for half in (0, 1):
            result = self._solve(mode, chosen.solint, grouping, halves=[half], settings=unlimited)
            table = _table(result.gains, mode, grouping, chosen.interpolation)
            gain, solved = self._on_dumps([table], sums)
            scale = sums.scale(gain, solved, 1 - half)
            aligned, error = sums.by_antenna(np.where(solved, gain, 0), 1 - half, scale)
            if not grouping.per_polarization:
                aligned, error = aligned.sum(-1, keepdims=True), np.sqrt((error**2).sum(-1, keepdims=True))
            heldout_fits.append(aligned)
            errors.append(error)
        # The two fits to noise alone are the same: their errors add, not the squares of them.
        error = errors[0] + errors[1]
        fit = heldout_fits[0] + heldout_fits[1]
        return np.asarray(np.where(error > 0, fit / np.where(error > 0, error, 1.0), 0.0))

    def _solution(self, mode: CalMode, chosen: Candidate, trials: tuple[Candidate, ...]) -> Solution:
        """Solve on all channels the way that was chosen."""
        grouping = chosen.grouping
        heldout = self._heldout_snr(mode, chosen)
        unusable = heldout < self.min_heldout_snr
        result = self._solve(mode, chosen.solint, grouping, unusable=unusable)
        present: Bool = self.statistics.present()
        if not grouping.per_polarization:
            present = np.asarray(present.any(axis=1, keepdims=True))
        flags = np.stack([g.flag[:, :, 0, :] for g in result.gains.values()])
        snr = np.stack([g.snr[:, :, 0, :] for g in result.gains.values()])
        of_present = np.broadcast_to(present, flags.shape)
        gains, first = result.gains, next(iter(result.gains.values()))
        if len(gains) < len(self.statistics.spw_ids):
            # The same gains for every spectral window of the data, so that no map is needed to apply them.
            gains = dict.fromkeys(self.statistics.spw_ids, first)
        return Solution(
            table=_table(gains, mode, grouping, chosen.interpolation),
            mode=mode,
            solint=chosen.solint,
            solint_s=float(np.median(first.interval_s)),
            score=chosen.score,
            solved_fraction=float(1 - flags[of_present].mean()) if of_present.any() else 0.0,
            median_snr=float(np.median(snr[of_present])) if of_present.any() else 0.0,
            heldout_snr=heldout,
            iterations=int(result.iterations.max()),
            converged_fraction=result.converged_fraction,
            grouping=grouping,
            trials=trials,
        )

    def _solve(
        self,
        mode: CalMode,
        solint: str,
        grouping: Grouping,
        *,
        halves: Sequence[int] = (0, 1),
        unusable: Bool | None = None,
        settings: SolveSettings | None = None,
    ) -> SolveResult:
        return solve(
            self._sums(grouping),
            self.axes,
            self._intervals(solint),
            settings or self.settings,
            mode=mode,
            grouping=grouping,
            halves=halves,
            unusable=unusable,
        )

    @cached_property
    def _combined(self) -> BaselineStatistics:
        return self.statistics if len(self.statistics.spw_ids) == 1 else self.statistics.combine_spws()

    def _sums(self, grouping: Grouping) -> BaselineStatistics:
        """Statistics added up over the spectral windows where they share a gain: once, not in every solve."""
        return self._combined if grouping.combine_spw else self.statistics

    def _intervals(self, solint: str) -> Int:
        axes = self.axes
        return solution_intervals(axes.times_s, axes.typical_dump_s, axes.scan, solint, self.combine_scans)

    def _on_dumps(self, tables: Sequence[GainTable], sums: BaselineStatistics) -> tuple[Complex, Bool]:
        """Gains and where they are solved, shape (nspw, ntime, nant, 2)."""
        return gains_at_times(tables, sums.spw_ids, self.axes.times_s, sums.n_antennas)


def _table(
    gains: dict[int, Gains], mode: CalMode, grouping: Grouping, interpolation: Interpolation
) -> GainTable:
    kind = "G Jones" if grouping.per_polarization else "T Jones"
    return GainTable(kind=kind, gains=gains, label=mode, interpolation=interpolation, max_gap=SELFCAL_MAX_GAP)


def _expected(candidate: Candidate) -> float:
    return candidate.score.expected
