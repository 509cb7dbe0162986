"""What held-out sources say, of sources made by hand from a known truth."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.sky_check import (
    CATALOG_SCATTER,
    FEWEST_SOURCES,
    MANY_AGREE,
    TELLING,
    Estimate,
    HeldoutSources,
    RecoveredHalf,
    SkyCheck,
    check_sky,
    median_of_all,
    robust_fit,
)
from dsa110_contimg.sky import AiryBeam

ARCSEC = np.pi / 180 / 3600
BEAM, FREQ_HZ = AiryBeam(4.65), 1.4e9
HALF_POWER = BEAM.fwhm_rad(FREQ_HZ) / 2
N_TIMES, N_SPWS = 8, 6
#: Errors that an estimate may be off by.
SIGMAS = 3.5


def power(radius):
    return BEAM.power(radius, FREQ_HZ)[:, 0]


def half(fraction=1.0, error=0.03, expected=0.95, **changes):
    made = RecoveredHalf(
        fraction=fraction,
        error=error,
        of_input=0.1,
        expected=expected,
        by_time=np.full(N_TIMES, fraction),
        by_spw=np.full(N_SPWS, fraction),
        tables=(),
        held=np.zeros(0, bool),
    )
    return replace(made, **changes)


def heldout(rng, n=120, halves=None, scatter=0.05, error=0.01, place_error=0.3, expect=None, move=None):
    """Sources within 1.2 of the radius of half power, as bright as the catalogue has them but for scatter.

    `expect` gives the factor on the flux at a place, `move` by how much sources there are off.
    """
    radius = HALF_POWER * 1.2 * np.sqrt(rng.random(n))
    angle = rng.uniform(0, 2 * np.pi, n)
    lm = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    factor = np.ones(n) if expect is None else expect(lm)
    shift = np.zeros((n, 2)) if move is None else move(lm)
    return HeldoutSources(
        halves=halves or (half(), half()),
        half=np.arange(n) % 2,
        index=np.arange(n),
        ratio=factor * (1 + scatter * rng.standard_normal(n)) + error * rng.standard_normal(n),
        ratio_error=np.full(n, error),
        shift_rad=shift + place_error * ARCSEC * rng.standard_normal((n, 2)),
        shift_error=np.full((n, 2), place_error * ARCSEC),
        lm=lm,
        resolution_rad=1e-6,
    )


def check(found):
    return check_sky(found, BEAM, FREQ_HZ)


def near(estimate, true):
    return abs(estimate.value - true) < SIGMAS * estimate.error


def spoiled(rng, found, fraction=0.2):
    """Some of the sources not there, too bright, or somewhere else."""
    bad = rng.random(found.ratio.size) < fraction
    ratio, shift = found.ratio.copy(), found.shift_rad.copy()
    ratio[bad] = rng.choice([0.02, 0.3, 3.0], bad.sum())
    shift[bad] += rng.uniform(-30, 30, (bad.sum(), 2)) * ARCSEC
    return replace(found, ratio=ratio, shift_rad=shift), bad


def test_a_healthy_sky(rng):
    said = check(heldout(rng))
    assert said.tells
    assert near(said.recovered, 1)
    assert near(said.phased, 1)
    assert said.n_sources == said.n_agreeing == 120
    assert said.agreeing_fraction == 1
    assert said.scatter == pytest.approx(0.05, rel=0.3)
    assert near(said.beam_width, 1)
    assert near(said.rotation_deg, 0)
    assert near(said.stretch, 0)
    assert all(near(p, 0) for p in said.pointing_arcmin)
    assert said.beam_width.error < 0.03
    assert said.rotation_deg.error < np.degrees(ARCSEC / HALF_POWER)


@pytest.mark.parametrize("outliers", [0.0, 0.2])
@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.5])
def test_the_recovered_fraction_is_that_of_most_sources(rng, factor, outliers):
    found, _ = spoiled(rng, heldout(rng, expect=lambda lm: np.full(len(lm), factor)), outliers)
    said = check(found).recovered
    # A fifth of them at either side, and more of them faint, move a median by half of the scatter or so.
    assert abs(said.value - factor) < SIGMAS * said.error + outliers * 0.2 * factor
    assert said.error == pytest.approx(1.25 * CATALOG_SCATTER / np.sqrt(120), rel=1.0)


def test_sources_elsewhere_or_of_other_flux_do_not_agree(rng):
    found, bad = spoiled(rng, heldout(rng), 0.3)
    said = check(found)
    assert 0 < bad.sum() < 120
    assert said.n_agreeing == pytest.approx(120 - bad.sum(), abs=2)
    # A common factor is one disagreement and not that of all.
    assert check(replace(found, ratio=0.6 * found.ratio, ratio_error=0.6 * found.ratio_error)).n_agreeing > 70


def test_where_nothing_is_nothing_agrees(rng):
    said = check(heldout(rng, expect=lambda lm: np.full(len(lm), 0.05)))
    assert said.n_sources == 120
    assert said.n_agreeing == 0
    assert said.recovered.value < 0.1


def test_what_noise_may_do_is_not_held_against_a_source(rng):
    found = heldout(rng, error=0.09, scatter=0.0, place_error=2.0)
    assert check(found).agreeing_fraction > 0.95


def test_faint_sources_do_not_count(rng):
    found = heldout(rng)
    error = found.ratio_error.copy()
    error[:50] = 0.2
    ratio = found.ratio.copy()
    ratio[:50] = 5.0
    said = check(replace(found, ratio=ratio, ratio_error=error))
    assert said.n_sources == 70
    assert near(said.recovered, 1)


@pytest.mark.parametrize("outliers", [0.0, 0.2])
@pytest.mark.parametrize("width", [0.7, 0.9, 1.0, 1.1, 1.3])
def test_the_width_of_the_beam(rng, width, outliers):
    def expect(lm):
        radius = np.hypot(*lm.T)
        return power(radius / width) / power(radius)

    found, _ = spoiled(rng, heldout(rng, n=200, expect=expect), outliers)
    said = check(found)
    assert abs(said.beam_width.value - width) < SIGMAS * said.beam_width.error + 0.01
    assert said.beam_width.error < 0.05
    # What sources at the centre show does not depend on the width.
    assert abs(said.central_flux.value - 1) < SIGMAS * said.central_flux.error + 0.01
    assert said.central_flux.error < 0.05
    if abs(width - 1) > 0.05:
        assert said.beam_width.beyond(1, 4)


@pytest.mark.parametrize("outliers", [0.0, 0.2])
@pytest.mark.parametrize("arcmin", [(0.0, 0.0), (8.0, 0.0), (0.0, -8.0), (6.0, 6.0)])
def test_the_centre_of_the_beam(rng, arcmin, outliers):
    centre = np.radians(np.array(arcmin) / 60)

    def expect(lm):
        return power(np.hypot(*(lm - centre).T)) / power(np.hypot(*lm.T))

    found, _ = spoiled(rng, heldout(rng, n=200, expect=expect), outliers)
    said = check(found)
    for estimate, true in zip(said.pointing_arcmin, arcmin, strict=True):
        # The beam is Gaussian to a tenth or so.
        assert abs(estimate.value - true) < SIGMAS * estimate.error + 0.1 * abs(true)
        assert estimate.error < 2
    assert not said.beam_width.beyond(1, 5)


def turned(lm, degrees):
    """By how much sources move that are turned north through east, as a catalogue is by the simulator."""
    angle = np.radians(degrees)
    (east, north), c, s = lm.T, np.cos(angle), np.sin(angle)
    return np.stack([east * c + north * s, north * c - east * s], axis=1) - lm


@pytest.mark.parametrize("outliers", [0.0, 0.2])
@pytest.mark.parametrize(("degrees", "stretch"), [(0.0, 0.0), (0.05, 0.0), (-0.05, 5e-4), (0.0, -5e-4)])
def test_rotation_and_stretch(rng, degrees, stretch, outliers):
    found, _ = spoiled(rng, heldout(rng, move=lambda lm: turned(lm, degrees) + stretch * lm), outliers)
    said = check(found)
    assert near(said.rotation_deg, degrees)
    assert near(said.stretch, stretch)
    assert said.rotation_deg.beyond(0, 5) == (degrees != 0)
    assert said.stretch.beyond(0, 5) == (stretch != 0)


def test_shear_is_told_from_rotation(rng):
    sheared = np.array([[3e-4, 2e-4], [2e-4, -3e-4]])
    said = check(heldout(rng, move=lambda lm: lm @ sheared))
    assert near(said.shear, np.hypot(3e-4, 2e-4))
    assert said.shear.beyond(0, 5)
    assert near(said.rotation_deg, 0)
    assert near(said.stretch, 0)


def test_a_common_shift_is_neither(rng):
    """Of each half the median is taken out, but never quite."""
    said = check(heldout(rng, move=lambda lm: np.tile([2 * ARCSEC, -2 * ARCSEC], (len(lm), 1))))
    assert near(said.rotation_deg, 0)
    assert near(said.stretch, 0)


def test_of_few_sources_all_flux_together_is_what_is_known(rng):
    found = heldout(rng, n=FEWEST_SOURCES - 1, halves=(half(0.9), half(0.8)))
    said = check(found)
    assert said.n_sources == FEWEST_SOURCES - 1
    assert said.recovered == said.phased
    assert said.recovered.value == pytest.approx(0.85)
    assert said.recovered.error == pytest.approx(0.03 / np.sqrt(2))
    for estimate in (said.beam_width, *said.pointing_arcmin, said.rotation_deg, said.stretch):
        assert np.isnan(estimate.value)
        assert not estimate.beyond(0, 1)
    assert np.isfinite(check(heldout(rng, n=FEWEST_SOURCES + 2)).rotation_deg.value)


def test_no_source_at_all(rng):
    found = heldout(rng)
    said = check(replace(found, ratio_error=np.full(120, 1.0)))
    assert said.n_sources == 0
    assert np.isnan(said.agreeing_fraction)
    assert said.recovered == said.phased


def test_a_half_that_tells_nothing_of_the_other_is_left_out(rng):
    weak = half(fraction=0.2, expected=0.9 * TELLING)
    found = heldout(rng, halves=(half(1.0), weak))
    ratio = np.where(found.half == 0, found.ratio, 0.1)
    said = check(replace(found, ratio=ratio))
    assert said.phased.value == pytest.approx(1)
    assert said.n_sources == np.count_nonzero(found.half == 0)
    assert near(said.recovered, 1)
    # And the one that stays the other way round, where the order is the other one.
    other = check(replace(found, halves=(weak, half(1.0)), half=1 - found.half, ratio=ratio))
    assert other.n_agreeing == said.n_agreeing
    nothing = check(replace(found, halves=(weak, weak)))
    assert not nothing.tells
    assert np.isnan(nothing.recovered.value)
    assert nothing.n_sources == 0


def test_a_sky_is_confirmed_by_most_of_many_sources_that_tell(rng):
    healthy = check(heldout(rng))
    assert healthy.confirmed
    n = healthy.n_sources
    assert not replace(healthy, n_agreeing=int(0.9 * MANY_AGREE * n)).confirmed
    assert not replace(healthy, n_sources=FEWEST_SOURCES - 1, n_agreeing=FEWEST_SOURCES - 1).confirmed
    assert not replace(healthy, recovered=Estimate(1.0, 0.5)).confirmed
    assert not SkyCheck().confirmed


def test_the_better_half_weighs_more(rng):
    said = check(heldout(rng, n=2, halves=(half(1.0, error=0.01), half(0.5, error=0.1, of_input=0.9))))
    assert said.phased.value == pytest.approx((1.0 + 0.005) / 1.01)
    assert said.phased_input == pytest.approx((0.1 + 0.009) / 1.01)


def test_noise_tells_nothing(rng):
    assert not check(heldout(rng, n=2, halves=(half(0.0, error=0.4), half(0.3, error=0.5)))).tells
    assert check(heldout(rng, n=2, halves=(half(0.0, error=0.1), half(0.3, error=0.5)))).tells


def test_sources_that_scatter_wildly_are_not_too_weak_to_tell(rng):
    """A mirrored sky: halves that say for certain that nothing is there, and sources that are anything."""
    found = heldout(rng, n=37, halves=(half(-0.01, error=0.08), half(0.0, error=0.08)))
    said = check(replace(found, ratio=1.2 * rng.standard_normal(37)))
    assert said.n_agreeing == 0
    assert said.tells


@pytest.mark.parametrize("change", [0.0, 0.4, -0.4])
def test_trends_over_time_and_band(rng, change):
    def line(n):
        return 1 + change * np.linspace(-0.5, 0.5, n) + 0.01 * rng.standard_normal(n)

    time, spw = line(N_TIMES), line(N_SPWS)
    time[3] = np.nan
    halves = (half(by_time=time), half(by_time=time))
    said = check(heldout(rng, halves=halves))
    assert near(said.time_trend, change)
    assert said.frequency_trend.value == pytest.approx(0, abs=1e-9)
    said = check(heldout(rng, halves=(half(by_spw=spw), half(by_spw=spw))))
    assert near(said.frequency_trend, change)
    assert said.time_trend.value == pytest.approx(0, abs=1e-9)


def test_one_window_or_three_dumps_have_no_trend(rng):
    few = half(by_time=np.array([0.5, 1.0, 1.5]), by_spw=np.ones(1))
    said = check(heldout(rng, halves=(few, few)))
    assert np.isnan(said.time_trend.value)
    assert np.isnan(said.frequency_trend.value)


def test_a_few_bright_sources_do_not_outvote_all_others(rng):
    error = np.concatenate([np.full(3, 0.004), rng.uniform(0.2, 1.0, 190)])
    true = np.concatenate([np.ones(3), np.full(190, 2.8)])
    found = median_of_all(true + error * rng.standard_normal(193), error)
    assert abs(found.value - 2.8) < SIGMAS * found.error < 0.5
    # Of another sky they have nothing.
    nothing = median_of_all(np.where(true == 1, 1.0, 0.0) + error * rng.standard_normal(193), error)
    assert abs(nothing.value) < SIGMAS * nothing.error
    assert not np.isfinite(median_of_all(np.ones(7), np.full(7, 0.01)).value)


def test_few_values_do_not_make_a_trend():
    rng, beyond = np.random.default_rng(5), 0
    for _ in range(400):
        design = np.stack([np.ones(10), *rng.standard_normal((3, 10))], axis=1)
        values = rng.standard_normal(10)
        values[:2] += 10
        solution, error = robust_fit(design, values, np.ones(10))
        beyond += int((np.abs(solution[1:]) > SIGMAS * error[1:]).any())
    assert beyond < 400 * 0.03


def test_all_together_speak_where_few_are_bright():
    rng = np.random.default_rng(2)
    found = heldout(rng, n=100, halves=(half(0.4), half(0.4)), error=0.3, scatter=0.0)
    check = check_sky(found, BEAM, FREQ_HZ)
    assert check.n_sources == 0
    assert check.together.beyond(1.0, SIGMAS) is False
    assert check.together.error < 0.1
