"""How commands show their help: options in titled groups, legible in 80 columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

__all__ = ["App", "HelpCommand"]

T = TypeVar("T", bound=Callable[..., Any])

#: Columns for names of options; help to a longer one begins on the next line.
NAMES = 28
#: A default as typer writes one that it was told in words.
DEFAULT = re.compile(r"\[default: \((.*?)\)(?=[];])")
CHOICES = re.compile(r"(.*) <(.*\|.*)>")
ON_OFF = {"True": "on", "False": "off"}


class HelpCommand(TyperCommand):
    """A command whose help has two columns: a table of four leaves too little for the words."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, what the command does, arguments, and options under their titles."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            own = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(getattr(param, "rich_help_panel", None) or own, []).append(_row(param, record))
        for title in sorted(groups, key="Arguments".__ne__):
            with formatter.section(title):
                formatter.write_dl(groups[title], col_max=NAMES)


class App(typer.Typer):
    """An application whose commands show their help so."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[T], T]:
        """Return a decorator that registers a command."""
        return super().command(name, cls=HelpCommand, **settings)


def _row(param: Any, record: tuple[str, str]) -> tuple[str, str]:
    """Shorten what the help says of a parameter: a flag and its opposite are one."""
    names, words = record
    if getattr(param, "is_flag", False) and param.secondary_opts:
        on, off = param.opts[0].removeprefix("--"), param.secondary_opts[0].removeprefix("--")
        names = f"--[no-]{on}" if off == f"no-{on}" else names
        words = DEFAULT.sub(lambda found: f"[default: {ON_OFF.get(found[1], found[1])}", words)
    choices = CHOICES.fullmatch(names)
    if choices is not None and len(names) > NAMES:
        # They would fill a line of their own, or more.
        names = f"{choices[1]} <choice>"
        said, mark, rest = words.partition("  [")
        words = f"{said}. One of {choices[2].replace('|', ', ')}.{mark}{rest}"
    return names, DEFAULT.sub(r"[default: \1", words)
