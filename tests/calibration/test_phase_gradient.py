"""Gains that move the sky are told from gains that scatter."""

from functools import partial

import numpy as np
import pytest

from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.calibration.phase_gradient import delay_gradient, phase_gradient
from dsa110_contimg.predict.direct import predict_reference
from dsa110_contimg.sky.beam import SPEED_OF_LIGHT

ARCSEC = np.pi / 180 / 3600
N_TIMES, N_ANTENNAS = 3, 30


@pytest.fixture
def uv(rng):
    """Antennas within a few hundred wavelengths about any origin, that turn a little as time goes by."""
    east, north = rng.uniform(-1500, 1500, (2, N_ANTENNAS))
    angle = 0.02 * np.arange(N_TIMES)[:, None]
    u = east * np.cos(angle) + north * np.sin(angle)
    v = north * np.cos(angle) - east * np.sin(angle)
    return np.stack([u, v], axis=2) + np.array([4000.0, -700.0])


def moving_gains(rng, uv, shift_rad, scatter_deg=0.0):
    """Gains that move the sky, each antenna and polarisation with an error that holds, and any amplitude."""
    error = np.radians(scatter_deg) * rng.standard_normal((1, uv.shape[1], 2))
    amplitude = rng.uniform(0.3, 3.0, (1, uv.shape[1], 2))
    return amplitude * np.exp(2j * np.pi * (uv @ np.asarray(shift_rad))[:, :, None] + 1j * error)


def every(gain):
    return np.ones(gain.shape, bool)


@pytest.mark.parametrize("scatter_deg", [0.0, 5.0, 20.0])
@pytest.mark.parametrize("arcsec", [(0.0, 0.0), (2.0, -1.0), (-40.0, 30.0), (300.0, 200.0), (-648.0, 864.0)])
def test_a_shift_is_found_within_its_error(rng, uv, arcsec, scatter_deg):
    true = np.array(arcsec) * ARCSEC
    gain = moving_gains(rng, uv, true, scatter_deg)
    found = phase_gradient(gain, every(gain), uv)
    assert found.n_antennas == N_ANTENNAS
    # A hundredth of an arcsecond is what the search leaves of exact phases.
    assert np.abs(found.shift_rad - true).max() < 3 * found.error_rad + 0.01 * ARCSEC
    # |mean of exp(i x)| is exp(-s^2 / 2) of phases that scatter by s.
    assert found.coherence == pytest.approx(np.exp(-(np.radians(scatter_deg) ** 2) / 2), abs=0.03)
    assert found.coherence_as_is <= found.coherence + 1e-9
    if np.hypot(*arcsec) > 200:
        assert found.coherence_as_is < 0.6
    resolution = 1 / np.ptp(uv[0], axis=0).max()
    assert found.error_rad < 0.05 * resolution


def test_the_error_is_that_of_many_trials(rng, uv):
    found = []
    for _ in range(30):
        gain = moving_gains(rng, uv, (0.0, 0.0), 20.0)
        found.append(phase_gradient(gain[:1, :, :1], every(gain[:1, :, :1]), uv[:1]))
    scatter = np.std([f.shift_rad for f in found])
    assert np.median([f.error_rad for f in found]) == pytest.approx(scatter, rel=0.4)


def test_gains_move_the_sky_by_what_is_found(rng, uv):
    """A source of the middle, seen through what is divided out, lies where the shift says."""
    shift = np.array([20.0, -35.0]) * ARCSEC
    gain = moving_gains(rng, uv, shift)[:1, :, :1]
    gain /= np.abs(gain)
    i, j = np.triu_indices(N_ANTENNAS, 1)
    baseline = np.concatenate([uv[0, j] - uv[0, i], np.zeros((i.size, 1))], axis=1)
    # In metres at a wavelength of one metre.
    sky = partial(predict_reference, baseline, np.array([SPEED_OF_LIGHT]), flux_jy=np.ones((1, 1)))
    corrected = sky(lmn=np.array([[0.0, 0.0, 1.0]]))[:, 0] / (gain[0, i, 0] * gain[0, j, 0].conj())
    found = phase_gradient(gain, every(gain), uv[:1]).shift_rad
    np.testing.assert_allclose(found, shift, atol=0.05 * ARCSEC)
    np.testing.assert_allclose(corrected, sky(lmn=np.array([[*shift, 1.0]]))[:, 0], atol=1e-6)


