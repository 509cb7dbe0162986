"""A beam as it was measured or computed: an image cube in a FITS file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.ndimage
from astropy import units
from astropy.io import fits
from numpy.typing import ArrayLike

from dsa110_contimg.array_types import Float, Int, Single
from dsa110_contimg.errors import InputError
from dsa110_contimg.sky.beam import UNIFORM_NULLS, UNIFORM_WIDTH, chords

__all__ = ["FileBeam", "read_beam_file"]

#: Names of axes, before a dash: eastward, northward, and the frequency.
EAST, NORTH, FREQUENCY = ("RA", "L", "X"), ("DEC", "M", "Y"), ("FREQ",)
#: Fewer pixels a side make no beam.
FEWEST_PIXELS = 8
#: The response on the axis may be this much below the highest of a plane: a beam that looks elsewhere is not
#: one of a dish that points.
LEAST_ON_AXIS = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class FileBeam:
    """Power or voltage response on a grid of directions and frequencies.

    Between frequencies it is a mean of the two nearest planes, each scaled in angle by the ratio of its
    frequency to that which is asked for. Between pixels it is a cubic spline, outside the grid zero.

    Parameters
    ----------
    path : Path
        The file.
    spline : ndarray, shape (nplane, ny, nx)
        Coefficients of the cubic splines of the planes, one on the axis.
    freq_hz : ndarray, shape (nplane,)
        Frequencies of the planes, ascending.
    margin_hz : float
        How far outside them the file still holds: half the distance of its planes.
    origin, step_rad : ndarray, shape (2,)
        Pixel of the axis, x and y, and size of a pixel eastward and northward with its sign.
    kind : str
        power or voltage: what the planes hold.
    turned_rad : float
        Parallactic angle: how far the north of the file is turned to the east on the sky.
    width : float
        How many times as wide as in the file.
    """

    form: ClassVar[str] = "file"

    path: Path
    spline: Float
    freq_hz: Float
    margin_hz: float
    origin: Float
    step_rad: Float
    kind: Literal["power", "voltage"]
    turned_rad: float = 0.0
    width: float = 1.0
    _fwhm: dict[int, float] = field(default_factory=dict, repr=False)

    def require(self, freq_hz: Float) -> None:
        """Raise InputError if the file does not hold for all of these frequencies."""
        low, high = self.freq_hz[0] - self.margin_hz, self.freq_hz[-1] + self.margin_hz
        if freq_hz.min() < low or freq_hz.max() > high:
            raise InputError(
                f"its beams are for {low / 1e6:.2f} to {high / 1e6:.2f} MHz, the data are at "
                f"{freq_hz.min() / 1e6:.2f} to {freq_hz.max() / 1e6:.2f} MHz",
                self.path,
                "give a file that covers them, or choose windows with --spw",
            )

    def voltage_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Voltage response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        found = self._response(lmn, np.zeros((1, 2)), np.atleast_1d(np.asarray(freq_hz, dtype=np.float64)))
        return found[:, :, 0] if self.kind == "voltage" else np.sqrt(found[:, :, 0])

    def power_towards(self, lmn: Float, freq_hz: ArrayLike) -> Float:
        """Power response relative to the axis, of directions of shape (n, 3); shape (n, nchan)."""
        found = self._response(lmn, np.zeros((1, 2)), np.atleast_1d(np.asarray(freq_hz, dtype=np.float64)))
        return found[:, :, 0] ** 2 if self.kind == "voltage" else found[:, :, 0]

    def voltages(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Single:
        """Voltage responses of antennas that point off by (nant, 2) east and north; (n, nchan, nant)."""
        found = self._response(lmn, axes_rad, freq_hz)
        return np.asarray(found if self.kind == "voltage" else np.sqrt(found), dtype=np.float32)

    def fwhm_rad(self, freq_hz: float) -> float:
        """Full width at half power, of the round beam of the same area above it, radians."""
        nearest = int(np.argmin(np.abs(self.freq_hz - freq_hz)))
        if nearest not in self._fwhm:
            ny, nx = self.spline.shape[1:]
            rows, columns = np.mgrid[:ny, :nx]
            plane = scipy.ndimage.map_coordinates(
                self.spline[nearest], [rows, columns], order=3, prefilter=False, mode="mirror"
            )
            island, _ = scipy.ndimage.label((plane**2 if self.kind == "voltage" else plane) >= 0.5)
            column, row = np.round(self.origin).astype(int)
            axis = island[row, column]
            area = np.count_nonzero(island == axis) * abs(float(self.step_rad.prod()))
            self._fwhm[nearest] = float(2 * np.sqrt(area / np.pi)) * float(self.freq_hz[nearest])
        return self.width * self._fwhm[nearest] / freq_hz

    def null_rad(self, freq_hz: float, order: int = 1) -> float:
        """Radius of the null of a uniform aperture as wide, radians; not beyond the corners of the grid."""
        ny, nx = self.spline.shape[1:]
        corner = np.maximum(self.origin, [nx - 1, ny - 1] - self.origin) * np.abs(self.step_rad)
        reach = np.hypot(*corner) * self.width * self.freq_hz[-1] / freq_hz
        return float(min(UNIFORM_NULLS[order] / UNIFORM_WIDTH * self.fwhm_rad(freq_hz), reach, np.pi / 2))

    def widened(self, factor: float) -> Self:
        """Return the same beam, wider by a factor."""
        return replace(self, width=self.width * factor)

    def turned(self, parallactic_rad: float) -> FileBeam:
        """Return the beam of a dish whose up is turned from the north to the east by an angle."""
        return replace(self, turned_rad=parallactic_rad)

    def rounded(self) -> FileBeam:
        """Return its mean over all directions around the axis."""
        ny, nx = self.spline.shape[1:]
        rows, columns = np.mgrid[:ny, :nx]
        x, y = (columns - self.origin[0]) * self.step_rad[0], (rows - self.origin[1]) * self.step_rad[1]
        radius = np.hypot(x, y)
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        planes = []
        for plane in self.spline:
            mean = np.zeros(radius.shape)
            for angle in angles:
                at = radius * np.cos(angle), radius * np.sin(angle)
                places = [
                    at[1] / self.step_rad[1] + self.origin[1],
                    at[0] / self.step_rad[0] + self.origin[0],
                ]
                mean += scipy.ndimage.map_coordinates(
                    plane, places, order=3, prefilter=False, mode="constant"
                )
            planes.append(scipy.ndimage.spline_filter(mean / angles.size, order=3))
        return replace(self, spline=np.array(planes), _fwhm={})

    def _response(self, lmn: Float, axes_rad: Float, freq_hz: Float) -> Float:
        """Give what the planes hold, shape (n, nchan, nant).

        An axis that points off by d is a shift by d of direction cosines: exact to the square of the field's
        radius times d.
        """
        behind = ~np.isfinite(chords(lmn, axes_rad))
        l, m = (lmn[:, k, None] - axes_rad[:, k] for k in (0, 1))  # noqa: E741
        cos, sin = np.cos(self.turned_rad), np.sin(self.turned_rad)
        east, north = (l * cos - m * sin) / self.width, (l * sin + m * cos) / self.width
        below, part = self._planes(freq_hz)
        out = np.zeros((len(lmn), freq_hz.size, len(axes_rad)))
        for c, freq in enumerate(freq_hz):
            for plane, share in ((below[c], 1 - part[c]), (below[c] + 1, part[c])):
                if share == 0:
                    continue
                scale = freq / self.freq_hz[plane]
                places = [
                    north * scale / self.step_rad[1] + self.origin[1],
                    east * scale / self.step_rad[0] + self.origin[0],
                ]
                out[:, c] += share * scipy.ndimage.map_coordinates(
                    self.spline[plane], places, order=3, prefilter=False, mode="constant"
                )
        if self.kind == "power":
            # A spline dips below zero beside a null.
            np.maximum(out, 0.0, out=out)
        out[np.broadcast_to(behind[:, None], out.shape)] = 0.0
        return out

    def _planes(self, freq_hz: Float) -> tuple[Int, Float]:
        """Planes below frequencies, and how far these are on the way to the next ones."""
        n = self.freq_hz.size
        if n == 1:
            return np.zeros(freq_hz.size, dtype=np.int64), np.zeros(freq_hz.size)
        below = np.clip(np.searchsorted(self.freq_hz, freq_hz, side="right") - 1, 0, n - 2)
        part = (freq_hz - self.freq_hz[below]) / (self.freq_hz[below + 1] - self.freq_hz[below])
        return below.astype(np.int64), np.clip(part, 0.0, 1.0)


def read_beam_file(path: Path, kind: Literal["power", "voltage"] = "power") -> FileBeam:
    """Read a beam from an image cube.

    Parameters
    ----------
    path : Path
        FITS file. Its first image has two axes of directions, RA and DEC, L and M, or X and Y (eastward), in
        degrees unless CUNIT says otherwise; one of frequency; others of length one. Directions of RA and DEC
        are offsets from the reference value, others from zero.
    kind : str
        power or voltage, of one polarisation or the mean of both.

    Returns
    -------
    FileBeam
        One on the axis.

    Raises
    ------
    InputError
        If it is no such file, or holds no beam.
    """
    try:
        with fits.open(path, memmap=False) as opened:
            image = next((hdu for hdu in opened if hdu.is_image and hdu.data is not None), None)
            if image is None:
                raise _unfit(path, "it has no image")
            header, data = image.header, np.asarray(image.data, dtype=np.float64)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unfit(path, reason) from None
    east, north, frequency = (_axis(header, names, path) for names in (EAST, NORTH, FREQUENCY))
    axes = [data.ndim - 1 - k for k in (frequency, north, east)]
    others = [k for k in range(data.ndim) if k not in axes]
    if any(data.shape[k] != 1 for k in others):
        raise _unfit(path, "it has a further axis that is longer than one: one polarisation is wanted")
    cube = np.moveaxis(data, axes, [0, 1, 2]).reshape([data.shape[k] for k in axes])
    n_planes, ny, nx = cube.shape
    if min(nx, ny) < FEWEST_PIXELS:
        raise _unfit(path, f"its planes have {nx} x {ny} pixels")
    freq = _values(header, frequency, n_planes, "Hz", path)
    order = np.argsort(freq)
    freq, cube = freq[order], cube[order]
    spacing = np.diff(freq).max(initial=0.0) if n_planes > 1 else abs(_step(header, frequency, "Hz", path))
    if not freq[0] > 0 or (n_planes > 1 and not np.diff(freq).min() > 0):
        raise _unfit(path, "its frequencies are not positive and different")
    step = np.array([_step(header, k, "rad", path) for k in (east, north)])
    if not (np.isfinite(step) & (step != 0)).all():
        raise _unfit(path, "its pixels have no size")
    origin = np.array([_origin(header, k, path) for k in (east, north)])
    if not ((origin > 1) & (origin < np.array([nx, ny]) - 2)).all():
        raise _unfit(path, "the axis of the beam, its reference direction or zero, is not inside the image")
    splines = np.array(
        [scipy.ndimage.spline_filter(np.nan_to_num(plane, posinf=0.0, neginf=0.0), order=3) for plane in cube]
    )
    on_axis = np.array(
        [scipy.ndimage.map_coordinates(s, origin[::-1, None], order=3, prefilter=False)[0] for s in splines]
    )
    highest = np.nanmax(np.where(np.isfinite(cube), np.abs(cube), np.nan), axis=(1, 2))
    if not (np.isfinite(highest) & (on_axis > 0) & (on_axis >= LEAST_ON_AXIS * highest)).all():
        raise _unfit(path, "the response on the axis is not the highest one")
    return FileBeam(
        path=path,
        spline=splines / on_axis[:, None, None],
        freq_hz=freq,
        margin_hz=float(spacing) / 2,
        origin=origin,
        step_rad=step,
        kind=kind,
    )


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"is not an image cube of a beam: {reason}",
        path,
        "give a FITS cube with axes RA, DEC (or L, M), FREQ",
    )


def _axis(header: Any, names: tuple[str, ...], path: Path) -> int:
    """Find the axis of such a name; from zero, in the order of FITS."""
    for k in range(int(header.get("NAXIS", 0))):
        if str(header.get(f"CTYPE{k + 1}", "")).strip().upper().split("-")[0] in names:
            return k
    raise _unfit(path, f"it has no axis {' or '.join(names[:2])}")


def _unit(header: Any, axis: int, to: str, path: Path) -> float:
    given = str(header.get(f"CUNIT{axis + 1}", "")).strip() or ("deg" if to == "rad" else to)
    try:
        return float(units.Unit(given).to(to))
    except (ValueError, units.UnitConversionError):
        raise _unfit(path, f"the unit of axis {axis + 1}, {given}, is not one of {to}") from None


def _number(header: Any, key: str, default: float, path: Path) -> float:
    try:
        return float(header.get(key, default))
    except (TypeError, ValueError):
        raise _unfit(path, f"{key} is not a number") from None


def _step(header: Any, axis: int, to: str, path: Path) -> float:
    return _number(header, f"CDELT{axis + 1}", 0.0, path) * _unit(header, axis, to, path)


def _values(header: Any, axis: int, n: int, to: str, path: Path) -> Float:
    reference = _number(header, f"CRPIX{axis + 1}", 1.0, path)
    start = _number(header, f"CRVAL{axis + 1}", 0.0, path) * _unit(header, axis, to, path)
    return np.asarray(start + (np.arange(n) + 1 - reference) * _step(header, axis, to, path))


def _origin(header: Any, axis: int, path: Path) -> float:
    """Pixel, from zero, of the axis of the beam."""
    at = _number(header, f"CRPIX{axis + 1}", 1.0, path) - 1
    if str(header[f"CTYPE{axis + 1}"]).strip().upper().split("-")[0] in ("RA", "DEC", "GLON", "GLAT"):
        return at
    step = _number(header, f"CDELT{axis + 1}", 0.0, path)
    return at - _number(header, f"CRVAL{axis + 1}", 0.0, path) / step if step else float("nan")
