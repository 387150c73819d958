"""Comparisons of heads that go on, are judged inside domains, and the curve over labels of the tail."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rater_world import direction_world, shifted_vectors, vector_texts, world_pairs

from quadmix.errors import InputError
from quadmix.raters import arms as arms_module
from quadmix.raters.arms import HeadData, Judged, dealt, separate_languages
from quadmix.raters.dense import DenseTraining
from quadmix.raters.headcurve import CURVE_ARMS, label_curve, labelled_pairs, limited
from quadmix.raters.headruns import compare_heads
from quadmix.raters.learning import canonical
from quadmix.raters.table import CROSS, MONO, PARALLEL, Pairs, Texts
from quadmix.raters.telling import heads_lines
from quadmix.report.heads import curve_picture

TRAINING = DenseTraining(hidden=16, batch=256, epochs=6, lr=2e-2)


@pytest.fixture(scope="module")
def data() -> HeadData:
    quality = np.random.default_rng(0).normal(size=100)
    ratings = quality[:, None] + np.random.default_rng(1).normal(scale=0.5, size=(100, 3))
    return HeadData(
        vectors=shifted_vectors(quality, 3, 3), texts=vector_texts(100, 3),
        pairs=world_pairs(ratings, 3, (600, 200, 100), 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def told_domains() -> HeadData:
    vectors, texts, pairs, domains = direction_world(seed=5)
    return HeadData(vectors=vectors, texts=texts, pairs=pairs, domains=domains)


def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the heads that are trained from now on, as they come."""
    seen: list[str] = []
    inner = arms_module.train_head

    def listened(vectors, texts, pairs, training, domains=None):
        seen.append(training.head)
        return inner(vectors, texts, pairs, training, domains)

    monkeypatch.setattr(arms_module, "train_head", listened)
    return seen


def test_domain_in_the_code_wins_for_poso_and_is_lost_without_it(told_domains: HeadData) -> None:
    """Five seeds of the whole rule: the domain turns the direction of the score and nothing else says so."""
    training = replace(TRAINING, hidden=32, epochs=8)
    arms = ("plain", "poso", "placebo")
    found = compare_heads(told_domains, training, seeds=5, arms=arms, tail=("l1",))
    by_arm = {arm.arm: arm for arm in found.arms}
    assert found.chosen == "poso"
    assert by_arm["poso"].tail > 0.85
    assert by_arm["poso"].tail_gain.low > 0.2
    assert abs(by_arm["placebo"].tail - 0.5) < 0.1
    assert set(found.domain_sensitivity) == {"d0", "d1", "d2", "d3"}
    assert set(found.domain_start) == set(found.domain_sensitivity)
    assert max(found.domain_start.values()) < min(found.domain_sensitivity.values())
    assert "S of masking the domain (at its start): d0 " in "\n".join(heads_lines(found))
    assert min(found.domain_sensitivity.values()) > 2 * max(g.sensitivity for g in found.gates)
    silent = replace(told_domains, domains=None)
    without = compare_heads(silent, training, seeds=1, arms=("plain", "poso"), tail=("l1",))
    assert all(abs(arm.tail - 0.5) < 0.1 for arm in without.arms)
    assert without.domain_sensitivity == {}


def test_pairs_of_two_domains_decide_nothing_where_the_code_has_the_domain(told_domains: HeadData) -> None:
    domains = list(told_domains.domains or ())
    held = told_domains.pairs.take(told_domains.pairs.held)
    domains[int(held.a[0])] = "d9"
    for i in held.b[1:4].tolist():
        domains[i] = ""
    moved = replace(told_domains, domains=domains)
    judged = Judged.of(moved)
    wanted = [domains[a] == domains[b] != "" for a, b in zip(held.a, held.b, strict=True)]
    assert len(judged.pairs) == sum(wanted)
    assert judged.across == len(held) - sum(wanted) > 0
    assert Judged.of(replace(moved, domains=None)).across == 0
    alone = [f"d{i}" for i in range(len(domains))]
    with pytest.raises(InputError, match="held pairs is of two texts of one domain"):
        compare_heads(replace(told_domains, domains=alone), TRAINING, seeds=1, arms=("plain",), tail=("l1",))


