"""WSClean in a container that is started once, mounts once, and cannot hang its user.

A container for each call hung in the kernel when its volume was unmounted at the end. Here the unmounting
moves to the one end of the container, and that end has a deadline too. The rules, each from a fault seen
(docs/troubleshooting/container-hangs.md):

* The container lives as long as a pipe from this process: whatever kills the process ends it.
* Mounts are probed, in a child that may be left behind, before the container starts and before each call.
* Each call has a deadline inside the container, and a later one outside of it.
* An exit status proves nothing: a call has succeeded when its last line is there and its files are.

What runs inside may do no more than imaging needs: no network, no capability and no way to gain one, nothing
to write but the products and a small /tmp.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import select
import shlex
import subprocess
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dsa110_contimg.config import DEFAULT_IMAGE
from dsa110_contimg.errors import (
    ContainerEngineError,
    ContainerError,
    ContainerImageError,
    ContimgError,
    DeadlineError,
    DeadMountError,
    ResourceError,
    WSCleanError,
)
from dsa110_contimg.imaging.wsclean.container_engine import Engine, find_engine, owner_labels, reap_leftovers
from dsa110_contimg.imaging.wsclean.mounts import Mount, inside_of, outside_of
from dsa110_contimg.imaging.wsclean.processes import (
    GRACE_S,
    Finished,
    end,
    probe_folder,
    run_program,
    wait_for,
    wsclean_failure,
)

__all__ = ["WSCleanContainer", "get_wsclean_container", "stop_wsclean_containers"]

log = logging.getLogger("dsa110_contimg.imaging")

START_S = 60.0
STOP_S = 20.0
#: The client outside waits this much longer than the deadline inside, which needs GRACE_S to kill.
OUTSIDE_S = GRACE_S + 5.0
#: `timeout` of coreutils: its own limit has come; killed, by itself or by somebody else.
TIMED_OUT, KILLED = 124, 137
DEFAULT_TIMEOUT_S = 7200.0
#: The least that WSClean works with. Its temporary files go to the products (-temp-dir), none to /tmp.
CONFINEMENT = (
    "--network=none",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
)


class _ClientLost(Exception):
    """The client of a call ended before what it was to run."""


class WSCleanContainer:
    """A long-running container in which WSClean is called.

    Parameters
    ----------
    container_name : str, optional
        Name; chosen, and unique, by default.
    image : str
        Image with WSClean and coreutils in it.
    mount_path : Path or str
        Folder of the host to mount, where `mounts` is not given.
    container_mount : str
        Where the container has it.
    mounts : sequence of Mount, optional
        Several folders instead.
    engine : {"auto", "docker", "podman"}
        Container engine.
    user : str, optional
        UID:GID that programs run as and that files belong to; the caller's by default.

    Notes
    -----
    A context manager. Safe to use from several threads: calls run side by side. A forked child does not share
    its parent's container: it starts its own at the first call.
    """

    def __init__(
        self,
        container_name: str | None = None,
        image: str = DEFAULT_IMAGE,
        mount_path: Path | str = "/stage/dsa110-contimg",
        container_mount: str = "/data",
        *,
        mounts: Sequence[Mount] | None = None,
        engine: Literal["auto", "docker", "podman"] = "auto",
        user: str | None = None,
    ) -> None:
        self.image = image
        self.mounts = tuple(mounts or [Mount(Path(mount_path), PurePosixPath(container_mount))])
        self.user = user or f"{os.getuid()}:{os.getgid()}"
        self._choice = engine
        self._engine: Engine | None = None
        self._wanted_name = container_name
        self._forget()
        _register(self)

    def _forget(self) -> None:
        """Start from nothing, as a new object or in a forked child."""
        self.container_name = self._wanted_name or f"contimg-wsclean-{os.getpid()}-{secrets.token_hex(3)}"
        self._lock = threading.RLock()
        self._client: subprocess.Popen[bytes] | None = None
        self._generation = 0
        self._stopped = False

    def __enter__(self) -> WSCleanContainer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            self.stop()
        except ContimgError as problem:
            if error is None:
                raise
            log.warning("%s", problem)

    @property
    def engine(self) -> Engine:
        """The engine, found at the first use.

        Raises
        ------
        ContainerEngineError
            If there is none.
        """
        if self._engine is None:
            self._engine = find_engine(self._choice)
        return self._engine

    def is_running(self) -> bool:
        """Whether the container runs."""
        return self._client is not None and self._client.poll() is None

    def path(self, host_path: Path | str) -> str:
        """Path inside the container of a path on the host.

        Raises
        ------
        PathOutsideMountError
            If the container does not see it.
        """
        return inside_of(self.mounts, Path(host_path))

    def require_mounts(self) -> None:
        """Raise DeadMountError if a mounted file system does not answer."""
        for mount in self.mounts:
            probe_folder(mount.host, writable=not mount.read_only)

    def start(self) -> bool:
        """Start the container, if it does not run; True when it does.

        Raises
        ------
        DeadMountError, ResourceError
            If a folder to mount does not answer or is not there.
        ContainerEngineError, ContainerImageError, ContainerError
            If there is no engine or image, or the container does not start.
        """
        with self._lock:
            if not self.is_running():
                self._start()
            self._stopped = False
            return True

    def _start(self) -> None:
        self.require_mounts()
        if self._client is not None:
            _close_pipes(self._client)
            self._client = None
        if self._generation and not self._stopped:
            log.warning(
                "container %s has gone; started again",
                self.container_name,
                extra={"event": "container_restart"},
            )
        engine = self.engine
        for leftover, problem in reap_leftovers(engine):
            log.warning(
                "container %s of process %d, gone: %s", leftover.name, leftover.pid, problem or "removed"
            )
        # A container of a killed daemon may still have the name.
        if self._generation and engine.is_there(self.container_name):
            engine.remove(self.container_name)
        ready = secrets.token_hex(8)
        # The shell collects orphaned processes and ends, and the container with it, when the pipe is closed.
        script = f"echo {ready}; cat >/dev/null; exit 0"
        command = [engine.program, "run", "--rm", "--interactive", "--pull=never", *CONFINEMENT]
        command += [
            f"--name={self.container_name}",
            f"--user={self.user}",
            "--env=HOME=/tmp",
            *engine.run_options(),
        ]
        for key, value in owner_labels().items():
            command.append(f"--label={key}={value}")
        command += [f"--mount={mount.option()}" for mount in self.mounts]
        command += ["--entrypoint=sh", self.image, "-c", script]
        messages = os.memfd_create("messages")
        try:
            # Of a session of its own: the terminal's Ctrl-C is for this process, which then decides.
            client = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,
            )
            try:
                seen = _read_until(client, ready.encode(), START_S)
            except BaseException:
                self._discard(client)
                raise
            if not seen:
                timed_out = client.poll() is None
                self._discard(client)
                said = os.pread(messages, os.fstat(messages).st_size, 0).decode(errors="replace")
                self._explain_start(timed_out, said)
        finally:
            os.close(messages)
        self._client = client
        self._generation += 1
        log.info("container %s of %s started with %s", self.container_name, self.image, engine.name)

    def _discard(self, client: subprocess.Popen[bytes]) -> None:
        _close_pipes(client)
        end(client, 1.0)
        with contextlib.suppress(ContimgError):
            self.engine.call("rm", "--force", self.container_name)

    def _explain_start(self, timed_out: bool, said: str) -> None:
        engine, where = self.engine, f"container {self.container_name}"
        engine.version()
        self.require_mounts()
        if engine.image_id(self.image) is None:
            raise ContainerImageError(
                f"no such image in {engine.name}", self.image, "contimg container build, or --container-image"
            )
        lines = [line for line in said.splitlines() if line.strip() and "--help" not in line]
        reason = lines[-1] if lines else "it said nothing"
        if timed_out:
            raise ContainerError(f"not ready after {START_S:g} s: {reason}", where, "see contimg doctor")
        raise ContainerError(f"did not start: {reason}", where, "see contimg doctor")

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End the container and wait, not for ever, until it is gone.

        Raises
        ------
        ContainerError
            If it is still there; it has been given up then, and the next `start` makes another one.
        """
        with self._lock:
            client, self._client, self._stopped = self._client, None, True
            if client is None:
                return
            name = self.container_name
            self.container_name = self._wanted_name or f"{name.rpartition('-')[0]}-{secrets.token_hex(3)}"
            _close_pipes(client)
            if wait_for(client, timeout_s / 2):
                if not self.engine.is_there(name):
                    return
            else:
                end(client, 0.1)
            try:
                self.engine.remove(name, timeout_s / 2)
            except ContainerError as error:
                self._blame_mounts(f"container {name} could not be stopped in {timeout_s:g} s")
                raise ContainerError(
                    f"could not be stopped in {timeout_s:g} s ({error.what})",
                    f"container {name}",
                    f"later: {self.engine.name} rm -f {name}",
                ) from error

    def exec(
        self,
        cmd: Sequence[str],
        timeout: float | None = None,
        *,
        folder: str = "/",
        outputs: Sequence[Path | str] = (),
    ) -> Finished:
        """Run a program inside, and restart the container once if it has gone.

        Parameters
        ----------
        cmd : sequence of str
            Program and arguments; paths are those inside.
        timeout : float, optional
            Deadline in seconds, two hours by default. The program is ended then.
        folder : str
            Folder inside to run it in.
        outputs : sequence of Path or str
            Files, by their paths on the host, that it must have written. Old ones are removed first.

        Returns
        -------
        Finished
            With the program's own exit status, which may be a failure.

        Raises
        ------
        DeadMountError
            If a mounted file system does not answer, before or during the call.
        DeadlineError
            If the deadline came.
        WSCleanError
            If the program ended well without its files.
        ContainerEngineError, ContainerError
            If engine or container fail.
        """
        for attempt in range(2):
            self.require_mounts()
            with self._lock:
                if self._stopped:
                    raise ContainerError(
                        "has been stopped", f"container {self.container_name}", "start it again"
                    )
                if not self.is_running():
                    self._start()
                generation = self._generation
            try:
                return self._call(cmd, timeout or DEFAULT_TIMEOUT_S, folder, outputs)
            except _ClientLost as lost:
                self._after_loss(str(lost), generation, last=attempt == 1)
        raise AssertionError("unreachable")

    def wsclean(
        self,
        args: Sequence[str],
        timeout: float | None = None,
        *,
        folder: str = "/tmp",
        outputs: Sequence[Path | str] = (),
    ) -> Finished:
        """Run WSClean inside; see `exec`.

        Raises
        ------
        WSCleanError
            If it fails.
        ResourceError
            If it fails and may not read what it was given.
        """
        done = self.exec(["wsclean", *args], timeout, folder=folder, outputs=outputs)
        if done.returncode:
            self.require_readable(args)
            raise wsclean_failure(done, f"wsclean in container {self.container_name}")
        return done

    def require_readable(self, args: Sequence[str]) -> None:
        """Raise ResourceError if a path among a program's arguments is closed to it, or what lies below.

        Without capabilities the rights of files hold for root too, and WSClean says of a closed table that it
        does not exist.
        """
        paths = [word for word in args if word.startswith("/")]
        if not paths:
            return
        found = self.exec(["find", *paths, "!", "-readable", "-print", "-quit"])
        closed = found.stdout.splitlines() or re.findall(
            r"^find: .(/.*).: Permission denied$", found.stderr, re.M
        )
        if closed:
            raise ResourceError(
                f"is closed to user {self.user} of the container, where root has no right over others' files",
                outside_of(self.mounts, closed[0]),
                "run as its owner, or chmod -R o+rX",
            )

    def _call(
        self, cmd: Sequence[str], limit_s: float, folder: str, outputs: Sequence[Path | str]
    ) -> Finished:
        token = secrets.token_hex(8)
        files = [self.path(output) for output in outputs]
        listed = shlex.join(files)
        removing = f"rm -f -- {listed} && " if files else ""
        work = f"cd -- {shlex.quote(folder)} && {removing}exec {shlex.join(cmd)}"
        # The deadline covers `cd` too, which hangs on a dead mount; so would `exec --workdir`.
        script = f"timeout -k {GRACE_S:g} {limit_s:.3f} sh -c {shlex.quote(work)}; s=$?\n"
        if files:
            script += f'for f in {listed}; do test -s "$f" || echo "{token} lacks $f"; done\n'
        script += f"echo; echo {token} $s"
        engine, name = self.engine, self.container_name
        command = [engine.program, "exec", f"--env=CONTIMG_CALL={token}", name, "sh", "-c", script]
        try:
            done = run_program(command, limit_s + OUTSIDE_S, grace_s=1.0)
        except BaseException:
            self._end_call(token)
            raise
        body, lacking, status = _split(done.stdout, token)
        where = f"{cmd[0]} in container {name}"
        if status is None:
            ended = self._end_call(token)
            if done.returncode is not None:
                raise _ClientLost(f"status {done.returncode}, {'' if ended else 'not '}stopped inside")
            self._blame_mounts(f"{where} did not end in {limit_s + OUTSIDE_S:.0f} s")
            what = f"ran past its deadline of {limit_s:g} s and was {'ended' if ended else 'left behind'}"
            raise DeadlineError(what, where, "give it longer with --timeout-s")
        done = Finished(status, body, done.stderr, done.seconds)
        if status in (TIMED_OUT, KILLED) and done.seconds >= limit_s:
            self._blame_mounts(f"{where} did not end in {limit_s:g} s")
            raise DeadlineError(
                f"ran past its deadline of {limit_s:g} s and was ended",
                where,
                "give it longer with --timeout-s",
            )
        if status == KILLED:
            if not self._alive():
                raise _ClientLost("killed with its container")
            raise ContainerError(
                "was killed from outside, or for want of memory", where, "see dmesg; lower --memory-gb"
            )
        if status == 0 and lacking:
            raise WSCleanError(
                f"ended without {', '.join(Path(f).name for f in lacking)}: {done.last_words}", where
            )
        return done

    def _alive(self) -> bool:
        """Whether the container runs; its end takes a moment to reach the client here."""
        client = self._client
        return client is not None and not wait_for(client, 1.0)

    def _end_call(self, token: str) -> bool:
        """Kill what a lost call left running inside; True if it is gone."""
        search = f"grep -lsz '^CONTIMG_CALL={token}$' /proc/[0-9]*/environ | cut -d/ -f3 | grep -vx $$"
        script = f'p=$({search}); kill -9 $p 2>/dev/null; sleep 0.2; test -z "$({search})"'
        try:
            # Only the same user may look into the environment.
            done = self.engine.call("exec", self.container_name, "sh", "-c", script)
        except ContainerEngineError:
            return False
        return done.returncode == 0 or not self.is_running()

    def _after_loss(self, reason: str, generation: int, last: bool) -> None:
        """After a call without an end: raise what is wrong, or return if it may be tried again."""
        where = f"container {self.container_name}"
        gone = not self._alive()
        self.engine.version()
        self.require_mounts()
        if not gone:
            raise ContainerError(f"the client of a call was ended before it ({reason})", where, "try again")
        if last:
            raise ContainerError(
                f"ended twice during a call: {reason}", where, "see dmesg; lower --memory-gb"
            )
        with self._lock:
            if self._generation == generation and self._client is not None:
                _close_pipes(self._client)
                log.warning("%s ended during a call (%s)", where, reason)

    def _blame_mounts(self, what: str) -> None:
        """Raise DeadMountError if a mount is dead, and say what it did."""
        try:
            self.require_mounts()
        except DeadMountError as error:
            raise DeadMountError(f"{error.what}; {what}", error.where, error.remedy) from None
        except ResourceError as error:
            log.warning("%s; %s", what, error)


