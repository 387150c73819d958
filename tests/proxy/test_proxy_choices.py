"""Benchmarks become windows exactly as lm-evaluation-harness encodes and cuts them."""

from pathlib import Path

import numpy as np
import pytest

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError
from quadmix.io.atomic import read_value
from quadmix.proxy.choices import choice_rows, encode_benchmarks, read_choices
from quadmix.proxy.targets import IGNORE, TargetManifest, TargetSet

CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(["question and answer, a b c d " * 20], 300), encoding="utf-8")
    return Tokenizer.load(path)


def quiz(*items: tuple[str, list[str]], name: str = "quiz") -> BenchmarkItems:
    """Items of (context, continuations); the first choice is right."""
    return BenchmarkItems(
        name=name,
        contexts=tuple((context,) * len(texts) for context, texts in items),
        continuations=tuple(tuple(texts) for _, texts in items),
        choices=tuple(tuple(t.strip() for t in texts) for _, texts in items),
        gold=(0,) * len(items),
        kind="choices",
        rows_in=len(items),
    )


def harness_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """`TemplateLM._encode_pair` of lm-evaluation-harness 0.4, with end-of-document as its prefix token."""
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole_enc = tokenizer.encode([context + continuation])[0]
    context_enc = tokenizer.encode([context])[0]
    return [tokenizer.end_of_document, *context_enc], whole_enc[len(context_enc) :]


def harness_window(context_enc: list[int], continuation_enc: list[int]) -> tuple[list[int], list[int]]:
    """Input and scored tokens of `HFLM._loglikelihood_tokens` at max_length CONTEXT."""
    return (context_enc + continuation_enc)[-(CONTEXT + 1) :][:-1], continuation_enc


def window(one: TargetSet, row: int) -> tuple[list[int], list[int]]:
    (place,) = np.flatnonzero(one.row == row)
    labels = one.labels[place]
    used = int(np.flatnonzero(labels != IGNORE)[-1]) + 1
    assert (one.inputs[place, used:] == 0).all()
    return one.inputs[place, :used].tolist(), labels[labels != IGNORE].tolist()


ITEMS = quiz(
    ("question", [" a", " answer, b", " ü c d"]),
    ("question and ", ["answer", "b"]),
    ("ends in a line\n", ["a b", "question"]),
    ("", ["answer", "question and"]),
    ("question and answer, " * 9 + "a", [" b", " c d" * 4]),
)


def test_windows_are_those_of_the_harness(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (one,) = encode_benchmarks([ITEMS], tokenizer, CONTEXT, str(tmp_path))
    pairs = [
        (context, continuation)
        for contexts, continuations in zip(ITEMS.contexts, ITEMS.continuations, strict=True)
        for context, continuation in zip(contexts, continuations, strict=True)
    ]
    assert one.kind == "benchmark"
    assert len(one.bytes) == len(pairs)
    cut = 0
    for row, (context, continuation) in enumerate(pairs):
        encoded = harness_pair(tokenizer, context, continuation)
        assert window(one, row) == harness_window(*encoded)
        cut += len(encoded[0]) + len(encoded[1]) > CONTEXT + 1
    assert cut == 2  # else the left cut was not tried
    assert one.bytes.tolist()[:5] == [2, 10, 7, 7, 2]  # the moved space counts, ü is two bytes


def test_a_continuation_of_exactly_the_context_is_one_window_and_longer_ones_are_scored_whole(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = ["x" * CONTEXT, "x" * (2 * CONTEXT + 3)]  # a letter that was not merged is one token
    (one,) = encode_benchmarks([quiz(("question", texts))], tokenizer, CONTEXT, str(tmp_path))
    assert (one.row == 0).sum() == 1
    assert (one.row == 1).sum() == 3
    letter = tokenizer.encode(["x"])[0][0]
    for row, text in enumerate(texts):
        labels = one.labels[one.row == row]
        assert labels[labels != IGNORE].tolist() == [letter] * len(text)
    (warning,) = read_value(tmp_path / "manifest.json", TargetManifest).warnings
    assert warning.startswith("benchmark 'quiz': of 2 rows, 2 are longer than the context of 16 tokens")
    assert "1 are scored in several windows" in warning


def test_the_table_says_what_every_row_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = quiz(("a", [" b", " c"]), name="other")
    encode_benchmarks([ITEMS, other], tokenizer, CONTEXT, str(tmp_path))
    tables = read_choices(tmp_path)
    assert list(tables) == ["quiz", "other"]
    table = tables["quiz"]
    assert table.item == (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert table.choice == (0, 1, 2, 0, 1, 0, 1, 0, 1, 0, 1)
    assert table.characters[:3] == (1, 9, 5)
    assert table.gold == (0,) * 5
    assert table.chance == pytest.approx((1 / 3 + 4 / 2) / 5)


def test_the_same_texts_are_reused_and_others_are_not(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = str(tmp_path)
    encode_benchmarks([ITEMS], tokenizer, CONTEXT, folder)
    file = tmp_path / "00000.inputs.npy"
    first = file.stat().st_mtime_ns
    encode_benchmarks([ITEMS], tokenizer, CONTEXT, folder)
    assert file.stat().st_mtime_ns == first
    (one,) = encode_benchmarks([quiz(("a", [" b", " c"]))], tokenizer, CONTEXT, folder)
    assert file.stat().st_mtime_ns != first
    assert len(one.bytes) == len(read_choices(folder)["quiz"].item) == 2


def test_a_continuation_without_a_token_of_its_own_is_named(tokenizer: Tokenizer) -> None:
    # "an" + "d" is the one token "and" here, as is the context alone
    assert len(tokenizer.encode([" an"])[0]) >= len(tokenizer.encode([" and"])[0])
    items = quiz(("a b", [" c", " d"]), (" an", [" a", "d"]))
    with pytest.raises(InputError, match=r"benchmark 'quiz', item 1, choice 1: 'd' has no token of its own"):
        choice_rows(items, tokenizer)


def test_a_folder_without_items_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no items\.json"):
        read_choices(tmp_path)
