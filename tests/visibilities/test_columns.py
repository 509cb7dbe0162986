"""Result columns: new or old but never a mix, and what was found always comes back."""

import faulthandler
import os
import shutil
import warnings
from pathlib import Path

import casacore.tables
import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.errors import MeasurementSetError, ResourceError
from dsa110_contimg.visibilities import (
    ColumnStage,
    add_flags,
    back_up_columns,
    columns,
    open_measurement_set,
    recover_columns,
    restore_columns,
)
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table

NAMES = ("MODEL_DATA", "CORRECTED_DATA")


def snapshot(path):
    """Every complex column and FLAG, cell by cell, bit by bit."""
    with table(str(path), ack=False) as main:
        return {
            name: tuple(
                main.getcell(name, r).tobytes() if main.iscelldefined(name, r) else None
                for r in range(main.nrows())
            )
            for name in main.colnames()
            if name.endswith("DATA") or name == "FLAG"
        }


def contents(path, name):
    with table(str(path), ack=False) as main:
        return [main.getcell(name, r) for r in range(main.nrows())]


def write(path, value, names=NAMES, rows=None):
    """Commit columns of one value in some rows."""
    ms = open_measurement_set(path)
    rows = np.arange(ms.n_rows) if rows is None else np.asarray(rows)
    shape = [cell.shape for cell in contents(path, "DATA")]
    with ColumnStage(ms, names) as stage:
        for name in names:
            for r in rows:
                stage.put(name, np.array([r]), np.full((1, *shape[r]), value, np.complex64))
        stage.fill_rest(rows)
        stage.commit()


def holds(path, name, value):
    return all((cell == value).all() for cell in contents(path, name))


@pytest.mark.parametrize("existing", [(), NAMES, ("MODEL_DATA",)])
@pytest.mark.parametrize("order", ["spw", "interleaved"])
def test_write_again_and_restore(make_ms, existing, order):
    path = make_ms(channels=(3, 5), order=order, columns=existing)
    before, digest = snapshot(path), data_hash(path)
    for value in (1 + 2j, 3j, 4):
        write(path, value)
        assert data_hash(path) == digest
        assert holds(path, "MODEL_DATA", value)
        assert holds(path, "CORRECTED_DATA", value)
        assert set(snapshot(path)) == {"DATA", "FLAG", *NAMES} | {f"CONTIMG_OLD_{n}" for n in existing}
    restored = restore_columns(open_measurement_set(path))
    assert sorted(restored) == sorted(NAMES)
    assert snapshot(path) == before
    assert restore_columns(open_measurement_set(path)) == []
    with table(str(path), ack=False) as main:
        assert not [k for k in main.keywordnames() if "CONTIMG" in k]


def test_trap_11_restore_one_column_of_two(make_ms):
    path = make_ms(columns=("CORRECTED_DATA",))
    before = snapshot(path)
    write(path, 1)
    assert restore_columns(open_measurement_set(path), ["CORRECTED_DATA", "UNKNOWN"]) == ["CORRECTED_DATA"]
    assert snapshot(path)["CORRECTED_DATA"] == before["CORRECTED_DATA"]
    assert holds(path, "MODEL_DATA", 1)
    assert restore_columns(open_measurement_set(path)) == ["MODEL_DATA"]
    assert snapshot(path) == before


def test_rows_left_alone_keep_their_values(make_ms):
    path = make_ms(channels=(3, 5), columns=("CORRECTED_DATA",), fields=(0, 1))
    before = snapshot(path)
    chosen = [0, 1, 2, 10, 50, 51]
    write(path, 7, rows=chosen)
    after = snapshot(path)
    model, corrected = contents(path, "MODEL_DATA"), contents(path, "CORRECTED_DATA")
    for r in range(len(before["DATA"])):
        if r in chosen:
            assert (model[r] == 7).all()
            assert (corrected[r] == 7).all()
        else:
            assert after["CORRECTED_DATA"][r] == before["CORRECTED_DATA"][r]
            assert not model[r].any()
    write(path, 8, rows=[3])
    assert (contents(path, "MODEL_DATA")[0] == 7).all()


def test_kept_flags_that_cannot_be_read_are_not_put_back(make_ms):
    path = make_ms()
    ms = open_measurement_set(path)
    back_up_columns(ms, ["FLAG"])
    before = contents(path, "FLAG")
    with open_table(path) as main:
        (number,) = (m["SEQNR"] for m in main.getdminfo().values() if "CONTIMG_OLD_FLAG" in m["COLUMNS"])
    for file in path.glob(f"table.f{number}_TSM*"):
        os.truncate(file, 0)
    with pytest.raises(MeasurementSetError, match="cannot be read"):
        restore_columns(ms)
    np.testing.assert_array_equal(contents(path, "FLAG"), before)


