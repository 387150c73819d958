"""Batches test the surrogate's promises: distinct, allowed, where it is best or least known."""

import numpy as np
import pytest
from search_world import box, fitted, measured

from quadmix.engine.threads import one_thread
from quadmix.search.adaptive import (
    FIRST,
    Known,
    barred,
    batch_sizes,
    best_allowed,
    improvement,
    next_batch,
)
from quadmix.search.model import Model
from quadmix.search.optimise import Effort
from quadmix.search.space import ShareBounds, ShareSpace
from quadmix.search.surrogate import LEAST_ANY, Predicted
from quadmix.search.swarm import check_swarm, make_objective
from quadmix.types import Objective

SMALL = Effort(steps=15, population=8, sigma=0.2)


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


class Says:
    """A surrogate that says what functions of the table's values say."""

    def __init__(self, mean, stderr):
        self.centre, self.stderr = mean, stderr

    def predict(self, table):
        return Predicted(mean=self.centre(table.values), stderr=self.stderr(table.values))

    def mean(self, table):
        return self.centre(table.values)


def saying(mean, stderr=lambda v: np.full(len(v), 0.1), **options):
    objective = Objective(weights={"a": 1.0}, levels={"a": 0.0}, **options)
    return Model(surrogates={"a": Says(mean, stderr)}, objective=objective, quantile=1.6)


def bowl(points):
    return ((points - 0.4) ** 2).sum(axis=1)


@pytest.fixture(scope="module")
def known():
    return measured(box(4), {"a": bowl}, 30)


def test_a_hundred_trials_are_split_four_to_two_to_one():
    assert batch_sizes(100) == (57, 29, 14)
    assert batch_sizes(100, 2) == (67, 33)
    assert batch_sizes(100, 1) == (100,)


def test_batches_add_up_none_is_empty_and_the_first_is_enough_to_learn_from():
    """Where the trials are too few for that, there are fewer batches."""
    for batches in (1, 2, 3):
        for trials in range(1, 120):
            sizes = batch_sizes(trials, batches)
            assert sum(sizes) == trials
            assert 1 <= len(sizes) <= batches
            assert min(sizes) >= 1
            assert sizes[0] >= min(trials, FIRST)
            assert list(sizes) == sorted(sizes, reverse=True) or sizes[0] == FIRST
            if trials >= 35:
                assert len(sizes) == batches
                exact = trials * np.array([4, 2, 1])[:batches] / sum([4, 2, 1][:batches])
                assert np.abs(np.array(sizes) - exact).max() <= 1
    assert FIRST >= LEAST_ANY


def test_the_next_points_are_distinct_new_and_allowed(known):
    space = box(4, allowed=lambda p: p[:, 0] < 0.35)
    trials = measured(space, {"a": bowl}, 30)
    for seed in range(3):
        found = next_batch(trials[0], fitted(*trials, "gp")[1], 8, seed=seed, effort=SMALL)
        assert found.points.shape == (8, 4)
        assert found.points.min() >= 0
        assert found.points.max() <= 1
        assert space.select(found.points)[1].all()
        everything = np.concatenate([trials[0].points, found.points])
        spread = trials[0].points.std(0)
        gaps = np.sqrt((((everything[:, None] - everything[None]) / spread) ** 2).mean(2))
        assert gaps[30:][gaps[30:] > 0].min() >= 0.05
        assert (gaps[30:] == 0).sum() == 8, "each point is at distance 0 from itself alone"


def test_the_best_of_a_batch_is_truly_better_than_every_trial_was(known):
    trials, objective = known
    _, model = fitted(trials, objective, "gp")
    found = next_batch(trials, model, 10, seed=1).points
    predicted = model.predict(trials.space.table(found))[0].mean
    assert bowl(found[np.argmin(predicted)][None])[0] < 0.1 * bowl(trials.points).min()


def test_near_duplicates_are_turned_away_counted_and_replaced_by_a_design():
    """Without caution all searches of a bowl end at its bottom: one is kept, the rest are the same."""
    known, _ = measured(box(2), {"a": bowl}, 30)
    model = saying(bowl, lambda v: np.zeros(len(v)) + 1e-9)
    found = next_batch(known, model, 6, seed=2, effort=Effort(steps=80, population=12))
    at_bottom = np.abs(found.points - 0.4).max(1) < 0.02
    assert at_bottom.sum() == 1
    assert found.rejected == 6 + 3 - 1, "three searches are spare"
    assert len(found.points) == 6


def test_trials_that_are_already_there_are_not_measured_again():
    points = np.concatenate([np.random.default_rng(0).random((20, 2)), [[0.4, 0.4]]])
    space = box(2)
    swarm, _ = check_swarm([f"t{i}" for i in range(21)], space.table(points), {"a": bowl(points)})
    model = saying(bowl, lambda v: np.zeros(len(v)) + 1e-9)
    known = Known(space=space, swarm=swarm, points=points)
    found = next_batch(known, model, 3, seed=3, effort=Effort(steps=80, population=12))
    assert found.rejected == 3 + 2
    assert (np.abs(found.points - 0.4).max(1) > 0.02).all()


