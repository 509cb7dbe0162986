"""Tables written by the package, applied by CASA's applycal and by the package itself."""

from dataclasses import replace

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.calibration.caltables import read_gain_table, write_gain_table
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set

pytestmark = pytest.mark.casa


def drawn_gains(reader, n_intervals, npol, flagged):
    """Gains that jump by up to 140 degrees between intervals, over somewhat less than the observation."""
    rng = np.random.default_rng(n_intervals + npol)
    shape = (n_intervals, len(reader.ms.antennas), 1, npol)
    steps = rng.uniform(-140, 140, shape)
    steps[0] = rng.uniform(-180, 180, shape[1:])
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * np.radians(np.cumsum(steps, axis=0)))
    span = reader.times[-1] - reader.times[0]
    times = reader.times[0] + span * (0.1 + 0.8 * (np.arange(n_intervals) + 0.5) / n_intervals)
    none = np.zeros(n_intervals, dtype=np.int64)
    return Gains(
        time_s=times,
        interval_s=np.full(n_intervals, span / n_intervals),
        freq_hz=np.array([1.4e9]),
        gain=gain,
        flag=rng.random(shape) < flagged,
        error=np.full(shape, 0.01),
        snr=np.full(shape, 50.0),
        reference_antenna=none,
        field_id=none,
        scan=none + 1,
    )


def largest_difference(path, tables, ms, field):
    """Largest relative difference to CORRECTED_DATA where CASA has not flagged, and the number there."""
    reader = VisibilityReader(ms, ms.select(field))
    data = CalibrationData(reader, tables, StageLog(LogProgress()))
    worst, compared = 0.0, 0
    with table(str(path), ack=False) as main:
        for block in reader.blocks():
            vis, weight = data.corrected(block, block.weight)
            rows = main.selectrows(block.rows)
            # CASA flags data next to a flagged solution, which we step over: only the rest can be compared.
            judge, good = rows.getcol("CORRECTED_DATA"), ~rows.getcol("FLAG")
            assert (weight[good] > 0).all()
            worst = max(worst, float((np.abs(vis - judge)[good] / np.abs(judge)[good]).max()))
            compared += int(good.sum())
    print(f"largest relative difference {worst:.1e} of {compared} visibilities")
    return worst, compared


@pytest.mark.parametrize("kind", ["G Jones", "T Jones"])
@pytest.mark.parametrize(("n_intervals", "flagged"), [(1, 0.0), (6, 0.0), (6, 0.1)])
def test_real_bandpass_and_our_gains(
    casa, ngc5921_raw, ngc5921_caltables, tmp_path, kind, n_intervals, flagged
):
    ms = open_measurement_set(ngc5921_raw)
    reader = VisibilityReader(ms, ms.select("2"))
    gains = drawn_gains(reader, n_intervals, 2 if kind == "G Jones" else 1, flagged)
    write_gain_table(tmp_path / "ours", kind, {0: gains}, ms)
    tables = [read_gain_table(p, ms) for p in (ngc5921_caltables["B0"], tmp_path / "ours")]
    casa(
        "applycal",
        vis=ngc5921_raw,
        field="2",
        gaintable=[t.label for t in tables],
        interp=["linear,linear", "linear"],
        calwt=False,
        flagbackup=False,
    )
    worst, compared = largest_difference(ngc5921_raw, tables, ms, "2")
    assert compared > 5e4
    assert worst < 1e-5


def test_delays_of_ours(casa, ngc5921_crosscal, tmp_path):
    """A gain for every channel, as a solution for delays and bandpass is written."""
    ms = open_measurement_set(ngc5921_crosscal)
    reader = VisibilityReader(ms, ms.select())
    one = drawn_gains(reader, 1, 2, 0.0)
    freq = reader.freq_hz
    delay = np.random.default_rng(4).normal(0, 100e-9, (1, len(ms.antennas), 1, 2))
    gain = one.gain * np.exp(2j * np.pi * delay * (freq - freq.mean())[:, None])
    blank = np.zeros(gain.shape)
    gains = replace(one, freq_hz=freq, gain=gain, flag=blank > 0, error=blank + 0.01, snr=blank + 50)
    write_gain_table(tmp_path / "ours", "B Jones", {0: gains}, ms)
    mine = read_gain_table(tmp_path / "ours", ms)
    casa(
        "applycal",
        vis=ngc5921_crosscal,
        gaintable=[mine.label],
        interp=["nearest,linear"],
        calwt=False,
        flagbackup=False,
    )
    worst, compared = largest_difference(ngc5921_crosscal, [mine], ms, None)
    assert compared > 5e4
    assert worst < 1e-5


def test_nearest(casa, ngc5921_crosscal, tmp_path):
    ms = open_measurement_set(ngc5921_crosscal)
    gains = drawn_gains(VisibilityReader(ms, ms.select()), 5, 2, 0.0)
    write_gain_table(tmp_path / "ours", "G Jones", {0: gains}, ms)
    mine = read_gain_table(tmp_path / "ours", ms)
    mine = replace(mine, interpolation="nearest")
    casa(
        "applycal",
        vis=ngc5921_crosscal,
        gaintable=[mine.label],
        interp=["nearest"],
        calwt=False,
        flagbackup=False,
    )
    worst, compared = largest_difference(ngc5921_crosscal, [mine], ms, None)
    assert compared > 5e4
    assert worst < 1e-5


def test_real_gains_of_two_calibrators(casa, ngc5921_raw, ngc5921_caltables):
    ms = open_measurement_set(ngc5921_raw)
    tables = [read_gain_table(ngc5921_caltables[name], ms) for name in ("B0", "G1.flux")]
    casa(
        "applycal",
        vis=ngc5921_raw,
        field="2",
        gaintable=[t.label for t in tables],
        interp=["linear,linear", "linear"],
        calwt=False,
        flagbackup=False,
    )
    worst, compared = largest_difference(ngc5921_raw, tables, ms, "2")
    assert compared > 5e4
    assert worst < 1e-5


def test_simulated_transit_with_a_table_of_ours(casa, simulated, tmp_path):
    ms = open_measurement_set(simulated)
    gains = drawn_gains(VisibilityReader(ms, ms.select()), 8, 2, 0.05)
    write_gain_table(tmp_path / "ours", "G Jones", {0: gains}, ms)
    mine = read_gain_table(tmp_path / "ours", ms)
    casa("applycal", vis=simulated, gaintable=[mine.label], interp=["linear"], calwt=False, flagbackup=False)
    worst, compared = largest_difference(simulated, [mine], ms, None)
    assert compared > 2e4
    assert worst < 1e-5
