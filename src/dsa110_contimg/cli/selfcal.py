"""``contimg selfcal``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, QuietFlag, TerminalProgress, print_json, print_pairs
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
    quiet: QuietFlag = False,
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
    result = selfcal_ms(ms, outdir, settings, caltable or [], progress=TerminalProgress(quiet))
    try_report(outdir)
    if as_json:
        print_json(result.summary)
    elif not quiet:
        print_selfcal(result.summary, outdir)
    if require_improvement and not result.improved:
        raise NotImprovedError(_outcome(result.summary), ms, "the input was kept")


def print_selfcal(summary: dict[str, Any], outdir: Path) -> None:
    """Print the closing table of a self-calibration."""
    from dsa110_contimg.selfcal.naming import REPORT

    first, last = summary["initial"], summary["final"]
    offset, flux_ratio, thermal = last["offset_arcsec"], last["flux_ratio"], last["thermal_ratio"]

    def both(figures: Iterable[str]) -> str:
        """Before and after; once where the input was kept and both are the same."""
        before, after = figures
        return after if before == after and summary["status"] != "improved" else f"{before} -> {after}"

    in_model = f"{summary['n_seeds']} sources, {summary['seed_flux_jy']:.4g} Jy apparent"
    lines = {
        "status": _outcome(summary),
        "catalogue model": in_model if summary["seeded"] else "none",
        "held-out sources": _heldout_sources(summary),
        "held-out chi2": _heldout(summary),
        "gain solutions": _convergence(summary),
        "signal to noise": both(f"{which['snr']:.1f}" for which in (first, last)),
        "image rms": both(f"{1e3 * which['rms_jy']:.4g}" for which in (first, last))
        + " mJy/beam"
        + (f" ({thermal:.2f} x thermal)" if thermal else "")
        + (", before in other flux units" if summary["flux_units_changed"] else ""),
        "flux ratio": "no source to compare"
        if flux_ratio is None
        else f"{flux_ratio:.3f} of the catalogue's ({_of_sources(last['flux_ratio_n'])})",
        "position offset": "no source to compare"
        if offset is None
        else f"{offset[0]:+.2f} arcsec east, {offset[1]:+.2f} north (median of the same)",
        "bright sources": _sources(summary.get("seed_verdicts", {})),
        "new sources": _new_sources(summary.get("sources")),
        "to be checked": "; ".join(_doubts(summary)),
        "time in seconds": ", ".join(f"{k} {v:.1f}" for k, v in summary["seconds"].items()),
        "pictures": str(outdir / summary["products"].get("picture", "")),
        "images": str(outdir / "final-image.fits"),
        "report": str(outdir / REPORT) if (outdir / REPORT).exists() else "",
    }
    print_pairs(lines)


def _of_sources(n: int) -> str:
    """Say of how many sources a median is, and where it says little."""
    from dsa110_contimg.report.words import FEWEST_COMPARED

    return f"median of {n} sources" if n >= FEWEST_COMPARED else f"{n} only: says little"


def _outcome(summary: dict[str, Any]) -> str:
    """Say status and message; most messages begin with what the status says."""
    status, message = str(summary["status"]).replace("_", " "), str(summary["message"])
    return message if message.startswith(status) else f"{status}: {message}"


#: How many of the bright sources are as the source report says, the most welcome first.
VERDICTS = {
    "agrees": "as the catalogue has them",
    "brighter": "brighter",
    "fainter": "fainter",
    "moved": "elsewhere",
    "missing": "missing",
    "split": "double",
}


def _doubts(summary: dict[str, Any]) -> list[str]:
    """List what speaks against the result, but for what the status says already."""
    from dsa110_contimg.selfcal.findings import INFORMATION

    texts = [str(f["text"]) for f in summary["findings"] if f["kind"] not in INFORMATION]
    return [text for text in texts if text not in summary["message"]]


def _sources(verdicts: dict[str, int]) -> str:
    """Say how many sources came out how; what is too faint to tell, or part of another, is not counted."""
    return ", ".join(f"{verdicts[v]} {words}" for v, words in VERDICTS.items() if verdicts.get(v))


def _new_sources(found: dict[str, Any] | None) -> str:
    """Say how many new sources there seem to be, beside how many there would be by chance; empty if none."""
    if not found or not found["n_new"]:
        return ""
    false = f"about {found['false_new_expected']:.0f} are to be expected by chance, as on its negative side"
    return f"{found['n_new']} in the difference image; {false}"


def _heldout_sources(summary: dict[str, Any]) -> str:
    """Say what came back of sources that gains were not solved on; empty where none could be held out."""
    found = summary["heldout_sources"] or {}
    flux, error = found.get("recovered_fraction"), found.get("recovered_error")
    if flux is None or error is None:
        return ""
    if not found["tells"]:
        return f"too weak to tell ({flux:.2f} +- {error:.2f} of their flux)"
    said = f"{flux:.2f} +- {error:.2f} of their flux comes back after gains solved without them"
    if found["taken_by_gains"] > error:
        said += f", which may take {100 * found['taken_by_gains']:.0f} %"
    agreeing = f"; {found['n_agreeing']} of {found['n_sources']} bright ones agree with the catalogue"
    return said + (agreeing if found["n_sources"] else "")


def _heldout(summary: dict[str, Any]) -> str:
    """Say what the kept round leaves on channels that it was not solved on; empty if none was kept."""
    if not summary["best_iteration"]:
        return ""
    chi2 = summary["iterations"][summary["best_iteration"] - 1]["chi2_heldout"]
    return f"{chi2:.4g} x thermal variance left on channels not solved on (1 is noise alone)"


def _convergence(summary: dict[str, Any]) -> str:
    """Say how the solver of the kept round ended; empty if none was kept."""
    if not summary["best_iteration"]:
        return ""
    this = summary["iterations"][summary["best_iteration"] - 1]
    share = this["converged_fraction"]
    ended = "all converged" if share == 1 else f"{100 * share:.1f} % converged"
    return f"{ended}, in {this['solver_iterations']} iterations at the most"