def test_a_comparison_that_was_killed_goes_on_and_gives_the_same(
    data: HeadData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"seeds": 2, "arms": ("plain", "poso", "placebo"), "tail": ("l1",)}
    training = replace(TRAINING, epochs=1)
    whole = compare_heads(data, training, **how)
    seen = trainings(monkeypatch)

    def killed(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_heads(data, training, store=tmp_path, progress=killed, **how)
    assert seen == ["plain", "poso", "poso", "plain"]
    again = compare_heads(data, training, store=tmp_path, **how)
    assert seen[4:] == ["plain", "poso", "poso"], "the seed that was done is read"
    assert again == whole
    assert compare_heads(data, training, store=tmp_path, **how) == whole
    assert len(seen) == 7
    compare_heads(data, replace(training, lr=1e-3), store=tmp_path, **how)
    assert len(seen) == 13, "another training reads no file of this one"
    turned = replace(data, pairs=replace(data.pairs, p=1 - data.pairs.p))
    compare_heads(turned, training, store=tmp_path, **how)
    assert len(seen) == 19


def test_gates_are_those_of_the_trained_head(data: HeadData, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    inner = arms_module.train_head
    monkeypatch.setattr(arms_module, "train_head", lambda *given: heads.append(inner(*given)) or heads[-1])
    found = compare_heads(data, TRAINING, seeds=1, arms=("plain", "poso"), tail=("l1",))
    held = data.pairs.take(data.pairs.held & (data.pairs.kind == MONO))
    still = replace(TRAINING, head="poso", epochs=1, lr=0.0, patience=None, weight_decay=0.0)
    started = inner(data.vectors, data.texts, data.pairs, still)
    weights = heads[1].head.weights(heads[1].known)
    texts = heads[1].head.texts.numpy()
    largest = 1 + int(np.argmax(texts[1:]))
    assert [g.texts for g in found.gates] == sorted((int(t) for t in texts[1:]), reverse=True)
    for gate in found.gates:
        row = weights.gate[1 + weights.languages.index(gate.language)].astype(float)
        assert gate.gate == pytest.approx(row.mean(), rel=1e-5)
        assert gate.spread == pytest.approx(row.std(), rel=1e-5)
        far = np.abs(row - weights.gate[largest]).mean() / weights.gate[largest].mean()
        assert gate.distance == pytest.approx(far, rel=1e-4)
    rows = np.unique(np.concatenate([held.a, held.b]))
    for gate in found.gates:  # a training of no step leaves the head as it starts
        known = started.known.index(gate.language) + 1
        own = rows[[data.texts.language[i] == gate.language for i in rows]]
        x, code = torch.from_numpy(data.vectors[own]), torch.full((len(own),), known)
        shown, masked = started.head.last(x, code), started.head.last(x, 0 * code)
        moved = ((shown - masked).abs().sum() / shown.abs().sum()).item()
        assert gate.start_sensitivity == pytest.approx(moved, rel=1e-4)
        assert moved > 0.05
        row, most = started.head.factors()[known].numpy(), started.head.factors()[largest].numpy()
        assert gate.start_distance == pytest.approx(np.abs(row - most).mean() / most.mean(), rel=1e-4)
        assert gate.sensitivity != pytest.approx(gate.start_sensitivity, rel=1e-3)
    assert found.gates[0].distance == 0 < found.gates[1].distance
    told = "\n".join(heads_lines(found))
    assert f"{found.gates[1].language:<10}{found.gates[1].texts:>8,}" in told
    assert "S: how far masking the language" in told
    assert f"{found.gates[1].sensitivity:.2f}  {found.gates[1].start_sensitivity:.2f} " in told
    assert "calibration" in told


@pytest.mark.parametrize("of", ["data", "told_domains"])
def test_placebo_deals_one_code_to_both_sides_of_a_pair(of: str, request: pytest.FixtureRequest) -> None:
    """The pairs are the same texts with the same labels, and each part has as many pairs of each code."""
    data: HeadData = request.getfixturevalue(of)
    found = dealt(data, 3)

    def rows(given: HeadData) -> list[tuple]:
        domains, pairs = given.domains or [""] * len(given.texts), given.pairs
        return [
            (*(tuple(given.vectors[i].tolist()) for i in (a, b)), p, kind, held,
             *((given.texts.language[i], domains[i]) for i in (a, b)))
            for a, b, p, kind, held in zip(pairs.a, pairs.b, pairs.p, pairs.kind, pairs.held, strict=True)
        ]  # fmt: skip

    before, after = rows(replace(data, pairs=canonical(data.pairs, data.texts))), rows(found)
    assert [row[:5] for row in after] == [row[:5] for row in before]
    assert Counter(row[3:] for row in after) == Counter(row[3:] for row in before)
    alike = [one[5:] == two[5:] for one, two in zip(before, after, strict=True)]
    assert np.mean(alike) < 0.6
    mono = [(one, two) for one, two in zip(before, after, strict=True) if one[3] == MONO and one[5] == one[6]]
    assert len(mono) > 300
    assert all(two[5] == two[6] for _, two in mono)
    other = rows(dealt(data, 4))
    assert other != after
    order = np.random.default_rng(0).permutation(len(data.pairs))
    assert rows(dealt(replace(data, pairs=data.pairs.take(order)), 3)) == after
    judged = Judged.of(data)
    assert [after[i][:2] for i in judged.place] == [
        (tuple(data.vectors[a].tolist()), tuple(data.vectors[b].tolist()))
        for a, b in zip(judged.pairs.a, judged.pairs.b, strict=True)
    ]


# The curve


def labels(pairs: Pairs, texts: Texts, kind: int, code: str) -> set[tuple[int, int]]:
    """Return the training pairs of a kind with a text in a language."""
    rows = zip(pairs.a.tolist(), pairs.b.tolist(), pairs.kind.tolist(), pairs.held.tolist(), strict=True)
    return {
        (a, b)
        for a, b, k, h in rows
        if k == kind and not h and code in (texts.language[a], texts.language[b])
    }


def test_limited_pairs_leave_others_alone_and_give_no_tail_language_more(data: HeadData) -> None:
    pairs, texts = data.pairs, data.texts
    few = limited(pairs, texts, ["l1", "l2"], 20, seed=0)
    rows = ~few.held & (few.kind == MONO)
    own = np.array(texts.language)[few.a[rows]]
    assert [(own == code).sum() for code in ("l1", "l2")] == [20, 20]
    assert labelled_pairs(few, texts, ["l2", "l1"]) == {"l2": 20, "l1": 20}
    assert few.held.sum() == pairs.held.sum()
    assert labels(few, texts, MONO, "l0") == labels(pairs, texts, MONO, "l0")
    for code in ("l0", "l1", "l2"):
        assert labels(few, texts, PARALLEL, code) == labels(pairs, texts, PARALLEL, code), "no labels"
    alone = limited(pairs, texts, ["l1"], 20, seed=0)
    share = 20 / len(labels(pairs, texts, MONO, "l1"))
    cross = len(labels(alone, texts, CROSS, "l1")) / len(labels(pairs, texts, CROSS, "l1"))
    assert cross == pytest.approx(share, abs=0.08)
    assert labels(alone, texts, CROSS, "l2") - labels(alone, texts, CROSS, "l1") == (
        labels(pairs, texts, CROSS, "l2") - labels(pairs, texts, CROSS, "l1")
    )
    more = limited(pairs, texts, ["l1"], 60, seed=0)
    assert labels(alone, texts, MONO, "l1") < labels(more, texts, MONO, "l1")
    other = limited(pairs, texts, ["l1"], 20, seed=1)
    assert labels(other, texts, MONO, "l1") != labels(alone, texts, MONO, "l1")
    assert len(limited(pairs, texts, ["l1"], 10**6, seed=0)) == len(pairs)
    order = np.random.default_rng(0).permutation(len(pairs))
    again = limited(pairs.take(order), texts, ["l1"], 20, seed=0)
    for kind in (MONO, CROSS, PARALLEL):
        assert labels(again, texts, kind, "l1") == labels(alone, texts, kind, "l1")
    with pytest.raises(InputError, match="at least 1 training pair"):
        limited(pairs, texts, ["l1"], 0, seed=0)


def test_a_head_of_its_own_has_the_labels_that_the_curve_counts(data: HeadData) -> None:
    """Every fourth pair a tie: l1's own head gets its monolingual pairs, ties too, and no others."""
    tied = replace(data.pairs, p=np.where(np.arange(len(data.pairs)) % 4 == 0, 0.5, data.pairs.p))
    few = limited(tied, data.texts, ["l1"], 40, seed=0)
    own = separate_languages(few, data.texts, least=1)["l1"]
    assert (~own.held).sum() == labelled_pairs(few, data.texts, ["l1"])["l1"] == 40
    assert (own.p[~own.held] == 0.5).sum() > 4
    assert set(own.kind.tolist()) == {MONO}
    decided = int(((own.p != 0.5) & ~own.held).sum())
    assert "l1" in separate_languages(few, data.texts, least=decided)
    assert "l1" not in separate_languages(few, data.texts, least=decided + 1)


def opposed() -> HeadData:
    """l1 prefers what l0 refuses, and nothing but the code says which language a text is in."""
    vectors, texts, pairs, _ = direction_world(seed=6, texts=800, pairs=1500)
    sign = np.array([1.0 if code == "l0" else -1.0 for code in texts.language])
    quality = sign * vectors[:, :4].sum(axis=1)
    right = (quality[pairs.a] > quality[pairs.b]).astype(float)
    return HeadData(vectors=vectors, texts=texts, pairs=replace(pairs, p=right))


def test_curve_shows_what_a_head_of_its_own_is_worth_with_more_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = opposed()
    seen = trainings(monkeypatch)
    told: list[tuple[int, int]] = []
    training = replace(TRAINING, epochs=8, hidden=32)
    how = {"sizes": [10**6, 8, 10**7], "tail": ("l1",), "seeds": 2, "store": tmp_path}
    curve = label_curve(world, training, progress=lambda done, total: told.append((done, total)), **how)
    assert [p.size for p in curve.points] == [8, 10**6]
    assert curve.left_out == (10**7,)
    whole = labelled_pairs(world.pairs, world.texts, ["l1"])["l1"]
    assert [(p.least, p.most) for p in curve.points] == [(8, 8), (whole, whole)]
    assert told[0] == (0, 20)
    assert told[-1] == (20, 20)
    assert len(seen) == 2 * 2 * 6, "five shared heads and one of l1's own"
    arms = [{a.arm: a for a in p.arms} for p in curve.points]
    assert set(arms[0]) == set(CURVE_ARMS)
    assert arms[0]["plain"].gain.value == arms[0]["plain"].gain.low == 0
    assert arms[0]["plain"].tail < 0.4, "the others' direction"
    assert arms[1]["separate"].tail > 0.75
    gain = arms[1]["separate"].gain
    assert gain.value == pytest.approx(arms[1]["separate"].tail - arms[1]["plain"].tail)
    assert gain.low < gain.value < gain.high
    assert arms[1]["separate"].tail > arms[0]["separate"].tail
    again = label_curve(world, training, **how)
    assert again == curve
    assert len(seen) == 24, "every point was read"
    victim = next((tmp_path / "pairs-1000000").glob("*-1.parquet"))
    victim.unlink()
    assert label_curve(world, training, **how) == curve
    assert len(seen) == 30, "the point that is not there is made again, and no other"
    made = curve_picture(curve)
    assert made.svg.startswith(b"<?xml")
    assert b"separate" in made.svg
    assert (10**6, "separate", arms[1]["separate"].tail) == made.rows[9][:3]
