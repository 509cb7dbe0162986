"""Columns of the surveys beside NVSS and FIRST, as VizieR, CASDA and the surveys themselves write them.

Each family takes total flux densities, never peaks, in the unit that the file states or, where it states
none, in that of the archive: jansky for GLEAM, millijansky for the others. Sizes are deconvolved ones where
the file has them. Rows that the survey itself marks as repeated or spurious are left out.
"""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import FK4, SkyCoord

from dsa110_contimg.array_types import Float
from dsa110_contimg.catalogs.gaussian_sizes import deconvolved
from dsa110_contimg.catalogs.rows import Family, Rows
from dsa110_contimg.catalogs.surveys import SURVEYS, Survey
from dsa110_contimg.errors import CatalogFormatError

__all__ = ["SURVEY_FAMILIES"]

#: Quick Look fluxes of the first epoch of VLASS are this fraction of the true ones (Gordon et al. 2021,
#: section 3.2: 15 % low above 3 mJy; they recommend to divide by 0.87).
VLASS_FIRST_EPOCH = 0.87
#: North of this declination (deg) the beam of TGSS is round; further south it grows as 1 / cos(Dec - 19).
TGSS_ROUND_DEC = 19.0
#: Rows without a positive flux are left out, up to this fraction of a block; more are not a few failed fits.
FEW = 0.01

#: A corrected declination of RACS-mid differs from the other by less than this (deg).
CORRECTED_DEC = 0.005

#: Spectral index that carries fluxes over the few per cent between bands of one survey.
USUAL_INDEX = -0.75
#: What the column of WENSS that names the image of a row is called.
FRAMES = ("Frame", "frame", "Frm")

RA = "RAJ2000|_RAJ2000|RAdeg"
DEC = "DEJ2000|_DEJ2000|DEdeg"


def _position(rows: Rows) -> dict[str, Float]:
    """Take J2000, never the B1950 that may stand beside it."""
    ra, dec = rows.pick(*RA.split("|")), rows.pick(*DEC.split("|"))
    return {"ra_deg": rows.angle(ra, 15.0), "dec_deg": rows.angle(dec, 1.0)}


def _fluxes(rows: Rows, flux: str, error: str, unit: u.UnitBase = u.mJy) -> dict[str, Float]:
    """Take a total flux and its error, which the archive gives in ``unit``; leave out failed fits."""
    columns = {"flux_mjy": rows.native(flux, unit, u.mJy), "flux_err_mjy": rows.native(error, unit, u.mJy)}
    failed = ~(columns["flux_mjy"] > 0)
    if failed.mean() <= FEW or failed.sum() <= 1:
        columns["keep"] = (~failed).astype(np.float64)
    errors = columns["flux_err_mjy"]
    columns["flux_err_mjy"] = np.where(errors > 0, errors, np.nan)
    return columns


def _given(rows: Rows, major: str, minor: str, angle: str) -> dict[str, Float]:
    """Take deconvolved widths; blank or zero means unresolved."""
    wide = np.nan_to_num(rows.floats(major, u.arcsec), nan=0.0)
    resolved = wide > 0

    def where(name: str, unit: u.UnitBase) -> Float:
        return np.where(resolved, np.nan_to_num(rows.floats(name, unit), nan=0.0), 0.0)

    return {
        "major_arcsec": np.maximum(wide, 0.0),
        "minor_arcsec": np.maximum(where(minor, u.arcsec), 0.0),
        "pa_deg": where(angle, u.deg),
    }


