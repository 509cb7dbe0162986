"""``contimg image`` and ``contimg rephase``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import settings_flags
from dsa110_contimg.cli.terminal import JsonFlag, QuietFlag, TerminalProgress, print_result
from dsa110_contimg.config import (
    ImagingConfig,
)
from dsa110_contimg.errors import InputError

__all__ = ["image", "rephase"]


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
    quiet: QuietFlag = False,
    *,
    options: dict[str, Any],
) -> None:
    """Image a field or a drift scan, with the embedded engine or WSClean."""
    from dsa110_contimg.imaging.image_ms import image_ms

    settings = ImagingConfig.load(config, options)
    progress = TerminalProgress(quiet)
    result = image_ms(ms, name, settings, field=field, spw=spw, column=column, progress=progress)
    m = result.metrics
    products = ("image", "residual", "model", "psf", "pb", "image_pb", "mask")
    there = {key: getattr(result, key) for key in products}
    values = {
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
    said = (
        f"{result.image}: peak {1e3 * m.peak_jy:.4g} mJy, rms {1e3 * m.rms_jy:.3g} mJy "
        f"({m.thermal_ratio:.2f} x thermal), signal to noise {m.snr:.1f}"
    )
    print_result(values, [said], as_json, quiet)


def rephase(
    ms: Annotated[Path, typer.Argument(help="Measurement Set; it is only read")],
    out: Annotated[Path, typer.Argument(help="Measurement Set to write")],
    ra: Annotated[float | None, typer.Option(help="Right ascension of the new centre, degrees")] = None,
    dec: Annotated[float | None, typer.Option(help="Declination of the new centre, degrees")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Copy a Measurement Set with all fields moved to one phase centre."""
    from dsa110_contimg.visibilities import rephase_measurement_set

    if (ra is None) != (dec is None):
        raise InputError("only one of --ra and --dec is given", "rephase", "give both or neither")
    center = None if ra is None or dec is None else (math.radians(ra), math.radians(dec))
    moved = [math.degrees(x) for x in rephase_measurement_set(ms, out, center, TerminalProgress(quiet))]
    said = f"{out}: phase centre RA {moved[0]:.6f} Dec {moved[1]:+.6f} deg"
    print_result({"ms": str(out), "phase_center_deg": moved}, [said], as_json, quiet)
