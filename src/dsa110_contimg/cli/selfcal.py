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
    """Self-calibrate a field against the catalogue."""
    from dsa110_contimg.selfcal.run import selfcal_ms

    settings = SelfCalConfig.load(config, options)
    result = selfcal_ms(ms, outdir, settings, caltable or [], progress=TerminalProgress())
    if as_json:
        print_json(result.summary)
    else:
        print_selfcal(result.summary, outdir)
    if require_improvement and not result.improved:
        raise NotImprovedError(f"{result.status}: {result.message}", ms, "the input was kept")


def print_selfcal(summary: dict[str, Any], outdir: Path) -> None:
    """Print the closing table of a self-calibration."""
    first, last = summary["initial"], summary["final"]
    offset = last["offset_arcsec"]
    lines = {
        "status": f"{summary['status']}: {summary['message']}",
        "seed": f"{summary['n_seeds']} sources, {summary['seed_flux_jy']:.4g} Jy apparent"
        if summary["seeded"]
        else "none",
        "signal to noise": f"{first['snr']:.1f} -> {last['snr']:.1f}",
        "rms": f"{1e3 * first['rms_jy']:.4g} -> {1e3 * last['rms_jy']:.4g} mJy"
        + (f" ({last['thermal_ratio']:.2f} x thermal)" if last["thermal_ratio"] else "")
        + (", before in other flux units" if summary["flux_units_changed"] else ""),
        "flux ratio": "no source to compare"
        if last["flux_ratio"] is None
        else f"{last['flux_ratio']:.3f} (median of {last['flux_ratio_n']} sources)",
        "position offset": "no source to compare"
        if offset is None
        else f"{offset[0]:+.2f}, {offset[1]:+.2f} arcsec",
        "bright seeds": ", ".join(
            f"{count} {verdict}"
            for verdict, count in summary.get("seed_verdicts", {}).items()
            if verdict != "faint"
        ),
        "seconds": ", ".join(f"{k} {v:.1f}" for k, v in summary["seconds"].items()),
        "pictures": str(outdir / summary["products"].get("picture", "")),
        "images": str(outdir / "final-image.fits"),
    }
    for key, text in lines.items():
        if text:
            typer.echo(f"{key:<20} {text}")
