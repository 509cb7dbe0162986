"""A light curve as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dsa110_contimg.files import save_figure
from dsa110_contimg.pipeline.lightcurves import LightCurve
from dsa110_contimg.pipeline.measured_sources import FORCED
from dsa110_contimg.pipeline.variability import structure_function

__all__ = ["save_light_curve"]


def save_light_curve(path: Path, curve: LightCurve) -> None:
    """Draw fluxes against time, and how far apart they are by how far apart in time.

    Parameters
    ----------
    path : Path
        PNG file to write.
    curve : LightCurve
        Of one source, with at least one flux.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    forced = np.array([m == FORCED for m in curve.method], dtype=bool)
    for chosen, mark, words in ((~forced, "o", "measured"), (forced, "v", "not found, read at its place")):
        if chosen.any():
            left.errorbar(
                curve.mjd[chosen],
                1e3 * curve.flux_jy[chosen],
                1e3 * curve.error_jy[chosen],
                fmt=mark,
                ms=3,
                lw=0.8,
                label=words,
            )
    mean = float(np.average(curve.flux_jy, weights=1 / curve.error_jy**2))
    left.axhline(1e3 * mean, color="grey", lw=0.8)
    left.set(xlabel="MJD (UTC)", ylabel="flux (mJy)", title=str(curve.source["name"]))
    if forced.any():
        left.legend(fontsize="small")
    found = structure_function(curve.mjd, curve.flux_jy, curve.error_jy)
    if found:
        right.plot([lag for lag, _, _ in found], [value for _, value, _ in found], "o-", ms=3, lw=0.8)
        right.set_xscale("log")
    right.set(xlabel="lag (days)", ylabel="structure function / mean")
    save_figure(path, figure, dpi=120)
