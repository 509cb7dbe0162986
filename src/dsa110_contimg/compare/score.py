"""How near a self-calibration came to the truth of a simulation."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.calibration.apply import chain
from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import SELFCAL_MAX_GAP, Gains, GainTable
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.imaging import (
    FitsImage,
    fit_source,
    mad_rms,
    measure_image,
    off_source_region,
    read_image,
)
from dsa110_contimg.imaging.backend import Embedded
from dsa110_contimg.imaging.masks import read_mask
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import make_image, region_for
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.naming import MASK, MODEL, SUMMARY
from dsa110_contimg.selfcal.source_report import read_model
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.simulate import Truth
from dsa110_contimg.simulate.array import uvw_of_antennas
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, mean_apparent_flux
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseScale, VisibilityReader, open_measurement_set

__all__ = [
    "gain_errors",
    "image_scores",
    "input_errors",
    "lost_visibilities",
    "score_run",
    "true_gain_tables",
]

#: What is said of gains; none where there are none.
GAIN_FIGURES = (
    "coherence",
    "phase_error_deg",
    "amplitude_scatter",
    "amplitude_scale",
    "sky_offset_arcsec",
    "sky_offset_coherence",
)
#: So far from its place a sky that the gains moved is sought, radians.
OFFSET_REACH = np.radians(0.6)


def score_run(
    outdir: Path, truth_path: Path, progress: Progress | None = None, *, image: bool = True
) -> dict[str, Any]:
    """Score a finished self-calibration of a simulated observation.

    Parameters
    ----------
    outdir : Path
        Its folder, with ``selfcal_summary.json``, the gain tables and ``final-image.fits``.
    truth_path : Path
        ``OUT.truth.npz`` of the simulation.
    progress : Progress, optional
        Where progress is reported.
    image : bool
        Whether to image the data with the true gains too, which takes as long
        as the run's own final image.

    Returns
    -------
    dict
        ``status``; ``coherence``, ``phase_error_deg``, ``amplitude_scatter``,
        ``amplitude_scale``, ``sky_offset_arcsec`` and ``sky_offset_coherence`` of
        :func:`gain_errors`, none where no gains were kept; ``flux_ratio``,
        ``flux_ratio_n`` and ``offset_arcsec`` of the final image against the true
        sky through the beam, mean over dumps and band, medians over isolated
        sources above 10 sigma;
        ``rms_jy`` and ``thermal_ratio`` of the final image; ``true_gain_rms_jy``
        of the image made in the same way with the true gains, over the same
        region, and ``rms_ratio`` of the two; ``absent_sigma``, ``new_ratio``
        and ``variable_ratio`` of the sources put in for it.

    Raises
    ------
    InputError
        If the folder holds no finished run, or the truth is not of its data.
    """
    progress = progress or LogProgress()
    file = outdir / SUMMARY
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"no summary of a finished run ({error})", file, "run contimg selfcal") from None
    truth = Truth.read(truth_path)
    ms_path = Path(summary["provenance"]["ms"])
    tables = [outdir / name for name in summary["gaintables"]]
    scores: dict[str, Any] = {"status": summary["status"]}
    scores |= gain_errors(ms_path, tables, truth, summary["provenance"]["initial_caltables"])
    final = read_image(outdir / "final-image.fits")
    scores |= image_scores(final, truth)
    scores |= {key: summary["final"][key] for key in ("rms_jy", "thermal_ratio", "thermal_rms_jy")}
    if image:
        scores |= _against_true_gains(outdir, final, summary, truth, ms_path, progress)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in scores.items()}


def gain_errors(
    ms_path: Path, tables: list[Path], truth: Truth, initial: list[str] | None = None
) -> dict[str, Any]:
    """Compare solved gains with the true ones.

    Parameters
    ----------
    ms_path : Path
        Simulated Measurement Set.
    tables : list of Path
        Tables whose product is compared.
    truth : Truth
        What the data were made of.
    initial : list of str, optional
        Tables that were applied before them.

    Returns
    -------
    dict
        ``coherence``: mean of |sum over antennas of exp(i error)| / nant;
        ``phase_error_deg``: rms phase error after the mean phase of each dump
        and polarisation, which no interferometer can see, is taken out;
        ``amplitude_scatter``: rms of the amplitude ratios about their median;
        ``amplitude_scale``: that median, |solved| / |true|;
        ``sky_offset_arcsec``: east and north, how far the gains move the sky: the
        gradient over the array of the phase errors, mean over dumps;
        ``sky_offset_coherence``: the coherence with that gradient taken out; an
        offset means something where this is near 1. All over the channels of
        all spectral windows, without lost ones, dead antennas and dumps in
        which an antenna's data do not hold its gain; none without tables.
    """
    if not tables:
        return dict.fromkeys(GAIN_FIGURES)
    return _figures(ms_path, [Path(t) for t in initial or []], tables, truth)


def input_errors(ms_path: Path, truth: Truth, initial: list[str] | None = None) -> dict[str, Any]:
    """Compare the gains that data have before self-calibration with the true ones.

    Parameters
    ----------
    ms_path : Path
        Simulated Measurement Set.
    truth : Truth
        What the data were made of.
    initial : list of str, optional
        Tables that are applied before self-calibration; gains of one without.

    Returns
    -------
    dict
        As :func:`gain_errors`.
    """
    return _figures(ms_path, [Path(t) for t in initial or []], [], truth)


def _figures(ms_path: Path, initial: list[Path], tables: list[Path], truth: Truth) -> dict[str, Any]:
    """Figures of the product of initial tables and a run's, of gains of one without."""
    ms = open_measurement_set(ms_path)
    chained = [read_gain_table(t) for t in initial]
    # As far as the run itself carried them.
    chained += [replace(read_gain_table(t), max_gap=SELFCAL_MAX_GAP) for t in tables]
    errors, wavelengths_m = [], []
    for spw in ms.spectral_windows:
        if truth.instrument.lost_spw[spw.id]:
            continue
        if truth.gain.shape[1] != len(ms.antennas) or truth.freq_hz[spw.id].size != spw.freq_hz.size:
            raise InputError("is not the truth of these data", ms_path, "give the OUT.truth.npz beside it")
        solved, flag = chain(chained, spw.id, truth.times_s, spw.freq_hz, len(ms.antennas))
        true = _true_gain(truth, spw.id)
        errors.append(np.where(flag | truth.instrument.lost[:, :, None, None], np.nan, solved / true))
        wavelengths_m.append(SPEED_OF_LIGHT / float(spw.freq_hz.mean()))
    error = np.concatenate(errors, axis=2)
    with np.errstate(invalid="ignore"):
        unit = error / np.abs(error)
    with warnings.catch_warnings():
        # A dump that no antenna recorded has no mean.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(unit, axis=1, keepdims=True)
        angle = np.angle(unit * np.conj(mean))
        scale = float(np.nanmedian(np.abs(error)))
        uv_m = np.array(
            [
                uvw_of_antennas(ms.antennas.position_m, t / 86400.0, float(ra), float(dec))[:, :2]
                for t, (ra, dec) in zip(truth.times_s, truth.phase_centre, strict=True)
            ]
        )
        # Of a window, the mean over its channels.
        by_window = [np.nanmean(e / np.abs(e), axis=2) for e in errors]
        offset, agreement = _sky_offset(
            np.stack([np.nan_to_num(u, nan=0.0) for u in by_window]),
            uv_m[None] / np.array(wavelengths_m)[:, None, None, None],
        )
        return {
            "coherence": float(np.nanmean(np.abs(mean))),
            "phase_error_deg": float(np.degrees(np.sqrt(np.nanmean(angle**2)))),
            "amplitude_scatter": float(np.sqrt(np.nanmean((np.abs(error) / scale - 1) ** 2))),
            "amplitude_scale": scale,
            "sky_offset_arcsec": offset,
            "sky_offset_coherence": agreement,
        }


