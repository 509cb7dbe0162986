"""WSClean, on the host or in a container, behind one runner that knows what the binary can do.

The Measurement Set is only read: WSClean works on reordered copies of the visibilities in a folder of its
own, never in MODEL_DATA, and it is checked afterwards that no file of the Measurement Set has changed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dsa110_contimg.config import BackendConfig
from dsa110_contimg.errors import DeadlineError, WSCleanError
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer, get_wsclean_container
from dsa110_contimg.imaging.wsclean.mounts import Mount, parse_mounts
from dsa110_contimg.imaging.wsclean.processes import run_program, wsclean_failure

__all__ = ["ContainerWSClean", "HostWSClean", "WSClean", "container_wsclean", "host_wsclean"]

log = logging.getLogger("dsa110_contimg.imaging")

DETECT_S = 60.0
#: Part of the peak that one major cycle takes, as in the embedded engine.
MAJOR_GAIN = 0.8


class WSClean(Protocol):
    """A WSClean that can be called."""

    @property
    def name(self) -> str:
        """Which one, for messages and FITS headers."""
        ...

    def path(self, host_path: Path) -> str:
        """Path of a file as WSClean sees it."""
        ...

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it to its end, and give what it printed.

        Parameters
        ----------
        arguments : sequence of str
            Its arguments; paths as `path` gives them.
        timeout_s : float
            Deadline in seconds.
        outputs : sequence of Path
            Files that it must have written.

        Raises
        ------
        WSCleanError
            If it fails or files are lacking.
        DeadlineError
            If the deadline came.
        """
        ...

    def usage(self) -> str:
        """Give what it prints about its version and options."""
        ...


@dataclass(frozen=True)
class HostWSClean:
    """The program on this machine; it ends when the calling thread does.

    Parameters
    ----------
    program : str
        Its path.
    """

    program: str

    @property
    def name(self) -> str:
        """Path of the program."""
        return self.program

    def path(self, host_path: Path) -> str:
        """Give the absolute path itself."""
        return str(host_path.absolute())

    def usage(self) -> str:
        """Version and options."""
        return run_program([self.program], DETECT_S, tethered=True).stdout

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it; see `WSClean.call`."""
        for output in outputs:
            output.unlink(missing_ok=True)
        try:
            done = run_program([self.program, *arguments], timeout_s, tethered=True)
        except OSError as error:
            raise WSCleanError(
                f"cannot be run ({error.strerror or 'no such program'})", self.program
            ) from None
        if done.returncode is None:
            fate = "cannot be killed: the file system does not answer" if done.stuck else "was ended"
            raise DeadlineError(
                f"ran past its deadline of {timeout_s:g} s and {fate}",
                self.program,
                "give it longer with --timeout-s",
            )
        if done.returncode:
            raise wsclean_failure(done, self.program)
        lacking = [output.name for output in outputs if not output.is_file() or not output.stat().st_size]
        if lacking:
            raise WSCleanError(f"ended without {', '.join(lacking)}: {done.last_words}", self.program)
        return done.stdout


@dataclass(frozen=True)
class ContainerWSClean:
    """WSClean in a long-running container.

    Parameters
    ----------
    container : WSCleanContainer
        Started when first used.
    """

    container: WSCleanContainer

    @property
    def name(self) -> str:
        """Image of the container."""
        return f"{self.container.image} in {self.container.engine.name}"

    def path(self, host_path: Path) -> str:
        """Path inside the container."""
        return self.container.path(host_path)

    def usage(self) -> str:
        """Version and options."""
        return self.container.exec(["wsclean"], DETECT_S).stdout

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it; see `WSClean.call`."""
        done = self.container.exec(["wsclean", *arguments], timeout_s, folder="/tmp", outputs=outputs)
        if done.returncode:
            self.container.require_readable(arguments)
            raise wsclean_failure(done, self.name)
        return done.stdout


def host_wsclean(config: BackendConfig) -> HostWSClean:
    """Find WSClean on this machine.

    Raises
    ------
    WSCleanError
        If there is no program.
    """
    program = shutil.which(str(config.wsclean or "wsclean"))
    if program is None:
        raise WSCleanError(
            "no such program", config.wsclean or "wsclean", "apt-get install wsclean, or set --wsclean"
        )
    return HostWSClean(program)


def container_wsclean(config: BackendConfig, ms: Path, products: Path) -> ContainerWSClean:
    """Give WSClean in a long-running container.

    Parameters
    ----------
    config : BackendConfig
        Engine, image and mounts.
    ms : Path
        Measurement Set; its folder is mounted read-only, unless the products go there.
    products : Path
        Folder of the products, which must be there.

    Raises
    ------
    ContainerError
        If the container does not start.
    """
    mounts = parse_mounts(config.container_mounts) if config.container_mounts else _mounts_for(ms, products)
    return ContainerWSClean(
        get_wsclean_container(image=config.container_image, mounts=mounts, engine=config.container_engine)
    )


def _mounts_for(ms: Path, products: Path) -> tuple[Mount, ...]:
    data, out = ms.resolve().parent, products.resolve()
    writable = parse_mounts(str(out))
    # Reading is all that imaging needs; where the products go beside the data there is one folder for both.
    return writable if data.is_relative_to(out) else parse_mounts(f"{data}:/host{data}:ro") + writable
