"""A made-up benchmark in the layout of MuBench: facts of a small world in four toy languages.

For tests, CI and laptops: nothing is downloaded, and no row of the real benchmark is needed. Three scripts
(Latin twice, Cyrillic, kana), one language without spaces, other word orders, localised option marks, rows
in another order per language. As in the real set a word is about as long in every language, so a rule that
takes the shortest option is consistent across languages and knows nothing; and `qac` has homonyms, so that a
few items have two equal options there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import orjson

from quadmix.evaluate.mubench.mix import assign
from quadmix.evaluate.mubench.sources import SOURCES, file_name
from quadmix.evaluate.mubench.standin_world import ENTITIES, LANGUAGES, RELATIONS, VALUES, World, make_world
from quadmix.io.folders import new_folder
from quadmix.rng import stream

MODES = ("lighteval", "local_template", "en_template", "mix_2", "mix_lighteval_2")
_DEV_ITEMS = 10
_DEV = {"winogrande": "train", "truthfulqa": ""}  # the others: validation
_BARE = ("arc_easy", "arc_challenge", "bmlama")  # options marked "A:", without a word before it
_VERDICTS = ("entailment", "neutral", "contradiction")
_ENGLISH = {
    "question": "Question", "option": "Option", "answer": "Answer", "premise": "Premise",
    "hypothesis": "Hypothesis", "choose": "Choose the right option.", "blank": "What does _ stand for?",
    "follows": "Does the premise entail the hypothesis?",
}  # fmt: skip
Text = Callable[[str], str]
"""Language -> text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One item before it is written: parts (question; for NLI premise and hypothesis) and choices."""

    id: str
    kind: str
    parts: tuple[Text, ...]
    choices: tuple[Text, ...]
    label: int


def write_standin(folder: str | Path, *, items: int = 60, seed: int = 0) -> int:
    """Write all twelve tasks in all modes into a new folder; return the number of files.

    items: of each test split. The same arguments give the same bytes. Raises InputError where the folder
    has content.
    """
    world, written = make_world(seed), 0
    with new_folder(folder) as home:
        for task, source in SOURCES.items():
            for split, count in _splits(task, items).items():
                plans = make_plans(world, task, split, count, seed)
                for mode in MODES:
                    for language in LANGUAGES:
                        rows = _rows(world, task, mode, language, plans, seed)
                        order = stream(seed, "standin", "order", task, language).permutation(len(rows))
                        path = home / source.folder / file_name(mode, language, split)
                        path.parent.mkdir(exist_ok=True)
                        path.write_bytes(b"".join(orjson.dumps(rows[i]) + b"\n" for i in order))
                        written += 1
    return written


def _splits(task: str, items: int) -> dict[str, int]:
    dev = _DEV.get(task, "validation")
    return {"test": items, dev: _DEV_ITEMS} if dev else {"test": items}


# --------------------------------------------------------------------------- what is asked
def make_plans(world: World, task: str, split: str, count: int, seed: int) -> list[Plan]:
    """Return `count` items of a task; ids are different in every split."""
    make = _MAKERS.get(task, _choice)
    plans: list[Plan] = []
    for number in range(count):
        rng = stream(seed, "standin", task, split, number)
        parts, choices, label = make(world, task, rng)
        kind = "nli" if make is _nli else "blank" if make is _blank else "choice"
        name = f"{task}-{split}-{number:05}"
        plans.append(Plan(id=name, kind=kind, parts=parts, choices=choices, label=label))
    return plans


_Made = tuple[tuple[Text, ...], tuple[Text, ...], int]


def _choice(world: World, task: str, rng: np.random.Generator) -> _Made:
    """What is the relation of an entity? Options are values of that relation."""
    e, r = int(rng.integers(ENTITIES)), int(rng.integers(RELATIONS))
    values, label = _options(int(world.facts[e, r]), _arity(task, rng), VALUES, rng)
    asked = (
        partial(world.start, entity=e, relation=r)
        if task == "bmlama"
        else partial(world.question, entity=e, relation=r)
    )
    return (asked,), tuple(partial(world.word, concept=f"value {r} {v}") for v in values), label


def _ending(world: World, task: str, rng: np.random.Generator) -> _Made:
    """A true statement, then statements of another relation, one of them true."""
    e, (r, s) = int(rng.integers(ENTITIES)), rng.permutation(RELATIONS)[:2].tolist()
    values, label = _options(int(world.facts[e, s]), _arity(task, rng), VALUES, rng)
    start = partial(world.statement, entity=e, relation=r, value=int(world.facts[e, r]))
    return (start,), tuple(partial(world.statement, entity=e, relation=s, value=v) for v in values), label


def _blank(world: World, task: str, rng: np.random.Generator) -> _Made:
    """Two entities with other values, and a statement that is true of one of them."""
    r = int(rng.integers(RELATIONS))
    first = int(rng.integers(ENTITIES))
    others = np.flatnonzero(world.facts[:, r] != world.facts[first, r])
    pair = rng.permutation([first, int(rng.choice(others))]).tolist()

    text = partial(world.statement, entity=None, relation=r, value=int(world.facts[first, r]))
    return (text,), tuple(partial(world.word, concept=f"entity {e}") for e in pair), pair.index(first)


def _nli(world: World, task: str, rng: np.random.Generator) -> _Made:
    """A true premise; the hypothesis says the same, another relation, or something false."""
    e, (r, s) = int(rng.integers(ENTITIES)), rng.permutation(RELATIONS)[:2].tolist()
    truth, label = int(world.facts[e, r]), int(rng.integers(3))
    premise = partial(world.statement, entity=e, relation=r, value=truth)
    other = partial(world.statement, entity=e, relation=s, value=int(rng.integers(VALUES)))
    wrong = partial(world.statement, entity=e, relation=r, value=(truth + 1) % VALUES)
    return (
        (premise, (premise, other, wrong)[label]),
        tuple(partial(world.word, concept=v) for v in _VERDICTS),
        label,
    )


_MAKERS = {
    "snli": _nli, "mnli": _nli, "winogrande": _blank, "hellaswag": _ending, "story_cloze": _ending,
}  # fmt: skip


def _arity(task: str, rng: np.random.Generator) -> int:
    """Return the number of options, spread as in the release (spec. §2)."""
    if task == "bmlama":
        return 10 if rng.random() < 0.91 else int(rng.integers(2, 10))
    if task in ("arc_easy", "arc_challenge"):
        return int(rng.choice([3, 4, 5], p=[0.05, 0.9, 0.05]))
    ranges = {"truthfulqa": (2, 13), "mmlu_pro": (3, 10), "story_cloze": (2, 2)}
    low, high = ranges.get(task, (4, 4))
    return int(rng.integers(low, high + 1))


def _options(truth: int, count: int, among: int, rng: np.random.Generator) -> tuple[list[int], int]:
    """Return `count` different values, the true one at a random place, and that place."""
    others = [v for v in rng.permutation(among).tolist() if v != truth][: count - 1]
    label = int(rng.integers(count))
    return [*others[:label], truth, *others[label:]], label


# --------------------------------------------------------------------------- how it is written
def _rows(
    world: World, task: str, mode: str, language: str, plans: Sequence[Plan], seed: int
) -> list[dict[str, Any]]:
    """Return the rows of one file."""
    sizes = [1 + len(plan.choices) for plan in plans]
    spoken = tuple((language,) * size for size in sizes)
    if mode.startswith("mix"):
        order = (language, *(other for other in LANGUAGES if other != language))
        spoken = assign([plan.id for plan in plans], sizes, order, most=2, seed=seed)
    cloze = mode in ("lighteval", "mix_lighteval_2")
    rows: list[dict[str, Any]] = []
    for plan, languages in zip(plans, spoken, strict=True):
        parts = [part(languages[0]) for part in plan.parts]
        choices = [text(spoken_in) for text, spoken_in in zip(plan.choices, languages[1:], strict=True)]
        frame = _ENGLISH if mode == "en_template" else world.words[language]
        prompt = "\n".join(parts) if cloze else _prompt(task, plan.kind, parts, choices, frame)
        lettered = not cloze and plan.kind != "nli"
        shown = list(ascii_uppercase[: len(choices)]) if lettered else choices
        rows.append({"_id": plan.id, "prompt": prompt, "choices": shown, "label": plan.label})
    return rows


def _prompt(task: str, kind: str, parts: list[str], choices: list[str], frame: dict[str, str]) -> str:
    """Return a prompt of a letter mode; frame: the words around the content."""
    cue = f"{frame['answer']}:"
    if kind == "nli":
        named = zip((frame["premise"], frame["hypothesis"]), parts, strict=True)
        return "\n".join(
            [*(f"{name}: {text}" for name, text in named), f"{frame['question']}: {frame['follows']}", cue]
        )
    word = "" if task in _BARE else f"{frame['option']} "
    options = [f"{word}{letter}: {text}" for letter, text in zip(ascii_uppercase, choices, strict=False)]
    if kind == "blank":
        return "\n".join([*parts, frame["blank"], *options, frame["choose"], cue])
    return "\n".join([frame["choose"], f"{frame['question']}: {parts[0]}", *options, cue])
