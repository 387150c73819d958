"""Both sides of a pair are equally long, cut between units, and drawn from seed and ids alone."""

import numpy as np
import pytest
from scipy.stats import kstest

from quadmix.errors import InputError, RecipeError
from quadmix.raters.excerpts import pair_excerpts, proportional_excerpt, unit_spans
from quadmix.raters.table import Texts


def documents(*texts, origin=None):
    size = len(texts)
    return Texts(
        ids=tuple(f"d{i}" for i in range(size)), source=tuple(f"s{i}" for i in range(size)),
        origin=origin or ("",) * size, language=("en",) * size, text=tuple(texts),
    )  # fmt: skip


def words(count, name="w"):
    return " ".join(f"{name}{i}" for i in range(count))


def rows(*values):
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("Hello, world 42!", ["Hello", ",", "world", "42", "!"]),
        ("snake_case\tx", ["snake", "_", "case", "x"]),
        ("  \n ", []),
        ("naïve Ünï", ["naïve", "Ünï"]),
        ("nai\u0308ve", ["nai\u0308ve"]),  # decomposed: the mark belongs to its letter
        ("中文字，好", ["中", "文", "字", "，", "好"]),
        ("ひらカナー", ["ひ", "ら", "カ", "ナ", "ー"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("ที่", ["ที่"]),  # a consonant with a vowel and a tone above it
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("ab中cd", ["ab", "中", "cd"]),
        ("👍🏽 ok", ["👍", "🏽", "ok"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
        ("𑀓𑀺𑀢 𞤀𞥄𞤣", ["𑀓𑀺𑀢", "𞤀𞥄𞤣"]),  # Brahmi, Adlam
    ],
)
def test_units_of_many_scripts(text, units):
    assert [text[i:j] for i, j in unit_spans(text).tolist()] == units


def test_units_leave_out_spaces_alone():
    text = "Ein „Satz“ – mit Zeichen; 中文, हिन्दी\u3000ไทย_\n"
    assert "".join(text[i:j] for i, j in unit_spans(text).tolist()) == "".join(text.split())


def test_a_long_run_is_split_in_linear_time():
    assert len(unit_spans("a\u0301" * 200_000 + " " + "-" * 100_000)) == 100_001


def test_both_sides_have_the_same_number_of_units_and_are_slices():
    docs = documents(words(700, "a"), "  " + words(400, "b") + "\n", words(300, "c"))
    a, b = rows(0, 0, 1, 2), rows(1, 2, 2, 0)
    found = pair_excerpts(docs, a, b, seed=3)
    assert found.kept.all()
    assert not found.refused
    for pair, (i, j) in enumerate(zip(found.a, found.b, strict=True)):
        one, other = found.texts.text[i], found.texts.text[j]
        shorter = min(len(docs.text[k].split()) for k in (a[pair], b[pair]))
        assert len(one.split()) == len(other.split())
        assert min(256, shorter) <= len(one.split()) <= min(512, shorter)
        assert one in docs.text[a[pair]]
        assert other in docs.text[b[pair]]
        assert found.texts.source[i] == docs.source[a[pair]] == docs.source[found.document[i]]
    assert len(set(found.texts.ids)) == len(found.texts)


def test_half_are_longest_the_rest_uniform_and_the_start_is_uniform():
    docs = documents(*[words(2_000)] * 80)
    pairs = np.array([(i, j) for i in range(80) for j in range(i)], np.int32)[:1_500]
    found = pair_excerpts(docs, pairs[:, 0], pairs[:, 1], seed=1)
    units = np.array([len(t.split()) for t in found.texts.text])
    length = units[found.a]
    np.testing.assert_array_equal(length, units[found.b])
    assert (length == 512).mean() == pytest.approx(0.5 + 0.5 / 257, abs=4 * 0.5 / np.sqrt(1_500))
    others = length[length < 512]
    assert kstest(others, "uniform", args=(256, 256)).pvalue > 0.001
    assert others.min() < 265
    place = np.array([int(t.split()[0][1:]) for t in found.texts.text])
    share = place / (2_000 - units)
    assert kstest(share, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(share[found.a], share[found.b])[0, 1]) < 4 / np.sqrt(1_500)


def test_the_start_reaches_both_ends():
    docs = documents(*[words(12)] * 30)
    pairs = np.array([(i, j) for i in range(30) for j in range(i)], np.int32)
    found = pair_excerpts(docs, pairs[:, 0], pairs[:, 1], seed=1, longest=10, shortest=10)
    starts = {int(t.split()[0][1:]) for t in found.texts.text}
    assert starts == {0, 1, 2}


def test_a_pair_below_the_least_length_is_refused_and_counted():
    docs = documents(words(31), words(32), words(500), "")
    found = pair_excerpts(docs, rows(0, 1, 3), rows(2, 2, 2), seed=0)
    assert found.kept.tolist() == [False, True, False]
    assert found.refused == {"shorter than 32 units": 2}
    assert len(found.a) == len(found.b) == 1
    assert found.texts.text[found.a[0]] == words(32)
    assert pair_excerpts(docs, rows(0), rows(2), seed=0, shortest=20).kept.all()  # least: 20, as the shortest
    assert pair_excerpts(docs, rows(0), rows(2), seed=0, least=31).kept.all()
    none = pair_excerpts(docs, rows(), rows(), seed=0)
    assert len(none.texts) == len(none.a) == 0


def test_draws_depend_on_seed_and_ids_alone():
    """Other pairs, other rows, and the order of the sides change nothing."""
    docs = documents(*[words(900, n) for n in "abcd"])
    a, b = rows(0, 1, 2), rows(1, 2, 3)
    first = pair_excerpts(docs, a, b, seed=5)
    turned = docs.take([3, 2, 1, 0])
    again = pair_excerpts(turned, rows(0, 2), rows(1, 3), seed=5)  # the pairs (d3, d2) and (d1, d0)

    def sides(found, pair):
        return {found.texts.ids[r]: found.texts.text[r] for r in (found.a[pair], found.b[pair])}

    assert sides(again, 0) == sides(first, 2)
    assert sides(again, 1) == sides(first, 0)
    assert sides(pair_excerpts(docs, a, b, seed=6), 0) != sides(first, 0)


def test_equal_excerpts_of_a_document_are_one_text():
    docs = documents(words(40, "a"), words(40, "b"), words(40, "c"))
    found = pair_excerpts(docs, rows(0, 0), rows(1, 2), seed=0)
    assert found.texts.ids == ("d0@0+40", "d1@0+40", "d2@0+40")
    assert found.a.tolist() == [0, 0]
    assert found.b.tolist() == [1, 2]


def test_progress_is_told_to_its_end():
    docs = documents(words(40), words(40), words(40))
    told = []
    pair_excerpts(docs, rows(0), rows(1), seed=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_shares_of_an_excerpt_give_it_again():
    docs = documents(words(977, "a"), "  " + words(613, "b"))
    pairs = np.array([(0, 1)] * 1, np.int32)
    for seed in range(20):
        found = pair_excerpts(docs, pairs[:, 0], pairs[:, 1], seed=seed)
        for row, text in enumerate(found.texts.text):
            whole = docs.text[found.document[row]]
            assert proportional_excerpt(whole, found.start[row], found.stop[row]) == text


def test_a_translation_is_cut_at_the_same_shares():
    assert proportional_excerpt(words(10), 0.2, 0.5) == "w2 w3 w4"
    assert proportional_excerpt("一二三四五六七八九十", 0.5, 1.0) == "六七八九十"
    assert proportional_excerpt(" one two ", 0.0, 1.0) == "one two"
    assert proportional_excerpt("one two", 0.99, 1.0) == "two"  # never empty
    assert proportional_excerpt("one two", 0.0, 0.01) == "one"
    assert proportional_excerpt(" \n", 0.0, 1.0) == ""
    with pytest.raises(InputError, match=r"from 0.5 to 0.5 of a text; expected 0 <= start < stop <= 1"):
        proportional_excerpt("one", 0.5, 0.5)


def test_what_cannot_be_cut_is_refused():
    docs = documents(words(300), words(300), origin=("", "d0"))
    with pytest.raises(InputError, match="document 'd1' is a translation of 'd0'; cut the original"):
        pair_excerpts(docs, rows(0), rows(1), seed=0)
    with pytest.raises(RecipeError, match="expected 1 <= least <= shortest <= longest"):
        pair_excerpts(docs, rows(0), rows(0), seed=0, shortest=600)
    with pytest.raises(RecipeError, match="at least 300, shortest 256"):
        pair_excerpts(docs, rows(0), rows(0), seed=0, least=300)
