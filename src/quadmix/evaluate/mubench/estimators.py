"""From the log-likelihoods of options to choices and scores.

acc: the likeliest option. acc_bytes: the likeliest per UTF-8 byte, which is fair across scripts and
tokenisers; per token it would favour tokenisers with long tokens, and per character scripts with few.
acc_cal: the likeliest against the model's prior for it, log p(c | prompt) - log mean_i p(c | prompt_i)
with p over the options of an item; for tasks whose items have the same options (label words, letters). The
prior is taken over the items that are scored, without their labels, so these choices depend on the other
items a little. acc_mutual_info: against the option without the prompt, log p(c | prompt) - log p(c).
unconditional: the option that is likeliest without the prompt: what a model chooses that reads no question.

Which of them is a task's headline follows a study of about 100 models of about 1B parameters
(docs/mubench.md): the one whose accuracy stood farthest above its null. Where none did, acc.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from quadmix.evaluate.mubench.cells import Cell
from quadmix.evaluate.mubench.items import AlignedTask, Predictions
from quadmix.evaluate.mubench.nulls import accuracy_null, entropy, settled
from quadmix.types import Floats, Score

NULL = "unconditional"
SMALL = ("bmlama", "arc_easy", "story_cloze", "hellaswag", "mnli")
"""Tasks on which models of about a billion parameters are above chance (`mubench_small`)."""
HEADLINES = {
    "mnli": "acc_cal", "snli": "acc_cal", "story_cloze": "acc_bytes", "hellaswag": "acc_bytes",
    "winogrande": "acc_bytes",
}  # fmt: skip


def headline(task: str, cells: Mapping[str, Cell]) -> str:
    """Return the estimator that stands for a task."""
    wanted = HEADLINES.get(task, "acc")
    return wanted if wanted in estimators(cells) else "acc"


def estimators(cells: Mapping[str, Cell]) -> tuple[str, ...]:
    """Return the estimators that the cells of a task (one per language) allow."""
    bare = all(cell.unconditional is not None for cell in cells.values())
    same = all(cell.same for cell in cells.values())
    return ("acc", "acc_bytes", *(("acc_cal",) if same else ()), *(("acc_mutual_info", NULL) if bare else ()))


def option_scores(cell: Cell, estimator: str) -> Floats:
    """Return (I, K), larger = chosen, NaN past the options of an item and where an option did not fit."""
    plain = cell.table(cell.log_likelihood)
    if estimator == "acc":
        return plain
    if estimator == "acc_bytes":
        return plain / cell.table(cell.weights.astype(np.float64))
    if estimator == "acc_cal":
        shares = log_softmax(plain, axis=1)
        known = cell.fits
        return shares - (logsumexp(shares[known], axis=0) - np.log(known.sum()))
    assert cell.unconditional is not None
    bare = cell.table(cell.unconditional)
    return bare if estimator == NULL else plain - bare


def predicted(task: AlignedTask, cells: Mapping[str, Cell], estimator: str) -> Predictions:
    """Return what was chosen in every language; the first of equal ones, ties with the right text settled.

    task: with exactly the items to predict, all of which fit in every language (`common`).
    """
    scores: dict[str, Floats] = {}
    for language, cell in cells.items():
        place = {name: i for i, name in enumerate(cell.ids)}
        scores[language] = option_scores(cell, estimator)[[place[name] for name in task.ids]]
    first = next(iter(task.items.values()))
    raw = Predictions(
        task=task.task, mode=task.mode, estimator=estimator, ids=task.ids, scores=scores,
        chosen={language: np.nanargmax(own, axis=1).astype(np.int16) for language, own in scores.items()},
        labels=np.array([item.label for item in first], dtype=np.int16),
        options=np.array([len(item.choices) for item in first], dtype=np.int16),
    )  # fmt: skip
    return settled(task, raw)[0]


def common(task: AlignedTask, cells: Mapping[str, Cell]) -> NDArray[np.bool_]:
    """Return (I,): does the item fit into the context in every language? ids of task and cells: the same."""
    return np.logical_and.reduce([cell.fits for cell in cells.values()])


def accuracy_scores(found: Predictions) -> list[Score]:
    """Return per language the accuracy with its standard error and chance level, and under the names
    `<estimator>:null` and `<estimator>:entropy` what the same answers reach on items dealt out anew, and the
    entropy of the answers' places in bits."""
    name, items = f"{found.task}_{found.mode}", len(found.ids)
    chance = float((1 / found.options).mean())
    out: list[Score] = []
    for language, chosen in found.chosen.items():
        right = (chosen == found.labels).astype(np.float64)
        stderr = float(right.std(ddof=1) / np.sqrt(items)) if items > 1 else float("nan")
        rows = [
            (found.estimator, float(right.mean()), stderr, chance),
            (f"{found.estimator}:null", accuracy_null(chosen, found.labels), float("nan"), None),
            (f"{found.estimator}:entropy", entropy(chosen), float("nan"), None),
        ]
        out += [
            Score(
                task=name, language=language, metric=metric, value=value, stderr=error, n=items, chance=level
            )
            for metric, value, error, level in rows
        ]
    return out


def loss_scores(task: AlignedTask, cells: Mapping[str, Cell]) -> list[Score]:
    """Return per language `bits_per_byte` of the right continuation (Σ bits / Σ bytes) and `margin`, the mean
    over items of its bits per byte minus the mean of the wrong ones' (below 0: it is preferred)."""
    name, out = f"{task.task}_{task.mode}", list[Score]()
    for language, cell in cells.items():
        place = {id_: i for i, id_ in enumerate(cell.ids)}
        rows = [place[id_] for id_ in task.ids]
        gold = np.array([item.label for item in task.items[language]])
        bits = cell.table(-cell.log_likelihood / np.log(2))[rows]
        size = cell.table(cell.bytes.astype(np.float64))[rows]
        every = np.arange(len(rows))
        own, own_bytes, each = bits[every, gold], size[every, gold], bits / size
        right = each[every, gold]
        each[every, gold] = np.nan
        margin = right - np.nanmean(each, axis=1)
        mean = float(own.sum() / own_bytes.sum())
        items, n = len(rows), len(rows) / max(len(rows) - 1, 1)
        spread = np.sqrt(n * np.square(own - mean * own_bytes).sum()) / own_bytes.sum()
        for metric, value, error in (
            ("bits_per_byte", mean, float(spread)),
            (
                "margin",
                float(margin.mean()),
                float(margin.std(ddof=1) / np.sqrt(items)) if items > 1 else 0.0,
            ),
        ):
            stderr = error if items > 1 else float("nan")
            out.append(
                Score(task=name, language=language, metric=metric, value=value, stderr=stderr, n=items)
            )
    return out
