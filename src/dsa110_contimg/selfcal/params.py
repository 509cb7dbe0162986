"""What a self-calibration needs, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ConfigError, MeasurementSetError, ResourceError
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.obs_context import ObsContext, open_observation, require_memory
from dsa110_contimg.progress import Progress
from dsa110_contimg.selfcal.averaged_data import BYTES_PER_SCATTERED, Averaging, averaged_samples
from dsa110_contimg.selfcal.memory import (
    MODELS_OF_POINTING,
    pointing_bytes,
    require_available_memory,
    sub_bands_of_window,
)
from dsa110_contimg.selfcal.naming import COLUMNS, IMAGES
from dsa110_contimg.selfcal.pointing_report import read_pointing
from dsa110_contimg.sky import ApparentSky, PrimaryBeam
from dsa110_contimg.sky.apparent_sky import through_beams
from dsa110_contimg.visibilities import (
    MeasurementSet,
    VisibilityReader,
    lock_beside,
    nothing_usable,
    open_measurement_set,
)
from dsa110_contimg.visibilities.columns import require_space
from dsa110_contimg.visibilities.tables import require_outside_tables, require_own_data

__all__ = ["SelfCalParams", "averaging_of", "check_params", "owned", "reference_antennas", "with_beam"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfCalParams:
    """Everything that a run needs, checked.

    Attributes
    ----------
    context : ObsContext
        The observation: data, beam, grid and options.
    initial : tuple of GainTable
        Initial tables.
    catalog_model : ApparentSky or None
        What the catalogue lists, through the beam; none in an unseeded run.
    mask_sources : ApparentSky or None
        Sources of a catalogue mask, also in an unseeded run.
    config : SelfCalConfig
        Options.
    output_dir : Path
        Where the products go.
    data_identity : str
        What tells the data from those of all other observations; empty where nothing needs it.
    """

    context: ObsContext
    initial: tuple[GainTable, ...]
    catalog_model: ApparentSky | None
    mask_sources: ApparentSky | None
    config: SelfCalConfig
    output_dir: Path
    data_identity: str = ""

    @property
    def averaging(self) -> Averaging:
        """How far channels are averaged."""
        return averaging_of(self.context, self.output_dir, self.config)

    @property
    def ms(self) -> MeasurementSet:
        """The Measurement Set."""
        return self.context.ms

    @property
    def reader(self) -> VisibilityReader:
        """The selected data."""
        return self.context.reader

    @property
    def grid(self) -> ImageGrid:
        """Grid of the images."""
        return self.context.grid


def averaging_of(context: ObsContext, output_dir: Path, config: SelfCalConfig) -> Averaging:
    """How far an observation is averaged."""
    grid = context.grid
    plain = Averaging(
        half_width_rad=grid.half_width_rad,
        sub_bands=max(1, sub_bands_of_window(context.reader, config)),
        memory_bytes=config.memory_gb * 1e9,
        scratch=output_dir,
        average=config.average,
    )
    if not _solves_pointing(config):
        return plain
    beside = pointing_bytes(context.reader, averaged_samples(context.reader, plain))
    return replace(plain, models=MODELS_OF_POINTING, working_bytes=beside)


def _solves_pointing(config: SelfCalConfig) -> bool:
    """Whether pointing offsets of the antennas are looked for."""
    return config.use_nvss_seeding and config.pointing != "off"


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


def check_params(
    ms_path: Path, output_dir: Path, config: SelfCalConfig, caltables: Sequence[Path | str]
) -> SelfCalParams:
    """Check everything that can be checked before anything is written.

    Parameters
    ----------
    ms_path, output_dir : Path
        Measurement Set, and where the products go.
    config : SelfCalConfig
        Options.
    caltables : sequence of Path or str
        Initial tables.

    Returns
    -------
    SelfCalParams

    Raises
    ------
    InputError
        If something handed in cannot be used.
    """
    # Before anything that a killed run left is put right in it; also where no column is asked for, those of
    # an earlier run are taken away.
    require_own_data(ms_path)
    context = open_observation(
        ms_path,
        config,
        field=config.field,
        spw=config.spw,
        column=config.column,
        cached=True,
        writable=True,
        averaged=True,
    )
    initial = _initial_tables(caltables, context.reader, config)
    listed = _listed(context, config)
    _require_consistent(config, output_dir, caltables)
    _require_room(context, output_dir, config)
    reference_antennas(config, context.ms)
    most = context.reader.most_baselines_of_antenna
    if most < 2:
        raise MeasurementSetError(
            "holds one baseline an antenna: gains of two antennas follow whatever it shows, and it cannot "
            "make an image",
            context.ms.path,
            "calibrate an array of three antennas or more",
        )
    if most < config.min_baselines:
        raise ConfigError(
            f"no antenna has more than {most} baselines, fewer than the {config.min_baselines} asked for: "
            "all solutions would be flagged",
            "min_baselines",
            f"give --min-baselines {most}, or calibrate another array",
        )
    return SelfCalParams(
        context=context,
        initial=initial,
        catalog_model=listed if config.use_nvss_seeding else None,
        mask_sources=listed if config.catalog_mask else None,
        config=config,
        output_dir=output_dir,
    )


def _listed(context: ObsContext, config: SelfCalConfig) -> ApparentSky | None:
    """Look the field up, and at it through the beams as they are known; None if nothing asks for it."""
    listed = context.catalog_model() if config.use_nvss_seeding or config.catalog_mask else None
    if listed is None or config.pointing_file is None:
        return listed
    if listed.sky.apparent.any():
        raise ConfigError(
            "is given beside a model whose fluxes hold the beam, wherever that pointed",
            "pointing_file",
            "give one of them, or a model of true fluxes",
        )
    beams = read_pointing(config.pointing_file, context.ms.antennas.name)
    middle = context.reader.pointing[len(context.reader.times) // 2]
    return through_beams(listed, beams, float(middle[0]), float(middle[1]))


def with_beam(params: SelfCalParams, beam: PrimaryBeam) -> SelfCalParams:
    """Return what a run needs with another beam: what the catalogue lists is looked up anew."""
    context, config = replace(params.context, known_beam=beam), params.config
    listed = _listed(context, config)
    return replace(
        params,
        context=context,
        catalog_model=listed if config.use_nvss_seeding else None,
        mask_sources=listed if config.catalog_mask else None,
    )


def reference_antennas(config: SelfCalConfig, ms: MeasurementSet) -> tuple[int, ...]:
    """Antennas that are asked for as references, by number, best first.

    Raises
    ------
    ConfigError
        If there is no antenna of such a name.
    """
    names = [w.strip() for w in (config.refant or "").split(",") if w.strip()]
    unknown = [n for n in names if n not in ms.antennas.name]
    if unknown:
        raise ConfigError(f"no antenna {unknown[0]!r}", "refant", f"present: {', '.join(ms.antennas.name)}")
    return tuple(ms.antennas.name.index(n) for n in names)


def _initial_tables(
    caltables: Sequence[Path | str], reader: VisibilityReader, config: SelfCalConfig
) -> tuple[GainTable, ...]:
    initial = []
    for path in caltables:
        table = read_gain_table(path, reader.ms)
        table = replace(table, interpolation=config.initial_interpolation, spw_map=config.spw_map_dict())
        if config.initial_field == "nearest":
            table = table.with_nearest_field(*reader.phase_center)
        for spw in reader.selection.spw_ids:
            table.for_spw(spw)
        initial.append(table)
    return tuple(initial)


def _require_consistent(config: SelfCalConfig, output_dir: Path, caltables: Sequence[Path | str]) -> None:
    """Refuse options without effect, and folders that would be in each other's way."""
    require_outside_tables(output_dir)
    resolved = [Path(t).resolve() for t in caltables]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("the same initial table is given twice", "caltable", "give each once")
    for path in resolved:
        if output_dir.resolve() in path.parents:
            raise ConfigError("an initial table lies in the output folder", path, "choose another folder")
    if config.solve_beam_width and config.model_fluxes == "apparent" and not config.model_adds:
        raise ConfigError(
            "is asked for with a model whose fluxes hold the beam: nothing depends on its width",
            "solve_beam_width",
            "leave it out, or give a model of true fluxes",
        )
    if config.spw_map and not caltables:
        raise ConfigError("is given without initial tables", "spw_map", "give --caltable too")
    there = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ResourceError("is not a folder", there, "choose another output folder")


