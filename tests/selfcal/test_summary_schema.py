"""Summaries of runs that ended in every way have the form that is published, and nothing else has."""

import copy
import json

import jsonschema
import pytest

from dsa110_contimg.cli.main import main
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.summary_schema import STATUSES, Summary, summary_schema
from tests.selfcal.support import observe

#: Little to compute, for it is the form that is asked for: few antennas, dumps and sources.
TINY = {"antennas": 12, "dumps": 2, "min_mjy": 100.0}
#: What the start and the noise are like, options of the run, and how it ends. Other summaries are held
#: against the schema where they are made: tests/selfcal/test_run.py, tests/test_documents.py.
RUNS = {
    "nothing solved": ({"random_phases": True}, {"min_snr": 1e5}, "no_improvement"),
    "noise alone": ({"random_phases": True, "sefd_jy": 1e6}, {}, "refused"),
    "unseeded": ({"phase_rms": 20.0}, {"use_nvss_seeding": False, "max_rounds": 1}, "improved"),
}


@pytest.fixture(scope="module")
def valid():
    """The validator; the schema itself must be one."""
    schema = summary_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", RUNS)
def test_real_summaries_have_the_published_form(tmp_path, valid, name):
    simulated, options, status = RUNS[name]
    ms, config = observe(tmp_path, **(TINY | simulated))
    selfcal_ms(ms, tmp_path / "out", config.with_options(**options))
    summary = json.loads((tmp_path / "out" / "selfcal_summary.json").read_text())
    assert summary["status"] == status, summary["message"]
    assert [error.message for error in valid.iter_errors(summary)] == []
    # The schema says no to what it does not know and to what is missing.
    for change in ({"new_key": 1}, {"status": "splendid"}, {"n_seeds": -1}, {"schema_version": 3}):
        assert not valid.is_valid(summary | change), change
    for key in summary_schema()["required"]:
        assert not valid.is_valid({k: v for k, v in summary.items() if k != key}), key
    deeper = copy.deepcopy(summary)
    deeper["noise"]["new_key"] = 1
    assert not valid.is_valid(deeper)


def test_the_command_prints_the_schema(capsys):
    assert main(["config", "schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == summary_schema()
    assert printed["properties"]["status"]["enum"] == list(STATUSES)


def test_every_key_has_a_meaning():
    def walk(schema):
        for name, key in schema["properties"].items():
            assert "description" in key, name

    schema = summary_schema()
    for part in (schema, *schema["$defs"].values()):
        walk(part)
        assert part["additionalProperties"] is False
    assert set(schema["properties"]) == set(Summary.model_fields)
