"""The list of sources of an observation, as it is taken into the light curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.errors import InputError

__all__ = ["FORCED", "MeasuredSources", "read_sources"]

#: A listed source is the same at the same place: catalogues give it the same position every time.
SAME_ARCSEC = 2.0
#: A new source is the same within half a beam, or three errors of its position.
SAME_BEAMS, SAME_SIGMA = 0.5, 3.0
#: A new source that is looked for again where it was not found is called so.
FORCED = "forced"


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredSources:
    """Rows of a list of sources that were measured, as arrays and lists of one length.

    Attributes
    ----------
    name, method, flags : list of str
        As in ``sources.ecsv``.
    is_new : ndarray of bool
        Whether the catalogue does not list it.
    ra, dec, distance : ndarray
        Place and distance from the beam's centre, degrees.
    catalog, flux, stat, beam : ndarray
        Flux in the catalogue, as measured, and its errors by noise and beam, jansky.
    noise : ndarray
        Of the image around it, Jy/beam.
    response : ndarray
        What the beam lets through.
    reach_deg : ndarray
        A source of other observations within this is the same.
    """

    name: list[str]
    is_new: Bool
    ra: Float
    dec: Float
    catalog: Float
    flux: Float
    stat: Float
    beam: Float
    noise: Float
    response: Float
    distance: Float
    reach_deg: Float
    method: list[str]
    flags: list[str]

    @classmethod
    def of(cls, table: Table) -> MeasuredSources:
        """Take the rows with a flux."""

        def numbers(name: str) -> Float:
            return np.asarray(np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan))

        def words(name: str) -> list[str]:
            # A column of empty texts is read as one of missing values.
            return ["" if v is np.ma.masked else str(v) for v in table[name]]

        is_new = np.array([kind == "new" for kind in words("kind")], dtype=bool)
        beam_deg = float(table.meta.get("beam_major_arcsec", 0.0)) / 3600
        place = np.nan_to_num(numbers("shift_error_arcsec")) / 3600
        found = cls(
            name=words("name"),
            is_new=is_new,
            ra=numbers("ra_deg"),
            dec=numbers("dec_deg"),
            catalog=numbers("catalog_flux_jy"),
            flux=numbers("flux_jy"),
            stat=numbers("stat_error_jy"),
            beam=numbers("beam_error_jy"),
            noise=numbers("noise_jy"),
            response=numbers("response"),
            distance=numbers("distance_deg"),
            reach_deg=np.where(
                is_new, np.maximum(SAME_BEAMS * beam_deg, SAME_SIGMA * place), SAME_ARCSEC / 3600
            ),
            method=words("method"),
            flags=words("flags"),
        )
        known = np.isfinite(found.flux) & np.isfinite(found.stat) & np.isfinite(found.beam) & (found.stat > 0)
        return found.some(np.flatnonzero(known))

    def some(self, index: Int) -> MeasuredSources:
        """Return the rows of these numbers."""
        values: dict[str, Any] = {
            name: [value[k] for k in index] if isinstance(value, list) else value[index]
            for name, value in vars(self).items()
        }
        return MeasuredSources(**values)

    def with_more(self, other: MeasuredSources) -> MeasuredSources:
        """Return these rows, then others."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            more = getattr(other, name)
            values[name] = [*value, *more] if isinstance(value, list) else np.concatenate([value, more])
        return MeasuredSources(**values)

    @property
    def steady(self) -> Bool:
        """Listed sources of which nothing is to be said."""
        unflagged = np.array([not f for f in self.flags], dtype=bool)
        return np.asarray(~self.is_new & unflagged & (self.catalog > 0))

    def on_scale(self, scale: float, scale_error: float) -> tuple[Float, Float]:
        """Return fluxes on the scale of the ensemble, and all of their errors together."""
        flux = self.flux / scale
        return flux, np.sqrt((self.stat**2 + self.beam**2) / scale**2 + (flux * scale_error) ** 2)

    def forced(self, ra_deg: Float, dec_deg: Float, apparent_jy: Float) -> MeasuredSources:
        """Return fluxes of other places, seen in the image, with noise and beam as of sources nearby."""
        seen = np.flatnonzero(np.isfinite(apparent_jy))
        apart = (self.ra - ra_deg[seen, None] + 180) % 360 - 180
        east = apart * np.cos(np.radians(dec_deg[seen, None]))
        nearest = np.hypot(east, self.dec - dec_deg[seen, None]).argmin(axis=1)
        like = self.some(nearest)
        flux = apparent_jy[seen] / like.response
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.nan_to_num(like.beam / np.abs(like.flux))
        values: dict[str, Any] = vars(like) | {
            "is_new": np.ones(seen.size, dtype=bool),
            "ra": ra_deg[seen],
            "dec": dec_deg[seen],
            "catalog": np.zeros(seen.size),
            "flux": flux,
            "stat": like.noise / like.response,
            "beam": np.abs(flux) * np.minimum(relative, 1.0),
            "method": [FORCED] * seen.size,
            "flags": [""] * seen.size,
        }
        return MeasuredSources(**values)


def read_sources(path: Path) -> Table | None:
    """Read a list of sources; None if there is none."""
    try:
        return Table.read(path, format="ascii.ecsv")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no list of sources ({reason})", path, "run contimg retry on the observation"
        ) from None
