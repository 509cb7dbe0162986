"""Each fault that was seen: what is reported, how soon, and that the Measurement Set is as it was."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path, PurePosixPath

import psutil
import pytest

from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import (
    ContainerEngineError,
    ContainerError,
    ContainerImageError,
    DeadlineError,
    PathOutsideMountError,
    ResourceError,
    WSCleanError,
)
from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.container_engine import find_engine
from dsa110_contimg.imaging.wsclean.container_image import build_image
from dsa110_contimg.imaging.wsclean.mounts import Mount
from tests.faults.conftest import running, wait_until
from tests.imaging.wsclean.support import FIGURES, containers, processes, script, state

pytestmark = pytest.mark.faults


def during(call_is_on, act):
    """Do something once a call is under way; its thread."""

    def wait_and_act():
        assert wait_until(call_is_on, 120)
        time.sleep(0.5)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def numbers_of(fits):
    """Numbers of the processes whose command line fits."""
    listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    split = (line.split(maxsplit=1) for line in listed.splitlines())
    return [int(pid) for pid, command in split if fits(command)]


def signal_client(container, number):
    """Signal the client of the call that is on."""
    mark = "exec --env=CONTIMG_CALL="
    for pid in numbers_of(lambda command: mark in command and container.container_name in command):
        os.kill(pid, number)


def kill_program():
    """Kill WSClean itself."""
    for pid in numbers_of(lambda command: command.startswith("wsclean -name /out/w")):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def interruptible():
    """A process in a shell's background ignores SIGINT, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_client_of_a_call_gets_a_signal(number, container, long_call, fault):
    """Its status may be 0; the program inside would go on and write."""
    thread = during(lambda: running("/out/w"), lambda: signal_client(container, number))
    with fault(ContainerError, r"client of a call was ended before it \(status .*, stopped inside\)"):
        container.wsclean(long_call, 300)
    thread.join()
    assert wait_until(lambda: not running("/out/w"), 2)
    assert container.exec(["true"]).returncode == 0


def test_time_out_in_mid_write(container, long_call, tmp_path, fault):
    with fault(DeadlineError, "ran past its deadline of 3 s and was ended"):
        container.wsclean(long_call, 3, outputs=[tmp_path / "w-image.fits"])
    assert wait_until(lambda: not running("/out/w"), 2)
    assert container.exec(["true"]).returncode == 0


def test_program_killed_inside(container, long_call, fault):
    thread = during(lambda: running("/out/w"), kill_program)
    with fault(ContainerError, "killed from outside, or for want of memory"):
        container.wsclean(long_call, 300)
    thread.join()


def test_wsclean_fails_by_itself(container, fault):
    with fault(WSCleanError, "exit status"):
        container.wsclean(["-name", "/out/w", "/data/none.ms"], 60)


def test_wsclean_ends_without_its_files(container, tmp_path, fault):
    with fault(WSCleanError, "ended without w-image.fits"):
        container.wsclean(["-version"], 60, outputs=[tmp_path / "w-image.fits"])


def test_container_killed_once_during_a_call(engine, container, tmp_path, fault):
    """It is started once more, and the call repeated."""
    first = container.container_name
    work = ["sh", "-c", "if test -e /out/second; then echo again; else touch /out/second; sleep 60; fi"]
    kill = [engine, "kill", first]
    thread = during(
        (tmp_path / "second").exists, lambda: subprocess.run(kill, check=True, capture_output=True)
    )
    with fault(None):
        assert container.exec(work, 60).stdout == "again"
    thread.join()


def test_container_killed_twice_during_a_call(engine, container, tmp_path, fault):
    work = ["sh", "-c", "touch /out/on; sleep 60"]

    def kill_twice():
        for _ in range(2):
            assert wait_until((tmp_path / "on").exists, 30)
            (tmp_path / "on").unlink()
            time.sleep(0.3)
            subprocess.run([engine, "kill", *containers(engine)], check=True, capture_output=True)

    thread = threading.Thread(target=kill_twice)
    thread.start()
    with fault(ContainerError, "ended twice during a call"):
        container.exec(work, 60)
    thread.join()


