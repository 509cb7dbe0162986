"""Draw the pictures of the documents from the output of the demonstration.

    contimg demo && python -m scripts.site.pictures demo-output

The pictures of `docs/tutorial/products-in-python.md` are those that the code of that page saves.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dsa110_contimg.array_types import Image
from dsa110_contimg.files import replacing
from dsa110_contimg.imaging import mad_rms, read_image
from dsa110_contimg.simulate import Truth
from scripts.site.blocks import blocks_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURES = DOCS / "pictures"
PAGE = DOCS / "tutorial" / "products-in-python.md"
#: Most bytes of a picture.
MOST_BYTES = 200_000
#: Pixels on each side of a source in a cut-out.
AROUND = 60


def demonstration(run: Path) -> Figure:
    """Draw the images before and after and the sky minus the catalogue, on the scale of the noise after."""
    names = {"initial-image": "before", "final-image": "after", "final-difference": "sky minus catalogue"}
    figure = Figure(figsize=(11.8, 4.4), layout="constrained")
    images = {name: read_image(run / f"{name}.fits").image for name in names}
    rms = mad_rms(images["final-image"])
    all_axes = figure.subplots(1, 3, sharey=True)
    half = np.degrees(read_image(run / "final-image.fits").grid.cell_rad) * len(images["final-image"]) / 2
    for axes, (name, title) in zip(all_axes, names.items(), strict=True):
        image = images[name]
        # Sources would be lost between the pixels of the picture: the brightest of each square is drawn.
        squares = image.reshape(image.shape[0] // 4, 4, image.shape[1] // 4, 4).max(axis=(1, 3))
        drawn = _grey(axes, squares, half, -3 * rms, 15 * rms)
        axes.set(title=f"{title}: rms {1e3 * mad_rms(image):.2f} mJy/beam", xlabel="east (degrees)")
    all_axes[0].set_ylabel("north (degrees)")
    figure.colorbar(
        drawn, ax=all_axes, label="mJy/beam", extend="both", extendfrac=0.03, pad=0.01, aspect=30, shrink=0.86
    )
    return figure


def _grey(axes: Axes, image_jy: Image, half: float, low_jy: float, high_jy: float) -> AxesImage:
    """Draw an image in mJy/beam, bright sources black, out to `half` to each side."""
    return axes.imshow(
        1e3 * image_jy,
        origin="lower",
        cmap="gray_r",
        vmin=1e3 * low_jy,
        vmax=1e3 * high_jy,
        extent=(half, -half, -half, half),
    )


def hidden(demo: Path) -> Figure:
    """Draw cut-outs around the sources that were hidden in the sky, of the image and of the difference."""
    scene = Truth.read(demo / "demo.truth.npz").scene
    run = demo / "selfcal"
    grid = read_image(run / "final-image.fits").grid
    shown = []
    for kind, title in (("new", "not in the catalogue"), ("variable", "twice its catalogue flux")):
        k = scene.sky_kind.index(kind)
        x, y = grid.sky_to_pixel(scene.sky.ra_rad[k], scene.sky.dec_rad[k])
        shown.append((title, round(float(x)), round(float(y))))
    figure = Figure(figsize=(7.2, 7.6), layout="constrained")
    all_axes = figure.subplots(2, 2, sharex=True, sharey=True)
    half = np.degrees(grid.cell_rad) * 60 * AROUND
    for axes_of, name, word in zip(
        all_axes.T, ("final-image", "final-difference"), ("image", "sky minus catalogue"), strict=True
    ):
        image = read_image(run / f"{name}.fits").image
        rms = mad_rms(image)
        for axes, (title, x, y) in zip(axes_of, shown, strict=True):
            part = image[y - AROUND : y + AROUND, x - AROUND : x + AROUND]
            drawn = _grey(axes, part, half, -5 * rms, 60 * rms)
            axes.set_title(f"{title}\n{word}")
    for axes in all_axes[1]:
        axes.set_xlabel("east (arcmin)")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("north (arcmin)")
    figure.colorbar(
        drawn, ax=all_axes, label="mJy/beam", extend="both", extendfrac=0.03, pad=0.02, aspect=40, shrink=0.9
    )
    return figure


def of_the_page(demo: Path) -> dict[str, bytes]:
    """Run the code of the page on products in Python; return the pictures that it saves, by name."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("demo-output").symlink_to(demo)
            names: dict[str, object] = {}
            # The last block calibrates once more, and saves nothing.
            for block in blocks_of(PAGE, "python")[:-1]:
                exec(compile(block, str(PAGE), "exec"), names)
        finally:
            os.chdir(before)
        return {file.name: file.read_bytes() for file in Path(folder).glob("*.webp")}


def main(demo: Path) -> None:
    """Draw all of them."""
    mpl.use("Agg")
    PICTURES.mkdir(exist_ok=True)
    for name, figure in {
        "demonstration.webp": demonstration(demo / "selfcal"),
        "demonstration-hidden.webp": hidden(demo),
    }.items():
        with replacing(PICTURES / name) as temporary:
            figure.savefig(temporary, format="webp", dpi=110, pil_kwargs={"quality": 80})
    for name, content in of_the_page(demo.resolve()).items():
        with replacing(PICTURES / name) as temporary:
            temporary.write_bytes(content)
    for file in sorted(PICTURES.glob("*.webp")):
        size = file.stat().st_size
        sys.stdout.write(f"{file.name}: {size} bytes\n")
        if size > MOST_BYTES:
            raise SystemExit(f"{file} has more than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
