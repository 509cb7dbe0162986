import numpy as np
import pytest

from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.primary_beam import PB_LIMIT, beam_image, correct_for_beam
from dsa110_contimg.sky import AiryBeam, angular_separation

GRID = ImageGrid(600, 40 / 206264.806, 2.5, 0.9)
BEAM = AiryBeam(4.65)
FREQ = np.linspace(1.31e9, 1.5e9, 48)
PIXELS = np.array([[300, 300], [10, 20], [450, 123], [599, 599], [300, 150]])


def exact(x, y, pointing, time_weight, freq_weight):
    ra, dec = GRID.pixel_to_sky(x, y)
    each = [BEAM.power(angular_separation([ra], [dec], *p), FREQ)[0] for p in pointing]
    return np.average(np.average(each, axis=0, weights=time_weight), weights=freq_weight)


@pytest.mark.parametrize("drifting", [False, True])
def test_it_is_the_weighted_mean_over_dumps_and_channels(drifting):
    offset = np.linspace(-0.02, 0.03, 7) if drifting else np.zeros(7)
    pointing = np.stack([2.5 + offset, np.full(7, 0.9)], axis=1)
    rng = np.random.default_rng(2)
    time_weight, freq_weight = rng.uniform(0, 1, 7), rng.uniform(0, 1, 48)
    freq_weight[:20] = 0  # a flagged part of the band
    image = beam_image(GRID, BEAM, pointing, time_weight, FREQ, freq_weight)
    for x, y in PIXELS:
        assert image[y, x] == pytest.approx(exact(x, y, pointing, time_weight, freq_weight), abs=2e-4)
    assert image.max() <= 1.0001
    if not drifting:
        assert image[300, 300] == pytest.approx(1, abs=1e-5)


def test_dividing_recovers_the_flux_and_blanks_the_rest():
    ones = np.ones(1)
    beam = beam_image(GRID, BEAM, np.array([[2.5, 0.9]]), ones, FREQ[:1], ones)
    seen = np.full((600, 600), 3.0, np.float32) * beam
    corrected = correct_for_beam(seen, beam)
    inside = beam >= PB_LIMIT
    np.testing.assert_allclose(corrected[inside], 3.0, rtol=1e-5)
    assert np.isnan(corrected[~inside]).all()
    assert 0.2 < inside.mean() < 0.9
