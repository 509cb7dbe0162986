"""WSClean's prediction from a model image, beside the exact one.

Components are drawn on pixels, by `-draw-model` where the binary has it, else at the nearest pixel by us,
and degridded by `-predict`. All of it happens in a copy: MODEL_DATA of the Measurement Set is never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.fits import ImageHeader, write_image
from dsa110_contimg.imaging.grid import ARCSEC, ImageGrid
from dsa110_contimg.imaging.wsclean.arguments import Capabilities
from dsa110_contimg.imaging.wsclean.runner import WSClean
from dsa110_contimg.predict import predict_components
from dsa110_contimg.sky import SkyModel
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set, rephase_measurement_set
from dsa110_contimg.visibilities.tables import open_table

__all__ = ["PredictionDifference", "compare_predictions"]


@dataclass(frozen=True)
class PredictionDifference:
    """WSClean's model visibilities against the exact sum over the same components.

    Attributes
    ----------
    rms_jy : float
        Rms of the difference, over all rows and channels of the parallel hands.
    relative : float
        The same over the rms of the exact visibilities.
    n_components : int
        Components that lie in the image; others are in neither.
    drawn_by : str
        Who drew them on pixels.
    """

    rms_jy: float
    relative: float
    n_components: int
    drawn_by: str


def compare_predictions(
    wsclean: WSClean,
    capabilities: Capabilities,
    reader: VisibilityReader,
    sky: SkyModel,
    grid: ImageGrid,
    folder: Path,
    *,
    timeout_s: float = 3600.0,
    threads: int = 0,
) -> PredictionDifference:
    """Predict point components with WSClean and exactly, and compare.

    Parameters
    ----------
    wsclean : WSClean
        Which.
    capabilities : Capabilities
        What it can do.
    reader : VisibilityReader
        The data whose baselines are taken, moved to one phase centre.
    sky : SkyModel
        Points of apparent flux, the same at all frequencies: a single image has no spectrum.
    grid : ImageGrid
        Pixels to draw on; its centre is the reader's phase centre.
    folder : Path
        Empty folder to work in, visible to WSClean.
    timeout_s : float
        Deadline of each call, seconds.
    threads : int
        Threads; 0 takes all cores.

    Raises
    ------
    ImagingError
        If a component is extended or none lies in the image.
    WSCleanError, DeadlineError, ContainerError
        If WSClean fails.
    """
    x, y = grid.sky_to_pixel(sky.ra_rad, sky.dec_rad)
    with np.errstate(invalid="ignore"):
        inside = (np.abs(x - grid.center) < grid.center - 1) & (np.abs(y - grid.center) < grid.center - 1)
    sky = sky.select(np.flatnonzero(inside))
    if not len(sky) or not sky.is_point.all():
        raise ImagingError("components must be points inside the image", "prediction", "leave out the others")
    copy, prefix = folder / "predicted.ms", folder / "p"
    rephase_measurement_set(
        reader.ms.path, copy, reader.phase_center, field_ids=reader.selection.field_ids, column="DATA"
    )
    model = folder / "p-model.fits"
    scale = ["-scale", f"{grid.cell_rad / ARCSEC:.12g}asec", "-size", str(grid.size), str(grid.size)]
    common = ["-name", wsclean.path(prefix), *(["-j", str(threads)] if threads else [])]
    freq = reader.freq_hz
    if capabilities.has("-draw-model"):
        drawn_by = f"WSClean {capabilities.version}"
        listed, term = folder / "components.txt", folder / "p-term-0.fits"
        sky.write_wsclean(listed)
        drawing = ["-draw-model", wsclean.path(listed), "-draw-spectral-terms", "1"]
        drawing += ["-draw-frequencies", f"{freq.mean():.1f}", f"{np.ptp(freq):.1f}"]
        drawing += ["-draw-centre", *(f"{value:.12f}rad" for value in reader.phase_center)]
        wsclean.call([*common, *scale, *drawing], timeout_s, [term])
        term.replace(model)
    else:
        drawn_by = "nearest pixels"
        image = np.zeros((grid.size, grid.size), np.float32)
        place = tuple(np.round(axis[inside]).astype(int) for axis in (y, x))
        np.add.at(image, place, sky.flux_jy.astype(np.float32))
        header = ImageHeader(freq_hz=float(freq.mean()), bandwidth_hz=float(np.ptp(freq)), unit="JY/PIXEL")
        write_image(model, image, grid, header=header)
    gridder = ["-gridder", "wgridder"] if capabilities.has("-gridder") else ["-use-wgridder"]
    selection = ["-pol", "I", "-field", "0", "-data-column", "DATA", *gridder]
    wsclean.call([*common, *scale, *selection, "-predict", wsclean.path(copy)], timeout_s)
    return _difference(copy, sky, drawn_by)


def _difference(copy: Path, sky: SkyModel, drawn_by: str) -> PredictionDifference:
    ms = open_measurement_set(copy)
    moved = VisibilityReader(ms, ms.select())
    lmn = sky.lmn(*moved.phase_center)
    apart = total = count = 0.0
    with open_table(copy) as main:
        for rows, _, window in moved.row_sets():
            part = main.selectrows(rows)
            flux = np.repeat(sky.flux_jy[:, None], window.freq_hz.size, axis=1)
            exact = predict_components(part.getcol("UVW"), window.freq_hz, lmn, flux)
            model: NDArray[np.complex64] = part.getcol("MODEL_DATA")[:, :, list(window.parallel)]
            apart += float(np.sum(np.abs(model - exact[:, :, None]) ** 2, dtype=float))
            total += float(np.sum(np.abs(exact) ** 2, dtype=float)) * model.shape[2]
            count += model.size
    return PredictionDifference((apart / count) ** 0.5, (apart / total) ** 0.5, len(sky), drawn_by)
