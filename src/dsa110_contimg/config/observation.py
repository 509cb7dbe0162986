"""Options of what is done with one observation: images, the sky, the imager, self-calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dsa110_contimg.config.values import parse_threshold
from dsa110_contimg.settings import Settings

__all__ = [
    "BackendConfig",
    "CatalogName",
    "CleanConfig",
    "ImagingConfig",
    "ObservationConfig",
    "SeedConfig",
    "SelfCalConfig",
]

#: What `contimg container build` makes.
DEFAULT_IMAGE = "contimg-wsclean:bookworm"
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
    antenna_beams: Path | None = Field(
        None,
        description="Text file of antennas with other beams: lines of a name or pattern and a FITS cube, or "
        "a form and diameter as airy:12; baselines see the product of two antennas' beams",
    )
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

    def unseeded(self) -> Self:
        """Return the same options for what starts from no sky: the user's own is for a mask only."""
        own: dict[str, Any] = {"model": None, "model_fluxes": None, "model_adds": False}
        return self if self.catalog_mask else self.with_options(**own)


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
    field: str | None = Field(
        None,
        description="Field name or identifier; all fields of a drift scan, or the only one, if not given",
    )
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

    def unseeded(self) -> Self:
        """Return the same options for an unseeded run, as those of :meth:`ObservationConfig.unseeded`."""
        return super().unseeded().with_options(use_nvss_seeding=False)

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
