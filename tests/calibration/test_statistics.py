import numpy as np
import pytest

from dsa110_contimg.calibration.statistics import BaselineStatistics, RowIndex, accumulate, joined
from dsa110_contimg.visibilities import NoiseScale
from tests.calibration.conftest import observe, random_gains


def half_of(data, n_antennas, first_channel=0):
    """Half of each visibility, shape (nrow, nchan), by the rule in the module's text."""
    low, high = np.minimum(data.antenna1, data.antenna2), np.maximum(data.antenna1, data.antenna2)
    pairs = list(zip(*np.triu_indices(n_antennas, 1), strict=True))
    number = np.array([pairs.index(pair) for pair in zip(low, high, strict=True)])
    return (first_channel + np.arange(data.vis.shape[1]) + (number + data.time_index)[:, None]) % 2


def brute_force(data, gain, solved, scale, chosen):
    """Weighted squared residual of the visibilities where `chosen`, gains of shape (ntime, nant, 2)."""
    t, i, j = data.time_index, data.antenna1, data.antenna2
    corruption = np.where(solved[t, i] & solved[t, j], gain[t, i] * gain[t, j].conj(), 0)
    model = scale * corruption[:, None, :] * data.model.astype(complex)[:, :, None]
    squared = data.weight.astype(float) * np.abs(data.vis.astype(complex) - model) ** 2
    return squared[chosen].sum()


@pytest.mark.parametrize("first_channel", [0, 3])
def test_the_residual_is_that_of_the_visibilities(rng, first_channel):
    n = 7
    data = observe(rng, random_gains(rng, 5, n), n_channels=3, sigma=0.5)
    data.weight[:] = rng.uniform(0.1, 5, data.weight.shape)
    data.weight[rng.random(data.weight.shape) < 0.3] = 0
    statistics = data.statistics(first_channel=first_channel)
    half = half_of(data, n, first_channel)
    for _ in range(3):
        gain = rng.standard_normal((5, n, 2)) + 1j * rng.standard_normal((5, n, 2))
        solved = rng.random(gain.shape) < 0.8
        scale = rng.uniform(0.5, 2, 2)
        for k in (0, 1):
            assert statistics.residuals(gain[None], solved[None], k, scale)[0] == pytest.approx(
                brute_force(data, gain, solved, scale, half == k), rel=1e-10
            )


def test_the_residual_of_a_perfect_fit_is_small_against_the_data(rng):
    # The sums are large and nearly equal: in single precision their difference would be 1e-7 of them.
    data = observe(rng, np.ones((3, 20, 2), complex), n_channels=64)
    statistics = data.statistics()
    residual = statistics.residuals(data.gain[None], np.ones((1, 3, 20, 2), bool), 0, np.ones(2))[0]
    assert abs(residual) < 1e-12 * statistics.data.sum()


def test_either_receptor_may_have_a_model_of_its_own(rng):
    data = observe(rng, random_gains(rng, 4, 5))
    rows, shape = RowIndex(data.time_index, data.antenna1, data.antenna2), (5, [0], 4)
    models = np.stack([data.model, data.model * np.complex64(1 + 2j)], axis=2)
    both = BaselineStatistics.empty(*shape)
    accumulate(both, 0, rows, data.vis, data.weight, models, 0)
    for p in (0, 1):
        one = BaselineStatistics.empty(*shape)
        accumulate(one, 0, rows, data.vis, data.weight, np.ascontiguousarray(models[:, :, p]), 0)
        for name in ("cross", "model", "data", "count"):
            np.testing.assert_array_equal(getattr(both, name)[..., p], getattr(one, name)[..., p])


def test_counts_are_of_unflagged_cross_correlations(rng):
    data = observe(rng, random_gains(rng, 4, 5))
    data.weight[::3, 1] = 0
    data.antenna2[5] = data.antenna1[5]
    used = data.weight > 0
    used[5] = False
    assert data.statistics().count.sum() == used.sum()


def test_the_halves_are_interleaved_channels(rng):
    data = observe(rng, random_gains(rng, 3, 6), n_channels=8)
    count = data.statistics().count
    assert (count == 4).all()


