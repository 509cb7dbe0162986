"""The completeness estimate, on counts of which it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.completeness import completeness_limit


def fluxes(n: int, seed: int) -> np.ndarray:
    return np.asarray(1.0 * np.random.default_rng(seed).uniform(1e-6, 1, n) ** (-1 / 0.9))


@pytest.mark.parametrize("seed", range(3))
def test_a_survey_that_fades_out(seed: int) -> None:
    # NVSS: half the sources of 2.5 mJy, nearly all of 3.4 mJy.
    flux = fluxes(400_000, seed)
    rng = np.random.default_rng(seed + 10)
    seen = rng.uniform(size=len(flux)) < 1 / (1 + np.exp(-(flux - 2.5) / 0.25))
    assert completeness_limit(flux[seen]) == pytest.approx(3.05, abs=0.35)


def test_a_sharp_limit_is_the_limit() -> None:
    flux = fluxes(400_000, 5)
    assert completeness_limit(flux[flux > 10.0]) == pytest.approx(10.0, rel=0.06)


def test_too_few_sources_tell_nothing() -> None:
    assert completeness_limit(fluxes(100, 1)) is None
    assert completeness_limit(np.full(1000, 5.0)) is None


@pytest.mark.shared_data
def test_real_bright_sources(shared_data: Path) -> None:
    table = read_catalog(shared_data / "catalogues" / "nvss_50mjy.csv.gz")
    # Cut at a peak of 50 mJy, and known to be incomplete up to about 55.
    assert completeness_limit(np.asarray(table["flux_mjy"])) == pytest.approx(58.0, abs=8.0)
