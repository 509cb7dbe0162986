"""What varies: ``contimg lightcurve``, ``variables`` and ``transients``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.cli.options import StateFile, given_state_file
from dsa110_contimg.cli.terminal import JsonFlag, plain, print_result
from dsa110_contimg.errors import ConfigError, InputError

__all__ = ["lightcurve", "transients", "variables"]

Database = Annotated[
    Path | None,
    typer.Option(help="File of light curves", show_default="lightcurves.sqlite3 beside the state file"),
]
Out = Annotated[
    Path | None, typer.Option(help="Write the table too: a name ending in .ecsv, or .vot for VOTable")
]
FORMATS = {".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable"}


def lightcurve(
    ra: Annotated[float, typer.Argument(min=0, max=360, help="Right ascension (ICRS) in degrees")],
    dec: Annotated[float, typer.Argument(min=-90, max=90, help="Declination in degrees")],
    radius: Annotated[float, typer.Option(min=0, help="The nearest source within this, arcsec")] = 30.0,
    png: Annotated[Path | None, typer.Option(help="Draw it into this file")] = None,
    out: Out = None,
    database: Database = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Print the light curve of the source nearest to a place."""
    from astropy.table import Table

    from dsa110_contimg.pipeline.lightcurve_plot import save_light_curve
    from dsa110_contimg.pipeline.lightcurves import settled
    from dsa110_contimg.pipeline.variability import sparkline, structure_function, sums_of, variability

    _check(out)
    with settled(_database(database, state_file)) as curves:
        curve = curves.curve(curves.find(ra, dec, radius))
    source = curve.source
    if not curve.mjd.size:
        raise InputError("has no flux from an observation that counts", source["name"], "see contimg status")
    columns = ("mjd", "freq_hz", "flux_jy", "error_jy", "stat_error_jy", "beam_error_jy", "scale_error_jy")
    table = Table({name: getattr(curve, name) for name in columns})
    table["method"], table["flags"], table["observation"] = curve.method, curve.flags, curve.observation
    table["mjd"].unit, table["freq_hz"].unit = "d", "Hz"
    for name in columns[2:]:
        table[name].unit = "Jy"
    table.meta |= {"name": source["name"], "ra_deg": source["ra_deg"], "dec_deg": source["dec_deg"]}
    # Fluxes of two bands are those of two light curves.
    bands: list[dict[str, Any]] = [
        {
            "freq_hz": float(part.freq_hz[0]),
            "n": part.mjd.size,
            "metrics": {
                name: plain(float(values[0]))
                for name, values in vars(variability(sums_of(part.flux_jy, part.error_jy)[None])).items()
            },
            "structure_function": [
                {"lag_days": lag, "value": v, "pairs": n}
                for lag, v, n in structure_function(part.mjd, part.flux_jy, part.error_jy)
            ],
        }
        for part in curve.bands()
    ]
    values = {
        "source": {k: source[k] for k in ("name", "kind", "ra_deg", "dec_deg", "catalog_flux_jy")},
        "n": curve.mjd.size,
        "bands": bands,
        "measurements": _rows(table),
    }
    if png is not None:
        save_light_curve(png, curve)
    _write(table, out)
    lines = [f"{source['name']} ({source['kind']}) at {source['ra_deg']:.5f} {source['dec_deg']:+.5f}"]
    for part, band in zip(curve.bands(), bands, strict=True):
        low, high, found = part.flux_jy.min(), part.flux_jy.max(), band["metrics"]
        lines.append(
            f"{sparkline(part.flux_jy)}  {1e3 * low:.4g} to {1e3 * high:.4g} mJy at "
            f"{1e-6 * part.freq_hz[0]:.0f} MHz"
        )
        if part.mjd.size < 2:
            continue
        lines.append(
            f"V {found['modulation']:.4f} +- {found['modulation_error']:.4f}, without their errors "
            f"{found['intrinsic']:.4f} +- {found['intrinsic_error']:.4f}; eta {found['eta']:.2f} +- "
            f"{found['eta_error']:.2f}; chance {found['probability']:.2g}"
        )
    lines += [f"{'MJD':>13} {'MHz':>5} {'mJy':>10} {'error':>8}  observation"]
    lines += [
        f"{row['mjd']:13.5f} {1e-6 * row['freq_hz']:5.0f} {1e3 * row['flux_jy']:10.4f} "
        f"{1e3 * row['error_jy']:8.4f}  {row['observation']} "
        + " ".join(filter(None, [row["method"], row["flags"]]))
        for row in table
    ]
    print_result(values, lines, as_json)


