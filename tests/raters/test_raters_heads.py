"""What heads know of the language, against formulas written out; the comparison of heads and its rule."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rater_world import shifted_vectors, vector_texts, world_pairs
from scipy.stats import norm
from scipy.stats import t as stats_t

from quadmix.errors import InputError
from quadmix.raters import arms as arms_module
from quadmix.raters.arms import HeadData, separate_languages
from quadmix.raters.choosing import tail_languages
from quadmix.raters.comparing import (
    ARMS,
    HeldOut,
    decide,
)
from quadmix.raters.dense import DenseTraining
from quadmix.raters.headruns import compare_heads
from quadmix.raters.heads import Head, HeadKind, moments

KINDS: list[HeadKind] = ["plain", "concat", "znorm", "poso", "poso-znorm"]
TEXTS = np.array([0, 1, 7, 300])  # of the unknown language and three others: tiers 2, 5, 11


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 6)).astype(np.float32) * 3 + 1
    return vectors, np.arange(60) % 4  # 0: unknown, languages 1 to 3


def a_head(kind: HeadKind, data, hidden: int = 8) -> Head:
    torch.manual_seed(0)
    found = moments(*data, 3, by_language="znorm" in kind)
    return Head(kind, found, TEXTS, hidden=hidden, dropout=0.1)


def test_moments_are_shrunk_by_n_over_n_plus_ten(data) -> None:
    vectors, languages = data
    found = moments(vectors, languages, 4, by_language=True)
    own, whole = vectors[languages == 2], vectors
    share = 15 / 25
    np.testing.assert_allclose(
        found.mean[2], share * own.mean(axis=0) + (1 - share) * whole.mean(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.scale[2] ** 2, share * own.var(axis=0) + (1 - share) * whole.var(axis=0), rtol=1e-5
    )
    np.testing.assert_array_equal(found.mean[4], found.mean[0])  # no text of it: as all texts
    assert len(moments(vectors, languages, 4, by_language=False).mean) == 1


def test_constant_number_of_a_vector_is_no_division_by_zero(data) -> None:
    vectors, languages = data
    vectors[:, 2] = 5.0
    assert np.isfinite(moments(vectors, languages, 3, by_language=True).scale).all()


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_a_head_compute_what_the_module_computes(kind: HeadKind, data) -> None:
    vectors, languages = data
    head = a_head(kind, data)
    with torch.no_grad():
        found = head(torch.from_numpy(vectors), torch.from_numpy(languages)).numpy()
    weights = head.weights(["a", "b", "c"])
    np.testing.assert_allclose(weights.scores(vectors, languages), found, atol=2e-6)
    other = weights.scores(vectors, (languages + 1) % 4)
    assert (np.abs(other - found).max() > 1e-3) == (kind != "plain")


def test_poso_head_is_equation_11(data) -> None:
    """h = C g(code) * gelu(W x + b), C = 2, the last layer not gated; written out for one text."""
    vectors, _ = data
    head = a_head("poso", data)
    named = {name: p.detach().double().numpy() for name, p in head.named_parameters()}
    x = (vectors[7] - vectors.mean(axis=0)) / vectors.std(axis=0)
    z = named["hidden.weight"] @ x + named["hidden.bias"]
    tables = named["codes.tables.of_language.weight"], named["codes.tables.of_tier.weight"]
    code = np.concatenate([tables[0][3], tables[1][11]])
    inner = np.maximum(named["gate.first.weight"] @ code + named["gate.first.bias"], 0)
    gate = 2 / (1 + np.exp(-(named["gate.second.weight"] @ inner + named["gate.second.bias"])))
    wanted = named["out.weight"][0] @ (gate * z * norm.cdf(z)) + named["out.bias"][0]
    found = head(torch.from_numpy(vectors[7:8]), torch.tensor([3])).item()
    assert found == pytest.approx(wanted, abs=1e-5)
    assert named["gate.first.weight"].shape == (16, 16)


def test_concatenated_code_stands_beside_the_vector(data) -> None:
    vectors, _ = data
    head = a_head("concat", data, hidden=0)
    named = {name: p.detach().double().numpy() for name, p in head.named_parameters()}
    x = (vectors[7] - vectors.mean(axis=0)) / vectors.std(axis=0)
    tables = named["codes.tables.of_language.weight"], named["codes.tables.of_tier.weight"]
    whole = np.concatenate([x, tables[0][2], tables[1][5]])
    wanted = named["out.weight"][0] @ whole + named["out.bias"][0]
    assert head(torch.from_numpy(vectors[7:8]), torch.tensor([2])).item() == pytest.approx(wanted, abs=1e-5)


def test_unknown_language_is_of_unknown_tier_and_others_of_the_bucket_of_their_texts(data) -> None:
    head = a_head("poso", data)
    code = head.code(torch.arange(4))
    tables = head.codes.tables["of_language"].weight, head.codes.tables["of_tier"].weight
    wanted = torch.stack([torch.cat([tables[0][i], tables[1][j]]) for i, j in enumerate((0, 2, 5, 11))])
    assert torch.equal(code, wanted)


def test_gate_that_reads_the_text_has_no_table_and_is_equation_11_with_all_features(data) -> None:
    vectors, languages = data
    head = a_head("gate-all", data)
    x = torch.from_numpy((vectors - vectors.mean(axis=0)) / vectors.std(axis=0))
    rows = torch.from_numpy(languages)
    factors = head.gate(torch.cat([x, head.code(rows)], dim=1))
    wanted = head.out(torch.nn.functional.gelu(head.hidden(x)) * factors)[:, 0]
    torch.testing.assert_close(head(torch.from_numpy(vectors), rows), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="no table per language"):
        head.weights(["a", "b", "c"])


def test_sensitivity_compares_a_language_with_the_unknown_one(data) -> None:
    vectors, languages = data
    given = torch.from_numpy(vectors), torch.from_numpy(languages)
    assert a_head("plain", data).sensitivity(*given) == 0
    head = a_head("poso", data)
    shown, masked = head.last(*given), head.last(given[0], torch.zeros(60, dtype=torch.int64))
    wanted = (shown - masked).abs().sum() / shown.abs().sum()
    assert head.sensitivity(*given) == pytest.approx(wanted.item(), rel=1e-5)
    assert wanted > 0.05


# The rule


def results(tail_gain: dict[str, float], head_gain: dict[str, float], *, seeds: int = 5) -> HeldOut:
    """4,000 pairs of sources of their own, 5 languages, the last four the tail; right with a probability of
    0.7 plus a head's gain, by draws that all heads share."""
    rng = np.random.default_rng(0)
    pairs = 4000
    language = [f"l{i % 5}" for i in range(pairs)]
    draw = rng.random((seeds, pairs))
    right = {}
    for arm in ("plain", "concat", "znorm", "poso", "placebo"):
        chance = [0.7 + (head_gain if code == "l0" else tail_gain).get(arm, 0.0) for code in language]
        right[arm] = (draw < np.array(chance)).astype(np.float64)
    return HeldOut(language=tuple(language), a=np.arange(pairs), b=np.arange(pairs) + pairs, right=right)


