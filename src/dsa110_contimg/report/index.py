"""The page of all observations: a table that is searched and sorted, trends over days, a map of antennas."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.files import write_text
from dsa110_contimg.report.rendering import render_page
from dsa110_contimg.report.tables import NONE, PageTable, count, number, page_table
from dsa110_contimg.report.trends import LETTERS, Day, Limits, RunFigures, antenna_map, days_of, trends
from dsa110_contimg.report.varying import Varying, curve_plots

__all__ = ["INDEX", "IndexRow", "is_index", "render_index", "write_index"]

#: Name of the page in the folder of all runs.
INDEX = "index.html"
#: By this a page is known to be ours, and may be replaced.
GENERATOR = "contimg report --index"
#: So many rows stand on the page itself, the latest; a script shows the others.
STATIC_ROWS = 50
#: What is named in the words at the top of the page.
NAMED = 8
#: Signs of verdicts, so that colour is not all that tells them apart.
SIGNS = {"good": "\u2713", "unverified": "?", "kept": "\u25cb", "bad": "\u2715"}
#: Columns of the table: key in the data, title, whether it holds numbers, digits behind the point.
COLUMNS = (
    ("name", "observation", False, 0),
    ("observed", "observed (UTC)", False, 0),
    ("ended", "ended (UTC)", False, 0),
    ("status", "status", False, 0),
    ("verdict", "verdict", False, 0),
    ("seeded", "seeded", False, 0),
    ("thermal", "noise over thermal", True, 3),
    ("flux", "flux ratio", True, 3),
    ("offset", "offset (arcsec)", True, 2),
    ("gain", "SNR gain", True, 2),
    ("seconds", "seconds", True, 1),
    ("version", "version", False, 0),
    ("why", "what is said of it", False, 0),
)


@dataclass(frozen=True, kw_only=True)
class IndexRow(RunFigures):
    """An observation, or a run of self-calibration, in the table.

    Attributes
    ----------
    name : str
        Its name.
    link : str
        Where its page lies as seen from the index, quoted as in an address; empty if there is none.
    ended_at : float or None
        Unix time in seconds.
    status : str
        What came of its run, or that it waits or runs.
    verdict : str
        good, unverified, kept or bad; empty if there is none.
    seeded : bool or None
        Whether what is published was seeded; None if nothing is.
    version : str
        The version of contimg that made it.
    why : str
        What is said of it in a line.
    """

    name: str
    link: str = ""
    ended_at: float | None = None
    status: str = ""
    verdict: str = ""
    seeded: bool | None = None
    version: str = ""
    why: str = ""


def write_index(
    folder: Path, rows: Sequence[IndexRow], limits: Limits, varying: Sequence[Varying] = ()
) -> Path:
    """Write the page of all observations into their folder.

    Parameters
    ----------
    folder : Path
        Folder of all runs, to which links are relative.
    rows : sequence of IndexRow
        Observations in any order.
    limits : Limits
        Beyond which a value is a caution.
    varying : sequence of Varying
        Sources that vary most, and new ones.

    Returns
    -------
    Path
        ``index.html`` in it.

    Raises
    ------
    ResourceError
        If it cannot be written, or a page of that name is not ours.
    """
    path = folder / INDEX
    if path.exists() and not is_index(path):
        raise ResourceError("is no page of contimg", path, "move it away")
    try:
        write_text(path, render_index(folder, rows, limits, varying=varying))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(
            f"cannot be written: {reason}", path, "check the folder, its permissions and space"
        ) from None
    return path


def is_index(path: Path) -> bool:
    """Return whether a file is a page of all observations that contimg has written."""
    try:
        with path.open("rb") as file:
            return f'content="{GENERATOR}"'.encode() in file.read(1024)
    except OSError:
        return False


def render_index(
    folder: Path,
    rows: Sequence[IndexRow],
    limits: Limits,
    now: float | None = None,
    varying: Sequence[Varying] = (),
) -> str:
    """Return the page of all observations as HTML.

    Parameters
    ----------
    folder, rows, limits, varying
        As of :func:`write_index`.
    now : float, optional
        Unix time in seconds at which it is written.
    """
    latest = sorted(rows, key=lambda r: (r.observed_at or -math.inf, r.name), reverse=True)
    days = days_of(latest)
    return render_page(
        "index.html",
        {
            "title": f"Observations of {folder.resolve().name or folder.resolve()}",
            "folder": str(folder.resolve()),
            "generator": GENERATOR,
            "written": _date(time.time() if now is None else now),
            "counts": _counts(latest),
            "attention": _attention(latest),
            "columns": COLUMNS,
            "rows": [(row.link, _texts(row)) for row in latest[:STATIC_ROWS]],
            "n_rows": len(latest),
            "data": _data(latest, limits),
            "statuses": _choices(row.status for row in latest),
            "verdicts": _choices(row.verdict for row in latest),
            "trends": trends(days, limits),
            "antennas": antenna_map(days),
            "letters": LETTERS,
            "days": _day_table(days),
            "varying": curve_plots(varying),
        },
        scripts=("report.js", "index.js"),
    )


def _date(seconds: float | None) -> str:
    return NONE if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _choices(words: Any) -> list[tuple[str, int]]:
    """Return words with how often they occur, the most frequent first."""
    return [(word, n) for word, n in Counter(words).most_common() if word]


def _counts(rows: Sequence[IndexRow]) -> list[tuple[str, str, str]]:
    """Count observations by verdict and status: title, number, meaning."""
    verdicts, statuses = Counter(r.verdict for r in rows), Counter(r.status for r in rows)
    meanings = (
        ("good", "noise, flux and position are within their limits"),
        ("unverified", "nothing speaks against it, but something could not be compared"),
        ("kept", "the input was kept, and nothing speaks against it"),
        ("bad", "a figure is beyond its limit, or a finding speaks against it"),
    )
    found = [("observations", str(len(rows)), "known here, whatever became of them")]
    found += [(word, str(verdicts[word]), meaning) for word, meaning in meanings if verdicts[word]]
    others = (("failed", "ended with an error"), ("queued", "wait"), ("running", "are worked on"))
    return found + [(word, str(statuses[word]), meaning) for word, meaning in others if statuses[word]]


def _attention(rows: Sequence[IndexRow]) -> list[tuple[str, str, str]]:
    """List the latest that need a hand: name, link and why."""
    needy = [r for r in rows if r.verdict == "bad" or r.status in ("failed", "unreadable")]
    return [(r.name, r.link, r.why or r.status) for r in needy[:NAMED]]


def _texts(row: IndexRow) -> list[str]:
    values = _values(row)
    texts = []
    for key, _, numeric, digits in COLUMNS:
        value = values[key]
        if key in ("observed", "ended"):
            texts.append(_date(value))
        elif key == "seeded":
            texts.append(NONE if value is None else "yes" if value else "no")
        elif numeric:
            texts.append(number(value, f".{digits}f"))
        else:
            texts.append(f"{SIGNS.get(value, '')} {value}".strip() if key == "verdict" else value or NONE)
    return texts


def _values(row: IndexRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "observed": row.observed_at,
        "ended": row.ended_at,
        "status": row.status,
        "verdict": row.verdict,
        "seeded": row.seeded,
        "thermal": row.thermal_ratio,
        "flux": row.flux_ratio,
        "offset": row.offset_arcsec,
        "gain": row.snr_gain,
        "seconds": row.seconds,
        "version": row.version,
        "why": row.why,
        "link": row.link,
    }


def _data(rows: Sequence[IndexRow], limits: Limits) -> str:
    """Return the rows as JSON that can stand in a script element, a list for each column."""
    digits = {key: n for key, _, numeric, n in COLUMNS if numeric} | {"observed": 0, "ended": 0}

    def plain(key: str, value: Any) -> Any:
        if key not in digits or value is None:
            return value
        if not math.isfinite(value):
            return None
        return round(value, digits[key]) if digits[key] else int(value)

    values = [_values(row) for row in rows]
    columns: dict[str, Any] = {
        key: [plain(key, v[key]) for v in values] for key in (values[0] if values else {})
    }
    for key in ("status", "verdict", "version"):
        # The same few words again and again.
        words = list(dict.fromkeys(columns.get(key, [])))
        places = {word: k for k, word in enumerate(words)}
        columns[key] = {"words": words, "of": [places[word] for word in columns.get(key, [])]}
    beyond = {
        "thermal": [None, limits.thermal_ratio],
        "flux": [1 - limits.flux_error, 1 + limits.flux_error],
        "offset": [None, limits.offset_arcsec],
    }
    found = {"n": len(rows), "columns": columns, "limits": beyond, "signs": SIGNS}
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    # Nothing in it can end the element, or begin a comment.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _day_table(days: Sequence[Day]) -> PageTable:
    heads = [
        "day (UTC)", "observations#", "noise over thermal#", "flux ratio#", "offset (arcsec)#",
        "SNR gain#", "antennas not good#", "seconds#",
    ]  # fmt: skip
    rows = [
        [
            day.date,
            str(len(day.runs)),
            number(day.median(lambda r: r.thermal_ratio), ".3f"),
            number(day.median(lambda r: r.flux_ratio), ".3f"),
            number(day.median(lambda r: r.offset_arcsec), ".2f"),
            number(day.median(lambda r: r.snr_gain), ".2f"),
            number(day.median(lambda r: r.not_good), ".1f"),
            number(day.median(lambda r: r.seconds), ".1f"),
        ]
        for day in reversed(days)
    ]
    return page_table("days-table", f"{count(len(rows), 'day')}, medians of their observations", heads, rows)
