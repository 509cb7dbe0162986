"""What a self-calibration leaves behind: tables, images, picture, columns, summary file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from dsa110_contimg.array_types import Bool, Int
from dsa110_contimg.calibration.caltables import write_gain_table
from dsa110_contimg.calibration.gains import GainTable
from dsa110_contimg.files import write_table
from dsa110_contimg.imaging import ImageGrid
from dsa110_contimg.imaging.products import write_products
from dsa110_contimg.selfcal.calibration_data import Observation
from dsa110_contimg.selfcal.imaging import CalibratedImage
from dsa110_contimg.selfcal.params import Plan
from dsa110_contimg.selfcal.plot import save_overview
from dsa110_contimg.visibilities import ColumnStage, add_flags

__all__ = ["PICTURE", "SUMMARY", "earlier_tables", "write_everything"]

logger = logging.getLogger(__name__)

SUMMARY = "selfcal_summary.json"
PICTURE = "selfcal.png"


def write_everything(
    plan: Plan,
    observation: Observation,
    grid: ImageGrid,
    tables: Sequence[GainTable],
    initial: CalibratedImage,
    final: CalibratedImage,
    earlier: Sequence[str],
    reports: Mapping[str, Table | None],
) -> list[str]:
    """Write tables, images, picture, and at the very end the columns of the Measurement Set.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    observation : Observation
        The data, its model the one that the solver used.
    grid : ImageGrid
        Grid of the images.
    tables : sequence of GainTable
        The best calibration; none if the input is kept, and then no column is touched.
    initial, final : CalibratedImage
        Images before and after.
    earlier : sequence of str
        Tables of an earlier run into the same folder.
    reports : mapping of str to astropy.table.Table or None
        Tables for the user by file name; None removes one of an earlier run.

    Returns
    -------
    list of str
        Names of the gain tables.
    """
    out = plan.output_dir
    if tables:
        # Tables of an earlier run describe the columns that are about to be replaced; others stay.
        for old in earlier:
            shutil.rmtree(out / old, ignore_errors=True)
    names = []
    for number, table in enumerate(tables, 1):
        suffix = f"{table.kind[0].lower()}cal"
        path = out / f"selfcal_{number}_{table.label}.{suffix}"
        write_gain_table(path, table.kind, table.gains, plan.ms)
        names.append(path.name)
    if plan.seed is not None:
        plan.seed.write(out / "selfcal")
    for name, report in reports.items():
        if report is not None:
            write_table(out / name, report)
        else:
            (out / name).unlink(missing_ok=True)
    write_products(
        out / "initial", {"image": (initial.restored, "JY/BEAM")}, initial.cleaned, grid, plan.reader
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
    write_products(out / "final", images, final.cleaned, grid, plan.reader)
    (out / PICTURE).unlink(missing_ok=True)
    try:
        save_overview(out / PICTURE, grid, initial, final, tables, float(plan.reader.times[0]))
    except (ValueError, RuntimeError, OSError) as error:
        # A picture must never fail a finished run.
        logger.warning("no picture: %s", error)
    if tables:
        _write_columns(plan, observation, tables)
        if plan.config.unsolved == "flag":
            _flag_unsolved(plan, observation, tables)
    return names


def _write_columns(plan: Plan, observation: Observation, tables: Sequence[GainTable]) -> None:
    """Write MODEL_DATA as the solver used it, and CORRECTED_DATA."""
    rows = []
    with ColumnStage(plan.ms, ["MODEL_DATA", "CORRECTED_DATA"]) as stage:
        for block, model in observation.blocks("write columns", with_model=True):
            assert model is not None
            vis, _ = observation.corrected(block, tables)
            cell = np.zeros(block.data.shape, dtype=np.complex64)
            cell[:, :, list(block.spw.parallel)] = model[:, :, None]
            stage.put("MODEL_DATA", block.rows, cell)
            stage.put("CORRECTED_DATA", block.rows, vis)
            rows.append(block.rows)
        stage.fill_rest(np.concatenate(rows))
        stage.commit()


def _flag_unsolved(plan: Plan, observation: Observation, tables: Sequence[GainTable]) -> None:
    """Flag what has no solution: in CORRECTED_DATA it is as it was."""

    def unsolved() -> Iterator[tuple[Int, Bool]]:
        for block, _ in observation.blocks("flag what has no solution", with_model=False):
            # Whatever its weight: outliers have none, and may well have a solution.
            _, weight = observation.corrected(replace(block, weight=np.ones_like(block.weight)), tables)
            yield block.rows, (weight == 0) & ~block.flag

    count = add_flags(plan.ms, unsolved())
    logger.info("%d visibilities without a solution flagged", count)


def earlier_tables(summary: Path) -> list[str]:
    """Return the gain tables that an earlier run into the same folder wrote, by its summary."""
    try:
        names = json.loads(summary.read_text(encoding="utf-8"))["gaintables"]
        return [n for n in names if isinstance(n, str) and Path(n).name == n and n.startswith("selfcal_")]
    except (OSError, ValueError, KeyError, TypeError):
        return []
