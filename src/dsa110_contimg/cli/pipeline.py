"""The pipeline: ``contimg run``, ``watch``, ``status``, ``retry``, ``revert`` and ``config show``."""

from __future__ import annotations

import glob
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, TerminalProgress, print_json, print_table
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import ConfigError, InputError

__all__ = ["config_app", "given_state_file", "named_state_file", "retry", "revert", "run", "status", "watch"]

config_app = typer.Typer(help="Show the options and where they come from.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of options")]
CalTables = Annotated[
    list[Path] | None,
    typer.Option("--caltable", help="Initial table for all, instead of the naming rule; repeat for more"),
]
StateFile = Annotated[
    Path | None,
    typer.Option(help="State file", show_default="CONTIMG_STATE_FILE"),
]


@config_app.command("show")
@settings_flags(PipelineConfig)
def config_show(config: ConfigFile = None, as_json: JsonFlag = False, *, options: dict[str, Any]) -> None:
    """Print each option of run, watch and selfcal with its value and where that comes from."""
    settings = PipelineConfig.load(config, options)
    values, sources = settings.model_dump(mode="json"), PipelineConfig.sources(config, options)
    if as_json:
        print_json({name: {"value": values[name], "source": sources[name]} for name in values})
        return
    table = Table("option", "value", "from", "meaning")
    for name, value in values.items():
        shown = "" if value is None else str(value)
        style = None if sources[name] == "default" else "bold"
        table.add_row(name, shown, sources[name], PipelineConfig.model_fields[name].description, style=style)
    Console().print(table)


