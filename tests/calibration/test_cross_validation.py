from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.solve_settings import Grouping, SolveSettings
from dsa110_contimg.calibration.solver import MAX_ITERATIONS
from dsa110_contimg.visibilities import NoiseScale
from tests.calibration.conftest import DUMP_S, observe, random_gains, turned, weakly_joined


def solver_for(data, statistics=None, *, grouping=(True, True), combine_scans=True, min_snr=0.0, **axes):
    """Solver that may choose where `grouping`, per polarisation and all windows combined, is None."""
    statistics = statistics or data.statistics()
    ranked = tuple(range(data.gain.shape[1]))
    return GainSolver(
        statistics=statistics,
        axes=data.axes(**axes),
        settings=SolveSettings(NoiseScale(2.0), ranked, min_snr, min_baselines=4),
        groupings=Grouping.choices(*grouping, len(statistics.spw_ids)),
        combine_scans=combine_scans,
    )


def test_perfect_data_score_one(rng):
    data = observe(rng, np.ones((24, 20, 2), complex), n_channels=8, sigma=1.0)
    score = solver_for(data).unit_score()
    assert score.chi2_train == pytest.approx(1, abs=0.02)
    assert score.chi2_heldout == pytest.approx(1, abs=0.02)


def test_held_out_score_gets_worse_with_every_parameter_fitted_to_noise(rng):
    # No antenna varies, so each shorter interval only fits more noise.
    data = observe(rng, np.ones((24, 15, 2), complex), n_channels=4, sigma=2.0)
    solver = solver_for(data)
    words = ["inf", "120", "60", "30", "int"]
    for mode in ("p", "ap"):
        scores = [solver.scores(mode, w)["nearest"] for w in words]
        held, train = [s.chi2_heldout for s in scores], [s.chi2_train for s in scores]
        assert (np.diff(held) > 0).all()
        assert (np.diff(train) < 0).all()
        assert solver.best(mode, "auto").solint_s == 240
    amplitudes, phases = (solver.scores(mode, "int")["nearest"] for mode in ("ap", "p"))
    assert amplitudes.chi2_heldout > phases.chi2_heldout


def test_a_model_that_is_not_in_the_data_is_not_fitted(rng):
    data = observe(rng, random_gains(rng, 24, 15), sigma=1.0)
    data.vis[:] = rng.standard_normal(data.vis.shape) + 1j * rng.standard_normal(data.vis.shape)
    solver = solver_for(data)
    no_model = 1.0
    for mode in ("p", "ap"):
        best = solver.best(mode, "auto")
        assert best.score.chi2_heldout >= no_model - 0.01
        assert best.score.chi2_train < best.score.chi2_heldout


@pytest.mark.parametrize("drift_deg", [0.0, 60.0, 180.0])
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_chosen_interval_is_near_the_best_one_known_from_truth(rng, drift_deg, sigma):
    n_times, n_antennas = 24, 20
    t = np.linspace(0, 1, n_times)[:, None, None]
    start, turn = rng.uniform(-np.pi, np.pi, (2, n_antennas, 2))
    drift = np.radians(drift_deg) * np.sin(2 * np.pi * t + turn) / np.sqrt(2)
    data = observe(rng, np.exp(1j * (start + drift)), n_channels=4, sigma=sigma)
    solver = solver_for(data)

    def phase_error(word, how):
        every_antenna = replace(solver, min_heldout_snr=-np.inf)
        gain, _ = every_antenna.best("p", word).table.gains[0].at_times(data.times_s, how)
        return float(np.angle(turned(gain[:, :, 0], data.gain)).std())

    errors = [phase_error(w, how) for w in solver.intervals_to_try() for how in ("linear", "nearest")]
    best = solver.best("p", "auto")
    assert phase_error(best.solint, best.table.interpolation) < 1.25 * min(errors)


def test_drift_is_followed_and_noise_is_averaged(rng):
    def chosen(rate, sigma):
        t = np.arange(24)[:, None, None]
        gain = np.exp(1j * rate * t * rng.standard_normal((1, 20, 2)))
        return solver_for(observe(rng, gain, sigma=sigma)).best("p", "auto").solint_s

    assert chosen(0.5, 0.3) == DUMP_S
    assert chosen(0.0, 3.0) == 240


