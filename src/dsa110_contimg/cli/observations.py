"""What the pipeline knows and keeps: ``contimg status``, ``retry``, ``revert``, ``prune`` and the like."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import ConfigFile, StateFile, given_state_file, named_state_file
from dsa110_contimg.cli.terminal import JsonFlag, date_text, print_json, print_pairs, print_result, wrapped
from dsa110_contimg.config import VERDICTS, PipelineConfig, parse_age, parse_retention
from dsa110_contimg.errors import ConfigError, ResourceError

__all__ = [
    "forget",
    "observation_row",
    "prioritize",
    "prune",
    "rename",
    "retry",
    "revert",
    "status",
]

MeasurementSets = Annotated[list[Path], typer.Argument(metavar="MS...", help="Measurement Sets")]
Since = Annotated[str | None, typer.Option(help="Only what was observed since: a date (UTC), or 12h, 7d")]
Until = Annotated[str | None, typer.Option(help="Only what was observed before: a date (UTC), or 12h, 7d")]


def status(
    ms: Annotated[Path | None, typer.Argument(help="Measurement Set, for its history and figures")] = None,
    state_file: StateFile = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed")] = False,
    bad: Annotated[bool, typer.Option("--bad", help="Only what is published as bad or unverified")] = False,
    since: Since = None,
    last: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, help="At most so many, the latest first")
    ] = 20,
    every: Annotated[bool, typer.Option("--all", help="However many there are")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what waits, runs, is done and failed; of one Measurement Set, all of it."""
    from dsa110_contimg.pipeline.observation import Selection
    from dsa110_contimg.pipeline.state import State

    with State(named_state_file(state_file), create=False) as state:
        if ms is not None:
            _print_one(state, ms, as_json)
            return
        counts, qualities, paused = state.counts(), state.qualities(), state.paused()
        stale = state.stale_page()
        kinds: list[dict[str, Any]] = [{"statuses": ("failed",)}] if failed else []
        kinds += [{"qualities": ("bad", "unverified")}] if bad else []
        chosen = [Selection(since=_time(since, "since"), **kind) for kind in kinds or [{}]]
        found = state.latest(None if every else last, *chosen)
    if as_json:
        away, page = (None if t is None else {"since": t[0], "why": t[1]} for t in (paused, stale))
        rows = [observation_row(o) for o in found]
        told = {"counts": counts, "quality": qualities, "paused": away, "stale_page": page}
        print_json(told | {"observations": rows})
        return
    if paused is not None:
        typer.echo(f"PAUSED since {date_text(paused[0])} UTC: {paused[1]}")
    if stale is not None:
        typer.echo(f"index.html is not current since {date_text(stale[0])} UTC: {stale[1]}")
    parts = [f"{n} {s}" for s, n in counts.items() if n]
    verdicts = ", ".join(f"{n} {q}" for q, n in qualities.items())
    typer.echo((", ".join(parts) or "nothing yet") + (f"; published: {verdicts}" if verdicts else ""))
    if not found:
        return
    for line in _table(found):
        typer.echo(line)
    if not every and len(found) == last:
        typer.echo(f"the latest {last}; --last N or --all shows more")


def retry(
    mss: Annotated[
        list[Path] | None, typer.Argument(metavar="[MS]...", help="Measurement Sets; all failed by default")
    ] = None,
    since: Since = None,
    until: Until = None,
    verdict: Annotated[
        str | None,
        typer.Option(
            help="What is published with such a verdict: good, unverified, kept, bad; or with commas"
        ),
    ] = None,
    made_by: Annotated[str | None, typer.Option(help="What this version of contimg published")] = None,
    unseeded: Annotated[bool, typer.Option("--unseeded", help="What is published unseeded")] = False,
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Those with a higher one are begun first")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which")] = False,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Queue again what failed, what is named, or what the options choose.

    The options narrow one another; run or watch takes up what is queued. What was reverted is queued again
    only by its name.
    """
    from dsa110_contimg.pipeline.observation import Selection
    from dsa110_contimg.pipeline.state import State

    given = (since, until, verdict, made_by, unseeded or None)
    if mss and any(option is not None for option in given):
        raise ConfigError("both Measurement Sets and a choice are given", "retry", "give one")
    chosen = Selection(
        statuses=("done",) if unseeded or made_by or verdict else ("done", "failed"),
        qualities=_verdicts(verdict),
        since=_time(since, "since"),
        until=_time(until, "until"),
        version=made_by,
        seeded=False if unseeded else None,
    )
    with State(named_state_file(state_file), create=False) as state:
        if mss:
            found = [state.find(m.resolve()) for m in mss]
        elif any(option is not None for option in given):
            found = state.latest(None, chosen)[::-1]
        else:
            found = state.observations("failed")
        queued = state.retry(found, priority, dry_run=dry_run)
    words = "would be queued again" if dry_run else "queued again"
    lines = [f"{len(queued)} {words}", *(str(o.ms) for o in queued)]
    print_result({"queued": [str(o.ms) for o in queued], "dry_run": dry_run}, lines, as_json)


def prioritize(
    mss: MeasurementSets,
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Those with a higher one are begun first")
    ] = 1,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Give Measurement Sets that wait another place in the queue."""
    from dsa110_contimg.pipeline.state import State

    with State(named_state_file(state_file), create=False) as state:
        found = [state.find(m.resolve()) for m in mss]
        state.prioritize(found, priority)
    lines = [f"{o.ms}: priority {priority}" for o in found]
    print_result({"prioritized": [str(o.ms) for o in found], "priority": priority}, lines, as_json)


