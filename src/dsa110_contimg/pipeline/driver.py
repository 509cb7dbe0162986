"""The loop that hands observations to workers and writes down what comes of them."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker

from dsa110_contimg.catalogs import require_strips
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import (
    ContimgError,
    EngineError,
    InputError,
    ResourceError,
    StorageError,
)
from dsa110_contimg.pipeline.arrivals import Arrivals
from dsa110_contimg.pipeline.cluster import end_stale_clusters, local_threads, open_cluster
from dsa110_contimg.pipeline.index_page import PageWriter
from dsa110_contimg.pipeline.job import POSTPONED, Job, failure_record, give_up, process, read_record
from dsa110_contimg.pipeline.lightcurve_updates import LightCurveWriter, database_of
from dsa110_contimg.pipeline.logs import json_log
from dsa110_contimg.pipeline.metrics import Metrics
from dsa110_contimg.pipeline.naming import JOB, check_name, claim, observed_at, real_folder
from dsa110_contimg.pipeline.observation import Observation
from dsa110_contimg.pipeline.pauses import Pauses
from dsa110_contimg.pipeline.quality import headline
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.trouble import Trouble, catalogue_trouble, seeds
from dsa110_contimg.visibilities.lock import lock_beside
from dsa110_contimg.visibilities.tables import require_outside_tables

__all__ = ["DRIVER_LOG", "Driver"]

logger = logging.getLogger(__name__)

DRIVER_LOG = "pipeline.jsonl"
#: The loop looks around at least this often, seconds.
TICK_S = 1.0
#: Seconds between attempts to find a scheduler again.
RECONNECT_S = 2.0
#: So often an observation is taken up after the driver was killed before that counts against it.
MOST_RESUMED = 10
#: Seconds to wait for a record to come from a worker.
GATHER_S = 30.0
#: Seconds between attempts to write a state whose disk is away.
STATE_S = 10.0


@dataclass
class _Task:
    """An observation in the hands of a worker."""

    observation: Observation
    job: Job
    since: float
    hangs: bool = False


class Driver:
    """Work off the queue of a state file, and what arrives in a watched folder.

    Parameters
    ----------
    state : State
        The run state; one driver at a time uses it.
    outdir : Path
        Folder of all products.
    config : PipelineConfig
        Options.
    watched : Path, optional
        Folder in which new Measurement Sets arrive; without it the driver ends
        when the queue is empty.
    caltables : tuple of Path, optional
        Initial tables of all that is added; found by the naming rule if None.
    """

    def __init__(
        self,
        state: State,
        outdir: Path,
        config: PipelineConfig,
        watched: Path | None = None,
        caltables: tuple[Path, ...] | None = None,
    ) -> None:
        self.state = state
        require_outside_tables(outdir)
        self.outdir = real_folder(outdir.absolute())
        claim(self.outdir, state.path)
        if not any(state.counts().values()) and next(self.outdir.glob(f"*/{JOB}"), None) is not None:
            raise ResourceError(
                f"holds products, of which {state.path} knows nothing",
                self.outdir,
                f"contimg state rebuild {outdir} --state-file {state.path}, or name the right --state-file",
            )
        # Workers elsewhere have another working directory.
        tables = config.caltable_dir and config.caltable_dir.absolute()
        self.config = config.with_options(
            threads=local_threads(config),
            catalog_dir=config.catalog_dir.absolute(),
            model=config.model and config.model.absolute(),
            beam_file=config.beam_file and config.beam_file.absolute(),
            antenna_beams=config.antenna_beams and config.antenna_beams.absolute(),
            pointing_file=config.pointing_file and config.pointing_file.absolute(),
            caltable_dir=tables,
        )
        self.caltables = caltables
        folders = {"state": state.path.parent, "products": self.outdir}
        if watched:
            folders["arrivals"] = watched
        self.metrics = Metrics(state.path, config, folders)
        self.arrivals = Arrivals(watched, config, self._is_known, self._refuse) if watched else None
        self.finished = 0
        self._busy_s = 0.0
        self._slots = 0
        self._tasks: dict[Future, _Task] = {}
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._next_scan = 0.0
        self._folder_away = ""
        self._alive_at = time.monotonic()
        self.pauses = Pauses(state, self.metrics)
        self.page = PageWriter(state.path, self.outdir, config)
        self.curves = LightCurveWriter(database_of(state.path), config.light_curves)
        self._postponed: dict[int, float] = {}
        self._proved_since = -1.0

    def add(self, ms: Path, priority: int = 0) -> bool:
        """Queue a Measurement Set; one known already stays as it is, and False comes back.

        Raises
        ------
        MeasurementSetError
            If its name cannot be that of an observation.
        """
        path = ms.resolve()
        return self.state.add(
            check_name(path), path, self.outdir, observed_at(path), self.caltables, priority
        )

    def run(self) -> None:
        """Work until the queue is empty; for ever, if a folder is watched.

        Raises
        ------
        ResourceError
            If another driver uses the state file.
        EngineError
            If scheduler or workers have gone and do not come back.
        CatalogError
            If there is no catalogue to seed from at the start; a service waits for it.
        """
        if self.arrivals is None and self._left() and seeds(self.config):
            require_strips(self.config.catalog, self.config.catalog_dir)
        with (
            lock_beside(self.state.path, f"contimg run or watch into {self.outdir}"),
            json_log(self.outdir / DRIVER_LOG, rotate=True),
            self.metrics.serve(),
            self.page.kept_current(),
        ):
            self.state.go_on()
            self._find_moved()
            end_stale_clusters(self.outdir)
            self._recover()
            # What a driver that was killed had finished, and not taken in.
            self.curves.catch_up(self.state)
            try:
                self._run()
            finally:
                if self.arrivals:
                    self.arrivals.close()
                self._put_back()
                self.metrics.write_file()

    def _run(self) -> None:
        connected = False
        while self._left() or self.arrivals:
            self.metrics.loop.set_to_current_time()
            try:
                with open_cluster(self.config, self.outdir) as client:
                    connected, self._alive_at = True, time.monotonic()
                    if self._work(client):
                        return
            except EngineError:
                if not connected or self._forsaken():
                    raise
            except StorageError as error:
                # The state itself cannot be written: a service waits for the disk, and takes up what ran.
                if self.arrivals is None:
                    raise
                self._wait_for_state(error)
            time.sleep(RECONNECT_S)

    def _put_back(self) -> None:
        """Queue again what is in the hands of workers, at the end; what they have finished is over."""
        try:
            for o in self.state.observations("running"):
                record = self._recorded(self._job(o))
                if record is None:
                    self.state.requeue(o, "interrupted", "the driver was ended", blameless=True)
                else:
                    self.state.finish(o, record)
                    self.curves.finished(o, record)
            self.state.go_on()
        except ResourceError as error:
            # The next start finds them running, and takes them up.
            logger.error("not put back: %s", error, extra={"event": "state_away"})
        self._tasks.clear()

    def _wait_for_state(self, error: StorageError) -> None:
        """Wait until the state can be written, then queue again what ran; nothing else is done meanwhile."""
        logger.error("waits until that is over: %s", error, extra={"event": "state_away"})
        self._tasks.clear()
        self.metrics.paused.labels("state").set(1)
        while True:
            time.sleep(STATE_S)
            self.metrics.loop.set_to_current_time()
            try:
                self.state.note("state_back")
                self._recover()
            except StorageError:
                continue
            self.metrics.paused.labels("state").set(0)
            logger.warning("goes on: the state can be written", extra={"event": "state_back"})
            return

    def _work(self, client: Client) -> bool:
        """Work until nothing is left (True) or the scheduler has gone (False)."""
        while True:
            self.metrics.loop.set_to_current_time()
            self._look_for_arrivals()
            if not self._fill(client):
                return False
            if not self._tasks and not self._left() and not self.arrivals:
                return True
            self._collect(client)
            self._end_hanging(client)

    def _left(self) -> int:
        counts = self.state.counts()
        return counts["queued"] + counts["running"]

    def _forsaken(self) -> bool:
        return time.monotonic() - self._alive_at > self.config.scheduler_wait_s

    # Observations in

    def _recover(self) -> None:
        """Queue again what a driver that was killed left running."""
        for o in self.state.observations("running"):
            # Killed with the machine it is blameless; one over which the driver dies every time is not.
            blameless = self.state.happened(o, "resumed") < MOST_RESUMED
            self._again(o, self._job(o), "resumed", "the driver was killed", blameless=blameless)

    def _find_moved(self) -> None:
        """Know products by their place now, where the whole output folder was moved."""
        elsewhere = [o for o in self.state.moved_folders(self.outdir) if not o.folder.parent.exists()]
        here = {o.folder.parent for o in elsewhere if (self.outdir / o.folder.name / JOB).is_file()}
        moved = [o for o in elsewhere if o.folder.parent in here]
        if moved:
            self.state.relocate(moved, self.outdir)
            where = moved[0].folder.parent
            logger.warning(
                "%d observations had their products in %s", len(moved), where, extra={"event": "folder_moved"}
            )

    def _is_known(self, ms: Path) -> bool:
        return self.state.known(ms) is not None

    def _refuse(self, ms: Path, why: str) -> None:
        self.state.note("refused", f"{str(ms)!a}: {why}")
        logger.warning("refused %a: %s", str(ms), why, extra={"event": "refused"})

    def _look_for_arrivals(self) -> None:
        if self.arrivals is None or time.monotonic() < self._next_scan:
            return
        for ms in self.arrivals.scan():
            if self.add(ms):
                logger.info("arrived: %s", ms, extra={"event": "arrived", "observation": check_name(ms)})
                self.page.changed()
        self._tell_of_arrivals(self.arrivals)
        self._look_for_catalogue()
        self.metrics.write_file()
        self._next_scan = time.monotonic() + self.config.poll_s

    def _look_for_catalogue(self) -> None:
        """Say that the catalogue has gone before anything arrives that needs it, and that it is back."""
        trouble = catalogue_trouble(self.config)
        if trouble is not None or self.pauses.kind == "catalogue":
            self.pauses.see(trouble)

    def _tell_of_arrivals(self, arrivals: Arrivals) -> None:
        """Note when the watched folder has gone or come back, and what does not answer."""
        if arrivals.away != self._folder_away:
            self._folder_away = arrivals.away
            what = "watch_failed" if arrivals.away else "watch_back"
            self.state.note(what, f"{arrivals.folder}: {arrivals.away or 'is there again'}")
        self.metrics.paused.labels("arrivals").set(bool(arrivals.away) or self.pauses.kind == "arrivals")
        self.metrics.arriving.set(arrivals.waiting)
        self.metrics.hung.set(len(arrivals.hung))

    # Work out

    def _fill(self, client: Client) -> bool:
        """Give every idle worker the observation that is next; False if the scheduler has gone."""
        try:
            self._slots = sum(client.nthreads().values())
        except (OSError, RuntimeError, TimeoutError):
            self._slots = 0
            if client.status != "running":
                return False
        self.metrics.workers.set(self._slots)
        if self._slots:
            self._alive_at = time.monotonic()
        elif self._left() and self._forsaken():
            raise EngineError(
                f"no worker for {self.config.scheduler_wait_s:.0f} s",
                "Dask",
                "start workers; the state is kept",
            )
        while len(self._tasks) < self._slots:
            last = next(reversed(self._postponed), None) if self.pauses.kind else None
            recent = time.time() - 3600.0 * self.config.tonight_h
            observation = self.state.next_queued(last, recent)
            if observation is None or self._held(observation):
                break
            self.pauses.tried()
            if self._has_moved(observation) or not self.state.start(observation):
                # It is looked for anew: moved, renamed or forgotten meanwhile.
                continue
            job = self._job(observation)
            key = f"{observation.name}-{observation.run_id}-{observation.attempts + 1}-{time.time_ns()}"
            future = client.submit(process, job, key=key, pure=False)
            self._tasks[future] = _Task(observation, job, time.monotonic())
            future.add_done_callback(self._ended.put)
            self.page.changed()
            logger.info(
                "given to a worker: %s",
                observation.ms,
                extra={"event": "started", "run_id": observation.run_id, "observation": observation.name},
            )
        return True

    def _held(self, following: Observation) -> bool:
        """Whether nothing may be begun now: something is away, or the last attempt met full disks."""
        self.pauses.see(catalogue_trouble(self.config) or self._arrivals_trouble(following))
        return self.pauses.holds(busy=bool(self._tasks))

    def _has_moved(self, o: Observation) -> bool:
        """Whether what is queued has moved with the folder of arrivals; it is known by its new place then."""
        if self.arrivals is None or o.ms.exists():
            return False
        there = self.arrivals.folder / o.ms.name
        if there == o.ms or not there.is_dir():
            return False
        self.add(there)
        known = self.state.known(there)
        return known is not None and known.id == o.id

    def _arrivals_trouble(self, following: Observation) -> Trouble | None:
        """Look whether the folder of arrivals has gone, as when its disk is not mounted.

        Then what is queued is not there, which is no fault of it.
        """
        if self.arrivals is None or following.ms.exists():
            return None
        for folder in {self.arrivals.folder, following.ms.parent}:
            with contextlib.suppress(OSError):
                if any(path.name.endswith(".ms") for path in folder.iterdir()):
                    return None
        what = f"{following.ms} is not there, and nothing else in its folder: is the disk mounted?"
        return Trouble("arrivals", f"{what} If it was removed, contimg forget {following.ms}")

    def _postpone(self, task: _Task, record: dict[str, Any]) -> None:
        """Queue again what met trouble that is not its own; what alone meets it twice has failed."""
        o, trouble = task.observation, Trouble(record["trouble"], record["message"])
        before = self._postponed.get(o.id)
        if before is not None and before < self._proved_since:
            error = ResourceError(
                trouble.text, remedy="others begun since met nothing like it; contimg retry once it is mended"
            )
            failed = failure_record(task.job, record["started"], error)
            give_up(task.job, failed)
            self._finish(task, failed)
            return
        self._postponed.setdefault(o.id, time.monotonic())
        self.state.requeue(o, POSTPONED, trouble.text, blameless=True)
        self.pauses.meet(trouble)

    def _job(self, o: Observation) -> Job:
        return Job(o.run_id, o.name, o.ms, o.folder, self.config, o.caltables)

    def _collect(self, client: Client) -> None:
        """Wait a moment for tasks to end, give their workers new ones, then write down what came of them."""
        found = [(future, self._tasks.pop(future, None)) for future in self._ended_tasks()]
        if found and self.pauses.kind is None:
            self._fill(client)
        for future, task in found:
            if task is not None:
                self._settle(future, task)

    def _settle(self, future: Future, task: _Task) -> None:
        """Write down how a task ended."""
        status = future.status
        if status == "finished":
            self._take(task, future)
        elif task.hangs:
            self._again(
                task.observation, task.job, "worker_hung", f"no end after {self.config.job_timeout_s:g} s"
            )
        elif status == "cancelled":
            why = "the scheduler has gone"
            self.state.requeue(task.observation, "scheduler_lost", why, blameless=True)
            fields = {"event": "scheduler_lost", "observation": task.observation.name}
            logger.warning(why, extra=fields)
        else:
            error = future.exception()
            died = isinstance(error, KilledWorker)
            why = "its worker died" if died else f"{type(error).__name__}: {error}"
            self._again(task.observation, task.job, "worker_lost", why)

    def _take(self, task: _Task, future: Future) -> None:
        """Take the record that a worker has returned."""
        try:
            record = future.result(timeout=GATHER_S)
        except (OSError, TimeoutError, CancelledError, KilledWorker) as error:
            # The worker has gone after its work: the next one finds the record on disk.
            why = f"the record was lost on its way ({type(error).__name__})"
            self.state.requeue(task.observation, "record_lost", why, blameless=True)
            return
        if record["status"] == POSTPONED:
            self._postpone(task, record)
            return
        self._finish(task, record)
        if record["status"] == "done":
            # Of what was begun before there was any trouble it proves nothing.
            self._proved_since = max(self._proved_since, task.since)
            self.pauses.went_through(task.since)

    def _ended_tasks(self) -> Iterator[Future]:
        with contextlib.suppress(queue.Empty):
            yield self._ended.get(timeout=TICK_S)
            while True:
                yield self._ended.get_nowait()

    def _finish(self, task: _Task, record: dict[str, Any]) -> None:
        o = task.observation
        self.state.finish(o, record)
        self.curves.finished(o, record)
        self._postponed.pop(o.id, None)
        self.finished += 1
        self._busy_s += time.monotonic() - task.since
        fields = {"event": "finished", "run_id": o.run_id, "observation": o.name, "status": record["status"]}
        fields |= {"quality": record.get("quality"), "fallback": record.get("fallback")}
        text = f"{record['status']}: {headline(record)} ({self._standing()})"
        logger.log(logging.INFO if record["status"] == "done" else logging.WARNING, text, extra=fields)
        self.metrics.write_file()
        self.page.changed()

    def _again(self, o: Observation, job: Job, event: str, why: str, *, blameless: bool = False) -> None:
        """Queue an observation again, or give it up when it has cost too many workers."""
        fields = {"event": event, "run_id": o.run_id, "observation": o.name}
        logger.warning(why, extra=fields)
        self.page.changed()
        record = self._recorded(job)
        if record is not None:
            # The work was done before whatever happened.
            self.state.note(event, why, o)
            self.state.finish(o, record)
            self.curves.finished(o, record)
            return
        attempts = self.state.find(o.ms).attempts
        if blameless or attempts < self.config.attempts:
            self.state.requeue(o, event, why, blameless=blameless)
            return
        self.state.note(event, why, o)
        error = EngineError(
            f"{why}, {attempts} times", o.ms, f"see {job.folder}; memory is limited by worker_memory_gb"
        )
        record = failure_record(job, time.time(), error)
        give_up(job, record)
        self.state.finish(o, record)
        self.finished += 1

    def _recorded(self, job: Job) -> dict[str, Any] | None:
        """Return what a worker has left on record; what is wrong with it the next attempt will say."""
        try:
            return read_record(job)
        except ResourceError:
            return None

    def _end_hanging(self, client: Client) -> None:
        for future, task in list(self._tasks.items()):
            if task.hangs or time.monotonic() - task.since < self.config.job_timeout_s:
                continue
            try:
                where = [address for address, keys in client.processing().items() if future.key in keys]
                task.hangs = True
                client.cancel([future], force=True)
                if where:
                    client.restart_workers(where, raise_for_error=False)
            except (OSError, TimeoutError, ValueError) as error:
                # The scheduler has gone too, or a worker has no nanny that could restart it.
                logger.warning("a hanging worker could not be restarted: %s", error)

    def _standing(self) -> str:
        """Say how far the batch is, and when it will end."""
        counts = self.state.counts()
        left = counts["queued"] + counts["running"]
        seconds = left * self._busy_s / self.finished / max(self._slots, 1)
        total = sum(counts.values())
        return f"{total - left} of {total}, {counts['failed']} failed, about {_duration(seconds)} left"


def raise_for_failures(
    state: State, observations: list[Observation], refused: Sequence[InputError] = ()
) -> None:
    """Raise the gravest of what failed, in one line; what was `refused` for its name counts with it.

    Raises
    ------
    InputError or EngineError
        If any of the observations failed or was refused.
    """
    failed = [o for o in observations if o.status == "failed"]
    if not failed:
        if refused:
            raise refused[0]
        return
    codes = [(state.record(o) or {}).get("exit_code", InputError.exit_code) for o in failed]
    kind: type[ContimgError] = EngineError if EngineError.exit_code in codes else InputError
    raise kind(
        f"{len(failed) + len(refused)} of {len(observations) + len(refused)} failed, the first "
        f"{failed[0].name}: {failed[0].message}",
        state.path,
        "see contimg status; mend them and contimg retry",
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
