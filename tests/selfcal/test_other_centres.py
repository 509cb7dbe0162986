"""A beam that points elsewhere is found by held-out channels; one that does not is left alone."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.selfcal.findings import elsewhere
from dsa110_contimg.selfcal.other_centres import _stepped, other_centre
from dsa110_contimg.selfcal.other_widths import Left


def test_where_the_beam_is_nothing_is_said(data, solved, stage_config, log):
    assert other_centre(data, solved, stage_config, log) is None


def test_steps_end_where_least_is_left():
    least = np.array([0.31, -0.23])

    def left(at):
        return Left(1.1 + 20 * (1 - float(np.exp(-((at - least) ** 2).sum()))), 100.0, 0.01)

    at = np.zeros(2)
    for size in (0.2, 0.07):
        while (to := _stepped(at, size, left)) is not None:
            at = to
    assert at == pytest.approx(least, abs=0.02)


def test_a_beam_that_is_far_off_refuses():
    assert elsewhere(0.05, 1.0, 5.0, 1.1) is None
    finding = elsewhere(0.2, 1.0, 5.0, 1.1)
    assert (finding.kind, finding.status) == ("beam_centre", "refused")
    assert replace(finding, status="").text.count("chi2 1.1 in the place of 5") == 1
