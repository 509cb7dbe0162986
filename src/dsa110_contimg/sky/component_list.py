"""Component lists as text: saved by WSClean (``-save-source-list``), read by DP3 and BBS (``makesourcedb``).

A line that says the format names the columns and may give each a default; then comes a component a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import SkyModelError
from dsa110_contimg.sky.components import APPARENT_LINE, ARCSEC, SkyModel
from dsa110_contimg.sky.shapes import shapes_from_plane
from dsa110_contimg.sky.spectra import carry_spectra

__all__ = ["ListedComponent", "find_format", "joined_components", "read_component_list"]

#: Columns that DP3 assumes where a list does not name them.
DEFAULT_COLUMNS = "Name,Type,Ra,Dec,I,Q,U,V,MajorAxis,MinorAxis,Orientation"
#: Columns that change nothing of Stokes I.
WITHOUT_EFFECT = {
    *("patch", "category", "dummy", "", "rotationmeasure", "polarizedfraction"),
    *("polarizationangle", "referencewavelength", "ishapelet", "qshapelet", "ushapelet", "vshapelet"),
}
KNOWN = {
    *("name", "type", "reftype", "ra", "dec", "i", "q", "u", "v", "spectralindex", "logarithmicsi"),
    *("referencefrequency", "majoraxis", "minoraxis", "orientation", "orientationisabsolute"),
} | WITHOUT_EFFECT
BEFORE = re.compile(r"^\s*#?\s*\(?\s*format\s*=\s*(.*?)\s*$", re.IGNORECASE)
BEHIND = re.compile(r"^\s*#\s*\((.*)\)\s*=\s*format\s*$", re.IGNORECASE)
FIELD = re.compile(r"\s*([A-Za-z0-9_:]*)\s*(?:=\s*(fixed)?\s*(?:'([^']*)'|\"([^\"]*)\"))?\s*", re.IGNORECASE)
BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


@dataclass(frozen=True)
class ListedComponent:
    """One component as a list gives it.

    Attributes
    ----------
    name : str
        Name.
    ra_rad, dec_rad : float
        Direction, radians.
    flux_jy, reference_freq_hz : float
        Flux density, and its frequency; not a number where the spectrum is flat.
    terms : tuple of float
        Spectral terms; in jansky where the spectrum is linear.
    linear : bool
        Whether they are of the flux itself.
    major_rad, minor_rad, pa_rad : float
        Full widths and position angle.
    absolute : bool
        Whether the shape is counted from north at the component, on the sky; else it is one in the plane of
        l and m about the phase centre.
    polarized_jy : float
        Flux density in Q, U and V.
    """

    name: str
    ra_rad: float
    dec_rad: float
    flux_jy: float
    reference_freq_hz: float = float("nan")
    terms: tuple[float, ...] = ()
    linear: bool = False
    major_rad: float = 0.0
    minor_rad: float = 0.0
    pa_rad: float = 0.0
    absolute: bool = True
    polarized_jy: float = 0.0


@dataclass(frozen=True)
class _Column:
    name: str
    default: str = ""
    fixed: bool = False


def find_format(lines: Sequence[str]) -> str | None:
    """Find what a text says of its columns; None if it says nothing."""
    for line in lines:
        found = BEHIND.match(line) or BEFORE.match(line)
        if found:
            return found[1]
        if line.strip() and not line.lstrip().startswith("#"):
            words = [word.strip().upper() for word in line.split(",")]
            return DEFAULT_COLUMNS if len(words) > 4 and words[1] in ("POINT", "GAUSSIAN") else None
    return None


def read_component_list(path: Path, lines: Sequence[str]) -> tuple[list[ListedComponent], bool]:
    """Read a component list of WSClean, DP3 or BBS.

    Parameters
    ----------
    path : Path
        The file, for what is said of it.
    lines : sequence of str
        Its lines.

    Returns
    -------
    components : list of ListedComponent
        One for each source; patches are left out.
    apparent : bool
        Whether the list itself says that its fluxes hold the beam.

    Raises
    ------
    SkyModelError
        If something in it cannot be read or predicted; it names line and column.
    """
    text = find_format(lines)
    assert text is not None
    columns, comma = _columns(path, text)
    out = []
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if not bare or bare.startswith("#") or BEFORE.match(line):
            continue
        row = _Row(path, number, columns, _split(bare, comma))
        if row.text("name"):
            out.append(_component(row))
    return out, any(line.strip() == APPARENT_LINE for line in lines)


def joined_components(
    path: Path, listed: Sequence[ListedComponent], reference_freq_hz: float, centre: tuple[float, float]
) -> SkyModel:
    """Turn components with spectra and shapes of their own into a model with one reference frequency.

    Parameters
    ----------
    path : Path
        The file, for what is said of it.
    listed : sequence of ListedComponent
        The components.
    reference_freq_hz : float
        Frequency at which the model gives its fluxes.
    centre : (float, float)
        Phase centre in radians, about which shapes are counted that are not absolute.

    Returns
    -------
    SkyModel
    """
    n, k = len(listed), max((len(c.terms) for c in listed), default=0)
    flux, terms = np.array([c.flux_jy for c in listed]), np.zeros((n, max(k, 1)))
    linear = np.array([c.linear and bool(c.terms) for c in listed], dtype=bool)
    for row, c in enumerate(listed):
        scale = c.flux_jy if linear[row] else 1.0
        if linear[row] and c.flux_jy == 0 and any(c.terms):
            raise SkyModelError(
                f"component {c.name} has no flux at its reference frequency, but terms of a linear spectrum",
                path,
                "give it at another frequency",
            )
        terms[row, : len(c.terms)] = np.array(c.terms) / (scale if scale else 1.0)
    given = np.array([c.reference_freq_hz for c in listed])
    for freq in np.unique(given[np.isfinite(given)]):
        of = given == freq
        ratio, terms[of] = carry_spectra(reference_freq_hz / float(freq), terms[of], linear[of])
        flux[of] *= ratio
    if not np.isfinite(terms).all():
        name = listed[int(np.argmin(np.isfinite(terms).all(axis=1)))].name
        raise SkyModelError(
            f"the spectrum of {name} is zero at {reference_freq_hz / 1e6:g} MHz", path, "leave it out"
        )
    ra, dec = np.array([c.ra_rad for c in listed]), np.array([c.dec_rad for c in listed])
    return SkyModel(
        tuple(c.name for c in listed),
        ra,
        dec,
        flux,
        terms[:, 0],
        *_shapes(listed, ra, dec, centre),
        reference_freq_hz,
        curvature=terms[:, 1:] if k > 1 else None,
        is_linear=linear if linear.any() else None,
    )


def _shapes(
    listed: Sequence[ListedComponent], ra: Float, dec: Float, centre: tuple[float, float]
) -> tuple[Float, Float, Float]:
    """Widths and position angles on the sky."""
    given = [np.array([getattr(c, name) for c in listed]) for name in ("major_rad", "minor_rad", "pa_rad")]
    wide = (given[0] > 0) | (given[1] > 0)
    swapped = given[1] > given[0]
    major, minor = np.where(swapped, given[1], given[0]), np.where(swapped, given[0], given[1])
    pa = np.mod(given[2] + np.where(swapped, np.pi / 2, 0.0), np.pi)
    flat = wide & ~np.array([c.absolute for c in listed], dtype=bool)
    if flat.any():
        of = major[flat], minor[flat], pa[flat]
        major[flat], minor[flat], pa[flat] = shapes_from_plane(ra[flat], dec[flat], of, centre)
    return major, minor, pa


class _Row:
    """One line, by column."""

    def __init__(self, path: Path, number: int, columns: Sequence[_Column], values: Sequence[str]) -> None:
        self.path, self.number, self._values = path, number, {}
        if len(values) > len(columns) and any(values[len(columns) :]):
            raise SkyModelError(
                f"has {len(values)} values, its format {len(columns)} columns",
                self.where(),
                "correct the line",
            )
        for k, column in enumerate(columns):
            value = values[k] if k < len(values) else ""
            if not value or column.fixed:
                value = column.default
            self._values[column.name.lower()] = value.strip("'\"").strip()

    def where(self, column: str = "") -> str:
        return f"{self.path}, line {self.number}{f', column {column}' if column else ''}"

    def text(self, column: str) -> str:
        return self._values.get(column.lower(), "")

    def wrong(self, column: str, what: str, remedy: str = "correct the value") -> SkyModelError:
        return SkyModelError(what, self.where(column), remedy)

    def number_in(self, column: str, default: float | None = None) -> float:
        text = self.text(column)
        if not text and default is not None:
            return default
        return self.number_of(column, text)

    def number_of(self, column: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise self.wrong(column, f"{text!r} is not a number" if text else "there is no value")
        return value

    def boolean(self, column: str, default: bool) -> bool:
        text = self.text(column).lower()
        if not text:
            return default
        if text not in BOOLEANS:
            raise self.wrong(column, f"{text!r} is neither true nor false")
        return BOOLEANS[text]


def _columns(path: Path, text: str) -> tuple[list[_Column], bool]:
    parts = _split(text, True) if "," in text else _split(text, False)
    out = []
    for part in parts:
        found = FIELD.fullmatch(part)
        if found is None:
            raise SkyModelError(f"its format line has {part!r}", path, "name columns: NAME or NAME='default'")
        out.append(_Column(found[1], found[3] or found[4] or "", found[2] is not None))
    names = [column.name.lower() for column in out]
    unknown = [column.name for column in out if column.name.lower() not in KNOWN]
    needed = [name for name in ("Name", "Ra", "Dec", "I") if name.lower() not in names]
    if needed:
        raise SkyModelError(f"its format line names no column {needed[0]}", path, "add it")
    # One that nobody knows is one that nobody uses; parts of a position are not.
    parts_of_positions = [name for name in unknown if re.fullmatch(r"(?i)(ra|dec)[hdms]", name)]
    if parts_of_positions:
        raise SkyModelError(
            f"its format line names a column {parts_of_positions[0]}", path, "give whole positions: Ra, Dec"
        )
    return out, "," in text


def _split(line: str, comma: bool) -> list[str]:
    """Split at separators outside brackets and quotes."""
    pattern = (
        r"""((?:\[[^\]]*\]|'[^']*'|"[^"]*"|[^,])*)(?:,|$)""" if comma else r"((?:\[[^\]]*\]|\S)+)(?:\s+|$)"
    )
    parts = [part.strip() for part in re.findall(pattern, line)]
    # The pattern finds an empty part behind the last one.
    return parts[:-1] if comma and parts and not parts[-1] and not line.rstrip().endswith(",") else parts


