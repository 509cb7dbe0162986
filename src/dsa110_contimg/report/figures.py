"""Plots of a run: gains of each antenna, the choice of intervals, sources, uv coverage and the array."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import erfa
import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.grid import SPEED_OF_LIGHT
from dsa110_contimg.report.pictures import data_uri
from dsa110_contimg.report.plots import Axis, Frame, Plot
from dsa110_contimg.report.products import AFTER, BEFORE, Array, RunProducts
from dsa110_contimg.selfcal.antenna_report import when_lost

__all__ = ["AntennaPanel", "Choice", "GainPanels", "array_plots", "choices_of", "gain_panels", "source_plots"]

#: More points are thinned out: what is drawn of each antenna is a few hundred pixels wide.
MOST_POINTS = 120_000
PHASES = Frame(width=200, height=86, left=36, right=5, top=7, bottom=5)
AMPLITUDES = Frame(width=200, height=86, left=36, right=5, top=4, bottom=16)
#: Pixels of the picture of the uv plane, on a side, if there are that many points.
UV_PIXELS, MANY_POINTS = 360, 20_000
#: Colours of the uv plane that are seen on white and on black: red, green, blue from 0 to 1.
BLUE, ORANGE = (0.22, 0.50, 0.78), (0.80, 0.42, 0.08)
#: Verdicts of antennas whose data count for nothing; of others something is odd.
USELESS = ("no data", "noise", "unsolved")
#: Sources that are named on the plots, the furthest off first.
MOST_NAMED = 8


@dataclass(frozen=True)
class AntennaPanel:
    """Gains of one antenna: its name, what became of it and when, its phases and its amplitudes."""

    name: str
    verdict: str
    when: str
    is_reference: bool
    phase: Plot
    amplitude: Plot


@dataclass(frozen=True)
class GainPanels:
    """Gains of all antennas.

    Attributes
    ----------
    odd, good : list of AntennaPanel
        Antennas that are not good, and the others.
    text : str
        What is drawn, in words.
    """

    odd: list[AntennaPanel]
    good: list[AntennaPanel]
    text: str


@dataclass(frozen=True)
class Choice:
    """How a round came to its interval: words, a plot, and its marks with what they stand for."""

    title: str
    text: str
    plot: Plot
    legend: list[tuple[str, str]]


def gain_panels(products: RunProducts) -> GainPanels | None:
    """Draw phase and amplitude of each antenna against time; None without gain tables."""
    # Not carried over gaps: what was not solved is to be seen.
    tables = [replace(t, max_gap=0.0) for t in products.gain_tables if t.kind != "B Jones"]
    if not tables:
        return None
    spw = min(tables[0].gains)
    n_antennas = tables[0].gains[spw].n_antennas
    names = products.array.names if products.array else [str(k) for k in range(n_antennas)]
    times = np.unique(np.concatenate([t.for_spw(spw).time_s for t in tables]))
    every = math.ceil(4 * times.size * n_antennas / MOST_POINTS)
    times = times[::every]
    gain, solved = (x[0] for x in gains_at_times(tables, [spw], times, n_antennas))
    phase_error, amplitude_error = _errors(tables, spw, times)
    minutes = (times - times[0]) / 60
    size = np.where(solved, np.abs(gain), np.nan)
    typical = float(np.nanmedian(size)) if solved.any() else 1.0
    largest = float(np.nanpercentile(size, 99)) if solved.any() else 1.0
    x = Axis("minutes", -0.03 * float(minutes[-1] or 1.0), 1.03 * float(minutes[-1] or 1.0))
    top = max(2 * typical, 1.1 * largest)
    y_amplitude = Axis("amplitude", 0.0, top, ticks=(0.0, float(f"{typical:.2g}")))
    y_phase = Axis("degrees", -190.0, 190.0, ticks=(-180.0, 0.0, 180.0))
    references = _references(tables, spw)
    verdicts = _verdicts(products.antennas)
    when = {} if products.antennas is None else when_lost(products.antennas)
    lost = {name: words for words, names in when.items() for name in names}
    panels = []
    for k, name in enumerate(names):
        verdict = verdicts.get(name, "")
        at = slice(None), k
        is_reference = references[:1] == [k]
        alt = _gains_in_words(name, verdict, gain[at], solved[at], is_reference)
        phases = Plot(alt, x, y_phase, PHASES)
        degrees = np.where(solved[at], np.degrees(np.angle(gain[at])), np.nan)
        _draw_gains(phases, minutes, degrees, np.degrees(phase_error[at]), solved[at])
        amplitudes = Plot("", x, y_amplitude, AMPLITUDES)
        _draw_gains(amplitudes, minutes, size[at], amplitude_error[at] * size[at], solved[at])
        panels.append(AntennaPanel(name, verdict, lost.get(name, ""), is_reference, phases, amplitudes))
    odd = [p for p in panels if p.verdict not in ("good", "")]
    text = _gains_text(tables, spw, names, minutes, every)
    return GainPanels(odd, [p for p in panels if p not in odd], text)


def _gains_text(
    tables: Sequence[GainTable], spw: int, names: Sequence[str], minutes: Float, every: int
) -> str:
    """Say what the panels show."""
    said = ["Phase (above, \u2212180 to 180 degrees) and amplitude (below) against minutes"]
    windows = len(tables[0].gains)
    if windows > 1:
        same = all(_same(table, spw, other) for table in tables for other in table.gains)
        said.append(f"{'the same in all' if same else 'of the first of'} {windows} spectral windows")
    said += [_minutes(minutes), f"{minutes.size} points"]
    if every > 1:
        said.append(f"one solution in {every}")
    text = ", ".join(said) + ". "
    who = [names[r] for r in _references(tables, spw)[:3] if r < len(names)]
    if who:
        others = f" (at times also {', '.join(who[1:])})" if who[1:] else ""
        text += f"Reference antenna: {who[0]}{others}. "
    return (
        f"{text}Bars are standard errors, where they are larger than a mark; amplitudes far above the others "
        "are drawn at the upper edge."
    )


def _references(tables: Sequence[GainTable], spw: int) -> list[int]:
    """List the reference antennas, the most frequent first."""
    found = Counter(int(r) for table in tables for r in table.for_spw(spw).reference_antenna if r >= 0)
    return [r for r, _ in found.most_common()]


def _same(table: GainTable, spw: int, other: int) -> bool:
    one, two = table.gains[spw].gain, table.gains[other].gain
    return one.shape == two.shape and bool(np.array_equal(one, two))


def _minutes(minutes: Float) -> str:
    return f"over {minutes[-1]:.3g} minutes" if minutes[-1] > 0 else "one interval"


def _errors(tables: Sequence[GainTable], spw: int, times: Float) -> tuple[Float, Float]:
    """Relative errors of phase and of amplitude, (ntime, nant, 2): those of tables that change it."""
    phase = amplitude = np.zeros((times.size, 1, 2))
    for table in tables:
        gains = table.for_spw(spw)
        nearest = np.abs(gains.time_s[None] - times[:, None]).argmin(axis=1)
        size = np.maximum(np.abs(gains.gain[:, :, 0]), 1e-30)
        relative = np.where(gains.flag[:, :, 0], 0.0, gains.error[:, :, 0] / size)[nearest] ** 2
        phase = phase + relative
        if np.abs(size - 1).max() > 1e-3:
            amplitude = amplitude + relative
    phase, amplitude = np.broadcast_arrays(phase, amplitude)
    return np.sqrt(phase), np.sqrt(amplitude)


def _draw_gains(plot: Plot, minutes: Float, values: Float, errors: Float, solved: Bool) -> None:
    """Draw both polarisations, (ntime, 2), and where there is no solution."""
    for p, style in ((0, "s0 dot"), (1, "s1 square")):
        plot.add_bars(f"s{p} bar", minutes, values[:, p] - errors[:, p], values[:, p] + errors[:, p])
        plot.add(style, minutes, values[:, p])
    lost = ~solved
    for p in range(2):
        if lost[:, p].any():
            height = plot.y.low + (0.1 + 0.12 * p) * (plot.y.high - plot.y.low)
            plot.add("s2 cross", minutes[lost[:, p]], np.full(int(lost[:, p].sum()), height))


def _gains_in_words(name: str, verdict: str, gain: Complex, solved: Bool, is_reference: bool) -> str:
    words = [
        f"Gains of {name}"
        + (", the reference antenna" if is_reference else "")
        + (f": {verdict}" if verdict else "")
    ]
    for p in range(2):
        n = int(solved[:, p].sum())
        if n == 0:
            words.append(f"polarisation {p} has no solution")
            continue
        of = gain[solved[:, p], p]
        steps = np.degrees(np.abs(np.angle(of[1:] * np.conj(of[:-1]))))
        step = f", phase changes by {np.median(steps):.0f} degrees between neighbours" if steps.size else ""
        amplitude = f"median amplitude {np.median(np.abs(of)):.3g}"
        words.append(f"polarisation {p}: {n} of {len(solved)} solved, {amplitude}{step}")
    return "; ".join(words)


def _verdicts(antennas: Table | None) -> dict[str, str]:
    """Say what became of each antenna: of both polarisations, if they differ."""
    found: dict[str, list[str]] = {}
    if antennas is not None:
        for name, verdict in zip(antennas["antenna"], antennas["verdict"], strict=True):
            of = found.setdefault(str(name), [])
            if str(verdict) not in of:
                of.append(str(verdict))
    return {name: " and ".join(sorted(v, key=lambda w: w == "good")) for name, v in found.items()}


def choices_of(summary: dict[str, Any]) -> list[Choice]:
    """Draw what each round's intervals were chosen by."""
    found = []
    for this in summary.get("iterations", []):
        curve = [c for c in this.get("curve") or [] if _finite(c.get("chi2_expected"), c.get("solint_s"))]
        if len(curve) > 1:
            found.append(_choice(this, curve))
    return found


