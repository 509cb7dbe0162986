"""Run a command and measure it: clock, processor, memory, bytes, and the stages that it names.

The benchmarks of whole programs share this. Everything is that of the process and all of its descendants,
from ``/proc``, which is looked at ten times a second, and from what the kernel says at the end.
"""

from __future__ import annotations

import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["Measured", "contimg", "run_measured", "total"]

SAMPLING_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
#: A line of standard output that begins a stage.
STAGE = re.compile(r"^stage: (.+)$")
TAIL_LINES, LINE_LENGTH = 40, 400


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took.

    Attributes
    ----------
    seconds : float
        By the clock, without the time for which somebody else kept it stopped.
    processor_s : float
        Of all processors, user and system.
    peak_mb : float
        Largest resident memory of the largest process, 1e6 bytes.
    read_mb, written_mb : float
        Asked of the file system, whether it went to the disk or not, 1e6 bytes; without mapped files.
    disk_read_mb, disk_written_mb : float
        What did go to the disk.
    stages : dict of str to float
        Seconds by stage.
    exit_status : int
        As a shell gives it, negative for a signal.
    stopped_in : str or None
        The stage in which it was stopped for taking too long.
    paused_s : float
        For so long it was stopped by somebody else.
    output : str
        Last lines of what it printed.
    """

    seconds: float = 0.0
    processor_s: float = 0.0
    peak_mb: float = 0.0
    read_mb: float = 0.0
    written_mb: float = 0.0
    disk_read_mb: float = 0.0
    disk_written_mb: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    exit_status: int = 0
    stopped_in: str | None = None
    paused_s: float = 0.0
    output: str = ""


def contimg(*arguments: object) -> list[str]:
    """Command line of the project's own program, by the Python that runs this."""
    return [sys.executable, "-m", "dsa110_contimg", *map(str, arguments)]


def run_measured(
    command: Sequence[str | Path],
    stage: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    longest_s: float | None = None,
) -> Measured:
    """Run a command to its end, or until it has taken too long.

    Parameters
    ----------
    command : sequence of str or Path
        Program and arguments.
    stage : str
        Name of what it does, until it prints a line ``stage: NAME`` itself.
    cwd : Path, optional
        Folder to run in.
    env : mapping of str to str, optional
        Variables on top of this process's own.
    longest_s : float, optional
        After so many seconds by the clock it is killed with all that it started.

    Returns
    -------
    Measured
        Whatever the exit status.
    """
    started = time.perf_counter()
    child = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert child.stdout is not None
    tree, tail = _Tree(child.pid), list[str]()

    def running_s() -> float:
        return time.perf_counter() - started - tree.paused_s

    marks = [(stage, 0.0)]
    listener = threading.Thread(target=_listen, args=(child.stdout, running_s, marks, tail))
    listener.start()
    stopped = False
    # Ended from outside, this process must not leave the other behind, which is in a session of its own.
    earlier = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            tree.look()
            if longest_s is not None and running_s() > longest_s and not stopped:
                stopped = True
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(SAMPLING_S)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        signal.signal(signal.SIGTERM, earlier)
    # A process that has ended but was not yet waited for still tells its bytes, its children's included.
    tree.look()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    ended = running_s()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    listener.join()
    marks.append(("", ended))
    stages: dict[str, float] = {}
    for (name, begun), (_, until) in itertools.pairwise(marks):
        stages[name] = stages.get(name, 0.0) + until - begun
    # A child begins as a copy of this process, whose memory counts as its own until it runs the command.
    own_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_kb = max(tree.peak_kb, usage.ru_maxrss if usage.ru_maxrss > own_kb else 0)
    return Measured(
        seconds=ended,
        processor_s=max(tree.processor_s, usage.ru_utime + usage.ru_stime),
        peak_mb=peak_kb * 1024 / 1e6,
        read_mb=tree.bytes["rchar"] / 1e6,
        written_mb=tree.bytes["wchar"] / 1e6,
        disk_read_mb=tree.bytes["read_bytes"] / 1e6,
        disk_written_mb=tree.bytes["write_bytes"] / 1e6,
        stages={name: seconds for name, seconds in stages.items() if seconds >= 0.05 or len(stages) == 1},
        exit_status=child.returncode,
        stopped_in=marks[-2][0] if stopped else None,
        paused_s=tree.paused_s,
        output="\n".join(tail),
    )


def total(parts: Sequence[Measured]) -> Measured:
    """Commands that ran one after the other, as one: sums, the highest memory, and how the last ended."""
    stages: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds

    def add(name: str) -> float:
        return float(sum(getattr(part, name) for part in parts))

    last = parts[-1] if parts else Measured()
    return Measured(
        seconds=add("seconds"),
        processor_s=add("processor_s"),
        peak_mb=max((part.peak_mb for part in parts), default=0.0),
        read_mb=add("read_mb"),
        written_mb=add("written_mb"),
        disk_read_mb=add("disk_read_mb"),
        disk_written_mb=add("disk_written_mb"),
        stages=stages,
        exit_status=last.exit_status,
        stopped_in=last.stopped_in,
        paused_s=add("paused_s"),
        output=last.output,
    )


def _listen(
    stream: IO[str], clock: Callable[[], float], marks: list[tuple[str, float]], tail: list[str]
) -> None:
    for line in stream:
        named = STAGE.match(line.strip())
        if named:
            marks.append((named[1], clock()))
        else:
            tail.append(line.rstrip()[:LINE_LENGTH])
            del tail[:-TAIL_LINES]


class _Tree:
    """A process and its descendants, as they are seen in /proc from time to time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._processor_s: dict[int, float] = {}
        self._looked = time.perf_counter()
        self.peak_kb, self.paused_s = 0, 0.0
        self.bytes = dict.fromkeys(("rchar", "wchar", "read_bytes", "write_bytes"), 0)

    @property
    def processor_s(self) -> float:
        return sum(self._processor_s.values())

    def look(self) -> None:
        """Bring peaks and sums up to date."""
        now = dict.fromkeys(self.bytes, 0)
        before, self._looked, paused = self._looked, time.perf_counter(), False
        for pid in self._members():
            folder = Path("/proc", str(pid))
            # Any of them may end at any moment.
            with suppress(OSError, ValueError, IndexError):
                status = (folder / "status").read_text()
                peak = re.search(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)
                self.peak_kb = max(self.peak_kb, int(peak[1]) if peak else 0)
                # The name, in parentheses, may hold blanks.
                ticks = (folder / "stat").read_text().rpartition(")")[2].split()
                paused |= ticks[0] == "T"
                self._processor_s[pid] = (int(ticks[11]) + int(ticks[12])) / TICKS
                for line in (folder / "io").read_text().splitlines():
                    name, _, value = line.partition(": ")
                    if name in now:
                        now[name] += int(value)
        self.paused_s += (self._looked - before) * paused
        # Bytes of a child that was waited for are its parent's from then on: the sum never falls for long.
        self.bytes = {name: max(value, now[name]) for name, value in self.bytes.items()}

    def _members(self) -> list[int]:
        found, number = [self._pid], 0
        while number < len(found):
            for task in Path("/proc", str(found[number]), "task").glob("*/children"):
                with suppress(OSError, ValueError):
                    found += [int(pid) for pid in task.read_text().split()]
            number += 1
        return found
