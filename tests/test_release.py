"""What is released: one version, a citation that agrees, a wheel that works where it alone is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import dsa110_contimg

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Files that are no Python and that the package needs when it runs, by what they are for.
PACKAGE_DATA = {
    "dsa110_contimg/py.typed": "type checkers",
    "dsa110_contimg/report/template/report.html": "the report",
    "dsa110_contimg/report/template/report.css": "the report",
    "dsa110_contimg/report/template/report.js": "the report",
    "dsa110_contimg/simulate/arrays/dsa110.txt": "simulations",
    "dsa110_contimg/imaging/wsclean/wsclean-image.sh": "contimg container build",
}


def test_the_version_is_written_in_one_place():
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", dsa110_contimg.__version__)


def test_the_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == dsa110_contimg.__version__
    assert citation["title"] == PROJECT["name"]
    assert citation["abstract"] == PROJECT["description"]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PROJECT["authors"]]
    assert citation["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", citation["date-released"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources: a build leaves files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip(["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", folder])
    (built,) = (folder / "dist").glob("*.whl")
    return built


def pip(words: list[object]) -> None:
    """Call pip without a network."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_what_the_package_needs(wheel):
    assert wheel.name == f"dsa110_contimg-{dsa110_contimg.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(PACKAGE_DATA) <= names
    sources = ROOT / "src"
    data = {str(p.relative_to(sources)) for p in sources.glob("dsa110_contimg/**/*") if p.is_file()}
    expected = {name for name in data if "__pycache__" not in name}
    assert {name for name in names if name.startswith("dsa110_contimg/")} == expected


def test_the_wheel_runs_where_it_alone_is_installed(wheel, tmp_path):
    """The dependencies are those of this environment; the package comes from the wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    )
    pip(["--python", python, "install", "--no-deps", wheel])
    # Paths that come by this file are looked in last, and links to sources in them are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("CONTIMG_")}

    def said(*words: object) -> str:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = said(python, "-c", "import dsa110_contimg; print(dsa110_contimg.__file__)").strip()
    assert Path(where).is_relative_to(site)
    contimg = tmp_path / "venv" / "bin" / "contimg"
    assert said(contimg, "--version") == f"contimg {dsa110_contimg.__version__}\n"
    assert "selfcal" in said(contimg, "--help")
    assert '"title": "selfcal_summary.json"' in said(contimg, "config", "schema")
