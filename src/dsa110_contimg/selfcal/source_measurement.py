"""Bright catalogue sources measured on the calibrated visibilities, all together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.calibration.uv_fit import (
    N_MOMENTS,
    PRIOR_FLUX,
    PRIOR_POSITION_RAD,
    residual_moments,
    sampled_coupling,
    solve_moments,
)
from dsa110_contimg.imaging import stokes_i
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.data_weights import DataWeights
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.sky_check import median_of_all
from dsa110_contimg.selfcal.windows_together import brought_together
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.apparent_sky import joined
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["FitLimits", "JointFit", "SourceMeasurement", "fit_sources", "measure_sources"]


#: Sources measured: enough for a median, few enough to cost less than a prediction.
MOST_SOURCES = 200
#: Signal to noise from which a source is used for the median and is itself adjusted.
MIN_SNR = 20.0
#: Visibilities that tell how sources lie in each other's sidelobes: known to 0.3 per cent then. With a
#: quarter of them 200 sources need two rescalings more to settle.
SAMPLES = 100_000
#: How far sources may move before that is found anew, in units of one over the rms baseline.
MOVED_BEAMS = 0.05
#: So many of them are summed up at once.
SAMPLES_AT_ONCE = 4096
#: Fraction of the baselines, the shortest, left out: they see all faint sources at once.
SHORTEST = 0.2
#: Of the sources that all data measure well a part has to do so as well: this fraction of them.
STILL_GOOD = 0.9
#: One dump in so many is used at the most.
MOST_EACH = 4
#: With fewer sources a median says little.
FEWEST_SOURCES = 8
#: Where fewer are above `MIN_SNR` all sources together tell the flux scale, if it is off by more than this
#: fraction and so many errors; after that also less. Nothing but noise limits their fluxes then.
TOGETHER_LEAST, TOGETHER_SIGMAS, TOGETHER_PRIOR = 0.25, 4.0, 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceMeasurement:
    """Bright catalogue sources as the calibrated data show them.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Which of the catalogue's sources were measured.
    ratio, ratio_error : ndarray, shape (n,)
        Measured over catalogue flux in units of the median of all good ones, and its error.
    shift_rad, shift_error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m about the phase centre, less the
        median of all, and its error, radians.
    good : ndarray of bool, shape (n,)
        True where the signal to noise is above `MIN_SNR`.
    scale : float
        Median of measured over catalogue flux of the good ones, or of all: what the flux scale is off by.
    offset_rad : (float, float)
        Median shift in l and m: what the positions are off by.
    coupling : Coupling or None
        How these sources disturb each other, for the next measurement of the same.
    together : bool
        Whether `scale` is the median of all, most of which can only be seen together.
    each : int
        One dump in so many was used.
    """

    index: Int
    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    good: Bool
    scale: float
    offset_rad: tuple[float, float]
    coupling: Coupling | None = None
    together: bool = False
    each: int = 1

    @property
    def n_good(self) -> int:
        """Sources in the medians."""
        return int(np.count_nonzero(self.good))

    def enough(self, snr: float = MIN_SNR) -> int:
        """Return of how many dumps one measures nearly all of the good sources at a signal to noise, too."""
        error = self.ratio_error[self.good] * self.scale * snr / np.sqrt(self.each)
        for each in range(MOST_EACH, 1, -1):
            if self.n_good > 0 and np.mean(error * np.sqrt(each) < 1) >= STILL_GOOD:
                return each
        return 1


@dataclass(frozen=True, eq=False)
class Coupling:
    """How sources lie in the sidelobes of each other.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Sources of the catalogue.
    lm : ndarray, shape (n, 2)
        Where they were, direction cosines about the phase centre.
    matrix : ndarray, shape (3 n, 3 n)
        Of :func:`sampled_coupling`.
    """

    index: Int
    lm: Float
    matrix: Float

    def holds(self, index: Int, lm: Float, near_rad: float, *, settled: bool) -> bool:
        """Whether the first sources are these, and none has moved by more than an angle since.

        Of sources that are settled, whose changes are those of noise, the rms of the angles is enough.
        """
        if not np.array_equal(self.index, index[: self.index.size]):
            return False
        moved = np.hypot(*(lm[: self.index.size] - self.lm).T)
        return bool((np.sqrt(np.mean(moved**2)) if settled else moved.max(initial=0.0)) <= near_rad)


@dataclass(frozen=True)
class FitLimits:
    """How far a joint fit lets sources be from where and how bright the catalogue has them.

    Attributes
    ----------
    prior_flux : float
        Width of the Gaussian prior on the flux, a fraction of that of the catalogue.
    prior_position_arcsec : float
        The same for each coordinate of the position.
    """

    prior_flux: float = PRIOR_FLUX
    prior_position_arcsec: float = PRIOR_POSITION_RAD / ARCSEC


@dataclass(frozen=True, kw_only=True, eq=False)
class JointFit:
    """Sources fitted together to calibrated data.

    Attributes
    ----------
    ratio, ratio_error : ndarray, shape (n,)
        Measured over catalogue flux, and its error by noise.
    shift_rad, shift_error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m about the phase centre, and its error by noise,
        radians.
    coupling : Coupling
        How the sources disturb each other.
    besides, besides_error : ndarray, shape (m,)
        Fluxes of the sources that are in no sky model, in units of those that they were given with.
    """

    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    coupling: Coupling
    besides: Float
    besides_error: Float

    @property
    def good(self) -> Bool:
        """Where the signal to noise is above `MIN_SNR`."""
        return np.asarray(self.ratio_error * MIN_SNR < 1)


def fit_sources(
    data: CalibrationData,
    weights: DataWeights,
    model: SkyVisibilities,
    tables: Sequence[GainTable],
    catalogue: ApparentSky,
    chosen: Int,
    noise: NoiseScale,
    limits: FitLimits = FitLimits(),
    known: Coupling | None = None,
    taken: Float | None = None,
    besides: ApparentSky | None = None,
) -> JointFit:
    """Fit flux and position of some of a catalogue's sources to calibrated data, all together.

    Parameters
    ----------
    data : CalibrationData
        The data.
    weights : DataWeights
        What the visibilities count for.
    model : SkyVisibilities
        Sky model: the catalogue's sources, perhaps moved and scaled before, and perhaps others after them.
    tables : sequence of GainTable
        Gains.
    catalogue : ApparentSky
        The same sources as the catalogue lists them.
    chosen : ndarray of int, shape (n,)
        Which of them.
    noise : NoiseScale
        Noise of the data.
    limits : FitLimits
        Priors.
    known : Coupling, optional
        Of an earlier fit to the same data: gains and weights that differ a little hardly change it, and what
        it is wrong by the next rescaling takes out.
    taken : ndarray, shape (n, n), optional
        What the gains have taken of changes of these sources, of
        :func:`~dsa110_contimg.calibration.gain_share.gain_share`, which is given back then; with `besides`
        of shape (n + m, n + m).
    besides : ApparentSky, optional
        m sources that are in the data and in no sky model. They are fitted together with the others, on which
        their sidelobes lie.
    """
    current, centre = model.sky, data.reader.phase_center
    # The catalogue's fluxes at the present positions: a source scaled to nothing can still come back.
    present = current.sky.flux_jy[chosen] / catalogue.sky.flux_jy[chosen]
    sky = replace(current.sky.select(chosen), flux_jy=catalogue.sky.flux_jy[chosen])
    few = joined(replace(current, sky=sky, apparent_jy=catalogue.apparent_jy[chosen]), besides)
    lm = sky.lmn(*centre)[:, :2]
    # A part of the data is looked at, and what gains took is asked for, once sources are in place.
    settled = data.each > 1 or taken is not None
    if known is not None and not known.holds(chosen, lm, MOVED_BEAMS * data.resolution_rad, settled=settled):
        known = None
    moments, coupling = _moments(data, weights, model, tables, few, known)
    change, error = solve_moments(
        moments,
        noise,
        coupling,
        prior_flux=limits.prior_flux,
        prior_position_rad=limits.prior_position_arcsec * ARCSEC,
        taken=taken,
    )
    listed, n = catalogue.sky.select(chosen), chosen.size
    of_these = np.concatenate([k * len(few) + np.arange(n) for k in range(3)])
    besides_ratio, besides_error = change[n:, 0], error[n:, 0]
    change, error = change[:n], error[:n]
    return JointFit(
        ratio=present + change[:, 0],
        ratio_error=error[:, 0],
        shift_rad=lm - listed.lmn(*centre)[:, :2] + change[:, 1:],
        shift_error=error[:, 1:],
        coupling=Coupling(chosen, lm, coupling[np.ix_(of_these, of_these)]),
        besides=besides_ratio,
        besides_error=besides_error,
    )


def measure_sources(
    data: CalibrationData,
    weights: DataWeights,
    model: SkyVisibilities,
    tables: Sequence[GainTable],
    catalogue: ApparentSky,
    noise: NoiseScale,
    *,
    before: SourceMeasurement | None = None,
    rescaled: bool = False,
) -> SourceMeasurement | None:
    """Measure flux and position of the bright catalogue sources on the calibrated data, all together.

    Parameters
    ----------
    data, weights, model, tables, catalogue, noise
        As of :func:`fit_sources`.
    before : SourceMeasurement, optional
        An earlier measurement of the same sources in the same data.
    rescaled : bool, optional
        Whether the flux scale is known to have been off.

    Returns
    -------
    SourceMeasurement or None
        None if there are too few bright sources for a median, and all together do not tell another scale.
    """
    chosen = np.flatnonzero(catalogue.sky.is_point)[:MOST_SOURCES]
    if chosen.size < FEWEST_SOURCES:
        return None
    known = None if before is None else before.coupling
    fit = fit_sources(data, weights, model, tables, catalogue, chosen, noise, known=known)
    good = fit.good
    together = bool(np.count_nonzero(good) < FEWEST_SOURCES)
    if together:
        limits = FitLimits(prior_flux=TOGETHER_PRIOR)
        fit = fit_sources(data, weights, model, tables, catalogue, chosen, noise, limits, known=fit.coupling)
        told = median_of_all(fit.ratio, fit.ratio_error)
        least, sigmas = (0.0, 1.0) if rescaled else (TOGETHER_LEAST, TOGETHER_SIGMAS)
        # Of a sky that is not there all but the sources that the gains are from have nothing.
        seen = told.value > TOGETHER_SIGMAS * told.error and told.beyond(1.0, sigmas)
        if not (seen and abs(np.log(told.value)) > np.log(1 + least)):
            return None
        # Where faint sources are is not known well enough to move the sky.
        good, scale, middle = fit.good, told.value, np.zeros(2)
    else:
        scale, middle = float(np.median(fit.ratio[good])), np.median(fit.shift_rad[good], axis=0)
    return SourceMeasurement(
        index=chosen,
        ratio=fit.ratio / scale,
        ratio_error=fit.ratio_error / scale,
        shift_rad=fit.shift_rad - middle,
        shift_error=fit.shift_error,
        good=good,
        scale=scale,
        offset_rad=(float(middle[0]), float(middle[1])),
        coupling=fit.coupling,
        together=together,
        each=data.each,
    )


def _moments(
    data: CalibrationData,
    weights: DataWeights,
    model: SkyVisibilities,
    tables: Sequence[GainTable],
    few: ApparentSky,
    known: Coupling | None,
) -> tuple[Float, Float]:
    """Moments of the residual at each source, (n, N_MOMENTS), and how sources couple, as far as not known."""
    reader, seen = data.reader, SkyVisibilities(few)
    moments, sample = np.zeros((len(few), N_MOMENTS)), _Sample(few, known)
    per_row = SAMPLES * data.each / reader.n_rows

    def residuals() -> Iterator[tuple[tuple[int, ...], _Residual]]:
        for piece in data.blocks("measure the bright sources", weights, model):
            block = piece.block
            assert piece.model is not None
            vis, weight = data.corrected(block, piece.touched(piece.weight), tables)
            combined, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
            length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
            total[length < data.least_length_m(block, SHORTEST)] = 0
            residual = np.where(total > 0, combined - piece.model, np.complex64(0))
            field, freq = reader.ms.field(block.field_id), block.spw.freq_hz
            lmn = few.sky.lmn(field.ra_rad, field.dec_rad)
            flux, pointing = seen.fluxes(block, reader)
            yield (
                data.together(piece.number),
                _Residual(block.uvw_m, freq, lmn, flux, residual, total, pointing),
            )
            if sample.is_known:
                continue
            row, channel = _drawn(block.rows, freq.size, per_row)
            stands_for = max(freq.size / per_row, 1.0)
            counts = total[row, channel].astype(np.float64) * stands_for
            of_sources = flux[pointing[row], :, channel].T
            sample.add(lmn, block.uvw_m[row], freq[channel], of_sources, counts)

    for windows in brought_together(residuals()):
        moments += _Residual.joined(windows).moments()
    return moments, sample.coupling()


@dataclass(frozen=True, eq=False)
class _Residual:
    """What the model leaves of rows, and the sources there; as of :func:`residual_moments`."""

    uvw_m: Float
    freq_hz: Float
    lmn: Float
    flux_jy: Single
    residual: Vis
    weight: Weight
    pointing: Int

    @classmethod
    def joined(cls, windows: Sequence[_Residual]) -> _Residual:
        """Join spectral windows of the same rows."""
        if len(windows) == 1:
            return windows[0]
        return replace(
            windows[0],
            freq_hz=np.concatenate([w.freq_hz for w in windows]),
            flux_jy=np.concatenate([w.flux_jy for w in windows], axis=2),
            residual=np.concatenate([w.residual for w in windows], axis=1),
            weight=np.concatenate([w.weight for w in windows], axis=1),
        )

    def moments(self) -> Float:
        """Return the sums for each source, shape (n, N_MOMENTS)."""
        return residual_moments(
            self.uvw_m, self.freq_hz, self.lmn, self.flux_jy, self.residual, self.weight, self.pointing
        )


def _drawn(rows: Int, n_channels: int, per_row: float) -> tuple[Int, Int]:
    """Draw visibilities, so many of a row in the mean, or all where there are no more.

    What is drawn of a row depends on its number in the Measurement Set alone, not on the block that it is in.

    Returns
    -------
    row, channel : ndarray of int
        Places in `rows`, and channels.
    """
    if per_row >= n_channels:
        row, channel = np.divmod(np.arange(rows.size * n_channels), n_channels)
        return row, channel
    count = np.floor(per_row + _uniform(rows, np.zeros_like(rows))).astype(np.int64)
    row = np.repeat(np.arange(rows.size), count)
    nth = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    return row, np.floor(_uniform(rows[row], nth + 1) * n_channels).astype(np.int64)


def _uniform(row: Int, nth: Int) -> Float:
    """Numbers from 0 to 1 that look drawn, of pairs of numbers: the finaliser of SplitMix64.

    Steele, Lea & Flood (2014), Proc. OOPSLA, 453.
    """
    x = row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + nth.astype(np.uint64) * np.uint64(
        0xD1B54A32D192ED03
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


class _Sample:
    """Visibilities that tell how sources couple: few at a time would leave the processors waiting.

    Parameters
    ----------
    few : ApparentSky
        The sources.
    known : Coupling or None
        How the first of them couple.
    """

    def __init__(self, few: ApparentSky, known: Coupling | None) -> None:
        self._known = known
        self._n_known = 0 if known is None else known.index.size
        self.is_known = self._n_known == len(few)
        """Whether nothing has to be summed."""
        self._coupling = np.zeros((3 * len(few), 3 * len(few)))
        self._lmn = np.zeros((len(few), 3))
        self._parts: list[tuple[Float, Float, Single, Float]] = []
        self._size = 0

    def add(self, lmn: Float, uvw_m: Float, freq_hz: Float, flux_jy: Single, weight: Float) -> None:
        """Take in some; parameters as of :func:`sampled_coupling`."""
        if self._size >= SAMPLES_AT_ONCE or (self._size and (lmn != self._lmn).any()):
            self._sum_up()
        self._lmn = lmn
        self._parts.append((uvw_m, freq_hz, flux_jy, weight))
        self._size += weight.size

    def coupling(self) -> Float:
        """Return the sum over all of them, shape (3 n, 3 n)."""
        self._sum_up()
        if self._known is None:
            return self._coupling
        if self.is_known:
            return self._known.matrix
        # What was summed earlier, perhaps at other weights, at the scale of these sums.
        n = len(self._coupling) // 3
        of_known = np.concatenate([k * n + np.arange(self._n_known) for k in range(3)])
        was, now = np.diag(self._known.matrix), np.diag(self._coupling)[of_known]
        scale = np.sqrt(np.divide(now, was, out=np.zeros_like(now), where=was > 0))
        self._coupling[np.ix_(of_known, of_known)] = self._known.matrix * scale * scale[:, None]
        return self._coupling

    def _sum_up(self) -> None:
        if self._parts:
            uvw, freq, flux, weight = zip(*self._parts, strict=True)
            at = np.concatenate(uvw), np.concatenate(freq), self._lmn
            of_sources = np.concatenate(flux, axis=1)
            self._coupling += sampled_coupling(*at, of_sources, np.concatenate(weight), self._n_known)
        self._parts, self._size = [], 0
