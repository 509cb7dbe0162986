"""CLEAN: Radler's minor cycles between the imager's major cycles."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import radler

from dsa110_contimg.array_types import Bool, Image
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.captured_stdout import captured_stdout
from dsa110_contimg.imaging.fits import ImageHeader, write_image
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.gridder import Imager
from dsa110_contimg.imaging.measure import mad_rms
from dsa110_contimg.imaging.restoring_beam import RestoringBeam, fit_beam, restore

__all__ = ["CleanResult", "CleanSettings", "clean"]

log = logging.getLogger("dsa110_contimg.imaging")

MAX_MAJOR = 15

# A major cycle may raise the residual rms by this factor before it counts as diverged and is taken back.
MAX_RMS_GROWTH = 1.05

# Where the residual is noise to this factor, a peak of so many times the depth is CLEANed without a residual
# image on the way: the sidelobes of one point spread function for the whole image are right to a per cent, a
# fifth of the depth.
NOISE_ALONE, DIRECT = 1.2, 20.0

# Where the sidelobes of all components found so, further away than so many beams, add up to less than this
# part of the noise, the residual of the minor cycle is the residual: what it is wrong by is a third of them.
NEGLIGIBLE, FAR_BEAMS = 0.05, 10.0


@dataclass(frozen=True)
class CleanResult:
    """Images and figures of one CLEAN.

    Parameters
    ----------
    model : ndarray, float32, shape (size, size)
        Clean components, Jy/pixel.
    residual, restored, psf : ndarray, float32, shape (size, size)
        Jy/beam; the residual is that of the visibilities, or of the minor cycle where that was asked for or
        is the same to a twentieth of the noise.
    beam : RestoringBeam
        Fitted to the psf.
    n_major : int
        Residual images made after the first.
    threshold_jy : float
        Depth aimed at in the end: the larger of the floor and the sigma limit of the last residual.
    peak_residual : float
        Largest absolute value of the residual, inside the mask where there is one.
    rms : float
        1.4826 x MAD of the whole residual.
    """

    model: Image
    residual: Image
    restored: Image
    psf: Image
    beam: RestoringBeam
    n_major: int
    threshold_jy: float
    peak_residual: float
    rms: float


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """How deep CLEAN goes, and in which steps.

    Attributes
    ----------
    niter : int
        Limit on all minor iterations together; 0 restores nothing.
    threshold_jy : float or None
        Absolute depth, Jy/beam: never cleaned deeper, so that two images have the same depth.
    auto_threshold_sigma : float or None
        Depth in units of the residual rms; None for the absolute one alone.
    mask_sigma : float or None
        First level of auto-masking; None for none. Not used with a mask.
    gain : float
        Minor-cycle gain.
    major_gain : float
        Fraction by which the peak falls in one major cycle.
    multiscale : bool
        Multi-scale CLEAN instead of points.
    one_cycle : bool
        A single major cycle without its residual image: for what is looked at, but not delivered.
    """

    niter: int = 100_000
    threshold_jy: float | None = None
    auto_threshold_sigma: float | None = 3.0
    mask_sigma: float | None = 5.0
    gain: float = 0.1
    major_gain: float = 0.8
    multiscale: bool = False
    one_cycle: bool = False

    def depth_jy(self, rms: float) -> float:
        """Depth in Jy/beam for an rms of the residual."""
        return max(self.threshold_jy or 0.0, (self.auto_threshold_sigma or 0.0) * rms)

    def is_direct(self, peak_jy: float, rms: float) -> bool:
        """Whether all sidelobes are below the noise, and nothing stands out so far that its own are above.

        The noise is what the absolute depth is a multiple of: without one nothing is known of it.
        """
        floor, sigma = self.threshold_jy or 0.0, self.auto_threshold_sigma or 0.0
        return sigma > 0 and sigma * rms < NOISE_ALONE * floor and peak_jy <= DIRECT * floor


def clean(
    imager: Imager,
    settings: CleanSettings | None = None,
    *,
    mask: Bool | None = None,
    start: CleanResult | None = None,
) -> CleanResult:
    """Deconvolve the image of the data and restore it.

    Components are found down to `mask_sigma` times the rms anywhere, then down to the threshold at their own
    pixels alone (auto-masking: Offringa & Smirnov 2017, MNRAS 471, 301): noise yields no components. With a
    fixed `mask` they are found down to the threshold inside it. The threshold is the larger of `threshold_jy`
    and `auto_threshold_sigma` times the rms of the current residual. A major cycle that makes the residual
    worse is taken back and ends the work.

    Parameters
    ----------
    imager : Imager
        The data.
    settings : CleanSettings, optional
        Depth and steps.
    mask : ndarray, bool, shape (size, size), optional
        True where components may be.
    start : CleanResult, optional
        A shallower CLEAN of the same data to go on from.

    Raises
    ------
    ImagingError
        If no depth is given, the mask is empty or of another shape, or the images are not finite.
    """
    settings = settings or CleanSettings()
    if not settings.depth_jy(1.0) > 0:
        raise ImagingError("no clean depth", "clean", "give threshold_jy or auto_threshold_sigma")
    if mask is not None:
        _require_usable(mask, imager.grid.size)
    psf = imager.psf()
    beam = fit_beam(psf, imager.grid)
    residual = imager.dirty() if start is None else start.residual.copy()
    _require_finite(residual)
    model = np.zeros_like(residual) if start is None else start.model.copy()
    direct = settings.is_direct(_peak(residual, mask), mad_rms(residual))
    with tempfile.TemporaryDirectory(prefix="contimg-clean-") as folder:
        major_gain = 1.0 if direct or settings.one_cycle else settings.major_gain
        radler_settings = _radler_settings(imager, settings, major_gain, mask, Path(folder))
        # Radler holds views: these three arrays are changed in place and never replaced.
        work_psf = psf.copy()
        with captured_stdout():
            cleaner = radler.Radler(radler_settings, work_psf, residual, model, beam.major_rad)
        # The setting alone does not start the threads.
        cleaner.worker_thread_count = radler_settings.thread_count
        far = far_sidelobes(psf, beam, imager.grid) if direct else math.inf
        n_major, rms = _major_cycles(imager, settings, far, cleaner, model, residual, mask)
        del cleaner
    _require_finite(residual)
    return CleanResult(
        model=model,
        residual=residual,
        restored=restore(model, beam, imager.grid, residual),
        psf=psf,
        beam=beam,
        n_major=n_major,
        threshold_jy=settings.depth_jy(rms),
        peak_residual=_peak(residual, mask),
        rms=rms,
    )


def far_sidelobes(psf: Image, beam: RestoringBeam, grid: ImageGrid) -> float:
    """Return the rms of a point spread function outside of a square of `FAR_BEAMS` beams to each side."""
    reach = math.ceil(FAR_BEAMS * beam.major_rad / grid.cell_rad)
    middle = slice(max(0, grid.center - reach), grid.center + reach + 1)
    near = psf[middle, middle]
    power, of_near = (float(np.square(part, dtype=np.float64).sum()) for part in (psf, near))
    return math.sqrt(max(power - of_near, 0.0) / max(psf.size - near.size, 1))


def _major_cycles(
    imager: Imager,
    settings: CleanSettings,
    sidelobes: float,
    cleaner: Any,
    model: Image,
    residual: Image,
    mask: Bool | None,
) -> tuple[int, float]:
    """Run major cycles on the arrays that Radler holds; their number, and the rms of what is left.

    The rms of far sidelobes is finite where all is found without a residual image on the way.
    """
    rms, n_major, direct = mad_rms(residual), 0, math.isfinite(sidelobes)
    go_on = settings.niter > 0 and _peak(residual, mask) > settings.depth_jy(rms)
    before, last = model.copy(), residual.copy()
    for cycle in range(MAX_MAJOR):
        if not go_on:
            break
        with captured_stdout():
            try:
                go_on = cleaner.perform(cycle)
            except RuntimeError as error:
                raise ImagingError(f"the deconvolver failed: {error}", "clean") from error
        moved = float(np.abs(model - before).sum(dtype=float))
        if moved == 0 or (not go_on and moved < settings.depth_jy(rms)):
            # A last cycle that moves less than the threshold is not worth the transforms.
            model[:], residual[:] = before, last
            continue
        if settings.one_cycle:
            return n_major, mad_rms(residual)
        if direct and go_on and cycle + 1 < MAX_MAJOR:
            continue
        # Of all components: the residual that a CLEAN goes on from may be one of a minor cycle, too.
        if direct and float(np.linalg.norm(model.astype(float))) * sidelobes < NEGLIGIBLE * rms:
            return n_major, mad_rms(residual)
        new_rms = math.inf
        if np.isfinite(model).all():
            residual[:] = imager.dirty_model_subtracted(model)
            new_rms, n_major = mad_rms(residual), n_major + 1
        log.info(
            "major cycle %d: %d components of %.4g Jy, rms %.4g Jy, peak residual %.4g Jy",
            cycle + 1,
            np.count_nonzero(model),
            model.sum(dtype=float),
            new_rms,
            _peak(residual, mask),
        )
        if not new_rms <= MAX_RMS_GROWTH * rms:
            log.warning("major cycle %d diverged (rms %.4g to %.4g Jy): taken back", cycle + 1, rms, new_rms)
            model[:], residual[:] = before, last
            break
        rms = new_rms
        before, last = model.copy(), residual.copy()
    return n_major, rms


def _radler_settings(
    imager: Imager, settings: CleanSettings, major_gain: float, mask: Bool | None, folder: Path
) -> radler.Settings:
    wanted = radler.Settings()
    wanted.trimmed_image_width = wanted.trimmed_image_height = imager.grid.size
    wanted.pixel_scale.x = wanted.pixel_scale.y = imager.grid.cell_rad
    wanted.minor_iteration_count = settings.niter
    wanted.major_iteration_count = MAX_MAJOR
    wanted.minor_loop_gain = settings.gain
    wanted.major_loop_gain = major_gain
    wanted.absolute_threshold = settings.threshold_jy or 0.0
    wanted.auto_threshold_sigma = settings.auto_threshold_sigma
    wanted.thread_count = imager.threads or len(os.sched_getaffinity(0))
    if settings.multiscale:
        wanted.algorithm_type = radler.AlgorithmType.multiscale
    if mask is not None:
        # Radler takes a fixed mask from a FITS file alone.
        wanted.fits_mask = str(folder / "mask.fits")
        header = ImageHeader(freq_hz=1e9, bandwidth_hz=1e9)
        write_image(Path(wanted.fits_mask), mask.astype(np.float32), imager.grid, header=header)
    elif settings.mask_sigma is not None and settings.mask_sigma > (settings.auto_threshold_sigma or 0.0):
        wanted.auto_mask_sigma = settings.mask_sigma
    wanted.prefix_name = str(folder / "clean")
    return wanted


def _require_usable(mask: Bool, size: int) -> None:
    if mask.shape != (size, size):
        raise ImagingError(f"mask of shape {mask.shape} for an image of {size} pixels", "clean mask")
    if not mask.any():
        raise ImagingError(
            "mask is empty", "clean mask", "clean without a mask, or look for the sources missing"
        )


def _peak(residual: Image, mask: Bool | None) -> float:
    return float(np.abs(residual if mask is None else residual[mask]).max())


def _require_finite(image: Image) -> None:
    if not np.isfinite(image).all():
        raise ImagingError("image is not finite", "clean", "flag what is not finite in the data")