def test_one_channel_is_halved_too_and_each_half_reaches_every_antenna(rng):
    data = observe(rng, random_gains(rng, 1, 9), n_channels=1, structure=0)
    statistics = data.statistics()
    per_half = statistics.count.sum(axis=(1, 2, 3))
    assert (np.abs(per_half - 18) <= 1).all()
    for half in (0, 1):
        solved = data.solve(halves=[half], min_baselines=3, noise=NoiseScale(1e-6))[0]
        assert not solved.flag.any()
        ratio = solved.gain[0, :, 0] / np.exp(1j * np.angle(data.gain[0]))
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), atol=1e-5)


def test_windows_are_kept_apart_and_add_up(rng):
    windows = [observe(rng, random_gains(rng, 4, 6), n_channels=c) for c in (3, 5)]
    statistics = BaselineStatistics.empty(6, [2, 7], 4)
    first = 0
    for k, d in enumerate(windows):
        accumulate(statistics, k, d.rows, d.vis, d.weight, d.model, first)
        first += d.model.shape[1]
    gain = np.stack([rng.standard_normal((4, 6, 2)) + 1j * rng.standard_normal((4, 6, 2)) for _ in "ab"])
    solved = np.ones(gain.shape, bool)
    everything = [np.ones(d.model.shape, bool) for d in windows]
    exact = [
        brute_force(d, g, solved[0], 1.0, all_of_it)
        for d, g, all_of_it in zip(windows, gain, everything, strict=True)
    ]
    total = sum(statistics.residuals(gain, solved, half, np.ones(2))[0] for half in (0, 1))
    assert total == pytest.approx(sum(exact), rel=1e-10)
    combined = statistics.combine_spws()
    assert combined.spw_ids == (2,)
    one = gain[:1]
    exact = sum(brute_force(d, one[0], solved[0], 1.0, a) for d, a in zip(windows, everything, strict=True))
    total = sum(combined.residuals(one, solved[:1], half, np.ones(2))[0] for half in (0, 1))
    assert total == pytest.approx(exact, rel=1e-10)


def test_after_is_as_if_the_corrected_data_had_been_gathered(rng):
    data = observe(rng, random_gains(rng, 5, 7), sigma=0.3)
    gain = random_gains(rng, 5, 7, 0.3)
    pair = (gain[data.time_index, data.antenna1] * gain[data.time_index, data.antenna2].conj())[:, None, :]
    direct = data.statistics(
        (data.vis / pair).astype(np.complex64), (data.weight * np.abs(pair) ** 2).astype(np.float32)
    )
    after = data.statistics().after(gain[None])
    for name in ("cross", "model", "data", "count"):
        np.testing.assert_allclose(getattr(after, name), getattr(direct, name), rtol=1e-5, atol=1e-5)


def test_after_gives_what_has_no_gain_no_part_in_the_model(rng):
    data = observe(rng, random_gains(rng, 2, 6), sigma=0.3)
    solved = np.ones((1, 2, 6, 2), bool)
    solved[:, :, 3] = False
    before = data.statistics()
    after = before.after(data.gain[None], solved)
    unit = np.ones((1, 2, 6, 2), complex)
    for half in (0, 1):
        assert after.residuals(unit, np.ones_like(solved), half, np.ones(2))[0] == pytest.approx(
            before.residuals(data.gain[None], solved, half, np.ones(2))[0], rel=1e-12
        )


def test_scale_is_the_best_factor_on_the_model(rng):
    data = observe(rng, random_gains(rng, 3, 6), sigma=0.2)
    data.vis[:] *= np.array([2.0, -3.0], np.float32)
    statistics, solved = data.statistics(), np.ones((1, 3, 6, 2), bool)
    scale = statistics.scale(data.gain[None], solved, 0)
    assert scale[0] == pytest.approx(2, rel=0.05)
    assert scale[1] == 0  # a negative factor would be a model turned upside down
    best = statistics.residuals(data.gain[None], solved, 0, scale)[0]
    for other in (0.99, 1.01):
        assert statistics.residuals(data.gain[None], solved, 0, scale * [other, 1])[0] > best


def test_present_names_antennas_with_data(rng):
    data = observe(rng, random_gains(rng, 2, 5))
    data.weight[(data.antenna1 == 4) | (data.antenna2 == 4)] = 0
    data.weight[(data.antenna1 == 2) | (data.antenna2 == 2), :, 1] = 0
    expected = np.ones((5, 2), bool)
    expected[4], expected[2, 1] = False, False
    np.testing.assert_array_equal(data.statistics().present(), expected)


