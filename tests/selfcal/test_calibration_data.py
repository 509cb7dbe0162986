from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.predict import predict_components
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_block import parallel_hands
from dsa110_contimg.selfcal.calibration_data import UNTOUCHED_EACH, CalibrationData
from dsa110_contimg.selfcal.corrected_data import stokes_data
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.sky import AiryBeam, ApparentSky, SkyModel
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set


class Points:
    """A model with structure: two points, one of them far out."""

    name = "points"

    def __init__(self):
        self.calls = 0

    def visibilities(self, block, reader):
        uvw_m, freq_hz = block.uvw_m, block.spw.freq_hz
        self.calls += 1
        lm = np.array([[0.0, 0.0], [0.004, -0.003]])
        n = np.sqrt(1 - (lm**2).sum(axis=1)) - 1
        flux = np.array([[1.0], [0.5]]) * np.ones(freq_hz.size)
        return predict_components(uvw_m, freq_hz, np.column_stack([lm, n]), flux)


def observe(path, tables=(), cache=1 << 30, **selection):
    ms = open_measurement_set(path)
    reader = VisibilityReader(ms, ms.select(**selection), cache_bytes=cache, block_bytes=1 << 20)
    return CalibrationData(reader, tables, StageLog(LogProgress()))


def gathered(data, model=None):
    return data.gather(model or Points(), data.nominal_weights())


def pieces(data):
    return data.blocks("", data.nominal_weights(), Points())


def random_table(rng, ms, times, kind="G Jones", spws=(0,)):
    shape = (times.size, len(ms.antennas), 1, 2)
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    none = np.zeros(times.size, int)
    nothing = np.zeros(shape)
    flag = rng.random(shape) < 0.02
    gains = Gains(
        time_s=times,
        interval_s=none + 1.0,
        freq_hz=np.array([1e9]),
        gain=gain,
        flag=flag,
        error=nothing,
        snr=nothing,
        reference_antenna=none,
        field_id=none,
        scan=none,
    )
    return GainTable(kind=kind, gains=dict.fromkeys(spws, gains))


def brute_force(data, gain, tables):
    """Sum of ``w |D - g_i conj(g_j) M|^2`` over the parallel hands of all blocks, and their number."""
    total, count = 0.0, 0
    for piece in pieces(data):
        block, model = piece.block, piece.model
        vis, weight = data.corrected(block, piece.touched(piece.weight), tables)
        for hand in block.spw.parallel:
            p = block.spw.receptors[hand][0]
            pair = (
                gain[block.time_index, block.antenna1, p] * gain[block.time_index, block.antenna2, p].conj()
            )
            residual = vis[:, :, hand].astype(complex) - pair[:, None] * model
            total += (weight[:, :, hand].astype(float) * np.abs(residual) ** 2).sum()
            count += (weight[:, :, hand] > 0).sum()
    return total, count


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_gathered_statistics_give_the_residual_of_real_data(rng, ngc5921_raw, ngc5921_caltables, cache):
    ms = open_measurement_set(ngc5921_raw)
    tables = [read_gain_table(ngc5921_caltables[name], ms) for name in ("B0", "G1.flux")]
    data = observe(ngc5921_raw, tables, cache, field="2")
    found = gathered(data)
    statistics, noise = found.statistics, found.noise
    shape = (1, data.reader.times.size, 28, 2)
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    solved = np.ones(shape, bool)
    exact, count = brute_force(data, gain[0], ())
    total = sum(statistics.residuals(gain, solved, half, np.ones(2))[0] for half in (0, 1))
    assert total == pytest.approx(exact, rel=1e-10)
    assert statistics.count.sum() == count
    # The hands have the spectral line in common, channels have not; old weights are jansky to the power -2.
    assert found.bounds.taken == "polarizations"
    assert 0.3 < noise.rms**2 < 0.8 * found.bounds.channels.rms**2
    assert noise.variance == pytest.approx(found.bounds.radiometer.variance, rel=0.5)


