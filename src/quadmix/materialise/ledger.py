"""Conservation (promise P4): what came in is selected, dropped for a counted reason, or quarantined.

In: the corpus counts and the selection table. Out: the `Ledger`, the tokens per domain, or IntegrityError.
"""

import numpy as np

from quadmix.errors import IntegrityError
from quadmix.io.atomic import value_digest
from quadmix.materialise.table import SelectionTable
from quadmix.types import Corpus, DatasetManifest, DomainTokens, Floats, Ledger

NOT_DRAWN = "not_drawn"


def make_ledger(corpus: Corpus, table: SelectionTable) -> Ledger:
    """Count rows, copies and tokens; rows of the corpus that are not in the table break the check."""
    selected = table.copies > 0
    dropped = {NOT_DRAWN: int((table.selectable & ~selected).sum())}
    for reason in table.excluded.drop_null().to_pylist():
        dropped[reason] = dropped.get(reason, 0) + 1
    quarantined: dict[str, int] = {}
    for count in corpus.counts:
        for reason, rows in count.quarantined.items():
            quarantined[reason] = quarantined.get(reason, 0) + rows
    ledger = Ledger(
        rows_in=sum(c.rows for c in corpus.counts),
        selected=int(selected.sum()),
        dropped=dict(sorted(dropped.items())),
        quarantined=dict(sorted(quarantined.items())),
        copies=int(table.copies.sum(dtype=np.int64)),
        tokens_in=int(table.tokens.sum(dtype=np.int64)),
        unique_tokens=int(table.tokens[selected].sum(dtype=np.int64)),
        tokens_out=table.tokens_out,
    )
    check_ledger(ledger)
    _check_splits(corpus, table)
    return ledger


def check_ledger(ledger: Ledger) -> None:
    """Raise IntegrityError unless rows in = selected + dropped + quarantined."""
    out = ledger.selected + sum(ledger.dropped.values()) + sum(ledger.quarantined.values())
    if out != ledger.rows_in:
        raise IntegrityError(
            f"rows are not conserved: {ledger.rows_in} came in, but {ledger.selected} selected + "
            f"{ledger.dropped} dropped + {ledger.quarantined} quarantined = {out}; nothing was committed. "
            "Were the inputs changed during the run? Start a new run folder"
        )
    if ledger.copies < ledger.selected or ledger.tokens_out < ledger.unique_tokens:
        raise IntegrityError(
            f"{ledger.copies} copies of {ledger.selected} documents and {ledger.tokens_out} tokens of "
            f"{ledger.unique_tokens} unique ones cannot be; expected at least one copy each"
        )


def _check_splits(corpus: Corpus, table: SelectionTable) -> None:
    found = np.bincount(table.split, minlength=len(corpus.counts))
    for place, count in enumerate(corpus.counts):
        if found[count.split] != count.documents:
            raise IntegrityError(
                f"split {count.split} ({corpus.splits[place].path}) has {count.documents} documents, "
                f"but selection.parquet lists {found[count.split]}; start a new run folder"
            )


def domain_tokens(table: SelectionTable) -> tuple[DomainTokens, ...]:
    """Return documents and tokens per domain, before and after."""
    size = len(table.info.domains)

    def total(weights: Floats) -> list[float]:
        return np.bincount(table.domain, weights=weights, minlength=size).tolist()

    tokens = table.tokens.astype(np.float64)
    taken = (table.copies > 0).astype(np.float64)
    columns = zip(
        table.info.domains,
        total(np.ones(len(table))),
        total(tokens),
        total(taken),
        total(tokens * taken),
        total(tokens * table.copies),
        total(tokens * table.expected),
        strict=True,
    )
    return tuple(
        DomainTokens(
            domain=name,
            documents_in=int(documents_in),
            tokens_in=int(tokens_in),
            documents_out=int(documents_out),
            unique_tokens=int(unique),
            tokens_out=int(tokens_out),
            expected_tokens=expected,
        )
        for name, documents_in, tokens_in, documents_out, unique, tokens_out, expected in columns
    )


def manifest_digest(manifest: DatasetManifest) -> str:
    """Return the digest over shards, counts and domains; it holds no time and no path."""
    return value_digest({"shards": manifest.shards, "ledger": manifest.ledger, "domains": manifest.domains})
