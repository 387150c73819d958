"""Log-likelihoods are those of one plain pass per option, whatever is computed together."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from quadmix.evaluate.mubench import packed
from quadmix.evaluate.mubench.model import CausalModel, ModelFacts
from quadmix.evaluate.mubench.packed import log_likelihoods, takes_packs
from quadmix.evaluate.mubench.pairs import Pair, encode_pairs, fitted
from quadmix.rng import stream

ENTRIES, CONTEXT = 60, 48
SHAPE = {
    "vocab_size": ENTRIES, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "head_dim": 16,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": ENTRIES, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip


class Words:
    """A tokenizer of words "w0" ... ; it says how long it is, and puts bos before what has special tokens."""

    bos_token_id = 0

    def __len__(self) -> int:
        return ENTRIES

    def __call__(self, texts, *, add_special_tokens, verbose):
        first = [0] if add_special_tokens else []
        return {"input_ids": [[*first, *(int(w[1:]) for w in text.split())] for text in texts]}


def model(kind: str = "llama", *, window: int | None = None, **changes) -> CausalModel:
    torch.manual_seed(3)
    shape = {**(GPT2 if kind == "gpt2" else SHAPE), **changes}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()
    for parameter in network.parameters():  # else the outputs hardly depend on what came before
        parameter.data *= 3 if parameter.dim() > 1 else 1
    facts = ModelFacts(name="tiny", digest="", precision="float32", context=CONTEXT, entries=ENTRIES)
    return CausalModel(facts=facts, network=network, tokenizer=Words(), prefix=0, window=window)


def some_pairs(count: int = 12) -> list[Pair]:
    rng = stream(0, "pairs")
    ids = lambda n: tuple(int(i) for i in rng.integers(0, ENTRIES, n))  # noqa: E731
    out: list[Pair] = []
    for _ in range(count):
        context = ids(rng.integers(1, 14))
        out += [Pair(context=context, continuation=ids(rng.integers(1, 7))) for _ in range(3)]
    return out + out[:5]  # some are there twice


@torch.no_grad()
def one_by_one(network, pairs: list[Pair]) -> np.ndarray:
    found = []
    for pair in pairs:
        scores = network(torch.tensor([[*pair.context, *pair.continuation]])).logits[0].log_softmax(-1)
        first = len(pair.context) - 1
        found.append(sum(float(scores[first + j, t]) for j, t in enumerate(pair.continuation)))
    return np.array(found)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox"])
def test_options_in_one_row_score_as_they_do_alone(kind: str) -> None:
    own, pairs = model(kind), some_pairs()
    np.testing.assert_allclose(log_likelihoods(own, pairs), one_by_one(own.network, pairs), atol=2e-5)
    assert own.packs is True


@pytest.mark.parametrize(("kind", "window"), [("mistral", 8), ("gemma2", 8), ("gemma3_text", 16)])
def test_a_limited_window_of_attention_is_kept(kind: str, window: int) -> None:
    own, pairs = model(kind, window=window, sliding_window=window), some_pairs()
    assert max(len(p.context) + len(p.continuation) for p in pairs) > window + 1
    np.testing.assert_allclose(log_likelihoods(own, pairs), one_by_one(own.network, pairs), atol=2e-5)


def test_a_model_that_knows_no_such_mask_is_scored_one_by_one() -> None:
    own = model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=ENTRIES)
    pairs = some_pairs(3)
    np.testing.assert_allclose(log_likelihoods(own, pairs), one_by_one(own.network, pairs), atol=5e-5)
    assert own.packs is False


def test_a_model_that_ignores_the_mask_is_found_out() -> None:
    own = model()
    forward = own.network.forward
    own.network.forward = lambda **given: forward(input_ids=given["input_ids"], use_cache=False)
    assert takes_packs(own) is False


def counted(own: CausalModel, pairs: list[Pair]) -> tuple[int, int]:
    """Return the tokens that the network and the states that its head was given."""
    tokens, states = [], []
    forward, head = own.network.forward, own.network.get_output_embeddings()
    own.network.forward = lambda **given: tokens.append(given["input_ids"].numel()) or forward(**given)
    head.register_forward_hook(lambda _m, inputs, _out: states.append(inputs[0].shape[1]))
    log_likelihoods(own, pairs)
    return sum(tokens), sum(states)


def test_what_sequences_begin_with_is_read_once_and_the_head_sees_each_scored_place_once() -> None:
    own, context = model(), tuple(range(1, 21))
    own.packs = True
    pairs = [Pair(context=context, continuation=(k, k + 1, 9)) for k in range(4)] * 2
    # one by one 4 x 22 tokens and 12 states; after the context four options follow at one place
    assert counted(own, pairs) == (20 + 4 * 2, 1 + 4 * 2)


def test_letters_cost_their_prompt_and_two_sentences_share_what_stands_before_the_blank() -> None:
    own = model()
    own.packs = True
    letters = [Pair(context=tuple(range(30)), continuation=(k,)) for k in range(5)]
    assert counted(own, letters) == (30, 1)
    own = model()
    own.packs = True
    blank = [Pair(context=(*range(10), 50 + k), continuation=(7, 8, 9)) for k in range(2)]
    assert counted(own, blank) == (10 + 2 * 3, 2 * 3)


def test_short_items_fill_rows_up_to_their_length() -> None:
    own = model()
    own.packs = True
    pairs = [Pair(context=(5, k), continuation=(k // 7, 3, k // 5)) for k in range(ENTRIES)]
    np.testing.assert_allclose(log_likelihoods(own, pairs), one_by_one(own.network, pairs), atol=2e-5)
    rows = packed._rows(own, [(p.context, p.continuation) for p in pairs])
    # the first token once per row, three more of each pair, at most 256
    assert [len(row.ids) for row in rows] == [1 + 3 * 60]
    longer = packed._rows(own, [(p.context, p.continuation * 3) for p in pairs])
    assert [len(row.ids) for row in longer] == [1 + 9 * 28, 1 + 9 * 28, 1 + 9 * 4]


def test_a_sequence_within_another_is_scored_inside_it() -> None:
    own = model()
    pairs = [Pair(context=(1, 2), continuation=(3,)), Pair(context=(1,), continuation=(2, 3, 4, 5)),
             Pair(context=(1, 2, 3), continuation=(4, 6))]  # fmt: skip
    np.testing.assert_allclose(log_likelihoods(own, pairs), one_by_one(own.network, pairs), atol=2e-5)


def test_memory_that_runs_out_halves_the_batch(monkeypatch) -> None:
    own, pairs = model(), some_pairs()
    expected, compute = one_by_one(own.network, pairs), packed._log_probabilities

    def short(given, batch):
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return compute(given, batch)

    monkeypatch.setattr(packed, "_log_probabilities", short)
    np.testing.assert_allclose(log_likelihoods(own, pairs), expected, atol=2e-5)


def test_progress_counts_every_pair_once() -> None:
    own, pairs, heard = model(), some_pairs(), []
    pairs.append(Pair(context=(1,), continuation=(2,) * 60, fits=False))
    found = log_likelihoods(own, pairs, heard.append)
    assert sum(heard) == len(pairs)
    assert np.isnan(found[-1])
    assert not np.isnan(found[:-1]).any()


def test_a_long_prompt_loses_its_beginning_and_an_answer_is_never_cut() -> None:
    """As lm-evaluation-harness: the last context + 1 tokens of the pair, of which the last is not read."""
    head, tail = list(range(10)), [90, 91, 92]
    assert fitted(head, tail, 12) == Pair(context=tuple(head), continuation=(90, 91, 92))
    assert fitted(head, tail, 11) == Pair(context=tuple(head[1:]), continuation=(90, 91, 92), cut=1)
    assert fitted(head, tail, 3) == Pair(context=(9,), continuation=(90, 91, 92), cut=9)
    assert fitted(head, tail, 2) == Pair(context=tuple(head), continuation=(90, 91, 92), fits=False)


def test_an_empty_context_is_the_bos_token_and_white_space_moves_to_the_continuation() -> None:
    own = model()
    where = lambda i: f"pair {i}"  # noqa: E731
    found = encode_pairs(own, [("w1 w2", " w3"), ("", "w4 w5"), ("w1 w2 \n", "w3"), ("", "w0 w7")], where)
    assert found[0] == found[2] == Pair(context=(0, 1, 2), continuation=(3,))
    assert found[1] == Pair(context=(0,), continuation=(4, 5))
    assert found[3] == Pair(context=(0,), continuation=(7,))  # bos is there already


def test_what_cannot_be_scored_is_named() -> None:
    own = model()
    with pytest.raises(Exception, match="pair 1: '   ' has no token of its own"):
        encode_pairs(own, [("w1", " w2"), ("w1", "   ")], lambda i: f"pair {i}")
    own.prefix = None
    with pytest.raises(
        Exception, match="pair 0: it has no context, and the tokenizer of model 'tiny' has no"
    ):
        encode_pairs(own, [("", "w2")], lambda i: f"pair {i}")
