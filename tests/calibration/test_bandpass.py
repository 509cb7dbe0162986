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
    """Delays of up to two turns over the band, and what comes of them and without them if none is sought."""
    spws, channels = request.param
    folder, options = tmp_path_factory.mktemp("delayed"), {"spws": spws, "channels": channels}
    simulate(folder / "plain.ms", SimulationConfig(**SMALL, **options))
    ms, config = observed(folder, delay_rms=4.0, **options)
    off = config.with_options(spectral="off")
    undelayed = selfcal_ms(folder / "plain.ms", folder / "undelayed", off).summary
    without = selfcal_ms(shutil.copytree(ms, folder / "a.ms"), folder / "without", off).summary
    return ms, config, undelayed, without


def slope(freq, gain):
    """Delays over the whole band, of gains (nchan, nant, npol)."""
    turns = np.unwrap(np.angle(gain), axis=0).reshape(freq.size, -1) / (2 * np.pi)
    return np.polyfit(freq - freq.mean(), turns, 1)[0].reshape(gain.shape[1:])


@pytest.mark.parametrize("kind", ["delay", "auto"])
def test_delays_are_found(kind, delayed, tmp_path):
    ms, config, undelayed, without = delayed
    found = selfcal_ms(
        shutil.copytree(ms, tmp_path / "b.ms"), tmp_path / "b", config.with_options(spectral=kind)
    ).summary
    assert found["status"] == "improved"
    assert found["gaintables"][0] == "selfcal_1_b.bcal"
    last = [s["iterations"][-1]["chi2_heldout"] for s in (undelayed, found, without)]
    assert last[1] < 1.02 * last[0]
    assert last[1] < 0.5 * last[2]
    assert found["final"]["rms_jy"] < 0.7 * without["final"]["rms_jy"]
    assert found["final"]["rms_jy"] < 1.02 * undelayed["final"]["rms_jy"]
    truth = Truth.read(ms.with_suffix(".truth.npz"))
    table = read_gain_table(tmp_path / "b" / "selfcal_1_b.bcal")
    assert table.kind == "B Jones"
    freq = np.concatenate([g.freq_hz for g in table.gains.values()])
    gain = np.concatenate([g.gain[0] for g in table.gains.values()], axis=1)
    band = np.concatenate(list(truth.instrument.bandpass))
    delay, true = (slope(freq, x) for x in (gain.swapaxes(0, 1), band))
    wrong = delay - true
    # One delay common to all antennas changes no visibility.
    wrong -= np.median(wrong, axis=0)
    assert np.abs(wrong).max() < 0.1e-9


def test_a_smooth_bandpass_is_found(tmp_path):
    ms, config = observed(tmp_path, channels=32, bandpass_ripple=0.1, delay_rms=1.0)
    scores = {}
    for kind in ("off", "delay", "bandpass", "auto"):
        copy = shutil.copytree(ms, tmp_path / f"{kind}.ms")
        made = selfcal_ms(copy, tmp_path / kind, config.with_options(spectral=kind))
        assert made.status == "improved"
        scores[kind] = made.summary["iterations"][-1]["chi2_heldout"]
    assert scores["bandpass"] < scores["delay"] < scores["off"]
    assert scores["auto"] < 1.01 * scores["bandpass"]


def test_without_delays_nothing_is_lost(tmp_path):
    ms, config = observed(tmp_path, channels=16)
    out = {}
    for kind in ("off", "bandpass"):
        copy = shutil.copytree(ms, tmp_path / f"{kind}.ms")
        out[kind] = selfcal_ms(copy, tmp_path / kind, config.with_options(spectral=kind)).summary
    assert out["bandpass"]["final"]["rms_jy"] < 1.02 * out["off"]["final"]["rms_jy"]
