"""Heads that transformers does not know, and embeddings, against the forward pass of their authors' code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_world import (
    DEBERTA,
    alone,
    bert,
    card,
    placed,
    save_embedder,
    save_hub_head,
    save_sequence,
    texts,
)
from safetensors.torch import load_file, save_file

from quadmix.annotate.models import heads
from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.embedding import load_embedding
from quadmix.annotate.models.heads import load_frozen_head, load_hub_head
from quadmix.annotate.models.load import forget_models
from quadmix.errors import InputError

CLOSE = {"rtol": 0.0, "atol": 2e-5}
BFLOAT16 = 0.03
TEXTS = texts(24, seed=2)
DOMAINS = ["Science", "Sports", "Adult", "News", "Games"]


def domains(names: list[str] = DOMAINS, **more: Any) -> Any:
    return card("hub-head", output={"kind": "classes", "labels": tuple(names)}, input={"window": 48}, **more)


def embedding_card(pooling: str = "cls", **how: Any) -> Any:
    return card("embedding", output={"kind": "vector"}, input={"pooling": pooling, **how})


def head_card(**more: Any) -> Any:
    return card("frozen-head", head="head.ckpt", base="base", **more)


@pytest.fixture(autouse=True)
def _no_model_of_another_test() -> None:
    forget_models()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("hub") / "model"
    return folder, *save_hub_head(folder, DOMAINS)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("embedder")
    return folder, save_embedder(folder)


def hub_reference(hub: Any, window: int = 48) -> Any:
    folder, model, head = hub
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [alone(model, tokenizer, text, window=window).last_hidden_state for text in TEXTS]
    with torch.inference_mode():
        return torch.cat([torch.softmax(head(row)[:, 0, :], dim=1) for row in rows]).numpy()


def vectors(embedder: Any, pooling: str) -> Any:
    folder, model = embedder
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in TEXTS:
        hidden = alone(model, tokenizer, text).last_hidden_state[0]
        row = {"cls": hidden[0], "mean": hidden.mean(dim=0), "last": hidden[-1]}[pooling]
        found.append(row / row.norm())
    return torch.stack(found).numpy()


def save_jql(folder: Path, *, inputs: int = 32, **extra: Any) -> Any:
    """Save a head as Lightning's checkpoints hold JQL's RegressionHead; return it."""
    torch.manual_seed(3)
    layers = [torch.nn.Linear(inputs, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)]
    state = {f"layer1.{k}": v for k, v in layers[0].state_dict().items()}
    state |= {f"layer2.{k}": v for k, v in layers[2].state_dict().items()}
    folder.mkdir(exist_ok=True)
    facts = {"epoch": 3, "hyper_parameters": {"input_dim": inputs, "hidden_dim": 16, "learning_rate": 1e-3}}
    torch.save({**facts, "state_dict": {**state, **extra}}, folder / "head.ckpt")
    return torch.nn.Sequential(*layers)


# Hub heads


def test_a_hub_head_is_the_softmax_over_the_first_token_in_the_order_of_the_card(hub: Any) -> None:
    loaded = load_hub_head(placed(hub[0], domains()), Settings(batch_tokens=512))
    found, expected = loaded.outputs(TEXTS), hub_reference(hub)
    assert np.ptp(expected, axis=0).min() > 0.005
    np.testing.assert_allclose(found.values, expected, **CLOSE)
    one = load_hub_head(placed(hub[0], domains()), Settings(batch_tokens=1)).outputs(TEXTS)
    np.testing.assert_allclose(one.values, found.values, **CLOSE)
    turned = load_hub_head(placed(hub[0], domains(DOMAINS[::-1])), Settings()).outputs(TEXTS)
    np.testing.assert_allclose(turned.values, expected[:, ::-1], **CLOSE)


def test_a_hub_head_in_bfloat16_is_near_float32(hub: Any) -> None:
    full = load_hub_head(placed(hub[0], domains()), Settings()).outputs(TEXTS).values
    half = load_hub_head(placed(hub[0], domains()), Settings(precision="bfloat16")).outputs(TEXTS).values
    assert 0 < np.abs(half - full).max() < BFLOAT16
    assert (half.argmax(axis=1) == full.argmax(axis=1)).mean() > 0.9


def test_the_encoders_configuration_comes_from_base_or_from_the_known_ones(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bare"
    model, head = save_hub_head(folder, DOMAINS, with_base=False)
    with pytest.raises(
        InputError, match=r"not those of a deberta-v2 with 12 layers of 768 .*is `base` the right"
    ):
        load_hub_head(placed(folder, domains()), Settings())
    expected = hub_reference((folder, model, head))
    base = Placed(card=embedding_card(), folder=hub[0] / "base", digest="base")
    found = load_hub_head(placed(folder, domains(), base), Settings()).outputs(TEXTS)
    np.testing.assert_allclose(found.values, expected, **CLOSE)
    small = {"model_type": "deberta-v2", **DEBERTA, "vocab_size": 1}
    monkeypatch.setitem(heads.BASES, "microsoft/deberta-v3-base", small)
    found = load_hub_head(placed(folder, domains()), Settings()).outputs(TEXTS)
    np.testing.assert_allclose(found.values, expected, **CLOSE)


def test_the_known_configuration_is_that_of_deberta_v3_base() -> None:
    with torch.device("meta"):
        values = {**heads.BASES["microsoft/deberta-v3-base"], "vocab_size": 128_100}
        kind = transformers.AutoConfig.for_model(**values)
        model = transformers.AutoModel.from_config(kind)
    assert sum(p.numel() for p in model.parameters()) == 183_831_552  # as published: 86 M + 98 M words


def test_a_folder_that_is_no_hub_head_is_refused(hub: Any, tmp_path: Path) -> None:
    save_sequence(tmp_path / "plain", bert())
    with pytest.raises(InputError, match=r"has no base_model; a hub-head's folder is one"):
        load_hub_head(placed(tmp_path / "plain", domains()), Settings())
    with pytest.raises(
        InputError, match=r"differ in Adult, Cars; the model's are, in order: Science, Sports"
    ):
        load_hub_head(placed(hub[0], domains(["Science", "Sports", "Cars", "News", "Games"])), Settings())
    folder = tmp_path / "other"
    save_hub_head(folder, DOMAINS)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"fc.weight": tensors["fc.weight"][:3].clone()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"tensor fc.weight has shape \(3, 32\), expected \(5, 32\)"):
        load_hub_head(placed(folder, domains()), Settings())
    tensors.pop("model.encoder.layer.1.output.dense.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"1 tensors in .* \(encoder.layer.1.output.dense.bias\)"):
        load_hub_head(placed(folder, domains()), Settings())
    facts = json.loads((folder / "config.json").read_text()) | {"base_model": "who/knows"}
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "base" / "config.json").unlink()
    with pytest.raises(InputError, match=r"layers of base_model 'who/knows' are not known"):
        load_hub_head(placed(folder, domains()), Settings())


# Embeddings


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_vectors_are_pooled_as_the_card_says_and_have_length_one(embedder: Any, pooling: str) -> None:
    made = placed(embedder[0], embedding_card(pooling))
    found = load_embedding(made, Settings(batch_tokens=512)).outputs(TEXTS)
    np.testing.assert_allclose(found.values, vectors(embedder, pooling), **CLOSE)
    one = load_embedding(made, Settings(batch_tokens=1)).outputs(TEXTS)
    np.testing.assert_allclose(one.values, found.values, **CLOSE)


def test_the_vector_of_several_windows_has_length_one_and_bfloat16_is_near(embedder: Any) -> None:
    made = placed(embedder[0], embedding_card("mean", window=16, aggregate="mean"))
    full = load_embedding(made, Settings()).outputs(TEXTS).values
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1.0, atol=1e-6)
    half = load_embedding(made, Settings(precision="bfloat16")).outputs(TEXTS).values
    assert 0 < np.abs(half - full).max() < 0.02
    assert (half * full).sum(axis=1).min() > 0.999


def test_a_card_may_not_pool_otherwise_than_sentence_transformers_says(embedder: Any, tmp_path: Path) -> None:
    folder = tmp_path / "st"
    save_embedder(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    with pytest.raises(InputError, match=r"input.pooling is cls, but .* says mean"):
        load_embedding(placed(folder, embedding_card("cls")), Settings())
    load_embedding(placed(folder, embedding_card("mean")), Settings())
    kinds = [{"type": f"sentence_transformers.models.{k}"} for k in ("Transformer", "Pooling", "Dense")]
    (folder / "modules.json").write_text(json.dumps(kinds))
    with pytest.raises(InputError, match="puts Dense after the pooling, which is not supported"):
        load_embedding(placed(folder, embedding_card("mean")), Settings())


def test_a_damaged_folder_gets_no_advice_to_run_its_code(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    save_embedder(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot read") as caught:
        load_embedding(placed(folder, embedding_card()), Settings())
    assert "remote_code" not in str(caught.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read") as caught:
        load_embedding(placed(folder, embedding_card()), Settings())
    assert "remote_code" not in str(caught.value)


# Frozen heads


def test_jqls_head_reads_the_normalised_vector_through_two_layers(embedder: Any, tmp_path: Path) -> None:
    layers = save_jql(tmp_path)
    base = placed(embedder[0], embedding_card())
    loaded = load_frozen_head(placed(tmp_path, head_card(), base), Settings())
    found = loaded.outputs(TEXTS)
    with torch.inference_mode():
        expected = layers(torch.from_numpy(vectors(embedder, "cls"))).numpy()
    np.testing.assert_allclose(found.values, expected, **CLOSE)
    again = load_frozen_head(placed(tmp_path, head_card(), base), Settings())
    assert again.embedder is loaded.embedder  # several heads, one embedder in memory
    empty = loaded.outputs(["", TEXTS[0]])
    assert (np.isnan(empty.values[:, 0]).tolist(), empty.missing) == ([True, False], {"no_tokens": 1})


def test_a_head_with_nan_gives_no_score(embedder: Any, tmp_path: Path) -> None:
    save_jql(tmp_path, **{"layer2.bias": torch.tensor([torch.nan])})
    loaded = load_frozen_head(
        placed(tmp_path, head_card(), placed(embedder[0], embedding_card())), Settings()
    )
    found = loaded.outputs([TEXTS[0], ""])
    assert np.isnan(found.values).all()
    assert found.missing == {"no_tokens": 1, "not_finite": 1}


def test_a_head_of_another_layout_width_or_embedder_is_refused(embedder: Any, tmp_path: Path) -> None:
    base = placed(embedder[0], embedding_card())
    save_jql(tmp_path, **{"layer3.weight": torch.zeros(2, 2)})
    with pytest.raises(
        InputError, match=r"holds layer1.bias, .*, layer3.weight; a frozen-head is laid out as"
    ):
        load_frozen_head(placed(tmp_path, head_card(), base), Settings())
    save_jql(tmp_path, inputs=24)
    with pytest.raises(InputError, match="reads vectors of 24 numbers, the embedder 'small' gives 32"):
        load_frozen_head(placed(tmp_path, head_card(), base), Settings())
    two = head_card(output={"kind": "number", "labels": ("a", "b")})
    with pytest.raises(InputError, match="has 1 outputs, the card 2"):
        load_frozen_head(placed(tmp_path, two, base), Settings())
    with pytest.raises(InputError, match="needs `base`"):
        load_frozen_head(placed(tmp_path, head_card()), Settings())
    with pytest.raises(InputError, match="of the family sequence, expected embedding"):
        load_frozen_head(placed(tmp_path, head_card(), placed(embedder[0], card())), Settings())


class Runs:
    """What a malicious checkpoint holds: unpickling it calls a function."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_a_checkpoint_with_code_or_with_damage_is_refused_and_never_run(
    embedder: Any, tmp_path: Path
) -> None:
    made = placed(tmp_path, head_card(), placed(embedder[0], embedding_card()))
    torch.save(
        {"state_dict": {"weight": torch.zeros(1, 32)}, "x": Runs(tmp_path / "ran")}, tmp_path / "head.ckpt"
    )
    with pytest.raises(InputError, match=r"quadmix never runs code of a checkpoint: save its tensors as"):
        load_frozen_head(made, Settings())
    assert not (tmp_path / "ran").exists()
    (tmp_path / "head.ckpt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as weights only"):
        load_frozen_head(made, Settings())
    (tmp_path / "head.ckpt").unlink()
    with pytest.raises(InputError, match=r"head.ckpt does not exist"):
        load_frozen_head(made, Settings())
