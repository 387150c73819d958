"""The comparison models of a run: which are saved, one as a Hugging Face folder, benchmarks as tasks for it.

A model of the base rung is named by its trial, one of another rung by `rung/trial`.
"""

import difflib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quadmix.corpus.benchmarks import read_benchmark
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import InputError, IntegrityError, MissingExtraError, RecipeError
from quadmix.evaluate.harness import HarnessTask, write_tasks
from quadmix.io.atomic import read_value, write_json
from quadmix.io.folders import files_in, new_folder
from quadmix.pipeline.ladder import BASE, RungPlan, rung_plans
from quadmix.proxy.choices import choice_rows
from quadmix.proxy.pool import PoolManifest
from quadmix.recipe import Recipe, load_recipe
from quadmix.types import Trial

if TYPE_CHECKING:
    from quadmix.proxy.hf import Precision

_RESOLVED = "recipe.resolved.yaml"
_ABOUT = "quadmix.json"  # in an exported folder: what it is, and the mark that --force may replace it


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """One comparison model whose weights are kept. weights: the file inside the run folder (bfloat16), of so
    many bytes. name: what `export_model` calls it."""

    name: str
    rung: str
    trial_id: str
    label: str
    seed: int
    train_tokens: int
    context: int
    weights: str
    bytes: int

    def render(self) -> str:
        """Return one line of text."""
        return (
            f"{self.name:32} {self.label:24} seed {self.seed:<6} {self.train_tokens:>13,} tokens "
            f"{self.bytes:>13,} bytes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """quadmix.json of an exported folder. entries: rows of its vocabulary, with padding.
    tokenizer: digest of the run's tokenizer."""

    model: SavedModel
    architecture: str
    layers: int
    width: int
    entries: int
    tokenizer: str
    precision: str
    version: int = 1


def list_models(run_folder: str | Path) -> list[SavedModel]:
    """Return every comparison model of a run whose weights are kept, by rung and trial."""
    home = Path(run_folder)
    return [model for plan in rung_plans(_run_recipe(home).evaluate) for model in _saved(home, plan)]


def export_model(
    run_folder: str | Path,
    name: str,
    out: str | Path,
    *,
    force: bool = False,
    precision: "Precision" = "float32",
) -> ExportedModel:
    """Write a saved model as a `LlamaForCausalLM` folder with its tokenizer, whole or not at all.

    name: as `list_models` gives it. force: replace a folder that an earlier export wrote.
    Raises InputError for a name that is not there or a folder that is not to be replaced, ProxyError for
    weights that are unsound or another model's.
    """
    home = Path(run_folder)
    model, tokenizer = _named(home, name), _tokenizer(home)
    shape = next(p.model for p in rung_plans(_run_recipe(home).evaluate) if p.name == model.rung)
    try:
        from quadmix.proxy.checkpoint import read_weights
        from quadmix.proxy.hf import check_shapes, write_llama
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "exporting a model") from error
    tensors = read_weights(home / model.weights)
    check_shapes(tensors, shape, shape.padded(tokenizer.vocab_size))  # before anything is replaced
    about = ExportedModel(
        model=model,
        architecture=shape.architecture,
        layers=shape.layers,
        width=shape.width,
        entries=shape.padded(tokenizer.vocab_size),
        tokenizer=tokenizer.digest,
        precision=precision,
    )
    _make_room(Path(out), force)
    with new_folder(out) as folder:
        write_llama(tensors, shape, tokenizer, folder, precision=precision)
        write_json(folder / _ABOUT, about)
    return about


def write_benchmark_tasks(source: str | Path, out: str | Path) -> list[HarnessTask]:
    """Write `evaluate.benchmarks` of a recipe, or of the recipe of a run folder, as lm-eval tasks."""
    place = Path(source)
    recipe = _run_recipe(place) if place.is_dir() else load_recipe(str(place))
    if not recipe.evaluate.benchmarks:
        raise RecipeError(
            f"{source} names no benchmark; expected evaluate.benchmarks with name, path and columns"
        )
    read = [read_benchmark(section, seed=recipe.seed) for section in recipe.evaluate.benchmarks]
    tasks = write_tasks(read, out)
    if not place.is_dir():
        return tasks
    tokenizer = Tokenizer.load(place / "tokenizer.json")
    return [
        replace(task, longest=max(len(row.ids) - row.unscored for row in choice_rows(items, tokenizer)))
        for task, items in zip(tasks, read, strict=True)
    ]


def _run_recipe(home: Path) -> Recipe:
    if not (home / _RESOLVED).is_file():
        raise InputError(
            f"{home} has no {_RESOLVED}, so it is no run folder of quadmix; expected one such as runs/demo"
        )
    return load_recipe(str(home / _RESOLVED))


def _saved(home: Path, plan: RungPlan) -> list[SavedModel]:
    trials = home / plan.folder / "trials"
    found: list[SavedModel] = []
    for file in sorted((trials / "weights").glob("[!.]*.safetensors")):
        if not (trials / f"{file.stem}.json").is_file():
            continue  # of a run that was killed: the weights are written first
        trial = read_value(trials / f"{file.stem}.json", Trial)
        found.append(
            SavedModel(
                name=trial.trial_id if plan.name == BASE else f"{plan.name}/{trial.trial_id}",
                rung=plan.name,
                trial_id=trial.trial_id,
                label=trial.label,
                seed=trial.seed,
                train_tokens=trial.train_tokens,
                context=plan.model.context,
                weights=file.relative_to(home).as_posix(),
                bytes=file.stat().st_size,
            )
        )
    return found


def _named(home: Path, name: str) -> SavedModel:
    models = {model.name: model for model in list_models(home)}
    if name in models:
        return models[name]
    if not models:
        raise InputError(
            f"{home} keeps no comparison models; run it with evaluate.enabled and evaluate.save_weights true"
        )
    near = difflib.get_close_matches(name, models, n=3, cutoff=0.4) or sorted(models)[:3]
    raise InputError(
        f"{home} keeps no model {name!r}; nearest: {', '.join(near)} (`quadmix models list` shows all)"
    )


def _tokenizer(home: Path) -> Tokenizer:
    """Return the tokenizer of the run, if it is still the one that its models were trained with."""
    tokenizer = Tokenizer.load(home / "tokenizer.json")
    manifest = read_value(home / "pool" / "manifest.json", PoolManifest)
    if manifest.tokenizer and manifest.tokenizer != tokenizer.digest:
        raise IntegrityError(
            f"{home / 'tokenizer.json'} has digest {tokenizer.digest}, the token pool was made by "
            f"{manifest.tokenizer}; expected the tokenizer of the run: put it back, or run again"
        )
    return tokenizer


def _make_room(out: Path, force: bool) -> None:
    """Remove an earlier export; anything else that lies there is left, and refused by `new_folder`."""
    if not force or not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / _ABOUT).is_file() or any(p.is_dir() for p in out.iterdir()):
        raise InputError(
            f"{out} was not written by `quadmix models export` alone ({len(files_in(out))} files); "
            "--force replaces such folders only: name another"
        )
    shutil.rmtree(out)
