"""The surveys that strips are built of, and what is known of each.

Frequencies, beams, limits and accuracies are those of the papers that `Survey.reference` names. The table of
surveys in ``docs/how-to/catalogues.md`` says the same; a test keeps them equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from astropy import units as u

from dsa110_contimg.errors import InputError

__all__ = ["CATALOGS", "CHOICES", "COLUMN_UNITS", "SURVEYS", "OtherBand", "Survey", "survey_named"]

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


@dataclass(frozen=True, kw_only=True)
class OtherBand:
    """A part of a survey that was observed at another frequency, told by the name of the image of a row.

    Attributes
    ----------
    freq_hz : float
        Frequency of its fluxes in hertz.
    frames_of_rest : str
        How names of images begin of the survey's other part.
    dec_from, dec_alone : float
        Declination (deg) south of which none of it lies, and north of which it alone is listed.
    """

    freq_hz: float
    frames_of_rest: str
    dec_from: float
    dec_alone: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A survey of the radio sky.

    Attributes
    ----------
    name, title : str
        Name in files and commands, and in full.
    reference : str
        The paper that describes it.
    freq_hz : float
        Frequency of its fluxes in hertz.
    beam_arcsec : float
        FWHM of its beam; of an elongated one where it is smallest.
    flux_limit_mjy : float
        Flux density of a point source at its detection limit, typical over the survey.
    flux_error : float
        Error of its flux scale, as a fraction.
    position_error_arcsec : float
        Error of the position of a bright source, per axis.
    sizes : str
        What its files say of sizes: ``deconvolved`` widths, ``fitted`` ones that are deconvolved on the way
        in, or ``none`` that can be taken.
    dec_min, dec_max : float
        Declinations (deg) between which it lies.
    sky : str
        What it covers, in words.
    irregular : bool
        Its footprint is kept as a HEALPix map, as no interval in RA and Dec would describe it.
    file : str
        The file that its archive hands out.
    extra : dict
        Columns besides `COLUMN_UNITS`, with their units.
    repeats : bool
        Images overlap, and what they share may be listed from each: rows at one place are taken once.
    other_band : OtherBand, optional
        A part whose fluxes are carried to the frequency of the others on the way in.
    """

    name: str
    title: str
    reference: str
    freq_hz: float
    beam_arcsec: float
    flux_limit_mjy: float
    flux_error: float
    position_error_arcsec: float
    sizes: Literal["deconvolved", "fitted", "none"]
    dec_min: float
    dec_max: float
    sky: str
    irregular: bool
    file: str
    extra: dict[str, u.UnitBase] = field(default_factory=dict)
    repeats: bool = False
    other_band: OtherBand | None = None

    @property
    def units(self) -> dict[str, u.UnitBase]:
        """All columns of a strip but ``source_id``, and their units."""
        return {**COLUMN_UNITS, **self.extra}


