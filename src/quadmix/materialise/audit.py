"""The parts of a selection against their manifest: re-hashed, recounted, and what they promise the dataset.

In: a run folder and its selection manifest. Out: `PartsFound`: what is wrong with which part, checksums of
all copies that the dataset must hold, and how far the drawn tokens are from the expected ones. One part is in
memory at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from quadmix.errors import QuadmixError
from quadmix.io.atomic import file_digest
from quadmix.materialise.checksum import BUCKETS, Sums, checksum
from quadmix.materialise.order import copy_rows
from quadmix.materialise.stored import INDEX, StoredRows
from quadmix.materialise.table import (
    NOT_DRAWN,
    SELECTION,
    SelectedSplit,
    SelectionManifest,
    SelectionTable,
    read_part,
)
from quadmix.mixing.settle import drawn
from quadmix.mixing.tally import RankTable, lookup_ranks
from quadmix.types import DomainTokens, Floats, Ints

Advance = Callable[[int], None]


@dataclass(slots=True, kw_only=True, eq=False)
class PartsFound:
    """What was added up over the parts.

    wrong: part and what is wrong with it. places, numbers: (2, BUCKETS) checksums of the copies, as (key,
    copy_index) and as (key, copy_index, copies, tokens). gap, longest: (M,) drawn minus expected tokens, and
    tokens of the longest document. undrawn: documents whose copies do not follow from their expected copies.
    misplaced: documents whose rank is not that of their bin. bins: per domain the tokens of each bin.
    """

    wrong: list[str] = field(default_factory=list[str])
    places: Sums
    numbers: Sums
    gap: Floats
    longest: Floats
    undrawn: int = 0
    misplaced: int = 0
    documents: int = 0
    bins: list[Ints] = field(default_factory=list[Ints])


def audit_parts(
    folder: Path, selection: SelectionManifest, ranks: RankTable | str, *, format: str, advance: Advance
) -> PartsFound:
    """Read every part once. ranks: a string where there are none. format: of the dataset.

    advance: told the bytes of each part that is done.
    """
    size = len(selection.info.domains)
    found = PartsFound(
        places=np.zeros((2, BUCKETS), dtype=np.uint64),
        numbers=np.zeros((2, BUCKETS), dtype=np.uint64),
        gap=np.zeros(size),
        longest=np.zeros(size),
        bins=[np.zeros(len(v), dtype=np.int64) for v in ranks.values] if isinstance(ranks, RankTable) else [],
    )
    for part in selection.parts:
        path = folder / SELECTION / part.name
        if not path.is_file():
            found.wrong.append(f"{part.name} is missing")
            continue
        if (digest := file_digest(path)) != part.digest:
            found.wrong.append(f"{part.name} has digest {digest}, recorded {part.digest}")
            continue
        try:
            table = read_part(folder, part.split)
        except QuadmixError as error:
            found.wrong.append(f"{part.name}: {error}")
            continue
        found.wrong += [f"{part.name}: {fault}" for fault in _faults(selection, part, table)]
        _add_copies(found, table, format)
        _add_draw(found, table)
        if isinstance(ranks, RankTable):
            _add_ranks(found, table, ranks)
        advance(path.stat().st_size)
    return found


def copies_of(table: SelectionTable, format: str) -> tuple[StoredRows, Ints]:
    """Return the rows that the dataset holds of a part, in corpus order, and the document of each."""
    copies = table.copies.astype(np.int64)
    if format == INDEX:
        rows = np.flatnonzero(copies > 0).astype(np.int64)
        copy_index = tokens = np.zeros(len(rows), dtype=np.int64)
    else:
        rows, index = copy_rows(table.copies)
        copy_index, tokens = index.astype(np.int64), table.tokens[rows].astype(np.int64)
    stored = StoredRows(
        doc_id=(), keys=table.keys[rows], copy_index=copy_index, copies=copies[rows], tokens=tokens
    )
    return stored, rows


def _add_copies(found: PartsFound, table: SelectionTable, format: str) -> None:
    rows, _ = copies_of(table, format)
    found.documents += len(table)
    found.places += checksum(rows.keys, rows.copy_index)
    found.numbers += checksum(rows.keys, rows.copy_index, rows.copies, rows.tokens)


def _add_draw(found: PartsFound, table: SelectionTable) -> None:
    size, info = len(found.gap), table.info
    tokens = table.tokens.astype(np.float64)
    found.gap += np.bincount(table.domain, weights=tokens * (table.copies - table.expected), minlength=size)
    np.maximum.at(found.longest, table.domain, tokens)
    if len(info.factors) == size:
        factor = np.array(info.factors)[table.domain]
        found.undrawn += int(
            (drawn(table.expected, table.keys, factor, seed=info.seed) != table.copies).sum()
        )
    else:
        found.undrawn += len(table)


def _add_ranks(found: PartsFound, table: SelectionTable, ranks: RankTable) -> None:
    """Count the tokens of each bin again, and the documents whose rank is not the one of their bin."""
    rows = np.flatnonzero(table.selectable)
    merged, domain, tokens = table.merged[rows], table.domain[rows], table.tokens[rows].astype(np.int64)
    known = np.array([len(v) > 0 for v in ranks.values])[domain]
    found.misplaced += int((~known).sum())
    rows, merged, domain, tokens = rows[known], merged[known], domain[known], tokens[known]
    for m in np.unique(domain).tolist():
        mine = domain == m
        place = np.maximum(np.searchsorted(ranks.values[m], merged[mine], side="right") - 1, 0)
        np.add.at(found.bins[m], place, tokens[mine])
    mode = table.info.rank_mode
    expected = lookup_ranks(ranks, merged, domain, literal=mode == "paper")
    low, high = table.ranks.low[rows], table.ranks.high[rows]
    if mode == "hash-tiebreak":  # a point inside the bin, by the hash
        off = (low < expected.low - 1e-12) | (high > expected.high + 1e-12)
    else:
        off = (np.abs(low - expected.low) > 1e-12) | (np.abs(high - expected.high) > 1e-12)
    found.misplaced += int(off.sum())


def _faults(selection: SelectionManifest, part: SelectedSplit, table: SelectionTable) -> list[str]:
    """Return what the rows of a part say otherwise than the manifest."""
    faults: list[str] = []

    def expect(what: str, got: object, recorded: object) -> None:
        if got != recorded:
            faults.append(f"{what} {got}, recorded {recorded}")

    if table.info != selection.info:
        faults.append("its schema describes another selection than the manifest")
    chosen = table.copies > 0
    dropped = _dropped(table)
    expect("documents", len(table), part.documents)
    expect("selected", int(chosen.sum()), part.selected)
    expect("dropped", dropped, part.dropped)
    expect("copies", int(table.copies.sum(dtype=np.int64)), part.copies)
    out = part.selected + sum(part.dropped.values())
    expect("documents", out, part.documents)
    for recorded, again in zip(part.domains, _domains(table), strict=False):
        close = np.isclose(again.expected_tokens, recorded.expected_tokens, rtol=1e-9, atol=1e-6)
        for name in ("domain", "documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out"):
            expect(f"{name} of {recorded.domain}", getattr(again, name), getattr(recorded, name))
        if not close:
            expect(f"expected tokens of {recorded.domain}", again.expected_tokens, recorded.expected_tokens)
    return faults


def _dropped(table: SelectionTable) -> dict[str, int]:
    reasons = pa.chunked_array(table.excluded, pa.string()).drop_null().value_counts().to_pylist()
    counts = {NOT_DRAWN: int((table.selectable & (table.copies == 0)).sum())}
    counts |= {r["values"]: r["counts"] for r in reasons}
    return {reason: count for reason, count in sorted(counts.items()) if count}


def _domains(table: SelectionTable) -> list[DomainTokens]:
    """Count each domain by itself, otherwise than the writer of the part did."""
    found: list[DomainTokens] = []
    for m, name in enumerate(table.info.domains):
        rows = table.domain == m
        tokens, copies = table.tokens[rows].astype(np.int64), table.copies[rows].astype(np.int64)
        found.append(
            DomainTokens(
                domain=name,
                documents_in=len(tokens),
                tokens_in=int(tokens.sum()),
                documents_out=int((copies > 0).sum()),
                unique_tokens=int(tokens[copies > 0].sum()),
                tokens_out=int((tokens * copies).sum()),
                expected_tokens=float(tokens.astype(np.float64) @ table.expected[rows]),
            )
        )
    return found
