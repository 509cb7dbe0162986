"""Random skies with the numbers of the real one, and catalogues of them with errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.files import write_table
from dsa110_contimg.sky import SkyModel, radec_from_lm
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["draw_sky", "with_catalog_errors", "write_catalog"]

#: NVSS holds about 50 sources per square degree above 2.5 mJy; the integral counts fall like S^-0.9 there
#: and steepen towards S^-1.5 in the janskys (Condon et al. 1998, AJ 115, 1693).
DENSITY_PER_SQ_DEG = 50.0
DENSITY_FLUX_MJY = 2.5
FAINT_SLOPE, BRIGHT_SLOPE, KNEE_MJY = 0.9, 1.5, 300.0


def draw_sky(
    rng: np.random.Generator,
    ra_rad: float,
    dec_rad: float,
    radius_rad: float,
    min_mjy: float,
    brightest_jy: float = 0.0,
    *,
    below_mjy: float = np.inf,
    prefix: str = "sim",
) -> SkyModel:
    """Draw point sources over a disc of the sky.

    Parameters
    ----------
    rng : numpy Generator
        Random numbers.
    ra_rad, dec_rad, radius_rad : float
        Centre and radius of the disc, radians.
    min_mjy : float
        Faintest source in mJy.
    brightest_jy : float
        One more source of this flux is put a third of a degree from the
        centre, as a pointing on a calibrator would have; 0 for none.
    below_mjy : float
        Only sources fainter than this.
    prefix : str
        What the names begin with.

    Returns
    -------
    SkyModel
        All of spectral index -0.75.
    """
    area = 2 * np.pi * (1 - np.cos(radius_rad)) * np.degrees(1) ** 2
    at_knee = DENSITY_PER_SQ_DEG * (KNEE_MJY / DENSITY_FLUX_MJY) ** -FAINT_SLOPE
    slope = FAINT_SLOPE if min_mjy < KNEE_MJY else BRIGHT_SLOPE
    density = at_knee * (min_mjy / KNEE_MJY) ** -slope
    n = int(rng.poisson(density * area))
    # Counts above a source's flux are uniform up to those above the faintest; the flux follows from them.
    counts = density * rng.uniform(size=n) / at_knee
    with np.errstate(divide="ignore"):
        flux = KNEE_MJY * counts ** np.where(counts > 1, -1 / FAINT_SLOPE, -1 / BRIGHT_SLOPE)
    flux = np.minimum(flux, 5000.0) * 1e-3
    # Uniform over the cap: the cosine of the distance is uniform.
    distance = np.arccos(1 - rng.uniform(size=n) * (1 - np.cos(radius_rad)))
    angle = rng.uniform(0, 2 * np.pi, n)
    kept = flux < below_mjy * 1e-3
    flux, distance, angle = flux[kept], distance[kept], angle[kept]
    if brightest_jy > 0:
        flux = np.append(flux, brightest_jy)
        distance, angle = np.append(distance, np.radians(0.33)), np.append(angle, rng.uniform(0, 2 * np.pi))
    ra, dec = radec_from_lm(
        np.sin(distance) * np.sin(angle), np.sin(distance) * np.cos(angle), ra_rad, dec_rad
    )
    return SkyModel.points(ra, dec, flux, spectral_index=-0.75, prefix=prefix)


def with_catalog_errors(
    rng: np.random.Generator, sky: SkyModel, flux_error: float, position_error_arcsec: float
) -> SkyModel:
    """Return the sky as a catalogue would list it: fluxes and positions with errors."""
    n = len(sky)
    flux = sky.flux_jy * np.clip(1 + flux_error * rng.standard_normal(n), 0.1, None)
    shift = position_error_arcsec * ARCSEC * rng.standard_normal((2, n))
    return replace(
        sky,
        flux_jy=flux,
        ra_rad=np.mod(sky.ra_rad + shift[0] / np.cos(sky.dec_rad), 2 * np.pi),
        dec_rad=np.clip(sky.dec_rad + shift[1], -np.pi / 2, np.pi / 2),
    )


def write_catalog(path: Path, sky: SkyModel, dec_min: float, dec_max: float) -> None:
    """Write a generic catalogue that strips can be built from.

    Parameters
    ----------
    path : Path
        ECSV file with columns ra_deg, dec_deg, flux_mjy and Gaussian widths; written beside and renamed.
    sky : SkyModel
        What it lists.
    dec_min, dec_max : float
        Declinations in degrees that it covers, at all right ascensions: the
        simulated sky is empty elsewhere.
    """
    listed = Table(
        {
            "ra_deg": np.degrees(sky.ra_rad) % 360,
            "dec_deg": np.degrees(sky.dec_rad),
            "flux_mjy": sky.flux_jy * 1e3,
            "major_arcsec": sky.major_rad / ARCSEC,
            "minor_arcsec": sky.minor_rad / ARCSEC,
            "pa_deg": np.degrees(sky.pa_rad),
        },
        meta={"coverage": {"ra_min": 0.0, "ra_max": 360.0, "dec_min": dec_min, "dec_max": dec_max}},
    )
    write_table(path, listed, delimiter=",")
