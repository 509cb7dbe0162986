"""Fields that NVSS does not reach, in declination or frequency: simulated, calibrated from random phases.

    python -m studies.any_sky FOLDER [south sumss 700mhz circle north]

Each case simulates a small drift scan with random phases, lists its sky in files of the layout that the
archives of the surveys document, each with errors of its own, builds them and runs `contimg selfcal` with
`--catalog auto`. Spectral indices scatter by 0.15 about -0.75, and no catalogue is told them.

south    Dec -55 at 1.4 GHz, RACS-mid and RACS-low
sumss    the same with SUMSS alone, whose fluxes are carried from 843 MHz with the assumed index
700mhz   Dec +54.57 at 650 to 750 MHz, NVSS and WENSS
circle   Dec +54.57 at 1.4 GHz, NVSS in a circle that just holds the main beam
north    Dec +54.57 at 1.4 GHz, all of NVSS: what the others are held against
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.catalogs import SURVEYS, build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate.observe import simulate
from dsa110_contimg.sky import AiryBeam, SkyModel

CASES = ("south", "sumss", "700mhz", "circle", "north")
LISTS = {
    "south": ("racs-mid", "racs-low"),
    "sumss": ("sumss",),
    "700mhz": ("nvss", "wenss"),
    "circle": ("nvss",),
    "north": ("nvss",),
}
#: Error of each flux in each list, as a fraction.
FLUX_ERROR = 0.03


def write_array(path: Path) -> None:
    """Write an array of 30 stations of 4.65 m within a kilometre, at the latitude of the Karoo."""
    rng = np.random.default_rng(5)
    radius, angle = 500.0 * np.sqrt(rng.uniform(0.002, 1.0, 30)), rng.uniform(0, 2 * np.pi, 30)
    places = zip(radius * np.sin(angle), radius * np.cos(angle), strict=True)
    head = ["telescope SOUTH", "latitude_deg -30.7", "longitude_deg 21.4", "height_m 1000", "dish_m 4.65"]
    rows = [f"s{k:02d} {east:.2f} {north:.2f} 0.0" for k, (east, north) in enumerate(places)]
    path.write_text("\n".join([*(f"# {line}" for line in head), *rows, ""]))


def write_list(path: Path, survey: str, sky: SkyModel, rng: np.random.Generator) -> None:
    """Write what a survey would list of a sky, in the layout of its archive."""
    facts = SURVEYS[survey]
    flux = (
        1e3 * sky.flux_at(np.array([facts.freq_hz]))[:, 0] * (1 + FLUX_ERROR * rng.standard_normal(len(sky)))
    )
    listed = flux >= facts.flux_limit_mjy
    ra, dec, flux = np.degrees(sky.ra_rad)[listed] % 360, np.degrees(sky.dec_rad)[listed], flux[listed]
    error = np.hypot(facts.flux_limit_mjy / 5, FLUX_ERROR * flux)
    columns: dict[str, list[str]] = {}
    places = [f"{x:.7f}" for x in ra], [f"{x:.7f}" for x in dec]
    fluxes = [f"{x:.4f}" for x in flux], [f"{x:.4f}" for x in error]
    blank = [""] * len(ra)
    if survey == "racs-mid":
        columns = {"ra": places[0], "dec": places[1], "total_flux": fluxes[0], "e_total_flux": fluxes[1]}
        columns |= dict.fromkeys(("dc_maj_axis", "dc_min_axis", "dc_pa"), ["0.0"] * len(ra))
    elif survey == "racs-low":
        columns = {"ra": places[0], "dec": places[1], "total_flux_source": fluxes[0]}
        columns |= {"e_total_flux_source": fluxes[1], "dc_maj": blank, "dc_min": blank, "dc_pa": blank}
    else:
        columns = {"RAJ2000": places[0], "DEJ2000": places[1]}
        name = {"sumss": "St", "wenss": "Sint", "nvss": "S1.4"}[survey]
        columns |= {name: fluxes[0], f"e_{name}": fluxes[1]}
        if survey == "wenss":
            columns["Flg1"] = ["S"] * len(ra)
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(row) for row in rows), ""]))


def run(case: str, folder: Path) -> dict[str, Any]:
    """Simulate and calibrate one case; return its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    south = case in ("south", "sumss")
    write_array(folder / "south.txt")
    low, high = (650.0, 750.0) if case == "700mhz" else (1311.25, 1498.75)
    ra, dec = 150.0, -55.0 if south else 54.57
    config = SimulationConfig(
        array=str(folder / "south.txt") if south else "dsa110",
        antennas=24,
        channels=8,
        spws=2,
        dumps=8,
        ra=ra,
        dec=dec,
        low_mhz=low,
        high_mhz=high,
        random_phases=True,
        flux_error=0.0,
        seed=3,
    )
    truth = simulate(folder / "o.ms", config)
    rng = np.random.default_rng(11)
    beam = AiryBeam(4.65)
    reach = np.degrees(beam.null_rad(low * 1e6, order=2)) + 3.0
    wide = (0.0, 360.0, max(-90.0, dec - reach), min(90.0, dec + reach))
    main = float(np.degrees(beam.null_rad(low * 1e6))) + 0.5
    for survey in LISTS[case]:
        write_list(folder / f"{survey}.csv", survey, truth.scene.catalog, rng)
        covers = (ra, dec, main) if case == "circle" else wide
        build_strips(survey, folder / f"{survey}.csv", folder / "catalogs", covers=covers)
    command = [sys.executable, "-m", "dsa110_contimg", "selfcal", str(folder / "o.ms"), str(folder / "out")]
    command += ["--catalog", "auto", "--catalog-dir", str(folder / "catalogs"), "--quiet"]
    subprocess.run(command, check=True)
    summary = json.loads((folder / "out" / "selfcal_summary.json").read_text())
    final = summary["final"]
    cell = np.hypot(*final["offset_arcsec"])
    return {
        "case": case,
        "status": summary["status"],
        "catalog": summary["catalog"],
        "n_seeds": summary["n_seeds"],
        "thermal_ratio": round(final["thermal_ratio"], 3),
        "flux_ratio": round(final["flux_ratio"], 3),
        "flux_ratio_n": final["flux_ratio_n"],
        "offset_arcsec": round(float(cell), 3),
        "recovered": (summary["heldout_sources"] or {}).get("recovered_fraction"),
        "indices": summary["seed_spectra"]["indices"],
        "notes": summary["seed_notes"],
    }


def main() -> None:
    """Run the cases named, or all."""
    folder, cases = Path(sys.argv[1]), sys.argv[2:] or CASES
    for case in cases:
        print(json.dumps(run(case, folder / case)), flush=True)


if __name__ == "__main__":
    main()
