"""A field that is seen distorted is followed by the sky model: faint sources as well as bright ones."""

import numpy as np

from dsa110_contimg.selfcal.stages.check_sources import check_sources
from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.refraction import refraction
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.simulate import Truth
from tests.selfcal.support import observe, open_data


def test_all_sources_are_moved_where_held_out_channels_gain_by_it(tmp_path, log, notes):
    options = {"drift": True, "dumps": 6, "sefd_jy": 800.0, "random_phases": True}
    ms, config = observe(tmp_path, **options, refraction_shear_arcsec=20.0)
    data = open_data(ms, config)
    start = reweight(data, CalState(weights=data.nominal_weights()), config, log)
    scaled = flux_scale(data, start, config, log)
    moved = refraction(data, scaled, config, log)
    shear = float(Truth.read(tmp_path / "t.truth.npz").instrument.shear)
    np.testing.assert_allclose(moved.distortion.matrix, np.diag([-shear, shear]), atol=0.05 * shear)
    assert moved.last.chi2_heldout < scaled.last.chi2_heldout / 2
    assert notes.about("all sources moved")
    # Each is where the distortion puts it, and that is said.
    checked = check_sources(data, moved, config, log)
    assert checked.sky_check.agreeing_fraction > 0.6
    (text,) = [f.text for f in checked.findings if f.kind == "sheared"]
    assert text.endswith("the sky model follows it")


def test_a_field_that_is_not_distorted_stays(data, solved, stage_config, log):
    scaled = flux_scale(data, solved, stage_config, log)
    assert refraction(data, scaled, stage_config, log) is scaled
    assert scaled.distortion is None
