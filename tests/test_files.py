"""Products are replaced whole or not at all, whatever ends the writing."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.table import Table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from dsa110_contimg import files
from dsa110_contimg.files import (
    remove_leftovers,
    replacing,
    replacing_folder,
    save_figure,
    write_json,
    write_table,
    write_text,
)

#: Begin to write a product, say so, and wait for the end of standard input.
BEGIN = """
import sys
from dsa110_contimg import files
with files.{writer}({path!r}) as temporary:
    if {writer!r} == "replacing":
        temporary.write_text("half of the ne")
    else:
        temporary.mkdir()
        (temporary / "table.dat").write_text("half of the ne")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def begin(path: Path, writer: str = "replacing") -> tuple[subprocess.Popen[str], Path]:
    """Start a process that is in the middle of writing; return it and the name it writes to."""
    code = BEGIN.format(writer=writer, path=str(path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def fill(folder: Path, text: str) -> None:
    (folder / "ANTENNA").mkdir(parents=True)
    (folder / "table.dat").write_text(text)
    (folder / "ANTENNA" / "table.dat").write_text(text)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_new_file_comes_whole_and_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        assert not temporary.exists()
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_old_file_stays_when_the_writer_raises(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert not names(tmp_path)


def test_a_kill_leaves_the_old_file_and_the_next_write_tidies_up(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    process, temporary = begin(path)
    assert temporary.read_text() == "half of the ne"
    kill(process)
    assert path.read_text() == "old"
    assert temporary.exists()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == {"a.txt"}


def test_what_a_living_process_writes_stays_and_is_put_into_place(tmp_path):
    path = tmp_path / "a.txt"
    process, temporary = begin(path)
    write_text(path, "ours")
    assert temporary.exists()
    process.communicate("")
    assert process.returncode == 0
    assert path.read_text() == "half of the ne"
    assert names(tmp_path) == {"a.txt"}


def test_a_process_that_ended_unreaped_lives_no_more(tmp_path):
    path = tmp_path / "a.txt"
    process, temporary = begin(path)
    process.send_signal(signal.SIGKILL)
    # Wait for its end without taking its status: it stays a zombie.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    remove_leftovers(path)
    assert not temporary.exists()
    process.communicate()


def test_leftovers_of_an_earlier_process_with_our_number_go(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
        machine, pid, start, number = temporary.name.split(".")[3].split("-")
    leftover = tmp_path / f".a.txt.{machine}-{pid}-{int(start) - 1}-{number}.tmp"
    leftover.touch()
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == {"a.txt"}


def test_leftovers_of_other_machines_stay_for_a_day(tmp_path):
    fresh, stale = (tmp_path / f".a.txt.00000000-1-2-{k}.tmp" for k in (1, 2))
    for path, age_s in ((fresh, 0.9), (stale, 1.1)):
        path.touch()
        os.utime(path, (0, time.time() - age_s * files.FOREIGN_LEFTOVER_S))
    remove_leftovers(tmp_path / "a.txt")
    assert names(tmp_path) == {fresh.name}


def test_leftovers_of_other_products_and_other_hidden_files_stay(tmp_path):
    machine = files._machine()
    others = {
        f".b.txt.{machine}-0-1-1.tmp",
        f".aatxt.{machine}-0-1-1.tmp",
        f".a.txt.{machine}-0-1.tmp",
        ".a.txt.tmp",
        f"a.txt.{machine}-0-1-1.tmp",
        ".a.txt.swp",
    }
    for name in others:
        (tmp_path / name).touch()
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == {"a.txt", *others}


def test_threads_do_not_meet(tmp_path):
    path, wrong = tmp_path / "a.json", []

    def write(number: int) -> None:
        try:
            for _ in range(30):
                write_json(path, {"number": number, "filling": "x" * 5000})
                json.loads(path.read_text())
        except Exception as error:  # told below, in the main thread
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert names(tmp_path) == {"a.json"}


def test_a_disk_that_fails_at_the_sync_is_an_error_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_folder_that_fails_at_the_sync_is_an_error_unless_it_knows_none(tmp_path, monkeypatch):
    fsync, failing = os.fsync, errno.EIO

    def of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(failing, os.strerror(failing))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", of_files)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "a.txt", "new")
    failing = errno.EINVAL
    write_text(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "newer"


def test_a_full_disk_leaves_the_old_file(small_disk, tmp_path):
    disk = small_disk(1)
    write_text(disk / "a.txt", "old")
    with pytest.raises(OSError, match="No space left"):
        write_text(disk / "a.txt", "x" * 3_000_000)
    assert (disk / "a.txt").read_text() == "old"
    assert names(disk) == {"a.txt"}


def test_the_file_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, Path.replace

    def log_sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def log_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr("os.fsync", log_sync)
    monkeypatch.setattr(Path, "replace", log_rename)
    write_text(tmp_path / "a.txt", "new")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "opened").open("w").close()
        write_text(tmp_path / "a.txt", "new")
        (tmp_path / "a.txt").chmod(0o400)
        write_text(tmp_path / "a.txt", "newer")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "opened").stat().st_mode


def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "elsewhere" / "precious")
    (tmp_path / "out" / "b.txt").symlink_to(tmp_path / "gone")
    for name in ("a.txt", "b.txt"):
        write_text(tmp_path / "out" / name, "new")
        assert not (tmp_path / "out" / name).is_symlink()
        assert (tmp_path / "out" / name).read_text() == "new"
    assert (tmp_path / "elsewhere" / "precious").read_text() == "precious"
    assert names(tmp_path / "elsewhere") == {"precious"}
    assert not (tmp_path / "gone").exists()


def test_a_linked_folder_holds_the_file(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link" / "a.txt", "new")
    assert names(tmp_path / "real") == {"a.txt"}
    assert (tmp_path / "link").is_symlink()


def test_a_relative_name_holds_though_the_folder_is_left_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with replacing("a.txt") as temporary:
        monkeypatch.chdir(tmp_path / "other")
        temporary.write_text("new")
    assert names(tmp_path) == {"a.txt", "other"}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_text(tmp_path / "nowhere" / "a.txt", "new")


def test_endings_are_kept_for_writers_that_go_by_them_alone(tmp_path):
    for name, ending in {"a.fits": ".fits", "a.b.png": ".png", "a.prom": ".tmp", "a": ".tmp"}.items():
        with replacing(tmp_path / name) as temporary:
            assert temporary.suffix == ending
            assert temporary.name.startswith(f".{name}.")
            temporary.touch()
    with replacing_folder(tmp_path / "a.ms") as temporary:
        assert temporary.suffix == ".tmp"
        temporary.mkdir()


def test_leftovers_with_an_ending_go(tmp_path):
    process, temporary = begin(tmp_path / "a.fits")
    assert temporary.name.endswith(".tmp.fits")
    kill(process)
    with replacing(tmp_path / "a.fits") as path:
        fits.PrimaryHDU().writeto(path)
    assert names(tmp_path) == {"a.fits"}


def test_a_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "a.gcal"
    for text in ("old", "new"):
        with replacing_folder(path) as temporary:
            fill(temporary, text)
        assert (path / "ANTENNA" / "table.dat").read_text() == text
        assert names(tmp_path) == {"a.gcal"}


def test_the_old_folder_stays_when_the_writer_raises(tmp_path):
    fill(tmp_path / "a.gcal", "old")

    def write():
        with replacing_folder(tmp_path / "a.gcal") as temporary:
            fill(temporary, "new")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write()
    assert (tmp_path / "a.gcal" / "table.dat").read_text() == "old"
    assert names(tmp_path) == {"a.gcal"}


def test_the_old_folder_stays_when_the_disk_fails(tmp_path, monkeypatch):
    fill(tmp_path / "a.gcal", "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing_folder(tmp_path / "a.gcal") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "a.gcal" / "table.dat").read_text() == "old"
    assert names(tmp_path) == {"a.gcal"}


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    fill(tmp_path / "a.gcal", "old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OSError, match="Input/output error"),
        replacing_folder(tmp_path / "a.gcal") as temporary,
    ):
        fill(temporary, "new")
    assert (tmp_path / "a.gcal" / "table.dat").read_text() == "old"
    assert names(tmp_path) == {"a.gcal"}


def test_a_kill_while_a_folder_is_written_leaves_the_old_one(tmp_path):
    fill(tmp_path / "a.gcal", "old")
    process, temporary = begin(tmp_path / "a.gcal", "replacing_folder")
    kill(process)
    assert (tmp_path / "a.gcal" / "table.dat").read_text() == "old"
    assert temporary.is_dir()
    with replacing_folder(tmp_path / "a.gcal") as new:
        fill(new, "new")
    assert names(tmp_path) == {"a.gcal"}


def test_a_kill_between_the_renames_of_a_folder_is_undone_by_the_next_write(tmp_path):
    path = tmp_path / "a.gcal"
    fill(path, "old")
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom dsa110_contimg.files import replacing_folder\n"
        "rename = Path.rename\n"
        "def moved(path, target):\n    rename(path, target)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.rename = moved\n"
        f"with replacing_folder({str(path)!r}) as temporary:\n    temporary.mkdir()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not path.exists()
    remove_leftovers(path)
    assert (path / "table.dat").read_text() == "old"
    assert names(tmp_path) == {"a.gcal"}


def test_a_folder_that_is_a_link_is_replaced_and_what_it_leads_to_is_not_touched(tmp_path):
    fill(tmp_path / "elsewhere", "precious")
    (tmp_path / "a.gcal").symlink_to("elsewhere")
    with replacing_folder(tmp_path / "a.gcal") as temporary:
        fill(temporary, "new")
    assert not (tmp_path / "a.gcal").is_symlink()
    assert (tmp_path / "elsewhere" / "table.dat").read_text() == "precious"
    assert names(tmp_path) == {"a.gcal", "elsewhere"}


def test_every_file_of_a_folder_is_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with replacing_folder(tmp_path / "a.gcal") as temporary:
        fill(temporary, "new")
    path = tmp_path / "a.gcal"
    assert set(synced) == {p.stat().st_ino for p in (tmp_path, path, *path.rglob("*"))}


def test_json_comes_back(tmp_path):
    values = {"flux": 1.5, "names": ["a", "µ"], "none": None}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == values
    assert text.startswith('{\n  "flux"')
    assert text.endswith("}\n")


def test_what_json_cannot_hold_is_an_error_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    for wrong in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", {"a": wrong})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("delimiter", [" ", ","])
def test_a_table_comes_back(tmp_path, delimiter):
    table = Table({"name": ["a b", "c,d"], "flux_jy": [1.25, 1 / 3]}, meta={"coverage": {"dec_min": 1.0}})
    for _ in range(2):
        write_table(tmp_path / "a.ecsv", table, delimiter)
    back = Table.read(tmp_path / "a.ecsv", format="ascii.ecsv")
    assert back["name"].tolist() == ["a b", "c,d"]
    assert back["flux_jy"].tolist() == [1.25, 1 / 3]
    assert back.meta["coverage"] == {"dec_min": 1.0}


def test_a_figure_is_saved_in_the_form_asked_for(tmp_path):
    figure = Figure(figsize=(2, 1))
    FigureCanvasAgg(figure)
    for name in ("a.png", "a.picture"):
        save_figure(tmp_path / name, figure, dpi=50)
        with (tmp_path / name).open("rb") as stream:
            assert imread(stream, format="png").shape == (50, 100, 4)
    save_figure(tmp_path / "a.pdf", figure, dpi=50, form="pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="docx"):
        save_figure(tmp_path / "a.docx", figure, dpi=50, form="docx")
    assert names(tmp_path) == {"a.png", "a.picture", "a.pdf"}
