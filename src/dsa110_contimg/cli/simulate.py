"""``contimg simulate``, ``contimg demo`` and ``contimg score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.selfcal import print_selfcal
from dsa110_contimg.cli.terminal import (
    JsonFlag,
    QuietFlag,
    TerminalProgress,
    print_json,
    print_pairs,
    print_result,
)
from dsa110_contimg.config import (
    SimulationConfig,
)

__all__ = ["demo", "score", "simulate"]


@settings_flags(SimulationConfig)
def simulate(
    out: Annotated[Path, typer.Argument(help="Measurement Set to write; truth and catalogue come beside it")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Simulate an observation with known truth."""
    from dsa110_contimg.simulate.observe import simulate as simulate_ms

    truth = simulate_ms(out, SimulationConfig.load(None, options), progress=TerminalProgress(quiet))
    stem = out.with_suffix("")
    products = {
        "ms": str(out),
        "truth": str(stem.with_name(stem.name + ".truth.npz")),
        "catalog": str(stem.with_name(stem.name + ".catalog.ecsv")),
    }
    said = f"{out}: {len(truth.sky)} sources; truth {products['truth']}, catalogue {products['catalog']}"
    print_result({**products, "n_sources": len(truth.sky)}, [said], as_json, quiet)


def demo(
    outdir: Annotated[Path, typer.Argument(help="Folder for everything the demonstration makes")] = Path(
        "demo-output"
    ),
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Simulate a transit, self-calibrate it, and print what came out."""
    from dsa110_contimg.cli.demo import run_demo

    report = run_demo(outdir, TerminalProgress(quiet))
    if as_json:
        print_json(report)
        return
    if quiet:
        return
    score = report["score"]
    print_selfcal(report["summary"], outdir / "selfcal")
    print_pairs(
        {
            "against the truth": f"coherence {score['coherence']:.4f}, "
            f"phase error {score['phase_error_deg']:.2f} deg, "
            f"amplitude scatter {score['amplitude_scatter']:.4f}",
            "hidden in the sky": f"a new source, {100 * score['new_ratio']:.0f} % of its flux found; "
            f"one at twice its catalogue flux, {100 * score['variable_ratio']:.0f} % found",
            "both stand out in": str(outdir / "selfcal" / "final-difference.fits"),
        }
    )


def score(
    outdir: Annotated[Path, typer.Argument(help="Folder of a finished self-calibration")],
    truth: Annotated[Path, typer.Argument(help="OUT.truth.npz of the simulation")],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compare a self-calibration of simulated data with the truth."""
    from dsa110_contimg.compare.score import score_run

    scores = score_run(outdir, truth, TerminalProgress(quiet))
    shown = {k: format(v, ".4g") if isinstance(v, float) else v for k, v in scores.items()}
    print_result(scores, [f"{key:<20} {value}" for key, value in shown.items()], as_json, quiet)