def _finite(*values: Any) -> bool:
    return all(isinstance(v, int | float) and math.isfinite(v) for v in values)


#: Marks of ways to solve, in the order in which they come up.
WAYS = ("s0 dot", "s1 square", "s2 triangle", "s0 diamond", "s1 star", "s2 cross", "s0 ring", "s1 triangle")


def _choice(this: dict[str, Any], curve: list[dict[str, Any]]) -> Choice:
    mode = "phases" if this.get("calmode") == "p" else "amplitudes and phases"
    ways: dict[str, list[dict[str, Any]]] = {}
    for point in curve:
        ways.setdefault(_way(point), []).append(point)
    best = min(curve, key=lambda c: c["chi2_expected"])
    # Ways that are far worse at every interval would flatten what decides.
    decisive = [c["chi2_expected"] for c in ways[_way(best)]]
    x = Axis.around("solution interval (s)", [c["solint_s"] for c in curve], log=True)
    y = Axis.around("held-out chi-squared", decisive, log=max(decisive) > 3 * min(decisive) > 0)
    beyond = any(c["chi2_expected"] > y.high for c in curve)
    worst = max(curve, key=lambda c: c["chi2_expected"])
    taken = next((c for c in curve if _is_taken(c, this)), best)
    text = (
        "Every candidate was solved on one half of the channels and scored on the other half. Of "
        f"{len(curve)} candidates {_seconds(best)} ({_way(best)}) leaves the least there: "
        f"{best['chi2_expected']:.5g} times the thermal variance, {_seconds(worst)} ({_way(worst)}) "
        f"the most: {worst['chi2_expected']:.5g}. Shorter intervals follow the gains better, longer ones "
        "have less noise: the least is where the two balance."
    )
    plot = Plot(
        f"Held-out chi-squared against solution interval for {mode}: {len(ways)} curves; the lowest point is "
        f"at {_seconds(best)}, {best['chi2_expected']:.5g}",
        x,
        y,
    )
    for style, (way, points) in zip(WAYS, ways.items(), strict=False):
        points = sorted(points, key=lambda c: c["solint_s"])
        seconds, chi2 = [c["solint_s"] for c in points], [c["chi2_expected"] for c in points]
        plot.add_line(style.split()[0], seconds, chi2)
        plot.add(style, seconds, chi2, title=way)
    plot.add("chosen ring", taken["solint_s"], taken["chi2_expected"], title="taken")
    plot.add_note(taken["solint_s"], taken["chi2_expected"], "taken")
    if taken is not best:
        text += f" Taken was {_seconds(taken)} ({_way(taken)}): {taken['chi2_expected']:.5g}."
    if beyond:
        text += " Marks on the upper edge lie above it."
    return Choice(f"Round {this.get('iteration')}: {mode}", text, plot, list(zip(WAYS, ways, strict=False)))


