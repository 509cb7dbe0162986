"""Which antennas a calibration bears out: their gains, how they behave, and what is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Complex, Float
from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.cross_validation import MIN_HELDOUT_SNR, Solution
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.selfcal.data_weights import NOISY

__all__ = [
    "SEVERITY",
    "antenna_report",
    "antenna_verdicts",
    "read_antenna_health",
    "time_of_day",
    "when_lost",
    "without_solutions",
]

MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)

#: Gains this many times larger or smaller than the array's median are not those of a working receiver.
ODD_AMPLITUDE = 5.0
#: Change of phase between neighbouring solutions that counts as a jump, and the fraction of jumps at which
#: the phases were not followed: of random ones half are.
JUMP_RAD = np.pi / 2
MOST_JUMPS = 0.2
#: Where a smaller part of the solutions is good, nothing was solved.
HARDLY = 0.1
#: Verdicts, the gravest first.
SEVERITY = ("no data", "unsolved", "noise", "lost", "amplitude", "jumps", "noisy", "good")


def antenna_report(
    names: Sequence[str],
    tables: Sequence[GainTable],
    solution: Solution,
    times_s: Float,
    present: Bool,
    excess: Float,
    *,
    dump_s: Float | None = None,
    lost: Bool | None = None,
) -> Table:
    """Describe the gains of each antenna and polarisation.

    Parameters
    ----------
    names : sequence of str
        Antennas.
    tables : sequence of GainTable
        The calibration, all for the same windows; the product of what does not depend on frequency is
        described.
    solution : Solution
        The last of them.
    times_s : ndarray, shape (ntime,)
        Dumps, seconds (MJD UTC).
    present : ndarray of bool, shape (nant, npol)
        Antennas with data.
    excess : ndarray, shape (nant, npol)
        System noise over what the weights say: the product of two antennas' is the factor on the
        variance of their visibilities.
    dump_s : ndarray, shape (ntime,), optional
        Lengths of the dumps in seconds; needed with `lost`.
    lost : ndarray of bool, shape (ntime, nant, npol), optional
        Dumps in which an antenna gives nothing of the sky.

    Returns
    -------
    astropy.table.Table
        A row per antenna and polarisation: ``antenna``, ``polarisation`` (0, 1);
        ``solved_fraction`` of dumps and windows that have a solution and are not lost;
        ``amplitude``, the median over the median of the array, and ``amplitude_scatter``,
        its fractional robust scatter in time; ``phase_step_deg``, the median change between
        neighbouring solutions once what all antennas share is taken out, and ``jumps``, the
        fraction of changes above 90 degrees; ``heldout_snr`` of the last solution;
        ``noise_factor``; ``lost``, when it gave nothing of the sky, in words (UTC), empty if
        never; and ``verdict``: good, no data, noise (its gains predict nothing), lost (for
        part of the time), amplitude, jumps, noisy, or unsolved.
    """
    n, tables = len(names), [table for table in tables if table.kind != "B Jones"]
    gain, solved, step, jumps = _on_dumps(tables, times_s, n)
    when = np.full((n, 2), "", dtype=object)
    if lost is not None and dump_s is not None:
        solved = solved & ~lost
        for antenna, p in np.argwhere(lost.any(axis=0)):
            when[antenna, p] = _in_words(times_s, dump_s, lost[:, antenna, p])
    size = np.where(solved, np.abs(gain), np.nan)
    with np.errstate(invalid="ignore"):
        typical = _median(size, (0, 1))
        scatter = 1.4826 * _median(np.abs(size - typical), (0, 1)) / typical
        relative = typical / _median(typical, 0)
    heldout = np.broadcast_to(np.nanmax(solution.heldout_snr, axis=0), (n, 2))
    fraction = solved.mean(axis=(0, 1))
    verdict = np.full((n, 2), "good", dtype="<U9")
    with np.errstate(invalid="ignore"):
        verdict[excess > NOISY] = "noisy"
        verdict[jumps > MOST_JUMPS] = "jumps"
        verdict[(relative > ODD_AMPLITUDE) | (relative < 1 / ODD_AMPLITUDE)] = "amplitude"
    verdict[when != ""] = "lost"
    verdict[fraction == 0] = "unsolved"
    verdict[heldout < MIN_HELDOUT_SNR] = "noise"
    verdict[~present] = "no data"
    columns = {
        "antenna": np.repeat(np.asarray(names), 2),
        "polarisation": np.tile([0, 1], n),
        "solved_fraction": fraction,
        "amplitude": relative,
        "amplitude_scatter": scatter,
        "phase_step_deg": np.degrees(step),
        "jumps": jumps,
        "heldout_snr": heldout,
        "noise_factor": excess,
        "lost": when.astype(str),
        "verdict": verdict,
    }
    return Table({name: np.asarray(values).reshape(2 * n) for name, values in columns.items()})


def without_solutions(table: GainTable, names: Sequence[str], present: Bool, receptors: Sequence[str]) -> str:
    """Say which windows, polarisations or antennas have hardly a good solution; empty if none stands out.

    Parameters
    ----------
    table : GainTable
        Solutions.
    names : sequence of str
        Antennas.
    present : ndarray of bool, shape (nant, npol)
        Antennas with data.
    receptors : sequence of str
        Names of the receptors.

    Returns
    -------
    str
        Of windows and polarisations first: where one of these is bad, so are its antennas.
    """
    good = np.stack([~g.flag.any(axis=2) for g in table.gains.values()])
    known = np.broadcast_to(present[: good.shape[2], : good.shape[3]], good.shape)

    def solved(axes: tuple[int, ...]) -> Float:
        n = known.sum(axis=axes)
        return np.where(n > 0, (good & known).sum(axis=axes) / np.maximum(n, 1), 1.0)

    by_window, by_hand, by_antenna = solved((1, 2, 3)), solved((0, 1, 2)), solved((0, 1, 3))
    windows = [str(spw) for spw, part in zip(table.gains, by_window, strict=True) if part < HARDLY]
    if windows and len(windows) < len(by_window):
        return f"spectral windows {', '.join(windows)}"
    hands = [receptors[k] for k, part in enumerate(by_hand) if part < HARDLY]
    if hands and len(hands) < len(by_hand):
        return f"polarisation {', '.join(hands)}"
    antennas = [name for name, part in zip(names, by_antenna, strict=False) if part < HARDLY]
    return f"antennas {', '.join(antennas)}" if antennas and len(antennas) < len(by_antenna) else ""


def antenna_verdicts(report: Table) -> dict[str, list[str]]:
    """Antennas that are not good, by verdict; one that differs by polarisation is named under each."""
    found: dict[str, list[str]] = {}
    for antenna, verdict in zip(report["antenna"], report["verdict"], strict=True):
        if verdict != "good" and str(antenna) not in found.setdefault(str(verdict), []):
            found[str(verdict)].append(str(antenna))
    return found


def read_antenna_health(path: Path) -> dict[str, list[str]]:
    """Read the antennas of a report by verdict, each once, by the worse of its polarisations.

    Parameters
    ----------
    path : Path
        ``antennas.ecsv`` of a run. Only two of its columns are looked at, which takes a millisecond.

    Returns
    -------
    dict of str to list of str
        Antennas by verdict, the gravest verdict first, good ones last.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no such table.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader((line for line in file if not line.startswith("#")), delimiter=" ")
        pairs = [(row.get("antenna"), row.get("verdict")) for row in lines]
    worst: dict[str, str] = {}
    for antenna, verdict in pairs:
        if antenna is None or verdict not in SEVERITY:
            raise ValueError(f"is no report of antennas: verdict {verdict} of antenna {antenna}")
        worst[antenna] = min(worst.get(antenna, verdict), verdict, key=SEVERITY.index)
    found = {verdict: [a for a, v in worst.items() if v == verdict] for verdict in SEVERITY}
    return {verdict: antennas for verdict, antennas in found.items() if antennas}


