"""What changes from day to day over many runs: figures with their limits, and the health of each antenna."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby

import numpy as np
from matplotlib.ticker import MaxNLocator

from dsa110_contimg.array_types import Float
from dsa110_contimg.report.plots import Axis, Frame, Plot
from dsa110_contimg.selfcal.antenna_report import SEVERITY

__all__ = [
    "LETTERS",
    "AntennaMap",
    "Day",
    "Limits",
    "MapCell",
    "RunFigures",
    "Trend",
    "antenna_map",
    "days_of",
    "trends",
]

DAY_S = 86400.0
GOOD = SEVERITY[-1]
#: How verdicts are written in a cell of the map.
LETTERS = {
    "no data": "D",
    "unsolved": "U",
    "noise": "N",
    "lost": "L",
    "amplitude": "A",
    "jumps": "J",
    "noisy": "Y",
}
#: The map of antennas shows so many days with observations, the last ones.
MAP_DAYS = 60
#: An antenna is bad on a day if it is not good in at least this fraction of the runs, and was well before if
#: that fraction was at most `MOST_WELL` over the days of the map before.
MANY, MOST_WELL = 0.5, 0.25
#: Who turned bad so many days with observations ago is not news any more.
NEWS_DAYS = 14
#: Single observations are drawn up to so many.
MOST_POINTS = 2000
FRAME = Frame(height=230)
#: Days between dates along an axis.
STEPS = (1, 2, 5, 7, 14, 30, 61, 91, 182, 365, 730, 1826)


@dataclass(frozen=True)
class Limits:
    """Beyond which a value is a caution: noise over thermal, flux ratio from 1, offset in arcsec."""

    thermal_ratio: float
    flux_error: float
    offset_arcsec: float


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """Figures of a run; None where there is none.

    Attributes
    ----------
    observed_at : float or None
        Unix time in seconds.
    thermal_ratio, flux_ratio, offset_arcsec, snr_gain, seconds : float or None
        Noise over thermal, flux over the catalogue's, length of the median position offset, signal to noise
        over that before, time of the run.
    antennas : mapping of str to sequence of str
        Antennas by verdict, good ones too; empty where that is not known.
    """

    observed_at: float | None = None
    thermal_ratio: float | None = None
    flux_ratio: float | None = None
    offset_arcsec: float | None = None
    snr_gain: float | None = None
    seconds: float | None = None
    antennas: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def not_good(self) -> float | None:
        """How many antennas are not good."""
        n = sum(len(names) for verdict, names in self.antennas.items() if verdict != GOOD)
        return float(n) if self.antennas else None


@dataclass(frozen=True)
class Day:
    """Runs of what was observed on one day (UTC), which began at `start` (Unix time)."""

    start: float
    runs: list[RunFigures]

    @property
    def date(self) -> str:
        """The day in figures."""
        return datetime.fromtimestamp(self.start, UTC).strftime("%Y-%m-%d")

    def known(self, value: Callable[[RunFigures], float | None]) -> Float:
        """Return the values of a figure that are known, shape (n,)."""
        values = (value(run) for run in self.runs)
        return np.array([v for v in values if v is not None and math.isfinite(v)], dtype=np.float64)

    def median(self, value: Callable[[RunFigures], float | None]) -> float | None:
        """Return the median of a figure, None where there is none."""
        known = self.known(value)
        return float(np.median(known)) if known.size else None


@dataclass(frozen=True)
class Trend:
    """A figure against days: its title, its plot and, in words, which days are beyond its limit."""

    title: str
    plot: Plot
    text: str


@dataclass(frozen=True)
class MapCell:
    """Health of an antenna on a day.

    Attributes
    ----------
    level : int
        From 0, good in all runs, to 4, in none; -1 where it was not observed with.
    letter : str
        Stands for the verdict that it had most often besides good.
    text : str
        In words.
    """

    level: int
    letter: str
    text: str


@dataclass(frozen=True)
class AntennaMap:
    """Antennas against days.

    Attributes
    ----------
    days : list of str
        Dates, in order.
    months : list of (str, int)
        Months and how many of the days are theirs.
    rows : list of (str, list of MapCell)
        Antennas that were not good at least once, the worst of late first, with a cell for each day.
    n_antennas : int
        How many there are with those that were always good.
    turned_bad : list of str
        Who was well and is not any more, in words.
    more_days : int
        Days before these that are not shown.
    """

    days: list[str]
    months: list[tuple[str, int]]
    rows: list[tuple[str, list[MapCell]]]
    n_antennas: int
    turned_bad: list[str]
    more_days: int


@dataclass(frozen=True)
class _DayAxis(Axis):
    """An axis of days since one, with dates."""

    first: float = 0.0

    @property
    def numbers(self) -> list[tuple[float, str]]:
        span = self.high - self.low
        step = next((s for s in STEPS if span / s <= 6), STEPS[-1])
        form = "%m-%d" if step < 91 else "%Y-%m"
        # Dates stand at the middle of their days.
        places = np.arange(math.ceil(self.low - 0.5), self.high - 0.5, step) + 0.5
        return [
            (float(x), datetime.fromtimestamp(self.first + DAY_S * x, UTC).strftime(form)) for x in places
        ]


def days_of(runs: Sequence[RunFigures]) -> list[Day]:
    """Gather runs by the day of their observation; those without a time are left out."""
    dated = sorted(((r.observed_at, r) for r in runs if r.observed_at is not None), key=lambda pair: pair[0])
    groups = groupby(dated, key=lambda pair: pair[0] // DAY_S)
    return [Day(DAY_S * number, [run for _, run in group]) for number, group in groups]


def trends(days: Sequence[Day], limits: Limits) -> list[Trend]:
    """Draw each figure against days with the limits beyond which it is a caution."""
    wanted: tuple[tuple[str, str, Callable[[RunFigures], float | None], tuple[float, ...]], ...] = (
        ("Noise over thermal", "noise over thermal", lambda r: r.thermal_ratio, (limits.thermal_ratio,)),
        (
            "Flux over the catalogue's",
            "flux ratio",
            lambda r: r.flux_ratio,
            (1 - limits.flux_error, 1 + limits.flux_error),
        ),
        ("Position offset", "offset (arcsec)", lambda r: r.offset_arcsec, (limits.offset_arcsec,)),
        ("Antennas that are not good", "antennas", lambda r: r.not_good, ()),
        ("Time per observation", "seconds", lambda r: r.seconds, ()),
    )
    drawn = [
        _trend(title, label, days, value, bounds, whole=label == "antennas")
        for title, label, value, bounds in wanted
    ]
    return [trend for trend in drawn if trend is not None]


def _trend(
    title: str,
    label: str,
    days: Sequence[Day],
    value: Callable[[RunFigures], float | None],
    bounds: tuple[float, ...],
    *,
    whole: bool,
) -> Trend | None:
    """Draw medians of days with their 5th and 95th percentiles; None where nothing is known."""
    shown = [(day, known) for day in days if (known := day.known(value)).size]
    if not shown:
        return None
    medians = np.array([np.median(known) for _, known in shown])
    low, high = (np.array([np.percentile(known, p) for _, known in shown]) for p in (5, 95))
    first = days[0].start
    middle = np.array([(day.start - first) / DAY_S + 0.5 for day, _ in shown])
    # One day that went wrong must not squash all others.
    reach = [*medians, *np.percentile(low, [2, 98]), *np.percentile(high, [2, 98]), *bounds]
    is_beyond = np.array([_is_beyond(m, bounds) for m in medians])
    x = _DayAxis("day of the observation (UTC)", 0.0, (days[-1].start - first) / DAY_S + 1, first=first)
    said = [f"the last day, {shown[-1][0].date}: median {medians[-1]:.3g}"]
    said.append(f"medians from {medians.min():.3g} to {medians.max():.3g} over {len(shown)} days")
    if bounds:
        dates = [day.date for (day, _), beyond in zip(shown, is_beyond, strict=True) if beyond]
        told = ", ".join(dates[-8:]) + (f" and {len(dates) - 8} days before" if len(dates) > 8 else "")
        between = " to ".join(f"{b:g}" for b in bounds)
        said.append(f"caution beyond {between}: " + (told or "on no day"))
    y = Axis.around(label, reach)
    if whole:
        # Antennas come by whole numbers.
        y = replace(y, low=-0.02 * y.high, ticks=tuple(MaxNLocator(5, integer=True).tick_values(0, y.high)))
    plot = Plot(f"{title} against days; {'; '.join(said)}", x, y, FRAME)
    for bound in bounds:
        plot.add_line("guide", [x.low, x.high], [bound, bound])
    points = [(r.observed_at, v) for day, _ in shown for r in day.runs if (v := value(r)) is not None]
    if len(points) <= MOST_POINTS:
        at, values = np.array(points, dtype=np.float64).T
        plot.add("s2 faint dot", (at - first) / DAY_S, values)
    plot.add_bars("s0 bar", middle, low, high)
    for k, (day, known) in enumerate(shown):
        spread = f"; 5 to 95 %: {low[k]:.3g} to {high[k]:.3g}" if known.size > 1 else ""
        note = f"{day.date}: median {medians[k]:.3g}{spread}; {known.size} observations"
        plot.add("s1 triangle" if is_beyond[k] else "s0 square", middle[k], medians[k], title=note)
    text = "; ".join(said)
    return Trend(title, plot, text[0].upper() + text[1:])


def _is_beyond(value: float, bounds: tuple[float, ...]) -> bool:
    return bool(bounds) and (value > bounds[-1] or (len(bounds) > 1 and value < bounds[0]))


def antenna_map(days: Sequence[Day]) -> AntennaMap | None:
    """Put antennas against days; None where no run says anything of antennas."""
    reported = [day for day in days if any(run.antennas for run in day.runs)]
    if not reported:
        return None
    shown = reported[-MAP_DAYS:]
    # By antenna and day: how often it had each verdict.
    found: dict[str, list[Counter[str]]] = {}
    for k, day in enumerate(shown):
        for run in day.runs:
            for verdict, names in run.antennas.items():
                for name in names:
                    if name not in found:
                        found[name] = [Counter() for _ in shown]
                    found[name][k][verdict] += 1
    odd = {name: counts for name, counts in found.items() if any(_share(c) for c in counts)}

    def badness(name: str) -> tuple[float, float, str]:
        shares = [share for c in odd[name] if (share := _share(c)) is not None]
        return -float(np.mean(shares[-7:])), -float(np.mean(shares)), name

    order = sorted(odd, key=badness)
    dates = [day.date for day in shown]
    months = [(month, len(list(group))) for month, group in groupby(dates, key=lambda date: date[:7])]
    return AntennaMap(
        days=dates,
        months=months,
        rows=[(name, [_cell(c) for c in odd[name]]) for name in order],
        n_antennas=len(found),
        turned_bad=[text for name in order if (text := _turned_bad(name, odd[name], dates))],
        more_days=len(reported) - len(shown),
    )


def _share(counts: Counter[str]) -> float | None:
    """Fraction of runs in which an antenna was not good; None if there was none."""
    total = counts.total()
    return 1 - counts[GOOD] / total if total else None


def _cell(counts: Counter[str]) -> MapCell:
    share, total = _share(counts), counts.total()
    if share is None:
        return MapCell(-1, "", "not observed with")
    if share == 0:
        return MapCell(0, "", f"good in all of {total}")
    worst = _bad(counts)
    level = 4 if share == 1 else 3 if share >= 0.5 else 2 if share >= 0.25 else 1
    told = ", ".join(f"{verdict} in {n}" for verdict, n in worst)
    return MapCell(level, LETTERS[worst[0][0]], f"{told} of {total} {'runs' if total > 1 else 'run'}")


def _bad(counts: Counter[str]) -> list[tuple[str, int]]:
    """Verdicts besides good with how often they were given, the most frequent first."""
    return [(verdict, n) for verdict, n in counts.most_common() if verdict != GOOD]


def _turned_bad(name: str, counts: Sequence[Counter[str]], dates: Sequence[str]) -> str:
    """Say since when an antenna that was well is not any more; empty if that is not so."""
    shares = [(k, share) for k, c in enumerate(counts) if (share := _share(c)) is not None]
    streak = 0
    while streak < len(shares) and shares[-1 - streak][1] >= MANY:
        streak += 1
    if not 0 < streak < len(shares) or len(counts) - shares[-streak][0] > NEWS_DAYS:
        return ""
    before = [share for _, share in shares[:-streak]]
    if np.mean(before) > MOST_WELL:
        return ""
    since = shares[-streak][0]
    total: Counter[str] = sum(counts[since:], Counter())
    told = ", ".join(verdict for verdict, _ in _bad(total))
    bad = total.total() - total[GOOD]
    return f"{name}: {told} since {dates[since]} ({bad} of {total.total()} runs), well before"
