"""Readers of catalogue files, all to one table.

Two families of columns are known, each read by name whatever the container (FITS, CSV or ECSV, plain or
gzipped):

generic
    ``ra_deg``, ``dec_deg`` and ``flux_mjy`` or ``peak_jy_beam``; optionally ``flux_err_mjy``,
    ``major_arcsec``, ``minor_arcsec``, ``pa_deg``.
VizieR VIII/65 (NVSS)
    ``RAJ2000``, ``DEJ2000`` (sexagesimal text, or degrees), ``S1.4``; optionally ``e_S1.4``, ``MajAxis``,
    ``MinAxis`` with their limit flags ``l_MajAxis``, ``l_MinAxis``, and ``PA``.

An ECSV file may declare which part of the sky it is complete for, in its header::

    # meta: {coverage: {ra_min: 350.0, ra_max: 10.0, dec_min: 49.0, dec_max: 61.0}}
"""

from __future__ import annotations

import gzip
import io
import textwrap
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import ascii as ascii_tables
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, ResourceError

__all__ = ["COLUMN_UNITS", "read_catalog"]

Floats = NDArray[np.float64]

#: The columns of the internal table and their units.
COLUMN_UNITS: dict[str, u.UnitBase] = {
    "ra_deg": u.deg,
    "dec_deg": u.deg,
    "flux_mjy": u.mJy,
    "flux_err_mjy": u.mJy,
    "major_arcsec": u.arcsec,
    "minor_arcsec": u.arcsec,
    "pa_deg": u.deg,
}

_KNOWN_FORMS = "give a FITS, CSV or ECSV table (plain or .gz)"
_GENERIC = "ra_deg, dec_deg, flux_mjy (or peak_jy_beam)"
_VIZIER = "RAJ2000, DEJ2000, S1.4"
_COVERAGE_KEYS = ("ra_min", "ra_max", "dec_min", "dec_max")


def read_catalog(path: str | Path) -> Table:
    """Read a catalogue file into the internal table.

    Parameters
    ----------
    path : str or Path
        FITS, CSV or ECSV file, plain or gzipped; told apart by content, not by name.

    Returns
    -------
    Table
        Shape (n_rows,), in the order of the file: ``ra_deg`` [0, 360) and ``dec_deg`` (deg, ICRS),
        ``flux_mjy`` and ``flux_err_mjy`` (mJy; unknown error NaN), ``major_arcsec`` and ``minor_arcsec``
        (deconvolved FWHM, arcsec; unresolved or unknown 0), ``pa_deg`` (north through east). ``meta`` holds
        ``columns`` (``generic`` or ``vizier``) and, where the file declares it, ``coverage``.

    Raises
    ------
    CatalogMissingError
        There is no such file.
    CatalogFormatError
        The file is damaged, of another kind, lacks columns, or has rows that cannot be sources.
    ResourceError
        The file may not be read.
    """
    path = Path(path)
    data = _read_bytes(path)
    raw = _read_fits(data, path) if data.startswith(b"SIMPLE") else _read_text(data, path)
    names = set(raw.colnames)
    if {"RAJ2000", "DEJ2000", "S1.4"} <= names:
        columns, family = _vizier_columns(raw, path), "vizier"
    elif {"ra_deg", "dec_deg"} <= names and names & {"flux_mjy", "peak_jy_beam"}:
        columns, family = _generic_columns(raw, path), "generic"
    else:
        found = textwrap.shorten(", ".join(raw.colnames), 200)
        raise CatalogFormatError(_missing_columns(names), path, f"columns found: {found}")
    meta: dict[str, Any] = {"columns": family}
    if "coverage" in raw.meta:
        meta["coverage"] = _declared_coverage(raw.meta["coverage"], path)
    elif len(raw) == 0:
        raise CatalogFormatError("the table has no rows", path, "give a catalogue with sources in it")
    _check_rows(columns, path)
    columns["ra_deg"] %= 360.0
    return Table({name: columns[name] * unit for name, unit in COLUMN_UNITS.items()}, meta=meta)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CatalogMissingError("no such catalogue file", path, "check the path") from None
    except IsADirectoryError:
        raise CatalogFormatError("is a directory, not a catalogue file", path, _KNOWN_FORMS) from None
    except OSError as error:
        raise ResourceError(f"cannot be read ({error.strerror})", path, "check its permissions") from error
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CatalogFormatError(
                "the gzip stream is truncated or damaged", path, "fetch the file again"
            ) from error
    if not data.strip():
        raise CatalogFormatError("the file is empty", path, _KNOWN_FORMS)
    return data


