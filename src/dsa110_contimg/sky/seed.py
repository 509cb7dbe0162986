"""The seed: which catalogue sources the telescope sees, and how bright."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs import bright_sources, query_cone
from dsa110_contimg.errors import SeedError
from dsa110_contimg.sky.beam import AiryBeam
from dsa110_contimg.sky.components import ARCSEC, SkyModel
from dsa110_contimg.sky.directions import angular_separation

__all__ = ["Seed", "build_seed", "catalog_sky", "catalogued_sky", "far_bright_sources", "mean_apparent_flux"]


#: Frequencies over the band at which a source's apparent flux is averaged.
BAND_SAMPLES = 9


@dataclass(frozen=True)
class Seed:
    """Catalogue sources and the beam they are seen through.

    Parameters
    ----------
    sky : SkyModel
        The sources as the catalogue knows them, brightest apparent first.
    beam : AiryBeam
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
    """

    sky: SkyModel
    beam: AiryBeam
    apparent_jy: Float
    freq_hz: float
    catalog: str
    catalog_hash: str

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
        separation = angular_separation(self.sky.ra_rad, self.sky.dec_rad, ra_rad, dec_rad)
        return np.asarray(self.sky.flux_at(freq_hz) * self.beam.power(separation, freq_hz))

    def write(self, prefix: Path) -> list[Path]:
        """Write the apparent seed as ``PREFIX-seed.txt`` (WSClean) and ``PREFIX-seed.reg`` (DS9)."""
        paths = [prefix.with_name(prefix.name + "-seed.txt"), prefix.with_name(prefix.name + "-seed.reg")]
        self.sky.write_wsclean(paths[0], self.apparent_at_reference())
        self.sky.write_ds9(paths[1], self.apparent_jy)
        return paths

    def apparent_at_reference(self) -> Float:
        """Apparent fluxes carried by the spectral index to the model's reference frequency, shape (n,)."""
        ratio = self.sky.reference_freq_hz / self.freq_hz
        return np.asarray(self.apparent_jy * ratio**self.sky.spectral_index)


