"""What tells the data of one observation from those of another, whatever its name and place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dsa110_contimg.visibilities.measurement_set import require_table
from dsa110_contimg.visibilities.tables import reading

__all__ = ["data_identity"]

#: So many rows are looked at, spread over all.
ROWS = 64
#: What no calibration changes.
COLUMNS = ("TIME", "ANTENNA1", "ANTENNA2", "DATA_DESC_ID", "FIELD_ID")


def data_identity(path: Path) -> str:
    """Return a hash of the data of a Measurement Set: the same of a copy, and after calibration and flagging.

    Parameters
    ----------
    path : Path
        Measurement Set.

    Returns
    -------
    str
        32 hexadecimal digits, of the number of rows, and of times, antennas and DATA in 64 of them, spread
        over all; of FLOAT_DATA, or of nothing, where there is no DATA.

    Raises
    ------
    MeasurementSetError
        If it cannot be read.
    """
    require_table(path)
    digest = hashlib.sha256()
    with reading(path) as main:
        n = int(main.nrows())
        digest.update(str(n).encode())
        names = main.colnames()
        data = [name for name in ("DATA", "FLOAT_DATA") if name in names][:1]
        for row in np.unique(np.linspace(0, n - 1, ROWS).astype(int)) if n else ():
            digest.update(np.array([main.getcell(name, int(row)) for name in COLUMNS], np.float64).tobytes())
            for name in data:
                if main.iscelldefined(name, int(row)):
                    digest.update(np.ascontiguousarray(main.getcell(name, int(row))).tobytes())
    return digest.hexdigest()[:32]
