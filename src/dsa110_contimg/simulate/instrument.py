"""What the receivers do to the sky: gains, bandpasses, beams, dead and disturbed antennas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.sky import AiryBeam, radec_from_lm
from dsa110_contimg.sky.directions import angular_separation

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

    @property
    def same_beams(self) -> bool:
        """True if all antennas see the sky through the nominal beam."""
        return not self.pointing_rad.any() and bool((self.width == 1).all())

    def amplitude_beams(
        self, beam: AiryBeam, ra_rad: Float, dec_rad: Float, pointing: tuple[float, float], freq_hz: Float
    ) -> Float:
        """Voltage beams by antenna: square roots of the power beams.

        Parameters
        ----------
        beam : AiryBeam
            Nominal beam.
        ra_rad, dec_rad : ndarray, shape (n,)
            Sources, ICRS radians.
        pointing : (float, float)
            Where the dishes mean to point, ICRS radians.
        freq_hz : ndarray, shape (nchan,)
            Channels.

        Returns
        -------
        ndarray, shape (nant, n, nchan)
        """
        beams = []
        for (east, north), width in zip(self.pointing_rad, self.width, strict=True):
            ra, dec = radec_from_lm(np.sin(east), np.sin(north), *pointing)
            own = AiryBeam(beam.diameter_m / width, beam.blockage_m / width)
            beams.append(np.sqrt(own.power(angular_separation(ra_rad, dec_rad, ra, dec), freq_hz)))
        return np.array(beams)


def draw_instrument(
    config: SimulationConfig, streams: Streams, n_times: int, n_antennas: int, freq_hz: Float
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

    Returns
    -------
    Instrument

    Raises
    ------
    InputError
        If more antennas or windows are to fail than there are.
    """
    for name, wanted, there in (
        ("dead", config.dead + config.bad, n_antennas - 2),
        ("lost_spws", config.lost_spws, config.spws - 1),
    ):
        if wanted > there:
            raise InputError(f"{wanted} are to fail, at most {there} may", name, "lower the number")
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
    phase = np.exp(2j * np.pi * rng.uniform(size=(n_times, n_antennas)))
    return Instrument(
        draw_gains(streams, n_times, n_antennas, config),
        _bandpass(config, streams, n_antennas, freq_hz),
        dead,
        bad,
        lost,
        np.radians(config.pointing_rms) * streams["pointing"].standard_normal((n_antennas, 2)),
        np.clip(1 + config.beam_scatter * streams["width"].standard_normal(n_antennas), 0.2, None),
        np.where(hit, strength, 0.0),
        phase,
    )


def draw_gains(streams: Streams, n_times: int, n_antennas: int, config: SimulationConfig) -> Complex:
    """Draw gains per dump, antenna and polarisation, shape (ntime, nant, 2).

    A fixed phase and amplitude each, and a smooth drift of the phase: half a
    period to one and a half periods of a sinusoid over the observation.
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
    return np.asarray(np.clip(amplitude, 0.2, None) * np.exp(1j * (phase + drift)))


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
