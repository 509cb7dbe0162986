import json
from datetime import UTC, datetime

import pytest

from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.stage_log import StageLog


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_stage_leaves_a_line_when_it_ends(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text("of an earlier run\n")
    with StageLog(LogProgress()) as log:
        log.note("seed: 3 sources")
        assert list(log.track([1, 2], 2, "predict")) == [1, 2]
        log.note("7 found")
        log.write_to(path)
        assert [r["stage"] for r in lines(path)] == ["check"]
        list(log.track([1], 1, "predict"))
        list(log.track([1], 1, "image"))
        assert [r["stage"] for r in lines(path)] == ["check", "predict"]
    found = lines(path)
    assert [(r["stage"], r["noted"]) for r in found] == [
        ("check", ["seed: 3 sources"]),
        ("predict", ["7 found"]),
        ("image", []),
    ]
    starts = [datetime.fromisoformat(r["start"]) for r in found]
    assert starts == sorted(starts)
    assert 0 <= (datetime.now(UTC) - starts[0]).total_seconds() < 600
    assert all(r["seconds"] >= 0 and "error" not in r for r in found)


def test_a_stage_that_fails_says_why(tmp_path):
    def fail(log):
        log.write_to(tmp_path / "s.jsonl")
        raise ValueError("no\ngood")

    with pytest.raises(ValueError), StageLog(LogProgress()) as log:
        fail(log)
    assert lines(tmp_path / "s.jsonl")[0]["error"] == "no good"


def test_a_record_never_fails_a_run(tmp_path, caplog):
    with StageLog(LogProgress()) as log:
        (tmp_path / "gone").mkdir()
        log.write_to(tmp_path / "gone" / "s.jsonl")
        (tmp_path / "gone" / "s.jsonl").unlink()
        (tmp_path / "gone").rmdir()
    assert "no record" in caplog.text
