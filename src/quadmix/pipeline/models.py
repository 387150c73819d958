"""The comparison models of a run: which are saved, one as a Hugging Face folder, benchmarks as tasks for it.

A model of the base rung is named by its trial, one of another rung by `rung/trial`. Files of models that the
recipe no longer asks for stay where they are and are marked as stale. What shape a model has is read from its
own file, since the recipe may have changed after it was trained.
"""

import difflib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quadmix.corpus.benchmarks import read_benchmark
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import InputError, IntegrityError, MissingExtraError, ProxyError, RecipeError
from quadmix.evaluate.harness import HarnessTask, write_tasks
from quadmix.io.atomic import read_value, write_json
from quadmix.io.folders import files_in, new_folder
from quadmix.pipeline.confirming import file_names
from quadmix.pipeline.ladder import BASE, RungPlan, contestant_labels, rung_plans
from quadmix.proxy.choices import choice_rows
from quadmix.proxy.facts import read_header
from quadmix.proxy.pool import PoolManifest
from quadmix.recipe import ModelSection, Recipe, TrainingSection, load_recipe
from quadmix.types import Trial

if TYPE_CHECKING:
    from quadmix.proxy.hf import Precision

_RESOLVED = "recipe.resolved.yaml"
_ABOUT = "quadmix.json"  # in an exported folder: what it is, and the mark that --force may replace it


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """One comparison model whose weights are kept. weights: the file inside the run folder (bfloat16), of so
    many bytes. name: what `export_model` calls it. context: of its training, 0 if its file does not say.
    stale: why it is no model of the present comparison, "" if it is one."""

    name: str
    rung: str
    trial_id: str
    label: str
    seed: int
    train_tokens: int
    context: int
    weights: str
    bytes: int
    stale: str = ""

    def render(self) -> str:
        """Return one line of text."""
        return (
            f"{self.name:32} {self.label:24} seed {self.seed:<6} {self.train_tokens:>13,} tokens "
            f"{self.bytes:>13,} bytes" + (f"  stale: {self.stale}" if self.stale else "")
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
    """Return every comparison model of a run whose weights are kept, by rung and trial, stale ones too."""
    home = Path(run_folder)
    recipe = _run_recipe(home)
    found = [model for plan in rung_plans(recipe.evaluate) for model in _saved(home, recipe, plan)]
    known = {plan.name for plan in rung_plans(recipe.evaluate)}
    others = sorted(p.name for p in (home / "evaluate" / "rungs").glob("*") if p.name not in known)
    return [*found, *(model for name in others for model in _saved(home, recipe, name))]


def why_none(run_folder: str | Path) -> str:
    """Say why a run keeps no comparison models, and what to do to have them."""
    home = Path(run_folder)
    section = _run_recipe(home).evaluate
    begin = f"{home} keeps no comparison models: "
    if not section.enabled:
        return f"{begin}evaluate.enabled is false; set it to true and run again"
    rows = [home / plan.folder / "rows" for plan in rung_plans(section)]
    left = ", ".join(str(folder) for folder in rows if folder.is_dir())
    if not left:
        return f"{begin}the comparison has not been run; `quadmix run RECIPE` does"
    key = "" if section.save_weights else "set evaluate.save_weights to true, "
    return (
        f"{begin}they were scored and their weights were not kept, or removed; to have them trained again, "
        f"{key}remove {left} and run again"
    )


def export_model(
    run_folder: str | Path,
    name: str,
    out: str | Path,
    *,
    force: bool = False,
    stale: bool = False,
    precision: "Precision" = "float32",
) -> ExportedModel:
    """Write a saved model as a `LlamaForCausalLM` folder with its tokenizer, whole or not at all.

    name: as `list_models` gives it. force: replace a folder that an earlier export wrote. stale: also where
    the model is none of the present comparison.
    Raises InputError for a name that is not there, a stale model that was not asked for as such, or a folder
    that is not to be replaced; ProxyError for weights that are unsound, do not say of what shape they are, or
    are another tokenizer's.
    """
    home = Path(run_folder)
    model, tokenizer = _named(home, name), _tokenizer(home)
    if model.stale and not stale:
        raise InputError(
            f"model {name!r} is stale ({model.stale}); expected one of the present comparison: "
            "`quadmix models list` shows them, --stale exports this one all the same"
        )
    shape = _shape(home, model)
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


def _saved(home: Path, recipe: Recipe, plan: RungPlan | str) -> list[SavedModel]:
    """Return the models of a rung; a plain name is that of a rung that the recipe no longer has."""
    rung = plan if isinstance(plan, str) else plan.name
    folder = Path("evaluate", "rungs", plan) if isinstance(plan, str) else plan.folder
    trials = home / folder / "trials"
    present = {} if isinstance(plan, str) else _present(recipe, plan)
    found: list[SavedModel] = []
    for file in sorted((trials / "weights").glob("[!.]*.safetensors")):
        if not (trials / f"{file.stem}.json").is_file():
            continue  # of a run that was killed: the weights are written first
        trial, made = read_value(trials / f"{file.stem}.json", Trial), _made(file)
        stale = f"the recipe has no rung {rung!r}" if isinstance(plan, str) else _stale(trial, plan, made)
        if not stale and present.get(trial.trial_id) != trial.label:
            stale = "the recipe compares no such selector, or fewer seeds"
        found.append(
            SavedModel(
                name=trial.trial_id if rung == BASE else f"{rung}/{trial.trial_id}",
                rung=rung,
                trial_id=trial.trial_id,
                label=trial.label,
                seed=trial.seed,
                train_tokens=trial.train_tokens,
                context=made.model.context if made else 0,
                weights=file.relative_to(home).as_posix(),
                bytes=file.stat().st_size,
                stale=stale,
            )
        )
    return found


def _present(recipe: Recipe, plan: RungPlan) -> dict[str, str]:
    """Return trial id -> label of the models that a rung trains now, as `contestants` names them."""
    names = file_names(contestant_labels(recipe, plan))
    return {f"compare-{name}-{seed}": label for label, name in names.items() for seed in range(plan.seeds)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a model was made with, as its file says."""

    model: ModelSection
    training: TrainingSection


def _made(weights: Path) -> _Made | None:
    """Return what a file of weights says of its model; None if it is unsound or from before files said it."""
    try:
        facts = read_header(weights).facts
        return _Made(
            model=ModelSection.model_validate_json(facts["model"]),
            training=TrainingSection.model_validate_json(facts["training"]),
        )
    except (ProxyError, KeyError, ValueError):
        return None


def _stale(trial: Trial, plan: RungPlan, made: _Made | None) -> str:
    if trial.status == "failed":
        return f"its training failed: {trial.reason}"
    if made and _plain(made.model) != _plain(plan.model):
        return "it was trained with another model section than the recipe's"
    if made and made.training != plan.training:
        return "it was trained with another training section than the recipe's"
    return ""


def _plain(model: ModelSection) -> ModelSection:
    return model.model_copy(update={"size": None})  # the keys that it stands for are there too


def _shape(home: Path, model: SavedModel) -> ModelSection:
    file = home / model.weights
    read_header(file)  # unsound weights are refused as such
    if (made := _made(file)) is not None:
        return made.model
    rows = file.parents[2] / "rows" / f"{model.trial_id}.parquet"
    raise ProxyError(
        f"weights {str(file)!r} do not say of what shape their model is, as files of an older version do "
        f"not, and the recipe may have changed since; remove them and {str(rows)!r}, and run again: the "
        "model is then trained anew"
    )


def _named(home: Path, name: str) -> SavedModel:
    models = {model.name: model for model in list_models(home)}
    if name in models:
        return models[name]
    if not models:
        raise InputError(why_none(home))
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
