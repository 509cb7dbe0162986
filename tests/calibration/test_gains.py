from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.apply import chain, correct, gains_at_times
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.errors import AxesError, CalTableError


def series(time, gain, flag=None, freq=(1.4e9,)):
    """Gains of one antenna and polarisation: `gain` has shape (ntime,) or (ntime, nchan)."""
    gain = np.asarray(gain, complex).reshape(len(time), -1)
    shape = (len(time), 1, gain.shape[1], 1)
    flag = np.zeros(shape, bool) if flag is None else np.asarray(flag).reshape(shape)
    none = np.zeros(len(time), int)
    nothing = np.zeros(shape)
    return Gains(
        time_s=np.asarray(time, float),
        interval_s=np.ones(len(time)),
        freq_hz=np.asarray(freq, float),
        gain=gain.reshape(shape),
        flag=flag,
        error=nothing,
        snr=nothing,
        reference_antenna=none - 1,
        field_id=none,
        scan=none,
    )


def at(gains, times, how="linear"):
    gain, flag = gains.at_times(np.asarray(times, float), how)
    return gain[:, 0, 0, 0], flag[:, 0, 0, 0]


def polar(amplitude, degrees):
    return np.asarray(amplitude) * np.exp(1j * np.radians(degrees))


def test_amplitude_and_phase_are_linear_apart():
    gains = series([0, 10, 30], polar([1, 2, 4], [0, 90, 30]))
    found, flag = at(gains, [0, 2.5, 5, 10, 20, 30])
    np.testing.assert_allclose(found, polar([1, 1.25, 1.5, 2, 3, 4], [0, 22.5, 45, 90, 60, 30]), atol=1e-12)
    assert not flag.any()


@pytest.mark.parametrize(("first", "second"), [(170, -170), (-170, 170), (350, 10), (91, -91 + 360)])
def test_the_phase_takes_the_shorter_way_round(first, second):
    found, _ = at(series([0, 1], polar([1, 1], [first, second])), [0.5])
    middle = first + 0.5 * ((second - first + 180) % 360 - 180)
    np.testing.assert_allclose(found, polar(1, middle), atol=1e-12)


@pytest.mark.parametrize("how", ["linear", "nearest"])
def test_the_last_solution_holds_outside_the_range(how):
    found, flag = at(series([10, 20], [2, 4j]), [-1e6, 9.9, 20.1, 1e9], how)
    np.testing.assert_allclose(found, [2, 2, 4j, 4j])
    assert not flag.any()


def test_nearest():
    found, _ = at(series([0, 10, 20], [1, 2, 3]), [0, 4.9, 5.1, 14.9, 15.1], "nearest")
    np.testing.assert_allclose(found, [1, 1, 2, 2, 3])


@pytest.mark.parametrize("how", ["linear", "nearest"])
def test_flagged_solutions_are_stepped_over(how):
    gains = series([0, 10, 20, 30], [7, 2, 99, 4], [True, False, True, False])
    found, flag = at(gains, [0, 10, 20, 25, 30], how)
    expected = [2, 2, 3, 3.5, 4] if how == "linear" else [2, 2, 4, 4, 4]
    np.testing.assert_allclose(found, expected)
    assert not flag.any()


def test_without_any_solution_all_is_flagged_and_one():
    found, flag = at(series([0, 1], [5, 6], [True, True]), [0, 0.5, 3])
    assert flag.all()
    assert (found == 1).all()


def test_one_solution_holds_for_ever():
    np.testing.assert_allclose(at(series([5], [3j]), [0, 5, 9])[0], 3j)


def test_times_may_come_in_any_order():
    gains = series([0, 10, 20], [1, 2, 3])
    times = np.array([15.0, 2, 20, -3, 7, 7])
    np.testing.assert_allclose(at(gains, times)[0], [2.5, 1.2, 3, 1, 1.7, 1.7])


def bandpass(gain, flag=None, freq=(1e9, 2e9, 3e9)):
    flag = None if flag is None else [flag]
    return GainTable(kind="B Jones", gains={0: series([0], [gain], flag, freq)}, label="B")


def over(table, freq):
    gain, flag = table.evaluate(0, np.array([0.0]), np.asarray(freq, float))
    return gain[0, 0, :, 0], flag[0, 0, :, 0]


