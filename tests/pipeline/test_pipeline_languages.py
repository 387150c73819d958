"""Baselines per language in a run: the pass that reads the language, the comparison, what is refused."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from tiny_run import bare_table, demo_rows, tiny_recipe, write_rows

from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import read_json, read_value
from quadmix.pipeline import comparing
from quadmix.pipeline.contestants import contestants, find_common, rung_part
from quadmix.pipeline.folder import StageNotes
from quadmix.pipeline.languages import check_language_column, document_languages
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import run
from quadmix.recipe import Recipe
from quadmix.report.text import label_name
from quadmix.types import Annotations, Comparison, Corpus

BASELINES = ["random", "criteria-language", "qurating-language", "fineweb2-hq"]
PER_LANGUAGE = ["top-language:rules", "top-language:length", "qurating-language", "fineweb2-hq"]
LABELS = ["quadmix", "random", *PER_LANGUAGE]


def language_of(number: int) -> str | None:
    """Six in ten documents are English, three German, one says nothing (empty, null or no key at all)."""
    return ("en", "en", "de", "en", "de", "en", "", "en", "de", "en")[number % 10]


def multilingual(folder: Path, column: str = "lang", **changes: Any) -> Recipe:
    recipe = tiny_recipe(folder, **{"evaluate__baselines": BASELINES, **changes})
    rows = demo_rows("pool.jsonl.zst", 360)
    for number, row in enumerate(rows):
        row["length_score"] = float(len(row["text"]) % 97)
        row["text"] = row["text"][:1500]
        row["number"] = number
        code = language_of(number)
        if code or number % 20 == 6:
            row[column] = code or None
    write_rows(folder / "pool-a.jsonl", rows[:200])
    write_rows(folder / "pool-b.jsonl", rows[200:])
    return recipe


def expected_languages(folder: Path) -> dict[str, str]:
    """Id -> language, from the files themselves."""
    lines = [line for name in "ab" for line in (folder / f"pool-{name}.jsonl").read_bytes().splitlines()]
    return {r["id"]: language_of(r["number"]) or "" for r in map(orjson.loads, lines)}


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, list[Any]]:
    """A whole run, and what its rung's selectors were given and chose."""
    folder = tmp_path_factory.mktemp("languages")
    recipe, seen = multilingual(folder), list[Any]()

    def watched(job: Any, mix: Any, pool: Any, plan: Any, confirmation: Any, prepared: Any) -> Any:
        found = contestants(job, mix, pool, plan, confirmation, prepared)
        seen.append((mix, pool, rung_part(job.recipe, mix, plan), found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "contestants", watched)
        run(recipe, until="evaluate", progress=Progress(quiet=True))
    return folder, recipe, seen


def test_baselines_per_language_take_part_at_the_same_budget(done: tuple[Path, Recipe, list[Any]]) -> None:
    folder, _, _ = done
    base = read_value(folder / "runs/tiny/evaluate/comparison.json", Comparison).rungs[0]
    assert [m.label for m in sorted(base.measured, key=lambda m: LABELS.index(m.label))] == LABELS
    assert base.left_out == {}
    budgets = [m.selected_tokens for m in base.measured]
    assert max(budgets) < 1.3 * min(budgets)  # within one document per domain of a budget of few documents


def test_the_pages_name_them_in_words() -> None:
    said = [label_name(label) for label in PER_LANGUAGE]
    assert said == ["top rules per language", "top length per language", "QuRating per language",
                    "FineWeb2-HQ style"]  # fmt: skip


def test_every_language_gets_its_part_of_the_selections(done: tuple[Path, Recipe, list[Any]]) -> None:
    """Copies in the jobs, joined with the languages in the files: shares of the rung's pool, by hand."""
    folder, _, seen = done
    language = expected_languages(folder)
    mix, pool, part, found = seen[0]
    rows = pool.rows  # of all annotations
    codes = [language[str(i)] for i in mix.full.doc_id.take(rows).to_pylist()]
    tokens = mix.full.tokens[rows].astype(np.int64).tolist()
    pooled = Counter[str]()
    for name, size in zip(part.table.doc_id.to_pylist(), part.table.tokens.tolist(), strict=True):
        pooled[language[name]] += size
    cuts = [job for job in found.jobs if job.label.startswith("top-language")]
    assert len(cuts) == 4
    for job in cuts:
        total = Counter[str]()
        for code, size, copies in zip(codes, tokens, job.copies.tolist(), strict=True):
            total[code] += size * copies
        for code in ("", "de", "en"):
            due = part.budget * pooled[code] / sum(pooled.values())
            assert abs(total[code] - due) <= max(tokens), (job.label, code)


def test_documents_without_a_language_are_counted_and_named(done: tuple[Path, Recipe, list[Any]]) -> None:
    folder, _, seen = done
    mix = seen[0][0]
    language = expected_languages(folder)
    counts = Counter(language[str(i)] for i in mix.whole.table.doc_id.to_pylist())
    notes = read_json(folder / "runs/tiny/stages/evaluate.json")
    assert notes["facts"]["languages"] == {"column": "lang", "documents": dict(sorted(counts.items()))}
    assert any(
        w.startswith(f"{counts['']:,} of {sum(counts.values()):,} documents say no language in the column")
        for w in notes["warnings"]
    )


def test_the_same_command_again_reads_no_language_and_trains_nothing(
    done: tuple[Path, Recipe, list[Any]],
) -> None:
    folder, recipe, _ = done
    home = folder / "runs/tiny/evaluate"
    before = {f: f.stat().st_mtime_ns for f in [*home.rglob("compare-*"), *home.rglob("part-*.parquet")]}
    text = (home / "comparison.json").read_bytes()
    run(recipe, until="evaluate", progress=Progress(quiet=True))
    after = {f: f.stat().st_mtime_ns for f in [*home.rglob("compare-*"), *home.rglob("part-*.parquet")]}
    assert after == before
    assert (home / "comparison.json").read_bytes() == text


def test_a_corpus_without_a_language_is_refused_before_it_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quadmix.pipeline.stages.plan_progress", lambda job: None)  # saves a measurement
    with pytest.raises(InputError, match=r"'criteria-language' \(rung 'base'\) selects language by language"):
        run(multilingual(tmp_path, column="tongue"), until="evaluate", progress=Progress(quiet=True))
    assert not (tmp_path / "runs/tiny/annotations").exists()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus, Annotations]:
    folder = tmp_path_factory.mktemp("pass")
    corpus = open_corpus(multilingual(folder).corpus, str(folder / "run"), mapper=serial)
    return folder, corpus, bare_table(corpus)


