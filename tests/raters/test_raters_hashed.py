"""The tier of hashed n-grams: features against other implementations, training, and the card that scores."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from rater_world import turned
from sklearn.feature_extraction.text import CountVectorizer

from quadmix.annotate.models import rater as rater_module
from quadmix.annotate.models.base import Placed, Settings, Windows, split_code, with_code
from quadmix.annotate.models.char_ngrams import ngram_counts, ngram_matrix
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.rated import VectorModel, language_rows, read_rater, windows
from quadmix.annotate.models.rater import Asked, ModelAnnotator
from quadmix.annotate.models.rater_head import HeadWeights
from quadmix.annotate.models.surface import NAMES, surface
from quadmix.errors import InputError
from quadmix.raters.hashed import HashedTraining, save_hashed, train_hashed
from quadmix.raters.table import CROSS, MONO, Pairs, Texts
from quadmix.recipe.cards import CardOutput, ModelCard, load_card

SMALL = HashedTraining(features=1 << 12, penalties=(1e-3, 1e-4))
TEXTS = [
    "The  cat\nsat on the mat. The cat!",
    "Ｆｕｌｌ width and ﬁne ligatures, naïve İstanbul",
    "中文没有空格,但是有标点。",
    "हिन्दी में मात्राएँ हैं।",
    "",
    " \n\t ",
    "a",
    "emoji 👩‍👩‍👧 and \ud800 a lone surrogate",
]


def test_counts_are_those_of_scikit_learns_char_wb() -> None:
    """The multiset of counts (a hash keeps no names), for words of at least four characters."""
    words = ["photosynthesis turns light into chemical energy", "zwölf Boxkämpfer jagen Viktor durch Sylt"]
    texts = [" ".join(w for w in text.split() if len(w) >= 4) for text in words]
    analyse = CountVectorizer(analyzer="char_wb", ngram_range=(1, 4)).build_analyzer()
    rows, _, counts = ngram_counts(texts, features=1 << 22)
    for row, text in enumerate(texts):
        wanted = Counter(gram for gram in analyse(text) if gram != " ")
        assert sorted(counts[rows == row].tolist()) == sorted(wanted.values())


def slow_grams(text: str) -> Counter[str]:
    """n-grams by the definition: windows of the normalised text with no blank but at their ends."""
    plain = " " + " ".join(unicodedata.normalize("NFKC", text).lower().split()) + " "
    found = [plain[i : i + n] for n in range(1, 5) for i in range(len(plain) - n + 1)]
    return Counter(g for g in found if g.strip() and " " not in g[1:-1])


def test_every_kind_of_text_counts_by_the_definition_and_alone_as_among_others() -> None:
    rows, columns, counts = ngram_counts(TEXTS, features=1 << 22)
    for row, text in enumerate(TEXTS):
        own = rows == row
        assert sorted(counts[own].tolist()) == sorted(slow_grams(text).values()), text
        alone = ngram_counts([text], features=1 << 22)
        np.testing.assert_array_equal(alone[1], columns[own])
        np.testing.assert_array_equal(alone[2], counts[own])
    assert (np.diff(rows.astype(np.int64) * (1 << 22) + columns) > 0).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ngram_counts(TEXTS * 5)
    monkeypatch.setattr("quadmix.annotate.models.char_ngrams.CHUNK", 20)
    for a, b in zip(whole, ngram_counts(TEXTS * 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_different_grams_share_a_column_no_more_often_than_by_chance() -> None:
    """All words of three letters, and all Chinese characters, in 2**18 columns: at least as many columns as a
    random function would fill, but for 1 %."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    grams = [a + b + c for a in letters for b in letters for c in letters]
    for texts in (grams, [chr(c) for c in range(0x4E00, 0x9F00)]):
        rows, columns, _ = ngram_counts([" ".join(texts)], features=1 << 18)
        distinct = len(slow_grams(" ".join(texts)))
        assert len(columns) >= 0.99 * (1 << 18) * (1 - np.exp(-distinct / (1 << 18)))
        assert not rows.any()