def _fitted(
    rows: Rows,
    names: tuple[str, str, str],
    beam: tuple[Float, Float, Float],
    columns: dict[str, Float],
) -> dict[str, Float]:
    """Deconvolve fitted widths; zero where the file has none."""
    if not all(rows.has(name) for name in names):
        return {name: np.zeros(rows.n) for name in ("major_arcsec", "minor_arcsec", "pa_deg")}
    fitted = tuple(
        rows.floats(name, unit) for name, unit in zip(names, (u.arcsec, u.arcsec, u.deg), strict=True)
    )
    signal = columns["flux_mjy"] / columns["flux_err_mjy"]
    with np.errstate(invalid="ignore", divide="ignore"):
        major, minor, angle = deconvolved((fitted[0], fitted[1], fitted[2]), beam, signal)
    return {
        name: np.nan_to_num(values, nan=0.0)
        for name, values in zip(
            ("major_arcsec", "minor_arcsec", "pa_deg"), (major, minor, angle), strict=True
        )
    }


def _round(rows: Rows, survey: str) -> tuple[Float, Float, Float]:
    width = np.full(rows.n, SURVEYS[survey].beam_arcsec)
    return width, width, np.zeros(rows.n)


def _sumss(rows: Rows) -> dict[str, Float]:
    return _position(rows) | _fluxes(rows, "St", "e_St") | _given(rows, "dMajAxis", "dMinAxis", "dPA")


def _racs_low_vizier(rows: Rows) -> dict[str, Float]:
    columns = _position(rows) | _fluxes(rows, "Ftot", "e_Ftot")
    return columns | _fitted(rows, ("amaj", "bmin", "PA"), _round(rows, "racs-low"), columns)


def _racs_low(rows: Rows) -> dict[str, Float]:
    names = ("total_flux_gaussian", "Total_flux_Gaussian", "total_flux_source", "Total_flux_Source")
    # A table of Gaussians repeats the flux of the whole source in each of its rows.
    flux = rows.pick(*names)
    error = ("E_" if flux[0] == "T" else "e_") + flux
    columns = {
        "ra_deg": rows.floats(rows.pick("ra", "RA"), u.deg),
        "dec_deg": rows.floats(rows.pick("dec", "Dec"), u.deg),
        **_fluxes(rows, flux, error),
    }
    if rows.has("dc_maj") or rows.has("DC_Maj"):
        axes = ("dc_maj", "dc_min", "dc_pa") if rows.has("dc_maj") else ("DC_Maj", "DC_Min", "DC_PA")
        return columns | _given(rows, *axes)
    fitted = ("maj_axis", "min_axis", "pa") if rows.has("maj_axis") else ("Maj", "Min", "PA")
    return columns | _fitted(rows, fitted, _round(rows, "racs-low"), columns)


def _racs_mid_vizier(rows: Rows) -> dict[str, Float]:
    return _position(rows) | _fluxes(rows, "Ftot", "e_Ftot") | _given(rows, "DCMaj", "DCMin", "DCPA")


def _racs_mid(rows: Rows) -> dict[str, Float]:
    dec, corrected = (rows.floats(name, u.deg) for name in ("dec", "dec_corr"))
    return {
        "ra_deg": rows.floats("ra", u.deg),
        # Corrected by less than 2 arcsec for what depends on declination (Duchesne et al. 2024).
        "dec_deg": np.where(np.abs(corrected - dec) < CORRECTED_DEC, corrected, dec),
        **_fluxes(rows, "total_flux", "e_total_flux"),
        **_given(rows, "dc_maj_axis", "dc_min_axis", "dc_pa"),
    }


def _unique_and_good(rows: Rows, duplicate: str, quality: str) -> Float:
    """Return the rows to use, as the user guide of CIRADA says: no second listing, no sidelobe."""
    twice, quality_flag = rows.floats(duplicate, None), rows.floats(quality, None)
    usable = (twice < 2) & ((quality_flag == 0) | (quality_flag == 4))
    return np.asarray(usable, dtype=np.float64)


def _vlass_vizier(rows: Rows) -> dict[str, Float]:
    columns = _position(rows) | _fluxes(rows, "Ftot", "e_Ftot")
    for name in ("flux_mjy", "flux_err_mjy"):
        columns[name] = columns[name] / VLASS_FIRST_EPOCH
    usable = _unique_and_good(rows, "DupFlag", "QualFlag")
    columns["keep"] = usable * (columns["flux_mjy"] > 0)
    return columns | _given(rows, "DCMaj", "DCMin", "DCPA")


