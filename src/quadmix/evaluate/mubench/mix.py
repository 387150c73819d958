"""Code-switched items: prompt and choices of one question, each in one of several languages.

Per item: m is drawn from 1 to k, then m of the other languages, then each component (prompt, every choice)
is in the base language or one of the m, by a hash of id and component. The right option keeps its place. The
assignment is kept in the row. Only the cloze form can be mixed so: its components are whole texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import AlignedTask, Item
from quadmix.evaluate.mubench.sources import check_mode, file_name, source_of
from quadmix.io.atomic import write_bytes
from quadmix.rng import keyed_uniform


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixed:
    """Mixed items per base language. assigned[base][i]: languages of the prompt and of each choice."""

    task: AlignedTask
    assigned: Mapping[str, tuple[tuple[str, ...], ...]]

    @property
    def unmixed(self) -> Mapping[str, int]:
        """Base language -> items that the draw left wholly in it."""
        return {base: sum(set(a) == {base} for a in own) for base, own in self.assigned.items()}


def mix_task(task: AlignedTask, *, most: int, bases: Sequence[str] | None = None, seed: int = 0) -> Mixed:
    """Return a task of mode mix_lighteval_`most`, with the items of every base language.

    most: other languages in one item, at most. bases: None takes all languages of the task. An item's draw
    depends on seed, base and id alone. Raises InputError for another mode than lighteval, fewer than two
    languages, a base that the task does not have.
    """
    mode = check_mode(f"mix_lighteval_{most}")
    languages = tuple(task.items)
    if task.mode != "lighteval" or len(languages) < 2:
        raise InputError(
            f"{task.task}: mode {task.mode} in {len(languages)} languages; expected lighteval in two or "
            "more, since whole prompts and choices are exchanged"
        )
    wanted = list(languages if bases is None else bases)
    if unknown := [base for base in wanted if base not in languages]:
        raise InputError(f"{task.task}: no items in {unknown[0]!r}; its languages are {', '.join(languages)}")
    sizes = [1 + len(item.choices) for item in task.items[languages[0]]]
    assigned = {
        base: assign(task.ids, sizes, (base, *(o for o in languages if o != base)), most=most, seed=seed)
        for base in wanted
    }
    items = {
        base: tuple(_mixed(task, place, own) for place, own in enumerate(assigned[base])) for base in wanted
    }
    return Mixed(task=replace(task, mode=mode, items=items), assigned=assigned)


def assign(
    ids: Sequence[str], sizes: Sequence[int], languages: Sequence[str], *, most: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Return the language of every component of every item.

    sizes: (I,) components of each item. languages: the base first, then those to draw from. A language's
    chance depends neither on its place in the list nor on the items beside it.
    """
    base, *others = languages
    others.sort()
    name = f"mix\x1f{base}"
    limit = min(most, len(others))
    number = 1 + (keyed_uniform(seed, list(ids), f"{name}\x1fnumber") * limit).astype(int)
    lots = np.stack([keyed_uniform(seed, list(ids), f"{name}\x1flanguage\x1f{o}") for o in others], axis=1)
    order = np.argsort(lots, axis=1, kind="stable")
    picks = [keyed_uniform(seed, list(ids), f"{name}\x1fpart\x1f{c}") for c in range(max(sizes, default=0))]
    found: list[tuple[str, ...]] = []
    for place, size in enumerate(sizes):
        among = (base, *(others[o] for o in order[place, : number[place]]))
        found.append(tuple(among[int(picks[c][place] * len(among))] for c in range(size)))
    return tuple(found)


def write_mix(folder: str | Path, mixed: Mixed, split: str = "test") -> list[Path]:
    """Write the items in the layout of the release; each row has the `languages` of its prompt and choices.

    Raises InputError rather than replace a file that holds something else.
    """
    home = Path(folder) / source_of(mixed.task.task).folder
    files = {
        home / file_name(mixed.task.mode, base, split): _lines(items, mixed.assigned[base])
        for base, items in mixed.task.items.items()
    }
    for path, data in files.items():
        if path.exists() and path.read_bytes() != data:
            raise InputError(
                f"{path} holds other items, of the release or of another seed or set of languages; expected "
                "no file or an equal one. Write to another folder with --out, or remove it"
            )
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)


def _mixed(task: AlignedTask, place: int, languages: tuple[str, ...]) -> Item:
    prompt, *choices = languages
    base = task.items[prompt][place]
    texts = tuple(task.items[language][place].choices[c] for c, language in enumerate(choices))
    return Item(id=base.id, prompt=base.prompt, choices=texts, label=base.label)


def _lines(items: Sequence[Item], assigned: Sequence[Sequence[str]]) -> bytes:
    rows = [
        {"_id": i.id, "prompt": i.prompt, "choices": i.choices, "label": i.label, "languages": a}
        for i, a in zip(items, assigned, strict=True)
    ]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)