def test_matrix_rows_have_length_one_and_logarithmic_counts() -> None:
    matrix = ngram_matrix(["aaaa", "", "abc abc"], features=1 << 12)
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    np.testing.assert_allclose(np.asarray(lengths).ravel(), [1, 0, 1], atol=1e-6)
    grams = slow_grams("aaaa")
    wanted = np.array(sorted(1 + np.log(c) for c in grams.values()))
    np.testing.assert_allclose(np.sort(matrix[[0]].data), wanted / np.sqrt((wanted**2).sum()), rtol=1e-5)
    assert matrix.dtype == np.float32
    with pytest.raises(ValueError, match="expected a power of two"):
        ngram_matrix(["a"], features=1000)


def test_surface_statistics_by_hand() -> None:
    found = surface(['A1 (b)\n"c".\nd', ""])
    wanted = {"digits": 1 / 13, "symbols": 0, "brackets": 4 / 13, "line_ends": 2 / 13, "closed_lines": 1 / 2}
    assert dict(zip(NAMES, found[0].tolist(), strict=True)) == pytest.approx(wanted)
    assert not found[1].any()


def test_windows_cover_a_text_or_are_spaced_from_begin_to_end() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(1000))
    assert windows(text, 1000, 8) == [text]
    pieces = windows(text, 300, 8)
    assert "".join(pieces) == text
    assert {len(p) for p in pieces} == {250}
    spaced = windows(text, 100, 4)
    assert [text.index(p) for p in spaced] == [0, 300, 600, 900]
    assert windows("", 100, 4) == [""]


@pytest.fixture(scope="module")
def made():
    """80 texts in two languages; good ones speak of `reason`, bad ones shout; pairs within and across."""
    rng = np.random.default_rng(0)
    good = {"en": "because evidence therefore theory", "de": "weil Beleg daher Theorie folglich"}
    bad = {"en": "buy cheap click deals wow", "de": "kauf billig klick rabatt toll"}
    ids, language, text, quality = [], [], [], []
    for document in range(80):
        level = rng.random()
        for code in ("en", "de"):
            pick = [(good if rng.random() < level else bad)[code].split() for _ in range(40)]
            ids.append(f"{document}-{code}")
            language.append(code)
            text.append(" ".join(str(rng.choice(words)) for words in pick))
            quality.append(level)
    texts = Texts(
        ids=tuple(ids), source=tuple(i.split("-")[0] for i in ids), origin=("",) * 160,
        language=tuple(language), text=tuple(text),
    )  # fmt: skip
    level, held = np.array(quality), np.arange(160) // 2 % 4 == 0
    rows = rng.integers(160, size=(2, 1500))
    a, b = rows[:, held[rows[0]] == held[rows[1]]]
    kind = np.where(np.array(language)[a] == np.array(language)[b], MONO, CROSS).astype(np.int8)
    p = np.where(level[a] > level[b], 1.0, np.where(level[a] < level[b], 0.0, 0.5))
    pairs = Pairs(
        a=a.astype(np.int32), b=b.astype(np.int32), p=p, weight=np.ones(len(a)), kind=kind, held=held[a]
    )
    return texts, pairs, level


def test_training_learns_is_deterministic_and_blind_to_order_and_sides(made) -> None:
    """Acceptance test 6 for this tier, to the last bit."""
    texts, pairs, level = made
    rater = train_hashed(texts, pairs, SMALL)
    assert rater.chosen.accuracy >= 0.8
    assert np.corrcoef(rater.scorer.scores(texts.text), level)[0, 1] > 0.85
    assert rater.scorer.facts.languages == ["de", "en"]
    order = np.random.default_rng(1).permutation(len(texts))
    place = np.argsort(order)
    mixed = turned(pairs).take(np.random.default_rng(2).permutation(len(pairs)))
    moved = Pairs(
        a=place[mixed.a].astype(np.int32), b=place[mixed.b].astype(np.int32), p=mixed.p,
        weight=mixed.weight, kind=mixed.kind, held=mixed.held,
    )  # fmt: skip
    again = train_hashed(texts.take(order.tolist()), moved, SMALL)
    np.testing.assert_array_equal(rater.scorer.weights, again.scorer.weights)
    np.testing.assert_array_equal(rater.scorer.statistic_weights, again.scorer.statistic_weights)


