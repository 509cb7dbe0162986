"""Source report: every source as it was measured, held against the catalogue; and the sky model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Column, Table

from dsa110_contimg.array_types import Float
from dsa110_contimg.errors import InputError
from dsa110_contimg.selfcal.new_sources import NEW_SIGMA, NewSources
from dsa110_contimg.selfcal.source_fluxes import SourceFluxes
from dsa110_contimg.selfcal.source_measurement import MIN_SNR
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import PART
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["model_table", "read_model", "source_report"]

#: Fields of spectra that a model of the user's own may have.
FURTHER = ("curvature", "is_linear", "is_apparent")
#: A difference counts from this many standard errors on, and from this fraction of the flux or this far.
SIGNIFICANT = 5.0
WORTH_FLUX = 0.15
WORTH_SHIFT = 3 * ARCSEC
#: Less than this fraction of the catalogue flux: not in the sky.
GONE = 0.3
#: Flux through so little of the beam is a guess; gains that take so much of a change leave little of it.
LITTLE_BEAM, MUCH_TAKEN = 0.1, 0.5
#: Columns: unit, what it is in the words of the Virtual Observatory (UCD1+), and in plain ones.
COLUMNS: dict[str, tuple[str | None, str, str]] = {
    "name": (None, "meta.id;meta.main", "name"),
    "kind": (None, "meta.code.class", "catalogue, or new"),
    "ra_deg": (
        "deg",
        "pos.eq.ra;meta.main",
        "right ascension (ICRS)",
    ),
    "dec_deg": ("deg", "pos.eq.dec;meta.main", "declination"),
    "catalog_flux_jy": (
        "Jy",
        "phot.flux.density;meta.modelled",
        "catalogue flux at its frequency",
    ),
    "flux_jy": (
        "Jy",
        "phot.flux.density;em.radio",
        "measured flux at that frequency, corrected for the beam",
    ),
    "stat_error_jy": ("Jy", "stat.error;phot.flux.density", "its error by noise and gains"),
    "scale_error_jy": (
        "Jy",
        "stat.error.sys;phot.flux.density",
        "its error by the flux scale, common to all",
    ),
    "beam_error_jy": ("Jy", "stat.error.sys;instr.beam", "its error by the pointing of the dishes"),
    "apparent_jy": ("Jy", "phot.flux.density;instr.beam", "measured flux as seen through the beam"),
    "catalog_apparent_jy": (
        "Jy",
        "phot.flux.density;meta.modelled;instr.beam",
        "catalogue flux through the beam",
    ),
    "noise_jy": ("Jy / beam", "instr.det.noise", "noise of the image around it"),
    "response": (None, "instr.beam;arith.factor", "what the beam lets through, mean over band and time"),
    "distance_deg": ("deg", "pos.angDistance", "from the beam's centre in the middle of the observation"),
    "method": (None, "meta.code", "visibilities: fitted there, with the others; image: read off it; none"),
    "ratio": (None, "phot.flux.density;arith.ratio", "measured over catalogue flux"),
    "ratio_error": (None, "stat.error;arith.ratio", "its error by noise and gains"),
    "shift_east_arcsec": ("arcsec", "pos.eq.ra;arith.diff", "measured minus catalogued position, east"),
    "shift_north_arcsec": ("arcsec", "pos.eq.dec;arith.diff", "the same, north"),
    "shift_error_arcsec": ("arcsec", "stat.error;pos.eq", "its error; of a new source that of its position"),
    "taken_by_gains": (
        None,
        "stat.fit.param;arith.ratio",
        "fraction of a change that the gains took; undone",
    ),
    "flags": (None, "meta.code.qual", "blended, resolved, outer, gains; empty if nothing is to be said"),
    "verdict": (
        None,
        "meta.code.qual",
        "how it compares with the catalogue, or new",
    ),
}


def source_report(
    catalogue: ApparentSky, measured: SourceFluxes, observation: Mapping[str, Any] | None = None
) -> Table:
    """List every source that was measured, and what is new.

    Parameters
    ----------
    catalogue : ApparentSky
        As the catalogue lists the sources.
    measured : SourceFluxes
        Of them.
    observation : mapping, optional
        More of the observation for the metadata.

    Returns
    -------
    astropy.table.Table
        A row per source: ``name``, ``kind`` (catalogue or new), ``ra_deg``, ``dec_deg``; ``catalog_flux_jy``
        at the observation's frequency and ``flux_jy`` as measured, corrected for the beam, with
        ``stat_error_jy``, ``scale_error_jy`` and ``beam_error_jy``; ``apparent_jy`` and
        ``catalog_apparent_jy``, as seen through the beam; ``noise_jy`` of the image there; ``response`` of
        the beam and ``distance_deg`` from its centre; ``method`` (visibilities, image, or none); measured
        over catalogue flux ``ratio`` and ``ratio_error``; ``shift_east_arcsec``, ``shift_north_arcsec`` and
        ``shift_error_arcsec``, not a number where only the image was read; ``taken_by_gains``, the part of a
        change that the gains took, which is undone; ``flags``: blended (another listed source is near),
        resolved, outer (little of the beam is left), gains (they took most of a change); and ``verdict``:
        agrees, brighter, fainter, missing, moved, faint where the signal does not tell, unmeasured,
        or new.
        The metadata hold ``flux_scale`` and ``flux_scale_error`` of the observation, ``typically_taken``,
        what gains take of a source that they were not solved for, ``pointing_error_deg``, of what is given as
        `observation` (a run tells ``mjd``, ``centre_ra_deg``, ``centre_dec_deg`` and ``data_identity``), and
        for new sources ``false_new_expected``, ``n_negative``, ``searched_fraction`` and
        ``threshold_sigma``.
    """
    k, n_new = measured.index, 0 if measured.new is None else measured.new.ra_rad.size
    sky = catalogue.sky.select(k)
    listed = catalogue.unattenuated_flux(np.array([catalogue.freq_hz]))[k, 0]
    # Nothing is known of what a flux that holds the beam is outside of it where that lets hardly anything in.
    listed = np.where(listed > 0, listed, np.nan)
    flux = measured.ratio * listed
    apparent = catalogue.apparent_jy[k]
    shift, shift_error = measured.shift_rad / ARCSEC, measured.shift_error.max(axis=1) / ARCSEC
    columns: dict[str, Any] = {
        "name": list(sky.name),
        "kind": ["catalogue"] * k.size,
        "ra_deg": np.degrees(sky.ra_rad) % 360,
        "dec_deg": np.degrees(sky.dec_rad),
        "catalog_flux_jy": listed,
        "flux_jy": flux,
        "stat_error_jy": measured.ratio_error * listed,
        "scale_error_jy": np.abs(flux) * measured.scale_error,
        "beam_error_jy": np.abs(flux) * measured.beam_error,
        "apparent_jy": measured.ratio * apparent,
        "catalog_apparent_jy": apparent,
        "noise_jy": measured.noise_jy,
        "response": measured.response,
        "distance_deg": np.degrees(measured.distance_rad),
        "method": _methods(measured),
        "ratio": measured.ratio,
        "ratio_error": measured.ratio_error,
        "shift_east_arcsec": shift[:, 0],
        "shift_north_arcsec": shift[:, 1],
        "shift_error_arcsec": shift_error,
        "taken_by_gains": measured.taken,
        "flags": _flags(measured, sky),
        "verdict": list(_verdicts(measured)),
    }
    if measured.new is not None:
        of_new = _new_columns(measured.new, measured)
        columns = {name: [*values, *of_new[name]] for name, values in columns.items()}
    table = Table(
        [
            Column(columns[name], name=name, unit=unit, description=words, meta={"ucd": ucd})
            for name, (unit, ucd, words) in COLUMNS.items()
        ]
    )
    table.meta |= {
        "freq_hz": catalogue.freq_hz,
        "catalog": catalogue.catalog,
        "flux_scale": measured.scale,
        "flux_scale_error": measured.scale_error,
        "typically_taken": measured.typically_taken,
        "pointing_error_deg": measured.pointing_deg,
        "threshold_sigma": NEW_SIGMA,
        "n_new": n_new if measured.new is not None else None,
        "false_new_expected": None if measured.new is None else measured.new.false_expected,
        "n_negative": None if measured.new is None else measured.new.n_negative,
        "searched_fraction": None if measured.new is None else measured.new.searched,
        **(observation or {}),
    }
    return table


def _new_columns(new: NewSources, measured: SourceFluxes) -> dict[str, list[Any]]:
    n, nothing = new.ra_rad.size, [float("nan")] * new.ra_rad.size
    seen = np.zeros(n, dtype=bool) if new.by_visibilities is None else new.by_visibilities
    flux, error = (v / new.response / measured.scale for v in (new.apparent_jy, new.error_jy))
    ra, dec = np.degrees(new.ra_rad) % 360, np.degrees(new.dec_rad)
    return {
        "name": [f"newJ{a:08.4f}{d:+08.4f}" for a, d in zip(ra, dec, strict=True)],
        "kind": ["new"] * n,
        "ra_deg": list(ra),
        "dec_deg": list(dec),
        "catalog_flux_jy": [0.0] * n,
        "flux_jy": list(flux),
        "stat_error_jy": list(error),
        "scale_error_jy": list(flux * measured.scale_error),
        "beam_error_jy": list(flux * new.beam_error),
        "apparent_jy": list(new.apparent_jy / measured.scale),
        "catalog_apparent_jy": [0.0] * n,
        "noise_jy": list(new.error_jy),
        "response": list(new.response),
        "distance_deg": list(np.degrees(new.distance_rad)),
        "method": ["visibilities" if v else "image" for v in seen],
        "ratio": nothing,
        "ratio_error": nothing,
        "shift_east_arcsec": nothing,
        "shift_north_arcsec": nothing,
        "shift_error_arcsec": list(new.position_error_rad / ARCSEC),
        "taken_by_gains": [measured.typically_taken] * n,
        "flags": ["outer" if r < LITTLE_BEAM else "" for r in new.response],
        "verdict": ["new"] * n,
    }


def _flags(measured: SourceFluxes, sky: SkyModel) -> list[str]:
    with np.errstate(invalid="ignore"):
        said = {
            "blended": measured.blended,
            "resolved": ~np.asarray(sky.is_point),
            "outer": measured.response < LITTLE_BEAM,
            "gains": measured.taken > MUCH_TAKEN,
        }
    return [",".join(w for w, of in said.items() if of[k]) for k in range(measured.index.size)]


def _methods(measured: SourceFluxes) -> list[str]:
    known = np.isfinite(measured.ratio)
    return [str(m) for m in np.select([~known, measured.by_visibilities], ["none", "visibilities"], "image")]


def _verdicts(measured: SourceFluxes) -> Any:
    error: Float = np.nan_to_num(measured.shift_error.max(axis=1), nan=np.inf)
    off, far = measured.ratio - 1, np.nan_to_num(np.hypot(*measured.shift_rad.T))
    changed = np.abs(off) > np.maximum(WORTH_FLUX, SIGNIFICANT * measured.ratio_error)
    moved = far > np.maximum(WORTH_SHIFT, SIGNIFICANT * error)
    tells = measured.ratio_error * MIN_SNR < 1
    return np.select(
        [~np.isfinite(off), changed & (off < GONE - 1), changed & (off > 0), changed, moved, tells],
        ["unmeasured", "missing", "brighter", "fainter", "moved", "agrees"],
        "faint",
    )


def model_table(model: ApparentSky, catalogue: ApparentSky) -> Table:
    """List the components that gains were solved against.

    Parameters
    ----------
    model : ApparentSky
        The catalogue's sources, as they were rescaled, and what was added to them.
    catalogue : ApparentSky
        The sources as listed.

    Returns
    -------
    astropy.table.Table
        ``name``, ``ra_deg``, ``dec_deg``, ``flux_jy`` at `reference_freq_hz` of the metadata,
        ``spectral_index``, its ``index_error`` and ``index_from``: two catalogues, the ``file``,
        ``median`` of two, ``published``, ``model`` of the user's own, ``assumed``; ``major_arcsec``,
        ``minor_arcsec``, ``pa_deg``, and ``apparent_jy`` as seen through the beam. Where a spectrum has more
        terms, or holds the beam, ``curvature``, ``is_linear`` and ``is_apparent`` say so.
    """
    sky, spectra = model.sky, catalogue.spectra
    origin, error = ({}, {}) if spectra is None else (spectra.origin, spectra.error)
    # The few brightest of the sky have published ones; what CLEAN found has none.
    listed = "published" if catalogue.own_model is None else "model"
    table = Table(
        {
            "name": list(sky.name),
            "ra_deg": np.degrees(sky.ra_rad) % 360,
            "dec_deg": np.degrees(sky.dec_rad),
            "flux_jy": sky.flux_jy,
            "spectral_index": sky.spectral_index,
            "index_error": [error.get(name.partition(PART)[0], np.nan) for name in sky.name],
            "index_from": [
                origin.get(name.partition(PART)[0], listed if k < len(catalogue) else "assumed")
                for k, name in enumerate(sky.name)
            ],
            "major_arcsec": sky.major_rad / ARCSEC,
            "minor_arcsec": sky.minor_rad / ARCSEC,
            "pa_deg": np.degrees(sky.pa_rad),
            "apparent_jy": model.apparent_jy,
        }
    )
    for name in FURTHER:
        if getattr(sky, name) is not None:
            table[name] = getattr(sky, name)
    table.meta["reference_freq_hz"] = sky.reference_freq_hz
    return table


def read_model(path: Path) -> SkyModel:
    """Read back the sources that the gains of a finished run were solved against.

    Raises
    ------
    InputError
        If there is no such file, or not as a run writes it.
    """
    try:
        table = Table.read(path, format="ascii.ecsv")
        return SkyModel(
            tuple(str(name) for name in table["name"]),
            np.radians(np.asarray(table["ra_deg"], dtype=np.float64)),
            np.radians(np.asarray(table["dec_deg"], dtype=np.float64)),
            np.asarray(table["flux_jy"], dtype=np.float64),
            np.asarray(table["spectral_index"], dtype=np.float64),
            np.asarray(table["major_arcsec"], dtype=np.float64) * ARCSEC,
            np.asarray(table["minor_arcsec"], dtype=np.float64) * ARCSEC,
            np.radians(np.asarray(table["pa_deg"], dtype=np.float64)),
            float(table.meta["reference_freq_hz"]),
            **{name: np.asarray(table[name]) for name in FURTHER if name in table.colnames},
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no list of sources ({reason})", path, "run contimg selfcal again") from None
