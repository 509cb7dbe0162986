"""Options of simulated observations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from dsa110_contimg.settings import Settings

__all__ = ["SimulationConfig"]


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
    dumps: int = Field(24, ge=1, description="Dumps (integrations of the correlator)")
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
    other_dishes: float = Field(
        0.0, ge=0, lt=1, description="Fraction of antennas that are dishes of another kind"
    )
    other_dish_width: float = Field(
        1.25, ge=0.2, le=5, description="Width of the beams of these over the nominal one"
    )
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
    refraction_drift_arcsec: float = Field(
        0.0,
        description="Change of that outward shift from the first to the last dump, at an even pace",
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
