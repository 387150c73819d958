"""Benchmarks: the three forms are read exactly, thinned by a hash, and bad rows are named."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quadmix.corpus.benchmarks import BenchmarkItems, read_benchmark
from quadmix.errors import InputError
from quadmix.recipe import BenchmarkSection

GOOD = {"query": "The sky is", "choices": ["blue", "green as grass"], "gold": 0, "split": "validation"}


def written(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "quiz.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def section(path: str, **keys: Any) -> BenchmarkSection:
    form = {} if "answer" in keys else {"choices": "choices", "gold": "gold"}
    return BenchmarkSection.model_validate({"name": "quiz", "path": path, **form, **keys})


def read(path: str, **keys: Any) -> BenchmarkItems:
    return read_benchmark(section(path, **keys), seed=3)


def test_choices_follow_the_prompt_after_one_space(tmp_path: Path) -> None:
    rows = [
        GOOD,
        {"query": "A line\n", "choices": [" one", "two ", "three"], "gold": 2},
        {"query": "", "choices": ["yes", "no"], "gold": 1},
    ]
    items = read(written(tmp_path, *rows))
    assert items.contexts == (("The sky is",) * 2, ("A line\n",) * 3, ("",) * 2)
    assert items.continuations == ((" blue", " green as grass"), ("one", "two", "three"), ("yes", "no"))
    assert items.choices == (("blue", "green as grass"), ("one", "two", "three"), ("yes", "no"))
    assert (items.gold, items.kind, items.blank, items.rows_in) == ((0, 2, 1), "choices", False, 3)
    assert items.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert items.texts() == ["The sky is blue", "A line\nthree", "no"]


def test_a_choice_takes_the_place_of_the_first_blank_and_the_rest_is_scored(tmp_path: Path) -> None:
    row = {"query": "Ann thanked Sue because _ had helped _.", "choices": ["Ann", "Sue"], "gold": 1}
    items = read(written(tmp_path, row), blank="_")
    assert items.contexts == (("Ann thanked Sue because Ann", "Ann thanked Sue because Sue"),)
    assert items.continuations == ((" had helped _.",) * 2,)
    assert items.choices == (("Ann", "Sue"),)
    assert items.blank
    assert items.texts() == ["Ann thanked Sue because Sue had helped _."]


@pytest.mark.parametrize("answer", ["signs", ["signs", "other"]])
def test_a_greedy_benchmark_has_one_continuation_and_no_chance(tmp_path: Path, answer: Any) -> None:
    items = read(written(tmp_path, {"query": "I don't care about", "answers": answer}), answer="answers")
    assert (items.contexts, items.continuations) == ((("I don't care about",),), ((" signs",),))
    assert (items.choices, items.gold, items.kind, items.chance) == ((("signs",),), (0,), "greedy", None)


def test_thinning_keeps_the_same_rows_whatever_the_limit_and_follows_the_seed(tmp_path: Path) -> None:
    path = written(tmp_path, *({**GOOD, "query": f"question {i}"} for i in range(60)))
    twenty, ten = read(path, limit=20), read(path, limit=10)
    assert twenty.rows_in == 60
    assert len(twenty.gold) == 20
    assert set(ten.contexts) < set(twenty.contexts)
    numbers = [int(c[0].split()[1]) for c in twenty.contexts]
    assert numbers == sorted(numbers)
    assert read_benchmark(section(path, limit=20), seed=4).contexts != twenty.contexts
    assert read(path, limit=60).contexts == tuple((f"question {i}",) * 2 for i in range(60))


def test_only_the_split_counts_and_rows_keep_their_number_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, {**GOOD, "split": "train"}, GOOD, {**GOOD, "gold": 5})
    assert read(path, split="train").rows_in == 1
    with pytest.raises(InputError, match=r"benchmark 'quiz': .*quiz.jsonl, row 2: column 'gold' holds 5"):
        read(path, split="validation")


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "quiz.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD]), path)
    assert read(str(path)) == read(written(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({**GOOD, "choices": "blue"}, {}, "column 'choices' holds 'blue', expected a list of two or more"),
        ({**GOOD, "choices": ["blue"]}, {}, r"holds \['blue'\], expected a list of two or more texts"),
        ({**GOOD, "choices": ["blue", 3]}, {}, r"column 'choices' holds \['blue', 3\]"),
        ({**GOOD, "choices": ["blue", " "]}, {}, r"column 'choices' holds \['blue', ' '\]"),
        ({**GOOD, "gold": 2}, {}, "column 'gold' holds 2, expected the index of the right choice, 0 to 1"),
        ({**GOOD, "gold": -1}, {}, "column 'gold' holds -1"),
        ({**GOOD, "gold": "A"}, {}, "column 'gold' holds 'A'.*turn letters into numbers"),
        ({**GOOD, "gold": True}, {}, "column 'gold' holds True"),
        ({**GOOD, "query": None}, {}, "column 'query' holds NoneType, expected the text of the question"),
        ({"query": "x", "gold": 0}, {}, "no column 'choices'; the row has gold, query; set `choices`"),
        (GOOD, {"prompt": "question"}, "no column 'question'; .* set `prompt` to one of them"),
        (GOOD, {"blank": "_"}, "column 'query' has no '_', expected it in the text"),
        ({**GOOD, "query": "It was _ "}, {"blank": "_"}, "column 'query' has nothing after '_'"),
        (GOOD, {"answer": "gold"}, "column 'gold' holds 0, expected the text that continues the prompt"),
        ({**GOOD, "a": []}, {"answer": "a"}, r"column 'a' holds \[\], expected the text"),
        ({**GOOD, "a": [" "]}, {"answer": "a"}, "column 'a' holds ' ', expected the text"),
    ],
)
def test_bad_rows_name_benchmark_file_row_column_and_remedy(
    tmp_path: Path, row: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"benchmark 'quiz': .*quiz\.jsonl, row 0: .*{message}"):
        read(written(tmp_path, row), **keys)


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"benchmark 'quiz': .* has no rows; check `split` and `path`"):
        read(written(tmp_path))
    with pytest.raises(InputError, match=r"has no rows with split 'test'"):
        read(written(tmp_path, GOOD), split="test")
