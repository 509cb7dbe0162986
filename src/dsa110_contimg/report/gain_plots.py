"""Gains and bandpasses of a run, antenna by antenna."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.report.plots import Axis, Frame, Plot
from dsa110_contimg.report.products import RunProducts
from dsa110_contimg.selfcal.antenna_report import when_lost

__all__ = ["AntennaPanel", "GainPanels", "bandpass_panels", "gain_panels", "polarisations_of", "verdicts_of"]

#: More points are thinned out: what is drawn of each antenna is a few hundred pixels wide.
MOST_POINTS = 120_000
#: Degrees to either side that the phases of all antennas are drawn over: the least that holds them.
PHASE_RANGES = (5.0, 15.0, 45.0, 90.0, 180.0)
PHASES = Frame(width=200, height=86, left=36, right=5, top=7, bottom=5, is_named=False)
AMPLITUDES = Frame(width=200, height=86, left=36, right=5, top=4, bottom=16, is_named=False)


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
    """Gains of all antennas, or their bandpasses.

    Attributes
    ----------
    title : str
        What they are.
    odd, good : list of AntennaPanel
        Antennas that are not good, and the others.
    text : str
        What is drawn, in words.
    windows : list of (str, str)
        Spectral windows of which one at a time is shown, and how each is told; none if there is nothing to
        choose.
    """

    title: str
    odd: list[AntennaPanel]
    good: list[AntennaPanel]
    text: str
    windows: list[tuple[str, str]]


def polarisations_of(products: RunProducts) -> tuple[str, str]:
    """Name the two polarisations: by their number, and by their parallel hands where the summary tells."""
    receptors = (products.summary.get("provenance") or {}).get("receptors")
    hands = ["", ""]
    if isinstance(receptors, list) and len(receptors) == 2:
        hands = [f" ({r}{r})" for r in receptors]
    return f"polarisation 0{hands[0]}", f"polarisation 1{hands[1]}"


def gain_panels(products: RunProducts) -> GainPanels | None:
    """Draw phase and amplitude of each antenna against time; None without gain tables."""
    # Not carried over gaps: what was not solved is to be seen.
    tables = [replace(t, max_gap=0.0) for t in products.gain_tables if t.kind != "B Jones"]
    if not tables:
        return None
    first, *others = sorted(tables[0].gains)
    differ = not all(_same(table, first, other) for table in tables for other in others)
    windows = [first, *others] if differ else [first]
    n_antennas = tables[0].gains[first].n_antennas
    times = np.unique(np.concatenate([t.for_spw(w).time_s for t in tables for w in windows]))
    every = math.ceil(4 * times.size * n_antennas * len(windows) / MOST_POINTS)
    times = times[::every]
    gain, solved = gains_at_times(tables, windows, times, n_antennas)
    errors = [_errors(tables, window, times) for window in windows]
    minutes = (times - times[0]) / 60
    known = np.where(solved, gain, np.nan)
    length = float(minutes[-1])
    # One solution stands in the middle.
    x = (
        Axis("minutes", -0.03 * length, 1.03 * length)
        if length > 0
        else Axis("minutes", -1.0, 1.0, ticks=(0.0,))
    )
    references = _references(tables, first)
    panels = _Panels(products, x, known, n_antennas)
    for w, window in enumerate(windows):
        phase_error, amplitude_error = errors[w]
        for k in range(n_antennas):
            at = slice(None), k
            is_reference = references[:1] == [k]
            panels.draw(
                k,
                str(window) if differ else "",
                _gains_in_words(panels.told(k), gain[w][at], solved[w][at], is_reference),
                _Drawn(minutes, gain[w][at], solved[w][at], phase_error[at], amplitude_error[at]),
                is_reference,
            )
    text = _gains_text(tables, windows, 1 + len(others), panels, minutes, every)
    named = [(str(w), _window_in_words(w, tables[0].gains[w])) for w in windows] if differ else []
    return panels.made("Gains against time", text, named)


def bandpass_panels(products: RunProducts) -> list[GainPanels]:
    """Draw phase and amplitude against frequency, of tables that were given and of the run's own."""
    own = [t for t in products.gain_tables if t.kind == "B Jones"]
    given = [(t, "as given to the run, in") for t in products.initial_bandpasses]
    return [
        _bandpass(products, table, f"Bandpass {how} {Path(table.label).name}")
        for table, how in (*given, *((t, "solved by the run, in") for t in own))
    ]