def revert(
    ms: Annotated[Path, typer.Argument(help="Measurement Set")],
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Put columns and flags back to what the first run found."""
    from dsa110_contimg.pipeline.job import revert as put_back
    from dsa110_contimg.pipeline.lightcurve_updates import LightCurveWriter, database_of
    from dsa110_contimg.pipeline.state import State

    restored = put_back(ms.resolve())
    text = f"restored {', '.join(restored)}" if restored else "nothing had been changed"
    path = given_state_file(state_file)
    if path is None or not path.exists():
        text += "; no state file was told: give --state-file if the pipeline knows it"
    else:
        with State(path, create=False) as state:
            known = state.known(ms.resolve())
            if known is not None:
                state.revert(known, text)
                LightCurveWriter(database_of(path)).withdraw(state.runs_of(known))
    if as_json:
        print_json({"ms": str(ms), "restored": restored})
        return
    typer.echo(f"{ms}: {text}")


def rename(
    old: Annotated[Path, typer.Argument(help="Where the Measurement Set was")],
    new: Annotated[Path, typer.Argument(help="Where it is")],
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Give an observation whose Measurement Set was moved its new name."""
    from dsa110_contimg.pipeline.state import State
    from dsa110_contimg.pipeline.upkeep import rename as rename_observation

    with State(named_state_file(state_file), create=False) as state:
        renamed = rename_observation(state, old.resolve(), new.resolve())
    said = f"{renamed.ms}: known by this name; products in {renamed.folder}"
    print_result(observation_row(renamed), [said], as_json)


def forget(mss: MeasurementSets, state_file: StateFile = None, as_json: JsonFlag = False) -> None:
    """Remove observations from the state: found again, they count as new."""
    from dsa110_contimg.pipeline.lightcurve_updates import LightCurveWriter, database_of
    from dsa110_contimg.pipeline.state import State

    path = named_state_file(state_file)
    with State(path, create=False) as state:
        found = [state.find(m.resolve()) for m in mss]
        for o in found:
            runs = state.runs_of(o)
            state.forget(o)
            # What a kill keeps from being withdrawn here the next driver withdraws.
            LightCurveWriter(database_of(path)).withdraw(runs)
    lines = [f"{o.ms}: forgotten; products in {o.folder}" for o in found]
    print_result({"forgotten": [str(o.ms) for o in found]}, lines, as_json)


def prune(
    retention: Annotated[
        str | None,
        typer.Option(help="Rules VERDICT:WHAT:AGE, for example any:images:30d,failed:products:90d"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed")] = False,
    config: ConfigFile = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove products by age and verdict, as retention says; records stay."""
    from dsa110_contimg.pipeline.state import State
    from dsa110_contimg.pipeline.upkeep import prune as remove

    settings = PipelineConfig.load(config, {"retention": retention, "state_file": state_file})
    if settings.retention is None:
        raise ConfigError("no rules are given", "retention", "for example --retention any:images:30d")
    rules = parse_retention(settings.retention)
    with State(named_state_file(settings.state_file), create=False) as state:
        found = list(remove(state, rules, dry_run=dry_run))
    removed, left = [p for p in found if not p.kept], [p for p in found if p.kept]
    gigabytes = sum(p.n_bytes for p in removed) / 1e9
    lines = [f"{p.observation.name}: {p.what}, {p.n_files} files, {p.n_bytes / 1e6:.1f} MB" for p in removed]
    lines += [f"{p.observation.name}: left alone: {p.kept}" for p in left]
    verb = "would be removed" if dry_run else "removed"
    lines.append(
        f"{sum(p.n_files for p in removed)} files of {len(removed)} observations {verb}, {gigabytes:.3f} GB"
    )
    values = [
        {
            "observation": p.observation.name,
            "folder": str(p.observation.folder),
            "what": p.what,
            "files": p.n_files,
            "bytes": p.n_bytes,
            "left_alone": p.kept or None,
        }
        for p in found
    ]
    print_result({"dry_run": dry_run, "pruned": values}, lines, as_json)
    away = [p for p in left if p.away]
    if away:
        raise ResourceError(
            f"{len(away)} of {len(found)} could not be pruned, the first {away[0].observation.name}",
            away[0].observation.folder,
            "are its disks there, and writable?",
        )


def _verdicts(text: str | None) -> tuple[str, ...]:
    """Read verdicts separated by commas."""
    words = tuple(word.strip() for word in text.split(",")) if text else ()
    for word in words:
        if word not in VERDICTS:
            raise ConfigError(f"is no verdict: {word}", "verdict", f"give {', '.join(VERDICTS)}")
    return words


def _time(text: str | None, option: str) -> float | None:
    """Read a date, or how long ago: Unix time in seconds."""
    if text is None:
        return None
    age = parse_age(text)
    if age is not None:
        return time.time() - age
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise ConfigError(
            f"is no date: {text}", option, "give 2026-01-25, 2026-01-25T12:00, 12h or 7d"
        ) from None


def _table(found: Sequence[Any]) -> Iterator[str]:
    """Lay observations out in columns, names whole; what is not good says why in a line of its own."""
    head = ("observation", "status", "verdict", "seed", "x thermal", "flux", "SNR gain", "seconds")
    rows = [
        (
            o.name,
            o.status,
            o.quality,
            ("yes" if o.seeded else "NO") if o.quality else "",
            _number(o.thermal_ratio, ".2f"),
            _number(o.flux_ratio, ".3f"),
            _number(o.snr_gain, ".4g"),
            _number(o.seconds, ".0f"),
        )
        for o in found
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        texts = [
            c.ljust(w) if k < 4 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(texts).rstrip()

    yield line(head)
    for o, row in zip(found, rows, strict=True):
        yield line(row)
        if o.message and (o.quality != "good" or o.status != "done"):
            yield from wrapped(o.message, indent=4)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def observation_row(observation: Any) -> dict[str, Any]:
    """Return what is told of an observation, as JSON has it."""
    return {
        "observation": observation.name,
        "ms": str(observation.ms),
        "folder": str(observation.folder),
        "observed_at": observation.observed_at,
        "status": observation.status,
        "run_id": observation.run_id,
        "attempts": observation.attempts,
        "message": observation.message,
        "quality": observation.quality,
        "seeded": observation.seeded,
        "priority": observation.priority,
        "version": observation.version,
        "ended_at": observation.ended_at or None,
        "pruned": observation.pruned,
        "thermal_ratio": observation.thermal_ratio,
        "flux_ratio": observation.flux_ratio,
        "snr_gain": observation.snr_gain,
        "seconds": observation.seconds,
    }


#: How the fields of an observation are called where people read them.
NAMES = {
    "ms": "Measurement Set",
    "observed_at": "observed",
    "run_id": "run",
    "quality": "verdict",
    "version": "made by contimg",
    "ended_at": "ended",
    "thermal_ratio": "noise over thermal",
    "flux_ratio": "flux ratio",
    "snr_gain": "SNR gain",
}


def _in_words(key: str, value: Any) -> str:
    """Write a field of an observation; a dash where there is none."""
    if value in (None, ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_at"):
        return f"{date_text(value)} UTC"
    return format(value, ".4g") if isinstance(value, float) else str(value)


def _print_one(state: Any, ms: Path, as_json: bool) -> None:
    observation = state.find(ms.resolve())
    record, history = state.record(observation), state.history(observation)
    if as_json:
        print_json({**observation_row(observation), "record": record, "history": history})
        return
    shown = {NAMES.get(key, key): _in_words(key, v) for key, v in observation_row(observation).items()}
    if record and record["status"] == "done":
        gone = " (removed by prune)" if observation.pruned == "products" else ""
        shown["published"] = f"{record['published']} ({record['quality']}), {record['image']}{gone}"
        shown["fell back"] = record["fallback"] or ""
        shown |= {
            NAMES.get(key, key.replace("_", " ")): _in_words(key, v) for key, v in record["figures"].items()
        }
        shown["seconds"] = ", ".join(f"{k} {v:.1f}" for k, v in record["seconds"].items())
        shown["initial tables"] = ", ".join(record["caltables"]) or "none"
    print_pairs(shown)
    typer.echo("history")
    for event in history:
        typer.echo(
            f"  {date_text(event['time'])} {event['run_id'] or '':<12} {event['event']} {event['detail']}"
        )
