"""What a day brought: what arrived, what came of it, what needs a hand."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsa110_contimg.pipeline.state import State

__all__ = ["DAY_S", "day_report"]

DAY_S = 86400.0
#: Figures of the published images.
FIGURES = (
    "thermal_ratio",
    "snr",
    "snr_gain",
    "flux_ratio",
    "offset_arcsec",
    "recovered_fraction",
    "agreeing_fraction",
)
#: What the machinery went through, as kept in the history.
MACHINERY = (
    "worker_lost",
    "worker_hung",
    "scheduler_lost",
    "resumed",
    "postponed",
    "state_back",
    "watch_failed",
    "retry",
    "reverted",
    "forgotten",
    "pruned",
)


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


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = sorted(v for v in values if v is not None)
    if not known:
        return None
    ends = statistics.quantiles(known, n=20, method="inclusive") if len(known) > 1 else [known[0]]
    return {"median": statistics.median(known), "p5": ends[0], "p95": ends[-1], "n": len(known)}


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
