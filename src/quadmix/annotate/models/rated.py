"""Raters that were trained here from pairs of texts (`quadmix.raters`), as models of the family `rater`.

In: a folder with `rater.json` and `rater.safetensors`. Out: (D, 1) float32 scores on the scale of the loss:
sigmoid(s_a - s_b) is the probability that text a is preferred (MuRating, arXiv 2507.01785). Larger = better.

Two kinds. `hashed`: linear in hashed character n-grams and surface statistics; numpy alone, no download. A
long text is read in windows of equal length, evenly spaced where there are more than `max_windows`.
`vectors`: a head over the vectors of the card's `base`; of a long text the first `max_windows` windows of
tokens are read, one after the other. The score of a text is the mean of its windows' scores, weighed by their
characters or tokens (MuRating, section 6).

A head may depend on the language (`card.reads_language`), and on the domain beside it (`card.reads_domains`):
then every text comes with them in front, see `with_code`; a language or domain that the head was not trained
on has tables of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.models.base import (
    Outputs,
    Placed,
    Settings,
    WindowModel,
    Windows,
    mean_of_windows,
    split_code,
    whole_texts,
)
from quadmix.annotate.models.char_ngrams import FEATURES, LONGEST, VERSION, ngram_counts
from quadmix.annotate.models.languages import language_code
from quadmix.annotate.models.rater_head import HeadWeights, head_of, head_tensors
from quadmix.annotate.models.surface import NAMES, surface
from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import naming, read_value, replacing, value_digest, write_json
from quadmix.recipe.cards import ModelCard
from quadmix.types import Floats, Ints

FACTS, WEIGHTS = "rater.json", "rater.safetensors"
MAX_WINDOWS = 8  # of a document that are read (MuRating, section 6)
# of kind vectors 1 was for raters that joined the windows' vectors, and scored once
_VERSIONS = {"hashed": 1, "vectors": 2}
_LOGS = 1.0 + np.log(np.maximum(np.arange(1024), 1)).astype(np.float32)
Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterFacts:
    """What rater.json says. window (characters), features, longest, surface, ngrams: of kind hashed (ngrams:
    version of the hashing). languages: what the rater was trained on. domains: those of its code, [] where
    it reads none. embedder: of kind vectors, `Placed.digest` of the embedder that the head was trained on;
    None in files that were written without it."""

    kind: Literal["hashed", "vectors"]
    languages: list[str]
    version: int = 1
    window: int = 2_000
    max_windows: int = MAX_WINDOWS
    features: int = FEATURES
    longest: int = LONGEST
    surface: list[str] | None = None
    ngrams: int = VERSION
    domains: list[str] = field(default_factory=list[str])
    embedder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedScorer:
    """weights: (F,) of the n-grams; statistic_weights, means, scales: (S,) of the surface statistics, S = 0
    without them; all float32. bias is 0: it cancels in every difference."""

    facts: RaterFacts
    weights: Numbers
    statistic_weights: Numbers
    means: Numbers
    scales: Numbers

    def scores(self, texts: Sequence[str]) -> Floats:
        """Return (D,) float64 scores, NaN for a text of nothing but blanks. A score is a function of its own
        text, to the last bit."""
        return mean_of_windows(*self.windows(texts))

    def windows(self, texts: Sequence[str]) -> tuple[Floats, Floats, Ints]:
        """Return the scores (W,) of all windows, NaN for one of nothing but blanks, their characters (W,),
        and the windows of each text (D,)."""
        pieces = [windows(text, self.facts.window, self.facts.max_windows) for text in texts]
        flat = [piece for text in pieces for piece in text]
        weights = np.array([len(piece) for piece in flat], np.float64)
        return self._window_scores(flat), weights, np.array([len(p) for p in pieces], np.int64)

    def _window_scores(self, texts: list[str]) -> Floats:
        rows, columns, counts = ngram_counts(texts, features=self.facts.features, longest=self.facts.longest)
        values = log_counts(counts).astype(np.float64)
        square = np.bincount(rows, values * values, minlength=len(texts))
        dot = np.bincount(rows, values * self.weights[columns], minlength=len(texts))
        with np.errstate(invalid="ignore"):
            found = dot / np.sqrt(square)
        if len(self.statistic_weights):
            scaled = scaled_surface(surface(texts), self.means, self.scales)
            found += (scaled * self.statistic_weights).astype(np.float64).sum(axis=1)
        return found


def log_counts(counts: NDArray[np.int32]) -> Numbers:
    """Return 1 + log(count) as float32."""
    return np.where(
        counts < len(_LOGS), _LOGS[np.minimum(counts, len(_LOGS) - 1)], 1 + np.log(counts)
    ).astype(np.float32)


def scaled_surface(shares: Numbers, means: Numbers, scales: Numbers) -> Numbers:
    """Return the statistics about their means, in units of `scales`, at most 5 standard deviations away."""
    return np.clip((shares - means) / scales, -0.5, 0.5).astype(np.float32)


def windows(text: str, size: int, most: int) -> list[str]:
    """Return the pieces of a text that are read: of equal length and together all of it, where that takes no
    more than `most` of `size` characters; else `most` of them, evenly spaced from its begin to its end."""
    count = max(1, -(-len(text) // size))
    if count <= most:
        return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]
    starts = [(len(text) - size) * i // max(1, most - 1) for i in range(most)]
    return [text[start : start + size] for start in starts]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedModel:
    """A `WindowModel` of kind hashed; it runs on one core."""

    card: ModelCard
    scorer: HashedScorer

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return (D, 1) float32; NaN rows: `no_tokens`."""
        return whole_texts(self.windows(texts), len(texts), 1)

    def windows(self, texts: Sequence[str]) -> Iterator[Windows]:
        """Yield all windows at once."""
        values, weights, counts = self.scorer.windows(texts)
        rows = mean_of_windows(values, weights, counts).astype(np.float32)[:, None]
        reasons = ["no_tokens" if lost else "" for lost in np.isnan(rows[:, 0]).tolist()]
        yield Windows(
            values=values.astype(np.float32)[:, None], weights=weights, counts=counts, rows=rows,
            reasons=reasons,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorModel:
    """A `WindowModel` of kind vectors: the head over the vectors of an embedder's windows, on the CPU in
    float32."""

    card: ModelCard
    head: HeadWeights
    embedder: WindowModel

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """Return (D, 1) float32; NaN where there is no vector."""
        return whole_texts(self.windows(texts), len(texts), 1)

    def windows(self, texts: Sequence[str]) -> Iterator[Windows]:
        """Yield the windows as the embedder does, a score for each; every window is encoded once."""
        languages, domains = np.zeros(len(texts), np.int64), None
        if self.head.reads_language:
            told = [split_code(text, 2 if self.head.domains else 1) for text in texts]
            languages = language_rows([code[0] for code, _ in told], self.head.languages)
            domains = self.head.domain_rows([code[-1] for code, _ in told]) if self.head.domains else None
            texts = [text for _, text in told]
        at = 0
        for vectors in self.embedder.windows(texts):
            mine = slice(at, at + len(vectors.counts))
            at = mine.stop
            of = None if domains is None else np.repeat(domains[mine], vectors.counts)
            values = self.head.scores(vectors.values, np.repeat(languages[mine], vectors.counts), of)
            # one window that is no number spoils its text: what the others say would be another text's score
            spoilt = np.where(np.isfinite(values), values, np.inf).astype(np.float64)
            rows = mean_of_windows(spoilt, vectors.weights, vectors.counts)
            lost = ["" if fine else "not_finite" for fine in np.isfinite(rows).tolist()]
            reasons = [why or other for why, other in zip(vectors.reasons, lost, strict=True)]
            rows[np.array(reasons, np.str_) != ""] = np.nan
            yield replace(
                vectors, values=values[:, None], rows=rows.astype(np.float32)[:, None], reasons=reasons
            )


def by_windows(placed: Placed, most: int = MAX_WINDOWS) -> Placed:
    """Return an embedder that reads up to `most` windows of a text, however many its card says; the vector of
    a whole text is the mean of theirs, weighed by tokens, of length one."""
    how = placed.card.input.model_copy(update={"aggregate": "length-mean", "max_windows": most})
    card = placed.card.model_copy(update={"input": how})
    return replace(placed, card=card, digest=value_digest(["by windows", most, placed.digest]))


def language_rows(codes: Sequence[str], known: Sequence[str]) -> Ints:
    """Return (D,) the row of each language in a head's tables: 1 + its place in `known`, 0 if not there.

    A code counts as it is written, else as what `language_code` makes of it: deu, de-DE and de are one.
    """
    row = {code: place for place, code in reversed(list(enumerate(known, start=1)))}
    spelt = {c: row.get(c) for c in set(codes)}
    if None in spelt.values():
        plain = {language_code(code): row[code] for code in reversed(known)}
        spelt = {c: r if r is not None else plain.get(language_code(c) or c, 0) for c, r in spelt.items()}
    return np.array([spelt[c] or 0 for c in codes], np.int64)


def load_rater(placed: Placed, settings: Settings) -> HashedModel | VectorModel:
    """Return the rater of a placed card.

    Raises InputError for files that are not a rater's, a card that says otherwise than they whether language
    and domain are read, or an embedder that is not the one it was trained on; MissingExtraError without
    safetensors.
    """
    card = placed.card
    facts, tensors = read_rater(placed.folder)
    if facts.kind == "hashed":
        if card.base is not None or card.reads_language:
            raise InputError(
                f"card {card.name!r}: {placed.folder / FACTS} is of kind hashed, which has no `base` and "
                "reads no language; take them off the card"
            )
        return HashedModel(card=card, scorer=hashed_scorer(facts, tensors, where=str(placed.folder)))
    head = head_of(tensors, facts.languages, facts.domains, where=str(placed.folder / WEIGHTS))
    if placed.base is None or placed.base.card.role != "embedding":
        raise InputError(
            f"card {card.name!r}: {placed.folder / FACTS} is of kind vectors and needs `base`, the card of "
            "the embedder that it was trained on"
        )
    if head.reads_language != card.reads_language:
        raise InputError(
            f"card {card.name!r}: reads_language is {card.reads_language}, its head "
            f"{'depends' if head.reads_language else 'does not depend'} on the language; correct the card"
        )
    if head.domains != card.reads_domains:
        raise InputError(
            f"card {card.name!r}: reads_domains is {list(card.reads_domains)}, its head was trained with the "
            f"domains {list(head.domains)}; correct the card"
        )
    _check_embedder(facts, placed.base, where=f"card {card.name!r}: {placed.folder / FACTS}")
    from quadmix.annotate.models.load import load_model  # it imports this module for its families

    embedder = load_model(by_windows(placed.base, facts.max_windows), settings)
    if not isinstance(embedder, WindowModel):
        raise InputError(
            f"card {card.name!r}: its base {placed.base.card.name!r} is of the family "
            f"{placed.base.card.family}, expected embedding"
        )
    width = getattr(embedder, "width", head.width)
    if width != head.width:
        raise InputError(
            f"card {card.name!r}: the head reads vectors of {head.width} numbers, the embedder "
            f"{placed.base.card.name!r} gives {width}; name the embedder that it was trained on"
        )
    return VectorModel(card=card, head=head, embedder=embedder)


def _check_embedder(facts: RaterFacts, base: Placed, *, where: str) -> None:
    """Refuse another embedder than that of the training: its vectors give scores that look like scores."""
    if facts.embedder is not None and facts.embedder != base.digest:
        raise InputError(
            f"{where}: the head was trained on an embedder with the digest {facts.embedder[:12]}, in "
            f"{base.folder} lies {base.card.name!r} with {base.digest[:12]} (its files or its card "
            "have changed); put the embedder of the training back, or train the rater again"
        )


def hashed_scorer(facts: RaterFacts, tensors: dict[str, Any], *, where: str) -> HashedScorer:
    """Return the scorer of a folder's files; InputError if they do not fit each other, or this version."""
    if facts.ngrams != VERSION or facts.surface not in (None, [], list(NAMES)):
        raise InputError(
            f"{where}: the rater counts n-grams of version {facts.ngrams} and statistics {facts.surface}, "
            f"here they are of version {VERSION} and {list(NAMES)}; train it again"
        )
    sizes = {"weights": facts.features} | dict.fromkeys(("statistics", "means", "scales"), 0)
    if facts.surface:
        sizes.update(dict.fromkeys(("statistics", "means", "scales"), len(NAMES)))
    for name, size in sizes.items():
        if name not in tensors or tensors[name].shape != (size,):
            got = tensors[name].shape if name in tensors else "absent"
            raise InputError(f"{where}: tensor {name!r} is {got}, expected {(size,)}; train it again")
    return HashedScorer(
        facts=facts, weights=tensors["weights"], statistic_weights=tensors["statistics"],
        means=tensors["means"], scales=tensors["scales"],
    )  # fmt: skip


def scorer_tensors(scorer: HashedScorer) -> dict[str, Numbers]:
    """Return the arrays of a scorer by the names that a file has."""
    return {
        "weights": scorer.weights, "statistics": scorer.statistic_weights, "means": scorer.means,
        "scales": scorer.scales,
    }  # fmt: skip


def write_rater(folder: Path, facts: RaterFacts, weights: HashedScorer | HeadWeights) -> None:
    """Write rater.safetensors, then rater.json, each atomically; MissingExtraError without safetensors."""
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "saving a rater") from error
    hashed = isinstance(weights, HashedScorer)
    tensors = scorer_tensors(weights) if hashed else head_tensors(weights)
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)
    write_json(folder / FACTS, asdict(replace(facts, version=_VERSIONS[facts.kind])))


def read_rater(folder: Path) -> tuple[RaterFacts, dict[str, Any]]:
    """Return what a rater's folder holds; InputError names a file that is absent, damaged or of another
    version."""
    for name in (FACTS, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist; expected the folder of a trained rater")
    facts = read_value(folder / FACTS, RaterFacts)
    if facts.version != (expected := _VERSIONS[facts.kind]):
        remedy = "train the rater again" if facts.version < expected else "update quadmix"
        raise InputError(f"{folder / FACTS}: version is {facts.version}, expected {expected}; {remedy}")
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "annotate", "a trained rater") from error
    try:
        with naming(folder / WEIGHTS):
            return facts, load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS} is damaged ({error}); train or fetch it again") from error
