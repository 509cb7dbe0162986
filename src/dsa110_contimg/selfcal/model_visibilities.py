"""Sky models whose visibilities can be predicted: components, and images of clean components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Image, Int, Single, Vis
from dsa110_contimg.imaging import ImageGrid, degrid
from dsa110_contimg.predict import (
    predict_averaged,
    predict_components,
    predict_own_beams,
    predict_samples,
)
from dsa110_contimg.sky import AntennaBeams, ApparentSky, MixedBeam, radec_from_lm
from dsa110_contimg.sky.apparent_sky import joined
from dsa110_contimg.visibilities import (
    Block,
    ChannelBins,
    SpectralWindow,
    VisibilityReader,
    mean_over_bins,
    turn_phases,
)
from dsa110_contimg.visibilities.averaging import add_partial

__all__ = ["BeamGradient", "ImageVisibilities", "ModelVisibilities", "SkyVisibilities", "leading"]

#: Frequencies per window at which apparent fluxes are computed, at least, and what the polynomial through
#: them may be off by elsewhere, in units of the summed flux.
FEWEST_NODES, INTERPOLATION = 4, 1e-8
#: Fraction of the power of the differences between beams that may be left out: as many sources do not matter.
#: Dishes that differ in size differ by more than those that point off, and for all sources.
NEGLECTED, NEGLECTED_OF_DISHES = 1e-3, 1e-5
#: Voltage patterns of sources are held for so many bytes at a time.
PATTERN_BYTES = 32_000_000
#: A beam is displaced by this for its gradient, radians: a thousandth of the width of a small dish's.
GRADIENT_STEP_RAD = 5e-5


class ModelVisibilities(Protocol):
    """A sky whose visibilities can be predicted; its name stands in the summary."""

    name: str

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Stokes I visibilities about the block's own phase centre, shape (nrow, nchan), in jansky."""
        ...


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Apparent fluxes over a window, through whose values at a few frequencies a polynomial goes.

    Attributes
    ----------
    values_jy : ndarray, shape (npointing, n, nnode)
        At these frequencies.
    to_channels : ndarray, shape (nnode, nchan)
        What the polynomial makes of them in each channel.
    """

    values_jy: Float
    to_channels: Float

    def by_channel(self) -> Single:
        """Fluxes in all channels, shape (npointing, nchan, n)."""
        return np.ascontiguousarray(np.moveaxis(self.values_jy @ self.to_channels, 1, 2), dtype=np.float32)

    def moments(self, bins: ChannelBins, pointings: Int, *, means: bool = False) -> Single:
        """Parabolas over bins through m pointings, (m, 3, n, nbin).

        Of single channels, and where means are asked for, (m, 1, n, nbin).
        """
        of_nodes = bins.moments(self.to_channels)[: 1 if means or (bins.count == 1).all() else 3]
        weights = np.ascontiguousarray(np.moveaxis(of_nodes, 0, 1), dtype=np.float32)
        shape = pointings.size, len(of_nodes), self.values_jy.shape[1], of_nodes.shape[-1]
        out = np.empty(shape, dtype=np.float32)
        _combine(self.values_jy, pointings, weights, out)
        return out


@numba.njit(parallel=True, cache=True)
def _combine(values: Float, pointings: Int, weights: Single, out: Single) -> None:
    """Sum over nodes. Not by BLAS, whose rounding depends on how many pointings there are."""
    n_sources, n_nodes = values.shape[1:]
    for p in numba.prange(pointings.size * n_sources):
        which, source = p // n_sources, p % n_sources
        for moment in range(weights.shape[1]):
            into = out[which, moment, source]
            into[:] = np.float32(0)
            for node in range(n_nodes):
                value = np.float32(values[pointings[which], source, node])
                of_bins = weights[node, moment]
                for b in range(into.size):
                    into[b] += value * of_bins[b]


@dataclass(frozen=True, eq=False, kw_only=True)
class _ThroughOwn:
    """A sky of which the antennas' own beams show more or less than a common one.

    Attributes
    ----------
    sky : ApparentSky
        With beams of the antennas.
    sign : float
        Factor on what they show.
    axis_rad : (float, float)
        Where the common beam points, east and north.
    """

    sky: ApparentSky
    sign: float = 1.0
    axis_rad: tuple[float, float] = (0.0, 0.0)


class SkyVisibilities:
    """Components through the primary beam, wherever it points at each dump.

    Parameters
    ----------
    sky : ApparentSky
        Sources and beam.
    """

    name = "seed"

    def __init__(self, sky: ApparentSky) -> None:
        self.sky = sky
        self._spectra: dict[int, _Spectra] = {}
        self._pointings: tuple[Float, Int] | None = None
        own = sky.own_beams
        self._own: list[_ThroughOwn] = (
            [] if own is None else [_ThroughOwn(sky=replace(sky, antenna_beams=own))]
        )
        self._followed: dict[int, Int] = {}
        squint = None if sky.antenna_beams is None else sky.antenna_beams.squint_rad
        self.squint: SquintVisibilities | None = None if squint is None else SquintVisibilities(sky, squint)
        """By how much the first receptor sees more, and the second less, of this sky."""

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Predict exactly, source by source; shape (nrow, nchan), in jansky.

        Of a block of averages the model is the mean over the same channels.
        """
        if block.bins is not None:
            return self.of_same_rows([block], reader)[0]
        sky, field = self.sky.sky, reader.ms.field(block.field_id)
        flux, pointing = self.fluxes(block, reader)
        lmn, shape = sky.lmn(field.ra_rad, field.dec_rad), sky.shape_about(field.ra_rad, field.dec_rad)
        freq_hz = block.spw.freq_hz
        predicted = predict_components(block.uvw_m, freq_hz, lmn, flux, *shape, pointing)
        self._add_own_beams(predicted, block, reader, freq_hz, np.ones(freq_hz.size, dtype=np.int64), 0.0)
        return predicted

    def fluxes(self, block: Block, reader: VisibilityReader) -> tuple[Single, Int]:
        """Return apparent fluxes through each pointing, and which of them each row has.

        In jansky, shape (m, n, nchan); of a block of averages they are means over its channels.
        """
        used, of_rows = self._pointings_of(block, reader)
        if block.bins is not None:
            spectra = self._of_window(block.bins.window, reader)
            return spectra.moments(block.bins, used, means=True)[:, 0], of_rows
        at, freq = self._by_dump(reader)[0][used], block.spw.freq_hz
        found = [self.through_beam(freq, *pointing) for pointing in at]
        return np.stack(found).astype(np.float32), of_rows

    def less(self, other: SkyVisibilities) -> SkyVisibilities | None:
        """Return what has to be added to another sky to get this one: components with the change of flux.

        None if the two skies are not seen alike, through one beam and with fluxes at one frequency.
        """
        mine, others = self.sky, other.sky
        alike = mine.beam == others.beam and mine.sky.reference_freq_hz == others.sky.reference_freq_hz
        if not alike or type(self) is not type(other):
            return None
        both = joined(mine, others)
        sky = both.sky
        _, first, which = np.unique(sky.traits(), axis=0, return_index=True, return_inverse=True)
        sign = np.repeat([1.0, -1.0], [len(mine), len(others)])
        change = np.zeros((2, first.size))
        for k, flux in enumerate((sky.flux_jy, both.apparent_jy)):
            np.add.at(change[k], which.reshape(-1), sign * flux)
        changed = change[0] != 0
        components = replace(sky.select(first[changed]), flux_jy=change[0, changed])
        changes = SkyVisibilities(replace(mine, sky=components, apparent_jy=change[1, changed]))
        if mine.antenna_beams is not others.antenna_beams:
            # Through the common beam only what changed is new; what own beams show beside it is all anew.
            changes._own = [*self._own, *(replace(of, sign=-of.sign) for of in other._own)]
        return changes

    def of_same_rows(self, blocks: Sequence[Block], reader: VisibilityReader) -> list[Vis]:
        """Predict averages of several spectral windows on the same baselines, whose delays are formed once.

        Parameters
        ----------
        blocks : sequence of Block
            Of the same rows and channel width, with bins.
        reader : VisibilityReader
            What they were read by.

        Returns
        -------
        list of ndarray of complex64, shape (nrow, nbin)
            Of each block, in jansky.
        """
        sky, first, bins = self.sky.sky, blocks[0], [b.bins for b in blocks if b.bins is not None]
        field = reader.ms.field(first.field_id)
        lmn, shape = sky.lmn(field.ra_rad, field.dec_rad), sky.shape_about(field.ra_rad, field.dec_rad)
        spectra = [self._of_window(b.window, reader) for b in bins]
        used, pointing = self._pointings_of(first, reader)
        freq, count = np.concatenate([b.spw.freq_hz for b in blocks]), np.concatenate([b.count for b in bins])
        sizes = [b.count.size for b in bins]
        parts = [s.moments(b, used) for s, b in zip(spectra, bins, strict=True)]
        moments = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=3)
        if (count == 1).all():
            together = predict_components(first.uvw_m, freq, lmn, moments[:, 0], *shape, pointing)
        else:
            width = bins[0].channel_width_hz
            of_rows = *shape, pointing, sizes
            together = predict_averaged(first.uvw_m, freq, count, width, lmn, moments, *of_rows)
        self._add_own_beams(together, first, reader, freq, count, bins[0].channel_width_hz, sizes)
        edges = np.cumsum(sizes)[:-1]
        out = [np.ascontiguousarray(part) for part in np.split(together, edges, axis=1)]
        for block, of_block, spectrum, predicted in zip(blocks, bins, spectra, out, strict=True):
            if of_block.partial is not None:
                single = self._single_channels(block, of_block, spectrum, used[pointing], lmn, shape)
                add_partial(predicted, of_block.partial, single)
        return out

    def through_beam(self, freq_hz: Float, ra_rad: float, dec_rad: float) -> Float:
        """Fluxes through the common beam pointed at a direction, shape (n, nchan), in jansky."""
        return self.sky.apparent_flux(freq_hz, ra_rad, dec_rad)

    def _add_own_beams(
        self,
        predicted: Vis,
        block: Block,
        reader: VisibilityReader,
        freq_hz: Float,
        count: Int,
        channel_width_hz: float,
        windows: Sequence[int] | None = None,
    ) -> None:
        """Add, in place, what antennas see through beams of their own beside what the common beam shows.

        A bin with flagged channels takes its mean over all of them: of the difference that is exact enough.
        """
        field = reader.ms.field(block.field_id)
        pointings, of_dump = self._by_dump(reader)
        which = of_dump[block.time_index]
        for number, of in enumerate(self._own):
            seen, beams, axis = of.sky, of.sky.antenna_beams, np.array([of.axis_rad])
            sky = seen.sky.select(self._follow(number, pointings))
            assert beams is not None
            lmn = sky.lmn(field.ra_rad, field.dec_rad)
            major, minor, pa = sky.shape_about(field.ra_rad, field.dec_rad)
            flux = of.sign * replace(seen, sky=sky).unattenuated_flux(freq_hz)
            at_once = max(1, PATTERN_BYTES // (4 * freq_hz.size * len(beams.offset_rad)))
            for k in np.unique(which):
                rows = np.flatnonzero(which == k)
                about = sky.lmn(*pointings[k])
                for first in range(0, len(sky), at_once):
                    part = slice(first, first + at_once)
                    common = seen.beam.voltages(about[part], axis, freq_hz)[:, :, 0].astype(np.float64)
                    predicted[rows] += predict_own_beams(
                        block.uvw_m[rows],
                        block.antenna1[rows],
                        block.antenna2[rows],
                        freq_hz,
                        count,
                        channel_width_hz,
                        lmn[part],
                        beams.voltages(seen.beam, about[part], freq_hz),
                        flux[part] * common**2,
                        flux[part],
                        major[part],
                        minor[part],
                        pa[part],
                        windows,
                    )

    def _follow(self, number: int, pointings: Float) -> Int:
        """Choose the sources of a sky whose own beams are followed: the others do not matter."""
        if number not in self._followed:
            seen, axis = self._own[number].sky, np.array([self._own[number].axis_rad])
            assert seen.antenna_beams is not None
            freq, power = np.array([seen.freq_hz]), np.zeros(len(seen))
            for pointing in pointings[[0, len(pointings) // 2, -1]]:
                about = seen.sky.lmn(*pointing)
                own = seen.antenna_beams.voltages(seen.beam, about, freq)[:, 0]
                common = seen.beam.voltages(about, axis, freq)[:, 0]
                power += np.square(seen.unattenuated_flux(freq) * own * (own - common)).mean(axis=1)
            differ = isinstance(seen.beam, MixedBeam)
            self._followed[number] = leading(power, NEGLECTED_OF_DISHES if differ else NEGLECTED)
        return self._followed[number]

    def _single_channels(
        self,
        block: Block,
        bins: ChannelBins,
        spectra: _Spectra,
        pointing: Int,
        lmn: Float,
        shape: tuple[Float, Float, Float],
    ) -> Callable[[Int, Int], Vis]:
        """Give what predicts single channels of rows."""
        freq_hz = bins.window.freq_hz
        flux = spectra.by_channel().reshape(-1, len(lmn))

        def single(row: Int, channel: Int) -> Vis:
            at = block.uvw_m[row], freq_hz[channel], pointing[row] * freq_hz.size + channel
            return predict_samples(*at, lmn, flux, *shape)

        return single

    def _by_dump(self, reader: VisibilityReader) -> tuple[Float, Int]:
        """Pointings, shape (npointing, 2), and which of them each dump has."""
        if self._pointings is None:
            pointings, which = np.unique(reader.pointing, axis=0, return_inverse=True)
            self._pointings = pointings, which.reshape(-1)
        return self._pointings

    def _pointings_of(self, block: Block, reader: VisibilityReader) -> tuple[Int, Int]:
        """Which pointings a block has, and which of these each of its rows."""
        used, pointing = np.unique(self._by_dump(reader)[1][block.time_index], return_inverse=True)
        return used, pointing

    def _of_window(self, window: SpectralWindow, reader: VisibilityReader) -> _Spectra:
        if window.id not in self._spectra:
            pointings, _ = self._by_dump(reader)
            nodes, to_channels = self._nodes(window.freq_hz, pointings)
            values = np.stack([self.through_beam(nodes, *p) for p in pointings])
            self._spectra[window.id] = _Spectra(values, to_channels)
        return self._spectra[window.id]

    def _nodes(self, freq_hz: Float, pointings: Float) -> tuple[Float, Float]:
        """Frequencies, shape (nnode,), at which fluxes tell those in all channels, and how, (nnode, nchan).

        Beam and spectrum are smooth: a polynomial through a few Chebyshev nodes has them. Whether it does is
        looked at between the nodes and in the outermost channels, from the first and the last pointing.
        """
        middle, half = (freq_hz.max() + freq_hz.min()) / 2, np.ptp(freq_hz) / 2
        n = FEWEST_NODES
        while half > 0 and n < freq_hz.size:
            nodes = np.cos(np.pi * (np.arange(n) + 0.5) / n)
            between = np.cos(np.pi * np.arange(n + 1) / n)
            to_between = _lagrange(nodes, between)
            error, total = 0.0, 0.0
            for pointing in pointings[[0, -1]]:
                exact = self.through_beam(middle + half * between, *pointing)
                found = self.through_beam(middle + half * nodes, *pointing) @ to_between
                error += float(np.abs(found - exact).sum(axis=0).max(initial=0))
                total += float(np.abs(exact).sum(axis=0).max(initial=0))
            if error <= INTERPOLATION * total:
                return middle + half * nodes, _lagrange(nodes, (freq_hz - middle) / half)
            n *= 2
        return freq_hz, np.eye(freq_hz.size)


def _lagrange(nodes: Float, at: Float) -> Float:
    """Lagrange polynomials of nodes at other places, shape (nnode, nat)."""
    distance = nodes[:, None] - nodes + np.eye(nodes.size)
    ratio = (at[None, None, :] - nodes[None, :, None]) / distance[:, :, None]
    ratio[np.diag_indices(nodes.size)] = 1.0
    return np.asarray(ratio.prod(axis=1))


class BeamGradient(SkyVisibilities):
    """Half of what components change by as the common beam is displaced: what one antenna of two does.

    Parameters
    ----------
    sky : ApparentSky
        Sources and beam, whose own pointings are left out.
    axis : int
        Direction of the displacement: 0 east, 1 north.
    """

    def __init__(self, sky: ApparentSky, axis: int) -> None:
        super().__init__(replace(sky, antenna_beams=None))
        # Of dishes that differ the mean: what is found is found again from where it leads to.
        self._own = []
        self._step = np.eye(2)[axis] * GRADIENT_STEP_RAD

    def through_beam(self, freq_hz: Float, ra_rad: float, dec_rad: float) -> Float:
        """Half of the derivative of the fluxes, shape (n, nchan), in jansky per radian."""
        ahead, behind = (
            self.sky.apparent_flux(freq_hz, *_displaced(step, ra_rad, dec_rad))
            for step in (self._step, -self._step)
        )
        return (ahead - behind) / (4 * GRADIENT_STEP_RAD)


class PositionMoment(SkyVisibilities):
    """Components that count with one of their direction cosines, for what displacements make of a model.

    Parameters
    ----------
    sky : ApparentSky
        Sources and beam; the antennas' own beams are left out.
    axis : int
        0 for l, 1 for m.
    centre : (float, float)
        What they are from: the phase centre, ICRS radians.
    """

    def __init__(self, sky: ApparentSky, axis: int, centre: tuple[float, float]) -> None:
        super().__init__(replace(sky, antenna_beams=None))
        self._own = []
        self._distance = sky.sky.lmn(*centre)[:, axis, None]

    @classmethod
    def leading(cls, sky: ApparentSky, axis: int, reader: VisibilityReader) -> PositionMoment:
        """Return that of the sources that matter."""
        middle, at = reader.pointing[len(reader.pointing) // 2], np.array([sky.freq_hz])
        centre = reader.phase_center
        all_of_them = cls(sky, axis, centre).through_beam(at, float(middle[0]), float(middle[1]))
        some = leading(np.square(all_of_them[:, 0]))
        return cls(replace(sky, sky=sky.sky.select(some), apparent_jy=sky.apparent_jy[some]), axis, centre)

    def through_beam(self, freq_hz: Float, ra_rad: float, dec_rad: float) -> Float:
        """Fluxes times direction cosines, shape (n, nchan), in jansky."""
        return self.sky.apparent_flux(freq_hz, ra_rad, dec_rad) * self._distance


class SquintVisibilities(SkyVisibilities):
    """Half of the difference of what two receptors see whose beams point off to either side.

    Parameters
    ----------
    sky : ApparentSky
        Sources, beam, and the antennas' own beams, about which the receptors point to either side.
    squint_rad : ndarray, shape (2,)
        By how much the first receptor points further east and north than the second, radians.
    """

    def __init__(self, sky: ApparentSky, squint_rad: Float) -> None:
        super().__init__(replace(sky, antenna_beams=None))
        self._half = squint_rad / 2
        own = sky.own_beams
        self._own = []
        if own is not None and (own.offset_rad.any() or isinstance(sky.beam, MixedBeam)):
            # Beside the same of the common beam, which is displaced as far.
            for sign in (0.5, -0.5):
                axis = 2 * sign * self._half
                beams = AntennaBeams(offset_rad=own.offset_rad + axis)
                of_receptor = replace(sky, antenna_beams=beams)
                self._own.append(
                    _ThroughOwn(sky=of_receptor, sign=sign, axis_rad=(float(axis[0]), float(axis[1])))
                )

    def _follow(self, number: int, pointings: Float) -> Int:
        """Choose the same sources for both receptors: of one left out of one of them a difference stays."""
        return super()._follow(0, pointings)

    def less(self, other: SkyVisibilities) -> None:
        """Tell nothing of what has to be added to another: it may be of another squint."""

    def through_beam(self, freq_hz: Float, ra_rad: float, dec_rad: float) -> Float:
        """Half of the difference of the fluxes, shape (n, nchan), in jansky."""
        first, second = (
            self.sky.apparent_flux(freq_hz, *_displaced(off, ra_rad, dec_rad))
            for off in (self._half, -self._half)
        )
        return np.asarray((first - second) / 2)


def _displaced(step_rad: Float, ra_rad: float, dec_rad: float) -> tuple[float, float]:
    ra, dec = radec_from_lm(step_rad[0], step_rad[1], ra_rad, dec_rad)
    return float(ra), float(dec)


def leading(power: Float, neglected: float = NEGLECTED) -> Int:
    """Places of the largest values, in order, so many that less than a fraction of the sum is missing."""
    order = np.argsort(-power, kind="stable")
    total = np.cumsum(power[order])
    wanted = int(np.searchsorted(total, (1 - neglected) * total[-1], side="left")) + 1 if power.size else 0
    return np.sort(order[:wanted])


class ImageVisibilities:
    """Clean components on the pixels of an image about the common phase centre.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        Jansky per pixel.
    grid : ImageGrid
        Where the pixels are.
    threads : int
        Threads; 0 for all.
    """

    name = "clean"

    def __init__(self, image: Image, grid: ImageGrid, threads: int = 0) -> None:
        self.image, self.grid, self._threads = image, grid, threads

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Degrid: exact at pixel centres, where clean components are; shape (nrow, nchan).

        Of a block of averages all channels are degridded, and averaged as the data were.
        """
        uvw, path = reader.move_to_center(block)
        freq = block.spw.freq_hz if block.bins is None else block.bins.window.freq_hz
        vis = degrid(self.image, self.grid, uvw, freq, self._threads)
        if path.any():
            vis = turn_phases(vis, -path, freq)
        return vis if block.bins is None else mean_over_bins(vis, block.bins)
