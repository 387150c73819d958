"""The real lm-evaluation-harness on an exported model gives our likelihoods and our predictions.

One run of its CLI, offline, on a small trained model and three benchmarks made from the demo's texts: answer
options (with odd white space, empty prompts, prompts longer than the context), a blank, and last words.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from tiny_run import demo_rows, tiny_recipe, write_rows
from typer.testing import CliRunner

from quadmix.cli.models import app
from quadmix.corpus.benchmarks import BenchmarkItems, read_benchmark
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.engine.tasks import Place
from quadmix.errors import InputError, IntegrityError, ProxyError, RecipeError
from quadmix.evaluate.harness import task_rows, write_tasks
from quadmix.io.atomic import read_table, write_json, write_text
from quadmix.pipeline.ladder import RungPlan, rung_plans
from quadmix.pipeline.models import export_model, list_models, write_benchmark_tasks
from quadmix.proxy.checkpoint import read_weights, write_weights
from quadmix.proxy.choices import encode_benchmarks, read_choices
from quadmix.proxy.facts import model_facts, read_header
from quadmix.proxy.head import head_loss
from quadmix.proxy.model import hidden_states, initial_weights
from quadmix.proxy.pool import PoolManifest
from quadmix.proxy.scoring import ScoringSetting, score_models
from quadmix.recipe import ModelSection, Recipe, check_recipe, dump_recipe, load_recipe
from quadmix.types import Trial

ITEMS, CONTEXT = 40, 48
# no long words: the harness stops at a choice that is longer than the context
WORDS = [[w for w in row["text"].split() if len(w) < 13] for row in demo_rows("pool.jsonl.zst", 80)]
TEXTS = [" ".join(words[:120]) for words in WORDS if len(words) >= 120][:24]
MODEL = {"layers": 2, "width": 64, "heads": 2, "mlp": 128, "context": CONTEXT, "vocab_multiple": 64}
FORMS: dict[str, dict[str, str]] = {
    "options": {"choices": "choices", "gold": "gold"},
    "blank": {"choices": "choices", "gold": "gold", "blank": "_"},
    "last-word": {"answer": "answers"},
}


def option_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(ITEMS):
        words, count = TEXTS[i % 24].split(), 2 + i % 4
        prompt = " ".join(words[i : i + 4 + 3 * (i % 30)])  # the longest do not fit into the context
        prompt += ("", " ", "\n", "  \n")[i % 4]
        ends = [" ".join(TEXTS[(i + 5 * c) % 24].split()[90 : 91 + (i + c) % 6]) for c in range(count)]
        rows.append({"query": "" if i % 10 == 9 else prompt, "choices": ends, "gold": i % count})
    return rows


def blank_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(ITEMS):
        words = TEXTS[i % 24].replace("_", "-").split()[i : i + 12]
        other = TEXTS[(i + 7) % 24].split()[20]
        text = " ".join([*words[:5], "_", *words[6:]]) if i % 8 else " ".join(["_", *words[1:]])
        rows.append({"query": text, "choices": [words[5], other], "gold": i % 2})
    return rows


def last_word_rows() -> list[dict[str, Any]]:
    texts = [TEXTS[i % 24].split()[: 20 + i] for i in range(ITEMS)]
    return [{"query": " ".join(words[:-1]), "answers": [words[-1]]} for words in texts]


def make_recipe(folder: Path) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"options": option_rows, "blank": blank_rows, "last-word": last_word_rows}
    for name, make in makers.items():
        write_rows(folder / f"{name}.jsonl", make())
    benchmarks = [
        {"name": name, "path": str(folder / f"{name}.jsonl"), **form} for name, form in FORMS.items()
    ]
    large = {**MODEL, "layers": 1, "architecture": "tinyllama", "head": "untied"}
    return tiny_recipe(
        folder,
        proxy__model=MODEL,
        evaluate__model=MODEL,
        evaluate__ladder=[{"name": "other", "model": large}],
        evaluate__benchmarks=benchmarks,
    )


def trained(model: ModelSection, tokenizer: Tokenizer, steps: int) -> dict[str, torch.Tensor]:
    """Weights that know their few texts in part: some last words are the likeliest, some are not."""
    weights = initial_weights(model, model.padded(tokenizer.vocab_size), [1], torch.device("cpu"))
    ids = [i for text in tokenizer.encode(TEXTS) for i in (tokenizer.end_of_document, *text)]
    windows = torch.tensor(ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)]).view(-1, CONTEXT + 1)
    optimizer = torch.optim.AdamW(list(weights.named().values()), lr=4e-3)
    for step in range(steps):
        batch = windows[torch.arange(8 * step, 8 * step + 8) % len(windows)]
        states = hidden_states(weights, batch[None, :, :-1], model, torch.float32)
        loss = head_loss(states, weights.table, batch[:, 1:].reshape(1, -1))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return {name: tensor[0].detach() for name, tensor in weights.named().items()}


def some_trial(name: str, label: str) -> Trial:
    return Trial(
        trial_id=name, kind="compare", label=label, theta=None, seed=4, selected_tokens=9, unique_tokens=9,
        train_tokens=1_234, epochs=1.0, losses={}, heldout={}, status="done",
    )  # fmt: skip


def add_model(run: Path, plan: RungPlan, name: str, label: str, tensors: dict[str, torch.Tensor]) -> None:
    trials, facts = run / plan.folder / "trials", model_facts(plan.model, plan.training)
    write_weights(str(trials / "weights" / f"{name}.safetensors"), tensors, facts)
    write_json(trials / f"{name}.json", some_trial(name, label))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with what a comparison leaves: recipe, tokenizer, one model per rung."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("harness")
    recipe, home = make_recipe(folder / "data"), folder / "run"
    write_text(home / "recipe.resolved.yaml", dump_recipe(recipe))
    write_text(home / "tokenizer.json", train_tokenizer(TEXTS, 700))
    tokenizer = Tokenizer.load(home / "tokenizer.json")
    manifest = PoolManifest(
        documents=1, tokens=9, vocab_size=tokenizer.vocab_size, source="t", tokenizer=tokenizer.digest
    )
    write_json(home / "pool" / "manifest.json", manifest)
    base, other = rung_plans(recipe.evaluate)
    add_model(home, base, "compare-quadmix-0", "quadmix", trained(base.model, tokenizer, steps=120))
    add_model(home, other, "compare-random-0", "random", trained(other.model, tokenizer, steps=0))
    torch.set_num_threads(threads)
    return home


def run_harness(folder: Path, model: Path, tasks: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the CLI and return the samples of every task in the order of the items."""
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model}",
        "--include_path", str(tasks), "--tasks", "quadmix", "--device", "cpu", "--batch_size", "8",
        "--log_samples", "--output_path", str(folder / "results"),
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    env = {**os.environ, **offline, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out: dict[str, list[dict[str, Any]]] = {}
    for file in (folder / "results").rglob("samples_*.jsonl"):
        rows = [orjson.loads(line) for line in file.read_bytes().splitlines()]
        name = file.name.rsplit("_", 1)[0].removeprefix("samples_quadmix_")
        out[name] = sorted(rows, key=lambda row: row["doc"]["id"])
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ours:
    """Our scores of one benchmark. loglikelihood: per item, of its choices; greedy, characters alike."""

    loglikelihood: list[np.ndarray]
    greedy: list[np.ndarray]
    characters: list[np.ndarray]
    gold: tuple[int, ...]


def our_scores(run: Path, folder: Path) -> dict[str, Ours]:
    """Score the saved weights of the base rung with our own code, in float32."""
    recipe = load_recipe(str(run / "recipe.resolved.yaml"))
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    model = recipe.evaluate.model
    items = [read_benchmark(section, seed=recipe.seed) for section in recipe.evaluate.benchmarks]
    encode_benchmarks(items, tokenizer, CONTEXT, str(folder / "sets"))
    setting = ScoringSetting(model=model, vocab_size=model.padded(tokenizer.vocab_size), device="cpu")
    weights = run / "evaluate" / "trials" / "weights"
    assert not score_models(
        ["compare-quadmix-0"],
        weights,
        setting,
        [str(folder / "sets")],
        folder / "rows",
        place=Place(executor="serial"),
    )
    table = read_table(folder / "rows" / "compare-quadmix-0.parquet")
    task = np.asarray(table["task"].to_pylist())
    nll, greedy = np.asarray(table["nll"]), np.asarray(table["greedy"].to_pylist())
    out: dict[str, Ours] = {}
    for name, rows in read_choices(folder / "sets").items():
        ends = np.flatnonzero(np.diff(rows.item)) + 1
        out[name] = Ours(
            loglikelihood=np.split(-nll[task == name].astype(np.float64), ends),
            greedy=np.split(greedy[task == name], ends),
            characters=np.split(np.asarray(rows.characters, dtype=np.float64), ends),
            gold=rows.gold,
        )
    return out


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed")
def test_the_harness_gives_our_likelihoods_and_predictions(run: Path, tmp_path: Path) -> None:
    export_model(run, "compare-quadmix-0", tmp_path / "model")
    assert [t.items for t in write_benchmark_tasks(run, tmp_path / "tasks")] == [ITEMS] * 3
    theirs, ours = run_harness(tmp_path, tmp_path / "model", tmp_path / "tasks"), our_scores(run, tmp_path)
    assert set(theirs) == set(ours) == set(FORMS)
    for name, samples in theirs.items():
        mine = ours[name]
        assert len(samples) == len(mine.gold) == ITEMS
        for i, sample in enumerate(samples):
            found = np.asarray([float(first) for first, _ in sample["filtered_resps"]])
            np.testing.assert_allclose(found, mine.loglikelihood[i], rtol=0, atol=1e-3)
            greedy = [str(second) == "True" for _, second in sample["filtered_resps"]]
            assert greedy == mine.greedy[i].tolist()
            if name == "last-word":
                assert sample["acc"] == mine.greedy[i][0]
                continue
            gold, own = mine.gold[i], mine.loglikelihood[i]
            assert np.argmax(found) == np.argmax(own)
            assert sample["acc"] == (np.argmax(own) == gold)
            if name == "options":
                assert sample["acc_norm"] == (np.argmax(own / mine.characters[i]) == gold)
    words = [bool(greedy[0]) for greedy in ours["last-word"].greedy]
    assert 0 < sum(words) < ITEMS  # else the agreement on them would say nothing


def test_models_are_listed_by_rung_and_exported_by_name(run: Path, tmp_path: Path) -> None:
    assert [(m.name, m.rung, m.label, m.seed) for m in list_models(run)] == [
        ("compare-quadmix-0", "base", "quadmix", 4), ("other/compare-random-0", "other", "random", 4),
    ]  # fmt: skip
    done = export_model(run, "other/compare-random-0", tmp_path / "other", precision="bfloat16")
    assert (done.architecture, done.precision, done.entries) == ("tinyllama", "bfloat16", 704)
    config = orjson.loads((tmp_path / "other" / "config.json").read_bytes())
    assert (config["num_hidden_layers"], config["tie_word_embeddings"]) == (1, False)
    with pytest.raises(
        InputError, match=r"no model 'other/compare-random-7'; nearest: other/compare-random-0"
    ):
        export_model(run, "other/compare-random-7", tmp_path / "none")
    with pytest.raises(InputError, match=r"no recipe.resolved.yaml, so it is no run folder"):
        list_models(tmp_path)


def test_force_replaces_an_earlier_export_and_nothing_else(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export_model(run, "compare-quadmix-0", out)
    before = (out / "model.safetensors").stat().st_size
    with pytest.raises(InputError, match="exists and is not empty"):
        export_model(run, "compare-quadmix-0", out)
    export_model(run, "compare-quadmix-0", out, force=True, precision="bfloat16")
    assert (out / "model.safetensors").stat().st_size < before
    (out / "quadmix.json").unlink()
    with pytest.raises(InputError, match="was not written by `quadmix models export`"):
        export_model(run, "compare-quadmix-0", out, force=True)
    assert (out / "model.safetensors").exists()


def test_a_changed_tokenizer_or_unsound_weights_stop_the_export(run: Path, tmp_path: Path) -> None:
    text = (run / "tokenizer.json").read_text(encoding="utf-8")
    write_text(run / "tokenizer.json", text + " ")
    with pytest.raises(IntegrityError, match="expected the tokenizer of the run"):
        export_model(run, "compare-quadmix-0", tmp_path / "model")
    write_text(run / "tokenizer.json", text)
    weights = run / "evaluate" / "trials" / "weights"
    (weights / "cut.safetensors").write_bytes((weights / "compare-quadmix-0.safetensors").read_bytes()[:99])
    write_json(run / "evaluate" / "trials" / "cut.json", some_trial("cut", "theta"))
    with pytest.raises(ProxyError, match="cannot be read"):
        export_model(run, "cut", tmp_path / "model", stale=True)
    assert not (tmp_path / "model").exists()
    export_model(run, "compare-quadmix-0", tmp_path / "model")
    sound = weights / "compare-quadmix-0.safetensors"
    other = run / "evaluate" / "rungs" / "other" / "trials" / "weights" / "compare-random-0.safetensors"
    write_weights(str(weights / "cut.safetensors"), read_weights(other), read_header(sound).facts)
    with pytest.raises(ProxyError, match="expected weights of the same model"):
        export_model(run, "cut", tmp_path / "model", force=True, stale=True)
    assert (tmp_path / "model" / "config.json").exists()
    (weights / "cut.safetensors").unlink()


def test_the_commands_print_what_they_did(run: Path, tmp_path: Path) -> None:
    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = orjson.loads(call("list", run, "--json"))["models"]
    assert [m["name"] for m in listed] == ["compare-quadmix-0", "other/compare-random-0"]
    assert "other/compare-random-0" in call("list", run)
    told = call("export", run, "compare-quadmix-0", "--out", tmp_path / "model")
    assert "2 layers of width 64, context 48, 704 entries, float32" in told
    about = (tmp_path / "model" / "quadmix.json").read_bytes()
    assert orjson.loads(about)["model"]["label"] == "quadmix"
    assert str(run).encode() not in about  # it may be published
    told = call("tasks", run, "--out", tmp_path / "tasks")
    assert "quadmix_options  40 items, chance 0.321, choices of up to" in told
    assert (tmp_path / "tasks" / "quadmix_options.yaml").exists()
    found = orjson.loads(call("tasks", run, "--out", tmp_path / "tasks", "--json"))["tasks"]
    assert [t["items"] for t in found] == [ITEMS] * 3


def test_tasks_can_be_written_from_a_recipe_and_need_benchmarks(run: Path, tmp_path: Path) -> None:
    tasks = write_benchmark_tasks(run / "recipe.resolved.yaml", tmp_path / "tasks")
    assert [(t.name, t.longest) for t in tasks] == [(f"quadmix_{name}", 0) for name in FORMS]
    settings = load_recipe(str(run / "recipe.resolved.yaml")).model_dump(mode="json")
    settings["evaluate"]["benchmarks"] = []
    write_text(tmp_path / "none.yaml", dump_recipe(check_recipe(settings)))
    with pytest.raises(RecipeError, match=r"names no benchmark; expected evaluate\.benchmarks"):
        write_benchmark_tasks(tmp_path / "none.yaml", tmp_path / "tasks")


def one_item(**changes: Any) -> BenchmarkItems:
    item = BenchmarkItems(
        name="one", contexts=(("a b", "a b"),), continuations=((" c", " d e"),), choices=(("c", "d e"),),
        gold=(1,), kind="choices", rows_in=1,
    )  # fmt: skip
    return replace(item, **changes)


def test_the_space_before_a_choice_goes_into_the_context() -> None:
    assert task_rows(one_item()) == [{"id": 0, "context": "a b ", "choices": ["c", "d e"], "gold": 1}]
    joined = one_item(contexts=(("a\n",) * 2,), continuations=(("c", "d e"),))
    assert task_rows(joined)[0]["context"] == "a\n"


def test_items_that_the_harness_has_no_form_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'one', item 0: what stands before the choices differs"):
        write_tasks([one_item(contexts=(("a b", "x b"),))], tmp_path)
    with pytest.raises(InputError, match="'one', item 0: 2 different texts after the blank"):
        write_tasks([one_item(blank=True)], tmp_path)
