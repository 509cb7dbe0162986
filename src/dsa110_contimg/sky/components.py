"""Sky models: lists of point and Gaussian components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.files import write_text
from dsa110_contimg.sky.directions import lmn_from_radec

__all__ = ["SkyModel"]

ARCSEC = np.pi / 180 / 3600


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

        def join(attribute: str) -> Float:
            return np.concatenate([getattr(m, attribute) for m in models])

        flux = np.concatenate([m.flux_at(np.array([first.reference_freq_hz]))[:, 0] for m in models])
        return cls(
            tuple(name for m in models for name in m.name),
            join("ra_rad"),
            join("dec_rad"),
            flux,
            join("spectral_index"),
            join("major_rad"),
            join("minor_rad"),
            join("pa_rad"),
            first.reference_freq_hz,
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
        )

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
        return np.asarray(self.flux_jy[:, None] * ratio ** self.spectral_index[:, None])

    def lmn(self, ra0_rad: float, dec0_rad: float) -> Float:
        """Direction cosines l, m, n - 1 about a phase centre, shape (n, 3)."""
        return lmn_from_radec(self.ra_rad, self.dec_rad, ra0_rad, dec0_rad)

    @property
    def is_point(self) -> Bool:
        """True where a component has no extent, shape (n,)."""
        return np.asarray(self.major_rad == 0)

    def write_wsclean(self, path: Path, flux_jy: Float | None = None) -> None:
        """Write a WSClean component list (BBS-style text, J2000 axes).

        Parameters
        ----------
        path : Path
            File to write; written beside and renamed.
        flux_jy : ndarray, shape (n,), optional
            Fluxes to write in place of the model's own, e.g. apparent ones.
        """
        flux = self.flux_jy if flux_jy is None else flux_jy
        lines = [
            "Format = Name, Type, Ra, Dec, I, SpectralIndex, LogarithmicSI, "
            f"ReferenceFrequency='{self.reference_freq_hz:.1f}', MajorAxis, MinorAxis, Orientation"
        ]
        for k, name in enumerate(self.name):
            kind = "POINT" if self.major_rad[k] == 0 else "GAUSSIAN"
            shape = (
                ",,"
                if kind == "POINT"
                else f"{self.major_rad[k] / ARCSEC:.4f},{self.minor_rad[k] / ARCSEC:.4f},"
                f"{np.degrees(self.pa_rad[k]):.3f}"
            )
            lines.append(
                f"{name},{kind},{_hms(self.ra_rad[k])},{_dms(self.dec_rad[k])},{flux[k]:.9g},"
                f"[{self.spectral_index[k]:.5g}],true,{self.reference_freq_hz:.1f},{shape}"
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
    h, m, s = _sexagesimal(np.degrees(ra_rad) % 360 / 15, 5)
    return f"{h % 24:02d}:{m:02d}:{s:08.5f}"


def _dms(dec_rad: float) -> str:
    """WSClean reads declinations with dots: +dd.mm.ss.s."""
    sign = "-" if dec_rad < 0 else "+"
    d, m, s = _sexagesimal(abs(np.degrees(dec_rad)), 4)
    return f"{sign}{d:02d}.{m:02d}.{s:07.4f}"
