"""Target sets: what a proxy's loss is measured on, as fixed windows of tokens with a mask.

In: prompt and answer texts, or held-out documents per domain. Out: per set `inputs` and `labels` (W, T),
the row each window belongs to, and the exact UTF-8 bytes of scored text per row, so that losses are bits
per byte whatever the tokenizer. Every row starts with end-of-document, as documents do in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.corpus.scripts import gap
from quadmix.corpus.targets import TargetText
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import InputError
from quadmix.io.atomic import file_digest, map_array, read_value, value_digest, write_array, write_json
from quadmix.proxy.pool import Mapper, wanted_documents
from quadmix.rng import keyed_uniform
from quadmix.types import Annotations, Corpus, Ints, Split

IGNORE = -1
SetKind = Literal["target", "heldout", "benchmark"]
_ARRAYS = ("inputs", "labels", "row", "bytes")
_DOCUMENT_PART = 16  # a held-out document gives at most this part of its domain's bytes: rows carry the s.e.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetSet:
    """One target as windows. inputs: (W, T) int32, padded with 0. labels: (W, T) int32, IGNORE where
    not scored. row: (W,) int64, source row of each window. bytes: (R,) int64, scored bytes per row.
    cut: rows that lost the start of their prompt (known while encoding, not on disk)."""

    name: str
    kind: SetKind
    inputs: NDArray[np.int32]
    labels: NDArray[np.int32]
    row: Ints
    bytes: Ints
    cut: int = 0

    @property
    def tokens(self) -> int:
        """Return the number of scored tokens."""
        return int((self.labels != IGNORE).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetManifest:
    """The sets of a targets folder in order; set i lies in files named by i."""

    names: tuple[str, ...]
    kind: SetKind
    context: int
    source: str
    windows: int
    tokenizer: str = ""
    warnings: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """Token ids of one row, how many of the first are not scored, and the bytes of the scored rest."""

    ids: list[int]
    unscored: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _HeldoutTask:
    corpus: Corpus
    split: Split
    keys: NDArray[np.uint64]
    max_bytes: int


def encode_targets(
    targets: Sequence[TargetText], tokenizer: Tokenizer, context: int, folder: str
) -> list[TargetSet]:
    """Encode every target into `folder`, or reuse what is there from the same texts.

    InputError names a target without a scorable row.
    """
    source = value_digest(
        [tokenizer.digest, context, [(t.name, t.prompts, t.answers, t.score_prompt) for t in targets]]
    )
    if is_whole(folder, source):
        return open_targets(folder)
    sets = [target_set(target, tokenizer, context) for target in targets]
    return write_sets(sets, folder, context, source, tokenizer.digest)


def target_set(target: TargetText, tokenizer: Tokenizer, context: int) -> TargetSet:
    """Return one target as windows: answers only, or prompt and answer (`score_prompt`)."""
    answers = [_joined(p, a) for p, a in zip(target.prompts, target.answers, strict=True)]
    rows: list[TokenRow] = []
    for prompt, answer, head, tail in zip(
        target.prompts, answers, tokenizer.encode(target.prompts), tokenizer.encode(answers), strict=True
    ):
        scored = prompt + answer if target.score_prompt else answer
        rows.append(
            TokenRow(
                ids=[tokenizer.end_of_document, *head, *tail],
                unscored=1 if target.score_prompt else 1 + len(head),
                bytes=len(scored.encode()),
            )
        )
    return cut_windows(target.name, "target", rows, context)


def encode_heldout(
    corpus: Corpus,
    annotations: Annotations,
    tokenizer: Tokenizer,
    folder: str,
    *,
    context: int,
    max_bytes: int,
    mapper: Mapper,
) -> list[TargetSet]:
    """Encode the held-out documents, one set per domain, at most `max_bytes` of text each.

    Documents come in the order of their hash; domains without held-out text are left out.
    """
    held = annotations.take(annotations.held_out)
    source = value_digest(
        [corpus.digest, tokenizer.digest, context, max_bytes, held.keys, held.domain, held.domains]
    )
    if is_whole(folder, source):
        return open_targets(folder)
    texts = _heldout_texts(corpus, held, max_bytes, mapper)
    sets: list[TargetSet] = []
    for number, name in enumerate(annotations.domains):
        chosen = [texts[i] for i in _hash_order(held, number) if i in texts]
        chosen = _capped(chosen, max_bytes)
        if chosen:
            rows = [
                TokenRow(ids=[tokenizer.end_of_document, *ids], unscored=1, bytes=len(text.encode()))
                for text, ids in zip(chosen, tokenizer.encode(chosen), strict=True)
            ]
            sets.append(cut_windows(name, "heldout", rows, context))
    return write_sets(sets, folder, context, source, tokenizer.digest, kind="heldout")


def open_targets(folder: str | Path) -> list[TargetSet]:
    """Memory-map the sets of a folder, in their order."""
    path = Path(folder)
    if not (path / "manifest.json").exists():
        raise InputError(
            f"target folder {str(folder)!r} has no manifest.json; run the proxy stage to build it"
        )
    manifest = read_value(path / "manifest.json", TargetManifest)
    return [
        TargetSet(
            name=name,
            kind=manifest.kind,
            inputs=map_array(path / f"{index:05d}.inputs.npy"),
            labels=map_array(path / f"{index:05d}.labels.npy"),
            row=map_array(path / f"{index:05d}.row.npy"),
            bytes=map_array(path / f"{index:05d}.bytes.npy"),
        )
        for index, name in enumerate(manifest.names)
    ]


def target_digests(folder: str | Path) -> dict[str, str]:
    """Return a digest of the windows of every set of a folder: equal ones mean comparable losses."""
    manifest = read_value(Path(folder, "manifest.json"), TargetManifest)
    return {
        name: value_digest([file_digest(Path(folder, f"{index:05d}.{key}.npy")) for key in _ARRAYS])
        for index, name in enumerate(manifest.names)
    }


def _joined(prompt: str, answer: str) -> str:
    """The answer as it stands after its prompt: one space between, unless white space is there already, or
    the prompt's script has none between words."""
    return answer if not answer or answer[0].isspace() else gap(prompt) + answer


