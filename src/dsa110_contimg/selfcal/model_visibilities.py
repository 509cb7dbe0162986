"""Sky models whose visibilities can be predicted: components, and images of clean components."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dsa110_contimg.array_types import Image, Vis
from dsa110_contimg.imaging import ImageGrid, degrid
from dsa110_contimg.predict import predict_components
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.visibilities import Block, VisibilityReader, turn_phases

__all__ = ["ImageVisibilities", "ModelVisibilities", "SkyVisibilities"]


class ModelVisibilities(Protocol):
    """A sky whose visibilities can be predicted; its name stands in the summary."""

    name: str

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Stokes I visibilities about the block's own phase centre, shape (nrow, nchan), in jansky."""
        ...


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

    def visibilities(self, block: Block, reader: VisibilityReader) -> Vis:
        """Predict exactly, source by source; shape (nrow, nchan), in jansky."""
        sky, freq = self.sky.sky, block.spw.freq_hz
        field = reader.ms.field(block.field_id)
        lmn = sky.lmn(field.ra_rad, field.dec_rad)
        out = np.empty((len(block.rows), freq.size), dtype=np.complex64)
        dumps = np.unique(block.time_index)
        pointings, which = np.unique(reader.pointing[dumps], axis=0, return_inverse=True)
        of_dump = np.zeros(reader.times.size, dtype=np.int64)
        of_dump[dumps] = which.reshape(-1)
        for k, pointing in enumerate(pointings):
            rows = np.flatnonzero(of_dump[block.time_index] == k)
            flux = self.sky.apparent_flux(freq, *pointing)
            out[rows] = predict_components(
                block.uvw_m[rows], freq, lmn, flux, sky.major_rad, sky.minor_rad, sky.pa_rad
            )
        return out


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
        """Degrid: exact at pixel centres, where clean components are; shape (nrow, nchan)."""
        uvw, path = reader.move_to_center(block)
        vis = degrid(self.image, self.grid, uvw, block.spw.freq_hz, self._threads)
        return turn_phases(vis, -path, block.spw.freq_hz) if path.any() else vis
