"""Residual CLEAN components added to the sky model: what the image shows and the catalogue does not list."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.ndimage

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.gains import typical_amplitude
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.image_state import image_state, quick_image
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.trial import better_with, solved_against
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, joined, mean_apparent_flux, response_ratio, scaled

__all__ = ["add_components", "unlisted_sources"]


#: A source joins the sky model from this signal to noise, and from this fraction of the model's flux, on.
MIN_SNR = 20.0
MIN_SHARE = 0.005
#: A source of so many beams is looked for: where no peak reaches that part of the flux there is none.
MOST_BEAMS = 5.0
#: Components are of one source if discs of about half this many pixels around them touch.
TOGETHER = 3
#: Most components; more are no longer a few sources that a catalogue does not list.
MOST_COMPONENTS = 500
#: Where the beam lets less than this through, a component is a sidelobe of the beam's errors.
MIN_BEAM = 0.02
#: So much flux there, as a fraction of the sky model's, says that the beam is another one.
MUCH_OUTSIDE = 0.2
#: A change of the flux scale by what joins the catalogue's sources that is worth undoing.
KEPT_SCALE = 0.005


def add_components(data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog) -> CalState:
    """Solve again with what an image shows beside the sky model, if held-out channels gain by it."""
    model = state.sky_model
    if model is None or state.sky_differs or not state.last.verdict.accepted:
        return state
    tables, reader = state.last.tables, data.reader
    label = "image of what the model leaves"
    dirty, rms = quick_image(data, state, config, log, label)
    # Nor does CLEAN begin below the level of its mask.
    if dirty.max() < max(_limit(model, rms) / MOST_BEAMS, config.mask_sigma * rms):
        return state
    state, image = image_state(
        data, state, config, log, tables=tables, label=label, subtract=True, untouched=False, one_cycle=True
    )
    found, outside = unlisted_sources(
        model,
        image,
        data.grid,
        reader.pointing,
        reader.freq_hz,
        spectral_index=config.spectral_index,
    )
    state = _with_flux_outside(state, outside, model, log)
    if found is None:
        return state
    flux = found.apparent_jy.sum()
    if flux > model.apparent_jy.sum():
        log.note(f"{flux:.3f} Jy in the residual, more than the catalogue has: nothing added")
        return state
    trial = better_with(data, state, joined(model, found), config, log)
    kept = trial is not state
    log.note(
        f"{len(found)} clean components of {flux:.3f} Jy that the catalogue does not list "
        f"{'join the sky model' if kept else 'do not help the gains and are left out'}"
    )
    if not kept:
        return state
    components = joined(state.components, found) if state.components else found
    trial = replace(trial, components=components)
    return _at_kept_scale(data, trial, config, log, typical_amplitude(tables))


def _limit(model: ApparentSky, rms_jy: float) -> float:
    """Flux from which on a source joins the sky model, jansky."""
    return max(MIN_SNR * rms_jy, MIN_SHARE * float(model.apparent_jy.sum()))


def _at_kept_scale(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog, amplitude: float
) -> CalState:
    """Keep the flux scale of the catalogue's sources, where they are too few to be measured.

    What the image adds beside them takes some of their flux, and the gains would grow for it.
    """
    factor = typical_amplitude(state.last.tables) / amplitude
    model = state.sky_model
    if state.measured is not None or model is None or abs(factor - 1) < KEPT_SCALE:
        return state
    components = scaled(state.components, factor) if state.components else None
    state = replace(state, components=components)
    return solved_against(data, state, scaled(model, factor), config, log)


def unlisted_sources(
    model: ApparentSky,
    image: CalibratedImage,
    grid: ImageGrid,
    pointing: Float,
    freq_hz: Float,
    *,
    spectral_index: float,
) -> tuple[ApparentSky | None, float]:
    """Find what a residual image shows beyond doubt, as components.

    Parameters
    ----------
    model : ApparentSky
        What was subtracted.
    image : CalibratedImage
        CLEANed image of the rest.
    grid : ImageGrid
        Its grid.
    pointing : ndarray, shape (ntime, 2)
        Where the beam pointed, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.
    spectral_index : float
        Index given to what is found.

    Returns
    -------
    found : ApparentSky or None
        Components of the same beam; none if there is nothing to add.
    outside_jy : float
        Flux of what lies where the beam should let less than `MIN_BEAM` through, jansky.
    """
    pixels = image.cleaned.model
    near = scipy.ndimage.binary_dilation(pixels != 0, iterations=TOGETHER // 2 + 1)
    island, n = scipy.ndimage.label(near)
    if n == 0:
        return None, 0.0
    # What a catalogue lists too bright leaves a hole, which is no source.
    flux = scipy.ndimage.sum_labels(pixels, island, np.arange(n + 1))
    flux[0] = 0.0
    limit = _limit(model, image.cleaned.rms)
    row, column = np.nonzero((pixels != 0) & (flux >= limit)[island])
    if not 0 < row.size <= MOST_COMPONENTS:
        return None, 0.0
    sky = SkyModel.points(
        *grid.pixel_to_sky(column, row),
        np.ones(row.size),
        spectral_index=spectral_index,
        reference_freq_hz=model.sky.reference_freq_hz,
        prefix="clean",
    )
    band = np.linspace(float(freq_hz.min()), float(freq_hz.max()), BAND_SAMPLES)
    through = mean_apparent_flux(sky, model.beam, np.unique(pointing, axis=0), band)
    middle = pointing[len(pointing) // 2]
    plain = replace(model, sky=sky, apparent_jy=through, antenna_beams=None)
    through = through * response_ratio(plain, model.antenna_beams, float(middle[0]), float(middle[1]))
    apparent = pixels[row, column].astype(np.float64)
    seen = through > MIN_BEAM
    outside = float(apparent[~seen].sum())
    if not seen.any():
        return None, outside
    found = replace(sky.select(seen), flux_jy=(apparent / np.maximum(through, MIN_BEAM))[seen])
    return replace(model, sky=found, apparent_jy=apparent[seen]), outside


def _with_flux_outside(state: CalState, outside_jy: float, model: ApparentSky, log: StageLog) -> CalState:
    """Note flux where the beam should let none through: the beam is wider than assumed."""
    known = any(f.kind == "beam_width" for f in state.findings)
    if known or outside_jy < MUCH_OUTSIDE * float(model.apparent_jy.sum()):
        return state
    text = (
        f"{outside_jy:.2f} Jy in the image where the assumed beam lets less than {100 * MIN_BEAM:.0f} % "
        "through: check DISH_DIAMETER or give the diameter of the dishes"
    )
    log.note(text)
    return replace(state, findings=(*state.findings, Finding("beam_width", text, "refused")))
