"""Small public observations of other arrays through every command: what comes out, against WSClean.

``python -m studies.other_arrays OUT`` runs each set of ``../shared/data/arrays`` through image, selfcal with
and without a catalogue, rephase and revert, has WSClean image the same data where an image makes sense, and
writes ``OUT/other-arrays.md`` and ``.json``; ``docs/results/other-arrays.md`` is a copy of the first.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from casacore.tables import table

from dsa110_contimg.cli.main import main

ARRAYS = Path(__file__).resolve().parents[2] / "shared" / "data" / "arrays"
CATALOGUE = ARRAYS.parent / "catalogues" / "nvss_50mjy.csv.gz"
RASG, DP3, FLINT = "rasg-datasets", "DP3 test set", "flint test set"
FLAGGED = "no usable visibility: all are flagged"
NO_LENGTH = "UVW is zero or not finite in all 1890 rows"

HEAD = """
Small public observations, each put through `image`, `selfcal` with the NVSS sources above 50 mJy,
`selfcal --no-seed`, `rephase` and `revert`. A number in brackets is the exit status: 0 finished,
2 refused in one line. The independent figure is the peak of WSClean's image of the same data, on
the same pixels, without CLEAN, at natural weights and gridded exactly (`-padding 2
-no-small-inversion -wgridder-accuracy 1e-6`).

`tdem` is not calibrated: its peak is of no source. Every pixel that was tried is within 1e-7 Jy of
the sum of the visibilities in double precision (WSClean: 1e-5 Jy, or 1.4e-4 Jy with its defaults
for gridding). Where such data are CLEANed, the peak is that of the rules for when to end: at Briggs 0
it is 0.416 mJy with masks at 5 sigma, 0.299 down to 3 sigma anywhere; WSClean's is 0.392 and
0.277, or 0.306 gridded with its defaults.

`lofar` holds the observatory's own calibration, which is the truth for its seeded run: the coherence
is `|sum V V'*|` over the norms of both, for DATA and for what the run wrote.