def test_candidates_are_distinct_and_reach_from_a_dump_to_everything(rng):
    data = observe(rng, random_gains(rng, 24, 5))
    assert [float(w) for w in solver_for(data).intervals_to_try()[:-1]] == [10, 20, 30, 40, 60, 80, 120, 160]
    assert solver_for(data).intervals_to_try()[-1] == "scan"
    single = solver_for(observe(rng, random_gains(rng, 1, 5)))
    assert len(single.intervals_to_try()) == 1
    split = solver_for(data, scan=np.arange(24) // 6, combine_scans=False).intervals_to_try()
    assert [float(w) for w in split] == [10, 20, 30, 40, 60, np.inf]


def test_phases_then_amplitudes(rng):
    gain = random_gains(rng, 24, 15, 0.2)
    data = observe(rng, gain, sigma=0.5)
    first = solver_for(data)
    phases = first.best("p", "auto")
    second = first.after(phases.table)
    # The score of what is left is the score of what was solved, at a free scale.
    assert second.unit_score().chi2_heldout == pytest.approx(
        first.fixed_score([phases.table]).chi2_heldout, rel=1e-9
    )
    both = second.best("ap", "auto")
    assert both.score.chi2_heldout < phases.score.chi2_heldout
    assert both.score.chi2_heldout == pytest.approx(1, abs=0.03)
    product, _ = gains_at_times([phases.table, both.table], [0], data.times_s, 15)
    np.testing.assert_allclose(turned(product[0], gain), 1, atol=0.15)


def test_leaving_an_antenna_out_is_no_gain(rng):
    # An antenna of pure noise: flagging it in a second round must not look like an improvement.
    data = observe(rng, random_gains(rng, 12, 10, 0.0), sigma=0.3)
    dead = (data.antenna1 == 4) | (data.antenna2 == 4)
    noise = rng.standard_normal((2, *data.vis[dead].shape)) * 0.3
    data.vis[dead] = noise[0] + 1j * noise[1]
    solver = solver_for(data, min_snr=6.0)
    phases = solver.best("p", "inf")
    assert phases.table.gains[0].flag[:, 4].all()
    after = solver.after(phases.table)
    assert after.unit_score().chi2_heldout == pytest.approx(phases.score.chi2_heldout, rel=0.01)
    again = after.best("p", "inf")
    assert again.score.chi2_heldout == pytest.approx(phases.score.chi2_heldout, rel=0.01)
    assert again.table.gains[0].flag[:, 4].all()


def test_a_single_channel_is_cross_validated_too(rng):
    data = observe(rng, np.ones((24, 15, 2), complex), n_channels=1, sigma=1.0)
    solver = solver_for(data)
    held = [solver.scores("p", word)["nearest"].chi2_heldout for word in ("inf", "60", "int")]
    assert (np.diff(held) > 0).all()
    assert held[0] == pytest.approx(1, abs=0.05)


def test_a_solution_says_what_it_is(rng):
    data = observe(rng, random_gains(rng, 24, 10), sigma=0.5)
    for antenna in (3, 7):  # the one without data, the other with half of them
        of_it = (data.antenna1 == antenna) | (data.antenna2 == antenna)
        data.weight[of_it & ((antenna == 3) | (data.time_index < 12))] = 0
    solution = solver_for(data).best("p", "20")
    assert (solution.mode, solution.solint, solution.solint_s) == ("p", "20", 20)
    assert solution.solved_fraction == pytest.approx(1 - 0.5 / 9)
    common = solver_for(data, grouping=(False, True), min_snr=3.0).best("ap", "inf")
    assert common.table.kind == "T Jones"
    assert common.solved_fraction == pytest.approx(1)
    assert common.median_snr > solution.median_snr


def test_a_gain_of_all_windows_is_given_under_each(rng):
    data = observe(rng, random_gains(rng, 4, 6), sigma=0.1)
    one = data.statistics()
    twice = {n: np.repeat(getattr(one, n), 2, axis=1) for n in ("cross", "model", "data", "count")}
    statistics = replace(one, spw_ids=(2, 5), **twice)
    freq = np.array([1.3e9, 1.5e9])
    joined = solver_for(data, statistics, freq_hz=freq).best("ap", "int").table
    assert list(joined.gains) == [2, 5]
    assert joined.gains[2] is joined.gains[5]
    per_spw = solver_for(data, statistics, freq_hz=freq, grouping=(True, False)).best("ap", "int").table
    assert [g.freq_hz[0] for g in per_spw.gains.values()] == [1.3e9, 1.5e9]


@pytest.mark.parametrize("shared", [True, False])
def test_polarisations_share_a_gain_where_that_predicts_better(rng, shared):
    gain = random_gains(rng, 12, 10)
    if shared:
        gain[..., 1] = gain[..., 0]
    found = solver_for(observe(rng, gain, sigma=4.0), grouping=(None, True)).best("p", "auto")
    assert found.grouping.per_polarization is not shared
    assert found.table.kind == ("T Jones" if shared else "G Jones")
    assert {trial.grouping.per_polarization for trial in found.trials} == {False, True}


@pytest.mark.parametrize("shared", [True, False])
def test_windows_share_a_gain_where_that_predicts_better(rng, shared):
    gains = [random_gains(rng, 12, 10) for _ in range(2)]
    first, second = (observe(rng, gains[0 if shared else k], sigma=3.0).statistics() for k in range(2))
    both = {
        n: np.concatenate([getattr(first, n), getattr(second, n)], axis=1)
        for n in ("cross", "model", "data", "count")
    }
    statistics = replace(first, spw_ids=(0, 1), **both)
    data = observe(rng, gains[0])
    solver = solver_for(data, statistics, grouping=(True, None), freq_hz=np.array([1.3e9, 1.5e9]))
    found = solver.best("p", "auto")
    assert found.grouping.combine_spw is shared
    assert (found.table.gains[0] is found.table.gains[1]) is shared
    # What is left after it is phase noise: a further solution is no better than none.
    left = solver.after(found.table)
    assert left.unit_score().chi2_heldout == pytest.approx(found.score.chi2_heldout, rel=0.02)


def test_predicted_signal_to_noise_is_that_of_the_solution(rng):
    data = observe(rng, np.ones((24, 15, 2), complex), n_channels=4, sigma=2.0)
    solver = solver_for(data)
    for word in ("int", "60", "inf"):
        assert solver.predicted_snr(word) == pytest.approx(solver.best("p", word).median_snr, rel=0.15)


def test_a_solution_reports_every_interval_that_was_tried(rng):
    data = observe(rng, np.ones((24, 15, 2), complex), n_channels=4, sigma=2.0)
    best = solver_for(data).best("p", "auto")
    assert min(best.trials, key=lambda t: t.score.expected).solint_s == best.solint_s == 240
    assert len({t.solint_s for t in best.trials}) > 5


def test_a_solution_says_how_its_iteration_ended(rng):
    data = observe(rng, random_gains(rng, 6, 10), sigma=0.5)
    solution = solver_for(data).best("p", "int")
    assert solution.converged_fraction == 1
    assert 1 < solution.iterations < MAX_ITERATIONS
    assert solution.convergence_note == ""
    hard = solver_for(weakly_joined(rng)).best("p", "int")
    assert hard.converged_fraction == 0.25
    assert hard.convergence_note == f"75.0 % not converged in {MAX_ITERATIONS} iterations, "


def test_groupings_begin_with_the_one_that_assumes_least_of_the_polarisations():
    def choices(*given):
        return [(g.per_polarization, g.combine_spw) for g in Grouping.choices(*given)]

    assert choices(None, None, 3) == [(True, True), (False, True), (True, False), (False, False)]
    assert choices(None, None, 1) == [(True, True), (False, True)]
    assert choices(False, False, 3) == [(False, False)]


def test_gains_of_each_window_after_gains_of_all(rng):
    """Solved for all windows together, what is left can still be solved for each."""
    gains = [random_gains(rng, 6, 10) for _ in range(2)]
    first, second = (observe(rng, g, sigma=0.1).statistics() for g in gains)
    names = ("cross", "model", "data", "count")
    both = {n: np.concatenate([getattr(first, n), getattr(second, n)], axis=1) for n in names}
    solver = solver_for(
        observe(rng, gains[0]), replace(first, spw_ids=(0, 1), **both), freq_hz=np.array([1.3e9, 1.5e9])
    )
    left = solver.after(solver.combine_spws().best("p", "inf").table).per_spw().best("ap", "inf")
    assert list(left.table.gains) == [0, 1]
    assert left.score.chi2_heldout == pytest.approx(
        solver.per_spw().best("ap", "inf").score.chi2_heldout, rel=0.02
    )


@pytest.mark.parametrize("mode", ["p", "ap"])
@pytest.mark.parametrize("shared", [True, False])
def test_solving_like_a_solution_gives_it_again(rng, mode, shared):
    data = observe(rng, random_gains(rng, 12, 10), n_channels=8, sigma=0.5)
    solver = solver_for(data, grouping=(shared, True))
    best = solver.best(mode, "60")
    again = solver.solve_like(best)
    assert (again.kind, again.interpolation) == (best.table.kind, best.table.interpolation)
    for spw, g in best.table.gains.items():
        np.testing.assert_array_equal(again.gains[spw].flag, g.flag)
        good = ~g.flag
        np.testing.assert_allclose(again.gains[spw].gain[good], g.gain[good], atol=1e-6)


def test_solving_like_a_solution_of_other_data_chooses_nothing_anew(rng):
    """Interval, and antennas that were of no use, are those of the solution, whatever the data would like."""
    still = observe(rng, random_gains(rng, 12, 10), n_channels=8, sigma=0.5)
    data = observe(rng, random_gains(rng, 12, 10), n_channels=8, sigma=0.5)
    like = solver_for(still).best("p", "int")
    assert solver_for(data).best("p", "auto").solint_s > like.solint_s
    unusable = like.heldout_snr.copy()
    unusable[:, 3] = -np.inf
    table = solver_for(data).solve_like(replace(like, heldout_snr=unusable))
    (gains,) = table.gains.values()
    assert len(gains.time_s) == 12
    assert gains.flag[:, 3].all()
    assert not np.delete(gains.flag, 3, axis=1).any()
    gain = np.delete(gains.gain[:, :, 0], 3, axis=1)
    true = np.delete(data.gain, 3, axis=1)
    assert np.abs(np.angle(turned(gain, true))).max() < 0.6
