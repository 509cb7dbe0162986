"""Imaging a Measurement Set: what ``contimg image`` and the users' scripts call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import __version__
from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ConfigError, MeasurementSetError, ResourceError, SelectionError
from dsa110_contimg.imaging.clean import CleanResult, clean
from dsa110_contimg.imaging.engine import Imager
from dsa110_contimg.imaging.fits import write_image
from dsa110_contimg.imaging.grid import ImageGrid, choose_grid
from dsa110_contimg.imaging.measure import ImageMetrics, measure_image, off_source_region
from dsa110_contimg.imaging.stokes import StokesI, stokes_i
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.sky import angular_separation, beam_for_antenna
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseEstimator, VisibilityReader, open_recovered, turn_phases
from dsa110_contimg.visibilities.columns import require_space

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
    """

    image: Path
    residual: Path
    model: Path
    psf: Path
    metrics: ImageMetrics


def grid_for(reader: VisibilityReader, config: ImagingConfig, fwhm_rad: float) -> ImageGrid:
    """Choose the image grid about the phase centre, where the options leave it open.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    config : ImagingConfig
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


def require_memory(reader: VisibilityReader, config: ImagingConfig) -> None:
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
            history=[f"dsa110-contimg {__version__}, weighting and CLEAN by the embedded engine"],
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
    """Image one field of a Measurement Set with the embedded engine.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set; it is only read.
    name : Path or str
        Prefix of the products: ``NAME-image.fits``, ``-residual``, ``-model``, ``-psf``.
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
    ImagingError
        If imaging fails.
    """
    config, progress, prefix = config or ImagingConfig(), progress or LogProgress(), Path(name)
    ms = open_recovered(ms_path)
    inside = ms.path.resolve()
    if inside in prefix.resolve().parents:
        raise ResourceError("lies inside the Measurement Set", prefix, "choose another --name")
    column = column or ("CORRECTED_DATA" if "CORRECTED_DATA" in ms.columns else "DATA")
    reader = VisibilityReader(ms, ms.select(field, spw), column)
    require_memory(reader, config)
    beam = beam_for_antenna(ms.telescope, float(np.median(ms.antennas.dish_diameter_m)))
    fwhm = beam.fwhm_rad(float(reader.freq_hz.min()))
    require_one_field(reader, fwhm)
    grid = grid_for(reader, config, fwhm)
    there = next(p for p in prefix.absolute().parents if p.exists())
    require_space(there, 16 * grid.size**2, "the images")
    chunks, noise = [], NoiseEstimator()
    for block in progress.track(reader.blocks(), reader.n_blocks, f"read {column}"):
        hands = block.spw.parallel
        vis, weight = stokes_i(block.data, block.weight, block.flag, hands)
        noise.add(vis[:, :, None], weight[:, :, None])
        uvw, path = reader.move_to_center(block)
        if path.any():
            vis = turn_phases(vis, path, block.spw.freq_hz)
        chunks.append(StokesI(uvw, block.spw.freq_hz, vis, weight))
    if not any(chunk.weight.any() for chunk in chunks):
        raise MeasurementSetError("fully flagged: no unflagged visibility", ms.path, "check FLAG")
    progress.note(f"imaging {column}: {grid.size} pixels of {grid.cell_rad / ARCSEC:.3g} arcsec")
    imager = Imager(chunks, grid, config.weighting, config.robust, config.threads)
    thermal = imager.thermal_rms(float(np.sqrt(noise.scale2 / 2)))
    result = clean(
        imager,
        niter=config.clean_iterations,
        threshold_jy=config.clean_sigma * thermal or None,
        auto_threshold_sigma=config.clean_sigma,
        mask_sigma=max(config.mask_sigma, config.clean_sigma),
        multiscale=config.multiscale,
    )
    prefix.parent.mkdir(parents=True, exist_ok=True)
    paths = write_products(
        prefix,
        {
            "image": (result.restored, "JY/BEAM"),
            "residual": (result.residual, "JY/BEAM"),
            "model": (result.model, "JY/PIXEL"),
            "psf": (result.psf, "JY/BEAM"),
        },
        result,
        grid,
        reader,
    )
    region = off_source_region(grid, [], [], result.model, result.beam)
    metrics = measure_image(result.restored, grid, result.beam, region, thermal_rms_jy=thermal)
    return ImageSet(paths["image"], paths["residual"], paths["model"], paths["psf"], metrics)
