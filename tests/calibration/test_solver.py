from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.reference_antenna import rank_reference_antennas, refer_phases
from dsa110_contimg.calibration.solution_intervals import solution_intervals
from dsa110_contimg.calibration.solve_settings import Grouping
from dsa110_contimg.calibration.solver import MAX_ITERATIONS, _interval_sums
from dsa110_contimg.calibration.statistics import BaselineStatistics, accumulate, joined
from dsa110_contimg.errors import AxesError
from dsa110_contimg.visibilities import NoiseScale
from tests.calibration.conftest import observe, random_gains, turned, weakly_joined

QUIET = {"noise": NoiseScale(1e-8)}


@pytest.mark.parametrize("mode", ["p", "ap"])
@pytest.mark.parametrize("n_antennas", [5, 30])
def test_gains_of_any_phase_are_recovered(rng, mode, n_antennas):
    data = observe(rng, random_gains(rng, 3, n_antennas, 0.1 if mode == "ap" else 0.0))
    solved = data.solve(mode=mode, **QUIET)[0]
    assert not solved.flag.any()
    np.testing.assert_allclose(turned(solved.gain[:, :, 0], data.gain), 1, atol=1e-6)


def test_phases_are_recovered_whatever_the_amplitudes(rng):
    data = observe(rng, random_gains(rng, 3, 12, 0.2) * 1e-4)
    solved = data.solve(noise=NoiseScale(1e-18))[0]
    np.testing.assert_allclose(np.abs(solved.gain), 1, atol=1e-12)
    np.testing.assert_allclose(np.angle(turned(solved.gain[:, :, 0], data.gain)), 0, atol=1e-6)


@pytest.mark.parametrize("mode", ["p", "ap"])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_errors_are_those_of_the_estimates(rng, mode, size):
    gain = random_gains(rng, 200, 20, 0.0) * size
    data = observe(rng, gain, n_channels=4, sigma=1.2 * size**2)
    solved = data.solve(mode=mode)[0]
    assert not solved.flag.any()
    assert 8 < np.median(solved.snr) < 16
    estimate, error = solved.gain[:, :, 0], solved.error[:, :, 0]
    ratio = turned(estimate, gain if mode == "ap" else gain / size)
    relative = error / np.abs(estimate)
    assert (ratio.imag / relative).std() == pytest.approx(1, abs=0.08)
    if mode == "ap":
        assert ((np.abs(ratio) - 1) / relative).std() == pytest.approx(1, abs=0.08)
        assert np.median(np.abs(ratio)) == pytest.approx(1, abs=0.01)


def phase_only_objective(cross, gain):
    """Sum over baselines of ``Re(conj(g_i) g_j A)``, which phases alone maximise."""
    i, j = np.triu_indices(gain.shape[1], 1)
    return (gain[:, i].conj() * gain[:, j] * cross).real.sum(axis=1)


@pytest.mark.parametrize(
    ("n_antennas", "snr_of_baseline", "unevenness"),
    [(5, 3.0, 0.0), (8, 2.0, 1.0), (12, 1.0, 0.0), (30, 0.7, 0.0), (63, 0.4, 0.0), (63, 1.0, 1.5)],
)
def test_no_draw_of_random_phases_ends_in_a_wrong_optimum(rng, n_antennas, snr_of_baseline, unevenness):
    # One channel, so that each baseline has just this signal to noise; a lognormal spread of model
    # powers stands for a few baselines that dominate.
    n_times = 500
    shape = (n_times, n_antennas, 2)
    data = observe(rng, np.exp(1j * rng.uniform(-np.pi, np.pi, shape)), n_channels=1, structure=0)
    power = np.exp(unevenness * rng.standard_normal(data.vis.shape))
    noise = rng.standard_normal(data.vis.shape) + 1j * rng.standard_normal(data.vis.shape)
    data.vis[:] += noise / np.sqrt(2 * power) / snr_of_baseline
    data.weight[:] = power
    statistics = data.statistics()
    solved = data.solve(statistics=statistics, noise=NoiseScale(1.0), min_snr=0)[0].gain[:, :, 0]
    cross = statistics.cross.sum(axis=(0, 1))
    for p in (0, 1):
        found = phase_only_objective(cross[..., p], solved[..., p])
        # The optimum lies above the true phases; a wrong one lies far below.
        assert (found > phase_only_objective(cross[..., p], data.gain[..., p])).all()


