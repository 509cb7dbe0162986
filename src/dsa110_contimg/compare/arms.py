"""The arms of a comparison: what each does differently, which are the same, and running one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsa110_contimg.compare.pristine import pristine_copy
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ConfigError
from dsa110_contimg.files import write_json, write_text
from dsa110_contimg.selfcal.naming import SUMMARY
from dsa110_contimg.settings import PREFIX
from dsa110_contimg.sky import ApparentSky

__all__ = ["BASELINE", "Arm", "Outcome", "parse_arms", "run_arm", "same_sources"]

BASELINE = "baseline_no_nvss"
#: Unseeded self-calibration is given no catalogue to look into: it could not be seeded if it tried.
NO_CATALOG = "no-catalogue-for-the-baseline"
#: What arms with a flux limit do, by the word before it.
KINDS: dict[str, dict[str, Any]] = {
    "nvss": {"use_nvss_seeding": True},
    "masked": {"use_nvss_seeding": True, "catalog_mask": True},
    "mask_only": {"use_nvss_seeding": False, "catalog_mask": True},
    "merged": {"use_nvss_seeding": True, "catalog": "merged"},
}
RECORD = "arm.json"
LOG = "selfcal.log"


@dataclass(frozen=True)
class Arm:
    """One strategy.

    Parameters
    ----------
    name : str
        As in the report.
    options : mapping
        Options of self-calibration that it sets, whatever else is configured.
    """

    name: str
    options: Mapping[str, Any]

    @property
    def seeded(self) -> bool:
        """Whether it starts from the catalogue."""
        return bool(self.options["use_nvss_seeding"])

    @property
    def limit_mjy(self) -> float | None:
        """Faintest catalogue flux in mJy."""
        return self.options.get("nvss_min_mjy")

    def configure(self, config: SelfCalConfig, folder: Path) -> SelfCalConfig:
        """Options of this arm's self-calibration."""
        masked = self.options.get("catalog_mask", config.catalog_mask)
        options = dict(self.options)
        if not masked:
            options["mask_radius_arcsec"] = None
        if not (self.seeded or masked):
            options["catalog_dir"] = folder / NO_CATALOG
        changed = config.with_options(**options)
        return changed if self.seeded else changed.unseeded()


