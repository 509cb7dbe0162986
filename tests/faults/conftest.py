"""Engines, a Measurement Set in use, and a file system whose server can stop answering."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from dsa110_contimg.errors import ContimgError
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer, stop_wsclean_containers
from dsa110_contimg.imaging.wsclean.mounts import Mount
from tests.imaging.wsclean.conftest import engine, engines, transit
from tests.imaging.wsclean.support import FIGURES, containers, processes, state
from tests.needs import unavailable

__all__ = ["engine", "engines", "transit"]


@pytest.fixture(autouse=True)
def none_shared() -> Iterator[None]:
    """No container of one test lives on into the next, which counts them."""
    yield
    stop_wsclean_containers()


@pytest.fixture
def ms(transit: Path) -> Path:
    """A Measurement Set that faults must leave as it is."""
    return transit / "f1.ms"


@pytest.fixture
def container(engine: str, ms: Path, tmp_path: Path) -> Iterator[WSCleanContainer]:
    """A container that sees the data, read-write, and a folder of the test."""
    mounts = [Mount(ms.parent, PurePosixPath("/data")), Mount(tmp_path, PurePosixPath("/out"))]
    with WSCleanContainer(mounts=mounts, engine=engine) as made:
        yield made
    assert made.container_name not in containers(engine)


@pytest.fixture
def long_call() -> list[str]:
    """Arguments of a WSClean that works on for a minute and more."""
    options = "-name /out/w -size 2048 2048 -scale 3asec -use-wgridder -j 1 -reorder -temp-dir /out -pol I"
    depth = "-mgain 0.3 -niter 1000000 -auto-threshold 0.5 -no-update-model-required -data-column DATA"
    return [*options.split(), *depth.split(), "/data/f1.ms"]


@pytest.fixture
def fault(request: pytest.FixtureRequest, ms: Path) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Record what a fault reported, in how many seconds, and that the Measurement Set is intact."""
    label = request.node.name.removeprefix("test_").replace("_", " ")

    @contextlib.contextmanager
    def recorded(kind: type[ContimgError] | None, match: str = "", within: float = 120.0) -> Iterator[None]:
        before, started, said = state(ms), time.monotonic(), "goes on"
        if kind is None:
            yield
        else:
            with pytest.raises(kind, match=match) as caught:
                yield
            said = f"{type(caught.value).__name__}: {caught.value}"
        seconds = time.monotonic() - started
        assert seconds < within
        assert state(ms) == before
        FIGURES.append(f"{label} | {said} | {seconds:.1f} s | MS intact")

    return recorded


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> bool:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def running(word: str) -> list[str]:
    """Processes of WSClean itself, clients and this test apart."""
    return [line for line in processes(word) if line.startswith("wsclean ")]


class HungDisk:
    """An ext4 file system on a loop device whose file lies on a FUSE file system."""

    def __init__(self, folder: Path) -> None:
        self.below, self.fuse, self.mounted = (folder / n for n in ("below", "fuse", "mounted"))
        for made in (self.below, self.fuse, self.mounted):
            made.mkdir()
        with (self.below / "disk").open("wb") as file:
            file.truncate(64 << 20)
        self.server = subprocess.Popen(["bindfs", "-f", str(self.below), str(self.fuse)])
        assert wait_until(self.fuse.is_mount)
        self._run("mkfs.ext4", "-q", "-F", str(self.fuse / "disk"))
        self.device = self._run("losetup", "--find", "--show", str(self.fuse / "disk")).strip()

    @staticmethod
    def _run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            unavailable(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def mount(self) -> Path:
        self._run("mount", self.device, str(self.mounted))
        return self.mounted

    def hang(self) -> None:
        self.server.send_signal(signal.SIGSTOP)

    def answer(self) -> None:
        self.server.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.answer()
        # Unmounting flushes what had been waiting.
        if self.mounted.is_mount():
            wait_until(lambda: subprocess.run(["umount", str(self.mounted)], check=False).returncode == 0, 30)
        subprocess.run(["losetup", "--detach", self.device], check=False)
        wait_until(lambda: subprocess.run(["umount", str(self.fuse)], check=False).returncode == 0, 10)
        self.server.wait(10)


@pytest.fixture
def hung_disk(engines: Path, tmp_path: Path) -> Iterator[HungDisk]:
    """A disk that can stop answering, and answers again at the end."""
    disk = HungDisk(tmp_path)
    try:
        yield disk
    finally:
        disk.remove()