def _read_fits(data: bytes, path: Path) -> Table:
    with warnings.catch_warnings():
        # Unit strings and header cards that FITS frowns on do not matter here; missing bytes do.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*truncated.*")
        try:
            with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False) as hdus:
                tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
                raw = Table.read(tables[0]) if tables else None
        except MemoryError:
            raise
        except Exception as error:  # a damaged header can surface as almost any exception inside the reader
            what = f"the FITS file is truncated or damaged ({_reason(error)})"
            raise CatalogFormatError(what, path, "fetch the file again") from error
    if raw is None:
        raise CatalogFormatError("the FITS file holds no table", path, _KNOWN_FORMS)
    return raw


def _read_text(data: bytes, path: Path) -> Table:
    try:
        text = data.decode("utf-8-sig") + "\n"
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise CatalogFormatError("is neither a FITS nor a text table", path, _KNOWN_FORMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if text.startswith("# %ECSV"):
                raw = Table.read(text, format="ascii.ecsv")
            else:
                raw = ascii_tables.read(text, format="fast_csv", guess=False, comment="#")
        except MemoryError:
            raise
        except Exception as error:  # the readers raise a dozen kinds; each means that the text does not fit
            what = f"is not a readable CSV table ({_reason(error)})"
            raise CatalogFormatError(what, path, _KNOWN_FORMS) from error
    return raw


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _missing_columns(names: set[str]) -> str:
    if names & {"RAJ2000", "DEJ2000", "S1.4"}:
        lacking = [name for name in ("RAJ2000", "DEJ2000", "S1.4") if name not in names]
        return f"lacks the column {', '.join(lacking)} of VizieR VIII/65"
    lacking = [name for name in ("ra_deg", "dec_deg") if name not in names]
    if not names & {"flux_mjy", "peak_jy_beam"}:
        lacking.append("flux_mjy (or peak_jy_beam)")
    if len(lacking) < 3:
        return f"lacks the column {', '.join(lacking)}"
    return f"has neither the columns {_GENERIC} nor {_VIZIER} (VizieR VIII/65)"


def _generic_columns(raw: Table, path: Path) -> dict[str, Floats]:
    if "flux_mjy" in raw.colnames:
        flux = _floats(raw, "flux_mjy", u.mJy, path)
    else:
        flux = 1e3 * _floats(raw, "peak_jy_beam", u.Jy, path)
    return {
        "ra_deg": _floats(raw, "ra_deg", u.deg, path),
        "dec_deg": _floats(raw, "dec_deg", u.deg, path),
        "flux_mjy": flux,
        "flux_err_mjy": _floats(raw, "flux_err_mjy", u.mJy, path),
        **{
            name: np.nan_to_num(_floats(raw, name, COLUMN_UNITS[name], path), nan=0.0)
            for name in ("major_arcsec", "minor_arcsec", "pa_deg")
        },
    }


def _vizier_columns(raw: Table, path: Path) -> dict[str, Floats]:
    for axis in ("MajAxis", "MinAxis"):
        if axis in raw.colnames and f"l_{axis}" not in raw.colnames:
            # Without its flag an upper limit would be taken for a measured size.
            raise CatalogFormatError(
                f"has {axis} without its limit flag l_{axis}", path, "include that column"
            )
    major = np.nan_to_num(_floats(raw, "MajAxis", u.arcsec, path), nan=0.0)
    minor = np.nan_to_num(_floats(raw, "MinAxis", u.arcsec, path), nan=0.0)
    major[_is_limit(raw, "l_MajAxis")] = 0.0
    minor[_is_limit(raw, "l_MinAxis") | (major == 0.0)] = 0.0
    pa = np.nan_to_num(_floats(raw, "PA", u.deg, path), nan=0.0)
    return {
        "ra_deg": _angle(raw, "RAJ2000", 15.0, path),
        "dec_deg": _angle(raw, "DEJ2000", 1.0, path),
        "flux_mjy": _floats(raw, "S1.4", u.mJy, path),
        "flux_err_mjy": _floats(raw, "e_S1.4", u.mJy, path),
        "major_arcsec": major,
        "minor_arcsec": minor,
        "pa_deg": np.where(major > 0.0, pa, 0.0),
    }


def _texts(raw: Table, name: str) -> NDArray[np.str_]:
    column = raw[name]
    if column.dtype.kind in "SU":
        return np.asarray(np.ma.filled(column, "")).astype(str)
    return np.array(["" if value is np.ma.masked else str(value) for value in column], dtype=str)


def _is_limit(raw: Table, name: str) -> NDArray[np.bool_]:
    if name not in raw.colnames:
        return np.zeros(len(raw), dtype=bool)
    return np.asarray(np.char.find(_texts(raw, name), "<") >= 0)


def _floats(raw: Table, name: str, unit: u.UnitBase, path: Path) -> Floats:
    """Return a column as floats in ``unit``; absent column and blank cells as NaN."""
    if name not in raw.colnames:
        return np.full(len(raw), np.nan)
    column = raw[name]
    if column.ndim != 1:
        raise CatalogFormatError(f"column {name} holds arrays, not numbers", path, _KNOWN_FORMS)
    if column.dtype.kind in "fiu":
        values = np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan)
    else:
        values = np.empty(len(raw))
        for row, text in enumerate(_texts(raw, name).tolist()):
            try:
                values[row] = float(text) if text.strip() else np.nan
            except ValueError:
                raise CatalogFormatError(
                    f"column {name} has {text!r} in row {row + 1}, not a number", path, "correct the row"
                ) from None
    if column.unit is not None and column.unit != unit:
        try:
            values = values * column.unit.to(unit)
        except (u.UnitsError, ValueError, TypeError):
            raise CatalogFormatError(
                f"column {name} is in {column.unit}, which is not {unit}", path, "correct its unit"
            ) from None
    return np.array(values, dtype=np.float64)