def test_random_phases_have_no_gradient(rng, uv):
    gain = np.exp(1j * rng.uniform(-np.pi, np.pi, (1, N_ANTENNAS, 2))) * np.ones((N_TIMES, 1, 1))
    found = phase_gradient(gain, every(gain), uv)
    assert found.coherence < 0.7
    assert found.coherence_as_is < 3 / np.sqrt(N_ANTENNAS)


def test_a_constant_phase_of_each_dump_and_polarisation_is_nothing(rng, uv):
    gain = moving_gains(rng, uv, (10 * ARCSEC, 5 * ARCSEC))
    turned = gain * np.exp(1j * rng.uniform(-np.pi, np.pi, (N_TIMES, 1, 2)))
    one, other = phase_gradient(gain, every(gain), uv), phase_gradient(turned, every(gain), uv)
    np.testing.assert_allclose(one.shift_rad, other.shift_rad, atol=0.01 * ARCSEC)
    assert other.coherence == pytest.approx(one.coherence)


def test_antennas_that_are_missing_do_not_count(rng, uv):
    true = np.array([25.0, -60.0]) * ARCSEC
    gain = moving_gains(rng, uv, true)
    solved, uv = every(gain), uv.copy()
    # Wrong gains without a solution, a gain of zero, and antennas without coordinates.
    gain[:, :6] = np.exp(1j * rng.uniform(-np.pi, np.pi, (N_TIMES, 6, 2)))
    solved[:, :6] = False
    gain[:, 6] = 0
    uv[:, 7:9] = np.nan
    found = phase_gradient(gain, solved, uv)
    np.testing.assert_allclose(found.shift_rad, true, atol=0.05 * ARCSEC)
    assert found.coherence == pytest.approx(1, abs=1e-3)
    assert found.n_antennas == N_ANTENNAS - 9


def test_dumps_without_any_gain_do_not_count(rng, uv):
    true = np.array([25.0, -60.0]) * ARCSEC
    gain = moving_gains(rng, uv, true)
    solved = every(gain)
    solved[1] = False
    solved[:, :, 1] = False
    found = phase_gradient(gain, solved, uv)
    np.testing.assert_allclose(found.shift_rad, true, atol=0.05 * ARCSEC)
    assert found.coherence == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("n", [0, 2])
def test_of_too_few_antennas_nothing_is_said(rng, uv, n):
    gain = moving_gains(rng, uv, (0.0, 0.0))
    solved = every(gain)
    solved[:, n:] = False
    found = phase_gradient(gain, solved, uv)
    assert found.n_antennas == n
    assert np.isinf(found.error_rad)
    assert found.coherence == 0


def table_of_delays(delay_s):
    """Delays of antennas as a table of two windows, with a phase of any size on each antenna."""
    phase = np.random.default_rng(3).uniform(0, 2 * np.pi, delay_s.size)
    gains = {}
    for spw, freq in enumerate(np.array([[1.32e9, 1.38e9], [1.42e9, 1.48e9]])):
        gain = np.exp(1j * (phase[:, None] + 2 * np.pi * delay_s[:, None] * freq))[None, :, :, None]
        flat = np.ones_like(gain, dtype=float)
        one = np.zeros(1, dtype=int)
        gains[spw] = Gains(
            time_s=np.zeros(1),
            interval_s=np.ones(1),
            freq_hz=freq,
            gain=np.repeat(gain, 2, axis=3),
            flag=np.zeros((*gain.shape[:3], 2), bool),
            error=np.repeat(flat, 2, axis=3),
            snr=np.repeat(flat, 2, axis=3),
            reference_antenna=one,
            field_id=one,
            scan=one,
        )
    return GainTable(kind="B Jones", gains=gains)


def test_delays_of_a_shift_are_told_from_others(rng, uv):
    uv_m = 0.214 * uv
    shift = np.array([900.0, -700.0]) * ARCSEC
    of_shift = uv_m[0] @ shift / SPEED_OF_LIGHT
    found = delay_gradient([table_of_delays(of_shift + 2e-10 * rng.standard_normal(N_ANTENNAS))], uv_m)
    assert found.chance < 1e-6
    assert found.shift_rad == pytest.approx(tuple(shift), abs=6 * found.error_rad + 10 * ARCSEC)
    for few in (8, 12, N_ANTENNAS):
        other = delay_gradient([table_of_delays(1e-8 * rng.standard_normal(few))], uv_m[:, :few])
        assert other.chance > 1e-3
    assert delay_gradient([], uv_m) is None
