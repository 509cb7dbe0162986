"""Plots of a run: the choice of intervals, sources, uv coverage and the array."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import erfa
import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.imaging import ImageGrid, mad_rms
from dsa110_contimg.imaging.grid import SPEED_OF_LIGHT
from dsa110_contimg.report.gain_plots import verdicts_of
from dsa110_contimg.report.pictures import AS_LISTED, data_uri
from dsa110_contimg.report.plots import Axis, Frame, Plot
from dsa110_contimg.report.products import AFTER, BEFORE, Array, RunProducts

__all__ = ["Choice", "array_plots", "choices_of", "source_plots"]

#: Pixels of the picture of the uv plane, on a side, if there are that many points.
UV_PIXELS, MANY_POINTS = 360, 20_000
#: Colours of the uv plane that are seen on white and on black: red, green, blue from 0 to 1.
BLUE, ORANGE = (0.22, 0.50, 0.78), (0.80, 0.42, 0.08)
#: Verdicts of antennas whose data count for nothing; of others something is odd.
USELESS = ("no data", "noise", "unsolved")
#: Sources that are named on the plots, the furthest off first.
MOST_NAMED = 8


@dataclass(frozen=True)
class Choice:
    """How a round came to its interval: words, a plot, and its marks with what they stand for."""

    title: str
    text: str
    plot: Plot
    legend: list[tuple[str, str]]


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
    # What all candidates share is no news.
    differs = {key for key in ("common", "combined") if len({bool(c.get(key)) for c in curve}) > 1}

    def way(point: dict[str, Any]) -> str:
        return _way(point, differs)

    ways: dict[str, list[dict[str, Any]]] = {}
    for point in curve:
        ways.setdefault(way(point), []).append(point)
    best = min(curve, key=lambda c: c["chi2_expected"])
    # Ways that are far worse at every interval would flatten what decides.
    decisive = [c["chi2_expected"] for c in ways[way(best)]]
    x = Axis.around("data in a solution interval (s)", [c["solint_s"] for c in curve], log=True)
    y = Axis.around("held-out chi-squared", decisive, log=max(decisive) > 3 * min(decisive) > 0)
    beyond = any(c["chi2_expected"] > y.high for c in curve)
    worst = max(curve, key=lambda c: c["chi2_expected"])
    taken = next((c for c in curve if c.get("taken")), None)
    text = (
        "Every candidate was solved on one half of the channels and scored on the other half. Of "
        f"{len(curve)} candidates {_seconds(best)} ({way(best)}) leaves the least there: "
        f"{best['chi2_expected']:.5g} times the thermal variance, {_seconds(worst)} ({way(worst)}) "
        f"the most: {worst['chi2_expected']:.5g}. Shorter intervals follow the gains better, longer ones "
        "have less noise: the least is where the two balance."
    )
    plot = Plot(
        f"Held-out chi-squared against solution interval for {mode}: {len(ways)} curves; the lowest point is "
        f"at {_seconds(best)}, {best['chi2_expected']:.5g}",
        x,
        y,
    )
    for style, (words, points) in zip(WAYS, ways.items(), strict=False):
        # Of two divisions into intervals of the same length the line follows the better one.
        least = {c["solint_s"]: c["chi2_expected"] for c in sorted(points, key=_chi2, reverse=True)}
        seconds = sorted(least)
        plot.add_line(style.split()[0], seconds, [least[s] for s in seconds])
        plot.add(style, [c["solint_s"] for c in points], [_chi2(c) for c in points], title=words)
    if taken is not None:
        plot.add("chosen ring", taken["solint_s"], taken["chi2_expected"], title="taken")
        plot.add_note(taken["solint_s"], taken["chi2_expected"], "taken")
        elapsed = this.get("solint_s")
        if _finite(elapsed) and elapsed > 1.05 * taken["solint_s"]:
            text += f" With the gaps between scans an interval of those taken lasts {elapsed:.0f} s."
    if taken is not None and taken is not best:
        text += f" Taken was {_seconds(taken)} ({way(taken)}): {taken['chi2_expected']:.5g}."
    if beyond:
        text += " Marks on the upper edge lie above it."
    return Choice(f"Round {this.get('iteration')}: {mode}", text, plot, list(zip(WAYS, ways, strict=False)))


def _seconds(point: dict[str, Any]) -> str:
    seconds = float(point["solint_s"])
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _chi2(point: dict[str, Any]) -> float:
    return float(point["chi2_expected"])


def _way(point: dict[str, Any], differs: Container[str]) -> str:
    """Say how a candidate was solved, as far as others were solved otherwise."""
    said = []
    if "common" in differs:
        said.append("one gain for both polarisations" if point.get("common") else "a gain per polarisation")
    if "combined" in differs:
        said.append("spectral windows together" if point.get("combined") else "each spectral window")
    return ", ".join([*said, f"{point.get('interpolation')} in time"])


@dataclass(frozen=True, eq=False)
class _Quantity:
    """What was measured of sources: values with errors, what is right, and how far off each is.

    A trend along an axis that has causes by its sign, falling and rising, is told.
    """

    label: str
    values: Float
    errors: Float
    right: float
    off: Float
    causes: dict[str, tuple[str, str]]


#: The axes of so many sources hold their errors too.
FEW_DRAWN = 12
#: Fewer sources than this show no trend; one counts from so many errors on, and from this fraction on.
FEWEST_IN_TREND, TREND_SIGMAS, TREND_FRACTION = 12, 4.0, 0.03
#: Nor do positions drift by less than this.
LEAST_ARCSEC = 1.0
DISTANCE = "distance from the centre of the beam (degrees)"
FLUX = "flux as seen through the beam (mJy)"
#: What makes the fluxes fall, or rise, along an axis.
FLUX_CAUSES = {
    DISTANCE: (
        "the beam is narrower than assumed, as of larger dishes, or points elsewhere",
        "the beam is wider than assumed, as of smaller dishes",
    ),
    FLUX: (
        "the brightest sources are off in the catalogue, or faint ones are blended with what it lacks",
        "faint sources come out too faint: too few are in the sky model, or the gains take flux from them",
    ),
}
PLACE_CAUSES = {
    DISTANCE: (
        "the centre is off, or the dishes point elsewhere",
        "coordinates, refraction or the ionosphere",
    )
}


def source_plots(products: RunProducts) -> list[Plot]:
    """Draw flux ratio and position offset of measured sources against distance and flux; none without any."""
    if products.sources is None:
        return []
    # Of what was read off the image there are no positions.
    placed = np.asarray(products.sources["shift_east_arcsec"], dtype=np.float64)
    table = products.sources[np.isfinite(placed)]
    if len(table) == 0:
        return []

    def column(name: str) -> Float:
        return np.asarray(table[name], dtype=np.float64)

    ratio = column("ratio")
    offset = np.hypot(column("shift_east_arcsec"), column("shift_north_arcsec"))
    off = np.abs(np.log(np.maximum(ratio, 0.01)))
    quantities = (
        _Quantity("measured over catalogue flux", ratio, column("ratio_error"), 1.0, off, FLUX_CAUSES),
        _Quantity(
            "position offset (arcsec)", offset, column("shift_error_arcsec"), 0.0, offset, PLACE_CAUSES
        ),
    )
    flux = 1e3 * column("apparent_jy")
    along = [(Axis.around(FLUX, flux, log=True), flux)]
    image = products.images.get(AFTER) or products.images.get(BEFORE)
    if image is not None:
        distance = _distance(table, image.grid)
        along.insert(0, (Axis.around(DISTANCE, distance, include=(0.0,)), distance))
    return [_source_plot(table, quantity, axis, x) for quantity in quantities for axis, x in along]


def _source_plot(table: Table, quantity: _Quantity, axis: Axis, x: Float) -> Plot:
    values, errors = quantity.values, quantity.errors
    agrees = np.isin(np.asarray(table["verdict"]).astype(str), AS_LISTED)
    low, middle, high = np.percentile(values, [5, 50, 95])
    # Errors of a few are seen whole; of many the largest would flatten the rest.
    ends = np.concatenate([values - errors, values + errors]) if len(table) <= FEW_DRAWN else ()
    plot = Plot(
        f"{quantity.label.capitalize()} of {len(table)} sources against {axis.label}: median {middle:.3g}, "
        f"nine tenths between {low:.3g} and {high:.3g}; {int(np.sum(~agrees))} are not as the catalogue has "
        "them",
        axis,
        Axis.around(quantity.label, values, include=(quantity.right, *ends)),
    )
    plot.add_line("guide", [axis.low, axis.high], [quantity.right, quantity.right])
    plot.add_bars("s0 bar", x, values - errors, values + errors)
    for k, row in enumerate(table):
        style = "s0 dot" if agrees[k] else "s1 triangle"
        plot.add(style, x[k], values[k], title=f"{row['name']}: {values[k]:.3g}, {row['verdict']}")
    for k in [k for k in np.argsort(-quantity.off) if not agrees[k]][:MOST_NAMED]:
        plot.add_note(float(x[k]), float(values[k]), str(table["name"][k]))
    if len(table) >= FEWEST_IN_TREND and axis.label in quantity.causes:
        _add_trend(plot, quantity, axis, x)
    return plot


def _add_trend(plot: Plot, quantity: _Quantity, axis: Axis, x: Float) -> None:
    """Join the medians of thirds of the sources along an axis, and say whether they tell a trend."""
    thirds = np.array_split(np.argsort(x, kind="stable"), 3)
    middle = [float(np.median(x[part])) for part in thirds]
    medians = [float(np.median(quantity.values[part])) for part in thirds]
    # The error of a median is 1.25 times that of a mean; the scatter is that about the line.
    left = (quantity.values - np.interp(x, middle, medians)).astype(np.float32)
    errors = [1.25 * mad_rms(left[part]) / math.sqrt(len(part)) for part in thirds]
    plot.add_line("chosen", middle, medians)
    change, error = medians[-1] - medians[0], math.hypot(errors[0], errors[-1])
    what = "nearest" if axis.label == DISTANCE else "faintest"
    other = "furthest" if axis.label == DISTANCE else "brightest"
    said = f"{medians[0]:.3g} in the median of the {what} third to {medians[-1]:.3g} of the {other}"
    least = TREND_FRACTION if quantity.right else LEAST_ARCSEC
    if abs(change) > max(TREND_SIGMAS * error, least):
        falls, rises = quantity.causes[axis.label]
        way, cause = ("falls", falls) if change < 0 else ("rises", rises)
        plot.caption = f"It {way}, from {said}: {cause}."
    else:
        plot.caption = f"No trend: from {said}."


def _distance(table: Table, grid: ImageGrid) -> Float:
    """Distances from the phase centre in degrees."""
    l, m = grid.sky_to_lm(np.radians(table["ra_deg"]), np.radians(table["dec_deg"]))  # noqa: E741
    return np.asarray(np.degrees(np.arcsin(np.clip(np.hypot(l, m), 0, 1))))


def array_plots(products: RunProducts) -> list[Plot]:
    """Draw the antennas on the ground and their baselines in the uv plane; none without a gain table."""
    array = products.array
    if array is None:
        return []
    verdicts = verdicts_of(products.antennas)
    health = np.array([_health(verdicts.get(name, "good")) for name in array.names])
    plots = [_map(array, health, verdicts)]
    image = products.images.get(AFTER) or products.images.get(BEFORE)
    if image is not None and products.gain_tables and len(array.names) > 1:
        plots.append(_uv(array, health, products.gain_tables, image.grid))
    if products.pointing is not None:
        if _points_off(products.pointing):
            plots.append(_pointing(array, products.pointing))
        else:
            plots[0].alt += _squint(products.pointing)
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
    n_good = int(np.sum(health == 0))
    known = f"{n_good if odd else 'all'} are good" if verdicts else "no report says what became of them"
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


def _points_off(table: Table) -> bool:
    """Whether any antenna has an offset of its own, beside a squint that all share."""
    offsets = [np.asarray(table[name], dtype=np.float64) for name in ("east_deg", "north_deg")]
    return bool(np.any(np.nan_to_num(offsets) != 0.0))


def _squint(table: Table) -> str:
    """Tell the squint that all antennas share, in a sentence that follows another; empty without any."""
    squint = [table.meta.get(f"squint_{way}_deg") for way in ("east", "north")]
    if None in squint:
        return ""
    return (
        f". The first receptor of each points {squint[0]:+.3f} deg east, {squint[1]:+.3f} north of the second"
    )


def _pointing(array: Array, table: Table) -> Plot:
    """Draw an arrow at each antenna by how much it points off, and one that tells the scale."""
    offsets = {
        str(row["antenna"]): (float(row["east_deg"]), float(row["north_deg"]))
        for row in table
        if np.isfinite(row["east_deg"]) and np.isfinite(row["north_deg"])
    }
    east, north = _on_the_ground(array.position_m)
    half = 0.6 * max(float(np.ptp(east)), float(np.ptp(north)), 1.0)
    middle = [(float(v.max()) + float(v.min())) / 2 for v in (east, north)]
    size = {name: math.hypot(*off) for name, off in offsets.items()}
    largest = max(size, key=lambda name: size[name], default="")
    longest = max(size.get(largest, 0.0), 1e-6)
    scale = 0.25 * half / longest
    plot = Plot(
        f"Where {len(offsets)} antennas point off, as arrows at their places, the longest {longest:.2f} deg "
        f"at {largest}; east to the right, north up{_squint(table)}",
        Axis("east (m)", middle[0] - half, middle[0] + half),
        Axis("north (m)", middle[1] - half, middle[1] + half),
        Frame(width=460, height=452),
    )
    for name, x, y in zip(array.names, east, north, strict=True):
        plot.add("s0 faint dot", x, y, title=f"{name}: no data")
        if name not in offsets:
            continue
        to = np.array([x, y]) + scale * np.array(offsets[name])
        along = (to - [x, y]) * 0.3
        across = np.array([-along[1], along[0]]) * 0.5
        path = np.array([[x, y], to, to - along + across, to, to - along - across])
        words = f"{name}: {offsets[name][0]:+.3f} deg east, {offsets[name][1]:+.3f} deg north"
        plot.add_line("s1", *path.T, title=words)
    if largest in array.names:
        k = array.names.index(largest)
        plot.add_note(float(east[k]), float(north[k]), f"{largest} {longest:.2f} deg")
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
