"""One Measurement Set through all stages."""

import html
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from casacore.tables import table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import ImagingConfig, PipelineConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import CalTableError, MeasurementSetError
from dsa110_contimg.imaging import read_image
from dsa110_contimg.pipeline.job import Job, _Work, process, revert
from dsa110_contimg.pipeline.naming import check_name, find_caltables, observed_at
from dsa110_contimg.pipeline.quality import headline
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.data_identity import data_identity
from dsa110_contimg.visibilities.measurement_set import data_hash
from dsa110_contimg.visibilities.tables import open_table
from tests.pipeline.conftest import OPTIONS, assert_same_columns, columns, log_lines


@pytest.fixture(scope="module")
def unseeded(tiny, tmp_path_factory):
    """A run without seeding on a pristine copy: its folder and the columns it left."""
    folder = tmp_path_factory.mktemp("unseeded")
    ms = Path(shutil.copytree(tiny / "tiny.ms", folder / "plain.ms"))
    config = PipelineConfig(catalog_dir=tiny / "c", size=256, threads=1, use_nvss_seeding=False)
    record = process(Job("plain", "plain", ms, folder / "out", config))
    assert record["status"] == "done"
    assert not record["seeded"]
    return folder / "out", columns(ms)


def without_flag_copies(found):
    return {k: v for k, v in found.items() if not k.startswith("CONTIMG_OLD_FLAG")}


def test_seeding_is_on_by_default_and_all_is_recorded(make_job):
    job = make_job()
    before = columns(job.ms)
    record = process(job)
    assert record["status"] == "done", record["message"]
    assert (record["mode"], record["published"], record["seeded"]) == ("seeded", "seeded", True)
    assert record["arms"]["seeded"]["n_seeds"] > 100
    assert record["quality"] == "good"
    assert record["figures"]["thermal_ratio"] > 0
    assert record["seconds"]["total"] > record["seconds"]["image"] > 0
    assert set(record["versions"]) >= {"dsa110-contimg", "numpy", "python"}
    assert record["config"]["catalog_dir"] == str(job.config.catalog_dir)
    assert json.loads((job.folder / "record.json").read_text()) == record
    assert (job.folder / "image.fits").read_bytes() == (
        job.folder / "seeded" / "final-image.fits"
    ).read_bytes()
    antennas = record["arms"]["seeded"]["antennas"]
    assert len({name for names in antennas.values() for name in names}) == 12
    page = (job.folder / "seeded" / "report.html").read_text(encoding="utf-8")
    assert "Improved" in page
    assert '<a href="../../index.html">All observations</a>' in page
    assert "The pipeline judges it good" in page
    assert "The image of this run." in page
    lines = log_lines(job.folder / "log.jsonl")
    assert {line["run_id"] for line in lines} == {"run1"}
    assert [line["event"] for line in lines if "event" in line] == ["begin", "seeded_done", "end"]
    assert any("catalogue model: " in line["message"] for line in lines)
    assert_same_columns({k: v for k, v in columns(job.ms).items() if k in before}, before)


def test_what_tells_the_data_is_found_once_for_job_and_lists(make_job, monkeypatch):
    asked = []

    def counted(path):
        asked.append(path)
        return data_identity(path)

    for place in ("dsa110_contimg.pipeline.job", "dsa110_contimg.selfcal.run"):
        monkeypatch.setattr(f"{place}.data_identity", counted)
    job = make_job(shadow=True)
    record = process(job)
    assert asked == [job.ms]
    assert record["data_identity"] == data_identity(job.ms)
    listed = Table.read(job.folder / "seeded" / "sources.ecsv")
    assert listed.meta["data_identity"] == record["data_identity"]


def test_shadow_publishes_the_unseeded_image_bit_for_bit(make_job, unseeded):
    folder, written = unseeded
    job = make_job(shadow=True)
    record = process(job)
    assert (record["mode"], record["published"], record["fallback"]) == ("shadow", "unseeded", None)
    assert (job.folder / "image.fits").read_bytes() == (folder / "image.fits").read_bytes()
    assert_same_columns(columns(job.ms), written)
    assert record["arms"]["seeded"]["figures"]["snr_gain"] > record["arms"]["unseeded"]["figures"]["snr_gain"]
    assert (job.folder / "seeded" / "final-image.fits").exists()


