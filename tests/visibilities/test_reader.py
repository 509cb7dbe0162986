"""Every selected row once, with its flags and weights, in blocks of bounded size."""

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.errors import MeasurementSetError, SelectionError
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set
from dsa110_contimg.visibilities.reader import BYTES_PER_SAMPLE


def reader(path, field="0", spw=None, **options):
    ms = open_measurement_set(path)
    return VisibilityReader(ms, ms.select(field, spw), **options)


def column(path, name):
    with table(str(path), ack=False) as main:
        return [np.array(main.getcell(name, r)) for r in range(main.nrows())]


def assert_blocks_are_the_table(blocks, path, expected_rows):
    """Compare with the table read cell by cell."""
    rows = np.concatenate([b.rows for b in blocks])
    assert sorted(rows) == sorted(expected_rows)
    cells = {
        n: column(path, n) for n in ("DATA", "FLAG", "WEIGHT_SPECTRUM", "UVW", "ANTENNA1", "ANTENNA2", "TIME")
    }
    for block in blocks:
        for k, r in enumerate(block.rows):
            flag = cells["FLAG"][r]
            np.testing.assert_array_equal(block.flag[k], flag)
            np.testing.assert_array_equal(block.data[k], np.where(flag, 0, cells["DATA"][r]))
            np.testing.assert_array_equal(block.weight[k], np.where(flag, 0, cells["WEIGHT_SPECTRUM"][r]))
            np.testing.assert_array_equal(block.uvw_m[k], cells["UVW"][r])
            assert (block.antenna1[k], block.antenna2[k]) == (cells["ANTENNA1"][r], cells["ANTENNA2"][r])


def crosses(path, ddids=(0,), fields=(0,)):
    a1, a2, d, f = (np.array(column(path, n)) for n in ("ANTENNA1", "ANTENNA2", "DATA_DESC_ID", "FIELD_ID"))
    return np.flatnonzero((a1 != a2) & np.isin(d, ddids) & np.isin(f, fields))


@pytest.mark.parametrize("order", ["spw", "interleaved"])
@pytest.mark.parametrize("block_bytes", [1, 20 * 4 * 2 * BYTES_PER_SAMPLE, 1 << 30])
def test_every_cross_correlation_once(make_ms, order, block_bytes):
    path = make_ms(channels=(4, 7), order=order, fields=(0, 1, 2))
    read = reader(path, "0,2", block_bytes=block_bytes)
    blocks = list(read.blocks())
    assert_blocks_are_the_table(blocks, path, crosses(path, (0, 1), (0, 2)))
    assert (read.n_rows, read.n_blocks) == (sum(b.rows.size for b in blocks), len(blocks))
    assert read.samples == sum(b.data.size for b in blocks)
    for b in blocks:
        assert b.data.size * BYTES_PER_SAMPLE <= max(block_bytes, b.data[0].size * BYTES_PER_SAMPLE)
        assert b.data.shape[1] == b.spw.freq_hz.size
        assert (np.diff(b.rows) > 0).all()
        assert (b.antenna1 != b.antenna2).all()


def test_few_rows_of_another_shape_in_between(make_ms, edit):
    """Nearly contiguous rows of one window with one row of another among them."""
    path = make_ms(channels=(4, 7), order="spw", dumps=1, autos=False)
    with edit(path) as main:
        moved = main.getcell("DATA", 15)
        for r in (15,):
            main.putcell("DATA_DESC_ID", r, 0)
            for name, like in (("DATA", 0), ("FLAG", 0), ("WEIGHT_SPECTRUM", 0)):
                main.putcell(name, r, main.getcell(name, like))
        main.putcell("DATA_DESC_ID", 5, 1)
        main.putcell("DATA", 5, moved)
        main.putcell("FLAG", 5, np.zeros((7, 2), dtype=bool))
        main.putcell("WEIGHT_SPECTRUM", 5, np.ones((7, 2), dtype=np.float32))
    assert_blocks_are_the_table(list(reader(path).blocks()), path, range(20))


def test_duplicates_in_the_selection_do_not_count_twice(make_ms):
    path = make_ms(channels=(4, 4))
    rows = np.concatenate([b.rows for b in reader(path, "0,one", "0,0~1").blocks()])
    assert np.unique(rows).size == rows.size


