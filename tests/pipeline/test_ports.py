"""From another account of this machine no program runs through any port or scratch file of a run."""

import functools
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security

from dsa110_contimg.pipeline.cluster import _scratch_folder
from tests.imaging.wsclean.support import FIGURES
from tests.needs import unavailable
from tests.pipeline.conftest import free_port, wait_until, worker_of

STRANGER = Path(__file__).with_name("stranger.py")
#: What stands for Slurm: a job is started here, on this machine.
SBATCH = """#!/bin/sh
cp "$1" "$0.job"
setsid bash "$0.job" </dev/null >/dev/null 2>&1 &
echo "Submitted batch job $!"
"""

PLANT = """
import os, pwd, sys
from pathlib import Path
account = pwd.getpwnam("nobody")
os.setgroups([]), os.setgid(account.pw_gid), os.setuid(account.pw_uid), os.umask(0)
scratch, marks = Path(sys.argv[1]) / "dask-scratch-space", sys.argv[2]
scratch.mkdir()
for name in ("csv", "code", "pdb", "cmd", "bdb", "sched", "imghdr", "pyclbr"):
    (scratch / f"{name}.py").write_text(f"open('{marks}/{name}', 'w').close(); raise ImportError")
"""


@pytest.fixture
def room(monkeypatch):
    """A folder that every account of this machine can look into, which pytest's own is not."""
    if os.getuid() != 0:
        unavailable("only root can try what another account can do")
    folder = Path(tempfile.mkdtemp(prefix="contimg-ports-"))
    folder.chmod(0o755)
    for name in ("marks", "tmp"):
        (folder / name).mkdir()
        (folder / name).chmod(0o1777 if name == "tmp" else 0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def stranger(room: Path, **wanted) -> dict:
    """What `nobody` gets of ports, sockets and files; and that nothing has run for it."""
    wanted = {"ports": [], "unix": [], "files": [], "marks": str(room / "marks"), **wanted}
    done = subprocess.run(
        [sys.executable, STRANGER, json.dumps(wanted)], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["uid"] not in (0, os.getuid())
    return got


def listening(processes) -> tuple[set[tuple[str, int]], set[str]]:
    """Addresses and ports, and names of Unix sockets, on which processes wait for others."""
    inodes, ports = set(), set()
    for process in processes:
        for one in process.net_connections("inet"):
            # A datagram socket that is bound listens as well.
            if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                ports.add((one.laddr.ip, one.laddr.port))
        for file in Path(f"/proc/{process.pid}/fd").iterdir():
            inodes.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    accepting = 0x10000
    names = {w[7] for w in lines if w[6] in inodes and int(w[3], 16) & accepting and len(w) > 7}
    return ports, names


def test_the_stranger_gets_through_where_nothing_bars_it(room):
    """Without TLS, or with the certificates: so that what it does not get elsewhere says something."""
    made = Security.temporary()
    theirs = {key: getattr(made, key) for key in ("tls_client_cert", "tls_client_key")}
    (room / "secret").mkdir(0o700)
    options = {"n_workers": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    options["local_directory"] = str(room / "secret")
    with LocalCluster(**options) as bare, LocalCluster(**options, security=made) as secured:
        clusters = {"tcp": bare, "tls, theirs": secured}
        addresses = {
            way: [one.scheduler_address, one.workers[0].address, one.workers[0].worker_address]
            for way, one in clusters.items()
        }
        expected = {
            f"{address.rpartition(':')[2]} {way}" for way, some in addresses.items() for address in some
        }
        web = bare.scheduler.http_server.port
        ports = [("127.0.0.1", int(way.split()[0])) for way in expected] + [("127.0.0.1", web)]
        files = [str(room / "secret"), str(room)]
        got = stranger(room, ports=ports, security=theirs, files=files)
    ran = {way.rpartition(" ")[0] for way, said in got["ran"].items() if said == "ran"}
    marks = list((room / "marks").iterdir())
    assert ran == {mark.name.rpartition(" ")[0] for mark in marks} == expected, got["ran"]
    assert {mark.read_text() for mark in marks} == {"0"}
    assert {port for port, *_, status, _ in got["http"] if status == 200} == {web}
    assert got["files"] == {files[0]: "PermissionError", files[1]: got["files"][files[1]]}
    assert "secret" in got["files"][files[1]]


def test_nothing_runs_for_another_account(room, contimg, make_ms, locked, tmp_path):
    """Through no port, and through no module laid where Dask by default has its scratch files and imports."""
    marks = room / "marks"
    subprocess.run([sys.executable, "-c", PLANT, room / "tmp", marks], check=True)
    for name, text in (("sbatch", SBATCH), ("scancel", "#!/bin/sh\nkill -- -$1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    metrics = free_port()
    words = {"local": ["--metrics-port", metrics], "slurm": ["--slurm"]}
    runs, processes, ports, names = {}, {}, {}, set()
    for kind, more in words.items():
        mss = [make_ms(f"{kind}{k}.ms", room) for k in range(2)]
        # They are waited for, one after the other, while the stranger is at work.
        locked(*mss)
        variables = {"TMPDIR": room / "tmp", "CONTIMG_STATE_FILE": tmp_path / f"{kind}.sqlite3"}
        variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        runs[kind] = contimg.start("run", *mss, room / kind, "--workers", 1, *more, **variables)
    for kind, run in runs.items():
        in_hand = functools.partial(worker_of, room / kind, f"{kind}0")
        wait_until(lambda: in_hand() or any(marks.iterdir()) or run.poll(), f"{kind} is in hand", 120)  # noqa: B023
        assert not list(marks.iterdir())
        worker = psutil.Process(in_hand())
        # A Slurm job is no child of the run.
        first = psutil.Process(run.pid)
        processes[kind] = {first, *first.children(recursive=True), worker.parent(), worker}
        ports[kind], some = listening(processes[kind])
        names |= some
    secrets = [*room.glob("slurm/.cluster-*"), *room.glob("slurm/.cluster-*/*")]
    files = [
        str(path) for path in (*secrets, *(room / "tmp").glob("contimg-*"), *(room / "tmp").glob("tmp.*"))
    ]
    got = stranger(
        room,
        ports=sorted(set().union(*ports.values())),
        unix=sorted(names),
        files=[*files, str(room / "slurm")],
    )
    assert all(p.is_running() and p.status() != "zombie" for some in processes.values() for p in some)
    FIGURES.extend(f"{kind}: ports {sorted(some)}" for kind, some in ports.items())
    FIGURES.append(f"{len(got['ran'])} tries to run a program, {len(got['http'])} HTTP requests")
    assert not list(marks.iterdir()), got["ran"]
    assert "ran" not in got["ran"].values()
    # Of scheduler, nanny and worker each, and what was asked for; Slurm's nodes are other machines.
    numbers = {kind: len({port for _, port in some}) for kind, some in ports.items()}
    assert numbers == {"local": 4, "slurm": 3}
    assert {host for host, _ in ports["local"]} == {"127.0.0.1"}
    assert not names
    for port, method, path, secure, status, text in got["http"]:
        if port == metrics and not secure:
            assert status == (200 if method == "GET" else 405), (method, path, text)
            assert text.startswith("# HELP contimg_") or method != "GET"
        else:
            assert status == 0, (port, method, path, text)
    assert "slurm0" in got["files"].pop(str(room / "slurm"))
    assert len(secrets) == 4
    # Scratch files: of the drivers and of the Slurm job.
    assert len(files) == 4 + 2
    assert got["files"] == dict.fromkeys(files, "PermissionError")
    for run in runs.values():
        run.terminate()
    assert [run.wait(60) for run in runs.values()] == [143] * 2
    everyone = set().union(*processes.values())
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in everyone), "all end", 60)
    assert {path.name for path in (room / "tmp").iterdir()} == {"contimg-0", "dask-scratch-space"}
    assert not list(marks.iterdir())


@pytest.mark.parametrize("kind", ["of another", "open", "link"])
def test_a_scratch_folder_that_others_laid_is_not_taken(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = Path(_scratch_folder())
    assert usual == Path(_scratch_folder()) == tmp_path / f"contimg-{os.getuid()}"
    if kind == "of another":
        if os.getuid() != 0:
            unavailable("only root can give a folder away")
        os.chown(usual, 1234, 1234)
    elif kind == "open":
        usual.chmod(0o770)
    else:
        usual.rename(tmp_path / "own")
        usual.symlink_to("own")
    taken = Path(_scratch_folder())
    assert taken != usual
    assert stat.S_IMODE(taken.lstat().st_mode) == 0o700
