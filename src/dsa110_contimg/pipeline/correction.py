"""Fluxes of an observation brought to the scale of all, each by the other sources of that observation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.pipeline.ensemble import CLIP, FEWEST

__all__ = ["BY_VISIBILITIES", "FOLLOWS", "FOUND", "TELLS", "CorrectedFluxes", "Correction", "correct"]

#: What is known of a flux, in the bits of a number: it may tell the scale; it follows the pointing as sources
#: within the main lobe do; it was fitted to visibilities; it was found, and not read where it should be.
TELLS, FOLLOWS, BY_VISIBILITIES, FOUND = 1, 2, 4, 8
#: Scatter of the other sources counts from so many of its own errors on.
SIGNIFICANT = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Correction:
    """How observations are off: of one, or one for each flux, where shapes begin with (n,).

    Attributes
    ----------
    offset, covariance : ndarray, shape (..., 3) and (..., 3, 3)
        As of :class:`~dsa110_contimg.pipeline.ensemble.EnsembleSolution`.
    chi2, dof : ndarray, shape (..., 2)
        As there.
    times : ndarray, shape (...)
        As there.
    noise : ndarray, shape (..., 2)
        What part of the errors by noise of images and visibilities changes from observation to observation.
    """

    offset: Float
    covariance: Float
    chi2: Float
    dof: Float
    times: Float
    noise: Float

    #: Numbers in a row of :meth:`packed`.
    WIDTH = 3 + 9 + 2 + 2 + 1 + 2

    def packed(self) -> Float:
        """Return all as rows of numbers, shape (n, WIDTH); for n of them."""
        n = len(self.offset)
        parts = self.offset, self.covariance, self.chi2, self.dof, self.times, self.noise
        return np.concatenate([part.reshape(n, math.prod(part.shape[1:])) for part in parts], axis=1)

    @classmethod
    def of(cls, rows: Float) -> Correction:
        """Take rows of :meth:`packed`, or one, apart."""
        offset, covariance, chi2, dof, times, noise = np.split(rows, [3, 12, 14, 16, 17], axis=-1)
        return cls(
            offset=offset,
            covariance=covariance.reshape(*rows.shape[:-1], 3, 3),
            chi2=chi2,
            dof=dof,
            times=times[..., 0],
            noise=noise,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CorrectedFluxes:
    """Fluxes on the scale of all observations, each of shape (n,).

    Attributes
    ----------
    flux, error : ndarray
        Jansky, and the error by which it scatters about those of other observations.
    stat, beam, scale : ndarray
        That error apart: by noise, beam and flux scale.
    whole_error : ndarray
        The error with that part of the noise that is the same in all observations.
    """

    flux: Float
    error: Float
    stat: Float
    beam: Float
    scale: Float
    whole_error: Float


def correct(
    flux: Float,
    stat: Float,
    beam: Float,
    lean: Float,
    bits: Int,
    by: Correction,
    log_reference: Float,
    weight: Float,
) -> CorrectedFluxes:
    """Bring fluxes to the scale of all observations.

    Parameters
    ----------
    flux, stat, beam : ndarray, shape (n,)
        As measured, with the errors by noise and beam, jansky.
    lean : ndarray, shape (n, 2)
        Relative change of the flux where the beam points one standard error east or north.
    bits : ndarray of int, shape (n,)
        What is known of them.
    by : Correction
        Of the observation of all, or of each.
    log_reference, weight : ndarray, shape (n,)
        What the sources are on the common scale; NaN of those that tell no scale.

    Notes
    -----
    Nothing is judged by what it was solved on: what a source itself has told of its observation is taken out
    again, by the rank-one change of the normal matrix.
    """
    follows = (bits & FOLLOWS) > 0
    columns = np.where(follows, lean.T, 0.0)
    offset, covariance = by.offset, by.covariance
    off = offset[..., 0] + offset[..., 1] * columns[0] + offset[..., 2] * columns[1]
    variance = _variance(covariance, columns)
    seen = (bits & BY_VISIBILITIES) > 0
    each = _of_class(_excess(by.chi2, by.dof), seen)
    more = _excess(by.chi2.sum(axis=-1), by.dof.sum(axis=-1)) ** 2
    more = np.array(np.broadcast_to(more, flux.shape))
    told = np.flatnonzero(bits & TELLS)
    if told.size:
        own = np.where(follows, stat, np.hypot(stat, beam))[told]
        chi2, dof = (np.broadcast_to(v, (flux.size, 2))[told] for v in (by.chi2, by.dof))
        off[told], variance[told], each[told], more[told] = _told(
            flux[told], own, off[told], variance[told], seen[told], chi2, dof,
            np.broadcast_to(by.times, flux.shape)[told], log_reference[told], weight[told],
        )  # fmt: skip
    variance *= more
    factor = np.exp(-off)
    noise = _of_class(by.noise, seen)
    found, scattered = flux * factor, stat * factor * each
    of_scale = np.minimum(variance, covariance[..., 0, 0])
    size = np.abs(found)
    beam_error = np.where(follows, size * np.sqrt(variance - of_scale), beam * factor)
    scale_error = size * np.sqrt(of_scale)
    common = beam_error**2 + scale_error**2
    return CorrectedFluxes(
        flux=found,
        error=np.sqrt((noise * scattered) ** 2 + common),
        stat=noise * scattered,
        beam=beam_error,
        scale=scale_error,
        whole_error=np.sqrt(scattered**2 + common),
    )


def _variance(covariance: Float, columns: Float) -> Float:
    """Return the variance of the logarithms of the corrections, of scale and pointing together."""
    c, (east, north) = covariance, columns
    return np.asarray(
        c[..., 0, 0]
        + east * (2 * c[..., 0, 1] + east * c[..., 1, 1] + 2 * north * c[..., 1, 2])
        + north * (2 * c[..., 0, 2] + north * c[..., 2, 2])
    )


def _told(
    flux: Float,
    own: Float,
    off: Float,
    variance: Float,
    seen: Bool,
    chi2: Float,
    dof: Float,
    times: Float,
    log_reference: Float,
    weight: Float,
) -> tuple[Float, Float, Float, Float]:
    """Take out what sources have told themselves; return correction, variance, and excess of both kinds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        w = (np.exp(log_reference + off) / own) ** 2
        about = w * (1 - w / weight)
        other = (np.log(flux) - log_reference - off) / (1 - w / weight)
        inside = np.abs(other) * np.sqrt(about) <= CLIP * times
    inside &= np.isfinite(other) & (about > 0)
    lever = np.where(inside, np.minimum(about * variance, 0.99), 0.0)
    pull = np.where(inside, other, 0.0)
    ours = inside[:, None] & (np.arange(2) == seen[:, None])
    own_chi2 = np.where(inside, about, 0.0) * pull**2 / (1 - lever)
    chi2 = chi2 - np.where(ours, own_chi2[:, None], 0.0)
    dof = dof - np.where(ours, (1 - lever)[:, None], 0.0)
    each = _of_class(_excess(chi2, dof), seen)
    more = _excess(chi2.sum(axis=1), dof.sum(axis=1)) ** 2
    return off - lever * pull / (1 - lever), variance / (1 - lever), each, more


def _of_class(values: Float, seen: Bool) -> Float:
    """Choose from values of images and of visibilities, shape (..., 2)."""
    return np.where(seen, values[..., 1], values[..., 0])


def _excess(chi2: Float, dof: Float) -> Float:
    """Return by what errors are too small, where the scatter of others says so beyond doubt; at least one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        reduced = chi2 / dof
        certain = (dof >= FEWEST) & (reduced > 1 + SIGNIFICANT * np.sqrt(2 / dof))
    return np.sqrt(np.where(certain, reduced, 1.0))
