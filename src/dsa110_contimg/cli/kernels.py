"""``contimg compile``: the numerical kernels, before the first observation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dsa110_contimg.cli.terminal import JsonFlag, QuietFlag, TerminalProgress, print_result
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.progress import Progress

__all__ = ["compile_command", "compile_kernels"]

T = TypeVar("T")

#: Small transits that between them pass through every kernel: all channels used, and channels averaged.
_COMMON: dict[str, Any] = {"random_phases": True, "min_mjy": 20.0, "dumps": 4, "new_jy": 0.3}
_OBSERVATIONS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"antennas": 12, "channels": 16}, {"average": "never", "catalog_mask": True}),
    ({"antennas": 16, "channels": 48, "spws": 4, "doubles": 0.2, "rfi": 0.003}, {"average": "always"}),
)


def compile_command(as_json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Compile the numerical kernels, so that no observation waits for it."""
    number = compile_kernels(TerminalProgress(quiet))
    said = f"{number} kernels compiled" if number else "all kernels were compiled already"
    print_result({"compiled": number}, [said], as_json, quiet)


class _Steps:
    """Progress that tells by a line what is compiled now; what is found of the observations is of no use."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._told = progress, set[str]()

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through under the bar of a step, which is told once."""
        if label not in self._told:
            self._told.add(label)
            self._progress.note(f"compiling: {label}")
        yield from self._progress.track(items, total, f"compiling: {label}")

    def note(self, text: str) -> None:
        """Keep it."""


def compile_kernels(progress: Progress) -> int:
    """Self-calibrate small observations, so that numba compiles every kernel and keeps it on disk.

    Compiled code is kept beside the package, or in the user's cache where that cannot be written;
    NUMBA_CACHE_DIR names another place. Later runs take it from there.

    Parameters
    ----------
    progress : Progress
        Where progress is reported.

    Returns
    -------
    int
        Kernels that were compiled; those that were there already are not counted.
    """
    # Imported here: the command line starts without numba.
    import numba.core.event as events
    import numpy as np

    from dsa110_contimg.catalogs import build_strips
    from dsa110_contimg.files import write_table
    from dsa110_contimg.selfcal.pointing_report import pointing_report
    from dsa110_contimg.selfcal.run import selfcal_ms
    from dsa110_contimg.simulate import simulate
    from dsa110_contimg.sky import AntennaBeams
    from dsa110_contimg.visibilities import open_measurement_set

    with (
        tempfile.TemporaryDirectory(prefix="contimg-compile-") as folder,
        events.install_recorder("numba:compile") as recorder,
    ):
        progress.note("compiling the numerical kernels: two minutes on two free cores, once")
        steps = _Steps(progress)
        for number, (observed, options) in enumerate(_OBSERVATIONS):
            ms = Path(folder) / str(number) / "o.ms"
            ms.parent.mkdir()
            simulate(ms, SimulationConfig(**_COMMON, **observed), progress=steps)
            build_strips("nvss", ms.parent / "o.catalog.ecsv", ms.parent / "catalogs")
            config = SelfCalConfig(catalog_dir=ms.parent / "catalogs", size=512, **options)
            # Offsets of the antennas, for what looks at the sky through beams of their own.
            names, offsets = open_measurement_set(ms).antennas.name, ms.parent / "pointing.ecsv"
            beams = AntennaBeams(offset_rad=np.full((len(names), 2), 1e-3))
            write_table(offsets, pointing_report(names, beams, None))
            selfcal_ms(ms, ms.parent / "out", config.with_options(pointing_file=offsets), progress=steps)
    # Not counted is what of numba's own functions they are made of.
    modules = [event.data["dispatcher"].py_func.__module__ for _, event in recorder.buffer if event.is_end]
    return sum(module.startswith("dsa110_contimg.") for module in modules)