def test_container_stopped_between_calls(engine, container, fault):
    subprocess.run([engine, "kill", container.container_name], check=True, capture_output=True)
    with fault(None):
        assert container.exec(["echo", "again"]).stdout == "again"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_docker_daemon_stopped_during_a_call(
    number, engines, ms, tmp_path_factory, long_call, fault, monkeypatch
):
    folder, out = tmp_path_factory.mktemp("d"), tmp_path_factory.mktemp("out")
    up = script("up", folder)
    assert up.returncode == 0, up.stderr
    monkeypatch.setenv("DOCKER_HOST", up.stdout.strip())
    try:
        build_image(find_engine("docker"))
        mounts = [Mount(ms.parent, PurePosixPath("/data")), Mount(out, PurePosixPath("/out"))]
        container = WSCleanContainer(mounts=mounts, engine="docker")
        container.start()
        pid = int((folder / "dockerd.pid").read_text())
        thread = during(lambda: running("/out/w"), lambda: os.kill(pid, number))
        with fault(ContainerEngineError, "docker: does not answer: Cannot connect"):
            container.wsclean(long_call, 300)
        thread.join()
        # A daemon that was asked to end takes its containers along; one that was killed leaves them.
        if number == signal.SIGKILL:
            left = len(running("/out/w"))
            again = script("up", folder)
            assert again.returncode == 0, again.stderr
            gone = wait_until(lambda: not running("/out/w"), 30)
            FIGURES.append(f"... killed daemon: {left} wsclean left, ended when it starts again: {gone}")
            assert gone
            with fault(None):
                assert container.exec(["echo", "again"]).stdout == "again"
            container.stop()
        else:
            assert wait_until(lambda: not running("/out/w"), 10)
            with pytest.raises(ContainerEngineError):
                container.exec(["true"])
    finally:
        script("down", folder)


