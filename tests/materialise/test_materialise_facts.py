"""Sources, languages and repeated texts, counted while the text is copied, against plain loops."""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from materialise_run import Run, build_run, documents, serial, write_inputs

from quadmix.corpus.scan import open_corpus
from quadmix.io.atomic import read_value, write_json
from quadmix.materialise import duplicates, gather, languages, sources
from quadmix.materialise.facts import FACTS
from quadmix.materialise.gather import normalised, source_name
from quadmix.materialise.sources import bucket_tasks, gini
from quadmix.materialise.spill import spill_split
from quadmix.materialise.table import read_selection
from quadmix.materialise.verify import verify_run
from quadmix.recipe import CorpusSection, MaterialiseSection
from quadmix.recipe.sections import Columns
from quadmix.types.facts import DuplicateFacts, LanguageFacts, SourceFacts

HOSTS = ("a.example", "b.example", "c.example", "sub.a.example")
LANGUAGES = ("en", "de", "fr", None)


def rich(n: int = 150) -> list[dict[str, Any]]:
    """Documents with a URL, a language, and texts of which some are the same but for case and white space."""
    rng = np.random.default_rng(11)
    docs = documents(n)
    for i, doc in enumerate(docs):
        host = HOSTS[min(int(rng.exponential(0.8)), 3)]
        url = f"https://user:secret@www.{host}:8080/page/{i}?q=1" if i % 3 else f"HTTP://{host.upper()}/{i}"
        doc["url"] = None if i % 19 == 4 else url
        doc["language"] = LANGUAGES[int(rng.integers(4))]
        if i % 5 == 1:
            other = docs[i - 1]["text"]
            doc["text"] = other.upper().replace(" ", "\n ") if i % 2 else other
    return docs


def make(folder: Path, *, kind: str = "jsonl", split_bytes: int = 5000, drop: Sequence[str] = ()) -> Run:
    docs = [{k: v for k, v in d.items() if k not in drop} for d in rich()]
    if kind == "jsonl":
        inputs = write_inputs(folder / "in", docs)
    else:
        (folder / "in").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(docs), folder / "in/a.parquet", row_group_size=40)
        inputs = [str(folder / "in/a.parquet")]
    return build_run(folder / "run", inputs, docs, split_bytes=split_bytes)


def read(run: Run) -> tuple[SourceFacts, LanguageFacts, DuplicateFacts]:
    folder = run.folder / "dataset"
    return (
        read_value(folder / "sources.json", SourceFacts),
        read_value(folder / "languages.json", LanguageFacts),
        read_value(folder / "duplicates.json", DuplicateFacts),
    )


def texts_of(run: Run) -> dict[str, bytes]:
    return {name: (run.folder / "dataset" / name).read_bytes() for name in FACTS}


def rows_of(run: Run) -> list[dict[str, Any]]:
    """Every document with what the selection says of it."""
    table = read_selection(run.folder)
    ranks = (table.ranks.low + table.ranks.high) / 2
    return [
        {
            **doc, "tokens": int(table.tokens[i]), "copies": int(table.copies[i]), "rank": float(ranks[i]),
            "domain": table.info.domains[table.domain[i]], "norms": table.norms[i], "open": bool(open_),
        }
        for i, (doc, open_) in enumerate(zip(run.docs, table.selectable.tolist(), strict=True))
    ]  # fmt: skip


def host_of(doc: dict[str, Any]) -> str:
    return "" if doc["url"] is None else next(h for h in reversed(HOSTS) if h in doc["url"].lower())


def brute_gini(values: list[int]) -> float:
    total = sum(values) * len(values)
    return sum(abs(a - b) for a in values for b in values) / (2 * total)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("order", ["shuffled", "corpus"])
def test_sources_are_those_of_a_plain_count(tmp_path: Path, kind: str, order: Any):
    run = make(tmp_path, kind=kind)
    run.write(section=MaterialiseSection(order=order, shard_bytes=3000))
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    documents_in: Counter[str] = Counter()
    unique: Counter[str] = Counter()
    for row in rows_of(run):
        host = host_of(row)
        before[host] += row["tokens"]
        after[host] += row["tokens"] * row["copies"]
        unique[host] += row["tokens"] * (row["copies"] > 0)
        documents_in[host] += 1
    facts = read(run)[0]
    assert (facts.column, facts.reason) == ("url", "")
    for row in (*facts.top, facts.unnamed):
        counts = (row.documents_in, row.tokens_in, row.unique_tokens, row.tokens_out)
        assert counts == tuple(c[row.source] for c in (documents_in, before, unique, after))
    assert {row.source for row in facts.top} == set(HOSTS)
    for side, counts in ((facts.before, before), (facts.after, after)):
        values = [n for host, n in counts.items() if host and n]
        assert side.sources == len(values)
        assert side.tokens == sum(values)
        assert side.effective == pytest.approx(sum(values) ** 2 / sum(v * v for v in values))
        assert side.largest == pytest.approx(max(values) / sum(values))
        assert side.gini == pytest.approx(brute_gini(values), abs=4e-4)
    assert verify_run(run.folder).ok
    assert verify_run(run.folder).stray == ()


