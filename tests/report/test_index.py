"""The page of all observations: what stands on it, and how it is used in a browser."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.report import INDEX, IndexRow, Limits, write_index, write_report
from dsa110_contimg.report.index import is_index, render_index
from dsa110_contimg.report.trends import antenna_map, days_of, trends
from dsa110_contimg.selfcal.antenna_report import read_antenna_health
from tests.browser import require_no_grave_barrier
from tests.imaging.wsclean.support import FIGURES
from tests.report.html_check import checked
from tests.report.synthetic import index_rows, write_run
from tests.report.test_build import HOSTILE

LIMITS = Limits(3.0, 0.1, 3.0)
DAY_S = 86400.0


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with the page of 250 observations, of twenty a day."""
    folder = tmp_path_factory.mktemp("pages")
    write_index(folder, index_rows(250, 20), LIMITS)
    return folder


def test_the_page_holds_every_observation_and_names_what_needs_a_look(pages):
    rows = index_rows(250, 20)
    page = checked((pages / INDEX).read_text("utf-8"))
    found = re.search(r'id="data">(.*?)</script>', (pages / INDEX).read_text("utf-8"))
    columns = json.loads(found[1])["columns"]
    latest = sorted(rows, key=lambda r: r.observed_at, reverse=True)
    assert columns["name"] == [r.name for r in latest]
    assert columns["thermal"] == [r.thermal_ratio and round(r.thermal_ratio, 3) for r in latest]
    assert [columns["verdict"]["words"][k] for k in columns["verdict"]["of"]] == [r.verdict for r in latest]
    for word, n in Counter(r.verdict for r in rows).items():
        if word:
            assert f"{word} {n} " in page.text
    bad = next(r for r in latest if r.verdict == "bad")
    assert f"{bad.name} : noise 3.60 x thermal, allowed 3" in page.text
    assert re.search(r"43: noise since 2026-01-05 \(1\d\d of 1\d\d runs\), well before", page.text)
    assert "Not good at some time: 3 of 117 antennas" in page.text
    # Without a script the last fifty are there.
    assert page.text.count("improved ") >= 49


def test_hostile_words_stay_words(tmp_path):
    rows = [
        IndexRow(name=name, status=name, verdict=name, version=name, why=name, antennas={"noise": HOSTILE},
                 observed_at=1.8e9 + DAY_S * k)
        for k, name in enumerate([*HOSTILE, "</script><b>", "<!--<script>"])
    ]  # fmt: skip
    text = write_index(tmp_path, rows, LIMITS).read_text("utf-8")
    page = checked(text)
    assert not page.all("img")
    assert not page.all("b") or all("class" in attrs or not attrs for attrs in page.all("b"))
    for name in HOSTILE:
        assert name in page.text


def test_a_page_without_anything_known_is_a_page():
    for rows in ([], [IndexRow(name="a", status="queued")], [IndexRow(name="a", observed_at=1.8e9)]):
        page = checked(render_index(Path("/data"), rows, LIMITS))
        assert f"observations {len(rows)} " in page.text


def test_days_beyond_a_limit_are_named():
    at = datetime(2026, 1, 25, 12, tzinfo=UTC).timestamp()
    rows = [
        IndexRow(name=str(k), observed_at=at + DAY_S * k, flux_ratio=1.0, thermal_ratio=1.1) for k in range(5)
    ]
    rows[3] = IndexRow(name="3", observed_at=at + 3 * DAY_S, flux_ratio=0.85, thermal_ratio=3.2)
    found = {t.title: t for t in trends(days_of(rows), LIMITS)}
    assert set(found) == {"Noise over thermal", "Flux over the catalogue's"}
    for trend in found.values():
        assert trend.text.endswith("2026-01-28")
        assert sum("triangle" in mark.style for mark in trend.plot.marks) == 1
    assert "caution beyond 0.9 to 1.1: 2026-01-28" in found["Flux over the catalogue's"].text
    assert [text for _, text in found["Noise over thermal"].plot.x_ticks] == [
        f"01-{d}" for d in range(25, 30)
    ]


