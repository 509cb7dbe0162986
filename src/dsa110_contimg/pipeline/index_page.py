"""The page of all observations, index.html: kept current beside a pipeline, or written of any folder."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import ContimgError, InputError
from dsa110_contimg.pipeline.index_rows import (
    Published,
    in_short,
    limits_of,
    link_to,
    published_of,
    rows_below,
)
from dsa110_contimg.pipeline.lightcurve_updates import varying_sources
from dsa110_contimg.pipeline.naming import state_of
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.report import IndexRow, Limits, write_index
from dsa110_contimg.selfcal.naming import REPORT

__all__ = ["PageWriter", "index_of_folder"]

logger = logging.getLogger(__name__)

#: So long the end of a pipeline waits for the last page, seconds.
LAST_S = 60.0


class _StateRows:
    """Rows of the observations in a state file; what records say is kept from one page to the next."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder.resolve()
        # By run; runs that are no longer the published ones of their observations are dropped.
        self._published: dict[str, Published] = {}
        self._parents: dict[Path, Path] = {}

    def read(self) -> tuple[list[IndexRow], Limits | None, set[Path]]:
        """Return the rows, the limits of the run that ended last, and the folders of the observations."""
        with State(self.path, create=False) as state:
            runs = state.published_runs()
            observations = [o for o in state.latest() if self._real(o.folder).is_relative_to(self.folder)]
            kept: dict[str, Published] = {}
            for o in observations:
                run_id = runs.get(o.id)
                if run_id is None:
                    continue
                known = self._published.get(run_id)
                record = state.record_of(run_id) if known is None else None
                if record is not None:
                    known = published_of(record, o.folder)
                if known is not None:
                    kept[run_id] = known
        self._published = kept
        rows, folders = [], set()
        for o in observations:
            published = kept.get(runs.get(o.id, ""))
            fields = {} if published is None else dict(published.fields)
            if o.status != "done":
                fields["status"] = o.status
            folder = self._real(o.folder)
            folders.add(folder)
            there = published is not None and o.pruned != "products"
            row = IndexRow(
                name=folder.name,
                link=link_to(folder / published.arm / REPORT, self.folder) if published and there else "",
                observed_at=o.observed_at,
                ended_at=o.ended_at or None,
                why=in_short(o.message),
                **fields,
            )
            rows.append(row)
        last = max(kept.values(), key=lambda p: p.finished, default=None)
        return rows, last.limits if last else None, folders

    def _real(self, folder: Path) -> Path:
        """Resolve where the folder of an observation lies, which itself is never a link."""
        if folder.parent not in self._parents:
            self._parents[folder.parent] = folder.parent.resolve()
        return self._parents[folder.parent] / folder.name


class PageWriter:
    """Keeps the page of all observations current while a pipeline works.

    A thread of its own reads the state and writes the page, so that nothing waits for it; whatever goes wrong
    with it is a warning, once, and told with the state until a page is made again.

    Parameters
    ----------
    state_path : Path
        State file.
    outdir : Path
        Folder of all products, and of the page.
    config : PipelineConfig
        Options: how often, if at all, and the limits while no run has ended.
    """

    def __init__(self, state_path: Path, outdir: Path, config: PipelineConfig) -> None:
        self.outdir = outdir
        self.config = config
        self._rows = _StateRows(state_path, outdir)
        self._changed = threading.Event()
        self._ending = threading.Event()
        # What was last told: nothing yet, or that all is well.
        self._told: str | None = None

    def changed(self) -> None:
        """Say that the page is no longer current."""
        self._changed.set()

    @contextlib.contextmanager
    def kept_current(self) -> Iterator[None]:
        """Write the page when something has changed, at most so often as is asked for, and at the end."""
        if not self.config.index_s:
            yield
            return
        self._ending.clear()
        self._changed.set()
        thread = threading.Thread(target=self._work, name="index", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._changed.set()
            thread.join(LAST_S)

    def _work(self) -> None:
        while True:
            self._changed.wait()
            # In this order: what changes from here on is on the next page, and one is written after the end.
            self._changed.clear()
            is_last = self._ending.is_set()
            self._write()
            if is_last:
                return
            self._ending.wait(self.config.index_s)

    def _write(self) -> None:
        try:
            rows, limits, _ = self._rows.read()
            varying = varying_sources(self._rows.path) if self.config.light_curves else ()
            write_index(self.outdir, rows, limits or limits_of(self.config.model_dump()), varying)
            if self._told is None or self._told:
                with State(self._rows.path, create=False) as state:
                    state.page_is_made()
            self._told = ""
        except Exception as error:
            # A page must never fail a pipeline, whatever records or disks hold.
            known = isinstance(error, ContimgError)
            told = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
            if told != self._told:
                logger.warning("no page of all observations: %s", told, extra={"event": "index_failed"})
                self._note(told)
            self._told = told

    def _note(self, why: str) -> None:
        """Leave word for who asks for the state: the page that stands is an older one."""
        # Of a state that cannot be used the warning tells already.
        with contextlib.suppress(ContimgError), State(self._rows.path, create=False) as state:
            state.page_is_stale(why)


def index_of_folder(folder: Path, state_file: Path | None = None) -> Path:
    """Write the page of all observations in a folder and below, of pipelines and of single runs.

    Parameters
    ----------
    folder : Path
        Where they lie, and the page will.
    state_file : Path, optional
        State file of the pipeline that works into it; the one that the folder names if not given. Without one
        the records in the folders say what came of observations.

    Returns
    -------
    Path
        ``index.html`` in it.

    Raises
    ------
    InputError
        If there is no such folder, or no run in it.
    ResourceError
        If state or page cannot be used.
    """
    if not folder.is_dir():
        raise InputError("is no folder", folder, "give a folder in which contimg has worked")
    config = PipelineConfig.load(None, {})
    path = state_file or state_of(folder)
    rows: list[IndexRow] = []
    limits, known = None, set[Path]()
    if path is not None and (state_file is not None or path.exists()):
        rows, limits, known = _StateRows(path, folder).read()
    rows += rows_below(folder.resolve(), config, known)
    if not rows:
        raise InputError("holds no run", folder, "give a folder in which contimg has worked")
    varying = () if path is None else varying_sources(path)
    return write_index(folder, rows, limits or limits_of(config.model_dump()), varying)
