"""The commands ``contimg container`` and ``contimg doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dsa110_contimg.cli.help_text import App
from dsa110_contimg.cli.terminal import JsonFlag, QuietFlag, print_result, wrapped
from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ContainerEngineError, ContainerError

__all__ = ["container_app", "doctor"]

container_app = App(help="WSClean in a container: its image, what runs, what is left.", no_args_is_help=True)

EngineFlag = Annotated[
    Literal["auto", "docker", "podman"] | None,
    typer.Option("--container-engine", help="Container engine", show_default="auto"),
]
ImageFlag = Annotated[
    str | None, typer.Option("--container-image", help="Image", show_default="contimg-wsclean:bookworm")
]


def _config(engine: str | None, image: str | None = None) -> ImagingConfig:
    return ImagingConfig.load(None, {"container_engine": engine, "container_image": image})


@container_app.command("build")
def build(
    container_engine: EngineFlag = None,
    container_image: ImageFlag = None,
    tarball: Annotated[
        Path | None, typer.Option(help="Where its file system is kept", show_default="the user's cache")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make the WSClean image from Debian packages, without an image registry."""
    from dsa110_contimg.imaging.wsclean.container_engine import find_engine
    from dsa110_contimg.imaging.wsclean.container_image import build_image

    config = _config(container_engine, container_image)
    engine = find_engine(config.container_engine)
    identifier = build_image(engine, config.container_image, tarball)
    values = {"engine": engine.name, "image": config.container_image, "id": identifier}
    print_result(values, [f"{config.container_image} is in {engine.name}: {identifier}"], as_json, quiet)


@container_app.command("status")
def status(container_engine: EngineFlag = None, as_json: JsonFlag = False) -> None:
    """List the containers of this package, with the processes that they belong to."""
    listed = [
        {"engine": engine.name, **asdict(container)}
        for engine in _engines(container_engine)
        for container in engine.leftovers()
    ]
    lines = [f"{c['engine']} {c['name']}: {c['state']}, process {c['pid']} is {c['owner']}" for c in listed]
    print_result({"containers": listed}, lines or ["no containers"], as_json)


@container_app.command("stop")
def stop(
    name: Annotated[str, typer.Argument(help="Container, as `contimg container status` names it")],
    container_engine: EngineFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Kill and remove a container of this package, whoever uses it."""
    for engine in _engines(container_engine):
        if any(container.name == name for container in engine.leftovers()):
            engine.remove(name)
            print_result({"stopped": name, "engine": engine.name}, [f"{name} removed"], as_json)
            return
    raise ContainerError("no such container of this package", name, "contimg container status lists them")


@container_app.command("reap")
def reap(container_engine: EngineFlag = None, as_json: JsonFlag = False) -> None:
    """Remove containers whose process is gone."""
    from dsa110_contimg.imaging.wsclean.container_engine import reap_leftovers

    done = [(engine, *pair) for engine in _engines(container_engine) for pair in reap_leftovers(engine)]
    values = [{"engine": e.name, "name": c.name, "problem": problem} for e, c, problem in done]
    lines = [f"{e.name} {c.name}: {problem or 'removed'}" for e, c, problem in done]
    print_result({"reaped": values}, lines or ["nothing left over"], as_json)
    if any(problem for *_, problem in done):
        raise ContainerError("some containers could not be removed", "contimg container reap", "see above")


def doctor(
    catalog_dir: Annotated[
        Path | None,
        typer.Option("--catalog-dir", help="Folder of the catalogue strips", show_default="state/catalogs"),
    ] = None,
    container_image: ImageFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is installed, found and missing, each with its remedy."""
    from dsa110_contimg.cli.doctor import examine

    config = ImagingConfig.load(None, {"catalog_dir": catalog_dir, "container_image": container_image})
    findings = examine(config)
    lines = []
    for f in findings:
        first, *others = wrapped(f.detail + (f"; {f.remedy}" if f.remedy else ""), indent=32)
        lines += [f"{f.state:<8} {f.subject:<22} " + first[32:], *others]
    print_result({"findings": [asdict(f) for f in findings]}, lines, as_json)


def _engines(choice: str | None) -> list[Any]:
    """All engines that answer, or the one that is asked for."""
    from dsa110_contimg.imaging.wsclean.container_engine import find_engine

    wanted = _config(choice).container_engine
    if wanted != "auto":
        return [find_engine(wanted)]
    found, lacking = [], []
    for name in ("docker", "podman"):
        try:
            found.append(find_engine(name))
        except ContainerEngineError as error:
            lacking.append(error.what)
    if not found:
        raise ContainerEngineError("; ".join(lacking), "container engine", "start or install one")
    return found
