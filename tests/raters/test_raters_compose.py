"""The pairs of all kinds: how many, of which languages, with which labels and weights, and on which side."""

from collections import Counter
from typing import Literal

import numpy as np
import pytest

from quadmix.errors import InputError, IntegrityError
from quadmix.raters.compose import Composed, Composition, compose_pairs
from quadmix.raters.table import CROSS, KINDS, MONO, PARALLEL, Pairs, Texts

LANGUAGES = ("en", "ar", "de", "fr", "th")


def originals_and_translations(
    count: int, languages: tuple[str, ...] = LANGUAGES, *, without: frozenset[tuple[int, str]] = frozenset()
) -> Texts:
    """English originals o0.. of documents d0.., and their translations but `without` (number, language)."""
    rows = [(i, language) for i in range(count) for language in languages if (i, language) not in without]
    return Texts(
        ids=tuple(f"o{i}" if k == "en" else f"{k}/o{i}" for i, k in rows),
        source=tuple(f"d{i}" for i, _ in rows),
        origin=tuple("" if k == "en" else f"o{i}" for i, k in rows),
        language=tuple(k for _, k in rows),
        text=tuple(f"text {i} in {k}" for i, k in rows),
    )


def labelled(texts: Texts, pairs: list[tuple[str, str]], *, held_from: int | None = None) -> Pairs:
    """Pairs of ids; p says which it is; those from `held_from` on are held."""
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    count = len(pairs)
    return Pairs(
        a=np.array([place[a] for a, _ in pairs], np.int32),
        b=np.array([place[b] for _, b in pairs], np.int32),
        p=np.arange(count) / (2 * count),
        weight=np.ones(count),
        kind=np.zeros(count, np.int8),
        held=np.arange(count) >= (count if held_from is None else held_from),
    )


def chain(count: int) -> list[tuple[str, str]]:
    """Disjoint pairs (o0, o1), (o2, o3), ..."""
    return [(f"o{i}", f"o{i + 1}") for i in range(0, 2 * count, 2)]


def sides(texts: Texts, pairs: Pairs, kind: int) -> list[tuple[str, str]]:
    """Languages of both sides of the pairs of a kind."""
    rows = np.flatnonzero(pairs.kind == kind).tolist()
    return [(texts.language[pairs.a[i]], texts.language[pairs.b[i]]) for i in rows]


def named(texts: Texts, found: Composed) -> list[tuple[str, str, float, float, int, bool]]:
    """The pairs by ids, the smaller first, in their order."""
    made = found.pairs
    out: list[tuple[str, str, float, float, int, bool]] = []
    for i in range(len(made)):
        a, b, p = texts.ids[made.a[i]], texts.ids[made.b[i]], float(made.p[i])
        a, b, p = (a, b, p) if a < b else (b, a, 1 - p)
        out.append((a, b, round(p, 12), float(made.weight[i]), int(made.kind[i]), bool(made.held[i])))
    return out


def original_of(texts: Texts, row: int) -> str:
    return texts.origin[row] or texts.ids[row]


def test_three_hundred_pairs_become_150_150_75_each_used_once() -> None:
    texts = originals_and_translations(600)
    given = labelled(texts, chain(300))
    found = compose_pairs(texts, given, seed=1)
    made = found.pairs
    assert Counter(made.kind.tolist()) == {MONO: 150, CROSS: 150, PARALLEL: 75}
    assert found.made["train"] == found.wanted["train"] == {"mono": 150, "cross": 150, "parallel": 75}
    assert found.unused == {}
    assert found.missing == {}
    label = {(f"o{2 * i}", f"o{2 * i + 1}"): p for i, p in enumerate(given.p.tolist())}
    used = Counter[tuple[str, str]]()
    for i in np.flatnonzero(made.kind != PARALLEL).tolist():
        key = (original_of(texts, made.a[i]), original_of(texts, made.b[i]))
        used[min(key), max(key)] += 1
        forward = key in label
        assert made.p[i] == (label[key] if forward else 1 - label[key[1], key[0]])
    assert set(used) == {(min(k), max(k)) for k in label}  # disjoint halves: each original pair once
    assert set(used.values()) == {1}


