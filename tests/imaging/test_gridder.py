import weakref

import numpy as np
import pytest

from dsa110_contimg.errors import ImagingError
from dsa110_contimg.imaging import ImageGrid, Imager, StokesI
from dsa110_contimg.imaging.gridder import EPSILON, EPSILON_OF_NOISE
from dsa110_contimg.imaging.stokes import handed_over
from dsa110_contimg.visibilities import NoiseScale

# x, y, Jy: nothing in this sky is symmetric, so a mirrored or turned image cannot pass.
POINTS = [(200.3, 90.7, 1.0), (60.0, 170.2, 0.6), (120.5, 31.1, 0.3)]


@pytest.fixture(scope="module")
def sky(observation):
    ra, dec = observation.sky([(x, y) for x, y, _ in POINTS])
    return observation.points(ra, dec, [flux for *_, flux in POINTS])


def test_trap_10_the_sky_is_not_mirrored(observation, coverage_weight, sky):
    dirty = Imager([observation.chunk(sky, coverage_weight)], observation.grid, "natural").dirty()
    rng = np.random.default_rng(3)
    pixels = [(round(x), round(y)) for x, y, _ in POINTS] + rng.integers(0, 256, (40, 2)).tolist()
    exact = [observation.beam_at(sky, coverage_weight, x, y) for x, y in pixels]
    np.testing.assert_allclose([dirty[y, x] for x, y in pixels], exact, atol=3e-5)
    assert np.unravel_index(dirty.argmax(), dirty.shape) == (91, 200)


def test_weighted_image_is_exact_too(observation, coverage_weight, sky):
    imager = Imager([observation.chunk(sky, coverage_weight)], observation.grid, "briggs", -0.5)
    dirty = imager.dirty()
    for x, y in ((200, 91), (17, 230)):
        exact = observation.beam_at(sky, imager._weights[0].astype(float), x, y)
        assert dirty[y, x] == pytest.approx(exact, abs=3e-5)


@pytest.mark.parametrize("weighting", ["natural", "uniform", "briggs"])
def test_psf_is_one_at_the_central_pixel(observation, coverage_weight, weighting):
    psf = Imager(
        [observation.chunk(np.zeros(observation.shape), coverage_weight)], observation.grid, weighting
    ).psf()
    assert psf[128, 128] == 1
    assert psf.argmax() == 128 * 256 + 128
    assert psf.dtype == np.float32


def test_chunks_add_up(observation, coverage_weight, sky):
    whole = Imager([observation.chunk(sky, coverage_weight)], observation.grid)
    rows = [
        StokesI(observation.uvw[r], observation.freq_hz, sky[r].astype(np.complex64), coverage_weight[r])
        for r in (slice(0, 1000), slice(1000, None))
    ]
    channels = [
        StokesI(
            observation.uvw,
            observation.freq_hz[k],
            np.ascontiguousarray(sky[:, k], np.complex64),
            np.ascontiguousarray(coverage_weight[:, k]),
        )
        for k in (slice(1, 4), slice(0, 1))
    ]
    empty = StokesI(
        observation.uvw[:0],
        observation.freq_hz,
        np.zeros((0, 4), np.complex64),
        np.zeros((0, 4), np.float32),
    )
    backwards = StokesI(
        observation.uvw,
        observation.freq_hz[::-1],
        np.ascontiguousarray(sky[:, ::-1], np.complex64),
        np.ascontiguousarray(coverage_weight[:, ::-1]),
    )
    for parts in (rows, channels, [empty, *rows], [backwards]):
        split = Imager(parts, observation.grid)
        assert split.sum_of_weights == pytest.approx(whole.sum_of_weights)
        np.testing.assert_allclose(split.dirty(), whole.dirty(), atol=1e-5)
        np.testing.assert_allclose(split.psf(), whole.psf(), atol=2e-5)


def test_chunks_that_are_handed_over_are_let_go(observation, coverage_weight, sky):
    half = len(sky) // 2
    chunks = [
        StokesI(observation.uvw[r], observation.freq_hz, sky[r].astype(np.complex64), coverage_weight[r])
        for r in (slice(0, half), slice(half, None))
    ]
    expected, alive = Imager(chunks, observation.grid).dirty(), [weakref.ref(chunk) for chunk in chunks]
    imager = Imager(handed_over(chunks), observation.grid)
    assert not chunks
    assert all(chunk() is None for chunk in alive)
    np.testing.assert_allclose(imager.dirty(), expected, atol=1e-7)


def test_images_at_the_same_weights_share_their_psf(observation, coverage_weight, sky):
    def digest(vis, weight, precision=None):
        chunk = StokesI(observation.uvw, observation.freq_hz, vis, weight, precision)
        return Imager([chunk], observation.grid).weights_digest

    vis, weight = sky.astype(np.complex64), coverage_weight.copy()
    same = digest(vis, weight)
    # Nor does it matter how noisy the data are for their weights.
    assert digest(2 * vis, weight, 0.5 * weight) == same
    weight[3, 1] *= 1.01
    assert digest(vis, weight) != same


def test_two_chunks_of_one_frequency_are_averaged(observation):
    chunks = [observation.chunk(np.full(observation.shape, value)) for value in (1.0, 3.0)]
    assert Imager(chunks, observation.grid).dirty()[128, 128] == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("few", [0, 100])
