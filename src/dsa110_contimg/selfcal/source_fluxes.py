"""The flux of every catalogue source in an observation, with its errors kept apart, and what is new.

Bright sources are fitted to the calibrated visibilities, all together and together with what the gains have
taken of them; the others are read off the final image at their catalogue positions. What the difference image
shows where nothing is listed is new.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int, Single, Vis, Weight
from dsa110_contimg.calibration.gain_share import SourceOverlap, gain_freedom, gain_share
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.imaging import RestoringBeam, mad_rms, stokes_i
from dsa110_contimg.imaging.detection import forced_peaks, local_noise
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.new_sources import SAME_BEAMS, NewSources, beam_error, find_new_sources
from dsa110_contimg.selfcal.sky_check import CATALOG_SCATTER
from dsa110_contimg.selfcal.source_measurement import (
    FEWEST_SOURCES,
    MIN_SNR,
    MOST_SOURCES,
    SHORTEST,
    FitLimits,
    fit_sources,
)
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.selfcal.windows_together import brought_together
from dsa110_contimg.sky import ApparentSky, SkyModel, angular_separation
from dsa110_contimg.sky.apparent_sky import PART, through_beams
from dsa110_contimg.visibilities import Block

__all__ = ["SourceFluxes", "measure_fluxes"]

#: Catalogue sources are told of from this many sigma of the image on.
LISTED_SIGMA = 5.0
#: What gains take is worked out of so many sources: the brightest, and others spread over the rest.
BRIGHTEST_SHARED, OTHERS_SHARED = 50, 30
#: Sums over antennas and dumps may take so much memory, bytes.
SHARE_BYTES = 1.2e8
#: More than this fraction of a change is not undone.
MOST_TAKEN = 0.8
#: Where the fluxes do not tell, dishes point within this of where they should, in each direction, degrees.
ASSUMED_POINTING_DEG = 0.03
#: What is measured may be anything: the fit is hardly held to the catalogue's flux.
LIMITS = FitLimits(prior_flux=3.0)
#: So many sources that the model lacks are fitted together with the bright ones, the most significant.
MOST_UNMODELLED = 50
#: The noise that is an error of a flux is taken of squares of so many beams. What gains do not follow of a
#: bright source, as where dishes do not point alike, is larger near it, until channels no longer add up.
#: In 48 images of the study of light curves brightness within five beams of sources of 0.3 to 0.8 Jy
#: scatters by 1.04 times what it does elsewhere in units of the noise of squares of 15 beams, and by 1.02 of
#: squares of ten. Detection takes the larger ones, whose own error makes fewer false sources.
ERROR_SQUARE_BEAMS = 10.0
#: A listed source with so much of the flux of another one this near, in beams, disturbs it.
BLENDED_FLUX, BLENDED_BEAMS = 0.1, 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFluxes:
    """Fluxes of catalogue sources.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Sources of the catalogue.
    by_visibilities : ndarray of bool, shape (n,)
        Whether the visibilities were fitted, and not the image.
    ratio, ratio_error : ndarray, shape (n,)
        Flux over that of the catalogue, on the flux scale of all bright ones, and its error by noise.
    shift_rad, shift_error : ndarray, shape (n, 2)
        Measured minus catalogued direction in l and m, less the median, and its error; NaN of images.
    response : ndarray, shape (n,)
        What the beam lets through, mean over band and dumps.
    beam_error : ndarray, shape (n,)
        Relative error of the flux by the pointing of the dishes.
    distance_rad : ndarray, shape (n,)
        From the beam's centre in the middle of the observation.
    noise_jy : ndarray, shape (n,)
        Of the image around it, Jy/beam.
    taken : ndarray, shape (n,)
        Fraction of a change of the flux that gains solved for another flux take; it is undone.
    typically_taken : float
        The same of a faint source.
    blended : ndarray of bool, shape (n,)
        Whether another listed source disturbs it.
    scale, scale_error : float
        Flux scale of the observation before it was divided out, and its relative error.
    pointing_deg : float
        Error of the pointing that was assumed or measured, in each direction.
    new : NewSources or None
        None where the image cannot tell.
    """

    index: Int
    by_visibilities: Bool
    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    response: Float
    beam_error: Float
    distance_rad: Float
    noise_jy: Float
    taken: Float
    typically_taken: float
    blended: Bool
    scale: float
    scale_error: float
    pointing_deg: float
    new: NewSources | None


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Bright sources fitted to the visibilities: of all of the catalogue, NaN where they were not."""

    ratio: Float
    ratio_error: Float
    shift_rad: Float
    shift_error: Float
    taken: Float
    besides: Float = field(default_factory=lambda: np.zeros(0))
    besides_error: Float = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, eq=False)