def _component(row: _Row) -> ListedComponent:
    kind = row.text("type").upper() or "POINT"
    if kind not in ("POINT", "GAUSSIAN"):
        raise row.wrong("Type", f"{kind} cannot be predicted", "give points and Gaussians")
    if row.text("reftype") not in ("", "J2000"):
        raise row.wrong("RefType", f"positions of {row.text('reftype')} are not read", "give J2000")
    terms = _terms(row)
    freq = row.number_in("ReferenceFrequency", float("nan") if not any(terms) else None)
    if any(terms) and not freq > 0:
        raise row.wrong("ReferenceFrequency", f"{freq:g} Hz is not positive")
    widths = [0.0, 0.0]
    if kind == "GAUSSIAN":
        widths = [row.number_in(column) for column in ("MajorAxis", "MinorAxis")]
        for column, width in zip(("MajorAxis", "MinorAxis"), widths, strict=True):
            if width < 0:
                raise row.wrong(column, f"a width of {width:g} arcsec is negative")
    return ListedComponent(
        name=row.text("name"),
        ra_rad=_position(row, "Ra"),
        dec_rad=_position(row, "Dec"),
        flux_jy=row.number_in("I"),
        reference_freq_hz=freq if any(terms) else float("nan"),
        terms=terms,
        linear=not row.boolean("LogarithmicSI", True),
        major_rad=widths[0] * ARCSEC,
        minor_rad=widths[1] * ARCSEC,
        pa_rad=float(np.radians(row.number_in("Orientation", 0.0))) if kind == "GAUSSIAN" else 0.0,
        absolute=row.boolean("OrientationIsAbsolute", False),
        polarized_jy=float(np.linalg.norm([row.number_in(stokes, 0.0) for stokes in "QUV"])),
    )


