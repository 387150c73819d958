"""Sequence classifiers: every architecture against transformers' own forward pass of one text at a time."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_world import (
    DEBERTA,
    SMALL,
    alone,
    bert,
    card,
    placed,
    save_sequence,
    save_tokenizer,
    spread,
    texts,
)

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.encoder import load_sequence
from quadmix.errors import InputError

CLOSE = {"rtol": 0.0, "atol": 2e-5}  # float32: batches and padding change the order of sums, nothing else
BFLOAT16 = 0.03  # of the spread of the outputs over texts: 8 bits per number
TEXTS = texts(24, seed=1)
LABELS = ("High", "Medium", "Low")
LLAMA: dict[str, Any] = {**SMALL, "num_key_value_heads": 4, "max_position_embeddings": 512}
QURATER = ("writing_style", "required_expertise", "facts_and_trivia", "educational_value")


def llama(pad: int | None) -> Any:
    return transformers.LlamaConfig(**{**LLAMA, "num_labels": 4, "pad_token_id": pad, "use_cache": True})


def qurater_card() -> Any:
    return card(
        input={"window": 32, "aggregate": "length-mean", "special_tokens": False},
        output={"kind": "number", "labels": QURATER},
    )


def reference(folder: Path, some: list[str], *, softmax: bool = False, window: int = 64) -> Any:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    logits = torch.cat([alone(model, tokenizer, text, window=window).logits for text in some])
    return (logits.softmax(-1) if softmax else logits).numpy()


@pytest.fixture(scope="module")
def edu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edu")
    save_sequence(folder, bert())
    return folder


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    names = dict(enumerate(LABELS))
    save_sequence(folder, transformers.DebertaV2Config(**DEBERTA, num_labels=3, id2label=names))
    return folder


@pytest.fixture(scope="module")
def qurater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qurater")
    save_sequence(folder, llama(0))
    return folder


def test_a_regressor_gives_the_logit_of_each_text_alone_cut_to_the_models_positions(edu: Path) -> None:
    found = load_sequence(placed(edu, card()), Settings(batch_tokens=512)).outputs(TEXTS)
    expected = reference(edu, TEXTS)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(found.values, expected, **CLOSE)
    assert (found.values.shape, found.values.dtype, found.missing) == ((24, 1), np.float32, {})


def test_classes_are_probabilities_in_the_order_of_the_card(quality: Path) -> None:
    how = card(output={"kind": "classes", "labels": LABELS, "positive": "High"})
    found = load_sequence(placed(quality, how), Settings()).outputs(TEXTS).values
    expected = reference(quality, TEXTS, softmax=True)
    np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    turned = card(output={"kind": "classes", "labels": ("low", "HIGH", "Medium_"), "positive": "HIGH"})
    other = load_sequence(placed(quality, turned), Settings()).outputs(TEXTS).values
    np.testing.assert_allclose(other, expected[:, [2, 0, 1]], **CLOSE)


def test_qurater_is_the_mean_over_windows_weighed_by_their_tokens(qurater: Path) -> None:
    found = load_sequence(placed(qurater, qurater_card()), Settings(batch_tokens=256)).outputs(TEXTS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(qurater).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(qurater)
    for text, row in zip(TEXTS, found.values, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        parts = torch.tensor([ids]).split(32, dim=1)
        with torch.inference_mode():
            logits = torch.cat([model(part).logits for part in parts]).numpy()
        expected = np.average(logits, axis=0, weights=[part.shape[1] for part in parts])
        np.testing.assert_allclose(row, expected, **CLOSE)


def test_a_decoder_without_a_padding_token_reads_the_last_token_of_each_text(tmp_path: Path) -> None:
    save_sequence(tmp_path, llama(None))
    how = card(output={"kind": "number", "labels": QURATER})
    found = load_sequence(placed(tmp_path, how), Settings()).outputs(TEXTS)
    np.testing.assert_allclose(found.values, reference(tmp_path, TEXTS), **CLOSE)


def test_modernbert_and_roberta_with_their_own_padding_and_positions(tmp_path: Path) -> None:
    modern = transformers.ModernBertConfig(
        **SMALL,
        num_labels=6,
        global_attn_every_n_layers=2,
        local_attention=16,
        cls_token_id=2,
        sep_token_id=3,
    )
    roberta = transformers.RobertaConfig(**{**SMALL, "num_labels": 6, "pad_token_id": 1, "vocab_size": 200})
    for name, config, window in (("modern", modern, 64), ("roberta", roberta, 62)):
        save_sequence(tmp_path / name, config)
        how = card(
            output={"kind": "classes", "labels": tuple("012345"), "values": {str(i): i for i in range(6)}}
        )
        found = load_sequence(placed(tmp_path / name, how), Settings(batch_tokens=256)).outputs(TEXTS)
        expected = reference(tmp_path / name, TEXTS, softmax=True, window=window)
        np.testing.assert_allclose(found.values, expected, err_msg=name, **CLOSE)


def test_one_at_a_time_many_together_and_other_neighbours_agree_and_repeat_to_the_bit(edu: Path) -> None:
    one = load_sequence(placed(edu, card()), Settings(batch_tokens=1))
    many = load_sequence(placed(edu, card()), Settings(batch_tokens=100_000))
    first = many.outputs(TEXTS).values
    np.testing.assert_allclose(one.outputs(TEXTS).values, first, **CLOSE)
    np.testing.assert_allclose(many.outputs(TEXTS[::-1]).values[::-1], first, **CLOSE)
    np.testing.assert_allclose(many.outputs(TEXTS[7:9]).values, first[7:9], **CLOSE)
    np.testing.assert_array_equal(many.outputs(TEXTS).values, first)


@pytest.mark.parametrize("which", ["edu", "qurater"])
def test_bfloat16_is_near_float32_and_does_not_tie(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    how = card() if which == "edu" else qurater_card()
    full = load_sequence(placed(folder, how), Settings(precision="float32")).outputs(TEXTS).values
    half = load_sequence(placed(folder, how), Settings(precision="bfloat16")).outputs(TEXTS).values
    assert np.abs(half - full).max() > 0  # it did run in the other format
    assert (np.abs(half - full).max(axis=0) < BFLOAT16 * np.ptp(full, axis=0)).all()
    assert len(np.unique(half[:, 0])) == len(np.unique(full[:, 0])) == len(TEXTS)


def test_logits_that_are_not_finite_are_missing_with_a_reason(edu: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(edu)
    tokenizer = save_tokenizer(tmp_path)
    rare = tokenizer.convert_tokens_to_ids("bal")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[rare] = torch.nan
    model.save_pretrained(tmp_path)
    some = ["bel bil.", "bal bel.", "bol.", ""]
    found = load_sequence(placed(tmp_path, card()), Settings()).outputs(some)
    assert np.isnan(found.values[:, 0]).tolist() == [False, True, False, True]
    assert found.missing == {"no_tokens": 1, "not_finite": 1}
    np.testing.assert_allclose(found.values[[0, 2]], reference(edu, [some[0], some[2]]), **CLOSE)


def test_memory_that_runs_out_changes_no_score(edu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_sequence(placed(edu, card()), Settings(batch_tokens=4096))
    expected, plain, sizes = loaded.outputs(TEXTS).values, transformers.BertModel.forward, []

    def small(self: Any, input_ids: Any, **rest: Any) -> Any:
        sizes.append(input_ids.numel())
        if input_ids.numel() > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, input_ids, **rest)

    monkeypatch.setattr(transformers.BertModel, "forward", small)
    found = loaded.outputs(TEXTS)
    assert max(sizes) > 400
    assert found.missing == {}
    np.testing.assert_allclose(found.values, expected, **CLOSE)


def test_another_architecture_number_of_outputs_or_labels_is_refused(
    edu: Path, quality: Path, tmp_path: Path
) -> None:
    spread(transformers.BertForMaskedLM(bert())).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(InputError, match="holds a BertForMaskedLM, the family sequence needs a"):
        load_sequence(placed(tmp_path, card()), Settings())
    with pytest.raises(InputError, match=r"has 1 outputs \(LABEL_0\), the card 4 \(writing_style"):
        load_sequence(placed(edu, qurater_card()), Settings())
    other = card(output={"kind": "classes", "labels": ("High", "Medium", "Bad"), "positive": "High"})
    with pytest.raises(InputError, match="differ in Bad, Low; the model's are, in order: High, Medium, Low"):
        load_sequence(placed(quality, other), Settings())


def test_a_folder_whose_head_is_absent_would_be_random_and_is_refused(edu: Path, tmp_path: Path) -> None:
    spread(transformers.BertModel(bert())).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"lacks 2 weights of a BertFor.*\(classifier.bias, classifier.weight\)"
    ):
        load_sequence(placed(tmp_path, card()), Settings())


def test_what_else_can_be_wrong_with_a_folder(edu: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder .*nowhere does not exist"):
        load_sequence(placed(tmp_path / "nowhere", card()), Settings())
    with pytest.raises(InputError, match=r"AutoConfig cannot read .*; expected config.json"):
        load_sequence(placed(tmp_path, card()), Settings())
    with pytest.raises(InputError, match=r"input.window is 65 tokens, but the model in .* has 64 positions"):
        load_sequence(placed(edu, card(input={"window": 65})), Settings())
    shutil.copytree(edu, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    with pytest.raises(InputError, match=r"cannot read .*cut .*; expected weights that fit"):
        load_sequence(placed(tmp_path / "cut", card()), Settings())
    (tmp_path / "cut" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot read .*cut .*; expected weights that fit"):
        load_sequence(placed(tmp_path / "cut", card()), Settings())


def test_code_of_a_folder_never_runs_unless_the_card_says_so(edu: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(edu, folder)
    mark = tmp_path / "ran"
    (folder / "mine.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom transformers import BertConfig as Mine\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="needs code of its repository has remote_code: true on its card"):
        load_sequence(placed(folder, card()), Settings())
    assert not mark.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device is cuda, but this process sees 0 GPUs"):
        load_sequence(placed(tmp_path, card()), Settings(device="cuda"))
