"""Write the page of a run; where a run has just finished, whatever goes wrong with it is a warning."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import quote

from dsa110_contimg.errors import ContimgError, InputError, ResourceError
from dsa110_contimg.files import write_text
from dsa110_contimg.report.index import INDEX, is_index
from dsa110_contimg.report.page import render
from dsa110_contimg.report.products import read_products
from dsa110_contimg.selfcal.naming import REPORT, STAGES, SUMMARY

__all__ = ["try_report", "write_report"]

logger = logging.getLogger(__name__)


#: The page of all observations is looked for in so many folders above that of a run.
LEVELS = 3


def write_report(folder: Path | str, index: Path | None = None) -> Path:
    """Build the page of a run from what lies in its folder.

    Parameters
    ----------
    folder : Path or str
        Output folder of a self-calibration, finished or not. What is missing is named on the page.
    index : Path, optional
        The page of all observations, which the page leads to, even if it is not there yet; looked for in the
        folders above if not given.

    Returns
    -------
    Path
        ``report.html`` in it: one file that needs nothing else.

    Raises
    ------
    InputError
        If that is no folder of a run.
    ResourceError
        If the page cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("is no folder", folder, "give the output folder of contimg selfcal")
    if not any((folder / name).exists() for name in (SUMMARY, STAGES)) and not any(
        folder.glob("*-image.fits")
    ):
        raise InputError("holds no products of a run", folder, "give the output folder of contimg selfcal")
    page = render(read_products(folder), _to_index(folder, index))
    try:
        write_text(folder / REPORT, page)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(
            f"cannot write the report: {reason}",
            folder / REPORT,
            "check the folder, its permissions and space",
        ) from None
    return folder / REPORT


def _to_index(folder: Path, index: Path | None) -> str:
    """Return the way from the page of a run to that of all observations; empty if there is none."""
    here = folder.resolve()
    found = index or next((p / INDEX for p in here.parents[:LEVELS] if is_index(p / INDEX)), None)
    return "" if found is None else quote(os.path.relpath(found.parent.resolve() / found.name, here))


def try_report(folder: Path, index: Path | None = None) -> Path | None:
    """Write the page of a run that has finished; None, after a warning, if that does not work.

    Parameters
    ----------
    folder, index
        As of :func:`write_report`.
    """
    try:
        return write_report(folder, index)
    except ContimgError as error:
        logger.warning("no report: %s", error)
    except Exception as error:
        # A page must never fail a finished run, whatever its products hold.
        text = " ".join(str(error).split())
        logger.warning("no report: %s: %s: %s", folder, type(error).__name__, text)
    return None
