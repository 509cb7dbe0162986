"""Flux scale and pointing of all observations together, from sources that do not vary.

What observations have in common, sources, tells how each one is off. All are solved for at once, so that the
result is the same in whatever order they were taken in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.imaging.measure import MAD_TO_SIGMA

__all__ = [
    "CLASSES",
    "CLIP",
    "ENSEMBLE_ERROR",
    "FEWEST",
    "EnsembleFluxes",
    "EnsembleSolution",
    "best_told",
    "solve_ensemble",
]

#: Sources tell how an observation is off if they are measured to this; of more than so many, the best.
ENSEMBLE_ERROR, MOST_ENSEMBLE = 0.1, 300

#: With fewer sources nothing is clipped, and nothing is known of the scatter.
FEWEST = 8
#: What is further off than so many sigma varies, or is disturbed.
CLIP, PASSES = 4.0, 12
#: Sources with a larger reduced chi-squared than this, in units of the median, tell no scale.
MOST_ETA = 4.0
#: Catalogue fluxes scatter by this about those of another instrument; further off by CLIP, they are not used.
CATALOG_SCATTER = 0.1
#: Where no source tells, the scale of an observation is known to this.
SCALE_SCATTER = 0.3
#: How fluxes were measured: off the image, and from visibilities. Their scatter is known apart.
CLASSES = 2
TOLERANCE, MOST_STEPS = 1e-12, 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleFluxes:
    """Fluxes of sources that may tell the scale, each of shape (n,) if nothing else is said.

    Attributes
    ----------
    observation, source : ndarray of int
        From zero on; a source in two bands is two.
    flux, error : ndarray
        Jansky, positive, and the error without that of the scale.
    catalog : ndarray
        Flux in the catalogue.
    lean : ndarray, shape (n, 2)
        Relative change of the flux where the beam points one standard error east or north.
    by_visibilities : ndarray of bool
        How it was measured.
    """

    observation: Int
    source: Int
    flux: Float
    error: Float
    catalog: Float
    lean: Float
    by_visibilities: Bool


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleSolution:
    """How observations are off, and what sources are on their common scale.

    Attributes
    ----------
    offset : ndarray, shape (n_observations, 3)
        Logarithm of the flux scale, and the pointing east and north in its standard errors.
    covariance : ndarray, shape (n_observations, 3, 3)
        Of that, about what all observations have in common.
    chi2, dof : ndarray, shape (n_observations, 2)
        Chi-squared of the sources about it and its expectation, of images and of visibilities.
    times : ndarray, shape (n_observations,)
        Robust scatter over the errors, at least one.
    n : ndarray of int, shape (n_observations,)
        Sources that were used.
    log_reference, weight : ndarray, shape (n_sources,)
        Logarithm of the flux and its weight, the inverse of its variance; NaN of what varies.
    """

    offset: Float
    covariance: Float
    chi2: Float
    dof: Float
    times: Float
    n: Int
    log_reference: Float
    weight: Float


def best_told(tells: Bool, flux: Float, error: Float) -> Bool:
    """Choose of the fluxes that may tell the scale of an observation no more than are needed, the best."""
    order = np.argsort(np.where(tells, error / np.abs(flux), np.inf), kind="stable")[:MOST_ENSEMBLE]
    best = np.zeros(tells.size, dtype=bool)
    best[order] = tells[order]
    return best


def solve_ensemble(fluxes: EnsembleFluxes, n_observations: int, n_sources: int) -> EnsembleSolution:
    """Find flux scales and pointings with which sources are as constant as they can be.

    Parameters
    ----------
    fluxes : EnsembleFluxes
        Of all observations.
    n_observations, n_sources : int
        How many there are.

    Notes
    -----
    With the logarithm ``z`` of flux over catalogue flux of source i in observation j::

        z_ij = p_i + s_j + a_ij . u_j,   p_i ~ N(0, 0.1),  u_j ~ N(0, 1),  s_j ~ N(0, 0.3)

    by weighted least squares: the sources are eliminated and the observations solved for by conjugate
    gradients. The catalogue counts as one more observation with a scatter of ten per cent a source; it holds
    the scale of what shares nothing else. Fluxes more than four sigma off, and sources whose reduced
    chi-squared is above four times the median, are left out, until that settles.
    """
    f = fluxes
    shape = n_observations, n_sources
    z = np.log(f.flux / f.catalog)
    columns = np.concatenate([np.ones((z.size, 1)), f.lean], axis=1)
    offset, position = _begin(f, z, *shape)
    prior = np.tile([SCALE_SCATTER**-2, 1.0, 1.0], (n_observations, 1))
    listed = np.full(n_sources, CATALOG_SCATTER**-2)
    used = np.ones(z.size, dtype=bool)
    times, varies = np.ones(n_observations), np.zeros(n_sources, dtype=bool)
    w = np.zeros(z.size)
    total = listed.copy()
    for _ in range(PASSES):
        # Weights by what the source is, not by what was measured: noise must not choose its own weight.
        expected = position[f.source] + (columns * offset[f.observation]).sum(axis=1)
        w = (f.flux * np.exp(np.clip(expected - z, -1, 1)) / f.error) ** 2
        apart = _apart(z, columns, offset, position, w, total, f)
        times = _times(apart, f.observation, n_observations)
        varies = _varies(apart, f, n_sources)
        inside = (np.abs(apart) <= CLIP * times[f.observation]) & ~varies[f.source]
        few = np.bincount(f.observation[inside], minlength=n_observations) < FEWEST
        inside |= few[f.observation] & ~varies[f.source]
        listed = np.where(np.abs(position) <= CLIP * CATALOG_SCATTER, CATALOG_SCATTER**-2, 1e-4)
        settled = np.array_equal(inside, used)
        used = inside
        before = offset
        offset = _solve(np.where(used, w, 0.0), z, columns, prior, listed, f, *shape)
        position, total = _positions(np.where(used, w, 0.0), z, columns, offset, listed, f, n_sources)
        of_all, _ = _positions(w, z, columns, offset, listed, f, n_sources)
        position = np.where(varies, of_all, position)
        if settled and np.abs(offset - before).max(initial=0.0) < 1e-7:
            break
    return _solution(f, z, columns, w, used, varies, offset, position, total, prior, times)


def _begin(f: EnsembleFluxes, z: Float, n_observations: int, n_sources: int) -> tuple[Float, Float]:
    """Medians over sources, then over observations."""
    offset = np.zeros((n_observations, 3))
    offset[:, 0] = _medians(z, f.observation, n_observations)
    return offset, _medians(z - offset[f.observation, 0], f.source, n_sources)


def _medians(values: Float, group: Int, n: int) -> Float:
    """Return the median of each group; zero of one without values."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=n)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    low, high = first + (count - 1) // 2, first + count // 2
    ordered = values[order]
    found = np.zeros(n)
    some = count > 0
    found[some] = (ordered[low[some]] + ordered[high[some]]) / 2
    return found