def test_model_on_the_grid_is_subtracted(observation, monkeypatch, few):
    """Summed up one by one where there are few components, degridded else."""
    monkeypatch.setattr("dsa110_contimg.imaging.gridder.FEW_COMPONENTS", few)
    model = np.zeros((256, 256), np.float32)
    model[91, 200], model[170, 60] = 1.0, -0.5
    ra, dec = observation.sky([(200, 91), (60, 170)])
    imager = Imager([observation.chunk(observation.points(ra, dec, [1.0, -0.5]))], observation.grid)
    assert np.abs(imager.dirty()).max() > 0.9
    assert np.abs(imager.dirty_model_subtracted(model)).max() < 3e-5
    np.testing.assert_allclose(imager.dirty_model_subtracted(0 * model), imager.dirty(), atol=1e-6)


@pytest.mark.parametrize("weighting", ["natural", "briggs"])
def test_thermal_rms_is_that_of_noise_images(observation, coverage_weight, weighting):
    rng = np.random.default_rng(4)
    scale = 2.5
    sigma = scale / np.sqrt(np.where(coverage_weight > 0, coverage_weight, 1))
    images = []
    for _ in range(6):
        chunk = observation.chunk(observation.noise(rng, sigma), coverage_weight)
        images.append(Imager([chunk], observation.grid, weighting).dirty())
    expected = Imager([chunk], observation.grid, weighting).thermal_rms(scale)
    assert np.std(images) == pytest.approx(expected, rel=0.02)


def test_all_flagged_is_refused(observation):
    with pytest.raises(ImagingError, match=r"no unflagged visibility.*check the flags"):
        Imager([observation.chunk(np.ones(observation.shape), np.zeros(observation.shape))], observation.grid)
    with pytest.raises(ImagingError, match="no unflagged visibility"):
        Imager([], observation.grid)


def test_cell_too_large_for_every_baseline_is_refused(observation):
    grid = ImageGrid(64, 0.02, 0, 0)
    with pytest.raises(ImagingError, match="cell"):
        Imager([observation.chunk(np.ones(observation.shape))], grid)


@pytest.mark.parametrize("column", ["uvw", "vis", "weight", "negative"])
def test_not_finite_input_is_refused(observation, column):
    uvw, vis, weight = observation.uvw.copy(), np.ones(observation.shape), np.ones(observation.shape)
    if column == "negative":
        weight[3, 2] = -1
    else:
        {"uvw": uvw, "vis": vis, "weight": weight}[column][3, 2] = np.nan
    chunk = StokesI(uvw, observation.freq_hz, vis.astype(np.complex64), weight.astype(np.float32))
    with pytest.raises(ImagingError, match="visibility chunk 0"):
        Imager([chunk], observation.grid)


def test_model_that_does_not_fit_is_refused(observation):
    imager = Imager([observation.chunk(np.ones(observation.shape))], observation.grid)
    with pytest.raises(ImagingError):
        imager.dirty_model_subtracted(np.zeros((128, 128), np.float32))
    with pytest.raises(ImagingError):
        imager.dirty_model_subtracted(np.full((256, 256), np.nan, np.float32))


def test_a_shared_psf_is_not_made_again(observation, coverage_weight):
    chunk = observation.chunk(np.ones_like(coverage_weight, dtype=np.complex64))
    first, second = Imager([chunk], observation.grid), Imager([chunk], observation.grid)
    second.share_psf(first.psf())
    assert second.psf() is first.psf()
    assert (first.griddings, second.griddings) == (1, 0)


def test_of_noise_alone_an_image_is_less_exact_by_far_less_than_the_noise(observation, coverage_weight):
    vis = observation.noise(np.random.default_rng(9), 1.0).astype(np.complex64)
    weighted = observation.chunk(vis / np.sqrt(np.maximum(coverage_weight, 1e-9)), coverage_weight)
    exact = Imager([weighted], observation.grid).dirty()
    quick = Imager([weighted], observation.grid, noise=NoiseScale.of_real_part(1.0))
    assert quick._epsilon == pytest.approx(EPSILON_OF_NOISE, rel=0.05)
    assert np.std(quick.dirty() - exact) < 1e-3 * np.std(exact)


def test_a_source_leaves_little_of_itself_elsewhere_even_when_gridded_as_noise(observation):
    """Of incoherent data and of a point spread function: the largest error anywhere, not the rms."""
    ra, dec = observation.sky([(61.0, 170.0)])
    chunk = observation.chunk(observation.points(ra, dec, [1.0]))
    exact, quick = (Imager([chunk], observation.grid, incoherent=x) for x in (False, True))
    assert (exact._epsilon, quick._epsilon) == (EPSILON, EPSILON_OF_NOISE)
    assert np.abs(quick.dirty() - exact.dirty()).max() < 1e-4
    # What is known of the noise does not make them more exact.
    quiet = NoiseScale.of_real_part(1e-3)
    assert Imager([chunk], observation.grid, noise=quiet, incoherent=True)._epsilon == EPSILON_OF_NOISE


def test_with_a_bright_sky_in_it_an_image_is_as_exact_as_ever(observation, coverage_weight, sky):
    chunk = observation.chunk(sky, coverage_weight)
    assert Imager([chunk], observation.grid, noise=NoiseScale.of_real_part(1e-3))._epsilon == EPSILON
    assert Imager([chunk], observation.grid)._epsilon == EPSILON
