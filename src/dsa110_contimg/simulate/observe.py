"""A simulated observation: one field, one spectral window, gains and noise of known truth."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.predict import predict_components
from dsa110_contimg.simulate.array import Array, meridian_mjd, read_array, uvw_of_antennas
from dsa110_contimg.simulate.population import draw_sky, with_catalog_errors, write_catalog
from dsa110_contimg.simulate.writer import write_measurement_set
from dsa110_contimg.sky import AiryBeam, SkyModel, angular_separation, beam_for_antenna, far_bright_sources

__all__ = ["SimulationConfig", "Truth", "simulate"]

Float = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Truth:
    """What a simulated observation was made of.

    Attributes
    ----------
    gain : ndarray of complex128, shape (ntime, nant, npol)
        True gains: V = g_i conj(g_j) times the sky.
    times_s : ndarray, shape (ntime,)
        Dump centres, seconds (MJD UTC).
    sky : SkyModel
        True sky.
    beam : AiryBeam
        True beam.
    """

    gain: Complex
    times_s: Float
    sky: SkyModel
    beam: AiryBeam

    def write(self, path: Path) -> None:
        """Write ``OUT.truth.npz``."""
        beside = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez_compressed(
            beside,
            gain=self.gain,
            times_s=self.times_s,
            ra_rad=self.sky.ra_rad,
            dec_rad=self.sky.dec_rad,
            flux_jy=self.sky.flux_jy,
            spectral_index=self.sky.spectral_index,
            reference_freq_hz=self.sky.reference_freq_hz,
            beam_m=np.array([self.beam.diameter_m, self.beam.blockage_m]),
        )
        beside.replace(path)


def simulate(out: Path, config: SimulationConfig | None = None, sky: SkyModel | None = None) -> Truth:
    """Simulate an observation and write its Measurement Set, truth and catalogue.

    The field tracks its centre through the meridian; the sky is unpolarised.

    Parameters
    ----------
    out : Path
        ``OUT.ms``; beside it come ``OUT.truth.npz`` and ``OUT.catalog.ecsv``.
    config : SimulationConfig, optional
        Options.
    sky : SkyModel, optional
        True sky; drawn at random if not given.

    Returns
    -------
    Truth

    Raises
    ------
    InputError
        If the options do not make an observation.
    ResourceError
        If the Measurement Set is there already.
    """
    config = config or SimulationConfig()
    if out.exists():
        raise ResourceError("is there already", out, "choose another name or remove it")
    if config.high_mhz <= config.low_mhz:
        raise InputError("the band is empty", "low_mhz, high_mhz", "high_mhz must be above low_mhz")
    out.parent.mkdir(parents=True, exist_ok=True)
    array = _chosen(read_array(config.array), config.antennas)
    # Separate streams, so that one option's draws do not shift another's.
    streams = np.random.SeedSequence(config.seed).spawn(4)
    sky_rng, gain_rng, noise_rng, catalog_rng = (np.random.default_rng(s) for s in streams)
    ra, dec = np.radians(config.ra), np.radians(config.dec)
    width = (config.high_mhz - config.low_mhz) * 1e6 / config.channels
    freq: Float = np.asarray(config.low_mhz * 1e6 + width * (np.arange(config.channels) + 0.5))
    beam = beam_for_antenna(array.telescope, array.dish_m)
    reach = beam.null_rad(float(freq.min()), order=2)
    reach_deg = float(np.degrees(reach))
    if sky is None:
        sky = draw_sky(sky_rng, ra, dec, reach, config.min_mjy, config.brightest_jy)
    # The catalogue lists the drawn sky; the very bright sources further out are seen as well.
    seen = SkyModel.concatenate([sky, far_bright_sources(ra, dec, reach)])
    transit = meridian_mjd(60968.6, array.longitude_rad, ra, dec)
    middle = (config.dumps - 1) / 2
    times: Float = np.asarray(transit * 86400.0 + (np.arange(config.dumps) - middle) * config.dump_s)
    gain = draw_gains(gain_rng, len(times), len(array.name), config)
    separation = angular_separation(seen.ra_rad, seen.dec_rad, ra, dec)
    apparent = seen.flux_at(freq) * beam.power(separation, freq)
    lmn = seen.lmn(ra, dec)
    first, second = np.triu_indices(len(array.name), 1)
    # Noise of the real part per channel, dump and polarisation: SEFD / sqrt(2 dnu t).
    sigma = config.sefd_jy / np.sqrt(2 * width * config.dump_s)
    n_rows = first.size * len(times)
    uvw = np.empty((n_rows, 3))
    vis = np.empty((n_rows, config.channels, 2), dtype=np.complex64)
    for t, seconds in enumerate(times):
        rows = slice(t * first.size, (t + 1) * first.size)
        of_antennas = uvw_of_antennas(array.position_m, seconds / 86400.0, ra, dec)
        uvw[rows] = of_antennas[second] - of_antennas[first]
        true = predict_components(uvw[rows], freq, lmn, apparent, seen.major_rad, seen.minor_rad, seen.pa_rad)
        turned = gain[t, first] * np.conj(gain[t, second])
        vis[rows] = true[:, :, None] * turned[:, None, :]
        shape = (first.size, config.channels, 2)
        vis[rows] += sigma * (noise_rng.standard_normal(shape) + 1j * noise_rng.standard_normal(shape))
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    write_measurement_set(
        beside,
        array,
        field_name=f"sim{config.ra:.2f}{config.dec:+.2f}",
        ra_rad=ra,
        dec_rad=dec,
        times_s=times,
        dump_s=config.dump_s,
        freq_hz=freq,
        width_hz=width,
        uvw_m=uvw,
        vis=vis,
        sigma=sigma or 1.0,
    )
    truth = Truth(gain, times, seen, beam)
    stem = out.with_suffix("")
    truth.write(stem.with_name(stem.name + ".truth.npz"))
    listed = with_catalog_errors(catalog_rng, sky, config.flux_error, config.position_error)
    write_catalog(
        stem.with_name(stem.name + ".catalog.ecsv"),
        listed,
        max(-90.0, config.dec - reach_deg - 0.1),
        min(90.0, config.dec + reach_deg + 0.1),
    )
    beside.rename(out)
    return truth


def draw_gains(rng: np.random.Generator, n_times: int, n_antennas: int, config: SimulationConfig) -> Complex:
    """Draw gains per dump, antenna and polarisation, shape (ntime, nant, 2).

    A fixed phase and amplitude each, and a smooth drift of the phase: half a
    period to one and a half periods of a sinusoid over the observation.
    """
    shape = (n_antennas, 2)
    phase = (
        rng.uniform(-np.pi, np.pi, shape)
        if config.random_phases
        else np.radians(config.phase_rms) * rng.standard_normal(shape)
    )
    amplitude = np.clip(1.0 + config.amplitude_rms * rng.standard_normal(shape), 0.2, None)
    x = np.linspace(0.0, 1.0, n_times)[:, None, None]
    turns, start = rng.uniform(0.5, 1.5, shape), rng.uniform(0, 2 * np.pi, shape)
    size = np.radians(config.phase_drift) * np.sqrt(2.0) * rng.standard_normal(shape)
    drift = size * np.sin(2 * np.pi * turns * x + start)
    return np.asarray(amplitude * np.exp(1j * (phase + drift)))


def _chosen(array: Array, antennas: int | None) -> Array:
    if antennas is None or antennas >= len(array.name):
        return array
    keep = np.unique(np.linspace(0, len(array.name) - 1, antennas).round().astype(int))
    return Array(
        array.telescope,
        tuple(array.name[k] for k in keep),
        array.position_m[keep],
        array.dish_m,
        array.longitude_rad,
        array.latitude_rad,
    )
