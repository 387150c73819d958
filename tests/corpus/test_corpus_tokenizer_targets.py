"""The run's tokenizer is deterministic and bounded; targets are checked before anything costs time."""

import time
from pathlib import Path

import pytest
from tiny_run import demo_rows, write_rows

from quadmix.corpus.targets import halve_target, read_all_rows, read_target
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError
from quadmix.recipe import TargetSection


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [row["text"] for row in demo_rows("pool.jsonl.zst", 120)]


def test_training_twice_gives_the_same_vocabulary(texts: list[str]) -> None:
    assert train_tokenizer(texts, 700) == train_tokenizer(texts, 700)


def test_tokens_decode_to_the_same_text(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "t.json").write_text(train_tokenizer(texts, 700), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path / "t.json")
    samples = [*texts[:20], "naïve ☃ 東京 \U0001f600", "x" * 50_000]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode(samples)] == samples
    assert tokenizer.vocab_size == 700


def test_a_text_of_one_repeated_character_does_not_hang(tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "t.json").write_text(train_tokenizer([*texts, "a" * 2_000_000], 700), encoding="utf-8")
    start = time.monotonic()
    ids = Tokenizer.load(tmp_path / "t.json").encode(["a" * 3_000_000])[0]
    assert 0 < len(ids) <= 3_000_000
    assert time.monotonic() - start < 30


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match=r"t\.json' is not a tokenizer\.json"):
        Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(InputError, match="does not exist"):
        Tokenizer.load(tmp_path / "none.json")


def target(path: Path, **fields: object) -> TargetSection:
    return TargetSection.model_validate({"name": "t", "path": str(path), **fields})


QUESTIONS = [
    {"split": "train", "query": f"q{i}", "choices": ["yes", "no"], "gold": i % 2, "answers": [f"a{i}", "z"]}
    for i in range(30)
]


