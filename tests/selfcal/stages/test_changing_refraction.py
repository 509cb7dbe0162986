"""Refraction that changes over the observation is told, with time, size and direction; none is not."""

import numpy as np
import pytest

from dsa110_contimg.selfcal.stages.changing_refraction import Change, changing_refraction, measure_changes
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState, Outcome
from dsa110_contimg.sky.components import ARCSEC
from tests.selfcal.support import observe, open_data

OPTIONS = {"drift": True, "dumps": 8, "sefd_jy": 800.0, "random_phases": True}


def scaled(folder, log, **options):
    ms, config = observe(folder, **(OPTIONS | options))
    data = open_data(ms, config)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, log)
    return data, flux_scale(data, state, config, log), config


def test_when_how_much_and_which_way_are_told(tmp_path, log, notes):
    """8 arcsec from the first to the last of eight dumps: 3.4 in the mean of the outer quarters."""
    data, state, config = scaled(tmp_path, log, refraction_drift_arcsec=8.0)
    changes = measure_changes(data, state, log)
    radius = data.catalog_model.beam.fwhm_rad(data.catalog_model.freq_hz) / 2 / ARCSEC
    stretch, error = (
        np.array([x(c) * radius for c in changes]) for x in (lambda c: c.shapes[0], lambda c: c.error)
    )
    np.testing.assert_allclose(stretch, 8 * np.array([-3, -1, 1, 3]) / 7, atol=0.6)
    assert error.max() < 0.3
    found = changing_refraction(data, state, config, log)
    (finding,) = found.findings
    assert finding.kind == "changing"
    assert finding.status == ""
    assert "in all directions" in finding.text
    assert " UTC by 3." in finding.text
    assert len(notes.about("distortion of the field from ")) == 4


@pytest.mark.parametrize("seed", [2, 5])
def test_a_field_that_stays_is_not_told(tmp_path, log, notes, seed):
    data, state, config = scaled(tmp_path, log, seed=seed, position_error=1.0)
    assert max(c.sigmas for c in measure_changes(data, state, log)) < 5
    assert changing_refraction(data, state, config, log) is state


def test_what_stays_the_same_of_a_distortion_is_not_a_change(tmp_path, log):
    data, state, config = scaled(tmp_path, log, refraction_shear_arcsec=6.0)
    assert changing_refraction(data, state, config, log) is state


def test_a_run_that_has_ended_and_a_single_dump_tell_nothing(tmp_path, log, data, solved, stage_config):
    ended = solved.__class__(**(vars(solved) | {"outcome": Outcome("refused", "x")}))
    assert changing_refraction(data, ended, stage_config, log) is ended
    one, state, _ = scaled(tmp_path, log, dumps=1)
    assert measure_changes(one, state, log) == ()


@pytest.mark.parametrize(
    ("shapes", "said", "largest"),
    [
        ((1e-4, 0, 0), "outward in all directions", 1e-4),
        ((-1e-4, 1e-5, 0), "inward in all directions", -1.1e-4),
        ((0, 1e-4, 0), "outward along position angle 90 deg", 1e-4),
        ((0, -1e-4, 0), "outward along position angle 0 deg", 1e-4),
        ((0.5e-4, 0, 1e-4), "outward along position angle 45 deg", 1.5e-4),
        ((-0.5e-4, 0, 1e-4), "inward along position angle 135 deg", -1.5e-4),
    ],
)
def test_directions_are_those_of_the_largest_shift(shapes, said, largest):
    change = Change(np.arange(2), np.array(shapes, dtype=float), np.eye(3) * 1e-10)
    if abs(shapes[1]) == 1e-4:
        # As far outward one way as inward the other.
        assert abs(change.largest) == pytest.approx(1e-4)
        assert "along position angle" in change.direction()
        return
    assert change.direction() == said
    assert change.largest == pytest.approx(largest)
    assert change.sigmas == pytest.approx(np.abs(shapes).max() / 1e-5)
