"""Delays and a smooth bandpass, against those that were put in."""

import shutil

import numpy as np
import pytest

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.selfcal.run import SelfCalConfig, selfcal_ms
from dsa110_contimg.simulate import Truth, simulate
from tests.arrays import COMPACT

SMALL = {"array": COMPACT, "dumps": 6, "sefd_jy": 1000.0, "drift": False, "random_phases": True}
IMAGE = {"size": 512, "cell_arcsec": 24.0}


def observed(folder, **options):
    simulate(folder / "t.ms", SimulationConfig(**SMALL, **options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "catalogs")
    return folder / "t.ms", SelfCalConfig(catalog_dir=folder / "catalogs", **IMAGE)


@pytest.fixture(scope="module", params=[(1, 32), (2, 16)], ids=["one window", "two windows"])
def delayed(request, tmp_path_factory):
    """The same observation without and with delays, of up to two turns over the band."""
    spws, channels = request.param
    folder, options = tmp_path_factory.mktemp("delayed"), {"spws": spws, "channels": channels}
    simulate(folder / "plain.ms", SimulationConfig(**SMALL, **options))
    return folder / "plain.ms", *observed(folder, delay_rms=4.0, **options)


def test_delays_are_found(delayed, tmp_path):
    plain, ms, config = delayed
    without = selfcal_ms(shutil.copytree(ms, tmp_path / "a.ms"), tmp_path / "a", config)
    found = selfcal_ms(
        shutil.copytree(ms, tmp_path / "b.ms"), tmp_path / "b", config.with_options(spectral="delay")
    )
    assert found.status == "improved"
    assert found.summary["gaintables"][0] == "selfcal_1_b.bcal"
    undelayed = selfcal_ms(shutil.copytree(plain, tmp_path / "c.ms"), tmp_path / "c", config)
    last = [s.summary["iterations"][-1]["chi2_heldout"] for s in (undelayed, found, without)]
    assert last[1] < 1.02 * last[0]
    assert last[1] < 0.5 * last[2]
    assert found.summary["final"]["rms_jy"] < 0.7 * without.summary["final"]["rms_jy"]
    assert found.summary["final"]["rms_jy"] < 1.02 * undelayed.summary["final"]["rms_jy"]
    truth = Truth.read(ms.with_suffix(".truth.npz"))
    table = read_gain_table(tmp_path / "b" / "selfcal_1_b.bcal")
    assert table.kind == "B Jones"
    freq = np.concatenate([g.freq_hz for g in table.gains.values()])
    gain = np.concatenate([g.gain[0] for g in table.gains.values()], axis=1)
    delay = np.angle(gain[:, 1] * gain[:, 0].conj()) / (2 * np.pi * (freq[1] - freq[0]))
    band = np.concatenate(list(truth.instrument.bandpass))
    true = np.angle(band[1] * band[0].conj()) / (2 * np.pi * (freq[1] - freq[0]))
    wrong = delay - true
    # One delay common to all antennas changes no visibility.
    wrong -= np.median(wrong, axis=0)
    assert np.abs(wrong).max() < 0.1e-9


def test_a_smooth_bandpass_is_found(tmp_path):
    ms, config = observed(tmp_path, channels=32, bandpass_ripple=0.1, delay_rms=1.0)
    scores = {}
    for kind in ("off", "delay", "bandpass"):
        copy = shutil.copytree(ms, tmp_path / f"{kind}.ms")
        made = selfcal_ms(copy, tmp_path / kind, config.with_options(spectral=kind))
        assert made.status == "improved"
        scores[kind] = made.summary["iterations"][-1]["chi2_heldout"]
    assert scores["bandpass"] < scores["delay"] < scores["off"]


def test_without_delays_nothing_is_lost(tmp_path):
    ms, config = observed(tmp_path, channels=16)
    out = {}
    for kind in ("off", "bandpass"):
        copy = shutil.copytree(ms, tmp_path / f"{kind}.ms")
        out[kind] = selfcal_ms(copy, tmp_path / kind, config.with_options(spectral=kind)).summary
    assert out["bandpass"]["final"]["rms_jy"] < 1.02 * out["off"]["final"]["rms_jy"]