def build_seed(
    pointing: Float,
    freq_hz: Float,
    beam: AiryBeam,
    *,
    catalog: str = "nvss",
    catalog_dir: Path | None = None,
    min_mjy: float | None = None,
    min_apparent_mjy: float = 1.0,
    spectral_index: float = -0.75,
) -> Seed:
    """Look a field up and keep what the telescope sees of it.

    The cone reaches out to the second null of the beam at the lowest
    frequency, wherever the beam went; very bright sources beyond it are
    considered as well. All are judged by their apparent flux, mean over band
    and dumps.

    Parameters
    ----------
    pointing : ndarray, shape (2,) or (ntime, 2)
        Pointing centre, of each dump if it moved: right ascension and
        declination, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        All channel frequencies of the observation in hertz.
    beam : AiryBeam
        Primary beam.
    catalog : str
        Catalogue to look up.
    catalog_dir : Path, optional
        Where the strips lie; the default directory otherwise.
    min_mjy : float, optional
        Faintest catalogue flux density in millijansky; none: the whole catalogue.
    min_apparent_mjy : float
        Faintest apparent flux density in millijansky.
    spectral_index : float
        Index given to catalogue sources, whose spectra are not known.

    Returns
    -------
    Seed

    Raises
    ------
    SeedError
        If no source passes the limits.
    CatalogError
        If the catalogue is missing or does not cover the cone.
    """
    centres = np.unique(np.atleast_2d(np.asarray(pointing, dtype=np.float64)), axis=0)
    low, high = float(np.min(freq_hz)), float(np.max(freq_hz))
    ra_rad, dec_rad = (float(x) for x in np.atleast_2d(pointing)[len(np.atleast_2d(pointing)) // 2])
    travelled = float(angular_separation(centres[:, 0], centres[:, 1], ra_rad, dec_rad).max())
    radius_deg = min(89.0, float(np.degrees(beam.null_rad(low, order=2) + travelled)))
    rows = query_cone(
        catalog,
        float(np.degrees(ra_rad)) % 360,
        float(np.degrees(dec_rad)),
        radius_deg,
        min_flux_mjy=min_mjy,
        catalog_dir=catalog_dir,
    )
    sky = catalog_sky(rows, catalog, spectral_index)
    # Inside the cone the catalogue itself lists them.
    sky = SkyModel.concatenate([sky, far_bright_sources(ra_rad, dec_rad, np.radians(radius_deg))])
    # The mean over the band: its middle may be the one place where a null hides a source.
    apparent = mean_apparent_flux(sky, beam, centres, np.linspace(low, high, BAND_SAMPLES))
    order = np.argsort(-apparent, kind="stable")
    order = order[(apparent[order] >= min_apparent_mjy * 1e-3) & (apparent[order] > 0)]
    if order.size == 0:
        brightest = f"{1e3 * float(apparent.max()):.2f}" if len(rows) else "0"
        raise SeedError(
            f"empty seed: {len(rows)} {catalog.upper()} sources"
            f"{'' if min_mjy is None else f' above {min_mjy:g} mJy'} within {radius_deg:.2f} deg, "
            f"the brightest {brightest} mJy through the beam, none above {min_apparent_mjy:g} mJy",
            f"RA {np.degrees(ra_rad) % 360:.4f} Dec {np.degrees(dec_rad):+.4f}",
            "lower the flux limit or run with --no-seed",
        )
    catalog_hash = str(rows.meta.get("catalog_hash", ""))
    return Seed(sky.select(order), beam, apparent[order], (low + high) / 2, catalog, catalog_hash)


def mean_apparent_flux(sky: SkyModel, beam: AiryBeam, pointing: Float, freq_hz: Float) -> Float:
    """Flux through the beam, mean over pointings and frequencies.

    Parameters
    ----------
    sky : SkyModel
        Sources.
    beam : AiryBeam
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
        separation = angular_separation(sky.ra_rad, sky.dec_rad, ra, dec)
        total += np.mean(flux * beam.power(separation, freq_hz), axis=1)
    return total / len(pointing)


def catalogued_sky(
    ra_rad: float,
    dec_rad: float,
    radius_rad: float,
    *,
    catalog: str = "nvss",
    catalog_dir: Path | None = None,
    min_mjy: float | None = None,
    spectral_index: float = -0.75,
) -> SkyModel:
    """List the catalogue's sources in a cone as components, brightest first.

    Parameters
    ----------
    ra_rad, dec_rad, radius_rad : float
        Cone, ICRS radians.
    catalog, catalog_dir, min_mjy, spectral_index
        As for :func:`build_seed`.

    Returns
    -------
    SkyModel
    """
    ra, dec, radius = (float(np.degrees(x)) for x in (ra_rad, dec_rad, radius_rad))
    rows = query_cone(catalog, ra % 360, dec, radius, min_flux_mjy=min_mjy, catalog_dir=catalog_dir)
    return catalog_sky(rows, catalog, spectral_index)


def catalog_sky(rows: Any, catalog: str, spectral_index: float) -> SkyModel:
    """Turn the rows of a query into components named after catalogue and row.

    Parameters
    ----------
    rows : Table
        As `dsa110_contimg.catalogs.query_cone` returns them.
    catalog : str
        Catalogue name.
    spectral_index : float
        Index given to all.

    Returns
    -------
    SkyModel
    """
    return _sky_model(rows, [f"{catalog}{int(k)}" for k in rows["source_id"]], spectral_index)


def far_bright_sources(ra_rad: float, dec_rad: float, radius_rad: float) -> SkyModel:
    """Very bright radio sources beyond a radius: they reach the receiver through the far sidelobes.

    Parameters
    ----------
    ra_rad, dec_rad : float
        Pointing centre, ICRS radians.
    radius_rad : float
        Sources nearer than this are left out.

    Returns
    -------
    SkyModel
    """
    rows = bright_sources()
    model = _sky_model(rows, [str(name).replace(" ", "_") for name in rows["name"]], None)
    return model.select(angular_separation(model.ra_rad, model.dec_rad, ra_rad, dec_rad) > radius_rad)


def _sky_model(rows: Any, names: list[str], spectral_index: float | None) -> SkyModel:
    """Turn catalogue rows into components; an index of None takes the column's."""
    n = len(rows)
    index = (
        np.asarray(rows["spectral_index"], dtype=np.float64)
        if spectral_index is None
        else np.full(n, spectral_index)
    )
    return SkyModel(
        tuple(names),
        np.radians(np.asarray(rows["ra_deg"], dtype=np.float64)),
        np.radians(np.asarray(rows["dec_deg"], dtype=np.float64)),
        np.asarray(rows["flux_mjy"], dtype=np.float64) * 1e-3,
        index,
        np.asarray(rows["major_arcsec"], dtype=np.float64) * ARCSEC,
        np.asarray(rows["minor_arcsec"], dtype=np.float64) * ARCSEC,
        np.radians(np.asarray(rows["pa_deg"], dtype=np.float64)),
    )
