"""Is the product ever wrong in silence? Small observations of 28 kinds of trouble, held against the truth.

    python -m studies.trust FOLDER [PROCESSES] [NAME_PATTERN]

Kinds of trouble (the table KINDS) times three starts (phase errors of 5 and 20 degrees, random phases) times
two or three fields (brightest source 2.5 Jy; 0.5 Jy; nothing bright): 189 runs. NAME_PATTERN, as of a shell,
chooses runs by their names, KIND-FIELD-START. Each has 48 antennas, 12 dumps and 4 windows of 2 channels.
Finished ones are not done again; Measurement Sets are removed.

What is promised, by the truth of the simulation: an improved run is not worse than its input; no catalogue of
another sky is accepted; what can be calibrated is; the noise over thermal noise is what it is said to be. The
table and the broken promises are printed, the counts are written to FOLDER/summary.json. Exit status 1 if a
promise is broken, 2 if a run crashed.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numba
import numpy as np
from astropy.table import Table

from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import gain_errors, input_errors, score_run
from dsa110_contimg.config import PipelineConfig, SelfCalConfig, SimulationConfig
from dsa110_contimg.errors import ContimgError
from dsa110_contimg.imaging import read_image
from dsa110_contimg.imaging.gridder import Imager
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.pipeline.quality import judge
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.corrected_data import stokes_data
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.simulate import Truth, simulate
from dsa110_contimg.sky.apparent_sky import mean_apparent_flux

#: A field is a sky, gains and noise of its own.
FIELDS: dict[str, dict[str, Any]] = {
    "bright": {"brightest_jy": 2.5, "seed": 1},
    "medium": {"brightest_jy": 0.5, "seed": 2},
    "faint": {"brightest_jy": 0.0, "seed": 3},
}
ALL, BRIGHT_MEDIUM, BRIGHT_FAINT, MEDIUM_FAINT = (
    tuple(FIELDS),
    ("bright", "medium"),
    ("bright", "faint"),
    ("medium", "faint"),
)
#: Start phase errors.
STARTS: dict[str, dict[str, Any]] = {
    "5": {"phase_rms": 5.0},
    "20": {"phase_rms": 20.0},
    "random": {"random_phases": True},
}
#: What all observations have in common. The slow drift is no larger than the smallest start error.
OBSERVATION: dict[str, Any] = {
    "antennas": 48,
    "dumps": 12,
    "spws": 4,
    "channels": 2,
    "phase_drift": 5.0,
    "min_mjy": 5.0,
    "faint_mjy": 1.0,
    "doubles": 0.05,
    "variables": 0.05,
    "missing": 0.02,
}
NOISE_JY = 6500.0
#: Fainter seeds than the catalogue's limit before the beam would only take time: they are below the noise.
SELFCAL: dict[str, Any] = {"size": 512, "cell_arcsec": 8.0, "threads": 1, "seed_min_apparent_mjy": 5.0}


@dataclass(frozen=True)
class Kind:
    """A kind of trouble.

    Attributes
    ----------
    fields : tuple of str
        Fields in which it is tried.
    simulation : dict
        Options of the simulation.
    cause : tuple of str
        The catalogue is of another sky; a message with one of these words in it names the cause.
    may_refuse : bool
        Whether a refusal is right too: the catalogue contradicts a coherent input, or no gain of an antenna
        for all directions is better than a coherent input's.
    signal : bool
        Whether there is enough signal to calibrate in any field.
    thermal : bool
        Whether the noise of all data that are imaged is known.
    """

    fields: tuple[str, ...] = BRIGHT_FAINT
    simulation: dict[str, Any] = field(default_factory=dict)
    cause: tuple[str, ...] = ()
    may_refuse: bool = False
    signal: bool = True
    thermal: bool = True

    @property
    def wrong_sky(self) -> bool:
        """Whether the catalogue is of another sky."""
        return bool(self.cause)


MIRRORED, MOVED, TURNED = ("mirror",), ("shift", "moved", "displaced"), ("turned", "rotat")
OTHER = ("another field", "other field", "not the catalogue's", "another sky")
KINDS: dict[str, Kind] = {
    "healthy": Kind(ALL),
    "mirror_ra": Kind(ALL, {"catalog_error": "mirror"}, MIRRORED),
    "mirror_dec": Kind(ALL, {"catalog_error": "mirror-dec"}, MIRRORED),
    # Both mirrors are half a turn.
    "mirror_both": Kind(ALL, {"catalog_error": "rotate", "catalog_error_size": 180.0}, (*MIRRORED, *TURNED)),
    "other_field": Kind(ALL, {"catalog_error": "other-field"}, OTHER),
    "shift_20arcmin": Kind(ALL, {"catalog_error": "shift", "catalog_error_size": 1200.0}, MOVED),
    "rotate_0.2deg": Kind(ALL, {"catalog_error": "rotate", "catalog_error_size": 0.2}, TURNED),
    "shift_2arcsec": Kind(
        BRIGHT_MEDIUM, {"catalog_error": "shift", "catalog_error_size": 2.0}, may_refuse=True
    ),
    "fluxes_half": Kind(BRIGHT_FAINT, {"catalog_error": "scale", "catalog_error_size": 0.5}, may_refuse=True),
    "bright_double": Kind(MEDIUM_FAINT, {"double_jy": 8.0, "double_arcsec": 60.0}),
    "brightest_x3": Kind(BRIGHT_MEDIUM, {"bright_error": 3.0, "bright_error_n": 3}),
    "ionosphere_20deg": Kind(BRIGHT_FAINT, {"ionosphere_deg": 20.0}, may_refuse=True),
    "refraction_5arcsec": Kind(MEDIUM_FAINT, {"refraction_arcsec": 5.0}),
    "dead_40pc": Kind(BRIGHT_FAINT, {"dead_fraction": 0.4, "dead_time_fraction": 0.5}, thermal=False),
    "zeros_20pc": Kind(BRIGHT_MEDIUM, {"zeros": 0.2, "zeros_time_fraction": 0.5}, thermal=False),
    "stuck_20pc": Kind(BRIGHT_MEDIUM, {"stuck": 0.2, "zeros_time_fraction": 0.5}, thermal=False),
    "gain_jumps": Kind(MEDIUM_FAINT, {"gain_jump_deg": 60.0}),
    "pointing_0.2deg": Kind(BRIGHT_FAINT, {"pointing_rms": 0.2}),
    "dish_25m": Kind(BRIGHT_FAINT, {"dish_m": 25.0}),
    "dish_10pc_small": Kind(BRIGHT_FAINT, {"beam_width": 1.11}),
    "delays_10ns": Kind(BRIGHT_MEDIUM, {"delay_rms": 10.0}),
    "bandpass_0.1": Kind(BRIGHT_FAINT, {"bandpass_ripple": 0.1}),
    "noise_spread": Kind(BRIGHT_FAINT, {"noise_spread": 0.3}),
    "weights_wrong": Kind(BRIGHT_FAINT, {"weights": "wrong"}),
    "interference": Kind(BRIGHT_FAINT, {"rfi": 0.03}),
    "dead_1_bad_2": Kind(MEDIUM_FAINT, {"dead": 1, "bad": 2}, thermal=False),
    "noise_x30": Kind(BRIGHT_FAINT, {"sefd_jy": 30 * NOISE_JY}, signal=False),
    "two_dumps": Kind(BRIGHT_FAINT, {"dumps": 2}),
}

#: Worse is: a coherence lower by more than this. Solved gains of a right model have the noise of a degree or
#: two, 0.0005; ten times that is no noise.
WORSE_COHERENCE = 0.01
#: Worse is: a flux scale further from one by more than this. The median amplitude of 48 antennas and two
#: hands with errors of 10 % is known to 1.3 % in amplitude, 2.6 % in flux: the input's own error is luck.
WORSE_FLUX = 0.02
#: Worse is: a position further off by more than this, arcsec. Phases of 5 degrees on 48 antennas move the sky
#: by 0.3; a source of signal to noise 20 is placed within a fortieth of the beam, 0.4.
WORSE_ARCSEC = 0.5
#: So many standard errors of what the catalogue's own random errors (3 %, 0.5 arcsec a source) do to the flux
#: scale and the position come on top: a product is as good as its catalogue. Without them: "strictly worse".
CATALOGUE_SIGMAS = 2.0
#: An input of a lower coherence has neither flux nor position that a product could be worse than.
COHERENT = 0.5
#: An input with smaller phase errors in degrees is calibrated already.
CALIBRATED_DEG = 3.0
#: An input that is kept as "converged" may have so much.
CONVERGED_DEG = 6.0
#: The thermal ratio is right within this fraction, in this fraction of the runs, and never lower by more.
THERMAL_ERROR, THERMAL_SHARE, THERMAL_LOWEST = 0.05, 0.95, 0.10


def worse(run: dict[str, Any], sigmas: float = CATALOGUE_SIGMAS) -> list[str]:
    """Say in what an improved run is worse than its input; nothing of another run.

    Parameters
    ----------
    run : dict
        What ``result.json`` holds.
    sigmas : float
        Standard errors of the catalogue that are allowed for.
    """
    if run["status"] != "improved":
        return []
    before, after, found = run["input"], run["score"], []
    if after["coherence"] < before["coherence"] - WORSE_COHERENCE:
        found.append(f"coherence {before['coherence']:.3f} -> {after['coherence']:.3f}")
    if before["coherence"] < COHERENT:
        return found
    flux0, flux1 = flux_ratio(before), flux_ratio(after)
    if abs(flux1 - 1) > abs(flux0 - 1) + WORSE_FLUX + sigmas * run["catalogue"]["flux"]:
        found.append(f"flux {flux0:.3f} -> {flux1:.3f}")
    offset0, offset1 = offset_arcsec(before), offset_arcsec(after)
    if offset1 > offset0 + WORSE_ARCSEC + sigmas * run["catalogue"]["arcsec"]:
        found.append(f"position {offset0:.2f} -> {offset1:.2f} arcsec")
    return found


def flux_ratio(figures: dict[str, Any]) -> float:
    """Flux after gains over the true one: the inverse square of their amplitudes over the true ones."""
    return float(figures["amplitude_scale"] ** -2)


def offset_arcsec(figures: dict[str, Any]) -> float:
    """How far gains move the sky; not a number where they are not coherent with the gradient taken out."""
    offset, coherence = figures["sky_offset_arcsec"], figures["sky_offset_coherence"]
    if offset is None or coherence is None or coherence < COHERENT:
        return float("nan")
    return float(np.hypot(*offset))


def wrong_sky_accepted(run: dict[str, Any]) -> bool:
    """Whether gains were kept that were solved against a catalogue of another sky."""
    return KINDS[run["kind"]].wrong_sky and run["status"] == "improved"


def false_refusal(run: dict[str, Any]) -> bool:
    """Whether an input was kept that could have been calibrated: right sky, enough signal, wrong phases."""
    kind, error = KINDS[run["kind"]], run["input"]["phase_error_deg"]
    if kind.wrong_sky or kind.may_refuse or not kind.signal or error <= CALIBRATED_DEG:
        return False
    if run["status"] == "converged":
        return bool(error >= CONVERGED_DEG)
    return bool(run["status"] != "improved")


def thermal_said_over_true(run: dict[str, Any]) -> float:
    """Noise over thermal noise as it is said, over the true one; not a number where nothing is said."""
    said = run["final"] and run["final"]["thermal_rms_jy"]
    return float(run["true_thermal_jy"] / said) if said else float("nan")


def cause_named(run: dict[str, Any]) -> bool:
    """Whether the message says what is wrong with a catalogue of another sky."""
    text = run["message"].lower()
    return any(word in text for word in KINDS[run["kind"]].cause)


def judged(summary: dict[str, Any]) -> tuple[str, list[str]]:
    """Verdict of the pipeline on a run, and its reasons."""
    verdict = judge(summary, PipelineConfig())
    return verdict.quality, list(verdict.reasons)


def in_the_mean_direction(truth: Truth) -> Truth:
    """Truth with the gains that are right for the sky as a whole, where they depend on direction.

    To each antenna's gain the mean phasor of its ionosphere over the sources, weighted by the squares of
    their apparent fluxes, as a solution has it.
    """
    receivers = truth.instrument
    if not receivers.ionosphere.any():
        return truth
    band = np.linspace(float(truth.freq_hz.min()), float(truth.freq_hz.max()), 9)
    weight = mean_apparent_flux(truth.sky, truth.beam, truth.pointing, band) ** 2
    gain = receivers.gain.copy()
    for dump, pointing in enumerate(truth.pointing):
        where = (truth.sky.ra_rad, truth.sky.dec_rad, (float(pointing[0]), float(pointing[1])))
        phasor = np.exp(1j * receivers.ionosphere_phase(dump, *where)) @ weight
        gain[dump] *= (phasor / np.abs(phasor))[:, None]
    return replace(truth, instrument=replace(receivers, gain=gain))


def true_thermal_jy(ms: Path, out: Path, summary: dict[str, Any], truth: Truth, sefd_jy: float) -> float:
    """Thermal rms of the final image by the noise of the simulation, jansky: of an image of such noise alone.

    Drawn anew, it goes through the run's gains into an image at the run's weights.
    """
    config = SelfCalConfig(**summary["provenance"]["config"])
    grid = read_image(out / "final-image.fits").grid
    context = open_observation(ms, config, field=config.field, spw=config.spw, cached=True)
    data = CalibrationData(context.reader, [], StageLog(LogProgress()), grid=grid)
    rng, loud = np.random.default_rng(0), truth.instrument.loudness
    for block in context.reader.blocks():
        seconds = context.reader.interval_s[block.time_index][:, None, None]
        nominal = sefd_jy / np.sqrt(2 * block.spw.width_hz[:, None] * seconds)
        real = nominal * (loud[block.antenna1] * loud[block.antenna2])[:, None, None]
        noise = rng.standard_normal((2, *block.data.shape)) * real
        block.data[...] = noise[0] + 1j * noise[1]
    weights = data.nominal_weights()
    if summary["gaintables"]:
        antennas = Table.read(out / "antennas.ecsv")
        factor = np.asarray(antennas["noise_factor"], dtype=float).reshape(-1, 2)
        weights = replace(weights, noise_factor=factor)
    tables = [read_gain_table(out / name) for name in summary["gaintables"]]
    chunks = stokes_data(data, tables, weights, "true noise", half_width_rad=grid.half_width_rad)
    imager = Imager(chunks, grid, config.weighting, config.robust, config.threads)
    return float(imager.dirty().std())


def catalogue_errors(truth: Truth, config: SimulationConfig) -> dict[str, float]:
    """Standard errors of flux scale and position that the catalogue's random errors make.

    Each source counts with the square of its apparent flux; of the position both axes together.
    """
    band = np.linspace(float(truth.freq_hz.min()), float(truth.freq_hz.max()), 9)
    listed = truth.scene.sky_entry >= 0
    # Of another field nothing is listed.
    sky = truth.sky.select(np.flatnonzero(listed if listed.any() else ~listed))
    flux = mean_apparent_flux(sky, truth.beam, truth.pointing, band)
    share = float(np.sqrt((flux**4).sum()) / (flux**2).sum())
    return {"flux": share * config.flux_error, "arcsec": share * config.position_error * float(np.sqrt(2))}


def run(folder: Path, kind: str, sky: str, start: str) -> dict[str, Any]:
    """Simulate, self-calibrate and score; return what ``result.json`` holds.

    No verdict needs the image with the true gains, which is not made.
    """
    here = folder / f"{kind}-{sky}-{start}"
    result = here / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    numba.set_num_threads(1)
    # What is left of an interrupted run can be of any state.
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    started = time.perf_counter()
    options = {"sefd_jy": NOISE_JY, **OBSERVATION, **FIELDS[sky], **STARTS[start], **KINDS[kind].simulation}
    config = SimulationConfig(**options)
    ms, out = here / "o.ms", here / "out"
    truth = simulate(ms, config)
    build_strips("nvss", here / "o.catalog.ecsv", here / "c")
    kept: dict[str, Any] = {
        "kind": kind,
        "field": sky,
        "start": start,
        "input": input_errors(ms, in_the_mean_direction(truth)),
        "catalogue": catalogue_errors(truth, config),
    }
    try:
        summary = selfcal_ms(ms, out, SelfCalConfig(catalog_dir=here / "c", **SELFCAL)).summary
    except ContimgError as error:
        # It was said aloud, which is all that is asked of a run that cannot go on.
        kept |= {
            "status": "error",
            "message": " ".join(str(error).split()),
            "initial": None,
            "final": None,
            "score": None,
        }
        kept |= {"true_thermal_jy": None, "judged": "error", "reasons": []}
    else:
        kept |= {key: summary[key] for key in ("status", "message", "initial", "final")}
        kept["noise"] = summary.get("noise")
        kept["score"] = score_run(out, here / "o.truth.npz", image=False)
        if summary["gaintables"]:
            tables = [out / name for name in summary["gaintables"]]
            kept["score"] |= gain_errors(ms, tables, in_the_mean_direction(truth))
        kept["true_thermal_jy"] = true_thermal_jy(ms, out, summary, truth, config.sefd_jy)
        kept["judged"], kept["reasons"] = judged(summary)
    kept["seconds"] = round(time.perf_counter() - started, 1)
    shutil.rmtree(ms)
    shutil.rmtree(here / "c")
    for image in out.glob("*.fits"):
        if image.name != "final-image.fits":
            image.unlink()
    # Written last and in one go: it marks a finished run.
    unfinished = result.with_suffix(".part")
    unfinished.write_text(json.dumps(kept, indent=2))
    unfinished.replace(result)
    return kept


def name_of(run: dict[str, Any]) -> str:
    """Name of a run and of its folder."""
    return f"{run['kind']}-{run['field']}-{run['start']}"


def counts(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count what was promised and what came of it; what ``summary.json`` holds."""
    worse_runs = {name_of(r): worse(r) for r in runs if worse(r)}
    strictly = {name_of(r): worse(r, 0.0) for r in runs if worse(r, 0.0)}
    wrong = [r for r in runs if KINDS[r["kind"]].wrong_sky]
    accepted = [r for r in wrong if wrong_sky_accepted(r)]
    refused = [r for r in runs if false_refusal(r)]
    thermal = {
        name_of(r): thermal_said_over_true(r)
        for r in runs
        if KINDS[r["kind"]].thermal and np.isfinite(thermal_said_over_true(r))
    }
    improved = [thermal[name_of(r)] for r in runs if name_of(r) in thermal and r["status"] == "improved"]
    ratio = np.array(list(thermal.values()))
    share = float(np.mean(np.abs(ratio - 1) <= THERMAL_ERROR)) if ratio.size else None
    low = {name: value for name, value in thermal.items() if value < 1 - THERMAL_LOWEST}
    off = {name: value for name, value in thermal.items() if abs(value - 1) > THERMAL_ERROR}
    good = {name_of(r) for r in runs if r["judged"] == "good"}
    broken = {
        "worse": bool(worse_runs),
        "wrong_sky_accepted": bool(accepted),
        "false_refusal": bool(refused),
        "thermal": bool(low) or (share is not None and share < THERMAL_SHARE),
    }
    return {
        "runs": len(runs),
        "status": {s: sum(r["status"] == s for r in runs) for s in sorted({r["status"] for r in runs})},
        "judged": {j: sum(r["judged"] == j for r in runs) for j in sorted({r["judged"] for r in runs})},
        "worse": {
            "of": sum(r["status"] == "improved" for r in runs),
            "count": len(worse_runs),
            "judged_good": len(good & worse_runs.keys()),
            "runs": worse_runs,
            "strictly_count": len(strictly),
            "strictly_runs": strictly,
        },
        "wrong_sky_accepted": {
            "of": len(wrong),
            "count": len(accepted),
            "judged_good": len(good & {name_of(r) for r in accepted}),
            "runs": [name_of(r) for r in accepted],
        },
        "false_refusal": {
            "of": sum(KINDS[r["kind"]].signal and not KINDS[r["kind"]].wrong_sky for r in runs),
            "count": len(refused),
            "runs": {name_of(r): f"{r['status']}: {r['message']}" for r in refused},
        },
        "thermal": {
            "of": len(thermal),
            "within": None if share is None else round(share, 4),
            "within_improved": round(float(np.mean(np.abs(np.array(improved) - 1) <= THERMAL_ERROR)), 4)
            if improved
            else None,
            "too_low_count": len(low),
            "too_low": low,
            "off": off,
        },
        "cause_named": {
            "of": len(wrong),
            "count": sum(cause_named(r) for r in wrong),
            "runs_without": [name_of(r) for r in wrong if not cause_named(r)],
        },
        "broken": broken,
    }


