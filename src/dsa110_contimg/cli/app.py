"""The application: every command in its place. Nothing but :mod:`~dsa110_contimg.cli.main` imports it.

Results go to stdout (``--json``: one JSON object and nothing else), progress and
logs to stderr. Exit status: 0 finished, 2 bad input or usage, 3 an engine
failed, 4 not improved under ``--require-improvement``.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from dsa110_contimg import __version__
from dsa110_contimg.cli.catalog import catalog_app
from dsa110_contimg.cli.compare import compare, study
from dsa110_contimg.cli.container import container_app, doctor
from dsa110_contimg.cli.help_text import App
from dsa110_contimg.cli.image import image, rephase
from dsa110_contimg.cli.kernels import compile_command
from dsa110_contimg.cli.lightcurves import lightcurve, transients, variables
from dsa110_contimg.cli.observations import (
    forget,
    prioritize,
    prune,
    rename,
    retry,
    revert,
    status,
)
from dsa110_contimg.cli.pipeline import config_app, run, watch
from dsa110_contimg.cli.report import report
from dsa110_contimg.cli.selfcal import selfcal
from dsa110_contimg.cli.simulate import demo, score, simulate
from dsa110_contimg.cli.state import state_app
from dsa110_contimg.cli.terminal import PACKAGE, line_handler, stderr_console
from dsa110_contimg.config import (
    ComparisonConfig,
    ImagingConfig,
    PipelineConfig,
    SelfCalConfig,
    SimulationConfig,
    StudyConfig,
)

__all__ = ["app"]


app = App(
    name="contimg",
    help="Catalogue-seeded self-calibration of radio-interferometric continuum observations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_ONE, _MANY = "One observation", "Many observations"
_CURVES, _KNOWN, _SETUP = "Light curves", "Known truth and comparisons", "Set-up"
#: In the order of the help.
_COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    _ONE: (selfcal, image, report, revert, rephase),
    _MANY: (run, watch, status, retry, prioritize, rename, forget, prune),
    _CURVES: (lightcurve, variables, transients),
    _KNOWN: (demo, simulate, score, compare, study),
    _SETUP: (doctor, compile_command),
}
for _title, _commands in _COMMANDS.items():
    for _command in _commands:
        # A declination below zero is no option.
        _settings = {"ignore_unknown_options": True} if _command is lightcurve else None
        _name = _command.__name__.removesuffix("_command")
        app.command(_name, title=_title, context_settings=_settings)(_command)
_GROUPS = (
    (catalog_app, "catalog", _SETUP),
    (config_app, "config", _SETUP),
    (container_app, "container", _SETUP),
    (state_app, "state", _MANY),
)
for _group, _name, _title in _GROUPS:
    app.add_typer(_group, name=_name, rich_help_panel=_title)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what the engines say")] = False,
) -> None:
    """Catalogue-seeded self-calibration of radio-interferometric continuum observations."""
    # Where nobody looks, a line for each record, never broken.
    seen = sys.stderr.isatty()
    handler = RichHandler(console=stderr_console(), show_path=False) if seen else line_handler()
    level = logging.DEBUG if verbose else logging.WARNING
    # On the handler too: a log file of the pipeline takes more than the terminal shows.
    handler.setLevel(level)
    logging.basicConfig(
        level=level,
        format="%(message)s",
        handlers=[handler],
        force=True,
    )
    logging.getLogger(PACKAGE).setLevel(logging.NOTSET)
    for name in ("matplotlib", "numba", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _warn_of_unknown_variables()
    if version:
        typer.echo(f"contimg {__version__}")
        raise typer.Exit


def _warn_of_unknown_variables() -> None:
    """Say which CONTIMG_ variables no option reads: a misspelt one would be silently without effect."""
    classes = (ImagingConfig, PipelineConfig, SelfCalConfig, SimulationConfig, ComparisonConfig, StudyConfig)
    known = {f"CONTIMG_{name.upper()}" for cls in classes for name in cls.model_fields}
    known |= {"CONTIMG_DEBUG", "CONTIMG_CASA_PYTHON", "CONTIMG_REQUIRE_ALL"}
    for name in sorted(os.environ):
        if name.upper().startswith("CONTIMG_") and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            logging.getLogger(__name__).warning("the variable %s is not an option%s", name, hint)
