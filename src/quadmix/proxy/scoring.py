"""Saved models scored row by row on targets, held-out text and benchmarks; every model is one Parquet file.

In: names of models, the folder with their weights, a setting, the folders of the sets. Out, per model,
`<name>.parquet` with one row per row of every set, or `<name>.refused.json` with the reason why not (which
wins where both lie). Many models are loaded into one batched model, as in training; a worker computes with
one thread, and on a CPU a model's rows are the same to the bit whatever is scored with it (held by a test),
so neither the number of workers nor memory that makes a group smaller changes a byte. On a GPU the size of
a group may move last digits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from quadmix.engine.tasks import LOCAL, Place, run_tasks
from quadmix.errors import InputError, IntegrityError, MissingExtraError, ProxyError
from quadmix.io.atomic import file_digest, read_table, read_value, value_digest, write_json, write_table
from quadmix.proxy.facts import read_header
from quadmix.proxy.rescore import load_models, weights_path
from quadmix.proxy.targets import IGNORE, TargetManifest, TargetSet, open_targets, target_digests
from quadmix.recipe import ModelSection

if TYPE_CHECKING:
    from quadmix.proxy.losses import RowScores

_GONE = "absent"  # stands for the digest of weights that are not there


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSetting:
    """What the models are and how they are computed. precision: float32 is what lm-evaluation-harness is run
    with here, so that likelihoods agree; bfloat16 rounds a probability to three digits and makes ties."""

    model: ModelSection
    vocab_size: int
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a model has no rows; key: as in its Parquet file. made_of, job: too, where the model itself is the
    reason (its losses are not finite), so that other weights would be another model; else ""."""

    reason: str
    key: str
    made_of: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """key: digest of weights, sets and setting. made_of: of sets and setting alone. job: what the weights
    were trained from, "" if that is not known. there: are its weights on disk?"""

    name: str
    key: str
    made_of: str
    job: str
    there: bool

    @property
    def marks(self) -> dict[str, str]:
        """Return the metadata of its rows."""
        return {"key": self.key, "made_of": self.made_of, "job": self.job}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    models: tuple[_Model, ...]
    weights: str
    setting: ScoringSetting
    sets: tuple[str, ...]
    out: str
    at_most: int = 1 << 30  # models to score together, after workers died of more


def rows_path(folder: str | Path, name: str) -> Path:
    """Return where the rows of a model lie."""
    return Path(folder, f"{name}.parquet")


def refused_path(folder: str | Path, name: str) -> Path:
    """Return where it is written why a model has no rows."""
    return Path(folder, f"{name}.refused.json")


