"""Light curves of one field over many transits, against the truth.

    python -m studies.lightcurves FOLDER [TRANSITS] [MINUTES]

Transits of one field, sixty unless said, with an array of 24 dishes within 700 m, 6 dumps and one window of
16 channels: antenna phases are random each day, dishes point off by 0.05 degrees each, one source in twenty
varies by a known amplitude of 5 to 300 per cent, six transients of 5 to 50 sigma come and go, two days are
bad. Each is self-calibrated, its sources are measured, and all are taken into a database of light curves.
Stops after MINUTES, if given; the same command goes on where it stopped. Writes ``result.json`` into FOLDER:
reduced chi-squared and pulls of constant sources by flux and distance, and what is found of the variables and
transients, and how much besides. Measurement Sets are removed.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Float, Int
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import PipelineConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.files import write_json
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.measured_sources import FORCED
from dsa110_contimg.pipeline.quality import judge
from dsa110_contimg.selfcal.naming import SUMMARY
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.simulate.population import draw_sky
from dsa110_contimg.sky import AiryBeam, SkyModel, angular_separation, radec_from_lm

RA, DEC = np.radians(150.0), np.radians(54.57)
#: Noise of an image of the study, jansky; amplitudes, of the flux, from the least to the most.
NOISE_JY, AMPLITUDES, SHARE = 0.7e-3, (0.05, 3.0), 0.05
TRANSIENTS_SIGMA = (5.0, 8.0, 12.0, 18.0, 30.0, 50.0)
#: What is wrong on bad days.
BAD = {17: {"beam_width": 1.3}, 41: {"ionosphere_deg": 80.0}}
POINTING_DEG = 0.05
N_ANTENNAS = 24


@dataclass(frozen=True, eq=False)
class Field:
    """What is in the field, and how it varies.

    Attributes
    ----------
    sky : SkyModel
        Sources at rest, then transients at their peak.
    varies : ndarray, shape (n,)
        Amplitude of each source: its flux goes up to one and this times that at rest; NaN for a transient.
    factor : ndarray, shape (n, TRANSITS)
        Flux over `sky` on each transit.
    """

    sky: SkyModel
    varies: Float
    factor: Float


def field_of(transits: int) -> Field:
    """Draw the field: always the same."""
    rng = np.random.default_rng(20)
    beam, freq = AiryBeam(4.65), 1.405e9
    quiet = draw_sky(rng, RA, DEC, np.radians(6.0), 5.0, 1.0)
    response = beam.power(angular_separation(quiet.ra_rad, quiet.dec_rad, RA, DEC), freq)[:, 0]
    apparent = quiet.flux_at(np.array([freq]))[:, 0] * response
    seen = np.flatnonzero((apparent > 8 * NOISE_JY) & (quiet.flux_jy < 0.3) & (response > 0.2))
    chosen = rng.choice(seen, max(6, round(SHARE * seen.size)), replace=False)
    varies = np.zeros(len(quiet) + len(TRANSIENTS_SIGMA))
    varies[chosen] = np.geomspace(*AMPLITUDES, chosen.size)
    day = np.arange(transits)
    factor = np.ones((varies.size, transits))
    for k in chosen:
        period, phase = rng.uniform(5, 40), rng.uniform(0, 2 * np.pi)
        factor[k] += varies[k] * (1 + np.sin(2 * np.pi * day / period + phase)) / 2
    places, known = [], np.stack([quiet.ra_rad, quiet.dec_rad])
    while len(places) < len(TRANSIENTS_SIGMA):
        l, m = rng.uniform(-0.012, 0.012, (2, 1))  # noqa: E741
        ra, dec = radec_from_lm(l, m, RA, DEC)
        near = angular_separation(*known, ra, dec)
        if near.min() > np.radians(0.06) and near[apparent > 0.05].min() > np.radians(0.15):
            places.append((float(ra[0]), float(dec[0])))
            known = np.append(known, [[ra[0]], [dec[0]]], axis=1)
            apparent = np.append(apparent, 0.1)
    ra, dec = np.array(places).T
    through = beam.power(angular_separation(ra, dec, RA, DEC), freq)[:, 0]
    new = SkyModel.points(
        ra, dec, np.array(TRANSIENTS_SIGMA) * NOISE_JY / through, spectral_index=-0.75, prefix="transient"
    )
    n = len(quiet)
    varies[n:] = np.nan
    for k in range(len(new)):
        begin = rng.integers(3, max(4, transits - 8))
        factor[n + k] = (day >= begin) & (day < begin + rng.integers(2, 7))
    return Field(SkyModel.concatenate([quiet, new]), varies, factor)


def array_file(path: Path) -> Path:
    """Write an array whose synthesised beam is round."""
    rng = np.random.default_rng(7)
    place = rng.uniform(-350, 350, (400, 2))
    place = place[np.hypot(*place.T) < 350]
    chosen = [place[0]]
    for at in place[1:]:
        if len(chosen) < N_ANTENNAS and min(np.hypot(*(at - c)) for c in chosen) > 40:
            chosen.append(at)
    head = (
        "telescope DSA_110",
        "latitude_deg 37.23339",
        "longitude_deg -118.28341",
        "height_m 1188",
        "dish_m 4.65",
    )
    lines = [f"# {text}" for text in head] + [f"a{k} {e:.2f} {n:.2f} 0" for k, (e, n) in enumerate(chosen)]
    path.write_text("\n".join(lines) + "\n")
    return path


def options_of(day: int, array: Path) -> SimulationConfig:
    """Return the options of a day: all of its gains, noise and pointing errors are its own."""
    return SimulationConfig(
        array=str(array), dumps=6, channels=16, sefd_jy=2200.0, random_phases=True, seed=1000 + day,
        transit=day, pointing_rms=POINTING_DEG, min_mjy=5.0, **BAD.get(day, {}),
    )  # fmt: skip


def make_day(folder: Path, day: int, field: Field, *, whole: bool = False) -> Truth:
    """Simulate a transit; with `whole`, of the sky at rest, whose catalogue is that of all."""
    n = int(np.isfinite(field.varies).sum())
    factor = np.r_[np.ones(n), np.zeros(len(field.sky) - n)] if whole else field.factor[:, day]
    there = factor > 0
    sky = field.sky.select(there)
    sky = replace(sky, flux_jy=sky.flux_jy * factor[there])
    return simulate(
        folder / f"{'rest' if whole else f'day{day:03d}'}.ms", options_of(day, folder / "array.txt"), sky
    )


def run_day(folder: Path, day: int, field: Field) -> None:
    """Simulate and calibrate one transit, unless that is done."""
    out = folder / f"run{day:03d}"
    if (out / SUMMARY).exists():
        return
    ms = folder / f"day{day:03d}.ms"
    if not ms.exists():
        make_day(folder, day, field)
    config = SelfCalConfig(
        catalog_dir=folder / "catalog",
        columns="none",
        size=512,
        cell_arcsec=20.0,
        pointing="off",
        pointing_error_deg=POINTING_DEG / N_ANTENNAS**0.5,
        threads=1,
    )
    selfcal_ms(ms, out, config)
    for name in out.glob("*.fits"):
        if name.name not in ("final-image.fits", "final-difference.fits"):
            name.unlink()
    shutil.rmtree(ms)


def prepare(folder: Path, field: Field) -> None:
    """Make array and catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "catalog").is_dir():
        array_file(folder / "array.txt")
        make_day(folder, 0, field, whole=True)
        build_strips("nvss", folder / "rest.catalog.ecsv", folder / "catalog")
        shutil.rmtree(folder / "rest.ms")