def test_an_antenna_without_signal_is_flagged_and_spoils_no_other(rng):
    gain = random_gains(rng, 20, 16, 0.0)
    data = observe(rng, gain, sigma=0.5)
    dead = (data.antenna1 == 5) | (data.antenna2 == 5)
    noise = rng.standard_normal((2, *data.vis[dead].shape)) * 0.5
    data.vis[dead] = noise[0] + 1j * noise[1]
    for mode in ("p", "ap"):
        solved = data.solve(mode=mode, min_snr=5)[0]
        assert solved.flag[:, 5].all()
        others = np.delete(np.arange(16), 5)
        assert not solved.flag[:, others].any()
        np.testing.assert_allclose(turned(solved.gain[:, others, 0], gain[:, others]), 1, atol=0.35)


def test_an_antenna_without_data_is_flagged(rng):
    data = observe(rng, random_gains(rng, 3, 8))
    data.weight[(data.antenna1 == 2) | (data.antenna2 == 2)] = 0
    data.weight[((data.antenna1 == 6) | (data.antenna2 == 6)) & (data.time_index == 1), :, 1] = 0
    solved = data.solve(mode="ap", **QUIET)[0]
    expected = np.zeros((3, 8, 1, 2), bool)
    expected[:, 2], expected[1, 6, 0, 1] = True, True
    np.testing.assert_array_equal(solved.flag, expected)
    assert (solved.gain[expected] == 1).all()
    assert np.isfinite(solved.gain).all()
    assert np.isfinite(solved.error).all()
    assert np.isfinite(solved.snr[~expected]).all()


def test_min_baselines(rng):
    data = observe(rng, random_gains(rng, 2, 8))
    partner = np.where(data.antenna1 == 3, data.antenna2, data.antenna1)
    of_3 = (data.antenna1 == 3) | (data.antenna2 == 3)
    data.weight[of_3 & (partner > 4)] = 0  # leaves 0, 1, 2 and 4
    assert not data.solve(min_baselines=4, **QUIET)[0].flag.any()
    flag = data.solve(min_baselines=5, **QUIET)[0].flag
    assert flag[:, 3].all()
    assert not np.delete(flag, 3, axis=1).any()


def test_min_snr(rng):
    data = observe(rng, random_gains(rng, 50, 10, 0.0), sigma=1.5)
    snr = data.solve(min_snr=0)[0].snr
    limit = float(np.median(snr))
    np.testing.assert_array_equal(data.solve(min_snr=limit)[0].flag, snr < limit)


@pytest.mark.parametrize("mode", ["p", "ap"])
def test_noise_alone_gives_finite_gains_of_little_significance(rng, mode):
    data = observe(rng, random_gains(rng, 50, 20), sigma=1.0)
    data.vis[:] = (rng.standard_normal(data.vis.shape) + 1j * rng.standard_normal(data.vis.shape)) * 1.0
    solved = data.solve(mode=mode, min_snr=0)[0]
    assert np.isfinite(solved.gain).all()
    # Not zero: each phase was chosen to turn its own noise upwards.
    assert 1.8 < np.median(solved.snr) < 2.5
    assert (data.solve(mode=mode, min_snr=5)[0].flag).mean() > 0.97


@pytest.mark.parametrize("n_antennas", [2, 3])
@pytest.mark.parametrize("mode", ["p", "ap"])
def test_a_single_baseline_is_not_solved_and_does_not_crash(rng, n_antennas, mode):
    data = observe(rng, random_gains(rng, 2, n_antennas))
    assert data.solve(mode=mode, **QUIET)[0].flag.all()
    alone = data.solve(mode=mode, min_baselines=1, **QUIET)[0]
    assert np.isfinite(alone.gain).all()
    np.testing.assert_allclose(
        np.angle(alone.gain[:, 1] * alone.gain[:, 0].conj())[:, 0],
        np.angle(data.gain[:, 1] * data.gain[:, 0].conj()),
        atol=1e-5,
    )


