"""θ as a box: what a point selects is what its θ selects, and every one meets the budget."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kstest, qmc
from search_world import make_annotations, make_world

from quadmix.errors import BudgetError, SearchError
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import Prior, draw_theta, prior_mean
from quadmix.mixing.quota import fit_budget
from quadmix.mixing.select import expected_tokens, select
from quadmix.search.theta_space import theta_space, trivial_recipes


@pytest.fixture(scope="module")
def world():
    return make_world(seed=2)


def limits_of(count=5, **changes):
    plain = {"multipliers": np.ones(count), "min_share": np.zeros(count), "max_share": np.ones(count)}
    return Limits(**{**plain, **changes}, domains=tuple(f"d{i}" for i in range(count)))


def space_of(world, *, budget=None, method="cutoff", limits=None, prior=None, normalised=None):
    budget = world.budget if budget is None else budget

    def exact(theta):
        return fit_budget(theta, world.annotations, budget, method=method, limits=limits)

    return theta_space(
        world.annotations, world.normalised if normalised is None else normalised, prior or world.prior,
        budget=budget, exact=exact, seed=1, method=method, limits=limits,
    )  # fmt: skip


def tokens_of(theta, world):
    return expected_tokens(theta, world.annotations)


SPACES = {
    "plain": {},
    "multipliers": {"prior": {"multipliers": (0.25, 1.0, 4.0, 1.0, 2.0)}},
    "linear steepness": {"prior": {"steepness": "linear", "cutoff_max": 0.5, "exponent_max": 2.0}},
    "no floor": {"prior": {"floor_max": 0.0}},
    "share bounds": {
        "limits": limits_of(
            min_share=np.array([0.3, 0, 0, 0, 0]), max_share=np.array([1, 1, 0.1, 1, 0.4]), max_copies=2.0
        )
    },
    "thin": {"method": "thin", "budget": 200.0, "prior": {"cutoff_max": 0.5}},
}


def named_space(world, name):
    wanted = dict(SPACES[name])
    if "prior" in wanted:
        wanted["prior"] = replace(world.prior, **wanted["prior"])
    return space_of(world, **wanted)


@pytest.mark.parametrize("name", SPACES)
def test_a_fitted_theta_and_the_point_that_stands_for_it_have_the_same_features(world, name):
    space = named_space(world, name)
    thetas = [space.exact(t) for t in draw_theta(np.random.default_rng(0), space.prior, 30)]
    real = space.features(thetas)
    points = space.points(thetas)
    assert points.min() >= 0
    assert points.max() <= 1
    table, ok = space.select(points)
    assert ok.all()
    shown = ~real.is_raw
    np.testing.assert_allclose(table.values[:, shown], real.values[:, shown], atol=2e-6)
    for theta, point in zip(thetas[:5], points[:5], strict=True):
        np.testing.assert_allclose(tokens_of(space.theta(point), world), tokens_of(theta, world), rtol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_every_point_meets_the_budget_also_in_the_corners_of_the_box(world, name):
    space = named_space(world, name)
    rng = np.random.default_rng(1)
    points = np.concatenate(
        [rng.random((40, space.size)), rng.integers(0, 2, (20, space.size)).astype(float)]
    )
    found = space.fitted(points)
    assert found.ok[:40].all()
    for i in np.flatnonzero(found.ok):
        tokens = tokens_of(found.batch.theta(int(i)), world)
        assert tokens.sum() == pytest.approx(space.budget, rel=1e-6)
        if space.limits is not None:
            assert (tokens >= space.limits.min_share * space.budget * (1 - 1e-6)).all()
            assert (tokens <= space.limits.max_share * space.budget * (1 + 1e-6)).all()
    assert tokens_of(space.theta(points[0]), world).sum() == pytest.approx(space.budget, rel=1e-6)


def test_what_cannot_be_selected_is_said_and_left_as_it_came(world):
    """All cutoffs closed and no floor: there is nothing to open."""
    space = named_space(world, "no floor")
    points = np.full((2, space.size), 0.5)
    points[1, 15:20] = 0.0  # weights 0-9, steepness 10-14, cutoffs 15-19
    assert space.select(points)[1].tolist() == [True, False]


def test_multipliers_of_the_prior_are_applied_once(world):
    """The centre of the box is the prior mean, its cutoffs multiplied; there and back multiplies no more."""
    factors = np.array([0.25, 1.0, 4.0, 1.0, 2.0])
    space = named_space(world, "multipliers")
    centre = np.full(space.size, 0.5)
    mean, plain = space.exact(prior_mean(space.prior)), prior_mean(world.prior)
    by_hand = space.exact(replace(plain, cutoff=plain.cutoff * factors))
    for theta in (space.theta(centre), mean, by_hand):
        np.testing.assert_allclose(tokens_of(theta, world), tokens_of(by_hand, world), rtol=1e-6)
    theta = mean
    for _ in range(3):
        theta = space.theta(space.points([theta])[0])
    np.testing.assert_allclose(tokens_of(theta, world), tokens_of(mean, world), rtol=1e-6)
    assert np.ptp(space.points([mean])[0, 15:20]) < 1e-9


def test_the_published_table_shows_the_raw_columns_and_nothing_else(world):
    space = named_space(world, "plain")
    points = np.random.default_rng(2).random((5, space.size))
    quick, whole = space.published_table(points), space.table(points)
    assert quick.names == whole.names
    np.testing.assert_array_equal(quick.values[:, quick.is_raw], whole.values[:, whole.is_raw])
    assert np.isnan(quick.values[:, ~quick.is_raw]).all()


def test_coordinates_are_named_by_what_they_are_and_their_domain(world):
    space = named_space(world, "plain")
    assert space.size == len(space.groups) == 5 * 6
    assert space.groups[:4] == (
        ("weight[c0]", "d0"), ("weight[c1]", "d0"), ("weight[c0]", "d1"), ("weight[c1]", "d1")
    )  # fmt: skip
    assert space.groups[10:12] == (("steepness", "d0"), ("steepness", "d1"))
    assert [kind for kind, _ in space.groups[10::5]] == ["steepness", "cutoff", "exponent", "floor"]
    # raw columns of the table and coordinates of the box are in the same order
    raw = space.table(np.full((1, space.size), 0.5)).columns(raw=True)
    for column, (kind, domain) in zip(raw.names, space.groups, strict=True):
        inside = f"{domain},{kind[7:-1]}" if kind.startswith("weight") else domain
        assert column == f"{kind.split('[')[0]}[{inside}]"


UNIFORM = [*range(10, 15), *range(20, 30)]  # steepness, exponent and floor of the five domains


@pytest.fixture(scope="module")
def design(world):
    space = named_space(world, "plain")
    return space, space.design(np.random.default_rng(3), 64)


def test_a_design_covers_every_coordinate(design):
    """Steepness, exponent and floor are uniform; weights are uniform on the simplex; cutoffs reach far."""
    space, points = design
    assert points.shape == (64, space.size)
    assert points.min() >= 0
    assert points.max() <= 1
    np.testing.assert_allclose(points[:, :10].reshape(64, 5, 2).sum(2), 1)
    cutoffs = points[:, 15:20]
    np.testing.assert_allclose(cutoffs.max(1), 1)
    for column in UNIFORM:  # 64 random numbers stay below 0.03 hardly ever
        assert kstest(points[:, column], "uniform").statistic < 0.03, space.groups[column]
        assert np.diff(np.sort(points[:, column])).max() < 2.1 / 64
    for column in range(0, 10, 2):
        assert kstest(points[:, column], "uniform").statistic < 0.1, space.groups[column]
    assert (cutoffs.min(0) < 0.1).all()
    assert (cutoffs.max(0) > 0.999).all()


def test_a_design_is_spread_out_more_than_random_points_are(design):
    """Lower discrepancy than any of twenty random draws, and no two points closer than chance puts them."""
    _, points = design
    random = [np.random.default_rng(s).random((64, len(UNIFORM))) for s in range(20)]
    assert qmc.discrepancy(points[:, UNIFORM]) < min(map(qmc.discrepancy, random))
    assert pdist(points[:, UNIFORM]).min() > min(pdist(r).min() for r in random)


def test_a_design_has_both_sparse_and_equal_cutoffs_and_mixtures(design):
    space, points = design
    cutoffs = points[:, 15:20]
    shares = cutoffs / cutoffs.sum(1, keepdims=True)
    effective = 1 / (shares**2).sum(1)
    assert effective.min() < 1.5
    assert effective.max() > 4
    selected = space.table(points)
    shares = selected.values[:, selected.is_share]
    assert shares.max() > 0.8
    assert (shares.max(0) > 0.4).sum() >= 4, "nearly every domain dominates somewhere"


def test_designs_are_deterministic_and_differ_between_streams(world):
    space = named_space(world, "plain")
    first, second, other = (space.design(np.random.default_rng(s), 5) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_draws_are_those_of_algorithm_1_fitted_to_the_budget(world):
    space = named_space(world, "plain")
    points = space.draw(np.random.default_rng(6), 8)
    thetas = [space.exact(t) for t in draw_theta(np.random.default_rng(6), space.prior, 8)]
    drawn, real = space.table(points), space.features(thetas)
    np.testing.assert_allclose(drawn.values[:, ~drawn.is_raw], real.values[:, ~real.is_raw], atol=2e-6)


def picky_space(world, share):
    """A thinned budget that about this share of random θ can meet."""
    prior = replace(world.prior, cutoff_max=0.2)
    drawn = draw_theta(np.random.default_rng(7), prior, 400)
    budget = float(np.quantile([tokens_of(t, world).sum() for t in drawn], 1 - share))
    return space_of(world, budget=budget, method="thin", prior=prior)


def test_draws_and_designs_that_miss_the_budget_are_replaced(world):
    space = picky_space(world, 0.3)
    rng = np.random.default_rng(8)
    free = space.points(draw_theta(rng, space.prior, 100))
    assert 5 < space.fitted(free).ok.sum() < 70
    for points in (space.draw(rng, 40), space.design(rng, 40)):
        assert len(points) == 40
        assert space.select(points)[1].all()


def test_a_prior_that_cannot_meet_the_budget_is_refused_with_counts(world):
    space = space_of(world, budget=float(world.annotations.tokens.sum()), method="thin")
    with pytest.raises(SearchError, match=r"\d+ of \d+ random θ cannot meet the budget of [\d,]+ tokens; .+"):
        space.draw(np.random.default_rng(9), 10)
    with pytest.raises(
        SearchError, match=r"(\d+) of \1 designed θ cannot meet the budget of [\d,]+ tokens; token budget"
    ):
        space.design(np.random.default_rng(9), 10)
    with pytest.raises(SearchError, match="the prior mean cannot meet the budget: token budget"):
        trivial_recipes(space, world.annotations, world.normalised)


def test_the_average_is_the_mean_of_the_parameters(world):
    space = named_space(world, "plain")
    rng = np.random.default_rng(10)
    point = rng.random(space.size)
    point[15:20] /= point[15:20].max()
    same = space.table(space.average(np.tile(point, (3, 1)))[None])
    real = ~same.is_raw
    np.testing.assert_allclose(same.values[0, real], space.table(point[None]).values[0, real], atol=2e-6)
    pair = space.draw(rng, 2)
    found = space.average(pair)
    for part in (slice(0, 15), slice(20, 30)):  # all but the cutoffs, which a fit has scaled before
        np.testing.assert_allclose(found[part], pair.mean(0)[part], atol=1e-9)


@pytest.fixture(scope="module")
def recipes(world):
    space = named_space(world, "plain")
    return trivial_recipes(space, world.annotations, world.normalised)


def test_the_trivial_recipes_are_there_and_each_meets_the_budget(world, recipes):
    assert list(recipes) == ["prior-mean", "equal-domains", "uniform-weights", "single:c0", "single:c1"]
    for name, theta in recipes.items():
        assert tokens_of(theta, world).sum() == pytest.approx(world.budget, rel=1e-6), name


@pytest.mark.parametrize("name", ["single:c0", "single:c1", "uniform-weights"])
def test_one_cut_over_the_whole_pool_selects_the_best_documents_of_the_pool(world, recipes, name):
    """Against a sort of all documents: the same tokens per domain, and the same documents."""
    annotations, normalised = world.annotations, world.normalised.astype(float)
    merged = normalised.mean(1) if name == "uniform-weights" else normalised[:, int(name[-1])]
    order = np.argsort(merged, kind="stable")
    inside = np.zeros(len(order), dtype=bool)
    inside[order[np.cumsum(annotations.tokens[order]) <= world.budget]] = True
    best = np.bincount(annotations.domain[inside], annotations.tokens[inside], 5)
    slack = annotations.tokens.max()  # the last document is taken in part
    np.testing.assert_allclose(tokens_of(recipes[name], world), best, atol=slack)
    expected = select(recipes[name], world.normalised, annotations, seed=0).expected
    assert (expected[inside] > 0.5).mean() > 0.9
    assert (expected[~inside] * annotations.tokens[~inside]).sum() < 0.05 * world.budget


def test_equal_domains_gives_every_domain_the_same_tokens(world, recipes):
    np.testing.assert_allclose(tokens_of(recipes["equal-domains"], world), world.budget / 5, rtol=0.01)


def uneven_world():
    """Five domains of 20 to 1000 documents, the smallest with more than a fifth of the budget."""
    rng = np.random.default_rng(11)
    domain = np.repeat(np.arange(5), [20, 60, 200, 500, 1000])
    scores = rng.normal(size=(len(domain), 2))
    ranks = (np.argsort(np.argsort(scores, axis=0), axis=0) + 0.5) / len(domain)
    annotations = make_annotations(domain, np.full(len(domain), 100), scores)
    world = make_world(documents=200)
    return dataclasses.replace(
        world, annotations=annotations, normalised=ranks.astype(np.float32), budget=5000
    )


def test_equal_domains_gives_the_same_tokens_also_where_sizes_differ_fifty_times():
    world = uneven_world()
    recipes = trivial_recipes(space_of(world), world.annotations, world.normalised)
    np.testing.assert_allclose(tokens_of(recipes["equal-domains"], world), 1000, rtol=0.01)


def test_the_prior_mean_takes_domains_as_they_are_in_the_pool(world, recipes):
    pool = np.bincount(world.annotations.domain, world.annotations.tokens, 5)
    np.testing.assert_allclose(
        tokens_of(recipes["prior-mean"], world), world.budget * pool / pool.sum(), rtol=1e-6
    )
    np.testing.assert_allclose(recipes["prior-mean"].weights, 0.5)


def test_recipes_that_limits_do_not_allow_are_left_out_but_the_prior_mean_is_not(world):
    def exact(theta):
        if theta.weights[0, 0] == 1.0:
            raise BudgetError("not that one")
        return world.fit(theta)

    space = replace(named_space(world, "plain"), exact=exact)
    found = trivial_recipes(space, world.annotations, world.normalised)
    assert list(found) == ["prior-mean", "equal-domains", "uniform-weights", "single:c1"]


def test_with_one_criterion_equal_weights_are_that_criterion(world):
    one = make_world(documents=300, criteria=1)
    found = trivial_recipes(space_of(one), one.annotations, one.normalised)
    assert list(found) == ["prior-mean", "equal-domains", "single:c0"]


def test_documents_without_a_score_of_a_criterion_do_not_break_a_recipe(world):
    normalised = world.normalised.copy()
    normalised[::7, 0] = np.nan
    space = space_of(world, normalised=normalised)
    for name, theta in trivial_recipes(space, world.annotations, normalised).items():
        assert tokens_of(theta, world).sum() == pytest.approx(world.budget, rel=1e-6), name


def test_a_prior_of_other_ranges_is_respected():
    prior = Prior(num_domains=5, num_criteria=2, cutoff_max=0.3)
    world = make_world(seed=2)
    space = space_of(world, prior=prior)
    batch = space.fitted(np.full((1, space.size), 0.5)).batch
    np.testing.assert_allclose(batch.steepness, 10**1.5)
    np.testing.assert_allclose(batch.exponent, 0.5)
