"""Reading visibilities in blocks of bounded size, in the order they lie on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float, Int, Vis, Weight
from dsa110_contimg.errors import MeasurementSetError, SelectionError
from dsa110_contimg.visibilities.antenna_coordinates import AntennaCoordinates
from dsa110_contimg.visibilities.columns import KEPT
from dsa110_contimg.visibilities.frames import turned_baselines
from dsa110_contimg.visibilities.impossible import flag_impossible
from dsa110_contimg.visibilities.measurement_set import MeasurementSet, Selection, SpectralWindow
from dsa110_contimg.visibilities.pointing import pointing_directions
from dsa110_contimg.visibilities.rephase import move_uvw
from dsa110_contimg.visibilities.tables import read_cells, reading, unreadable
from dsa110_contimg.visibilities.time_scales import read_times
from dsa110_contimg.visibilities.weights import choose_weights

if TYPE_CHECKING:
    from dsa110_contimg.visibilities.averaging import ChannelBins

__all__ = ["Block", "VisibilityReader"]


DATA_COLUMNS = ("DATA", "CORRECTED_DATA", "MODEL_DATA")
#: Rows in which it is looked whether a column is filled, about.
PROBED = 64
#: Time stamps closer than this are one dump, seconds.
TIME_TOLERANCE_S = 1e-3
#: A block holds data, corrected data, model, weights and flags: bytes per visibility and correlation.
BYTES_PER_SAMPLE = 40


@dataclass
class Block:
    """Rows of one field and one spectral window.

    Attributes
    ----------
    rows : ndarray of int, shape (nrow,)
        Row numbers in the main table, ascending.
    field_id : int
        Field.
    spw : SpectralWindow
        Spectral window; its correlations are the last axis below.
    time_index : ndarray of int, shape (nrow,)
        Dump of each row: index into the reader's `times`.
    antenna1, antenna2 : ndarray of int, shape (nrow,)
        Antennas; autocorrelations are left out.
    uvw_m : ndarray, shape (nrow, 3)
        Baselines in metres.
    data : ndarray of complex64, shape (nrow, nchan, ncorr)
        Visibilities.
    flag : ndarray of bool, shape (nrow, nchan, ncorr)
        True where not to be used: FLAG, FLAG_ROW, data not finite or
        beyond all measure, baseline unknown, or of no weight.
    weight : ndarray of float32, shape (nrow, nchan, ncorr)
        Inverse variances up to one common scale; zero where flagged.
    bins : ChannelBins or None
        How many channels of which width the channels of `spw`, which are bins then, are means of. None for
        data as they were read.
    """

    rows: Int
    field_id: int
    spw: SpectralWindow
    time_index: Int
    antenna1: Int
    antenna2: Int
    uvw_m: Float
    data: Vis
    flag: Bool
    weight: Weight
    bins: ChannelBins | None = None

    def of_rows(self, rows: Int) -> Block:
        """Return some of the rows, by their places, as a block of their own."""
        bins = self.bins
        if bins is not None and bins.partial is not None:
            bins = replace(bins, partial=bins.partial.of_rows(rows, self.rows.size))
        by_row = ("rows", "time_index", "antenna1", "antenna2", "uvw_m", "data", "flag", "weight")
        return replace(self, bins=bins, **{name: getattr(self, name)[rows] for name in by_row})


class VisibilityReader:
    """Blocks of a selection of a Measurement Set.

    Parameters
    ----------
    ms : MeasurementSet
        What to read.
    selection : Selection
        Fields and spectral windows.
    column : str
        Data column: DATA, or CORRECTED_DATA.
    block_bytes : int
        Size of one block in memory.
    cache_bytes : int
        If the whole selection fits into this, the blocks are kept and the
        disk is read only once.

    Attributes
    ----------
    times : ndarray, shape (ntime,)
        Time stamps of the dumps, seconds (MJD UTC), ascending.
    interval_s : ndarray, shape (ntime,)
        Their lengths in seconds.
    scan, field_id : ndarray of int, shape (ntime,)
        Scan number and field of each dump.
    pointing : ndarray, shape (ntime, 2)
        Where the dishes pointed, right ascension and declination in ICRS radians.
    phase_center : (float, float)
        Common centre for images: the phase centre of the data, of the middle
        dump where there are several. ICRS radians.
    n_rows, n_rows_nowhere, n_baselines : int
        Cross-correlation rows selected, those of them whose UVW is zero or not finite, which are left out,
        and how many pairs of antennas they are of.
    most_baselines_of_antenna : int
        Baselines of the antenna that has most.
    max_baseline_m : float
        Longest projected baseline in metres.
    length_quantiles_m : ndarray, shape (101,)
        Percentiles of the lengths of the baselines in metres, not only as projected.
    seconds : float
        Time spent reading so far.
    passes, bytes_read : int
        Passes over the whole selection so far that went to the disk, and what they and others took from it.

    Raises
    ------
    SelectionError
        If no cross-correlations are selected.
    """

    def __init__(
        self,
        ms: MeasurementSet,
        selection: Selection,
        column: str = "DATA",
        block_bytes: int = 256 << 20,
        cache_bytes: int = 0,
    ) -> None:
        if column not in ms.columns:
            raise MeasurementSetError(f"no column {column}", ms.path, "choose DATA or calibrate first")
        if column.removeprefix(KEPT) not in DATA_COLUMNS:
            raise MeasurementSetError(
                f"{column} holds no visibilities", ms.path, f"choose one of {', '.join(DATA_COLUMNS)}"
            )
        self.ms = ms
        self.selection = selection
        self.column = column
        self._block_bytes = block_bytes
        self._cache: list[Block] | None = None
        self.seconds = 0.0
        self.passes = self.bytes_read = 0
        self._buffers: dict[str, NDArray[Any]] = {}
        self._impossible: dict[int, int] = {}
        self._antenna_uv: Float | None = None
        with reading(ms.path) as main:
            antenna1 = main.getcol("ANTENNA1")
            antenna2 = main.getcol("ANTENNA2")
            field = main.getcol("FIELD_ID")
            ddid = main.getcol("DATA_DESC_ID")
            stamp = read_times(main)
            chosen_ddid = [d for s in selection.spw_ids for d in ms.spectral_window(s).data_desc_ids]
            chosen = np.isin(field, selection.field_ids) & np.isin(ddid, chosen_ddid)
            rows = np.flatnonzero(chosen & (antenna1 != antenna2))
            if not rows.size:
                raise _nothing_selected(ms, antenna1 == antenna2, chosen)
            _require_filled(ms, main, column, rows)
            # What a file that was cut short lacks is its end: said now, not after an hour of reading.
            ends = [int(rows[ddid[rows] == d][-1]) for d in np.unique(ddid[rows])]
            weight = "WEIGHT_SPECTRUM" if "WEIGHT_SPECTRUM" in ms.columns else "WEIGHT"
            read_cells(main, ("UVW", column, "FLAG", "FLAG_ROW", weight), ends)
            self._weights = choose_weights(main, rows)
            stamps = np.unique(stamp[rows])
            first = np.concatenate([[True], np.diff(stamps) > TIME_TOLERANCE_S])
            self.times: Float = stamps[first]
            time_index = np.clip(
                np.searchsorted(self.times, stamp[rows] + TIME_TOLERANCE_S, side="right") - 1, 0, None
            )
            representative = np.zeros(self.times.size, dtype=np.int64)
            # The first row of each dump is written last.
            representative[time_index[::-1]] = np.arange(rows.size)[::-1]
            self.scan: Int = main.getcol("SCAN_NUMBER")[rows][representative].astype(np.int64)
            self.field_id: Int = field[rows][representative].astype(np.int64)
            self.interval_s: Float = main.getcol("INTERVAL")[rows][representative].astype(np.float64)
            uvw = main.getcol("UVW")[rows]
            self.n_rows_nowhere = int(np.count_nonzero(_nowhere(uvw)))
            if self.n_rows_nowhere == rows.size:
                raise MeasurementSetError(
                    f"no baseline has a length: UVW is zero or not finite in all {rows.size} rows",
                    ms.path,
                    "fill UVW from the antennas' positions, as CASA's fixvis does",
                )
            self.max_baseline_m = float(np.sqrt(np.nanmax(uvw[:, 0] ** 2 + uvw[:, 1] ** 2)))
            lengths = np.sqrt((uvw**2).sum(axis=1))
            self.length_quantiles_m: Float = np.nanquantile(lengths, np.linspace(0, 1, 101))
            pair = np.minimum(antenna1[rows], antenna2[rows]).astype(np.int64) * len(ms.antennas)
            pair += np.maximum(antenna1[rows], antenna2[rows])
            pairs = np.unique(pair)
            self.n_baselines = int(pairs.size)
            antennas = np.concatenate(np.divmod(pairs, len(ms.antennas)))
            self.most_baselines_of_antenna = int(np.bincount(antennas).max())
        self.pointing = pointing_directions(ms, self.times, self.interval_s, self.field_id)
        middle = ms.field(int(self.field_id[self.times.size // 2]))
        self.phase_center = (middle.ra_rad, middle.dec_rad)
        self.n_rows = int(rows.size)
        self._slot_of_row = np.full(ms.n_rows, -1, dtype=np.int64)
        self._slot_of_row[rows] = time_index
        self._plan = self._make_plan(rows, field, ddid)
        total = sum(r.size * w.freq_hz.size * len(w.corr_type) for r, _, w in self._plan) * BYTES_PER_SAMPLE
        self.cached = total <= cache_bytes

    def _make_plan(
        self, rows: Int, field: NDArray[np.int32], ddid: NDArray[np.int32]
    ) -> list[tuple[Int, int, SpectralWindow]]:
        plan: list[tuple[Int, int, SpectralWindow]] = []
        windows = [self.ms.spectral_window(spw_id) for spw_id in self.selection.spw_ids]
        for number, of_window in enumerate(_grouped(ddid[rows], [w.data_desc_ids for w in windows])):
            window, fields = windows[number], self.selection.field_ids
            per_row = window.freq_hz.size * len(window.corr_type) * BYTES_PER_SAMPLE
            size = max(1, self._block_bytes // per_row)
            of_fields = _grouped(field[rows[of_window]], [(k,) for k in fields])
            for field_id, which in zip(fields, of_fields, strict=True):
                mine = rows[of_window[which]]
                plan.extend(
                    (mine[start : start + size], field_id, window) for start in range(0, mine.size, size)
                )
        # In the order of the disk, so that one pass is one sweep.
        return sorted(plan, key=lambda item: int(item[0][0]))

    @property
    def field_name(self) -> str:
        """Name of the field of the middle dump."""
        return self.ms.field(int(self.field_id[self.times.size // 2])).name

    @property
    def freq_hz(self) -> Float:
        """All selected channels, hertz, window by window."""
        return np.concatenate([self.ms.spectral_window(s).freq_hz for s in self.selection.spw_ids])

    def row_sets(self) -> Iterator[tuple[Int, int, SpectralWindow]]:
        """Yield rows, field and window of each block, without reading it."""
        yield from self._plan

    def antenna_uv(self) -> Float:
        """Antenna coordinates u and v about the common phase centre.

        Returns
        -------
        ndarray, shape (ntime, nant, 2)
            Metres, about the mean of each dump; a baseline's are those of antenna 2 less those of antenna 1.
            Not numbers where an antenna has no row. Of the first spectral window.
        """
        if self._antenna_uv is None:
            found = AntennaCoordinates(len(self.ms.antennas), self.times.size)
            with reading(self.ms.path) as main:
                for rows, field_id, window in self._plan:
                    if window.id == self.selection.spw_ids[0]:
                        source = _RowSource(main, rows, window)
                        uvw = turned_baselines(source.column("UVW"), self.ms.field(field_id).turn_rad)
                        known = ~_nowhere(uvw)
                        first, second = (source.column(f"ANTENNA{k}")[known] for k in (1, 2))
                        moved, _ = self.moved(uvw[known], field_id, self.phase_center)
                        found.add(self._slot_of_row[rows[known]], first, second, moved)
            self._antenna_uv = found.solve()
        return self._antenna_uv

    def move_to_center(self, block: Block) -> tuple[Float, Float]:
        """Move a block's baselines to the common phase centre.

        Returns
        -------
        uvw_m : ndarray, shape (nrow, 3)
            Metres.
        path_m : ndarray, shape (nrow,)
            By how much w fell: what :func:`turn_phases` takes to move
            visibilities to the common centre, and negated to move them back.
        """
        return self.moved(block.uvw_m, block.field_id, self.phase_center)

    def moved(self, uvw_m: Float, field_id: int, center: tuple[float, float]) -> tuple[Float, Float]:
        """Move baselines (nrow, 3) of a field to a centre, as :meth:`move_to_center`."""
        field = self.ms.field(field_id)
        old = (field.ra_rad, field.dec_rad)
        if old == center:
            return uvw_m, np.zeros(len(uvw_m))
        moved = move_uvw(uvw_m, old, center)
        return moved, uvw_m[:, 2] - moved[:, 2]

    @property
    def n_blocks(self) -> int:
        """Number of blocks of one pass."""
        return len(self._plan)

    @property
    def samples(self) -> int:
        """Visibilities of one pass, correlations counted singly."""
        return sum(r.size * w.freq_hz.size * len(w.corr_type) for r, _, w in self._plan)

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of one pass; they must not be changed."""
        if self._cache is not None:
            yield from self._cache
            return
        kept: list[Block] = []
        with reading(self.ms.path) as main:
            for rows, field_id, window in self._plan:
                started = time.perf_counter()
                try:
                    block = self._read(main, rows, field_id, window)
                except RuntimeError as error:
                    raise unreadable(self.ms.path, error, f"rows {rows[0]} to {rows[-1]}") from None
                self.seconds += time.perf_counter() - started
                if self.cached:
                    kept.append(block)
                yield block
        self.passes += 1
        if self.cached:
            self._cache = kept

    def _read(self, main: Any, rows: Int, field_id: int, window: SpectralWindow) -> Block:
        source = _RowSource(main, rows, window, self._buffers)
        expected = (rows.size, window.freq_hz.size, len(window.corr_type))
        data = source.cells(self.column, expected[1:], np.complex64)
        if data.shape != expected:
            raise MeasurementSetError(
                f"{self.column} has cells of shape {data.shape[1:]}, SPECTRAL_WINDOW and POLARIZATION "
                f"say {expected[1:]}",
                self.ms.path,
                "repair the table",
            )
        antenna1, antenna2 = (np.asarray(source.column(f"ANTENNA{k}"), dtype=np.int64) for k in (1, 2))
        weight = self._read_weights(source, window, rows.size)
        flag = source.cells("FLAG", expected[1:], np.bool_).copy()
        flag |= np.asarray(source.column("FLAG_ROW"), dtype=bool)[:, None, None]
        with np.errstate(invalid="ignore"):
            flag |= ~((weight > 0) & np.isfinite(weight))
        self._impossible[int(rows[0])] = flag_impossible(np.ascontiguousarray(data), flag)
        uvw = np.array(turned_baselines(source.column("UVW"), self.ms.field(field_id).turn_rad), np.float64)
        nowhere = _nowhere(uvw)
        uvw[nowhere], flag[nowhere] = 0.0, True
        weight[flag] = 0.0
        self.bytes_read += source.bytes_read
        return Block(
            rows,
            field_id,
            window,
            self._slot_of_row[rows],
            antenna1,
            antenna2,
            uvw,
            np.where(flag, np.complex64(0), data),
            flag,
            weight,
        )

    def _read_weights(self, source: _RowSource, window: SpectralWindow, n_rows: int) -> Weight:
        """Weights of some rows in the unit that is common to all; ones where there are none."""
        shape = (window.freq_hz.size, len(window.corr_type))
        weight: Weight
        if self._weights.name == "WEIGHT_SPECTRUM":
            weight = source.cells("WEIGHT_SPECTRUM", shape, np.float32).copy()
        elif self._weights.name:
            per_row = np.asarray(source.column("WEIGHT"), dtype=np.float32)
            weight = np.repeat(per_row[:, None, :], shape[0], axis=1)
        else:
            weight = np.ones((n_rows, *shape), dtype=np.float32)
        if self._weights.scale != 1.0:
            weight *= np.float32(self._weights.scale)
        return weight

    @property
    def unweighted(self) -> bool:
        """Whether the data come without weights: all count alike, and the noise is what the data tell."""
        return not self._weights.name

    def ignore_pointing(self) -> None:
        """Do not believe the POINTING table, whose directions may be placeholders."""
        self.pointing = pointing_directions(
            self.ms, self.times, self.interval_s, self.field_id, recorded=False
        )

    @property
    def as_on_disk(self) -> bool:
        """Whether another program that reads the Measurement Set finds the same values, weights and axes."""
        plain = self._weights.name != "" and self._weights.scale == 1.0 and not self.n_impossible
        return plain and not self.ms.frames and not self.n_rows_nowhere

    @property
    def n_impossible(self) -> int:
        """Unflagged visibilities beyond all measure in what was read so far; they are left out."""
        return sum(self._impossible.values())


