import shutil
import zipfile

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from casacore.tables import table

from dsa110_contimg.calibration import caltables
from dsa110_contimg.calibration.caltables import read_gain_table, write_gain_table
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.errors import CalTableError
from dsa110_contimg.visibilities import open_measurement_set


@pytest.fixture
def crosscal(ngc5921_crosscal):
    return open_measurement_set(ngc5921_crosscal)


@pytest.mark.parametrize(
    ("name", "kind", "times", "channels"),
    [
        ("G0", "G Jones", 1, 1),
        ("B0", "B Jones", 1, 55),
        ("G1", "G Jones", 5, 1),
        ("G1.flux", "G Jones", 5, 1),
    ],
)
def test_real_tables_are_read_in_full(ngc5921_caltables, crosscal, name, kind, times, channels):
    path = ngc5921_caltables[name]
    read = read_gain_table(path, crosscal)
    assert read.kind == kind
    (gains,) = read.gains.values()
    assert gains.gain.shape[1:] == (28, channels, 2)
    assert gains.freq_hz.size == channels
    with table(str(path), ack=False) as main:
        stamps = np.unique(main.getcol("TIME"))
        assert stamps.size >= times
        # CASA calls these UTC, and they are TAI as those of the data: 29 s ahead in 1995.
        np.testing.assert_allclose(gains.time_s, stamps - 29.0, rtol=0, atol=1e-6)
        for row in range(main.nrows()):
            t = np.searchsorted(stamps, main.getcell("TIME", row))
            a = main.getcell("ANTENNA1", row)
            flag = main.getcell("FLAG", row)
            np.testing.assert_array_equal(gains.flag[t, a], flag)
            np.testing.assert_array_equal(
                gains.gain[t, a][~flag], main.getcell("CPARAM", row)[~flag].astype(complex)
            )
            assert gains.reference_antenna[t] == main.getcell("ANTENNA2", row)
            assert gains.field_id[t] == main.getcell("FIELD_ID", row)
    assert (gains.gain[gains.flag] == 1).all()
    # The 28th antenna was absent.
    assert gains.flag.all(axis=(0, 2, 3)).sum() == 1


def test_a_published_askap_table_is_read(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "caltables" / "askap_emu_round1.caltable.zip") as archive:
        archive.extractall(tmp_path)
    (path,) = (p.parent for p in tmp_path.rglob("table.dat") if (p.parent / "ANTENNA").is_dir())
    read = read_gain_table(path)
    assert read.kind == "G Jones"
    gains = next(iter(read.gains.values()))
    assert gains.gain.shape == (139, 36, 1, 2)
    assert 0.5 < np.median(np.abs(gains.gain[~gains.flag])) < 2


def some_gains(rng, n_antennas, npol=2, n_times=4):
    shape = (n_times, n_antennas, 1, npol)
    gain = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    flag = rng.random(shape) < 0.2
    return Gains(
        time_s=4.3e9 + 60.0 * np.arange(n_times),
        interval_s=np.full(n_times, 60.0),
        freq_hz=np.array([1.4e9]),
        gain=np.where(flag, 1, gain),
        flag=flag,
        error=rng.uniform(0.01, 0.1, shape),
        snr=rng.uniform(3, 30, shape),
        reference_antenna=rng.integers(-1, n_antennas, n_times),
        field_id=np.zeros(n_times, int),
        scan=np.arange(1, n_times + 1),
    )


@pytest.mark.parametrize(("kind", "npol"), [("G Jones", 2), ("T Jones", 1)])
def test_what_was_written_is_read_back(rng, small_ms, tmp_path, kind, npol):
    gains = some_gains(rng, len(small_ms.antennas), npol)
    write_gain_table(tmp_path / "cal", kind, {0: gains}, small_ms)
    read = read_gain_table(tmp_path / "cal", small_ms)
    assert (read.kind, list(read.gains)) == (kind, [0])
    back = read.gains[0]
    for name in ("time_s", "interval_s", "flag", "reference_antenna", "field_id", "scan"):
        np.testing.assert_array_equal(getattr(back, name), getattr(gains, name), err_msg=name)
    for name in ("gain", "error", "snr"):
        wanted = np.where(gains.flag, getattr(back, name), getattr(gains, name))
        np.testing.assert_allclose(getattr(back, name), wanted, rtol=1e-6, err_msg=name)
    assert back.freq_hz == pytest.approx([small_ms.spectral_windows[0].freq_hz.mean()])
    assert list(tmp_path.iterdir()) == [tmp_path / "cal"]


def test_fields_in_b1950_are_told_from_those_nearby(rng, small_ms, tmp_path):
    """An old calibrator beside the target: half a degree off, another one would be nearest."""
    write_gain_table(tmp_path / "cal", "G Jones", {0: some_gains(rng, len(small_ms.antennas))}, small_ms)
    old = SkyCoord("12h00m00s", "+50d00m00s", frame="fk4", equinox="B1950")
    with table(str(tmp_path / "cal" / "FIELD"), ack=False, readonly=False) as sub:
        sub.putcell("PHASE_DIR", 0, np.array([[old.ra.rad, old.dec.rad]]))
        info = dict(sub.getcolkeywords("PHASE_DIR").get("MEASINFO", {}))
        for key in ("VarRefCol", "TabRefTypes", "TabRefCodes"):
            info.pop(key, None)
        sub.putcolkeyword("PHASE_DIR", "MEASINFO", info | {"type": "direction", "Ref": "B1950"})
    found = SkyCoord(*read_gain_table(tmp_path / "cal").field_direction[0], unit="rad")
    assert found.separation(old.icrs).arcsec < 0.01
    assert found.separation(SkyCoord(old.ra, old.dec)).deg > 0.2
    with table(str(tmp_path / "cal" / "FIELD"), ack=False, readonly=False) as sub:
        sub.putcolkeyword("PHASE_DIR", "MEASINFO", info | {"type": "direction", "Ref": "AZELGEO"})
    assert 0 not in read_gain_table(tmp_path / "cal").field_direction


