"""Simulated observations: what is on disk is what the truth file says."""

import numpy as np
import pytest
from casacore.tables import table
from scipy.special import j1

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import CatalogMissingError, InputError, ResourceError
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.simulate.array import apparent_direction, celestial_to_terrestrial, uvw_of_antennas
from dsa110_contimg.simulate.observe import STREAMS
from dsa110_contimg.simulate.population import write_catalog
from dsa110_contimg.sky import SkyModel, angular_separation, radec_from_lm
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set

SMALL = SimulationConfig(antennas=6, dumps=3, channels=4, min_mjy=200.0)
QUIET = SMALL.with_options(sefd_jy=0.0)
PERFECT = {"sefd_jy": 0.0, "phase_rms": 0.0, "phase_drift": 0.0, "amplitude_rms": 0.0}
RA, DEC = np.radians([150.0, 54.57])


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
            self.sigma = main.getcol("SIGMA")
            self.flag = main.getcol("FLAG")
            self.window = main.getcol("DATA_DESC_ID")
            self.field = main.getcol("FIELD_ID")
        with table(str(path / "SPECTRAL_WINDOW"), ack=False) as sub:
            self.freq = sub.getcell("CHAN_FREQ", 0)
        with table(str(path / "FIELD"), ack=False) as sub:
            self.centre = sub.getcol("PHASE_DIR")[:, 0]
        with table(str(path / "ANTENNA"), ack=False) as sub:
            self.dish_m = sub.getcol("DISH_DIAMETER")
        self.catalog = path.with_suffix(".catalog.ecsv").read_text()
        with np.load(path.with_suffix(".truth.npz")) as saved:
            self.saved = dict(saved)
        self.path = path

    def fingerprint(self):
        arrays = (self.data, self.uvw, self.time, self.freq, self.weight, self.flag, self.centre, self.dish_m)
        arrays += tuple(self.saved.values())
        return [a.tobytes() for a in arrays] + [self.catalog]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return Simulated(tmp_path_factory.mktemp("quiet") / "obs.ms", QUIET)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return Simulated(tmp_path_factory.mktemp("noisy") / "obs.ms", SMALL)


def reproduced(seen):
    """The data from nothing but the truth file and the columns, by the definition."""
    truth = Truth.read(seen.path.with_suffix(".truth.npz"))
    sky, receivers = truth.sky, truth.instrument
    time_indices = np.searchsorted(truth.times_s, seen.time)
    out = np.empty(seen.data.shape, dtype=complex)
    for t in range(len(truth.times_s)):
        for w, freq in enumerate(truth.freq_hz):
            rows = (time_indices == t) & (seen.window == w)
            theta = angular_separation(sky.ra_rad, sky.dec_rad, *truth.pointing[t])
            flux = sky.flux_at(freq) * truth.beam.power(theta, freq)
            shape = sky.shape_about(*truth.phase_centre[t])
            lmn = truth.seen_sky(t).lmn(*truth.phase_centre[t])
            model = predict_reference(seen.uvw[rows], freq, lmn, flux, *shape)
            gain = receivers.gain[t][None] * receivers.bandpass[w]
            gain[:, receivers.dead | receivers.silent[t]] = 0
            turned = gain[:, seen.a1[rows]] * np.conj(gain[:, seen.a2[rows]])
            out[rows] = model[:, :, None] * turned.transpose(1, 0, 2)
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drift": False},
        {"fields": 1},
        {"spws": 3, "channels": 2, "bandpass_ripple": 0.1, "delay_rms": 5.0, "dead": 1},
        {"doubles": 0.3, "variables": 0.3, "missing": 0.2, "spurious": 0.2, "new_jy": 1.0, "faint_mjy": 100},
        {"beam_width": 1.11, "refraction_arcsec": 60.0, "double_jy": 1.0, "catalog_error": "rotate"},
        {"dead_fraction": 0.4, "gain_jump_deg": 90.0, "spws": 2, "channels": 2},
    ],
)
def test_the_truth_reproduces_the_data(tmp_path, options):
    seen = Simulated(tmp_path / "obs.ms", QUIET.with_options(**options))
    scale = seen.truth.apparent_flux(seen.freq).sum(axis=0).max()
    assert np.abs(seen.data - reproduced(seen)).max() < 1e-5 * scale


def test_truth_file_holds_the_sky(quiet):
    sky = quiet.truth.sky
    for name in ("ra_rad", "dec_rad", "flux_jy", "spectral_index"):
        np.testing.assert_array_equal(quiet.saved[name], getattr(sky, name))
    np.testing.assert_array_equal(quiet.saved["beam_m"], [4.65, 0.0])
    np.testing.assert_array_equal(quiet.saved["gain"], quiet.truth.gain)
    again = Truth.read(quiet.path.with_suffix(".truth.npz"))
    assert again.scene.sky.name == quiet.truth.sky.name
    assert again.scene.catalog_kind == quiet.truth.scene.catalog_kind
    np.testing.assert_array_equal(again.apparent_flux(quiet.freq), quiet.truth.apparent_flux(quiet.freq))


