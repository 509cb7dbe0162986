"""Plots as plain values that the template draws: small, sharp, and in the colours of the page.

A mark is a path of SVG in the units of its plot. A dot is a line of no length: its round or square end is
what is seen, at a few bytes a point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float

__all__ = ["SHAPES", "Axis", "Frame", "Marks", "Note", "Plot", "path_of", "shape_path"]

#: Width of a letter or a digit, in the units of a plot.
LETTER = 7.0
#: The same of the numbers of an axis, which are larger on a small screen.
WIDE_LETTER = 10.0


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes
    ----------
    label : str
        What it is, with its unit.
    low, high : float
        Its ends.
    log : bool
        Whether it is logarithmic.
    ticks : tuple of float, optional
        Where numbers stand; chosen if not given.
    """

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()

    @classmethod
    def around(
        cls, label: str, values: ArrayLike, *, log: bool = False, include: Sequence[float] = ()
    ) -> Axis:
        """Return an axis that reaches a little beyond all finite values."""
        known = np.append(np.asarray(values, dtype=np.float64).ravel(), include)
        known = known[np.isfinite(known) & ((known > 0) | (not log))]
        if known.size == 0:
            return cls(label, 0.1, 10.0, log) if log else cls(label, 0.0, 1.0)
        low, high = float(known.min()), float(known.max())
        if log:
            return cls(label, low / 1.25, high * 1.25, log)
        margin = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(label, low - margin, high + margin)

    def fraction(self, values: ArrayLike) -> Float:
        """Places along the axis, from 0 to 1; what lies beyond its ends is put at them."""
        x = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        if self.log:
            return np.asarray(np.log(x / self.low) / np.log(self.high / self.low))
        return np.asarray((x - self.low) / (self.high - self.low))

    @property
    def numbers(self) -> list[tuple[float, str]]:
        """Values with their texts, where the axis bears numbers."""
        values = [float(v) for v in (self.ticks or self._chosen()) if self._inside(float(v))]
        step = min(np.diff(values), default=1.0)
        largest = max(map(abs, values), default=1.0)
        # As many digits as tell neighbours apart.
        digits = 4 if self.log else max(3, math.ceil(math.log10(max(largest / step, 1.0))) + 2)
        # Nobody reads metres with an exponent.
        forms = [".0f" if 1e2 <= abs(v) < 1e6 and v == round(v) else f".{digits}g" for v in values]
        texts = [format(round(v, 12), form) for v, form in zip(values, forms, strict=True)]
        return [(v, text.replace("-", "\u2212")) for v, text in zip(values, texts, strict=True)]

    def _chosen(self) -> Float:
        if self.log:
            # The coarsest that gives some numbers.
            for subs in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
                found = [v for v in LogLocator(subs=subs).tick_values(self.low, self.high) if self._inside(v)]
                if len(found) > 2:
                    return np.asarray(found)
        return np.asarray(MaxNLocator(5).tick_values(self.low, self.high))

    def _inside(self, value: float) -> bool:
        slack = 1e-9 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack


@dataclass(frozen=True)
class Frame:
    """Size of a plot, its margins (left, right, top, bottom), and whether names stand beside its axes."""

    width: float = 560.0
    height: float = 300.0
    left: float = 66.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 46.0
    is_named: bool = True

    @property
    def inner(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of what the axes enclose."""
        return self.left, self.width - self.right, self.top, self.height - self.bottom


@dataclass(frozen=True)
class Marks:
    """Marks of one kind.

    Attributes
    ----------
    style : str
        Classes of the style sheet: colour (``s0`` and so on) and shape.
    path : str
        Path of SVG.
    title : str
        Shown while the pointer is over it.
    group : str
        Of marks of which one group at a time is shown: which; empty for what is always shown.
    """

    style: str
    path: str
    title: str = ""
    group: str = ""


@dataclass(frozen=True)
class Note:
    """A word beside a mark."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(eq=False)
class Plot:
    """A plot to be drawn by the template.

    Attributes
    ----------
    alt : str
        What is seen on it, in words.
    x, y : Axis
        Its axes.
    frame : Frame
        Its size.
    marks : list of Marks
        In the order in which they are drawn.
    notes : list of Note
        Words.
    caption : str
        What follows from it, in a sentence.
    background : str
        Data URI of an image that fills the axes, or empty.
    group : str
        Group of the marks that are added from here on.
    alts : dict of str to str
        What is seen of each group, in words.
    """

    alt: str
    x: Axis
    y: Axis
    frame: Frame = field(default_factory=Frame)
    marks: list[Marks] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    caption: str = ""
    background: str = ""
    group: str = ""
    alts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The name of the axis stands beside the longest of its numbers.
        if not self.frame.is_named:
            return
        widest = max((len(text) for _, text in self.y.numbers), default=0)
        self.frame = replace(self.frame, left=max(self.frame.left, 34 + WIDE_LETTER * widest))

    @property
    def layers(self) -> list[tuple[str, list[Marks]]]:
        """Marks by their group, in the order in which they came."""
        found: dict[str, list[Marks]] = {}
        for mark in self.marks:
            found.setdefault(mark.group, []).append(mark)
        return list(found.items())

    def places(self, x: ArrayLike, y: ArrayLike) -> tuple[Float, Float]:
        """Places of values in the units of the plot."""
        left, right, top, bottom = self.frame.inner
        return left + (right - left) * self.x.fraction(x), bottom - (bottom - top) * self.y.fraction(y)

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places and texts along the x axis."""
        return [(round(float(self.places(v, self.y.low)[0]), 1), text) for v, text in self.x.numbers]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places and texts along the y axis."""
        return [(round(float(self.places(self.x.low, v)[1]), 1), text) for v, text in self.y.numbers]

    def add(self, style: str, x: ArrayLike, y: ArrayLike, *, title: str = "") -> None:
        """Add marks where both values are numbers; the last class of the style is the shape."""
        px, py = (np.atleast_1d(v) for v in self.places(x, y))
        known = np.isfinite(px) & np.isfinite(py)
        if known.any():
            path = shape_path(style.split()[-1], px[known], py[known])
            self.marks.append(Marks(style, path, title, self.group))

    def add_bars(self, style: str, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
        """Add upright bars from one value to another: errors."""
        px, py = (np.atleast_1d(v) for v in self.places(x, low))
        top = np.atleast_1d(self.places(x, high)[1])
        known = np.isfinite(px) & np.isfinite(py) & np.isfinite(top) & (py - top >= 1)
        if known.any():
            bars = zip(px[known], py[known], top[known], strict=True)
            path = "".join(f"M{_n(a)} {_n(b)}V{_n(c)}" for a, b, c in bars)
            self.marks.append(Marks(style, path, group=self.group))

    def add_line(self, style: str, x: ArrayLike, y: ArrayLike, *, title: str = "") -> None:
        """Add a line through points."""
        px, py = (np.atleast_1d(v) for v in self.places(x, y))
        self.marks.append(Marks(f"{style} line", path_of(zip(px, py, strict=True)), title, self.group))

    def add_note(self, x: float, y: float, text: str) -> None:
        """Write a word beside a point where there is room for it; nowhere if there is none."""
        px, py = (float(v) for v in self.places(x, y))
        left = px > 0.7 * self.frame.width
        side = -7 if left else 7
        for below in (-4, 12, -16, 24):
            note = Note(px + side, max(py + below, self.frame.top + 9), text, "end" if left else "start")
            if not any(_overlap(note, other) for other in self.notes):
                self.notes.append(note)
                return


def _overlap(one: Note, other: Note) -> bool:
    """Whether two words touch, if a letter is `LETTER` wide and twelve high."""

    def ends(note: Note) -> tuple[float, float]:
        width = LETTER * len(note.text)
        return (note.x - width, note.x) if note.anchor == "end" else (note.x, note.x + width)

    (a, b), (c, d) = ends(one), ends(other)
    return abs(one.y - other.y) < 12 and a < d and c < b


def path_of(points: Iterable[tuple[float, float]]) -> str:
    """Path through points."""
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


#: Each mark is drawn from its middle.
SHAPES = {
    "dot": "h0",
    "square": "h0",
    "cross": "m-3-3l6 6m-6 0l6-6",
    "triangle": "m0-5l5 8.5h-10z",
    "diamond": "m0-5.5l5 5.5l-5 5.5l-5-5.5z",
    "ring": "m-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0z",
    "plus": "m-2.5 0h5m-2.5-2.5v5",
    "star": "m-5 0h10m-7.5-4.3l5 8.6m0-8.6l-5 8.6",
}


def shape_path(shape: str, x: Float, y: Float) -> str:
    """Path of one shape at each of some points."""
    return "".join(f"M{_n(a)} {_n(b)}{SHAPES[shape]}" for a, b in zip(x, y, strict=True))


def _n(value: float) -> str:
    """Write a number with one digit at the most behind its point."""
    return f"{value:.1f}".removesuffix(".0")