def _sky_offset(unit: Complex, uv: Float) -> tuple[list[float] | None, float | None]:
    """Shift of the sky that phase errors amount to.

    Parameters
    ----------
    unit : ndarray of complex128, shape (nspw, ntime, nant, 2)
        Phase errors as complex numbers, zero where there is none.
    uv : ndarray, shape (nspw, ntime, nant, 2)
        Antennas towards the phase centre, wavelengths.

    Returns
    -------
    offset : list of float
        East and north in arcsec; none with fewer than three antennas in every dump.
    coherence : float
        Mean of |sum over antennas| / nant with the gradient taken out.

    Notes
    -----
    A sky moved by (l, m) has phases of ``2 pi (u l + v m)`` in its gains. Many
    turns of them are found as the peak of their Fourier sum over a grid, the
    rest by least squares in every dump.
    """
    dumps = np.flatnonzero((unit != 0).any(axis=(0, 3)).sum(axis=1) >= 3)
    if dumps.size == 0:
        return None, None
    uv = uv - uv.mean(axis=2, keepdims=True)
    step = 0.35 / max(float(np.ptp(uv, axis=2).max()), 1.0)
    trial = step * np.arange(-np.ceil(OFFSET_REACH / step), np.ceil(OFFSET_REACH / step) + 1)
    power = np.zeros((trial.size, trial.size))
    for t in dumps[np.unique(np.linspace(0, dumps.size - 1, 3).astype(int))]:
        for of_window, at in zip(unit[:, t], uv[:, t], strict=True):
            east, north = (np.exp(-2j * np.pi * np.outer(trial, at[:, k])) for k in (0, 1))
            for pol in range(unit.shape[3]):
                power += np.abs((east * of_window[:, pol]) @ north.T) ** 2
    peak = np.unravel_index(int(np.argmax(power)), power.shape)
    start = np.array([trial[peak[0]], trial[peak[1]]])
    shifts, agreements = [], []
    for t in dumps:
        shift = start
        for _ in range(3):
            shift = shift + _gradient(_turned_back(unit[:, t], uv[:, t], shift), uv[:, t])
        left = _turned_back(unit[:, t], uv[:, t], shift)
        n = (left != 0).sum(axis=1)
        agreements.append(float(np.mean((np.abs(left.sum(axis=1)) / np.maximum(n, 1))[n > 0])))
        shifts.append(shift)
    east_north = np.mean(shifts, axis=0) / ARCSEC
    return [float(x) for x in east_north], float(np.mean(agreements))


