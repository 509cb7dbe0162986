"""The gain solver against CASA's gaincal, on the same data and the same MODEL_DATA."""

from dataclasses import replace

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.solution_intervals import solution_intervals
from dsa110_contimg.calibration.solve_settings import ObservationAxes, SolveSettings
from dsa110_contimg.calibration.solver import solve
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.sky import beam_for_antenna, build_catalog_model
from dsa110_contimg.visibilities import ColumnStage, VisibilityReader, open_measurement_set

pytestmark = pytest.mark.casa


def seeded(path, catalog_dir, field=None, tables=()):
    """Data and statistics against the catalogue model, which is in MODEL_DATA for CASA.

    What the statistics leave out for the score at the end is flagged for CASA: both solve on the same data.
    """
    ms = open_measurement_set(path)
    reader = VisibilityReader(ms, ms.select(field))
    data = CalibrationData(reader, [read_gain_table(t, ms) for t in tables], StageLog(LogProgress()))
    field = ms.field(reader.selection.field_ids[0])
    beam = beam_for_antenna(ms.telescope, float(ms.antennas.dish_diameter_m.max()))
    freq = np.concatenate([window.freq_hz for window in ms.spectral_windows])
    seed = build_catalog_model(np.array([field.ra_rad, field.dec_rad]), freq, beam, catalog_dir=catalog_dir)
    model = SkyVisibilities(seed)
    gathered = data.gather(model, data.nominal_weights())
    untouched = []
    with ColumnStage(ms, ["MODEL_DATA"]) as stage:
        for piece in data.blocks("", data.nominal_weights(), model):
            cell = np.repeat(piece.model[:, :, None], piece.block.data.shape[2], axis=2)
            stage.put("MODEL_DATA", piece.block.rows, cell)
            untouched += zip(piece.block.rows, piece.untouched, strict=True)
        stage.commit()
    with table(str(ms.path), readonly=False, ack=False) as main:
        for row, channels in untouched:
            main.putcell("FLAG", row, main.getcell("FLAG", row) | channels[:, None])
    return data, gathered


def as_casa_weights(statistics, interval):
    """Statistics that make our solver minimise what CASA's phase mode does.

    CASA averages each baseline over the interval to ``r = A / B`` and minimises ``sum B |r|^2 |r / |r| - g_i
    conj(g_j)|^2``: a baseline counts by its own squared modulus, noise and what the model lacks included,
    where the residual of the data counts it by that of the model.
    """
    starts = np.unique(interval, return_index=True)[1]

    def summed(x):
        return np.add.reduceat(x.sum(axis=0, keepdims=True), starts, axis=2)

    cross, model = summed(statistics.cross), summed(statistics.model)
    weight = np.abs(cross) / np.where(model > 0, model, 1)
    return replace(
        statistics,
        cross=np.concatenate([weight * cross, 0 * cross]),
        model=np.concatenate([weight**2 * model, 0 * model]),
        data=np.concatenate([0 * model] * 2),
        count=np.concatenate([summed(statistics.count), 0 * model]),
    )


def both(casa, observation, tmp_path, mode, solint, casa_weights=False):
    """Solutions of both solvers against one reference antenna: two `Gains`, and where it is the same."""
    data, gathered = observation
    ms, reader = data.reader.ms, data.reader
    reference = 3
    casa(
        "gaincal",
        vis=ms.path,
        caltable=tmp_path / "judge.G",
        solint="inf" if solint == "scan" else solint,
        calmode=mode,
        field=str(reader.selection.field_ids[0]),
        gaintable=[t.label for t in data.initial],
        interp=["linear,linear"] * len(data.initial),
        refant=ms.antennas.name[reference],
        minsnr=3.0,
        minblperant=4,
    )
    judge = read_gain_table(tmp_path / "judge.G", ms).gains[0]
    statistics = gathered.statistics
    interval = solution_intervals(reader.times, float(np.median(reader.interval_s)), reader.scan, solint)
    axes = ObservationAxes.of(reader)
    if casa_weights:
        starts = np.unique(interval, return_index=True)[1]
        statistics = as_casa_weights(statistics, interval)
        times, lengths = (
            np.array([f(x[interval == k]) for k in range(statistics.n_times)])
            for f, x in ((np.mean, reader.times), (np.sum, reader.interval_s))
        )
        interval = np.arange(statistics.n_times)
        axes = ObservationAxes(
            times_s=times,
            dump_s=lengths,
            scan=axes.scan[starts],
            field_id=axes.field_id[starts],
            freq_hz=axes.freq_hz,
        )
    settings = SolveSettings(gathered.noise, reference_antennas=(reference,))
    ours = solve(statistics, axes, interval, settings, mode=mode).gains[0]
    assert ours.gain.shape == judge.gain.shape
    np.testing.assert_allclose(ours.time_s, judge.time_s, atol=0.5)
    # A reference that is flagged in one interval is replaced there, by each in its own way.
    kept = (ours.reference_antenna == reference) & ~judge.flag[:, reference].any(axis=(1, 2))
    assert kept.mean() > 0.9
    return ours, judge, kept


