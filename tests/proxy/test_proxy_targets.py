"""Target windows: every scored token once, bytes exact; losses against a hand-computed case."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_world import CONTEXT, MODEL, VOCAB, make_targets

from quadmix.corpus.targets import TargetText
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError
from quadmix.io.atomic import read_value
from quadmix.proxy.losses import measure, ratio
from quadmix.proxy.model import hidden_states, initial_weights
from quadmix.proxy.targets import IGNORE, TargetManifest, encode_targets, open_targets, target_set


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(["question and answer, a b c d " * 20], 300), encoding="utf-8")
    return Tokenizer.load(path)


def target(pairs: list[tuple[str, str]], *, score_prompt: bool = False) -> TargetText:
    return TargetText(
        name="quiz",
        prompts=tuple(p for p, _ in pairs),
        answers=tuple(a for _, a in pairs),
        score_prompt=score_prompt,
        weight=1.0,
        rows_in=len(pairs),
    )


# scripts without spaces between words: see the last test
SPACED = st.characters(codec="utf-8", max_codepoint=0x0DFF) | st.characters(
    codec="utf-8", min_codepoint=0x1F300
)
TEXT = st.text(SPACED.filter(lambda c: not 0x20000 <= ord(c) <= 0x3FFFF), max_size=60)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT.filter(len)), min_size=1, max_size=4), whole=st.booleans())
def test_scored_tokens_are_the_scored_text(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]], whole: bool
) -> None:
    """Whatever the lengths, the labels of a row are exactly the tokens scored, and bytes are its bytes."""
    made = target_set(target(pairs, score_prompt=whole), tokenizer, 16)
    for row, (prompt, answer) in enumerate(pairs):
        space = " " if prompt and not prompt[-1].isspace() and not answer[0].isspace() else ""
        scored = (prompt if whole else "") + space + answer
        labels = made.labels[made.row == row]
        ids = labels[labels != IGNORE].tolist()
        want = (tokenizer.encode([prompt])[0] if whole else []) + tokenizer.encode([space + answer])[0]
        assert ids == want
        assert made.bytes[row] == len(scored.encode())
    assert made.inputs.shape == made.labels.shape == (len(made.row), 16)


def test_windows_continue_each_other(tokenizer: Tokenizer) -> None:
    """A label's context is the text before it: the input beside a label is the token before."""
    text = "question and answer " * 8
    made = target_set(target([("", text)]), tokenizer, 16)
    ids = [tokenizer.end_of_document, *tokenizer.encode([text])[0]]
    inputs, labels = made.inputs.ravel(), made.labels.ravel()
    assert len(made.row) == math.ceil((len(ids) - 1) / 16)
    assert inputs[: len(ids) - 1].tolist() == ids[:-1]
    assert labels[: len(ids) - 1].tolist() == ids[1:]
    assert (labels[len(ids) - 1 :] == IGNORE).all()


def test_long_prompts_lose_their_left_end(tokenizer: Tokenizer) -> None:
    """One window holds the end of the prompt and the whole answer; the prompt is not scored."""
    made = target_set(target([("question " * 40, "b c")]), tokenizer, 16)
    head, tail = tokenizer.encode(["question " * 40, "b c"])
    assert len(made.inputs) == 1
    assert made.inputs[0].tolist() == [*head, *tail][-17:-1]
    assert made.labels[0].tolist() == [IGNORE] * (16 - len(tail)) + tail


def test_a_target_with_nothing_to_score_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Empty answers alone are an InputError with the target's name; among others they are left out."""
    with pytest.raises(InputError, match="'quiz'"):
        encode_targets([target([("why?", ""), ("", "")])], tokenizer, 16, str(tmp_path))
    made = target_set(target([("", ""), ("", "b")]), tokenizer, 16)
    assert made.bytes.tolist() == [1]


