"""The report of a comparison as text, and one figure; JSON lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsa110_contimg.compare.arms import BASELINE
from dsa110_contimg.compare.common_images import CommonImages
from dsa110_contimg.files import save_figure, write_text
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.plot import LEFT, RIGHT, Panel, add_axes, add_row, row_size

__all__ = [
    "FIGURE",
    "REPORT",
    "RESULTS",
    "TABLES",
    "before_line",
    "notes_of",
    "text_report",
    "write_report",
]

logger = logging.getLogger(__name__)

RESULTS = "comparison_results.json"
REPORT = "comparison_report.txt"
FIGURE = "comparison.png"
#: Inches: height of the bars in it, room below and above them, and between two plots.
BARS_HEIGHT, BARS_BELOW, BARS_ABOVE, BARS_GAP = 2.6, 0.4, 0.5, 0.3
NONE = "-"

Arm = Mapping[str, Any]


def _number(value: Any, form: str) -> str:
    return NONE if value is None else format(value, form)


def _figure(which: str, key: str, form: str, scale: float = 1.0) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        value = arm["figures"][which][key] if arm["figures"] else None
        return _number(None if value is None else value * scale, form)

    return cell


def _offset(which: str) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        offset = arm["figures"][which]["offset_arcsec"] if arm["figures"] else None
        return NONE if offset is None else f"{offset[0]:+.2f} {offset[1]:+.2f}"

    return cell


def _flux(which: str) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        figures = arm["figures"][which] if arm["figures"] else None
        if figures is None or figures["flux_ratio"] is None:
            return NONE
        return f"{figures['flux_ratio']:.3f} ({figures['flux_ratio_n']})"

    return cell


def _stage(name: str) -> Callable[[Arm], str]:
    return lambda arm: _number(arm["seconds"] and arm["seconds"][name], ".1f")


def _of(key: str, form: str = "") -> Callable[[Arm], str]:
    return lambda arm: _number(arm[key], form)


Column = tuple[str, Callable[[Arm], str]]

#: Tables of the report: title, what it says, columns.
TABLES: tuple[tuple[str, str, tuple[Column, ...]], ...] = (
    (
        "What was run",
        "An arm counts whatever became of it. The model is what the gains were solved against. Held-out "
        "chi-squared: what gains solved on every other channel leave on the remaining ones, in units of the "
        "thermal variance (1 is noise alone); comparable only between arms with the same kind of model.",
        (
            ("arm", _of("name")),
            (
                "status",
                lambda a: a["status"] if a["run_status"] is None else f"{a['status']}: {a['run_status']}",
            ),
            ("seeds", _of("n_seeds", "d")),
            ("seed Jy", _of("seed_flux_jy", ".3f")),
            ("model", lambda a: "+".join(a["model"]) if a["model"] else NONE),
            ("rounds", _of("iterations", "d")),
            ("best", _of("best_iteration", "d")),
            ("solved", _of("solved_fraction", ".3f")),
            ("chi2 held out", _of("chi2_heldout", ".4g")),
        ),
    ),
    (
        "Equal conditions",
        "Standard images of DATA with the gains of each arm: same data, weights, off-source region, and "
        "CLEANed to the depth of the image before. Gain is the signal to noise over that of the data before.",
        (
            ("arm", _of("name")),
            ("SNR", _figure("shallow", "snr", ".1f")),
            ("gain", _of("improvement_factor", ".2f")),
            ("dyn. range", _figure("shallow", "dynamic_range", ".1f")),
            ("rms mJy", _figure("shallow", "rms_jy", ".4g", 1e3)),
            ("rms/thermal", _figure("shallow", "thermal_ratio", ".2f")),
            ("flux ratio (n)", _flux("shallow")),
            ("offset arcsec", _offset("shallow")),
        ),
    ),
    (
        "Own depth, catalogue subtracted, and as delivered",
        "The same images CLEANed to 3 sigma of their own; the same again with all of the catalogue "
        "subtracted before CLEAN and restored after it, from unseeded arms too, so that what is left is "
        "theirs: errors of phase, flux and position; and the final image that the arm left: weights of its "
        "own gains, thermal rms by its own measurement, for seeded arms with their sky model subtracted.",
        (
            ("arm", _of("name")),
            ("SNR deep", _figure("deep", "snr", ".1f")),
            ("rms/thermal", _figure("deep", "thermal_ratio", ".2f")),
            ("flux ratio (n)", _flux("deep")),
            ("offset arcsec", _offset("deep")),
            ("SNR subtracted", _figure("subtracted", "snr", ".1f")),
            ("rms/thermal", _figure("subtracted", "thermal_ratio", ".2f")),
            ("SNR delivered", _figure("delivered", "snr", ".1f")),
            ("rms mJy", _figure("delivered", "rms_jy", ".4g", 1e3)),
            ("rms/thermal", _figure("delivered", "thermal_ratio", ".2f")),
        ),
    ),
    (
        "Seconds",
        "Wall clock of each stage, measured by the run itself; process is from its start to its end.",
        (
            ("arm", _of("name")),
            *(
                (stage, _stage(stage))
                for stage in ("total", "read", "predict", "gather", "solve", "measure", "image", "write")
            ),
            ("process", _of("wall_s", ".1f")),
        ),
    ),
)


def before_line(results: Mapping[str, Any]) -> str:
    """Say what the data as found are like, and how the images are measured."""
    before = results["before"]
    if before is None:
        return "No arm was completed: nothing could be compared."
    flux = "" if before["flux_ratio"] is None else f", flux ratio {before['flux_ratio']:.3f}"
    return (
        f"Data as found: signal to noise {before['snr']:.1f}, rms {1e3 * before['rms_jy']:.4g} mJy "
        f"({before['thermal_ratio']:.2f} x thermal){flux}; CLEANed to {1e3 * results['depth_jy']:.4g} mJy. "
        f"Off source: {100 * results['region_fraction']:.0f} % of the image, "
        f"{results['region_beams']:.0f} beam areas: a signal to noise is known to "
        f"{100 * results['verdict']['snr_standard_error']:.1f} %. "
        f"Gains that some arm lacks, left out of all images: {100 * results['flagged_fraction']:.1f} %."
    )


def notes_of(results: Mapping[str, Any]) -> list[str]:
    """Say of each arm what became of it, and what has to be known of the figures."""
    notes = []
    for arm in results["arms"]:
        if arm["identical_to"]:
            notes.append(f"{arm['name']} is {arm['identical_to']}, run once: {arm['reason']}.")
        elif arm["reason"]:
            notes.append(f"{arm['name']} {arm['status']}: {arm['reason']}.")
        else:
            notes.append(f"{arm['name']}: {arm['message']}.")
        scale = arm["figures"]["amplitude"] if arm["figures"] else 1.0
        if not arm["identical_to"] and not 0.5 < scale < 2:
            notes.append(f"{arm['name']} set the flux scale: fluxes are {1 / scale:.4g} times those before.")
    for arm in results["arms"]:
        if arm["name"] == BASELINE and arm["status"] == "completed":
            notes.append(
                f"{arm['name']} had no catalogue to look into; its gains were solved against clean "
                f"components alone ({arm['n_seeds']} seeds)."
            )
    same = results["files_hash_before"] == results["files_hash_after"]
    notes.append(f"The Measurement Set's files {'were not touched' if same else 'HAVE CHANGED'}.")
    return notes


def text_report(results: Mapping[str, Any]) -> str:
    """Report as plain text."""
    lines = [
        f"Comparison of self-calibration strategies: {results['ms']}",
        f"field {results['field']}; {results['n_fields']} fields, {results['n_dumps']} dumps, "
        f"{results['n_antennas']} antennas, {results['n_channels']} channels; images of "
        f"{results['image']['size']} pixels of {results['image']['cell_arcsec']:g} arcsec; "
        f"version {results['version']}, {results['written']}",
        "",
        before_line(results),
        "",
    ]
    for title, says, columns in TABLES:
        rows = [[name for name, _ in columns], *([cell(a) for _, cell in columns] for a in results["arms"])]
        widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
        lines += [title, "-" * len(title), says, ""]
        for row in rows:
            cells = [row[k].ljust(w) if k == 0 else row[k].rjust(w) for k, w in enumerate(widths)]
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    lines += ["Notes", "-----", *(f"* {note}" for note in notes_of(results)), ""]
    verdict = results["verdict"]
    lines += ["Criteria", "--------"]
    lines += [f"* {c['name']}: {c['verdict'].upper()} ({c['evidence']})" for c in verdict["criteria"]]
    lines += [
        "",
        "Recommendation",
        "--------------",
        f"{verdict['recommended'] or 'none'}: {verdict['because']}.",
        f"Rule: {verdict['rule']}",
    ]
    return "\n".join(lines) + "\n"


def write_report(
    folder: Path, results: Mapping[str, Any], common: CommonImages | None, grid: ImageGrid
) -> None:
    """Write text and figure into the folder of a comparison."""
    write_text(folder / REPORT, text_report(results))
    (folder / FIGURE).unlink(missing_ok=True)
    if common is not None:
        try:
            _draw(folder / FIGURE, results, common, grid)
        except (ValueError, RuntimeError, OSError) as error:
            # A picture must never fail a finished comparison.
            logger.warning("no picture: %s", error)


def _draw(path: Path, results: Mapping[str, Any], common: CommonImages, grid: ImageGrid) -> None:
    """Images of all arms in the same colours, in units of the catalogue, and bars of what they reached."""
    arms: Sequence[Arm] = [a for a in results["arms"] if a["name"] in common.images]
    shown = [("data as found", common.images["before"], common.before, 1.0)]
    shown += [
        (a["name"], common.images[a["name"]], a["figures"]["deep"], a["figures"]["amplitude"]) for a in arms
    ]
    width, height = row_size(len(shown))
    figure = Figure(figsize=(width, height + BARS_HEIGHT + BARS_BELOW + BARS_ABOVE))
    FigureCanvasAgg(figure)
    lowest = min(f["rms_jy"] * scale for _, _, f, scale in shown)
    panels = [
        Panel(
            title=name,
            figures=f"SNR {figures['snr']:.4g}\n{figures['thermal_ratio']:.3g} x thermal",
            image=image.restored,
            rms_jy=lowest / scale,
            beam=image.cleaned.beam,
        )
        for name, image, figures, scale in shown
    ]
    add_row(figure, panels, grid, BARS_HEIGHT + BARS_BELOW + BARS_ABOVE)
    bars: list[tuple[str, list[float]]] = [
        ("Signal to noise, equal conditions", [a["figures"]["shallow"]["snr"] or 0.0 for a in arms]),
        ("The same, catalogue subtracted", [a["figures"]["subtracted"]["snr"] or 0.0 for a in arms]),
        ("rms / thermal, as delivered", [a["figures"]["delivered"]["thermal_ratio"] or 0.0 for a in arms]),
        ("Seconds", [a["seconds"]["total"] for a in arms]),
    ]
    names = [a["name"].replace("baseline_no_nvss", "baseline").removeprefix("nvss_") for a in arms]
    each = (width - LEFT - RIGHT - 3 * BARS_GAP) / 4
    for k, (title, values) in enumerate(bars):
        axes = add_axes(figure, (LEFT + k * (each + BARS_GAP), BARS_BELOW, each, BARS_HEIGHT))
        axes.barh(range(len(arms)), values, color=["0.6" if not a["seeded"] else "tab:blue" for a in arms])
        axes.set_yticks(range(len(arms)), names if k == 0 else [""] * len(arms), fontsize=11)
        axes.tick_params(axis="x", labelsize=10)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=12)
    save_figure(path, figure, dpi=80)
