"""The whole job by this project and by its peers, on one simulated observation, one after the other.

    python -m benchmarks.full FOLDER [--small] [--programs ours,casa,dp3,auto_selfcal] [--longest SECONDS]

from the root of the repository. An observation with known truth is simulated (16 windows of 48 channels, 96
antennas, 24 dumps, random phases; with ``--small`` 4 windows of 16 channels, 48 antennas, 12 dumps), and each
program goes from the raw data and the catalogue to a calibrated image:

ours
    ``contimg selfcal``, once with CORRECTED_DATA alone and once with MODEL_DATA too.
casa
    One phase centre, component list, ``ft``, ``gaincal`` (phases, then amplitudes and phases), ``applycal``,
    ``tclean`` with w-projection; needs ``make casa``.
dp3
    One phase centre, four correlations, DP3 (prediction; phases, amplitudes and phases, applied in the same
    pass), WSClean; needs Debian's package ``wsclean``. DP3 is installed below FOLDER.
auto_selfcal
    The pipeline of that name, which knows no catalogue and cannot begin at random phases, on an observation
    that is small enough for it, and ours beside it; needs ``make casa``, the rest is installed below FOLDER.

The peers get the same catalogue sources as ours, at the flux and the spectral index that they have through
the primary beam, the solution intervals that ours found best, the same pixels, weights, restoring beam and
depth of CLEAN. All images are measured in one way against the truth. What a program was called with is in
FOLDER/PROGRAM/, the figures are in FOLDER/full.json too; programs that are not named keep the figures of an
earlier call. A peer that has taken more than ``--longest`` seconds is stopped; its figures are lower bounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time

from benchmarks.full_peers import (
    AUTO_SELFCAL_AS,
    CASA_TELESCOPE,
    Recipe,
    Unavailable,
    run_auto_selfcal,
    run_casa,
    run_dp3,
)
from benchmarks.measured import Measured, contimg, run_measured
from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.files import write_json
from dsa110_contimg.imaging import mad_rms, measure_image, off_source_region, read_image
from dsa110_contimg.imaging.fits import ImageHeader, write_image
from dsa110_contimg.imaging.masks import catalog_mask
from dsa110_contimg.imaging.obs_context import ObsContext, open_observation
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import ApparentSky, SkyModel
from dsa110_contimg.sky.apparent_sky import BAND_SAMPLES, mean_apparent_flux

OURS, OURS_BOTH = "ours", "ours, both columns"
PROGRAMS = ("ours", "casa", "dp3", "auto_selfcal")
FULL = {"spws": 16, "channels": 48, "antennas": 96, "dumps": 24, "seed": 7}
SMALL = {"spws": 4, "channels": 16, "antennas": 48, "dumps": 12, "seed": 7}
#: What auto_selfcal can take in half an hour, and phase errors from which it can find its way.
REDUCED = {"spws": 4, "channels": 4, "antennas": 63, "dumps": 12, "dump-s": 25.769804, "seed": 7}
REDUCED |= {"phase-rms": 40, "fields": 1}
#: With fewer antennas or dumps its automatic masks stay empty; a single window crashes it.
REDUCED_SMALL = REDUCED | {"spws": 2}
REDUCED_SIZE = 1152
#: Steepest spectral index that a source at the edge of a null is given, either way.
STEEPEST = 10.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """A program on an observation.

    Attributes
    ----------
    program : str
        Its name in the table.
    took : Measured
        What it took.
    image : dict
        What :func:`measure` says of its image; empty without one.
    note : str
        Why there is none, or what has to be known.
    """

    program: str
    took: Measured
    image: dict[str, float]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A simulated observation.

    Attributes
    ----------
    ms : Path
        Measurement Set as the telescope writes it.
    truth : Path
        What it was made of.
    catalog_dir : Path
        Strips of its catalogue.
    """

    ms: Path
    truth: Path
    catalog_dir: Path


def make_observation(folder: Path, options: Mapping[str, object], flags: Sequence[str]) -> Observation:
    """Simulate an observation and build the strips of its catalogue, unless it was done before."""
    observation = Observation(
        ms=folder / "f1.ms", truth=folder / "f1.truth.npz", catalog_dir=folder / "catalogs"
    )
    done, said = folder / "simulated.json", {"options": dict(options), "flags": list(flags)}
    if done.exists() and json.loads(done.read_text("utf-8")) == said:
        return observation
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    must(run_measured(contimg("simulate", observation.ms, *words, *flags), "simulate"))
    listed = folder / "f1.catalog.ecsv"
    must(
        run_measured(
            contimg("catalog", "build", "nvss", listed, "--catalog-dir", observation.catalog_dir), "build"
        )
    )
    write_json(done, said)
    return observation


