"""Sky models, and the text that other programs read them from."""

import re

import numpy as np
import pytest

from dsa110_contimg.sky import SkyModel

ARCSEC = np.pi / 180 / 3600


def model(ra_deg, dec_deg, flux=None, major=None, minor=None, pa_deg=None):
    n = len(ra_deg)
    zero = np.zeros(n)
    return SkyModel(
        tuple(f"s{k}" for k in range(n)),
        np.radians(np.asarray(ra_deg, float)),
        np.radians(np.asarray(dec_deg, float)),
        np.ones(n) if flux is None else np.asarray(flux, float),
        np.full(n, -0.7),
        zero if major is None else np.asarray(major) * ARCSEC,
        zero if minor is None else np.asarray(minor) * ARCSEC,
        zero if pa_deg is None else np.radians(pa_deg),
    )


def awkward_positions():
    """Where seconds round up to sixty, signs get lost and right ascension wraps."""
    rng = np.random.default_rng(1)
    ra = [0.0, 359.9999999999, 14.99999999999, 0.2499999999, 180.0, 359.0, 30.0, 15.0]
    dec = [-0.00001, 0.0, -0.9999999999, 59.99999999999, -89.9999999, 89.99999999, 1 / 60 - 1e-11, -1e-9]
    return np.append(ra, rng.uniform(0, 360, 300)), np.append(dec, rng.uniform(-90, 90, 300))


def read_wsclean(path):
    """The format as WSClean's documentation gives it, by column name."""
    header, *lines = path.read_text().splitlines()
    assert header.startswith("Format = ")
    columns = [c.split("=")[0].strip() for c in header.removeprefix("Format = ").split(",")]
    rows = []
    for line in lines:
        index = re.search(r"\[(.*?)\]", line)
        values = re.sub(r"\[.*?\]", "", line).split(",")
        assert len(values) == len(columns)
        row = dict(zip(columns, values, strict=True)) | {"SpectralIndex": float(index.group(1))}
        h, m, s = row["Ra"].split(":")
        assert 0 <= int(h) < 24
        assert int(m) < 60
        assert float(s) < 60
        row["ra_deg"] = 15 * (int(h) + int(m) / 60 + float(s) / 3600)
        sign, d, m, s = re.fullmatch(r"([+-])(\d\d)\.(\d\d)\.(\d\d\.\d+)", row["Dec"]).groups()
        assert int(m) < 60
        assert float(s) < 60
        row["dec_deg"] = (int(d) + int(m) / 60 + float(s) / 3600) * (-1 if sign == "-" else 1)
        rows.append(row)
    return rows


def offset_arcsec(ra_deg, dec_deg, ra0_deg, dec0_deg):
    dra = (np.asarray(ra_deg) - ra0_deg + 180) % 360 - 180
    return 3600 * np.hypot(dra * np.cos(np.radians(dec0_deg)), np.asarray(dec_deg) - dec0_deg)


def test_wsclean_list_reads_back_to_a_hundredth_of_an_arcsec(tmp_path):
    ra, dec = awkward_positions()
    model(ra, dec, flux=np.arange(len(ra)) + 0.5).write_wsclean(tmp_path / "sky.txt")
    rows = read_wsclean(tmp_path / "sky.txt")
    assert offset_arcsec([r["ra_deg"] for r in rows], [r["dec_deg"] for r in rows], ra, dec).max() < 0.01
    np.testing.assert_allclose([float(r["I"]) for r in rows], np.arange(len(ra)) + 0.5)
    assert {r["Type"] for r in rows} == {"POINT"}
    assert {r["SpectralIndex"] for r in rows} == {-0.7}
    assert {float(r["ReferenceFrequency"]) for r in rows} == {1.4e9}
    assert {r["LogarithmicSI"] for r in rows} == {"true"}


def test_wsclean_list_of_gaussians_in_arcsec_and_degrees(tmp_path):
    sky = model([10.0, 11.0], [1.0, -2.0], major=[60.0, 0.0], minor=[20.0, 0.0], pa_deg=[35.0, 0.0])
    sky.write_wsclean(tmp_path / "sky.txt", np.array([3.0, 4.0]))
    extended, point = read_wsclean(tmp_path / "sky.txt")
    shape = [float(extended[c]) for c in ("MajorAxis", "MinorAxis", "Orientation")]
    assert (extended["Type"], shape, float(extended["I"])) == ("GAUSSIAN", [60.0, 20.0, 35.0], 3.0)
    assert (point["Type"], point["MajorAxis"], float(point["I"])) == ("POINT", "", 4.0)


def test_ds9_regions_read_back_to_a_hundredth_of_an_arcsec(tmp_path):
    ra, dec = awkward_positions()
    model(ra, dec).write_ds9(tmp_path / "sky.reg")
    text = (tmp_path / "sky.reg").read_text()
    found = np.array(re.findall(r"^point\(([\d.]+),(-?[\d.]+)\)", text, re.M), dtype=float)
    assert "\nicrs\n" in text
    assert offset_arcsec(found[:, 0], found[:, 1], ra, dec).max() < 0.01
    assert "# text={s0 1000.0 mJy}" in text


def test_ds9_ellipse_has_semi_axes_with_north_second(tmp_path):
    sky = model([10.0], [1.0], major=[60.0], minor=[20.0], pa_deg=[35.0])
    sky.write_ds9(tmp_path / "sky.reg", np.array([0.0125]))
    assert (
        'ellipse(10.0000000,1.0000000,10.000",30.000",35.00) # text={s0 12.5 mJy}'
        in (tmp_path / "sky.reg").read_text()
    )


def test_nothing_is_left_beside_the_files(tmp_path):
    model([1.0], [1.0]).write_wsclean(tmp_path / "sky.txt")
    model([1.0], [1.0]).write_ds9(tmp_path / "sky.reg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sky.reg", "sky.txt"]


def test_flux_follows_the_power_law():
    sky = model([0.0, 0.0], [0.0, 0.0], flux=[2.0, 3.0])
    expected = np.array([2.0, 3.0])[:, None] * (np.array([0.7e9, 1.4e9, 2.8e9]) / 1.4e9) ** -0.7
    np.testing.assert_allclose(sky.flux_at(np.array([0.7e9, 1.4e9, 2.8e9])), expected)


def test_joined_models_share_the_first_reference_frequency():
    near = SkyModel.points(np.zeros(1), np.zeros(1), np.ones(1), spectral_index=-1.0, reference_freq_hz=1e9)
    far = SkyModel.points(np.ones(2), np.ones(2), np.ones(2), spectral_index=-1.0, reference_freq_hz=2e9)
    joined = SkyModel.concatenate([near, far])
    assert (len(joined), joined.reference_freq_hz) == (3, 1e9)
    np.testing.assert_allclose(joined.flux_jy, [1.0, 2.0, 2.0])
    freq = np.array([1.5e9])
    np.testing.assert_allclose(joined.flux_at(freq)[1:], far.flux_at(freq))


@pytest.mark.parametrize("index", [np.array([2, 0]), np.array([True, False, True])])
def test_selection_takes_every_attribute(index):
    sky = model([0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9, 0, 1], [2, 0, 1], [1, 2, 3])
    chosen = np.arange(3)[index]
    part = sky.select(index)
    assert part.name == tuple(f"s{k}" for k in chosen)
    for name in ("ra_rad", "dec_rad", "flux_jy", "spectral_index", "major_rad", "minor_rad", "pa_rad"):
        np.testing.assert_array_equal(getattr(part, name), getattr(sky, name)[chosen])
    np.testing.assert_array_equal(part.is_point, part.major_rad == 0)
