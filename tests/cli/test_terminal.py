"""What a terminal, a pipe and a journal are given."""

import json
import logging
import os
import re
import subprocess
import sys

import pytest
import typer

from dsa110_contimg.cli.app import app
from dsa110_contimg.cli.main import main
from dsa110_contimg.cli.selfcal import print_selfcal
from dsa110_contimg.cli.terminal import LineFormatter
from tests.arrays import COMPACT

#: Shows a help, a bar of three steps, notes, a warning and a table, as commands do: on a pseudo-terminal of
#: its own, or into two files, once for each set of variables. One process loads all, its children show.
SHOWS = """
import logging, os, pty, sys
from rich.table import Table
from dsa110_contimg.cli.main import app
from dsa110_contimg.cli.terminal import TerminalProgress, print_pairs, print_table

def show():
    app(["--verbose", "compile", "--help"], standalone_mode=False)
    progress = TerminalProgress()
    for k in progress.track(range(3), 3, "grid"):
        progress.note(f"step {k}")
        if k == 1:
            logging.getLogger("dsa110_contimg").warning("look out")
    print_table(Table("one", "two"))
    print_pairs({"status": "improved " * 30, "nothing": "", "report": "/" + 30 * "folder/"})

def child(variables, to=None):
    status = 1
    try:
        for number, file in enumerate(to or (), 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        os.environ.update(v.split("=") for v in variables.split(",") if v)
        show()
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)

for name, variables in (word.split(":") for word in sys.argv[2:]):
    out = os.path.join(sys.argv[1], name)
    if name.startswith("pipe"):
        pid = os.fork() or child(variables, (out + ".out", out + ".err"))
    else:
        pid, terminal = pty.fork()
        if pid == 0:
            child(variables)
        with open(out, "wb") as file:
            while True:
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # Linux says so where the other end is closed
                    break
                if not part:
                    break
                file.write(part)
    assert os.waitpid(pid, 0)[1] == 0, name
"""
#: Sequences that colour, but for those that make bold or faint.
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|38;|48;)[0-9;]*m")


