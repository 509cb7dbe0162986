"""Narrow interference: single channels that stand out of what a row does over its window.

Nothing needs to be known of sky or gains. What sources within a radius and moderate delays make of a
baseline's channels lies in a few discrete prolate spheroidal sequences (Slepian 1978, Bell System Technical
Journal 57, 1371); what these leave is noise, in which a single channel shows.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight

__all__ = ["find_narrow", "smooth_sequences"]

#: Mean powers of the noise beyond which a channel stands out: 17 in a million of noise alone, so that it
#: costs nothing, and lower than for residuals, for the fit takes a part of what is looked for.
NARROW = 11.0
#: Sequences beyond twice the time-bandwidth product: they leave 1e-4 of the amplitude at its edge.
MORE_SEQUENCES = 3
#: Of fewer channels than this many times the sequences nothing stands out.
CHANNELS_PER_SEQUENCE = 4
#: Where more than this part of the channels of a row stands out, it is not a matter of single ones.
MOST_CHANNELS = 0.3
#: A row whose own scatter exceeds that of its block by this factor is held against its own.
OWN_SCATTER = 1.5
#: Rows that tell the scatter of a block.
SAMPLE_ROWS = 32


def smooth_sequences(n_channels: int, turns: float) -> Float | None:
    """Sequences that hold what a baseline sees of its sky.

    Parameters
    ----------
    n_channels : int
        Channels of the window.
    turns : float
        Turns from one channel to the next that the sky reaches, in either direction.

    Returns
    -------
    ndarray, shape (n_channels, nseq), or None
        Orthonormal columns; None if they are too many for single channels to stand out of them.
    """
    product = n_channels * turns
    n = math.ceil(2 * product) + MORE_SEQUENCES
    if CHANNELS_PER_SEQUENCE * n > n_channels:
        return None
    # It takes half a second to import, and small data do without.
    from scipy.signal.windows import dpss

    return np.ascontiguousarray(dpss(n_channels, max(product, 0.05), Kmax=n).T)


def find_narrow(vis: Vis, weight: Weight, rows: Int, sequences: Float) -> tuple[Int, Int, Int]:
    """Find single channels that stand out of their row.

    Parameters
    ----------
    vis : ndarray of complex64, shape (nrow, nchan, npol)
        Visibilities.
    weight : ndarray of float32, same shape
        Inverse variances up to one scale, zero where there is no data.
    rows : ndarray of int, shape (n,)
        Rows to look at.
    sequences : ndarray, shape (nchan, nseq)
        Of :func:`smooth_sequences`.

    Returns
    -------
    row, channel, pol : ndarray of int, shape (m,)
        Where interference is.
    """
    found, n_found = np.zeros((rows.size, *vis.shape[1:]), dtype=bool), 0
    if rows.size:
        some = rows[:: -(-rows.size // SAMPLE_ROWS)]
        power = np.full((some.size, *vis.shape[1:]), np.nan, dtype=np.float32)
        _powers(vis, weight, some, sequences, power)
        known = power[np.isfinite(power)]
        if known.size and (typical := float(np.median(known)) / math.log(2.0)) > 0:
            n_found = _search(vis, weight, rows, sequences, typical, found)
    if not n_found:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    row, channel, pol = np.nonzero(found)
    return rows[row], channel, pol


@numba.njit(cache=True, fastmath=True)
def _fit(
    vis: Vis, weight: Weight, used: Bool, sequences: Float, gram: Float, re: Float, im: Float, power: Single
) -> bool:
    """Powers of what weighted least squares leaves of one row and hand, over their expectation for noise."""
    n, k = sequences.shape
    gram[:] = 0.0
    re[:] = 0.0
    im[:] = 0.0
    count = 0
    for c in range(n):
        if used[c]:
            count += 1
            w = np.float64(weight[c])
            for a in range(k):
                part = w * sequences[c, a]
                re[a] += part * vis[c].real
                im[a] += part * vis[c].imag
                for b in range(a + 1):
                    gram[a, b] += part * sequences[c, b]
    if count < CHANNELS_PER_SEQUENCE * k // 2:
        return False
    # Cholesky: gram = L L^T in its lower triangle, then the solution by two triangular systems.
    for a in range(k):
        for b in range(a + 1):
            total = gram[a, b]
            for d in range(b):
                total -= gram[a, d] * gram[b, d]
            if a == b:
                if total <= 1e-9 * gram[a, a]:
                    return False
                gram[a, a] = math.sqrt(total)
            else:
                gram[a, b] = total / gram[b, b]
    for a in range(k):
        for d in range(a):
            re[a] -= gram[a, d] * re[d]
            im[a] -= gram[a, d] * im[d]
        re[a] /= gram[a, a]
        im[a] /= gram[a, a]
    solved = np.empty(k)
    for a in range(k - 1, -1, -1):
        for d in range(a + 1, k):
            re[a] -= gram[d, a] * re[d]
            im[a] -= gram[d, a] * im[d]
        re[a] /= gram[a, a]
        im[a] /= gram[a, a]
    for c in range(n):
        if not used[c]:
            power[c] = np.float32(0)
            continue
        left_re, left_im, leverage = np.float64(vis[c].real), np.float64(vis[c].imag), 0.0
        for a in range(k):
            left_re -= sequences[c, a] * re[a]
            left_im -= sequences[c, a] * im[a]
            total = sequences[c, a]
            for d in range(a):
                total -= gram[a, d] * solved[d]
            solved[a] = total / gram[a, a]
            leverage += solved[a] * solved[a]
        w = np.float64(weight[c])
        power[c] = np.float32(w * (left_re * left_re + left_im * left_im) / max(1.0 - w * leverage, 0.1))
    return True


@numba.njit(parallel=True, cache=True)
def _powers(vis: Vis, weight: Weight, rows: Int, sequences: Float, out: Single) -> None:
    n, k = sequences.shape
    for i in numba.prange(rows.size):
        gram, re, im = np.empty((k, k)), np.empty(k), np.empty(k)
        power = np.empty(n, dtype=np.float32)
        for p in range(vis.shape[2]):
            used = weight[rows[i], :, p] > 0
            if _fit(vis[rows[i], :, p], weight[rows[i], :, p], used, sequences, gram, re, im, power):
                for c in range(n):
                    if used[c]:
                        out[i, c, p] = power[c]


@numba.njit(cache=True, fastmath=True)
def _largest_of_equal(
    vis: Vis, weight: Weight, sequences: Float, leverage: Float, re: Float, im: Float
) -> float:
    """Largest power that a fit leaves of a row and hand whose channels all have one weight; else -1.

    The sequences are orthonormal: such a fit is a projection.
    """
    n, k = sequences.shape
    for c in range(n):
        if weight[c] != weight[0] or not weight[c] > 0:
            return -1.0
    re[:] = 0.0
    im[:] = 0.0
    for c in range(n):
        d_re, d_im = np.float64(vis[c].real), np.float64(vis[c].imag)
        for a in range(k):
            re[a] += sequences[c, a] * d_re
            im[a] += sequences[c, a] * d_im
    largest = 0.0
    for c in range(n):
        left_re, left_im = np.float64(vis[c].real), np.float64(vis[c].imag)
        for a in range(k):
            left_re -= sequences[c, a] * re[a]
            left_im -= sequences[c, a] * im[a]
        power = (left_re * left_re + left_im * left_im) / max(1.0 - leverage[c], 0.1)
        largest = max(largest, power)
    return float(weight[0]) * largest


@numba.njit(parallel=True, cache=True)
def _search(vis: Vis, weight: Weight, rows: Int, sequences: Float, typical: float, found: Bool) -> int:
    n, k = sequences.shape
    n_found = 0
    leverage = (sequences**2).sum(axis=1)
    for i in numba.prange(rows.size):
        gram, re, im = np.empty((k, k)), np.empty(k), np.empty(k)
        power = np.empty(n, dtype=np.float32)
        for p in range(vis.shape[2]):
            v, w = vis[rows[i], :, p], weight[rows[i], :, p]
            if 0 <= _largest_of_equal(v, w, sequences, leverage, re, im) <= NARROW * typical:
                continue
            used = w > 0
            present, taken = np.count_nonzero(used), 0
            # The worst ones first: a strong one bends the fit for all others.
            while _fit(v, w, used, sequences, gram, re, im, power):
                worst = power.max()
                if worst <= NARROW * typical:
                    break
                total, count = 0.0, 0
                for c in range(n):
                    if used[c] and power[c] < 0.5 * worst:
                        total += power[c]
                        count += 1
                scatter = total / max(count, 1)
                limit = NARROW * (scatter if scatter > OWN_SCATTER * typical else typical)
                if worst <= limit:
                    break
                for c in range(n):
                    if used[c] and power[c] > max(limit, 0.5 * worst):
                        used[c], found[i, c, p] = False, True
                        taken += 1
                if taken > MOST_CHANNELS * present:
                    break
            if taken > MOST_CHANNELS * present:
                for c in range(n):
                    found[i, c, p] = False
                taken = 0
            n_found += taken
    return n_found
