"""The three imagers make the same images, whatever the fields, and leave the Measurement Set alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import ImagingConfig, SimulationConfig
from dsa110_contimg.errors import (
    ConfigError,
    ContainerImageError,
    PathOutsideMountError,
    SeedError,
    WSCleanError,
)
from dsa110_contimg.imaging import fit_source, read_image
from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.imaging.wsclean.container import _SHARED, get_wsclean_container
from dsa110_contimg.imaging.wsclean.mounts import parse_mounts
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT
from tests.imaging.wsclean.support import FIGURES, containers, state

GRID = {"size": 1536, "cell_arcsec": 4.0}
SMALL = {"size": 512, "cell_arcsec": 20.0}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A quick one: few antennas, short baselines; not to be written to."""
    folder = tmp_path_factory.mktemp("small")
    options = {
        "array": COMPACT,
        "antennas": 20,
        "dumps": 4,
        "channels": 6,
        "sefd_jy": 500.0,
        "phase_rms": 0.0,
    }
    for fields in (1, 24):
        simulate(folder / f"f{fields}.ms", SimulationConfig(fields=fields, **options))
    return folder


@pytest.fixture(scope="module")
def embedded(transit, tmp_path_factory):
    return image_ms(transit / "f1.ms", tmp_path_factory.mktemp("embedded") / "i", ImagingConfig(**GRID))


@pytest.mark.parametrize("name", ["with [brackets]", "with (brackets)"])
def test_a_path_that_wsclean_cannot_write_to_is_refused_in_words(small, tmp_path, name):
    """Without a word of it WSClean ends in CFITSIO's "parse error in input file URL"."""
    (tmp_path / name).mkdir()
    for prefix in (tmp_path / name / "i", tmp_path / name):
        with pytest.raises(ConfigError, match=r"WSClean cannot write to a path with '[\[(]'"):
            image_ms(small / "f1.ms", prefix, ImagingConfig(**SMALL, backend="wsclean"))
    made = image_ms(small / "f1.ms", tmp_path / name / "i", ImagingConfig(**SMALL, clean_iterations=0))
    assert made.image.exists()


def compare(first, second, sources=8):
    """Median peak ratio, rms ratio and position difference in pixels of the brightest sources."""
    a, b = read_image(first.image), read_image(second.image)
    left, ratios, apart = a.image.copy(), [], []
    for _ in range(sources):
        y, x = divmod(int(left.argmax()), a.grid.size)
        one, two = (fit_source(i.image, x, y, a.beam, a.grid) for i in (a, b))
        ratios.append(two.peak_jy / one.peak_jy)
        apart.append(np.hypot(one.x - two.x, one.y - two.y))
        left[max(0, y - 20) : y + 21, max(0, x - 20) : x + 21] = 0
    peak = second.metrics.peak_jy / first.metrics.peak_jy
    return peak, ratios, second.metrics.rms_jy / first.metrics.rms_jy, np.array(apart)


@pytest.mark.parametrize("backend", ["wsclean", "docker", "podman"])
def test_same_image_from_three_backends(backend, engines, transit, embedded, tmp_path):
    options = {"backend": "wsclean"}
    if backend != "wsclean":
        options = {"backend": "container", "container_engine": backend}
    before = state(transit / "f1.ms")
    made = image_ms(transit / "f1.ms", tmp_path / "i", ImagingConfig(**GRID, **options, pb_correct=True))
    peak, ratios, rms, apart = compare(embedded, made)
    FIGURES.append(
        f"{made.imager} over embedded: peak {peak:.4f}, {len(ratios)} sources {np.median(ratios):.4f}, "
        f"rms {rms:.4f}, positions within {apart.max():.3f} pixels"
    )
    assert abs(peak - 1) < 0.01
    assert abs(np.median(ratios) - 1) < 0.01
    assert abs(rms - 1) < 0.05
    assert apart.max() < 0.1
    assert made.metrics.thermal_rms_jy == embedded.metrics.thermal_rms_jy
    headers = [fits.getheader(s.image) for s in (embedded, made)]
    for key in ("BMAJ", "BMIN", "BPA", "CRVAL1", "CRVAL2", "CDELT1", "CRVAL3", "CDELT3"):
        assert headers[0][key] == pytest.approx(headers[1][key], rel=1e-6), key
    assert (headers[0]["BUNIT"], headers[0]["OBJECT"]) == (headers[1]["BUNIT"], headers[1]["OBJECT"])
    assert state(transit / "f1.ms") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"i-{name}.fits" for name in ("image-pb", "image", "model", "pb", "psf", "residual")
    ]


