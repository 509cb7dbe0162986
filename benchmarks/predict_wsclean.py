"""WSClean's prediction from pixels beside the exact sum: error and time.

    python -m benchmarks.predict_wsclean OBS.ms [N ...]

Points at random places of a 1.7 degree field, drawn on pixels of 3 and of 1 arcsec (by WSClean itself where
the binary has -draw-model) and degridded by -predict, against `predict_components` on the same baselines.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.wsclean_predict import compare_predictions
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.grid import ARCSEC
from dsa110_contimg.imaging.wsclean.arguments import detect_capabilities
from dsa110_contimg.imaging.wsclean.runner import HostWSClean
from dsa110_contimg.predict import predict_components
from dsa110_contimg.sky import SkyModel
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set


def main() -> None:
    program = shutil.which("wsclean")
    if program is None:
        sys.exit("no wsclean on the path")
    wsclean = HostWSClean(program)
    capabilities = detect_capabilities(wsclean)
    ms = open_measurement_set(sys.argv[1])
    reader = VisibilityReader(ms, ms.select())
    rng = np.random.default_rng(1)
    print(f"WSClean {capabilities.version}")
    print(f"{'components':>10}{'pixel':>9}{'difference':>12}{'WSClean s':>11}{'exact s':>9}{'ratio':>7}")
    for number in [int(n) for n in sys.argv[2:]] or [10, 100]:
        for cell, size in ((3, 2048), (1, 6144)):
            grid = ImageGrid(size, cell * ARCSEC, *reader.phase_center)
            l, m = rng.uniform(-0.0145, 0.0145, (2, number))  # noqa: E741
            sky = SkyModel.points(*grid.lm_to_sky(l, m), rng.exponential(0.1, number))
            exact = 0.0
            for block in reader.blocks():
                lmn = sky.lmn(*reader.phase_center)
                flux = np.repeat(sky.flux_jy[:, None], block.spw.freq_hz.size, axis=1)
                predict_components(block.uvw_m[:64], block.spw.freq_hz, lmn, flux)
                started = time.perf_counter()
                predict_components(block.uvw_m, block.spw.freq_hz, lmn, flux)
                exact += time.perf_counter() - started
            with tempfile.TemporaryDirectory(dir=ms.path.absolute().parent) as folder:
                started = time.perf_counter()
                found = compare_predictions(wsclean, capabilities, reader, sky, grid, Path(folder))
                took = time.perf_counter() - started
            print(
                f"{number:>10}{cell:>7} as{100 * found.relative:>10.1f} %"
                f"{took:>11.2f}{exact:>9.3f}{took / exact:>6.0f}x"
            )


if __name__ == "__main__":
    main()
