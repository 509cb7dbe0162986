"""A drift scan whose times are stored in atomic time is the same drift scan."""

import shutil

import numpy as np
import pytest
from casacore.tables import default_ms_subtable, table

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.selfcal.array_findings import array_findings
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set, rephase_measurement_set
from dsa110_contimg.visibilities.time_scales import in_scale
from tests.selfcal.support import observe

COLUMNS = ("MODEL_DATA", "CORRECTED_DATA")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """One drift scan twice, without records of pointing: times in UTC, and in TAI."""
    folder = tmp_path_factory.mktemp("scales")
    ms, config = observe(folder, drift=True, fields=1, dumps=4, random_phases=True)
    tai = folder / "tai.ms"
    shutil.rmtree(ms / "POINTING")
    default_ms_subtable("POINTING", str(ms / "POINTING")).close()
    shutil.copytree(ms, tai)
    for path in (tai, tai / "POINTING"):
        with table(str(path), readonly=False, ack=False) as main:
            if main.nrows():
                main.putcol("TIME", in_scale(main.getcol("TIME"), "TAI"))
            main.putcolkeyword("TIME", "MEASINFO", {"type": "epoch", "Ref": "TAI"})
    return ms, tai, config


def stored_times(path):
    with table(str(path), ack=False) as main:
        return main.getcol("TIME")


def reader_of(path):
    ms = open_measurement_set(path)
    return VisibilityReader(ms, ms.select())


def test_the_beam_is_where_it_was(scans):
    utc, tai, _ = scans
    there, here = reader_of(utc), reader_of(tai)
    np.testing.assert_array_equal(here.times, there.times)
    np.testing.assert_array_equal(here.pointing, there.pointing)
    # Read as UTC they would be 37 s late: a sixth of a degree of drift.
    assert np.ptp(there.pointing[:, 0]) > 0
    assert array_findings(here) == array_findings(there) == ()


def test_calibration_is_the_same_and_times_stay(scans, tmp_path):
    utc, tai, config = scans
    written, tables = [], []
    for path in (utc, tai):
        before = stored_times(path)
        result = selfcal_ms(path, tmp_path / path.stem, config)
        assert result.improved
        np.testing.assert_array_equal(stored_times(path), before)
        with table(str(path), ack=False) as main:
            written.append({name: main.getcol(name) for name in COLUMNS})
        name = tmp_path / path.stem / result.summary["gaintables"][-1]
        # Solutions hold the numbers of the data's own times: CASA compares them as they are stored.
        assert before.min() <= stored_times(name).min() <= stored_times(name).max() <= before.max()
        tables.append(read_gain_table(name, open_measurement_set(path)).gains[0])
    for name in COLUMNS:
        np.testing.assert_array_equal(written[0][name], written[1][name])
    np.testing.assert_array_equal(tables[0].gain, tables[1].gain)
    np.testing.assert_allclose(tables[0].time_s, tables[1].time_s, rtol=0, atol=1e-5)


def test_a_moved_copy_keeps_its_times(scans, tmp_path):
    _, tai, _ = scans
    rephase_measurement_set(tai, tmp_path / "moved.ms")
    np.testing.assert_array_equal(stored_times(tmp_path / "moved.ms"), stored_times(tai))
    before, after = reader_of(tai), reader_of(tmp_path / "moved.ms")
    # Directions that were reckoned are in POINTING now, at the times of the data.
    np.testing.assert_allclose(
        stored_times(tmp_path / "moved.ms" / "POINTING"), in_scale(before.times, "TAI")
    )
    np.testing.assert_allclose(after.pointing, before.pointing, atol=1e-12)
