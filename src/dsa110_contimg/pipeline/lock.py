"""One Measurement Set has one owner at a time: a lock beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from dsa110_contimg.errors import ResourceError

__all__ = ["boot_id", "exclusive_lock", "measurement_set_lock"]

logger = logging.getLogger(__name__)

POLL_S = 0.5
#: An owner signs within this time, seconds.
UNSIGNED_S = 2.0


@contextlib.contextmanager
def measurement_set_lock(ms: Path, run_id: str, wait_s: float = 0.0) -> Iterator[None]:
    """Own a Measurement Set, or say who does.

    Parameters
    ----------
    ms : Path
        Measurement Set; the lock is the file ``.NAME.contimg-lock`` beside it.
    run_id : str
        The run. An owner of the same run, a worker given up for dead, is waited for.
    wait_s : float
        For how long at the most, seconds.

    Raises
    ------
    ResourceError
        If another has it, or no lock can be made.
    """
    with exclusive_lock(ms.with_name(f".{ms.name}.contimg-lock"), run_id, wait_s, what=ms):
        yield


@contextlib.contextmanager
def exclusive_lock(path: Path, run_id: str = "", wait_s: float = 0.0, *, what: object = "") -> Iterator[None]:
    """Hold a lock file, with host, process and boot in it.

    The kernel's lock on the file counts, not the file: it goes with the process
    however that ends, so that there are no stale ones. A file left by a killed
    process is taken over with a message.
    """
    descriptor = _acquire(path, run_id, wait_s, what or path)
    try:
        before = _owner(descriptor)
        if before:
            logger.warning("%s: taking over from %s, which has gone", what or path, _describe(before))
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id(), "run_id": run_id}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def boot_id() -> str:
    """Identify the present boot of this machine."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


def _acquire(path: Path, run_id: str, wait_s: float, what: object) -> int:
    deadline, unsigned = time.monotonic() + wait_s, time.monotonic() + UNSIGNED_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ResourceError(
                f"no lock can be made ({error.strerror})", path, "make the folder writable"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The owner before may have removed the file between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
            os.close(descriptor)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            # An owner that has only just got the lock has not signed yet.
            other = owner and owner.get("run_id") != run_id
            if other or time.monotonic() > (deadline if owner else max(deadline, unsigned)):
                raise ResourceError(
                    f"is in use by {_describe(owner)}", what, "wait for it or end it"
                ) from None
            time.sleep(POLL_S)
        except OSError as error:
            os.close(descriptor)
            raise ResourceError(
                f"cannot be locked ({error.strerror})", path, "use a disk that knows locks"
            ) from None


def _owner(descriptor: int) -> dict[str, object]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, object]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
