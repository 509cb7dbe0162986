"""What gains take, against gains that were solved by an iteration of the test's own."""

import numpy as np
import pytest

from dsa110_contimg.calibration.gain_share import GainFreedom, SourceOverlap, gain_freedom, gain_share
from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.calibration.uv_fit import residual_moments, solve_moments
from dsa110_contimg.predict import predict_reference
from dsa110_contimg.visibilities import NoiseScale

N_ANTENNAS, N_DUMPS, N_SOURCES = 7, 4, 5
FREQ = np.linspace(1.30e9, 1.32e9, 3)


@pytest.fixture
def scene():
    rng = np.random.default_rng(4)
    place = rng.uniform(-300, 300, (N_DUMPS, N_ANTENNAS, 2))
    first, second = np.triu_indices(N_ANTENNAS, 1)
    uvw = np.concatenate([np.pad(p[second] - p[first], ((0, 0), (0, 1))) for p in place])
    lm = rng.uniform(-0.01, 0.01, (N_SOURCES, 2))
    lmn = np.column_stack([lm, np.sqrt(1 - (lm**2).sum(axis=1)) - 1])
    flux = np.repeat(np.array([[3.0], [2.0], [1.5], [1.0], [0.3]]), FREQ.size, axis=1)
    each = np.stack([predict_reference(uvw, FREQ, lmn[[k]], flux[[k]]) for k in range(N_SOURCES)])
    dump = np.repeat(np.arange(N_DUMPS), first.size)
    return uvw, lmn, flux, each, dump, np.tile(first, N_DUMPS), np.tile(second, N_DUMPS)


def solved(data, model, intervals, dump, i, j, *, phases_only=False):
    """Gains by alternating least squares (StEFCal), as products for each visibility."""
    out = np.ones(len(data), dtype=complex)
    for interval in np.unique(intervals):
        rows = intervals[dump] == interval
        g = np.ones(N_ANTENNAS, dtype=complex)
        for k in range(800):
            new = g.copy()
            for a in range(N_ANTENNAS):
                one, two = rows & (i == a), rows & (j == a)
                d = np.concatenate([data[one], np.conj(data[two])])
                z = np.concatenate(
                    [model[one] * np.conj(g[j[one]])[:, None], np.conj(model[two] * g[i[two]][:, None])]
                )
                new[a] = (d * np.conj(z)).sum() / (np.abs(z) ** 2).sum()
                if phases_only:
                    new[a] /= abs(new[a])
            g = (g + new) / 2 if k % 2 else new
        out[rows] = g[i[rows]] * np.conj(g[j[rows]])
    return out[:, None]


def gains_of(times):
    shape, zeros = (len(times), 3, 1, 2), np.zeros(len(times), dtype=int)
    return Gains(
        time_s=times,
        interval_s=np.full(len(times), 10.0),
        freq_hz=np.array([1.4e9]),
        gain=np.ones(shape, complex),
        flag=np.zeros(shape, bool),
        error=np.zeros(shape),
        snr=np.ones(shape),
        reference_antenna=zeros,
        field_id=zeros,
        scan=zeros,
    )


@pytest.mark.parametrize("amplitudes", [False, True])
def test_what_is_left_of_a_change_is_foretold(scene, amplitudes):
    uvw, lmn, flux, each, dump, i, j = scene
    model = each.sum(axis=0)
    one = np.ones(model.shape, dtype=np.float32)
    overlap = SourceOverlap(N_SOURCES, 1, N_DUMPS, N_ANTENNAS)
    pointing, every_row = np.zeros(len(uvw), dtype=np.int64), np.ones(len(uvw), dtype=bool)
    single, solver_model = np.float32(flux)[None], model.astype(np.complex64)
    overlap.add(0, dump, i, j, uvw, FREQ, lmn, single, pointing, solver_model, one, every_row)
    every, twos = np.arange(N_DUMPS), np.arange(N_DUMPS) // 2
    taken = gain_share(
        overlap, GainFreedom(twos if amplitudes else every, twos if amplitudes else None, False)
    )
    assert 0.05 < taken[3, 3] < 0.7
    for k in (1, 3, 4):
        sky = model + 0.01 * each[k]
        intervals = twos if amplitudes else every
        gains = solved(sky, model, intervals, dump, i, j, phases_only=not amplitudes)
        left = sky / gains - model
        found = (left * np.conj(each[k])).real.sum() / (0.01 * (np.abs(each[k]) ** 2).sum())
        # The scale that all gains share is not counted as taken: here it is.
        common = 0.0
        if amplitudes:
            common = (each[k] * np.conj(model)).real.sum() ** 2
            common /= (np.abs(model) ** 2).sum() * (np.abs(each[k]) ** 2).sum()
        assert found == pytest.approx(1 - taken[k, k] - common, abs=0.01)
        assert taken[k, k] > 0.02


