"""Catalogue files as their archives write them, of any size, made from drawn and real sources."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHUNK = 100_000

#: Imports once, then forks a process for each build, so that a kill meets the build and not the imports.
BUILDS = """
import os, sys
from dsa110_contimg.catalogs import build_strips
for line in sys.stdin:
    source, strips = line.split("|")
    pid = os.fork()
    if pid == 0:
        build_strips("nvss", source, strips.strip())
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@dataclass
class Sources:
    """What a file lists, in the precision in which NVSS is published; one array of shape (n,) each."""

    ra_hms: NDArray[np.int64]  # (n, 3): hours, minutes, hundredths of seconds
    dec_dms: NDArray[np.int64]  # (n, 3): degrees, minutes, tenths of seconds
    south: NDArray[np.bool_]
    flux: Floats  # mJy, tenths
    error: Floats
    major: Floats  # arcsec, tenths: measured, or the limit
    minor: Floats
    major_limit: NDArray[np.bool_]
    minor_limit: NDArray[np.bool_]
    pa: Floats

    @property
    def ra_deg(self) -> Floats:
        h, m, s = self.ra_hms.T
        return (h + m / 60.0 + s / 100.0 / 3600.0) * 15.0

    @property
    def dec_deg(self) -> Floats:
        d, m, s = self.dec_dms.T
        return np.where(self.south, -1.0, 1.0) * (d + m / 60.0 + s / 10.0 / 3600.0)

    def __len__(self) -> int:
        return len(self.flux)


