"""Zeros, constants and repeated values are found before anything is known of the sky."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.visibilities.broken_data import BrokenDataFinder
from tests.selfcal.support import hashed, open_data

ANTENNA, START, N = 5, 3, 30


@pytest.fixture
def block(observed, stage_config):
    """All data of the observation, to be written to."""
    (found,) = open_data(observed, stage_config).reader.blocks()
    return found


def rows_of(block, antenna=ANTENNA, start=START):
    return ((block.antenna1 == antenna) | (block.antenna2 == antenna)) & (block.time_index >= start)


def broken(*blocks):
    finder = BrokenDataFinder(6, N)
    for number, block in enumerate(blocks):
        finder.add(number, block)
    return finder.result()


def stuck(block, antenna=ANTENNA, start=START):
    """Repeat the values of the dump before the first."""
    for other in range(N):
        mine = np.flatnonzero(rows_of(block, antenna, 0) & rows_of(block, other, 0))
        if other != antenna:
            dumps = block.time_index[mine]
            block.data[mine[dumps >= start]] = block.data[mine[dumps == start - 1]]


def test_healthy_data_are_whole(block):
    found = broken(block)
    assert not found.places
    assert not found.silent.any()
    assert not found.everything
    assert found.notes([""] * N) == []


@pytest.mark.parametrize("kind", ["zeros", "constants", "repeated values"])
def test_each_kind_is_found_and_nothing_else(block, kind):
    mine = rows_of(block)
    if kind == "zeros":
        block.data[mine] = 0
    elif kind == "constants":
        block.data[mine] = block.data[mine][:, :1]
    else:
        stuck(block)
    found = broken(block)
    expected = np.broadcast_to(mine[:, None, None], block.weight.shape) & (block.weight > 0)
    np.testing.assert_array_equal(found.places[0], np.flatnonzero(expected))
    silent = np.zeros((6, N, 2), bool)
    silent[START:, ANTENNA] = True
    np.testing.assert_array_equal(found.silent, silent)
    (note,) = found.notes([f"A{k}" for k in range(N)])
    n = expected[:, :, list(block.spw.parallel)].sum()
    assert note == f"{kind}: {n} visibilities of antennas A{ANTENNA} left out"


def test_one_polarisation_alone(block):
    k = block.spw.parallel[1]
    block.data[rows_of(block), :, k] = 0
    found = broken(block)
    assert not found.silent[..., 0].any()
    assert found.silent[START:, ANTENNA, 1].all()


def test_flags_do_not_hide_it(block, rng):
    """The reader has zeros where it is flagged: in other channels in each dump."""
    stuck(block)
    flag = rng.random(block.data.shape) < 0.2
    block.data[flag], block.weight[flag], block.flag[flag] = 0, 0, True
    found = broken(block)
    inside = rows_of(block)[:, None, None] & ~flag & (block.weight > 0)
    share = found.places[0].size / inside.sum()
    # But for rows with fewer than two channels that are unflagged in the dump before too.
    assert 0.99 < share <= 1
    assert set(np.unravel_index(found.places[0], flag.shape)[0]) <= set(np.flatnonzero(rows_of(block)))


def test_repeated_rows_are_found_across_blocks(block):
    """A field for each dump is a block for each dump."""
    stuck(block)
    blocks = []
    for dump in range(6):
        rows = block.time_index == dump
        of_rows = ("rows", "time_index", "antenna1", "antenna2", "uvw_m", "data", "flag", "weight")
        blocks.append(replace(block, field_id=dump, **{n: getattr(block, n)[rows] for n in of_rows}))
    found = broken(*blocks)
    assert sorted(found.places) == [3, 4, 5]
    assert found.silent[START:, ANTENNA].all()
    np.testing.assert_array_equal(found.by_baseline, broken(block).by_baseline)


def test_a_single_baseline_names_no_antenna(block):
    block.data[rows_of(block) & rows_of(block, 7)] = 0
    found = broken(block)
    assert not found.silent.any()
    assert "of 1 single baselines left out" in found.notes([f"A{k}" for k in range(N)])[0]


def test_few_channels_may_be_the_same_by_chance(block):
    narrow = replace(block, data=block.data[:, :3].copy(), weight=block.weight[:, :3], flag=block.flag[:, :3])
    narrow.data[rows_of(block)] = narrow.data[rows_of(block)][:, :1]
    assert not broken(narrow).places


def test_broken_data_have_no_weight_from_the_start(observed, stage_config: SelfCalConfig):
    data = open_data(observed, stage_config)
    (block,) = data.reader.blocks()
    mine = rows_of(block)
    block.data[mine] = 0
    before = hashed(data)
    weights = data.nominal_weights()
    assert (weights.of_block(0, block)[mine] == 0).all()
    np.testing.assert_array_equal(weights.of_block(0, block)[~mine], block.weight[~mine])
    assert weights.n_outliers == 0
    assert weights.lost is not None
    assert weights.lost[START:, ANTENNA].all()
    assert hashed(data) == before


def test_data_of_nothing_else_are_named(observed, stage_config):
    data = open_data(observed, stage_config)
    (block,) = data.reader.blocks()
    block.data[:] = 0
    with pytest.raises(MeasurementSetError, match="noise"):
        data.nominal_weights()


def test_interference_on_all_baselines_is_found_by_dump_and_channel(block, rng):
    """A burst in two channels of one dump, and nothing but that."""
    strength = 20 * np.median(np.abs(block.data))
    for channel in (2, 5):
        hit = block.time_index == 3
        shape = block.data[hit][:, channel].shape
        block.data[hit, channel] += strength * np.exp(2j * np.pi * rng.uniform(size=shape)).astype(
            np.complex64
        )
    found = broken(block)
    (bursts,) = found.bursts.values()
    assert np.argwhere(bursts).tolist() == [[3, 2], [3, 5]]
    assert not found.places
    where = np.zeros(block.weight.shape, bool)
    where.reshape(-1)[found.in_bursts(block)] = True
    expected = np.zeros_like(where)
    expected[np.ix_(block.time_index == 3, [2, 5])] = True
    np.testing.assert_array_equal(where, expected & (block.weight > 0))
    assert found.notes([""] * N) == ["interference on all baselines: 2 channels of single dumps left out"]


def test_a_source_that_brightens_is_no_burst(block):
    """Twice the flux in all channels of a dump is of the sky."""
    block.data[block.time_index == 3] *= 2
    assert not broken(block).bursts
