"""What runs in the container may do no more than imaging needs, and does image."""

import os
import re
import shutil
from pathlib import Path, PurePosixPath

import pytest

from dsa110_contimg.config import ImagingConfig, SimulationConfig
from dsa110_contimg.errors import ResourceError, WSCleanError
from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.mounts import Mount, outside_of, parse_mounts
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT
from tests.imaging.wsclean.support import state

SMALL = {"size": 256, "cell_arcsec": 20.0}
STRANGER = 1234


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Measurement Sets with one field and with several; not to be written to."""
    folder = tmp_path_factory.mktemp("confined")
    for fields in (1, 4):
        options = {"antennas": 12, "dumps": 4, "channels": 4, "sefd_jy": 500.0, "phase_rms": 0.0}
        simulate(folder / f"f{fields}.ms", SimulationConfig(array=COMPACT, fields=fields, **options))
    return folder


@pytest.fixture(params=[None, f"{STRANGER}:{STRANGER}"], ids=["caller", "another"])
def confined(request, engine, tmp_path):
    """A container of the caller, root, and one of another user."""
    folder = tmp_path / "products"
    folder.mkdir()
    folder.chmod(0o777)
    with WSCleanContainer(
        mounts=[Mount(folder, PurePosixPath("/out"))], engine=engine, user=request.param
    ) as made:
        yield made


def test_no_capability_is_there_or_to_be_had(confined):
    """Of the first process, and of one that is called as WSClean is."""
    for process in ("1", "self"):
        said = dict(
            re.findall(r"^(\w+):\s+(\S+)", confined.exec(["cat", f"/proc/{process}/status"]).stdout, re.M)
        )
        assert {said[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert said["NoNewPrivs"] == "1"
        assert said["Seccomp"] == "2"
        assert f"{said['Uid']}:{said['Gid']}" == confined.user
    assert "Operation not permitted" in confined.exec(["chown", "1:1", "/out"]).stderr
    assert "Operation not permitted" in confined.exec(["mknod", "/out/disk", "b", "8", "0"]).stderr
    assert confined.exec(["mount", "-t", "tmpfs", "none", "/out"]).returncode


def test_only_products_and_tmp_are_written(confined):
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/run", "/var/tmp", "/var/lib", "/root"):
        done = confined.exec(["touch", f"{folder}/made"])
        assert re.search("Read-only file system|Permission denied", done.stderr), folder
    said = confined.exec(["find", "/", "-xdev", "-writable", "!", "-type", "l", "!", "-type", "c"]).stdout
    root = {line for line in said.splitlines() if not line.startswith("/proc")}
    every = confined.exec(["sh", "-c", "cut -d' ' -f2 /proc/mounts | xargs -I@ sh -c 'test -w @ && echo @'"])
    # /dev and what the engine lays there are small file systems in memory, of the container alone.
    own = {line for line in every.stdout.splitlines() if not re.match("/(dev|proc|sys)(/|$)", line)}
    assert (root | own) - {"/dev"} == {"/tmp", "/out"}


def test_tmp_is_small_and_runs_nothing(confined):
    done = confined.exec(["sh", "-c", "cp /bin/true /tmp/program && chmod +x /tmp/program && /tmp/program"])
    assert "Permission denied" in done.stderr
    done = confined.exec(["dd", "if=/dev/zero", "of=/tmp/fill", "bs=1M", "count=100"])
    assert "No space left on device" in done.stderr


def test_neither_network_nor_endless_processes(confined):
    assert confined.exec(["ls", "/sys/class/net"]).stdout.split() == ["lo"]
    limit = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max"
    assert confined.exec(["sh", "-c", limit]).stdout == str(512 + 16 * os.cpu_count())


def test_one_that_its_owner_alone_may_read_is_imaged(engine, data, tmp_path):
    """Read-only to WSClean; what it makes in between lies beside the products, and goes."""
    for name in ("f1.ms", "f4.ms"):
        ms = Path(shutil.copytree(data / name, tmp_path / "in" / name))
        for path in (ms.parent, *ms.parent.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        before = state(ms)
        (tmp_path / "out").mkdir(0o700, exist_ok=True)
        options = ImagingConfig(**SMALL, backend="container", container_engine=engine)
        made = image_ms(ms, tmp_path / "out" / name, options)
        assert made.metrics.snr > 5
        assert state(ms) == before
    assert all(p.suffix == ".fits" for p in (tmp_path / "out").iterdir())


def arguments(ms):
    options = "-name /out/w -temp-dir /out -size 128 128 -scale 30asec -niter 0 -reorder"
    return [*options.split(), "-no-update-model-required", "-data-column", "DATA", ms]


def test_one_that_only_another_may_read_is_named(engine, data, tmp_path):
    """Root without capabilities may not read it either, and WSClean says that it does not exist."""
    folder, out = tmp_path / "in", tmp_path / "out"
    ms = Path(shutil.copytree(data / "f1.ms", folder / "closed.ms"))
    one = Path(shutil.copytree(data / "f1.ms", folder / "one file.ms")) / "FIELD" / "table.dat"
    out.mkdir()
    out.chmod(0o777)
    for path in (ms, one):
        os.chown(path, STRANGER, STRANGER)
        path.chmod(path.stat().st_mode & 0o700)
    mounts = [*parse_mounts(f"{folder}:/in:ro"), *parse_mounts(f"{out}:/out")]
    for closed, name in ((ms, "/in/closed.ms"), (one, "/in/one file.ms")):
        with WSCleanContainer(mounts=mounts, engine=engine) as made:
            with pytest.raises(
                ResourceError, match=r"closed to user 0:0 of the container.*; run as its owner"
            ) as error:
                made.wsclean(arguments(name))
            assert error.value.where == str(closed)
    with WSCleanContainer(mounts=mounts, engine=engine, user=f"{STRANGER}:{STRANGER}") as made:
        made.wsclean(arguments("/in/closed.ms"), outputs=[out / "w-image.fits"])
        # What is wrong otherwise is left in WSClean's words.
        with pytest.raises(WSCleanError, match=r"none.ms does not exist"):
            made.wsclean(arguments("/in/none.ms"))
    assert (out / "w-image.fits").stat().st_uid == STRANGER


def test_outside_of():
    mounts = parse_mounts("/a:/data,/b:/data/in")
    assert outside_of(mounts, "/data/x.ms") == Path("/a/x.ms")
    assert outside_of(mounts, "/data/in/x.ms") == Path("/b/x.ms")
    assert outside_of(mounts, "/usr") == Path("/usr")
