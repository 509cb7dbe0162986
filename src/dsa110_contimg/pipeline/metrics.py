"""Metrics for Prometheus, over HTTP and as a text file.

Counters and distributions are worked out from the state file at every scrape, so
that they survive restarts.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import logging
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dsa110_contimg import __version__
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.files import write_text
from dsa110_contimg.pipeline.naming import DUMPS_S
from dsa110_contimg.pipeline.state import State

__all__ = ["DiskCollector", "Metrics", "StateCollector"]

logger = logging.getLogger(__name__)

#: Figures of the published result: metric, meaning, upper ends of the bins.
FIGURES: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "snr_gain": (
        "contimg_snr_gain",
        "Signal to noise after over before",
        (0.9, 1, 1.1, 1.5, 2, 3, 5, 10, 30),
    ),
    "thermal_ratio": (
        "contimg_thermal_ratio",
        "Image noise over thermal noise",
        (1.05, 1.1, 1.15, 1.3, 1.5, 2, 3, 5, 10, 40),
    ),
    "flux_ratio": (
        "contimg_flux_ratio",
        "Image flux over catalogue flux, median of an observation",
        (0.5, 0.8, 0.9, 0.95, 0.97, 1, 1.03, 1.05, 1.1, 1.2, 2),
    ),
    "offset_arcsec": (
        "contimg_position_offset_arcsec",
        "Median offset of an observation from the catalogue",
        (0.1, 0.3, 0.5, 1, 2, 3, 5, 10, 30),
    ),
    "solved_fraction": (
        "contimg_solved_fraction",
        "Fraction of gain solutions that were found",
        (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
    ),
    "recovered_fraction": (
        "contimg_recovered_fraction",
        "Flux of held-out sources over catalogue flux",
        (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 2),
    ),
    "agreeing_fraction": (
        "contimg_agreeing_fraction",
        "Fraction of held-out sources that agree with the catalogue",
        (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1),
    ),
    "new_sources": (
        "contimg_new_sources",
        "New sources in an observation",
        (0, 1, 2, 3, 5, 10, 20, 50, 100),
    ),
}
#: Labels of `contimg_runs` that alerts ask for: status, seeded, verdict.
ALARMING = [("failed", "false", "none")]
ALARMING += [("done", seeded, quality) for seeded in ("true", "false") for quality in ("bad", "unverified")]
STAGE_BINS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)
#: What happened, as kept in the history, and logged by engines in a run.
EVENTS = {
    "worker_lost": ("contimg_workers_lost", "Workers that died over an observation"),
    "worker_hung": ("contimg_workers_hung", "Workers ended because they hung"),
    "scheduler_lost": ("contimg_tasks_lost", "Tasks put back because the scheduler had gone"),
    "resumed": ("contimg_resumed", "Observations taken up after the driver was killed"),
    "retry": ("contimg_retries", "Observations queued again by hand"),
    "reverted": ("contimg_reverts", "Measurement Sets put back by hand"),
    "pruned": ("contimg_prunes", "Observations of which products were removed for their age"),
    "refused": (
        "contimg_names_refused",
        "Arrivals refused for their names, their links, or tables that refer to others",
    ),
}


class StateCollector(Collector):
    """Read the metrics from a state file; each finished run is read once.

    Parameters
    ----------
    path : Path
        The state file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._last = 0
        # What calls somebody begins at zero: a counter that begins at one is no increase.
        self._runs: Counter[tuple[str, str, str]] = Counter(dict.fromkeys(ALARMING, 0))
        self._modes: Counter[str] = Counter()
        self._fallbacks = self._restarts = 0
        self._finished = 0.0
        self._figures = {key: _Histograms(bins) for key, (_, _, bins) in FIGURES.items()}
        self._stages = _Histograms(STAGE_BINS)

    def collect(self) -> Iterable[Metric]:
        """Yield all metric families."""
        with self._lock, State(self.path, create=False) as state:
            for number, record in state.records(after=self._last):
                self._add(record)
                self._last = number
            yield from _queue(state)
            events = state.event_counts()
            yield from self._families()
        for event, (name, meaning) in EVENTS.items():
            yield CounterMetricFamily(name, meaning, value=events.get(event, 0))

    def _add(self, record: dict[str, Any]) -> None:
        seeded = str(record.get("seeded", False)).lower()
        self._runs[record["status"], seeded, record.get("quality", "none")] += 1
        self._finished = max(self._finished, record["finished"])
        self._restarts += record.get("events", {}).get("container_restart", 0)
        for stage, seconds in record["seconds"].items():
            self._stages.add(stage, seconds)
        if record["status"] != "done":
            return
        self._modes[record["mode"]] += 1
        self._fallbacks += record["fallback"] is not None
        for arm, outcome in record["arms"].items():
            for key, value in outcome.get("figures", {}).items():
                if key in FIGURES and value is not None:
                    self._figures[key].add(arm, value)

    def _families(self) -> Iterator[Metric]:
        labels = ["status", "seeded", "quality"]
        runs = CounterMetricFamily("contimg_runs", "Finished runs by what was published", labels=labels)
        for values, n in sorted(self._runs.items()):
            runs.add_metric(list(values), n)
        yield runs
        modes = CounterMetricFamily(
            "contimg_runs_by_mode", "Runs done by mode of the rollout", labels=["mode"]
        )
        for mode, n in sorted(self._modes.items()):
            modes.add_metric([mode], n)
        yield modes
        meaning = "Bad seeded results replaced by unseeded ones"
        yield CounterMetricFamily("contimg_fallbacks", meaning, value=self._fallbacks)
        meaning = "Restarts of imaging containers"
        yield CounterMetricFamily("contimg_container_restarts", meaning, value=self._restarts)
        meaning = "When a run ended last, Unix time"
        yield GaugeMetricFamily("contimg_last_finished_timestamp_seconds", meaning, value=self._finished)
        for key, (name, meaning, _) in FIGURES.items():
            yield self._figures[key].family(name, meaning, "arm")
        yield self._stages.family("contimg_stage_seconds", "Seconds of a run by stage", "stage")


