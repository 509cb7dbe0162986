"""What the plots show is what the products hold."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.report.figures import array_plots, choices_of, source_plots
from dsa110_contimg.report.gain_plots import gain_panels
from dsa110_contimg.report.pictures import pictures_of
from dsa110_contimg.report.plots import Axis, Plot
from dsa110_contimg.report.products import read_products
from tests.report.synthetic import write_run

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def products(tmp_path):
    return read_products(write_run(tmp_path / "out", NAMES))


def points(plot, style):
    return sum(mark.path.count("M") for mark in plot.marks if mark.style == style)


def test_every_solution_is_drawn_and_every_gap_is_marked(products):
    gains = read_gain_table(products.folder / "selfcal_1_ap.gcal").gains[0]
    panels = gain_panels(products)
    assert "Reference antenna: a" in panels.text
    found = {panel.name: panel for panel in (*panels.odd, *panels.good)}
    assert set(found) == set(NAMES)
    assert gains.flag.any()
    for k, name in enumerate(NAMES):
        for plot in (found[name].phase, found[name].amplitude):
            assert points(plot, "s0 dot") == np.sum(~gains.flag[:, k, 0, 0])
            assert points(plot, "s1 square") == np.sum(~gains.flag[:, k, 0, 1])
            assert points(plot, "s2 cross") == np.sum(gains.flag[:, k])
        assert found[name].is_reference == (name == "a")
    assert {panel.name: panel.verdict for panel in panels.odd} == {"a": "noise and noisy"}


def test_long_runs_are_thinned_out_and_say_so(tmp_path):
    names = [f"ant{k}" for k in range(40)]
    panels = gain_panels(read_products(write_run(tmp_path / "out", names, n_times=2000)))
    assert "one solution in 3" in panels.text


def test_the_interval_that_was_taken_is_marked(products):
    (choice,) = choices_of(products.summary)
    assert "Of 3 candidates 10 s" in choice.text
    assert "Taken was" not in choice.text
    for point in products.summary["iterations"][0]["curve"]:
        point["taken"] = point["solint_s"] == 20.0
    (choice,) = choices_of(products.summary)
    assert "Taken was 20 s" in choice.text
    assert points(choice.plot, "chosen ring") == 1


def test_sources_are_drawn_against_distance_and_flux(products):
    plots = source_plots(products)
    assert len(plots) == 4
    measured = np.isfinite(np.asarray(products.sources["ratio"]))
    odd = products.sources["name"][np.asarray(products.sources["verdict"]) == "brighter"]
    for plot in plots:
        assert points(plot, "s0 dot") + points(plot, "s1 triangle") == measured.sum()
        assert {note.text for note in plot.notes} <= set(odd)
        assert plot.notes


def test_marks_lie_where_the_image_has_the_source(products):
    """The centre of the grid is at the centre of a pixel, counted from the upper left corner."""
    image = products.images["final-image.fits"]
    products.sources["ra_deg"][0] = math.degrees(image.grid.ra_rad)
    products.sources["dec_deg"][0] = math.degrees(image.grid.dec_rad)
    pictures = pictures_of(products)
    (mark,) = (m for m in pictures.marks if m.text.startswith("nvss0:"))
    y, x = np.unravel_index(image.image.argmax(), image.image.shape)
    assert (mark.x, mark.y) == (x + 0.5, len(image.image) - y - 0.5)


def test_an_image_of_zeros_or_of_another_run_is_no_trouble(products, tmp_path):
    other = read_products(write_run(tmp_path / "other", NAMES, size=64)).images["initial-image.fits"]
    zeros = products.images["final-image.fits"]
    zeros.image[:] = 0
    del products.summary["final"]
    pictures = pictures_of(replace(products, images=products.images | {"initial-image.fits": other}))
    assert pictures.before is None
    assert "not shown: initial-image.fits" in pictures.scale
    assert "0 times the noise" in pictures.after.alt


def test_images_in_other_flux_units_are_brought_to_the_same_noise(products):
    products.summary["flux_units_changed"] = True
    products.summary["initial"] = products.summary["initial"] | {"thermal_rms_jy": 9e-3}
    assert "shown times 0.1" in pictures_of(products).scale


def test_the_array_is_drawn_with_what_became_of_each_antenna(products):
    ground, uv = array_plots(products)
    assert "not good: a (noise and noisy)" in ground.alt
    assert points(ground, "s0 dot") == 3
    assert points(ground, "s1 triangle") == 1
    assert "6 baselines at 24 times" in uv.alt
    assert "3 baselines have an antenna that is not good" in uv.alt
    ground, uv = array_plots(replace(products, antennas=None))
    assert "good" not in ground.alt + uv.alt


@pytest.mark.parametrize("values", [[], [math.nan], [3.0, 3.0], [1e-9, 1e9], [-5.0, 0.0]])
@pytest.mark.parametrize("log", [True, False])
def test_axes_hold_whatever_there_is(values, log):
    axis = Axis.around("x", values, log=log)
    plot = Plot("", axis, axis)
    plot.add("s0 dot", values, values)
    assert axis.high > axis.low
    assert all(math.isfinite(place) for place, _ in plot.x_ticks)
    texts = [text for _, text in plot.x_ticks]
    assert len(set(texts)) == len(texts) >= 1


def test_words_do_not_cover_each_other():
    plot = Plot("", Axis("x", 0, 1), Axis("y", 0, 1))
    for _ in range(9):
        plot.add_note(0.5, 0.5, "name")
    places = [note.y for note in plot.notes]
    assert 1 < len(places) < 9
    assert min(np.diff(sorted(places))) >= 12


def test_lengths_bear_no_exponents():
    axis = Axis("north (m)", -700.0, 1600.0)
    assert [text for _, text in axis.numbers] == ["\u2212500", "0", "500", "1000", "1500"]
