"""Spectra of components: polynomials over frequency, of the flux itself or of its logarithm.

Either is a flux at a reference frequency times a shape that is one there. With ``x = nu / nu0`` the shape is
``x^(c0 + c1 log10 x + c2 (log10 x)^2 + ...)``, or ``1 + c0 (x - 1) + c1 (x - 1)^2 + ...`` where the spectrum
is linear. In both c0 is the spectral index at the reference frequency.
"""

from __future__ import annotations

import math

import numpy as np

from dsa110_contimg.array_types import Bool, Float

__all__ = ["carry_spectra", "evaluate_spectra", "padded_terms"]


def evaluate_spectra(ratio: Float, terms: Float, linear: Bool) -> Float:
    """Evaluate the shapes of spectra.

    Parameters
    ----------
    ratio : ndarray, shape (nchan,)
        Frequencies over the reference frequency.
    terms : ndarray, shape (n, k)
        Coefficients, the spectral index first.
    linear : ndarray of bool, shape (n,)
        Whether they are of the flux itself, in units of the flux at the reference frequency.

    Returns
    -------
    ndarray, shape (n, nchan)
        Flux over that at the reference frequency.
    """
    x = np.where(linear[:, None], ratio - 1.0, np.log10(ratio))
    total = np.zeros(x.shape)
    for term in terms.T[::-1]:
        total = (total + term[:, None]) * x
    return np.where(linear[:, None], 1.0 + total, 10.0 ** np.where(linear[:, None], 0.0, total))


def carry_spectra(factor: float, terms: Float, linear: Bool) -> tuple[Float, Float]:
    """Expand spectra about another reference frequency, exactly.

    Parameters
    ----------
    factor : float
        The new reference frequency over the old one.
    terms, linear
        As of :func:`evaluate_spectra`.

    Returns
    -------
    flux_ratio : ndarray, shape (n,)
        Flux at the new reference frequency over that at the old one.
    terms : ndarray, shape (n, k)
        Coefficients about the new one; not finite where a linear spectrum crosses zero there.
    """
    k = terms.shape[1]
    whole = np.concatenate([np.where(linear, 1.0, 0.0)[:, None], terms], axis=1)
    shift = math.log10(factor)
    to_log, to_linear = np.zeros((k + 1, k + 1)), np.zeros((k + 1, k + 1))
    for j in range(k + 1):
        for i in range(j + 1):
            # (y + d)^j, and (a y + a - 1)^j, in powers i of y.
            to_log[j, i] = math.comb(j, i) * shift ** (j - i)
            to_linear[j, i] = math.comb(j, i) * factor**i * (factor - 1.0) ** (j - i)
    carried = np.where(linear[:, None], whole @ to_linear, whole @ to_log)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(linear[:, None], carried[:, 1:] / carried[:, :1], carried[:, 1:])
    return np.where(linear, carried[:, 0], 10.0 ** np.where(linear, 0.0, carried[:, 0])), scaled


def padded_terms(terms: list[Float]) -> Float:
    """Join tables of coefficients, filling the shorter ones with zeros; shape (sum of n, largest k)."""
    width = max(t.shape[1] for t in terms)
    return np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in terms])
