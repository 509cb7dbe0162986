"""Columns of NVSS and FIRST as their archives write them."""

from __future__ import annotations

import numpy as np
from astropy import units as u

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs.rows import Family, Rows
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["VLA_FAMILIES"]

#: Restoring beam of NVSS (arcsec) and its flux scale's error (Condon et al. 1998).
NVSS_BEAM_ARCSEC = 45.0
NVSS_FLUX_ERROR = 0.03


def _sizes(rows: Rows, major: str, major_flag: str, minor: str, minor_flag: str, pa: str) -> dict[str, Float]:
    """Take measured sizes as sizes and upper limits as limits: a ``<`` means unresolved."""
    for axis, flag in ((major, major_flag), (minor, minor_flag)):
        if rows.has(axis) and not rows.has(flag):
            # Without its flag an upper limit would be taken for a measured size.
            raise CatalogFormatError(
                f"has {axis} without its limit flag {flag}", rows.path, "include that column"
            )
    sizes, limits = [], []
    for axis, flag in ((major, major_flag), (minor, minor_flag)):
        values, limit = rows.floats(axis, u.arcsec), rows.is_limit(flag)
        sizes.append(np.where(limit, 0.0, np.nan_to_num(values, nan=0.0, posinf=np.inf)))
        limits.append(np.where(limit, values, np.nan))
    return {
        "major_arcsec": sizes[0],
        "minor_arcsec": np.where(sizes[0] == 0.0, 0.0, sizes[1]),
        "pa_deg": np.where(sizes[0] > 0.0, np.nan_to_num(rows.floats(pa, u.deg), nan=0.0), 0.0),
        "major_limit_arcsec": limits[0],
        "minor_limit_arcsec": limits[1],
    }


def _vizier(rows: Rows) -> dict[str, Float]:
    return {
        "ra_deg": rows.angle("RAJ2000", 15.0),
        "dec_deg": rows.angle("DEJ2000", 1.0),
        "flux_mjy": rows.floats("S1.4", u.mJy),
        "flux_err_mjy": rows.floats("e_S1.4", u.mJy),
        **_sizes(rows, "MajAxis", "l_MajAxis", "MinAxis", "l_MinAxis", "PA"),
    }


def _heasarc(rows: Rows) -> dict[str, Float]:
    return {
        "ra_deg": rows.floats("ra", u.deg),
        "dec_deg": rows.floats("dec", u.deg),
        "flux_mjy": rows.floats("flux_20_cm", u.mJy),
        "flux_err_mjy": rows.floats("flux_20_cm_error", u.mJy),
        **_sizes(rows, "major_axis", "limit_major_axis", "minor_axis", "limit_minor_axis", "position_angle"),
    }


def _first(rows: Rows) -> dict[str, Float]:
    major = np.nan_to_num(rows.floats("MAJOR", u.arcsec), nan=0.0)
    return {
        "ra_deg": rows.floats("RA", u.deg),
        "dec_deg": rows.floats("DEC", u.deg),
        "flux_mjy": rows.floats("FINT", None),
        "flux_err_mjy": np.full(rows.n, np.nan),
        "major_arcsec": major,
        "minor_arcsec": np.where(major > 0.0, np.nan_to_num(rows.floats("MINOR", u.arcsec), nan=0.0), 0.0),
        "pa_deg": np.where(major > 0.0, np.nan_to_num(rows.floats("POSANG", u.deg), nan=0.0), 0.0),
        "peak_mjy": rows.floats("FPEAK", None),
        "rms_mjy": rows.floats("RMS", None),
        "sidelobe_probability": rows.floats("SIDEPROB", None),
    }


