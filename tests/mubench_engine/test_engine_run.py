"""A whole evaluation: files, resume, what is refused, and items that do not fit."""

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest
from engine_world import standin, tiny_model
from safetensors.torch import load_file, save_file

from quadmix.errors import IdentityError, InputError
from quadmix.evaluate.mubench.cells import cell_path
from quadmix.evaluate.mubench.engine import (
    EVALUATION,
    PREDICTIONS,
    SCORES,
    Evaluation,
    Wanted,
    evaluate_model,
    read_scores,
    wanted_task,
)
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.model import CausalModel, load_causal
from quadmix.evaluate.mubench.tables import read_predictions
from quadmix.io.atomic import read_value

TASKS = ("arc_easy", "winogrande")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin(tmp_path_factory.mktemp("data") / "bench")


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    return tiny_model(data, data.parent / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return load_causal(folder, device="cpu")


@pytest.fixture(scope="module")
def done(model: CausalModel, data: Path) -> tuple[Path, Evaluation]:
    out = data.parent / "results"
    return out, evaluate_model(model, data, out, Wanted(tasks=TASKS, split="test", unconditional=True))


def test_predictions_are_the_likeliest_options_of_the_cells(
    done: tuple[Path, Evaluation], data: Path
) -> None:
    out, found = done
    own = {(p.task, p.estimator): p for p in read_predictions(out / PREDICTIONS)}
    assert {e for t, e in own if t == "arc_easy"} == {"acc", "acc_bytes", "acc_mutual_info", "unconditional"}
    assert {e for t, e in own if t == "winogrande"} == {"acc", "acc_bytes"}  # a blank says nothing alone
    task = load_task(data, "arc_easy", "lighteval")
    chosen = own["arc_easy", "acc"]
    assert chosen.ids == task.ids
    assert [i.label for i in task.items["qaa"]] == chosen.labels.tolist()
    table = {(s.task, s.language, s.metric): s for s in read_scores(out / SCORES)}
    for language, picks in chosen.chosen.items():
        row = table["arc_easy_lighteval", language, "acc"]
        assert row.value == pytest.approx(np.mean(picks == chosen.labels))
        assert row.n == len(task.ids)
        assert row.chance == pytest.approx(np.mean([1 / len(i.choices) for i in task.items[language]]))
    assert read_value(out / EVALUATION, Evaluation).tasks == found.tasks
    assert found.packed is True
    assert [t.headline for t in found.tasks] == ["acc", "acc_bytes"]


def test_the_same_call_again_scores_nothing(done, model: CausalModel, data: Path, monkeypatch) -> None:
    out, found = done
    before = {p.name: p.read_bytes() for p in (out / "cells").iterdir()}
    monkeypatch.setattr("quadmix.evaluate.mubench.engine.score_cell", None)
    again = evaluate_model(model, data, out, Wanted(tasks=TASKS, split="test", unconditional=True))
    assert all(cell.kept for task in again.tasks for cell in task.cells)
    assert {p.name: p.read_bytes() for p in (out / "cells").iterdir()} == before
    assert [(s.metric, s.value) for s in again.scores] == [(s.metric, s.value) for s in found.scores]


def test_a_call_that_was_stopped_goes_on_with_the_next_cell(
    done, model: CausalModel, data: Path, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(what: str, count: int, total: int) -> None:
        if what.startswith("winogrande") and count:
            raise Stopped

    out, wanted = tmp_path / "r", Wanted(tasks=TASKS, split="test", unconditional=True)
    with pytest.raises(Stopped):
        evaluate_model(model, data, out, wanted, stop)
    assert len(list((out / "cells").glob("arc_easy.*"))) == 4
    assert {p.task for p in read_predictions(out / PREDICTIONS)} == {"arc_easy"}
    found = evaluate_model(model, data, out, wanted)
    assert [cell.kept for task in found.tasks for cell in task.cells] == [True] * 4 + [False] * 4
    assert (out / SCORES).read_bytes() == (done[0] / SCORES).read_bytes()


def test_other_tasks_are_added_and_changed_items_are_scored_anew(
    model: CausalModel, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "bench"
    shutil.copytree(data, own)
    out, first = tmp_path / "r", Wanted(tasks=("arc_easy",), languages=("qaa", "qab"), split="test")
    evaluate_model(model, own, out, first)
    evaluate_model(model, own, out, Wanted(tasks=("mnli",), languages=("qaa", "qab"), split="test"))
    assert {s.task for s in read_scores(out / SCORES)} == {"arc_easy_lighteval", "mnli_lighteval"}
    file = own / "ARCEasyDataset" / "lighteval_qab_test.jsonl"
    word = load_task(own, "arc_easy", "lighteval").items["qab"][0].prompt
    file.write_text(file.read_text(encoding="utf-8").replace(word, f"{word}?"), encoding="utf-8")
    again = evaluate_model(model, own, out, first)
    assert [(c.language, c.kept) for c in again.tasks[0].cells] == [("qaa", True), ("qab", False)]


def test_a_limit_takes_the_same_ids_in_every_language_and_grows(data: Path) -> None:
    parts = [wanted_task(data, "arc_easy", Wanted(tasks=(), split="test", limit=n)) for n in (3, 6, 99)]
    assert [len(p.ids) for p in parts] == [3, 6, 12]
    assert set(parts[0].ids) < set(parts[1].ids)
    for part in parts:
        assert all(tuple(i.id for i in own) == part.ids for own in part.items.values())


def test_items_that_do_not_fit_are_left_out_everywhere_and_cut_prompts_are_named(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    wanted = Wanted(tasks=("arc_easy",), split="test")
    whole = load_causal(folder, device="cpu")
    sizes = {
        language: {
            item.id: (
                len(whole.encode([item.prompt])[0]),
                [len(x) for x in whole.encode([f" {c}" for c in item.choices], special=False)],
            )
            for item in items
        }
        for language, items in load_task(data, "arc_easy", "lighteval").items.items()
    }
    limit = 5
    short = load_causal(folder, device="cpu", context=limit)
    found = evaluate_model(short, data, tmp_path / "r", wanted)
    facts = found.tasks[0]
    unfit = {i for own in sizes.values() for i, (_, ends) in own.items() if max(ends) > limit}
    assert 0 < len(facts.left_out) < 12
    assert set(facts.left_out) <= unfit  # without a space an answer may have fewer tokens than guessed here
    assert facts.items == 12 - len(facts.left_out)
    assert all(s.n == facts.items for s in found.scores if s.task == "arc_easy_lighteval")
    assert all(cell.cut for cell in facts.cells)
    with pytest.raises(InputError, match=r"arc_easy \(lighteval\): no item fits into the model's context"):
        evaluate_model(load_causal(folder, device="cpu", context=2), data, tmp_path / "s", wanted)


def test_results_of_another_model_are_not_mixed_in(done, data: Path, tmp_path: Path) -> None:
    other = load_causal(tiny_model(data, tmp_path / "other", seed=2), device="cpu")
    with pytest.raises(IdentityError, match=r"holds results of model 'model', not of 'other' \(digest"):
        evaluate_model(other, data, done[0], Wanted(tasks=TASKS))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"has 'notes.txt' and no identity.json"):
        evaluate_model(other, data, tmp_path / "mine", Wanted(tasks=TASKS))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(tasks=("arc_eazy",)), "no files of task arc_eazy"),
        (Wanted(tasks=("arc_easy",), mode="cloze"), "mode 'cloze' is not known; expected lighteval"),
        (Wanted(tasks=("arc_easy",), languages=("qaa", "xx")), "no lighteval test file of xx; there are qaa"),
        (Wanted(tasks=("arc_easy",), split="train"), "split 'train': expected test, dev, target"),
        (Wanted(tasks=("arc_easy",), limit=0), "limit is 0, expected at least one item"),
    ],
)
def test_names_that_are_not_there_are_refused(
    wanted: Wanted, said: str, model: CausalModel, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        evaluate_model(model, data, tmp_path / "r", wanted)


def test_a_folder_that_is_no_whole_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no config\.json; expected a folder in the Hugging Face format"
    ):
        load_causal(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for file in bare.glob("*token*"):
        file.unlink()
    with pytest.raises(InputError, match=r"AutoTokenizer cannot read it .* expected the tokenizer's files"):
        load_causal(bare, device="cpu")
    with pytest.raises(InputError, match="context is 4096, expected 2 to 128 tokens"):
        load_causal(folder, device="cpu", context=4096)
    lacking = tmp_path / "lacking"
    shutil.copytree(folder, lacking)
    tensors = load_file(lacking / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights of a LlamaForCausalLM \(model\.norm\.weight\)"):
        load_causal(lacking, device="cpu")


def test_a_tokenizer_of_another_model_is_refused_where_it_shows(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    content = orjson.loads((other / "tokenizer.json").read_bytes())
    content["model"]["vocab"] = {w: i + (i > 300) * 200 for w, i in content["model"]["vocab"].items()}
    (other / "tokenizer.json").write_bytes(orjson.dumps(content))
    with pytest.raises(InputError, match=r"the tokenizer gives the id \d+, the model has 448 entries"):
        load_causal(other, device="cpu").encode(list(content["model"]["vocab"]))


def test_where_a_cell_lies() -> None:
    assert cell_path("r", "arc_easy", "mix_2", "zh") == Path("r/cells/arc_easy.mix_2.zh.parquet")
