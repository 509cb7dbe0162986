"""The pipeline: ``contimg run``, ``watch``, ``status``, ``retry``, ``revert`` and ``config show``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, TerminalProgress, print_json
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import InputError

__all__ = ["config_app", "retry", "revert", "run", "status", "watch"]

config_app = typer.Typer(help="Show the options and where they come from.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of options")]
CalTables = Annotated[
    list[Path] | None,
    typer.Option("--caltable", help="Initial table for all, instead of the naming rule; repeat for more"),
]
StateFile = Annotated[
    Path | None,
    typer.Option(help="State file", show_default="CONTIMG_STATE_FILE, else state/pipeline.sqlite3"),
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
    from dsa110_contimg.pipeline.state import State

    settings = PipelineConfig.load(config, options)
    progress = TerminalProgress()
    with State(settings.state_file) as state:
        driver = Driver(state, outdir, settings, progress, caltables=_tables(caltable))
        wanted, misnamed = [], []
        for ms in mss:
            try:
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
    from dsa110_contimg.pipeline.state import State

    settings = PipelineConfig.load(config, options)
    with State(settings.state_file) as state:
        driver = Driver(state, outdir, settings, TerminalProgress(), folder, _tables(caltable))
        driver.run()


def status(
    ms: Annotated[Path | None, typer.Argument(help="Measurement Set, for its history and figures")] = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what waits, runs, is done and failed; with a Measurement Set, all that is known of it."""
    from dsa110_contimg.pipeline.state import State

    with State(_state_file(state_file), create=False) as state:
        if ms is not None:
            _print_one(state, ms, as_json)
            return
        counts, all_of_them = state.counts(), state.observations()
    if as_json:
        print_json({"counts": counts, "observations": [_row(o) for o in all_of_them]})
        return
    typer.echo(", ".join(f"{n} {s}" for s, n in counts.items() if n) or "nothing yet")
    table = Table("observation", "observed", "status", "tries", "what came of it")
    for o in all_of_them:
        table.add_row(o.name, _date(o.observed_at), o.status, str(o.attempts), o.message)
    Console().print(table)


def retry(
    mss: Annotated[
        list[Path] | None, typer.Argument(metavar="[MS]...", help="Measurement Sets; all failed by default")
    ] = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Queue what failed, or the Measurement Sets named, again; run or watch takes them up."""
    from dsa110_contimg.pipeline.state import State

    with State(_state_file(state_file), create=False) as state:
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
    path = _state_file(state_file)
    if path.exists():
        with State(path, create=False) as state:
            known = [o for o in state.observations() if o.ms == ms.resolve()]
            for o in known:
                state.revert(o, text)
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


def _state_file(given: Path | None) -> Path:
    return PipelineConfig.load(None, {"state_file": given}).state_file


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
