"""Which arm is recommended, by rules on figures that are made up."""

import numpy as np
import pytest

from dsa110_contimg.compare.verdict import judge_comparison, snr_uncertainty
from dsa110_contimg.imaging import mad_rms


def arm(name, snr, seconds, *, limit=None, delivered=None, flux=1.0, offset=(0.0, 0.0), status="improved"):
    figures = {
        "shallow": {"snr": snr},
        "deep": {"flux_ratio": flux, "offset_arcsec": None if flux is None else list(offset)},
        "subtracted": {"snr": delivered or snr},
        "delivered": {"snr": delivered or snr},
    }
    entry = {
        "name": name,
        "seeded": limit is not None,
        "limit_mjy": limit,
        "limit_s": 60.0,
        "identical_to": None,
    }
    entry |= {"status": "completed", "reason": "", "run_status": status, "figures": figures}
    return entry | {"seconds": {"total": seconds}}


def judged(*arms, before=10.0):
    return judge_comparison(arms, {"snr": before}, region_beams=10_000.0, beam_arcsec=30.0)


def verdicts(found):
    return [c["verdict"] for c in found["criteria"]]


def test_all_five_criteria_and_the_large_gain():
    found = judged(arm("base", 100, 10), arm("one", 200, 12, limit=1.0), arm("ten", 150, 11, limit=10.0))
    assert verdicts(found) == ["yes"] * 6
    assert found["recommended"] == "one"
    found = judged(arm("base", 100, 10), arm("one", 140, 16, limit=1.0))
    assert verdicts(found) == ["yes", "yes", "yes", "no", "yes", "no"]
    found = judged(arm("base", 100, 10), arm("one", 100.5, 10, limit=1.0))
    assert verdicts(found)[1] == "no"


def test_equal_arms_are_told_apart_by_the_delivered_image_then_time_then_limit():
    base = arm("base", 100, 10)
    one, ten = arm("one", 100, 20, limit=1.0, delivered=300), arm("ten", 101, 12, limit=10.0, delivered=300)
    assert judged(base, one, ten)["recommended"] == "ten"  # one takes more than half as long again
    one = arm("one", 100, 13, limit=1.0, delivered=300)
    assert judged(base, one, ten)["recommended"] == "one"  # times within 10 %
    ten = arm("ten", 101, 8, limit=10.0, delivered=250)
    assert judged(base, one, ten)["recommended"] == "one"


def test_an_arm_off_in_flux_or_position_or_rolled_back_is_not_recommended():
    good = arm("one", 100, 10, limit=1.0)
    for bad in ({"flux": 0.75}, {"offset": (3.0, 1.0)}, {"status": "diverged"}, {"status": "no_improvement"}):
        assert judged(arm("base", 500, 5, **bad), good)["recommended"] == "one"
        assert judged(arm("base", 500, 5, **bad))["recommended"] is None
    assert judged(arm("base", 500, 5, flux=None), good)["recommended"] == "base"


def test_a_zero_baseline_divides_nothing():
    found = judged(arm("base", 0.0, 10), arm("one", 100, 10, limit=1.0), before=0.0)
    assert verdicts(found)[1] == "cannot be said"
    assert verdicts(found)[5] == "cannot be said"


def test_standard_error_of_a_signal_to_noise():
    """Against the scatter of the MAD of Gaussian noise."""
    rng = np.random.default_rng(5)
    found = [mad_rms(rng.standard_normal((20, 20)).astype(np.float32)) for _ in range(3000)]
    assert np.std(found) / np.mean(found) == pytest.approx(snr_uncertainty(400), rel=0.06)
