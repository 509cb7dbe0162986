"""Antenna gains: one object with its axes, flags and interpolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.errors import AxesError, CalTableError
from dsa110_contimg.sky import angular_separation

__all__ = ["SELFCAL_MAX_GAP", "GainTable", "Gains", "Interpolation", "phase_scatter_deg", "typical_amplitude"]

Interpolation = Literal["linear", "nearest"]

#: How far a gain that was solved on the data themselves is carried beyond its interval, in intervals: what
#: was not solved there was dead or had moved, and a neighbour says nothing of either.
SELFCAL_MAX_GAP = 1.0
#: Times may be off by this much, seconds.
_TOLERANCE_S = 1e-3

#: Fields of :class:`Gains` with one value for each solution interval.
_PER_TIME = ("time_s", "interval_s", "reference_antenna", "field_id", "scan")


@dataclass(frozen=True, eq=False, kw_only=True)
class Gains:
    """Complex gains of all antennas in one spectral window.

    Parameters
    ----------
    time_s : ndarray, shape (ntime,)
        Centres of the solution intervals, seconds (MJD UTC), ascending.
    interval_s : ndarray, shape (ntime,)
        Lengths of the intervals in seconds.
    freq_hz : ndarray, shape (nchan,)
        Channels of the solutions; one for a frequency-independent gain.
    gain : ndarray of complex128, shape (ntime, nant, nchan, npol)
        Gains: corrected = V / (g_i conj(g_j)). npol is 1 for a gain common to
        both receptors.
    flag : ndarray of bool, same shape
        True where there is no solution.
    error, snr : ndarray, same shape
        Standard error of the real (or imaginary) part and signal to noise.
    reference_antenna : ndarray of int, shape (ntime,)
        Antenna of zero phase, -1 where there is none.
    field_id, scan : ndarray of int, shape (ntime,)
        Where the solutions come from.

    Raises
    ------
    AxesError
        If an array does not have its shape, or the times do not ascend.
    """

    time_s: Float
    interval_s: Float
    freq_hz: Float
    gain: Complex
    flag: Bool
    error: Float
    snr: Float
    reference_antenna: Int
    field_id: Int
    scan: Int

    def __post_init__(self) -> None:
        if self.gain.ndim != 4 or self.gain.shape[3] not in (1, 2):
            raise AxesError(f"has shape {self.gain.shape}, not (ntime, nant, nchan, 1 or 2)", "Gains.gain")
        n_times, _, n_channels, _ = self.gain.shape
        expected = dict.fromkeys(_PER_TIME, (n_times,)) | {"freq_hz": (n_channels,)}
        expected |= dict.fromkeys(("flag", "error", "snr"), self.gain.shape)
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise AxesError(f"has shape {found}, not {shape}", f"Gains.{name}")
        if self.flag.dtype != np.bool_:
            raise AxesError(f"holds {self.flag.dtype}, not bool", "Gains.flag")
        if not (np.isfinite(self.time_s).all() and (np.diff(self.time_s) > 0).all()):
            raise AxesError("is not finite and ascending", "Gains.time_s")

    @property
    def n_antennas(self) -> int:
        """Number of antennas."""
        return int(self.gain.shape[1])

    def at_times(
        self, time_s: Float, interpolation: Interpolation = "linear", max_gap: float | None = None
    ) -> tuple[Complex, Bool]:
        """Interpolate in time, amplitude and phase apart.

        Flagged solutions are stepped over; before the first and after the last
        good solution the nearest one holds, both as far as `max_gap` lets them.
        The phase takes the shorter way round between neighbours.

        Parameters
        ----------
        time_s : ndarray, shape (n,)
            Times in seconds (MJD UTC).
        interpolation : {"linear", "nearest"}
            How.
        max_gap : float, optional
            Times further than ``0.5 + max_gap`` intervals from the centre of every good
            solution of an antenna and polarisation are flagged; none by default.

        Returns
        -------
        gain : ndarray of complex128, shape (n, nant, nchan, npol)
            Interpolated gains, one where flagged.
        flag : ndarray of bool, same shape
            True where an antenna has no good solution, or none that is near enough.
        """
        reach = np.full(len(self.time_s), np.inf)
        if max_gap is not None:
            reach = (0.5 + max_gap) * self.interval_s + _TOLERANCE_S
        shape = (len(time_s), *self.gain.shape[1:])
        gain, flag = _interpolate_time(
            np.asarray(time_s, dtype=np.float64),
            self.time_s,
            self.gain.reshape(len(self.time_s), -1),
            self.flag.reshape(len(self.time_s), -1),
            interpolation == "linear",
            reach,
        )
        return gain.reshape(shape), flag.reshape(shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class GainTable:
    """A calibration table: gains by spectral window, and how to apply them.

    Parameters
    ----------
    kind : str
        ``"G Jones"``, ``"T Jones"`` or ``"B Jones"``.
    gains : mapping of int to Gains
        By spectral-window identifier.
    label : str
        File name or description, for messages.
    interpolation : {"linear", "nearest"}
        In time.
    spw_map : mapping of int to int
        From spectral windows of the data to those of the table; a window that
        is not in it maps to itself, or to the table's only one.
    field_direction : mapping of int to (float, float)
        Right ascension and declination in radians of the table's fields.
    max_gap : float, optional
        How far a solution is carried beyond its interval, in intervals, see :meth:`Gains.at_times`.
        Without limit by default: initial tables are solved on a calibrator hours away.
    """

    kind: str
    gains: Mapping[int, Gains]
    label: str = ""
    interpolation: Interpolation = "linear"
    spw_map: Mapping[int, int] = field(default_factory=dict)
    field_direction: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    max_gap: float | None = None

    def for_spw(self, spw_id: int) -> Gains:
        """Return the gains that apply to a spectral window of the data.

        Raises
        ------
        CalTableError
            If the table does not say.
        """
        wanted = self.spw_map.get(spw_id, spw_id)
        if wanted in self.gains:
            return self.gains[wanted]
        if len(self.gains) == 1 and not self.spw_map:
            return next(iter(self.gains.values()))
        raise CalTableError(
            f"no solutions for spectral window {spw_id} (it has {sorted(self.gains)})",
            self.label,
            "give a spectral-window map with --spw-map",
        )

    def evaluate(self, spw_id: int, time_s: Float, freq_hz: Float) -> tuple[Complex, Bool]:
        """Gains at the times and channels of data.

        Parameters
        ----------
        spw_id : int
            Spectral window of the data.
        time_s : ndarray, shape (n,)
            Times in seconds (MJD UTC).
        freq_hz : ndarray, shape (nchan,)
            Channels of the data in hertz.

        Returns
        -------
        gain : ndarray of complex128, shape (n, nant, nchan or 1, npol)
            Gains; the channel axis is 1 for a frequency-independent table.
        flag : ndarray of bool, same shape
            True where there is none.
        """
        gains = self.for_spw(spw_id)
        gain, flag = gains.at_times(time_s, self.interpolation, self.max_gap)
        if self.kind != "B Jones":
            return gain, flag
        return _interpolate_frequency(gain, flag, gains.freq_hz, np.asarray(freq_hz))

    def times(self, factor: Float | Complex) -> GainTable:
        """Return the table with all gains multiplied by what broadcasts to (ntime, nant, nchan, npol)."""
        made = {
            id(g): replace(g, gain=np.where(g.flag, g.gain, g.gain * factor), error=g.error * np.abs(factor))
            for g in self.gains.values()
        }
        # Windows that share gains go on doing so.
        return replace(self, gains={spw: made[id(g)] for spw, g in self.gains.items()})

    @property
    def is_shared(self) -> bool:
        """Whether all windows have the same gains."""
        return len({id(g) for g in self.gains.values()}) == 1

    def with_nearest_field(self, ra_rad: float, dec_rad: float) -> GainTable:
        """Keep only the solutions of the field nearest to a direction, radians."""
        used = sorted({int(f) for g in self.gains.values() for f in g.field_id})
        known = [f for f in used if f in self.field_direction]
        if len(known) < 2:
            return self
        distance = [angular_separation(*self.field_direction[f], ra_rad, dec_rad) for f in known]
        field_id = known[int(np.argmin(distance))]
        per_time = (*_PER_TIME, "gain", "flag", "error", "snr")
        kept = {}
        for spw, g in self.gains.items():
            mine = g.field_id == field_id
            if mine.any():
                kept[spw] = replace(g, **{name: getattr(g, name)[mine] for name in per_time})
        return replace(self, gains=kept)


@numba.njit(cache=True)
def _interpolate_time(
    time: Float, known: Float, gain: Complex, flag: Bool, linear: bool, reach: Float
) -> tuple[Complex, Bool]:
    n, series = time.size, gain.shape[1]
    out = np.ones((n, series), dtype=np.complex128)
    bad = np.ones((n, series), dtype=np.bool_)
    good = np.empty(known.size, dtype=np.int64)
    for s in range(series):
        count = 0
        for k in range(known.size):
            if not flag[k, s]:
                good[count] = k
                count += 1
        if count == 0:
            continue
        after = 0
        for t in range(n):
            # Times ascend in all callers; start over where they do not.
            if after > 0 and time[t] < known[good[after - 1]]:
                after = 0
            while after < count and known[good[after]] <= time[t]:
                after += 1
            before = good[after - 1] if after > 0 else -1
            near = before >= 0 and time[t] - known[before] <= reach[before]
            if after < count:
                near = near or known[good[after]] - time[t] <= reach[good[after]]
            if not near:
                continue
            bad[t, s] = False
            if after == 0:
                out[t, s] = gain[good[0], s]
            elif after == count:
                out[t, s] = gain[good[count - 1], s]
            else:
                low, high = good[after - 1], good[after]
                f = (time[t] - known[low]) / (known[high] - known[low])
                if not linear:
                    out[t, s] = gain[low, s] if f < 0.5 else gain[high, s]
                else:
                    g0, g1 = gain[low, s], gain[high, s]
                    amplitude = (1.0 - f) * abs(g0) + f * abs(g1)
                    turn = g1 * np.conj(g0)
                    phase = np.arctan2(g0.imag, g0.real) + f * np.arctan2(turn.imag, turn.real)
                    out[t, s] = amplitude * complex(np.cos(phase), np.sin(phase))
    return out, bad


def _interpolate_frequency(
    gain: Complex, flag: Bool, known_hz: Float, freq_hz: Float
) -> tuple[Complex, Bool]:
    """Linear in amplitude and phase along frequency, over flagged channels between solved ones.

    Channels beyond the outermost good solution of an antenna and polarisation by more than half a solved
    channel are flagged: at the edges of a band the bandpass falls, and the last solution says nothing of it.
    """
    order = np.argsort(known_hz)
    known = known_hz[order]
    moved = np.moveaxis(gain[:, :, order, :], 2, 0)
    moved_flag = np.moveaxis(flag[:, :, order, :], 2, 0)
    unsolved = np.ascontiguousarray(moved_flag).reshape(known.size, -1)
    out, bad = _interpolate_time(
        np.asarray(freq_hz, dtype=np.float64),
        known,
        np.ascontiguousarray(moved).reshape(known.size, -1),
        unsolved,
        True,
        np.full(known.size, np.inf),
    )
    if known.size > 1:
        margin = 0.5 * float(np.median(np.diff(known)))
        lowest = known[np.argmin(unsolved, axis=0)] - margin
        highest = known[known.size - 1 - np.argmin(unsolved[::-1], axis=0)] + margin
        bad |= (freq_hz[:, None] < lowest) | (freq_hz[:, None] > highest)
        out[bad] = 1.0
    shape = (len(freq_hz), *moved.shape[1:])
    return np.moveaxis(out.reshape(shape), 0, 2), np.moveaxis(bad.reshape(shape), 0, 2)


def typical_amplitude(tables: Sequence[GainTable]) -> float:
    """Return the factor on visibilities of the median antenna: squared median |g|, multiplied over tables."""
    total = 1.0
    for table in tables:
        sizes = np.concatenate([np.abs(g.gain[~g.flag]) for g in table.gains.values()])
        total *= float(np.median(sizes)) ** 2 if sizes.size else 1.0
    return total


def phase_scatter_deg(table: GainTable) -> float | None:
    """Return the rms phase of the gains about their mean at each time, degrees; None if none is solved."""
    squares, count = 0.0, 0
    for g in table.gains.values():
        unit = np.where(g.flag, 0.0, g.gain / np.maximum(np.abs(g.gain), 1e-30))
        turned = unit * np.conj(unit.sum(axis=1, keepdims=True))
        angles = np.angle(turned[~g.flag])
        squares += float(np.sum(angles**2))
        count += angles.size
    return float(np.degrees(np.sqrt(squares / count))) if count else None
