"""`contimg catalog`: what its commands print and write."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.catalogs import query_nvss_sources
from dsa110_contimg.cli.main import main
from tests.catalogs.files import draw, write_csv

CONE = ("--ra", "100", "--dec", "54", "--radius", "3")


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_csv(folder / "nvss.csv", draw(20_000))
    assert (
        main(["catalog", "build", "nvss", str(folder / "nvss.csv"), "--catalog-dir", str(folder / "cat")])
        == 0
    )
    return folder / "cat"


def run(capfd: pytest.CaptureFixture[str], *words: object, status: int = 0) -> str:
    assert main(["catalog", *(str(word) for word in words)]) == status
    out, err = capfd.readouterr()
    return out if status == 0 else err


def test_tables_show_every_column_in_full(
    capfd: pytest.CaptureFixture[str], strips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = query_nvss_sources(100, 54, 3, catalog_dir=strips)
    shown = run(capfd, "query", *CONE, "--catalog-dir", strips)
    for text in (*found.colnames, f"{found['ra_deg'][0]:.6f}", f"{found['separation_deg'][-1]:.5f}"):
        assert text in shown
    assert "…" not in shown
    assert "within 3 deg of RA 100.0000 Dec +54.0000" in shown
    info = run(capfd, "info", "--catalog-dir", strips)
    assert "…" not in info
    for text in ("nvss_dec+55.0.sqlite3", "+49.00 .. +61.00", "0.00 .. 360.00", "nvss.csv", "90 % complete"):
        assert text in info


def test_info_says_that_limits_below_the_floor_are_one(
    capfd: pytest.CaptureFixture[str], strips: Path
) -> None:
    faintest = float(query_nvss_sources(100, 40, 80, catalog_dir=strips)["flux_mjy"].min())
    out = run(capfd, "info", "--catalog-dir", strips)
    assert "nvss: 20000 sources; flux limits below 2.1 mJy, its faintest, all select the same rows" in out
    assert faintest == 2.1
    told = json.loads(run(capfd, "info", "--catalog-dir", strips, "--json"))
    assert told["floor_mjy"] == {"nvss": 2.1}
    assert all(
        s["completeness_mjy"] == pytest.approx(2.1, abs=0.6) for s in told["strips"] if s["n_sources"] > 1500
    )
    assert main(["catalog", "query", *CONE, "--min-mjy", "0.1", "--catalog-dir", str(strips)]) == 0
    assert "note: a limit of 0.1 mJy selects every row" in capfd.readouterr().err
    both = [
        query_nvss_sources(100, 54, 3, limit, catalog_dir=strips)["source_id"].tolist()
        for limit in (0.1, 1.0)
    ]
    assert both[0] == both[1]


def test_info_of_no_strips_is_an_error(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = run(capfd, "info", "--catalog-dir", tmp_path / "none", status=2)
    assert "no catalogue strips are there" in said


def test_info_draws_the_sky(capfd: pytest.CaptureFixture[str], strips: Path, tmp_path: Path) -> None:
    run(capfd, "info", "--catalog-dir", strips, "--picture", tmp_path / "sky.png")
    assert (tmp_path / "sky.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "vot", "xml", "reg", "txt"])
def test_query_writes_each_form(
    capfd: pytest.CaptureFixture[str], strips: Path, tmp_path: Path, suffix: str
) -> None:
    found = query_nvss_sources(100, 54, 3, catalog_dir=strips)
    out = tmp_path / f"cone.{suffix}"
    assert f"{len(found)} NVSS sources as" in run(
        capfd, "query", *CONE, "--catalog-dir", strips, "--out", out
    )
    if suffix not in ("reg", "txt"):
        table = Table.read(out, format={"ecsv": "ascii.ecsv", "fits": "fits"}.get(suffix, "votable"))
        assert table.colnames == found.colnames
        for name in found.colnames:
            values = np.ma.asarray(table[name]).astype(float).filled(np.nan)
            np.testing.assert_allclose(values, found[name], rtol=1e-12)
            assert table[name].unit == found[name].unit
    elif suffix == "reg":
        assert out.read_text().count("# text={nvss") == len(found)
    else:
        rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
        np.testing.assert_allclose([float(row[4]) for row in rows], found["flux_mjy"] / 1e3)
    if suffix in ("fits", "xml"):
        # Cards of FITS break long lines.
        told = "".join(table.meta["comments"]) if suffix == "fits" else table.meta["description"]
        assert found.meta["catalog_hash"] in told.replace("\n", "").replace(" ", "")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    again = run(capfd, "query", *CONE, "--catalog-dir", strips, "--out", out, "--json")
    assert json.loads(again)["n_sources"] == len(found)


def test_query_refuses_unknown_forms_and_places(
    capfd: pytest.CaptureFixture[str], strips: Path, tmp_path: Path
) -> None:
    words = ("query", *CONE, "--catalog-dir", strips)
    assert "names no form" in run(capfd, *words, "--out", tmp_path / "a.docx", status=2)
    for suffix in ("ecsv", "txt"):
        err = run(capfd, *words, "--out", tmp_path / "none" / f"a.{suffix}", status=2)
        assert "cannot be written" in err
        assert err.count("\n") == 1
    assert "unknown catalogue 'vlssr'" in run(capfd, *words, "--catalog", "vlssr", status=2)
    assert "catalog build first" in run(capfd, *words, "--catalog", "merged", status=2)


def test_build_from_a_url_and_again_without_it(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    write_csv(tmp_path / "www" / "nvss.csv.gz", draw(2000))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/nvss.csv.gz"
        words = ("build", "nvss", url, "--catalog-dir", tmp_path / "cat", "--json")
        built = json.loads(run(capfd, *words))
        assert (built["n_sources"], len(built["built"])) == (2000, 12)
        gone = url.replace("nvss.csv", "first.csv")
        assert "404" in run(capfd, "build", "first", gone, "--catalog-dir", tmp_path / "cat", status=2)
        server.shutdown()
    again = json.loads(run(capfd, *words))
    assert (len(again["built"]), len(again["kept"])) == (0, 12)
    digest = built["source_sha256"]
    run(capfd, *words, "--sha256", digest)
    assert "checksum" in run(capfd, *words, "--sha256", "0" * 64, status=2)
    local = ("build", "nvss", tmp_path / "www" / "nvss.csv.gz", "--sha256", digest)
    assert "for a local file" in run(capfd, *local, status=2)
    assert "unknown catalogue 'vlssr'" in run(capfd, "build", "vlssr", "a.fits", status=2)


@pytest.mark.shared_data
def test_calibrator(capfd: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path) -> None:
    where = ("--catalog-dir", tmp_path)
    assert "catalog build calibrators" in run(capfd, "calibrator", "0834+555", *where, status=2)
    assert ": 1865 calibrators" in run(
        capfd, "build", "calibrators", shared_data / "catalogues" / "vlacalibrators.txt", *where
    )
    shown = run(capfd, "calibrator", "0834+555", *where)
    for text in ("0834+555 (0831+557)", "128.7287672", "+55.5725197", "8.8"):
        assert text in shown
    told = json.loads(run(capfd, "calibrator", "3C286", *where, "--json"))
    assert (told["name"], told["flux_jy"]["L"]) == ("1331+305", 15.0)
    assert "near it" in run(capfd, "calibrator", "0834+556", *where, status=2)


def test_migrate(capfd: pytest.CaptureFixture[str], strips: Path) -> None:
    assert run(capfd, "migrate", "--catalog-dir", strips) == "0 strips rewritten\n"
    assert json.loads(run(capfd, "migrate", "--catalog-dir", strips, "--json")) == {"migrated": []}


def test_a_declared_circle_is_shown_and_one_declaration_is_enough(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("ra_deg,dec_deg,flux_mjy\n150,-55,9\n")
    where = ("--catalog-dir", tmp_path / "cat")
    circle = ("--covers", "150", "-55", "6")
    run(capfd, "build", "sumss", tmp_path / "a.csv", *circle, *where)
    assert "6 deg about 150.00 -55.00" in run(capfd, "info", *where)
    told = json.loads(run(capfd, "info", *where, "--json"))
    assert {tuple(strip["covers"]) for strip in told["strips"]} == {(150.0, -55.0, 6.0)}
    found = json.loads(
        run(
            capfd,
            "query",
            "--ra",
            "150",
            "--dec",
            "-55",
            "--radius",
            "5",
            "--catalog",
            "auto",
            *where,
            "--json",
        )
    )
    assert (found["catalog"], found["n_sources"]) == ("sumss", 1)
    assert any("nearest to 1400 MHz" in note for note in found["notes"])
    box = ("--covers-box", "140", "160", "-60", "-50")
    assert "give one of them" in run(
        capfd, "build", "sumss", tmp_path / "a.csv", *circle, *box, *where, status=2
    )