def test_what_is_no_truth_file(tmp_path, quiet):
    (tmp_path / "t.npz").write_text("none")
    for path in (tmp_path / "none.npz", tmp_path / "t.npz", quiet.path.with_suffix(".catalog.ecsv")):
        with pytest.raises(InputError, match="cannot be read as the truth"):
            Truth.read(path)


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
    x, y, _ = celestial_to_terrestrial(middle / 86400) @ apparent_direction(middle / 86400, a, d)
    hour_angle = np.angle(np.exp(1j * (np.radians(-118.28341) - np.arctan2(y, x))))
    assert abs(hour_angle) * 86164 / (2 * np.pi) < 0.01
    np.testing.assert_allclose(np.diff(seen.saved["times_s"]), 100.0)


SUBTABLES = {
    "ANTENNA": 6,
    "FEED": 6,
    "FIELD": 3,
    "SPECTRAL_WINDOW": 2,
    "DATA_DESCRIPTION": 2,
    "POLARIZATION": 1,
    "OBSERVATION": 1,
    "PROCESSOR": 1,
    "STATE": 1,
    "HISTORY": 1,
    "POINTING": 18,
}


def test_it_opens_as_a_measurement_set_with_everything_in_it(tmp_path):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(spws=2, channels=2))
    ms = open_measurement_set(seen.path)
    assert (ms.telescope, len(ms.antennas), ms.n_rows) == ("DSA_110", 6, 2 * 3 * 15)
    assert [f.name for f in ms.fields] == [f"meridian_icrs_t{t}" for t in range(3)]
    freq = [w.freq_hz for w in ms.spectral_windows]
    np.testing.assert_allclose(np.ravel(freq), 1e6 * (1311.25 + 187.5 / 4 * (np.arange(4) + 0.5)))
    for window in ms.spectral_windows:
        assert window.corr_type == (9, 12)
        np.testing.assert_allclose(window.width_hz, 187.5e6 / 4)
    read = VisibilityReader(ms, ms.select("1"))
    np.testing.assert_allclose(read.times, seen.truth.times_s[1])
    np.testing.assert_allclose(read.interval_s, SMALL.dump_s)
    assert not any(block.flag.any() for block in read.blocks())
    for name, rows in SUBTABLES.items():
        with table(str(seen.path / name), ack=False) as sub:
            assert sub.nrows() == rows, name
    # By time, and within a dump by window.
    time_index = np.searchsorted(seen.truth.times_s, seen.time)
    assert (np.diff(10 * time_index + seen.window) >= 0).all()
    np.testing.assert_array_equal(seen.field, time_index)
    with table(str(seen.path), ack=False) as main:
        np.testing.assert_array_equal(main.getcol("SCAN_NUMBER"), time_index + 1)
        assert not {"MODEL_DATA", "CORRECTED_DATA"} & set(main.colnames())
    with table(str(seen.path / "FIELD"), ack=False) as sub:
        for name in ("PHASE_DIR", "REFERENCE_DIR", "DELAY_DIR"):
            np.testing.assert_allclose(sub.getcol(name)[:, 0], seen.truth.pointing)
            assert sub.getcolkeyword(name, "MEASINFO")["Ref"] == "ICRS"
    with table(str(seen.path / "OBSERVATION"), ack=False) as sub:
        begin, end = sub.getcell("TIME_RANGE", 0)
    assert end - begin == pytest.approx(3 * SMALL.dump_s)


@pytest.mark.parametrize("options", [{}, {"fields": 1}, {"drift": False}])
def test_the_pointing_table_says_where_the_dishes_point(tmp_path, options):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(**options))
    drifts = options.get("drift", True)
    with table(str(seen.path / "POINTING"), ack=False) as sub:
        direction, time = sub.getcol("DIRECTION")[:, 0], sub.getcol("TIME")
        np.testing.assert_array_equal(sub.getcol("ANTENNA_ID"), np.tile(np.arange(6), 3))
        np.testing.assert_allclose(sub.getcol("INTERVAL"), SMALL.dump_s)
        assert (sub.getcol("TRACKING") != drifts).all()
        assert sub.getcolkeyword("DIRECTION", "MEASINFO")["Ref"] == "ICRS"
    np.testing.assert_array_equal(time, np.repeat(seen.truth.times_s, 6))
    np.testing.assert_array_equal(direction, np.repeat(seen.truth.pointing, 6, axis=0))
    rate = np.degrees(np.ptp(direction[:, 0])) * 3600 / np.ptp(time)
    assert rate == pytest.approx(15.04 if drifts else 0, abs=0.06)
    assert len(seen.centre) == (1 if options else 3)
    if options:
        np.testing.assert_allclose(seen.centre, [[RA, DEC]])
    np.testing.assert_allclose(seen.truth.pointing[1], [RA, DEC], atol=1e-9)


def test_a_source_drifts_through_the_beam(tmp_path):
    """At the edge of the beam its flux changes by a third in a transit, as the beam says."""
    sky = SkyModel.points(np.array([RA + np.radians(2.2)]), np.array([DEC]), np.array([100.0]))
    config = SMALL.with_options(dumps=5, dump_s=60.0, **PERFECT)
    seen = Simulated(tmp_path / "obs.ms", config, sky)
    for t, when in enumerate(seen.truth.times_s):
        rows = seen.time == when
        away = angular_separation(sky.ra_rad, sky.dec_rad, *seen.truth.pointing[t])
        expected = 100 * seen.truth.beam.power(away, seen.freq)[0]
        phase = np.exp(
            -2j
            * np.pi
            / 299792458
            * (seen.uvw[rows] @ sky.lmn(*seen.truth.phase_centre[t])[0])[:, None]
            * seen.freq
        )
        found = (seen.data[rows, :, 0] * phase).mean(axis=0)
        # The far bright sources are still there.
        np.testing.assert_allclose(found, expected, atol=0.1)
    middle = [angular_separation(*p, RA + np.radians(2.2), DEC) for p in seen.truth.pointing]
    assert np.ptp(seen.truth.beam.power(middle, 1.4e9)) > 0.2


