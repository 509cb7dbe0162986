"""Sources so bright that they are considered at any distance from the field.

A source far down the primary beam, or in its null, can still outshine the field, and the brightest are badly
represented in NVSS (split into components, their extended flux resolved out).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import Table

__all__ = ["bright_sources"]


class _Source(NamedTuple):
    name: str
    ra_deg: float
    dec_deg: float
    flux_jy: float
    spectral_index: float
    major_arcsec: float = 0.0
    minor_arcsec: float = 0.0
    pa_deg: float = 0.0


_SOURCES = (
    # Perley & Butler (2017); Cassiopeia A faded by 0.67 and Taurus A by 0.17 % a year from 2016 to 2020.
    _Source("Cas A", 350.8583, 58.8133, 1720.0, -0.77, 200.0, 200.0, 0.0),
    _Source("Cyg A", 299.86815, 40.73392, 1580.0, -1.07, 110.0, 25.0, 111.0),
    _Source("Tau A", 83.6331, 22.0145, 823.0, -0.24, 240.0, 200.0, 126.0),
    _Source("Vir A", 187.70593, 12.39112, 212.0, -0.83, 45.0, 20.0, 105.0),
    _Source("Pic A", 79.9572, -45.7788, 67.0, -0.77, 240.0, 60.0, 102.0),
    _Source("3C353", 260.1173, -0.9796, 57.4, -0.73, 150.0, 60.0, 85.0),
    _Source("3C123", 69.26823, 29.67051, 48.3, -0.82, 15.0, 6.0, 115.0),
    _Source("Her A", 252.78395, 4.99259, 47.6, -1.05, 115.0, 30.0, 101.0),
    _Source("Hya A", 139.52386, -12.09556, 44.0, -0.94, 22.0, 8.0, 25.0),
    _Source("3C295", 212.83603, 52.20254, 22.5, -0.85),
    _Source("3C147", 85.65057, 49.85201, 22.2, -0.75),
    _Source("3C48", 24.42208, 33.15976, 16.3, -0.81),
    _Source("3C286", 202.78453, 30.50916, 15.1, -0.50),
    _Source("3C196", 123.40023, 48.21730, 14.4, -0.90),
    _Source("3C380", 277.38243, 48.74616, 13.1, -0.76),
    # Not in Perley & Butler. Compact ones from NVSS and the VLA calibrator list (3C273, Per A and PKS 1921-29
    # vary); flux densities and sizes of the extended ones are round figures, good to about 30 %.
    _Source("M17", 275.125, -16.178, 500.0, 0.0, 330.0, 330.0, 0.0),
    _Source("Ori A", 83.8208, -5.3900, 420.0, 0.0, 210.0, 210.0, 0.0),
    _Source("Sgr A", 266.4168, -29.0078, 220.0, -0.5, 150.0, 150.0, 0.0),
    _Source("W51", 290.927, 14.5085, 80.0, 0.0, 50.0, 50.0, 0.0),
    _Source("Ori B", 85.428, -1.909, 60.0, 0.0, 170.0, 170.0, 0.0),
    _Source("3C273", 187.27792, 2.05239, 45.0, -0.25),
    _Source("W49A", 287.564, 9.1053, 45.0, 0.0, 30.0, 30.0, 0.0),
    _Source("Per A", 49.95067, 41.51170, 22.0, 0.0),
    _Source("3C161", 96.79207, -5.88466, 18.5, -0.70),
    _Source("PKS 0521-36", 80.74160, -36.45857, 15.7, -0.45),
    _Source("3C409", 303.61487, 23.58132, 13.7, -0.85),
    _Source("PKS 1921-29", 291.21273, -29.24170, 13.6, 0.0),
)


def bright_sources() -> Table:
    """Return the sources of about 13 Jy and more at 1.4 GHz that are always considered.

    Returns
    -------
    Table
        Shape (n_sources,), brightest first: the columns of `dsa110_contimg.catalogs.query.query_cone` without
        ``separation_deg`` (fluxes at 1.4 GHz, about 2020; ``flux_err_mjy`` NaN; Gaussian FWHM sizes), and
        ``name`` and ``spectral_index`` (S proportional to nu^index, near 1.4 GHz). ``source_id`` is negative,
        so that none is that of a catalogue row.

    Notes
    -----
    Flux densities and indices: Perley & Butler (2017, ApJS 230, 7) for the sources they cover; for the others
    NVSS and the VLA calibrator list where compact, else round figures (30 %); their indices are round figures
    too. Positions: the VLA calibrator list and NVSS; for doubles the centre between the lobes. Sizes: one
    Gaussian per source, of about the widths in use for single-dish calibration: enough to say on which
    baselines a source matters, not to calibrate on it.
    Supernova remnants and lobes larger than 6 arcmin (Fornax A, Tycho, 3C58) are left out, as no baseline
    longer than about 100 m sees them; so are the lesser HII regions of the inner galactic plane.
    """
    sources = sorted(_SOURCES, key=lambda source: -source.flux_jy)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(source, name) for source in sources])

    return Table(
        {
            "source_id": -1 - np.arange(len(sources)),
            "ra_deg": column("ra_deg") * u.deg,
            "dec_deg": column("dec_deg") * u.deg,
            "flux_mjy": 1e3 * column("flux_jy") * u.mJy,
            "flux_err_mjy": np.full(len(sources), np.nan) * u.mJy,
            "major_arcsec": column("major_arcsec") * u.arcsec,
            "minor_arcsec": column("minor_arcsec") * u.arcsec,
            "pa_deg": column("pa_deg") * u.deg,
            "name": column("name"),
            "spectral_index": column("spectral_index"),
        }
    )
