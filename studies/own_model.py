"""A model of the user's own as the only one: calibration from it, against that from the catalogue.

    python -m studies.own_model FOLDER

Simulates a tracked field of one phase centre with random phases, calibrates a copy from the catalogue, has
`wsclean -save-source-list` CLEAN the calibrated data, and calibrates fresh copies with `--model` from that
list, from its image of components, and from DP3's text of the field's true sources. Prints, for each, by how
much its gains differ from the catalogue's. DP3's own gaincal is the judge: it calibrates the same data from
WSClean's list and from the catalogue's apparent sources. By what the list lacks its gains differ as ours do,
and of one model its gains are ours. DP3 is installed below FOLDER.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import casacore
import numpy as np
from casacore.tables import table

from benchmarks.four_correlations import expand
from benchmarks.full_peers import DP3_PACKAGES, Unavailable, environment
from dsa110_contimg.array_types import Bool, Complex
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate.observe import simulate
from dsa110_contimg.sky import SkyModel
from studies.any_sky import write_array

#: Five pixels across the beam of the longest baselines: a component is at the centre of its pixel.
SIZE, CELL_ARCSEC = 2400, 8.0

#: Without these the list is flat over a band in which sources fall by a fifth, and what that leaves is
#: CLEANed into false components: gains differ by twice as much.
SPECTRA = ("-channels-out", "8", "-join-channels", "-fit-spectral-pol", "4")


def dp3_text(sky: SkyModel) -> str:
    """Write true sources as DP3 reads them."""
    lines = ["FORMAT = Name, Type, Ra, Dec, I, ReferenceFrequency='1.4e9', SpectralIndex='[]'"]
    for k in range(len(sky)):
        ra, dec = np.degrees(sky.ra_rad[k]) % 360, np.degrees(sky.dec_rad[k])
        index = f"[{sky.spectral_index[k]:.6f}]"
        lines.append(f"s{k}, POINT, {ra:.8f}deg, {dec:.8f}deg, {sky.flux_jy[k]:.8f}, 1.4e9, {index}")
    return "\n".join(lines) + "\n"


def calibrated(ms: Path, out: Path, *options: str) -> dict[str, object]:
    """Self-calibrate; the summary."""
    command = [sys.executable, "-m", "dsa110_contimg", "selfcal", str(ms), str(out), "--quiet", *options]
    subprocess.run(command, check=True)
    found: dict[str, object] = json.loads((out / "selfcal_summary.json").read_text())
    return found


def gain_difference(one: Path, other: Path) -> dict[str, float]:
    """Tell by how much the gains of two calibrations of the same DATA differ.

    Corrected data are ``V / (g_i conj(g_j))``: their ratio holds the gains' ratio on each baseline and no
    noise. Its factor over the array is the flux scale, the scatter about it the difference of the gains.
    """
    (x, flag), (y, also) = _corrected(one), _corrected(other)
    used = ~(flag | also) & (np.abs(y) > 0)
    ratio = np.divide(x, y, where=used, out=np.ones_like(x))[used]
    scale = float(np.median(np.abs(ratio)))
    off = ratio / scale
    return {
        "flux_scale": scale,
        "phase_rms_deg": float(np.degrees(np.std(np.angle(off))) / np.sqrt(2)),
        "amplitude_rms": float(np.std(np.abs(off)) / np.sqrt(2)),
        "gain_rms": float(np.sqrt(np.mean(np.abs(off - 1) ** 2) / 2)),
    }


def _corrected(ms: Path) -> tuple[Complex, Bool]:
    """Parallel hands of CORRECTED_DATA and FLAG without autocorrelations, in one order of rows."""
    with table(str(ms), ack=False) as main:
        first, second, time = (main.getcol(name) for name in ("ANTENNA1", "ANTENNA2", "TIME"))
        order = np.lexsort((second, first, time))
        order = order[first[order] != second[order]]
        data, flag = main.getcol("CORRECTED_DATA"), main.getcol("FLAG")
    return data[order][:, :, [0, -1]].astype(np.complex128), flag[order][:, :, [0, -1]]


def calibrated_by_dp3(ms: Path, model: Path, python: Path, folder: Path) -> Path:
    """Predict a component list and solve amplitudes and phases, a solution each dump, with DP3 alone."""
    four = folder / f"dp3-{model.stem}.ms"
    expand(ms, four)
    (folder / "casarc").write_text(f"measures.directory: {Path(casacore.__file__).with_name('data')}\n")
    env = os.environ | {"CASARCFILES": str(folder / "casarc"), "OPENBLAS_NUM_THREADS": "1"}
    dp3 = [str(python), str(python.with_name("DP3.py")), f"msin={four}", "msout=."]
    predict = ["steps=[predict]", f"predict.sourcedb={model}", "msout.datacolumn=MODEL_DATA"]
    subprocess.run([*dp3, *predict], env=env, check=True, capture_output=True)
    options = {
        "type": "gaincal",
        "caltype": "diagonal",
        "solint": 1,
        "nchan": 0,
        "parmdb": folder / f"{model.stem}.h5",
        "applysolution": "true",
        "usemodelcolumn": "true",
        "maxiter": 300,
        "tolerance": 1e-7,
    }
    solve = ["msin.extradatacolumns=[MODEL_DATA]", "msout.datacolumn=CORRECTED_DATA", "steps=[g]"]
    solve += [f"g.{name}={value}" for name, value in options.items()]
    subprocess.run([*dp3, *solve], env=env, check=True, capture_output=True)
    return four


def main() -> None:
    """Run the trial."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_array(folder / "array.txt")
    config = SimulationConfig(
        array=str(folder / "array.txt"),
        ra=150.0,
        dec=-25.0,
        channels=8,
        dumps=12,
        dump_s=300.0,
        fields=1,
        drift=False,
        random_phases=True,
        sefd_jy=500.0,
        flux_error=0.0,
        position_error=0.0,
        brightest_jy=2.5,
        min_mjy=5.0,
        seed=7,
    )
    truth = simulate(folder / "o.ms", config)
    build_strips("nvss", folder / "o.catalog.ecsv", folder / "catalogs")
    strips = ("--catalog-dir", str(folder / "catalogs"))
    for name in ("catalogue", "list", "dp3", "image"):
        shutil.copytree(folder / "o.ms", folder / f"{name}.ms", dirs_exist_ok=True)
    ours = calibrated(folder / "catalogue.ms", folder / "out-catalogue", *strips)
    print(json.dumps({"model": "catalogue", "status": ours["status"], "final": ours["final"]}), flush=True)
    wsclean = ["wsclean", "-quiet", "-j", "1", "-name", str(folder / "w"), "-size", str(SIZE), str(SIZE)]
    wsclean += ["-scale", f"{CELL_ARCSEC}asec", "-weight", "briggs", "0", "-niter", "300000", "-mgain", "0.9"]
    wsclean += ["-auto-mask", "4", "-auto-threshold", "0.5", "-save-source-list", "-use-wgridder"]
    wsclean += ["-wgridder-accuracy", "1e-6", "-no-update-model-required", *SPECTRA]
    wsclean += ["-data-column", "CORRECTED_DATA", str(folder / "catalogue.ms")]
    subprocess.run(wsclean, check=True, capture_output=True)
    (folder / "true.skymodel").write_text(dp3_text(truth.scene.catalog))
    for name, path, fluxes in (
        ("list", "w-sources.txt", "apparent"),
        ("dp3", "true.skymodel", "true"),
        ("image", "w-MFS-model.fits", "apparent"),
    ):
        options = ("--model", str(folder / path), "--model-fluxes", fluxes)
        summary = calibrated(folder / f"{name}.ms", folder / f"out-{name}", *options)
        row = {"model": name, "status": summary["status"], "components": summary["n_seeds"]}
        row |= {"message": summary["message"], "heldout": summary["heldout_sources"]}
        if summary["status"] == "improved":
            row |= gain_difference(folder / f"{name}.ms", folder / "catalogue.ms")
        print(json.dumps(row), flush=True)
    judge(folder)


def judge(folder: Path) -> None:
    """Let DP3 calibrate from the same lists, and hold its gains against ours and against each other."""
    try:
        python = environment(folder / "dp3-environment", DP3_PACKAGES)
    except Unavailable as error:
        print(json.dumps({"model": "DP3", "status": f"not run: {error}"}), flush=True)
        return
    ours = {"list": folder / "list.ms", "catalogue": folder / "catalogue.ms"}
    models = {"list": folder / "w-sources.txt", "catalogue": folder / "out-catalogue" / "selfcal-seed.txt"}
    theirs = {k: calibrated_by_dp3(folder / "o.ms", path, python, folder) for k, path in models.items()}
    for model in models:
        row = {"model": model, "gains of": "DP3 against ours"}
        print(json.dumps(row | gain_difference(theirs[model], ours[model])), flush=True)
    row = {"model": "list against catalogue", "gains of": "DP3"}
    print(json.dumps(row | gain_difference(theirs["list"], theirs["catalogue"])), flush=True)


if __name__ == "__main__":
    main()
