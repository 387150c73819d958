"""Trials become tables on the scale a surrogate wants, and losses one objective; nonsense is refused."""

import numpy as np
import pytest

from quadmix.errors import SearchError
from quadmix.search.space import share_table
from quadmix.search.swarm import check_swarm, combined, excess, make_objective
from quadmix.search.table import TRANSFORMS, FeatureTable, join
from quadmix.types import Objective


def shares_of(count=20, domains=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(domains), count)


def checked(losses, shares=None):
    count = len(next(iter(losses.values())))
    shares = shares_of(count) if shares is None else shares
    ids = [f"t{i}" for i in range(count)]
    return check_swarm(ids, share_table(shares, tuple("abcd")), losses)


def mixed_table(values):
    return FeatureTable(
        values=values, names=("share[a]", "score[a]", "share[b]", "weight[a]"),
        types=("share", "score", "share", "raw.weight"), domains=(0, 0, 1, 0),
    )  # fmt: skip


def test_only_share_columns_are_transformed_and_to_the_exact_value():
    table = mixed_table(np.array([[0.25, 0.3, 0.0, -2.0], [1.0, -4.0, 0.008, 0.0]]))
    for how in TRANSFORMS:
        found = table.transformed(how)
        np.testing.assert_array_equal(found[:, [1, 3]], table.values[:, [1, 3]])
        assert np.isfinite(found).all(), "exact zeros too"
    np.testing.assert_array_equal(table.transformed("identity"), table.values)
    np.testing.assert_allclose(table.transformed("cbrt")[:, 2], [0.0, 0.2])
    np.testing.assert_allclose(table.transformed("cbrt")[:, 0], [0.25 ** (1 / 3), 1.0])
    for how, epsilon in (("log:3e-4", 3e-4), ("log:1e-3", 1e-3), ("log:3e-3", 3e-3), ("log:1e-2", 1e-2)):
        np.testing.assert_allclose(np.exp(table.transformed(how)[:, 2]), [epsilon, 0.008 + epsilon])
        np.testing.assert_allclose(np.exp(table.transformed(how)[:, 0]), [0.25 + epsilon, 1 + epsilon])
    np.testing.assert_array_equal(table.values[:, 2], [0.0, 0.008])  # the table itself is untouched


def test_rows_columns_and_joins_keep_names_and_values_together():
    table = mixed_table(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(table.is_share, [True, False, True, False])
    np.testing.assert_array_equal(table.is_raw, [False, False, False, True])
    raw, rest = table.columns(raw=True), table.columns(raw=False)
    assert raw.names == ("weight[a]",)
    assert rest.names == ("share[a]", "score[a]", "share[b]")
    assert rest.domains == (0, 0, 1)
    np.testing.assert_array_equal(raw.values[:, 0], [3, 7, 11])
    again = join([table.rows(np.array([2])), table.rows(np.array([True, False, True]))])
    np.testing.assert_array_equal(again.values, table.values[[2, 0, 2]])


@pytest.mark.parametrize("parts", [(0.5, 0.5, 0.0), (0.7, 0.3, 0.0), (0.2, 0.5, 0.3)])
def test_a_target_that_is_the_average_of_others_is_refused_by_name(parts):
    rng = np.random.default_rng(1)
    own = {name: 2 + rng.normal(size=20) for name in ("wiki", "code", "web")}
    average = sum(w * y for w, y in zip(parts, own.values(), strict=True))
    with pytest.raises(SearchError, match="'macro' is the average of") as caught:
        checked({**own, "macro": average})
    for name, weight in zip(own, parts, strict=True):
        assert (repr(name) in str(caught.value)) == (weight > 0)


def test_a_correlated_target_is_kept():
    """Nearly an average, one on another scale, a difference and a copy: none is an average of others."""
    rng = np.random.default_rng(2)
    a, b = 2 + rng.normal(size=(2, 20))
    near = 0.5 * (a + b) + 1e-3 * rng.normal(size=20)
    for losses in ({"near": near}, {"scaled": 0.55 * (a + b)}, {"difference": a - b}, {"copy": a}):
        swarm, warnings = checked({"a": a, "b": b, **losses})
        assert list(swarm.losses) == ["a", "b", *losses]
        assert warnings == []


def test_too_few_trials_to_tell_an_average_from_a_coincidence_pass():
    """With as many targets as trials any target is a linear mixture of the others."""
    rng = np.random.default_rng(3)
    losses = {f"t{i}": 2 + rng.random(6) for i in range(6)}
    assert len(checked(losses)[0].losses) == 6


def test_repeated_ids_the_same_mixture_and_constant_losses_are_refused():
    rng = np.random.default_rng(4)
    table, y = share_table(shares_of(6), tuple("abcd")), {"easy": rng.normal(size=6)}
    with pytest.raises(SearchError, match=r"2 trial ids appear more than once \('x', 'y'\)"):
        check_swarm(["x", "y", "z", "y", "x", "x"], table, y)
    with pytest.raises(SearchError, match="all 6 trials have the same mixture"):
        checked(y, np.tile(shares_of(1), (6, 1)))
    with pytest.raises(SearchError, match="all 6 trials have the same loss on every target"):
        checked({"easy": np.ones(6), "hard": np.full(6, 2.0)})


def test_a_constant_target_is_left_out_with_a_warning_that_names_it():
    y = np.random.default_rng(5).normal(size=6)
    swarm, warnings = checked({"easy": y, "flat": np.ones(6)})
    assert list(swarm.losses) == ["easy"]
    assert warnings == ["target 'flat' is constant over the swarm and is left out"]


def test_rows_of_a_swarm_stay_together():
    y = np.arange(6.0)
    swarm, _ = checked({"easy": y, "hard": -y * y})
    for index in (np.array([4, 1]), np.array([False, True, False, False, True, False])):
        part = swarm.rows(index)
        places = np.arange(6)[index]
        assert part.ids == tuple(f"t{i}" for i in places)
        assert len(part) == len(part.table) == 2
        np.testing.assert_array_equal(part.table.values, swarm.table.values[places])
        np.testing.assert_array_equal(part.losses["hard"], -(places**2.0))


# user weights 1 and 2 over spreads 1 and 10: 1 and 0.2, so 5/6 and 1/6; levels 2 and 20
HAND = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([10.0, 30.0, 20.0])}


