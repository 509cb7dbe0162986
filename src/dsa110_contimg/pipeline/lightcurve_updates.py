"""Finished observations into the light curves, beside the state of the runs; never at their cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsa110_contimg.errors import ContimgError
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.observation import Observation
from dsa110_contimg.pipeline.state import State

__all__ = ["LightCurveWriter", "database_of"]

logger = logging.getLogger(__name__)

NAME = "lightcurves.sqlite3"


def database_of(state_file: Path) -> Path:
    """Return the file of light curves beside a state file."""
    return state_file.with_name(NAME)


class LightCurveWriter:
    """Takes what observations have measured into the light curves.

    Whatever goes wrong is a warning: what was missed is taken in when a driver begins the next time.

    Parameters
    ----------
    path : Path
        File of light curves.
    wanted : bool
        If False nothing is done.
    """

    def __init__(self, path: Path, wanted: bool = True) -> None:
        self.path = path
        self.wanted = wanted

    def finished(self, observation: Observation, record: Mapping[str, Any]) -> None:
        """Take in an observation whose run has just ended."""
        if not self.wanted or record.get("status") != "done":
            return
        try:
            with LightCurves(self.path) as curves:
                self._take_in(curves, observation, record)
        except Exception as error:
            _warn(observation.name, error)

    def catch_up(self, state: State) -> int:
        """Take in all that is done and not yet known, as after a kill; return how many these were."""
        taken = 0
        if not self.wanted:
            return taken
        try:
            with LightCurves(self.path) as curves:
                known, published = curves.known(), state.published_runs()
                for observation in state.observations("done", "queued", "running", "failed"):
                    run_id = published.get(observation.id)
                    if run_id is None or known.get(_identity(observation)) == run_id:
                        continue
                    record = state.record_of(run_id)
                    if record is None:
                        continue
                    try:
                        self._take_in(curves, observation, record)
                        taken += 1
                    except ContimgError as error:
                        _warn(observation.name, error)
        except Exception as error:
            _warn("all observations", error)
        return taken

    def _take_in(self, curves: LightCurves, observation: Observation, record: Mapping[str, Any]) -> None:
        curves.take_in(
            observation.folder / str(record.get("published", "")),
            identity=_identity(observation),
            run_id=str(record["run_id"]),
            name=observation.name,
            verdict=str(record.get("quality", "")),
        )


def _identity(observation: Observation) -> str:
    """Return what tells an observation from all others: of the data, else its folder."""
    return observation.identity or str(observation.folder)


def _warn(name: str, error: Exception) -> None:
    known = isinstance(error, ContimgError)
    told = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
    fields = {"event": "lightcurves_failed", "observation": name}
    logger.warning("%s: not taken into the light curves: %s", name, told, extra=fields)