def _require_room(context: ObsContext, output_dir: Path, config: SelfCalConfig) -> None:
    """Raise an error if permission, memory, unflagged data or space on a disk is not there."""
    reader, ms, pixels = context.reader, context.ms, context.grid.size**2
    there = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK):
        raise ResourceError("cannot be written", there, "choose another output folder")
    averaging = averaging_of(context, output_dir, config)
    if averaging.worthwhile(reader):
        require_memory(reader, config, averaged_samples(reader, averaging) * BYTES_PER_SCATTERED)
    else:
        require_memory(reader, config)
    windows = len(reader.selection.spw_ids) if config.combine_spw == "off" else 1
    require_available_memory(
        reader,
        pixels,
        sub_bands_of_window(reader, config),
        averaging,
        split_windows=windows if config.use_nvss_seeding else 0,
        pointing=_solves_pointing(config),
    )
    if not any(not b.flag[:, :, list(b.spw.parallel)].all() for b in reader.blocks()):
        raise nothing_usable(reader)
    require_space(there, 4 * pixels * len(IMAGES), "the images")
    cells = sum(w.freq_hz.size * len(w.corr_type) for w in ms.spectral_windows) * (
        ms.n_rows // len(ms.spectral_windows)
    )
    columns = COLUMNS[config.columns]
    require_space(ms.path, len(columns) * 8 * cells, " and ".join(columns) or "flags")
