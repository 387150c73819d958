"""Row files become tasks: bits and accuracies by hand, NaN for what failed, refusals for what is missing."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError, IntegrityError
from quadmix.evaluate.rows import read_tasks
from quadmix.evaluate.tasks import TaskValues
from quadmix.io.atomic import write_json, write_table
from quadmix.proxy.choices import encode_benchmarks
from quadmix.proxy.scoring import Refused, refused_path, rows_path
from quadmix.types import Trial

# two items of three and two choices, a blank of two choices, and a greedy item; lengths of choices matter
QUIZ = BenchmarkItems(
    name="quiz",
    contexts=(("q",) * 3, ("q",) * 2),
    continuations=((" a", " bbbb", " cc"), (" a", " bbbb")),
    choices=(("a", "bbbb", "cc"), ("a", "bbbb")),
    gold=(1, 0),
    kind="choices",
    rows_in=2,
)
BLANK = replace(
    QUIZ, name="blank", contexts=(("a", "bb"),), continuations=((" c",) * 2,), choices=(("a", "bb"),),
    gold=(1,), blank=True,
)  # fmt: skip
GREEDY = replace(
    QUIZ, name="word", kind="greedy", contexts=(("a",), ("b",)), continuations=((" c",), (" dd",)),
    choices=(("c",), ("dd",)), gold=(0, 0),
)  # fmt: skip
TASKS = (
    ("target", "text", 2),
    ("heldout", "text", 1),
    ("benchmark", "quiz", 5),
    ("benchmark", "blank", 2),
    ("benchmark", "word", 2),
)
BYTES = [10, 20, 7, *(2, 5, 3, 2, 5), *(2, 2), *(2, 3)]


def trial(label: str, seed: int, status: str = "done") -> Trial:
    return Trial(
        trial_id=f"{label}-{seed}", kind="compare", label=label, theta=None, seed=seed, selected_tokens=0,
        unique_tokens=0, train_tokens=0, epochs=1.0, losses={}, heldout={},
        status=status,  # pyright: ignore[reportArgumentType]
        reason="" if status == "done" else "diverged",
    )  # fmt: skip


def write_rows(
    folder: Path, name: str, nll: list[float], greedy: list[bool], size: list[int] = BYTES
) -> None:
    kinds, tasks, rows = zip(*((k, t, r) for k, t, n in TASKS for r in range(n)), strict=True)
    table = {
        "task": pa.array(tasks).dictionary_encode(),
        "kind": pa.array(kinds).dictionary_encode(),
        "row": np.array(rows, dtype=np.int32),
        "nll": np.array(nll, dtype=np.float32),
        "bytes": np.array(size, dtype=np.int32),
        "tokens": np.ones(len(rows), dtype=np.int32),
        "greedy": np.array(greedy),
    }
    write_table(rows_path(folder, name), pa.table(table))


NLL = [1.0, 2.0, 3.0, *(2.0, 4.0, 3.0, 2.0, 2.0), *(5.0, 4.0), *(1.0, 2.0)]
NO = [False] * len(NLL)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "tokenizer.json").write_text(train_tokenizer(["a b c d"], 300))
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    encode_benchmarks([QUIZ, BLANK, GREEDY], tokenizer, 16, str(folder / "sets"))
    return folder / "sets"


def named(tasks: list[TaskValues]) -> dict[tuple[str, str, str], TaskValues]:
    found = {(t.kind, t.task, t.metric): t for t in tasks}
    assert len(found) == len(tasks)
    return found


def test_values_are_those_by_hand(tmp_path: Path, benchmarks: Path) -> None:
    write_rows(tmp_path, "a-0", NLL, [*NO[:-2], True, False])
    tasks = named(read_tasks([trial("a", 0)], tmp_path, benchmarks))
    bits = {key: t.values[0, 0] * math.log(2) for key, t in tasks.items() if key[2] == "bits_per_byte"}
    assert bits["target", "text", "bits_per_byte"] == pytest.approx([1, 2])
    assert tasks["target", "text", "bits_per_byte"].weights.tolist() == [10, 20]
    assert bits["heldout", "text", "bits_per_byte"] == pytest.approx([3])
    assert bits["benchmark", "quiz", "bits_per_byte"] == pytest.approx([4, 2])  # of the right answers
    assert tasks["benchmark", "quiz", "bits_per_byte"].weights.tolist() == [5, 2]
    assert bits["benchmark", "blank", "bits_per_byte"] == pytest.approx([4])
    # item 0: nll 2, 4, 3 -> choice 0 is likeliest; per character 2, 1, 1.5 -> choice 1, which is right
    # item 1: nll 2, 2 -> the first, which is right; per character 2, 0.5 -> the second
    assert tasks["benchmark", "quiz", "acc"].values[0, 0].tolist() == [0, 1]
    assert tasks["benchmark", "quiz", "acc_norm"].values[0, 0].tolist() == [1, 0]
    assert tasks["benchmark", "quiz", "acc"].weights.tolist() == [1, 1]
    assert tasks["benchmark", "quiz", "acc"].chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert tasks["benchmark", "quiz", "bits_per_byte"].chance is None
    assert tasks["benchmark", "blank", "acc"].values[0, 0].tolist() == [1]
    assert tasks["benchmark", "word", "greedy"].values[0, 0].tolist() == [1, 0]
    assert tasks["benchmark", "word", "greedy"].chance is None
    assert [key[1:] for key in tasks if key[0] == "benchmark"] == [
        ("quiz", "acc"), ("quiz", "acc_norm"), ("quiz", "bits_per_byte"), ("blank", "acc"),
        ("blank", "bits_per_byte"), ("word", "greedy"), ("word", "bits_per_byte"),
    ]  # fmt: skip


def test_labels_and_seeds_stand_in_their_place_and_failures_are_nan(tmp_path: Path, benchmarks: Path) -> None:
    trials = [trial("b", 1), trial("b", 0), trial("a", 1), trial("a", 0, "failed"), trial("c", 0)]
    for number, one in enumerate(trials[:3]):
        write_rows(tmp_path, one.trial_id, [x + number for x in NLL], NO)
    write_json(refused_path(tmp_path, "c-0"), Refused(reason="weights cannot be read", key=""))
    for task in read_tasks(trials, tmp_path, benchmarks):
        assert (task.labels, task.seeds) == (("b", "a", "c"), (1, 0))
        finite = np.isfinite(task.values)
        assert finite.all(axis=2).tolist() == [[True, True], [True, False], [False, False]]
        assert finite.any(axis=2).tolist() == finite.all(axis=2).tolist()
    text = read_tasks(trials, tmp_path, benchmarks)[0]
    assert (text.values[:2, 0, 0] * math.log(2)).tolist() == pytest.approx([1, 3])
    assert text.values[0, 1, 0] * math.log(2) == pytest.approx(2)


def test_what_is_missing_is_an_error(tmp_path: Path, benchmarks: Path) -> None:
    write_rows(tmp_path, "a-0", NLL, NO)
    with pytest.raises(InputError, match=r"trial 'a-1' is done but has no a-1\.parquet"):
        read_tasks([trial("a", 0), trial("a", 1)], tmp_path, benchmarks)
    with pytest.raises(InputError, match=r"benchmark 'quiz' has 5 rows in .* 'None' does not describe them"):
        read_tasks([trial("a", 0)], tmp_path, None)
    with pytest.raises(InputError, match=r"none of 1 trials has rows in .*: diverged"):
        read_tasks([trial("a", 0, "failed")], tmp_path, benchmarks)
    with pytest.raises(InputError, match="'a-0' and 'other' both have label 'a' and seed 0"):
        read_tasks([trial("a", 0), replace(trial("a", 0), trial_id="other")], tmp_path, benchmarks)


def test_files_of_other_sets_do_not_mix(tmp_path: Path, benchmarks: Path) -> None:
    write_rows(tmp_path, "a-0", NLL, NO)
    write_rows(tmp_path, "a-1", NLL, NO, size=[11, *BYTES[1:]])
    with pytest.raises(IntegrityError, match=r"a-1\.parquet has other rows than .*a-0\.parquet"):
        read_tasks([trial("a", 0), trial("a", 1)], tmp_path, benchmarks)
