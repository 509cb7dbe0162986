"""Imaging a Measurement Set: what ``contimg image`` and the users' scripts call."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ConfigError, MeasurementSetError
from dsa110_contimg.files import replacing
from dsa110_contimg.imaging.clean import clean
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.gridder import Imager
from dsa110_contimg.imaging.masks import catalog_mask, read_mask, write_mask
from dsa110_contimg.imaging.measure import measure_image, off_source_region
from dsa110_contimg.imaging.obs_context import grid_for, require_memory, require_one_field
from dsa110_contimg.imaging.primary_beam import beam_image, correct_for_beam
from dsa110_contimg.imaging.products import ImageSet, _remove_others, write_products
from dsa110_contimg.imaging.restoring_beam import fit_beam
from dsa110_contimg.imaging.stokes import StokesI, stokes_i
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities, wsclean_arguments
from dsa110_contimg.imaging.wsclean.clean import clean_with_wsclean, working_folder, wsclean_input
from dsa110_contimg.imaging.wsclean.runner import open_wsclean
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.sky import AiryBeam, Seed, beam_for_antenna, build_seed
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseEstimator, VisibilityReader, open_recovered, turn_phases
from dsa110_contimg.visibilities.columns import require_space
from dsa110_contimg.visibilities.measurement_set import require_outside_tables

__all__ = ["Weights", "image_ms"]

Weights = tuple[Float, Float, Float]


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
    _require_consistent(config)
    ms = open_recovered(ms_path)
    require_outside_tables(prefix.parent)
    column = column or ("CORRECTED_DATA" if "CORRECTED_DATA" in ms.columns else "DATA")
    reader = VisibilityReader(ms, ms.select(field, spw), column)
    require_memory(reader, config)
    beam = (
        AiryBeam(config.dish_diameter_m)
        if config.dish_diameter_m is not None
        else beam_for_antenna(ms.telescope, float(np.median(ms.antennas.dish_diameter_m)))
    )
    fwhm = beam.fwhm_rad(float(reader.freq_hz.min()))
    require_one_field(reader, fwhm)
    grid = grid_for(reader, config, fwhm)
    there = next(p for p in prefix.absolute().parents if p.exists())
    require_space(there, 16 * grid.size**2, "the images")
    seed = _seed(reader, beam, config) if config.catalog_mask else None
    given = read_mask(config.mask, grid) if config.mask is not None else None
    prefix.parent.mkdir(parents=True, exist_ok=True)
    wsclean = None
    if config.backend != "embedded":
        wsclean = open_wsclean(config, ms.path, prefix.parent)
        capabilities = detect_capabilities(wsclean)
        wsclean_arguments(config, grid, capabilities, thermal_rms_jy=1.0)
        label = f"WSClean {capabilities.version} ({wsclean.name})"
    else:
        label = "the embedded engine"
    imager, thermal, weights = _gather(reader, grid, config, progress)
    psf_beam = fit_beam(imager.psf(), grid)
    mask = given
    if seed is not None:
        found = catalog_mask(seed.sky, grid, psf_beam, config.mask_radius_arcsec)
        mask = found if given is None else found & given
    progress.note(f"imaging {column} with {label}: {grid.size} pixels of {grid.cell_rad / ARCSEC:.3g} arcsec")
    parts: list[Path] = []
    with contextlib.ExitStack() as stack:
        if wsclean is None:
            sigma, depth_jy = config.depth()
            result = clean(
                imager,
                niter=config.clean_iterations,
                threshold_jy=depth_jy or sigma * thermal or None,
                auto_threshold_sigma=sigma or None,
                mask_sigma=max(config.mask_sigma, sigma),
                multiscale=config.multiscale,
                mask=mask,
            )
        else:
            del imager  # its visibilities: the memory is WSClean's now
            folder = stack.enter_context(working_folder(prefix))
            mask_file = None
            if mask is not None:
                mask_file = folder / "mask.fits"
                write_mask(mask_file, mask, grid, float(reader.freq_hz.mean()), float(np.ptp(reader.freq_hz)))
            source, selecting = wsclean_input(reader, column, folder)
            result, parts = clean_with_wsclean(
                wsclean,
                capabilities,
                source,
                selecting,
                grid,
                config,
                folder,
                thermal_rms_jy=thermal,
                beam=psf_beam,
                mask=mask_file,
            )
        channels = []
        for part in parts:
            channels.append(prefix.with_name(prefix.name + part.name.removeprefix("w")))
            with replacing(channels[-1]) as temporary:
                part.rename(temporary)
    images = {
        "image": (result.restored, "JY/BEAM"),
        "residual": (result.residual, "JY/BEAM"),
        "model": (result.model, "JY/PIXEL"),
        "psf": (result.psf, "JY/BEAM"),
    }
    if config.pb_correct:
        response = beam_image(grid, beam, reader.pointing, *weights)
        images["pb"] = (response, "")
        images["image-pb"] = (correct_for_beam(result.restored, response), "JY/BEAM")
    if mask is not None:
        images["mask"] = (mask.astype(np.float32), "")
    paths = write_products(prefix, images, result, grid, reader, label)
    _remove_others(prefix, {*paths.values(), *channels})
    region = off_source_region(grid, [], [], result.model, result.beam)
    metrics = measure_image(result.restored, grid, result.beam, region, thermal_rms_jy=thermal)
    return ImageSet(
        paths["image"],
        paths["residual"],
        paths["model"],
        paths["psf"],
        metrics,
        label,
        paths.get("pb"),
        paths.get("image-pb"),
        paths.get("mask"),
        tuple(channels),
    )


def _require_consistent(config: ImagingConfig) -> None:
    """Refuse options that the imager chosen would leave without effect."""
    if config.backend == "embedded":
        for name in ("channels_out", "spectral_terms", "wsclean", "container_mounts"):
            if getattr(config, name) != type(config).model_fields[name].default:
                raise ConfigError("is an option of WSClean", name, "add --backend wsclean or container")
    if config.mask_radius_arcsec is not None and not config.catalog_mask:
        raise ConfigError("is given without a catalogue mask", "mask_radius_arcsec", "add --catalog-mask")


def _seed(reader: VisibilityReader, beam: AiryBeam, config: ImagingConfig) -> Seed:
    return build_seed(
        reader.pointing,
        reader.freq_hz,
        beam,
        catalog_dir=config.catalog_dir,
        min_mjy=config.nvss_min_mjy,
        min_apparent_mjy=config.seed_min_apparent_mjy,
        spectral_index=config.spectral_index,
    )


def _gather(
    reader: VisibilityReader, grid: ImageGrid, config: ImagingConfig, progress: Progress
) -> tuple[Imager, float, Weights]:
    """Read the data: an imager, the thermal rms, and weights by dump, frequencies, weights by channel."""
    chunks, noise = [], NoiseEstimator()
    by_dump = np.zeros(reader.times.size)
    by_channel: dict[int, Float] = {}
    for block in progress.track(reader.blocks(), reader.n_blocks, f"read {reader.column}"):
        vis, weight = stokes_i(block.data, block.weight, block.flag, block.spw.parallel)
        noise.add(vis[:, :, None], weight[:, :, None])
        uvw, path = reader.move_to_center(block)
        if path.any():
            vis = turn_phases(vis, path, block.spw.freq_hz)
        chunks.append(StokesI(uvw, block.spw.freq_hz, vis, weight))
        np.add.at(by_dump, block.slot, weight.sum(axis=1, dtype=float))
        sums = by_channel.setdefault(block.spw.id, np.zeros(block.spw.freq_hz.size))
        sums += weight.sum(axis=0, dtype=float)
    if not by_dump.any():
        raise MeasurementSetError("fully flagged: no unflagged visibility", reader.ms.path, "check FLAG")
    imager = Imager(chunks, grid, config.weighting, config.robust, config.threads)
    thermal = imager.thermal_rms(float(np.sqrt(noise.scale2 / 2)))
    freq = np.concatenate([reader.ms.spectral_window(s).freq_hz for s in by_channel])
    return imager, thermal, (by_dump, freq, np.concatenate(list(by_channel.values())))