def test_24_fields_rephased_by_hand_are_one_field(tmp_path):
    many = Simulated(tmp_path / "many.ms", QUIET.with_options(antennas=12))
    one = Simulated(tmp_path / "one.ms", QUIET.with_options(antennas=12, fields=1))
    antennas = open_measurement_set(many.path).antennas.position_m
    turned = many.data.astype(complex)
    for t, when in enumerate(many.truth.times_s):
        rows = many.time == when
        new = uvw_of_antennas(antennas, when / 86400, RA, DEC)
        new = new[many.a2[rows]] - new[many.a1[rows]]
        np.testing.assert_allclose(new, one.uvw[rows], atol=1e-6)
        centre = SkyModel.points(np.array([RA]), np.array([DEC]), np.ones(1)).lmn(*many.truth.pointing[t])
        path = (many.uvw[rows] @ centre[0])[:, None] / 299792458
        turned[rows] *= np.exp(-2j * np.pi * path * many.freq)[:, :, None]
    apparent = many.truth.apparent_flux(many.freq)
    # Noise of the single-precision sum apart, phases of the brightest sources agree to 1e-3.
    assert np.abs(turned - one.data).max() < 1e-3 * np.abs(apparent).sum(axis=0).max()


def test_autocorrelations_hold_the_receivers_power(tmp_path, noisy):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(autocorrelations=True))
    auto = seen.a1 == seen.a2
    assert auto.sum() == 3 * 6
    assert (seen.data[auto].imag == 0).all()
    gain = np.abs(seen.truth.gain).transpose(0, 1, 2).reshape(-1, 1, 2) ** 2
    assert np.median(seen.data[auto].real / gain) == pytest.approx(6500, rel=0.01)
    np.testing.assert_array_equal(seen.data[~auto], noisy.data)


def test_aberration_stretches_the_sky_as_asked(tmp_path, quiet):
    seen = Simulated(tmp_path / "obs.ms", QUIET.with_options(differential_aberration=True))
    np.testing.assert_array_equal(seen.uvw, quiet.uvw)
    change = np.abs(seen.data - quiet.data).max()
    assert 1e-4 < change / np.abs(quiet.data).max() < 0.3


def test_dead_and_bad_antennas(tmp_path, noisy):
    config = SMALL.with_options(antennas=20, channels=16, dead=1, bad=2)
    seen = Simulated(tmp_path / "obs.ms", config)
    noise = seen.data - Simulated(tmp_path / "q.ms", config.with_options(sefd_jy=0.0)).data
    sigma = 6500 / np.sqrt(2 * (187.5e6 / 16) * SMALL.dump_s)
    dead, bad = seen.truth.instrument.dead, seen.truth.instrument.bad
    assert (dead.sum(), bad.sum(), (dead & bad).sum()) == (1, 2, 0)
    lost, loud = dead[seen.a1] | dead[seen.a2], bad[seen.a1] ^ bad[seen.a2]
    good = ~bad[seen.a1] & ~bad[seen.a2]
    assert (seen.data[lost & good] == noise[lost & good]).all()
    assert noise[loud].real.std() == pytest.approx(10 * sigma, rel=0.05)
    assert noise[good].real.std() == pytest.approx(sigma, rel=0.05)
    np.testing.assert_allclose(seen.weight, sigma**-2, rtol=1e-6)
    assert not seen.flag.any()


def test_lost_windows_are_flagged(tmp_path):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(spws=4, channels=1, lost_spws=1))
    (lost,) = np.flatnonzero(seen.truth.instrument.lost_spw)
    np.testing.assert_array_equal(seen.flag.all(axis=(1, 2)), seen.window == lost)


def test_interference_hits_the_fraction_asked_for_and_is_not_flagged(tmp_path):
    config = SMALL.with_options(dumps=10, channels=40, rfi=0.1)
    seen = Simulated(tmp_path / "obs.ms", config)
    clean = Simulated(tmp_path / "clean.ms", config.with_options(rfi=0.0))
    hit = np.abs(seen.data - clean.data) > 0
    assert hit.mean() == pytest.approx(0.1, abs=0.04)
    assert np.median(np.abs(seen.data - clean.data)[hit]) > 100
    assert not seen.flag.any()


