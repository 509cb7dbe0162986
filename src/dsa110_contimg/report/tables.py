"""Tables of a run: sources, antennas, rounds, stages, options, products."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from astropy.table import Table

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.report.cutouts import BEAM_UNKNOWN
from dsa110_contimg.report.products import RunProducts
from dsa110_contimg.report.words import PRODUCTS

__all__ = [
    "Column",
    "PageTable",
    "antenna_table",
    "count",
    "option_table",
    "product_table",
    "round_table",
    "source_table",
    "stage_table",
    "utc",
]

NONE = "\u2013"


@dataclass(frozen=True)
class Column:
    """Head of a column, and whether it holds numbers, or sentences."""

    title: str
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    Attributes
    ----------
    key : str
        Identifies it on the page.
    caption : str
        What it is.
    columns : list of Column
        Heads.
    rows : list of list of str
        Texts.
    links : dict of str to str
        Where texts of the first column lead to.
    """

    key: str
    caption: str
    columns: list[Column]
    rows: list[list[str]]
    links: dict[str, str]


def page_table(
    key: str, caption: str, columns: Sequence[str], rows: list[list[str]], links: dict[str, str] | None = None
) -> PageTable:
    """Make a table; heads of columns of numbers end in #, of sentences in ~."""
    heads = [Column(c.rstrip("#~"), c.endswith("#"), c.endswith("~")) for c in columns]
    return PageTable(key, caption, heads, rows, links or {})


def number(value: Any, form: str = ".4g", scale: float = 1.0) -> str:
    """Write a number; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return NONE
    if not math.isfinite(value):
        return NONE
    text = format(float(value) * scale, form)
    # Nobody reads tens and hundreds with an exponent.
    return f"{float(text):.0f}" if "e+0" in text else text


def count(n: int, what: str) -> str:
    """Write how many of something there are."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def utc(start: Any) -> str:
    """Write when a stage began, which its record has as ISO 8601."""
    return str(start).removesuffix("+00:00").replace("T", " ")


def _rows(table: Table, texts: Sequence[str], forms: Sequence[tuple[str, str, float]]) -> list[list[str]]:
    """Write columns of text, then columns of numbers: name, format and what they are multiplied by."""
    columns = [[str(v) for v in table[name]] for name in texts]
    columns += [[number(float(v), form, scale) for v in table[name]] for name, form, scale in forms]
    return [list(row) for row in zip(*columns, strict=True)]


def source_table(sources: Table) -> PageTable:
    """List every source of the sky model, and what was measured of it."""
    heads = [
        "source", "verdict", "method", "RA (deg)#", "Dec (deg)#", "catalogue flux (mJy)#", "flux (mJy)#",
        "error by noise (mJy)#", "by the flux scale (mJy)#", "by the beam (mJy)#", "through the beam (mJy)#",
        "flux ratio#", "its error#", "east (arcsec)#", "north (arcsec)#", "their error (arcsec)#",
    ]  # fmt: skip
    forms = (
        ("ra_deg", ".4f", 1.0), ("dec_deg", ".4f", 1.0), ("catalog_flux_jy", ".4g", 1e3),
        ("flux_jy", ".4g", 1e3), ("stat_error_jy", ".2g", 1e3), ("scale_error_jy", ".2g", 1e3),
        ("beam_error_jy", ".2g", 1e3), ("apparent_jy", ".4g", 1e3),
        ("ratio", ".3f", 1.0), ("ratio_error", ".2g", 1.0), ("shift_east_arcsec", ".2f", 1.0),
        ("shift_north_arcsec", ".2f", 1.0), ("shift_error_arcsec", ".2f", 1.0),
    )  # fmt: skip
    rows = _rows(sources, ("name", "verdict", "method"), forms)
    flux, beam = (np.asarray(sources[name], dtype=np.float64) for name in ("flux_jy", "beam_error_jy"))
    first = heads.index("flux (mJy)#")
    for k in np.flatnonzero(beam > BEAM_UNKNOWN * flux):
        rows[k][first : first + 4] = [NONE] * 4
    caption = (
        f"{count(len(rows), 'source')}: those of the catalogue that are bright enough, and new ones; "
        "no flux where the error by the beam is more than half of it"
    )
    return page_table("sources-table", caption, heads, rows)


