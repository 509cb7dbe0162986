"""What the final image shows where the catalogue lists nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Image
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.imaging import RestoringBeam, add_gaussians
from dsa110_contimg.imaging.detection import Detections, find_sources
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.sky import ApparentSky, SkyModel, angular_separation, lmn_from_radec
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, PART, mean_apparent_flux
from dsa110_contimg.sky.beam import PrimaryBeam

__all__ = ["NEW_SIGMA", "NewSources", "beam_error", "find_new_sources"]

#: New sources are found from this many sigma of the image on.
NEW_SIGMA = 5.0
#: Not searched for new sources: this near to listed ones above 5 sigma, and to those above so many sigma; and
#: what is fainter than this part of a source nearby may be its sidelobe.
KEPT_OFF_BEAMS, KEPT_OFF_BRIGHT_BEAMS, BRIGHT_SIGMA = 1.2, 3.0, 100.0
SIDELOBE, SIDELOBE_BEAMS = 0.01, 15.0
#: From so many sigma on a source has sidelobes that could be taken for sources.
SIDELOBE_FLOOR = NEW_SIGMA / SIDELOBE
#: A peak this near to a listed source, in beams, is that source, however faint it is listed.
SAME_BEAMS = 0.6


@dataclass(frozen=True, kw_only=True, eq=False)
class NewSources:
    """What is in the image and not in the catalogue.

    Attributes
    ----------
    ra_rad, dec_rad, position_error_rad : ndarray, shape (n,)
        ICRS places, and the error of either coordinate.
    apparent_jy, error_jy, response : ndarray, shape (n,)
        Flux as seen through the beam, its error by noise, and what the beam lets through.
    beam_error, distance_rad : ndarray, shape (n,)
        As of :class:`SourceFluxes`.
    false_expected : float
        How many false ones there are to expect.
    n_negative : int
        Negative peaks beyond the threshold.
    searched : float
        Fraction of the image that was searched.
    """

    ra_rad: Float
    dec_rad: Float
    position_error_rad: Float
    apparent_jy: Float
    error_jy: Float
    response: Float
    beam_error: Float
    distance_rad: Float
    false_expected: float
    n_negative: int
    searched: float


def find_new_sources(
    data: CalibrationData,
    final: CalibratedImage,
    listed: ApparentSky,
    config: SelfCalConfig,
    noise: Image,
    *,
    left: float,
    pointing_rad: float,
) -> tuple[NewSources, Bool]:
    """Find what the image of calibrated data shows beside the sources of the catalogue.

    Parameters
    ----------
    data : CalibrationData
        The data.
    final : CalibratedImage
        Made with the sky model subtracted and restored.
    listed : ApparentSky
        The catalogue's sources, the first of the sky model.
    config : SelfCalConfig
        Options.
    noise : ndarray, float32, shape (size, size)
        Of the image, Jy/beam.
    left : float
        What gains have left of a source that they were not solved for; it is divided by.
    pointing_rad : float
        Error of the pointing in each direction.

    Returns
    -------
    new : NewSources
    brightened : ndarray of bool, shape (n,)
        Listed sources that a peak turned out to be.
    """
    found = _unlisted(data, final, listed, noise, left)
    return _apart_from_listed(found, listed, final.cleaned.beam, config, data, pointing_rad)


def beam_error(beam: PrimaryBeam, lmn: Float, freq_hz: float, pointing_rad: float) -> Float:
    """Relative error of fluxes where the beam's centre is off by an error in each direction, at most one.

    Parameters
    ----------
    beam : PrimaryBeam
        Primary beam.
    lmn : ndarray, shape (n, 3)
        Direction cosines l, m and n - 1 about its centre.
    freq_hz : float
        Frequency.
    pointing_rad : float
        Standard error in each direction.

    Returns
    -------
    ndarray, shape (n,)
        The gradient of the beam's logarithm times the error.
    """
    step, at = 1e-4 * beam.fwhm_rad(freq_hz), np.array([freq_hz])
    here = np.maximum(beam.power_towards(lmn, at)[:, 0], 1e-12)
    slope = [
        (beam.power_towards(lmn + shift, at) - beam.power_towards(lmn - shift, at))[:, 0] / (2 * step)
        for shift in step * np.eye(3)[:2]
    ]
    return np.minimum(np.hypot(*slope) / here * pointing_rad, 1.0)


def _unlisted(
    data: CalibrationData, final: CalibratedImage, listed: ApparentSky, noise: Image, left: float
) -> Detections:
    """Look for what is in the image beside the catalogue's sources."""
    assert final.subtracted is not None
    grid, beam, model = data.grid, final.cleaned.beam, final.subtracted
    # What the gains were not solved for they have taken a part of; what joined the sky model they know.
    image: Image = (final.cleaned.restored / np.float32(left)).astype(np.float32)
    own = np.array([PART not in name for name in model.sky.name[len(listed) :]], dtype=bool)
    if own.any():
        rows = len(listed) + np.flatnonzero(own)
        sky = model.sky.select(rows)
        l, m = grid.sky_to_lm(sky.ra_rad, sky.dec_rad)  # noqa: E741
        seen = np.isfinite(l)
        shape = sky.major_rad[seen], sky.minor_rad[seen], sky.pa_rad[seen]
        image = add_gaussians(image, grid, l[seen], m[seen], model.apparent_jy[rows][seen], beam, *shape)
    noise = (noise / np.float32(left)).astype(np.float32)
    searched = np.ones(image.shape, dtype=bool)
    for sigma, beams in ((NEW_SIGMA, KEPT_OFF_BEAMS), (BRIGHT_SIGMA, KEPT_OFF_BRIGHT_BEAMS)):
        _cut(searched, grid, listed, noise, sigma, beams * beam.major_rad)
    found = find_sources(image, noise, grid, beam, searched, NEW_SIGMA)
    brightest = listed.apparent_jy > SIDELOBE_FLOOR * float(np.median(noise))
    sky = listed.sky.select(brightest)
    near = angular_separation(found.ra_rad[:, None], found.dec_rad[:, None], sky.ra_rad, sky.dec_rad)
    sidelobe = (SIDELOBE * listed.apparent_jy[brightest] > found.peak_jy[:, None]) & (
        near < SIDELOBE_BEAMS * beam.major_rad
    )
    return _chosen(found, np.asarray(~sidelobe.any(axis=1)))


