"""What a binary can do, and how options are said to it."""

import numpy as np
import pytest

from dsa110_contimg.config import ImagingConfig
from dsa110_contimg.errors import ConfigError, WSCleanError
from dsa110_contimg.imaging import ImageGrid, RestoringBeam
from dsa110_contimg.imaging.grid import ARCSEC
from dsa110_contimg.imaging.wsclean.arguments import Capabilities, detect_capabilities, wsclean_arguments
from tests.imaging.wsclean.support import fake

GRID = ImageGrid(512, 3 * ARCSEC, 2.5, 0.9)


ALL = frozenset(
    [
        "-abs-mem",
        "-auto-mask",
        "-auto-threshold",
        "-beam-shape",
        "-channels-out",
        "-fit-spectral-pol",
        "-gridder",
        "-j",
        "-join-channels",
        "-make-psf",
        "-mgain",
        "-multiscale",
        "-name",
        "-niter",
        "-nmiter",
        "-no-update-model-required",
        "-pol",
        "-reorder",
        "-scale",
        "-size",
        "-temp-dir",
        "-threshold",
        "-weight",
    ]
)


def test_capabilities_of_the_real_one(wsclean):
    found = detect_capabilities(wsclean)
    assert found.version.startswith("3.")
    for option in (
        "-predict",
        "-no-update-model-required",
        "-auto-mask",
        "-fits-mask",
        "-abs-mem",
        "-reorder",
    ):
        assert found.has(option), option
    assert not found.has("-no-such-option")
    if found.version.startswith("3.1"):
        assert not found.has("-draw-model")
        assert not found.has("-gridder")
        with pytest.raises(ConfigError, match=r"WSClean 3.1.* has no -draw-model"):
            found.require("-draw-model", "predict")


def test_what_is_not_wsclean_is_told(tmp_path):
    with pytest.raises(WSCleanError, match="does not answer like WSClean"):
        detect_capabilities(fake(tmp_path, "echo hello"))


def test_options_are_said_in_its_words():
    config = ImagingConfig(
        robust=0.5, memory_gb=3, threads=2, multiscale=True, channels_out=4, spectral_terms=2
    )
    beam = RestoringBeam(20 * ARCSEC, 10 * ARCSEC, np.radians(30))
    said = wsclean_arguments(config, GRID, Capabilities("3.6", ALL), thermal_rms_jy=1e-4, beam=beam)
    text = " ".join(said)
    for part in (
        "-size 512 512 -scale 3asec",
        "-abs-mem 3 -j 2",
        "-weight briggs 0.5",
        "-gridder wgridder",
        "-threshold 0.0003 -auto-threshold 3 -auto-mask 5",
        "-beam-shape 20asec 10asec 30deg",
        "-multiscale",
        "-channels-out 4 -join-channels",
        "-fit-spectral-pol 2",
        "-no-update-model-required -reorder",
    ):
        assert part in text, part
    older = Capabilities("3.1", ALL - {"-gridder"} | {"-use-wgridder"})
    assert "-use-wgridder" in wsclean_arguments(config, GRID, older, thermal_rms_jy=1e-4)
    with pytest.raises(ConfigError, match=r"WSClean 2\.0 has no -multiscale"):
        wsclean_arguments(config, GRID, Capabilities("2.0", ALL - {"-multiscale"}), thermal_rms_jy=1e-4)


@pytest.mark.parametrize(
    ("threshold", "said", "not_said"),
    [
        ("0.1mJy", "-threshold 0.0001 -auto-mask 5", "-auto-threshold"),
        ("6sigma", "-threshold 0.0006 -auto-threshold 6", "-auto-mask"),
        (None, "-threshold 0.0003 -auto-threshold 3 -auto-mask 5", "zzz"),
    ],
)
def test_trap_23_depths_with_units(threshold, said, not_said):
    config = ImagingConfig(threshold=threshold)
    text = " ".join(wsclean_arguments(config, GRID, Capabilities("3.6", ALL), thermal_rms_jy=1e-4))
    assert said in text
    assert not_said not in text