def test_the_kinds_are_what_their_names_say() -> None:
    texts = originals_and_translations(80)
    found = compose_pairs(texts, labelled(texts, chain(40)))
    assert all(a == b for a, b in sides(texts, found.pairs, MONO))
    assert all(a != b for a, b in sides(texts, found.pairs, CROSS))
    assert all(a != b for a, b in sides(texts, found.pairs, PARALLEL))
    for i in np.flatnonzero(found.pairs.kind == PARALLEL).tolist():
        assert original_of(texts, found.pairs.a[i]) == original_of(texts, found.pairs.b[i])
        assert found.pairs.p[i] == 0.5


def test_languages_are_balanced_and_every_two_meet() -> None:
    texts = originals_and_translations(2000)
    made = compose_pairs(texts, labelled(texts, chain(1000)), seed=3).pairs
    mono = Counter(a for a, _ in sides(texts, made, MONO))
    assert set(mono.values()) == {100}
    for kind in (CROSS, PARALLEL):
        found = sides(texts, made, kind)
        each = Counter(language for pair in found for language in pair)
        assert set(each) == set(LANGUAGES)  # the source language among them
        assert max(each.values()) - min(each.values()) <= 1
        met = Counter(frozenset(pair) for pair in found)
        assert len(met) == 10
        assert min(met.values()) > len(found) / 10 / 2


def test_a_scarce_language_is_taken_where_it_is_to_be_had() -> None:
    without = frozenset((i, "th") for i in range(400) if i % 8 >= 2)  # both sides in a fourth of the pairs
    texts = originals_and_translations(400, without=without)
    made = compose_pairs(texts, labelled(texts, chain(200))).pairs
    mono = Counter(a for a, _ in sides(texts, made, MONO))
    assert max(mono.values()) - min(mono.values()) <= 1


@pytest.mark.parametrize("lam", [0.25, 1.0, 4.0])
def test_the_weighted_sum_is_the_mean_loss_plus_lambda_times_the_mean_parallel_loss(lam: float) -> None:
    texts = originals_and_translations(200)
    given = labelled(texts, chain(100), held_from=80)
    found = compose_pairs(texts, given, Composition(parallel_weight=lam, mono=1, cross=2, parallel=0.7)).pairs
    score = np.random.default_rng(0).normal(0, 2, len(texts))
    d = score[found.a] - score[found.b]
    for part in (found.held, ~found.held):
        labels = part & (found.kind != PARALLEL)
        same = part & (found.kind == PARALLEL)
        pairwise = np.mean(
            np.logaddexp(0, -d[labels]) * found.p[labels] + np.logaddexp(0, d[labels]) * (1 - found.p[labels])
        )
        parallel = np.mean(np.logaddexp(0, -d[same]) + np.logaddexp(0, d[same]))  # L_par of the paper
        bce = np.logaddexp(0, -d) * found.p + np.logaddexp(0, d) * (1 - found.p)
        total = np.sum(found.weight[part] * bce[part]) / labels.sum()
        assert total == pytest.approx(pairwise + lam * parallel)


def test_lambda_zero_makes_no_parallel_pairs_and_weights_of_labels_are_kept() -> None:
    texts = originals_and_translations(40)
    given = labelled(texts, chain(20))
    given.weight[:] = np.linspace(0.5, 2, 20)
    found = compose_pairs(texts, given, Composition(parallel_weight=0.0)).pairs
    assert set(found.kind.tolist()) == {MONO, CROSS}
    assert sorted(found.weight.tolist()) == sorted(given.weight.tolist())


def test_reuse_takes_each_pair_in_both_roles() -> None:
    texts = originals_and_translations(80)
    found = compose_pairs(texts, labelled(texts, chain(40)), Composition(reuse=True)).pairs
    assert Counter(found.kind.tolist()) == {MONO: 40, CROSS: 40, PARALLEL: 20}
    for kind in (MONO, CROSS):
        rows = np.flatnonzero(found.kind == kind).tolist()
        assert len({original_of(texts, found.a[i]) for i in rows}) == 40


