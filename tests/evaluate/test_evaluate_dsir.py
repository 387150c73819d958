"""DSIR's log importance weights: the published package's, a slow oracle's, and a vector computed by hand."""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from materialise.consumers import READERS
from tiny_run import demo_rows, write_rows

from quadmix.errors import InputError
from quadmix.evaluate.dsir import (
    NgramSettings,
    bucket_counts,
    hash_ngrams,
    log_ratio,
    log_weights,
)
from quadmix.types import Floats, Ints

ODD = [
    "", "  \n\t ", "one", "... !!! ?", "don't stop-me now_ok 3.14 £5 naïve Ünïted İstanbul STRASSE ß ﬁ",
    "हिन्दी में लिखा हुआ पाठ कि ไทย 中文字符 日本語 é (combining) 👩‍👩‍👧 𝔘𝔫𝔦 \u200d\u0000",
]  # fmt: skip
ALL = NgramSettings(min_words=0)


def pool() -> list[str]:
    return [r["text"][:3000] for r in demo_rows("pool.jsonl.zst", 200)] + ODD


def target() -> list[str]:
    return [f"{r['query']} {r['choices'][r['gold']]}" for r in demo_rows("target_arc_easy.jsonl.zst", 120)]


def counts(texts: list[str], settings: NgramSettings) -> Ints:
    return bucket_counts(hash_ngrams(texts, settings), settings)


def weights(texts: list[str], wanted: list[str], settings: NgramSettings) -> Floats:
    ratio = log_ratio(counts(wanted, settings), counts(texts, settings))
    return log_weights(hash_ngrams(texts, settings), ratio, settings)


class Published:
    """What the package made of the same texts with some options; see `published_dsir.py`."""

    def __init__(self, folder: Path, texts: list[str], wanted: list[str], **options: int) -> None:
        for name, some in (("raw", texts), ("target", wanted)):
            write_rows(folder / f"{name}.jsonl", [{"text": text} for text in some])
        if not READERS.is_dir():
            pytest.fail(f"{READERS} is missing; run `make test`, which installs tests/readers.txt there")
        command = [sys.executable, str(Path(__file__).with_name("published_dsir.py")), str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(READERS)}
        subprocess.run([*command, json.dumps(options)], env=environment, check=True, capture_output=True)
        with np.load(folder / "published.npz", allow_pickle=False) as found:
            self.weights, self.kept, self.ratio, self.features = (
                found[name] for name in ("weights", "kept", "ratio", "features")
            )


LENGTHS = (1, 98, 99, 100, 101, 300)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [" ".join(["word"] * n) for n in LENGTHS] + pool()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Published:
    return Published(tmp_path_factory.mktemp("published"), texts, target())


def check_weights(published: Published, texts: list[str], settings: NgramSettings) -> None:
    ours, theirs = weights(texts, target(), settings), published.weights
    some = hash_ngrams(texts, settings).words > 0
    assert some.sum() == len(texts) - 2
    assert (theirs[~some] == 0).all()  # a sum over nothing; we say NaN
    assert np.isnan(ours[~some]).all()
    np.testing.assert_allclose(ours[some], theirs[some], rtol=1e-9)
    assert (np.argsort(ours[some], kind="stable") == np.argsort(theirs[some], kind="stable")).all()


def test_weights_are_those_of_the_published_package(published: Published, texts: list[str]) -> None:
    check_weights(published, texts, ALL)


def test_other_lengths_and_buckets_give_the_weights_of_the_published_package(tmp_path: Path) -> None:
    published = Published(tmp_path, pool(), target(), ngrams=3, num_buckets=997)
    check_weights(published, pool(), NgramSettings(order=3, buckets=997, min_words=0))


def test_features_and_ratio_are_exactly_those_of_the_published_package(
    published: Published, texts: list[str]
) -> None:
    for text, features in zip(texts, published.features, strict=True):
        assert (counts([text], ALL) == features).all()
    ratio = log_ratio(counts(target(), ALL), counts(texts, ALL))
    assert ratio.tobytes() == published.ratio.tobytes()


def test_documents_without_a_weight_are_those_that_the_published_package_leaves_out(
    published: Published, texts: list[str]
) -> None:
    has_weight = np.isfinite(weights(texts, target(), NgramSettings()))
    assert (has_weight == published.kept).all()
    assert has_weight[: len(LENGTHS)].tolist() == [n >= 100 for n in LENGTHS]
    assert 0 < has_weight[len(LENGTHS) :].sum() < len(pool())


