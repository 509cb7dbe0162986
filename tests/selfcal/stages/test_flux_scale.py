"""The bright sources are rescaled to the median catalogue flux and position, while that predicts better."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.selfcal.stages import flux_scale as stage
from dsa110_contimg.selfcal.stages.flux_scale import MOST_RESCALINGS, flux_scale, rescaled
from dsa110_contimg.selfcal.state import Verdict
from dsa110_contimg.sky.apparent_sky import scaled
from tests.selfcal.support import open_data

ARCSEC = np.pi / 180 / 3600
CENTRE = (np.radians(150.0), np.radians(54.57))


def test_good_sources_are_put_where_and_how_bright_they_were_measured(data):
    catalogue = data.catalog_model
    measured = SourceMeasurement(
        index=np.array([0, 1, 2, 3, 4]),
        ratio=np.array([1.1, 0.2, -0.05, 0.5, 1.3]),
        ratio_error=np.full(5, 0.01),
        shift_rad=np.tile([2 * ARCSEC, -3 * ARCSEC], (5, 1)),
        shift_error=np.full((5, 2), 0.1 * ARCSEC),
        good=np.array([True, True, True, True, False]),
        scale=1.0,
        offset_rad=(0.0, 0.0),
    )
    before = catalogue.sky.flux_jy.copy(), catalogue.sky.ra_rad.copy()
    new = rescaled(catalogue, measured, CENTRE)
    assert len(new) == len(catalogue)
    factor = new.sky.flux_jy / catalogue.sky.flux_jy
    # What is not in the sky may come out a little negative: nothing is put there.
    np.testing.assert_allclose(factor[:5], [1.1, 0.2, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(new.apparent_jy, catalogue.apparent_jy * factor)
    shift = (new.sky.lmn(*CENTRE) - catalogue.sky.lmn(*CENTRE))[:, :2] / ARCSEC
    # Too faint to tell where it is, or not measured well: where the catalogue has it.
    for k, moves in enumerate([True, False, False, True, False]):
        np.testing.assert_allclose(shift[k], [2, -3] if moves else [0, 0], atol=1e-5)
    assert (factor[5:] == 1).all()
    np.testing.assert_allclose(shift[5:], 0, atol=1e-5)
    np.testing.assert_array_equal(catalogue.sky.flux_jy, before[0])
    np.testing.assert_array_equal(catalogue.sky.ra_rad, before[1])


@pytest.fixture
def settled(data, solved, stage_config, log):
    return flux_scale(data, solved, stage_config, log)


def test_a_catalogue_with_errors_is_mended(data, solved, settled, notes):
    assert settled is not solved
    assert settled.flux_scale.n_sources >= 8
    # What the flux scale was off by before anything was mended stands in the summary.
    first = notes.about("rescaled to the median")[0]
    assert f"{100 * (settled.flux_scale.flux_scale - 1):+.1f} %" in first
    assert abs(settled.measured.scale - 1) < abs(settled.flux_scale.flux_scale - 1)
    common = solved.noise.variance / settled.noise.variance
    assert settled.last.chi2_heldout < common * solved.last.chi2_heldout
    assert settled.sky_model is not data.catalog_model
    assert solved.sky_model is data.catalog_model
    assert solved.flux_scale is None
    assert not settled.sky_differs


@pytest.mark.parametrize(("limit", "times"), [(np.inf, {1}), (0.0, set(range(2, MOST_RESCALINGS + 1)))])
def test_the_loop_ends_where_the_medians_are_near(
    limit, times, data, solved, stage_config, log, notes, monkeypatch
):
    for name in ("NEAR_SCALE", "NEAR_ARCSEC", "NEAR_CHI2"):
        monkeypatch.setattr(stage, name, limit)
    flux_scale(data, solved, stage_config, log)
    assert len(notes.about("rescaled to the median")) in times


def test_a_flux_scale_that_amplitudes_cannot_leave_says_that_the_sky_differs(
    observed, data, solved, stage_config, log, notes, monkeypatch
):
    """Amplitudes were solved against three times what the catalogue lists, and no two sources agree."""
    assert any(r.solution.mode == "ap" for r in solved.rounds)
    other = open_data(observed, stage_config)
    factor = np.array([1, 1 / 3, 1 / 9, 1 / 3, 1 / 9])[np.arange(len(data.catalog_model)) % 5]
    listed = scaled(data.catalog_model, 1.0)
    other.catalog_model = replace(
        listed,
        sky=replace(listed.sky, flux_jy=listed.sky.flux_jy * factor),
        apparent_jy=listed.apparent_jy * factor,
    )
    state = flux_scale(other, solved, stage_config, log)
    assert state.sky_differs
    assert not solved.sky_differs
    said = notes.about("the sky is not that of the catalogue")[0].split()
    assert float(said[said.index("times") - 1]) == pytest.approx(3, abs=0.05)
    assert state.rounds is solved.rounds
    assert state.measured is None
    monkeypatch.setattr(stage, "MOST_RESCALINGS", 1)
    # Of phases alone the fluxes may be anything.
    phases = replace(solved, rounds=solved.rounds[:1])
    assert not flux_scale(other, phases, stage_config, log).sky_differs


def test_a_solution_that_explains_nothing_is_left_unless_the_sources_agree(
    data, solved, stage_config, log, notes, monkeypatch
):
    rejected = solved.with_round(-1, replace(solved.last, verdict=Verdict(False, "")))
    # They do agree: only the brightest may be wrong in the catalogue.
    assert flux_scale(data, rejected, stage_config, log).last.verdict.accepted
    monkeypatch.setattr(stage, "_agree", lambda measured: False)
    told = len(notes.lines)
    assert flux_scale(data, rejected, stage_config, log) is rejected
    assert len(notes.lines) == told


def test_what_cannot_be_measured_is_left(observed, data, solved, stage_config, log, notes):
    few = open_data(observed, stage_config)
    index = np.arange(7)
    few.catalog_model = replace(
        data.catalog_model,
        sky=data.catalog_model.sky.select(index),
        apparent_jy=data.catalog_model.apparent_jy[index],
    )
    of_few = replace(solved, model=SkyVisibilities(few.catalog_model))
    assert flux_scale(few, of_few, stage_config, log) is of_few
    unseeded = open_data(observed, stage_config.with_options(use_nvss_seeding=False))
    assert flux_scale(unseeded, solved, stage_config, log) is solved
    assert not notes.lines
