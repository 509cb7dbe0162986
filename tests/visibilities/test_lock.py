"""A Measurement Set has one owner; what a dead one leaves is taken over, what cannot be known is refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.visibilities import lock as module
from dsa110_contimg.visibilities.lock import lock_beside, lock_path

HOLD = """
import sys
from dsa110_contimg.visibilities.lock import lock_beside
with lock_beside(sys.argv[1], "holding"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Notes:
    def __init__(self):
        self.notes = []

    def track(self, items, total, label):
        yield from items

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def ms(tmp_path):
    (tmp_path / "obs.ms").mkdir()
    return tmp_path / "obs.ms"


def hold(ms):
    """Another process that owns it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def refusal(ms):
    """What is said to somebody who wants it too."""
    with pytest.raises(ResourceError) as caught, lock_beside(ms, "x"):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only_the_ms(ms):
    return [p.name for p in ms.parent.iterdir()] == [ms.name]


def test_it_is_there_while_it_is_held_and_gone_after(ms):
    with lock_beside(ms, "testing"):
        values = json.loads(lock_path(ms).read_text())
        assert (values["pid"], values["host"]) == (os.getpid(), socket.gethostname())
        assert values["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Nested in the same thread it is the same lock.
        with lock_beside(ms, "again"):
            pass
        assert lock_path(ms).exists()
    assert only_the_ms(ms)


def test_it_is_released_when_the_work_fails(ms):
    with pytest.raises(ZeroDivisionError), lock_beside(ms, "testing"):
        raise ZeroDivisionError
    assert only_the_ms(ms)


def test_a_live_process_is_named_and_a_killed_one_taken_over(ms, tmp_path):
    process = hold(ms)
    link = tmp_path / "other-name.ms"
    link.symlink_to(ms)
    for name in (ms, link):
        said = refusal(name)
        assert f"worked on by holding (process {process.pid} on {socket.gethostname()}, since 20" in said
    link.unlink()
    process.send_signal(signal.SIGKILL)
    # Not yet waited for: a zombie owns nothing.
    notes = Notes()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with lock_beside(ms, "x", notes):
        assert json.loads(lock_path(ms).read_text())["pid"] == os.getpid()
    assert len(notes.notes) == 1
    assert f"process {process.pid}" in notes.notes[0]
    process.communicate()
    assert only_the_ms(ms)


def test_a_thread_of_the_same_process_is_refused(ms):
    said = []

    def work():
        try:
            with lock_beside(ms, "second"):
                said.append("owned")
        except ResourceError as error:
            said.append(str(error))

    for expected in ("worked on by first", "owned"):
        with lock_beside(ms if expected != "owned" else ms.with_name("another.ms"), "first"):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert expected in said[-1]


def test_a_child_does_not_inherit_it(ms):
    with lock_beside(ms, "parent"):
        child = os.fork()
        if child == 0:
            try:
                with lock_beside(ms, "child"):
                    os._exit(1)
            except ResourceError:
                os._exit(0)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    assert only_the_ms(ms)


def leave(ms, **changes):
    """A lock as a dead process leaves it: no flock, a process number that is not in use."""
    with lock_beside(ms, "left"):
        values = json.loads(lock_path(ms).read_text())
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock_path(ms).write_text(json.dumps(values | {"pid": dead.pid} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pid": os.getpid(), "started": 1},  # the number went to another process
        {"boot_id": "another", "pid": os.getpid()},
    ],
)
def test_what_the_dead_left_is_taken_over(ms, changes):
    leave(ms, **changes)
    notes = Notes()
    with lock_beside(ms, "x", notes):
        pass
    assert len(notes.notes) == 1
    assert only_the_ms(ms)


def test_what_cannot_be_known_is_refused_with_what_to_do(ms):
    leave(ms, host="elsewhere", boot_id="another")
    said = refusal(ms)
    assert "elsewhere" in said
    assert f"remove {lock_path(ms)}" in said
    lock_path(ms).write_text("")
    assert f"remove {lock_path(ms)}" in refusal(ms)
    assert lock_path(ms).read_text() == ""


def test_a_disk_without_flock_does_not_guess(ms, monkeypatch):
    leave(ms)
    monkeypatch.setattr(module, "_flock", lambda _: None)
    with pytest.raises(ResourceError, match="cannot be told"), lock_beside(ms, "x"):
        pass
    lock_path(ms).unlink()
    with lock_beside(ms, "x"):
        pass
    assert only_the_ms(ms)


def test_a_disk_without_hard_links_will_do(ms, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with lock_beside(ms, "first"):
        process = subprocess.run(
            [sys.executable, "-c", HOLD, str(ms)], capture_output=True, text=True, check=False, input=""
        )
        assert "worked on by first" in process.stderr
    leave(ms)
    with lock_beside(ms, "second"):
        pass
    assert only_the_ms(ms)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_takers_at_once_one_has_it(ms, stale):
    """Each that gets it holds it for a moment; no two may at the same time."""
    if stale:
        leave(ms)
    inside, most, owned, refused = 0, 0, 0, 0
    guard, start = threading.Lock(), threading.Barrier(16)

    def work():
        nonlocal inside, most, owned, refused
        start.wait()
        for _ in range(20):
            try:
                with lock_beside(ms, "race"):
                    with guard:
                        inside += 1
                        owned += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except ResourceError:
                with guard:
                    refused += 1

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert owned >= 1
    assert refused >= 1
    assert owned + refused == 320
    assert only_the_ms(ms)


def test_of_two_processes_that_find_it_stale_one_has_it(ms):
    leave(ms)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    # The loser ends by itself; the winner waits for the end of its input.
    said = [process.stdout.readline() for process in processes]
    assert sorted(said) == ["", "held\n"]
    winner, loser = (processes[said.index(word)] for word in ("held\n", ""))
    assert "worked on by" in loser.communicate()[1]
    winner.communicate("")
    assert (winner.returncode, loser.returncode) == (0, 1)
    assert only_the_ms(ms)


def test_a_read_only_folder_is_said(small_disk):
    disk = small_disk(1)
    (disk / "obs.ms").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "no lock can be made beside obs.ms (Read-only file system)" in refusal(disk / "obs.ms")


def test_the_same_job_is_waited_for(ms):
    process = hold(ms)
    threading.Timer(1.0, process.stdin.close).start()
    with lock_beside(ms, "holding", wait_s=30):
        assert process.wait(5) == 0
    process.stdout.close()
    assert only_the_ms(ms)


def test_a_link_is_not_followed(ms):
    (ms / "precious").write_text("mine")
    lock_path(ms).symlink_to(ms / "precious")
    assert "no lock can be made" in refusal(ms)
    assert (ms / "precious").read_text() == "mine"


def test_many_at_once_never_share(ms):
    """Every one of a crowd adds one to a number that only a true lock keeps right."""
    number = ms / "n"
    number.write_text("0")

    def count():
        for _ in range(50):
            with lock_beside(ms, "counting", wait_s=60):
                number.write_text(str(int(number.read_text()) + 1))

    with ThreadPoolExecutor(4) as crowd:
        for done in [crowd.submit(count) for _ in range(4)]:
            done.result()
    assert number.read_text() == "200"
