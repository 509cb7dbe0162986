"""Public observations of other arrays: each command ends as the study of them says is right.

The cheapest command of each; `python -m studies.other_arrays` runs all.
"""

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import table

from studies.other_arrays import OBSERVATIONS, outcome, right, unpacked, words


@pytest.mark.shared_data
@pytest.mark.parametrize("of", OBSERVATIONS, ids=lambda of: of.name)
def test_the_image_of_each_is_made_or_refused_in_words(of, shared_data, tmp_path):
    ms = unpacked(of.name, tmp_path)
    run = of.runs[0]
    status, said = outcome(words(run, of, ms, tmp_path, tmp_path / "catalogs"))
    assert right(run, status, said), said
    assert (tmp_path / "im-image.fits").exists() == (status == 0)


@pytest.mark.shared_data
def test_without_a_dish_only_a_catalogue_and_the_beam_need_one(vlba, tmp_path):
    for words_of in (
        ["selfcal", str(vlba), str(tmp_path / "out"), "--catalog-dir", str(tmp_path)],
        ["image", str(vlba), "--name", str(tmp_path / "pb"), "--pb-correct"],
    ):
        status, said = outcome(words_of)
        assert status == 2
        assert "no primary beam: telescope 'VLBA' is unknown" in said


@pytest.mark.shared_data
def test_an_image_of_raw_data_is_the_sum_of_its_visibilities(shared_data, tmp_path):
    """Noise and sidelobes alone, from outside the image too: nothing may fold into it."""
    ms, size, cell = unpacked("tdem", tmp_path), 256, np.radians(0.33 / 3600)
    name, grid = str(tmp_path / "im"), ("--size", str(size), "--cell", "0.33")
    status, said = outcome(
        ["image", str(ms), "--name", name, *grid, "--weighting", "natural", "--clean-iterations", "0"]
    )
    assert status == 0, said
    image = fits.getdata(f"{name}-image.fits")[0, 0]
    with table(str(ms), ack=False) as t, table(f"{ms}/SPECTRAL_WINDOW", ack=False) as windows:
        uvw, data, weight = (t.getcol(name) for name in ("UVW", "DATA", "WEIGHT_SPECTRUM"))
        freq = windows.getcell("CHAN_FREQ", 0)
    weight = weight[:, :, [0, 3]].astype(float)
    stokes_i = (weight * data[:, :, [0, 3]]).sum(axis=2)
    for y, x in ((76, 5), (70, 182), (199, 249), (250, 3)):
        east, north = -(x - size // 2) * cell, (y - size // 2) * cell
        path = uvw @ [east, north, np.sqrt(1 - east**2 - north**2) - 1]
        turned = stokes_i * np.exp(-2j * np.pi * np.outer(path, freq) / 299792458.0)
        assert image[y, x] == pytest.approx(turned.real.sum() / weight.sum(), abs=2e-7)
