"""Rules by which a comparison is judged. They are stated in the report; nothing is decided outside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["RULE", "judge_comparison", "snr_uncertainty"]

#: The rms is a median absolute deviation: its variance is that of a standard deviation over its efficiency
#: on normal noise (Rousseeuw & Croux 1993, J. Am. Stat. Assoc. 88, 1273).
MAD_EFFICIENCY = 0.3674
#: Differences of less than so many standard errors are none.
MEASURABLE_SIGMA = 3.0
MAX_OVERHEAD = 0.5
LARGE_GAIN = 1.5
#: A median flux ratio outside is no better calibration, whatever its signal to noise.
FLUX_RANGE = (0.9, 1.1)
#: Times of two runs nearer than this are equal on a machine that does other things too.
EQUAL_TIME = 1.1

#: A median position offset of more than this fraction of the beam is no better calibration either.
MAX_OFFSET_BEAMS = 0.1

RULE = (
    "An arm qualifies if it completed, was not rolled back, and its sources have a median flux ratio of 0.9 "
    "to 1.1 and a median position within a tenth of the beam of the catalogue (or there is no source to "
    "compare). Of these, arms whose signal to noise under equal conditions is within 3 standard errors of "
    "the highest are equally good. The unseeded arm is passed over for an equally good seeded one that takes "
    "at most 50 % longer. Of the seeded ones left, those count whose delivered image is within the same "
    "error of the best of theirs. The fastest is recommended; of those within 10 % of its time, the one with "
    "the lowest flux limit, which models most of the sky. If no arm qualifies, none is recommended."
)


def snr_uncertainty(region_beams: float) -> float:
    """Relative standard error of a signal to noise whose rms is measured over so many beam areas."""
    return math.sqrt(1 / (2 * MAD_EFFICIENCY * max(region_beams, 1.0)))


def judge_comparison(
    arms: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any] | None,
    region_beams: float,
    beam_arcsec: float,
) -> dict[str, Any]:
    """Give the five success criteria their verdicts and recommend an arm.

    Parameters
    ----------
    arms : sequence of mapping
        Arms as in ``comparison_results.json``.
    before : mapping or None
        Figures of the data as found, at the common depth.
    region_beams : float
        Off-source region in beam areas.
    beam_arcsec : float
        Width of the synthesised beam.

    Returns
    -------
    dict
        ``criteria`` (a list of name, verdict, evidence), ``recommended``,
        ``because``, ``rule`` and ``snr_standard_error``.

    Notes
    -----
    The images of two arms share their noise, so that the error of their ratio is
    taken too large, never too small.
    """
    error = snr_uncertainty(region_beams)
    measured = {a["name"]: a for a in arms if a["figures"] is not None and not a["identical_to"]}
    base = next((a for a in measured.values() if _plain(a)), None)
    seeded = [a for a in measured.values() if a["seeded"]]
    chosen, because = _recommend(list(measured.values()), error, beam_arcsec)
    same = [a["name"] for a in arms if chosen and a["identical_to"] == chosen]
    if same:
        because = f"{because}; the same arm as {', '.join(same)}"
    criteria = [
        _all_complete(arms),
        _gain(seeded, base, error),
        _best_limit(seeded, chosen, because),
        _overhead(seeded, base),
        _no_hangs(arms),
        _large(seeded, base, before),
    ]
    return {
        "criteria": criteria,
        "recommended": chosen,
        "because": because,
        "rule": RULE,
        "snr_standard_error": error,
    }


def _plain(arm: Mapping[str, Any]) -> bool:
    """Whether the catalogue has no part in an arm, neither as a model nor as a mask."""
    return not arm["seeded"] and arm["limit_mjy"] is None


def _criterion(name: str, verdict: bool | None, evidence: str) -> dict[str, Any]:
    return {"name": name, "verdict": {True: "yes", False: "no", None: "cannot be said"}[verdict]} | {
        "evidence": evidence
    }


def _all_complete(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failed = [f"{a['name']}: {a['reason']}" for a in arms if a["status"] in ("failed", "hung")]
    same = sum(a["status"] == "identical" for a in arms)
    evidence = f"{len(arms) - len(failed)} of {len(arms)}" + (
        f", {same} as identical to another" * bool(same)
    )
    return _criterion("all arms complete", not failed, "; ".join([evidence, *failed]))


def _snr(arm: Mapping[str, Any]) -> float:
    return float(arm["figures"]["shallow"]["snr"] or 0.0)


def _best(arms: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return max(arms, key=_snr, default=None)


def _gain(
    seeded: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None, error: float
) -> dict[str, Any]:
    name, best = "measurable gain in signal to noise from seeding", _best(seeded)
    if best is None or base is None or not _snr(base) > 0:
        return _criterion(name, None, "needs a seeded arm and the unseeded one")
    ratio, needed = _snr(best) / _snr(base), 1 + MEASURABLE_SIGMA * math.sqrt(2) * error
    text = f"{best['name']} / {base['name']} = {ratio:.3f}; measurable is a ratio above {needed:.3f}"
    return _criterion(name, ratio > needed, text)


def _best_limit(seeded: Sequence[Mapping[str, Any]], chosen: str | None, because: str) -> dict[str, Any]:
    name = "best flux limit by signal to noise for time"
    limit = next((a["limit_mjy"] for a in seeded if a["name"] == chosen), None)
    if limit is None:
        return _criterion(name, None if not seeded else False, f"no seeded arm is recommended; {because}")
    return _criterion(name, True, f"{limit:g} mJy; {because}")


def _overhead(seeded: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None) -> dict[str, Any]:
    name = f"time overhead of seeding below {100 * MAX_OVERHEAD:.0f} %"
    if base is None or not seeded:
        return _criterion(name, None, "needs a seeded arm and the unseeded one")
    over = {a["name"]: a["seconds"]["total"] / base["seconds"]["total"] - 1 for a in seeded}
    text = ", ".join(f"{k} {100 * v:+.0f} %" for k, v in over.items())
    text += f" of {base['seconds']['total']:.1f} s"
    return _criterion(name, max(over.values()) < MAX_OVERHEAD, text)


def _no_hangs(arms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    hung = [a["name"] for a in arms if a["status"] == "hung"]
    limit = next((a["limit_s"] for a in arms), 0)
    text = f"hung: {', '.join(hung)}" if hung else f"none ran into the limit of {limit:g} s"
    return _criterion("no hangs", not hung, text)


def _large(
    seeded: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    name, best = f"seeding gains more than {LARGE_GAIN:g} x over no seeding", _best(seeded)
    if best is None or base is None or before is None or not min(_snr(base), before["snr"]) > 0:
        return _criterion(name, None, "needs a seeded arm and the unseeded one")
    ratio = _snr(best) / _snr(base)
    text = (
        f"{ratio:.2f} x; over the data as found: {best['name']} {_snr(best) / before['snr']:.2f} x, "
        f"{base['name']} {_snr(base) / before['snr']:.2f} x"
    )
    cleared = [a["figures"]["subtracted"]["snr"] or 0.0 for a in (best, base)]
    if min(cleared) > 0:
        text += f"; with the catalogue subtracted from both {cleared[0] / cleared[1]:.2f} x"
    return _criterion(name, ratio > LARGE_GAIN, text)


def _qualified(arm: Mapping[str, Any], beam_arcsec: float) -> bool:
    figures = arm["figures"]["deep"]
    if arm["run_status"] not in ("improved", "converged"):
        return False
    if figures["flux_ratio"] is None:
        return True
    offset = math.hypot(*figures["offset_arcsec"])
    in_scale = FLUX_RANGE[0] <= figures["flux_ratio"] <= FLUX_RANGE[1]
    return in_scale and offset <= MAX_OFFSET_BEAMS * beam_arcsec


def _recommend(arms: Sequence[Mapping[str, Any]], error: float, beam_arcsec: float) -> tuple[str | None, str]:
    able = [a for a in arms if _qualified(a, beam_arcsec)]
    if not able:
        return None, "no arm improved the data with fluxes and positions of the catalogue"
    within = 1 + MEASURABLE_SIGMA * math.sqrt(2) * error
    equal = [a for a in able if _snr(a) * within >= max(map(_snr, able))]
    base = next((a for a in equal if _plain(a)), None)
    left = [a for a in equal if a["seeded"]]
    if base is not None:
        left = [a for a in left if _seconds(a) <= (1 + MAX_OVERHEAD) * _seconds(base)]
    best = max((a["figures"]["delivered"]["snr"] or 0.0 for a in left), default=0.0)
    left = [a for a in left if (a["figures"]["delivered"]["snr"] or 0.0) * within >= best]
    if not left:
        left = [base] if base is not None else equal
    fastest = min(map(_seconds, left))
    quick = [a for a in left if _seconds(a) <= EQUAL_TIME * fastest]
    chosen = min(quick, key=lambda a: a["limit_mjy"] or 0.0)
    words = [_described(chosen)]
    others = "; ".join(_described(a) for a in equal if a is not chosen)
    if others:
        words.append(f"equal under equal conditions: {others}")
    worse = ", ".join(a["name"] for a in able if a not in equal)
    if worse:
        words.append(f"measurably worse: {worse}")
    unable = ", ".join(a["name"] for a in arms if a not in able)
    if unable:
        words.append(f"not qualified: {unable}")
    return str(chosen["name"]), "; ".join(words)


def _described(arm: Mapping[str, Any]) -> str:
    delivered = arm["figures"]["delivered"]["snr"] or 0.0
    reached = f"signal to noise {_snr(arm):.1f} (delivered {delivered:.1f})"
    return f"{arm['name']}, {reached} in {_seconds(arm):.1f} s"


def _seconds(arm: Mapping[str, Any]) -> float:
    return float(arm["seconds"]["total"])
