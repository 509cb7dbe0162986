"""NVSS with FIRST: every source once, with its NVSS flux."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.catalogs.coverage import Footprint
from dsa110_contimg.catalogs.merge import FIRST_ID_OFFSET, Columns, Holds, associate, merge_surveys
from dsa110_contimg.catalogs.surveys import SURVEYS

ARCSEC = 1 / 3600
EVERYWHERE = Footprint(1, ((0, 11),))
Row = dict[str, float]


def table(catalog: str, rows: list[Row]) -> Columns:
    units = {"source_id": None, **SURVEYS[catalog].units}
    fixed = {"flux_err_mjy": 1.0, "peak_mjy": 1.0, "rms_mjy": 0.15}
    return {
        name: (
            np.array(
                [
                    row.get(name, k + 1.0 if name == "source_id" else fixed.get(name, 0.0))
                    for k, row in enumerate(rows)
                ],
                dtype=float,
            ),
            unit,
        )
        for name, unit in units.items()
    }


def merge_nvss_first(nvss: Columns, first: Columns, footprint: Holds) -> Columns:
    return merge_surveys(SURVEYS["nvss"], SURVEYS["first"], nvss, first, footprint)


def at(ra: float, dec: float, flux: float, **more: float) -> Row:
    return {"ra_deg": ra, "dec_deg": dec, "flux_mjy": flux, **more}


def rows_of(merged: Columns) -> list[tuple[float, ...]]:
    names = ("source_id", "ra_deg", "dec_deg", "flux_mjy", "nvss_id", "first_id", "n_components")
    return sorted(zip(*(merged[name][0].tolist() for name in names), strict=True))


def test_a_point_source_takes_its_position_from_first_and_its_flux_from_nvss() -> None:
    nvss = table("nvss", [at(10.0, 30.0, 8.0)])
    first = table("first", [at(10.0, 30.0 + 3 * ARCSEC, 5.0, major_arcsec=2.0, minor_arcsec=1.0, pa_deg=7.0)])
    merged = merge_nvss_first(nvss, first, EVERYWHERE)
    assert rows_of(merged) == [(FIRST_ID_OFFSET + 1, 10.0, 30.0 + 3 * ARCSEC, 8.0, 1.0, 1.0, 1.0)]
    assert (merged["major_arcsec"][0][0], merged["pa_deg"][0][0]) == (2.0, 7.0)
    assert merged["flux_mjy"][1] == u.mJy


def test_a_double_shares_the_nvss_total_it_is_not_added_to_it() -> None:
    # Two lobes 40 arcsec apart, one NVSS source; FIRST sees 60 of its 100 mJy.
    nvss = table("nvss", [at(10.0, 0.0, 100.0, major_arcsec=45.0)])
    lobes = [at(10.0 + 20 * ARCSEC, 0.0, 40.0), at(10.0 - 20 * ARCSEC, 0.0, 20.0)]
    merged = merge_nvss_first(nvss, table("first", lobes), EVERYWHERE)
    fluxes = [row[3] for row in rows_of(merged)]
    assert fluxes == pytest.approx([200 / 3, 100 / 3])
    assert [row[6] for row in rows_of(merged)] == [2.0, 2.0]
    assert merged["flux_err_mjy"][0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_wide_double_keeps_two_nvss_sources() -> None:
    nvss = table("nvss", [at(10.0, 0.0, 50.0), at(10.0, 70 * ARCSEC, 30.0)])
    first = table("first", [at(10.0, 2 * ARCSEC, 30.0), at(10.0, 66 * ARCSEC, 25.0)])
    merged = merge_nvss_first(nvss, first, EVERYWHERE)
    assert [(row[3], row[4]) for row in rows_of(merged)] == [(50.0, 1.0), (30.0, 2.0)]


def test_a_component_between_two_belongs_to_the_one_it_lies_deeper_in() -> None:
    # 25 arcsec from a point (beyond its 22.5), 30 from a source of 40 arcsec (within its 42.5).
    nvss = table("nvss", [at(10.0, 0.0, 50.0), at(10.0, 55 * ARCSEC, 30.0, major_arcsec=40.0)])
    first = table("first", [at(10.0, 25 * ARCSEC, 9.0)])
    assert associate(nvss, first).tolist() == [1]


def test_faint_first_only_sources_come_with_their_own_flux_but_not_sidelobes() -> None:
    nvss = table("nvss", [at(10.0, 0.0, 50.0)])
    first = table(
        "first",
        [at(10.1, 0.0, 1.2), at(10.2, 0.0, 1.5, sidelobe_probability=0.5), at(10.0, 0.0, 45.0)],
    )
    merged = merge_nvss_first(nvss, first, EVERYWHERE)
    assert [(row[0] - FIRST_ID_OFFSET, row[3], row[4]) for row in rows_of(merged)] == [
        (1.0, 1.2, -1.0),
        (3.0, 50.0, 1.0),
    ]


def test_resolved_out_sources_stay_as_nvss_has_them() -> None:
    nvss = table("nvss", [at(10.0, 0.0, 50.0, major_arcsec=120.0)])
    merged = merge_nvss_first(nvss, table("first", []), EVERYWHERE)
    assert rows_of(merged) == [(1.0, 10.0, 0.0, 50.0, 1.0, -1.0, 1.0)]
    assert merged["major_arcsec"][0].tolist() == [120.0]


def test_at_the_edge_of_the_footprint_no_source_is_split_or_counted_twice() -> None:
    # The footprint is one base cell around RA 45, Dec 0; its corner lies at RA 0.
    footprint = Footprint(1, ((4, 4),))
    assert footprint.holds(np.array([0.0]), np.array([0.0]))[0]
    edge = 41.8  # Dec at RA 0 where the cell ends
    nvss = table("nvss", [at(0.0, edge + 0.5, 20.0), at(0.0, edge - 1.0, 30.0), at(0.0, 80.0, 40.0)])
    first = table(
        "first",
        [
            at(0.0, edge + 0.5, 15.0),  # beyond the edge: another half may be missing
            at(0.0, edge - 1.0, 25.0),
            at(0.0, edge + 0.8, 3.0),  # beyond the edge, alone
            at(0.0, edge - 2.0, 2.0),
        ],
    )
    merged = merge_nvss_first(nvss, first, footprint)
    assert sorted((row[3], row[4], row[5]) for row in rows_of(merged)) == [
        (2.0, -1.0, 4.0),
        (20.0, 1.0, -1.0),
        (30.0, 2.0, 2.0),
        (40.0, 3.0, -1.0),
    ]


def test_without_any_nvss_source() -> None:
    merged = merge_nvss_first(table("nvss", []), table("first", [at(10.0, 0.0, 2.0)]), EVERYWHERE)
    assert [row[3] for row in rows_of(merged)] == [2.0]
    assert len(merge_nvss_first(table("nvss", []), table("first", []), EVERYWHERE)["ra_deg"][0]) == 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60), m=st.integers(0, 120))
def test_each_nvss_source_keeps_its_flux_and_each_component_has_one_owner(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(k: int, catalog: str) -> Columns:
        # A patch at 0h and high declination, crowded enough for overlaps.
        place = [(float(x) % 360, float(y)) for x, y in rng.normal([0, 85], [0.3, 0.03], (k, 2))]
        return table(
            catalog, [at(x, y, rng.uniform(1, 50), major_arcsec=rng.choice([0.0, 60.0])) for x, y in place]
        )

    nvss, first = draw(n, "nvss"), draw(m, "first")
    merged = merge_nvss_first(nvss, first, EVERYWHERE)
    for k in range(n):
        of_source = merged["nvss_id"][0] == k + 1
        assert merged["flux_mjy"][0][of_source].sum() == pytest.approx(nvss["flux_mjy"][0][k])
        assert np.all(merged["n_components"][0][of_source] == of_source.sum())
    used = merged["first_id"][0][merged["first_id"][0] > 0]
    assert sorted(used.tolist()) == list(range(1, m + 1))
    assert len(set(merged["source_id"][0].tolist())) == len(merged["source_id"][0])
    # Against distances one by one.
    owner = associate(nvss, first)
    for j in range(m):
        best, deepest = -1, 1.0
        for k in range(n):
            a, b = (np.radians([t["ra_deg"][0][i], t["dec_deg"][0][i]]) for t, i in ((nvss, k), (first, j)))
            across = np.cos(a[1]) * np.cos(b[1]) * np.sin((a[0] - b[0]) / 2) ** 2
            distance = 2 * np.degrees(np.arcsin(np.sqrt(np.sin((a[1] - b[1]) / 2) ** 2 + across)))
            relative = distance / ARCSEC / (22.5 + nvss["major_arcsec"][0][k] / 2)
            if relative < deepest:
                best, deepest = k, relative
        assert owner[j] == best
