"""Flags of commands, made from the settings classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from dsa110_contimg.config import (
    BackendConfig,
    CleanConfig,
    ImagingConfig,
    PipelineConfig,
    SeedConfig,
    SelfCalConfig,
    Settings,
    SimulationConfig,
)
from dsa110_contimg.errors import ConfigError

__all__ = ["FLAGS", "ConfigFile", "StateFile", "T", "given_state_file", "named_state_file", "settings_flags"]

T = TypeVar("T")
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of options")]
StateFile = Annotated[
    Path | None,
    typer.Option(help="State file", show_default="CONTIMG_STATE_FILE"),
]
#: Flags that differ from the option's name.
FLAGS = {
    "use_nvss_seeding": "--seed/--no-seed",
    "nvss_min_mjy": "--min-mjy",
    "cell_arcsec": "--cell",
    "absent_jy": "--absent",
    "new_jy": "--new",
    "variable_ratio": "--variable",
}

#: Titles under which the help lists options, in its order: what most users look for first.
FIRST = "Often needed"
PANELS = (FIRST, "Data", "Catalogue", "Solving", "Imaging", "WSClean", "Machine")
PANEL_OF = dict.fromkeys(("use_nvss_seeding", "catalog_dir", "field", "size", "columns", "caltables"), FIRST)
PANEL_OF |= dict.fromkeys(("spw", "average", "unsolved", "spw_map", "initial_field"), "Data")
PANEL_OF |= dict.fromkeys(("initial_interpolation",), "Data")
PANEL_OF |= dict.fromkeys(("threads", "memory_gb"), "Machine")
PANEL_OF |= dict.fromkeys(("backend", "imaging"), "Imaging")
PANEL_OF_CLASS: dict[type, str] = {
    SeedConfig: "Catalogue",
    CleanConfig: "Imaging",
    ImagingConfig: "Imaging",
    BackendConfig: "WSClean",
    SelfCalConfig: "Solving",
}
#: With these options a part of those of the pipeline, or of the simulator, begins.
PARTS: dict[type, dict[str, str]] = {
    PipelineConfig: {
        "workers": "Workers",
        "rollout": "Seeding and verdicts",
        "caltables": "Input and products",
        "poll_s": "Arrivals and queue",
        "state_file": "State and monitoring",
    },
    SimulationConfig: {
        "ra": "Array and observation",
        "phase_rms": "Gains",
        "pointing_rms": "What no gain can follow",
        "real_sky": "Sky",
        "catalog_error": "Errors of the catalogue",
    },
}
#: What most users of the simulator look for first.
FIRST_OF_SIMULATION = ("dec", "antennas", "channels", "dumps", "fields", "random_phases", "phase_rms", "seed")


def panels(*classes: type[Settings]) -> dict[str, str]:
    """Return the options of settings classes in the order of the help, with their titles, if any."""
    found: dict[str, str] = {}
    for cls in classes:
        part = ""
        for name in cls.model_fields:
            owner = next(c for c in reversed(cls.__mro__) if name in getattr(c, "__annotations__", {}))
            part = PARTS.get(owner, {}).get(name, part)
            first = owner is SimulationConfig and name in FIRST_OF_SIMULATION
            found[name] = FIRST if first else _panel(name, owner, part)
    parts = [title for of_class in PARTS.values() for title in of_class.values()]
    order = {title: number for number, title in enumerate((*PANELS, *parts))}
    return dict(sorted(found.items(), key=lambda item: order.get(item[1], -1)))


def _panel(name: str, owner: type, part: str) -> str:
    """Title over an option; that of its part where none is set for it, or for its class."""
    if owner is SimulationConfig:
        return part
    return PANEL_OF.get(name) or PANEL_OF_CLASS.get(owner, part)


def settings_flags(*classes: type[Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag for every option of settings classes.

    The decorated function takes them in its keyword argument ``options``,
    where a flag that was not given is missing.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = {name: info for cls in classes for name, info in cls.model_fields.items()}
        own = inspect.signature(function, eval_str=True).parameters
        parameters = [p for p in own.values() if p.name != "options"]
        for name, title in panels(*classes).items():
            info = fields[name]
            flag = FLAGS.get(name, "--" + name.replace("_", "-"))
            if info.annotation is bool and "/" not in flag:
                flag = f"{flag}/--no-{flag.removeprefix('--')}"
            # What happens without one the help says.
            default = info.default is not None and str(info.default)
            option = typer.Option(
                flag, help=info.description, show_default=default, rich_help_panel=title or None
            )
            kind: Any = info.annotation if info.default is None else info.annotation | None  # type: ignore[operator]
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[kind, option],
                )
            )

        def command(*args: Any, **kwargs: Any) -> Any:
            options = {k: kwargs.pop(k) for k in fields}
            return function(*args, **kwargs, options={k: v for k, v in options.items() if v is not None})

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


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
