"""One comparison from Measurement Set to report."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dsa110_contimg import __version__
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.arms import Arm, Outcome, parse_arms, run_arm, same_sources
from dsa110_contimg.compare.common_images import CommonImages, Judge
from dsa110_contimg.compare.page import try_page
from dsa110_contimg.compare.pristine import Snapshot
from dsa110_contimg.compare.report import RESULTS, write_report
from dsa110_contimg.compare.verdict import judge_comparison
from dsa110_contimg.config import ComparisonConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ContimgError, ResourceError
from dsa110_contimg.files import write_json
from dsa110_contimg.progress import LogProgress, Progress
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate
from dsa110_contimg.sky import ApparentSky

__all__ = ["Comparison", "compare_strategies", "compile_all", "folder_lock"]

SCHEMA_VERSION = 1
#: Options that the arms set.
OF_THE_ARMS = ("use_nvss_seeding", "nvss_min_mjy")
LOCK = ".comparison.lock"


@dataclass(frozen=True)
class Comparison:
    """Outcome of :func:`compare_strategies`.

    Attributes
    ----------
    results : dict
        What ``comparison_results.json`` holds.
    output_dir : Path
        Where report, figure and a folder for each arm lie.
    """

    results: dict[str, Any]
    output_dir: Path

    @property
    def recommended(self) -> str | None:
        """Name of the recommended arm."""
        name: str | None = self.results["verdict"]["recommended"]
        return name


def compare_strategies(
    ms_path: Path | str,
    output_dir: Path | str,
    config: SelfCalConfig | None = None,
    comparison: ComparisonConfig | None = None,
    initial_caltables: Sequence[Path | str] = (),
    *,
    progress: Progress | None = None,
    wait: bool = False,
    warm: bool = False,
    references: Mapping[str, list[GainTable]] | None = None,
) -> Comparison:
    """Self-calibrate the same data in several ways and judge the results alike.

    The arms run one after the other, each in a process of its own on a pristine
    copy; a failed one keeps its place in the report. Arms that select the same
    sources run once. The same call again takes over the arms that were completed.

    Parameters
    ----------
    ms_path : Path or str
        Measurement Set; it is only read.
    output_dir : Path or str
        Folder for everything.
    config : SelfCalConfig, optional
        Options common to all arms.
    comparison : ComparisonConfig, optional
        Which arms, and how long each may take.
    initial_caltables : sequence of Path or str
        Initial tables.
    progress : Progress, optional
        Where progress is reported.
    wait : bool
        Wait for another comparison in the same folder instead of refusing.
    warm : bool
        Whether everything has been compiled already, so that no arm's time is
        that of a compiler.
    references : mapping of str to list of GainTable, optional
        Gains to image the data with besides, the true ones of a simulation for example.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If something handed in cannot be used, or the data are changed meanwhile.
    """
    ms, out, tables = Path(ms_path), Path(output_dir), [Path(t) for t in initial_caltables]
    config, comparison = config or SelfCalConfig(), comparison or ComparisonConfig()
    arms, progress = parse_arms(comparison.arms), progress or LogProgress()
    judge = Judge(ms, out, config, tables, progress)
    with folder_lock(out, wait) as lock:
        if not warm:
            compile_all(progress)
        (out / RESULTS).unlink(missing_ok=True)
        snapshot = Snapshot(ms)
        runs = _Runs(judge, arms, config, comparison, tables, snapshot, out, progress, lock.fileno())
        entries = runs.execute()
        snapshot.require_unchanged()
        common = _images(judge, entries, references or {}, out, progress)
        results = _results(judge, entries, common, ms, snapshot, comparison)
        write_report(out, results, common, judge.grid)
        try_page(out, results, common, judge.grid)
        write_json(out / RESULTS, results)
    return Comparison(results, out)


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool) -> Iterator[IO[str]]:
    """Hold a folder for one comparison; the lock goes with the last process that holds it.

    Raises
    ------
    ResourceError
        If another one holds it and `wait` is not set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot be made ({error.strerror})", folder, "choose another folder") from None
    with (folder / LOCK).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise ResourceError(
                "another comparison or study works in this folder",
                folder,
                "wait for it or choose another folder",
            ) from None
        yield lock


