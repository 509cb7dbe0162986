"""Options of the catalogue reach the look-up, whatever the command."""

import shutil

import numpy as np
import pytest
from astropy.table import Table
from casacore.tables import table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import ImagingConfig, SimulationConfig
from dsa110_contimg.errors import MeasurementSetError
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities import open_measurement_set
from tests.arrays import COMPACT
from tests.selfcal.support import Notes

LIMIT_MJY = 100.0
IMAGE = {"size": 256, "cell_arcsec": 24.0, "clean_iterations": 0, "nvss_min_mjy": LIMIT_MJY}


@pytest.fixture(scope="module")
def two_catalogs(tmp_path_factory):
    """A small observation, strips of NVSS, and of a FIRST in which every second bright source is faint."""
    folder = tmp_path_factory.mktemp("catalogs")
    options = {"antennas": 12, "channels": 4, "dumps": 2, "sefd_jy": 500.0, "drift": False}
    simulate(folder / "t.ms", SimulationConfig(array=COMPACT, ra=180.0, dec=30.0, min_mjy=50.0, **options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    listed = Table.read(folder / "t.catalog.ecsv", format="ascii.ecsv")
    bright = np.flatnonzero(listed["flux_mjy"] > LIMIT_MJY)
    listed["flux_mjy"][bright[::2]] = 60.0
    # FIRST lists nothing outside its footprint, and is asked for the whole cone: so it says that it has it.
    listed.meta["coverage"] = {"ra_min": 160.0, "ra_max": 200.0, "dec_min": 15.0, "dec_max": 45.0}
    listed.write(folder / "first.ecsv", format="ascii.ecsv")
    build_strips("first", folder / "first.ecsv", folder / "c")
    return folder


def mask_of(folder, tmp_path, catalog):
    config = ImagingConfig(catalog=catalog, catalog_mask=True, catalog_dir=folder / "c", **IMAGE)
    return read_image(image_ms(folder / "t.ms", tmp_path / catalog, config).mask)


def test_the_mask_is_made_from_the_catalogue_that_was_asked_for(two_catalogs, tmp_path):
    nvss, first = (mask_of(two_catalogs, tmp_path, name) for name in ("nvss", "first"))
    assert first.image.any()
    assert not (first.image > nvss.image).any()
    listed = Table.read(two_catalogs / "t.catalog.ecsv", format="ascii.ecsv")
    of_first = Table.read(two_catalogs / "first.ecsv", format="ascii.ecsv")
    x, y = nvss.grid.sky_to_pixel(np.radians(listed["ra_deg"]), np.radians(listed["dec_deg"]))
    inside = (listed["flux_mjy"] > LIMIT_MJY) & (np.abs(x - 128) < 110) & (np.abs(y - 128) < 110)
    assert all(nvss.image[round(float(y[k])), round(float(x[k]))] for k in np.flatnonzero(inside))
    gone = np.flatnonzero(inside & (of_first["flux_mjy"] < LIMIT_MJY))
    assert gone.size
    assert any(not first.image[round(float(y[k])), round(float(x[k]))] for k in gone)


def test_noise_of_single_channels_has_no_sky_in_it(tmp_path):
    perfect = {"phase_rms": 0.0, "phase_drift": 0.0, "amplitude_rms": 0.0, "drift": False}
    made = {}
    for channels in (1, 8):
        ms = tmp_path / f"{channels}.ms"
        options = {"channels": channels, "antennas": 20, "dumps": 6, "sefd_jy": 2000.0, **perfect}
        simulate(ms, SimulationConfig(array=COMPACT, brightest_jy=3.0, **options))
        width_hz = open_measurement_set(ms).spectral_windows[0].width_hz.sum()
        config = ImagingConfig(size=256, cell_arcsec=24.0, clean_iterations=0, weighting="natural")
        thermal = image_ms(ms, tmp_path / f"{channels}", config).metrics.thermal_rms_jy
        made[channels] = thermal * np.sqrt(width_hz)
    assert made[1] == pytest.approx(made[8], rel=0.05)


def test_zeros_are_left_out_as_flagged_data_are(small_ms, tmp_path):
    """A third of the data zero: the image is that of the rest, and the run says so."""
    images, notes = [], Notes()
    for kind in ("zero", "flagged"):
        path = shutil.copytree(small_ms.path, tmp_path / f"{kind}.ms")
        with table(str(path), readonly=False, ack=False) as main:
            lost = np.arange(main.nrows()) % 3 == 0
            name = "DATA" if kind == "zero" else "FLAG"
            cells = main.getcol(name)
            cells[lost] = kind == "flagged"
            main.putcol(name, cells)
        config = ImagingConfig(size=256, cell_arcsec=12.0, clean_iterations=0)
        images.append(image_ms(path, tmp_path / kind, config, progress=notes).image)
    zero, flagged = (read_image(path).image for path in images)
    np.testing.assert_array_equal(zero, flagged)
    assert len(notes.about("zeros: ")) == 1


def test_data_of_zeros_alone_are_refused(small_ms, tmp_path):
    path = shutil.copytree(small_ms.path, tmp_path / "zero.ms")
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("DATA", 0 * main.getcol("DATA"))
    with pytest.raises(MeasurementSetError, match="all visibilities are zeros"):
        image_ms(path, tmp_path / "im", ImagingConfig(size=256, cell_arcsec=12.0))
    assert not list(tmp_path.glob("im-*"))


def test_a_placeholder_in_pointing_is_ignored(small_ms, tmp_path):
    path = shutil.copytree(small_ms.path, tmp_path / "pole.ms")
    config = ImagingConfig(size=256, cell_arcsec=12.0)
    before = open_observation(path, config)
    with table(str(path / "POINTING"), readonly=False, ack=False) as sub:
        cells = sub.getcol("DIRECTION")
        cells[...] = [0, np.pi / 2]
        sub.putcol("DIRECTION", cells)
    after = open_observation(path, config)
    assert not before.notes
    assert "POINTING says RA 0.00 Dec +90.00" in after.notes[0]
    assert abs(after.reader.pointing[0, 1] - after.reader.phase_center[1]) < 0.01
