"""Gates of proxies by domain, against one token at a time; who is told what; what they leave alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy_world import MODEL, VOCAB, make_job, make_setting
from torch.nn import functional as F

from quadmix.errors import RecipeError
from quadmix.pipeline.presets import preset_recipe
from quadmix.proxy import gates, group
from quadmix.proxy.checkpoint import read_weights
from quadmix.proxy.device import choose_device
from quadmix.proxy.loader import load
from quadmix.proxy.model import Weights, hidden_states, initial_weights, parameter_count
from quadmix.proxy.order import WITHHELD, TokenStream, document_windows
from quadmix.proxy.pool import open_pool
from quadmix.proxy.rescore import rescore
from quadmix.proxy.swarm import job_digest
from quadmix.proxy.train import start, train_weights
from quadmix.recipe import ModelSection, check_recipe

GATED = MODEL.model_copy(update={"gates": "domain"})
CPU = torch.device("cpu")


def test_gates_equal_the_equation_token_by_token() -> None:
    """h * 2 sigmoid(W2 relu(W1 c + b1) + b2), each factor worked out alone."""
    drawn = gates.draw_gates(GATED, 3, torch.Generator().manual_seed(5))
    codes, first, second = drawn["codes"], drawn["gate_in"], drawn["gate_out"]
    second = second + torch.randn(second.shape, generator=torch.Generator().manual_seed(6))  # biases too
    table = gates.factors(codes[None], first[None], second[None])
    hidden = torch.randn(1, 5, GATED.mlp, generator=torch.Generator().manual_seed(7))
    domains = torch.tensor([[0, 3, 1, 1, 2]])
    for layer in range(GATED.layers):
        found = gates.gated(hidden, table[:, layer], domains)
        for place, row in enumerate(domains[0].tolist()):
            middle = (codes[row] @ first[layer, :-1] + first[layer, -1]).clamp_min(0)
            factor = 2 / (1 + torch.exp(-(middle @ second[layer, :-1] + second[layer, -1])))
            torch.testing.assert_close(found[0, place], hidden[0, place] * factor)
    unknown = gates.gated(hidden, table[:, 0], None)
    torch.testing.assert_close(unknown, gates.gated(hidden, table[:, 0], torch.zeros_like(domains)))


def test_models_in_a_batch_keep_their_own_gates() -> None:
    """Model 1 of a batch equals itself alone, with domains told."""
    tokens = torch.randint(VOCAB, (2, 3, MODEL.context), generator=torch.Generator().manual_seed(0))
    domains = torch.randint(3, tokens.shape, generator=torch.Generator().manual_seed(1))
    both = initial_weights(GATED, VOCAB, [4, 9], CPU, domains=2)
    alone = initial_weights(GATED, VOCAB, [9], CPU, domains=2)
    for weights in (both, alone):
        _disturb(weights)
    with torch.no_grad():
        whole = hidden_states(both, tokens, GATED, torch.float32, domains)
        own = hidden_states(alone, tokens[1:], GATED, torch.float32, domains[1:])
        blind = hidden_states(alone, tokens[1:], GATED, torch.float32)
    torch.testing.assert_close(whole[1:], own)
    assert (own - blind).abs().max() > 0.01


def _disturb(weights: Weights) -> None:
    """The matrices that write start at zero, so that a fresh model would not show its gates."""
    with torch.no_grad():
        for tensor in (weights.square, weights.wide):
            noise = torch.randn(tensor.shape[1:], generator=torch.Generator().manual_seed(3)) * 0.3
            tensor.add_(noise)


def test_half_of_the_gates_is_one_so_identity_is_the_plain_model() -> None:
    """With W2 = 0 every factor is 1: the hidden states are those of the plain model."""
    gated = initial_weights(GATED, VOCAB, [1], CPU, domains=2)
    plain = initial_weights(MODEL, VOCAB, [1], CPU)
    for weights in (gated, plain):
        _disturb(weights)
    assert gated.gate_out is not None
    tokens = torch.randint(VOCAB, (1, 2, MODEL.context), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        gated.gate_out.zero_()
        torch.testing.assert_close(
            hidden_states(gated, tokens, GATED, torch.float32, torch.ones_like(tokens)),
            hidden_states(plain, tokens, MODEL, torch.float32),
        )


def test_every_token_carries_its_documents_domain(tmp_path: Path) -> None:
    """The batch holds domain * vocabulary + token; the domain is looked up document by document."""
    setting = make_setting(tmp_path, GATED)
    pool = open_pool(setting.pool)
    stream = TokenStream(pool, np.ones(len(pool), np.int32), 3)
    batch = load([stream], setting, 2)
    tokens, domains = gates.parted(batch, setting.vocab_size, GATED)
    plain = load([stream], replace(setting, model=MODEL), 2)
    assert domains is not None
    assert (tokens == plain).all()
    number = document_windows(stream, 2, setting.training.batch, MODEL.context, np.arange(len(pool)))
    for row, told in zip(number.ravel().tolist(), domains.numpy().ravel().tolist(), strict=True):
        assert told in (0, 1 + int(pool.domain[row]))
        assert told == stream.told[row]
    ends = tokens.numpy().ravel() == 0  # end-of-document belongs to the document that it ends
    assert ends.any()
    after = np.flatnonzero(ends[:-1])
    assert (number.ravel()[after] != number.ravel()[after + 1]).any()


def test_a_few_documents_are_of_an_unknown_domain_in_every_mixture_alike(tmp_path: Path) -> None:
    setting = make_setting(tmp_path, GATED)
    pool = open_pool(setting.pool)
    many = replace(
        pool, keys=np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64),
        domain=np.zeros(20_000, np.int16), offsets=np.arange(20_001), rows=np.arange(20_000),
    )  # fmt: skip
    one = TokenStream(many, np.ones(20_000, np.int32), 0).told
    other = TokenStream(many, np.arange(20_000, dtype=np.int32) % 2, 0).told
    assert (one == other).all()
    assert set(one.tolist()) == {0, 1}
    assert abs((one == 0).mean() - WITHHELD) < 4 * (WITHHELD * (1 - WITHHELD) / 20_000) ** 0.5
    assert (one != TokenStream(many, np.ones(20_000, np.int32), 1).told).any()


def test_training_uses_the_domain_that_it_is_told(tmp_path: Path) -> None:
    """Domain 0 counts up and domain 1 down: told which, a model predicts better than it does blind."""
    setting = make_setting(tmp_path, GATED, tokens=30_000, peak_lr=0.02)
    pool = open_pool(setting.pool)
    stream = TokenStream(pool, np.ones(len(pool), np.int32), 0)
    weights, progress = train_weights([stream], [0], setting)
    assert bool(progress.alive.all())
    joined = load([TokenStream(pool, np.ones(len(pool), np.int32), 1)], setting, 0)
    tokens, domains = gates.parted(joined, setting.vocab_size, GATED)
    assert domains is not None
    with torch.no_grad():
        right, blind, wrong = (
            _loss(weights, tokens, d) for d in (domains, None, torch.where(domains > 0, 3 - domains, 0))
        )
    assert right < blind < wrong


def _loss(weights: Weights, tokens: torch.Tensor, domains: torch.Tensor | None) -> float:
    told = None if domains is None else domains[:, :, :-1]
    hidden = hidden_states(weights, tokens[:, :, :-1], GATED, torch.float32, told)
    return F.cross_entropy((hidden @ weights.table.mT)[0], tokens[0, :, 1:].flatten()).item()


def test_a_model_without_gates_is_known_by_its_old_digest(tmp_path: Path) -> None:
    """What was trained before there were gates is still taken; a gated proxy is another job."""
    assert "gates" not in MODEL.model_dump()
    assert "gates" not in MODEL.model_dump_json()
    assert ModelSection.model_validate(MODEL.model_dump()) == MODEL
    assert ModelSection.model_validate_json(GATED.model_dump_json()) == GATED
    setting, job = make_setting(tmp_path), make_job("a", np.ones(120))
    assert job_digest(job, setting) != job_digest(job, replace(setting, model=GATED))


def test_gated_proxies_are_trained_saved_and_scored_again(tmp_path: Path) -> None:
    setting = make_setting(tmp_path, GATED)
    jobs = [make_job("a", np.ones(120)), make_job("b", np.arange(120) % 2)]
    trials = group.train_group(jobs, setting, save_to=str(tmp_path / "weights"))
    assert [t.status for t in trials] == ["done", "done"]
    names = read_weights(tmp_path / "weights/a.safetensors")
    assert {"codes", "gate_in", "gate_out"} <= set(names)
    assert sum(t.numel() for t in names.values()) == parameter_count(GATED, VOCAB, 2)
    for old, new in zip(trials, rescore(trials, tmp_path / "weights", setting), strict=True):
        assert new.losses["up"].bits_per_byte == pytest.approx(old.losses["up"].bits_per_byte, rel=5e-3)
    other = rescore(trials, tmp_path / "weights", replace(setting, domains=("zero", "one", "two")))
    assert {t.status for t in other} == {"failed"}
    assert "codes of shape (3, 16)" in other[0].reason


def test_a_checkpoint_holds_the_gates(tmp_path: Path) -> None:
    """Training that stops and goes on gives the weights of one that does not."""
    setting = make_setting(tmp_path, GATED)
    pool = open_pool(setting.pool)
    stream = TokenStream(pool, np.ones(len(pool), np.int32), 0)
    whole, _ = train_weights([stream], [0], setting)
    state = start(setting, [0], choose_device("cpu"))
    assert {"weights.codes", "first.gate_in", "second.gate_out"} <= set(state.tensors())
    with pytest.raises(KeyboardInterrupt):
        train_weights(
            [stream], [0], setting, checkpoint=str(tmp_path / "c"), every=0, key="k", tell=_stop_at(0.5)
        )
    resumed, _ = train_weights([stream], [0], setting, checkpoint=str(tmp_path / "c"), every=0, key="k")
    assert whole.codes is not None
    assert resumed.codes is not None
    assert torch.equal(whole.codes, resumed.codes)
    assert torch.equal(whole.wide, resumed.wide)


def _stop_at(share: float):
    def tell(done: float) -> None:
        if done >= share:
            raise KeyboardInterrupt

    return tell


def test_models_of_confirmation_and_comparison_have_no_gates() -> None:
    recipe = preset_recipe("laptop").model_dump(mode="json", exclude_none=True)
    recipe["proxy"]["model"]["gates"] = "domain"
    with pytest.raises(RecipeError, match="models of the confirmation would have gates"):
        check_recipe(recipe)
    recipe["confirm"]["model"] = {"size": "0.3M", "gates": "domain"}
    with pytest.raises(RecipeError, match="models of the confirmation would have gates"):
        check_recipe(recipe)
    recipe["confirm"]["model"] = {"size": "0.3M"}
    assert check_recipe(recipe).proxy.model.gates == "domain"
    recipe["evaluate"]["model"]["gates"] = "domain"
    with pytest.raises(RecipeError, match=r"only proxies may have gates"):
        check_recipe(recipe)
