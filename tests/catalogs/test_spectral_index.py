"""Spectral indices from two catalogues: the true ones where there is a clean pair, else none."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.catalogs.spectral_index import pair_indices, two_point_index
from dsa110_contimg.catalogs.surveys import SURVEYS

NVSS, TGSS, FIRST = SURVEYS["nvss"], SURVEYS["tgss"], SURVEYS["first"]


def listed(ra: list[float], flux: list[float], size: float = 0.0, error: float = 0.02) -> Table:
    flux_mjy = np.array(flux)
    return Table(
        {
            "ra_deg": np.array(ra),
            "dec_deg": np.full(len(ra), 40.0),
            "flux_mjy": flux_mjy,
            "flux_err_mjy": error * flux_mjy,
            "major_arcsec": np.full(len(ra), size),
        }
    )


def carried(flux: float, index: float) -> float:
    return flux * (TGSS.freq_hz / NVSS.freq_hz) ** index


def test_index_and_error_are_those_of_the_two_fluxes() -> None:
    one = np.ones(1)
    index, error = two_point_index(100 * one, 3 * one, 1.4e9, 400 * one, 16 * one, 150e6)
    assert index[0] == pytest.approx(np.log(0.25) / np.log(1.4e9 / 150e6))
    assert error[0] == pytest.approx(0.05 / np.log(1.4e9 / 150e6))
    # Drawn fluxes scatter by the error that is told.
    rng = np.random.default_rng(1)
    drawn = two_point_index(
        100 + 3 * rng.standard_normal(4000), 3.0, 1.4e9, 400 + 16 * rng.standard_normal(4000), 16.0, 150e6
    )[0]
    assert drawn.std() == pytest.approx(error[0], rel=0.05)


def test_a_clean_pair_has_its_index_and_a_lonely_source_none() -> None:
    base = listed([10.0, 11.0, 12.0], [100.0, 50.0, 50.0])
    other = listed([10.001, 11.0], [carried(100.0, -0.9), carried(50.0, 0.2)])
    found = pair_indices(base, NVSS, other, TGSS)
    assert found.index[:2] == pytest.approx([-0.9, 0.2])
    assert np.isnan(found.index[2])
    # Flux scales (3 and 10 %) and listed errors (2 %) together, over the lever.
    expected = np.sqrt(0.03**2 + 0.1**2 + 2 * 0.02**2) / np.log(1.4e9 / 147.5e6)
    assert found.error[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("what", "base", "other"),
    [
        ("blended in the base", ([10.0, 10.005], [100.0, 20.0]), ([10.0], [500.0])),
        ("blended in the other", ([10.0], [100.0]), ([10.0, 10.005], [500.0, 100.0])),
        ("too steep", ([10.0], [1.0]), ([10.0], [carried(1.0, -3.1)])),
        ("too inverted", ([10.0], [5000.0]), ([10.0], [carried(5000.0, 2.6)])),
        ("elsewhere", ([10.0], [100.0]), ([10.02], [500.0])),
    ],
)
def test_what_is_not_one_thing_is_refused(
    what: str, base: tuple[list[float], list[float]], other: tuple[list[float], list[float]]
) -> None:
    found = pair_indices(listed(*base), NVSS, listed(*other), TGSS)
    assert np.isnan(found.index).all(), what


def test_a_faint_neighbour_does_not_matter() -> None:
    found = pair_indices(listed([10.0, 10.005], [100.0, 3.0]), NVSS, listed([10.0], [500.0]), TGSS)
    assert np.isfinite(found.index[0])


def test_a_neighbour_below_the_limit_of_the_run_counts() -> None:
    """What `--min-mjy` leaves out of a model is still in the beam of the other survey."""
    whole = listed([10.0, 10.005], [100.0, 90.0])
    other = listed([10.002], [carried(190.0, -0.8)])
    assert np.isfinite(pair_indices(whole[:1], NVSS, other, TGSS).index[0])
    assert np.isnan(pair_indices(whole[:1], NVSS, other, TGSS, whole).index[0])


def test_a_flux_that_was_carried_by_an_index_tells_none() -> None:
    """Of two surveys merged, what the sharper one alone lists has such a flux."""
    rows = listed([10.0, 11.0], [100.0, 100.0])
    rows["nvss_id"] = [7, -1]
    found = pair_indices(rows, NVSS, listed([10.0, 11.0], [carried(100.0, -0.8)] * 2), TGSS)
    assert np.isfinite(found.index[0])
    assert np.isnan(found.index[1])


def test_extended_sources_are_refused_where_beams_differ() -> None:
    other = listed([10.0], [500.0])
    assert np.isfinite(pair_indices(listed([10.0], [100.0], 20.0), NVSS, other, TGSS).index[0])
    assert np.isnan(pair_indices(listed([10.0], [100.0], 40.0), NVSS, other, TGSS).index[0])


def test_poor_fluxes_and_near_frequencies_give_no_index() -> None:
    good, poor = listed([10.0], [500.0]), listed([10.0], [500.0], error=0.8)
    assert np.isnan(pair_indices(listed([10.0], [100.0]), NVSS, poor, TGSS).index[0])
    assert np.isnan(pair_indices(listed([10.0], [100.0]), NVSS, good, FIRST).index[0])


def test_the_median_is_not_biased_by_the_limit_of_the_other_survey() -> None:
    rng = np.random.default_rng(2)
    n = 8000
    flux = 5.0 * rng.uniform(0, 1, n) ** (-1 / 0.9)
    index = -0.75 + 0.25 * rng.standard_normal(n)
    there = flux * (TGSS.freq_hz / NVSS.freq_hz) ** index
    ra = np.linspace(0, 340, n)
    seen = there > TGSS.flux_limit_mjy
    found = pair_indices(
        listed(ra.tolist(), flux.tolist()), NVSS, listed(ra[seen].tolist(), there[seen].tolist()), TGSS
    )
    assert found.n_pairs > 200
    assert found.median == pytest.approx(-0.75, abs=0.05)
    # All pairs: only steep sources of the faint ones are listed at the low frequency.
    assert np.nanmedian(found.index) < -0.78
    few = pair_indices(listed([10.0], [1000.0]), NVSS, listed([10.0], [5000.0]), TGSS)
    assert np.isnan(few.median)
