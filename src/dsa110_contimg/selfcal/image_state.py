"""Imaging a state of the calibration: everything that is compared gets the same mask, weights and depth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Bool, Image
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.imaging import Imager, RestoringBeam, StokesI, mad_rms
from dsa110_contimg.imaging.backend import Backend, Embedded
from dsa110_contimg.imaging.masks import catalog_mask
from dsa110_contimg.imaging.stokes import handed_over
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.corrected_data import stokes_data
from dsa110_contimg.selfcal.imaging import CalibratedImage, make_image
from dsa110_contimg.selfcal.memory import return_free_memory
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState

__all__ = ["image_state", "quick_image"]

#: An image that is only looked at does without visibilities of less than this part of the mean weight, if
#: this part of all weight is left.
TELLING, MOST_WEIGHT = 0.5, 0.7


def image_state(
    data: CalibrationData,
    state: CalState,
    config: SelfCalConfig,
    log: StageLog,
    *,
    tables: tuple[GainTable, ...],
    label: str,
    subtract: bool = False,
    depth_jy: float | None = None,
    weight_tables: tuple[GainTable, ...] | None = None,
    backend: Backend | None = None,
    untouched: bool = True,
    one_cycle: bool = False,
    incoherent: bool = False,
    like: CalibratedImage | None = None,
) -> tuple[CalState, CalibratedImage]:
    """Image the data after gains, with the sky model subtracted and restored if asked for.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        Weights, noise, mask, and the sky model to subtract.
    config : SelfCalConfig
        Options.
    log : StageLog
        Charged with the time.
    tables : tuple of GainTable
        Gains applied after the initial tables.
    label : str
        For progress.
    subtract : bool
        Whether to subtract the state's sky model before CLEAN, and to restore it afterwards.
    depth_jy : float, optional
        Depth of the image this one is compared with.
    weight_tables : tuple of GainTable, optional
        Gains that weights and flags follow instead of `tables`.
    backend : Backend, optional
        What makes the image; the embedded engine by default, which makes all that are compared.
    untouched : bool
        Whether the data that no step may use are in it.
    one_cycle, incoherent, like
        As of :func:`make_image`.

    Returns
    -------
    state : CalState
        The same, with the catalogue mask if this image was the first.
    image : CalibratedImage
    """

    def mask_for(beam: RestoringBeam) -> Bool:
        return state.mask if state.mask is not None else _catalog_mask(data, config, log, beam)

    return_free_memory()
    with log.timed("image"):
        image = make_image(
            data,
            state.weights,
            tables,
            backend or Embedded(config),
            label,
            subtract=state.model if subtract else None,
            catalogue=data.catalog_model,
            depth_jy=depth_jy,
            noise=state.noise,
            weight_tables=weight_tables or None,
            mask_for=mask_for if config.catalog_mask else None,
            untouched=untouched,
            one_cycle=one_cycle,
            incoherent=incoherent,
            like=like,
        )
    return replace(state, mask=image.mask), image


def quick_image(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, label: str
) -> tuple[Image, float]:
    """Image what the sky model leaves of the data that may be used, after the newest gains, without CLEAN.

    Where long baselines are most of the visibilities, but hold little of the weight, they are left out.

    Returns
    -------
    image : ndarray of float32, shape (size, size)
        Jansky per beam.
    rms_jy : float
        Of it. Where data were left out, the thermal rms that all of them would give: what short baselines
        see more of is no noise.
    """
    return_free_memory()
    with log.timed("image"):
        chunks = stokes_data(
            data,
            state.last.tables,
            state.weights,
            label,
            subtract=state.model,
            half_width_rad=data.grid.half_width_rad,
            untouched=False,
        )
        chunks, share = _most_telling(chunks)
        weighting = config.weighting, config.robust
        imager = Imager(handed_over(chunks), data.grid, *weighting, config.threads, state.noise)
        image = imager.dirty()
    log.count("griddings", imager.griddings)
    if share == 1:
        return image, mad_rms(image)
    return image, math.sqrt(share) * imager.thermal_rms(state.noise.rms)


def _most_telling(chunks: list[StokesI]) -> tuple[list[StokesI], float]:
    """Leave out chunks of visibilities of low weight, if little is lost; also the part of the weight left."""
    weight = np.array([chunk.weight.sum(dtype=np.float64) for chunk in chunks])
    size = np.array([chunk.weight.size for chunk in chunks])
    telling = weight * size.sum() >= TELLING * size * weight.sum()
    left, total = float(weight[telling].sum()), float(weight.sum())
    if telling.all() or left < MOST_WEIGHT * total:
        return chunks, 1.0
    return [chunk for chunk, tells in zip(chunks, telling, strict=True) if tells], left / total


def _catalog_mask(data: CalibrationData, config: SelfCalConfig, log: StageLog, beam: RestoringBeam) -> Bool:
    """Discs around the catalogue's sources, shape (size, size), for the beam of the first image."""
    if data.mask_sources is None:
        raise RuntimeError("no sources were given for a catalogue mask")
    mask = catalog_mask(data.mask_sources.sky, data.grid, beam, config.mask_radius_arcsec)
    log.note(f"CLEAN in {100 * float(np.mean(mask)):.2f} % of the image, around the catalogue's sources")
    return mask
