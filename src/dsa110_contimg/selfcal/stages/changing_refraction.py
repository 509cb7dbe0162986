"""Refraction that changes: the distortion of the field in each interval of time, against the mean of all.

What catalogue and sky model are off by stays the same, and drops out of the difference; what stays the same
of a distortion is another stage's. It is told, not followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.time import Time

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.calibration.distortion_sums import (
    DistortionSums,
    accumulate_distortion,
    distortion_bases,
    fit_distortions,
)
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_block import parallel_hands
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding
from dsa110_contimg.selfcal.model_visibilities import PositionMoment, SkyVisibilities
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["Change", "changing_refraction", "measure_changes"]

#: Intervals that an observation is divided in, as far as it has dumps.
INTERVALS = 4
#: One block of the data in so many is looked at, where that leaves so many for each interval.
LOOKED_AT, LEAST_BLOCKS = 4, 4
#: A change is told from so many of its errors on, and from this shift at half power on.
CHANGE_SIGMAS, LEAST_CHANGE = 6.0, 1.0 * ARCSEC
#: It is the same in all directions if the least shift is so much of the largest, and of the same sign.
ROUND = 0.5


@dataclass(frozen=True, eq=False)
class Change:
    """Distortion of an interval less the mean of all intervals.

    Attributes
    ----------
    dumps : ndarray of int
        Dumps of the interval.
    shapes : ndarray, shape (3,)
        Stretch and the two shears; shift over distance.
    covariance : ndarray, shape (3, 3)
        Of these, by the noise.
    """

    dumps: Int
    shapes: Float
    covariance: Float

    @property
    def sigmas(self) -> float:
        """By how many of its errors it differs from zero, at most in one of its three numbers."""
        return float(np.max(np.abs(self.shapes) / np.sqrt(np.diag(self.covariance))))

    @property
    def largest(self) -> float:
        """Largest shift over distance, positive outward."""
        values = self._axes()[0]
        return float(values[np.argmax(np.abs(values))])

    @property
    def error(self) -> float:
        """Standard error of a shift over distance."""
        return float(np.sqrt(np.diag(self.covariance).max()))

    def direction(self) -> str:
        """Say which way sources are displaced."""
        values, vectors = self._axes()
        k = int(np.argmax(np.abs(values)))
        way = "outward" if values[k] > 0 else "inward"
        if values[1 - k] / values[k] >= ROUND:
            return f"{way} in all directions"
        east, north = vectors[:, k]
        return f"{way} along position angle {np.degrees(np.arctan2(east, north)) % 180:.0f} deg"

    def _axes(self) -> tuple[Float, Float]:
        stretch, p, q = self.shapes
        values, vectors = np.linalg.eigh([[stretch + p, q], [q, stretch - p]])
        return np.asarray(values), np.asarray(vectors)


def changing_refraction(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> CalState:
    """Tell a distortion of the field that changes over the observation.

    Returns
    -------
    CalState
        With the finding; nothing else changes.
    """
    listed = data.catalog_model
    if listed is None or state.outcome is not None or not (state.rounds and state.last.verdict.accepted):
        return state
    changes = measure_changes(data, state, log)
    radius = listed.beam.fwhm_rad(listed.freq_hz) / 2
    told = [c for c in changes if c.sigmas > CHANGE_SIGMAS and abs(c.largest) * radius > LEAST_CHANGE]
    if not told:
        return state
    for change in changes:
        log.note(f"distortion of the field {_said(change, data, radius)}")
    most = max(told, key=lambda c: abs(c.largest))
    text = (
        f"the field is distorted otherwise at other times: {_said(most, data, radius)}: refraction or the "
        "ionosphere, which the sky model does not follow; observe in shorter pieces"
    )
    log.note(text)
    return replace(state, findings=(*state.findings, Finding("changing", text)))


def _said(change: Change, data: CalibrationData, radius_rad: float) -> str:
    """Say when, by how much and which way sources are displaced against the mean of the observation."""
    half = data.reader.interval_s.max() / 2
    times = data.reader.times[change.dumps[[0, -1]]] + [-half, half]
    start, end = (Time(t / 86400.0, format="mjd").strftime("%H:%M:%S") for t in times)
    arcsec, error = (x * radius_rad / ARCSEC for x in (abs(change.largest), change.error))
    return (
        f"from {start} to {end} UTC by {arcsec:.1f} +- {error:.1f} arcsec at half power "
        f"({change.sigmas:.0f} sigma), {change.direction()}, against the mean of the observation"
    )


def measure_changes(data: CalibrationData, state: CalState, log: StageLog) -> Sequence[Change]:
    """Measure the distortion of each interval against the mean of all.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With gains and a sky model.
    log : StageLog
        Charged with the time.

    Returns
    -------
    sequence of Change
        Empty of a single dump, or where no sky or noise is known.
    """
    n_times, model = data.reader.times.size, state.model
    n = min(INTERVALS, n_times)
    if n < 2 or not isinstance(model, SkyVisibilities) or not state.noise.known:
        return ()
    of_dump = np.arange(n_times) * n // n_times
    sums = DistortionSums.empty(len(data.reader.ms.antennas), n)
    moments = [PositionMoment.leading(model.sky, axis, data.reader) for axis in (0, 1)]
    every = LOOKED_AT if data.n_blocks >= LOOKED_AT * LEAST_BLOCKS * n else 1
    together = data.in_turn()
    for piece in data.blocks("look for changing refraction", state.weights, model):
        # Of the windows of the same rows, which come one after the other, not the same each time.
        if (piece.number + piece.number // every) % every:
            continue
        block, predicted = piece.block, piece.model
        assert predicted is not None
        by_l, by_m = (
            together(piece, moment) if every == 1 else data.predict(block, moment) for moment in moments
        )
        corrected = data.corrected(block, piece.touched(piece.weight), state.last.tables)
        vis, weight = parallel_hands(block, *corrected)
        accumulate_distortion(
            sums,
            of_dump[block.time_index],
            block.antenna1,
            block.antenna2,
            vis - piece.of_receptors,
            weight,
            distortion_bases(block.uvw_m, block.spw.freq_hz, predicted, by_l, by_m),
        )
    with log.timed("measure"):
        # What the model leaves beside noise is taken for noise.
        variance = state.noise.variance / 2 * max(1.0, state.last.chi2_heldout)
        shapes, covariance = fit_distortions(sums, variance)
    seen = np.flatnonzero(sums.normal[..., -1, -1].sum(axis=(1, 2)) > 0)
    if seen.size < 2:
        return ()
    of_weights = np.linalg.inv(covariance[seen])
    of_mean = np.linalg.inv(of_weights.sum(axis=0))
    mean = of_mean @ np.einsum("kij,kj->i", of_weights, shapes[seen])
    return tuple(
        Change(np.flatnonzero(of_dump == k), shapes[k] - mean, covariance[k] - of_mean) for k in seen
    )