def test_nothing_at_all_is_all_flagged(rng):
    data = observe(rng, random_gains(rng, 3, 5))
    data.weight[:] = 0
    solved = data.solve(mode="ap")[0]
    assert solved.flag.all()
    assert np.isfinite(solved.time_s).all()


def test_a_noiseless_observation_has_no_error(rng):
    solved = observe_and_solve_noiseless(rng)
    assert not solved.flag.any()
    assert (solved.error == 0).all()


def observe_and_solve_noiseless(rng):
    return observe(rng, random_gains(rng, 2, 6)).solve(noise=NoiseScale(0.0))[0]


def test_one_gain_for_both_polarisations(rng):
    gain = random_gains(rng, 3, 10)
    gain[..., 1] = gain[..., 0]
    data = observe(rng, gain, sigma=0.1)
    common, each = (data.solve(mode="ap", grouping=Grouping(c, True))[0] for c in (False, True))
    assert common.gain.shape == (3, 10, 1, 1)
    np.testing.assert_allclose(turned(common.gain[:, :, 0], gain[..., :1]), 1, atol=0.1)
    assert np.median(common.snr) == pytest.approx(np.sqrt(2) * np.median(each.snr), rel=0.02)


def test_one_gain_for_all_windows(rng):
    gain = random_gains(rng, 3, 10)
    windows = [observe(rng, gain, sigma=0.2) for _ in range(3)]
    statistics = BaselineStatistics.empty(10, [0, 1, 4], 3)
    for k, d in enumerate(windows):
        accumulate(statistics, k, d.rows, d.vis, d.weight, d.model, 0)
    data = windows[0]
    axes = data.axes(freq_hz=np.array([1.3e9, 1.4e9, 1.5e9]))
    joined = data.solve(statistics=statistics, axes=axes, mode="ap")
    apart = data.solve(statistics=statistics, axes=axes, mode="ap", grouping=Grouping(True, False))
    assert list(joined) == list(apart) == [0, 1, 4]
    np.testing.assert_array_equal(joined[0].gain, joined[4].gain)
    assert not np.array_equal(apart[0].gain, apart[4].gain)
    assert np.median(joined[0].snr) == pytest.approx(np.sqrt(3) * np.median(apart[0].snr), rel=0.05)
    alone = windows[1].solve(mode="ap")[0]
    np.testing.assert_allclose(apart[1].gain, alone.gain, atol=1e-12)


def test_solutions_carry_time_interval_field_and_scan(rng):
    data = observe(rng, random_gains(rng, 5, 6))
    data.weight[data.time_index == 4] = 0
    axes = data.axes(field_id=np.array([3, 3, 4, 4, 4]), scan=np.array([7, 7, 7, 8, 8]))
    solved = data.solve(np.array([0, 0, 1, 1, 1]), axes=axes, **QUIET)[0]
    # The centre is that of the data, the length that of the interval.
    np.testing.assert_allclose(solved.time_s - data.times_s[0], [5, 25])
    np.testing.assert_allclose(solved.interval_s, [20, 30])
    assert solved.field_id.tolist() == [3, 4]
    assert solved.scan.tolist() == [7, 7]


@pytest.mark.parametrize("per_polarization", [True, False])
@pytest.mark.parametrize("combine_spw", [True, False])
@pytest.mark.parametrize("halves", [(0, 1), (1,)])
def test_intervals_are_sums_over_dumps_and_what_shares_a_gain(rng, per_polarization, combine_spw, halves):
    parts = [observe(rng, random_gains(rng, 7, 6)).statistics() for _ in range(2)]
    statistics = joined([parts[0], replace(parts[1], spw_ids=(1,))])
    sums = _interval_sums(statistics, np.array([0, 2, 5]), Grouping(per_polarization, combine_spw), halves)
    for name, of_name in (("cross", "cross"), ("model", "power"), ("data", "data"), ("count", "count")):
        values = getattr(statistics, name)[list(halves)].sum(axis=0)
        expected = np.stack([values[:, a:b].sum(axis=1) for a, b in ((0, 2), (2, 5), (5, 7))], axis=1)
        expected = expected.sum(axis=0, keepdims=True) if combine_spw else expected
        expected = expected if per_polarization else expected.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(getattr(sums, of_name), expected, rtol=1e-12)


