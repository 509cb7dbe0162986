"""Delays and bandpass are kept where other channels are predicted better; else nothing is kept of them."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.solve_round import gather, solve_rounds
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import bandpass, without_bandpass
from dsa110_contimg.selfcal.stages.reweight import reweight
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
    add_noise(data, 400 * solved.noise.rms)
    start = CalState(weights=data.nominal_weights())
    assert bandpass(data, start, stage_config.with_options(spectral="delay"), log) is start
    assert notes.lines[-1] == "no delays: too little signal in each sub-band"


def with_delays(observed, data, config):
    """The observation with delays, and these (nant, 2) in seconds."""
    n = len(data.reader.ms.antennas)
    delay_s = DELAY_S * np.random.default_rng(2).standard_normal((n, 2))
    freq = data.reader.freq_hz
    turn = np.exp(-2j * np.pi * delay_s[:, None] * (freq - freq.mean())[None, :, None])
    # Initial tables are divided out: this puts the delays in.
    return open_data(observed, config, (gain_table(data, turn, "B Jones"),)), delay_s


@pytest.mark.parametrize("kind", ["delay", "auto"])
def test_delays_that_are_there_are_kept(kind, observed, data, stage_config, solved, log, notes):
    delayed, delay_s = with_delays(observed, data, stage_config)
    freq = data.reader.freq_hz
    start = CalState(weights=delayed.nominal_weights())
    found = bandpass(delayed, start, stage_config.with_options(spectral=kind), log)
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
    assert bandpass(data, start, stage_config.with_options(spectral="off"), log) is start
    assert not notes.lines
    monkeypatch.setattr("dsa110_contimg.selfcal.stages.bandpass.FEWEST_SUB_BANDS", 9)
    assert bandpass(data, start, stage_config.with_options(spectral="delay"), log) is start
    assert notes.lines == ["no delays: fewer than 9 channels"]
    assert bandpass(data, start, stage_config, log) is start
    assert len(notes.lines) == 1


def counted(data, monkeypatch):
    """Number of sub-bands of each pass over the data, as they are made."""
    passes, gather_ = [], data.gather

    def count(*args, **options):
        passes.append(options["sub_bands"])
        return gather_(*args, **options)

    monkeypatch.setattr(data, "gather", count)
    return passes


def test_without_delays_the_rounds_are_those_of_off(
    data, start, stage_config, solved, log, notes, monkeypatch
):
    """And there is no pass over the data more, no solution twice."""
    passes = counted(data, monkeypatch)
    plain = reweight(
        data, bandpass(data, start, stage_config.with_options(spectral="off"), log), stage_config, log
    )
    expected, said = len(passes), list(notes.lines)
    assert said
    passes.clear()
    notes.lines.clear()
    # Another log: one tells a line that says the same only once.
    log = StageLog(notes)
    found = bandpass(data, start, stage_config, log)
    assert (found.bandpass, passes) == ((), [8])
    after = reweight(data, found, stage_config, log)
    assert len(passes) == expected
    assert notes.lines == said
    assert after.noise == plain.noise
    assert [r.solution.solint for r in after.rounds] == [r.solution.solint for r in solved.rounds]
    for one, other in zip(after.rounds, plain.rounds, strict=True):
        assert one.chi2_heldout == pytest.approx(other.chi2_heldout, rel=1e-6)
        assert one.tables[-1].kind == other.tables[-1].kind
    assert start.statistics is None


def test_in_noise_nothing_is_looked_for(observed, stage_config, solved, log, notes):
    data = open_data(observed, stage_config)
    add_noise(data, 30 * solved.noise.rms)
    found = bandpass(data, CalState(weights=data.nominal_weights()), stage_config, log)
    assert found.bandpass == ()
    assert not notes.about("delays")


def test_a_ripple_alone_becomes_a_bandpass(observed, data, stage_config, log, notes):
    phase = np.random.default_rng(3).uniform(0, 6.28, (len(data.reader.ms.antennas), 1, 2))
    ripple = 1 + 0.15 * np.sin(np.linspace(0, 3, 8)[None, :, None] + phase)
    rippled = open_data(observed, stage_config, (gain_table(data, ripple, "B Jones"),))
    found = bandpass(rippled, CalState(weights=rippled.nominal_weights()), stage_config, log)
    assert len(found.bandpass) == 1
    assert notes.about("bandpass: ")[0].endswith("kept")
    (gains,) = found.bandpass[0].gains.values()
    made = np.abs(gains.gain[0]) / np.abs(gains.gain[0]).mean(axis=1, keepdims=True)
    # Initial tables are divided out.
    true = 1 / ripple / (1 / ripple).mean(axis=1, keepdims=True)
    assert np.std(made / true) < 0.3 * np.std(true)


def settled(data, state, table, config, log):
    """Solved on top of a table."""
    state = gather(data, replace(state, bandpass=(table,)), log)
    return solve_rounds(data, state, config, log)


def test_what_was_made_of_an_incomplete_sky_is_left_out_of_a_better_one(
    data, solved, stage_config, log, notes
):
    rng = np.random.default_rng(5)
    shape = (len(data.reader.ms.antennas), data.reader.freq_hz.size, 2)
    spurious = gain_table(data, 1 + 0.05 * rng.standard_normal(shape), "B Jones")
    state = settled(data, solved, spurious, stage_config, log)
    plain = without_bandpass(data, state, stage_config, log)
    assert plain.bandpass == ()
    assert spurious not in plain.last.tables
    assert plain.last.chi2_heldout < state.last.chi2_heldout
    assert notes.about("improved sky model")[0].endswith("left out")
    # What was asked for stays, and so does what there is none of.
    for kind in ("delay", "bandpass", "off"):
        assert without_bandpass(data, state, stage_config.with_options(spectral=kind), log) is state
    assert without_bandpass(data, plain, stage_config, log) is plain


def test_delays_that_are_there_stay(observed, data, stage_config, log, notes):
    delayed, _ = with_delays(observed, data, stage_config)
    found = bandpass(delayed, CalState(weights=delayed.nominal_weights()), stage_config, log)
    assert found.bandpass
    assert without_bandpass(delayed, found, stage_config, log) is found
    assert notes.about("improved sky model")[0].endswith("kept")