def _nothing_selected(ms: MeasurementSet, auto: Bool, chosen: Bool) -> SelectionError:
    """Make the error for a selection without cross-correlations."""
    if auto.all():
        return SelectionError(
            f"holds only autocorrelations ({auto.size} rows)",
            ms.path,
            "an image needs the correlations between antennas: take the data from before they were split off",
        )
    if chosen.any():
        return SelectionError(
            "holds only autocorrelations in the selected fields and spectral windows",
            ms.path,
            "choose others with --field and --spw",
        )
    return SelectionError(
        "no rows in the selected fields and spectral windows", ms.path, "choose others with --field and --spw"
    )


def _grouped(values: NDArray[np.int32], groups: Sequence[Sequence[int]]) -> list[Int]:
    """Places, ascending, of the values that belong to each of some groups; in none are what no group has."""
    group_of = np.full(int(values.max(initial=-1)) + 1, len(groups), dtype=np.int16)
    for number, members in enumerate(groups):
        group_of[[k for k in members if k < group_of.size]] = number
    of_value = group_of[values]
    # Of 16 bits they are sorted by counting.
    order = np.argsort(of_value, kind="stable")
    edges = np.searchsorted(of_value[order], np.arange(len(groups) + 1))
    return [order[a:b] for a, b in pairwise(edges)]


