"""What a self-calibration leaves behind: tables, images, picture, columns, summary file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Int
from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.files import write_table
from dsa110_contimg.imaging.masks import write_mask
from dsa110_contimg.imaging.products import write_products
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.naming import MASK, PICTURE
from dsa110_contimg.selfcal.params import SelfCalParams
from dsa110_contimg.selfcal.plot import save_overview
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.visibilities import ColumnStage, add_flags

__all__ = ["earlier_tables", "write_everything"]

logger = logging.getLogger(__name__)


def write_everything(
    params: SelfCalParams,
    data: CalibrationData,
    state: CalState,
    final: CalibratedImage,
    imager: str,
    earlier: Sequence[str],
    reports: Mapping[str, Table | None],
) -> list[str]:
    """Write tables, images, picture, and at the very end the columns of the Measurement Set.

    Parameters
    ----------
    params : SelfCalParams
        What was asked for.
    data : CalibrationData
        The data.
    state : CalState
        The best calibration; without tables the input is kept, and then no column is touched.
    final : CalibratedImage
        The image that is delivered.
    imager : str
        What made it, if the calibration is kept; for the headers.
    earlier : sequence of str
        Tables of an earlier run into the same folder.
    reports : mapping of str to astropy.table.Table or None
        Tables for the user by file name; None removes one of an earlier run.

    Returns
    -------
    list of str
        Names of the gain tables.
    """
    out, tables, initial = params.output_dir, state.tables, state.initial
    assert initial is not None
    if tables:
        # Tables of an earlier run describe the columns that are about to be replaced; others stay.
        for old in earlier:
            shutil.rmtree(out / old, ignore_errors=True)
    names = []
    for number, table in enumerate(tables, 1):
        suffix = f"{table.kind[0].lower()}cal"
        path = out / f"selfcal_{number}_{table.label}.{suffix}"
        write_gain_table(path, table.kind, table.gains, params.ms)
        names.append(path.name)
    if params.catalog_model is not None:
        params.catalog_model.write(out / "selfcal")
    if state.mask is not None:
        freq = params.reader.freq_hz
        write_mask(out / MASK, state.mask, params.grid, float(freq.mean()), float(np.ptp(freq)))
    for name, report in reports.items():
        if report is not None:
            write_table(out / name, report)
        else:
            (out / name).unlink(missing_ok=True)
    write_products(
        out / "initial", {"image": (initial.restored, "JY/BEAM")}, initial.cleaned, params.grid, params.reader
    )
    images = {
        "image": (final.restored, "JY/BEAM"),
        "residual": (final.cleaned.residual, "JY/BEAM"),
        "model": (final.cleaned.model, "JY/PIXEL"),
        "psf": (final.cleaned.psf, "JY/BEAM"),
    }
    if final.difference is not None:
        images["difference"] = (final.difference, "JY/BEAM")
    else:
        (out / "final-difference.fits").unlink(missing_ok=True)
    made_by = {"imager": imager} if tables else {}
    write_products(out / "final", images, final.cleaned, params.grid, params.reader, **made_by)
    (out / PICTURE).unlink(missing_ok=True)
    try:
        save_overview(out / PICTURE, params.grid, initial, final, tables, float(params.reader.times[0]))
    except (ValueError, RuntimeError, OSError) as error:
        # A picture must never fail a finished run.
        logger.warning("no picture: %s", error)
    if tables:
        _write_columns(params, data, state)
        if params.config.unsolved == "flag":
            _flag_unsolved(params, data, state)
    return names


def _write_columns(params: SelfCalParams, data: CalibrationData, state: CalState) -> None:
    """Write MODEL_DATA as the kept gains were solved against it, and CORRECTED_DATA."""
    rows = []
    with ColumnStage(params.ms, ["MODEL_DATA", "CORRECTED_DATA"]) as stage:
        for piece in data.blocks("write columns", state.weights, state.kept_model):
            block = piece.block
            assert piece.model is not None
            vis, _ = data.corrected(block, piece.weight, state.tables)
            cell = np.zeros(block.data.shape, dtype=np.complex64)
            cell[:, :, list(block.spw.parallel)] = piece.model[:, :, None]
            stage.put("MODEL_DATA", block.rows, cell)
            stage.put("CORRECTED_DATA", block.rows, vis)
            rows.append(block.rows)
        stage.fill_rest(np.concatenate(rows))
        stage.commit()


def _flag_unsolved(params: SelfCalParams, data: CalibrationData, state: CalState) -> None:
    """Flag what has no solution: in CORRECTED_DATA it is as it was."""

    def unsolved() -> Iterator[tuple[Int, Bool]]:
        for piece in data.blocks("flag what has no solution", state.weights):
            # Whatever its weight: outliers have none, and may well have a solution.
            _, weight = data.corrected(piece.block, np.ones_like(piece.weight), state.tables)
            yield piece.block.rows, (weight == 0) & ~piece.block.flag

    count = add_flags(params.ms, unsolved())
    logger.info("%d visibilities without a solution flagged", count)


def earlier_tables(summary: Path) -> list[str]:
    """Return the gain tables that an earlier run into the same folder wrote, by its summary."""
    try:
        names = json.loads(summary.read_text(encoding="utf-8"))["gaintables"]
        return [n for n in names if isinstance(n, str) and Path(n).name == n and n.startswith("selfcal_")]
    except (OSError, ValueError, KeyError, TypeError):
        return []
