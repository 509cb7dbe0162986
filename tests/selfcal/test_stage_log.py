import json
from datetime import UTC, datetime

import pytest

from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.stage_log import StageRecords


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_stage_leaves_a_line_when_it_ends(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text("of an earlier run\n")
    with StageRecords(LogProgress()) as records:
        records.note("seed: 3 sources")
        assert list(records.track([1, 2], 2, "predict")) == [1, 2]
        records.note("7 found")
        records.write_to(path)
        assert [r["stage"] for r in lines(path)] == ["check"]
        list(records.track([1], 1, "predict"))
        list(records.track([1], 1, "image"))
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
    def fail(records):
        records.write_to(tmp_path / "s.jsonl")
        raise ValueError("no\ngood")

    with pytest.raises(ValueError), StageRecords(LogProgress()) as records:
        fail(records)
    assert lines(tmp_path / "s.jsonl")[0]["error"] == "no good"


def test_a_record_never_fails_a_run(tmp_path, caplog):
    with StageRecords(LogProgress()) as records:
        (tmp_path / "gone").mkdir()
        records.write_to(tmp_path / "gone" / "s.jsonl")
        (tmp_path / "gone" / "s.jsonl").unlink()
        (tmp_path / "gone").rmdir()
    assert "no record" in caplog.text
