"""The page: what stands on it, from the products of a run, and its rendering."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from dsa110_contimg.report.cutouts import new_sources_of
from dsa110_contimg.report.figures import array_plots, choices_of, source_plots
from dsa110_contimg.report.gain_plots import bandpass_panels, gain_panels, polarisations_of
from dsa110_contimg.report.pictures import pictures_of
from dsa110_contimg.report.products import RunProducts
from dsa110_contimg.report.rendering import render_page
from dsa110_contimg.report.tables import (
    antenna_table,
    count,
    number,
    option_table,
    product_table,
    round_table,
    source_table,
    stage_table,
    utc,
)
from dsa110_contimg.report.words import (
    ANOTHER_SKY,
    FEWEST_COMPARED,
    FINDING_DID,
    HEADLINES,
    JUDGED,
    MEANINGS,
    OF_GAINS,
    TO_CHECK,
    UNDONE,
    WHAT_TO_DO,
    WORDS,
)
from dsa110_contimg.selfcal.acceptance import EXPLAINED_CHI2
from dsa110_contimg.selfcal.findings import INFORMATION

__all__ = ["render"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
ARROW = " \u2192 "
#: What the colour of a verdict says; all others leave something open.
MOODS = {"improved": "good", "converged": "good", "refused": "bad", "failed": "bad", "diverged": "bad"}


@dataclass(frozen=True)
class KeyFigure:
    """A figure and what it means."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Verdict:
    """How the run ended.

    Attributes
    ----------
    status, sign, headline : str
        In a word, a sign and a sentence.
    why, what_to_do : str
        The reason; what follows for the reader.
    mood : str
        Class of the style sheet: good, open or bad.
    """

    status: str
    sign: str
    headline: str
    why: str
    what_to_do: str
    mood: str


