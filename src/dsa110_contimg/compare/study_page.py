"""What a study found: map, tables and figures, written by rule from its records alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from dsa110_contimg.compare.arms import parse_arms
from dsa110_contimg.compare.study import AXES, LABELS, MAP
from dsa110_contimg.config import StudyConfig
from dsa110_contimg.files import save_figure, write_text

__all__ = ["Ratio", "summarize", "write_page"]

CONFIDENCE = 0.95
StudyRun = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of a ratio over draws with its confidence interval.

    Parameters
    ----------
    mean, low, high : float
        NaN where there is nothing to average; the interval is infinite for one draw.
    n : int
        Draws in it.
    """

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        """Average logarithms; the interval is that of Student's t."""
        logs = np.log([v for v in values if v > 0 and math.isfinite(v)])
        if logs.size == 0:
            return cls(math.nan, math.nan, math.nan, 0)
        mean = float(logs.mean())
        half = math.inf
        if logs.size > 1:
            t = float(stats.t.ppf((1 + CONFIDENCE) / 2, logs.size - 1))
            half = t * float(logs.std(ddof=1)) / math.sqrt(logs.size)
        return cls(math.exp(mean), math.exp(mean - half), _exp(mean + half), int(logs.size))

    @property
    def verdict(self) -> str:
        """Who wins: seeded or unseeded if the interval excludes one, else neither."""
        if self.low > 1:
            return "seeded"
        return "unseeded" if self.high < 1 else "neither"

    def __str__(self) -> str:
        if self.n == 0:
            return "-"
        mark = {"seeded": " **S**", "unseeded": " **U**", "neither": ""}[self.verdict]
        if self.n == 1:
            return f"{_short(self.mean)} (one draw)"
        return f"{_short(self.mean)} ({_short(self.low)} to {_short(self.high)}){mark}"


def _short(value: float) -> str:
    if value >= 1000:
        return ">1000"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if value >= 0.001 else "<0.001"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _at(arm: StudyRun | None, *path: str) -> float:
    """Figure of an arm, NaN where there is none."""
    value: Any = arm
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return math.nan if value is None else float(value)


def _offset(arm: StudyRun | None) -> float:
    offset = (arm or {}).get("truth", {}).get("offset_arcsec")
    return math.nan if offset is None else math.hypot(*offset)


@dataclass(frozen=True)
class Measure:
    """A figure of merit of an arm; the ratio is that by which the seeded one is better."""

    title: str
    value: Callable[[StudyRun | None], float]
    more_is_better: bool

    def advantage(self, seeded: StudyRun | None, unseeded: StudyRun | None) -> float:
        ours, theirs = self.value(seeded), self.value(unseeded)
        above, below = (ours, theirs) if self.more_is_better else (theirs, ours)
        return above / below if below > 0 else math.nan


MEASURES = (
    Measure(
        "signal to noise, equal conditions (standard images, same depth)",
        lambda a: _at(a, "figures", "shallow", "snr"),
        True,
    ),
    Measure(
        "signal to noise, equal conditions, catalogue subtracted from both",
        lambda a: _at(a, "figures", "subtracted", "snr"),
        True,
    ),
    Measure(
        "phase error of the gains against the truth", lambda a: _at(a, "truth", "phase_error_deg"), False
    ),
    Measure("position offset of the sources from the truth", _offset, False),
    Measure(
        "signal to noise of the delivered image (sky model subtracted where seeded)",
        lambda a: _at(a, "figures", "delivered", "snr"),
        True,
    ),
    Measure("time of the run", lambda a: _at(a, "seconds", "total"), False),
)


