"""A Docker daemon and a podman storage of the tests' own, with the WSClean image in both."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.imaging.wsclean.container import _SHARED
from dsa110_contimg.imaging.wsclean.container_engine import find_engine
from dsa110_contimg.imaging.wsclean.container_image import build_image
from dsa110_contimg.imaging.wsclean.runner import HostWSClean
from dsa110_contimg.simulate import simulate
from tests.imaging.wsclean.support import script
from tests.needs import program, unavailable
from tests.pipeline.conftest import tiny

__all__ = ["tiny"]

PACKAGES = Path(__file__).resolve().parents[3] / "scripts" / "test_packages.sh"
PERFECT = {"phase_rms": 0, "phase_drift": 0, "amplitude_rms": 0}


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Docker and podman as the environment names them, and the folder that they live in."""
    if os.getuid() != 0:
        unavailable("container engines can be set up by root only (a daemon, mounts)")
    packages = subprocess.run([PACKAGES], capture_output=True, text=True, check=False, timeout=600)
    missing = [name for name in ("dockerd", "podman", "runc", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        unavailable(f"no container engines ({', '.join(missing)} missing): {packages.stderr.strip()}")
    folder = tmp_path_factory.mktemp("engines")
    # In memory: three copies of the image's ten thousand files come and go.
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        unavailable(f"no container engines: {mounted.stderr.strip()}")
    docker = script("up", folder / "docker")
    if docker.returncode:
        script("down", folder / "docker")
        subprocess.run(["umount", "-l", str(folder)], check=False)
        unavailable(f"no Docker daemon: {docker.stderr.strip()}")
    storage = folder / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/podman"\nrunroot = "{folder}/podman-run"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", docker.stdout.strip())
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
        try:
            for name in ("docker", "podman"):
                build_image(find_engine(name))
            yield folder
        finally:
            subprocess.run(["podman", "rm", "--all", "--force"], capture_output=True, check=False, timeout=60)
            script("down", folder / "docker")
            subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="module", autouse=True)
def _no_shared_containers_of_others() -> Iterator[None]:
    """Each file of tests ends the containers that it shared within this process."""
    yield
    for container in list(_SHARED.values()):
        container.stop()
    _SHARED.clear()


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest, engines: Path) -> str:
    """Name of an engine that works."""
    return str(request.param)


@pytest.fixture(scope="session")
def transit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drift scan about one centre and with a field for each dump; not to be written to."""
    folder = tmp_path_factory.mktemp("transit")
    for fields in (1, 24):
        simulate(folder / f"f{fields}.ms", SimulationConfig(dumps=8, channels=8, fields=fields, **PERFECT))
    return folder


@pytest.fixture
def wsclean() -> HostWSClean:
    """The WSClean of this machine."""
    return HostWSClean(program("wsclean"))
