"""Which observations are seeded."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.pipeline.rollout import choose_mode, in_rollout

# Ten thousand observations as the telescope names them, 309 s apart.
NAMES = [f"{datetime(2026, 1, 1) + timedelta(seconds=309 * k):%Y-%m-%dT%H:%M:%S}" for k in range(10_000)]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_fractions_are_met_within_statistics(fraction):
    hits = np.array([in_rollout(name, fraction) for name in NAMES])
    sigma = np.sqrt(fraction * (1 - fraction) / hits.size)
    assert abs(hits.mean() - fraction) < 4 * sigma
    # Neighbours in time are independent, so that no hour is seeded altogether.
    both = (hits[1:] & hits[:-1]).mean()
    assert abs(both - fraction**2) < 4 * np.sqrt(fraction**2 / hits.size)


def test_all_and_none():
    assert all(in_rollout(name, 1.0) for name in NAMES)
    assert not any(in_rollout(name, 0.0) for name in NAMES)


def test_a_larger_fraction_holds_the_smaller():
    small, large = ({n for n in NAMES if in_rollout(n, f)} for f in (0.1, 0.3))
    assert small < large


def test_the_choice_is_the_same_everywhere_and_for_ever():
    """Pinned: another hash would change what is seeded in the middle of a rollout."""
    assert [n for n in NAMES[:40] if in_rollout(n, 0.1)] == [
        "2026-01-01T00:05:09",
        "2026-01-01T00:25:45",
        "2026-01-01T00:41:12",
        "2026-01-01T00:51:30",
        "2026-01-01T01:06:57",
        "2026-01-01T01:53:18",
        "2026-01-01T02:03:36",
        "2026-01-01T02:19:03",
        "2026-01-01T02:24:12",
        "2026-01-01T03:15:42",
    ]


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "seeded"),
        ({"shadow": True}, "shadow"),
        ({"rollout": 0}, "unseeded"),
        ({"rollout": 0, "shadow": True}, "unseeded"),
        ({"use_nvss_seeding": False}, "unseeded"),
        ({"use_nvss_seeding": False, "shadow": True}, "unseeded"),
    ],
)
def test_modes(options, mode):
    assert choose_mode("2026-01-25T22:26:05", PipelineConfig(**options)) == mode


def test_one_switch_off(monkeypatch):
    monkeypatch.setenv("CONTIMG_USE_NVSS_SEEDING", "0")
    monkeypatch.setenv("CONTIMG_ROLLOUT", "1")
    assert choose_mode("2026-01-25T22:26:05", PipelineConfig.load()) == "unseeded"
