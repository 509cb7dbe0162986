"""Thermal noise from the data themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.visibilities.reader import Block, VisibilityReader
from dsa110_contimg.visibilities.rephase import turn_phases

__all__ = [
    "AntennaNoise",
    "BoundsEstimator",
    "NoiseBounds",
    "NoiseEstimator",
    "NoiseScale",
    "dumps_tell_antennas",
    "sefd_jy",
]

#: Samples kept per block for the median, at most and at least, and in all blocks together: of 200,000 alone
#: the variance is known to 0.3 %.
SAMPLES_PER_BLOCK, LEAST_PER_BLOCK, SAMPLES_IN_ALL = 200_000, 30_000, 12_000_000
#: Noise exceeds this many times its mean square in three samples of ten million.
OUTLIER = 15.0
#: Samples kept in all; beyond, every second one is dropped.
MOST_SAMPLES = 4_000_000
#: Factors of the differences of so many terms.
_DIFFERENCES = {1: (1.0,), 2: (1.0, -1.0), 3: (1.0, -2.0, 1.0), 4: (1.0, -3.0, 3.0, -1.0)}
#: So many overlapping differences of so many terms are worth one: one plus twice the sum of the squared
#: correlations of neighbours.
_SHARED = {1: 1.0, 2: 1.5, 3: 1.94, 4: 2.31}
#: Bounds of the noise, the one to start with first.
BOUNDS = ("channels", "polarizations", "dumps", "zero")
#: Relative error of the median of n exponential samples, times sqrt(n): its variance is 1 / (4 n f^2) with
#: the density f = 1/2 at the median ln 2 (Kendall & Stuart, The Advanced Theory of Statistics, 10.10).
MEDIAN_ERROR = 1 / math.log(2.0)
#: Standard errors by which a bound must lie below another one to take its place.
SIGNIFICANT = 2.0
#: Of fewer dumps in a row the differences leave too much of the sky to tell the antennas' noise.
FEWEST_DUMPS = 4
#: Differences over dumps are of the shortest part of the baselines, on which a sky turns slowest.
SLOW = 1 / 3
#: Dumps further apart than this many of their lengths are no neighbours.
LONGEST_GAP = 1.5
#: Hands that differ by less than this fraction of their power are copies of each other, rounded.
COPIES = 1e-10
#: System equivalent flux density of an antenna in jansky, by telescope. DSA-110: 2 k T / (eta A) of 26 K on a
#: dish of 4.65 m with an efficiency of 0.65. VLA at 1.4 GHz: 35 K, 25 m and 0.55 (VLA Observational Status
#: Summary 2009, table 5, www.vla.nrao.edu/astro/guides/vlas/current/node11.html).
KNOWN_SEFD_JY = {
    "DSA_110": 6500.0,
    "DSA-110": 6500.0,
    "DSA110": 6500.0,
    "OVRO_MMA": 6500.0,
    "VLA": 360.0,
    "EVLA": 360.0,
}


@dataclass(frozen=True, order=True)
class NoiseScale:
    """Noise relative to the weights, in one unit everywhere.

    Attributes
    ----------
    variance : float
        Variance of a complex visibility, real plus imaginary part, times its weight: jansky squared
        where weights are pure numbers; not a number where nothing was measured.
    """

    variance: float

    @classmethod
    def of_real_part(cls, rms: float) -> NoiseScale:
        """Make it from the rms of the real part at unit weight."""
        return cls(2.0 * rms * rms)

    @property
    def rms(self) -> float:
        """Standard deviation of the real (or imaginary) part at unit weight."""
        return math.sqrt(self.variance / 2.0)

    @property
    def known(self) -> bool:
        """Whether it is a positive, finite number."""
        return 0.0 < self.variance < math.inf


#: What was not measured.
UNKNOWN = NoiseScale(math.nan)


@dataclass(frozen=True)
class NoiseBounds:
    """Upper bounds of the noise from differences that do not see the same of the sky.

    Each is an estimate of the variance of a complex visibility times its weight, and each has in it what its
    difference leaves of sky and calibration: the lowest is nearest to the truth.

    Attributes
    ----------
    channels : NoiseScale
        Of second differences over channels (first ones of two channels): what is not linear over channels is
        left, so the sky of wide channels and delays.
    polarizations : NoiseScale
        Of the difference of the two parallel hands of a row and channel: an unpolarised sky cancels, and
        what its model lacks; gains of one hand alone are left.
    dumps : NoiseScale
        Of third differences over dumps about one phase centre, of lower ones where fewer follow each other,
        on the shortest baselines: what turns quickly is left.
    zero : NoiseScale
        Of visibilities of single channels themselves: all of the sky is left. Only if there is nothing else.
    samples : tuple of float
        Independent differences in each of the four.
    radiometer : NoiseScale
        What the radiometer equation gives for the telescope, to check by; it holds only for weights of data
        in jansky. Not a number for an unknown telescope.
    """

    channels: NoiseScale = UNKNOWN
    polarizations: NoiseScale = UNKNOWN
    dumps: NoiseScale = UNKNOWN
    zero: NoiseScale = UNKNOWN
    samples: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    radiometer: NoiseScale = UNKNOWN

    @property
    def taken(self) -> str:
        """Name of the bound that is taken: the lowest beyond doubt; empty if nothing is known.

        The smallest of several estimates is too small where they scatter: one counts only if it lies below
        every one of more samples by `SIGNIFICANT` standard errors.
        """
        counts = dict(zip(BOUNDS, self.samples, strict=True))
        known = [name for name in BOUNDS if getattr(self, name).known]
        differences = [name for name in known if name != "zero"]
        if not differences:
            return known[0] if known else ""
        differences.sort(key=lambda name: -counts[name])
        below_all_before = [
            name
            for k, name in enumerate(differences)
            if all(
                _surely_below(getattr(self, name), counts[name], getattr(self, other), counts[other])
                for other in differences[:k]
            )
        ]
        return below_all_before[-1]

    def with_channels_of(self, other: NoiseBounds) -> NoiseBounds:
        """Take the bound of channels from elsewhere, where it is lower beyond doubt or the only one.

        Parameters
        ----------
        other : NoiseBounds
            Of the same data in narrower channels, which hold less of sky and delays.
        """
        here, there = self.samples[0], other.samples[0]
        if not (other.channels.known and there):
            return self
        if self.channels.known and here and not _surely_below(other.channels, there, self.channels, here):
            return self
        return replace(self, channels=other.channels, samples=(there, *self.samples[1:]))

    @property
    def lowest(self) -> NoiseScale:
        """The bound that is taken; not a number if nothing is known."""
        return getattr(self, self.taken) if self.taken else UNKNOWN


def _surely_below(lower: NoiseScale, n_lower: float, upper: NoiseScale, n_upper: float) -> bool:
    """Whether an estimate from so many samples lies below another by `SIGNIFICANT` standard errors."""
    error = MEDIAN_ERROR * math.hypot(1 / math.sqrt(n_lower), 1 / math.sqrt(n_upper))
    return math.log(lower.variance / upper.variance) < -SIGNIFICANT * error


def _samples_per_block(n_blocks: int) -> int:
    """Return how many samples to keep of each of so many blocks."""
    return min(max(SAMPLES_IN_ALL // max(n_blocks, 1), LEAST_PER_BLOCK), SAMPLES_PER_BLOCK)


class _Samples:
    """Samples ``w_d |d|^2``, exponentially distributed; thinned out where they are too many."""

    def __init__(self) -> None:
        self._parts: list[Single] = []
        self._stride = 1
        self._size = 0

    def add(self, samples: Single) -> None:
        part = samples[:: self._stride]
        self._parts.append(part)
        self._size += part.size
        while self._size > MOST_SAMPLES:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._stride, self._size = 2 * self._stride, self._parts[0].size

    @property
    def size(self) -> int:
        return self._size

    @property
    def variance(self) -> float:
        """Their mean by their median, without outliers; not a number without any."""
        if not self._size:
            return math.nan
        samples = np.sort(np.concatenate(self._parts))
        found, within = 0.0, samples.size
        for _ in range(6):
            found = float(samples[(within - 1) // 2] + samples[within // 2]) / 2 / math.log(2.0)
            within = int(np.searchsorted(samples, OUTLIER * found, side="right"))
        return found


class NoiseEstimator:
    """Scale of the noise relative to the weights, by differences of adjacent channels.

    With weights w the variance of a complex visibility (real plus imaginary
    part) is taken as ``scale2 / w``. A second difference of three channels,
    ``d = v[c-1] - 2 v[c] + v[c+1]``, removes constant and linear structure of
    the sky along frequency; ``w_d |d|^2`` with ``1/w_d = 1/w[c-1] + 4/w[c] +
    1/w[c+1]`` is then exponentially distributed with mean `scale2`, and its
    median is ``scale2 ln 2``. Differences far beyond what noise can reach are
    interference and are left out. Two channels give first differences; a
    single channel gives differences of the visibilities from zero, an upper
    limit.

    Parameters
    ----------
    n_blocks : int
        How many blocks there will be: of many, fewer samples are kept of each.
    """

    def __init__(self, n_blocks: int = 1) -> None:
        self._per_block = _samples_per_block(n_blocks)
        self._samples = _Samples()
        self._rng = np.random.default_rng(20)

    def add(self, vis: Vis, weight: Weight) -> None:
        """Take in one block.

        Parameters
        ----------
        vis : ndarray of complex64, shape (nrow, nchan, npol)
            Visibilities, best with a model subtracted.
        weight : ndarray of float32, shape (nrow, nchan, npol)
            Weights, zero where flagged.
        """
        fraction = vis.size / self._per_block
        if fraction > 1:
            chosen = self._rng.choice(len(vis), max(1, int(len(vis) / fraction)), replace=False)
            vis, weight = vis[chosen], weight[chosen]
        self._samples.add(_over_channels(vis, weight)[1])

    @property
    def scale(self) -> NoiseScale:
        """Noise relative to the weights; its variance is not a number without data."""
        return NoiseScale(self.scale2)

    @property
    def independent(self) -> float:
        """Independent differences it is of."""
        return self._samples.size / _SHARED[3]

    @property
    def scale2(self) -> float:
        """Variance of a complex visibility times its weight; NaN without data."""
        return self._samples.variance


class BoundsEstimator:
    """Measures :class:`NoiseBounds` block by block, in the order of a reader.

    Parameters
    ----------
    reader : VisibilityReader
        Whose blocks these are: times of the dumps, common phase centre, telescope.
    n_blocks : int
        How many blocks there will be: of many, fewer samples are kept of each.

    Attributes
    ----------
    antennas : AntennaNoise
        Noise of each antenna by the same differences over dumps.
    """

    def __init__(self, reader: VisibilityReader, n_blocks: int = 1) -> None:
        self._reader = reader
        self._per_block = _samples_per_block(n_blocks)
        self.antennas = AntennaNoise(len(reader.ms.antennas))
        self._rng = np.random.default_rng(20)
        self._samples = {name: _Samples() for name in BOUNDS}
        n = len(reader.ms.antennas)
        # The same baselines in all dumps, so that they can be compared.
        self._draw = self._rng.random(n * n)
        # By window, and by its channels: bins of several widths are side by side.
        self._held: dict[tuple[int, bytes], _Rows] = {}
        lengths = reader.length_quantiles_m
        self._short_m = float(np.interp(SLOW, np.linspace(0, 1, lengths.size), lengths))
        self._dumps = _DIFFERENCES[min(max(_most_in_a_row(reader), 2), 4)]
        self._sefd_jy = sefd_jy(reader.ms.telescope)
        self._power = self._overlap = 0.0
        # Weight over the inverse variance of the radiometer equation, and of how many visibilities.
        self._expected: list[tuple[float, float]] = []

    def add(self, block: Block, vis: Vis, weight: Weight, chosen: Bool | None = None) -> None:
        """Take in one block.

        Parameters
        ----------
        block : Block
            The block.
        vis : ndarray of complex64, shape (nrow, nchan, 2)
            Its calibrated parallel hands, best with a model subtracted.
        weight : ndarray of float32, same shape
            Weights, zero where flagged.
        chosen : ndarray of bool, shape (nrow,), optional
            Rows to look at; all by default.
        """
        rows = np.arange(len(vis)) if chosen is None else np.flatnonzero(chosen)
        if rows.size == 0:
            return
        fraction = self._per_block / (rows.size * vis.shape[1] * vis.shape[2])
        some = rows
        if fraction < 1:
            some = self._rng.choice(rows, max(1, int(rows.size * fraction)), replace=False)
        v, w = vis[some], weight[some]
        differenced, found = _over_channels(v, w)
        self._samples["channels" if differenced else "zero"].add(found)
        self._overlap = max(self._overlap, float(differenced > 1))
        hands, _ = _standardised(_DIFFERENCES[2], [v[..., 0], v[..., 1]], [w[..., 0], w[..., 1]])
        self._samples["polarizations"].add(hands)
        used = w > 0
        if used.any():
            self._power = max(self._power, float(np.median((w * np.abs(v) ** 2)[used])))
        self._samples["dumps"].add(self._over_dumps(block, vis, weight, rows, fraction))
        seconds = self._reader.interval_s[block.time_index[some]]
        inverse = 2 * block.spw.width_hz * seconds[:, None] / self._sefd_jy**2
        if used.any() and not math.isnan(self._sefd_jy):
            # What is sampled stands for all.
            share = float(used.sum()) * rows.size / some.size
            self._expected.append((float(np.median((w / inverse[:, :, None])[used])), share))

    @property
    def bounds(self) -> NoiseBounds:
        """What was measured."""
        scale = {name: NoiseScale(samples.variance) for name, samples in self._samples.items()}
        if scale["polarizations"].variance < COPIES * self._power:
            scale["polarizations"] = UNKNOWN
        # The first differences of two channels do not overlap.
        shared = {"channels": _SHARED[3] if self._overlap else 1.0, "dumps": _SHARED[len(self._dumps)]}
        counts = [self._samples[name].size / shared.get(name, 1.0) for name in BOUNDS]
        weight, share = np.reshape(self._expected, (-1, 2)).T
        return NoiseBounds(
            **scale,
            samples=(counts[0], counts[1], counts[2], counts[3]),
            # Of the median visibility: weights by measured noise differ from antenna to antenna.
            radiometer=NoiseScale(2 * float(np.average(weight, weights=share))) if weight.size else UNKNOWN,
        )

    def _over_dumps(self, block: Block, vis: Vis, weight: Weight, rows: Int, fraction: float) -> Single:
        """Differences of neighbouring dumps; the last dumps of each baseline are held for the next block."""
        reader, n, factors = self._reader, len(self._reader.ms.antennas), self._dumps
        low = np.minimum(block.antenna1[rows], block.antenna2[rows])
        baseline = low * n + np.maximum(block.antenna1[rows], block.antenna2[rows])
        draw = self._draw[baseline]
        some = draw <= max(fraction, float(draw.min()))
        rows, baseline = rows[some], baseline[some]
        _, path = reader.moved(block.uvw_m[rows], block.field_id, reader.phase_center)
        turned = turn_phases(vis[rows], path, block.spw.freq_hz) if path.any() else vis[rows]
        swapped = block.antenna1[rows] > block.antenna2[rows]
        turned = np.where(swapped[:, None, None], np.conj(turned), turned)
        short = np.sqrt((block.uvw_m[rows] ** 2).sum(axis=1)) <= self._short_m
        here, held = _Rows(baseline, block.time_index[rows], turned, weight[rows], short), 0
        channels = (block.spw.id, block.spw.freq_hz.tobytes())
        if channels in self._held:
            held = self._held[channels].baseline.size
            here = self._held[channels].joined(here)
        order = np.lexsort((here.time_index, here.baseline))
        gap = np.diff(reader.times[here.time_index[order]])
        follows = (np.diff(here.baseline[order]) == 0) & (gap > 0)
        follows &= gap <= LONGEST_GAP * np.median(reader.interval_s)
        width = len(factors) - 1
        # Rows at the end of as many as a difference takes, the last of which was not there before.
        complete = order[width:] >= held
        for k in range(width):
            complete &= follows[k : follows.size - width + 1 + k]
        ends = np.flatnonzero(complete) + width
        last = np.ones(order.size, dtype=bool)
        last[:-width] = here.baseline[order][width:] != here.baseline[order][:-width]
        self._held[channels] = here.at(order[last])
        terms = [order[ends - width + k] for k in range(width + 1)]
        found, usable = _standardised(factors, [here.vis[k] for k in terms], [here.weight[k] for k in terms])
        row, _, hand = np.nonzero(usable)
        first, second = np.divmod(here.baseline[order[ends]][row], n)
        self.antennas.add_samples(found, first, second, hand)
        return np.asarray(found[here.short[order[ends]][row]])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows about one phase centre, antenna 1 the lower; first axis nrow each."""

    baseline: Int
    time_index: Int
    vis: Vis
    weight: Weight
    short: Bool

    def at(self, chosen: Int) -> _Rows:
        return _Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def joined(self, other: _Rows) -> _Rows:
        both = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return _Rows(*(np.concatenate(pair) for pair in both))