def test_trap_7_a_drift_scan_is_imaged_whole(transit, embedded, tmp_path):
    """WSClean alone would take field 0, the first dump of eight."""
    before = state(transit / "f24.ms")
    made = image_ms(transit / "f24.ms", tmp_path / "i", ImagingConfig(**GRID, backend="wsclean"))
    own = image_ms(transit / "f24.ms", tmp_path / "e", ImagingConfig(**GRID))
    peak, _, rms, apart = compare(own, made)
    assert abs(peak - 1) < 0.01
    assert abs(rms - 1) < 0.05
    assert apart.max() < 0.1
    assert made.metrics.rms_jy < 1.3 * embedded.metrics.rms_jy
    assert state(transit / "f24.ms") == before
    # Three of its fields, with their own middle.
    some = image_ms(
        transit / "f24.ms", tmp_path / "s", ImagingConfig(**GRID, backend="wsclean"), field="2,3,4"
    )
    assert some.metrics.thermal_rms_jy > 1.5 * made.metrics.thermal_rms_jy
    assert some.metrics.rms_jy > made.metrics.rms_jy
    assert fits.getheader(some.image)["CRVAL1"] != fits.getheader(made.image)["CRVAL1"]


def test_trap_1_model_data_is_not_touched(small, tmp_path):
    ms = Path(shutil.copytree(small / "f1.ms", tmp_path / "m.ms"))
    with table(str(ms), readonly=False, ack=False) as main:
        description, shape = main.getcoldesc("DATA"), main.getcol("DATA").shape
        for name in ("MODEL_DATA", "CORRECTED_DATA"):
            main.addcols({name: description | {"dataManagerGroup": name}})
        main.putcol("MODEL_DATA", np.full(shape, 7, np.complex64))
        # Constant data would be refused as broken: a little noise lies upon them.
        noise = np.random.default_rng(5).normal(0, 0.1, (2, *shape))
        main.putcol("CORRECTED_DATA", (2 + noise[0] + 1j * noise[1]).astype(np.complex64))
    made = image_ms(ms, tmp_path / "i", ImagingConfig(**SMALL, backend="wsclean"))
    with table(str(ms), ack=False) as main:
        assert (main.getcol("MODEL_DATA") == 7).all()
    # A visibility of about 2 everywhere is a source of 2 Jy at the centre: CORRECTED_DATA is what was imaged.
    assert made.metrics.peak_jy == pytest.approx(2, rel=0.01)
    data = image_ms(ms, tmp_path / "d", ImagingConfig(**SMALL, backend="wsclean"), column="DATA")
    assert data.metrics.peak_jy != pytest.approx(2, rel=0.01)


def test_options_reach_wsclean(small, tmp_path):
    """Every option changes the image, or is refused where it cannot."""
    base = ImagingConfig(**SMALL, backend="wsclean")

    def peak_and_model(**changes):
        made = image_ms(small / "f1.ms", tmp_path / "i", base.with_options(**changes))
        return made, read_image(made.model).image

    plain, model = peak_and_model()
    # Read before the next image takes its name.
    psf = read_image(plain.psf).image
    assert (read_image(peak_and_model(weighting="natural")[0].psf).image != psf).any()
    assert (peak_and_model(robust=2.0)[1] != model).any()
    assert np.count_nonzero(peak_and_model(threshold="200mJy")[1]) < np.count_nonzero(model)
    assert np.count_nonzero(peak_and_model(threshold="20sigma")[1]) < np.count_nonzero(model)
    assert np.count_nonzero(peak_and_model(mask_sigma=30.0)[1]) < np.count_nonzero(model)
    assert (peak_and_model(multiscale=True)[1] != model).any()
    assert np.count_nonzero(peak_and_model(clean_iterations=5)[1]) <= 5
    dirty, nothing = peak_and_model(clean_iterations=0)
    assert not nothing.any()
    assert read_image(dirty.image).image == pytest.approx(read_image(dirty.residual).image)
    spectral, _ = peak_and_model(channels_out=3, spectral_terms=2)
    assert [p.name for p in spectral.channels] == [
        "i-0000-image.fits",
        "i-0001-image.fits",
        "i-0002-image.fits",
    ]
    low, high = (fits.getheader(p)["CRVAL3"] for p in (spectral.channels[0], spectral.channels[2]))
    assert low < fits.getheader(spectral.image)["CRVAL3"] < high
    with pytest.raises(ConfigError, match=r"channels_out: .*option of WSClean"):
        peak_and_model(backend="embedded", channels_out=3)
    with pytest.raises(WSCleanError, match="nowhere: no such program"):
        peak_and_model(wsclean="nowhere")


def test_options_reach_the_embedded_engine(small, tmp_path):
    base = ImagingConfig(**SMALL)
    plain = image_ms(small / "f1.ms", tmp_path / "i", base)
    deep = np.count_nonzero(read_image(plain.model).image)
    for threshold in ("200mJy", "20sigma"):
        made = image_ms(small / "f1.ms", tmp_path / "t", base.with_options(threshold=threshold))
        assert np.count_nonzero(read_image(made.model).image) < deep
    beams = []
    for dish in (None, 3.0):
        made = image_ms(
            small / "f1.ms", tmp_path / "b", base.with_options(pb_correct=True, dish_diameter_m=dish)
        )
        image, beam, corrected = (read_image(p).image for p in (made.image, made.pb, made.image_pb))
        y, x = divmod(int(image.argmax()), image.shape[1])
        assert corrected[y, x] == pytest.approx(image[y, x] / beam[y, x], rel=1e-5)
        beams.append(beam)
    assert beams[1][100, 100] > beams[0][100, 100]


