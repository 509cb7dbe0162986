"""Arrays of two kinds of dishes: each baseline sees the product of its antennas' beams."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.imaging.beam_choice import POWER_HAS_NO_SIGN, beam_of_observation
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import AiryBeam, AntennaBeams, FileBeam, MixedBeam
from dsa110_contimg.visibilities import open_measurement_set
from dsa110_contimg.visibilities.tables import open_table
from tests.beam_cubes import write_cube
from tests.selfcal.support import observe

SPEED_OF_LIGHT, PLANES = 299_792_458.0, np.linspace(1.3e9, 1.51e9, 4)
OPTIONS = {"drift": True, "dumps": 6, "sefd_jy": 3000.0, "random_phases": True}
#: The other dishes are smaller by so much.
WIDER = 1.25


def data_options(folder, **more):
    return SelfCalConfig(antenna_beams=folder / "beams.txt", **more)


def exact(sky, beams, offsets, block, reader):
    """Visibilities in float64: each source times the voltages of both antennas."""
    field, freq = reader.ms.field(block.field_id), block.spw.freq_hz
    lmn = sky.sky.lmn(field.ra_rad, field.dec_rad)
    out = np.zeros((block.rows.size, freq.size), dtype=complex)
    for dump, pointing in enumerate(reader.pointing):
        about, rows = sky.sky.lmn(*pointing), np.flatnonzero(block.time_index == dump)
        voltage = np.stack(
            [
                beam.voltage_towards(np.column_stack([about[:, :2] - off, about[:, 2]]), freq)
                for beam, off in zip(beams, offsets, strict=True)
            ]
        )
        flux = sky.sky.flux_at(freq)
        for row in rows:
            turn = np.exp(2j * np.pi * (lmn @ block.uvw_m[row])[:, None] * freq / SPEED_OF_LIGHT)
            seen = voltage[block.antenna1[row]] * voltage[block.antenna2[row]]
            out[row] = (flux * seen * turn).sum(axis=0)
    return out


@pytest.mark.parametrize("of_files", [False, True])
@pytest.mark.parametrize("off_deg", [0.0, 0.1])
def test_a_baseline_sees_the_product_of_its_antennas_beams(data, tmp_path, of_files, off_deg):
    """Point sources, against a float64 sum over sources, of formulas and of cubes, pointing off or not."""
    small, large, n = AiryBeam(4.0), AiryBeam(5.0), len(data.reader.ms.antennas)
    names = data.reader.ms.antennas.name
    lines = [f"{name} airy:4\n" for name in names[:4]]
    if of_files:
        write_cube(tmp_path / "small.fits", small, PLANES, kind="voltage", half_deg=9.0, pixels=257)
        lines = [f"{name} small.fits voltage\n" for name in names[:4]]
    (tmp_path / "beams.txt").write_text("".join(lines), encoding="utf-8")
    options = data_options(tmp_path, dish_diameter_m=5.0)
    beam, notes = beam_of_observation(data.reader, options)
    assert isinstance(beam, MixedBeam)
    assert notes == ()
    points = np.flatnonzero(data.catalog_model.sky.is_point)
    listed = data.catalog_model
    listed = replace(listed, sky=listed.sky.select(points), apparent_jy=listed.apparent_jy[points], beam=beam)
    offsets = np.radians(off_deg) * np.random.default_rng(3).normal(size=(n, 2))
    sky = replace(listed, antenna_beams=AntennaBeams(offset_rad=offsets)) if off_deg else listed
    block = next(iter(data.reader.blocks()))
    got = SkyVisibilities(sky).visibilities(block, data.reader)
    own = beam.beams[beam.of_antenna[0]] if of_files else small
    want = exact(sky, [own] * 4 + [large] * (n - 4), offsets, block, data.reader)
    common = SkyVisibilities(replace(listed, beam=large)).visibilities(block, data.reader)
    # Of what the beams make of it, so much is left out: the faintest sources.
    assert np.abs(got - want).std() < 0.01 * np.abs(common - want).std()
    assert np.abs(common - want).std() > 0.01 * np.abs(want).std()


def test_power_has_no_sign_and_files_have_to_cover_the_band(data, tmp_path):
    names = data.reader.ms.antennas.name
    write_cube(tmp_path / "a.fits", AiryBeam(4.0), PLANES)
    (tmp_path / "beams.txt").write_text(f"{names[0]} a.fits\n", encoding="utf-8")
    beam, notes = beam_of_observation(data.reader, data_options(tmp_path))
    assert notes == (POWER_HAS_NO_SIGN,)
    assert isinstance(beam, MixedBeam)
    assert isinstance(beam.beams[0], FileBeam)
    (tmp_path / "beams.txt").write_text("* a.fits voltage\n", encoding="utf-8")
    alone, notes = beam_of_observation(data.reader, data_options(tmp_path))
    assert isinstance(alone, FileBeam)
    assert notes == ()
    write_cube(tmp_path / "a.fits", AiryBeam(4.0), PLANES / 2)
    with pytest.raises(InputError, match=r"a.fits: its beams are for"):
        beam_of_observation(data.reader, data_options(tmp_path))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    ms, config = observe(folder, **OPTIONS, other_dishes=0.4, other_dish_width=WIDER)
    width, names = Truth.read(folder / "t.truth.npz").instrument.width, open_measurement_set(ms).antennas.name
    lines = [f"{name} airy:{4.65 / WIDER}\n" for name, k in zip(names, width, strict=True) if k != 1]
    assert 0 < len(lines) < len(names)
    (folder / "beams.txt").write_text("".join(lines), encoding="utf-8")
    plain = selfcal_ms(ms, folder / "plain", config.with_options(pointing="off", columns="none"))
    options = config.with_options(pointing="off", antenna_beams=folder / "beams.txt")
    return ms, plain, selfcal_ms(ms, folder / "own", options)


def best(result):
    return result.summary["iterations"][result.summary["best_iteration"] - 1]


def test_two_kinds_of_dishes_reach_the_noise_with_their_own_beams_only(mixed):
    _, plain, own = mixed
    assert best(own)["chi2_heldout"] < 1.1
    assert best(plain)["chi2_heldout"] > 1.15
    # Of the same observation with dishes of one kind it is 1.19.
    assert own.summary["final"]["thermal_ratio"] < 1.3
    assert plain.summary["final"]["thermal_ratio"] > 1.5 * own.summary["final"]["thermal_ratio"]
    assert own.summary["beam"]["form"] == "mixed"
    assert own.summary["beam"]["antenna_beams"].endswith("beams.txt")
    assert own.summary["beam"]["diameter_m"] is None
    # No offsets of antennas are reported where none were looked for.
    assert own.summary["pointing"] is None


def test_the_columns_hold_the_sky_through_these_beams(mixed):
    ms = open_measurement_set(mixed[0])
    sigma = OPTIONS["sefd_jy"] / np.sqrt(2 * ms.spectral_window(0).width_hz[0] * 12.884902)
    with open_table(ms.path) as table:
        cross = table.getcol("ANTENNA1") != table.getcol("ANTENNA2")
        model, data = table.getcol("MODEL_DATA")[cross], table.getcol("CORRECTED_DATA")[cross]
    assert np.median(np.abs(data - model)) / (1.1774 * sigma) == pytest.approx(1, abs=0.1)


def test_sources_seen_by_two_kinds_are_as_bright_as_listed(mixed):
    """The image shows the mean of the beams, and fluxes are those behind it."""
    width, error = mixed[2].summary["beam"]["width"]
    assert abs(width - 1) < 4 * error
