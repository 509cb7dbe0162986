"""What the plots show is what the products hold."""

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.report.figures import array_plots, choices_of, source_plots
from dsa110_contimg.report.gain_plots import bandpass_panels, gain_panels, polarisations_of
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


def in_windows(table, n):
    """The table with so many spectral windows, each of other gains."""
    (first,) = table.gains.values()
    gain, freq_hz = first.gain, first.freq_hz
    windows = {k: replace(first, gain=gain * np.exp(1j * k), freq_hz=freq_hz + 1e7 * k) for k in range(n)}
    return replace(table, gains=windows)


def test_spectral_windows_that_differ_are_drawn_one_by_one(products):
    (table,) = products.gain_tables
    alone = gain_panels(products)
    assert alone.windows == []
    panels = gain_panels(replace(products, gain_tables=[in_windows(table, 3)]))
    assert [key for key, _ in panels.windows] == ["0", "1", "2"]
    assert panels.windows[1][1] == "spectral window 1, 1410 MHz"
    assert "one spectral window at a time" in panels.text
    one, three = alone.good[0].phase, panels.good[0].phase
    assert [group for group, _ in three.layers] == ["0", "1", "2"]
    assert list(three.alts) == ["0", "1", "2"]
    paths = [[m.path for m in marks if m.style == "s0 dot"] for _, marks in three.layers]
    assert paths[0] == [m.path for m in one.marks if m.style == "s0 dot"]
    assert paths[1] != paths[0]
    # Shared, they are drawn once.
    shared = replace(table, gains=dict.fromkeys(range(3), table.gains[0]))
    once = gain_panels(replace(products, gain_tables=[shared]))
    assert once.windows == []
    assert "the same in all 3 spectral windows" in once.text
    assert points(once.good[0].phase, "s0 dot") == points(one, "s0 dot")


def test_bandpasses_are_drawn_against_frequency(products):
    (table,) = products.gain_tables
    assert bandpass_panels(products) == []
    (of,) = table.gains.values()
    n = 16
    shape = (1, len(NAMES), n, 2)
    flag = np.zeros(shape, dtype=bool)
    flag[0, 1, :5, 0] = True
    ripple = 1 + 0.3 * np.sin(np.arange(n))[None, None, :, None] * np.ones(shape)
    per_time = ("time_s", "interval_s", "reference_antenna", "field_id", "scan")
    one_time = {k: getattr(of, k)[:1] for k in per_time}
    made = replace(
        of, **one_time, freq_hz=1.4e9 + 1e6 * np.arange(n), gain=ripple.astype(complex), flag=flag,
        error=np.full(shape, 0.01), snr=np.full(shape, 100.0),
    )  # fmt: skip
    given = replace(table, kind="B Jones", gains={0: made}, label="/data/obs_bpcal")
    (panels,) = bandpass_panels(replace(products, initial_bandpasses=[given]))
    assert panels.title == "Bandpass as given to the run, in obs_bpcal"
    assert "1400 to 1415 MHz, 16 channels" in panels.text
    found = {p.name: p for p in (*panels.odd, *panels.good)}
    assert points(found["b"].amplitude, "s0 dot") == n - 5
    assert points(found["b"].amplitude, "s1 square") == n
    assert points(found["b"].amplitude, "s2 cross") == 5
    assert "11 of 16 channels solved, amplitude 0.7" in found["b"].phase.alt
    own = bandpass_panels(replace(products, gain_tables=[*products.gain_tables, given]))
    assert own[0].title == "Bandpass solved by the run, in obs_bpcal"
    # The gains against time are without it.
    with_it, alone = (gain_panels(replace(products, gain_tables=t)) for t in ([table, given], [table]))
    assert with_it.text == alone.text
    assert [p.phase.marks for p in with_it.good] == [p.phase.marks for p in alone.good]


def test_polarisations_are_named_as_the_data_have_them(products):
    assert polarisations_of(products) == ("polarisation 0", "polarisation 1")
    products.summary["provenance"]["receptors"] = ["R", "L"]
    assert polarisations_of(products) == ("polarisation 0 (RR)", "polarisation 1 (LL)")


@pytest.mark.parametrize(
    ("slope", "told"),
    [(0.0, "No trend: from "), (-0.2, "the beam is narrower than assumed"), (0.2, "the beam is wider than")],
)
def test_a_beam_that_is_not_the_assumed_one_is_told_in_words(tmp_path, slope, told):
    products = read_products(write_run(tmp_path / "out", NAMES, n_sources=90))
    sources = products.sources
    east = (np.asarray(sources["ra_deg"]) - 150) * np.cos(np.radians(54))
    distance = np.hypot(east, np.asarray(sources["dec_deg"]) - 54)
    sources["ratio"] = np.asarray(sources["ratio"]) + slope * distance
    by_distance = source_plots(products)[0]
    assert told in by_distance.caption
    (line,) = [mark for mark in by_distance.marks if mark.style == "chosen line"]
    assert line.path.count("L") == 2


def test_the_interval_that_was_taken_is_marked(products):
    (choice,) = choices_of(products.summary)
    assert "Of 3 candidates 10 s" in choice.text
    assert "Taken was" not in choice.text
    for point in products.summary["iterations"][0]["curve"]:
        point["taken"] = point["solint_s"] == 20.0
    (choice,) = choices_of(products.summary)
    assert "Taken was 20 s" in choice.text
    assert points(choice.plot, "chosen ring") == 1


