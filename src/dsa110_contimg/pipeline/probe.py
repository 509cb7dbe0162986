"""Whether a Measurement Set is whole."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsa110_contimg.errors import ContimgError, ReferenceTableError
from dsa110_contimg.visibilities.measurement_set import open_measurement_set
from dsa110_contimg.visibilities.tables import first_line, require_own_data, require_whole

__all__ = ["Look", "end_with_parent", "look_into"]


def end_with_parent() -> None:
    """End this process when the one that started it does, however that ends."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class Look:
    """What was found of a Measurement Set.

    Attributes
    ----------
    state : {"whole", "incomplete", "refused"}
        Incomplete: it cannot be read, or not yet. Refused: it is not taken, however long one waits.
    why : str
        What is wrong, unless it is whole.
    """

    state: Literal["whole", "incomplete", "refused"]
    why: str = ""


def look_into(ms: Path) -> Look:
    """Look whether a Measurement Set is whole: valid, and readable to the last row of every table."""
    try:
        require_own_data(ms)
        open_measurement_set(ms)
        require_whole(ms)
    except ReferenceTableError as error:
        return Look("refused", error.what)
    except ContimgError as error:
        return Look("incomplete", f"{Path(error.where).name}: {error.what}")
    except Exception as error:  # a table that is written just now may be broken in any way
        return Look("incomplete", f"{type(error).__name__}: {first_line(error)}")
    return Look("whole")
