"""The real lm-evaluation-harness, on the tasks that are written for it, chooses what the engine chooses.

One run, offline, on the stand-in (three scripts, one language without spaces) and a small model.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from engine_world import standin, tiny_model

from quadmix.evaluate.mubench.cells import Cell, cell_key, cell_path, read_cell
from quadmix.evaluate.mubench.engine import PREDICTIONS, Wanted, evaluate_model, wanted_task
from quadmix.evaluate.mubench.estimators import option_scores
from quadmix.evaluate.mubench.forms import questions
from quadmix.evaluate.mubench.harness_tasks import write_harness_tasks
from quadmix.evaluate.mubench.items import AlignedTask, Item
from quadmix.evaluate.mubench.model import load_causal
from quadmix.evaluate.mubench.tables import read_predictions
from quadmix.io.atomic import value_digest

TASKS = ("arc_easy", "bmlama", "mnli", "winogrande")
MODES = ("lighteval", "local_template", "en_template")
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed"
)


def wanted(mode: str) -> Wanted:
    return Wanted(tasks=TASKS, mode=mode, split="test", limit=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a model, the tasks and what both engines say of them."""
    home = tmp_path_factory.mktemp("harness")
    data = standin(home / "data")
    # some blanks of one language come last, as verb-final languages put them
    file = data / "WinoGrandeDataset" / "lighteval_qab_test.jsonl"
    rows = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    for row in rows[::2]:
        row["prompt"] = row["prompt"].replace("_", "").replace(".", " _.")
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    tiny_model(data, home / "model")
    tasks = [wanted_task(data, name, wanted(mode)) for mode in MODES for name in TASKS]
    write_harness_tasks(tasks, home / "tasks")
    model = load_causal(home / "model", device="cpu")
    for mode in MODES:
        evaluate_model(model, data, home / "results", wanted(mode))
    return home


