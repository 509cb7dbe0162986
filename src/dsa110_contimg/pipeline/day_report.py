"""What a day brought: what arrived, what came of it, what needs a hand."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsa110_contimg.pipeline.state import State

__all__ = ["DAY_S", "day_lines", "day_report"]

DAY_S = 86400.0
#: Figures of the published images, how they are told, and their format.
FIGURES = {
    "thermal_ratio": ("noise over thermal", ".3f"),
    "snr": ("signal to noise", ".0f"),
    "snr_gain": ("signal to noise after over before", ".1f"),
    "flux_ratio": ("flux over the catalogue's", ".3f"),
    "offset_arcsec": ("position offset, arcsec", ".2f"),
    "recovered_fraction": ("flux of held-out sources recovered", ".3f"),
    "agreeing_fraction": ("held-out sources that agree", ".2f"),
}
#: What the machinery went through, as kept in the history.
MACHINERY = {
    "worker_lost": "workers died",
    "worker_hung": "workers hung and were ended",
    "scheduler_lost": "tasks put back, the scheduler gone",
    "resumed": "taken up after the driver was killed",
    "postponed": "postponed, as disk or catalogue was away",
    "state_back": "times the state could not be written for a while",
    "watch_failed": "times the folder of arrivals was away",
    "retry": "queued again by hand",
    "reverted": "put back by hand",
    "forgotten": "forgotten by hand",
    "pruned": "products removed by age",
}
#: So many names are told of each kind in the text; JSON has all.
NAMED = 20


def day_report(state: State, begin: float, end: float) -> dict[str, Any]:
    """Sum up what happened from `begin` to before `end`.

    Parameters
    ----------
    state : State
        The run state.
    begin, end : float
        Unix times in seconds.

    Returns
    -------
    dict
        ``begin``, ``end``; ``arrived``; ``refused``, ``failed``, ``bad``, ``unverified`` and ``fallbacks`` as
        lists of pairs of name and reason; ``runs`` by status and verdict; ``seeded``; ``figures``, each the
        median with the 5th and 95th percentile and how many it is of; ``seconds`` of a run, the same;
        ``pauses`` as lists of begin, end (None: still) and reason; ``machinery``, counted; ``waiting`` and
        ``oldest_waiting`` now; ``free_bytes`` of the disk of the state.
    """
    runs, events = state.finished_between(begin, end), state.events_between(begin, end)
    done = [(name, record) for name, record in runs if record["status"] == "done"]
    kinds = Counter(event["event"] for event in events)
    waiting = state.observations("queued", "running")

    def verdict(quality: str) -> list[list[str]]:
        return [[n, "; ".join(r["reasons"])] for n, r in done if r["quality"] == quality]

    figures = {key: [r["figures"].get(key) for _, r in done] for key in FIGURES}
    return {
        "begin": begin,
        "end": end,
        "arrived": kinds["queued"],
        "refused": [[e["name"] or "", e["detail"]] for e in events if e["event"] == "refused"],
        "runs": dict(Counter(r.get("quality", r["status"]) for _, r in runs)),
        "seeded": sum(r["seeded"] for _, r in done),
        "failed": [[n, r["message"]] for n, r in runs if r["status"] == "failed"],
        "bad": verdict("bad"),
        "unverified": verdict("unverified"),
        "fallbacks": [[n, r["fallback"]] for n, r in done if r["fallback"]],
        "figures": {key: _spread(values) for key, values in figures.items()},
        "seconds": _spread([r["seconds"]["total"] for _, r in done if "total" in r["seconds"]]),
        "pauses": _pauses(state, events, begin),
        "machinery": {event: kinds[event] for event in MACHINERY if kinds[event]},
        "waiting": len(waiting),
        "oldest_waiting": waiting[0].name if waiting else None,
        "free_bytes": shutil.disk_usage(Path(state.path).resolve().parent).free,
    }


def day_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Tell the report in lines, what needs a hand first."""
    begin, end = (datetime.fromtimestamp(report[key], UTC) for key in ("begin", "end"))
    runs = sum(report["runs"].values())
    yield f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(report["runs"].items()))
    yield f"{report['arrived']} arrived, {runs} runs ended" + (f": {kinds}" if kinds else "")
    yield f"{report['seeded']} published seeded; {report['waiting']} wait or run now" + (
        f", the oldest {report['oldest_waiting']}" if report["oldest_waiting"] else ""
    )
    for since, until, why in report["pauses"]:
        yield f"PAUSED {_clock(since)} to {_clock(until) if until else 'now'}: {why}"
    for key, told in (
        ("failed", "FAILED"),
        ("bad", "BAD"),
        ("fallbacks", "FELL BACK"),
        ("unverified", "unverified"),
        ("refused", "refused"),
    ):
        for name, why in report[key][:NAMED]:
            yield " ".join(filter(None, [told, name])) + f": {why}"
        if len(report[key]) > NAMED:
            yield f"{told}: {len(report[key]) - NAMED} more; --json lists all"
    for event, n in report["machinery"].items():
        yield f"{n} {MACHINERY[event]}"
    for key, (told, form) in FIGURES.items():
        if report["figures"][key]:
            yield _spread_line(told, report["figures"][key], form)
    if report["seconds"]:
        yield _spread_line("seconds of a run", report["seconds"], ".1f")
    yield f"{report['free_bytes'] / 1e9:.1f} GB free beside the state file"


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = sorted(v for v in values if v is not None)
    if not known:
        return None
    ends = statistics.quantiles(known, n=20, method="inclusive") if len(known) > 1 else [known[0]]
    return {"median": statistics.median(known), "p5": ends[0], "p95": ends[-1], "n": len(known)}


def _spread_line(told: str, spread: Mapping[str, float], form: str) -> str:
    median, low, high = (format(spread[key], form) for key in ("median", "p5", "p95"))
    return f"{told}: {median} (5 to 95 %: {low} to {high}; {spread['n']} runs)"


def _pauses(state: State, events: Sequence[Mapping[str, Any]], begin: float) -> list[list[Any]]:
    """Return begin, end and reason of each time in which nothing was begun."""
    pauses: list[list[Any]] = []
    before = state.paused(before=begin)
    if before is not None:
        pauses.append([before[0], None, before[1]])
    for event in events:
        if event["event"] in ("paused", "continued") and pauses and pauses[-1][1] is None:
            pauses[-1][1] = event["time"]
        if event["event"] == "paused":
            pauses.append([event["time"], None, event["detail"]])
    return pauses


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
