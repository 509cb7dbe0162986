"""The sky as the telescope sees it: components through the primary beam."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.sky.antenna_beams import AntennaBeams
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.components import SkyModel
from dsa110_contimg.sky.seed_spectra import SeedSpectra

__all__ = [
    "BAND_SAMPLES",
    "PART",
    "ApparentSky",
    "joined",
    "mean_apparent_flux",
    "response_ratio",
    "scaled",
    "through_beams",
]

#: In the names of the parts of a source that the catalogue lists as one.
PART = " part "
#: Frequencies over the band at which a source's apparent flux is averaged.
BAND_SAMPLES = 9


@dataclass(frozen=True, kw_only=True)
class ApparentSky:
    """Sources and the beam they are seen through: a catalogue model, or a sky model made from one.

    Parameters
    ----------
    sky : SkyModel
        The sources outside the beam; of a catalogue model the brightest apparent first.
    beam : PrimaryBeam
        Primary beam.
    apparent_jy : ndarray, shape (n,)
        Apparent flux density in jansky, mean over the band and the dumps: what
        an image of all of them shows.
    freq_hz : float
        Middle of the band.
    catalog : str
        Catalogue name.
    catalog_hash : str
        Hash of the strips that were used.
    antenna_beams : AntennaBeams or None
        Where the antennas' own beams point, if that is not where the pointing centre is.
    spectra : SeedSpectra or None
        Where the spectral indices of catalogue sources come from.
    notes : tuple of str
        What to know of the catalogue: why this one, what it does not cover.
    """

    sky: SkyModel
    beam: PrimaryBeam
    apparent_jy: Float
    freq_hz: float
    catalog: str
    catalog_hash: str
    antenna_beams: AntennaBeams | None = None
    spectra: SeedSpectra | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sky)

    def apparent_flux(self, freq_hz: Float, ra_rad: float, dec_rad: float) -> Float:
        """Flux of each source through the beam pointed at a direction.

        Parameters
        ----------
        freq_hz : ndarray, shape (nchan,)
            Channel frequencies in hertz.
        ra_rad, dec_rad : float
            Pointing centre in radians.

        Returns
        -------
        ndarray, shape (n, nchan)
            Apparent flux density in jansky.
        """
        response = self.beam.power_towards(self.sky.lmn(ra_rad, dec_rad), freq_hz)
        return np.asarray(self.sky.flux_at(freq_hz) * response)

    def write(self, prefix: Path) -> list[Path]:
        """Write the apparent fluxes as ``PREFIX-seed.txt`` (WSClean) and ``PREFIX-seed.reg`` (DS9)."""
        paths = [prefix.with_name(prefix.name + "-seed.txt"), prefix.with_name(prefix.name + "-seed.reg")]
        self.sky.write_wsclean(paths[0], self.apparent_at_reference())
        self.sky.write_ds9(paths[1], self.apparent_jy)
        return paths

    def apparent_at_reference(self) -> Float:
        """Apparent fluxes carried by the spectral index to the model's reference frequency, shape (n,)."""
        ratio = self.sky.reference_freq_hz / self.freq_hz
        return np.asarray(self.apparent_jy * ratio**self.sky.spectral_index)


def mean_apparent_flux(sky: SkyModel, beam: PrimaryBeam, pointing: Float, freq_hz: Float) -> Float:
    """Flux through the beam, mean over pointings and frequencies.

    Parameters
    ----------
    sky : SkyModel
        Sources.
    beam : PrimaryBeam
        Primary beam.
    pointing : ndarray, shape (ntime, 2)
        Right ascension and declination, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        Frequencies in hertz.

    Returns
    -------
    ndarray, shape (n,)
        Jansky.
    """
    total = np.zeros(len(sky))
    flux = sky.flux_at(freq_hz)
    for ra, dec in pointing:
        total += np.mean(flux * beam.power_towards(sky.lmn(float(ra), float(dec)), freq_hz), axis=1)
    return total / len(pointing)


def response_ratio(sky: ApparentSky, beams: AntennaBeams | None, ra_rad: float, dec_rad: float) -> Float:
    """Response of beams at their common offset over that of the beams that a sky is seen through, shape (n,).

    Parameters
    ----------
    sky : ApparentSky
        Sources, and the beams that they are seen through.
    beams : AntennaBeams or None
        Others; none if all antennas point where they should.
    ra_rad, dec_rad : float
        Pointing centre, ICRS radians.

    Returns
    -------
    ndarray, shape (n,)
        One where they differ by more than a factor of two, as beside a null: nothing can be said there.
    """
    lmn, freq = sky.sky.lmn(ra_rad, dec_rad), np.array([sky.freq_hz])
    had, have = (
        np.zeros((1, 2)) if which is None else which.common_rad[None] for which in (sky.antenna_beams, beams)
    )
    old, new = (AntennaBeams(offset_rad=at).voltages(sky.beam, lmn, freq)[:, 0, 0] ** 2 for at in (had, have))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(new.astype(np.float64) / old, nan=1.0, posinf=1.0)
    return np.where((ratio > 0.5) & (ratio < 2.0), ratio, 1.0)


def through_beams(sky: ApparentSky, beams: AntennaBeams | None, ra_rad: float, dec_rad: float) -> ApparentSky:
    """Return a sky seen through other beams of the antennas: its apparent fluxes follow what they share.

    Parameters as of :func:`response_ratio`.
    """
    ratio = response_ratio(sky, beams, ra_rad, dec_rad)
    return replace(sky, antenna_beams=beams, apparent_jy=sky.apparent_jy * ratio)


def joined(sky: ApparentSky, more: ApparentSky | None) -> ApparentSky:
    """Return the sources of one sky, then those of another; the first as it is if there is no other."""
    if more is None:
        return sky
    return replace(
        sky,
        sky=SkyModel.concatenate([sky.sky, more.sky]),
        apparent_jy=np.concatenate([sky.apparent_jy, more.apparent_jy]),
    )


def scaled(sky: ApparentSky, factor: float) -> ApparentSky:
    """Return a sky with all fluxes multiplied by a factor."""
    brighter = replace(sky.sky, flux_jy=sky.sky.flux_jy * factor)
    return replace(sky, sky=brighter, apparent_jy=sky.apparent_jy * factor)