def render(products: RunProducts, index: str = "") -> str:
    """Return the page of a run as HTML.

    Parameters
    ----------
    products : RunProducts
        What it shows.
    index : str
        Where the page of all observations lies, as seen from this one; empty if there is none.
    """
    summary, problems = products.summary, dict(products.missing)

    def part(name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except Exception as error:
            # Products of a run that was cut short may hold anything; the rest is shown all the same.
            problems[name] = f"cannot be shown ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            logger.warning("report of %s: %s %s", products.folder, name, problems[name])
            return None

    sources, antennas = products.sources, products.antennas
    provenance = summary.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    values: dict[str, Any] = {
        "title": f"Self-calibration of {provenance.get('field') or products.folder.resolve().name}",
        "folder": str(products.folder.resolve()),
        # What cannot be judged is not ticked off.
        "verdict": _verdict(products, part("doubts", lambda: _is_doubtful(summary)) is not False),
        "findings": part("findings", lambda: _findings(summary)) or [],
        "figures": part("key figures", lambda: _key_figures(summary)) or [],
        "pictures": part("images", lambda: pictures_of(products)),
        "pipeline": part("verdict of the pipeline", lambda: _judged(products.verdict)),
        "gains": part("gains", lambda: gain_panels(products)),
        "bandpasses": part("bandpasses", lambda: bandpass_panels(products)) or [],
        "polarisations": part("names of the polarisations", lambda: polarisations_of(products))
        or ("polarisation 0", "polarisation 1"),
        "choices": part("choice of intervals", lambda: choices_of(summary)) or [],
        "source_plots": part("plots of sources", lambda: source_plots(products)) or [],
        "array_plots": part("array", lambda: array_plots(products)) or [],
        "sources": part("table of sources", lambda: source_table(sources) if sources is not None else None),
        "kept": not summary or _is_new(summary),
        "outliers": part("sources that differ", lambda: _outliers(products)) or [],
        "new_sources": part("new sources", lambda: new_sources_of(products)),
        "antennas": part(
            "table of antennas", lambda: antenna_table(antennas) if antennas is not None else None
        ),
        "rounds": part("table of rounds", lambda: round_table(summary)),
        "stages": part("table of stages", lambda: stage_table(products.stages)),
        "options": part("table of options", lambda: option_table(summary)),
        "products": part("table of products", lambda: product_table(products)),
        "seconds": part("timings", lambda: _seconds(summary)) or [],
        "provenance": part("provenance", lambda: _provenance(provenance, products)) or [],
        "problems": problems,
        "words": WORDS,
        "index": index,
    }
    return render_page("report.html", values)


def _verdict(products: RunProducts, doubtful: bool) -> Verdict:
    summary, stages = products.summary, products.stages
    status, why = str(summary.get("status") or ""), str(summary.get("message") or "")
    if not status:
        last = stages[-1] if stages else {}
        error = last.get("error")
        status = "failed" if error else "unfinished"
        where = (
            f"the last stage on record is \u201c{last.get('stage')}\u201d, begun {utc(last.get('start'))} UTC"
        )
        why = (
            f"{error} (stage \u201c{last.get('stage')}\u201d)"
            if error
            else where
            if last
            else "no stage is on record"
        )
    sign, headline = HEADLINES.get(status, ("?", f"Ended as {status}"))
    mood = MOODS.get(status, "open")
    if status in ("improved", "converged") and doubtful:
        sign, headline = "!", f"{headline}, but something speaks against it: see why before it is used"
        mood = "open"
    # The headline has said it.
    why = why.removeprefix(f"{status}: ").removesuffix("; the Measurement Set was not changed")
    what_to_do = WHAT_TO_DO.get(status, "")
    if not summary.get("findings"):
        what_to_do = what_to_do.replace(" the findings and at", "")
    if status == "refused" and _is_of_sky(summary):
        what_to_do = ANOTHER_SKY
    return Verdict(status, sign, headline, why, what_to_do, mood)


def _is_new(summary: dict[str, Any]) -> bool:
    """Whether the result is a new calibration, and not the input."""
    return summary.get("status") == "improved"


def _is_of_sky(summary: dict[str, Any]) -> bool:
    """Whether it is the sky that a run was refused for, and not the signal."""
    findings = summary.get("findings")
    found = [f for f in findings if isinstance(f, dict)] if isinstance(findings, list) else []
    return any(f.get("status") == "refused" for f in found)


def _judged(verdict: dict[str, Any]) -> Verdict | None:
    """Say what the pipeline made of the run; None if it was not the pipeline's."""
    if not verdict:
        return None
    quality = str(verdict["quality"])
    sign, headline, mood = JUDGED[quality]
    reasons = [str(reason) for reason in verdict["reasons"]]
    fallback = verdict.get("fallback")
    if fallback:
        reasons.append(f"FELL BACK to this unseeded run, as the seeded one was no good ({fallback})")
    published = "The image of this run."
    if not verdict["published"]:
        cause = "it is bad" if quality == "bad" else "seeded runs are only recorded"
        published = f"The image of the unseeded run instead, as {cause}."
    return Verdict(quality, sign, headline, "; ".join(reasons), published, mood)


def _is_doubtful(summary: dict[str, Any]) -> bool:
    """Whether a run that improved says itself that its result has to be checked."""
    findings = summary.get("findings") or []
    rounds, best = summary.get("iterations") or [], summary.get("best_iteration") or 0
    left = rounds[best - 1].get("chi2_heldout") if 0 < best <= len(rounds) else None
    noted = (summary.get("noise") or {}).get("note")
    unexplained = left is not None and left > EXPLAINED_CHI2
    return bool(noted) or unexplained or any(f.get("kind") not in INFORMATION for f in findings)


def _findings(summary: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "text": str(f["text"]),
            "did": _did(str(f["kind"]), str(f["status"]), summary.get("status") == "improved"),
            "kind": str(f["kind"]).replace("_", " "),
        }
        for f in summary.get("findings", [])
    ]


