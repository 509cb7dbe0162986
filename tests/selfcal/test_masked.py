"""Masked self-calibration, by the script that users run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.imaging import read_image
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_selfcal_masked.py"
GRID = ["--size", "512", "--cell", "20"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    options = {
        "antennas": 12,
        "channels": 4,
        "dumps": 2,
        "sefd_jy": 500.0,
        "random_phases": True,
        "drift": False,
    }
    simulate(folder / "t.ms", SimulationConfig(array=COMPACT, **options))
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    return folder


def run(tiny, outdir, *flags):
    command = [sys.executable, SCRIPT, tiny / "t.ms", outdir, "--catalog-dir", tiny / "c", *GRID, *flags]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def test_components_lie_around_the_catalogue(tiny, tmp_path):
    done = run(tiny, tmp_path / "out", "--min-mjy", "100", "--imaging", "standard", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["status"] == "improved"
    assert summary["products"]["mask"] == "selfcal-mask.fits"
    mask = read_image(tmp_path / "out" / "selfcal-mask.fits").image
    model = read_image(tmp_path / "out" / "final-model.fits").image
    assert 0 < mask.mean() < 0.5
    assert model.any()
    assert not model[mask == 0].any()
    again = run(tiny, tmp_path / "small", "--min-mjy", "100", "--mask-radius-arcsec", "40")
    assert again.returncode == 0, again.stderr
    assert np.sum(read_image(tmp_path / "small" / "selfcal-mask.fits").image) < mask.sum()


def test_the_catalogue_can_be_a_mask_and_no_seed(tiny, tmp_path):
    done = run(tiny, tmp_path / "out", "--no-seed", "--min-mjy", "100", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["seeded"], summary["n_seeds"], summary["catalog"]) == (False, 0, None)
    assert summary["products"]["mask"] == "selfcal-mask.fits"
    mask = read_image(tmp_path / "out" / "selfcal-mask.fits").image
    assert not read_image(tmp_path / "out" / "final-model.fits").image[mask == 0].any()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--mask-radius-arcsec", "1"], "mask_radius_arcsec: a radius of 1 arcsec is less than half a pixel"),
        (["--mask-radius-arcsec", "-1"], "mask_radius_arcsec"),
    ],
)
def test_refusals(flags, says, tiny, tmp_path):
    done = run(tiny, tmp_path / "out", *flags)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_the_script_tells_its_use():
    told = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "OBS.ms OUTDIR" in told.stdout