def test_held_texts_change_no_number_of_a_rater_whose_penalty_is_given(made) -> None:
    texts, pairs, _ = made
    rows = set(np.concatenate([pairs.a[pairs.held], pairs.b[pairs.held]]).tolist())
    text = tuple(f"{t.upper()} 12345 !!!" if i in rows else t for i, t in enumerate(texts.text))
    fixed = replace(SMALL, choose=False)
    first = train_hashed(texts, pairs, fixed).scorer
    other = train_hashed(replace(texts, text=text), pairs, fixed).scorer
    for name in ("weights", "statistic_weights", "means", "scales"):
        np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_gradient_of_the_objective_is_that_of_finite_differences(made) -> None:
    from quadmix.raters.hashed import _Problem  # the sum that L-BFGS is given

    texts, pairs, _ = made
    problem = _Problem(matrix=ngram_matrix(texts.text, features=256), pairs=pairs)
    rng = np.random.default_rng(3)
    weights, step = rng.normal(size=256), rng.normal(size=256)
    up, down = problem.loss(weights + 0.01 * step)[0], problem.loss(weights - 0.01 * step)[0]
    assert (up - down) / 0.02 == pytest.approx(float(problem.loss(weights)[1] @ step), rel=1e-3)


def test_scores_are_a_function_of_their_own_text_to_the_last_bit(made) -> None:
    """Acceptance test 7: alone, among others, and in any order; long texts are means of windows."""
    texts, pairs, _ = made
    rater = train_hashed(texts, pairs, HashedTraining(features=1 << 12, penalties=(1e-3,), window=200))
    given = [*texts.text, "x", "  ", texts.text[0] * 3]
    whole = rater.scorer.scores(given)
    np.testing.assert_array_equal(whole[::-1], rater.scorer.scores(given[::-1]))
    np.testing.assert_array_equal(whole, [rater.scorer.scores([text])[0] for text in given])
    assert np.isnan(whole[-2])
    pieces = windows(given[-1], 200, 8)
    own = rater.scorer.scores(pieces)
    assert len(pieces) > 1
    assert whole[-1] == pytest.approx(np.average(own, weights=[len(p) for p in pieces]), rel=1e-12)


def test_training_refuses_what_it_cannot_learn_from(made) -> None:
    texts, pairs, _ = made
    empty = Texts(
        ids=texts.ids, source=texts.source, origin=texts.origin, language=texts.language,
        text=("  ", *texts.text[1:]),
    )  # fmt: skip
    with pytest.raises(InputError, match="text '0-en' is empty, as are 1 in all"):
        train_hashed(empty, pairs, SMALL)
    with pytest.raises(InputError, match="none of the held-out part prefers a side"):
        train_hashed(texts, pairs.take(~pairs.held), SMALL)
    with pytest.raises(InputError, match="expected at least one, all above 0"):
        train_hashed(texts, pairs, HashedTraining(penalties=()))


