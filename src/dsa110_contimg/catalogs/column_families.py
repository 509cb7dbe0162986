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
the other surveys
    see `dsa110_contimg.catalogs.survey_families`.

An ECSV file may declare which part of the sky it is complete for, in its header::

    # meta: {coverage: {ra_min: 350.0, ra_max: 10.0, dec_min: 49.0, dec_max: 61.0}}
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table
from scipy.spatial import cKDTree

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.catalogs.file_formats import open_table
from dsa110_contimg.catalogs.rows import Family, Rows
from dsa110_contimg.catalogs.survey_families import SURVEY_FAMILIES
from dsa110_contimg.catalogs.surveys import COLUMN_UNITS, SURVEYS, survey_named
from dsa110_contimg.catalogs.vla_families import VLA_FAMILIES
from dsa110_contimg.errors import CatalogFormatError
from dsa110_contimg.progress import Progress
from dsa110_contimg.sphere import unit_vectors

__all__ = ["COLUMN_UNITS", "read_catalog"]


_COVERAGE_KEYS = ("ra_min", "ra_max", "dec_min", "dec_max")

#: Ten times as many as NVSS has; a table of more would not fit into the memory of a usual machine.
MOST_ROWS = 20_000_000
#: Rows this near, in beams, are one source listed from two images.
REPEATED = 0.1
NO_SIZES = "sizes are not known: all sources are taken as points"


