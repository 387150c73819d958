"""No text is encoded twice, not in a call, nor in another one, nor after a kill; every vector is right."""

import math
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from annotate.models.encoder_world import alone, card
from safetensors.torch import save_file
from tiny_encoders import ARCHITECTURES, place_encoder, save_encoder, some_texts

from quadmix.annotate.models.base import Outputs, Settings, Windows, whole_texts
from quadmix.annotate.models.heads import load_frozen_head
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.errors import InputError, IntegrityError
from quadmix.raters import embeddings
from quadmix.raters.embeddings import cache_key, embed
from quadmix.raters.table import Texts

SETTINGS = Settings(device="cpu", threads=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "xlm"
    save_encoder(folder)
    return folder


class Counting:
    """An encoder that remembers what it was given; blank texts, `nan` and `big` have no vector."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.card = card("embedding", output={"kind": "vector"})

    def outputs(self, texts: Any) -> Outputs:
        return whole_texts(self.windows(texts), len(texts), 3)

    def windows(self, texts: Any) -> Iterator[Windows]:
        self.given += texts
        values = np.array([[len(t), sum(map(ord, t)), 1.0] for t in texts], np.float32)
        why = {"": "no_tokens", "nan": "not_finite", "big": "out_of_memory"}
        reasons = [why.get(text.strip(), "") for text in texts]
        values[np.array(reasons) != ""] = np.nan
        one = np.ones(len(texts), np.int64)
        yield Windows(values=values, weights=one.astype(float), counts=one, rows=values, reasons=reasons)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    model = Counting()
    monkeypatch.setattr(embeddings, "load_model", lambda *_: model)
    return model


def of(*texts: str) -> Texts:
    ids = tuple(f"i{i}" for i in range(len(texts)))
    return Texts(ids=ids, source=ids, origin=("",) * len(ids), language=("en",) * len(ids), text=texts)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_vectors_are_those_of_the_encoder_for_each_text_alone(kind: str, tmp_path: Path) -> None:
    """Against transformers' own output without padding; to 2e-5, whatever stands beside a text."""
    model = save_encoder(tmp_path / "model", kind)
    texts, _ = some_texts(40)
    found = embed(texts, place_encoder(tmp_path / "model"), SETTINGS, tmp_path / "cache", shard=16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for row, text in enumerate(texts.text):
        expected = alone(model, tokenizer, text).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(found.values[row], expected / np.linalg.norm(expected), atol=2e-5)
    assert found.known.all()
    assert (found.encoded, found.distinct, found.missing) == (40, 40, {})
    again = embed(texts, place_encoder(tmp_path / "model"), SETTINGS, tmp_path / "cache")
    np.testing.assert_array_equal(again.values, found.values)
    assert again.encoded == 0


def test_no_text_is_encoded_twice(encoder: Path, counting: Counting, tmp_path: Path) -> None:
    placed, cache = place_encoder(encoder), tmp_path / "cache"
    told: list[tuple[int, int]] = []
    first = embed(of("b", "a", "b", "c", "a"), placed, SETTINGS, cache, lambda *at: told.append(at), shard=2)
    assert sorted(counting.given) == ["a", "b", "c"]
    assert (first.encoded, first.distinct) == (3, 3)
    assert first.values[:, 1].tolist() == [98, 97, 98, 99, 97]
    assert told == [(2, 3), (3, 3)]
    counting.given.clear()
    more = of("c", "d", "a", "d")  # other ids than before
    second = embed(replace(more, ids=("w", "x", "y", "z")), placed, SETTINGS, cache)
    assert counting.given == ["d"]
    assert second.values[:, 1].tolist() == [99, 100, 97, 100]
    assert (second.encoded, second.distinct) == (1, 3)


def test_the_order_of_rows_changes_no_bit(encoder: Path, tmp_path: Path) -> None:
    texts, _ = some_texts(60)
    turned = texts.take(list(range(59, -1, -1)))
    one = embed(texts, place_encoder(encoder), SETTINGS, tmp_path / "one", shard=16)
    two = embed(turned, place_encoder(encoder), SETTINGS, tmp_path / "two", shard=16)
    np.testing.assert_array_equal(one.values, two.values[::-1])


def test_texts_without_a_vector_are_counted_by_reason_and_marked(
    encoder: Path, counting: Counting, tmp_path: Path
) -> None:
    """What cannot change is remembered; a text that memory ran out for is tried again."""
    texts = of("a", "", "nan", "big", "", "z")
    placed = place_encoder(encoder)
    found = embed(texts, placed, SETTINGS, tmp_path)
    assert found.known.tolist() == [True, False, False, False, False, True]
    assert np.isnan(found.values[1:5]).all()
    assert found.missing == {"no_tokens": 2, "not_finite": 1, "out_of_memory": 1}
    assert len(found.known) == found.known.sum() + sum(found.missing.values())
    counting.given.clear()
    assert embed(texts, placed, SETTINGS, tmp_path).missing == found.missing
    assert counting.given == ["big"]
    counting.given.clear()
    only = embed(of("big"), placed, SETTINGS, tmp_path / "other")
    assert (only.known.tolist(), only.values.shape) == ([False], (1, 3))
    assert embed(of(), placed, SETTINGS, tmp_path).values.shape == (0, 3)


def test_another_model_precision_or_input_has_its_own_vectors(encoder: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "modern", "modernbert")
    keys = {
        cache_key(place_encoder(encoder), SETTINGS),
        cache_key(place_encoder(encoder, window=16), SETTINGS),
        cache_key(place_encoder(encoder, pooling="cls"), SETTINGS),
        cache_key(place_encoder(tmp_path / "modern"), SETTINGS),
        cache_key(place_encoder(encoder), replace(SETTINGS, precision="bfloat16")),
    }
    assert len(keys) == 5
    same = replace(SETTINGS, batch_tokens=64, threads=2)
    assert cache_key(place_encoder(encoder), same) == cache_key(place_encoder(encoder), SETTINGS)


def _killed(texts: Texts, encoder: Path, cache: Path) -> None:
    """Encode shards of 8 and die by SIGKILL in the third, before it is committed."""
    real, shards = embeddings.write_table, list[Path]()

    def write(path: Path, *rest: Any, **more: Any) -> None:
        shards.append(path)
        if len(shards) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, *rest, **more)

    embeddings.write_table = write
    embed(texts, place_encoder(encoder), SETTINGS, cache, shard=8)


def test_after_a_kill_at_most_one_shard_is_encoded_again(encoder: Path, tmp_path: Path) -> None:
    texts, _ = some_texts(40)
    forget_models()
    child = multiprocessing.get_context("fork").Process(
        target=_killed, args=(texts, encoder, tmp_path / "killed")
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    whole = embed(texts, place_encoder(encoder), SETTINGS, tmp_path / "whole", shard=8)
    rest = embed(texts, place_encoder(encoder), SETTINGS, tmp_path / "killed", shard=8)
    assert (whole.encoded, rest.encoded) == (40, 24)
    np.testing.assert_array_equal(rest.values, whole.values)


def test_a_wrong_card_and_a_damaged_shard_are_named(encoder: Path, tmp_path: Path) -> None:
    placed, texts = place_encoder(encoder), of("a", "b")
    other = replace(placed, card=card("sequence"))
    with pytest.raises(InputError, match="card 'small' is for quality, expected one for embedding"):
        embed(texts, other, SETTINGS, tmp_path)
    embed(texts, placed, SETTINGS, tmp_path)
    (file,) = tmp_path.rglob("vectors-*.parquet")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(IntegrityError, match=f"{file.name} is cut or damaged"):
        embed(texts, placed, SETTINGS, tmp_path)


# Heads that declare what they are


def test_a_head_of_two_layers_may_declare_gelu(encoder: Path, tmp_path: Path) -> None:
    """The exact GELU, x Phi(x); without a declaration it is JQL's ReLU; an unknown one is refused."""
    base = place_encoder(encoder)
    texts, _ = some_texts(40)
    torch.manual_seed(0)
    first, second = torch.nn.Linear(32, 8), torch.nn.Linear(8, 1)
    tensors = {f"layer{n}.{k}": v for n, m in ((1, first), (2, second)) for k, v in m.state_dict().items()}
    made = card("frozen-head", head="head.safetensors", base="base")
    found = {}
    for declared in ("gelu", "relu", ""):
        save_file(
            tensors, tmp_path / "head.safetensors", metadata={"activation": declared} if declared else None
        )
        head = load_frozen_head(
            replace(base, card=made, folder=tmp_path, digest=declared, base=base), SETTINGS
        )
        found[declared] = head.outputs(texts.text).values[:, 0]
    x = load_model(base, SETTINGS).outputs(texts.text).values.astype(np.float64)
    hidden = x @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy()
    phi = np.array([[0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in hidden])
    out, shift = second.weight.detach().double().numpy()[0], float(second.bias.detach())
    np.testing.assert_allclose(found["gelu"], (hidden * phi) @ out + shift, atol=1e-6)
    np.testing.assert_allclose(found["relu"], np.maximum(hidden, 0) @ out + shift, atol=1e-6)
    np.testing.assert_array_equal(found[""], found["relu"])
    save_file(tensors, tmp_path / "head.safetensors", metadata={"activation": "swish"})
    with pytest.raises(InputError, match="declares activation 'swish', expected relu or gelu"):
        load_frozen_head(replace(base, card=made, folder=tmp_path, digest="x", base=base), SETTINGS)