def test_a_bandpass_is_interpolated_in_frequency():
    found, flag = over(bandpass(polar([1, 2, 4], [0, 60, -60])), [1e9, 1.5e9, 2.25e9, 3e9])
    np.testing.assert_allclose(found, polar([1, 1.5, 2.5, 4], [0, 30, 30, -60]), atol=1e-12)
    assert not flag.any()


def test_a_bandpass_with_falling_frequency():
    found, _ = over(bandpass([3, 2, 1], freq=(3e9, 2e9, 1e9)), [1.5e9, 2.75e9])
    np.testing.assert_allclose(found, [1.5, 2.75])


def test_flagged_channels_are_stepped_over_and_nothing_is_said_beyond_the_band():
    table = bandpass([1, 99, 3], [False, True, False])
    found, flag = over(table, [0.4e9, 0.6e9, 2e9, 3.4e9, 3.6e9])
    assert flag.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(found[1:4], [1, 2, 3])


def test_nothing_is_said_beyond_the_outermost_solution_of_an_antenna():
    """Carried into channels where the band falls, the last solution is wrong, and silently so."""
    table = bandpass([9, 1, 9, 3, 9], [True, False, True, False, True], (1e9, 2e9, 3e9, 4e9, 5e9))
    found, flag = over(table, [1e9, 1.4e9, 1.6e9, 3e9, 4.4e9, 4.6e9, 5e9])
    assert flag.tolist() == [True, True, False, False, False, True, True]
    np.testing.assert_allclose(found, [1, 1, 1, 2, 3, 1, 1])
    # Another antenna of the same table has its own edges.
    both = replace(
        table.gains[0],
        gain=np.concatenate([table.gains[0].gain, np.full((1, 1, 5, 1), 2.0)], axis=1),
        flag=np.concatenate([table.gains[0].flag, np.zeros((1, 1, 5, 1), bool)], axis=1),
        error=np.zeros((1, 2, 5, 1)),
        snr=np.zeros((1, 2, 5, 1)),
    )
    _, flag = replace(table, gains={0: both}).evaluate(0, np.array([0.0]), both.freq_hz)
    assert flag[0, :, :, 0].tolist() == [[True, False, False, False, True], [False] * 5]


def test_a_gain_does_not_depend_on_frequency():
    table = GainTable(kind="G Jones", gains={0: series([0], [2j])}, label="G")
    assert table.evaluate(0, np.array([0.0]), np.array([1e9, 9e9]))[0].shape == (1, 1, 1, 1)


def test_windows_map_to_themselves_to_the_only_one_or_as_told():
    g = {k: series([0], [k + 1.0]) for k in (0, 1)}
    table = GainTable(kind="G Jones", gains=g, label="G1")
    assert table.for_spw(1) is g[1]
    assert GainTable(kind="G Jones", gains={3: g[0]}).for_spw(7) is g[0]
    mapped = GainTable(kind="G Jones", gains=g, label="G1", spw_map={0: 1, 5: 0})
    assert mapped.for_spw(0) is g[1]
    assert mapped.for_spw(5) is g[0]
    assert mapped.for_spw(1) is g[1]
    with pytest.raises(
        CalTableError, match=r"^G1: no solutions for spectral window 2 \(it has \[0, 1\]\).*;"
    ):
        table.for_spw(2)


def random_table(rng, n_antennas, n_channels, npol, kind):
    shape = (3, n_antennas, n_channels, npol)
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    none = np.zeros(3, int)
    freq = np.linspace(1e9, 2e9, n_channels) if n_channels > 1 else np.array([1.5e9])
    flag = rng.random(shape) < 0.1
    gains = Gains(
        time_s=np.arange(3.0),
        interval_s=np.ones(3),
        freq_hz=freq,
        gain=gain,
        flag=flag,
        error=gain.real,
        snr=gain.real,
        reference_antenna=none,
        field_id=none,
        scan=none,
    )
    return GainTable(kind=kind, gains={0: gains})


