"""WSClean, on the host or in a container, behind one runner that knows what the binary can do.

The Measurement Set is only read: WSClean works on reordered copies of the visibilities in a folder of its
own, never in MODEL_DATA, and it is checked afterwards that no file of the Measurement Set has changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dsa110_contimg.config import BackendConfig, ImagingConfig
from dsa110_contimg.errors import ConfigError, DeadlineError, WSCleanError
from dsa110_contimg.imaging.beamfit import RestoringBeam
from dsa110_contimg.imaging.clean import MAX_MAJOR, CleanResult
from dsa110_contimg.imaging.container import WSCleanContainer, get_wsclean_container
from dsa110_contimg.imaging.fits import FitsImage, read_image
from dsa110_contimg.imaging.grid import ARCSEC, ImageGrid
from dsa110_contimg.imaging.measure import mad_rms
from dsa110_contimg.imaging.mounts import Mount, parse_mounts
from dsa110_contimg.imaging.processes import run_program, wsclean_failure
from dsa110_contimg.visibilities import VisibilityReader, rephase_measurement_set

__all__ = [
    "Capabilities",
    "ContainerWSClean",
    "HostWSClean",
    "WSClean",
    "clean_with_wsclean",
    "detect_capabilities",
    "open_wsclean",
    "unchanged",
    "working_folder",
    "wsclean_arguments",
    "wsclean_input",
]

log = logging.getLogger("dsa110_contimg.imaging")

DETECT_S = 60.0
#: Part of the peak that one major cycle takes, as in the embedded engine.
MAJOR_GAIN = 0.8


class WSClean(Protocol):
    """A WSClean that can be called."""

    @property
    def name(self) -> str:
        """Which one, for messages and FITS headers."""
        ...

    def path(self, host_path: Path) -> str:
        """Path of a file as WSClean sees it."""
        ...

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it to its end, and give what it printed.

        Parameters
        ----------
        arguments : sequence of str
            Its arguments; paths as `path` gives them.
        timeout_s : float
            Deadline in seconds.
        outputs : sequence of Path
            Files that it must have written.

        Raises
        ------
        WSCleanError
            If it fails or files are lacking.
        DeadlineError
            If the deadline came.
        """
        ...

    def usage(self) -> str:
        """Give what it prints about its version and options."""
        ...


