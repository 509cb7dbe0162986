"""What baselines say of times and positions, in words."""

import numpy as np
import pytest

from dsa110_contimg.selfcal.array_findings import array_findings, said_of_baselines
from dsa110_contimg.visibilities.array_check import check_baselines


def checked(reader, late_s=0.0, moved_m=None):
    position = reader.ms.antennas.position_m.copy()
    for k, by in (moved_m or {}).items():
        position[k] += by
    return check_baselines(reader.antenna_uv(), position, reader.times - late_s, *reader.phase_center)


def test_of_a_good_observation_nothing_is_said(data):
    assert array_findings(data.reader) == ()


def test_times_and_positions_that_are_off_are_told(data):
    reader, names = data.reader, data.reader.ms.antennas.name
    (finding,) = said_of_baselines(checked(reader, late_s=600.0), names)
    assert finding.kind == "uvw"
    assert float(finding.text.split(" s from")[0].split()[-1]) == pytest.approx(600, abs=2)
    (finding,) = said_of_baselines(checked(reader, moved_m={2: 3.0}), names)
    assert finding.kind == "positions"
    assert names[2] in finding.text
    assert names[1] not in finding.text
    scattered = dict(enumerate(np.random.default_rng(1).standard_normal(len(names))))
    (finding,) = said_of_baselines(checked(reader, moved_m=scattered), names)
    assert finding.kind == "positions"
    assert "median" in finding.text
