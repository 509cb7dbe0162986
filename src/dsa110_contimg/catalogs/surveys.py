"""The surveys that strips are built of, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass

from astropy import units as u

from dsa110_contimg.errors import InputError

__all__ = ["CATALOGS", "COLUMN_UNITS", "SURVEYS", "Survey", "survey_named"]

#: The columns that every catalogue has, and their units.
COLUMN_UNITS: dict[str, u.UnitBase] = {
    "ra_deg": u.deg,
    "dec_deg": u.deg,
    "flux_mjy": u.mJy,
    "flux_err_mjy": u.mJy,
    "major_arcsec": u.arcsec,
    "minor_arcsec": u.arcsec,
    "pa_deg": u.deg,
}


@dataclass(frozen=True)
class Survey:
    """A survey of the sky at 1.4 GHz.

    Attributes
    ----------
    name, title : str
        Name in files and commands, and in full.
    extra : dict
        Columns besides `COLUMN_UNITS`, with their units.
    dec_min : float
        Declination (deg) at which it ends in the south.
    beam_arcsec : float
        FWHM of its beam.
    irregular : bool
        Its footprint is kept as a HEALPix map, as no interval in RA and Dec would describe it.
    """

    name: str
    title: str
    extra: dict[str, u.UnitBase]
    dec_min: float
    beam_arcsec: float
    irregular: bool

    @property
    def units(self) -> dict[str, u.UnitBase]:
        """All columns of a strip but ``source_id``, and their units."""
        return {**COLUMN_UNITS, **self.extra}


_NVSS = Survey(
    name="nvss",
    title="NRAO VLA Sky Survey (Condon et al. 1998, AJ 115, 1693)",
    # The upper limits of unresolved sources, whose sizes are 0; NaN where the size is measured.
    extra={"major_limit_arcsec": u.arcsec, "minor_limit_arcsec": u.arcsec},
    dec_min=-40.0,
    beam_arcsec=45.0,
    irregular=False,
)
_FIRST = Survey(
    name="first",
    title="Faint Images of the Radio Sky at Twenty-cm (Helfand et al. 2015, ApJ 801, 26)",
    extra={
        "peak_mjy": u.mJy / u.beam,
        "rms_mjy": u.mJy / u.beam,
        "sidelobe_probability": u.dimensionless_unscaled,
    },
    dec_min=-11.5,
    beam_arcsec=5.4,
    irregular=True,
)

#: Surveys by name.
SURVEYS: dict[str, Survey] = {survey.name: survey for survey in (_NVSS, _FIRST)}
#: What can be queried: the surveys, and NVSS with FIRST in its place where it sees more.
CATALOGS = (*SURVEYS, "merged")


def survey_named(name: str) -> Survey:
    """Return a survey.

    Raises
    ------
    InputError
        There is none of this name.
    """
    if name not in SURVEYS:
        raise InputError(f"unknown catalogue {name!r}", remedy=f"known: {', '.join(SURVEYS)}")
    return SURVEYS[name]
