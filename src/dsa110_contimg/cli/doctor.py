"""What is installed, found and missing, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsa110_contimg import __version__
from dsa110_contimg.catalogs import catalog_info
from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ContainerEngineError, ContimgError
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities
from dsa110_contimg.imaging.wsclean.container_engine import Engine, find_engine
from dsa110_contimg.imaging.wsclean.runner import HostWSClean

__all__ = ["Finding", "examine"]

#: Free disk that a transit needs for columns and images, and memory for its visibilities, bytes.
ENOUGH_DISK = 20 << 30
ENOUGH_MEMORY = 6 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes
    ----------
    subject : str
        What.
    state : {"ok", "missing", "problem"}
        "missing" is what can be done without.
    detail : str
        What was found.
    remedy : str
        What to do, if anything.
    """

    subject: str
    state: Literal["ok", "missing", "problem"]
    detail: str
    remedy: str = ""


def examine(config: ImagingConfig) -> list[Finding]:
    """Look at everything that the package stands on.

    Parameters
    ----------
    config : ImagingConfig
        Where catalogues, WSClean and container image are looked for.
    """
    looks: tuple[Callable[[ImagingConfig], Iterator[Finding]], ...] = (
        _python,
        _catalogs,
        _wsclean,
        _containers,
        _machine,
    )
    return [finding for look in looks for finding in look(config)]


def _python(config: ImagingConfig) -> Iterator[Finding]:
    names = ("python-casacore", "ducc0", "radler", "numba")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    yield Finding("contimg", "ok", f"{__version__}, Python {sys.version.split()[0]}, {versions}")


def _catalogs(config: ImagingConfig) -> Iterator[Finding]:
    folder = config.catalog_dir
    try:
        strips = catalog_info(folder)
    except ContimgError as error:
        yield Finding("catalogues", "problem", str(error))
        return
    if not strips:
        yield Finding("catalogues", "missing", f"no strips in {folder}", "contimg catalog build nvss SOURCE")
        return
    names = ", ".join(sorted({strip.catalog for strip in strips}))
    low, high = min(s.dec_min for s in strips), max(s.dec_max for s in strips)
    yield Finding(
        "catalogues", "ok", f"{names}, {len(strips)} strips, Dec {low:+.1f} to {high:+.1f}, in {folder}"
    )


def _wsclean(config: ImagingConfig) -> Iterator[Finding]:
    program = shutil.which(str(config.wsclean or "wsclean"))
    if program is None:
        yield Finding(
            "WSClean here", "missing", "no program", "apt-get install wsclean, or set CONTIMG_WSCLEAN"
        )
        return
    try:
        capabilities = detect_capabilities(HostWSClean(program))
    except ContimgError as error:
        yield Finding("WSClean here", "problem", str(error))
        return
    lacking = [o for o in ("-draw-model", "-gridder") if not capabilities.has(o)]
    without = f", without {', '.join(lacking)}" if lacking else ""
    yield Finding("WSClean here", "ok", f"{capabilities.version} at {program}{without}")


def _containers(config: ImagingConfig) -> Iterator[Finding]:
    for name in ("docker", "podman"):
        try:
            engine = find_engine(name)
            version = engine.version()
        except ContainerEngineError as error:
            yield Finding(name, "missing", error.what, error.remedy)
            continue
        yield Finding(name, "ok", f"{version} at {engine.program}")
        yield _image(engine, config.container_image)
        yield from _leftovers(engine)


def _image(engine: Engine, image: str) -> Finding:
    subject = f"image in {engine.name}"
    identifier = engine.image_id(image)
    if identifier is None:
        return Finding(subject, "missing", image, f"contimg container build --container-engine {engine.name}")
    command = ["run", "--rm", "--pull=never", "--network=none", *engine.run_options(), "--entrypoint=wsclean"]
    said = engine.call(*command, image, "-version", timeout_s=60.0)
    version = next((line.split()[2] for line in said.stdout.splitlines() if "WSClean version" in line), None)
    if version is None:
        return Finding(
            subject, "problem", f"{image}: WSClean does not run: {said.last_words}", "build it anew"
        )
    return Finding(subject, "ok", f"{image} ({identifier.removeprefix('sha256:')[:12]}), WSClean {version}")


def _leftovers(engine: Engine) -> Iterator[Finding]:
    subject = f"containers in {engine.name}"
    try:
        there = engine.leftovers()
    except ContimgError as error:
        yield Finding(subject, "problem", str(error))
        return
    orphans = [c for c in there if c.owner == "gone"]
    detail = f"{len(there) - len(orphans)} in use, {len(orphans)} left over"
    names = ": " + ", ".join(c.name for c in orphans) if orphans else ""
    remedy = "contimg container reap" if orphans else ""
    yield Finding(subject, "problem" if orphans else "ok", detail + names, remedy)


def _machine(config: ImagingConfig) -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    enough = free >= ENOUGH_DISK
    yield Finding(
        "disk",
        "ok" if enough else "problem",
        f"{free / 1e9:.0f} GB free in {Path.cwd()}",
        "" if enough else "a full transit needs about 20 GB",
    )
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    enough = available >= ENOUGH_MEMORY
    yield Finding(
        "memory",
        "ok" if enough else "problem",
        f"{available / 1e9:.1f} GB available, {len(os.sched_getaffinity(0))} cores",
        "" if enough else f"a full transit needs about 6 GB; lower --memory-gb (now {config.memory_gb:g})",
    )