def summarize(config: StudyConfig, runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Average over draws.

    Parameters
    ----------
    config : StudyConfig
        Options of the study.
    runs : sequence of dict
        What :func:`run_study` returns.

    Returns
    -------
    dict
        ``names`` (unseeded, seeded), ``usual`` and ``middle`` values of the axes,
        ``groups``: runs by their values.
    """
    arms = {a.seeded: a.name for a in parse_arms(config.map_arms)}
    lists = {axis: getattr(config, option).split(",") for axis, (option, _) in AXES.items()}
    usual = {axis: words[0] for axis, words in lists.items()}
    middle = {**usual, **{axis: lists[axis][len(lists[axis]) // 2] for axis in MAP}}
    groups: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run["values"][axis] for axis in AXES), []).append(run)
    return {"names": (arms[False], arms[True]), "lists": lists, "usual": usual, "middle": middle} | {
        "groups": groups
    }


class _Study:
    def __init__(self, config: StudyConfig, runs: Sequence[StudyRun]) -> None:
        self.config, self.runs = config, runs
        found = summarize(config, runs)
        self.unseeded, self.seeded = found["names"]
        self.lists, self.usual, self.middle = found["lists"], found["usual"], found["middle"]
        self.groups: dict[tuple[str, ...], list[StudyRun]] = found["groups"]

    def group(self, **values: str) -> list[StudyRun]:
        """Draws of a point: the values of the map's other axes are the usual ones."""
        return self.groups.get(tuple({**self.usual, **values}[axis] for axis in AXES), [])

    def ratio(self, measure: Measure, group: Sequence[StudyRun], seeded: str | None = None) -> Ratio:
        pairs = [(c["arms"].get(seeded or self.seeded), c["arms"].get(self.unseeded)) for c in group]
        return Ratio.of([measure.advantage(a, b) for a, b in pairs])

    def map_points(self) -> list[tuple[str, str]]:
        return [(p, b) for p in self.lists["phase"] for b in self.lists["jy"]]

    # Sections of the page

    def accounting(self) -> list[str]:
        names = sorted({name for c in self.runs for name in c["arms"]})
        done = sum(c.get("status") == "completed" for c in self.runs)
        lines = [f"{len(self.runs)} observations, {done} completed, {len(self.runs) - done} failed.", ""]
        kinds = ("improved", "converged", "no_improvement", "diverged", "refused")
        rows = []
        for name in names:
            arms = [c["arms"][name] for c in self.runs if name in c["arms"]]
            count = [sum(a["run_status"] == k and a["figures"] is not None for a in arms) for k in kinds]
            bad = [sum(a["status"] == k for a in arms) for k in ("failed", "hung")]
            rows.append([name, len(arms), *count, *bad])
        lines += _table(["arm", "runs", *kinds, "failed", "hung"], rows)[:-1]
        for c in self.runs:
            where = f"{_words(c['values'])}, draw {c['draw']}"
            if c.get("status") != "completed":
                lines.append(f"* {where}: {c.get('reason') or 'not run'}")
            lines += [
                f"* {where}, {name}: {a['reason']}"
                for name, a in c["arms"].items()
                if a["status"] in ("failed", "hung")
            ]
        return lines

    def maps(self) -> list[str]:
        lines: list[str] = []
        for measure in MEASURES:
            rows = [
                [phase, *(str(self.ratio(measure, self.group(phase=phase, jy=b))) for b in self.lists["jy"])]
                for phase in self.lists["phase"]
            ]
            lines += [f"### {measure.title.capitalize()}", ""]
            lines += _table(["start phase error (deg)", *(f"{b} Jy" for b in self.lists["jy"])], rows)
        return lines

    def absolute(self) -> list[str]:
        """Medians over draws of both loops at each point of the map."""

        def median(group: Sequence[StudyRun], name: str, value: Callable[[StudyRun | None], float]) -> str:
            values = np.array([value(c["arms"].get(name)) for c in group])
            return f"{np.nanmedian(values):.3g}" if np.isfinite(values).any() else "-"

        columns: tuple[tuple[str, Callable[[StudyRun | None], float]], ...] = (
            ("SNR", MEASURES[0].value),
            ("SNR, catalogue subtracted", MEASURES[1].value),
            ("delivered rms/thermal", lambda a: _at(a, "figures", "delivered", "thermal_ratio")),
            ("phase error, deg", MEASURES[2].value),
            ("coherence", lambda a: _at(a, "truth", "coherence")),
            ("flux ratio", lambda a: _at(a, "truth", "flux_ratio")),
            ("offset, arcsec", _offset),
            ("seconds", MEASURES[5].value),
        )
        rows = []
        for phase, jy in self.map_points():
            group = self.group(phase=phase, jy=jy)
            started = [_at(c.get("start"), "phase_error_deg") for c in group if c.get("start")]
            values = [
                f"{median(group, self.unseeded, value)} / {median(group, self.seeded, value)}"
                for _, value in columns
            ]
            before = f"{np.median(started):.0f}" if started else "-"
            true = [_at(c.get("true_gains"), "shallow", "snr") for c in group]
            ceiling = f"{np.nanmedian(true):.3g}" if np.isfinite(true).any() else "-"
            rows.append([phase, jy, before, ceiling, *values])
        head = ["start", "Jy", "start error, deg", "SNR with the true gains"]
        return _table([*head, *(name for name, _ in columns)], rows)

    def sides(self) -> list[str]:
        rows = []
        for axis in AXES:
            if axis in MAP:
                continue
            for word in self.lists[axis]:
                group = self.group(**{**{k: self.middle[k] for k in MAP}, axis: word})
                rows.append([LABELS[axis], word, *(str(self.ratio(m, group)) for m in MEASURES[:4])])
        return _table(["varied", "value", *(m.title.split(" (")[0] for m in MEASURES[:4])], rows)

    def limits(self) -> list[str]:
        group = self.group(**{k: self.middle[k] for k in MAP})
        names = [a.name for a in parse_arms(f"{self.seeded},{self.config.limit_arms}")]
        rows = []
        for name in names:
            reached = [c["arms"][name] for c in group if name in c["arms"]]
            n_seeds = {a["n_seeds"] for a in reached}
            rows.append(
                [
                    name,
                    f"{min(n_seeds)} to {max(n_seeds)}" if n_seeds else "-",
                    *(str(self.ratio(m, group, name)) for m in MEASURES),
                ]
            )
        return _table(["arm", "seeds", *(m.title.split(" (")[0] for m in MEASURES)], rows)

    def best_limit(self) -> str:
        """Recommend a flux limit by a stated rule."""
        group = self.group(**{k: self.middle[k] for k in MAP})
        names = [a.name for a in parse_arms(f"{self.seeded},{self.config.limit_arms}")]

        def mean(name: str, *path: str) -> float:
            return float(np.mean([_at(c["arms"].get(name), *path) for c in group]))

        error = {n: mean(n, "truth", "phase_error_deg") for n in names}
        delivered = {n: mean(n, "figures", "delivered", "thermal_ratio") for n in names}
        known = [n for n in names if math.isfinite(error[n]) and math.isfinite(delivered[n])]
        if not known:
            return "No seeded arm was completed at the middle of the map: no limit can be recommended."
        good = [n for n in known if error[n] <= 1.1 * min(error[k] for k in known)]
        chosen = min(good, key=lambda n: delivered[n])
        figures = (f"{n} {error[n]:.2f} deg and {delivered[n]:.2f} x thermal" for n in known)
        told = f"means at the middle of the map: {', '.join(figures)}"
        return (
            f"Recommended limit: **{chosen}**. Rule: of the limits whose phase error is within 10 % of the "
            f"smallest, the one whose delivered image has the lowest noise. ({told})"
        )

    def against_ceiling(self) -> list[str]:
        """Compare the signal to noise under equal conditions with what the true gains give."""
        lines = []
        for what, which in (
            ("of standard images", "shallow"),
            ("with the catalogue subtracted", "subtracted"),
        ):
            told = []
            for name in (self.unseeded, self.seeded):
                ratios = np.array(
                    [
                        _at(c["arms"].get(name), "figures", which, "snr")
                        / _at(c.get("true_gains"), which, "snr")
                        for c in self.runs
                    ]
                )
                known = ratios[np.isfinite(ratios)]
                if known.size:
                    over = int((known > 1.01).sum())
                    told.append(
                        f"{name} {np.median(known):.3f} ({known.min():.2f} to {known.max():.2f}), more than "
                        f"1 % above it in {over} of {known.size}"
                    )
            if told:
                lines.append(
                    f"* Signal to noise {what} over that with the true gains, median and range: "
                    f"{'; '.join(told)}."
                )
        return [*lines, "* What is above the true gains is no better calibration."] if lines else []

    def offsets(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Position offsets of all images of the map whose gains were improved, arcsec."""
        points = {tuple({**self.usual, "phase": p, "jy": b}[a] for a in AXES) for p, b in self.map_points()}
        runs = [c for key, group in self.groups.items() if key in points for c in group]
        found = {}
        for name in (self.unseeded, self.seeded):
            arms = [c["arms"].get(name) for c in runs]
            values = np.array([_offset(a) for a in arms if a and a["run_status"] == "improved"])
            found[name] = values[np.isfinite(values)]
        return found

    def offset_table(self) -> list[str]:
        rows = []
        for name, values in self.offsets().items():
            if values.size == 0:
                rows.append([name, 0, "-", "-", "-", "-"])
                continue
            quantiles = np.quantile(values, [0.25, 0.5, 0.75])
            rows.append([name, values.size, *(f"{q:.2f}" for q in quantiles), f"{values.max():.2f}"])
        beams = [c["beam_arcsec"] for c in self.runs if c.get("beam_arcsec")]
        beam = f"The beam is {np.median(beams):.0f} arcsec." if beams else ""
        head = ["arm", "images", "lower quartile", "median", "upper quartile", "largest"]
        return [*_table(head, rows), beam]

    def findings(self) -> list[str]:
        lines = []
        n = len(self.map_points())
        for measure in MEASURES:
            verdicts = [self.ratio(measure, self.group(phase=p, jy=b)) for p, b in self.map_points()]
            known = [r for r in verdicts if r.n]
            won = sum(r.verdict == "seeded" for r in known)
            lost = sum(r.verdict == "unseeded" for r in known)
            middle = f"; median advantage {np.median([r.mean for r in known]):.3g}" if known else ""
            lines.append(
                f"* By {measure.title}: seeded better at {won} of {n} points of the map, unseeded at {lost}, "
                f"no difference at {len(known) - won - lost}, not comparable at {n - len(known)}{middle}."
            )
        values = self.offsets()
        if all(v.size for v in values.values()):
            was, now = (np.median(values[k]) for k in (self.unseeded, self.seeded))
            lines.append(
                f"* Unseeded self-calibration leaves the sky {was:.2f} arcsec off in the median, seeded "
                f"{now:.2f} arcsec."
            )
        lines += self.against_ceiling()
        base = [c["arms"].get(self.unseeded) for c in self.runs]
        kept = sum(bool(a) and a["run_status"] == "improved" for a in base)
        own = [c["arms"].get(self.seeded) for c in self.runs]
        ours = sum(bool(a) and a["run_status"] == "improved" for a in own)
        lines.append(
            f"* Improved its input: unseeded {kept} of {len(self.runs)}, seeded {ours} of {len(self.runs)}."
        )
        return [*lines, f"* {self.best_limit()}"]


def write_page(path: Path, config: StudyConfig, runs: Sequence[StudyRun], command: str) -> None:
    """Write the page of a study, and its figures beside it.

    Parameters
    ----------
    path : Path
        Markdown file; figures are named after it.
    config : StudyConfig
        Options of the study.
    runs : sequence of dict
        What :func:`run_study` returns.
    command : str
        How the study was run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    study = _Study(config, runs)
    maps, offsets = path.with_name(f"{path.stem}-map.png"), path.with_name(f"{path.stem}-offsets.png")
    _draw_maps(maps, study)
    _draw_offsets(offsets, study)
    usual = ", ".join(f"{LABELS[k]} {v}" for k, v in study.usual.items() if k not in MAP)
    which = "every antenna" if config.every == 1 else f"one antenna in {config.every}"
    lines = [
        "# Does seeding help, when, and by how much",
        "",
        f"Written by `{command}` from the records of the study; nothing here is typed by hand.",
        "",
        "## What was found",
        "",
        *study.findings(),
        "",
        f"![map]({maps.name})",
        "",
        "## What was done",
        "",
        f"Transits of {config.study_dumps} dumps, each a field of its own, were simulated with "
        f"{which} within {config.radius_m:g} m of the core of the DSA-110, "
        f"{config.study_channels} channels over its band, a drawn sky above 2.5 mJy with one bright source "
        f"added, and a catalogue with errors. At each point {config.draws} draws of sky, gains and noise "
        f"were self-calibrated with `{study.unseeded}` (up to {config.study_rounds} rounds) and "
        f"`{study.seeded}`; both choose their solution intervals on held-out channels and stop or roll back "
        "by the same rules. All arms are imaged from the same data at the same weights, region and depth "
        f"({config.study_size} pixels of {config.study_cell_arcsec:g} arcsec).",
        "",
        f"On the map: {usual}.",
        "",
        "Ratios are the factor by which seeded is better (above 1) or worse: geometric means over the draws "
        f"with {100 * CONFIDENCE:.0f} % confidence intervals of Student's t. **S**: seeded better, **U**: "
        "unseeded better; without a mark the interval includes 1. All points share the seeds of their draws, "
        "so that they are not independent, and of many intervals one in twenty misleads.",
        "",
        "With the catalogue subtracted, what gains lack in phase, flux and position stays in the image. "
        "Seeded gains were solved against that catalogue, and a shifted sky is a fault of the unseeded ones "
        "here and in the position offset: gains and positions against the truth are the independent judges. "
        "The delivered images differ in the subtraction itself and are no fair comparison. Errors of the "
        "catalogue are drawn source by source; one that all its sources share would be taken over by seeded "
        "gains.",
        "",
        "## Every run accounted for",
        "",
        *study.accounting(),
        "",
        "## The map",
        "",
        *study.maps(),
        "## Both loops in figures",
        "",
        "Medians over draws, unseeded / seeded. Phase error, coherence, flux ratio and offset are against "
        "the truth of the simulation; fluxes and positions in the standard images. The phase error holds "
        "the gradient over the array by which a shifted sky is explained. Standard images with the true "
        "gains show how far sidelobes that CLEAN leaves, and not the gains, set their signal to noise.",
        "",
        *study.absolute(),
        "## Amplitude errors, catalogue errors, declination",
        "",
        f"At a start phase error of {study.middle['phase']} and a bright source of {study.middle['jy']} Jy.",
        "",
        *study.sides(),
        "## Flux limits",
        "",
        f"Against `{study.unseeded}` at the same point.",
        "",
        *study.limits(),
        "## Position offsets",
        "",
        "Of all images on the map whose run was improved, against the true positions.",
        "",
        *study.offset_table(),
        "",
        f"![offsets]({offsets.name})",
    ]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _words(values: dict[str, str]) -> str:
    return ", ".join(f"{LABELS[k]} {v}" for k, v in values.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(str(c) for c in row) + " |" for row in rows), ""]


def _draw_maps(path: Path, study: _Study) -> None:
    figure = Figure(figsize=(17, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(1, 4), MEASURES[:4], strict=True):
        ratios = [
            [study.ratio(measure, study.group(phase=p, jy=b)) for b in study.lists["jy"]]
            for p in study.lists["phase"]
        ]
        values = np.log2([[r.mean for r in row] for row in ratios])
        drawn = axes.imshow(values, cmap="RdBu", vmin=-3, vmax=3, aspect="auto", origin="lower")
        for y, row in enumerate(ratios):
            for x, r in enumerate(row):
                mark = {"seeded": "S", "unseeded": "U", "neither": ""}[r.verdict]
                text = f"{_short(r.mean)}\n{mark}" if r.n else "-"
                color = "white" if abs(values[y, x]) > 2 else "black"
                axes.text(x, y, text, ha="center", va="center", fontsize=9, color=color)
        axes.set_xticks(range(len(study.lists["jy"])), study.lists["jy"])
        axes.set_yticks(range(len(study.lists["phase"])), study.lists["phase"])
        axes.set(xlabel="bright source (Jy)", ylabel="start phase error, deg")
        axes.set_title(textwrap.fill(measure.title, 40), fontsize=9)
    bar = figure.colorbar(drawn, ax=figure.axes, extend="both", shrink=0.8)
    bar.set_label("seeded better: log2 of the factor")
    save_figure(path, figure, dpi=90)


def _draw_offsets(path: Path, study: _Study) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, values in study.offsets().items():
        if values.size:
            axes.step(np.sort(values), np.arange(1, values.size + 1) / values.size, where="post", label=name)
    axes.set(xscale="log", xlabel="position offset from the truth, arcsec", ylabel="fraction of images")
    if axes.lines:
        axes.legend()
    save_figure(path, figure, dpi=90)
