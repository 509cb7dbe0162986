"""What a run left in its folder, as far as it is there and can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.errors import CalTableError, ContimgError
from dsa110_contimg.imaging import FitsImage, read_image
from dsa110_contimg.selfcal.naming import ANTENNAS, POINTING, SOURCES, STAGES, SUMMARY, VERDICT
from dsa110_contimg.visibilities.tables import reading

__all__ = ["AFTER", "BEFORE", "DIFFERENCE", "Array", "RunProducts", "read_products"]

T = TypeVar("T")

BEFORE, AFTER, DIFFERENCE = "initial-image.fits", "final-image.fits", "final-difference.fits"
NOT_THERE = "is not there"


@dataclass(frozen=True, eq=False)
class Array:
    """Antennas as a gain table lists them.

    Attributes
    ----------
    names : list of str
        Their names.
    position_m : ndarray, shape (nant, 3)
        Geocentric positions in metres (ITRF).
    """

    names: list[str]
    position_m: Float


@dataclass(frozen=True, kw_only=True, eq=False)
class RunProducts:
    """Products of a run.

    Attributes
    ----------
    folder : Path
        Where they lie.
    summary : dict
        What ``selfcal_summary.json`` holds; empty if the run has not finished.
    stages : list of dict
        Lines of ``selfcal_stages.jsonl``.
    sources, antennas : astropy.table.Table or None
        ``sources.ecsv`` and ``antennas.ecsv``.
    images : dict of str to FitsImage
        Images that are shown, by file name.
    gain_tables : list of GainTable
        Tables of the run, in its order.
    initial_bandpasses : list of GainTable
        Bandpass tables that the run was given.
    array : Array or None
        Antennas, if a gain table lists them.
    verdict : dict
        What the pipeline made of the run; empty if it was not the pipeline's.
    pointing : astropy.table.Table or None
        ``pointing.ecsv``, where the antennas point off.
    missing : dict of str to str
        Products that the report would show: by name, why they are not to be had.
    """

    folder: Path
    summary: dict[str, Any]
    stages: list[dict[str, Any]]
    sources: Table | None
    antennas: Table | None
    images: dict[str, FitsImage]
    gain_tables: list[GainTable]
    initial_bandpasses: list[GainTable]
    array: Array | None
    verdict: dict[str, Any]
    pointing: Table | None
    missing: dict[str, str]


def read_products(folder: Path) -> RunProducts:
    """Read what lies in the output folder of a run; whatever cannot be read is noted, not raised."""
    missing: dict[str, str] = {}

    def read(name: str, reader: Callable[[Path], T]) -> T | None:
        try:
            return reader(folder / name)
        except Exception as error:
            # Damaged files raise anything; a report says so and shows the rest.
            there = (folder / name).exists()
            missing[name] = _reason(error) if there else NOT_THERE
            return None

    summary = read(SUMMARY, _json_object) or {}
    listed = set(_texts(summary.get("products"))) if summary else None

    def expected(name: str) -> bool:
        return listed is None or name in listed or (folder / name).exists()

    images = {n: i for n in (BEFORE, AFTER, DIFFERENCE) if expected(n) and (i := read(n, read_image))}
    names = _gain_table_names(folder, summary)
    tables = [t for t in (read(n, read_gain_table) for n in names) if t is not None]
    given = _initial_tables(summary)
    bandpasses = [
        t for t in (read(n, read_gain_table) for n in given) if t is not None and t.kind == "B Jones"
    ]
    described = [n for n in (*names, *given) if n not in missing]
    array = next(filter(None, (read(n, _array) for n in described)), None)
    return RunProducts(
        folder=folder,
        summary=summary,
        stages=read(STAGES, _json_lines) or [],
        sources=read(SOURCES, _ecsv) if expected(SOURCES) else None,
        antennas=read(ANTENNAS, _ecsv) if expected(ANTENNAS) else None,
        images=images,
        gain_tables=tables,
        initial_bandpasses=bandpasses,
        array=array,
        pointing=read(POINTING, _ecsv) if (folder / POINTING).exists() else None,
        verdict=(read(VERDICT, _json_object) or {}) if (folder / VERDICT).exists() else {},
        missing=missing,
    )


def _gain_table_names(folder: Path, summary: dict[str, Any]) -> list[str]:
    """Gain tables by the summary, else by what lies there; never a path out of the folder."""
    names = (
        _texts(summary.get("gaintables")) if summary else sorted(p.name for p in folder.glob("selfcal_*cal"))
    )
    return [name for name in names if Path(name).name == name]


def _initial_tables(summary: dict[str, Any]) -> list[str]:
    """Tables that the run was given, by their full paths."""
    provenance = summary.get("provenance")
    given = _texts(provenance.get("initial_caltables")) if isinstance(provenance, dict) else ()
    return [path for path in given if Path(path).is_absolute()]


def _texts(values: Any) -> Iterator[str]:
    """Texts in a list, or among the values of a mapping."""
    found = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return (value for value in found if isinstance(value, str))


def _json_object(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("holds no JSON object")
    return values


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a stage log; a last one that was cut short is left out."""
    lines, found = path.read_text(encoding="utf-8", errors="replace").splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise ValueError(f"line {number} is damaged") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no JSON object")
        found.append(record)
    return found


def _ecsv(path: Path) -> Table:
    return Table.read(path, format="ascii.ecsv")


def _array(path: Path) -> Array:
    with reading(path / "ANTENNA", CalTableError) as table:
        names = [str(name) for name in table.getcol("NAME")]
        return Array(names, np.asarray(table.getcol("POSITION"), dtype=np.float64))


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong with a product that is there."""
    text = error.what if isinstance(error, ContimgError) else str(error)
    text = (text.splitlines() or [type(error).__name__])[0][:200]
    return text if text.startswith("cannot be ") else f"cannot be read ({text})"
