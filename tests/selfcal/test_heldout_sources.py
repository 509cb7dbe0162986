"""Gains from one half of the sky make the other half appear where it is the catalogue's, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.heldout_sources import (
    MOST_MEASURED,
    halves,
    leaders,
    measure_heldout_sources,
    recovered_halves,
)
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import TELLING
from dsa110_contimg.selfcal.split_statistics import gather_split
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import AiryBeam, ApparentSky, SkyModel, radec_from_lm
from dsa110_contimg.sky.apparent_sky import joined, scaled
from tests.selfcal.support import gain_errors, open_data

BEAM, CENTRE, FREQ_HZ = AiryBeam(4.65), (2.6, 0.95), 1.4e9
HALF_POWER = BEAM.fwhm_rad(FREQ_HZ) / 2


def apparent(lm, flux):
    """Sky model of points about the centre, as they come."""
    sky = SkyModel.points(*radec_from_lm(lm[:, 0], lm[:, 1], *CENTRE), flux)
    return ApparentSky(sky=sky, beam=BEAM, apparent_jy=flux, freq_hz=FREQ_HZ, catalog="nvss", catalog_hash="")


def random_sky(seed, n, slope):
    """Sources all over the beam and beyond, the brightest first; fluxes fall as a power law."""
    rng = np.random.default_rng(seed)
    radius, angle = HALF_POWER * 1.4 * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    lm = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return lm, apparent(lm, np.sort(rng.random(n) ** (-1 / slope))[::-1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(100, 400), st.sampled_from([2.0, 3.0, 10.0]))
def test_both_halves_hold_flux_everywhere(seed, n, slope):
    lm, model = random_sky(seed, n, slope)
    first, flux = halves(model, model, CENTRE, 0.0), model.apparent_jy
    assert first[0]
    assert abs(flux[first].sum() - flux[~first].sum()) <= 1.5 * flux[0]
    ring = np.floor(np.hypot(*lm.T) / HALF_POWER * 3).clip(max=3)
    for number in range(4):
        for east in (True, False):
            for north in (True, False):
                cell = (ring == number) & ((lm[:, 0] > 0) == east) & ((lm[:, 1] > 0) == north)
                parts = flux[cell & first].sum(), flux[cell & ~first].sum()
                # Where one source has most of it there is no balance to be had.
                if np.count_nonzero(cell) >= 8 and flux[0] < 0.25 * flux[cell].sum():
                    assert min(parts) > 0.15 * sum(parts)


def test_what_outshines_the_field_is_balanced_by_the_others():
    _lm, model = random_sky(3, 100, 10.0)
    flux = model.apparent_jy.copy()
    flux[0] = 0.8 * flux[1:].sum()
    first = halves(replace(model, apparent_jy=flux), model, CENTRE, 0.0)
    assert flux[~first].sum() == pytest.approx(flux[first].sum(), rel=0.15)
    assert 1 < np.count_nonzero(first) < np.count_nonzero(~first)


def test_the_order_of_the_list_does_not_matter(rng):
    _, model = random_sky(4, 80, 3.0)
    order = rng.permutation(80)
    mixed = replace(model, sky=model.sky.select(order), apparent_jy=model.apparent_jy[order])
    np.testing.assert_array_equal(halves(mixed, mixed, CENTRE, 0.0), halves(model, model, CENTRE, 0.0)[order])


def test_the_components_of_one_source_are_held_out_together(rng):
    """A list of CLEAN components has many for each source: gains from one would know the others."""
    beam = 1e-4
    radius, angle = HALF_POWER * np.sqrt(rng.random(40)), rng.uniform(0, 2 * np.pi, 40)
    places = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + np.eye(40)
    places = places[apart.min(axis=1) > 3 * beam]
    of = np.repeat(np.arange(len(places)), 13)
    off = rng.uniform(-0.3, 0.3, (len(of), 2)) * beam
    off[::13] = 0.0
    flux = np.where(np.arange(len(of)) % 13 == 0, 1.0, rng.uniform(0.1, 0.9, len(of)))
    model = apparent(places[of] + off, flux)
    first = halves(model, model, CENTRE, beam)
    np.testing.assert_array_equal(first, first[::13][of])
    assert model.apparent_jy[first].sum() == pytest.approx(flux.sum() / 2, rel=0.15)
    # One by one they come apart.
    alone = halves(model, model, CENTRE, 0.0)
    assert len(set(alone[:13])) == 2


def test_sources_do_not_chain(rng):
    row = np.stack([np.arange(30) * 0.9e-4, np.zeros(30)], axis=1)
    leader = leaders(row, rng.random(30), 1e-4)
    assert np.bincount(leader).max() <= 3
    assert (np.abs(row[leader] - row)[:, 0] <= 1e-4).all()


def test_components_go_with_the_source_beside_them(rng):
    """Gains from one half could see the other one by its own components otherwise."""
    lm, model = random_sky(5, 60, 3.0)
    beside = rng.integers(0, 60, 30)
    more = apparent(lm[beside] + 1e-6 * rng.standard_normal((30, 2)), np.full(30, 5.0))
    first = halves(joined(model, more), model, CENTRE, 0.0)
    np.testing.assert_array_equal(first[:60], halves(model, model, CENTRE, 0.0))
    np.testing.assert_array_equal(first[60:], first[beside])


@pytest.fixture(scope="module")
def first(data):
    return halves(data.catalog_model, data.catalog_model, data.reader.phase_center, 0.0)


def half_of(model, chosen):
    return replace(model, sky=model.sky.select(chosen), apparent_jy=model.apparent_jy[chosen])


def test_statistics_of_two_halves_are_those_gathered_apart(data, start, solved, first):
    model = data.catalog_model
    one, other = (SkyVisibilities(half_of(model, chosen)) for chosen in (first, ~first))
    tables = solved.last.tables
    whole = data.gather(SkyVisibilities(model), start.weights, tables).statistics
    split = gather_split(data, (one, other), (other, one), start.weights, tables)
    for part, alone in zip(split.parts, (one, other), strict=True):
        apart = data.gather(alone, start.weights, tables).statistics
        for name in ("cross", "model", "data", "count"):
            expected = getattr(apart, name)
            np.testing.assert_allclose(
                getattr(part, name), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max(), err_msg=name
            )
        np.testing.assert_array_equal(part.antenna1, apart.antenna1)
    # What is sought of a half may be anything: here the other one.
    for sought, part in zip(split.sought, split.parts[::-1], strict=True):
        for name in ("cross", "model", "data", "count"):
            np.testing.assert_array_equal(getattr(sought, name), getattr(part, name), err_msg=name)
    for disturbing, part in zip(split.disturbing, split.parts[::-1], strict=True):
        np.testing.assert_allclose(
            disturbing.cross.real, part.model, rtol=1e-4, atol=1e-4 * whole.model.max()
        )
    # |M1 + M2|^2 = |M1|^2 + |M2|^2 + 2 Re M1 conj(M2)
    total = split.parts[0].model + split.parts[1].model + 2 * split.overlap.cross.real
    np.testing.assert_allclose(total, whole.model, rtol=1e-3, atol=1e-3 * whole.model.max())
    # The overlap is no smaller thing: it would be missed.
    assert np.abs(split.overlap.cross).max() > 0.05 * whole.model.max()
    np.testing.assert_allclose(split.overlap.data, split.parts[0].model, rtol=1e-4)
    np.testing.assert_allclose(split.overlap.model, split.parts[1].model, rtol=1e-4)


def test_the_direction_of_the_overlap(data, start, first):
    """Sum w M1 conj(M2): M1 in the place of the data, against M2."""
    model = data.catalog_model
    one, other = (SkyVisibilities(half_of(model, chosen)) for chosen in (first, ~first))
    split = gather_split(data, (one, other), (one, other), start.weights)
    back = gather_split(data, (other, one), (other, one), start.weights)
    atol = 1e-3 * np.abs(split.overlap.cross).max()
    np.testing.assert_allclose(back.overlap.cross, split.overlap.cross.conj(), atol=atol)
    np.testing.assert_allclose(split.disturbing[1].cross, split.overlap.cross, atol=atol)
    np.testing.assert_allclose(split.disturbing[0].cross, back.overlap.cross, atol=atol)
    assert np.abs(split.overlap.cross.imag).max() > 10 * atol


@pytest.fixture(scope="module")
def healthy(data, solved, stage_config, first):
    log = StageLog(LogProgress())
    return recovered_halves(data, solved, stage_config, data.catalog_model, data.catalog_model, first, log)


def test_the_flux_of_the_catalogues_sky_comes_back_both_ways(data, healthy, first):
    found = healthy
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].held, ~first)
    np.testing.assert_array_equal(found[1].held, first)
    for half in found:
        assert half.expected > TELLING
        assert half.fraction == pytest.approx(1, abs=max(0.05, 3 * half.error))
        assert 0 < half.error < 0.15
        # Phases were random.
        assert abs(half.of_input) < 0.15
        assert half.by_time.shape == data.reader.times.shape
        np.testing.assert_allclose(half.by_time, half.fraction, atol=0.1)
        assert half.by_spw.shape == (len(data.spw_ids),)
        assert half.by_spw.mean() == pytest.approx(half.fraction, abs=0.02)


def test_gains_of_a_half_were_solved_without_the_other(data, solved, stage_config, healthy, first, log):
    """Half of the sky model twice as bright: its own gains follow, and see the other as half as bright."""
    model = data.catalog_model
    factor = np.where(first, 2.0, 1.0)
    sky = replace(model.sky, flux_jy=model.sky.flux_jy * factor)
    wrong = replace(model, sky=sky, apparent_jy=model.apparent_jy * factor)
    found = recovered_halves(data, solved, stage_config, wrong, wrong, first, log)
    # Calibrated to twice the flux, the second half has twice of its own; and the other way round.
    assert found[0].fraction == pytest.approx(2 * healthy[0].fraction, rel=0.15)
    assert found[1].fraction == pytest.approx(0.5 * healthy[1].fraction, rel=0.15)


def test_phases_of_an_input_that_was_calibrated_recover_as_much(
    observed, data, solved, stage_config, first, log
):
    near = open_data(observed, stage_config, (*solved.last.tables, gain_errors(data, 3.0)))
    state = reweight(near, CalState(weights=near.nominal_weights()), stage_config, log)
    found = recovered_halves(near, state, stage_config, near.catalog_model, near.catalog_model, first, log)
    for half in found:
        assert half.of_input / half.expected == pytest.approx(half.fraction, abs=0.05)
        assert half.fraction == pytest.approx(1, abs=0.15)


def test_a_sky_that_is_the_model_comes_back_altogether(observed, data, solved, stage_config, first, log):
    """What gains take of the half that they are not solved on is the same of the model, and divided out."""
    exact = open_data(observed, stage_config)
    model = SkyVisibilities(exact.catalog_model)
    rng = np.random.default_rng(6)
    shape = (len(data.reader.ms.antennas), 2)
    gain = rng.uniform(0.8, 1.2, shape) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    for block in exact.reader.blocks():
        sky = model.visibilities(block, exact.reader)[:, :, None]
        block.data[:] = sky * (gain[block.antenna1] * gain[block.antenna2].conj())[:, None, :]
    found = recovered_halves(
        exact, solved, stage_config, exact.catalog_model, exact.catalog_model, first, log
    )
    assert max(abs(half.expected - 1) for half in found) > 0.005
    for half in found:
        assert half.fraction == pytest.approx(1, abs=0.001)


def mirrored(model, centre):
    lm = model.sky.lmn(*centre)[:, :2]
    ra, dec = radec_from_lm(-lm[:, 0], lm[:, 1], *centre)
    return replace(model, sky=replace(model.sky, ra_rad=ra, dec_rad=dec))


def test_nothing_of_a_mirrored_catalogue_is_there(observed, data, stage_config, log):
    other = open_data(observed, stage_config)
    other.catalog_model = mirrored(data.catalog_model, data.reader.phase_center)
    state = reweight(other, CalState(weights=other.nominal_weights()), stage_config, log)
    model = other.catalog_model
    found = recovered_halves(
        other, state, stage_config, model, model, halves(model, model, data.reader.phase_center, 0.0), log
    )
    assert len(found) == 2
    for half in found:
        assert abs(half.fraction) < 0.35
    assert min(abs(half.fraction) for half in found) < 0.15


def test_a_model_without_two_halves_says_nothing(data, solved, stage_config, log):
    everything = np.ones(len(data.catalog_model), bool)
    found = recovered_halves(
        data, solved, stage_config, data.catalog_model, data.catalog_model, everything, log
    )
    assert found == ()


def test_sources_one_by_one(data, solved, stage_config, log):
    found = measure_heldout_sources(data, solved, stage_config, log)
    model = data.catalog_model
    n = found.index.size
    assert n >= MOST_MEASURED
    assert np.unique(found.index).size == n
    assert max(np.bincount(found.half)) <= MOST_MEASURED
    for number, half in enumerate(found.halves):
        mine = found.index[found.half == number]
        # Each with the gains that it had no part in, the brightest of its half.
        assert half.held[mine].all()
        others = np.setdiff1d(np.flatnonzero(half.held & model.sky.is_point), mine)
        assert model.apparent_jy[mine].min() >= model.apparent_jy[others].max(initial=0)
    bright = found.ratio_error < 0.01
    assert np.count_nonzero(bright) >= 8
    assert np.median(found.ratio[bright]) == pytest.approx(1, abs=0.06)
    assert np.median(np.hypot(*found.shift_rad[bright].T)) < np.radians(2 / 3600)
    radius = np.hypot(*found.lm.T)
    separation = model.sky.lmn(*data.reader.phase_center)[found.index, :2]
    np.testing.assert_allclose(radius, np.hypot(*separation.T), atol=1e-4)


def test_an_unseeded_run_has_no_halves(observed, solved, stage_config, log):
    unseeded = open_data(observed, stage_config.with_options(use_nvss_seeding=False))
    assert measure_heldout_sources(unseeded, solved, stage_config, log) is None


def test_a_flux_scale_of_the_model_is_seen(data, solved, stage_config, first, healthy, log):
    """Gains have amplitudes: a model that is too bright altogether changes nothing."""
    brighter = scaled(data.catalog_model, 3.0)
    found = recovered_halves(data, solved, stage_config, brighter, brighter, first, log)
    for one, other in zip(found, healthy, strict=True):
        assert one.fraction == pytest.approx(other.fraction, abs=0.02)
