"""A model of the sky in a file of one's own, whatever its format: known by what is in it, not by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dsa110_contimg.errors import ConfigError, SkyModelError
from dsa110_contimg.sky.component_list import (
    ListedComponent,
    find_format,
    joined_components,
    read_component_list,
)
from dsa110_contimg.sky.components import SkyModel
from dsa110_contimg.sky.directions import in_frame
from dsa110_contimg.sky.model_image import read_image_model
from dsa110_contimg.sky.model_table import is_table, read_csv_model, read_ecsv_model

__all__ = ["Fluxes", "ModelFile", "read_model_file"]

Fluxes = Literal["true", "apparent"]
#: A component list of so many bytes is none.
MOST_BYTES = 500_000_000
KINDS = (
    "a WSClean or DP3 component list, a CSV or ECSV with ra_deg, dec_deg and flux_jy, "
    "or a FITS image of clean components"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFile:
    """What a file says of the sky.

    Attributes
    ----------
    sky : SkyModel
        Its components.
    kind : str
        Its format, in words.
    digest : str
        SHA-256 of the file.
    reference_hz : float or None
        Frequency of most of its fluxes in the file; None of flat spectra.
    notes : tuple of str
        What of it is left out.
    """

    sky: SkyModel
    kind: str
    digest: str
    reference_hz: float | None
    notes: tuple[str, ...] = ()


def read_model_file(
    path: Path,
    *,
    fluxes: Fluxes | None,
    spectral_index: float,
    freq_hz: float,
    centre: tuple[float, float],
    frame: str = "ICRS",
) -> ModelFile:
    """Read a model of the sky.

    Parameters
    ----------
    path : Path
        File.
    fluxes : {"true", "apparent"} or None
        Whether its fluxes already hold the primary beam; None: as the file itself says.
    spectral_index : float
        Index of the rows of a table that give none.
    freq_hz : float
        Frequency at which the model is to give its fluxes.
    centre : (float, float)
        Phase centre in radians, about which WSClean and DP3 count the shapes of Gaussians, unless
        OrientationIsAbsolute is set.
    frame : str
        Frame in which directions are wanted, ICRS or J2000. Component lists are in J2000, FITS images say
        it, and tables are taken to be in the one that is wanted.

    Returns
    -------
    ModelFile

    Raises
    ------
    SkyModelError
        If the file cannot be read, or holds what cannot be predicted.
    ConfigError
        If neither option nor file says what its fluxes are, or if they contradict each other.
    """
    try:
        if path.is_dir():
            raise SkyModelError("is a folder", path, f"give a file: {KINDS}")
        if path.stat().st_size > MOST_BYTES:
            raise SkyModelError(f"has {path.stat().st_size / 1e6:.0f} MB", path, f"give {KINDS}")
        content = path.read_bytes()
    except OSError as error:
        raise SkyModelError(
            error.strerror or str(error), path, "check the path and its permissions"
        ) from error
    said: str | None = None
    given = frame
    if content.startswith(b"SIMPLE  ="):
        kind = "FITS image of clean components"
        listed, given = read_image_model(path)
    else:
        lines = _lines(path, content)
        if lines and lines[0].startswith("# %ECSV"):
            kind = "ECSV"
            listed, said = read_ecsv_model(path, spectral_index)
        elif find_format(lines) is not None:
            kind, given = "component list", "J2000"
            listed, itself = read_component_list(path, lines)
            said = "apparent" if itself else None
        elif any(is_table(line) for line in lines[:50]):
            kind, listed = "CSV", read_csv_model(path, lines, spectral_index)
        else:
            raise SkyModelError("is no model of the sky that is known", path, f"give {KINDS}")
    if not listed:
        raise SkyModelError("holds no component", path, f"give {KINDS}")
    apparent = _are_apparent(path, fluxes, said)
    sky = joined_components(path, listed, freq_hz, centre)
    if not np.isfinite(sky.flux_jy).all():
        raise SkyModelError("holds a flux that is not finite", path, "correct it")
    ra, dec = in_frame(sky.ra_rad, sky.dec_rad, given, frame)
    sky = replace(sky, ra_rad=ra, dec_rad=dec)
    if apparent:
        sky = replace(sky, is_apparent=np.ones(len(sky), dtype=bool))
    polarized, total = sum(c.polarized_jy for c in listed), sum(abs(c.flux_jy) for c in listed)
    notes: tuple[str, ...] = ()
    if polarized > 0:
        beside = f"{polarized:.3g} Jy of Q, U and V beside {total:.3g} Jy"
        notes = (f"of the model only Stokes I is predicted: {beside}",)
    return ModelFile(
        sky=sky,
        kind=kind,
        digest=hashlib.sha256(content).hexdigest(),
        reference_hz=_given_at(listed),
        notes=notes,
    )


def _given_at(listed: Sequence[ListedComponent]) -> float | None:
    """Return the median of the components' reference frequencies, weighted by flux."""
    given, flux = np.array([(c.reference_freq_hz, abs(c.flux_jy)) for c in listed]).T
    told = np.isfinite(given)
    if not told.any():
        return None
    order = np.argsort(given[told])
    below = np.cumsum(flux[told][order])
    return float(given[told][order][np.searchsorted(below, below[-1] / 2)])


def _lines(path: Path, content: bytes) -> list[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SkyModelError("is no text and no FITS file", path, f"give {KINDS}") from error
    return text.splitlines()


def _are_apparent(path: Path, fluxes: Fluxes | None, said: str | None) -> bool:
    if said not in (None, "true", "apparent"):
        raise SkyModelError(f"says of its fluxes {said!r}", path, "true or apparent")
    if fluxes is None and said is None:
        raise ConfigError(
            f"{path} does not say whether its fluxes hold the primary beam",
            "model_fluxes",
            "add --model-fluxes true, or apparent for what was CLEANed from an uncorrected image",
        )
    if fluxes is not None and said is not None and fluxes != said:
        raise ConfigError(
            f"{path} says that its fluxes are {said}, the option that they are {fluxes}",
            "model_fluxes",
            "leave the option out",
        )
    return (fluxes or said) == "apparent"