def test_cached_blocks_are_the_same_and_read_once(make_ms):
    path = make_ms(channels=(4, 7))
    plain, cached = reader(path), reader(path, cache_bytes=1 << 30, block_bytes=5000)
    assert (plain.cached, cached.cached) == (False, True)
    first = list(cached.blocks())
    assert_blocks_are_the_table(first, path, crosses(path, (0, 1)))
    assert all(a is b for a, b in zip(first, cached.blocks(), strict=True))
    uncached = list(reader(path, block_bytes=5000).blocks())
    for a, b in zip(first, uncached, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(a.weight, b.weight)


def test_a_pass_left_early_does_not_leave_half_a_cache(make_ms):
    read = reader(make_ms(), cache_bytes=1 << 30, block_bytes=5000)
    next(iter(read.blocks()))
    assert len(list(read.blocks())) == read.n_blocks > 1


def test_dumps_with_their_scan_field_and_length(make_ms, edit):
    path = make_ms(channels=(2, 3), fields=(0, 2), dumps=2)
    with edit(path) as main:
        # Stamps of one dump may differ by rounding.
        main.putcell("TIME", 3, main.getcell("TIME", 3) + 4e-4)
    read = reader(path, "0,2")
    np.testing.assert_allclose(read.times, [5e9, 5e9 + 10], atol=1e-3)
    np.testing.assert_array_equal(read.scan, [1, 2])
    np.testing.assert_array_equal(read.interval_s, [10, 10])
    time = np.array(column(path, "TIME"))
    for block in read.blocks():
        np.testing.assert_allclose(read.times[block.time_index], time[block.rows], atol=1e-3)


def test_trap_nan_and_flag_row_are_flagged(make_ms, edit):
    path = make_ms(autos=False)
    with edit(path) as main:
        cell = main.getcell("DATA", 0)
        cell[1, 0], cell[2, 1] = np.nan, np.inf
        main.putcell("DATA", 0, cell)
        main.putcell("FLAG", 0, np.zeros((4, 2), dtype=bool))
        main.putcell("FLAG_ROW", 1, True)
        main.putcell("UVW", 2, np.array([np.nan, 0, 0]))
        main.putcell("WEIGHT_SPECTRUM", 3, np.full((4, 2), np.nan, dtype=np.float32))
        main.putcell("WEIGHT_SPECTRUM", 4, np.full((4, 2), -1, dtype=np.float32))
    read = reader(path)
    (block,) = read.blocks()
    expected = np.zeros((4, 2), dtype=bool)
    expected[1, 0] = expected[2, 1] = True
    np.testing.assert_array_equal(block.flag[0], expected)
    assert block.flag[1:5].all()
    assert not block.weight[block.flag].any()
    assert not block.data[block.flag].any()
    assert np.isfinite(block.weight).all()
    assert np.isfinite(block.uvw_m).all()
    assert np.isfinite(read.max_baseline_m)


def remove_spectrum(main):
    main.removecols(["WEIGHT_SPECTRUM"])


def zero_spectrum(main):
    main.putcol("WEIGHT_SPECTRUM", np.zeros((main.nrows(), 4, 2), dtype=np.float32))


@pytest.mark.parametrize("without", [remove_spectrum, zero_spectrum])
def test_weight_stands_in_for_an_unusable_spectrum(make_ms, edit, without):
    path = make_ms()
    with edit(path) as main:
        without(main)
    (block,) = reader(path).blocks()
    expected = np.array(column(path, "WEIGHT"))[block.rows][:, None, :] * ~block.flag
    np.testing.assert_array_equal(block.weight, expected)


def test_another_column(make_ms):
    path = make_ms(columns=("CORRECTED_DATA",))
    (block,) = reader(path, column="CORRECTED_DATA").blocks()
    expected = np.array(column(path, "CORRECTED_DATA"))[block.rows]
    np.testing.assert_array_equal(block.data, np.where(block.flag, 0, expected))
    with pytest.raises(MeasurementSetError, match="no column MODEL_DATA"):
        reader(path, column="MODEL_DATA")


def test_only_autocorrelations_are_nothing(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        main.putcol("ANTENNA2", main.getcol("ANTENNA1"))
    with pytest.raises(SelectionError, match="holds only autocorrelations"):
        reader(path)
    with pytest.raises(SelectionError, match="no rows in the selected fields"):
        reader(make_ms("b.ms"), "1")


def test_cells_that_do_not_fit_the_window(make_ms, edit):
    path = make_ms()
    with edit(path / "SPECTRAL_WINDOW") as sub:
        sub.putcell("CHAN_FREQ", 0, 1e9 + 1e6 * np.arange(9))
    with pytest.raises(MeasurementSetError, match=r"DATA has cells of shape \(4, 2\).*say \(9, 2\)"):
        list(reader(path).blocks())


def test_cells_that_cannot_be_read_are_one_line(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        main.addrows(1)
        for name in ("ANTENNA1", "ANTENNA2"):
            main.putcell(name, main.nrows() - 1, 1 if name == "ANTENNA1" else 2)
    with pytest.raises(MeasurementSetError, match=r"^\S+: DATA is not filled in all rows") as caught:
        list(reader(path).blocks())
    assert "\n" not in str(caught.value)


def test_real_observation_in_small_blocks(ngc5921_raw):
    read = reader(ngc5921_raw, "N5921_2", block_bytes=1 << 16)
    rows = np.concatenate([b.rows for b in read.blocks()])
    np.testing.assert_array_equal(np.sort(rows), crosses(ngc5921_raw, (0,), (2,)))


def test_antenna_coordinates_are_those_of_the_rows(small_ms):
    found = reader(small_ms.path)
    uv = found.antenna_uv()
    assert uv.shape == (len(found.times), len(found.ms.antennas), 2)
    for block in found.blocks():
        t, expected = block.time_index, found.move_to_center(block)[0][:, :2]
        np.testing.assert_allclose(uv[t, block.antenna2] - uv[t, block.antenna1], expected, atol=1e-3)
