"""What the receivers do to the sky: gains, bandpasses, beams, dead and disturbed antennas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float, Int
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.sky import PrimaryBeam, lmn_from_radec, radec_from_lm
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["Instrument", "draw_instrument"]

Streams = Mapping[str, np.random.Generator]

#: Noise of a bad antenna's baselines over the nominal one: its SEFD is up by the square.
BAD_NOISE = 10.0
#: Mean flux density of an interference burst in jansky, hundreds of times the noise of a channel.
RFI_JY = 1000.0
#: Ripples of the bandpass over the band.
RIPPLES = (2.0, 8.0)


@dataclass(frozen=True)
class Instrument:
    """The receivers of a simulated observation.

    Attributes
    ----------
    gain : ndarray of complex128, shape (ntime, nant, 2)
        Gains: V = g_i conj(g_j) times the sky.
    bandpass : ndarray of complex128, shape (nspw, nchan, nant, 2)
        Factors of the gains by channel, one where neither ripple nor delay is asked for.
    dead, bad : ndarray of bool, shape (nant,)
        Antennas that give noise only, and those with ten times the noise.
    lost_spw : ndarray of bool, shape (nspw,)
        Windows that are flagged.
    pointing_rad : ndarray, shape (nant, 2)
        Pointing errors eastward and northward, radians.
    width : ndarray, shape (nant,)
        Beam widths over the nominal one.
    rfi_jy : ndarray, shape (ntime, nspw, nchan)
        Bursts of interference, jansky.
    rfi_phase : ndarray of complex128, shape (ntime, nant)
        Phases with which they reach the antennas, which burst to burst do not agree with any direction.
    silent, zero, stuck : ndarray of bool, shape (ntime, nant)
        Dumps in which an antenna gives noise only, writes zeros, or repeats its last dump before them.
    noise : ndarray, shape (nant,)
        Noise over the nominal one, the square root of the ratio of the powers; without `bad`.
    ionosphere : ndarray, shape (ntime, nant, 2)
        Slopes eastward and northward of the phase over the sky about the pointing, radians per direction
        cosine in the middle of the band; they fall with frequency.
    stretch : ndarray, shape ()
        Distances from the field's centre are seen longer by this fraction.
    shear : ndarray, shape ()
        Those northward longer by this fraction, those eastward shorter.
    stretch_drift : ndarray, shape ()
        Change of the stretch from the first to the last dump, at an even pace; in the middle it is `stretch`.
    drift_rad : ndarray, shape (nant, 2)
        Change of the pointing errors from the first to the last dump, at an even pace; in the middle they are
        `pointing_rad`.
    squint_rad : ndarray, shape ()
        By how much the first receptor points east of the second, each half of it off.
    """

    gain: Complex
    bandpass: Complex
    dead: Bool
    bad: Bool
    lost_spw: Bool
    pointing_rad: Float
    width: Float
    rfi_jy: Float
    rfi_phase: Complex
    silent: Bool
    zero: Bool
    stuck: Bool
    noise: Float
    ionosphere: Float
    stretch: Float
    shear: Float
    stretch_drift: Float
    drift_rad: Float
    squint_rad: Float

    @property
    def same_beams(self) -> bool:
        """True if all receivers see the sky through the nominal beam, and through one ionosphere."""
        off = self.pointing_rad.any() or self.drift_rad.any() or bool(self.squint_rad)
        return not off and bool((self.width == 1).all()) and not self.ionosphere.any()

    def axes_rad(self, dump: int, receptor: int) -> Float:
        """How far the beams of a receptor are off eastward and northward in a dump, radians, (nant, 2)."""
        squint = np.array([(0.5 - receptor) * float(self.squint_rad), 0.0])
        return np.asarray(self.pointing_rad + self._part(dump) * self.drift_rad + squint)

    def stretches(self, dump: int) -> tuple[float, float]:
        """By what fractions distances east and north are seen longer in a dump."""
        stretch = float(self.stretch + self._part(dump) * self.stretch_drift)
        return stretch - float(self.shear), stretch + float(self.shear)

    def _part(self, dump: int) -> float:
        """How far a dump is from the middle, in units of the whole observation."""
        n_times = self.gain.shape[0]
        return dump / (n_times - 1) - 0.5 if n_times > 1 else 0.0

    @property
    def lost(self) -> Bool:
        """Where an antenna's data do not hold its gain of the dump, shape (ntime, nant)."""
        return np.asarray(self.dead | self.silent | self.zero | self.stuck)

    @property
    def loudness(self) -> Float:
        """Noise over the nominal one, with bad antennas, shape (nant,); a baseline has the product of two."""
        return np.asarray(np.where(self.bad, BAD_NOISE, 1.0) * self.noise)

    def ionosphere_phase(
        self, dump: int, ra_rad: Float, dec_rad: Float, pointing: tuple[float, float]
    ) -> Float:
        """Phase by which an antenna's gain towards a source differs from that on its pointing.

        Parameters
        ----------
        dump : int
            Which.
        ra_rad, dec_rad : ndarray, shape (n,)
            Sources, ICRS radians.
        pointing : (float, float)
            Where the dishes point in it, ICRS radians.

        Returns
        -------
        ndarray, shape (nant, n)
            Radians in the middle of the band.
        """
        return np.asarray(self.ionosphere[dump] @ lmn_from_radec(ra_rad, dec_rad, *pointing)[:, :2].T)

    def amplitude_beams(
        self,
        beam: PrimaryBeam,
        ra_rad: Float,
        dec_rad: Float,
        pointing: tuple[float, float],
        freq_hz: Float,
        dump: int,
        receptor: int = 0,
    ) -> Float:
        """Voltage beams by antenna, negative in the first sidelobe.

        Parameters
        ----------
        beam : PrimaryBeam
            Nominal beam.
        ra_rad, dec_rad : ndarray, shape (n,)
            Sources, ICRS radians.
        pointing : (float, float)
            Where the dishes mean to point, ICRS radians.
        freq_hz : ndarray, shape (nchan,)
            Channels.
        dump, receptor : int
            Which.

        Returns
        -------
        ndarray, shape (nant, n, nchan)
        """
        own, which = np.unique(
            np.column_stack([self.axes_rad(dump, receptor), self.width]), axis=0, return_inverse=True
        )
        beams = []
        for east, north, width in own:
            ra, dec = radec_from_lm(np.sin(east), np.sin(north), *pointing)
            towards = lmn_from_radec(ra_rad, dec_rad, float(ra), float(dec))
            beams.append(beam.widened(float(width)).voltage_towards(towards, freq_hz))
        return np.array(beams)[which.reshape(-1)]