def _is_taken(point: dict[str, Any], this: dict[str, Any]) -> bool:
    """Whether a round took a candidate."""
    return (
        math.isclose(point["solint_s"], this.get("solint_s") or 0.0, rel_tol=1e-6)
        and point.get("interpolation") == this.get("interpolation")
        and point.get("combined") == this.get("combined_spw")
        and point.get("common") == (this.get("gain_type") == "T")
    )


def _seconds(point: dict[str, Any]) -> str:
    seconds = float(point["solint_s"])
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _way(point: dict[str, Any]) -> str:
    return ", ".join(
        [
            "one gain for both polarisations" if point.get("common") else "a gain per polarisation",
            "spectral windows together" if point.get("combined") else "each spectral window",
            f"{point.get('interpolation')} in time",
        ]
    )


@dataclass(frozen=True, eq=False)
class _Quantity:
    """What was measured of sources: values with errors, what is right, and how far off each is."""

    label: str
    values: Float
    errors: Float
    right: float
    off: Float


def source_plots(products: RunProducts) -> list[Plot]:
    """Draw flux ratio and position offset of measured sources against distance and flux; none without any."""
    if products.sources is None:
        return []
    table = products.sources[np.isfinite(np.asarray(products.sources["ratio"], dtype=np.float64))]
    if len(table) == 0:
        return []

    def column(name: str) -> Float:
        return np.asarray(table[name], dtype=np.float64)

    ratio = column("ratio")
    offset = np.hypot(column("shift_east_arcsec"), column("shift_north_arcsec"))
    off = np.abs(np.log(np.maximum(ratio, 0.01)))
    quantities = (
        _Quantity("measured over catalogue flux", ratio, column("ratio_error"), 1.0, off),
        _Quantity("position offset (arcsec)", offset, column("shift_error_arcsec"), 0.0, offset),
    )
    flux = 1e3 * column("apparent_jy")
    along = [(Axis.around("flux as seen through the beam (mJy)", flux, log=True), flux)]
    image = products.images.get(AFTER) or products.images.get(BEFORE)
    if image is not None:
        distance = _distance(table, image.grid)
        label = "distance from the centre of the beam (degrees)"
        along.insert(0, (Axis.around(label, distance, include=(0.0,)), distance))
    return [_source_plot(table, quantity, axis, x) for quantity in quantities for axis, x in along]


