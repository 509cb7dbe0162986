"""What the final image shows where the catalogue lists nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Image, Int
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.imaging import RestoringBeam
from dsa110_contimg.imaging.detection import Detections, find_sources
from dsa110_contimg.imaging.grid import ImageGrid
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage, add_sources
from dsa110_contimg.sky import AntennaBeams, ApparentSky, SkyModel, angular_separation, lmn_from_radec
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, PART, mean_apparent_flux, response_ratio
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
    by_visibilities : ndarray of bool, shape (n,), optional
        Whether the flux was fitted to the visibilities; otherwise, or if not given, the image was read.
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
    by_visibilities: Bool | None = None


def find_new_sources(
    data: CalibrationData,
    final: CalibratedImage,
    listed: ApparentSky,
    config: SelfCalConfig,
    noise: Image,
    *,
    left: float,
    pointing_rad: float,
    beams: AntennaBeams | None,
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
    beams : AntennaBeams or None
        Where the antennas look, if not where they should.

    Returns
    -------
    new : NewSources
    brightened : ndarray of bool, shape (n,)
        Listed sources that a peak turned out to be.
    """
    found = _unlisted(data, final, listed, noise, left)
    return _apart_from_listed(found, listed, final.cleaned.beam, config, data, pointing_rad, beams)


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
        image = add_sources(image, grid, sky, model.apparent_jy[rows], beam)
    noise = (noise / np.float32(left)).astype(np.float32)
    searched = np.ones(image.shape, dtype=bool)
    for sigma, beams in ((NEW_SIGMA, KEPT_OFF_BEAMS), (BRIGHT_SIGMA, KEPT_OFF_BRIGHT_BEAMS)):
        _cut(searched, grid, listed, noise, sigma, beams * beam.major_rad)
    found = find_sources(image, noise, grid, beam, searched, NEW_SIGMA)
    brightest = listed.apparent_jy > SIDELOBE_FLOOR * float(np.median(noise))
    bright, bright_jy = listed.sky.select(brightest), listed.apparent_jy[brightest]

    def may_be_one(ra_rad: Float, dec_rad: Float, jy: Float) -> Bool:
        near = angular_separation(ra_rad[:, None], dec_rad[:, None], bright.ra_rad, bright.dec_rad)
        sidelobe = (SIDELOBE * bright_jy > jy[:, None]) & (near < SIDELOBE_BEAMS * beam.major_rad)
        return np.asarray(~sidelobe.any(axis=1))

    return found.choose(
        may_be_one(found.ra_rad, found.dec_rad, found.peak_jy),
        may_be_one(found.hole_ra_rad, found.hole_dec_rad, found.hole_jy),
    )


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
    beams: AntennaBeams | None,
) -> tuple[NewSources, Bool]:
    """Tell new sources from listed ones that were too faint to be expected."""
    same, of_hole = (
        _same_place(listed, ra, dec, SAME_BEAMS * beam.major_rad)
        for ra, dec in ((found.ra_rad, found.dec_rad), (found.hole_ra_rad, found.hole_dec_rad))
    )
    brightened = np.zeros(len(listed), dtype=bool)
    brightened[same[same >= 0]] = True
    some = found.choose(same < 0, of_hole < 0)
    middle = data.reader.pointing[len(data.reader.times) // 2]
    distance = angular_separation(some.ra_rad, some.dec_rad, float(middle[0]), float(middle[1]))
    return (
        NewSources(
            ra_rad=some.ra_rad,
            dec_rad=some.dec_rad,
            position_error_rad=some.position_error_rad,
            apparent_jy=some.peak_jy,
            error_jy=some.noise_jy,
            response=_response(some.ra_rad, some.dec_rad, listed, config, data, beams),
            beam_error=beam_error(
                listed.beam,
                lmn_from_radec(some.ra_rad, some.dec_rad, float(middle[0]), float(middle[1])),
                listed.freq_hz,
                pointing_rad,
            ),
            distance_rad=distance,
            false_expected=some.false_expected,
            n_negative=some.n_negative,
            searched=some.searched,
        ),
        brightened,
    )


def _same_place(listed: ApparentSky, ra_rad: Float, dec_rad: Float, radius_rad: float) -> Int:
    """Return the nearest listed source of each place within a radius, -1 where there is none."""
    if not len(listed):
        return np.full(ra_rad.size, -1)
    sky = listed.sky
    away = angular_separation(ra_rad[:, None], dec_rad[:, None], sky.ra_rad, sky.dec_rad)
    return np.where(away.min(axis=1) < radius_rad, away.argmin(axis=1), -1)


def _response(
    ra_rad: Float,
    dec_rad: Float,
    listed: ApparentSky,
    config: SelfCalConfig,
    data: CalibrationData,
    beams: AntennaBeams | None,
) -> Float:
    """Return what the beam lets through at given places, mean over band and dumps."""
    sky = SkyModel.points(ra_rad, dec_rad, np.ones(len(ra_rad)), spectral_index=config.spectral_index)
    freq = data.reader.freq_hz
    band = np.linspace(float(freq.min()), float(freq.max()), BAND_SAMPLES)
    through = mean_apparent_flux(sky, listed.beam, np.unique(data.reader.pointing, axis=0), band)
    middle = data.reader.pointing[len(data.reader.times) // 2]
    plain = replace(listed, sky=sky, apparent_jy=through, antenna_beams=None)
    through = through * response_ratio(plain, beams, float(middle[0]), float(middle[1]))
    return through / sky.flux_at(np.array([listed.freq_hz]))[:, 0]