def test_bars_and_colours_are_for_terminals(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100"}
    scenes = ["bright:", "plain:NO_COLOR=1", "dumb:TERM=dumb", "pipe:", "pipe_forced:FORCE_COLOR=1"]
    command = [sys.executable, "-c", SHOWS, str(tmp_path), *scenes]
    subprocess.run(command, env=environment, check=True)
    shown = {path.name: path.read_text() for path in tmp_path.iterdir()}

    bright = shown["bright"]
    assert "3/3" in bright
    assert re.search(r"\d:\d\d:\d\d", bright)  # the time that is left
    assert COLOUR.search(bright)
    assert bright.count("step 1") == bright.count("look out") == 1

    assert "3/3" in shown["plain"]
    assert not COLOUR.search(shown["plain"])

    # Long texts go on below their beginning; a path stays whole.
    told = bright[bright.index("status   ") :].splitlines()
    assert [line[:21] for line in told] == ["status".ljust(21), *[" " * 21] * 3, "report".ljust(21)]
    assert max(map(len, told[:4])) <= 100
    assert told[4].endswith(30 * "folder/")

    assert "step 2" in shown["dumb"]
    assert "3/3" not in shown["dumb"]
    assert "\x1b" not in shown["dumb"]

    out, err = shown["pipe.out"], shown["pipe.err"]
    assert re.search(r"^status {15}(improved ){30}$", out, re.M)
    assert "\x1b" not in out + err
    assert [line for line in err.splitlines() if "look out" not in line] == ["step 0", "step 1", "step 2"]

    # Asked for, colour goes into a pipe; a bar, which is redrawn, never does.
    assert "\x1b[" in shown["pipe_forced.out"]
    assert "3/3" not in shown["pipe_forced.err"]
    assert "step 0\nstep 1\n" in shown["pipe_forced.err"]


def test_quiet_is_errors_alone(capfd, tmp_path):
    ms = tmp_path / "o.ms"
    small = ["--array", COMPACT, "--antennas", "4", "--channels", "2", "--dumps", "2"]
    assert main(["simulate", str(ms), *map(str, small), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert main(["catalog", "build", "nvss", str(tmp_path / "o.catalog.ecsv"), "-q",
                 "--catalog-dir", str(tmp_path / "c")]) == 0  # fmt: skip
    assert capfd.readouterr() == ("", "")
    image = ["image", str(ms), "--size", "64", "--catalog-dir", str(tmp_path / "c"), "--quiet"]
    assert main([*image, "--name", str(tmp_path / "i"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["image"] == str(tmp_path / "i-image.fits")
    assert err == ""
    assert main(["image", str(tmp_path / "no.ms"), "--name", str(tmp_path / "i"), "--quiet"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")


FIGURES = {"snr": 10.0, "rms_jy": 1e-3, "thermal_ratio": 1.1, "flux_ratio": 0.99, "flux_ratio_n": 5}
CLOSED = {
    "status": "refused", "message": "refused: signal to noise 2.1 per antenna", "seeded": True, "n_seeds": 3,
    "seed_flux_jy": 1.0, "best_iteration": 0, "iterations": [], "flux_units_changed": False, "products": {},
    "initial": FIGURES | {"offset_arcsec": None}, "final": FIGURES | {"offset_arcsec": [0.1, -0.2]},
    "heldout_sources": {"tells": True, "recovered_fraction": 0.98, "recovered_error": 0.02,
                        "taken_by_gains": 0.0,
                        "n_sources": 7, "n_agreeing": 6},
    "seed_verdicts": {"agrees": 6, "faint": 9, "moved": 1}, "seconds": {"total": 2.0},
    "findings": [{"kind": "beam_width", "text": "ask for a beam 1.2 times as wide", "status": ""},
                 {"kind": "moved", "text": "by 2 arcsec", "status": ""}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        ("refused", "refused: signal to noise 2.1", "refused: signal to noise 2.1"),
        ("diverged", "diverged and rolled back: worse", "diverged and rolled back: worse"),
        ("no_improvement", "input kept: worse", "no improvement: input kept: worse"),
    ],
)
def test_the_closing_table_says_each_thing_once(capfd, tmp_path, status, message, told):
    print_selfcal(CLOSED | {"status": status, "message": message}, tmp_path)
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert lines["status"] == told
    assert lines["bright sources"] == "6 as the catalogue has them, 1 elsewhere"
    assert lines["to be checked"] == "ask for a beam 1.2 times as wide"
    assert lines["held-out sources"].startswith("0.98 +- 0.02 of their flux")
    assert "6 of 7" in lines["held-out sources"]
    assert lines["position offset"].startswith("+0.10 arcsec east, -0.20 north")
    # The input was kept: before and after are the same.
    assert lines["signal to noise"] == "10.0"
    assert lines["image rms"].startswith("1 mJy/beam")


LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (\w+) (\S+) (.*)")


@pytest.mark.parametrize("journal", [False, True])
def test_a_line_for_each_record(journal):
    record = logging.makeLogRecord(
        {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "one\ntwo\r\n%s", "args": ("three",)}
    )
    said = LineFormatter(journal=journal).format(record)
    mark, line = said[: 3 * journal], said[3 * journal :]
    assert mark == ("<4>" if journal else "")
    assert LINE.fullmatch(line).groups() == ("warning", "-", "one two three")
    record.observation = "2026-01-25T22:26:05"
    assert LINE.fullmatch(LineFormatter().format(record))[2] == "2026-01-25T22:26:05"


def test_an_error_is_in_its_line():
    try:
        raise ValueError("of two\nlines")
    except ValueError:
        record = logging.makeLogRecord({"levelname": "ERROR", "msg": "internal", "exc_info": sys.exc_info()})
    assert LineFormatter().format(record).endswith("internal (ValueError: of two lines)")


def test_warnings_are_not_broken_where_nobody_looks(monkeypatch):
    monkeypatch.setenv("CONTIMG_NO_SUCH_OPTION_" + "X" * 100, "1")
    command = [sys.executable, "-m", "dsa110_contimg", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert LINE.fullmatch(line)[1] == "warning"


def test_help_is_legible_in_80_columns(capfd, monkeypatch):
    """Names of options are whole, and their help has most of the line."""
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("simulate", "selfcal", "run"):
        main([command, "--help"])
        shown = capfd.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        assert "…" not in shown
        # What is chosen, if it is not given, the help says in words.
        assert "chosen]" not in shown
        assert not re.search(r"<(list|int range|float range)|x<=\d{7}", shown)
    main(["simulate", "--help"])
    shown = capfd.readouterr().out
    assert re.search(
        r"^  --\[no-\]random-phases +Uniformly random antenna phases instead +\[default:\s+off\]", shown, re.M
    )
    titles = re.findall(r"^(\S.*):$", shown, re.M)
    assert titles[:3] == ["Arguments", "Options", "Often needed"]
    assert titles[-2:] == ["Sky", "Errors of the catalogue"]


def test_commands_stand_under_titles_and_no_arguments_show_them(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    shown = capfd.readouterr().out
    titles = re.findall(r"^(\S.*):$", shown, re.M)
    assert titles[:2] == ["One observation", "Many observations"]
    assert titles[-2:] == ["Set-up", "Options"]
    assert max(map(len, shown.splitlines())) <= 80
    command = typer.main.get_command(app)
    named = re.findall(r"^  ([a-z]+) {2,}\S", shown, re.M)
    assert sorted(named) == sorted(command.commands)
    for arguments in ([], ["catalog"]):
        assert main(arguments) == 2
        out, err = capfd.readouterr()
        assert out.startswith("Usage: ")
        assert re.search(r"^  --help", out, re.M)
        assert not err
    main(["status", "--help"])
    assert "x>=1]" in capfd.readouterr().out


def test_options_that_were_set_come_first_each_with_its_meaning(capfd, monkeypatch):
    monkeypatch.setenv("CONTIMG_ROBUST", "1.5")
    assert main(["config", "show", "--min-snr", "7"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert set(lines[0:4:2]) == {"robust = 1.5  (CONTIMG_ROBUST)", "min_snr = 7.0  (flag)"}
    assert "    Briggs robustness" in lines[1:4:2]
    assert "size = not given  (default)" in lines[4:]
