import json
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.compare import compare_strategies
from dsa110_contimg.compare.report import html_section, text_report
from dsa110_contimg.compare.run import folder_lock
from dsa110_contimg.compare.verdict import judge_comparison, snr_uncertainty
from dsa110_contimg.config import ComparisonConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging import mad_rms, read_image


def test_data_are_untouched(compared):
    _, results, before, after = compared
    assert before == after
    assert results["files_hash_before"] == results["files_hash_after"]


def test_every_arm_is_measured_alike(compared):
    """Same region, weights and depth: the arms' own images give the reported figures."""
    out, results, *_ = compared
    assert [a["status"] for a in results["arms"]] == ["completed", "completed", "identical", "completed"]
    depth = results["depth_jy"]
    assert depth > 0
    for arm in results["arms"]:
        figures = arm["figures"]
        image = read_image(out / (arm["identical_to"] or arm["name"]) / "common-image.fits").image
        assert image.max() == pytest.approx(figures["deep"]["peak_jy"], rel=1e-5)
        assert mad_rms(image) == pytest.approx(figures["deep"]["rms_jy"], rel=0.3)
        for which in ("shallow", "deep", "subtracted", "delivered"):
            f = figures[which]
            assert f["snr"] == pytest.approx(f["peak_jy"] / f["rms_jy"])
            assert f["thermal_ratio"] == pytest.approx(f["rms_jy"] / f["thermal_rms_jy"])
        gain = figures["shallow"]["snr"] / results["before"]["snr"]
        assert arm["improvement_factor"] == pytest.approx(gain)


def test_report_says_what_the_results_hold(compared):
    out, results, *_ = compared
    assert results == json.loads((out / "comparison_results.json").read_text())
    text = (out / "comparison_report.txt").read_text()
    assert text == text_report(results)
    for arm in results["arms"]:
        rows = [line for line in text.splitlines() if re.match(rf"{re.escape(arm['name'])}\s", line)]
        f = arm["figures"]
        expected = [
            [str(arm["n_seeds"]), f"{arm['seed_flux_jy']:.3f}"],
            [f"{f['shallow']['snr']:.1f}", f"{1e3 * f['shallow']['rms_jy']:.4g}"],
            [f"{f['deep']['snr']:.1f}", f"{f['delivered']['thermal_ratio']:.2f}"],
            [f"{arm['seconds']['total']:.1f}", f"{arm['seconds']['image']:.1f}"],
        ]
        assert len(rows) >= len(expected)
        for row, words in zip(rows, expected, strict=False):
            assert all(word in row.split() for word in words), (row, words)
    for criterion in results["verdict"]["criteria"]:
        assert f"{criterion['name']}: {criterion['verdict'].upper()}" in text
    assert len(results["verdict"]["criteria"]) == 6
    assert (out / "comparison.png").stat().st_size > 10_000