def dumps_tell_antennas(reader: VisibilityReader) -> bool:
    """Whether enough dumps follow each other that their differences leave little of the sky."""
    return _most_in_a_row(reader) >= FEWEST_DUMPS


def _most_in_a_row(reader: VisibilityReader) -> int:
    """Count the dumps of the longest run without a gap."""
    gaps = np.diff(reader.times) > LONGEST_GAP * np.median(reader.interval_s)
    ends = np.concatenate([[-1], np.flatnonzero(gaps), [reader.times.size - 1]])
    return int(np.diff(ends).max())


def _standardised(
    factors: Sequence[float], vis: Sequence[Vis], weight: Sequence[Weight]
) -> tuple[Single, Bool]:
    """Power of a sum of visibilities times factors over the variance by their weights; where there is one."""
    usable = np.logical_and.reduce([w > 0 for w in weight])
    total = np.zeros(usable.sum(), dtype=np.complex64)
    variance = np.zeros(total.shape, dtype=np.float32)
    for factor, v, w in zip(factors, vis, weight, strict=True):
        total += np.complex64(factor) * v[usable]
        variance += np.float32(factor**2) / w[usable]
    return np.asarray(np.abs(total) ** 2 / variance, dtype=np.float32), usable


def _over_channels(vis: Vis, weight: Weight) -> tuple[int, Single]:
    """Order of the differences over channels, 0 of a single one, and their standardised powers."""
    # Channels that are flagged altogether are stepped over: their neighbours are adjacent then.
    used = np.flatnonzero((weight > 0).any(axis=(0, 2)))
    if used.size == 0:
        return 0, np.zeros(0, dtype=np.float32)
    if used.size < vis.shape[1]:
        vis, weight = vis[:, used], weight[:, used]
    factors = _DIFFERENCES[min(used.size, 3)]
    parts = [slice(k, used.size - len(factors) + 1 + k) for k in range(len(factors))]
    found, _ = _standardised(factors, [vis[:, p] for p in parts], [weight[:, p] for p in parts])
    return len(factors) - 1, found


