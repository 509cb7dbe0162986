"""The pipeline with its final images from a container."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.wsclean.container import _SHARED
from dsa110_contimg.pipeline.job import Job, process


def test_final_images_from_a_container_that_is_killed_between_them(engine, tiny, tmp_path):
    """Two runs share a container; the second has to start it again, and its record counts that."""
    config = PipelineConfig(
        catalog_dir=tiny / "c",
        size=256,
        threads=1,
        backend="container",
        container_engine=engine,
        container_mounts=str(tmp_path),
    )
    records = []
    for number in range(2):
        name = f"run{number}"
        ms = Path(shutil.copytree(tiny / "tiny.ms", tmp_path / "in" / f"{name}.ms"))
        record = process(Job(name, name, ms, tmp_path / "out" / name, config))
        assert record["status"] == "done", record["message"]
        assert record["published"] == "seeded"
        records.append(record)
        (shared,) = [c for c in _SHARED.values() if c.mounts[0].host == tmp_path]
        if number == 0:
            subprocess.run([engine, "kill", shared.container_name], check=True, capture_output=True)
    shared.stop()
    assert "container_restart" not in records[0]["events"]
    assert records[1]["events"]["container_restart"] == 1
    images = [read_image(record["image"]) for record in records]
    own = Job("own", "own", ms, tmp_path / "out" / "own", config.with_options(backend="embedded"))
    embedded = read_image(process(own)["image"])
    assert images[0].image.max() == pytest.approx(images[1].image.max(), rel=1e-4)
    assert images[0].image.max() == pytest.approx(embedded.image.max(), rel=0.01)