def test_without_a_column_corrected_starts_as_data_and_model_as_zero(make_ms):
    path = make_ms()
    write(path, 7, rows=[0])
    assert snapshot(path)["CORRECTED_DATA"][1:] == snapshot(path)["DATA"][1:]
    assert not np.array(contents(path, "MODEL_DATA")[1:]).any()


def test_undefined_cells_stay_undefined(make_ms, edit):
    path = make_ms()
    with edit(path) as main:
        description = main.getcoldesc("DATA") | {"dataManagerGroup": "later"}
        main.addcols({"CORRECTED_DATA": description})
        main.putcell("CORRECTED_DATA", 4, np.ones((4, 2), dtype=np.complex64))
    before = snapshot(path)
    write(path, 7, rows=[0, 1])
    assert snapshot(path)["CORRECTED_DATA"][2:] == before["CORRECTED_DATA"][2:]
    restore_columns(open_measurement_set(path))
    assert snapshot(path) == before


def test_new_columns_are_tiled(make_ms):
    path = make_ms(channels=(3, 100))
    write(path, 1)
    with table(str(path), ack=False) as main:
        managers = {m["COLUMNS"][0]: m for m in main.getdminfo().values() if len(m["COLUMNS"]) == 1}
    for name in NAMES:
        assert managers[name]["TYPE"] == "TiledShapeStMan"
        assert int(np.prod(managers[name]["SPEC"]["DEFAULTTILESHAPE"])) * 8 <= 1 << 20


def test_rows_in_any_pattern_are_put(make_ms):
    path = make_ms(autos=False, dumps=1)
    ms = open_measurement_set(path)
    with ColumnStage(ms, ["MODEL_DATA"]) as stage:
        values = np.arange(4 * 8).reshape(4, 4, 2).astype(np.complex64)
        stage.put("MODEL_DATA", np.array([1, 4, 5, 9]), values)
        stage.put("MODEL_DATA", np.array([], dtype=int), values[:0])
        stage.fill_rest(np.array([1, 4, 5, 9]))
        stage.commit()
    np.testing.assert_array_equal(np.array(contents(path, "MODEL_DATA"))[[1, 4, 5, 9]], values)


@pytest.mark.parametrize("name", ["DATA", "UVW", "WEIGHT", "TIME"])
def test_the_observation_itself_cannot_be_written(make_ms, name):
    ms = open_measurement_set(make_ms())
    with pytest.raises(ValueError, match=f"{name} must not be written"):
        ColumnStage(ms, ["MODEL_DATA", name])
    with pytest.raises(ValueError, match=f"{name} is never changed"):
        back_up_columns(ms, ["FLAG", name])
    assert "CONTIMG_OLD_FLAG" not in open_measurement_set(ms.path).columns


@pytest.mark.parametrize("existing", [(), NAMES])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_leaving_with_an_exception_changes_nothing(make_ms, existing, kind):
    path = make_ms(columns=existing)
    before = snapshot(path)

    def leave_early():
        with ColumnStage(open_measurement_set(path), NAMES) as stage:
            stage.fill_rest(np.array([], dtype=int))
            raise kind

    with pytest.raises(kind):
        leave_early()
    assert snapshot(path) == before
    with ColumnStage(open_measurement_set(path), NAMES):
        pass
    assert snapshot(path) == before


def test_read_only_is_refused_before_anything_is_done(make_ms):
    path = make_ms()
    (path / "table.dat").chmod(0o444)
    files = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    ms = open_measurement_set(path)
    for act in (
        lambda: ColumnStage(ms, NAMES).__enter__(),
        lambda: back_up_columns(ms, ["FLAG"]),
        lambda: restore_columns(ms),
    ):
        with pytest.raises(ResourceError, match="read-only"):
            act()
    recover_columns(ms)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("channels", [(4,), (3, 5)])
def test_trap_12_flags_are_kept_and_come_back(make_ms, edit, channels):
    path = make_ms(channels=channels)
    before = snapshot(path)
    for _ in range(2):
        back_up_columns(open_measurement_set(path), ["FLAG"])
        with edit(path) as main:
            for r in range(main.nrows()):
                main.putcell("FLAG", r, np.ones_like(main.getcell("FLAG", r)))
    assert restore_columns(open_measurement_set(path)) == ["FLAG"]
    assert snapshot(path) == before


def test_a_column_that_was_absent_at_back_up_is_gone_after_restoring(make_ms, edit):
    path = make_ms()
    before = snapshot(path)
    back_up_columns(open_measurement_set(path), ["MODEL_DATA", "FLAG"])
    with edit(path) as main:
        main.addcols({"MODEL_DATA": main.getcoldesc("DATA") | {"dataManagerGroup": "imager"}})
    assert sorted(restore_columns(open_measurement_set(path))) == ["FLAG", "MODEL_DATA"]
    assert snapshot(path) == before


