"""Small models in the real formats: a tokenizer, folders as the hub has them, cards for them, texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from quadmix.annotate.models.base import Placed
from quadmix.recipe.cards import CardInput, CardOutput, ModelCard

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [f"{a}{b}{c}" for a in "bdgkm" for b in "aeiou" for c in "lnrst"]
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), ".", ","]
SMALL: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
DEBERTA: dict[str, Any] = {
    **SMALL, "type_vocab_size": 0, "relative_attention": True, "position_buckets": 16,
    "norm_rel_ebd": "layer_norm", "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
    "position_biased_input": False, "max_relative_positions": -1,
}  # fmt: skip


def save_tokenizer(folder: Path, *, limit: int = 64) -> Any:
    core = Tokenizer(WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    core.normalizer = BertNormalizer(lowercase=True)
    core.pre_tokenizer = BertPreTokenizer()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    core.enable_truncation(limit // 2)  # as in some published tokenizer.json; nobody may mind it
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=limit,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def texts(count: int, *, seed: int = 0, longest: int = 120) -> list[str]:
    """Return texts of 1 to `longest` words, lengths log-normal."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(3.0, 1.0, count).astype(int), 1, longest)
    return [" ".join(rng.choice(WORDS, n)) + "." for n in lengths]


def spread(model: Any) -> Any:
    """Make a random model's outputs differ between texts by more than rounding."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.15 if "embed" not in name else 0.5)
    return model.eval()


def save_sequence(folder: Path, config: Any) -> Any:
    """Save a random `...ForSequenceClassification` with its tokenizer; return the model."""
    model = spread(transformers.AutoModelForSequenceClassification.from_config(config))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def bert(labels: int = 1, **more: Any) -> Any:
    return transformers.BertConfig(**{**SMALL, "num_labels": labels, "problem_type": "regression", **more})


def save_hub_head(folder: Path, names: list[str], *, with_base: bool = True) -> tuple[Any, Any]:
    """Save what PyTorchModelHubMixin writes for NVIDIA's classifiers; return encoder and head."""
    model = spread(transformers.DebertaV2Model(transformers.DebertaV2Config(**DEBERTA)))
    head = spread(torch.nn.Linear(32, len(names)))
    folder.mkdir(parents=True)
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"fc.{k}": v.contiguous() for k, v in head.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    facts = {
        "base_model": "microsoft/deberta-v3-base", "fc_dropout": 0.2,
        "id2label": {str(i): n for i, n in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)},
        "model_type": "deberta-v2",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(facts))
    save_tokenizer(folder)
    if with_base:
        (folder / "base").mkdir()
        (folder / "base" / "config.json").write_text(json.dumps({"model_type": "deberta-v2", **DEBERTA}))
    return model, head


def save_embedder(folder: Path) -> Any:
    model = spread(transformers.BertModel(transformers.BertConfig(**SMALL), add_pooling_layer=False))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


def card(family: Any = "sequence", **more: Any) -> ModelCard:
    """Return a card; keys of `input` and `output` may be given as dictionaries."""
    given = {"input": {}, "output": {"kind": "number"}, **more}
    role = {"embedding": "embedding", "hub-head": "domain"}.get(family, "quality")
    return ModelCard(
        name="small", family=family, role=given.pop("role", role), model=given.pop("model", "small"),
        licence="none", source="a test", description="a small model",
        input=CardInput.model_validate(given.pop("input")),
        output=CardOutput.model_validate(given.pop("output")), **given,
    )  # fmt: skip


def placed(folder: Path, made: ModelCard, base: Placed | None = None) -> Placed:
    return Placed(card=made, folder=folder, digest=f"{folder}-{made.name}", base=base)


def alone(model: Any, tokenizer: Any, text: str, *, window: int = 64, special: bool = True) -> Any:
    """Return transformers' own output for one text, cut to the window, without padding."""
    given = tokenizer(
        text, truncation=True, max_length=window, return_tensors="pt", add_special_tokens=special,
        return_token_type_ids=False,
    )  # fmt: skip
    with torch.inference_mode():
        return model(**given)
