"""The long-running container: calls, files, paths, sharing, forking, its end."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.errors import (
    ContainerError,
    DeadlineError,
    ResourceError,
    WSCleanError,
)
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer, get_wsclean_container
from dsa110_contimg.imaging.wsclean.mounts import Mount, parse_mounts
from tests.imaging.wsclean.support import containers


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.fixture
def container(engine, folder):
    with WSCleanContainer(mounts=[Mount(folder, PurePosixPath("/data"))], engine=engine) as made:
        yield made
    assert made.container_name not in containers(engine)


def test_a_call(container, folder):
    done = container.exec(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out", "err\n")
    assert "WSClean version 3" in container.wsclean(["-version"]).stdout
    done = container.exec(["sh", "-c", "pwd; echo made > f"], folder="/data", outputs=[folder / "f"])
    assert done.stdout == "/data"
    assert (folder / "f").read_text() == "made\n"


def test_success_needs_the_files(container, folder):
    """An exit status of zero is no proof, nor is a file of an earlier call."""
    (folder / "old").write_text("of an earlier call")
    for name in ("old", "never"):
        with pytest.raises(WSCleanError, match=f"ended without {name}"):
            container.exec(["true"], outputs=[folder / name])
    with pytest.raises(WSCleanError, match="exit status"):
        container.wsclean(["-name", "/data/x", "/data/none.ms"])


def test_the_deadline_is_kept_inside(container, folder):
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="ran past its deadline of 1 s and was ended"):
        container.exec(["sh", "-c", "while :; do echo x >> /data/grows; sleep 0.05; done"], 1.0)
    assert time.monotonic() - started < 15
    size = (folder / "grows").stat().st_size
    time.sleep(0.5)
    assert (folder / "grows").stat().st_size == size
    assert container.exec(["true"]).returncode == 0


def test_killed_is_not_timed_out(container):
    with pytest.raises(ContainerError, match="killed from outside, or for want of memory"):
        container.exec(["sh", "-c", "kill -9 $$"])
    assert container.exec(["true"]).returncode == 0


def test_files_belong_to_the_user(engine, folder):
    options = {"mounts": [Mount(folder, PurePosixPath("/data"))], "engine": engine}
    for user, owner in (("1234:1235", (1234, 1235)), (None, (os.getuid(), os.getgid()))):
        with WSCleanContainer(user=user, **options) as made:
            made.exec(["sh", "-c", "echo x > /data/f"], outputs=[folder / "f"])
        status = (folder / "f").stat()
        assert (status.st_uid, status.st_gid) == owner
        (folder / "f").unlink()


def test_read_only_mount(engine, folder):
    (folder / "there").write_text("x")
    with WSCleanContainer(mounts=[Mount(folder, PurePosixPath("/data"), True)], engine=engine) as made:
        assert made.exec(["cat", "/data/there"]).stdout == "x"
        assert "Read-only" in made.exec(["touch", "/data/f"]).stderr
    assert [p.name for p in folder.iterdir()] == ["there"]


def test_a_missing_folder_is_refused_and_not_made(engine, tmp_path):
    with pytest.raises(ResourceError, match="No such file or directory"):
        WSCleanContainer(mounts=[Mount(tmp_path / "none", PurePosixPath("/data"))], engine=engine).start()
    assert not (tmp_path / "none").exists()


def test_folders_with_awkward_names(engine, tmp_path):
    awkward = tmp_path / 'a, b "c" d'
    awkward.mkdir()
    with WSCleanContainer(mounts=[Mount(awkward, PurePosixPath("/data"))], engine=engine) as made:
        output = awkward / "it's $HOME.fits"
        made.exec(["sh", "-c", 'echo x > "$0"', made.path(output)], outputs=[output])
    assert output.read_text() == "x\n"


def test_names_of_users_scripts(engine, folder):
    from dsa110_contimg.imaging import docker_utils

    with docker_utils.WSCleanContainer(
        mount_path=str(folder), container_mount="/data", engine=engine
    ) as made:
        assert made.is_running()
        inside = docker_utils.convert_host_path_to_container(str(folder / "a.ms"), str(folder), "/data")
        assert inside == made.path(folder / "a.ms") == "/data/a.ms"
        assert made.start()
    assert not made.is_running()
    shared = docker_utils.get_wsclean_container(mount_path=str(folder), engine=engine)
    assert docker_utils.get_wsclean_container(mount_path=str(folder), engine=engine) is shared
    name = shared.container_name
    renewed = docker_utils.get_wsclean_container(force_new=True, mount_path=str(folder), engine=engine)
    assert renewed.is_running()
    assert renewed.container_name != name
    renewed.stop()
    renewed.stop()


def test_several_containers_and_threads(engine, folder):
    """One container for each configuration, one start for all threads."""
    other = folder / "other"
    other.mkdir()
    got, problems = [], []

    def work(number):
        try:
            mounts = parse_mounts(str(other if number % 2 else folder))
            made = get_wsclean_container(mounts=mounts, engine=engine)
            got.append(made)
            assert made.exec(["echo", str(number)]).stdout == str(number)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(set(got)) == 2
    assert {c.container_name for c in got} <= set(containers(engine))
    for made in set(got):
        made.stop()


def test_a_forked_child_lets_go(engine, folder):
    """A forked worker does not keep its parent's container alive, and may start its own."""
    code = """
import os, sys, time
from pathlib import Path, PurePosixPath
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.mounts import Mount
made = WSCleanContainer(mounts=[Mount(Path(sys.argv[1]), PurePosixPath("/data"))], engine=sys.argv[2])
made.start()
child = os.fork()
if child == 0:
    assert not made.is_running()
    print("own", made.exec(["echo", "of the child"]).stdout, flush=True)
    made.stop()
    time.sleep(30)
    os._exit(0)
print(child, made.container_name, flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lines = sorted(process.stdout.readline().split(maxsplit=1) for _ in range(2))
    (child, name), (_, said) = lines
    assert said.strip() == "of the child"
    assert name.strip() in containers(engine)
    process.stdin.close()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 10
    while containers(engine) and time.monotonic() < until:
        time.sleep(0.1)
    try:
        assert Path(f"/proc/{child}").exists()
        assert name.strip() not in containers(engine)
    finally:
        os.kill(int(child), 9)


def test_leftovers_are_told_and_reaped(engine, folder, capfd):
    """A container whose owner is gone is removed; one in use, or of another host, is not."""
    from dsa110_contimg.imaging.wsclean.container_engine import find_engine, owner_labels

    found = find_engine(engine)
    labels = owner_labels()
    strange = {
        "gone": labels | {"dsa110_contimg.pid": "4194304"},
        "reused": labels | {"dsa110_contimg.start": "1"},
        "rebooted": labels | {"dsa110_contimg.boot": "another"},
        "elsewhere": labels | {"dsa110_contimg.host": "another"},
    }
    for name, values in strange.items():
        options = [f"--label={key}={value}" for key, value in values.items()]
        run = ["run", "-d", "--network=none", f"--name=stranger-{name}", *found.run_options(), *options]
        assert found.call(*run, "contimg-wsclean:bookworm", "sleep", "100").returncode == 0
    with WSCleanContainer(mounts=[Mount(folder, PurePosixPath("/data"))], engine=engine) as made:
        # The start has reaped them.
        assert set(containers(engine)) == {made.container_name, "stranger-elsewhere"}
        assert main(["container", "status", "--container-engine", engine]) == 0
        said = capfd.readouterr().out
        assert f"{made.container_name}: running, process {os.getpid()} is alive" in said
        assert "stranger-elsewhere: running, process" in said
        assert main(["container", "reap", "--container-engine", engine]) == 0
        assert capfd.readouterr().out == "nothing left over\n"
        assert main(["container", "stop", "stranger-elsewhere", "--container-engine", engine]) == 0
        assert main(["container", "stop", "stranger-elsewhere", "--container-engine", engine]) == 3
    assert not containers(engine)


def test_doctor(engines, folder, capfd, monkeypatch):
    assert main(["doctor", "--catalog-dir", str(folder)]) == 0
    said = capfd.readouterr().out
    for line in ("ok .*docker ", "ok .*podman ", "image in docker .*WSClean 3", "0 in use, 0 left over"):
        assert __import__("re").search(line, said), said
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/nobody.sock")
    assert main(["doctor", "--catalog-dir", str(folder)]) == 0
    assert "missing  docker" in capfd.readouterr().out
    # Docker does not answer: podman is taken.
    with WSCleanContainer(mounts=[Mount(folder, PurePosixPath("/data"))]) as made:
        assert made.engine.name == "podman"


def test_importing_changes_no_signal_handler():
    code = """
import signal
before = [signal.getsignal(s) for s in signal.valid_signals()]
import dsa110_contimg.imaging.docker_utils
assert before == [signal.getsignal(s) for s in signal.valid_signals()]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
