"""Log-likelihoods of continuations, every context computed once.

In: pairs of token ids. Out: Σ log p(token | those before it) of each continuation, in nats.

All continuations of a context stand behind it in one row, [context | option 1 | option 2 | ...]: an option
sees the context and itself, and counts its positions from the end of the context. So a row of K options costs
P + Σ(O_k - 1) tokens instead of K (P + O - 1), and the vocabulary is computed at the scored places alone.
Equal pairs are computed once. Rows of like length share a batch.

Not every model takes such a mask (state-space models, old attention code), so each is tried once on a small
row against plain ones (`takes_packs`), and packed only if it agrees; where attention reaches back a limited
distance, only rows that lie within it.
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
_TOKENS = {"cpu": 1_024, "cuda": 32_768}  # padded, of a batch
_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}  # numbers over the vocabulary, of a batch
_OPTIONS = 128  # tokens of options in a row, where its context is shorter
_AGREES = {"float32": 1e-4}  # relative; others 3e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of the network. segments: 0 in the context, k in option k. places: where the next token is
    scored; targets: that token; owners: the pair that it belongs to. alone: one pair, for plain causal
    attention, which may have a window."""

    ids: Ids
    segments: Ids
    positions: Ids
    places: Ids
    targets: Ids
    owners: Ids
    alone: bool = False


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
    most = min(model.facts.context, model.window or model.facts.context)
    if most < 8:
        return False
    words = [int(i) for i in rng.integers(0, min(model.facts.entries, len(model.tokenizer)), 13)]
    context = tuple(words[:3])
    pairs = [(context, tuple(words[3:5])), (context, tuple(words[5:9])), (context, tuple(words[9:]))]
    plain, packed = np.zeros(3), np.zeros(3)
    _score(model, [_plain(pair, i) for i, pair in enumerate(pairs)], plain)
    try:
        _score(model, [_pack(context, [(c, i) for i, (_, c) in enumerate(pairs)])], packed)
    except (RuntimeError, ValueError, TypeError, IndexError):  # it knows no such mask or no positions
        return False
    return bool((np.abs(plain - packed) <= _AGREES.get(model.facts.precision, 3e-2) * np.abs(plain)).all())


def _rows(model: CausalModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[_Row]:
    groups: dict[Ids, list[tuple[Ids, int]]] = {}
    rows: list[_Row] = []
    for number, (context, continuation) in enumerate(pairs):
        reach = len(context) + len(continuation) - 1
        if not model.packs or (model.window is not None and reach > model.window):
            rows.append(_plain((context, continuation), number))
        else:
            groups.setdefault(context, []).append((continuation, number))
    for context, options in groups.items():
        part, size = list[tuple[Ids, int]](), 0
        for option in options:
            extra = len(option[0]) - 1
            if part and size + extra > max(_OPTIONS, len(context)):
                rows.append(_pack(context, part))
                part, size = [], 0
            part.append(option)
            size += extra
        rows.append(_pack(context, part))
    return rows


def _plain(pair: tuple[Ids, Ids], owner: int) -> _Row:
    context, continuation = pair
    ids, first = (*context, *continuation[:-1]), len(context) - 1
    return _Row(
        ids=ids, segments=(0,) * len(ids), positions=tuple(range(len(ids))),
        places=tuple(range(first, len(ids))), targets=continuation, owners=(owner,) * len(continuation),
        alone=True,
    )  # fmt: skip


def _pack(context: Ids, options: Sequence[tuple[Ids, int]]) -> _Row:
    ids, segments, positions = list(context), [0] * len(context), list(range(len(context)))
    places, targets, owners = list[int](), list[int](), list[int]()
    for segment, (option, owner) in enumerate(options, start=1):
        begin, extra = len(ids), len(option) - 1
        places += [len(context) - 1, *range(begin, begin + extra)]
        targets += option
        owners += [owner] * len(option)
        ids += option[:-1]
        segments += [segment] * extra
        positions += range(len(context), len(context) + extra)
    return _Row(
        ids=tuple(ids), segments=tuple(segments), positions=tuple(positions), places=tuple(places),
        targets=tuple(targets), owners=tuple(owners),
    )  # fmt: skip


def _batches(model: CausalModel, rows: list[_Row]) -> Iterator[list[_Row]]:
    """Yield rows of like length together, the longest first: what does not fit into memory fails at once.

    A row alone never goes with packed ones, whose mask would take its window away.
    """
    kind = model.device.type
    tokens, logits = _TOKENS.get(kind, _TOKENS["cuda"]), _LOGITS.get(kind, _LOGITS["cuda"])
    batch, scored = list[_Row](), 0
    for row in sorted(rows, key=lambda row: (row.alone, -len(row.ids), row.ids)):
        scored += len(row.places)
        if batch and (
            (len(batch) + 1) * len(batch[0].ids) > tokens
            or scored * model.facts.entries > logits
            or row.alone != batch[0].alone
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
    width = max(len(row.ids) for row in batch)
    device = model.device
    given: dict[str, Any] = {"input_ids": _padded([row.ids for row in batch], width).to(device)}
    if any(row.segments[-1] for row in batch):  # else plain causal attention: pads come last
        segments = _padded([row.segments for row in batch], width).to(device)
        given["position_ids"] = _padded([row.positions for row in batch], width).to(device)
        sees = (segments[:, :, None] == segments[:, None, :]) | (segments == 0)[:, None, :]
        sees &= torch.ones(width, width, dtype=torch.bool, device=device).tril()
        dtype = getattr(torch, model.facts.precision)
        mask = torch.zeros(sees.shape, dtype=dtype, device=device)
        given["attention_mask"] = mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]
    rows = torch.tensor([i for i, row in enumerate(batch) for _ in row.places], device=device)
    columns = torch.tensor([place for row in batch for place in row.places], device=device)
    targets = torch.tensor([target for row in batch for target in row.targets], device=device)
    logits = _logits(model, given, rows, columns).float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


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


def _padded(rows: Sequence[Ids], width: int) -> "Tensor":
    torch = import_torch("a language model")
    table = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)
