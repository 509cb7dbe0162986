"""auto_selfcal for `benchmarks.full`, run by CASA's own Python: full_auto_selfcal.py PLAN.json.

Its modules for plots on its web page, casaplotms and casaviewer, bring programs with windows; they stand in
here as empty ones, and the web page is not made. Nothing else of it is changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    sys.path.insert(0, plan["packages"])
    for name, member in (("casaplotms", "plotms"), ("casaviewer", "imview")):
        empty = ModuleType(name)
        setattr(empty, member, None)
        sys.modules[name] = empty
    import casatasks
    from auto_selfcal import auto_selfcal

    print("stage: auto_selfcal", flush=True)
    auto_selfcal(
        vislist=[plan["ms"]],
        imsize=plan["imsize"],
        cell=plan["cell"],
        refant=plan["refant"],
        # By default nothing of a point is left after the mask is pruned where the sidelobes of a snapshot are
        # this high; this is its own value for the compact array of ALMA.
        sidelobethreshold=1.25,
        weblog=False,
    )
    print("stage: exportfits", flush=True)
    found = sorted(Path().glob("*_final.image.tt0"))
    if not found:
        sys.exit("auto_selfcal left no final image")
    casatasks.exportfits(imagename=str(found[0]), fitsimage=plan["image"], overwrite=True)


if __name__ == "__main__":
    main()
