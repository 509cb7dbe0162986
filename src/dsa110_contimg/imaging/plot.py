"""Pictures of images in sky coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from astropy.wcs import WCS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Ellipse

from dsa110_contimg.array_types import Image
from dsa110_contimg.errors import ImagingError, ResourceError
from dsa110_contimg.files import save_figure
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.restoring_beam import RestoringBeam

__all__ = ["Panel", "add_panel", "averaged", "save_panel"]

# A panel of 5 inches cannot show more; block averages of larger images keep faint structure visible.
MAX_SHOWN_PIXELS = 1100


@dataclass(frozen=True)
class Panel:
    """One image of a picture.

    Parameters
    ----------
    title : str
        Above the image.
    image : ndarray, float32, shape (size, size)
        Jy/beam, in FITS order ``[y, x]``.
    rms_jy : float
        The colours run over plus and minus `n_sigma` times this.
    n_sigma : float
        Range of the colours.
    """

    title: str
    image: Image
    rms_jy: float
    n_sigma: float = 8.0


def add_panel(
    figure: Figure,
    cell: SubplotSpec,
    panel: Panel,
    grid: ImageGrid,
    beam: RestoringBeam | None = None,
    *,
    zoom_rad: float | None = None,
    label_dec: bool = True,
) -> None:
    """Draw one image into a cell of a figure, in sky coordinates.

    Parameters
    ----------
    figure : Figure
        Where to draw.
    cell : SubplotSpec
        Which part of it.
    panel : Panel
        The image.
    grid : ImageGrid
        Its grid.
    beam : RestoringBeam, optional
        Drawn in the lower left corner.
    zoom_rad : float, optional
        Side of the central part to show; all of it where None.
    label_dec : bool
        Whether to label the declination axis.
    """
    shown = grid.size if zoom_rad is None else min(grid.size, max(8, 2 * round(zoom_rad / grid.cell_rad / 2)))
    step = math.ceil(shown / MAX_SHOWN_PIXELS)
    shown -= shown % step
    corner = grid.center - shown // 2
    pixel = grid.cell_rad * step
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.cdelt = [-math.degrees(pixel), math.degrees(pixel)]
    wcs.wcs.crval = [math.degrees(grid.ra_rad), math.degrees(grid.dec_rad)]
    middle = (grid.center - corner + 0.5) / step + 0.5
    wcs.wcs.crpix = [middle, middle]
    cut = panel.image[corner : corner + shown, corner : corner + shown]
    pixels = 1e3 * averaged(cut, step)
    limit = 1e3 * panel.n_sigma * panel.rms_jy
    axes = figure.add_subplot(cell, projection=wcs)
    drawn = axes.imshow(pixels, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(panel.title, fontsize=11)
    axes.coords[0].set_axislabel("Right ascension (ICRS)")
    axes.coords[1].set_axislabel("Declination (ICRS)" if label_dec else " ")
    axes.coords.grid(color="0.5", alpha=0.25, linewidth=0.5)
    bar = figure.colorbar(
        drawn, ax=axes, orientation="horizontal", shrink=0.85, aspect=35, pad=0.02, extend="both"
    )
    bar.set_label("mJy/beam")
    if beam is not None:
        axes.add_patch(_beam_patch(beam, pixel, shown // step))


def averaged(image: Image, step: int) -> Image:
    """Average blocks of pixels; rows and columns at the end that fill no block are left out.

    Parameters
    ----------
    image : ndarray, float32, shape (size, size)
        Any image.
    step : int
        Pixels on a side of a block.

    Returns
    -------
    ndarray, float32, shape (size // step, size // step)
    """
    n = len(image) // step
    blocks: Image = image[: n * step, : n * step].reshape(n, step, n, step).mean(axis=(1, 3))
    return blocks


def save_panel(
    path: Path,
    panels: Sequence[Panel],
    grid: ImageGrid,
    beam: RestoringBeam | None = None,
    *,
    zoom_rad: float | None = None,
    dpi: int = 110,
) -> None:
    """Draw images side by side in sky coordinates, with the beam and a colour bar in mJy/beam.

    Parameters
    ----------
    path : Path
        PNG file to write.
    panels : sequence of Panel
        From left to right; with the same `rms_jy` in all they have the same colours.
    grid : ImageGrid
        Grid of all images.
    beam : RestoringBeam, optional
        Drawn in the lower left corner.
    zoom_rad : float, optional
        Side of the central part to show; all of it where None.
    dpi : int
        Resolution; a panel is 5 inches wide.

    Raises
    ------
    ImagingError
        If there is no panel or one does not fit the grid.
    ResourceError
        If the file cannot be written.
    """
    if not panels or any(panel.image.shape != (grid.size, grid.size) for panel in panels):
        raise ImagingError(f"{len(panels)} panels that do not all fit a grid of {grid.size} pixels", path)
    figure = Figure(figsize=(5.2 * len(panels), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.add_gridspec(1, len(panels))
    for number, panel in enumerate(panels):
        add_panel(figure, cells[0, number], panel, grid, beam, zoom_rad=zoom_rad, label_dec=number == 0)
    try:
        save_figure(path, figure, dpi=dpi)
    except OSError as error:
        raise ResourceError(f"cannot write the picture: {error.strerror or error}", path) from error


def _beam_patch(beam: RestoringBeam, cell: float, size: int) -> Ellipse:
    """Ellipse of the beam, at least visible, in pixels of the lower left corner."""
    place = 0.04 * size + beam.major_rad / cell / 2
    return Ellipse(
        (place, place),
        width=beam.minor_rad / cell,
        height=beam.major_rad / cell,
        angle=math.degrees(beam.pa_rad),
        facecolor="0.2",
        edgecolor="black",
        linewidth=1.5,
    )
