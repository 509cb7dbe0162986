"""A drift scan moved to one phase centre."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set, rephase_measurement_set
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table
from tests.arrays import COMPACT


@pytest.fixture(scope="module")
def drifts(tmp_path_factory):
    """The same noiseless transit with a field per dump, and about one centre."""
    folder = tmp_path_factory.mktemp("drift")
    options = {"array": COMPACT, "antennas": 10, "channels": 3, "dumps": 5, "sefd_jy": 0.0, "min_mjy": 100.0}
    for fields in (24, 1):
        simulate(folder / f"f{fields}.ms", SimulationConfig(fields=fields, drift=True, **options))
    return folder


def test_it_is_the_observation_about_one_centre(drifts, tmp_path):
    one = open_measurement_set(drifts / "f1.ms")
    before = data_hash(drifts / "f24.ms")
    centre = (one.fields[0].ra_rad, one.fields[0].dec_rad)
    rephase_measurement_set(drifts / "f24.ms", tmp_path / "r.ms", centre)
    moved = open_measurement_set(tmp_path / "r.ms")
    assert [(f.ra_rad, f.dec_rad) for f in moved.fields] == [pytest.approx(centre)]
    with open_table(tmp_path / "r.ms") as ours, open_table(drifts / "f1.ms") as theirs:
        np.testing.assert_allclose(ours.getcol("UVW"), theirs.getcol("UVW"), atol=0.1)
        data = theirs.getcol("DATA")
        # What differs is that aberration stretches the sky: 0.1 arcsec over this drift of half a degree.
        np.testing.assert_allclose(ours.getcol("DATA"), data, atol=0.01 * np.abs(data).max())
        assert (ours.getcol("FIELD_ID") == 0).all()
    with open_table(tmp_path / "r.ms" / "FIELD") as field:
        np.testing.assert_array_equal(field.getcell("PHASE_DIR", 0), field.getcell("REFERENCE_DIR", 0))
    assert data_hash(drifts / "f24.ms") == before


def test_it_remembers_where_the_dishes_pointed(drifts, tmp_path):
    rephase_measurement_set(drifts / "f24.ms", tmp_path / "r.ms")
    pointing = []
    for path in (drifts / "f24.ms", tmp_path / "r.ms"):
        ms = open_measurement_set(path)
        pointing.append(VisibilityReader(ms, ms.select()).pointing)
    np.testing.assert_allclose(pointing[0], pointing[1], atol=1e-9)
    assert np.ptp(pointing[0][:, 0]) > 0


def test_it_never_overwrites(drifts, tmp_path):
    (tmp_path / "r.ms").mkdir()
    with pytest.raises(ResourceError):
        rephase_measurement_set(drifts / "f24.ms", tmp_path / "r.ms")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_some_fields_and_one_column(drifts, tmp_path):
    """For programs that image DATA alone: fields 1 and 2, CORRECTED_DATA under the name of DATA."""
    source = Path(shutil.copytree(drifts / "f24.ms", tmp_path / "s.ms"))
    with open_table(source, writable=True) as main:
        main.addcols({"CORRECTED_DATA": main.getcoldesc("DATA") | {"dataManagerGroup": "C"}})
        main.putcol("CORRECTED_DATA", 2 * main.getcol("DATA"))
    whole = rephase_measurement_set(source, tmp_path / "whole.ms")
    rephase_measurement_set(source, tmp_path / "r.ms", whole, field_ids=[1, 2], column="CORRECTED_DATA")
    with open_table(tmp_path / "whole.ms") as all_rows, open_table(source) as main:
        chosen = np.isin(main.getcol("FIELD_ID"), [1, 2])
        expected = {n: all_rows.getcol(n)[chosen] for n in ("DATA", "UVW", "TIME", "WEIGHT")}
    with open_table(tmp_path / "r.ms") as ours:
        assert "CORRECTED_DATA" not in ours.colnames()
        np.testing.assert_allclose(ours.getcol("DATA"), 2 * expected.pop("DATA"), rtol=1e-6)
        for name, values in expected.items():
            np.testing.assert_array_equal(ours.getcol(name), values)
    moved = open_measurement_set(tmp_path / "r.ms")
    assert len(moved.fields) == 1
    assert (moved.fields[0].ra_rad, moved.fields[0].dec_rad) == pytest.approx(whole)