def read_catalog(path: str | Path, catalog: str = "nvss", progress: Progress | None = None) -> Table:
    """Read a catalogue file into the internal table.

    Parameters
    ----------
    path : str or Path
        FITS, VOTable, TDAT, TSV, CSV or ECSV file, plain or gzipped; told apart by content, not by name.
    catalog : str
        Name of a survey: which columns are kept, and which are known by their original names.
    progress : Progress, optional
        Follows the reading of the file.

    Returns
    -------
    Table
        Shape (n_rows,), in the order of the file: ``ra_deg`` [0, 360) and ``dec_deg`` (deg, ICRS),
        ``flux_mjy`` and ``flux_err_mjy`` (mJy; unknown error NaN), ``major_arcsec`` and ``minor_arcsec``
        (deconvolved FWHM, arcsec; unresolved or unknown 0), ``pa_deg`` (north through east). NVSS also has
        ``major_limit_arcsec`` and ``minor_limit_arcsec`` (upper limits of unresolved axes, otherwise NaN),
        FIRST ``peak_mjy``, ``rms_mjy`` (mJy/beam) and ``sidelobe_probability``, GLEAM ``spectral_index`` and
        ``spectral_index_err``. ``meta`` holds ``columns`` (the family), ``notes`` (what to know of fluxes
        and sizes), where the file declares it ``coverage`` and, where rows were left out, ``rows``: the row
        of the file that each is, from 0.

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
    taken: list[Bool] = []
    with open_table(path, accept, progress) as raw:
        family = next((family for family in families if family.needs(raw.names)), None)
        if family is None:
            _refuse_columns(raw.names, families, path)
            raise AssertionError
        for name, what, remedy in family.refuses:
            if name in raw.names:
                raise CatalogFormatError(what, path, remedy)
        rows = Rows(_units(raw.units, family), path)
        _refuse_more_rows(raw.n_rows or 0, path)
        for block in raw.blocks(tuple(name for name in raw.names if name in family.knows)):
            rows.take(block)
            _refuse_more_rows(rows.first + rows.n - 1, path)
            converted = family.convert(rows)
            taken.append(converted.pop("keep", np.ones(rows.n)) > 0)
            for name, values in converted.items():
                if name in parts:
                    parts[name].append(values[taken[-1]])
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
    kept = np.flatnonzero(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
    if declared is None and not kept.size:
        raise CatalogFormatError(
            f"none of its {n_rows} rows is a source: all are marked by the survey, or without a flux",
            path,
            "give a catalogue with sources in it",
        )
    absent = {name: np.full(len(kept), np.nan) for name, values in parts.items() if not values}
    columns: dict[str, Float] = {}
    for name in list(parts):
        columns[name] = absent[name] if name in absent else np.concatenate(parts.pop(name))
    _check_rows(columns, path, kept)
    columns["ra_deg"] %= 360.0
    if len(kept) < n_rows:
        meta["notes"].append(
            f"{n_rows - len(kept)} rows are left out: marked by the survey, or without a flux"
        )
    # Gaussians at one place may be of one source.
    of_gaussians = any("flux_gaussian" in name.lower() for name in raw.names)
    if (
        survey.repeats
        and not of_gaussians
        and (again := _repeated(columns, REPEATED * survey.beam_arcsec)).any()
    ):
        meta["notes"].append(f"{int(again.sum())} rows repeat another at the same place and are left out")
        columns, kept = {name: values[~again] for name, values in columns.items()}, kept[~again]
    if len(kept) < n_rows:
        meta["rows"] = kept
    table = Table(columns, meta=meta, copy=False)
    for name, unit in survey.units.items():
        table[name].unit = unit
    return table


def _refuse_more_rows(n_rows: int, path: Path) -> None:
    if n_rows > MOST_ROWS:
        raise CatalogFormatError(
            f"has {n_rows} rows or more, above the {MOST_ROWS} that are taken", path, "give a part of the sky"
        )


def _notes(family: Family, names: tuple[str, ...]) -> list[str]:
    """Say what a user should know of the fluxes and sizes of a file."""
    notes = list(family.notes)
    if family.convert is _generic:
        if "flux_mjy" not in names:
            notes.append("fluxes are peaks: extended sources have more")
        if "major_arcsec" not in names:
            notes.append(NO_SIZES)
    elif family.sizes and not set(family.sizes) & set(names):
        notes.append(NO_SIZES)
    return notes


# ---------------------------------------------------------------- families


def _generic(rows: Rows) -> dict[str, Float]:
    units = {name: unit for survey in SURVEYS.values() for name, unit in survey.units.items()}
    columns = {name: rows.floats(name, unit) for name, unit in units.items()}
    if not rows.has("flux_mjy"):
        columns["flux_mjy"] = 1e3 * rows.floats("peak_jy_beam", None)
    for name in ("major_arcsec", "minor_arcsec", "pa_deg"):
        columns[name] = np.nan_to_num(columns[name], nan=0.0, posinf=np.inf, neginf=-np.inf)
    return columns


_FAMILIES = (
    *VLA_FAMILIES,
    *SURVEY_FAMILIES,
    Family(
        "generic",
        "the generic table",
        None,
        ("ra_deg", "dec_deg", "flux_mjy|peak_jy_beam"),
        tuple(name for survey in SURVEYS.values() for name in survey.units),
        _generic,
    ),
)


def _units(stated: dict[str, u.UnitBase], family: Family) -> dict[str, u.UnitBase]:
    """Return the units to heed: those of an archive are fixed, in whatever spelling."""
    if not family.trust_units:
        return {}
    generic = family.catalog is None
    return {k: unit for k, unit in stated.items() if generic or not isinstance(unit, u.UnrecognizedUnit)}


def _refuse_columns(names: tuple[str, ...], families: list[Family], path: Path) -> None:
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


def _repeated(columns: dict[str, Float], reach_arcsec: float) -> Bool:
    """Return which rows lie where an earlier one does, so near that no image could tell them apart."""
    places = unit_vectors(np.radians(columns["ra_deg"]), np.radians(columns["dec_deg"]))
    again = np.zeros(len(places), dtype=bool)
    if len(places):
        pairs: Int = cKDTree(places).query_pairs(np.radians(reach_arcsec / 3600.0), output_type="ndarray")
        again[pairs.max(axis=1)] = True
    return again


def _check_rows(columns: dict[str, Float], path: Path, rows: Int) -> None:
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
            first = int(rows[bad.argmax()]) + 1
            raise CatalogFormatError(
                f"{int(bad.sum())} of {len(bad)} rows have {what}, first in row {first}",
                path,
                "correct the rows",
            )