def test_choices_and_answer_lists_become_the_right_answer(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", QUESTIONS)
    choice = read_target(target(tmp_path / "q.jsonl", prompt="query", choices="choices", gold="gold"), seed=0)
    assert choice.answers[:3] == ("yes", "no", "yes")
    listed = read_target(target(tmp_path / "q.jsonl", prompt="query", answer="answers"), seed=0)
    assert listed.answers[:2] == ("a0", "a1")
    assert listed.texts()[0] == "q0 a0"


def test_the_limit_takes_the_same_rows_for_the_same_seed(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", QUESTIONS)
    section = target(tmp_path / "q.jsonl", prompt="query", answer="answers", limit=7)
    first = read_target(section, seed=3)
    assert len(first.answers) == 7
    assert first.rows_in == 30
    assert first.prompts == read_target(section, seed=3).prompts
    assert first.prompts != read_target(section, seed=4).prompts


@pytest.mark.parametrize(
    ("fields", "rows", "message"),
    [
        ({"text": "body"}, QUESTIONS, "row 0: no column 'body'; the row has answers, choices"),
        ({"prompt": "query", "answer": "choices", "split": "dev"}, QUESTIONS, "no rows with split 'dev'"),
        ({"text": "text"}, [{"text": "  "}], "has text to score"),
        ({"text": "text"}, [{"text": 5}], "holds int, expected text"),
        ({"prompt": "query", "choices": "choices", "gold": "gold"},
         [{"query": "q", "choices": ["a"], "gold": 1}], "gold is 1, expected an index"),
        ({"text": "text"}, [{"text": "x", "split": "test"}], "looks like a test split"),
    ],
)  # fmt: skip
def test_a_wrong_target_is_refused(tmp_path: Path, fields: dict, rows: list, message: str) -> None:
    write_rows(tmp_path / "q.jsonl", rows)
    with pytest.raises(InputError, match=message):
        read_target(target(tmp_path / "q.jsonl", **fields), seed=0)


def test_a_test_split_can_be_forced(tmp_path: Path) -> None:
    write_rows(tmp_path / "q_test.jsonl", [{"text": "some text"}])
    section = target(tmp_path / "q_test.jsonl", text="text")
    with pytest.raises(InputError, match=r"run\.accept_test_targets=true"):
        read_target(section, seed=0)
    assert read_target(section, seed=0, accept_test=True).answers == ("some text",)


def test_a_cut_target_file_is_refused(tmp_path: Path) -> None:
    import zstandard

    whole = zstandard.ZstdCompressor().compress(b'{"text": "a long enough line of text"}\n' * 2000)
    (tmp_path / "t.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"t\.jsonl\.zst' is truncated or corrupt"):
        read_target(target(tmp_path / "t.jsonl.zst", text="text"), seed=0)


def test_a_bad_line_of_a_target_is_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(InputError, match="line 2: not valid JSON"):
        read_target(target(tmp_path / "t.jsonl", text="text"), seed=0)


def test_the_halves_of_a_target_share_no_row_and_lose_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", QUESTIONS)
    whole = read_target(target(tmp_path / "q.jsonl", prompt="query", answer="answers"), seed=0)
    first, second = halve_target(whole, seed=0)
    assert not set(first.prompts) & set(second.prompts)
    assert sorted(first.prompts + second.prompts) == sorted(whole.prompts)
    assert abs(len(first.prompts) - len(second.prompts)) <= 1
    assert halve_target(whole, seed=0) == (first, second)
    assert halve_target(whole, seed=1) != (first, second)


@pytest.mark.parametrize(
    "name",
    [
        "mmlu_testset.jsonl", "tests.jsonl", "test/arc.jsonl", "arcTest.jsonl", "ARCTest2.jsonl",
        "ARC_TESTset.jsonl", "wmt14test.jsonl", "flores.devtest.jsonl",
    ],
)  # fmt: skip
def test_a_path_that_names_a_test_split_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "test").mkdir()
    write_rows(tmp_path / name, [{"text": "some text"}])
    with pytest.raises(InputError, match="looks like a test split"):
        read_target(target(tmp_path / name, text="text"), seed=0)


@pytest.mark.parametrize(
    "row", [{"split": "hard-test"}, {"subset": "test"}, {"Partition": "TEST"}, {"fold": "test_set"}]
)
def test_a_row_that_says_it_is_of_a_test_split_is_refused(tmp_path: Path, row: dict[str, str]) -> None:
    write_rows(tmp_path / "arc.jsonl", [{"text": "a", "split": "train"}, {"text": "b", **row}])
    (column, value), *_ = row.items()
    with pytest.raises(InputError, match=f"looks like a test split \\(rows with {column} '{value}'\\)"):
        read_target(target(tmp_path / "arc.jsonl", text="text"), seed=0)


def test_a_target_named_for_a_test_split_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "arc.jsonl", [{"text": "some text"}])
    section = target(tmp_path / "arc.jsonl", text="text").model_copy(update={"name": "arc_test"})
    with pytest.raises(InputError, match="looks like a test split \\(the name 'arc_test'\\)"):
        read_target(section, seed=0)
    assert read_target(section, seed=0, accept_test=True).rows_in == 1


@pytest.mark.parametrize("word", ["latest", "contest", "attestation", "testimony", "Greatest", "testator"])
def test_words_that_only_contain_test_are_no_test_split(tmp_path: Path, word: str) -> None:
    (tmp_path / word).mkdir()
    columns = dict.fromkeys(("split", "subset", "partition", "fold"), word)
    write_rows(
        tmp_path / word / f"{word}.jsonl", [{"text": "some text", **columns}, {"text": "b", "fold": 3}]
    )
    section = target(tmp_path / word / f"{word}.jsonl", text="text").model_copy(update={"name": word})
    assert read_target(section, seed=0).rows_in == 2


def test_a_subset_named_for_a_topic_is_no_test_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", [{"text": "some text", "subset": "driving test"}])
    assert read_target(target(tmp_path / "q.jsonl", text="text"), seed=0).rows_in == 1


def test_all_rows_are_read_beyond_the_limit_without_those_that_do_not_fit(tmp_path: Path) -> None:
    write_rows(tmp_path / "q.jsonl", [*QUESTIONS, {"query": "no answer"}])
    section = target(tmp_path / "q.jsonl", prompt="query", answer="answers", limit=7)
    found = read_all_rows(section)
    assert found.prompts == tuple(row["query"] for row in QUESTIONS)
    assert found.rows_in == 31
    write_rows(tmp_path / "q_test.jsonl", QUESTIONS)
    with pytest.raises(InputError, match="looks like a test split"):
        read_all_rows(target(tmp_path / "q_test.jsonl", prompt="query", answer="answers"))
