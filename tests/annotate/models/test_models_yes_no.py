"""Models that are asked: the numbers of transformers' own forward pass, the question whole."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import transformers
from encoder_world import WORDS, placed, spread, texts
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from quadmix.annotate.models import yes_no
from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.load import load_model
from quadmix.annotate.models.yes_no import load_yes_no
from quadmix.errors import InputError
from quadmix.recipe.cards import ModelCard

Kind = Literal["t5", "llama", "gpt2"]
PROMPT = "###\n{text}\n###\n\nIs it good? OPTIONS:\n- yes\n- no\n"
QUESTION = ["is", "it", "good", "?", "OPTIONS:", "###", "-", "yes", "Yes", "no", "No", "y", "n"]
ANSWERS: dict[str, tuple[str, ...]] = {"yes": ("yes", "Yes"), "no": ("no", "No")}
BATCH = Settings(device="cpu", precision="float32", batch_tokens=600)


def piece_tokenizer(end: bool) -> Any:
    """Sentence pieces as T5 (</s> at the end) and Llama (<s> at the start) have them."""
    letters = [chr(c) for c in range(33, 127)]
    pieces = ["▁", *letters, *(f"▁{w}" for w in (*WORDS, *QUESTION)), "yes", "Yes", "\n"]
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "<s>": 0.0}
    scores |= {piece: -10.0 if len(piece) < 2 else -2.0 for piece in pieces}
    core = Tokenizer(Unigram(list(scores.items()), unk_id=2))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    core.post_processor = TemplateProcessing(
        single="$A </s>" if end else "<s> $A", special_tokens=[("</s>", 1), ("<s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def byte_tokenizer() -> Any:
    """Byte pairs as GPT-2 has them; no padding token, nothing put around a text."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(
        [*texts(300, seed=5), *[PROMPT, "yes Yes no No", "\nyes\nno\nYes\nNo"] * 40], trainer
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")