def rows_of(verdicts):
    """A row a day; each letter is a verdict of antenna 7: g good, n noise, - not in the array."""
    known = {"g": {"good": ["1", "7"]}, "n": {"good": ["1"], "noise": ["7"]}, "-": {"good": ["1"]}}
    return [IndexRow(name="x", observed_at=DAY_S * k, antennas=known[v]) for k, v in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "since"),
    [("gggggnn", "1970-01-06"), ("ggggn-n", "1970-01-05"), ("nnnnnnn", ""), ("gggnngg", ""), ("ngnngnn", "")],
)
def test_who_turned_bad_is_named_with_the_day(verdicts, since):
    found = antenna_map(days_of(rows_of(verdicts)))
    assert found.n_antennas == 2
    assert [name for name, _ in found.rows] == ["7"]
    levels = [cell.level for cell in found.rows[0][1]]
    assert levels == [{"g": 0, "n": 4, "-": -1}[v] for v in verdicts]
    assert [f"since {since} " in text for text in found.turned_bad] == ([True] if since else [])


def test_the_worse_polarisation_of_an_antenna_counts(tmp_path):
    folder = write_run(tmp_path / "out", [f"pad {k}" for k in range(6)])
    assert read_antenna_health(folder / "antennas.ecsv") == {
        "noise": ["pad 0", "pad 5"],
        "noisy": ["pad 4"],
        "good": ["pad 1", "pad 2", "pad 3"],
    }
    (folder / "antennas.ecsv").write_text("# a comment\nantenna verdict\n1 unheard\n")
    with pytest.raises(ValueError, match="verdict unheard of antenna 1"):
        read_antenna_health(folder / "antennas.ecsv")


def test_a_page_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / INDEX).write_text("<h1>mine</h1>")
    with pytest.raises(ResourceError, match="is no page of contimg; move it away"):
        write_index(tmp_path, [], LIMITS)
    assert (tmp_path / INDEX).read_text() == "<h1>mine</h1>"
    assert not is_index(tmp_path / "nowhere")


def test_pages_of_runs_lead_back_to_it(tmp_path):
    folder = write_run(tmp_path / "2026-01-25T22:26:05" / "seeded", ["a", "b", "c"], n_times=4, size=32)
    assert "All observations" not in checked(write_report(folder).read_text("utf-8")).text
    write_index(tmp_path, [], LIMITS)
    page = checked(write_report(folder).read_text("utf-8"))
    assert "../../index.html" in [a["href"] for a in page.all("a")]


def shown(page, column):
    """Texts of a column of the rows that are drawn."""
    head = page.locator(f"#runs thead th[data-key={column}]").evaluate("e => e.cellIndex")
    return page.locator("#runs tbody tr").evaluate_all(f"r => r.map(e => e.cells[{head}].textContent)")


def test_it_is_sorted_both_ways_with_the_unknown_last(pages, show):
    page = show(pages, name=INDEX)
    head = page.locator("#runs thead th[data-key=thermal]")
    for order, way in (("ascending", 1), ("descending", -1)):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == order
        values = [float(text.split()[0]) for text in shown(page, "thermal")]
        assert values == sorted(values, reverse=way < 0)
        assert page.locator("#said").inner_text() == f"Sorted by noise over thermal, {order}"
    assert page.locator("#runs tbody .beyond").count() == sum(v > LIMITS.thermal_ratio for v in values)
    page.get_by_role("button", name="Last").click()
    assert page.locator("#page-text").inner_text() == "Page 3 of 3"
    assert set(shown(page, "thermal")[-5:]) == {"–"}
    assert shown(page, "status")[-5:] == ["failed"] * 5


