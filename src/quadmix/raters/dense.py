"""The second tier: a head over vectors that an encoder made once, trained on pairs.

In: vectors of the texts, pairs. Out: a `HeadWeights` and, in a folder, a card that scores documents.

    L = sum_i w_i BCE(sigmoid(s(a_i) - s(b_i)), p_i) / (batch * mean of w)       AdamW, all in float32

What epoch e does is a function of (vectors, pairs, settings, seed, e): the order of pairs from their texts'
ids, dropout and unknown languages and domains from a seed per step. So the order of rows, the side called a,
and a kill with a resume from the last epoch's checkpoint change nothing, to the last bit. torch may add in
another order with another number of threads or on another processor; training therefore uses one thread
unless `threads` says otherwise, and then last bits, and with them the epoch that is best, may differ from
those of one thread.

Training stops when the mean over languages of the accuracy on held pairs has not grown for `patience` epochs;
the best epoch's weights are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.devices import import_torch, torch_threads
from quadmix.annotate.models.rated import FACTS, WEIGHTS, RaterFacts, write_rater
from quadmix.annotate.models.rater_head import HeadWeights
from quadmix.errors import InputError, ScoreError
from quadmix.io.atomic import value_digest
from quadmix.io.hashing import sha256_file
from quadmix.raters.learning import canonical, check_pairs, mean_accuracy, trained_languages, used_texts
from quadmix.raters.table import Pairs, Texts
from quadmix.recipe.cards import CardOutput, ModelCard, save_card
from quadmix.rng import derived_seed, stream
from quadmix.types import Ints

if TYPE_CHECKING:
    from quadmix.raters.heads import Head, HeadKind

Progress = Callable[[int, int], None]
Numbers = NDArray[np.float32]
_LAYOUT = 2  # of a head's tensors: a checkpoint of another one is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTraining:
    """head: a kind of `heads.py`. hidden: 0 is a linear head. batch: pairs. patience: epochs without a better
    held-out accuracy before training stops; None: never, and the last epoch is kept, whatever the held pairs
    say. unknown: share of texts whose language is withheld, and, independently, whose domain is. balanced:
    languages are drawn in proportion to the root of their number of pairs."""

    head: "HeadKind" = "plain"
    hidden: int = 1024
    dropout: float = 0.1
    lr: float = 3e-4
    weight_decay: float = 0.01
    batch: int = 4096
    epochs: int = 10
    patience: int | None = 3
    unknown: float = 0.05
    balanced: bool = False
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """epoch: 1 is the first. loss: mean over its steps, as trained. accuracy: held pairs, mean over
    languages."""

    epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseRater:
    """best: the epoch whose weights these are."""

    weights: HeadWeights
    best: Epoch
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """vectors: (U, d) float32 of the texts that occur in pairs. pairs: canonical, rows of vectors. rows,
    domain_rows: (U,) int64 rows of the tables of languages and of domains, 0 = unknown. languages: (U,)
    codes. known, domains: names of the tables' rows 1, 2, ...; domains: [] where the code has none."""

    vectors: Numbers
    pairs: Pairs
    rows: Ints
    domain_rows: Ints
    languages: list[str]
    known: list[str]
    domains: list[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedHead:
    """known, domains: names of the rows 1, 2, ... of the head's tables."""

    head: "Head"
    known: list[str]
    domains: list[str]

    def rows(self, languages: Sequence[str]) -> Ints:
        """Return (D,) rows of the tables; a language that the head does not know is row 0."""
        return _rows(languages, self.known)

    def domain_rows(self, domains: Sequence[str] | None, count: int) -> Ints:
        """Return (D,) rows of the tables, all 0 without domains; count: D."""
        return _domain_rows(domains, self.domains, count)

    def scores(
        self, vectors: Numbers, languages: Sequence[str], domains: Sequence[str] | None = None
    ) -> Numbers:
        """Return (D,) float32 scores of vectors (D, d)."""
        rows = self.rows(languages), self.domain_rows(domains, len(vectors))
        return score_rows(self.head, vectors, *rows)


def train_dense(
    vectors: Numbers,
    texts: Texts,
    pairs: Pairs,
    training: DenseTraining | None = None,
    *,
    domains: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> DenseRater:
    """Train a head on the pairs that are not held.

    vectors: (D, d) float32, row by row those of `texts`. domains: (D,) of the texts, "" = unknown, a feature
    of the code beside the language; None: the code has no domain. checkpoint: a file that is written after
    every epoch and, where it is of this very training, gone on from. progress: (epochs done, epochs). Raises
    InputError if a text of a pair has no vector, no pair of either part prefers a side, or no text that is
    trained on has a domain; ScoreError if the loss is no number; MissingExtraError without torch.
    """
    training = training or DenseTraining()
    data = gathered(vectors, texts, pairs, domains)
    head, epochs = _trained(data, training, checkpoint, progress)
    weights = head.weights(data.known, data.domains)
    return DenseRater(weights=weights, best=_best(epochs, training), epochs=tuple(epochs))


def train_head(
    vectors: Numbers,
    texts: Texts,
    pairs: Pairs,
    training: DenseTraining,
    domains: Sequence[str] | None = None,
) -> TrainedHead:
    """Return the head itself, also of kinds that are no `HeadWeights`; as `train_dense` else."""
    data = gathered(vectors, texts, pairs, domains)
    head = _trained(data, training, None, None)[0]
    return TrainedHead(head=head, known=data.known, domains=data.domains)


def _trained(
    data: Data, training: DenseTraining, checkpoint: Path | None, progress: Progress | None
) -> "tuple[Head, list[Epoch]]":
    import_torch("training a head")
    from quadmix.raters.dense_state import State

    with torch_threads(training.threads):
        state = State.start(data, training, checkpoint, key=_key(data, training))
        while not _finished(state.epochs, training):
            if progress:
                progress(len(state.epochs), training.epochs)
            loss = _train_epoch(state.head, state.optimizer, data, training, len(state.epochs))
            scores = score_rows(state.head, data.vectors, data.rows, data.domain_rows)
            held = data.pairs.take(data.pairs.held)
            done = Epoch(
                epoch=len(state.epochs) + 1, loss=loss, accuracy=mean_accuracy(scores, held, data.languages)
            )
            state.finish(done, keep=_is_best(done, state.epochs, training), checkpoint=checkpoint)
        if progress:
            progress(training.epochs, training.epochs)
        return state.best_head(), state.epochs


def gathered(vectors: Numbers, texts: Texts, pairs: Pairs, domains: Sequence[str] | None = None) -> Data:
    """Return what is trained on; InputError as `train_dense`."""
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(
            f"vectors have shape {vectors.shape}, expected one row for each of {len(texts)} texts"
        )
    check_pairs(pairs)
    used, ordered = used_texts(pairs, texts), canonical(pairs, texts)
    place = np.full(len(texts), -1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    inner = Pairs(
        a=place[ordered.a], b=place[ordered.b], p=ordered.p, weight=ordered.weight, kind=ordered.kind,
        held=ordered.held,
    )  # fmt: skip
    chosen = np.ascontiguousarray(vectors[used], np.float32)
    if bad := np.flatnonzero(~np.isfinite(chosen).all(axis=1)).tolist():
        raise InputError(
            f"text {texts.ids[int(used[bad[0]])]!r} has no finite vector, as have {len(bad)} in all; drop "
            "the pairs of texts that the encoder could not read"
        )
    known, languages = trained_languages(pairs, texts), [texts.language[i] for i in used.tolist()]
    own = None if domains is None else [domains[int(i)] for i in used]
    trained = _trained_domains(pairs, domains)
    return Data(
        vectors=chosen, pairs=inner, rows=_rows(languages, known), languages=languages, known=known,
        domain_rows=_domain_rows(own, trained, len(used)), domains=trained,
    )  # fmt: skip


def _trained_domains(pairs: Pairs, domains: Sequence[str] | None) -> list[str]:
    """Return the domains of the pairs that are not held, sorted; InputError where there is none."""
    if domains is None:
        return []
    rows = np.unique(np.concatenate([pairs.a, pairs.b])[np.tile(~pairs.held, 2)])
    found = sorted({domains[int(i)] for i in rows} - {""})
    if not found:
        raise InputError(
            f"the code is to have the domain, but none of {len(rows):,} training texts has one; name the "
            "column that holds it in texts.domain, or take the domain out of encoder.code"
        )
    return found


def _domain_rows(domains: Sequence[str] | None, known: Sequence[str], count: int) -> Ints:
    return np.zeros(count, np.int64) if domains is None else _rows(domains, known)


def _rows(languages: Sequence[str], known: Sequence[str]) -> Ints:
    row = {code: place for place, code in enumerate(known, start=1)}
    return np.array([row.get(code, 0) for code in languages], np.int64)


def new_head(data: Data, training: DenseTraining) -> "Head":
    """Return the head before training: a function of the seed, and of the training part's vectors."""
    import torch

    from quadmix.raters.heads import Head, moments

    train = data.pairs.take(~data.pairs.held)
    seen = np.unique(np.concatenate([train.a, train.b]))
    by_language = training.head in ("znorm", "poso-znorm")
    found = moments(data.vectors[seen], data.rows[seen], len(data.known), by_language=by_language)
    counts = np.bincount(data.rows[seen], minlength=1 + len(data.known))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(training.seed, "head"))
        return Head(
            training.head, found, counts, hidden=training.hidden, dropout=training.dropout,
            domains=len(data.domains),
        )  # fmt: skip


def _train_epoch(head: Any, optimizer: Any, data: Data, training: DenseTraining, epoch: int) -> float:
    """Train one epoch and return the mean loss."""
    import torch

    from quadmix.raters.loss import torch_pair_loss

    train = data.pairs.take(~data.pairs.held)
    order = _order(data, train, training, epoch)
    vectors, rows = torch.from_numpy(data.vectors), torch.from_numpy(data.rows)
    domains = torch.from_numpy(data.domain_rows)
    whole, mean_weight = 0.0, float(train.weight.mean())
    for step, start in enumerate(range(0, len(train), training.batch)):
        batch = train.take(order[start : start + training.batch])
        texts, inner = np.unique(np.concatenate([batch.a, batch.b]), return_inverse=True)
        own, draw = torch.from_numpy(texts.astype(np.int64)), torch.Generator()
        draw.manual_seed(derived_seed(training.seed, "step", epoch, step))
        told = rows[own] * (torch.rand(len(own), generator=draw) >= training.unknown)
        kept = torch.rand(len(own), training.hidden, generator=draw) >= training.dropout
        placed = domains[own] * (torch.rand(len(own), generator=draw) >= training.unknown)
        scores = head(vectors[own], told, placed, kept if training.hidden else None)
        a, b = torch.from_numpy(inner.reshape(2, -1))
        weight = torch.from_numpy(batch.weight.astype(np.float32))
        p = torch.from_numpy(batch.p.astype(np.float32))
        # the mean over the batch, in units of the mean weight of all pairs: each pair counts as in the whole
        loss = torch_pair_loss(scores[a] - scores[b], p, weight) * (weight.mean() / mean_weight)
        if not torch.isfinite(loss):
            raise ScoreError(
                f"the loss is {loss.item()} in epoch {epoch}, step {step}; lower lr ({training.lr}) or look "
                "at the vectors"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        whole += loss.item() * len(batch)
    return whole / len(train)


def _order(data: Data, train: Pairs, training: DenseTraining, epoch: int) -> Ints:
    """Return the places of the training pairs of an epoch: all of them, or as many draws in which a language
    with n pairs has a share in proportion to sqrt(n). A pair of two languages is half of each."""
    draws = stream(training.seed, "pairs", epoch)
    if not training.balanced:
        return draws.permutation(len(train))
    sides = data.rows[np.stack([train.a, train.b])]
    counts = np.bincount(sides.ravel())
    chance = (counts[sides] ** -0.5).sum(axis=0)
    return draws.choice(len(train), len(train), p=chance / chance.sum())


def score_rows(head: Any, vectors: Numbers, rows: Ints, domains: Ints) -> Numbers:
    """Return (D,) float32 scores of vectors (D, d); rows, domains: (D,) of the head's tables."""
    import torch

    parts: list[Numbers] = []
    with torch.inference_mode():
        for start in range(0, len(vectors), 8192):
            part = slice(start, start + 8192)
            own = (torch.from_numpy(values[part]) for values in (vectors, rows, domains))
            scores = head(*own)
            parts.append(scores.numpy())
    return np.concatenate(parts)


def _is_best(done: Epoch, before: Sequence[Epoch], training: DenseTraining) -> bool:
    return training.patience is None or all(done.accuracy > old.accuracy for old in before)


def _best(epochs: Sequence[Epoch], training: DenseTraining) -> Epoch:
    # the first of equals, as `_is_best` keeps it
    return epochs[-1] if training.patience is None else max(epochs, key=lambda e: (e.accuracy, -e.epoch))


def _finished(epochs: Sequence[Epoch], training: DenseTraining) -> bool:
    if len(epochs) >= training.epochs:
        return True
    if training.patience is None or not epochs:
        return False
    return len(epochs) - _best(epochs, training).epoch >= training.patience


def _key(data: Data, training: DenseTraining) -> str:
    """Return what names a training: a checkpoint of another one is not gone on from."""
    import xxhash

    pairs = data.pairs
    arrays = (
        data.vectors, data.rows, data.domain_rows, pairs.a, pairs.b, pairs.p, pairs.weight, pairs.kind,
        pairs.held,
    )  # fmt: skip
    digests = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return value_digest([_LAYOUT, training, data.known, data.domains, *digests])


def save_dense(
    folder: Path,
    rater: DenseRater,
    *,
    name: str,
    base: ModelCard,
    base_name: str,
    base_digest: str | None = None,
    licence: str = "that of the texts it was trained on",
    trained_on: Sequence[str] = (),
) -> ModelCard:
    """Write rater.safetensors, rater.json and card.yaml into a folder, and return the card.

    base, base_name: card of the embedder, and what names it: a card of the package, or a .yaml file relative
    to the folder. Its input is the rater's, so that texts are read as they were embedded. base_digest: of the
    placed embedder, which a rater is then refused without; None: not checked.
    """
    head = rater.weights
    facts = RaterFacts(
        kind="vectors", languages=list(head.languages), domains=list(head.domains), embedder=base_digest
    )  # fmt: skip
    write_rater(folder, facts, head)
    domains = f"; reads the domain: {', '.join(head.domains)}" if head.domains else ""
    card = ModelCard(
        name=name, family="rater", role="quality", model=".", base=base_name,
        files={file: sha256_file(folder / file) for file in (FACTS, WEIGHTS)},
        licence=f"{licence}, and that of {base.name} ({base.licence})",
        source="trained with quadmix from votes on pairs of texts (MuRating, arXiv 2507.01785)",
        description=f"preference of raters, a head on vectors of {base.name}; trained in "
        f"{', '.join(head.languages)}{domains}",
        input=base.input, output=CardOutput(kind="number"), reads_language=head.reads_language,
        reads_domains=head.domains, trained_on=tuple(trained_on),
    )  # fmt: skip
    save_card(folder / "card.yaml", card)
    return card


def rater_scores(
    head: HeadWeights, vectors: Numbers, languages: Sequence[str], domains: Sequence[str] | None = None
) -> Numbers:
    """Return (D,) float32 scores of vectors; a language or domain that the head does not know is row 0."""
    rows = _domain_rows(domains, head.domains, len(vectors))
    return head.scores(vectors, _rows(languages, head.languages), rows)