def test_sums_over_the_baselines_of_each_antenna(rng):
    statistics = BaselineStatistics.empty(5, [0], 2)
    values = rng.standard_normal((3, statistics.antenna1.size, 2))
    summed = statistics.sum_to_antennas(values, axis=1)
    assert summed.shape == (3, 5, 2)
    for antenna in range(5):
        of_it = (statistics.antenna1 == antenna) | (statistics.antenna2 == antenna)
        np.testing.assert_allclose(summed[:, antenna], values[:, of_it].sum(axis=1))


def test_statistics_without_lost_antennas_are_those_of_data_without_weight(rng):
    data = observe(rng, random_gains(rng, 5, 6), n_channels=3, sigma=0.5)
    lost = rng.random((5, 6, 2)) < 0.2
    before = data.statistics()
    kept = ~(lost[data.time_index, data.antenna1] | lost[data.time_index, data.antenna2])
    expected = data.statistics(weight=data.weight * kept[:, None])
    found = before.without(lost)
    for name in ("cross", "model", "data", "count"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    assert before.count.sum() > found.count.sum()


def test_blocks_of_dumps_add_up_to_the_antenna(rng):
    data = observe(rng, random_gains(rng, 6, 7), sigma=0.5)
    statistics, gain, scale = data.statistics(), data.gain[None], np.ones(2)
    starts = np.array([0, 2, 5])
    aligned, power, error = statistics.by_block(gain, 0, scale, starts)
    assert aligned.shape == power.shape == error.shape == (1, 3, 7, 2)
    whole, _ = statistics.by_antenna(gain, 0, scale)
    np.testing.assert_allclose(aligned.sum(axis=1), whole)
    np.testing.assert_allclose(aligned / power, 1, atol=6 * (error / power).max())
    # Noise of variance 2 at unit weight.
    np.testing.assert_allclose(error, np.sqrt(power), rtol=0.5)


def test_residuals_on_both_halves_are_at_the_best_scale_of_the_first(rng):
    data = observe(rng, random_gains(rng, 6, 7), sigma=0.5)
    statistics, gain = data.statistics(), 1.1 * data.gain[None]
    solved = rng.random(gain.shape) < 0.9
    for half in (0, 1):
        scale = statistics.scale(gain, solved, half)
        each = [statistics.residuals(gain, solved, h, scale)[0] for h in (half, 1 - half)]
        assert statistics.residuals(gain, solved, half) == pytest.approx(each, rel=1e-12)
        assert statistics.residuals(gain, solved, half, scale) == pytest.approx(each, rel=1e-12)


NAMES = ("cross", "model", "data", "count")


def test_sub_bands_add_up_to_windows_and_dumps_to_intervals(rng):
    windows = BaselineStatistics.empty(5, (3, 7), 6)
    parts = BaselineStatistics.empty(5, range(6), 6)
    for k in range(2):
        observed = observe(rng, random_gains(rng, 6, 5), n_channels=9)
        rows = RowIndex(observed.time_index, observed.antenna1, observed.antenna2)
        for first, last, into, at in [
            (0, 9, windows, k),
            *((3 * j, 3 * j + 3, parts, 3 * k + j) for j in range(3)),
        ]:
            chosen = slice(first, last)
            model = np.ascontiguousarray(observed.model[:, chosen])
            accumulate(
                into, at, rows, observed.vis[:, chosen], observed.weight[:, chosen], model, 9 * k + first
            )
    summed = parts.collapsed((3, 7))
    assert summed.spw_ids == (3, 7)
    again = joined([parts.of_window(k) for k in range(6)])
    assert again.spw_ids == parts.spw_ids
    runs = parts.over_intervals(np.array([0, 4]), np.array([3, 6]))
    for name in NAMES:
        np.testing.assert_allclose(getattr(summed, name), getattr(windows, name), rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(getattr(again, name), getattr(parts, name))
        values = getattr(parts, name)
        expected = np.stack([values[:, :, :3].sum(axis=2), values[:, :, 4:].sum(axis=2)], axis=2)
        np.testing.assert_array_equal(getattr(runs, name), expected)
