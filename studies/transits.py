"""Three transits from random phases with every catalogue error: seeded against unseeded.

    python -m studies.transits FOLDER [NVSS_STRIPS]

A field with the calibrator 0834+555 at its edge (the real sky above the strips' faintest source, drawn below;
left out without strips), one with nothing above 0.5 Jy apparent, and one at declination +16. Each is
simulated with 3 % flux and 0.5 arcsec position errors, 5 % doubles, 2 % variable, missing and spurious
entries, an absent source of 15 mJy and a new one of 50, self-calibrated with the catalogue and without, and
scored against the truth. Finished ones are not done again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import score_run
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.run import selfcal_ms
from dsa110_contimg.simulate import simulate

ERRORS = {"doubles": 0.05, "variables": 0.02, "missing": 0.02, "spurious": 0.02}
SOURCES = {"absent_jy": 0.015, "new_jy": 0.05}
FIELDS: dict[str, dict[str, Any]] = {
    "0834+555": {"ra": 129.5, "dec": 54.57, "brightest_jy": 0, "seed": 2, "real_sky": True},
    "below 0.5 Jy": {"ra": 190.0, "dec": 35.0, "brightest_jy": 0, "seed": 8},
    "Dec +16": {"ra": 200.0, "dec": 16.0, "seed": 1},
}
COLUMNS = (
    ("coherence", "coherence", ".4f"),
    ("phase_error_deg", "phase deg", ".2f"),
    ("amplitude_scatter", "amplitude", ".4f"),
    ("flux_ratio", "flux ratio", ".3f"),
    ("offset", "offset", ".2f"),
    ("rms_ratio", "rms/true", ".3f"),
    ("thermal_ratio", "thermal", ".3f"),
    ("standard", "standard", ".3f"),
    ("absent_sigma", "absent", ".1f"),
    ("new_ratio", "new", ".3f"),
    ("seconds", "seconds", ".0f"),
)


def run(
    folder: Path, name: str, options: dict[str, Any], seeded: bool, strips: Path | None
) -> dict[str, Any]:
    """Simulate if need be, self-calibrate, score."""
    stem = folder / name.replace(" ", "_").replace("+", "p").replace(".", "_")
    ms, catalogs = stem.with_suffix(".ms"), stem.with_name(stem.name + "-catalogs")
    out = stem.with_name(f"{stem.name}-{'seeded' if seeded else 'unseeded'}")
    result = out / "score.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    if not ms.exists():
        config = SimulationConfig(
            random_phases=True,
            **ERRORS,
            **SOURCES,
            **options,
            catalog_dir=strips if "real_sky" in options else None,
        )
        simulate(ms, config)
        build_strips("nvss", stem.with_name(stem.name + ".catalog.ecsv"), catalogs)
    summary = selfcal_ms(
        ms, out, SelfCalConfig(catalog_dir=catalogs, use_nvss_seeding=seeded), progress=LogProgress()
    ).summary
    scores = score_run(out, stem.with_name(stem.name + ".truth.npz"), image=seeded)
    offset = scores["offset_arcsec"]
    scores["offset"] = None if offset is None else float(offset[0] ** 2 + offset[1] ** 2) ** 0.5
    scores["standard"] = summary["final_standard"]["thermal_ratio"]
    scores["seconds"] = summary["seconds"]["total"]
    result.write_text(json.dumps(scores, indent=2))
    return scores


def main() -> None:
    folder = Path(sys.argv[1])
    strips = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{'field':<26}" + "".join(f"{title:>11}" for _, title, _ in COLUMNS))
    for seeded in (True, False):
        for name, options in FIELDS.items():
            if strips is None and "real_sky" in options:
                print(f"{name:<26}left out: no strips of the real sky were given")
                continue
            scores = run(folder, name, options, seeded, strips)
            cells = [scores.get(key) for key, _, _ in COLUMNS]
            values = "".join(
                f"{'-':>11}" if v is None else f"{v:>11{f}}"
                for v, (_, _, f) in zip(cells, COLUMNS, strict=True)
            )
            print(
                f"{name + (', seeded' if seeded else ', unseeded'):<26}{values}  {scores['status']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