def test_folder_scores_as_an_ordinary_card(made, tmp_path) -> None:
    texts, pairs, _ = made
    rater = train_hashed(texts, pairs, SMALL)
    save_hashed(tmp_path, rater, name="ours", trained_on=("votes",))
    card = load_card(str(tmp_path / "card.yaml"))
    assert (card.family, card.direction, card.reads_language) == ("rater", "higher", False)
    placed = place(card, beside=tmp_path)
    annotator = ModelAnnotator.make("ours", Asked(placed=placed, settings=Settings()))
    given = [*texts.text[:5], "", "​"]
    scored = annotator.score(given, pa.RecordBatch.from_pydict({"text": given}))
    np.testing.assert_array_equal(scored.values[:5], rater.scorer.scores(given[:5]).astype(np.float32))
    assert np.isnan(scored.values[5])
    assert scored.missing["empty_text"] == 1
    (tmp_path / "rater.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is damaged"):
        read_rater(tmp_path)
    with pytest.raises(InputError, match="has the sha256"):
        place(card, beside=tmp_path)


# Heads that read the language

HEAD = HeadWeights(
    languages=("en", "deu"), mean=np.array([[0.0], [0.0], [10.0]], np.float32),
    scale=np.ones((3, 1), np.float32), out=np.ones(1, np.float32), bias=0.0,
)  # fmt: skip


def a_card(**fields) -> ModelCard:
    return ModelCard(
        name="told", family="rater", role="quality", model=".", licence="-", source="-", description="-",
        output=CardOutput(kind="number"), reads_language=True, **fields,
    )  # fmt: skip


def test_language_reaches_the_head_and_none_is_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The embedder gives the number that the text is; German is ten lower, an unknown language is not."""
    read: list[str] = []

    def one_window(given) -> Iterator[Windows]:
        read.extend(given)
        values = np.array([[float(text)] for text in given], np.float32)
        one = np.ones(len(given), np.int64)
        yield Windows(
            values=values, rows=values, counts=one, weights=one.astype(float), reasons=[""] * len(given)
        )

    embedder = SimpleNamespace(windows=one_window)
    model = VectorModel(card=a_card(), head=HEAD, embedder=embedder)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(rater_module, "load_model", lambda *_: model)
    placed = Placed(card=model.card, folder=tmp_path, digest="told")
    annotator = ModelAnnotator.make("told", Asked(placed=placed, settings=Settings(), language="lang"))
    assert annotator.asked.columns == ("lang",)
    rows = pa.RecordBatch.from_pydict({"lang": ["en", "de", "deu_Latn", "fi", None, ""]})
    scored = annotator.score(["1", "2", "3", "4", "5", "6"], rows)
    np.testing.assert_array_equal(scored.values, np.array([1, -8, -7, 4, np.nan, np.nan], np.float32))
    assert scored.missing == {"language_unknown": 2}
    assert read == ["1", "2", "3", "4"]


def test_card_that_reads_the_language_asks_for_the_column(tmp_path) -> None:
    placed = Placed(card=a_card(), folder=tmp_path, digest="told")
    with pytest.raises(InputError, match=r"annotate\.language is not set; set it to the column"):
        ModelAnnotator.make("told", Asked(placed=placed, settings=Settings()))
    with pytest.raises(ValueError, match="reads_language is for the family rater alone"):
        ModelCard(**{**a_card().model_dump(), "family": "sequence"})


def test_code_in_front_of_a_text_comes_off_again() -> None:
    for code, text in (("en", "plain"), ("", ""), ("zh", "a\x1eb"), ("a\x1eb", "x")):
        assert split_code(with_code(text, code), 1) == ((code.replace("\x1e", ""),), text)
        assert split_code(with_code(text, code, "news"), 2) == ((code.replace("\x1e", ""), "news"), text)
    assert split_code("no language", 1) == (("",), "no language")
    assert split_code("no language", 2) == (("", ""), "no language")


def test_codes_are_found_as_written_or_as_the_language_that_they_mean() -> None:
    found = language_rows(["deu", "de", "de-DE", "en", "fi", "", "not a code"], ["en", "deu"])
    assert found.tolist() == [2, 2, 2, 1, 0, 0, 0]
    assert language_rows(["zh-Hant", "zh-Hans"], ["zh-Hans", "zh-Hant"]).tolist() == [2, 1]