def test_repeated_texts_are_those_of_a_plain_count(tmp_path: Path):
    run = make(tmp_path)
    run.write()
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of(run):
        if row["copies"]:
            groups[" ".join(row["text"].lower().split())].append(row)
    many = [g for g in groups.values() if len(g) > 1]
    facts = read(run)[2]

    def out(rows: list[dict[str, Any]]) -> int:
        return sum(r["tokens"] * r["copies"] for r in rows)

    assert len(many) > 2
    assert facts.documents == sum(map(len, groups.values()))
    assert (facts.texts, facts.groups, facts.grouped) == (len(groups), len(many), sum(map(len, many)))
    assert facts.tokens_out == sum(map(out, groups.values()))
    assert facts.text_tokens == sum(g[0]["tokens"] for g in groups.values())
    assert facts.group_tokens == sum(r["tokens"] for g in many for r in g)
    assert facts.group_tokens_out == sum(map(out, many))
    assert facts.repeated_tokens == sum(r["tokens"] for g in many for r in g[1:])
    shown = {g.ids: (g.documents, g.copies, g.tokens, g.tokens_out) for g in facts.top}
    expected = {
        tuple(r["id"] for r in g): (len(g), sum(r["copies"] for r in g), g[0]["tokens"], out(g)) for g in many
    }
    assert shown.items() <= expected.items()
    copies = [g.copies for g in facts.top]
    assert copies == sorted(copies, reverse=True)
    assert copies == sorted((c for _, c, _, _ in expected.values()), reverse=True)[: len(copies)]


def test_languages_are_those_of_a_plain_count(tmp_path: Path):
    run = make(tmp_path)
    run.write()
    rows, facts = rows_of(run), read(run)[1]
    assert facts.column == "language"
    assert {r.language for r in facts.languages} == {"en", "de", "fr", ""}
    tokens = [r.tokens_in for r in facts.languages]
    assert tokens == sorted(tokens, reverse=True)
    for row in facts.languages:
        mine = [r for r in rows if (r["language"] or "") == row.language]
        usable = [r for r in mine if r["open"]]
        assert row.documents_in == len(mine)
        assert row.tokens_out == sum(r["tokens"] * r["copies"] for r in mine)
        assert row.selectable_tokens == sum(r["tokens"] for r in usable)
        for cut, within in zip(facts.cuts, row.within, strict=True):
            assert within == sum(r["tokens"] for r in usable if r["rank"] <= cut)
        norms = np.array([r["norms"] for r in usable], dtype=np.float64)
        assert row.known == tuple((~np.isnan(norms)).sum(axis=0).tolist())
        np.testing.assert_allclose(row.mean, np.nanmean(norms, axis=0))
    cells = {(c.language, c.domain): (c.tokens_in, c.tokens_out) for c in facts.cells}
    for (language, domain), found in cells.items():
        mine = [r for r in rows if (r["language"] or "") == language and r["domain"] == domain]
        assert found == (sum(r["tokens"] for r in mine), sum(r["tokens"] * r["copies"] for r in mine))
    assert sum(t for t, _ in cells.values()) == sum(r["tokens"] for r in rows)


