"""Windows: QuRater's rule first, then what a tokenizer of transformers itself would cut."""

from typing import Any

import numpy as np
import pytest
from encoder_world import WORDS, save_tokenizer, texts

from quadmix.annotate.models.windows import combiner, first_tokens, special_tokens, window_tokeniser
from quadmix.recipe.cards import CardInput


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_quraters_rule_windows_of_at_most_512_tokens_weighed_by_their_length(tokenizer: Any) -> None:
    how = CardInput(window=512, aggregate="length-mean", special_tokens=False)
    tokenise = window_tokeniser(tokenizer, how)
    for words, sizes in ((1, [1]), (512, [512]), (513, [512, 1]), (1100, [512, 512, 76])):
        (windows,) = tokenise([" ".join(WORDS[i % 100] for i in range(words))])
        assert [len(w) for w in windows] == sizes
        values = np.arange(1.0, len(sizes) + 1, dtype=np.float32)[:, None] * [[1, -1, 10, 0.5]]
        got = combiner(how, 0)(values.astype(np.float32), np.array(sizes))
        expected = (values * np.array(sizes)[:, None]).sum(axis=0) / words
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_windows_hold_every_token_once_and_count_special_tokens(tokenizer: Any) -> None:
    tokenise = window_tokeniser(tokenizer, CardInput(window=16, aggregate="mean"))
    text = texts(1, seed=3)[0] * 4
    (windows,) = tokenise([text])
    assert len(windows) > 2
    assert all(len(w) <= 16 and w[0] == 2 and w[-1] == 3 for w in windows)
    whole = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert [t for w in windows for t in w[1:-1]] == whole


def test_the_first_window_is_what_truncation_of_the_tokenizer_gives(tokenizer: Any) -> None:
    tokenise = window_tokeniser(tokenizer, CardInput(), limit=24)
    many = [*texts(40, longest=400), "bal" * 500, " " * 9_000 + "bal", "x" * 9_000, "\n\n".join(WORDS) * 9]
    for text, windows in zip(many, tokenise(many), strict=True):
        (window,) = windows
        assert window == tokenizer(text, truncation=True, max_length=24)["input_ids"]


def test_max_windows_and_texts_without_tokens(tokenizer: Any) -> None:
    tokenise = window_tokeniser(tokenizer, CardInput(window=8, aggregate="max", max_windows=3))
    assert [len(w) for w in tokenise(["bal " * 500, "", " \n", "bal"])] == [3, 0, 0, 1]


def test_only_the_start_of_a_long_text_is_tokenised(tokenizer: Any) -> None:
    seen: list[int] = []

    def encode(some: list[str]) -> list[list[int]]:
        seen.extend(len(t) for t in some)
        return [row.ids for row in tokenizer.backend_tokenizer.encode_batch_fast(some)]

    first_tokens(encode, ["bal " * 20_000, "bal"], 100)
    assert seen == [(100 + 32) * 8 - 1, 3]


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("first", [1, 8]), ("mean", [2, 5]), ("max", [3, 8]), ("length-mean", [2.6, 3.2])],
)
def test_aggregates(aggregate: Any, expected: list[float]) -> None:
    values = np.array([[1, 8], [3, 2]], np.float32)
    got = combiner(CardInput(aggregate=aggregate), 2)(values, np.array([4, 10]))
    np.testing.assert_allclose(got, expected)


def test_special_tokens_are_found(tokenizer: Any) -> None:
    frame = special_tokens(tokenizer)
    assert (frame.before, frame.after, frame.tokens) == ((2,), (3,), 2)
