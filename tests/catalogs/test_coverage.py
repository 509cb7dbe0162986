"""The map of an irregular survey; outlines of regular ones are tested with the store."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.catalogs.coverage import Coverage, Footprint
from dsa110_contimg.catalogs.healpix import cell_of, cells_in_cone


def cap(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions in a piece of sky through 0h that no interval describes: narrower in the north."""
    rng = np.random.default_rng(seed)
    ra = rng.uniform(-40, 40, n)
    dec = np.degrees(np.arcsin(rng.uniform(0, np.sin(np.radians(40)), n)))
    inside = np.abs(ra) < 40 - dec
    return ra[inside] % 360, dec[inside]


def test_footprint_follows_the_survey_and_never_reaches_beyond_it() -> None:
    footprint = Footprint.of(*cap(300_000))
    assert footprint.nside == 128
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(-50, 50, 20_000), rng.uniform(-10, 50, 20_000)
    held = footprint.holds(ra % 360, dec)
    inside = (dec > 0) & (dec < 40) & (np.abs(ra) < 40 - dec)
    assert not np.any(held & ~inside)
    deep = (dec > 1.5) & (dec < 38) & (np.abs(ra) < 38 - dec)
    assert np.all(held[deep])


def test_footprint_of_few_sources_is_coarse_but_honest() -> None:
    footprint = Footprint.of(*cap(8000))
    assert footprint.nside < 128
    assert footprint.holds(np.array([0.0]), np.array([15.0]))[0]
    assert not footprint.holds(np.array([60.0, 0.0]), np.array([15.0, 60.0])).any()


def test_text_and_pieces_keep_the_cells() -> None:
    footprint = Footprint.of(*cap(300_000))
    assert Footprint.from_text(footprint.to_text()) == footprint
    parts = [footprint.between(low, low + 10) for low in (-10, 0, 10, 20, 30, 40)]
    np.testing.assert_array_equal(np.unique(np.concatenate([p.cells for p in parts])), footprint.cells)
    empty = Footprint.from_cells(128, np.zeros(0, dtype=np.int64))
    assert Footprint.from_text(empty.to_text()).area_deg2 == 0.0


def test_a_declared_interval_as_a_map() -> None:
    footprint = Footprint.within(Coverage(350.0, 20.0, 60.0, 90.0))
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-30, 40, 20_000), rng.uniform(50, 90, 20_000)
    held = footprint.holds(ra % 360, dec)
    assert not np.any(held & ~((ra >= -10) & (ra <= 20) & (dec >= 60)))
    assert np.all(held[(ra > -5) & (ra < 15) & (dec > 61) & (dec < 80)])
    assert Footprint.within(Coverage(0.0, 360.0, -90.0, 90.0)).area_deg2 == pytest.approx(41253, rel=1e-4)


def test_area_and_fraction() -> None:
    footprint = Footprint.of(*cap(300_000))
    # The integral of 2 (40 - dec) cos(dec) over 0..40 deg, less a rim of a cell or two.
    dec = np.radians(np.linspace(0, 40, 4001))
    true = float(np.degrees(np.trapezoid(2 * (40 - np.degrees(dec)) * np.cos(dec), dec)))
    assert 0.9 * true < footprint.area_deg2 < true
    assert footprint.fraction(0.0, 15.0, 2.0) == 1.0
    assert footprint.fraction(180.0, 15.0, 2.0) == 0.0
    assert 0.35 < footprint.fraction(0.0, 0.0, 3.0) < 0.5


@settings(deadline=None, max_examples=200)
@given(
    ra=st.floats(0, 360),
    dec=st.floats(-90, 90),
    radius=st.floats(0.001, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_cells_of_a_cone_hold_every_direction_in_it(ra: float, dec: float, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance, bearing = np.radians(radius) * np.sqrt(rng.uniform(0, 1, 200)), rng.uniform(0, 2 * np.pi, 200)
    distance[:20] = np.radians(radius)
    d0 = np.radians(dec)
    sine = np.sin(d0) * np.cos(distance) + np.cos(d0) * np.sin(distance) * np.cos(bearing)
    d = np.arcsin(np.clip(sine, -1, 1))
    east = np.sin(bearing) * np.sin(distance) * np.cos(d0)
    a = np.radians(ra) + np.arctan2(east, np.cos(distance) - np.sin(d0) * sine)
    cells = cell_of(np.degrees(a), np.degrees(d))
    ranges = np.array(cells_in_cone(ra, dec, radius))
    at = np.searchsorted(ranges[:, 0], cells, side="right") - 1
    assert np.all((at >= 0) & (cells < ranges[at, 1]))
