"""One owner at a time for a Measurement Set, or another file.

The owner's lock is a file beside the Measurement Set that says who it is, and
the owner keeps an flock on that file for as long as it lives. The kernel drops
the flock of a process that dies, however it dies, so that on one machine a lock
left behind is told from a live one for certain, also across containers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.progress import LogProgress, Progress

__all__ = ["boot_id", "lock_beside", "lock_path"]

SUFFIX = ".contimg-lock"
#: So long another process may take to judge a lock that was left behind, seconds.
PATIENCE_S = 5.0
POLL_S = 0.02
#: What link() says on disks without hard links.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})

_here = threading.local()


@dataclass(frozen=True)
class _Owner:
    """Who holds a lock. `started` is the process's start in clock ticks since the machine's own."""

    job: str
    host: str
    pid: int
    boot_id: str
    started: int
    since: str

    def __str__(self) -> str:
        return f"{self.job} (process {self.pid} on {self.host}, since {self.since})"

    def is_alive(self) -> bool:
        """Whether the process still runs; for a process of this machine and boot."""
        return _started(self.pid) == self.started


def lock_path(path: Path | str) -> Path:
    """Return where the lock of a Measurement Set lies: beside it, links followed."""
    real = Path(path).resolve()
    return real.with_name(real.name + SUFFIX)


@contextlib.contextmanager
def lock_beside(
    path: Path | str, job: str, progress: Progress | None = None, *, wait_s: float = 0.0
) -> Iterator[None]:
    """Own a Measurement Set, or another file, for as long as the context lasts.

    Within one thread locks nest; any other thread or process is refused. What a killed
    owner left behind is taken over with a note.

    Parameters
    ----------
    path : Path or str
        Measurement Set; it need not be there yet, its folder must.
    job : str
        What it is locked for, told to others.
    progress : Progress, optional
        Where a take-over is noted.
    wait_s : float
        How long an owner with the same job is waited for, seconds: one that was given up for dead.

    Raises
    ------
    ResourceError
        If somebody else owns it, if that cannot be known, or if no file can be
        made beside it.
    """
    lock = lock_path(path)
    key = (os.getpid(), str(lock))
    held: set[tuple[int, str]] = _here.__dict__.setdefault("held", set())
    if key in held:
        yield
        return
    try:
        descriptor = _take(lock, job, progress or LogProgress(), wait_s)
    except OSError as error:
        raise ResourceError(
            f"no lock can be made beside {lock.name.removesuffix(SUFFIX)} ({error.strerror})",
            lock.parent,
            "make the folder writable, free some space or work on a copy",
        ) from None
    held.add(key)
    try:
        yield
    finally:
        held.discard(key)
        # Should it fail, the next owner finds a lock of nobody and takes it over.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                lock.unlink()
        os.close(descriptor)


def _take(lock: Path, job: str, progress: Progress, wait_s: float) -> int:
    """Put a file of our own, flocked and complete, under the lock's name; return its descriptor."""
    me = _myself(job)
    beside = lock.with_name(f".{lock.name}.{uuid.uuid4().hex}")
    descriptor = _write(beside, me)
    begun = time.monotonic()
    taken = False
    try:
        while True:
            try:
                os.link(beside, lock)
                taken = True
                return descriptor
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with contextlib.suppress(FileExistsError):
                    return _write(lock, me)
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                left = _left_behind(lock, me, time.monotonic() - begun, wait_s)
                if left is None:
                    time.sleep(POLL_S)
                    continue
                owner, old = left
                try:
                    # Whoever else judged the same file waits for its flock, and then finds it replaced.
                    beside.replace(lock)
                    taken = True
                finally:
                    os.close(old)
                progress.note(f"took over the lock of {owner}: it no longer runs")
                return descriptor
    finally:
        beside.unlink(missing_ok=True)
        if not taken:
            os.close(descriptor)


def _left_behind(lock: Path, me: _Owner, waited_s: float, wait_s: float) -> tuple[_Owner, int] | None:
    """Return the dead owner of a lock and a flocked descriptor of it; None to look again.

    Raises
    ------
    ResourceError
        If the owner lives, or may live.
    """
    where = lock.with_name(lock.name.removesuffix(SUFFIX))
    impatient = waited_s > PATIENCE_S
    old = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    keep = False
    try:
        free = _flock(old)
        if not os.path.samestat(os.fstat(old), lock.stat()):
            return None
        owner = _read(old)
        if owner is None:
            if free is False and not impatient:
                return None  # its owner is about to write it
            raise ResourceError(
                "is locked by a file that cannot be read", where, f"if nothing works on it, remove {lock}"
            )
        if owner.boot_id != me.boot_id and owner.host != me.host:
            raise ResourceError(
                f"is locked by {owner}, another machine, which cannot be asked from here",
                where,
                f"wait for it; if it no longer runs there, remove {lock}",
            )
        if owner.boot_id == me.boot_id and owner.is_alive():
            if owner.job == me.job and waited_s < wait_s:
                return None
            raise ResourceError(
                f"is being worked on by {owner}", where, "wait until it has finished, or stop it"
            )
        if free:
            keep = True
            return owner, old
        if free is False and not impatient:
            return None  # another process is just judging it
        raise ResourceError(
            f"is locked by {owner}, and whether that still runs cannot be told",
            where,
            f"if nothing works on it, remove {lock}",
        )
    finally:
        if not keep:
            os.close(old)


def _write(path: Path, owner: _Owner) -> int:
    """Make a new file, flocked, that says who owns it; return its descriptor."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o660)
    try:
        _flock(descriptor)
        os.write(descriptor, (json.dumps(asdict(owner)) + "\n").encode())
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _read(descriptor: int) -> _Owner | None:
    try:
        values = json.loads(os.pread(descriptor, 1 << 16, 0))
        pid, started = int(values["pid"]), int(values["started"])
        return _Owner(
            str(values["job"]),
            str(values["host"]),
            pid,
            str(values["boot_id"]),
            started,
            str(values["since"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _flock(descriptor: int) -> bool | None:
    """Try for the flock: True if it is ours, False if somebody has it, None if this disk knows none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _myself(job: str) -> _Owner:
    pid = os.getpid()
    return _Owner(
        job,
        socket.gethostname(),
        pid,
        boot_id(),
        _started(pid) or 0,
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    )


def boot_id() -> str:
    """Identify the present boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks (proc(5), stat, field 22); None if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
