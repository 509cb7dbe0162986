"""How commands show their help: options in titled groups, legible in 80 columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["App", "HelpCommand", "HelpGroup"]

T = TypeVar("T", bound=Callable[..., Any])

#: Columns for names of options; help to a longer one begins on the next line.
NAMES = 28
#: Kinds of values as typer writes them, and as the help does.
KINDS = {"<list[Path]>": "<path>", "<int range>": "<int>", "<float range>": "<float>"}
#: An upper limit that nobody meets.
FAR_LIMIT = re.compile(r"(\d+)<=x<=\d{7,}")
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


class HelpGroup(TyperGroup):
    """Commands under their titles, in the same two columns."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, what the group is for, its commands, and options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            title = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(title, []).append((name, command.get_short_help_str(limit=200)))
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault("Options", []).append(_row(param, record))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_max=NAMES)


class App(typer.Typer):
    """An application whose commands and groups show their help so."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=HelpGroup, **settings)

    def command(
        self, name: str | None = None, *, title: str | None = None, **settings: Any
    ) -> Callable[[T], T]:
        """Return a decorator that registers a command, under a title of the help."""
        return super().command(name, cls=HelpCommand, rich_help_panel=title, **settings)


def _row(param: Any, record: tuple[str, str]) -> tuple[str, str]:
    """Shorten what the help says of a parameter: a flag and its opposite are one."""
    names, words = record
    for written, said in KINDS.items():
        names = names.replace(written, said)
    words = FAR_LIMIT.sub(r"x>=\1", words)
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
