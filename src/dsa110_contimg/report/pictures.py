"""The images of a run on one grey scale, small enough for a page, and where the sources lie on them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.image import imsave

from dsa110_contimg.array_types import Image
from dsa110_contimg.imaging import ImageGrid, RestoringBeam, mad_rms
from dsa110_contimg.imaging.plot import averaged
from dsa110_contimg.report.plots import SHAPES
from dsa110_contimg.report.products import AFTER, BEFORE, DIFFERENCE, RunProducts

__all__ = [
    "AS_LISTED",
    "Picture",
    "Pictures",
    "SourceMark",
    "data_uri",
    "grey_ticks",
    "picture",
    "pictures_of",
    "step_of",
]

#: Larger images are shown as averages of blocks.
MOST_PIXELS = 1400
#: The grey scale goes from black to white over so many times the noise, as the inverse hyperbolic sine of
#: the brightness over `SOFTENING` times the noise: noise and bright sources are both seen.
BLACK, WHITE, SOFTENING = -5.0, 50.0, 3.0
QUALITY = 82
#: Catalogue sources that are marked: the brightest, and all that are not as the catalogue has them.
MOST_MARKED = 150

#: Shapes of the marks, by verdict of the source report.
SHAPE_OF = {
    "agrees": "ring",
    "faint": "ring",
    "unmeasured": "ring",
    "brighter": "triangle",
    "fainter": "triangle",
    "missing": "cross",
    "moved": "diamond",
    "new": "plus",
    "split": "diamond",
    "part": "diamond",
}
#: Verdicts of sources that nothing is wrong with.
AS_LISTED = ("agrees", "faint", "unmeasured")
TITLES = {BEFORE: "before", AFTER: "after", DIFFERENCE: "sky minus catalogue"}


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes
    ----------
    title, alt : str
        What it is; what is seen.
    uri : str
        Data URI.
    """

    title: str
    alt: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class SourceMark:
    """A source on the images.

    Attributes
    ----------
    x, y : float
        Where, in their pixels from the upper left corner.
    shape : str
        Path of its mark, from there.
    as_listed : bool
        Whether it is as the catalogue has it.
    text : str
        What is known of it.
    """

    x: float
    y: float
    shape: str
    as_listed: bool
    text: str


@dataclass(frozen=True)
class Pictures:
    """The images of a run.

    Attributes
    ----------
    before, after, difference : Picture or None
        What there is.
    size : int
        Pixels on a side.
    marks : list of SourceMark
        Sources, the brightest first.
    n_sources : int
        How many sources the list of sources has on the image.
    greys : list of (float, str)
        Places from 0 (black) to 1 (white) and what brightness they stand for.
    scale : str
        The grey scale in words.
    field : str
        What part of the sky is seen, in words.
    beam : tuple of float, or None
        Ellipse of the beam in the corner: centre (both axes), half axes and angle in degrees.
    """

    before: Picture | None
    after: Picture | None
    difference: Picture | None
    size: int
    marks: list[SourceMark]
    n_sources: int
    greys: list[tuple[float, str]]
    scale: str
    field: str
    beam: tuple[float, float, float, float] | None


def pictures_of(products: RunProducts) -> Pictures | None:
    """Put the images of a run on one grey scale; None without any image."""
    images = products.images
    reference = images.get(AFTER) or images.get(BEFORE)
    if reference is None:
        return None
    grid = reference.grid
    step = step_of(grid)
    n = grid.size // step
    summary = products.summary
    titles = dict(TITLES)
    before = images.get(BEFORE)
    if before is not None and np.array_equal(before.image, reference.image) and AFTER in images:
        # The input was kept: both images are of it.
        images = {name: image for name, image in images.items() if name != BEFORE}
        titles[AFTER] = "of the input, which was kept"
    measured = _get(summary, "final" if AFTER in images else "initial", "rms_jy")
    # An image of zeros has no noise to measure its greys by.
    rms = float(measured or mad_rms(reference.image) or 1.0)
    factor = _unit_factor(summary)
    shown, others = {}, []
    for name, image in images.items():
        if image.image.shape != reference.image.shape:
            others.append(name)
            continue
        times = factor if name == BEFORE and AFTER in images else 1.0
        shown[name] = picture(titles[name], image.image, step, rms, times)
    marks, n_sources = _marks(products.sources, grid, step)
    of = titles[AFTER if AFTER in images else BEFORE]
    scale = (
        f"{'All on one grey scale' if len(shown) > 1 else 'Grey scale'}: black is \u2212{-BLACK:g} times the "
        f"noise of the image {of} "
        f"({1e3 * rms:.3g} mJy/beam), white {WHITE:g} times, compressed in between (inverse hyperbolic sine)."
    )
    if factor != 1.0 and BEFORE in images:
        scale += (
            f" The image before is in other flux units and is shown times {factor:.3g}, by which its thermal "
            "noise is that of the image after."
        )
    if others:
        scale += f" Of another size, as of another run, and not shown: {', '.join(others)}."
    degrees = math.degrees(grid.size * grid.cell_rad)
    averages = f", averages of {step} by {step} pixels" if step > 1 else ""
    return Pictures(
        before=shown.get(BEFORE),
        after=shown.get(AFTER),
        difference=shown.get(DIFFERENCE),
        size=n,
        marks=marks,
        n_sources=n_sources,
        greys=grey_ticks(rms),
        scale=scale,
        field=(
            f"{degrees:.3g} degrees across around right ascension {math.degrees(grid.ra_rad):.3f}, "
            f"declination {math.degrees(grid.dec_rad):+.3f} degrees, north up, east to the left; {grid.size} "
            f"pixels of {math.degrees(grid.cell_rad) * 3600:.3g} arcsec on a side{averages}; not corrected "
            "for the primary beam."
        ),
        beam=None if reference.beam is None else _beam(reference.beam, grid.cell_rad * step, n),
    )


