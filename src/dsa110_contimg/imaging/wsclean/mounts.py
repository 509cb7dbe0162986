"""Folders of the host that a container sees, and paths from one side to the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dsa110_contimg.errors import PathOutsideMountError, ResourceError

__all__ = ["Mount", "convert_host_path_to_container", "inside_of", "outside_of", "parse_mounts"]


@dataclass(frozen=True)
class Mount:
    """A folder of the host that a container sees.

    Attributes
    ----------
    host : Path
        The folder.
    inside : PurePosixPath
        Where the container has it.
    read_only : bool
        Whether the container may only read it.
    """

    host: Path
    inside: PurePosixPath
    read_only: bool = False

    def option(self) -> str:
        """Value of `--mount`; unlike `-v` it refuses a folder that is not there."""
        fields = ["type=bind", f"src={self.host}", f"dst={self.inside}"] + ["readonly"] * self.read_only
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(fields)
        return text.getvalue()


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Read mounts from text: HOST, HOST:INSIDE or HOST:INSIDE:ro, separated by commas.

    Raises
    ------
    ResourceError
        If a path is not absolute or the form is another one.
    """
    mounts = []
    for word in (w.strip() for w in text.split(",") if w.strip()):
        host, _, rest = word.partition(":")
        inside, _, mode = (rest or f"/host{host}").partition(":")
        if not (host.startswith("/") and inside.startswith("/") and mode in ("", "ro", "rw")):
            raise ResourceError(f"{word!r} is no mount", "container_mounts", "write HOST or HOST:INSIDE[:ro]")
        mounts.append(Mount(Path(host), PurePosixPath(inside), mode == "ro"))
    return tuple(mounts)


def convert_host_path_to_container(
    host_path: Path | str,
    host_mount: Path | str = "/stage/dsa110-contimg",
    container_mount: str = "/data",
) -> str:
    """Path inside a container of a path on the host.

    Parameters
    ----------
    host_path : Path or str
        A path below `host_mount`, component by component, after symbolic links.
    host_mount : Path or str
        Folder of the host that is mounted.
    container_mount : str
        Where the container has it.

    Raises
    ------
    PathOutsideMountError
        If it lies elsewhere.
    """
    return inside_of([Mount(Path(host_mount), PurePosixPath(container_mount))], Path(host_path))


def inside_of(mounts: Sequence[Mount], path: Path) -> str:
    """Path inside a container of a path on the host, by the innermost mount.

    Raises
    ------
    PathOutsideMountError
        If no mount holds it.
    """
    real = path.resolve()
    within = [(m, m.host.resolve()) for m in mounts]
    fitting = [(m, host) for m, host in within if real.is_relative_to(host)]
    if not fitting:
        raise PathOutsideMountError(
            f"is outside of what the container sees ({', '.join(str(m.host) for m in mounts)})",
            path,
            "move it there, or mount its folder with --container-mounts",
        )
    mount, host = max(fitting, key=lambda pair: len(pair[1].parts))
    return str(mount.inside / real.relative_to(host))


def outside_of(mounts: Sequence[Mount], inside: str) -> Path:
    """Path on the host of a path inside a container; the same where no mount holds it."""
    path = PurePosixPath(inside)
    fitting = [m for m in mounts if path.is_relative_to(m.inside)]
    if not fitting:
        return Path(inside)
    mount = max(fitting, key=lambda m: len(m.inside.parts))
    return mount.host / path.relative_to(mount.inside)