def _bandpass(products: RunProducts, table: GainTable, title: str) -> GainPanels:
    windows = [table.gains[w] for w in sorted(table.gains)]
    n_antennas = windows[0].n_antennas
    # Of a table of several times the first is drawn: what is to be seen is the shape.
    parts = []
    for of in windows:
        order = np.argsort(of.freq_hz)
        parts.append((of.freq_hz[order] / 1e6, *(v[0][:, order] for v in (of.gain, of.flag, of.error))))
    mhz, gain, flag, error = (
        np.concatenate(v, axis=0 if number == 0 else 1) for number, v in enumerate(zip(*parts, strict=True))
    )
    every = math.ceil(4 * mhz.size * n_antennas / MOST_POINTS)
    mhz, gain, flag, error = mhz[::every], gain[:, ::every], flag[:, ::every], error[:, ::every]
    gain, flag, error = (np.broadcast_to(v, (*v.shape[:2], 2)) for v in (gain, flag, error))
    solved = ~flag
    spread = 0.03 * (float(np.ptp(mhz)) or 1.0)
    middle = float(f"{(mhz.min() + mhz.max()) / 2:.6g}")
    x = Axis("MHz", float(mhz.min()) - spread, float(mhz.max()) + spread, ticks=(middle,))
    references = [r for r in _references([table], min(table.gains)) if r < n_antennas]
    panels = _Panels(products, x, np.where(solved, gain, np.nan), n_antennas)
    for k in range(n_antennas):
        relative = error[k] / np.maximum(np.abs(gain[k]), 1e-30)
        words = _bandpass_in_words(panels.told(k), gain[k], solved[k])
        drawn = _Drawn(mhz, gain[k], solved[k], relative, relative)
        panels.draw(k, "", words, drawn, references[:1] == [k])
    times = max(of.time_s.size for of in windows)
    said = [
        f"Phase (above, {panels.phases}) and amplitude (below) against frequency in MHz",
        f"{mhz.min():.6g} to {mhz.max():.6g} MHz",
        f"{mhz.size} channels" if every == 1 else f"one channel in {every}",
    ]
    said += [f"{len(windows)} spectral windows side by side"] if len(windows) > 1 else []
    said += [f"the first of {times} times"] if times > 1 else []
    return panels.made(title, ", ".join(said) + ". ", [])


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Gains of an antenna along x, (n,): gain, solved and relative errors are (n, 2)."""

    x: Float
    gain: Complex
    solved: Bool
    phase_error: Float
    amplitude_error: Float


class _Panels:
    """Panels of all antennas on the same axes, as they are drawn."""

    def __init__(self, products: RunProducts, x: Axis, gain: Complex, n_antennas: int) -> None:
        size = np.abs(gain)
        known = np.isfinite(size)
        typical = float(np.median(size[known])) if known.any() else 1.0
        largest = float(np.percentile(size[known], 99)) if known.any() else 1.0
        top = max(2 * typical, 1.1 * largest)
        self.x = x
        self.amplitude = Axis("amplitude", 0.0, top, ticks=(0.0, float(f"{typical:.2g}")))
        widest = float(np.degrees(np.abs(np.angle(gain[known]))).max()) if known.any() else 180.0
        half = next((h for h in PHASE_RANGES if h >= widest), 180.0)
        self.phase = Axis("degrees", -1.06 * half, 1.06 * half, ticks=(-half, 0.0, half))
        self.phases = f"\u2212{half:g} to {half:g} degrees"
        of_array = products.array.names if products.array else []
        self.names = of_array if len(of_array) == n_antennas else [str(k) for k in range(n_antennas)]
        self.verdicts = verdicts_of(products.antennas)
        when = {} if products.antennas is None else when_lost(products.antennas)
        self.lost = {name: words for words, names in when.items() for name in names}
        self.panels: dict[int, AntennaPanel] = {}

    def told(self, k: int) -> tuple[str, str]:
        """Name and verdict of an antenna."""
        return self.names[k], self.verdicts.get(self.names[k], "")

    def draw(self, k: int, group: str, words: str, drawn: _Drawn, is_reference: bool) -> None:
        """Draw gains of an antenna, of a spectral window that can be chosen if a group is named."""
        name, verdict = self.told(k)
        if k not in self.panels:
            phases = Plot(words, self.x, self.phase, PHASES)
            amplitudes = Plot("", self.x, self.amplitude, AMPLITUDES)
            self.panels[k] = AntennaPanel(
                name, verdict, self.lost.get(name, ""), is_reference, phases, amplitudes
            )
        this = self.panels[k]
        if group:
            this.phase.alts[group] = words
        degrees = np.where(drawn.solved, np.degrees(np.angle(drawn.gain)), np.nan)
        size = np.where(drawn.solved, np.abs(drawn.gain), np.nan)
        for plot, values, errors in (
            (this.phase, degrees, np.degrees(drawn.phase_error)),
            (this.amplitude, size, drawn.amplitude_error * size),
        ):
            plot.group = group
            _draw_gains(plot, drawn.x, values, errors, drawn.solved)

    def made(self, title: str, text: str, windows: list[tuple[str, str]]) -> GainPanels:
        """Return all panels, those of antennas that are not good apart."""
        panels = [self.panels[k] for k in sorted(self.panels)]
        odd = [p for p in panels if p.verdict not in ("good", "")]
        bars = (
            "Bars are standard errors, where they are larger than a mark; amplitudes far above the others "
            "are drawn at the upper edge."
        )
        return GainPanels(title, odd, [p for p in panels if p not in odd], text + bars, windows)


def _window_in_words(window: int, gains: Gains) -> str:
    return f"spectral window {window}, {gains.freq_hz.mean() / 1e6:.6g} MHz"


def _gains_text(
    tables: Sequence[GainTable],
    windows: Sequence[int],
    n_windows: int,
    panels: _Panels,
    minutes: Float,
    every: int,
) -> str:
    """Say what the panels show."""
    names = panels.names
    said = [f"Phase (above, {panels.phases}) and amplitude (below) against minutes"]
    if n_windows > 1:
        one = "of one spectral window at a time, on the same axes"
        all_of = "both" if n_windows == 2 else f"all {n_windows}"
        said.append(one if len(windows) > 1 else f"the same in {all_of} spectral windows")
    said += [_minutes(minutes), f"{minutes.size} points"] if minutes.size > 1 else ["one solution"]
    if every > 1:
        said.append(f"one solution in {every}")
    text = ", ".join(said) + ". "
    who = [names[r] for r in _references(tables, windows[0])[:3] if r < len(names)]
    if who:
        others = f" (at times also {', '.join(who[1:])})" if who[1:] else ""
        text += f"Reference antenna: {who[0]}{others}. "
    return text


def _references(tables: Sequence[GainTable], spw: int) -> list[int]:
    """List the reference antennas, the most frequent first."""
    found = Counter(int(r) for table in tables for r in table.for_spw(spw).reference_antenna if r >= 0)
    return [r for r, _ in found.most_common()]


def _same(table: GainTable, spw: int, other: int) -> bool:
    one, two = table.gains[spw].gain, table.gains[other].gain
    return one.shape == two.shape and bool(np.array_equal(one, two))


def _minutes(minutes: Float) -> str:
    return f"over {minutes[-1]:.3g} minutes"


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


def _gains_in_words(told: tuple[str, str], gain: Complex, solved: Bool, is_reference: bool) -> str:
    name, verdict = told
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


def _bandpass_in_words(told: tuple[str, str], gain: Complex, solved: Bool) -> str:
    name, verdict = told
    words = [f"Bandpass of {name}" + (f": {verdict}" if verdict else "")]
    for p in range(2):
        of = gain[solved[:, p], p]
        if of.size == 0:
            words.append(f"polarisation {p} has no solution")
            continue
        size = np.abs(of)
        words.append(
            f"polarisation {p}: {of.size} of {len(solved)} channels solved, amplitude {size.min():.3g} to "
            f"{size.max():.3g}"
        )
    return "; ".join(words)


def verdicts_of(antennas: Table | None) -> dict[str, str]:
    """Say what became of each antenna: of both polarisations, if they differ."""
    found: dict[str, list[str]] = {}
    if antennas is not None:
        for name, verdict in zip(antennas["antenna"], antennas["verdict"], strict=True):
            of = found.setdefault(str(name), [])
            if str(verdict) not in of:
                of.append(str(verdict))
    return {name: " and ".join(sorted(v, key=lambda w: w == "good")) for name, v in found.items()}