def take_in(folder: Path) -> dict[str, list[str]]:
    """Judge all runs as the pipeline does, and take them into the light curves; return names by verdict."""
    found: dict[str, list[str]] = {}
    (folder / "lightcurves.sqlite3").unlink(missing_ok=True)
    with LightCurves(folder / "lightcurves.sqlite3") as curves:
        for run in sorted(path.parent for path in folder.glob(f"run*/{SUMMARY}")):
            quality = judge(json.loads((run / SUMMARY).read_text()), PipelineConfig()).quality
            curves.take_in(run, identity=run.name, run_id="1", name=run.name, verdict=quality)
            found.setdefault(quality, []).append(run.name)
    return found


def evaluate(folder: Path, field: Field) -> dict[str, Any]:
    """Hold the light curves against the truth."""
    verdicts = take_in(folder)
    with LightCurves(folder / "lightcurves.sqlite3", readonly=True) as curves:
        listed, new = curves.sources("catalogue", 3), curves.sources("new")
        observations = [o for o in curves.observations() if o["counts"]]
        light = [curves.curve(int(k)) for k in listed["id"]]
        flashes = [curves.curve(int(k)) for k in new["id"]]
    days = [int(o["name"][3:]) for o in observations]
    is_of = _matched(field.sky, listed)
    varies = field.varies[is_of]
    found = np.asarray(listed["probability"]) < 1 / len(listed)
    constant = varies == 0
    pulls = []
    for curve in (c for c, still in zip(light, constant, strict=True) if still):
        n = curve.mjd.size
        mean = np.average(curve.flux_jy, weights=1 / curve.error_jy**2)
        pull = (curve.flux_jy - mean) / curve.error_jy * (n / (n - 1)) ** 0.5
        away = np.full(n, _distance(curve.source))
        # By what the source has in the mean: the noise of a flux decides on its own place otherwise.
        ratio = np.full(n, float(np.mean(curve.flux_jy / curve.stat_error_jy)))
        pulls.append(np.stack([pull, ratio, away]))
    pull, snr, distance = np.concatenate(pulls, axis=1)
    n = np.asarray(listed["n"])[constant]
    chi2 = float((np.asarray(listed["eta"])[constant] * (n - 1)).sum() / (n - 1).sum())
    bins = {
        f"{low:g} to {high:g} sigma": _width(pull[(snr >= low) & (snr < high)])
        for low, high in ((0, 7), (7, 12), (12, 20), (20, 40), (40, 100), (100, 1e5))
    }
    rings = {
        f"{low:g} to {high:g} deg": _width(pull[(distance >= low) & (distance < high)])
        for low, high in ((0, 0.5), (0.5, 1), (1, 1.5), (1.5, 3))
    }
    variables = [
        {
            "amplitude": float(varies[k]),
            "mean_snr": float(np.mean(light[k].flux_jy / light[k].stat_error_jy)),
            "eta": float(listed["eta"][k]),
            "found": bool(found[k]),
            "modulation": float(listed["intrinsic"][k]),
            "true_modulation": _modulation(field.factor[is_of[k], days]),
        }
        for k in np.flatnonzero(varies > 0)
    ]
    transients = [_transient(field, k, new, flashes, days) for k in np.flatnonzero(np.isnan(field.varies))]
    real = sum(len(t["days_found"]) for t in transients)
    return {
        "transits": sum(map(len, verdicts.values())),
        "verdicts": verdicts | {"good": len(verdicts.get("good", []))},
        "constant_sources": int(constant.sum()),
        "reduced_chi_squared": chi2,
        "pull_width_all": _width(pull),
        "pull_width_by_signal_to_noise": bins,
        "pull_width_by_distance": rings,
        "variables": sorted(variables, key=lambda v: v["amplitude"]),
        "constant_called_variable": int((found & constant).sum()),
        "expected_by_chance": 1.0,
        "transients": transients,
        "new_detections": int(np.sum(new["n_detected"])),
        "false_detections": int(np.sum(new["n_detected"])) - real,
        "false_expected": float(sum(o["false_new_expected"] or 0 for o in observations)),
        "new_sources_found_twice": int(np.sum(np.asarray(new["n_detected"]) > 1)),
    }


