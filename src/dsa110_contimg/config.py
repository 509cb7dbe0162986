"""Options: one typed class per job, fed by flags, environment, file and defaults, in that order.

Every field's description is the help text of its flag; its environment
variable is ``CONTIMG_`` and the name in capitals; its key in a TOML file is the
name itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dsa110_contimg.settings import Settings

__all__ = [
    "VERDICTS",
    "BackendConfig",
    "CleanConfig",
    "ComparisonConfig",
    "ImagingConfig",
    "PipelineConfig",
    "RetentionRule",
    "SeedConfig",
    "SelfCalConfig",
    "Settings",
    "SimulationConfig",
    "StudyConfig",
    "parse_age",
    "parse_retention",
]

#: What `contimg container build` makes.
DEFAULT_IMAGE = "contimg-wsclean:bookworm"
#: Verdicts on what is published, the best first, and what rules of retention may name.
VERDICTS = ("good", "unverified", "kept", "bad")
RETAINED_VERDICTS = (*VERDICTS, "failed", "any")
#: Units of ages, seconds.
AGES_S = {"h": 3600.0, "d": 86400.0}
#: Units of a CLEAN depth, and what they are of a jansky.
DEPTH_UNITS = {"Jy": 1.0, "mJy": 1e-3, "uJy": 1e-6, "sigma": 1.0}


#: What `catalog` may be: the surveys, and two ways to choose among those built.
CatalogName = Literal[
    "nvss",
    "first",
    "sumss",
    "racs-low",
    "racs-mid",
    "vlass",
    "tgss",
    "lotss",
    "gleam",
    "wenss",
    "merged",
    "auto",
]


class CleanConfig(Settings):
    """Options of every image."""

    size: int | None = Field(
        None, ge=64, le=32768, description="Image size in pixels; chosen from the beam if not given"
    )
    cell_arcsec: float | None = Field(
        None, gt=0, description="Pixel size in arcsec; chosen from the longest baseline if not given"
    )
    weighting: Literal["natural", "uniform", "briggs"] = Field("briggs", description="Imaging weights")
    robust: float = Field(0.0, ge=-2, le=2, description="Briggs robustness")
    clean_sigma: float = Field(3.0, gt=0, description="CLEAN down to this many times the residual rms")
    mask_sigma: float = Field(5.0, gt=0, description="Mask CLEAN automatically at this many times the rms")
    clean_iterations: int = Field(100_000, ge=0, description="Most CLEAN iterations; 0 gives dirty images")
    multiscale: bool = Field(False, description="CLEAN on several scales")
    catalog_mask: bool = Field(
        False, description="CLEAN only inside discs around the catalogue's sources, also in an unseeded run"
    )
    mask_radius_arcsec: float | None = Field(
        None, gt=0, description="Radius of these discs in arcsec; 1.5 beams if not given"
    )
    memory_gb: float = Field(4.0, gt=0, description="Memory for visibilities in GB")
    threads: int = Field(0, ge=0, description="Threads; 0 takes all cores")

    def depth(self) -> tuple[float, float | None]:
        """CLEAN depth in units of the residual rms, and in jansky where it is given so."""
        return self.clean_sigma, None


class SeedConfig(Settings):
    """Options of the sky that is taken from the catalogue."""

    catalog: CatalogName = Field(
        "nvss",
        description="Catalogue to look the field up in; auto: of those built that cover the field the one "
        "nearest in frequency; merged: that one with the positions of the sharpest",
    )
    nvss_min_mjy: float = Field(
        1.0,
        ge=0,
        description="Faintest flux in mJy at the catalogue's frequency; below 2 the whole of NVSS",
    )
    seed_min_apparent_mjy: float = Field(
        1.0, ge=0, description="Faintest flux in mJy as seen through the primary beam"
    )
    spectral_index: float = Field(
        -0.75, ge=-5, le=5, description="Spectral index of catalogue sources of which no better is known"
    )
    index_from: Literal["catalogs", "assumed"] = Field(
        "catalogs",
        description="Spectral index of each source: from two catalogues that list it, else from the file, "
        "else the median of the field; or the assumed one for all",
    )
    dish_diameter_m: float | None = Field(
        None, gt=0, description="Effective dish diameter in m; from the telescope's name if not given"
    )
    beam: Literal["auto", "airy", "gaussian", "cosine"] = Field(
        "auto",
        description="Form of the primary beam: of a uniform aperture, a Gaussian, of a cosine taper; auto: "
        "that of the telescope",
    )
    beam_file: Path | None = Field(
        None, description="FITS cube of the primary beam (axes RA, DEC or L, M; FREQ) in place of a formula"
    )
    beam_file_kind: Literal["power", "voltage"] = Field("power", description="What that cube holds")
    catalog_dir: Path = Field(Path("state/catalogs"), description="Folder of the catalogue strips")
    model: Path | None = Field(
        None,
        description="Model of the sky to start from instead of the catalogue: a component list of WSClean or "
        "DP3, selfcal-seed.txt, CSV, ECSV, or a FITS image in Jy/pixel",
    )
    model_fluxes: Literal["true", "apparent"] | None = Field(
        None,
        description="Fluxes of that model: true, or apparent, as seen through the primary beam; to be said "
        "unless the file says it",
    )
    model_adds: bool = Field(
        False, description="Add that model to the catalogue, in place of its sources within a beam"
    )

    def needs_catalog(self) -> bool:
        """Whether sources are looked up in a catalogue."""
        return self.model is None or self.model_adds

    @model_validator(mode="after")
    def _own_model(self) -> Self:
        if self.model is None and (self.model_adds or self.model_fluxes is not None):
            option = "model_adds" if self.model_adds else "model_fluxes"
            raise ValueError(f"{option} is given without a model")
        return self


class BackendConfig(CleanConfig):
    """Options of images and of what makes them."""

    backend: Literal["embedded", "wsclean", "container"] = Field(
        "embedded", description="Imager: embedded, wsclean on this machine, or wsclean in a container"
    )
    timeout_s: float = Field(7200.0, gt=0, description="WSClean: seconds after which it is ended")
    wsclean: Path | None = Field(None, description="WSClean's program; the one on the path if not given")
    container_engine: Literal["auto", "docker", "podman"] = Field("auto", description="Container engine")
    container_image: str = Field(DEFAULT_IMAGE, description="Image that has WSClean in it")
    container_mounts: str | None = Field(
        None,
        description="Folders the container sees, HOST or HOST:INSIDE, separated by commas; those of "
        "Measurement Set and products if not given",
    )


class ObservationConfig(SeedConfig, BackendConfig):
    """Options of opening an observation: its beam, its grid, and what a catalogue lists in its field."""


class ImagingConfig(ObservationConfig):
    """Options of imaging a Measurement Set, whatever the imager."""

    threshold: str | None = Field(
        None, description="CLEAN depth with its unit, for example 0.1mJy or 5sigma, instead of clean_sigma"
    )
    mask: Path | None = Field(None, description="FITS mask: CLEAN only where it is not zero")
    pb_correct: bool = Field(False, description="Write the image divided by the primary beam too")
    channels_out: int = Field(1, ge=1, description="WSClean: parts of the band that are CLEANed together")
    spectral_terms: int = Field(
        0, ge=0, description="WSClean: terms of the polynomial over frequency of each component; 0: none"
    )

    @field_validator("threshold")
    @classmethod
    def _depth(cls, value: str | None) -> str | None:
        if value is not None:
            parse_threshold(value)
        return value

    @model_validator(mode="after")
    def _spectrum(self) -> Self:
        if self.spectral_terms > self.channels_out:
            raise ValueError(f"spectral_terms={self.spectral_terms} needs at least as many channels_out")
        return self

    def depth(self) -> tuple[float, float | None]:
        """CLEAN depth in units of the residual rms, and in jansky where it was given so."""
        if self.threshold is None:
            return self.clean_sigma, None
        value, unit = parse_threshold(self.threshold)
        return (value, None) if unit == "sigma" else (0.0, value)


class SelfCalConfig(ObservationConfig):
    """Options of self-calibration; the `backend` makes the final image of a run that improved."""

    use_nvss_seeding: bool = Field(True, description="Start from the NVSS catalogue")
    field: str | None = Field(None, description="Field name or identifier")
    spw: str | None = Field(None, description="Spectral windows, for example 0,2 or 0~3; all by default")
    column: Literal["DATA", "CORRECTED_DATA"] = Field(
        "DATA", description="Column that is calibrated, as it was before any run"
    )
    solint: str = Field("auto", description="Phase interval: auto, int, scan, inf or seconds")
    amplitude: Literal["auto", "on", "off"] = Field("auto", description="Solve for amplitudes too")
    amplitude_solint: str = Field("auto", description="Amplitude interval: auto, int, scan, inf or seconds")
    gain_type: Literal["auto", "G", "T"] = Field(
        "auto", description="A gain per polarisation (G), a common one (T), or what predicts new data better"
    )
    combine_spw: Literal["auto", "on", "off"] = Field(
        "auto", description="One gain for all spectral windows, or what predicts new data better"
    )
    combine_scans: bool = Field(True, description="Let intervals in seconds cross scans and fields")
    refant: str | None = Field(
        None, description="Reference antennas by name, best first; chosen if not given"
    )
    min_snr: float = Field(5.0, ge=0, description="Flag solutions below this signal to noise")
    min_baselines: int = Field(4, ge=1, description="Flag antennas with fewer baselines in an interval")
    spectral: Literal["off", "auto", "delay", "bandpass"] = Field(
        "auto", description="Antenna delays, or delays and a smooth bandpass; auto: what predicts better"
    )
    pointing_file: Path | None = Field(
        None, description="Pointing offsets to begin with in a seeded run: pointing.ecsv of another one"
    )
    solve_beam_width: bool = Field(
        False,
        description="Correct the width of the primary beam by up to half where held-out sources and channels "
        "gain by it; else a wrong one is reported",
    )
    pointing: Literal["auto", "off"] = Field(
        "auto", description="Solve for the antennas' pointing where held-out data gain by it"
    )
    pointing_error_deg: float | None = Field(
        None,
        ge=0,
        description="Error of the dishes' common pointing along each axis in degrees, for the errors of "
        "fluxes; measured if not given",
    )
    average: Literal["auto", "always", "never"] = Field(
        "auto", description="Average channels for solving and imaging: auto, from 4 million visibilities on"
    )
    unsolved: Literal["keep", "flag"] = Field(
        "keep", description="Visibilities without a solution or without sky: left as they are, or flagged"
    )
    columns: Literal["both", "corrected", "model", "none"] = Field(
        "both", description="Columns written: CORRECTED_DATA, MODEL_DATA (which takes longer), both, none"
    )
    max_rounds: int = Field(8, ge=1, le=20, description="Most rounds of unseeded self-calibration")
    imaging: Literal["subtracted", "standard"] = Field(
        "subtracted",
        description="Final image of a seeded run: with the sky model subtracted and restored, or plain",
    )
    initial_field: Literal["all", "nearest"] = Field(
        "all", description="Initial tables: solutions of all fields, or of the one nearest on the sky"
    )
    initial_interpolation: Literal["linear", "nearest"] = Field(
        "linear", description="Initial tables: interpolation in time"
    )
    spw_map: str | None = Field(
        None, description="Initial tables: spectral window to use for each of the data's, for example 0,0,0,0"
    )

    @field_validator("solint", "amplitude_solint")
    @classmethod
    def _interval(cls, value: str) -> str:
        text = value.strip()
        if text in ("auto", "int", "scan", "inf"):
            return text
        try:
            seconds = float(text.removesuffix("s"))
        except ValueError:
            seconds = float("nan")
        if not 0 < seconds < float("inf"):
            raise ValueError("allowed: auto, int, scan, inf or a positive number of seconds")
        return str(seconds)

    @field_validator("spw_map")
    @classmethod
    def _windows(cls, value: str | None) -> str | None:
        if value is not None and not all(w.strip().isdecimal() for w in value.split(",")):
            raise ValueError("allowed: identifiers separated by commas")
        return value

    def spw_map_dict(self) -> dict[int, int]:
        """Return the spectral-window map as a mapping from the data's windows."""
        words = self.spw_map.split(",") if self.spw_map else []
        return {k: int(word) for k, word in enumerate(words)}