def draw(
    n: int, seed: int = 1, dec_min: float = -40.0, real: tuple[Floats, Floats, Floats] | None = None
) -> Sources:
    """Draw n sources, uniform on the sky north of ``dec_min``, of which the first are real (RA, Dec, mJy)."""
    rng = np.random.default_rng(seed)
    ra = rng.uniform(0, 360, n)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(dec_min)), 1.0, n)))
    # Cumulative counts about as S^-0.9, from NVSS's faintest on.
    flux = 2.1 * rng.uniform(1e-5, 1.0, n) ** (-1 / 0.9)
    if real is not None:
        k = len(real[0])
        ra[:k], dec[:k], flux[:k] = real
    order = np.lexsort((dec, ra))
    ra, dec, flux = ra[order], dec[order], np.round(flux[order], 1)
    ticks = np.round(ra / 15 * 360_000).astype(np.int64) % (24 * 360_000)
    ra_hms = np.stack([ticks // 360_000, ticks // 6000 % 60, ticks % 6000], axis=1)
    ticks = np.round(np.abs(dec) * 36_000).astype(np.int64)
    dec_dms = np.stack([ticks // 36_000, ticks // 600 % 60, ticks % 600], axis=1)
    major_limit = rng.uniform(size=n) < 0.7
    minor_limit = major_limit | (rng.uniform(size=n) < 0.8)
    return Sources(
        ra_hms,
        dec_dms,
        dec < 0,
        flux,
        np.round(0.4 + 0.03 * flux, 1),
        np.round(rng.uniform(15, 90, n), 1),
        np.round(rng.uniform(12, 15, n), 1),
        major_limit,
        minor_limit,
        np.round(rng.uniform(-90, 90, n), 1),
    )


def real_bright(path: Path) -> tuple[Floats, Floats, Floats]:
    """Return RA, Dec (deg) and peaks (mJy) of the real bright sources of NVSS."""
    with gzip.open(path, "rt") as stream:
        ra, dec, peak, _ = np.loadtxt(stream, delimiter=",", skiprows=1, unpack=True)
    return ra, dec, 1e3 * peak


def _sexagesimal(s: Sources) -> tuple[list[str], list[str]]:
    ra = [f"{h:02d} {m:02d} {c // 100:02d}.{c % 100:02d}" for h, m, c in s.ra_hms.tolist()]
    dec = [
        f"{'-' if south else '+'}{d:02d} {m:02d} {t // 10:02d}.{t % 10}"
        for south, (d, m, t) in zip(s.south.tolist(), s.dec_dms.tolist(), strict=True)
    ]
    return ra, dec


def _part(s: Sources, start: int) -> Sources:
    return Sources(*(getattr(s, name)[start : start + CHUNK] for name in s.__dataclass_fields__))


def _vizier_rows(s: Sources) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row: recno, NVSS, RAJ2000, DEJ2000, S1.4, e_S1.4, sizes with flags, PA."""
    number = 0
    for start in range(0, len(s), CHUNK):
        part = _part(s, start)
        ra, dec = _sexagesimal(part)
        for k, row in enumerate(
            zip(
                *(part.flux.tolist(), part.error.tolist(), part.major.tolist(), part.minor.tolist()),
                *(part.major_limit.tolist(), part.minor_limit.tolist(), part.pa.tolist()),
                strict=True,
            )
        ):
            flux, error, major, minor, a, b, pa = row
            number += 1
            yield (
                *(str(number), ra[k].replace(" ", "")[:6] + dec[k].replace(" ", "")[:7], ra[k], dec[k]),
                *(f"{flux:.1f}", f"{error:.1f}", "<" if a else "", f"{major:.1f}", "<" if b else ""),
                *(f"{minor:.1f}", "" if a else f"{pa:.1f}"),
            )


VIZIER = (
    ("recno", "int", ""),
    ("NVSS", "char", ""),
    ("RAJ2000", "char", '"h:m:s"'),
    ("DEJ2000", "char", '"d:m:s"'),
    ("S1.4", "double", "mJy"),
    ("e_S1.4", "float", "mJy"),
    ("l_MajAxis", "char", ""),
    ("MajAxis", "float", "arcsec"),
    ("l_MinAxis", "char", ""),
    ("MinAxis", "float", "arcsec"),
    ("PA", "float", "deg"),
)


def _open(path: Path) -> object:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", compresslevel=1, encoding="utf-8")
    return path.open("w", encoding="utf-8")


def write_vizier_tsv(path: Path, s: Sources) -> None:
    with _open(path) as stream:  # type: ignore[attr-defined]
        stream.write("#\n#   VizieR Astronomical Server\n#Table\tVIII_65_nvss:\n")
        stream.write("\t".join(name for name, _, _ in VIZIER) + "\n")
        stream.write("\t".join(unit for _, _, unit in VIZIER) + "\n")
        stream.write("\t".join("-" * max(1, len(name)) for name, _, _ in VIZIER) + "\n")
        stream.writelines("\t".join(cell or " " for cell in row) + "\n" for row in _vizier_rows(s))
        stream.write("\n#END#\n")


def write_vizier_votable(path: Path, s: Sources) -> None:
    with _open(path) as stream:  # type: ignore[attr-defined]
        stream.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
            '<RESOURCE name="VIII/65">\n'
            f'<TABLE ID="VIII_65_nvss" name="VIII/65/nvss" nrows="{len(s)}">\n'
        )
        for name, kind, unit in VIZIER:
            size = ' arraysize="*"' if kind == "char" else ""
            stated = f' unit="{unit.strip(chr(34))}"' if unit else ""
            stream.write(f'<FIELD name="{name}" datatype="{kind}"{size}{stated}/>\n')
        stream.write("<DATA><TABLEDATA>\n")
        stream.writelines(
            "<TR><TD>" + "</TD><TD>".join(row).replace("><<", ">&lt;<") + "</TD></TR>\n"
            for row in _vizier_rows(s)
        )
        stream.write("</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n")


def _write_fits(path: Path, columns: list[fits.Column], name: str) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name=name)]).writeto(
        path, overwrite=True
    )


def write_vizier_fits(path: Path, s: Sources) -> None:
    ra, dec = _sexagesimal(s)
    flags = [np.where(flag, "<", "") for flag in (s.major_limit, s.minor_limit)]
    columns = [
        fits.Column("recno", "J", array=np.arange(len(s)) + 1),
        fits.Column("RAJ2000", "11A", array=np.array(ra)),
        fits.Column("DEJ2000", "11A", array=np.array(dec)),
        fits.Column("S1.4", "D", unit="mJy", array=s.flux),
        fits.Column("e_S1.4", "E", unit="mJy", array=s.error),
        fits.Column("l_MajAxis", "A", array=flags[0]),
        fits.Column("MajAxis", "E", unit="arcsec", array=s.major),
        fits.Column("l_MinAxis", "A", array=flags[1]),
        fits.Column("MinAxis", "E", unit="arcsec", array=s.minor),
        fits.Column("PA", "E", unit="deg", array=np.where(s.major_limit, np.nan, s.pa)),
        # What else VizieR sends, so that a row has its real width.
        fits.Column("other", "80A", array=np.full(len(s), "")),
    ]
    _write_fits(path, columns, "nvss")


TDAT = (
    *("name", "ra", "dec", "lii", "bii", "ra_error", "dec_error", "flux_20_cm", "flux_20_cm_error"),
    *("limit_major_axis", "major_axis", "major_axis_error", "limit_minor_axis", "minor_axis"),
    *("minor_axis_error", "position_angle", "position_angle_error", "field_name"),
)


def write_heasarc_tdat(path: Path, s: Sources) -> None:
    units = {"ra": "_degree", "dec": "_degree", "flux_20_cm": "_mJy", "major_axis": "_arcsec"}
    with _open(path) as stream:  # type: ignore[attr-defined]
        stream.write(f"<HEADER>\n#\n#              TABLE: heasarc_nvss\n#         TOTAL ROWS: {len(s)}\n#\n")
        stream.write("table_name = heasarc_nvss\n# Table Parameters\n")
        stream.writelines(
            f"field[{name}] = float8{units.get(name, '')}:.4f [meta.id] (key) // {name}\n" for name in TDAT
        )
        stream.write('field_delimiter = "|"\n')
        stream.write("line[1] = " + " ".join(TDAT) + "\n#\n<DATA>\n")
        ra, dec = s.ra_deg, s.dec_deg
        for start in range(0, len(s), CHUNK):
            part = _part(s, start)
            stream.writelines(
                f"NVSS J{x:.3f}|{x:.7f}|{y:.7f}|120.1|-3.2|0.05|0.6|{f:.1f}|{e:.1f}|"
                f"{'<' if a else ''}|{p:.1f}||{'<' if b else ''}|{q:.1f}||"
                f"{'' if a else f'{t:.1f}'}||C0000M40|\n"
                for x, y, f, e, a, p, b, q, t in zip(
                    *(ra[start : start + CHUNK].tolist(), dec[start : start + CHUNK].tolist()),
                    *(
                        part.flux.tolist(),
                        part.error.tolist(),
                        part.major_limit.tolist(),
                        part.major.tolist(),
                    ),
                    *(part.minor_limit.tolist(), part.minor.tolist(), part.pa.tolist()),
                    strict=True,
                )
            )
        stream.write("<END>\n")


def write_nrao_fits(path: Path, s: Sources) -> None:
    n = len(s)
    fit = np.hypot(45.0, np.where(s.major_limit, 0.0, s.major))
    columns = [
        fits.Column("RA(2000)", "D", unit="DEGREE", array=s.ra_deg),
        fits.Column("DEC(2000)", "D", unit="DEGREE", array=s.dec_deg),
        fits.Column("PEAK INT", "E", unit="JY/BEAM", array=1e-3 * s.flux),
        fits.Column("MAJOR AX", "E", unit="DEGREE", array=fit / 3600),
        fits.Column("MINOR AX", "E", unit="DEGREE", array=np.full(n, 45.0 / 3600)),
        fits.Column("POSANGLE", "E", unit="DEGREEE", array=s.pa),
        *(fits.Column(name, "E", array=np.zeros(n)) for name in ("Q CENTER", "U CENTER", "P FLUX")),
        fits.Column("I RMS", "E", unit="JY/BEAM", array=np.full(n, 0.00045)),
        *(
            fits.Column(name, "E", array=np.zeros(n))
            for name in ("POL RMS", "RES RMS", "RES PEAK", "RES FLUX")
        ),
        *(fits.Column(name, "E", array=np.zeros(n)) for name in ("CENTER X", "CENTER Y")),
        fits.Column("FIELD", "8A", array=np.full(n, "C0000M40")),
        fits.Column("JD PROCESSED", "J", array=np.zeros(n, dtype=int)),
    ]
    _write_fits(path, columns, "AIPS VL")


def write_first_fits(path: Path, s: Sources) -> None:
    n = len(s)
    columns = [
        fits.Column("RA", "D", array=s.ra_deg),
        fits.Column("DEC", "D", array=s.dec_deg),
        fits.Column("SIDEPROB", "E", array=np.full(n, 0.014)),
        fits.Column("FPEAK", "E", array=0.8 * s.flux),
        fits.Column("FINT", "E", array=s.flux),
        fits.Column("RMS", "E", array=np.full(n, 0.15)),
        fits.Column("MAJOR", "E", array=np.where(s.major_limit, 0.0, s.major / 10)),
        fits.Column("MINOR", "E", array=np.where(s.minor_limit, 0.0, s.minor / 10)),
        fits.Column("POSANG", "E", array=s.pa),
        fits.Column("FLDNAME", "12A", array=np.full(n, "00000-11224E")),
    ]
    _write_fits(path, columns, "FIRST")


GENERIC = (
    *("ra_deg", "dec_deg", "flux_mjy", "flux_err_mjy", "major_arcsec", "minor_arcsec", "pa_deg"),
    *("major_limit_arcsec", "minor_limit_arcsec"),
)


def _generic_rows(s: Sources, delimiter: str) -> Iterator[str]:
    blank = "nan" if delimiter == " " else ""
    ra, dec = s.ra_deg, s.dec_deg
    for start in range(0, len(s), CHUNK):
        part = _part(s, start)
        size = np.where(part.major_limit, 0.0, part.major)
        small = np.where(part.minor_limit, 0.0, part.minor)
        pa = np.where(part.major_limit, 0.0, part.pa)
        for x, y, f, e, p, q, t, a, b, u, v in zip(
            *(ra[start : start + CHUNK].tolist(), dec[start : start + CHUNK].tolist(), part.flux.tolist()),
            *(part.error.tolist(), size.tolist(), small.tolist(), pa.tolist(), part.major_limit.tolist()),
            *(part.minor_limit.tolist(), part.major.tolist(), part.minor.tolist()),
            strict=True,
        ):
            cells = (f"{x:.7f}", f"{y:.7f}", f"{f:.1f}", f"{e:.1f}", f"{p:.1f}", f"{q:.1f}", f"{t:.1f}")
            limits = (f"{u:.1f}" if a else blank, f"{v:.1f}" if b else blank)
            yield delimiter.join((*cells, *limits)) + "\n"


def write_csv(path: Path, s: Sources) -> None:
    with _open(path) as stream:  # type: ignore[attr-defined]
        stream.write(",".join(GENERIC) + "\n")
        stream.writelines(_generic_rows(s, ","))


def write_ecsv(path: Path, s: Sources, coverage: tuple[float, float, float, float] | None = None) -> None:
    with _open(path) as stream:  # type: ignore[attr-defined]
        stream.write("# %ECSV 1.0\n# ---\n# datatype:\n")
        stream.writelines(f"# - {{name: {name}, datatype: float64}}\n" for name in GENERIC)
        if coverage:
            keys = ("ra_min", "ra_max", "dec_min", "dec_max")
            stated = ", ".join(f"{k}: {v}" for k, v in zip(keys, coverage, strict=True))
            stream.write(f"# meta: {{coverage: {{{stated}}}}}\n")
        stream.write(" ".join(GENERIC) + "\n")
        stream.writelines(_generic_rows(s, " "))


#: Each form of NVSS: file name and writer.
NVSS_FORMS: dict[str, Callable[[Path, Sources], None]] = {
    "vizier.fits": write_vizier_fits,
    "vizier.vot": write_vizier_votable,
    "vizier.tsv": write_vizier_tsv,
    "heasarc_nvss.tdat.gz": write_heasarc_tdat,
    "CATALOG.FIT": write_nrao_fits,
    "generic.csv.gz": write_csv,
    "generic.ecsv": write_ecsv,
}