def _matched(sky: SkyModel, table: Table) -> Int:
    """Return the sources of the sky that lie nearest to those of a table."""
    ra, dec = np.radians(table["ra_deg"]), np.radians(table["dec_deg"])
    away = [angular_separation(sky.ra_rad, sky.dec_rad, *at) for at in zip(ra, dec, strict=True)]
    return np.array([np.argmin(a) for a in away], dtype=np.int64)


def _distance(source: dict[str, Any]) -> float:
    ra, dec = np.radians(source["ra_deg"]), np.radians(source["dec_deg"])
    return float(np.degrees(angular_separation(np.array([ra]), np.array([dec]), RA, DEC))[0])


def _width(pull: Float) -> dict[str, float]:
    """Return the standard deviation of pulls, and its error by their number."""
    error = float(1 / np.sqrt(2 * max(pull.size, 1)))
    return {"width": float(np.std(pull)), "error": error, "n": int(pull.size)}


def _modulation(factor: Float) -> float:
    return float(np.std(factor, ddof=1) / np.mean(factor))


def _transient(field: Field, k: int, new: Table, flashes: list[Any], days: list[int]) -> dict[str, Any]:
    """Say on which days a transient was there, and on which it was found."""
    on = [day for day in days if field.factor[k, day] > 0]
    place = field.sky.ra_rad[k], field.sky.dec_rad[k]
    ra, dec = np.radians(np.asarray(new["ra_deg"])), np.radians(np.asarray(new["dec_deg"]))
    near = np.flatnonzero(angular_separation(ra, dec, *place) < np.radians(40 / 3600)) if len(new) else []
    found, ratios = [], []
    truth = field.sky.flux_at(np.array([1.405e9]))[k, 0]
    for n in near:
        curve = flashes[int(n)]
        for day, method, flux in zip(curve.observation, curve.method, curve.flux_jy, strict=True):
            if method != FORCED:
                found.append(int(day[3:]))
                ratios.append(float(flux / truth))
    return {
        "sigma": TRANSIENTS_SIGMA[k - int(np.isfinite(field.varies).sum())],
        "days_there": on,
        "days_found": sorted(set(found) & set(on)),
        "days_found_when_not_there": sorted(set(found) - set(on)),
        "mean_flux_over_truth": float(np.mean(ratios)) if ratios else None,
    }


def main(folder: Path, transits: int = 60, minutes: float = 1e9) -> None:
    """Make what is missing, as far as the time allows, and hold it against the truth."""
    begun, field = time.monotonic(), field_of(60)
    prepare(folder, field)
    for day in range(transits):
        if time.monotonic() - begun > 60 * minutes:
            break
        run_day(folder, day, field)
    result = evaluate(folder, field)
    write_json(folder / "result.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))
