"""A dominant source that is no point, as the catalogue lists it, gets two points or a Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.bandpass import bandpass
from dsa110_contimg.selfcal.stages.resolve_bright import REST, resolve_bright
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import SkyModel, radec_from_lm
from tests.selfcal.support import Notes, hashed, observe, open_data

ARCSEC = np.pi / 180 / 3600
APART = 60.0


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """Two equal points, listed as one of 3 Jy: data, options, and what comes of it."""
    ms, config = observe(
        tmp_path_factory.mktemp("double"), double_jy=3.0, double_arcsec=APART, random_phases=True
    )
    data = open_data(ms, config)
    before, notes = hashed(data), Notes()
    start = CalState(weights=data.nominal_weights())
    state = resolve_bright(data, start, config, StageLog(notes))
    assert hashed(data) == before
    assert start.model is None
    return data, config, start, state, notes


def places(data, sky):
    return sky.lmn(*data.reader.phase_center)[:, :2] / ARCSEC


def test_a_double_gets_two_points(double):
    data, _, _, state, notes = double
    listed = data.catalog_model
    brightest = int(np.argmax(listed.apparent_jy))
    pair = state.components
    assert len(pair) == 2
    one, other = places(data, pair.sky)
    assert np.hypot(*(one - other)) == pytest.approx(APART, rel=0.15)
    # About the place of the one, and together as bright as the catalogue has it.
    assert np.hypot(*((one + other) / 2 - places(data, listed.sky)[brightest])) < 1
    assert pair.apparent_jy.sum() == pytest.approx(listed.apparent_jy[brightest], rel=1e-6)
    assert pair.apparent_jy.min() > 0.3 * pair.apparent_jy.sum()
    assert notes.about("arcsec apart in its place")


def test_the_single_source_keeps_its_place_in_the_list(double):
    data, _, _, state, _ = double
    listed, model = data.catalog_model, state.sky_model
    assert len(model) == len(listed) + 2
    factor = model.apparent_jy[: len(listed)] / listed.apparent_jy
    brightest = int(np.argmax(listed.apparent_jy))
    assert factor[brightest] == pytest.approx(REST)
    assert (np.delete(factor, brightest) == 1).all()
    np.testing.assert_allclose(model.apparent_jy[-2:], state.components.apparent_jy)


def test_what_follows_begins_anew_with_the_better_model(double):
    data, config, start, state, _ = double
    assert state.rounds == ()
    assert state.weights is start.weights
    assert state.statistics is None
    one, two = (reweight(data, s, config, StageLog(LogProgress())) for s in (start, state))
    # Each is in units of its own noise.
    without, split = (s.last.chi2_heldout * s.noise.variance for s in (one, two))
    assert split < 0.5 * without


@pytest.mark.parametrize("side", [1, -1])
def test_the_brighter_one_is_put_on_its_side(tmp_path, log, side):
    """Amplitudes do not tell on which; held-out channels do."""
    rng = np.random.default_rng(2)
    centre = np.radians([150.0, 54.57])
    share, apart = 0.3, side * np.array([40.0, -30.0])
    lm = np.concatenate([[[0, 0], apart * ARCSEC], rng.uniform(-0.012, 0.012, (40, 2))])
    flux = np.concatenate([[3 * (1 - share), 3 * share], rng.uniform(0.03, 0.3, 40)])
    sky = SkyModel.points(*radec_from_lm(lm[:, 0], lm[:, 1], *centre), flux)
    ms, config = observe(
        tmp_path, sky=sky, random_phases=True, flux_error=0, position_error=0, index_scatter=0
    )
    data = open_data(ms, config)
    listed = data.catalog_model
    # As a catalogue of low resolution has it: one source at the centroid.
    at = np.argsort(-listed.apparent_jy)[:2]
    total = listed.apparent_jy[at].sum()
    single = SkyModel.points(
        *radec_from_lm(*(share * apart * ARCSEC)[:, None], *centre),
        np.array([listed.sky.flux_jy[at].sum()]),
        reference_freq_hz=listed.sky.reference_freq_hz,
        spectral_index=float(listed.sky.spectral_index[at[0]]),
    )
    others = np.setdiff1d(np.arange(len(listed)), at)
    data.catalog_model = replace(
        listed,
        sky=SkyModel.concatenate([single, listed.sky.select(others)]),
        apparent_jy=np.concatenate([[total], listed.apparent_jy[others]]),
    )
    state = resolve_bright(data, CalState(weights=data.nominal_weights()), config, log)
    pair = state.components
    bright, faint = np.argsort(-pair.apparent_jy)
    found = places(data, pair.sky)
    np.testing.assert_allclose(found[faint] - found[bright], apart, atol=6)
    assert pair.apparent_jy[faint] / pair.apparent_jy.sum() == pytest.approx(share, abs=0.08)


def test_a_point_that_outshines_its_field_stays_one(observed, data, stage_config, log, notes):
    listed = data.catalog_model
    assert listed.apparent_jy[0] ** 2 > 0.3 * (listed.apparent_jy**2).sum()
    start = CalState(weights=data.nominal_weights())
    found = resolve_bright(data, start, stage_config, log)
    assert found.components is None
    assert len(found.sky_model) == len(listed)
    assert not notes.about("in its place")


def test_what_was_solved_on_the_way_is_not_solved_again(observed, data, stage_config, log, notes):
    """Of a point that stays one the next stage takes over model, statistics and rounds."""
    found = resolve_bright(data, CalState(weights=data.nominal_weights()), stage_config, log)
    assert found.by_sub_band is not None
    solved = bandpass(data, found, stage_config, log)
    assert solved.model is found.model
    assert solved.rounds is found.rounds
    assert solved.by_sub_band is None
    anew = bandpass(data, CalState(weights=data.nominal_weights()), stage_config, log)
    assert anew.last.chi2_heldout == pytest.approx(solved.last.chi2_heldout, rel=1e-6)


@pytest.mark.parametrize("listed_arcsec", [0.0, 45.0, 100.0])
def test_a_resolved_source_gets_a_gaussian(tmp_path, listed_arcsec):
    """Amplitudes of gains would follow what is missing on the long baselines."""
    ra, dec = np.radians([150.2, 149.5, 150.9, 149.1]), np.radians([54.7, 54.2, 55.0, 54.9])
    points, first = SkyModel.points(ra, dec, np.array([4, 0.3, 0.3, 0.2])), np.array([1.0, 0, 0, 0])
    shape = {"major_rad": 75 * ARCSEC * first, "minor_rad": 40 * ARCSEC * first, "pa_rad": 0.6 * first}
    resolved = replace(points, **shape)
    ms, config = observe(tmp_path, sky=resolved, random_phases=True)
    rows = Table.read(tmp_path / "t.catalog.ecsv")
    brightest = np.arange(len(rows)) == np.argmax(rows["flux_mjy"])
    rows["major_arcsec"] = rows["minor_arcsec"] = listed_arcsec * brightest
    rows.write(tmp_path / "t.catalog.ecsv", overwrite=True)
    build_strips("nvss", tmp_path / "t.catalog.ecsv", tmp_path / "c")
    data, notes = open_data(ms, config), Notes()
    state = resolve_bright(data, CalState(weights=data.nominal_weights()), config, StageLog(notes))
    assert notes.about("a Gaussian of")
    (gaussian,) = (state.components.sky,)
    assert gaussian.major_rad[0] / ARCSEC == pytest.approx(75, rel=0.1)
    assert gaussian.minor_rad[0] / ARCSEC == pytest.approx(40, rel=0.15)
    assert gaussian.pa_rad[0] == pytest.approx(0.6, abs=0.15)
    # What follows begins with it, and with nothing of the point.
    after, of_point = (
        reweight(data, begun, config, StageLog(notes))
        for begun in (state, CalState(weights=data.nominal_weights()))
    )
    assert after.last.chi2_heldout < 2.5 < of_point.last.chi2_heldout / 4


def test_a_double_among_others_as_bright_is_no_matter(double, log, notes):
    """Where nothing outshines the field amplitudes tell nothing."""
    data, config, start, _, _ = double
    other = open_data(data.reader.ms.path, config)
    listed = other.catalog_model
    factor = np.minimum(1, listed.apparent_jy[5] / listed.apparent_jy)
    sky = replace(listed.sky, flux_jy=listed.sky.flux_jy * factor)
    other.catalog_model = replace(listed, sky=sky, apparent_jy=listed.apparent_jy * factor)
    assert resolve_bright(other, start, config, log) is start
    assert not notes.lines


def test_without_a_catalogue_nothing_is_listed(observed, stage_config, start, log):
    data = open_data(observed, stage_config.with_options(use_nvss_seeding=False))
    assert resolve_bright(data, start, stage_config, log) is start
