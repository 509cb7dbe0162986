"""Products removed by age and verdict; observations renamed and forgotten."""

import json
import os
import shutil
from pathlib import Path

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import PipelineConfig, RetentionRule, parse_retention
from dsa110_contimg.errors import ConfigError, InputError
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.job import process, read_record
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.state_care import rebuild
from dsa110_contimg.pipeline.upkeep import prune, rename
from dsa110_contimg.visibilities.lock import lock_beside

DAY = 86400.0


def record(o, status="done", ended=0.0, **more):
    verdict = {"quality": "good", "reasons": [], "seeded": True, "fallback": None} if status == "done" else {}
    told = {"run_id": o.run_id, "status": status, "message": "m", "started": 0.0, "finished": ended}
    return {**told, "seconds": {}, "versions": {"dsa110-contimg": "0.1.0"}, **verdict, **more}


@pytest.fixture
def kept(tmp_path):
    """Four observations with products: good, bad, failed and queued, ended 10 days before Unix time 1e9."""
    with State(tmp_path / "s.sqlite3") as state:
        for k, kind in enumerate(("good", "bad", "failed", "queued")):
            ms = tmp_path / f"{kind}.ms"
            ms.mkdir()
            state.add(kind, ms, tmp_path / "out", float(k))
            o = state.find(ms)
            (o.folder / "seeded" / "g1.gcal").mkdir(parents=True)
            (o.folder / "notes").mkdir()
            files = ("job.json", "record.json", "image.fits", "log.jsonl", "seeded/final-image.fits")
            for name in (
                *files,
                "seeded/selfcal_summary.json",
                "seeded/g1.gcal/table.dat",
                "notes/mine.fits",
            ):
                (o.folder / name).write_bytes(bytes(1000))
            if kind != "queued":
                state.start(o)
                status = "failed" if kind == "failed" else "done"
                more = {"quality": kind} if status == "done" else {}
                state.finish(o, record(o, status, 1e9 - 10 * DAY, **more))
        yield state


def left(state, name):
    folder = next(o.folder for o in state.observations() if o.name == name)
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


ALL = {
    *("job.json", "record.json", "image.fits", "log.jsonl", "seeded/final-image.fits", "notes/mine.fits"),
    *("seeded/selfcal_summary.json", "seeded/g1.gcal/table.dat"),
}


def test_images_go_and_the_published_one_stays(kept):
    rules = parse_retention("any:images:5d")
    said = list(prune(kept, rules, dry_run=True, now=1e9))
    assert [(p.observation.name, p.what, p.n_files, p.n_bytes) for p in said] == [
        (name, "images", 1, 1000) for name in ("good", "bad", "failed")
    ]
    assert left(kept, "good") == ALL
    assert list(prune(kept, rules, now=1e9)) == said
    for name in ("good", "bad", "failed"):
        assert left(kept, name) == ALL - {"seeded/final-image.fits"}
    assert left(kept, "queued") == ALL
    assert {o.name: o.pruned for o in kept.observations()}["good"] == "images"
    assert list(prune(kept, rules, now=1e9)) == []
    assert kept.event_counts()["pruned"] == 3


def test_products_go_by_verdict_and_age_and_the_record_stays(kept):
    rules = parse_retention("bad:products:9d, good:products:11d, failed:images:1h")
    gone = {p.observation.name: p.what for p in prune(kept, rules, now=1e9)}
    assert gone == {"bad": "products", "failed": "images"}
    assert left(kept, "bad") == {"job.json", "record.json"}
    assert left(kept, "good") == ALL
    # The rule that removes most, and more later.
    rules = parse_retention("any:images:1h,any:products:2h")
    assert {p.observation.name for p in prune(kept, rules, now=1e9)} == {"good", "failed"}


