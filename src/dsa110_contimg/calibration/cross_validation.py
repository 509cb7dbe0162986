"""Choosing solution intervals by cross-validation on the baseline statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.gains import Gains, GainTable, Interpolation
from dsa110_contimg.calibration.solution_intervals import solution_intervals
from dsa110_contimg.calibration.solver import CalMode, solve
from dsa110_contimg.calibration.statistics import BaselineStatistics

__all__ = ["GainSolver", "Grouping", "Score", "Solution", "Trial"]


#: An antenna whose gains predict the other half of its channels with less than this is noise alone.
MIN_HELDOUT_SNR = 3.0


@dataclass(frozen=True)
class Score:
    """Mean weighted squared residual, in units of thermal variance.

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
class Grouping:
    """What shares a gain.

    Attributes
    ----------
    common : bool
        Both polarisations (T Jones) instead of each its own (G Jones).
    combined : bool
        All spectral windows instead of each its own.
    """

    common: bool
    combined: bool


@dataclass(frozen=True)
class Trial:
    """One interval that was tried.

    Attributes
    ----------
    solint_s : float
        Its length in seconds.
    common, combined : bool
        As in :class:`Grouping`.
    interpolation : {"linear", "nearest"}
        Between solutions.
    chi2_train, chi2_heldout, chi2_expected : float
        As in :class:`Score`.
    """

    solint_s: float
    common: bool
    combined: bool
    interpolation: Interpolation
    chi2_train: float
    chi2_heldout: float
    chi2_expected: float


@dataclass(frozen=True)
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
    grouping : Grouping
        What shares a gain, as asked for or chosen.
    trials : tuple of Trial
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
    grouping: Grouping
    trials: tuple[Trial, ...] = ()