def test_it_is_filtered_by_text_verdict_status_and_dates(pages, show):
    rows = index_rows(250, 20)
    page = show(pages, name=INDEX)
    said = page.locator("#shown")
    assert said.inner_text() == "Observations 1 to 100 of 250"
    n_bad = sum(r.verdict == "bad" for r in rows)
    page.get_by_label("Verdict", exact=True).select_option("bad")
    assert said.inner_text() == f"Observations 1 to {n_bad} of {n_bad} that match, of 250"
    assert set(shown(page, "verdict")) == {"✕ bad"}
    page.get_by_label("Observed from").fill("2026-01-05")
    page.get_by_label("until").fill("2026-01-05")
    assert {text[:10] for text in shown(page, "observed")} == {"2026-01-05"}
    page.get_by_role("button", name="Show all").click()
    assert said.inner_text() == "Observations 1 to 100 of 250"
    page.get_by_label("Text").fill("STRIP failed")
    assert set(shown(page, "status")) == {"failed"}
    page.get_by_label("Status").select_option("improved")
    assert said.inner_text() == "Observations none that match, of 250"
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Seeded").select_option("no")
    assert set(shown(page, "seeded")) == {"no"}
    links = page.locator("#runs tbody a").evaluate_all("a => a.map(e => e.getAttribute('href'))")
    assert links == [r.link for r in reversed(rows) if r.seeded is False]


def test_on_a_phone_the_latest_days_and_the_names_of_antennas_are_seen(show, tmp_path):
    write_index(tmp_path, index_rows(800, 20), LIMITS)
    page = show(tmp_path, name=INDEX, width=390)
    box = page.locator("#map").locator("xpath=..").bounding_box()
    latest = page.locator("#map tbody tr td").nth(39).bounding_box()
    name = page.locator("#map tbody th").first.bounding_box()
    for seen in (latest, name):
        assert box["x"] <= seen["x"] + 0.5
        assert seen["x"] + seen["width"] <= box["x"] + box["width"] + 0.5


def test_the_map_of_antennas_is_read_by_pointer_and_by_keyboard(pages, show):
    page = show(pages, name=INDEX)
    told = page.locator("#cell-text")
    page.locator("#map tbody td").first.hover()
    assert told.inner_text() == "99, 2025-12-29: no data in 12 of 12 runs"
    page.locator("#map td[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    assert told.inner_text().startswith("43, 2026-01-10: noise in ")
    page.keyboard.press("Home")
    assert told.inner_text() == "43, 2025-12-29: good in all runs"
    assert page.locator("#map [tabindex='0']").count() == 1


def test_the_keyboard_reaches_every_control(pages, show):
    page = show(pages, name=INDEX)
    page.get_by_label("Text").fill("T00:")
    page.evaluate("() => document.activeElement.blur()")
    controls = "a[href], button:enabled, input, select, [tabindex='0']"
    script = f"() => [...document.querySelectorAll(`{controls}`)].indexOf(document.activeElement)"
    reached = set()
    # A field for a date has several stops.
    for _ in range(page.locator(controls).count() + 12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(script))
    assert set(range(page.locator(controls).count())) <= reached


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_and_no_grave_barrier_is_found(tmp_path, show, width, scheme):
    write_index(tmp_path, index_rows(30, 5), LIMITS)
    page = show(tmp_path, width, scheme, INDEX)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert "scrollable-region-focusable" in require_no_grave_barrier(page)


def test_without_scripts_the_latest_are_there(pages, show):
    page = show(pages, name=INDEX, java_script_enabled=False)
    assert page.get_by_text("Without JavaScript the last 50 of 250").is_visible()
    assert page.locator("#runs tbody tr").count() == 50
    assert not page.locator("#filters").is_visible()


def test_ten_thousand_observations_open(show, tmp_path):
    begun = time.perf_counter()
    path = write_index(tmp_path, index_rows(10_000, 280), LIMITS)
    written = time.perf_counter()
    page = show(tmp_path, name=INDEX)
    page.get_by_role("button", name="Next").click()
    assert page.locator("#shown").inner_text() == "Observations 101 to 200 of 10000"
    opened = time.perf_counter()
    size = path.stat().st_size
    assert size < 4e6
    FIGURES.append(
        f"page of 10000 observations: {size / 1e6:.1f} MB, made and written in {written - begun:.1f} s, "
        f"opened and on its second page after {opened - written:.1f} s"
    )
