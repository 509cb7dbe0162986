"""Products of a run as files, without the run: for arrays and names that take too long to simulate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
from astropy.table import Table
from casacore.tables import default_ms_subtable, table

from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.calibration.gains import Gains
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.files import write_json, write_table, write_text
from dsa110_contimg.imaging import ImageGrid, ImageHeader, RestoringBeam, write_image
from dsa110_contimg.report import IndexRow

HERE_M = np.array([-2.409e6, -4.478e6, 3.839e6])
FIGURES = {
    "snr": 20.0,
    "rms_jy": 1e-3,
    "thermal_rms_jy": 9e-4,
    "thermal_ratio": 1.1,
    "flux_ratio": 0.99,
    "flux_ratio_n": 5,
    "offset_arcsec": [0.1, -0.2],
}


def write_run(
    folder: Path,
    names: Sequence[str],
    *,
    n_sources: int = 20,
    size: int = 128,
    n_times: int = 24,
    field: str = "a field",
    source: str = "nvss",
    windows: int = 1,
) -> Path:
    """Write what a seeded run that improved leaves; each spectral window has gains of its own."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    grid = ImageGrid(size, np.radians(4.0 / size), np.radians(150.0), np.radians(54.0))
    beam = RestoringBeam(3 * grid.cell_rad, 2 * grid.cell_rad, 0.5)
    header = ImageHeader(freq_hz=1.4e9, bandwidth_hz=1e8)
    for name, noise in (("initial-image", 5e-3), ("final-image", 1e-3), ("final-difference", 1e-3)):
        image = noise * rng.standard_normal((size, size), dtype=np.float32)
        image[size // 2, size // 2] += 1.0
        write_image(folder / f"{name}.fits", image, grid, beam, header=header)
    _write_tables(folder, names, n_times, windows, rng)
    _write_sources(folder, n_sources, source, rng)
    products = {
        n.replace("-", "_"): f"{n}.fits" for n in ("initial-image", "final-image", "final-difference")
    }
    products |= {"sources": "sources.ecsv", "antennas": "antennas.ecsv"}
    curve = [
        {"solint_s": 10.0 * k, "common": False, "combined": True, "interpolation": "linear",
         "chi2_heldout": 1 + 0.01 * k, "chi2_train": 1.0, "chi2_expected": 1 + 0.008 * k, "taken": k == 1}
        for k in (1, 2, 4)
    ]  # fmt: skip
    iteration = {"iteration": 1, "calmode": "ap", "solint_s": 10.0, "interpolation": "linear",
                 "gain_type": "G", "combined_spw": True, "model": "seed", "solved_fraction": 0.98,
                 "chi2_heldout": 1.01, "accepted": True, "reason": f"better, in {field}",
                 "gaintable": "selfcal_1_ap.gcal", "curve": curve}  # fmt: skip
    summary = {
        "status": "improved",
        "message": f"improved by round 1 in {field}",
        "seeded": True,
        "findings": [{"kind": "few", "text": f"look at {source}0", "status": ""}],
        "initial": FIGURES,
        "final": FIGURES,
        "snr_improvement": 1.0,
        "best_iteration": 1,
        "iterations": [iteration],
        "gaintables": ["selfcal_1_ap.gcal"],
        "products": products,
        "seconds": {"total": 12.0, "read": 3.0},
        "provenance": {
            "version": "0.1.0",
            "config": json.loads(SelfCalConfig().model_dump_json()) | {"refant": names[0]},
            "ms": f"/data/{field}.ms",
            "field": field,
            "initial_caltables": [],
            "data_hash": "0",
            "catalog_hash": "1",
        },
    }
    stage = {"stage": "check", "start": "2026-01-25T22:26:05.000+00:00", "seconds": 1.0, "noted": [field]}
    write_text(folder / "selfcal_stages.jsonl", json.dumps(stage) + "\n")
    write_json(folder / "selfcal_summary.json", summary)
    return folder


def _write_tables(
    folder: Path, names: Sequence[str], n_times: int, windows: int, rng: np.random.Generator
) -> None:
    n = len(names)
    described = folder / "described"
    described.mkdir()
    for name, rows in (("ANTENNA", n), ("FIELD", 1), ("SPECTRAL_WINDOW", windows), ("OBSERVATION", 1)):
        made = default_ms_subtable(name, str(described / name))
        made.addrows(rows)
        made.close()
    with table(str(described / "ANTENNA"), readonly=False, ack=False) as antennas:
        antennas.putcol("NAME", list(names))
        antennas.putcol("POSITION", HERE_M + rng.normal(0, 500, (n, 3)))
    with table(str(described / "FIELD"), readonly=False, ack=False) as fields:
        for column in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            fields.putcell(column, 0, np.radians([[150.0, 54.0]]))
    with table(str(described / "SPECTRAL_WINDOW"), readonly=False, ack=False) as described_windows:
        for column in ("CHAN_FREQ", "CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
            for k in range(windows):
                described_windows.putcell(column, k, np.array([1.4e9 + 1e7 * k]))
    shape = (n_times, n, 1, 2)
    gain = (1 + 0.1 * rng.normal(size=shape)) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    flag = rng.random(shape) < 0.05
    gains = Gains(
        time_s=5.1e9 + 12.9 * np.arange(n_times),
        interval_s=np.full(n_times, 12.9),
        freq_hz=np.array([1.4e9]),
        gain=gain,
        flag=flag,
        error=np.full(shape, 0.05),
        snr=np.full(shape, 20.0),
        reference_antenna=np.zeros(n_times, dtype=np.int64),
        field_id=np.zeros(n_times, dtype=np.int64),
        scan=np.ones(n_times, dtype=np.int64),
    )
    each = {
        k: replace(gains, gain=gain * np.exp(1j * k), freq_hz=np.array([1.4e9 + 1e7 * k]))
        for k in range(windows)
    }
    described_ms = SimpleNamespace(path=described, subtable=described.joinpath, time_scale="UTC")
    write_gain_table(folder / "selfcal_1_ap.gcal", "G Jones", each, described_ms)
    verdict = np.array(["good"] * (2 * n), dtype="<U9")
    verdict[1::7] = "noisy"
    verdict[::11] = "noise"
    zero = np.zeros(2 * n)
    columns = {"antenna": np.repeat(list(names), 2), "polarisation": np.tile([0, 1], n)}
    of_gains = ("solved_fraction", "amplitude", "amplitude_scatter", "phase_step_deg", "jumps")
    columns |= dict.fromkeys((*of_gains, "heldout_snr", "noise_factor"), zero + 0.9)
    write_table(folder / "antennas.ecsv", Table({**columns, "lost": [""] * (2 * n), "verdict": verdict}))


def _write_sources(folder: Path, n: int, name: str, rng: np.random.Generator) -> None:
    flux = np.sort(rng.pareto(1.5, n) * 5e-3)[::-1] + 1e-3
    measured = np.arange(n) < n // 3
    verdict = np.where(measured, "agrees", "faint").astype("<U8")
    verdict[1 : n // 3 : 4] = "brighter"

    def known(values):
        return np.where(measured, values, np.nan)

    columns = {
        "name": [f"{name}{k}" for k in range(n)],
        "kind": ["catalogue"] * n,
        "method": np.where(measured, "visibilities", "image"),
        "ra_deg": 150 + rng.uniform(-2.5, 2.5, n),
        "dec_deg": 54 + rng.uniform(-1.8, 1.8, n),
        "catalog_flux_jy": 2 * flux,
        "flux_jy": 2 * flux,
        "stat_error_jy": np.full(n, 4e-4),
        "scale_error_jy": 0.02 * flux,
        "beam_error_jy": 0.01 * flux,
        "apparent_jy": flux,
        "catalog_apparent_jy": flux,
        "ratio": known(rng.normal(1, 0.05, n)),
        "ratio_error": known(np.full(n, 0.03)),
        "shift_east_arcsec": known(rng.normal(0, 0.5, n)),
        "shift_north_arcsec": known(rng.normal(0, 0.5, n)),
        "shift_error_arcsec": known(np.full(n, 0.2)),
        "verdict": verdict,
    }
    table = Table(columns)
    table.meta |= {"n_new": 0, "false_new_expected": 0.1, "n_negative": 0}
    table.meta |= {"searched_fraction": 0.9, "threshold_sigma": 5.0}
    write_table(folder / "sources.ecsv", table)


def index_rows(n: int, per_day: int) -> list[IndexRow]:
    """Rows of observations as a pipeline leaves them: antenna 43 turns bad six days before the last."""
    rng = np.random.default_rng(1)
    names, rows = [str(k) for k in range(1, 118)], []
    last = (n - 1) // per_day
    for k in range(n):
        at = 1.767e9 + k * 86400 / per_day
        name = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        times = {"observed_at": at, "ended_at": at + 600}
        if k % 50 == 7:
            rows.append(IndexRow(name=name, status="failed", why="no strip of nvss: build them", **times))
            continue
        is_bad = k % 20 == 3
        odd = {"noise": ["43"] if k // per_day > last - 6 else [], "noisy": ["77"] if k % 3 == 0 else []}
        odd = {verdict: found for verdict, found in odd.items() if found} | {"no data": ["99"]}
        good = [a for a in names if not any(a in found for found in odd.values())]
        row = IndexRow(
            name=name,
            link=f"./{quote(name)}/seeded/report.html",
            status="improved",
            verdict="bad" if is_bad else "unverified" if k % 10 == 1 else "good",
            seeded=k % 25 != 0,
            version="0.1.0",
            why="noise 3.60 x thermal, allowed 3" if is_bad else "",
            thermal_ratio=float(1.1 + 0.1 * rng.random() + 2.5 * is_bad),
            flux_ratio=float(rng.normal(1, 0.02)),
            offset_arcsec=float(abs(rng.normal(0, 0.5))),
            snr_gain=float(3 + rng.random()),
            seconds=float(90 + 20 * rng.random()),
            antennas={"good": good, **odd},
            **times,
        )
        rows.append(row)
    return rows
