"""CLEAN by WSClean: its input, its working folder, its products as the embedded engine gives them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import WSCleanError
from dsa110_contimg.imaging.clean import CleanResult
from dsa110_contimg.imaging.fits import FitsImage, read_image
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.measure import mad_rms
from dsa110_contimg.imaging.restoring_beam import RestoringBeam
from dsa110_contimg.imaging.wsclean.arguments import Capabilities, wsclean_arguments
from dsa110_contimg.imaging.wsclean.runner import WSClean, log
from dsa110_contimg.visibilities import VisibilityReader, rephase_measurement_set

__all__ = ["clean_with_wsclean", "unchanged", "working_folder", "wsclean_input"]


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
    windows = [d for s in selection.spw_ids for d in ms.spectral_window(s).data_desc_ids]
    # WSClean counts what it calls spws in DATA_DESCRIPTION.
    some = len(selection.spw_ids) < len(ms.spectral_windows)
    spws = ["-spws", ",".join(map(str, windows))] if some else []
    centres = {(ms.field(f).ra_rad, ms.field(f).dec_rad) for f in selection.field_ids}
    if len(centres) == 1:
        fields = ",".join(map(str, selection.field_ids))
        return ms.path.absolute(), ["-field", fields, "-data-column", column, *spws]
    moved = folder / "one-centre.ms"
    rephase_measurement_set(ms.path, moved, reader.phase_center, field_ids=selection.field_ids, column=column)
    return moved, ["-field", "0", "-data-column", "DATA", *spws]


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
