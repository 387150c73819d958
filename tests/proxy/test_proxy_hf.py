"""A model as a Hugging Face folder: same logits, same tokens, and what is refused."""

from pathlib import Path

import orjson
import pytest
import torch
from tiny_run import demo_rows

from quadmix.corpus.tokenizer import END_OF_DOCUMENT, Tokenizer, train_tokenizer
from quadmix.errors import ProxyError
from quadmix.proxy.hf import write_llama
from quadmix.proxy.model import Weights, hidden_states, initial_weights
from quadmix.recipe import ModelSection

transformers = pytest.importorskip("transformers")

TEXTS = [row["text"][:400] for row in demo_rows("pool.jsonl.zst", 60)]
ODD = ["", " a", "two  spaces \n\n", "Ünï🎉", "tail "]


def make_model(architecture: str, head: str, layers: int = 3) -> ModelSection:
    return ModelSection.model_validate(
        {
            "layers": layers, "width": 32, "heads": 4, "mlp": 48, "context": 24, "vocab_multiple": 64,
            "architecture": architecture, "head": head,
        }
    )  # fmt: skip


def make_tokenizer(folder: Path) -> Tokenizer:
    (folder / "tokenizer.json").write_text(train_tokenizer(TEXTS, 540), encoding="utf-8")
    return Tokenizer.load(folder / "tokenizer.json")


def some_tensors(model: ModelSection, vocab: int) -> dict[str, torch.Tensor]:
    """Weights with nothing at zero or one: also the matrices and gains that training starts from there."""
    generator = torch.Generator().manual_seed(5)
    fresh = initial_weights(model, vocab, [3], torch.device("cpu")).named()
    return {
        name: tensor[0].detach() + 0.05 * torch.randn(tensor.shape[1:], generator=generator)
        for name, tensor in fresh.items()
    }


def our_logits(tensors: dict[str, torch.Tensor], tokens: torch.Tensor, model: ModelSection) -> torch.Tensor:
    weights = Weights(**{name: tensor[None] for name, tensor in tensors.items()})
    states = hidden_states(weights, tokens[None], model, torch.float32)
    return (states[0] @ weights.table[0].T).view(*tokens.shape, -1)


@pytest.mark.parametrize("architecture", ["quadmix", "tinyllama"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_transformers_gives_the_same_logits(tmp_path: Path, architecture: str, head: str) -> None:
    model, tokenizer = make_model(architecture, head), make_tokenizer(tmp_path)
    tensors = some_tensors(model, model.padded(tokenizer.vocab_size))
    write_llama(tensors, model, tokenizer, tmp_path / "out")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.dtype == torch.float32
    assert theirs.config.max_position_embeddings == model.context
    tokens = torch.randint(0, tokenizer.vocab_size, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = theirs(tokens).logits - our_logits(tensors, tokens, model)
    assert float(difference.abs().max()) < 1e-4


def test_bfloat16_halves_the_file_and_keeps_the_logits_nearly(tmp_path: Path) -> None:
    model, tokenizer = make_model("quadmix", "tied"), make_tokenizer(tmp_path)
    tensors = some_tensors(model, model.padded(tokenizer.vocab_size))
    sizes: dict[str, int] = {}
    for precision in ("float32", "bfloat16"):
        write_llama(tensors, model, tokenizer, tmp_path / precision, precision=precision)
        sizes[precision] = (tmp_path / precision / "model.safetensors").stat().st_size
    assert 0.45 < sizes["bfloat16"] / sizes["float32"] < 0.55
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16")
    assert theirs.dtype == torch.bfloat16
    tokens = torch.randint(0, tokenizer.vocab_size, (1, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = theirs.float()(tokens).logits - our_logits(tensors, tokens, model)
    assert 0 < float(difference.abs().max()) < 0.1


def test_the_tokenizer_of_the_folder_gives_our_ids_after_end_of_document(tmp_path: Path) -> None:
    model, tokenizer = make_model("quadmix", "tied"), make_tokenizer(tmp_path)
    write_llama(some_tensors(model, model.padded(tokenizer.vocab_size)), model, tokenizer, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*[text[:60] for text in TEXTS[:20]], *ODD]
    ours = tokenizer.encode(texts)
    end = tokenizer.end_of_document
    assert [theirs.encode(text) for text in texts] == [[end, *ids] for ids in ours]
    assert [theirs.encode(text, add_special_tokens=False) for text in texts] == ours
    assert theirs.bos_token_id == theirs.eos_token_id == end
    assert [theirs.decode(ids) for ids in ours] == texts


def test_what_a_users_tokenizer_put_around_texts_is_replaced(tmp_path: Path) -> None:
    content = orjson.loads(train_tokenizer(TEXTS, 540))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "e", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"e": {"id": "e", "ids": [7], "tokens": ["e"]}},
    }
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(content))
    tokenizer, model = Tokenizer.load(tmp_path / "tokenizer.json"), make_model("tinyllama", "untied", 1)
    write_llama(some_tensors(model, model.padded(tokenizer.vocab_size)), model, tokenizer, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.encode("a b") == [tokenizer.end_of_document, *tokenizer.encode(["a b"])[0]]
    assert theirs.convert_ids_to_tokens(theirs.encode("a", "b"))[:3:2] == [END_OF_DOCUMENT] * 2


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    model, tokenizer = make_model("quadmix", "tied"), make_tokenizer(tmp_path)
    tensors = some_tensors(model, model.padded(tokenizer.vocab_size))
    other = make_model("quadmix", "tied", layers=2)
    with pytest.raises(ProxyError, match=r"square of shape \(12, 32, 32\).* has \(8, 32, 32\)"):
        write_llama(tensors, other, tokenizer, tmp_path / "out")
    with pytest.raises(ProxyError, match=r"head of shape none"):
        write_llama(tensors, make_model("quadmix", "untied"), tokenizer, tmp_path / "out")
    with pytest.raises(ProxyError, match=r"embedding of shape \(576, 32\).* has \(540, 32\)"):
        write_llama(tensors, model.model_copy(update={"vocab_multiple": 1}), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    model, tokenizer = make_model("tinyllama", "tied"), make_tokenizer(tmp_path)
    tensors = some_tensors(model, model.padded(tokenizer.vocab_size))
    for name in ("a", "b"):
        write_llama(tensors, model, tokenizer, tmp_path / name)
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert set(files[0]) == {
        "config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