def _turned_back(unit: Complex, uv: Float, shift: Float) -> Complex:
    """Take the gradient of a shift out of phase errors of shape (nspw, nant, 2)."""
    return np.asarray(unit * np.exp(-2j * np.pi * (uv @ shift))[:, :, None])


def _gradient(unit: Complex, uv: Float) -> Float:
    """Shift in direction cosines that fits small phase errors of shape (nspw, nant, 2) best."""
    products, sides = np.zeros((2, 2)), np.zeros(2)
    for window, at in zip(unit, uv, strict=True):
        for pol in range(window.shape[1]):
            there = window[:, pol] != 0
            if not there.any():
                continue
            angle = np.angle(window[there, pol] * np.conj(window[there, pol].sum()))
            lever = 2 * np.pi * (at[there] - at[there].mean(axis=0))
            products += lever.T @ lever
            sides += lever.T @ (angle - angle.mean())
    return np.asarray(np.linalg.pinv(products) @ sides)


def true_gain_tables(truth: Truth) -> list[GainTable]:
    """Return the true gains as tables: one in time, and one in frequency if that is not flat."""
    instrument = truth.instrument
    n_times = len(truth.times_s)
    dumps = np.diff(truth.times_s, append=2 * truth.times_s[-1] - truth.times_s[-2 if n_times > 1 else -1])

    def gains(times_s: Float, interval_s: Float, freq_hz: Float, gain: Complex, lost: Bool) -> Gains:
        flag = np.broadcast_to(lost[..., None, None], gain.shape).copy()
        none = np.full(len(times_s), -1, dtype=np.int64)
        error, snr = np.zeros(gain.shape), np.full(gain.shape, np.inf)
        return Gains(
            time_s=times_s,
            interval_s=interval_s,
            freq_hz=freq_hz,
            gain=gain,
            flag=flag,
            error=error,
            snr=snr,
            reference_antenna=none,
            field_id=none,
            scan=none,
        )

    in_time = gains(
        truth.times_s,
        dumps,
        truth.freq_hz.mean(keepdims=True)[0],
        instrument.gain[:, :, None],
        instrument.lost,
    )
    tables = [
        GainTable(
            kind="G Jones",
            gains={0: in_time},
            label="true gains",
            spw_map=dict.fromkeys(range(len(truth.freq_hz)), 0),
        )
    ]
    if np.ptp(instrument.bandpass.real) or np.ptp(instrument.bandpass.imag):
        middle = truth.times_s.mean(keepdims=True)
        of_windows = {
            spw: gains(
                middle,
                np.full(1, dumps.sum()),
                freq,
                instrument.bandpass[spw].transpose(1, 0, 2)[None],
                instrument.dead,
            )
            for spw, freq in enumerate(truth.freq_hz)
        }
        tables.append(GainTable(kind="B Jones", gains=of_windows, label="true bandpass"))
    return tables


