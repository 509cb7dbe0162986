"""The folder that WSClean works in, and the Measurement Set that it must leave alone."""

import os

import pytest

from dsa110_contimg.errors import WSCleanError
from dsa110_contimg.imaging.wsclean.clean import unchanged, working_folder


def test_working_folder_goes_whatever_happens(tmp_path):
    dead = tmp_path / ".i.wsclean.4194304"
    dead.mkdir()
    alive = tmp_path / f".i.wsclean.{os.getppid()}"
    alive.mkdir()
    with pytest.raises(OSError, match="none"), working_folder(tmp_path / "i") as folder:
        (folder / "none" / "f").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [alive.name]


def test_a_changed_measurement_set_is_told(tmp_path):
    (tmp_path / "table.dat").write_text("a")
    with unchanged(tmp_path):
        (tmp_path / "table.lock").write_text("b")
    with pytest.raises(WSCleanError, match=r"1 files .* changed .*table\.dat"), unchanged(tmp_path):
        (tmp_path / "table.dat").write_text("changed")
    with pytest.raises(WSCleanError, match=r"1 files .* changed .*new"), unchanged(tmp_path):
        (tmp_path / "new").write_text("x")