@pytest.mark.parametrize(
    "options",
    [
        {"pointing_rms": 0.2},
        {"beam_scatter": 0.1},
        {"pointing_rms": 0.1, "pointing_drift": 0.3},
        {"squint_deg": 0.2},
        {"pointing_rms": 0.1, "beam_ellipticity": 1.3, "beam_width": 1.1},
        {"pointing_rms": 0.1, "beam": "cosine"},
        {"other_dishes": 0.5, "other_dish_width": 1.3},
    ],
)
def test_each_antenna_has_a_beam_of_its_own(tmp_path, options):
    """One source: its visibility is its flux times the two voltage beams, as the formulas have them."""
    sky = SkyModel.points(np.array([RA + 0.01]), np.array([DEC + np.radians(0.8)]), np.array([1e4]))
    config = SMALL.with_options(drift=False, dumps=3, **options, **PERFECT)
    seen = Simulated(tmp_path / "obs.ms", config, sky)
    told, ratio = seen.saved, options.get("beam_ellipticity", 1.0)
    t = np.searchsorted(told["times_s"], seen.time)
    source = sky.lmn(RA, DEC)[0] + [0, 0, 1]
    for receptor in range(2):
        off = told["pointing_rad"] + (np.arange(3) / 2 - 0.5)[:, None, None] * told["drift_rad"]
        off = off + np.array([(0.5 - receptor) * float(told["squint_rad"]), 0.0])
        axis = np.concatenate(
            [np.sin(off), np.sqrt(1 - (np.sin(off) ** 2).sum(axis=-1, keepdims=True))], axis=-1
        )
        # East and north of an axis, to the first order in how far it is off, which the second is far below.
        l, m = np.moveaxis(source[:2] - axis[..., :2], -1, 0)  # noqa: E741
        sine = np.hypot(l / np.sqrt(ratio), m * np.sqrt(ratio))[..., None]
        x = np.pi * told["beam_m"][0] / told["width"][:, None] * sine * seen.freq / 299792458
        u = 1.189 * x / (np.pi * 1.029)
        voltage = np.cos(np.pi * u) / (1 - 4 * u**2) if options.get("beam") == "cosine" else 2 * j1(x) / x
        expected = 1e4 * voltage[t, seen.a1] * voltage[t, seen.a2]
        np.testing.assert_allclose(np.abs(seen.data[:, :, receptor]), expected, rtol=1e-3)
    apart = np.abs(seen.data[:, :, 0] / seen.data[:, :, 1] - 1).max()
    assert (apart > 0.03) if "squint_deg" in options else (apart < 1e-5)
    assert voltage.std(axis=1).min() > 0.01 or "squint_deg" in options
    if "pointing_drift" in options:
        assert np.abs(voltage[2] - voltage[0]).max() > 0.03
    again = Truth.read(seen.path.with_suffix(".truth.npz")).beam
    assert again == seen.truth.beam
    assert again.form == options.get("beam", "airy")


#: What an older simulator did not know of.
OLDER = ("shear", "squint_rad", "drift_rad", "stretch_drift")


def test_a_truth_that_an_older_simulator_wrote_is_read(tmp_path, quiet):
    old = {k: v for k, v in quiet.saved.items() if k not in OLDER}
    np.savez(tmp_path / "old.npz", **{k: v for k, v in old.items() if k not in ("beam_form", "beam_ratio")})
    truth = Truth.read(tmp_path / "old.npz")
    assert truth.beam == quiet.truth.beam
    assert truth.instrument.same_beams


def test_equal_beams_by_antenna_are_the_nominal_one(tmp_path, quiet):
    """The sum by antennas and the one by baselines are the same."""
    near = Simulated(tmp_path / "obs.ms", QUIET.with_options(beam_scatter=1e-9))
    np.testing.assert_allclose(near.data, quiet.data, atol=1e-5 * np.abs(quiet.data).max())


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


#: Options that matter to others only, with those.
WITH = {
    "gain_jumps": {"gain_jump_deg": 60.0},
    "dead_time_fraction": {"dead_fraction": 0.3},
    "other_dish_width": {"other_dishes": 0.4},
    "zeros_time_fraction": {"zeros": 0.3},
    "double_arcsec": {"double_jy": 0.5},
    "catalog_error_size": {"catalog_error": "shift"},
    "bright_error_n": {"bright_error": 2.0},
}


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
        ("autocorrelations", True),
        ("drift", False),
        ("fields", 1),
        ("spws", 2),
        ("differential_aberration", True),
        ("transit", 3),
        ("bandpass_ripple", 0.1),
        ("delay_rms", 3.0),
        ("pointing_rms", 0.1),
        ("beam_scatter", 0.1),
        ("dead", 1),
        ("bad", 1),
        ("lost_spws", 1),
        ("rfi", 0.3),
        ("real_sky", True),
        ("catalog_dir", "strips"),
        ("faint_mjy", 100.0),
        ("index_scatter", 0.5),
        ("doubles", 0.5),
        ("variables", 0.5),
        ("missing", 0.5),
        ("spurious", 0.5),
        ("absent_jy", 0.5),
        ("new_jy", 0.5),
        ("variable_ratio", 2.0),
        ("gain_jump_deg", 60.0),
        ("gain_jumps", 0.8),
        ("beam_width", 1.1),
        ("beam", "cosine"),
        ("beam_ellipticity", 1.1),
        ("squint_deg", 0.1),
        ("pointing_drift", 0.1),
        ("refraction_drift_arcsec", 30.0),
        ("other_dishes", 0.4),
        ("other_dish_width", 0.8),
        ("refraction_shear_arcsec", 30.0),
        ("dish_m", 25.0),
        ("dead_fraction", 0.3),
        ("dead_time_fraction", 0.9),
        ("zeros", 0.3),
        ("stuck", 0.3),
        ("zeros_time_fraction", 0.9),
        ("ionosphere_deg", 20.0),
        ("refraction_arcsec", 30.0),
        ("noise_spread", 0.2),
        ("weights", "wrong"),
        ("double_jy", 0.5),
        ("double_arcsec", 90.0),
        ("catalog_error", "mirror"),
        ("catalog_error_size", 300.0),
        ("bright_error", 2.0),
        ("bright_error_n", 1),
    ],
)
def test_trap_6_every_option_changes_the_observation(noisy, tmp_path, name, value):
    if value == "file":
        value = str(tmp_path / "array.txt")
        lines = ["# telescope X", "# latitude_deg 37", "# longitude_deg -118", "# height_m 0", "# dish_m 10"]
        lines += [f"a{k} {50 * k} {k * k} 0" for k in range(6)]
        (tmp_path / "array.txt").write_text("\n".join(lines))
    options = {name: value}
    if name in ("real_sky", "catalog_dir"):
        # A catalogue of the whole zone with one bright source in it.
        sky = SkyModel.points(np.array([RA]), np.array([DEC]), np.array([3.0]))
        write_catalog(tmp_path / "sky.ecsv", sky, 45.0, 65.0)
        build_strips("nvss", tmp_path / "sky.ecsv", tmp_path / "strips")
        options = {"real_sky": True, "catalog_dir": tmp_path / "strips"}
    if name == "lost_spws":
        options["spws"] = 2
    changed = Simulated(tmp_path / "obs.ms", SMALL.with_options(**options, **WITH.get(name, {})))
    other = Simulated(tmp_path / "w.ms", SMALL.with_options(**WITH[name])) if name in WITH else noisy
    assert changed.fingerprint() != other.fingerprint()


