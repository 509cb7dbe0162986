"""Compare self-calibration with and without the catalogue: ``contimg compare`` under its older name.

    python scripts/compare_selfcal_strategies.py MS OUTDIR [options of contimg compare]

Writes ``comparison_report.txt`` and ``comparison_results.json`` into OUTDIR.
"""

import sys

from dsa110_contimg.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