class ComparisonConfig(Settings):
    """Options of the comparison of strategies."""

    arms: str = Field(
        "baseline_no_nvss,nvss_0.1mJy,nvss_1.0mJy,nvss_10.0mJy",
        description="Arms, separated by commas: baseline_no_nvss, nvss_<limit>mJy with any flux limit, "
        "masked_<limit>mJy, merged_<limit>mJy, mask_only_<limit>mJy",
    )
    arm_limit_s: float = Field(3600.0, gt=0, description="An arm that takes longer, in seconds, has hung")


class StudyConfig(Settings):
    """Options of a study: the comparison over a grid of simulated observations.

    Start phase error and brightness of the field make a map. Of the other lists
    the first value is that of the map; each further one is tried by itself at the
    middle of the map.
    """

    phase_errors: str = Field(
        "10,30,60,100,random", description="Start phase errors in degrees rms, or random, separated by commas"
    )
    brightest: str = Field("0,0.3,1,4", description="Flux in Jy of the one bright source added to the field")
    draws: int = Field(3, ge=1, description="Draws of sky, gains and noise for each point")
    amplitude_errors: str = Field("0.1,0.3", description="Antenna amplitude errors, fraction rms")
    flux_errors: str = Field("0.03,0.2", description="Catalogue flux errors, fraction rms")
    position_errors: str = Field("0.5,5", description="Catalogue position errors in arcsec rms")
    decs: str = Field("54.57,16.27", description="Declinations in degrees")
    map_arms: str = Field(
        "baseline_no_nvss,nvss_1.0mJy", description="Arms everywhere: one unseeded, one seeded"
    )
    limit_arms: str = Field(
        "nvss_10.0mJy,nvss_30.0mJy,nvss_100.0mJy", description="Further arms at the middle of the map"
    )
    radius_m: float = Field(450.0, gt=0, description="Use the antennas within this distance of the core")
    every: int = Field(2, ge=1, description="Use every so-many-th of these antennas")
    study_channels: int = Field(8, ge=4, description="Channels")
    study_dumps: int = Field(24, ge=2, description="Dumps, each a field of its own")
    study_size: int = Field(640, ge=64, description="Image size in pixels")
    study_cell_arcsec: float = Field(20.0, gt=0, description="Pixel size in arcsec")
    study_rounds: int = Field(20, ge=1, le=20, description="Most rounds of unseeded self-calibration")
    study_seed: int = Field(1, ge=0, description="Seed of the first draw; each further one takes the next")
    study_arm_limit_s: float = Field(
        900.0, gt=0, description="An arm that takes longer, in seconds, has hung"
    )
    workers: int = Field(2, ge=1, description="Observations worked on at the same time, one core each")

    @field_validator(
        "phase_errors", "brightest", "amplitude_errors", "flux_errors", "position_errors", "decs"
    )
    @classmethod
    def _list(cls, value: str, info: ValidationInfo) -> str:
        words = [word.strip() for word in value.split(",")]
        for word in words:
            if word == "random" and info.field_name == "phase_errors":
                continue
            try:
                float(word)
            except ValueError:
                raise ValueError("allowed: numbers separated by commas") from None
        if len(set(words)) < len(words):
            raise ValueError("allowed: each value once")
        return ",".join(words)