def _nrao(rows: Rows) -> dict[str, Float]:
    """Correct and deconvolve raw fits as in Condon et al. (1998, AJ 115, 1693), section 5.2.

    The peak is raised by the CLEAN bias (0.2 mJy/beam in the D configuration, 0.3 in DnC). An axis is
    resolved if the fit exceeds the 45 arcsec beam by more than 2.33 sigma (98 %); the flux of a source
    resolved on both axes is peak x (major minor / beam^2), on one axis peak x (major / beam) x sqrt(minor /
    beam), on none peak x sqrt(major minor / beam^2).
    """
    beam = NVSS_BEAM_ARCSEC
    dec = rows.floats("DEC(2000)", None)
    raw = 1e3 * rows.floats("PEAK INT", None)
    rms = 1e3 * rows.floats("I RMS", None)
    fit_major = np.maximum(3600.0 * rows.floats("MAJOR AX", None), beam)
    fit_minor = np.maximum(3600.0 * rows.floats("MINOR AX", None), beam)
    bias = np.where((dec > -10.125) & (dec < 77.994), 0.2, 0.3)
    peak = raw + bias
    x, y = fit_major / beam, fit_minor / beam
    # Squared signal to noise for amplitude, major and minor axis: exponents of the paper's equation 21.
    rho = x * y / 4.0 * (raw / rms) ** 2

    def rho2(of_major: float, of_minor: float) -> Float:
        return np.asarray(rho * (1 + x**-2) ** of_major * (1 + y**-2) ** of_minor)

    sigma_major = np.sqrt(2.0 * fit_major**2 / rho2(2.5, 0.5) + (0.02 * beam) ** 2)
    sigma_minor = np.sqrt(2.0 * fit_minor**2 / rho2(0.5, 2.5) + (0.02 * beam) ** 2)
    is_major = fit_major - beam > 2.33 * sigma_major
    is_minor = is_major & (fit_minor - beam > 2.33 * sigma_minor)
    flux = peak * np.where(is_minor, x * y, np.where(is_major, x * np.sqrt(y), np.sqrt(x * y)))
    amplitude = np.where(is_minor, 2.0, np.where(is_major, 1.5, 1.0)) / rho2(1.5, 1.5)
    size = np.where(is_major, (sigma_major / fit_major) ** 2 / np.where(is_minor, x * y, x), 0.0)
    size += np.where(is_minor, (sigma_minor / fit_minor) ** 2 / (x * y), 0.0)
    error = flux * np.sqrt(NVSS_FLUX_ERROR**2 + amplitude + size + (bias / peak) ** 2)

    def limit(fit: Float, sigma: Float) -> Float:
        return np.asarray(np.sqrt((np.maximum(fit, beam) + 2.33 * sigma) ** 2 - beam**2))

    return {
        "ra_deg": rows.floats("RA(2000)", None) % 360.0,
        "dec_deg": dec,
        "flux_mjy": flux,
        "flux_err_mjy": error,
        "major_arcsec": np.where(is_major, np.sqrt(fit_major**2 - beam**2), 0.0),
        "minor_arcsec": np.where(is_minor, np.sqrt(fit_minor**2 - beam**2), 0.0),
        "pa_deg": np.where(is_major, rows.floats("POSANGLE", None), 0.0),
        "major_limit_arcsec": np.where(is_major, np.nan, limit(fit_major, sigma_major)),
        "minor_limit_arcsec": np.where(is_minor, np.nan, limit(fit_minor, sigma_minor)),
    }


VLA_FAMILIES = (
    Family(
        "vizier",
        "VizieR VIII/65",
        "nvss",
        ("RAJ2000", "DEJ2000", "S1.4"),
        ("e_S1.4", "MajAxis", "l_MajAxis", "MinAxis", "l_MinAxis", "PA"),
        _vizier,
    ),
    Family(
        "heasarc",
        "HEASARC",
        "nvss",
        ("ra", "dec", "flux_20_cm"),
        (
            *("flux_20_cm_error", "major_axis", "limit_major_axis"),
            *("minor_axis", "limit_minor_axis", "position_angle"),
        ),
        _heasarc,
    ),
    Family(
        "nrao",
        "NRAO CATALOG.FIT",
        "nvss",
        ("RA(2000)", "DEC(2000)", "PEAK INT", "MAJOR AX", "MINOR AX", "POSANGLE", "I RMS"),
        (),
        _nrao,
        # AIPS writes units of its own: DEGREES, JY/BEAM.
        trust_units=False,
    ),
    Family(
        "first",
        "FIRST",
        "first",
        ("RA", "DEC", "FINT", "FPEAK", "RMS", "MAJOR", "MINOR", "POSANG", "SIDEPROB"),
        (),
        _first,
    ),
)
