"""What held-out sources say of the sky: whether it is the catalogue's, and in which way it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.special

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.sky import PrimaryBeam
from dsa110_contimg.sky.components import ARCSEC

__all__ = [
    "CATALOG_SCATTER",
    "MANY_AGREE",
    "Estimate",
    "HeldoutSources",
    "RecoveredHalf",
    "SkyCheck",
    "agreeing",
    "beam_trends",
    "check_sky",
    "displacement",
    "median_of_all",
    "robust_fit",
    "width_misfit",
]

#: Catalogue fluxes scatter by so much, one source against another: errors, resolution and variability.
CATALOG_SCATTER = 0.1
#: A half tells of the other one where the model itself comes out with at least this fraction.
TELLING = 0.5
#: Signal to noise from which a source counts, one by one.
MIN_SNR = 10.0
#: With fewer sources neither a trend nor a displacement is told from chance.
FEWEST_SOURCES = 8
#: Where at least this part of the sources agrees the sky is the catalogue's; with less it is well to ask why.
MANY_AGREE = 0.6
#: Sources further out than this, in units of the radius of half power, say little of the beam's width.
OUTERMOST = 1.3
#: Where all sources are taken together none counts for more than one whose flux is known to this fraction.
TOGETHER_ERROR = 0.3
#: Off by more than this in flux (fraction) or position, and by `SIGNIFICANT` errors, a source does not agree.
AGREES_FLUX, AGREES_ARCSEC, SIGNIFICANT = 0.25, 3.0, 5.0
#: Nor does what no catalogue lists let a source be placed better than within this fraction of the resolution.
AGREES_BEAMS = 0.05
#: With less of the flux recovered there is nothing that sources could agree about.
LEAST_RECOVERED = 0.3
#: With fewer dumps or windows there is no trend.
FEWEST_IN_TREND = 4
#: Beam widths over the assumed one that can be told, and steps to them.
WIDTH_RANGE = (0.2, 5.0)
WIDTH_STEPS = 6
MAD_TO_SIGMA = 1.4826
#: Passes of a fit that leaves out what is further than this many times the scatter.
PASSES, CLIP = 5, 3.0
#: An error of few values is one by which so many standard errors are as rare as of many.
SIGMAS_MEANT = 3.5


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error; not numbers where nothing can be told."""

    value: float = float("nan")
    error: float = float("nan")

    def beyond(self, expected: float, sigmas: float) -> bool:
        """Whether it is further from a value than so many errors; False if nothing is known."""
        return bool(abs(self.value - expected) > sigmas * self.error)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredHalf:
    """One half of the sky model after gains that were solved on the other one.

    Attributes
    ----------
    fraction : float
        Flux over that of the model, in units of what a sky like the model would give with the same gains'
        freedom; weighted by the squares of the fluxes.
    error : float
        Its standard error, of noise and of a catalogue's scatter.
    of_input : float
        The same with the phases of the input in place of the solved ones.
    expected : float
        What the model itself gives: gains follow what they are not solved on as well, a little.
    by_time : ndarray, shape (ntime,)
        Fraction by dump; not a number without data.
    by_spw : ndarray, shape (nspw,)
        Fraction by spectral window; of one where they share a gain.
    tables : tuple of GainTable
        The gains.
    held : ndarray of bool, shape (n,)
        The half of the sky model's sources that was held out.
    """

    fraction: float
    error: float
    of_input: float
    expected: float
    by_time: Float
    by_spw: Float
    tables: tuple[GainTable, ...]
    held: Bool


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldoutSources:
    """What gains from other sources say of each bright one.

    Attributes
    ----------
    halves : tuple of RecoveredHalf
        Both ways round.
    half : ndarray of int, shape (n,)
        Which of `halves` each source below is of.
    index : ndarray of int, shape (n,)
        Sources of the catalogue that were measured.
    ratio, ratio_error : ndarray, shape (n,)
        Flux over that of the catalogue, and its error by noise.
    shift_rad, shift_error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m about the phase centre, less the median of its half;
        its error by noise, radians.
    lm : ndarray, shape (n, 2)
        Where the catalogue has them, direction cosines from the beam's centre in the middle of the
        observation.
    resolution_rad : float
        One over the rms length of the baselines in wavelengths.
    """

    halves: tuple[RecoveredHalf, ...]
    half: Int
    index: Int
    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    lm: Float
    resolution_rad: float


