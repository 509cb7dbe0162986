"""One Measurement Set from initial tables to published image: what a worker does.

Each stage leaves a record by which a repeated job goes on where it stopped:
``job.json`` when it begins, ``selfcal_summary.json`` in the folder of each
finished self-calibration, ``record.json`` when all is done.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import shutil
import socket
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsa110_contimg.config import ImagingConfig, PipelineConfig
from dsa110_contimg.errors import (
    CatalogCoverageError,
    ContimgError,
    ResourceError,
    SeedError,
    UnforeseenError,
)
from dsa110_contimg.files import replacing, write_json
from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.pipeline.index_rows import antenna_health
from dsa110_contimg.pipeline.logs import json_log
from dsa110_contimg.pipeline.naming import (
    ARMS,
    EARLIER,
    FAILURE,
    IMAGE,
    JOB,
    LOG,
    RECORD,
    find_caltables,
    real_folder,
)
from dsa110_contimg.pipeline.quality import QualityVerdict, judge, key_figures
from dsa110_contimg.pipeline.rollout import choose_mode
from dsa110_contimg.pipeline.trouble import Trouble, trouble_of
from dsa110_contimg.report import INDEX, try_report
from dsa110_contimg.selfcal.naming import REPORT, SUMMARY, VERDICT
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.visibilities import open_recovered
from dsa110_contimg.visibilities.columns import back_up_columns, restore_columns
from dsa110_contimg.visibilities.data_identity import data_identity
from dsa110_contimg.visibilities.lock import boot_id, lock_beside
from dsa110_contimg.visibilities.tables import require_own_data

__all__ = ["POSTPONED", "Job", "failure_record", "give_up", "process", "read_record", "revert"]

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
#: What a run says that it holds a Measurement Set for; the same run goes on after it.
OWNER = "contimg run"
#: Status of a run that is to be begun again: it is in no state file and in no record.
POSTPONED = "postponed"
COLUMNS = ("MODEL_DATA", "CORRECTED_DATA")
FLAGS = ("FLAG", "FLAG_ROW")
PACKAGES = ("dsa110-contimg", "numpy", "numba", "ducc0", "radler", "python-casacore", "distributed")


@dataclass(frozen=True)
class Job:
    """What a worker is given.

    Attributes
    ----------
    run_id : str
        Identifies this run in logs, state and records; the same when it is resumed.
    name : str
        Name of the observation.
    ms : Path
        Measurement Set.
    folder : Path
        Folder of its products.
    config : PipelineConfig
        Options, settled by the driver: the worker's own environment has no say.
    caltables : tuple of Path, optional
        Initial tables; looked for by the naming rule if None.
    """

    run_id: str
    name: str
    ms: Path
    folder: Path
    config: PipelineConfig
    caltables: tuple[Path, ...] | None = None


def process(job: Job) -> dict[str, Any]:
    """Take one Measurement Set through the pipeline, or on from where it stopped.

    Parameters
    ----------
    job : Job
        What to do.

    Returns
    -------
    dict
        The record, as ``record.json`` holds it; ``status`` is ``done`` or
        ``failed``. Whatever goes wrong with an observation is in its record. Where what
        went wrong is no fault of the observation, ``status`` is ``postponed``, with the
        ``trouble`` and its ``message``, and nothing is recorded.
    """
    started = time.time()
    try:
        real_folder(job.folder)
        # A run that is on record is over, wherever its Measurement Set has gone since.
        done = read_record(job)
        if done is not None:
            return done
        with contextlib.ExitStack() as stack:
            owner = f"{OWNER} {job.run_id}"
            stack.enter_context(lock_beside(job.ms, owner, wait_s=job.config.job_timeout_s))
            done = read_record(job)
            if done is not None:
                return done
            log = json_log(job.folder / LOG, run_id=job.run_id, observation=job.name)
            events = stack.enter_context(log)
            record = _attempt(job, started)
            if record["status"] != POSTPONED:
                record["events"] = dict(events)
                _settle(job.folder, record)
            return record
    except (ContimgError, OSError) as error:
        # No folder or lock of our own, or no disk: there is no place for a record.
        trouble = trouble_of(error)
        return failure_record(job, started, error) if trouble is None else _postponed(job, started, trouble)


def failure_record(job: Job, started: float, error: BaseException) -> dict[str, Any]:
    """Return the record of a run that came to nothing."""
    told = error if isinstance(error, ContimgError) else UnforeseenError.of(error)
    return {
        **_common(job, started),
        "status": "failed",
        "message": str(told),
        "error": type(error).__name__,
        "exit_code": told.exit_code,
        "seconds": {"total": round(time.time() - started, 3)},
    }


def give_up(job: Job, record: dict[str, Any]) -> None:
    """Record in its folder that an observation was given up by the driver; good products come back."""
    try:
        with lock_beside(job.ms, f"{OWNER} {job.run_id}"):
            _settle(job.folder, record)
    except (ContimgError, OSError) as error:
        # The state has the record; its own worker may hang still.
        logger.warning("not recorded in %s: %s", job.folder, error, extra={"event": "not_recorded"})


def _postponed(job: Job, started: float, trouble: Trouble) -> dict[str, Any]:
    """Return what is told of a run that something else than its observation stood in the way of."""
    return {
        **_common(job, started),
        "status": POSTPONED,
        "trouble": trouble.kind,
        "message": trouble.text,
        "seconds": {"total": round(time.time() - started, 3)},
    }


def read_record(job: Job) -> dict[str, Any] | None:
    """Return the record of a run that is done already; None if it is not."""
    for name in (RECORD, FAILURE):
        record = _read_json(job.folder / name)
        if record.get("run_id") == job.run_id:
            return record
    return None


def _settle(folder: Path, record: dict[str, Any]) -> None:
    """Record how a run ended; products of an earlier one make place for better ones, and for nothing else."""
    if record["status"] == "done":
        write_json(folder / RECORD, record)
        (folder / FAILURE).unlink(missing_ok=True)
        # What cannot be removed now is of no run that counts, and goes when the next one begins.
        for stale in folder.glob(f"{EARLIER}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        return
    kept = _kept(folder)
    if kept.is_dir() and _read_json(folder / JOB).get("run_id") == record["run_id"]:
        # Its record has not been touched.
        for arm in ARMS:
            _remove(folder / arm)
    write_json(folder / (FAILURE if _read_json(folder / RECORD).get("status") == "done" else RECORD), record)
    _bring_back(folder)


def _kept(folder: Path) -> Path:
    """Where the products of the run that is on record are while another one is at work."""
    return folder / f"{EARLIER}.{_read_json(folder / RECORD).get('run_id')}"


def _bring_back(folder: Path) -> None:
    """Put the products of an earlier run back into their places, or what is left of them to put back."""
    kept = _kept(folder)
    if not kept.is_dir():
        return
    for arm in ARMS:
        if (kept / arm).is_dir() and not (folder / arm).exists():
            (kept / arm).rename(folder / arm)
    if (kept / IMAGE).is_file():
        (kept / IMAGE).replace(folder / IMAGE)
    shutil.rmtree(kept)


def _remove(folder: Path) -> None:
    """Remove a folder of ours; one that leads elsewhere is refused."""
    if folder.is_symlink() or folder.exists():
        shutil.rmtree(real_folder(folder))


def revert(ms: Path) -> list[str]:
    """Put columns and flags of a Measurement Set back to what the first run found.

    Returns
    -------
    list of str
        The columns restored; empty if nothing had been changed.
    """
    with lock_beside(ms, "contimg revert"):
        require_own_data(ms)
        return restore_columns(open_recovered(ms))


def _attempt(job: Job, started: float) -> dict[str, Any]:
    logger.info("begins: %s", job.ms, extra={"event": "begin", "pid": os.getpid()})
    there = job.ms.exists()
    try:
        record = _Work(job, started).execute()
    except Exception as error:
        # An engine may raise anything; it fails this observation and no other.
        trouble = trouble_of(error)
        if trouble is None and there and not job.ms.exists():
            what = error.what if isinstance(error, ContimgError) else f"{type(error).__name__}: {error}"
            said = f"{job.ms} went away while it was worked on ({what}): is the disk mounted?"
            trouble = Trouble("arrivals", " ".join(said.split()))
        if trouble is None and not isinstance(error, ContimgError):
            logger.exception("internal error")
        record = failure_record(job, started, error) if trouble is None else _postponed(job, started, trouble)
    logger.info("ends: %s", record["message"], extra={"event": "end", "status": record["status"]})
    return record


class _Work:
    """The stages of one job."""

    def __init__(self, job: Job, started: float) -> None:
        self.job = job
        self.started = started
        self.config = job.config
        self.arms: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.touched = self._begin()

    def _begin(self) -> bool:
        """Note that the run begins; return whether the pipeline was here before."""
        folder = self.job.folder
        before = _read_json(folder / JOB)
        if before.get("run_id") != self.job.run_id:
            self._set_aside(before)
        here = {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot_id(), "started": self.started}
        tables = self.job.caltables and [str(t) for t in self.job.caltables]
        given = {"run_id": self.job.run_id, "ms": str(self.job.ms), "caltables": tables}
        write_json(folder / JOB, given | here)
        return bool(before)

    def _set_aside(self, before: dict[str, Any]) -> None:
        """Keep what an earlier run made until this one has made it anew, and do not take it for that."""
        folder, done = self.job.folder, _read_json(self.job.folder / RECORD)
        failed, kept = _read_json(folder / FAILURE), _kept(folder)
        for stale in folder.glob(f"{EARLIER}.*"):
            if stale != kept:
                _remove(stale)
        if before.get("run_id") == failed.get("run_id", ""):
            _bring_back(folder)
        # Otherwise what lies there is of a run that came to no end, and the earlier one's is kept already.
        keep = done.get("status") == "done" and before.get("run_id") in (done["run_id"], failed.get("run_id"))
        if keep:
            real_folder(kept)
            if (folder / IMAGE).is_file() and not (kept / IMAGE).exists():
                with replacing(kept / IMAGE) as temporary:
                    shutil.copyfile(folder / IMAGE, temporary)
        for arm in ARMS:
            if keep and (folder / arm).is_dir() and not (kept / arm).exists():
                real_folder(folder / arm).rename(kept / arm)
            _remove(folder / arm)

    def execute(self) -> dict[str, Any]:
        job, config = self.job, self.config
        # Before anything is put back in it.
        require_own_data(job.ms)
        rule = find_caltables(job.ms, config.caltable_dir, config.caltables) if job.caltables is None else ()
        self.identity = data_identity(job.ms)
        self.tables = job.caltables if job.caltables is not None else rule
        self.mode = mode = choose_mode(job.name, config)
        published, fallback = "unseeded", None
        if mode != "unseeded":
            fallback = self._seeded_arm()
            if mode == "seeded" and (fallback is None or not config.fallback):
                published, fallback = "seeded", None
        if mode == "shadow":
            fallback = None
        if published == "unseeded":
            if fallback:
                logger.warning("falls back to unseeded: %s", fallback, extra={"event": "fallback"})
            self._arm("unseeded", fallback)
        arm = self.arms[published]
        image = self._publish(published, arm["selfcal_status"])
        self.seconds["total"] = time.time() - self.started
        return {
            **_common(job, self.started),
            "status": "done",
            "message": arm["message"],
            "exit_code": 0,
            "mode": mode,
            "published": published,
            "seeded": published == "seeded",
            "fallback": fallback,
            "quality": arm["quality"],
            "reasons": arm["reasons"],
            "figures": arm["figures"],
            "arms": self.arms,
            "image": str(image),
            "data_identity": self.identity,
            "caltables": [str(t) for t in self.tables],
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
        }

    def _seeded_arm(self) -> str | None:
        """Run the seeded self-calibration; return what speaks against it."""
        try:
            arm = self._arm("seeded")
        except (CatalogCoverageError, SeedError) as error:
            # Of this field alone; a catalogue that is away concerns all.
            self.arms["seeded"] = {"selfcal_status": "failed", "quality": "bad", "message": str(error)}
            if not self.config.fallback and not self.config.shadow:
                raise
            return str(error)
        return "; ".join(arm["reasons"]) if arm["quality"] == "bad" else None

    def _arm(self, name: str, fallback: str | None = None) -> dict[str, Any]:
        """Self-calibrate with or without seed, unless that is done already, and judge the outcome.

        With `fallback`, what spoke against the seeded arm, this is the unseeded one in its place.
        """
        job, folder = self.job, self.job.folder / name
        summary = _read_json(folder / SUMMARY)
        if not summary:
            if self.touched:
                # What an earlier run or arm wrote is no starting point.
                restore_columns(open_recovered(job.ms), COLUMNS)
            options = self.config.selfcal()
            options = options.with_options(use_nvss_seeding=True) if name == "seeded" else options.unseeded()
            self.touched = True
            tables, out = list(self.tables), real_folder(folder)
            summary = selfcal_ms(job.ms, out, options, tables, identity=self.identity).summary
        verdict: QualityVerdict = judge(summary, self.config)
        self._report(folder, name, verdict, fallback)
        if summary["status"] == "improved":
            # Self-calibration never writes flags, but others may once the calibration is good.
            back_up_columns(open_recovered(job.ms), FLAGS)
        for stage, value in summary["seconds"].items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value
        self.arms[name] = {
            "selfcal_status": summary["status"],
            "message": summary["message"],
            "quality": verdict.quality,
            "reasons": list(verdict.reasons),
            "figures": key_figures(summary),
            "n_seeds": summary["n_seeds"],
            "antennas": antenna_health(folder),
        }
        logger.info("%s: %s, %s", name, summary["message"], verdict.quality, extra={"event": f"{name}_done"})
        return self.arms[name]

    def _report(self, folder: Path, name: str, verdict: QualityVerdict, fallback: str | None) -> None:
        """Leave the verdict beside the run, and the page that shows it; also where that was killed before."""
        bad = verdict.quality == "bad" and self.config.fallback
        told = {
            "quality": verdict.quality,
            "reasons": list(verdict.reasons),
            "published": name == "unseeded" or (self.mode == "seeded" and not bad),
            "fallback": fallback,
        }
        if (folder / REPORT).is_file() and _read_json(folder / VERDICT) == told:
            return
        write_json(folder / VERDICT, told)
        try_report(folder, self.job.folder.parent / INDEX if self.config.index_s else None)

    def _publish(self, arm: str, selfcal_status: str) -> Path:
        """Put the final image into place, complete or not at all."""
        started = time.perf_counter()
        source = self._final_image(self.job.folder / arm, selfcal_status)
        target = self.job.folder / IMAGE
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        self.seconds["publish"] = time.perf_counter() - started
        return target

    def _final_image(self, folder: Path, selfcal_status: str) -> Path:
        """Return the image to publish; another imaging backend than the embedded one goes through here.

        Where the input was kept CORRECTED_DATA is not of this run, and only
        self-calibration's own image shows the data under the initial tables.
        """
        if not self.config.reimage or selfcal_status != "improved":
            return folder / "final-image.fits"
        shared = {k: getattr(self.config, k) for k in ImagingConfig.model_fields}
        field, spw = self.config.field, self.config.spw
        made = image_ms(
            self.job.ms,
            folder / "published",
            ImagingConfig(**shared).unseeded(),
            field=field,
            spw=spw,
            column="CORRECTED_DATA",
        )
        return made.image


def _common(job: Job, started: float) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": job.run_id,
        "observation": job.name,
        "ms": str(job.ms),
        "started": started,
        "finished": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
        "config": json.loads(job.config.model_dump_json()),
    }


def _read_json(file: Path) -> dict[str, Any]:
    """Return what a record holds; an empty one if it is not there."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot be read ({error})", file, "move it away") from None
    return values if isinstance(values, dict) else {}