def _split(stdout: str, token: str) -> tuple[str, list[str], int | None]:
    """Program's output, files that it lacks, and its exit status, None without the last line."""
    head, mark, tail = stdout.rpartition(f"\n{token} ")
    if not mark or not tail.strip().isdecimal():
        return stdout, [], None
    lines = head.splitlines()
    lacking = [line.removeprefix(f"{token} lacks ") for line in lines if line.startswith(f"{token} lacks ")]
    body = "\n".join(line for line in lines if not line.startswith(f"{token} lacks "))
    return body, lacking, int(tail)


def _read_until(client: subprocess.Popen[bytes], wanted: bytes, timeout_s: float) -> bool:
    """Read a client's output until it has said something; False if it ends, or the time does, before."""
    assert client.stdout is not None
    seen, until = b"", time.monotonic() + timeout_s
    while wanted not in seen:
        left = until - time.monotonic()
        if left <= 0 or not select.select([client.stdout], [], [], left)[0]:
            return False
        chunk = os.read(client.stdout.fileno(), 4096)
        if not chunk:
            wait_for(client, 5.0)
            return False
        seen += chunk
    return True


def _close_pipes(client: subprocess.Popen[bytes]) -> None:
    for pipe in (client.stdin, client.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


# Sharing, forking, ending

_SHARED: dict[tuple[tuple[str, Any], ...], WSCleanContainer] = {}
_ALL: weakref.WeakSet[WSCleanContainer] = weakref.WeakSet()
_LOCK = threading.RLock()
_registered = False


def get_wsclean_container(force_new: bool = False, **options: Any) -> WSCleanContainer:
    """Give the container that this process shares for a configuration, running.

    Parameters
    ----------
    force_new : bool
        Stop the present one first.
    **options
        As `WSCleanContainer` takes them.
    """
    with _LOCK:
        key = tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items()))
        container = _SHARED.get(key)
        if container is None:
            container = _SHARED[key] = WSCleanContainer(**options)
    if force_new:
        container.stop()
    container.start()
    return container


def _register(container: WSCleanContainer) -> None:
    global _registered
    with _LOCK:
        _ALL.add(container)
        if not _registered:
            atexit.register(stop_wsclean_containers)
            os.register_at_fork(after_in_child=_forget_all)
            _registered = True


def stop_wsclean_containers() -> None:
    """Stop all containers of this process, as happens at its end by itself.

    One that does not stop is told; its pipe ends it as soon as it can end.
    """
    for container in list(_ALL):
        try:
            container.stop()
        except ContimgError as error:
            log.error("%s", error)


def _forget_all() -> None:
    """Let go, in a forked child, of the parent's containers: a pipe held here would keep them alive."""
    global _LOCK
    _LOCK = threading.RLock()
    _SHARED.clear()
    for container in list(_ALL):
        if container._client is not None:
            _close_pipes(container._client)
            container._client.returncode = 0  # not this process's child
        container._forget()