@dataclass(frozen=True, kw_only=True)
class SkyCheck:
    """What held-out sources say.

    Attributes
    ----------
    recovered : Estimate
        Flux of held-out sources over the catalogue's: the median of those measured one by one, or all their
        flux together where that is known better; not a number where the sky model has no half that tells of
        the other.
    together : Estimate
        Median flux of all held-out sources, also those too faint to be looked at one by one, where there are
        too few others; not numbers else.
    taken : float
        Fraction of that flux that gains solved on the other half take up, as they do of the model itself: the
        median may be too low by as much. Zero where all flux together is known better, which is corrected
        for it.
    phased, phased_input : float
        Flux of a held-out half over what its model would give after the same solution: with the solved
        phases, and with those of the input. Where the input's is higher its phases are better.
    n_sources : int
        Held-out sources measured one by one.
    n_agreeing : int
        Those where and as bright as the catalogue has them.
    scatter : float
        Robust scatter of their fluxes over the catalogue's.
    beam_width : Estimate
        Width of the beam over that assumed, from the trend of the fluxes with distance from its centre.
    pointing_arcmin : (Estimate, Estimate)
        How far the beam's centre is off, east and north, from the slope of the fluxes across it.
    central_flux : Estimate
        Flux over the catalogue's at the centre of a beam of any width, where that does not matter.
    rotation_deg : Estimate
        By how much the catalogue has to be turned about the phase centre, north through east.
    stretch : Estimate
        Fraction by which its distances have to grow.
    shear : Estimate
        Fraction by which they have to grow in one direction and shrink across it: nothing that is wrong with
        coordinates does that.
    time_trend, frequency_trend : Estimate
        Change of the recovered fraction from the first to the last dump, and from the lowest to the highest
        window.
    """

    recovered: Estimate = Estimate()
    together: Estimate = Estimate()
    taken: float = 0.0
    phased: Estimate = Estimate()
    phased_input: float = float("nan")
    n_sources: int = 0
    n_agreeing: int = 0
    scatter: float = float("nan")
    beam_width: Estimate = Estimate()
    pointing_arcmin: tuple[Estimate, Estimate] = (Estimate(), Estimate())
    central_flux: Estimate = Estimate()
    rotation_deg: Estimate = Estimate()
    stretch: Estimate = Estimate()
    shear: Estimate = Estimate()
    time_trend: Estimate = Estimate()
    frequency_trend: Estimate = Estimate()

    @property
    def agreeing_fraction(self) -> float:
        """Fraction of the sources that agree; not a number where none was measured."""
        return self.n_agreeing / self.n_sources if self.n_sources else float("nan")

    @property
    def confirmed(self) -> bool:
        """Whether so many sources are where and as bright as the catalogue has them that the sky is its."""
        return self.tells and self.n_sources >= FEWEST_SOURCES and self.agreeing_fraction >= MANY_AGREE

    @property
    def tells(self) -> bool:
        """Whether a sky that is there could be told from one that is not."""
        return bool(self.recovered.error * SIGNIFICANT < 1)


