"""Pictures of images in sky coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dsa110_contimg.array_types import Image
from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.imaging.restoring_beam import RestoringBeam

__all__ = ["LEFT", "RIGHT", "Panel", "add_axes", "add_row", "averaged", "row_size"]

# All in inches, so that the images are as large as can be: automatic layouts leave room where none is needed.
#: Side of an image; room left of the first, between two, and right of the last.
SIDE, LEFT, GAP, RIGHT = 5.2, 1.2, 0.62, 0.4
#: Room above an image for its title, and below it for its axis and colour bar.
ABOVE, BELOW = 0.55, 1.35
#: Height of a colour bar, and how far its top lies below the image.
BAR, BAR_BELOW = 0.14, 0.72
#: Coordinates within a field smaller than this have many digits: only those that change are repeated.
SMALL_RAD = math.radians(0.5)
# More pixels than this a panel cannot show; block averages of larger images keep faint structure visible.
MAX_SHOWN_PIXELS = 1100


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image of a picture.

    Parameters
    ----------
    title, figures : str
        Above the image, at its left and at its right.
    image : ndarray, float32, shape (size, size)
        Jy/beam, in FITS order ``[y, x]``.
    rms_jy : float
        The colours run over plus and minus `n_sigma` times this.
    n_sigma : float
        Range of the colours.
    beam : RestoringBeam, optional
        Drawn in the lower left corner.
    """

    title: str
    figures: str = ""
    image: Image
    rms_jy: float
    n_sigma: float = 8.0
    beam: RestoringBeam | None = None


def row_size(n_panels: int) -> tuple[float, float]:
    """Width and height in inches of so many images side by side, with all that belongs to them."""
    return LEFT + n_panels * SIDE + (n_panels - 1) * GAP + RIGHT, ABOVE + SIDE + BELOW


def add_row(figure: Figure, panels: Sequence[Panel], grid: ImageGrid, bottom_in: float = 0.0) -> None:
    """Draw images side by side in sky coordinates, each with its beam and a colour bar in mJy/beam.

    Parameters
    ----------
    figure : Figure
        Where to draw, at least as large as `row_size` says.
    panels : sequence of Panel
        From left to right; with the same `rms_jy` in all they have the same colours.
    grid : ImageGrid
        Grid of all images.
    bottom_in : float
        Inches from the lower edge of the figure to that of the row.

    Raises
    ------
    ImagingError
        If there is no panel or one does not fit the grid.
    """
    if not panels or any(panel.image.shape != (grid.size, grid.size) for panel in panels):
        raise ImagingError(f"{len(panels)} panels that do not all fit a grid of {grid.size} pixels")
    step = math.ceil(grid.size / MAX_SHOWN_PIXELS)
    wcs, pixel = _coordinates(grid, step), grid.cell_rad * step
    for number, panel in enumerate(panels):
        left, bottom = LEFT + number * (SIDE + GAP), bottom_in + BELOW
        pixels = 1e3 * averaged(panel.image, step)
        # An image of zeros has no noise.
        limit = 1e3 * panel.n_sigma * panel.rms_jy or 1.0
        axes = add_axes(figure, (left, bottom, SIDE, SIDE), projection=wcs)
        drawn = axes.imshow(pixels, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(panel.title, loc="left", fontsize=13, fontweight="bold")
        axes.set_title(panel.figures, loc="right", fontsize=9)
        _label(axes, is_first=number == 0, is_small=grid.size * grid.cell_rad < SMALL_RAD)
        # The ends of a bar that goes on are drawn within its length.
        bar = add_axes(figure, (left, bottom - BAR_BELOW - BAR, SIDE, BAR))
        figure.colorbar(drawn, cax=bar, orientation="horizontal", extend="both", extendfrac=0.03)
        bar.tick_params(labelsize=10)
        bar.set_xlabel("mJy/beam", fontsize=10, labelpad=2)
        if panel.beam is not None:
            axes.add_patch(_beam_patch(panel.beam, pixel, len(pixels)))


def add_axes(figure: Figure, place_in: tuple[float, float, float, float], **options: Any) -> Axes:
    """Add axes at a place in inches: left, bottom, width, height; all measured without their labels."""
    width, height = figure.get_size_inches()
    left, bottom, across, up = place_in
    axes: Axes = figure.add_axes((left / width, bottom / height, across / width, up / height), **options)
    return axes


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


def _coordinates(grid: ImageGrid, step: int) -> WCS:
    """Coordinates of the blocks of so many pixels on a side."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    degrees = math.degrees(grid.cell_rad * step)
    wcs.wcs.cdelt = [-degrees, degrees]
    wcs.wcs.crval = [math.degrees(grid.ra_rad), math.degrees(grid.dec_rad)]
    middle = (grid.center + 0.5) / step + 0.5
    wcs.wcs.crpix = [middle, middle]
    return wcs


def _label(axes: Axes, *, is_first: bool, is_small: bool) -> None:
    """Label the axes, of a small field in short; declinations of all images are those of the first."""
    across, up = axes.coords[0], axes.coords[1]  # type: ignore[attr-defined]
    across.set_axislabel("Right ascension (ICRS)", fontsize=11, minpad=0.5)
    across.set_ticklabel(size=10, exclude_overlapping=True, simplify=is_small)
    up.set_ticklabel(size=10, exclude_overlapping=True, simplify=is_small)
    up.set_axislabel("Declination (ICRS)" if is_first else " ", fontsize=11, minpad=0.7)
    up.set_ticklabel_visible(is_first)
    # Near a pole they would be put where there are more of them, on the title.
    for axis, edge in ((across, "b"), (up, "l")):
        axis.set_ticklabel_position(edge)
        axis.set_axislabel_position(edge)
    axes.coords.grid(color="0.5", alpha=0.25, linewidth=0.5)  # type: ignore[attr-defined]


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
