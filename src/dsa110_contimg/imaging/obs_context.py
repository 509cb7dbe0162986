"""One observation, opened and checked once, for every command that works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsa110_contimg.config import CleanConfig, ObservationConfig
from dsa110_contimg.errors import (
    ConfigError,
    ImagingError,
    MeasurementSetError,
    ResourceError,
    SelectionError,
)
from dsa110_contimg.imaging.beam_choice import beam_of_observation
from dsa110_contimg.imaging.grid import ImageGrid, choose_grid
from dsa110_contimg.imaging.restoring_beam import POINT_SPREAD_FUNCTION
from dsa110_contimg.sky import (
    ApparentSky,
    PrimaryBeam,
    add_own_model,
    angular_separation,
    build_catalog_model,
    build_own_model,
)
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import MeasurementSet, VisibilityReader, open_recovered
from dsa110_contimg.visibilities.columns import column_as_found
from dsa110_contimg.visibilities.phase_frame import phase_frame

__all__ = [
    "BYTES_PER_VISIBILITY",
    "ObsContext",
    "catalogue_through",
    "enough_baselines",
    "grid_for",
    "open_observation",
    "require_memory",
    "require_one_field",
]

#: Baselines times dumps that may be too few for an image.
FEW_TRACKS = 300
#: Stokes I visibility, weight and imaging weight of one sample.
BYTES_PER_VISIBILITY = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class ObsContext:
    """An observation as its options select it.

    Attributes
    ----------
    reader : VisibilityReader
        The selected data.
    known_beam : PrimaryBeam or None
        Primary beam; None where neither the telescope nor its dish is known.
    grid : ImageGrid
        Grid of images about the phase centre.
    config : ObservationConfig
        The checked options.
    notes : tuple of str
        What is worth saying about the data before they are read.
    beam_notes : tuple of str
        What is to be known of the choice of the beam, where it is used.
    """

    reader: VisibilityReader
    known_beam: PrimaryBeam | None
    grid: ImageGrid
    config: ObservationConfig
    notes: tuple[str, ...] = ()
    beam_notes: tuple[str, ...] = ()

    @property
    def beam(self) -> PrimaryBeam:
        """Primary beam.

        Raises
        ------
        MeasurementSetError
            If none is known.
        """
        if self.known_beam is None:
            # Says which telescope, and what to do.
            return beam_of_observation(self.reader, self.config)[0]
        return self.known_beam

    @property
    def ms(self) -> MeasurementSet:
        """The Measurement Set."""
        return self.reader.ms

    def catalog_model(
        self,
        *,
        catalog: str | None = None,
        min_mjy: float | None = None,
        min_apparent_mjy: float | None = None,
    ) -> ApparentSky:
        """Look the field up in a catalogue, or take a model of one's own, as the options say.

        Limits on the flux are those of catalogue sources: of a model of one's own all components count.

        Parameters
        ----------
        catalog : str, optional
            Another catalogue than that of the options.
        min_mjy, min_apparent_mjy : float, optional
            Other limits on the catalogued flux and on that seen through the beam, in millijansky.

        Returns
        -------
        ApparentSky

        Raises
        ------
        SeedError
            If no source passes the limits.
        SkyModelError
            If a model of one's own cannot be used.
        CatalogError
            If the catalogue is missing or does not cover the field.
        """
        config, own = self.config, None
        if config.model is not None:
            own = build_own_model(
                config.model,
                self.reader.pointing,
                self.reader.freq_hz,
                self.beam,
                self.reader.phase_center,
                fluxes=config.model_fluxes,
                spectral_index=config.spectral_index,
                frame=phase_frame(self.ms),
            )
            if not config.model_adds:
                return own
        listed = catalogue_through(
            self.beam,
            self.reader,
            config,
            catalog=catalog,
            min_mjy=min_mjy,
            min_apparent_mjy=min_apparent_mjy,
        )
        if own is None:
            return listed
        resolution = SPEED_OF_LIGHT / float(self.reader.freq_hz.max()) / self.reader.max_baseline_m
        return add_own_model(own, listed, resolution)


def catalogue_through(
    beam: PrimaryBeam,
    reader: VisibilityReader,
    config: ObservationConfig,
    *,
    catalog: str | None = None,
    min_mjy: float | None = None,
    min_apparent_mjy: float | None = None,
) -> ApparentSky:
    """Look the field up in a catalogue as the options say, through any beam.

    Parameters
    ----------
    beam : PrimaryBeam
        Primary beam.
    reader : VisibilityReader
        The observation.
    config : ObservationConfig
        Options.
    catalog, min_mjy, min_apparent_mjy : optional
        In the place of those of the options, as of :meth:`ObsContext.catalog_model`.

    Raises
    ------
    SeedError
        If no source passes the limits.
    CatalogError
        If the catalogue is missing or does not cover the field.
    """
    return build_catalog_model(
        reader.pointing,
        reader.freq_hz,
        beam,
        catalog=config.catalog if catalog is None else catalog,
        catalog_dir=config.catalog_dir,
        min_mjy=config.nvss_min_mjy if min_mjy is None else min_mjy,
        min_apparent_mjy=config.seed_min_apparent_mjy if min_apparent_mjy is None else min_apparent_mjy,
        spectral_index=config.spectral_index,
        index_from=config.index_from,
        frame=phase_frame(reader.ms),
        phase_center=reader.phase_center,
    )


def open_observation(
    ms_path: Path | str,
    config: ObservationConfig,
    *,
    field: str | None = None,
    spw: str | None = None,
    column: str | None = "DATA",
    cached: bool = False,
    writable: bool = False,
    averaged: bool = False,
) -> ObsContext:
    """Open a Measurement Set and check what can be checked without reading its data.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set.
    config : ObservationConfig
        Options.
    field, spw : str, optional
        Selection, as :meth:`MeasurementSet.select` takes it.
    column : str or None
        Column to read; None takes CORRECTED_DATA where there is one, else DATA.
    cached : bool
        Keep the blocks in memory if they fit into `memory_gb`.
    writable : bool
        Whether columns are to be written: what is read then is the column as it was before any run.
    averaged : bool
        Whether visibilities may be averaged before they are imaged: the caller checks that they fit.

    Returns
    -------
    ObsContext

    Raises
    ------
    InputError
        If something handed in cannot be used.
    """
    if config.mask_radius_arcsec is not None and not config.catalog_mask:
        raise ConfigError("is given without a catalogue mask", "mask_radius_arcsec", "add --catalog-mask")
    if config.model is not None and not (config.catalog_mask or getattr(config, "use_nvss_seeding", False)):
        raise ConfigError("is given where nothing starts from it", "model", "add --catalog-mask, or --seed")
    ms = open_recovered(ms_path)
    if writable:
        ms.require_writable()
    if column is None:
        column = "CORRECTED_DATA" if "CORRECTED_DATA" in ms.columns else "DATA"
    if writable:
        column = column_as_found(ms, column)
    cache_bytes = int(config.memory_gb * 1e9) if cached else 0
    reader = VisibilityReader(ms, ms.select(field, spw), column, cache_bytes=cache_bytes)
    beam, of_beam = _beam_if_known(reader, config)
    fwhm = None if beam is None else beam.fwhm_rad(float(reader.freq_hz.min()))
    grid = grid_for(reader, config, fwhm)
    require_one_field(reader, 2 * grid.half_width_rad if fwhm is None else fwhm)
    if not averaged:
        require_memory(reader, config)
    placeholder = _placeholder(reader, beam)
    if placeholder:
        # How a beam lies on the sky depends on where it points.
        beam, of_beam = _beam_if_known(reader, config)
    notes = (*_notes(reader, beam, grid), *placeholder)
    return ObsContext(
        reader=reader, known_beam=beam, grid=grid, config=config, notes=notes, beam_notes=of_beam
    )


def _beam_if_known(
    reader: VisibilityReader, config: ObservationConfig
) -> tuple[PrimaryBeam | None, tuple[str, ...]]:
    """Choose the beam, with notes on it; none where neither the telescope nor its dish is known."""
    try:
        return beam_of_observation(reader, config)
    except MeasurementSetError:
        return None, ()


def _placeholder(reader: VisibilityReader, beam: PrimaryBeam | None) -> list[str]:
    """Ignore a POINTING table, and say so, if it has the dishes always look past what is observed."""
    if beam is None:
        # Nothing is asked of it.
        return []
    fields = [reader.ms.field(int(f)) for f in reader.field_id]
    at = reader.pointing
    off = angular_separation([f.ra_rad for f in fields], [f.dec_rad for f in fields], at[:, 0], at[:, 1])
    nearest = float(np.min(off))
    if nearest <= beam.null_rad(float(reader.freq_hz.min()), 2):
        return []
    ra, dec = np.degrees(at[0])
    reader.ignore_pointing()
    return [
        f"POINTING says RA {ra:.2f} Dec {dec:+.2f} deg, {np.degrees(nearest):.0f} deg from the phase centre, "
        "where no beam reaches: ignored"
    ]


def _notes(reader: VisibilityReader, beam: PrimaryBeam | None, grid: ImageGrid) -> Iterator[str]:
    """Say what was done about data that are not as they should be."""
    ms = reader.ms
    if ms.frames:
        yield f"phase centres are in {', '.join(ms.frames)}: converted to ICRS"
    if reader.unweighted:
        yield (
            "neither WEIGHT nor WEIGHT_SPECTRUM holds a positive number: "
            "all visibilities count alike, and their noise is what the data tell"
        )
    if reader.n_rows_nowhere:
        yield f"{reader.n_rows_nowhere} rows whose UVW is zero or not finite are left out"
    if beam is None:
        yield (
            f"no dish is known of telescope {ms.telescope!r}: no primary beam, and an image of {grid.size} "
            "pixels unless --size says otherwise"
        )


def grid_for(reader: VisibilityReader, config: CleanConfig, fwhm_rad: float | None) -> ImageGrid:
    """Choose the image grid about the phase centre, where the options leave it open.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    config : CleanConfig
        Size and cell, if given.
    fwhm_rad : float or None
        Width of the primary beam at the lowest frequency, if it is known.

    Raises
    ------
    ConfigError
        If the cell undersamples the longest baseline, or the field of view is too wide to choose them.
    """
    size, given = config.size, config.cell_arcsec
    if size is None or given is None:
        chosen = choose_grid(
            *reader.phase_center,
            max_baseline_m=reader.max_baseline_m,
            freq_lo_hz=float(reader.freq_hz.min()),
            freq_hi_hz=float(reader.freq_hz.max()),
            fwhm_rad=fwhm_rad,
        )
    cell = chosen.cell_rad if given is None else given * ARCSEC
    finest = SPEED_OF_LIGHT / float(reader.freq_hz.max()) / reader.max_baseline_m
    if cell > finest / 2:
        raise ConfigError(
            f"a cell of {cell / ARCSEC:.3g} arcsec undersamples baselines of {reader.max_baseline_m:.0f} m",
            "cell_arcsec",
            f"at most {finest / 2 / ARCSEC:.3g} arcsec",
        )
    size = chosen.size if size is None else size + size % 2
    return ImageGrid(size, cell, *reader.phase_center)


@contextmanager
def enough_baselines(reader: VisibilityReader) -> Iterator[None]:
    """Say that it is for want of baselines if a point spread function of few has no main lobe.

    Raises
    ------
    MeasurementSetError
        In place of the ImagingError of few baselines.
    """
    try:
        yield
    except ImagingError as error:
        if error.where != POINT_SPREAD_FUNCTION or reader.n_baselines * reader.times.size > FEW_TRACKS:
            raise
        dumps = f"{reader.times.size} dump{'s' if reader.times.size > 1 else ''}"
        baselines = f"{reader.n_baselines} baseline{'s' if reader.n_baselines > 1 else ''}"
        raise MeasurementSetError(
            f"{baselines} in {dumps} cannot make an image: {error.what}",
            reader.ms.path,
            "more antennas or a longer observation are needed",
        ) from error


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


def require_memory(reader: VisibilityReader, config: CleanConfig, needed: int | None = None) -> None:
    """Raise ResourceError if the visibilities to image do not fit into the memory allowed.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    config : CleanConfig
        Options.
    needed : int, optional
        Bytes that they take; of all as they are by default.
    """
    needed = reader.samples * BYTES_PER_VISIBILITY // 2 if needed is None else needed
    if needed > config.memory_gb * 1e9:
        raise ResourceError(
            f"imaging needs {needed / 1e9:.1f} GB for visibilities, memory_gb is {config.memory_gb:g}",
            reader.ms.path,
            "raise --memory-gb or select spectral windows with --spw",
        )
