"""Conservation (promise P4): what came in is selected, dropped for a counted reason, or quarantined.

In: the corpus counts and the counts of the selection's parts. Out: the `Ledger`, the tokens per domain, or
IntegrityError.
"""

import math
from collections import Counter

from quadmix.errors import IntegrityError
from quadmix.io.atomic import value_digest
from quadmix.materialise.table import NOT_DRAWN, SelectionManifest
from quadmix.types import Corpus, DatasetManifest, DomainTokens, Ledger


def make_ledger(corpus: Corpus, selection: SelectionManifest) -> Ledger:
    """Sum rows, copies and tokens over the parts; rows of the corpus that no part has break the check."""
    dropped: Counter[str] = Counter({NOT_DRAWN: 0})
    quarantined: Counter[str] = Counter()
    for part in selection.parts:
        dropped.update(part.dropped)
    for count in corpus.counts:
        quarantined.update(count.quarantined)
    domains = domain_tokens(selection)
    ledger = Ledger(
        rows_in=sum(c.rows for c in corpus.counts),
        selected=sum(p.selected for p in selection.parts),
        dropped=dict(sorted(dropped.items())),
        quarantined=dict(sorted(quarantined.items())),
        copies=sum(p.copies for p in selection.parts),
        tokens_in=sum(d.tokens_in for d in domains),
        unique_tokens=sum(d.unique_tokens for d in domains),
        tokens_out=sum(d.tokens_out for d in domains),
    )
    check_ledger(ledger)
    _check_splits(corpus, selection)
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


def _check_splits(corpus: Corpus, selection: SelectionManifest) -> None:
    found = {p.split: p.documents for p in selection.parts}
    if len(found) != len(selection.parts):
        raise IntegrityError("selection/manifest.json names a split twice; run the selection again")
    paths = {s.index: s.path for s in corpus.splits}
    for count in corpus.counts:
        if found.pop(count.split, 0) != count.documents:
            listed = next((p.documents for p in selection.parts if p.split == count.split), 0)
            raise IntegrityError(
                f"split {count.split} ({paths[count.split]}) has {count.documents} documents, "
                f"but selection/ lists {listed}; start a new run folder"
            )
    if found:
        raise IntegrityError(
            f"selection/ has split {min(found)}, which the corpus lacks; start a new run folder"
        )


def domain_tokens(selection: SelectionManifest) -> tuple[DomainTokens, ...]:
    """Return documents and tokens per domain, before and after, summed over the parts."""
    return tuple(
        DomainTokens(
            domain=name,
            documents_in=sum(p.domains[m].documents_in for p in selection.parts),
            tokens_in=sum(p.domains[m].tokens_in for p in selection.parts),
            documents_out=sum(p.domains[m].documents_out for p in selection.parts),
            unique_tokens=sum(p.domains[m].unique_tokens for p in selection.parts),
            tokens_out=sum(p.domains[m].tokens_out for p in selection.parts),
            expected_tokens=math.fsum(p.domains[m].expected_tokens for p in selection.parts),
        )
        for m, name in enumerate(selection.info.domains)
    )


def manifest_digest(manifest: DatasetManifest) -> str:
    """Return the digest over shards, counts and domains; it holds no time and no path."""
    return value_digest({"shards": manifest.shards, "ledger": manifest.ledger, "domains": manifest.domains})