def _apart(
    z: Float, columns: Float, offset: Float, position: Float, w: Float, total: Float, f: EnsembleFluxes
) -> Float:
    """Return how far fluxes are from what they should be, in errors."""
    r = z - position[f.source] - (columns * offset[f.observation]).sum(axis=1)
    return np.asarray(r / np.sqrt(1 / w + 1 / np.maximum(total[f.source] - w, CATALOG_SCATTER**-2)))


def _times(apart: Float, observation: Int, n: int) -> Float:
    scatter = MAD_TO_SIGMA * _medians(np.abs(apart), observation, n)
    return np.where(np.bincount(observation, minlength=n) >= FEWEST, np.maximum(1.0, scatter), 1.0)


def _varies(apart: Float, f: EnsembleFluxes, n_sources: int) -> Bool:
    count = np.bincount(f.source, minlength=n_sources)
    # Of two fluxes hardly anything is known of how much a source varies.
    eta = np.bincount(f.source, apart**2, minlength=n_sources) / np.maximum(count - 1, 1)
    many = count >= 3
    if np.count_nonzero(many) < FEWEST:
        return np.zeros(n_sources, dtype=bool)
    return np.asarray(many & (eta > MOST_ETA * max(1.0, float(np.median(eta[many])))))


def _solve(
    w: Float,
    z: Float,
    columns: Float,
    prior: Float,
    listed: Float,
    f: EnsembleFluxes,
    n_observations: int,
    n_sources: int,
) -> Float:
    """Solve for the observations, with the sources eliminated."""
    total = np.bincount(f.source, w, minlength=n_sources) + listed

    def gather(t: Float) -> Float:
        """Sum over the fluxes of each observation, less what their sources' own positions explain."""
        t = t - w * (np.bincount(f.source, t, minlength=n_sources) / total)[f.source]
        return np.stack(
            [np.bincount(f.observation, columns[:, k] * t, minlength=n_observations) for k in range(3)], 1
        )

    def normal(x: Float) -> Float:
        x = x.reshape(-1, 3)
        return np.asarray((gather(w * (columns * x[f.observation]).sum(axis=1)) + prior * x).ravel())

    inverse = np.linalg.inv(_blocks(w * (1 - w / total[f.source]), columns, prior, f, n_observations))

    def precondition(x: Float) -> Float:
        return np.asarray(np.einsum("jkl,jl->jk", inverse, x.reshape(-1, 3)).ravel())

    size = 3 * n_observations
    operator, first = (
        scipy.sparse.linalg.LinearOperator((size, size), matvec=v, dtype=np.float64)
        for v in (normal, precondition)
    )
    x, _ = scipy.sparse.linalg.cg(
        operator, gather(w * z).ravel(), rtol=TOLERANCE, maxiter=MOST_STEPS, M=first
    )
    return np.asarray(x.reshape(-1, 3))