def test_nothing_outside_is_reached(kept, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.fits").write_bytes(b"1")
    good, bad = (kept.find(tmp_path / f"{name}.ms").folder for name in ("good", "bad"))
    shutil.rmtree(good / "seeded")
    (good / "seeded").symlink_to(outside)
    shutil.rmtree(bad)
    bad.symlink_to(outside)
    list(prune(kept, parse_retention("any:products:1h"), now=1e9))
    assert (outside / "kept.fits").exists()
    assert not (good / "seeded").is_symlink()


def test_what_is_in_use_or_cannot_be_removed_is_left_and_said(kept, tmp_path):
    rules = parse_retention("good:products:1h")
    other = os.fork()
    if not other:
        with lock_beside(tmp_path / "good.ms", "contimg selfcal"):
            (tmp_path / "locked").touch()
            while (tmp_path / "locked").exists():
                pass
        os._exit(0)
    while not (tmp_path / "locked").exists():
        pass
    (said,) = prune(kept, rules, now=1e9)
    (tmp_path / "locked").unlink()
    os.waitpid(other, 0)
    assert "contimg selfcal" in said.kept
    assert left(kept, "good") == ALL


def test_rules(monkeypatch):
    assert parse_retention("any:images:12h,") == (RetentionRule("any", "images", 43200.0),)
    for wrong in ("", "good:images", "good:images:5", "best:images:5d", "good:logs:5d", "good:images:-5d"):
        with pytest.raises(ValueError, match="no rule"):
            parse_retention(wrong)
    monkeypatch.setenv("CONTIMG_RETENTION", "good:images:5")
    with pytest.raises(ConfigError, match="is no rule"):
        PipelineConfig.load(None, {})


def test_the_command(kept, tmp_path, capfd):
    words = ["prune", "--state-file", str(kept.path)]
    assert main(words) == 2
    assert "no rules are given" in capfd.readouterr().err
    (tmp_path / "contimg.toml").write_text('retention = "any:images:1d"\nworkers = 2\n')
    words += ["--config", str(tmp_path / "contimg.toml")]
    assert main([*words, "--dry-run"]) == 0
    assert (
        capfd.readouterr()
        .out.splitlines()[-1]
        .startswith("3 files of 3 observations would be removed, 0.000 GB")
    )
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["pruned"]) == 3
    assert main(["status", str(tmp_path / "good.ms"), "--state-file", str(kept.path), "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["pruned"], shown["version"]) == ("images", "0.1.0")
    assert [e["event"] for e in shown["history"]][-1] == "pruned"


def test_what_was_pruned_is_done_and_is_made_anew_on_request(make_ms, config, tmp_path):
    ms, out = make_ms(), tmp_path / "out"
    with State(config.state_file) as state:
        driver = Driver(state, out, config)
        driver.add(ms)
        o = state.find(ms)
        state.start(o)
        state.finish(o, process(driver._job(o)))
        list(prune(state, parse_retention("any:products:1h"), now=2e9 + DAY * 36500))
        assert left(state, o.name) == {"job.json", "record.json"}
        assert read_record(driver._job(o))["status"] == "done"
        assert not driver.add(ms)
        (again,) = state.retry([state.find(ms)])
        state.start(again)
        state.finish(again, process(driver._job(again)))
        assert (o.folder / "image.fits").exists()
        assert state.find(ms).pruned == ""


def test_a_renamed_observation_is_known_by_its_new_name(kept, tmp_path, capfd):
    old, new = tmp_path / "good.ms", tmp_path / "better.ms"
    with pytest.raises(InputError, match="is still there"):
        rename(kept, old, new)
    words = ["rename", str(old), str(new), "--state-file", str(kept.path)]
    old.rename(new)
    (kept.find(old).folder / "job.json").write_text(json.dumps({"run_id": "r", "ms": str(old)}))
    assert main(words) == 2
    assert "internal error" not in capfd.readouterr().err
    shutil.rmtree(new)
    shutil.copytree(Path(os.environ["TINY"]), new)
    assert main(words) == 0, capfd.readouterr().err
    o = kept.find(new)
    assert (o.name, o.status, o.folder) == ("better", "done", tmp_path / "out" / "good")
    assert json.loads((o.folder / "job.json").read_text())["ms"] == str(new)
    assert kept.known(old) is None
    assert main(words) == 2
    assert "unknown to the pipeline" in capfd.readouterr().err


@pytest.fixture(autouse=True)
def tiny_path(tiny, monkeypatch):
    monkeypatch.setenv("TINY", str(tiny / "tiny.ms"))


def test_a_forgotten_observation_counts_as_new(kept, tmp_path, capfd):
    ms = tmp_path / "good.ms"
    assert main(["forget", str(ms), "--state-file", str(kept.path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"forgotten": [str(ms)]}
    assert kept.known(ms) is None
    assert kept.add("good", ms, tmp_path / "out", 0.0)
    assert main(["forget", str(tmp_path / "none.ms"), "--state-file", str(kept.path)]) == 2


def test_products_of_a_folder_that_was_moved(make_ms, config, tmp_path):
    """The state lies in the folder, and moves with it."""
    first, second = make_ms("2026-01-25T00:00:00.ms"), make_ms("2026-01-25T01:00:00.ms")
    out = tmp_path / "out"
    with State(out / "pipeline.sqlite3") as state:
        driver = Driver(state, out, config)
        for ms in (first, second):
            driver.add(ms)
        o = state.find(first)
        state.start(o)
        state.finish(o, process(driver._job(o)))
    moved = out.rename(tmp_path / "moved")
    with State(moved / "pipeline.sqlite3") as state:
        Driver(state, moved, config).run()
        assert {o.name: o.folder.parent for o in state.observations()} == {
            "2026-01-25T00:00:00": moved,
            "2026-01-25T01:00:00": moved,
        }
        assert {o.status for o in state.observations()} == {"done"}
    assert not out.exists()
    made = rebuild(tmp_path / "moved" / "pipeline.sqlite3", [moved])
    assert (made.finished, made.unreadable) == (2, ())


def test_products_that_are_away_are_not_taken_for_pruned(kept, tmp_path, capfd):
    out = tmp_path / "out"
    out.rename(tmp_path / "away")
    out.mkdir()
    words = ["prune", "--retention", "any:images:1d", "--state-file", str(kept.path)]
    assert main(words) == 2
    said = capfd.readouterr()
    assert "could not be pruned" in said.err
    assert "is not there" in said.out
    out.rmdir()
    (tmp_path / "away").rename(out)
    assert main(words) == 0
    assert left(kept, "good") == ALL - {"seeded/final-image.fits"}


def test_what_failed_again_is_pruned_again(kept, tmp_path):
    rules = parse_retention("failed:products:1h")
    ms = tmp_path / "failed.ms"
    for _ in range(2):
        assert [p.observation.name for p in prune(kept, rules, now=1e9)] == ["failed"]
        (again,) = kept.retry([kept.find(ms)])
        (again.folder / "log.jsonl").write_bytes(b"1")
        kept.start(again)
        kept.finish(again, record(again, "failed", 1e9 - DAY))


def test_a_rebuilt_state_knows_whole_paths(make_ms, config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with State(out / "s.sqlite3") as state:
        driver = Driver(state, out, config)
        driver.add(make_ms())
        o = state.next_queued()
        state.start(o)
        state.finish(o, process(driver._job(o)))
    monkeypatch.chdir(tmp_path)
    rebuild(Path("out/s.sqlite3"), [Path("out")])
    with State(out / "s.sqlite3") as state:
        assert [o.folder.parent for o in state.observations()] == [out]


def test_a_name_that_cannot_be_noted_changes_nothing(kept, tmp_path, capfd):
    old, new = tmp_path / "good.ms", tmp_path / "better.ms"
    shutil.rmtree(old)
    shutil.copytree(Path(os.environ["TINY"]), new)
    (kept.find(old).folder / "job.json").write_text("no json")
    assert main(["rename", str(old), str(new), "--state-file", str(kept.path)]) == 2
    assert "cannot be brought up to date" in capfd.readouterr().err
    assert kept.known(old) is not None
    assert kept.known(new) is None