@pytest.mark.parametrize("backend", ["embedded", "wsclean"])
def test_masks(backend, small, tmp_path):
    """Components lie in the mask alone; an empty or foreign mask is refused."""
    build_strips("nvss", small / "f1.catalog.ecsv", tmp_path / "c")
    base = ImagingConfig(
        **SMALL, backend=backend, catalog_dir=tmp_path / "c", catalog_mask=True, nvss_min_mjy=100.0
    )
    made = image_ms(small / "f1.ms", tmp_path / "i", base)
    mask, model = read_image(made.mask).image, read_image(made.model).image
    assert 0 < mask.mean() < 0.5
    assert model.any()
    assert not model[mask == 0].any()
    narrow = image_ms(small / "f1.ms", tmp_path / "n", base.with_options(mask_radius_arcsec=40.0))
    assert read_image(narrow.mask).image.sum() < mask.sum()
    given = base.with_options(catalog_mask=False, mask=narrow.mask)
    again = image_ms(small / "f1.ms", tmp_path / "g", given)
    assert (read_image(again.mask).image == read_image(narrow.mask).image).all()
    with pytest.raises(SeedError, match="empty mask"):
        image_ms(small / "f1.ms", tmp_path / "e", base.with_options(nvss_min_mjy=1e5))
    with pytest.raises(ConfigError, match="not on the grid"):
        image_ms(small / "f1.ms", tmp_path / "e", given.with_options(size=640))


def test_what_cannot_be_imaged_in_a_container(engine, small, tmp_path):
    config = ImagingConfig(**SMALL, backend="container", container_engine=engine)
    ms = small / "f1.ms"
    with pytest.raises(ContainerImageError, match=r"no such image in .*contimg container build"):
        image_ms(ms, tmp_path / "i", config.with_options(container_image="nothing:here"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outside = config.with_options(container_mounts=str(elsewhere))
    with pytest.raises(PathOutsideMountError, match="outside of what the container sees"):
        image_ms(ms, tmp_path / "i", outside)
    assert not list(tmp_path.glob(".i.wsclean*"))
    get_wsclean_container(
        image=config.container_image, mounts=parse_mounts(str(elsewhere)), engine=engine
    ).stop()


def test_one_container_serves_many_calls(engine, small, tmp_path):
    """The folder named once, `image_ms` starts one container and uses it again."""
    root = tmp_path / "root"
    shutil.copytree(small, root / "data")
    options = {"container_engine": engine, "container_mounts": f"{root}:/data"}
    config = ImagingConfig(**SMALL, backend="container", clean_iterations=0, **options)
    first = image_ms(root / "data" / "f1.ms", root / "a" / "i", config)
    second = image_ms(root / "data" / "f24.ms", root / "b" / "i", config)
    assert first.image.is_file()
    assert second.image.is_file()
    mine = [c for c in _SHARED.values() if c.is_running() and c.mounts[0].host == root]
    assert len(mine) == 1
    assert (
        get_wsclean_container(image=config.container_image, mounts=mine[0].mounts, engine=engine) is mine[0]
    )
    mine[0].stop()


def test_the_command_line(engines, small, tmp_path):
    """`contimg image --backend container`, and nothing is left when it ends."""
    command = [
        sys.executable,
        "-m",
        "dsa110_contimg",
        "image",
        str(small / "f1.ms"),
        "--name",
        str(tmp_path / "i"),
    ]
    flags = [
        "--size",
        "512",
        "--cell",
        "12",
        "--backend",
        "container",
        "--container-engine",
        "docker",
        "--json",
    ]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"imager": "WSClean 3' in done.stdout


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """No container outlives its use but those that are shared."""
    yield
    if "engines" in request.fixturenames:
        shared = {c.container_name for c in _SHARED.values() if c.is_running()}
        for engine in ("docker", "podman"):
            assert set(containers(engine)) <= shared


def test_products_of_an_earlier_run_of_the_name_do_not_stay(small, tmp_path):
    """The image divided by the beam would be that of another image."""
    other = tmp_path / "other-0000-image.fits"
    other.write_text("not ours")
    first = ImagingConfig(**SMALL, backend="wsclean", pb_correct=True, channels_out=2)
    assert len(image_ms(small / "f1.ms", tmp_path / "i", first).channels) == 2
    (tmp_path / ".z.wsclean.4194304").mkdir()
    image_ms(small / "f1.ms", tmp_path / "i", ImagingConfig(**SMALL, backend="wsclean"))
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [*(f"i-{n}.fits" for n in ("image", "model", "psf", "residual")), other.name]
