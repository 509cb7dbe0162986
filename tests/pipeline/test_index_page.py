"""The page of all observations beside a pipeline, and of any folder."""

import json
import logging
import shutil
import time

import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.files import write_json
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.index_page import PageWriter, index_of_folder
from dsa110_contimg.pipeline.index_rows import published_of
from dsa110_contimg.pipeline.job import failure_record
from dsa110_contimg.pipeline.naming import JOB, claim
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.report import INDEX
from tests.pipeline.conftest import rows_on, wait_until
from tests.report.synthetic import write_run

NAMES = ("2026-01-25T22:26:05", "2026-01-26T22:26:05")


def done(run_id: str, finished: float, **parts) -> dict:
    """A record of a run that published something seeded."""
    figures = {"thermal_ratio": 1.2, "flux_ratio": 0.98, "snr_gain": 4.0, "offset_arcsec": 0.7}
    arm = {"selfcal_status": "improved", "antennas": {"noise": ["7"], "good": ["1", "2"]}}
    record = {"run_id": run_id, "status": "done", "started": finished - 60, "finished": finished}
    record |= {"published": "seeded", "seeded": True, "quality": "good", "reasons": [], "figures": figures}
    record |= {"message": "improved by round 1", "arms": {"seeded": arm}, "seconds": {"total": 60.0}}
    record |= {"versions": {"dsa110-contimg": "0.1.0"}, "config": PipelineConfig().model_dump(mode="json")}
    return record | parts


@pytest.fixture
def pipeline(tmp_path):
    """An output folder of two observations, one published with its report and one that has failed."""
    out = tmp_path / "out"
    out.mkdir()
    with State(out / "pipeline.sqlite3") as state:
        claim(out, state.path)
        for k, name in enumerate(NAMES):
            ms = tmp_path / f"{name}.ms"
            state.add(name, ms, out, 1.769e9 + 86400 * k)
            found = state.find(ms)
            record = done(found.run_id, 1.7691e9, ms=str(ms)) if k == 0 else None
            if k == 0:
                (found.folder / "seeded").mkdir(parents=True)
                (found.folder / "seeded" / "report.html").touch()
                write_json(found.folder / "record.json", record)
                write_json(found.folder / JOB, {"run_id": found.run_id, "ms": str(ms)})
            failed = {"run_id": found.run_id, "status": "failed", "message": "no strip", "started": 1.0,
                      "finished": 1.7692e9}  # fmt: skip
            state.finish(found, record or failed)
    return out


def test_state_and_records_give_the_same_page(pipeline):
    first = rows_on(index_of_folder(pipeline))
    published, failed = (first[name] for name in NAMES)
    assert published["link"] == "./2026-01-25T22%3A26%3A05/seeded/report.html"
    assert (published["status"], published["verdict"], published["seeded"]) == ("improved", "good", True)
    figures = [published[k] for k in ("thermal", "flux", "offset", "gain", "seconds")]
    assert figures == [1.2, 0.98, 0.7, 4.0, 60.0]
    assert (published["observed"], published["ended"]) == (1_769_000_000, 1_769_100_000)
    assert (failed["status"], failed["link"], failed["why"]) == ("failed", "", "no strip")
    text = (pipeline / INDEX).read_text("utf-8")
    assert "Not good at some time: 1 of 3 antennas" in text
    # Without its state the records say the same of what was published.
    (pipeline / "pipeline.sqlite3").unlink()
    (pipeline / ".contimg-state.json").unlink()
    known = rows_on(index_of_folder(pipeline))
    assert set(known) == {NAMES[0]}
    told = {k: v for k, v in published.items() if k != "observed"}
    assert {k: v for k, v in known[NAMES[0]].items() if k != "observed"} == told


def test_antennas_that_no_record_names_are_read_from_the_product(tmp_path, caplog):
    record = done("r", 1.0, arms={"seeded": {"selfcal_status": "improved"}})
    assert published_of(record, tmp_path).fields["antennas"] == {}
    (tmp_path / "seeded").mkdir()
    (tmp_path / "seeded" / "antennas.ecsv").write_text("# %ECSV 1.0\nantenna verdict\n7 noise\n1 good\n")
    assert published_of(record, tmp_path).fields["antennas"] == {"noise": ("7",), "good": ("1",)}
    assert not caplog.records
    (tmp_path / "seeded" / "antennas.ecsv").write_text("cut")
    assert published_of(record, tmp_path).fields["antennas"] == {}
    (tmp_path / "seeded" / "antennas.ecsv").write_text("antenna verdict\n7 odd\n")
    assert published_of(record, tmp_path).fields["antennas"] == {}
    assert "its antennas are left out" in caplog.text


def test_what_is_removed_keeps_its_row_without_a_link(pipeline, tmp_path):
    with State(pipeline / "pipeline.sqlite3") as state:
        state.note_pruned(state.find(tmp_path / f"{NAMES[0]}.ms"), "products", "")
    assert rows_on(index_of_folder(pipeline))[NAMES[0]]["link"] == ""
    with State(pipeline / "pipeline.sqlite3") as state:
        state.note_pruned(state.find(tmp_path / f"{NAMES[0]}.ms"), "images", "")
    assert rows_on(index_of_folder(pipeline))[NAMES[0]]["link"]
    shutil.rmtree(pipeline / NAMES[0])
    row = rows_on(index_of_folder(pipeline))[NAMES[0]]
    assert (row["link"], row["thermal"]) == ("", 1.2)