@dataclass(frozen=True)
class HostWSClean:
    """The program on this machine; it ends when the calling thread does.

    Parameters
    ----------
    program : str
        Its path.
    """

    program: str

    @property
    def name(self) -> str:
        """Path of the program."""
        return self.program

    def path(self, host_path: Path) -> str:
        """Give the absolute path itself."""
        return str(host_path.absolute())

    def usage(self) -> str:
        """Version and options."""
        return run_program([self.program], DETECT_S, tethered=True).stdout

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it; see `WSClean.call`."""
        for output in outputs:
            output.unlink(missing_ok=True)
        try:
            done = run_program([self.program, *arguments], timeout_s, tethered=True)
        except OSError as error:
            raise WSCleanError(
                f"cannot be run ({error.strerror or 'no such program'})", self.program
            ) from None
        if done.returncode is None:
            fate = "cannot be killed: the file system does not answer" if done.stuck else "was ended"
            raise DeadlineError(
                f"ran past its deadline of {timeout_s:g} s and {fate}",
                self.program,
                "give it longer with --timeout-s",
            )
        if done.returncode:
            raise wsclean_failure(done, self.program)
        lacking = [output.name for output in outputs if not output.is_file() or not output.stat().st_size]
        if lacking:
            raise WSCleanError(f"ended without {', '.join(lacking)}: {done.last_words}", self.program)
        return done.stdout


@dataclass(frozen=True)
class ContainerWSClean:
    """WSClean in a long-running container.

    Parameters
    ----------
    container : WSCleanContainer
        Started when first used.
    """

    container: WSCleanContainer

    @property
    def name(self) -> str:
        """Image of the container."""
        return f"{self.container.image} in {self.container.engine.name}"

    def path(self, host_path: Path) -> str:
        """Path inside the container."""
        return self.container.path(host_path)

    def usage(self) -> str:
        """Version and options."""
        return self.container.exec(["wsclean"], DETECT_S).stdout

    def call(self, arguments: Sequence[str], timeout_s: float, outputs: Sequence[Path] = ()) -> str:
        """Run it; see `WSClean.call`."""
        done = self.container.exec(["wsclean", *arguments], timeout_s, folder="/tmp", outputs=outputs)
        if done.returncode:
            raise wsclean_failure(done, self.name)
        return done.stdout


@dataclass(frozen=True)
class Capabilities:
    """What a WSClean can do.

    Attributes
    ----------
    version : str
        For example 3.1.0.
    options : frozenset of str
        Options that its help lists, each with its dash.
    """

    version: str
    options: frozenset[str]

    def has(self, option: str) -> bool:
        """Whether it has an option."""
        return option in self.options

    def require(self, option: str, why: str) -> None:
        """Raise ConfigError unless it has an option."""
        if not self.has(option):
            raise ConfigError(
                f"WSClean {self.version} has no {option}", why, "use another WSClean, or leave it out"
            )


def detect_capabilities(wsclean: WSClean) -> Capabilities:
    """Ask a WSClean for its version and options.

    Raises
    ------
    WSCleanError
        If it does not answer like WSClean.
    """
    try:
        said = wsclean.usage()
    except OSError as error:
        raise WSCleanError(f"cannot be run ({error})", wsclean.name, "apt-get install wsclean") from None
    version = re.search(r"WSClean version (\S+)", said)
    # An option opens its line; two may share it ("-update-model-required (default), and").
    opening = "\n".join(line for line in said.splitlines() if line.startswith("-"))
    options = frozenset(re.findall(r"(?<![\w-])-[a-z][a-z0-9-]*", opening))
    if version is None or not options:
        raise WSCleanError("does not answer like WSClean", wsclean.name, "check program or image")
    return Capabilities(version[1], options)


def open_wsclean(config: BackendConfig, ms: Path, products: Path) -> WSClean:
    """Give the WSClean that the options ask for.

    Parameters
    ----------
    config : BackendConfig
        Which, and what belongs to it.
    ms : Path
        Measurement Set; its folder is mounted read-only, unless the products go there.
    products : Path
        Folder of the products, which must be there.

    Raises
    ------
    WSCleanError
        If there is no program.
    ContainerError
        If the container does not start.
    """
    if config.backend == "wsclean":
        program = shutil.which(str(config.wsclean or "wsclean"))
        if program is None:
            raise WSCleanError(
                "no such program", config.wsclean or "wsclean", "apt-get install wsclean, or set --wsclean"
            )
        return HostWSClean(program)
    mounts = parse_mounts(config.container_mounts) if config.container_mounts else _mounts_for(ms, products)
    return ContainerWSClean(
        get_wsclean_container(image=config.container_image, mounts=mounts, engine=config.container_engine)
    )


def _mounts_for(ms: Path, products: Path) -> tuple[Mount, ...]:
    data, out = ms.resolve().parent, products.resolve()
    writable = parse_mounts(str(out))
    # Reading is all that imaging needs; where the products go beside the data there is one folder for both.
    return writable if data.is_relative_to(out) else parse_mounts(f"{data}:/host{data}:ro") + writable


@contextlib.contextmanager
def working_folder(prefix: Path) -> Iterator[Path]:
    """Make a folder beside the products for what is in the making; it goes in any case.

    What killed runs left there, whatever the name of their products, is removed first.
    """
    for old in prefix.parent.glob(".*.wsclean.*"):
        pid = old.name.rpartition(".")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = prefix.with_name(f".{prefix.name}.wsclean.{os.getpid()}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def unchanged(ms: Path) -> Iterator[None]:
    """Raise WSCleanError if files of a Measurement Set change meanwhile; locks do not count."""

    def state() -> dict[Path, tuple[int, int]]:
        files = (f for f in ms.rglob("*") if f.is_file() and f.name != "table.lock")
        return {f.relative_to(ms): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}

    before = state()
    yield
    after = state()
    changed = sorted(str(f) for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    if changed:
        raise WSCleanError(
            f"{len(changed)} files of the Measurement Set changed during imaging ({changed[0]})",
            ms,
            "compare with a copy",
        )


def wsclean_input(reader: VisibilityReader, column: str, folder: Path) -> tuple[Path, list[str]]:
    """Measurement Set and data selection for WSClean: one phase centre, whatever the fields.

    WSClean takes the first field alone unless told otherwise, and fields of one phase centre only. Fields
    with several are moved to that of the reader first, in a copy that holds the column to image as DATA.

    Parameters
    ----------
    reader : VisibilityReader
        The selection.
    column : str
        Column to image.
    folder : Path
        Where the copy goes.

    Returns
    -------
    Path, list of str
        Measurement Set, and arguments that select its data.
    """
    ms, selection = reader.ms, reader.selection
    windows = [ms.spectral_window(s).data_desc_id for s in selection.spw_ids]
    # WSClean counts what it calls spws in DATA_DESCRIPTION.
    spws = ["-spws", ",".join(map(str, windows))] if len(windows) < len(ms.spectral_windows) else []
    centres = {(ms.field(f).ra_rad, ms.field(f).dec_rad) for f in selection.field_ids}
    if len(centres) == 1:
        fields = ",".join(map(str, selection.field_ids))
        return ms.path.absolute(), ["-field", fields, "-data-column", column, *spws]
    moved = folder / "one-centre.ms"
    rephase_measurement_set(ms.path, moved, reader.phase_center, field_ids=selection.field_ids, column=column)
    return moved, ["-field", "0", "-data-column", "DATA", *spws]


def wsclean_arguments(
    config: ImagingConfig,
    grid: ImageGrid,
    capabilities: Capabilities,
    *,
    thermal_rms_jy: float,
    beam: RestoringBeam | None = None,
) -> list[str]:
    """Options of WSClean that mean what those of the embedded engine do.

    Parameters
    ----------
    config : ImagingConfig
        Options.
    grid : ImageGrid
        Size and cell.
    capabilities : Capabilities
        Of the binary.
    thermal_rms_jy : float
        Thermal rms of the image, Jy/beam: a depth in sigma goes no deeper than that.
    beam : RestoringBeam, optional
        Beam to restore with, so that peaks mean the same with each imager; WSClean's own by default.

    Raises
    ------
    ConfigError
        If the binary lacks what an option needs.
    """
    sigma, depth_jy = config.depth()
    arguments = ["-pol", "I", "-make-psf", "-no-update-model-required", "-reorder"]
    arguments += ["-size", str(grid.size), str(grid.size), "-scale", f"{grid.cell_rad / ARCSEC:.12g}asec"]
    arguments += [
        "-abs-mem",
        f"{config.memory_gb:g}",
        "-j",
        str(config.threads or len(os.sched_getaffinity(0))),
    ]
    arguments += ["-weight", config.weighting] + [f"{config.robust:g}"] * (config.weighting == "briggs")
    if capabilities.has("-gridder"):
        arguments += ["-gridder", "wgridder"]
    elif capabilities.has("-use-wgridder"):
        arguments += ["-use-wgridder"]
    arguments += [
        "-niter",
        str(config.clean_iterations),
        "-nmiter",
        str(MAX_MAJOR),
        "-mgain",
        f"{MAJOR_GAIN:g}",
    ]
    if depth_jy is not None or thermal_rms_jy > 0:
        arguments += ["-threshold", f"{depth_jy if depth_jy is not None else sigma * thermal_rms_jy:.6g}"]
    if sigma:
        arguments += ["-auto-threshold", f"{sigma:g}"]
    if config.mask is None and not config.catalog_mask and config.mask_sigma > sigma:
        arguments += ["-auto-mask", f"{config.mask_sigma:g}"]
    if beam is not None:
        arguments += [
            "-beam-shape",
            f"{beam.major_rad / ARCSEC:.6g}asec",
            f"{beam.minor_rad / ARCSEC:.6g}asec",
        ]
        arguments += [f"{np.degrees(beam.pa_rad):.6g}deg"]
    if config.multiscale:
        arguments += ["-multiscale"]
    if config.channels_out > 1:
        arguments += ["-channels-out", str(config.channels_out), "-join-channels"]
    if config.spectral_terms:
        arguments += ["-fit-spectral-pol", str(config.spectral_terms)]
    for argument in arguments:
        if re.fullmatch(r"-[a-z][a-z-]*", argument) and argument != "-pol":
            capabilities.require(argument, "wsclean")
    return arguments


def clean_with_wsclean(
    wsclean: WSClean,
    capabilities: Capabilities,
    ms: Path,
    selecting: Sequence[str],
    grid: ImageGrid,
    config: ImagingConfig,
    folder: Path,
    *,
    thermal_rms_jy: float,
    beam: RestoringBeam,
    mask: Path | None = None,
) -> tuple[CleanResult, list[Path]]:
    """Image and CLEAN a Measurement Set with WSClean.

    Parameters
    ----------
    wsclean : WSClean
        Which.
    capabilities : Capabilities
        What it can do.
    ms : Path
        Measurement Set.
    selecting : sequence of str
        Arguments that select its data.
    grid : ImageGrid
        Where.
    config : ImagingConfig
        How.
    folder : Path
        Folder to work in; it must be visible to WSClean.
    thermal_rms_jy : float
        Thermal rms of the image.
    beam : RestoringBeam
        Beam to restore with.
    mask : Path, optional
        FITS mask, visible to WSClean.

    Returns
    -------
    CleanResult, list of Path
        As of the embedded engine, and the images of the parts of the band, if asked for.

    Raises
    ------
    WSCleanError, DeadlineError, ContainerError
        If it fails; the Measurement Set has not been changed then.
    """
    arguments = wsclean_arguments(config, grid, capabilities, thermal_rms_jy=thermal_rms_jy, beam=beam)
    if mask is not None:
        arguments += ["-fits-mask", wsclean.path(mask)]
    prefix = folder / "w"
    joined = "-MFS" if config.channels_out > 1 else ""
    names = ["dirty", "psf"] if not config.clean_iterations else ["image", "residual", "model", "psf"]
    files = {name: folder / f"w{joined}-{name}.fits" for name in names}
    command = ["-name", wsclean.path(prefix), "-temp-dir", wsclean.path(folder), *arguments, *selecting]
    with unchanged(ms):
        said = wsclean.call([*command, wsclean.path(ms)], config.timeout_s, list(files.values()))
    for line in said.splitlines():
        log.debug("%s", line)
    images = {name: _read(path, grid) for name, path in files.items()}
    residual = images.get("residual", images.get("dirty", images["psf"])).image
    rms = mad_rms(residual)
    sigma, depth_jy = config.depth()
    model = images["model"].image if "model" in images else np.zeros_like(residual)
    result = CleanResult(
        model=model,
        residual=residual,
        restored=images["image"].image if "image" in images else residual.copy(),
        psf=images["psf"].image,
        beam=beam,
        n_major=said.count("== Converting model image to visibilities"),
        threshold_jy=max(depth_jy or sigma * thermal_rms_jy, sigma * rms),
        peak_residual=float(np.abs(residual).max()),
        rms=rms,
    )
    parts = [folder / f"w-{k:04d}-image.fits" for k in range(config.channels_out)] if joined else []
    return result, [part for part in parts if part.is_file()]


def _read(path: Path, grid: ImageGrid) -> FitsImage:
    image = read_image(path)
    same = image.grid.size == grid.size and abs(image.grid.cell_rad / grid.cell_rad - 1) < 1e-6
    x, y = grid.sky_to_pixel(image.grid.ra_rad, image.grid.dec_rad)
    if not same or max(abs(float(x) - grid.center), abs(float(y) - grid.center)) > 0.01:
        raise WSCleanError("the image lies elsewhere than asked for", path, "check the phase centres")
    return image
