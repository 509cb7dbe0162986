"""What stands out of a residual is named: a window, a polarisation, antennas, dumps; or nothing does."""

from dataclasses import replace

import casacore.tables as ct
import numpy as np
import pytest

from dsa110_contimg.calibration.statistics import BaselineStatistics
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.where_left import in_words, where_left
from dsa110_contimg.visibilities import NoiseScale
from tests.selfcal.support import observe

NANT, NSPW, NTIME = 12, 4, 6


@pytest.fixture
def observed():
    """Statistics of a point source of 3 Jy seen through gains, with noise of variance 2; and the gains."""
    rng = np.random.default_rng(4)
    empty = BaselineStatistics.empty(NANT, range(NSPW), NTIME)
    gain = np.exp(2j * np.pi * rng.random((NSPW, NTIME, NANT, 2)))
    i, j = empty.antenna1, empty.antenna2
    n, flux = 200.0, 3.0
    noise = rng.standard_normal((2, *empty.cross.shape)) * np.sqrt(n)
    cross = flux * (n * flux * (gain[:, :, i] * np.conj(gain[:, :, j])) + noise[0] + 1j * noise[1])
    aligned = (np.conj(gain[:, :, i]) * gain[:, :, j] * cross).real
    model, count = np.full(empty.model.shape, n * flux**2), np.full(empty.count.shape, n)
    left = 2 * n + noise[0] * 2
    return replace(empty, cross=cross, model=model, data=left + 2 * aligned - model, count=count), gain


def found(statistics, gain, misfit=None):
    misfit = np.ones((NANT, 2)) if misfit is None else misfit
    return where_left(statistics, gain, np.ones(gain.shape, dtype=bool), NoiseScale(2.0), misfit)


def with_more(statistics, *index):
    """Ten times the noise in some cells (half, window, dump, baseline, polarisation)."""
    data = statistics.data.copy()
    data[index] += 9 * 2 * statistics.count[index]
    return replace(statistics, data=data)


EVERY = slice(None)


@pytest.mark.parametrize(
    ("axis", "member", "index"),
    [
        ("window", 2, (EVERY, 2)),
        ("dump", 4, (EVERY, EVERY, 4)),
        ("polarisation", 1, (EVERY, EVERY, EVERY, EVERY, 1)),
    ],
)
def test_a_window_a_dump_or_a_polarisation(observed, axis, member, index):
    statistics, gain = observed
    part = found(with_more(statistics, *index), gain)
    assert (part.axis, part.members) == (axis, (member,))
    assert part.chi2 == pytest.approx(10, rel=0.02)
    assert part.chi2_rest == pytest.approx(1, abs=0.02)


def test_two_antennas_one_of_which_counts_for_less_already(observed):
    statistics, gain = observed
    of = (statistics.antenna1 == 3) | (statistics.antenna2 == 3)
    bad = of | (statistics.antenna1 == 7) | (statistics.antenna2 == 7)
    worse = with_more(statistics, EVERY, EVERY, EVERY, bad)
    misfit = np.ones((NANT, 2))
    misfit[3] = 10.0
    sums = {
        k: np.where(of[:, None], getattr(worse, k) / 10, getattr(worse, k))
        for k in ("cross", "model", "data")
    }
    part = found(replace(worse, **sums), gain, misfit)
    assert (part.axis, part.members) == ("antenna", (3, 7))
    assert part.chi2_rest == pytest.approx(1, abs=0.02)


def test_nothing_stands_out_of_what_all_data_have(observed):
    statistics, gain = observed
    assert found(with_more(statistics, EVERY), gain) is None
    half = with_more(statistics, EVERY, slice(0, NSPW // 2), slice(0, NTIME // 2))
    assert found(with_more(half, EVERY, EVERY, EVERY, slice(None, None, 2)), gain) is None


def test_nothing_stands_out_of_noise_alone(observed, rng):
    """Less than the noise that is assumed is not in excess, however unequal."""
    statistics, gain = observed
    for scale in (1.0, 0.9):
        lower = scale + 0.03 * rng.standard_normal(statistics.data.shape)
        quiet = {name: getattr(statistics, name) * scale for name in ("cross", "model")}
        assert found(replace(statistics, data=statistics.data * lower, **quiet), gain) is None


def test_it_is_told_by_its_name(observed):
    statistics, gain = observed
    part = found(with_more(statistics, EVERY, 2), gain)
    text = in_words(part, (3, 4, 9, 11), [f"a{k}" for k in range(NANT)], ("X", "Y"), ["10:00:00"] * NTIME)
    assert text.startswith("it is in spectral window 9 (10 times there, 1 in the rest)")
    part = found(with_more(statistics, EVERY, EVERY, slice(3, 6)), gain)
    text = in_words(part, range(NSPW), [], ("X", "Y"), [f"10:00:0{k}" for k in range(NTIME)])
    assert text.startswith("it is in the dumps from 10:00:03 to 10:00:05 (10 times there")


def test_a_run_names_the_antenna_whose_phases_have_the_wrong_sign(tmp_path):
    ms, config = observe(tmp_path, random_phases=True, dumps=3)
    with ct.table(str(ms), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        of = (main.getcol("ANTENNA1") == 5) | (main.getcol("ANTENNA2") == 5)
        main.putcol("DATA", np.where(of[:, None, None], np.conj(data), data))
    summary = selfcal_ms(ms, tmp_path / "o", config, []).summary
    (told,) = [f["text"] for f in summary["findings"] if f["kind"] == "unexplained"]
    assert "it is in antenna ant5 " in told


@pytest.mark.parametrize("average", ["never", "always"])
def test_a_run_names_the_channels_of_the_edges_of_a_band(tmp_path, rng, average):
    """Receivers are noisier there than weights say that were never set."""
    ms, config = observe(tmp_path, random_phases=True, channels=32, spws=2, dumps=3, sefd_jy=8000.0)
    with ct.table(str(ms), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        sigma = 5 / np.sqrt(2 * main.getcol("WEIGHT_SPECTRUM")[:, :8])
        data[:, :8] += sigma * (rng.standard_normal(sigma.shape) + 1j * rng.standard_normal(sigma.shape))
        main.putcol("DATA", data)
    config = config.with_options(average=average, spectral="off")
    summary = selfcal_ms(ms, tmp_path / "o", config, []).summary
    (told,) = [f["text"] for f in summary["findings"] if f["kind"] == "unexplained"]
    assert "it is in channels (window:channel) 0:0~7, 1:0~7 " in told
