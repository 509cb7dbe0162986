"""Images of an observation in a state of its calibration, measured alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Image
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.imaging import (
    CleanResult,
    ImageGrid,
    ImageMetrics,
    RestoringBeam,
    add_gaussians,
    measure_image,
    off_source_or_sources_alone,
)
from dsa110_contimg.imaging.backend import Backend, ImagingProblem, StokesVisibilities
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.corrected_data import corrected_blocks, stokes_data
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import ModelVisibilities, SkyVisibilities
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.sky.directions import angular_separation
from dsa110_contimg.visibilities import NoiseScale, write_selection

__all__ = ["CalibratedImage", "add_sources", "make_image", "measure", "metrics_dict", "region_for"]


#: A source this near to its catalogue position is where the catalogue has it.
SAME_PLACE_RAD = 3 * ARCSEC


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibratedImage:
    """A CLEANed image with what is needed to measure it again.

    Attributes
    ----------
    cleaned : CleanResult
        Model, residual, restored image, psf and beam.
    restored : ndarray of float32, shape (size, size)
        Restored image; with the sky model put back where it was subtracted. Jy/beam.
    difference : ndarray of float32, shape (size, size), or None
        Restored image minus the catalogue; none if nothing was subtracted.
    shallow : CleanResult
        The same data CLEANed no deeper than the image they are compared with.
    shallow_restored : ndarray of float32, shape (size, size)
        Restored image of these, as `restored`.
    thermal_per_noise : float
        Thermal rms for a noise of one jansky at unit weight.
    weights_digest : str
        Tells images at the same weights.
    mask : ndarray of bool, shape (size, size), or None
        Where CLEAN components could be, if that was bounded.
    own_weights : bool
        Whether weights and flags follow the gains of the image itself.
    subtracted : ApparentSky or None
        Sources that were subtracted before CLEAN and restored afterwards.
    """

    cleaned: CleanResult
    restored: Image
    difference: Image | None
    shallow: CleanResult
    shallow_restored: Image
    thermal_per_noise: float
    weights_digest: str = ""
    mask: Bool | None = None
    own_weights: bool = True
    subtracted: ApparentSky | None = None


def make_image(
    data: CalibrationData,
    weights: DataWeights,
    tables: Sequence[GainTable],
    backend: Backend,
    label: str,
    *,
    noise: NoiseScale,
    subtract: ModelVisibilities | None = None,
    catalogue: ApparentSky | None = None,
    depth_jy: float | None = None,
    weight_tables: Sequence[GainTable] | None = None,
    mask_for: Callable[[RestoringBeam], Bool | None] | None = None,
    untouched: bool = True,
    one_cycle: bool = False,
    incoherent: bool = False,
    like: CalibratedImage | None = None,
) -> CalibratedImage:
    """Image calibrated data, with a sky model subtracted and restored if one is given.

    The Measurement Set is only read. WSClean gets a copy of the selection with one phase centre, in which the
    calibrated visibilities, less the model, are DATA.

    Parameters
    ----------
    data : CalibrationData
        The data, and the grid.
    weights : DataWeights
        What the visibilities count for.
    tables : sequence of GainTable
        Gains applied after the initial tables.
    backend : Backend
        What makes the image.
    label : str
        For progress.
    noise : NoiseScale
        Noise of the data: CLEAN stops at `clean_sigma` times its thermal rms at the latest.
    subtract : ModelVisibilities, optional
        Subtracted before imaging; its sources, if it has any, are restored with the same beam at their
        exact positions.
    catalogue : ApparentSky, optional
        Its first sources as the catalogue has them, for the difference; the
        subtracted sources themselves if not given.
    depth_jy : float, optional
        Depth of the image this one is compared with: `shallow` of the result is
        CLEANed no deeper, so that both have the same depth.
    weight_tables : sequence of GainTable, optional
        Gains that weights and flags follow instead of `tables`, so that two
        states are compared at the same weights and data.
    mask_for : callable, optional
        Gives the mask to CLEAN in, shape (size, size), for the beam of the image.
    untouched : bool
        Whether the data that no step may use are in it; an imager other than the embedded one gets them.
    one_cycle : bool
        CLEAN in a single cycle: for an image that is looked at, but not delivered.
    incoherent : bool
        Whether the data are far from coherent, which spares exactness.
    like : CalibratedImage, optional
        Image of the same data whose point spread function is this one's if the weights are the same.

    Returns
    -------
    CalibratedImage

    Raises
    ------
    EngineError
        If the imager fails.
    """
    grid = data.grid

    def visibilities() -> StokesVisibilities:
        chunks = stokes_data(
            data,
            tables,
            weights,
            label,
            subtract=subtract,
            weight_tables=weight_tables,
            half_width_rad=grid.half_width_rad,
            untouched=untouched,
        )
        return StokesVisibilities(chunks, noise)

    def measurement_set(folder: Path) -> tuple[Path, list[str]]:
        copy = folder / "calibrated.ms"
        calibrated = corrected_blocks(data, tables, weights, f"copy for {backend.label}", subtract)
        write_selection(copy, data.reader, calibrated)
        return copy, ["-field", "0", "-data-column", "DATA"]

    made = backend.image(
        ImagingProblem(
            grid=grid,
            freq_hz=data.reader.freq_hz,
            visibilities=visibilities,
            measurement_set=measurement_set,
            mask_for=mask_for,
            depth_jy=depth_jy,
            one_cycle=one_cycle,
            incoherent=incoherent,
            made_before=None if like is None else (like.cleaned.psf, like.weights_digest),
        )
    )
    data.log.count("griddings", made.griddings)
    sky = subtract.sky if isinstance(subtract, SkyVisibilities) else None
    restored, difference = made.cleaned.restored, None
    shallow = made.shallow.restored
    if sky is not None:
        restored = add_sources(restored, grid, sky.sky, sky.apparent_jy, made.cleaned.beam)
        alike = made.shallow is made.cleaned
        shallow = (
            restored if alike else add_sources(shallow, grid, sky.sky, sky.apparent_jy, made.shallow.beam)
        )
        listed = _in_place(sky, catalogue or sky)
        difference = add_sources(restored, grid, listed.sky, -listed.apparent_jy, made.cleaned.beam)
    return CalibratedImage(
        cleaned=made.cleaned,
        restored=restored,
        difference=difference,
        shallow=made.shallow,
        shallow_restored=shallow,
        thermal_per_noise=made.thermal_per_noise,
        weights_digest=made.weights_digest,
        mask=made.mask,
        own_weights=weight_tables is None,
        subtracted=sky,
    )


def add_sources(image: Image, grid: ImageGrid, sky: SkyModel, flux_jy: Float, beam: RestoringBeam) -> Image:
    """Add sources to an image, as wide as its beam.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Jy/beam.
    grid : ImageGrid
        Its grid.
    sky : SkyModel
        Places and shapes.
    flux_jy : ndarray, shape (n,)
        Apparent flux densities.
    beam : RestoringBeam
        Beam of the image.

    Returns
    -------
    ndarray, float32, shape (size, size)
    """
    l, m = grid.sky_to_lm(sky.ra_rad, sky.dec_rad)  # noqa: E741
    seen = np.isfinite(l)
    shape = tuple(of_all[seen] for of_all in sky.shape_about(grid.ra_rad, grid.dec_rad))
    return add_gaussians(image, grid, l[seen], m[seen], flux_jy[seen], beam, *shape)


def _in_place(sky_model: ApparentSky, catalogue: ApparentSky) -> ApparentSky:
    """Catalogue fluxes at the places of the sky model, where these are as near as catalogue errors are.

    A bright source half an arcsecond off its place is not news: left there, the
    two would show as a bright and a dark spot in the difference.
    """
    n = len(catalogue)
    there, here = sky_model.sky.select(np.arange(n)), catalogue.sky
    near = angular_separation(here.ra_rad, here.dec_rad, there.ra_rad, there.dec_rad) < SAME_PLACE_RAD
    ra, dec = np.where(near, there.ra_rad, here.ra_rad), np.where(near, there.dec_rad, here.dec_rad)
    return replace(catalogue, sky=replace(here, ra_rad=ra, dec_rad=dec))


def region_for(
    image: CalibratedImage, grid: ImageGrid, catalogue: ApparentSky | None, noise: NoiseScale
) -> Bool:
    """Off-source pixels: more than three beams from sources above 5 sigma and clean components.

    Sources are those of the catalogue and those that were subtracted before CLEAN.

    Parameters
    ----------
    image : CalibratedImage
        Whose clean components count.
    grid : ImageGrid
        Its grid.
    catalogue : ApparentSky or None
        Catalogue sources.
    noise : NoiseScale
        Noise of the data; 5 sigma are taken of the larger
        of the thermal rms and the residual's rms.

    Returns
    -------
    ndarray of bool, shape (size, size)
    """
    limit = 5 * max(image.thermal_per_noise * noise.rms, image.cleaned.rms)
    places = [np.zeros((2, 0))]
    for sources in (catalogue, image.subtracted):
        if sources is not None:
            bright = sources.sky.select(sources.apparent_jy >= limit)
            places.append(np.stack(grid.sky_to_lm(bright.ra_rad, bright.dec_rad)))
    l, m = np.concatenate(places, axis=1)  # noqa: E741
    return off_source_or_sources_alone(grid, l, m, image.cleaned.model, image.cleaned.beam)


def measure(
    image: CalibratedImage,
    grid: ImageGrid,
    region: Bool,
    catalogue: ApparentSky | None,
    noise: NoiseScale,
    *,
    shallow: bool = False,
) -> ImageMetrics:
    """Measure an image over a region and against the catalogue; `shallow`: at the common depth."""
    against: dict[str, Any] = {}
    if catalogue is not None:
        against = {
            "ra_rad": catalogue.sky.ra_rad,
            "dec_rad": catalogue.sky.dec_rad,
            "flux_jy": catalogue.apparent_jy,
            "is_point": catalogue.sky.is_point,
        }
    return measure_image(
        image.shallow_restored if shallow else image.restored,
        grid,
        image.cleaned.beam,
        region,
        thermal_rms_jy=image.thermal_per_noise * noise.rms,
        **against,
    )


def metrics_dict(metrics: ImageMetrics) -> dict[str, Any]:
    """Metrics as plain values for the summary; position of the peak in degrees."""
    values = asdict(metrics)
    ra, dec = values.pop("peak_position")
    offset = values.pop("offset_arcsec")
    return {
        **{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()},
        "offset_arcsec": None if offset is None else list(offset),
        "peak_ra_dec_deg": [float(np.degrees(ra)), float(np.degrees(dec))],
    }
