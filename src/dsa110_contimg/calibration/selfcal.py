"""Published import path: one line that re-exports self-calibration."""

from dsa110_contimg.selfcal import SelfCalConfig, SelfCalResult, selfcal_ms

__all__ = ["SelfCalConfig", "SelfCalResult", "selfcal_ms"]
