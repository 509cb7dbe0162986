from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.calibration.unsolved_channels import unsolved_channels

CHANNELS = np.linspace(1.40e9, 1.41e9, 11)


def table(flag, kind="B Jones"):
    """Two windows of the same solutions; `flag` has shape (nant, nchan)."""
    shape = (1, *np.shape(flag), 1)
    none = np.zeros(1, int)
    gains = Gains(
        time_s=np.zeros(1),
        interval_s=np.ones(1),
        freq_hz=CHANNELS,
        gain=np.ones(shape, complex),
        flag=np.reshape(flag, shape),
        error=np.zeros(shape),
        snr=np.zeros(shape),
        reference_antenna=none,
        field_id=none,
        scan=none,
    )
    return GainTable(kind=kind, gains={0: gains, 1: gains}, label="somewhere/bp")


def test_channels_without_solutions_are_told_by_where_they_are():
    flag = np.zeros((4, 11), bool)
    flag[:, [0, 1, 10, 5]] = True
    flag[3] = True  # An antenna without any solution is no matter of channels.
    found = unsolved_channels(table(flag), {0: CHANNELS, 1: CHANNELS}, 0.0)
    assert found.beyond == pytest.approx(3 / 11)
    assert found.between == pytest.approx(1 / 11)
    assert found.channels == {"channels 0-1, 10 of 11": (0, 1)}
    said = "bandpass table bp has no solutions at the edges of the band: 27 % of the channels are left out"
    assert said in found.text()
    assert "channels 0-1, 10 of 11 (window 0-1)" in found.text()


def test_data_beyond_the_band_of_the_table_are_told_too():
    flag = np.zeros((4, 11), bool)
    data = np.linspace(1.40e9, 1.42e9, 21)
    found = unsolved_channels(table(flag), {1: data}, 0.0)
    assert found.channels == {"channels 11-20 of 21": (1,)}
    assert found.between == 0


def test_a_table_that_says_something_of_all_channels_is_not_spoken_of():
    flag = np.zeros((4, 11), bool)
    flag[:, 5] = True
    whole = table(flag)
    assert unsolved_channels(whole, {0: CHANNELS}, 0.0) is None
    flag[:, 0] = True
    one = {spw: replace(g, flag=np.ones_like(g.flag)) for spw, g in table(flag).gains.items()}
    assert unsolved_channels(replace(whole, gains=one), {0: CHANNELS}, 0.0) is None