def run_in_child(job) -> int:
    """Run a job in a process of its own and return its exit status, negative for a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        faulthandler.disable()
        job()
        status = 0
    except KeyboardInterrupt:
        status = 9
    finally:
        os._exit(status)


def run_until(step, mode, job, monkeypatch):
    """Run a job in a child that dies, or is interrupted, at one operation; tell whether it came that far.

    Each operation that changes a table counts twice: before it, and after it.
    """
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count == step:
            if mode == "kill":
                os._exit(9)
            raise KeyboardInterrupt

    def counted(method):
        def wrapper(*args, **options):
            tick()
            result = method(*args, **options)
            tick()
            return result

        return wrapper

    def counted_job():
        for name in ("addcols", "removecols", "renamecol", "putkeyword", "removekeyword", "flush", "putcol"):
            monkeypatch.setattr(casacore.tables.table, name, counted(getattr(casacore.tables.table, name)))
        job()

    return run_in_child(counted_job) == 9


@pytest.fixture(scope="module")
def templates(tmp_path_factory, write_ms):
    """Small Measurement Sets: as observed, with columns, and as a calibration left them."""
    folder = tmp_path_factory.mktemp("templates")
    for name, existing in (("bare", ()), ("filled", NAMES), ("mixed", ("CORRECTED_DATA",))):
        write_ms(folder / name, channels=(2,), dumps=1, autos=False, columns=existing)
        shutil.copytree(folder / name, folder / f"{name}-calibrated")
        write(folder / f"{name}-calibrated", 1)
    return folder


@pytest.mark.parametrize(
    ("start", "mode"),
    [
        ("bare", "kill"),
        ("filled", "kill"),
        ("mixed-calibrated", "kill"),
        ("mixed", "interrupt"),
        ("bare-calibrated", "interrupt"),
    ],
)
def test_trap_25_cut_short_at_any_step_it_is_the_old_or_the_new(
    templates, tmp_path, monkeypatch, start, mode
):
    original = snapshot(templates / start.removesuffix("-calibrated"))
    old = {n: v for n, v in snapshot(templates / start).items() if "CONTIMG" not in n}
    outcomes = []
    for step in range(1, 200):
        path = tmp_path / f"{step}.ms"
        shutil.copytree(templates / start, path)

        def job(path=path):
            ms = open_measurement_set(path)
            with ColumnStage(ms, NAMES) as stage:
                for name in NAMES:
                    stage.put(name, np.arange(10), np.full((10, 2, 2), 5, np.complex64))
                stage.commit()

        cut = run_until(step, mode, job, monkeypatch)
        recover_columns(open_measurement_set(path))
        now = {n: v for n, v in snapshot(path).items() if "CONTIMG_OLD" not in n}
        is_new = set(NAMES) <= set(now) and all(holds(path, n, 5) for n in NAMES)
        assert is_new or now == old, (step, sorted(now))
        assert now["DATA"] == original["DATA"]
        assert not list(path.glob(".contimg*"))
        outcomes.append(is_new)
        restore_columns(open_measurement_set(path))
        assert snapshot(path) == original, step
        shutil.rmtree(path)
        if not cut:
            break
    assert not cut
    # First always the old, then always the new, each at several steps.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) > 5
    assert outcomes.count(True) > 5


@pytest.mark.parametrize("start", ["filled-calibrated", "bare-calibrated"])
def test_trap_25_restoring_cut_short_at_any_step_can_be_repeated(templates, tmp_path, monkeypatch, start):
    original = snapshot(templates / start.removesuffix("-calibrated"))
    for step in range(1, 200):
        path = tmp_path / f"{step}.ms"
        shutil.copytree(templates / start, path)

        def job(path=path):
            ms = open_measurement_set(path)
            back_up_columns(ms, ["FLAG"])
            restore_columns(ms)

        cut = run_until(step, "kill", job, monkeypatch)
        restore_columns(open_measurement_set(path))
        assert snapshot(path) == original, step
        shutil.rmtree(path)
        if not cut:
            break
    assert not cut


def test_flagging_cut_short_at_any_step_is_undone_or_done(templates, tmp_path, monkeypatch):
    original = snapshot(templates / "bare")
    outcomes = set()
    for step in range(1, 200):
        path = tmp_path / f"{step}.ms"
        shutil.copytree(templates / "bare", path)

        def job(path=path):
            ms = open_measurement_set(path)
            shape = [cell.shape for cell in contents(path, "FLAG")]
            add_flags(ms, [(np.array([r]), np.ones((1, *shape[r]), bool)) for r in range(1, ms.n_rows)])

        cut = run_until(step, "kill", job, monkeypatch)
        recover_columns(open_measurement_set(path))
        now = snapshot(path)
        done = all(cell.all() for cell in contents(path, "FLAG")[1:])
        assert done or now["FLAG"] == original["FLAG"], step
        assert now["FLAG"][0] == original["FLAG"][0]
        outcomes.add(done)
        restore_columns(open_measurement_set(path))
        assert snapshot(path) == original, step
        shutil.rmtree(path)
        if not cut:
            break
    assert not cut
    assert outcomes == {False, True}


def test_trap_25_killed_between_the_table_and_its_lock_file(make_ms):
    """The lock file of the time before: what a kill between casacore's two writes leaves."""
    path = make_ms()
    before = snapshot(path)
    lock_file = (path / "table.lock").read_bytes()

    def job():
        write(path, 1)

    assert run_in_child(job) == 0
    (path / "table.lock").write_bytes(lock_file)
    assert open_measurement_set(path).n_rows == 45
    write(path, 2)
    assert holds(path, "MODEL_DATA", 2)
    restore_columns(open_measurement_set(path))
    assert snapshot(path) == before


