"""Simulated observations: what is on disk is what the truth file says."""

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.simulate import simulate
from dsa110_contimg.simulate.array import celestial_to_terrestrial
from dsa110_contimg.sky import SkyModel, angular_separation
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set

SMALL = SimulationConfig(antennas=6, dumps=3, channels=4, min_mjy=200.0)
QUIET = SMALL.with_options(sefd_jy=0.0)


class Simulated:
    """An observation, its truth, and what lies beside it."""

    def __init__(self, path, config, sky=None):
        self.config = config
        self.truth = simulate(path, config, sky)
        with table(str(path), ack=False) as main:
            self.data, self.uvw = main.getcol("DATA"), main.getcol("UVW")
            self.time = main.getcol("TIME")
            self.a1, self.a2 = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
            self.weight = main.getcol("WEIGHT_SPECTRUM")
        with table(str(path / "SPECTRAL_WINDOW"), ack=False) as sub:
            self.freq = sub.getcell("CHAN_FREQ", 0)
        self.catalog = path.with_suffix(".catalog.ecsv").read_text()
        with np.load(path.with_suffix(".truth.npz")) as saved:
            self.saved = dict(saved)
        self.path = path

    def fingerprint(self):
        arrays = (self.data, self.uvw, self.time, self.freq, self.weight, *self.saved.values())
        return [a.tobytes() for a in arrays] + [self.catalog]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return Simulated(tmp_path_factory.mktemp("quiet") / "obs.ms", QUIET)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return Simulated(tmp_path_factory.mktemp("noisy") / "obs.ms", SMALL)


def test_data_are_gains_times_the_sky_through_the_beam(quiet):
    """Everything from the truth file and the UVW column, by the definition."""
    ra, dec = np.radians(QUIET.ra), np.radians(QUIET.dec)
    sky, beam = quiet.truth.sky, quiet.truth.beam
    theta = angular_separation(sky.ra_rad, sky.dec_rad, ra, dec)
    flux = sky.flux_at(quiet.freq) * beam.power(theta, quiet.freq)
    shape = (sky.major_rad, sky.minor_rad, sky.pa_rad)
    model = predict_reference(quiet.uvw, quiet.freq, sky.lmn(ra, dec), flux, *shape)
    slot = np.searchsorted(quiet.saved["times_s"], quiet.time)
    gain = quiet.saved["gain"]
    turned = gain[slot, quiet.a1] * np.conj(gain[slot, quiet.a2])
    expected = model[:, :, None] * turned[:, None, :]
    assert np.abs(quiet.data - expected).max() < 1e-5 * flux.sum(axis=0).max()


def test_truth_file_holds_the_sky(quiet):
    sky = quiet.truth.sky
    for name in ("ra_rad", "dec_rad", "flux_jy", "spectral_index"):
        np.testing.assert_array_equal(quiet.saved[name], getattr(sky, name))
    np.testing.assert_array_equal(quiet.saved["beam_m"], [4.65, 0.0])
    np.testing.assert_array_equal(quiet.saved["gain"], quiet.truth.gain)


def test_noise_is_that_of_the_radiometer(tmp_path):
    config = SMALL.with_options(antennas=20, dumps=4, channels=8)
    loud = Simulated(tmp_path / "loud.ms", config)
    still = Simulated(tmp_path / "still.ms", config.with_options(sefd_jy=0.0))
    noise = loud.data - still.data
    sigma = 6500 / np.sqrt(2 * (187.5e6 / 8) * 12.884902)
    for part in (noise.real, noise.imag):
        assert part.std() == pytest.approx(sigma, rel=0.02)
        assert abs(part.mean()) < 5 * sigma / np.sqrt(part.size)
    np.testing.assert_allclose(loud.weight, sigma**-2, rtol=1e-6)


