"""What is said of each antenna."""

from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.cross_validation import Score, Solution
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.calibration.solve_settings import Grouping
from dsa110_contimg.selfcal.antenna_report import (
    antenna_report,
    antenna_verdicts,
    when_lost,
    without_solutions,
)

N, T = 12, 40


@pytest.fixture
def described():
    """Twelve antennas, each of the later ones with a fault of its own."""
    rng = np.random.default_rng(1)
    phase = np.cumsum(rng.normal(0, 0.05, (T, N, 1, 2)), axis=0)
    # The reference antenna wanders, and all phases with it: nobody's jump.
    phase += rng.uniform(-np.pi, np.pi, (T, 1, 1, 1))
    amplitude = 3.0 * (1 + 0.02 * rng.standard_normal((T, N, 1, 2)))
    phase[:, 7] = rng.uniform(-np.pi, np.pi, (T, 1, 2))
    amplitude[:, 8, :, 1] *= 30
    flag = np.zeros((T, N, 1, 2), dtype=bool)
    flag[:, 9] = flag[:, 10] = flag[:, 11] = True
    time_s = 12.0 * np.arange(T)
    zeros = np.zeros(T, dtype=np.int64)
    gain = np.where(flag, 1, amplitude * np.exp(1j * phase))
    blank = np.zeros(gain.shape)
    gains = Gains(
        time_s=time_s,
        interval_s=np.full(T, 12.0),
        freq_hz=np.array([1.4e9]),
        gain=gain,
        flag=flag,
        error=blank,
        snr=blank,
        reference_antenna=zeros,
        field_id=zeros,
        scan=zeros,
    )
    table = GainTable(kind="G Jones", gains={0: gains}, label="ap", interpolation="nearest")
    heldout = np.full((1, N, 2), 40.0)
    heldout[:, 9] = 0.4
    heldout[:, 10] = 0.0
    solution = Solution(
        table=table,
        mode="ap",
        solint="int",
        solint_s=12.0,
        score=Score(1, 1),
        solved_fraction=1.0,
        median_snr=20.0,
        heldout_snr=heldout,
        iterations=9,
        converged_fraction=1.0,
        grouping=Grouping(True, True),
    )
    present = np.ones((N, 2), dtype=bool)
    present[10] = False
    excess = np.ones((N, 2))
    excess[6] = 4.0
    lost = np.zeros((T, N, 2), dtype=bool)
    lost[10:20, 4, 0] = lost[30:, 4, 0] = lost[10:20, 5] = True
    # Dumps of twelve seconds from 14:33:14 on.
    start = 51544 * 86400 + 14 * 3600 + 33 * 60 + 14
    gains = replace(gains, time_s=start + 6 + time_s)
    table = replace(table, gains={0: gains})
    return antenna_report(
        [f"A{k}" for k in range(N)],
        [table],
        solution,
        gains.time_s,
        present,
        excess,
        dump_s=np.full(T, 12.0),
        lost=lost,
    )


def test_each_fault_is_named(described):
    assert antenna_verdicts(described) == {
        "lost": ["A4", "A5"],
        "noisy": ["A6"],
        "jumps": ["A7"],
        "amplitude": ["A8"],
        "noise": ["A9"],
        "no data": ["A10"],
        "unsolved": ["A11"],
    }
    assert described["verdict"][described["antenna"] == "A8"].tolist() == ["good", "amplitude"]


def test_figures(described):
    good = described[described["verdict"] == "good"]
    assert np.allclose(good["amplitude"], 1.0, atol=0.02)
    assert np.allclose(good["amplitude_scatter"], 0.02, atol=0.012)
    assert np.all(good["phase_step_deg"] < 6)
    assert np.all(good["jumps"] == 0)
    assert described["jumps"][14] == pytest.approx(0.5, abs=0.2)
    assert described["amplitude"][17] == pytest.approx(30, rel=0.05)
    assert np.isnan(described["amplitude"][18:]).all()
    assert (described["solved_fraction"][18:] == 0).all()


def test_when_an_antenna_was_lost(described):
    words = dict(
        zip(zip(described["antenna"], described["polarisation"], strict=True), described["lost"], strict=True)
    )
    assert words["A4", 0] == "lost from 14:35:14 to 14:37:14, from 14:39:14 to 14:41:14"
    assert words["A5", 0] == words["A5", 1] == "lost from 14:35:14 to 14:37:14"
    assert words["A4", 1] == words["A0", 0] == ""
    assert when_lost(described) == {words["A4", 0]: ["A4"], words["A5", 0]: ["A5"]}
    fraction = described["solved_fraction"]
    np.testing.assert_allclose(fraction[8:12], [0.5, 1.0, 0.75, 0.75])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ((), ""),
        (([1], range(N), [0, 1]), "spectral windows 1"),
        (([0, 1], range(N), [1]), "polarisation Y"),
        (([0, 1], [2, 5], [0, 1]), "antennas ant2, ant5"),
        (([0, 1], range(N), [0, 1]), ""),
    ],
)
def test_what_has_hardly_a_solution_is_named(bad, words):
    shape, zeros = (T, N, 1, 2), np.zeros(T, dtype=np.int64)
    flag = np.zeros((2, *shape), dtype=bool)
    if bad:
        windows, antennas, hands = (np.isin(np.arange(n), of) for n, of in zip((2, N, 2), bad, strict=True))
        flag |= windows[:, None, None, None, None] & antennas[:, None, None] & hands
    # All but one in twenty.
    flag[:, ::20] = False
    gains = {
        spw: Gains(
            time_s=12.0 * np.arange(T),
            interval_s=np.full(T, 12.0),
            freq_hz=np.array([1.4e9]),
            gain=np.ones(shape, dtype=complex),
            flag=flag[spw],
            error=np.zeros(shape),
            snr=np.zeros(shape),
            reference_antenna=zeros,
            field_id=zeros,
            scan=zeros,
        )
        for spw in range(2)
    }
    names = [f"ant{k}" for k in range(N)]
    table = GainTable(kind="G Jones", gains=gains)
    assert without_solutions(table, names, np.ones((N, 2), dtype=bool), ("X", "Y")) == words
