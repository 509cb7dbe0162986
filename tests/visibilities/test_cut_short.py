"""A Measurement Set whose files are cut short or missing is told in one line, before any work."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set, rephase_measurement_set
from dsa110_contimg.visibilities.tables import open_table
from tests.arrays import COMPACT

TABLES = (
    "",
    "ANTENNA",
    "DATA_DESCRIPTION",
    "FIELD",
    "HISTORY",
    "OBSERVATION",
    "POINTING",
    "POLARIZATION",
    "SPECTRAL_WINDOW",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.ms"
    options = {"array": COMPACT, "antennas": 8, "spws": 2, "channels": 4, "dumps": 3}
    simulate(path, SimulationConfig(**options))
    return path


@pytest.fixture
def broken(whole, tmp_path):
    """Copy the observation and cut one of its files to a part; nothing of it: it is removed."""

    def make(file: str, part: float) -> Path:
        path = tmp_path / "broken.ms"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole, path)
        if part:
            os.truncate(path / file, int((path / file).stat().st_size * part))
        else:
            (path / file).unlink()
        return path

    return make


def storage_files(path: Path) -> list[str]:
    return sorted(f.name for f in path.glob("table.f*") if f.stat().st_size)


def read(path: Path) -> VisibilityReader:
    ms = open_measurement_set(path)
    return VisibilityReader(ms, ms.select())


def said(action: Callable[[], object]) -> str:
    """What an action is refused with; empty if it is not."""
    try:
        action()
    except MeasurementSetError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("name", TABLES)
def test_each_file_that_is_cut_short_is_one_line(whole, broken, tmp_path, name, part):
    unread = 0
    for file in storage_files(whole / name):
        path = broken(str(Path(name) / file), part)
        text = said(lambda path=path: read(path))
        if text:
            unread += 1
            assert f"broken.ms/{name}".rstrip("/") + ": cannot be" in text
            assert "copy it again" in text
            assert "\n" not in text
        # A copy needs all columns, and its error is never one of writing.
        text = said(lambda path=path: rephase_measurement_set(path, tmp_path / "copy.ms"))
        assert "cannot be" in text or not text
        assert (tmp_path / "copy.ms").exists() == (not text)
        shutil.rmtree(tmp_path / "copy.ms", ignore_errors=True)
    # Little of HISTORY is read; of the others there may be room to spare at the end of a file.
    assert unread or name == "HISTORY" or part == 0.9


@pytest.mark.parametrize("column", ["DATA", "FLAG", "WEIGHT_SPECTRUM"])
def test_a_column_that_lacks_its_end_is_named_before_any_is_read(whole, broken, column):
    with open_table(whole) as opened:
        managers = opened.getdminfo().values()
        (number,) = (m["SEQNR"] for m in managers if column in m["COLUMNS"])
    file = sorted(f for f in storage_files(whole) if f.startswith(f"table.f{number}"))[-1]
    with pytest.raises(MeasurementSetError, match=rf"broken.ms: cannot be read \({column} in row \d+: "):
        read(broken(file, 0.5))


@pytest.mark.parametrize("words", [["image", "--name", "x"], ["rephase", "x.ms"], ["selfcal", "x"]])
def test_a_command_ends_as_with_bad_input(broken, capfd, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    path = broken("POINTING/table.f1", 0.5)
    assert main([words[0], str(path), *words[1:]]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"error: {path}/POINTING: cannot be read" in line
