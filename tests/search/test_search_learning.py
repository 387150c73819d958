"""What more trials buy and how much a search promises too much."""

import numpy as np
import pytest
from search_world import box, fitted, measured

from quadmix.engine.threads import one_thread
from quadmix.rng import stream
from quadmix.search.learning import best_points, learning_curve, optimism, strongest
from quadmix.search.optimise import Effort
from quadmix.search.surrogate import fit_plain
from quadmix.search.swarm import combined

SLOPE = np.array([3.0, -2.0, 1.0, 0.5, 0.0, 0.0, 1.0, -1.0])
QUICK = Effort(steps=60, population=12)


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


def linear(points):
    return points @ SLOPE


def curve_of(count, *, noise, seed=0, kind="ridge", truth=linear):
    known, objective = measured(box(8), {"a": truth}, count, seed=seed, noise=noise)
    cross, _ = fitted(known, objective, kind)
    return learning_curve(known.swarm, cross, objective, seed), known, cross, objective


def test_in_a_linear_world_the_error_falls_with_the_number_of_trials():
    """Mean of eight swarms, whose points are a quarter, half, three quarters and all of four fifths."""
    curves = [curve_of(80, noise=0.5, seed=s)[0] for s in range(8)]
    assert [p.trials for p in curves[0].points] == [16, 32, 48, 64]
    mean = np.mean([[p.rmse for p in c.points] for c in curves], axis=0)
    assert (np.diff(mean) < 0).all()
    assert mean[0] > 1.1 * mean[-1]
    assert 0.45 < mean[-1] < 0.7, "not below the noise of a trial"


def test_the_forecast_is_for_a_hundred_more_and_never_above_the_last_point():
    for seed in range(6):
        for truth in (linear, lambda p: 0 * p[:, 0]):
            curve = curve_of(60, noise=0.5, seed=seed, truth=truth)[0]
            last = curve.points[-1]
            assert curve.forecast.trials == last.trials + 100 == 148
            assert curve.forecast.rmse <= last.rmse
            assert curve.forecast.r2 >= last.r2


def test_the_forecast_comes_near_what_more_trials_truly_give():
    """Mean squared error of eight swarms of 30 trials, against swarms of 124 / 0.8 = 155 trials."""
    few = [curve_of(30, noise=0.5, seed=s)[0] for s in range(8)]
    many = [curve_of(155, noise=0.5, seed=100 + s)[0].points[-1].rmse ** 2 for s in range(8)]
    forecast = np.mean([c.forecast.rmse**2 for c in few])
    last = np.mean([c.points[-1].rmse ** 2 for c in few])
    assert few[0].forecast.trials == many_trials(155)
    assert abs(forecast - np.mean(many)) < 0.6 * (last - np.mean(many))


def many_trials(count):
    return count * 4 // 5


def test_the_last_point_is_the_cross_validation_itself():
    curve, known, cross, objective = curve_of(50, noise=0.3)
    error = cross.kinds["a"]["ridge"].mean - combined(objective, known.swarm.losses)
    assert curve.points[-1].rmse == pytest.approx(np.sqrt((error**2).mean()))
    truth = combined(objective, known.swarm.losses)
    assert curve.points[-1].r2 == pytest.approx(1 - (error**2).mean() / truth.var())


def test_sizes_at_which_the_member_cannot_be_fitted_are_left_out_and_then_there_is_no_forecast():
    """A quarter of 12 is below the 8 trials that any member needs, so is half."""
    curve = curve_of(16, noise=0.3)[0]
    assert [p.trials for p in curve.points] == [9, 12]
    assert curve.forecast is None
    tiny = curve_of(8, noise=0.3)[0]
    assert [p.trials for p in tiny.points] == [6]


def test_the_strongest_member_has_the_largest_weight_over_all_targets():
    known, objective = measured(
        box(3), {"a": lambda p: np.sin(6 * p[:, 0]), "b": lambda p: np.cos(5 * p[:, 1])}, 40
    )
    cross, _ = fitted(known, objective, "auto")
    total = {
        k: sum(cross.weights(t, y)[k] for t, y in known.swarm.losses.items()) for k in cross.members
    }  # fmt: skip
    assert strongest(known.swarm, cross) == max(total, key=total.get)
    assert strongest(known.swarm, cross).startswith("gp"), "waves are not linear"


