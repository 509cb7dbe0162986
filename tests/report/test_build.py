"""The page of every kind of run, whole or not."""

import json
import logging
import re
import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from astropy.table import Table

from dsa110_contimg.cli.main import main
from dsa110_contimg.errors import EngineError, InputError
from dsa110_contimg.files import write_table
from dsa110_contimg.report import build, try_report, write_report
from dsa110_contimg.report.page import render
from dsa110_contimg.report.products import read_products
from dsa110_contimg.report.rendering import typeset
from dsa110_contimg.report.words import MEANINGS
from dsa110_contimg.selfcal import run
from dsa110_contimg.selfcal.naming import REPORT, STAGES, SUMMARY
from dsa110_contimg.selfcal.run import SelfCalResult
from tests.report.html_check import Page, checked
from tests.report.synthetic import write_run

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'&quot;&</svg>",
    "Überlänge {{ 7*7 }}",
    "javascript:alert(1)",
]


def page_of(folder) -> Page:
    return checked(write_report(folder).read_text(encoding="utf-8"))


def test_a_run_leaves_its_page(good):
    page = checked((good / REPORT).read_text(encoding="utf-8"))
    assert "Improved: a better calibration was found" in page.text
    assert "Not to be had" not in page.text
    for part in ("verdict", "images", "gains", "intervals", "sources", "array", "run", "options", "products"):
        assert any(attrs.get("id") == part for attrs in page.all("section")), part
    summary = json.loads((good / SUMMARY).read_text())
    assert typeset(summary["message"]) in page.text
    assert ("but something speaks against it" in page.text) == ("check" in summary["message"])
    assert f"{summary['initial']['snr']:.4g} → {summary['final']['snr']:.4g}" in page.text
    assert "3 of them set" in page.text
    links = {attrs["href"] for attrs in page.all("a")}
    assert {f"./{name}" for name in summary["products"].values()} <= links
    assert {f"./{name}/" for name in summary["gaintables"]} <= links
    assert all((good / link).exists() for link in links if link.startswith("./"))
    assert len(page.all("img")) == 3


def test_trap_21_every_figure_is_there_and_is_the_summarys(good):
    summary = json.loads((good / SUMMARY).read_text())
    text = page_of(good).text
    assert [name for name in MEANINGS if name not in text] == []
    first, last = summary["initial"], summary["final"]
    kept = summary["iterations"][summary["best_iteration"] - 1]
    for shown in (
        f"{first['thermal_ratio']:.3g} → {last['thermal_ratio']:.3g}",
        f"{first['flux_ratio']:.3f} → {last['flux_ratio']:.3f}",
        ", ".join(f"{v:+.2f}" for v in last["offset_arcsec"]).replace("-", "\u2212"),
        f"{summary['heldout_sources']['n_agreeing']} of {summary['heldout_sources']['n_sources']}",
        f"{100 * kept['solved_fraction']:.1f}",
        f"{kept['chi2_heldout']:.5g}",
        f"{summary['seconds']['total']:.1f}",
    ):
        assert shown in text, shown


def test_an_unseeded_run(unseeded):
    page = page_of(unseeded)
    assert "Not to be had" not in page.text
    assert not any(attrs.get("id") == "sources" for attrs in page.all("section"))
    assert len(page.all("img")) == 2


def test_a_refused_run_says_why_and_what_to_do(refused):
    page = page_of(refused)
    assert "Refused: no gains were kept; the Measurement Set was not touched" in page.text
    # Said once.
    assert page.text.lower().count("measurement set was not") == 1
    assert "No gains were kept, and no source was fitted with them" in page.text
    assert "mirrored, refused the run" in page.text
    assert "sky-is-not-the-catalogues.md" in page.text
    assert "Not to be had" not in page.text
    assert not any(attrs.get("id") == "gains" for attrs in page.all("section"))


def test_a_run_that_kept_the_input(kept):
    """The image before is the one after: one image without a slider, and each figure once."""
    page = page_of(kept)
    assert "Image of the input, which was kept" in page.text
    assert "Not to be had" not in page.text
    assert not any(attrs.get("id") == "slider" for attrs in page.all("input"))
    summary = json.loads((kept / SUMMARY).read_text())
    figure = f"{summary['final']['snr']:.4g}"
    assert f"signal to noise {figure} The brightest" in " ".join(page.text.split())
    assert f"{figure} \u2192" not in page.text