def test_an_interval_is_solved_on_all_its_dumps(rng):
    data = observe(rng, random_gains(rng, 8, 10, 0.0), sigma=0.5)
    each, joined = (data.solve(interval)[0] for interval in (np.arange(8), np.zeros(8, int)))
    assert joined.gain.shape[0] == 1
    assert np.median(joined.snr) == pytest.approx(np.sqrt(8) * np.median(each.snr), rel=0.03)


@pytest.mark.parametrize("mode", ["p", "ap"])
def test_a_solution_says_that_it_converged(rng, mode):
    data = observe(rng, random_gains(rng, 3, 12), sigma=0.1)
    data.weight[data.time_index == 1] = 0
    result = data.solve_result(mode=mode)
    assert result.iterations.shape == result.converged.shape == (1, 3, 2)
    assert (result.iterations[:, [0, 2]] > 1).all()
    assert (result.iterations[:, 1] == 0).all()
    assert result.iterations.max() < MAX_ITERATIONS
    assert result.converged_fraction == 1


@pytest.mark.parametrize("mode", ["p", "ap"])
def test_a_problem_that_needs_more_iterations_than_allowed_is_not_called_converged(rng, mode):
    data = weakly_joined(rng)
    result = data.solve_result(mode=mode, min_snr=0)
    np.testing.assert_array_equal(result.converged, np.broadcast_to([[[0]] * 3 + [[1]]], (1, 4, 2)) == 1)
    assert (result.iterations[:, :3] >= MAX_ITERATIONS).all()
    assert result.converged_fraction == 0.25
    assert np.isfinite(result.gains[0].gain).all()


TIMES = 5e9 + 12.884902 * np.arange(24)


