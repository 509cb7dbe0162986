"""Imagers behind one protocol: the same problem in, the same result out.

:func:`open_backend` is the one place that asks which imager the options name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dsa110_contimg.array_types import Bool, Image
from dsa110_contimg.config import BackendConfig, CleanConfig, ImagingConfig
from dsa110_contimg.errors import ConfigError
from dsa110_contimg.files import replacing
from dsa110_contimg.imaging.clean import CleanResult, CleanSettings, clean
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.gridder import Imager
from dsa110_contimg.imaging.masks import write_mask
from dsa110_contimg.imaging.restoring_beam import RestoringBeam, fit_beam
from dsa110_contimg.imaging.stokes import StokesI, handed_over
from dsa110_contimg.imaging.wsclean.arguments import Capabilities, detect_capabilities, wsclean_arguments
from dsa110_contimg.imaging.wsclean.clean import clean_with_wsclean, working_folder
from dsa110_contimg.imaging.wsclean.runner import WSClean, container_wsclean, host_wsclean
from dsa110_contimg.visibilities import NoiseScale

__all__ = [
    "Backend",
    "CleanedImage",
    "Embedded",
    "ImagingProblem",
    "StokesVisibilities",
    "WSCleanBackend",
    "open_backend",
    "require_effect",
]

#: Signs in the name of a file by which CFITSIO tells its extended syntax.
EXTENDED_SYNTAX = ("[", "(")

#: Minor-cycle gain where no source stands out: measured, the residual's rms is within 0.2 per cent of that at
#: a gain of 0.1, in half the time.
INCOHERENT_GAIN = 0.3
#: Options that WSClean alone has.
OF_WSCLEAN = ("channels_out", "spectral_terms", "wsclean", "container_mounts")


@dataclass(frozen=True, eq=False)
class StokesVisibilities:
    """Stokes I visibilities about the common phase centre, with their noise.

    Attributes
    ----------
    chunks : sequence of StokesI
        Visibilities and weights.
    noise : NoiseScale
        Noise relative to the weights.
    """

    chunks: Sequence[StokesI]
    noise: NoiseScale


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagingProblem:
    """What is to be imaged.

    Attributes
    ----------
    grid : ImageGrid
        Where.
    freq_hz : ndarray, shape (nchan,)
        All channels, for the headers of masks.
    visibilities : callable
        Gives the visibilities. They are asked for once, and let go as early as the imager can.
    measurement_set : callable
        Given a folder to work in, gives a Measurement Set that holds the same visibilities about one
        phase centre, and the arguments with which WSClean selects them.
    mask_for : callable or None
        Gives the pixels in which CLEAN may find components, shape (size, size), for the restoring beam;
        None to leave that to CLEAN.
    depth_jy : float or None
        Depth of another image that this one is compared with, in jansky.
    one_cycle : bool
        CLEAN in a single cycle, see :class:`CleanSettings`; for the embedded engine alone.
    incoherent : bool
        Whether the data are far from coherent: the embedded engine grids them as exactly as noise needs it,
        and CLEANs in fewer and larger steps.
    made_before : (ndarray of float32, str) or None
        Point spread function of an earlier image of these data and the digest of its weights: used again if
        the weights are the same.
    """

    grid: ImageGrid
    freq_hz: np.ndarray
    visibilities: Callable[[], StokesVisibilities]
    measurement_set: Callable[[Path], tuple[Path, list[str]]]
    mask_for: Callable[[RestoringBeam], Bool | None] | None = None
    depth_jy: float | None = None
    one_cycle: bool = False
    incoherent: bool = False
    made_before: tuple[Image, str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanedImage:
    """What an imager made of a problem.

    Attributes
    ----------
    cleaned : CleanResult
        Model, residual, restored image, psf and beam.
    shallow : CleanResult
        The same data CLEANed no deeper than the image they are compared with; `cleaned` itself where
        there is none, or where the imager knows one depth only.
    thermal_per_noise : float
        Thermal rms in jansky per beam for a noise of one jansky, real part at unit weight.
    noise : NoiseScale
        Noise of the visibilities.
    mask : ndarray of bool, shape (size, size), or None
        Where components could be, if that was bounded.
    channels : tuple of Path
        Images of parts of the band, if asked for.
    griddings : int
        Images gridded by the embedded engine on the way.
    weights_digest : str
        Digest of the embedded engine's weights; empty of another imager.
    """

    cleaned: CleanResult
    shallow: CleanResult
    thermal_per_noise: float
    noise: NoiseScale
    mask: Bool | None = None
    channels: tuple[Path, ...] = ()
    griddings: int = 0
    weights_digest: str = ""

    @property
    def thermal_rms_jy(self) -> float:
        """Thermal rms of the image, jansky per beam."""
        return self.thermal_per_noise * self.noise.rms


class Backend(Protocol):
    """An imager."""

    @property
    def label(self) -> str:
        """Which one, for messages and FITS headers."""
        ...

    def image(self, problem: ImagingProblem) -> CleanedImage:
        """Weigh, grid, CLEAN and restore.

        Raises
        ------
        EngineError
            If the imager fails.
        """
        ...


@dataclass(frozen=True)
class Embedded:
    """The embedded engine: ducc0 grids, Radler CLEANs.

    Parameters
    ----------
    config : CleanConfig
        Options.
    """

    config: CleanConfig

    @property
    def label(self) -> str:
        """Name of the engine."""
        return "the embedded engine"

    def image(self, problem: ImagingProblem) -> CleanedImage:
        """Image with the embedded engine; see :meth:`Backend.image`."""
        config, data = self.config, problem.visibilities()
        noise, chunks = data.noise, list(data.chunks)
        del data  # the imager has joined copies
        weighting = config.weighting, config.robust
        imager = Imager(
            handed_over(chunks), problem.grid, *weighting, config.threads, noise, problem.incoherent
        )
        if problem.made_before is not None and problem.made_before[1] == imager.weights_digest:
            imager.share_psf(problem.made_before[0])
        mask = None if problem.mask_for is None else problem.mask_for(fit_beam(imager.psf(), problem.grid))
        sigma, depth_jy = config.depth()
        floor = depth_jy or sigma * imager.thermal_rms(noise.rms)

        def deconvolve(depth: float, start: CleanResult | None) -> CleanResult:
            settings = CleanSettings(
                niter=config.clean_iterations,
                threshold_jy=depth or None,
                auto_threshold_sigma=sigma or None,
                mask_sigma=max(config.mask_sigma, sigma),
                multiscale=config.multiscale,
                one_cycle=problem.one_cycle,
                gain=INCOHERENT_GAIN if problem.incoherent else CleanSettings.gain,
            )
            return clean(imager, settings, mask=mask, start=start)

        common = problem.depth_jy
        cleaned = shallow = deconvolve(max(common or 0.0, floor), None)
        if common is not None and shallow.threshold_jy <= common:
            cleaned = deconvolve(floor, shallow)
        return CleanedImage(
            cleaned=cleaned,
            shallow=shallow,
            thermal_per_noise=imager.thermal_rms(1.0),
            noise=noise,
            mask=mask,
            griddings=imager.griddings,
            weights_digest=imager.weights_digest,
        )


@dataclass(frozen=True)
class WSCleanBackend:
    """WSClean, on this machine or in a container; weights, beam and thermal rms are the embedded engine's.

    Parameters
    ----------
    wsclean : WSClean
        Which.
    capabilities : Capabilities
        What it can do.
    config : ImagingConfig
        Options.
    prefix : Path
        Folder and beginning of the names of the products; it works in a folder beside them.
    """

    wsclean: WSClean
    capabilities: Capabilities
    config: ImagingConfig
    prefix: Path

    @property
    def label(self) -> str:
        """Version and program or image."""
        return f"WSClean {self.capabilities.version} ({self.wsclean.name})"

    def image(self, problem: ImagingProblem) -> CleanedImage:
        """Image with WSClean; see :meth:`Backend.image`."""
        config, grid, data = self.config, problem.grid, problem.visibilities()
        noise = data.noise
        imager = Imager(data.chunks, grid, config.weighting, config.robust, config.threads)
        beam, thermal_per_noise = fit_beam(imager.psf(), grid), imager.thermal_rms(1.0)
        griddings = imager.griddings
        del imager, data  # the memory is WSClean's now
        mask = None if problem.mask_for is None else problem.mask_for(beam)
        with working_folder(self.prefix) as folder:
            mask_file = None
            if mask is not None:
                mask_file = folder / "mask.fits"
                freq = problem.freq_hz
                write_mask(mask_file, mask, grid, float(freq.mean()), float(np.ptp(freq)))
            source, selecting = problem.measurement_set(folder)
            cleaned, parts = clean_with_wsclean(
                self.wsclean,
                self.capabilities,
                source,
                selecting,
                grid,
                config,
                folder,
                thermal_rms_jy=thermal_per_noise * noise.rms,
                beam=beam,
                mask=mask_file,
            )
            channels = [
                self.prefix.with_name(self.prefix.name + part.name.removeprefix("w")) for part in parts
            ]
            for part, final in zip(parts, channels, strict=True):
                with replacing(final) as temporary:
                    part.rename(temporary)
        return CleanedImage(
            cleaned=cleaned,
            shallow=cleaned,
            thermal_per_noise=thermal_per_noise,
            noise=noise,
            mask=mask,
            channels=tuple(channels),
            griddings=griddings,
        )


def _require_plain(where: str) -> None:
    """Refuse products where WSClean cannot write them."""
    found = next((sign for sign in EXTENDED_SYNTAX if sign in where), None)
    if found is not None:
        raise ConfigError(
            f"WSClean cannot write to a path with {found!r}: CFITSIO takes what follows for a selection",
            where,
            "give another folder and name, or --backend embedded",
        )


def open_backend(config: BackendConfig, ms_path: Path, grid: ImageGrid, prefix: Path) -> Backend:
    """Give the imager that the options name, asked already whether it is there and can do what they want.

    Parameters
    ----------
    config : BackendConfig
        Options.
    ms_path : Path
        Measurement Set, for what a container must see.
    grid : ImageGrid
        Grid of the images.
    prefix : Path
        Folder, which must be there, and beginning of the names of the products.

    Raises
    ------
    WSCleanError
        If there is no program, or it does not answer like WSClean.
    ContainerError
        If the container does not start.
    ConfigError
        If the program lacks what an option needs, or cannot write to the path of the products.
    """
    if config.backend == "embedded":
        return Embedded(config)
    options = _imaging_options(config)
    wsclean: WSClean
    if config.backend == "wsclean":
        wsclean = host_wsclean(config)
    else:
        wsclean = container_wsclean(config, ms_path, prefix.parent)
    _require_plain(wsclean.path(prefix))
    capabilities = detect_capabilities(wsclean)
    wsclean_arguments(options, grid, capabilities, thermal_rms_jy=1.0)
    return WSCleanBackend(wsclean, capabilities, options, prefix)


def require_effect(config: ImagingConfig) -> None:
    """Refuse options that the imager chosen would leave without effect.

    Raises
    ------
    ConfigError
        If one of WSClean's is given to the embedded engine.
    """
    if config.backend != "embedded":
        return
    for name in OF_WSCLEAN:
        if getattr(config, name) != type(config).model_fields[name].default:
            raise ConfigError("is an option of WSClean", name, "add --backend wsclean or container")


def _imaging_options(config: BackendConfig) -> ImagingConfig:
    """Options of an image: those that other commands share with it, the others at their defaults."""
    if isinstance(config, ImagingConfig):
        return config
    fields = ImagingConfig.model_fields
    shared = {name: getattr(config, name, field.default) for name, field in fields.items()}
    return ImagingConfig(**shared)