def cut_windows(name: str, kind: SetKind, rows: Sequence[TokenRow], context: int) -> TargetSet:
    """Cut rows into windows in which every scored token is a label exactly once."""
    inputs: list[NDArray[np.int32]] = []
    labels: list[NDArray[np.int32]] = []
    owner: list[int] = []
    cut = 0
    kept = [row for row in rows if len(row.ids) > row.unscored]
    for index, row in enumerate(kept):
        ids = np.asarray(row.ids, dtype=np.int32)
        mask = np.arange(len(ids)) >= row.unscored
        # the harness keeps a whole context before the end, whatever is left of the prompt
        prompt = 1 if kind == "benchmark" else context // 2
        first = _first_token(len(ids), row.unscored, context, prompt)
        cut += first > 0
        for start in range(first, len(ids) - 1, context):
            window, scored = ids[start : start + context + 1], mask[start + 1 : start + context + 1]
            inputs.append(np.pad(window[:-1], (0, context - len(scored))))
            label = np.where(scored, window[1:], IGNORE).astype(np.int32)
            labels.append(np.pad(label, (0, context - len(scored)), constant_values=IGNORE))
            owner.append(index)
    if not kept:
        raise InputError(
            f"target {name!r}: none of its {len(rows)} rows has a token to score; "
            "check its text or answer column"
        )
    return TargetSet(
        name=name,
        kind=kind,
        inputs=np.stack(inputs),
        labels=np.stack(labels),
        row=np.asarray(owner, dtype=np.int64),
        bytes=np.asarray([row.bytes for row in kept], dtype=np.int64),
        cut=cut,
    )


