import pytest

from dsa110_contimg.selfcal.acceptance import (
    AS_FOUND,
    AS_FOUND_CONFIRMED,
    HOPELESS_SNR,
    RECOVERED_MORE,
    Appraisal,
    appraise_image,
    appraise_solution,
    confirmed_by_sources,
    worse_than_found,
)
from dsa110_contimg.selfcal.sky_check import Estimate, SkyCheck
from dsa110_contimg.selfcal.state import Verdict

BEFORE = Appraisal(snr=100, rms_jy=1e-3, beam_area_sr=1e-8, flux_ratio=0.95)


def changed(**values):
    return Appraisal(**{**BEFORE.__dict__, **values})


@pytest.mark.parametrize(
    ("before", "after", "solved", "accepted"),
    [
        (2.0, 1.5, 0.95, True),
        (2.0, 2.0, 0.95, True),
        (2.0, 2.0001, 0.95, False),
        (2.0, 1.0, 0.7, False),
        (3.36, 3.28, 0.95, True),
        (2.0, float("nan"), 0.95, False),
    ],
)
def test_a_solution_must_predict_and_solve(before, after, solved, accepted):
    verdict = appraise_solution(before, after, solved)
    assert verdict.accepted is accepted
    assert "\n" not in verdict.reason


@pytest.mark.parametrize(
    ("before", "after", "accepted"), [(3.36, 3.28, False), (3.36, 1.2, True), (1.05, 1.049, True)]
)
def test_the_model_must_explain_the_input(before, after, accepted):
    """A bright source that is in the catalogue alone can be made to appear by its gains."""
    assert appraise_solution(before, after, 0.95, of_input=True).accepted is accepted


@pytest.mark.parametrize(
    ("after", "accepted", "says"),
    [
        (changed(), True, "signal to noise"),
        (changed(snr=99.9), False, "signal to noise fell"),
        (changed(snr=200, rms_jy=1.04e-3), True, ""),
        (changed(snr=200, rms_jy=1.06e-3), False, "rms grew"),
        (changed(snr=float("nan")), False, "signal to noise fell"),
        (changed(beam_area_sr=1.06e-8), False, "beam"),
        (changed(flux_ratio=1.04), True, ""),
        (changed(flux_ratio=0.26), False, "fluxes moved away"),
        (changed(flux_ratio=1.2), False, "fluxes moved away"),
        (changed(flux_ratio=None), False, "no catalogued source"),
    ],
)
def test_each_rule_for_images(after, accepted, says):
    verdict = appraise_image(BEFORE, after)
    assert verdict.accepted is accepted
    assert says in verdict.reason


def test_suppressed_flux_is_seen_although_the_signal_to_noise_rose():
    """An amplitude solve on a faint field can divide fluxes by four and look better."""
    assert not appraise_image(BEFORE, changed(snr=300, rms_jy=2e-4, flux_ratio=0.26)).accepted


def test_a_bad_start_may_move_towards_the_catalogue():
    bad = Appraisal(10, 1e-3, 1e-8, 0.2)
    assert appraise_image(bad, changed(flux_ratio=0.8)).accepted


def test_fluxes_that_were_no_measurement_bind_nobody():
    noise = Appraisal(8, 2e-2, 1e-8, 0.15)
    assert appraise_image(noise, Appraisal(100, 5e-3, 1e-8, None)).accepted


def test_setting_the_flux_scale_is_no_growth_of_noise():
    """Raw correlator units: gains of 0.3 lift the image, noise and all, by a factor of eleven."""
    raw = Appraisal(9, 1e-4, 1e-8, 0.01)
    scaled = Appraisal(110, 6e-4, 1e-8, 1.0, amplitude=0.09)
    assert appraise_image(raw, scaled).accepted
    steady = Appraisal(9, 1e-4, 1e-8, 0.95)
    assert not appraise_image(steady, Appraisal(110, 6e-4, 1e-8, 1.0, amplitude=1.0)).accepted


def test_sidelobes_come_back_with_the_flux_that_decorrelation_took():
    decorrelated = Appraisal(8, 14e-3, 1e-8, 0.15)
    assert appraise_image(decorrelated, Appraisal(9, 16e-3, 1e-8, 1.0)).accepted
    assert not appraise_image(decorrelated, Appraisal(9, 16e-3, 1e-8, 0.15)).accepted


def sources(phased=1.0, of_input=0.1, error=0.02):
    known = Estimate(phased, error)
    return SkyCheck(recovered=known, phased=known, phased_input=of_input)


@pytest.mark.parametrize("subject", ["snr", "rms"])
def test_sources_confirm_what_an_image_hid_in_its_noise(subject):
    """Sources outside a small image are coherent again, and so are their sidelobes in it."""
    verdict = Verdict(False, "", subject)
    assert confirmed_by_sources(verdict, BEFORE, changed(snr=80), sources())


@pytest.mark.parametrize(
    ("subject", "snr", "check"),
    [
        ("flux", 80, sources()),
        ("beam", 80, sources()),
        ("", 80, sources()),
        ("snr", 0.9 * 100 * HOPELESS_SNR, sources()),
        ("snr", 80, None),
        ("snr", 80, SkyCheck()),
        ("snr", 80, sources(error=0.5)),
        # The input was as good.
        ("snr", 80, sources(of_input=1.0 - 0.5 * RECOVERED_MORE)),
        ("snr", 80, sources(phased=0.0)),
    ],
)
def test_sources_do_not_confirm_anything_else(subject, snr, check):
    assert not confirmed_by_sources(Verdict(False, "", subject), BEFORE, changed(snr=snr), check)


@pytest.mark.parametrize(
    ("after", "subject"),
    [
        (changed(snr=90), "snr"),
        (changed(snr=200, rms_jy=1.2e-3), "rms"),
        (changed(beam_area_sr=1.2e-8), "beam"),
        (changed(flux_ratio=0.26), "flux"),
        (changed(flux_ratio=None), "flux"),
        (changed(), "snr"),
    ],
)
def test_a_verdict_says_by_what_an_image_was_judged(after, subject):
    assert appraise_image(BEFORE, after).subject == subject


def test_what_is_delivered_is_not_worse_than_what_was_found():
    found = BEFORE
    for snr in (found.snr, 2 * found.snr, found.snr / (0.5 + 0.5 * AS_FOUND)):
        assert worse_than_found(found, changed(snr=snr), None) == ""
    worse = worse_than_found(found, changed(snr=found.snr / (1.1 * AS_FOUND)), None)
    assert "signal to noise" in worse
    assert "\n" not in worse


@pytest.mark.parametrize(
    ("n_agreeing", "of_input", "stands"), [(80, 0.95, True), (40, 0.95, False), (80, 1.01, False)]
)
def test_sidelobes_of_what_is_outside_do_not_overrule_held_out_sources(n_agreeing, of_input, stands):
    known = Estimate(1.0, 0.02)
    check = SkyCheck(
        recovered=known, phased=known, phased_input=of_input, n_sources=100, n_agreeing=n_agreeing
    )
    slightly = changed(snr=BEFORE.snr / (0.5 * (AS_FOUND + AS_FOUND_CONFIRMED)))
    assert (worse_than_found(BEFORE, slightly, check) == "") is stands
    much = changed(snr=BEFORE.snr / (1.1 * AS_FOUND_CONFIRMED))
    assert worse_than_found(BEFORE, much, check)
