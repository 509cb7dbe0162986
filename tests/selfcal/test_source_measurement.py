"""Bright sources measured together: which visibilities tell how they couple."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.compare.score import true_gain_tables
from dsa110_contimg.selfcal import calibration_data
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.source_measurement import (
    MIN_SNR,
    MOST_EACH,
    STILL_GOOD,
    FitLimits,
    _drawn,
    _uniform,
    fit_sources,
    measure_sources,
)
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import angular_separation
from dsa110_contimg.visibilities import NoiseScale
from tests.selfcal.support import observe, open_data


@pytest.mark.parametrize("per_row", [0.01, 0.7, 3.2])
def test_what_is_drawn_of_a_row_does_not_depend_on_its_block(per_row):
    rows = np.random.default_rng(1).permutation(200_000)[:50_000]
    row, channel = _drawn(rows, 48, per_row)
    together = set(zip(rows[row].tolist(), channel.tolist(), strict=True))
    apart = set()
    for some in np.array_split(rows[::-1], 7):
        at, of_channel = _drawn(some, 48, per_row)
        apart |= set(zip(some[at].tolist(), of_channel.tolist(), strict=True))
    assert together == apart
    assert row.size == pytest.approx(per_row * rows.size, abs=4 * np.sqrt(rows.size))
    # Every channel alike, within what counting allows.
    counts = np.bincount(channel, minlength=48)
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_where_there_are_no_more_all_are_taken():
    row, channel = _drawn(np.array([5, 9, 7]), 4, 4.0)
    assert set(zip(row.tolist(), channel.tolist(), strict=True)) == {
        (r, c) for r in range(3) for c in range(4)
    }


def test_neighbouring_rows_have_nothing_in_common():
    rows = np.arange(100_000)
    u = _uniform(rows, np.zeros_like(rows))
    assert 0 <= u.min() < u.max() < 1
    assert np.histogram(u, 20, (0, 1))[0] == pytest.approx(5000, rel=0.08)
    other = _uniform(rows, np.ones_like(rows))
    for a, b in ((u[1:], u[:-1]), (u, other), (u[96:], u[:-96])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_sidelobes_of_what_no_model_has_are_not_taken_for_changes_of_others(tmp_path):
    """A new source of 0.3 Jy among those of the catalogue, in data with the true gains."""
    ms, config = observe(tmp_path, new_jy=0.3, sefd_jy=50.0)
    data, truth = open_data(ms, config), Truth.read(ms.with_name("t.truth.npz"))
    listed, sky, tables = data.catalog_model, truth.scene.sky, true_gain_tables(truth)
    at = np.array([
        angular_separation(ra, dec, sky.ra_rad, sky.dec_rad).argmin()
        for ra, dec in zip(listed.sky.ra_rad, listed.sky.dec_rad, strict=True)
    ])  # fmt: skip
    freq = np.array([listed.freq_hz])
    true = sky.flux_at(freq)[at, 0] / listed.sky.flux_at(freq)[:, 0]
    new = sky.select(np.flatnonzero(np.array(truth.scene.sky_kind) == "new"))
    besides = replace(listed, sky=new, apparent_jy=0.5 * new.flux_jy)
    chosen, off = np.arange(60), []
    for more in (None, besides):
        fit = fit_sources(
            data, data.nominal_weights(), SkyVisibilities(listed), tables, listed, chosen, NoiseScale(0.0),
            FitLimits(prior_flux=3.0), besides=more,
        )  # fmt: skip
        assert fit.ratio.shape == chosen.shape
        assert fit.coupling.matrix.shape == (180, 180)
        assert fit.besides == pytest.approx([] if more is None else [1.0], abs=0.01)
        off.append(np.std((fit.ratio - true[chosen]) * listed.apparent_jy[chosen]))
    assert off[1] < 0.2 * off[0], off


def test_where_few_are_bright_all_together_tell_the_scale(data, solved):
    listed = data.catalog_model
    factor = np.where(np.arange(len(listed)) < 3, 1.0, 1 / 2.8)
    sky = replace(listed.sky, flux_jy=listed.sky.flux_jy * factor)
    few_right = replace(listed, sky=sky, apparent_jy=listed.apparent_jy * factor)

    def measured(catalogue, louder):
        noise = NoiseScale(solved.noise.variance * louder)
        seen = SkyVisibilities(catalogue)
        return measure_sources(data, solved.weights, seen, solved.last.tables, catalogue, noise)

    louder = 500.0
    found = measured(few_right, louder)
    assert found.together
    assert found.n_good < 8
    assert found.scale == pytest.approx(2.8, rel=0.15)
    assert found.ratio[0] == pytest.approx(1 / found.scale, rel=0.1)
    # Of fluxes that are right, and of noise, nothing is to be told.
    assert measured(listed, 10 * louder) is None
    assert measured(few_right, 1e6) is None


def test_a_part_of_the_dumps_measures_bright_sources_well_enough(data, solved, monkeypatch):
    """Within the errors that it is given, which are larger; so large a part that nearly all stay bright."""
    monkeypatch.setattr(calibration_data, "FEWEST_DUMPS", 2)
    listed, model = data.catalog_model, SkyVisibilities(data.catalog_model)

    def measured(some):
        return measure_sources(some, solved.weights, model, solved.last.tables, listed, solved.noise)

    whole = measured(data)
    part = data.sampled(2)
    assert part.each == 2
    half = measured(part)
    bright = whole.good & half.good
    assert np.median(half.ratio_error[bright] / whole.ratio_error[bright]) == pytest.approx(
        np.sqrt(2), rel=0.1
    )
    off = (half.ratio * half.scale - whole.ratio * whole.scale)[bright]
    # Of two measurements that share half of their data.
    assert np.std(off / whole.ratio_error[bright]) == pytest.approx(1.0, abs=0.4)
    for found in (whole, half):
        faintest = np.quantile(found.ratio_error[found.good] * found.scale, STILL_GOOD)
        within = MIN_SNR * faintest * np.sqrt(np.arange(1, MOST_EACH + 1) / found.each) < 1
        assert abs(found.enough() - max(1, np.count_nonzero(within))) <= 1
    assert replace(whole, ratio_error=whole.ratio_error / 100).enough() == MOST_EACH
    assert replace(whole, ratio_error=np.full(whole.good.size, 0.99 / MIN_SNR / whole.scale)).enough() == 1