def test_every_option_is_in_the_test_above():
    marks = test_trap_6_every_option_changes_the_observation.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(SimulationConfig.model_fields)


def test_the_same_options_give_the_same_observation(noisy, tmp_path):
    assert Simulated(tmp_path / "obs.ms", SMALL).fingerprint() == noisy.fingerprint()


def test_one_option_does_not_shift_the_draws_of_another(noisy, tmp_path):
    deeper = Simulated(tmp_path / "deeper.ms", SMALL.with_options(min_mjy=50.0))
    np.testing.assert_array_equal(deeper.saved["gain"], noisy.saved["gain"])
    np.testing.assert_array_equal(np.abs(deeper.saved["bandpass"]), 1)
    phases = Simulated(tmp_path / "phases.ms", SMALL.with_options(random_phases=True))
    np.testing.assert_array_equal(phases.saved["flux_jy"], noisy.saved["flux_jy"])
    assert phases.catalog == noisy.catalog
    errors = Simulated(tmp_path / "errors.ms", SMALL.with_options(position_error=3.0))
    np.testing.assert_array_equal(errors.data, noisy.data)
    assert errors.catalog != noisy.catalog


#: What an option of sky or receivers leaves alone, of the truth and beside it.
UNTOUCHED = {
    "bandpass_ripple": ("gain", "flux_jy", "dead", "rfi_jy", "catalog"),
    "delay_rms": ("gain", "flux_jy", "dead", "rfi_jy", "catalog"),
    "pointing_rms": ("gain", "flux_jy", "width", "catalog"),
    "beam_scatter": ("gain", "flux_jy", "pointing_rad", "catalog"),
    "dead": ("gain", "bad", "flux_jy", "catalog"),
    "bad": ("gain", "dead", "flux_jy", "catalog"),
    "rfi": ("gain", "bandpass", "flux_jy", "catalog"),
    "phase_drift": ("flux_jy", "rfi_jy", "catalog"),
    "faint_mjy": ("gain", "catalog"),
    "doubles": ("gain", "catalog"),
    "variables": ("gain", "ra_rad", "catalog"),
    "spurious": ("gain", "catalog"),
    "new_jy": ("gain", "catalog"),
    "missing": ("gain", "flux_jy"),
    "absent_jy": ("gain", "flux_jy"),
    "flux_error": ("gain", "flux_jy"),
    "index_scatter": ("gain", "flux_jy", "catalog"),
    "gain_jump_deg": ("bandpass", "flux_jy", "catalog"),
    "dead_fraction": ("gain", "dead", "zero", "stuck", "flux_jy", "catalog"),
    "zeros": ("gain", "dead", "silent", "stuck", "flux_jy", "catalog"),
    "stuck": ("gain", "dead", "silent", "zero", "flux_jy", "catalog"),
    "noise_spread": ("gain", "flux_jy", "catalog"),
    "ionosphere_deg": ("gain", "flux_jy", "catalog"),
    "refraction_arcsec": ("gain", "flux_jy", "ra_rad", "catalog"),
    "pointing_drift": ("gain", "pointing_rad", "flux_jy", "catalog"),
    "double_jy": ("gain",),
    "bright_error": ("gain", "flux_jy", "ra_rad"),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_streams_are_independent(noisy, tmp_path, name):
    value = 1 if name in ("dead", "bad") else 100.0 if name == "faint_mjy" else 0.3
    changed = Simulated(tmp_path / "obs.ms", SMALL.with_options(**{name: value}))
    for kept in UNTOUCHED[name]:
        if kept == "catalog":
            assert changed.catalog == noisy.catalog
        else:
            np.testing.assert_array_equal(changed.saved[kept], noisy.saved[kept])
    # The noise, too, where the definition covers the option.
    own = ("noise_spread", "ionosphere_deg", "zeros", "stuck", "pointing_drift")
    if name not in ("bad", "rfi", "pointing_rms", "beam_scatter", *own):
        noise = noisy.data - reproduced(noisy)
        np.testing.assert_allclose(changed.data - reproduced(changed), noise, atol=1e-3)


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
    config = QUIET.with_options(phase_rms=0, phase_drift=0, amplitude_rms=0, fields=1)
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
    with pytest.raises(InputError, match="7 are to fail, at most 4 may"):
        simulate(tmp_path / "obs.ms", SMALL.with_options(dead=7))
    with pytest.raises(InputError, match="at most 0 may"):
        simulate(tmp_path / "obs.ms", SMALL.with_options(lost_spws=1))
    for options, message in (
        ({"catalog_error_size": 3.0}, "none has no size"),
        ({"catalog_error": "mirror", "catalog_error_size": 3.0}, "mirror has no size"),
        ({"catalog_error": "other-field", "absent_jy": 1.0}, "has no place in the catalogue of another"),
        ({"catalog_error": "other-field", "bright_error": 2.0}, "has no place in the catalogue of another"),
        ({"stuck": 0.5, "dumps": 1}, "nothing can change in a single dump"),
        ({"gain_jump_deg": 5.0, "dumps": 1}, "nothing can change in a single dump"),
        ({"zeros": 1.0, "zeros_time_fraction": 1.0}, "6 antennas are to fail all the time, at most 4 may"),
        ({"dead_fraction": 0.8, "dead_time_fraction": 1.0}, "5 antennas are to fail all the time"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            simulate(tmp_path / "obs.ms", SMALL.with_options(**options))
        assert "\n" not in str(caught.value)
    with pytest.raises(CatalogMissingError):
        simulate(tmp_path / "obs.ms", SMALL.with_options(real_sky=True, catalog_dir=tmp_path / "none"))
    assert not (tmp_path / "obs.ms").exists()


#: Streams that were there first: old seeds go on giving the data that they gave.
OLD_STREAMS = (
    *("sky", "noise", "catalog", "index", "faint", "doubles", "variables", "missing", "spurious", "absent"),
    *(
        "new",
        "gain",
        "amplitude",
        "drift",
        "bandpass",
        "delay",
        "pointing",
        "width",
        "failures",
        "lost",
        "rfi",
    ),
)
#: Of the version before them: a weighted sum over DATA, one gain, and the catalogue's flux.
# Of Gaussians foreshortened, and turned as north is at their places; without that it was 44.124 - 48.949j.
OLD_SUM = 44.086134889 - 48.910096894j
OLD_GAIN = 0.7955934588149602 - 0.2893223539542961j
OLD_FLUX = 74.62226604829786


def test_old_seeds_give_the_data_that_they_gave(noisy):
    """Streams are spawned by their place: the first ones keep it."""
    assert STREAMS[: len(OLD_STREAMS)] == OLD_STREAMS
    weight = np.cos(np.arange(noisy.data.size)).reshape(noisy.data.shape)
    total = complex((weight * noisy.data).sum(dtype=np.complex128))
    assert total == pytest.approx(OLD_SUM, rel=1e-4)
    assert noisy.truth.gain[1, 2, 1] == pytest.approx(OLD_GAIN, rel=1e-9)
    assert noisy.truth.scene.catalog.flux_jy.sum() == pytest.approx(OLD_FLUX, rel=1e-9)


def test_new_options_at_their_defaults_change_no_bit(noisy, tmp_path):
    """Each is at the value that does nothing, and its companions are not."""
    idle = {"gain_jumps": 1.0, "dead_time_fraction": 1.0, "zeros_time_fraction": 0.2, "double_arcsec": 90.0}
    same = Simulated(tmp_path / "obs.ms", SMALL.with_options(**idle, bright_error_n=7, dish_m=4.65))
    assert same.fingerprint() == noisy.fingerprint()


def where(seen, lost):
    """Rows and dumps in which an antenna of the baseline is lost, shape (nrow,)."""
    t = np.searchsorted(seen.truth.times_s, seen.time)
    return lost[t, seen.a1] | lost[t, seen.a2]


def test_part_time_failures_lie_in_one_block_at_the_ends_or_in_the_middle(tmp_path):
    config = SMALL.with_options(dumps=8, antennas=20, channels=1, dead_fraction=1.0, stuck=0.5)
    receivers = Simulated(tmp_path / "obs.ms", config).truth.instrument
    starts = np.argmax(receivers.silent, axis=0)
    np.testing.assert_array_equal(receivers.silent.sum(axis=0), 4)
    assert set(starts) == {0, 2, 4}
    for k, start in enumerate(starts):
        assert receivers.silent[start : start + 4, k].all()
    assert (receivers.stuck.any(axis=0)).sum() == 10
    assert not receivers.stuck[0].any()
    np.testing.assert_array_equal(receivers.lost, receivers.silent | receivers.stuck)
    few = Simulated(tmp_path / "few.ms", config.with_options(dead_fraction=0.01, stuck=0.0)).truth
    assert few.instrument.silent.any(axis=0).sum() == 1


def test_antennas_that_fall_silent_give_noise_only(tmp_path, noisy):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(dead_fraction=0.3))
    lost = where(seen, seen.truth.instrument.silent)
    assert 0 < lost.mean() < 1
    noise = noisy.data - reproduced(noisy)
    np.testing.assert_allclose(seen.data[lost], noise[lost], atol=1e-3)
    np.testing.assert_array_equal(seen.data[~lost], noisy.data[~lost])
    assert not seen.flag.any()


def test_zeros_are_exact_and_not_flagged(tmp_path, noisy):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(zeros=0.3))
    lost = where(seen, seen.truth.instrument.zero)
    assert 0 < lost.mean() < 1
    assert (seen.data[lost] == 0).all()
    np.testing.assert_array_equal(seen.data[~lost], noisy.data[~lost])
    assert not seen.flag.any()
    np.testing.assert_array_equal(seen.weight, noisy.weight)


def test_a_frozen_correlator_repeats_the_dump_before(tmp_path):
    config = SMALL.with_options(dumps=6, spws=2)
    seen, free = (Simulated(tmp_path / f"{n}.ms", config.with_options(stuck=n)) for n in (0.3, 0.0))
    stuck = seen.truth.instrument.stuck
    n = seen.data.shape[0] // 6
    rows = where(seen, stuck).reshape(6, n)
    data, plain = seen.data.reshape(6, n, 4, 2), free.data.reshape(6, n, 4, 2)
    assert 0 < rows.mean() < 1
    assert not rows[0].any()
    for t in range(1, 6):
        np.testing.assert_array_equal(data[t][rows[t]], data[t - 1][rows[t]])
    np.testing.assert_array_equal(data[~rows], plain[~rows])
    assert not seen.flag.any()


def test_phases_jump_once_and_the_truth_has_it(tmp_path):
    config = QUIET.with_options(antennas=20, channels=1, dumps=6, phase_drift=0.0, gain_jump_deg=40.0)
    seen = Simulated(tmp_path / "obs.ms", config.with_options(gain_jumps=0.5))
    phase = np.degrees(np.unwrap(np.angle(seen.saved["gain"]), axis=0))
    step = np.diff(phase, axis=0)
    jumps = np.abs(step) > 1e-6
    np.testing.assert_allclose(step[jumps], 40.0)
    np.testing.assert_array_equal(jumps[..., 0], jumps[..., 1])
    assert (jumps[..., 0].sum(axis=0) == 1).sum() == 10
    assert jumps[..., 0].sum() == 10


def test_the_ionosphere_is_a_plane_of_phase_for_each_antenna(tmp_path):
    """One source: its visibility has the difference of two antennas' phases towards it."""
    sky = SkyModel.points(np.array([RA + 0.01]), np.array([DEC + np.radians(0.8)]), np.array([1e4]))
    config = SMALL.with_options(drift=False, antennas=4, ionosphere_deg=30.0, **PERFECT)
    seen = Simulated(tmp_path / "obs.ms", config, sky)
    receivers, lmn = seen.truth.instrument, sky.lmn(RA, DEC)
    rows = seen.time == seen.truth.times_s[1]
    path = (seen.uvw[rows] @ lmn[0])[:, None] * seen.freq / 299792458
    left = seen.data[rows, :, 0] * np.exp(-2j * np.pi * path)
    phase = receivers.ionosphere_phase(1, sky.ra_rad, sky.dec_rad, (RA, DEC))[:, 0]
    np.testing.assert_allclose(phase, receivers.ionosphere[1] @ lmn[0, :2])
    apart = (phase[seen.a1[rows]] - phase[seen.a2[rows]])[:, None] * 1405e6 / seen.freq
    # Apart from the very bright sources in the far sidelobes.
    np.testing.assert_allclose(np.angle(left * np.exp(-1j * apart)), 0, atol=1e-3)
    assert np.abs(apart).max() > 0.2


def test_the_ionosphere_is_as_rough_as_asked_within_half_power(tmp_path):
    config = QUIET.with_options(antennas=96, channels=1, dumps=3, min_mjy=2000.0, ionosphere_deg=20.0)
    truth = Simulated(tmp_path / "obs.ms", config).truth
    rng = np.random.default_rng(1)
    half = truth.beam.fwhm_rad(1405e6) / 2
    field = rng.uniform(-half, half, (2, 4000))
    field = field[:, np.hypot(*field) < half]
    for slopes in truth.instrument.ionosphere:
        phase = np.degrees(slopes @ field)
        assert phase.std() == pytest.approx(20, rel=0.15)
    assert np.ptp(truth.instrument.ionosphere, axis=0).min() > 0


def test_refraction_stretches_the_sky_and_not_the_truth(tmp_path):
    """A source at half power is seen by so much further out, one at half the distance by half of it."""
    half = 1.029 * 299792458 / 1405e6 / 4.65 / 2
    for part in (1.0, 0.5):
        sky = SkyModel.points(np.array([RA]), np.array([DEC + part * half]), np.array([1e4]))
        config = SMALL.with_options(drift=False, refraction_arcsec=120.0, **PERFECT)
        truth = Simulated(tmp_path / f"{part}.ms", config, sky).truth
        shift = np.degrees(truth.seen_sky(1).dec_rad[0] - truth.sky.dec_rad[0]) * 3600
        assert shift == pytest.approx(120 * part, rel=1e-3)
        np.testing.assert_array_equal(truth.seen_sky(1).dec_rad[1:], truth.sky.dec_rad[1:])
        assert truth.sky.dec_rad[0] == DEC + part * half


def test_sheared_refraction_is_outward_one_way_and_inward_the_other(tmp_path):
    half = 1.029 * 299792458 / 1405e6 / 4.65 / 2
    ra, dec = radec_from_lm(np.array([half, 0.0]), np.array([0.0, half]), RA, DEC)
    config = SMALL.with_options(drift=False, refraction_shear_arcsec=60.0, **PERFECT)
    truth = Simulated(tmp_path / "obs.ms", config, SkyModel.points(ra, dec, np.full(2, 1e3))).truth
    moved = (truth.seen_sky(1).lmn(RA, DEC) - truth.sky.lmn(RA, DEC))[:2, :2]
    np.testing.assert_allclose(np.degrees(moved) * 3600, [[-60, 0], [0, 60]], atol=1e-3)


def test_refraction_that_changes_is_nothing_in_the_middle_and_opposite_at_the_ends(tmp_path):
    half = 1.029 * 299792458 / 1405e6 / 4.65 / 2
    sky = SkyModel.points(np.array([RA]), np.array([DEC + half]), np.array([1e4]))
    config = SMALL.with_options(drift=False, dumps=3, refraction_drift_arcsec=60.0, **PERFECT)
    seen = Simulated(tmp_path / "obs.ms", config, sky)
    shift = [np.degrees(seen.truth.seen_sky(t).dec_rad[0] - sky.dec_rad[0]) * 3600 for t in range(3)]
    np.testing.assert_allclose(shift, [-30, 0, 30], atol=0.01)
    np.testing.assert_allclose(seen.data, reproduced(seen), rtol=1e-4)


def test_wider_beams_are_those_of_smaller_dishes_under_the_same_sky(tmp_path, quiet):
    seen = Simulated(tmp_path / "obs.ms", QUIET.with_options(beam_width=1.25))
    np.testing.assert_allclose(seen.saved["beam_m"], [4.65 / 1.25, 0.0])
    np.testing.assert_array_equal(seen.saved["flux_jy"], quiet.saved["flux_jy"])
    assert seen.truth.beam.fwhm_rad(1.4e9) == pytest.approx(1.25 * quiet.truth.beam.fwhm_rad(1.4e9))
    np.testing.assert_array_equal(seen.dish_m, 4.65)


def test_a_wrong_dish_is_in_the_table_only(tmp_path, noisy):
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(dish_m=25.0))
    np.testing.assert_array_equal(seen.dish_m, 25.0)
    np.testing.assert_array_equal(seen.data, noisy.data)
    np.testing.assert_array_equal(seen.saved["beam_m"], noisy.saved["beam_m"])


