"""The CASA recipe of `benchmarks.full`, run by CASA's own Python: full_casa.py PLAN.json.

Reads nothing of the project; names each stage on standard output as it begins.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def stage(name: str) -> None:
    print(f"stage: {name}", flush=True)


def write_components(listed: list[dict[str, Any]], target: str) -> None:
    from casatools import componentlist

    components = componentlist()
    for one in listed:
        shape = {}
        if one["shape"] == "gaussian":
            major, minor, angle = one["size"]
            shape = {"majoraxis": major, "minoraxis": minor, "positionangle": angle}
        components.addcomponent(
            dir=one["dir"],
            flux=one["flux"],
            fluxunit="Jy",
            freq=one["freq"],
            shape=one["shape"],
            spectrumtype="spectral index",
            index=one["index"],
            label=one["label"],
            **shape,
        )
    components.rename(target)
    components.close()


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    import casatasks

    ms, tables = plan["ms"], ["phases.G", "amplitudes.G"]
    stage("component list")
    write_components(plan["components"], "sky.cl")
    stage("ft")
    casatasks.ft(vis=ms, complist="sky.cl", usescratch=True)
    for number, (mode, solint) in enumerate(zip(("p", "ap"), plan["solints"], strict=True)):
        stage(f"gaincal {mode} {solint}")
        before = {"gaintable": tables[:number], "spwmap": [plan["spwmap"]] * number} if number else {}
        casatasks.gaincal(
            vis=ms, caltable=tables[number], solint=solint, calmode=mode, **plan["gaincal"], **before
        )
    stage("applycal")
    casatasks.applycal(
        vis=ms,
        gaintable=tables,
        spwmap=[plan["spwmap"]] * 2,
        calwt=False,
        flagbackup=False,
        applymode="calonly",
    )
    stage("mask")
    casatasks.importfits(fitsimage=plan["mask"], imagename="mask.im", overwrite=True)
    stage("tclean")
    casatasks.tclean(
        vis=ms, imagename="i", datacolumn="corrected", usemask="user", mask="mask.im", **plan["tclean"]
    )
    stage("exportfits")
    casatasks.exportfits(imagename="i.image", fitsimage="image.fits", overwrite=True)


if __name__ == "__main__":
    main()
