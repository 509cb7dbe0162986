"""What the catalogue lacks: clean components of the residual image join the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.ndimage

from dsa110_contimg.array_types import Float
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.sky import Seed, SkyModel
from dsa110_contimg.sky.seed import BAND_SAMPLES, mean_apparent_flux

__all__ = ["brighter", "joined", "lacking_sources"]


#: A source joins the seed from this signal to noise, and from this fraction of the seed's flux, on.
MIN_SNR = 20.0
MIN_SHARE = 0.005
#: Components nearer than this many pixels are of one source.
TOGETHER = 3
#: Most components; more are no longer a few sources that a catalogue lacks.
MOST_COMPONENTS = 500
#: Where the beam lets less than this through, a component is a sidelobe of the beam's errors.
MIN_BEAM = 0.02
SPECTRAL_INDEX = -0.75


def lacking_sources(
    seed: Seed, image: CalibratedImage, grid: ImageGrid, pointing: Float, freq_hz: Float
) -> Seed | None:
    """Find what a residual image shows beyond doubt, as components.

    Parameters
    ----------
    seed : Seed
        What was subtracted.
    image : CalibratedImage
        CLEANed image of the rest.
    grid : ImageGrid
        Its grid.
    pointing : ndarray, shape (ntime, 2)
        Where the beam pointed, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        Channels in hertz.

    Returns
    -------
    Seed or None
        Components of the same beam; none if there is nothing to add.
    """
    model = image.cleaned.model
    near = scipy.ndimage.binary_dilation(model != 0, iterations=TOGETHER // 2 + 1)
    island, n = scipy.ndimage.label(near)
    if n == 0:
        return None
    flux = np.abs(scipy.ndimage.sum_labels(model, island, np.arange(n + 1)))
    flux[0] = 0.0
    limit = max(MIN_SNR * image.cleaned.rms, MIN_SHARE * float(seed.apparent_jy.sum()))
    row, column = np.nonzero((model != 0) & (flux >= limit)[island])
    if not 0 < row.size <= MOST_COMPONENTS:
        return None
    sky = SkyModel.points(
        *grid.pixel_to_sky(column, row),
        np.ones(row.size),
        spectral_index=SPECTRAL_INDEX,
        reference_freq_hz=seed.sky.reference_freq_hz,
        prefix="clean",
    )
    band = np.linspace(float(freq_hz.min()), float(freq_hz.max()), BAND_SAMPLES)
    through = mean_apparent_flux(sky, seed.beam, np.unique(pointing, axis=0), band)
    apparent = model[row, column].astype(np.float64)
    seen = through > MIN_BEAM
    if not seen.any():
        return None
    found = replace(sky.select(seen), flux_jy=(apparent / np.maximum(through, MIN_BEAM))[seen])
    return replace(seed, sky=found, apparent_jy=apparent[seen])


def joined(seed: Seed, more: Seed | None) -> Seed:
    """Return the sources of one seed, then those of another; the first as it is if there is none."""
    if more is None:
        return seed
    return replace(
        seed,
        sky=SkyModel.concatenate([seed.sky, more.sky]),
        apparent_jy=np.concatenate([seed.apparent_jy, more.apparent_jy]),
    )


def brighter(seed: Seed, factor: float) -> Seed:
    """Return a seed with all fluxes multiplied by a factor."""
    sky = replace(seed.sky, flux_jy=seed.sky.flux_jy * factor)
    return replace(seed, sky=sky, apparent_jy=seed.apparent_jy * factor)
