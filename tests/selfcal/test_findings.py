"""Each thing that can be wrong has its words and its verdict; where nothing is wrong nothing is said."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.phase_gradient import PhaseGradient
from dsa110_contimg.selfcal import findings as rules
from dsa110_contimg.selfcal.findings import (
    Carried,
    Finding,
    carried,
    coherent,
    findings_of,
    follows_from,
    unexplained,
    weightiest_first,
)
from dsa110_contimg.selfcal.sky_check import FEWEST_SOURCES, Estimate, SkyCheck
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.summary import _scale_verified
from dsa110_contimg.simulate.elliptical_beam import EllipticalBeam
from dsa110_contimg.sky import AiryBeam, GaussianBeam, build_own_model

ARCSEC = np.pi / 180 / 3600
HALF_POWER = np.radians(1.5)
NONE = Estimate(0.0, 1e-6)

#: Everything as the catalogue has it, known as well as it ever is.
HEALTHY = SkyCheck(
    recovered=Estimate(0.99, 0.02),
    phased=Estimate(1.0, 0.03),
    phased_input=0.1,
    n_sources=100,
    n_agreeing=95,
    scatter=0.07,
    beam_width=Estimate(1.005, 0.01),
    pointing_arcmin=(Estimate(0.5, 0.6), Estimate(-0.4, 0.6)),
    rotation_deg=Estimate(1e-4, 1e-3),
    stretch=Estimate(1e-6, 1e-5),
    shear=Estimate(2e-5, 1e-5),
    time_trend=Estimate(0.01, 0.01),
    frequency_trend=Estimate(-0.02, 0.01),
)
STILL = PhaseGradient((0.5 * ARCSEC, 0.0), 0.3 * ARCSEC, 0.99, 0.99, 60)


NEAR = Carried()


def found(check=HEALTHY, gradient=STILL, spectra=NEAR, delays=None):
    return findings_of(check, gradient, HALF_POWER, spectra, delays=delays)


def changed(**values):
    return replace(HEALTHY, **values)


def moved(arcsec, **changes):
    return replace(STILL, shift_rad=(0.0, arcsec * ARCSEC), **changes)


@pytest.mark.parametrize("gradient", [STILL, None])
def test_nothing_is_said_of_a_healthy_run(gradient):
    assert found(gradient=gradient) == ()


def test_nothing_is_said_of_what_is_not_known():
    assert found(SkyCheck(), None) == ()


OTHER_SKY = {"recovered": Estimate(0.1, 0.03), "n_agreeing": 3}
#: As many agree as leave it open.
OPEN = {"n_agreeing": int(100 * rules.MANY_AGREE) - 1}
FEW = {"n_agreeing": int(100 * rules.FEW_AGREE) - 1, "recovered": Estimate(0.75, 0.1)}
SOME = {"n_agreeing": int(100 * (rules.FEW_AGREE + rules.MANY_AGREE) / 2)}
OFF = 2 * rules.BEAM_CENTRE * np.degrees(HALF_POWER) * 60
AIMED = {"pointing_arcmin": (Estimate(OFF, 0.5), Estimate(0.0, 0.5))}
TURN = np.degrees(3 * rules.DISPLACED / HALF_POWER)
STRETCHED = (
    f"out than the catalogue has them, by 9.0 +- {1e-5 * HALF_POWER / ARCSEC:.1f} arcsec at half power"
)
SHEARED = f"by up to 9.0 +- {1e-5 * HALF_POWER / ARCSEC:.1f} arcsec at half power"
WIDER, ABSURD = np.exp(1.5 * rules.BEAM_WIDTH), np.exp(1.5 * rules.ABSURD_WIDTH)


@pytest.mark.parametrize(
    ("kind", "status", "values", "says"),
    [
        ("sky", "refused", OTHER_SKY, "the sky is not the catalogue's"),
        ("recovered", "no_improvement", {**OPEN, "recovered": Estimate(0.7, 0.02)}, "0.70"),
        ("recovered", "no_improvement", {**OPEN, "recovered": Estimate(1.4, 0.02)}, "brightest sources"),
        # The brightest hold the flux and are wrong; what agrees shows that the sky is the right one.
        ("recovered", "", {"recovered": Estimate(0.33, 0.02)}, "95 of 100"),
        ("recovered", "", {"recovered": Estimate(1.4, 0.02)}, "brightest sources"),
        ("few", "refused", FEW, "the sky is not the catalogue's"),
        ("few", "", SOME, "source report"),
        ("input", "no_improvement", {"phased_input": 1.2}, "phases of the input"),
        ("rotated", "refused", {"rotation_deg": Estimate(TURN, TURN / 100)}, "rotated"),
        ("rotated", "refused", {"rotation_deg": Estimate(-TURN, TURN / 100)}, "rotated"),
        ("stretched", "", {"stretch": Estimate(3 * rules.DISPLACED / HALF_POWER, 1e-5)}, STRETCHED),
        ("stretched", "", {"stretch": Estimate(-3 * rules.DISPLACED / HALF_POWER, 1e-6)}, "further in than"),
        ("sheared", "", {"shear": Estimate(3 * rules.DISPLACED / HALF_POWER, 1e-5)}, SHEARED),
        ("shifted", "refused", AIMED | SOME, "phase centre"),
        ("beam_centre", "", AIMED, "pointing"),
        ("beam_width", "", {"beam_width": Estimate(WIDER, 1e-3)}, "DISH_DIAMETER"),
        ("beam_width", "", {"beam_width": Estimate(1 / WIDER, 1e-3)}, "DISH_DIAMETER"),
        ("beam_width", "refused", {"beam_width": Estimate(ABSURD, 1e-3)}, "DISH_DIAMETER"),
        ("beam_width", "refused", {"beam_width": Estimate(1 / ABSURD, 1e-3)}, "DISH_DIAMETER"),
        ("time", "", {"time_trend": Estimate(-2 * rules.TREND_TIME, 0.01)}, "over the observation"),
        ("frequency", "", {"frequency_trend": Estimate(2 * rules.TREND_FREQUENCY, 0.01)}, "over the band"),
    ],
)
def test_each_kind_with_its_verdict(kind, status, values, says):
    said = {f.kind: f for f in found(changed(**values))}
    assert set(said) <= {kind, "few"}
    assert said[kind].status == status
    assert says in said[kind].text
    assert "\n" not in said[kind].text
    assert not said[kind].text.endswith(".")


@pytest.mark.parametrize(
    ("beam", "width", "words"),
    [
        (AiryBeam(4.65), 1.1, "10 +- 1 % wider than that of a dish of 4.65 m: check DISH_DIAMETER, or give "),
        (AiryBeam(4.65), 1.1, "--dish-diameter-m 4.23; --solve-beam-width corrects it"),
        (GaussianBeam(25.0), 0.8, "20 +- 1 % narrower than that of a dish of 25 m"),
        (GaussianBeam(25.0), 0.8, "--dish-diameter-m 31.2; --solve"),
        (AiryBeam(4.65), 2.0, "--dish-diameter-m 2.33"),
        (EllipticalBeam(AiryBeam(4.65), 1.2), 1.1, "wider than that of the beam file: check the beam file"),
    ],
)
def test_a_wrong_beam_is_told_with_the_diameter_to_give(beam, width, words):
    check = changed(beam_width=Estimate(width, 0.01))
    (said,) = findings_of(check, STILL, HALF_POWER, Carried(), beam)
    assert words in said.text
    assert ("--solve-beam-width" in said.text) == (said.status == "")


@pytest.mark.parametrize(
    "values",
    [
        # Within what errors may do.
        {"recovered": Estimate(0.7, 0.12)},
        {"recovered": Estimate(1.3, 0.12)},
        {"beam_width": Estimate(WIDER, 0.05)},
        {"beam_width": Estimate(ABSURD, 0.5)},
        {"pointing_arcmin": (Estimate(OFF, OFF), Estimate(0.0, OFF))},
        {"rotation_deg": Estimate(TURN, TURN)},
        {"stretch": Estimate(3 * rules.DISPLACED / HALF_POWER, 1e-2)},
        {"time_trend": Estimate(2 * rules.TREND_TIME, 0.2)},
        {"frequency_trend": Estimate(2 * rules.TREND_FREQUENCY, 0.4)},
        # Known well, but too little to matter.
        {"recovered": Estimate(0.9, 0.001)},
        {"beam_width": Estimate(np.exp(0.5 * rules.BEAM_WIDTH), 1e-5)},
        {"pointing_arcmin": (Estimate(OFF / 4, 1e-3), NONE)},
        {"rotation_deg": Estimate(TURN / 6, 1e-6)},
        {"stretch": Estimate(0.3 * rules.DISPLACED / HALF_POWER, 1e-9)},
        {"time_trend": Estimate(0.5 * rules.TREND_TIME, 1e-3)},
        {"frequency_trend": Estimate(0.5 * rules.TREND_FREQUENCY, 1e-3)},
        {"phased_input": 1.0 + 0.5 * rules.INPUT_BETTER},
        # Too few to speak for the others.
        {"n_sources": FEWEST_SOURCES - 1, "n_agreeing": 0},
    ],
)
def test_what_may_be_chance_or_does_not_matter_is_not_said(values):
    assert found(changed(**values)) == ()


def test_a_sky_too_weak_to_tell_is_not_called_another_one():
    weak = changed(recovered=Estimate(0.0, 0.25), n_agreeing=0, phased=Estimate(0.0, 0.25), phased_input=0.0)
    assert not weak.tells
    assert found(weak) == ()


@pytest.mark.parametrize(
    ("halves", "gradient", "status"),
    [(0.15, None, "refused"), (0.15, STILL, ""), (0.07, None, "")],
)
def test_a_beam_far_off_may_be_a_shifted_sky_where_the_input_has_no_position(halves, gradient, status):
    off = halves * np.degrees(HALF_POWER) * 60
    (said,) = found(changed(pointing_arcmin=(Estimate(off, 0.5), Estimate(0.0, 0.5))), gradient)
    assert (said.kind, said.status) == ("beam_centre", status)
    assert ("phase centre" in said.text) is (gradient is None)


def test_a_coherent_input_that_is_moved_far_is_another_phase_centre():
    far = 2 * rules.SHIFTED / ARCSEC
    (said,) = found(gradient=moved(far))
    assert (said.kind, said.status) == ("shifted", "refused")
    assert f"{far / 60:.1f} arcmin" in said.text


@pytest.mark.parametrize(
    "gradient",
    [
        moved(0.5 * rules.SHIFTED / ARCSEC),
        moved(2 * rules.SHIFTED / ARCSEC, error_rad=rules.SHIFTED),
        # Random phases were no sky that could have been somewhere.
        moved(2 * rules.SHIFTED / ARCSEC, coherence=0.9 * rules.COHERENT),
        moved(2 * rules.SHIFTED / ARCSEC, n_antennas=rules.FEWEST_ANTENNAS - 1),
    ],
)
def test_other_movements_are_no_shift(gradient):
    assert found(gradient=gradient) == ()


def test_coherence_is_that_of_some_antennas():
    assert coherent(STILL)
    assert not coherent(None)
    assert not coherent(replace(STILL, coherence=0.9 * rules.COHERENT))
    assert not coherent(replace(STILL, n_antennas=rules.FEWEST_ANTENNAS - 1))


def test_far_from_the_catalogues_frequency():
    # A second catalogue measures most of the flux on the other side: its scale is known.
    assert found(spectra=Carried(4.0, 0.6)) == ()
    (said,) = found(spectra=Carried(4.0, 0.4))
    assert (said.kind, said.status) == ("extrapolated", "")
    assert "40 % of the flux alone" in said.text
    few = changed(n_sources=0, n_agreeing=0, phased=Estimate(0.9, 0.1), phased_input=0.2)
    (said,) = found(few, spectra=Carried(10.0, 0.001))
    assert "no second catalogue" in said.text
    assert "0.20 of their flux as found, 0.90 now" in said.text


def test_a_flux_scale_is_verified_by_many_sources_of_fluxes_that_are_known_there():
    def verified(check, *findings):
        return _scale_verified(CalState(weights=None, sky_check=check, findings=findings))

    assert verified(HEALTHY)
    assert verified(HEALTHY, Finding("moved", ""))
    assert not verified(HEALTHY, Finding("extrapolated", ""))
    assert not verified(changed(n_agreeing=30))
    assert not verified(None)


def test_what_spectra_leave_open_is_no_other_sky_but_what_is_not_there_is():
    few = {"n_sources": 0, "n_agreeing": 0}
    missing, absent = (changed(recovered=Estimate(x, 0.05), **few) for x in (0.5, 0.1))
    assert found(missing)[0].status == "refused"
    assert found(missing, spectra=Carried(10.0, 1.0, 0.6)) == ()
    assert found(absent, spectra=Carried(10.0, 1.0, 0.6))[0].status == "refused"


def test_the_weightiest_comes_first():
    values = AIMED | FEW | {"phased_input": 1.2, "time_trend": Estimate(1.0, 0.01)}
    status = [
        f.status for f in found(changed(**values), moved(3 * rules.SHIFTED / ARCSEC), Carried(3.0, 0.0))
    ]
    order = ["refused", "no_improvement", ""]
    assert status == sorted(status, key=order.index)
    assert set(status) == set(order)


def test_what_shears_the_sky_is_no_rotation():
    """A mean gradient of the ionosphere over the field turns, stretches and shears alike."""
    shear = {"shear": Estimate(np.radians(TURN) / 2, 1e-6)}
    check = changed(rotation_deg=Estimate(TURN, TURN / 100), **shear)
    assert {f.kind for f in found(check)} == {"sheared"}
    little = {"shear": Estimate(np.radians(TURN) / 10, 1e-6)}
    check = changed(rotation_deg=Estimate(TURN, TURN / 100), **little)
    assert "rotated" in {f.kind for f in found(check)}
    # Hardly a source has stayed where it was: it is a rotation, however well it is measured.
    check = changed(rotation_deg=Estimate(TURN, TURN / 100), n_agreeing=5, **shear)
    assert "rotated" in {f.kind for f in found(check)}


def test_of_another_sky_neither_place_nor_beam_is_said():
    mirrored, sky, shifted = (Finding(kind, "") for kind in ("mirrored", "sky", "shifted"))
    width, note = Finding("beam_width", ""), Finding("noise", "")
    assert follows_from(mirrored, shifted)
    assert not follows_from(sky, Finding("rotated", ""))
    assert follows_from(mirrored, width)
    assert follows_from(sky, width)
    assert not follows_from(sky, shifted)
    assert not follows_from(mirrored, note)
    assert not follows_from(shifted, width)


@pytest.mark.parametrize(
    ("phased_input", "n_agreeing", "before", "after", "kind"),
    [
        # Incoherent, and the model explains nothing, with few sources to speak for it.
        (0.1, 2, 100.0, 90.0, "sky"),
        (0.1, 2, 100.0, 1.5, None),
        (0.1, FEWEST_SOURCES, 100.0, 90.0, None),
        # Coherent: little is left to explain, and gains explain hardly any of that.
        (0.9, 95, 100.0, 90.0, "input"),
        (0.9, 95, 100.0, 60.0, None),
        (0.9, 95, 1.4, 1.39, None),
    ],
)
def test_what_the_gains_do_not_explain(phased_input, n_agreeing, before, after, kind):
    check = changed(phased_input=phased_input, n_agreeing=n_agreeing)
    said = unexplained(check, before, after)
    assert [f.kind for f in said] == ([kind] if kind else [])
    status = {"sky": "refused", "input": "no_improvement"}
    assert [f.status for f in said] == ([status[kind]] if kind else [])


def test_what_ends_a_run_is_said_first():
    kinds = [("moved", ""), ("input", "no_improvement"), ("time", ""), ("sky", "refused")]
    sorted_ = weightiest_first(Finding(kind, "", status) for kind, status in kinds)
    assert [f.kind for f in sorted_] == ["sky", "input", "moved", "time"]


def test_a_turned_sky_is_not_told_as_a_shift_by_its_fluxes():
    """Sources that are not where they are looked for tell no beam; a shift turns and shears them alike."""
    turned = changed(rotation_deg=Estimate(TURN, TURN / 100), **AIMED | SOME)
    assert [f.kind for f in found(turned) if f.status == "refused"] == ["rotated"]
    shear = Estimate(np.radians(TURN), 1e-6)
    shifted = replace(turned, shear=shear)
    assert found(shifted)[0].kind == "shifted"
    # The gains of a coherent input show a shift whatever the fluxes say.
    assert found(turned, moved(120.0))[0].kind == "shifted"


def test_a_model_of_the_users_own_is_carried_from_its_own_frequency(tmp_path):
    (tmp_path / "m.csv").write_text("ra_deg,dec_deg,flux_jy,reference_freq_mhz\n150,54,1,1400\n")
    for mhz, far in ((1500.0, False), (5000.0, True)):
        listed = build_own_model(
            tmp_path / "m.csv",
            np.radians([[150.0, 54.0]]),
            np.array([mhz * 1e6]),
            AiryBeam(4.65),
            (np.radians(150.0), np.radians(54.0)),
            fluxes="true",
            spectral_index=-0.7,
        )
        assert carried(listed).too_far is far


def test_delays_of_a_sky_elsewhere_refuse():
    shifted = PhaseGradient((600 * ARCSEC, 0.0), 5 * ARCSEC, 0.995, 0.2, 20)
    (finding,) = found(HEALTHY, None, delays=shifted)
    assert (finding.kind, finding.status) == ("shifted", "refused")
    assert "delays" in finding.text
    assert "10.0 arcmin" in finding.text
    # Delays of antennas scatter: so many have some gradient.
    assert not found(HEALTHY, None, delays=replace(shifted, coherence=0.6))
    assert not found(HEALTHY, None, delays=replace(shifted, shift_rad=(5 * ARCSEC, 0.0)))


def test_wrong_fluxes_of_a_few_are_not_another_sky():
    few = replace(HEALTHY, n_sources=3, n_agreeing=0, recovered=Estimate(0.4, 0.05))
    (finding,) = found(replace(few, together=Estimate(1.03, 0.08)))
    assert (finding.kind, finding.status) == ("recovered", "")
    assert "brightest sources" in finding.text
    assert found(few)[0].status == "refused"
    assert found(replace(few, together=Estimate(0.05, 0.08)))[0].status == "refused"
