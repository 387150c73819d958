"""Parallel corpora: every row among the texts or counted, originals named, files out of step refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quadmix.errors import InputError
from quadmix.raters.parallel import ParallelColumns, StepLimits, read_parallel


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(id_: Any, lang: Any, text: Any) -> dict[str, Any]:
    return {"parallel_id": id_, "lang": lang, "text": text}


def varied(count: int, seed: int = 0) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).lognormal(4, 0.6, count) + 2]


def test_rows_become_texts_whose_translations_name_their_original(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        [row("2", "de", "zwei"), row("1", "en", "one"), row("1", "de", "eins"), row("3", "de", "drei")],
    )
    texts = read_parallel([path]).texts
    assert list(zip(texts.ids, texts.source, texts.origin, texts.language, texts.text, strict=True)) == [
        ("de/1", "1", "en/1", "de", "eins"),
        ("de/2", "2", "", "de", "zwei"),  # nothing in English with this id: an original of its own
        ("de/3", "3", "", "de", "drei"),
        ("en/1", "1", "", "en", "one"),
    ]


def test_every_row_is_a_text_or_is_counted_by_its_reason(tmp_path: Path) -> None:
    rows = [
        row(1, "en", "one"), row(1, "en", "one"), row(1, "en", "other"), row(None, "en", "x"),
        row("", "de", "x"), row(2, None, "x"), row(2, " ", "x"),
        row(2, "de/at", "x"), row(2, "de", ""), row(3, "de", " \n"),
        row(4, "de", 7), row(5, "de", "fünf"), {"lang": "de"},
    ]  # fmt: skip
    found = read_parallel([write(tmp_path / "a.jsonl", rows)])
    assert found.dropped == {
        "": {"no language": 2},
        "de": {"empty text": 2, "no id": 2, "text is not a string": 1},
        "de/at": {"language with a slash": 1},
        "en": {"id and language twice, another text": 1, "id and language twice, same text": 1, "no id": 1},
    }
    assert found.texts.text == ("fünf", "one")  # of two texts with one id and language the first
    lost = sum(count for reasons in found.dropped.values() for count in reasons.values())
    assert found.rows == len(rows) == len(found.texts) + lost


def test_files_are_joined_codes_mapped_columns_named_and_ids_prefixed(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"nr": [1, 2], "code": ["eng", "eng"], "body": ["one", "two"]}), tmp_path / "a.parquet"
    )
    other = write(tmp_path / "b.jsonl", [{"nr": 2, "code": "deu", "body": "zwei"}])
    found = read_parallel(
        [str(tmp_path / "a.parquet"), other], columns=ParallelColumns(id="nr", language="code", text="body"),
        codes={"eng": "en", "deu": "de"}, name="mine:",
    )  # fmt: skip
    assert found.texts.ids == ("de/mine:2", "en/mine:1", "en/mine:2")
    assert found.texts.origin == ("en/mine:2", "", "")


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [
        row(i, lang, f"{lang} {'a' * n}") for i, n in enumerate(varied(30)) for lang in ("en", "de", "fr")
    ]
    first = read_parallel([write(tmp_path / "a.jsonl", rows)])
    mixed = [rows[i] for i in np.random.default_rng(3).permutation(len(rows))]
    second = read_parallel([write(tmp_path / "b.jsonl", mixed)])
    assert first.texts.ids == second.texts.ids
    assert first.texts.text == second.texts.text


@pytest.mark.parametrize("original", ["en", None])
def test_ids_out_of_step_are_refused_with_language_and_numbers(tmp_path: Path, original: str | None) -> None:
    sizes = varied(60)
    rows = [row(i, "en", "a" * n) for i, n in enumerate(sizes)]
    rows += [row(i, "fr", "b" * (n + 3)) for i, n in enumerate(sizes)]
    good = read_parallel([write(tmp_path / "good.jsonl", rows)], original=original)
    assert good.steps[-1].found == 1.0
    assert good.steps[-1].correlation > 0.95
    shuffled = np.random.default_rng(1).permutation(60).tolist()
    rows += [row(i, "de", "c" * sizes[j]) for i, j in enumerate(shuffled[:59])]
    with pytest.raises(InputError, match=r"bad\.jsonl: language 'de' is out of step with 'en': log lengths"):
        read_parallel([write(tmp_path / "bad.jsonl", rows)], original=original)


def test_the_reported_correlation_is_numpys_over_the_worst_half(tmp_path: Path) -> None:
    sizes, noise = varied(60), np.random.default_rng(5).lognormal(0, 0.3, 60)
    rows = [row(i, "en", "a" * n) for i, n in enumerate(sizes)]
    others = [max(1, round(n * f)) for n, f in zip(sizes, noise, strict=True)]
    rows += [row(i, "de", "b" * n) for i, n in enumerate(others)]
    x, y = np.log(sizes), np.log(others)
    expected = min(np.corrcoef(x[s], y[s])[0, 1] for s in (slice(60), slice(30), slice(30, 60)))
    (step,) = read_parallel([write(tmp_path / "a.jsonl", rows)]).steps
    assert step.correlation == pytest.approx(expected)


def test_unknown_ids_are_refused_when_they_are_most_and_kept_when_few(tmp_path: Path) -> None:
    sizes = varied(40)
    english = [row(i, "en", "a" * n) for i, n in enumerate(sizes)]
    few = [row(i if i > 3 else f"x{i}", "de", "b" * n) for i, n in enumerate(sizes)]
    found = read_parallel([write(tmp_path / "few.jsonl", english + few)])
    assert found.steps[0].found == 0.9
    assert Counter(found.texts.origin)[""] == 40 + 4
    most = [row(f"news-{i}" if i > 9 else i, "de", "b" * n) for i, n in enumerate(sizes)]
    with pytest.raises(InputError, match=r"'de' is out of step with 'en': 25% of its 40 ids are found there"):
        read_parallel([write(tmp_path / "most.jsonl", english + most)])


def test_a_slip_by_a_line_is_found_even_where_lengths_rise_slowly(tmp_path: Path) -> None:
    """Sorted by length, neighbours are alike, so that the correlation alone stays above the limit."""
    wiggle = [n + (40 if i % 2 else 0) for i, n in enumerate(sorted(varied(80)))]
    slipped = [9, *wiggle[:-1]]
    lengths = {"en": wiggle, "fr": wiggle, "de": slipped}
    rows = {c: [row(i, c, c[0] * n) for i, n in enumerate(own)] for c, own in lengths.items()}
    assert np.corrcoef(np.log(wiggle), np.log(slipped))[0, 1] > StepLimits().correlation
    with pytest.raises(InputError, match=r"'de' is out of step.*its texts stand 1 places off"):
        read_parallel([write(tmp_path / "all.jsonl", rows["en"] + rows["fr"] + rows["de"])])
    assert len(read_parallel([write(tmp_path / "two.jsonl", rows["en"] + rows["fr"])]).texts) == 160


def test_texts_of_one_length_are_not_judged_by_length(tmp_path: Path) -> None:
    rows = [row(i, lang, f"{lang} {i:03} " + "a" * 50) for i in range(30) for lang in ("en", "de")]
    (step,) = read_parallel([write(tmp_path / "a.jsonl", rows)]).steps
    assert np.isnan(step.correlation)


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(1, "de", "eins")])
    with pytest.raises(InputError, match="no text is in the original language 'en', found de"):
        read_parallel([path])
    with pytest.raises(InputError, match="no row has a column 'id', found parallel_id, lang, text"):
        read_parallel([path], columns=ParallelColumns(id="id"))
    with pytest.raises(InputError, match="none of 1 rows has an id, a language and a text"):
        read_parallel([write(tmp_path / "b.jsonl", [row(1, "de", "")])])
