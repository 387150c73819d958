"""How an item is put to a model: pairs of a context and a continuation, one per option.

In: an `Item` of a task, mode and language. Out: a `Question`. Only continuations are scored.

options: the prompt, then the option; between them `languages.separator`, which is "" where words are not
spaced. A template in English (`en_template`) ends with an English cue, so a space follows it in any language.
blank: WinoGrande as text to go on with. The option stands in place of the blank and the rest of the sentence
is scored, which is the same for all options (Trinh and Le 2018, arXiv 1806.02847, partial scoring).
whole: the same where nothing is left after the blank (common in languages that put it last): the whole
sentences are scored, and compared per byte, since they differ in length.
unfit: an item of such a task without exactly one blank, as translation may leave it; it is never scored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import Item
from quadmix.evaluate.mubench.languages import separator

BLANK = re.compile(r"_+|＿+")
_BLANK_TASKS = frozenset({"winogrande"})
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One item as it is put to a model; contexts[c] + continuations[c] is the exact text of option c.

    choices: the options themselves. weights: bytes that a log-likelihood is divided by (`acc_bytes`): of the
    option, or of the continuation where the option stands in the context.
    """

    id: str
    form: Literal["options", "blank", "whole", "unfit"]
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    choices: tuple[str, ...]
    weights: tuple[int, ...]
    label: int


def is_cloze(mode: str) -> bool:
    """Are the options of this mode texts that go on from the prompt, not letters or labels after a cue?"""
    return mode.startswith(("lighteval", "mix_lighteval"))


def questions(task: str, mode: str, language: str, items: Sequence[Item]) -> list[Question]:
    """Return the items as they are put to a model, in their order.

    Raises InputError naming task, language, id and option for an option without text.
    """
    blanks = task in _BLANK_TASKS and is_cloze(mode) and any(BLANK.search(item.prompt) for item in items)
    gap = " " if mode == "en_template" else separator(language)
    out: list[Question] = []
    for item in items:
        where = f"{task} ({mode}, {language}), id {item.id!r}"
        for number, choice in enumerate(item.choices):
            if not choice.strip():
                raise InputError(
                    f"{where}: option {number} is {choice!r}, expected text: nothing can be scored; mend the "
                    "row, or leave the item out in every language"
                )
        out.append(_filled(item, gap) if blanks else _options(item, gap))
    return out


def _options(item: Item, gap: str) -> Question:
    prompt = item.prompt if item.prompt.strip() else ""
    between = "" if not prompt or prompt[-1].isspace() else gap
    return Question(
        id=item.id, form="options", contexts=(prompt,) * len(item.choices),
        continuations=tuple(between + choice for choice in item.choices), choices=item.choices,
        weights=tuple(len(choice.encode()) for choice in item.choices), label=item.label,
    )  # fmt: skip


def _filled(item: Item, gap: str) -> Question:
    """Return the item with its blank filled in."""
    blanks = list(BLANK.finditer(item.prompt))
    if len(blanks) != 1:  # lost or doubled in translation
        return replace(_options(item, gap), form="unfit")
    before, rest = item.prompt[: blanks[0].start()], item.prompt[blanks[0].end() :]
    heads = tuple(before + choice for choice in item.choices)
    if _WORD.search(rest):
        size = len(rest.encode())
        return Question(
            id=item.id, form="blank", contexts=heads, continuations=(rest,) * len(heads),
            choices=item.choices, weights=(size,) * len(heads), label=item.label,
        )  # fmt: skip
    sentences = tuple(head + rest for head in heads)
    return Question(
        id=item.id, form="whole", contexts=("",) * len(heads), continuations=sentences,
        choices=sentences, weights=tuple(len(s.encode()) for s in sentences), label=item.label,
    )  # fmt: skip
