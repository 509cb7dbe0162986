"""Names that users' scripts import and call; whoever changes one breaks a script that nobody here sees."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from dsa110_contimg.catalogs import default_catalog_dir
from dsa110_contimg.cli import app
from dsa110_contimg.config import SelfCalConfig

#: Published import paths, each with all the names that it gives.
PUBLISHED = {
    "dsa110_contimg.calibration.catalogs": {
        "query_first_sources",
        "query_merged_nvss_first_sources",
        "query_nvss_sources",
    },
    "dsa110_contimg.calibration.selfcal": {"SelfCalConfig", "SelfCalResult", "selfcal_ms"},
    "dsa110_contimg.imaging.cli_imaging": {"ImageSet", "image_ms"},
    "dsa110_contimg.imaging.docker_utils": {
        "WSCleanContainer",
        "convert_host_path_to_container",
        "get_wsclean_container",
    },
}

QUERY = "ra_deg, dec_deg, radius_deg, min_flux_mjy=None, max_sources=None"
#: Parameters that can be given by position, with their defaults.
SIGNATURES = {
    "calibration.catalogs:query_nvss_sources": QUERY,
    "calibration.catalogs:query_first_sources": QUERY,
    "calibration.catalogs:query_merged_nvss_first_sources": QUERY,
    "calibration.selfcal:selfcal_ms": "ms_path, output_dir, config=None, initial_caltables=None",
    "imaging.cli_imaging:image_ms": "ms_path, name, config=None",
    "imaging.docker_utils:WSCleanContainer": (
        "container_name=None, image='contimg-wsclean:bookworm', mount_path='/stage/dsa110-contimg', "
        "container_mount='/data'"
    ),
    "imaging.docker_utils:get_wsclean_container": "force_new=False",
    "imaging.docker_utils:convert_host_path_to_container": (
        "host_path, host_mount='/stage/dsa110-contimg', container_mount='/data'"
    ),
}

#: Commands with their flags, one a line; written by `python -m tests.test_public_names`.
COMMANDS = Path(__file__).parent / "public_commands.txt"


def positional(function: Callable[..., object]) -> str:
    """The parameters that can be given by position, without types."""
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    )


def commands() -> Iterator[str]:
    """Each command with its positional arguments and flags."""

    def walk(command: object, words: str) -> Iterator[str]:
        if hasattr(command, "commands"):
            for name, below in command.commands.items():
                yield from walk(below, f"{words} {name}")
            return
        arguments = [p.name for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        flags = sorted(flag for p in options for flag in (*p.opts, *p.secondary_opts))
        yield " ".join([words + ":", *arguments, *flags])

    return walk(typer.main.get_command(app), "contimg")


@pytest.mark.parametrize("path", PUBLISHED)
def test_a_published_path_gives_its_names_and_no_others(path):
    module = importlib.import_module(path)
    assert set(module.__all__) == PUBLISHED[path]
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("function", SIGNATURES)
def test_calls_by_position_go_on_working(function):
    path, name = function.split(":")
    module = importlib.import_module(f"dsa110_contimg.{path}")
    assert positional(getattr(module, name)) == SIGNATURES[function]


def test_options_that_scripts_set():
    config = SelfCalConfig(use_nvss_seeding=False, nvss_min_mjy=10.0)
    assert (config.use_nvss_seeding, config.nvss_min_mjy) == (False, 10.0)
    assert SelfCalConfig().use_nvss_seeding


def test_the_catalogues_lie_where_scripts_look(monkeypatch):
    monkeypatch.delenv("CONTIMG_CATALOG_DIR", raising=False)
    assert default_catalog_dir() == Path("state/catalogs")
    monkeypatch.setenv("CONTIMG_CATALOG_DIR", "/elsewhere")
    assert default_catalog_dir() == Path("/elsewhere")


def test_commands_and_flags():
    assert list(commands()) == COMMANDS.read_text().splitlines()


if __name__ == "__main__":
    COMMANDS.write_text("\n".join(commands()) + "\n")
