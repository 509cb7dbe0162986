"""The form of ``selfcal_summary.json``, from which its JSON Schema is made.

The summary itself is put together in :mod:`dsa110_contimg.selfcal.summary`; every key that is written there
stands here with its meaning and unit, and no other key is allowed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dsa110_contimg.selfcal.naming import SUMMARY

__all__ = ["STATUSES", "Summary", "summary_schema"]

#: How a run can end, and what that means.
STATUSES = {
    "improved": "A better calibration was found; the columns that were asked for hold it.",
    "converged": "The input is as well calibrated already; it was kept.",
    "no_improvement": "No round was accepted; the input was kept.",
    "diverged": "A round went wrong and was rolled back; the input was kept.",
    "refused": "Too little signal, or the sky is not the catalogue's; nothing was touched.",
}
#: A value and its standard error; null where it could not be measured.
Pair = Annotated[list[float | None], Field(min_length=2, max_length=2)]
EastNorth = Annotated[list[float], Field(min_length=2, max_length=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Scale(_Part):
    """What flux scale and positions were off by before the sky model was rescaled."""

    n_sources: Count = Field(description="Bright catalogue sources in the medians")
    flux_scale: float = Field(description="Median of measured over catalogue flux")
    offset_arcsec: EastNorth | None = Field(
        description="Median of measured minus catalogued position, arcsec east and north; null where nothing "
        "tells it"
    )


class HeldoutSources(_Part):
    """What sources say that gains were not solved on."""

    tells: bool = Field(description="Whether a sky that is there could be told from one that is not")
    recovered_fraction: float | None = Field(description="Flux of held-out sources over the catalogue's")
    recovered_error: float | None = Field(description="Its standard error")
    taken_by_gains: float | None = Field(
        description="Fraction that gains solved without them may take: the flux may be too low by as much"
    )
    recovered_by_phases: float | None = Field(
        description="Flux of held-out halves over what their model gives, with the solved phases"
    )
    recovered_by_input: float | None = Field(description="The same with the phases of the input")
    n_sources: Count = Field(description="Sources that were measured one by one")
    n_agreeing: Count = Field(
        description="How many of them are where and as bright as the catalogue has them"
    )
    scatter: float | None = Field(description="Scatter of their fluxes over the catalogue's")
    beam_width: Pair = Field(description="Width of the primary beam over that assumed, and its error")
    beam_centre_arcmin: Annotated[list[Pair], Field(min_length=2, max_length=2)] = Field(
        description="Centre of the primary beam from where it is assumed, arcmin east and north, with errors"
    )
    central_flux: Pair = Field(
        description="Flux over the catalogue's at the centre of a beam of any width, and its error"
    )
    rotation_deg: Pair = Field(
        description="Turn of the catalogue about the phase centre, degrees north through east, and its error"
    )
    stretch: Pair = Field(
        description="Fraction by which distances in the catalogue have to grow, and its error"
    )
    shear: Pair = Field(description="The same in one direction less that across it, fraction, and its error")
    time_trend: Pair = Field(
        description="Change of the recovered fraction over the observation, and its error"
    )
    frequency_trend: Pair = Field(description="Change of the recovered fraction over the band, and its error")


class PointingOf(_Part):
    """Pointing offsets of the antennas, degrees."""

    common_east_deg: float | None = Field(description="Mean over the antennas, east")
    common_north_deg: float | None = Field(description="Mean over the antennas, north")
    rms_deg: float | None = Field(description="Scatter about the mean in one direction, rms")
    error_deg: float | None = Field(
        description="Median standard error of an antenna; null where the offsets were given, or are none"
    )
    squint_east_deg: float | None = Field(
        description="By how much the first receptor of all antennas points further east than the second; "
        "null where they are taken to point alike"
    )
    squint_north_deg: float | None = Field(description="The same, north")


class BeamOf(_Part):
    """The primary beam that the catalogue was looked at through."""

    form: Literal["airy", "gaussian", "cosine", "file", "mixed"] = Field(
        description="Form of the beam; mixed: the antennas have several"
    )
    file: str | None = Field(description="Path of the beam file; null for a formula")
    antenna_beams: str | None = Field(description="Path of a list of antennas with other beams; null: none")
    diameter_m: float | None = Field(description="Effective diameter that was assumed, m; null for a file")
    width: Pair = Field(description="Width of the beam over that assumed, by sources' fluxes, and its error")
    width_used: float = Field(description="Width that was used over that assumed; 1 unless it was solved for")
    diameter_to_give_m: float | None = Field(
        description="Effective diameter of that width, m, where it is another one beyond doubt; else null"
    )


class FindingOf(_Part):
    """Something that speaks against the sky, the beam, the data or the start of a run."""

    kind: str = Field(description="One word for programs")
    text: str = Field(description="What was found, the likely cause and what to do")
    status: Literal["refused", "no_improvement", ""] = Field(
        description="Status that the run gets for it; empty where it is for information"
    )


class Metrics(_Part):
    """Figures of an image."""

    snr: float | None = Field(description="Peak over rms")
    rms_jy: float | None = Field(description="1.4826 x MAD away from sources, Jy/beam")
    peak_jy: float | None = Field(description="Highest pixel, Jy/beam")
    dynamic_range: float | None = Field(description="Peak over the most negative pixel's absolute value")
    min_jy: float | None = Field(description="Most negative pixel, Jy/beam")
    thermal_rms_jy: float | None = Field(description="What thermal noise alone would give, Jy/beam")
    thermal_ratio: float | None = Field(description="rms over thermal rms")
    flux_ratio: float | None = Field(
        description="Median of image flux over apparent catalogue flux; null where no source qualifies"
    )
    flux_ratio_n: Count = Field(description="Sources in that median")
    offset_arcsec: EastNorth | None = Field(
        description="Median of image minus catalogue position of the same sources, arcsec east and north"
    )
    peak_ra_dec_deg: EastNorth = Field(
        description="ICRS right ascension and declination of the peak, degrees"
    )


class Noise(_Part):
    """Upper bounds of the noise, each as the thermal rms of the final image in Jy/beam; null if unknown."""

    taken: str | None = Field(description="The bound that was taken: channels, polarizations, dumps or zero")
    channels_jy: float | None = Field(description="From second differences over channels")
    polarizations_jy: float | None = Field(description="From the difference of the two parallel hands")
    dumps_jy: float | None = Field(description="From third differences over dumps")
    zero_jy: float | None = Field(description="From channels before they were averaged, short baselines")
    radiometer_jy: float | None = Field(description="What the radiometer equation gives for the telescope")
    error: bool = Field(description="The image is quieter than its noise, which cannot be")
    note: str | None = Field(description="What is wrong with the noise, in words")


class CurvePoint(_Part):
    """A candidate of the solution interval."""

    taken: bool = Field(description="Whether it is the one that was taken")
    solint_s: float = Field(description="Interval, seconds")
    common: bool = Field(description="One gain for both polarisations")
    combined: bool = Field(description="One gain for all spectral windows")
    interpolation: Literal["linear", "nearest"] = Field(description="In time, between solutions")
    chi2_train: float = Field(description="Chi-squared on the channels it was solved on")
    chi2_heldout: float = Field(description="Chi-squared on the other channels")
    chi2_expected: float = Field(
        description="Chi-squared to expect on new data of a solution from both halves"
    )


class Iteration(_Part):
    """A round: gains and why they were accepted or not. Chi-squared is in units of thermal variance."""

    iteration: Annotated[int, Field(ge=1)] = Field(description="Number, from 1")
    calmode: Literal["p", "ap"] = Field(description="Phases, or amplitudes and phases")
    solint_s: float = Field(description="Solution interval, seconds")
    interpolation: Literal["linear", "nearest"] = Field(description="In time, between solutions")
    gain_type: Literal["G", "T", "B"] = Field(
        description="Kind of table: a gain per polarisation, a common one, by channel"
    )
    combined_spw: bool = Field(description="One gain for all spectral windows")
    model: str = Field(description="What it was solved against: seed or clean")
    solved_fraction: Fraction = Field(description="Fraction of the solutions that are good")
    median_snr: float = Field(description="Median signal to noise of the solutions")
    predicted_snr: float = Field(description="Signal to noise per antenna that the model promised")
    solver_iterations: Count = Field(description="Largest number of sweeps over the antennas")
    converged_fraction: Fraction = Field(description="Fraction of the intervals that converged")
    curve: list[CurvePoint] = Field(description="Candidates of the interval that were tried")
    phase_change_deg: float | None = Field(
        description="Scatter of the phases of this round, degrees; null without a solution"
    )
    chi2_train: float = Field(description="Chi-squared on the channels it was solved on")
    chi2_heldout: float = Field(description="Chi-squared on the other channels")
    snr: float | None = Field(description="Of the image at equal depth; null if none was made")
    rms_jy: float | None = Field(description="Of the same image, Jy/beam")
    accepted: bool = Field(description="Whether the round was accepted")
    reason: str = Field(description="Why")
    gaintable: str | None = Field(description="File that holds its gains, if they were kept")
    seconds: float = Field(description="Time it took")


class Work(_Part):
    """What the time went into, by counts that do not depend on the machine."""

    passes: Count = Field(description="Passes over the data on disk")
    bytes_read: Count = Field(description="Bytes read in them")
    bytes_spooled: Count = Field(description="Bytes read from the scratch file of averages")
    visibilities: Count = Field(description="Visibilities before averaging")
    averaged_visibilities: Count = Field(description="Visibilities after averaging")
    predicted_visibilities: Count = Field(description="Visibilities predicted")
    predicted_phasors: Count = Field(description="Sources times visibilities predicted")
    griddings: Count = Field(description="Transforms between images and visibilities")


class SeedSpectraOf(_Part):
    """How catalogue fluxes were carried to the observed frequency."""

    surveys: list[str] = Field(description="Whose fluxes and, of a merged catalogue, whose positions")
    catalog_mhz: float = Field(description="Frequency of the catalogue's fluxes")
    observed_mhz: float = Field(description="Middle of the observed band")
    indices: dict[str, int] = Field(
        description="Sources by where their spectral index is from: two catalogues, file, median, assumed"
    )
    message: str = Field(description="The same in a line")


class Provenance(_Part):
    """What the result was made by and from."""

    version: str = Field(description="Version of contimg")
    config: dict[str, Any] = Field(description="All options with the values in force")
    ms: str = Field(description="Absolute path of the Measurement Set")
    field: str = Field(description="Name of the field")
    receptors: list[str] = Field(
        description="What polarisations 0 and 1 of gains and antennas are: R and L, or X and Y"
    )
    initial_caltables: list[str] = Field(description="Absolute paths of the initial tables, in order")
    data_hash: str = Field(description="Hash of the data that were used")
    catalog_hash: str | None = Field(description="Hash of the catalogue's rows; null without a catalogue")


class OwnModelOf(_Part):
    """A model of the sky of the user's own (``--model``)."""

    file: str = Field(description="Absolute path")
    kind: str = Field(description="Format, in words")
    sha256: str = Field(description="Hash of the file")
    fluxes: Literal["true", "apparent"] = Field(description="Before the primary beam, or through it")
    reference_hz: float | None = Field(description="Frequency of most of its fluxes; null of flat spectra")
    n_components: Count = Field(description="Components in the file")
    n_seen: Count = Field(description="Those that reach the receiver")
    adds: bool = Field(description="Whether it was added to the catalogue's sources")
    n_replaced: Count = Field(description="Catalogue sources that were left out, as the model has them")
    notes: list[str] = Field(description="What of the model is not predicted")