def score_models(
    names: Sequence[str],
    weights_folder: str | Path,
    setting: ScoringSetting,
    sets: Sequence[str],
    out_folder: str | Path,
    *,
    jobs: Mapping[str, str] | None = None,
    group: int = 8,
    place: Place = LOCAL,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Score the models on every set of the folders `sets`; return those that could not be, with the reason.

    The columns are `task`, `kind` (target, heldout, benchmark), `row` int32, `nll` float32 (nats, summed over
    the row's scored tokens), `bytes` and `tokens` int32, `greedy` bool (is each of them the likeliest?).
    A model is left as it is if its file was made from the same weights, sets and setting; where its weights
    are gone, from the same sets, setting and job. jobs: name -> digest of what a model was trained from
    (`Trial.job`). Weights that are unsound or of another shape, or gone without rows that still hold, and
    losses that are not finite, refuse that model alone. group: models scored together, halved where memory
    runs out; on_done hears of how many models at a time. Raises ProxyError for sets of another tokenizer or
    longer windows than the context, or where memory does not suffice for one model; InputError for two sets
    of one kind and name.
    """
    digest, home, tell = _check_sets(sets, setting), Path(out_folder), on_done or (lambda _: None)
    refused, todo = dict[str, str](), list[_Model]()
    for name in names:
        weights = weights_path(weights_folder, name)
        own = file_digest(weights) if weights.is_file() else _GONE
        model = _Model(
            name=name, key=_key(own, digest, setting), made_of=_key("", digest, setting),
            job=(jobs or {}).get(name, ""), there=own != _GONE,
        )  # fmt: skip
        reason = _stored(home, model)
        if reason is None and model.there:
            todo.append(model)
            continue
        refused[name] = _gone(home, weights, model) if reason is None else reason
        tell(1)
    tasks = [
        _Group(
            models=tuple(todo[i : i + group]), weights=str(weights_folder), setting=setting,
            sets=tuple(map(str, sets)), out=str(home),
        )
        for i in range(0, len(todo), group)
    ]  # fmt: skip
    done = run_tasks(
        score_task, tasks, place=place, on_done=lambda i, _: tell(len(tasks[i].models)), on_death=_smaller
    )
    for found in done:
        refused |= found
    return {name: refused[name] for name in names if refused.get(name)}


def rows_key(sets: Sequence[str], setting: ScoringSetting) -> str:
    """Return the digest of what rows are made of beside the weights: the sets and the setting.

    Raises as `score_models` does.
    """
    return _key("", _check_sets(sets, setting), setting)


def scored(out_folder: str | Path, name: str, made_of: str, job: str = "") -> bool:
    """Is all there that `score_models` needs of a model whose weights are gone: its rows, or that its losses
    are not finite, for these sets (`rows_key`) and this job?"""
    model = _Model(name=name, key="", made_of=made_of, job=job, there=False)
    return _matches(_marks(out_folder, name), model) or _final(Path(out_folder), model) is not None


def sound_weights(path: str | Path, setting: ScoringSetting) -> bool:
    """Is this a whole file of weights of the setting's shape? Its numbers are not read."""
    import torch

    from quadmix.proxy.hf import check_shapes

    try:
        shapes = read_header(path).shapes
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        check_shapes(tensors, setting.model, setting.vocab_size)
    except ProxyError:
        return False
    return True


def score_task(task: _Group) -> dict[str, str]:
    """Score one group with one thread, write its files, and return what was refused."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "scoring models") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _score_fitting(task)
    finally:
        torch.set_num_threads(threads)


def _smaller(task: _Group, deaths: int) -> _Group:
    """Score a group in quarters after two deaths of its worker: how the kernel says that memory is out."""
    return task if deaths < 2 else replace(task, at_most=max(1, len(task.models) // 4))


def _score_fitting(task: _Group) -> dict[str, str]:
    """Score a group; where memory does not suffice, its halves one after the other."""
    from quadmix.proxy.device import is_out_of_memory
    from quadmix.proxy.memory import release

    if len(task.models) > task.at_most:
        return _halves(task)
    try:
        return _score(task)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = next(iter(str(error).splitlines()), "no message")[:300]
    # outside the handler: the error's trace holds the tensors that filled the memory
    release()
    names = [model.name for model in task.models]
    if len(names) > 1:
        return _halves(task)
    raise ProxyError(
        f"memory does not suffice to score model {names[0]!r} alone ({said}); use fewer "
        "run.workers or another run.device, and run the same command again: what is scored is kept"
    )


def _halves(task: _Group) -> dict[str, str]:
    middle = len(task.models) // 2
    first, second = (replace(task, models=m) for m in (task.models[:middle], task.models[middle:]))
    return _score_fitting(first) | _score_fitting(second)


def _score(task: _Group) -> dict[str, str]:
    from quadmix.proxy.device import choose_dtype
    from quadmix.proxy.losses import row_scores

    setting, home = task.setting, Path(task.out)
    names = [model.name for model in task.models]
    loaded = load_models(names, task.weights, setting.model, setting.vocab_size, setting.device)
    refused = dict(loaded.refused)
    for model in task.models:
        if model.name in refused:  # rows of the job that lie there are kept: they may be all that is left
            found = Refused(reason=refused[model.name], key=model.key)
            write_json(refused_path(home, model.name), found)
    if loaded.weights is None:
        return refused
    dtype = choose_dtype(setting.precision, loaded.weights.embedding.device)
    every = [found for folder in task.sets for found in open_targets(folder)]
    scores = [row_scores(loaded.weights, one, setting.model, dtype, greedy=True) for one in every]
    for k, place in enumerate(loaded.places):
        model = task.models[place]
        bad = next((s for s, r in zip(every, scores, strict=True) if not _finite(r, k)), None)
        if bad is not None:
            reason = refused[model.name] = f"its loss on {bad.kind} {bad.name!r} is not finite"
            found = Refused(reason=reason, key=model.key, made_of=model.made_of, job=model.job)
            write_json(refused_path(home, model.name), found)
            rows_path(home, model.name).unlink(missing_ok=True)
            continue
        refused_path(home, model.name).unlink(missing_ok=True)  # before the rows: it would win over them
        table = pa.concat_tables([_rows(s, r, k) for s, r in zip(every, scores, strict=True)])
        _write_rows(home, model, table.unify_dictionaries())
    return refused


def _finite(scores: "RowScores", k: int) -> bool:
    return math.isfinite(float(scores.nll[k].sum()))


def _rows(target: TargetSet, scores: "RowScores", k: int) -> pa.Table:
    rows = len(target.bytes)
    scored = (target.labels != IGNORE).sum(axis=1)
    tokens = np.bincount(target.row, weights=scored, minlength=rows)
    assert scores.greedy is not None
    return pa.table(
        {
            "task": pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), pa.array([target.name])),
            "kind": pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), pa.array([target.kind])),
            "row": np.arange(rows, dtype=np.int32),
            "nll": scores.nll[k].astype(np.float32),
            "bytes": target.bytes.astype(np.int32),
            "tokens": tokens.astype(np.int32),
            "greedy": scores.greedy[k],
        }
    )


def _check_sets(sets: Sequence[str], setting: ScoringSetting) -> str:
    """Return a digest of all sets; refuse those that do not belong together or to the model."""
    manifests = [read_value(Path(folder, "manifest.json"), TargetManifest) for folder in sets]
    seen: dict[tuple[str, str], str] = {}
    for folder, made in zip(sets, manifests, strict=True):
        if made.tokenizer != manifests[0].tokenizer:
            raise ProxyError(
                f"{folder!r} was tokenised by {made.tokenizer or 'an unnamed tokenizer'}, {sets[0]!r} by "
                f"{manifests[0].tokenizer or 'an unnamed one'}; expected one tokenizer: remove the folder "
                "that is not this run's and run the same command again"
            )
        if made.context > setting.model.context:
            raise ProxyError(
                f"{folder!r} has windows of {made.context} tokens, longer than the model's context of "
                f"{setting.model.context}; set the contexts of proxy and evaluate alike"
            )
        for name in made.names:
            other = seen.setdefault((made.kind, name), folder)
            if other != folder or made.names.count(name) > 1:
                raise InputError(
                    f"{made.kind} {name!r} is in {other!r} and again in {folder!r}; rename one of them"
                )
    digests = [(made.kind, target_digests(folder)) for folder, made in zip(sets, manifests, strict=True)]
    return value_digest(digests)


def _key(weights: str, sets: str, setting: ScoringSetting) -> str:
    """Return a digest of all that a model's rows depend on; the device is where, not what."""
    return value_digest([weights, sets, setting.model.model_dump(), setting.vocab_size, setting.precision])


def _write_rows(folder: Path, model: _Model, rows: pa.Table) -> None:
    marked = rows.replace_schema_metadata(model.marks)
    write_table(rows_path(folder, model.name), marked, dictionary=["task", "kind"])


def _marks(folder: str | Path, name: str) -> dict[str, str]:
    """Return the metadata of a model's rows, {} if there are none or they are damaged."""
    path = rows_path(folder, name)
    if not path.exists():
        return {}
    try:
        found = read_table(path, []).schema.metadata or {}
    except IntegrityError:
        return {}  # cut by what is not us: they are made again
    return {key.decode(): value.decode() for key, value in found.items()}


def _matches(marks: Mapping[str, str], model: _Model) -> bool:
    """Do rows with these marks hold for the model? Those of other sets or another training do not."""
    if model.there:
        return marks.get("key") == model.key
    return bool(marks) and (marks.get("made_of"), marks.get("job")) == (model.made_of, model.job)


def _final(folder: Path, model: _Model) -> str | None:
    """Return the reason of a refusal that holds for the model, None if there is none."""
    path = refused_path(folder, model.name)
    if not path.exists():
        return None
    found = read_value(path, Refused)
    same = found.key == model.key if model.there else (found.made_of, found.job) == (model.made_of, model.job)
    return found.reason if same else None


def _stored(folder: Path, model: _Model) -> str | None:
    """Return "" for a model whose rows are there, the reason if it was refused, None if it is to be done."""
    marks = _marks(folder, model.name)
    if not _matches(marks, model):
        return _final(folder, model)
    if (
        model.there and model.job and marks != model.marks
    ):  # trained again to the same weights: the rows are that job's too
        _write_rows(folder, model, read_table(rows_path(folder, model.name)))
    refused_path(folder, model.name).unlink(missing_ok=True)  # of a scoring that was killed
    return ""


def _gone(folder: Path, weights: Path, model: _Model) -> str:
    """Refuse a model of which nothing is left that could be scored; its rows of other sets stay."""
    reason = (
        f"its weights {str(weights)!r} are gone, and {str(rows_path(folder, model.name))!r} does not hold "
        "its rows for these sets; run the same command again: it is then trained anew"
    )
    write_json(refused_path(folder, model.name), Refused(reason=reason, key=model.key))
    return reason
