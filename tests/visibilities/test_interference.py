"""Narrow interference is found in data that nobody has calibrated, as well as in the residual of a model."""

import numpy as np
import pytest

from dsa110_contimg.selfcal.data_weights import OUTLIER, outliers
from dsa110_contimg.visibilities import find_narrow, smooth_sequences
from dsa110_contimg.visibilities.averaging import MOST_TURNS

CHANNELS, ROWS = 48, 3000


def observed(rng, turns, strength, share, delay=0.0):
    """A sky within an image, in noise of unit variance per component, and interference."""
    channel = np.arange(CHANNELS)
    flux = rng.uniform(0, 1, (ROWS, 20)) * np.exp(2j * np.pi * rng.uniform(size=(ROWS, 20)))
    rate = rng.uniform(-1, 1, (ROWS, 20)) * turns + delay
    sky = np.einsum("rs,rsc->rc", flux, np.exp(2j * np.pi * rate[:, :, None] * channel))[:, :, None]
    shape = (ROWS, CHANNELS, 2)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    hit = rng.uniform(size=shape) < share
    vis = sky + noise + hit * strength * np.exp(2j * np.pi * rng.uniform(size=shape))
    return vis.astype(np.complex64), np.broadcast_to(sky, shape).astype(np.complex64), hit


def found_in(vis, weight, turns):
    found = np.zeros(vis.shape, bool)
    found[find_narrow(vis, weight, np.arange(len(vis)), smooth_sequences(CHANNELS, turns + 2.4e-3))] = True
    return found


@pytest.mark.parametrize("share", [0.001, 0.02])
@pytest.mark.parametrize("strength", [5, 20])
@pytest.mark.parametrize("factor", [2, 4, 12])
def test_one_channel_of_48_is_found_as_well_as_in_the_residual(strength, share, factor):
    rng = np.random.default_rng([strength, factor])
    turns = MOST_TURNS / factor
    vis, sky, hit = observed(rng, turns, strength, share)
    weight = np.ones(vis.shape, np.float32)
    found = found_in(vis, weight, turns)
    # What the residual of a perfect model shows.
    judge = outliers(vis - sky, weight, OUTLIER)
    assert found[hit].mean() > judge[hit].mean() - 0.002
    assert found[~hit].mean() < 1e-3
    if strength == 20:
        assert found[hit].mean() > 0.999


def test_noise_and_sky_alone_are_left():
    rng = np.random.default_rng(1)
    vis, _, _ = observed(rng, MOST_TURNS / 4, 0, 0, delay=2e-3)
    assert found_in(vis, np.ones(vis.shape, np.float32), MOST_TURNS / 4).mean() < 1e-4


def test_a_bright_sky_is_no_interference():
    """A thousand times the noise, and a delay of 10 ns on it."""
    rng = np.random.default_rng(2)
    vis, sky, _ = observed(rng, MOST_TURNS / 12, 0, 0, delay=2e-3)
    assert found_in(vis + 300 * sky, np.ones(vis.shape, np.float32), MOST_TURNS / 12).mean() < 1e-3


def test_very_strong_interference_takes_nothing_else_with_it():
    rng = np.random.default_rng(3)
    vis, _, _ = observed(rng, MOST_TURNS / 12, 0, 0)
    hit = np.zeros(vis.shape, bool)
    hit[::7, 20], hit[::5, 33] = True, True
    found = found_in(
        np.where(hit, vis + 1e5, vis).astype(np.complex64), np.ones(vis.shape, np.float32), 0.0065
    )
    assert found[hit].all()
    assert found[~hit].mean() < 1e-3


def test_flagged_channels_and_weights_are_respected():
    rng = np.random.default_rng(4)
    vis, _, hit = observed(rng, MOST_TURNS / 12, 20, 0.005)
    weight = rng.uniform(0.3, 3, vis.shape).astype(np.float32)
    weight[rng.uniform(size=vis.shape) < 0.2] = 0
    weight[:40] = 0
    scaled = np.where(weight > 0, vis / np.sqrt(np.where(weight > 0, weight, 1)), 1e9).astype(np.complex64)
    found = found_in(scaled, weight, MOST_TURNS / 12)
    assert not found[weight == 0].any()
    assert found[hit & (weight > 0)].mean() > 0.97
    assert found[~hit].mean() < 1e-3


def test_where_many_channels_stand_out_it_is_no_matter_of_single_ones():
    rng = np.random.default_rng(5)
    vis, _, _ = observed(rng, MOST_TURNS / 12, 0, 0)
    many = np.zeros(vis.shape, bool)
    many[:100] = rng.uniform(size=(100, CHANNELS, 2)) < 0.6
    vis = np.where(many, vis + 40 * np.exp(2j * np.pi * rng.uniform(size=vis.shape)), vis)
    found = found_in(vis.astype(np.complex64), np.ones(vis.shape, np.float32), MOST_TURNS / 12)
    assert found[:100].mean() < 0.05
    assert found[100:].mean() < 1e-4


def test_baselines_that_turn_too_fast_are_left_to_the_residual():
    assert smooth_sequences(48, 0.2) is None
    assert smooth_sequences(8, 0.01) is None
    sequences = smooth_sequences(48, 0.0065)
    np.testing.assert_allclose(sequences.T @ sequences, np.eye(sequences.shape[1]), atol=1e-9)
