"""What visibilities count for: a value, made from what a residual shows."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.data_weights import (
    NOISY,
    OUTLIER,
    QUIETEST,
    DataWeights,
    Residual,
    block_outliers,
    merged,
    outliers,
)
from dsa110_contimg.visibilities import NoiseBounds
from tests.selfcal.support import hashed


def residual(factor, found, misfit=None):
    one = np.ones(factor.shape)
    return Residual(
        bounds=NoiseBounds(),
        outliers=found,
        noise_factor=factor,
        misfit_factor=one if misfit is None else misfit,
        seen=one > 0,
    )


def test_outliers_stand_out_of_noise_and_not_of_a_sky(rng):
    noise = (rng.standard_normal((500, 8, 2)) + 1j * rng.standard_normal((500, 8, 2))).astype(np.complex64)
    weight = rng.uniform(0.5, 2, noise.shape).astype(np.float32)
    vis = noise / np.sqrt(weight)
    assert not outliers(vis, weight, OUTLIER).any()
    hit = rng.uniform(size=vis.shape) < 0.01
    assert (outliers(np.where(hit, 30, vis).astype(np.complex64), weight, OUTLIER) == hit).all()
    # A source of any brightness on some of the data is not a matter of single visibilities.
    half = np.broadcast_to(np.arange(500)[:, None, None] < 220, vis.shape)
    assert not outliers(np.where(half, 30, vis).astype(np.complex64), weight, OUTLIER).any()
    assert not outliers(vis, np.zeros_like(weight), OUTLIER).any()


def test_findings_are_merged_place_by_place():
    one, other = {0: np.array([1, 5])}, {0: np.array([3, 5]), 2: np.array([7])}
    together = merged([one, other])
    assert {k: v.tolist() for k, v in together.items()} == {0: [1, 3, 5], 2: [7]}
    assert one[0].tolist() == [1, 5]
    assert merged([]) == {}


def test_outliers_lose_their_weight_and_nothing_else_does(data, rng):
    """By receptor they are found, by correlation they lose it; the block is not written to."""
    block = next(iter(data.reader.blocks()))
    found = rng.uniform(size=(*block.weight.shape[:2], 2)) < 0.01
    places = block_outliers(block, found)
    assert np.array_equal(places, np.sort(places))
    before = hashed(data)
    weight = replace(DataWeights.nominal(len(data.reader.ms.antennas)), outliers={0: places}).of_block(
        0, block
    )
    for k in block.spw.parallel:
        p = block.spw.receptors[k][0]
        np.testing.assert_array_equal(weight[:, :, k], np.where(found[:, :, p], 0, block.weight[:, :, k]))
    assert places.size == found.sum()
    assert hashed(data) == before
    # Places are those of one block.
    other = replace(DataWeights.nominal(len(data.reader.ms.antennas)), outliers={1: places}).of_block(
        0, block
    )
    np.testing.assert_array_equal(other, block.weight)


def test_weights_as_the_data_have_them_are_not_copied(data):
    block = next(iter(data.reader.blocks()))
    assert data.nominal_weights().of_block(0, block) is block.weight


def test_a_noisy_antenna_weighs_less_on_all_its_baselines(data):
    block = next(iter(data.reader.blocks()))
    factor = np.ones((len(data.reader.ms.antennas), 2))
    factor[3], factor[5, 1] = (4.0, 2.0), 10.0
    before = hashed(data)
    weight = DataWeights(factor, np.ones_like(factor)).of_block(0, block)
    assert hashed(data) == before
    assert weight.dtype == block.weight.dtype
    for k, (p, q) in enumerate(block.spw.receptors):
        excess = factor[block.antenna1, p] * factor[block.antenna2, q]
        np.testing.assert_allclose(weight[:, :, k], block.weight[:, :, k] / excess[:, None], rtol=1e-6)


def test_what_a_residual_shows_is_multiplied_and_joined():
    """A factor is measured with the weights as they were: what is still too much."""
    before = DataWeights(np.array([[1.0, 3.0], [1.0, 1.0]]), np.ones((2, 2)), {0: np.array([4])})
    shown = residual(np.array([[1.5, 2.5], [NOISY, 6.0]]), {0: np.array([9])})
    after, noisy, misfit = before.after(shown, {0: np.array([2]), 3: np.array([1])})
    np.testing.assert_array_equal(noisy, [[False, True], [False, True]])
    assert not misfit.any()
    np.testing.assert_array_equal(after.noise_factor, [[1.5, 7.5], [NOISY, 6.0]])
    assert {k: v.tolist() for k, v in after.outliers.items()} == {0: [2, 4, 9], 3: [1]}
    assert (before.n_outliers, after.n_outliers) == (1, 4)
    np.testing.assert_array_equal(before.noise_factor, [[1.0, 3.0], [1.0, 1.0]])
    assert before.outliers[0].tolist() == [4]


def test_a_quiet_antenna_counts_for_more_and_a_nearly_silent_one_not_without_limit():
    factor = np.array([[1.0, 1.1], [0.4, 1e-6]])
    after, differ, _ = DataWeights.nominal(2).after(residual(factor, {}))
    np.testing.assert_array_equal(differ, [[False, False], [True, True]])
    np.testing.assert_array_equal(after.noise_factor, [[1.0, 1.1], [0.4, QUIETEST]])


def test_antennas_that_hardly_differ_keep_their_weights():
    nominal = DataWeights.nominal(2)
    after, differ, _ = nominal.after(residual(np.array([[1.0, 1.9], [0.6, 1.0]]), {}))
    assert not differ.any()
    np.testing.assert_array_equal(after.noise_factor, nominal.noise_factor)


def test_an_antenna_at_which_the_model_lacks_much_counts_for_less_by_itself():
    lacking = np.array([[1.9, 5.0], [0.3, 1.0]])
    one = np.ones((2, 2))
    first, noisy, misfit = DataWeights.nominal(2).after(residual(one, {}, lacking))
    assert not noisy.any()
    np.testing.assert_array_equal(misfit, [[False, True], [False, False]])
    np.testing.assert_array_equal(first.excess, [[1.0, 5.0], [1.0, 1.0]])
    # Known already, more or less; and given back where a better model shows nothing of it.
    again, _, misfit = first.after(residual(one, {}, 0.8 * lacking))
    assert not misfit.any()
    np.testing.assert_array_equal(again.excess, first.excess)
    better, _, misfit = again.after(residual(one, {}, one))
    assert misfit.sum() == 1
    np.testing.assert_array_equal(better.excess, one)


def test_without_factors_keeps_the_outliers():
    weights = DataWeights(np.array([[1.0, 3.0]]), np.array([[2.5, 1.0]]), {0: np.array([4])})
    plain = weights.without_factors()
    assert plain.outliers is weights.outliers
    np.testing.assert_array_equal(weights.excess, [[2.5, 3.0]])
    np.testing.assert_array_equal(plain.excess, [[1.0, 1.0]])
    np.testing.assert_array_equal(weights.noise_factor, [[1.0, 3.0]])


@pytest.mark.parametrize("name", ["noise_factor", "outliers"])
def test_weights_are_a_value(name):
    with pytest.raises(FrozenInstanceError):
        setattr(DataWeights.nominal(3), name, None)
    np.testing.assert_array_equal(DataWeights.nominal(3).noise_factor, np.ones((3, 2)))


def test_a_lost_dump_takes_every_baseline_of_its_receptor(data):
    block = next(iter(data.reader.blocks()))
    n = len(data.reader.ms.antennas)
    lost = np.zeros((data.reader.times.size, n, 2), bool)
    lost[2:4, 5, 1] = True
    nominal = DataWeights.nominal(n)
    weights = nominal.without(lost)
    assert nominal.lost is None
    before = hashed(data)
    weight = weights.of_block(0, block)
    assert hashed(data) == before
    during = (block.time_index >= 2) & (block.time_index < 4)
    for k, (p, q) in enumerate(block.spw.receptors):
        mine = during & (((block.antenna1 == 5) & (p == 1)) | ((block.antenna2 == 5) & (q == 1)))
        assert mine.any() == (1 in (p, q))
        np.testing.assert_array_equal(weights.unfit(0, block)[:, :, k], np.repeat(mine[:, None], 8, axis=1))
        np.testing.assert_array_equal(weight[:, :, k], np.where(mine[:, None], 0, block.weight[:, :, k]))
    more = np.zeros_like(lost)
    more[0] = True
    np.testing.assert_array_equal(weights.without(more).lost, lost | more)
    assert weights.without(np.zeros_like(lost)) is weights


def test_what_a_residual_shows_leaves_broken_and_lost_data_as_they_are():
    lost = np.ones((3, 2, 2), bool)
    before = DataWeights(np.ones((2, 2)), np.ones((2, 2)), {}, {1: np.array([3])}, lost)
    after, _, _ = before.after(residual(np.ones((2, 2)), {0: np.array([9])}))
    for weights in (after, after.without_factors()):
        assert weights.broken is before.broken
        assert weights.lost is lost
    assert after.n_outliers == 1


def test_the_noise_is_told_by_weights_without_what_the_model_lacks(data):
    (block,) = data.reader.blocks()
    n = len(data.reader.ms.antennas)
    misfit, noise = np.ones((n, 2)), np.ones((n, 2))
    misfit[3], noise[5] = (4.0, 9.0), 2.0
    weights = replace(DataWeights.nominal(n), misfit_factor=misfit, noise_factor=noise)
    weight = weights.of_block(0, block)
    by_noise = replace(weights, misfit_factor=np.ones((n, 2))).of_block(0, block)
    np.testing.assert_allclose(weights.by_noise(block, weight), by_noise, rtol=1e-6)
    parallel = list(block.spw.parallel)
    by_receptor = weights.by_noise(block, weight[:, :, parallel], ((0, 0), (1, 1)))
    np.testing.assert_allclose(by_receptor, by_noise[:, :, parallel], rtol=1e-6)
    nominal = data.nominal_weights()
    assert nominal.by_noise(block, weight) is weight


def test_what_noise_leaves_of_weighted_data(data, start, solved):
    """The mean of the weight that the data count for over the weight that their noise says."""
    gathered = data.gather(solved.model, start.weights)
    assert start.weights.noise_share(gathered.statistics) == 1.0
    n = len(data.reader.ms.antennas)
    misfit = np.ones((n, 2))
    misfit[3] = 4.0
    weights = replace(start.weights, misfit_factor=misfit)
    (block,) = data.reader.blocks()
    less = (block.antenna1 == 3) | (block.antenna2 == 3)
    used = (block.weight > 0)[:, :, list(block.spw.parallel)].sum(axis=(1, 2))
    expected = (used * np.where(less, 0.25, 1.0)).sum() / used.sum()
    assert weights.noise_share(gathered.statistics) == pytest.approx(expected, rel=1e-3)


def test_windows_are_weighed_by_their_noise_where_it_differs_from_their_weights(data):
    one = np.ones((2, 2))
    alike = replace(residual(one, {}), window_factor={0: 1.1, 3: 0.9})
    assert DataWeights.nominal(2).after(alike)[0].window_factor == {}
    twice = replace(residual(one, {}), window_factor={0: 1.0, 3: 4.0, 5: 1.0})
    first, _, _ = DataWeights.nominal(2).after(twice)
    assert first.windows_unlike(DataWeights.nominal(2)) == (3,)
    # What is measured with these is relative to them.
    again, _, _ = first.after(replace(residual(one, {}), window_factor={0: 1.0, 3: 2.0, 5: 1.0}))
    assert again.window_factor == {0: 1.0, 3: 8.0, 5: 1.0}
    assert again.windows_unlike(first) == (3,)
    assert again.without_factors().window_factor == {}
    block = next(iter(data.reader.blocks()))
    n = len(data.reader.ms.antennas)
    weights = replace(DataWeights.nominal(n), window_factor={block.spw.id: 4.0})
    np.testing.assert_allclose(weights.of_block(0, block), block.weight / 4, rtol=1e-6)
    np.testing.assert_allclose(
        weights.by_noise(block, weights.of_block(0, block)), block.weight / 4, rtol=1e-6
    )
