"""Everything on averages is what it is on all channels, but for what averaging is meant to lose: time."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging import ImageGrid, Imager
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal import calibration_data
from dsa110_contimg.selfcal.averaged_data import averaged_samples
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.corrected_data import stokes_data
from dsa110_contimg.selfcal.image_state import quick_image
from dsa110_contimg.selfcal.model_visibilities import ImageVisibilities, SkyVisibilities
from dsa110_contimg.selfcal.params import check_params
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import bandpass
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT
from tests.selfcal.support import gain_table

CHANNELS = 48
SPEED_OF_LIGHT = 299_792_458.0


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Eight windows of narrow channels, dishes that stand still, a field for each dump, interference."""
    folder = tmp_path_factory.mktemp("narrow")
    options = {"array": COMPACT, "channels": CHANNELS, "spws": 8, "dumps": 4, "sefd_jy": 2000.0}
    options |= {"min_mjy": 20.0, "random_phases": True, "rfi": 0.01}
    simulate(folder / "t.ms", SimulationConfig(**options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    return folder / "t.ms"


def opened(narrow, tmp_path, *, averaged=True, initial=(), memory_bytes=1e9, flag=None, scratch=None):
    """The observation, averaged however small it is, and the log of it."""
    config = SelfCalConfig(catalog_dir=narrow.parent / "c", size=192, cell_arcsec=24.0)
    params = check_params(narrow, tmp_path / "out", config, ())
    # As if the image were larger, so that baselines differ in how far they are averaged.
    averaging = replace(params.averaging, half_width_rad=0.063, average="always", memory_bytes=memory_bytes)
    averaging = replace(averaging, scratch=scratch or averaging.scratch)
    assert averaging.worthwhile(params.reader)
    if flag is not None:
        for block in params.reader.blocks():
            flag(block)
    data = CalibrationData(
        params.reader,
        initial,
        StageLog(LogProgress()),
        grid=params.grid,
        catalog_model=params.catalog_model,
        averaging=averaging if averaged else None,
    )
    return data


def spoil(block):
    """Flag channels common to all rows, others at random, one hand, and put zeros in the place of data."""
    rng = np.random.default_rng(block.rows[0])
    flag = rng.uniform(size=block.flag.shape[:2]) < 0.03
    flag[:, :3], flag[:, 40] = True, True
    flag = np.repeat(flag[:, :, None], block.flag.shape[2], axis=2)
    flag |= rng.uniform(size=flag.shape) < 0.01
    block.flag |= flag
    block.weight[flag], block.data[flag] = 0, 0
    dead = (block.antenna1 == 4) | (block.antenna2 == 4)
    block.data[dead] = 0


@pytest.fixture
def spoiled(narrow, tmp_path):
    return opened(narrow, tmp_path, flag=spoil)


def at_full_resolution(data, visibilities):
    """By row of the table: model and data about the common centre in all channels, and weights."""
    found = {}
    for number, block in enumerate(data.reader.blocks()):
        _, path = data.reader.move_to_center(block)
        turn = np.exp(2j * np.pi * path[:, None] * block.spw.freq_hz / SPEED_OF_LIGHT)
        weight = block.weight.astype(float)
        for places in (data.averaged.broken.places, data.averaged.wild):
            weight.reshape(-1)[places.get(number, [])] = 0
        some = np.arange(0, block.rows.size, 3)
        model = visibilities(block, some) * turn[some]
        for k, row in enumerate(some):
            measured = block.data[row] * turn[row][:, None]
            found[int(block.rows[row])] = (model[k], weight[row], measured)
    return found


def exact_sky(data):
    """Float64 visibilities of the catalogue model through the beam of each dump."""
    sky = data.catalog_model

    def visibilities(block, rows):
        (dump,) = np.unique(block.time_index)
        flux = sky.apparent_flux(block.spw.freq_hz, *data.reader.pointing[dump])
        # About the common centre: Gaussians tens of degrees off have another shape from field to field.
        uvw, path = data.reader.move_to_center(block)
        lmn = sky.sky.lmn(*data.reader.phase_center)
        shape = sky.sky.shape_about(*data.reader.phase_center)
        vis = predict_reference(uvw[rows], block.spw.freq_hz, lmn, flux, *shape)
        return vis * np.exp(-2j * np.pi * path[rows, None] * block.spw.freq_hz / SPEED_OF_LIGHT)

    return visibilities


def test_averages_and_their_model_are_means_over_the_same_channels(spoiled):
    """Flags of all kinds, drifting pointing, a beam: within a millionth of the flux."""
    data, sky = spoiled, spoiled.catalog_model
    model, weights = SkyVisibilities(sky), spoiled.nominal_weights()
    exact, total = at_full_resolution(data, exact_sky(data)), float(sky.apparent_jy.sum())
    kinds, samples, worst = set(), 0, 0.0
    for piece in data.blocks("", weights, model):
        block, bins = piece.block, piece.block.bins
        kinds.add((bins.factor, bins.sparse, bins.partial is not None))
        for i, row in enumerate(block.rows):
            if int(row) not in exact:
                continue
            vis, weight, measured = exact[int(row)]
            for b, p in zip(*np.nonzero(piece.weight[i]), strict=True):
                of_bin = slice(bins.start[b], bins.start[b] + bins.count[b])
                there = weight[of_bin, p] > 0
                samples += np.count_nonzero(there)
                worst = max(worst, abs(piece.model[i, b] - vis[of_bin][there].mean()))
                mean = measured[of_bin, p][there].mean()
                np.testing.assert_allclose(block.data[i, b, p], mean, rtol=1e-4, atol=1e-3)
                inverse = there.sum() ** 2 / (1 / weight[of_bin, p][there]).sum()
                assert block.weight[i, b, p] == pytest.approx(inverse, rel=1e-5)
    assert worst < 1e-6 * total
    # Nothing is lost, and nothing twice.
    assert samples == sum(np.count_nonzero(w > 0) for _, w, _ in exact.values())
    assert {True, False} == {sparse for _, sparse, _ in kinds} == {partial for _, _, partial in kinds}
    assert len({factor for factor, _, _ in kinds}) > 2


def test_a_dead_antenna_is_out_of_the_averages_and_named(spoiled):
    weights = spoiled.nominal_weights()
    assert spoiled.broken.silent[:, 4].all()
    for piece in spoiled.blocks("", weights):
        dead = (piece.block.antenna1 == 4) | (piece.block.antenna2 == 4)
        assert (piece.weight[dead] == 0).all()


def test_statistics_give_the_residual_of_all_channels(narrow, tmp_path, rng):
    """With gains: the sums are over bins, the minimum of the residual is in the same place."""
    fine, coarse = opened(narrow, tmp_path, averaged=False), opened(narrow, tmp_path)
    model = SkyVisibilities(fine.catalog_model)
    sums: list[BaselineStatistics] = []
    for data in (fine, coarse):
        gathered = data.gather(model, data.nominal_weights())
        sums.append(gathered.statistics)
    # The same information on amplitudes, but for what is left out for the score; by baseline and dump.
    model_power = [s.model.sum(axis=(0, 1)) for s in sums]
    np.testing.assert_allclose(*(m.sum() for m in model_power), rtol=0.02)
    phase = np.angle(sums[0].cross.sum(axis=(0, 1)) * np.conj(sums[1].cross.sum(axis=(0, 1))))
    snr = np.abs(sums[0].cross.sum(axis=(0, 1))) / np.sqrt(model_power[0])
    good = snr > 5 * np.sqrt(np.median(model_power[0] / model_power[0]))
    assert good.any()
    assert np.median(np.abs(phase[good])) < 0.2
    halves = sums[1].count.sum(axis=(1, 2, 3, 4))
    assert halves[0] == pytest.approx(halves[1], rel=0.05)


def test_the_noise_is_that_of_single_channels(narrow, tmp_path):
    fine, coarse = opened(narrow, tmp_path, averaged=False), opened(narrow, tmp_path)
    model = SkyVisibilities(fine.catalog_model)
    one, other = (d.gather(model, d.nominal_weights()).bounds for d in (fine, coarse))
    assert other.channels.variance == pytest.approx(one.channels.variance, rel=0.05)
    assert other.lowest.variance == pytest.approx(one.lowest.variance, rel=0.05)
    assert other.radiometer.variance == pytest.approx(one.radiometer.variance, rel=0.1)


def test_initial_tables_are_in_the_averages_once(narrow, tmp_path, rng):
    plain = opened(narrow, tmp_path)
    gain = rng.uniform(0.5, 2, (30, 2)) * np.exp(2j * np.pi * rng.uniform(size=(30, 2)))
    gain = gain[: len(plain.reader.ms.antennas)]
    one = gain_table_of(plain, gain)
    with_table = opened(narrow, tmp_path, initial=(one,))
    pieces = [
        [p for p in data.blocks("", data.nominal_weights()) if not p.block.bins.sparse]
        for data in (plain, with_table)
    ]
    for a, b in zip(*pieces, strict=True):
        vis, weight = plain.corrected(a.block, a.weight, (one,))
        again, same = with_table.corrected(b.block, b.weight)
        used = (weight > 0) & (same > 0)
        assert used.mean() > 0.9
        close = np.isclose(vis[used], again[used], rtol=1e-3, atol=1e-3 * np.abs(vis[used]).mean())
        # Interference is looked for after the tables: a channel in a million is taken in one case alone.
        assert close.mean() > 0.99


def gain_table_of(data, gain):
    """The same gains for all windows."""

    class OneWindow:
        spw_ids = data.spw_ids[:1]
        reader = data.reader

    table = gain_table(OneWindow, gain)
    return replace(table, gains=dict.fromkeys(data.spw_ids, next(iter(table.gains.values()))))


def test_an_image_model_is_averaged_as_the_data_are(spoiled, rng):
    image = np.zeros((192, 192), np.float32)
    y, x = rng.integers(30, 160, (2, 15))
    image[y, x] = rng.uniform(0.1, 1, 15)
    model = ImageVisibilities(image, ImageGrid(192, np.radians(24 / 3600), *spoiled.reader.phase_center), 1)
    reader = spoiled.reader
    exact = at_full_resolution(spoiled, lambda block, rows: model.visibilities(block, reader)[rows])
    for piece in spoiled.blocks("", spoiled.nominal_weights(), model):
        block, bins = piece.block, piece.block.bins
        for i in rng.choice(block.rows.size, min(5, block.rows.size), replace=False):
            if int(block.rows[i]) not in exact:
                continue
            vis, weight, _ = exact[int(block.rows[i])]
            for b, (a, k) in enumerate(zip(bins.start, bins.count, strict=True)):
                for p in np.flatnonzero(piece.weight[i, b] > 0):
                    there = weight[a : a + k, p] > 0
                    assert abs(piece.model[i, b] - vis[a : a + k][there].mean()) < 1e-5 * image.sum()


def test_images_of_averages_are_those_of_all_channels(narrow, tmp_path):
    """The same noise and the same sky; less one per cent at the edge."""
    fine = opened(narrow, tmp_path, averaged=False, flag=spoil)
    coarse = opened(narrow, tmp_path, flag=spoil)
    model = SkyVisibilities(fine.catalog_model)
    images = []
    for data in (fine, coarse):
        weights = data.nominal_weights()
        if data is fine:
            weights = replace(weights, outliers=coarse.averaged.wild)
        chunks = stokes_data(data, (), weights, "", subtract=model)
        imager = Imager(chunks, data.grid, "natural", threads=1)
        images.append((imager.dirty(), imager.thermal_rms(1.0)))
    (one, thermal), (other, again) = images
    assert again == pytest.approx(thermal, rel=0.01)
    inner = np.s_[48:144, 48:144]
    assert np.std((one - other)[inner]) < 0.05 * np.std(one[inner])


def test_windows_predicted_together_are_what_each_is_alone(narrow, tmp_path):
    data = opened(narrow, tmp_path)
    model, blocks = SkyVisibilities(data.catalog_model), list(data.averaged.blocks)
    groups = set(data.averaged.together.values())
    # Blocks of the same rows are next to each other, of different windows.
    assert max(len(group) for group in groups) > 4
    for group in groups:
        assert len({blocks[k].spw.id for k in group}) == len(group)
        for k, together in zip(
            group, model.of_same_rows([blocks[k] for k in group], data.reader), strict=True
        ):
            np.testing.assert_array_equal(blocks[k].uvw_m, blocks[group[0]].uvw_m)
            alone = model.visibilities(blocks[k], data.reader)
            np.testing.assert_array_equal(together, alone)
    # In a pass over the data each block gets its own.
    in_turn = data.in_turn()
    for piece in data.blocks("", data.nominal_weights(), model):
        np.testing.assert_array_equal(piece.model, in_turn(piece, model))


def test_what_does_not_fit_is_spooled_and_the_same(narrow, tmp_path):
    inside, outside = opened(narrow, tmp_path), opened(narrow, tmp_path, memory_bytes=1e5)
    model = SkyVisibilities(inside.catalog_model)
    a = inside.gather(model, inside.nominal_weights()).statistics
    b = outside.gather(model, outside.nominal_weights()).statistics
    assert inside.averaged.blocks.in_memory
    assert not outside.averaged.blocks.in_memory
    assert outside.averaged.blocks.bytes_read > 0
    assert len(outside.averaged.blocks) > len(inside.averaged.blocks)
    for name in ("cross", "model", "data", "count"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-6)
    # It has no name, and goes with the data.
    assert not any((tmp_path / "out").iterdir())
    assert outside._predicted.models() == []
    outside.close()
    assert len(outside.averaged.blocks) == 0


def test_a_scratch_file_that_does_not_fit_is_said_and_gone(narrow, tmp_path, small_disk):
    disk = small_disk(1)
    data = opened(narrow, tmp_path, memory_bytes=1e5, scratch=disk)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ResourceError, match=r"cannot be written \(No space left.*raise --memory-gb"):
        data.nominal_weights()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not any(disk.iterdir())
    assert os.statvfs(disk).f_bfree > 0.9 * os.statvfs(disk).f_blocks


def test_outliers_among_averages_are_out_of_all_their_channels(narrow, tmp_path):
    data = opened(narrow, tmp_path)
    nominal, outliers, expected = data.nominal_weights(), {}, set()
    rng = np.random.default_rng(3)
    for number, block in enumerate(data.averaged.blocks):
        outliers[number] = np.sort(rng.choice(block.weight.size, 5, replace=False))
        for place in outliers[number]:
            i, b, p = np.unravel_index(place, block.weight.shape)
            first = block.bins.start[b]
            for channel in range(first, first + block.bins.count[b]):
                expected.add((int(block.rows[i]), int(channel), int(p)))
    weights = replace(nominal, outliers=outliers)
    plain = {
        int(r): w
        for p in data.blocks_as_read("", nominal)
        for r, w in zip(p.block.rows, p.weight, strict=True)
    }
    gone = set()
    for piece in data.blocks_as_read("", weights):
        assert piece.block.spw.freq_hz.size == CHANNELS
        for row, weight in zip(piece.block.rows, piece.weight, strict=True):
            for channel, hand in zip(*np.nonzero(weight != plain[int(row)]), strict=True):
                assert weight[channel, hand] == 0
                gone.add((int(row), int(channel), int(hand)))
    had = {(r, c, p) for r, c, p in expected if plain[r][c, p] > 0}
    assert gone == had
    assert len(had) > 100
    # Single channels that were kept out of the averages have no weight either.
    wild = sum(np.count_nonzero(p.weight == 0) for p in data.blocks_as_read("", nominal))
    assert wild >= data.averaged.n_wild > 0


def test_columns_are_written_from_all_channels_in_their_order(narrow, tmp_path):
    data = opened(narrow, tmp_path)
    model = SkyVisibilities(data.catalog_model)
    pieces = list(data.blocks_as_read("", data.nominal_weights(), model))
    for piece, block in zip(pieces, data.reader.blocks(), strict=True):
        np.testing.assert_array_equal(piece.block.rows, block.rows)
        np.testing.assert_array_equal(piece.model, model.visibilities(block, data.reader))


def test_the_data_are_read_once(narrow, tmp_path):
    data = opened(narrow, tmp_path)
    model = SkyVisibilities(data.catalog_model)
    weights = data.nominal_weights()
    for _ in range(3):
        data.gather(model, weights)
        data.measure_residual(model, weights, ())
    stokes_data(data, (), weights, "", subtract=model)
    assert data.data_hash
    assert data.reader.passes == 1
    assert data.log.counts["predicted"] == data.averaged.samples // 2
    assert data.averaged.samples < data.reader.samples / 3
    assert data.averaged.samples == pytest.approx(averaged_samples(data.reader, data._averaging), rel=0.2)


def test_the_hash_is_that_of_the_data_as_they_are(narrow, tmp_path):
    assert opened(narrow, tmp_path).data_hash == opened(narrow, tmp_path, averaged=False).data_hash


def test_small_data_are_used_as_they_are(narrow, tmp_path):
    config = SelfCalConfig(catalog_dir=narrow.parent / "c", size=192, cell_arcsec=24.0)
    params = check_params(narrow, tmp_path / "out", config, ())
    data = CalibrationData(
        params.reader, (), StageLog(LogProgress()), grid=params.grid, averaging=params.averaging
    )
    assert data.averaged is None
    assert params.reader.cached
    assert next(data.blocks("", data.nominal_weights())).block.bins is None


def test_sub_bands_have_bins_of_their_own(narrow, tmp_path):
    data = opened(narrow, tmp_path)
    model, weights = SkyVisibilities(data.catalog_model), data.nominal_weights()
    parts = data._averaging.sub_bands
    assert parts > 1
    fine = data.gather(model, weights, sub_bands=parts).statistics
    whole = data.gather(model, weights).statistics
    assert (fine.count.sum(axis=(0, 2, 3, 4)) > 0).all()
    np.testing.assert_allclose(fine.collapsed(data.spw_ids).cross, whole.cross, rtol=1e-9, atol=1e-6)


def test_delays_of_ten_nanoseconds_are_found_in_averages(tmp_path):
    """They turn the phases within a bin by a fifth of a radian."""
    options = {
        "array": COMPACT,
        "channels": CHANNELS,
        "spws": 8,
        "dumps": 3,
        "sefd_jy": 2000.0,
        "drift": False,
    }
    simulate(tmp_path / "t.ms", SimulationConfig(**options, min_mjy=20.0, random_phases=True, delay_rms=4.0))
    build_strips("nvss", tmp_path / "t.catalog.ecsv", tmp_path / "c")
    found = {}
    for averaged in (False, True):
        data = opened(tmp_path / "t.ms", tmp_path, averaged=averaged)
        config = SelfCalConfig(catalog_dir=tmp_path / "c", size=192, cell_arcsec=24.0, spectral="delay")
        state = bandpass(data, CalState(weights=data.nominal_weights()), config, data.log)
        (table,) = state.bandpass
        gain = np.stack([table.gains[s].gain[0, :, :, 0] for s in data.spw_ids])
        found[averaged] = np.angle(gain / gain[:, :1])
        assert state.last.chi2_heldout < 1.1
    difference = np.angle(np.exp(1j * (found[True] - found[False])))
    assert np.abs(found[False]).std() > 0.5
    assert np.abs(difference).std() < 0.1


def test_windows_of_the_same_baselines_are_gridded_together(narrow, tmp_path, monkeypatch):
    """Or each visibility on a baseline of its own where that is quicker: the image is the same."""
    data = opened(narrow, tmp_path)
    weights = data.nominal_weights()
    images, channels = [], []
    for worth in (1, 10**9):
        monkeypatch.setattr("dsa110_contimg.selfcal.corrected_data.WORTH_A_GRID", worth)
        chunks = stokes_data(data, (), weights, "")
        imager = Imager(chunks, data.grid, "natural", threads=1)
        channels.append({freq.size for _, freq, _ in imager._data})
        images.append(imager.dirty())
    # Eight windows of bins of two channels each, and more in a bin.
    assert max(channels[0]) == 8 * CHANNELS // 2
    assert channels[1] == {1}
    np.testing.assert_allclose(images[0], images[1], atol=1e-4 * np.abs(images[0]).max())


def test_without_long_baselines_a_quick_image_shows_what_the_sky_model_lacks(narrow, tmp_path, monkeypatch):
    data = opened(narrow, tmp_path)
    config = SelfCalConfig(catalog_dir=narrow.parent / "c", size=192, cell_arcsec=24.0)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, data.log)
    sky = state.sky_model
    # The gains are right: only what is subtracted lacks a source.
    inside = np.hypot(*np.subtract(data.grid.sky_to_pixel(sky.sky.ra_rad, sky.sky.dec_rad), 96)) < 70
    which = int(np.flatnonzero(inside)[np.argmax(sky.apparent_jy[inside])])
    rest = np.arange(len(sky)) != which
    lacking = replace(sky, sky=sky.sky.select(rest), apparent_jy=sky.apparent_jy[rest])
    state = replace(state, model=SkyVisibilities(lacking))
    x, y = data.grid.sky_to_pixel(sky.sky.ra_rad[which], sky.sky.dec_rad[which])
    # As where there are millions of each length.
    monkeypatch.setattr("dsa110_contimg.selfcal.corrected_data.WORTH_A_GRID", 1)
    images = []
    for telling in (0.0, 0.9):
        monkeypatch.setattr("dsa110_contimg.selfcal.image_state.TELLING", telling)
        image, rms = quick_image(data, state, config, data.log, "")
        images.append(image)
        peak = np.unravel_index(image.argmax(), image.shape)
        assert np.hypot(peak[0] - y, peak[1] - x) < 1.5
        assert image.max() == pytest.approx(sky.apparent_jy[which], rel=0.15)
        assert image.max() > 20 * rms
    # Something was left out.
    assert np.abs(images[0] - images[1]).max() > 1e-3 * sky.apparent_jy[which]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("memory_bytes", [1e9, 1e3])
