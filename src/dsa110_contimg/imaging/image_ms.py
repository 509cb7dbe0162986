"""Imaging a Measurement Set: what ``contimg image`` and the users' scripts call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.imaging.backend import (
    CleanedImage,
    ImagingProblem,
    StokesVisibilities,
    open_backend,
    require_effect,
)
from dsa110_contimg.imaging.masks import catalog_mask, read_mask
from dsa110_contimg.imaging.measure import measure_image, off_source_region
from dsa110_contimg.imaging.obs_context import ObsContext, enough_baselines, open_observation
from dsa110_contimg.imaging.primary_beam import beam_image, correct_for_beam
from dsa110_contimg.imaging.products import ImageSet, remove_others, write_products
from dsa110_contimg.imaging.restoring_beam import RestoringBeam
from dsa110_contimg.imaging.stokes import StokesI, stokes_i
from dsa110_contimg.imaging.wsclean.clean import wsclean_input
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import (
    Block,
    BoundsEstimator,
    BrokenDataFinder,
    VisibilityReader,
    impossible_values,
    nothing_usable,
    turn_phases,
    write_selection,
)
from dsa110_contimg.visibilities.columns import require_space
from dsa110_contimg.visibilities.tables import require_outside_tables

__all__ = ["image_ms"]


def image_ms(
    ms_path: Path | str,
    name: Path | str,
    config: ImagingConfig | None = None,
    *,
    field: str | None = None,
    spw: str | None = None,
    column: str | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Image a field or drift scan of a Measurement Set, which is only read.

    The imagers (`config.backend`) give the same products with the same meaning. WSClean gets several phase
    centres moved to one, in a copy.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set.
    name : Path or str
        Prefix of the products: ``NAME-image.fits``, ``-residual``, ``-model``, ``-psf``; with `pb_correct`
        ``-image-pb`` and ``-pb``, with a mask ``-mask``, with `channels_out` ``-0000-image`` and so on.
    config : ImagingConfig, optional
        Options.
    field, spw : str, optional
        Selection, as :meth:`MeasurementSet.select` takes it.
    column : str, optional
        Column to image; CORRECTED_DATA where there is one, else DATA.
    progress : Progress, optional
        Where progress is reported.

    Returns
    -------
    ImageSet

    Raises
    ------
    InputError
        If something handed in cannot be used.
    EngineError
        If imaging or the container fails.
    """
    config, progress, prefix = config or ImagingConfig(), progress or LogProgress(), Path(name)
    require_effect(config)
    context = open_observation(ms_path, config, field=field, spw=spw, column=column)
    require_outside_tables(prefix.parent)
    grid, reader = context.grid, context.reader
    there = next(p for p in prefix.absolute().parents if p.exists())
    require_space(there, 16 * grid.size**2, "the images")
    mask_for = _mask_rule(context, config)
    if config.pb_correct:
        _ = context.beam
    for note in context.notes:
        progress.note(note)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    backend = open_backend(config, context.ms.path, grid, prefix)
    cell_arcsec = grid.cell_rad / ARCSEC
    progress.note(
        f"imaging {reader.column} with {backend.label}: {grid.size} pixels of {cell_arcsec:.3g} arcsec"
    )
    if config.pb_correct or config.catalog_mask:
        for text in context.beam_notes:
            progress.note(text)
    data = _Visibilities(reader, progress)
    problem = ImagingProblem(
        grid=grid,
        freq_hz=reader.freq_hz,
        visibilities=data.read,
        measurement_set=data.measurement_set,
        mask_for=mask_for,
    )
    with enough_baselines(reader):
        made = backend.image(problem)
    return _write(prefix, context, config, made, data, backend.label)


def _mask_rule(context: ObsContext, config: ImagingConfig) -> Callable[[RestoringBeam], Bool | None] | None:
    """How the mask follows from the restoring beam; None without a mask."""
    given = read_mask(config.mask, context.grid) if config.mask is not None else None
    listed = context.catalog_model() if config.catalog_mask else None
    if listed is None:
        return None if given is None else lambda _: given

    def around_sources(beam: RestoringBeam) -> Bool:
        found = catalog_mask(listed.sky, context.grid, beam, config.mask_radius_arcsec)
        return found if given is None else found & given

    return around_sources


