"""The hang behind this project, for real: a volume whose server stops answering."""

import subprocess
import threading
import time
from pathlib import PurePosixPath

import pytest

from dsa110_contimg.errors import ContainerError, DeadMountError
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.mounts import Mount
from tests.faults.conftest import wait_until
from tests.imaging.wsclean.support import FIGURES, containers

pytestmark = pytest.mark.faults

IMAGE = "contimg-wsclean:bookworm"
PATIENCE_S = 20.0


def docker(*arguments):
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_a_container_for_each_call_hangs(hung_disk):
    """`docker run --rm` with a volume: the work is done, and the call never ends."""
    options = ["--opt", "type=ext4", "--opt", f"device={hung_disk.device}"]
    docker("volume", "create", "--driver", "local", *options, "hung")
    script = "dd if=/dev/zero of=/data/x bs=1M count=4 2>/dev/null; echo written; read line; echo done"
    command = ["docker", "run", "--rm", "-i", "--network=none", "-v", "hung:/data", IMAGE, "sh", "-c", script]
    call = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert call.stdout.readline() == "written\n"
        hung_disk.hang()
        started = time.monotonic()
        call.stdin.write("\n")
        call.stdin.flush()
        assert call.stdout.readline() == "done\n"
        with pytest.raises(subprocess.TimeoutExpired):
            call.wait(PATIENCE_S)
        stuck = subprocess.run(
            ["ps", "-wweo", "state,args"], capture_output=True, text=True, check=True
        ).stdout
        stuck = [line for line in stuck.splitlines() if line.startswith("D")]
        assert stuck
        FIGURES.append(
            f"docker run --rm for each call: its program has ended, the call hangs after {PATIENCE_S:.0f} s, "
            f"{len(stuck)} tasks are in uninterruptible sleep"
        )
    finally:
        hung_disk.answer()
    # It ends only because the server answers again.
    assert call.wait(30) == 0
    FIGURES.append(
        f"... and ends {time.monotonic() - started:.0f} s after the program, when the server is back"
    )
    call.stdin.close()
    call.stdout.close()
    docker("volume", "rm", "hung")


def test_ours_returns_and_says_what_is_wrong(engine, hung_disk):
    """The same disk under the long-running container, dead in the middle of a call, and from then on."""
    folder = hung_disk.mount()
    made = WSCleanContainer(mounts=[Mount(folder, PurePosixPath("/data"))], engine=engine)
    made.start()
    name = made.container_name
    assert made.exec(["sh", "-c", "echo x > /data/x"], outputs=[folder / "x"]).returncode == 0
    threading.Timer(1.0, hung_disk.hang).start()
    work = ["sh", "-c", "while :; do dd if=/dev/zero of=/data/y bs=1M count=2 conv=fsync 2>/dev/null; done"]

    def timed(label, within, kind, match, act):
        started = time.monotonic()
        with pytest.raises(kind, match=match) as caught:
            act()
        seconds = time.monotonic() - started
        assert seconds < within
        FIGURES.append(
            f"{engine}, dead mount, {label}: {seconds:.1f} s | {type(caught.value).__name__}: {caught.value}"
        )

    says = f"{folder}: the file system does not answer"
    timed("during a call of 3 s", 40, DeadMountError, says, lambda: made.exec(work, 3.0))
    timed("a further call", 10, DeadMountError, says, lambda: made.exec(["true"]))
    timed("cd into it", 10, DeadMountError, says, lambda: made.exec(["true"], folder="/data"))
    again = WSCleanContainer(mounts=made.mounts, engine=engine)
    timed("starting another", 10, DeadMountError, says, again.start)
    timed("stopping", 60, ContainerError, "could not be stopped|does not answer", made.stop)
    hung_disk.answer()
    assert wait_until(lambda: name not in containers(engine), 60)
    # The mount answers: the next call works, in a new container.
    with made:
        assert made.exec(["cat", "/data/x"]).stdout == "x"
    assert not containers(engine)