HEADER = (
    f"{'kind':<20}{'field':<8}{'start':<8}{'status':<16}{'coherence':>16}{'phase deg':>16}{'flux':>16}"
    f"{'offset arcsec':>18}{'thermal said/true':>19}  {'judged':<8}{'cause':<7}message"
)
MESSAGE_LENGTH = 90


def line(run: dict[str, Any]) -> str:
    """One line of the table: figures before and after by the truth."""
    before, after = run["input"], run["score"] or {}
    if after.get("coherence") is None:
        after = before

    def change(value0: float, value1: float, digits: int, width: int) -> str:
        return f"{f'{value0:.{digits}f} -> {value1:.{digits}f}':>{width}}"

    said = (run["final"] or {}).get("thermal_ratio") or float("nan")
    true = said / thermal_said_over_true(run)
    kind = KINDS[run["kind"]]
    cause = ("named" if cause_named(run) else "no") if kind.wrong_sky else ""
    message = run["message"]
    if len(message) > MESSAGE_LENGTH:
        message = message[: MESSAGE_LENGTH - 3] + "..."
    thermal = f"{said:.2f} / {true:.2f}{'' if kind.thermal else ' *'}"
    return (
        f"{run['kind']:<20}{run['field']:<8}{run['start']:<8}{run['status']:<16}"
        f"{change(before['coherence'], after['coherence'], 3, 16)}"
        f"{change(before['phase_error_deg'], after['phase_error_deg'], 1, 16)}"
        f"{change(flux_ratio(before), flux_ratio(after), 3, 16)}"
        f"{change(offset_arcsec(before), offset_arcsec(after), 2, 18)}"
        f"{thermal:>19}  {run['judged']:<8}{cause:<7}{message}"
    )


