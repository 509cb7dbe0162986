"""What is in the sky and what in the catalogue, and that each says so of the other."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.simulate.observe import STREAMS
from dsa110_contimg.simulate.population import write_catalog
from dsa110_contimg.simulate.scene import build_scene
from dsa110_contimg.sky import AiryBeam, SkyModel, angular_separation

RA, DEC = np.radians([150.0, 54.57])
BEAM, FREQ, RADIUS = AiryBeam(4.65), 1.4e9, np.radians(6.0)
EXACT = {"flux_error": 0.0, "position_error": 0.0}
ARCSEC = np.pi / 648000


def scene(given=None, seed=1, **options):
    config = SimulationConfig(**{"min_mjy": 20.0, **EXACT, **options})
    seeds = np.random.SeedSequence(seed).spawn(len(STREAMS))
    streams = {n: np.random.default_rng(s) for n, s in zip(STREAMS, seeds, strict=True)}
    return build_scene(config, streams, RA, DEC, RADIUS, BEAM, FREQ, given)


def of_kind(kinds, kind):
    return np.array([k == kind for k in kinds])


def apparent(sky):
    away = angular_separation(sky.ra_rad, sky.dec_rad, RA, DEC)
    return (sky.flux_at(np.array([FREQ])) * BEAM.power(away, FREQ))[:, 0]


def test_by_default_the_catalogue_is_the_sky():
    made = scene()
    listed = of_kind(made.sky_kind, "listed")
    np.testing.assert_allclose(made.sky.flux_jy[listed], made.catalog.flux_jy)
    np.testing.assert_array_equal(made.sky_entry[listed], np.arange(len(made.catalog)))
    assert set(made.sky_kind) == {"listed", "far"}
    assert (made.sky_entry[~listed] == -1).all()


def test_missing_sources_are_in_the_sky_alone_and_spurious_ones_in_the_catalogue():
    plain, made = scene(), scene(missing=0.2, spurious=0.3)
    n = len(plain.catalog)
    missing, spurious = of_kind(made.sky_kind, "missing"), of_kind(made.catalog_kind, "spurious")
    assert missing.sum() / n == pytest.approx(0.2, abs=0.05)
    assert spurious.sum() / n == pytest.approx(0.24, abs=0.05)  # of those that are listed
    assert len(made.catalog) == n - missing.sum()
    assert (made.sky_entry[missing] == -1).all()
    matched = made.sky_entry >= 0
    np.testing.assert_allclose(made.sky.flux_jy[matched], made.catalog.flux_jy[made.sky_entry[matched]])
    assert not set(made.sky_entry) & set(np.flatnonzero(spurious))


def test_variables_change_by_up_to_a_factor_of_two():
    made = scene(variables=0.5)
    chosen = of_kind(made.sky_kind, "variable")
    ratio = made.sky.flux_jy[chosen] / made.catalog.flux_jy[made.sky_entry[chosen]]
    assert chosen.sum() / len(made.catalog) == pytest.approx(0.5, abs=0.05)
    assert ratio.min() >= 0.5
    assert ratio.max() <= 2
    assert (ratio > 1.5).any()
    assert (ratio < 0.67).any()


def test_doubles_are_one_source_in_the_catalogue():
    made = scene(doubles=0.3)
    parts = of_kind(made.sky_kind, "double")
    entries = made.sky_entry[parts]
    assert (np.bincount(entries)[np.unique(entries)] == 2).all()
    sky = made.sky.select(parts)
    for entry in np.unique(entries)[:50]:
        pair, listed = sky.select(entries == entry), made.catalog.select(np.array([entry]))
        assert pair.flux_jy.sum() == pytest.approx(listed.flux_jy[0])
        apart = angular_separation(*(x[k] for k in (0, 1) for x in (pair.ra_rad, pair.dec_rad)))
        assert 9.9 < apart / ARCSEC < 45.1
        for axis in ("ra_rad", "dec_rad"):
            centroid = np.average(getattr(pair, axis), weights=pair.flux_jy)
            assert centroid == pytest.approx(getattr(listed, axis)[0], abs=0.01 * ARCSEC)


def test_the_faint_population_lies_below_the_catalogue():
    made = scene(faint_mjy=2.0)
    faint = made.sky.select(of_kind(made.sky_kind, "faint"))
    assert 2e-3 <= faint.flux_jy.min() < 2.2e-3
    assert 15e-3 < faint.flux_jy.max() < 20e-3
    assert len(made.catalog) == len(scene().catalog)
    square_degrees = np.pi * np.degrees(BEAM.null_rad(FREQ)) ** 2
    expected = 50 * ((2 / 2.5) ** -0.9 - (20 / 2.5) ** -0.9) * square_degrees
    assert len(faint) == pytest.approx(expected, rel=0.1)


def test_sources_put_in_on_purpose_are_listed_with_their_places():
    made, plain = scene(new_jy=0.4, absent_jy=0.3, variable_ratio=2.0), scene()
    new, absent = of_kind(made.sky_kind, "new"), of_kind(made.catalog_kind, "absent")
    assert apparent(made.sky.select(new)) == pytest.approx([0.4])
    assert apparent(made.catalog.select(absent)) == pytest.approx([0.3])
    assert made.sky_entry[new] == -1
    assert np.flatnonzero(absent)[0] not in made.sky_entry
    for model, flux in ((made.sky.select(new), 0.4), (made.catalog.select(absent), 0.3)):
        away = angular_separation(model.ra_rad, model.dec_rad, RA, DEC)
        assert away < BEAM.fwhm_rad(FREQ) / 2
        near = (
            angular_separation(plain.sky.ra_rad, plain.sky.dec_rad, model.ra_rad, model.dec_rad)
            < 180 * ARCSEC
        )
        assert not (apparent(plain.sky)[near] > 0.02 * flux).any()
    (one,) = np.flatnonzero(of_kind(made.sky_kind, "variable"))
    assert made.sky.flux_jy[one] == pytest.approx(2 * made.catalog.flux_jy[made.sky_entry[one]])
    # Bright, but not the brightest.
    bright = np.sort(apparent(plain.catalog))[::-1]
    assert apparent(made.catalog)[made.sky_entry[one]] in bright[1:10]


def test_a_variable_source_needs_a_source():
    given = SkyModel.points(np.array([RA]), np.array([DEC + 0.08]), np.ones(1))
    with pytest.raises(InputError, match="no listed source within half power"):
        scene(given, variable_ratio=2.0)


def test_the_real_sky_is_that_of_the_strips(tmp_path):
    strip = SkyModel.points(RA + np.array([0.0, 0.01]), np.full(2, DEC), np.array([1.0, 0.5]))
    write_catalog(tmp_path / "s.ecsv", strip, 45.0, 65.0)
    build_strips("nvss", tmp_path / "s.ecsv", tmp_path)
    made = scene(real_sky=True, catalog_dir=tmp_path, index_scatter=0.1, min_mjy=500.0)
    listed = made.sky.select(of_kind(made.sky_kind, "listed"))
    np.testing.assert_allclose(listed.flux_jy, [1.0, 0.5])
    np.testing.assert_allclose(listed.ra_rad, strip.ra_rad)
    assert listed.spectral_index.std() > 0
    assert len(scene(real_sky=True, catalog_dir=tmp_path, min_mjy=600.0).catalog) == 1
    # Where the catalogue ends, drawn sources go on.
    deeper = scene(real_sky=True, catalog_dir=tmp_path).catalog
    assert len(deeper) > 100
    assert np.count_nonzero(deeper.flux_jy >= 0.5) == 2


def test_real_sources_keep_their_sizes_in_the_catalogue(tmp_path):
    given = SkyModel.points(np.array([RA]), np.array([DEC]), np.ones(1))
    wide = SkyModel(
        given.name,
        given.ra_rad,
        given.dec_rad,
        given.flux_jy,
        given.spectral_index,
        *[np.full(1, 20 * ARCSEC)] * 2,
        np.full(1, 0.5),
    )
    write_catalog(tmp_path / "s.ecsv", wide, 45.0, 65.0)
    build_strips("nvss", tmp_path / "s.ecsv", tmp_path)
    made = scene(real_sky=True, catalog_dir=tmp_path, min_mjy=1000.0)
    listed = made.sky.select(of_kind(made.sky_kind, "listed"))
    np.testing.assert_allclose(listed.major_rad / ARCSEC, 20)


def lm(sky):
    return sky.lmn(RA, DEC)[:, :2]


@pytest.mark.parametrize("kind", ["mirror", "mirror-dec", "shift", "rotate", "scale"])
def test_a_catalogue_that_is_wrong_as_a_whole(kind):
    plain, made = scene(), scene(catalog_error=kind)
    for name in ("ra_rad", "dec_rad", "flux_jy"):
        np.testing.assert_array_equal(getattr(made.sky, name), getattr(plain.sky, name))
    np.testing.assert_array_equal(made.sky_entry, plain.sky_entry)
    before, after = lm(plain.catalog), lm(made.catalog)
    flux = made.catalog.flux_jy / plain.catalog.flux_jy
    np.testing.assert_allclose(flux, 0.5 if kind == "scale" else 1.0)
    if kind == "shift":
        moved = after - before
        assert np.hypot(*moved[0]) / ARCSEC == pytest.approx(1200)
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)
        return
    turn = np.radians(0.2)
    expected = {
        "mirror": before * [-1, 1],
        "mirror-dec": before * [1, -1],
        "rotate": before @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]),
        "scale": before,
    }[kind]
    np.testing.assert_allclose(after, expected, atol=1e-9)


def test_the_size_of_a_catalogue_error_is_as_asked():
    plain = scene()
    scaled = scene(catalog_error="scale", catalog_error_size=3.0)
    np.testing.assert_allclose(scaled.catalog.flux_jy, 3 * plain.catalog.flux_jy)
    moved = lm(scene(catalog_error="shift", catalog_error_size=60.0).catalog) - lm(plain.catalog)
    np.testing.assert_allclose(np.hypot(*moved.T) / ARCSEC, 60)
    turned = scene(catalog_error="rotate", catalog_error_size=90.0).catalog
    # North goes to east, as position angles do.
    np.testing.assert_allclose(lm(turned)[:, 0], lm(plain.catalog)[:, 1], atol=1e-9)


def test_extended_entries_turn_with_the_catalogue():
    given = SkyModel.points(np.array([RA]), np.array([DEC + 0.01]), np.ones(1))
    wide = {"major_rad": np.full(1, 20 * ARCSEC), "pa_rad": np.full(1, 0.5)}
    given = replace(given, **wide)
    assert scene(given, catalog_error="mirror").catalog.pa_rad == pytest.approx(np.pi - 0.5)
    assert scene(given, catalog_error="rotate", catalog_error_size=10.0).catalog.pa_rad == pytest.approx(
        0.5 + np.radians(10)
    )
    assert scene(given).catalog.pa_rad == pytest.approx(0.5)


def test_the_catalogue_of_another_field_has_the_same_counts_and_none_of_the_sources():
    plain, made = scene(), scene(catalog_error="other-field")
    np.testing.assert_array_equal(made.sky.flux_jy, plain.sky.flux_jy)
    assert len(made.catalog) == pytest.approx(len(plain.catalog), rel=0.2)
    assert set(made.catalog_kind) == {"other"}
    assert len(made.catalog_kind) == len(made.catalog)
    assert (made.sky_entry == -1).all()
    assert not np.isin(made.catalog.flux_jy, plain.catalog.flux_jy[plain.catalog.flux_jy != 2.5]).any()


def test_a_bright_double_is_one_entry_at_its_centroid():
    made, plain = scene(double_jy=0.6, absent_jy=0.2), scene(absent_jy=0.2)
    parts, entry = of_kind(made.sky_kind, "double"), of_kind(made.catalog_kind, "double")
    pair, listed = made.sky.select(parts), made.catalog.select(entry)
    assert len(pair) == 2
    assert apparent(listed) == pytest.approx([0.6])
    np.testing.assert_allclose(pair.flux_jy, listed.flux_jy[0] / 2)
    np.testing.assert_array_equal(made.sky_entry[parts], np.flatnonzero(entry).repeat(2))
    apart = angular_separation(*(x[k] for k in (0, 1) for x in (pair.ra_rad, pair.dec_rad)))
    assert apart / ARCSEC == pytest.approx(60)
    for axis in ("ra_rad", "dec_rad"):
        assert getattr(pair, axis).mean() == pytest.approx(getattr(listed, axis)[0], abs=0.01 * ARCSEC)
    away = angular_separation(listed.ra_rad, listed.dec_rad, RA, DEC)
    assert away < BEAM.fwhm_rad(FREQ) / 2
    assert len(made.catalog) == len(plain.catalog) + 1


def test_the_brightest_entries_have_a_multiple_of_their_true_flux():
    options = {"doubles": 0.5, "variables": 0.5, "absent_jy": 5.0, "flux_error": 0.05}
    made, plain = scene(bright_error=2.5, bright_error_n=4, **options), scene(**options)
    wrong = np.flatnonzero(made.catalog.flux_jy != plain.catalog.flux_jy)
    # The absent one is brighter than any, and is not in the sky.
    there = of_kind(plain.catalog_kind, "absent") == 0
    order = np.argsort(-np.where(there, apparent(plain.catalog), 0))
    np.testing.assert_array_equal(wrong, np.sort(order[:4]))
    for k in wrong:
        true = made.sky.flux_jy[made.sky_entry == k].sum()
        assert made.catalog.flux_jy[k] == pytest.approx(2.5 * true)