def test_what_is_published_stays_on_the_row_of_a_later_run_that_fails(pipeline, tmp_path):
    with State(pipeline / "pipeline.sqlite3") as state:
        state.retry([state.find(tmp_path / f"{NAMES[0]}.ms")])
        assert rows_on(index_of_folder(pipeline))[NAMES[0]]["status"] == "queued"
        state.finish(
            state.find(tmp_path / f"{NAMES[0]}.ms"),
            {"status": "failed", "message": "broken", "started": 1.0, "finished": 1.77e9},
        )
    row = rows_on(index_of_folder(pipeline))[NAMES[0]]
    assert (row["status"], row["verdict"], row["thermal"], row["why"]) == ("failed", "good", 1.2, "broken")
    assert row["link"]


def test_the_command_lists_single_runs_without_a_state(tmp_path, capfd):
    small = {"n_times": 4, "size": 32}
    write_run(tmp_path / "one" / NAMES[0], ["a", "b", "c"], field=NAMES[0], **small)
    unfinished = tmp_path / "two"
    unfinished.mkdir()
    line = {"stage": "read", "start": "2026-01-25T23:00:00+00:00", "seconds": 2.0, "error": "disk full"}
    (unfinished / "selfcal_stages.jsonl").write_text(json.dumps(line) + "\n")
    broken = tmp_path / "three"
    broken.mkdir()
    (broken / "selfcal_summary.json").write_text("{")
    assert main(["report", "--index", str(tmp_path)]) == 0
    assert capfd.readouterr().out == f"{tmp_path / INDEX}\n"
    rows = rows_on(tmp_path / INDEX)
    assert {name: row["status"] for name, row in rows.items()} == {
        ["2026-01-25T22:26:05", "one/2026-01-25T22:26:05)"][0]: "improved",
        "two": "failed",
        "three": "unreadable",
    }
    assert rows["two"]["why"] == "disk full"
    assert rows[NAMES[0]]["observed"] == 1769379965
    assert main(["report", "--index", str(tmp_path), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"index": str(tmp_path / INDEX)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--index"], "--index: needs a folder and no day"),
        (["--index", "{}", "--day", "today"], "--index: needs a folder and no day"),
        (["--index", "{}"], "holds no run"),
        (["--index", "{}/nowhere"], "is no folder"),
        (["--index", "{}", "--state-file", "{}/nowhere"], "no such state file"),
    ],
)
def test_what_gives_no_page_is_said_in_a_line(tmp_path, capfd, words, told):
    assert main(["report", *(w.format(tmp_path) for w in words)]) == 2
    err = capfd.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / INDEX).exists()


def test_a_driver_keeps_the_page_current(tmp_path, config, make_ms):
    """What fails at once stands on the page when the driver ends; nothing is written if it is not to be."""
    ms = make_ms()
    (ms / "table.dat").write_bytes(b"no table")
    for index_s, there in ((0.0, False), (3600.0, True)):
        out = tmp_path / f"out{index_s}"
        with State(tmp_path / f"{index_s}.sqlite3") as state:
            driver = Driver(state, out, config.with_options(index_s=index_s))
            driver.add(ms)
            with driver.page.kept_current():
                observation = state.find(ms)
                job = driver._job(observation)
                state.finish(observation, failure_record(job, time.time(), ValueError("broken")))
                driver.page.changed()
        assert (out / INDEX).exists() is there
    assert rows_on(out / INDEX)[NAMES[0]]["status"] == "failed"


def test_a_page_that_cannot_be_written_is_one_warning(pipeline, caplog, capfd):
    def told(*words):
        capfd.readouterr()
        assert main(["status", "--state-file", str(pipeline / "pipeline.sqlite3"), *words]) == 0
        return capfd.readouterr().out

    (pipeline / INDEX).write_text("mine")
    writer = PageWriter(pipeline / "pipeline.sqlite3", pipeline, PipelineConfig(index_s=0.01))
    with caplog.at_level(logging.WARNING), writer.kept_current():
        for _ in range(5):
            writer.changed()
            time.sleep(0.03)
        assert len(caplog.records) == 1
        assert "no page of all observations" in caplog.text
        assert "is no page of contimg" in caplog.text
        assert "index.html is not current since" in told()
        assert "is no page of contimg" in json.loads(told("--json"))["stale_page"]["why"]
        (pipeline / INDEX).unlink()
        writer.changed()
        wait_until(lambda: (pipeline / INDEX).exists(), "a page", 20)
    assert len(caplog.records) == 1
    assert "not current" not in told()
    assert json.loads(told("--json"))["stale_page"] is None
    # Another driver, which knows nothing of that, makes it again.
    with State(pipeline / "pipeline.sqlite3") as state:
        state.page_is_stale("the disk was full")
    with PageWriter(pipeline / "pipeline.sqlite3", pipeline, PipelineConfig()).kept_current():
        pass
    assert "not current" not in told()


def test_it_is_renewed_no_more_often_than_is_asked_for(pipeline):
    writer = PageWriter(pipeline / "pipeline.sqlite3", pipeline, PipelineConfig(index_s=3600.0))
    with writer.kept_current():
        wait_until(lambda: (pipeline / INDEX).exists(), "a page", 20)
        first = (pipeline / INDEX).stat().st_mtime_ns
        for _ in range(5):
            writer.changed()
            time.sleep(0.05)
        assert (pipeline / INDEX).stat().st_mtime_ns == first
    # At the end it is written once more.
    assert (pipeline / INDEX).stat().st_mtime_ns > first
