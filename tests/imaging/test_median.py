"""Medians by counting, against numpy's."""

import numpy as np
import pytest

from dsa110_contimg.imaging.median import FEW, median_of


@pytest.mark.parametrize("n", [1, 2, 999, FEW + 1, FEW + 2, 300_001])
@pytest.mark.parametrize("kind", ["noise", "few values", "positive", "negative", "wide"])
def test_medians_are_numpys(n, kind):
    rng = np.random.default_rng(n)
    values = rng.normal(size=n).astype(np.float32)
    if kind == "few values":
        values = np.round(values)
    elif kind in ("positive", "negative"):
        values = np.abs(values) * np.float32(1 if kind == "positive" else -1)
    elif kind == "wide":
        values = (np.sign(values) * 10 ** (7 * values.astype(np.float64))).astype(np.float32)
        values[0] = np.inf
    assert median_of(values) == np.median(values)


@pytest.mark.parametrize("n", [10, FEW + 10])
def test_what_is_not_a_number_has_no_median(n):
    values = np.zeros(n, dtype=np.float32)
    values[n // 3] = np.nan
    assert np.isnan(median_of(values))
