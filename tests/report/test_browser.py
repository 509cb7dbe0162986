"""The page in a browser: by pointer, by keyboard, on a phone, in the dark, for who does not see it."""

from __future__ import annotations

import pytest

from dsa110_contimg.report import write_report
from tests.browser import require_no_grave_barrier
from tests.report.synthetic import write_run
from tests.report.test_build import HOSTILE

CONTROLS = "a[href], button, input, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A run of few antennas with hostile names, whose summary names what is not there."""
    folder = write_run(tmp_path_factory.mktemp("odd") / "out", HOSTILE, field=HOSTILE[1], source=HOSTILE[0])
    (folder / "final-difference.fits").unlink()
    write_report(folder)
    return folder


def test_the_slider_moves_the_line(show, good):
    page = show(good)
    slider = page.get_by_role("slider")
    after = page.locator("#compare .after")

    def shown():
        return after.evaluate("e => getComputedStyle(e).clipPath")

    assert shown() == "inset(0px 0px 0px 50%)"
    slider.focus()
    slider.press("End")
    assert shown() == "inset(0px 0px 0px 100%)"
    assert slider.get_attribute("aria-valuetext") == "100 percent before"
    slider.press("ArrowLeft")
    assert shown() == "inset(0px 0px 0px 99%)"
    slider.press("Home")
    assert shown() == "inset(0px 0px 0px 0%)"


def test_one_spectral_window_is_shown_at_a_time(show, tmp_path):
    folder = write_run(tmp_path / "out", ["a", "b", "c"], windows=3)
    write_report(folder)
    page = show(folder, 390, "dark")
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    layers, panel = page.locator("#gains [data-window]"), page.locator("#gains svg.plot").first
    assert layers.count() == 3 * 2 * 3

    def shown():
        drawn = "e => e.filter(g => getComputedStyle(g).display !== 'none').map(g => g.dataset.window)"
        return layers.evaluate_all(drawn)

    assert shown() == ["0"] * 6
    words = panel.get_attribute("aria-label")
    chooser = page.get_by_label("Shown is")
    assert chooser.locator("option").all_inner_texts()[1] == "spectral window 1, 1410 MHz"
    chooser.select_option("2")
    assert shown() == ["2"] * 6
    # The words for who does not see it are of the window that is shown.
    assert panel.get_attribute("data-alt-2") == panel.get_attribute("aria-label")
    assert panel.get_attribute("data-alt-0") == words
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_tables_are_sorted_both_ways_with_the_unknown_last(show, good):
    page = show(good)
    table = page.locator("#sources-table")
    head = table.locator("thead th", has_text="flux ratio")
    column = head.evaluate("e => e.cellIndex")

    def values():
        cells = table.locator("tbody tr").evaluate_all(f"r => r.map(e => e.cells[{column}].textContent)")
        known = [float(c) for c in cells if c != "–"]
        assert "–" not in cells[: len(known)]
        return known

    for order, reverse in (("ascending", False), ("descending", True)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        assert values() == sorted(values(), reverse=reverse)
        assert f"Sorted by flux ratio, {order}" in page.locator("#said").inner_text()
    other = table.locator("thead th", has_text="verdict")
    other.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert other.get_attribute("aria-sort") == "ascending"


def test_sources_are_named_by_pointer_and_by_keyboard(show, good):
    page = show(good)
    marks, text = page.locator(".overlay [role=option]"), page.locator("#source-text")
    marks.nth(2).hover(force=True)
    assert text.inner_text() == marks.nth(2).get_attribute("aria-label")
    page.locator(".overlay [role=option][tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert text.inner_text() == marks.nth(1).get_attribute("aria-label")
    page.keyboard.press("End")
    assert marks.last.get_attribute("aria-selected") == "true"
    page.get_by_label("Mark sources").uncheck()
    assert not marks.first.is_visible()
    page.get_by_label("Mark sources").check()
    assert marks.first.is_visible()


def test_the_keyboard_reaches_every_control_in_order_and_shows_where_it_is(show, good):
    page = show(good)
    script = f"() => [...document.querySelectorAll(`{CONTROLS}`)].indexOf(document.activeElement)"
    n = page.locator(CONTROLS).count()
    reached = []
    for _ in range(n):
        page.keyboard.press("Tab")
        number = page.evaluate(script)
        reached.append(number)
        style = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        is_mark = page.evaluate("() => document.activeElement.matches('.source')")
        assert style != "none" or is_mark, page.evaluate("() => document.activeElement.outerHTML")[:200]
    assert reached == list(range(n))


@pytest.mark.parametrize("kind", ["good", "unseeded", "refused", "kept", "odd"])
def test_nothing_is_wider_than_the_window(request, show, kind):
    folder = request.getfixturevalue(kind)
    if not (folder / "report.html").exists():
        write_report(folder)
    page = show(folder, 390, "dark")
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_no_grave_barrier_is_found(show, odd, width, scheme):
    page = show(odd, width, scheme)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert "scrollable-region-focusable" in require_no_grave_barrier(page)


def test_a_full_size_page_opens_at_once_and_fits_a_phone(show, large):
    page = show(large[0], 390, "dark")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.locator("#gains figure").count() == 117
