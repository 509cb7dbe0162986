"""The sky as the telescope sees it: components through the primary beam."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.sky.antenna_beams import AntennaBeams
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.components import SkyModel
from dsa110_contimg.sky.directions import in_frame
from dsa110_contimg.sky.mixed_beam import MixedBeam
from dsa110_contimg.sky.seed_spectra import SeedSpectra

__all__ = [
    "BAND_SAMPLES",
    "PART",
    "ApparentSky",
    "OwnModel",
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
#: Apparent fluxes over the band are told by those at so many frequencies; more where a source far out goes
#: through several sidelobes. They are met within this part of the brightest source's.
SPECTRUM_NODES, SPECTRUM_ERROR = (6, 12, 20), 1e-7
#: Where the beam lets less of a source through its flux before the beam cannot be told from that behind it.
LEAST_RESPONSE = 1e-3


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """What a model of one's own was.

    Attributes
    ----------
    file : str
        Absolute path.
    kind : str
        Format, in words.
    sha256 : str
        Hash of the file.
    fluxes : str
        ``true``, or ``apparent``: they already hold the primary beam.
    reference_hz : float or None
        Frequency of most of its fluxes in the file; None of flat spectra.
    n_components : int
        Components in the file.
    n_seen : int
        Those that reach the receiver.
    adds : bool
        Whether the catalogue's sources were taken too.
    n_replaced : int
        Sources of the catalogue that were left out, as the model has them.
    notes : tuple of str
        What of the model is not predicted.
    """

    file: str
    kind: str
    sha256: str
    fluxes: str
    reference_hz: float | None
    n_components: int
    n_seen: int
    adds: bool = False
    n_replaced: int = 0
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Say in one line what the model was."""
        adds = f", added to the catalogue in place of {self.n_replaced} of its sources" if self.adds else ""
        return (
            f"model of the sky: {self.kind} {self.file}, {self.n_seen} of its {self.n_components} components "
            f"seen, fluxes {self.fluxes}{adds}, SHA-256 {self.sha256[:16]}"
        )


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
    pointing : ndarray, shape (ntime, 2), optional
        Pointing centres over which apparent fluxes are means; where there are
        sources whose fluxes already hold the beam, it is needed.
    band_hz : (float, float), optional
        Lowest and highest frequency of the observation.
    own_model : OwnModel or None
        The model of one's own that the sources were taken from, where they were not all the catalogue's.
    frame : str
        Frame of the observation's phase centres, and of the sources: ICRS or J2000.
    phase_center : (float, float), optional
        Phase centre of the observation, radians.
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
    pointing: Float | None = None
    band_hz: tuple[float, float] | None = None
    own_model: OwnModel | None = None
    frame: str = "ICRS"
    phase_center: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.sky)

    @property
    def own_beams(self) -> AntennaBeams | None:
        """Beams of the antennas, where they are not all the common one: dishes that differ, or point off."""
        if self.antenna_beams is None and isinstance(self.beam, MixedBeam):
            return AntennaBeams(offset_rad=np.zeros((len(self.beam.of_antenna), 2)))
        return self.antenna_beams

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
        apparent = self.sky.apparent
        if apparent.any():
            mean = self._mean_response(freq_hz)
            # Where the beam never looks nothing is known but the flux that was given.
            share = np.divide(response[apparent], mean, out=np.ones_like(mean), where=mean > 0)
            response[apparent] = share
        return np.asarray(self.sky.flux_at(freq_hz) * response)

    def unattenuated_flux(self, freq_hz: Float) -> Float:
        """Flux of each source before the beam, shape (n, nchan), in jansky.

        Zero for sources whose fluxes already hold the beam where that lets too little through to tell.
        """
        flux, apparent = self.sky.flux_at(freq_hz), self.sky.apparent
        if apparent.any():
            mean = self._mean_response(freq_hz)
            flux[apparent] = np.divide(
                flux[apparent], mean, out=np.zeros_like(mean), where=mean > LEAST_RESPONSE
            )
        return np.asarray(flux)

    def _mean_response(self, freq_hz: Float) -> Float:
        """Response of the beam, mean over pointings, to sources whose fluxes hold it, shape (m, nchan)."""
        assert self.pointing is not None
        seen = self.sky.select(self.sky.apparent)
        centres, count = np.unique(self.pointing, axis=0, return_counts=True)
        total = np.zeros((len(seen), np.size(freq_hz)))
        for (ra, dec), times in zip(centres, count, strict=True):
            total += times * self.beam.power_towards(seen.lmn(float(ra), float(dec)), freq_hz)
        return np.asarray(total / count.sum())

    def write(self, prefix: Path) -> list[Path]:
        """Write the apparent fluxes as ``PREFIX-seed.txt`` (WSClean) and ``PREFIX-seed.reg`` (DS9)."""
        paths = [prefix.with_name(prefix.name + "-seed.txt"), prefix.with_name(prefix.name + "-seed.reg")]
        sky = self.apparent_sky()
        # Programs that read such lists take them for J2000.
        ra, dec = in_frame(sky.ra_rad, sky.dec_rad, self.frame, "J2000")
        replace(sky, ra_rad=ra, dec_rad=dec).write_wsclean(paths[0], centre=self.phase_center)
        self.sky.write_ds9(paths[1], self.apparent_jy)
        return paths

    def apparent_sky(self) -> SkyModel:
        """Components as the telescope sees them, without any beam: fluxes and spectra that hold it.

        The spectra are polynomials through the apparent fluxes, means over the dumps, at some frequencies of
        the band, so many that fluxes between them are met within `SPECTRUM_ERROR` of the brightest: beyond
        the band they mean nothing.

        Returns
        -------
        SkyModel
            With its fluxes at the middle of the band.
        """
        if self.pointing is None or self.band_hz is None:
            raise ValueError("pointing and band are not known")
        low, high = self.band_hz
        middle, half = (low + high) / 2, (high - low) / 2
        most = max(SPECTRUM_NODES) if half > 0 else 1
        powers = np.zeros((len(self), most))
        left = np.arange(len(self))
        for n in SPECTRUM_NODES if half > 0 else (1,):
            part = replace(self, sky=self.sky.select(left))
            places = np.cos(np.pi * (np.arange(n) + 0.5) / n)
            between = np.cos(np.pi * np.arange(n + 1) / n)
            flux = part._mean_apparent(middle + half * np.append(places, between))
            found = np.linalg.solve(np.vander(places, n, increasing=True), flux[:, :n].T).T
            powers[left, :n] = found
            off = np.abs(found @ np.vander(between, n, increasing=True).T - flux[:, n:]).max(axis=1)
            left = left[off > SPECTRUM_ERROR * np.abs(self.apparent_jy).max(initial=0.0)]
            if not left.size:
                break
        # A source right in a null at the middle of the band still has a spectrum.
        least = np.maximum(np.abs(powers).max(axis=1), 1e-30) * 1e-9
        at_middle = np.where(np.abs(powers[:, 0]) < least, least, powers[:, 0])
        scale = (middle / half) ** np.arange(most) if half > 0 else np.ones(1)
        terms = (powers * scale)[:, 1:] / at_middle[:, None]
        everywhere = np.ones(len(self), dtype=bool)
        return replace(
            self.sky,
            flux_jy=at_middle,
            spectral_index=terms[:, 0] if most > 1 else np.zeros(len(self)),
            reference_freq_hz=middle,
            curvature=terms[:, 1:] if most > 2 else None,
            is_linear=everywhere,
            is_apparent=everywhere,
        )

    def _mean_apparent(self, freq_hz: Float) -> Float:
        """Apparent fluxes, means over the pointings, shape (n, nchan)."""
        assert self.pointing is not None
        pointing, count = np.unique(self.pointing, axis=0, return_counts=True)
        total = np.zeros((len(self.sky), freq_hz.size))
        for at, times in zip(pointing, count, strict=True):
            total += times * self.apparent_flux(freq_hz, *at)
        mean = np.asarray(total / count.sum())
        if self.antenna_beams is None:
            return mean
        middle = self.pointing[len(self.pointing) // 2]
        nominal = replace(self, antenna_beams=None)
        return mean * response_ratio(nominal, self.antenna_beams, *map(float, middle))[:, None]


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
    return np.where(sky.apparent, flux.mean(axis=1), total / len(pointing))


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
    old, new = (sky.beam.voltages(lmn, at, freq)[:, 0, 0] ** 2 for at in (had, have))
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