def test_targets_are_reused_for_the_same_texts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """What was written comes back; other texts replace it."""
    first = encode_targets([target([("a", "b")])], tokenizer, 16, str(tmp_path))[0]
    stamp = (tmp_path / "manifest.json").stat().st_mtime_ns
    again = encode_targets([target([("a", "b")])], tokenizer, 16, str(tmp_path))[0]
    assert np.array_equal(first.labels, again.labels)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == stamp
    other = encode_targets([target([("a", "c d")])], tokenizer, 16, str(tmp_path))[0]
    assert not np.array_equal(first.labels, other.labels)
    assert open_targets(tmp_path)[0].bytes.tolist() == [4]


def test_rows_that_do_not_fit_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A manifest warns of cut prompts and of answers in pieces, keeps the warning, and else has none."""
    rows = [("question " * 40, "b c"), ("", "question and answer " * 8), ("a", "b")]
    for _ in range(2):
        encode_targets([target(rows)], tokenizer, 16, str(tmp_path / "long"))
        (warning,) = read_value(tmp_path / "long" / "manifest.json", TargetManifest).warnings
        assert "'quiz': of 3 rows, 1 are longer than the context of 16 tokens" in warning
        assert "1 are scored in several windows" in warning
    encode_targets([target(rows[2:])], tokenizer, 16, str(tmp_path / "short"))
    assert read_value(tmp_path / "short" / "manifest.json", TargetManifest).warnings == ()


def test_bits_per_byte_of_a_hand_computed_case() -> None:
    """Two rows, 3 ln 2 nats over 2 bytes and 5 ln 2 over 6: 8 bits / 8 bytes = 1, s.e. = sqrt(2 * 2) / 8."""
    loss = ratio(np.array([3.0, 5.0]) * math.log(2), np.array([2, 6]), 4)
    assert loss.bits_per_byte == pytest.approx(1.0)
    assert loss.stderr == pytest.approx(math.sqrt(2 / 1 * (1 + 1)) / 8)
    assert (loss.rows, loss.tokens, loss.bytes) == (2, 4, 8)


def test_standard_error_covers_the_truth() -> None:
    """Over many draws of rows the estimate's spread is what its standard error says (within 15 %)."""
    rng = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(400):
        size = rng.integers(5, 50, 80)
        loss = ratio(size * (1 + 0.3 * rng.standard_normal(80)), size, 1)
        estimates.append(loss.bits_per_byte)
        errors.append(loss.stderr)
    assert np.std(estimates) == pytest.approx(np.mean(errors), rel=0.15)


def test_measure_equals_a_loop_over_tokens(tmp_path: Path) -> None:
    """Loss of each model equals a plain sum over scored positions, for windows of unlike lengths."""
    item = open_targets(make_targets(tmp_path))[0]
    weights = initial_weights(MODEL, VOCAB, [0, 1], torch.device("cpu"))
    got = measure(weights, item, MODEL, torch.float32)
    for k in range(2):
        bits = np.zeros(len(item.bytes))
        for w in range(len(item.inputs)):
            tokens = torch.from_numpy(item.inputs[w].astype(np.int64)).expand(2, 1, CONTEXT)
            with torch.no_grad():
                logits = hidden_states(weights, tokens, MODEL, torch.float32)[k] @ weights.embedding[k].T
            logp = torch.log_softmax(logits, dim=-1)
            for place, label in enumerate(item.labels[w].tolist()):
                if label != IGNORE:
                    bits[item.row[w]] -= float(logp[place, label]) / math.log(2)
        assert got[k].bits_per_byte == pytest.approx(bits.sum() / item.bytes.sum(), abs=1e-5)
        assert got[k].tokens == int((item.labels != IGNORE).sum())
    assert got[0].bits_per_byte != got[1].bits_per_byte


def test_an_answer_in_a_script_without_spaces_follows_its_prompt_at_once(tokenizer: Tokenizer) -> None:
    made = target_set(target([("它是什么颜色？", "红"), ("color:", "红")]), tokenizer, 32)
    assert made.bytes.tolist() == [3, 4]
    first = made.labels[0][made.labels[0] != IGNORE].tolist()
    assert first == tokenizer.encode(["红"])[0]