def _source_plot(table: Table, quantity: _Quantity, axis: Axis, x: Float) -> Plot:
    values, errors = quantity.values, quantity.errors
    agrees = np.asarray(table["verdict"]).astype(str) == "agrees"
    low, middle, high = np.percentile(values, [5, 50, 95])
    plot = Plot(
        f"{quantity.label.capitalize()} of {len(table)} sources against {axis.label}: median {middle:.3g}, "
        f"nine tenths between {low:.3g} and {high:.3g}; {int(np.sum(~agrees))} are not as the catalogue has "
        "them",
        axis,
        Axis.around(quantity.label, values, include=(quantity.right,)),
    )
    plot.add_line("guide", [axis.low, axis.high], [quantity.right, quantity.right])
    plot.add_bars("s0 bar", x, values - errors, values + errors)
    for k, row in enumerate(table):
        style = "s0 dot" if agrees[k] else "s1 triangle"
        plot.add(style, x[k], values[k], title=f"{row['name']}: {values[k]:.3g}, {row['verdict']}")
    for k in [k for k in np.argsort(-quantity.off) if not agrees[k]][:MOST_NAMED]:
        plot.add_note(float(x[k]), float(values[k]), str(table["name"][k]))
    return plot


def _distance(table: Table, grid: ImageGrid) -> Float:
    """Distances from the phase centre in degrees."""
    l, m = grid.sky_to_lm(np.radians(table["ra_deg"]), np.radians(table["dec_deg"]))  # noqa: E741
    return np.asarray(np.degrees(np.arcsin(np.clip(np.hypot(l, m), 0, 1))))


def array_plots(products: RunProducts) -> list[Plot]:
    """Draw the antennas on the ground and their baselines in the uv plane; none without a gain table."""
    array = products.array
    if array is None:
        return []
    verdicts = _verdicts(products.antennas)
    health = np.array([_health(verdicts.get(name, "good")) for name in array.names])
    plots = [_map(array, health, verdicts)]
    image = products.images.get(AFTER) or products.images.get(BEFORE)
    if image is not None and products.gain_tables and len(array.names) > 1:
        plots.append(_uv(array, health, products.gain_tables, image.grid))
    return plots


def _health(verdict: str) -> int:
    """0: good; 1: something is odd; 2: of no use."""
    if verdict == "good":
        return 0
    return 2 if all(word in USELESS for word in verdict.split(" and ")) else 1


