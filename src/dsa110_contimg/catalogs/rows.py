"""Rows of a catalogue file as numbers in wanted units, and the families of columns that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.catalogs.raw_table import KNOWN_FORMS, Block
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["Family", "Rows"]


class Rows:
    """The block of rows at hand: its columns as numbers, angles and flags."""

    def __init__(self, units: dict[str, u.UnitBase], path: Path) -> None:
        self.units, self.path = units, path
        self.block: Block = {}
        self.first, self.n = 1, 0

    def take(self, block: Block) -> None:
        """Turn to the next block."""
        self.first += self.n
        self.block, self.n = block, len(next(iter(block.values())))

    def has(self, name: str) -> bool:
        """Return whether the file has a column."""
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

    def native(self, name: str, unit: u.UnitBase, wanted: u.UnitBase) -> Float:
        """Return a column that is in ``unit``, unless the file states another, as floats in ``wanted``."""
        if self.units.get(name) is not None:
            return self.floats(name, wanted)
        return self.floats(name, None) * float(unit.to(wanted))

    def pick(self, *names: str) -> str:
        """Return the first of some names that the file has; the last if it has none."""
        return next((name for name in names if self.has(name)), names[-1])

    def texts(self, name: str) -> NDArray[np.str_]:
        """Return a column of words; what was read as numbers becomes words again."""
        return self.block[name].astype(str)

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


@dataclass(frozen=True)
class Family:
    """Columns known by name, and how they become those of the internal table.

    A word of ``required`` may give alternatives, ``a|b``. What `convert` returns may hold, beside columns of
    the internal table, ``keep``: which rows are taken. ``notes`` are for who uses the fluxes and sizes;
    ``refuses`` names columns that give another kind of table away, what it does, and what to do; without any
    column of ``sizes`` all sources are points.
    """

    name: str
    title: str
    catalog: str | None
    required: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[Rows], dict[str, Float]]
    trust_units: bool = True
    notes: tuple[str, ...] = ()
    refuses: tuple[tuple[str, str, str], ...] = ()
    sizes: tuple[str, ...] = ()

    @property
    def knows(self) -> set[str]:
        """All columns that are read."""
        return {name for word in (*self.required, *self.optional) for name in word.split("|")}

    def lacking(self, names: tuple[str, ...]) -> list[str]:
        """Return the words of ``required`` that none of some names fits."""
        return [word for word in self.required if not set(word.split("|")) & set(names)]

    def needs(self, names: tuple[str, ...]) -> bool:
        """Return whether some names are all that is needed."""
        return not self.lacking(names)
