"""Whole comparisons."""

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.compare import compare_strategies
from dsa110_contimg.compare.run import folder_lock
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


def test_the_older_name_is_the_same_command(tiny, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "compare_selfcal_strategies.py"
    command = [sys.executable, str(script), str(tiny / "t.ms"), str(tmp_path / "o"), "--arms", "first"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no arm 'first'" in done.stderr