@pytest.fixture(scope="module")
def harness(world: Path) -> dict[str, Any]:
    groups = [f"mubench_{task}_{mode}" for mode in MODES for task in TASKS]
    script = Path(__file__).with_name("harness_run.py")
    out = world / "samples.json"
    command = [
        sys.executable, str(script), str(world / "model"), str(world / "tasks"), str(out), *groups,
    ]  # fmt: skip
    env = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(world / "cache"),
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    done = subprocess.run(command, env=env, cwd=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return orjson.loads(out.read_bytes())


def samples_of(harness: dict[str, Any], task: str, mode: str, language: str) -> dict[str, dict[str, Any]]:
    """Return the samples of a task by item, of both its forms."""
    name = f"mubench_{task}_{mode}_{language}"
    found = [harness["samples"].get(f"{name}{part}", []) for part in ("", "_rest", "_whole")]
    return {sample["doc"]["_id"]: sample for part in found for sample in part}


@needs_harness
@pytest.mark.parametrize("mode", MODES)
def test_both_engines_choose_the_same_option_on_every_item(
    world: Path, harness: dict[str, Any], mode: str
) -> None:
    every = read_predictions(world / "results" / PREDICTIONS)
    predictions = {(p.task, p.estimator): p for p in every if p.mode == mode}
    compared = 0
    for name in TASKS:
        own = wanted_task(world / "data", name, wanted(mode))
        for language in own.items:
            theirs = samples_of(harness, name, mode, language)
            assert theirs.keys() == set(own.ids)
            plain, bytewise = (predictions[name, e].chosen[language] for e in ("acc", "acc_bytes"))
            for row, item in enumerate(own.items[language]):
                sample = theirs[item.id]
                scores = np.array([float(pair[0]) for pair in sample["filtered_resps"]])
                assert same(item, int(scores.argmax()), int(plain[row]))
                if "contexts" not in sample["doc"]:
                    sizes = [len(choice.encode()) for choice in sample["doc"]["choices"]]
                    assert same(item, int((scores / sizes).argmax()), int(bytewise[row]))
                compared += 1
    assert compared == len(TASKS) * 4 * 8


def same(item: Item, theirs: int, ours: int) -> bool:
    """Ours settles ties with the right text."""
    return theirs == ours or item.choices[theirs].casefold() == item.choices[ours].casefold()


@needs_harness
def test_log_likelihoods_agree(world: Path, harness: dict[str, Any]) -> None:
    model = load_causal(world / "model", device="cpu")
    worst = 0.0
    for mode in MODES:
        for name in TASKS:
            own = wanted_task(world / "data", name, wanted(mode))
            for language, items in own.items.items():
                table = option_scores(cell_of(world, own, language, model.facts), "acc")
                theirs = samples_of(harness, name, mode, language)
                for row, item in enumerate(items):
                    found = [float(pair[0]) for pair in theirs[item.id]["filtered_resps"]]
                    worst = max(worst, np.abs(table[row, : len(found)] - found).max())
    assert worst < 1e-3


def cell_of(world: Path, task: AlignedTask, language: str, facts: Any) -> Cell:
    asked = questions(task.task, task.mode, language, task.items[language])
    key = cell_key(asked, value_digest([facts.digest, facts.precision, facts.context]), unconditional=False)
    found = read_cell(cell_path(world / "results", task.task, task.mode, language), key)
    assert found is not None
    return found


@needs_harness
def test_groups_hold_the_tasks_that_their_names_say(harness: dict[str, Any]) -> None:
    groups = {name: set(members) for name, members in harness["groups"].items()}
    codes = ("qaa", "qab", "qac", "qad")
    assert groups["mubench_small"] == {
        f"mubench_{t}_lighteval_{c}" for t in ("arc_easy", "bmlama", "mnli") for c in codes
    }
    assert groups["mubench_small_en_template"] == {
        f"mubench_{t}_en_template_{c}" for t in ("arc_easy", "bmlama", "mnli") for c in codes
    }
    assert groups["mubench_winogrande_lighteval"] == {
        *(f"mubench_winogrande_lighteval_{c}_rest" for c in codes), "mubench_winogrande_lighteval_qab_whole",
    }  # fmt: skip
    assert groups["mubench_local_template_qad"] == {f"mubench_{t}_local_template_qad" for t in TASKS}
    assert groups["mubench_factual_lighteval"] == {f"mubench_bmlama_lighteval_{c}" for c in codes}
    assert groups["mubench_understanding_lighteval"] >= groups["mubench_mnli_lighteval"]


@needs_harness
def test_the_mean_of_a_group_is_that_of_its_languages(harness: dict[str, Any]) -> None:
    results = harness["results"]
    each = [results[f"mubench_bmlama_lighteval_{c}"]["acc,none"] for c in ("qaa", "qab", "qac", "qad")]
    assert results["mubench_bmlama_lighteval"]["acc,none"] == pytest.approx(np.mean(each))
    # two forms of one task are weighed by their items
    parts = [results[f"mubench_winogrande_lighteval_qab{part}"] for part in ("_rest", "_whole")]
    sizes = [part["sample_len"] for part in parts]
    want = np.average([part["acc,none"] for part in parts], weights=sizes)
    assert sum(sizes) == 8
    assert min(sizes) > 0
    assert results["mubench_winogrande_lighteval_qab"]["acc,none"] == pytest.approx(want)


def test_no_space_goes_before_options_where_words_are_not_spaced(world: Path) -> None:
    def line(name: str) -> str:
        text = (world / "tasks" / f"{name}.yaml").read_text(encoding="utf-8")
        return next(row for row in text.splitlines() if row.startswith("target_delimiter"))

    assert line("mubench_arc_easy_lighteval_qad") == 'target_delimiter: ""'
    assert line("mubench_arc_easy_lighteval_qac") == 'target_delimiter: " "'
    assert line("mubench_arc_easy_en_template_qad") == 'target_delimiter: " "'
