"""Options of comparisons of seeding strategies, and of studies of many."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from dsa110_contimg.settings import Settings

__all__ = ["ComparisonConfig", "StudyConfig"]


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
