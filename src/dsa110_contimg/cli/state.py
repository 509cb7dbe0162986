"""``contimg state``: care of the state file of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsa110_contimg.cli.pipeline import StateFile, given_state_file, named_state_file
from dsa110_contimg.cli.terminal import JsonFlag, print_json

__all__ = ["state_app"]

state_app = typer.Typer(
    help="Check, back up, upgrade or rebuild the state file of the pipeline.", no_args_is_help=True
)


@state_app.command("check")
def check_command(state_file: StateFile = None, as_json: JsonFlag = False) -> None:
    """Check every page and record."""
    from dsa110_contimg.pipeline.state_care import check

    path = named_state_file(state_file)
    found = check(path)
    if as_json:
        print_json({"state_file": str(path), **found})
        return
    n, runs = found["observations"], found["runs"]
    typer.echo(f"{path}: whole, version {found['version']}, {n} observations, {runs} runs")


@state_app.command("backup")
def backup_command(
    copy: Annotated[Path, typer.Argument(help="File to write; an earlier copy is replaced")],
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy it into one file, also while the pipeline runs."""
    from dsa110_contimg.pipeline.state_care import back_up

    path = named_state_file(state_file)
    back_up(path, copy)
    if as_json:
        print_json({"state_file": str(path), "copy": str(copy)})
        return
    typer.echo(f"{copy}: copy of {path}")


@state_app.command("upgrade")
def upgrade_command(state_file: StateFile = None, as_json: JsonFlag = False) -> None:
    """Bring it to this version; a copy of the old one stays beside it."""
    from dsa110_contimg.pipeline.state_care import upgrade

    path = named_state_file(state_file)
    copy = upgrade(path)
    if as_json:
        print_json({"state_file": str(path), "copy": None if copy is None else str(copy)})
        return
    typer.echo(f"{path}: " + ("is of this version already" if copy is None else f"upgraded; before: {copy}"))


@state_app.command("rebuild")
def rebuild_command(
    outdirs: Annotated[list[Path], typer.Argument(metavar="OUTDIR...", help="Folders of all products")],
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Make it anew from the records in output folders; what was there is moved aside."""
    from dsa110_contimg.pipeline.naming import STATE
    from dsa110_contimg.pipeline.state_care import rebuild

    path = given_state_file(state_file) or outdirs[0] / STATE
    made = rebuild(path, outdirs)
    if as_json:
        counts = {"finished": made.finished, "queued": made.queued}
        unreadable = [str(p) for p in made.unreadable]
        old = None if made.old is None else str(made.old)
        print_json({"state_file": str(path), **counts, "unreadable": unreadable, "old": old})
        return
    typer.echo(f"{path}: {made.finished} finished, {made.queued} queued again")
    for folder in made.unreadable:
        typer.echo(f"{folder}: its records cannot be read; left out")
    if made.old is not None:
        typer.echo(f"what was there is {made.old}")