def _true_gain(truth: Truth, spw: int) -> Complex:
    """Gain of a spectral window, shape (ntime, nant, nchan, 2)."""
    bandpass = truth.instrument.bandpass[spw].transpose(1, 0, 2)
    return np.asarray(truth.gain[:, :, None] * bandpass)


def image_scores(final: FitsImage, truth: Truth) -> dict[str, Any]:
    """Compare fluxes and positions of an image with the true sky, as :func:`score_run` reports them."""
    if final.beam is None:
        raise InputError("the final image has no beam", "final-image.fits", "run contimg selfcal again")
    sky, scene = truth.sky, truth.scene
    band = np.linspace(float(truth.freq_hz.min()), float(truth.freq_hz.max()), 9)
    apparent = mean_apparent_flux(sky, truth.beam, truth.pointing, band)
    l, m = final.grid.sky_to_lm(sky.ra_rad, sky.dec_rad)  # noqa: E741
    bright = apparent > 5 * mad_rms(final.image)
    region = off_source_region(final.grid, l[bright], m[bright], None, final.beam)
    against = {"ra_rad": sky.ra_rad, "dec_rad": sky.dec_rad, "flux_jy": apparent}
    # Not the sources put in to be missed.
    point = sky.is_point & np.array([kind != "new" for kind in scene.sky_kind])
    found = measure_image(
        final.image, final.grid, final.beam, region, thermal_rms_jy=math.nan, **against, is_point=point
    )
    scores: dict[str, Any] = {
        "flux_ratio": found.flux_ratio,
        "flux_ratio_n": found.flux_ratio_n,
        "offset_arcsec": None if found.offset_arcsec is None else list(found.offset_arcsec),
    }

    def value(ra_rad: float, dec_rad: float) -> float:
        x, y = final.grid.sky_to_pixel(ra_rad, dec_rad)
        column, row = round(float(x)), round(float(y))
        inside = 0 <= column < final.grid.size and 0 <= row < final.grid.size
        return float(final.image[row, column]) if inside else math.nan

    for kind in ("new", "variable"):
        rows = [k for k, name in enumerate(scene.sky_kind) if name == kind]
        if len(rows) == 1:
            x, y = final.grid.sky_to_pixel(sky.ra_rad[rows[0]], sky.dec_rad[rows[0]])
            # The peak between the pixels: the nearest one can miss several per cent of it.
            peak = fit_source(final.image, float(x), float(y), final.beam, final.grid).peak_jy
            scores[f"{kind}_ratio"] = peak / float(apparent[rows[0]])
    listed = scene.catalog
    for k, name in enumerate(scene.catalog_kind):
        if name == "absent":
            scores["absent_sigma"] = value(listed.ra_rad[k], listed.dec_rad[k]) / found.rms_jy
    return scores


