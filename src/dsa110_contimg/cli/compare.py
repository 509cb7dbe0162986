"""``contimg compare`` and ``contimg study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, QuietFlag, TerminalProgress, print_json, print_result
from dsa110_contimg.config import ComparisonConfig, SelfCalConfig, StudyConfig
from dsa110_contimg.errors import ConfigError, EngineError

__all__ = ["compare", "study"]


@settings_flags(ComparisonConfig, SelfCalConfig)
def compare(
    ms: Annotated[Path, typer.Argument(help="Measurement Set; it is only read")],
    outdir: Annotated[Path, typer.Argument(help="Folder for report, figure and a folder for each arm")],
    caltable: Annotated[
        list[Path] | None, typer.Option(help="Initial CASA table (B, G or T Jones); repeat for more")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of options of self-calibration")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Compare calibration with and without the catalogue."""
    from dsa110_contimg.compare import compare_strategies
    from dsa110_contimg.compare.report import REPORT

    for name, flag in (("use_nvss_seeding", "--seed"), ("nvss_min_mjy", "--min-mjy")):
        if name in options:
            raise ConfigError(f"{flag} is what the arms differ in", "contimg compare", "name it with --arms")
    own = {k: options.pop(k) for k in ComparisonConfig.model_fields if k in options}
    result = compare_strategies(
        ms,
        outdir,
        SelfCalConfig.load(config, options),
        ComparisonConfig.load(None, own),
        caltable or [],
        progress=TerminalProgress(quiet),
    )
    if as_json:
        print_json(result.results)
    elif not quiet:
        typer.echo((outdir / REPORT).read_text(encoding="utf-8"), nl=False)


@settings_flags(StudyConfig)
def study(
    outdir: Annotated[Path, typer.Argument(help="Folder of the study; run again to finish or extend it")],
    page: Annotated[
        Path | None, typer.Option(help="Markdown page to write", show_default="OUTDIR/study.md")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of options")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Make such comparisons over a grid of simulated observations."""
    from dsa110_contimg.compare.study import run_study
    from dsa110_contimg.compare.study_page import write_page
    from dsa110_contimg.compare.study_report import write_study_report

    settings = StudyConfig.load(config, options)
    runs = run_study(outdir, settings, TerminalProgress(quiet))
    where = page or outdir / "study.md"
    default = StudyConfig.model_construct()
    changed = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in settings.model_dump().items()
        if value != getattr(default, name)
    ]
    write_page(where, settings, runs, " ".join(["contimg study", str(outdir), *changed]))
    report = write_study_report(outdir, where, runs)
    failed = sum(c["status"] != "completed" for c in runs)
    values = {
        "page": str(where),
        "report": str(report),
        "observations": len(runs),
        "failed": failed,
        "runs": runs,
    }
    print_result(values, [f"{len(runs)} observations, {failed} failed; {where}, {report}"], as_json, quiet)
    if failed:
        first = next(c for c in runs if c["status"] != "completed")
        raise EngineError(
            f"{failed} of {len(runs)} observations failed, the first: {first['reason']}",
            outdir,
            "the same command tries them again",
        )
