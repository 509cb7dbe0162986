import numpy as np
import pytest

from dsa110_contimg.errors import ConfigError, SeedError
from dsa110_contimg.imaging import ImageGrid, ImageHeader, RestoringBeam, write_image
from dsa110_contimg.imaging.masks import catalog_mask, read_mask, write_mask
from dsa110_contimg.sky import SkyModel

CELL = 3 / 206264.806
GRID = ImageGrid(256, CELL, 2.5, 0.9)
BEAM = RestoringBeam(8 * CELL, 5 * CELL, 0.3)


def sky(*pixels, major_rad=0.0):
    x, y = np.transpose(pixels)
    ra, dec = GRID.pixel_to_sky(x, y)
    points = SkyModel.points(ra, dec, np.ones(len(ra)))
    points.major_rad[:] = major_rad
    return points


def test_discs_follow_the_beam():
    mask = catalog_mask(sky((100.3, 50.8)), GRID, BEAM)
    rows, columns = np.nonzero(mask)
    distance = np.hypot(columns - 100.3, rows - 50.8)
    assert distance.max() <= 12  # 1.5 beams of 8 pixels
    assert mask.sum() == pytest.approx(np.pi * 12**2, rel=0.02)
    wider = catalog_mask(sky((100.3, 50.8)), GRID, RestoringBeam(16 * CELL, CELL, 0.0))
    assert wider.sum() > 3.5 * mask.sum()


def test_radius_and_extent():
    assert catalog_mask(sky((128, 128)), GRID, BEAM, 3.1).sum() == 5  # one pixel and its neighbours
    assert catalog_mask(sky((128, 128)), GRID, BEAM, 30.0).sum() == pytest.approx(np.pi * 100, rel=0.03)
    extended = catalog_mask(sky((128, 128), major_rad=20 * CELL), GRID, BEAM, 30.0)
    assert extended.sum() == pytest.approx(np.pi * 20**2, rel=0.03)


def test_discs_at_the_edge_are_cut_and_overlaps_joined():
    mask = catalog_mask(sky((-3, 100), (255, 255), (120, 120), (121, 120)), GRID, BEAM, 30.0)
    assert mask[100, 0]
    assert mask[255, 255]
    assert not mask[100, 255]
    assert mask.sum() < 2.5 * np.pi * 100


def test_trap_5_an_empty_mask_is_refused():
    with pytest.raises(SeedError, match="empty mask: none of 2 sources lies in the image"):
        catalog_mask(sky((400, 400), (-300, 10)), GRID, BEAM)
    behind = SkyModel.points(np.array([2.5 + np.pi]), np.array([-0.9]), np.ones(1))
    with pytest.raises(SeedError, match="empty mask"):
        catalog_mask(behind, GRID, BEAM)
    with pytest.raises(ConfigError, match="less than half a pixel"):
        catalog_mask(sky((128, 128)), GRID, BEAM, 1.0)


def test_on_disk(tmp_path):
    mask = catalog_mask(sky((60, 200)), GRID, BEAM)
    write_mask(tmp_path / "m.fits", mask, GRID, 1.4e9, 1e8)
    assert (read_mask(tmp_path / "m.fits", GRID) == mask).all()
    for other in (
        ImageGrid(128, CELL, 2.5, 0.9),
        ImageGrid(256, 2 * CELL, 2.5, 0.9),
        ImageGrid(256, CELL, 2.5, 0.91),
    ):
        with pytest.raises(ConfigError, match="not on the grid"):
            read_mask(tmp_path / "m.fits", other)
    header = ImageHeader(freq_hz=1e9, bandwidth_hz=1e8)
    write_image(tmp_path / "e.fits", np.zeros((256, 256), np.float32), GRID, header=header)
    with pytest.raises(ConfigError, match="mask is empty"):
        read_mask(tmp_path / "e.fits", GRID)
    with pytest.raises(ConfigError, match="no FITS image that can be a mask"):
        read_mask(tmp_path / "none.fits", GRID)