def data_uri(pixels: Any, form: str, **options: Any) -> str:
    """Encode an image, from the bottom up, as a data URI."""
    stream = io.BytesIO()
    imsave(stream, pixels, format=form, origin="lower", **options)
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"


def step_of(grid: ImageGrid) -> int:
    """Return how many pixels on a side are averaged into one of a picture."""
    return math.ceil(grid.size / MOST_PIXELS)


def grey_ticks(rms_jy: float) -> list[tuple[float, str]]:
    """Return places on the grey scale, from 0 (black) to 1, with their brightness in mJy/beam."""
    return [
        (_grey(times), f"{float(f'{1e3 * rms_jy * times:.2g}'):g}".replace("-", "\u2212"))
        for times in (-3.0, 0.0, 3.0, 10.0, 30.0)
    ]


def picture(title: str, image: Image, step: int, rms_jy: float, times: float = 1.0) -> Picture:
    """Put an image on the grey scale.

    Parameters
    ----------
    title : str
        What it is.
    image : ndarray, float32, shape (size, size)
        Jy/beam.
    step : int
        Pixels on a side that are averaged into one.
    rms_jy : float
        The noise by which the greys are measured, Jy/beam.
    times : float
        The image is multiplied by it.
    """
    pixels = averaged(image, step) * times
    greys = np.round(255 * np.clip(_grey(np.nan_to_num(pixels) / rms_jy), 0, 1)).astype(np.uint8)
    own_rms = mad_rms(image)
    peak = float(np.nanmax(image))
    alt = (
        f"Image {title}: noise {1e3 * own_rms:.3g} mJy/beam, brightest pixel {1e3 * peak:.4g} mJy/beam, "
        f"{peak / own_rms if own_rms > 0 else 0:.3g} times the noise"
    )
    options = {"cmap": "gray", "vmin": 0, "vmax": 255, "pil_kwargs": {"quality": QUALITY}}
    return Picture(title, alt, data_uri(greys, "webp", **options))


def _grey(times_noise: Any) -> Any:
    """Place on the grey scale of a brightness in units of the noise: 0 is black, 1 white."""
    low, high = np.arcsinh(BLACK / SOFTENING), np.arcsinh(WHITE / SOFTENING)
    return (np.arcsinh(np.asarray(times_noise) / SOFTENING) - low) / (high - low)


def _unit_factor(summary: Mapping[str, Any]) -> float:
    """Factor by which the input's flux units become those of the result, if they are others."""
    before, after = (_get(summary, which, "thermal_rms_jy") for which in ("initial", "final"))
    return float(after / before) if summary.get("flux_units_changed") and before and after else 1.0


def _get(summary: Mapping[str, Any], which: str, key: str) -> Any:
    part = summary.get(which)
    return part.get(key) if isinstance(part, dict) else None


def _marks(sources: Table | None, grid: ImageGrid, step: int) -> tuple[list[SourceMark], int]:
    """Mark sources on the images, and count all that lie on them."""
    if sources is None:
        return [], 0
    x, y = grid.sky_to_pixel(np.radians(sources["ra_deg"]), np.radians(sources["dec_deg"]))
    n = grid.size // step
    across, down = (np.asarray(x) + 0.5) / step, n - (np.asarray(y) + 0.5) / step
    verdict = np.asarray(sources["verdict"]).astype(str)
    on_image = (across > 0) & (across < n) & (down > 0) & (down < n)
    # What could not be measured is as bright as the catalogue has it.
    seen = np.asarray(sources["apparent_jy"], dtype=np.float64)
    seen = np.where(np.isfinite(seen), seen, np.asarray(sources["catalog_apparent_jy"], dtype=np.float64))
    brightest = np.argsort(-np.abs(seen), kind="stable")
    brightest = brightest[on_image[brightest]]
    odd = ~np.isin(verdict[brightest], AS_LISTED)
    chosen = np.concatenate([brightest[:MOST_MARKED], brightest[MOST_MARKED:][odd[MOST_MARKED:]]])[
        : 2 * MOST_MARKED
    ]
    marks = [
        SourceMark(
            x=round(float(across[k]), 1),
            y=round(float(down[k]), 1),
            shape=SHAPES[SHAPE_OF.get(verdict[k], "ring")],
            as_listed=verdict[k] in AS_LISTED,
            text=_text(sources, int(k), verdict[k]),
        )
        for k in chosen
    ]
    return marks, int(on_image.sum())


def _text(sources: Table, k: int, verdict: str) -> str:
    """Say of a source what is known."""
    apparent = float(sources["apparent_jy"][k])
    apparent_mjy = 1e3 * (apparent if math.isfinite(apparent) else float(sources["catalog_apparent_jy"][k]))
    text = f"{sources['name'][k]}: {apparent_mjy:.3g} mJy as seen through the beam, {verdict}"
    ratio = float(sources["ratio"][k])
    if math.isfinite(ratio):
        east, north = float(sources["shift_east_arcsec"][k]), float(sources["shift_north_arcsec"][k])
        text += f"; flux {ratio:.3f} of the catalogue's"
        if math.isfinite(east):
            text += f", position off by {east:+.2f}, {north:+.2f} arcsec"
    return text


def _beam(beam: RestoringBeam, cell_rad: float, n: int) -> tuple[float, float, float, float]:
    major, minor = beam.major_rad / cell_rad / 2, beam.minor_rad / cell_rad / 2
    # Position angles go from north through east, which is to the left: against the clock on the page.
    return 0.03 * n + major, minor, major, -math.degrees(beam.pa_rad)
