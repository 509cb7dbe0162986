"""CLEAN: Radler's minor cycles between the imager's major cycles."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import radler

from dsa110_contimg.array_types import Bool, Image
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.captured_stdout import captured_stdout
from dsa110_contimg.imaging.fits import write_image
from dsa110_contimg.imaging.gridder import Imager
from dsa110_contimg.imaging.measure import mad_rms
from dsa110_contimg.imaging.restoring_beam import RestoringBeam, fit_beam, restore

__all__ = ["CleanResult", "clean"]

MAX_MAJOR = 15

# A major cycle may raise the residual rms by this factor before it counts as diverged and is taken back.
MAX_RMS_GROWTH = 1.05


@dataclass(frozen=True)
class CleanResult:
    """Images and figures of one CLEAN.

    Parameters
    ----------
    model : ndarray, float32, shape (size, size)
        Clean components, Jy/pixel.
    residual, restored, psf : ndarray, float32, shape (size, size)
        Jy/beam; the residual is that of the visibilities, not of the minor cycle.
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


def clean(
    imager: Imager,
    *,
    niter: int = 100_000,
    threshold_jy: float | None = None,
    auto_threshold_sigma: float | None = 3.0,
    mask_sigma: float | None = 5.0,
    gain: float = 0.1,
    major_gain: float = 0.8,
    mask: Bool | None = None,
    multiscale: bool = False,
    start: CleanResult | None = None,
    log: logging.Logger | None = None,
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
    niter : int
        Limit on all minor iterations together; 0 restores nothing.
    threshold_jy : float, optional
        Absolute depth, Jy/beam: never cleaned deeper, so that two images have the same depth.
    auto_threshold_sigma : float, optional
        Depth in units of the residual rms; None for the absolute one alone.
    mask_sigma : float, optional
        First level of auto-masking; None for none. Not used with `mask`.
    gain : float
        Minor-cycle gain.
    major_gain : float
        Fraction by which the peak falls in one major cycle.
    mask : ndarray, bool, shape (size, size), optional
        True where components may be.
    multiscale : bool
        Multi-scale CLEAN instead of points.
    start : CleanResult, optional
        A shallower CLEAN of the same data to go on from.
    log : logging.Logger, optional
        Where each major cycle is noted, at level INFO.

    Raises
    ------
    ImagingError
        If no depth is given, the mask is empty or of another shape, or the images are not finite.
    """
    log = log or logging.getLogger("dsa110_contimg.imaging")
    floor = threshold_jy or 0.0
    sigma = auto_threshold_sigma or 0.0
    size = imager.grid.size
    if not floor + sigma > 0:
        raise ImagingError("no clean depth", "clean", "give threshold_jy or auto_threshold_sigma")
    if mask is not None:
        if mask.shape != (size, size):
            raise ImagingError(f"mask of shape {mask.shape} for an image of {size} pixels", "clean mask")
        if not mask.any():
            raise ImagingError(
                "mask is empty", "clean mask", "clean without a mask, or look for the sources missing"
            )

    psf = imager.psf()
    beam = fit_beam(psf, imager.grid)
    residual = imager.dirty() if start is None else start.residual.copy()
    _require_finite(residual)
    model = np.zeros_like(residual) if start is None else start.model.copy()
    rms, n_major = mad_rms(residual), 0

    with tempfile.TemporaryDirectory(prefix="contimg-clean-") as folder:
        settings = _settings(imager, niter, floor, auto_threshold_sigma, gain, major_gain, multiscale)
        if mask is not None:
            # Radler takes a fixed mask from a FITS file alone.
            settings.fits_mask = str(Path(folder) / "mask.fits")
            write_image(
                Path(settings.fits_mask), mask.astype(np.float32), imager.grid, freq_hz=1e9, bandwidth_hz=1e9
            )
        elif mask_sigma is not None and mask_sigma > sigma:
            settings.auto_mask_sigma = mask_sigma
        settings.prefix_name = str(Path(folder) / "clean")
        # Radler holds views: these three arrays are changed in place and never replaced.
        work_psf = psf.copy()
        with captured_stdout():
            cleaner = radler.Radler(settings, work_psf, residual, model, beam.major_rad)
        # The setting alone does not start the threads.
        cleaner.worker_thread_count = settings.thread_count
        go_on = niter > 0
        for cycle in range(MAX_MAJOR):
            if not go_on:
                break
            before = model.copy()
            last = residual.copy()
            with captured_stdout():
                try:
                    go_on = cleaner.perform(cycle)
                except RuntimeError as error:
                    raise ImagingError(f"the deconvolver failed: {error}", "clean") from error
            moved = float(np.abs(model - before).sum(dtype=float))
            if moved == 0 or (not go_on and moved < max(floor, sigma * rms)):
                # A last cycle that moves less than the threshold is not worth the transforms.
                model[:] = before
                residual[:] = last
                continue
            if np.isfinite(model).all():
                residual[:] = imager.dirty_model_subtracted(model)
                n_major += 1
            new_rms = mad_rms(residual) if np.isfinite(model).all() else math.inf
            log.info(
                "major cycle %d: %d components of %.4g Jy, rms %.4g Jy, peak residual %.4g Jy",
                cycle + 1,
                np.count_nonzero(model),
                model.sum(dtype=float),
                new_rms,
                _peak(residual, mask),
            )
            if not new_rms <= MAX_RMS_GROWTH * rms:
                log.warning(
                    "major cycle %d diverged (rms %.4g to %.4g Jy): taken back", cycle + 1, rms, new_rms
                )
                model[:] = before
                residual[:] = last
                break
            rms = new_rms
        del cleaner
    _require_finite(residual)
    return CleanResult(
        model=model,
        residual=residual,
        restored=restore(model, beam, imager.grid, residual),
        psf=psf,
        beam=beam,
        n_major=n_major,
        threshold_jy=max(floor, sigma * rms),
        peak_residual=_peak(residual, mask),
        rms=rms,
    )


def _settings(
    imager: Imager,
    niter: int,
    floor: float,
    sigma: float | None,
    gain: float,
    major_gain: float,
    multiscale: bool,
) -> radler.Settings:
    settings = radler.Settings()
    settings.trimmed_image_width = settings.trimmed_image_height = imager.grid.size
    settings.pixel_scale.x = settings.pixel_scale.y = imager.grid.cell_rad
    settings.minor_iteration_count = niter
    settings.major_iteration_count = MAX_MAJOR
    settings.minor_loop_gain = gain
    settings.major_loop_gain = major_gain
    settings.absolute_threshold = floor
    settings.auto_threshold_sigma = sigma
    settings.thread_count = imager.threads or len(os.sched_getaffinity(0))
    if multiscale:
        settings.algorithm_type = radler.AlgorithmType.multiscale
    return settings


def _peak(residual: Image, mask: Bool | None) -> float:
    return float(np.abs(residual if mask is None else residual[mask]).max())


def _require_finite(image: Image) -> None:
    if not np.isfinite(image).all():
        raise ImagingError("image is not finite", "clean", "flag what is not finite in the data")