def _require_filled(ms: MeasurementSet, main: Any, column: str, rows: Int) -> None:
    """Raise MeasurementSetError if cells of a column were never written."""
    probe = np.unique(np.concatenate([rows[:: max(1, rows.size // PROBED)], rows[-1:]]))
    if all(main.iscelldefined(column, int(row)) for row in probe):
        return
    remedy = "fill it" if column == "DATA" else "image another with --column DATA, or fill it"
    raise MeasurementSetError(f"{column} is not filled in all rows", ms.path, remedy)


def _nowhere(uvw_m: Float) -> Bool:
    """Rows whose baseline is not known: two antennas are never at the same place."""
    return np.asarray(~np.isfinite(uvw_m).all(axis=1) | (uvw_m == 0).all(axis=1))


class _RowSource:
    """Columns of a set of rows: one slice where they are nearly contiguous, a row selection otherwise."""

    def __init__(
        self, main: Any, rows: Int, window: SpectralWindow, buffers: dict[str, NDArray[Any]] | None = None
    ) -> None:
        self._buffers = {} if buffers is None else buffers
        first, span = int(rows[0]), int(rows[-1] - rows[0] + 1)
        self._pick: Int | None = None
        self.bytes_read = 0
        if span == rows.size:
            self._table, self._start, self._count = main, first, span
        elif span <= 1.25 * rows.size and np.all(
            np.isin(main.getcol("DATA_DESC_ID", first, span), window.data_desc_ids)
        ):
            # Autocorrelations in between: cheaper to read than to step over. Rows of another window may
            # have another shape.
            self._table, self._start, self._count = main, first, span
            self._pick = rows - first
        else:
            self._table, self._start, self._count = main.selectrows(rows), 0, int(rows.size)

    def column(self, name: str) -> NDArray[Any]:
        values = self._table.getcol(name, self._start, self._count)
        return self._picked(values)

    def cells(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Read cells that should be of one shape and type; what comes back lasts until the next reading.

        Into memory that is there already, which is several times as fast, where they are.
        """
        wanted = (self._count, *shape)
        size = int(np.prod(wanted))
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, dtype)
        values = buffer[:size].reshape(wanted)
        try:
            self._table.getcolnp(name, values, self._start, self._count)
        except (RuntimeError, ValueError):
            # Of another shape or type, or not to be read at all: that call says which.
            return self.column(name).astype(dtype, copy=False)
        return self._picked(values)

    def _picked(self, values: NDArray[Any]) -> NDArray[Any]:
        self.bytes_read += values.nbytes
        return np.asarray(values if self._pick is None else values[self._pick])