def when_lost(report: Table) -> dict[str, list[str]]:
    """Antennas by when they gave nothing of the sky, in words; each named once."""
    found: dict[str, list[str]] = {}
    for antenna, words, verdict in zip(report["antenna"], report["lost"], report["verdict"], strict=True):
        if verdict == "lost" and str(antenna) not in found.setdefault(str(words), []):
            found[str(words)].append(str(antenna))
    return found


def _in_words(times_s: Float, dump_s: Float, lost: Bool) -> str:
    """Say from when to when dumps (ntime,) are lost, in UTC."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost, [0]])))
    spans = []
    for start, end in zip(edges[::2], edges[1::2] - 1, strict=True):
        first, last = times_s[start] - dump_s[start] / 2, times_s[end] + dump_s[end] / 2
        spans.append(f"from {time_of_day(first)} to {time_of_day(last)}")
    return "lost " + ", ".join(spans)


def time_of_day(time_s: float) -> str:
    """Return the time of day (UTC) of a modified Julian date in seconds."""
    return (MJD_ZERO + timedelta(seconds=round(float(time_s)))).strftime("%H:%M:%S")


def _on_dumps(tables: Sequence[GainTable], times_s: Float, n: int) -> tuple[Complex, Bool, Float, Float]:
    """Gains (nspw, ntime, nant, 2) and where solved; steps in phase and fraction of jumps, (nant, 2)."""
    spw_ids = list(tables[0].gains)
    gain, solved = gains_at_times(tables, spw_ids, times_s, n)
    first = tables[0].for_spw(spw_ids[0])
    unit = np.where(first.flag, 0, first.gain / np.maximum(np.abs(first.gain), 1e-30))[:, :, 0]
    change = np.broadcast_to(unit[1:] * np.conj(unit[:-1]), (first.time_s.size - 1, n, 2))
    # All phases turn together where the reference antenna's does.
    common = np.conj(change.sum(axis=1, keepdims=True))
    angle = np.where(change == 0, np.nan, np.abs(np.angle(change * common)))
    known = np.maximum(np.isfinite(angle).sum(axis=0), 1)
    return gain, solved, _median(angle, 0), np.nansum(angle > JUMP_RAD, axis=0) / known


def _median(values: Float, axis: int | tuple[int, ...]) -> Float:
    """Median of what is known; not a number, without a warning, where nothing is."""
    known = np.isfinite(values).any(axis=axis)
    if not known.any():
        return np.full(known.shape, np.nan)
    filled = np.where(np.expand_dims(known, axis), values, 0.0)
    return np.asarray(np.where(known, np.nanmedian(filled, axis=axis), np.nan))
