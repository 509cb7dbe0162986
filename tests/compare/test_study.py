import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.compare.run import folder_lock
from dsa110_contimg.compare.study import grid_points, run_study
from dsa110_contimg.compare.study_page import Ratio, write_page
from dsa110_contimg.compare.study_report import write_study_report
from dsa110_contimg.config import StudyConfig
from dsa110_contimg.errors import ConfigError, ResourceError
from tests.browser import require_no_grave_barrier
from tests.report.html_check import checked

ONE_VALUE = {"amplitude_errors": "0.1", "flux_errors": "0.03", "position_errors": "0.5", "decs": "54.57"}
TINY = {
    **{"phase_errors": "40", "brightest": "1,3", "draws": 1, "limit_arms": "", "workers": 1, **ONE_VALUE},
    **{"radius_m": 400.0, "every": 4, "study_channels": 4, "study_dumps": 2},
    **{"study_size": 256, "study_cell_arcsec": 24.0, "study_rounds": 3},
}


def test_the_grid_has_every_point_and_each_axis_by_itself():
    config = StudyConfig()
    points = grid_points(config)
    assert len({p.name for p in points}) == len(points) == 3 * (5 * 4 + 4)
    arms = [p.arms.split(",") for p in points]
    assert sum(len(a) == 5 for a in arms) == 3  # all flux limits at the middle of the map
    assert {len(a) for a in arms} == {2, 5}
    middle = next(p for p in points if len(p.arms.split(",")) == 5)
    assert (middle.values["phase"], middle.values["jy"]) == ("60", "1")
    for axis, value in (("amplitude", "0.3"), ("flux", "0.2"), ("position", "5"), ("dec", "16.27")):
        alone = [p for p in points if p.values[axis] == value]
        assert len(alone) == 3
        assert alone[0].values == {**middle.values, axis: value}


@pytest.mark.parametrize(
    "options",
    [{"phase_errors": "10,much"}, {"brightest": "1,1"}, {"brightest": "random"}, {"decs": ""}],
)
def test_wrong_lists(options):
    with pytest.raises(ConfigError):
        StudyConfig(**options)


@pytest.mark.parametrize("arms", ["nvss_1mJy", "nvss_1mJy,nvss_2mJy", "baseline_no_nvss"])
def test_the_map_needs_one_of_each(arms):
    with pytest.raises(ConfigError, match="one unseeded and one seeded"):
        grid_points(StudyConfig(map_arms=arms))


