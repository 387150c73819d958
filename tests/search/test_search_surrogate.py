"""Surrogates learn, stay honest on noise, see what they may see, and repeat themselves bit for bit."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from search_world import make_world
from sklearn.linear_model import Ridge

from quadmix.engine.threads import one_thread
from quadmix.errors import SearchError
from quadmix.search.features import features, sample_documents
from quadmix.search.space import share_table
from quadmix.search.surrogate import (
    KINDS,
    Ensemble,
    Predicted,
    blend,
    cross_blend,
    cross_predict,
    fit_members,
    fit_plain,
    member_weights,
    members_of,
    split_folds,
    with_errors,
)
from quadmix.search.table import TRANSFORMS, FeatureTable

SMALL_DATA = tuple(k for k in KINDS if k not in ("paper", "transfer", "mixing"))
LEAST = {"paper": 40, "lightgbm": 20, "transfer": 12, "mixing": 12}


@pytest.fixture(autouse=True, scope="module")
def one_blas_thread():
    with one_thread():
        yield


def swarm_data(seed, count=48, target="hard"):
    world = make_world(documents=1000, domains=5, seed=seed)
    trials = world.swarm(count, repeats=0)
    sample = sample_documents(world.annotations, world.normalised, seed=1)
    table = features(sample, [t.theta for t in trials], world.prior)
    y = np.array([t.losses[target].bits_per_byte for t in trials])
    return table, y, split_folds(count, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def data():
    return swarm_data(1)


def toy_table(values, kind="score"):
    p = values.shape[1]
    return FeatureTable(
        values=values, names=tuple(f"f{i}" for i in range(p)),
        types=(kind,) * p, domains=tuple(i % 3 for i in range(p)),
    )  # fmt: skip


def mixtures(count, domains=4, seed=0):
    shares = np.random.default_rng(seed).dirichlet(np.ones(domains), count)
    return share_table(shares, tuple(f"d{i}" for i in range(domains)))


def wide(count, seed=0):
    return toy_table(np.random.default_rng(seed).normal(size=(count, 41)))


def relative_error(y, found):
    return float(((found.mean - y) ** 2).mean() / y.var())


def predicted(mean, stderr=1.0):
    mean = np.asarray(mean, dtype=float)
    return Predicted(mean=mean, stderr=np.broadcast_to(np.float64(stderr), mean.shape).copy())


@dataclass
class Constant:
    """A surrogate that says one number and counts how often it was asked."""

    value: float
    stderr: float = float("nan")
    asked: list = field(default_factory=list)

    def predict(self, table):
        self.asked.append(len(table))
        return predicted(np.full(len(table), self.value), self.stderr)

    def mean(self, table):
        return self.predict(table).mean


def test_every_small_data_surrogate_beats_the_mean_out_of_fold_and_auto_beats_paper(data):
    ratios = []
    for table, y, folds in (data, swarm_data(2)):
        members = members_of("auto", table, len(y))
        assert members == ["gp-ard", "gp-ard-cbrt", "ridge", "lightgbm", "gp-isotropic"]
        found = {k: cross_predict(k, table, y, folds) for k in (*SMALL_DATA, "paper")}
        for kind in SMALL_DATA:
            assert relative_error(y, found[kind]) < 0.75, kind
        parts = [found[k] for k in members]
        auto = relative_error(y, cross_blend(parts, y, folds))
        assert auto < 0.3
        assert auto < 1.3 * min(relative_error(y, p) for p in parts)
        ratios.append(auto / relative_error(y, found["paper"]))
    assert max(ratios) < 0.5


def test_laws_and_processes_learn_shares_alone():
    table = mixtures(60)
    y = 1 + (0.1 + table.values @ np.array([1.0, 0.3, 0.1, 0.02])) ** -0.4
    folds = split_folds(60, np.random.default_rng(0))
    for kind in ("transfer", "mixing", "gp-ard", "gp-ard-cbrt", "ridge"):
        assert relative_error(y, cross_predict(kind, table, y, folds)) < 0.2, kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_needs_more_trials_says_how_many_and_how_many_there_are(kind):
    table, least = mixtures(60), LEAST.get(kind, 8)
    with pytest.raises(
        SearchError, match=rf"surrogate '{kind}' needs at least {least} trials, there are {least - 1};"
    ):
        members_of(kind, table, least - 1)
    assert members_of(kind, table, least) == [kind]


def test_an_unknown_kind_is_refused_with_the_known_ones(data):
    table, y, _ = data
    with pytest.raises(SearchError, match=r"unknown surrogate 'forest'; expected auto, gp or one of .*ridge"):
        fit_plain("forest", table, y)


def test_auto_drops_members_that_four_fifths_of_the_trials_are_too_few_for():
    table = mixtures(100)
    assert members_of("auto", table, 25) == [
        "gp-ard", "gp-ard-cbrt", "transfer", "ridge", "lightgbm", "gp-isotropic",
    ]  # fmt: skip
    assert "lightgbm" not in members_of("auto", table, 24)
    assert "transfer" in members_of("auto", table, 15)
    assert members_of("auto", table, 14) == ["gp-ard", "gp-ard-cbrt", "ridge", "gp-isotropic"]
    assert members_of("auto", wide(8), 8) == ["gp-structured", "gp-isotropic", "ridge"]


def test_laws_are_members_only_where_inputs_are_shares_alone_and_scales_are_structured_when_wide(data):
    assert "transfer" not in members_of("auto", data[0], 48)
    assert "gp-structured" in members_of("auto", wide(48), 48)
    assert members_of("gp", wide(48), 48) == ["gp-structured"]
    assert members_of("gp", data[0], 48) == ["gp-ard"]


def test_weights_are_inverse_squared_mean_square_errors():
    """Errors 1, 2 and 1: MSE 1, 4 and 1, so weights 16 : 1 : 16."""
    parts = [predicted([1.0] * 4), predicted([2.0] * 4), predicted([1.0, -1.0, 1.0, -1.0])]
    np.testing.assert_allclose(member_weights(parts, np.zeros(4)), np.array([16, 1, 16]) / 33)


def test_a_perfect_member_takes_all_the_weight_without_dividing_by_zero():
    y = np.arange(5.0)
    np.testing.assert_allclose(member_weights([predicted(y), predicted(y + 1)], y), [1, 0], atol=1e-6)
    np.testing.assert_allclose(member_weights([predicted(y), predicted(y)], y), [0.5, 0.5])


def test_blending_weights_of_a_fold_do_not_see_that_fold():
    rng = np.random.default_rng(6)
    y, folds = rng.normal(size=20), np.repeat(np.arange(5), 4)
    parts = [predicted(y + rng.normal(size=20) * (i + 1)) for i in range(3)]
    before = cross_blend(parts, y, folds).mean
    after = cross_blend(parts, np.where(folds == 2, 100.0, y), folds).mean
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert (before[folds != 2] != after[folds != 2]).all()


def test_out_of_fold_predictions_are_those_of_a_fit_without_the_fold(data):
    table, y, folds = data
    found = cross_predict("ridge", table, y, folds)
    for fold in range(5):
        keep = np.flatnonzero(folds != fold)
        alone = fit_plain("ridge", table.rows(keep), y[keep]).predict(table.rows(folds == fold))
        np.testing.assert_array_equal(found.mean[folds == fold], alone.mean)
    changed = cross_predict("ridge", table, np.where(folds == 3, y + 9, y), folds)
    np.testing.assert_array_equal(changed.mean[folds == 3], found.mean[folds == 3])


def test_missing_deviations_of_a_fold_are_the_error_of_the_other_folds():
    y, folds = np.zeros(6), np.array([0, 0, 1, 1, 2, 2])
    mean = np.array([1.0, -1.0, 2.0, 2.0, 3.0, -3.0])
    found = with_errors(predicted(mean, np.nan), y, folds).stderr
    others = [np.sqrt((4 + 9) / 2), np.sqrt((1 + 9) / 2), np.sqrt((1 + 4) / 2)]
    np.testing.assert_allclose(found, np.repeat(others, 2))
    assert with_errors(predicted(mean, 0.5), y, folds).stderr.tolist() == [0.5] * 6


def test_a_blend_has_mean_and_deviation_of_the_mixture_of_its_members():
    """Against draws: choose a member by weight, then draw from it."""
    parts = [predicted([0.0, 1.0], 1.0), predicted([3.0, 1.0], 0.5), predicted([-1.0, 1.0], 2.0)]
    weights = np.array([0.5, 0.3, 0.2])
    rng = np.random.default_rng(7)
    which = rng.choice(3, size=200_000, p=weights)
    means, sds = (np.array([getattr(p, name) for p in parts])[which] for name in ("mean", "stderr"))
    draws = means + sds * rng.normal(size=means.shape)
    found = blend(parts, weights)
    np.testing.assert_allclose(found.mean, draws.mean(0), atol=0.02)
    np.testing.assert_allclose(found.stderr, draws.std(0), rtol=0.01)


def test_light_members_are_dropped_and_the_others_share_the_weight():
    y = np.random.default_rng(8).normal(size=30)
    members = {"good": Constant(1.0, 0.1), "fair": Constant(2.0, 0.1), "bad": Constant(99.0, 0.1)}
    out_of_fold = {"good": predicted(y + 1.0), "fair": predicted(y + 1.2), "bad": predicted(y + 5.0)}
    whole = member_weights(list(out_of_fold.values()), y)
    assert whole[2] < 0.02 < whole[1]
    fitted = fit_members(members, out_of_fold, y)
    assert isinstance(fitted, Ensemble)
    got = fitted.predict(mixtures(3)).mean
    np.testing.assert_allclose(got, (whole[0] * 1.0 + whole[1] * 2.0) / (whole[0] + whole[1]))
    assert members["bad"].asked == []
    assert members["good"].asked == [3]


def test_a_member_without_a_deviation_of_its_own_takes_its_out_of_fold_error():
    y = np.arange(10.0)
    out_of_fold = {"only": predicted(y + np.array([3.0, -3.0] * 5))}
    assert fit_members({"only": Constant(1.0)}, out_of_fold, y).predict(mixtures(2)).stderr.tolist() == [3, 3]
    own = fit_members({"only": Constant(1.0, 0.25)}, out_of_fold, y).predict(mixtures(2))
    assert own.stderr.tolist() == [0.25, 0.25]


def test_duplicate_trials_and_constant_columns_do_not_break_a_fit():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(12, 5)), np.ones((12, 2))], axis=1)
    x, y = np.concatenate([x, x]), rng.normal(size=24)
    for kind in SMALL_DATA:
        found = fit_plain(kind, toy_table(x), y).predict(toy_table(x))
        assert np.isfinite(found.mean).all(), kind
        assert not (found.stderr < 0).any(), kind
    shares = mixtures(12).values
    for kind in ("transfer", "mixing", "gp-ard", "ridge"):
        table = share_table(np.concatenate([shares, shares]), tuple("abcd"))
        assert np.isfinite(fit_plain(kind, table, y).predict(table).mean).all(), kind


def test_a_column_that_never_varied_has_no_say():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(24, 4))
    y = x[:, 0] + 0.1 * rng.normal(size=24)
    x[:, 2] = 0.7  # the mean of 24 of them is not 0.7 to the last bit
    moved = x.copy()
    moved[:, 2] += rng.normal(size=24)
    for kind in SMALL_DATA:
        fitted = fit_plain(kind, toy_table(x), y)
        before, after = (fitted.predict(toy_table(v)).mean for v in (x, moved))
        np.testing.assert_allclose(after, before, atol=1e-9, err_msg=kind)


def test_rounding_errors_of_a_column_are_not_taken_for_a_feature():
    """All θ meet one budget, so log(total tokens) varies in its last digits alone; a candidate that was
    fitted by another root finder differs by more than that, and must be predicted the same."""
    rng = np.random.default_rng(14)
    x = rng.normal(size=(24, 4))
    y = x[:, 0] + 0.1 * rng.normal(size=24)
    x[:, 2] = 9.4 + 1e-13 * rng.normal(size=24)
    moved = x.copy()
    moved[:, 2] = 9.4 + 1e-10
    for kind in SMALL_DATA:
        fitted = fit_plain(kind, toy_table(x), y)
        before, after = (fitted.predict(toy_table(v)).mean for v in (x, moved))
        np.testing.assert_allclose(after, before, atol=1e-3, err_msg=kind)


def test_ridge_equals_scikit_learn_at_its_penalty_and_picks_the_best_by_brute_force():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 6))
    y = x @ rng.normal(size=6) + rng.normal(size=20)
    z = (x - x.mean(0)) / x.std(0)

    def left_out(penalty):
        # the intercept is the mean of all of y, and the columns are scaled once, as in the closed form
        full = np.column_stack([np.ones(20), z])
        ridge = np.diag([0.0, *[penalty] * 6])
        errors = []
        for i in range(20):
            keep = np.arange(20) != i
            beta = np.linalg.solve(full[keep].T @ full[keep] + ridge, full[keep].T @ y[keep])
            errors.append(y[i] - full[i] @ beta)
        return np.mean(np.square(errors))

    best = min(np.geomspace(1e-2, 1e6, 25), key=left_out)
    got = fit_plain("ridge", toy_table(x), y).predict(toy_table(x))
    np.testing.assert_allclose(got.mean, Ridge(alpha=best).fit(z, y).predict(z), atol=1e-8)
    assert got.stderr[0] == pytest.approx(np.sqrt(left_out(best)))


@pytest.mark.parametrize("how", [t for t in TRANSFORMS if t != "log:3e-3"])
def test_ridge_finds_the_scale_of_the_shares_that_the_losses_are_linear_on(how):
    table = mixtures(40, seed=10)
    y = table.transformed(how) @ np.array([1.0, -0.5, 0.2, 0.0])
    new = mixtures(100, seed=11)
    got = fit_plain("ridge", table, y).predict(new).mean
    reach = 0.25 * np.ptp(y)
    truth = np.clip(new.transformed(how) @ np.array([1.0, -0.5, 0.2, 0.0]), y.min() - reach, y.max() + reach)
    np.testing.assert_allclose(got, truth, atol=0.01 * np.ptp(y))


def test_ridge_stays_on_its_leash_when_extrapolating():
    """A linear model may promise a quarter of the observed range more than was observed, no further."""
    rng = np.random.default_rng(12)
    x = rng.uniform(-1, 1, (30, 2))
    y = 3 * x[:, 0]
    fitted = fit_plain("ridge", toy_table(x), y)
    far = fitted.predict(toy_table(np.array([[100.0, 0], [-100.0, 0]]))).mean
    np.testing.assert_allclose(far, [y.max() + 0.25 * np.ptp(y), y.min() - 0.25 * np.ptp(y)])
    np.testing.assert_allclose(fitted.predict(toy_table(x)).mean, y, atol=0.05)


def test_the_paper_sees_parameters_alone_and_shares_where_there_are_none(data):
    table, y, _ = data
    blind = replace(table, values=np.where(table.is_raw, table.values, np.nan))
    fitted = fit_plain("paper", table, y)
    np.testing.assert_array_equal(fitted.predict(table).mean, fitted.predict(blind).mean)
    assert np.ptp(fitted.predict(blind).mean) > 0
    shares = mixtures(60)
    y = shares.values[:, 0] ** 2
    assert np.corrcoef(fit_plain("paper", shares, y).predict(shares).mean, y)[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["ridge", "gp-isotropic", "lightgbm"])
def test_every_other_kind_sees_the_features_it_was_told_to(data, kind):
    table, y, _ = data
    rng = np.random.default_rng(13)
    noise = table.values + rng.normal(size=table.values.shape) * table.values.std(0)
    other_raw = replace(table, values=np.where(table.is_raw, noise, table.values))
    other_real = replace(table, values=np.where(table.is_raw, table.values, np.maximum(noise, 0)))
    sees = {"realised": (False, True), "raw": (True, False), "both": (True, True)}
    for which, (raw, realised) in sees.items():
        fitted = fit_plain(kind, table, y, which)
        plain = fitted.predict(table).mean
        assert (fitted.predict(other_raw).mean != plain).any() == raw, which
        assert (fitted.predict(other_real).mean != plain).any() == realised, which


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_alone_is_that_of_the_whole_prediction(data, kind):
    table, new = mixtures(48), mixtures(30, seed=15)
    fitted = fit_plain(kind, table, data[1])
    np.testing.assert_allclose(fitted.mean(new), fitted.predict(new).mean, rtol=1e-12)


def test_the_mean_of_an_ensemble_is_that_of_its_whole_prediction(data):
    table, y, folds = data
    kinds = ("ridge", "gp-ard", "lightgbm")
    fitted = fit_members(
        {k: fit_plain(k, table, y) for k in kinds}, {k: cross_predict(k, table, y, folds) for k in kinds}, y
    )
    np.testing.assert_allclose(fitted.mean(table), fitted.predict(table).mean, rtol=1e-12)


def test_with_many_trials_the_isotropic_process_is_left_out():
    assert "gp-isotropic" in members_of("auto", mixtures(9), 256)
    assert "gp-isotropic" not in members_of("auto", mixtures(9), 257)
    assert "gp-isotropic" in members_of("auto", wide(9), 257)


def test_fits_are_deterministic(data):
    table, y, folds = data
    for kind in members_of("auto", table, len(y)):
        first, second = (cross_predict(kind, table, y, folds) for _ in range(2))
        np.testing.assert_array_equal(first.mean, second.mean, err_msg=kind)
        np.testing.assert_array_equal(first.stderr, second.stderr, err_msg=kind)


def test_folds_have_equal_sizes_and_cover_everything():
    folds = split_folds(23, np.random.default_rng(0))
    assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]
    assert sorted(split_folds(3, np.random.default_rng(0))) == [0, 1, 2]
