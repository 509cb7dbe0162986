"""The steps of docs/how-to/rollout-and-rollback.md with their switches, on one observation."""

import pytest

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.job import Job, process
from dsa110_contimg.pipeline.rollout import in_rollout
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.visibilities.measurement_set import data_hash
from tests.pipeline.conftest import assert_same_columns, columns


def test_every_step_and_back(contimg, make_ms, tiny, tmp_path, monkeypatch):
    out, ms = tmp_path / "out", make_ms()
    before, hashed = columns(ms), data_hash(ms)
    assert not in_rollout(ms.stem, 0.1)
    for name, value in {"CATALOG_DIR": tiny / "c", "SIZE": 256, "THREADS": 1}.items():
        monkeypatch.setenv(f"CONTIMG_{name}", str(value))
    with State(tmp_path / "pipeline.sqlite3") as state:
        Driver(state, out, PipelineConfig.load()).add(ms)

        def step(**variables):
            """Queue again and run with these variables, as the service does after its file has changed."""
            o = state.find(ms)
            if o.status != "queued":
                contimg.here("retry", ms)
                o = state.find(ms)
            with monkeypatch.context() as changed:
                for name, value in variables.items():
                    changed.setenv(f"CONTIMG_{name}", str(value))
                config = PipelineConfig.load()
            state.start(o)
            record = process(Job(o.run_id, o.name, o.ms, o.folder, config))
            state.finish(o, record)
            return record, (out / ms.stem / "image.fits").read_bytes()

        nothing, unseeded_image = step(ROLLOUT=0)
        assert (nothing["mode"], nothing["seeded"]) == ("unseeded", False)
        shadow, shadow_image = step(ROLLOUT=1, SHADOW=1)
        assert (shadow["mode"], shadow["published"]) == ("shadow", "unseeded")
        assert shadow_image == unseeded_image
        gains = {arm: shadow["arms"][arm]["figures"]["snr_gain"] for arm in ("seeded", "unseeded")}
        assert gains["seeded"] > gains["unseeded"]
        all_of_them, seeded_image = step(ROLLOUT=1)
        assert (all_of_them["mode"], all_of_them["published"]) == ("seeded", "seeded")
        assert seeded_image != unseeded_image
        # Undo: stop it, publish the unseeded image instead, put the Measurement Set back.
        off, image = step(USE_NVSS_SEEDING=0, ROLLOUT=1)
        assert (off["mode"], off["published"]) == ("unseeded", "unseeded")
        assert image == unseeded_image
        assert "restored" in contimg.here("revert", ms)
        assert_same_columns(columns(ms), before)
        assert data_hash(ms) == hashed
        assert state.find(ms).status == "reverted"
        assert state.next_queued() is None
        with pytest.raises(AssertionError):
            contimg.here("status", tmp_path / "other.ms")
