"""CASA and the real observations, for comparing the package with both."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from judge.casa import casa_python, run_task
from tests.conftest import ngc5921_caltables, ngc5921_crosscal, ngc5921_raw, shared_data

__all__ = ["casa", "ngc5921_caltables", "ngc5921_crosscal", "ngc5921_raw", "shared_data"]


@pytest.fixture
def casa(tmp_path: Path) -> Callable[..., Any]:
    """Run ``casa("gaincal", vis=..., ...)`` in ``tmp_path / "casa"``."""
    if not casa_python().is_file():
        pytest.fail(f"no CASA environment at {casa_python()}; run: make judge")
    return partial(run_task, workdir=tmp_path / "casa")
