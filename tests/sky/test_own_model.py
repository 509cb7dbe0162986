"""Models of the sky in files of one's own: what is read of them, against other programs and known answers."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.errors import ConfigError, SkyModelError
from dsa110_contimg.predict import predict_components, predict_reference
from dsa110_contimg.sky import AiryBeam, SkyModel, add_own_model, angular_separation, build_own_model
from dsa110_contimg.sky.model_file import read_model_file
from dsa110_contimg.sky.spectra import carry_spectra, evaluate_spectra
from tests.needs import program

HERE = Path(__file__).parent
CENTRE = (float(np.radians(150.0)), float(np.radians(54.57)))
FREQ = np.linspace(1.31e9, 1.5e9, 5)
BEAM = AiryBeam(4.65)
FORMAT = "Format = Name, Type, Ra, Dec, I, SpectralIndex, LogarithmicSI, ReferenceFrequency='1.4e9', "
SHAPE = "MajorAxis, MinorAxis, Orientation"


def read(path, **options):
    asked = {"fluxes": "true", "spectral_index": -0.75, "freq_hz": 1.4e9, "centre": CENTRE}
    return read_model_file(path, **(asked | options))


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_dp3_predicts_the_same_of_its_own_file():
    """Visibilities by DP3 6.6.0 (predict, no beam): curved spectra of both kinds, a flat one, Gaussians."""
    truth = np.load(HERE / "dp3" / "predicted.npz")
    centre = tuple(float(x) for x in truth["phase_centre"])
    sky = read(HERE / "dp3" / "model.skymodel", centre=centre).sky
    found = (truth["uvw_m"], truth["freq_hz"], sky.lmn(*centre), sky.flux_at(truth["freq_hz"]))
    total = np.abs(sky.flux_at(truth["freq_hz"])).sum(axis=0).max()
    for predict in (predict_reference, predict_components):
        ours = predict(*found, *sky.shape_about(*centre))
        assert np.abs(ours - truth["vis"]).max() < 1e-4 * total
    # Both the shapes and the terms matter at this accuracy.
    round_ = predict_reference(*found, *sky.shape_about(*centre)[:2], sky.pa_rad + 0.05)
    assert np.abs(round_ - truth["vis"]).max() > 1e-3 * total
    straight = replace(sky, curvature=np.zeros_like(sky.curvature)).flux_at(truth["freq_hz"])
    assert np.abs(straight - found[3]).max() > 2e-4 * total


def test_dp3_positions_are_carried_from_j2000():
    sky = [read(HERE / "dp3" / "model.skymodel", frame=frame).sky for frame in ("ICRS", "J2000")]
    apart = angular_separation(sky[0].ra_rad, sky[0].dec_rad, sky[1].ra_rad, sky[1].dec_rad)
    np.testing.assert_allclose(np.degrees(apart) * 3.6e6, 11.4, atol=0.5)


def test_wsclean_predicts_the_same_of_an_image_of_components(tmp_path):
    from casacore.tables import table

    from dsa110_contimg.config import SimulationConfig
    from dsa110_contimg.simulate import simulate
    from tests.arrays import COMPACT

    wsclean, ms = program("wsclean"), tmp_path / "t.ms"
    flat = SimulationConfig(array=COMPACT, channels=2, dumps=1, drift=False, sefd_jy=0.0, min_mjy=500.0)
    simulate(ms, flat)
    with table(str(ms / "FIELD"), ack=False) as sub:
        ra, dec = (float(x) for x in sub.getcell("PHASE_DIR", 0)[0])
    size = "-size 512 512 -scale 15asec -use-wgridder -wgridder-accuracy 1e-6 -padding 2 -no-small-inversion"
    make = [wsclean, "-j", "1", "-name", str(tmp_path / "m"), *size.split()]
    subprocess.run([*make, "-niter", "1", str(ms)], check=True, capture_output=True)
    image = tmp_path / "m-model.fits"
    with fits.open(image, mode="update") as hdus:
        hdus[0].data[:] = 0
        for y, x, flux in ((256, 256, 1.0), (300, 180, -0.3), (140, 350, 2.0), (390, 400, 0.5)):
            hdus[0].data[0, 0, y, x] = flux
    subprocess.run([*make, "-predict", str(ms)], check=True, capture_output=True)
    sky = read(image, centre=(ra, dec)).sky
    with table(str(ms), ack=False) as main, table(str(ms / "SPECTRAL_WINDOW"), ack=False) as windows:
        uvw, freq = main.getcol("UVW"), windows.getcell("CHAN_FREQ", 0)
        theirs = main.getcol("MODEL_DATA")[..., 0]
    ours = predict_components(uvw, freq, sky.lmn(ra, dec), sky.flux_at(freq))
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(sky.flux_jy).sum()
    # WSClean also labels images of components Jy/beam: they are told by what is in them.
    with fits.open(image, mode="update") as hdus:
        hdus[0].header["BUNIT"] = "JY/BEAM"
    assert len(read(image).sky) == 4
    with fits.open(image, mode="update") as hdus:
        hdus[0].data[:] = 1e-3
    with pytest.raises(SkyModelError, match=r"is an image in JY/BEAM.*give the image of clean components"):
        read(image)


def test_wsclean_reads_the_list_and_sees_the_same_shape(tmp_path):
    """A Gaussian of ours, restored by WSClean: its second moments are those of the angle that was meant."""
    wsclean, n, cell = program("wsclean"), 256, 5.0
    sky = SkyModel.points(np.array([CENTRE[0]]), np.array([CENTRE[1]]), np.array([1.0]))
    arcsec = np.pi / 180 / 3600
    wide = {"major_rad": 90 * arcsec, "minor_rad": 40 * arcsec, "pa_rad": np.radians(30.0)}
    sky = replace(sky, **{k: np.array([v]) for k, v in wide.items()}, is_apparent=np.array([True]))
    sky.write_wsclean(tmp_path / "own.txt", centre=CENTRE)
    header = fits.Header(
        {
            **{"CTYPE1": "RA---SIN", "CRPIX1": n / 2 + 1, "CRVAL1": 150.0, "CDELT1": -cell / 3600},
            **{"CTYPE2": "DEC--SIN", "CRPIX2": n / 2 + 1, "CRVAL2": 54.57, "CDELT2": cell / 3600},
            **{"CTYPE3": "FREQ", "CRPIX3": 1, "CRVAL3": 1.4e9, "CDELT3": 1e8, "CUNIT3": "Hz"},
            **{"CTYPE4": "STOKES", "CRPIX4": 1, "CRVAL4": 1.0, "CDELT4": 1.0, "BUNIT": "JY/BEAM"},
            **{"EQUINOX": 2000.0, "BMAJ": 12 / 3600, "BMIN": 12 / 3600, "BPA": 0.0},
        }
    )
    fits.writeto(tmp_path / "zero.fits", np.zeros((1, 1, n, n), dtype=np.float32), header)
    run = [wsclean, "-restore-list", "zero.fits", "own.txt", "restored.fits"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
    image = fits.getdata(tmp_path / "restored.fits")[0, 0].astype(float)
    y, x = np.indices(image.shape) - n / 2
    east, north = -x, y
    weight = image / image.sum()
    moments = [(weight * a * b).sum() for a, b in ((east, east), (east, north), (north, north))]
    angle = 0.5 * np.arctan2(2 * moments[1], moments[2] - moments[0])
    assert abs(np.degrees(angle) - 30.0) < 1.0


def test_shapes_in_the_plane_of_the_image_are_carried_to_the_sky(tmp_path):
    """A Gaussian in l and m far from the phase centre, against its sum over the pixels of that plane."""
    line = "g, GAUSSIAN, 10:09:00.0, +55.40.00.0, 1.0, [], true, 1.4e9, 70.0, 25.0, 40.0"
    sky = read(written(tmp_path / "s.txt", FORMAT + SHAPE, line), frame="J2000").sky
    l0, m0, _ = sky.lmn(*CENTRE)[0]
    step, half = np.radians(3.0 / 3600), 60
    dl, dm = np.meshgrid(step * np.arange(-half, half + 1), step * np.arange(-half, half + 1))
    s, c, fwhm = np.sin(np.radians(40)), np.cos(np.radians(40)), np.radians(np.array([70.0, 25.0]) / 3600)
    along, across = (dl * s + dm * c) / fwhm[0], (dl * c - dm * s) / fwhm[1]
    image = np.exp(-4 * np.log(2) * (along**2 + across**2)).ravel()
    l, m = l0 + dl.ravel(), m0 + dm.ravel()  # noqa: E741
    lmn = np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1], axis=1)
    rng = np.random.default_rng(2)
    uvw = rng.normal(size=(40, 3)) * [400.0, 400.0, 200.0]
    exact = predict_reference(uvw, FREQ[:1], lmn, (image / image.sum())[:, None])
    ours = predict_reference(uvw, FREQ[:1], sky.lmn(*CENTRE), np.ones((1, 1)), *sky.shape_about(*CENTRE))
    # The plane is not the sphere: over 70 arcsec it makes 1e-4.
    assert np.abs(ours - exact).max() < 2e-4
    # What w adds to the extent counts: without it the shape is off.
    absolute = written(tmp_path / "a.txt", FORMAT + SHAPE + ", OrientationIsAbsolute", line + ", true")
    other = read(absolute, frame="J2000").sky
    wrong = predict_reference(uvw, FREQ[:1], sky.lmn(*CENTRE), np.ones((1, 1)), *other.shape_about(*CENTRE))
    assert np.abs(wrong - exact).max() > 1e-3
    other.write_wsclean(tmp_path / "again.txt", centre=CENTRE)
    again = read(tmp_path / "again.txt", frame="J2000").sky
    np.testing.assert_allclose(
        [again.major_rad, again.minor_rad, again.pa_rad],
        [other.major_rad, other.minor_rad, other.pa_rad],
        rtol=1e-6,
    )


def test_spectra_are_carried_to_another_frequency_exactly():
    terms, linear = np.array([[-0.7, 0.3, 0.1], [-0.5, 0.2, -0.4]]), np.array([False, True])
    ratio, carried = carry_spectra(1.3, terms, linear)
    freq = np.array([0.6, 0.9, 1.1])
    now = ratio[:, None] * evaluate_spectra(freq / 1.3, carried, linear)
    np.testing.assert_allclose(now, evaluate_spectra(freq, terms, linear), rtol=1e-12)
    x = np.log10(freq)
    np.testing.assert_allclose(now[0], freq ** (-0.7 + 0.3 * x + 0.1 * x**2), rtol=1e-12)
    np.testing.assert_allclose(now[1], 1 - 0.5 * (freq - 1) + 0.2 * (freq - 1) ** 2 - 0.4 * (freq - 1) ** 3)


def test_a_list_says_the_same_in_every_format(tmp_path):
    list_ = written(
        tmp_path / "a", FORMAT + SHAPE, "s,GAUSSIAN,10:00:00,+54.30.00,0.5,[-0.8,0.1],true,1.4e9,30,20,50"
    )
    columns = (
        "name,ra_deg,dec_deg,flux_mjy,spectral_index,spectral_curvature,major_arcsec,minor_arcsec,pa_deg"
    )
    row = "s,150.0,54.5,500,-0.8,0.1,30,20,50"
    csv = written(tmp_path / "b", "# made by hand", columns, row)
    units = {"ra_deg": "deg", "dec_deg": "deg", "flux_jy": "mJy", "major_arcsec": "arcmin"}
    names = ["ra_deg", "dec_deg", "flux_jy", "spectral_index", "spectral_curvature", "major_arcsec"]
    names += ["minor_arcsec", "pa_deg"]
    head = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    head += [f"# - {{name: {n}, datatype: float64, unit: '{units.get(n, '')}'}}" for n in names]
    ecsv = written(tmp_path / "c", *head, "# meta: {fluxes: 'true'}", ",".join(names))
    with ecsv.open("a") as out:
        out.write("150.0,54.5,500,-0.8,0.1,0.5,20,50\n")
    blank = "# (Name Type Ra Dec I SpectralIndex ReferenceFrequency MajorAxis MinorAxis Orientation) = format"
    spaced = written(tmp_path / "d", blank, "s GAUSSIAN 150deg 54d30m00 0.5 [-0.8,0.1] 1.4e9 30 20 50")
    skies = [read(list_, frame="J2000").sky, read(csv).sky, read(ecsv, fluxes=None).sky]
    skies.append(read(spaced, frame="J2000").sky)
    for sky in skies:
        traits = np.append(sky.traits()[0], sky.flux_jy)
        # The list's angle counts from the m axis, which is north this near to the phase centre.
        np.testing.assert_allclose(traits, np.append(skies[1].traits()[0], 0.5), rtol=1e-5)


LIST = (FORMAT + SHAPE, "s,POINT,10:00:00,+54.30.00,0.5,[-0.8],true,1.4e9,,,")


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((LIST[0], LIST[1].replace("0.5", "bright")), r"line 2, column I: 'bright' is not a number"),
        (
            (LIST[0], LIST[1].replace("POINT", "SHAPELET")),
            r"line 2, column Type: SHAPELET cannot be predicted",
        ),
        (
            (LIST[0], LIST[1].replace("+54.30.00", "+54:30:00")),
            r"line 2, column Dec.*colons.*write \+dd\.mm\.ss",
        ),
        ((LIST[0], LIST[1].replace("10:00:00", "150.0")), r"column Ra: '150.0' is not an angle"),
        ((LIST[0], LIST[1].replace("[-0.8]", "[-0.8")), "lacks a bracket"),
        ((LIST[0], LIST[1].replace("POINT", "GAUSSIAN")), "column MajorAxis: there is no value"),
        ((LIST[0].replace("='1.4e9'", ""), LIST[1].replace("1.4e9", "")), "column ReferenceFrequency"),
        (
            (LIST[0], LIST[1].replace("0.5,[-0.8],true", "0,[-0.8],false")),
            "no flux at its reference frequency",
        ),
        ((LIST[0].replace(" Dec,", ""), LIST[1]), "names no column Dec"),
        ((LIST[0],), "holds no component"),
        (("ra_deg,dec_deg,flux_jy", "150,54.5"), r"line 2: has 2 values for 3 columns"),
        (("ra_deg,dec_deg,flux_jy", "150,94.5,1"), r"line 2, column dec_deg: 94.5 cannot be"),
        (("ra_deg,dec_deg,flux_jy", "150,54,x"), r"line 2, column flux_jy: 'x' is not a number"),
        (("ra_deg,dec_deg,flux_jy,major_arcsec", "150,54,1,inf"), r"line 2, column major_arcsec: "),
        (("ra_deg,dec_deg", "150,54"), "has no column flux_jy"),
        (("some", "text"), "is no model of the sky that is known"),
    ],
)
def test_what_cannot_be_read_is_named_with_line_and_column(tmp_path, lines, what):
    with pytest.raises(SkyModelError, match=what) as raised:
        read(written(tmp_path / "m.txt", *lines))
    assert "\n" not in str(raised.value)


def test_files_that_are_none_are_refused_in_a_line(tmp_path):
    for path, what in ((tmp_path, "is a folder"), (tmp_path / "none", "No such file")):
        with pytest.raises(SkyModelError, match=what):
            read(path)
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SkyModelError, match="is no text and no FITS file"):
        read(tmp_path / "b")
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "BUNIT": "Jy/beam"})
    fits.writeto(tmp_path / "beam.fits", np.eye(64, dtype=np.float32) * 1e-3, header)
    with pytest.raises(SkyModelError, match="is an image in Jy/beam"):
        read(tmp_path / "beam.fits")
    with pytest.raises(ConfigError, match="does not say whether its fluxes hold the primary beam"):
        read(written(tmp_path / "m.txt", *LIST), fluxes=None)


def test_a_width_in_a_table_that_is_not_finite_is_refused(tmp_path):
    table = Table({"ra_deg": [150.0], "dec_deg": [54.0], "flux_jy": [1.0], "major_arcsec": [np.inf]})
    table["flux_jy"].unit = "Jy"
    table.write(tmp_path / "m.ecsv", format="ascii.ecsv")
    with pytest.raises(SkyModelError, match="major_arcsec"):
        read(tmp_path / "m.ecsv")


def test_polarised_flux_is_named(tmp_path):
    lines = ("Format = Name, Type, Ra, Dec, I, Q, U, V", "s,POINT,10:00:00,+54.30.00,0.5,0.3,0,-0.4")
    found = read(written(tmp_path / "m.txt", *lines))
    assert found.notes == ("of the model only Stokes I is predicted: 0.5 Jy of Q, U and V beside 0.5 Jy",)


def drifting():
    """A beam that crosses two sources while it drifts by two degrees."""
    ra = CENTRE[0] + np.radians(np.linspace(-1.0, 1.0, 7)) / np.cos(CENTRE[1])
    return np.stack([ra, np.full(7, CENTRE[1])], axis=1)


def true_sky():
    place = np.radians([149.0, 150.2, 152.0]), np.radians([54.0, 54.6, 55.2])
    return SkyModel.points(*place, np.array([1.0, 2.0, 0.7]), spectral_index=-0.8)


def test_an_apparent_flux_follows_the_drifting_beam_as_the_true_one_does(tmp_path):
    """Of true fluxes, and of their means over the drift, the same is predicted at every dump."""
    sky, pointing = true_sky(), drifting()
    sky.write_wsclean(tmp_path / "true.txt")
    more = {"pointing": pointing, "freq_hz": FREQ, "beam": BEAM, "centre": CENTRE, "frame": "J2000"}
    true = build_own_model(tmp_path / "true.txt", fluxes="true", **more)
    text, _ = true.write(tmp_path / "out")
    # What the run writes is a model of the next: it says itself that it is apparent.
    apparent = build_own_model(text, **more)
    assert (apparent.own_model.fluxes, true.own_model.fluxes) == ("apparent", "true")
    scale = true.apparent_jy.sum()
    np.testing.assert_allclose(apparent.apparent_jy, true.apparent_jy, atol=1e-6 * scale)
    for place in pointing:
        exact = true.apparent_flux(FREQ, *place)
        np.testing.assert_allclose(apparent.apparent_flux(FREQ, *place), exact, atol=2e-5 * scale)
    # A beam that stands still leaves apparent fluxes as they are.
    still = build_own_model(text, **(more | {"pointing": pointing[:1]}))
    np.testing.assert_allclose(still.apparent_flux(FREQ, *pointing[0]), still.sky.flux_at(FREQ))
    with pytest.raises(ConfigError, match="says that its fluxes are apparent"):
        build_own_model(text, fluxes="true", **more)


def test_a_model_added_to_the_catalogue_takes_the_place_of_the_same_sources(tmp_path):
    sky = true_sky()
    sky.write_wsclean(tmp_path / "c.txt")
    moved = replace(sky, dec_rad=sky.dec_rad + np.radians(10 / 3600), flux_jy=sky.flux_jy * 3).select([0])
    extra = SkyModel.points(np.radians([150.5]), np.radians([54.9]), np.array([0.2]))
    SkyModel.concatenate([moved, extra]).write_wsclean(tmp_path / "m.txt")
    more = {"fluxes": "true", "pointing": drifting(), "freq_hz": FREQ, "beam": BEAM, "centre": CENTRE}
    listed, own = (build_own_model(tmp_path / name, **more) for name in ("c.txt", "m.txt"))
    both = add_own_model(own, replace(listed, own_model=None), np.radians(45 / 3600))
    assert (len(both), both.own_model.n_replaced, both.own_model.adds) == (4, 1, True)
    assert (np.diff(both.apparent_jy) <= 0).all()
    np.testing.assert_allclose(both.sky.flux_at(np.array([1.4e9]))[:, 0].sum(), 3.0 + 0.2 + 2.0 + 0.7)


def test_a_model_that_is_not_seen_is_refused(tmp_path):
    written(tmp_path / "m.txt", LIST[0], LIST[1].replace("10:00:00", "22:00:00").replace("+54", "-54"))
    with pytest.raises(SkyModelError, match="none of its 1 components is seen through the beam"):
        build_own_model(tmp_path / "m.txt", drifting(), FREQ, BEAM, CENTRE, fluxes="true")