TAIL = ("l1", "l2", "l3", "l4")


@pytest.mark.parametrize(
    ("tail", "head", "chosen", "why"),
    [
        ({"poso": 0.03}, {}, "poso", "the placebo gains nothing"),
        ({}, {}, "plain", "no simple head beats plain"),
        ({"poso": 0.03, "znorm": 0.03}, {}, "znorm", r"poso against znorm.*below the 0\.5 points"),
        ({"poso": 0.03}, {"poso": -0.03}, "plain", r"head languages lose .* above 0\.2"),
        ({"poso": 0.03, "placebo": 0.03}, {}, "plain", "codes dealt out at random gain"),
        ({"poso": 0.03, "placebo": 0.002}, {}, "plain", r"codes dealt out at random gain, too: \+0\.2"),
        ({"concat": 0.03}, {}, "concat", "concat against plain"),
        ({"concat": 0.03}, {"concat": -0.03}, "plain", "no simple head"),
        ({"poso": 0.003}, {}, "plain", r"below the 0\.5 points"),
    ],
)
def test_rule_of_the_comparison(tail, head, chosen: str, why: str) -> None:
    found = decide(results(tail, head), TAIL)
    assert found.chosen == chosen
    assert re.search(why, found.why), found.why


def test_few_seeds_choose_nothing_but_plain() -> None:
    found = decide(results({"poso": 0.1}, {}, seeds=4), TAIL)
    assert found.chosen == "plain"
    assert found.why.startswith("4 seeds were trained")


