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
from dsa110_contimg.imaging.plot import Panel, add_panel
from dsa110_contimg.selfcal.imaging import CalibratedImage

__all__ = ["save_overview"]


def save_overview(
    path: Path,
    grid: ImageGrid,
    initial: CalibratedImage,
    final: CalibratedImage,
    tables: Sequence[GainTable],
    first_time_s: float,
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
        phase = figure.add_subplot(cells[1, :3])
        amplitude = figure.add_subplot(cells[1, 3:])
        times = np.unique(np.concatenate([next(iter(t.gains.values())).time_s for t in tables]))
        spw = min(tables[0].gains)
        gain, solved = gains_at_times(tables, [spw], times, tables[0].gains[spw].n_antennas)
        minutes = (times - first_time_s) / 60
        shown = np.where(solved, gain, np.nan).reshape(times.size, -1)
        degrees = np.degrees(np.angle(shown))
        phase.plot(minutes, degrees, ".", ms=2.5, alpha=0.6)
        phase.set_prop_cycle(None)
        # Where a phase passes 180 degrees its line would cross the picture: it is broken there.
        wraps = np.abs(np.diff(degrees, axis=0)) > 180
        between = np.where(wraps, np.nan, (degrees[1:] + degrees[:-1]) / 2)
        places = np.arange(1, len(degrees))
        line = np.insert(degrees, places, between, axis=0)
        phase.plot(np.insert(minutes, places, (minutes[1:] + minutes[:-1]) / 2), line, lw=0.6, alpha=0.6)
        phase.set(title="phase of every antenna and polarisation", xlabel="minutes", ylabel="degrees")
        phase.set_ylim(-185, 185)
        amplitude.plot(minutes, np.abs(shown), ".-", lw=0.6, ms=2.5, alpha=0.6)
        amplitude.set(title="amplitude of every antenna and polarisation", xlabel="minutes")
        for axes in (phase, amplitude):
            axes.grid(alpha=0.3)
    save_figure(path, figure, dpi=100)