class MeasuredSources(_Part):
    """What ``sources.ecsv`` holds, in short."""

    n_measured: Count = Field(description="Catalogue sources in it")
    n_new: Count | None = Field(description="New sources; null where the image cannot tell")
    false_new_expected: float | None = Field(description="How many of them are expected to be false")
    flux_scale: float = Field(description="Flux scale of the observation, which was divided out")
    flux_scale_error: float = Field(description="Its relative error")
    pointing_error_deg: float = Field(description="Error of the dishes' common pointing along each axis")


class Summary(_Part):
    """What ``selfcal_summary.json`` holds. It is written last: where it is, the run has finished."""

    schema_version: Literal[2] = Field(description="Raised when a key changes its meaning or goes")
    status: Literal["improved", "converged", "no_improvement", "diverged", "refused"] = Field(
        description="How the run ended"
    )
    message: str = Field(description="The reason in one line")
    seeded: bool = Field(description="Whether the sky was taken from the catalogue")
    catalog: str | None = Field(
        description="Which catalogue, of those that `--catalog` names, auto being resolved; model for one "
        "of the user's own, with a plus between them for both; null if unseeded"
    )
    model: OwnModelOf | None = Field(
        None, description="The model of the user's own; null where the sky is the catalogue's alone"
    )
    nvss_min_mjy: float | None = Field(description="Faintest catalogue flux, mJy; null if unseeded")
    n_seeds: Count = Field(description="Catalogue sources in the sky model")
    seed_spectra: SeedSpectraOf | None = Field(
        description="How catalogue fluxes were carried to the observed frequency; null if unseeded"
    )
    seed_notes: list[str] = Field(
        description="Why this catalogue, where that was a choice; what it leaves out"
    )
    seed_flux_jy: float = Field(description="Their apparent flux together, jansky")
    anchor: Scale | None = Field(description="First rescaling of the sky model; null if nothing was rescaled")
    heldout_sources: HeldoutSources | None = Field(
        description="Null without a catalogue or where it has no two halves"
    )
    chi2_untouched: float | None = Field(
        description="Chi-squared of the delivered calibration on data that no step has used"
    )
    chi2_untouched_input: float | None = Field(description="The same of the input")
    beam: BeamOf | None = Field(description="The primary beam; null in an unseeded run")
    pointing: PointingOf | None = Field(
        description="How far the antennas point off; null if no offsets were kept"
    )
    findings: list[FindingOf] = Field(description="The weightiest first")
    moved_arcsec: EastNorth | None = Field(
        description="By how much the sky of a coherent input was moved, arcsec east and north; else null"
    )
    flux_scale: float | None = Field(description="Fluxes of the input over those of the catalogue")
    flux_scale_error: float | None = Field(description="Its standard error")
    flux_scale_from: Literal["input", "catalogue"] = Field(description="Whose flux scale the result has")
    flux_scale_verified: bool = Field(
        description="Many held-out sources are as bright as the catalogue has them, and its fluxes were "
        "measured within a factor of two of the observed frequency, or on both sides of it"
    )
    flux_units_changed: bool = Field(
        description="The gains change amplitudes by more than a factor of two: the units differ"
    )
    initial: Metrics = Field(description="Image of the input")
    final: Metrics = Field(description="Image that was delivered")
    final_standard: Metrics = Field(
        description="Image of the accepted round at the CLEAN depth of the input's image"
    )
    noise: Noise = Field(description="Bounds of the noise")
    snr_improvement: float | None = Field(description="Signal to noise of final over initial")
    best_iteration: Count = Field(description="The round that was kept; 0 where the input was")
    iterations: list[Iteration] = Field(description="Every round")
    gaintables: list[str] = Field(
        description="Gain tables, to be applied in this order after the initial ones"
    )
    products: dict[str, str] = Field(description="Files in the output folder by what they are")
    seconds: dict[str, float] = Field(description="Time by kind of work, and in total")
    work: Work = Field(description="Counts of the work done")
    provenance: Provenance = Field(description="Version, options, input")
    seed_verdicts: dict[str, int] = Field(
        {}, description="Sources by verdict; missing without a source report"
    )
    sources: MeasuredSources | None = Field(
        None, description="What was measured of sources; missing without a source report"
    )
    antenna_verdicts: dict[str, list[str]] = Field(
        {}, description="Antennas that are not good, by verdict; missing without an antenna report"
    )


def summary_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``selfcal_summary.json``."""
    schema = Summary.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:dsa110-contimg:{SUMMARY}:1",
        **schema,
        "title": SUMMARY,
    }