def test_docker_daemon_is_down(engines, ms, tmp_path, fault, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    config = ImagingConfig(size=512, cell_arcsec=8.0, backend="container", container_engine="docker")
    with fault(ContainerEngineError, "does not answer.*systemctl start docker|does not answer"):
        image_ms(ms, tmp_path / "i", config)


def test_engine_is_not_installed(ms, tmp_path, fault, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("sh", "mktemp", "sync", "rm", "find"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    config = ImagingConfig(size=512, cell_arcsec=8.0, backend="container")
    with fault(ContainerEngineError, "docker is not installed; podman is not installed"):
        image_ms(ms, tmp_path / "i", config)


def test_image_is_missing(engine, ms, tmp_path, fault):
    made = WSCleanContainer(image="none:such", mounts=[Mount(tmp_path, PurePosixPath("/out"))], engine=engine)
    with fault(ContainerImageError, "none:such: no such image.*contimg container build"):
        made.start()
    assert not containers(engine)


def test_folder_to_mount_is_missing(engine, tmp_path, fault):
    made = WSCleanContainer(mounts=[Mount(tmp_path / "none", PurePosixPath("/out"))], engine=engine)
    with fault(ResourceError, "No such file"):
        made.start()
    assert not (tmp_path / "none").exists()


def test_disk_full_inside(engine, ms, small_disk, fault):
    disk = small_disk(30)
    config = ImagingConfig(size=1536, cell_arcsec=4.0, backend="container", container_engine=engine)
    large = config.with_options(size=2048, cell_arcsec=3.0)
    with fault((WSCleanError, ResourceError), "disk full|[Nn]o space|Could not write|Error|exit status"):
        image_ms(ms, disk / "i", large)
    assert not list(disk.glob("i-*"))
    mounts = [Mount(ms.parent, PurePosixPath("/data"), True), Mount(disk, PurePosixPath("/out"))]
    with (
        WSCleanContainer(mounts=mounts, engine=engine) as made,
        fault(WSCleanError, "w-psf.fits|exit status"),
    ):
        arguments = "-name /out/w -size 2048 2048 -scale 3asec -temp-dir /out -reorder -niter 10 -mgain 0.8"
        made.wsclean(
            [*arguments.split(), "-no-update-model-required", "/data/f1.ms"],
            60,
            outputs=[disk / "w-image.fits"],
        )


def test_products_on_a_read_only_mount(engine, ms, tmp_path, fault):
    mounts = f"{ms.parent}:/data:ro,{tmp_path}:/out:ro"
    config = ImagingConfig(size=512, cell_arcsec=8.0, backend="container", container_engine=engine)
    with fault(WSCleanError, "[Rr]ead-only|exit status"):
        image_ms(ms, tmp_path / "i", config.with_options(container_mounts=mounts))
    assert not list(tmp_path.glob("*i*"))


def test_path_outside_the_mount(engine, ms, tmp_path, fault):
    config = ImagingConfig(size=512, cell_arcsec=8.0, backend="container", container_engine=engine)
    with fault(PathOutsideMountError, "outside of what the container sees"):
        image_ms(ms, tmp_path / "i", config.with_options(container_mounts=str(tmp_path)))


CHILD = """
import sys
from pathlib import Path, PurePosixPath
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.mounts import Mount
mounts = [Mount(Path(sys.argv[1]), PurePosixPath("/data")), Mount(Path(sys.argv[2]), PurePosixPath("/out"))]
made = WSCleanContainer(mounts=mounts, engine=sys.argv[3])
print("begin", flush=True)
made.start()
print("started", flush=True)
while True:
    made.wsclean(sys.argv[4:], 60)
"""


def test_python_killed_at_20_random_moments(engine, ms, tmp_path, long_call):
    """SIGKILL, during the start or during a call: in two seconds there is neither container nor WSClean."""
    before, took, moments = state(ms), [], random.Random(20)
    for k in range(20):
        command = [sys.executable, "-c", CHILD, ms.parent, tmp_path, engine, *long_call]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        process.stdout.readline()
        if k % 4:
            assert process.stdout.readline() == "started\n"
        time.sleep(moments.uniform(0, 2.5 if k % 4 else 0.5))
        process.kill()
        process.communicate()
        killed = time.monotonic()
        wait_until(lambda: not running("/out/w") and not containers(engine), 2)
        took.append(time.monotonic() - killed)
        time.sleep(max(0.0, killed + 2 - time.monotonic()))
        assert not running("/out/w")
        assert not containers(engine)
        assert not [line for line in processes(str(tmp_path)) if line.startswith((engine, "/usr"))]
    FIGURES.append(
        f"{engine}: Python killed 20 times: all gone in {min(took):.2f} to {max(took):.2f} s; MS intact"
    )
    assert state(ms) == before


def test_200_calls_and_8_threads(engine, container, ms, tmp_path):
    """No process, file descriptor or container is left by any of them."""

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    def children():
        """Names of the processes that this one has started, sorted."""
        return sorted(child.name() for child in psutil.Process().children())

    def inside():
        """Names of the processes in the container, sorted."""
        listing = container.exec(["sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null"])
        return sorted(listing.stdout.split())

    def settled():
        """What is there once it has been the same for two seconds: what earlier calls left may still end."""
        end, since, before = time.monotonic() + 60, time.monotonic(), None
        while time.monotonic() < end:
            now = (descriptors(), children(), inside(), containers(engine))
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > 2:
                return now
            time.sleep(0.2)
        raise AssertionError(f"processes come and go: {before}")

    container.wsclean(["-version"])
    was = settled()
    started = time.monotonic()
    for _ in range(200):
        assert "WSClean version" in container.wsclean(["-version"]).stdout
    each = (time.monotonic() - started) / 200
    assert settled() == was
    before, problems = state(ms), []

    def work(number):
        try:
            out = tmp_path / str(number)
            out.mkdir()
            options = (
                f"-name /out/{number}/w -size 256 256 -scale 20asec -temp-dir /out/{number} -reorder -j 1"
            )
            for _ in range(3):
                container.wsclean(
                    [*options.split(), "-no-update-model-required", "-data-column", "DATA", "/data/f1.ms"],
                    120,
                    outputs=[out / "w-image.fits"],
                )
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert settled() == was
    assert state(ms) == before
    FIGURES.append(f"{engine}: 200 calls, {1e3 * each:.0f} ms each, and 8 threads: nothing left")