def _blocks(w: Float, columns: Float, prior: Float, f: EnsembleFluxes, n: int) -> Float:
    """Return the normal matrix of each observation by itself, shape (n, 3, 3)."""
    blocks = np.zeros((n, 3, 3))
    for k in range(3):
        for m in range(3):
            blocks[:, k, m] = np.bincount(f.observation, w * columns[:, k] * columns[:, m], minlength=n)
        blocks[:, k, k] += prior[:, k]
    return blocks


def _positions(
    w: Float, z: Float, columns: Float, offset: Float, listed: Float, f: EnsembleFluxes, n_sources: int
) -> tuple[Float, Float]:
    """Return logarithms of the sources' fluxes over those of the catalogue, and their weights."""
    total = np.bincount(f.source, w, minlength=n_sources) + listed
    left = z - (columns * offset[f.observation]).sum(axis=1)
    return np.bincount(f.source, w * left, minlength=n_sources) / total, total


def _solution(
    f: EnsembleFluxes,
    z: Float,
    columns: Float,
    w: Float,
    used: Bool,
    varies: Bool,
    offset: Float,
    position: Float,
    total: Float,
    prior: Float,
    times: Float,
) -> EnsembleSolution:
    n_observations, n_sources = len(offset), total.size
    about = np.where(used, w * (1 - w / total[f.source]), 0.0)
    covariance = np.linalg.inv(_blocks(about, columns, prior, f, n_observations))
    lever = about * np.einsum("nk,nkl,nl->n", columns, covariance[f.observation], columns)
    r = z - position[f.source] - (columns * offset[f.observation]).sum(axis=1)
    # Against what the other observations say of the source.
    other = r / (1 - np.where(used, w / total[f.source], 0.0))
    chi2, dof = np.zeros((2, n_observations, CLASSES))
    for k in range(CLASSES):
        of_class = used & (f.by_visibilities == bool(k))
        some = f.observation[of_class]
        chi2[:, k] = np.bincount(some, (about * other**2)[of_class], minlength=n_observations)
        dof[:, k] = np.bincount(some, 1 - lever[of_class], minlength=n_observations)
    catalog = np.zeros(n_sources)
    catalog[f.source] = np.log(f.catalog)
    return EnsembleSolution(
        offset=offset,
        covariance=np.asarray(covariance, dtype=np.float64),
        chi2=chi2,
        dof=dof,
        times=times,
        n=np.bincount(f.observation[used], minlength=n_observations),
        log_reference=np.where(varies, np.nan, position + catalog),
        weight=np.where(varies, np.nan, total),
    )
