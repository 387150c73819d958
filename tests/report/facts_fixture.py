"""Adds to a run folder of report_fixture what is counted besides: sources, languages, repeated texts, log,
rows in quarantine. All totals agree with the fixture's manifest. `nasty` names attack HTML, SVG and CSV.
"""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from report_fixture import ATTACK, CRITERIA

from quadmix.io.atomic import read_value, write_json, write_table
from quadmix.types import DatasetManifest
from quadmix.types.facts import (
    Concentration,
    DuplicateFacts,
    LanguageCell,
    LanguageFacts,
    LanguageRow,
    SourceCount,
    SourceFacts,
    TextGroup,
)

COUNTS = ("documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out")
LANGUAGES = ("en", "de", "日本語", "")
CUTS = (0.05, 0.1, 0.2, 0.5)
BEGIN = 1_700_000_000.0


def add_facts(folder: Path, *, nasty: bool = False) -> Path:
    """Write all of it and return the folder."""
    manifest = read_value(folder / "dataset/manifest.json", DatasetManifest)
    name = ATTACK if nasty else "www"
    write_json(folder / "dataset/sources.json", source_facts(manifest, name))
    write_json(folder / "dataset/languages.json", language_facts(manifest, name if nasty else "en"))
    write_json(folder / "dataset/duplicates.json", duplicate_facts(manifest, name))
    write_log(folder, EVENTS)
    rows = {
        "path": [
            "/data/pool/a.jsonl",
            "/data/pool/a.jsonl",
            f"/data/pool/{'' if nasty else 'b.jsonl'}{name}",
        ],
        "row": [3, 9, 11],
        "offset": [10, 20, None],
        "reason": ["invalid_json", "invalid_json", "empty_text"],
        "data": [b"{", b"{", b"secret text"],
    }
    write_table(folder / "quarantine/part-00000.parquet", pa.table(rows))
    return folder


def split_up(manifest: DatasetManifest, weights: np.ndarray) -> list[dict[str, int]]:
    """Share the totals of the manifest out; the last one takes what is left over."""
    totals = {k: sum(getattr(d, k) for d in manifest.domains) for k in COUNTS}
    rows = [{k: int(n * w / weights.sum()) for k, n in totals.items()} for w in weights]
    for k, n in totals.items():
        rows[-1][k] += n - sum(r[k] for r in rows)
    return rows


def source_facts(manifest: DatasetManifest, name: str) -> SourceFacts:
    """Thirty sources of very different sizes."""
    rows = split_up(manifest, 0.8 ** np.arange(30))
    flatter = split_up(manifest, 0.88 ** np.arange(30) * np.where(np.arange(30) % 7 == 3, 2.0, 1.0))
    for row, other in zip(rows, flatter, strict=True):
        row |= {k: other[k] for k in COUNTS if k not in ("documents_in", "tokens_in")}
    top = tuple(SourceCount(source=f"{name}{i}.example", **r) for i, r in enumerate(rows))
    sides = [
        Concentration(
            sources=30, documents=sum(r[d] for r in rows), tokens=sum(r[t] for r in rows),
            effective=sum(r[t] for r in rows) ** 2 / sum(r[t] ** 2 for r in rows), gini=gini,
            largest=max(r[t] for r in rows) / sum(r[t] for r in rows),
        )
        for d, t, gini in (("documents_in", "tokens_in", 0.71), ("documents_out", "tokens_out", 0.42))
    ]  # fmt: skip
    return SourceFacts(
        plan="p", column="url", reason="", unnamed=SourceCount(source="", **dict.fromkeys(COUNTS, 0)),
        before=sides[0], after=sides[1],
        top=tuple(sorted(top, key=lambda s: (-s.tokens_out, -s.tokens_in, s.source))),
    )  # fmt: skip


def language_facts(manifest: DatasetManifest, first: str) -> LanguageFacts:
    """Four languages, of which one is rated worse than the others."""
    names = (first, *LANGUAGES[1:])
    rows = split_up(manifest, np.array([8.0, 4.0, 2.0, 1.0]))
    languages = tuple(
        LanguageRow(
            language=n, **r, selectable_tokens=r["tokens_in"],
            within=tuple(int(r["tokens_in"] * min(1.0, c * f)) for c in CUTS),
            known=(100, 90, 0 if i == 3 else 80), mean=(0.4, 0.5, float("nan") if i == 3 else 0.45 + 0.2 * i),
        )
        for i, (n, r, f) in enumerate(zip(names, rows, (1.2, 0.9, 0.4, 1.0), strict=True))
    )  # fmt: skip
    cells = tuple(
        LanguageCell(language=n, domain=d.domain, tokens_in=d.tokens_in // 4, tokens_out=d.tokens_out // 4)
        for n in names
        for d in manifest.domains
    )
    return LanguageFacts(
        plan="p", column="language", reason="", criteria=CRITERIA, cuts=CUTS, languages=languages, cells=cells
    )


def duplicate_facts(manifest: DatasetManifest, name: str) -> DuplicateFacts:
    """A tenth of the unique tokens are in groups of the same text."""
    ledger = manifest.ledger
    unique, out = ledger.unique_tokens, ledger.tokens_out
    group = unique // 10
    return DuplicateFacts(
        plan="p", reason="", documents=ledger.selected, texts=ledger.selected - 3, unique_tokens=unique,
        tokens_out=out, text_tokens=unique - group // 2, groups=2, grouped=5, group_tokens=group,
        group_tokens_out=min(out, 2 * group), repeated_tokens=group // 2,
        top=(
            TextGroup(ids=(f"{name}-a", "b", "c"), documents=3, copies=7, tokens=40, tokens_out=280),
            TextGroup(ids=("d", "e"), documents=2, copies=2, tokens=12, tokens_out=24),
        ),
    )  # fmt: skip


def event(at: float, kind: str, **more: object) -> dict[str, object]:
    return {"time": BEGIN + at, "event": kind, **more}


# A first process that is killed in the swarm, a day later a second one that ends well.
EVENTS: list[object] = [
    event(0, "open", workers=4, executor="processes", device="cpu"),
    event(0, "start", stage="corpus"),
    event(2, "end", stage="corpus"),
    event(2, "start", stage="annotate"),
    event(10, "step", stage="annotate", step="annotate", unit="pieces", units=9, documents=4000,
          tokens=90_000, seconds=8.0, failed=0, retried=0),
    event(12, "end", stage="annotate"),
    event(12, "start", stage="swarm"),
    event(72, "alive", stage="swarm"),
    "torn",
    event(86_400, "open", workers=2, executor="processes", device="cpu"),
    event(86_400, "start", stage="corpus"),
    event(86_401, "end", stage="corpus"),
    event(86_401, "start", stage="swarm"),
    event(86_420, "step", stage="swarm", step="swarm 2", unit="models", units=6, documents=0, tokens=600_000,
          seconds=18.0, failed=2, retried=3),
    event(86_421, "end", stage="swarm"),
    event(86_422, "start", stage="report"),
]  # fmt: skip


def write_log(folder: Path, events: list[object]) -> None:
    """Write events.jsonl; text that is no event is a torn line."""
    lines = [e.encode() if isinstance(e, str) else orjson.dumps(e) for e in events]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
