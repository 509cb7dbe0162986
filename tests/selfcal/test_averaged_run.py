"""A whole run on averages ends where one on all channels does, and reads the data twice."""

from functools import partial

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import gain_errors
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.selfcal import params
from dsa110_contimg.selfcal.averaged_data import Averaging
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table
from tests.arrays import COMPACT

CHANNELS = 48


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same drift scan with narrow channels and interference, averaged, spooled and as it is."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"array": COMPACT, "channels": CHANNELS, "spws": 8, "dumps": 4, "sefd_jy": 2000.0}
    options |= {"min_mjy": 20.0, "random_phases": True, "rfi": 0.003, "dead_fraction": 0.1}
    results = {}
    for kind, change in (
        ("averaged", {}),
        ("spooled", {"memory_bytes": 1e5}),
        ("full", {"average": "never"}),
    ):
        ms = folder / kind / "t.ms"
        ms.parent.mkdir()
        simulate(ms, SimulationConfig(**options))
        build_strips("nvss", ms.parent / "t.catalog.ecsv", ms.parent / "c")
        config = SelfCalConfig(
            catalog_dir=ms.parent / "c", size=256, cell_arcsec=24.0, unsolved="flag", average="always"
        )
        with pytest.MonkeyPatch.context() as patch:

            def changed(change, **given):
                return Averaging(**(given | change))

            patch.setattr(params, "Averaging", partial(changed, change))
            before = data_hash(ms)
            results[kind] = ms, selfcal_ms(ms, ms.parent / "out", config), before
    return results


def test_all_end_alike(runs):
    full = runs["full"][1].summary
    assert full["work"]["averaged_visibilities"] == full["work"]["visibilities"]
    for kind in ("averaged", "spooled"):
        summary = runs[kind][1].summary
        assert summary["status"] == full["status"] == "improved"
        one, other = summary["final"], full["final"]
        assert one["rms_jy"] == pytest.approx(other["rms_jy"], rel=0.03)
        assert one["flux_ratio"] == pytest.approx(other["flux_ratio"], abs=0.01)
        assert one["thermal_ratio"] == pytest.approx(other["thermal_ratio"], rel=0.03)
        assert summary["iterations"][-1]["chi2_heldout"] == pytest.approx(1, abs=0.1)
        assert summary["chi2_untouched"] == pytest.approx(1, abs=0.1)


def test_spooled_is_the_same_as_in_memory(runs):
    one, other = runs["averaged"][1].summary, runs["spooled"][1].summary
    assert one["work"]["bytes_spooled"] == 0
    assert other["work"]["bytes_spooled"] > one["work"]["averaged_visibilities"] * 8
    for name in ("rms_jy", "snr", "flux_ratio"):
        assert one["final"][name] == pytest.approx(other["final"][name], rel=1e-3)
    folder = runs["spooled"][0].parent / "out"
    assert not [p for p in folder.iterdir() if p.name.startswith((".", "tmp"))]


def test_gains_are_those_of_all_channels(runs):
    errors = {}
    for kind in ("averaged", "full"):
        ms, result, _ = runs[kind]
        tables = [result.output_dir / name for name in result.summary["gaintables"]]
        errors[kind] = gain_errors(ms, tables, Truth.read(ms.with_name("t.truth.npz")))
    one, other = errors["averaged"], errors["full"]
    # But for where they place the sky, which the errors of the catalogue leave open.
    assert 1 - one["sky_offset_coherence"] < 1.2 * (1 - other["sky_offset_coherence"])
    assert np.hypot(*np.subtract(one["sky_offset_arcsec"], other["sky_offset_arcsec"])) < 0.2
    assert one["amplitude_scatter"] < 1.1 * other["amplitude_scatter"]


def test_how_much_is_read_predicted_and_gridded(runs):
    """Counts, not times: a pass or a gridding more is seen here. Data once for averages, once for columns."""
    _, result, before = runs["averaged"]
    work = result.summary["work"]
    assert work["passes"] == 2
    # The check of the flags reads one block of many.
    per_pass = work["visibilities"] * (8 + 4 + 1)
    assert 2 * per_pass < work["bytes_read"] < 2.3 * per_pass
    assert work["averaged_visibilities"] < work["visibilities"] / 3
    stokes, columns = work["averaged_visibilities"] / 2, work["visibilities"] / 2
    predictions = (work["predicted_visibilities"] - columns) / stokes
    assert predictions == pytest.approx(round(predictions), abs=1e-9)
    # Four of them are of gradients of the beam, for the antennas' pointing, and two for changing refraction.
    assert round(predictions) == 15
    # One psf for both images.
    assert work["griddings"] == 4
    assert data_hash(runs["averaged"][0]) == before


def test_columns_and_flags_are_those_of_all_channels(runs):
    """The same antenna is flagged; what is in the columns differs as the gains do, by a part of the noise."""
    columns = {}
    for kind in ("averaged", "full"):
        with open_table(runs[kind][0]) as main:
            columns[kind] = {n: main.getcol(n) for n in ("MODEL_DATA", "CORRECTED_DATA", "FLAG")}
    one, other = columns["averaged"], columns["full"]
    np.testing.assert_array_equal(one["FLAG"], other["FLAG"])
    assert one["FLAG"].any()
    assert not one["FLAG"].all()
    used = ~one["FLAG"]
    for name, most in (("MODEL_DATA", 0.02), ("CORRECTED_DATA", 0.05)):
        difference = np.abs(one[name] - other[name])[used]
        assert np.median(difference) < most * np.median(np.abs(other[name][used]))