def _terms(row: _Row) -> tuple[float, ...]:
    text = row.text("SpectralIndex")
    if text.startswith("[") != text.endswith("]"):
        raise row.wrong("SpectralIndex", f"{text!r} lacks a bracket")
    words = [word.strip() for word in text.strip("[]").split(",")]
    return tuple(row.number_of("SpectralIndex", word) for word in words if word)


def _position(row: _Row, column: str) -> float:
    """Read an angle as casacore does: colons are hours, dots degrees; radians."""
    text = row.text(column)
    remedy = "write hh:mm:ss.s" if column == "Ra" else "write +dd.mm.ss.s"
    if ":" in text and column == "Dec":
        raise row.wrong(column, f"{text!r} has colons, which mean hours", remedy)
    number = r"(\d+(?:\.\d*)?)"
    patterns = (
        (r"([+-]?)(\d+):(\d+):" + number, 15.0),
        (r"([+-]?)(\d+)h(\d+)m" + number + "s?", 15.0),
        (r"([+-]?)(\d+)\.(\d+)\." + number, 1.0),
        (r"([+-]?)(\d+)d(\d+)m" + number + "s?", 1.0),
    )
    degrees = float("nan")
    for pattern, scale in patterns:
        found = re.fullmatch(pattern, text, re.IGNORECASE)
        if found and float(found[3]) < 60 and float(found[4]) < 60:
            size = int(found[2]) + int(found[3]) / 60 + float(found[4]) / 3600
            degrees = scale * (-size if found[1] == "-" else size)
    unit = re.fullmatch(r"(.*?)\s*(deg|rad)", text)
    if unit:
        degrees = row.number_of(column, unit[1]) * (1.0 if unit[2] == "deg" else 180 / np.pi)
    if not np.isfinite(degrees):
        raise row.wrong(column, f"{text!r} is not an angle" if text else "there is no value", remedy)
    if column == "Dec" and abs(degrees) > 90:
        raise row.wrong(column, f"a declination of {degrees:g} degrees is not on the sky")
    return float(np.radians(degrees % 360 if column == "Ra" else degrees))