class DiskCollector(Collector):
    """Tell the size and free space of disks.

    Parameters
    ----------
    folders : mapping of str to Path
        A folder on each, by what it holds.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)

    def collect(self) -> Iterable[Metric]:
        """Yield both families; of a disk that is away there is neither."""
        size = GaugeMetricFamily("contimg_disk_bytes", "Size of the disk", labels=["holds"])
        free = GaugeMetricFamily("contimg_disk_free_bytes", "Free space on the disk", labels=["holds"])
        for holds, folder in self.folders.items():
            with contextlib.suppress(OSError):
                found = shutil.disk_usage(folder)
                size.add_metric([holds], found.total)
                free.add_metric([holds], found.free)
        yield size
        yield free


class _Histograms:
    """Distributions of one figure, by a label."""

    def __init__(self, bins: tuple[float, ...]) -> None:
        self.bins = bins
        self.counts: dict[str, list[int]] = {}
        self.sums: defaultdict[str, float] = defaultdict(float)

    def add(self, label: str, value: float) -> None:
        counts = self.counts.setdefault(label, [0] * (len(self.bins) + 1))
        counts[bisect.bisect_left(self.bins, value)] += 1
        self.sums[label] += value

    def family(self, name: str, meaning: str, label: str) -> Metric:
        family = HistogramMetricFamily(name, meaning, labels=[label])
        ends = [f"{b:g}" for b in self.bins] + ["+Inf"]
        for value, counts in sorted(self.counts.items()):
            cumulative = itertools.accumulate(counts)
            family.add_metric(
                [value], [(e, float(n)) for e, n in zip(ends, cumulative, strict=True)], self.sums[value]
            )
        return family


def _queue(state: State) -> Iterator[Metric]:
    counts = state.counts()
    family = GaugeMetricFamily("contimg_observations", "Observations by status", labels=["status"])
    for status, n in counts.items():
        family.add_metric([status], n)
    yield family
    yield GaugeMetricFamily(
        "contimg_queue_length", "Observations that wait for a worker", value=counts["queued"]
    )
    yield GaugeMetricFamily(
        "contimg_last_queued_timestamp_seconds",
        "When an observation was queued last, Unix time",
        value=state.last_queued_at(),
    )
    unfinished = state.observations("queued", "running")
    lag = time.time() - (unfinished[0].observed_at + DUMPS_S) if unfinished else 0.0
    yield GaugeMetricFamily(
        "contimg_lag_seconds",
        "Time since the end of the oldest observation that is not done",
        value=max(lag, 0.0),
    )


class Metrics:
    """The metrics of a driver.

    Parameters
    ----------
    path : Path
        The state file.
    config : PipelineConfig
        Port, address and text file.
    folders : mapping of str to Path
        Folders on whose disks there must be room, by what they hold.
    """

    def __init__(self, path: Path, config: PipelineConfig, folders: Mapping[str, Path]) -> None:
        self.config = config
        self.registry = CollectorRegistry()
        self.registry.register(StateCollector(path))
        self.registry.register(DiskCollector(folders))
        self.arriving = Gauge(
            "contimg_arriving", "Measurement Sets seen but not complete", registry=self.registry
        )
        self.hung = Gauge(
            "contimg_arrivals_hung", "Arrivals that do not answer when they are read", registry=self.registry
        )
        self.loop = Gauge(
            "contimg_loop_timestamp_seconds",
            "When the driver looked around last, Unix time",
            registry=self.registry,
        )
        self.workers = Gauge("contimg_workers", "Workers that are there", registry=self.registry)
        self.paused = Gauge(
            "contimg_paused",
            "1 while nothing is begun or taken, as catalogue, disk, state or folder of arrivals is away",
            ["trouble"],
            registry=self.registry,
        )
        for trouble in ("catalogue", "storage", "state", "arrivals"):
            self.paused.labels(trouble).set(0)
        build = Gauge("contimg_build_info", "The version that runs", ["version"], registry=self.registry)
        build.labels(__version__).set(1)

    @contextlib.contextmanager
    def serve(self) -> Iterator[None]:
        """Serve them over HTTP while the driver runs, if a port is given."""
        if self.config.metrics_port is None:
            yield
            return
        where = f"{self.config.metrics_address}:{self.config.metrics_port}"
        try:
            server, thread = start_http_server(
                self.config.metrics_port, self.config.metrics_address, self.registry
            )
        except OSError as error:
            raise ResourceError(
                f"no metrics can be served ({error.strerror})", where, "choose another --metrics-port"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def write_file(self) -> None:
        """Renew the text file, if one is asked for."""
        if self.config.metrics_file is not None:
            try:
                self.config.metrics_file.parent.mkdir(parents=True, exist_ok=True)
                write_text(self.config.metrics_file, generate_latest(self.registry).decode())
            except OSError as error:
                logger.warning("%s cannot be written: %s", self.config.metrics_file, error.strerror)
