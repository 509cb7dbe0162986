"""One owner at a time."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.pipeline import lock
from dsa110_contimg.pipeline.lock import exclusive_lock, measurement_set_lock

HOLD = """
import sys, time
from pathlib import Path
from dsa110_contimg.pipeline.lock import measurement_set_lock
with measurement_set_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def hold(tmp_path):
    started = []

    def start(ms, run_id, seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(ms), run_id, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_another_owner_is_named(tmp_path, hold):
    ms = tmp_path / "a.ms"
    owner = hold(ms, "one", 60)
    with (
        pytest.raises(ResourceError, match=rf"a\.ms: is in use by process {owner.pid} on "),
        measurement_set_lock(ms, "two", 60),
    ):
        pass


def test_the_same_run_is_waited_for(tmp_path, hold):
    ms = tmp_path / "a.ms"
    owner = hold(ms, "one", 1.5)
    with measurement_set_lock(ms, "one", 30):
        assert owner.poll() == 0 or owner.wait(5) == 0


def test_the_lock_of_a_killed_process_is_taken_over_with_a_message(tmp_path, hold, caplog):
    ms = tmp_path / "a.ms"
    owner = hold(ms, "one", 60)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with measurement_set_lock(ms, "two"):
        assert f"taking over from process {owner.pid} on " in caplog.text
        content = json.loads((tmp_path / ".a.ms.contimg-lock").read_text())
        assert content["pid"] == os.getpid()
        assert content["boot"]
    assert not list(tmp_path.iterdir())


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ResourceError, match="no lock can be made"), exclusive_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_many_at_once_never_share(tmp_path, monkeypatch):
    """Every one of a crowd adds one to a number that only a true lock keeps right."""
    monkeypatch.setattr(lock, "POLL_S", 0.001)
    (tmp_path / "n").write_text("0")

    def count():
        for _ in range(50):
            with measurement_set_lock(tmp_path / "a.ms", "same", 60):
                n = int((tmp_path / "n").read_text())
                (tmp_path / "n").write_text(str(n + 1))

    with ThreadPoolExecutor(4) as crowd:
        for done in [crowd.submit(count) for _ in range(4)]:
            done.result()
    assert (tmp_path / "n").read_text() == "200"
