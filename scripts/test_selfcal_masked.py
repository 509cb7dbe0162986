#!/usr/bin/env python3
"""Masked self-calibration: CLEAN only inside discs around catalogued sources.

    python scripts/test_selfcal_masked.py OBS.ms OUTDIR [--caltable T ...] [any option of contimg selfcal]

The same as `contimg selfcal --catalog-mask`; OUTDIR/selfcal-mask.fits is the mask. Without
--mask-radius-arcsec a disc has a radius of 1.5 beams. Exit status as of contimg.
"""

import sys

from dsa110_contimg.cli.main import main

if __name__ == "__main__":
    if len(sys.argv) < 3 or {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(__doc__)
        raise SystemExit(0 if {"-h", "--help"} & set(sys.argv[1:]) else 2)
    raise SystemExit(main(["selfcal", *sys.argv[1:], "--catalog-mask"]))
