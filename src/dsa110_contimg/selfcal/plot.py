"""One picture of a run: before, after, what the catalogue does not know, and the gains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.files import save_figure
from dsa110_contimg.imaging import ImageGrid, mad_rms
from dsa110_contimg.imaging.plot import LEFT, Panel, add_axes, add_row, row_size
from dsa110_contimg.selfcal.imaging import CalibratedImage

__all__ = ["save_overview"]

#: So many antennas at most are named beside the pictures of the gains.
NAMED = 32
#: Inches: height of the pictures of the gains, room below them for their axis, above them for their titles,
#: and right of each for its colour bar.
GAINS_HEIGHT, GAINS_BELOW, GAINS_ABOVE, BAR_ROOM = 3.6, 0.65, 0.45, 1.25


def save_overview(
    path: Path,
    grid: ImageGrid,
    initial: CalibratedImage,
    final: CalibratedImage,
    tables: Sequence[GainTable],
    first_time_s: float,
    antennas: Sequence[str],
) -> None:
    """Draw the images before and after, the difference or residual, and the gains against time.

    The gains are those of the first spectral window.

    Parameters
    ----------
    path : Path
        PNG file; written beside and renamed.
    grid : ImageGrid
        Grid of the images.
    initial, final : CalibratedImage
        Before and after.
    tables : sequence of GainTable
        Gains that were applied; none if the input was kept.
    first_time_s : float
        Start of the time axis, seconds (MJD UTC).
    antennas : sequence of str
        Names of the antennas.
    """
    width, height = row_size(3)
    below = GAINS_HEIGHT + GAINS_BELOW + GAINS_ABOVE if tables else 0.0
    figure = Figure(figsize=(width, height + below))
    FigureCanvasAgg(figure)
    third, word = (
        (final.difference, "Sky minus catalogue")
        if final.difference is not None
        else (final.cleaned.residual, "Residual")
    )
    shown = (
        ("Before", initial.restored, initial.cleaned.beam),
        ("After" if tables else "After: input kept", final.restored, final.cleaned.beam),
        (word, third, final.cleaned.beam),
    )
    panels = []
    for title, image, beam in shown:
        rms = mad_rms(image)
        # Not the rms of the summary, which is off source.
        figures = f"rms of all pixels {1e3 * rms:.3g} mJy/beam\npeak {1e3 * image.max():.4g} mJy/beam"
        panels.append(Panel(title=title, figures=figures, image=image, rms_jy=rms, beam=beam))
    add_row(figure, panels, grid, below)
    if tables:
        _draw_gains(figure, tables, first_time_s, antennas)
    save_figure(path, figure, dpi=100)


def _draw_gains(
    figure: Figure, tables: Sequence[GainTable], first_time_s: float, antennas: Sequence[str]
) -> None:
    """Draw phases and amplitudes as pictures, two rows for each antenna, time to the right.

    Of a hundred antennas curves cover one another; in rows one that drifts, jumps or is lost is seen.
    """
    times = np.unique(np.concatenate([next(iter(t.gains.values())).time_s for t in tables]))
    spw = min(tables[0].gains)
    gain, solved = gains_at_times(tables, [spw], times, len(antennas))
    rows = np.where(solved, gain, np.nan).reshape(times.size, -1).T
    minutes = (times - first_time_s) / 60
    between = (minutes[1:] + minutes[:-1]) / 2
    half = [0.5 / 60 * _interval_s(tables, times[k]) for k in (0, -1)]
    edges = np.concatenate([[minutes[0] - half[0]], between, [minutes[-1] + half[1]]])
    size = np.abs(rows)
    low, high = np.nanquantile(size, (0.01, 0.99)) if np.isfinite(size).any() else (0.0, 1.0)
    drawn = (
        ("Phase", "degrees", np.degrees(np.angle(rows)), "twilight", -180.0, 180.0),
        ("Amplitude", "amplitude of the gain", size, "viridis", float(low), float(high)),
    )
    every = max(1, -(-len(antennas) // NAMED))
    of_window = f", spectral window {spw}" if len(tables[0].gains) > 1 else ""
    width = (figure.get_size_inches()[0] - LEFT) / 2 - BAR_ROOM
    for number, (title, unit, values, colours, lowest, highest) in enumerate(drawn):
        left = LEFT + number * (width + BAR_ROOM)
        axes = add_axes(figure, (left, GAINS_BELOW, width, GAINS_HEIGHT))
        axes.set_facecolor("0.6")
        places = np.arange(rows.shape[0] + 1) / 2
        mesh = axes.pcolormesh(
            edges, places, values, cmap=colours, vmin=lowest, vmax=highest, rasterized=True
        )
        bar = add_axes(figure, (left + width + 0.15, GAINS_BELOW, 0.14, GAINS_HEIGHT))
        if number == 0:
            figure.colorbar(mesh, cax=bar, ticks=[-180, -90, 0, 90, 180])
        else:
            figure.colorbar(mesh, cax=bar, extend="both", extendfrac=0.03)
        bar.set_ylabel(unit, fontsize=10)
        bar.tick_params(labelsize=10)
        axes.invert_yaxis()
        names = antennas[::every] if number == 0 else []
        axes.set_yticks(np.arange(0, len(antennas), every)[: len(names)] + 0.5, names, fontsize=8)
        axes.tick_params(axis="x", labelsize=10)
        axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
        axes.set_title(
            f"two rows an antenna: its polarisations{of_window}; grey: no solution", loc="right", fontsize=10
        )
        axes.set_xlabel("Time from the start (minutes)", fontsize=11)


def _interval_s(tables: Sequence[GainTable], time_s: float) -> float:
    """Return the length of the shortest solution at a time; a minute where the tables do not tell."""
    gains = [next(iter(t.gains.values())) for t in tables]
    return min(float(g.interval_s[np.abs(g.time_s - time_s).argmin()]) for g in gains) or 60.0
