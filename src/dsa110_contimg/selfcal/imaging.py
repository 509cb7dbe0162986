"""Images of an observation in a state of its calibration, measured alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Image
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.config import CleanConfig
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import (
    CleanResult,
    ImageGrid,
    ImageMetrics,
    Imager,
    RestoringBeam,
    add_gaussians,
    clean,
    fit_beam,
    measure_image,
    off_source_region,
)
from dsa110_contimg.imaging.obs_context import require_memory
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.sky import Seed
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.sky.directions import angular_separation

__all__ = ["CalibratedImage", "make_image", "measure", "metrics_dict", "region_for", "with_sources"]


#: A source this near to its catalogue position is where the catalogue has it.
SAME_PLACE_RAD = 3 * ARCSEC


@dataclass(frozen=True)
class CalibratedImage:
    """A CLEANed image with what is needed to measure it again.

    Attributes
    ----------
    cleaned : CleanResult
        Model, residual, restored image, psf and beam.
    restored : ndarray of float32, shape (size, size)
        Restored image; with the seed put back where it was subtracted. Jy/beam.
    difference : ndarray of float32, shape (size, size), or None
        Restored image minus the catalogue; none if nothing was subtracted.
    shallow : CleanResult
        The same data CLEANed no deeper than the image they are compared with.
    thermal_per_noise : float
        Thermal rms for a noise of one jansky at unit weight.
    """

    cleaned: CleanResult
    restored: Image
    difference: Image | None
    shallow: CleanResult
    thermal_per_noise: float


def make_image(
    observation: Observation,
    tables: Sequence[GainTable],
    grid: ImageGrid,
    config: CleanConfig,
    label: str,
    *,
    seed: Seed | None = None,
    catalogue: Seed | None = None,
    depth_jy: float | None = None,
    noise: float = 0.0,
    weight_tables: Sequence[GainTable] | None = None,
    mask_for: Callable[[RestoringBeam], Bool] | None = None,
) -> CalibratedImage:
    """Image calibrated data, with the seed subtracted and restored if one is given.

    Parameters
    ----------
    observation : Observation
        The data; its model is what is subtracted.
    tables : sequence of GainTable
        Gains applied after the initial tables.
    grid : ImageGrid
        Where.
    config : CleanConfig
        How.
    label : str
        For progress.
    seed : Seed, optional
        The sources of the observation's model: subtracted before imaging, and
        restored with the same beam at their exact positions.
    catalogue : Seed, optional
        Its first sources as the catalogue has them, for the difference; the
        seed itself if not given.
    depth_jy : float, optional
        Depth of the image this one is compared with: `shallow` of the result is
        CLEANed no deeper, so that both have the same depth.
    noise : float
        Noise of the real part at unit weight in jansky: CLEAN stops at
        `clean_sigma` times its thermal rms at the latest.
    weight_tables : sequence of GainTable, optional
        Gains that weights and flags follow instead of `tables`, so that two
        states are compared at the same weights and data.
    mask_for : callable, optional
        Gives the mask to CLEAN in, shape (size, size), for the beam of the image.

    Returns
    -------
    CalibratedImage

    Raises
    ------
    ResourceError
        If the visibilities do not fit into the memory allowed.
    """
    require_memory(observation.reader, config)
    chunks = observation.stokes(tables, seed is not None, label, weight_tables, grid.size / 2 * grid.cell_rad)
    imager = Imager(chunks, grid, config.weighting, config.robust, config.threads)
    floor = config.clean_sigma * imager.thermal_rms(noise)
    mask = mask_for(fit_beam(imager.psf(), grid)) if mask_for is not None else None

    def deconvolve(depth: float, start: CleanResult | None) -> CleanResult:
        return clean(
            imager,
            niter=config.clean_iterations,
            threshold_jy=depth or None,
            auto_threshold_sigma=config.clean_sigma,
            mask_sigma=max(config.mask_sigma, config.clean_sigma),
            multiscale=config.multiscale,
            mask=mask,
            start=start,
        )

    cleaned = shallow = deconvolve(max(depth_jy or 0.0, floor), None)
    if depth_jy is not None and shallow.threshold_jy <= depth_jy:
        cleaned = deconvolve(floor, shallow)
    return with_sources(cleaned, shallow, grid, imager.thermal_rms(1.0), seed, catalogue)


def with_sources(
    cleaned: CleanResult,
    shallow: CleanResult,
    grid: ImageGrid,
    thermal_per_noise: float,
    seed: Seed | None,
    catalogue: Seed | None,
) -> CalibratedImage:
    """Put what was subtracted back into an image, and take the catalogue out of that.

    Parameters
    ----------
    cleaned, shallow : CleanResult
        Image, and the same at the common depth.
    grid : ImageGrid
        Their grid.
    thermal_per_noise : float
        Thermal rms for a noise of one jansky at unit weight.
    seed, catalogue : Seed or None
        As of :func:`make_image`.

    Returns
    -------
    CalibratedImage
    """
    restored, difference = cleaned.restored, None
    if seed is not None:
        restored = _add_sources(cleaned, grid, seed, seed.apparent_jy, cleaned.restored)
        listed = _in_place(seed, catalogue or seed)
        difference = _add_sources(cleaned, grid, listed, -listed.apparent_jy, restored)
    return CalibratedImage(cleaned, restored, difference, shallow, thermal_per_noise)


def _add_sources(cleaned: CleanResult, grid: ImageGrid, seed: Seed, flux_jy: Float, image: Image) -> Image:
    """Add sources to an image, as wide as its beam."""
    sky = seed.sky
    l, m = grid.sky_to_lm(sky.ra_rad, sky.dec_rad)  # noqa: E741
    seen = np.isfinite(l)
    shape = (sky.major_rad[seen], sky.minor_rad[seen], sky.pa_rad[seen])
    return add_gaussians(image, grid, l[seen], m[seen], flux_jy[seen], cleaned.beam, *shape)


def _in_place(seed: Seed, catalogue: Seed) -> Seed:
    """Catalogue fluxes at the places of the seed, where these are as near as catalogue errors are.

    A bright source half an arcsecond off its place is not news: left there, the
    two would show as a bright and a dark spot in the difference.
    """
    n = len(catalogue)
    there, here = seed.sky.select(np.arange(n)), catalogue.sky
    near = angular_separation(here.ra_rad, here.dec_rad, there.ra_rad, there.dec_rad) < SAME_PLACE_RAD
    ra, dec = np.where(near, there.ra_rad, here.ra_rad), np.where(near, there.dec_rad, here.dec_rad)
    return replace(catalogue, sky=replace(here, ra_rad=ra, dec_rad=dec))


def region_for(image: CalibratedImage, grid: ImageGrid, seed: Seed | None, noise: float) -> Bool:
    """Off-source pixels: more than three beams from every seed above 5 sigma and every clean component.

    Parameters
    ----------
    image : CalibratedImage
        Whose clean components count.
    grid : ImageGrid
        Its grid.
    seed : Seed or None
        Catalogue sources.
    noise : float
        Noise of the real part at unit weight; 5 sigma are taken of the larger
        of the thermal rms and the residual's rms.

    Returns
    -------
    ndarray of bool, shape (size, size)
    """
    model: Image | None = image.cleaned.model
    l = m = np.zeros(0)  # noqa: E741
    if seed is not None:
        limit = 5 * max(image.thermal_per_noise * noise, image.cleaned.rms)
        bright = seed.apparent_jy >= limit
        l, m = grid.sky_to_lm(seed.sky.ra_rad[bright], seed.sky.dec_rad[bright])  # noqa: E741
    try:
        return off_source_region(grid, l, m, model, image.cleaned.beam)
    except ImagingError:
        # So many components that nothing is off source: false ones on bad data. The seeds alone then.
        return off_source_region(grid, l, m, None, image.cleaned.beam)


def measure(
    image: CalibratedImage,
    grid: ImageGrid,
    region: Bool,
    seed: Seed | None,
    noise: float,
    *,
    shallow: bool = False,
) -> ImageMetrics:
    """Measure an image over a region and against the seed; `shallow`: at the common depth."""
    against: dict[str, Any] = {}
    if seed is not None:
        against = {
            "ra_rad": seed.sky.ra_rad,
            "dec_rad": seed.sky.dec_rad,
            "flux_jy": seed.apparent_jy,
            "is_point": seed.sky.is_point,
        }
    return measure_image(
        image.shallow.restored if shallow else image.restored,
        grid,
        image.cleaned.beam,
        region,
        thermal_rms_jy=image.thermal_per_noise * noise,
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
