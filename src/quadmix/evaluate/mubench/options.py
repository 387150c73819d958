"""Options inside a prompt, found in any language, and cloze items made from them.

A letter prompt holds its options as lines with one Latin capital directly before ":" or "：", after a word
of the language or none: "Option A:", "选项 A:", "الخيار A:", "A:". The letters run from A without a gap.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import Item

# French sets a space before the colon, Arabic and Hebrew prompts carry direction marks around the letter
_MARK = re.compile(r"(?:[^:：]*[^A-Za-z0-9À-ɏ:：])?([A-Z])[\s\u200e\u200f]*[:：]\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A prompt taken apart into lines. before: up to the first option. options: lines of each, marks taken
    off; the last one's run to the end of the prompt."""

    before: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]


def is_lettered(choices: Sequence[str]) -> bool:
    """Are the choices the letters A, B, C, ...?"""
    return list(choices) == list(ascii_uppercase[: len(choices)])


def parse_options(prompt: str, count: int) -> Parsed | None:
    """Return the parts of a prompt with `count` options; None if no run of A, B, ... of that length is there.

    The last such run counts: a question may itself have a line that looks like an option. A run with more
    letters than `count` is none.
    """
    lines = prompt.split("\n")
    marks = [
        (place, found[1], found[2]) for place, line in enumerate(lines) if (found := _MARK.fullmatch(line))
    ]
    for start in range(len(marks) - 1, -1, -1):
        if marks[start][1] != "A":
            continue
        run = _run(marks[start:])
        if len(run) < count:
            continue
        if len(run) > count:
            return None
        ends = [*(place for place, _, _ in run[1:]), len(lines)]
        options = tuple(
            (text, *lines[place + 1 : end]) for (place, _, text), end in zip(run, ends, strict=True)
        )
        return Parsed(before=tuple(lines[: run[0][0]]), options=options)
    return None


def _run(marks: Sequence[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Return the marks A, B, C, ... in their order, as far as they go."""
    run: list[tuple[int, str, str]] = []
    for mark in marks:
        if mark[1] == ascii_uppercase[len(run)]:
            run.append(mark)
    return run


def option_texts(item: Item) -> tuple[str, ...]:
    """Return the texts of the options: the choices, or for letters what the prompt says they stand for.

    Raises InputError where a letter prompt has no such lines. The last option has its first line alone:
    what follows it may be an instruction.
    """
    if not is_lettered(item.choices):
        return item.choices
    parsed = parse_options(item.prompt, len(item.choices))
    if parsed is None:
        raise InputError(_unparsed(item))
    return (*("\n".join(lines) for lines in parsed.options[:-1]), parsed.options[-1][0])


def to_cloze(items: Sequence[Item], where: str) -> list[Item]:
    """Return items with the bare question as prompt and the options' texts as choices, gold index unchanged.

    items: all of one file, since its frame (instruction, answer cue, "Question:") is what all prompts share:
    whole lines at the beginning, before the options and after the last one, and a label up to a colon. Items
    without letters (label words) stay as they are. where: the file, for InputError, which names the id too.
    """
    if not any(is_lettered(item.choices) for item in items):
        return list(items)
    parsed = [_parsed(item, where) for item in items]
    before = _unframed([p.before for p in parsed])
    tails = [p.options[-1][1:] for p in parsed]
    after = _common([t[::-1] for t in tails], spare=0)
    label = _label([b[0] for b in before])
    made: list[Item] = []
    for item, lines, p in zip(items, before, parsed, strict=True):
        last = p.options[-1][: len(p.options[-1]) - after]
        texts = ["\n".join(option).strip() for option in (*p.options[:-1], last)]
        prompt = "\n".join(lines)[label:].strip()
        if not prompt or not all(texts):
            raise InputError(
                f"{where}, id {item.id!r}: nothing is left of the prompt or an option in cloze form"
            )
        made.append(replace(item, prompt=prompt, choices=tuple(texts)))
    return made


def _parsed(item: Item, where: str) -> Parsed:
    parsed = parse_options(item.prompt, len(item.choices)) if is_lettered(item.choices) else None
    if parsed is None or not any(line.strip() for line in parsed.before):
        raise InputError(f"{where}, {_unparsed(item)}")
    return parsed


def _unparsed(item: Item) -> str:
    letters = f"A to {ascii_uppercase[len(item.choices) - 1]}"
    return (
        f"id {item.id!r}: the prompt has no question followed by exactly the options {letters}, each on a "
        f"line as “Option A: text”; got {item.prompt[-120:]!r}. Mend the row, or use the mode lighteval"
    )


def _unframed(blocks: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the lines of each prompt without those that all share at both ends; at least one line stays."""
    if len(set(blocks)) < 2:  # one question says nothing about what prompts share
        return blocks
    head = _common(blocks, spare=1)
    cut = [b[head:] for b in blocks]
    foot = _common([b[::-1] for b in cut], spare=1)
    return [b[: len(b) - foot] for b in cut]


def _common(blocks: Sequence[Sequence[str]], *, spare: int) -> int:
    """Return how many first lines all blocks share, leaving `spare` lines of each."""
    most = min(len(b) for b in blocks) - spare
    same = 0
    while same < most and len({b[same] for b in blocks}) == 1:
        same += 1
    return same


def _label(lines: Sequence[str]) -> int:
    """Return the length of the label, as “Question:”, that all lines begin with; 0 if there is none."""
    if len(set(lines)) < 2:
        return 0
    first = lines[0]
    ends = [place + 1 for place, mark in enumerate(first) if mark in ":："]
    return max((end for end in ends if all(line.startswith(first[:end]) for line in lines)), default=0)