@pytest.mark.parametrize(("mono", "cross"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_kind_that_is_not_wanted_is_not_made(mono: float, cross: float) -> None:
    texts = originals_and_translations(80)
    how = Composition(mono=mono, cross=cross, parallel=0.0)
    found = compose_pairs(texts, labelled(texts, chain(40)), how)
    assert Counter(found.pairs.kind.tolist()) == {MONO if mono else CROSS: 40}


def test_no_source_stands_in_both_parts_and_parallel_pairs_follow_their_source() -> None:
    """Spec section 12, test 5."""
    texts = originals_and_translations(200)
    found = compose_pairs(texts, labelled(texts, chain(100), held_from=75)).pairs
    part = [
        {texts.source[r] for side in (found.a, found.b) for r in side[found.held == h]} for h in (False, True)
    ]
    assert part[0].isdisjoint(part[1])
    held = {f"d{i}" for i in range(150, 200)}
    assert part[1] == held
    assert Counter(found.kind[found.held].tolist()) == {MONO: 12, CROSS: 13, PARALLEL: 6}
    assert Counter(found.kind[~found.held].tolist()) == {MONO: 38, CROSS: 37, PARALLEL: 19}


def test_a_source_in_both_parts_is_refused_by_name() -> None:
    texts = originals_and_translations(4)
    with pytest.raises(IntegrityError, match="source 'd1' stands in pairs of"):
        compose_pairs(texts, labelled(texts, [("o0", "o1"), ("o1", "o2")], held_from=1))


@pytest.mark.parametrize("swap", [False, True])
def test_order_of_rows_and_sides_changes_nothing_and_the_seed_does(swap: bool) -> None:
    texts = originals_and_translations(120)
    given = labelled(texts, chain(60), held_from=45)
    first = named(texts, compose_pairs(texts, given, seed=5))
    rng = np.random.default_rng(2)
    order = rng.permutation(len(texts))
    mixed, place = texts.take(order.tolist()), np.argsort(order)
    pairs = given.take(rng.permutation(60).astype(np.int64))
    a, b, p = place[pairs.a].astype(np.int32), place[pairs.b].astype(np.int32), pairs.p
    if swap:
        a, b, p = b, a, 1 - p
    other = Pairs(a=a, b=b, p=p, weight=pairs.weight, kind=pairs.kind, held=pairs.held)
    assert named(mixed, compose_pairs(mixed, other, seed=5)) == first
    assert named(texts, compose_pairs(texts, given, seed=6)) != first


def natives(count: int) -> Texts:
    """Native originals n0.. in de, fr, th by turns, each with its English translation."""
    languages = [("de", "fr", "th")[i // 2 % 3] for i in range(count)]  # chains compare texts of one language
    return Texts(
        ids=(*(f"n{i}" for i in range(count)), *(f"en/n{i}" for i in range(count))),
        source=tuple(f"d{i}" for i in range(count)) * 2,
        origin=(*[""] * count, *(f"n{i}" for i in range(count))),
        language=(*languages, *["en"] * count),
        text=tuple(f"text {i}" for i in range(2 * count)),
    )


@pytest.mark.parametrize("direction", ["M", "both"])
def test_direction_m_puts_labels_of_translations_on_native_texts(direction: Literal["M", "both"]) -> None:
    texts = natives(120)
    within = [(f"en/n{i}", f"en/n{i + 1}") for i in range(0, 60, 2)]
    across = [(f"en/n{i}", f"en/n{i + 2}") for i in range(60, 120, 4)]
    across += [(f"en/n{i + 1}", f"en/n{i + 3}") for i in range(60, 120, 4)]
    found = compose_pairs(texts, labelled(texts, within + across), Composition(direction=direction, least=5))
    made = found.pairs
    assert Counter(made.kind.tolist()) == {MONO: 30, CROSS: 30, PARALLEL: 15}
    for i in np.flatnonzero(made.kind != PARALLEL).tolist():
        assert texts.origin[made.a[i]] == texts.origin[made.b[i]] == ""
    assert all("en" in pair and pair[0] != pair[1] for pair in sides(texts, made, PARALLEL))
    assert found.missing == {"en": "no labelled pair could use its texts"}
    with pytest.raises(InputError, match="direction E expects originals"):
        compose_pairs(texts, labelled(texts, within), Composition(direction="E"))


def test_both_directions_can_be_mixed() -> None:
    """English pairs are carried to translations, pairs labelled in translation to their natives."""
    english, native = originals_and_translations(20), natives(20)
    texts = Texts(
        ids=english.ids + native.ids, source=english.source + tuple(f"n{s}" for s in native.source),
        origin=english.origin + native.origin, language=english.language + native.language,
        text=english.text + native.text,
    )  # fmt: skip
    pairs = chain(10) + [(f"en/n{i}", f"en/n{i + 1}") for i in range(0, 20, 2)]
    made = compose_pairs(texts, labelled(texts, pairs), Composition(direction="both")).pairs
    kinds = [KINDS[k] for k in made.kind.tolist()]
    translated = [bool(texts.origin[a] or texts.origin[b]) for a, b in zip(made.a, made.b, strict=True)]
    of_natives = [texts.source[a].startswith("nd") for a in made.a.tolist()]
    rows = list(zip(kinds, translated, of_natives, strict=True))
    assert sum(n for k, _, n in rows if k != "parallel") == 10
    assert not any(t and n for k, t, n in rows if k != "parallel")
    assert any(t and not n for k, t, n in rows if k == "cross")  # the natives fill up mono


def test_languages_without_pairs_are_named_with_their_reason() -> None:
    without = frozenset((i, "th") for i in range(40) if i % 2) | frozenset((i, "fr") for i in range(38))
    texts = originals_and_translations(40, without=without)
    how = Composition(mono=1, cross=0)
    found = compose_pairs(texts, labelled(texts, chain(20)), how, languages=[*LANGUAGES, "xx"])
    assert found.missing["xx"] == "no translation survived"
    assert found.missing["th"] == "no labelled pair could use its texts"
    assert found.missing["fr"] == "too few: 1 pairs, expected at least 20"
    assert set(found.missing) == {"ar", "de", "en", "fr", "th", "xx"}  # 20 pairs are few for five languages


def test_pairs_that_lost_a_side_take_the_other_role_or_are_counted() -> None:
    texts = originals_and_translations(8, ("en", "de"))
    keep = {"o0", "de/o0", "o1", "de/o2", "de/o3", "o4", "de/o5"}
    texts = texts.take([i for i, id_ in enumerate(texts.ids) if id_ in keep or texts.language[i] == "en"])
    pairs = labelled(texts, chain(4))
    found = compose_pairs(texts, pairs, languages=["de"])
    assert found.made["train"] == {"mono": 1, "cross": 0, "parallel": 0}  # (o2, o3) alone has both in German
    assert found.unused == {"a side has no version left": 3}
    assert found.wanted["train"] == {"mono": 2, "cross": 2, "parallel": 1}
    with pytest.raises(InputError, match=r"none of 4 labelled pairs can be carried over to fr"):
        compose_pairs(texts, pairs, languages=["fr"])


@pytest.mark.parametrize("seed", range(12))
def test_a_side_with_one_language_keeps_it_in_a_cross_lingual_pair(seed: int) -> None:
    """o1 has no translation, so that o0 must leave English to it, however the ties fall."""
    without = frozenset((1, k) for k in LANGUAGES if k != "en")
    texts = originals_and_translations(2, without=without)
    made = compose_pairs(texts, labelled(texts, chain(1)), Composition(mono=0, parallel=0), seed=seed).pairs
    ((a, b),) = sides(texts, made, CROSS)
    assert (a == "en", b == "en") == (False, True)


def test_texts_that_contradict_themselves_are_refused() -> None:
    texts = originals_and_translations(4)
    given = labelled(texts, chain(2))

    def changed(**columns: tuple[str, ...]) -> Texts:
        kept = {name: getattr(texts, name) for name in ("ids", "source", "origin", "language", "text")}
        return Texts(**{**kept, **columns})

    at = texts.ids.index("de/o1")
    for origin, match in (
        ("nowhere", "translates 'nowhere'"),
        ("ar/o1", "translates 'ar/o1', expected the id of"),
    ):
        with pytest.raises(IntegrityError, match=match):
            compose_pairs(changed(origin=(*texts.origin[:at], origin, *texts.origin[at + 1 :])), given)
    with pytest.raises(IntegrityError, match="expected one source for all translations"):
        compose_pairs(changed(source=(*texts.source[:at], "d0", *texts.source[at + 1 :])), given)
    with pytest.raises(
        IntegrityError, match="are both the version in 'ar' of 'o1', expected one per language"
    ):
        compose_pairs(changed(language=(*texts.language[:at], "ar", *texts.language[at + 1 :])), given)
    with pytest.raises(InputError, match="compares versions of one text"):
        compose_pairs(texts, labelled(texts, [("o1", "de/o1")]), Composition(direction="both"))
    with pytest.raises(InputError, match="mono or cross above 0"):
        Composition(mono=0, cross=0)
