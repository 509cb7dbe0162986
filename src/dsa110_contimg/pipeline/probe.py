"""Whether a Measurement Set is whole."""

from __future__ import annotations

from pathlib import Path

from dsa110_contimg.errors import ContimgError
from dsa110_contimg.visibilities.measurement_set import open_measurement_set, open_table

__all__ = ["readable"]


def readable(ms: Path) -> bool:
    """Whether a Measurement Set is whole: valid, and every column readable in its last row."""
    try:
        open_measurement_set(ms)
        with open_table(ms) as main:
            last = main.nrows() - 1
            for name in main.colnames():
                if main.iscelldefined(name, last):
                    main.getcell(name, last)
    except (ContimgError, RuntimeError, OSError):
        return False
    return True
