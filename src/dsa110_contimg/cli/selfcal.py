"""``contimg selfcal``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, TerminalProgress, print_json
from dsa110_contimg.config import (
    SelfCalConfig,
)
from dsa110_contimg.errors import NotImprovedError
from dsa110_contimg.selfcal.naming import REPORT

__all__ = ["print_selfcal", "selfcal"]


@settings_flags(SelfCalConfig)
def selfcal(
    ms: Annotated[Path, typer.Argument(help="Measurement Set")],
    outdir: Annotated[Path, typer.Argument(help="Folder for the products")],
    caltable: Annotated[
        list[Path] | None, typer.Option(help="Initial CASA table (B, G or T Jones); repeat for more")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of options")] = None,
    require_improvement: Annotated[
        bool, typer.Option("--require-improvement", help="Exit with status 4 if not improved")
    ] = False,
    as_json: JsonFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Self-calibrate a field against the catalogue.

    "Held-out chi2 1.97 -> 1.12" is said of gains that were solved on every
    other channel: the variance of the remaining channels minus the model,
    before and after, in units of the thermal variance. 1 is noise alone.
    """
    from dsa110_contimg.report import try_report
    from dsa110_contimg.selfcal.run import selfcal_ms

    settings = SelfCalConfig.load(config, options)
    result = selfcal_ms(ms, outdir, settings, caltable or [], progress=TerminalProgress())
    try_report(outdir)
    if as_json:
        print_json(result.summary)
    else:
        print_selfcal(result.summary, outdir)
    if require_improvement and not result.improved:
        raise NotImprovedError(f"{result.status}: {result.message}", ms, "the input was kept")


def print_selfcal(summary: dict[str, Any], outdir: Path) -> None:
    """Print the closing table of a self-calibration."""
    first, last = summary["initial"], summary["final"]
    offset, flux_ratio, thermal = last["offset_arcsec"], last["flux_ratio"], last["thermal_ratio"]
    in_model = f"{summary['n_seeds']} sources, {summary['seed_flux_jy']:.4g} Jy apparent"
    sources = [f"{n} {v}" for v, n in summary.get("seed_verdicts", {}).items() if v != "faint"]
    lines = {
        "status": f"{summary['status']}: {summary['message']}",
        "catalogue model": in_model if summary["seeded"] else "none",
        "held-out chi2": _heldout(summary),
        "solver": _convergence(summary),
        "signal to noise": f"{first['snr']:.1f} -> {last['snr']:.1f}",
        "rms": f"{1e3 * first['rms_jy']:.4g} -> {1e3 * last['rms_jy']:.4g} mJy"
        + (f" ({thermal:.2f} x thermal)" if thermal else "")
        + (", before in other flux units" if summary["flux_units_changed"] else ""),
        "flux ratio": "no source to compare"
        if flux_ratio is None
        else f"{flux_ratio:.3f} (median of {last['flux_ratio_n']} sources)",
        "position offset": "no source to compare"
        if offset is None
        else f"{offset[0]:+.2f}, {offset[1]:+.2f} arcsec",
        "bright sources": ", ".join(sources),
        "seconds": ", ".join(f"{k} {v:.1f}" for k, v in summary["seconds"].items()),
        "pictures": str(outdir / summary["products"].get("picture", "")),
        "images": str(outdir / "final-image.fits"),
        "report": str(outdir / REPORT) if (outdir / REPORT).exists() else "",
    }
    for key, text in lines.items():
        if text:
            typer.echo(f"{key:<20} {text}")


def _heldout(summary: dict[str, Any]) -> str:
    """Say what the kept round leaves on channels that it was not solved on; empty if none was kept."""
    if not summary["best_iteration"]:
        return ""
    chi2 = summary["iterations"][summary["best_iteration"] - 1]["chi2_heldout"]
    return f"{chi2:.4g} x thermal variance left on channels not solved on (1: noise alone)"


def _convergence(summary: dict[str, Any]) -> str:
    """Say how the solver of the kept round ended; empty if none was kept."""
    if not summary["best_iteration"]:
        return ""
    this = summary["iterations"][summary["best_iteration"] - 1]
    share = this["converged_fraction"]
    ended = "all solutions converged" if share == 1 else f"{100 * share:.1f} % of the solutions converged"
    return f"{ended}, in {this['solver_iterations']} iterations at the most"
