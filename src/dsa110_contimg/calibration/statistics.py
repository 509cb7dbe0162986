"""Baseline statistics: all that a gain solution needs to know of the data.

For gains that do not depend on frequency within a spectral window,

    A = sum w D conj(M),   B = sum w |M|^2,   C = sum w |D|^2

per baseline, dump, polarisation and spectral window are sufficient: the weighted
squared residual of any set of gains is ``C - 2 Re(conj(g_i) g_j A) + |g_i|^2
|g_j|^2 B`` exactly. They do not depend on the gains, so that one pass over
the data serves every solution interval and mode. They are kept for two
interleaved halves of the channels, which is what cross-validation needs;
alternate baselines and dumps begin with the other half, so that a single
channel is halved as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int, Vis, Weight

__all__ = ["BaselineStatistics", "RowIndex", "accumulate", "joined"]


@dataclass(frozen=True, eq=False, kw_only=True)
class BaselineStatistics:
    """Sums over channels by baseline.

    Attributes
    ----------
    antenna1, antenna2 : ndarray of int, shape (nbl,)
        Antennas of each baseline, antenna 1 the lower.
    spw_ids : tuple of int, length nspw
        Spectral windows.
    cross : ndarray of complex128, shape (2, nspw, ntime, nbl, npol)
        A, by half of the channels; npol is 2.
    model, data : ndarray of float64, same shape
        B and C.
    count : ndarray of float64, same shape
        Number of visibilities.
    """

    antenna1: Int
    antenna2: Int
    spw_ids: tuple[int, ...]
    cross: Complex
    model: Float
    data: Float
    count: Float

    @classmethod
    def empty(cls, n_antennas: int, spw_ids: Sequence[int], n_times: int) -> BaselineStatistics:
        """Make zero statistics for all baselines between `n_antennas`."""
        first, second = np.triu_indices(n_antennas, 1)
        shape = (2, len(spw_ids), n_times, first.size, 2)
        return cls(
            antenna1=first.astype(np.int64),
            antenna2=second.astype(np.int64),
            spw_ids=tuple(spw_ids),
            cross=np.zeros(shape, dtype=np.complex128),
            model=np.zeros(shape),
            data=np.zeros(shape),
            count=np.zeros(shape),
        )

    @property
    def n_antennas(self) -> int:
        """Number of antennas."""
        return int(self.antenna2.max()) + 1

    @property
    def n_times(self) -> int:
        """Number of dumps."""
        return int(self.cross.shape[2])

    @cached_property
    def n_visibilities(self) -> float:
        """Number of visibilities."""
        return float(self.count.sum())

    @cached_property
    def count_by_dump(self) -> Float:
        """Number of visibilities by half of the channels and dump, shape (2, ntime)."""
        return np.asarray(self.count.sum(axis=(1, 3, 4)))

    @cached_property
    def _data_power(self) -> Float:
        """Sum of ``w |D|^2`` by half of the channels and polarisation, shape (2, npol)."""
        return np.asarray(self.data.sum(axis=(1, 2, 3)))

    def present(self) -> Bool:
        """Antennas with any data by polarisation, shape (nant, npol)."""
        return np.asarray(self.sum_to_antennas(self.count.sum(axis=(0, 1, 2)), axis=0) > 0)

    @cached_property
    def incidence(self) -> Float:
        """Incidence matrix, shape (nbl, nant): one where an antenna is part of a baseline, else zero."""
        out = np.zeros((self.antenna1.size, self.n_antennas))
        for antenna in (self.antenna1, self.antenna2):
            out[np.arange(antenna.size), antenna] = 1.0
        return out

    def sum_to_antennas(self, values: Float, axis: int) -> Float:
        """Add up what is given by baseline over the baselines of each antenna.

        Parameters
        ----------
        values : ndarray, with an axis of length nbl
            Values by baseline.
        axis : int
            That axis.

        Returns
        -------
        ndarray, with that axis of length nant
            Each baseline is counted at both of its antennas.
        """
        return np.asarray(np.moveaxis(np.moveaxis(values, axis, -1) @ self.incidence, -1, axis))

    def combine_spws(self) -> BaselineStatistics:
        """Add up the spectral windows, for gains that all of them share."""
        return replace(
            self,
            spw_ids=self.spw_ids[:1],
            cross=self.cross.sum(axis=1, keepdims=True),
            model=self.model.sum(axis=1, keepdims=True),
            data=self.data.sum(axis=1, keepdims=True),
            count=self.count.sum(axis=1, keepdims=True),
        )

    def collapsed(self, spw_ids: Sequence[int]) -> BaselineStatistics:
        """Add up the sub-bands of each window.

        Parameters
        ----------
        spw_ids : sequence of int
            The windows; the statistics are of equally many sub-bands of each, in order.
        """
        sums: dict[str, Any] = {
            name: values.reshape(2, len(spw_ids), -1, *values.shape[2:]).sum(axis=2)
            for name, values in self._values().items()
        }
        return replace(self, spw_ids=tuple(spw_ids), **sums)

    def over_intervals(self, starts: Int, ends: Int) -> BaselineStatistics:
        """Add up runs of dumps, each of which takes the place of a dump.

        Parameters
        ----------
        starts, ends : ndarray of int, shape (n,)
            First dump of each run, and the one after its last.
        """
        runs = list(zip(starts, ends, strict=True))
        sums: dict[str, Any] = {
            name: np.stack([values[:, :, a:b].sum(axis=2) for a, b in runs], axis=2)
            for name, values in self._values().items()
        }
        return replace(self, **sums)

    def of_window(self, k: int) -> BaselineStatistics:
        """Statistics of one spectral window, the `k`-th, alone."""
        sums: dict[str, Any] = {name: values[:, k : k + 1] for name, values in self._values().items()}
        return replace(self, spw_ids=self.spw_ids[k : k + 1], **sums)

    def _values(self) -> dict[str, Any]:
        """Give the sums by name."""
        return {name: getattr(self, name) for name in ("cross", "model", "data", "count")}

    def after(self, gain: Complex, solved: Bool | None = None) -> BaselineStatistics:
        """Statistics of the data corrected by gains.

        Parameters
        ----------
        gain : ndarray of complex128, shape (nspw, ntime, nant, npol)
            Gains by dump.
        solved : ndarray of bool, same shape, optional
            Where there are gains; baselines without keep their data, so that
            scores stay comparable, but no part in the model.

        Returns
        -------
        BaselineStatistics
            With D / (g_i conj(g_j)) and w |g_i|^2 |g_j|^2 in place of D and w.
        """
        known = np.ones(gain.shape, dtype=bool) if solved is None else solved
        cross, model = np.empty_like(self.cross), np.empty_like(self.model)
        _turn(
            np.ascontiguousarray(gain),
            np.ascontiguousarray(known),
            self.antenna1,
            self.antenna2,
            self.cross,
            self.model,
            cross,
            model,
        )
        return replace(self, cross=cross, model=model)

    def residuals(
        self, gain: Complex, solved: Bool, half: int, scale: Float | None = None
    ) -> tuple[float, float]:
        """Weighted squared residuals of gains on one half of the channels, and on the other one.

        Parameters
        ----------
        gain : ndarray of complex128, shape (nspw, ntime, nant, npol)
            Gains by dump.
        solved : ndarray of bool, same shape
            Where there are gains; the model is left out of baselines without.
        half : int
            Half of the channels, 0 or 1.
        scale : ndarray, shape (npol,), optional
            Real factor on the model by polarisation; by default the best on that half, see :meth:`scale`.

        Returns
        -------
        own, other : float
            Sums of ``w |D - s g_i conj(g_j) M|^2``.
        """
        halves = [half, 1 - half]
        aligned, power = self._fit(gain, solved, halves)
        factor = _best_scale(aligned[0], power[0]) if scale is None else scale
        left = (self._data_power[halves] - 2 * factor * aligned + factor**2 * power).sum(axis=1)
        return float(left[0]), float(left[1])

    def scale(self, gain: Complex, solved: Bool, half: int) -> Float:
        """Best real, non-negative factor on the model by polarisation, shape (npol,).

        It takes out a scale that the data's units leave open, so that phases
        can be judged before amplitudes are known.
        """
        aligned, power = self._fit(gain, solved, (half,))
        return _best_scale(aligned[0], power[0])

    def without(self, lost: Bool) -> BaselineStatistics:
        """Statistics of the data without some antennas for some of the time.

        Parameters
        ----------
        lost : ndarray of bool, shape (ntime, nant, npol)
            Dumps of each antenna and polarisation that are to have no part.

        Returns
        -------
        BaselineStatistics
            As they would be if these visibilities had no weight.
        """
        kept = ~(lost[:, self.antenna1] | lost[:, self.antenna2])
        return replace(
            self,
            cross=self.cross * kept,
            model=self.model * kept,
            data=self.data * kept,
            count=self.count * kept,
        )

    def by_antenna(self, gain: Complex, half: int, scale: Float) -> tuple[Float, Float]:
        """How much of each antenna's data on one half of the channels gains account for.

        Parameters
        ----------
        gain : ndarray of complex128, shape (nspw, ntime, nant, npol)
            Gains by dump, not solved on this half.
        half : int
            Half of the channels, 0 or 1.
        scale : ndarray, shape (npol,)
            Real factor on the model by polarisation.

        Returns
        -------
        aligned : ndarray, shape (nspw, nant, npol)
            Sum of ``w Re(D conj(g_i M) g_j)`` over the antenna's baselines.
        error : ndarray, same shape
            Its standard deviation if the antenna's data were what the residual is: noise.
        """
        aligned, _, error = self.by_block(gain, half, scale, np.zeros(1, dtype=np.int64))
        return aligned[:, 0], error[:, 0]

    def by_block(self, gain: Complex, half: int, scale: Float, starts: Int) -> tuple[Float, Float, Float]:
        """How much of each antenna's data gains account for, as :meth:`by_antenna`, by block of dumps.

        Parameters
        ----------
        gain, half, scale
            As there.
        starts : ndarray of int, shape (nblock,)
            First dump of each block, the first zero.

        Returns
        -------
        aligned, power, error : ndarray, shape (nspw, nblock, nant, npol)
            Aligned sums, what they would be if the gains were right, and their standard deviations.
        """
        sums, powers, left, number = _sum_blocks(
            np.ascontiguousarray(gain),
            np.ascontiguousarray(scale),
            np.append(starts, self.n_times),
            self.antenna1,
            self.antenna2,
            self.cross[half],
            self.model[half],
            self.data[half],
            self.count[half],
        )
        variance = powers * left / np.maximum(number, 1.0) / 2
        return sums, powers, np.sqrt(np.maximum(variance, 0.0))

    def _fit(self, gain: Complex, solved: Bool, halves: Sequence[int]) -> tuple[Float, Float]:
        """Sum ``w Re(D conj(g_i) g_j conj(M))`` and ``w |g_i g_j M|^2``, shape (nhalf, npol) each."""
        sums = _fit_sums(
            np.where(solved, gain, 0), np.array(halves), self.antenna1, self.antenna2, self.cross, self.model
        ).sum(axis=0)
        return sums[:, 0], sums[:, 1]


def _best_scale(aligned: Float, power: Float) -> Float:
    return np.where(power > 0, np.maximum(0.0, aligned) / np.where(power > 0, power, 1.0), 0.0)


def joined(parts: Sequence[BaselineStatistics]) -> BaselineStatistics:
    """Put statistics of different spectral windows of the same dumps side by side."""
    names = ("cross", "model", "data", "count")
    sums = {name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names}
    return replace(parts[0], spw_ids=tuple(k for part in parts for k in part.spw_ids), **sums)


@dataclass(frozen=True, eq=False)
class RowIndex:
    """Where the rows of a block belong.

    Attributes
    ----------
    time_index : ndarray of int, shape (nrow,)
        Dump of each row.
    antenna1, antenna2 : ndarray of int, shape (nrow,)
        Antennas of each row, in either order.
    """

    time_index: Int
    antenna1: Int
    antenna2: Int


def accumulate(
    statistics: BaselineStatistics,
    spw_index: int,
    rows: RowIndex,
    vis: Vis,
    weight: Weight,
    model: Vis,
    first_channel: int,
) -> None:
    """Add a block to the statistics, in place.

    Parameters
    ----------
    statistics : BaselineStatistics
        Where to add.
    spw_index : int
        Index on its axis of spectral windows.
    rows : RowIndex
        Dump and antennas of each row.
    vis : ndarray of complex64, shape (nrow, nchan, 2)
        Visibilities of the two parallel-hand correlations.
    weight : ndarray of float32, same shape
        Weights, zero where flagged.
    model : ndarray of complex64, shape (nrow, nchan) or (nrow, nchan, 2)
        Model visibilities of Stokes I, or of either receptor.
    first_channel : int
        Number of the first channel in the whole band; even and odd numbers
        make the halves.
    """
    # Dumps do not share sums: each thread has some of them.
    order = np.argsort(rows.time_index, kind="stable")
    edges = np.flatnonzero(np.diff(rows.time_index[order], prepend=-1, append=np.iinfo(np.int64).max))
    _accumulate(
        statistics.n_antennas,
        order,
        edges,
        rows.time_index,
        rows.antenna1,
        rows.antenna2,
        np.ascontiguousarray(vis),
        np.ascontiguousarray(weight),
        model if model.ndim == 3 else model[:, :, None],
        first_channel,
        statistics.cross[:, spw_index],
        statistics.model[:, spw_index],
        statistics.data[:, spw_index],
        statistics.count[:, spw_index],
    )


@numba.njit(parallel=True, cache=True)
def _accumulate(
    n_antennas: int,
    order: Int,
    edges: Int,
    time_index: Int,
    antenna1: Int,
    antenna2: Int,
    vis: Vis,
    weight: Weight,
    model: Vis,
    first_channel: int,
    cross: Complex,
    power: Float,
    data: Float,
    count: Float,
) -> None:
    nchan, npol = vis.shape[1:]
    for dump in numba.prange(edges.size - 1):
        for k in range(edges[dump], edges[dump + 1]):
            r = order[k]
            i, j, t = antenna1[r], antenna2[r], time_index[r]
            if i == j:
                continue
            swapped = i > j
            if swapped:
                i, j = j, i
            baseline = i * n_antennas - (i * (i + 1)) // 2 + (j - i - 1)
            for c in range(nchan):
                half = (first_channel + c + baseline + t) & 1
                # In double precision: the residual of a good fit is a small difference of large sums.
                m = np.complex128(model[r, c, 0])
                mm = m.real * m.real + m.imag * m.imag
                for p in range(npol):
                    if p > 0 and model.shape[2] > 1:
                        m = np.complex128(model[r, c, p])
                        mm = m.real * m.real + m.imag * m.imag
                    w = np.float64(weight[r, c, p])
                    if w > 0:
                        d = np.complex128(vis[r, c, p])
                        a = w * (d * np.conj(m))
                        cross[half, t, baseline, p] += np.conj(a) if swapped else a
                        power[half, t, baseline, p] += w * mm
                        data[half, t, baseline, p] += w * (d.real * d.real + d.imag * d.imag)
                        count[half, t, baseline, p] += 1


@numba.njit(parallel=True, cache=True)
def _fit_sums(
    gain: Complex, halves: Int, antenna1: Int, antenna2: Int, cross: Complex, model: Float
) -> Float:
    """Sum each spectral window and dump by itself, as tasks run in parallel: (nspw ntime, nhalf, 2, npol)."""
    _, nspw, ntime, nbaseline, npol = cross.shape
    out = np.zeros((nspw * ntime, halves.size, 2, npol))
    for task in numba.prange(nspw * ntime):
        s, t = task // ntime, task % ntime
        for p in range(npol):
            for k in range(halves.size):
                h, aligned, power = halves[k], 0.0, 0.0
                for b in range(nbaseline):
                    g = np.conj(gain[s, t, antenna1[b], p]) * gain[s, t, antenna2[b], p]
                    of_data = cross[h, s, t, b, p]
                    aligned += g.real * of_data.real - g.imag * of_data.imag
                    power += (g.real * g.real + g.imag * g.imag) * model[h, s, t, b, p]
                out[task, k, 0, p], out[task, k, 1, p] = aligned, power
    return out


@numba.njit(parallel=True, cache=True)
def _sum_blocks(
    gain: Complex,
    scale: Float,
    edges: Int,
    antenna1: Int,
    antenna2: Int,
    cross: Complex,
    model: Float,
    data: Float,
    count: Float,
) -> tuple[Float, Float, Float, Float]:
    """Aligned sums, powers, residuals and numbers on the baselines of each antenna, by block of dumps."""
    nspw, _, nbl, npol = cross.shape
    nblock = edges.size - 1
    shape = (nspw, nblock, gain.shape[2], npol)
    sums, powers, left, number = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for task in numba.prange(nspw * nblock * npol):
        s, k, p = task // (nblock * npol), (task // npol) % nblock, task % npol
        for t in range(edges[k], edges[k + 1]):
            for b in range(nbl):
                g = np.conj(gain[s, t, antenna1[b], p]) * gain[s, t, antenna2[b], p]
                of_data = cross[s, t, b, p]
                aligned = g.real * of_data.real - g.imag * of_data.imag
                power = (g.real * g.real + g.imag * g.imag) * model[s, t, b, p]
                residual = data[s, t, b, p] - 2 * scale[p] * aligned + scale[p] * scale[p] * power
                for antenna in (antenna1[b], antenna2[b]):
                    sums[s, k, antenna, p] += aligned
                    powers[s, k, antenna, p] += power
                    left[s, k, antenna, p] += residual
                    number[s, k, antenna, p] += count[s, t, b, p]
    return sums, powers, left, number


@numba.njit(parallel=True, cache=True)
def _turn(
    gain: Complex,
    solved: Bool,
    antenna1: Int,
    antenna2: Int,
    cross: Complex,
    model: Float,
    turned: Complex,
    power: Float,
) -> None:
    """Correct both sums by gains, into other arrays; zero where there are none."""
    nhalf, nspw, ntime, nbaseline, npol = cross.shape
    for task in numba.prange(nspw * ntime):
        s, t = task // ntime, task % ntime
        for b in range(nbaseline):
            i, j = antenna1[b], antenna2[b]
            for p in range(npol):
                g = 0.0 + 0.0j
                if solved[s, t, i, p] and solved[s, t, j, p]:
                    g = np.conj(gain[s, t, i, p]) * gain[s, t, j, p]
                size = g.real * g.real + g.imag * g.imag
                for half in range(nhalf):
                    turned[half, s, t, b, p] = g * cross[half, s, t, b, p]
                    power[half, s, t, b, p] = size * model[half, s, t, b, p]
