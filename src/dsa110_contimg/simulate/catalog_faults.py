"""Catalogues that are wrong as a whole: mirrored, moved, turned, scaled, or of another field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.simulate.population import draw_sky
from dsa110_contimg.sky import SkyModel, radec_from_lm
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["error_size", "require_catalog_error_fits", "with_bright_errors", "with_catalog_fault"]

#: Kinds of error that have a size, and what it is if none is asked for: arcsec, degrees, a factor.
SIZES = {"shift": 1200.0, "rotate": 0.2, "scale": 0.5}


def error_size(config: SimulationConfig) -> float:
    """Size of the catalogue's error: shift in arcsec, rotation in degrees, factor of the fluxes."""
    if config.catalog_error_size is not None:
        return config.catalog_error_size
    return SIZES.get(config.catalog_error, 0.0)


def require_catalog_error_fits(config: SimulationConfig) -> None:
    """Refuse options of the catalogue that contradict each other.

    Raises
    ------
    InputError
        If they do.
    """
    kind = config.catalog_error
    if config.catalog_error_size is not None and kind not in SIZES:
        raise InputError(
            f"{kind} has no size", "catalog_error_size", f"leave it out or choose {', '.join(SIZES)}"
        )
    lost = [
        name
        for name, asked in (("absent_jy", config.absent_jy > 0), ("bright_error", config.bright_error != 1))
        if asked
    ]
    if kind == "other-field" and lost:
        raise InputError("has no place in the catalogue of another field", lost[0], "choose one of them")


def with_bright_errors(
    catalog: SkyModel, apparent_jy: Float, true_jy: Float, factor: float, n: int
) -> SkyModel:
    """List the apparently brightest entries with a multiple of their true flux.

    Parameters
    ----------
    catalog : SkyModel
        Catalogue.
    apparent_jy : ndarray, shape (nentry,)
        Fluxes of its entries through the beam, jansky.
    true_jy : ndarray, shape (nentry,)
        What is in the sky of them, jansky at the catalogue's reference frequency; 0 for nothing: such an
        entry is passed over.
    factor : float
        Catalogue flux over true flux.
    n : int
        Number of entries.

    Returns
    -------
    SkyModel
    """
    order = np.argsort(-np.where(true_jy > 0, apparent_jy, 0.0), kind="stable")
    chosen = order[true_jy[order] > 0][:n]
    flux = catalog.flux_jy.copy()
    flux[chosen] = factor * true_jy[chosen]
    return replace(catalog, flux_jy=flux)


def with_catalog_fault(
    catalog: SkyModel,
    config: SimulationConfig,
    rng: np.random.Generator,
    ra_rad: float,
    dec_rad: float,
    radius_rad: float,
) -> SkyModel:
    """Do to a catalogue what `catalog_error` says.

    Parameters
    ----------
    catalog : SkyModel
        Catalogue.
    config : SimulationConfig
        Options.
    rng : numpy Generator
        Random numbers.
    ra_rad, dec_rad, radius_rad : float
        Centre of the field and how far the catalogue reaches, radians.

    Returns
    -------
    SkyModel
        With as many entries in the same order, unless it is of another field.

    Notes
    -----
    A shift is one of the direction cosines, which phases of the antennas can follow altogether.
    """
    angle = rng.uniform(0, 2 * np.pi)
    if config.catalog_error == "none":
        return catalog
    if config.catalog_error == "other-field":
        return draw_sky(rng, ra_rad, dec_rad, radius_rad, config.min_mjy, config.brightest_jy, prefix="other")
    size = error_size(config)
    if config.catalog_error == "scale":
        return replace(catalog, flux_jy=size * catalog.flux_jy)
    l, m, _ = catalog.lmn(ra_rad, dec_rad).T  # noqa: E741
    pa = catalog.pa_rad
    if config.catalog_error == "mirror":
        l, pa = -l, -pa  # noqa: E741
    elif config.catalog_error == "mirror-dec":
        m, pa = -m, -pa
    elif config.catalog_error == "shift":
        l, m = l + size * ARCSEC * np.sin(angle), m + size * ARCSEC * np.cos(angle)  # noqa: E741
    else:
        # North through east, as position angles go.
        turn = np.radians(size)
        l, m = l * np.cos(turn) + m * np.sin(turn), m * np.cos(turn) - l * np.sin(turn)  # noqa: E741
        pa = pa + turn
    ra, dec = radec_from_lm(l, m, ra_rad, dec_rad)
    return replace(catalog, ra_rad=ra, dec_rad=dec, pa_rad=np.mod(pa, np.pi))