def parse_arms(text: str) -> list[Arm]:
    """Read names of arms separated by commas.

    ``baseline_no_nvss`` is unseeded; ``nvss_10.0mJy`` is seeded with the sources
    of the catalogue above 10 mJy, and so for any other number; ``masked_10.0mJy`` is
    the same and CLEANs around these sources alone; ``mask_only_10.0mJy`` does that
    without a seed; ``merged_10.0mJy`` is seeded with NVSS and FIRST merged.

    Raises
    ------
    ConfigError
        If a name is none of these, or given twice.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    arms = [_arm(name) for name in names]
    if len({a.name for a in arms}) < len(arms) or not arms:
        raise ConfigError("names no arm" if not arms else "names an arm twice", "arms", "give each once")
    return arms


def _arm(name: str) -> Arm:
    if name == BASELINE:
        return Arm(name, {"use_nvss_seeding": False})
    kind, _, number = name.removesuffix("mJy").rpartition("_")
    try:
        limit = float(number)
    except ValueError:
        limit = float("nan")
    if not (kind in KINDS and name.endswith("mJy") and 0 <= limit < float("inf")):
        raise ConfigError(
            f"no arm {name!r}",
            "arms",
            f"allowed: {BASELINE} and {', '.join(KINDS)} with a flux limit, for example nvss_10.0mJy",
        )
    return Arm(name, {**KINDS[kind], "nvss_min_mjy": limit})


def same_sources(
    arm: Arm, model: ApparentSky, other: Arm, other_model: ApparentSky, floor_mjy: float
) -> str | None:
    """Say why two seeded arms are one and the same, or None if they are not.

    Parameters
    ----------
    arm, other : Arm
        Arms.
    model, other_model : ApparentSky
        Catalogue models that they select.
    floor_mjy : float
        Faintest source that the catalogue lists in this field, mJy.
    """
    kinds = [{k: v for k, v in a.options.items() if k != "nvss_min_mjy"} for a in (arm, other)]
    if kinds[0] != kinds[1] or model.sky.name != other_model.sky.name:
        return None
    limits = [a.limit_mjy or 0.0 for a in (arm, other)]
    n = f"the same {len(model)} sources"
    if max(limits) <= floor_mjy:
        return f"{n}: the faintest of the catalogue here has {floor_mjy:.2f} mJy, above both limits"
    return f"{n}: those between the two limits are too faint as seen through the primary beam"


@dataclass(frozen=True)
class Outcome:
    """What became of the self-calibration of an arm.

    Parameters
    ----------
    status : {"completed", "failed", "hung"}
        Whether it came to its end, by its exit status and its summary.
    reason : str
        Why not.
    wall_s : float
        From start to end of the process, seconds.
    summary : dict
        What ``selfcal_summary.json`` holds; empty unless completed.
    """

    status: str
    reason: str
    wall_s: float
    summary: dict[str, Any] = field(default_factory=dict)


def run_arm(
    arm: Arm,
    ms: Path,
    folder: Path,
    config: SelfCalConfig,
    caltables: Sequence[Path],
    *,
    limit_s: float,
    key: str,
    pass_fds: Sequence[int] = (),
) -> Outcome:
    """Self-calibrate a pristine copy in a process of its own.

    Whatever happens to the process, crash of an engine, lack of memory or a hang,
    becomes this arm's outcome and nothing else's.

    Parameters
    ----------
    arm : Arm
        Which.
    ms : Path
        Measurement Set; not touched.
    folder : Path
        Its folder: configuration, log and products.
    config : SelfCalConfig
        Options common to all arms.
    caltables : sequence of Path
        Initial tables.
    limit_s : float
        After so many seconds it has hung.
    key : str
        Of the data, options and version. An arm that was completed under the same
        key before is not run again.
    pass_fds : sequence of int
        Files, a lock's among them, that the process holds open as long as it lives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _completed(folder, key)
    if earlier is not None:
        return earlier
    (folder / RECORD).unlink(missing_ok=True)
    (folder / SUMMARY).unlink(missing_ok=True)
    copy, file = folder / "pristine.ms", folder / "config.toml"
    write_text(file, _toml(arm.configure(config, folder)))
    command = [sys.executable, "-m", "dsa110_contimg", "selfcal", str(copy), str(folder)]
    command += ["--config", str(file)]
    for table in caltables:
        command += ["--caltable", str(table)]
    try:
        pristine_copy(ms, copy)
        outcome = _process(command, folder, limit_s, pass_fds)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    if outcome.status == "completed":
        write_json(folder / RECORD, {"key": key, "wall_s": outcome.wall_s})
    return outcome


def _process(command: list[str], folder: Path, limit_s: float, pass_fds: Sequence[int]) -> Outcome:
    options = {PREFIX + name.upper() for name in SelfCalConfig.model_fields}
    # All options stand in the file, which variables of the environment would override.
    environment = {k: v for k, v in os.environ.items() if k.upper() not in options}
    started = time.perf_counter()
    with (folder / LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, pass_fds=pass_fds
        )
        try:
            returned = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Outcome("hung", f"no end within {limit_s:g} s", time.perf_counter() - started)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wall_s = time.perf_counter() - started
    if returned == 0:
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return Outcome("failed", f"ended well, but without a summary ({error})", wall_s)
        return Outcome("completed", "", wall_s, summary)
    if returned < 0:
        return Outcome("failed", f"killed by {signal.Signals(-returned).name}", wall_s)
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return Outcome("failed", errors[-1] if errors else f"exit status {returned}; see {LOG}", wall_s)


def _completed(folder: Path, key: str) -> Outcome | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return Outcome("completed", "", float(record["wall_s"]), summary)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _toml(config: SelfCalConfig) -> str:
    """Options as TOML; a string of JSON is one of TOML too."""
    values = {k: v for k, v in json.loads(config.model_dump_json()).items() if v is not None}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