def test_a_part_of_the_dumps_is_as_it_is_in_all_of_them(narrow, tmp_path, monkeypatch, known, memory_bytes):
    """Data, weights, what is left alone, a model whose averages lack channels, predicted before or not."""
    monkeypatch.setattr(calibration_data, "FEWEST_DUMPS", 2)
    rng = np.random.default_rng(5)

    def flag(block):
        block.flag |= rng.random(block.flag.shape) < 0.1
        block.weight[block.flag] = 0

    data = opened(narrow, tmp_path, memory_bytes=memory_bytes, flag=flag)
    assert any(b.bins.partial is not None for b in data.averaged.blocks)
    model, weights = SkyVisibilities(data.catalog_model), data.nominal_weights()
    if known:
        list(data.blocks("", weights, model))
    assert data.sampled(1) is data
    part = data.sampled(9)
    assert (part.each, part.sampled(2)) == (2, part)
    some = {piece.number: piece for piece in part.blocks("", weights, model)}
    n_rows = 0
    for whole in data.blocks("", weights, model):
        rows = np.flatnonzero(whole.block.time_index % 2 == 1)
        if not rows.size:
            assert whole.number not in some
            continue
        piece = some[whole.number]
        n_rows += rows.size
        for name in ("rows", "time_index", "antenna1", "uvw_m", "data"):
            np.testing.assert_array_equal(getattr(piece.block, name), getattr(whole.block, name)[rows])
        np.testing.assert_array_equal(piece.weight, whole.weight[rows])
        np.testing.assert_array_equal(piece.untouched, whole.untouched[rows])
        total = data.catalog_model.apparent_jy.sum()
        np.testing.assert_allclose(piece.model, whole.model[rows], atol=3e-6 * total)
    assert n_rows == sum(p.block.rows.size for p in some.values()) > 0
    data.close()