def test_accuracies_and_gains_are_means_of_languages_with_paired_intervals() -> None:
    """Two languages of different size weigh the same; equal results have a difference of 0 and no width."""
    right = np.array([[1.0, 1.0, 1.0, 0.0, 1.0, 0.5]] * 5)
    other = right.copy()
    held = HeldOut(
        language=("a", "a", "a", "a", "b", "b"), a=np.arange(6), b=np.arange(6) + 6,
        right={"plain": right, "concat": other},
    )  # fmt: skip
    found = {arm.arm: arm for arm in decide(held, ("b",)).arms}
    assert found["plain"].every == pytest.approx((0.75 + 0.75) / 2)
    assert found["plain"].languages == {"a": 0.75, "b": 0.75}
    assert (
        found["concat"].tail_gain.value
        == found["concat"].tail_gain.low
        == found["concat"].tail_gain.high
        == 0
    )


def test_interval_is_as_wide_as_the_estimate_varies_when_pairs_share_sources() -> None:
    """500 worlds of 60 sources with an effect on every pair that they are in, no effect of seeds: the half
    width is 1.96 standard deviations of the estimate over worlds."""
    rng = np.random.default_rng(0)
    values, widths = list[float](), list[float]()
    for _ in range(500):
        a, b = rng.integers(60, size=(2, 150))
        effect = rng.normal(size=60)
        gain = effect[a] + effect[b] + rng.normal(size=150)
        right = {"plain": np.zeros((5, 150)), "concat": np.tile(gain, (5, 1))}
        held = HeldOut(language=("l1", "l2") * 75, a=a, b=b, right=right)
        found = next(x for x in decide(held, ("l1", "l2")).arms if x.arm == "concat").tail_gain
        values.append(found.value)
        widths.append((found.high - found.low) / 2 / 1.96)
    assert np.mean(widths) == pytest.approx(np.std(values), rel=0.12)


def test_seeds_that_disagree_widen_the_interval() -> None:
    """No spread over pairs: the interval is Student's over the seeds."""
    gains = np.array([0.01, 0.05, 0.02, 0.06, 0.01])
    right = {"plain": np.zeros((5, 20)), "concat": np.repeat(gains[:, None], 20, axis=1)}
    held = HeldOut(language=("l1",) * 20, a=np.arange(20), b=np.arange(20) + 20, right=right)
    found = next(x for x in decide(held, ("l1",)).arms if x.arm == "concat").tail_gain
    low, high = stats_t.interval(0.95, 4, loc=gains.mean(), scale=gains.std(ddof=1) / np.sqrt(5))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("each", [2, 3, 6, 10])
def test_interval_covers_the_true_gain_with_few_pairs_per_language(each: int) -> None:
    """600 worlds of five tail languages in which both heads are right with the same probability: the 95 %
    interval of the gain misses 0 in about one of twenty."""
    rng = np.random.default_rng(each)
    pairs, missed = 5 * each, 0
    language = tuple(f"l{i % 5}" for i in range(pairs))
    for _ in range(600):
        right = {arm: np.tile(rng.random(pairs) < 0.7, (5, 1)).astype(float) for arm in ("plain", "concat")}
        held = HeldOut(language=language, a=np.arange(pairs), b=np.arange(pairs) + pairs, right=right)
        gain = decide(held, ("l0", "l1", "l2", "l3", "l4")).arms[1].tail_gain
        missed += not gain.low <= 0 <= gain.high
    assert 0.02 < missed / 600 < 0.09


