"""A small finished run up to the selection: two files, two criteria, three domains, one bad row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.io.atomic import write_json, write_table
from quadmix.materialise.ranks import write_ranks
from quadmix.materialise.table import SelectedSplit, SelectionInfo, write_manifest, write_part
from quadmix.materialise.write import materialise
from quadmix.mixing.normalise import fit_normaliser, normalise
from quadmix.mixing.rank import RankMode
from quadmix.mixing.select import select
from quadmix.mixing.settle import BINS, count_fractions, factor_of, inside, ratios, window
from quadmix.mixing.tally import rank_table, tally
from quadmix.recipe import CorpusSection, MaterialiseSection
from quadmix.rng import doc_keys
from quadmix.types import (
    Annotations,
    Confirmation,
    Corpus,
    CriterionInfo,
    DatasetManifest,
    Ranks,
    Selection,
    Theta,
)

SIZE = 150
DOMAINS = ("arts", "code", "law")
CRITERIA = (
    CriterionInfo(name="edu", declared="higher", kind="column", digest="aa"),
    CriterionInfo(name="noise", declared="lower", kind="heuristic", digest="bb"),
)


def serial(function: Callable[[Any], Any], tasks: Any) -> list[Any]:
    return [function(t) for t in tasks]


def documents(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        {
            "id": f"doc-{i}",
            "text": f"Text of {i} é\u2028 " + "word " * int(rng.integers(1, 40)),
            "label": DOMAINS[int(rng.integers(3))],
            "edu": None if i % 17 == 3 else round(float(rng.normal()), 1),
            "noise": float(rng.random()),
            "meta": {"tags": ["x", str(i)], "n": i},
        }
        for i in range(n)
    ]


def write_inputs(folder: Path, docs: list[dict[str, Any]], *, bad: bool = True) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    half = len(docs) // 2
    broken = b'{"id": "broken", "text": \n' if bad else b""
    lines = [orjson.dumps(d) + b"\n" for d in docs]
    (folder / "a.jsonl").write_bytes(b"".join(lines[:half]) + broken)
    (folder / "b.jsonl").write_bytes(b"".join(lines[half:]))
    return [str(folder / "a.jsonl"), str(folder / "b.jsonl")]


def annotate(corpus: Corpus, docs: list[dict[str, Any]], folder: Path) -> Annotations:
    """Annotate as the room `annotate` does: parts on disk as delivered, the table with smaller = better."""
    counts = [c.documents for c in corpus.counts]
    order = list(docs)
    edu = np.array([np.nan if d["edu"] is None else d["edu"] for d in order], dtype=np.float32)
    noise = np.array([d["noise"] for d in order], dtype=np.float32)
    ids = [d["id"] for d in order]
    tokens = np.array([len(d["text"]) // 4 for d in order], dtype=np.int32)
    start = 0
    for split, size in enumerate(counts):
        rows = slice(start, start + size)
        part = pa.table(
            {
                "doc_id": ids[rows],
                "tokens": tokens[rows],
                "domain": [d["label"] for d in order[rows]],
                "score:edu": edu[rows],
                "score:noise": noise[rows],
            }
        )
        write_table(folder / "annotations" / f"part-{split:05d}.parquet", part)
        start += size
    return Annotations(
        doc_id=pa.chunked_array([ids]),
        keys=doc_keys(ids),
        tokens=tokens,
        domain=np.array([DOMAINS.index(d["label"]) for d in order], dtype=np.int16),
        scores=np.column_stack([-edu, noise]),
        held_out=np.array([d["text"].split()[2].endswith("7") for d in order]),
        split=np.repeat(np.arange(len(counts)), counts).astype(np.int32),
        criteria=CRITERIA,
        domains=DOMAINS,
    )


THETA = Theta(
    weights=np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]),
    steepness=np.array([20.0, 100.0, 5.0]),
    cutoff=np.array([0.4, 0.6, 0.3]),
    exponent=np.array([1.0, 2.0, 0.5]),
    floor=np.array([0.02, 0.0, 0.1]),
)


def by_corpus(corpus: Corpus, docs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give documents the ids that the corpus made for them."""
    ids = [i for split in corpus.splits for b in read_documents(corpus, split) for i in b.doc_id]
    return [d | {"id": i} for d, i in zip(docs, ids, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that is ready for `materialise`."""

    folder: Path
    corpus: Corpus
    annotations: Annotations
    docs: list[dict[str, Any]]
    expected_tokens: int

    def write(self, **changes: Any) -> DatasetManifest:
        settings: dict[str, Any] = {
            "section": MaterialiseSection(shard_bytes=3000),
            "seed": 7,
            "budget": self.expected_tokens,
            "identity": "id-1",
            "theta_label": "proposal",
            "mapper": serial,
        }
        return materialise(self.corpus, self.folder, **(settings | changes))


def build_run(
    folder: Path,
    inputs: list[str],
    docs: list[dict[str, Any]],
    *,
    theta: Theta = THETA,
    split_bytes: int = 5000,
    rank_mode: RankMode = "interval",
) -> Run:
    section = CorpusSection(paths=inputs, split_bytes=split_bytes)
    corpus = open_corpus(section, str(folder), mapper=serial)
    docs = by_corpus(corpus, docs)
    annotations = annotate(corpus, docs, folder)
    excluded = np.where(annotations.held_out, 1, 0).astype(np.int8)
    excluded[[d["text"].startswith("Text of 5 ") for d in docs].index(True)] = 2
    table = annotations.take(excluded == 0)
    normaliser = fit_normaliser(table, "rank-global")
    norms = normalise(normaliser, table.scores, table.domain)
    selection = select(theta, norms, table, seed=3, rank_mode=rank_mode)
    write_parts(folder, annotations, excluded, selection, rank_mode=rank_mode)
    write_json(folder / "normaliser.json", normaliser)
    confirmation = Confirmation(
        winner="proposal", theta=theta, confirmed=True, reason="", measured=(), against=()
    )
    write_json(folder / "search" / "confirm.json", confirmation)
    tokens = int(table.tokens @ selection.expected)
    return Run(folder=folder, corpus=corpus, annotations=annotations, docs=docs, expected_tokens=tokens)


def write_parts(
    folder: Path,
    annotations: Annotations,
    excluded: NDArray[np.int8],
    selection: Selection,
    seed: int = 3,
    rank_mode: RankMode = "interval",
) -> None:
    """Write selection/ as the streaming selection does; `selection` is of the rows that are not excluded."""
    chosen = annotations.take(excluded == 0)
    info = SelectionInfo(
        criteria=annotations.criteria, domains=annotations.domains, seed=seed, rank_mode=rank_mode,
        key="key-1", factors=factors(selection, chosen, seed),
    )  # fmt: skip
    parts: list[SelectedSplit] = []
    for split in np.unique(annotations.split):
        mine, theirs = annotations.split == split, chosen.split == split
        parts.append(
            write_part(
                folder, annotations.take(mine), info=info, split=int(split), excluded=excluded[mine],
                reasons=("held_out", "missing_score"), selection=rows_of(selection, theirs),
            )
        )  # fmt: skip
    mine = [chosen.domain == m for m in range(len(annotations.domains))]
    ranks = rank_table([tally(selection.merged[rows], chosen.tokens[rows]) for rows in mine])
    write_ranks(folder, ranks, annotations.domains)
    write_manifest(folder, info, parts)


def factors(selection: Selection, chosen: Annotations, seed: int) -> tuple[float, ...]:
    found: list[float] = []
    for m in range(len(chosen.domains)):
        rows = chosen.domain == m
        expected, keys, tokens = selection.expected[rows], chosen.keys[rows], chosen.tokens[rows]
        bins = np.zeros(BINS, dtype=np.int64)
        open_ = count_fractions(
            expected, keys, tokens, np.zeros(len(keys), np.int16), num_domains=1, seed=seed
        )[0]
        bins[open_.bins] = open_.tokens
        around = window(bins, open_.wanted)
        near = inside(around, ratios(expected, keys, seed=seed)[1], tokens) if around else ((), ())
        found.append(factor_of(around, *near))
    return tuple(found)


def rows_of(selection: Selection, rows: NDArray[np.bool_]) -> Selection:
    return Selection(
        normalised=selection.normalised[rows],
        merged=selection.merged[rows],
        ranks=Ranks(low=selection.ranks.low[rows], high=selection.ranks.high[rows]),
        expected=selection.expected[rows],
        copies=selection.copies[rows],
    )
