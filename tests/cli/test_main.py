"""The door: one line and the right exit status for everything that can go wrong, JSON alone on stdout."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.lock import lock_path
from tests.arrays import COMPACT

OPTIONS = {
    "array": COMPACT,
    "antennas": 12,
    "channels": 4,
    "dumps": 2,
    "sefd_jy": 500.0,
    "random_phases": True,
}
OPTIONS["drift"] = False


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A tiny observation with its catalogue strips; never changed."""
    folder = tmp_path_factory.mktemp("tiny")
    simulate(folder / "tiny.ms", SimulationConfig(**OPTIONS))
    assert (
        main(
            [
                "catalog",
                "build",
                "nvss",
                str(folder / "tiny.catalog.ecsv"),
                "--catalog-dir",
                str(folder / "c"),
            ]
        )
        == 0
    )
    return folder


@pytest.fixture
def ms(pristine, tmp_path):
    return Path(shutil.copytree(pristine / "tiny.ms", tmp_path / "tiny.ms"))


@pytest.fixture
def catalogs(pristine):
    return str(pristine / "c")


def run(capfd, *arguments):
    """Exit status, stdout, stderr."""
    capfd.readouterr()
    status = main([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return status, out, err


def listing(folder):
    return {
        p.relative_to(folder): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
        if p.name != "table.lock"
    }


def refused(capfd, folder, *arguments, says, status=2):
    """The command fails with one line that says why, and changes nothing on disk."""
    before = listing(folder)
    got, out, err = run(capfd, *arguments)
    assert got == status, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert re.search(says, err), err
    assert listing(folder) == before


def test_not_a_measurement_set(capfd, tmp_path, catalogs):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for path, says in (("nowhere", "no such"), ("folder", "not a Measurement Set"), ("file", "not a Meas")):
        refused(
            capfd,
            tmp_path,
            *("selfcal", tmp_path / path, tmp_path / "out", "--catalog-dir", catalogs),
            says=says,
        )


def test_another_kind_of_table(capfd, tmp_path, catalogs, ms):
    shutil.copytree(ms / "ANTENNA", tmp_path / "antenna.ms")
    arguments = ("selfcal", tmp_path / "antenna.ms", tmp_path / "out", "--catalog-dir", catalogs)
    refused(capfd, tmp_path, *arguments, says="not a Measurement Set")


def test_without_rows(capfd, tmp_path, catalogs, ms):
    with table(str(ms), ack=False) as main_table:
        main_table.copy(str(tmp_path / "empty.ms"), deep=True, copynorows=True).close()
    arguments = ("selfcal", tmp_path / "empty.ms", tmp_path / "out", "--catalog-dir", catalogs)
    refused(capfd, tmp_path, *arguments, says="no rows")


def test_without_data(capfd, tmp_path, catalogs, ms):
    with table(str(ms), readonly=False, ack=False) as main_table:
        main_table.removecols(["DATA"])
    refused(capfd, tmp_path, "selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs, says="lacks DATA")


def test_fully_flagged(capfd, tmp_path, catalogs, ms):
    with table(str(ms), readonly=False, ack=False) as main_table:
        main_table.putcol("FLAG_ROW", np.ones(main_table.nrows(), dtype=bool))
    refused(
        capfd,
        tmp_path,
        "selfcal",
        ms,
        tmp_path / "out",
        "--catalog-dir",
        catalogs,
        says="no usable visibility",
    )


def test_nothing_but_nan(capfd, tmp_path, catalogs, ms):
    with table(str(ms), readonly=False, ack=False) as main_table:
        main_table.putcol("DATA", np.full_like(main_table.getcol("DATA"), np.nan))
    says = "not finite or without weight; check FLAG, WEIGHT and the values of DATA"
    refused(capfd, tmp_path, "selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs, says=says)


def test_read_only(capfd, tmp_path, catalogs, ms):
    for path in [ms, *ms.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs)
        refused(capfd, tmp_path, *arguments, says="read-only")
    finally:
        for path in [ms, *ms.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


def test_field_not_there(capfd, tmp_path, catalogs, ms):
    arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs, "--field", "M31")
    refused(capfd, tmp_path, *arguments, says="no field 'M31'.*present: ")


def test_table_of_another_antenna_count(capfd, tmp_path, catalogs, ms, ngc5921_caltables):
    arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs)
    b0 = ngc5921_caltables["B0"]
    refused(capfd, tmp_path, *arguments, "--caltable", b0, says="28 antennas.* 12")
    refused(capfd, tmp_path, *arguments, "--caltable", tmp_path / "none", says="no such calibration table")


def test_catalogue_missing(capfd, tmp_path, ms):
    arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", tmp_path / "none")
    refused(capfd, tmp_path, *arguments, says="contimg catalog build")


def test_corrupt_catalogue_files(capfd, tmp_path):
    files = {
        "corrupt.fits": b"SIMPLE  =                    T" + b"\0" * 1000,
        "empty.csv": b"",
        "columns.csv": b"a,b,c\n1,2,3\n",
        "cut.csv.gz": gzip.compress(b"ra_deg,dec_deg,flux_mjy\n1,2,3\n")[:20],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        arguments = ("catalog", "build", "nvss", tmp_path / name, "--catalog-dir", tmp_path / "c")
        refused(capfd, tmp_path, *arguments, says=re.escape(name))


def test_unknown_option_in_the_file(capfd, tmp_path, catalogs, ms):
    (tmp_path / "c.toml").write_text("nvss_min_mJy = 5\n")
    arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs, "--config", tmp_path / "c.toml")
    refused(capfd, tmp_path, *arguments, says="nvss_min_mJy.*did you mean 'nvss_min_mjy'")


def test_wrong_values(capfd, tmp_path, ms, catalogs, monkeypatch):
    base = ("selfcal", ms, tmp_path / "out")
    refused(capfd, tmp_path, *base, "--min-mjy", "0.1mJy", says="--min-mjy.*number")
    refused(capfd, tmp_path, *base, "--robust", "5", says="robust.*less than or equal to 2")
    refused(capfd, tmp_path, *base, "--solint", "-3", says="solint.*allowed")
    refused(capfd, tmp_path, *base, "--nonsense", says="nonsense")
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", catalogs)
    refused(capfd, tmp_path, *base, "--cell", "600", says="cell.*undersamples")
    monkeypatch.setenv("CONTIMG_ROBUST", "much")
    refused(capfd, tmp_path, *base, says="CONTIMG_ROBUST")


def test_output_that_is_a_file(capfd, tmp_path, catalogs, ms):
    (tmp_path / "out").write_text("mine")
    arguments = ("selfcal", ms, tmp_path / "out", "--catalog-dir", catalogs)
    refused(capfd, tmp_path, *arguments, says="not a folder")


def test_disk_full(capfd, small_disk, catalogs, ms):
    disk = small_disk(4)
    shutil.copytree(ms, disk / "t.ms")
    arguments = ("selfcal", disk / "t.ms", disk / "out", "--catalog-dir", catalogs)
    refused(capfd, disk, *arguments, says="disk full: .* MB")


def test_everything_through_the_door(capfd, tmp_path, monkeypatch):
    """simulate, catalog build, query, info, selfcal, image: JSON alone on stdout."""
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", str(tmp_path / "c"))
    flags = ["--array", COMPACT, "--antennas", 12, "--channels", 4, "--dumps", 2, "--sefd-jy", 500]
    status, out, _ = run(
        capfd, "simulate", tmp_path / "s.ms", *flags, "--random-phases", "--no-drift", "--json"
    )
    assert status == 0
    made = json.loads(out)
    status, out, _ = run(capfd, "catalog", "build", "nvss", made["catalog"], "--json")
    assert status == 0
    assert json.loads(out)["n_sources"] > 1000
    status, out, _ = run(capfd, "catalog", "info", "--json")
    assert {s["catalog"] for s in json.loads(out)["strips"]} == {"nvss"}
    status, out, _ = run(
        capfd, "catalog", "query", "--ra", 150, "--dec", 54.57, "--radius", 1, "--min-mjy", 100, "--json"
    )
    sources = json.loads(out)["sources"]
    assert sources == sorted(sources, key=lambda s: -s["flux_mjy"])
    assert all(s["flux_mjy"] >= 100 and s["separation_deg"] <= 1 for s in sources)
    grid = ["--size", 512, "--cell", 20]
    status, out, err = run(capfd, "selfcal", tmp_path / "s.ms", tmp_path / "out", *grid, "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "out" / "selfcal_summary.json").read_text())
    assert summary["status"] == "improved"
    status, out, _ = run(capfd, "image", tmp_path / "s.ms", "--name", tmp_path / "i", *grid, "--json")
    assert status == 0
    imaged = json.loads(out)
    assert imaged["peak_jy"] == pytest.approx(summary["final_standard"]["peak_jy"], rel=0.05)
    status, out, _ = run(
        capfd, "image", tmp_path / "s.ms", "--name", tmp_path / "d", *grid, "--column", "DATA"
    )
    assert status == 0
    assert "signal to noise" in out


def test_require_improvement(capfd, tmp_path, catalogs, ms):
    flags = ["--catalog-dir", catalogs, "--size", 512, "--cell", 20, "--min-snr", 1e9]
    status, out, err = run(capfd, "selfcal", ms, tmp_path / "out", *flags, "--require-improvement", "--json")
    assert status == 4
    assert json.loads(out)["status"] in ("no_improvement", "refused")
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert run(capfd, "selfcal", ms, tmp_path / "out", *flags)[0] == 0


def test_flags_reach_the_run_and_environment_is_below_them(capfd, tmp_path, catalogs, ms, monkeypatch):
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", catalogs)
    monkeypatch.setenv("CONTIMG_ROBUST", "1.5")
    monkeypatch.setenv("CONTIMG_NVSS_MIN_MJY", "20")
    (tmp_path / "c.toml").write_text('robust = -1.0\namplitude = "off"\nsize = 512\ncell_arcsec = 20.0\n')
    flags = ["--min-mjy", "30", "--config", tmp_path / "c.toml", "--json"]
    status, out, err = run(capfd, "selfcal", ms, tmp_path / "out", *flags)
    assert status == 0, err
    used = json.loads(out)["provenance"]["config"]
    assert used["nvss_min_mjy"] == 30  # flag over environment
    assert used["robust"] == 1.5  # environment over file
    assert used["amplitude"] == "off"  # file over default


def test_help_and_version(capfd):
    assert run(capfd, "--version")[1].startswith("contimg ")
    status, out, _ = run(capfd, "selfcal", "--help")
    assert status == 0
    assert "--[no-]seed" in out


def test_users_import_paths():
    """Names that users' scripts import already."""
    code = (
        "from dsa110_contimg.calibration.catalogs import query_nvss_sources\n"
        "from dsa110_contimg.calibration.selfcal import SelfCalConfig, selfcal_ms\n"
        "from dsa110_contimg.imaging.cli_imaging import image_ms\n"
        "config = SelfCalConfig(use_nvss_seeding=True, nvss_min_mjy=10.0)\n"
        "assert config.use_nvss_seeding and config.nvss_min_mjy == 10.0\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONTIMG_")}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


def test_demo_never_replaces_what_is_not_its_own(capfd, tmp_path):
    (tmp_path / "precious").write_text("mine")
    refused(capfd, tmp_path, "demo", tmp_path, says="not empty")


def test_rephase(capfd, tmp_path, ms):
    status, out, _ = run(capfd, "rephase", ms, tmp_path / "r.ms", "--ra", 150.1, "--dec", 54.5, "--json")
    assert status == 0
    assert json.loads(out)["phase_center_deg"] == pytest.approx([150.1, 54.5])
    assert run(capfd, "rephase", ms, tmp_path / "r2.ms", "--ra", 150.1)[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_are_told_by_the_status(tmp_path, ms, catalogs, number):
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "dsa110_contimg",
        "selfcal",
        str(ms),
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        [*command, "--catalog-dir", catalogs, "--size", "1024", "--cell", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "out").exists():
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(10):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, err = process.communicate(timeout=5)
            break
    assert process.returncode == 128 + number, err
    assert "interrupted" in err.splitlines()[-1]
    assert not lock_path(ms).exists()


def test_a_misspelt_variable_is_told(capfd, catalogs, monkeypatch):
    monkeypatch.setenv("CONTIMG_NVSS_MINMJY", "5")
    _, _, err = run(capfd, "catalog", "info", "--catalog-dir", catalogs)
    assert "CONTIMG_NVSS_MINMJY" in err


def test_images_are_of_visibilities_and_not_inside_the_measurement_set(capfd, tmp_path, ms):
    refused(
        capfd, tmp_path, "image", ms, "--name", tmp_path / "i", "--column", "FLAG", says="no visibilities"
    )
    refused(capfd, tmp_path, "image", ms, "--name", ms / "i", says="inside")


def test_an_empty_argument_is_not_this_folder(capfd: pytest.CaptureFixture[str]) -> None:
    """A variable of the shell that is not set must not fill the folder that one is in."""
    assert main(["compare", "t.ms", ""]) == 2
    assert capfd.readouterr().err == "error: an argument is empty; give it a value\n"
    assert main(["study", "out", "--limit-arms", "", "--map-arms", "nvss_1mJy"]) == 2
    assert "one unseeded and one seeded" in capfd.readouterr().err


class Swallows:
    """Sends a signal from where no exception can be raised, as compiled code does that calls back."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def usual_signals():
    """As in the foreground: a command in the background of a script starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait():
    for _ in range(200):
        time.sleep(0.05)


def test_an_interrupt_that_is_lost_comes_again(monkeypatch, capfd):
    def command(*_, **__):
        Swallows()
        wait()

    monkeypatch.setattr(sys.modules[main.__module__], "app", command)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    started = time.monotonic()
    assert main([]) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 5
    assert "interrupted" in capfd.readouterr().err
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_comes_out_as_another_error_is_one(monkeypatch, capfd, number):
    """Compiled code returns a result with an exception set."""

    def command(*_, **__):
        try:
            os.kill(os.getpid(), number)
            wait()
        except KeyboardInterrupt:
            raise SystemError("returned a result with an exception set") from None

    monkeypatch.setattr(sys.modules[main.__module__], "app", command)
    assert main([]) == 128 + number
    assert "interrupted" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "where", "remedy"),
    [
        (
            ["catalog", "build", "nvss", "a.csv"],
            "dsa110_contimg.catalogs.build_strips",
            "free some memory or",
        ),
        (
            ["image", "a.ms", "--name", "x"],
            "dsa110_contimg.imaging.image_ms.image_ms",
            "lower --memory-gb or --size",
        ),
    ],
)
def test_out_of_memory_names_options_that_the_command_has(capfd, monkeypatch, words, where, remedy):
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(where, fails)
    assert main(words) == 3
    assert f"error: out of memory; {remedy}" in capfd.readouterr().err
