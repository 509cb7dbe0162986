"""What a self-calibration needs, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ConfigError, ResourceError
from dsa110_contimg.imaging.obs_context import grid_for, require_memory, require_one_field
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.selfcal.memory import require_available_memory
from dsa110_contimg.sky import AiryBeam, Seed, beam_for_antenna, build_seed
from dsa110_contimg.visibilities import (
    MeasurementSet,
    Selection,
    VisibilityReader,
    lock_beside,
    open_measurement_set,
    open_recovered,
)
from dsa110_contimg.visibilities.columns import require_space
from dsa110_contimg.visibilities.measurement_set import require_outside_tables

__all__ = ["IMAGES", "Plan", "make_plan", "owned"]

#: FITS images that a run can write.
IMAGES = (
    "initial-image",
    "final-image",
    "final-difference",
    "final-residual",
    "final-model",
    "final-psf",
)


@dataclass(frozen=True)
class Plan:
    """Everything a run needs, checked; `listed` are the sources of a catalogue mask, also without a seed."""

    ms: MeasurementSet
    selection: Selection
    reader: VisibilityReader
    initial: tuple[GainTable, ...]
    beam: AiryBeam
    seed: Seed | None
    listed: Seed | None
    config: SelfCalConfig
    output_dir: Path
    reference_antennas: tuple[int, ...]


def owned(ms_path: Path, progress: Progress) -> AbstractContextManager[None]:
    """Own a Measurement Set for the whole run, from the first look to the last column.

    Raises
    ------
    MeasurementSetError
        If there is none.
    ResourceError
        If it has another owner.
    """
    if not (ms_path / "table.dat").is_file():
        open_measurement_set(ms_path)  # which says what is there instead
    return lock_beside(ms_path, "contimg selfcal", progress)


def make_plan(
    ms_path: Path, output_dir: Path, config: SelfCalConfig, caltables: Sequence[Path | str]
) -> Plan:
    """Check everything that can be checked before anything is written."""
    ms = open_recovered(ms_path)
    ms.require_writable()
    selection = ms.select(config.field, config.spw)
    reader = VisibilityReader(ms, selection, cache_bytes=int(config.memory_gb * 1e9))
    initial = []
    for path in caltables:
        table = read_gain_table(path, ms)
        table = replace(table, interpolation=config.initial_interpolation, spw_map=config.spw_map_dict())
        if config.initial_field == "nearest":
            table = table.with_nearest_field(*reader.phase_center)
        for spw in selection.spw_ids:
            table.for_window(spw)
        initial.append(table)
    if config.dish_diameter_m is not None:
        beam = AiryBeam(config.dish_diameter_m)
    else:
        beam = beam_for_antenna(ms.telescope, float(np.median(ms.antennas.dish_diameter_m)))
    require_one_field(reader, beam.fwhm_rad(float(reader.freq_hz.min())))
    seed = listed = None
    if config.use_nvss_seeding or config.catalog_mask:
        listed = build_seed(
            reader.pointing,
            reader.freq_hz,
            beam,
            catalog=config.catalog,
            catalog_dir=config.catalog_dir,
            min_mjy=config.nvss_min_mjy,
            min_apparent_mjy=config.seed_min_apparent_mjy,
            spectral_index=config.spectral_index,
        )
        seed = listed if config.use_nvss_seeding else None
    require_outside_tables(output_dir)
    resolved = [Path(t).resolve() for t in caltables]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("the same initial table is given twice", "caltable", "give each once")
    for path in resolved:
        if output_dir.resolve() in path.parents:
            raise ConfigError("an initial table lies in the output folder", path, "choose another folder")
    if config.mask_radius_arcsec is not None and not config.catalog_mask:
        raise ConfigError("is given without a catalogue mask", "mask_radius_arcsec", "add --catalog-mask")
    if config.spw_map and not caltables:
        raise ConfigError("is given without initial tables", "spw_map", "give --caltable too")
    if output_dir.exists() and not output_dir.is_dir():
        raise ResourceError("is not a folder", output_dir, "choose another output folder")
    there = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK):
        raise ResourceError("cannot be written", there, "choose another output folder")
    require_memory(reader, config)
    pixels = grid_for(reader, config, beam.fwhm_rad(float(reader.freq_hz.min()))).size ** 2
    require_available_memory(reader, config, pixels)
    Observation(reader, initial, LogProgress()).require_unflagged()
    require_space(there, 4 * pixels * len(IMAGES), "the images")
    cells = sum(w.freq_hz.size * len(w.corr_type) for w in ms.spectral_windows) * (
        ms.n_rows // len(ms.spectral_windows)
    )
    require_space(ms.path, 2 * 8 * cells, "MODEL_DATA and CORRECTED_DATA")
    names = [w.strip() for w in (config.refant or "").split(",") if w.strip()]
    unknown = [n for n in names if n not in ms.antennas.name]
    if unknown:
        raise ConfigError(f"no antenna {unknown[0]!r}", "refant", f"present: {', '.join(ms.antennas.name)}")
    return Plan(
        ms,
        selection,
        reader,
        tuple(initial),
        beam,
        seed,
        listed,
        config,
        output_dir,
        tuple(ms.antennas.name.index(n) for n in names),
    )
