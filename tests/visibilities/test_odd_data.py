"""Measurement Sets as other programs write them: each kind once."""

import hashlib
import shutil

import numpy as np
import pytest
from casacore.tables import makearrcoldesc, msconcat, table

from dsa110_contimg.errors import MeasurementSetError, ReferenceTableError
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set, rephase_measurement_set
from dsa110_contimg.visibilities.columns import ColumnStage, column_as_found, restore_columns
from dsa110_contimg.visibilities.frames import direction_in_icrs, turned_baselines
from dsa110_contimg.visibilities.impossible import flag_impossible
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import require_own_data


def reader(path, **options):
    ms = open_measurement_set(path)
    return VisibilityReader(ms, ms.select("0"), **options)


def block(path):
    (found,) = reader(path).blocks()
    return found


def files(folder):
    found = (f for f in folder.rglob("*") if f.is_file() and f.name != "table.lock")
    return {f.relative_to(folder): hashlib.sha256(f.read_bytes()).hexdigest() for f in found}


def test_data_without_weights_count_alike(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        main.putcol("WEIGHT", -main.getcol("WEIGHT"))
        main.putcol("SIGMA", np.full_like(main.getcol("SIGMA"), np.nan))
        main.putcol("WEIGHT_SPECTRUM", 0 * main.getcol("WEIGHT_SPECTRUM"))
    assert reader(path).unweighted
    found = block(path)
    assert found.flag.any()
    np.testing.assert_array_equal(found.weight, np.where(found.flag, 0, 1))


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_a_common_scale_of_the_weights_is_taken_out(make_ms, edit, scale):
    path = make_ms()
    plain = block(path).weight
    with edit(path) as main:
        weights = main.getcol("WEIGHT_SPECTRUM").astype(float)
        main.putcol("WEIGHT_SPECTRUM", (weights * scale).astype(np.float32))
    scaled = block(path).weight
    ratio = scaled[plain > 0] / plain[plain > 0]
    assert 0.3 < ratio.mean() < 1.5
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-6)


def test_values_that_no_receiver_makes_are_flagged_and_counted(rng):
    data = (rng.normal(size=(50, 8, 2)) + 1j * rng.normal(size=(50, 8, 2))).astype(np.complex64)
    flag = np.zeros(data.shape, bool)
    assert flag_impossible(data, flag) == 0
    assert not flag.any()
    # A strong source is no reason, but beside such a value it is of the same making.
    data[0, 0, 0] = 1e3
    assert flag_impossible(data, flag) == 0
    data[1, 0, 0], data[2, 0, 0], data[3, 0, 0], flag[3, 0, 0] = 1e37, np.nan, 1e37, True
    assert flag_impossible(data, flag) == 2
    assert set(zip(*np.nonzero(flag), strict=True)) == {(k, 0, 0) for k in range(4)}


