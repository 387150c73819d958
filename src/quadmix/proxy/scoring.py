"""Saved models scored row by row on targets, held-out text and benchmarks; every model is one Parquet file.

In: names of models, the folder with their weights, a setting, the folders of the sets. Out, per model,
`<name>.parquet` with one row per row of every set, or `<name>.refused.json` with the reason why not. Many
models are loaded into one batched model, as in training; a worker computes with one thread and groups depend
on the order of the names alone, so the number of workers changes no byte.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from quadmix.engine.tasks import LOCAL, Place, run_tasks
from quadmix.errors import InputError, IntegrityError, MissingExtraError, ProxyError
from quadmix.io.atomic import file_digest, read_table, read_value, value_digest, write_json, write_table
from quadmix.proxy.rescore import load_models, weights_path
from quadmix.proxy.targets import IGNORE, TargetManifest, TargetSet, open_targets, target_digests
from quadmix.recipe import ModelSection

if TYPE_CHECKING:
    from quadmix.proxy.losses import RowScores


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
    """Why a model has no rows; key: as in its Parquet file."""

    reason: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    names: tuple[str, ...]
    keys: tuple[str, ...]
    weights: str
    setting: ScoringSetting
    sets: tuple[str, ...]
    out: str


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
    group: int = 8,
    place: Place = LOCAL,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Score the models on every set of the folders `sets`; return those that could not be, with the reason.

    The columns are `task`, `kind` (target, heldout, benchmark), `row` int32, `nll` float32 (nats, summed over
    the row's scored tokens), `bytes` and `tokens` int32, `greedy` bool (is each of them the likeliest?).
    A group is left as it is if all its files were made from the same weights, sets and setting. Weights that
    are absent, unsound or of another shape, and losses that are not finite, refuse that model alone. group:
    models scored together; on_done hears of how many models at a time. Raises ProxyError for sets of another
    tokenizer or longer windows than the context, InputError for two sets of one kind and name.
    """
    made_of = _check_sets(sets, setting)
    keys = [_key(weights_path(weights_folder, name), made_of, setting) for name in names]
    tell, tasks, sizes = on_done or (lambda _: None), list[_Group](), list[int]()
    refused: dict[str, str] = {}
    for start in range(0, len(names), group):
        part, own = tuple(names[start : start + group]), tuple(keys[start : start + group])
        stored = [_stored(Path(out_folder), *pair) for pair in zip(part, own, strict=True)]
        if None not in stored:
            refused |= {n: reason for n, reason in zip(part, stored, strict=True) if reason}
            tell(len(part))
            continue
        sizes.append(len(part))
        tasks.append(
            _Group(
                names=part, keys=own, weights=str(weights_folder), setting=setting,
                sets=tuple(map(str, sets)), out=str(out_folder),
            )
        )  # fmt: skip
    for found in run_tasks(score_task, tasks, place=place, on_done=lambda i, _: tell(sizes[i])):
        refused |= found
    return {name: refused[name] for name in names if name in refused}


def score_task(task: _Group) -> dict[str, str]:
    """Score one group with one thread, write its files, and return what was refused."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "proxy", "scoring models") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _score(task)
    finally:
        torch.set_num_threads(threads)


def _score(task: _Group) -> dict[str, str]:
    from quadmix.proxy.device import choose_dtype
    from quadmix.proxy.losses import row_scores

    setting, refused = task.setting, dict[str, str]()
    loaded = load_models(task.names, task.weights, setting.model, setting.vocab_size, setting.device)
    refused |= loaded.refused
    if loaded.weights is not None:
        dtype = choose_dtype(setting.precision, loaded.weights.embedding.device)
        every = [found for folder in task.sets for found in open_targets(folder)]
        scores = [row_scores(loaded.weights, one, setting.model, dtype, greedy=True) for one in every]
        for k, place in enumerate(loaded.places):
            name, key = task.names[place], task.keys[place]
            bad = next((s for s, r in zip(every, scores, strict=True) if not _finite(r, k)), None)
            if bad is not None:
                refused[name] = f"its loss on {bad.kind} {bad.name!r} is not finite"
                continue
            table = pa.concat_tables([_rows(s, r, k) for s, r in zip(every, scores, strict=True)])
            whole = table.unify_dictionaries().replace_schema_metadata({"key": key})
            write_table(rows_path(task.out, name), whole, dictionary=["task", "kind"])
            refused_path(task.out, name).unlink(missing_ok=True)
    for name, key in zip(task.names, task.keys, strict=True):
        if name in refused:
            rows_path(task.out, name).unlink(missing_ok=True)
            write_json(refused_path(task.out, name), Refused(reason=refused[name], key=key))
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


def _key(weights: Path, sets: str, setting: ScoringSetting) -> str:
    """Return a digest of all that a model's rows depend on; the device is where, not what."""
    own = file_digest(weights) if weights.is_file() else "absent"
    return value_digest([own, sets, setting.model.model_dump(), setting.vocab_size, setting.precision])


def _stored(folder: Path, name: str, key: str) -> str | None:
    """Return "" for a model whose rows are there, the reason if it was refused, None if it is to be done."""
    if rows_path(folder, name).exists():
        try:
            found = read_table(rows_path(folder, name), []).schema.metadata or {}
        except IntegrityError:
            return None  # cut by what is not us: it is made again
        if found.get(b"key") == key.encode():
            return ""
    if refused_path(folder, name).exists():
        refused = read_value(refused_path(folder, name), Refused)
        if refused.key == key:
            return refused.reason
    return None
