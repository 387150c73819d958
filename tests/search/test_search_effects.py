"""What matters comes first with its true size; what does not is flat."""

import numpy as np
import pytest
from search_world import BoxSpace, measured

from quadmix.engine.threads import one_thread
from quadmix.search.adaptive import Known
from quadmix.search.effects import EVERY, effects
from quadmix.search.model import Fit
from quadmix.search.space import ShareBounds, ShareSpace
from quadmix.search.swarm import check_swarm, make_objective


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


FIT = Fit(surrogate="ridge", workers=1)
NAMES = (
    ("weight[edu]", "web"), ("weight[fun]", "web"), ("weight[edu]", "code"), ("weight[fun]", "code"),
    ("cutoff", "web"), ("cutoff", "code"), ("floor", "web"), ("floor", "code"),
)  # fmt: skip
#                 edu-web fun-web edu-code fun-code cut-web cut-code floor-web floor-code
SLOPES = np.array([0.5, -0.5, 0.0, 0.0, 3.0, -1.0, 0.0, 0.0])
PROPOSAL = np.array([0.0, 1.0, 0.5, 0.5, 0.1, 0.9, 0.4, 0.6])
REFERENCE = np.full(8, 0.5)


def explained(noise=0.0, noise_sd=0.05, seed=1):
    known, objective = measured(BoxSpace(NAMES), {"a": lambda p: p @ SLOPES}, 60, noise=noise, seed=seed)
    found = effects(
        known, FIT, objective, kind="ridge", candidates={"theta-star": PROPOSAL, "other": REFERENCE},
        reference=REFERENCE, noise_sd=noise_sd, seed=seed,
    )  # fmt: skip
    assert all(c.difference == 0 for c in found.contrasts["other"])  # it is the reference
    return found.effects, {(e.group, e.domain): e for e in found.effects}


@pytest.fixture(scope="module")
def exact():
    return explained()


def test_every_group_is_there_by_domain_over_all_domains_and_every_domain_by_itself(exact):
    _, found = exact
    groups = [(g, d) for g in ("weight", "cutoff", "floor") for d in (EVERY, "web", "code")]
    assert set(found) == {*groups, (EVERY, "web"), (EVERY, "code")}


def test_effects_are_sorted_and_what_matters_most_comes_first(exact):
    order, found = exact
    assert [e.range for e in order] == sorted((e.range for e in order), reverse=True)
    assert order[0].domain == "web"
    assert {(order[0].group, order[0].domain), (order[1].group, order[1].domain)} == {
        ("cutoff", "web"), (EVERY, "web")
    }  # fmt: skip
    assert all(found["cutoff", "web"].range >= e.range for e in order if e.group != EVERY)


def test_ranges_and_differences_are_those_of_the_true_loss(exact):
    """A linear loss: the range of a group is its slope, the difference slope times step. Cutoffs that move
    together reach 0 to 2, and are at 0.3 - 0.9 at the proposal itself."""
    _, found = exact
    assert found["cutoff", "web"].range == pytest.approx(3.0, rel=0.02)
    assert found["cutoff", "code"].range == pytest.approx(1.0, rel=0.05)
    assert found["cutoff", EVERY].range == pytest.approx(2.0 + 0.6, rel=0.05)
    # weights: each criterion alone, or both: .5, -.5, 0
    assert found["weight", "web"].range == pytest.approx(1.0, rel=0.05)
    assert found["cutoff", "web"].difference == pytest.approx(3.0 * (0.1 - 0.5), rel=0.02)
    assert found["cutoff", "code"].difference == pytest.approx(-1.0 * (0.9 - 0.5), rel=0.05)
    assert found["weight", "web"].difference == pytest.approx(-0.5, rel=0.05)
    assert found[EVERY, "web"].difference == pytest.approx(3.0 * -0.4 - 0.5, rel=0.02)


def test_what_does_not_matter_is_flat_and_what_does_is_not(exact):
    _, found = exact
    for name in (("floor", "web"), ("floor", "code"), ("floor", EVERY), ("weight", "code")):
        assert found[name].flat, name
        assert found[name].difference == pytest.approx(0, abs=0.02)
    for name in (("cutoff", "web"), ("cutoff", "code"), ("weight", "web"), (EVERY, "code")):
        assert not found[name].flat, name


