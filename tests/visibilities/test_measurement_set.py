"""What is accepted as a Measurement Set, what is said about one that is not, and selections."""

import multiprocessing
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.errors import MeasurementSetError, ResourceError, SelectionError
from dsa110_contimg.visibilities import measurement_set, open_measurement_set, tables
from dsa110_contimg.visibilities.measurement_set import REQUIRED_COLUMNS, REQUIRED_SUBTABLES, data_hash
from dsa110_contimg.visibilities.tables import open_table


def refusal(path):
    with pytest.raises(MeasurementSetError) as caught:
        open_measurement_set(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


def test_what_a_measurement_set_holds(make_ms):
    path = make_ms(channels=(4, 6), fields=(0, 1), dumps=2)
    ms = open_measurement_set(path)
    assert (ms.path, ms.telescope, ms.n_rows) == (path, "VLA", 2 * 2 * 2 * 15)
    assert ms.antennas.name == ("a0", "a1", "a2", "a3", "a4")
    assert [(f.name, f.ra_rad, f.dec_rad) for f in ms.fields] == [
        ("one", 1.0, 0.5),
        ("two", 1.2, 0.6),
        ("same", 1.0, 0.5),
    ]
    assert [w.freq_hz.size for w in ms.spectral_windows] == [4, 6]
    assert (ms.spectral_windows[1].width_hz == 1e6).all()
    assert ms.spectral_windows[0].receptors == ((0, 0), (1, 1))
    assert ms.spectral_windows[0].parallel == (0, 1)
    assert ms.spectral_windows[0].receptor_names == ("R", "L")
    assert replace(ms.spectral_windows[0], corr_type=(12,)).receptor_names == ("X", "Y")


def test_real_observation(ngc5921_raw):
    ms = open_measurement_set(ngc5921_raw)
    assert (ms.telescope, len(ms.antennas), [f.name for f in ms.fields]) == (
        "VLA",
        28,
        ["1331+30500002_0", "1445+09900002_0", "N5921_2"],
    )
    target = ms.field(2)
    assert np.degrees([target.ra_rad, target.dec_rad]) == pytest.approx([230.5, 5 + 4 / 60], abs=1e-6)
    assert ms.select("N5921_2").field_ids == (2,)


def test_paths_that_are_no_measurement_set(tmp_path):
    assert "no such" in refusal(tmp_path / "none.ms")
    (tmp_path / "empty.ms").mkdir()
    assert "no table.dat" in refusal(tmp_path / "empty.ms")
    (tmp_path / "file.ms").write_text("SIMPLE")
    assert "no table.dat" in refusal(tmp_path / "file.ms")
    (tmp_path / "junk.ms").mkdir()
    (tmp_path / "junk.ms" / "table.dat").write_bytes(b"junk\n" * 50)
    assert "cannot be opened" in refusal(tmp_path / "junk.ms")
    (tmp_path / "none.ms").symlink_to(tmp_path / "gone")
    assert "no such" in refusal(tmp_path / "none.ms")


def test_other_tables_are_no_measurement_set(make_ms):
    assert "not a Measurement Set" in refusal(make_ms() / "ANTENNA")


def test_no_rows(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        main.removerows(list(range(main.nrows())))
    assert "no rows" in refusal(path)


@pytest.mark.parametrize("column", REQUIRED_COLUMNS)
def test_a_missing_column_is_named(make_ms, edit, column):
    path = make_ms()
    with edit(path) as main:
        main.removecols([column])
    assert f"main table lacks {column};" in refusal(path)


@pytest.mark.parametrize("name", REQUIRED_SUBTABLES)
def test_missing_and_empty_subtables_and_their_columns_are_named(make_ms, edit, name):
    path = make_ms("a.ms")
    with edit(path / name) as sub:
        sub.removecols([REQUIRED_SUBTABLES[name][0]])
    assert f"{name} lacks {REQUIRED_SUBTABLES[name][0]};" in refusal(path)
    path = make_ms("b.ms")
    with edit(path / name) as sub:
        sub.removerows(list(range(sub.nrows())))
    assert f"subtable {name} has no rows" in refusal(path)
    shutil.rmtree(path / name)
    assert f"subtable {name} is missing" in refusal(path)


def test_a_truncated_description_is_one_line(make_ms):
    path = make_ms()
    content = (path / "table.dat").read_bytes()
    (path / "table.dat").write_bytes(content[: len(content) // 2])
    assert "cannot be opened" in refusal(path)


def test_a_data_file_that_is_gone_is_one_line(make_ms):
    path = make_ms()
    (path / "table.f0").unlink()
    assert "cannot be" in refusal(path)


def test_data_must_be_complex(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        description = main.getcoldesc("WEIGHT_SPECTRUM")
        main.removecols(["DATA"])
        main.addcols({"DATA": description | {"dataManagerType": "StandardStMan", "dataManagerGroup": "x"}})
        main.putcell("DATA", 0, np.zeros((4, 2), dtype=np.float32))
    assert "DATA holds no complex arrays" in refusal(path)


@pytest.mark.parametrize("types", [[1, 2], [9, 99], [10, 11], [6]])
def test_correlations_that_cannot_be_calibrated(make_ms, edit, types):
    path = make_ms()
    with edit(path / "POLARIZATION") as sub:
        sub.putcell("CORR_TYPE", 0, np.array(types, dtype=np.int32))
    assert f"/POLARIZATION: correlation types {types}" in refusal(path)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ANTENNA1", 7, "antenna 7, ANTENNA lists 5"),
        ("ANTENNA2", 5, "antenna 5, ANTENNA lists 5"),
        ("ANTENNA1", -1, "antenna -1, ANTENNA lists 5"),
        ("FIELD_ID", 3, "field 3, FIELD lists 3"),
        ("FIELD_ID", -1, "field -1, FIELD lists 3"),
        ("DATA_DESC_ID", 4, "DATA_DESC_ID 4, DATA_DESCRIPTION lists 1"),
        ("DATA_DESC_ID", -1, "DATA_DESC_ID -1, DATA_DESCRIPTION lists 1"),
    ],
)
def test_rows_that_point_nowhere(make_ms, edit, column, value, said):
    path = make_ms()
    with edit(path) as main:
        main.putcell(column, 3, value)
    assert said in refusal(path)


def test_a_window_that_is_not_there(make_ms, edit):
    path = make_ms()
    with edit(path / "DATA_DESCRIPTION") as sub:
        sub.putcell("SPECTRAL_WINDOW_ID", 0, 9)
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("freq", [[0.0, 0.0], [-1e9, 1e9], [np.nan, 1e9]])
def test_channels_without_a_frequency(make_ms, edit, freq):
    path = make_ms()
    with edit(path / "SPECTRAL_WINDOW") as sub:
        sub.putcell("CHAN_FREQ", 0, np.array(freq))
    assert "/SPECTRAL_WINDOW: spectral window 0 has channels without a frequency" in refusal(path)


def test_one_window_under_two_descriptions(make_ms, edit):
    path = make_ms(channels=(4, 4))
    with edit(path / "DATA_DESCRIPTION") as sub:
        sub.putcell("SPECTRAL_WINDOW_ID", 1, 0)
    (window,) = open_measurement_set(path).spectral_windows
    assert window.data_desc_ids == (0, 1)
    with edit(path / "POLARIZATION") as sub:
        sub.addrows(1)
        sub.putcell("CORR_TYPE", 1, np.array([5], dtype=np.int32))
    with edit(path / "DATA_DESCRIPTION") as sub:
        sub.putcell("POLARIZATION_ID", 1, 1)
    assert "spectral window 0 appears with several sets of correlations" in refusal(path)


def test_phase_centres_in_a_frame_that_moves_are_refused(make_ms, edit):
    path = make_ms()
    with edit(path / "FIELD") as sub:
        info = sub.getcolkeyword("PHASE_DIR", "MEASINFO")
        sub.putcolkeyword("PHASE_DIR", "MEASINFO", info | {"Ref": "AZELGEO"})
    assert "/FIELD: phase centres are in AZELGEO, which cannot be converted" in refusal(path)


def test_frames_row_by_row(make_ms, edit):
    path = make_ms()
    with edit(path / "FIELD") as sub:
        sub.addcols({"PhaseDir_Ref": sub.getcoldesc("SOURCE_ID") | {"dataManagerGroup": "ref"}})
        codes = {"TabRefTypes": ["J2000", "B1950", "ICRS"], "TabRefCodes": np.array([0, 3, 21])}
        sub.putcolkeyword("PHASE_DIR", "MEASINFO", {"type": "direction", "VarRefCol": "PhaseDir_Ref"} | codes)
        sub.putcol("PhaseDir_Ref", np.array([0, 21, 0], dtype=np.int32))
    open_measurement_set(path)
    with edit(path / "FIELD") as sub:
        sub.putcell("PhaseDir_Ref", 1, 3)
    opened = open_measurement_set(path)
    assert opened.frames == ("B1950",)
    assert abs(opened.field(1).ra_rad - 1.2) > 0.005
    assert (opened.field(0).ra_rad, opened.field(2).ra_rad) == (1.0, 1.0)


@pytest.mark.parametrize(
    "cell",
    [np.array([[1.5], [0.25]]), np.array([[1.5, 0.25], [0.0, 0.0]]), np.array([[1.5 - 2 * np.pi, 0.25]])],
)
def test_phase_directions_of_any_shape(make_ms, edit, cell):
    path = make_ms()
    with edit(path / "FIELD") as sub:
        sub.putcell("PHASE_DIR", 0, cell)
    field = open_measurement_set(path).field(0)
    assert (field.ra_rad, field.dec_rad) == pytest.approx((1.5, 0.25))


@pytest.mark.parametrize(
    ("field", "ids"),
    [("one", (0,)), ("1", (1,)), ("two", (1,)), ("one,same", (0, 2)), (" 0 , 2 ", (0, 2)), ("0,0,one", (0,))],
)
def test_fields_by_name_and_number(make_ms, field, ids):
    assert open_measurement_set(make_ms()).select(field).field_ids == ids


@pytest.mark.parametrize("field", ["three", "9", "-1", "one,", "²", "1.0"])
def test_fields_that_are_not_there(make_ms, field):
    with pytest.raises(SelectionError, match=r"present: 0=one, 1=two, 2=same$"):
        open_measurement_set(make_ms()).select(field)


def test_a_field_whose_name_is_a_number_goes_before_the_number(make_ms, edit):
    path = make_ms()
    with edit(path / "FIELD") as sub:
        sub.putcell("NAME", 2, "1")
    assert open_measurement_set(path).select("1").field_ids == (2,)


@pytest.mark.parametrize(
    ("spw", "ids"),
    [
        (None, (0, 1, 2)),
        ("", (0, 1, 2)),
        ("1", (1,)),
        ("0~2", (0, 1, 2)),
        ("2,0", (2, 0)),
        ("1,0~1,1", (1, 0)),
    ],
)
def test_spectral_windows(make_ms, spw, ids):
    assert open_measurement_set(make_ms(channels=(2, 2, 2), dumps=1)).select("0", spw).spw_ids == ids


@pytest.mark.parametrize(
    "spw", ["3", "0~3", "1~0", "-1", "a", "0~", "~1", "0:5", "²", "0~99999999999999", "0,,1"]
)
def test_spectral_windows_that_are_not_there(make_ms, spw):
    with pytest.raises(SelectionError) as caught:
        open_measurement_set(make_ms(channels=(2, 2, 2), dumps=1)).select("0", spw)
    assert "present: 0, 1, 2" in str(caught.value) or "0~3" in str(caught.value)


def test_read_only_is_told_by_the_mode_even_to_root(make_ms):
    path = make_ms()
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")}
    ms = open_measurement_set(path)
    ms.require_writable()
    (path / "table.dat").chmod(0o444)
    with pytest.raises(ResourceError, match="read-only"):
        open_measurement_set(path).require_writable()
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")} == before


def test_hash_sees_one_bit_and_only_data(make_ms, edit):
    path = make_ms(channels=(3, 5), order="interleaved")
    first = data_hash(path)
    with edit(path) as main:
        main.putcell("FLAG", 0, ~main.getcell("FLAG", 0))
    assert data_hash(path) == first
    with edit(path) as main:
        cell = main.getcell("DATA", 40)
        cell.view(np.uint32)[1, 1] ^= 1
        main.putcell("DATA", 40, cell)
    assert data_hash(path) != first


def hold_lock(path, held, done):
    with table(str(path), readonly=False, ack=False, lockoptions="user") as main:
        main.lock()
        held.set()
        done.wait(60)


@pytest.mark.parametrize("writable", [False, True])
def test_a_table_locked_by_another_program_is_waited_for_but_not_for_ever(make_ms, monkeypatch, writable):
    monkeypatch.setattr(tables, "LOCK_WAIT_S", 1)
    path = make_ms()
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold_lock, args=(path, held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(ResourceError, match="another program is writing"):
            open_table(path, writable=writable)
    finally:
        done.set()
        other.join()
    open_table(path, writable=writable).close()


def add_rows(path):
    with table(str(path), readonly=False, ack=False) as main:
        main.addrows(7)


def test_rows_added_by_another_program_are_seen(make_ms):
    path = make_ms()
    assert open_measurement_set(path).n_rows == 45
    other = multiprocessing.get_context("spawn").Process(target=add_rows, args=(path,))
    other.start()
    other.join()
    assert open_measurement_set(path).n_rows == 52


def read_as_another(path, queue):
    if os.getuid() == 0:  # who may write whatever the mode says
        os.setuid(65534)
    queue.put(open_measurement_set(path).n_rows)


@pytest.mark.parametrize("lock_file", [True, False])
def test_somebody_elses_read_only_data_are_read(make_ms, lock_file):
    path = make_ms()
    for folder in path.parents:
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    if not lock_file:
        (path / "table.lock").unlink()
    for p in [path, *path.rglob("*")]:
        p.chmod(0o555 if p.is_dir() else 0o444)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    other = context.Process(target=read_as_another, args=(path, queue))
    other.start()
    assert queue.get(timeout=60) == 45
    other.join()


def test_an_unreadable_folder_is_one_line(make_ms, monkeypatch):
    path = make_ms()

    def denied(*_):
        raise PermissionError("permission denied")

    monkeypatch.setattr(measurement_set, "mend_removals", denied)
    assert "cannot be opened (permission denied)" in refusal(path)
    assert os.access(path, os.R_OK)