def test_rows_without_a_baseline_are_left_out(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        uvw = main.getcol("UVW")
        uvw[1] = 0
        main.putcol("UVW", uvw)
    assert reader(path).n_rows_nowhere == 1
    found = block(path)
    assert found.flag[found.rows == 1].all()
    with edit(path) as main:
        main.putcol("UVW", 0 * uvw)
    with pytest.raises(MeasurementSetError, match="no baseline has a length: UVW is zero"):
        reader(path)


def test_a_column_that_was_never_filled_is_named(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        main.addcols(makearrcoldesc("CORRECTED_DATA", 0j, ndim=2, valuetype="complex"))
    with pytest.raises(MeasurementSetError, match=r"CORRECTED_DATA is not filled.*--column DATA"):
        reader(path, column="CORRECTED_DATA")


def test_several_descriptions_of_one_window_are_read_as_one(make_ms, edit):
    path = make_ms()
    plain = block(path)
    with edit(path / "DATA_DESCRIPTION") as sub:
        sub.addrows(1)
    with edit(path) as main:
        main.putcol("DATA_DESC_ID", (np.arange(main.nrows()) % 2).astype(np.int32))
    found = block(path)
    np.testing.assert_array_equal(found.rows, plain.rows)
    np.testing.assert_array_equal(found.data, plain.data)


def test_a_storage_manager_that_is_not_there_is_named(make_ms):
    path = make_ms()
    described = (path / "table.dat").read_bytes()
    (path / "table.dat").write_bytes(described.replace(b"StandardStMan", b"CompressStMan"))
    with pytest.raises(MeasurementSetError, match=r"Shared library.*stored by that library"):
        open_measurement_set(path)


def test_a_reference_table_is_read_and_not_written(make_ms, tmp_path):
    path, few = make_ms(), tmp_path / "few.ms"
    with table(str(path), ack=False) as main:
        main.query("ANTENNA1 != ANTENNA2").copy(str(few)).close()
    np.testing.assert_array_equal(block(few).data, block(path).data)
    with pytest.raises(ReferenceTableError, match="a reference table: its data are those of"):
        require_own_data(few)


def test_a_copy_of_a_concatenation_is_its_own(make_ms, tmp_path):
    """Even a deep copy of one forwards: what is written to it would land in the parts."""
    parts = [make_ms(f"part{k}.ms") for k in range(2)]
    with table(str(parts[1]), readonly=False, ack=False) as main:
        main.putcol("TIME", main.getcol("TIME") + 1000)
    whole = tmp_path / "whole.ms"
    msconcat([str(p) for p in parts], str(whole))
    with pytest.raises(ReferenceTableError, match="multi-MS"):
        require_own_data(whole)
    before = [files(p) for p in parts]
    data = data_hash(whole)
    rephase_measurement_set(whole, tmp_path / "moved.ms", (1.01, 0.51))
    require_own_data(tmp_path / "moved.ms")
    assert data_hash(tmp_path / "moved.ms") != data
    assert [files(p) for p in parts] == before


def test_without_pointing_a_copy_gets_one(make_ms, edit, tmp_path):
    path = make_ms()
    with edit(path) as main:
        main.removekeyword("POINTING")
    shutil.rmtree(path / "POINTING")
    rephase_measurement_set(path, tmp_path / "moved.ms")
    moved = open_measurement_set(tmp_path / "moved.ms")
    with table(str(moved.subtable("POINTING")), ack=False) as sub:
        assert sub.nrows() == reader(path).times.size


def test_a_direction_of_1950_is_converted():
    """3C 286 of the VLA's list of calibrators, in both frames."""
    b1950 = np.radians([(13 + 28 / 60 + 49.6565 / 3600) * 15, 30 + 45 / 60 + 58.64 / 3600])
    ra, dec, turn = direction_in_icrs(*map(float, b1950), "B1950_VLA")
    expected = np.radians([(13 + 31 / 60 + 8.2873 / 3600) * 15, 30 + 30 / 60 + 32.959 / 3600])
    assert np.degrees(np.hypot((ra - expected[0]) * np.cos(dec), dec - expected[1])) * 3600 < 0.1
    # A source north of it by the old axes lies on their meridian.
    step = 1e-3
    other = direction_in_icrs(float(b1950[0]), float(b1950[1]) + step, "B1950_VLA")
    east, north = (other[0] - ra) * np.cos(other[1]), other[1] - dec
    np.testing.assert_allclose([east, north], step * np.array([np.sin(turn), np.cos(turn)]), atol=1e-6)
    (u, v, w) = turned_baselines(np.array([[0.0, 1.0, 5.0]]), turn)[0]
    np.testing.assert_allclose([u, v, w], [np.sin(turn), np.cos(turn), 5.0], atol=1e-12)


def test_baselines_of_1950_are_turned_and_copies_are_of_today(make_ms, edit, tmp_path):
    path = make_ms()
    plain = block(path).uvw_m
    for place, name in ((path / "FIELD", "PHASE_DIR"), (path, "UVW")):
        with edit(place) as opened:
            info = opened.getcolkeywords(name).get("MEASINFO", {"type": "uvw"})
            opened.putcolkeyword(name, "MEASINFO", info | {"Ref": "B1950"})
    ms = open_measurement_set(path)
    assert ms.field(0).turn_rad != 0
    np.testing.assert_allclose(block(path).uvw_m, turned_baselines(plain, ms.field(0).turn_rad))
    rephase_measurement_set(path, tmp_path / "moved.ms", field_ids=[0])
    moved = open_measurement_set(tmp_path / "moved.ms")
    assert moved.frames == ()
    assert (moved.field(0).ra_rad, moved.field(0).turn_rad) == (pytest.approx(ms.field(0).ra_rad), 0)
    np.testing.assert_allclose(block(tmp_path / "moved.ms").uvw_m, block(path).uvw_m)


def test_the_column_that_was_found_is_what_a_second_run_reads(make_ms):
    path = make_ms(columns=("CORRECTED_DATA",))
    found = reader(path, column="CORRECTED_DATA")
    before = next(found.blocks()).data
    for _ in range(2):
        ms = open_measurement_set(path)
        with ColumnStage(ms, ["CORRECTED_DATA", "MODEL_DATA"]) as stage:
            stage.fill_rest(np.zeros(0, int))
            stage.put("CORRECTED_DATA", found.ms.n_rows * np.ones(0, int), before[:0])
            stage.commit()
    name = column_as_found(open_measurement_set(path), "CORRECTED_DATA")
    assert name != "CORRECTED_DATA"
    np.testing.assert_array_equal(next(reader(path, column=name).blocks()).data, before)
    with pytest.raises(MeasurementSetError, match="MODEL_DATA was not there before"):
        column_as_found(open_measurement_set(path), "MODEL_DATA")
    restore_columns(open_measurement_set(path))
    assert column_as_found(open_measurement_set(path), "CORRECTED_DATA") == "CORRECTED_DATA"


def test_what_is_beyond_all_measure_is_told_from_all_channels():
    """A faint channel at the edge of the band is not what the others are measured by."""
    rng = np.random.default_rng(1)
    data = rng.normal(size=(4096, 64, 2)).astype(np.complex64)
    data[:, 0] *= np.float32(1e-8)
    flag = np.zeros(data.shape, dtype=bool)
    assert flag_impossible(data, flag) == 0
    flag[:, 0] = True
    data[7, 9, 1] = np.float32(1e9)
    assert flag_impossible(data, flag) == 1
    assert flag[7, 9, 1]