def flags(config):
    return [word for name, value in config.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_interrupted_and_resumed(tmp_path):
    """Killed after the first observation; the same command does the second and leaves the first alone."""
    out = tmp_path / "study"
    command = [sys.executable, "-m", "dsa110_contimg", "study", str(out), *flags(TINY)]
    environment = {**os.environ, "CONTIMG_SEFD_JY": "1e9"}  # must not reach the observations
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        for _ in range(1200):
            if list(out.glob("runs/*/run.json")) or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = list(out.glob("runs/*/run.json"))
    assert len(first) == 1, (tmp_path / "log").read_text()
    assert not (out / "study.json").exists()
    stamp = first[0].stat().st_mtime_ns
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 observations, 1 done already" in done.stderr
    told = json.loads(done.stdout)
    assert (told["observations"], told["failed"]) == (2, 0)
    assert first[0].stat().st_mtime_ns == stamp
    assert not list(out.glob("runs/*/work"))
    for run in told["runs"]:
        assert run["status"] == "completed"
        assert set(run["arms"]) == {"baseline_no_nvss", "nvss_1.0mJy"}
        seeded = run["arms"]["nvss_1.0mJy"]
        assert seeded["truth"]["phase_error_deg"] < 5 < run["start"]["phase_error_deg"]
        assert run["true_gains"]["deep"]["snr"] > 0
    page = (out / "study.md").read_text()
    assert "2 observations, 2 completed, 0 failed" in page
    assert f"| {told['runs'][0]['arms']['nvss_1.0mJy']['n_seeds']} to " in page
    for figure in re.findall(r"\]\((.*?\.png)\)", page):
        assert (out / figure).stat().st_size > 1000
    report = checked((out / "report.html").read_text("utf-8"))
    links = [a["href"] for a in report.all("a") if a["href"].startswith("./")]
    assert len(links) == 2
    assert all("Criteria" in checked((out / link).read_text("utf-8")).text for link in links)


def test_folders_and_options_that_make_no_study(tmp_path):
    """Refused before anything is simulated, and nothing is written."""
    table = tmp_path / "t.ms"
    table.mkdir()
    (table / "table.dat").touch()
    with pytest.raises(ResourceError, match="lies inside the table"):
        run_study(table / "study", StudyConfig(**TINY))
    assert list(table.iterdir()) == [table / "table.dat"]
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be made"):
        run_study(tmp_path / "file", StudyConfig(**TINY))
    with pytest.raises(ConfigError, match="leaves 1 antennas, fewer than 5"):
        run_study(tmp_path / "study", StudyConfig(**{**TINY, "radius_m": 4.0}))
    assert not (tmp_path / "study").exists()
    with folder_lock(tmp_path / "study", wait=False), pytest.raises(ResourceError, match="works in this"):
        run_study(tmp_path / "study", StudyConfig(**TINY), warm=True)


def test_an_observation_that_fails_is_accounted_for(tmp_path, capfd):
    """No image has pixels that large: the process of each observation ends with an error."""
    options = {**TINY, "brightest": "1", "study_cell_arcsec": 500.0}
    config = StudyConfig(**options)
    runs = run_study(tmp_path / "study", config, warm=True)
    assert [c["status"] for c in runs] == ["failed"]
    assert runs[0]["reason"]
    assert main(["study", str(tmp_path / "study"), *flags(options)]) == 3
    err = capfd.readouterr().err.splitlines()[-1]
    assert err.startswith("error: ")
    assert "1 of 1 observations failed, the first: " in err
    write_page(tmp_path / "p.md", config, runs, "contimg study")
    page = (tmp_path / "p.md").read_text()
    assert "1 observations, 0 completed, 1 failed" in page
    assert runs[0]["reason"] in page


def made_up(phase, jy, draw, ours, theirs):
    """A record with figures of merit that are known."""

    def arm(scale):
        metrics = {"snr": 100 * scale, "thermal_ratio": 1 / scale}
        return {
            **{"status": "completed", "run_status": "improved", "reason": "", "n_seeds": 3},
            "figures": dict.fromkeys(("shallow", "subtracted", "delivered"), metrics),
            "seconds": {"total": 10.0},
            "truth": {"phase_error_deg": 1 / scale, "offset_arcsec": [0.0, 3 / scale]},
        }

    values = {"phase": phase, "jy": jy, "amplitude": "0.1", "flux": "0.03", "position": "0.5", "dec": "54.57"}
    arms = {"baseline_no_nvss": arm(theirs), "nvss_1.0mJy": arm(ours)}
    return {"values": values, "draw": draw, "status": "completed", "arms": arms, "reason": ""}


def test_the_page_says_who_wins(tmp_path):
    config = StudyConfig(**{**TINY, "phase_errors": "10,60", "brightest": "1", "draws": 3})
    runs = [made_up("10", "1", k, 1.0 + 0.01 * k, 1.0 + 0.01 * (2 - k)) for k in range(3)]
    runs += [made_up("60", "1", k, 2.0 + 0.01 * k, 1.0) for k in range(2)]
    broken = made_up("60", "1", 2, 2.0, 1.0)
    dead = {"status": "failed", "run_status": None, "figures": None, "seconds": None, "reason": "no luck"}
    broken["arms"]["baseline_no_nvss"] |= dead
    broken["arms"]["baseline_no_nvss"].pop("truth")
    write_page(tmp_path / "p.md", config, [*runs, broken], "contimg study")
    page = (tmp_path / "p.md").read_text()
    assert "seeded better at 1 of 2 points of the map, unseeded at 0, no difference at 1" in page
    assert re.search(r"\| 60 \| 2 \(1\.\d to 2\.\d\) \*\*S\*\* \|", page)
    assert re.search(r"\| 10 \| 1 \(\S+ to \S+\) \|", page)
    assert "draw 2, baseline_no_nvss: no luck" in page
    assert "| baseline_no_nvss | 6 | 5 | 0 | 0 | 0 | 0 | 1 | 0 |" in page
    assert "leaves the sky 3.00 arcsec off in the median, seeded 2.22 arcsec" in page


def test_confidence_interval_of_a_ratio():
    """Covers the truth as often as it says."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(4000):
        r = Ratio.of(np.exp(0.4 + 0.2 * rng.standard_normal(3)))
        inside += r.low < math.exp(0.4) < r.high
    assert inside / 4000 == pytest.approx(0.95, abs=0.015)
    assert Ratio.of([2.0]).verdict == "neither"
    assert Ratio.of([math.nan, 2.0, 2.1]).n == 2
    assert Ratio.of([]).n == 0


def test_the_report_has_the_maps_in_colour_and_links_to_what_is_kept(tmp_path, show):
    config = StudyConfig(**{**TINY, "phase_errors": "10,60", "brightest": "1", "draws": 3})
    runs = [made_up("10", "1", k, 1.0 + 0.01 * k, 1.0 + 0.01 * (2 - k)) for k in range(3)]
    runs += [made_up("60", "1", k, 2.0 + 0.01 * k, 1.0) for k in range(3)]
    kept = tmp_path / "runs" / "phase60_jy1_amplitude0.1_flux0.03_position0.5_dec54.57_draw2"
    kept.mkdir(parents=True)
    (kept / "report.html").touch()
    write_page(tmp_path / "study.md", config, runs, "contimg study <b>")
    text = write_study_report(tmp_path, tmp_path / "study.md", runs).read_text("utf-8")
    page = checked(text)
    assert "Written by contimg study <b> from the records" in page.text
    assert len(page.all("img")) == 2
    assert [a["href"] for a in page.all("a") if a["href"].startswith("./")] == [
        f"./runs/{kept.name}/report.html"
    ]
    # The head of a row of the map, then its one cell: seeded better where the interval says so.
    assert re.search(r'<th scope="row">60</th><td class="won">2 \(\S+ to \S+\) <strong>S</strong></td>', text)
    assert re.search(r'<th scope="row">10</th><td>1 \(\S+ to \S+\)</td>', text)
    for width, scheme in ((1280, "light"), (390, "dark")):
        shown = show(tmp_path, width, scheme)
        assert shown.evaluate("() => document.documentElement.scrollWidth") <= width
        require_no_grave_barrier(shown)
