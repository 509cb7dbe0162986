"""What a gain solution is asked for: the axes of the data, what shares a gain, and the limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.errors import AxesError
from dsa110_contimg.visibilities import NoiseScale, VisibilityReader

__all__ = ["Grouping", "ObservationAxes", "SolveSettings"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ObservationAxes:
    """Time and frequency axes of baseline statistics.

    Attributes
    ----------
    times_s, dump_s : ndarray, shape (ntime,)
        Time stamps, seconds (MJD UTC), and lengths of the dumps in seconds.
    scan, field_id : ndarray of int, shape (ntime,)
        Of each dump.
    freq_hz : ndarray, shape (nspw,)
        Centres of the spectral windows in hertz.

    Raises
    ------
    AxesError
        If an array does not have its shape.
    """

    times_s: Float
    dump_s: Float
    scan: Int
    field_id: Int
    freq_hz: Float

    def __post_init__(self) -> None:
        for name in ("times_s", "dump_s", "scan", "field_id"):
            found, expected = getattr(self, name).shape, (self.times_s.size,)
            if found != expected:
                raise AxesError(f"has shape {found}, not {expected}", f"ObservationAxes.{name}")
        if self.freq_hz.ndim != 1:
            raise AxesError(f"has shape {self.freq_hz.shape}, not (nspw,)", "ObservationAxes.freq_hz")

    @classmethod
    def of(cls, reader: VisibilityReader) -> ObservationAxes:
        """Take the axes of the data that a reader selects."""
        windows = [reader.ms.spectral_window(spw) for spw in reader.selection.spw_ids]
        return cls(
            times_s=reader.times,
            dump_s=reader.interval_s,
            scan=reader.scan,
            field_id=reader.field_id,
            freq_hz=np.array([float(window.freq_hz.mean()) for window in windows]),
        )

    @property
    def typical_dump_s(self) -> float:
        """Median length of a dump in seconds."""
        return float(np.median(self.dump_s))


@dataclass(frozen=True)
class Grouping:
    """What shares a gain.

    Attributes
    ----------
    per_polarization : bool
        A gain for each polarisation (G Jones) instead of one for both (T Jones).
    combine_spw : bool
        One gain for all spectral windows instead of one for each.
    """

    per_polarization: bool
    combine_spw: bool

    @classmethod
    def choices(
        cls, per_polarization: bool | None, combine_spw: bool | None, n_spws: int
    ) -> tuple[Grouping, ...]:
        """Return the groupings to choose from, the one to start with first.

        Parameters
        ----------
        per_polarization, combine_spw : bool or None
            As in the attributes; None leaves it open.
        n_spws : int
            Number of spectral windows.

        Returns
        -------
        tuple of Grouping
            First a gain per polarisation for all windows, where that is allowed: it has the most signal
            to noise of those that assume nothing about the polarisations.
        """
        combined = (True, False) if combine_spw is None and n_spws > 1 else (combine_spw is not False,)
        separate = (True, False) if per_polarization is None else (per_polarization,)
        return tuple(cls(each, together) for together in combined for each in separate)


@dataclass(frozen=True, eq=False)
class SolveSettings:
    """What solutions are referred to, and which of them are flagged.

    Attributes
    ----------
    noise : NoiseScale
        Noise relative to the weights.
    reference_antennas : tuple of int
        Best first; the first one that is solved in an interval has zero phase, and a change of it is
        carried so that phases stay continuous.
    min_snr : float
        Signal to noise under which a solution is flagged.
    min_baselines : int
        Baselines an antenna must have in an interval.
    noise_share : float
        What noise alone leaves of a weighted visibility, over that noise: below one where some count for
        less than their noise says. Scores are in units of it.
    """

    noise: NoiseScale
    reference_antennas: tuple[int, ...] = ()
    min_snr: float = 3.0
    min_baselines: int = 4
    noise_share: float = 1.0
