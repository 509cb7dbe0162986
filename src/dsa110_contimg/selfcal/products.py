"""What a self-calibration leaves behind: tables, images, picture, columns, summary file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Int, Vis
from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.files import write_table
from dsa110_contimg.imaging.masks import write_mask
from dsa110_contimg.imaging.products import write_products
from dsa110_contimg.selfcal.calibration_block import CalibrationBlock
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.naming import COLUMNS, MASK, PICTURE
from dsa110_contimg.selfcal.params import SelfCalParams
from dsa110_contimg.selfcal.plot import save_overview
from dsa110_contimg.selfcal.state import CalState
from dsa110_contimg.visibilities import ColumnStage, add_flags, restore_columns

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
    # Drawing and writing hardly wait for the same.
    with ThreadPoolExecutor(1) as beside:
        drawn = beside.submit(_draw_picture, params, initial, final, tables)
        _apply_to_data(params, data, state)
        drawn.result()
    return names


def _draw_picture(
    params: SelfCalParams, initial: CalibratedImage, final: CalibratedImage, tables: Sequence[GainTable]
) -> None:
    """Draw the overview; a picture never fails a finished run."""
    path = params.output_dir / PICTURE
    path.unlink(missing_ok=True)
    try:
        save_overview(
            path,
            params.grid,
            initial,
            final,
            tables,
            float(params.reader.times[0]),
            params.ms.antennas.name,
        )
    except (ValueError, RuntimeError, OSError) as error:
        logger.warning("no picture: %s", error)


def _apply_to_data(params: SelfCalParams, data: CalibrationData, state: CalState) -> None:
    """Write the columns and flags that were asked for, if a calibration was kept."""
    if not state.tables:
        return
    if params.config.columns != "none" or params.config.unsolved == "flag":
        useless = _write_columns(params, data, state)
        if params.config.unsolved == "flag":
            count = add_flags(params.ms, useless.of_rows)
            logger.info("%d visibilities without a solution or without sky flagged", count)
        elif useless.share:
            data.log.note(
                f"{100 * useless.share:.2g} % of the unflagged visibilities have no solution or no sky in "
                "them: left out here, to be left out by others too (unsolved = flag does that in FLAG; "
                "programs that interpolate the gain tables may carry gains over the gaps)"
            )
    _put_back(params, data)


@dataclass(frozen=True, eq=False)
class _Useless:
    """Visibilities without a solution, or without sky in them.

    Attributes
    ----------
    share : float
        Fraction of the unflagged ones.
    of_rows : list of (ndarray of int, ndarray of bool)
        Rows that have some, and where, shape (nrow, nchan, ncorr).
    """

    share: float
    of_rows: list[tuple[Int, Bool]]


def _write_columns(params: SelfCalParams, data: CalibrationData, state: CalState) -> _Useless:
    """Write MODEL_DATA as the kept gains were solved against it, and CORRECTED_DATA, in one pass."""
    rows, found, unfit, unflagged = [], [], 0, 0
    columns = COLUMNS[params.config.columns]
    model = state.kept_model if "MODEL_DATA" in columns else None
    with ExitStack() as stack:
        stage = stack.enter_context(ColumnStage(params.ms, columns)) if columns else None
        for piece in data.blocks_as_read("write columns", state.weights, model):
            block = piece.block
            vis, useless = _useless(data, piece, state)
            unfit += int(np.count_nonzero(useless))
            unflagged += int(np.count_nonzero(~block.flag))
            some = np.flatnonzero(useless.any(axis=(1, 2)))
            if some.size and params.config.unsolved == "flag":
                found.append((block.rows[some], useless[some]))
            if stage is not None and piece.model is not None:
                cell = np.zeros(block.data.shape, dtype=np.complex64)
                for k in block.spw.parallel:
                    cell[:, :, k] = piece.of_correlation(k)
                stage.put("MODEL_DATA", block.rows, cell)
            if stage is not None and "CORRECTED_DATA" in columns:
                stage.put("CORRECTED_DATA", block.rows, vis)
            rows.append(block.rows)
        if stage is not None:
            stage.fill_rest(np.concatenate(rows))
            stage.commit()
    return _Useless(unfit / max(unflagged, 1), found)


def _put_back(params: SelfCalParams, data: CalibrationData) -> None:
    """Put back what columns held that an earlier run wrote and this one does not."""
    others = [name for name in COLUMNS["both"] if name not in COLUMNS[params.config.columns]]
    done = restore_columns(params.ms, others) if others else []
    if done:
        data.log.note(f"{' and '.join(done)}, of an earlier run, put back to what was found")


def _useless(data: CalibrationData, piece: CalibrationBlock, state: CalState) -> tuple[Vis, Bool]:
    """Corrected visibilities, and which of the unflagged ones have no solution or nothing of the sky."""
    # Whatever its weight: outliers have none, and may well have a solution.
    vis, weight = data.corrected(piece.block, np.ones_like(piece.weight), state.tables)
    unfit = (weight == 0) | state.weights.unfit(piece.number, piece.block)
    return vis, np.asarray(unfit & ~piece.block.flag)


def earlier_tables(summary: Path) -> list[str]:
    """Return the gain tables that an earlier run into the same folder wrote, by its summary."""
    try:
        names = json.loads(summary.read_text(encoding="utf-8"))["gaintables"]
        return [n for n in names if isinstance(n, str) and Path(n).name == n and n.startswith("selfcal_")]
    except (OSError, ValueError, KeyError, TypeError):
        return []
