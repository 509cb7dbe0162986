from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.imaging import CleanResult, ImageGrid, RestoringBeam
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.stages.add_components import add_components, unlisted_sources
from dsa110_contimg.sky import AiryBeam, ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import joined

CENTRE = (2.0, 0.9)
FREQ = np.linspace(1.3e9, 1.5e9, 8)
GRID = ImageGrid(256, 1e-4, *CENTRE)


@pytest.fixture
def seed():
    sky = SkyModel.points(np.array([2.0]), np.array([0.9]), np.array([2.0]), spectral_index=-0.75)
    return ApparentSky(
        sky=sky,
        beam=AiryBeam(4.65),
        apparent_jy=np.array([2.0]),
        freq_hz=1.4e9,
        catalog="nvss",
        catalog_hash="",
    )


def left(components, rms=1e-3):
    """An image of what a model leaves, with clean components by (row, column)."""
    model = np.zeros((256, 256), np.float32)
    for place, flux in components.items():
        model[place] = flux
    blank = np.zeros_like(model)
    cleaned = CleanResult(model, blank, blank, blank, RestoringBeam(3e-4, 3e-4, 0.0), 1, 0.0, 0.0, rms)
    return CalibratedImage(
        cleaned=cleaned,
        restored=blank,
        difference=None,
        shallow=cleaned,
        shallow_restored=blank,
        thermal_per_noise=1.0,
    )


def search(seed, components, **options):
    return unlisted_sources(
        seed, left(components, **options), GRID, np.array([CENTRE]), FREQ, spectral_index=-0.75
    )


def find(seed, components, **options):
    return search(seed, components, **options)[0]


def test_bright_sources_are_taken_whole_and_faint_ones_left(seed):
    found = find(seed, {(128, 40): 0.3, (129, 41): -0.1, (60, 60): 0.01})
    assert len(found) == 2
    assert found.apparent_jy.sum() == pytest.approx(0.2)
    x, y = GRID.sky_to_pixel(found.sky.ra_rad, found.sky.dec_rad)
    np.testing.assert_allclose([x, y], [[40, 41], [128, 129]], atol=1e-6)


def test_fluxes_are_those_outside_the_beam(seed):
    found = find(seed, {(128, 1): 0.3})
    through = found.apparent_flux(FREQ, *CENTRE).mean()
    assert through == pytest.approx(0.3, rel=0.01)
    assert found.sky.flux_jy[0] > 0.3


def test_nothing_in_nothing_out(seed):
    assert find(seed, {}) is None
    assert find(seed, {(9, 9): 0.019}) is None
    assert find(seed, {(9, 9): 0.1}, rms=0.01) is None


def test_thousands_of_components_are_not_a_few_sources(seed):
    assert find(seed, {(r, c): 0.01 for r in range(50, 90) for c in range(50, 90)}) is None


def test_a_hole_is_no_source(seed):
    assert find(seed, {(128, 40): -0.3}) is None


def test_flux_is_told_where_the_beam_lets_none_through(seed):
    narrow = replace(seed, beam=AiryBeam(200.0))
    found, outside = search(narrow, {(128, 40): 0.3})
    assert found is None
    assert outside == pytest.approx(0.3)
    assert search(seed, {(128, 40): 0.3})[1] == 0.0


def test_joining_keeps_the_order(seed):
    more = replace(seed, sky=replace(seed.sky, name=("other",)), apparent_jy=np.array([5.0]))
    both = joined(seed, more)
    assert both.sky.name == (*seed.sky.name, "other")
    np.testing.assert_array_equal(both.apparent_jy, [2.0, 5.0])
    assert joined(seed, None) is seed


def test_where_nothing_stands_out_there_is_no_clean(data, solved, stage_config, log, monkeypatch):
    """One image without CLEAN shows it."""
    monkeypatch.setattr("dsa110_contimg.selfcal.stages.add_components.MIN_SHARE", 0.9)
    assert add_components(data, solved, stage_config, log) is solved
    assert log.counts["griddings"] == 1