@pytest.mark.parametrize(("kind", "most"), [("ridge", 2.0), ("gp-isotropic", 4.0)])
def test_on_pure_noise_every_promise_is_too_much(kind, most):
    """There is nothing to gain: what the searched half promises, the other half does not confirm."""
    found = []
    for seed in range(6):
        known, objective = measured(box(5), {"a": lambda p: 0 * p[:, 0]}, 40, seed=seed, noise=1.0)
        cross, _ = fitted(known, objective, kind)
        found.append(optimism(known, cross, objective, seed))
    gaps = [f.optimism for f in found]
    assert min(gaps) >= 0
    assert 0.1 < np.mean(gaps) < most
    for f in found:
        assert f.optimism == pytest.approx(f.judged - f.promised)
        assert f.optimism == pytest.approx(np.mean(f.halves))
        assert len(f.halves) == 2


def test_where_a_surrogate_is_right_it_promises_little_too_much():
    known, objective = measured(box(5), {"a": lambda p: p @ SLOPE[:5]}, 60, noise=0.05)
    cross, _ = fitted(known, objective)
    spread = float(known.swarm.losses["a"].std())
    assert abs(optimism(known, cross, objective, 0).optimism) < 0.1 * spread


def test_halves_that_a_member_cannot_be_fitted_on_give_no_number():
    known, objective = measured(box(3), {"a": lambda p: p[:, 0]}, 15, noise=0.1)
    cross, _ = fitted(known, objective)
    assert optimism(known, cross, objective, 0) is None
    known, objective = measured(box(3), {"a": lambda p: p[:, 0]}, 16, noise=0.1)
    assert optimism(known, fitted(known, objective)[0], objective, 0) is not None


def test_the_best_points_are_near_the_true_minimum_and_the_mean_of_the_runs_leads():
    def truth(p):
        return ((p - 0.3) ** 2).sum(1)

    known, objective = measured(box(3), {"a": truth}, 60, noise=0.01)
    _, model = fitted(known, objective, "gp")
    found = best_points(known, model, 3, 7, QUICK)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found[0], found[1:].mean(0))
    assert truth(found[:1])[0] < 0.02
    values = model.predict(known.space.table(found[1:]))[0].mean
    assert (np.diff(values) >= -1e-9).all()
    np.testing.assert_array_equal(found, best_points(known, model, 3, 7, QUICK))


def test_the_mean_of_runs_that_ended_in_different_valleys_does_not_lead():
    """Two minima at opposite corners: between them is a ridge, which the surrogate itself sees."""

    def truth(p):
        return -np.abs(p.sum(1) - 1.0)

    known, objective = measured(box(2), {"a": truth}, 80, noise=0.001)
    _, model = fitted(known, objective, "gp")
    ended = set()
    for seed in range(8):
        found = best_points(known, model, 4, seed, QUICK)
        assert truth(found[:1])[0] < -0.9
        ended |= {bool(p.sum() > 1) for p in found[:4]}
    assert ended == {True, False}


def test_the_refit_of_a_size_is_a_fit_on_that_many_trials_outside_the_fold():
    """The learning curve by hand, with the permutation that the stream gives."""
    curve, known, cross, _ = curve_of(40, noise=0.3, seed=3)
    place, swarm = stream(3, "learning").permutation(40), known.swarm
    mean = np.empty(40)
    for fold in range(5):
        rows = [i for i in place if cross.folds[i] != fold][:16]
        model = fit_plain("ridge", swarm.table.rows(np.array(rows)), swarm.losses["a"][rows])
        mean[cross.folds == fold] = model.predict(swarm.table.rows(cross.folds == fold)).mean
    point = next(p for p in curve.points if p.trials == 16)
    assert point.rmse == pytest.approx(np.sqrt(((mean - swarm.losses["a"]) ** 2).mean()))
