"""What is in the sky, and what the catalogue says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsa110_contimg.array_types import Bool, Float, Int
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.errors import InputError
from dsa110_contimg.simulate.catalog_faults import with_bright_errors, with_catalog_fault
from dsa110_contimg.simulate.population import draw_sky, with_catalog_errors
from dsa110_contimg.sky import (
    PrimaryBeam,
    SkyModel,
    angular_separation,
    catalogued_sky,
    far_bright_sources,
    radec_from_lm,
)
from dsa110_contimg.sky.components import ARCSEC

__all__ = ["Scene", "build_scene"]


#: Separations of the components of doubles: one source to the 45 arcsec beam of NVSS, two to us.
DOUBLE_ARCSEC = (10.0, 45.0)
#: Added sources stand this far from the centre, as a fraction of the beam's width at half power, and away
#: from any source that has a fiftieth of their apparent flux.
PLACE = (0.1, 0.45)
CLEARANCE_ARCSEC, CLEARANCE_FLUX = 180.0, 0.02
#: The variable source is the fourth brightest within half power: bright, but not what the gains hang on.
VARIABLE_RANK = 3


@dataclass(frozen=True)
class Scene:
    """True sky and catalogue.

    Attributes
    ----------
    sky : SkyModel
        True components.
    sky_kind : tuple of str, one per component
        listed, double, variable, missing, faint, new or far.
    sky_entry : ndarray of int, shape (n,)
        Row of `catalog` that stands for the component, -1 if none.
    catalog : SkyModel
        What the catalogue lists, with its errors, wherever these put it.
    catalog_kind : tuple of str, one per entry
        listed, double, variable, spurious, absent or, of another field, other.
    """

    sky: SkyModel
    sky_kind: tuple[str, ...]
    sky_entry: Int
    catalog: SkyModel
    catalog_kind: tuple[str, ...]


def build_scene(
    config: SimulationConfig,
    streams: Mapping[str, np.random.Generator],
    ra_rad: float,
    dec_rad: float,
    radius_rad: float,
    beam: PrimaryBeam,
    freq_hz: float,
    given: SkyModel | None = None,
) -> Scene:
    """Draw, or take from a catalogue, what is in the sky, and list it with errors and omissions.

    Parameters
    ----------
    config : SimulationConfig
        Options.
    streams : mapping of str to Generator
        Random numbers by subject.
    ra_rad, dec_rad, radius_rad : float
        Centre of the field in the middle of the observation, and how far the sky reaches, ICRS radians.
    beam : PrimaryBeam
        Primary beam, which apparent fluxes are meant through.
    freq_hz : float
        Frequency of apparent fluxes: the middle of the band.
    given : SkyModel, optional
        Sky to use in place of the drawn one.

    Returns
    -------
    Scene

    Raises
    ------
    InputError
        If no source is there to vary.
    CatalogError
        If the real sky is asked for and its strips are missing.
    """
    base = given if given is not None else _base(config, streams, ra_rad, dec_rad, radius_rad)
    n = len(base)

    def apparent(sky: SkyModel) -> Float:
        response = beam.power_towards(sky.lmn(ra_rad, dec_rad), freq_hz)
        return np.asarray(sky.flux_at(np.array([freq_hz])) * response)[:, 0]

    # Every source draws for every fate, so that one fraction does not shift the others.
    missing = streams["missing"].uniform(size=n) < config.missing
    spurious = (streams["spurious"].uniform(size=n) < config.spurious) & ~missing
    rng = streams["variables"]
    varied = rng.uniform(size=n) < config.variables
    ratio = np.where(varied, 2.0 ** rng.uniform(-1, 1, n), 1.0)
    doubled = (streams["doubles"].uniform(size=n) < config.doubles) & base.is_point
    kind = np.full(n, "listed", dtype=object)
    fates = {"double": doubled, "variable": varied, "missing": missing, "spurious": spurious}
    for name, chosen in fates.items():
        kind[chosen] = name
    if config.variable_ratio != 1.0:
        inside = angular_separation(base.ra_rad, base.dec_rad, ra_rad, dec_rad) < beam.fwhm_rad(freq_hz) / 2
        candidates = np.flatnonzero(inside & base.is_point & (kind == "listed"))
        if candidates.size == 0:
            raise InputError("no listed source within half power", "variable_ratio", "lower min_mjy")
        bright = candidates[np.argsort(-apparent(base)[candidates], kind="stable")]
        one = bright[min(VARIABLE_RANK, bright.size - 1)]
        ratio[one], kind[one] = config.variable_ratio, "variable"

    entry = np.where(missing, -1, np.cumsum(~missing) - 1)
    true = replace(base, flux_jy=base.flux_jy * ratio)
    split, origin = _with_doubles(streams["doubles"], true, doubled)
    keep = ~spurious[origin]
    skies, labels, rows = [split.select(keep)], list(kind[origin[keep]]), [entry[origin[keep]]]
    listed = with_catalog_errors(streams["catalog"], base, config.flux_error, config.position_error)
    catalogs, catalog_kind = [listed.select(~missing)], list(kind[~missing])

    centre = (ra_rad, dec_rad)
    if config.faint_mjy > 0:
        # Where nothing reaches the receiver from but through sidelobes, faint sources do not matter.
        reach = min(radius_rad, beam.null_rad(freq_hz))
        faint = draw_sky(
            streams["faint"],
            *centre,
            reach,
            min(config.faint_mjy, config.min_mjy),
            below_mjy=config.min_mjy,
            prefix="faint",
        )
        skies.append(faint)
        labels += ["faint"] * len(faint)
        rows.append(np.full(len(faint), -1))
    known = apparent(base)
    for name, flux in (("new", config.new_jy), ("absent", config.absent_jy), ("double", config.double_jy)):
        place = _clear_place(streams[name], base, known, *centre, beam.fwhm_rad(freq_hz), flux)
        if flux == 0:
            continue
        added = SkyModel.points(*place, np.ones(1), spectral_index=-0.75, prefix=name)
        added = replace(added, flux_jy=flux / apparent(added))
        if name == "new":
            skies.append(added)
            labels.append(name)
            rows.append(np.full(1, -1))
            continue
        if name == "double":
            skies.append(_pair(added, config.double_arcsec * ARCSEC, streams[name].uniform(0, 2 * np.pi)))
            labels += [name, name]
            rows.append(np.full(2, len(catalog_kind)))
        catalogs.append(added)
        catalog_kind.append(name)
    far = far_bright_sources(*centre, radius_rad)
    skies.append(far)
    labels += ["far"] * len(far)
    rows.append(np.full(len(far), -1))
    sky, entries = SkyModel.concatenate(skies), np.concatenate(rows).astype(np.int64)
    catalog = SkyModel.concatenate(catalogs)
    if config.bright_error != 1:
        there = entries >= 0
        true_jy = np.zeros(len(catalog))
        np.add.at(true_jy, entries[there], sky.flux_jy[there])
        catalog = with_bright_errors(
            catalog, apparent(catalog), true_jy, config.bright_error, config.bright_error_n
        )
    catalog = with_catalog_fault(catalog, config, streams["catalog_error"], *centre, radius_rad)
    if config.catalog_error == "other-field":
        entries, catalog_kind = np.full(len(sky), -1), ["other"] * len(catalog)
    return Scene(sky, tuple(labels), entries, catalog, tuple(catalog_kind))


def _base(
    config: SimulationConfig,
    streams: Mapping[str, np.random.Generator],
    ra_rad: float,
    dec_rad: float,
    radius_rad: float,
) -> SkyModel:
    """Take the sources above the catalogue's limit, drawn or real, with a scatter of spectral indices.

    Where the real catalogue ends above that limit, fainter sources are drawn.
    """
    if config.real_sky:
        folder: Path | None = config.catalog_dir
        base = catalogued_sky(ra_rad, dec_rad, radius_rad, catalog_dir=folder)
        ends_mjy = 1e3 * float(base.flux_jy.min(initial=np.inf))
        base = base.select(base.flux_jy >= 1e-3 * config.min_mjy)
        if config.min_mjy < ends_mjy < np.inf:
            fainter = draw_sky(
                streams["sky"], ra_rad, dec_rad, radius_rad, config.min_mjy, below_mjy=ends_mjy
            )
            base = SkyModel.concatenate([base, fainter])
    else:
        base = draw_sky(streams["sky"], ra_rad, dec_rad, radius_rad, config.min_mjy, config.brightest_jy)
    scatter = config.index_scatter * streams["index"].standard_normal(len(base))
    return replace(base, spectral_index=base.spectral_index + scatter)


def _with_doubles(rng: np.random.Generator, sky: SkyModel, doubled: Bool) -> tuple[SkyModel, Int]:
    """Split sources in two about their centroid; return the components and the source of each."""
    n = len(sky)
    apart = ARCSEC * rng.uniform(*DOUBLE_ARCSEC, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    share = rng.uniform(0.3, 0.7, n)
    origin = np.concatenate([np.arange(n), np.flatnonzero(doubled)])
    second = np.arange(origin.size) >= n
    split = doubled[origin]
    # Flux-weighted, the two components cancel about the catalogued position.
    part = np.where(split, np.where(second, 1 - share[origin], share[origin]), 1.0)
    away = np.where(split, np.where(second, -share[origin], 1 - share[origin]), 0.0) * apart[origin]
    model = sky.select(origin)
    model = replace(
        model,
        name=tuple(
            f"{name}{'b' if b else 'a'}" if d else name
            for name, b, d in zip(model.name, second, split, strict=True)
        ),
        flux_jy=model.flux_jy * part,
        ra_rad=np.mod(model.ra_rad + away * np.sin(angle[origin]) / np.cos(model.dec_rad), 2 * np.pi),
        dec_rad=np.clip(model.dec_rad + away * np.cos(angle[origin]), -np.pi / 2, np.pi / 2),
    )
    return model, origin


def _pair(single: SkyModel, apart_rad: float, angle_rad: float) -> SkyModel:
    """Two equal halves of one source about its place."""
    l, m = (np.array([-0.5, 0.5]) * np.sin(apart_rad) * f(angle_rad) for f in (np.sin, np.cos))  # noqa: E741
    ra, dec = radec_from_lm(l, m, float(single.ra_rad[0]), float(single.dec_rad[0]))
    both = single.select(np.zeros(2, dtype=np.int64))
    return replace(
        both, name=(f"{both.name[0]}a", f"{both.name[0]}b"), flux_jy=both.flux_jy / 2, ra_rad=ra, dec_rad=dec
    )


def _clear_place(
    rng: np.random.Generator,
    sky: SkyModel,
    apparent_jy: Float,
    ra_rad: float,
    dec_rad: float,
    fwhm_rad: float,
    flux_jy: float,
) -> tuple[Float, Float]:
    """Find a place inside the beam where nothing bright is near; the last one tried if there is none."""
    disturbing = apparent_jy > CLEARANCE_FLUX * flux_jy
    for _ in range(200):
        distance, angle = rng.uniform(*PLACE) * fwhm_rad, rng.uniform(0, 2 * np.pi)
        l, m = np.sin(distance) * np.sin(angle), np.sin(distance) * np.cos(angle)  # noqa: E741
        ra, dec = radec_from_lm(np.array([l]), np.array([m]), ra_rad, dec_rad)
        near = angular_separation(sky.ra_rad, sky.dec_rad, ra, dec) < CLEARANCE_ARCSEC * ARCSEC
        if not (near & disturbing).any():
            break
    return ra, dec
