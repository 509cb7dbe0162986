"""What a WSClean can do, and arguments that mean what the options of the embedded engine do."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ConfigError, WSCleanError
from dsa110_contimg.imaging.clean import MAX_MAJOR
from dsa110_contimg.imaging.grid import ARCSEC, ImageGrid
from dsa110_contimg.imaging.restoring_beam import RestoringBeam
from dsa110_contimg.imaging.wsclean.runner import MAJOR_GAIN, WSClean

__all__ = ["Capabilities", "detect_capabilities", "wsclean_arguments"]


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