def test_what_all_candidates_share_is_not_told_and_lines_do_not_turn_back(products):
    (round_,) = products.summary["iterations"]
    (choice,) = choices_of(products.summary)
    assert [way for _, way in choice.legend] == ["linear in time"]
    # Another division into intervals of the same length, and one gain for both polarisations.
    curve = round_["curve"]
    curve.append(curve[1] | {"chi2_expected": 1.5})
    curve.append(curve[0] | {"common": True, "taken": False})
    (choice,) = choices_of(products.summary)
    ways = ["a gain per polarisation, linear in time", "one gain for both polarisations, linear in time"]
    assert [way for _, way in choice.legend] == ways
    assert points(choice.plot, "s0 dot") == 4
    lines = [mark.path for mark in choice.plot.marks if mark.style == "s0 line"]
    places = [float(point.split()[0]) for point in lines[0][1:].split("L")]
    assert places == sorted(set(places))
    assert len(places) == 3


def test_sources_are_drawn_against_distance_and_flux(products):
    plots = source_plots(products)
    assert len(plots) == 4
    measured = np.isfinite(np.asarray(products.sources["ratio"]))
    odd = products.sources["name"][np.asarray(products.sources["verdict"]) == "brighter"]
    for plot in plots:
        assert points(plot, "s0 dot") + points(plot, "s1 triangle") == measured.sum()
        assert {note.text for note in plot.notes} <= set(odd)
        assert plot.notes


def test_errors_of_few_sources_are_seen_whole(products):
    few = products.sources[np.isfinite(np.asarray(products.sources["ratio"]))][:5]
    few["ratio_error"] = 0.5
    few["shift_error_arcsec"] = 3.0
    for plot, (name, error) in zip(
        source_plots(replace(products, sources=few)),
        [("ratio", "ratio_error")] * 2 + [(None, "shift_error_arcsec")] * 2,
        strict=True,
    ):
        values = few[name] if name else np.hypot(few["shift_east_arcsec"], few["shift_north_arcsec"])
        assert plot.y.low <= (values - few[error]).min()
        assert plot.y.high >= (values + few[error]).max()


def test_what_is_too_faint_to_tell_is_not_drawn_as_off(products):
    products.sources["verdict"] = "faint"
    for plot in source_plots(products):
        assert points(plot, "s1 triangle") == 0
        assert not plot.notes
        assert "0 are not as the catalogue has them" in plot.alt


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


def test_arrows_tell_where_antennas_point_off(products):
    names = products.array.names
    off = {"antenna": names, "east_deg": [0.3, 0.0, -0.1, math.nan], "north_deg": [0.4, 0.1, 0.0, math.nan]}
    *_, arrows = array_plots(replace(products, pointing=Table(off)))
    said = f"3 antennas point off, as arrows at their places, the longest 0.50 deg at {names[0]}"
    assert said in arrows.alt
    titles = [mark.title for mark in arrows.marks if mark.style.endswith("line")]
    assert titles[0] == f"{names[0]}: +0.300 deg east, +0.400 deg north"
    assert len(titles) == 3
    assert points(arrows, "s0 faint dot") == 4


def test_a_squint_alone_is_told_without_arrows(products):
    names = products.array.names
    table = Table({"antenna": names, "east_deg": [0.0] * 4, "north_deg": [0.0, 0.0, 0.0, math.nan]})
    table.meta |= {"squint_east_deg": 0.031, "squint_north_deg": -0.02}
    plots = array_plots(replace(products, pointing=table))
    assert len(plots) == 2
    assert plots[0].alt.endswith("points +0.031 deg east, -0.020 north of the second")


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


@pytest.mark.parametrize(("low", "high", "least"), [(12.0, 80.0, 5), (2.0, 900.0, 5), (1.1, 1.9, 1)])
def test_a_logarithmic_axis_has_some_numbers(low, high, least):
    assert least <= len(Axis("x", low, high, log=True).numbers) <= 9


def test_phases_and_amplitudes_of_an_antenna_share_their_time_axis(products):
    """Numbers of other widths beside them do not shift one against the other."""
    for panel in gain_panels(products).good:
        assert panel.phase.frame.inner[:2] == panel.amplitude.frame.inner[:2]


def test_small_phases_fill_their_axis_and_one_solution_stands_in_the_middle(products):
    assert "\u2212180 to 180 degrees" in gain_panels(products).text
    (table,) = products.gain_tables
    gains = table.gains[0]
    small = replace(gains, gain=np.abs(gains.gain) * np.exp(0.1j * np.sign(np.angle(gains.gain))))
    one = replace(
        small,
        **{
            name: getattr(small, name)[:1]
            for name in (
                "time_s",
                "interval_s",
                "gain",
                "flag",
                "error",
                "snr",
                "reference_antenna",
                "field_id",
                "scan",
            )
        },
    )
    for given, told in ((small, "24 points"), (one, "one solution. ")):
        panels = gain_panels(replace(products, gain_tables=[replace(table, gains={0: given})]))
        assert "\u221215 to 15 degrees" in panels.text
        assert told in panels.text
        assert panels.good[0].phase.y.ticks == (-15.0, 0.0, 15.0)
    (middle,) = panels.good[0].phase.x.numbers
    left, right = panels.good[0].phase.frame.inner[:2]
    assert middle[1] == "0"
    assert panels.good[0].phase.x_ticks[0][0] == pytest.approx((left + right) / 2, abs=0.1)


def test_the_name_of_an_axis_has_room_beside_its_numbers():
    """On a phone they are drawn larger: 17 units high, and a digit two thirds as wide."""
    plot = Plot("", Axis("x", 0, 1), Axis("y", 1.00512, 1.0125))
    widest = max(len(text) for _, text in plot.y_ticks)
    assert widest >= 6
    assert plot.frame.left - 6 - 0.6 * 17 * (widest - 1) > 13


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
