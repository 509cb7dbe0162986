"""The catalogue model: which catalogue sources the telescope sees, and how bright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs import bright_sources, query_cone
from dsa110_contimg.errors import SeedError
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, ApparentSky, mean_apparent_flux
from dsa110_contimg.sky.beam import AiryBeam
from dsa110_contimg.sky.components import ARCSEC, SkyModel
from dsa110_contimg.sky.directions import angular_separation

__all__ = ["build_catalog_model", "catalog_sky", "catalogued_sky", "far_bright_sources"]


def build_catalog_model(
    pointing: Float,
    freq_hz: Float,
    beam: AiryBeam,
    *,
    catalog: str = "nvss",
    catalog_dir: Path | None = None,
    min_mjy: float | None = None,
    min_apparent_mjy: float = 1.0,
    spectral_index: float = -0.75,
    frame: str = "ICRS",
    phase_center: tuple[float, float] | None = None,
) -> ApparentSky:
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
    frame : str
        Frame of the observation's directions, ICRS or J2000: a catalogue's are not told from them.
    phase_center : (float, float), optional
        Phase centre of the observation, radians.

    Returns
    -------
    ApparentSky

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
            f"empty catalogue model: {len(rows)} {catalog.upper()} sources"
            f"{'' if min_mjy is None else f' above {min_mjy:g} mJy'} within {radius_deg:.2f} deg, "
            f"the brightest {brightest} mJy through the beam, none above {min_apparent_mjy:g} mJy",
            f"RA {np.degrees(ra_rad) % 360:.4f} Dec {np.degrees(dec_rad):+.4f}",
            "lower the flux limit or run with --no-seed",
        )
    catalog_hash = str(rows.meta.get("catalog_hash", ""))
    return ApparentSky(
        sky=sky.select(order),
        beam=beam,
        apparent_jy=apparent[order],
        freq_hz=(low + high) / 2,
        catalog=catalog,
        catalog_hash=catalog_hash,
        pointing=np.atleast_2d(np.asarray(pointing, dtype=np.float64)),
        band_hz=(low, high),
        frame=frame,
        phase_center=phase_center,
    )


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
        As for :func:`build_catalog_model`.

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