@settings_flags(PipelineConfig)
def run(
    mss: Annotated[list[Path], typer.Argument(metavar="MS...", help="Measurement Sets")],
    outdir: Annotated[Path, typer.Argument(help="Folder for the products of all")],
    caltable: CalTables = None,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Take Measurement Sets through the pipeline, oldest first; what is done already is not done again."""
    from dsa110_contimg.pipeline.driver import Driver, raise_for_failures

    settings = PipelineConfig.load(config, options)
    progress = TerminalProgress()
    with _open_state(settings, outdir) as state:
        driver = Driver(state, outdir, settings, progress, caltables=_tables(caltable))
        wanted, misnamed = [], []
        for ms in mss:
            try:
                if not ms.exists() and glob.has_magic(str(ms)):
                    raise InputError("matches nothing", ascii(str(ms)), "check the path")
                if not driver.add(ms):
                    known = state.find(ms.resolve())
                    progress.note(_known(known))
                wanted.append(ms.resolve())
            except InputError as error:
                progress.note(str(error))
                misnamed.append(error)
        driver.run()
        observations = [state.find(ms) for ms in dict.fromkeys(wanted)]
        if as_json:
            print_json(
                {"observations": [_row(o) for o in observations], "misnamed": [str(e) for e in misnamed]}
            )
        else:
            counts = {s: sum(o.status == s for o in observations) for s in ("done", "failed", "reverted")}
            counts["refused"] = len(misnamed)
            folders = dict.fromkeys(str(o.folder.parent) for o in observations)
            where = f"; products in {', '.join(folders)}" if folders else ""
            typer.echo(", ".join(f"{n} {s}" for s, n in counts.items() if n) + where)
        raise_for_failures(state, observations, misnamed)


@settings_flags(PipelineConfig)
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder in which Measurement Sets arrive")],
    outdir: Annotated[Path, typer.Argument(help="Folder for the products of all")],
    caltable: CalTables = None,
    config: ConfigFile = None,
    *,
    options: dict[str, Any],
) -> None:
    """Take new Measurement Sets through the pipeline once they are complete, until ended."""
    from dsa110_contimg.pipeline.driver import Driver

    settings = PipelineConfig.load(config, options)
    with _open_state(settings, outdir) as state:
        driver = Driver(state, outdir, settings, TerminalProgress(), folder, _tables(caltable))
        driver.run()


def status(
    ms: Annotated[Path | None, typer.Argument(help="Measurement Set, for its history and figures")] = None,
    state_file: StateFile = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed")] = False,
    bad: Annotated[bool, typer.Option("--bad", help="Only what is published as bad or unverified")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only what was observed since: a date (UTC), or 12h, 7d")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="At most so many, the latest first")] = 20,
    every: Annotated[bool, typer.Option("--all", help="However many there are")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what waits, runs, is done and failed, the latest first; of one Measurement Set, all of it."""
    from dsa110_contimg.pipeline.state import State

    with State(named_state_file(state_file), create=False) as state:
        if ms is not None:
            _print_one(state, ms, as_json)
            return
        counts, qualities, paused = state.counts(), state.qualities(), state.paused()
        found = state.latest(
            None if every else last,
            statuses=("failed",) if failed else (),
            qualities=("bad", "unverified") if bad else (),
            since=None if since is None else _since(since),
        )
    if as_json:
        away = None if paused is None else {"since": paused[0], "why": paused[1]}
        rows = [_row(o) for o in found]
        print_json({"counts": counts, "quality": qualities, "paused": away, "observations": rows})
        return
    if paused is not None:
        typer.echo(f"PAUSED since {_date(paused[0])} UTC: {paused[1]}")
    parts = [f"{n} {s}" for s, n in counts.items() if n]
    verdicts = ", ".join(f"{n} {q}" for q, n in qualities.items())
    typer.echo((", ".join(parts) or "nothing yet") + (f"; published: {verdicts}" if verdicts else ""))
    if not found:
        return
    table = Table("observation", "observed", "status", "verdict", "seeded", "tries", "what came of it")
    for o in found:
        seeded = ("yes" if o.seeded else "NO") if o.quality else ""
        cells = (o.name, _date(o.observed_at), o.status, o.quality, seeded, str(o.attempts), o.message)
        table.add_row(*map(escape, cells))
    print_table(table)
    if not every and len(found) == last:
        typer.echo(f"the latest {last}; --last N or --all shows more")


def retry(
    mss: Annotated[
        list[Path] | None, typer.Argument(metavar="[MS]...", help="Measurement Sets; all failed by default")
    ] = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Queue what failed, or the Measurement Sets named, again; run or watch takes them up."""
    from dsa110_contimg.pipeline.state import State

    with State(named_state_file(state_file), create=False) as state:
        queued = state.retry([m.resolve() for m in mss] if mss else None)
    if as_json:
        print_json({"queued": [str(o.ms) for o in queued]})
        return
    typer.echo(f"{len(queued)} queued again" + "".join(f"\n{o.ms}" for o in queued))


def revert(
    ms: Annotated[Path, typer.Argument(help="Measurement Set")],
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Put columns and flags of a Measurement Set back to what the pipeline found."""
    from dsa110_contimg.pipeline.job import revert as put_back
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
    if as_json:
        print_json({"ms": str(ms), "restored": restored})
        return
    typer.echo(f"{ms}: {text}")


def _known(observation: Any) -> str:
    """Say what becomes of a Measurement Set that is known already."""
    then = {"queued": "taken up now", "running": "taken up where it stopped"}
    kept = f"products in {observation.folder}; contimg retry makes it anew"
    return f"{observation.ms} is {observation.status} already: {then.get(observation.status, kept)}"


def _tables(given: list[Path] | None) -> tuple[Path, ...] | None:
    return tuple(t.absolute() for t in given) if given else None


def _open_state(settings: PipelineConfig, outdir: Path) -> Any:
    """Open the state file that the options name, else that of the output folder."""
    from dsa110_contimg.pipeline.naming import STATE
    from dsa110_contimg.pipeline.state import State
    from dsa110_contimg.visibilities.measurement_set import require_outside_tables

    require_outside_tables(outdir)
    return State(settings.state_file or outdir / STATE)


def named_state_file(given: Path | None) -> Path:
    """Return the state file that is given or in the environment.

    Raises
    ------
    ConfigError
        If there is none.
    """
    path = given_state_file(given)
    if path is None:
        raise ConfigError(
            "no state file is named",
            "state_file",
            "give --state-file OUTDIR/pipeline.sqlite3 or set CONTIMG_STATE_FILE",
        )
    return path


def given_state_file(given: Path | None) -> Path | None:
    """Return the state file that is given or in the environment, if any is."""
    return PipelineConfig.load(None, {"state_file": given}).state_file


def _since(text: str) -> float:
    """Read a date, or how long ago: Unix time in seconds."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", text)
    if ago:
        return time.time() - float(ago[1]) * {"h": 3600.0, "d": 86400.0}[ago[2]]
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise ConfigError(
            f"is no date: {text}", "since", "give 2026-01-25, 2026-01-25T12:00, 12h or 7d"
        ) from None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _row(observation: Any) -> dict[str, Any]:
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
    }


def _print_one(state: Any, ms: Path, as_json: bool) -> None:
    observation = state.find(ms.resolve())
    record, history = state.record(observation), state.history(observation)
    if as_json:
        print_json({**_row(observation), "record": record, "history": history})
        return
    for key, value in _row(observation).items():
        typer.echo(f"{key:<18} {_date(value) + ' UTC' if key == 'observed_at' else value}")
    if record and record["status"] == "done":
        typer.echo(f"{'published':<18} {record['published']} ({record['quality']}), {record['image']}")
        if record["fallback"]:
            typer.echo(f"{'fell back':<18} {record['fallback']}")
        for key, value in record["figures"].items():
            typer.echo(f"{key:<18} {'-' if value is None else format(value, '.4g')}")
        typer.echo(f"{'seconds':<18} " + ", ".join(f"{k} {v:.1f}" for k, v in record["seconds"].items()))
        typer.echo(f"{'initial tables':<18} {', '.join(record['caltables']) or 'none'}")
    typer.echo("history")
    for event in history:
        typer.echo(f"  {_date(event['time'])} {event['run_id'] or '':<12} {event['event']} {event['detail']}")