def _vlass(rows: Rows) -> dict[str, Float]:
    columns = {
        "ra_deg": rows.floats("RA", u.deg),
        "dec_deg": rows.floats("DEC", u.deg),
        **_fluxes(rows, "Total_flux", "E_Total_flux"),
    }
    first = np.char.startswith(np.char.strip(rows.texts("Component_name")), "VLASS1QL")
    for name in ("flux_mjy", "flux_err_mjy"):
        columns[name] = np.where(first, columns[name] / VLASS_FIRST_EPOCH, columns[name])
    usable = _unique_and_good(rows, "Duplicate_flag", "Quality_flag")
    columns["keep"] = usable * (columns["flux_mjy"] > 0)
    return columns | _given(rows, "DC_Maj", "DC_Min", "DC_PA")


def _tgss_beam(dec_deg: Float) -> tuple[Float, Float, Float]:
    width = np.full(len(dec_deg), SURVEYS["tgss"].beam_arcsec)
    south = np.minimum(dec_deg - TGSS_ROUND_DEC, 0.0)
    return width / np.cos(np.radians(south)), width, np.zeros(len(dec_deg))


def _tgss_vizier(rows: Rows) -> dict[str, Float]:
    columns = _position(rows) | _fluxes(rows, "Stotal", "e_Stotal")
    return columns | _fitted(rows, ("Maj", "Min", "PA"), _tgss_beam(columns["dec_deg"]), columns)


def _tgss(rows: Rows) -> dict[str, Float]:
    columns = {
        "ra_deg": rows.floats("RA", u.deg),
        "dec_deg": rows.floats("DEC", u.deg),
        **_fluxes(rows, "Total_flux", "E_Total_flux"),
    }
    return columns | _fitted(rows, ("Maj", "Min", "PA"), _tgss_beam(columns["dec_deg"]), columns)


def _lotss_vizier(rows: Rows) -> dict[str, Float]:
    return _position(rows) | _fluxes(rows, "SpeakTot", "e_SpeakTot") | _given(rows, "DCMaj", "DCMin", "DCPA")


def _lotss(rows: Rows) -> dict[str, Float]:
    return {
        "ra_deg": rows.floats("RA", u.deg),
        "dec_deg": rows.floats("DEC", u.deg),
        **_fluxes(rows, "Total_flux", "E_Total_flux"),
        **_given(rows, "DC_Maj", "DC_Min", "DC_PA"),
    }


def _gleam_of(rows: Rows, names: dict[str, str]) -> dict[str, Float]:
    columns = _position(rows) | _fluxes(rows, names["flux"], names["error"], u.Jy)
    if all(rows.has(names[word]) for word in ("psf_a", "psf_b", "psf_pa")):
        beam = (
            rows.floats(names["psf_a"], u.arcsec),
            rows.floats(names["psf_b"], u.arcsec),
            rows.floats(names["psf_pa"], u.deg),
        )
        columns |= _fitted(rows, (names["a"], names["b"], names["pa"]), beam, columns)
    else:
        columns |= {name: np.zeros(rows.n) for name in ("major_arcsec", "minor_arcsec", "pa_deg")}
    return columns | {
        "spectral_index": rows.floats(names["alpha"], None),
        "spectral_index_err": rows.floats(names["alpha_error"], None),
    }


_GLEAM_VIZIER = {
    **{"flux": "Fintwide", "error": "e_Fintwide", "a": "awide", "b": "bwide", "pa": "pawide"},
    **{"psf_a": "psfawide", "psf_b": "psfbwide", "psf_pa": "psfPAwide"},
    **{"alpha": "alpha", "alpha_error": "e_alpha"},
}
_GLEAM = {
    **{"flux": "int_flux_wide", "error": "err_int_flux_wide", "a": "a_wide", "b": "b_wide", "pa": "pa_wide"},
    **{"psf_a": "psf_a_wide", "psf_b": "psf_b_wide", "psf_pa": "psf_pa_wide"},
    **{"alpha": "alpha", "alpha_error": "err_alpha"},
}


