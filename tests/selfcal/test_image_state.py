"""What a quick image does without."""

import numpy as np
import pytest

from dsa110_contimg.imaging import StokesI
from dsa110_contimg.selfcal.image_state import _most_telling


def chunk(rows, weight):
    shape = (rows, 4)
    return StokesI(
        np.ones((rows, 3)), np.arange(4) + 1e9, np.ones(shape, np.complex64), np.full(shape, weight, "f4")
    )


@pytest.mark.parametrize(
    ("chunks", "kept"),
    [
        # As averages of core baselines and single channels of long ones.
        ([(100, 8.0), (800, 0.3)], [100]),
        ([(100, 8.0), (100, 6.0), (50, 5.0)], [100, 100, 50]),
        # They hold half of the weight.
        ([(100, 8.0), (800, 1.0)], [100, 800]),
        ([(100, 0.0)], [100]),
    ],
)
def test_visibilities_of_low_weight_are_left_out_if_little_is_lost(chunks, kept):
    given = [chunk(*c) for c in chunks]
    left, share = _most_telling(given)
    assert [len(c.vis) for c in left] == kept
    weight = sum(rows * w for rows, w in chunks)
    expected = sum(rows * w for rows, w in chunks if rows in kept) / weight if weight else 1.0
    assert share == pytest.approx(expected)
