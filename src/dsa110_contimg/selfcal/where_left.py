"""Which part of the data a calibration leaves above the noise: windows, polarisations, antennas, dumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.selfcal.calibration_block import BY_RECEPTOR, parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["WhereLeft", "channels_left", "in_words", "where_left"]

#: Once what stands out is taken away, the rest leaves less than this part of what all data leave beside
#: noise.
REST = 1 / 3
#: Less in excess of the noise is not looked for.
LEAST_EXCESS = 0.1
#: What leaves this part of what is left there, or more, belongs to it.
LIKE_THEM = 0.4
#: What stands out is at most this part of the windows, of the dumps or of the antennas.
MOST_PART, MOST_ANTENNAS = 0.5, 0.25
#: What to look at where antennas stand out.
OF_ANTENNAS = (
    "cabling, position, sign of phases and weights, and, if they are in the middle of the array, whether the "
    "catalogue lacks extended emission"
)
#: Stretches of channels that are named, at most.
MOST_NAMED = 6
#: Axes in the order in which they are told where they explain the same: a window is all its antennas' data.
AXES = ("window", "polarisation", "dump", "antenna")


@dataclass(frozen=True)
class WhereLeft:
    """What of the data stands out.

    Attributes
    ----------
    axis : str
        ``window``, ``polarisation``, ``dump`` or ``antenna``.
    members : tuple of int
        Which, by number on that axis, ascending.
    chi2 : float
        Residual of their visibilities in units of thermal variance.
    chi2_rest : float
        Of all others.
    """

    axis: str
    members: tuple[int, ...]
    chi2: float
    chi2_rest: float


def where_left(
    statistics: BaselineStatistics, gain: Complex, solved: Bool, noise: NoiseScale, misfit: Float
) -> WhereLeft | None:
    """Find the part of the data that holds most of what a calibration leaves beside noise.

    Parameters
    ----------
    statistics : BaselineStatistics
        Of the data against the sky model.
    gain : ndarray of complex128, shape (nspw, ntime, nant, npol)
        Gains by dump.
    solved : ndarray of bool, same shape
        Where there are gains: of baselines without all their data are left.
    noise : NoiseScale
        Noise relative to the weights.
    misfit : ndarray, shape (nant, npol)
        By how much more than that the weights take the variance of each antenna's visibilities to be.

    Returns
    -------
    WhereLeft or None
        Of several axes that which leaves least in the rest. None where no such part does.
    """
    left, count = _residuals(statistics, gain, solved)
    left *= misfit[statistics.antenna1] * misfit[statistics.antenna2]
    found = [
        part
        for axis in AXES
        if (part := _standing_out(axis, left / noise.variance, count, statistics)) is not None
    ]
    # The first of those that are as good but for noise.
    best = min((p.chi2_rest for p in found), default=0.0)
    return next((p for p in found if p.chi2_rest - 1 <= max(1.5 * (best - 1), 0.05)), None)


def _residuals(statistics: BaselineStatistics, gain: Complex, solved: Bool) -> tuple[Float, Float]:
    """Add up ``w |D - s g_i conj(g_j) M|^2`` and count visibilities, shape (nspw, ntime, nbl, npol)."""
    i, j = statistics.antenna1, statistics.antenna2
    both = solved[:, :, i] & solved[:, :, j]
    turn = np.where(both, np.conj(gain[:, :, i]) * gain[:, :, j], 0.0)
    aligned = (turn * statistics.cross.sum(axis=0)).real
    power = np.abs(turn) ** 2 * statistics.model.sum(axis=0)
    total = power.sum(axis=(0, 1, 2))
    # Phases alone leave a scale open.
    factor = np.maximum(aligned.sum(axis=(0, 1, 2)), 0.0) / np.where(total > 0, total, 1.0)
    left = statistics.data.sum(axis=0) - 2 * factor * aligned + factor**2 * power
    return left, statistics.count.sum(axis=0)


def _standing_out(axis: str, left: Float, count: Float, statistics: BaselineStatistics) -> WhereLeft | None:
    """Find what leaves so much on an axis that the rest is nearly noise without it."""
    if axis == "antenna":
        left, count = left.sum(axis=(0, 1, 3)), count.sum(axis=(0, 1, 3))
        return _antennas_taken_away(left, count, statistics.incidence.T > 0)
    number = ("window", "dump", "baseline", "polarisation").index(axis)
    others = tuple(k for k in range(4) if k != number)
    return _taken_away(axis, left.sum(axis=others), count.sum(axis=others))


def _taken_away(axis: str, left: Float, count: Float) -> WhereLeft | None:
    """Take away what leaves most, one after the other, while it belongs to what stands out; (n,) each."""
    chi2 = np.where(count > 0, left / np.maximum(count, 1.0), 0.0)
    excess = left.sum() / max(count.sum(), 1.0) - 1
    order = np.argsort(-chi2, kind="stable")[: int(MOST_PART * left.size)]
    if not excess > LEAST_EXCESS or not order.size:
        return None
    there_left, there_count = np.cumsum(left[order]), np.cumsum(count[order])
    rest_count = count.sum() - there_count
    rest = np.where(rest_count > 0, (left.sum() - there_left) / np.maximum(rest_count, 1.0), np.inf)
    enough = np.flatnonzero(rest - 1 < REST * excess)
    if not enough.size:
        return None
    last = int(enough[0])
    while last + 1 < order.size and np.isfinite(rest[last + 1]):
        there = there_left[last] / there_count[last]
        if chi2[order[last + 1]] - 1 < LIKE_THEM * (there - 1):
            break
        last += 1
    members = tuple(sorted(int(k) for k in order[: last + 1]))
    return WhereLeft(axis, members, float(there_left[last] / there_count[last]), float(rest[last]))


def _antennas_taken_away(left: Float, count: Float, members: Bool) -> WhereLeft | None:
    """Take away antennas, `members` of shape (nant, nbl), each with its baselines, as :func:`_taken_away`."""
    excess = left.sum() / max(count.sum(), 1.0) - 1
    if not excess > LEAST_EXCESS:
        return None
    kept = np.ones(left.size, dtype=bool)
    taken: list[int] = []
    found: WhereLeft | None = None
    while len(taken) < int(MOST_ANTENNAS * len(members)):
        of = np.where(kept & members, count, 0.0).sum(axis=1)
        chi2 = np.where(of > 0, np.where(kept & members, left, 0.0).sum(axis=1) / np.maximum(of, 1.0), 0.0)
        worst = int(np.argmax(chi2))
        if found is not None and chi2[worst] - 1 < LIKE_THEM * (found.chi2 - 1):
            break
        taken.append(worst)
        kept &= ~members[worst]
        if not count[kept].sum() > 0:
            break
        rest = float(left[kept].sum() / count[kept].sum())
        if rest - 1 < REST * excess:
            there = float(left[~kept].sum() / max(count[~kept].sum(), 1.0))
            found = WhereLeft("antenna", tuple(sorted(taken)), there, rest)
    return found


def channels_left(
    data: CalibrationData,
    model: ModelVisibilities,
    weights: DataWeights,
    tables: Sequence[GainTable],
    noise: NoiseScale,
) -> str:
    """Say in which channels most of what a calibration leaves is, in one pass over the data.

    Parameters
    ----------
    data : CalibrationData
        The data.
    model : ModelVisibilities
        Sky model.
    weights : DataWeights
        What the visibilities count for.
    tables : sequence of GainTable
        The calibration.
    noise : NoiseScale
        Noise relative to the weights.

    Returns
    -------
    str
        What was found and what to look at; empty if no channels stand out.
    """
    # By channel and polarisation: power of the data, of the model, and what both have in common.
    own, of_model, aligned, number = np.zeros((4, data.n_channels, 2))
    for piece in data.blocks("look for channels that stand out", weights, model):
        block = piece.block
        vis, weight = parallel_hands(block, *data.corrected(block, piece.weight, tables))
        weight = weights.by_noise(block, weight, BY_RECEPTOR)
        predicted = np.broadcast_to(piece.of_receptors, vis.shape)
        sums = (
            (own, weight * np.abs(vis) ** 2),
            (of_model, weight * np.abs(predicted) ** 2),
            (aligned, weight * (vis * np.conj(predicted)).real),
            (number, weight > 0),
        )
        first = data.first_channel[block.spw.id]
        at = first + (np.arange(block.spw.freq_hz.size) if block.bins is None else block.bins.start)
        # A bin of several channels is told by all of them.
        width = np.ones(at.size, dtype=np.int64) if block.bins is None else block.bins.count
        for total, values in sums:
            of_bins = values.sum(axis=0, dtype=np.float64)
            for k in range(int(width.max())):
                inside = k < width
                total[at[inside] + k] += of_bins[inside]
    # Phases alone leave a scale open.
    power = of_model.sum(axis=0)
    factor = np.maximum(aligned.sum(axis=0), 0.0) / np.where(power > 0, power, 1.0)
    left = (own - 2 * factor * aligned + factor**2 * of_model).sum(axis=1)
    part = _taken_away("channel", left / noise.variance, number.sum(axis=1))
    if part is None:
        return ""
    names = []
    for spw in data.spw_ids:
        first, n = data.first_channel[spw], data.reader.ms.spectral_window(spw).freq_hz.size
        taken = np.isin(np.arange(first, first + n), part.members)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], taken, [False]]).astype(np.int8)))
        for a, b in zip(edges[::2], edges[1::2] - 1, strict=True):
            names.append(f"{spw}:{a}~{b}" if b > a else f"{spw}:{a}")
    listed, more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    if more > 0:
        listed += f" and {more} more"
    return _said(f"channels (window:channel) {listed}", part, "interference, edges of the band and weights")


def _said(where: str, part: WhereLeft, look_at: str) -> str:
    return (
        f"it is in {where} ({part.chi2:.3g} times there, {part.chi2_rest:.3g} in the rest): check {look_at}, "
        "or flag what is wrong"
    )


def in_words(
    part: WhereLeft,
    windows: Sequence[int],
    names: Sequence[str],
    polarisations: Sequence[str],
    dumps: Sequence[str],
) -> str:
    """Say what stands out, and what to look at.

    Parameters
    ----------
    part : WhereLeft
        What was found.
    windows : sequence of int
        Numbers of the spectral windows.
    names : sequence of str
        Antennas.
    polarisations : sequence of str
        Names of the receptors.
    dumps : sequence of str
        When each dump was, as it is to be told.
    """
    of_axis: dict[str, tuple[Sequence[object], str, str, str]] = {
        "window": (windows, "spectral window", "spectral windows", "frequencies, scale and weights"),
        "polarisation": (polarisations, "polarisation", "polarisations", "its signal path and weights"),
        "dump": (dumps, "the dump at", "the dumps at", "interference and the state of the array then"),
        "antenna": (names, "antenna", "antennas", OF_ANTENNAS),
    }
    labels, one, several, look_at = of_axis[part.axis]
    first, last = part.members[0], part.members[-1]
    listed = ", ".join(str(labels[k]) for k in part.members)
    if part.axis == "dump" and 2 < len(part.members) == last - first + 1:
        several, listed = "the dumps", f"from {labels[first]} to {labels[last]}"
    return _said(f"{one if len(part.members) == 1 else several} {listed}", part, look_at)
