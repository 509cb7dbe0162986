"""What the page of all observations says of each: from its record, or from the products of a run."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.pipeline.naming import ARMS, EARLIER, FAILURE, JOB, RECORD, observed_at
from dsa110_contimg.pipeline.quality import headline, judge, key_figures
from dsa110_contimg.report import IndexRow, Limits
from dsa110_contimg.selfcal.antenna_report import read_antenna_health
from dsa110_contimg.selfcal.naming import ANTENNAS, REPORT, STAGES, SUMMARY

__all__ = [
    "Published",
    "antenna_health",
    "in_short",
    "limits_of",
    "link_to",
    "published_of",
    "rows_below",
]

logger = logging.getLogger(__name__)

#: Figures that the page shows.
FIGURES = ("thermal_ratio", "flux_ratio", "offset_arcsec", "snr_gain")
#: What is said of an observation is cut at so many letters: its own page has the rest.
LONGEST = 300


@dataclass(frozen=True)
class Published:
    """What the record of a run says of what it published.

    Attributes
    ----------
    arm : str
        Folder of the self-calibration that was published.
    finished : float
        When the run ended, Unix time in seconds.
    limits : Limits or None
        By which it was judged; None where that is not on record.
    fields : dict
        Fields of :class:`IndexRow`.
    """

    arm: str
    finished: float
    limits: Limits | None
    fields: dict[str, Any]


def antenna_health(folder: Path) -> dict[str, list[str]]:
    """Read the antennas of a self-calibration by verdict; empty where it has no report of them.

    Parameters
    ----------
    folder : Path
        Its output folder. A report that cannot be read is a warning.
    """
    try:
        return read_antenna_health(folder / ANTENNAS)
    except FileNotFoundError:
        # Of a run that was refused there is none.
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read (%s): its antennas are left out", folder / ANTENNAS, error)
        return {}


def limits_of(config: Mapping[str, Any]) -> Limits:
    """Return the limits of options of the pipeline, as they are on record or in force."""
    return Limits(config["max_thermal_ratio"], config["max_flux_error"], config["max_offset_arcsec"])


def published_of(record: Mapping[str, Any], folder: Path) -> Published:
    """Return what a record says of what is published; of antennas, where it says nothing, the product does.

    Parameters
    ----------
    record : mapping
        Record of a run that is done.
    folder : Path
        Folder of the observation.
    """
    arm = str(record.get("published") or ("seeded" if record.get("seeded") else "unseeded"))
    of_arm = record.get("arms", {}).get(arm, {})
    antennas = of_arm.get("antennas")
    if antennas is None:
        antennas = antenna_health(folder / arm)
    config, figures = record.get("config", {}), record.get("figures", {})
    fields = {name: figures.get(name) for name in FIGURES} | {
        "status": of_arm.get("selfcal_status", "done"),
        "verdict": record.get("quality", ""),
        "seeded": bool(record.get("seeded")),
        "version": record.get("versions", {}).get("dsa110-contimg", ""),
        "seconds": record.get("seconds", {}).get("total"),
        # The same names in every record: kept once.
        "antennas": {sys.intern(v): tuple(map(sys.intern, names)) for v, names in antennas.items()},
    }
    known = {"max_thermal_ratio", "max_flux_error", "max_offset_arcsec"} <= set(config)
    return Published(arm, float(record["finished"]), limits_of(config) if known else None, fields)


def in_short(text: str) -> str:
    """Cut what is said of an observation to what a row can hold, in one line."""
    return textwrap.shorten(text, LONGEST, placeholder=" \u2026")


def link_to(page: Path, folder: Path) -> str:
    """Return the way from a page in a folder to another page, quoted; empty if that is not there."""
    return "./" + quote(os.path.relpath(page, folder)) if page.is_file() else ""


def rows_below(folder: Path, config: PipelineConfig, known: set[Path]) -> Iterator[IndexRow]:
    """Find all runs in a folder and below, whoever made them.

    Parameters
    ----------
    folder : Path
        Where to look; resolved.
    config : PipelineConfig
        The limits by which runs are judged that no pipeline has judged.
    known : set of Path
        Folders of observations that are on the page already.

    Yields
    ------
    IndexRow
        For each observation of a pipeline, and each self-calibration that was made by itself.
    """

    def unreadable(error: OSError) -> None:
        logger.warning("%s: cannot be read (%s): what is in it is left out", error.filename, error.strerror)

    for root, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(root)
        if here in known or "table.dat" in names:
            folders.clear()
            continue
        if (JOB in names and any((here / arm).is_dir() for arm in ARMS)) or RECORD in names:
            folders.clear()
            yield _recorded(here, folder)
            continue
        folders[:] = sorted(n for n in folders if not n.startswith((".", f"{EARLIER}.")))
        if SUMMARY in names:
            yield _finished(here, folder, config)
        elif STAGES in names:
            yield _unfinished(here, folder)


def _recorded(here: Path, folder: Path) -> IndexRow:
    """Return the row of an observation of a pipeline whose state is not at hand."""
    try:
        job = json.loads((here / JOB).read_text("utf-8")) if (here / JOB).is_file() else {}
        found = [json.loads((here / n).read_text("utf-8")) for n in (RECORD, FAILURE) if (here / n).is_file()]
        found.sort(key=lambda record: float(record["finished"]))
        done = next((record for record in reversed(found) if record["status"] == "done"), None)
        published = None if done is None else published_of(done, here)
        fields: dict[str, Any] = {} if published is None else dict(published.fields)
        if not found:
            fields |= {"status": "unfinished"}
        elif found[-1]["status"] != "done":
            fields |= {"status": found[-1]["status"]}
        ms = Path(str((found[-1] if found else job)["ms"]))
        return IndexRow(
            name=here.name,
            link="" if published is None else link_to(here / published.arm / REPORT, folder),
            observed_at=observed_at(ms) if ms.exists() else _time_of(ms.name),
            ended_at=float(found[-1]["finished"]) if found else None,
            why=in_short(headline(found[-1])) if found else "",
            **fields,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return _unreadable(here, folder, error)


def _finished(here: Path, folder: Path, config: PipelineConfig) -> IndexRow:
    """Return the row of a self-calibration that was made by itself."""
    try:
        summary = json.loads((here / SUMMARY).read_text("utf-8"))
        verdict, figures = judge(summary, config), key_figures(summary)
        provenance = summary.get("provenance", {})
        ms = Path(str(provenance.get("ms", "")))
        return IndexRow(
            name=_name(here, folder, ms),
            link=link_to(here / REPORT, folder),
            observed_at=observed_at(ms) if ms.is_dir() else _time_of(ms.name),
            ended_at=_last_stage(here)[0],
            status=summary["status"],
            verdict=verdict.quality,
            seeded=summary["seeded"],
            version=provenance.get("version", ""),
            seconds=summary["seconds"].get("total"),
            why=in_short("; ".join([*verdict.reasons, summary["message"]])),
            antennas=antenna_health(here),
            **{name: figures[name] for name in FIGURES},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return _unreadable(here, folder, error)


def _unfinished(here: Path, folder: Path) -> IndexRow:
    """Return the row of a self-calibration that runs still, failed or was killed."""
    ended, error = _last_stage(here)
    return IndexRow(
        name=_name(here, folder, Path(here.name)),
        link=link_to(here / REPORT, folder),
        observed_at=_time_of(here.name),
        ended_at=ended,
        status="failed" if error else "unfinished",
        why=in_short(error),
    )


def _unreadable(here: Path, folder: Path, error: Exception) -> IndexRow:
    told = in_short(f"cannot be read ({type(error).__name__}: {error})")
    return IndexRow(
        name=_name(here, folder, Path(here.name)),
        status="unreadable",
        why=told,
    )


def _name(here: Path, folder: Path, ms: Path) -> str:
    """Name a run by its Measurement Set, and by its folder where that is called otherwise."""
    stem, where = ms.name.removesuffix(".ms"), os.path.relpath(here, folder)
    where = here.name if where == "." else where
    if not stem:
        return where
    return stem if stem == here.name else f"{stem} ({where})"


def _time_of(name: str) -> float | None:
    """Return when an observation began by its name as the telescope gives it; None if it says nothing."""
    try:
        return datetime.strptime(name.removesuffix(".ms") + "+0000", "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return None


def _last_stage(here: Path) -> tuple[float | None, str]:
    """Return when the last stage on record ended, Unix time, and its error."""
    try:
        last = json.loads((here / STAGES).read_text("utf-8").splitlines()[-1])
        begun = datetime.fromisoformat(last["start"]).timestamp()
        return begun + float(last["seconds"]), str(last.get("error") or "")
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        # A line that was cut short by a kill says nothing of an end.
        return None, ""
