"""Beams that point elsewhere than they are meant to, all alike, told by what is left of channels held out.

An input of incoherent phases has no position: gains put a catalogue's sources wherever they are looked for.
What is where it should not be then is the beam. Many bright sources tell it by their fluxes; where there are
few, a beam further off than its sources can be corrected for leaves the others with wrong fluxes, and much of
the data unexplained. So gains are solved against the catalogue as beams that point to some places show it,
fluxes and positions as listed, and held-out channels choose. From the centre it goes on, in steps of a
pattern, to where least is left.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.findings import Finding, elsewhere
from dsa110_contimg.selfcal.other_widths import LEAST_LEFT, Left, left_by
from dsa110_contimg.selfcal.pointing_statistics import centre_of
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.sky import AntennaBeams
from dsa110_contimg.sky.apparent_sky import through_beams

__all__ = ["other_centre"]

#: Steps of the pattern in units of the radius of half power; the furthest place that is looked at; and how
#: often steps are made.
STEPS, FURTHEST, MOST_STEPS = (0.2, 0.07), 1.0, 6
#: Another centre is that of the beam where it leaves less than this fraction of what the assumed one leaves
#: above the noise. What bright sources that no catalogue lists leave is hardly less at any.
MUCH_LESS = 0.5


def other_centre(
    data: CalibrationData, state: CalState, config: SelfCalConfig, log: StageLog
) -> Finding | None:
    """Say that the beam points elsewhere, which refuses the run; None if no other place leaves much less.

    Parameters
    ----------
    data : CalibrationData
        The data, with a catalogue model; of a model of the user's own nothing is said.
    state : CalState
        With rounds, whose intervals are taken, and the noise.
    config : SelfCalConfig
        Options.
    log : StageLog
        Charged with the time.
    """
    listed = data.catalog_model
    if listed is None or listed.own_model is not None:
        return None
    half_power = listed.beam.fwhm_rad(listed.freq_hz) / 2
    meant = np.zeros((len(data.reader.ms.antennas), 2))
    if listed.antenna_beams is not None:
        meant = listed.antenna_beams.offset_rad
    seen: dict[tuple[float, float], Left] = {}

    def left(at: Float) -> Left:
        key = (round(float(at[0]), 3), round(float(at[1]), 3))
        if key not in seen:
            beams = AntennaBeams(offset_rad=meant + half_power * np.asarray(key))
            model = through_beams(listed, beams, *centre_of(data))
            what = "look through beams that point elsewhere"
            # Delays are of the position, not of the beam: those of a sky elsewhere are large.
            seen[key] = left_by(model, data, state, config, log, what, state.bandpass)
        return seen[key]

    best, assumed = np.zeros(2), left(np.zeros(2))
    if not assumed.chi2 - 1 > LEAST_LEFT:
        return None
    for size in STEPS:
        for _ in range(MOST_STEPS):
            moved = _stepped(best, size, left)
            if moved is None or np.hypot(*moved) > FURTHEST:
                break
            best = moved
    there = left(best)
    gained = assumed.chi2 - there.chi2
    if not (gained > LEAST_LEFT and there.chi2 - 1 < MUCH_LESS * (assumed.chi2 - 1)):
        return None
    return elsewhere(float(np.hypot(*best)) * half_power, half_power, assumed.chi2, there.chi2)


def _stepped(at: Float, size: float, left: Callable[[Float], Left]) -> Float | None:
    """Step to the least of a parabola along either axis, or to the best of its points; None at the best."""
    here, to = left(at).chi2, at.copy()
    tried = []
    for axis in range(2):
        unit = np.eye(2)[axis]
        before, after = (left(at + sign * size * unit).chi2 for sign in (-1, 1))
        tried += [(before, at - size * unit), (after, at + size * unit)]
        bend = before + after - 2 * here
        if bend > 0:
            to[axis] += size * float(np.clip((before - after) / bend / 2, -1.5, 1.5))
        else:
            to[axis] += size * (1.0 if after < before else -1.0)
    tried.append((left(to).chi2, to))
    chi2, best = min(tried, key=lambda pair: pair[0])
    return best if chi2 < here else None