def must(took: Measured) -> Measured:
    """Return what a command took; end the benchmark if it failed."""
    if took.exit_status:
        raise SystemExit(f"exit status {took.exit_status}:\n{took.output}")
    return took


def measure(image: Path, truth: Truth) -> dict[str, float]:
    """Measure an image against the true sky through the beam, mean over dumps and band.

    Parameters
    ----------
    image : Path
        Restored image in FITS, not corrected for the primary beam.
    truth : Truth
        What the observation was made of.

    Returns
    -------
    dict of str to float
        ``rms_jy`` off source; ``flux_ratio``, of ``flux_ratio_n`` isolated sources, and ``east_arcsec``,
        ``north_arcsec``, medians; ``offset_arcsec``, the length of that.
    """
    final, sky = read_image(image), truth.sky
    if final.beam is None:
        raise SystemExit(f"{image} has no beam")
    band = np.linspace(float(truth.freq_hz.min()), float(truth.freq_hz.max()), BAND_SAMPLES)
    apparent = mean_apparent_flux(sky, truth.beam, truth.pointing, band)
    bright = apparent > 5 * mad_rms(final.image)
    region = off_source_region(
        final.grid, *final.grid.sky_to_lm(sky.ra_rad[bright], sky.dec_rad[bright]), None, final.beam
    )
    found = measure_image(
        final.image,
        final.grid,
        final.beam,
        region,
        thermal_rms_jy=float("nan"),
        ra_rad=sky.ra_rad,
        dec_rad=sky.dec_rad,
        flux_jy=apparent,
        is_point=sky.is_point,
    )
    figures = {"rms_jy": found.rms_jy, "peak_jy": found.peak_jy, "lowest_jy": found.min_jy}
    if found.flux_ratio is not None and found.offset_arcsec is not None:
        east, north = found.offset_arcsec
        figures |= {"flux_ratio": found.flux_ratio, "flux_ratio_n": found.flux_ratio_n}
        figures |= {"east_arcsec": east, "north_arcsec": north, "offset_arcsec": float(np.hypot(east, north))}
    return figures


