"""What counts as a beam of another width, and what does not."""

import pytest

from dsa110_contimg.selfcal.other_widths import WidthTrial, other_width, try_widths
from dsa110_contimg.sky import AiryBeam

DISH = AiryBeam(4.65)


def trials(of_data=100.0, **chi2):
    widths = [float(k.lstrip("w").replace("_", ".")) for k in chi2]
    return tuple(WidthTrial(w, v, of_data, 0.01) for w, v in zip(widths, chi2.values(), strict=True))


@pytest.mark.parametrize(
    ("left", "status", "said"),
    [
        ({"w1": 50.0, "w0_2": 1.1, "w0_35": 9.0}, "refused", "5 times narrower"),
        ({"w1": 50.0, "w2_2": 1.1}, "refused", "2.2 times wider"),
        ({"w1": 3.0, "w1_3": 1.2}, "", "1.3 times wider"),
        # The noise may have been taken for higher than it is, by gains that were wrong.
        ({"w1": 2.0, "w0_2": 0.5}, "refused", "give --dish-diameter-m 23"),
        # A faint sky.
        ({"w1": 1.17, "w0_26": 1.01, "of_data": 1.3}, "refused", "3.8 times narrower"),
    ],
)
def test_a_width_that_leaves_much_less_is_the_beams(left, status, said):
    finding = other_width(trials(**left), DISH)
    assert finding.kind == "beam_width"
    assert finding.status == status
    assert said in finding.text
    assert ("--solve-beam-width" in finding.text) == (status == "")
    assert "--solve-beam-width" not in other_width(trials(**left), DISH, correctable=False).text


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"w1": 1.1},
        {"w1": 50.0, "w0_2": 60.0},
        # A sky that is not there: a beam that shows nothing of it halves what is left.
        {"w1": 50.0, "w0_2": 25.0},
        {"w1": 1.2, "w0_2": 1.0},
        # Hardly anything is explained at all, or both explain most of it.
        {"w1": 1.28, "w0_2": 1.19, "of_data": 1.3},
        {"w1": 1.1, "w0_2": 1.0, "of_data": 1.4},
        {"w1": 1.05, "w0_2": 1.0, "of_data": 1.07},
    ],
)
def test_a_width_that_leaves_hardly_less_tells_nothing(left):
    assert other_width(trials(**left), DISH) is None


def test_through_the_right_beam_least_is_left(data, solved, stage_config, log):
    tried = try_widths(data, solved, stage_config, log)
    assert tried[0].width == 1
    assert tried[0].chi2 == pytest.approx(min(t.chi2 for t in tried))
    assert other_width(tried, data.catalog_model.beam) is None