def report(found: dict[str, Any]) -> None:
    """Print the counts, and what broke a promise by name."""
    states = (", ".join(f"{n} {name}" for name, n in found[key].items()) for key in ("status", "judged"))
    print(f"\n{found['runs']} runs: {'; judged: '.join(states)}")
    w, a, f, t, c = (
        found[k] for k in ("worse", "wrong_sky_accepted", "false_refusal", "thermal", "cause_named")
    )
    print(
        f"WORSE than the input: {w['count']} of {w['of']} improved, {w['judged_good']} of them judged good "
        f"({w['strictly_count']} without allowance for the catalogue's errors)"
    )
    for name, what in w["runs"].items():
        print(f"  {name}: {', '.join(what)}")
    for name, what in w["strictly_runs"].items():
        if name not in w["runs"]:
            print(f"  within the catalogue's errors: {name}: {', '.join(what)}")
    print(f"WRONG SKY ACCEPTED: {a['count']} of {a['of']}, {a['judged_good']} of them judged good")
    for name in a["runs"]:
        print(f"  {name}")
    print(f"FALSE REFUSAL: {f['count']} of {f['of']} with the right sky and enough signal")
    for name, what in f["runs"].items():
        print(f"  {name}: {what}")
    if t["of"]:
        improved = "none" if t["within_improved"] is None else f"{100 * t['within_improved']:.1f} %"
        print(
            f"THERMAL ratio within {100 * THERMAL_ERROR:g} % of the true one: {100 * t['within']:.1f} % of "
            f"{t['of']} (of the improved {improved}), too low by more than {100 * THERMAL_LOWEST:g} %: "
            f"{t['too_low_count']}; said over true of the others:"
        )
    for name, value in t["off"].items():
        print(f"  {name}: {value:.3f}")
    print(f"CAUSE NAMED: {c['count']} of {c['of']} catalogues of another sky; not in:")
    for name in c["runs_without"]:
        print(f"  {name}")
    broken = [name.replace("_", " ") for name, is_broken in found["broken"].items() if is_broken]
    print(f"broken promises: {', '.join(broken) or 'none'}")


