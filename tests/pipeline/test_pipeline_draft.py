"""`quadmix init`: it recognises whose column names these are, says so, and writes a recipe that loads."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quadmix.corpus.scan import open_corpus
from quadmix.errors import InputError
from quadmix.pipeline.draft import write_draft
from quadmix.recipe import Recipe, load_recipe

DCLM_SCORE = "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob"
Rows = list[dict[str, Any]]


def rows(make: Callable[[int], dict[str, Any]], count: int = 60) -> Rows:
    return [make(i) for i in range(count)]


FINEWEB = rows(lambda i: {
    "text": f"page {i}", "id": f"<urn:uuid:{i:04d}>", "dump": f"CC-MAIN-2024-{i % 3}0", "url": f"https://a/{i}",
    "date": "2024-05-01T00:00:00Z", "file_path": "s3://commoncrawl/x.warc.gz", "language": "en",
    "language_score": 0.7 + i / 1000, "token_count": 5 + i, "score": i / 20, "int_score": round(i / 20),
})  # fmt: skip
DOLMA = rows(lambda i: {
    "id": f"{i:05d}", "text": f"page {i}", "source": ("wiki", "web")[i % 2], "added": "2024-05-01",
    "created": "2023-01-01", "metadata": {"url": f"https://a/{i}", "length": i}, "attributes": {},
})  # fmt: skip
DCLM = rows(lambda i: {
    "text": f"page {i}", "url": f"https://a/{i}", "metadata": {"WARC-Record-ID": f"<urn:uuid:{i:04d}>"},
    DCLM_SCORE: 0.02 + i / 100, "language_id_whole_page_fasttext": {"en": 0.9},
    "previous_word_count": i, "bff_contained_ngram_count_before_dedupe": i % 7, "warcinfo": "robots: classic",
})  # fmt: skip
REDPAJAMA = rows(lambda i: {
    "raw_content": f"page {i}", "doc_id": f"2023-06/{i:04d}", "perplexity": 900.5 - i, "length": 5000 + i,
    "nlines": i, "bucket": ("head", "middle")[i % 2], "language": ("de", "fr")[i // 30],
    "quality_signals": json.dumps({"ccnet_perplexity": [[0, 9, 300.0 + i]]}),
})  # fmt: skip
PLAIN = rows(lambda i: {"text": f"page {i}", "topic": f"t{i % 4}", "helpfulness": i / 3, "toxicity": -i})


def draft(tmp_path: Path, data: Rows, *, name: str = "a.jsonl") -> tuple[str, Recipe]:
    path = tmp_path / "in" / name
    path.parent.mkdir(exist_ok=True)
    write(path, data)
    (tmp_path / "dev.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    out = tmp_path / "recipe.yaml"
    printed = write_draft([str(path.parent)], out, targets=[str(tmp_path / "dev.jsonl")], name="pool")
    return "\n".join(printed), load_recipe(str(out))


def write(path: Path, data: Rows) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in data))
        return
    table = pa.Table.from_pylist(data)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


def criteria(recipe: Recipe) -> dict[str | None, str]:
    return {c.column: c.direction for c in recipe.annotate.criteria if c.kind == "column"}


CASES = [
    ("FineWeb", FINEWEB, ("text", "id", "token_count"), "dump", {"score": "higher"}),
    ("Dolma", DOLMA, ("text", "id", None), "source", {}),
    ("DCLM", DCLM, ("text", "metadata.WARC-Record-ID", None), None, {DCLM_SCORE: "higher"}),
    ("RedPajama-v2", REDPAJAMA, ("raw_content", "doc_id", None), "language", {"perplexity": "lower"}),
]


@pytest.mark.parametrize("file", ["a.jsonl", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(("name", "data", "roles", "domain", "scores"), CASES, ids=[c[0] for c in CASES])
def test_the_conventions_of_published_corpora_are_recognised(
    tmp_path: Path, file: str, name: str, data: Rows, roles: Sequence[str | None], domain: str | None,
    scores: dict[str, str],
) -> None:  # fmt: skip
    """The recipe loads, names the roles, and the corpus that it describes has one document per row."""
    data = [{k: v for k, v in r.items() if v != {}} for r in data] if file == "a.parquet" else data
    printed, recipe = draft(tmp_path, data, name=file)
    columns = recipe.corpus.columns
    assert (columns.text, columns.id, columns.tokens) == tuple(roles)
    assert recipe.annotate.domain.column == domain
    assert criteria(recipe) == scores
    assert f"names     those of {name}" in printed
    assert f"# as in {name}" in (tmp_path / "recipe.yaml").read_text()
    for column in filter(None, (*roles, domain, *scores)):
        assert column in printed
    corpus = open_corpus(recipe.corpus, str(tmp_path / "run"), mapper=lambda f, tasks: [f(t) for t in tasks])
    assert corpus.documents == len(data)
    assert (corpus.columns.text, corpus.columns.id) == (columns.text, columns.id)


def test_token_counts_are_used_only_with_the_name_of_their_tokenizer(tmp_path: Path) -> None:
    printed, _ = draft(tmp_path, FINEWEB)
    assert "tokens    token_count (counted with gpt2)" in printed
    assert "token_count counts tokens of gpt2" in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize("value", [None, 0, "7"])
def test_token_counts_with_holes_are_not_used(tmp_path: Path, value: Any) -> None:
    printed, recipe = draft(tmp_path, [*FINEWEB[:40], {**FINEWEB[41], "token_count": value}])
    assert recipe.corpus.columns.tokens is None
    assert "tokens    counted when" in printed


def test_token_counts_of_an_unknown_tokenizer_are_neither_counts_nor_a_score(tmp_path: Path) -> None:
    printed, recipe = draft(tmp_path, [{**r, "token_count": i + 1} for i, r in enumerate(PLAIN)])
    assert recipe.corpus.columns.tokens is None
    assert "token_count" not in criteria(recipe)
    assert "of no known convention" in printed


def test_a_nested_id_that_some_rows_lack_is_not_used(tmp_path: Path) -> None:
    printed, recipe = draft(tmp_path, [*DCLM[:40], {**DCLM[41], "metadata": {"x": "y"}}])
    assert recipe.corpus.columns.id is None
    assert "id        none: ids are made" in printed


def test_columns_of_ones_own_stay_guesses_and_are_marked(tmp_path: Path) -> None:
    printed, recipe = draft(tmp_path, PLAIN)
    assert criteria(recipe) == {"helpfulness": "higher", "toxicity": "lower"}
    assert recipe.annotate.domain.column == "topic"
    assert "criteria  helpfulness (higher?), toxicity (lower?)" in printed
    assert (tmp_path / "recipe.yaml").read_text().count("# a guess") == 2


def test_a_convention_with_a_column_of_ones_own_has_both(tmp_path: Path) -> None:
    printed, recipe = draft(tmp_path, [{**r, "mine": i / 9} for i, r in enumerate(FINEWEB)])
    assert criteria(recipe) == {"mine": "higher", "score": "higher"}
    assert "criteria  mine (higher?), score (higher)" in printed


def test_a_language_that_varies_is_the_domain_of_fineweb_before_its_dump(tmp_path: Path) -> None:
    mixed = [{**r, "language": ("en", "de")[i % 2]} for i, r in enumerate(FINEWEB)]
    assert draft(tmp_path, mixed)[1].annotate.domain.column == "language"


def test_a_constant_column_is_a_domain_only_if_its_name_says_so(tmp_path: Path) -> None:
    same = [{"text": r["text"], "kind": "page", "source": "web"} for r in PLAIN]
    assert draft(tmp_path, same)[1].annotate.domain.column == "source"
    (tmp_path / "recipe.yaml").unlink()
    assert draft(tmp_path, [{**r, "source": i} for i, r in enumerate(same)])[1].annotate.domain.column is None


def test_rows_of_bad_bytes_and_columns_of_dates_do_not_stop_it(tmp_path: Path) -> None:
    """A nanosecond date has no Python value, a bad byte no text; the rest of the file has."""
    text = pa.StringArray.from_buffers(
        2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")
    )
    dates = pa.array([1, 2], pa.int64()).cast(pa.timestamp("ns"))
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": text, "id": ["a", "b"], "when": dates}), tmp_path / "in" / "a.parquet")
    printed = write_draft([str(tmp_path / "in")], tmp_path / "r.yaml", targets=[], name="pool")
    assert printed[0] == "1 files; first 1 rows read"


def test_a_wet_file_gets_a_recipe_and_one_of_html_an_error(tmp_path: Path) -> None:
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/{}\r\nWARC-Record-ID: <u:{}>\r\n"
    head += "Content-Length: 4\r\n\r\ntext\r\n\r\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wet").write_text("".join(head.format("plain", i) for i in range(5)), newline="")
    (tmp_path / "dev.jsonl").write_text('{"text": "t"}\n')
    targets = [str(tmp_path / "dev.jsonl")]
    printed = write_draft([str(tmp_path / "in")], tmp_path / "r.yaml", targets=targets, name="pool")
    assert "id        id" in printed
    assert load_recipe(str(tmp_path / "r.yaml")).corpus.paths == [str(tmp_path / "in")]
    (tmp_path / "in" / "a.wet").write_text(head.format("html", 1), newline="")
    with pytest.raises(InputError, match="holds 1 HTML pages"):
        write_draft([str(tmp_path / "in")], tmp_path / "s.yaml", targets=targets, name="pool")


def test_a_corpus_without_text_names_the_columns_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no text column found: looked for text, raw_content"):
        draft(tmp_path, [{"body": "t"}])
