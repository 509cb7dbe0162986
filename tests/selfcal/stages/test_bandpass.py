"""Delays and bandpass are kept where other channels are predicted better; else nothing is kept of them."""

import numpy as np
import pytest

from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, solve_rounds
from dsa110_contimg.selfcal.stages.bandpass import bandpass
from dsa110_contimg.selfcal.state import CalState
from tests.selfcal.support import add_noise, gain_table, open_data

DELAY_S = 3e-9


@pytest.mark.parametrize("kind", ["delay", "bandpass"])
def test_a_rejected_bandpass_keeps_nothing(kind, observed, stage_config, solved, log, notes):
    """No delays, and noise in which some are found: what was measured with them goes with them."""
    data = open_data(observed, stage_config)
    add_noise(data, 100 * solved.noise.rms)
    start = CalState(weights=data.nominal_weights())
    assert bandpass(data, start, stage_config.with_options(spectral=kind), log) is start
    (said,) = notes.about("ns rms")
    assert said.startswith(kind)
    assert said.endswith("left out")


def test_no_delay_at_all_is_too_little_signal(observed, stage_config, solved, log, notes):
    """Solutions that are all flagged have a signal to noise, and no delay."""
    data = open_data(observed, stage_config)
    add_noise(data, 150 * solved.noise.rms)
    start = CalState(weights=data.nominal_weights())
    assert bandpass(data, start, stage_config.with_options(spectral="delay"), log) is start
    assert notes.lines[-1] == "no delays: too little signal in each sub-band"


def test_delays_that_are_there_are_kept(observed, data, stage_config, solved, log, notes):
    n = len(data.reader.ms.antennas)
    delay_s = DELAY_S * np.random.default_rng(2).standard_normal((n, 2))
    freq = data.reader.freq_hz
    turn = np.exp(-2j * np.pi * delay_s[:, None] * (freq - freq.mean())[None, :, None])
    # Initial tables are divided out: this puts the delays in.
    delayed = open_data(observed, stage_config, (gain_table(data, turn, "B Jones"),))
    start = CalState(weights=delayed.nominal_weights())
    found = bandpass(delayed, start, stage_config.with_options(spectral="delay"), log)
    assert notes.about("ns rms")[0].endswith("kept")
    (table,) = found.bandpass
    assert table.kind == "B Jones"
    gain = next(iter(table.gains.values())).gain[0]
    slope = np.angle(gain[:, 1] * gain[:, 0].conj()) / (2 * np.pi * (freq[1] - freq[0]))
    wrong = slope - delay_s
    # One delay common to all antennas changes no visibility.
    wrong -= np.median(wrong, axis=0)
    assert np.abs(wrong).max() < 0.1 * DELAY_S
    without = gather(delayed, start, log, SkyVisibilities(delayed.catalog_model))
    without = solve_rounds(delayed, without, stage_config, log)
    common = without.noise.variance / found.noise.variance
    assert found.last.chi2_heldout < 0.5 * common * without.last.chi2_heldout
    assert found.last.tables[0] is table
    assert start.bandpass == ()


def test_off_and_too_few_channels_do_nothing(data, start, stage_config, log, notes, monkeypatch):
    assert bandpass(data, start, stage_config, log) is start
    assert not notes.lines
    monkeypatch.setattr("dsa110_contimg.selfcal.stages.bandpass.FEWEST_SUB_BANDS", 9)
    assert bandpass(data, start, stage_config.with_options(spectral="delay"), log) is start
    assert notes.lines == ["no delays: fewer than 9 channels"]