def _chosen(found: Detections, some: Bool) -> Detections:
    values = {
        name: getattr(found, name)[some]
        for name in ("ra_rad", "dec_rad", "peak_jy", "noise_jy", "position_error_rad")
    }
    return replace(found, **values)


def _cut(
    searched: Bool, grid: ImageGrid, listed: ApparentSky, noise: Image, sigma: float, radius_rad: float
) -> None:
    """Take discs around bright listed sources out of what is searched."""
    x, y = grid.sky_to_pixel(listed.sky.ra_rad, listed.sky.dec_rad)
    reach = radius_rad / grid.cell_rad
    bright = listed.apparent_jy > sigma * float(np.median(noise))
    for k in np.flatnonzero(np.isfinite(x) & bright):
        low, high = (np.array([y[k], x[k]]) + s * reach for s in (-1, 1))
        (top, left), (bottom, right) = np.maximum(np.floor(low), 0), np.minimum(np.ceil(high) + 1, grid.size)
        if top >= bottom or left >= right:
            continue
        rows, columns = np.ogrid[int(top) : int(bottom), int(left) : int(right)]
        inside = (rows - y[k]) ** 2 + (columns - x[k]) ** 2 <= reach**2
        searched[int(top) : int(bottom), int(left) : int(right)] &= ~inside


def _apart_from_listed(
    found: Detections,
    listed: ApparentSky,
    beam: RestoringBeam,
    config: SelfCalConfig,
    data: CalibrationData,
    pointing_rad: float,
) -> tuple[NewSources, Bool]:
    """Tell new sources from listed ones that were too faint to be expected."""
    sky = listed.sky
    away = angular_separation(found.ra_rad[:, None], found.dec_rad[:, None], sky.ra_rad, sky.dec_rad)
    brightened = np.zeros(len(listed), dtype=bool)
    is_new = np.ones(found.ra_rad.size, dtype=bool)
    if len(listed):
        for k in range(found.ra_rad.size):
            nearest = int(np.argmin(away[k]))
            if away[k, nearest] < SAME_BEAMS * beam.major_rad:
                is_new[k], brightened[nearest] = False, True
    some = _chosen(found, is_new)
    middle = data.reader.pointing[len(data.reader.times) // 2]
    distance = angular_separation(some.ra_rad, some.dec_rad, float(middle[0]), float(middle[1]))
    return (
        NewSources(
            ra_rad=some.ra_rad,
            dec_rad=some.dec_rad,
            position_error_rad=some.position_error_rad,
            apparent_jy=some.peak_jy,
            error_jy=some.noise_jy,
            response=_response(some.ra_rad, some.dec_rad, listed, config, data),
            beam_error=beam_error(
                listed.beam,
                lmn_from_radec(some.ra_rad, some.dec_rad, float(middle[0]), float(middle[1])),
                listed.freq_hz,
                pointing_rad,
            ),
            distance_rad=distance,
            false_expected=found.false_expected,
            n_negative=found.n_negative,
            searched=found.searched,
        ),
        brightened,
    )


def _response(
    ra_rad: Float, dec_rad: Float, listed: ApparentSky, config: SelfCalConfig, data: CalibrationData
) -> Float:
    """Return what the beam lets through at given places, mean over band and dumps."""
    sky = SkyModel.points(ra_rad, dec_rad, np.ones(len(ra_rad)), spectral_index=config.spectral_index)
    freq = data.reader.freq_hz
    band = np.linspace(float(freq.min()), float(freq.max()), BAND_SAMPLES)
    pointings = np.unique(data.reader.pointing, axis=0)
    return (
        mean_apparent_flux(sky, listed.beam, pointings, band) / sky.flux_at(np.array([listed.freq_hz]))[:, 0]
    )