def sefd_jy(telescope: str) -> float:
    """System equivalent flux density of an antenna in jansky, by the telescope's name; NaN if unknown."""
    return KNOWN_SEFD_JY.get(telescope.strip().upper(), math.nan)


class AntennaNoise:
    """Noise of each antenna over what its weights say, by differences that leave little of the sky.

    Noise powers of two receivers multiply: the variance of the baseline (i, j) is taken as f_i f_j times that
    of its weight. The factors are those of the mean logarithms, which interference in some of the data hardly
    moves, by least squares over all baselines.

    Parameters
    ----------
    n_antennas : int
        Antennas.
    n_blocks : int
        How many blocks there will be: of many, fewer samples are taken of each.
    """

    def __init__(self, n_antennas: int, n_blocks: int = 1) -> None:
        self._per_block = _samples_per_block(n_blocks)
        self._log_power = np.zeros((n_antennas, n_antennas, 2))
        self._count = np.zeros((n_antennas, n_antennas, 2))
        self._rng = np.random.default_rng(20)

    def add(
        self,
        vis: Vis,
        weight: Weight,
        antenna1: Int,
        antenna2: Int,
    ) -> None:
        """Take in differences of adjacent channels of a block, or of some of its rows.

        Parameters
        ----------
        vis : ndarray of complex64, shape (nrow, nchan, 2)
            Visibilities with a model subtracted; nothing is learnt of a single channel.
        weight : ndarray of float32, same shape
            Weights, zero where flagged or far out.
        antenna1, antenna2 : ndarray of int, shape (nrow,)
            Antennas.
        """
        fraction = vis.size / self._per_block
        if fraction > 1:
            some = self._rng.choice(len(vis), max(1, int(len(vis) / fraction)), replace=False)
            vis, weight, antenna1, antenna2 = vis[some], weight[some], antenna1[some], antenna2[some]
        parts = (slice(None, -1), slice(1, None))
        found, usable = _standardised(
            _DIFFERENCES[2], [vis[:, k] for k in parts], [weight[:, k] for k in parts]
        )
        row, _, hand = np.nonzero(usable)
        low, high = np.minimum(antenna1, antenna2), np.maximum(antenna1, antenna2)
        self.add_samples(found, low[row], high[row], hand)

    def add_samples(self, power: Single, antenna1: Int, antenna2: Int, hand: Int) -> None:
        """Take in powers of differences over the variance that their weights give them.

        Parameters
        ----------
        power : ndarray of float32, shape (n,)
            Powers.
        antenna1, antenna2 : ndarray of int, shape (n,)
            Antennas, the lower first.
        hand : ndarray of int, shape (n,)
            Receptor, 0 or 1.
        """
        place = (antenna1 * len(self._count) + antenna2) * 2 + hand
        known = power > 0
        if not known.all():
            power, place = power[known], place[known]
        for total, values in ((self._log_power, np.log(power)), (self._count, None)):
            total += np.bincount(place, values, minlength=total.size).reshape(total.shape)

    def seen(self) -> Bool:
        """Antennas and polarisations that anything was added of, shape (nant, 2)."""
        return np.asarray((self._count.sum(axis=0) + self._count.sum(axis=1)) > 0)

    def factors(self) -> Float:
        """Variance of each antenna and receptor over the median one's, shape (nant, 2); 1 if unknown.

        The median is that of both receptors together: one kind may be noisier than the other everywhere.
        """
        n = len(self._count)
        log = np.full((n, 2), np.nan)
        for p in range(2):
            first, second = np.nonzero(self._count[:, :, p])
            if first.size < n:
                continue
            design = np.zeros((first.size, n))
            design[np.arange(first.size), first] = design[np.arange(first.size), second] = 1
            value = self._log_power[first, second, p] / self._count[first, second, p]
            known = design.any(axis=0)
            # All have the same bias, the mean logarithm of an exponential distribution: half of it each.
            log[known, p] = np.linalg.lstsq(design[:, known], value, rcond=None)[0]
        if np.isnan(log).all():
            return np.ones((n, 2))
        return np.where(np.isnan(log), 1.0, np.exp(log - np.nanmedian(log)))
