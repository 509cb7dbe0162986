"""Sky models: lists of point and Gaussian components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.files import write_text
from dsa110_contimg.sky.directions import lmn_from_radec, north_turned
from dsa110_contimg.sky.shapes import shapes_in_plane
from dsa110_contimg.sky.spectra import carry_spectra, evaluate_spectra, padded_terms

__all__ = ["SkyModel"]

ARCSEC = np.pi / 180 / 3600
#: Line of a component list that says that its fluxes hold the beam.
APPARENT_LINE = "# Fluxes and spectra are apparent: they hold the primary beam, mean over the observation."


@dataclass(frozen=True)
class SkyModel:
    """Components of the sky, one row each.

    Parameters
    ----------
    name : tuple of str, length n
        Names.
    ra_rad, dec_rad : ndarray, shape (n,)
        ICRS directions in radians.
    flux_jy : ndarray, shape (n,)
        Stokes I flux density in jansky at `reference_freq_hz`.
    spectral_index : ndarray, shape (n,)
        Exponent alpha of flux proportional to frequency^alpha.
    major_rad, minor_rad, pa_rad : ndarray, shape (n,)
        Full widths at half maximum and position angle (north through east) of
        a Gaussian in radians; zero widths mean a point.
    reference_freq_hz : float
        Frequency of `flux_jy`.
    curvature : ndarray, shape (n, k), optional
        Further terms of the spectra, beyond the spectral index: see
        :mod:`dsa110_contimg.sky.spectra`.
    is_linear : ndarray of bool, shape (n,), optional
        Where the spectrum is a polynomial of the flux, not of its logarithm.
    is_apparent : ndarray of bool, shape (n,), optional
        Where the flux already holds the primary beam.
    """

    name: tuple[str, ...]
    ra_rad: Float
    dec_rad: Float
    flux_jy: Float
    spectral_index: Float
    major_rad: Float
    minor_rad: Float
    pa_rad: Float
    reference_freq_hz: float = 1.4e9
    curvature: Float | None = None
    is_linear: Bool | None = None
    is_apparent: Bool | None = None

    def __len__(self) -> int:
        return len(self.name)

    @classmethod
    def points(
        cls,
        ra_rad: Float,
        dec_rad: Float,
        flux_jy: Float,
        *,
        spectral_index: float = 0.0,
        reference_freq_hz: float = 1.4e9,
        prefix: str = "s",
    ) -> SkyModel:
        """Make a model of point sources sharing one spectral index."""
        n = len(ra_rad)
        zero = np.zeros(n)
        return cls(
            tuple(f"{prefix}{k}" for k in range(n)),
            np.asarray(ra_rad, dtype=np.float64),
            np.asarray(dec_rad, dtype=np.float64),
            np.asarray(flux_jy, dtype=np.float64),
            np.full(n, spectral_index),
            zero,
            zero,
            zero,
            reference_freq_hz,
        )

    @classmethod
    def concatenate(cls, models: Sequence[SkyModel]) -> SkyModel:
        """Join models, all brought to the first one's reference frequency."""
        first = models[0]
        carried = [m.carried_to(first.reference_freq_hz) for m in models]

        def join(attribute: str) -> Float:
            return np.concatenate([getattr(m, attribute) for m in carried])

        def marks(attribute: str) -> Bool | None:
            given = [getattr(m, attribute) for m in carried]
            if all(mark is None for mark in given):
                return None
            known = zip(carried, given, strict=True)
            return np.concatenate([np.zeros(len(m), bool) if mark is None else mark for m, mark in known])

        curvature = None
        if any(m.curvature is not None for m in carried):
            curvature = padded_terms([m._terms[:, 1:] for m in carried])
        return cls(
            tuple(name for m in carried for name in m.name),
            join("ra_rad"),
            join("dec_rad"),
            join("flux_jy"),
            join("spectral_index"),
            join("major_rad"),
            join("minor_rad"),
            join("pa_rad"),
            first.reference_freq_hz,
            curvature,
            marks("is_linear"),
            marks("is_apparent"),
        )

    def carried_to(self, reference_freq_hz: float) -> SkyModel:
        """Return the same model with its fluxes at another reference frequency, exactly.

        Raises
        ------
        ValueError
            If a linear spectrum is zero there.
        """
        if reference_freq_hz == self.reference_freq_hz:
            return self
        if self.curvature is None and self.is_linear is None:
            flux = self.flux_at(np.array([reference_freq_hz]))[:, 0]
            return replace(self, flux_jy=flux, reference_freq_hz=reference_freq_hz)
        ratio, terms = carry_spectra(reference_freq_hz / self.reference_freq_hz, self._terms, self._linear)
        if not np.isfinite(terms).all():
            which = self.name[int(np.argmin(np.isfinite(terms).all(axis=1)))]
            raise ValueError(f"the spectrum of {which} is zero at {reference_freq_hz / 1e6:g} MHz")
        return replace(
            self,
            flux_jy=self.flux_jy * ratio,
            spectral_index=terms[:, 0],
            curvature=None if self.curvature is None else terms[:, 1:],
            reference_freq_hz=reference_freq_hz,
        )

    def select(self, index: Bool | NDArray[np.int_]) -> SkyModel:
        """Return the components chosen by a boolean mask or an index array."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            name=tuple(self.name[k] for k in chosen),
            ra_rad=self.ra_rad[chosen],
            dec_rad=self.dec_rad[chosen],
            flux_jy=self.flux_jy[chosen],
            spectral_index=self.spectral_index[chosen],
            major_rad=self.major_rad[chosen],
            minor_rad=self.minor_rad[chosen],
            pa_rad=self.pa_rad[chosen],
            curvature=None if self.curvature is None else self.curvature[chosen],
            is_linear=None if self.is_linear is None else self.is_linear[chosen],
            is_apparent=None if self.is_apparent is None else self.is_apparent[chosen],
        )

    @property
    def _terms(self) -> Float:
        first = self.spectral_index[:, None]
        return first if self.curvature is None else np.concatenate([first, self.curvature], axis=1)

    @property
    def _linear(self) -> Bool:
        return np.zeros(len(self), bool) if self.is_linear is None else self.is_linear

    @property
    def apparent(self) -> Bool:
        """True where the flux already holds the primary beam, shape (n,)."""
        return np.zeros(len(self), bool) if self.is_apparent is None else self.is_apparent

    def traits(self) -> Float:
        """Everything but names and fluxes, by which equal components are known, shape (n, m)."""
        columns = (self.ra_rad, self.dec_rad, self._terms, self.major_rad, self.minor_rad, self.pa_rad)
        return np.column_stack([*columns, self._linear, self.apparent])

    def flux_at(self, freq_hz: Float) -> Float:
        """Flux density at given frequencies.

        Parameters
        ----------
        freq_hz : ndarray, shape (nchan,)
            Frequencies in hertz.

        Returns
        -------
        ndarray, shape (n, nchan)
            Flux density in jansky.
        """
        ratio = np.asarray(freq_hz, dtype=np.float64)[None, :] / self.reference_freq_hz
        if self.curvature is None and self.is_linear is None:
            return np.asarray(self.flux_jy[:, None] * ratio ** self.spectral_index[:, None])
        return np.asarray(self.flux_jy[:, None] * evaluate_spectra(ratio[0], self._terms, self._linear))

    def lmn(self, ra0_rad: float, dec0_rad: float) -> Float:
        """Direction cosines l, m, n - 1 about a phase centre, shape (n, 3)."""
        return lmn_from_radec(self.ra_rad, self.dec_rad, ra0_rad, dec0_rad)

    def shape_about(self, ra0_rad: float, dec0_rad: float) -> tuple[Float, Float, Float]:
        """Widths, and position angles as :func:`dsa110_contimg.predict.predict_components` counts them.

        North at a source is turned against north at the phase centre by the convergence of the meridians.

        Parameters
        ----------
        ra0_rad, dec0_rad : float
            Phase centre in radians.

        Returns
        -------
        major_rad, minor_rad, pa_rad : ndarray, shape (n,)
        """
        if self.is_point.all():
            return self.major_rad, self.minor_rad, self.pa_rad
        turned = self.pa_rad + north_turned(self.ra_rad, self.dec_rad, ra0_rad, dec0_rad)
        return self.major_rad, self.minor_rad, turned

    @property
    def is_point(self) -> Bool:
        """True where a component has no extent, shape (n,)."""
        return np.asarray(self.major_rad == 0)

    def write_wsclean(
        self, path: Path, flux_jy: Float | None = None, centre: tuple[float, float] | None = None
    ) -> None:
        """Write a WSClean component list (BBS-style text, J2000 axes).

        Parameters
        ----------
        path : Path
            File to write; written beside and renamed.
        flux_jy : ndarray, shape (n,), optional
            Fluxes to write in place of the model's own, e.g. apparent ones.
        centre : (float, float), optional
            Phase centre in radians: WSClean and DP3 take shapes to be in the plane of its l and m. Without
            it they are written as they are on the sky.
        """
        flux = self.flux_jy if flux_jy is None else flux_jy
        major, minor, pa = self.major_rad, self.minor_rad, self.pa_rad
        if centre is not None and not self.is_point.all():
            major, minor, pa = shapes_in_plane(self.ra_rad, self.dec_rad, (major, minor, pa), centre)
        lines = [
            "Format = Name, Type, Ra, Dec, I, SpectralIndex, LogarithmicSI, "
            f"ReferenceFrequency='{self.reference_freq_hz:.1f}', MajorAxis, MinorAxis, Orientation"
        ]
        if len(self) and self.apparent.all():
            lines.append(APPARENT_LINE)
        for k, (name, terms, linear) in enumerate(zip(self.name, self._terms, self._linear, strict=True)):
            kind = "POINT" if self.major_rad[k] == 0 else "GAUSSIAN"
            shape = (
                ",,"
                if kind == "POINT"
                else f"{major[k] / ARCSEC:.6f},{minor[k] / ARCSEC:.6f},{np.degrees(pa[k]):.5f}"
            )
            # Later terms of zero, which others need, are left out.
            used = terms[: max(1, int(np.flatnonzero(terms).max(initial=0)) + 1)]
            spectrum = ",".join(f"{term:.12g}" for term in (used * flux[k] if linear else used))
            lines.append(
                f"{name},{kind},{_hms(self.ra_rad[k])},{_dms(self.dec_rad[k])},{flux[k]:.9g},"
                f"[{spectrum}],{'false' if linear else 'true'},{self.reference_freq_hz:.1f},{shape}"
            )
        write_text(path, "\n".join(lines) + "\n")

    def write_ds9(self, path: Path, flux_jy: Float | None = None) -> None:
        """Write a DS9 region file; labels give the flux in mJy."""
        flux = self.flux_jy if flux_jy is None else flux_jy
        lines = ["# Region file format: DS9", "global color=cyan", "icrs"]
        for k, name in enumerate(self.name):
            ra, dec = np.degrees(self.ra_rad[k]), np.degrees(self.dec_rad[k])
            label = f"# text={{{name} {1e3 * flux[k]:.1f} mJy}}"
            if self.major_rad[k] == 0:
                lines.append(f"point({ra:.7f},{dec:.7f}) {label} point=circle")
            else:
                # A DS9 ellipse takes semi-axes along x (west) first; its angle turns from there.
                lines.append(
                    f'ellipse({ra:.7f},{dec:.7f},{self.minor_rad[k] / ARCSEC / 2:.3f}",'
                    f'{self.major_rad[k] / ARCSEC / 2:.3f}",{np.degrees(self.pa_rad[k]):.2f}) {label}'
                )
        write_text(path, "\n".join(lines) + "\n")


def _sexagesimal(value: float, digits: int) -> tuple[int, int, float]:
    scale = 10**digits
    ticks = round(value * 3600 * scale)
    whole, rest = divmod(ticks, 3600 * scale)
    minutes, seconds = divmod(rest, 60 * scale)
    return whole, minutes, seconds / scale


def _hms(ra_rad: float) -> str:
    h, m, s = _sexagesimal(np.degrees(ra_rad) % 360 / 15, 7)
    return f"{h % 24:02d}:{m:02d}:{s:010.7f}"


def _dms(dec_rad: float) -> str:
    """WSClean reads declinations with dots: +dd.mm.ss.s."""
    sign = "-" if dec_rad < 0 else "+"
    d, m, s = _sexagesimal(abs(np.degrees(dec_rad)), 6)
    return f"{sign}{d:02d}.{m:02d}.{s:09.6f}"
