import numpy as np
import pytest

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.predict import predict_components
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import OUTLIER, ImageModel, Observation, outliers
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
    observation = Observation(reader, tables, LogProgress())
    observation.set_model(Points())
    return observation


def random_table(rng, ms, times, kind="G Jones", spws=(0,)):
    shape = (times.size, len(ms.antennas), 1, 2)
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    none = np.zeros(times.size, int)
    nothing = np.zeros(shape)
    flag = rng.random(shape) < 0.02
    return GainTable(
        kind,
        {
            s: Gains(times, none + 1.0, np.array([1e9]), gain, flag, nothing, nothing, none, none, none)
            for s in spws
        },
    )


def brute_force(observation, gain, tables):
    """Sum of ``w |D - g_i conj(g_j) M|^2`` over the parallel hands of all blocks, and their number."""
    total, count = 0.0, 0
    for block, model in observation.blocks("", with_model=True):
        vis, weight = observation.corrected(block, tables)
        for hand in block.spw.parallel:
            p = block.spw.receptors[hand][0]
            pair = gain[block.slot, block.antenna1, p] * gain[block.slot, block.antenna2, p].conj()
            residual = vis[:, :, hand].astype(complex) - pair[:, None] * model
            total += (weight[:, :, hand].astype(float) * np.abs(residual) ** 2).sum()
            count += (weight[:, :, hand] > 0).sum()
    return total, count


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_gathered_statistics_give_the_residual_of_real_data(rng, ngc5921_raw, ngc5921_caltables, cache):
    ms = open_measurement_set(ngc5921_raw)
    tables = [read_gain_table(ngc5921_caltables[name], ms) for name in ("B0", "G1.flux")]
    observation = observe(ngc5921_raw, tables, cache, field="2")
    statistics, noise = observation.gather()
    shape = (1, observation.reader.times.size, 28, 2)
    gain = rng.uniform(0.5, 2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    solved = np.ones(shape, bool)
    exact, count = brute_force(observation, gain[0], ())
    total = sum(statistics.residual(gain, solved, half, np.ones(2)) for half in (0, 1))
    assert total == pytest.approx(exact, rel=1e-10)
    assert statistics.count.sum() == count
    assert 0.5 < noise.scale2 / 2 < 50


def test_corrected_is_the_data_over_the_gains_of_their_time_and_channel(rng, ngc5921_raw, ngc5921_caltables):
    ms = open_measurement_set(ngc5921_raw)
    tables = [read_gain_table(ngc5921_caltables[name], ms) for name in ("B0", "G1.flux")]
    observation = observe(ngc5921_raw, tables, field="2")
    block = next(iter(observation.reader.blocks()))
    vis, weight = observation.corrected(block)
    seen = set()
    for r in rng.choice(block.rows.size, 60, replace=False):
        time = observation.reader.times[block.slot[r] : block.slot[r] + 1]
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
    statistics, _ = whole.gather()
    corrected, _ = observe(small_ms.path, [table]).gather()
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
        observe(small_ms.path, [table]).gather()


def test_the_model_is_predicted_once_and_forgotten_when_it_changes(small_ms):
    observation = observe(small_ms.path)
    model = Points()
    observation.set_model(model)
    observation.gather()
    first = model.calls
    observation.gather()
    assert model.calls == first == observation.reader.n_blocks
    other = Points()
    observation.set_model(other)
    observation.gather()
    assert other.calls == first


def test_trap_1_the_model_the_solver_sees_is_the_one_that_was_set(small_ms):
    observation = observe(small_ms.path)
    statistics, _ = observation.gather()
    powers = [
        (np.abs(model[:, :, None]) ** 2 * block.weight).sum(dtype=float)
        for block, model in observation.blocks("", with_model=True)
    ]
    assert statistics.model.sum() == pytest.approx(sum(powers), rel=1e-6)


def test_an_image_model_is_exact_at_pixel_centres(rng, small_ms):
    field = small_ms.fields[0]
    grid = ImageGrid(256, np.radians(10 / 3600), field.ra_rad, field.dec_rad)
    image = np.zeros((256, 256), np.float32)
    x, y = rng.integers(20, 236, (2, 12))
    image[y, x] = rng.uniform(0.1, 1, 12)
    y, x = np.nonzero(image)
    l, m = grid.pixel_to_lm(x, y)  # noqa: E741
    n = np.sqrt(1 - l**2 - m**2) - 1
    reader = observe(small_ms.path).reader
    block = next(iter(reader.blocks()))
    flux = np.repeat(image[y, x, None].astype(float), block.spw.freq_hz.size, axis=1)
    exact = predict_components(block.uvw_m, block.spw.freq_hz, np.column_stack([l, m, n]), flux)
    degridded = ImageModel(image, grid).visibilities(block, reader)
    np.testing.assert_allclose(degridded, exact, atol=2e-4 * image.sum())


def test_stokes_subtracts_the_model_in_every_hand(rng, small_ms):
    observation = observe(small_ms.path)
    table = random_table(rng, small_ms, observation.reader.times)
    plain = observation.stokes([table], subtract=False, label="")
    less = observation.stokes([table], subtract=True, label="")
    models = [model for _, model in observation.blocks("", with_model=True)]
    for a, b, model in zip(plain, less, models, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        used = a.weight > 0
        assert used.any()
        np.testing.assert_allclose((a.vis - b.vis)[used], model[used], atol=3e-4)


def test_data_on_disk_and_in_blocks_are_not_changed(rng, small_ms):
    observation = observe(small_ms.path)
    before = [block.data.copy() for block in observation.reader.blocks()]
    table = random_table(rng, small_ms, observation.reader.times)
    observation.stokes([table], subtract=True, label="")
    observation.residual_noise([table])
    for old, block in zip(before, observation.reader.blocks(), strict=True):
        np.testing.assert_array_equal(old, block.data)


def test_residual_noise_of_perfect_data(rng, small_ms):
    # Gains of one and the model put in place of the data: what is left is the noise that is added here.
    observation = observe(small_ms.path)
    for block, model in observation.blocks("", with_model=True):
        sigma = 1 / np.sqrt(block.weight)
        noise = rng.standard_normal((2, *block.data.shape))
        block.data[:] = model[:, :, None] + sigma * (noise[0] + 1j * noise[1])
    assert observation.residual_noise([]).scale2 == pytest.approx(2, rel=0.1)


def test_hands_find_their_receptors_whatever_the_correlations(rng, small_ms):
    block = next(iter(observe(small_ms.path).reader.blocks()))
    four = (rng.standard_normal((5, 2, 4)) + 0j).astype(np.complex64)
    weight = np.ones(four.shape, np.float32)

    class Spw:
        receptors = ((0, 0), (0, 1), (1, 0), (1, 1))
        parallel = (0, 3)

    block.__dict__["spw"] = Spw()
    vis, w = Observation._parallel(block, four, weight)
    np.testing.assert_array_equal(vis, four[:, :, [0, 3]])
    Spw.receptors, Spw.parallel = ((1, 1),), (0,)
    vis, w = Observation._parallel(block, four[:, :, :1], weight[:, :, :1])
    assert (w[..., 0] == 0).all()
    np.testing.assert_array_equal(vis[..., 1], four[..., 0])


def test_outliers_stand_out_of_noise_and_not_of_a_sky(rng):
    noise = (rng.standard_normal((500, 8, 2)) + 1j * rng.standard_normal((500, 8, 2))).astype(np.complex64)
    weight = rng.uniform(0.5, 2, noise.shape).astype(np.float32)
    vis = noise / np.sqrt(weight)
    assert not outliers(vis, weight, OUTLIER).any()
    hit = rng.uniform(size=vis.shape) < 0.01
    assert (outliers(np.where(hit, 30, vis).astype(np.complex64), weight, OUTLIER) == hit).all()
    # A source of any brightness on some of the data is not a matter of single visibilities.
    half = np.broadcast_to(np.arange(500)[:, None, None] < 220, vis.shape)
    assert not outliers(np.where(half, 30, vis).astype(np.complex64), weight, OUTLIER).any()
    assert not outliers(vis, np.zeros_like(weight), OUTLIER).any()