def _to_one_band(rows: Rows, survey: Survey, dec_deg: Float) -> Float:
    """Return what fluxes are multiplied by where a part of the survey was observed at another frequency."""
    band = survey.other_band
    assert band is not None
    name = next((name for name in FRAMES if rows.has(name)), None)
    if name is None:
        other = dec_deg > band.dec_alone
    else:
        frames = np.char.strip(rows.texts(name))
        other = (dec_deg > band.dec_from) & ~np.char.startswith(frames, band.frames_of_rest)
    return np.where(other, (survey.freq_hz / band.freq_hz) ** USUAL_INDEX, 1.0)


def _wenss(rows: Rows) -> dict[str, Float]:
    if any(rows.has(name) for name in RA.split("|")):
        position = _position(rows)
    elif rows.has("RAB1950") and rows.has("DEB1950"):
        old = SkyCoord(
            rows.angle("RAB1950", 15.0), rows.angle("DEB1950", 1.0), unit="deg", frame=FK4(equinox="B1950")
        ).icrs
        position = {"ra_deg": np.asarray(old.ra.deg), "dec_deg": np.asarray(old.dec.deg)}
    else:
        raise CatalogFormatError(
            "has positions of neither J2000 nor B1950", rows.path, f"include {RA.replace('|', ' or ')}"
        )
    columns = position | _fluxes(rows, "Sint", "e_Sint")
    carried = _to_one_band(rows, SURVEYS["wenss"], columns["dec_deg"])
    columns |= {name: columns[name] * carried for name in ("flux_mjy", "flux_err_mjy")}
    # M is a source as a whole, each of whose components C is listed as well.
    columns["keep"] = columns.get("keep", np.ones(rows.n)) * (np.char.strip(rows.texts("Flg1")) != "M")
    return columns | {name: np.zeros(rows.n) for name in ("major_arcsec", "minor_arcsec", "pa_deg")}


_POINTS = "sizes are not taken from this file: all sources are points"
_POLAR = (
    f"fluxes of the polar part, observed at 352 MHz, are carried to 325 MHz with index {USUAL_INDEX:g}: "
    "rows with a frame that does not begin with WNH, or without frames those north of Dec +76"
)
_CORRECTED = f"Quick Look fluxes of epoch 1 are divided by {VLASS_FIRST_EPOCH} (Gordon et al. 2021)"