class PipelineConfig(SelfCalConfig, ImagingConfig):
    """Options of the pipeline, and of the self-calibrations that it makes."""

    # Where the work is done
    workers: int = Field(
        1, ge=1, le=1024, description="Workers, each with one Measurement Set at a time; with slurm, jobs"
    )
    worker_memory_gb: float = Field(
        6.0, gt=0, description="Memory of a worker in GB; one that exceeds it is ended and replaced"
    )
    scheduler: str | None = Field(
        None, description="Address (tls://...) of a running Dask scheduler, whose workers are used instead"
    )
    tls_ca: Path | None = Field(None, description="Certificate authority of that scheduler, PEM")
    tls_cert: Path | None = Field(None, description="This program's certificate for it, PEM")
    tls_key: Path | None = Field(None, description="The key of that certificate, PEM")
    unprotected_scheduler: bool = Field(
        False,
        description="Use a scheduler without TLS: whoever reaches its port can run programs as its user",
    )
    slurm: bool = Field(False, description="Start the workers as Slurm jobs")
    slurm_queue: str | None = Field(None, description="Slurm partition")
    slurm_account: str | None = Field(None, description="Slurm account")
    slurm_walltime: str = Field(
        "24:00:00", pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$", description="Longest time of a Slurm job"
    )
    attempts: int = Field(
        3, ge=1, le=100, description="How often a Measurement Set is tried whose worker dies or hangs"
    )
    job_timeout_s: float = Field(3600.0, gt=0, description="Seconds after which a worker counts as hanging")
    scheduler_wait_s: float = Field(
        600.0, ge=0, description="Seconds to wait for a scheduler or workers that have gone"
    )
    # Seeding, little by little
    rollout: float = Field(
        1.0, ge=0, le=1, description="Fraction of the observations that are seeded, chosen by their names"
    )
    shadow: bool = Field(
        False, description="Seeded results are computed and recorded, unseeded ones published"
    )
    fallback: bool = Field(True, description="Publish the unseeded result where the seeded one is bad")
    max_thermal_ratio: float = Field(3.0, gt=0, description="A noise above this times thermal is bad")
    max_flux_error: float = Field(
        0.1, gt=0, description="A flux ratio further than this fraction from 1 is bad"
    )
    max_offset_arcsec: float = Field(3.0, gt=0, description="A median position offset above this is bad")
    min_solved_fraction: float = Field(
        0.7, ge=0, le=1, description="A smaller fraction of solutions than this is bad"
    )
    min_agreeing_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A smaller fraction of held-out sources, of eight or more, that agree with the catalogue "
        "is bad",
    )
    # Input and products
    caltables: Literal["found", "required", "none"] = Field(
        "found", description="Initial tables by the naming rule: those found, demanded, or none"
    )
    caltable_dir: Path | None = Field(
        None, description="Folder of the initial tables; that of the Measurement Set if not given"
    )
    reimage: bool = Field(
        False, description="Publish a new image of CORRECTED_DATA instead of self-calibration's own"
    )
    # Arrivals
    poll_s: float = Field(10.0, gt=0, description="Seconds between looks into the watched folder")
    settle_s: float = Field(
        60.0, ge=0, description="Seconds for which a new Measurement Set must not have changed"
    )
    marker: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Ending of the file beside a Measurement Set that says it is complete, for example .done",
    )
    give_up_s: float = Field(
        3600.0, gt=0, description="Seconds after which one that neither grows nor can be read counts as bad"
    )
    tonight_h: float = Field(
        24.0,
        ge=0,
        description="What was observed in so many hours comes before what is older; 0: the oldest first",
    )
    retention: str | None = Field(
        None,
        description="What contimg prune removes: VERDICT:WHAT:AGE, separated by commas; the verdict good, "
        "unverified, kept, bad, failed or any; WHAT images (all but the published one) or products (all but "
        "the record); for example any:images:30d,failed:products:90d",
    )
    # State and monitoring
    state_file: Path | None = Field(
        None, description="File of the state of all runs; pipeline.sqlite3 in the output folder if not given"
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which Prometheus finds the metrics"
    )
    metrics_address: str = Field("127.0.0.1", description="Address on which it finds them")
    metrics_file: Path | None = Field(None, description="Text file of the metrics, renewed at every change")
    light_curves: bool = Field(
        True, description="Take what each observation measured into the light curves, beside the state file"
    )
    index_s: float = Field(
        60.0,
        ge=0,
        description="Seconds between renewals of index.html, the page of all observations in the output "
        "folder; 0: none is written",
    )

    @field_validator("retention")
    @classmethod
    def _rules(cls, value: str | None) -> str | None:
        if value is not None:
            parse_retention(value)
        return value

    def selfcal(self) -> SelfCalConfig:
        """Return the options of self-calibration alone."""
        return SelfCalConfig(**{name: getattr(self, name) for name in SelfCalConfig.model_fields})


