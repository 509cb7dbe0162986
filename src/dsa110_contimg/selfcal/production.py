"""The final image by WSClean, from the same calibrated visibilities as the embedded engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.config import ImagingConfig, SelfCalConfig
from dsa110_contimg.imaging import ImageGrid, Imager, RestoringBeam, fit_beam
from dsa110_contimg.imaging.masks import write_mask
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities
from dsa110_contimg.imaging.wsclean.clean import clean_with_wsclean, working_folder
from dsa110_contimg.imaging.wsclean.runner import WSClean
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.selfcal.imaging import CalibratedImage, with_sources
from dsa110_contimg.sky import Seed
from dsa110_contimg.visibilities import Block, write_selection

__all__ = ["make_image_with_wsclean"]


def make_image_with_wsclean(
    wsclean: WSClean,
    observation: Observation,
    tables: Sequence[GainTable],
    grid: ImageGrid,
    config: SelfCalConfig,
    output_dir: Path,
    *,
    seed: Seed | None = None,
    catalogue: Seed | None = None,
    noise: float = 0.0,
    mask_for: Callable[[RestoringBeam], Bool] | None = None,
) -> CalibratedImage:
    """Image calibrated data as :func:`~dsa110_contimg.selfcal.imaging.make_image`, but with WSClean.

    WSClean gets a copy of the selection with one phase centre, in which the
    calibrated visibilities, less the seed if one is given, are DATA, and the
    weights those of the embedded engine. The Measurement Set is only read.

    Parameters
    ----------
    wsclean : WSClean
        Which.
    observation : Observation
        The data; its model is what is subtracted.
    tables : sequence of GainTable
        Gains applied after the initial tables.
    grid : ImageGrid
        Where.
    config : SelfCalConfig
        How.
    output_dir : Path
        The copy lies there meanwhile, visible to WSClean.
    seed, catalogue, noise, mask_for
        As of ``make_image``.

    Returns
    -------
    CalibratedImage

    Raises
    ------
    WSCleanError, DeadlineError, ContainerError
        If WSClean fails.
    ResourceError
        If the copy does not fit on the disk.
    """
    chunks = observation.stokes(tables, seed is not None, "weights", None, grid.size / 2 * grid.cell_rad)
    imager = Imager(chunks, grid, config.weighting, config.robust, config.threads)
    del chunks
    beam = fit_beam(imager.psf(), grid)
    thermal_per_noise = imager.thermal_rms(1.0)
    del imager  # the memory is WSClean's now

    def calibrated() -> Iterator[tuple[Block, Vis, Weight]]:
        for block, model in observation.blocks(f"copy for {wsclean.name}", with_model=seed is not None):
            vis, weight = observation.corrected(block, tables)
            if model is not None:
                vis = vis.copy()
                for k in block.spw.parallel:
                    vis[:, :, k] -= model
            yield block, vis, weight

    with working_folder(output_dir / "final") as folder:
        copy = folder / "calibrated.ms"
        write_selection(copy, observation.reader, calibrated())
        mask = None
        if mask_for is not None:
            mask = folder / "mask.fits"
            freq = observation.reader.freq_hz
            write_mask(mask, mask_for(beam), grid, float(freq.mean()), float(np.ptp(freq)))
        cleaned, _ = clean_with_wsclean(
            wsclean,
            detect_capabilities(wsclean),
            copy,
            ["-field", "0", "-data-column", "DATA"],
            grid,
            _options(config),
            folder,
            thermal_rms_jy=thermal_per_noise * noise,
            beam=beam,
            mask=mask,
        )
    return with_sources(cleaned, cleaned, grid, thermal_per_noise, seed, catalogue)


def _options(config: SelfCalConfig) -> ImagingConfig:
    """Options of the image: those that self-calibration shares, the others at their defaults."""
    shared = {
        name: getattr(config, name, field.default) for name, field in ImagingConfig.model_fields.items()
    }
    return ImagingConfig(**shared)