def test_the_refusal_names_rung_column_and_remedy(opened: tuple[Path, Corpus, Annotations]) -> None:
    folder, corpus, _ = opened
    silent = replace(corpus, columns=replace(corpus.columns, language=None))
    wide = {"name": "wide", "model": {"width": 32}, "baselines": ["qurating-language", "fineweb2-hq"]}
    recipe = multilingual(folder, evaluate__baselines=["random"], evaluate__ladder=[wide])
    says = (
        r"'qurating-language' \(rung 'wide'\) .* called language or lang; name the column in "
        "corpus.columns.language, or leave out qurating-language, fineweb2-hq"
    )
    with pytest.raises(InputError, match=says):
        check_language_column(recipe, silent)
    check_language_column(recipe, corpus)
    check_language_column(multilingual(folder, evaluate__baselines=["random", "criteria"]), silent)
    check_language_column(multilingual(folder, evaluate__enabled=False), silent)


def test_every_row_gets_the_language_of_its_own_document(
    opened: tuple[Path, Corpus, Annotations], tmp_path: Path
) -> None:
    folder, corpus, table = opened
    language = expected_languages(folder)
    assert len(corpus.splits) > 3
    for rows in (np.arange(len(table)), np.flatnonzero(np.arange(len(table)) % 3 != 1)):
        part = table.take(rows)
        found = document_languages(corpus, part, tmp_path, mapper=serial)
        assert found.names == ("", "de", "en")
        assert [found.names[c] for c in found.code] == [language[i] for i in part.doc_id.to_pylist()]


def test_an_interrupted_pass_reads_the_rest_alone(
    opened: tuple[Path, Corpus, Annotations], tmp_path: Path
) -> None:
    _, corpus, table = opened
    read: list[int] = []

    def stopping(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        read.append(len(tasks))
        for task in tasks[:2] if len(read) == 1 else tasks:
            function(task)
        if len(read) == 1:
            raise KeyboardInterrupt
        return []

    with pytest.raises(KeyboardInterrupt):
        document_languages(corpus, table, tmp_path, mapper=stopping)
    resumed = document_languages(corpus, table, tmp_path, mapper=stopping)
    whole = document_languages(corpus, table, tmp_path / "whole", mapper=serial)
    assert read == [len(corpus.splits), len(corpus.splits) - 2]
    np.testing.assert_array_equal(resumed.code, whole.code)
    keys = table.keys.copy()
    keys[5] += 1
    with pytest.raises(IntegrityError, match="annotated documents; the file changed since"):
        document_languages(corpus, replace(table, keys=keys), tmp_path, mapper=serial)


def test_a_column_of_something_else_costs_the_baselines_that_need_it(
    opened: tuple[Path, Corpus, Annotations], tmp_path: Path
) -> None:
    """A number per document is no language; the comparison goes on without them, and says why."""
    folder, corpus, table = opened
    numbered = replace(corpus, columns=replace(corpus.columns, language="number"))
    recipe = multilingual(folder)
    job: Any = SimpleNamespace(recipe=recipe, path=tmp_path.joinpath)
    mix: Any = SimpleNamespace(whole=SimpleNamespace(table=table))
    unused: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quadmix.pipeline.languages.MAX_LANGUAGES", len(table) - 1)
        found = find_common(job, numbered, mix, unused, unused, StageNotes(), serial)
    assert found.languages is None
    assert sorted(found.unable) == sorted(PER_LANGUAGE)
    assert "column 'number' has 360 values, more than 359, which are not" in found.unable["fineweb2-hq"]
    notes = StageNotes()
    assert find_common(job, corpus, mix, unused, unused, notes, serial).languages is not None
    assert notes.facts["languages"]["documents"] == {"": 36, "de": 108, "en": 216}
    assert [w.split(" documents")[0] for w in notes.warnings] == ["36 of 360"]