def test_files_of_removed_columns_do_not_stay(make_ms):
    path = make_ms()
    before = {p.name for p in path.iterdir()}
    for value in (1, 2, 3):
        write(path, value)
    restore_columns(open_measurement_set(path))
    assert {p.name for p in path.iterdir()} == before


@pytest.fixture
def disk(small_disk):
    return small_disk(32)


def leave_free(disk: Path, n_bytes: int) -> None:
    (disk / "ballast").write_bytes(b"\0" * max(0, shutil.disk_usage(disk).free - n_bytes))


def test_a_full_disk_is_refused_in_one_line(templates, disk):
    path = disk / "obs.ms"
    shutil.copytree(templates / "filled", path)
    before = snapshot(path)
    leave_free(disk, 100_000)
    for act in (lambda ms: ColumnStage(ms, NAMES).__enter__(), lambda ms: back_up_columns(ms, ["FLAG"])):
        with pytest.raises(ResourceError, match=r"disk full: .* MB needed for .*, 0 MB free") as caught:
            act(open_measurement_set(path))
        assert "\n" not in str(caught.value)
    assert snapshot(path) == before


def test_a_disk_that_fills_up_while_writing_is_one_line(disk, monkeypatch, write_ms):
    path = write_ms(disk / "obs.ms", channels=(64,), dumps=600, autos=False)
    before = snapshot(path)
    monkeypatch.setattr(columns, "require_space", lambda *_: None)
    leave_free(disk, 4 << 20)

    def fill_the_disk():
        with ColumnStage(open_measurement_set(path), NAMES) as stage:
            stage.fill_rest(np.array([], dtype=int))

    with pytest.raises(ResourceError, match="writing MODEL_DATA failed") as caught:
        fill_the_disk()
    assert "\n" not in str(caught.value)
    assert snapshot(path) == before
    assert shutil.disk_usage(disk).free >= 3 << 20


def test_a_disk_that_fills_up_before_the_commit_is_refused(templates, disk):
    path = disk / "obs.ms"
    shutil.copytree(templates / "filled", path)
    before = snapshot(path)

    def fill_the_disk():
        with ColumnStage(open_measurement_set(path), NAMES) as stage:
            stage.fill_rest(np.array([], dtype=int))
            leave_free(disk, 100_000)
            stage.commit()

    with pytest.raises(ResourceError, match="disk full"):
        fill_the_disk()
    assert snapshot(path) == before


@pytest.mark.parametrize("start", ["bare", "filled-calibrated"])
def test_a_disk_that_is_full_at_any_moment_leaves_what_was_there(templates, disk, monkeypatch, start):
    """Casacore may end the whole process; what is on disk must still be the old or the new."""
    failed = 0
    for pages in (*range(0, 16), 20, 1500):
        path = disk / f"{pages}.ms"
        shutil.copytree(templates / start, path)
        before = snapshot(path)
        leave_free(disk, pages * 4096)

        def job(path=path):
            monkeypatch.setattr(columns, "require_space", lambda *_: None)
            with ColumnStage(open_measurement_set(path), NAMES) as stage:
                stage.fill_rest(np.array([], dtype=int))
                stage.commit()

        failed += run_in_child(job) != 0
        (disk / "ballast").unlink()
        recover_columns(open_measurement_set(path))
        after = snapshot(path)
        assert after["DATA"] == before["DATA"]
        if start == "bare":
            assert set(after) in (set(before), {*before, *NAMES}), pages
        else:
            # fill_rest writes what was there.
            assert {n: after[n] for n in NAMES} == {n: before[n] for n in NAMES}, pages
        restore_columns(open_measurement_set(path))
        assert snapshot(path) == snapshot(templates / start.removesuffix("-calibrated")), pages
        shutil.rmtree(path)
    assert 4 <= failed < 18