def differences(ours, judge, kept, min_snr):
    """Phase differences in degrees and amplitude ratios of solutions above a signal to noise."""
    # CASA drops both polarisations of an antenna where it flags one.
    good = ~ours.flag & ~judge.flag & (ours.snr >= min_snr) & kept[:, None, None, None]
    assert good.sum() > 0.3 * (~ours.flag).sum()
    ratio = ours.gain[good] / judge.gain[good]
    phase, amplitude = np.angle(ratio, deg=True), np.abs(ratio)
    print(
        f"{good.sum()} solutions of snr {np.median(ours.snr[good]):.0f}: phase rms "
        f"{np.sqrt((phase**2).mean()):.2g} deg, amplitude {np.median(amplitude) - 1:+.1e} "
        f"+- {amplitude.std():.1e}"
    )
    return phase, amplitude


def check(ours, judge, kept, min_snr):
    phase, amplitude = differences(ours, judge, kept, min_snr)
    assert np.sqrt((phase**2).mean()) <= 0.2
    assert abs(np.median(amplitude) - 1) <= 0.003
    assert amplitude.std() <= 0.003


@pytest.mark.parametrize("solint", ["scan", "int"])
@pytest.mark.parametrize("mode", ["ap", "p"])
def test_simulated_transit(casa, simulation, simulated, tmp_path, mode, solint):
    build_strips("nvss", simulation.with_name("sim.catalog.ecsv"), tmp_path / "catalogs")
    ours, judge, kept = both(casa, seeded(simulated, tmp_path / "catalogs"), tmp_path, mode, solint)
    assert judge.flag.mean() == pytest.approx(ours.flag.mean(), abs=0.01)
    check(ours, judge, kept, 3 if mode == "ap" else 30)


@pytest.mark.parametrize("solint", ["scan", "int"])
def test_real_field_amplitudes_and_phases(casa, ngc5921_crosscal, nvss, tmp_path, solint):
    ours, judge, kept = both(casa, seeded(ngc5921_crosscal, nvss), tmp_path, "ap", solint)
    # Both minimise the same sum, so they agree whatever the noise.
    check(ours, judge, kept, 3)


@pytest.mark.parametrize("solint", ["scan", "int"])
@pytest.mark.parametrize("mode", ["ap", "p"])
def test_real_calibrator(casa, ngc5921_raw, ngc5921_caltables, nvss, tmp_path, mode, solint):
    # 3C286, 15 Jy: the model is complete, and phases do not depend on how baselines are weighted.
    observation = seeded(ngc5921_raw, nvss, "0", [ngc5921_caltables["B0"]])
    ours, judge, kept = both(casa, observation, tmp_path, mode, solint)
    check(ours, judge, kept, 30)


@pytest.mark.parametrize("solint", ["scan", "int"])
def test_real_field_phases_differ_by_the_weights_of_casa_alone(
    casa, ngc5921_crosscal, nvss, tmp_path, solint
):
    observation = seeded(ngc5921_crosscal, nvss)
    ours, judge, kept = both(casa, observation, tmp_path, "p", solint, casa_weights=True)
    phase, _ = differences(ours, judge, kept, 3)
    good = ~ours.flag & ~judge.flag & (ours.snr >= 3) & kept[:, None, None, None]
    noise = np.degrees(np.sqrt((1 / ours.snr[good] ** 2).mean()))
    assert np.sqrt((phase**2).mean()) <= 0.5 * noise
