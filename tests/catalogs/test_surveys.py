"""Files of each survey in the layout that its archive documents, all made here: a few rows, every trap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.gaussian_sizes import deconvolved
from dsa110_contimg.catalogs.surveys import SURVEYS
from dsa110_contimg.errors import CatalogFormatError

ROOT = Path(__file__).parents[2]
Column = tuple[str, str, list[str]]


def vizier(path: Path, columns: list[Column]) -> Path:
    """Write a list as VizieR does: comments, names, units, dashes, rows."""
    rows = zip(*(cells for _, _, cells in columns), strict=True)
    lines = ["#", "#   VizieR Astronomical Server", "\t".join(name for name, _, _ in columns)]
    lines += ["\t".join(unit for _, unit, _ in columns), "\t".join("-" * len(c[0]) for c in columns)]
    path.write_text("\n".join([*lines, *("\t".join(row) for row in rows), ""]))
    return path


def csv(path: Path, columns: list[Column]) -> Path:
    """Write CSV, which states no units."""
    rows = zip(*(cells for _, _, cells in columns), strict=True)
    path.write_text("\n".join([",".join(c[0] for c in columns), *(",".join(row) for row in rows), ""]))
    return path


def binary(path: Path, columns: list[Column]) -> Path:
    """Write FITS with the units stated."""

    def made(name: str, unit: str, cells: list[str]) -> fits.Column:
        try:
            return fits.Column(name, "D", unit=unit, array=[float(cell or "nan") for cell in cells])
        except ValueError:
            return fits.Column(name, "12A", array=np.array(cells))

    table = fits.BinTableHDU.from_columns([made(*column) for column in columns])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


#: Two sources: 10 deg -55 and 350.5 deg -0.25; 120 and 30 mJy; one of 30 by 10 arcsec at 20 deg, one point.
RA, DEC = ["10.000000", "350.500000"], ["-55.000000", "-0.250000"]
HMS = ("RAJ2000", '"h:m:s"', ["00 40 00.00", "23 22 00.00"])
DMS = ("DEJ2000", '"d:m:s"', ["-55 00 00.0", "-00 15 00.0"])
DEGREES = [("RAJ2000", "deg", RA), ("DEJ2000", "deg", DEC)]
FLUX, ERROR = ["120.0", "30.0"], ["4.0", "1.0"]
SIZE = [["30.0", ""], ["10.0", ""], ["20.0", ""]]


def sizes(names: tuple[str, str, str], cells: list[list[str]] = SIZE) -> list[Column]:
    return [(n, u, c) for n, u, c in zip(names, ("arcsec", "arcsec", "deg"), cells, strict=True)]


def through(beam: tuple[float, float], name: tuple[str, str, str], scale: float = 1.0) -> list[Column]:
    """Give what an image of this beam (north-south, east-west) shows of the two sources, scaled in size."""
    tensor = np.diag(np.square(beam))
    angle = np.radians(20.0)
    axis = np.array([np.cos(angle), np.sin(angle)])
    source = scale**2 * ((30.0**2 - 10.0**2) * np.outer(axis, axis) + 10.0**2 * np.eye(2))
    widths, axes = np.linalg.eigh(tensor + source)
    major, minor = np.sqrt(widths[::-1])
    tilt = np.degrees(np.arctan2(*axes[::-1, 1])) % 180
    point = sorted(beam, reverse=True)
    return sizes(name, [[f"{major}", f"{point[0]}"], [f"{minor}", f"{point[1]}"], [f"{tilt}", "0.0"]])


ARCSEC_BEAM = 25.0
TGSS_BEAM = 25.0 / np.cos(np.radians(-55.0 - 19.0))
TGSS_POINT = 25.0 / np.cos(np.radians(-0.25 - 19.0))
tgss = through((TGSS_BEAM, 25.0), ("Maj", "Min", "PA"))
tgss[0][2][1], tgss[1][2][1] = f"{TGSS_POINT}", "25.0"
gleam = through((140.0, 130.0), ("awide", "bwide", "pawide"), 10.0)
psf = [("psfawide", "arcsec", ["140", "140"]), ("psfbwide", "arcsec", ["130", "130"])]
psf.append(("psfPAwide", "deg", ["0", "0"]))
JANSKY = ("Fintwide", "Jy", ["0.120", "0.030"]), ("e_Fintwide", "Jy", ["0.004", "0.001"])
SLOPE = [("alpha", "", ["-0.81", ""]), ("e_alpha", "", ["0.04", ""])]
CASDA = [("ra", "deg", RA), ("dec", "deg", DEC)]
OWN = [("RA", "deg", RA), ("DEC", "deg", DEC), ("Total_flux", "mJy", FLUX), ("E_Total_flux", "mJy", ERROR)]
QUICK = [("Duplicate_flag", "", ["1", "0"]), ("Quality_flag", "", ["0", "4"])]
LOW = [f"{0.87 * float(x)}" for x in FLUX], [f"{0.87 * float(x)}" for x in ERROR]
FORMS = {
    "sumss": (
        vizier,
        "sumss",
        [
            HMS,
            DMS,
            ("Sp", "mJy/beam", ["90", "30"]),
            ("St", "mJy", FLUX),
            ("e_St", "mJy", ERROR),
            *sizes(("MajAxis", "MinAxis", "PA"), [["60", "46"]] * 3),
            *sizes(("dMajAxis", "dMinAxis", "dPA")),
        ],
    ),
    "racs-low vizier": (
        vizier,
        "racs-low",
        [
            *DEGREES,
            ("Ftot", "mJy", FLUX),
            ("e_Ftot", "mJy", ERROR),
            ("Fpk", "mJy/beam", FLUX),
            *through((25, 25), ("amaj", "bmin", "PA")),
        ],
    ),
    "racs-low sources": (
        csv,
        "racs-low",
        [
            *CASDA,
            ("total_flux_source", "", FLUX),
            ("e_total_flux_source", "", ERROR),
            *through((25, 25), ("maj_axis", "min_axis", "pa")),
        ],
    ),
    "racs-low gaussians": (
        csv,
        "racs-low",
        [
            *CASDA,
            ("total_flux_source", "", ["500", "500"]),
            ("total_flux_gaussian", "", FLUX),
            ("e_total_flux_gaussian", "", ERROR),
            *sizes(("dc_maj", "dc_min", "dc_pa")),
        ],
    ),
    "racs-mid": (
        binary,
        "racs-mid",
        [
            *CASDA,
            ("total_flux", "mJy", FLUX),
            ("e_total_flux", "mJy", ERROR),
            *sizes(("dc_maj_axis", "dc_min_axis", "dc_pa")),
        ],
    ),
    "racs-mid vizier": (
        vizier,
        "racs-mid",
        [
            *DEGREES,
            ("Ftot", "mJy", FLUX),
            ("e_Ftot", "mJy", ERROR),
            ("Fpeak", "mJy/beam", FLUX),
            ("SCode", "", ["S", "S"]),
            *sizes(("DCMaj", "DCMin", "DCPA")),
        ],
    ),
    "vlass vizier": (
        vizier,
        "vlass",
        [
            *DEGREES,
            ("Ftot", "mJy", LOW[0]),
            ("e_Ftot", "mJy", LOW[1]),
            ("DupFlag", "", ["0", "1"]),
            ("QualFlag", "", ["0", "0"]),
            *sizes(("DCMaj", "DCMin", "DCPA")),
        ],
    ),
    "vlass 2": (
        csv,
        "vlass",
        [
            ("Component_name", "", ["VLASS2QLCIR J1", "VLASS2QLCIR J2"]),
            *OWN,
            *QUICK,
            *sizes(("DC_Maj", "DC_Min", "DC_PA")),
        ],
    ),
    "tgss vizier": (vizier, "tgss", [*DEGREES, ("Stotal", "mJy", FLUX), ("e_Stotal", "mJy", ERROR), *tgss]),
    "tgss": (
        binary,
        "tgss",
        [*OWN, *tgss, ("RMS_noise", "mJy/beam", ["3", "3"]), ("Mosaic_name", "", ["R01D02", "R01D02"])],
    ),
    "lotss vizier": (
        vizier,
        "lotss",
        [
            *DEGREES,
            ("SpeakTot", "mJy", FLUX),
            ("e_SpeakTot", "mJy", ERROR),
            *sizes(("DCMaj", "DCMin", "DCPA")),
        ],
    ),
    "lotss": (
        binary,
        "lotss",
        [
            *OWN,
            *sizes(("DC_Maj", "DC_Min", "DC_PA")),
            ("Isl_rms", "mJy/beam", ["1", "1"]),
            ("Mosaic_ID", "", ["P1", "P1"]),
        ],
    ),
    "gleam vizier": (vizier, "gleam", [*DEGREES, *JANSKY, *gleam, *psf, *SLOPE]),
    "gleam": (
        csv,
        "gleam",
        [
            *DEGREES,
            ("int_flux_wide", "", JANSKY[0][2]),
            ("err_int_flux_wide", "", JANSKY[1][2]),
            *((f"{n[0]}_wide" if n[0] != "p" else "pa_wide", u, c) for n, u, c in gleam),
            *(
                (n, u, c[2])
                for (n, u), c in zip(
                    (("psf_a_wide", ""), ("psf_b_wide", ""), ("psf_pa_wide", "")), psf, strict=True
                )
            ),
            SLOPE[0],
            ("err_alpha", "", ["0.04", ""]),
        ],
    ),
    "wenss": (
        vizier,
        "wenss",
        [
            HMS,
            DMS,
            ("RAB1950", '"h:m:s"', ["01 00 00", "02 00 00"]),
            ("DEB1950", '"d:m:s"', ["+50 00 00", "+51 00 00"]),
            ("Flg1", "", ["S", "C"]),
            ("Speak", "mJy/beam", ["1", "1"]),
            ("Sint", "mJy", FLUX),
        ],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_gives_the_same_sources(tmp_path: Path, form: str) -> None:
    write, survey, columns = FORMS[form]
    table = read_catalog(write(tmp_path / "file", columns), survey)
    assert list(table["ra_deg"]) == pytest.approx([10.0, 350.5], abs=1e-9)
    assert list(table["dec_deg"]) == pytest.approx([-55.0, -0.25], abs=1e-9)
    assert list(table["flux_mjy"]) == pytest.approx([120.0, 30.0])
    found = [list(table[name]) for name in ("major_arcsec", "minor_arcsec", "pa_deg")]
    if survey == "wenss":
        assert found == [[0.0, 0.0]] * 3
        return
    assert list(table["flux_err_mjy"]) == pytest.approx([4.0, 1.0])
    scale = 10.0 if survey == "gleam" else 1.0
    wanted = (30.0 * scale, 10.0 * scale, 20.0)
    assert found == [pytest.approx([wide, 0.0], abs=1e-4) for wide in wanted]
    if survey == "gleam":
        assert table["spectral_index"][0] == -0.81
        assert np.isnan(table["spectral_index"][1])


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_its_flux_is_refused_in_one_line(tmp_path: Path, form: str) -> None:
    write, survey, columns = FORMS[form]
    total = {"St", "Ftot", "total_flux_source", "total_flux_gaussian", "total_flux", "Stotal", "Total_flux"}
    total |= {"SpeakTot", "Fintwide", "int_flux_wide", "Sint"}
    poor = [column for column in columns if column[0] not in total]
    with pytest.raises(CatalogFormatError) as caught:
        read_catalog(write(tmp_path / "file", poor), survey)
    assert "lacks the column" in str(caught.value) or "has the columns of none" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trap_a_unit_that_the_file_states_is_heeded(tmp_path: Path) -> None:
    columns = [("Ftot" if c[0] == "Ftot" else c[0], *c[1:]) for c in FORMS["racs-low vizier"][2]]
    columns[2:4] = [("Ftot", "Jy", ["0.120", "0.030"]), ("e_Ftot", "Jy", ["0.004", "0.001"])]
    assert list(read_catalog(vizier(tmp_path / "a", columns), "racs-low")["flux_mjy"]) == [120.0, 30.0]
    columns[2] = ("Ftot", "K", ["1", "1"])
    with pytest.raises(CatalogFormatError, match="column Ftot is in K, which is not mJy"):
        read_catalog(vizier(tmp_path / "b", columns), "racs-low")


def test_trap_racs_gaussians_of_vizier_repeat_the_flux_of_their_source(tmp_path: Path) -> None:
    columns = [*FORMS["racs-low vizier"][2], ("GID", "", ["G1", "G2"])]
    with pytest.raises(CatalogFormatError, match="take galcut and galreg"):
        read_catalog(vizier(tmp_path / "a", columns), "racs-low")


def test_trap_racs_rows_from_two_tiles_are_taken_once(tmp_path: Path) -> None:
    ra = [*RA, "10.0005"]  # 1 arcsec away at Dec -55, a tenth of a beam is 2.5
    columns = [("ra", "", ra), ("dec", "", [*DEC, DEC[0]]), ("total_flux_source", "", [*FLUX, "119"])]
    table = read_catalog(csv(tmp_path / "a", columns), "racs-low")
    assert list(table["flux_mjy"]) == [120.0, 30.0]
    assert any("1 rows repeat another" in note for note in table.meta["notes"])
    # Two Gaussians at one place may be the core and the halo of one source.
    gaussians = [*columns[:2], ("total_flux_gaussian", "", columns[2][2])]
    assert len(read_catalog(csv(tmp_path / "g", gaussians), "racs-low")) == 3
    apart = [("ra", "", [*RA, "10.002"]), *columns[1:]]
    assert len(read_catalog(csv(tmp_path / "b", apart), "racs-low")) == 3


def test_trap_vlass_duplicates_and_sidelobes_are_left_out_and_epoch_1_is_corrected(tmp_path: Path) -> None:
    n, flags = 6, (["0", "1", "2", "0", "0", "0"], ["0", "4", "0", "1", "2", "0"])
    columns = [
        ("Component_name", "", ["VLASS1QLCIR J1"] * n),
        ("RA", "", [f"{10 + k}" for k in range(n)]),
        ("DEC", "", ["5"] * n),
        ("Total_flux", "", ["87", "8.7", "5", "5", "5", ""]),
        ("Duplicate_flag", "", flags[0]),
        ("Quality_flag", "", flags[1]),
    ]
    table = read_catalog(csv(tmp_path / "a", columns), "vlass")
    assert list(table["flux_mjy"]) == pytest.approx([100.0, 10.0])
    assert list(table.meta["rows"]) == [0, 1]
    assert any("4 rows are left out" in note for note in table.meta["notes"])
    with pytest.raises(CatalogFormatError, match="Quality_flag"):
        read_catalog(csv(tmp_path / "b", columns[:-1]), "vlass")


def test_trap_wenss_wholes_are_left_out_beside_their_components_and_b1950_is_converted(
    tmp_path: Path,
) -> None:
    ra = ["12 00 00.0", "12 00 00.0", "12 01 00.0"]
    b1950 = [("RAB1950", '"h:m:s"', ra), ("DEB1950", '"d:m:s"', ["+50 00 00"] * 3)]
    rest = [("Flg1", "", ["M", "C", "E"]), ("Sint", "mJy", ["90", "60", "20"])]
    table = read_catalog(vizier(tmp_path / "a", [*b1950, *rest]), "wenss")
    assert list(table["flux_mjy"]) == [60.0, 20.0]
    place = SkyCoord(table["ra_deg"][0], table["dec_deg"][0], unit="deg")
    expected = SkyCoord("12h00m00s", "+50d00m00s", frame="fk4", equinox="B1950").icrs
    assert place.separation(expected).arcsec < 0.5
    assert place.separation(SkyCoord("12h00m00s", "+50d00m00s")).deg > 0.25


@pytest.mark.parametrize(
    ("frames", "polar"),
    [(["WNH74_100", "WNP80_010", "WNH40_200", "WNP80_010"], [0, 1, 0, 1]), (None, [0, 0, 0, 1])],
)
def test_trap_wenss_was_observed_at_352_mhz_about_the_pole(
    tmp_path: Path, frames: list[str] | None, polar: list[int]
) -> None:
    columns = [
        *(("RAJ2000", "deg", ["10", "20", "30", "40"]), ("DEJ2000", "deg", ["74", "74", "40", "80"])),
        *(("Flg1", "", ["S"] * 4), ("Sint", "mJy", ["100"] * 4)),
        *([("Frame", "", frames)] if frames else []),
    ]
    table = read_catalog(vizier(tmp_path / "a", columns), "wenss")
    at_325 = 100.0 * (352 / 325) ** 0.75
    assert list(table["flux_mjy"]) == pytest.approx([at_325 if k else 100.0 for k in polar])
    assert any("352 MHz" in note for note in table.meta["notes"])


def test_noise_does_not_widen_a_point(tmp_path: Path) -> None:
    one = np.ones(3)
    signal = np.array([10.0, 1000.0, np.nan])
    major, minor, angle = deconvolved(
        (27.0 * one, 25.0 * one, 0 * one), (25 * one, 25 * one, 0 * one), signal
    )
    assert major.tolist() == pytest.approx([0.0, np.sqrt(27.0**2 - 25.0**2), np.sqrt(27.0**2 - 25.0**2)])
    assert minor.tolist() == angle.tolist() == [0.0] * 3


def test_a_table_of_another_survey_is_named(tmp_path: Path) -> None:
    write, _, columns = FORMS["lotss"]
    with pytest.raises(CatalogFormatError, match="is a table of LoTSS, not of nvss"):
        read_catalog(write(tmp_path / "file", columns), "nvss")


def test_the_documents_say_of_every_survey_what_the_code_knows() -> None:
    page = (ROOT / "docs" / "how-to" / "catalogues.md").read_text()
    for survey in SURVEYS.values():
        row = (
            f"| `{survey.name}` | {survey.title} ({survey.reference}) | {survey.freq_hz / 1e6:g} "
            f"| {survey.beam_arcsec:g} | {survey.flux_limit_mjy:g} | {100 * survey.flux_error:g} "
            f"| {survey.position_error_arcsec:g} | {survey.sizes} | {survey.sky} | {survey.file} |"
        )
        assert row in page, f"the page lacks:\n{row}"