def _map(array: Array, health: Any, verdicts: dict[str, str]) -> Plot:
    east, north = _on_the_ground(array.position_m)
    half = 0.55 * max(float(np.ptp(east)), float(np.ptp(north)), 1.0)
    middle = [(float(v.max()) + float(v.min())) / 2 for v in (east, north)]
    frame = Frame(width=460, height=452)
    odd = [f"{array.names[k]} ({verdicts[array.names[k]]})" for k in np.flatnonzero(health)]
    known = f"{int(np.sum(health == 0))} are good" if verdicts else "no report says what became of them"
    known += f", not good: {', '.join(odd)}" if odd else ""
    plot = Plot(
        f"Map of {len(array.names)} antennas over {np.ptp(east):.0f} m from east to west and "
        f"{np.ptp(north):.0f} m from north to south; {known}",
        Axis("east (m)", middle[0] - half, middle[0] + half),
        Axis("north (m)", middle[1] - half, middle[1] + half),
        frame,
    )
    for k, name in enumerate(array.names):
        style = ("s0 dot", "s1 triangle", "s2 cross")[health[k]]
        plot.add(style, east[k], north[k], title=f"{name}: {verdicts.get(name, 'not reported')}")
    for k in np.flatnonzero(health)[: 2 * MOST_NAMED]:
        plot.add_note(float(east[k]), float(north[k]), array.names[k])
    return plot


def _on_the_ground(position_m: Float) -> tuple[Float, Float]:
    """East and north of the middle of the array, in metres."""
    centre = position_m.mean(axis=0)
    longitude, latitude, _ = erfa.gc2gd(1, centre)
    x, y, z = (position_m - centre).T
    east = -math.sin(longitude) * x + math.cos(longitude) * y
    inward = math.cos(longitude) * x + math.sin(longitude) * y
    return east, math.cos(latitude) * z - math.sin(latitude) * inward


def _uv(array: Array, health: Any, tables: Sequence[GainTable], grid: ImageGrid) -> Plot:
    """Draw where the baselines are in the uv plane at the times of the solutions."""
    gains = [g for table in tables for g in table.gains.values()]
    freq = float(np.mean([g.freq_hz.mean() for g in gains]))
    times = np.unique(np.concatenate([g.time_s for g in gains]))
    times = times[:: max(1, math.ceil(times.size / 60))]
    x, y, z = array.position_m.T * freq / SPEED_OF_LIGHT / 1e3
    # The angle of Earth rotation for that of the stars: a third of a degree off, which is not seen here.
    hour_angle = erfa.era00(2400000.5, times / 86400.0)[:, None] - grid.ra_rad
    sin, cos = np.sin(hour_angle), np.cos(hour_angle)
    u = sin * x + cos * y
    v = math.sin(grid.dec_rad) * (sin * y - cos * x) + math.cos(grid.dec_rad) * z
    first, second = np.triu_indices(len(array.names), 1)
    bu, bv = u[:, second] - u[:, first], v[:, second] - v[:, first]
    half = 1.05 * float(np.hypot(bu, bv).max()) or 1.0
    good = (health[first] == 0) & (health[second] == 0)
    # Few points are drawn large enough to be seen.
    n_pixels = UV_PIXELS if bu.size > MANY_POINTS else UV_PIXELS // 2
    edges = np.linspace(-half, half, n_pixels + 1)
    pixels = np.zeros((n_pixels, n_pixels, 4))
    for chosen, colour in ((~good, ORANGE), (good, BLUE)):
        rows, columns = (np.concatenate([s * b[:, chosen].ravel() for s in (1, -1)]) for b in (bv, bu))
        there = np.histogram2d(rows, columns, bins=(edges, edges))[0] > 0
        pixels[there] = (*colour, 1.0)
    n_bad = int(np.sum(~good))
    plot = Plot(
        f"uv coverage: {first.size} baselines at {times.size} times, out to {half / 1.05:.3g} "
        f"kilowavelengths at {freq / 1e6:.0f} MHz"
        + (f"; {n_bad} baselines have an antenna that is not good" if n_bad else ""),
        Axis("u (kilowavelengths)", -half, half),
        Axis("v (kilowavelengths)", -half, half),
        Frame(width=460, height=452),
    )
    plot.background = data_uri(pixels, "png")
    return plot
