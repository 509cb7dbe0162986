import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dsa110_contimg.errors import ImagingError, ResourceError
from dsa110_contimg.imaging import ImageGrid, ImageHeader, RestoringBeam, read_image, write_image

GRID = ImageGrid(128, 4 / 206265, 2.5, 0.95)
BEAM = RestoringBeam(12 / 206265, 9 / 206265, math.radians(-35))


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)


def save(path, image, **kwargs):
    write_image(path, image, GRID, BEAM, header=ImageHeader(freq_hz=1.4e9, bandwidth_hz=1.8e8, **kwargs))


def test_header_puts_pixels_where_they_are(tmp_path, image):
    save(tmp_path / "a.fits", image, telescope="DSA_110", target="field", date_obs="2025-10-19T14:31:45")
    with fits.open(tmp_path / "a.fits") as units:
        header = units[0].header
        assert units[0].data.shape == (1, 1, 128, 128)
    x, y = np.random.default_rng(1).uniform(0, 127, (2, 30))
    ra, dec = GRID.pixel_to_sky(x, y)
    got = WCS(header).celestial.all_world2pix(np.degrees(ra), np.degrees(dec), 0)
    np.testing.assert_allclose(got, (x, y), atol=1e-4)
    assert WCS(header).wcs.restfrq == 1.4e9
    assert (header["BMAJ"], header["BPA"]) == pytest.approx((12 / 3600, -35), rel=1e-5)
    expected = {"RADESYS": "ICRS", "BUNIT": "JY/BEAM", "TELESCOP": "DSA_110", "OBJECT": "field"}
    assert expected.items() <= dict(header).items()
    assert header["CDELT1"] < 0
    assert "OBSERVER" not in header


def test_image_comes_back(tmp_path, image):
    save(tmp_path / "a.fits", image, unit="JY/PIXEL", history=["first", "second"])
    back = read_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(back.image, image)
    assert back.image.dtype.isnative
    assert back.grid.size == 128
    assert (back.grid.cell_rad, back.grid.ra_rad, back.grid.dec_rad) == pytest.approx(
        (GRID.cell_rad, GRID.ra_rad, GRID.dec_rad), rel=1e-12
    )
    assert back.beam.pa_rad == pytest.approx(BEAM.pa_rad)
    assert (back.freq_hz, back.bandwidth_hz, back.unit) == (1.4e9, 1.8e8, "JY/PIXEL")
    assert list(fits.getheader(tmp_path / "a.fits")["HISTORY"]) == ["first", "second"]


def test_trap_28_old_image_stays_until_the_new_one_is_whole(tmp_path, image, monkeypatch):
    path = tmp_path / "a.fits"
    save(path, image)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        save(path, image + 1)
    np.testing.assert_array_equal(read_image(path).image, image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]


def test_folder_that_is_not_there_is_named(tmp_path, image):
    with pytest.raises(ResourceError, match="nowhere"):
        save(tmp_path / "nowhere" / "a.fits", image)


def test_what_is_not_such_an_image_is_refused(tmp_path, image):
    (tmp_path / "text.fits").write_text("not FITS\n" * 1000)
    fits.PrimaryHDU(image).writeto(tmp_path / "bare.fits")
    fits.PrimaryHDU(image[:64]).writeto(tmp_path / "oblong.fits")
    for name in ("missing", "text", "bare", "oblong"):
        with pytest.raises(ImagingError, match=name):
            read_image(tmp_path / f"{name}.fits")
    with pytest.raises(ImagingError, match="128"):
        save(tmp_path / "b.fits", image[:64])


def test_words_that_fits_does_not_know_are_written_out(tmp_path, image):
    save(tmp_path / "a.fits", image, target="Große Magellansche Wolke ☉", history=["nach Öffnung"])
    with fits.open(tmp_path / "a.fits") as units:
        assert units[0].header["OBJECT"] == r"Gro\xdfe Magellansche Wolke \u2609"
        assert r"nach \xd6ffnung" in str(units[0].header["HISTORY"])
