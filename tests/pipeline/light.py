"""Lists of sources as observations leave them, of a sky that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Column, Table

from dsa110_contimg.files import write_table
from dsa110_contimg.selfcal.naming import SOURCES
from dsa110_contimg.selfcal.source_report import COLUMNS

N_SOURCES = 40
RNG = np.random.default_rng(3)
PLACES = np.stack([150 + RNG.uniform(-1, 1, N_SOURCES), 54 + RNG.uniform(-1, 1, N_SOURCES)])
FLUX = np.geomspace(0.01, 1.0, N_SOURCES)
CATALOG = FLUX * (1 + 0.05 * RNG.standard_normal(N_SOURCES))


def write_sources(folder: Path, day: int, factor=1.0, scale=1.0, new=(), error=0.02, seed=None) -> Path:
    """Write what a day measured: true fluxes times `factor` (by source) and `scale`, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1000 + day if seed is None else seed)
    true = FLUX * factor * scale
    sigma = error * FLUX * np.linspace(0.5, 1.5, N_SOURCES)
    n, m = N_SOURCES, len(new)
    both = lambda listed, of_new: np.concatenate([listed, np.asarray(of_new, dtype=float)])  # noqa: E731
    flux = both(true + sigma * rng.standard_normal(n), [f for _, _, f in new])
    ones = np.ones(n + m)
    columns = {
        "name": [f"s{k}" for k in range(n)] + [f"new{k}" for k in range(m)],
        "kind": ["catalogue"] * n + ["new"] * m,
        "ra_deg": both(PLACES[0], [r for r, _, _ in new]),
        "dec_deg": both(PLACES[1], [d for _, d, _ in new]),
        "catalog_flux_jy": both(CATALOG, np.zeros(m)),
        "flux_jy": flux,
        "stat_error_jy": both(sigma, np.full(m, 0.001)),
        "scale_error_jy": 0.01 * flux,
        "beam_error_jy": 0 * ones,
        "apparent_jy": flux / 2,
        "catalog_apparent_jy": both(CATALOG, np.zeros(m)) / 2,
        "noise_jy": 5e-4 * ones,
        "response": 0.5 * ones,
        "distance_deg": 0.5 * ones,
        "method": ["visibilities"] * n + ["image"] * m,
        "ratio": flux,
        "ratio_error": 0.02 * ones,
        "shift_east_arcsec": np.nan * ones,
        "shift_north_arcsec": np.nan * ones,
        "shift_error_arcsec": 0.5 * ones,
        "taken_by_gains": 0.01 * ones,
        "flags": [""] * (n + m),
        "verdict": ["agrees"] * n + ["new"] * m,
    }
    table = Table([Column(columns[name], name=name, unit=unit) for name, (unit, _, _) in COLUMNS.items()])
    table.meta |= {"mjd": 60000.0 + day, "freq_hz": 1.405e9, "beam_major_arcsec": 30.0, "calibrated": True}
    table.meta |= {"flux_scale": 1.0, "flux_scale_error": 0.01, "n_new": m, "false_new_expected": 0.1}
    write_table(folder / SOURCES, table)
    return folder
