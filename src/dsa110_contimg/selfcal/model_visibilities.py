"""Sky models whose visibilities can be predicted: components, and images of clean components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numba
import numpy as np

from dsa110_contimg.array_types import Float, Image, Int, Single, Vis
from dsa110_contimg.imaging import ImageGrid, degrid
from dsa110_contimg.predict import predict_averaged, predict_components, predict_samples
from dsa110_contimg.sky import ApparentSky
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

__all__ = ["ImageVisibilities", "ModelVisibilities", "SkyVisibilities"]

#: Frequencies per window at which apparent fluxes are computed, at least, and what the polynomial through
#: them may be off by elsewhere, in units of the summed flux.
FEWEST_NODES, INTERPOLATION = 4, 1e-8


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

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Predict exactly, source by source; shape (nrow, nchan), in jansky.

        Of a block of averages the model is the mean over the same channels.
        """
        if block.bins is not None:
            return self.of_same_rows([block], reader)[0]
        sky, field = self.sky.sky, reader.ms.field(block.field_id)
        flux, pointing = self.fluxes(block, reader)
        lmn = sky.lmn(field.ra_rad, field.dec_rad)
        shape = (sky.major_rad, sky.minor_rad, sky.pa_rad)
        return predict_components(block.uvw_m, block.spw.freq_hz, lmn, flux, *shape, pointing)

    def fluxes(self, block: Block, reader: VisibilityReader) -> tuple[Single, Int]:
        """Return apparent fluxes through each pointing, and which of them each row has.

        In jansky, shape (m, n, nchan); of a block of averages they are means over its channels.
        """
        used, of_rows = self._pointings_of(block, reader)
        if block.bins is not None:
            spectra = self._of_window(block.bins.window, reader)
            return spectra.moments(block.bins, used, means=True)[:, 0], of_rows
        at, freq = self._by_dump(reader)[0][used], block.spw.freq_hz
        found = [self.sky.apparent_flux(freq, *pointing) for pointing in at]
        return np.stack(found).astype(np.float32), of_rows

    def less(self, other: SkyVisibilities) -> SkyVisibilities | None:
        """Return what has to be added to another sky to get this one: components with the change of flux.

        None if the two skies are not seen alike, through one beam and with fluxes at one frequency.
        """
        mine, others = self.sky, other.sky
        alike = mine.beam == others.beam and mine.sky.reference_freq_hz == others.sky.reference_freq_hz
        if not alike:
            return None
        both = joined(mine, others)
        sky = both.sky
        where = np.stack(
            [sky.ra_rad, sky.dec_rad, sky.spectral_index, sky.major_rad, sky.minor_rad, sky.pa_rad], axis=1
        )
        _, first, which = np.unique(where, axis=0, return_index=True, return_inverse=True)
        sign = np.repeat([1.0, -1.0], [len(mine), len(others)])
        change = np.zeros((2, first.size))
        for k, flux in enumerate((sky.flux_jy, both.apparent_jy)):
            np.add.at(change[k], which.reshape(-1), sign * flux)
        changed = change[0] != 0
        components = replace(sky.select(first[changed]), flux_jy=change[0, changed])
        return SkyVisibilities(replace(mine, sky=components, apparent_jy=change[1, changed]))

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
        lmn, shape = sky.lmn(field.ra_rad, field.dec_rad), (sky.major_rad, sky.minor_rad, sky.pa_rad)
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
        edges = np.cumsum(sizes)[:-1]
        out = [np.ascontiguousarray(part) for part in np.split(together, edges, axis=1)]
        for block, of_block, spectrum, predicted in zip(blocks, bins, spectra, out, strict=True):
            if of_block.partial is not None:
                single = self._single_channels(block, of_block, spectrum, used[pointing], lmn)
                add_partial(predicted, of_block.partial, single)
        return out

    def _single_channels(
        self, block: Block, bins: ChannelBins, spectra: _Spectra, pointing: Int, lmn: Float
    ) -> Callable[[Int, Int], Vis]:
        """Give what predicts single channels of rows."""
        sky, freq_hz = self.sky.sky, bins.window.freq_hz
        flux = spectra.by_channel().reshape(-1, len(lmn))

        def single(row: Int, channel: Int) -> Vis:
            spectrum, shape = pointing[row] * freq_hz.size + channel, (sky.major_rad, sky.minor_rad)
            at = block.uvw_m[row], freq_hz[channel]
            return predict_samples(*at, spectrum, lmn, flux, *shape, sky.pa_rad)

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
            values = np.stack([self.sky.apparent_flux(nodes, *p) for p in pointings])
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
                exact = self.sky.apparent_flux(middle + half * between, *pointing)
                found = self.sky.apparent_flux(middle + half * nodes, *pointing) @ to_between
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