def backwards(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """Two workers that take the last task first."""
    with ThreadPoolExecutor(2) as pool:
        return list(reversed(list(pool.map(function, reversed(list(tasks))))))


def test_workers_and_ranges_of_hashes_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    one.write()
    asked: list[int] = []

    def small(work: str, splits: Sequence[int], suffix: str) -> list[Any]:
        tasks = bucket_tasks(work, splits, suffix, rows=3)
        asked.append(len(tasks))
        return tasks

    monkeypatch.setattr(sources, "bucket_tasks", small)
    monkeypatch.setattr(duplicates, "bucket_tasks", small)
    two.write(mapper=backwards)
    assert min(asked) >= 4
    assert texts_of(one) == texts_of(two)


def test_other_splits_give_the_same_counts(tmp_path: Path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", split_bytes=60_000)
    one.write()
    two.write()
    (a, b, c), (x, y, z) = read(one), read(two)
    assert (a.before, a.after, a.top, a.unnamed) == (x.before, x.after, x.top, x.unnamed)
    assert [(r.language, r.tokens_in, r.within, r.known) for r in b.languages] == [
        (r.language, r.tokens_in, r.within, r.known) for r in y.languages
    ]
    assert (c.top, c.repeated_tokens) == (z.top, z.repeated_tokens)


def test_a_stopped_run_goes_on_to_the_same_bytes_even_from_splits_that_counted_nothing(tmp_path: Path):
    whole, other = make(tmp_path / "one"), make(tmp_path / "two")
    whole.write()

    def stopping(function: Any, tasks: Any) -> list[Any]:
        results = serial(function, tasks)
        if function is spill_split:
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        other.write(mapper=stopping)
    (facts,) = other.folder.glob("spills/*/facts-*")
    left = sorted(facts.glob("part-0000[0-2]*"))
    assert len(left) >= 8
    for path in left:
        path.unlink()
    other.write()
    assert texts_of(whole) == texts_of(other)
    assert not (other.folder / "spills").exists()


def test_a_file_says_why_it_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bare = make(tmp_path / "bare", drop=("url", "language"))
    bare.write()
    found = read(bare)
    assert "none of the columns url, source_domain, host, source" in found[0].reason
    assert "corpus.columns.language" in found[1].reason
    assert (found[0].top, found[1].languages, found[2].reason) == ((), (), "")
    assert found[2].documents > 0
    assert verify_run(bare.folder).ok
    index = make(tmp_path / "index")
    index.write(section=MaterialiseSection(format="index"))
    assert all("index" in facts.reason for facts in read(index))
    assert verify_run(index.folder).ok
    monkeypatch.setattr(languages, "MAX_LANGUAGES", 3)
    many = make(tmp_path / "many")
    many.write()
    assert "more than 3 values" in read(many)[1].reason
    monkeypatch.setattr(gather, "MAX_LANGUAGES", 2)
    more = make(tmp_path / "more")
    more.write()
    assert "more than 3 values" in read(more)[1].reason


def test_verify_finds_a_changed_number_and_the_facts_of_another_dataset(tmp_path: Path):
    run = make(tmp_path / "one")
    manifest = run.write()
    path = run.folder / "dataset" / "sources.json"
    kept = path.read_bytes()
    data = json.loads(kept)
    data["before"]["tokens"] += 1
    path.write_text(json.dumps(data))
    details = {c.name: c.detail for c in verify_run(run.folder).checks if not c.ok}
    assert set(details) == {"sources.json"}
    assert "digest" in details["sources.json"]
    assert f"tokens in {manifest.ledger.tokens_in + 1}, expected" in details["sources.json"]
    path.write_bytes(kept.replace(manifest.plan.encode(), b"0" * len(manifest.plan)))
    assert not next(c for c in verify_run(run.folder).checks if c.name == "sources.json").ok
    path.unlink()
    assert not next(c for c in verify_run(run.folder).checks if c.name == "sources.json").ok
    write_json(run.folder / "dataset/manifest.json", dataclasses.replace(manifest, version=1))
    assert verify_run(run.folder).ok  # a dataset from before there were such files


def test_a_column_named_later_is_counted_and_the_corpus_stays_the_same(tmp_path: Path):
    run = make(tmp_path)
    section = CorpusSection(
        paths=[f.path for f in run.corpus.files], split_bytes=5000, columns=Columns(source="label")
    )
    corpus = open_corpus(section, str(run.folder), mapper=serial)
    assert (corpus.digest, corpus.counts) == (run.corpus.digest, run.corpus.counts)
    assert (corpus.columns.source, run.corpus.columns.source) == ("label", "url")
    dataclasses.replace(run, corpus=corpus).write()
    assert {row.source for row in read(run)[0].top} == {"arts", "code", "law"}


def test_names_of_sources():
    cases = {
        "https://www.Example.org/a?b#c": "example.org", "http://u:p@host:80/x": "host",
        "s3://bucket/key": "bucket", "http://[2001:DB8::1]:80/": "[2001:db8::1]",
        "example.org/a": "example.org/a",
        " CommonCrawl ": "CommonCrawl", "file:///home/me": "", "": "",
    }  # fmt: skip
    assert {value: source_name(value) for value in cases} == cases
    assert [source_name(v) for v in (None, float("nan"), True, 7, b"x", ["a"])] == ["", "", "", "7", "x", ""]
    assert len(source_name("x" * 5000)) == 200


def test_texts_differ_by_more_than_case_and_white_space():
    assert normalised("A  b\n\tC ") == normalised("a B c") != normalised("ab c")
    assert normalised(b"A\xff") == "a\ufffd"


def test_gini_of_many_sizes_is_close_to_the_exact_one():
    rng = np.random.default_rng(0)
    values = rng.lognormal(12, 2, 500).astype(np.int64)
    bins = [sources._bins(part) for part in np.split(values, 5)]  # pyright: ignore[reportPrivateUsage]
    exact = brute_gini(values.tolist())
    assert exact - 3e-4 <= gini(bins) <= exact + 1e-12
    assert gini([sources._bins(np.array([5, 5, 0, 5]))]) == pytest.approx(0)  # pyright: ignore[reportPrivateUsage]
    assert np.isnan(gini([]))
