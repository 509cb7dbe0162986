"""The VLA calibrator list: positions and flux densities by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table

from dsa110_contimg.catalogs.strips import default_catalog_dir
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError
from dsa110_contimg.files import write_table

__all__ = ["Calibrator", "build_calibrators", "calibrator", "read_calibrators"]

TABLE_NAME = "vla_calibrators.ecsv"
#: Bands of the list and their frequencies in GHz.
BANDS = {"P": 0.33, "L": 1.4, "C": 4.9, "X": 8.4, "U": 15.0, "K": 22.0, "Q": 43.0}
#: The list has less than a megabyte.
LIST_BYTES = 16 << 20
#: Words behind a position that tell where it is from, not what else the source is called.
_ORIGINS = {"JVAS", "CJ2", "VERA", "AW574", "GVAR", "USNO", "VSOP"}

_POSITION = re.compile(
    r"^(?P<name>\d{4}[+-]\d{3,4})\s+(?P<epoch>J2000|B1950)\s+(?P<code>[ABCT])\s+"
    r"(?P<h>\d\d)h(?P<m>\d\d)m(?P<s>[\d.]+)s\s+(?P<sign>[+-]?)(?P<d>\d+)d(?P<am>\d\d)'(?P<as>[\d.]+)\"?"
    r"(?P<rest>.*)$"
)
_FLUX = re.compile(
    r"^\s*[\d.]+cm\s+(?P<band>[PLCXUKQ])\s+(?P<quality>(?:[A-Za-z?]\s+){1,4})(?P<flux>\d*\.?\d+)"
)


@dataclass(frozen=True)
class Calibrator:
    """A calibrator of the list.

    Attributes
    ----------
    name : str
        J2000 name, such as ``0834+555``.
    aliases : tuple of str
        B1950 name and others.
    ra_deg, dec_deg : float
        ICRS degrees.
    position_code : str
        A: better than 2 mas, B: 2 to 10 mas, C: 10 to 150 mas, T: worse.
    flux_jy : dict
        Flux density in jansky by band (P, L, C, X, U, K, Q).
    quality : dict
        By band, a letter for each of the configurations A, B, C and D: P (amplitude closure errors below
        3 %), S (3 to 10 %), W, C, X (not to be used).
    """

    name: str
    aliases: tuple[str, ...]
    ra_deg: float
    dec_deg: float
    position_code: str
    flux_jy: dict[str, float]
    quality: dict[str, str]


def read_calibrators(path: str | Path) -> Table:
    """Read the text of the VLA calibrator list.

    Parameters
    ----------
    path : str or Path
        The list as NRAO publishes it.

    Returns
    -------
    Table
        Shape (n_calibrators,): ``name``, ``aliases`` (separated by blanks), ``ra_deg``, ``dec_deg``,
        ``position_code``, and for each band ``flux_jy_L`` and so on (NaN: not listed), ``quality_L``.

    Raises
    ------
    CatalogMissingError
        There is no such file.
    CatalogFormatError
        It is not that list, or a line of it does not fit.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            text = stream.read(LIST_BYTES + 1)
    except FileNotFoundError:
        raise CatalogMissingError("no such calibrator list", path, "check the path") from None
    except OSError as error:
        raise ResourceError(f"cannot be read ({error.strerror})", path, "check its permissions") from error
    if len(text) > LIST_BYTES:
        raise CatalogFormatError(
            f"is longer than {LIST_BYTES >> 20} MB, not the VLA calibrator list", path, "check the file"
        )
    entries = list(_entries(text.decode(errors="replace").splitlines(), path))
    if not entries:
        raise CatalogFormatError("is not the VLA calibrator list: no J2000 entry", path, "check the file")
    columns: dict[str, Any] = {
        "name": [entry.name for entry in entries],
        "aliases": [" ".join(entry.aliases) for entry in entries],
        "ra_deg": np.array([entry.ra_deg for entry in entries]) * u.deg,
        "dec_deg": np.array([entry.dec_deg for entry in entries]) * u.deg,
        "position_code": [entry.position_code for entry in entries],
    }
    for band in BANDS:
        columns[f"flux_jy_{band}"] = np.array([e.flux_jy.get(band, np.nan) for e in entries]) * u.Jy
        columns[f"quality_{band}"] = [entry.quality.get(band, "") for entry in entries]
    return Table(columns, meta={"source": path.name})


def _entries(lines: list[str], path: Path) -> Iterator[Calibrator]:
    """Yield the entries of the list: J2000 and B1950 lines, then a line for each band."""
    entry: Calibrator | None = None
    for number, line in enumerate(lines, 1):
        place = _POSITION.match(line.rstrip())
        if place is None and re.search(r"\b(J2000|B1950)\b", line) and "EQUINOX" not in line:
            raise CatalogFormatError(f"line {number} is not a position", path, "correct the line")
        if place is not None and place["epoch"] == "J2000":
            if entry is not None:
                yield entry
            sign = -1.0 if place["sign"] == "-" else 1.0
            ra = 15.0 * (int(place["h"]) + int(place["m"]) / 60 + float(place["s"]) / 3600)
            dec = sign * (int(place["d"]) + int(place["am"]) / 60 + float(place["as"]) / 3600)
            entry = Calibrator(place["name"], _names(place["rest"]), ra, dec, place["code"], {}, {})
        elif entry is not None and place is not None:
            names = (place["name"], *entry.aliases, *_names(place["rest"]))
            entry = replace(entry, aliases=names)
        elif entry is not None and (flux := _FLUX.match(line)):
            entry.flux_jy[flux["band"]] = float(flux["flux"])
            entry.quality[flux["band"]] = "".join(flux["quality"].split())
    if entry is not None:
        yield entry


