import numpy as np
import pytest

from dsa110_contimg.pipeline.correction import BY_VISIBILITIES, FOLLOWS, TELLS, Correction, correct
from dsa110_contimg.pipeline.ensemble import EnsembleFluxes, solve_ensemble

N, DAYS = 60, 40


def drawn(seed=1):
    """Draw 40 days of 60 sources, three of which vary; scales off by a tenth, pointings by one error."""
    rng = np.random.default_rng(seed)
    true, error = rng.uniform(0.5, 2, N), 0.02
    scale, pointing = 1 + 0.1 * rng.standard_normal(DAYS), rng.standard_normal((DAYS, 2))
    lean = 0.05 * rng.uniform(-1, 1, (N, 2))
    factor = np.ones((DAYS, N))
    factor[:, :3] += rng.uniform(0, 2, (DAYS, 3))
    flux = true * factor * scale[:, None] * np.exp(pointing @ lean.T) + error * rng.standard_normal((DAYS, N))
    day, source = np.divmod(np.arange(DAYS * N), N)
    fluxes = EnsembleFluxes(
        observation=day,
        source=source,
        flux=flux.ravel(),
        error=np.full(DAYS * N, error),
        catalog=(true * (1 + 0.1 * rng.standard_normal(N)))[source],
        lean=lean[source],
        by_visibilities=np.ones(DAYS * N, dtype=bool),
    )
    return fluxes, scale, pointing


def corrected(fluxes, found):
    day = fluxes.observation
    values = found.offset, found.covariance, found.chi2, found.dof, found.times
    by = Correction(**dict(zip(("offset", "covariance", "chi2", "dof", "times"), (v[day] for v in values),
                               strict=True)), noise=np.ones((day.size, 2)))  # fmt: skip
    bits = np.full(day.size, TELLS + FOLLOWS + BY_VISIBILITIES)
    of = found.log_reference[fluxes.source], found.weight[fluxes.source]
    return correct(fluxes.flux, fluxes.error, 0 * fluxes.flux, fluxes.lean, bits, by, *of)


def test_scales_and_pointings_come_back_beside_variables():
    fluxes, scale, pointing = drawn()
    found = solve_ensemble(fluxes, DAYS, N)
    off = found.offset[:, 0] - np.log(scale)
    assert np.std(off) < 2 * np.sqrt(found.covariance[:, 0, 0]).mean()
    u = found.offset[:, 1:] - pointing
    assert np.std(u - u.mean(axis=0)) == pytest.approx(np.sqrt(found.covariance[:, 1, 1]).mean(), rel=0.3)
    assert np.flatnonzero(np.isnan(found.weight)).tolist() == [0, 1, 2]


def test_no_source_is_judged_by_what_it_told_of_the_scale():
    widths = []
    for seed in range(4):
        fluxes, _, _ = drawn(seed)
        x = corrected(fluxes, solve_ensemble(fluxes, DAYS, N))
        flux, error = (v.reshape(DAYS, N)[:, 3:] for v in (x.flux, x.error))
        mean = np.average(flux, axis=0, weights=1 / error**2)
        widths.append(np.std((flux - mean) / error) * np.sqrt(DAYS / (DAYS - 1)))
    assert np.mean(widths) == pytest.approx(1, abs=0.03)


def test_an_observation_that_scatters_more_has_larger_errors():
    fluxes, _, _ = drawn()
    rng = np.random.default_rng(8)
    some = fluxes.observation == 7
    fluxes.flux[some] += 0.06 * rng.standard_normal(N)
    x = corrected(fluxes, solve_ensemble(fluxes, DAYS, N))
    assert np.median(x.stat[some] / x.flux[some]) > 2.3 * np.median(x.stat[~some] / x.flux[~some])


def test_the_catalogue_holds_what_shares_nothing_else():
    none = np.zeros(0, dtype=int)
    empty = EnsembleFluxes(observation=none, source=none, flux=0.0 * none, error=0.0 * none,
                           catalog=0.0 * none, lean=np.zeros((0, 2)), by_visibilities=none > 0)  # fmt: skip
    found = solve_ensemble(empty, 2, 0)
    assert (found.offset == 0).all()
    assert np.sqrt(found.covariance[:, 0, 0]) == pytest.approx([0.3, 0.3])
