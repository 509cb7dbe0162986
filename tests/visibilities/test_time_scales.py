"""Times that a Measurement Set holds in another scale than UTC."""

import numpy as np
import pytest
from astropy.time import Time
from casacore.tables import table

from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set
from dsa110_contimg.visibilities.time_scales import in_scale, in_utc
from tests.visibilities.conftest import write

#: On both sides of a leap second, long ago, and today.
STAMPS = np.array(
    ["2016-12-31T23:59:58", "2017-01-01T00:00:01", "1995-04-13T09:19:00", "2026-02-01T03:00:00.5"]
)


def declare(path, scale, seconds, column="TIME"):
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol(column, seconds)
        main.putcolkeyword(column, "MEASINFO", {"type": "epoch", "Ref": scale})


@pytest.mark.parametrize(
    ("casacore", "astropy"), [("TAI", "tai"), ("TDT", "tt"), ("UTC", "utc"), ("TDB", "tdb")]
)
def test_scales_are_those_of_astropy(casacore, astropy):
    utc = Time(STAMPS, scale="utc")
    stored = getattr(utc, astropy).mjd * 86400.0
    np.testing.assert_allclose(in_utc(stored, casacore), utc.mjd * 86400.0, atol=3e-3)
    np.testing.assert_allclose(in_scale(in_utc(stored, casacore), casacore), stored, atol=1e-6)


def test_what_dumps_are_apart_stays():
    begin = 5.27e9
    apart = np.diff(in_utc(begin + 12.884901888 * np.arange(24), "TAI"))
    np.testing.assert_array_equal(apart, np.diff(begin - 37.0 + 12.884901888 * np.arange(24)))


def test_a_reader_tells_utc_whatever_is_stored(tmp_path):
    write(tmp_path / "t.ms")
    before = VisibilityReader(
        open_measurement_set(tmp_path / "t.ms"), open_measurement_set(tmp_path / "t.ms").select()
    )
    with table(str(tmp_path / "t.ms"), ack=False) as main:
        stored = in_scale(main.getcol("TIME"), "TAI")
    declare(tmp_path / "t.ms", "TAI", stored)
    ms = open_measurement_set(tmp_path / "t.ms")
    assert ms.time_scale == "TAI"
    reader = VisibilityReader(ms, ms.select())
    np.testing.assert_array_equal(reader.times, before.times)
    with table(str(tmp_path / "t.ms"), ack=False) as main:
        np.testing.assert_array_equal(main.getcol("TIME"), stored)
        assert np.median(stored[: stored.size // 3] - before.times[0]) == pytest.approx(37.0)


def test_times_by_the_stars_are_refused_in_one_line(tmp_path):
    write(tmp_path / "t.ms")
    with table(str(tmp_path / "t.ms"), ack=False) as main:
        stored = main.getcol("TIME")
    declare(tmp_path / "t.ms", "GMST1", stored)
    with pytest.raises(MeasurementSetError, match="TIME is in the time scale GMST1") as refused:
        open_measurement_set(tmp_path / "t.ms")
    assert "TAI" in str(refused.value)
    assert "UTC" in str(refused.value)