def test_cautious_searches_go_where_the_surrogate_does_not_know():
    """The mean is flat, so that points with a caution above 0 end where the deviation is largest."""
    known, _ = measured(box(3), {"a": bowl}, 40)
    model = saying(lambda v: np.zeros(len(v)), lambda v: 0.1 + v[:, 0])
    found = next_batch(known, model, 10, seed=4, effort=Effort(steps=40, population=12))
    assert (found.points[:, 0] > 0.95).sum() >= 3
    assert found.points[0, 0] > 0.95, "the best expected improvement comes first"


def test_points_come_by_expected_improvement_over_the_best_predicted_trial(known):
    trials, objective = known
    _, model = fitted(trials, objective, "gp")
    found = next_batch(trials, model, 8, seed=5, effort=SMALL)
    best = float(model.predict(trials.swarm.table)[0].mean.min())
    gains = improvement(model, trials.space.table(found.points), best)
    assert (np.diff(gains) <= 0).all()
    assert found.improvement == gains[0] > 0


def test_improvement_is_the_mean_gain_of_draws():
    rng = np.random.default_rng(6)
    space = box(1)
    for mean, sd, best in ((1.0, 0.5, 0.8), (0.5, 0.2, 0.8), (2.0, 0.3, 0.8), (0.8, 1.0, 0.8)):
        model = saying(lambda v, m=mean: np.full(len(v), m), lambda v, s=sd: np.full(len(v), s))
        draws = np.maximum(best - rng.normal(mean, sd, 400_000), 0)
        got = improvement(model, space.table(np.zeros((1, 1))), best)[0]
        assert got == pytest.approx(draws.mean(), abs=4 * draws.std() / 400_000**0.5 + 1e-6)


def test_what_the_constraints_forbid_is_barred_however_good_it_looks():
    space = box(2, allowed=lambda p: p[:, 0] > 0.5)
    points = np.array([[0.9, 0.4], [0.1, 0.4]])
    model = saying(bowl)
    got = barred(space, model, points)
    assert got[0] == pytest.approx(bowl(points)[0])
    assert got[1] > 100
    np.testing.assert_allclose(barred(space, model, points, 2.0)[0], bowl(points)[0] - 0.2)


def test_a_ceiling_keeps_the_batch_away_from_where_it_is_predicted_to_break(known):
    trials = known[0]
    sides = {
        "a": Says(lambda v: 1 - v[:, 0], lambda v: np.full(len(v), 0.01)),
        "b": Says(lambda v: v[:, 0], lambda v: np.full(len(v), 0.01)),
    }
    objective = Objective(weights={"a": 0.9, "b": 0.1}, ceilings={"b": 0.6})
    model = Model(surrogates=sides, objective=objective, quantile=1.6)
    found = next_batch(trials, model, 6, seed=7, effort=Effort(steps=60, population=12))
    assert (found.points[:, 0] < 0.61).all()
    assert (found.points[:, 0] > 0.55).sum() >= 3


def test_batches_are_deterministic_and_depend_on_the_seed_and_on_the_number_of_trials(known):
    trials, objective = known
    _, model = fitted(trials, objective)
    first, second, other = (next_batch(trials, model, 4, seed=s, effort=SMALL).points for s in (8, 8, 9))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_batches_of_mixtures_meet_the_bounds():
    bounds = ShareBounds(domains=("a", "b", "c"), low=np.array([0.2, 0, 0]), high=np.array([1, 0.5, 0.4]))
    space = ShareSpace(bounds=bounds, natural=np.full(3, 1 / 3))
    points = space.draw(np.random.default_rng(10), 30)
    table = space.table(points)
    swarm, _ = check_swarm([f"t{i}" for i in range(30)], table, {"a": table.values @ np.array([1.0, -1, -2])})
    known = Known(space=space, swarm=swarm, points=points)
    _, model = fitted(known, make_objective({"a": 1.0}, swarm.losses))
    shares = space.shares(next_batch(known, model, 5, seed=11, effort=SMALL).points)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (shares >= bounds.low - 1e-9).all()
    assert (shares <= bounds.high + 1e-9).all()


def test_what_breaks_a_ceiling_improves_nothing_and_is_no_best():
    """The least predicted loss lies beyond the ceiling: neither incumbent nor gain may come from there."""
    model = saying(lambda v: v[:, 0], ceilings={"a": 0.0})  # of its own loss, turned round: allowed below 0
    above = saying(lambda v: -v[:, 0], ceilings={"a": -0.5})  # loss -v, allowed where v >= 0.5
    space = box(2)
    points = np.array([[0.2, 0.0], [0.4, 0.0], [0.6, 0.0], [0.9, 0.0]])
    assert (improvement(model, space.table(points), best=1.0) == 0).all()
    assert best_allowed(above, space.table(points)) == pytest.approx(-0.9)
    gains = improvement(above, space.table(points), best=-0.9)
    assert (gains[:2] == 0).all()
    assert (gains[2:] > 0).all()
