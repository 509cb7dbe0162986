"""Whether a Measurement Set is whole."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

from dsa110_contimg.errors import ContimgError
from dsa110_contimg.visibilities.measurement_set import open_measurement_set, open_table

__all__ = ["end_with_parent", "readable"]


def end_with_parent() -> None:
    """End this process when the one that started it does, however that ends."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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