def check_sky(found: HeldoutSources, beam: PrimaryBeam, freq_hz: float) -> SkyCheck:
    """Sum up what held-out sources say.

    Parameters
    ----------
    found : HeldoutSources
        Of :func:`~dsa110_contimg.selfcal.heldout_sources.measure_heldout_sources`.
    beam : PrimaryBeam
        Beam that is assumed.
    freq_hz : float
        Middle of the band.

    Returns
    -------
    SkyCheck
    """
    telling = [k for k, half in enumerate(found.halves) if half.expected >= TELLING]
    if not telling:
        return SkyCheck()
    parts = [found.halves[k] for k in telling]
    weight = np.array([1 / half.error**2 for half in parts])
    phased = Estimate(
        float(np.average([half.fraction for half in parts], weights=weight)), float(1 / np.sqrt(weight.sum()))
    )
    basic = SkyCheck(
        recovered=phased,
        phased=phased,
        phased_input=float(np.average([half.of_input for half in parts], weights=weight)),
        time_trend=_trend([half.by_time for half in parts], weight),
        frequency_trend=_trend([half.by_spw for half in parts], weight),
    )
    of_telling = np.isin(found.half, telling)
    used = (found.ratio_error * MIN_SNR < 1) & of_telling
    n = int(np.count_nonzero(used))
    if n < FEWEST_SOURCES:
        together = median_of_all(found.ratio[of_telling], found.ratio_error[of_telling])
        basic = replace(basic, together=together)
    if n == 0:
        return basic
    ratio, error, shift, shift_error, lm = (
        x[used] for x in (found.ratio, found.ratio_error, found.shift_rad, found.shift_error, found.lm)
    )
    median = float(np.median(ratio))
    scatter = float(MAD_TO_SIGMA * np.median(np.abs(ratio - median)))
    # In units of the median: a common factor is one disagreement, not that of all sources.
    relative = ratio / median if median > LEAST_RECOVERED else np.full(n, np.inf)
    agrees = agreeing(relative, error, shift, shift_error, AGREES_BEAMS * found.resolution_rad)
    basic = replace(basic, n_sources=n, n_agreeing=int(np.count_nonzero(agrees)), scatter=scatter)
    if n < FEWEST_SOURCES:
        return basic
    # The error of a median is 1.25 times that of a mean.
    deviation = 1.25 * max(scatter, CATALOG_SCATTER) / np.sqrt(n)
    by_median = deviation < phased.error
    expected = float(np.average([half.expected for half in parts], weights=weight))
    width, pointing, central = beam_trends(ratio, error, lm, beam, freq_hz)
    rotation, stretch, shear = displacement(shift, shift_error, lm)
    # Sources that disagree wildly have no median to speak of; what all have together is known all the same.
    return replace(
        basic,
        recovered=Estimate(median, deviation) if by_median else phased,
        taken=max(0.0, 1 - expected) if by_median else 0.0,
        beam_width=width,
        pointing_arcmin=pointing,
        central_flux=central,
        rotation_deg=rotation,
        stretch=stretch,
        shear=shear,
    )


def median_of_all(ratio: Float, error: Float) -> Estimate:
    """Find the weighted median of sources' fluxes over the catalogue's.

    A few bright sources whose fluxes are wrong set the scale of gains. All others have it in common then,
    which they tell together though none does alone.

    Parameters
    ----------
    ratio, error : ndarray, shape (n,)
        Fluxes over those of the catalogue, and their errors.

    Returns
    -------
    Estimate
        Not numbers where fewer than `FEWEST_SOURCES` hold the weight.
    """
    seen = np.isfinite(ratio) & np.isfinite(error)
    order = np.flatnonzero(seen)[np.argsort(ratio[seen], kind="stable")]
    weight = 1 / (error[order] ** 2 + TOGETHER_ERROR**2)
    total = float(weight.sum())
    if not total**2 >= FEWEST_SOURCES * (weight**2).sum() > 0:
        return Estimate()
    middle = float(ratio[order][np.searchsorted(np.cumsum(weight), total / 2)])
    # The error of a median is 1.25 times that of a mean.
    return Estimate(middle, 1.25 / float(np.sqrt(total)))