Origin: test data of rasg-datasets and flint (BSD) and of DP3 (GPL-3).
"""


@dataclass(frozen=True)
class Run:
    """A command, the exit status that is right for it, and what it has to say."""

    command: str
    status: int = 0
    says: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """A set: what it is, what is done with it, and options of an image that WSClean makes too.

    `calibrated` is a column of the set that others have calibrated: what a seeded run is held against.
    """

    name: str
    telescope: str
    form: str
    origin: str
    verdict: str
    runs: tuple[Run, ...]
    pixels: int = 0
    cell_arcsec: float = 0.0
    column: str = "DATA"
    calibrated: str = ""

    def grid(self) -> tuple[str, ...]:
        """Options of the image."""
        return ("--size", str(self.pixels), "--cell", str(self.cell_arcsec)) if self.pixels else ()


def _alike(status: int, says: str, *, seeded: str = "", options: tuple[str, ...] = ()) -> tuple[Run, ...]:
    """The three commands that read visibilities, all with one outcome."""
    run = [Run(c, status, says, options) for c in ("image", "selfcal", "no-seed")]
    if seeded:
        run[1] = Run("selfcal", status, seeded, options)
    return tuple(run)


BACK = (Run("rephase", 0, "phase centre RA"), Run("revert", 0))
PLACEHOLDER = "POINTING says RA 0.00 Dec.*where no beam reaches: ignored"
IMPOSSIBLE = "values that no receiver makes: [0-9]+ visibilities left out"
OBSERVATIONS = (
    Observation(
        "tdem",
        "VLA, 36 GHz",
        "64 channels",
        RASG,
        "images; a seeded run says how far the catalogue's fluxes are carried",
        (Run("image"), Run("no-seed"), Run("selfcal", 0, "carried by a factor of 25.9"), *BACK),
        256,
        0.33,
    ),
    Observation(
        "ata_c0352",
        "ATA, 1.25 GHz",
        "pyuvdata; weights negative, 29 % zeros",
        RASG,
        "no weights, a placeholder, zeros and impossible values are said and left out",
        (*_alike(0, IMPOSSIBLE), *BACK),
        256,
        31.0,
    ),
    Observation(
        "ata_c0544",
        "ATA, 1.26 GHz",
        "pyuvdata; values up to 4e37",
        RASG,
        "as above",
        (Run("image", 0, PLACEHOLDER), Run("selfcal", 0, IMPOSSIBLE), Run("no-seed", 0, "zeros: "), *BACK),
        256,
        31.0,
    ),
    Observation(
        "mwa1061",
        "MWA, 167 MHz",
        "UVFITS; no dish; flagged everywhere",
        RASG,
        "refused: all is flagged; a catalogue needs a beam, an image does not",
        (*_alike(2, FLAGGED, seeded="no primary beam: telescope 'MWA'"), *BACK),
    ),
    Observation(
        "mojave",
        "VLBA, 8.1 GHz",
        "UVFITS; one channel a window; no dish",
        RASG,
        "images without a beam; self-calibration keeps the input",
        (
            Run("image", 0, "no dish is known of telescope 'VLBA'"),
            Run("selfcal", 2, "no primary beam: telescope 'VLBA'"),
            Run("no-seed", 0, "input kept"),
            *BACK,
        ),
        256,
        0.00017,
    ),
    Observation(
        "atca",
        "ATCA, 3.1 GHz",
        "15 baselines, one dump",
        RASG,
        "refused: too few baselines; south of the catalogue",
        (*_alike(2, "15 baselines in 1 dump cannot make an image", seeded="is not covered"), *BACK),
    ),
    Observation(
        "lwasv",
        "LWA-SV, 40 MHz",
        "4 antennas, all sky",
        RASG,
        "refused without a size; with one it images",
        (*_alike(2, "field of view 180 deg: not an L-band dish array"), *BACK),
    ),
    Observation(
        "meerkat",
        "MeerKAT, 856 MHz",
        "with autocorrelations; flagged everywhere",
        DP3,
        "refused: all is flagged",
        (Run("image", 2, FLAGGED), Run("no-seed", 2, FLAGGED), *BACK),
    ),
    Observation(
        "wsrt_3c343",
        "WSRT, 1.2 GHz",
        "falling channels; four antennas",
        DP3,
        "images; three baselines an antenna are fewer than `--min-baselines`",
        (
            Run("image"),
            Run("selfcal", 2, "no antenna has more than 3 baselines"),
            Run("no-seed", 0, "input kept", ("--min-baselines", "3")),
            *BACK,
        ),
        256,
        11.0,
    ),
    Observation(
        "lofar",
        "LOFAR HBA, 134 MHz",
        "columns of fixed shape",
        DP3,
        "images; gain tables are written; phases are better, the flux scale is not verified, as the run says",
        (Run("image"), Run("no-seed"), Run("selfcal", 0, "10.4 in freq.*flux scale is not verified"), *BACK),
        512,
        5.6,
        "CORRECTED_DATA",
        "CORRECTED_DATA",
    ),
    Observation(
        "bda2",
        "LOFAR HBA, 134 MHz",
        "averaged by baseline, four windows",
        DP3,
        "images; gain tables of windows of different layout are written; the flux scale is not verified",
        (Run("image"), Run("no-seed"), Run("selfcal", 0, "10.4 in freq.*flux scale is not verified"), *BACK),
        512,
        5.6,
    ),
    Observation(
        "askap_small",
        "ASKAP, 744 MHz",
        "baselines of length 0",
        FLINT,
        "refused: no baseline has a length",
        (*_alike(2, NO_LENGTH), Run("rephase", 2, NO_LENGTH), Run("revert", 0)),
    ),
)


def unpacked(name: str, folder: Path) -> Path:
    """Unpack a set into a folder of its own."""
    with tarfile.open(ARRAYS / f"{name}.ms.tar.gz") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)
    return folder / f"{name}.ms"


def words(run: Run, of: Observation, ms: Path, folder: Path, catalogs: Path) -> list[str]:
    """Give the arguments of a command."""
    at = ["--catalog-dir", str(catalogs)]
    given: dict[str, list[str]] = {
        "image": ["image", str(ms), "--name", str(folder / "im"), *of.grid()],
        "selfcal": ["selfcal", str(ms), str(folder / "seeded"), *of.grid(), *at],
        "no-seed": ["selfcal", str(ms), str(folder / "unseeded"), "--no-seed", *of.grid(), *at],
        "rephase": ["rephase", str(ms), str(folder / "moved.ms")],
        "revert": ["revert", str(ms)],
    }
    return [*given[run.command], *run.options]


def outcome(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command here; its exit status and all that it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(list(arguments))
    return status, said.getvalue()


def right(run: Run, status: int, said: str) -> bool:
    """Whether a command ended as is right, in words and without an internal error."""
    return status == run.status and bool(re.search(run.says, said)) and "internal error" not in said


def peaks(of: Observation, folder: Path) -> dict[str, float]:
    """Peak in jansky of the image without CLEAN at natural weights, and of WSClean's on the same pixels.

    CLEAN of data that are not calibrated ends where each program's own rules have it end, and Briggs' density
    of visibilities depends on where cells of the uv plane begin.
    """
    ms, size = unpacked(of.name, folder), [str(of.pixels)] * 2
    ours = ["image", str(ms), "--name", str(folder / "im"), *of.grid(), "--column", of.column]
    outcome([*ours, "--weighting", "natural", "--clean-iterations", "0"])
    # Exact: by default what lies outside the image folds into it.
    exact = [
        "-padding",
        "2",
        "-no-small-inversion",
        "-wgridder-accuracy",
        "1e-6",
        "-weight",
        "natural",
        "-reorder",
    ]
    command = ["wsclean", "-quiet", "-j", "1", "-name", str(folder / "w"), "-size", *size, *exact]
    command += ["-scale", f"{of.cell_arcsec}asec", "-niter", "0", "-data-column", of.column]
    subprocess.run([*command, "-no-update-model-required", str(ms)], check=True, capture_output=True)
    made = {"peak_jy": folder / "im-image.fits", "wsclean_peak_jy": folder / "w-image.fits"}
    return {key: float(fits.getdata(path).max()) for key, path in made.items()}


def coherence(ms: Path, column: str, original: Path, calibrated: str) -> float:
    """Correlate a column with what others have calibrated, parallel hands without autocorrelations.

    The magnitude of the sum of V conj(V') over the norms of both: 1 for data that differ by one factor.
    """
    with table(str(ms), ack=False) as here, table(str(original), ack=False) as there:
        cross = here.getcol("ANTENNA1") != here.getcol("ANTENNA2")
        flags = here.getcol("FLAG") | there.getcol("FLAG")
        used = (~flags & cross[:, None, None])[:, :, [0, -1]]
        v, w = (t.getcol(c)[:, :, [0, -1]][used] for t, c in ((here, column), (there, calibrated)))
    return float(abs(np.vdot(w, v)) / (np.linalg.norm(v) * np.linalg.norm(w)))


def study(of: Observation, folder: Path, catalogs: Path) -> dict[str, object]:
    """Run everything on one set."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ms = unpacked(of.name, folder)
    found: dict[str, object] = {"name": of.name, "runs": []}
    for run in of.runs:
        status, said = outcome(words(run, of, ms, folder, catalogs))
        last = said.strip().splitlines()[-1] if said.strip() else ""
        entry = {"command": run.command, "status": status, "right": right(run, status, said), "last": last}
        place = {"selfcal": "seeded", "no-seed": "unseeded"}.get(run.command, "")
        summary = folder / place / "selfcal_summary.json"
        if place and summary.is_file():
            entry["outcome"] = json.loads(summary.read_text())["status"]
        if run.command == "selfcal" and of.calibrated and entry.get("outcome") == "improved":
            theirs = unpacked(of.name, folder / "theirs"), of.calibrated
            entry["coherence"] = [coherence(ms, c, *theirs) for c in ("DATA", "CORRECTED_DATA")]
        found["runs"].append(entry)  # type: ignore[attr-defined]
    # Half of the ATA's data are no data, which WSClean takes as they are.
    if of.pixels and not of.name.startswith("ata"):
        found |= peaks(of, folder / "peaks")
    shutil.rmtree(folder, ignore_errors=True)
    return found


def page(rows: Sequence[dict[str, object]]) -> str:
    """Write the results as a document."""
    lines = [
        "# Other arrays",
        "",
        *HEAD.strip().splitlines(),
        "`python -m studies.other_arrays OUT` writes this page.",
        "",
        "| telescope | format | origin | what was run | peak, WSClean's (Jy) | verdict | as it should be |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        of = next(o for o in OBSERVATIONS if o.name == row["name"])
        runs: list[dict[str, object]] = row["runs"]  # type: ignore[assignment]
        done = ", ".join(_in_words(r) for r in runs)
        ours, theirs = row.get("peak_jy"), row.get("wsclean_peak_jy")
        figure = "none" if ours is None else f"{ours:.4g}, {theirs:.4g}"
        wrong = [str(r["command"]) for r in runs if not r["right"]]
        cells = [f"{of.telescope} (`{of.name}`)", of.form, of.origin, done, figure, of.verdict]
        lines.append(f"| {' | '.join(cells)} | {'no: ' + ', '.join(wrong) if wrong else 'yes'} |")
    return "\n".join(lines) + "\n"


def _in_words(run: dict[str, object]) -> str:
    """Command, exit status and what became of the calibration."""
    status = f", {str(run['outcome']).replace('_', ' ')}" if run.get("outcome") else ""
    if "coherence" in run:
        was, now = run["coherence"]  # type: ignore[misc]
        status += f"; coherence with the observatory's calibration {was:.2f} -> {now:.2f}"
    return f"{run['command']} ({run['status']}{status})"


def run_study(out: Path, names: Sequence[str] = ()) -> list[dict[str, object]]:
    """Run all sets, or some by name, and write page and figures."""
    out.mkdir(parents=True, exist_ok=True)
    catalogs = out / "catalogs"
    if not catalogs.exists():
        outcome(["catalog", "build", "nvss", str(CATALOGUE), "--catalog-dir", str(catalogs)])
    rows = []
    for of in OBSERVATIONS:
        if not names or of.name in names:
            rows.append(study(of, out / of.name, catalogs))
            print(json.dumps(rows[-1]), flush=True)
            (out / "other-arrays.json").write_text(json.dumps(rows, indent=1) + "\n")
            (out / "other-arrays.md").write_text(page(rows))
    return rows


if __name__ == "__main__":
    run_study(Path(sys.argv[1]), sys.argv[2:])