def test_the_mean_objective_on_hand_numbers():
    objective = make_objective({"a": 1.0, "b": 2.0}, HAND)
    assert objective.weights == pytest.approx({"a": 5 / 6, "b": 1 / 6})
    assert objective.levels == pytest.approx({"a": 2.0, "b": 20.0})
    np.testing.assert_allclose(combined(objective, HAND), [15 / 6, 40 / 6, 35 / 6])


def test_the_worst_objective_on_hand_numbers():
    """level 5/6·2 + 1/6·20 = 5, plus twice the larger of the weighted distances to the levels."""
    objective = make_objective({"a": 1.0, "b": 2.0}, HAND, how="worst")
    distance = np.maximum([-5 / 6, 0.0, 5 / 6], [-10 / 6, 10 / 6, 0.0])
    np.testing.assert_allclose(combined(objective, HAND), 5 + 2 * distance)


def test_worst_equals_mean_for_one_target_and_where_all_are_equally_far_off():
    one = {"a": HAND["a"]}
    for how in ("mean", "worst"):
        np.testing.assert_allclose(combined(make_objective({"a": 3.0}, one, how=how), one), one["a"])
    even = {"a": HAND["a"], "b": 20 + 10 * (HAND["a"] - 2)}
    mean, worst = (
        combined(make_objective({"a": 1.0, "b": 1.0}, even, how=h), even) for h in ("mean", "worst")
    )
    np.testing.assert_allclose(mean, worst)


def test_the_worst_objective_ignores_gains_elsewhere():
    objective = make_objective({"a": 1.0, "b": 1.0}, HAND, how="worst")
    base, better = {"a": np.array([3.0]), "b": np.array([15.0])}, {"a": np.array([3.0]), "b": np.array([1.0])}
    np.testing.assert_allclose(combined(objective, base), combined(objective, better))
    worse = {"a": np.array([3.1]), "b": np.array([1.0])}
    assert combined(objective, worse) > combined(objective, better)


def test_weights_rank_like_the_weighted_mean_of_z_scores():
    rng = np.random.default_rng(1)
    losses = {"a": rng.normal(5, 2.0, 30), "b": rng.normal(1, 0.01, 30)}
    objective = make_objective({"a": 1.0, "b": 3.0}, losses)
    assert sum(objective.weights.values()) == pytest.approx(1)
    z = {n: (v - v.mean()) / v.std(ddof=1) for n, v in losses.items()}
    np.testing.assert_array_equal(np.argsort(combined(objective, losses)), np.argsort(z["a"] + 3 * z["b"]))


def test_the_excess_over_ceilings_on_hand_numbers():
    weights = {"a": 0.25, "b": 0.75}
    objective = Objective(weights=weights, ceilings={"a": 2.0, "b": 25.0})
    np.testing.assert_allclose(excess(objective, HAND), [0.0, 0.75 * 5, 0.25 * 1])
    both = {"a": np.array([4.0]), "b": np.array([27.0])}
    np.testing.assert_allclose(excess(objective, both), [0.25 * 2 + 0.75 * 2])
    np.testing.assert_array_equal(excess(Objective(weights=weights), HAND), np.zeros(3))


def test_ceilings_of_targets_that_are_left_out_are_dropped():
    objective = make_objective({"a": 1.0, "b": 1.0, "flat": 1.0}, HAND, ceilings={"a": 2.0, "flat": 1.0})
    assert objective.ceilings == {"a": 2.0}


def test_an_average_is_refused_when_it_was_rounded_and_when_its_parts_are_no_targets():
    rng = np.random.default_rng(5)
    parts = {name: 5 + rng.normal(size=40) for name in ("p", "q", "r")}
    mean = np.round(np.mean(list(parts.values()), axis=0), 4)
    shares = rng.dirichlet(np.ones(4), 40)
    table, ids = share_table(shares, ("a", "b", "c", "d")), [f"t{i}" for i in range(40)]
    with pytest.raises(SearchError, match="'mean' is the average of 'p', 'q', 'r'"):
        check_swarm(ids, table, {**parts, "mean": mean})
    with pytest.raises(SearchError, match="'mean' is the average of 'p', 'q', 'r'"):
        check_swarm(ids, table, {"mean": mean}, parts)
    swarm, _ = check_swarm(ids, table, {"mean": mean + 0.05 * rng.normal(size=40)}, parts)
    assert list(swarm.losses) == ["mean"]
