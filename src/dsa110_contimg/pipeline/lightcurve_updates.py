"""Finished observations into the light curves, beside the state of the runs; never at their cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.errors import ContimgError, InputError
from dsa110_contimg.pipeline.lightcurves import LightCurves, settled
from dsa110_contimg.pipeline.observation import Observation
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.report import Varying

__all__ = ["LightCurveWriter", "database_of", "varying_sources"]

logger = logging.getLogger(__name__)

NAME = "lightcurves.sqlite3"
#: On the page of all observations are so many variables, and so many new sources.
MOST_SHOWN = 6


def database_of(state_file: Path) -> Path:
    """Return the file of light curves beside a state file."""
    return state_file.with_name(NAME)


def varying_sources(state_file: Path) -> list[Varying]:
    """Return what varies most beside a state file, and what is new; nothing, after a warning, in trouble."""
    path, found = database_of(state_file), list[Varying]()
    if not path.is_file():
        return found
    try:
        with settled(path) as curves:
            listed, new = curves.sources("catalogue", 3), curves.sources("new")
            expected = sum(o["false_new_expected"] or 0.0 for o in curves.observations() if o["counts"])
            varies = listed[np.asarray(listed["probability"]) < 1 / max(len(listed), 1)]
            for row in varies[np.argsort(-np.asarray(varies["eta"]))][:MOST_SHOWN]:
                said = f"eta {row['eta']:.3g}, intrinsic modulation {row['intrinsic']:.3f}, {row['n']} fluxes"
                found.append(_varying(curves, row, said))
            for row in new[np.argsort(-np.asarray(new["peak_sigma"]))][:MOST_SHOWN]:
                said = (
                    f"new, found in {row['n_detected']} of {row['n']} observations, {row['peak_sigma']:.1f} "
                    f"sigma at the most; {expected:.1f} detections of all are expected to be false"
                )
                found.append(_varying(curves, row, said))
    except Exception as error:
        # A part of the list would pass for the whole.
        fields = {"event": "lightcurves_failed"}
        logger.warning("no light curves on the page of all observations: %s", _said(error), extra=fields)
        return []
    return found


def _varying(curves: LightCurves, row: Any, said: str) -> Varying:
    bands = curves.curve(int(row["id"])).bands()
    curve = next(band for band in bands if band.freq_hz[0] == row["band_hz"])
    return Varying(
        name=str(row["name"]), said=said, mjd=curve.mjd, flux_jy=curve.flux_jy, error_jy=curve.error_jy
    )


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
                curves.drop(state.withdrawn_runs())
                known, published = curves.known(), state.published_runs()
                for observation in state.observations("done", "queued", "running", "failed"):
                    run_id = published.get(observation.id)
                    if run_id is None or run_id in known:
                        continue
                    record = state.record_of(run_id)
                    if record is None:
                        continue
                    try:
                        self._take_in(curves, observation, record)
                        taken += 1
                    except Exception as error:
                        # One list that cannot be read keeps no other from being taken in.
                        _warn(observation.name, error)
        except Exception as error:
            _warn("all observations", error)
        return taken

    def withdraw(self, run_ids: Sequence[str]) -> None:
        """Take out what runs measured, as of an observation that is forgotten or put back."""
        if not self.path.is_file():
            return
        try:
            with LightCurves(self.path, create=False) as curves:
                curves.drop(run_ids)
        except Exception as error:
            _warn("what was withdrawn", error)

    def _take_in(self, curves: LightCurves, observation: Observation, record: Mapping[str, Any]) -> None:
        folder = observation.folder / str(record.get("published", ""))
        if not folder.is_dir():
            raise InputError("no such folder of products", folder, "mount it; it is looked for again")
        curves.take_in(
            folder,
            identity=str(record.get("data_identity") or _identity(observation)),
            run_id=str(record["run_id"]),
            name=observation.name,
            verdict=str(record.get("quality", "")),
            finished=float(record.get("finished", 0.0)),
        )


def _identity(observation: Observation) -> str:
    """Return what tells an observation whose run does not say so: name and data, or else the folder."""
    if not observation.identity:
        return str(observation.folder)
    return f"{observation.name} {observation.identity}"


def _warn(name: str, error: Exception) -> None:
    fields = {"event": "lightcurves_failed", "observation": name}
    logger.warning("%s: not taken into the light curves: %s", name, _said(error), extra=fields)


def _said(error: Exception) -> str:
    known = isinstance(error, ContimgError)
    return str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
