"""A simulated observation: sky, receivers and noise turned into visibilities, dump by dump."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Complex, Float, Int, Vis
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.files import replacing_folder
from dsa110_contimg.predict import predict_components
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.simulate.array import (
    Array,
    meridian_mjd,
    meridian_pointing,
    read_array,
    seen_lmn,
    uvw_of_antennas,
)
from dsa110_contimg.simulate.catalog_faults import error_size, require_catalog_error_fits
from dsa110_contimg.simulate.elliptical_beam import EllipticalBeam
from dsa110_contimg.simulate.instrument import Instrument, draw_instrument
from dsa110_contimg.simulate.population import write_catalog
from dsa110_contimg.simulate.scene import build_scene
from dsa110_contimg.simulate.truth import Truth
from dsa110_contimg.simulate.writer import Layout, MeasurementSetWriter
from dsa110_contimg.sky import PrimaryBeam, SkyModel, choose_beam
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT
from dsa110_contimg.visibilities.lock import lock_beside

__all__ = ["SimulationConfig", "Truth", "simulate"]


#: One stream of random numbers per subject, so that one option's draws do not shift another's. Streams are
#: spawned in this order: new ones go to the end.
STREAMS = (
    "sky",
    "noise",
    "catalog",
    "index",
    "faint",
    "doubles",
    "variables",
    "missing",
    "spurious",
    "absent",
    "new",
    "gain",
    "amplitude",
    "drift",
    "bandpass",
    "delay",
    "pointing",
    "width",
    "failures",
    "lost",
    "rfi",
    "catalog_error",
    "double",
    "jumps",
    "silent",
    "zeros",
    "stuck",
    "noise_spread",
    "ionosphere",
    "weights",
    "pointing_drift",
    "other_dishes",
)
#: So many sources, the brightest apparent ones, are seen through each antenna's own beam; all of them where
#: there are dishes of another kind, whose beams reach further.
OWN_BEAM_SOURCES = 300
#: Sky beyond the beam's second null that the catalogue covers as well, degrees.
MARGIN_DEG = 0.3
SIDEREAL_RATE = 15.04 / 3600  # degrees per second
SIDEREAL_DAY = 0.99726957  # days


def simulate(
    out: Path,
    config: SimulationConfig | None = None,
    sky: SkyModel | None = None,
    *,
    progress: Progress | None = None,
) -> Truth:
    """Simulate an observation and write its Measurement Set, truth and catalogue.

    The field crosses the meridian in the middle of the observation. The sky is
    unpolarised. Dishes that stand still see each source through another part of
    the beam in every dump.

    Parameters
    ----------
    out : Path
        ``OUT.ms``; beside it come ``OUT.truth.npz`` and ``OUT.catalog.ecsv``.
    config : SimulationConfig, optional
        Options.
    sky : SkyModel, optional
        True sky; drawn at random, or taken from a catalogue, if not given.
    progress : Progress, optional
        Where progress is reported.

    Returns
    -------
    Truth

    Raises
    ------
    InputError
        If the options do not make an observation.
    ResourceError
        If the Measurement Set is there already.

    Notes
    -----
    Phases are ``u l + v m + w (n - 1)`` with ICRS direction cosines, the
    convention of imagers and of CASA. Nature's are those of the apparent
    directions, between which aberration stretches the sky by up to 1e-4 (0.36
    arcsec a degree off the phase centre): the option `differential_aberration`.
    """
    config = config or SimulationConfig()
    _require_absent(out)
    if config.high_mhz <= config.low_mhz:
        raise InputError("the band is empty", "low_mhz, high_mhz", "high_mhz must be above low_mhz")
    require_catalog_error_fits(config)
    array = _chosen(read_array(config.array), config.antennas)
    seeds = np.random.SeedSequence(config.seed).spawn(len(STREAMS))
    streams = {name: np.random.default_rng(s) for name, s in zip(STREAMS, seeds, strict=True)}
    truth = _truth(config, array, streams, sky)
    out.parent.mkdir(parents=True, exist_ok=True)
    with lock_beside(out, "contimg simulate"):
        _require_absent(out)
        with replacing_folder(out) as temporary:
            _observe(temporary, config, array, truth, streams, progress or LogProgress())
            stem = out.with_suffix("")
            truth.write(stem.with_name(stem.name + ".truth.npz"))
            wider = max(1.0, config.beam_width)
            reach = float(np.degrees(_reach(config, truth.freq_hz, array, wider))) + MARGIN_DEG
            if config.catalog_error == "shift":
                reach += error_size(config) / 3600
            write_catalog(
                stem.with_name(stem.name + ".catalog.ecsv"),
                truth.scene.catalog,
                max(-90.0, config.dec - reach),
                min(90.0, config.dec + reach),
            )
    return truth


def _require_absent(out: Path) -> None:
    if out.exists():
        raise ResourceError("is there already", out, "choose another name or remove it")


def _reach(config: SimulationConfig, freq_hz: Float, array: Array, wider: float = 1.0) -> float:
    """How far from the centre sources are drawn: the second null at either end of the drift, radians.

    That of the nominal beam, so that `beam_width` leaves the sky as it is; or of one wider by a factor: so
    far the catalogue is complete.
    """
    half = SIDEREAL_RATE * config.dumps * config.dump_s / 2 * np.cos(np.radians(config.dec))
    drift = np.radians(half) if config.drift else 0.0
    beam = choose_beam(array.telescope, np.array([array.dish_m]))
    return float(min(beam.widened(wider).null_rad(float(freq_hz.min()), order=2) + drift, np.radians(89.0)))


def _truth(
    config: SimulationConfig, array: Array, streams: dict[str, np.random.Generator], sky: SkyModel | None
) -> Truth:
    ra, dec = np.radians(config.ra), np.radians(config.dec)
    n_channels = config.spws * config.channels
    width = (config.high_mhz - config.low_mhz) * 1e6 / n_channels
    freq = np.asarray(config.low_mhz * 1e6 + width * (np.arange(n_channels) + 0.5))
    freq = freq.reshape(config.spws, config.channels)
    near = 60968.6 + SIDEREAL_DAY * config.transit
    transit = meridian_mjd(near, array.longitude_rad, ra, dec)
    since = (np.arange(config.dumps) - (config.dumps - 1) / 2) * config.dump_s
    times: Float = np.asarray(transit * 86400.0 + since)
    centre = np.tile([ra, dec], (config.dumps, 1))
    pointing = centre
    if config.drift:
        pointing = np.array([meridian_pointing(t / 86400.0, transit, ra, dec) for t in times])
    nominal = choose_beam(array.telescope, np.array([array.dish_m]), form=config.beam)
    beam: PrimaryBeam = nominal.widened(config.beam_width)
    if config.beam_ellipticity != 1:
        beam = EllipticalBeam(nominal.widened(config.beam_width), config.beam_ellipticity)
    mid = float(freq.min() + freq.max()) / 2
    scene = build_scene(config, streams, ra, dec, _reach(config, freq, array), beam, mid, sky)
    return Truth(
        times_s=times,
        freq_hz=freq,
        pointing=pointing,
        phase_centre=centre if config.fields == 1 else pointing,
        middle=centre[0],
        beam=beam,
        instrument=draw_instrument(
            config, streams, config.dumps, len(array.name), freq, beam.fwhm_rad(mid) / 2
        ),
        scene=scene,
    )


def _observe(
    path: Path,
    config: SimulationConfig,
    array: Array,
    truth: Truth,
    streams: dict[str, np.random.Generator],
    progress: Progress,
) -> None:
    """Write the visibilities, one dump and window at a time: nothing of the size of the table is held."""
    noise = streams["noise"]
    n_antennas = len(array.name)
    pairs = np.triu_indices(n_antennas)
    # Noise is drawn for all pairs, so that leaving out autocorrelations does not shift it.
    kept = np.flatnonzero((pairs[0] != pairs[1]) | config.autocorrelations)
    first, second = pairs[0][kept], pairs[1][kept]
    auto = first == second
    width = (config.high_mhz - config.low_mhz) * 1e6 / truth.freq_hz.size
    # Noise of the real part per channel, dump and polarisation: SEFD / sqrt(2 dnu t); the real
    # autocorrelations have sqrt(2) times that.
    sigma = config.sefd_jy / np.sqrt(2 * width * config.dump_s)
    receivers = truth.instrument
    layout = Layout(
        array=array if config.dish_m is None else replace(array, dish_m=config.dish_m),
        field_names=_field_names(config),
        phase_centre=truth.phase_centre if config.drift and config.fields != 1 else truth.phase_centre[:1],
        pointing=truth.pointing,
        tracking=not config.drift,
        times_s=truth.times_s,
        dump_s=config.dump_s,
        freq_hz=truth.freq_hz,
        width_hz=width,
        antenna1=first,
        antenna2=second,
        sigma=_claimed_sigma(config, streams["weights"], receivers, sigma or 1.0, first, second),
    )
    loud = receivers.loudness
    scale = (sigma * loud[first] * loud[second] * np.where(auto, np.sqrt(2.0), 1.0)).astype(np.float32)
    frozen: dict[int, Vis] = {}
    with MeasurementSetWriter(path, layout) as writer:
        for t in progress.track(range(config.dumps), config.dumps, "simulate"):
            sky = _SkyAt(config, array, truth, t)
            uvw = sky.antenna_uvw[second] - sky.antenna_uvw[first]
            alive = ~(receivers.dead | receivers.silent[t])
            stuck = receivers.stuck[t, first] | receivers.stuck[t, second]
            zero = receivers.zero[t, first] | receivers.zero[t, second]
            for window in range(config.spws):
                seen = sky.visibilities(window, uvw, first, second)
                gain = receivers.gain[t] * receivers.bandpass[window] * alive[:, None]
                turned = gain[:, first] * np.conj(gain[:, second])
                burst = receivers.rfi_phase[t] * alive
                bursts = (burst[first] * np.conj(burst[second]))[:, None] * receivers.rfi_jy[t, window]
                seen += bursts[:, :, None]
                # The receivers' own power in the autocorrelations.
                seen[auto] += config.sefd_jy * (receivers.noise**2)[first[auto], None, None]
                vis = (seen * turned.transpose(1, 0, 2)).astype(np.complex64)
                shape = (pairs[0].size, config.channels, 2)
                for part in (vis.real, vis.imag):
                    part += scale[:, None, None] * noise.standard_normal(shape, dtype=np.float32)[kept]
                vis.imag[auto] = 0.0
                vis[stuck] = frozen[window][stuck] if stuck.any() else 0.0
                vis[zero] = 0.0
                if receivers.stuck.any():
                    frozen[window] = vis
                writer.put(t, window, uvw, vis, bool(receivers.lost_spw[window]))


def _claimed_sigma(
    config: SimulationConfig,
    rng: np.random.Generator,
    receivers: Instrument,
    nominal: float,
    first: Int,
    second: Int,
) -> Float:
    """Noise that the weights are to tell, jansky, shape (nbl,)."""
    n_antennas = receivers.dead.size
    if config.weights == "one":
        return np.ones(first.size)
    by_antenna = {
        "nominal": np.ones(n_antennas),
        "true": receivers.loudness,
        "wrong": 10 ** (0.5 * rng.uniform(-1, 1, n_antennas)),
    }[config.weights]
    real = (first == second) & (config.weights == "true")
    return np.asarray(nominal * by_antenna[first] * by_antenna[second] * np.where(real, np.sqrt(2.0), 1.0))


class _SkyAt:
    """The sky during one dump.

    Parameters
    ----------
    config : SimulationConfig
        Options.
    array : Array
        Stations.
    truth : Truth
        Sky, beam and receivers.
    dump : int
        Which.
    """

    def __init__(self, config: SimulationConfig, array: Array, truth: Truth, dump: int) -> None:
        self.truth, self.dump = truth, dump
        mjd = truth.times_s[dump] / 86400.0
        centre = (float(truth.phase_centre[dump, 0]), float(truth.phase_centre[dump, 1]))
        self.antenna_uvw = uvw_of_antennas(array.position_m, mjd, *centre)
        sky = truth.seen_sky(dump)
        self.lmn, self.shape = sky.lmn(*centre), sky.shape_about(*centre)
        if config.differential_aberration:
            self.lmn = seen_lmn(mjd, sky.ra_rad, sky.dec_rad, *centre)
        self.own = np.zeros(len(sky), dtype=bool)
        if not truth.instrument.same_beams:
            middle = truth.freq_hz.mean(keepdims=True)[0]
            bright = np.argsort(-truth.apparent_flux(middle)[:, 0], kind="stable")
            # Their Fourier sum by antenna, in which a beam of its own costs nothing, is one of points.
            points = bright[sky.is_point[bright]]
            self.own[points if config.other_dishes else points[:OWN_BEAM_SOURCES]] = True

    def visibilities(self, window: int, uvw: Float, first: Int, second: Int) -> Complex:
        """Predict a spectral window without receivers, in jansky.

        Shape (nbl, nchan, 2), or (nbl, nchan, 1) where both receptors see the same.
        """
        freq = self.truth.freq_hz[window]
        flux = self.truth.apparent_flux(freq, self.dump)
        rest = ~self.own
        major, minor, pa = (of_all[rest] for of_all in self.shape)
        vis = predict_components(uvw, freq, self.lmn[rest], flux[rest], major, minor, pa).astype(
            np.complex128
        )
        if not self.own.any():
            return vis[:, :, None]
        receptors = range(2 if self.truth.instrument.squint_rad else 1)
        return vis[:, :, None] + np.stack([self._own(freq, first, second, p) for p in receptors], axis=2)

    def _own(self, freq: Float, first: Int, second: Int, receptor: int) -> Complex:
        """Predict the sources that a receptor sees through each antenna's own beam, shape (nbl, nchan)."""
        sky = self.truth.sky
        chosen = sky.select(self.own)
        pointing = (float(self.truth.pointing[self.dump, 0]), float(self.truth.pointing[self.dump, 1]))
        amplitude = self.truth.instrument.amplitude_beams(
            self.truth.beam, chosen.ra_rad, chosen.dec_rad, pointing, freq, self.dump, receptor
        )
        turns = self.antenna_uvw @ self.lmn[self.own].T / SPEED_OF_LIGHT
        # A gain's phase turns a voltage the other way: V = g_i conj(g_j).
        screen = self.truth.instrument.ionosphere_phase(self.dump, chosen.ra_rad, chosen.dec_rad, pointing)
        middle = (self.truth.freq_hz.min() + self.truth.freq_hz.max()) / 2
        flux = chosen.flux_at(freq)
        vis = np.zeros((first.size, freq.size), dtype=np.complex128)
        for c, hertz in enumerate(freq):
            voltage = amplitude[:, :, c] * np.exp(1j * (2 * np.pi * hertz * turns - screen * middle / hertz))
            matrix = (np.conj(voltage) * flux[:, c]) @ voltage.T
            vis[:, c] = matrix[first, second]
        return vis


def _field_names(config: SimulationConfig) -> tuple[str, ...]:
    if not config.drift:
        return (f"sim{config.ra:.2f}{config.dec:+.2f}",)
    if config.fields == 1:
        return ("meridian_icrs",)
    return tuple(f"meridian_icrs_t{t}" for t in range(config.dumps))


def _chosen(array: Array, antennas: int | None) -> Array:
    if antennas is None or antennas >= len(array.name):
        return array
    keep = np.unique(np.linspace(0, len(array.name) - 1, antennas).round().astype(int))
    return replace(array, name=tuple(array.name[k] for k in keep), position_m=array.position_m[keep])
