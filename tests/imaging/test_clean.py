import logging
import os
import time

import numpy as np
import pytest

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import CleanSettings, Imager, captured_stdout, clean, fit_source
from dsa110_contimg.imaging.clean import NEGLIGIBLE, far_sidelobes
from dsa110_contimg.imaging.measure import mad_rms

POINTS = [(200, 90, 1.0), (60, 170, 0.6), (120, 31, 0.3)]
SIGMA = 0.3


@pytest.fixture(scope="module")
def noisy(observation):
    ra, dec = observation.sky([(x, y) for x, y, _ in POINTS])
    vis = observation.points(ra, dec, [flux for *_, flux in POINTS])
    return observation.chunk(vis + observation.noise(np.random.default_rng(6), SIGMA))


@pytest.fixture(scope="module")
def imager(observation, noisy):
    return Imager([noisy], observation.grid)


@pytest.fixture(scope="module")
def cleaned(imager):
    return clean(imager)


def test_fluxes_and_positions_come_back(observation, imager, cleaned):
    thermal = imager.thermal_rms(SIGMA)
    for x, y, flux in POINTS:
        fit = fit_source(cleaned.restored, x, y, cleaned.beam, observation.grid)
        assert fit.peak_jy == pytest.approx(flux, rel=0.01, abs=3 * thermal)
        assert (fit.x, fit.y) == pytest.approx((x, y), abs=0.1)
        assert cleaned.model[y - 2 : y + 3, x - 2 : x + 3].sum() == pytest.approx(
            flux, abs=cleaned.threshold_jy + 2 * thermal
        )
    assert cleaned.rms == pytest.approx(thermal, rel=0.1)
    assert cleaned.peak_residual < 6 * thermal
    assert cleaned.threshold_jy == pytest.approx(3 * cleaned.rms)
    assert cleaned.n_major >= 1


def test_residual_is_that_of_the_visibilities(imager, cleaned):
    np.testing.assert_allclose(imager.dirty_model_subtracted(cleaned.model), cleaned.residual, atol=1e-6)


def test_floor_stops_the_cleaning(imager, cleaned):
    shallow = clean(imager, CleanSettings(threshold_jy=0.4))
    assert shallow.threshold_jy == 0.4
    assert 0.25 < shallow.peak_residual < 0.45
    assert np.count_nonzero(shallow.model) < np.count_nonzero(cleaned.model)
    absolute = clean(imager, CleanSettings(threshold_jy=0.4, auto_threshold_sigma=None))
    np.testing.assert_allclose(absolute.model, shallow.model, atol=1e-4)


def test_one_cycle_finds_the_sources_without_another_gridding(imager, cleaned):
    imager.psf()
    before = imager.griddings
    once = clean(imager, CleanSettings(one_cycle=True))
    assert imager.griddings == before + 1
    assert once.n_major == 0
    for x, y, flux in POINTS:
        found = once.model[y - 2 : y + 3, x - 2 : x + 3].sum()
        assert found == pytest.approx(flux, abs=max(0.1 * flux, 2 * cleaned.threshold_jy))
    # As deep as the rms that the sidelobes of the sources have in the dirty image.
    assert cleaned.rms < once.rms < mad_rms(imager.dirty())


def test_mask_confines_the_components(observation, imager):
    mask = np.zeros((256, 256), bool)
    mask[165:176, 55:66] = True
    result = clean(imager, mask=mask)
    assert not result.model[~mask].any()
    assert result.model[mask].sum() == pytest.approx(0.6, rel=0.1)


def test_trap_5_empty_mask_is_refused(imager):
    with pytest.raises(ImagingError, match="mask is empty"):
        clean(imager, mask=np.zeros((256, 256), bool))
    with pytest.raises(ImagingError, match="shape"):
        clean(imager, mask=np.ones((128, 128), bool))


def test_each_option_changes_the_result(imager, cleaned):
    for option in (
        {"gain": 0.3},
        {"major_gain": 0.5},
        {"niter": 10},
        {"mask_sigma": None},
        {"multiscale": True},
    ):
        assert not np.array_equal(clean(imager, CleanSettings(**option)).model, cleaned.model), option


def test_no_iterations_leave_the_dirty_image(imager):
    result = clean(imager, CleanSettings(niter=0))
    assert not result.model.any()
    np.testing.assert_allclose(result.restored, imager.dirty(), atol=1e-6)


def test_no_depth_is_refused(imager):
    with pytest.raises(ImagingError, match="depth"):
        clean(imager, CleanSettings(auto_threshold_sigma=None))


def test_pure_noise_yields_hardly_a_component(observation):
    noise = observation.chunk(observation.noise(np.random.default_rng(8)))
    start = time.monotonic()
    result = clean(Imager([noise], observation.grid))
    assert time.monotonic() - start < 5
    assert np.count_nonzero(result.model) < 5


