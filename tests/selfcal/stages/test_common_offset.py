"""The offset that all antennas share is found beside a squint, and a squint at its size beside offsets."""

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import Truth
from tests.selfcal.support import observe

SQUINT = 0.15
OPTIONS = {"drift": True, "dumps": 6, "sefd_jy": 800.0, "random_phases": True, "squint_deg": SQUINT}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    ms, config = observe(folder, **OPTIONS, pointing_rms=0.2, seed=5)
    result = selfcal_ms(ms, folder / "found", config.with_options(columns="none"))
    table = Table.read(folder / "found" / "pointing.ecsv")
    found = np.stack([table["east_deg"], table["north_deg"]], axis=1)
    return result, found, np.degrees(Truth.read(folder / "t.truth.npz").instrument.pointing_rad)


def test_what_all_antennas_share_is_found_after_a_squint(both):
    _, found, true = both
    shared = true.mean(axis=0)
    assert np.hypot(*shared) > 0.03
    assert np.hypot(*(found.mean(axis=0) - shared)) < 0.7 * np.hypot(*shared)
    assert (found - true).std(axis=0).max() < 0.03


def test_a_squint_beside_pointing_errors_is_that_of_the_truth(both):
    pointing = both[0].summary["pointing"]
    assert pointing["squint_east_deg"] == pytest.approx(SQUINT, rel=0.04)
    assert abs(pointing["squint_north_deg"]) < 0.006
