"""One picture of a run: before, after, what the catalogue does not know, and the gains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.files import save_figure
from dsa110_contimg.imaging import ImageGrid, mad_rms
from dsa110_contimg.imaging.plot import Panel, add_panel
from dsa110_contimg.selfcal.imaging import CalibratedImage

__all__ = ["save_overview"]

#: So many antennas at most are named beside the pictures of the gains.
NAMED = 25


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
    figure = Figure(figsize=(16, 9.6 if tables else 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.add_gridspec(2 if tables else 1, 6, height_ratios=[1.7, 1] if tables else [1])
    third, word = (
        (final.difference, "sky minus catalogue")
        if final.difference is not None
        else (final.cleaned.residual, "residual")
    )
    panels = [(initial.restored, "before"), (final.restored, "after"), (third, word)]
    for number, (image, title) in enumerate(panels):
        rms = mad_rms(image)
        # Not the rms of the summary, which is off source.
        text = f"{title}: all-pixel rms {1e3 * rms:.3g}, peak {1e3 * image.max():.4g} mJy"
        panel = Panel(text, image, rms)
        beam = (initial if number == 0 else final).cleaned.beam
        add_panel(figure, cells[0, 2 * number : 2 * number + 2], panel, grid, beam, label_dec=number == 0)
    if tables:
        _draw_gains(figure, (cells[1, :3], cells[1, 3:]), tables, first_time_s, antennas)
    save_figure(path, figure, dpi=100)


def _draw_gains(
    figure: Figure,
    cells: tuple[SubplotSpec, SubplotSpec],
    tables: Sequence[GainTable],
    first_time_s: float,
    antennas: Sequence[str],
) -> None:
    """Draw phases and amplitudes as pictures, a row for each antenna and polarisation, time to the right.

    Of a hundred antennas curves cover one another; in rows one that drifts, jumps or is lost is seen.
    """
    times = np.unique(np.concatenate([next(iter(t.gains.values())).time_s for t in tables]))
    spw = min(tables[0].gains)
    gain, solved = gains_at_times(tables, [spw], times, len(antennas))
    rows = np.where(solved, gain, np.nan).reshape(times.size, -1).T
    minutes = (times - first_time_s) / 60
    half = 0.5 * float(np.median(np.diff(minutes))) if minutes.size > 1 else 0.5
    between = (minutes[1:] + minutes[:-1]) / 2
    edges = np.concatenate([[minutes[0] - half], between, [minutes[-1] + half]])
    size = np.abs(rows)
    low, high = np.nanquantile(size, (0.01, 0.99)) if np.isfinite(size).any() else (0.0, 1.0)
    drawn = (
        (np.degrees(np.angle(rows)), "phase", "degrees", "twilight", -180.0, 180.0),
        (size, "amplitude", "", "viridis", float(low), float(high)),
    )
    every = max(1, -(-len(antennas) // NAMED))
    for cell, (values, what, unit, colours, lowest, highest) in zip(cells, drawn, strict=True):
        axes = figure.add_subplot(cell)
        axes.set_facecolor("0.6")
        places = np.arange(rows.shape[0] + 1) / 2
        mesh = axes.pcolormesh(
            edges, places, values, cmap=colours, vmin=lowest, vmax=highest, rasterized=True
        )
        figure.colorbar(mesh, ax=axes, label=unit, extend="neither" if unit else "both")
        axes.invert_yaxis()
        axes.set_yticks(np.arange(0, len(antennas), every) + 0.5, antennas[::every], fontsize=7)
        axes.set(title=f"{what} of each antenna, two polarisations (grey: no solution)", xlabel="minutes")