def antenna_table(antennas: Table) -> PageTable:
    """List every antenna and polarisation."""
    heads = [
        "antenna", "polarisation#", "verdict", "solved (%)#", "amplitude over median#", "scatter (%)#",
        "phase step (deg)#", "jumps (%)#", "held-out signal to noise#", "noise factor#", "lost~",
    ]  # fmt: skip
    forms = (
        ("solved_fraction", ".1f", 100.0), ("amplitude", ".3f", 1.0), ("amplitude_scatter", ".1f", 100.0),
        ("phase_step_deg", ".1f", 1.0), ("jumps", ".1f", 100.0), ("heldout_snr", ".4g", 1.0),
        ("noise_factor", ".3g", 1.0),
    )  # fmt: skip
    rows = _rows(antennas, ("antenna", "polarisation", "verdict"), forms)
    # A column of empty texts is read as one of missing values.
    lost = ["" if words is np.ma.masked else str(words) for words in antennas["lost"]]
    if any(lost):
        rows = [[*row, words] for row, words in zip(rows, lost, strict=True)]
    else:
        del heads[-1]
    return page_table(
        "antennas-table", f"{count(len(rows) // 2, 'antenna')}, a row for each polarisation", heads, rows
    )


def round_table(summary: dict[str, Any]) -> PageTable:
    """List every round and why it was accepted or not."""
    heads = [
        "round#", "solved for", "interval (s)#", "gains", "windows", "model", "solved (%)#",
        "signal to noise per gain#", "held-out chi-squared#", "image signal to noise#", "accepted",
        "reason~", "table", "seconds#",
    ]  # fmt: skip
    rows = []
    for this in summary.get("iterations", []):
        rows.append(
            [
                str(this.get("iteration")),
                "phases" if this.get("calmode") == "p" else "amplitudes and phases",
                number(this.get("solint_s")),
                "one per polarisation" if this.get("gain_type") == "G" else "common",
                "together" if this.get("combined_spw") else "each",
                str(this.get("model")),
                number(this.get("solved_fraction"), ".1f", 100.0),
                number(this.get("median_snr")),
                number(this.get("chi2_heldout"), ".5g"),
                number(this.get("snr"), ".5g"),
                "yes" if this.get("accepted") else "no",
                str(this.get("reason")),
                str(this.get("gaintable") or NONE),
                number(this.get("seconds"), ".1f"),
            ]
        )
    return page_table("rounds-table", f"{count(len(rows), 'round')} in their order", heads, rows)


def stage_table(stages: list[dict[str, Any]]) -> PageTable:
    """List every stage: when, how long, what was noted."""
    rows = []
    for this in stages:
        noted = [str(n) for n in this.get("noted") or []]
        if this.get("error"):
            noted.append(f"error: {this['error']}")
        start = utc(this.get("start", ""))
        rows.append([str(this.get("stage")), start, number(this.get("seconds"), ".1f"), "\n".join(noted)])
    return page_table(
        "stages-table", count(len(rows), "stage"), ["stage", "begun (UTC)", "seconds#", "noted~"], rows
    )


def option_table(summary: dict[str, Any]) -> PageTable:
    """List every option, its value, whether that is the default, and what it means."""
    values = summary.get("provenance", {}).get("config", {})
    defaults = json.loads(SelfCalConfig.model_construct().model_dump_json())
    rows = []
    for name, value in values.items():
        known = SelfCalConfig.model_fields.get(name)
        standard = name in defaults and value == defaults[name]
        rows.append(
            [
                name,
                _option(value),
                "default" if standard else f"set (default: {_option(defaults.get(name))})",
                (known.description or "") if known else "",
            ]
        )
    # What was set is what a reader looks for.
    rows.sort(key=lambda row: row[2] == "default")
    n_set = sum(row[2] != "default" for row in rows)
    return page_table(
        "options-table",
        f"{count(len(rows), 'option')}, {n_set} of them set",
        ["option", "value", "default", "meaning~"],
        rows,
    )


def _option(value: Any) -> str:
    if value is None:
        return "not given"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def product_table(products: RunProducts) -> PageTable:
    """List what lies in the folder, with links, and what is missing."""
    summary = products.summary
    listed = [str(n) for n in (summary.get("products") or {}).values()] + [
        str(n) for n in summary.get("gaintables") or []
    ]
    names = list(dict.fromkeys([*PRODUCTS, *listed, *products.missing]))
    rows, links = [], {}
    for name in names:
        path = products.folder / name
        is_own = path.name == name
        there = is_own and path.exists()
        if not there and name not in listed and name not in products.missing:
            continue
        what = PRODUCTS.get(name) or ("gain table for CASA's applycal" if "cal" in path.suffix else "")
        state = products.missing.get(name) or ("there" if there else "is not there")
        size = f"{path.stat().st_size / 1e6:.2f}" if there and path.is_file() else NONE
        rows.append([name, what, size, state])
        if there:
            links[name] = "./" + quote(name) + ("/" if path.is_dir() else "")
    return page_table(
        "products-table", count(len(rows), "product"), ["file", "is", "MB#", "state"], rows, links
    )
