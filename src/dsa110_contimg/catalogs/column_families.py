"""Readers of catalogue files, all to one table.

Families of columns are known by name, whatever the container (`dsa110_contimg.catalogs.file_formats`):

generic
    ``ra_deg``, ``dec_deg`` and ``flux_mjy`` or ``peak_jy_beam``; optionally any other column of the
    catalogue.
VizieR VIII/65 (NVSS)
    ``RAJ2000``, ``DEJ2000`` (sexagesimal text, or degrees), ``S1.4``; optionally ``e_S1.4``, ``MajAxis``,
    ``MinAxis`` with their limit flags ``l_MajAxis``, ``l_MinAxis``, and ``PA``.
HEASARC (NVSS)
    ``ra``, ``dec``, ``flux_20_cm``; optionally ``flux_20_cm_error``, ``major_axis``, ``minor_axis`` with
    ``limit_major_axis``, ``limit_minor_axis``, and ``position_angle``.
NRAO (NVSS, ``CATALOG.FIT``)
    ``RA(2000)``, ``DEC(2000)``, ``PEAK INT``, ``MAJOR AX``, ``MINOR AX``, ``POSANGLE``, ``I RMS``: fits to
    the images as they are, to be corrected and deconvolved.
FIRST (``first_14dec17.fits``)
    ``RA``, ``DEC``, ``FINT``, ``FPEAK``, ``RMS``, ``MAJOR``, ``MINOR``, ``POSANG``, ``SIDEPROB``.

An ECSV file may declare which part of the sky it is complete for, in its header::

    # meta: {coverage: {ra_min: 350.0, ra_max: 10.0, dec_min: 49.0, dec_max: 61.0}}
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.catalogs.file_formats import open_table
from dsa110_contimg.catalogs.raw_table import KNOWN_FORMS, Block
from dsa110_contimg.catalogs.surveys import COLUMN_UNITS, SURVEYS, survey_named
from dsa110_contimg.errors import CatalogFormatError
from dsa110_contimg.progress import Progress

__all__ = ["COLUMN_UNITS", "read_catalog"]


_COVERAGE_KEYS = ("ra_min", "ra_max", "dec_min", "dec_max")

#: Restoring beam of NVSS (arcsec) and its flux scale's error (Condon et al. 1998).
NVSS_BEAM_ARCSEC = 45.0
NVSS_FLUX_ERROR = 0.03
#: Ten times as many as NVSS has; a table of more would not fit into the memory of a usual machine.
MOST_ROWS = 20_000_000


def read_catalog(path: str | Path, catalog: str = "nvss", progress: Progress | None = None) -> Table:
    """Read a catalogue file into the internal table.

    Parameters
    ----------
    path : str or Path
        FITS, VOTable, TDAT, TSV, CSV or ECSV file, plain or gzipped; told apart by content, not by name.
    catalog : str
        ``"nvss"`` or ``"first"``: which columns are kept, and which are known by their original names.
    progress : Progress, optional
        Follows the reading of the file.

    Returns
    -------
    Table
        Shape (n_rows,), in the order of the file: ``ra_deg`` [0, 360) and ``dec_deg`` (deg, ICRS),
        ``flux_mjy`` and ``flux_err_mjy`` (mJy; unknown error NaN), ``major_arcsec`` and ``minor_arcsec``
        (deconvolved FWHM, arcsec; unresolved or unknown 0), ``pa_deg`` (north through east). NVSS also has
        ``major_limit_arcsec`` and ``minor_limit_arcsec`` (upper limits of unresolved axes, otherwise NaN),
        FIRST ``peak_mjy``, ``rms_mjy`` (mJy/beam) and ``sidelobe_probability``. ``meta`` holds ``columns``
        (the family), ``notes`` (what to know of fluxes and sizes) and, where the file declares it,
        ``coverage``.

    Raises
    ------
    CatalogMissingError
        There is no such file.
    CatalogFormatError
        The file is damaged, of another kind, lacks columns or rows, or has rows that cannot be sources.
    InputError
        An unknown catalogue.
    ResourceError
        The file may not be read.
    """
    path, survey = Path(path), survey_named(catalog)
    families = [family for family in _FAMILIES if family.catalog in (catalog, None)]

    def accept(names: tuple[str, ...]) -> bool:
        return any(family.needs(names) for family in families)

    parts: dict[str, list[Float]] = {name: [] for name in survey.units}
    with open_table(path, accept, progress) as raw:
        family = next((family for family in families if family.needs(raw.names)), None)
        if family is None:
            _refuse_columns(raw.names, families, path)
            raise AssertionError
        rows = _Rows(_units(raw.units, family), path)
        _refuse_more_rows(raw.n_rows or 0, path)
        for block in raw.blocks(tuple(name for name in raw.names if name in family.knows)):
            rows.take(block)
            _refuse_more_rows(rows.first + rows.n - 1, path)
            for name, values in family.convert(rows).items():
                if name in parts:
                    parts[name].append(values)
        n_rows, stated, declared = rows.first + rows.n - 1, raw.n_rows, raw.meta.get("coverage")
    if stated is not None and stated != n_rows:
        raise CatalogFormatError(
            f"has {n_rows} rows, its header promises {stated}", path, "fetch the file again"
        )
    meta: dict[str, Any] = {"columns": family.name, "notes": _notes(family, raw.names)}
    if declared is not None:
        meta["coverage"] = _declared_coverage(declared, path)
    elif n_rows == 0:
        raise CatalogFormatError("the table has no rows", path, "give a catalogue with sources in it")
    absent = {name: np.full(n_rows, np.nan) for name, values in parts.items() if not values}
    columns: dict[str, Float] = {}
    for name in list(parts):
        columns[name] = absent[name] if name in absent else np.concatenate(parts.pop(name))
    _check_rows(columns, path)
    columns["ra_deg"] %= 360.0
    table = Table(columns, meta=meta, copy=False)
    for name, unit in survey.units.items():
        table[name].unit = unit
    return table


def _refuse_more_rows(n_rows: int, path: Path) -> None:
    if n_rows > MOST_ROWS:
        raise CatalogFormatError(
            f"has {n_rows} rows or more, above the {MOST_ROWS} that are taken", path, "give a part of the sky"
        )


def _notes(family: _Family, names: tuple[str, ...]) -> list[str]:
    """Say what a user should know of the fluxes and sizes of a file of no known survey."""
    notes = []
    if family.convert is _generic:
        if "flux_mjy" not in names:
            notes.append("fluxes are peaks: extended sources have more")
        if "major_arcsec" not in names:
            notes.append("sizes are not known: all sources are taken as points")
    return notes


class _Rows:
    """The block of rows at hand: its columns as numbers, angles and flags."""

    def __init__(self, units: dict[str, u.UnitBase], path: Path) -> None:
        self.units, self.path = units, path
        self.block: Block = {}
        self.first, self.n = 1, 0

    def take(self, block: Block) -> None:
        self.first += self.n
        self.block, self.n = block, len(next(iter(block.values())))

    def has(self, name: str) -> bool:
        return name in self.block

    def floats(self, name: str, unit: u.UnitBase | None) -> Float:
        """Return a column as floats in ``unit``; absent column and blank cells as NaN."""
        if name not in self.block:
            return np.full(self.n, np.nan)
        values = self.block[name]
        if values.ndim != 1:
            raise CatalogFormatError(f"column {name} holds arrays, not numbers", self.path, KNOWN_FORMS)
        if values.dtype.kind != "f":
            values = self._parsed(name, values)
        stated = self.units.get(name)
        if unit is not None and stated is not None and stated != unit:
            try:
                values = values * stated.to(unit)
            except (u.UnitsError, ValueError, TypeError):
                raise CatalogFormatError(
                    f"column {name} is in {stated}, which is not {unit}", self.path, "correct its unit"
                ) from None
        return np.array(values, dtype=np.float64)

    def _parsed(self, name: str, texts: NDArray[np.str_]) -> Float:
        stripped = np.char.strip(texts.astype(str))
        stripped[stripped == ""] = "nan"
        try:
            return stripped.astype(np.float64)
        except ValueError:
            pass
        for row, text in enumerate(stripped.tolist(), self.first):
            try:
                float(text)
            except ValueError:
                raise CatalogFormatError(
                    f"column {name} has {text!r} in row {row}, not a number", self.path, "correct the row"
                ) from None
        raise AssertionError

    def is_limit(self, name: str) -> Bool:
        """Return where a flag column has ``<``."""
        if name not in self.block or self.block[name].dtype.kind != "U":
            return np.zeros(self.n, dtype=bool)
        return np.asarray(np.char.find(self.block[name], "<") >= 0)

    def angle(self, name: str, degrees_per_unit: float) -> Float:
        """Return sexagesimal text (``dd mm ss.s``) or numbers (already degrees) as degrees."""
        texts = self.block[name]
        if texts.dtype.kind == "f":
            return self.floats(name, u.deg)
        texts = np.char.replace(np.char.strip(texts), ":", " ")
        try:
            parts = np.array(" ".join(texts.tolist()).split(), dtype=np.float64).reshape(self.n, 3)
        except ValueError:
            parts = np.full((self.n, 3), np.nan)
            for row, text in enumerate(texts.tolist()):
                try:
                    parts[row] = [float(part) for part in text.split()]
                except ValueError:
                    break  # left NaN, so that it is the row reported below
        outside = ~((np.abs(parts[:, 1:]) <= 60.0).all(axis=1) & (parts[:, 1:] >= 0.0).all(axis=1))
        if outside.any():
            row = int(outside.argmax())
            raise CatalogFormatError(
                f"column {name} has {str(texts[row])!r} in row {self.first + row}, not a sexagesimal angle",
                self.path,
                "correct the row",
            )
        magnitude = np.abs(parts[:, 0]) + parts[:, 1] / 60.0 + parts[:, 2] / 3600.0
        # The sign is read from the text, as -00 30 00 has none in its first number.
        sign = np.where(np.char.startswith(texts, "-"), -1.0, 1.0)
        return np.array(sign * magnitude * degrees_per_unit)


# ---------------------------------------------------------------- families


@dataclass(frozen=True)
class _Family:
    """Columns known by name, and how they become those of the internal table.

    A word of ``required`` may give alternatives, ``a|b``.
    """

    name: str
    title: str
    catalog: str | None
    required: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[_Rows], dict[str, Float]]
    trust_units: bool = True

    @property
    def knows(self) -> set[str]:
        return {name for word in (*self.required, *self.optional) for name in word.split("|")}

    def lacking(self, names: tuple[str, ...]) -> list[str]:
        return [word for word in self.required if not set(word.split("|")) & set(names)]

    def needs(self, names: tuple[str, ...]) -> bool:
        return not self.lacking(names)


def _generic(rows: _Rows) -> dict[str, Float]:
    units = {name: unit for survey in SURVEYS.values() for name, unit in survey.units.items()}
    columns = {name: rows.floats(name, unit) for name, unit in units.items()}
    if not rows.has("flux_mjy"):
        columns["flux_mjy"] = 1e3 * rows.floats("peak_jy_beam", None)
    for name in ("major_arcsec", "minor_arcsec", "pa_deg"):
        columns[name] = np.nan_to_num(columns[name], nan=0.0, posinf=np.inf, neginf=-np.inf)
    return columns


def _sizes(
    rows: _Rows, major: str, major_flag: str, minor: str, minor_flag: str, pa: str
) -> dict[str, Float]:
    """Take measured sizes as sizes and upper limits as limits: a ``<`` means unresolved."""
    for axis, flag in ((major, major_flag), (minor, minor_flag)):
        if rows.has(axis) and not rows.has(flag):
            # Without its flag an upper limit would be taken for a measured size.
            raise CatalogFormatError(
                f"has {axis} without its limit flag {flag}", rows.path, "include that column"
            )
    sizes, limits = [], []
    for axis, flag in ((major, major_flag), (minor, minor_flag)):
        values, limit = rows.floats(axis, u.arcsec), rows.is_limit(flag)
        sizes.append(np.where(limit, 0.0, np.nan_to_num(values, nan=0.0, posinf=np.inf)))
        limits.append(np.where(limit, values, np.nan))
    return {
        "major_arcsec": sizes[0],
        "minor_arcsec": np.where(sizes[0] == 0.0, 0.0, sizes[1]),
        "pa_deg": np.where(sizes[0] > 0.0, np.nan_to_num(rows.floats(pa, u.deg), nan=0.0), 0.0),
        "major_limit_arcsec": limits[0],
        "minor_limit_arcsec": limits[1],
    }


def _vizier(rows: _Rows) -> dict[str, Float]:
    return {
        "ra_deg": rows.angle("RAJ2000", 15.0),
        "dec_deg": rows.angle("DEJ2000", 1.0),
        "flux_mjy": rows.floats("S1.4", u.mJy),
        "flux_err_mjy": rows.floats("e_S1.4", u.mJy),
        **_sizes(rows, "MajAxis", "l_MajAxis", "MinAxis", "l_MinAxis", "PA"),
    }


def _heasarc(rows: _Rows) -> dict[str, Float]:
    return {
        "ra_deg": rows.floats("ra", u.deg),
        "dec_deg": rows.floats("dec", u.deg),
        "flux_mjy": rows.floats("flux_20_cm", u.mJy),
        "flux_err_mjy": rows.floats("flux_20_cm_error", u.mJy),
        **_sizes(rows, "major_axis", "limit_major_axis", "minor_axis", "limit_minor_axis", "position_angle"),
    }


def _first(rows: _Rows) -> dict[str, Float]:
    major = np.nan_to_num(rows.floats("MAJOR", u.arcsec), nan=0.0)
    return {
        "ra_deg": rows.floats("RA", u.deg),
        "dec_deg": rows.floats("DEC", u.deg),
        "flux_mjy": rows.floats("FINT", None),
        "flux_err_mjy": np.full(rows.n, np.nan),
        "major_arcsec": major,
        "minor_arcsec": np.where(major > 0.0, np.nan_to_num(rows.floats("MINOR", u.arcsec), nan=0.0), 0.0),
        "pa_deg": np.where(major > 0.0, np.nan_to_num(rows.floats("POSANG", u.deg), nan=0.0), 0.0),
        "peak_mjy": rows.floats("FPEAK", None),
        "rms_mjy": rows.floats("RMS", None),
        "sidelobe_probability": rows.floats("SIDEPROB", None),
    }


def _nrao(rows: _Rows) -> dict[str, Float]:
    """Correct and deconvolve raw fits as in Condon et al. (1998, AJ 115, 1693), section 5.2.

    The peak is raised by the CLEAN bias (0.2 mJy/beam in the D configuration, 0.3 in DnC). An axis is
    resolved if the fit exceeds the 45 arcsec beam by more than 2.33 sigma (98 %); the flux of a source
    resolved on both axes is peak x (major minor / beam^2), on one axis peak x (major / beam) x sqrt(minor /
    beam), on none peak x sqrt(major minor / beam^2).
    """
    beam = NVSS_BEAM_ARCSEC
    dec = rows.floats("DEC(2000)", None)
    raw = 1e3 * rows.floats("PEAK INT", None)
    rms = 1e3 * rows.floats("I RMS", None)
    fit_major = np.maximum(3600.0 * rows.floats("MAJOR AX", None), beam)
    fit_minor = np.maximum(3600.0 * rows.floats("MINOR AX", None), beam)
    bias = np.where((dec > -10.125) & (dec < 77.994), 0.2, 0.3)
    peak = raw + bias
    x, y = fit_major / beam, fit_minor / beam
    # Squared signal to noise for amplitude, major and minor axis: exponents of the paper's equation 21.
    rho = x * y / 4.0 * (raw / rms) ** 2

    def rho2(of_major: float, of_minor: float) -> Float:
        return np.asarray(rho * (1 + x**-2) ** of_major * (1 + y**-2) ** of_minor)

    sigma_major = np.sqrt(2.0 * fit_major**2 / rho2(2.5, 0.5) + (0.02 * beam) ** 2)
    sigma_minor = np.sqrt(2.0 * fit_minor**2 / rho2(0.5, 2.5) + (0.02 * beam) ** 2)
    is_major = fit_major - beam > 2.33 * sigma_major
    is_minor = is_major & (fit_minor - beam > 2.33 * sigma_minor)
    flux = peak * np.where(is_minor, x * y, np.where(is_major, x * np.sqrt(y), np.sqrt(x * y)))
    amplitude = np.where(is_minor, 2.0, np.where(is_major, 1.5, 1.0)) / rho2(1.5, 1.5)
    size = np.where(is_major, (sigma_major / fit_major) ** 2 / np.where(is_minor, x * y, x), 0.0)
    size += np.where(is_minor, (sigma_minor / fit_minor) ** 2 / (x * y), 0.0)
    error = flux * np.sqrt(NVSS_FLUX_ERROR**2 + amplitude + size + (bias / peak) ** 2)

    def limit(fit: Float, sigma: Float) -> Float:
        return np.asarray(np.sqrt((np.maximum(fit, beam) + 2.33 * sigma) ** 2 - beam**2))

    return {
        "ra_deg": rows.floats("RA(2000)", None) % 360.0,
        "dec_deg": dec,
        "flux_mjy": flux,
        "flux_err_mjy": error,
        "major_arcsec": np.where(is_major, np.sqrt(fit_major**2 - beam**2), 0.0),
        "minor_arcsec": np.where(is_minor, np.sqrt(fit_minor**2 - beam**2), 0.0),
        "pa_deg": np.where(is_major, rows.floats("POSANGLE", None), 0.0),
        "major_limit_arcsec": np.where(is_major, np.nan, limit(fit_major, sigma_major)),
        "minor_limit_arcsec": np.where(is_minor, np.nan, limit(fit_minor, sigma_minor)),
    }


_FAMILIES = (
    _Family(
        "vizier",
        "VizieR VIII/65",
        "nvss",
        ("RAJ2000", "DEJ2000", "S1.4"),
        ("e_S1.4", "MajAxis", "l_MajAxis", "MinAxis", "l_MinAxis", "PA"),
        _vizier,
    ),
    _Family(
        "heasarc",
        "HEASARC",
        "nvss",
        ("ra", "dec", "flux_20_cm"),
        (
            *("flux_20_cm_error", "major_axis", "limit_major_axis"),
            *("minor_axis", "limit_minor_axis", "position_angle"),
        ),
        _heasarc,
    ),
    _Family(
        "nrao",
        "NRAO CATALOG.FIT",
        "nvss",
        ("RA(2000)", "DEC(2000)", "PEAK INT", "MAJOR AX", "MINOR AX", "POSANGLE", "I RMS"),
        (),
        _nrao,
        # AIPS writes units of its own: DEGREES, JY/BEAM.
        trust_units=False,
    ),
    _Family(
        "first",
        "FIRST",
        "first",
        ("RA", "DEC", "FINT", "FPEAK", "RMS", "MAJOR", "MINOR", "POSANG", "SIDEPROB"),
        (),
        _first,
    ),
    _Family(
        "generic",
        "the generic table",
        None,
        ("ra_deg", "dec_deg", "flux_mjy|peak_jy_beam"),
        tuple(name for survey in SURVEYS.values() for name in survey.units),
        _generic,
    ),
)


def _units(stated: dict[str, u.UnitBase], family: _Family) -> dict[str, u.UnitBase]:
    """Return the units to heed: those of an archive are fixed, in whatever spelling."""
    if not family.trust_units:
        return {}
    generic = family.catalog is None
    return {k: unit for k, unit in stated.items() if generic or not isinstance(unit, u.UnrecognizedUnit)}


def _refuse_columns(names: tuple[str, ...], families: list[_Family], path: Path) -> None:
    """Say what is missing from the family that fits best."""
    found = "columns found: " + textwrap.shorten(", ".join(names[:200]), 200)
    for other in _FAMILIES:
        if other not in families and other.needs(names):
            raise CatalogFormatError(
                f"is a table of {other.title}, not of {families[0].catalog}",
                path,
                f"build it as {other.catalog}",
            )
    nearest = min(families, key=lambda family: len(family.lacking(names)) / len(family.required))
    lacking = nearest.lacking(names)
    if len(lacking) < len(nearest.required):
        text = ", ".join(word.replace("|", " (or ") + ")" * ("|" in word) for word in lacking)
        raise CatalogFormatError(f"lacks the column {text} of {nearest.title}", path, found)
    known = ", ".join(family.title for family in families)
    raise CatalogFormatError(
        f"has the columns of none of {known} (ra_deg, dec_deg, flux_mjy or peak_jy_beam)", path, found
    )


# ---------------------------------------------------------------- checks


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


def _check_rows(columns: dict[str, Float], path: Path) -> None:
    """Refuse the table if any row cannot be a source, counting such rows and naming the first."""
    ra, dec = columns["ra_deg"], columns["dec_deg"]
    checks: list[tuple[str, Callable[[], Bool]]] = [
        (f"a non-finite {name}", lambda name=name: ~np.isfinite(columns[name]))  # type: ignore[misc]
        for name in ("ra_deg", "dec_deg", "flux_mjy")
    ]
    checks += [
        ("RA outside 0..360", lambda: (ra < 0.0) | (ra > 360.0)),
        ("Dec outside -90..90", lambda: np.abs(dec) > 90.0),
        ("a negative flux", lambda: columns["flux_mjy"] < 0.0),
        (
            "an infinite or negative flux error",
            lambda: np.isinf(columns["flux_err_mjy"]) | (columns["flux_err_mjy"] < 0.0),
        ),
    ]
    checks += [
        (
            f"an infinite or negative {name}",
            lambda name=name: ~np.isfinite(columns[name]) | (columns[name] < 0.0),  # type: ignore[misc]
        )
        for name in ("major_arcsec", "minor_arcsec")
    ]
    checks.append(("an infinite pa_deg", lambda: ~np.isfinite(columns["pa_deg"])))
    for what, find in checks:
        bad = find()
        if bad.any():
            first = int(bad.argmax()) + 1
            raise CatalogFormatError(
                f"{int(bad.sum())} of {len(bad)} rows have {what}, first in row {first}",
                path,
                "correct the rows",
            )
