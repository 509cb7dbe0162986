"""Running programs that may never end: every wait has a deadline, and nothing waits for a stuck process."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsa110_contimg.errors import ContainerEngineError, DeadMountError, ResourceError, WSCleanError

__all__ = ["Finished", "probe_folder", "run_program", "wait_for", "wsclean_failure"]

log = logging.getLogger("dsa110_contimg.imaging")

#: A process that is asked to end has this long, in seconds, before it is killed.
GRACE_S = 5.0
#: A killed process that is not gone after this many seconds sits in the kernel and is given up.
KILL_WAIT_S = 2.0
#: A file system that answers does so within this many seconds.
PROBE_S = 5.0

# Processes in uninterruptible sleep survive SIGKILL. They are kept here, so that they are collected when they
# end after all, and nobody waits for them.
_GIVEN_UP: list[subprocess.Popen[bytes]] = []
_GIVEN_UP_LOCK = threading.Lock()

# A probe that reads or writes is the only proof: attributes come from a cache. It removes its file when a
# file system that hung comes back.
_PROBE_WRITE = 'f=$(mktemp -p "$1" --suffix=.contimg-probe) || exit; sync "$f"; s=$?; rm -f "$f"; exit $s'
_PROBE_READ = 'find "$1" -mindepth 1 -maxdepth 1 -print -quit >/dev/null'


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes
    ----------
    returncode : int or None
        Exit status, negative for a signal; None if it was ended because its deadline had come.
    stdout, stderr : str
        What it printed.
    seconds : float
        How long it took.
    stuck : bool
        True if it survived SIGKILL and was left behind.
    """

    returncode: int | None
    stdout: str
    stderr: str
    seconds: float
    stuck: bool = False

    @property
    def last_words(self) -> str:
        """Last line of its messages, or of its output."""
        lines = [line.strip() for line in (self.stdout + "\n" + self.stderr).splitlines() if line.strip()]
        return lines[-1] if lines else "it printed nothing"


def wait_for(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait until a child has ended; True if it has within the time, in seconds."""
    if process.poll() is not None:
        return True
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return process.poll() is not None
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll(max(0, int(1000 * timeout_s)))
    finally:
        os.close(descriptor)
    return process.poll() is not None


def end(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> bool:
    """End a child and its process group, with SIGTERM and then SIGKILL; True if it is gone.

    One that stays, in the kernel, is given up: it is collected by a later call when it has ended.
    """
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        if wait_for(process, patience):
            return True
    with _GIVEN_UP_LOCK:
        _GIVEN_UP.append(process)
    return False


def run_program(
    command: Sequence[str],
    timeout_s: float,
    *,
    environment: Mapping[str, str] | None = None,
    tethered: bool = False,
    grace_s: float = GRACE_S,
) -> Finished:
    """Run a program to its end or its deadline.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    timeout_s : float
        Deadline in seconds. The program and its process group are ended then, or left behind if stuck.
    environment : mapping, optional
        Environment; this process's by default.
    tethered : bool
        Let the kernel kill the program when the calling thread ends, however it ends. Needs `setpriv`.
    grace_s : float
        Seconds between SIGTERM and SIGKILL.

    Raises
    ------
    FileNotFoundError
        If there is no such program.
    """
    with _GIVEN_UP_LOCK:
        _GIVEN_UP[:] = [process for process in _GIVEN_UP if process.poll() is None]
    setpriv = shutil.which("setpriv") if tethered else None
    if setpriv:
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(command[0])
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    started = time.monotonic()
    # Into memory, not pipes: a grandchild may hold a pipe open for ever, and a disk may be full.
    out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        try:
            in_time = wait_for(process, timeout_s)
        except BaseException:
            end(process, grace_s)
            raise
        stuck = not in_time and not end(process, grace_s)
        code = process.returncode if in_time else None
        return Finished(code, _text(out), _text(err), time.monotonic() - started, stuck)
    finally:
        os.close(out)
        os.close(err)


def _text(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def probe_folder(folder: Path, *, writable: bool = True, timeout_s: float = PROBE_S) -> None:
    """Find out whether the file system of a folder answers, in a child that may be left behind.

    Parameters
    ----------
    folder : Path
        A folder.
    writable : bool
        Write a small file and wait until it is on the disk; else read the folder.
    timeout_s : float
        Time it has to answer, seconds.

    Raises
    ------
    DeadMountError
        If it does not answer.
    ResourceError
        If it is not there, is full or may not be written.
    """
    script = _PROBE_WRITE if writable else _PROBE_READ
    try:
        tried = run_program(["sh", "-c", script, "sh", str(folder)], timeout_s, grace_s=0.2)
    except FileNotFoundError:
        raise ContainerEngineError("no shell to probe folders with", "sh", "install one") from None
    if tried.returncode is None:
        raise DeadMountError(
            f"the file system does not answer (no {'write' if writable else 'read'} in {timeout_s:g} s)",
            folder,
            "bring its server back, or unmount it with: umount -l",
        )
    if tried.returncode:
        reason = tried.last_words.rsplit(": ", 1)[-1]
        raise ResourceError(
            f"cannot be {'written' if writable else 'read'} ({reason})",
            folder,
            "check folder, mount and space",
        )


def wsclean_failure(done: Finished, where: str) -> WSCleanError:
    """Error with the reason that WSClean gave: it frames its exceptions with plus signs."""
    lines = (done.stdout + "\n" + done.stderr).splitlines()
    framed = " ".join(line.strip("+ >\t") for line in lines if line.startswith("+ >>>"))
    plain = [line.strip() for line in lines if line.strip(" +")]
    reason = framed or (plain[-1] if plain else "it printed nothing")
    return WSCleanError(f"exit status {done.returncode}: {reason}", where, "see its output with contimg -v")
