"""Visibilities of components through a beam that points somewhere, and of images of clean components."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.predict import predict_components
from dsa110_contimg.selfcal.model_visibilities import ImageVisibilities, SkyVisibilities
from dsa110_contimg.visibilities import SpectralWindow, VisibilityReader

SPEED_OF_LIGHT = 299_792_458.0


def test_an_image_model_is_exact_at_pixel_centres(rng, small_ms):
    field = small_ms.fields[0]
    grid = ImageGrid(256, np.radians(10 / 3600), field.ra_rad, field.dec_rad)
    image = np.zeros((256, 256), np.float32)
    x, y = rng.integers(20, 236, (2, 12))
    image[y, x] = rng.uniform(0.1, 1, 12)
    y, x = np.nonzero(image)
    l, m = grid.pixel_to_lm(x, y)  # noqa: E741
    n = np.sqrt(1 - l**2 - m**2) - 1
    reader = VisibilityReader(small_ms, small_ms.select())
    block = next(iter(reader.blocks()))
    flux = np.repeat(image[y, x, None].astype(float), block.spw.freq_hz.size, axis=1)
    exact = predict_components(block.uvw_m, block.spw.freq_hz, np.column_stack([l, m, n]), flux)
    degridded = ImageVisibilities(image, grid).visibilities(block, reader)
    np.testing.assert_allclose(degridded, exact, atol=2e-4 * image.sum())


def few_sources(data):
    catalogue, index = data.catalog_model, np.arange(5)
    return replace(catalogue, sky=catalogue.sky.select(index), apparent_jy=catalogue.apparent_jy[index])


def test_components_are_seen_through_the_beam_of_their_dump(data):
    """Dishes that stand still: the beam moves over the sources from dump to dump."""
    sky = few_sources(data)
    reader = copy.copy(data.reader)
    drift = 0.01 * (np.arange(reader.times.size) // 2)
    reader.pointing = data.reader.pointing + np.column_stack([drift, np.zeros_like(drift)])
    block = next(iter(reader.blocks()))
    field = reader.ms.field(block.field_id)
    lmn, freq = sky.sky.lmn(field.ra_rad, field.dec_rad), block.spw.freq_hz
    vis = SkyVisibilities(sky).visibilities(block, reader)
    assert vis.shape == (block.rows.size, freq.size)
    for dump, pointing in enumerate(reader.pointing):
        rows = block.time_index == dump
        path = block.uvw_m[rows] @ lmn.T
        turn = np.exp(2j * np.pi * path[..., None] * freq / SPEED_OF_LIGHT)
        expected = np.einsum("rsf,sf->rf", turn, sky.apparent_flux(freq, *pointing))
        np.testing.assert_allclose(vis[rows], expected, atol=1e-4)
    assert not np.allclose(vis, SkyVisibilities(sky).visibilities(block, data.reader), rtol=1e-2)


def test_the_flux_of_short_baselines_is_what_the_beam_lets_through(data):
    sky = few_sources(data)
    block = next(iter(data.reader.blocks()))
    at_zero = replace(block, uvw_m=np.zeros_like(block.uvw_m))
    vis = SkyVisibilities(sky).visibilities(at_zero, data.reader)
    expected = sky.apparent_flux(block.spw.freq_hz, *data.reader.pointing[0]).sum(axis=0)
    np.testing.assert_allclose(vis, np.broadcast_to(expected, vis.shape), rtol=1e-5)


def test_names_stand_in_the_summary(data):
    assert SkyVisibilities(data.catalog_model).name == "seed"
    assert ImageVisibilities(np.zeros((4, 4), np.float32), data.grid).name == "clean"


def test_what_has_to_be_added_to_one_sky_to_get_another(data):
    """Moved, brighter, gone and new components, each predicted with the change of its flux alone."""
    catalogue, n = data.catalog_model, len(data.catalog_model)
    sky = catalogue.sky
    flux, ra = sky.flux_jy.copy(), sky.ra_rad.copy()
    flux[1] *= 1.5
    ra[3] += 1e-5
    kept = np.arange(n) != 5
    other = replace(
        catalogue,
        sky=replace(sky, flux_jy=flux, ra_rad=ra).select(kept),
        apparent_jy=catalogue.apparent_jy[kept],
    )
    change = SkyVisibilities(other).less(SkyVisibilities(catalogue))
    assert sorted(change.sky.sky.flux_jy) == sorted(
        [0.5 * sky.flux_jy[1], sky.flux_jy[3], -sky.flux_jy[3], -sky.flux_jy[5]]
    )
    block = next(iter(data.reader.blocks()))
    whole, first, added = (
        model.visibilities(block, data.reader)
        for model in (SkyVisibilities(other), SkyVisibilities(catalogue), change)
    )
    np.testing.assert_allclose(first + added, whole, atol=1e-6 * catalogue.apparent_jy.sum())
    assert len(SkyVisibilities(other).less(SkyVisibilities(other)).sky) == 0
    wider = replace(catalogue, beam=replace(catalogue.beam, diameter_m=3.0))
    assert SkyVisibilities(wider).less(SkyVisibilities(catalogue)) is None


@pytest.mark.parametrize(
    ("freq_hz", "fewest", "most"),
    [
        (1.3e9 + 244e3 * np.arange(48), 4, 16),
        (np.linspace(1.0e9, 2.0e9, 256), 16, 256),
        (np.linspace(1.9e9, 1.2e9, 128), 16, 128),
        (np.linspace(1.0e9, 2.0e9, 6), 6, 6),
        (np.array([1.4e9]), 1, 1),
    ],
)
def test_a_few_frequencies_tell_the_fluxes_in_all_channels(data, freq_hz, fewest, most):
    """Few of a window of a few MHz; of a gigahertz, with nulls of the beam in it, more, or the channels."""
    rng = np.random.default_rng(5)
    sky = data.catalog_model
    ra, dec = sky.sky.ra_rad + rng.normal(0, 0.1, len(sky)), sky.sky.dec_rad + rng.normal(0, 0.1, len(sky))
    sky = replace(sky, sky=replace(sky.sky, ra_rad=ra, dec_rad=dec))
    window = SpectralWindow(0, 0, freq_hz, np.full(freq_hz.size, 1e6), (9, 12))
    spectra = SkyVisibilities(sky)._of_window(window, data.reader)
    assert fewest <= spectra.values_jy.shape[2] <= most
    for number, pointing in enumerate(np.unique(data.reader.pointing, axis=0)):
        exact = sky.apparent_flux(freq_hz, *pointing)
        found = spectra.by_channel()[number].T
        np.testing.assert_allclose(found, exact, atol=2e-7 * exact.sum(axis=0).max())