_ALL = (
    Survey(
        name="nvss",
        title="NRAO VLA Sky Survey",
        reference="Condon et al. 1998, AJ 115, 1693",
        freq_hz=1.4e9,
        beam_arcsec=45.0,
        flux_limit_mjy=2.5,
        flux_error=0.03,
        position_error_arcsec=1.0,
        sizes="deconvolved",
        dec_min=-40.0,
        dec_max=90.0,
        sky="north of Dec -40",
        irregular=False,
        file="VizieR VIII/65, HEASARC `heasarc_nvss.tdat`, NRAO `CATALOG.FIT`",
        # The upper limits of unresolved sources, whose sizes are 0; NaN where the size is measured.
        extra={"major_limit_arcsec": u.arcsec, "minor_limit_arcsec": u.arcsec},
    ),
    Survey(
        name="first",
        title="Faint Images of the Radio Sky at Twenty-cm",
        reference="Helfand et al. 2015, ApJ 801, 26",
        freq_hz=1.4e9,
        beam_arcsec=5.4,
        flux_limit_mjy=1.0,
        flux_error=0.05,
        position_error_arcsec=0.1,
        sizes="deconvolved",
        dec_min=-11.5,
        dec_max=64.6,
        sky="10,600 square degrees about the galactic poles",
        irregular=True,
        file="`first_14dec17.fits`",
        extra={
            "peak_mjy": u.mJy / u.beam,
            "rms_mjy": u.mJy / u.beam,
            "sidelobe_probability": u.dimensionless_unscaled,
        },
    ),
    Survey(
        name="sumss",
        title="Sydney University Molonglo Sky Survey",
        reference="Mauch et al. 2003, MNRAS 342, 1117",
        freq_hz=843e6,
        beam_arcsec=45.0,
        flux_limit_mjy=8.0,
        flux_error=0.03,
        position_error_arcsec=1.5,
        sizes="deconvolved",
        dec_min=-90.0,
        dec_max=-30.0,
        sky="south of Dec -30, more than 10 deg off the galactic plane",
        irregular=True,
        file="VizieR VIII/81B (`sumss212`)",
    ),
    Survey(
        name="racs-low",
        title="Rapid ASKAP Continuum Survey, low band",
        reference="Hale et al. 2021, PASA 38, e058",
        freq_hz=887.5e6,
        beam_arcsec=25.0,
        flux_limit_mjy=1.5,
        flux_error=0.07,
        position_error_arcsec=0.8,
        sizes="fitted",
        dec_min=-80.0,
        dec_max=30.0,
        sky="Dec -80 to +30",
        irregular=True,
        file="VizieR J/other/PASA/38.58 (`galcut`, `galreg`), CASDA `racs_dr1_sources` or `_gaussians`",
        repeats=True,
    ),
    Survey(
        name="racs-mid",
        title="Rapid ASKAP Continuum Survey, middle band",
        reference="Duchesne et al. 2024, PASA 41, e003",
        freq_hz=1367.5e6,
        beam_arcsec=10.0,
        flux_limit_mjy=1.0,
        flux_error=0.06,
        position_error_arcsec=0.7,
        sizes="deconvolved",
        dec_min=-90.0,
        dec_max=49.0,
        sky="south of Dec +49",
        irregular=False,
        file="CASDA `racs_mid_components_v01` or `racs_mid_sources_v01`, VizieR J/other/PASA/41.3",
        repeats=True,
    ),
    Survey(
        name="vlass",
        title="VLA Sky Survey, Quick Look components",
        reference="Gordon et al. 2021, ApJS 255, 30",
        freq_hz=3.0e9,
        beam_arcsec=2.5,
        flux_limit_mjy=0.7,
        flux_error=0.10,
        position_error_arcsec=0.5,
        sizes="deconvolved",
        dec_min=-40.0,
        dec_max=90.0,
        sky="north of Dec -40",
        irregular=False,
        file="CIRADA `VLASS*QL*_components.csv`, VizieR J/ApJS/255/30 (`comp`)",
    ),
    Survey(
        name="tgss",
        title="TIFR GMRT Sky Survey, ADR1",
        reference="Intema et al. 2017, A&A 598, A78",
        freq_hz=147.5e6,
        beam_arcsec=25.0,
        flux_limit_mjy=25.0,
        flux_error=0.10,
        position_error_arcsec=2.0,
        sizes="fitted",
        dec_min=-53.0,
        dec_max=90.0,
        sky="north of Dec -53",
        irregular=True,
        file="VizieR J/A+A/598/A78 (`table3`), `TGSSADR1_7sigma_catalog.fits` or `.tsv`",
    ),
    Survey(
        name="lotss",
        title="LOFAR Two-metre Sky Survey, DR2",
        reference="Shimwell et al. 2022, A&A 659, A1",
        freq_hz=144e6,
        beam_arcsec=6.0,
        flux_limit_mjy=0.5,
        flux_error=0.10,
        position_error_arcsec=0.2,
        sizes="deconvolved",
        dec_min=16.0,
        dec_max=70.0,
        sky="5,634 square degrees in two regions about 13h and 1h",
        irregular=True,
        file="VizieR J/A+A/659/A1 (`catalog`), `LoTSS_DR2_v110_masked.srl.fits`",
    ),
    Survey(
        name="gleam",
        title="GaLactic and Extragalactic All-sky MWA survey, EGC",
        reference="Hurley-Walker et al. 2017, MNRAS 464, 1146",
        freq_hz=200e6,
        beam_arcsec=120.0,
        flux_limit_mjy=50.0,
        flux_error=0.08,
        position_error_arcsec=2.0,
        sizes="fitted",
        dec_min=-90.0,
        dec_max=30.0,
        sky="south of Dec +30, off the galactic plane and the Magellanic Clouds",
        irregular=True,
        file="VizieR VIII/100 (`gleamegc`), `GLEAM_EGC_v2.fits`",
        # Fitted over its own band, 72 to 231 MHz; NaN where no power law fits.
        extra={
            "spectral_index": u.dimensionless_unscaled,
            "spectral_index_err": u.dimensionless_unscaled,
        },
    ),
    Survey(
        name="wenss",
        title="Westerbork Northern Sky Survey",
        reference="Rengelink et al. 1997, A&AS 124, 259",
        freq_hz=325e6,
        beam_arcsec=54.0,
        flux_limit_mjy=18.0,
        flux_error=0.05,
        position_error_arcsec=1.5,
        sizes="none",
        dec_min=28.5,
        dec_max=90.0,
        sky="north of Dec +28.5",
        irregular=False,
        file="VizieR VIII/62A (`wenss`)",
        repeats=True,
        # The polar catalogue, in the same file.
        other_band=OtherBand(freq_hz=352e6, frames_of_rest="WNH", dec_from=72.0, dec_alone=76.0),
    ),
)

#: Surveys by name.
SURVEYS: dict[str, Survey] = {survey.name: survey for survey in _ALL}
#: What can be queried: the surveys, and one with the positions of a sharper one.
CATALOGS = (*SURVEYS, "merged")
#: What an observation may be seeded from: the former, and whichever fits it best.
CHOICES = (*CATALOGS, "auto")


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
