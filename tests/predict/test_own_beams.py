"""What antennas see through beams of their own: against a float64 sum over antennas, sources and channels."""

import numpy as np
import pytest

from dsa110_contimg.predict import predict_own_beams
from dsa110_contimg.predict.direct import predict_reference
from dsa110_contimg.sky import AiryBeam, AntennaBeams, lmn_from_radec, radec_from_lm
from dsa110_contimg.sky.directions import angular_separation

POINTING = (2.0, 0.95)
BEAM, WIDTH_HZ = AiryBeam(4.65, 0.4), 244140.625


def drawn(n_sources, n_antennas, seed=0):
    rng = np.random.default_rng(seed)
    l, m = rng.uniform(-0.05, 0.05, (2, n_sources))  # noqa: E741
    ra, dec = radec_from_lm(l, m, *POINTING)
    offsets = np.radians(rng.normal(0, 0.3, (n_antennas, 2)))
    place = rng.normal(size=(n_antennas, 3)) * [400, 400, 5]
    first, second = np.triu_indices(n_antennas, 1)
    return ra, dec, rng.uniform(-0.2, 1, n_sources), offsets, place[second] - place[first], first, second


def exact(ra, dec, offsets, freq):
    """Voltage patterns by the separation of each source from each antenna's axis, float64."""
    out = []
    for east, north in offsets:
        at = radec_from_lm(east, north, *POINTING)
        out.append(BEAM.voltage(angular_separation(ra, dec, *at), freq))
    return np.moveaxis(np.array(out), 0, 2)


def test_voltages_are_those_of_beams_that_point_elsewhere():
    ra, dec, _, offsets, *_ = drawn(300, 7)
    freq = np.array([1.31e9, 1.4e9, 1.5e9])
    got = AntennaBeams(offset_rad=offsets).voltages(BEAM, lmn_from_radec(ra, dec, *POINTING), freq)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact(ra, dec, offsets, freq), atol=1e-6)


def test_behind_the_dish_nothing_is_seen():
    behind = np.array([[0.0, 0.0, -2.0], [0.6, 0.0, -1.8]])
    seen = AntennaBeams(offset_rad=np.zeros((2, 2))).voltages(BEAM, behind, np.array([1.4e9]))
    assert not seen.any()


@pytest.mark.parametrize("count", [1, 4, 24])
def test_the_difference_of_beams_is_that_of_a_float64_sum(count):
    ra, dec, flux, offsets, uvw, first, second = drawn(150, 9)
    centre = 1.36e9 + count * WIDTH_HZ * np.arange(6)
    lmn, n = lmn_from_radec(ra, dec, *POINTING), len(ra)
    major = np.where(np.arange(n) % 5 == 0, 2e-4, 0.0)
    shape = major, major / 2, np.full(n, 0.4)
    got = predict_own_beams(
        uvw,
        first,
        second,
        centre,
        np.full(centre.size, count),
        WIDTH_HZ,
        lmn,
        AntennaBeams(offset_rad=offsets).voltages(BEAM, lmn, centre),
        flux[:, None] * BEAM.power(angular_separation(ra, dec, *POINTING), centre),
        np.repeat(flux[:, None], centre.size, axis=1),
        *shape,
    )
    channels = (centre[:, None] + WIDTH_HZ * (np.arange(count) - (count - 1) / 2)).reshape(-1)
    voltage, common = exact(ra, dec, offsets, channels), exact(ra, dec, np.zeros((1, 2)), channels)
    want = np.zeros((len(uvw), channels.size), dtype=complex)
    for k, (p, q) in enumerate(zip(first, second, strict=True)):
        seen = flux[:, None] * (voltage[:, :, p] * voltage[:, :, q] - common[:, :, 0] ** 2)
        want[k] = predict_reference(uvw[k : k + 1], channels, lmn, seen, *shape)[0]
    want = want.reshape(len(uvw), centre.size, count).mean(axis=2)
    # Wide bins: the slope of the difference within a bin is left out, as the Notes say.
    assert np.abs(got - want).max() < (3e-6 if count == 1 else 2e-4) * np.abs(flux).sum()