def run_ours(
    name: str, observation: Observation, folder: Path, *options: object, warm_up: bool = False
) -> Result:
    """Self-calibrate a copy of an observation, if asked for after a run that does not count.

    What is compiled at the first run on a machine is there for all later ones.
    """
    if warm_up:
        first = run_ours(name, observation, folder, *options)
        print(f"first run, which may compile and does not count: {first.took.seconds:.0f} s", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ms, out = folder / "f1.ms", folder / "out"
    shutil.copytree(observation.ms, ms)
    took = must(
        run_measured(contimg("selfcal", ms, out, "--catalog-dir", observation.catalog_dir, *options), "all")
    )
    stages: dict[str, float] = {}
    for line in (out / "selfcal_stages.jsonl").read_text("utf-8").splitlines():
        stage = json.loads(line)
        stages[stage["stage"]] = stages.get(stage["stage"], 0.0) + stage["seconds"]
    stages["start, tables, pictures"] = took.seconds - sum(stages.values())
    summary = json.loads((out / "selfcal_summary.json").read_text("utf-8"))
    note = f"{summary['status']}, {summary['final']['thermal_ratio']:.2f} x thermal noise"
    shutil.rmtree(ms)
    return Result(
        program=name,
        took=replace(took, stages=stages),
        image=measure(out / "final-image.fits", Truth.read(observation.truth)),
        note=note,
    )


def apparent_points(seed: ApparentSky, context: ObsContext) -> SkyModel:
    """Return a sky model for programs without our beam: each source as seen through it.

    Flux at the middle of the band, mean over the dumps, and the spectral index between the edges.
    """
    freq = context.reader.freq_hz
    low, high = float(freq.min()), float(freq.max())
    middle = (low + high) / 2
    at_low, flux, at_high = (
        mean_apparent_flux(seed.sky, seed.beam, context.reader.pointing, np.array([f]))
        for f in (low, middle, high)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.log(at_high / at_low) / np.log(high / low)
    index = np.clip(np.nan_to_num(index), -STEEPEST, STEEPEST)
    return replace(seed.sky, flux_jy=flux, spectral_index=index, reference_freq_hz=middle)


def recipe_of(observation: Observation, ours: Path, folder: Path) -> Recipe:
    """Work out what the peers are called with: from the observation, the catalogue and the run of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = json.loads((ours / "selfcal_summary.json").read_text("utf-8"))
    options = {"catalog_dir": observation.catalog_dir, "size": summary["provenance"]["config"]["size"]}
    context = open_observation(observation.ms, SelfCalConfig(**options))
    seed = context.catalog_model()
    final = read_image(ours / "final-image.fits")
    assert final.beam is not None
    apparent_points(seed, context).write_wsclean(folder / "sky.txt")
    depth_jy = summary["provenance"]["config"]["clean_sigma"] * summary["final"]["rms_jy"]
    five_sigma = 5 * summary["final"]["rms_jy"]
    mask = catalog_mask(seed.sky.select(seed.apparent_jy > five_sigma), final.grid, final.beam)
    freq = context.reader.freq_hz
    # CASA takes a mask only with time and place in its header, of a telescope that it knows.
    header = ImageHeader(
        freq_hz=float(freq.mean()),
        bandwidth_hz=float(np.ptp(freq)),
        telescope=CASA_TELESCOPE,
        date_obs=str(Time(context.reader.times[0] / 86400.0, format="mjd", scale="utc").isot),
        unit="",
    )
    write_image(folder / "mask.fits", mask.astype(np.float32), final.grid, header=header)
    rounds = {this["calmode"]: this for this in summary["iterations"] if this.get("solint_s")}
    tables = [ours / name for name in summary["gaintables"]]
    gains = next(iter(read_gain_table(tables[0]).gains.values()))
    dump_s = float(np.median(context.reader.interval_s))

    def solint(mode: str, otherwise: float) -> float:
        return float(rounds[mode]["solint_s"]) if mode in rounds else otherwise

    return Recipe(
        ms=observation.ms,
        sky=folder / "sky.txt",
        mask=folder / "mask.fits",
        size=final.grid.size,
        cell_arcsec=round(float(np.degrees(final.grid.cell_rad)) * 3600, 6),
        beam=(
            float(np.degrees(final.beam.major_rad)) * 3600,
            float(np.degrees(final.beam.minor_rad)) * 3600,
            float(np.degrees(final.beam.pa_rad)),
        ),
        depth_jy=depth_jy,
        dump_s=dump_s,
        phase_solint_s=solint("p", dump_s),
        amplitude_solint_s=solint("ap", dump_s * context.reader.times.size),
        combine_windows=all(bool(this["combined_spw"]) for this in rounds.values()),
        reference_antenna=context.ms.antennas.name[int(gains.reference_antenna[0])],
        n_windows=len(context.ms.spectral_windows),
    )


def run_peer(
    name: str,
    program: Callable[[Recipe, Path, float | None], tuple[Measured, Path]],
    recipe: Recipe,
    folder: Path,
    truth: Truth,
    longest_s: float | None,
) -> Result:
    """Run a peer in a folder of its own; what cannot be run, failed or was stopped is said in its note."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        took, image = program(recipe, folder, longest_s)
    except Unavailable as missing:
        return Result(program=name, took=Measured(), image={}, note=f"left out: {missing}")
    if took.stopped_in is not None:
        note = f"more than {took.seconds:.0f} s, stopped in {took.stopped_in}"
        return Result(program=name, took=took, image={}, note=note)
    if took.exit_status:
        stage = list(took.stages)[-1]
        said = [line.strip() for line in took.output.splitlines() if line.strip()]
        # Of a traceback the line that names the error, else the last one.
        last = next(
            (line for line in reversed(said) if "Error" in line), said[-1] if said else "without a word"
        )
        (folder / "failed.txt").write_text(took.output, "utf-8")
        return Result(program=name, took=took, image={}, note=f"failed in {stage}: {last[:160]}")
    return Result(program=name, took=took, image=measure(image, truth))


def in_words(results: Sequence[Result], against: str) -> list[str]:
    """Lay results out as a table, each with its stages below; times are compared with one program's."""
    base = next((r.took.seconds for r in results if r.program == against), float("nan"))
    lines = [
        f"{'program':<22}{'clock s':>9}{'CPU s':>9}{'peak GB':>9}{'read GB':>9}{'written':>9}"
        f"{'rms mJy':>9}{'flux ratio':>15}{'offset':>8}{'times ours':>12}"
    ]
    for r in results:
        if not r.took.seconds:
            lines.append(f"{r.program:<22}{r.note}")
            continue
        bound = ">" if r.took.stopped_in is not None else ""
        took = [r.took.seconds, r.took.processor_s]
        size = [x / 1e3 for x in (r.took.peak_mb, r.took.read_mb, r.took.written_mb)]
        line = f"{r.program:<22}" + "".join(f"{bound + f'{x:.0f}':>9}" for x in took)
        line += "".join(f"{bound + f'{x:.2f}':>9}" for x in size)
        if r.image:
            ratio = (
                f"{r.image['flux_ratio']:.3f} of {r.image['flux_ratio_n']:.0f}"
                if "flux_ratio" in r.image
                else "-"
            )
            offset = f'{r.image["offset_arcsec"]:.2f}"' if "offset_arcsec" in r.image else "-"
            line += f"{1e3 * r.image['rms_jy']:>9.3f}{ratio:>15}{offset:>8}"
        else:
            line += f"{'-':>9}{'-':>15}{'-':>8}"
        times = f"{bound}{r.took.seconds / base:.1f}" if r.image or bound else "-"
        lines.append(f"{line}{times:>12}")
    lines.append("")
    for r in results:
        if r.took.paused_s > 1:
            lines.append(
                f"{r.program}: stopped by somebody else for {r.took.paused_s:.0f} s, which do not count"
            )
        if r.note and r.took.seconds:
            more = f"; more than {r.took.seconds / base:.1f} times {against}" if r.took.stopped_in else ""
            lines.append(f"{r.program}: {r.note}{more}")
        if r.took.stages:
            lines.append(f"{r.program}, seconds by stage:")
            lines += [f"  {stage:<44}{seconds:>9.1f}" for stage, seconds in r.took.stages.items()]
    return lines


def saved(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Results as ``full.json`` holds them."""
    return [asdict(r) for r in results]


def earlier(file: Path, part: str, options: object) -> dict[str, Result]:
    """Results of an earlier call on the same observation, by program."""
    if not file.exists():
        return {}
    kept = json.loads(file.read_text("utf-8")).get(part, {})
    if kept.get("observation") != options:
        return {}
    return {r["program"]: Result(**{**r, "took": Measured(**r["took"])}) for r in kept["results"]}


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="an observation for every day")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="of " + ",".join(PROGRAMS))
    parser.add_argument("--longest", type=float, help="seconds after which a peer is stopped")
    parser.add_argument("--keep", action="store_true", help="keep the Measurement Sets of the peers")
    given = parser.parse_args()
    programs = given.programs.split(",")
    if unknown := set(programs) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    report, observed = folder / "full.json", SMALL if given.small else FULL
    reduced = REDUCED_SMALL if given.small else REDUCED
    results = earlier(report, "whole", observed)
    on_reduced = earlier(report, "reduced", reduced)

    def save() -> None:
        parts = {"whole": (observed, results), "reduced": (reduced, on_reduced)}
        write_json(
            report,
            {k: {"observation": o, "results": saved(list(r.values()))} for k, (o, r) in parts.items()},
        )

    print("simulating", flush=True)
    if set(programs) - {"auto_selfcal"}:
        observation = make_observation(folder / "observation", observed, ["--random-phases"])
        truth = Truth.read(observation.truth)
        if "ours" in programs or OURS not in results:
            results[OURS] = run_ours(
                OURS, observation, folder / "ours", "--columns", "corrected", warm_up=True
            )
            results[OURS_BOTH] = run_ours(OURS_BOTH, observation, folder / "ours-both")
            save()
        recipe = recipe_of(observation, folder / "ours" / "out", folder / "recipe")
        for name, program in (("casa", run_casa), ("dp3", run_dp3)):
            if name in programs:
                print(name, flush=True)
                results[name] = run_peer(name, program, recipe, folder / name, truth, given.longest)
                save()
                if not given.keep:
                    clear(folder / name)
    if "auto_selfcal" in programs:
        observation = make_observation(folder / "reduced", reduced, ["--no-drift"])
        truth = Truth.read(observation.truth)
        options = ("--columns", "corrected", "--size", REDUCED_SIZE)
        on_reduced[OURS] = run_ours(OURS, observation, folder / "ours-reduced", *options, warm_up=True)
        save()
        recipe = recipe_of(observation, folder / "ours-reduced" / "out", folder / "recipe-reduced")
        print(AUTO_SELFCAL_AS, flush=True)
        on_reduced["auto_selfcal"] = run_peer(
            "auto_selfcal", run_auto_selfcal, recipe, folder / "auto_selfcal", truth, given.longest
        )
        save()
        if not given.keep:
            clear(folder / "auto_selfcal")
    for title, options_of, found in (
        ("the whole observation", observed, results),
        ("a reduced observation, tracked, 40 degrees of phase errors", reduced, on_reduced),
    ):
        if found:
            print(f"\n{title}: {', '.join(f'{k} {v}' for k, v in options_of.items())}")
            print(*in_words(list(found.values()), OURS), sep="\n")


def clear(folder: Path) -> None:
    """Remove the Measurement Sets of a peer."""
    for path in folder.glob("*.ms"):
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