def save(folder: Path, kind: Kind, *, positions: int = 512) -> tuple[Any, Any]:
    """Save a small random language model in the hub's format; return it and its tokenizer."""
    tokenizer = byte_tokenizer() if kind == "gpt2" else piece_tokenizer(end=kind == "t5")
    size = len(tokenizer) + 5  # as published models, which round the number of words up
    torch.manual_seed(3)
    if kind == "t5":
        config: Any = transformers.T5Config(
            vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0,
            decoder_start_token_id=0, feed_forward_proj="gated-gelu",
        )  # fmt: skip
        model: Any = transformers.T5ForConditionalGeneration(config)
    elif kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=positions,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    else:
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=positions)
        )
    spread(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind == "t5":
        model = with_own_head(folder, size)
    return model, tokenizer


def with_own_head(folder: Path, size: int) -> Any:
    """Give a saved T5 a vocabulary layer of its own, as T5 1.1 and flan-t5 have it on the hub."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(size, 32) * 0.3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    del values["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps(values))
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, tensors["lm_head.weight"])
    return model


def make(folder: Path, **given: Any) -> Placed:
    keys = {"input": {"window": 160}, "prompt": PROMPT, "answers": ANSWERS} | given
    among = keys.pop("among", "vocabulary")
    card = ModelCard.model_validate(
        {
            "name": "asked", "family": "yes-no", "role": "quality", "model": "m", "licence": "none",
            "source": "a test", "description": "yes?", "output": {"kind": "yes", "among": among}, **keys,
        }
    )  # fmt: skip
    return placed(folder, card)


def logits_alone(model: Any, tokenizer: Any, prompt: str) -> Any:
    """Return transformers' own logits where the model answers one prompt, unpadded and unbatched."""
    given = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            return model(**given, decoder_input_ids=start).logits[0, 0]
        return model(**given).logits[0, -1]


YES: dict[Kind, list[str]] = {
    "t5": ["▁yes", "▁Yes"], "llama": ["yes", "Yes", "▁yes", "▁Yes"], "gpt2": ["yes", "Yes", "Ġyes", "ĠYes"],
}  # fmt: skip
NO: dict[Kind, list[str]] = {
    "t5": ["▁no", "▁No"], "llama": ["n", "N", "▁no", "▁No"], "gpt2": ["no", "No", "Ġno", "ĠNo"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_numbers_are_those_of_the_librarys_forward_pass_on_each_text_alone(
    tmp_path: Path, kind: Kind
) -> None:
    model, tokenizer = save(tmp_path, kind)
    documents = texts(24, longest=30)
    vocabulary, answers = (
        load_yes_no(make(tmp_path, among=among), BATCH).outputs(documents).values
        for among in ("vocabulary", "answers")
    )
    yes, no = (tokenizer.convert_tokens_to_ids(names[kind]) for names in (YES, NO))
    for row, text in enumerate(documents):
        p = logits_alone(model, tokenizer, PROMPT.replace("{text}", text)).double().softmax(dim=-1)
        assert vocabulary[row, 0] == pytest.approx(float(p[yes].sum()), rel=1e-4)
        assert answers[row, 0] == pytest.approx(float(p[yes].sum() / p[[*yes, *no]].sum()), rel=1e-4)
    assert vocabulary.shape == (24, 1)
    assert len(np.unique(np.round(vocabulary, 6))) > 12


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_a_row_depends_on_neither_its_batch_nor_the_padding(tmp_path: Path, kind: Kind) -> None:
    save(tmp_path, kind)
    documents = texts(30, seed=2)
    model = load_yes_no(make(tmp_path), BATCH)
    many = model.outputs(documents).values
    alone = np.concatenate([model.outputs([t]).values for t in documents])
    wide = load_yes_no(make(tmp_path), Settings(device="cpu", batch_tokens=100_000)).outputs(documents).values
    assert np.abs(many - alone).max() < 1e-6
    assert np.abs(many - wide).max() < 1e-6
    assert model.outputs(documents).values.tobytes() == many.tobytes()


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_bfloat16_stays_near_float32(tmp_path: Path, kind: Kind) -> None:
    """Tied weights too: gpt2's vocabulary layer is its embedding, and is taken apart for float32 logits."""
    save(tmp_path, kind)
    documents = texts(16, seed=4)
    full, half = (
        load_yes_no(make(tmp_path, among="answers"), Settings(device="cpu", precision=p))
        .outputs(documents)
        .values
        for p in ("float32", "bfloat16")
    )
    assert np.abs(full - half).max() < 0.05
    assert len(np.unique(half)) == len(np.unique(full))  # logits of eight bits would tie
    assert (full != half).any()


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_a_long_text_is_cut_and_the_question_is_not(tmp_path: Path, kind: Kind) -> None:
    model, tokenizer = save(tmp_path, kind)
    found = make(tmp_path, input={"window": 100})
    loaded = load_yes_no(found, BATCH)
    long = " ".join(texts(30, seed=6, longest=60))
    documents = [long, long[:3000], "z" * 20_000, long.replace(" ", "\n")]
    for text, windows in zip(documents, loaded.tokenise(documents), strict=True):
        ids = list(windows[0])
        assert 100 - 6 <= len(ids) <= 100
        said = tokenizer.decode(ids, skip_special_tokens=True)
        assert said.endswith(PROMPT.split("{text}")[1])
        kept = said.removesuffix(PROMPT.split("{text}")[1]).split("###\n", 1)[1]
        assert text.startswith(kept)
        whole = PROMPT.replace("{text}", kept)
        assert tokenizer(whole)["input_ids"] == ids
        p = logits_alone(model, tokenizer, whole).softmax(dim=-1)
        yes = tokenizer.convert_tokens_to_ids(YES[kind])
        assert loaded.outputs([text]).values[0, 0] == pytest.approx(float(p[yes].sum()), rel=1e-4)


def test_a_rough_cut_of_a_long_text_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "gpt2")
    loaded = load_yes_no(make(tmp_path, input={"window": 100}), BATCH)
    documents = [" ".join(texts(60, seed=s)) for s in range(4)] + [" " * 5_000 + "bal bel " * 900]
    quick = loaded.tokenise(documents)
    monkeypatch.setattr(yes_no, "CHARS_PER_TOKEN", 10_000)
    assert loaded.tokenise(documents) == quick


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_blanks_before_a_text_do_not_take_its_place(tmp_path: Path, kind: Kind) -> None:
    save(tmp_path, kind)
    loaded = load_yes_no(make(tmp_path, input={"window": 100}), BATCH)
    words = " ".join(texts(30, seed=6, longest=60))
    plain, *others = loaded.tokenise([words, "\n" * 1_000 + words, " \t\n" * 5_000 + words, "\n\n" + words])
    assert plain
    assert others == [plain] * 3
    given = loaded.outputs(["\n" * 1_000 + "bal bel", "\n" * 1_000])
    assert given.missing == {"no_tokens": 1}
    assert np.isfinite(given.values[0, 0])


def test_special_tokens_in_a_text_are_words(tmp_path: Path) -> None:
    """</s> in a text would end the encoder's input there; broken by a blank it is read as any other word."""
    _, tokenizer = save(tmp_path, "t5")
    windows = load_yes_no(make(tmp_path), BATCH).tokenise(["bal </s> bel <s><pad>"])
    ids = list(windows[0][0])
    assert [i for i in ids if i in tokenizer.all_special_ids and i != tokenizer.unk_token_id] == [1]
    assert ids[-1] == 1
    assert "bal < /s> bel < s>< pad>" in tokenizer.decode(ids)


def test_numbers_that_are_not_finite_have_a_reason(tmp_path: Path) -> None:
    _, tokenizer = save(tmp_path, "t5")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["shared.weight"][tokenizer.convert_tokens_to_ids("▁bal")] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    given = load_yes_no(make(tmp_path), BATCH).outputs(["bel bil", "bel bal", "bol", " "])
    assert np.isnan(given.values[:, 0]).tolist() == [False, True, False, True]
    assert given.missing == {"no_tokens": 1, "not_finite": 1}


def test_yes_and_no_that_begin_alike_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    answers = {"yes": ("good",), "no": ("g",)}
    with pytest.raises(InputError, match="begin with the same token"):
        load_yes_no(make(tmp_path, answers=answers), BATCH)
    with pytest.raises(InputError, match=r"no spelling of yes \(\u2603\) can follow the prompt"):
        load_yes_no(make(tmp_path, answers={"yes": ("\u2603",), "no": ("no",)}), BATCH)
    save(tmp_path / "bytes", "gpt2")
    answers = {"yes": ("yes",), "no": ("yes, but no",)}
    with pytest.raises(InputError, match="begin with the same token 'yes'"):
        load_yes_no(make(tmp_path / "bytes", answers=answers), BATCH)


def test_prompts_and_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama", positions=64)
    with pytest.raises(InputError, match=r"the prompt alone has \d+ tokens, the window 24"):
        load_yes_no(make(tmp_path, input={"window": 24}), BATCH)
    with pytest.raises(InputError, match=r"input.window is 65 tokens, but the model .* has 64 positions"):
        load_yes_no(make(tmp_path, input={"window": 65}), BATCH)
    with pytest.raises(InputError, match=r"needs \{text\} once"):
        load_yes_no(make(tmp_path, prompt="{text} or {text}?", input={}), BATCH)
    with pytest.raises(InputError, match=r"input\.aggregate is 'mean', expected first"):
        load_yes_no(make(tmp_path, input={"window": 60, "aggregate": "mean"}), BATCH)
    free = load_yes_no(make(tmp_path, input={}), BATCH)  # no window on the card: the model's positions
    assert len(free.tokenise(["bal " * 500])[0][0]) in (63, 64)
    encoder = tmp_path / "encoder"
    transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                intermediate_size=8)
    ).save_pretrained(encoder)  # fmt: skip
    with pytest.raises(InputError, match="holds a BertForSequenceClassification, the family yes-no needs"):
        load_yes_no(make(encoder), BATCH)
    save(tmp_path / "t5", "t5")
    config = transformers.T5Config.from_pretrained(tmp_path / "t5")
    config.decoder_start_token_id = None
    config.save_pretrained(tmp_path / "t5")
    with pytest.raises(InputError, match="names no decoder_start_token_id"):
        load_yes_no(make(tmp_path / "t5"), BATCH)


def test_a_card_of_an_asked_model_loads_by_its_family(tmp_path: Path) -> None:
    save(tmp_path, "t5")
    assert load_model(make(tmp_path), BATCH).outputs(["bal bel"]).values.shape == (1, 1)