def _write(
    prefix: Path,
    context: ObsContext,
    config: ImagingConfig,
    made: CleanedImage,
    data: _Visibilities,
    label: str,
) -> ImageSet:
    """Write the products, take away those of an earlier run that do not fit them, and measure."""
    grid, result = context.grid, made.cleaned
    images = {
        "image": (result.restored, "JY/BEAM"),
        "residual": (result.residual, "JY/BEAM"),
        "model": (result.model, "JY/PIXEL"),
        "psf": (result.psf, "JY/BEAM"),
    }
    if config.pb_correct:
        response = beam_image(grid, context.beam, context.reader.pointing, *data.weights())
        images["pb"] = (response, "")
        images["image-pb"] = (correct_for_beam(result.restored, response), "JY/BEAM")
    if made.mask is not None:
        images["mask"] = (made.mask.astype(np.float32), "")
    paths = write_products(prefix, images, result, grid, context.reader, label)
    remove_others(prefix, {*paths.values(), *made.channels})
    region = off_source_region(grid, [], [], result.model, result.beam)
    metrics = measure_image(result.restored, grid, result.beam, region, thermal_rms_jy=made.thermal_rms_jy)
    return ImageSet(
        image=paths["image"],
        residual=paths["residual"],
        model=paths["model"],
        psf=paths["psf"],
        metrics=metrics,
        imager=label,
        pb=paths.get("pb"),
        image_pb=paths.get("image-pb"),
        mask=paths.get("mask"),
        channels=made.channels,
    )


class _Visibilities:
    """Stokes I of a column about the common phase centre, and the weights seen while reading it."""

    def __init__(self, reader: VisibilityReader, progress: Progress) -> None:
        self._reader, self._progress = reader, progress
        self._by_dump = np.zeros(reader.times.size)
        self._by_channel: dict[int, Float] = {}
        self._broken: dict[int, Int] = {}

    def read(self) -> StokesVisibilities:
        """Read the column once."""
        reader, chunks, noise = self._reader, [], BoundsEstimator(self._reader, self._reader.n_blocks)
        finder = BrokenDataFinder(reader.times.size, len(reader.ms.antennas))
        blocks = self._progress.track(reader.blocks(), reader.n_blocks, f"read {reader.column}")
        for number, block in enumerate(blocks):
            finder.add(number, block)
            self._broken[number] = finder.places(number)
            block = self._sound(number, block)
            vis, weight = stokes_i(block.data, block.weight, block.flag, block.spw.parallel)
            hands = list(block.spw.parallel)
            # A missing hand has no weight.
            pad = [(0, 0), (0, 0), (0, 2 - len(hands))]
            noise.add(block, np.pad(block.data[:, :, hands], pad), np.pad(block.weight[:, :, hands], pad))
            uvw, path = reader.move_to_center(block)
            if path.any():
                vis = turn_phases(vis, path, block.spw.freq_hz)
            chunks.append(StokesI(uvw, block.spw.freq_hz, vis, weight))
            np.add.at(self._by_dump, block.time_index, weight.sum(axis=1, dtype=float))
            sums = self._by_channel.setdefault(block.spw.id, np.zeros(block.spw.freq_hz.size))
            sums += weight.sum(axis=0, dtype=float)
        broken = replace(finder.result(), bursts={})
        if broken.everything or not self._by_dump.any():
            raise nothing_usable(reader, all_broken=broken.everything)
        for line in (*broken.notes(reader.ms.antennas.name), *impossible_values(reader)):
            self._progress.note(line)
        return StokesVisibilities(chunks, noise.bounds.lowest)

    def _sound(self, number: int, block: Block) -> Block:
        """Take their weight from broken visibilities."""
        places = self._broken[number]
        if not places.size:
            return block
        weight, flag = block.weight.copy(), block.flag.copy()
        weight.reshape(-1)[places], flag.reshape(-1)[places] = 0.0, True
        return replace(block, weight=weight, flag=flag)

    def measurement_set(self, folder: Path) -> tuple[Path, list[str]]:
        """Measurement Set for WSClean, and arguments that select its data: a copy where some are left out."""
        reader = self._reader
        as_they_are = reader.as_on_disk and not any(places.size for places in self._broken.values())
        if as_they_are:
            return wsclean_input(reader, reader.column, folder)
        copy = folder / "sound.ms"
        sound = (self._sound(number, block) for number, block in enumerate(reader.blocks()))
        write_selection(copy, reader, ((block, block.data, block.weight) for block in sound))
        return copy, ["-field", "0", "-data-column", "DATA"]

    def weights(self) -> tuple[Float, Float, Float]:
        """Weights by dump, frequencies in hertz, and weights by frequency; known once they are read."""
        freq = [self._reader.ms.spectral_window(s).freq_hz for s in self._by_channel]
        return self._by_dump, np.concatenate(freq), np.concatenate(list(self._by_channel.values()))
