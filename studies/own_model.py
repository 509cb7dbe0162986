"""A model of the user's own as the only one: calibration from it, against that from the catalogue.

    python -m studies.own_model FOLDER

Simulates a tracked field of one phase centre with random phases, calibrates a copy from the catalogue, has
`wsclean -save-source-list` CLEAN the calibrated data, and calibrates fresh copies with `--model` from that
list, from DP3's text of the field's true sources, and from the true sources seen through the beam as apparent
fluxes. Prints, for each, by how much its gains differ from the catalogue's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from casacore.tables import table

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.simulate.observe import simulate
from dsa110_contimg.sky import SkyModel
from studies.any_sky import write_array

#: Five pixels across the beam of the longest baselines: a component is at the centre of its pixel.
SIZE, CELL_ARCSEC = 2400, 8.0


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
    with table(str(one), ack=False) as a, table(str(other), ack=False) as b:
        first, second, flag = a.getcol("ANTENNA1"), a.getcol("ANTENNA2"), a.getcol("FLAG") | b.getcol("FLAG")
        x, y = (t.getcol("CORRECTED_DATA").astype(np.complex128) for t in (a, b))
    used = ~flag & (first != second)[:, None, None] & (np.abs(y) > 0)
    ratio = np.divide(x, y, where=used, out=np.ones_like(x))[:, :, [0, -1]][used[:, :, [0, -1]]]
    scale = float(np.median(np.abs(ratio)))
    off = ratio / scale
    return {
        "flux_scale": scale,
        "phase_rms_deg": float(np.degrees(np.std(np.angle(off))) / np.sqrt(2)),
        "amplitude_rms": float(np.std(np.abs(off)) / np.sqrt(2)),
        "gain_rms": float(np.sqrt(np.mean(np.abs(off - 1) ** 2) / 2)),
    }


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
    wsclean += ["-scale", f"{CELL_ARCSEC}asec", "-weight", "briggs", "0", "-niter", "100000", "-mgain", "0.8"]
    wsclean += ["-auto-mask", "4", "-auto-threshold", "0.5", "-save-source-list", "-padding", "2"]
    wsclean += ["-no-small-inversion", "-wgridder-accuracy", "1e-6", "-no-update-model-required"]
    wsclean += ["-data-column", "CORRECTED_DATA", str(folder / "catalogue.ms")]
    subprocess.run(wsclean, check=True, capture_output=True)
    (folder / "true.skymodel").write_text(dp3_text(truth.scene.catalog))
    for name, path, fluxes in (
        ("list", "w-sources.txt", "apparent"),
        ("dp3", "true.skymodel", "true"),
        ("image", "w-model.fits", "apparent"),
    ):
        options = ("--model", str(folder / path), "--model-fluxes", fluxes)
        summary = calibrated(folder / f"{name}.ms", folder / f"out-{name}", *options)
        row = {"model": name, "status": summary["status"], "components": summary["n_seeds"]}
        row |= {"message": summary["message"], "heldout": summary["heldout_sources"]}
        if summary["status"] == "improved":
            row |= gain_difference(folder / f"{name}.ms", folder / "catalogue.ms")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
