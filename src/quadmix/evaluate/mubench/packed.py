"""Log-likelihoods of continuations, every shared beginning computed once.

In: pairs of token ids. Out: Σ log p(token | those before it) of each continuation, in nats.

A row of the network is a forest of token sequences: what several of them begin with stands in it once, and a
token sees its ancestors alone, at the position that it has in its own sequence. So K options of an item cost
P + Σ (O_k - 1) tokens instead of K (P + O - 1), equal prompts are read once, two sentences up to the blank
that tells them apart once, and short items fill rows without padding. The vocabulary is computed where a
token is scored and nowhere else, once per place.

Nodes stand in the order of a depth-first walk, so that the descendants of node i are i .. end_i - 1, and node
j sees i if i <= j < end_i.

Not every model takes such a mask (state-space models, old attention code), so each is tried once on a small
row against plain ones (`takes_packs`), and packed only if it agrees; where attention reaches back a limited
distance, only sequences within it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quadmix.annotate.models.devices import import_torch, is_out_of_memory
from quadmix.errors import InputError
from quadmix.evaluate.mubench.model import CausalModel
from quadmix.evaluate.mubench.pairs import Pair
from quadmix.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

Ids = tuple[int, ...]
Tell = Callable[[int], None]
_ROW = {"cpu": 256, "cuda": 1_024}  # tokens of a row, more where one sequence is longer
_TOKENS = {"cpu": 1_024, "cuda": 32_768}  # padded, of a batch
_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}  # numbers over the vocabulary, of a batch
_AGREES = {"float32": 1e-4}  # relative; others 3e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of the network. ids, positions, ends: of its nodes. places: nodes after which a token is
    scored, each once. targets: the scored tokens; at: which of `places` each follows; owners: the pair that
    it belongs to. chain: is it one sequence, for plain causal attention?"""

    ids: Sequence[int]
    positions: Sequence[int]
    ends: Sequence[int]
    places: Sequence[int]
    targets: Sequence[int]
    at: Sequence[int]
    owners: Sequence[int]
    chain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """One pair in the sequence of its context and its continuation without the last token. first: the place
    of the context's last token."""

    owner: int
    first: int
    targets: Ids


def log_likelihoods(model: CausalModel, pairs: Sequence[Pair], tell: Tell | None = None) -> Floats:
    """Return (R,) float64 nats, NaN for pairs that do not fit. tell: hears how many pairs are done, in parts.

    Raises InputError where memory does not suffice for one row.
    """
    if model.packs is None:
        model.packs = takes_packs(model)
    distinct: dict[tuple[Ids, Ids], int] = {}
    place = [distinct.setdefault((p.context, p.continuation), len(distinct)) if p.fits else -1 for p in pairs]
    uses = np.bincount([i for i in place if i >= 0], minlength=len(distinct))
    sums = np.zeros(len(distinct))
    for batch in _batches(model, _rows(model, list(distinct))):
        _score(model, batch, sums)
        if tell:
            tell(int(sum(uses[owner] for row in batch for owner in set(row.owners))))
    if tell and (unfit := place.count(-1)):
        tell(unfit)
    return np.array([sums[i] if i >= 0 else np.nan for i in place], dtype=np.float64)


def takes_packs(model: CausalModel) -> bool:
    """Does the model give the same numbers for options in one row as one by one?"""
    rng = np.random.default_rng(0)
    if min(model.facts.context, model.window or model.facts.context) < 8:
        return False
    words = [int(i) for i in rng.integers(0, min(model.facts.entries, len(model.tokenizer)), 13)]
    context = tuple(words[:3])
    pairs = [(context, tuple(words[3:5])), (context, tuple(words[5:9])), (context, tuple(words[9:]))]
    plain, packed = np.zeros(3), np.zeros(3)
    sequences = _sequences(pairs)
    _score(model, [_forest([one]) for one in sequences.items()], plain)
    try:
        _score(model, [_forest(list(sequences.items()))], packed)
    except (RuntimeError, ValueError, TypeError, IndexError):  # it knows no such mask or no positions
        return False
    return bool((np.abs(plain - packed) <= _AGREES.get(model.facts.precision, 3e-2) * np.abs(plain)).all())


def _sequences(pairs: Sequence[tuple[Ids, Ids]]) -> dict[Ids, list[_Scored]]:
    """Return the sequences that are read, in the order of their tokens, with what is scored in each."""
    found: dict[Ids, list[_Scored]] = {}
    for owner, (context, continuation) in enumerate(pairs):
        one = _Scored(owner=owner, first=len(context) - 1, targets=continuation)
        found.setdefault((*context, *continuation[:-1]), []).append(one)
    return dict(sorted(found.items()))