def test_corrected_is_the_data_over_the_gains_of_their_time_and_channel(rng, ngc5921_raw, ngc5921_caltables):
    ms = open_measurement_set(ngc5921_raw)
    tables = [read_gain_table(ngc5921_caltables[name], ms) for name in ("B0", "G1.flux")]
    data = observe(ngc5921_raw, tables, field="2")
    block = next(iter(data.reader.blocks()))
    vis, weight = data.corrected(block, block.weight)
    seen = set()
    for r in rng.choice(block.rows.size, 60, replace=False):
        time = data.reader.times[block.time_index[r] : block.time_index[r] + 1]
        parts = [t.evaluate(0, time, block.spw.freq_hz) for t in tables]
        i, j = block.antenna1[r], block.antenna2[r]
        for c in range(block.spw.freq_hz.size):
            for p in (0, 1):
                g = np.prod(
                    [
                        x[0, i, min(c, x.shape[2] - 1), p] * x[0, j, min(c, x.shape[2] - 1), p].conj()
                        for x, _ in parts
                    ]
                )
                lost = any(x[0, a, min(c, x.shape[2] - 1), p] for _, x in parts for a in (i, j))
                seen.add(bool(lost))
                if lost or block.flag[r, c, p]:
                    assert weight[r, c, p] == 0
                else:
                    assert vis[r, c, p] == pytest.approx(block.data[r, c, p] / g, rel=1e-5)
                    assert weight[r, c, p] == pytest.approx(block.weight[r, c, p] * abs(g) ** 2, rel=1e-5)
    assert False in seen


def test_a_table_is_worth_the_same_before_and_after_gathering(rng, small_ms):
    whole = observe(small_ms.path)
    table = random_table(rng, small_ms, whole.reader.times)
    statistics = gathered(whole).statistics
    corrected = gathered(observe(small_ms.path, [table])).statistics
    gain, flag = table.gains[0].at_times(whole.reader.times)
    after = statistics.after(gain[None, :, :, 0], ~flag[None, :, :, 0])
    used = corrected.count > 0
    for name in ("cross", "model"):
        np.testing.assert_allclose(
            getattr(after, name)[used], getattr(corrected, name)[used], rtol=1e-5, atol=1e-3
        )


def test_initial_tables_that_flag_everything_are_named(rng, small_ms):
    table = random_table(rng, small_ms, np.array([0.0]))
    table.gains[0].flag[:] = True
    with pytest.raises(
        MeasurementSetError, match="every selected visibility is flagged or without a solution"
    ):
        gathered(observe(small_ms.path, [table]))


def test_a_model_is_predicted_once_and_forgotten_with_it(small_ms):
    data = observe(small_ms.path)
    model = Points()
    gathered(data, model)
    first = model.calls
    gathered(data, model)
    assert model.calls == first == data.reader.n_blocks
    other = Points()
    gathered(data, other)
    gathered(data, model)
    assert (other.calls, model.calls) == (first, first)
    del other
    assert data._predicted.models() == [model]


def test_only_what_changed_of_a_model_is_predicted(small_ms):
    """As exactly as anew, and the model before it need not live on."""
    data, n = observe(small_ms.path), 12
    centre = data.reader.phase_center
    sky = SkyModel.points(centre[0] + 1e-3 * np.arange(n), np.full(n, centre[1]), np.linspace(1, 2, n))
    beam = AiryBeam(4.65)
    first = SkyVisibilities(
        ApparentSky(
            sky=sky, beam=beam, apparent_jy=sky.flux_jy, freq_hz=1.4e9, catalog="none", catalog_hash=""
        )
    )
    flux = sky.flux_jy.copy()
    flux[2] = 5.0
    second = SkyVisibilities(replace(first.sky, sky=replace(sky, flux_jy=flux)))
    whole = gathered(data, first).statistics
    assert data.log.counts["phasors"] == n * data.log.counts["predicted"]
    changed = gathered(data, second).statistics
    assert data.log.counts["phasors"] == (n + 1) * data.log.counts["predicted"] / 2
    anew = gathered(observe(small_ms.path), second).statistics
    np.testing.assert_allclose(changed.cross, anew.cross, atol=1e-6 * np.abs(anew.cross).max())
    np.testing.assert_allclose(changed.model, anew.model, rtol=1e-4, atol=1e-6 * anew.model.max())
    assert (changed.model != whole.model).any()
    del first
    assert data._predicted.models() == [second]
    third = SkyVisibilities(replace(second.sky, sky=replace(sky, flux_jy=2 * sky.flux_jy)))
    gathered(data, third)
    assert data.log.counts["phasors"] == (2 * n + 1) * data.log.counts["predicted"] / 3