def test_a_chain_is_the_product_and_flags_add_up(rng):
    tables = [random_table(rng, 5, *x) for x in ((4, 2, "B Jones"), (1, 2, "G Jones"), (1, 1, "T Jones"))]
    times, freq = np.array([0.2, 1.5]), np.array([1.1e9, 1.4e9, 2.9e9])
    gain, flag = chain(tables, 0, times, freq, 5)
    assert gain.shape == flag.shape == (2, 5, 3, 2)
    parts = [t.evaluate(0, times, freq) for t in tables]
    np.testing.assert_allclose(gain, parts[0][0] * parts[1][0] * parts[2][0])
    np.testing.assert_array_equal(flag, parts[0][1] | parts[1][1] | parts[2][1])
    assert flag[:, :, 2].all()
    # What does not depend on frequency is not repeated for every channel.
    scalar, unsolved = chain(tables[1:], 0, times, freq, 5)
    assert scalar.shape == unsolved.shape == (2, 5, 1, 2)
    unit, none = chain([], 0, times, freq, 5)
    assert (unit == 1).all()
    assert not none.any()


def test_correct_divides_by_both_gains_and_carries_the_weights(rng):
    receptors = [(0, 0), (0, 1), (1, 0), (1, 1)]
    n, nt, nant, nchan = 40, 3, 5, 2
    t, i, j = rng.integers(0, nt, n), rng.integers(0, nant, n), rng.integers(0, nant, n)
    gain = rng.standard_normal((nt, nant, nchan, 2)) + 1j * rng.standard_normal((nt, nant, nchan, 2))
    flag = rng.random(gain.shape) < 0.1
    gain[0, 0, 0, 0], flag[0, 0, 0, 0] = 0, False
    vis = (rng.standard_normal((n, nchan, 4)) + 1j * rng.standard_normal((n, nchan, 4))).astype(np.complex64)
    weight = rng.uniform(0, 2, vis.shape).astype(np.float32)
    out, out_weight = correct(vis, weight, i, j, t, gain, flag, receptors)
    for r in range(n):
        for c in range(nchan):
            for k, (p, q) in enumerate(receptors):
                product = gain[t[r], i[r], c, p] * gain[t[r], j[r], c, q].conj()
                if flag[t[r], i[r], c, p] or flag[t[r], j[r], c, q] or product == 0:
                    assert (out[r, c, k], out_weight[r, c, k]) == (vis[r, c, k], 0)
                else:
                    assert out[r, c, k] == pytest.approx(vis[r, c, k] / product, rel=1e-6)
                    power = abs(product) ** 2
                    assert out_weight[r, c, k] == pytest.approx(weight[r, c, k] * power, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gain": np.ones((2, 1, 1))},
            r"Gains.gain: has shape \(2, 1, 1\), not \(ntime, ",
        ),
        ({"gain": np.ones((2, 1, 1, 4))}, "Gains.gain: has shape"),
        ({"flag": np.zeros((2, 1, 1, 2), bool)}, r"Gains.flag: has shape \(2, 1, 1, 2\), not \(2, 1, 1, 1\)"),
        ({"flag": np.zeros((2, 1, 1, 1))}, "Gains.flag: holds float64, not bool"),
        ({"error": np.zeros(2)}, "Gains.error: has shape"),
        ({"snr": np.zeros(2)}, "Gains.snr: has shape"),
        ({"freq_hz": np.array([1e9, 2e9])}, r"Gains.freq_hz: has shape \(2,\), not \(1,\)"),
        ({"scan": np.zeros(3, int)}, "Gains.scan: has shape"),
        ({"time_s": np.array([1.0, 0.0])}, "Gains.time_s: is not finite and ascending"),
        ({"time_s": np.array([0.0, np.nan])}, "Gains.time_s: is not finite and ascending"),
    ],
)
def test_gains_refuse_arrays_that_do_not_fit(change, message):
    with pytest.raises(AxesError, match=message):
        replace(series([0, 1], [1, 2j]), **change)


def test_gains_at_times_are_products_by_window(rng):
    tables = [random_table(rng, 5, 1, npol, kind) for npol, kind in ((2, "G Jones"), (1, "T Jones"))]
    times = np.array([0.2, 1.5, 1.9])
    gain, solved = gains_at_times(tables, [0, 3], times, 5)
    assert gain.shape == solved.shape == (2, 3, 5, 2)
    expected, flag = chain(tables, 0, times, np.array([1.5e9]), 5)
    np.testing.assert_array_equal(gain, np.stack([expected[:, :, 0]] * 2))
    np.testing.assert_array_equal(solved, ~np.stack([flag[:, :, 0]] * 2))
    unit, everywhere = gains_at_times([], [0, 3], times, 5)
    assert (unit == 1).all()
    assert everywhere.all()


