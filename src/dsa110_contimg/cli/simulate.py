"""``contimg simulate``, ``contimg demo`` and ``contimg score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.selfcal import print_selfcal
from dsa110_contimg.cli.terminal import JsonFlag, TerminalProgress, print_json
from dsa110_contimg.config import (
    SimulationConfig,
)

__all__ = ["demo", "score", "simulate"]


@settings_flags(SimulationConfig)
def simulate(
    out: Annotated[Path, typer.Argument(help="Measurement Set to write; truth and catalogue come beside it")],
    as_json: JsonFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Simulate an observation with known truth."""
    from dsa110_contimg.simulate.observe import simulate as simulate_ms

    truth = simulate_ms(out, SimulationConfig.load(None, options))
    stem = out.with_suffix("")
    products = {
        "ms": str(out),
        "truth": str(stem.with_name(stem.name + ".truth.npz")),
        "catalog": str(stem.with_name(stem.name + ".catalog.ecsv")),
    }
    if as_json:
        print_json({**products, "n_sources": len(truth.sky)})
        return
    typer.echo(f"{out}: {len(truth.sky)} sources; truth {products['truth']}, catalogue {products['catalog']}")


def demo(
    outdir: Annotated[Path, typer.Argument(help="Folder for everything the demonstration makes")] = Path(
        "demo-output"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Simulate a transit, self-calibrate it from random phases, print what came out."""
    from dsa110_contimg.cli.demo import run_demo

    report = run_demo(outdir, TerminalProgress())
    if as_json:
        print_json(report)
        return
    score = report["score"]
    print_selfcal(report["summary"], outdir / "selfcal")
    typer.echo(
        f"{'against the truth':<20} coherence {score['coherence']:.4f}, "
        f"phase error {score['phase_error_deg']:.2f} deg, "
        f"amplitude scatter {score['amplitude_scatter']:.4f}\n"
        f"{'hidden in the sky':<20} a new source, {100 * score['new_ratio']:.0f} % of its flux found; "
        f"one at twice its catalogue flux, {100 * score['variable_ratio']:.0f} % found\n"
        f"{'both stand out in':<20} {outdir / 'selfcal' / 'final-difference.fits'}"
    )


def score(
    outdir: Annotated[Path, typer.Argument(help="Folder of a finished self-calibration")],
    truth: Annotated[Path, typer.Argument(help="OUT.truth.npz of the simulation")],
    as_json: JsonFlag = False,
) -> None:
    """Compare a self-calibration of simulated data with the truth."""
    from dsa110_contimg.compare.score import score_run

    scores = score_run(outdir, truth, TerminalProgress())
    if as_json:
        print_json(scores)
        return
    for key, value in scores.items():
        typer.echo(f"{key:<20} {value if not isinstance(value, float) else format(value, '.4g')}")
