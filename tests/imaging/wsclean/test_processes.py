import os
import threading
import time
from pathlib import Path

import pytest

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging.wsclean.processes import probe_folder, run_program


def test_what_a_program_says_and_how_it_ends():
    done = run_program(["sh", "-c", "echo out; echo err >&2; exit 3"], 10)
    assert (done.returncode, done.stdout, done.stderr, done.last_words) == (3, "out\n", "err\n", "err")
    assert run_program(["sh", "-c", "kill -9 $$"], 10).returncode == -9
    assert run_program(["true"], 10).last_words == "it printed nothing"
    with pytest.raises(FileNotFoundError):
        run_program(["no-such-program"], 10)
    with pytest.raises(FileNotFoundError):
        run_program(["no-such-program"], 10, tethered=True)


def test_a_lot_of_output_does_not_block():
    assert (
        len(run_program(["sh", "-c", "yes | head -c 3000000; yes | head -c 3000000 >&2"], 30).stdout)
        == 3000000
    )


def test_a_grandchild_that_holds_the_output_does_not_block():
    done = run_program(["sh", "-c", "setsid sleep 20 & echo $!"], 10)
    try:
        assert done.returncode == 0
        assert done.seconds < 10
    finally:
        os.kill(int(done.stdout), 9)


def test_past_the_deadline_the_whole_group_goes():
    done = run_program(["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; wait"], 0.3, grace_s=0.2)
    assert done.returncode is None
    assert not done.stuck
    pid, until = done.stdout.strip(), time.monotonic() + 5
    while time.monotonic() < until and Path(f"/proc/{pid}").exists() and state_of(pid) != "Z":
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or state_of(pid) == "Z"


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_threads_and_descriptors():
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=lambda: run_program(["true"], 10)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_folders_are_probed(tmp_path):
    probe_folder(tmp_path)
    probe_folder(tmp_path, writable=False)
    assert not list(tmp_path.iterdir())
    for writable in (True, False):
        with pytest.raises(ResourceError, match="No such file or directory"):
            probe_folder(tmp_path / "none", writable=writable)