def test_the_more_noise_the_less_can_be_told_from_flat():
    clear = {n for n, e in explained(noise=0.3, noise_sd=0.3)[1].items() if not e.flat}
    loud = {n for n, e in explained(noise=0.3, noise_sd=2.0)[1].items() if not e.flat}
    assert loud < clear
    assert ("cutoff", "web") in loud
    assert ("floor", "web") not in clear


def test_the_interval_of_the_difference_holds_it_and_widens_with_noise(exact):
    noisy = explained(noise=1.0)[1]
    for name, effect in exact[1].items():
        assert effect.low <= effect.difference <= effect.high
        if name != ("weight", "code"):  # where the proposal is at the reference: always 0
            assert noisy[name].high - noisy[name].low > effect.high - effect.low
    same = noisy["weight", "code"]
    assert same.low == same.difference == same.high == 0


def test_the_intervals_hold_the_true_difference_about_as_often_as_they_say():
    """Refits on parts of the same trials differ too little; the jackknife's factor mends that."""
    truth = {("cutoff", "web"): 3.0 * -0.4, ("cutoff", "code"): -1.0 * 0.4, ("weight", "web"): -0.5}
    inside = [
        found[name].low <= value <= found[name].high
        for seed in range(40)
        for found in [explained(noise=0.5, seed=seed)[1]]
        for name, value in truth.items()
    ]
    assert 0.8 <= np.mean(inside) <= 0.99


def test_unknown_noise_makes_nothing_flat_that_varies(exact):
    assert not explained(noise_sd=float("nan"))[1]["cutoff", "code"].flat


def test_shares_have_one_group_per_domain_and_the_domain_that_matters_comes_first():
    domains = ("web", "code", "math")
    bounds = ShareBounds(domains=domains, low=np.zeros(3), high=np.ones(3))
    space = ShareSpace(bounds=bounds, natural=np.full(3, 1 / 3))
    points = space.draw(np.random.default_rng(0), 60)
    table = space.table(points)
    losses = {"a": 2 - np.cbrt(table.values[:, 1])}
    swarm, _ = check_swarm([f"t{i}" for i in range(60)], table, losses)
    known, objective = Known(space=space, swarm=swarm, points=points), make_objective({"a": 1.0}, losses)
    order = effects(
        known, FIT, objective, kind="ridge", reference=space.points(np.full((1, 3), 1 / 3))[0],
        candidates={"theta-star": space.points(np.array([[0.1, 0.8, 0.1]]))[0]}, noise_sd=0.01, seed=2,
    ).effects  # fmt: skip
    assert (order[0].group, order[0].domain) == ("share", "code")
    assert len(order) == 3
    assert all(e.difference < 0 for e in order if e.domain != "code"), "less of the others is better"
    assert order[0].range == pytest.approx(np.cbrt(1 / (1 + 0.25)), rel=0.15)


def test_domains_interact_as_the_loss_says_and_not_where_it_is_a_sum():
    """Loss = cut_web · cut_code + floor_web: both cutoffs moved do one product more than each alone."""

    def loss(points):
        return points[:, 4] * points[:, 5] + points[:, 6]

    known, objective = measured(BoxSpace(NAMES), {"a": loss}, 300, noise=0.0, seed=3)
    found = effects(
        known, Fit(surrogate="gp", workers=1), objective, kind="gp-ard", candidates={"theta-star": PROPOSAL},
        reference=REFERENCE, noise_sd=0.01, seed=3,
    ).interactions  # fmt: skip
    assert [(i.domain, i.other) for i in found] == [("web", "code")]
    product = (PROPOSAL[4] - REFERENCE[4]) * (PROPOSAL[5] - REFERENCE[5])
    assert found[0].difference == pytest.approx(product, rel=0.2)
    assert found[0].low <= found[0].difference <= found[0].high < 0
    known, objective = measured(BoxSpace(NAMES), {"a": lambda p: p @ SLOPES}, 60, noise=0.0, seed=1)
    alone = effects(
        known, FIT, objective, kind="ridge", candidates={"theta-star": PROPOSAL}, reference=REFERENCE,
        noise_sd=0.05, seed=1,
    ).interactions  # fmt: skip
    assert alone[0].difference == pytest.approx(0, abs=0.02)


def test_effects_are_deterministic(exact):
    assert explained()[0] == exact[0]
