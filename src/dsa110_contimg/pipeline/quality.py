"""The verdict on a finished self-calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.selfcal.findings import INFORMATION, RECOVERED_RANGE
from dsa110_contimg.selfcal.sky_check import FEWEST_SOURCES

__all__ = ["QualityVerdict", "headline", "judge", "key_figures"]

#: Findings that say, where a run was refused for them, that the sky is not the catalogue's.
CATALOGUE_FAILED = frozenset({"sky", "mirrored", "shifted", "rotated", "few", "beam_width"})
#: Findings that say the same as a figure; the figure is no second reason.
SAYS_RECOVERED = frozenset({"sky", "mirrored", "recovered"})
SAYS_AGREEING = frozenset({"sky", "mirrored", "few"})
#: A recovered fraction within so many of its errors of one is not off.
SIGMAS = 3.0
#: Without these figures no result is known to be good.
DEMANDED = {"thermal_ratio": "noise", "flux_ratio": "flux", "offset_arcsec": "position"}


@dataclass(frozen=True)
class QualityVerdict:
    """Outcome of :func:`judge`.

    Attributes
    ----------
    quality : str
        ``good``; ``unverified``, nothing speaks against it, but a figure that would could
        not be measured; ``kept``, the input was kept as it is and nothing speaks against
        it; or ``bad``.
    reasons : tuple of str
        What is bad, or could not be measured.
    """

    quality: Literal["good", "unverified", "kept", "bad"]
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
        (length of the median offset), ``solved_fraction`` (of the last accepted
        round, else of the last), ``recovered_fraction`` (flux of held-out sources over
        the catalogue's, where it tells), ``agreeing_fraction`` (of held-out sources, where
        there are enough) and ``new_sources`` (in the image, and not in the catalogue); None where
        there is none.
    """
    final = summary["final"]
    rounds = summary["iterations"]
    kept = [r for r in rounds if r["accepted"]] or rounds
    offset = final["offset_arcsec"]
    heldout = summary.get("heldout_sources") or {"tells": False, "n_sources": 0}
    n = heldout["n_sources"]
    return {
        "snr_gain": summary["snr_improvement"],
        "snr": final["snr"],
        "rms_jy": final["rms_jy"],
        "thermal_ratio": final["thermal_ratio"],
        "flux_ratio": final["flux_ratio"],
        "offset_arcsec": math.hypot(*offset) if offset else None,
        "solved_fraction": kept[-1]["solved_fraction"] if kept else None,
        "recovered_fraction": heldout["recovered_fraction"] if heldout["tells"] else None,
        "agreeing_fraction": heldout["n_agreeing"] / n if n >= FEWEST_SOURCES else None,
        "new_sources": (summary.get("sources") or {}).get("n_new"),
    }


def headline(record: Mapping[str, Any]) -> str:
    """Say in a line what came of a run: the verdict, what was published instead, the message.

    Parameters
    ----------
    record : mapping
        What ``record.json`` holds.
    """
    parts = [record["message"]]
    if record.get("fallback"):
        parts.insert(0, f"FELL BACK to unseeded ({record['fallback']})")
    if record.get("quality"):
        why = "" if record["quality"] == "good" else "; ".join(record["reasons"])
        parts.insert(0, record["quality"] + (f" ({why})" if why else ""))
    return ": ".join(parts)


def judge(summary: Mapping[str, Any], config: PipelineConfig) -> QualityVerdict:
    """Judge a self-calibration by its status, its findings and its figures.

    Where the input was kept, its figures are those of the input, and only
    findings count: a catalogue that is of another sky is bad, too little signal
    is not. Without a comparison of noise, flux and position (no source to compare with,
    no catalogue, an unseeded run) nothing is known to be good.

    Parameters
    ----------
    summary : mapping
        What ``selfcal_summary.json`` holds.
    config : PipelineConfig
        The limits.
    """
    status = summary["status"]
    agreeing = key_figures(summary)["agreeing_fraction"]
    enough = agreeing is not None and agreeing >= config.min_agreeing_fraction
    reasons = [
        _reason(f)
        for f in summary.get("findings", ())
        # How many have to agree, where a run was not refused for it, is an option.
        if f["kind"] not in INFORMATION and not (f["kind"] == "few" and not f["status"] and enough)
    ]
    if status == "diverged":
        reasons.insert(0, "diverged")
    elif status not in ("no_improvement", "refused"):
        reasons.extend(_beyond_limits(summary, config))
    if reasons:
        return QualityVerdict("bad", tuple(reasons))
    if status in ("no_improvement", "refused"):
        return QualityVerdict("kept")
    figures = key_figures(summary)
    unknown = [word for key, word in DEMANDED.items() if figures[key] is None]
    if unknown:
        return QualityVerdict("unverified", (f"not compared with anything known: {', '.join(unknown)}",))
    return QualityVerdict("good")


def _reason(finding: Mapping[str, Any]) -> str:
    failed = finding["status"] == "refused" and finding["kind"] in CATALOGUE_FAILED
    return f"the catalogue failed: {finding['text']}" if failed else str(finding["text"])


def _beyond_limits(summary: Mapping[str, Any], config: PipelineConfig) -> Iterator[str]:
    """Say which figures are beyond their limits."""
    figures = key_figures(summary)
    kinds = {f["kind"] for f in summary.get("findings", ())}
    thermal, flux = figures["thermal_ratio"], figures["flux_ratio"]
    offset, solved = figures["offset_arcsec"], figures["solved_fraction"]
    recovered, agreeing = figures["recovered_fraction"], figures["agreeing_fraction"]
    if thermal is not None and thermal > config.max_thermal_ratio:
        yield f"noise {thermal:.2f} x thermal, allowed {config.max_thermal_ratio:g}"
    # A catalogue that is extrapolated in frequency has no flux scale to compare with.
    if flux is not None and abs(flux - 1) > config.max_flux_error and "extrapolated" not in kinds:
        yield f"flux ratio {flux:.3f}, allowed 1 +- {config.max_flux_error:g}"
    if offset is not None and offset > config.max_offset_arcsec:
        yield f"position offset {offset:.2f} arcsec, allowed {config.max_offset_arcsec:g}"
    if summary["status"] == "improved" and solved is not None and solved < config.min_solved_fraction:
        yield f"{100 * solved:.0f} % solved, demanded {100 * config.min_solved_fraction:.0f} %"
    if recovered is not None and not kinds & SAYS_RECOVERED:
        (low, high), error = RECOVERED_RANGE, summary["heldout_sources"]["recovered_error"]
        if not low <= recovered <= high and abs(recovered - 1) > SIGMAS * error:
            yield (
                f"held-out sources have {recovered:.2f} +- {error:.2f} of their catalogue flux, allowed "
                f"{low:g} to {high:g} or {SIGMAS:g} errors"
            )
    if agreeing is not None and agreeing < config.min_agreeing_fraction and not kinds & SAYS_AGREEING:
        n = summary["heldout_sources"]["n_sources"]
        yield (
            f"{100 * agreeing:.0f} % of {n} held-out sources agree with the catalogue, demanded "
            f"{100 * config.min_agreeing_fraction:.0f} %"
        )