def _too_long(target: TargetSet, context: int) -> str:
    """Say so when rows do not fit into the context: they then lose prompt, or are scored in pieces."""
    lost, pieces = target.cut, int((np.bincount(target.row) > 1).sum())
    if not lost and not pieces:
        return ""
    return (
        f"{target.kind} {target.name!r}: of {len(target.bytes):,} rows, {lost:,} are longer than the context "
        f"of {context} tokens and lost the start of their prompt, {pieces:,} are scored in several windows; "
        "raise proxy.model.context (and evaluate.model.context), or shorten the rows"
    )


def _first_token(length: int, unscored: int, context: int, prompt: int) -> int:
    """Where the first window starts: the prompt loses its left end so that the answer fits; if an answer is
    too long for that, `prompt` tokens are kept before it, and it runs on in further windows."""
    if length <= context + 1:
        return 0
    answer = length - unscored
    return max(0, unscored - max(context - answer + 1, prompt))


def is_whole(folder: str | Path, source: str) -> bool:
    manifest = Path(folder, "manifest.json")
    return manifest.exists() and read_value(manifest, TargetManifest).source == source


def write_sets(
    sets: Sequence[TargetSet],
    folder: str,
    context: int,
    source: str,
    tokenizer: str,
    *,
    kind: SetKind = "target",
) -> list[TargetSet]:
    path = Path(folder)
    (path / "manifest.json").unlink(missing_ok=True)
    for index, item in enumerate(sets):
        for key in _ARRAYS:
            write_array(path / f"{index:05d}.{key}.npy", getattr(item, key))
    manifest = TargetManifest(
        names=tuple(s.name for s in sets),
        kind=kind,
        context=context,
        source=source,
        windows=sum(len(s.inputs) for s in sets),
        tokenizer=tokenizer,
        warnings=tuple(filter(None, (_too_long(s, context) for s in sets if kind != "heldout"))),
    )
    write_json(path / "manifest.json", manifest)
    return open_targets(folder)


def _hash_order(held: Annotations, domain: int) -> list[int]:
    index = np.flatnonzero(held.domain == domain)
    return index[np.argsort(keyed_uniform(0, held.keys[index], "heldout"), kind="stable")].tolist()


def _heldout_texts(corpus: Corpus, held: Annotations, max_bytes: int, mapper: Mapper) -> dict[int, str]:
    """Return text by row of `held`, for enough documents of every domain (a token has >= 1 byte)."""
    wanted: list[int] = []
    for number in range(len(held.domains)):
        order = _hash_order(held, number)
        tokens = np.minimum(held.tokens[order], max(1, max_bytes // _DOCUMENT_PART))
        wanted += order[: int(np.searchsorted(np.cumsum(tokens), max_bytes)) + 1]
    rows = np.sort(np.asarray(wanted, dtype=np.int64))
    tasks: list[Any] = []
    places: list[Ints] = []
    for split in corpus.splits:
        mine = rows[held.split[rows] == split.index]
        if len(mine):
            places.append(mine)
            tasks.append(_HeldoutTask(corpus=corpus, split=split, keys=held.keys[mine], max_bytes=max_bytes))
    found = mapper(_read_split, tasks)
    return {
        int(r): t for mine, texts in zip(places, found, strict=True) for r, t in zip(mine, texts, strict=True)
    }


def _read_split(task: _HeldoutTask) -> list[str]:
    texts = [""] * len(task.keys)
    for position, found in wanted_documents(task.corpus, task.split, task.keys):
        for place, text in zip(position.tolist(), found, strict=True):
            texts[place] = _cut(text, max(1, task.max_bytes // _DOCUMENT_PART))
    return texts


def _cut(text: str, limit: int) -> str:
    """Return the longest start of `text` with at most `limit` UTF-8 bytes."""
    return text.encode()[:limit].decode(errors="ignore")


def _capped(texts: Sequence[str], limit: int) -> list[str]:
    """Return the texts up to `limit` bytes in all, the last one cut; empty ones are left out."""
    out: list[str] = []
    for text in texts:
        piece = _cut(text, limit)
        limit -= len(piece.encode())
        if piece:
            out.append(piece)
    return out
