"""One observation, opened and checked."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.config import CleanConfig
from dsa110_contimg.errors import ConfigError, ResourceError, SelectionError
from dsa110_contimg.imaging.grid import ImageGrid, choose_grid
from dsa110_contimg.sky import angular_separation
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import VisibilityReader

__all__ = ["BYTES_PER_VISIBILITY", "grid_for", "require_memory", "require_one_field"]

#: Stokes I visibility, weight and imaging weight of one sample.
BYTES_PER_VISIBILITY = 16


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
