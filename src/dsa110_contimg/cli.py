"""The door: parse, call one function, print.

Results go to stdout (``--json``: one JSON object and nothing else), progress and
logs to stderr. Exit status: 0 finished, 2 bad input or usage, 3 an engine
failed, 4 not improved under ``--require-improvement``.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler

from dsa110_contimg import __version__
from dsa110_contimg.cli_catalog import catalog_app
from dsa110_contimg.cli_container import container_app, doctor
from dsa110_contimg.config import (
    ComparisonConfig,
    ImagingConfig,
    PipelineConfig,
    SelfCalConfig,
    Settings,
    SimulationConfig,
    StudyConfig,
)
from dsa110_contimg.errors import ContimgError, InputError, NotImprovedError, UnforeseenError
from dsa110_contimg.terminal import JsonFlag, TerminalProgress
from dsa110_contimg.terminal import print_json as _print_json

__all__ = ["app", "main", "settings_flags"]

T = TypeVar("T")

app = typer.Typer(
    name="contimg",
    help="Catalogue-seeded self-calibration of radio-interferometric continuum observations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(catalog_app, name="catalog")
app.add_typer(container_app, name="container")
app.command("doctor")(doctor)

#: Flags that differ from the option's name.
FLAGS = {
    "use_nvss_seeding": "--seed/--no-seed",
    "nvss_min_mjy": "--min-mjy",
    "cell_arcsec": "--cell",
    "absent_jy": "--absent",
    "new_jy": "--new",
    "variable_ratio": "--variable",
}

#: Typer exports the leaves of its usage errors; this is what they grow from.
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]

INTERRUPTED = 130


def settings_flags(*classes: type[Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag for every option of settings classes.

    The decorated function takes them in its keyword argument ``options``,
    where a flag that was not given is missing.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = {name: info for cls in classes for name, info in cls.model_fields.items()}
        own = inspect.signature(function, eval_str=True).parameters
        parameters = [p for p in own.values() if p.name != "options"]
        for name, info in fields.items():
            flag = FLAGS.get(name, "--" + name.replace("_", "-"))
            if info.annotation is bool and "/" not in flag:
                flag = f"{flag}/--no-{flag.removeprefix('--')}"
            default = "chosen" if info.default is None else str(info.default)
            option = typer.Option(flag, help=info.description, show_default=default)
            kind: Any = info.annotation if info.default is None else info.annotation | None  # type: ignore[operator]
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[kind, option],
                )
            )

        def command(*args: Any, **kwargs: Any) -> Any:
            options = {k: kwargs.pop(k) for k in fields}
            return function(*args, **kwargs, options={k: v for k, v in options.items() if v is not None})

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what the engines say")] = False,
) -> None:
    """Catalogue-seeded self-calibration of radio-interferometric continuum observations."""
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    level = logging.DEBUG if verbose else logging.WARNING
    # On the handler too: a log file of the pipeline takes more than the terminal shows.
    handler.setLevel(level)
    logging.basicConfig(
        level=level,
        format="%(message)s",
        handlers=[handler],
        force=True,
    )
    for name in ("matplotlib", "numba", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _warn_of_unknown_variables()
    if version:
        typer.echo(f"contimg {__version__}")
        raise typer.Exit


@app.command("image")
@settings_flags(ImagingConfig)
def image(
    ms: Annotated[Path, typer.Argument(help="Measurement Set; it is only read")],
    name: Annotated[Path, typer.Option(help="Prefix of the products")],
    field: Annotated[str | None, typer.Option(help="Field name or identifier")] = None,
    spw: Annotated[str | None, typer.Option(help="Spectral windows, for example 0,2 or 0~3")] = None,
    column: Annotated[
        str | None, typer.Option(help="Column to image", show_default="CORRECTED_DATA, else DATA")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of options")] = None,
    as_json: JsonFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Image a field or a drift scan, with the embedded engine or WSClean."""
    from dsa110_contimg.imaging.cli_imaging import image_ms

    settings = ImagingConfig.load(config, options)
    result = image_ms(ms, name, settings, field=field, spw=spw, column=column, progress=TerminalProgress())
    m = result.metrics
    if as_json:
        products = ("image", "residual", "model", "psf", "pb", "image_pb", "mask")
        there = {key: getattr(result, key) for key in products}
        _print_json(
            {
                **{key: str(path) for key, path in there.items() if path is not None},
                "channels": [str(path) for path in result.channels],
                "imager": result.imager,
                "peak_jy": m.peak_jy,
                "rms_jy": m.rms_jy,
                "snr": m.snr,
                "dynamic_range": m.dynamic_range,
                "thermal_rms_jy": m.thermal_rms_jy,
                "thermal_ratio": m.thermal_ratio,
            }
        )
        return
    typer.echo(
        f"{result.image}: peak {1e3 * m.peak_jy:.4g} mJy, rms {1e3 * m.rms_jy:.3g} mJy "
        f"({m.thermal_ratio:.2f} x thermal), signal to noise {m.snr:.1f}"
    )


@app.command("selfcal")
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
    from dsa110_contimg.calibration.selfcal import selfcal_ms

    settings = SelfCalConfig.load(config, options)
    result = selfcal_ms(ms, outdir, settings, caltable or [], progress=TerminalProgress())
    if as_json:
        _print_json(result.summary)
    else:
        _print_selfcal(result.summary, outdir)
    if require_improvement and not result.improved:
        raise NotImprovedError(f"{result.status}: {result.message}", ms, "the input was kept")


