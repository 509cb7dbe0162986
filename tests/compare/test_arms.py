import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dsa110_contimg.compare import compare_strategies, parse_arms
from dsa110_contimg.config import ComparisonConfig, SelfCalConfig
from dsa110_contimg.errors import ConfigError


def test_names_of_arms():
    arms = parse_arms("baseline_no_nvss, nvss_0.1mJy,nvss_30mJy")
    assert [a.seeded for a in arms] == [False, True, True]
    assert [a.limit_mjy for a in arms] == [None, 0.1, 30.0]
    masked, only, merged = parse_arms("masked_10.0mJy,mask_only_3.5mJy,merged_1mJy")
    assert (masked.seeded, only.seeded, merged.seeded) == (True, False, True)
    assert (masked.limit_mjy, only.limit_mjy, merged.limit_mjy) == (10.0, 3.5, 1.0)
    assert (masked.options["catalog_mask"], only.options["catalog_mask"]) == (True, True)
    assert merged.options["catalog"] == "merged"


def test_only_seeded_and_masked_arms_have_the_model_of_the_user(tmp_path):
    arms = parse_arms("baseline_no_nvss,nvss_1mJy,mask_only_3mJy")
    config = SelfCalConfig(model=tmp_path / "own.txt", model_fluxes="true")
    configs = [arm.configure(config, tmp_path) for arm in arms]
    assert [c.model is not None for c in configs] == [False, True, True]
    assert [c.use_nvss_seeding for c in configs] == [False, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "baseline",
        "nvss_mJy",
        "nvss_0.1",
        "nvss_-1mJy",
        "nvss_infmJy",
        "0.1mJy",
        "mask_1mJy",
        "masked_mJy",
    ],
)
def test_no_such_arm(text):
    with pytest.raises(ConfigError, match="arm"):
        parse_arms(text)


def test_an_arm_twice():
    with pytest.raises(ConfigError, match="twice"):
        parse_arms("nvss_1mJy,nvss_1mJy")


def test_baseline_is_truly_unseeded(compared, tiny, config):
    """The flux limit is not passed on, no catalogue is within reach, no round's model is the seed."""
    out, results, *_ = compared
    summary = json.loads((out / "baseline_no_nvss" / "selfcal_summary.json").read_text())
    used = summary["provenance"]["config"]
    assert used["use_nvss_seeding"] is False
    assert not Path(used["catalog_dir"]).exists()
    assert (summary["seeded"], summary["n_seeds"], summary["catalog"]) == (False, 0, None)
    assert {r["model"] for r in summary["iterations"]} == {"clean"}
    assert results["arms"][0]["n_seeds"] == 0


def test_seeded_arms_use_their_limit(compared):
    out, results, *_ = compared
    n_seeds = {a["name"]: a["n_seeds"] for a in results["arms"]}
    assert n_seeds["nvss_0.1mJy"] == n_seeds["nvss_1.0mJy"] > n_seeds["nvss_10.0mJy"] > 0
    for name in ("nvss_0.1mJy", "nvss_10.0mJy"):
        summary = json.loads((out / name / "selfcal_summary.json").read_text())
        assert summary["n_seeds"] == n_seeds[name]
        assert {r["model"] for r in summary["iterations"]} == {"seed"}


def test_identical_arms_run_once(compared):
    out, results, *_ = compared
    twin = results["arms"][2]
    assert (twin["status"], twin["identical_to"]) == ("identical", "nvss_0.1mJy")
    assert "above both limits" in twin["reason"]
    assert twin["figures"] == results["arms"][1]["figures"]
    assert not (out / "nvss_1.0mJy").exists()


def children(pid):
    return [
        int(p)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for p in (task / "children").read_text().split()
    ]


def test_an_arm_that_crashes_keeps_its_place(tiny, config, tmp_path, monkeypatch):
    """The process of the first arm is killed from outside while it works; the second is not disturbed."""
    monkeypatch.setenv("CONTIMG_USE_NVSS_SEEDING", "1")
    monkeypatch.setenv("CONTIMG_ROBUST", "1.7")
    config = config.with_options(robust=-1.0)
    killed = []

    def kill():
        for _ in range(600):
            here = [
                p for p in children(os.getpid()) if b"nvss_10.0mJy" in Path(f"/proc/{p}/cmdline").read_bytes()
            ]
            if here:
                os.kill(here[0], signal.SIGKILL)
                killed.append(here[0])
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=kill)
    watcher.start()
    arms = ComparisonConfig(arms="nvss_10.0mJy,baseline_no_nvss")
    results = compare_strategies(tiny / "t.ms", tmp_path / "out", config, arms, warm=True).results
    watcher.join()
    assert killed
    dead, alive = results["arms"]
    assert (dead["name"], dead["status"], dead["reason"]) == ("nvss_10.0mJy", "failed", "killed by SIGKILL")
    assert (dead["limit_mjy"], dead["n_seeds"] > 0, dead["figures"]) == (10.0, True, None)
    assert alive["status"] == "completed"
    assert alive["figures"]["shallow"]["snr"] > 0
    # Variables of the environment do not reach an arm, whose options are all settled.
    used = json.loads((tmp_path / "out/baseline_no_nvss/selfcal_summary.json").read_text())["provenance"]
    assert (used["config"]["use_nvss_seeding"], used["config"]["robust"]) == (False, -1.0)
    verdicts = {c["name"]: c for c in results["verdict"]["criteria"]}
    assert verdicts["all arms complete"]["verdict"] == "no"
    assert "killed by SIGKILL" in verdicts["all arms complete"]["evidence"]
    assert "nvss_10.0mJy" in (tmp_path / "out" / "comparison_report.txt").read_text()
    # The same call again runs what failed, and nothing else.
    kept = (tmp_path / "out" / "baseline_no_nvss" / "arm.json").stat().st_mtime_ns
    again = compare_strategies(tiny / "t.ms", tmp_path / "out", config, arms, warm=True).results
    assert [a["status"] for a in again["arms"]] == ["completed", "completed"]
    assert (tmp_path / "out" / "baseline_no_nvss" / "arm.json").stat().st_mtime_ns == kept


def test_an_arm_that_hangs_is_ended(tiny, config, tmp_path):
    arms = ComparisonConfig(arms="nvss_10.0mJy", arm_limit_s=0.3)
    results = compare_strategies(tiny / "t.ms", tmp_path / "out", config, arms, warm=True).results
    assert results["arms"][0]["status"] == "hung"
    assert "no end within 0.3 s" in results["arms"][0]["reason"]
    verdicts = {c["name"]: c["verdict"] for c in results["verdict"]["criteria"]}
    assert (verdicts["no hangs"], verdicts["all arms complete"]) == ("no", "no")
    assert results["before"] is None
    assert results["verdict"]["recommended"] is None
    assert not (tmp_path / "out" / "nvss_10.0mJy" / "pristine.ms").exists()


def test_a_mask_for_all_arms_finds_its_catalogue_and_keeps_its_radius(tmp_path):
    common = SelfCalConfig(catalog_dir=tmp_path / "c", catalog_mask=True, mask_radius_arcsec=90.0)
    baseline, seeded, masked = parse_arms("baseline_no_nvss,nvss_1.0mJy,masked_1.0mJy")
    for arm in (baseline, seeded, masked):
        made = arm.configure(common, tmp_path / "arm")
        assert (made.catalog_dir, made.mask_radius_arcsec) == (tmp_path / "c", 90.0)
    bare = baseline.configure(common.with_options(catalog_mask=False), tmp_path / "arm")
    assert bare.catalog_dir != tmp_path / "c"
    assert bare.mask_radius_arcsec is None