SURVEY_FAMILIES = (
    Family(
        "sumss",
        "VizieR VIII/81B",
        "sumss",
        (RA, DEC, "St"),
        ("e_St", "dMajAxis", "dMinAxis", "dPA"),
        _sumss,
        sizes=("dMajAxis",),
    ),
    Family(
        "racs-low-vizier",
        "VizieR J/other/PASA/38.58",
        "racs-low",
        (RA, DEC, "Ftot", "Fpk"),
        ("e_Ftot", "amaj", "bmin", "PA", "GID"),
        _racs_low_vizier,
        sizes=("amaj",),
        refuses=(
            ("GID", "lists Gaussians with the flux of their whole source in each", "take galcut and galreg"),
        ),
    ),
    Family(
        "racs-low-casda",
        "RACS-low of CASDA",
        "racs-low",
        (
            *("ra|RA", "dec|Dec"),
            "total_flux_source|total_flux_gaussian|Total_flux_Source|Total_flux_Gaussian",
        ),
        (
            *("e_total_flux_source", "e_total_flux_gaussian", "E_Total_flux_Source", "E_Total_flux_Gaussian"),
            *("dc_maj", "dc_min", "dc_pa", "maj_axis", "min_axis", "pa"),
            *("DC_Maj", "DC_Min", "DC_PA", "Maj", "Min", "PA"),
        ),
        _racs_low,
        sizes=("dc_maj", "DC_Maj", "maj_axis", "Maj"),
    ),
    Family(
        "racs-mid-vizier",
        "VizieR J/other/PASA/41.3",
        "racs-mid",
        (RA, DEC, "Ftot", "Fpeak", "SCode"),
        ("e_Ftot", "DCMaj", "DCMin", "DCPA"),
        _racs_mid_vizier,
        sizes=("DCMaj",),
    ),
    Family(
        "racs-mid-casda",
        "RACS-mid of CASDA",
        "racs-mid",
        ("ra", "dec", "total_flux", "dc_maj_axis", "dc_min_axis", "dc_pa"),
        ("e_total_flux", "dec_corr"),
        _racs_mid,
    ),
    Family(
        "vlass-vizier",
        "VizieR J/ApJS/255/30",
        "vlass",
        (RA, DEC, "Ftot", "DupFlag", "QualFlag"),
        ("e_Ftot", "DCMaj", "DCMin", "DCPA"),
        _vlass_vizier,
        sizes=("DCMaj",),
        notes=(_CORRECTED,),
    ),
    Family(
        "vlass-cirada",
        "VLASS Quick Look of CIRADA",
        "vlass",
        ("Component_name", "RA", "DEC", "Total_flux", "Duplicate_flag", "Quality_flag"),
        ("E_Total_flux", "DC_Maj", "DC_Min", "DC_PA"),
        _vlass,
        sizes=("DC_Maj",),
        notes=(_CORRECTED + "; of later epochs they are as listed, some 3 to 8 % low",),
    ),
    Family(
        "tgss-vizier",
        "VizieR J/A+A/598/A78",
        "tgss",
        (RA, DEC, "Stotal"),
        ("e_Stotal", "Maj", "Min", "PA"),
        _tgss_vizier,
        sizes=("Maj",),
    ),
    Family(
        "tgss",
        "TGSS ADR1",
        "tgss",
        ("RA", "DEC", "Total_flux", "RMS_noise", "Mosaic_name"),
        ("E_Total_flux", "Maj", "Min", "PA"),
        _tgss,
        sizes=("Maj",),
    ),
    Family(
        "lotss-vizier",
        "VizieR J/A+A/659/A1",
        "lotss",
        (RA, DEC, "SpeakTot"),
        ("e_SpeakTot", "DCMaj", "DCMin", "DCPA"),
        _lotss_vizier,
        sizes=("DCMaj",),
    ),
    Family(
        "lotss",
        "LoTSS",
        "lotss",
        ("RA", "DEC", "Total_flux", "Isl_rms", "Mosaic_ID"),
        ("E_Total_flux", "DC_Maj", "DC_Min", "DC_PA"),
        _lotss,
        sizes=("DC_Maj",),
    ),
    Family(
        "gleam-vizier",
        "VizieR VIII/100",
        "gleam",
        (RA, DEC, "Fintwide"),
        tuple(word for key, word in _GLEAM_VIZIER.items() if key != "flux"),
        lambda rows: _gleam_of(rows, _GLEAM_VIZIER),
        sizes=("psfawide",),
    ),
    Family(
        "gleam",
        "GLEAM EGC",
        "gleam",
        (RA, DEC, "int_flux_wide"),
        tuple(word for key, word in _GLEAM.items() if key != "flux"),
        lambda rows: _gleam_of(rows, _GLEAM),
        sizes=("psf_a_wide",),
    ),
    Family(
        "wenss",
        "VizieR VIII/62A",
        "wenss",
        (f"{RA}|RAB1950", f"{DEC}|DEB1950", "Sint", "Flg1"),
        ("e_Sint", *FRAMES),
        _wenss,
        notes=(_POINTS, _POLAR),
    ),
)