def work_through(folder: Path, cases: Sequence[tuple[str, str, str]], processes: int) -> list[dict[str, Any]]:
    """Do what is not done yet; tell of each run on standard error. A run that crashed is left out."""
    done: dict[tuple[str, str, str], dict[str, Any]] = {}
    left = [case for case in cases if not (folder / "-".join(case) / "result.json").exists()]
    for case in cases:
        if case not in left:
            done[case] = run(folder, *case)
    started = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        futures = {pool.submit(run, folder, *case): case for case in left}
        for n, future in enumerate(as_completed(futures), 1):
            case = futures[future]
            try:
                done[case] = future.result()
                said = f"{done[case]['status']}, {done[case]['seconds']:.0f} s"
            except Exception as error:
                traceback.print_exception(error)
                said = f"crashed: {type(error).__name__}: {error}"
            rest = (time.monotonic() - started) / n * (len(left) - n) / 60
            print(f"{n} of {len(left)} {'-'.join(case)}: {said}; {rest:.0f} min left", file=sys.stderr)
    return [done[case] for case in cases if case in done]


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    pattern = sys.argv[3] if len(sys.argv) > 3 else "*"
    cases = [(k, f, s) for k, kind in KINDS.items() for f in kind.fields for s in STARTS]
    cases = [case for case in cases if fnmatch("-".join(case), pattern)]
    if not cases:
        print(f"no run is named like {pattern}", file=sys.stderr)
        return 2
    runs = work_through(folder, cases, processes)
    print(HEADER, *map(line, runs), sep="\n")
    print("* not counted: weights or antennas hide the thermal noise")
    found = counts(runs) | {"pattern": pattern, "crashed": len(cases) - len(runs)}
    report(found)
    (folder / "summary.json").write_text(json.dumps(found, indent=2))
    if found["crashed"]:
        print(f"{found['crashed']} runs crashed")
        return 2
    return int(any(found["broken"].values()))


if __name__ == "__main__":
    sys.exit(main())