def draw_instrument(
    config: SimulationConfig,
    streams: Streams,
    n_times: int,
    n_antennas: int,
    freq_hz: Float,
    half_power_rad: float,
) -> Instrument:
    """Draw the receivers.

    Parameters
    ----------
    config : SimulationConfig
        Options.
    streams : mapping of str to Generator
        Random numbers by subject.
    n_times, n_antennas : int
        Dumps and antennas.
    freq_hz : ndarray, shape (nspw, nchan)
        Channels.
    half_power_rad : float
        Radius of the beam at half power in the middle of the band.

    Returns
    -------
    Instrument

    Raises
    ------
    InputError
        If more antennas or windows are to fail than there are, or if one dump is to change.
    """
    for name, wanted, there in (
        ("dead", config.dead + config.bad, n_antennas - 2),
        ("lost_spws", config.lost_spws, config.spws - 1),
    ):
        if wanted > there:
            raise InputError(f"{wanted} are to fail, at most {there} may", name, "lower the number")
    if n_times < 2 and (config.stuck > 0 or (config.gain_jump_deg != 0 and config.gain_jumps > 0)):
        raise InputError("nothing can change in a single dump", "stuck, gain_jump_deg", "raise dumps")
    order = streams["failures"].permutation(n_antennas)
    dead, bad = np.zeros((2, n_antennas), dtype=bool)
    # From both ends, so that the number of dead antennas does not change which are bad.
    dead[order[: config.dead]] = True
    bad[order[n_antennas - config.bad :]] = True
    lost = np.zeros(config.spws, dtype=bool)
    lost[streams["lost"].permutation(config.spws)[: config.lost_spws]] = True
    rng = streams["rfi"]
    hit = rng.uniform(size=(n_times, *freq_hz.shape)) < config.rfi
    strength = RFI_JY * rng.standard_exponential(hit.shape)
    shape = (n_times, n_antennas)
    phase = np.exp(2j * np.pi * rng.uniform(size=shape))
    return Instrument(
        draw_gains(streams, n_times, n_antennas, config),
        _bandpass(config, streams, n_antennas, freq_hz),
        dead,
        bad,
        lost,
        np.radians(config.pointing_rms) * streams["pointing"].standard_normal((n_antennas, 2)),
        _widths(config, streams, n_antennas),
        np.where(hit, strength, 0.0),
        phase,
        _blocks(streams["silent"], "dead_fraction", config.dead_fraction, config.dead_time_fraction, shape),
        _blocks(streams["zeros"], "zeros", config.zeros, config.zeros_time_fraction, shape),
        _blocks(streams["stuck"], "stuck", config.stuck, config.zeros_time_fraction, shape, first=1),
        10 ** (0.5 * config.noise_spread * streams["noise_spread"].standard_normal(n_antennas)),
        _ionosphere(streams["ionosphere"], np.radians(config.ionosphere_deg), shape, half_power_rad),
        np.asarray(config.refraction_arcsec * ARCSEC / half_power_rad),
        np.asarray(config.refraction_shear_arcsec * ARCSEC / half_power_rad),
        np.asarray(config.refraction_drift_arcsec * ARCSEC / half_power_rad),
        np.radians(config.pointing_drift) * streams["pointing_drift"].standard_normal((n_antennas, 2)),
        np.asarray(np.radians(config.squint_deg)),
    )


def _widths(config: SimulationConfig, streams: Streams, n_antennas: int) -> Float:
    """Draw beam widths over the nominal one, shape (nant,)."""
    scatter = np.clip(1 + config.beam_scatter * streams["width"].standard_normal(n_antennas), 0.2, None)
    scatter[_chosen(streams["other_dishes"], config.other_dishes, n_antennas)] *= config.other_dish_width
    return np.asarray(scatter)