def test_a_bad_verdict_falls_back_to_unseeded(make_job, unseeded, tmp_path):
    folder, written = unseeded
    job = make_job(max_thermal_ratio=1e-3)
    record = process(job)
    assert (record["mode"], record["published"], record["seeded"]) == ("seeded", "unseeded", False)
    assert "x thermal, allowed 0.001" in record["fallback"]
    assert (job.folder / "image.fits").read_bytes() == (folder / "image.fits").read_bytes()
    assert_same_columns(columns(job.ms), written)
    assert record["events"]["fallback"] == 1
    seeded, published = (
        html.unescape((job.folder / arm / "report.html").read_text(encoding="utf-8"))
        for arm in ("seeded", "unseeded")
    )
    assert "The pipeline judges it bad" in seeded
    assert "x thermal, allowed 0.001" in seeded
    assert "The image of the unseeded run instead, as it is bad." in seeded
    assert (
        f"FELL BACK to this unseeded run, as the seeded one was no good ({record['fallback']})" in published
    )
    # So it is with a model of the user's own, which no unseeded run starts from.
    shutil.copyfile(job.folder / "seeded" / "selfcal-seed.txt", tmp_path / "own.txt")
    own = make_job("run2", job.ms, model=tmp_path / "own.txt", max_thermal_ratio=1e-3, reimage=True)
    record = process(own)
    assert (record["mode"], record["published"], record["status"]) == ("seeded", "unseeded", "done")
    assert "x thermal, allowed 0.001" in record["fallback"]


def test_a_catalogue_of_another_sky_falls_back_and_says_so(make_job, unseeded, tmp_path):
    folder, written = unseeded
    mirrored = SimulationConfig(random_phases=True, catalog_error="mirror", **OPTIONS)
    simulate(tmp_path / "mirrored.ms", mirrored)
    build_strips("nvss", tmp_path / "mirrored.catalog.ecsv", tmp_path / "c")
    job = make_job(catalog_dir=tmp_path / "c")
    record = process(job)
    assert (record["published"], record["seeded"]) == ("unseeded", False)
    assert record["arms"]["seeded"]["selfcal_status"] == "refused"
    assert record["fallback"].startswith("the catalogue failed: ")
    (line,) = [e for e in log_lines(job.folder / "log.jsonl") if e.get("event") == "fallback"]
    assert line["message"].startswith("falls back to unseeded: the catalogue failed: ")
    assert (job.folder / "image.fits").read_bytes() == (folder / "image.fits").read_bytes()
    assert_same_columns(columns(job.ms), written)


def test_outside_the_catalogue_it_falls_back_and_says_so(make_job, tmp_path):
    """A run that could not be seeded is never reported as seeded, nor as good."""
    simulate(tmp_path / "north.ms", SimulationConfig(random_phases=True, **OPTIONS | {"dec": 12.0}))
    build_strips("nvss", tmp_path / "north.catalog.ecsv", tmp_path / "c")
    job = make_job(catalog_dir=tmp_path / "c")
    record = process(job)
    assert (record["status"], record["seeded"]) == ("done", False)
    assert record["quality"] != "good"
    assert "is not covered" in record["fallback"]
    assert f": FELL BACK to unseeded ({record['fallback']}): " in headline(record)
    assert "seeded" not in {p.name for p in job.folder.glob("*/final-image.fits")}
    refused = process(make_job("run2", job.ms, catalog_dir=tmp_path / "c", fallback=False))
    assert (refused["status"], refused["error"], refused["exit_code"]) == (
        "failed",
        "CatalogCoverageError",
        2,
    )


def test_a_repeated_job_goes_on_where_it_stopped(make_job):
    job = make_job(shadow=True)
    first = process(job)
    images = {arm: job.folder / arm / "final-image.fits" for arm in ("seeded", "unseeded")}
    times = {arm: image.stat().st_mtime_ns for arm, image in images.items()}
    assert process(job) == first
    # Killed before the record was written: nothing is calibrated again.
    (job.folder / "record.json").unlink()
    (job.folder / "seeded" / "report.html").unlink()
    resumed = process(job)
    assert resumed["figures"] == first["figures"]
    assert (job.folder / "seeded" / "report.html").is_file()
    assert {arm: image.stat().st_mtime_ns for arm, image in images.items()} == times
    # Killed in the second arm: the first stays, the second begins on what was found.
    (job.folder / "record.json").unlink()
    (job.folder / "unseeded" / "selfcal_summary.json").unlink()
    again = process(job)
    assert again["figures"] == pytest.approx(first["figures"])
    assert images["seeded"].stat().st_mtime_ns == times["seeded"]
    assert images["unseeded"].stat().st_mtime_ns > times["unseeded"]
    # Another run takes nothing over; here with tables that were given, and a bad verdict that is published.
    table = next((job.folder / "unseeded").glob("selfcal_1_*"))
    given = (Path(shutil.copytree(table, job.ms.with_name("given.gcal"))),)
    other = process(make_job("run2", job.ms, given, max_thermal_ratio=1e-3, fallback=False))
    assert (other["published"], other["quality"], other["fallback"]) == ("seeded", "bad", None)
    assert other["caltables"] == [str(given[0])]
    assert not images["unseeded"].exists()