def agreeing(
    ratio: Float, ratio_error: Float, shift_rad: Float, shift_error: Float, place_rad: float = 0.0
) -> Bool:
    """Tell which sources are where and as bright as the catalogue has them.

    Parameters
    ----------
    ratio, ratio_error : ndarray, shape (n,)
        Flux over that of the catalogue, and its error.
    shift_rad, shift_error : ndarray, shape (n, 2)
        How far they are from their places, and the error, radians.
    place_rad : float
        Shifts below this are none; at least `AGREES_ARCSEC`.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    near = np.maximum(max(AGREES_ARCSEC * ARCSEC, place_rad), SIGNIFICANT * shift_error.max(axis=1))
    as_bright = np.abs(ratio - 1) < np.maximum(AGREES_FLUX, SIGNIFICANT * ratio_error)
    return np.asarray(as_bright & (np.hypot(*shift_rad.T) < near))


def _trend(values: Sequence[Float], weight: Float) -> Estimate:
    """Change from one end of an axis to the other by a straight line, all halves together."""
    mean = np.average(np.stack(values), axis=0, weights=weight)
    known = np.isfinite(mean)
    if np.count_nonzero(known) < FEWEST_IN_TREND:
        return Estimate()
    x = np.linspace(-0.5, 0.5, mean.size)[known]
    solution, error = robust_fit(np.stack([np.ones(x.size), x], axis=1), mean[known], np.ones(x.size))
    return Estimate(float(solution[1]), float(error[1]))


def beam_trends(
    ratio: Float, error: Float, lm: Float, beam: PrimaryBeam, freq_hz: float
) -> tuple[Estimate, tuple[Estimate, Estimate], Estimate]:
    """Fit width and centre of the beam to fluxes over the catalogue's.

    Parameters
    ----------
    ratio, error : ndarray, shape (n,)
        Flux over that of the catalogue, and its error.
    lm : ndarray, shape (n, 2)
        Direction cosines from the centre of the beam that is assumed.
    beam : PrimaryBeam
        That beam.
    freq_hz : float
        Frequency.

    Returns
    -------
    width : Estimate
        Over the assumed one.
    centre : (Estimate, Estimate)
        East and north, arc minutes.
    flux : Estimate
        Flux over the catalogue's there.

    Notes
    -----
    Near its centre a beam is ``2^(-r^2 / h^2)`` of the radius of half power h: one that is k times as wide
    changes the logarithm of the fluxes by ``ln 2 (1 - 1/k^2) r^2/h^2``, one that is off by d by
    ``2 ln 2 (r d) / h^2``. The width is found in steps: fluxes as a beam of the width so far gives them show
    what is left of the trend.
    """
    half_power_rad = beam.fwhm_rad(freq_hz) / 2
    x = lm / half_power_rad
    radius = np.hypot(*x.T)
    used = _tells_width(ratio, error, radius)
    if np.count_nonzero(used) < FEWEST_SOURCES:
        return Estimate(), (Estimate(), Estimate()), Estimate()
    design = np.stack([np.ones(int(used.sum())), radius[used] ** 2, *x[used].T], axis=1)
    sigma = np.hypot(error[used] / ratio[used], CATALOG_SCATTER)
    assumed, width = _log_response(beam, lm[used], freq_hz, 1.0), 1.0
    for _ in range(WIDTH_STEPS):
        left = np.log(ratio[used]) - (_log_response(beam, lm[used], freq_hz, width) - assumed)
        solution, uncertain = robust_fit(design, left, 1 / sigma**2)
        slope = float(solution[1]) / np.log(2.0) * width**2
        width = float(np.clip(width / np.sqrt(np.clip(1 - slope, 0.5, 2.0)), *WIDTH_RANGE))
    minutes = np.degrees(half_power_rad) * 60 / (2 * np.log(2.0))
    central = float(np.exp(solution[0]))
    return (
        Estimate(width, float(width**3 / 2 * uncertain[1] / np.log(2.0))),
        (
            Estimate(float(solution[2] * minutes), float(uncertain[2] * minutes)),
            Estimate(float(solution[3] * minutes), float(uncertain[3] * minutes)),
        ),
        Estimate(central, float(central * uncertain[0])),
    )


def _tells_width(ratio: Float, error: Float, radius: Float) -> Bool:
    """Choose the sources that tell the width, by their distance in units of the radius of half power."""
    return np.asarray((radius < OUTERMOST) & (ratio > 3 * error) & (ratio > 0))


def _log_response(beam: PrimaryBeam, lm: Float, freq_hz: float, wider: float) -> Float:
    """Logarithm of the power of a beam that is wider by a factor, shape (n,)."""
    l, m = lm.T / wider  # noqa: E741
    towards = np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1], axis=1)
    return np.asarray(np.log(np.maximum(beam.power_towards(towards, freq_hz).reshape(-1), 1e-6)))


def width_misfit(
    ratio: Float, error: Float, lm: Float, beam: PrimaryBeam, freq_hz: float, width: float
) -> float:
    """Chi-squared of fluxes over the catalogue's through a beam that is wider by a factor.

    Parameters as of :func:`beam_trends`. A common factor is left open, and no source counts for more than
    three errors.
    """
    error = np.hypot(error / np.maximum(ratio, 1e-9), CATALOG_SCATTER)
    used = _tells_width(ratio, ratio * error, np.hypot(*lm.T) / (beam.fwhm_rad(freq_hz) / 2))
    if not used.any():
        return float("nan")
    change = _log_response(beam, lm[used], freq_hz, width) - _log_response(beam, lm[used], freq_hz, 1.0)
    left = np.log(ratio[used]) - change
    left -= np.median(left)
    return float(np.minimum((left / error[used]) ** 2, CLIP**2).sum())


def displacement(shift: Float, error: Float, lm: Float) -> tuple[Estimate, Estimate, Estimate]:
    """Fit rotation, stretch and shear of the catalogue to shifts of its sources.

    Parameters
    ----------
    shift, error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m, and its error, radians.
    lm : ndarray, shape (n, 2)
        Direction cosines from the phase centre.

    Returns
    -------
    rotation_deg, stretch, shear : Estimate
        As of :class:`SkyCheck`.
    """
    l, m = lm.T  # noqa: E741
    n = len(lm)
    one, zero = np.ones(n), np.zeros(n)
    # A turn by a, north through east, moves l by a m and m by -a l; a stretch by s each by s times itself; a
    # shear along the axes by p l and -p m, one along the diagonals by q m and q l.
    design = np.concatenate(
        [np.stack([one, zero, m, l, l, m], axis=1), np.stack([zero, one, -l, m, -m, l], axis=1)]
    )
    sigma = np.hypot(error.T.reshape(-1), ARCSEC)
    solution, uncertain = robust_fit(design, shift.T.reshape(-1), 1 / sigma**2)
    rotation = Estimate(float(np.degrees(solution[2])), float(np.degrees(uncertain[2])))
    shear = Estimate(float(np.hypot(*solution[4:])), float(np.hypot(*uncertain[4:]) / np.sqrt(2)))
    return rotation, Estimate(float(solution[3]), float(uncertain[3])), shear


def robust_fit(design: Float, values: Float, weight: Float) -> tuple[Float, Float]:
    """Weighted least squares without outliers; solution, and errors by the scatter that is left."""
    kept = np.ones(values.size, dtype=bool)
    root = np.sqrt(weight)
    solution = np.zeros(design.shape[1])
    for k in range(PASSES):
        # The first pass by absolute deviations, which outliers do not pull.
        w = root * kept
        if k == 0:
            for _ in range(20):
                solution = np.linalg.lstsq(design * w[:, None], values * w, rcond=None)[0]
                left = np.abs(values - design @ solution) * root
                w = root / np.sqrt(np.maximum(left, 1e-3 * np.median(left) + 1e-12))
        else:
            solution = np.linalg.lstsq(design * w[:, None], values * w, rcond=None)[0]
        left = (values - design @ solution) * root
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(left)))
        kept = np.abs(left) <= CLIP * max(scatter, 1e-12)
    w = root * kept
    freedom = int(kept.sum()) - design.shape[1]
    if freedom < 1:
        return solution, np.full(design.shape[1], np.inf)
    # What was left out is not known to be wrong: as of any estimate that rejects, by Huber's formula.
    variance = float((left[kept] ** 2).sum()) / freedom * kept.size / int(kept.sum())
    covariance = np.linalg.pinv((design * w[:, None]).T @ (design * w[:, None]))
    return solution, np.sqrt(np.maximum(np.diag(covariance) * variance, 0.0)) * _few(freedom)


def _few(freedom: int) -> float:
    """Give the factor by which few degrees of freedom widen an error, at so many sigma as count.

    The scatter is from the same few values: what is `SIGMAS_MEANT` of them is as rare as of a Gaussian then.
    """
    return float(-scipy.special.stdtrit(freedom, scipy.special.ndtr(-SIGMAS_MEANT)) / SIGMAS_MEANT)