def _rows(model: CausalModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[_Row]:
    """Deal the sequences out to rows; neighbours in the order of their tokens share the most."""
    rows: list[_Row] = []
    part: list[tuple[Ids, list[_Scored]]] = []
    limit, size = _ROW.get(model.device.type, _ROW["cuda"]), 0
    for ids, scored in _sequences(pairs).items():
        if not model.packs or (model.window is not None and len(ids) > model.window):
            rows.append(_forest([(ids, scored)]))
            continue
        extra = len(ids) - (_shared(part[-1][0], ids) if part else 0)
        if part and size + extra > limit:
            rows.append(_forest(part))
            part, size, extra = [], 0, len(ids)
        part.append((ids, scored))
        size += extra
    return [*rows, _forest(part)] if part else rows


def _forest(part: Sequence[tuple[Ids, list[_Scored]]]) -> _Row:
    """Return the row of some sequences in the order of their tokens."""
    ids, positions, ends = list[int](), list[int](), list[int]()
    targets, at, owners = list[int](), list[int](), list[int]()
    places: dict[int, int] = {}
    path, before = list[int](), Ids()
    for sequence, scored in part:
        kept = _shared(before, sequence)
        for node in path[kept:]:
            ends[node] = len(ids)
        path[kept:] = range(len(ids), len(ids) + len(sequence) - kept)
        ids += sequence[kept:]
        positions += range(kept, len(sequence))
        ends += [0] * (len(sequence) - kept)
        before = sequence
        for one in scored:
            nodes = path[one.first : one.first + len(one.targets)]
            at += [places.setdefault(node, len(places)) for node in nodes]
            targets += one.targets
            owners += [one.owner] * len(nodes)
    for node in path:
        ends[node] = len(ids)
    return _Row(
        ids=ids, positions=positions, ends=ends, places=tuple(places), targets=targets, at=at, owners=owners,
        chain=len(part) == 1,
    )  # fmt: skip


def _shared(a: Ids, b: Ids) -> int:
    """Return how many first tokens two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _batches(model: CausalModel, rows: list[_Row]) -> Iterator[list[_Row]]:
    """Yield rows of like length together, the longest first: what does not fit into memory fails at once.

    One sequence never goes with others, whose mask would take a limited window of attention away.
    """
    kind = model.device.type
    tokens, logits = _TOKENS.get(kind, _TOKENS["cuda"]), _LOGITS.get(kind, _LOGITS["cuda"])
    batch, scored = list[_Row](), 0
    for row in sorted(rows, key=lambda row: (row.chain, -len(row.ids), row.ids)):
        scored += len(row.places)
        if batch and (
            (len(batch) + 1) * len(batch[0].ids) > tokens
            or scored * model.facts.entries > logits
            or row.chain != batch[0].chain
        ):
            yield batch
            batch, scored = [], len(row.places)
        batch.append(row)
    if batch:
        yield batch


def _score(model: CausalModel, batch: Sequence[_Row], sums: Floats) -> None:
    """Add the log-probabilities of a batch to the sums of the pairs; halve it where memory runs out."""
    torch = import_torch("a language model")
    try:
        with torch.inference_mode():
            found = _log_probabilities(model, batch).double().cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = None
    if found is not None:
        np.add.at(sums, [owner for row in batch for owner in row.owners], found)
        return
    # outside the handler: the error's trace holds the tensors that filled the memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(batch) == 1:
        raise InputError(
            f"memory does not suffice to score one row of {len(batch[0].ids):,} tokens with model "
            f"{model.facts.name!r}; use a GPU with more memory, or precision bfloat16"
        )
    middle = len(batch) // 2
    _score(model, batch[:middle], sums)
    _score(model, batch[middle:], sums)


def _log_probabilities(model: CausalModel, batch: Sequence[_Row]) -> "Tensor":
    """Return (S,) float32, the log-probability of every scored token of the batch, row by row."""
    torch = import_torch("a language model")
    width, device = max(len(row.ids) for row in batch), model.device
    given: dict[str, Any] = {"input_ids": _padded([row.ids for row in batch], width).to(device)}
    if not batch[0].chain:  # else plain causal attention: padding comes last
        given["position_ids"] = _padded([row.positions for row in batch], width).to(device)
        ends, places = (
            _padded([row.ends for row in batch], width).to(device),
            torch.arange(width, device=device),
        )
        sees = (places[:, None] >= places) & (places[:, None] < ends[:, None, :])
        sees |= torch.eye(width, dtype=torch.bool, device=device)  # padding sees itself: no row of nothing
        dtype = getattr(torch, model.facts.precision)
        mask = torch.zeros(sees.shape, dtype=dtype, device=device)
        given["attention_mask"] = mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]
    counts = np.cumsum([0, *(len(row.places) for row in batch)])
    rows = torch.tensor([i for i, row in enumerate(batch) for _ in row.places], device=device)
    columns = torch.tensor([place for row in batch for place in row.places], device=device)
    targets = torch.tensor([target for row in batch for target in row.targets], device=device)
    at = torch.tensor(
        [int(first) + a for first, row in zip(counts, batch, strict=False) for a in row.at], device=device
    )
    logits = _logits(model, given, rows, columns).float()
    return logits.log_softmax(dim=1)[at, targets]  # on a CPU twice as fast as a logsumexp of few of them


def _logits(model: CausalModel, given: dict[str, Any], rows: "Tensor", columns: "Tensor") -> "Tensor":
    """Return (S, V) at the places (rows, columns) alone: the head is given their states and no others.

    Whatever the model does with its logits after the head (scaling, soft caps) works on each by itself.
    """
    picked: list[bool] = []

    def pick(_head: Any, inputs: tuple["Tensor", ...]) -> tuple["Tensor", ...]:
        picked.append(True)
        return (inputs[0][rows, columns][None], *inputs[1:])

    head = model.network.get_output_embeddings()
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        logits = model.network(**given, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    return logits[0] if picked else logits[rows, columns]


def _padded(rows: Sequence[Sequence[int]], width: int) -> "Tensor":
    torch = import_torch("a language model")
    table = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)
