"""Full fine-tuning of an encoder on pairs of texts.

In: `Texts`, `Pairs`, a placed embedding card. Out: a folder whose `card.yaml` scores documents, larger =
better, with `metrics.json`; see `finetune_model.py`.

    L = sum_i w_i BCE(sigmoid(s(a_i) - s(b_i)), p_i) / sum_i w_i        over the pairs i of a batch (loss.py)

A batch is split into micro-batches of pairs whose padded tokens are bounded; their gradients add up to that
of the batch. A kind with fewer pairs than its share of the batches is repeated, one with more is not used up:
`passes` in metrics.json says how often each is read.

What step t does is a function of (texts, pairs, settings, seed, t): batches are drawn by the ids of the
texts, dropout from a seed per step. A training that was killed goes on from its checkpoint and, on a CPU with
as many threads, ends with the same bits; a GPU adds gradients in no fixed order, so there up to rounding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import Placed, Settings
from quadmix.annotate.models.batches import PAD_TO
from quadmix.annotate.models.devices import import_torch, is_out_of_memory, resolved, torch_threads
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.heads import load_frozen_head
from quadmix.annotate.models.rater import prepare_text
from quadmix.annotate.models.tensors import read_tensors
from quadmix.errors import IdentityError, InputError, ScoreError
from quadmix.io.atomic import read_json, value_digest, write_json
from quadmix.io.folders import new_folder
from quadmix.io.lease import lease
from quadmix.raters.finetune_batches import (
    FineTuning,
    batch_order,
    language_accuracy,
    micro_batches,
    pair_keys,
)
from quadmix.raters.finetune_model import Numbers, Ranker, read_ranker, save_ranker, score_texts, tokenise
from quadmix.raters.finetune_state import (
    BEST,
    Point,
    Reached,
    Training,
    best_point,
    clear,
    copy_into,
    make_optimizer,
    read_state,
    write_state,
    write_weights,
)
from quadmix.raters.learning import canonical, trained_languages
from quadmix.raters.loss import pair_losses, parallel_excess, torch_pair_loss
from quadmix.raters.table import KINDS, PARALLEL, Pairs, Texts
from quadmix.recipe.cards import ModelCard, load_card
from quadmix.rng import derived_seed

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedMetrics:
    """What was trained, and how well the saved folder, read back, orders the held pairs.

    best_step: whose weights were kept. difference: largest between a held text's score by the saved folder
    and by the trainer. passes: kind -> how often its training pairs were read. unread: pairs left out since a
    text has no token. cut: texts longer than the window, of which the trainer reads the first.
    """

    identity: str
    accuracy: float
    languages: dict[str, float]
    steps: int
    total_steps: int
    best_step: int
    difference: float
    pairs: dict[str, int]
    passes: dict[str, float]
    held: int
    unread: int
    cut: int
    computed: tuple[str, str]
    history: tuple[Point, ...]
    settings: FineTuning
    warnings: tuple[str, ...] = ()


def finetune(  # noqa: PLR0913 - a training, where it works, what its card says
    texts: Texts,
    pairs: Pairs,
    placed: Placed,
    out: Path,
    *,
    work: Path,
    name: str,
    settings: Settings | None = None,
    training: FineTuning | None = None,
    trained_on: Sequence[str] = (),
    progress: Progress | None = None,
) -> ModelCard:
    """Train, write the folder `out` and return its card; the same call goes on where a killed one stopped.

    work: a folder for the checkpoints (three times the weights, and the best weights), empty in the end.
    settings: `batch_tokens` bounds the memory of a micro-batch and is no part of the training's identity.
    trained_on: data sets and files, for the card.
    progress: told (steps done, steps).
    Raises InputError for pairs or models that cannot be trained, IdentityError if `out` or `work` hold
    another training, LeaseError while another process trains in `work`, ScoreError for a loss that is not
    finite.
    """
    settings, training = settings or Settings(), training or FineTuning()
    identity = training_identity(texts, pairs, placed, training, settings)
    if _finished(out, identity):
        clear(work)
        return load_card(str(out / "card.yaml"))
    torch = import_torch("fine-tuning")
    gpus = list(range(torch.cuda.device_count()))
    with lease(work), torch.random.fork_rng(gpus), torch_threads(settings.threads):
        ranker = read_ranker(
            placed, settings, pooling=training.pooling, window=training.window, seed=training.seed
        )
        state = _start(ranker, texts, pairs, training, identity)
        read_state(work, state)
        _train(state, work, progress)
        copy_into(ranker, read_tensors(work / BEST.format(best_point(state.reached.history).step)))
        with new_folder(out) as target:
            languages = trained_languages(state.train, texts)
            card = save_ranker(ranker, target, name, languages=languages, trained_on=trained_on)
            write_json(target / "metrics.json", _metrics(state, len(pairs), target, settings))
        clear(work)
    return card


def training_identity(
    texts: Texts, pairs: Pairs, placed: Placed, training: FineTuning, settings: Settings
) -> str:
    """Return the digest of all that the weights of a training depend on."""
    same = replace(training, checkpoint_steps=1)
    return value_digest(["finetune", 2, texts, pairs, placed.digest, same, resolved(settings)])


def holds_training(out: Path, identity: str) -> bool:
    """Return whether the folder holds the finished training of that identity."""
    path = out / "metrics.json"
    return path.is_file() and read_json(path).get("identity") == identity


def _finished(out: Path, identity: str) -> bool:
    """Return whether `out` is this training's; IdentityError if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if holds_training(out, identity):
        return True
    raise IdentityError(
        f"{out} holds something other than this training (texts, pairs, model or settings differ); expected "
        "a new or an empty folder: name another"
    )


