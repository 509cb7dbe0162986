"""The verdict."""

import pytest

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.pipeline.quality import judge, key_figures

GOOD = {
    "snr_gain": 3.0,
    "snr": 300.0,
    "rms_jy": 3e-4,
    "thermal_ratio": 1.1,
    "flux_ratio": 0.98,
    "offset_arcsec": 0.2,
    "solved_fraction": 0.99,
}


def test_good():
    verdict = judge("improved", GOOD, PipelineConfig())
    assert (verdict.quality, verdict.reasons) == ("good", ())
    assert judge("converged", GOOD, PipelineConfig()).quality == "good"


@pytest.mark.parametrize(
    ("figure", "value", "option", "limit", "says"),
    [
        ("thermal_ratio", 6.0, "max_thermal_ratio", 7.0, "6.00 x thermal"),
        ("flux_ratio", 0.75, "max_flux_error", 0.3, "flux ratio 0.750"),
        ("flux_ratio", 1.25, "max_flux_error", 0.3, "flux ratio 1.250"),
        ("offset_arcsec", 4.0, "max_offset_arcsec", 5.0, "4.00 arcsec"),
        ("solved_fraction", 0.6, "min_solved_fraction", 0.5, "60 % solved"),
    ],
)
def test_each_limit_counts_and_can_be_moved(figure, value, option, limit, says):
    figures = GOOD | {figure: value}
    verdict = judge("improved", figures, PipelineConfig())
    assert verdict.quality == "bad"
    assert says in verdict.reasons[0]
    assert judge("improved", figures, PipelineConfig(**{option: limit})).quality == "good"


def test_figures_that_could_not_be_measured_say_nothing():
    assert judge("improved", dict.fromkeys(GOOD), PipelineConfig()).quality == "good"


@pytest.mark.parametrize(
    ("status", "quality"), [("diverged", "bad"), ("refused", "kept"), ("no_improvement", "kept")]
)
def test_statuses(status, quality):
    assert judge(status, GOOD | {"thermal_ratio": 99.0}, PipelineConfig()).quality == quality


def test_the_solved_fraction_is_that_of_what_was_kept():
    final = {"snr": 1.0, "rms_jy": 1.0, "thermal_ratio": None, "flux_ratio": None, "offset_arcsec": [3, -4]}
    rounds = [{"accepted": True, "solved_fraction": 0.9}, {"accepted": False, "solved_fraction": 0.1}]
    summary = {"final": final, "iterations": rounds, "snr_improvement": 2.0}
    figures = key_figures(summary)
    assert figures["solved_fraction"] == 0.9
    assert figures["offset_arcsec"] == 5.0
    assert key_figures(summary | {"iterations": rounds[1:]})["solved_fraction"] == 0.1
    assert key_figures(summary | {"iterations": []})["solved_fraction"] is None
