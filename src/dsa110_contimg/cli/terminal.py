"""What commands say and show: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar
from rich.table import Table

__all__ = [
    "PACKAGE",
    "JsonFlag",
    "LineFormatter",
    "QuietFlag",
    "TerminalProgress",
    "date_text",
    "line_handler",
    "plain",
    "print_json",
    "print_pairs",
    "print_result",
    "print_table",
    "show_log_lines",
    "stderr_console",
    "wrapped",
]

T = TypeVar("T")

PACKAGE = "dsa110_contimg"
#: In fewer columns texts are not broken into lines.
LEAST_ROOM = 30
#: Levels as syslog and the journal of systemd number them.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")]


def _errors_only(quiet: bool) -> bool:
    """Let the log say no more than errors, before a command does anything."""
    if quiet:
        _set_level(logging.ERROR)
    return quiet


def _set_level(level: int) -> None:
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)


QuietFlag = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        callback=_errors_only,
        help="Print errors only (and the object of --json): the exit status tells how it ended",
    ),
]


class LineFormatter(logging.Formatter):
    """One line for each record, whatever it holds: time (UTC), level, observation, message.

    Under a journal, which takes it off again, with the level in front that it sorts by.
    """

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        words = [when, record.levelname.lower(), getattr(record, "observation", "-"), record.getMessage()]
        if record.exc_info and record.exc_info[1] is not None:
            words.append(f"({type(record.exc_info[1]).__name__}: {record.exc_info[1]})")
        mark = f"<{PRIORITIES.get(record.levelno, 6)}>" if self.journal else ""
        return mark + " ".join(" ".join(words).splitlines())


@cache
def stderr_console() -> Console:
    """Return the one console on stderr: a line that is logged while a bar is drawn goes above the bar."""
    return Console(stderr=True)


def show_log_lines(quiet: bool = False) -> None:
    """Show on stderr all that the pipeline logs, a line each: for commands that work through many.

    Parameters
    ----------
    quiet : bool
        Show errors alone. What goes into log files is the same.
    """
    handler = line_handler()
    handler.setLevel(logging.ERROR if quiet else logging.INFO)
    logging.basicConfig(level=logging.getLogger().level, handlers=[handler], force=True)
    logging.getLogger(PACKAGE).setLevel(logging.INFO)


def line_handler() -> logging.Handler:
    """Return a handler that writes lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(journal="JOURNAL_STREAM" in os.environ))
    return handler


class TerminalProgress:
    """Progress bars and notes on stderr; bars only where somebody is looking.

    Parameters
    ----------
    quiet : bool
        Show neither.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = stderr_console()

    @property
    def draws(self) -> bool:
        """Whether bars are drawn: FORCE_COLOR makes a file no terminal, and a dumb one cannot redraw."""
        return not self.quiet and self.console.file.isatty() and not self.console.is_dumb_terminal

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through under a bar with a time estimate."""
        if not self.draws or total < 2:
            yield from items
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with RichBar(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            for item in items:
                yield item
                bar.advance(task)

    def note(self, text: str) -> None:
        """Print a line."""
        if self.quiet:
            return
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def print_result(values: dict[str, Any], lines: Iterable[str], as_json: bool, quiet: bool = False) -> None:
    """Print what a command found: as JSON if that is asked for, else as lines unless it is to be quiet."""
    if as_json:
        print_json(values)
        return
    for line in () if quiet else lines:
        typer.echo(line)


def print_pairs(pairs: Mapping[str, str], name_width: int = 20) -> None:
    """Print names with what is known of them; on a terminal long texts go on below their beginning.

    Parameters
    ----------
    pairs : mapping of str to str
        Text by name; what is empty is left out.
    name_width : int
        Columns of the names.
    """
    for name, text in pairs.items():
        if text:
            first, *others = wrapped(text, indent=name_width + 1)
            typer.echo("\n".join([name.ljust(name_width + 1) + first[name_width + 1 :], *others]))


def wrapped(text: str, indent: int) -> list[str]:
    """Break a text into indented lines of the width of the terminal; into one where there is none.

    Words, and so paths, stay whole.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if width - indent < LEAST_ROOM:
        return [" " * indent + text]
    margin = " " * indent
    return textwrap.wrap(
        text,
        width - 1,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(table: Table) -> None:
    """Print a table with all its columns in full, whatever the width of the terminal."""
    table.box = box.SIMPLE_HEAD
    for column in table.columns:
        column.no_wrap = True
    wide = Console(width=10_000)
    width = Measurement.get(wide, wide.options, table).maximum
    Console(width=max(width, Console().width), soft_wrap=True).print(table)


def date_text(seconds: float) -> str:
    """Write a Unix time as a date and time (UTC)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def plain(value: Any) -> Any:
    """Return a number or text as JSON has it; NaN as None."""
    item = value.item() if hasattr(value, "item") else value
    return None if isinstance(item, float) and item != item else item


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(values, indent=2, allow_nan=False) + "\n")
