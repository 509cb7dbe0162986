"""The verdict."""

import pytest

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.pipeline.quality import judge, key_figures

FINAL = {
    "snr": 300.0,
    "rms_jy": 3e-4,
    "thermal_ratio": 1.1,
    "flux_ratio": 0.98,
    "offset_arcsec": [0.2, 0.0],
}
HELDOUT = {
    "tells": True,
    "recovered_fraction": 1.02,
    "recovered_error": 0.03,
    "n_sources": 40,
    "n_agreeing": 36,
}
ROUND = {"accepted": True, "solved_fraction": 0.99}
CONFIG = PipelineConfig()
#: What findings.py says of a sky that is not the catalogue's, and what is for information only.
CATALOGUE_FAILED = ("sky", "mirrored", "shifted", "rotated", "few", "beam_width")
INFORMATION = ("moved", "position", "scale", "extrapolated", "noise")


def summary_of(status="improved", final=(), heldout=(), findings=(), rounds=(ROUND,)):
    """A summary as a good run leaves it, with changes."""
    return {
        "status": status,
        "snr_improvement": 3.0,
        "final": FINAL | dict(final),
        "iterations": list(rounds),
        "heldout_sources": HELDOUT | dict(heldout),
        "findings": [{"kind": k, "text": f"text of {k}", "status": s} for k, s in findings],
    }


def test_good():
    verdict = judge(summary_of(), CONFIG)
    assert (verdict.quality, verdict.reasons) == ("good", ())
    assert judge(summary_of("converged"), CONFIG).quality == "good"


@pytest.mark.parametrize(
    ("change", "option", "limit", "says"),
    [
        ({"final": {"thermal_ratio": 3.1}}, "max_thermal_ratio", 4.0, "3.10 x thermal, allowed 3"),
        ({"final": {"flux_ratio": 0.88}}, "max_flux_error", 0.2, "flux ratio 0.880, allowed 1 +- 0.1"),
        ({"final": {"flux_ratio": 1.12}}, "max_flux_error", 0.2, "flux ratio 1.120"),
        ({"final": {"offset_arcsec": [0.0, -4.0]}}, "max_offset_arcsec", 5.0, "4.00 arcsec"),
        ({"rounds": [ROUND | {"solved_fraction": 0.6}]}, "min_solved_fraction", 0.5, "60 % solved"),
        ({"heldout": {"n_agreeing": 19}}, "min_agreeing_fraction", 0.4, "48 % of 40 held-out sources agree"),
    ],
)
def test_each_limit_counts_and_can_be_moved(change, option, limit, says):
    summary = summary_of(**change)
    verdict = judge(summary, CONFIG)
    assert verdict.quality == "bad"
    assert len(verdict.reasons) == 1
    assert says in verdict.reasons[0]
    assert judge(summary, PipelineConfig(**{option: limit})).quality == "good"


