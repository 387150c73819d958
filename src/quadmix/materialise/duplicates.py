"""dataset/duplicates.json: which selected documents say the same, and how often their text is repeated.

In: `part-*-texts.npy` of all splits: a 64-bit hash, tokens and copies of every selected document, sorted by
hash (20 bytes each, on disk). Out: `DuplicateFacts`. Texts are the same if their hashes are, after case and
white space were put aside; of a billion different texts two share a hash with a chance of 3 %. Ranges of
hashes are added up one by one, so memory is that of one range (see `sources`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quadmix.io.tables import read_slice
from quadmix.materialise.sources import BucketTask, Mapper, bucket_tasks, read_bucket, run_buckets
from quadmix.materialise.table import SELECTION, part_name
from quadmix.types import Ints
from quadmix.types.facts import DuplicateFacts, TextGroup

TOP = 20
NAMED = 5  # documents of a group that are named
_SUMS = (
    "documents", "texts", "unique_tokens", "tokens_out", "text_tokens", "groups", "grouped", "group_tokens",
    "group_tokens_out", "repeated_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A text that several documents have. members: (split, row) of the first few, in corpus order."""

    hash: int
    documents: int
    copies: int
    tokens: int
    tokens_out: int
    members: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBucket:
    """What one range of texts holds: sums of `DuplicateFacts` in the order of _SUMS, the largest groups."""

    sums: tuple[int, ...]
    top: tuple[_Group, ...]


def count_texts(task: BucketTask) -> TextBucket:
    """Add up one range of texts."""
    found = read_bucket(task)
    rows, starts = found.rows, found.starts
    tokens, copies = rows["tokens"].astype(np.int64), rows["copies"].astype(np.int64)
    size = np.diff(np.append(starts, len(rows)))
    all_tokens, all_out, all_copies = (_sums(v, starts) for v in (tokens, tokens * copies, copies))
    first, many = tokens[starts], size > 1
    sums = (
        len(rows), len(starts), all_tokens.sum(), all_out.sum(), first.sum(), many.sum(), size[many].sum(),
        all_tokens[many].sum(), all_out[many].sum(), (all_tokens - first)[many].sum(),
    )  # fmt: skip
    groups = np.flatnonzero(many)
    hashes = rows["hash"][starts]
    best = groups[np.lexsort((hashes[groups], -all_copies[groups]))[:TOP]]
    return TextBucket(
        sums=tuple(map(int, sums)),
        top=tuple(
            _Group(
                hash=int(hashes[g]), documents=int(size[g]), copies=int(all_copies[g]), tokens=int(first[g]),
                tokens_out=int(all_out[g]),
                members=tuple(
                    (int(found.split[i]), int(rows["row"][i]))
                    for i in range(int(starts[g]), int(starts[g]) + min(NAMED, int(size[g])))
                ),
            )
            for g in best
        ),
    )  # fmt: skip


def _sums(values: Ints, starts: Ints) -> Ints:
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0, dtype=np.int64)


def duplicate_facts(
    run_folder: str, work: str, splits: Sequence[int], mapper: Mapper, plan: str
) -> DuplicateFacts:
    """Add up the texts of all splits. plan: of the manifest."""
    buckets: list[TextBucket] = run_buckets(count_texts, bucket_tasks(work, splits, "-texts.npy"), mapper)
    sums = [sum(values) for values in zip(*(b.sums for b in buckets), strict=True)]
    top = sorted((g for b in buckets for g in b.top), key=lambda g: (-g.copies, g.hash))[:TOP]
    return DuplicateFacts(
        plan=plan, reason="", top=tuple(_named(run_folder, group) for group in top),
        **dict(zip(_SUMS, sums, strict=True)),
    )  # fmt: skip


def _named(run_folder: str, group: _Group) -> TextGroup:
    ids: list[str] = []
    for split, row in group.members:
        part = f"{run_folder}/{SELECTION}/{part_name(split)}"
        ids += read_slice(part, row, row + 1, ["doc_id"])["doc_id"].to_pylist()
    return TextGroup(
        ids=tuple(ids), documents=group.documents, copies=group.copies, tokens=group.tokens,
        tokens_out=group.tokens_out,
    )  # fmt: skip
