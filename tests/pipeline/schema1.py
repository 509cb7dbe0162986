"""Days with which a file of light curves of schema 1 was filled; ``schema1.sql`` is its dump."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.files import write_table
from tests.pipeline.light import N_SOURCES, write_sources

#: As many sources as these are kept of each list.
KEPT = 16
NEW = (150.3, 54.2, 0.02)


def days(root: Path) -> Iterator[tuple[int, str, str, Path]]:
    """Write what eight runs measured; yield day, run, verdict and folder.

    One source varies, one is flagged, scales differ, a new source is found on day 2 and looked for in the
    image of day 3; day 4 is bad, day 5 is run again.
    """
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 150.0, "CRVAL2": 54.0})
    more = {"CRPIX1": 129, "CRPIX2": 129, "CDELT1": -20 / 3600, "CDELT2": 20 / 3600, "BUNIT": "JY/BEAM"}
    header.update(more | {"BMAJ": 60 / 3600, "BMIN": 60 / 3600, "BPA": 0.0})
    for day, run, verdict in (
        (0, "1", "good"), (1, "1", "good"), (2, "1", "good"), (3, "1", "good"), (4, "1", "bad"),
        (5, "1", "good"), (5, "2", "good"), (6, "1", "good"),
    ):  # fmt: skip
        factor = np.ones(N_SOURCES)
        factor[12] = 1 + day % 2
        new = [NEW] if day == 2 else []
        folder = write_sources(
            root / f"d{day}-{run}", day, factor, 1 + 0.05 * day, new, seed=100 * day + int(run)
        )
        table = Table.read(folder / "sources.ecsv")
        table["flags"] = ["blended" if k == 13 else "" for k in range(len(table))]
        table = table[np.r_[:KEPT, N_SOURCES : len(table)]]
        write_table(folder / "sources.ecsv", table)
        if day == 3:
            image = np.full((256, 256), 1e-3, np.float32)
            fits.writeto(folder / "final-difference.fits", image, header, overwrite=True)
        yield day, run, verdict, folder
