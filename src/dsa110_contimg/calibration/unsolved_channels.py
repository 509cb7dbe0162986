"""Channels of the data for which an initial bandpass table has no solution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.gains import GainTable

__all__ = ["UnsolvedChannels", "unsolved_channels"]


@dataclass(frozen=True)
class UnsolvedChannels:
    """What a bandpass table does not say of antennas that it has solutions for.

    Attributes
    ----------
    table : str
        Name of the table.
    beyond : float
        Fraction of their channels beyond the outermost solution: these data have no weight.
    between : float
        Fraction of their channels between solutions, over which gains are interpolated.
    channels : mapping of str to tuple of int
        Channels that most antennas have no solution for at an edge of the band, in words, and the windows
        of the data in which they are so.
    """

    table: str
    beyond: float
    between: float
    channels: Mapping[str, tuple[int, ...]]

    def text(self) -> str:
        """Say it in a line."""
        where = "; ".join(f"{channels} (window {_ranges(spws)})" for channels, spws in self.channels.items())
        text = (
            f"the bandpass table {self.table} has no solutions at the edges of the band: "
            f"{_percent(self.beyond)} of the channels are left out{f', {where}' if where else ''}"
        )
        if self.between:
            text += f"; over gaps between solutions, {_percent(self.between)}, it is interpolated"
        return f"{text} (applycal of CASA does so with interp linearflag; else it carries the outermost over)"


def unsolved_channels(
    table: GainTable, channels_hz: Mapping[int, Float], time_s: float
) -> UnsolvedChannels | None:
    """Look for channels of the data that a bandpass table has no solution for.

    Parameters
    ----------
    table : GainTable
        An initial table.
    channels_hz : mapping of int to ndarray, shape (nchan,)
        Channels of the data by spectral window, hertz.
    time_s : float
        Middle of the observation, seconds (MJD UTC).

    Returns
    -------
    UnsolvedChannels or None
        None of a table that does not depend on frequency, or that says something of all channels.
    """
    if table.kind != "B Jones":
        return None
    beyond = between = total = 0
    found: dict[str, tuple[int, ...]] = {}
    for spw, freq in channels_hz.items():
        _, flag = table.evaluate(spw, np.array([time_s]), freq)
        flag = flag[0].transpose(1, 0, 2).reshape(len(freq), -1)
        solved = ~flag.all(axis=0)
        if not solved.any():
            continue
        out = flag[:, solved]
        beyond += int(np.count_nonzero(out))
        between += int(np.count_nonzero(_unsolved(table, spw, freq)[:, solved] & ~out))
        total += out.size
        most = np.flatnonzero(out.mean(axis=1) > 0.5)
        if most.size:
            words = f"channels {_ranges(most.tolist())} of {len(freq)}"
            found[words] = (*found.get(words, ()), spw)
    if not beyond:
        return None
    return UnsolvedChannels(Path(table.label).name, beyond / total, between / total, found)


def _unsolved(table: GainTable, spw: int, freq_hz: Float) -> Bool:
    """Where the nearest channel of a table has a solution at no time, shape (nchan, nant * npol)."""
    gains = table.for_spw(spw)
    nearest = np.abs(freq_hz[:, None] - gains.freq_hz).argmin(axis=1)
    flag: Bool = np.all(gains.flag, axis=0)
    return flag[:, nearest, :].transpose(1, 0, 2).reshape(len(freq_hz), -1)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %"


def _ranges(numbers: list[int] | tuple[int, ...]) -> str:
    """Name numbers that ascend by their runs: ``0-2, 5``."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