def _angle(raw: Table, name: str, degrees_per_unit: float, path: Path) -> Floats:
    """Return sexagesimal text (``dd mm ss.s``) or numbers (already degrees) as degrees."""
    if raw[name].dtype.kind in "fiu":
        return _floats(raw, name, u.deg, path)
    texts = [text.strip().replace(":", " ") for text in _texts(raw, name).tolist()]
    try:
        parts = np.array(" ".join(texts).split(), dtype=np.float64).reshape(len(texts), 3)
    except ValueError:
        parts = np.full((len(texts), 3), np.nan)
        for row, text in enumerate(texts):
            try:
                parts[row] = [float(part) for part in text.split()]
            except ValueError:
                break  # left NaN, so that it is the row reported below
    outside = ~((np.abs(parts[:, 1:]) <= 60.0).all(axis=1) & (parts[:, 1:] >= 0.0).all(axis=1))
    if outside.any():
        row = int(outside.argmax())
        raise CatalogFormatError(
            f"column {name} has {texts[row]!r} in row {row + 1}, not a sexagesimal angle",
            path,
            "correct the row",
        )
    magnitude = np.abs(parts[:, 0]) + parts[:, 1] / 60.0 + parts[:, 2] / 3600.0
    # The sign is read from the text, as -00 30 00 has none in its first number.
    sign = np.array([-1.0 if text.startswith("-") else 1.0 for text in texts])
    return np.array(sign * magnitude * degrees_per_unit)


def _declared_coverage(declared: Any, path: Path) -> dict[str, float]:
    try:
        coverage = {key: float(declared[key]) for key in _COVERAGE_KEYS}
    except (KeyError, TypeError, ValueError):
        raise CatalogFormatError(
            "the declared coverage is incomplete", path, f"give the four numbers {', '.join(_COVERAGE_KEYS)}"
        ) from None
    if not (
        all(np.isfinite(value) for value in coverage.values())
        and -90.0 <= coverage["dec_min"] < coverage["dec_max"] <= 90.0
        and 0.0 <= coverage["ra_min"] <= 360.0
        and 0.0 <= coverage["ra_max"] <= 360.0
    ):
        raise CatalogFormatError(
            "the declared coverage is not a piece of sky", path, "RA 0..360, Dec -90..90"
        )
    return coverage


def _check_rows(columns: dict[str, Floats], path: Path) -> None:
    """Refuse the table if any row cannot be a source, counting such rows and naming the first."""
    checks = [
        (f"a non-finite {name}", ~np.isfinite(columns[name])) for name in ("ra_deg", "dec_deg", "flux_mjy")
    ]
    checks += [
        ("RA outside 0..360", (columns["ra_deg"] < 0.0) | (columns["ra_deg"] > 360.0)),
        ("Dec outside -90..90", np.abs(columns["dec_deg"]) > 90.0),
        ("a negative flux", columns["flux_mjy"] < 0.0),
        (
            "an infinite or negative flux error",
            np.isinf(columns["flux_err_mjy"]) | (columns["flux_err_mjy"] < 0.0),
        ),
    ]
    checks += [
        (f"an infinite or negative {name}", ~np.isfinite(columns[name]) | (columns[name] < 0.0))
        for name in ("major_arcsec", "minor_arcsec")
    ]
    checks.append(("an infinite pa_deg", ~np.isfinite(columns["pa_deg"])))
    for what, bad in checks:
        if bad.any():
            first = int(bad.argmax()) + 1
            raise CatalogFormatError(
                f"{int(bad.sum())} of {len(bad)} rows have {what}, first in row {first}",
                path,
                "correct the rows",
            )