@pytest.mark.parametrize(
    ("fraction", "error", "quality"),
    [
        (0.81, 0.01, "good"),
        (1.19, 0.01, "good"),
        (0.79, 0.08, "good"),
        (0.79, 0.06, "bad"),
        (1.25, 0.1, "good"),
        (1.25, 0.05, "bad"),
    ],
)
def test_recovered_flux_within_its_range_or_three_errors(fraction, error, quality):
    verdict = judge(summary_of(heldout={"recovered_fraction": fraction, "recovered_error": error}), CONFIG)
    assert verdict.quality == quality
    assert all("of their catalogue flux" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("figure", ["thermal_ratio", "flux_ratio", "offset_arcsec"])
def test_what_could_not_be_compared_is_not_known_to_be_good(figure):
    verdict = judge(summary_of(final={figure: None}), CONFIG)
    assert verdict.quality == "unverified"
    assert verdict.reasons[0].startswith("not compared with anything known: ")
    # What is bad stays bad, and what was kept is what it was.
    assert judge(summary_of("diverged", final={figure: None}), CONFIG).quality == "bad"
    assert judge(summary_of("no_improvement", final={figure: None}), CONFIG).quality == "kept"


def test_figures_of_heldout_sources_that_do_not_tell_say_nothing():
    # Too weak to tell, too few to count, and a run without a catalogue.
    weak = {"tells": False, "recovered_fraction": 0.1, "recovered_error": 0.3}
    assert judge(summary_of(heldout=weak), CONFIG).quality == "good"
    assert judge(summary_of(heldout={"n_sources": 7, "n_agreeing": 0}), CONFIG).quality == "good"
    assert judge(summary_of() | {"heldout_sources": None}, CONFIG).quality == "good"


def test_a_summary_of_an_earlier_version_is_judged():
    """A run that is taken up after an upgrade."""
    summary = summary_of()
    del summary["heldout_sources"], summary["findings"]
    assert judge(summary, CONFIG).quality == "good"
    assert key_figures(summary)["recovered_fraction"] is None


@pytest.mark.parametrize(
    ("status", "quality"), [("diverged", "bad"), ("refused", "kept"), ("no_improvement", "kept")]
)
def test_statuses(status, quality):
    beyond = summary_of(status, final={"thermal_ratio": 99.0}, heldout={"n_agreeing": 0})
    assert judge(beyond, CONFIG).quality == quality


@pytest.mark.parametrize("kind", CATALOGUE_FAILED)
def test_a_sky_that_is_not_the_catalogues_is_bad(kind):
    verdict = judge(summary_of("refused", findings=[(kind, "refused"), ("moved", "")]), CONFIG)
    assert verdict.quality == "bad"
    assert verdict.reasons == (f"the catalogue failed: text of {kind}",)


@pytest.mark.parametrize("status", ["improved", "converged", "no_improvement"])
@pytest.mark.parametrize("kind", ["input", "recovered", "beam_centre", "time", "stretched", "untouched"])
def test_each_finding_is_a_reason(kind, status):
    verdict = judge(summary_of(status, findings=[(kind, "")]), CONFIG)
    assert verdict.quality == "bad"
    assert verdict.reasons == (f"text of {kind}",)


@pytest.mark.parametrize("kind", INFORMATION)
def test_information_is_no_reason(kind):
    assert judge(summary_of(findings=[(kind, "")]), CONFIG).quality == "good"
    assert judge(summary_of("no_improvement", findings=[(kind, "")]), CONFIG).quality == "kept"


def test_a_figure_is_no_second_reason_beside_its_finding():
    off = {"recovered_fraction": 1.5, "recovered_error": 0.05, "n_agreeing": 15}
    assert len(judge(summary_of(heldout=off), CONFIG).reasons) == 2
    both = [("recovered", ""), ("few", "")]
    assert judge(summary_of(heldout=off, findings=both), CONFIG).reasons == (
        "text of recovered",
        "text of few",
    )


def test_how_many_sources_have_to_agree_is_an_option():
    summary = summary_of(heldout={"n_agreeing": 22}, findings=[("few", "")])
    assert judge(summary, CONFIG).quality == "good"
    stricter = PipelineConfig(min_agreeing_fraction=0.6)
    assert judge(summary, stricter).reasons == ("text of few",)
    assert judge(summary | {"status": "no_improvement"}, stricter).quality == "bad"
    lenient = PipelineConfig(min_agreeing_fraction=0.0)
    refused = summary_of("refused", heldout={"n_agreeing": 10}, findings=[("few", "refused")])
    assert judge(refused, lenient).quality == "bad"


def test_an_extrapolated_catalogue_has_no_flux_scale():
    final = {"flux_ratio": 0.6}
    assert judge(summary_of(final=final), CONFIG).quality == "bad"
    assert judge(summary_of(final=final, findings=[("extrapolated", "")]), CONFIG).quality == "good"


def test_the_solved_fraction_is_that_of_what_was_kept():
    rounds = [{"accepted": True, "solved_fraction": 0.9}, {"accepted": False, "solved_fraction": 0.1}]
    summary = summary_of(final={"offset_arcsec": [3, -4]}, rounds=rounds)
    figures = key_figures(summary)
    assert figures["solved_fraction"] == 0.9
    assert figures["offset_arcsec"] == 5.0
    assert key_figures(summary | {"iterations": rounds[1:]})["solved_fraction"] == 0.1
    assert key_figures(summary | {"iterations": []})["solved_fraction"] is None


def test_figures_of_heldout_sources():
    figures = key_figures(summary_of())
    assert figures["recovered_fraction"] == 1.02
    assert figures["agreeing_fraction"] == 0.9
    weak = key_figures(summary_of(heldout={"tells": False, "n_sources": 7}))
    assert (weak["recovered_fraction"], weak["agreeing_fraction"]) == (None, None)