class GainSolver:
    """Solves and scores gains on one set of statistics.

    Parameters
    ----------
    statistics : BaselineStatistics
        Of the data after all earlier tables.
    times_s, dump_s : ndarray, shape (ntime,)
        Time stamps and lengths of the dumps in seconds.
    scan, field_id : ndarray of int, shape (ntime,)
        Of each dump.
    freq_hz : ndarray, shape (nspw,)
        Centres of the windows.
    reference_antennas : sequence of int
        Best first.
    noise_scale2 : float
        Variance of a complex visibility times its weight.
    common, combine_spw : bool or None
        One gain for both polarisations; for all windows. None: whichever predicts held-out channels better.
    combine_scans : bool
        Intervals across scans.
    min_snr, min_baselines : float, int
        Limits under which solutions are flagged.
    min_heldout_snr : float
        Limit under which an antenna is flagged altogether.
    """

    def __init__(
        self,
        statistics: BaselineStatistics,
        *,
        times_s: Float,
        dump_s: Float,
        scan: Int,
        field_id: Int,
        freq_hz: Float,
        reference_antennas: Sequence[int],
        noise_scale2: float,
        common: bool | None,
        combine_spw: bool | None,
        combine_scans: bool,
        min_snr: float,
        min_baselines: int,
        min_heldout_snr: float = MIN_HELDOUT_SNR,
    ) -> None:
        self._spw_ids = statistics.spw_ids
        self._freq_hz = freq_hz
        # The first is what the others have to be better than: most signal to noise without an assumption.
        windows: tuple[bool, ...] = (combine_spw is not False,)
        if combine_spw is None and len(statistics.spw_ids) > 1:
            windows = (True, False)
        hands = (False, True) if common is None else (common,)
        self._groupings = [Grouping(hand, window) for window in windows for hand in hands]
        # With one gain for all windows their sums simply add; before that only if nothing else is asked for.
        together = all(g.combined for g in self._groupings)
        self._set(statistics.combined() if together else statistics)
        self._times, self._dump_s, self._scan, self._field = times_s, dump_s, scan, field_id
        self._ranked = tuple(reference_antennas)
        self._noise = noise_scale2
        self._combine_scans = combine_scans
        self._min_snr, self._min_baselines = min_snr, min_baselines
        self._min_heldout_snr = min_heldout_snr

    def _set(self, statistics: BaselineStatistics) -> None:
        self.statistics = statistics
        single = len(statistics.spw_ids) == 1
        self._by_combined = {True: statistics if single else statistics.combined(), False: statistics}

    def after(self, table: GainTable) -> GainSolver:
        """Return a solver for what a table leaves to be solved."""
        other = object.__new__(GainSolver)
        other.__dict__ = dict(self.__dict__)
        other._set(self.statistics.after(*self._on_dumps(table)))
        return other

    def together(self) -> GainSolver:
        """Return a solver for gains that all windows share."""
        return self._with([Grouping(self._groupings[0].common, True)])

    def apart(self) -> GainSolver:
        """Return a solver for a gain of each window."""
        return self._with([Grouping(self._groupings[0].common, False)])

    def _with(self, groupings: list[Grouping]) -> GainSolver:
        other = object.__new__(GainSolver)
        other.__dict__ = {**self.__dict__, "_groupings": groupings}
        return other

    def candidates(self) -> list[str]:
        """Intervals worth trying, shortest first: multiples of a dump, scans, everything."""
        n, dump = self._times.size, float(np.median(self._dump_s))
        found: dict[bytes, str] = {}
        multiples = [k for k in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96) if k < n]
        for word in [*(str(k * dump) for k in multiples), "scan", "inf"]:
            found.setdefault(self._intervals(word).tobytes(), word)
        return list(found.values())

    def unit_score(self) -> Score:
        """Score of the data as they are."""
        return self._mean([self._unit()] * 2, self.statistics)

    def _unit(self) -> tuple[Complex, Bool]:
        shape = (*self.statistics.cross.shape[1:3], self.statistics.n_antennas, 2)
        return np.ones(shape, dtype=np.complex128), np.ones(shape, dtype=bool)

    def fixed_score(self, tables: Sequence[GainTable]) -> Score:
        """Score of given gains, the product of tables."""
        gain, solved = self._unit()
        for table in tables:
            g, s = self._on_dumps(table)
            gain, solved = gain * g, solved & s
        return self._mean([(gain, solved)] * 2, self.statistics)

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
        first, *others = [grouping] if grouping in self._groupings else self._groupings
        words = self.candidates() if solint == "auto" else [solint]
        if near in words:
            at = words.index(near)
            words = words[max(0, at - 1) : at + 2]
        tried = [self._try(mode, word, first) for word in words]
        found = [way for ways in tried for way in ways]
        best = min(found, key=_expected)
        for other in others:
            ways = self._try(mode, best[1], other)
            if min(map(_expected, ways)) < _expected(best):
                ways += [way for word in words if word != best[1] for way in self._try(mode, word, other)]
                best = min(ways, key=_expected)
            found += ways
        trials = tuple(
            Trial(self._length_s(word), by.common, by.combined, how, s.chi2_train, s.chi2_heldout, s.expected)
            for s, word, how, by in found
        )
        return replace(self._solution(mode, *best), trials=trials)

    def _try(self, mode: CalMode, word: str, by: Grouping) -> list[_Way]:
        return [(score, word, how, by) for how, score in self.scores(mode, word, by).items()]

    def predicted_snr(self, solint: str, grouping: Grouping | None = None) -> float:
        """Signal to noise per antenna that the model promises, before anything is solved.

        Median over antennas, intervals, polarisations and windows of ``sqrt(2 sum_j B_ij / s2)``,
        the inverse error of a gain near one. It holds for data in the model's units.

        Parameters
        ----------
        solint : str
            Interval as :func:`solution_intervals` takes it.
        grouping : Grouping, optional
            What shares a gain; the first to be tried if not given.
        """
        interval, by = self._intervals(solint), grouping or self._groupings[0]
        starts = np.searchsorted(interval, np.arange(int(interval.max()) + 1))
        gathered = self._by_combined[by.combined]
        power = np.add.reduceat(gathered.model.sum(axis=0), starts, axis=1)
        present = np.add.reduceat(gathered.count.sum(axis=0), starts, axis=1)
        if by.common:
            power, present = (x.sum(axis=-1, keepdims=True) for x in (power, present))
        belongs = np.zeros((self.statistics.antenna1.size, self.statistics.n_antennas))
        for antenna in (self.statistics.antenna1, self.statistics.antenna2):
            belongs[np.arange(antenna.size), antenna] = 1
        sums, seen = (np.moveaxis(x, 2, -1) @ belongs for x in (power, present))
        promised = np.sqrt(2 * sums[seen > 0] / self._noise)
        return float(np.median(promised)) if promised.size else 0.0

    def _length_s(self, solint: str) -> float:
        """Median length of the intervals."""
        interval = self._intervals(solint)
        return float(np.median(np.bincount(interval, weights=self._dump_s)))

    def scores(
        self, mode: CalMode, solint: str, grouping: Grouping | None = None
    ) -> dict[Interpolation, Score]:
        """Cross-validate: solve on either half of the channels, score on both; by way of interpolation."""
        by = grouping or self._groupings[0]
        sums = self._by_combined[by.combined]
        tables = [self._table(mode, solint, "linear", by, [half]) for half in (0, 1)]
        return {
            how: self._mean([self._on_dumps(replace(t, interpolation=how), sums) for t in tables], sums)
            for how in _WAYS
        }

    def _mean(
        self,
        solved_on: Sequence[tuple[Complex, Bool]],
        sums: BaselineStatistics,
    ) -> Score:
        train = held = 0.0
        for half, (gain, solved) in enumerate(solved_on):
            scale = sums.scale(gain, solved, half)
            train += sums.residual(gain, solved, half, scale)
            held += sums.residual(gain, solved, 1 - half, scale)
        n = max(1.0, float(sums.count.sum())) * self._noise
        return Score(train / n, held / n)

    def _heldout_snr(self, mode: CalMode, solint: str, how: Interpolation, by: Grouping) -> Float:
        """How well gains from one half of the channels predict the other, by antenna; see :class:`Solution`.

        Noise that was fitted to itself passes any limit on its signal to noise
        now and then, but noise of other channels knows nothing of it.
        """
        sums, told, errors = self._by_combined[by.combined], [], []
        for half in (0, 1):
            gain, solved = self._on_dumps(self._table(mode, solint, how, by, [half], min_snr=0.0), sums)
            scale = sums.scale(gain, solved, 1 - half)
            aligned, error = sums.by_antenna(np.where(solved, gain, 0), 1 - half, scale)
            if by.common:
                aligned, error = aligned.sum(-1, keepdims=True), np.sqrt((error**2).sum(-1, keepdims=True))
            told.append(aligned)
            errors.append(error)
        # Both halves tell the same where there is noise alone: their errors add, not their squares.
        error = errors[0] + errors[1]
        return np.asarray(np.where(error > 0, (told[0] + told[1]) / np.where(error > 0, error, 1.0), 0.0))

    def _solution(
        self, mode: CalMode, score: Score, solint: str, how: Interpolation, by: Grouping
    ) -> Solution:
        heldout = self._heldout_snr(mode, solint, how, by)
        noise_alone = heldout < self._min_heldout_snr
        table = self._table(mode, solint, how, by, [0, 1], noise_alone=noise_alone)
        present: Bool = self.statistics.present()
        if by.common:
            present = np.asarray(present.any(axis=1, keepdims=True))
        flags = np.stack([g.flag[:, :, 0, :] for g in table.gains.values()])
        snr = np.stack([g.snr[:, :, 0, :] for g in table.gains.values()])
        of_present = np.broadcast_to(present, flags.shape)
        # The same gains for every window of the data, so that no map is needed to apply them.
        gains = dict(table.gains)
        if len(gains) < len(self._spw_ids):
            gains = {spw: next(iter(table.gains.values())) for spw in self._spw_ids}
        first = next(iter(gains.values()))
        return Solution(
            GainTable(table.kind, gains, table.label, table.interpolation),
            mode,
            solint,
            float(np.median(first.interval_s)),
            score,
            float(1 - flags[of_present].mean()) if of_present.any() else 0.0,
            float(np.median(snr[of_present])) if of_present.any() else 0.0,
            heldout,
            by,
        )

    def _table(
        self,
        mode: CalMode,
        solint: str,
        interpolation: Interpolation,
        by: Grouping,
        halves: Sequence[int],
        *,
        min_snr: float | None = None,
        noise_alone: Bool | None = None,
    ) -> GainTable:
        sums = self._by_combined[by.combined]
        gains: dict[int, Gains] = solve(
            sums,
            self._intervals(solint),
            self._times,
            self._dump_s,
            mode=mode,
            halves=halves,
            common=by.common,
            combine_spw=False,  # already added up
            reference_antennas=self._ranked,
            min_snr=self._min_snr if min_snr is None else min_snr,
            unusable=noise_alone,
            min_baselines=self._min_baselines,
            noise_scale2=self._noise,
            freq_hz=self._freq_hz,
            field_id=self._field,
            scan=self._scan,
        )
        return GainTable("T Jones" if by.common else "G Jones", gains, mode, interpolation)

    def _intervals(self, solint: str) -> Int:
        return solution_intervals(
            self._times, float(np.median(self._dump_s)), self._scan, solint, self._combine_scans
        )

    def _on_dumps(self, table: GainTable, sums: BaselineStatistics | None = None) -> tuple[Complex, Bool]:
        """Gains and where they are solved, shape (nspw, ntime, nant, 2)."""
        windows = (sums or self.statistics).spw_ids
        pairs = [table.for_window(spw).at_times(self._times, table.interpolation) for spw in windows]
        gain = np.stack([g[:, :, 0, :] for g, _ in pairs])
        solved = ~np.stack([f[:, :, 0, :] for _, f in pairs])
        shape = (*gain.shape[:3], 2)
        return np.broadcast_to(gain, shape), np.broadcast_to(solved, shape)


_WAYS: tuple[Interpolation, ...] = ("linear", "nearest")
_Way = tuple[Score, str, Interpolation, Grouping]


def _expected(way: _Way) -> float:
    return way[0].expected
