"""Features equal what the `mixing` room computes document by document."""

import dataclasses

import numpy as np
import pytest
from search_world import make_annotations, make_world

from quadmix.errors import SearchError
from quadmix.mixing.batch import batch_from_unit, batch_to_unit
from quadmix.mixing.curve import curve_mass
from quadmix.mixing.prior import Prior, draw_theta, to_unit
from quadmix.mixing.select import select
from quadmix.search.features import batch_features, features, sample_documents
from quadmix.search.table import FeatureTable


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
        found[f"share[{name}]"] = mass.sum() / total
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


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_features_equal_brute_force_when_scores_differ_in_their_last_bits_only(missing):
    """Scores a few units in the last place apart are ranked, not tied: the order must be exact."""
    rng = np.random.default_rng(2)
    domain = np.repeat([0, 1], 80)
    scores = (0.25 + rng.integers(0, 6, (160, 2)) * 2.0**-25).astype(np.float32)
    scores[rng.random(160) < missing, 1] = np.nan
    annotations = make_annotations(domain, rng.integers(10, 500, 160), scores)
    prior = Prior(num_domains=2, num_criteria=2, cutoff_max=0.6, exponent_max=2.0)
    thetas = draw_theta(rng, prior, 20)
    thetas += [dataclasses.replace(t, weights=np.array([[1 - 1e-9, 1e-9]] * 2)) for t in thetas]
    assert_features_match(scores, annotations, thetas, prior)


def test_features_equal_brute_force_for_windows_of_all_sizes_in_one_batch():
    """One θ opens a domain entirely, another not at all, a third takes a few large documents."""
    world = make_world(documents=300, domains=3)
    thetas = draw_theta(np.random.default_rng(4), world.prior, 6)
    sizes = np.array([[0, 1e-9, 1e-3], [1, 1, 1], [0.5, 0, 1], [1e-3, 0.02, 0.9], [0.2, 0.3, 0], [0, 0, 0]])
    thetas = [dataclasses.replace(t, cutoff=c) for t, c in zip(thetas, sizes, strict=True)]
    for few in (thetas, thetas[:1], thetas[5:]):
        assert_features_match(world.normalised, world.annotations, few, world.prior)


def test_features_equal_brute_force_when_many_small_or_tied_documents_fill_a_small_window():
    """The window's documents are far more than its share of tokens suggests, or end inside a tied group."""
    rng = np.random.default_rng(6)
    scores = np.stack([np.arange(300), np.arange(300) // 60], axis=1) / 300
    tokens = np.where(np.arange(300) < 80, 10, 1000)
    annotations = make_annotations(np.zeros(300, dtype=int), tokens, scores)
    prior = Prior(num_domains=1, num_criteria=2, exponent_max=2.0)
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        thetas = [
            dataclasses.replace(t, weights=np.array([weights]), cutoff=np.array([cutoff]))
            for t, cutoff in zip(draw_theta(rng, prior, 4), (1e-4, 2e-3, 3.5e-3, 5e-3), strict=True)
        ]
        for few in (thetas, thetas[:1]):
            assert_features_match(scores.astype(np.float32), annotations, few, prior)


def test_names_types_and_domains_describe_every_column():
    world = make_world(documents=200, domains=3)
    thetas = draw_theta(np.random.default_rng(0), world.prior, 5)
    table = features(sample_documents(world.annotations, world.normalised, seed=0), thetas, world.prior)
    assert isinstance(table, FeatureTable)
    assert table.values.shape == (5, len(table.names))
    assert len(table.names) == len(table.types) == len(table.domains) == len(set(table.names))
    assert set(table.types) == {
        "share", "score", "repetition", "total", "raw.weight.c0", "raw.weight.c1", "raw.steepness",
        "raw.cutoff", "raw.exponent", "raw.floor",
    }  # fmt: skip
    assert table.domains[table.names.index("score[d2,c1]")] == 2
    np.testing.assert_array_equal(
        table.columns(raw=True).values, np.stack([to_unit(t, world.prior) for t in thetas])
    )
    assert not table.columns(raw=False).is_raw.any()


def test_every_raw_column_is_the_parameter_that_its_name_says():
    world = make_world(documents=200, domains=3)
    theta = draw_theta(np.random.default_rng(0), world.prior, 1)[0]
    table = features(sample_documents(world.annotations, world.normalised, seed=0), [theta], world.prior)
    raw = {
        **{f"weight[d{m},c{n}]": theta.weights[m, n] for m in range(3) for n in range(2)},
        **{f"steepness[d{m}]": np.log10(theta.steepness[m]) / 3 for m in range(3)},
        **{f"cutoff[d{m}]": theta.cutoff[m] / 0.1 for m in range(3)},
        **{f"exponent[d{m}]": theta.exponent[m] for m in range(3)},
        **{f"floor[d{m}]": theta.floor[m] / 0.001 for m in range(3)},
    }
    part = table.columns(raw=True)
    assert set(part.names) == set(raw)
    for column, (name, kind, domain) in enumerate(zip(part.names, part.types, part.domains, strict=True)):
        assert part.values[0, column] == pytest.approx(raw[name], rel=1e-12)
        assert name.startswith(kind.split(".")[1] + f"[d{domain}")
        assert kind.count(".") == 1 or name.endswith("," + kind.split(".")[2] + "]")


def test_a_batch_has_the_features_of_its_thetas():
    world = make_world(documents=300, domains=3)
    units = np.random.default_rng(3).random((150, world.prior.num_parameters))
    batch = batch_from_unit(units, world.prior)
    sample = sample_documents(world.annotations, world.normalised, seed=0, per_domain=50)
    got = batch_features(sample, batch, world.prior)
    one_by_one = features(sample, [batch.theta(i) for i in range(150)], world.prior)
    np.testing.assert_array_equal(got.values, one_by_one.values)
    np.testing.assert_array_equal(got.columns(raw=True).values, batch_to_unit(batch, world.prior))
    assert (got.names, got.types, got.domains) == (one_by_one.names, one_by_one.types, one_by_one.domains)


def test_shares_follow_from_the_curves_alone_and_add_up_to_one():
    world = make_world(documents=300, domains=4)
    thetas = draw_theta(np.random.default_rng(5), world.prior, 10)
    sample = sample_documents(world.annotations, world.normalised, seed=0, per_domain=5)
    table = features(sample, thetas, world.prior)
    tokens = np.stack([curve_mass(t) for t in thetas]) * world.annotations.domain_tokens()
    np.testing.assert_allclose(
        table.values[:, table.is_share], tokens / tokens.sum(axis=1, keepdims=True), rtol=1e-9
    )


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
    np.testing.assert_allclose(table.values[:, table.names.index("share[d1]")], 0.0)