def test_fluxes_come_back_whole_with_errors_that_grow(scene):
    """Gains were solved for another sky; the joint solution undoes what they took."""
    uvw, lmn, flux, each, dump, i, j = scene
    model = each.sum(axis=0)
    one = np.ones(model.shape, dtype=np.float32)
    change = np.array([0.0, 0.02, -0.03, 0.04, 0.05])
    sky = model + np.einsum("k,krc->rc", change, each)
    every = np.arange(N_DUMPS)
    left = (sky / solved(sky, model, every, dump, i, j, phases_only=True) - model).astype(np.complex64)
    overlap = SourceOverlap(N_SOURCES, 1, N_DUMPS, N_ANTENNAS)
    pointing, every_row = np.zeros(len(uvw), dtype=np.int64), np.ones(len(uvw), dtype=bool)
    overlap.add(
        0,
        dump,
        i,
        j,
        uvw,
        FREQ,
        lmn,
        np.float32(flux)[None],
        pointing,
        model.astype(np.complex64),
        one,
        every_row,
    )
    taken = gain_share(overlap, GainFreedom(every, None, False))
    moments = residual_moments(uvw, FREQ, lmn, flux, left, one)
    parts = np.concatenate([each.reshape(N_SOURCES, -1).real, each.reshape(N_SOURCES, -1).imag], axis=1)
    coupling = np.zeros((3 * N_SOURCES, 3 * N_SOURCES))
    coupling[:N_SOURCES, :N_SOURCES] = parts @ parts.T
    coupling[range(N_SOURCES, 3 * N_SOURCES), range(N_SOURCES, 3 * N_SOURCES)] = 1.0
    options = {"prior_flux": 10.0, "prior_position_rad": 1e-9}
    naive, small = solve_moments(moments, NoiseScale(1e-6), coupling, **options)
    whole, large = solve_moments(moments, NoiseScale(1e-6), coupling, taken=taken, **options)
    np.testing.assert_allclose(whole[:, 0], change, atol=0.003)
    assert np.abs(naive[:, 0] - change).max() > 0.008
    assert (large[:, 0] > 1.02 * small[:, 0]).all()


def test_sources_that_gains_leave_nothing_of_have_no_joint_solution():
    """Two sources that lie nearly on each other, of each of which a third is taken."""
    coupling = np.eye(9)
    coupling[0, 1] = coupling[1, 0] = 0.9
    moments = np.tile([1.0, 0, 0, 1.0, 1.0, 0.0, 1.0], (3, 1))
    with pytest.raises(np.linalg.LinAlgError):
        solve_moments(moments, NoiseScale(1e-4), coupling, prior_flux=3.0, taken=0.3 * np.eye(3))


@pytest.mark.parametrize("shared", [True, False])
def test_gains_that_windows_share_stay_shared(shared):
    """Also after they were multiplied: a table with a gain for each window could take more of a source."""
    times = np.arange(4) * 10.0
    one = gains_of(times)
    table = GainTable(kind="G Jones", gains={0: one, 1: one if shared else gains_of(times)}, label="ap")
    for some in (table, table.times(1.02)):
        freedom = gain_freedom([some], times)
        assert freedom.per_spw is not shared
        assert list(freedom.phase) == list(freedom.amplitude) == [0, 1, 2, 3]


def test_windows_that_share_gains_are_summed_at_once(scene):
    uvw, lmn, _, each, dump, i, j = scene
    rng = np.random.default_rng(8)
    freq = np.concatenate([FREQ, FREQ + 33e6])
    fluxes = np.float32(rng.uniform(0.5, 2, (2, N_SOURCES, freq.size)))
    model = np.tile(each.sum(axis=0), 2).astype(np.complex64)
    weight = rng.uniform(0.5, 2, model.shape).astype(np.float32)
    pointing, measured = dump % 2, rng.random(len(uvw)) < 0.7
    found = []
    for windows in ([slice(0, 3), slice(3, 6)], [slice(0, 6)]):
        overlap = SourceOverlap(N_SOURCES, 1, N_DUMPS, N_ANTENNAS)
        for w in windows:
            seen = np.ascontiguousarray(fluxes[:, :, w])
            rows = dump, i, j, uvw, freq[w], lmn, seen, pointing
            overlap.add(0, *rows, model[:, w], weight[:, w], measured)
        found.append(overlap)
    for name in ("sums", "power", "own"):
        apart, together = (getattr(overlap, name) for overlap in found)
        np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5 * np.abs(apart).max())
    exact = (weight[measured].astype(float)[:, None] * fluxes[pointing[measured]].astype(float) ** 2).sum(
        (0, 2)
    )
    np.testing.assert_allclose(found[0].own, exact, rtol=1e-6)