def test_noise_of_a_dsa110_channel_is_that_of_the_facts():
    config = SimulationConfig(channels=768)
    width = (config.high_mhz - config.low_mhz) * 1e6 / config.channels
    assert width == pytest.approx(244140.625)
    assert config.sefd_jy / np.sqrt(2 * width * config.dump_s) == pytest.approx(2.59, abs=0.005)


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 54.57), (0.0, -20.0), (300.0, 80.0)])
def test_the_field_transits_in_the_middle(tmp_path, ra, dec):
    config = QUIET.with_options(ra=ra, dec=dec, antennas=3, channels=1, dumps=5, dump_s=100.0)
    seen = Simulated(tmp_path / "obs.ms", config)
    middle = seen.saved["times_s"][2]
    a, d = np.radians([ra, dec])
    x, y, _ = celestial_to_terrestrial(middle / 86400) @ [
        np.cos(d) * np.cos(a),
        np.cos(d) * np.sin(a),
        np.sin(d),
    ]
    hour_angle = np.angle(np.exp(1j * (np.radians(-118.28341) - np.arctan2(y, x))))
    assert abs(hour_angle) * 86164 / (2 * np.pi) < 1.0
    np.testing.assert_allclose(np.diff(seen.saved["times_s"]), 100.0)


def test_it_opens_as_a_measurement_set_with_everything_in_it(noisy):
    ms = open_measurement_set(noisy.path)
    assert (ms.telescope, len(ms.antennas), ms.n_rows) == ("DSA_110", 6, 3 * 15)
    field = ms.field(0)
    assert np.degrees([field.ra_rad, field.dec_rad]) == pytest.approx([150.0, 54.57])
    (window,) = ms.spectral_windows
    assert window.corr_type == (9, 12)
    np.testing.assert_allclose(window.freq_hz, 1e6 * (1311.25 + 187.5 / 4 * (np.arange(4) + 0.5)))
    np.testing.assert_allclose(window.width_hz, 187.5e6 / 4)
    read = VisibilityReader(ms, ms.select())
    np.testing.assert_allclose(read.times, noisy.truth.times_s)
    np.testing.assert_allclose(read.interval_s, SMALL.dump_s)
    assert not any(block.flag.any() for block in read.blocks())
    filled = (
        "ANTENNA",
        "FEED",
        "FIELD",
        "SPECTRAL_WINDOW",
        "POLARIZATION",
        "DATA_DESCRIPTION",
        "OBSERVATION",
    )
    for name in filled:
        with table(str(noisy.path / name), ack=False) as sub:
            assert sub.nrows() == (6 if name in ("ANTENNA", "FEED") else 1), name
    with table(str(noisy.path / "FIELD"), ack=False) as sub:
        for name in ("PHASE_DIR", "REFERENCE_DIR", "DELAY_DIR"):
            np.testing.assert_allclose(sub.getcell(name, 0), np.radians([[150.0, 54.57]]))


def test_trap_11_uvw_is_antenna_2_minus_antenna_1_in_double_precision(noisy):
    with table(str(noisy.path), ack=False) as main:
        assert main.getcoldesc("UVW")["valueType"] == "double"
    antennas = open_measurement_set(noisy.path).antennas.position_m
    length = np.linalg.norm(antennas[noisy.a2] - antennas[noisy.a1], axis=1)
    np.testing.assert_allclose(np.linalg.norm(noisy.uvw, axis=1), length, rtol=1e-9)
    # Baselines of three antennas close: 0 to 1, 1 to 2, less 0 to 2.
    pair = {(i, j): k for k, (i, j) in enumerate(zip(noisy.a1[:15], noisy.a2[:15], strict=True))}
    closed = noisy.uvw[pair[0, 1]] + noisy.uvw[pair[1, 2]] - noisy.uvw[pair[0, 2]]
    np.testing.assert_allclose(closed, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ra", 10.0),
        ("dec", 40.0),
        ("array", "file"),
        ("antennas", 5),
        ("dumps", 2),
        ("dump_s", 10.0),
        ("channels", 3),
        ("low_mhz", 1300.0),
        ("high_mhz", 1500.0),
        ("sefd_jy", 1000.0),
        ("phase_rms", 5.0),
        ("random_phases", True),
        ("phase_drift", 0.0),
        ("amplitude_rms", 0.0),
        ("min_mjy", 150.0),
        ("brightest_jy", 0.0),
        ("flux_error", 0.1),
        ("position_error", 2.0),
        ("seed", 2),
    ],
)
def test_trap_6_every_option_changes_the_observation(noisy, tmp_path, name, value):
    if value == "file":
        value = str(tmp_path / "array.txt")
        lines = ["# telescope X", "# latitude_deg 37", "# longitude_deg -118", "# height_m 0", "# dish_m 10"]
        lines += [f"a{k} {50 * k} {k * k} 0" for k in range(6)]
        (tmp_path / "array.txt").write_text("\n".join(lines))
    changed = Simulated(tmp_path / "obs.ms", SMALL.with_options(**{name: value}))
    assert changed.fingerprint() != noisy.fingerprint()


