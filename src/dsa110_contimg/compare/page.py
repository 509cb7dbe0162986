"""The page of a comparison, report.html: the verdict, the arms, their images under a slider, each source."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.compare.arms import BASELINE
from dsa110_contimg.compare.common_images import CommonImages
from dsa110_contimg.compare.report import TABLES, before_line, notes_of
from dsa110_contimg.files import write_text
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.report.pictures import Picture, grey_ticks, picture, step_of
from dsa110_contimg.report.plots import Axis, Frame, Plot
from dsa110_contimg.report.rendering import render_page
from dsa110_contimg.report.tables import PageTable, count, number, page_table
from dsa110_contimg.selfcal.naming import REPORT

__all__ = ["render_comparison", "try_page"]

logger = logging.getLogger(__name__)

BEFORE = "before"
FOUND = "data as found"
#: Columns of the tables of arms that hold words.
WORDS = ("arm", "status", "model", "flux ratio (n)", "offset arcsec")
SIGNS = {"yes": "\u2713", "no": "\u2715", "cannot be said": "?"}
STYLES = ("s0 dot", "s1 triangle", "s2 cross")


@dataclass(frozen=True)
class Shots:
    """Images of all states on one grey scale.

    Attributes
    ----------
    images : list of Picture
        The data as found, then the arms.
    size : int
        Pixels on a side.
    left, right : str
        Titles of those that are shown at first.
    greys : list of (float, str)
        Places on the grey scale and their brightness in mJy/beam.
    scale : str
        The grey scale in words.
    """

    images: list[Picture]
    size: int
    left: str
    right: str
    greys: list[tuple[float, str]]
    scale: str


def try_page(
    folder: Path, results: Mapping[str, Any], common: CommonImages | None, grid: ImageGrid
) -> Path | None:
    """Write the page of a comparison that has finished; None, after a warning, if that does not work.

    Parameters
    ----------
    folder : Path
        Folder of the comparison.
    results, common, grid
        As of :func:`render_comparison`.
    """
    try:
        write_text(folder / REPORT, render_comparison(results, common, grid))
    except Exception as error:
        # A page must never fail a finished comparison.
        logger.warning("no page: %s: %s: %s", folder, type(error).__name__, " ".join(str(error).split()))
        # One of an earlier comparison would pass for that of this one.
        with suppress(OSError):
            (folder / REPORT).unlink(missing_ok=True)
        return None
    return folder / REPORT


def render_comparison(results: Mapping[str, Any], common: CommonImages | None, grid: ImageGrid) -> str:
    """Return the page of a comparison as HTML.

    Parameters
    ----------
    results : mapping
        What ``comparison_results.json`` holds.
    common : CommonImages or None
        Images of all arms; None where no arm was completed.
    grid : ImageGrid
        Their grid.
    """
    verdict = results["verdict"]
    sources = results["sources"]
    shown = [BEFORE, *(a["name"] for a in results["arms"] if common and a["name"] in common.images)]
    return render_page(
        "comparison.html",
        {
            "title": f"Comparison of {results['field']}",
            "ms": results["ms"],
            "recommended": verdict["recommended"],
            "because": verdict["because"],
            "rule": verdict["rule"],
            "criteria": [
                (SIGNS.get(c["verdict"], ""), c["verdict"], c["name"], c["evidence"])
                for c in verdict["criteria"]
            ],
            "before": before_line(results),
            "notes": notes_of(results),
            "arms": [
                (title, says, _arm_table(k, title, columns, results["arms"]))
                for k, (title, says, columns) in enumerate(TABLES)
            ],
            "shots": None if common is None else _shots(results, common, grid),
            "plots": _source_plots(sources, _two(results, shown)) if sources else [],
            "compared": [_told(name) for name in _two(results, shown)],
            "styles": STYLES,
            "sources": _source_table(sources, shown) if sources else None,
            "written": results["written"],
            "made_by": results["version"],
        },
    )


def _told(name: str) -> str:
    return FOUND if name == BEFORE else name


def _two(results: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """Name what is set side by side at first: without the catalogue, or as found, and what is recommended."""
    chosen = results["verdict"]["recommended"]
    seeded = [a["name"] for a in results["arms"] if a["seeded"] and a["name"] in shown]
    if chosen is None or chosen == BASELINE or chosen not in shown:
        chosen = next(iter(seeded), shown[-1])
    return [BASELINE if BASELINE in shown and chosen != BASELINE else BEFORE, chosen]


def _arm_table(number_: int, title: str, columns: Sequence[Any], arms: Sequence[Any]) -> PageTable:
    heads = [name + ("" if name in WORDS else "#") for name, _ in columns]
    rows = [[cell(arm) for _, cell in columns] for arm in arms]
    return page_table(
        f"arms-{number_}", f"{count(len(rows), 'arm')}: {title[0].lower()}{title[1:]}", heads, rows
    )


def _shots(results: Mapping[str, Any], common: CommonImages, grid: ImageGrid) -> Shots:
    """Put all images on one grey scale, in the flux units of the data as found."""
    arms = [a for a in results["arms"] if a["name"] in common.images and a["figures"]]
    units = {BEFORE: 1.0} | {a["name"]: float(a["figures"]["amplitude"]) for a in arms}
    noises = [common.before["rms_jy"], *(a["figures"]["deep"]["rms_jy"] * units[a["name"]] for a in arms)]
    rms, step = min(noises), step_of(grid)
    images = [
        picture(_told(name), common.images[name].restored, step, rms, unit) for name, unit in units.items()
    ]
    left, right = _two(results, list(units))
    degrees = math.degrees(grid.size * grid.cell_rad)
    scale = (
        f"All on one grey scale, by the lowest noise of them ({1e3 * rms:.3g} mJy/beam); {degrees:.3g} "
        "degrees across, north up, east to the left, not corrected for the primary beam."
    )
    if any(not 0.99 < unit < 1.01 for unit in units.values()):
        scale += " Fluxes are in the units of the data as found."
    return Shots(images, grid.size // step, _told(left), _told(right), grey_ticks(rms), scale)


def _source_plots(sources: Sequence[Mapping[str, Any]], two: Sequence[str]) -> list[Plot]:
    """Draw flux ratio and offset of each source in two of the images against its flux."""
    flux = np.array([1e3 * s["apparent_jy"] for s in sources])
    values = {
        name: np.array([s["measured"].get(name, [math.nan] * 3) for s in sources], dtype=np.float64)
        for name in two
    }
    x = Axis.around("flux as seen through the beam (mJy)", flux, log=True)
    kinds: tuple[tuple[str, Callable[[Float], Float], list[float]], ...] = (
        ("flux ratio", lambda v: v[:, 0], [1.0]),
        ("offset (arcsec)", lambda v: np.hypot(v[:, 1], v[:, 2]), [0.0]),
    )
    found = []
    for label, of, include in kinds:
        drawn = {name: of(v) for name, v in values.items()}
        told = "; ".join(
            f"{_told(name)}: median {np.nanmedian(y):.3g} of {int(np.isfinite(y).sum())}"
            for name, y in drawn.items()
            if np.isfinite(y).any()
        )
        y = Axis.around(label, np.concatenate(list(drawn.values())), include=include)
        plot = Plot(f"{label.capitalize()} of catalogue sources; {told}", x, y, Frame(height=260))
        plot.add_line("guide", [x.low, x.high], include * 2)
        for style, (name, values_) in zip(STYLES, drawn.items(), strict=False):
            plot.add(style, flux, values_, title=_told(name))
        found.append(plot)
    return found


def _source_table(sources: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> PageTable:
    """List each source with its flux ratio and its offset in every image."""
    heads = ["source", "through the beam (mJy)#"]
    for name in shown:
        heads += [f"{_told(name)}: flux ratio#", f"{_told(name)}: offset (arcsec)#"]
    rows = []
    for source in sources:
        row = [str(source["name"]), number(source["apparent_jy"], ".4g", 1e3)]
        for name in shown:
            ratio, east, north = source["measured"].get(name, (None, None, None))
            row += [number(ratio, ".3f"), number(None if east is None else math.hypot(east, north), ".2f")]
        rows.append(row)
    caption = f"{len(rows)} unresolved isolated sources above 10 sigma in some image, the brightest first"
    return page_table("sources-table", caption, heads, rows)
