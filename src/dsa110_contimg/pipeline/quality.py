"""The verdict on a finished self-calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dsa110_contimg.config import PipelineConfig

__all__ = ["QualityVerdict", "judge", "key_figures"]


@dataclass(frozen=True)
class QualityVerdict:
    """Outcome of :func:`judge`.

    Attributes
    ----------
    quality : str
        ``good``; ``kept``, the input was kept as it is and nothing speaks
        against it; or ``bad``.
    reasons : tuple of str
        What is bad.
    """

    quality: Literal["good", "kept", "bad"]
    reasons: tuple[str, ...] = ()


def key_figures(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Take the figures that are watched from the summary of a self-calibration.

    Parameters
    ----------
    summary : mapping
        What ``selfcal_summary.json`` holds.

    Returns
    -------
    dict
        ``snr_gain``, ``snr``, ``rms_jy``, ``thermal_ratio``, ``flux_ratio``, ``offset_arcsec``
        (length of the median offset) and ``solved_fraction`` (of the last accepted
        round, else of the last); None where there is none.
    """
    final = summary["final"]
    rounds = summary["iterations"]
    kept = [r for r in rounds if r["accepted"]] or rounds
    offset = final["offset_arcsec"]
    return {
        "snr_gain": summary["snr_improvement"],
        "snr": final["snr"],
        "rms_jy": final["rms_jy"],
        "thermal_ratio": final["thermal_ratio"],
        "flux_ratio": final["flux_ratio"],
        "offset_arcsec": math.hypot(*offset) if offset else None,
        "solved_fraction": kept[-1]["solved_fraction"] if kept else None,
    }


def judge(status: str, figures: Mapping[str, float | None], config: PipelineConfig) -> QualityVerdict:
    """Judge a self-calibration by its status and figures.

    Parameters
    ----------
    status : str
        Status of the self-calibration.
    figures : mapping
        As :func:`key_figures` returns them. A figure that could not be measured
        (no source to compare with, an unseeded run) says nothing.
    config : PipelineConfig
        The limits.
    """
    if status == "diverged":
        return QualityVerdict("bad", ("diverged",))
    if status in ("no_improvement", "refused"):
        return QualityVerdict("kept")
    reasons = []
    thermal, flux = figures["thermal_ratio"], figures["flux_ratio"]
    offset, solved = figures["offset_arcsec"], figures["solved_fraction"]
    if thermal is not None and thermal > config.max_thermal_ratio:
        reasons.append(f"noise {thermal:.2f} x thermal, allowed {config.max_thermal_ratio:g}")
    if flux is not None and abs(flux - 1) > config.max_flux_error:
        reasons.append(f"flux ratio {flux:.3f}, allowed 1 +- {config.max_flux_error:g}")
    if offset is not None and offset > config.max_offset_arcsec:
        reasons.append(f"position offset {offset:.2f} arcsec, allowed {config.max_offset_arcsec:g}")
    if status == "improved" and solved is not None and solved < config.min_solved_fraction:
        reasons.append(f"{100 * solved:.0f} % solved, demanded {100 * config.min_solved_fraction:.0f} %")
    return QualityVerdict("bad" if reasons else "good", tuple(reasons))
