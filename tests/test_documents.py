"""What the documents say is so: their commands run, their code runs, their links lead somewhere.

Every command of a fenced `sh` block is run for real in a folder that has what the documents name, or stands
in `NOT_RUN` with the reason; what is not run has at least to exist with its options.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import matplotlib as mpl
import numpy as np
import pytest
import typer
from matplotlib import pyplot as plt

import dsa110_contimg
from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.cli import app
from dsa110_contimg.cli.main import main
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.selfcal.naming import SUMMARY
from dsa110_contimg.selfcal.summary_schema import summary_schema
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities import open_measurement_set
from scripts.site.blocks import blocks_of
from tests.arrays import COMPACT
from tests.catalogs.files import Sources, draw, write_first_fits
from tests.needs import REQUIRE_ALL, program
from tests.test_public_names import PUBLISHED

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {str(document.relative_to(ROOT)): document for document in DOCUMENTS}
#: Documents that go on with what the ones before them left, in one folder.
TOGETHER = [
    [f"docs/how-to/{name}.md" for name in ("many-observations", "rollout-and-rollback", "production")],
]
#: Where a field is that the documents ask catalogues for, degrees.
FIELD = (128.73, 55.57)
#: One tiny observation for all documents. Variables keep the work small where no option says otherwise:
#: small images, and no search for intervals, groupings and bandpasses.
TINY = {"array": COMPACT, "antennas": 12, "channels": 4, "dumps": 2, "sefd_jy": 500.0, "min_mjy": 200.0}
VARIABLES = {
    "CONTIMG_SIZE": "192",
    "CONTIMG_CELL_ARCSEC": "24",
    "CONTIMG_SOLINT": "int",
    "CONTIMG_AMPLITUDE_SOLINT": "inf",
    "CONTIMG_GAIN_TYPE": "G",
    "CONTIMG_COMBINE_SPW": "on",
    "CONTIMG_SPECTRAL": "off",
    "CONTIMG_WORKER_MEMORY_GB": "3",
}
#: What is not run, by how it begins, and why. Entries that no document uses any more fail a test.
NOT_RUN = {
    "make demo": "simulates, and calibrates, a full-size observation for minutes",
    "make test": "runs this test",
    "contimg simulate full.ms": "a full-size array takes minutes",
    "contimg catalog build nvss full.catalog.ecsv": "of that observation",
    "contimg selfcal full.ms": "of that observation",
    "contimg score full-out": "of that observation",
    "contimg simulate transit.ms": "takes minutes",
    "contimg catalog build nvss transit.catalog.ecsv": "of that observation",
    "contimg selfcal obs.ms out-file": "needs a cube of the beam; tests/selfcal/stages/test_beam_width.py",
    "contimg selfcal obs.ms out-mixed": "needs a list of beams; tests/selfcal/test_mixed_dishes.py",
    "contimg compare": "every arm is a process of its own; tests/compare/test_run.py",
    "contimg study": "takes half an hour; tests/compare/test_study.py",
    "contimg variables": "of many observations; tests/pipeline/test_lightcurves.py",
    "contimg transients": "of many observations; tests/pipeline/test_lightcurves.py",
    "contimg lightcurve": "of many observations; tests/pipeline/test_lightcurves.py",
    "contimg compile": "compiles for a minute and a half; tests/cli/test_kernels.py",
    "contimg catalog build nvss https://": "needs a server; tests/catalogs/test_download.py",
    "contimg container build": "needs root and an archive of packages; tests/imaging/wsclean",
    "contimg image obs.ms --name container": "needs that image; tests/imaging/wsclean",
    "contimg watch": "goes on until it is ended; tests/pipeline/test_driver.py",
    "contimg run /data/incoming/2026-01-25T*.ms /data/contimg --slurm": "needs Slurm",
    "podman build": "needs a registry",
    "python3 -m pip wheel": "tests/test_release.py builds the wheel and installs it",
    "python -m benchmarks.full": "takes half an hour and installs its peers",
    "install -m 0644": "changes the machine",
    "timeout 5 sh -c": "for a mount that is dead",
}
#: Files of surveys that the documents name; their layouts are those of tests/catalogs/test_surveys.py.
SURVEY_FILES = (
    *("sumss.tsv", "racs_low.csv", "racs_mid.csv", "CIRADA_VLASS2QLv2_table1_components.csv.gz"),
    *("TGSSADR1_7sigma_catalog.tsv", "LoTSS_DR2_v110_masked.srl.fits", "GLEAM_EGC_v2.fits", "wenss.tsv"),
    "field.csv",
)
#: An entry of the list of VLA calibrators, as the observatory hands it out.
CALIBRATORS = """IAU NAME EQUINOX  PC RA(hh,mm,ss)    DEC(ddd,mm,ss)   POS.REF ALT.NAME

