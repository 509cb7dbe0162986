"""Which observations are seeded: all, none, a stable fraction, or all in the shadow."""

from __future__ import annotations

import hashlib
from typing import Literal

from dsa110_contimg.config import PipelineConfig

__all__ = ["Mode", "choose_mode", "in_rollout"]

Mode = Literal["seeded", "unseeded", "shadow"]


def in_rollout(name: str, fraction: float) -> bool:
    """Decide whether an observation belongs to a fraction of all.

    The decision depends on the name alone: it is the same on every machine and
    after every restart, and a larger fraction holds all of a smaller one.

    Parameters
    ----------
    name : str
        Name of the observation.
    fraction : float
        From 0 (none) to 1 (all).
    """
    digest = hashlib.sha256(f"rollout:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def choose_mode(name: str, config: PipelineConfig) -> Mode:
    """Choose how an observation is calibrated and what is published of it.

    ``use_nvss_seeding`` off wins over everything; then ``rollout`` decides; what
    is seeded is published, or with ``shadow`` only recorded.
    """
    if not config.use_nvss_seeding or not in_rollout(name, config.rollout):
        return "unseeded"
    return "shadow" if config.shadow else "seeded"
