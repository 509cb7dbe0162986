"""``contimg report``: the page of a run, the page of all, or what a day brought."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import StateFile, named_state_file
from dsa110_contimg.cli.terminal import JsonFlag, date_text, print_result
from dsa110_contimg.errors import ConfigError

__all__ = ["day_lines", "report"]

#: How figures of the published images are told, and their format.
FIGURES = {
    "thermal_ratio": ("noise over thermal", ".3f"),
    "snr": ("signal to noise", ".0f"),
    "snr_gain": ("signal to noise after over before", ".1f"),
    "flux_ratio": ("flux over the catalogue's", ".3f"),
    "offset_arcsec": ("position offset, arcsec", ".2f"),
    "recovered_fraction": ("flux of held-out sources recovered", ".3f"),
    "agreeing_fraction": ("held-out sources that agree", ".2f"),
}
#: How what the machinery went through is told.
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


def report(
    outdir: Annotated[
        Path | None, typer.Argument(help="Folder of a run, to build its page anew; with --index, of all runs")
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="Build index.html, the page of all runs in the folder and below")
    ] = False,
    day: Annotated[
        str | None,
        typer.Option(
            help="A day (UTC), for example 2026-01-25, or today, yesterday", show_default="yesterday"
        ),
    ] = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Build the page of a run or of all runs; without a folder, sum up a day.

    The page, report.html, shows what is there, also of a run that was killed. That of all, index.html, has a
    table that is sorted and searched, trends over days, and the health of each antenna. Of a day it is said
    what arrived, what came of it, what needs a hand.
    """
    if index and (outdir is None or day is not None):
        raise ConfigError(
            "needs a folder and no day", "--index", "contimg report --index OUTDIR, the folder of all runs"
        )
    if index and outdir is not None:
        from dsa110_contimg.pipeline.index_page import index_of_folder

        page = index_of_folder(outdir, state_file)
        print_result({"index": str(page)}, [str(page)], as_json)
        return
    if outdir is not None:
        if day is not None:
            raise ConfigError(
                "both a folder and a day are given", "report", "give OUTDIR for the page of a run, or --day"
            )
        from dsa110_contimg.report import write_report

        page = write_report(outdir)
        print_result({"report": str(page)}, [str(page)], as_json)
        return
    from dsa110_contimg.pipeline.day_report import DAY_S, day_report
    from dsa110_contimg.pipeline.state import State

    begin = _day("yesterday" if day is None else day)
    with State(named_state_file(state_file), create=False) as state:
        found = day_report(state, begin, begin + DAY_S)
    print_result(found, day_lines(found), as_json)


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
        yield f"PAUSED {date_text(since)} to {date_text(until) if until else 'now'}: {why}"
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


def _spread_line(told: str, spread: Mapping[str, float], form: str) -> str:
    median, low, high = (format(spread[key], form) for key in ("median", "p5", "p95"))
    return f"{told}: {median} (5 to 95 %: {low} to {high}; {spread['n']} runs)"


def _day(text: str) -> float:
    """Read a day: when it begins, Unix time in seconds."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        begin = days[text] if text in days else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        (begin + timedelta(days=1)).timestamp()
        return begin.timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(f"is no day: {text}", "day", "give 2026-01-25, today or yesterday") from None