def _chosen(rng: np.random.Generator, fraction: float, n_antennas: int) -> Int:
    """Draw a fraction of the antennas, at least one where it is not zero."""
    n = max(round(fraction * n_antennas), int(fraction > 0))
    return rng.permutation(n_antennas)[:n]


def _blocks(
    rng: np.random.Generator,
    name: str,
    fraction: float,
    of_time: float,
    shape: tuple[int, int],
    first: int = 0,
) -> Bool:
    """Draw a block of dumps for a fraction of the antennas, shape (ntime, nant).

    It lies at the beginning (not before the dump `first`), in the middle or at the end.
    """
    n_times, n_antennas = shape
    chosen = _chosen(rng, fraction, n_antennas)
    place = rng.integers(0, 3, n_antennas)
    length = min(max(1, round(of_time * n_times)), n_times - first)
    if length == n_times and chosen.size > n_antennas - 2:
        raise InputError(
            f"{chosen.size} antennas are to fail all the time, at most {n_antennas - 2} may", name, "lower it"
        )
    start = first + (place * (n_times - first - length)) // 2
    dump = np.arange(n_times)[:, None]
    block = (dump >= start) & (dump < start + length)
    return np.asarray(block & np.isin(np.arange(n_antennas), chosen))


def _ionosphere(
    rng: np.random.Generator, rms_rad: float, shape: tuple[int, int], half_power_rad: float
) -> Float:
    """Draw slopes of the phase over the sky, which turn from one draw to another, shape (ntime, nant, 2).

    Over a disc of radius R a plane of slopes s has a mean square of ``s^2 R^2 / 4`` an axis.
    """
    n_times, n_antennas = shape
    begin, end = rms_rad * np.sqrt(2.0) / half_power_rad * rng.standard_normal((2, n_antennas, 2))
    turn = np.linspace(0.0, np.pi / 2, n_times)[:, None, None]
    return np.asarray(np.cos(turn) * begin + np.sin(turn) * end)


def draw_gains(streams: Streams, n_times: int, n_antennas: int, config: SimulationConfig) -> Complex:
    """Draw gains per dump, antenna and polarisation, shape (ntime, nant, 2).

    A fixed phase and amplitude each, and a smooth drift of the phase: half a
    period to one and a half periods of a sinusoid over the observation; a
    jump of the phase of some antennas, if asked for.
    """
    shape = (n_antennas, 2)
    rng = streams["gain"]
    phase = (
        rng.uniform(-np.pi, np.pi, shape)
        if config.random_phases
        else np.radians(config.phase_rms) * rng.standard_normal(shape)
    )
    amplitude = 1.0 + config.amplitude_rms * streams["amplitude"].standard_normal(shape)
    x = np.linspace(0.0, 1.0, n_times)[:, None, None]
    rng = streams["drift"]
    turns, start = rng.uniform(0.5, 1.5, shape), rng.uniform(0, 2 * np.pi, shape)
    size = np.radians(config.phase_drift) * np.sqrt(2.0) * rng.standard_normal(shape)
    drift = size * np.sin(2 * np.pi * turns * x + start)
    if config.gain_jump_deg != 0 and config.gain_jumps > 0:
        phase = phase + _jumps(streams["jumps"], config, n_times, n_antennas)
    return np.asarray(np.clip(amplitude, 0.2, None) * np.exp(1j * (phase + drift)))


def _jumps(rng: np.random.Generator, config: SimulationConfig, n_times: int, n_antennas: int) -> Float:
    """Phase of antennas that jump, both polarisations alike, radians, shape (ntime, nant, 1)."""
    jumps = np.isin(np.arange(n_antennas), _chosen(rng, config.gain_jumps, n_antennas))
    at = rng.integers(1, n_times, n_antennas)
    after = (np.arange(n_times)[:, None] >= at) & jumps
    return np.asarray(np.radians(config.gain_jump_deg) * after[:, :, None])


def _bandpass(config: SimulationConfig, streams: Streams, n_antennas: int, freq_hz: Float) -> Complex:
    """Ripple of the amplitude and slope of the phase over the band, shape (nspw, nchan, nant, 2)."""
    shape = (n_antennas, 2)
    rng = streams["bandpass"]
    turns, start = rng.uniform(*RIPPLES, shape), rng.uniform(0, 2 * np.pi, shape)
    # Bounded, so that no amplitude turns negative.
    size = np.clip(config.bandpass_ripple * np.sqrt(2) * rng.standard_normal(shape), -0.9, 0.9)
    middle, span = (freq_hz.min() + freq_hz.max()) / 2, max(float(np.ptp(freq_hz)), 1.0)
    x = ((freq_hz - middle) / span)[:, :, None, None]
    delay = 1e-9 * config.delay_rms * streams["delay"].standard_normal(shape)
    phase = 2 * np.pi * delay * (freq_hz - middle)[:, :, None, None]
    return np.asarray((1 + size * np.sin(2 * np.pi * turns * x + start)) * np.exp(1j * phase))