def test_a_column_that_says_nothing_is_left_out(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    assert ">lost<" not in write_report(out).read_text(encoding="utf-8")
    antennas = Table.read(out / "antennas.ecsv")
    antennas["lost"] = ["", "", "from 10:00:00 on", "", "", ""]
    write_table(out / "antennas.ecsv", antennas)
    text = write_report(out).read_text(encoding="utf-8")
    assert ">lost<" in text
    assert "from 10:00:00 on" in text


@pytest.mark.parametrize(
    ("n", "told"), [(1, "Here of 1 source: so few say little."), (40, "Here of 40 sources.")]
)
def test_of_how_many_sources_the_flux_ratio_is(tmp_path, n, told):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    summary = json.loads((out / SUMMARY).read_text())
    summary["final"] = summary["final"] | {"flux_ratio_n": n}
    (out / SUMMARY).write_text(json.dumps(summary))
    assert told in page_of(out).text


def test_one_of_a_kind_and_none(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"], n_sources=1)
    assert "1 round in their order" in page_of(out).text
    sources = Table.read(out / "sources.ecsv")
    write_table(out / "sources.ecsv", sources[:0])
    page = page_of(out)
    assert "No source of the catalogue is bright enough here" in page.text
    assert not any(attrs.get("id") == "sources-table" for attrs in page.all("table"))


def test_numbers_bear_no_exponents_and_a_source_that_differs_is_told_plainly(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    sources = Table.read(out / "sources.ecsv")
    sources["scale_error_jy"] = 0.114
    sources["verdict"][0] = "brighter"
    sources["catalog_apparent_jy"][0], sources["ratio"][0] = 0.00675, 1.426
    sources["shift_east_arcsec"][0], sources["shift_north_arcsec"][0] = -2.25, 0.83
    write_table(out / "sources.ecsv", sources)
    page = page_of(out)
    assert "e+0" not in page.text
    assert "brighter, 1.426 times the 6.75 mJy that the catalogue has through the beam" in page.text
    assert "\u22122.25 arcsec east and +0.83 north of its place" in page.text


def test_a_reader_is_not_sent_to_findings_that_are_not_there(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    assert "Look at the findings and at sky minus catalogue" in page_of(out).text
    summary = json.loads((out / SUMMARY).read_text())
    (out / SUMMARY).write_text(json.dumps(summary | {"findings": []}))
    assert "Look at sky minus catalogue" in page_of(out).text


def test_an_antenna_that_is_odd_in_one_polarisation_is_told_so(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    antennas = Table.read(out / "antennas.ecsv")
    antennas["verdict"] = ["good", "noisy", "good", "good", "good", "good"]
    write_table(out / "antennas.ecsv", antennas)
    assert ">noisy, one polarisation</span>" in write_report(out).read_text(encoding="utf-8")


def test_signs_of_the_log_are_printed_as_signs(tmp_path):
    """What was noted in a stage stands in a line each."""
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    stage = {"stage": "solve", "start": "", "seconds": 1.0, "noted": ["chi2 2.0 -> 1.0", "flux 1.0 +- 0.1"]}
    (out / STAGES).write_text(json.dumps(stage) + "\n")
    text = write_report(out).read_text(encoding="utf-8")
    assert "chi2 2.0 \u2192 1.0\nflux 1.0 \u00b1 0.1" in text
    assert re.search(r"\.wide \{[^}]*white-space: pre-line", text)
    assert "chosen</td>" not in text


def test_a_run_that_was_killed(good, tmp_path):
    for name in ("initial-image.fits", STAGES):
        shutil.copy(good / name, tmp_path / name)
    lines = (tmp_path / STAGES).read_text().splitlines()
    (tmp_path / STAGES).write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    page = page_of(tmp_path)
    assert "Unfinished" in page.text
    assert json.loads(lines[2])["stage"] in page.text
    assert f"{SUMMARY} is not there" in page.text
    failed = json.loads(lines[2]) | {"error": "out of memory"}
    (tmp_path / STAGES).write_text("\n".join([*lines[:2], json.dumps(failed)]))
    assert "out of memory (stage" in page_of(tmp_path).text


def test_products_that_are_gone_are_named_and_the_rest_is_shown(good, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(good, out)
    shown = {"initial-image.fits", "final-image.fits", "final-difference.fits", "sources.ecsv"}
    shown |= {"antennas.ecsv", "selfcal_1_p.gcal", "selfcal_2_ap.gcal", STAGES}
    for path in sorted(out.iterdir(), key=lambda p: (p.name == SUMMARY, p.name)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if any(out.glob(SUMMARY)):
            page = page_of(out)
            assert (f"{path.name} is not there" in page.text) == (path.name in shown), path.name
            assert "Improved" in page.text
    (out / REPORT).unlink()
    with pytest.raises(InputError, match="holds no products of a run"):
        write_report(out)


# Astropy leaves a FITS file that was cut short open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["sources.ecsv", "antennas.ecsv", "final-image.fits", STAGES, SUMMARY])
def test_a_damaged_product_costs_its_own_part_only(good, tmp_path, name):
    out = tmp_path / "out"
    shutil.copytree(good, out)
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[: len(content) // 3])
    page = page_of(out)
    assert any(attrs["alt"].startswith("Image before") for attrs in page.all("img"))
    if name != STAGES:
        assert f"{name} cannot be read" in page.text


def test_a_summary_of_any_content_gives_a_page(tmp_path):
    """As of another version, or of a program that is none of ours."""
    products = replace(read_products(write_run(tmp_path / "out", ["a", "b", "c"])), images={})
    for key in products.summary:
        for value in (None, "x", [7], {"a": None}):
            checked(render(replace(products, summary=products.summary | {key: value})))
    checked(render(replace(products, summary={"status": "improved"})))


@pytest.mark.parametrize("n", [1, 2, 3, 24, 25])
def test_any_number_of_antennas(tmp_path, n):
    page = page_of(write_run(tmp_path / "out", [f"ant{k}" for k in range(n)]))
    assert "cannot be shown" not in page.text
    panels = [a for a in page.all("svg") if (a.get("aria-label") or "").startswith("Gains of ")]
    assert len(panels) == n


def test_new_sources_have_cut_outs_and_are_not_listed_as_sources_that_differ(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    table = Table.read(out / "sources.ecsv")
    faint = table["verdict"] == "faint"
    table["kind"], table["verdict"] = (
        np.where(faint, "new", "catalogue"),
        np.where(faint, "new", table["verdict"]),
    )
    table.meta |= {"n_new": int(faint.sum()), "false_new_expected": 2.5}
    table["ra_deg"][np.flatnonzero(faint)[0]] = 10.0
    write_table(out / "sources.ecsv", table)
    page, source = page_of(out), (out / REPORT).read_text()
    assert f"{faint.sum()} that the catalogue does not list" in page.text
    assert "about 2.5 false ones are to be expected" in page.text
    assert source.count('<div class="cutouts">') == 12
    assert source.count("<figcaption>difference</figcaption>") >= 11
    assert "Not as the catalogue has them (2)" in page.text
    assert "too far out for a flux" not in page.text
    # A source in the null of the beam has no flux, whatever the division gives.
    table["beam_error_jy"][faint] = table["flux_jy"][faint]
    write_table(out / "sources.ecsv", table)
    assert "mJy through the beam, too far out for a flux" in page_of(out).text


def test_a_bandpass_that_was_given_is_shown_and_one_that_is_gone_is_named(tmp_path, ngc5921_caltables):
    """Real tables: a bandpass and gains of 28 antennas, one of which has no data."""
    names = [str(k) for k in range(1, 29)]
    out = write_run(tmp_path / "out", names)
    summary = json.loads((out / SUMMARY).read_text())
    given = [str(ngc5921_caltables[name]) for name in ("B0", "G0")] + ["/gone/bpcal"]
    summary["provenance"] |= {"initial_caltables": given, "receptors": ["R", "L"]}
    (out / SUMMARY).write_text(json.dumps(summary))
    page = page_of(out)
    assert "cannot be shown" not in page.text
    assert "/gone/bpcal is not there" in page.text
    assert page.text.count("Bandpass as given to the run, in B0: ") == 1
    assert "in G0" not in page.text
    assert "1412.76 to 1414.08 MHz, 55 channels" in page.text
    assert "polarisation 0 (RR)" in page.text
    told = [
        a["aria-label"] for a in page.all("svg") if (a.get("aria-label") or "").startswith("Bandpass of ")
    ]
    assert len(told) == 28
    assert sum("polarisation 0 has no solution" in words for words in told) == 1


def test_a_run_of_the_pipeline_bears_its_verdict(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    assert "The pipeline" not in page_of(out).text
    for told, words in (
        ({"quality": "bad", "reasons": ["noise 9.0 x thermal"], "published": False, "fallback": None},
         ("judges it bad", "noise 9.0 x thermal", "unseeded run instead, as it is bad")),
        ({"quality": "good", "reasons": [], "published": False, "fallback": None},
         ("judges it good", "seeded runs are only recorded")),
        ({"quality": "unverified", "reasons": ["unseeded"], "published": True, "fallback": "noise"},
         ("judges it unverified", "FELL BACK to this unseeded run", "(noise)", "The image of this run.")),
        ({"quality": "kept", "reasons": [], "published": True, "fallback": None}, ("input was kept",)),
    ):  # fmt: skip
        (out / "verdict.json").write_text(json.dumps(told))
        page = page_of(out)
        assert all(word in page.text for word in words), page.text[:2000]
    (out / "verdict.json").write_text("{")
    assert "verdict.json cannot be read" in page_of(out).text


def test_one_solution_and_one_source(tmp_path):
    page = page_of(write_run(tmp_path / "out", ["a", "b", "c"], n_sources=3, n_times=1))
    assert "cannot be shown" not in page.text


def test_a_full_size_run_is_small_and_quick(large):
    folder, seconds = large
    text = (folder / REPORT).read_text(encoding="utf-8")
    page = checked(text)
    assert "cannot be shown" not in page.text
    assert len(text) < 5e6
    assert seconds < 5  # of the processor, whatever else it does; two or three are usual
    images = page.all("img")
    assert {int(a["width"]) for a in images} == {4096 // 3}


def test_names_are_words_and_never_markup(tmp_path):
    out = write_run(tmp_path / "out", HOSTILE, field=HOSTILE[0] + HOSTILE[1], source=HOSTILE[1] + "ü")
    page = page_of(out)
    assert "cannot be shown" not in page.text
    for name in HOSTILE:
        assert name in page.text, name
    assert len(page.all("img")) == 3
    assert "49" not in page.text.split("Überlänge")[1][:20]


def test_a_table_is_never_looked_for_outside_of_the_folder(tmp_path):
    out = write_run(tmp_path / "out", ["a", "b", "c"])
    summary = json.loads((out / SUMMARY).read_text())
    summary["gaintables"] = ["../secret.gcal", "/etc", "selfcal_1_ap.gcal", "javascript:alert(1)"]
    summary["products"]["more"] = "../../etc/passwd"
    (out / SUMMARY).write_text(json.dumps(summary))
    page = page_of(out)
    links = [a["href"] for a in page.all("a") if a["href"].startswith("./")]
    assert all(".." not in link and "javascript" not in link for link in links)


def test_reporting_never_fails_a_run(good, monkeypatch, caplog, tmp_path):
    def broken(products, index):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(build, "render", broken)
    with caplog.at_level(logging.WARNING):
        assert try_report(good) is None
        assert try_report(tmp_path / "nowhere") is None
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"no report: {good}: RuntimeError: two lines"
    assert second.startswith(f"no report: {tmp_path / 'nowhere'}: is no folder")


def test_a_report_that_fails_leaves_the_exit_status(good, monkeypatch, capfd):
    summary = json.loads((good / SUMMARY).read_text())
    result = SelfCalResult("improved", "better", summary, good)
    monkeypatch.setattr(run, "selfcal_ms", lambda *given, **more: result)
    monkeypatch.setattr(build, "write_text", Mock(side_effect=OSError(28, "No space left on device")))
    assert main(["selfcal", "x.ms", str(good)]) == 0
    told = capfd.readouterr().err
    assert "no report: " in told
    assert "cannot write the report: No space left on device" in told
    assert told.count("\n") == 1


def test_the_page_of_an_earlier_run_goes_when_a_run_begins(observed, good, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(good, out)
    monkeypatch.setattr(run, "CalibrationData", Mock(side_effect=EngineError("it broke")))
    with pytest.raises(EngineError):
        run.selfcal_ms(observed / "x.ms", out, run.SelfCalConfig(catalog_dir=observed / "c", size=256))
    assert not (out / REPORT).exists()
    assert "Failed" in page_of(out).text


def test_the_command_builds_it_anew(good, capfd, tmp_path, monkeypatch):
    monkeypatch.delenv("CONTIMG_STATE_FILE", raising=False)
    out = tmp_path / "out"
    shutil.copytree(good, out)
    (out / REPORT).unlink()
    capfd.readouterr()
    assert main(["report", str(out)]) == 0
    assert capfd.readouterr().out == f"{out / REPORT}\n"
    checked((out / REPORT).read_text(encoding="utf-8"))
    assert main(["report", str(out), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"report": str(out / REPORT)}
    assert main(["report", str(out), "--day", "2026-01-25"]) == 2
    assert "both a folder and a day" in capfd.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert main(["report"]) == 2
    assert "no state file is named" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "doubtful"),
    [
        ({}, False),
        ({"findings": [{"kind": "moved", "status": "", "text": "by 3 arcsec"}]}, False),
        ({"findings": [{"kind": "beam_width", "status": "", "text": "too wide"}]}, True),
        ({"noise": {"note": "the noise is too high"}}, True),
        ({"iterations": [{"chi2_heldout": 2.5}]}, True),
    ],
)
def test_a_result_that_has_to_be_checked_is_not_ticked_off(tmp_path, change, doubtful):
    folder = write_run(tmp_path / "out", ["a", "b", "c"])
    summary = json.loads((folder / SUMMARY).read_text())
    clean = {"status": "improved", "findings": [], "noise": {"note": None}, "best_iteration": 1}
    (folder / SUMMARY).write_text(
        json.dumps(summary | clean | {"iterations": [{"chi2_heldout": 1.0}]} | change)
    )
    page = page_of(folder)
    assert ("but something speaks against it" in page.text) == doubtful
    for finding in change.get("findings", ()):
        did = "to be checked" if doubtful else "for information"
        assert f"{finding['kind'].replace('_', ' ')}, {did}" in page.text
