"""The catalogue model: which catalogue sources the telescope sees, and how bright."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs import bright_sources, cover_of, query_cone
from dsa110_contimg.errors import SeedError
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, ApparentSky, mean_apparent_flux
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.components import ARCSEC, SkyModel
from dsa110_contimg.sky.directions import angular_separation
from dsa110_contimg.sky.seed_spectra import SeedSpectra, SourceIndices, source_indices
from dsa110_contimg.sky.uncovered import uncovered_flux

__all__ = ["build_catalog_model", "catalog_sky", "catalogued_sky", "far_bright_sources"]


def build_catalog_model(
    pointing: Float,
    freq_hz: Float,
    beam: PrimaryBeam,
    *,
    catalog: str = "nvss",
    catalog_dir: Path | None = None,
    min_mjy: float | None = None,
    min_apparent_mjy: float = 1.0,
    spectral_index: float = -0.75,
    index_from: Literal["catalogs", "assumed"] = "catalogs",
    frame: str = "ICRS",
    phase_center: tuple[float, float] | None = None,
) -> ApparentSky:
    """Look a field up and keep what the telescope sees of it.

    The cone reaches out to the second null of the beam at the lowest
    frequency, wherever the beam went; very bright sources beyond it are
    considered as well. All are judged by their apparent flux, mean over band
    and dumps. Of a catalogue whose coverage was declared the cone is cut to
    it, so long as it holds the main beam, out to the first null.

    Parameters
    ----------
    pointing : ndarray, shape (2,) or (ntime, 2)
        Pointing centre, of each dump if it moved: right ascension and
        declination, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        All channel frequencies of the observation in hertz.
    beam : PrimaryBeam
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
        Index given to catalogue sources whose spectra are not known.
    index_from : str
        ``catalogs``: indices are those that two of the catalogues at hand tell, where they do
        (`dsa110_contimg.sky.seed_spectra`); ``assumed``: all are given `spectral_index`.
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
    middle = (low + high) / 2
    cone = (float(np.degrees(ra_rad)) % 360, float(np.degrees(dec_rad)), radius_deg)
    rows = query_cone(
        catalog,
        *cone,
        min_flux_mjy=min_mjy,
        catalog_dir=catalog_dir,
        freq_hz=middle,
        required_deg=float(np.degrees(beam.null_rad(low) + travelled)),
        spectral_index=spectral_index,
    )
    surveys, catalog = tuple(rows.meta["surveys"]), str(rows.meta["catalog"])
    notes = [rows.meta["choice"]] if "choice" in rows.meta else []
    cover = cover_of(surveys[0], *cone, catalog_dir)
    if cover.declared:
        left_out = uncovered_flux(
            cover, centres, np.radians(radius_deg), beam, middle, min_apparent_mjy * 1e-3, spectral_index
        )
        if left_out.fraction > 0:
            notes.append(left_out.sentence())
            # What a list happens to hold beyond what it is complete for is no model of the sky there.
            rows = rows[cover.holds(np.asarray(rows["ra_deg"]), np.asarray(rows["dec_deg"]))]
    if index_from == "catalogs":
        indices = source_indices(rows, middle, *cone, catalog_dir, spectral_index)
    else:
        indices = SourceIndices(
            np.full(len(rows), spectral_index), np.full(len(rows), np.nan), ("assumed",) * len(rows)
        )
    notes += indices.notes
    sky = catalog_sky(rows, catalog, spectral_index)
    sky = replace(sky, spectral_index=indices.index)
    origin = dict(zip(sky.name, zip(indices.origin, indices.error, strict=True), strict=True))
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
    chosen = sky.select(order)
    of_catalog = [name for name in chosen.name if name in origin]
    return ApparentSky(
        sky=chosen,
        beam=beam,
        apparent_jy=apparent[order],
        freq_hz=middle,
        catalog=catalog,
        catalog_hash=_hash_of(str(rows.meta["catalog_hash"]), indices.hashes),
        spectra=SeedSpectra(
            surveys,
            sky.reference_freq_hz,
            middle,
            {name: origin[name][0] for name in of_catalog},
            {name: float(origin[name][1]) for name in of_catalog},
        ),
        notes=tuple(notes),
        pointing=np.atleast_2d(np.asarray(pointing, dtype=np.float64)),
        band_hz=(low, high),
        frame=frame,
        phase_center=phase_center,
    )


def _hash_of(catalog_hash: str, others: tuple[str, ...]) -> str:
    """Join the hashes of what fluxes and indices come from."""
    if not others:
        return catalog_hash
    return hashlib.sha256("\n".join((catalog_hash, *others)).encode()).hexdigest()


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
    return catalog_sky(rows, str(rows.meta["catalog"]), spectral_index)


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
    names = [f"{catalog}{int(k)}" for k in rows["source_id"]]
    return replace(_sky_model(rows, names, spectral_index), reference_freq_hz=float(rows.meta["freq_hz"]))


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