class Tags(HTMLParser):
    """Checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], 0

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_escaped(compared):
    out, results, *_ = compared
    page = (out / "comparison_report.html").read_text()
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert parser.cells > 4 * 20
    hostile = json.loads(json.dumps(results))
    hostile["arms"][0]["message"] = "<script>alert(1)</script>"
    assert "<script>" not in html_section(hostile)


def compare_in(arguments):
    tiny, out, config, arms = arguments
    return compare_strategies(tiny / "t.ms", out, config, ComparisonConfig(arms=arms), warm=True).results


def test_two_at_once_in_different_folders(tiny, config, compared, tmp_path):
    """On the same Measurement Set: the figures are those of a comparison by itself."""
    jobs = [(tiny, tmp_path / name, config, "nvss_10.0mJy") for name in "ab"]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(compare_in, jobs))
    alone = compared[1]["arms"][3]
    for results in found:
        arm = results["arms"][0]
        assert arm["status"] == "completed"
        for key in ("chi2_heldout", "n_seeds", "iterations"):
            assert arm[key] == pytest.approx(alone[key], rel=1e-3)
        np.testing.assert_allclose(
            arm["figures"]["delivered"]["snr"], alone["figures"]["delivered"]["snr"], rtol=0.05
        )


def test_two_at_once_in_one_folder_are_refused(tiny, config, tmp_path):
    with folder_lock(tmp_path / "out", False), pytest.raises(ResourceError, match="another comparison"):
        compare_strategies(tiny / "t.ms", tmp_path / "out", config, warm=True)


def test_the_same_command_again_takes_over_what_is_done(compared, tiny, capfd):
    out, results, *_ = compared
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("*/arm.json")}
    assert len(stamps) == 3
    flags = ["--catalog-dir", tiny / "c", "--size", 192, "--cell", 24, "--json"]
    assert main(["compare", str(tiny / "t.ms"), str(out), *map(str, flags)]) == 0
    again = json.loads(capfd.readouterr().out)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert [a["figures"]["deep"]["snr"] for a in again["arms"]] == pytest.approx(
        [a["figures"]["deep"]["snr"] for a in results["arms"]], rel=1e-3
    )


def test_wrong_words_are_one_line(tiny, tmp_path, capfd):
    for flags, says in (
        (["--arms", "nvss_0.1"], "no arm 'nvss_0.1'"),
        (["--min-mjy", "5"], "--min-mjy is what the arms differ in"),
        (["--no-seed"], "--seed is what the arms differ in"),
    ):
        command = ["compare", str(tiny / "t.ms"), str(tmp_path / "o"), "--catalog-dir", str(tiny / "c")]
        assert main([*command, *flags]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert says in err
    assert not (tmp_path / "o").exists()


# Rules


def arm(name, snr, seconds, *, limit=None, delivered=None, flux=1.0, offset=(0.0, 0.0), status="improved"):
    figures = {
        "shallow": {"snr": snr},
        "deep": {"flux_ratio": flux, "offset_arcsec": None if flux is None else list(offset)},
        "subtracted": {"snr": delivered or snr},
        "delivered": {"snr": delivered or snr},
    }
    entry = {
        "name": name,
        "seeded": limit is not None,
        "limit_mjy": limit,
        "limit_s": 60.0,
        "identical_to": None,
    }
    entry |= {"status": "completed", "reason": "", "run_status": status, "figures": figures}
    return entry | {"seconds": {"total": seconds}}


def judged(*arms, before=10.0):
    return judge_comparison(arms, {"snr": before}, region_beams=10_000.0, beam_arcsec=30.0)


def verdicts(found):
    return [c["verdict"] for c in found["criteria"]]


def test_all_five_criteria_and_the_large_gain():
    found = judged(arm("base", 100, 10), arm("one", 200, 12, limit=1.0), arm("ten", 150, 11, limit=10.0))
    assert verdicts(found) == ["yes"] * 6
    assert found["recommended"] == "one"
    found = judged(arm("base", 100, 10), arm("one", 140, 16, limit=1.0))
    assert verdicts(found) == ["yes", "yes", "yes", "no", "yes", "no"]
    found = judged(arm("base", 100, 10), arm("one", 100.5, 10, limit=1.0))
    assert verdicts(found)[1] == "no"


def test_equal_arms_are_told_apart_by_the_delivered_image_then_time_then_limit():
    base = arm("base", 100, 10)
    one, ten = arm("one", 100, 20, limit=1.0, delivered=300), arm("ten", 101, 12, limit=10.0, delivered=300)
    assert judged(base, one, ten)["recommended"] == "ten"  # one takes more than half as long again
    one = arm("one", 100, 13, limit=1.0, delivered=300)
    assert judged(base, one, ten)["recommended"] == "one"  # times within 10 %
    ten = arm("ten", 101, 8, limit=10.0, delivered=250)
    assert judged(base, one, ten)["recommended"] == "one"


def test_an_arm_off_in_flux_or_position_or_rolled_back_is_not_recommended():
    good = arm("one", 100, 10, limit=1.0)
    for bad in ({"flux": 0.75}, {"offset": (3.0, 1.0)}, {"status": "diverged"}, {"status": "no_improvement"}):
        assert judged(arm("base", 500, 5, **bad), good)["recommended"] == "one"
        assert judged(arm("base", 500, 5, **bad))["recommended"] is None
    assert judged(arm("base", 500, 5, flux=None), good)["recommended"] == "base"


def test_a_zero_baseline_divides_nothing():
    found = judged(arm("base", 0.0, 10), arm("one", 100, 10, limit=1.0), before=0.0)
    assert verdicts(found)[1] == "cannot be said"
    assert verdicts(found)[5] == "cannot be said"


def test_standard_error_of_a_signal_to_noise():
    """Against the scatter of the MAD of Gaussian noise."""
    rng = np.random.default_rng(5)
    found = [mad_rms(rng.standard_normal((20, 20)).astype(np.float32)) for _ in range(3000)]
    assert np.std(found) / np.mean(found) == pytest.approx(snr_uncertainty(400), rel=0.06)


def test_the_older_name_is_the_same_command(tiny, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "compare_selfcal_strategies.py"
    command = [sys.executable, str(script), str(tiny / "t.ms"), str(tmp_path / "o"), "--arms", "first"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no arm 'first'" in done.stderr
