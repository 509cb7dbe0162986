"""Pictures of images: everything on them can be read, and the images have most of the room."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import ImageGrid, RestoringBeam
from dsa110_contimg.imaging.plot import SIDE, Panel, add_row, averaged, row_size

BEAM = RestoringBeam(12 / 206265, 9 / 206265, math.radians(-35))


def row(dec_deg=54.57, cell_arcsec=4.0, size=128, n=3):
    image = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    figures = "rms of all pixels 0.262 mJy/beam\npeak 1.234e+04 mJy/beam"
    panels = [Panel(title="Sky minus catalogue", figures=figures, image=image, rms_jy=1.0, beam=BEAM)] * n
    figure = Figure(figsize=row_size(n))
    canvas = FigureCanvasAgg(figure)
    grid = ImageGrid(size, math.radians(cell_arcsec / 3600), math.radians(150.027), math.radians(dec_deg))
    add_row(figure, panels, grid)
    canvas.draw()
    return figure, canvas.get_renderer()


@pytest.mark.parametrize(
    ("dec_deg", "cell_arcsec"), [(54.57, 4.0), (54.57, 86.4), (-88.0, 60.0), (0.0, 0.01), (85.0, 100.0)]
)
def test_nothing_on_a_row_of_images_is_cut_off_or_covered(dec_deg, cell_arcsec):
    figure, renderer = row(dec_deg, cell_arcsec)
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    assert len(boxes) == 6
    whole = figure.bbox.padded(0.5)
    for number, box in enumerate(boxes):
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
        assert not any(box.overlaps(other) for other in boxes[:number])
    for axes in figure.axes[::2]:
        titles = [t.get_window_extent(renderer) for t in (axes._left_title, axes._right_title)]
        assert not titles[0].overlaps(titles[1])
        # Near a pole too the numbers of the axis stand below the image.
        assert axes.get_tightbbox(renderer).y1 <= titles[1].y1 + 0.5


def test_images_have_most_of_the_room():
    width, height = row_size(3)
    assert 3 * SIDE**2 / (width * height) > 0.6


def test_places_on_the_picture_are_those_of_the_grid():
    """Where an image is averaged too: a block's middle lies where its pixels do."""
    size, grid = 2200, ImageGrid(2200, 4 / 206265, 2.5, 0.95)
    figure = Figure(figsize=row_size(1))
    FigureCanvasAgg(figure)
    add_row(figure, [Panel(title="a", image=np.zeros((size, size), np.float32), rms_jy=0.0)], grid)
    wcs = figure.axes[0].wcs
    x, y = np.array([0.5, 1000.5, 1800.5]), np.array([300.5, 1100.5, 2198.5])
    ra, dec = grid.pixel_to_sky(x, y)
    got = wcs.all_world2pix(np.degrees(ra), np.degrees(dec), 0)
    np.testing.assert_allclose(got, ((x - 0.5) / 2, (y - 0.5) / 2), atol=1e-6)


def test_blocks_are_averaged():
    image = np.arange(25, dtype=np.float32).reshape(5, 5)
    np.testing.assert_array_equal(averaged(image, 2), [[3, 5], [13, 15]])


def test_images_of_another_size_are_refused():
    grid = ImageGrid(64, 4 / 206265, 2.5, 0.95)
    figure = Figure(figsize=row_size(1))
    with pytest.raises(ImagingError, match="0 panels"):
        add_row(figure, [], grid)
    with pytest.raises(ImagingError, match="64 pixels"):
        add_row(figure, [Panel(title="a", image=np.zeros((32, 32), np.float32), rms_jy=1.0)], grid)
