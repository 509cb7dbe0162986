"""What sources may lie where a catalogue that covers only a part of the sky says nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs import Cover
from dsa110_contimg.catalogs.cone_coverage import cone_samples
from dsa110_contimg.catalogs.source_counts import counts_above, flux_above
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.directions import lmn_from_radec

__all__ = ["Uncovered", "uncovered_flux"]

COUNTS_HZ = 1.4e9
#: Responses are gathered in so many steps before source counts are integrated.
STEPS = 60


@dataclass(frozen=True)
class Uncovered:
    """Sources to be expected in the part of a cone that no catalogue covers.

    Attributes
    ----------
    fraction : float
        How much of the cone that is.
    n_sources : float
        Sources above the limit, through the beam.
    flux_jy, scatter_jy : float
        Their apparent flux together, and by how much that of one field differs from another's.
    limit_jy : float
        That limit, on apparent fluxes.
    """

    fraction: float
    n_sources: float
    flux_jy: float
    scatter_jy: float
    limit_jy: float

    def sentence(self) -> str:
        """Say it in a line."""
        return (
            f"the catalogue ends inside the cone, {100 * self.fraction:.0f} % of which it does not cover: "
            f"about {self.n_sources:.1f} sources above {1e3 * self.limit_jy:g} mJy apparent, "
            f"{1e3 * self.flux_jy:.1f} +- {1e3 * self.scatter_jy:.1f} mJy together, are not in the model "
            "(source counts of Hopkins et al. 2003 through the primary beam)"
        )


def uncovered_flux(
    cover: Cover,
    pointing: Float,
    radius_rad: float,
    beam: PrimaryBeam,
    freq_hz: float,
    limit_jy: float,
    spectral_index: float,
) -> Uncovered:
    """Estimate what a catalogue that ends inside a cone leaves out.

    Parameters
    ----------
    cover : Cover
        What the catalogue covers.
    pointing : ndarray, shape (ntime, 2)
        Where the beam points, ICRS radians; the cone is about the middle one.
    radius_rad : float
        Radius of the cone, radians.
    beam : PrimaryBeam
        Primary beam.
    freq_hz : float
        Frequency in hertz.
    limit_jy : float
        Faintest apparent flux that would be in the model, jansky.
    spectral_index : float
        Of the population: the counts are at 1.4 GHz.

    Returns
    -------
    Uncovered
    """
    # The middle of them, also where right ascension starts anew.
    dec = pointing[:, 1]
    east = np.mean(np.cos(dec) * np.exp(1j * pointing[:, 0]))
    ra0, dec0 = np.angle(east), np.arctan2(np.mean(np.sin(dec)), np.abs(east))
    ra, dec, area = cone_samples(
        float(np.degrees(ra0)), float(np.degrees(dec0)), float(np.degrees(radius_rad))
    )
    outside = ~cover.holds(ra, dec)
    fraction = float(area[outside].sum() / area.sum())
    response = np.zeros(int(outside.sum()))
    ra_rad, dec_rad = np.radians(ra[outside]), np.radians(dec[outside])
    for at_ra, at_dec in pointing:
        lmn = lmn_from_radec(ra_rad, dec_rad, float(at_ra), float(at_dec))
        response += beam.power_towards(lmn, freq_hz)[:, 0] / len(pointing)
    # From a flux at 1.4 GHz to an apparent one at the observed frequency.
    carried = response * (freq_hz / COUNTS_HZ) ** spectral_index
    n_sources = flux = squared = 0.0
    if response.size and carried.max() > 0:
        steps = np.geomspace(carried.max() * 1e-6, carried.max() * (1 + 1e-9), STEPS + 1)
        solid, _ = np.histogram(carried, steps, weights=area[outside])
        for middle, angle in zip(np.sqrt(steps[1:] * steps[:-1]), solid, strict=True):
            if angle > 0:
                total, total_squared = flux_above(limit_jy / middle)
                n_sources += angle * counts_above(limit_jy / middle)
                flux += angle * middle * total
                squared += angle * middle**2 * total_squared
    return Uncovered(fraction, float(n_sources), float(flux), float(np.sqrt(squared)), limit_jy)
