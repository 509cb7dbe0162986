"""What a day brought."""

import json

import pytest

from dsa110_contimg.cli import report as words
from dsa110_contimg.cli.main import main
from dsa110_contimg.cli.report import day_lines
from dsa110_contimg.pipeline import state as module
from dsa110_contimg.pipeline.day_report import FIGURES, MACHINERY, day_report
from dsa110_contimg.pipeline.state import State

BEGIN, DAY = 1_767_225_600.0, 86400.0  # 2026-01-01


@pytest.fixture
def day(tmp_path, monkeypatch):
    """A state with a day of which everything is known, and runs of the days before and after."""
    clock = [BEGIN]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    with State(tmp_path / "s.sqlite3") as state:

        def end(name, at, status="done", **more):
            state.add(name, tmp_path / f"{name}.ms", tmp_path, at)
            o = state.find(tmp_path / f"{name}.ms")
            clock[0] = at
            state.start(o)
            verdict = {"quality": "good", "reasons": [], "seeded": True, "fallback": None, "figures": {}}
            verdict = verdict if status == "done" else {}
            seconds = {"total": 10.0}
            told = {"status": status, "message": f"{name} {status}", "started": at, "finished": at}
            state.finish(o, {**told, "seconds": seconds, **verdict, **more})

        end("before", BEGIN - 1)
        clock[0] = BEGIN - 1
        state.pause("the disk is full")
        clock[0] = BEGIN + 10
        state.go_on()
        for k in range(20):
            end(f"good{k:02d}", BEGIN + 100 + k, figures={"thermal_ratio": 1.0 + k / 100, "snr": None})
        end("poor", BEGIN + 200, quality="bad", reasons=["noise 9 x thermal"], seeded=False, fallback="noise")
        end("unknown", BEGIN + 201, quality="unverified", reasons=["flux not measured"])
        end("broken", BEGIN + 202, status="failed")
        clock[0] = BEGIN + 300
        state.note("refused", "'x.ms': a link")
        state.note("worker_lost", "its worker died")
        state.pause("the catalogue is away")
        clock[0] = BEGIN + DAY
        end("after", BEGIN + DAY)
        state.add("waits", tmp_path / "waits.ms", tmp_path, BEGIN)
        yield state


def test_all_of_a_day_and_nothing_else(day):
    found = day_report(day, BEGIN, BEGIN + DAY)
    assert found["runs"] == {"good": 20, "bad": 1, "unverified": 1, "failed": 1}
    assert found["seeded"] == 21
    assert found["failed"] == [["broken", "broken failed"]]
    assert found["bad"] == [["poor", "noise 9 x thermal"]]
    assert found["unverified"] == [["unknown", "flux not measured"]]
    assert found["fallbacks"] == [["poor", "noise"]]
    assert found["refused"] == [["", "'x.ms': a link"]]
    assert found["pauses"] == [
        [BEGIN - 1, BEGIN + 10, "the disk is full"],
        [BEGIN + 300, None, "the catalogue is away"],
    ]
    assert found["machinery"] == {"worker_lost": 1}
    assert found["figures"]["thermal_ratio"]["median"] == pytest.approx(1.095)
    assert found["figures"]["thermal_ratio"]["p95"] == pytest.approx(1.1805)
    assert found["figures"]["snr"] is None
    assert found["seconds"]["n"] == 22
    assert (found["waiting"], found["oldest_waiting"]) == (1, "waits")


def test_what_needs_a_hand_is_told(day, capfd):
    assert main(["report", "--day", "2026-01-01", "--state-file", str(day.path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "2026-01-01 00:00 to 2026-01-02 00:00 UTC"
    assert "23 runs ended: 1 bad, 1 failed, 20 good, 1 unverified" in lines[1]
    assert "PAUSED 2026-01-01 00:05:00 to now: the catalogue is away" in lines
    assert "FAILED broken: broken failed" in lines
    assert "BAD poor: noise 9 x thermal" in lines
    assert "FELL BACK poor: noise" in lines
    assert "refused: 'x.ms': a link" in lines
    assert "1 workers died" in lines
    assert any(line.startswith("noise over thermal: 1.095 (5 to 95 %: 1.0") for line in lines)
    assert main(["report", "--day", "2026-01-01", "--state-file", str(day.path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(day_report(day, BEGIN, BEGIN + DAY)))
    for wrong in ("2026-13-01", "monday", ""):
        assert main(["report", f"--day={wrong}", "--state-file", str(day.path)]) == 2
        assert "is no day" in capfd.readouterr().err


def test_a_day_on_which_nothing_happened(day):
    lines = list(day_lines(day_report(day, BEGIN - 10 * DAY, BEGIN - 9 * DAY)))
    assert lines[1] == "0 arrived, 0 runs ended"


def test_all_that_is_counted_has_its_words():
    assert set(words.FIGURES) == set(FIGURES)
    assert set(words.MACHINERY) == set(MACHINERY)
