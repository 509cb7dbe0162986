"""Models of the sky as tables: CSV and ECSV with a component a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import SkyModelError
from dsa110_contimg.sky.component_list import ListedComponent
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["COLUMNS", "is_table", "read_csv_model", "read_ecsv_model"]

#: Columns of a table, and the units in which they are; without all but the first three it can do.
COLUMNS = {
    "ra_deg": "deg",
    "dec_deg": "deg",
    "flux_jy": "Jy",
    "flux_mjy": "mJy",
    "spectral_index": "",
    "spectral_curvature": "",
    "reference_freq_mhz": "MHz",
    "major_arcsec": "arcsec",
    "minor_arcsec": "arcsec",
    "pa_deg": "deg",
}
#: Frequency of fluxes where nothing is said of it, in MHz: that of NVSS.
USUAL_MHZ = 1400.0


def is_table(line: str) -> bool:
    """Say whether a line names the columns of such a table."""
    names = [word.strip().strip('"').lower() for word in line.lstrip("#").split(",")]
    return "ra_deg" in names and "dec_deg" in names


def read_csv_model(path: Path, lines: Sequence[str], spectral_index: float) -> list[ListedComponent]:
    """Read a CSV whose first line names the columns.

    Parameters
    ----------
    path : Path
        The file, for what is said of it.
    lines : sequence of str
        Its lines.
    spectral_index : float
        Index of components for which none is given.

    Returns
    -------
    list of ListedComponent

    Raises
    ------
    SkyModelError
        If something cannot be read; it names line and column.
    """
    start = next(k for k, line in enumerate(lines) if is_table(line))
    names = [word.strip().lower() for word in next(csv.reader([lines[start].lstrip("#")]))]
    _require_columns(path, names)
    columns: dict[str, list[float]] = {name: [] for name in names if name in COLUMNS}
    labels: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if not line.strip() or line.startswith("#"):
            continue
        values = [word.strip() for word in next(csv.reader([line]))]
        if len(values) != len(names):
            where = f"{path}, line {number}"
            raise SkyModelError(
                f"has {len(values)} values for {len(names)} columns", where, "correct the line"
            )
        row = dict(zip(names, values, strict=True))
        for name, column in columns.items():
            column.append(_number(path, number, name, row[name]))
        labels.append(row.get("name") or f"m{len(labels)}")
        numbers.append(number)
    return _components(path, labels, {k: np.array(v) for k, v in columns.items()}, numbers, spectral_index)


def read_ecsv_model(path: Path, spectral_index: float) -> tuple[list[ListedComponent], str | None]:
    """Read an ECSV; columns with units are converted.

    Parameters
    ----------
    path : Path
        File.
    spectral_index : float
        Index of components for which none is given.

    Returns
    -------
    components : list of ListedComponent
    fluxes : str or None
        What the metadata say under ``fluxes``: true or apparent.

    Raises
    ------
    SkyModelError
        If something cannot be read.
    """
    from astropy import units
    from astropy.table import Table

    try:
        table = Table.read(path, format="ascii.ecsv")
    except MemoryError:
        raise
    except Exception as error:  # the reader raises a dozen kinds; each means that the text does not fit
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SkyModelError(
            f"is not a proper ECSV: {line}", path, "write it anew, for example with astropy"
        ) from error
    names = [name.lower() for name in table.colnames]
    _require_columns(path, names)
    for name in ("curvature", "is_linear", "is_apparent"):
        if name in names:
            raise SkyModelError(
                "holds spectra of more terms, or fluxes through the beam, which a list does not carry",
                f"{path}, column {name}",
                "give selfcal-seed.txt of the same run",
            )
    columns = {}
    for original, name in zip(table.colnames, names, strict=True):
        if name not in COLUMNS:
            continue
        column = table[original]
        try:
            values = np.asarray(np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan))
            if getattr(column, "unit", None) not in (None, units.dimensionless_unscaled) and COLUMNS[name]:
                values = np.asarray((values * column.unit).to_value(units.Unit(COLUMNS[name])))
        except (TypeError, ValueError) as error:
            wanted = COLUMNS[name] or "plain numbers"
            raise SkyModelError(f"{error}", f"{path}, column {name}", f"give {wanted}") from error
        columns[name] = values
    if "reference_freq_mhz" not in columns and "reference_freq_hz" in table.meta:
        columns["reference_freq_mhz"] = np.full(len(table), float(table.meta["reference_freq_hz"]) / 1e6)
    named = table.colnames[names.index("name")] if "name" in names else None
    labels = [str(x) for x in table[named]] if named else [f"m{k}" for k in range(len(table))]
    rows = list(range(1, len(table) + 1))
    said = table.meta.get("fluxes")
    return _components(path, labels, columns, rows, spectral_index, "row"), None if said is None else str(
        said
    )


def _require_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in ("ra_deg", "dec_deg") if name not in names]
    if not {"flux_jy", "flux_mjy"} & set(names):
        missing.append("flux_jy")
    if missing:
        raise SkyModelError(f"has no column {missing[0]}", path, f"columns: name, {', '.join(COLUMNS)}")
    if {"flux_jy", "flux_mjy"} <= set(names):
        raise SkyModelError("has both flux_jy and flux_mjy", path, "give one of them")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise SkyModelError(f"names a column {twice[0]} twice", path, "give each once")


def _number(path: Path, line: int, name: str, text: str) -> float:
    if not text and name not in ("ra_deg", "dec_deg", "flux_jy", "flux_mjy"):
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        where = f"{path}, line {line}, column {name}"
        what = f"{text!r} is not a number" if text else "there is no value"
        raise SkyModelError(what, where, "correct the value")
    return value


def _components(
    path: Path,
    labels: Sequence[str],
    columns: dict[str, Float],
    numbers: Sequence[int],
    spectral_index: float,
    counted: str = "line",
) -> list[ListedComponent]:
    n = len(labels)
    flux = columns["flux_jy"] if "flux_jy" in columns else columns["flux_mjy"] * 1e-3

    def column(name: str, default: float) -> Float:
        values = columns.get(name, np.full(n, np.nan))
        return np.where(np.isnan(values), default, values)

    ra, dec = columns["ra_deg"], columns["dec_deg"]
    freq = column("reference_freq_mhz", USUAL_MHZ)
    major = column("major_arcsec", 0.0)
    minor = np.where(
        np.isnan(columns.get("minor_arcsec", major * np.nan)), major, column("minor_arcsec", 0.0)
    )
    checks = (
        ("ra_deg", ~((ra >= -360) & (ra <= 360))),
        ("dec_deg", ~(np.abs(dec) <= 90)),
        ("flux_jy" if "flux_jy" in columns else "flux_mjy", ~np.isfinite(flux)),
        ("reference_freq_mhz", ~(freq > 0)),
        ("major_arcsec", ~((major >= 0) & np.isfinite(major))),
        ("minor_arcsec", ~(minor >= 0)),
    )
    for name, wrong in checks:
        if wrong.any():
            k = int(np.argmax(wrong))
            value = columns[name][k] if name in columns else float("nan")
            where = f"{path}, {counted} {numbers[k]}, column {name}"
            raise SkyModelError(f"{value:g} cannot be", where, "correct the value")
    index, curvature = column("spectral_index", spectral_index), column("spectral_curvature", 0.0)
    pa = np.radians(column("pa_deg", 0.0))
    return [
        ListedComponent(
            name=labels[k],
            ra_rad=float(np.radians(ra[k] % 360)),
            dec_rad=float(np.radians(dec[k])),
            flux_jy=float(flux[k]),
            reference_freq_hz=float(freq[k] * 1e6),
            terms=(float(index[k]), float(curvature[k])) if curvature.any() else (float(index[k]),),
            major_rad=float(major[k] * ARCSEC),
            minor_rad=float(minor[k] * ARCSEC),
            pa_rad=float(pa[k]),
        )
        for k in range(n)
    ]