0834+555   J2000  A 08h34m54.903997s  55d34'21.070980"  Aug01
-----------------------------------------------------
BAND        A B C D    FLUX(Jy)    UVMIN(kL)  UVMAX(kL)
=====================================================
 20cm    L  P S X X       8.80
"""


def commands_of(document: Path) -> list[str]:
    """Commands of a document, one a line, without their comments and line breaks."""
    found = []
    for block in blocks_of(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"(^|\s)#.*$", "", line).strip()
            if command:
                found.append(" ".join(command.split()) if "'" not in command else command)
    return found


def reason_not_run(command: str) -> str | None:
    """The entry of `NOT_RUN` that a command begins with."""
    return next((key for key in NOT_RUN if command.startswith(key)), None)


@lru_cache
def command_line() -> Any:
    """The commands as they are registered."""
    return typer.main.get_command(app)


def parse(words: list[str]) -> None:
    """Let the command line read the words of a `contimg` command, without doing anything."""
    command = command_line()
    name, *rest = words
    while hasattr(command, "commands"):
        assert rest, words
        assert rest[0] in command.commands, f"no command {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)


def exists(command: str) -> None:
    """Look for all that can be looked for in a command that is not run."""
    words = shlex.split(command)
    if words[0] == "contimg":
        parse(words)
    elif words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, command
    elif "-m" in words and words[0].startswith("python"):
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module), command
    else:
        assert words[0] in ("podman", "install", "timeout"), f"{command}: how is it checked?"
    for word in words:
        if word.startswith(("deploy/", "scripts/", "studies/", "benchmarks/")):
            assert list(ROOT.glob(word)), f"{command}: no {word}"


def write_tables(folder: Path, ms_path: Path) -> None:
    """Write the initial tables that the documents name: a bandpass and two tables of gains, all of one."""
    ms = open_measurement_set(ms_path)
    kinds = {"bpcal": "B Jones", "gpcal": "G Jones", "2gcal": "G Jones"}
    windows = {window.id: window.freq_hz for window in ms.spectral_windows}
    for name, kind in kinds.items():
        gains = {}
        for spw, freq in windows.items():
            n_channels = freq.size if kind == "B Jones" else 1
            shape = (1, len(ms.antennas), n_channels, 2)
            gains[spw] = Gains(
                time_s=np.array([5e9]),
                interval_s=np.array([60.0]),
                freq_hz=freq[:n_channels],
                gain=np.ones(shape, complex),
                flag=np.zeros(shape, bool),
                error=np.full(shape, 0.01),
                snr=np.full(shape, 100.0),
                reference_antenna=np.zeros(1, int),
                field_id=np.zeros(1, int),
                scan=np.zeros(1, int),
            )
        write_gain_table(folder / name, kind, gains, ms)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with everything that the documents name; never changed."""
    folder = tmp_path_factory.mktemp("prepared")
    ra, dec = FIELD
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        simulate(folder / "obs.ms", SimulationConfig(ra=ra, dec=dec, random_phases=True, **TINY))
        write_tables(folder, folder / "obs.ms")
        listed = folder / "obs.catalog.ecsv"
        build_strips("nvss", listed, folder / "state" / "catalogs")
        # What a file is, is seen from its content, whatever its name.
        for name in ("heasarc_nvss.tdat.gz", "NVSS.fits", "mysky.csv", *SURVEY_FILES):
            shutil.copy(listed, folder / name)
        drawn = draw(300_000, dec_min=50.0)
        near = np.hypot((drawn.ra_deg - ra) * np.cos(np.radians(dec)), drawn.dec_deg - dec) < 4
        some = Sources(*(getattr(drawn, name)[near] for name in drawn.__dataclass_fields__))
        write_first_fits(folder / "first_14dec17.fits.gz", some)
        build_strips("first", folder / "first_14dec17.fits.gz", folder / "state" / "catalogs")
        (folder / "vlacalibrators.txt").write_text(CALIBRATORS)
        assert main(["catalog", "build", "calibrators", "vlacalibrators.txt"]) == 0
        shutil.copy(COMPACT, folder / "core.txt")
        shutil.copy(ROOT / "deploy" / "contimg.toml", folder / "contimg.toml")
        shutil.copytree(folder / "obs.ms", folder / "demo-output" / "demo.ms")
        shutil.copytree(folder / "state" / "catalogs", folder / "demo-output" / "catalogs")
        assert main(["selfcal", "demo-output/demo.ms", "demo-output/selfcal"]) == 0
        shutil.copytree(folder / "demo-output" / "selfcal", folder / "out")
        incoming = folder / "data" / "incoming"
        shutil.copytree(folder / "obs.ms", incoming / "2026-01-25T22:26:05.ms")
        (folder / "backup").mkdir()
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of that folder to work in, as its owner does: variables set, `contimg` on the path."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.upper().startswith("CONTIMG_") and n != REQUIRE_ALL]:
        monkeypatch.delenv(name)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = tmp_path / ".venv" / "bin" / "contimg"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dsa110_contimg "$@"\n')
    script.chmod(0o755)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    # The same package as here, wherever a shell starts it.
    monkeypatch.setenv("PYTHONPATH", str(Path(dsa110_contimg.__file__).parents[1]))
    monkeypatch.setenv("PATH", f"{script.parent}:{Path(sys.executable).parent}:/usr/bin:/bin")
    return tmp_path


