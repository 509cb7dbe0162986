"""Whether a Measurement Set is whole."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

from dsa110_contimg.visibilities.measurement_set import (
    open_measurement_set,
    open_table,
    referring,
    tables_referred_to,
)

__all__ = ["end_with_parent", "look_into"]

#: How a keyword that holds a table is read.
SUBTABLE = "Table: "


def end_with_parent() -> None:
    """End this process when the one that started it does, however that ends."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def look_into(ms: Path) -> str | None:
    """Look whether a Measurement Set is whole: valid, every column of every table readable in the last row.

    Returns
    -------
    str or None
        Why it is refused, however often it is looked at; empty if it is whole, None if it is not, or not yet.
    """
    try:
        parts = tables_referred_to(ms)
        if parts:
            return referring(ms, parts).what
        open_measurement_set(ms)
        with open_table(ms) as main:
            _read_last_row(main)
            subtables = [name for name in main.keywordnames() if name not in main.colnames()]
            paths = [str(main.getkeyword(name)) for name in subtables]
        for path in paths:
            if path.startswith(SUBTABLE):
                with open_table(Path(path.removeprefix(SUBTABLE))) as table:
                    _read_last_row(table)
    except Exception:
        # Tables may be broken in any way, and this one is no reason to end the service.
        return None
    return ""


def _read_last_row(table: Any) -> None:
    last = table.nrows() - 1
    for name in table.colnames() if last >= 0 else ():
        if table.iscelldefined(name, last):
            table.getcell(name, last)