class SimulationConfig(Settings):
    """Options of the simulator."""

    # The telescope
    ra: float = Field(150.0, ge=0, lt=360, description="Right ascension of the field in degrees")
    dec: float = Field(54.57, ge=-90, le=90, description="Declination of the field in degrees")
    array: str = Field(
        "dsa110",
        description="Array: dsa110, or a text file: lines of name, east, north, up in metres below the lines "
        "'# telescope', '# latitude_deg', '# longitude_deg', '# height_m' and '# dish_m' with their values",
    )
    antennas: int | None = Field(None, ge=3, description="Use only this many antennas, spread over the array")
    autocorrelations: bool = Field(False, description="Write autocorrelations too")
    drift: bool = Field(True, description="Dishes stand still on the meridian instead of tracking the field")
    fields: int = Field(
        24, ge=1, description="Drifting: 1 rephases all to the middle; else a field and scan per dump"
    )
    dumps: int = Field(24, ge=1, description="Dumps")
    dump_s: float = Field(12.884902, gt=0, description="Length of a dump in seconds")
    spws: int = Field(1, ge=1, description="Spectral windows")
    channels: int = Field(16, ge=1, description="Channels of each spectral window")
    low_mhz: float = Field(1311.25, gt=0, description="Lower edge of the band in MHz")
    high_mhz: float = Field(1498.75, gt=0, description="Upper edge of the band in MHz")
    sefd_jy: float = Field(6500.0, ge=0, description="System equivalent flux density in Jy; 0 is noiseless")
    transit: int = Field(
        0, ge=0, description="Which transit of the field is observed, sidereal days after the first"
    )
    differential_aberration: bool = Field(
        False, description="Aberration stretches the field by up to 1e-4, as in nature; imagers leave it out"
    )
    # Gains
    phase_rms: float = Field(30.0, ge=0, description="Antenna phase errors in degrees rms")
    random_phases: bool = Field(False, description="Uniformly random antenna phases instead")
    phase_drift: float = Field(10.0, ge=0, description="Smooth phase drift over the observation, degrees rms")
    amplitude_rms: float = Field(0.1, ge=0, lt=0.5, description="Antenna amplitude errors, fraction rms")
    bandpass_ripple: float = Field(0.0, ge=0, lt=0.5, description="Bandpass ripple, fraction rms")
    delay_rms: float = Field(0.0, ge=0, description="Antenna delays in ns rms")
    gain_jump_deg: float = Field(
        0.0, ge=-180, le=180, description="Phase in degrees by which some antennas jump at one dump each"
    )
    gain_jumps: float = Field(0.3, ge=0, le=1, description="Fraction of antennas that jump")
    # What no gain can follow
    pointing_rms: float = Field(0.0, ge=0, description="Antenna pointing errors in degrees rms and axis")
    beam_scatter: float = Field(0.0, ge=0, lt=0.5, description="Scatter of the beam widths, fraction rms")
    dead: int = Field(0, ge=0, description="Antennas that give noise only")
    bad: int = Field(0, ge=0, description="Antennas with ten times the noise, not told by the weights")
    lost_spws: int = Field(0, ge=0, description="Spectral windows that are flagged altogether")
    rfi: float = Field(0.0, ge=0, le=1, description="Fraction of visibilities with unflagged interference")
    beam_width: float = Field(1.0, ge=0.2, le=5, description="True width of all beams over the nominal one")
    beam: Literal["auto", "airy", "gaussian", "cosine"] = Field(
        "auto", description="True form of the primary beam; auto: that of the telescope"
    )
    beam_ellipticity: float = Field(
        1.0, ge=0.5, le=2, description="Width of all beams from east to west over that from north to south"
    )
    squint_deg: float = Field(
        0.0, description="By how many degrees the first receptor of all antennas points east of the second"
    )
    pointing_drift: float = Field(
        0.0, ge=0, description="Change of pointing errors over the observation in degrees rms and axis"
    )
    dish_m: float | None = Field(
        None, gt=0, description="DISH_DIAMETER in metres that is written in place of the true one"
    )
    dead_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of antennas that give noise only for a part of the time"
    )
    dead_time_fraction: float = Field(0.5, gt=0, le=1, description="That part of the time")
    zeros: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of antennas that write zeros, unflagged, for a part of the time",
    )
    stuck: float = Field(
        0.0, ge=0, le=1, description="Fraction of antennas that repeat one dump for a part of the time"
    )
    zeros_time_fraction: float = Field(
        0.5, gt=0, le=1, description="That part of the time, of zeros and stuck"
    )
    ionosphere_deg: float = Field(
        0.0, ge=0, description="Phase that differs over the beam by antenna, degrees rms within half power"
    )
    refraction_arcsec: float = Field(
        0.0,
        description="Outward shift in arcsec of a source at half power; it grows linearly from the centre",
    )
    refraction_shear_arcsec: float = Field(
        0.0,
        description="The same, but outward north and south of the centre and inward east and west of it",
    )
    noise_spread: float = Field(
        0.0, ge=0, le=2, description="Scatter of log10 of the antennas' noise power, rms"
    )
    weights: Literal["nominal", "true", "one", "wrong"] = Field(
        "nominal",
        description="Weights: of the nominal noise, of the true one, all 1, or by antenna wrong by 0.1 to 10",
    )
    # The sky
    real_sky: bool = Field(False, description="Take the sky from catalogue strips instead of drawing it")
    catalog_dir: Path | None = Field(None, description="Folder of the strips of --real-sky")
    min_mjy: float = Field(2.5, ge=0.01, description="Faintest source of sky and catalogue in mJy")
    brightest_jy: float = Field(2.5, ge=0, description="Flux in Jy of one added bright source; 0 adds none")
    faint_mjy: float = Field(
        0.0, ge=0, description="Faintest source in mJy of a population below the catalogue's limit; 0: none"
    )
    index_scatter: float = Field(0.15, ge=0, description="Scatter of the spectral indices about -0.75")
    doubles: float = Field(0.0, ge=0, le=1, description="Fraction of sources that are doubles in the sky")
    variables: float = Field(0.0, ge=0, le=1, description="Fraction of fluxes changed by up to a factor of 2")
    missing: float = Field(0.0, ge=0, le=1, description="Fraction of sources that the catalogue misses")
    spurious: float = Field(0.0, ge=0, le=1, description="Fraction of catalogue entries not in the sky")
    absent_jy: float = Field(
        0.0, ge=0, description="Apparent flux in Jy of one catalogued source that is not in the sky"
    )
    new_jy: float = Field(0.0, ge=0, description="Apparent flux in Jy of one source not in the catalogue")
    variable_ratio: float = Field(
        1.0, ge=0, description="Flux of one bright source in the sky over that in the catalogue"
    )
    double_jy: float = Field(
        0.0,
        ge=0,
        description="Apparent flux in Jy of one added double that the catalogue lists as one source",
    )
    double_arcsec: float = Field(60.0, gt=0, description="Separation of its two equal components in arcsec")
    catalog_error: Literal["none", "mirror", "mirror-dec", "shift", "rotate", "scale", "other-field"] = Field(
        "none", description="What is wrong with the whole catalogue; mirror: east for west"
    )
    catalog_error_size: float | None = Field(
        None,
        gt=0,
        description="By how much: shift in arcsec (1200), rotate in degrees (0.2), scale a factor (0.5)",
    )
    bright_error: float = Field(
        1.0, gt=0, description="Catalogue flux over the true one of the apparently brightest entries"
    )
    bright_error_n: int = Field(3, ge=1, description="So many of them")
    flux_error: float = Field(0.03, ge=0, lt=0.5, description="Catalogue flux errors, fraction rms")
    position_error: float = Field(0.5, ge=0, description="Catalogue position errors in arcsec rms")
    seed: int = Field(1, ge=0, description="Seed of all random numbers")


