"""What varies, on the page of all observations: light curves with their error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.report.plots import Axis, Frame, Plot

__all__ = ["Varying", "curve_plots"]

FRAME = Frame(height=230)


@dataclass(frozen=True, kw_only=True, eq=False)
class Varying:
    """A source that varies, or is new.

    Attributes
    ----------
    name, said : str
        What it is called, and what is said of it.
    mjd : ndarray, shape (n,)
        Days.
    flux_jy, error_jy : ndarray, shape (n,)
        Fluxes and their errors.
    """

    name: str
    said: str
    mjd: Float
    flux_jy: Float
    error_jy: Float


def curve_plots(sources: Sequence[Varying]) -> list[tuple[str, str, Plot]]:
    """Draw light curves: name, what is said, plot."""
    found = []
    for source in sources:
        flux, error = 1e3 * source.flux_jy, 1e3 * source.error_jy
        low, high = flux - error, flux + error
        plot = Plot(
            f"Light curve of {source.name}: {flux.size} fluxes from {flux.min():.4g} to {flux.max():.4g} mJy "
            f"between MJD {source.mjd.min():.1f} and {source.mjd.max():.1f}",
            Axis.around("MJD (UTC)", [float(v) for v in source.mjd]),
            Axis.around("flux (mJy)", [float(v) for v in np.concatenate([low, high])]),
            FRAME,
        )
        plot.add_bars("s0 bar", source.mjd, low, high)
        for day, value in zip(source.mjd, flux, strict=True):
            plot.add("s0 dot", float(day), float(value), title=f"MJD {day:.2f}: {value:.4g} mJy")
        found.append((source.name, source.said, plot))
    return found