@pytest.mark.parametrize(("concat", "znorm", "chosen"), [(0.03, 0.0301, "concat"), (0.03, 0.06, "znorm")])
def test_the_simplest_winner_stays_unless_another_beats_it_beyond_the_interval(
    concat: float, znorm: float, chosen: str
) -> None:
    held = results({"concat": concat, "znorm": znorm}, {})
    by_arm = {arm.arm: arm for arm in decide(held, TAIL).arms}
    assert by_arm["znorm"].tail > by_arm["concat"].tail
    assert min(by_arm[arm].tail_gain.low for arm in ("concat", "znorm")) > 0
    assert decide(held, TAIL).chosen == chosen


def test_too_small_a_tail_decides_nothing() -> None:
    """One pair in each of five languages, all won by POSO: no residual says how far that varies."""
    right = {arm: np.zeros((5, 5)) for arm in ("plain", "placebo")} | {"poso": np.ones((5, 5))}
    tail = ("l0", "l1", "l2", "l3", "l4")
    found = decide(HeldOut(language=tail, a=np.arange(5), b=np.arange(5) + 5, right=right), tail)
    assert found.chosen == "plain"
    assert re.search("5 judged pairs of 10 sources, 1 in l0, and the rule asks for 30, 10 and 2", found.why)
    gain = found.arms[2].tail_gain
    assert (gain.value, gain.low, gain.high) == (1.0, -1.0, 1.0)
    few = results({"poso": 0.1}, {})
    rows = np.array([i for i, code in enumerate(few.language) if code != "l4" or i < 5])
    right = {arm: values[:, rows] for arm, values in few.right.items()}
    language = tuple(few.language[i] for i in rows)
    found = decide(HeldOut(language=language, a=few.a[rows], b=few.b[rows], right=right), TAIL)
    assert (found.chosen, "1 in l4" in found.why) == ("plain", True)
    found = decide(HeldOut(language=few.language, a=few.a % 4, b=few.a % 4 + 4, right=few.right), TAIL)
    assert (found.chosen, "of 8 sources" in found.why) == ("plain", True)


def test_results_that_do_not_fit_are_refused() -> None:
    held = results({}, {})
    with pytest.raises(InputError, match="expected plain, too"):
        decide(HeldOut(language=held.language, a=held.a, b=held.b, right={"poso": held.right["poso"]}), TAIL)
    short = {**held.right, "poso": held.right["poso"][:3]}
    with pytest.raises(InputError, match=r"'poso' have shape \(3, 4000\), expected \(5, 4000\)"):
        decide(HeldOut(language=held.language, a=held.a, b=held.b, right=short), TAIL)
    with pytest.raises(InputError, match=r"no held pair is in a tail language \(none named\)"):
        decide(held, ())
    with pytest.raises(InputError, match=r"tail language \(xx\); name with --tail .*: l0, l1, l2, l3, l4$"):
        decide(held, ("l1", "xx"))


def test_runner_trains_every_arm_with_every_seed_and_decides() -> None:
    quality = np.random.default_rng(0).normal(size=100)
    ratings = quality[:, None] + np.random.default_rng(1).normal(scale=0.5, size=(100, 3))
    pairs, texts = world_pairs(ratings, 3, (300, 100, 50), 2), vector_texts(100, 3)
    training, seen = DenseTraining(hidden=8, batch=128, epochs=1), list[tuple[int, int]]()
    found = compare_heads(
        HeadData(vectors=shifted_vectors(quality, 3, 3), texts=texts, pairs=pairs), training, seeds=2,
        tail=("l1",), progress=lambda done, whole: seen.append((done, whole)),
    )  # fmt: skip
    assert [arm.arm for arm in found.arms] == [
        arm for arm in ARMS if arm != "separate"
    ]  # under 500 pairs each
    assert seen == [(i, 18) for i in range(19)]
    assert {gate.language for gate in found.gates} == {"l0", "l1", "l2"}
    assert all(gate.sensitivity > 0 for gate in found.gates)
    assert found.seeds == 2
    assert found.chosen == "plain"
    judged = pairs.held & (pairs.kind == 0) & (pairs.p != 0.5)
    assert found.pairs == judged.sum()