def test_random_phases_end(observation):
    rng = np.random.default_rng(11)
    ra, dec = observation.sky([(x, y) for x, y, _ in POINTS])
    vis = observation.points(ra, dec, [5.0, 3.0, 2.0]) * np.exp(
        2j * np.pi * rng.random((observation.shape[0], 1))
    )
    start = time.monotonic()
    result = clean(Imager([observation.chunk(vis)], observation.grid))
    assert time.monotonic() - start < 10
    assert np.isfinite(result.restored).all()
    assert result.rms <= 1.06 * np.std(Imager([observation.chunk(vis)], observation.grid).dirty())


def test_diverging_cycle_is_taken_back(observation, noisy, caplog):
    class Wrong(Imager):
        def dirty_model_subtracted(self, model_image):
            return super().dirty_model_subtracted(-5 * model_image)

    imager = Wrong([noisy], observation.grid)
    with caplog.at_level(logging.WARNING):
        result = clean(imager)
    assert "taken back" in caplog.text
    assert not result.model.any()
    np.testing.assert_allclose(result.residual, imager.dirty(), atol=1e-6)


def test_nothing_reaches_the_standard_output(imager, capfd, caplog):
    with caplog.at_level(logging.DEBUG, "dsa110_contimg.imaging"):
        clean(imager)
    assert capfd.readouterr().out == ""
    assert "Deconvolving" in caplog.text


def test_descriptor_comes_back_after_an_error(capfd):
    def fail():
        with captured_stdout():
            os.write(1, b"inside\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(1, b"outside\n")
    print("printed")  # noqa: T201
    assert capfd.readouterr().out == "outside\nprinted\n"


def test_what_hardly_stands_out_takes_one_residual_image(observation):
    """Peaks of a few times the depth are CLEANed in one go, and the residual is exact."""
    places = [(200, 90, 0.1), (60, 170, 0.06)]
    ra, dec = observation.sky([(x, y) for x, y, _ in places])
    vis = observation.points(ra, dec, [flux for *_, flux in places])
    vis = vis + observation.noise(np.random.default_rng(7), SIGMA)
    imager = Imager([observation.chunk(vis)], observation.grid)
    settings = CleanSettings(threshold_jy=3 * imager.thermal_rms(SIGMA))
    once = clean(imager, settings)
    assert settings.is_direct(np.abs(imager.dirty()).max(), once.rms)
    assert once.n_major == 1
    np.testing.assert_allclose(imager.dirty_model_subtracted(once.model), once.residual, atol=1e-6)
    thermal = imager.thermal_rms(SIGMA)
    for x, y, flux in places:
        fit = fit_source(once.restored, x, y, once.beam, observation.grid)
        assert fit.peak_jy == pytest.approx(flux, abs=3 * thermal)
    assert once.rms == pytest.approx(thermal, rel=0.1)
    assert once.peak_residual < 6 * thermal


def test_what_stands_out_far_is_cleaned_in_steps(imager, cleaned):
    settings = CleanSettings(threshold_jy=3 * imager.thermal_rms(SIGMA))
    peak, rms = np.abs(imager.dirty()).max(), mad_rms(imager.dirty())
    assert not settings.is_direct(peak, rms)
    # Nor where sidelobes are what is seen, or the noise is not known.
    assert not settings.is_direct(10 * rms, 2 * imager.thermal_rms(SIGMA))
    assert not CleanSettings().is_direct(10 * cleaned.rms, cleaned.rms)
    assert cleaned.n_major > 1


def test_nothing_above_the_depth_takes_no_cycle(imager):
    imager.psf()
    before = imager.griddings
    nothing = clean(imager, CleanSettings(threshold_jy=2.0))
    assert (nothing.n_major, np.count_nonzero(nothing.model)) == (0, 0)
    assert imager.griddings == before + 1


def test_a_residual_that_nobody_could_tell_from_the_exact_one_is_not_made(observation):
    """Of faint sources the far sidelobes are nothing beside the noise; what is left is right all the same."""
    ra, dec = observation.sky([(200, 90)])
    noise = observation.noise(np.random.default_rng(7), SIGMA)
    imager = Imager([observation.chunk(observation.points(ra, dec, [0.06]) + noise)], observation.grid)
    psf, thermal = imager.psf(), imager.thermal_rms(SIGMA)
    before = imager.griddings
    once = clean(imager, CleanSettings(threshold_jy=3 * thermal))
    assert np.count_nonzero(once.model)
    negligible = (
        np.linalg.norm(once.model) * far_sidelobes(psf, once.beam, imager.grid) < NEGLIGIBLE * thermal
    )
    assert imager.griddings == before + (1 if negligible else 2)
    exact = imager.dirty_model_subtracted(once.model)
    off = np.abs(once.residual - exact)
    assert np.sqrt(np.mean(off**2)) < NEGLIGIBLE * thermal
    assert off.max() < 0.5 * thermal
