"""New sources of a run, each with cut-outs of the images before and after and of their difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Row

from dsa110_contimg.array_types import Image
from dsa110_contimg.imaging import ImageGrid, mad_rms
from dsa110_contimg.report.pictures import Picture, picture
from dsa110_contimg.report.products import AFTER, BEFORE, DIFFERENCE, RunProducts

__all__ = ["BEAM_UNKNOWN", "CutOuts", "NewSources", "new_sources_of"]

#: New sources that are shown, the most significant first, and how many beams they are seen with on a side.
MOST_SHOWN, BEAMS, FEWEST_PIXELS = 12, 16.0, 33
#: Where the beam leaves so much of a flux open there is none to tell.
BEAM_UNKNOWN = 0.5
SHOWN = ((BEFORE, "before"), (AFTER, "after"), (DIFFERENCE, "difference"))


@dataclass(frozen=True)
class CutOuts:
    """A new source.

    Attributes
    ----------
    name, said : str
        What it is called; place, flux and significance in words.
    pictures : list of Picture
        What surrounds it: before, after, difference, as far as there are such images.
    size : int
        Pixels on a side.
    """

    name: str
    said: str
    pictures: list[Picture]
    size: int


@dataclass(frozen=True)
class NewSources:
    """New sources of a run.

    Attributes
    ----------
    n : int
        How many.
    expected : str
        How many false ones are to be expected, in a sentence.
    shown : list of CutOuts
        The most significant.
    """

    n: int
    expected: str
    shown: list[CutOuts]


def new_sources_of(products: RunProducts) -> NewSources | None:
    """Show what is new in a run; None where its image cannot tell, or there is no list of sources."""
    table = products.sources
    if table is None or table.meta.get("n_new") is None:
        return None
    new = table[np.asarray(table["kind"]).astype(str) == "new"]
    sigma = np.asarray(new["flux_jy"], dtype=np.float64) / np.asarray(new["stat_error_jy"], dtype=np.float64)
    meta = table.meta
    n_deep, n_false = int(meta["n_negative"]), float(meta["false_new_expected"])
    expected = (
        f"{100 * float(meta['searched_fraction']):.0f} % of the image was searched, away from listed "
        f"sources, for peaks above {float(meta['threshold_sigma']):g} sigma. By the number as deep on its "
        f"negative side, {n_deep}, about {n_false:.2g} false ones are to be expected."
    )
    # Of whole images: once each, not for every source.
    noise = {
        file: mad_rms(products.images[file].image) or 1.0 for file, _ in SHOWN if file in products.images
    }
    shown = []
    for k in np.argsort(-sigma)[:MOST_SHOWN]:
        row = new[int(k)]
        said = (
            f"right ascension {float(row['ra_deg']):.4f}, declination {float(row['dec_deg']):+.4f} degrees, "
            f"{_flux_in_words(row)}, {sigma[k]:.1f} sigma"
        )
        place = math.radians(float(row["ra_deg"])), math.radians(float(row["dec_deg"]))
        size = 0
        pictures = []
        for file, title in SHOWN:
            if file not in products.images:
                continue
            image = products.images[file]
            major = image.beam.major_rad if image.beam else 4 * image.grid.cell_rad
            part = _part(image.image, image.grid, *place, major)
            if part is None:
                continue
            size = part.shape[0]
            pictures.append(picture(f"{title}, {row['name']}", part, 1, noise[file]))
        shown.append(CutOuts(str(row["name"]), said, pictures, size))
    return NewSources(len(new), expected, shown)


def _flux_in_words(row: Row) -> str:
    """Give the flux and its error; where the beam is hardly known, the flux through it alone."""
    flux, beam = (float(row[name]) for name in ("flux_jy", "beam_error_jy"))
    if beam > BEAM_UNKNOWN * flux:
        return f"{1e3 * float(row['apparent_jy']):.3g} mJy through the beam, too far out for a flux"
    error = math.hypot(beam, *(float(row[f"{kind}_error_jy"]) for kind in ("stat", "scale")))
    return f"{1e3 * flux:.3g} +- {1e3 * error:.2g} mJy"


def _part(image: Image, grid: ImageGrid, ra_rad: float, dec_rad: float, major_rad: float) -> Image | None:
    """Cut the surroundings of a place out of an image; what lies outside it is zero."""
    x, y = (float(v) for v in grid.sky_to_pixel(ra_rad, dec_rad))
    if not (0 <= x < grid.size and 0 <= y < grid.size):
        return None
    half = max(FEWEST_PIXELS, math.ceil(BEAMS * major_rad / grid.cell_rad)) // 2
    padded = np.pad(image, half)
    row, column = round(y), round(x)
    return padded[row : row + 2 * half + 1, column : column + 2 * half + 1]