@app.command("simulate")
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
        _print_json({**products, "n_sources": len(truth.sky)})
        return
    typer.echo(f"{out}: {len(truth.sky)} sources; truth {products['truth']}, catalogue {products['catalog']}")


@app.command("rephase")
def rephase(
    ms: Annotated[Path, typer.Argument(help="Measurement Set; it is only read")],
    out: Annotated[Path, typer.Argument(help="Measurement Set to write")],
    ra: Annotated[float | None, typer.Option(help="Right ascension of the new centre, degrees")] = None,
    dec: Annotated[float | None, typer.Option(help="Declination of the new centre, degrees")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Copy a Measurement Set with all fields moved to one phase centre."""
    from dsa110_contimg.visibilities import rephase_measurement_set

    if (ra is None) != (dec is None):
        raise InputError("only one of --ra and --dec is given", "rephase", "give both or neither")
    center = None if ra is None or dec is None else (math.radians(ra), math.radians(dec))
    moved = [math.degrees(x) for x in rephase_measurement_set(ms, out, center, TerminalProgress())]
    if as_json:
        _print_json({"ms": str(out), "phase_center_deg": moved})
        return
    typer.echo(f"{out}: phase centre RA {moved[0]:.6f} Dec {moved[1]:+.6f} deg")


@app.command("demo")
def demo(
    outdir: Annotated[Path, typer.Argument(help="Folder for everything the demonstration makes")] = Path(
        "demo-output"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Simulate a transit, self-calibrate it from random phases, print what came out."""
    from dsa110_contimg.demo import run_demo

    report = run_demo(outdir, TerminalProgress())
    if as_json:
        _print_json(report)
        return
    score = report["score"]
    _print_selfcal(report["summary"], outdir / "selfcal")
    typer.echo(
        f"{'against the truth':<20} coherence {score['coherence']:.4f}, "
        f"phase error {score['phase_error_deg']:.2f} deg, "
        f"amplitude scatter {score['amplitude_scatter']:.4f}\n"
        f"{'hidden in the sky':<20} a new source, {100 * score['new_ratio']:.0f} % of its flux found; "
        f"one at twice its catalogue flux, {100 * score['variable_ratio']:.0f} % found\n"
        f"{'both stand out in':<20} {outdir / 'selfcal' / 'final-difference.fits'}"
    )


@app.command("score")
def score(
    outdir: Annotated[Path, typer.Argument(help="Folder of a finished self-calibration")],
    truth: Annotated[Path, typer.Argument(help="OUT.truth.npz of the simulation")],
    as_json: JsonFlag = False,
) -> None:
    """Compare a self-calibration of simulated data with the truth."""
    from dsa110_contimg.score import score_run

    scores = score_run(outdir, truth, TerminalProgress())
    if as_json:
        _print_json(scores)
        return
    for key, value in scores.items():
        typer.echo(f"{key:<20} {value if not isinstance(value, float) else format(value, '.4g')}")


def _warn_of_unknown_variables() -> None:
    """Say which CONTIMG_ variables no option reads: a misspelt one would be silently without effect."""
    classes = (ImagingConfig, PipelineConfig, SelfCalConfig, SimulationConfig, ComparisonConfig, StudyConfig)
    known = {f"CONTIMG_{name.upper()}" for cls in classes for name in cls.model_fields}
    known |= {"CONTIMG_DEBUG", "CONTIMG_JUDGE_PYTHON", "CONTIMG_REQUIRE_ALL"}
    for name in sorted(os.environ):
        if name.upper().startswith("CONTIMG_") and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            logging.getLogger(__name__).warning("the variable %s is not an option%s", name, hint)


def _print_selfcal(summary: dict[str, Any], outdir: Path) -> None:
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    arguments : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0, 2, 3 or 4; 130 or 143 after SIGINT or SIGTERM; every failure has printed one line on stderr.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    with _termination() as received:
        status = _run(arguments)
    return 128 + received[0] if received and status == INTERRUPTED else status


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Let SIGTERM, which schedulers send, end the work as Ctrl-C does; yields the signals that came."""
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # Whoever has a handler of its own, or runs this in a thread, keeps it.
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(arguments: list[str] | None) -> int:
    try:
        from dsa110_contimg import cli_compare, cli_pipeline  # noqa: F401  they add their commands

        given = sys.argv[1:] if arguments is None else arguments
        if any(not word and not before.startswith("--") for before, word in pairwise(["", *given])):
            # A variable of the shell that is not set: as a path it would be this folder.
            return _fail("an argument is empty; give it a value", InputError.exit_code)
        stopped = app(args=arguments, standalone_mode=False)
        # An interrupt comes back as a status instead of an exception.
        if stopped == INTERRUPTED:
            raise KeyboardInterrupt
    except ContimgError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except USAGE_ERROR as error:
        where = f"contimg {error.ctx.info_name}: " if error.ctx and error.ctx.info_name != "contimg" else ""
        if not error.format_message():  # no arguments at all: the help has been printed
            return InputError.exit_code
        return _fail(where + " ".join(error.format_message().split()) + "; see --help", InputError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted; run the same command again to finish", INTERRUPTED)
    except BrokenPipeError:
        return 0
    except Exception as error:  # the last line of defence: one line, whatever happened
        if os.environ.get("CONTIMG_DEBUG"):
            raise
        told = UnforeseenError.of(error)
        return _fail(str(told), told.exit_code)
    return 0


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return status