def products(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix in (".fits", ".json") and p.name not in ("job.json", "failure.json")
    }


def test_good_products_stay_until_they_are_made_anew(make_job):
    job = make_job()
    first = process(job)
    assert first["quality"] == "good"
    good = products(job.folder)
    # The initial tables that are demanded now are not there.
    again = make_job("run2", job.ms, caltables="required")
    failed = process(again)
    assert (failed["status"], failed["error"]) == ("failed", "CalTableError")
    assert products(job.folder) == good
    assert process(again) == failed
    # The same for one that is moved away, and one that ends in the middle.
    away = job.ms.rename(job.ms.with_name("away.ms"))
    assert process(make_job("run3", job.ms))["status"] == "failed"
    away.rename(job.ms)
    killed = make_job("run4", job.ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Work, "_publish", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            process(killed)
    assert (job.folder / "earlier.run1" / "seeded" / "final-image.fits").exists()
    assert (job.folder / "image.fits").read_bytes() == good["image.fits"]
    assert process(make_job("run5", job.ms, caltables="required"))["status"] == "failed"
    assert products(job.folder) == good
    # What could not be removed of an older run is not taken for the products of the last one.
    shutil.copytree(job.folder / "seeded", job.folder / "earlier.run0" / "seeded")
    (job.folder / "earlier.run0" / "seeded" / "final-image.fits").unlink()
    assert process(make_job("run5b", job.ms, caltables="required"))["status"] == "failed"
    assert products(job.folder) == good
    # One that comes to its end takes their place.
    assert process(make_job("run6", job.ms))["status"] == "done"
    assert json.loads((job.folder / "record.json").read_text())["run_id"] == "run6"
    assert not list(job.folder.glob("earlier*"))
    assert not (job.folder / "failure.json").exists()


def test_data_of_another_measurement_set_are_not_written_through_a_reference(make_job, make_ms, tmp_path):
    outside = make_ms("outside.ms")
    before = columns(outside)
    arrived = tmp_path / "2026-01-25T22:26:05.ms"
    with table(str(outside), ack=False) as whole:
        whole.query("ANTENNA1 >= 0", name=str(arrived), limit=10**6).close()
    for name in ("ANTENNA", "FIELD", "OBSERVATION", "SPECTRAL_WINDOW", "POLARIZATION", "DATA_DESCRIPTION"):
        shutil.copytree(outside / name, arrived / name)
    record = process(make_job(ms=arrived))
    assert record["status"] == "failed"
    assert f"its data are those of {outside}" in record["message"]
    assert_same_columns(columns(outside), before)


def test_revert_puts_columns_and_flags_back(make_job):
    job = make_job()
    before = columns(job.ms)
    assert process(job)["status"] == "done"
    assert "CORRECTED_DATA" in columns(job.ms)
    with open_table(job.ms, writable=True) as main:
        main.putcol("FLAG", np.ones_like(before["FLAG"]))
        main.putcol("FLAG_ROW", np.ones_like(before["FLAG_ROW"]))
    assert set(revert(job.ms)) == {"MODEL_DATA", "CORRECTED_DATA", "FLAG", "FLAG_ROW"}
    assert_same_columns(columns(job.ms), before)
    assert revert(job.ms) == []


def test_an_observation_that_is_not_improved_is_left_alone(make_job):
    job = make_job(min_snr=1e6)
    before, hashed = columns(job.ms), data_hash(job.ms)
    record = process(job)
    assert (record["status"], record["quality"]) == ("done", "kept"), record["message"]
    assert_same_columns(columns(job.ms), before)
    assert data_hash(job.ms) == hashed


def test_a_new_image_of_the_corrected_data_can_be_published(make_job, unseeded):
    job = make_job(reimage=True)
    record = process(job)
    assert record["published"] == "seeded"
    made = job.folder / "seeded" / "published-image.fits"
    assert (job.folder / "image.fits").read_bytes() == made.read_bytes()
    own = read_image(job.folder / "seeded" / "final-image.fits").image
    assert 0 < np.abs(read_image(made).image - own).max() < 0.1 * own.max()


def test_initial_tables_by_the_naming_rule_reach_the_solver(make_job, make_ms, unseeded):
    folder, _ = unseeded
    ms = make_ms()
    stem = ms.name.removesuffix(".ms")
    table = next((folder / "unseeded").glob("selfcal_1_*"))
    for kind in ("gpcal", "bpcal"):
        shutil.copytree(table, ms.with_name(f"{stem}_0~23_{kind}"))
    shutil.copytree(table, ms.with_name(f"{stem}x_0~23_2gcal"))
    job = make_job(ms=ms)
    record = process(job)
    wanted = [str(ms.with_name(f"{stem}_0~23_{kind}")) for kind in ("bpcal", "gpcal")]
    assert record["caltables"] == wanted
    summary = json.loads((job.folder / "seeded" / "selfcal_summary.json").read_text())
    assert summary["provenance"]["initial_caltables"] == wanted


def test_the_naming_rule(tmp_path):
    ms = tmp_path / "2025-10-19T14:31:45.ms"
    assert find_caltables(ms, None, "found") == ()
    with pytest.raises(CalTableError, match="no initial table 2025-10-19T14:31:45_"):
        find_caltables(ms, None, "required")
    elsewhere = tmp_path / "tables"
    elsewhere.mkdir()
    names = [f"2025-10-19T14:31:45_{n}" for n in ("0~23_2gcal", "0~23_bpcal", "gpcal", "0~23_bpcal.plots")]
    for name in names:
        (elsewhere / name).mkdir()
    found = find_caltables(ms, elsewhere, "required")
    assert [p.name for p in found] == [names[1], names[2], names[0]]
    (elsewhere / "2025-10-19T14:31:45_3_bpcal").mkdir()
    with pytest.raises(CalTableError, match="2 initial tables of one kind"):
        find_caltables(ms, elsewhere, "found")
    assert find_caltables(ms, elsewhere, "none") == ()


@pytest.mark.parametrize(
    "name", ["../up.ms", "-rf.ms", ".hidden.ms", "a b.ms", "a;rm.ms", "a\nb.ms", "$(x).ms", "é.ms", ".ms"]
)
def test_names_from_outside_that_are_refused(name):
    ms = Path("/in") / name if "/" not in name else Path("/in/..") / ".ms"
    with pytest.raises(MeasurementSetError, match="is no name of an observation") as caught:
        check_name(ms)
    assert "\n" not in str(caught.value)
    with pytest.raises(MeasurementSetError):
        check_name(Path("/in") / ("x" * 201 + ".ms"))


def test_names_that_are_taken():
    assert check_name(Path("/in/2025-10-19T14:31:45.ms")) == "2025-10-19T14:31:45"
    assert check_name(Path("/in/3C48_beam-1+2.ms")) == "3C48_beam-1+2"


def test_the_time_of_an_observation_is_in_its_name(tmp_path):
    assert observed_at(tmp_path / "2025-10-19T14:31:45.ms") == 1760884305.0
    (tmp_path / "x.ms").mkdir()
    assert observed_at(tmp_path / "x.ms") == pytest.approx((tmp_path / "x.ms").stat().st_mtime)
    assert observed_at(tmp_path / "none.ms") == pytest.approx(time.time(), abs=60)


def test_a_folder_that_leads_elsewhere_is_refused(make_job, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "keep").write_text("precious")
    job = make_job()
    job.folder.mkdir(parents=True)
    (job.folder / "seeded").symlink_to(tmp_path / "victim")
    record = process(job)
    assert record["status"] == "failed"
    assert "is a symbolic link" in record["message"]
    assert (tmp_path / "victim" / "keep").read_text() == "precious"
    job.folder.rename(tmp_path / "moved")
    job.folder.symlink_to(tmp_path / "victim")
    assert "is a symbolic link" in process(job)["message"]
    assert sorted(p.name for p in (tmp_path / "victim").iterdir()) == ["keep"]


def test_no_shell_and_no_other_program_is_called():
    """File names from outside never meet a command line."""
    import ast

    import dsa110_contimg.pipeline

    for file in Path(dsa110_contimg.pipeline.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"subprocess", "pty", "shlex"} & set(names), file
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("system", "popen", "execv", "spawnv"), file


def test_every_option_of_the_pipeline_is_tried_somewhere():
    """Trap 6: an option that nothing reads. Each has a test, found by its name, that gives it a value."""
    own = set(PipelineConfig.model_fields) - set(SelfCalConfig.model_fields) - set(ImagingConfig.model_fields)
    text = "".join(p.read_text() for p in Path(__file__).parent.glob("*.py") if p.name != "test_config.py")
    flags = {name for name in own if f"--{name.replace('_', '-')}" in text}
    keywords = {name for name in own if f"{name}=" in text or f'"{name}"' in text}
    variables = {name for name in own if f"CONTIMG_{name.upper()}" in text}
    assert own == flags | keywords | variables
