"""A linear distortion of positions across the field, as refraction makes it: measured and applied.

Sources that are bright enough are moved to where they are measured one by one. What they are off by as a
function of where they are says where all the others are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.selfcal.sky_check import FEWEST_SOURCES, SIGNIFICANT, robust_fit
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.sky import ApparentSky, radec_from_lm
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["Distortion", "distorted", "fit_distortion"]

#: Outlying shifts count for no more than this many errors where one half of the sources predicts the other.
CLIP = 3.0


@dataclass(frozen=True, eq=False)
class Distortion:
    """Shift of sources that grows linearly across the field.

    Attributes
    ----------
    offset_rad : ndarray, shape (2,)
        Shift in l and m at the phase centre.
    matrix : ndarray, shape (2, 2)
        Symmetric: what direction cosines about the phase centre are multiplied by for the rest of the shift.
    sigmas : float
        By how many of its errors the matrix differs from zero, at most in one of its three elements.
    gains : (float, float)
        By how much that of either half of the sources lowers chi-squared of the shifts of the other one.
    """

    offset_rad: Float
    matrix: Float
    sigmas: float
    gains: tuple[float, float]

    @property
    def asked(self) -> bool:
        """Whether it is beyond doubt, and either half of the sources predicts the other better with it."""
        return self.sigmas > SIGNIFICANT and all(gain > 0 for gain in self.gains)

    def shift_rad(self, lm: Float) -> Float:
        """Shift of sources at direction cosines about the phase centre, shape (n, 2)."""
        return self.offset_rad + lm @ self.matrix

    def at_rad(self, radius_rad: float) -> float:
        """Largest shift against the centre at a distance from it."""
        return float(np.abs(np.linalg.eigvalsh(self.matrix)).max() * radius_rad)


def fit_distortion(measured: SourceMeasurement, lm: Float, first: Bool) -> Distortion | None:
    """Fit a distortion to the shifts of measured sources; None where there are too few of them.

    Parameters
    ----------
    measured : SourceMeasurement
        Of the catalogue's sources.
    lm : ndarray, shape (n, 2)
        Where the catalogue has those that were measured, direction cosines about the phase centre.
    first : ndarray of bool, shape (n,)
        Those of the first half of the sources.

    Notes
    -----
    A rotation is left out: nothing turns the sky but wrong coordinates.
    """
    good = measured.good
    shift, error = measured.shift_rad[good], np.hypot(measured.shift_error[good], ARCSEC)
    lm, first = lm[good], first[good]
    if min(np.count_nonzero(first), np.count_nonzero(~first)) < FEWEST_SOURCES // 2:
        return None
    if len(lm) < FEWEST_SOURCES:
        return None

    def solved(part: Bool) -> tuple[Float, Float]:
        return robust_fit(_design(lm[part]), shift[part].T.reshape(-1), 1 / error[part].T.reshape(-1) ** 2)

    def gain(on: Bool) -> float:
        other = ~on
        left = shift[other].T.reshape(-1), error[other].T.reshape(-1)
        design, found = _design(lm[other]), solved(on)[0]
        plain = np.concatenate([np.full(other.sum(), x) for x in np.median(shift[on], axis=0)])
        with_it, without = (
            float(np.minimum(((left[0] - model) / left[1]) ** 2, CLIP**2).sum())
            for model in (design @ found, plain)
        )
        return without - with_it

    solution, uncertain = solved(np.ones(len(lm), dtype=bool))
    stretch, p, q = solution[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = float(np.nanmax(np.abs(solution[2:]) / uncertain[2:]))
    return Distortion(
        np.asarray(solution[:2]),
        np.array([[stretch + p, q], [q, stretch - p]]),
        sigmas,
        (gain(first), gain(~first)),
    )


def _design(lm: Float) -> Float:
    """Give what offset, stretch and the two shears make of l, then of m, shape (2 n, 5)."""
    l, m = lm.T  # noqa: E741
    one, zero = np.ones(len(lm)), np.zeros(len(lm))
    return np.concatenate([np.stack([one, zero, l, l, m], axis=1), np.stack([zero, one, m, -m, l], axis=1)])


def distorted(
    model: ApparentSky,
    listed: ApparentSky,
    distortion: Distortion,
    placed: Bool,
    centre: tuple[float, float],
) -> ApparentSky:
    """Move the sources of a sky model that are where the catalogue lists them.

    Parameters
    ----------
    model : ApparentSky
        The catalogue's sources, then others, which stay.
    listed : ApparentSky
        The catalogue's sources as it lists them.
    distortion : Distortion
        By what.
    placed : ndarray of bool, shape (n,)
        Sources of the catalogue that are where they were measured, and stay.
    centre : (float, float)
        Phase centre, ICRS radians.
    """
    moved = np.flatnonzero(~placed)
    lm = listed.sky.select(moved).lmn(*centre)[:, :2]
    lm = lm + distortion.shift_rad(lm)
    seen = np.hypot(*lm.T) < 1
    ra, dec = model.sky.ra_rad.copy(), model.sky.dec_rad.copy()
    ra[moved[seen]], dec[moved[seen]] = radec_from_lm(lm[seen, 0], lm[seen, 1], *centre)
    return replace(model, sky=replace(model.sky, ra_rad=ra, dec_rad=dec))
