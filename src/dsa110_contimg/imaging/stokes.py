"""Stokes-I visibilities, the form in which data reach the imager."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Vis, Weight
from dsa110_contimg.errors import ImagingError

__all__ = ["StokesI", "handed_over", "stokes_i"]


@dataclass(frozen=True)
class StokesI:
    """One chunk of Stokes-I visibilities of one spectral window.

    With the ``uvw`` of a Measurement Set (antenna 2 minus antenna 1) a source of flux S at direction cosines
    (l, m) has the visibility ``S exp(+2 pi i (u l + v m + w (n - 1)) / lambda)``.

    Parameters
    ----------
    uvw : ndarray, float64, shape (nrow, 3)
        Baseline coordinates in metres.
    freq_hz : ndarray, float64, shape (nchan,)
        Channel frequencies.
    vis : ndarray, complex64, shape (nrow, nchan)
        Visibilities in jansky, finite everywhere; flagged ones may hold any finite value.
    weight : ndarray, float32, shape (nrow, nchan)
        What the imaging weights start from: inverse variance of the real part, up to a common scale; 0 where
        flagged.
    inverse_variance : ndarray, float32, shape (nrow, nchan), optional
        The inverse variance where `weight` is something else.

    Raises
    ------
    ImagingError
        If the shapes do not fit together.
    """

    uvw: Float
    freq_hz: Float
    vis: Vis
    weight: Weight
    inverse_variance: Weight | None = None

    @property
    def precision(self) -> Weight:
        """Inverse variance of the real part, up to a common scale, shape (nrow, nchan)."""
        return self.weight if self.inverse_variance is None else self.inverse_variance

    def __post_init__(self) -> None:
        shape = (self.uvw.shape[0], self.freq_hz.shape[0])
        if self.uvw.shape[1:] != (3,) or self.vis.shape != shape or self.weight.shape != shape:
            raise ImagingError(
                f"shapes do not fit: uvw {self.uvw.shape}, freq {self.freq_hz.shape}, vis {self.vis.shape}, "
                f"weight {self.weight.shape}",
                "visibility chunk",
                "expected (nrow, 3), (nchan,), (nrow, nchan) and (nrow, nchan)",
            )


def handed_over(chunks: list[StokesI]) -> Iterator[StokesI]:
    """Yield chunks and take them out of their list, so that whoever uses them decides how long they live."""
    chunks.reverse()
    while chunks:
        yield chunks.pop()


def stokes_i(
    vis: Vis,
    weight: Weight,
    flag: Bool,
    correlations: Sequence[int],
) -> tuple[Vis, Weight]:
    """Combine the parallel-k correlations to Stokes I with inverse-variance weights.

    ``I = sum_p w_p V_p / sum_p w_p`` with weight ``sum_p w_p``: the best estimate for an unpolarised sky, on
    which XX = YY = I. Where one of them is flagged the other one stands for both.

    Parameters
    ----------
    vis : ndarray, complex64, shape (nrow, nchan, ncorr)
        Visibilities in jansky.
    weight : ndarray, float32, shape (nrow, nchan, ncorr) or (nrow, ncorr)
        Inverse variances up to a scale. A weight that is not finite or not positive counts as a flag, and so
        does a visibility that is not finite.
    flag : ndarray, bool, shape (nrow, nchan, ncorr)
        True where not to be used.
    correlations : sequence of int
        Positions of the parallel-k correlations (XX, YY or RR, LL) along the correlation axis; one or two.

    Returns
    -------
    vis : ndarray, complex64, shape (nrow, nchan)
        Stokes I; 0 where flagged.
    weight : ndarray, float32, shape (nrow, nchan)
        Its weight; 0 where flagged.

    Raises
    ------
    ImagingError
        If the shapes do not fit or `correlations` does not name correlations of `vis`.
    """
    spread = weight if weight.ndim == 3 else weight[:, None, :]
    if (
        vis.ndim != 3
        or flag.shape != vis.shape
        or spread.shape not in (vis.shape, (len(vis), 1, vis.shape[2]))
    ):
        raise ImagingError(
            f"shapes do not fit: vis {vis.shape}, weight {weight.shape}, flag {flag.shape}", "correlations"
        )
    if not 1 <= len(correlations) <= 2 or not all(0 <= k < vis.shape[2] for k in correlations):
        raise ImagingError(
            f"parallel-k correlations {list(correlations)} are not among {vis.shape[2]} correlations",
            "correlations",
            "select the XX, YY or RR, LL pair",
        )
    out = np.empty(vis.shape[:2], np.complex64)
    out_weight = np.empty(vis.shape[:2], np.float32)
    _combine(
        vis, np.broadcast_to(spread, vis.shape), flag, np.asarray(correlations, np.int64), out, out_weight
    )
    return out, out_weight


@numba.njit(nogil=True, cache=True)
def _combine(
    vis: Vis,
    weight: Weight,
    flag: Bool,
    correlations: Int,
    out: Vis,
    out_weight: Weight,
) -> None:
    for row in range(vis.shape[0]):
        for chan in range(vis.shape[1]):
            total = np.float32(0)
            value = np.complex64(0)
            for k in correlations:
                w = weight[row, chan, k]
                v = vis[row, chan, k]
                usable = np.isfinite(w) and w > 0 and np.isfinite(v.real) and np.isfinite(v.imag)
                if usable and not flag[row, chan, k]:
                    total += w
                    value += w * v
            out[row, chan] = value / total if total > 0 else np.complex64(0)
            out_weight[row, chan] = total