@dataclass(frozen=True)
class RetentionRule:
    """What is removed of which products, and when.

    Attributes
    ----------
    verdict : str
        On what is published: good, unverified, kept or bad; failed where nothing is; any.
    what : str
        ``images`` of the self-calibrations, or all ``products`` but the record.
    age_s : float
        Seconds since the run ended.
    """

    verdict: str
    what: str
    age_s: float


def parse_age(text: str) -> float | None:
    """Read an age, 12h or 30d, in seconds; None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", text)
    return float(found[1]) * AGES_S[found[2]] if found else None


def parse_retention(text: str) -> tuple[RetentionRule, ...]:
    """Read rules of retention: "any:images:30d,failed:products:12h".

    Raises
    ------
    ValueError
        If one of them is none.
    """
    rules = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        parts = word.split(":")
        age = parse_age(parts[-1])
        known = len(parts) == 3 and parts[0] in RETAINED_VERDICTS and parts[1] in ("images", "products")
        if age is None or not known:
            raise ValueError(
                f"{word} is no rule; allowed: VERDICT:WHAT:AGE, the verdict {', '.join(RETAINED_VERDICTS)}; "
                "images or products; the age in hours or days, 12h or 30d"
            )
        rules.append(RetentionRule(parts[0], parts[1], age))
    if not rules:
        raise ValueError("no rule is given")
    return tuple(rules)


def parse_threshold(text: str) -> tuple[float, Literal["Jy", "sigma"]]:
    """Read a CLEAN depth with its unit: "0.1mJy" is (0.0001, "Jy"), "5sigma" is (5.0, "sigma").

    Raises
    ------
    ValueError
        If it is not a positive number with one of the units Jy, mJy, uJy and sigma.
    """
    found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-z]+)\s*", text)
    units = {name.lower(): name for name in DEPTH_UNITS}
    try:
        unit = units[found[2].lower()] if found else ""
        value = float(found[1]) * DEPTH_UNITS[unit] if found else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("allowed: a positive number with a unit, for example 0.1mJy, 2e-4Jy or 5sigma")
    return value, "sigma" if unit == "sigma" else "Jy"