@pytest.mark.parametrize(
    ("solint", "combine", "expected"),
    [
        ("int", True, np.arange(24)),
        ("inf", True, np.zeros(24)),
        ("scan", True, np.arange(24) // 8),
        (12.884902, True, np.arange(24)),
        (2 * 12.884902, True, np.arange(24) // 2),
        (30.0, True, np.arange(24) // 2),
        (60.0, True, np.arange(24) // 5),
        (1e6, True, np.zeros(24)),
        (1e6, False, np.arange(24) // 8),
        (5 * 12.884902, False, np.concatenate([2 * k + np.arange(8) // 5 for k in range(3)])),
        (1.0, True, np.arange(24)),
    ],
)
def test_solution_intervals(solint, combine, expected):
    scan = 1 + np.arange(24) // 8
    found = solution_intervals(TIMES, 12.884902, scan, solint, combine)
    np.testing.assert_array_equal(found, expected)


def test_trap_8_intervals_cross_the_scans_of_single_dumps():
    scan = np.arange(24)
    found = solution_intervals(TIMES, 12.884902, scan, str(2 * 12.884902))
    np.testing.assert_array_equal(found, np.arange(24) // 2)
    assert len({tuple(solution_intervals(TIMES, 12.884902, scan, s)) for s in ("int", "60", "inf")}) == 3


def test_jitter_of_time_stamps_moves_no_dump(rng):
    jittered = np.sort(TIMES + rng.uniform(-0.5, 0.5, 24))
    found = solution_intervals(jittered, 12.884902, np.ones(24, int), 3 * 12.884902)
    np.testing.assert_array_equal(found, np.arange(24) // 3)


def test_an_interval_ends_at_a_gap():
    times = np.array([0.0, 10, 20, 1000, 1010, 1020, 1030])
    np.testing.assert_array_equal(
        solution_intervals(times, 10, np.zeros(7, int), 20.0), [0, 0, 1, 2, 2, 3, 3]
    )


@pytest.mark.parametrize("name", ["dump_s", "scan", "field_id"])
def test_axes_of_different_lengths_are_refused(rng, name):
    data = observe(rng, random_gains(rng, 5, 4))
    with pytest.raises(AxesError, match=rf"ObservationAxes.{name}: has shape \(4,\), not \(5,\)"):
        data.axes(**{name: np.zeros(4)})
    with pytest.raises(AxesError, match=r"ObservationAxes.freq_hz: has shape \(\)"):
        data.axes(freq_hz=np.array(1.4e9))


def drifting(rng, n_times=12, n_antennas=8):
    t = np.linspace(0, 1, n_times)[:, None, None]
    start, rate = rng.uniform(-np.pi, np.pi, (2, n_antennas, 2))
    return np.exp(1j * (start + rate * t))


def largest_step(solved):
    """Largest phase change between neighbouring solved intervals, over antennas."""
    phase = np.where(solved.flag, np.nan, np.angle(solved.gain))
    step = np.abs(np.angle(np.exp(1j * np.diff(phase, axis=0))))
    return np.nanmax(step)


def test_the_reference_antenna_has_zero_phase(rng):
    data = observe(rng, drifting(rng))
    solved = data.solve(reference_antennas=[3, 1], **QUIET)[0]
    np.testing.assert_allclose(np.angle(solved.gain[:, 3]), 0, atol=1e-9)
    assert (solved.reference_antenna == 3).all()
    ratio = data.gain / data.gain[:, 3:4]
    np.testing.assert_allclose(solved.gain[:, :, 0], ratio, atol=1e-5)


@pytest.mark.parametrize("lost", [[4, 5, 6], [0, 1], [11]])
def test_another_reference_takes_over_with_continuous_phases(rng, lost):
    data = observe(rng, drifting(rng))
    gone = ((data.antenna1 == 3) | (data.antenna2 == 3)) & np.isin(data.time_index, lost)
    whole = data.solve(reference_antennas=[3, 1], **QUIET)[0]
    data.weight[gone] = 0
    solved = data.solve(reference_antennas=[3, 1], **QUIET)[0]
    used = np.where(np.isin(np.arange(12), lost), 1, 3)
    np.testing.assert_array_equal(solved.reference_antenna, used)
    there = np.setdiff1d(np.arange(12), lost)
    np.testing.assert_allclose(np.angle(solved.gain[there, 3]), 0, atol=1e-9)
    # At most what the reference itself drifts against the others while it is away.
    assert largest_step(solved) < (1 + len(lost)) * largest_step(whole) + 1e-6
    np.testing.assert_allclose(solved.gain[there], whole.gain[there], atol=1e-5)


def test_a_reference_lost_for_most_of_the_time_is_passed_over(rng):
    data = observe(rng, drifting(rng))
    data.weight[((data.antenna1 == 3) | (data.antenna2 == 3)) & (data.time_index > 2)] = 0
    solved = data.solve(reference_antennas=[3, 6], **QUIET)[0]
    np.testing.assert_array_equal(solved.reference_antenna, 6)


def test_a_reference_in_one_polarisation_alone(rng):
    data = observe(rng, drifting(rng))
    data.weight[..., 1] = 0
    solved = data.solve(reference_antennas=[3], **QUIET)[0]
    np.testing.assert_allclose(np.angle(solved.gain[:, 3, 0, 0]), 0, atol=1e-9)
    assert solved.flag[..., 1].all()


def test_no_interval_is_left_without_a_reference(rng):
    # Only antenna 3 is named, and it is gone in one interval: that one must not keep phases of its own.
    data = observe(rng, drifting(rng))
    data.weight[((data.antenna1 == 3) | (data.antenna2 == 3)) & (data.time_index == 5)] = 0
    solved = data.solve(reference_antennas=[3], **QUIET)[0]
    assert largest_step(solved) < 1.3
    assert (solved.reference_antenna >= 0).all()


def test_no_solution_at_all_has_no_reference():
    gain, reference = refer_phases(np.ones((1, 3, 4, 2), complex), np.ones((1, 3, 4, 2), bool), range(4))
    assert (reference == -1).all()
    assert (gain == 1).all()


def test_ranking_prefers_named_then_central_antennas_with_data(rng):
    data = observe(rng, random_gains(rng, 2, 6))
    data.weight[(data.antenna1 == 0) | (data.antenna2 == 0)] = 0
    position = np.zeros((6, 3))
    position[:, 0] = [0, 10, 20, 500, 1000, -1000]
    statistics = data.statistics()
    ranked = rank_reference_antennas(statistics, position)
    assert sorted(ranked) == list(range(6))
    assert ranked[0] in (1, 2)
    assert ranked[-1] == 0
    assert rank_reference_antennas(statistics, position, [4, 0])[:3] == [4, 0, ranked[0]]
