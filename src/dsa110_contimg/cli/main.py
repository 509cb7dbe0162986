"""Running the command line: exit status, signals, one line for every failure."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import typer

from dsa110_contimg.cli.app import app
from dsa110_contimg.errors import ContimgError, InputError, UnforeseenError

__all__ = ["INTERRUPTED", "USAGE_ERROR", "main"]

#: Typer exports the leaves of its usage errors; this is what they grow from.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]
INTERRUPTED = 130
STOPPED = "interrupted; run the same command again to finish"
#: Seconds until an interrupt that was lost comes again.
AGAIN_S = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0, 2, 3 or 4; 130 or 143 after SIGINT or SIGTERM; every failure has printed one line on stderr.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    with _interruptible() as received:
        status = _run(arguments, received)
    return 128 + received[0] if received and status == INTERRUPTED else status


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGTERM, which schedulers send, and Ctrl-C end the work alike; yields the signals that came.

    Compiled code calls back into Python where no exception can be raised: one that is lost there comes again.
    """
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        if number != signal.SIGALRM:
            received.append(number)
        raise KeyboardInterrupt

    def lost(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            hook(unraisable)

    with ExitStack() as stack:
        # In a thread no handler can be set, and whoever has one of its own keeps it.
        if threading.current_thread() is threading.main_thread():
            hook, sys.unraisablehook = sys.unraisablehook, lost
            stack.callback(setattr, sys, "unraisablehook", hook)
            signals = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
            signals[signal.SIGALRM] = signal.SIG_DFL
            for number, default in signals.items():
                if signal.getsignal(number) is default:
                    stack.callback(signal.signal, number, signal.signal(number, interrupt))
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        yield received


def _run(arguments: list[str] | None, received: list[int]) -> int:
    try:
        given = sys.argv[1:] if arguments is None else arguments
        if any(not word and not before.startswith("--") for before, word in pairwise(["", *given])):
            # A variable of the shell that is not set: as a path it would be this folder.
            return _fail("an argument is empty; give it a value", InputError.exit_code)
        stopped = app(args=arguments, standalone_mode=False)
        # An interrupt comes back as a status instead of an exception.
        if stopped == INTERRUPTED:
            raise KeyboardInterrupt
    except ContimgError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")
            return InputError.exit_code
        where = f"contimg {error.ctx.info_name}: " if error.ctx and error.ctx.info_name != "contimg" else ""
        return _fail(where + " ".join(error.format_message().split()) + "; see --help", InputError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail(STOPPED, INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as error:  # the last line of defence: one line, whatever happened
        if received:
            # An interrupt in compiled code may come out of it as another error.
            return _fail(STOPPED, INTERRUPTED)
        if os.environ.get("CONTIMG_DEBUG"):
            raise
        told = UnforeseenError.of(error, _memory_options(given))
        return _fail(str(told), told.exit_code)
    return 0


def _memory_options(given: list[str]) -> list[str]:
    """Options of the command that was given by which it takes less memory."""
    command: Any = typer.main.get_command(app)
    for word in given:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
    there = {flag for parameter in command.params for flag in parameter.opts}
    return [flag for flag in ("--memory-gb", "--size") if flag in there]


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return status
