"""Features equal what the `mixing` room computes document by document."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_world import make_annotations, make_world

from quadmix.errors import SearchError
from quadmix.mixing.curve import curve_mass
from quadmix.mixing.prior import Prior, draw_theta, to_unit
from quadmix.mixing.select import select
from quadmix.search.features import SHARE_EPSILON, features, sample_documents, window_integral
from quadmix.types import Theta


def brute_force(theta, normalised, annotations):
    """Realised features of one θ by name, from `select` over all documents, in plain loops."""
    expected = select(theta, normalised, annotations, seed=0).expected
    tokens = annotations.tokens.astype(float)
    total = float((expected * tokens).sum())
    found = {
        "total[tokens]": np.log(total + 1),
        "total[unique]": np.log((np.minimum(expected, 1) * tokens).sum() + 1),
    }
    for m, name in enumerate(annotations.domains):
        mine = annotations.domain == m
        mass = expected[mine] * tokens[mine]
        found[f"share[{name}]"] = np.log(mass.sum() / total + SHARE_EPSILON)
        once = (np.minimum(expected[mine], 1) * tokens[mine]).sum()
        found[f"repeats[{name}]"] = np.log(mass.sum() / once)
        for n, criterion in enumerate(annotations.criteria):
            values = normalised[mine, n].astype(float)
            has = ~np.isnan(values)
            found[f"score[{name},{criterion.name}]"] = (mass[has] * values[has]).sum() / mass[has].sum()
    return found


def assert_features_match(world_normalised, annotations, thetas, prior):
    sample = sample_documents(annotations, world_normalised, seed=3, per_domain=10**9)
    table = features(sample, thetas, prior)
    for row, theta in enumerate(thetas):
        for name, value in brute_force(theta, world_normalised, annotations).items():
            got = table.values[row, table.names.index(name)]
            assert got == pytest.approx(value, abs=1e-6), (name, row)


def test_features_equal_brute_force_when_the_sample_covers_all_documents():
    world = make_world(documents=300, domains=4)
    thetas = [world.fit(t) for t in draw_theta(np.random.default_rng(0), world.prior, 20)]
    assert_features_match(world.normalised, world.annotations, thetas, world.prior)


def test_features_equal_brute_force_with_ties_missing_scores_and_thinned_domains():
    rng = np.random.default_rng(1)
    domain = np.repeat([0, 1, 2], 40)
    scores = rng.integers(0, 4, (120, 2)).astype(np.float32) / 4
    scores[rng.random((120, 2)) < 0.2] = np.nan
    scores[np.isnan(scores).all(axis=1), 0] = 0.5
    annotations = make_annotations(domain, rng.integers(10, 500, 120), scores)
    prior = Prior(num_domains=3, num_criteria=2, cutoff_max=1.0, exponent_max=3.0, floor_max=0.2)
    thetas = [
        dataclasses.replace(t, scale=rng.uniform(0.2, 1.5, 3))
        for t in draw_theta(rng, prior, 20)
    ]  # fmt: skip
    assert_features_match(scores, annotations, thetas, prior)


def test_names_types_and_domains_describe_every_column_and_raw_is_the_unit_vector():
    world = make_world(documents=200, domains=3)
    thetas = draw_theta(np.random.default_rng(0), world.prior, 5)
    table = features(sample_documents(world.annotations, world.normalised, seed=0), thetas, world.prior)
    assert table.values.shape == (5, len(table.names))
    assert len(table.names) == len(table.types) == len(table.domains) == len(set(table.names))
    assert set(table.types) == {"share", "score", "repetition", "total", "raw"}
    assert table.domains[table.names.index("score[d2,c1]")] == 2
    np.testing.assert_array_equal(
        table.columns(raw=True).values, np.stack([to_unit(t, world.prior) for t in thetas])
    )
    assert "raw" not in table.columns(raw=False).types


def test_a_sample_of_documents_estimates_the_features_of_the_whole_pool():
    world = make_world(documents=6000, domains=3)
    thetas = [world.fit(t) for t in draw_theta(np.random.default_rng(0), world.prior, 100)]
    whole = features(
        sample_documents(world.annotations, world.normalised, seed=0, per_domain=10**9), thetas, world.prior
    )
    part = features(sample_documents(world.annotations, world.normalised, seed=0), thetas, world.prior)
    shares = [i for i, t in enumerate(whole.types) if t == "share"]
    scores = [i for i, t in enumerate(whole.types) if t == "score"]
    np.testing.assert_allclose(part.values[:, shares], whole.values[:, shares], atol=1e-6)
    for column in scores:
        assert np.corrcoef(part.values[:, column], whole.values[:, column])[0, 1] > 0.9


def test_features_of_a_theta_do_not_depend_on_its_companions():
    world = make_world(documents=300, domains=3)
    thetas = draw_theta(np.random.default_rng(2), world.prior, 300)
    sample = sample_documents(world.annotations, world.normalised, seed=0, per_domain=50)
    together = features(sample, thetas, world.prior).values
    alone = np.concatenate([features(sample, [t], world.prior).values for t in thetas[::50]])
    np.testing.assert_allclose(alone, together[::50], atol=1e-12)


def test_an_empty_pool_is_refused():
    world = make_world(documents=100, domains=3)
    nothing = world.annotations.take(np.zeros(100, dtype=bool))
    with pytest.raises(SearchError, match="0 documents"):
        sample_documents(nothing, world.normalised[:0], seed=0)


def test_a_domain_without_selectable_documents_gets_neutral_features():
    world = make_world(documents=200, domains=3)
    rows = world.annotations.domain != 1
    sample = sample_documents(world.annotations.take(rows), world.normalised[rows], seed=0)
    thetas = draw_theta(np.random.default_rng(0), world.prior, 4)
    table = features(sample, thetas, world.prior)
    assert np.isfinite(table.values).all()
    np.testing.assert_allclose(table.values[:, table.names.index("share[d1]")], np.log(SHARE_EPSILON))


@given(
    steepness=st.floats(0.1, 1000),
    cutoff=st.floats(1e-4, 1),
    exponent=st.floats(0, 6),
    rank=st.floats(1e-6, 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_window_integral_equals_fine_quadrature(steepness, cutoff, exponent, rank):
    end = min(rank, cutoff)
    grid = np.concatenate([np.geomspace(1e-9, 1, 6000), np.linspace(0, 1, 6000)]) * end
    left = np.unique(np.concatenate([[0.0], grid, end - grid]))
    x, w = np.polynomial.legendre.leggauss(4)
    points = left[:-1, None] + np.diff(left)[:, None] * (0.5 + 0.5 * x)
    curve = (2 / (1 + np.exp(-steepness * (cutoff - points)))) ** exponent
    exact = float((curve @ (0.5 * w) * np.diff(left)).sum())
    got = window_integral(np.array([[rank]]), np.array([steepness]), np.array([cutoff]), np.array([exponent]))
    assert got[0, 0] == pytest.approx(exact, abs=1e-8)


def test_the_window_integral_agrees_with_the_mixing_room():
    prior = Prior(num_domains=50, num_criteria=2, cutoff_max=1.0, exponent_max=2.0)
    theta: Theta = draw_theta(np.random.default_rng(0), prior, 1)[0]
    got = window_integral(theta.cutoff[:, None], theta.steepness, theta.cutoff, theta.exponent)[:, 0]
    np.testing.assert_allclose(got + theta.floor, curve_mass(theta), atol=1e-9)