@pytest.mark.parametrize("how", ["linear", "nearest"])
def test_no_gain_is_carried_over_a_gap(how):
    """A dump is flagged from one interval beyond the edge of the nearest good solution on, both ways."""
    good = np.array([True, True, False, False, False, False, False, True])
    gains = series(np.arange(8.0), np.arange(1.0, 9.0), ~good)
    gain, flag = gains.at_times(np.arange(-3.0, 11.0), how, 1.0)
    near = [-1, 0, 1, 2, 6, 7, 8]
    np.testing.assert_array_equal(~flag[:, 0, 0, 0], np.isin(np.arange(-3, 11), near))
    assert (gain[flag] == 1).all()
    free, unflagged = gains.at_times(np.arange(-3.0, 11.0), how)
    assert not unflagged.any()
    np.testing.assert_array_equal(gain[~flag], free[~flag])


def test_the_edge_of_the_reach_is_within_it_and_longer_intervals_reach_further():
    gains = replace(series([0, 100], [1, 2]), interval_s=np.array([10.0, 40.0]))
    _, flag = gains.at_times(np.array([15.0, 15.1, 39.9, 40.0, 160.0, 160.1]), "linear", 1.0)
    np.testing.assert_array_equal(flag[:, 0, 0, 0], [False, True, True, False, False, True])


def test_a_table_says_how_far_its_gains_are_carried():
    gains = {0: series([0, 10], [1, 2], [False, True])}
    times, freq = np.array([0.0, 5.0]), np.array([1.4e9])
    for kind in ("G Jones", "B Jones"):
        table = GainTable(kind=kind, gains=gains)
        assert not table.evaluate(0, times, freq)[1].any()
        bounded = replace(table, max_gap=1.0)
        np.testing.assert_array_equal(bounded.evaluate(0, times, freq)[1].ravel(), [False, True])
        one = series([0], [1])
        short = GainTable(
            kind="G Jones",
            gains={
                0: replace(
                    one,
                    gain=one.gain.repeat(2, 3),
                    **{name: getattr(one, name).repeat(2, 3) for name in ("flag", "error", "snr")},
                )
            },
            max_gap=1.0,
        )
        np.testing.assert_array_equal(
            gains_at_times([short], [0], times, 1)[1][0, :, 0], [[True] * 2, [False] * 2]
        )


def test_a_bandpass_over_all_time_with_flagged_channels_has_no_gap():
    """Frequencies are no times: channels are interpolated however far the next good one is."""
    table = replace(bandpass([1, 2, 3], [False, True, False]), max_gap=1.0)
    gain, flag = over(table, [1e9, 2e9, 3e9])
    assert not flag.any()
    np.testing.assert_allclose(gain, [1, 2, 3])


def test_a_table_times_a_factor(rng):
    """By dump, antenna, channel or polarisation; what is flagged stays one, and errors grow alike."""
    table = random_table(rng, 5, 1, 2, "G Jones")
    gains = {
        spw: replace(g, flag=rng.random(g.gain.shape) < 0.3, error=rng.random(g.gain.shape))
        for spw, g in table.gains.items()
    }
    table = replace(table, gains=gains)
    for factor in (np.array(2.0), np.array([0.5, 3.0]), np.exp(1j * rng.random((5, 1, 1)))):
        found = table.times(factor)
        assert (found.kind, found.interpolation) == (table.kind, table.interpolation)
        for spw, g in table.gains.items():
            good = ~g.flag
            expected = g.gain * factor
            np.testing.assert_allclose(found.gains[spw].gain[good], expected[good])
            np.testing.assert_array_equal(found.gains[spw].gain[g.flag], g.gain[g.flag])
            np.testing.assert_array_equal(found.gains[spw].flag, g.flag)
            np.testing.assert_allclose(found.gains[spw].error, g.error * np.abs(factor))
            assert found.gains[spw].snr is g.snr