def _names(text: str) -> tuple[str, ...]:
    """Take other names from what follows a position: its reference (month and year), origin, names."""
    words = [word for word in text.split() if not re.fullmatch(r"[A-Z][a-z]{2}\d\d", word)]
    return tuple(word for word in words if word not in _ORIGINS)


def build_calibrators(source: str | Path, catalog_dir: str | Path | None = None) -> tuple[Path, int]:
    """Keep the VLA calibrator list as a table beside the strips.

    Parameters
    ----------
    source : str or Path
        The list as NRAO publishes it.
    catalog_dir : str or Path, optional
        `default_catalog_dir` if not given.

    Returns
    -------
    path : Path
        The table, in ECSV.
    n_calibrators : int
        Its length.
    """
    table = read_calibrators(source)
    directory = Path(catalog_dir or default_catalog_dir())
    final = directory / TABLE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_table(final, table)
    except OSError as error:
        raise ResourceError(
            f"cannot be written ({error.strerror})", final, "check the folder and its permissions"
        ) from error
    return final, len(table)


def _by_position(table: Table) -> dict[str, int]:
    """Return the rows by HHMM+DDMM, cut and not rounded, as names made of positions are."""
    names = {}
    for k, (ra, dec) in enumerate(zip(table["ra_deg"], table["dec_deg"], strict=True)):
        ra_min, dec_min = int(float(ra) * 4), int(abs(float(dec)) * 60)
        sign = "-" if dec < 0 else "+"
        names[f"{ra_min // 60:02d}{ra_min % 60:02d}{sign}{dec_min // 60:02d}{dec_min % 60:02d}"] = k
    return names


def calibrator(name: str, catalog_dir: str | Path | None = None) -> Calibrator:
    """Look a calibrator up.

    Parameters
    ----------
    name : str
        J2000 or B1950 name, with or without its letter, any other name of the list (3C286), or the name
        that its position makes (J0834+5534).
    catalog_dir : str or Path, optional
        Where `build_calibrators` put the table; `default_catalog_dir` if not given.

    Returns
    -------
    Calibrator

    Raises
    ------
    CatalogMissingError
        The list has not been built.
    CatalogFormatError
        The table is damaged.
    InputError
        The list has no such name.
    """
    path = Path(catalog_dir or default_catalog_dir()) / TABLE_NAME
    if not path.exists():
        raise CatalogMissingError(
            "the calibrator list is not there", path, "run `contimg catalog build calibrators LIST`"
        )
    try:
        table = Table.read(path, format="ascii.ecsv")
        names: dict[str, int] = {}
        aliases: dict[str, int] = {}
        # Of four names the list has two entries: the one with more fluxes, or the better position, comes
        # last.
        fluxes = [np.ma.filled(table[f"flux_jy_{band}"], np.nan) for band in BANDS]
        listed = np.isfinite(np.array(fluxes)).sum(axis=0)
        codes = ["TCBA".index(code) for code in table["position_code"]]
        for k in np.lexsort((codes, listed)).tolist():
            names[str(table["name"][k])] = k
            alias_text = table["aliases"][k]
            if not np.ma.is_masked(alias_text):
                aliases.update({alias.upper(): k for alias in str(alias_text).split()})
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogFormatError(
            "is not the calibrator table", path, "run `contimg catalog build calibrators LIST` again"
        ) from error
    wanted = name.strip().upper().replace(" ", "")
    bare = wanted[1:] if re.match(r"[JB]\d{4}[+-]", wanted) else wanted
    found = None if wanted.startswith("B") and bare != wanted else names.get(bare)
    if found is None and not (wanted.startswith("J") and bare != wanted):
        found = aliases.get(bare)
    if found is None and (place := re.fullmatch(r"J?(\d{4}[+-]\d{4})", wanted)):
        found = _by_position(table).get(place[1])
    if found is None:
        close = difflib.get_close_matches(bare, [*names, *aliases], n=3)
        raise InputError(
            f"no calibrator {name!r} in the list",
            path,
            f"near it: {', '.join(close)}" if close else "give its J2000 name, such as 0834+555",
        )
    row = table[found]
    by_band = {band: float(row[f"flux_jy_{band}"]) for band in BANDS}
    known = {band: flux for band, flux in by_band.items() if np.isfinite(flux)}
    alias_text = row["aliases"]
    return Calibrator(
        str(row["name"]),
        () if np.ma.is_masked(alias_text) else tuple(str(alias_text).split()),
        float(row["ra_deg"]),
        float(row["dec_deg"]),
        str(row["position_code"]),
        known,
        {band: str(row[f"quality_{band}"]) for band in known},
    )
