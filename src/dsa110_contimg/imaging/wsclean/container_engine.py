"""Docker and podman through their command line, whose output and status are not believed alone.

Containers carry labels that say which process of which host they belong to, so that those whose owner is gone
can be told and removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dsa110_contimg.errors import ContainerEngineError, ContainerError
from dsa110_contimg.imaging.wsclean.processes import Finished, run_program
from dsa110_contimg.visibilities.lock import boot_id

__all__ = ["Engine", "Leftover", "find_engine", "owner_labels", "reap_leftovers"]

#: The engine answers a question within this many seconds, or not at all.
ANSWER_S = 20.0
LABEL = "dsa110_contimg"


@dataclass(frozen=True)
class Engine:
    """One container engine.

    Attributes
    ----------
    name : {"docker", "podman"}
        Which.
    program : str
        Path of its client.
    """

    name: Literal["docker", "podman"]
    program: str

    def call(self, *arguments: str, timeout_s: float = ANSWER_S) -> Finished:
        """Run the client with arguments; the result may be a failure.

        Raises
        ------
        ContainerEngineError
            If it does not answer in time or is not there.
        """
        try:
            done = run_program([self.program, *arguments], timeout_s)
        except FileNotFoundError:
            raise ContainerEngineError("is not installed", self.program, _INSTALL) from None
        if done.returncode is None:
            raise ContainerEngineError(
                f"does not answer ({arguments[0]}: {timeout_s:g} s)",
                self.name,
                "see whether its daemon is stuck",
            )
        return done

    def version(self) -> str:
        """Version of the engine.

        Raises
        ------
        ContainerEngineError
            If it does not answer.
        """
        field = "{{.Server.Version}}" if self.name == "docker" else "{{.Client.Version}}"
        done = self.call("version", "--format", field)
        if done.returncode or not done.stdout.strip():
            remedy = "start it (systemctl start docker), or set DOCKER_HOST" if self.name == "docker" else ""
            raise ContainerEngineError(f"does not answer: {done.last_words}", self.name, remedy)
        return done.stdout.strip()

    def image_id(self, image: str) -> str | None:
        """Look up the identifier of an image; None if it is not there."""
        done = self.call("image", "inspect", "--format", "{{.Id}}", image)
        return done.stdout.strip() if done.returncode == 0 else None

    def is_there(self, container: str) -> bool:
        """Whether a container exists, in whatever state."""
        return self.call("container", "inspect", "--format", "{{.Id}}", container).returncode == 0

    def remove(self, container: str, timeout_s: float = ANSWER_S) -> None:
        """Kill and remove a container.

        Raises
        ------
        ContainerError
            If it is there still.
        """
        # `rm --force` of podman first asks, for ten seconds.
        self.call("kill", container, timeout_s=timeout_s)
        done = self.call("rm", "--force", container, timeout_s=timeout_s)
        if self.is_there(container):
            raise ContainerError(
                f"cannot be removed: {done.last_words}",
                f"container {container}",
                f"{self.name} rm -f {container}",
            )

    def run_options(self) -> list[str]:
        """Options that `run` needs with this engine, to confine and to work at all."""
        # WSClean has two threads for each that `-j` gives it, and two more: room for eight calls at once.
        limit = f"--pids-limit={512 + 16 * (os.cpu_count() or 1)}"
        if self.name == "docker":
            return [limit]
        # podman asks for higher limits than a host may allow, and is refused then; it takes no more processes
        # than there are numbers for.
        files, processes = (
            resource.getrlimit(what)[1] for what in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
        )
        numbers = int(Path("/proc/sys/kernel/pid_max").read_text("ascii"))
        processes = min(processes, numbers) if processes > 0 else numbers
        options = [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={processes}:{processes}"]
        # Unasked podman makes /run and /var/tmp writable beside a read-only root.
        options.append("--read-only-tmpfs=false")
        # Without root podman sets a limit by itself, of 2048, where the user's cgroups have one, and fails to
        # start where they have none and it is asked to.
        return [*options, limit if os.getuid() == 0 else "--userns=keep-id"]

    def leftovers(self) -> list[Leftover]:
        """All containers of this package that the engine has."""
        listed = self.call("ps", "--all", "--quiet", "--filter", f"label={LABEL}.pid")
        if listed.returncode:
            raise ContainerEngineError(f"cannot list containers: {listed.last_words}", self.name)
        names = listed.stdout.split()
        if not names:
            return []
        # One that ends meanwhile makes this fail, with the others on stdout all the same.
        described = self.call("container", "inspect", *names).stdout
        return [_leftover(entry) for entry in json.loads(described or "[]")]


@dataclass(frozen=True)
class Leftover:
    """A container of this package.

    Attributes
    ----------
    name, state, image : str
        Of the container.
    pid : int
        Process that it belongs to.
    owner : {"alive", "gone", "elsewhere"}
        Whether that process lives; "elsewhere" if that cannot be told from here.
    """

    name: str
    state: str
    image: str
    pid: int
    owner: Literal["alive", "gone", "elsewhere"]


_INSTALL = "apt-get install docker.io, or podman"


def find_engine(choice: str = "auto") -> Engine:
    """Find a container engine that answers.

    Parameters
    ----------
    choice : {"auto", "docker", "podman"}
        Which; "auto" takes Docker if its daemon answers, else podman.

    Raises
    ------
    ContainerEngineError
        If there is none; the message says what each lacks.
    """
    names: tuple[Literal["docker", "podman"], ...] = ("docker", "podman")
    lacking = []
    for name in names:
        if choice not in ("auto", name):
            continue
        program = shutil.which(name)
        if program is None:
            lacking.append(f"{name} is not installed")
            continue
        engine = Engine(name, program)
        try:
            engine.version()
        except ContainerEngineError as error:
            lacking.append(f"{name} {error.what}")
            continue
        return engine
    raise ContainerEngineError("; ".join(lacking), "container engine", f"start it or {_INSTALL}")


def owner_labels() -> dict[str, str]:
    """Labels that tell this process from every other one, on this host and since its boot."""
    return {
        f"{LABEL}.{key}": value
        for key, value in {
            "host": platform.node(),
            "boot": boot_id(),
            "pidns": _pid_namespace(),
            "pid": str(os.getpid()),
            "start": _start_time(os.getpid()) or "",
        }.items()
    }


def reap_leftovers(engine: Engine) -> list[tuple[Leftover, str]]:
    """Remove containers whose owner is gone from this host; each with what went wrong, or ""."""
    done = []
    for leftover in engine.leftovers():
        if leftover.owner == "gone":
            problem = ""
            try:
                engine.remove(leftover.name)
            except ContainerError as error:
                problem = str(error)
            done.append((leftover, problem))
    return done


def _leftover(entry: dict[str, Any]) -> Leftover:
    labels = entry["Config"]["Labels"]
    get = {key: labels.get(f"{LABEL}.{key}", "") for key in ("host", "boot", "pidns", "pid", "start")}
    pid = int(get["pid"]) if get["pid"].isdecimal() else 0
    owner: Literal["alive", "gone", "elsewhere"]
    if get["host"] != platform.node():
        owner = "elsewhere"
    elif get["boot"] != boot_id():
        owner = "gone"
    elif get["pidns"] != _pid_namespace():
        owner = "elsewhere"
    else:
        # The start time tells a process from a later one of the same number.
        owner = "alive" if get["start"] and _start_time(pid) == get["start"] else "gone"
    image = entry["Config"].get("Image", "")
    return Leftover(entry["Name"].lstrip("/"), entry["State"]["Status"], image, pid, owner)


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _start_time(pid: int) -> str | None:
    """Start of a process in clock ticks since boot (proc(5), field 22); None if it is gone or a zombie."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None
