"""NVSS with FIRST in its place where FIRST sees more.

NVSS (45 arcsec beam) has the total flux, FIRST (5 arcsec) the positions and the structure, but resolves
extended emission out. So within FIRST's footprint

* FIRST components inside an NVSS source replace it and share its total flux in proportion to their own;
* an NVSS source without components stays as it is: it is resolved out, or has faded;
* a FIRST component that belongs to no NVSS source is a source of its own, too faint or too close for NVSS,
with
  FIRST's flux; unless it is probably a sidelobe.

Outside the footprint NVSS stands alone, even where some FIRST components still lie: a source at the edge may
miss others. No flux is counted twice, and the sum over the entries of an NVSS source is its NVSS flux.
"""

from __future__ import annotations

import numpy as np
from astropy import units as u
from scipy.spatial import cKDTree

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.catalogs.coverage import Footprint
from dsa110_contimg.catalogs.surveys import COLUMN_UNITS, SURVEYS

__all__ = ["FIRST_ID_OFFSET", "LARGEST_RADIUS_DEG", "Columns", "associate", "merge_nvss_first"]

#: Columns of one shape (n,), each with its unit.
Columns = dict[str, tuple[Float, u.UnitBase | None]]

#: A component belongs to an NVSS source within half a beam and half the source's deconvolved width (FWHM):
#: the lobes of an equal double of separation s, fitted by one Gaussian of FWHM 1.18 s, lie at 0.42 FWHM.
HALF_BEAM_ARCSEC = SURVEYS["nvss"].beam_arcsec / 2
#: Wider NVSS sources are cut off here.
LARGEST_RADIUS_DEG = 180.0 / 3600.0
#: FIRST-only components more probably sidelobes than this are left out.
SIDELOBE_PROBABILITY = 0.1
#: Identifiers of entries from FIRST begin above those of NVSS.
FIRST_ID_OFFSET = 10_000_000


def associate(nvss: Columns, first: Columns) -> Int:
    """Return for each FIRST component the row of the NVSS source it lies in, or -1; shape (n_first,).

    Of several NVSS sources it takes the nearest in units of their radii.
    """
    owner = np.full(len(first["ra_deg"][0]), -1, dtype=np.int64)
    if not len(owner) or not len(nvss["ra_deg"][0]):
        return owner
    radius = np.radians((HALF_BEAM_ARCSEC + nvss["major_arcsec"][0] / 2) / 3600.0)
    radius = np.minimum(radius, np.radians(LARGEST_RADIUS_DEG))
    reach = 2 * np.sin(radius.max() / 2) * (1 + 1e-9)
    trees = cKDTree(_unit_vectors(first)), cKDTree(_unit_vectors(nvss))
    pairs = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    depth = 2 * np.arcsin(pairs["v"] / 2) / radius[pairs["j"]]
    pairs, depth = pairs[depth <= 1.0], depth[depth <= 1.0]
    # The last one written is the one a component lies deepest in.
    pairs = pairs[np.argsort(-depth, kind="stable")]
    owner[pairs["i"]] = pairs["j"]
    return owner


def merge_nvss_first(nvss: Columns, first: Columns, footprint: Footprint) -> Columns:
    """Merge NVSS sources with FIRST components.

    Parameters
    ----------
    nvss, first : dict
        ``source_id`` and the columns of each survey, each an array of shape (n,) and its unit.
    footprint : Footprint
        Where FIRST is complete.

    Returns
    -------
    dict
        ``source_id`` (that of NVSS, or `FIRST_ID_OFFSET` plus that of FIRST), the columns that all catalogues
        have, and ``nvss_id``, ``first_id`` (-1: none) and ``n_components`` (entries that share the
        NVSS source).
    """
    owner = associate(nvss, first)
    covered = footprint.holds(nvss["ra_deg"][0], nvss["dec_deg"][0])
    owned = owner >= 0
    used = np.append(covered, False)[owner]  # an owner of -1 takes the last
    alone = ~owned & footprint.holds(first["ra_deg"][0], first["dec_deg"][0])
    alone &= ~(first["sidelobe_probability"][0] > SIDELOBE_PROBABILITY)
    n_nvss = len(covered)
    components = np.bincount(owner[used], minlength=n_nvss)
    sums = np.bincount(owner[used], weights=first["flux_mjy"][0][used], minlength=n_nvss)
    # Components without any flux to share by share alike.
    share = np.where(
        sums[owner[used]] > 0,
        first["flux_mjy"][0][used] / np.where(sums[owner[used]] > 0, sums[owner[used]], 1.0),
        1.0 / np.maximum(components[owner[used]], 1),
    )
    kept = components == 0
    merged: Columns = {}
    for name, unit in COLUMN_UNITS.items():
        of_first = first[name][0][used]
        if name in ("flux_mjy", "flux_err_mjy"):
            of_first = share * nvss[name][0][owner[used]]
        merged[name] = (np.concatenate([nvss[name][0][kept], of_first, first[name][0][alone]]), unit)
    nvss_id, first_id = nvss["source_id"][0], first["source_id"][0]
    none, none_kept = np.full(alone.sum(), -1.0), np.full(kept.sum(), -1.0)
    identifiers = {
        "source_id": [nvss_id[kept], FIRST_ID_OFFSET + first_id[used], FIRST_ID_OFFSET + first_id[alone]],
        "nvss_id": [nvss_id[kept], nvss_id[owner[used]], none],
        "first_id": [none_kept, first_id[used], first_id[alone]],
        "n_components": [np.ones(kept.sum()), components[owner[used]].astype(float), np.ones(alone.sum())],
    }
    ids = {name: (np.concatenate(parts), None) for name, parts in identifiers.items()}
    return {"source_id": ids.pop("source_id"), **merged, **ids}


def _unit_vectors(columns: Columns) -> Float:
    ra, dec = np.radians(columns["ra_deg"][0]), np.radians(columns["dec_deg"][0])
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
