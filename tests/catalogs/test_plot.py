"""The picture of what is covered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from dsa110_contimg.catalogs.build import build_strips, catalog_info
from dsa110_contimg.catalogs.plot import draw_coverage
from dsa110_contimg.errors import InputError
from tests.catalogs.files import draw, write_csv


def test_picture_shows_what_is_covered(tmp_path: Path) -> None:
    def filled(name: str, dec_range: tuple[float, float]) -> float:
        build_strips("nvss", tmp_path / "a.csv", tmp_path / name, dec_range)
        draw_coverage(catalog_info(tmp_path / name), tmp_path / f"{name}.png")
        pixels = imread(tmp_path / f"{name}.png")[:, :700, :3]  # without the colour bar
        return float(np.mean(np.ptp(pixels, axis=2) > 0.2))

    write_csv(tmp_path / "a.csv", draw(20_000))
    band, most = filled("band", (25.0, 37.0)), filled("most", (-40.0, 90.0))
    assert 0.02 < band < 0.15
    assert 4 * band < most < 0.8
    assert not list(tmp_path.glob(".*.png"))


def test_nothing_to_draw_and_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no strip to draw"):
        draw_coverage([], tmp_path / "a.png")
    write_csv(tmp_path / "a.csv", draw(2000))
    build_strips("nvss", tmp_path / "a.csv", tmp_path / "cat")
    with pytest.raises(InputError, match=r"name it \.png"):
        draw_coverage(catalog_info(tmp_path / "cat"), tmp_path / "a.docx")