def test_large_languages_have_heads_of_their_own_which_see_their_pairs_alone(monkeypatch) -> None:
    """With a threshold that l0 alone reaches, the labels of other pairs may turn and l0's accuracy does
    not change."""
    quality = np.random.default_rng(0).normal(size=100)
    ratings = quality[:, None] + np.random.default_rng(1).normal(scale=0.5, size=(100, 3))
    pairs, texts = world_pairs(ratings, 3, (300, 100, 50), 2), vector_texts(100, 3)
    language = np.array([texts.language[i] for i in pairs.a])
    few = (language == "l0") | pairs.held | (np.arange(len(pairs)) % 2 == 0) | (pairs.kind != 0)
    monkeypatch.setattr(arms_module, "LEAST_SEPARATE", 70)
    pairs, language = pairs.take(few), language[few]
    assert list(separate_languages(pairs, texts, least=70)) == ["l0"]
    training = DenseTraining(hidden=8, batch=128, epochs=6, lr=1e-2)
    vectors, arms = shifted_vectors(quality, 3, 3), ("plain", "separate")
    other = ~pairs.held & ((language != "l0") | (pairs.kind != 0))
    right = []
    for p in (pairs.p, np.where(other, 1.0 - pairs.p, pairs.p)):
        data = HeadData(vectors=vectors, texts=texts, pairs=replace(pairs, p=p))
        found = compare_heads(data, training, seeds=1, arms=arms, tail=("l0",))
        right.append({arm.arm: arm.languages for arm in found.arms})
    assert right[0]["separate"]["l0"] == right[1]["separate"]["l0"]
    assert right[0]["plain"]["l0"] != right[1]["plain"]["l0"]
    assert right[0]["separate"]["l1"] == right[0]["plain"]["l1"]


def test_reason_names_what_no_rater_has_but_does_better() -> None:
    held = results({"concat": 0.03}, {})
    right = {**held.right, "balanced": np.minimum(held.right["plain"] + (np.arange(4000) % 5 == 1), 1.0)}
    found = decide(HeldOut(language=held.language, a=held.a, b=held.b, right=right), TAIL)
    assert found.chosen == "concat"
    assert re.search(r"balanced against concat: tail \+\d.* but no rater has it", found.why)
    assert "separate" not in found.why


def test_tail_is_the_languages_with_few_training_pairs() -> None:
    texts = vector_texts(40, 3)
    pairs = world_pairs(np.random.default_rng(0).normal(size=(40, 3)), 3, (400, 0, 0), 1)
    language = np.array([texts.language[i] for i in pairs.a])
    drop = (language == "l2") & (np.arange(len(pairs)) % 10 > 0)
    assert tail_languages(pairs.take(~drop), texts) == ("l2",)
    untrained = pairs.held | (language != "l2")
    few = (language == "l1") & ~pairs.held & (np.arange(len(pairs)) % 10 > 0)
    assert tail_languages(pairs.take(untrained & ~few), texts) == ("l1",), "l2 was never trained on"
    with pytest.raises(InputError, match=r"name them with --tail"):
        tail_languages(pairs, texts)  # none is far behind


def test_languages_that_were_never_trained_on_are_told_apart_and_decide_nothing() -> None:
    quality = np.random.default_rng(0).normal(size=100)
    ratings = quality[:, None] + np.random.default_rng(1).normal(scale=0.5, size=(100, 3))
    pairs, texts = world_pairs(ratings, 3, (300, 0, 0), 2), vector_texts(100, 3)
    language = np.array([texts.language[i] for i in pairs.a])
    pairs = pairs.take(pairs.held | (language != "l2"))
    training = DenseTraining(hidden=8, batch=128, epochs=1)
    data = HeadData(vectors=shifted_vectors(quality, 3, 3), texts=texts, pairs=pairs)
    found = compare_heads(data, training, seeds=1, arms=("plain",), tail=("l1",))
    (plain,) = found.arms
    assert set(plain.languages) == {"l0", "l1"}
    assert set(plain.unseen) == {"l2"}
    assert 0 <= plain.unseen["l2"] <= 1
    language = np.array([texts.language[i] for i in pairs.a])
    assert found.pairs == (pairs.held & (pairs.p != 0.5) & (language != "l2")).sum()
    with pytest.raises(InputError, match="no held pair is in a tail language"):
        compare_heads(data, training, seeds=1, arms=("plain",), tail=("l2",))
