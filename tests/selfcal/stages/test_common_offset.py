"""The offset that all antennas share is found beside a squint, and a squint at its size beside offsets."""

import numpy as np
import pytest

from dsa110_contimg.selfcal.stages.flux_scale import flux_scale
from dsa110_contimg.selfcal.stages.pointing import pointing
from dsa110_contimg.selfcal.stages.reweight import reweight
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.simulate import Truth
from tests.selfcal.support import observe, open_data

SQUINT = 0.15
OPTIONS = {"drift": True, "dumps": 4, "sefd_jy": 800.0, "random_phases": True, "squint_deg": SQUINT}


def test_what_all_share_and_the_squint_are_found_together(tmp_path, log):
    ms, config = observe(tmp_path, **OPTIONS, antennas=20, pointing_rms=0.2, seed=1)
    data = open_data(ms, config)
    state = reweight(data, CalState(weights=data.nominal_weights()), config, log)
    scaled = flux_scale(data, state, config, log)
    beams = pointing(data, scaled, config, log).sky_model.antenna_beams
    found = np.degrees(beams.offset_rad)
    true = np.degrees(Truth.read(tmp_path / "t.truth.npz").instrument.pointing_rad)
    shared = true.mean(axis=0)
    assert np.hypot(*shared) > 0.08
    assert np.hypot(*(found.mean(axis=0) - shared)) < 0.5 * np.hypot(*shared)
    assert (found - true).std(axis=0).max() < 0.03
    # Its beams are those of antennas that point off, too.
    east, north = np.degrees(beams.squint_rad)
    assert east == pytest.approx(SQUINT, rel=0.04)
    assert abs(north) < 0.006
