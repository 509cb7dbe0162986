"""``contimg state``: care of the state file of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsa110_contimg.cli.help_text import App
from dsa110_contimg.cli.options import StateFile, given_state_file, named_state_file
from dsa110_contimg.cli.terminal import JsonFlag, print_result

__all__ = ["state_app"]

state_app = App(help="Check, back up, upgrade or rebuild the state file.", no_args_is_help=True)


@state_app.command("check")
def check_command(state_file: StateFile = None, as_json: JsonFlag = False) -> None:
    """Check every page and record."""
    from dsa110_contimg.pipeline.state_care import check

    path = named_state_file(state_file)
    found = check(path)
    n, runs = found["observations"], found["runs"]
    said = f"{path}: whole, version {found['version']}, {n} observations, {runs} runs"
    print_result({"state_file": str(path), **found}, [said], as_json)


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
    print_result({"state_file": str(path), "copy": str(copy)}, [f"{copy}: copy of {path}"], as_json)


@state_app.command("upgrade")
def upgrade_command(state_file: StateFile = None, as_json: JsonFlag = False) -> None:
    """Bring it to this version; a copy of the old one stays beside it."""
    from dsa110_contimg.pipeline.state_care import upgrade

    path = named_state_file(state_file)
    copy = upgrade(path)
    said = "is of this version already" if copy is None else f"upgraded; before: {copy}"
    values = {"state_file": str(path), "copy": None if copy is None else str(copy)}
    print_result(values, [f"{path}: {said}"], as_json)


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
    values = {"state_file": str(path), "finished": made.finished, "queued": made.queued}
    values |= {"unreadable": [str(p) for p in made.unreadable], "old": made.old and str(made.old)}
    lines = [f"{path}: {made.finished} finished, {made.queued} queued again"]
    lines += [f"{folder}: its records cannot be read; left out" for folder in made.unreadable]
    if made.old is not None:
        lines.append(f"what was there is {made.old}")
    print_result(values, lines, as_json)
