"""The final image by WSClean is that of the embedded engine, from the same calibrated data."""

import shutil

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import ContainerEngineError, DeadlineError, WSCleanError
from dsa110_contimg.imaging import fit_source, read_image
from dsa110_contimg.selfcal.run import SelfCalConfig, selfcal_ms
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from tests.arrays import COMPACT
from tests.needs import program

SMALL = {"array": COMPACT, "channels": 8, "dumps": 6, "sefd_jy": 2000.0}
IMAGE = {"size": 512, "cell_arcsec": 12.0}
PRODUCTS = ("image", "residual", "model", "psf", "difference")


@pytest.fixture(scope="module")
def transit(tmp_path_factory):
    """A drift scan with a phase centre for each dump, and one window of two left out of the run."""
    folder = tmp_path_factory.mktemp("drift")
    simulate(
        folder / "t.ms",
        SimulationConfig(random_phases=True, spws=2, new_jy=0.3, **SMALL),
    )
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "catalogs")
    return folder


def run(transit, out, **options):
    ms = out.with_suffix(".ms")
    shutil.copytree(transit / "t.ms", ms)
    before = data_hash(ms)
    config = SelfCalConfig(catalog_dir=transit / "catalogs", spw="1", **IMAGE, **options)
    try:
        return selfcal_ms(ms, out, config)
    finally:
        assert data_hash(ms) == before


@pytest.mark.parametrize("imaging", ["subtracted", "standard"])
def test_same_final_image(transit, tmp_path, imaging):
    program("wsclean")
    own = run(transit, tmp_path / "own", imaging=imaging)
    made = run(transit, tmp_path / "made", imaging=imaging, backend="wsclean")
    assert (own.status, made.status) == ("improved", "improved")
    names = PRODUCTS if imaging == "subtracted" else PRODUCTS[:-1]
    for name in names:
        assert made.summary["products"][f"final_{name}"] == f"final-{name}.fits"
    a, b = (read_image(tmp_path / n / "final-image.fits") for n in ("own", "made"))
    assert a.grid == b.grid
    assert (b.beam.major_rad, b.beam.minor_rad) == pytest.approx(
        (a.beam.major_rad, a.beam.minor_rad), rel=1e-5
    )
    y, x = divmod(int(a.image.argmax()), a.grid.size)
    one, two = (fit_source(i.image, x, y, i.beam, i.grid) for i in (a, b))
    assert two.peak_jy == pytest.approx(one.peak_jy, rel=0.01)
    assert np.hypot(one.x - two.x, one.y - two.y) < 0.1
    first, second = own.summary["final"], made.summary["final"]
    assert second["rms_jy"] == pytest.approx(first["rms_jy"], rel=0.05)
    assert second["thermal_rms_jy"] == pytest.approx(first["thermal_rms_jy"], rel=1e-3)
    if imaging == "subtracted":
        left, right = (read_image(tmp_path / n / "final-difference.fits").image for n in ("own", "made"))
        # What the catalogue lacks stands out alike.
        assert right.max() == pytest.approx(left.max(), rel=0.03)
        assert left.argmax() == right.argmax()
    assert not [p for p in (tmp_path / "made").iterdir() if p.name.startswith(".")]


def test_what_is_missing_shows_at_once(transit, tmp_path, monkeypatch):
    with pytest.raises(WSCleanError, match="no such program"):
        run(transit, tmp_path / "a", backend="wsclean", wsclean=tmp_path / "none")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ContainerEngineError, match="does not answer"):
        run(transit, tmp_path / "b", backend="container", container_engine="docker")
    for folder in ("a", "b"):
        assert not list((tmp_path / folder).glob("*.fits"))


def test_a_wsclean_that_fails_leaves_the_data_alone(transit, tmp_path):
    program("wsclean")
    with pytest.raises(DeadlineError, match="deadline"):
        run(transit, tmp_path / "a", backend="wsclean", timeout_s=0.05)
    assert not list((tmp_path / "a").glob(".final*"))
    assert not (tmp_path / "a" / "selfcal_summary.json").exists()