def variables(
    false: Annotated[
        float, typer.Option(min=0, help="So many constant sources may be taken for variable, of all")
    ] = 1.0,
    fewest: Annotated[int, typer.Option("--observations", min=2, help="Only with so many observations")] = 3,
    least: Annotated[
        float, typer.Option("--modulation", min=0, help="Only with an intrinsic modulation index above this")
    ] = 0.0,
    last: Annotated[int, typer.Option(min=1, help="At most so many")] = 50,
    out: Out = None,
    database: Database = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """List the catalogue's sources that vary, the surest first."""
    import numpy as np

    from dsa110_contimg.pipeline.lightcurves import settled

    _check(out)
    with settled(_database(database, state_file)) as curves:
        table = curves.sources("catalogue", fewest)
    n = len(table)
    limit = false / max(n, 1)
    # With the same chance, as where it is too small for a number, the larger eta first.
    table = table[np.lexsort([-np.asarray(table["eta"]), np.asarray(table["probability"])])]
    varies = (np.asarray(table["probability"]) < limit) & (np.asarray(table["intrinsic"]) > least)
    table = table[varies][:last]
    values = {
        "n_light_curves": n,
        "false_expected": false,
        "most_probability": limit,
        "n_variable": int(varies.sum()),
        "sources": _rows(table),
    }
    _write(table, out)
    lines = [
        f"{int(varies.sum())} of {n} light curves of {fewest} observations or more vary, {false:g} of them "
        f"expected by chance: a constant source does so with a probability below {limit:.2g}",
        f"{'name':<16} {'RA':>10} {'Dec':>10} {'MHz':>5} {'n':>4} {'mJy':>9} {'V':>7} {'+-':>6} {'eta':>8} "
        f"{'+-':>6} chance",
    ]
    lines += [
        f"{r['name']:<16} {r['ra_deg']:10.4f} {r['dec_deg']:+10.4f} {1e-6 * r['band_hz']:5.0f} {r['n']:4d} "
        f"{1e3 * r['mean_jy']:9.3f} {r['intrinsic']:7.3f} {r['intrinsic_error']:6.3f} {r['eta']:8.2f} "
        f"{r['eta_error']:6.2f} {r['probability']:.2g}"
        for r in table
    ]
    print_result(values, lines, as_json)


def transients(
    sigma: Annotated[float, typer.Option(min=0, help="Only from this significance at the peak on")] = 5.0,
    detections: Annotated[int, typer.Option(min=1, help="Only what was found in so many observations")] = 1,
    last: Annotated[int, typer.Option(min=1, help="At most so many")] = 50,
    out: Out = None,
    database: Database = None,
    state_file: StateFile = None,
    as_json: JsonFlag = False,
) -> None:
    """List sources that no catalogue has; say how many may be false."""
    import numpy as np

    from dsa110_contimg.pipeline.lightcurves import settled

    _check(out)
    with settled(_database(database, state_file)) as curves:
        table = curves.sources("new")
        counting = [o for o in curves.observations() if o["counts"]]
    expected = sum(o["false_new_expected"] or 0.0 for o in counting)
    kept = (np.asarray(table["peak_sigma"]) >= sigma) & (np.asarray(table["n_detected"]) >= detections)
    table = table[kept]
    table = table[np.argsort(-np.asarray(table["peak_sigma"]), kind="stable")][:last]
    values = {
        "n_observations": len(counting),
        "n_found": int(kept.sum()),
        "false_expected_single": expected,
        "sources": _rows(table),
    }
    _write(table, out)
    lines = [
        f"{int(kept.sum())} new sources in {len(counting)} observations; by the negative sides of the "
        f"images {expected:.1f} detections are false, hardly any of them twice at one place",
        f"{'name':<22} {'RA':>10} {'Dec':>10} {'found':>5} {'of':>4} {'peak mJy':>9} {'sigma':>6} "
        f"{'MJD':>11}",
    ]
    lines += [
        f"{r['name']:<22} {r['ra_deg']:10.4f} {r['dec_deg']:+10.4f} {r['n_detected']:5d} {r['n']:4d} "
        f"{1e3 * r['peak_jy']:9.3f} {r['peak_sigma']:6.1f} {r['peak_mjd']:11.4f}"
        for r in table
    ]
    print_result(values, lines, as_json)


def _database(given: Path | None, state_file: Path | None) -> Path:
    """Return the file of light curves that is given, else that beside the state file."""
    from dsa110_contimg.pipeline.lightcurve_updates import database_of

    if given is not None:
        return given
    state = given_state_file(state_file)
    if state is None:
        raise ConfigError(
            "no light curves are named",
            "database",
            "give --database OUTDIR/lightcurves.sqlite3 or --state-file, or set CONTIMG_STATE_FILE",
        )
    return database_of(state)


def _check(out: Path | None) -> None:
    if out is not None and out.suffix not in FORMATS:
        raise ConfigError(
            f"is no table that can be written: {out.name}",
            "out",
            f"give a name ending in {', '.join(FORMATS)}",
        )


def _write(table: Any, out: Path | None) -> None:
    from dsa110_contimg.files import replacing

    if out is not None:
        with replacing(out) as temporary:
            table.write(temporary, format=FORMATS[out.suffix], overwrite=True)


def _rows(table: Any) -> list[dict[str, Any]]:
    return [{name: plain(value) for name, value in zip(table.colnames, row, strict=True)} for row in table]
