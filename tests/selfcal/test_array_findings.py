"""What baselines say of times and positions, in words."""

import numpy as np
import pytest
from casacore.tables import table

from dsa110_contimg.selfcal.array_findings import array_findings, said_of_baselines
from dsa110_contimg.visibilities.array_check import check_baselines
from tests.selfcal.support import observe, open_data


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


def test_of_dishes_that_stand_still_the_clock_is_looked_at(tmp_path):
    ms, config = observe(tmp_path, drift=True, dumps=3, fields=1)
    assert array_findings(open_data(ms, config).reader) == ()
    with table(str(ms), readonly=False, ack=False) as main:
        main.putcol("TIME", main.getcol("TIME") + 60.0)
    (finding,) = array_findings(open_data(ms, config).reader)
    assert finding.kind == "uvw"
    assert "-60 s from TIME" in finding.text
