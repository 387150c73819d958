"""Is the dataset on disk what the manifests say? Everything is re-hashed and recounted from the files.

In: a run folder. Out: a `VerifyReport`: one `Check` per claim, and files that no manifest knows (they are
ignored by readers of the manifest, promise P3). Nothing is changed, and a failed check is not an exception.
Memory holds one part of the selection or the numbers of one shard, whatever the size of the dataset.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_value, value_digest
from quadmix.io.fs import file_info
from quadmix.materialise.audit import PartsFound, audit_parts
from quadmix.materialise.checks import Check, VerifyReport
from quadmix.materialise.facts import FACTS, check_facts
from quadmix.materialise.ledger import domain_tokens, make_ledger, manifest_digest
from quadmix.materialise.publish import verify_published
from quadmix.materialise.ranks import RANKS, read_ranks
from quadmix.materialise.shards import ShardsFound, audit_shards, name_differences
from quadmix.materialise.stored import INDEX
from quadmix.materialise.table import MANIFEST, SELECTION, SelectionManifest, read_manifest
from quadmix.mixing.tally import RankTable
from quadmix.types import Corpus, DatasetManifest

Watch = Callable[[int, int], None]


def verify_run(
    run_folder: str | Path, *, published: bool = False, watch: Watch | None = None
) -> VerifyReport:
    """Check manifests, selection, shards, rows, copies, order, conservation and inputs of a finished run.

    published: read the copy in the store as well. watch: told (bytes read, bytes in all) after every local
    file. InputError if there is no finished dataset.
    """
    folder = Path(run_folder)
    path = folder / "dataset" / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so there is no finished dataset; run `quadmix run` to its end"
        )
    manifest = read_value(path, DatasetManifest)
    selection = read_manifest(folder)
    corpus = read_value(folder / "corpus" / MANIFEST, Corpus)
    advance = _counter(_bytes(folder, manifest, selection), watch)
    ranks = _read_ranks(folder)
    parts = audit_parts(folder, selection, ranks, format=manifest.format, advance=advance)
    shards = audit_shards(folder, manifest, selection, whole=not parts.wrong, advance=advance)
    checks = [_check_manifest(manifest), *_check_selection(selection, parts, ranks), *shards.files]
    if shards.whole:
        checks.append(_check_counts(manifest, shards))
    if shards.whole and not parts.wrong:
        checks += _check_rows(folder, manifest, selection, parts, shards)
    checks.append(_check_ledger(manifest, corpus, selection))
    if not parts.wrong:
        checks.append(_check_draw(manifest, selection, parts))
    checks += check_facts(folder, manifest)
    checks += [_check_inputs(corpus), *(verify_published(folder) if published else ())]
    return VerifyReport(checks=tuple(checks), stray=_stray(folder, manifest, selection))


def _bytes(folder: Path, manifest: DatasetManifest, selection: SelectionManifest) -> int:
    """Return the bytes that will be read."""
    files = [folder / SELECTION / p.name for p in selection.parts]
    return sum(f.stat().st_size for f in files if f.is_file()) + sum(s.bytes for s in manifest.shards)


def _counter(total: int, watch: Watch | None) -> Callable[[int], None]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if watch:
            watch(done, total)

    return advance


def _read_ranks(folder: Path) -> RankTable | str:
    """Return ranks.parquet, or why it cannot be read."""
    try:
        return read_ranks(folder)
    except (InputError, IntegrityError) as error:
        return str(error)


def _check_manifest(manifest: DatasetManifest) -> Check:
    digest = manifest_digest(manifest)
    return Check(
        name="manifest digest", ok=digest == manifest.digest, detail=f"{digest}, recorded {manifest.digest}"
    )


def _check_selection(
    selection: SelectionManifest, parts: PartsFound, ranks: RankTable | str
) -> Iterator[Check]:
    """Check the selection in itself: its manifest, its parts, the ranks and the draw in them."""
    digest = value_digest([selection.info, list(selection.parts)])
    yield Check(
        name="selection digest",
        ok=digest == selection.digest,
        detail=f"{digest}, recorded {selection.digest}",
    )
    detail = f"{len(selection.parts)} parts re-hashed, {parts.documents:,} documents recounted"
    yield Check(name="selection parts", ok=not parts.wrong, detail="; ".join([detail, *parts.wrong[:5]]))
    if parts.wrong:
        return
    if isinstance(ranks, str):
        yield Check(name="ranks", ok=False, detail=ranks)
    else:
        other = [
            name
            for name, bins, through in zip(selection.info.domains, parts.bins, ranks.through, strict=True)
            if not np.array_equal(bins, np.diff(through))
        ]
        detail = f"{parts.misplaced:,} documents have another rank than that of their bin in {RANKS}"
        detail += f"; tokens per bin differ in {other[:5]}" if other else ""
        yield Check(name="ranks", ok=not parts.misplaced and not other, detail=detail)
    yield Check(
        name="draw",
        ok=not parts.undrawn,
        detail=f"{parts.undrawn:,} documents have other copies than their expected copies, their hash and "
        "the factor of their domain give",
    )


def _check_counts(manifest: DatasetManifest, shards: ShardsFound) -> Check:
    ledger = manifest.ledger
    if manifest.format == INDEX:  # one row per document, and no tokens in it
        detail = f"{shards.rows:,} rows in {len(manifest.shards)} shards, one per document"
        tokens = sum(s.tokens for s in manifest.shards)
        same = (shards.rows, tokens) == (ledger.selected, ledger.tokens_out)
    else:
        detail = f"{shards.rows:,} rows and {shards.tokens:,} tokens in {len(manifest.shards)} shards"
        same = (shards.rows, shards.tokens) == (ledger.copies, ledger.tokens_out)
    detail += f"; wrong: {shards.miscounted}" if shards.miscounted else ""
    return Check(name="rows and tokens recounted", ok=same and not shards.miscounted, detail=detail)


def _check_rows(
    folder: Path,
    manifest: DatasetManifest,
    selection: SelectionManifest,
    parts: PartsFound,
    shards: ShardsFound,
) -> Iterator[Check]:
    """Compare the rows with the selection: how often each document occurs, with which numbers, and where."""
    places, numbers = (
        (parts.places != shards.places).any(axis=0),
        (parts.numbers != shards.numbers).any(axis=0),
    )
    differ = np.flatnonzero(places | numbers)
    detail = f"checksums of {shards.rows:,} rows agree with the selection's"
    if len(differ):
        told = name_differences(folder, manifest, selection, differ.astype(np.int64))
        detail = (
            f"{'' if told.complete else 'at least '}{told.documents:,} documents differ from the selection, "
            f"{told.unknown_rows:,} rows are of documents that it does not select: {', '.join(told.names)}"
        )
    yield Check(name="copies per document", ok=not places.any(), detail=detail)
    # Rows too many or too few change this sum as well; it says something new only where none are.
    yield Check(name="numbers in the rows", ok=not numbers.any(), detail=detail)
    wrong = f"; not in {shards.unordered[:5]}" if shards.unordered else ""
    if manifest.order == "corpus":
        yield Check(name="order", ok=not wrong, detail=f"the order of the corpus, recomputed{wrong}")
        return
    yield Check(
        name="copies apart",
        ok=not shards.touching,
        detail=f"{shards.touching} neighbours inside shards are copies of one document without need",
    )
    yield Check(
        name="order", ok=not wrong, detail=f"the shuffle of seed {manifest.seed}, recomputed per shard{wrong}"
    )


def _check_ledger(manifest: DatasetManifest, corpus: Corpus, selection: SelectionManifest) -> Check:
    try:
        ledger = make_ledger(corpus, selection)
    except IntegrityError as error:
        return Check(name="conservation", ok=False, detail=str(error))
    same = ledger == manifest.ledger and domain_tokens(selection) == manifest.domains
    detail = (
        f"{ledger.rows_in:,} rows = {ledger.selected:,} selected + {ledger.dropped} + {ledger.quarantined}"
    )
    return Check(
        name="conservation", ok=same, detail=detail if same else f"{detail}; the manifest says otherwise"
    )


def _check_draw(manifest: DatasetManifest, selection: SelectionManifest, parts: PartsFound) -> Check:
    """Promise P10: in every domain, the drawn tokens are within one document of the expected ones."""
    gap = np.abs(parts.gap)
    over = gap > parts.longest + 1e-6
    worst = selection.info.domains[int(gap.argmax())] if len(gap) else ""
    return Check(
        name="tokens as expected",
        ok=not over.any(),
        detail=f"{manifest.ledger.tokens_out:,} tokens, asked for {manifest.token_budget:,}; the widest gap "
        f"of a domain is {gap.max(initial=0):,.0f} tokens ({worst}), at most one document each",
    )


def _check_inputs(corpus: Corpus) -> Check:
    changed: list[str] = []
    for file in corpus.files:
        try:
            same = file_info(file.path) == file
        except (InputError, FileNotFoundError):
            same = False
        if not same:
            changed.append(file.path)
    detail = f"{len(corpus.files)} input files" + (f"; changed or gone: {changed[:3]}" if changed else "")
    return Check(name="inputs unchanged", ok=not changed, detail=detail)


def _stray(folder: Path, manifest: DatasetManifest, selection: SelectionManifest) -> tuple[str, ...]:
    known = {
        "dataset": {s.name for s in manifest.shards} | {MANIFEST, "README.md", *FACTS},
        SELECTION: {p.name for p in selection.parts} | {MANIFEST, RANKS},
        "spills": set[str](),
    }
    strays = (
        path.relative_to(folder).as_posix()
        for room, names in known.items()
        for path in (folder / room).rglob("*")
        if path.is_file() and path.relative_to(folder / room).as_posix() not in names
    )
    return tuple(sorted(strays))
