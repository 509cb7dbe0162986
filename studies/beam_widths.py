"""Whether a beam of quite another width is told from everything else that may be wrong.

    python -m studies.beam_widths FOLDER [RUNS]

Short scans of small arrays from random phases, some with a bright source near the centre and little else,
drawn at random: beams that are several times narrower or wider than assumed; right ones with faults of
catalogue, pointing, shape or width; and catalogues of another sky. Prints for each kind how many runs ended
how. Nothing is kept.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate
from tests.arrays import COMPACT

NARROWER = [{"beam_width": width} for width in (0.2, 0.2, 0.2, 0.25, 0.33, 0.45, 0.6)]
WIDER = [{"beam_width": width} for width in (1.7, 2.0, 3.0, 5.0)]
RIGHT: list[dict[str, Any]] = [
    {},
    {"pointing_rms": 0.2},
    {"beam_width": 1.1},
    {"beam_width": 0.9},
    {"beam_ellipticity": 1.25},
    {"bright_error": 3.0},
    {"bright_error": 0.33},
    {"doubles": 0.05, "variables": 0.1, "missing": 0.05, "spurious": 0.05},
    {"catalog_error": "scale", "catalog_error_size": 0.5},
    {"flux_error": 0.15},
    {"sefd_jy": 20000.0},
    {"ionosphere_deg": 10.0},
]
OTHER_SKIES: list[dict[str, Any]] = [
    {"catalog_error": "mirror"},
    {"catalog_error": "mirror-dec"},
    {"catalog_error": "other-field"},
    {"catalog_error": "shift"},
]
KINDS = {"narrower": NARROWER, "wider": WIDER, "right": RIGHT, "another sky": OTHER_SKIES}


def drawn(rng: random.Random, changes: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw the options of an observation."""
    return {
        "array": COMPACT,
        "channels": 4,
        "random_phases": True,
        "drift": rng.random() < 0.5,
        "seed": rng.randrange(1, 10_000),
        "dumps": rng.choice((2, 3, 4, 6)),
        "antennas": rng.choice((10, 16, 24, 30)),
        "sefd_jy": rng.choice((500.0, 1000.0, 2000.0, 4000.0)),
        "min_mjy": rng.choice((10.0, 20.0, 40.0)),
        "brightest_jy": rng.choice((0.0, 1.0, 2.5, 8.0)),
    } | rng.choice(changes)


def main(folder: Path, runs: int = 24) -> None:
    """Run all, and print a row for each kind."""
    print("| beam | runs | refused for the beam | refused otherwise | input kept | improved |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, changes in KINDS.items():
        rng, found = random.Random(kind), Counter[str]()
        for _ in range(runs):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            options = drawn(rng, changes)
            simulate(folder / "t.ms", SimulationConfig(**options))
            build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
            config = SelfCalConfig(catalog_dir=folder / "c", columns="none", size=160, cell_arcsec=24.0)
            summary = selfcal_ms(folder / "t.ms", folder / "out", config).summary
            refused = [f["kind"] for f in summary["findings"] if f["status"] == "refused"]
            end = "beam" if refused[:1] == ["beam_width"] else summary["status"]
            found[end] += 1
            if (end == "improved") == (kind != "right"):
                print(kind, end, options, summary["message"], file=sys.stderr)
        kept = runs - found["beam"] - found["refused"] - found["improved"]
        print(
            f"| {kind} | {runs} | {found['beam']} | {found['refused']} | {kept} | {found['improved']} |",
            flush=True,
        )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))