def test_a_gain_can_be_written_for_each_of_several_windows(rng, small_ms, tmp_path):
    gains = some_gains(rng, len(small_ms.antennas))
    write_gain_table(tmp_path / "cal", "G Jones", {0: gains, 1: gains}, small_ms)
    with table(str(tmp_path / "cal"), ack=False) as main:
        assert main.nrows() == 2 * gains.gain.shape[0] * gains.gain.shape[1]
        assert (np.diff(main.getcol("TIME")) >= 0).all()
        assert sorted(set(main.getcol("SPECTRAL_WINDOW_ID"))) == [0, 1]


def test_trap_28_an_interrupted_write_leaves_the_old_table(rng, small_ms, tmp_path, monkeypatch):
    n = len(small_ms.antennas)
    old, new = some_gains(rng, n), some_gains(rng, n)
    path = tmp_path / "cal"
    write_gain_table(path, "G Jones", {0: old}, small_ms)

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(caltables, "_one_channel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_gain_table(path, "G Jones", {0: new}, small_ms)
    read = read_gain_table(path).gains[0]
    np.testing.assert_allclose(read.gain, old.gain, rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]
    write_gain_table(path, "G Jones", {0: new}, small_ms)
    np.testing.assert_allclose(read_gain_table(path).gains[0].gain, new.gain, rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def assert_one_line(path, what, ms=None):
    with pytest.raises(CalTableError) as caught:
        read_gain_table(path, ms)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert what in message
    assert caught.value.remedy


@pytest.fixture
def written(rng, small_ms, tmp_path):
    write_gain_table(tmp_path / "cal", "G Jones", {0: some_gains(rng, len(small_ms.antennas))}, small_ms)
    return tmp_path / "cal"


def test_no_such_table(tmp_path):
    assert_one_line(tmp_path / "nowhere", "no such calibration table")


def test_a_table_of_another_array(written, small_ms, crosscal):
    assert_one_line(written, "has 8 antennas, the Measurement Set has 28", crosscal)
    with table(str(written / "ANTENNA"), readonly=False, ack=False) as sub:
        sub.putcell("NAME", 0, "elsewhere")
    assert_one_line(written, "lists other antenna names", small_ms)


def test_a_table_of_another_kind(written, small_ms):
    assert_one_line(small_ms.path, "not one of B Jones, G Jones, T Jones")
    with table(str(written), readonly=False, ack=False) as main:
        main.putinfo({"type": "Calibration", "subType": "K Jones", "readme": ""})
    assert_one_line(written, "'K Jones'")


def test_a_damaged_table(written):
    for name in ("table.dat", "table.f0"):
        whole = (written / name).read_bytes()
        (written / name).write_bytes(whole[: len(whole) // 3])
        assert_one_line(written, "")
        (written / name).write_bytes(whole)
    read_gain_table(written)
    shutil.rmtree(written / "SPECTRAL_WINDOW")
    assert_one_line(written, "/SPECTRAL_WINDOW: cannot be opened")


def test_a_table_without_solutions(written, tmp_path):
    with table(str(written), ack=False) as main:
        main.query("ANTENNA1 < 0").copy(str(tmp_path / "empty"), deep=True).close()
    assert_one_line(tmp_path / "empty", "holds no solutions")
    with table(str(written), readonly=False, ack=False) as main:
        main.removecols("FLAG")
    assert_one_line(written, "lacks FLAG")


@pytest.mark.parametrize(("column", "value"), [("ANTENNA1", 99), ("SPECTRAL_WINDOW_ID", 9)])
def test_rows_that_refer_to_what_is_not_there(written, column, value):
    with table(str(written), readonly=False, ack=False) as main:
        main.putcell(column, 3, value)
    assert_one_line(written, "cannot be read")


def test_solutions_that_are_no_numbers_are_flagged(written):
    with table(str(written), readonly=False, ack=False) as main:
        main.putcell("FLAG", 0, np.zeros((1, 2), bool))
        main.putcell("CPARAM", 0, np.array([[np.nan, 0]], np.complex64))
    assert read_gain_table(written).gains[0].flag[0, 0].all()


def test_a_history_that_cannot_be_read_costs_no_gains(rng, small_ms, tmp_path):
    """All that a gain table takes of it is that there is one."""
    path = shutil.copytree(small_ms.path, tmp_path / "broken.ms")
    for file in (path / "HISTORY").glob("table.f*"):
        file.unlink()
    gains = {0: some_gains(rng, len(small_ms.antennas))}
    write_gain_table(tmp_path / "cal", "G Jones", gains, open_measurement_set(path))
    with table(str(tmp_path / "cal"), ack=False) as main:
        assert main.getkeyword("HISTORY") == f"Table: {tmp_path}/cal/HISTORY"
    with table(str(tmp_path / "cal" / "HISTORY"), ack=False) as sub:
        assert sub.nrows() == 0
        assert "MESSAGE" in sub.colnames()