@pytest.mark.parametrize("weights", ["nominal", "true", "one", "wrong"])
def test_noise_of_antennas_and_what_the_weights_say_of_it(tmp_path, weights):
    options = {"antennas": 8, "channels": 200, "dumps": 2, "noise_spread": 0.4, "bad": 1}
    config = SMALL.with_options(autocorrelations=True, weights=weights, **options)
    seen = Simulated(tmp_path / "obs.ms", config)
    noise = seen.data - Simulated(tmp_path / "q.ms", config.with_options(sefd_jy=0.0)).data
    sigma = 6500 / np.sqrt(2 * (187.5e6 / 200) * SMALL.dump_s)
    receivers = seen.truth.instrument
    loud = np.where(receivers.bad, 10.0, 1.0) * receivers.noise
    cross = seen.a1 != seen.a2
    true = sigma * loud[seen.a1] * loud[seen.a2]
    np.testing.assert_allclose(noise[cross].real.std(axis=(1, 2)) / true[cross], 1, atol=0.2)
    said = seen.weight[:, 0, 0]
    assert (seen.weight == said[:, None, None]).all()
    np.testing.assert_allclose(seen.sigma, np.repeat(said[:, None] ** -0.5, 2, axis=1), rtol=1e-5)
    if weights == "wrong":
        ratio = said * sigma**2
        assert 0.01 < ratio.min() < 0.5
        assert 2 < ratio.max() < 100
        # Of antennas, so that three baselines give the factor of one.
        pair = {(i, j): r for i, j, r in zip(seen.a1, seen.a2, ratio, strict=True)}
        assert pair[0, 1] * pair[0, 2] / pair[1, 2] == pytest.approx(pair[0, 0], rel=1e-5)
        return
    expected = {"nominal": np.full(true.size, sigma**-2), "true": true**-2, "one": np.ones(true.size)}
    np.testing.assert_allclose(said[cross], expected[weights][cross], rtol=1e-5)


def test_noise_of_antennas_scatters_as_asked(tmp_path):
    config = QUIET.with_options(antennas=96, channels=1, dumps=1, min_mjy=2000.0, noise_spread=0.3)
    power = Simulated(tmp_path / "obs.ms", config).saved["noise"] ** 2
    assert np.log10(power).std() == pytest.approx(0.3, rel=0.2)


def test_a_moved_catalogue_is_covered_where_it_lies(tmp_path):
    options = {"catalog_error": "shift", "catalog_error_size": 3600.0}
    seen = Simulated(tmp_path / "obs.ms", SMALL.with_options(**options))
    build_strips("nvss", seen.path.with_suffix(".catalog.ecsv"), tmp_path / "strips")
    listed = np.array([line.split(",")[:2] for line in seen.catalog.splitlines() if line[0].isdigit()], float)
    np.testing.assert_allclose(listed[:, 1], np.degrees(seen.truth.scene.catalog.dec_rad), atol=1e-6)
