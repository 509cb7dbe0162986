"""Options of a pipeline of many observations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from dsa110_contimg.config.observation import ImagingConfig, SelfCalConfig
from dsa110_contimg.config.values import parse_retention

__all__ = ["PipelineConfig"]


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