def compile_all(progress: Progress) -> None:
    """Self-calibrate a tiny simulation both ways: compiled kernels are kept on disk for later processes."""
    progress.note("compiling, where that has not been done before")
    with tempfile.TemporaryDirectory(prefix="contimg-compare-") as name:
        folder = Path(name)
        # Constructed: variables of the environment are for the arms.
        tiny = SimulationConfig.model_construct(antennas=8, channels=4, dumps=2, min_mjy=50.0)
        simulate(folder / "t.ms", tiny)
        build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
        for seeded in (True, False):
            config = SelfCalConfig.model_construct(
                catalog_dir=folder / "c", size=128, use_nvss_seeding=seeded
            )
            selfcal_ms(folder / "t.ms", folder / "out", config)


class _Runs:
    """The arms of one comparison, in sequence."""

    def __init__(
        self,
        judge: Judge,
        arms: Sequence[Arm],
        config: SelfCalConfig,
        comparison: ComparisonConfig,
        caltables: Sequence[Path],
        snapshot: Snapshot,
        out: Path,
        progress: Progress,
        lock: int,
    ) -> None:
        self.judge, self.arms, self.config, self.comparison = judge, arms, config, comparison
        self.caltables, self.snapshot, self.out = caltables, snapshot, out
        self.progress, self.lock = progress, lock

    def execute(self) -> list[dict[str, Any]]:
        """Run what has to be run; one entry of the report for each arm."""
        floor_mjy = 1e3 * self.judge.faintest_jy
        entries: list[dict[str, Any]] = []
        models: dict[str, ApparentSky] = {}
        for number, arm in enumerate(self.arms, 1):
            self.progress.note(f"arm {number} of {len(self.arms)}: {arm.name}")
            entry = _entry(arm, self.comparison.arm_limit_s)
            entries.append(entry)
            if arm.seeded:
                try:
                    catalog = arm.options.get("catalog")
                    model = self.judge.catalog_model(arm.limit_mjy or 0.0, catalog=catalog)
                except ContimgError as error:
                    entry |= {"status": "failed", "reason": str(error)}
                    continue
                entry |= {"n_seeds": len(model), "seed_flux_jy": float(model.apparent_jy.sum())}
                twin = self._twin(arm, model, models, floor_mjy)
                models[arm.name] = model
                if twin is not None:
                    entry |= {"status": "identical", "identical_to": twin[0], "reason": twin[1]}
                    self.progress.note(f"{arm.name} is {twin[0]}: {twin[1]}")
                    continue
            outcome = run_arm(
                arm,
                self.judge.params.ms.path,
                self.out / arm.name,
                self.config,
                self.caltables,
                limit_s=self.comparison.arm_limit_s,
                key=self._key(arm, models.get(arm.name, self.judge.reference)),
                pass_fds=[self.lock],
            )
            self.snapshot.require_unchanged()
            _fill(entry, outcome)
            self.progress.note(
                f"{arm.name} {outcome.status} after {outcome.wall_s:.1f} s: "
                f"{entry['reason'] or entry['message']}"
            )
        return entries

    def _twin(
        self, arm: Arm, model: ApparentSky, models: dict[str, ApparentSky], floor_mjy: float
    ) -> tuple[str, str] | None:
        for other in self.arms:
            if other.name not in models:
                continue
            reason = same_sources(arm, model, other, models[other.name], floor_mjy)
            if reason:
                return other.name, reason
        return None

    def _key(self, arm: Arm, listed: ApparentSky) -> str:
        values = {
            "version": __version__,
            "data": self.snapshot.hash,
            "tables": [f"{t}: {Snapshot(t).hash}" for t in self.caltables],
            "config": json.loads(arm.configure(self.config, self.out).model_dump_json()),
            "catalog": listed.catalog_hash,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _entry(arm: Arm, limit_s: float) -> dict[str, Any]:
    return {
        "name": arm.name,
        "seeded": arm.seeded,
        "limit_mjy": arm.limit_mjy,
        "limit_s": limit_s,
        "status": "",
        "reason": "",
        "identical_to": None,
        "run_status": None,
        "message": "",
        "n_seeds": 0,
        "seed_flux_jy": 0.0,
        "figures": None,
        "iterations": None,
        "best_iteration": None,
        "model": None,
        "solved_fraction": None,
        "chi2_heldout": None,
        "seconds": None,
        "wall_s": None,
    }


def _fill(entry: dict[str, Any], outcome: Outcome) -> None:
    entry |= {"status": outcome.status, "reason": outcome.reason, "wall_s": round(outcome.wall_s, 3)}
    summary = outcome.summary
    if not summary:
        return
    if summary["seeded"] is not entry["seeded"] or (summary["n_seeds"] != entry["n_seeds"]):
        entry |= {
            "status": "failed",
            "reason": f"was to use {entry['n_seeds']} seeds, its summary says {summary['n_seeds']}",
        }
        return
    rounds = summary["iterations"]
    best = rounds[summary["best_iteration"] - 1] if summary["best_iteration"] else None
    entry |= {
        "run_status": summary["status"],
        "message": summary["message"],
        "iterations": len(rounds),
        "best_iteration": summary["best_iteration"],
        "model": sorted({r["model"] for r in rounds}),
        "solved_fraction": best["solved_fraction"] if best else None,
        "chi2_heldout": best["chi2_heldout"] if best else None,
        "seconds": summary["seconds"],
        "summary": summary,
    }


def _images(
    judge: Judge,
    entries: list[dict[str, Any]],
    references: Mapping[str, list[GainTable]],
    out: Path,
    progress: Progress,
) -> CommonImages | None:
    """Image all arms alike, and put the figures into their entries."""
    done = {e["name"]: e.pop("summary") for e in entries if e["status"] == "completed"}
    common = None
    if done:
        progress.note(f"imaging {len(done)} arms alike")
        common = judge.compare({name: out / name for name in done}, done, references)
        for entry in entries:
            entry["figures"] = common.arms.get(entry["name"])
            if entry["name"] in common.failed:
                entry |= {"status": "failed", "reason": common.failed[entry["name"]]}
    by_name = {e["name"]: e for e in entries}
    for entry in entries:
        if entry["identical_to"] is not None:
            twin = by_name[entry["identical_to"]]
            own = ("name", "limit_mjy", "status", "reason", "identical_to")
            entry |= {k: v for k, v in twin.items() if k not in own}
            if twin["status"] != "completed":
                entry |= {"status": twin["status"], "reason": f"as {twin['name']}: {twin['reason']}"}
    return common


def _results(
    judge: Judge,
    entries: list[dict[str, Any]],
    common: CommonImages | None,
    ms: Path,
    snapshot: Snapshot,
    comparison: ComparisonConfig,
) -> dict[str, Any]:
    for entry in entries:
        entry["improvement_factor"] = _improvement(entry, common)
    return {
        "schema_version": SCHEMA_VERSION,
        "ms": str(ms.absolute()),
        "field": judge.params.reader.field_name,
        "files_hash_before": snapshot.hash,
        "files_hash_after": Snapshot(ms).hash,
        "n_dumps": int(judge.params.reader.times.size),
        "n_fields": len(judge.params.reader.selection.field_ids),
        "n_antennas": len(judge.params.ms.antennas),
        "n_channels": judge.data.n_channels,
        "image": {"size": judge.grid.size, "cell_arcsec": round(judge.grid.cell_rad * 206264.80625, 4)},
        "catalog_faintest_mjy": 1e3 * judge.faintest_jy,
        "before": common.before if common else None,
        "references": common.references if common else {},
        "sources": common.sources if common else [],
        "depth_jy": common.depth_jy if common else None,
        "region_fraction": common.region_fraction if common else None,
        "region_beams": common.region_beams if common else None,
        "flagged_fraction": common.flagged_fraction if common else None,
        "arms": entries,
        "beam_arcsec": common.beam_arcsec if common else None,
        "verdict": judge_comparison(
            entries,
            common.before if common else None,
            common.region_beams if common else 0.0,
            common.beam_arcsec if common else 0.0,
        ),
        "config": json.loads(judge.config.model_dump_json(exclude=set(OF_THE_ARMS))),
        "version": __version__,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _improvement(entry: dict[str, Any], common: CommonImages | None) -> float | None:
    """Signal to noise over that of the data as found, at the same depth."""
    if common is None or entry["figures"] is None:
        return None
    after, before = entry["figures"]["shallow"]["snr"], common.before["snr"]
    return after / before if after and before else None
