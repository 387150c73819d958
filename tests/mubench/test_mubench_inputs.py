"""Predictions from Parquet and from the harness' samples; whatever does not fit is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mubench_files import row, write_task

from quadmix.errors import InputError
from quadmix.evaluate.mubench.gather import gather
from quadmix.evaluate.mubench.items import Predictions
from quadmix.evaluate.mubench.samples import read_samples
from quadmix.evaluate.mubench.tables import COLUMNS, read_predictions, write_predictions
from quadmix.io.atomic import read_table, write_table

SAMPLES = Path(__file__).parent / "samples"
TIME = "2026-11-30T07-28-36.034965"


def int16(values: object) -> Any:
    return np.asarray(values, dtype=np.int16)


def made(
    estimator: str = "acc", task: str = "mmlu", languages: tuple[str, ...] = ("en", "de")
) -> Predictions:
    rng = np.random.default_rng(len(estimator))
    options = int16([2, 3, 4, 10])
    return Predictions(
        task=task,
        mode="lighteval",
        estimator=estimator,
        ids=("a", "b", "ü", "d"),
        labels=int16([1, 2, 0, 9]),
        options=options,
        chosen={language: int16(rng.integers(-1, options)) for language in languages},
    )


def same(one: Predictions, other: Predictions) -> bool:
    key = [(p.task, p.mode, p.estimator, p.ids, p.labels.tolist(), p.options.tolist()) for p in (one, other)]
    chosen = [{k: v.tolist() for k, v in p.chosen.items()} for p in (one, other)]
    return key[0] == key[1] and chosen[0] == chosen[1]


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    own = [made(), made("shortest"), made("acc", "arc_easy", ("zh",))]
    write_predictions(tmp_path / "p.parquet", own)
    back = read_predictions(tmp_path / "p.parquet")
    assert len(back) == 3
    assert all(same(a, b) for a, b in zip(own, back, strict=True))
    table = read_table(tmp_path / "p.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == 4 * 5
    write_predictions(tmp_path / "none.parquet", [])
    assert read_predictions(tmp_path / "none.parquet") == []


def test_rows_are_joined_by_id_in_any_order(tmp_path: Path) -> None:
    own = made()
    write_predictions(tmp_path / "p.parquet", [own])
    table = read_table(tmp_path / "p.parquet")
    order = np.random.default_rng(0).permutation(table.num_rows)
    write_table(tmp_path / "q.parquet", table.take(pa.array(order)))
    (back,) = read_predictions(tmp_path / "q.parquet")
    for language, chosen in own.chosen.items():
        assert dict(zip(back.ids, back.chosen[language].tolist(), strict=True)) == dict(
            zip(own.ids, chosen.tolist(), strict=True)
        )
    assert dict(zip(back.ids, back.labels.tolist(), strict=True)) == {"a": 1, "b": 2, "ü": 0, "d": 9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "x"}, r"p\.parquet, mmlu lighteval acc: the ids of de are not those of en, as 'd'"),
        ({"label": 0}, r"the label of de differs from en on 1 ids, as 'd'"),
        ({"options": 11}, r"the number of options of de differs from en on 1 ids, as 'd'"),
        ({"chosen": 10}, r"p\.parquet: .*de, id 'd': choice 10 is outside"),
        ({"chosen": None}, "a cell is empty"),
        ({"chosen": 70_000}, "a column has another type"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_predictions(tmp_path / "p.parquet", [made()])
    rows = read_table(tmp_path / "p.parquet").to_pylist()
    rows[-1] |= change
    write_table(tmp_path / "p.parquet", pa.Table.from_pylist(rows))
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "p.parquet")


def test_an_id_twice_a_lacking_column_and_a_key_twice_are_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", [made(languages=("en",))])
    rows = read_table(tmp_path / "p.parquet").to_pylist()
    write_table(tmp_path / "twice.parquet", pa.Table.from_pylist([*rows, rows[0]]))
    with pytest.raises(InputError, match="id 'a' is there twice in en"):
        read_predictions(tmp_path / "twice.parquet")
    write_table(tmp_path / "less.parquet", pa.table({"task": ["mmlu"]}))
    with pytest.raises(InputError, match="no column 'mode'; predictions have task, mode, language"):
        read_predictions(tmp_path / "less.parquet")
    with pytest.raises(InputError, match="predictions mmlu lighteval acc en are there twice"):
        write_predictions(tmp_path / "p.parquet", [made(), made()])


# --------------------------------------------------------------------------- samples of the harness
def logged(language: str) -> list[dict[str, Any]]:
    """Rows as lm_eval 0.4.13 wrote them (model `dummy`) on the stand-in, cut to twelve items."""
    path = SAMPLES / f"samples_mubench_arc_easy_lighteval_{language}_{TIME}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes", "acc_mutual_info"])
def test_our_answers_are_right_where_the_harness_says_so(metric: str) -> None:
    found = read_samples(sorted(SAMPLES.glob("*.jsonl")))
    own = next(p for p in found.predictions if p.estimator == metric)
    for language, chosen in own.chosen.items():
        right = {r["doc"]["_id"]: r[metric] for r in logged(language)}
        ours = (chosen == own.labels).astype(float)
        assert dict(zip(own.ids, ours.tolist(), strict=True)) == right
    assert sorted(own.chosen) == ["qaa", "qab", "qac", "qad"]


def test_samples_bring_their_items_and_the_null_without_prompt() -> None:
    found = read_samples([*SAMPLES.glob("*.jsonl"), SAMPLES / f"samples_hellaswag_{TIME}.jsonl"])
    assert found.ignored == (f"samples_hellaswag_{TIME}.jsonl",)
    task = found.items["arc_easy", "lighteval"]
    assert {i.id: i.choices for i in task.items["qad"]} == {
        r["doc"]["_id"]: tuple(r["doc"]["choices"]) for r in logged("qad")
    }
    null = next(p for p in found.predictions if p.estimator == "unconditional")
    first = logged("qaa")[0]
    scores = [float(pair[0]) for pair in first["filtered_resps"]]
    half = scores[len(scores) // 2 :]
    place = null.ids.index(first["doc"]["_id"])
    assert null.chosen["qaa"][place] == half.index(max(half))


def write_samples(folder: Path, rows: list[dict[str, Any]], language: str = "qaa", time: str = TIME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_mubench_arc_easy_lighteval_{language}_{time}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_names_of_tasks_with_underscores_and_of_mixes_are_understood(tmp_path: Path) -> None:
    rows = logged("qaa")
    for name in ("arc_challenge_mix_lighteval_2_de", "mmlu_pro_local_template_zh", "my_own_set_lighteval_xx"):
        path = tmp_path / f"samples_mubench_{name}_{TIME}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    found = read_samples(sorted(tmp_path.glob("*.jsonl")))
    keys = {(p.task, p.mode, *p.chosen) for p in found.predictions}
    assert keys == {
        ("arc_challenge", "mix_lighteval_2", "de"), ("mmlu_pro", "local_template", "zh"),
        ("my_own_set", "lighteval", "xx"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "7"}, r"row 3 \(id .*\): target '7', but the label is"),
        ({"filtered_resps": [["-1", "True"]]}, r"row 3 \(id .*\): 1 scores for"),
        ({"filtered_resps": [["nan", "True"]] * 4}, "or one is NaN"),
        ({"filtered_resps": ["text"]}, "row 3: .*is it a multiple_choice task of MuBench"),
        ({"doc": {"question": "?"}}, "row 3: KeyError"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [r for r in logged("qaa") if len(r["doc"]["choices"]) == 4][:5]
    rows[2] |= change
    path = write_samples(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        read_samples([path])


def test_without_scores_a_field_or_rows_a_file_is_refused(tmp_path: Path) -> None:
    rows = logged("qaa")
    del rows[0]["filtered_resps"]
    with pytest.raises(InputError, match="row 1: no field 'filtered_resps'"):
        read_samples([write_samples(tmp_path / "a", rows)])
    with pytest.raises(InputError, match="has no rows; run the harness again"):
        read_samples([write_samples(tmp_path / "b", [])])


def test_two_runs_of_one_task_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "one", logged("qaa"))
    write_samples(tmp_path / "two", logged("qaa"), time="2026-12-01T00-00-00.000001")
    with pytest.raises(InputError, match="are runs of the same task; expected one"):
        gather([tmp_path])


def test_languages_on_other_items_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, logged("qaa"))
    write_samples(tmp_path, logged("qab")[:-1], "qab")
    with pytest.raises(InputError, match="Languages are compared on equal sets"):
        gather([tmp_path])


# --------------------------------------------------------------------------- files and folders together
def test_languages_of_several_files_become_one_and_a_repeated_one_is_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a.parquet", [made(languages=("en",))])
    write_predictions(tmp_path / "b.parquet", [made(languages=("de", "zh"))])
    write_table(tmp_path / "other.parquet", pa.table({"x": [1]}))
    (found,) = gather([tmp_path]).predictions
    assert sorted(found.chosen) == ["de", "en", "zh"]
    with pytest.raises(InputError, match=r"mmlu \(lighteval, acc\): en is predicted in two files"):
        gather([tmp_path, tmp_path / "a.parquet"])


def test_tasks_are_kept_by_name_and_nothing_found_is_an_error(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a.parquet", [made(), made(task="arc_easy")])
    assert [p.task for p in gather([tmp_path], tasks=["arc_easy"]).predictions] == ["arc_easy"]
    with pytest.raises(InputError, match="no predictions of snli in"):
        gather([tmp_path], tasks=["snli"])
    with pytest.raises(InputError, match=r"nothing\.parquet does not exist"):
        gather([tmp_path / "nothing.parquet"])


def test_items_come_from_the_data_folder(tmp_path: Path) -> None:
    choices = [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], list("abcdefghij")]
    content = [
        row(i, label, c) for i, label, c in zip(("a", "b", "ü", "d"), (1, 2, 0, 9), choices, strict=True)
    ]
    write_task(tmp_path / "data", {"en": content, "de": content, "fr": content}, task="MMLUDataset")
    write_predictions(tmp_path / "a.parquet", [made()])
    found = gather([tmp_path / "a.parquet"], data=tmp_path / "data")
    assert sorted(found.items["mmlu", "lighteval"].items) == ["de", "en"]
