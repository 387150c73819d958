"""A trained model as a Hugging Face `LlamaForCausalLM` folder with its tokenizer.

In: weights of one model (as `checkpoint.read_weights` gives them), its section, the tokenizer of the run.
Out: a folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` read, with the
same logits as ours. transformers itself is not needed to write it.

Ours and Llama's differ in notation only: our matrices map rows to columns (torch.nn.Linear stores the
transpose); `quadmix` normalises each row of the embedding before the first layer, which is a table of
normalised rows beside an untied head, and its norms have no gains, which are gains of one. The position
encoding is the half-split rotary of Llama with base 10,000. Every document of the training begins with the
end-of-document token, so the tokenizer puts it before each text, as `bos`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import ProxyError
from quadmix.io.atomic import replacing, write_json
from quadmix.recipe import ModelSection

Precision = Literal["float32", "bfloat16"]
_ROPE_BASE = 10_000.0
_NORM_EPS = {"quadmix": 1e-6, "tinyllama": 1e-5}  # as in proxy.model


def write_llama(
    tensors: Mapping[str, Tensor],
    model: ModelSection,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    precision: Precision = "float32",
) -> None:
    """Write one model and its tokenizer into `folder`.

    tensors: float32, without a model axis, as `read_weights` returns them. precision: of the numbers on disk;
    bfloat16 halves the folder and moves losses by about as much as training in bfloat16 does.
    Raises ProxyError naming the tensor whose shape is not that of this model and tokenizer.
    """
    check_shapes(tensors, model, model.padded(tokenizer.vocab_size))
    home, dtype = Path(folder), torch.float32 if precision == "float32" else torch.bfloat16
    named = {name: t.to(dtype).contiguous() for name, t in llama_tensors(tensors, model).items()}
    with replacing(home / "model.safetensors") as temporary:
        save_file(named, temporary, metadata={"format": "pt"})
    end, text = tokenizer.end_of_document, str(tokenizer.backend.id_to_token(tokenizer.end_of_document))
    special = {"bos_token": text, "eos_token": text, "pad_token": text}
    write_json(home / "config.json", llama_config(model, len(tensors["embedding"]), end, precision))
    write_json(home / "generation_config.json", {"bos_token_id": end, "eos_token_id": end})
    write_json(home / "tokenizer.json", tokenizer_with_bos(tokenizer))
    write_json(home / "special_tokens_map.json", special)
    write_json(
        home / "tokenizer_config.json",
        {
            **special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.context,
        },
    )


def check_shapes(tensors: Mapping[str, Tensor], model: ModelSection, vocab: int) -> None:
    """Raise ProxyError unless the tensors are those of such a model with `vocab` entries."""
    layers, d, f = model.layers, model.width, model.mlp
    expected = {"embedding": (vocab, d), "square": (4 * layers, d, d), "wide": (3 * layers, d, f)}
    if model.head == "untied":
        expected["head"] = (vocab, d)
    if model.architecture == "tinyllama":
        expected["gains"] = (2 * layers + 1, d)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ProxyError(
                f"the weights have {name} of shape {found.get(name, 'none')}, the model of this run has "
                f"{expected.get(name, 'none')}; expected weights of the same model and tokenizer"
            )


def llama_tensors(tensors: Mapping[str, Tensor], model: ModelSection) -> dict[str, Tensor]:
    """Return the weights under the names of `LlamaForCausalLM`, matrices as torch.nn.Linear stores them.

    Without lm_head.weight where it is tied to the embedding (`tinyllama` with a tied head).
    """
    embedding, square, wide = tensors["embedding"], tensors["square"], tensors["wide"]
    gains = tensors.get("gains", torch.ones(2 * model.layers + 1, model.width))
    out = {"model.embed_tokens.weight": embedding, "model.norm.weight": gains[-1]}
    if model.architecture == "quadmix":
        out["model.embed_tokens.weight"] = F.rms_norm(
            embedding, embedding.shape[-1:], eps=_NORM_EPS[model.architecture]
        )
    if not _tied(model):
        out["lm_head.weight"] = tensors.get("head", embedding)
    for layer in range(model.layers):
        query, key, value, output = square[4 * layer : 4 * layer + 4]
        gate, up, down = wide[3 * layer : 3 * layer + 3]
        parts = {
            "input_layernorm": gains[2 * layer],
            "self_attn.q_proj": query.T,
            "self_attn.k_proj": key.T,
            "self_attn.v_proj": value.T,
            "self_attn.o_proj": output.T,
            "post_attention_layernorm": gains[2 * layer + 1],
            "mlp.gate_proj": gate.T,
            "mlp.up_proj": up.T,
            "mlp.down_proj": down,  # kept transposed, to lie beside the other two
        }
        out |= {f"model.layers.{layer}.{name}.weight": tensor for name, tensor in parts.items()}
    return out


def llama_config(model: ModelSection, vocab: int, end: int, precision: Precision) -> dict[str, Any]:
    """Return the content of config.json; vocab: rows of the embedding, end: id of end-of-document."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": model.width,
        "intermediate_size": model.mlp,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.heads,
        "head_dim": model.width // model.heads,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "rms_norm_eps": _NORM_EPS[model.architecture],
        "rope_theta": _ROPE_BASE,
        "tie_word_embeddings": _tied(model),
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": end,
        "eos_token_id": end,
        "dtype": precision,
    }


def tokenizer_with_bos(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of tokenizer.json, changed so that every text begins with end-of-document.

    The change is in the tokenizer itself (its post-processor), so that no option of a reader is needed. What
    the user's own tokenizer did there is replaced: the run's models never saw it.
    """
    content = orjson.loads(tokenizer.backend.to_str())
    end = str(tokenizer.backend.id_to_token(tokenizer.end_of_document))
    first, second = ({"Sequence": {"id": name, "type_id": at}} for at, name in enumerate("AB"))
    begin = [{"SpecialToken": {"id": end, "type_id": at}} for at in range(2)]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin[0], first],
        "pair": [begin[0], first, begin[1], second],
        "special_tokens": {end: {"id": end, "ids": [tokenizer.end_of_document], "tokens": [end]}},
    }
    return content


def _tied(model: ModelSection) -> bool:
    """Llama's tied table is one for both ends; `quadmix` reads it normalised and writes with it as it is."""
    return model.head == "tied" and model.architecture == "tinyllama"
