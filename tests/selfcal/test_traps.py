"""Ways in which self-calibration went silently wrong elsewhere, each as a whole run that must not."""

import numpy as np
import pytest

from dsa110_contimg.compare.score import score_run
from dsa110_contimg.selfcal.run import selfcal_ms
from tests.selfcal.support import observe

#: Gains of one, to which a test adds what it is about.
PERFECT = {"phase_rms": 0.0, "phase_drift": 0.0, "amplitude_rms": 0.0}


def scored(tmp_path, options=None, **observation):
    """Summary of a run, and what the truth says of it."""
    ms, config = observe(tmp_path, **observation)
    result = selfcal_ms(ms, tmp_path / "out", config.with_options(**(options or {})))
    return result.summary, score_run(tmp_path / "out", tmp_path / "t.truth.npz", image=False)


def test_trap_16b_natural_weights_of_a_dense_core_do_not_hide_phase_errors(tmp_path):
    """Sidelobes set the rms of such an image, and errors of 30 degrees hardly change its signal to noise."""
    summary, found = scored(
        tmp_path, {"weighting": "natural"}, **PERFECT | {"phase_rms": 30.0}, antennas=24, seed=5
    )
    assert summary["status"] == "improved"
    assert found["phase_error_deg"] < 5
    assert found["flux_ratio"] == pytest.approx(1, abs=0.05)


def test_trap_17_faint_fields_keep_their_flux(tmp_path):
    """Amplitudes solved from little signal took most of the sources' flux."""
    summary, found = scored(tmp_path, sefd_jy=100_000.0, seed=9, **PERFECT | {"phase_rms": 20.0})
    assert summary["status"] == "improved"
    assert [r["calmode"] for r in summary["iterations"]] == ["p", "ap"]
    assert found["amplitude_scale"] == pytest.approx(1, abs=0.03)
    assert found["flux_ratio"] == pytest.approx(1, abs=0.1)


def test_trap_18_the_sky_does_not_move(tmp_path):
    """A signal to noise that rises says nothing of where sources are: phases from nowhere may lean."""
    summary, found = scored(tmp_path, seed=7, **PERFECT | {"random_phases": True})
    assert summary["status"] == "improved"
    assert np.hypot(*found["offset_arcsec"]) < 2
    assert np.hypot(*found["sky_offset_arcsec"]) < 2


def test_trap_20_amplitudes_are_left_alone_where_the_signal_is_weak(tmp_path):
    """They are solved from ten times the noise of an antenna on, unless asked for."""
    modes = {}
    for sefd_jy in (2000.0, 400_000.0):
        folder = tmp_path / f"{sefd_jy:.0f}"
        folder.mkdir()
        summary, _ = scored(folder, sefd_jy=sefd_jy, seed=8, **PERFECT | {"phase_rms": 20.0})
        modes[sefd_jy] = {r["calmode"]: r["median_snr"] for r in summary["iterations"]}
    assert "ap" in modes[2000.0]
    assert modes[2000.0]["ap"] > 10
    assert "ap" not in modes[400_000.0]
