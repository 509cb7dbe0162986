"""Data that can be neither sky nor noise: zeros, constants, and rows that repeat themselves.

A correlator that loses an antenna's packets writes what it has: nothing, one number, or the last thing it
had. Nothing needs to be known of the sky to see it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float, Int, Vis
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.visibilities.reader import Block, VisibilityReader

__all__ = ["KINDS", "BrokenData", "BrokenDataFinder", "impossible_values", "nothing_usable"]

#: A channel of a dump in which the median baseline has so many times the power that it has in the median dump
#: is full of interference: no sky changes so on all baselines. With fewer dumps there is no median.
BURST, FEWEST_DUMPS = 10.0, 5
KINDS = ("zeros", "constants", "repeated values")
#: Channels that must be the same for it to be no chance: few numbers of few bits may well be.
FEWEST_CONSTANT = 4
FEWEST_REPEATED = 2
#: Rows of a block that tell its median power, about.
MOST_ROWS = 400
#: An antenna is named for what is broken on so many of its baselines; of fewer the baselines are at fault.
FEWEST_BASELINES = 3


@dataclass(frozen=True, eq=False)
class BrokenData:
    """What is broken in the data.

    Attributes
    ----------
    places : mapping of int to ndarray of int
        By block: places in its flattened weights, ascending.
    silent : ndarray of bool, shape (ntime, nant, 2)
        Dumps in which all unflagged visibilities of an antenna and receptor are broken.
    by_baseline : ndarray of int, shape (3, nant, nant)
        Number of broken visibilities by kind, as in `KINDS`, and baseline, antenna 1 the lower.
    everything : bool
        Whether no unflagged visibility is sound.
    bursts : mapping of int to ndarray of bool
        By spectral window: dumps and channels that are full of interference, shape (ntime, nchan).
    """

    places: Mapping[int, Int]
    silent: Bool
    by_baseline: Int
    everything: bool
    bursts: Mapping[int, Bool]

    def in_bursts(self, block: Block) -> Int:
        """Places of a block, in its flattened weights, that are in bursts of interference."""
        found = self.bursts[block.spw.id][block.time_index] if block.spw.id in self.bursts else None
        if found is None or not found.any():
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.broadcast_to(found[:, :, None], block.weight.shape) & (block.weight > 0))

    def notes(self, names: Sequence[str]) -> list[str]:
        """Say what was found, a line for each kind; names of the antennas as in the data."""
        lines = []
        for kind, counts in zip(KINDS, self.by_baseline, strict=True):
            if counts.any():
                antennas, others = _culprits(counts)
                of = [f"of antennas {', '.join(names[k] for k in antennas)}"] if antennas else []
                of += [f"of {others} single baselines"] if others else []
                lines.append(f"{kind}: {counts.sum()} visibilities {' and '.join(of)} left out")
        n = sum(int(np.count_nonzero(found)) for found in self.bursts.values())
        if n:
            lines.append(f"interference on all baselines: {n} channels of single dumps left out")
        return lines


class BrokenDataFinder:
    """Takes in blocks, in the order they are read; remembers one dump of each spectral window.

    Parameters
    ----------
    n_times, n_antennas : int
        Dumps and antennas.
    """

    def __init__(self, n_times: int, n_antennas: int) -> None:
        self._n = n_antennas
        self._places: dict[int, Int] = {}
        self._counts = np.zeros((len(KINDS), n_antennas, n_antennas), dtype=np.int64)
        self._used = np.zeros((n_times, n_antennas, 2), dtype=np.int64)
        self._sound = np.zeros((n_times, n_antennas, 2), dtype=np.int64)
        self._last: dict[int, tuple[Vis, Bool]] = {}
        self._power: dict[int, Float] = {}

    def add(self, number: int, block: Block) -> None:
        """Take in a block."""
        parallel = list(block.spw.parallel)
        every = len(parallel) == block.data.shape[2]
        vis = np.ascontiguousarray(block.data if every else block.data[:, :, parallel])
        used = (block.weight if every else block.weight[:, :, parallel]) > 0
        low = np.minimum(block.antenna1, block.antenna2)
        high = np.maximum(block.antenna1, block.antenna2)
        self._add_power(block, vis, used)
        baseline = low * self._n - low * (low + 1) // 2 + high - low - 1
        kind, n_used, n_sound = self._look(block, vis, used, baseline)
        if (n_sound < n_used).any():
            for k in range(len(KINDS)):
                np.add.at(self._counts[k], (low, high), np.count_nonzero(kind == k + 1, axis=(1, 2)))
            self._places[number] = _with_cross_hands(block, kind > 0)
        receptors = [block.spw.receptors[k][0] for k in parallel]
        for total, each in ((self._used, n_used), (self._sound, n_sound)):
            for k, p in enumerate(receptors):
                for antenna in (low, high):
                    np.add.at(total[:, :, p], (block.time_index, antenna), each[:, k])

    def _add_power(self, block: Block, vis: Vis, used: Bool) -> None:
        """Remember the median power of each dump and channel."""
        if block.spw.id not in self._power:
            self._power[block.spw.id] = np.full((len(self._used), vis.shape[1]), np.nan)
        rows = slice(None, None, max(1, len(vis) // MOST_ROWS))
        power = np.where(used[rows], np.abs(vis[rows]) ** 2, np.float32(np.nan))
        for dump in np.unique(block.time_index[rows]):
            of_dump = power[block.time_index[rows] == dump].swapaxes(0, 1).reshape(vis.shape[1], -1)
            known = np.isfinite(of_dump)
            if known.all():
                # Several times as fast as where some may be missing.
                self._power[block.spw.id][dump] = np.median(of_dump, axis=1)
                continue
            some = known.any(axis=1)
            self._power[block.spw.id][dump, some] = np.nanmedian(of_dump[some], axis=1)

    def _bursts(self) -> dict[int, Bool]:
        found = {}
        for spw, power in self._power.items():
            with np.errstate(invalid="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                typical = np.nanmedian(power, axis=0)
                burst = power > BURST * typical
            enough = np.count_nonzero(np.isfinite(power), axis=0) >= FEWEST_DUMPS
            if (burst & enough & (typical > 0)).any():
                found[spw] = burst & enough & (typical > 0)
        return found

    def places(self, number: int) -> Int:
        """Places of what is broken in a block that was added, in its flattened weights."""
        return self._places.get(number, np.zeros(0, dtype=np.int64))

    def _look(self, block: Block, vis: Vis, used: Bool, baseline: Int) -> tuple[NDArray[np.uint8], Int, Int]:
        """Find what is broken: kinds from one, (nrow, nchan, n), and how many are used and sound, (nrow, n).

        A row repeats itself where it is what the row before it of the same baseline was, in every unflagged
        channel.
        """
        if block.spw.id not in self._last:
            shape = (self._n * (self._n - 1) // 2, *vis.shape[1:])
            self._last[block.spw.id] = (np.zeros(shape, np.complex64), np.zeros(shape, bool))
        last, known = self._last[block.spw.id]
        kind = np.zeros(vis.shape, dtype=np.uint8)
        n_used, n_sound = (np.zeros((len(vis), vis.shape[2]), dtype=np.int64) for _ in range(2))
        for dump in np.unique(block.time_index):
            # Of one dump each baseline has one row.
            rows = np.flatnonzero(block.time_index == dump)
            _look_at_rows(rows, baseline[rows], vis, used, last, known, kind, n_used, n_sound)
        return kind, n_used, n_sound

    def result(self) -> BrokenData:
        """Return what was found in all blocks."""
        return BrokenData(
            places=self._places,
            silent=(self._used > 0) & (self._sound == 0),
            by_baseline=self._counts,
            everything=bool(self._used.any() and not self._sound.any()),
            bursts=self._bursts(),
        )


def nothing_usable(reader: VisibilityReader, *, all_broken: bool = False) -> MeasurementSetError:
    """Make the error for a selection without a usable visibility.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    all_broken : bool
        Whether what is not flagged is zeros, constants or repeated values.
    """
    if all_broken:
        return MeasurementSetError(
            f"nothing in {reader.column} is sky or noise: all visibilities are zeros, constants or repeated",
            reader.ms.path,
            f"fill {reader.column}, or choose another column with --column",
        )
    beyond = f", {reader.n_impossible} beyond all measure" if reader.n_impossible else ""
    return MeasurementSetError(
        f"no usable visibility: all are flagged, not finite or without weight{beyond}",
        reader.ms.path,
        f"check FLAG, WEIGHT and the values of {reader.column}",
    )


def impossible_values(reader: VisibilityReader) -> list[str]:
    """Say how many values beyond all measure were left out, as far as data were read; no line for none."""
    n = reader.n_impossible
    return [f"values that no receiver makes: {n} visibilities left out"] if n else []


@numba.njit(parallel=True, cache=True)
def _look_at_rows(
    rows: Int,
    baseline: Int,
    vis: Vis,
    used: Bool,
    last: Vis,
    known: Bool,
    kind: NDArray[np.uint8],
    n_used: Int,
    n_sound: Int,
) -> None:
    nchan = vis.shape[1]
    for k in numba.prange(rows.size):
        r, b = rows[k], baseline[k]
        for p in range(vis.shape[2]):
            n, zeros, first = 0, 0, -1
            constant, repeated, compared = True, True, 0
            for c in range(nchan):
                if not used[r, c, p]:
                    continue
                n += 1
                v = vis[r, c, p]
                if v == 0:
                    zeros += 1
                    continue
                if first < 0:
                    first = c
                constant = constant and v == vis[r, first, p]
                if known[b, c, p]:
                    compared += 1
                    repeated = repeated and v == last[b, c, p]
            constant = constant and nchan >= FEWEST_CONSTANT and n - zeros >= FEWEST_CONSTANT
            repeated = repeated and not constant and compared >= FEWEST_REPEATED
            n_used[r, p] = n
            n_sound[r, p] = 0 if constant or repeated else n - zeros
            for c in range(nchan):
                sound = used[r, c, p] and vis[r, c, p] != 0
                if used[r, c, p] and not sound:
                    kind[r, c, p] = 1
                elif sound and constant:
                    kind[r, c, p] = 2
                elif sound and repeated:
                    kind[r, c, p] = 3
                last[b, c, p] = vis[r, c, p]
                known[b, c, p] = sound and not constant


def _with_cross_hands(block: Block, broken: Bool) -> Int:
    """Places of broken parallel hands (nrow, nchan, n), and of cross hands where all parallel ones are."""
    parallel = list(block.spw.parallel)
    out = np.zeros(block.weight.shape, dtype=bool)
    out[:] = np.asarray(broken.all(axis=2))[:, :, None]
    out[:, :, parallel] = broken
    return np.flatnonzero(out & (block.weight > 0))


def _culprits(counts: Int) -> tuple[list[int], int]:
    """Antennas that account for broken baselines (nant, nant), and how many baselines they do not."""
    bad = counts.astype(bool) | counts.astype(bool).T
    found: list[int] = []
    while True:
        baselines = bad.sum(axis=1)
        worst = int(baselines.argmax())
        if baselines[worst] < min(FEWEST_BASELINES, len(bad) - 1):
            return sorted(found), int(baselines.sum()) // 2
        found.append(worst)
        bad[worst], bad[:, worst] = False, False
