"""Flags, environment, file and defaults reach the solver in a worker; config show tells where from."""

import json
import shutil

from dsa110_contimg.cli.main import main
from dsa110_contimg.config import PipelineConfig, SelfCalConfig
from dsa110_contimg.pipeline.job import process
from tests.pipeline.conftest import log_lines


def summary(out, ms, arm="seeded"):
    return json.loads((out / ms.stem / arm / "selfcal_summary.json").read_text())


def test_every_override_reaches_the_solver(contimg, make_ms, tmp_path, monkeypatch):
    """One run with options from each source, the others as they are."""
    file = tmp_path / "contimg.toml"
    file.write_text('robust = 0.5\nsolint = "int"\nmin_snr = 4.0\nnvss_min_mjy = 50.0\nworkers = 1\n')
    ms, out = make_ms(), tmp_path / "out"
    variables = {"CONTIMG_SOLINT": "inf", "CONTIMG_MIN_SNR": "3.5", "CONTIMG_THREADS": "1"}
    words = ("--config", file, "--min-snr", 3.0, "--amplitude", "off")
    assert contimg.run("run", ms, out, *words, **variables)[0] == 0, contimg.errors()
    found = summary(out, ms)
    used = found["provenance"]["config"]
    wanted = {
        "min_snr": 3.0,  # flag before variable and file
        "amplitude": "off",  # flag
        "solint": "inf",  # variable before file
        "threads": 1,  # variable
        "size": 256,  # variable of the fixture
        "robust": 0.5,  # file
        "nvss_min_mjy": 50.0,  # file
    }
    assert {k: used[k] for k in wanted} == wanted
    rest = set(SelfCalConfig.model_fields) - set(wanted) - {"catalog_dir"}
    defaults = SelfCalConfig().model_dump(mode="json")
    assert {k: used[k] for k in rest} == {k: defaults[k] for k in rest}
    # And it took effect: phases only, one interval for all, fewer seeds.
    assert found["seeded"]
    assert [i["calmode"] for i in found["iterations"]] == ["p"]
    assert found["iterations"][0]["solint_s"] > 25
    assert 0 < found["n_seeds"] < 400
    # config show says the same for the same words.
    for name, value in {**variables, "CONTIMG_SIZE": "256"}.items():
        monkeypatch.setenv(name, value)
    shown = json.loads(contimg.here("config", "show", *words, "--json"))
    assert {k: shown[k]["value"] for k in wanted} == wanted
    sources = {k: shown[k]["source"] for k in (*wanted, "rollout")}
    assert sources == {
        "min_snr": "flag",
        "amplitude": "flag",
        "solint": "CONTIMG_SOLINT",
        "threads": "CONTIMG_THREADS",
        "size": "CONTIMG_SIZE",
        "robust": str(file),
        "nvss_min_mjy": str(file),
        "rollout": "default",
    }
    assert set(shown) == set(PipelineConfig.model_fields)
    assert "CONTIMG_SOLINT" in contimg.here("config", "show", *words)


def test_one_variable_turns_seeding_off_in_the_workers(contimg, make_ms, tmp_path):
    ms, out = make_ms(), tmp_path / "out"
    metrics = tmp_path / "m.prom"
    words = ("--metrics-file", metrics)
    given = {"CONTIMG_USE_NVSS_SEEDING": 0, "CONTIMG_LIGHT_CURVES": 0}
    assert contimg.run("run", ms, out, *words, **given)[0] == 0, contimg.errors()
    assert not list(out.parent.rglob("lightcurves.sqlite3"))
    found = summary(out, ms, "unseeded")
    assert (found["seeded"], found["n_seeds"], found["catalog"]) == (False, 0, None)
    assert not (out / ms.stem / "seeded").exists()
    assert 'contimg_runs_total{quality="bad",seeded="false",status="done"} 1.0' in metrics.read_text()
    lines = log_lines(out / "pipeline.jsonl")
    (run_id,) = {line["run_id"] for line in lines if "run_id" in line}
    assert run_id == json.loads((out / ms.stem / "record.json").read_text())["run_id"]


def test_tables_are_looked_for_where_it_was_said(make_job, tmp_path):
    job = make_job(caltable_dir=tmp_path)
    shutil.copytree(job.ms, tmp_path / f"{job.name}_bpcal")
    record = process(job)
    assert record["status"] == "failed"
    assert f"{job.name}_bpcal" in record["message"]


def test_wrong_values_name_themselves(tmp_path, monkeypatch, capfd):
    for variable, value, says in (
        ("CONTIMG_ROLLOUT", "2", "CONTIMG_ROLLOUT (rollout): '2' is not allowed; input should be less than"),
        ("CONTIMG_WORKERS", "many", "allowed: at least 1, at most 1024"),
        ("CONTIMG_MARKER", "../x", "CONTIMG_MARKER (marker)"),
        ("CONTIMG_SLURM_WALLTIME", "long", "CONTIMG_SLURM_WALLTIME (slurm_walltime)"),
    ):
        monkeypatch.setenv(variable, value)
        assert main(["run", str(tmp_path / "a.ms"), str(tmp_path / "out")]) == 2
        assert says in capfd.readouterr().err
        assert not (tmp_path / "out").exists()
        monkeypatch.delenv(variable)