def matching(word: str) -> list[str]:
    """Files that a word of a shell stands for; none where it is no pattern or nothing is there."""
    if "*" not in word:
        return []
    path = Path(word)
    return sorted(str(found) for found in path.parent.glob(path.name))


def run(command: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command; absolute paths of the documents are in the folder."""
    command = re.sub(r"(?<![\w.])/(data|backup)/", lambda m: f"{here}/{m[1]}/", command)
    if set_variable := re.fullmatch(r"export (\w+)=(\S+)", command):
        monkeypatch.setenv(set_variable[1], set_variable[2])
        return
    words = shlex.split(command)
    needs_shell = words[0] != "contimg" or re.search(r"[|><;&$]", command) or words[1] == "run"
    if needs_shell:
        for name in {"jq"} & set(words):
            program(name)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return
    if "--backend" in words and words[words.index("--backend") + 1] == "wsclean":
        program("wsclean")
    expanded = [found for word in words[1:] for found in (matching(word) or [word])]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(expanded)
    assert status == 0, f"{command}\n{said.getvalue()}"


def groups() -> Iterator[list[str]]:
    """Documents with commands, those that belong together in their order."""
    later = {name for group in TOGETHER for name in group}
    yield from TOGETHER
    yield from ([name] for name, path in NAMES.items() if name not in later and commands_of(path))


@pytest.mark.parametrize("group", list(groups()), ids=lambda group: group[0])
def test_commands_run(group, here, monkeypatch):
    for name in group:
        for command in commands_of(NAMES[name]):
            if reason_not_run(command):
                exists(command)
            else:
                run(command, here, monkeypatch)
    for file in here.rglob(SUMMARY):
        jsonschema.validate(json.loads(file.read_text()), summary_schema())


def test_every_reason_is_still_needed():
    used = {reason_not_run(command) for path in DOCUMENTS for command in commands_of(path)}
    assert set(NOT_RUN) == used - {None}


def test_a_command_that_does_not_exist_is_found():
    with pytest.raises(AssertionError, match="no command"):
        parse(["contimg", "selfcall", "obs.ms", "out"])
    with pytest.raises(typer.BadParameter.__bases__[0], match="No such option"):
        parse(["contimg", "selfcal", "obs.ms", "out", "--no-such-option"])
    with pytest.raises(AssertionError, match="no deploy/nothing"):
        exists("install -m 0644 deploy/nothing.service /etc/systemd/system/")


def test_commands_in_the_text_exist():
    """Every `contimg ...` between backticks is a command with these options; it may end in an ellipsis."""
    seen = 0
    for path in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for quoted in re.findall(r"`(contimg [^`]+)`", text):
            words = [word for word in shlex.split(quoted.replace("\\|", "|")) if word.strip(".|")]
            command = command_line()
            rest = words[1:]
            while hasattr(command, "commands") and rest and rest[0] in command.commands:
                command, rest = command.commands[rest[0]], rest[1:]
            placeholder = words[1] == "COMMAND" or words[1].startswith("-")
            assert placeholder or rest != words[1:], f"{path}: {quoted}"
            flags = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}
            flags |= {"--install-completion"}
            assert {w.partition("=")[0] for w in rest if w.startswith("--")} <= flags, f"{path}: {quoted}"
            seen += 1
    assert seen > 50


@pytest.mark.parametrize("name", [name for name, path in NAMES.items() if blocks_of(path, "python")])
def test_python_runs(name, here, monkeypatch, capsys):
    mpl.use("Agg")
    names: dict[str, object] = {}
    for block in blocks_of(NAMES[name], "python"):
        exec(compile(block, name, "exec"), names)
    plt.close("all")
    for number, picture in enumerate(re.findall(r'savefig\("(\S+?)"', NAMES[name].read_text())):
        assert (here / picture).stat().st_size > 0, number
        assert f"../pictures/{picture}" in NAMES[name].read_text()


def test_the_reference_has_every_published_name():
    text = NAMES["docs/reference/python.md"].read_text()
    for path, names in PUBLISHED.items():
        assert f"from {path} import" in text
        for name in names:
            assert re.search(rf"\b{name}\b", text), name


#: Pages that are made when the site is built.
MADE = ("commands", "options", "errors", "products", "summary", "gain-tables")


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    document = ROOT / name
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", text):
        made = target.endswith(tuple(f"{page}.md" for page in MADE)) and name.startswith("docs/")
        made |= target.endswith("selfcal_summary.schema.json")
        assert made or (document.parent / target).exists(), target


def test_symptoms_are_quoted_as_the_program_says_them():
    """Every message of the first column is in the sources; an ellipsis stands for what differs."""
    sources = " ".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # parts of one text on several lines
    sources = " ".join(re.sub(r"\{[^{}]*\}", "...", sources).split())
    seen = 0
    for line in NAMES["docs/troubleshooting/index.md"].read_text().splitlines():
        for quoted in re.findall(r"`([^`]+)`", line.split(" | ")[0]) if line.startswith("| ") else ():
            for part in quoted.split("..."):
                assert part.strip(" ,%") in sources, quoted
            seen += 1
    assert seen > 30


def test_pictures_are_small():
    pictures = [p for p in (ROOT / "docs").rglob("*") if p.suffix in (".png", ".webp")]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 200_000, picture


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/-]+\.md$", text, re.MULTILINE))
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert named == pages | {f"reference/{page}.md" for page in MADE}
