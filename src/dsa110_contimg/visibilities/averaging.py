"""Averaging channels baseline by baseline, so that a model of the averages can be exact.

Every bin is the plain mean of the channels that it has data of: the mean of evenly spaced phasors of one
source is known in closed form, a weighted one is not. Which channels those are is kept with the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.visibilities.measurement_set import SpectralWindow

__all__ = [
    "MOST_TURNS",
    "AveragedRows",
    "ChannelBins",
    "PartialBins",
    "add_partial",
    "average_rows",
    "bins_of_window",
    "factor_by_length",
    "factors_of_window",
    "mean_over_bins",
    "single_channels",
    "with_partial",
]

SPEED_OF_LIGHT = 299_792_458.0
#: Turns of a source at the edge of the image over a bin, at most: the mean then loses ``(pi x)^2 / 6`` of it
#: (bandwidth smearing: Bridle & Schwab 1999, ASP Conf. Ser. 180, 371), 3.2 per cent on a baseline that points
#: at the source. Over all baselines and directions it is 1 per cent in the image.
MOST_TURNS = 0.14
#: Delays that are not solved for yet turn the data within a bin too: 10 ns cost 0.15 per cent over 3 MHz.
WIDEST_BIN_HZ = 3e6
#: Flux and size of a source are taken as parabolas in frequency over a bin: what they leave is below 1e-6 of
#: the flux up to this fraction of the frequency.
WIDEST_FRACTION = 2.5e-3
#: Bins that every window keeps where it has so many channels: alternate ones make the halves of
#: cross-validation, and the noise is told from second differences.
FEWEST_BINS = 4
#: Masks of channels are 64 bits wide.
MOST_CHANNELS = 64
#: Part of the sensitivity that the plain mean may lose to the best weighted one.
MOST_WEIGHT_LOSS = 0.03
#: A channel that fewer of the rows have than this part of those that the best channel has is left to itself.
RARELY_THERE = 0.1

Mask = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class PartialBins:
    """Bins of some rows that do not have all of their channels.

    Attributes
    ----------
    row, bin : ndarray of int, shape (n,)
        Which.
    whole : ndarray of float32, shape (n,)
        What the mean over all channels of the bin is to be multiplied with, before the single channels
        below are added: the number of its channels over that of the present ones, or zero.
    of : ndarray of int, shape (m,)
        Which of the n each single channel belongs to, ascending.
    channel : ndarray of int, shape (m,)
        Channel of the window.
    share : ndarray of float32, shape (m,)
        What it counts for: minus one over the number of channels present where it is missing from the
        bin, plus that where the bin is the sum of the channels listed.
    """

    row: Int
    bin: Int
    whole: Single
    of: Int
    channel: Int
    share: Single

    def of_rows(self, rows: Int, n_rows: int) -> PartialBins:
        """Return those of some rows of `n_rows`, numbered as they come in `rows`."""
        place = np.full(n_rows, -1)
        place[rows] = np.arange(rows.size)
        kept = place[self.row] >= 0
        number, single = np.cumsum(kept) - 1, kept[self.of]
        return PartialBins(
            row=place[self.row[kept]],
            bin=self.bin[kept],
            whole=self.whole[kept],
            of=number[self.of[single]],
            channel=self.channel[single],
            share=self.share[single],
        )


@dataclass(frozen=True, eq=False)
class ChannelBins:
    """Which channels the bins of a block are means of.

    Attributes
    ----------
    window : SpectralWindow
        The window at full resolution.
    start, count : ndarray of int, shape (nbin,)
        First channel and number of channels of each bin.
    factor : int
        Most channels of a bin: rows are sorted into blocks by it.
    sparse : bool
        Whether most of the block has no weight: rows whose hands lack different channels, and channels that
        most rows do not have.
    partial : PartialBins or None
        Bins with channels missing.
    """

    window: SpectralWindow
    start: Int
    count: Int
    factor: int
    sparse: bool = False
    partial: PartialBins | None = None

    @property
    def channel_width_hz(self) -> float:
        """Signed distance of neighbouring channels in hertz; zero of a single one."""
        freq = self.window.freq_hz
        return float(freq[-1] - freq[0]) / (freq.size - 1) if freq.size > 1 else 0.0

    def moments(self, values: Float) -> Float:
        """Parabolas through what is given by channel, by least squares over each bin.

        Parameters
        ----------
        values : ndarray, shape (..., nchan)
            For all channels of the window.

        Returns
        -------
        ndarray, shape (3, ..., nbin)
            Mean over the channels j of a bin, and the factors of j, counted from its centre, and of ``j^2``
            less its mean.
        """
        out = np.zeros((3, *values.shape[:-1], self.start.size))
        for count in np.unique(self.count):
            mine = np.flatnonzero(self.count == count)
            j = np.arange(count) - (count - 1) / 2
            of_bins = values[..., self.start[mine][:, None] + np.arange(count)]
            for n, shape in enumerate((np.ones(count), j, j**2 - np.mean(j**2))):
                if n < count:
                    # Not by BLAS, whose threads cost more than so small a product.
                    out[n][..., mine] = np.einsum("...bj,j->...b", of_bins, shape / (shape @ shape))
        return out

    def averaged_window(self) -> SpectralWindow:
        """Return a window of the bins, of the same number, with the parallel hands alone."""
        window = self.window
        spans = [slice(a, a + k) for a, k in zip(self.start, self.count, strict=True)]
        return replace(
            window,
            freq_hz=np.array([window.freq_hz[span].mean() for span in spans]),
            width_hz=np.array([window.width_hz[span].sum() for span in spans]),
            corr_type=tuple(window.corr_type[k] for k in window.parallel),
        )


def factors_of_window(window: SpectralWindow, sub_bands: int = 1) -> tuple[int, ...]:
    """Numbers of channels that may be averaged, ascending from one.

    Parameters
    ----------
    window : SpectralWindow
        The window.
    sub_bands : int
        Parts of it that are to stay apart, each with a bin of its own.

    Returns
    -------
    tuple of int
        Divisors of the number of channels as far as `FEWEST_BINS`, `WIDEST_BIN_HZ` and `WIDEST_FRACTION`
        permit; powers of two where there are hardly any. Only one if channels are not evenly spaced.
    """
    freq, n = window.freq_hz, window.freq_hz.size
    step = np.diff(freq)
    if n < 2 * FEWEST_BINS or step[0] == 0 or not np.allclose(step, step[0], rtol=1e-6, atol=0.0):
        return (1,)
    widest = min(WIDEST_BIN_HZ, WIDEST_FRACTION * float(freq.min()))
    most = min(
        n // max(FEWEST_BINS, sub_bands), int(widest / abs(float(step[0])) * (1 + 1e-6)), MOST_CHANNELS
    )
    divisors = [k for k in range(1, most + 1) if n % k == 0]
    powers = [1 << k for k in range(most.bit_length()) if 1 << k <= most]
    return tuple(divisors if not powers or 2 * divisors[-1] > most else powers) or (1,)


def factor_by_length(
    length_m: Float, window: SpectralWindow, half_width_rad: float, factors: Sequence[int]
) -> Int:
    """Choose for each baseline how many channels are averaged.

    Parameters
    ----------
    length_m : ndarray, shape (nrow,)
        Length in metres, not only as projected: it does not change with time, and bounds all delays.
    window : SpectralWindow
        The window.
    half_width_rad : float
        From the phase centre to the edge of the image.
    factors : sequence of int
        The choices, ascending from one.

    Returns
    -------
    ndarray of int, shape (nrow,)
    """
    if len(factors) == 1:
        return np.ones(len(length_m), dtype=np.int64)
    width = abs(float(window.freq_hz[1] - window.freq_hz[0]))
    turns = length_m * np.sin(min(half_width_rad, np.pi / 2)) * width / SPEED_OF_LIGHT
    chosen = np.ones(len(length_m), dtype=np.int64)
    for factor in factors[1:]:
        chosen[factor * turns <= MOST_TURNS] = factor
    return chosen


def single_channels(
    window: SpectralWindow, channels: Int | None = None, *, sparse: bool = False
) -> ChannelBins:
    """Bins of one channel each: of all, or of some."""
    start = np.arange(window.freq_hz.size) if channels is None else channels
    return ChannelBins(window, start, np.ones(start.size, dtype=np.int64), 1, sparse)


def bins_of_window(
    window: SpectralWindow, factor: int, present: Float, weight: Float, sub_bands: int = 1
) -> tuple[ChannelBins, Int]:
    """Divide a window into bins.

    Bins do not reach over the edges of sub-bands, nor over channels that hardly any row has, and are halved
    where their channels differ so much in weight that the plain mean would cost more than
    `MOST_WEIGHT_LOSS`: the edges of a bandpass.

    Parameters
    ----------
    window : SpectralWindow
        The window.
    factor : int
        Most channels of a bin.
    present : ndarray, shape (nchan,)
        Number of visibilities of each channel that have weight.
    weight : ndarray, shape (nchan,)
        Their mean weight.
    sub_bands : int
        Parts of the window that stay apart.

    Returns
    -------
    bins : ChannelBins
        Without the channels left over.
    left_over : ndarray of int
        Channels that hardly any row has.
    """
    n = window.freq_hz.size
    usual = present > RARELY_THERE * present.max() if present.any() else np.ones(n, dtype=bool)
    spans: list[tuple[int, int]] = []
    for first, last in pairwise(k * n // sub_bands for k in range(sub_bands + 1)):
        for start, end in _runs(usual, first, last):
            parts = -(-(end - start) // factor)
            edges = [start + k * (end - start) // parts for k in range(parts + 1)]
            for a, b in pairwise(edges):
                spans.extend(_halved(a, b, weight))
    bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return ChannelBins(window, bounds[:, 0], bounds[:, 1] - bounds[:, 0], factor), np.flatnonzero(~usual)


def _runs(usual: Bool, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Stretches of usual channels between two channels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usual[first:last], [False]]).astype(np.int8)))
    yield from ((first + int(a), first + int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _halved(start: int, end: int, weight: Float) -> list[tuple[int, int]]:
    """One bin, or several where the weights within it differ much."""
    w = weight[start:end]
    if end - start < 2 or not (w > 0).all():
        return [(start, end)]
    if (end - start) ** 2 >= (1 - MOST_WEIGHT_LOSS) * w.sum() * (1 / w).sum():
        return [(start, end)]
    middle = (start + end) // 2
    return [*_halved(start, middle, weight), *_halved(middle, end, weight)]


@dataclass(frozen=True, eq=False)
class AveragedRows:
    """Rows averaged over bins.

    Attributes
    ----------
    row : ndarray of int, shape (n,)
        Which rows of the block they are.
    vis, weight : ndarray of complex64 and float32, shape (n, nbin, npol)
        Plain means and their inverse variances, ``k^2 / sum 1 / w``.
    mask : ndarray of uint64, shape (n, nbin)
        Channels of each bin that the mean is of, the first at bit zero; all where there is no weight.
    """

    row: Int
    vis: Vis
    weight: Weight
    mask: Mask


def average_rows(vis: Vis, weight: Weight, rows: Int, bins: ChannelBins) -> list[AveragedRows]:
    """Average channels.

    Parameters
    ----------
    vis : ndarray of complex64, shape (nrow, nchan, npol)
        Visibilities of the parallel hands.
    weight : ndarray of float32, same shape
        Inverse variances, zero where there is no data.
    rows : ndarray of int, shape (n,)
        Which rows.
    bins : ChannelBins
        Of at most 64 channels each.

    Returns
    -------
    list of AveragedRows
        All rows; and once more, with the second hand alone, those of which some bins lack other channels
        in one hand than in the other: a model of both is of one set of channels.
    """
    shape = (rows.size, bins.start.size, vis.shape[2])
    mean, total = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    mask = np.zeros(shape, np.uint64)
    _average(
        np.ascontiguousarray(vis),
        np.ascontiguousarray(weight),
        rows,
        bins.start,
        bins.count,
        mean,
        total,
        mask,
    )
    everything = _all_channels(bins.count)
    common = mask[:, :, 0]
    second: list[AveragedRows] = []
    if shape[2] == 2:
        other = mask[:, :, 1]
        apart = (common != other) & (common != 0) & (other != 0)
        again = np.flatnonzero(apart.any(axis=1))
        if again.size:
            alone = np.zeros((again.size, *shape[1:]), np.float32)
            alone[:, :, 1] = np.where(apart[again], total[again][:, :, 1], 0)
            of = np.where(apart[again], other[again], everything)
            second.append(AveragedRows(rows[again], mean[again], alone, of))
            total[:, :, 1][apart] = 0
        common = np.where(common == 0, other, common)
    common = np.where(common == 0, everything, common)
    return [AveragedRows(rows, mean, total, common), *second]


def _all_channels(count: Int) -> Mask:
    """Masks of bins that have all their channels, shape (nbin,)."""
    return np.array([(1 << int(k)) - 1 for k in count], dtype=np.uint64)


def partial_bins(mask: Mask, count: Int) -> PartialBins | None:
    """List what is needed to model bins that lack channels; `mask` as of :class:`AveragedRows`.

    Channels are counted from the first of their bin: see :func:`placed`.
    """
    row, which = np.nonzero(mask != _all_channels(count))
    if row.size == 0:
        return None
    size = count[which]
    bits = np.arange(int(count.max()), dtype=np.uint64)
    there = (mask[row, which][:, None] >> bits) & np.uint64(1) > 0
    inside = bits.astype(np.int64) < size[:, None]
    n = np.count_nonzero(there, axis=1)
    # Whichever are fewer: the missing ones, to be taken out of the mean of all, or the present ones.
    missing = 2 * n > size
    of, channel = np.nonzero(inside & (there != missing[:, None]))
    return PartialBins(
        row=row,
        bin=which,
        whole=np.where(missing, size / n, 0).astype(np.float32),
        of=of,
        channel=channel,
        share=np.where(missing, -1 / n, 1 / n).astype(np.float32)[of],
    )


def with_partial(bins: ChannelBins, mask: Mask) -> ChannelBins:
    """Bins of a block whose rows are means of the channels in `mask`, shape (nrow, nbin)."""
    partial = partial_bins(mask, bins.count)
    if partial is not None:
        first = bins.start[partial.bin][partial.of]
        partial = replace(partial, channel=first + partial.channel)
    return replace(bins, partial=partial)


def mean_over_bins(vis: Vis, bins: ChannelBins) -> Vis:
    """Average a model at full resolution exactly as the data of a block were.

    Parameters
    ----------
    vis : ndarray of complex64, shape (nrow, nchan)
        Model of the block's rows in all channels of the window.
    bins : ChannelBins
        Of the block.

    Returns
    -------
    ndarray of complex64, shape (nrow, nbin)
    """
    out = np.empty((len(vis), bins.start.size), dtype=np.complex64)
    for k, (start, count) in enumerate(zip(bins.start, bins.count, strict=True)):
        out[:, k] = vis[:, start : start + count].mean(axis=1, dtype=np.complex128)
    add_partial(out, bins.partial, lambda row, channel: vis[row, channel])
    return out


def add_partial(mean: Vis, partial: PartialBins | None, single: Callable[[Int, Int], Vis]) -> None:
    """Make means over all channels those of the channels present, in place.

    Parameters
    ----------
    mean : ndarray of complex64, shape (nrow, nbin)
        Model, mean over all channels of each bin.
    partial : PartialBins or None
        Bins that lack some.
    single : callable
        Gives the model of rows and channels, shape (m,) each.
    """
    if partial is None:
        return
    change = partial.share * single(partial.row[partial.of], partial.channel).astype(np.complex128)
    n = partial.row.size
    total = np.bincount(partial.of, change.real, n) + 1j * np.bincount(partial.of, change.imag, n)
    mean[partial.row, partial.bin] = mean[partial.row, partial.bin] * partial.whole + total


@numba.njit(parallel=True, cache=True)
def _average(
    vis: Vis, weight: Weight, rows: Int, start: Int, count: Int, mean: Vis, total: Weight, mask: Mask
) -> None:
    for i in numba.prange(rows.size):
        r = rows[i]
        for b in range(start.size):
            for p in range(vis.shape[2]):
                value, variance, n, bits = 0.0 + 0.0j, 0.0, 0, np.uint64(0)
                for c in range(count[b]):
                    w = np.float64(weight[r, start[b] + c, p])
                    if w > 0:
                        value += np.complex128(vis[r, start[b] + c, p])
                        variance += 1.0 / w
                        n += 1
                        bits |= np.uint64(1) << np.uint64(c)
                if n > 0:
                    mean[i, b, p] = value / n
                    total[i, b, p] = n * n / variance
                    mask[i, b, p] = bits
