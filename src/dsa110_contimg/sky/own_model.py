"""A model of one's own as the telescope sees it, instead of the catalogue's or added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.catalogs.surveys import SURVEYS
from dsa110_contimg.errors import SkyModelError
from dsa110_contimg.sky.apparent_sky import (
    BAND_SAMPLES,
    ApparentSky,
    OwnModel,
    joined,
    mean_apparent_flux,
)
from dsa110_contimg.sky.beam import PrimaryBeam
from dsa110_contimg.sky.components import ARCSEC, SkyModel
from dsa110_contimg.sky.directions import angular_separation
from dsa110_contimg.sky.model_file import Fluxes, read_model_file

__all__ = ["add_own_model", "build_own_model"]

#: Components are compared with so many sources of the catalogue at once.
CHUNK = 256


def build_own_model(
    path: Path,
    pointing: Float,
    freq_hz: Float,
    beam: PrimaryBeam,
    centre: tuple[float, float],
    *,
    fluxes: Fluxes | None = None,
    spectral_index: float = -0.75,
    frame: str = "ICRS",
) -> ApparentSky:
    """Read a model of the sky and see it through the beam.

    Every component that the beam lets through is taken, faint and negative ones too: those of CLEAN make a
    source only together.

    Parameters
    ----------
    path : Path
        File.
    pointing : ndarray, shape (ntime, 2)
        Pointing centre of each dump, ICRS radians.
    freq_hz : ndarray, shape (nchan,)
        All channel frequencies in hertz.
    beam : PrimaryBeam
        Primary beam.
    centre : (float, float)
        Phase centre, ICRS radians.
    fluxes : {"true", "apparent"} or None
        What the fluxes are: before the beam, or as an image of the whole observation shows them. An apparent
        flux is predicted as it is where the beam stands still; where it moves over the sky, as the same
        flux times the response at each dump over the mean response, so that its mean is what was given.
    spectral_index : float
        Index of table rows that give none.
    frame : str
        Frame of the observation's directions, ICRS or J2000.

    Returns
    -------
    ApparentSky
        The brightest apparent first.

    Raises
    ------
    SkyModelError
        If the file cannot be used.
    """
    low, high = float(np.min(freq_hz)), float(np.max(freq_hz))
    middle, band = (low + high) / 2, np.linspace(low, high, BAND_SAMPLES)
    found = read_model_file(
        path, fluxes=fluxes, spectral_index=spectral_index, freq_hz=middle, centre=centre, frame=frame
    )
    centres = np.atleast_2d(np.asarray(pointing, dtype=np.float64))
    apparent = mean_apparent_flux(found.sky, beam, np.unique(centres, axis=0), band)
    order = np.argsort(-apparent, kind="stable")
    order = order[apparent[order] != 0]
    if not order.size or not apparent[order[0]] > 0:
        raise SkyModelError(
            f"none of its {len(found.sky)} components is seen through the beam",
            path,
            f"give a model of the field at RA {np.degrees(centre[0]) % 360:.4f} "
            f"Dec {np.degrees(centre[1]):+.4f}",
        )
    return ApparentSky(
        sky=found.sky.select(order),
        beam=beam,
        apparent_jy=apparent[order],
        freq_hz=middle,
        catalog="model",
        catalog_hash=found.digest,
        pointing=centres,
        band_hz=(low, high),
        frame=frame,
        phase_center=centre,
        own_model=OwnModel(
            file=str(path.absolute()),
            kind=found.kind,
            sha256=found.digest,
            fluxes="apparent" if found.sky.apparent.any() else "true",
            reference_hz=found.reference_hz,
            n_components=len(found.sky),
            n_seen=int(order.size),
            notes=found.notes,
        ),
    )


def add_own_model(own: ApparentSky, catalogue: ApparentSky, resolution_rad: float) -> ApparentSky:
    """Add a model of one's own to the catalogue's; where both list a source, one's own counts.

    Parameters
    ----------
    own : ApparentSky
        Model of one's own.
    catalogue : ApparentSky
        Catalogue model.
    resolution_rad : float
        Resolution of the observation. A source of the catalogue nearer to a component than this, or than
        the survey's beam, is the same.

    Returns
    -------
    ApparentSky
        Both, the brightest apparent first.
    """
    assert own.own_model is not None
    surveys = catalogue.spectra.surveys if catalogue.spectra is not None else (catalogue.catalog,)
    beam_arcsec = SURVEYS.get(surveys[0], SURVEYS["nvss"]).beam_arcsec
    same = _near(catalogue.sky, own.sky, max(beam_arcsec * ARCSEC, resolution_rad))
    rest = replace(catalogue, sky=catalogue.sky.select(~same), apparent_jy=catalogue.apparent_jy[~same])
    both = joined(own, rest)
    order = np.argsort(-both.apparent_jy, kind="stable")
    return replace(
        both,
        sky=both.sky.select(order),
        apparent_jy=both.apparent_jy[order],
        catalog=f"{catalogue.catalog}+model",
        spectra=catalogue.spectra,
        notes=catalogue.notes,
        catalog_hash=f"{catalogue.catalog_hash}+{own.catalog_hash}",
        own_model=replace(own.own_model, adds=True, n_replaced=int(np.count_nonzero(same))),
    )


def _near(sky: SkyModel, others: SkyModel, within_rad: float) -> Bool:
    near = np.zeros(len(sky), dtype=bool)
    for first in range(0, len(sky), CHUNK):
        of = slice(first, first + CHUNK)
        apart = angular_separation(
            sky.ra_rad[of, None], sky.dec_rad[of, None], others.ra_rad[None], others.dec_rad[None]
        )
        near[of] = (apart < within_rad).any(axis=1)
    return near
