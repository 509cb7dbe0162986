"""The commands of ``contimg catalog``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table

from dsa110_contimg.cli.help_text import App
from dsa110_contimg.cli.terminal import (
    JsonFlag,
    QuietFlag,
    TerminalProgress,
    plain,
    print_json,
    print_result,
    print_table,
)
from dsa110_contimg.config import CatalogName
from dsa110_contimg.errors import CatalogMissingError, InputError, ResourceError
from dsa110_contimg.files import replacing, write_table

if TYPE_CHECKING:
    from dsa110_contimg.catalogs import StripInfo

__all__ = ["catalog_app"]

catalog_app = App(help="Build and query catalogue strips.", no_args_is_help=True)

CatalogDir = Annotated[
    Path | None,
    typer.Option("--catalog-dir", help="Folder of the catalogue strips", show_default="state/catalogs"),
]

#: All surveys: what `--catalog` of the other commands takes, less its two ways to choose among them.
NAMES = get_args(CatalogName)[:-2]
#: Forms of `contimg catalog query --out`, by the ending of the file's name.
FORMS = {
    ".ecsv": "ECSV",
    ".fits": "FITS",
    ".vot": "VOTable",
    ".xml": "VOTable",
    ".reg": "DS9 regions",
    ".txt": "WSClean list",
}
#: Spectral index in a WSClean list, as catalogues at one frequency tell none.
SPECTRAL_INDEX = -0.75


@catalog_app.command("build")
def catalog_build(
    catalog: Annotated[
        str, typer.Argument(help=f"Catalogue: {', '.join(NAMES)}, or calibrators (the VLA's list)")
    ],
    source: Annotated[
        str, typer.Argument(help="File or URL: FITS, VOTable, TDAT, TSV, CSV or ECSV, plain or gzipped")
    ],
    dec_range: Annotated[
        tuple[float, float] | None, typer.Option(help="Declinations to build, degrees", metavar="LO HI")
    ] = None,
    covers: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="The file covers this circle only, degrees", metavar="RA DEC RADIUS"),
    ] = None,
    covers_box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(help="The file covers this box only, degrees", metavar="RA_LO RA_HI DEC_LO DEC_HI"),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum that a fetched file must have")] = None,
    timeout: Annotated[float, typer.Option(help="Longest silence of a server in seconds", min=0.1)] = 30.0,
    catalog_dir: CatalogDir = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Build declination strips from a catalogue file."""
    from dsa110_contimg.catalogs import build_strips, default_catalog_dir
    from dsa110_contimg.catalogs.calibrators import build_calibrators
    from dsa110_contimg.catalogs.download import fetch, is_url

    folder = catalog_dir or default_catalog_dir()
    if catalog not in (*NAMES, "calibrators"):
        raise InputError(f"unknown catalogue {catalog!r}", remedy=f"known: {', '.join(NAMES)}, calibrators")
    progress = TerminalProgress(quiet)
    if is_url(source):
        path = fetch(source, folder / "downloads", sha256=sha256, timeout_s=timeout, progress=progress)
    elif sha256 is not None:
        raise InputError("is given for a local file", "--sha256", "leave it out")
    else:
        path = Path(source)
    if catalog == "calibrators":
        made, count = build_calibrators(path, folder)
        found = {"catalog": catalog, "table": str(made), "n_calibrators": count}
        print_result(found, [f"{made}: {count} calibrators"], as_json, quiet)
        return
    if covers is not None and covers_box is not None:
        raise InputError("is given beside --covers-box", "--covers", "give one of them")
    report = build_strips(catalog, path, folder, dec_range, progress, covers=covers or covers_box or ())
    values = {
        "catalog": report.catalog,
        "catalog_dir": str(folder),
        "source_sha256": report.source_sha256,
        "n_sources": report.n_sources,
        "built": [str(s.path) for s in report.built],
        "kept": [str(s.path) for s in report.kept],
        "notes": list(report.notes),
        "seconds": round(report.seconds, 3),
    }
    said = (
        f"{report.catalog}: {report.n_sources} sources; {len(report.built)} strips built, {len(report.kept)} "
        f"already there, in {folder} ({report.seconds:.1f} s)"
    )
    print_result(values, [said, *(f"note: {note}" for note in report.notes)], as_json, quiet)