def lost_visibilities(reader: VisibilityReader, truth: Truth) -> dict[int, Int]:
    """Find visibilities that do not hold their antennas' gains: of dumps of noise, zeros or repetition.

    Parameters
    ----------
    reader : VisibilityReader
        Simulated data.
    truth : Truth
        What they were made of.

    Returns
    -------
    dict of int to ndarray of int
        Places in the flattened weights, by number of the block; nothing where none is lost.
    """
    lost = truth.instrument.lost & ~truth.instrument.dead
    if not lost.any():
        return {}
    found = {}
    for number, block in enumerate(reader.blocks()):
        times = reader.times[block.time_index]
        dump = np.argmin(np.abs(times[:, None] - truth.times_s), axis=1)
        rows = lost[dump, block.antenna1] | lost[dump, block.antenna2]
        found[number] = np.flatnonzero(np.broadcast_to(rows[:, None, None], block.weight.shape))
    return found


def _against_true_gains(
    outdir: Path, final: FitsImage, summary: dict[str, Any], truth: Truth, ms_path: Path, progress: Progress
) -> dict[str, Any]:
    """Image the data with the true gains as the run imaged them with its own; compare the noise."""
    config = SelfCalConfig(**summary["provenance"]["config"])
    context = open_observation(ms_path, config, field=config.field, spw=config.spw, cached=True)
    reader = context.reader
    data = CalibrationData(reader, [], StageLog(progress), grid=final.grid)
    sky = model = None
    if summary["seeded"]:
        # The same model as the run's, and the same catalogue sources for the region.
        listed = read_model(outdir / MODEL)
        band = np.linspace(float(reader.freq_hz.min()), float(reader.freq_hz.max()), BAND_SAMPLES)
        pointings = np.unique(reader.pointing, axis=0)
        # The beam that the run ended with, if it solved for its width.
        beam = context.beam.widened((summary.get("beam") or {}).get("width_used", 1.0))
        apparent = mean_apparent_flux(listed, beam, pointings, band)
        sky = ApparentSky(
            sky=listed,
            beam=beam,
            apparent_jy=apparent,
            freq_hz=float(band.mean()),
            catalog=str(summary["catalog"]),
            catalog_hash="",
            pointing=reader.pointing,
            band_hz=(float(band[0]), float(band[-1])),
        )
        model = SkyVisibilities(sky)
    tables, noise = true_gain_tables(truth), NoiseScale(0.0)
    # Tables step over flagged dumps: what holds no gain is left out by weight.
    weights = replace(data.nominal_weights(), outliers=lost_visibilities(data.reader, truth))
    if model is not None:
        residual = data.measure_residual(model, weights, tables)
        noise, (weights, _, _) = residual.noise, weights.after(residual)
    # Where the run's components could be, those of the true gains may be.
    mask = read_mask(outdir / MASK, final.grid) if config.catalog_mask else None
    true = make_image(
        data,
        weights,
        tables,
        Embedded(config),
        "image with the true gains",
        subtract=model if config.imaging == "subtracted" else None,
        noise=noise,
        mask_for=None if mask is None else lambda _: mask,
    )
    region = region_for(true, final.grid, sky, noise)
    ours, best = mad_rms(final.image, region), mad_rms(true.restored, region)
    return {"true_gain_rms_jy": best, "rms_ratio": ours / best if best > 0 else None}
