import os
import shutil

import pytest

from dsa110_contimg.compare import pristine
from dsa110_contimg.compare.pristine import Snapshot, pristine_copy
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.visibilities import open_measurement_set
from dsa110_contimg.visibilities.measurement_set import data_hash


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_calibrating_a_copy_leaves_the_original_alone(tiny, config, tmp_path, monkeypatch):
    """With every storage manager's file hard-linked, no byte of the original changes."""
    monkeypatch.setattr(pristine, "BULK_BYTES", 0)
    original = tmp_path / "t.ms"
    shutil.copytree(tiny / "t.ms", original)
    seen, hashed = contents(original), data_hash(original)
    copied = pristine_copy(original, tmp_path / "copy.ms")
    assert copied < sum(map(len, seen.values())) / 2
    result = selfcal_ms(tmp_path / "copy.ms", tmp_path / "out", config)
    assert result.improved
    assert "CORRECTED_DATA" in open_measurement_set(tmp_path / "copy.ms").columns
    assert contents(original) == seen
    # A second run on columns that are there already.
    selfcal_ms(tmp_path / "copy.ms", tmp_path / "out", config)
    assert contents(original) == seen
    shutil.rmtree(tmp_path / "copy.ms")
    assert contents(original) == seen
    assert data_hash(original) == hashed


def test_a_column_of_an_earlier_run_stays_in_the_original(tiny, config, tmp_path, monkeypatch):
    monkeypatch.setattr(pristine, "BULK_BYTES", 0)
    original = tmp_path / "t.ms"
    shutil.copytree(tiny / "t.ms", original)
    selfcal_ms(original, tmp_path / "first", config)
    seen = contents(original)
    pristine_copy(original, tmp_path / "copy.ms")
    selfcal_ms(tmp_path / "copy.ms", tmp_path / "out", config.with_options(use_nvss_seeding=False))
    shutil.rmtree(tmp_path / "copy.ms")
    assert contents(original) == seen


def test_copies_where_nothing_can_be_linked(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    pristine_copy(tiny / "t.ms", tmp_path / "copy.ms")
    assert data_hash(tmp_path / "copy.ms") == data_hash(tiny / "t.ms")


def test_a_change_is_seen(tiny, tmp_path):
    ms = tmp_path / "t.ms"
    shutil.copytree(tiny / "t.ms", ms)
    snapshot = Snapshot(ms)
    snapshot.require_unchanged()
    (ms / "table.dat").touch()
    with pytest.raises(MeasurementSetError, match=r"was changed.*table\.dat"):
        snapshot.require_unchanged()