@catalog_app.command("query")
def catalog_query(
    ra: Annotated[float, typer.Option(help="Right ascension in degrees")],
    dec: Annotated[float, typer.Option(help="Declination in degrees")],
    radius: Annotated[float, typer.Option(help="Radius in degrees")],
    min_mjy: Annotated[float | None, typer.Option(help="Faintest flux in mJy")] = None,
    catalog: Annotated[str, typer.Option(help=f"Catalogue: {', '.join(NAMES)}, merged or auto")] = "nvss",
    freq_mhz: Annotated[
        float | None, typer.Option(help="Frequency in MHz by which merged and auto choose", min=1.0)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File: .ecsv, .fits, .vot or .xml (VOTable), .reg (DS9), .txt (WSClean)"),
    ] = None,
    catalog_dir: CatalogDir = None,
    as_json: JsonFlag = False,
) -> None:
    """List the sources of a cone, brightest first."""
    from dsa110_contimg.catalogs import query_cone

    if out is not None and out.suffix not in FORMS:
        known = ", ".join(f"{suffix} ({form})" for suffix, form in FORMS.items())
        raise InputError(f"the ending {out.suffix!r} names no form", out, f"known: {known}")
    frequency = None if freq_mhz is None else freq_mhz * 1e6
    rows = query_cone(
        catalog, ra, dec, radius, min_flux_mjy=min_mjy, catalog_dir=catalog_dir, freq_hz=frequency
    )
    catalog = str(rows.meta["catalog"])
    if "choice" in rows.meta:
        rows.meta["notes"].append(rows.meta["choice"])
    if out is not None:
        _write(rows, catalog, out)
    if as_json:
        listed = [{n: plain(row[n]) for n in rows.colnames} for row in rows]
        told = {"catalog": catalog, "n_sources": len(listed), "notes": rows.meta["notes"]}
        print_json({**told, "sources": listed})
        return
    for note in rows.meta["notes"]:
        typer.echo(f"note: {note}", err=True)
    if out is not None:
        typer.echo(f"{out}: {len(rows)} {catalog.upper()} sources as {FORMS[out.suffix]}")
        return
    place = f"within {radius:g} deg of RA {rows.meta['ra_deg']:.4f} Dec {dec:+.4f}"
    table = Table(*rows.colnames, title=f"{len(rows)} {catalog.upper()} sources {place}")
    for row in rows:
        table.add_row(*(_cell(name, plain(row[name])) for name in rows.colnames))
    print_table(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    digits = {"ra_deg": 6, "dec_deg": 6, "separation_deg": 5, "flux_mjy": 2, "flux_err_mjy": 2}
    return str(value) if isinstance(value, int) else f"{value:.{digits.get(name, 3)}f}"


def _write(rows: Any, catalog: str, out: Path) -> None:
    """Write rows in the form that the ending of the name asks for, beside and renamed."""
    from dsa110_contimg.sky.catalog_model import catalog_sky

    try:
        if out.suffix in (".txt", ".reg"):
            sky = catalog_sky(rows, catalog, SPECTRAL_INDEX)
            sky.write_wsclean(out) if out.suffix == ".txt" else sky.write_ds9(out)
            return
        if out.suffix == ".ecsv":
            write_table(out, rows)
            return
        # Neither header has a place for lists: what they say goes into words.
        bare, told = rows.copy(), [f"{k}: {v}" for k, v in rows.meta.items() if v not in (None, [])]
        bare.meta = {"comments": told} if out.suffix == ".fits" else {"description": "\n".join(told)}
        with replacing(out) as temporary:
            bare.write(temporary, format="fits" if out.suffix == ".fits" else "votable")
    except OSError as error:
        raise ResourceError(
            f"cannot be written ({error.strerror})", out, "check the folder and its permissions"
        ) from error


@catalog_app.command("info")
def catalog_info(
    picture: Annotated[Path | None, typer.Option(help="Draw the covered sky: .png, .pdf or .svg")] = None,
    catalog_dir: CatalogDir = None,
    as_json: JsonFlag = False,
) -> None:
    """List the strips on disk, what they cover, and how faint they are complete."""
    from dsa110_contimg.catalogs import catalog_info as strips_in
    from dsa110_contimg.catalogs import default_catalog_dir
    from dsa110_contimg.catalogs.plot import draw_coverage

    folder = catalog_dir or default_catalog_dir()
    strips = strips_in(folder)
    if not strips:
        raise CatalogMissingError(
            "no catalogue strips are there", folder, "run `contimg catalog build`, or check --catalog-dir"
        )
    if picture is not None:
        draw_coverage(strips, picture)
    catalogs = sorted({s.catalog for s in strips}, reverse=True)
    floors = {
        c: min((s.faintest_mjy for s in strips if s.catalog == c and s.n_sources), default=None)
        for c in catalogs
    }
    if as_json:
        print_json(
            {
                "catalog_dir": str(folder),
                "floor_mjy": floors,
                "strips": [
                    {
                        "path": str(s.path),
                        "catalog": s.catalog,
                        "dec_deg": [s.dec_min, s.dec_max],
                        "ra_deg": [s.ra_min, s.ra_max],
                        "covers": list(s.covers),
                        "n_sources": s.n_sources,
                        "faintest_mjy": plain(s.faintest_mjy),
                        "completeness_mjy": s.completeness_mjy,
                        "source": s.source_name,
                        "source_sha256": s.source_sha256,
                        "build_time": s.build_time,
                        "notes": list(s.notes),
                    }
                    for s in strips
                ],
            }
        )
        return
    table = Table(
        "strip", "Dec", "RA", "sources", "faintest mJy", "90 % complete mJy", "built from", title=str(folder)
    )
    for s in strips:
        table.add_row(
            s.path.name,
            f"{s.dec_min:+.2f} .. {s.dec_max:+.2f}",
            _ra_cell(s),
            str(s.n_sources),
            f"{s.faintest_mjy:.3g}",
            "-" if s.completeness_mjy is None else f"{s.completeness_mjy:.3g}",
            f"{s.source_name} {s.source_sha256[:12]}",
        )
    print_table(table)
    for name in catalogs:
        total = sum(s.n_sources for s in strips if s.catalog == name)
        line = f"{name}: {total} sources"
        if floors[name] is not None:
            line += f"; flux limits below {floors[name]:.3g} mJy, its faintest, all select the same rows"
        typer.echo(line)
        for note in sorted({note for s in strips if s.catalog == name for note in s.notes}):
            typer.echo(f"{name}: {note}")


def _ra_cell(strip: StripInfo) -> str:
    """Say which right ascensions a strip covers."""
    if strip.circle is not None:
        return f"{strip.circle.radius_deg:g} deg about {strip.circle.ra_deg:.2f} {strip.circle.dec_deg:+.2f}"
    return "by map" if strip.footprint is not None else f"{strip.ra_min:.2f} .. {strip.ra_max:.2f}"


@catalog_app.command("migrate")
def catalog_migrate(catalog_dir: CatalogDir = None, as_json: JsonFlag = False) -> None:
    """Rewrite strips of an older format, where the file they were built from is gone."""
    from dsa110_contimg.catalogs import migrate_strips

    migrated = migrate_strips(catalog_dir)
    if as_json:
        print_json({"migrated": [str(s.path) for s in migrated]})
        return
    typer.echo(f"{len(migrated)} strips rewritten")


@catalog_app.command("calibrator")
def catalog_calibrator(
    name: Annotated[str, typer.Argument(help="Name: 0834+555, B0831+557, 3C286")],
    catalog_dir: CatalogDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Give position and flux of a VLA calibrator."""
    from dsa110_contimg.catalogs.calibrators import BANDS, calibrator

    found = calibrator(name, catalog_dir)
    if as_json:
        print_json(
            {
                "name": found.name,
                "aliases": list(found.aliases),
                "ra_deg": found.ra_deg,
                "dec_deg": found.dec_deg,
                "position_code": found.position_code,
                "flux_jy": found.flux_jy,
                "quality": found.quality,
            }
        )
        return
    also = f" ({', '.join(found.aliases)})" if found.aliases else ""
    typer.echo(
        f"{found.name}{also}  RA {found.ra_deg:.7f} Dec {found.dec_deg:+.7f} deg, "
        f"position {found.position_code}"
    )
    table = Table("band", "GHz", "flux Jy", "A B C D")
    for band, flux in found.flux_jy.items():
        table.add_row(band, f"{BANDS[band]:g}", f"{flux:g}", " ".join(found.quality[band]))
    print_table(table)
