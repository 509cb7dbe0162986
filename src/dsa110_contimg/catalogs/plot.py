"""The sky that strips cover, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsa110_contimg.catalogs.healpix import cell_centres, cell_of
from dsa110_contimg.catalogs.strips import StripInfo, sources_by_cell
from dsa110_contimg.errors import InputError, ResourceError
from dsa110_contimg.files import save_figure

__all__ = ["draw_coverage"]

#: Cells of 1.8 deg, over which sources are counted for the map.
MAP_NSIDE = 32


def draw_coverage(strips: Sequence[StripInfo], path: Path) -> None:
    """Draw what strips cover, and how densely, one all-sky map (Mollweide, RA to the left) per catalogue.

    Parameters
    ----------
    strips : sequence of StripInfo
        As `catalog_info` lists them; at least one.
    path : Path
        PNG, PDF or SVG file.

    Raises
    ------
    InputError
        There is nothing to draw.
    ResourceError
        The file cannot be written.
    """
    catalogs = sorted({strip.catalog for strip in strips}, reverse=True)
    if not catalogs:
        raise InputError("there is no strip to draw", path, "run `contimg catalog build` first")
    figure = Figure(figsize=(9, 4.6 * len(catalogs)), layout="constrained")
    FigureCanvasAgg(figure)
    ra_edges, dec_edges = np.linspace(-180, 180, 721), np.linspace(-90, 90, 361)
    ra, dec = np.meshgrid((ra_edges[:-1] + ra_edges[1:]) / 2, (dec_edges[:-1] + dec_edges[1:]) / 2)
    coarse = cell_of(ra.ravel(), dec.ravel(), MAP_NSIDE).reshape(ra.shape)
    for k, catalog in enumerate(catalogs):
        covered = np.zeros(ra.shape, dtype=bool)
        counts = np.zeros(12 * MAP_NSIDE**2)
        for strip in (s for s in strips if s.catalog == catalog):
            part = strip.coverage
            inside = (dec >= part.dec_min) & (dec < part.dec_max)
            if part.ra_width < 360:
                inside &= (ra - part.ra_min) % 360 <= part.ra_width
            if strip.footprint is not None:
                inside &= strip.footprint.holds(ra.ravel(), dec.ravel()).reshape(ra.shape)
            covered |= inside
            cells, n = sources_by_cell(strip.path)
            np.add.at(counts, cell_of(*cell_centres(cells), MAP_NSIDE), n)
        density = counts * len(counts) / np.degrees(np.degrees(4 * np.pi))
        shown = np.where(covered, density[coarse], np.nan)
        total = sum(strip.n_sources for strip in strips if strip.catalog == catalog)
        axes = figure.add_subplot(len(catalogs), 1, k + 1, projection="mollweide")
        # East is to the left on the sky.
        mesh = axes.pcolormesh(
            np.radians(ra_edges), np.radians(dec_edges), shown[:, ::-1], vmin=0, rasterized=True
        )
        axes.set_xticks(np.radians(np.arange(-120, 180, 60)), [f"{-x % 360}°" for x in range(-120, 180, 60)])
        axes.grid(alpha=0.4)
        axes.set_title(f"{catalog.upper()}: {total:,} sources")
        figure.colorbar(mesh, ax=axes, shrink=0.7, label="sources per square degree")
    try:
        save_figure(path, figure, dpi=110, form=path.suffix.removeprefix("."))
    except ValueError as error:
        raise InputError(f"cannot be drawn ({error})", path, "name it .png, .pdf or .svg") from None
    except OSError as error:
        raise ResourceError(
            f"cannot be written ({error.strerror})", path, "check the folder and its permissions"
        ) from error
