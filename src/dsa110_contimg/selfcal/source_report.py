"""Source report: the catalogue held against the calibrated sky, source by source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.errors import InputError
from dsa110_contimg.selfcal.source_measurement import SourceMeasurement
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import PART
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["read_model", "source_report"]

#: A difference counts from this many standard errors on, and from this fraction of the flux or this far.
SIGNIFICANT = 5.0
WORTH_FLUX = 0.15
WORTH_SHIFT = 3 * ARCSEC
#: Less than this fraction of the catalogue flux: not in the sky.
GONE = 0.3


def source_report(catalogue: ApparentSky, model: ApparentSky, measured: SourceMeasurement | None) -> Table:
    """Hold the catalogue's sources against what was measured of them.

    Parameters
    ----------
    catalogue : ApparentSky
        As the catalogue lists the sources.
    model : ApparentSky
        The same sources in the same order, as the gains were solved against them; then
        clean components that the catalogue does not list.
    measured : SourceMeasurement or None
        The bright ones on the calibrated data.

    Returns
    -------
    astropy.table.Table
        A row per source: the model (``name``, ``ra_deg``, ``dec_deg``, ``flux_jy`` at
        `reference_freq_hz` of the metadata, ``spectral_index``, its ``index_error`` and where it is from,
        ``index_from``: two catalogues, ``file``, ``median`` of two, ``assumed``; ``major_arcsec``,
        ``minor_arcsec``, ``pa_deg``, ``apparent_jy``), then ``catalog_apparent_jy``; measured over
        catalogue flux ``ratio`` and ``ratio_error``, ``shift_east_arcsec``, ``shift_north_arcsec``
        and ``shift_error_arcsec``, not a number where nothing was measured; and
        ``verdict``: agrees, brighter, fainter, missing, moved, faint where the
        signal does not tell, unmeasured where no source was measured, split for a source that
        turned out to be two and part for these, new for a clean component, residual for a
        negative one.
    """
    n, sky = len(model), model.sky
    columns = ("ratio", "ratio_error", "shift_east_arcsec", "shift_north_arcsec", "shift_error_arcsec")
    values = {name: np.full(n, np.nan) for name in columns}
    verdict = np.full(n, "faint" if measured is not None else "unmeasured", dtype="<U10")
    added = slice(len(catalogue), None)
    # CLEAN takes back what it found too much of: that is no source.
    verdict[added] = np.where(model.apparent_jy[added] > 0, "new", "residual")
    if measured is not None:
        k = measured.index[measured.good]
        rows = measured.good
        error = measured.shift_error[rows].max(axis=1)
        found = (measured.ratio[rows], measured.ratio_error[rows], *measured.shift_rad[rows].T / ARCSEC)
        for name, column in zip(columns, (*found, error / ARCSEC), strict=True):
            values[name][k] = column
        off = measured.ratio[rows] - 1
        far = np.hypot(*measured.shift_rad[rows].T)
        changed = np.abs(off) > np.maximum(WORTH_FLUX, SIGNIFICANT * measured.ratio_error[rows])
        moved = far > np.maximum(WORTH_SHIFT, SIGNIFICANT * error)
        verdict[k] = np.select(
            [changed & (off < GONE - 1), changed & (off > 0), changed, moved],
            ["missing", "brighter", "fainter", "moved"],
            "agrees",
        )
    parts = np.array([PART in name for name in sky.name], dtype=bool)
    whole = {name.rpartition(PART)[0] for name in np.asarray(sky.name)[parts]}
    verdict[parts] = "part"
    verdict[: len(catalogue)][[name in whole for name in catalogue.sky.name]] = "split"
    spectra = catalogue.spectra
    origin, error = ({}, {}) if spectra is None else (spectra.origin, spectra.error)
    table = Table(
        {
            "name": list(sky.name),
            "ra_deg": np.degrees(sky.ra_rad) % 360,
            "dec_deg": np.degrees(sky.dec_rad),
            "flux_jy": sky.flux_jy,
            "spectral_index": sky.spectral_index,
            "index_error": [error.get(name.partition(PART)[0], np.nan) for name in sky.name],
            "index_from": [
                # The few brightest of the sky have published ones; what CLEAN found has none.
                origin.get(name.partition(PART)[0], "published" if k < len(catalogue) else "assumed")
                for k, name in enumerate(sky.name)
            ],
            "major_arcsec": sky.major_rad / ARCSEC,
            "minor_arcsec": sky.minor_rad / ARCSEC,
            "pa_deg": np.degrees(sky.pa_rad),
            "apparent_jy": model.apparent_jy,
            "catalog_apparent_jy": np.pad(catalogue.apparent_jy, (0, n - len(catalogue))),
            **values,
            "verdict": verdict,
        }
    )
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
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no list of sources ({reason})", path, "run contimg selfcal again") from None