def test_a_weight_computed_by_hand() -> None:
    """Pool "a b", "b a b"; target "a a": with as many buckets as keep the n-grams apart."""
    settings = NgramSettings(buckets=2**31, min_words=0)
    # 2^31 counters are too many to hold: look at the buckets alone
    names = ["a", "b", "b", "a", "b", "a b", "b a", "a b"]
    expected = [int(hashlib.sha256(n.encode()).hexdigest(), 16) % 2**31 for n in names]
    found = hash_ngrams(["A b", "b A B"], settings)
    assert found.bucket.tolist() == expected
    assert found.text.tolist() == [0, 0, 1, 1, 1, 0, 1, 1]
    assert found.words.tolist() == [2, 3]
    small = NgramSettings(buckets=10_000, min_words=0)
    shares = {"a": (2 / 3, 2 / 8), "b": (0.0, 3 / 8), "a b": (0.0, 2 / 8), "b a": (0.0, 1 / 8)}
    logs = {g: math.log(p + 1e-8) - math.log(q + 1e-8) for g, (p, q) in shares.items()}
    np.testing.assert_allclose(
        weights(["a b", "b a b"], ["a a"], small),
        [logs["a"] + logs["b"] + logs["a b"], logs["a"] + 2 * logs["b"] + logs["a b"] + logs["b a"]],
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_counts_are_those_of_a_slow_loop(order: int) -> None:
    settings = NgramSettings(order=order, buckets=61)
    texts = [*ODD, "the cat the cat the cat sat", "the cat"]
    slow = Counter[int]()
    for text in texts:
        words = hash_words(text)
        for size in range(1, order + 1):
            for start in range(len(words) - size + 1):
                name = " ".join(words[start : start + size])
                slow[int(hashlib.sha256(name.encode()).hexdigest(), 16) % 61] += 1
    assert counts(texts, settings).tolist() == [slow[b] for b in range(61)]


def hash_words(text: str) -> list[str]:
    """Cut a text at every change between word characters, other signs and space."""
    kinds = [" " if c.isspace() else "w" if c.isalnum() or c == "_" else "." for c in text.lower()]
    words, last = list[str](), " "
    for c, kind in zip(text.lower(), kinds, strict=True):
        if kind != " ":
            words[len(words) - (kind == last) :] = [(words[-1] if kind == last else "") + c]
        last = kind
    return words


def test_a_weight_depends_on_no_other_text_of_its_batch() -> None:
    texts = pool()
    ratio = log_ratio(counts(target(), ALL), counts(texts, ALL))
    whole = log_weights(hash_ngrams(texts, ALL), ratio, ALL)
    alone = np.concatenate([log_weights(hash_ngrams([text], ALL), ratio, ALL) for text in texts])
    assert whole.tobytes() == alone.tobytes()
    assert (sum(counts([text], ALL) for text in texts) == counts(texts, ALL)).all()


def test_questions_weigh_more_than_other_text_of_the_pool() -> None:
    texts, wanted = pool(), target()
    half = len(wanted) // 2
    ratio = log_ratio(counts(wanted[:half], ALL), counts(texts + wanted, ALL))
    unseen, other = (hash_ngrams(some, ALL) for some in (wanted[half:], texts[:200]))
    per_word = [log_weights(n, ratio, ALL) / n.words for n in (unseen, other)]
    assert np.median(per_word[0]) > np.quantile(per_word[1], 0.9)


def test_no_text_gives_no_weight() -> None:
    assert len(log_weights(hash_ngrams([], ALL), np.zeros(10_000), ALL)) == 0


@pytest.mark.parametrize(("texts", "wanted"), [(["a"], ["  "]), ([""], ["a"])])
def test_nothing_to_compare_is_refused(texts: list[str], wanted: list[str]) -> None:
    with pytest.raises(InputError, match=r"DSIR: the (target text has|documents of the pool have) no word"):
        weights(texts, wanted, ALL)


@pytest.mark.parametrize("wrong", [{"order": 0}, {"buckets": 1}, {"buckets": 2**32 + 1}])
def test_settings_outside_their_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected an order of 1 or more"):
        NgramSettings(**wrong)