def test_trap_1_the_model_the_solver_sees_is_the_one_that_was_set(small_ms):
    data = observe(small_ms.path)
    statistics = gathered(data).statistics
    powers = [(np.abs(p.model[:, :, None]) ** 2 * p.touched(p.weight)).sum(dtype=float) for p in pieces(data)]
    assert statistics.model.sum() == pytest.approx(sum(powers), rel=1e-6)


def test_a_part_of_the_data_is_left_for_the_score(small_ms):
    data = observe(small_ms.path)
    chosen = [p.untouched for p in pieces(data)]
    assert np.mean([u.mean() for u in chosen]) == pytest.approx(1 / UNTOUCHED_EACH, rel=0.05)
    statistics, alone = gathered(data).statistics, sum(np.count_nonzero(u) for u in chosen)
    assert statistics.count.sum() == 2 * (sum(u.size for u in chosen) - alone)
    # Both halves of the channels lose alike.
    halves = statistics.count.sum(axis=(1, 2, 3, 4))
    assert halves[0] == pytest.approx(halves[1], rel=0.02)


def test_stokes_subtracts_the_model_in_every_hand(rng, small_ms):
    data = observe(small_ms.path)
    table = random_table(rng, small_ms, data.reader.times)
    plain = stokes_data(data, [table], data.nominal_weights(), "")
    less = stokes_data(data, [table], data.nominal_weights(), "", subtract=Points())
    models = [piece.model for piece in pieces(data)]
    for a, b, model in zip(plain, less, models, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        used = a.weight > 0
        assert used.any()
        np.testing.assert_allclose((a.vis - b.vis)[used], model[used], atol=3e-4)


def test_data_on_disk_and_in_blocks_are_not_changed(rng, small_ms):
    data = observe(small_ms.path)
    before = [block.data.copy() for block in data.reader.blocks()]
    table = random_table(rng, small_ms, data.reader.times)
    stokes_data(data, [table], data.nominal_weights(), "", subtract=Points())
    data.measure_residual(Points(), data.nominal_weights(), [table])
    for old, block in zip(before, data.reader.blocks(), strict=True):
        np.testing.assert_array_equal(old, block.data)


def test_residual_noise_of_perfect_data(rng, small_ms):
    # Gains of one and the model put in place of the data: what is left is the noise that is added here.
    data = observe(small_ms.path)
    for piece in pieces(data):
        sigma = 1 / np.sqrt(piece.weight)
        noise = rng.standard_normal((2, *piece.block.data.shape))
        piece.block.data[:] = piece.model[:, :, None] + sigma * (noise[0] + 1j * noise[1])
    residual = data.measure_residual(Points(), data.nominal_weights(), [])
    assert residual.noise.variance == pytest.approx(2, rel=0.1)


def test_hands_find_their_receptors_whatever_the_correlations(rng, small_ms):
    block = next(iter(observe(small_ms.path).reader.blocks()))
    four = (rng.standard_normal((5, 2, 4)) + 0j).astype(np.complex64)
    weight = np.ones(four.shape, np.float32)

    class Spw:
        receptors = ((0, 0), (0, 1), (1, 0), (1, 1))
        parallel = (0, 3)

    block.__dict__["spw"] = Spw()
    vis, w = parallel_hands(block, four, weight)
    np.testing.assert_array_equal(vis, four[:, :, [0, 3]])
    Spw.receptors, Spw.parallel = ((1, 1),), (0,)
    vis, w = parallel_hands(block, four[:, :, :1], weight[:, :, :1])
    assert (w[..., 0] == 0).all()
    np.testing.assert_array_equal(vis[..., 1], four[..., 0])
