"""A job is a list of stages: functions of one shape, each in a file of its own or made of such."""

import inspect
from pathlib import Path

import pytest

from dsa110_contimg.selfcal import seeded, stages, unseeded
from dsa110_contimg.selfcal.stages import run_stages
from dsa110_contimg.selfcal.state import CalState, Outcome
from tests.selfcal.support import gain_errors, hashed, open_data

LISTS = {"seeded": seeded, "unseeded": unseeded}
ALL = [*seeded.STAGES, *unseeded.STAGES, *unseeded.PHASES, *unseeded.AMPLITUDES]


@pytest.mark.parametrize("stage", ALL, ids=lambda stage: stage.__name__)
def test_a_stage_reads_data_state_options_and_log(stage):
    signature = inspect.signature(stage)
    assert list(signature.parameters) == ["data", "state", "config", "log"]
    assert all(p.default is p.empty for p in signature.parameters.values())
    assert signature.return_annotation == "CalState"


@pytest.mark.parametrize("stage", ALL, ids=lambda stage: stage.__name__)
def test_a_stage_has_a_file_or_is_made_of_such_as_have(stage):
    home = inspect.getmodule(stage)
    if Path(home.__file__).parent == Path(stages.__file__).parent:
        assert stage.__name__ in home.__all__
        return
    assert home in LISTS.values()
    used = {home.__dict__.get(name) for name in stage.__code__.co_names}
    parts = [f for f in used if (getattr(f, "__module__", None) or "").startswith(f"{stages.__name__}.")]
    assert parts or run_stages in used


def test_every_file_of_stages_is_in_a_job():
    files = {p.stem for p in Path(stages.__file__).parent.glob("*.py")} - {"__init__"}
    prefix = f"{stages.__name__}."
    used = {
        value.__module__.removeprefix(prefix)
        for job in LISTS.values()
        for value in vars(job).values()
        if inspect.isfunction(value) and value.__module__.startswith(prefix)
    }
    assert used == files


def test_stages_end_where_one_says_how(data, start, stage_config, log):
    calls = []

    def stage(data, state, config, log):
        calls.append(len(calls))
        outcome = Outcome("refused", "") if len(calls) == 2 else None
        return CalState(weights=state.weights, outcome=outcome)

    state = run_stages([stage] * 4, data, start, stage_config, log)
    assert calls == [0, 1]
    assert state.outcome.status == "refused"


@pytest.mark.parametrize("job", LISTS)
def test_no_stage_changes_what_was_read(job, observed, data, solved, stage_config, log):
    """A whole run in memory, from the first stage to the verdict."""
    config, initial = stage_config, ()
    if job == "unseeded":
        config = stage_config.with_options(use_nvss_seeding=False)
        initial = (*solved.last.tables, gain_errors(data, 40.0))
    mine = open_data(observed, config, initial)
    before = hashed(mine)
    start = CalState(weights=mine.nominal_weights())
    state = run_stages(LISTS[job].STAGES, mine, start, config, log)
    assert state.outcome.status == "improved"
    assert hashed(mine) == before
    assert start.weights.n_outliers == 0
    assert (start.weights.noise_factor == 1).all()
