"""Sky models whose visibilities can be predicted: components, and images of clean components."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dsa110_contimg.array_types import Float, Image, Int, Single, Vis
from dsa110_contimg.imaging import ImageGrid, degrid
from dsa110_contimg.predict import predict_averaged, predict_components, predict_samples
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.apparent_sky import joined
from dsa110_contimg.visibilities import Block, ChannelBins, VisibilityReader, mean_over_bins, turn_phases
from dsa110_contimg.visibilities.averaging import add_partial

__all__ = ["ImageVisibilities", "ModelVisibilities", "SkyVisibilities"]


class ModelVisibilities(Protocol):
    """A sky whose visibilities can be predicted; its name stands in the summary."""

    name: str

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Stokes I visibilities about the block's own phase centre, shape (nrow, nchan), in jansky."""
        ...


@dataclass(eq=False)
class _Spectra:
    """Apparent fluxes in all channels of a window, (npointing, n, nchan); which pointing each dump has."""

    spw_id: int
    flux_jy: Float
    of_dump: Int
    _known: tuple[ChannelBins, Single] | None = None

    def moments(self, bins: ChannelBins) -> Single:
        """Parabolas over bins, shape (npointing, 3, n, nbin): blocks of the same bins come one by one."""
        if self._known is not None:
            before, found = self._known
            same = np.array_equal(before.start, bins.start) and np.array_equal(before.count, bins.count)
            if same:
                return found
        found = np.ascontiguousarray(np.moveaxis(bins.moments(self.flux_jy), 0, 1), dtype=np.float32)
        self._known = bins, found
        return found


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
        # Blocks of averages come window by window: the fluxes of one are kept.
        self._spectra: _Spectra | None = None

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Predict exactly, source by source; shape (nrow, nchan), in jansky.

        Of a block of averages the model is the mean over the same channels.
        """
        if block.bins is not None:
            return self._averaged(block, block.bins, reader)
        sky, freq = self.sky.sky, block.spw.freq_hz
        field = reader.ms.field(block.field_id)
        lmn = sky.lmn(field.ra_rad, field.dec_rad)
        dumps = np.unique(block.time_index)
        pointings, which = np.unique(reader.pointing[dumps], axis=0, return_inverse=True)
        of_dump = np.zeros(reader.times.size, dtype=np.int64)
        of_dump[dumps] = which.reshape(-1)
        flux = np.stack([self.sky.apparent_flux(freq, *pointing) for pointing in pointings])
        shape = (sky.major_rad, sky.minor_rad, sky.pa_rad)
        return predict_components(block.uvw_m, freq, lmn, flux, *shape, of_dump[block.time_index])

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

    def _averaged(self, block: Block, bins: ChannelBins, reader: VisibilityReader) -> Vis:
        sky = self.sky.sky
        field = reader.ms.field(block.field_id)
        lmn, spectra = sky.lmn(field.ra_rad, field.dec_rad), self._of_window(bins, reader)
        shape = (sky.major_rad, sky.minor_rad, sky.pa_rad)
        pointing, freq, moments = spectra.of_dump[block.time_index], block.spw.freq_hz, spectra.moments(bins)
        if (bins.count == 1).all():
            out = predict_components(block.uvw_m, freq, lmn, moments[:, 0], *shape, pointing)
        else:
            width = bins.channel_width_hz
            out = predict_averaged(block.uvw_m, freq, bins.count, width, lmn, moments, *shape, pointing)
        if bins.partial is not None:
            n_channels = bins.window.freq_hz.size
            flux = np.moveaxis(spectra.flux_jy, 1, 2).reshape(-1, len(lmn)).astype(np.float32)

            def single(row: Int, channel: Int) -> Vis:
                spectrum = pointing[row] * n_channels + channel
                freq = bins.window.freq_hz[channel]
                return predict_samples(block.uvw_m[row], freq, spectrum, lmn, flux, *shape)

            add_partial(out, bins.partial, single)
        return out

    def _of_window(self, bins: ChannelBins, reader: VisibilityReader) -> _Spectra:
        window = bins.window
        if self._spectra is None or self._spectra.spw_id != window.id:
            pointings, which = np.unique(reader.pointing, axis=0, return_inverse=True)
            flux = np.stack([self.sky.apparent_flux(window.freq_hz, *p) for p in pointings])
            self._spectra = _Spectra(window.id, flux, which.reshape(-1))
        return self._spectra


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
