"""One survey with a sharper one in its place where that sees more: NVSS with FIRST, and any such pair.

NVSS (45 arcsec beam) has the total flux, FIRST (5 arcsec) the positions and the structure, but resolves
extended emission out. So within FIRST's footprint

* FIRST components inside an NVSS source replace it and share its total flux in proportion to their own;
* an NVSS source without components stays as it is: it is resolved out, or has faded;
* a FIRST component that belongs to no NVSS source is a source of its own, too faint or too close for NVSS,
  with FIRST's flux; unless it is probably a sidelobe.

The same holds for any two surveys of which one is sharper; its fluxes, where they count, are carried to the
frequency of the other with a spectral index.

Outside the footprint NVSS stands alone, even where some FIRST components still lie: a source at the edge may
miss others. No flux is counted twice, and the sum over the entries of an NVSS source is its NVSS flux.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from astropy import units as u
from scipy.spatial import cKDTree

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.catalogs.surveys import COLUMN_UNITS, SURVEYS, Survey
from dsa110_contimg.sphere import unit_vectors

__all__ = [
    "FIRST_ID_OFFSET",
    "LARGEST_RADIUS_DEG",
    "Columns",
    "Holds",
    "associate",
    "merge_surveys",
]

#: Columns of one shape (n,), each with its unit.
Columns = dict[str, tuple[Float, u.UnitBase | None]]


class Holds(Protocol):
    """A part of the sky."""

    def holds(self, ra_deg: Float, dec_deg: Float) -> Bool:
        """Return which directions (degrees, shape (n,)) are in it."""


#: Wider sources are cut off here.
LARGEST_RADIUS_DEG = 180.0 / 3600.0
#: Components alone that are probably sidelobes than this are left out.
SIDELOBE_PROBABILITY = 0.1
#: Identifiers of entries from FIRST, or another sharper survey, begin above those of NVSS.
FIRST_ID_OFFSET = 10_000_000


def associate(nvss: Columns, first: Columns, beam_arcsec: float = SURVEYS["nvss"].beam_arcsec) -> Int:
    """Return for each FIRST component the row of the NVSS source it lies in, or -1; shape (n_first,).

    Of several NVSS sources it takes the nearest in units of their radii. It belongs to one within half a beam
    and half the source's deconvolved width (FWHM): the lobes of an equal double of separation s, fitted by
    one Gaussian of FWHM 1.18 s, lie at 0.42 FWHM.
    """
    owner = np.full(len(first["ra_deg"][0]), -1, dtype=np.int64)
    if not len(owner) or not len(nvss["ra_deg"][0]):
        return owner
    radius = np.radians((beam_arcsec / 2 + nvss["major_arcsec"][0] / 2) / 3600.0)
    radius = np.minimum(radius, np.radians(LARGEST_RADIUS_DEG))
    reach = 2 * np.sin(radius.max() / 2) * (1 + 1e-9)
    trees = [
        cKDTree(unit_vectors(np.radians(c["ra_deg"][0]), np.radians(c["dec_deg"][0]))) for c in (first, nvss)
    ]
    pairs = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    depth = 2 * np.arcsin(pairs["v"] / 2) / radius[pairs["j"]]
    pairs, depth = pairs[depth <= 1.0], depth[depth <= 1.0]
    # The last one written is the one a component lies deepest in.
    pairs = pairs[np.argsort(-depth, kind="stable")]
    owner[pairs["i"]] = pairs["j"]
    return owner


def merge_surveys(
    base: Survey,
    sharp: Survey,
    sources: Columns,
    components: Columns,
    footprint: Holds,
    spectral_index: float = 0.0,
) -> Columns:
    """Merge the sources of a survey with the components of a sharper one.

    Parameters
    ----------
    base, sharp : Survey
        The survey that fluxes are of, and the one that positions are of.
    sources, components : dict
        ``source_id`` and the columns of each, each an array of shape (n,) and its unit.
    footprint : Holds
        Where the sharper one is complete.
    spectral_index : float
        Carries fluxes of components that belong to no source to the frequency of the base.

    Returns
    -------
    dict
        ``source_id`` (that of the base, or `FIRST_ID_OFFSET` plus that of the sharper), the columns that all
        catalogues have, and an identifier of each survey (``nvss_id``, ``first_id``; -1: none) and
        ``n_components`` (entries that share the source).
    """
    owner = associate(sources, components, base.beam_arcsec)
    covered = footprint.holds(sources["ra_deg"][0], sources["dec_deg"][0])
    owned = owner >= 0
    used = np.append(covered, False)[owner]  # an owner of -1 takes the last
    alone = ~owned & footprint.holds(components["ra_deg"][0], components["dec_deg"][0])
    if "sidelobe_probability" in components:
        alone &= ~(components["sidelobe_probability"][0] > SIDELOBE_PROBABILITY)
    n_base = len(covered)
    count = np.bincount(owner[used], minlength=n_base)
    sums = np.bincount(owner[used], weights=components["flux_mjy"][0][used], minlength=n_base)
    # Components without any flux to share by share alike.
    share = np.where(
        sums[owner[used]] > 0,
        components["flux_mjy"][0][used] / np.where(sums[owner[used]] > 0, sums[owner[used]], 1.0),
        1.0 / np.maximum(count[owner[used]], 1),
    )
    kept = count == 0
    carried = (base.freq_hz / sharp.freq_hz) ** spectral_index
    merged: Columns = {}
    for name, unit in COLUMN_UNITS.items():
        of_sharp, of_alone = components[name][0][used], components[name][0][alone]
        if name in ("flux_mjy", "flux_err_mjy"):
            of_sharp, of_alone = share * sources[name][0][owner[used]], carried * of_alone
        merged[name] = (np.concatenate([sources[name][0][kept], of_sharp, of_alone]), unit)
    base_id, sharp_id = sources["source_id"][0], components["source_id"][0]
    none, none_kept = np.full(alone.sum(), -1.0), np.full(kept.sum(), -1.0)
    identifiers = {
        "source_id": [base_id[kept], FIRST_ID_OFFSET + sharp_id[used], FIRST_ID_OFFSET + sharp_id[alone]],
        f"{base.name}_id": [base_id[kept], base_id[owner[used]], none],
        f"{sharp.name}_id": [none_kept, sharp_id[used], sharp_id[alone]],
        "n_components": [np.ones(kept.sum()), count[owner[used]].astype(float), np.ones(alone.sum())],
    }
    ids = {name: (np.concatenate(parts), None) for name, parts in identifiers.items()}
    return {"source_id": ids.pop("source_id"), **merged, **ids}
