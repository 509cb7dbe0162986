"""The pipeline: ``contimg run`` and ``watch``, and its options: ``contimg config``."""

from __future__ import annotations

import glob
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.help_text import App
from dsa110_contimg.cli.observations import observation_row
from dsa110_contimg.cli.options import ConfigFile, panels, settings_flags
from dsa110_contimg.cli.terminal import (
    JsonFlag,
    QuietFlag,
    print_json,
    print_result,
    show_log_lines,
    wrapped,
)
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import InputError

__all__ = ["config_app", "run", "watch"]

logger = logging.getLogger(__name__)

config_app = App(help="Show options, where they come from, and the form of summaries.", no_args_is_help=True)

CalTables = Annotated[
    list[Path] | None,
    typer.Option("--caltable", help="Initial table for all, instead of the naming rule; repeat for more"),
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
    # What was set is what a reader looks for.
    for name in sorted(values, key=lambda name: sources[name] == "default"):
        shown = "not given" if values[name] is None else str(values[name])
        typer.echo(f"{name} = {shown}  ({sources[name]})")
        for line in wrapped(PipelineConfig.model_fields[name].description or "", indent=4):
            typer.echo(line)


@config_app.command("template")
def config_template() -> None:
    """Print a TOML file of all options of run, watch and selfcal, with meaning and default, commented out."""
    before = ""
    for name, title in panels(PipelineConfig).items():
        info = PipelineConfig.model_fields[name]
        if title != before:
            before = title
            typer.echo(f"\n## {title}")
        default = "" if info.default is None else " " + json.dumps(info.default, default=str)
        typer.echo(f"\n# {info.description}\n#{name} ={default}")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of selfcal_summary.json."""
    from dsa110_contimg.selfcal.summary_schema import summary_schema

    print_json(summary_schema())


@settings_flags(PipelineConfig)
def run(
    mss: Annotated[list[Path], typer.Argument(metavar="MS...", help="Measurement Sets")],
    outdir: Annotated[Path, typer.Argument(help="Folder for the products of all")],
    caltable: CalTables = None,
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Those with a higher one are begun first")
    ] = 0,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Take Measurement Sets through the pipeline, but for what is done."""
    from dsa110_contimg.pipeline.driver import Driver, raise_for_failures

    settings = PipelineConfig.load(config, options)
    show_log_lines(quiet)
    with _open_state(settings, outdir) as state:
        driver = Driver(state, outdir, settings, caltables=_tables(caltable))
        wanted, misnamed = [], []
        for ms in mss:
            try:
                if not ms.exists() and glob.has_magic(str(ms)):
                    raise InputError("matches nothing", ascii(str(ms)), "check the path")
                if not driver.add(ms, priority):
                    known = state.find(ms.resolve())
                    logger.info(_known(known), extra={"observation": known.name})
                wanted.append(ms.resolve())
            except InputError as error:
                logger.warning(str(error))
                misnamed.append(error)
        driver.run()
        observations = [state.find(ms) for ms in dict.fromkeys(wanted)]
        values = {
            "observations": [observation_row(o) for o in observations],
            "misnamed": [str(e) for e in misnamed],
        }
        counts = {s: sum(o.status == s for o in observations) for s in ("done", "failed", "reverted")}
        counts["refused"] = len(misnamed)
        folders = dict.fromkeys(str(o.folder.parent) for o in observations)
        where = f"; products in {', '.join(folders)}" if folders else ""
        said = ", ".join(f"{n} {s}" for s, n in counts.items() if n) + where
        print_result(values, [said], as_json, quiet)
        raise_for_failures(state, observations, misnamed)


@settings_flags(PipelineConfig)
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder in which Measurement Sets arrive")],
    outdir: Annotated[Path, typer.Argument(help="Folder for the products of all")],
    caltable: CalTables = None,
    config: ConfigFile = None,
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Take Measurement Sets through the pipeline as they arrive, until ended."""
    from dsa110_contimg.pipeline.driver import Driver

    settings = PipelineConfig.load(config, options)
    show_log_lines(quiet)
    with _open_state(settings, outdir) as state:
        driver = Driver(state, outdir, settings, folder, _tables(caltable))
        driver.run()


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
    from dsa110_contimg.visibilities.tables import require_outside_tables

    require_outside_tables(outdir)
    return State(settings.state_file or outdir / STATE)
