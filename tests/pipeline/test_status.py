"""What an operator sees of a year."""

import json
import sqlite3
from pathlib import Path

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.pipeline.state import State

#: Observations of a year, and their distance in seconds.
YEAR, APART_S = 102_200, 309.0
FIRST = 1_767_225_600.0  # 2026-01-01


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """A state file after a year: one in a hundred failed, one in fifty bad, one unverified."""
    path = tmp_path_factory.mktemp("year") / "s.sqlite3"
    State(path).close()

    def row(k):
        status = "failed" if k % 100 == 7 else "done"
        quality = "" if status == "failed" else "bad" if k % 50 == 3 else "unverified" if k == 500 else "good"
        name, at = f"o{k:06d}", FIRST + APART_S * k
        return name, f"/in/{name}.ms", f"/out/{name}", at, status, "r", at, f"it was {status}", quality, True

    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO observation"
            " (name, ms, folder, observed_at, status, run_id, queued_at, message, quality, seeded)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(row, range(YEAR)),
        )
    db.close()
    return path


@pytest.fixture
def status(year, capfd):
    def ask(*words):
        capfd.readouterr()
        code = main(["status", "--state-file", str(year), *words])
        out, err = capfd.readouterr()
        assert code == 0, err
        return out

    return ask


def names(said):
    return [o["observation"] for o in json.loads(said)["observations"]]


def test_the_latest_first(status):
    lines = status().splitlines()
    assert lines[0] == "101178 done, 1022 failed; published: 2044 bad, 99133 good, 1 unverified"
    rows = [line for line in lines if line.strip().startswith("o")]
    assert len(rows) == 21  # the head of the table too
    assert rows[1].split()[0] == "o102199"
    assert "the latest 20; --last N or --all shows more" in lines[-1]


def test_what_needs_a_hand(status):
    assert names(status("--failed", "--last", "3", "--json")) == ["o102107", "o102007", "o101907"]
    assert names(status("--bad", "--last", "2", "--json")) == ["o102153", "o102103"]
    assert "o000500" in names(status("--bad", "--all", "--json"))
    both = names(status("--bad", "--failed", "--last", "4", "--json"))
    assert both == ["o102153", "o102107", "o102103", "o102053"]
    since = names(status("--since", "2026-12-31", "--all", "--json"))
    assert since[-1] == f"o{-(-364 * 86400 // 309):06d}"
    # Whatever the zone that it is given in.
    assert names(status("--since", "2026-12-31T02:00+02:00", "--all", "--json")) == since


def test_what_is_to_be_made_anew_is_chosen_by_date_verdict_and_version(year, tmp_path, capfd):
    path = tmp_path / "s.sqlite3"
    path.write_bytes(year.read_bytes())
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE observation SET version = '0.2' WHERE observed_at > ? AND status = 'done'",
            (FIRST + 300 * 86400,),
        )
        db.execute("UPDATE observation SET seeded = 0 WHERE id = 11")
        db.execute("UPDATE observation SET status = 'reverted' WHERE id = 4")
    db.close()

    def chosen(*words):
        capfd.readouterr()
        assert main(["retry", "--state-file", str(path), *words, "--json"]) == 0, capfd.readouterr().err
        return [Path(ms).stem for ms in json.loads(capfd.readouterr().out)["queued"]]

    dry = ["--dry-run"]
    assert chosen("--verdict", "bad", "--until", "2026-01-02", *dry)[:3] == ["o000053", "o000103", "o000153"]
    assert chosen("--verdict", "unverified", *dry) == ["o000500"]
    assert chosen("--unseeded", *dry) == ["o000010"]
    assert len(chosen("--made-by", "0.2", "--verdict", "bad", *dry)) == 366
    day = chosen("--since", "2026-01-31", "--until", "2026-02-01", *dry)
    assert (len(day), day[0]) == (279, "o008389")
    assert len(chosen(*dry)) == 1022
    assert chosen("--verdict", "bad,unverified", "--until", "2026-01-01T06:00", "--priority", "-1") == [
        "o000053"
    ]
    with State(path) as state:
        (queued,) = state.observations("queued")
    assert (queued.name, queued.priority) == ("o000053", -1)
    assert main(["retry", "--state-file", str(path), "--verdict", "great"]) == 2
    assert "is no verdict: great" in capfd.readouterr().err
    assert main(["retry", "/in/o000001.ms", "--state-file", str(path), "--unseeded"]) == 2


@pytest.mark.parametrize("given", ["yesterday", "12", "2026-13-01"])
def test_dates_that_are_none(year, capfd, given):
    assert main(["status", "--state-file", str(year), "--since", given]) == 2
    assert f"is no date: {given}; give 2026-01-25" in capfd.readouterr().err


def test_names_and_messages_are_shown_as_they_are(tmp_path, capfd, monkeypatch):
    """Whole, whatever the width of the terminal, and not taken for markup."""
    monkeypatch.setenv("COLUMNS", "80")
    path, name = tmp_path / "s.sqlite3", "2026-01-25T22:26:05_" + "x" * 90
    with State(path) as state:
        state.add(name, Path(f"/in/{name}.ms"), Path("/out/br[/x]ket"), 0.0)
        state.requeue(state.next_queued(), "worker_lost", "/out/br[/x]ket: [bold]gone")
    assert main(["status", "--state-file", str(path)]) == 0
    said = capfd.readouterr().out
    assert name in said
    assert "/out/br[/x]ket: [bold]gone" in said


def test_without_a_state_file(capfd, monkeypatch):
    monkeypatch.delenv("CONTIMG_STATE_FILE", raising=False)
    assert main(["status"]) == 2
    assert "no state file is named; give --state-file OUTDIR/pipeline.sqlite3" in capfd.readouterr().err


def test_a_glob_that_matches_nothing(tmp_path, capfd):
    state = str(tmp_path / "s.sqlite3")
    assert main(["run", str(tmp_path / "2026*.ms"), str(tmp_path / "out"), "--state-file", state]) == 2
    assert "2026*.ms': matches nothing" in capfd.readouterr().err


def test_one_observation_is_told_in_words(year, status):
    said = status("/in/o000003.ms")
    lines = dict(line.split("  ", 1) for line in said.splitlines() if "  " in line.strip())
    told = {name: text.strip() for name, text in lines.items()}
    assert told["Measurement Set"] == "/in/o000003.ms"
    assert told["verdict"] == "bad"
    assert told["seeded"] == "yes"
    assert told["noise over thermal"] == "-"
    assert told["observed"] == "2026-01-01 00:15:27 UTC"
    assert not any("_" in name for name in lines)
    assert json.loads(status("/in/o000003.ms", "--json"))["thermal_ratio"] is None
