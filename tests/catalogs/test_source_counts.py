"""Source counts against what surveys list."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.catalogs.source_counts import counts_above, differential_counts, flux_above

SQ_DEG = np.radians(1) ** 2


@pytest.mark.parametrize(
    ("flux_jy", "within"), [(0.06, 0.1), (0.1, 0.1), (0.3, 0.15), (0.5, 0.15), (1.0, 0.15)]
)
def test_nvss_lists_as_many(shared_data: Path, flux_jy: float, within: float) -> None:
    with gzip.open(shared_data / "catalogues" / "nvss_50mjy.csv.gz", "rt") as stream:
        dec, peak = np.loadtxt(stream, delimiter=",", skiprows=1, usecols=(1, 2), unpack=True)
    area = 2 * np.pi * (1 + np.sin(np.radians(40)))
    listed = ((dec > -40) & (peak > flux_jy)).sum() / area
    assert counts_above(flux_jy) == pytest.approx(listed, rel=within)


def test_faint_counts_are_those_of_nvss_at_its_limit() -> None:
    # About 50 sources per square degree above 2.5 mJy (Condon et al. 1998).
    assert counts_above(0.0025) * SQ_DEG == pytest.approx(50, rel=0.15)


def test_integrals_are_those_of_the_differential_counts() -> None:
    flux = np.geomspace(0.01, 10.0, 20_000)
    counts = differential_counts(flux)
    assert counts_above(0.01) == pytest.approx(np.trapezoid(counts, flux), rel=1e-3)
    total, squared = flux_above(0.01)
    assert total == pytest.approx(np.trapezoid(counts * flux, flux), rel=1e-3)
    assert squared == pytest.approx(np.trapezoid(counts * flux**2, flux), rel=1e-3)
    assert counts_above(11.0) == 0.0
