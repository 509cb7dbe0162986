"""Imaging a Measurement Set: what ``contimg image`` and the users' scripts call."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import __version__
from dsa110_contimg.config import CleanConfig, ImagingConfig
from dsa110_contimg.errors import ConfigError, MeasurementSetError, ResourceError, SelectionError
from dsa110_contimg.imaging.beamfit import fit_beam
from dsa110_contimg.imaging.clean import CleanResult, clean
from dsa110_contimg.imaging.engine import Imager
from dsa110_contimg.imaging.fits import write_image
from dsa110_contimg.imaging.grid import ImageGrid, choose_grid
from dsa110_contimg.imaging.masks import catalog_mask, read_mask, write_mask
from dsa110_contimg.imaging.measure import ImageMetrics, measure_image, off_source_region
from dsa110_contimg.imaging.primary_beam import beam_image, correct_for_beam
from dsa110_contimg.imaging.stokes import StokesI, stokes_i
from dsa110_contimg.imaging.wsclean import (
    clean_with_wsclean,
    detect_capabilities,
    open_wsclean,
    working_folder,
    wsclean_arguments,
    wsclean_input,
)
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.sky import AiryBeam, Seed, angular_separation, beam_for_antenna, build_seed
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseEstimator, VisibilityReader, open_recovered, turn_phases
from dsa110_contimg.visibilities.columns import require_space
from dsa110_contimg.visibilities.measurement_set import require_outside_tables

__all__ = ["ImageSet", "grid_for", "image_ms", "require_memory", "require_one_field", "write_products"]

#: Stokes I visibility, weight and imaging weight of one sample.
BYTES_PER_VISIBILITY = 16


@dataclass(frozen=True)
class ImageSet:
    """Images of one field, and where they lie.

    Attributes
    ----------
    image, residual, model, psf : Path
        FITS files; Jy/beam, the model Jy/pixel.
    metrics : ImageMetrics
        Noise, peak and dynamic range; the region is everything more than three
        beams from a clean component.
    imager : str
        What made them.
    pb, image_pb : Path or None
        Primary beam, and the image divided by it, if asked for.
    mask : Path or None
        Catalogue mask, if asked for.
    channels : tuple of Path
        Images of the parts of the band, if asked for.
    """

    image: Path
    residual: Path
    model: Path
    psf: Path
    metrics: ImageMetrics
    imager: str
    pb: Path | None = None
    image_pb: Path | None = None
    mask: Path | None = None
    channels: tuple[Path, ...] = ()


def grid_for(reader: VisibilityReader, config: CleanConfig, fwhm_rad: float) -> ImageGrid:
    """Choose the image grid about the phase centre, where the options leave it open.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    config : CleanConfig
        Size and cell, if given.
    fwhm_rad : float
        Width of the primary beam at the lowest frequency.

    Raises
    ------
    ConfigError
        If the cell undersamples the longest baseline.
    """
    chosen = choose_grid(
        *reader.phase_center,
        max_baseline_m=reader.max_baseline_m,
        freq_lo_hz=float(reader.freq_hz.min()),
        freq_hi_hz=float(reader.freq_hz.max()),
        fwhm_rad=fwhm_rad,
    )
    cell = chosen.cell_rad if config.cell_arcsec is None else config.cell_arcsec * ARCSEC
    finest = SPEED_OF_LIGHT / float(reader.freq_hz.max()) / reader.max_baseline_m
    if cell > finest / 2:
        raise ConfigError(
            f"a cell of {cell / ARCSEC:.3g} arcsec undersamples baselines of {reader.max_baseline_m:.0f} m",
            "cell_arcsec",
            f"at most {finest / 2 / ARCSEC:.3g} arcsec",
        )
    size = chosen.size if config.size is None else config.size + config.size % 2
    return ImageGrid(size, cell, *reader.phase_center)


def require_one_field(reader: VisibilityReader, fwhm_rad: float) -> None:
    """Raise SelectionError if phase centres lie further apart than one primary beam.

    A drift scan has a phase centre for each dump, all within the beam; a
    target and its calibrators do not belong into one image.
    """
    centres = [reader.ms.field(int(f)) for f in np.unique(reader.field_id)]
    apart = angular_separation(
        [f.ra_rad for f in centres], [f.dec_rad for f in centres], *reader.phase_center
    )
    if float(np.max(apart)) > fwhm_rad / 2:
        names = ", ".join(f"{f.id}={f.name}" for f in centres)
        raise SelectionError(
            f"{len(centres)} fields up to {np.degrees(np.max(apart)):.2f} deg apart are selected",
            reader.ms.path,
            f"choose one with --field: {names}",
        )


def require_memory(reader: VisibilityReader, config: CleanConfig) -> None:
    """Raise ResourceError if the visibilities to image do not fit into the memory allowed."""
    needed = reader.samples * BYTES_PER_VISIBILITY / 2
    if needed > config.memory_gb * 1e9:
        raise ResourceError(
            f"imaging needs {needed / 1e9:.1f} GB for visibilities, memory_gb is {config.memory_gb:g}",
            reader.ms.path,
            "raise --memory-gb or select spectral windows with --spw",
        )


def write_products(
    prefix: Path,
    images: dict[str, tuple[NDArray[np.float32], str]],
    result: CleanResult,
    grid: ImageGrid,
    reader: VisibilityReader,
    imager: str = "the embedded engine",
) -> dict[str, Path]:
    """Write FITS images ``PREFIX-NAME.fits``.

    Parameters
    ----------
    prefix : Path
        Folder and beginning of the names.
    images : dict of str to (ndarray, str)
        Images by name, each with its unit.
    result : CleanResult
        For the beam.
    grid : ImageGrid
        Their grid.
    reader : VisibilityReader
        For telescope, field, time and frequency.
    imager : str
        For the history.

    Returns
    -------
    dict of str to Path
        Where they lie.
    """
    ms = reader.ms
    windows = [ms.spectral_window(s) for s in reader.selection.spw_ids]
    paths = {}
    for name, (image, unit) in images.items():
        paths[name] = prefix.with_name(f"{prefix.name}-{name}.fits")
        write_image(
            paths[name],
            image,
            grid,
            result.beam,
            freq_hz=float(reader.freq_hz.mean()),
            bandwidth_hz=float(sum(w.width_hz.sum() for w in windows)),
            telescope=ms.telescope,
            target=reader.field_name,
            date_obs=str(Time(float(reader.times[0]) / 86400.0, format="mjd", scale="utc").isot),
            unit=unit,
            history=[f"dsa110-contimg {__version__}, weighting and CLEAN by {imager}"],
        )
    return paths


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
            part.replace(channels[-1])
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


def _remove_others(prefix: Path, made: set[Path]) -> None:
    """Remove products of an earlier run of this name that this one does not make: they would not fit."""
    optional = [prefix.with_name(f"{prefix.name}-{name}.fits") for name in ("image-pb", "pb", "mask")]
    channels = [p for p in prefix.parent.iterdir() if re.fullmatch(r"-\d{4}-image\.fits", _after(prefix, p))]
    for path in {*optional, *channels} - made:
        path.unlink(missing_ok=True)


def _after(prefix: Path, path: Path) -> str:
    return path.name.removeprefix(prefix.name) if path.name.startswith(prefix.name) else ""


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


Weights = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _gather(
    reader: VisibilityReader, grid: ImageGrid, config: ImagingConfig, progress: Progress
) -> tuple[Imager, float, Weights]:
    """Read the data: an imager, the thermal rms, and weights by dump, frequencies, weights by channel."""
    chunks, noise = [], NoiseEstimator()
    by_dump = np.zeros(reader.times.size)
    by_channel: dict[int, NDArray[np.float64]] = {}
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
