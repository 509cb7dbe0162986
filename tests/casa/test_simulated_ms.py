"""CASA reads a simulated Measurement Set, and sees its sky where it is."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from casacore.tables import table

from dsa110_contimg.visibilities import open_measurement_set

pytestmark = pytest.mark.casa


def test_casa_summarises_it(casa, points_ms):
    # listobs itself refuses TELESCOPE_NAME DSA-110: CASA knows no such observatory.
    ms = open_measurement_set(points_ms)
    statistics = casa("visstat", vis=points_ms, axis="amplitude", datacolumn="data")
    (row,) = statistics.values()
    assert row["npts"] == 2 * 8 * ms.n_rows
    with table(str(points_ms), ack=False) as main:
        assert row["mean"] == pytest.approx(np.abs(main.getcol("DATA")).mean(), rel=1e-4)


def test_casa_splits_it_and_keeps_every_value(casa, points_ms, tmp_path):
    casa("split", vis=points_ms, outputvis=tmp_path / "split.ms", datacolumn="data")
    ours, split = open_measurement_set(points_ms), open_measurement_set(tmp_path / "split.ms")
    assert split.telescope == ours.telescope
    assert split.antennas.name == ours.antennas.name
    np.testing.assert_array_equal(split.antennas.position_m, ours.antennas.position_m)
    assert split.fields[0].ra_rad == pytest.approx(ours.fields[0].ra_rad, abs=1e-12)
    np.testing.assert_array_equal(split.spectral_windows[0].freq_hz, ours.spectral_windows[0].freq_hz)
    columns = ("TIME", "ANTENNA1", "ANTENNA2", "UVW", "DATA", "FLAG", "WEIGHT")
    with table(str(points_ms), ack=False) as a, table(str(tmp_path / "split.ms"), ack=False) as b:
        for name in columns:
            # WEIGHT is written anew, from the spectrum.
            np.testing.assert_allclose(a.getcol(name), b.getcol(name), rtol=1e-6 * (name == "WEIGHT"))


def test_its_baselines_are_those_of_casa(casa, points_ms, tmp_path):
    casa("fixvis", vis=points_ms, outputvis=tmp_path / "fixed.ms", reuse=False)
    with table(str(points_ms), ack=False) as a, table(str(tmp_path / "fixed.ms"), ack=False) as b:
        ours, judge = a.getcol("UVW"), b.getcol("UVW")
    # fixvis counts from antenna 2 to antenna 1; which sign shows the sky as it is, the image below says.
    print(f"UVW within {np.abs(ours + judge).max() * 1e3:.2g} mm of {np.abs(ours).max():.0f} m")
    # CASA turns the direction by the aberration, at most 20.5 arcsec, as well.
    np.testing.assert_allclose(-judge, ours, atol=1e-4 * np.abs(ours).max())


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_trap_10_casa_sees_the_sky_where_it_is(casa, points_ms, points_sky, tmp_path):
    casa(
        "tclean",
        vis=points_ms,
        imagename="sky",
        imsize=1024,
        cell="3arcsec",
        weighting="briggs",
        robust=0,
        gridder="wproject",
        wprojplanes=32,
        niter=2000,
        threshold="5mJy",
        pblimit=-0.2,
    )
    casa("exportfits", imagename="sky.image", fitsimage="sky.fits", dropdeg=True)
    with fits.open(tmp_path / "casa" / "sky.fits") as hdus:
        image, wcs = hdus[0].data, WCS(hdus[0].header)
    x, y = wcs.all_world2pix(np.degrees(points_sky.ra_rad), np.degrees(points_sky.dec_rad), 0)
    offsets = []
    for k in range(len(points_sky)):
        # Parabolas through the highest pixel near the true place.
        j, i = round(float(y[k])), round(float(x[k]))
        box = image[j - 4 : j + 5, i - 4 : i + 5]
        dj, di = np.unravel_index(box.argmax(), box.shape)
        j, i = j + dj - 4, i + di - 4
        found = []
        for line in (image[j, i - 1 : i + 2], image[j - 1 : j + 2, i]):
            found.append((line[0] - line[2]) / (2 * (line[0] - 2 * line[1] + line[2])))
        offsets.append((i + found[0] - x[k], j + found[1] - y[k]))
        assert image[j, i] > 0.5 * points_sky.flux_jy[k]
    print(f"positions within {3 * np.abs(offsets).max():.2g} arcsec")
    assert np.abs(offsets).max() < 0.1