def _start(ranker: Ranker, texts: Texts, pairs: Pairs, training: FineTuning, identity: str) -> Training:
    pairs = canonical(pairs, texts)
    used = np.zeros(len(texts), np.bool_)
    used[pairs.a] = used[pairs.b] = True
    tokens = tokenise(ranker, texts.text, used)
    usable = (tokens.lengths[pairs.a] > 0) & (tokens.lengths[pairs.b] > 0)
    train, held = pairs.take(usable & ~pairs.held), pairs.take(usable & pairs.held)
    if not len(train):
        raise InputError(
            f"none of the {len(pairs)} pairs is for training ({int((~usable).sum())} have a text without "
            f"tokens, {len(held)} are held); make pairs of more texts"
        )
    keys = pair_keys(train, texts)
    order = batch_order(train.kind, keys, training)
    if not len(order):
        raise InputError(
            f"composition {training.composition} leaves nothing to train: the pairs are "
            f"{', '.join(k for i, k in enumerate(KINDS) if (train.kind == i).any())}; give these a share"
        )
    return Training(
        ranker=ranker, tokens=tokens, texts=texts, train=train, held=held, keys=keys, order=order,
        settings=training, optimizer=make_optimizer(ranker, training), reached=Reached(identity=identity),
    )  # fmt: skip


def rate(step: int, steps: int, warmup: float) -> float:
    """Return the factor in (0, 1] of the learning rates of step 0 .. steps - 1."""
    rising = math.ceil(warmup * steps)
    return min((step + 1) / rising if rising else 1.0, (steps - step) / max(1, steps - rising), 1.0)


