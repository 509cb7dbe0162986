"""Options: one typed class per job, fed by flags, environment, file and defaults, in that order.

Every field's description is the help text of its flag; its environment variable is ``CONTIMG_`` and the name
in capitals; its key in a TOML file is the name itself.
"""

from __future__ import annotations

from dsa110_contimg.config.comparison import ComparisonConfig, StudyConfig
from dsa110_contimg.config.observation import (
    DEFAULT_IMAGE,
    BackendConfig,
    CatalogName,
    CleanConfig,
    ImagingConfig,
    ObservationConfig,
    SeedConfig,
    SelfCalConfig,
)
from dsa110_contimg.config.pipeline import PipelineConfig
from dsa110_contimg.config.simulation import SimulationConfig
from dsa110_contimg.config.values import VERDICTS, RetentionRule, parse_age, parse_retention, parse_threshold
from dsa110_contimg.settings import Settings

__all__ = [
    "DEFAULT_IMAGE",
    "VERDICTS",
    "BackendConfig",
    "CatalogName",
    "CleanConfig",
    "ComparisonConfig",
    "ImagingConfig",
    "ObservationConfig",
    "PipelineConfig",
    "RetentionRule",
    "SeedConfig",
    "SelfCalConfig",
    "Settings",
    "SimulationConfig",
    "StudyConfig",
    "parse_age",
    "parse_retention",
    "parse_threshold",
]
