"""Run a CASA task in CASA's own Python, apart from the package's environment.

The parent sends the task's name and arguments as JSON to this same file run by the other Python, in a
scratch folder where CASA may drop its logs. Apart also because a bad table aborts CASA's whole process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class CasaError(RuntimeError):
    """A CASA task failed; the message ends with the tail of its log."""


def casa_python() -> Path:
    """Python of CASA's environment: ``CONTIMG_CASA_PYTHON``, else that of ``make casa``."""
    default = HERE.parents[1] / ".venv-casa" / "bin" / "python"
    return Path(os.environ.get("CONTIMG_CASA_PYTHON") or default)


def run_task(task: str, workdir: Path, timeout_s: float = 600.0, **kwargs: Any) -> Any:
    """Run one task of ``casatasks``.

    Parameters
    ----------
    task : str
        Name in ``casatasks``, for example ``"gaincal"``.
    workdir : Path
        Scratch folder, made if needed; relative names in `kwargs` mean files in it.
    timeout_s : float
        After so many seconds the task is killed.
    **kwargs
        The task's arguments; a Path is passed as its string.

    Returns
    -------
    object
        What the task returned, arrays as lists and complex numbers as pairs.

    Raises
    ------
    CasaError
        The task raised, aborted or took too long.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    answer = workdir / "answer.json"
    answer.unlink(missing_ok=True)
    # HOME: no user's ~/.casa may change what CASA does here.
    env = os.environ | {"CASASITECONFIG": str(HERE / "casasiteconfig.py"), "HOME": str(workdir)}
    try:
        child = subprocess.run(
            [casa_python(), __file__, answer],
            input=json.dumps([task, kwargs], default=str),
            cwd=workdir,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CasaError(f"{task}: no end after {timeout_s:g} s\n{_log_tail(workdir)}") from error
    if child.returncode != 0 or not answer.is_file():
        raise CasaError(f"{task}: exit {child.returncode}\n{child.stderr[-2000:]}\n{_log_tail(workdir)}")
    return json.loads(answer.read_text("utf-8"))


def _log_tail(workdir: Path, lines: int = 30) -> str:
    logs = sorted(workdir.glob("casa-*.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "(no CASA log)"
    return "\n".join(logs[-1].read_text("utf-8", "replace").splitlines()[-lines:])


def _plain(value: Any) -> Any:
    """Make JSON of what CASA returns: arrays, numpy scalars, complex numbers, integer keys."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _child(answer: Path) -> None:
    task, kwargs = json.load(sys.stdin)
    import casatasks

    answer.write_text(json.dumps(_plain(getattr(casatasks, task)(**kwargs))), "utf-8")


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