def test_every_option_is_in_the_test_above():
    marks = test_trap_6_every_option_changes_the_observation.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(SimulationConfig.model_fields)


def test_the_same_options_give_the_same_observation(noisy, tmp_path):
    assert Simulated(tmp_path / "obs.ms", SMALL).fingerprint() == noisy.fingerprint()


def test_one_option_does_not_shift_the_draws_of_another(noisy, tmp_path):
    deeper = Simulated(tmp_path / "deeper.ms", SMALL.with_options(min_mjy=50.0))
    np.testing.assert_array_equal(deeper.saved["gain"], noisy.saved["gain"])
    phases = Simulated(tmp_path / "phases.ms", SMALL.with_options(random_phases=True))
    np.testing.assert_array_equal(phases.saved["flux_jy"], noisy.saved["flux_jy"])
    assert phases.catalog == noisy.catalog
    errors = Simulated(tmp_path / "errors.ms", SMALL.with_options(position_error=3.0))
    np.testing.assert_array_equal(errors.data, noisy.data)
    assert errors.catalog != noisy.catalog


@pytest.mark.parametrize("random_phases", [False, True])
def test_gains_scatter_as_asked(tmp_path, random_phases):
    config = QUIET.with_options(
        antennas=96, channels=1, dumps=2, min_mjy=1000.0, phase_drift=0.0, random_phases=random_phases
    )
    gain = Simulated(tmp_path / "obs.ms", config).saved["gain"]
    assert gain.shape == (2, 96, 2)
    np.testing.assert_array_equal(gain[0], gain[1])
    assert np.abs(gain).std() == pytest.approx(0.1, rel=0.2)
    spread = np.degrees(np.angle(gain[0])).std()
    assert spread == pytest.approx(104 if random_phases else 30, rel=0.2)


def test_a_given_sky_is_the_one_observed(tmp_path):
    sky = SkyModel.points(np.array([np.radians(150.0)]), np.array([np.radians(54.57)]), np.array([3.0]))
    config = QUIET.with_options(phase_rms=0, phase_drift=0, amplitude_rms=0)
    seen = Simulated(tmp_path / "obs.ms", config, sky)
    # Apart from the very bright sources in the far sidelobes.
    assert np.abs(seen.data - 3.0).max() < 0.3
    assert seen.catalog.count("\n1") == 1


def test_it_never_overwrites(noisy):
    before = noisy.fingerprint()
    with pytest.raises(ResourceError, match="is there already"):
        simulate(noisy.path, SMALL.with_options(seed=9))
    with table(str(noisy.path), ack=False) as main:
        assert main.getcol("DATA").tobytes() == before[0]
    assert noisy.path.with_suffix(".catalog.ecsv").read_text() == noisy.catalog


def test_nothing_is_left_beside(noisy):
    names = {p.name for p in noisy.path.parent.iterdir()}
    assert names == {"obs.ms", "obs.truth.npz", "obs.catalog.ecsv"}


def test_options_that_make_no_observation(tmp_path):
    with pytest.raises(InputError, match="the band is empty"):
        simulate(tmp_path / "obs.ms", SMALL.with_options(low_mhz=1500, high_mhz=1400))
    with pytest.raises(InputError, match="no such array file"):
        simulate(tmp_path / "obs.ms", SMALL.with_options(array="none"))
    assert not (tmp_path / "obs.ms").exists()
