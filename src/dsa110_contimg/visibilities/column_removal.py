"""Removing columns in such a way that a crash leaves a table that opens.

casacore deletes the files of a column before it writes the table's new
description. A process killed in between leaves a description that refers to
files that are gone, and then no program can open the table, DATA included.
Here the files have second names (hard links) for as long as that lasts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["finish_removals", "interrupted_removals", "mend_removals", "remove_columns"]

LINK = ".contimg_removed."


def remove_columns(main: Any, names: Iterable[str], *, on_disk: bool = True) -> None:
    """Remove those of the columns that are there.

    Parameters
    ----------
    main : table
        Table, open for writing.
    names : iterable of str
        Columns.
    on_disk : bool
        Whether the table's description on disk knows them. If it does not,
        nothing can refer to missing files, and on a full disk the room is
        free at once.
    """
    present = [name for name in names if name in main.colnames()]
    if not on_disk:
        if present:
            main.removecols(present)
        main.flush()
        return
    for name in present:
        links = _link_files(main, name)
        main.removecols([name])
        try:
            main.flush()
        finally:
            _unlink(links)


def interrupted_removals(path: Path) -> list[Path]:
    """Return the second names that a removal cut short has left in a table's folder."""
    return sorted(path.glob(f"{LINK}*"))


def mend_removals(path: Path) -> None:
    """Give back the files that a removal cut short has deleted, so that the table opens."""
    for link in interrupted_removals(path):
        with contextlib.suppress(FileExistsError):
            os.link(link, path / link.name.removeprefix(LINK))


def finish_removals(main: Any) -> None:
    """Delete the second names, and those files that the table no longer refers to."""
    path = Path(main.name())
    used = {f"table.f{manager['SEQNR']}" for manager in main.getdminfo().values()}
    for link in interrupted_removals(path):
        file = link.name.removeprefix(LINK)
        if re.split("_|i$", file)[0] not in used:
            (path / file).unlink(missing_ok=True)
        link.unlink()


def _link_files(main: Any, name: str) -> list[Path]:
    path = Path(main.name())
    links = []
    for manager in main.getdminfo().values():
        # The files stay while other columns live in them.
        if list(manager["COLUMNS"]) != [name]:
            continue
        stem = f"table.f{manager['SEQNR']}"
        for file in [*path.glob(stem), *path.glob(f"{stem}i"), *path.glob(f"{stem}_*")]:
            link = path / f"{LINK}{file.name}"
            # Some network disks know no hard links; there the gap stays.
            with contextlib.suppress(OSError):
                os.link(file, link)
                links.append(link)
    return links


def _unlink(links: list[Path]) -> None:
    for link in links:
        link.unlink(missing_ok=True)