def _did(kind: str, status: str, kept: bool) -> str:
    """Say what a finding did to the run, or asks of the reader."""
    if not status and kind not in INFORMATION:
        return TO_CHECK
    if kind in OF_GAINS and not kept:
        return UNDONE
    return FINDING_DID.get(status, status)


def _key_figures(summary: dict[str, Any]) -> list[KeyFigure]:
    first, last = summary.get("initial"), summary.get("final")
    if not isinstance(first, dict) or not isinstance(last, dict):
        return []

    def both(of: Callable[[dict[str, Any]], str]) -> str:
        """Write a figure before and after; once where the input was kept and it is the same."""
        found = [of(which).replace("-", "\u2212") for which in (first, last)]
        return found[1] if found[0] == found[1] and not _is_new(summary) else ARROW.join(found)

    def figure(key: str, form: str) -> str:
        return both(lambda which: number(which.get(key), form))

    def offset(which: dict[str, Any]) -> str:
        found = which.get("offset_arcsec")
        return ", ".join(number(v, "+.2f") for v in found) if found else number(None)

    heldout = summary.get("heldout_sources") or {}
    best = summary.get("best_iteration") or 0
    this = summary["iterations"][best - 1] if best else {}
    agreeing = f"{heldout['n_agreeing']} of {heldout['n_sources']}" if heldout.get("n_sources") else ""
    values = {
        "signal to noise": figure("snr", ".4g"),
        "noise over thermal": figure("thermal_ratio", ".3g"),
        "flux ratio": figure("flux_ratio", ".3f"),
        "position offset (arcsec)": both(offset),
        "sources that agree": agreeing,
        "solved (%)": number(this.get("solved_fraction"), ".1f", 100.0),
        "held-out chi-squared": number(this.get("chi2_heldout"), ".5g"),
        "seconds": number((summary.get("seconds") or {}).get("total"), ".1f"),
    }
    known = {name: value for name, value in values.items() if any(map(str.isdigit, value))}
    n = last.get("flux_ratio_n") or 0
    meanings = dict(MEANINGS)
    if n:
        few = ": so few say little" if n < FEWEST_COMPARED else ""
        meanings["flux ratio"] += f" Here of {count(n, 'source')}{few}."
    return [KeyFigure(name, value, meanings[name]) for name, value in known.items()]


def _outliers(products: RunProducts) -> list[tuple[str, str]]:
    """Name sources that are not as the catalogue has them, with what is wrong, in the order of the list."""
    table, found = products.sources, []
    if table is None:
        return []
    for row in table:
        verdict, ratio = str(row["verdict"]), float(row["ratio"])
        if verdict in ("agrees", "faint", "unmeasured", "new"):
            continue
        listed = f"{1e3 * float(row['catalog_apparent_jy']):.4g} mJy that the catalogue has through the beam"
        said = f"{verdict}, " + (f"{ratio:.3f} times the {listed}" if ratio == ratio else f"of {listed}")
        east, north = (float(row[f"shift_{way}_arcsec"]) for way in ("east", "north"))
        if east == east:
            said += f", {east:+.2f} arcsec east and {north:+.2f} north of its place".replace("-", "\u2212")
        found.append((str(row["name"]), said))
    return found


def _seconds(summary: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(k), number(v, ".1f")) for k, v in (summary.get("seconds") or {}).items()]


def _provenance(provenance: dict[str, Any], products: RunProducts) -> list[tuple[str, str]]:
    tables = [str(t) for t in provenance.get("initial_caltables") or []]
    found = {
        "Measurement Set": provenance.get("ms"),
        "field": provenance.get("field"),
        "initial tables": ", ".join(tables) or ("none" if provenance else None),
        "hash of the data": provenance.get("data_hash"),
        "catalogue": products.summary.get("catalog"),
        "model of one's own": (products.summary.get("model") or {}).get("file"),
        "hash of the catalogue model": provenance.get("catalog_hash"),
        "made by contimg": provenance.get("version"),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]
