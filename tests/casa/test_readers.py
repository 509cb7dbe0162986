"""Programs of others read a simulated Measurement Set as what it is.

DP3 is not among them: its wheel has a program, which opens nothing but four correlations ("DP3 expects a
measurement set with 4 polarizations"), and the DSA-110 writes two.
"""

import json
import subprocess

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.imaging import fit_source, read_image
from dsa110_contimg.simulate import SimulationConfig, Truth, simulate
from tests.casa.casa import casa_python
from tests.needs import program

pytestmark = pytest.mark.casa

# Prints what pyuvdata makes of a Measurement Set, and one channel of it with its sky subtracted. The list of
# observatories, for which astropy would go online, is left empty: the table describes its own.
UVDATA = """
import json, sys, warnings
import numpy as np
from astropy.coordinates import EarthLocation
EarthLocation.get_site_names = classmethod(lambda cls, **kwargs: [])
from pyuvdata import UVData
warnings.simplefilter("ignore")
data = UVData()
data.read_ms(sys.argv[1])
read = data.uvw_array.copy()
sky = np.load(sys.argv[2])
left = []
for key, centre in data.phase_center_catalog.items():
    rows = data.phase_center_id_array == key
    ra, dec = sky["ra_rad"] - centre["cat_lon"], sky["dec_rad"]
    dec0 = centre["cat_lat"]
    l = np.cos(dec) * np.sin(ra)
    m = np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(ra)
    n = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(ra)
    phase = read[rows] @ np.array([l, m, n - 1]) * data.freq_array[0] / 299792458.0
    # It takes ours to count baselines from antenna 2 to 1, and turns baselines and data round together.
    model = np.exp(2j * np.pi * phase) @ sky["flux_jy"]
    left.append(np.abs(data.data_array[rows, 0, 0] - model).max())
data.set_uvws_from_antenna_positions()
print(json.dumps({
    "times": int(data.Ntimes), "baselines": int(data.Nbls), "channels": int(data.Nfreqs),
    "polarizations": data.polarization_array.tolist(), "windows": int(data.Nspws),
    "telescope": data.telescope.name, "frame": [c["cat_frame"] for c in data.phase_center_catalog.values()],
    "names": sorted(c["cat_name"] for c in data.phase_center_catalog.values()),
    "uvw_m": float(np.abs(data.uvw_array - read).max()), "left": float(max(left)),
}))
"""
OPTIONS = {"phase_rms": 0, "phase_drift": 0, "amplitude_rms": 0, "sefd_jy": 200, "dumps": 12, "channels": 8}


@pytest.fixture(scope="module")
def made(points_sky, tmp_path_factory):
    """The points, drifting, as one field and as one per dump."""
    folder = tmp_path_factory.mktemp("readers")
    for fields in (1, 24):
        simulate(folder / f"f{fields}.ms", SimulationConfig(fields=fields, **OPTIONS), sky=points_sky)
    return folder


@pytest.mark.parametrize("fields", [1, 24])
def test_pyuvdata(made, fields, tmp_path):
    ms = made / f"f{fields}.ms"
    truth = Truth.read(ms.with_suffix(".truth.npz"))
    flux = np.mean([truth.apparent_flux(truth.freq_hz[0, :1], t)[:, 0] for t in range(12)], axis=0)
    np.savez(tmp_path / "sky.npz", ra_rad=truth.sky.ra_rad, dec_rad=truth.sky.dec_rad, flux_jy=flux)
    done = subprocess.run(
        [casa_python(), "-c", UVDATA, ms, tmp_path / "sky.npz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.splitlines()[-1])
    print(f"pyuvdata: uvw within {1e3 * read['uvw_m']:.0f} mm, visibilities within {read['left']:.2g} Jy")
    assert (read["times"], read["baselines"], read["channels"], read["windows"]) == (12, 96 * 95 // 2, 8, 1)
    assert read["polarizations"] == [-5, -6]
    assert read["telescope"] == "DSA_110"
    assert set(read["frame"]) == {"icrs"}
    expected = ["meridian_icrs"] if fields == 1 else sorted(f"meridian_icrs_t{t}" for t in range(12))
    assert read["names"] == expected
    # pyuvdata's own has polar motion and diurnal aberration in it.
    assert read["uvw_m"] < 0.1
    # What is left is noise, and the drift of the points through the beam.
    with table(str(ms), ack=False) as main:
        sigma = main.getcol("SIGMA").max()
    assert read["left"] < 8 * sigma + 0.03


def test_wsclean(made, tmp_path):
    # Pixels of a tenth of the beam: components on larger ones would broaden the peaks.
    options = "-size 2560 2560 -scale 1asec -weight briggs 0 -niter 20000 -threshold 0.001 -mgain 0.8"
    fixed = "-use-wgridder -no-update-model-required -data-column DATA -pol I"
    done = subprocess.run(
        [program("wsclean"), "-name", tmp_path / "w", *options.split(), *fixed.split(), made / "f1.ms"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    image = read_image(tmp_path / "w-image.fits")
    truth = Truth.read(made / "f1.truth.npz")
    points = truth.sky.select(np.array([kind == "listed" for kind in truth.scene.sky_kind]))
    seen = np.mean([truth.apparent_flux(truth.freq_hz[0], t).mean(axis=1) for t in range(12)], axis=0)
    x, y = image.grid.sky_to_pixel(points.ra_rad, points.dec_rad)
    ratio, offset = [], []
    for k in range(len(points)):
        fit = fit_source(image.image, float(x[k]), float(y[k]), image.beam, image.grid)
        ratio.append(fit.peak_jy / seen[k])
        offset.append(np.hypot(fit.x - x[k], fit.y - y[k]))
    print(f"wsclean: fluxes {min(ratio):.4f} to {max(ratio):.4f}, positions within {max(offset):.3f} pixels")
    assert 0.99 < np.median(ratio) < 1.01
    assert np.median(offset) < 0.1