def _train(state: Training, work: Path, progress: Progress | None) -> None:
    every, asked = state.settings.checkpoint_steps, max(1, state.settings.evaluations)
    marks = {-(-state.steps * turn // asked) for turn in range(1, asked + 1)}
    while state.reached.step < state.steps and not _stopped(state.reached.history, state.settings.patience):
        _take_step(state)
        step = state.reached.step
        if step in marks:
            point = _evaluate(state)
            state.reached = Reached(
                identity=state.reached.identity, step=step, history=(*state.reached.history, point)
            )
            if best_point(state.reached.history) is point:
                write_weights(work / BEST.format(step), state.ranker.named(), {})
        if step in marks or step % every == 0:
            write_state(work, state)
        if progress:
            progress(step, state.steps)


def _stopped(history: tuple[Point, ...], patience: int) -> bool:
    return bool(history) and len(history) - 1 - history.index(best_point(history)) >= patience


def _take_step(state: Training) -> None:
    torch, at, size = import_torch("fine-tuning"), state.reached.step, state.settings.batch_pairs
    torch.manual_seed(derived_seed(state.settings.seed, "finetune", "dropout", at))
    factor = rate(at, state.steps, state.settings.warmup)
    for group in state.optimizer.param_groups:
        group["lr"] = factor * group["peak"]
    rows = state.order[at * size : (at + 1) * size]
    weight = float(state.train.weight[rows].sum())
    sums, counts = list(state.reached.sums), list(state.reached.counts)
    state.ranker.encoder.train()
    parts = micro_batches(
        state.train, rows, state.keys, state.tokens.lengths, state.ranker.batch_tokens,
        to=PAD_TO.get(state.ranker.device.type, 1),
    )  # fmt: skip
    for part in parts:
        apart = _backward(state, part, weight)
        if not np.isfinite(apart).all():
            raise ScoreError(
                f"a score in step {at} is not finite; lower the learning rates (encoder "
                f"{state.settings.encoder_rate}, head {state.settings.head_rate}), or train in float32"
            )
        kinds = state.train.kind[part]
        losses = np.where(kinds == PARALLEL, parallel_excess(apart), pair_losses(apart, state.train.p[part]))
        for kind in range(len(KINDS)):
            sums[kind] += float(losses[kinds == kind].sum())
            counts[kind] += int((kinds == kind).sum())
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, state.settings.clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.reached = replace(state.reached, step=at + 1, sums=tuple(sums), counts=tuple(counts))


def _backward(state: Training, rows: NDArray[np.int64], weight: float) -> NDArray[np.float64]:
    """Add the gradient of some pairs of a batch of that total weight; return their s_a - s_b."""
    torch, pairs = import_torch("fine-tuning"), state.train.take(rows)
    ids = state.texts.ids
    # by length and id: which text gets which noise of dropout is not a matter of the order of rows
    read = sorted(
        {*pairs.a.tolist(), *pairs.b.tolist()}, key=lambda r: (-int(state.tokens.lengths[r]), ids[r])
    )
    place_of = {row: at for at, row in enumerate(read)}

    def on_device(values: Any, dtype: Any) -> Any:
        return torch.tensor(values, dtype=dtype, device=state.ranker.device)

    a, b = (on_device([place_of[r] for r in side.tolist()], torch.int64) for side in (pairs.a, pairs.b))
    try:
        scores = state.ranker.scores(state.tokens, read)
        apart = scores[a] - scores[b]
        p, own = on_device(pairs.p, torch.float32), on_device(pairs.weight, torch.float32)
        (torch_pair_loss(apart, p, own) * (float(pairs.weight.sum()) / weight)).backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"memory ran out at {len(read)} texts of up to {int(state.tokens.lengths[read[0]])} tokens; "
            f"lower batch_tokens (now {state.ranker.batch_tokens}) or window, and run the same command again"
        ) from error
    return apart.detach().cpu().double().numpy()


def _evaluate(state: Training) -> Point:
    sums, counts = state.reached.sums, state.reached.counts
    loss = {k: s / n for k, s, n in zip(KINDS, sums, counts, strict=True) if n}
    found = language_accuracy(_held_scores(state), state.held, state.texts.language)
    return Point(step=state.reached.step, loss=loss, accuracy=_mean(found), languages=found)


def _held_scores(state: Training) -> Numbers:
    return score_texts(state.ranker, state.tokens, _held_texts(state))


def _held_texts(state: Training) -> list[int]:
    return np.unique(np.concatenate([state.held.a, state.held.b])).tolist()


def _mean(by_language: Mapping[str, float]) -> float:
    return float(np.mean(list(by_language.values()))) if by_language else math.nan


# Metrics


def _metrics(state: Training, pairs: int, target: Path, settings: Settings) -> TunedMetrics:
    """Return the metrics of the folder that was just written, as everyone will load it."""
    rows, own = _held_texts(state), _held_scores(state)
    placed = place(load_card(str(target / "card.yaml")), path=target)
    saved = np.full(len(own), np.nan, np.float32)
    if rows:
        read = [prepare_text(placed.card, state.texts.text[row], {}) for row in rows]
        saved[rows] = load_frozen_head(placed, settings).outputs(read).values[:, 0]
    whole = [row for row in rows if not state.tokens.cut[row]]  # of the others the folder reads on
    found = language_accuracy(saved, state.held, state.texts.language)
    reached, read_pairs = state.reached, state.order[: state.reached.step * state.settings.batch_pairs]
    counts, seen = (np.bincount(k, minlength=3) for k in (state.train.kind, state.train.kind[read_pairs]))
    passes = {k: float(s / n) for k, s, n in zip(KINDS, seen, counts, strict=True) if n}
    return TunedMetrics(
        identity=reached.identity, accuracy=_mean(found), languages=found, steps=reached.step,
        total_steps=state.steps, best_step=best_point(reached.history).step,
        difference=float(np.abs(saved - own)[whole].max(initial=0.0)),
        pairs={k: int(n) for k, n in zip(KINDS, counts, strict=True)}, passes=passes, held=len(state.held),
        unread=pairs - len(state.train) - len(state.held), cut=int(state.tokens.cut.sum()),
        computed=resolved(settings), history=reached.history, settings=state.settings,
        warnings=tuple(_warnings(state, passes, found)),
    )  # fmt: skip


def _warnings(state: Training, passes: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    early = state.reached.step < state.steps
    remedy = "the training ended early" if early else "raise their share in composition, or epochs"
    told = [
        f"only {share:.0%} of the {kind} pairs were read: {remedy}"
        for kind, share in passes.items()
        if share < 1
    ]
    if not found:
        told.append("no held pair has p != 0.5: the last weights were kept, and their quality is not known")
    if cut := int(state.tokens.cut.sum()):
        told.append(f"{cut} texts are longer than {state.settings.window} tokens, the rest was not read")
    return told
