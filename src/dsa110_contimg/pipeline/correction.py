"""Fluxes of an observation brought to the scale of all, each by the other sources of that observation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float, Int
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
    follows, tells = (bits & FOLLOWS) > 0, (bits & TELLS) > 0
    columns = np.concatenate([np.ones((flux.size, 1)), np.where(follows[:, None], lean, 0.0)], axis=1)
    offset, covariance = np.atleast_2d(by.offset), by.covariance.reshape(-1, 3, 3)
    off = (columns * offset).sum(axis=1)
    variance = np.einsum("nk,nkl,nl->n", columns, np.broadcast_to(covariance, (flux.size, 3, 3)), columns)
    own = np.where(follows, stat, np.hypot(stat, beam))
    with np.errstate(divide="ignore", invalid="ignore"):
        w = (np.exp(log_reference + off) / own) ** 2
        about = w * (1 - w / weight)
        other = (np.log(flux) - log_reference - off) / (1 - w / weight)
        inside = tells & (np.abs(other) * np.sqrt(about) <= CLIP * by.times)
    inside &= np.isfinite(other) & (about > 0)
    lever = np.where(inside, np.minimum(about * variance, 0.99), 0.0)
    pull = np.where(inside, other, 0.0)
    off = off - lever * pull / (1 - lever)
    variance = variance / (1 - lever)
    of_class = ((bits & BY_VISIBILITIES) > 0).astype(int)
    ours = inside[:, None] & (np.arange(2) == of_class[:, None])
    own_chi2 = np.where(inside, about, 0.0) * pull**2 / (1 - lever)
    chi2 = by.chi2 - np.where(ours, own_chi2[:, None], 0.0)
    dof = by.dof - np.where(ours, (1 - lever)[:, None], 0.0)
    each = _excess(chi2, dof)[np.arange(flux.size), of_class]
    variance = variance * _excess(chi2.sum(axis=1), dof.sum(axis=1)) ** 2
    factor = np.exp(-off)
    noise = np.broadcast_to(by.noise, (flux.size, 2))[np.arange(flux.size), of_class]
    found, scattered = flux * factor, stat * factor * each
    of_scale = np.minimum(variance, covariance[:, 0, 0])
    beam_error = np.where(follows, np.abs(found) * np.sqrt(variance - of_scale), beam * factor)
    scale_error = np.abs(found) * np.sqrt(of_scale)
    common = beam_error**2 + scale_error**2
    return CorrectedFluxes(
        flux=found,
        error=np.sqrt((noise * scattered) ** 2 + common),
        stat=noise * scattered,
        beam=beam_error,
        scale=scale_error,
        whole_error=np.sqrt(scattered**2 + common),
    )


def _excess(chi2: Float, dof: Float) -> Float:
    """Return by what errors are too small, where the scatter of others says so beyond doubt; at least one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        reduced = chi2 / dof
        certain = (dof >= FEWEST) & (reduced > 1 + SIGNIFICANT * np.sqrt(2 / dof))
    return np.sqrt(np.where(certain, reduced, 1.0))
