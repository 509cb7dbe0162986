"""The page of a comparison: what stands on it, and its images under the slider."""

import json
import math

import numpy as np
import pytest

from dsa110_contimg.compare.page import render_comparison
from dsa110_contimg.imaging import ImageGrid, read_image
from tests.browser import require_no_grave_barrier
from tests.report.html_check import checked
from tests.report.test_build import HOSTILE

GRID = ImageGrid(192, math.radians(24 / 3600), 0.0, 0.5)


def test_the_page_says_what_the_results_hold(compared):
    out, results, *_ = compared
    page = checked((out / "report.html").read_text("utf-8"))
    assert f"Recommended: {results['verdict']['recommended']}" in page.text
    for criterion in results["verdict"]["criteria"]:
        assert f"{criterion['name']}: {criterion['evidence']}" in page.text
    made = [a["name"] for a in results["arms"] if not a["identical_to"]]
    assert [attrs["data-title"] for attrs in page.all("img")] == ["data as found", *made]
    tables = [attrs["id"] for attrs in page.all("table")]
    assert tables == ["arms-0", "arms-1", "arms-2", "arms-3", "sources-table"]


def test_each_source_has_its_flux_and_offset_in_each_image(compared):
    out, results, *_ = compared
    assert results["sources"]
    for arm in results["arms"]:
        if arm["identical_to"]:
            continue
        found = [s["measured"][arm["name"]] for s in results["sources"] if arm["name"] in s["measured"]]
        deep = arm["figures"]["deep"]
        # The same sources as in the medians of the arm, one by one.
        assert len(found) == deep["flux_ratio_n"]
        ratios, east, north = np.median(np.array(found), axis=0)
        assert ratios == pytest.approx(deep["flux_ratio"], abs=1e-4)
        assert (east, north) == pytest.approx(deep["offset_arcsec"], abs=2e-3)
    brightest = results["sources"][0]
    image = read_image(out / results["verdict"]["recommended"] / "common-image.fits")
    x, y = image.grid.sky_to_pixel(*np.radians([brightest["ra_deg"], brightest["dec_deg"]]))
    near = image.image[round(float(y)) - 2 : round(float(y)) + 3, round(float(x)) - 2 : round(float(x)) + 3]
    ratio = brightest["measured"][results["verdict"]["recommended"]][0]
    # Pixels lie beside the peak that is fitted, by half of one at the most.
    assert 0.7 * ratio * brightest["apparent_jy"] < near.max() <= ratio * brightest["apparent_jy"]


def test_hostile_words_and_no_completed_arm_make_a_page(compared):
    _, results, *_ = compared
    hostile = json.loads(json.dumps(results))
    hostile["arms"][0] |= {"message": HOSTILE[0], "reason": HOSTILE[1]}
    hostile["field"] = HOSTILE[2]
    hostile |= {"before": None, "sources": []}
    for arm in hostile["arms"]:
        arm |= {"figures": None, "seconds": None, "identical_to": None}
    hostile["verdict"] |= {"recommended": None, "because": HOSTILE[3]}
    page = checked(render_comparison(hostile, None, GRID))
    assert "No arm is recommended" in page.text
    assert not page.all("img")
    assert HOSTILE[3] in page.text


def test_images_are_chosen_and_compared_by_keyboard(compared, show):
    out, results, *_ = compared
    page = show(out)
    before, after = page.locator("#compare img.before"), page.locator("#compare img.after")
    assert before.get_attribute("data-title") == "baseline_no_nvss"
    assert after.get_attribute("data-title") == results["verdict"]["recommended"]
    page.get_by_label("Left of the line").select_option("data as found")
    assert before.get_attribute("data-title") == "data as found"
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    assert after.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 0px 0px 0%)"
    assert slider.get_attribute("aria-valuetext") == "0 percent left"
    # One image on both sides is that image.
    page.get_by_label("Right of the line").select_option("data as found")
    assert after.count() == 0
    assert before.is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_and_no_grave_barrier_is_found(compared, show, width, scheme):
    page = show(compared[0], width, scheme)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    require_no_grave_barrier(page)