class _Shared:
    """What gains have taken: of the fitted sources, shape (n, n), of a faint one, and the scatter of that."""

    matrix: Float
    typical: float
    spread: float

    @classmethod
    def none(cls) -> _Shared:
        return cls(np.zeros((0, 0)), 0.0, 0.0)

    def with_more(self, m: int) -> Float:
        """Return it of more sources, of which it was not worked out."""
        n = len(self.matrix)
        matrix = np.diag(np.full(n + m, self.typical))
        matrix[:n, :n] = self.matrix
        return matrix


def measure_fluxes(
    data: CalibrationData, state: CalState, config: SelfCalConfig, final: CalibratedImage
) -> SourceFluxes | None:
    """Measure every catalogue source above 5 sigma, and look for new ones.

    Parameters
    ----------
    data : CalibrationData
        The data.
    state : CalState
        With the calibration that is kept; where that is the input, only its image is measured.
    config : SelfCalConfig
        Options.
    final : CalibratedImage
        The image that is delivered.

    Returns
    -------
    SourceFluxes or None
        None without a catalogue.
    """
    if data.catalog_model is None:
        return None
    kept = state.kept_model if state.tables else None
    kept = kept if isinstance(kept, SkyVisibilities) else None
    pointing = data.reader.pointing[len(data.reader.times) // 2]
    centre = (float(pointing[0]), float(pointing[1]))
    listed = data.catalog_model
    if kept is not None:
        listed = through_beams(listed, kept.sky.antenna_beams, *centre)
    n, sky, grid, beam = len(listed), listed.sky, data.grid, final.cleaned.beam
    chosen = np.flatnonzero(sky.is_point)[:MOST_SOURCES]
    shared = _Shared.none()
    if kept is not None and chosen.size:
        shared = _taken(data, state, kept, listed, chosen)
    # An image of an input that is not calibrated says nothing of fluxes.
    tells = kept is not None or (state.outcome is not None and state.outcome.status == "converged")

    pointing_deg = _pointing_error(state, config)

    modelled = final.subtracted is not None
    rest = final.cleaned.restored if modelled else final.restored
    empty = final.cleaned.restored if modelled else final.cleaned.residual
    near = local_noise(empty, grid, beam, ERROR_SQUARE_BEAMS)
    at, known_jy = sky, np.zeros(n)
    if final.subtracted is not None:
        at, known_jy = final.subtracted.sky.select(np.arange(n)), final.subtracted.apparent_jy[:n]
    around = np.nan_to_num(forced_peaks(near, grid, sky.ra_rad, sky.dec_rad), nan=mad_rms(rest))
    # What calibration leaves of bright sources goes on over channels and dumps: a visibility does not show
    # it, but it adds up in the image, and in a fit.
    thermal = final.thermal_per_noise * (
        state.noise_and_sidelobes.rms if kept is not None else state.noise.rms
    )
    excess = np.maximum(1.0, around / thermal) if thermal > 0 else np.ones(n)
    peak = forced_peaks(rest, grid, at.ra_rad, at.dec_rad) / _peak_of_unit(sky, beam)
    left = 1 - shared.typical
    apparent = known_jy + peak / left
    error = np.hypot(around / _peak_of_unit(sky, beam), shared.spread * peak / left) / left
    if not tells:
        apparent = np.full(n, np.nan)

    new, brightened = None, np.zeros(n, dtype=bool)
    if kept is not None and modelled:
        new, brightened = find_new_sources(
            data,
            final,
            listed,
            config,
            local_noise(empty, grid, beam),
            left=left,
            pointing_rad=math.radians(pointing_deg),
            beams=kept.sky.antenna_beams,
        )
    if kept is not None:
        differs = np.where(modelled & sky.is_point, np.abs(peak) / around, 0.0)
        others, of_new, besides = _unmodelled(listed, kept, new, differs, chosen, beam, config.spectral_index)
        fitted = _fit(data, state, kept, listed, chosen, shared, others, besides)
        new = _with_fluxes(new, of_new, fitted)
    else:
        fitted = _before(state, n)
    by_visibilities = np.isfinite(fitted.ratio)
    scale, scale_error, middle = _scale(fitted.ratio[by_visibilities], fitted.shift_rad[by_visibilities])
    split = _is_split(state.sky_model, listed)
    # Not where nothing can be said: outside the image, or in a null of the beam.
    told = ((listed.apparent_jy > LISTED_SIGMA * around) & np.isfinite(peak)) | by_visibilities | brightened
    index = np.flatnonzero(told & (listed.apparent_jy > 0) & ~split)
    off = by_visibilities[index]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(off, fitted.ratio[index], apparent[index] / listed.apparent_jy[index]) / scale
        ratio_error = (
            np.where(off, fitted.ratio_error[index] * excess[index], error[index] / listed.apparent_jy[index])
            / scale
        )
    away = angular_separation(sky.ra_rad[index], sky.dec_rad[index], *centre)
    before_beam = listed.unattenuated_flux(np.array([listed.freq_hz]))[index, 0]
    at_freq = np.where(before_beam > 0, before_beam, np.nan)
    return SourceFluxes(
        index=index,
        by_visibilities=off,
        ratio=ratio,
        ratio_error=ratio_error,
        shift_rad=fitted.shift_rad[index] - middle,
        shift_error=fitted.shift_error[index],
        response=listed.apparent_jy[index] / at_freq,
        beam_error=beam_error(
            listed.beam, sky.select(index).lmn(*centre), listed.freq_hz, math.radians(pointing_deg)
        ),
        distance_rad=away,
        noise_jy=around[index],
        taken=np.where(off, fitted.taken[index], shared.typical),
        typically_taken=shared.typical,
        blended=_blended(listed, beam)[index],
        scale=scale,
        scale_error=scale_error,
        pointing_deg=pointing_deg,
        new=new,
    )


def _not_fitted(n: int) -> _Fitted:
    ratio, error, taken = np.full((3, n), np.nan)
    shift, shift_error = np.full((2, n, 2), np.nan)
    return _Fitted(ratio, error, shift, shift_error, taken)


def _before(state: CalState, n: int) -> _Fitted:
    """Take what was measured after gains that were not kept, if anything."""
    found, measured = _not_fitted(n), state.measured
    if measured is not None:
        good = measured.index[measured.good]
        found.ratio[good] = measured.ratio[measured.good]
        found.ratio_error[good] = measured.ratio_error[measured.good]
        found.shift_rad[good] = measured.shift_rad[measured.good]
        found.shift_error[good] = measured.shift_error[measured.good]
    return found


def _unmodelled(
    listed: ApparentSky,
    kept: SkyVisibilities,
    new: NewSources | None,
    differs: Float,
    chosen: Int,
    beam: RestoringBeam,
    spectral_index: float,
) -> tuple[Int, Int, ApparentSky | None]:
    """Return what the data show and the model lacks: listed sources, and which of the new ones, as a sky.

    Parameters
    ----------
    listed : ApparentSky
        The catalogue.
    kept : SkyVisibilities
        Sky model.
    new : NewSources or None
        What no catalogue lists.
    differs : ndarray, shape (n,)
        By how many sigma the image shows listed sources otherwise than the model has them.
    chosen : ndarray of int
        Listed sources that are fitted anyway.
    beam : RestoringBeam
        Of the image.
    spectral_index : float
        Of new sources.
    """
    rest = np.setdiff1d(np.flatnonzero(differs > LISTED_SIGMA), chosen)
    others = rest[np.argsort(-differs[rest], kind="stable")][:MOST_UNMODELLED]
    if new is None or not new.ra_rad.size:
        return others, np.zeros(0, dtype=int), None
    order = np.argsort(-new.apparent_jy / new.error_jy, kind="stable")
    known = kept.sky.sky.select(np.arange(len(listed), len(kept.sky)))
    if len(known):
        near = angular_separation(
            new.ra_rad[order][:, None], new.dec_rad[order][:, None], known.ra_rad, known.dec_rad
        )
        order = order[near.min(axis=1) > SAME_BEAMS * beam.major_rad]
    order = order[(new.response[order] > 0)][: MOST_UNMODELLED - others.size]
    if not order.size:
        return others, order, None
    apparent = new.apparent_jy[order]
    sky = SkyModel.points(
        new.ra_rad[order], new.dec_rad[order], apparent / new.response[order],
        spectral_index=spectral_index, reference_freq_hz=listed.freq_hz, prefix="new",
    )  # fmt: skip
    return others, order, replace(kept.sky, sky=sky, apparent_jy=apparent)


def _fit(
    data: CalibrationData,
    state: CalState,
    kept: SkyVisibilities,
    listed: ApparentSky,
    chosen: Int,
    shared: _Shared,
    others: Int,
    besides: ApparentSky | None,
) -> _Fitted:
    """Fit the bright sources to the visibilities, with what the gains have taken of them.

    What the model lacks, `others` of the catalogue and `besides`, is fitted along: its sidelobes would be
    taken for changes of the bright ones.
    """
    fit_all = _not_fitted(len(listed))
    if not chosen.size:
        return fit_all
    n_bright = chosen.size
    chosen = np.concatenate([chosen, others])
    taken = shared.with_more(others.size + (0 if besides is None else len(besides)))
    known = None if state.measured is None else state.measured.coupling
    arguments = data, state.weights, kept, state.tables, listed, chosen, state.noise_and_sidelobes
    try:
        fit = fit_sources(*arguments, LIMITS, known, taken, besides)
    except np.linalg.LinAlgError:
        # Sources lie on each other, or one is nearly all of the sky: what gains took is undone one by one.
        fit = fit_sources(*arguments, known=known, besides=besides)
        present = kept.sky.sky.flux_jy[chosen] / listed.sky.flux_jy[chosen]
        left = 1 - np.clip(np.diag(taken)[: chosen.size], 0.0, MOST_TAKEN)
        ratio = present + (fit.ratio - present) / left
        of_new = fit.besides / (1 - shared.typical)
        fit = replace(fit, ratio=ratio, ratio_error=fit.ratio_error / left, besides=of_new)
    # The others are too faint, most days: a source is measured in one way, whatever it does.
    told = fit.good & (np.arange(chosen.size) < n_bright)
    good = chosen[told]
    for into, values in (
        (fit_all.ratio, fit.ratio),
        (fit_all.ratio_error, fit.ratio_error),
        (fit_all.shift_rad, fit.shift_rad),
        (fit_all.shift_error, fit.shift_error),
        (fit_all.taken, np.diag(taken)[: chosen.size]),
    ):
        into[good] = values[told]
    return replace(fit_all, besides=fit.besides, besides_error=fit.besides_error)


def _with_fluxes(new: NewSources | None, which: Int, fitted: _Fitted) -> NewSources | None:
    """Give bright new sources their fitted fluxes: images of few pixels to a beam lose some per cent."""
    bright = fitted.besides_error * MIN_SNR < np.abs(fitted.besides)
    if new is None or not bright.any():
        return new
    some = which[bright]
    apparent, error = new.apparent_jy.copy(), new.error_jy.copy()
    seen = np.zeros(apparent.size, dtype=bool)
    error[some] = np.maximum(error[some], fitted.besides_error[bright] * apparent[some])
    apparent[some] *= fitted.besides[bright]
    seen[some] = True
    return replace(new, apparent_jy=apparent, error_jy=error, by_visibilities=seen)


def _taken(
    data: CalibrationData, state: CalState, kept: SkyVisibilities, listed: ApparentSky, chosen: Int
) -> _Shared:
    """Return what gains have taken of the chosen sources, of a faint one, and the scatter of that."""
    reader = data.reader
    freedom = gain_freedom(state.tables, reader.times)
    groups = len(data.spw_ids) if freedom.per_spw else 1
    sizes = groups, reader.times.size, len(reader.ms.antennas)
    room = max(2, int(SHARE_BYTES / (16 * math.prod(sizes))))
    some = _worked_out(chosen.size, room)
    # The sources as they are in the model, and at their listed fluxes.
    sky = replace(kept.sky.sky.select(chosen[some]), flux_jy=listed.sky.flux_jy[chosen[some]])
    few = replace(kept.sky, sky=sky, apparent_jy=listed.apparent_jy[chosen[some]])
    seen, overlap = SkyVisibilities(few), SourceOverlap(some.size, *sizes)

    def windows() -> Iterator[tuple[tuple[int, ...], tuple[Block, Single, Int, Vis, Weight]]]:
        for piece in data.blocks("what gains take of sources", state.weights, kept):
            block = piece.block
            assert piece.model is not None
            vis, weight = data.corrected(block, piece.touched(piece.weight), state.tables)
            _, total = stokes_i(vis, weight, weight == 0, block.spw.parallel)
            # Windows of the same baselines that share gains at once: their delays are formed once.
            together = (piece.number,) if groups > 1 else data.together(piece.number)
            yield together, (block, *seen.fluxes(block, reader), piece.model, total)

    for of_rows in brought_together(windows()):
        blocks, flux, pointing, model, weight = zip(*of_rows, strict=True)
        block = blocks[0]
        field = reader.ms.field(block.field_id)
        length = np.hypot(block.uvw_m[:, 0], block.uvw_m[:, 1])
        overlap.add(
            data.spw_ids.index(block.spw.id) if groups > 1 else 0,
            block.time_index,
            block.antenna1,
            block.antenna2,
            block.uvw_m,
            np.concatenate([b.spw.freq_hz for b in blocks]),
            sky.lmn(field.ra_rad, field.dec_rad),
            np.concatenate(flux, axis=2),
            pointing[0],
            np.concatenate(model, axis=1),
            np.concatenate(weight, axis=1),
            length >= data.least_length_m(block, SHORTEST),
        )
    share = gain_share(overlap, freedom)
    own = np.diag(share)
    faint = own[some >= some.size // 2] if some.size > 3 else own
    typical = float(np.clip(np.median(faint), 0.0, MOST_TAKEN))
    taken = np.diag(np.full(chosen.size, typical))
    taken[np.ix_(some, some)] = share
    return _Shared(taken, typical, float(np.std(faint)) if faint.size > 1 else typical)


def _worked_out(n: int, room: int) -> Int:
    """Choose of which sources, brightest first, it is worked out what gains take: some faint ones always."""
    bright = min(n, BRIGHTEST_SHARED, max(1, room // 2))
    faint = min(n - bright, OTHERS_SHARED, room - bright)
    spread = np.linspace(bright, n - 1, faint).round().astype(int) if faint > 0 else np.zeros(0, dtype=int)
    return np.unique(np.concatenate([np.arange(bright), spread]))


def _scale(ratio: Float, shift_rad: Float) -> tuple[float, float, Float]:
    """Flux scale and its relative error, and what the positions are off by, in the median."""
    n = ratio.size
    if n < FEWEST_SOURCES:
        return 1.0, CATALOG_SCATTER / math.sqrt(max(n, 1)), np.zeros(2)
    scale = float(np.median(ratio))
    scatter = mad_rms((ratio / scale).astype(np.float32))
    return scale, 1.25 * scatter / math.sqrt(n), np.median(shift_rad, axis=0)


def _pointing_error(state: CalState, config: SelfCalConfig) -> float:
    """Error of the dishes' common pointing in each direction, degrees: as given, measured, or assumed."""
    if config.pointing_error_deg is not None:
        return config.pointing_error_deg
    found = () if state.sky_check is None else state.sky_check.pointing_arcmin
    if not found or not all(np.isfinite([axis.value, axis.error]).all() for axis in found):
        return ASSUMED_POINTING_DEG
    # What is known of a Gaussian variable after a measurement of it: mean and variance.
    prior, total = ASSUMED_POINTING_DEG**2, 0.0
    for axis in found:
        seen, noise = axis.value / 60, (axis.error / 60) ** 2
        total += (seen * prior / (prior + noise)) ** 2 + prior * noise / (prior + noise)
    return math.sqrt(total / len(found))


def _peak_of_unit(sky: SkyModel, beam: RestoringBeam) -> Float:
    """Peak of sources of one jansky in an image, Jy/beam, shape (n,): less than one of resolved ones."""

    def covariance(major: Float, minor: Float, pa: Float) -> Float:
        axis = np.stack([np.stack([np.sin(pa), np.cos(pa)], -1), np.stack([np.cos(pa), -np.sin(pa)], -1)], -1)
        width = np.stack([major**2, minor**2], -1)
        return np.asarray(np.einsum("...ik,...k,...jk->...ij", axis, width, axis))

    of_beam = covariance(*(np.array(v) for v in (beam.major_rad, beam.minor_rad, beam.pa_rad)))
    together = covariance(sky.major_rad, sky.minor_rad, sky.pa_rad) + of_beam
    return np.asarray(np.sqrt(np.linalg.det(of_beam) / np.linalg.det(together)))


def _blended(listed: ApparentSky, beam: RestoringBeam) -> Bool:
    """Find sources that another listed one disturbs."""
    sky = listed.sky
    found = np.zeros(len(listed), dtype=bool)
    order = np.argsort(sky.dec_rad, kind="stable")
    dec, near = sky.dec_rad[order], BLENDED_BEAMS * beam.major_rad
    first, last = np.searchsorted(dec, dec - near), np.searchsorted(dec, dec + near)
    for k, place in enumerate(order):
        others = order[first[k] : last[k]]
        others = others[others != place]
        close = angular_separation(
            sky.ra_rad[others], sky.dec_rad[others], sky.ra_rad[place], sky.dec_rad[place]
        )
        disturbs = listed.apparent_jy[others] > BLENDED_FLUX * listed.apparent_jy[place]
        found[place] = bool(((close < near) & disturbs).any())
    return found


def _is_split(model: ApparentSky | None, listed: ApparentSky) -> Bool:
    """Find listed sources that turned out to be two."""
    names = () if model is None else model.sky.name[len(listed) :]
    whole = {name.rpartition(PART)[0] for name in names if PART in name}
    return np.array([name in whole for name in listed.sky.name], dtype=bool)
