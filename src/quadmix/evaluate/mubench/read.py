"""Rows of one file -> items, each checked: {"_id", "prompt", "choices", "label"}, JSON lines in UTF-8."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from quadmix.errors import InputError
from quadmix.evaluate.mubench.items import Item
from quadmix.evaluate.mubench.options import option_texts
from quadmix.io.door import check_address
from quadmix.io.rows import read_records

FIELDS = ("_id", "prompt", "choices", "label")
_REPLACED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_NAMED = 5  # ids that are kept of what is odd


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageFacts:
    """What one file holds: how many items are odd, and in `ids` the first ids of a count by its name.

    duplicated: two equal options, case aside; of letters the texts that they stand for. tied: those of them
    where the right one is among them. unparsed: letters, and the prompt does not say what they stand for.
    replaced: U+FFFD or a control character; recoded: a text that is UTF-8 read as Latin-1; both are traces of
    a wrong encoding. trimmed: white space taken off a prompt's end or a choice's ends (no ids). converted:
    made from local_template.
    """

    language: str
    file: str
    rows: int
    duplicated: int
    unparsed: int
    tied: int
    replaced: int
    recoded: int
    trimmed: int
    ids: dict[str, tuple[str, ...]]
    converted: bool = False


def plain(text: str) -> str:
    """Return the form in which two options count as equal: ends trimmed, case folded."""
    return text.strip().casefold()


def read_items(path: str) -> tuple[list[Item], int]:
    """Return the items of a file in its order, and how many had white space trimmed.

    Raises InputError naming file, row (from 1) and id for a row that lacks a field, an empty prompt or
    choice, fewer than two choices, a label outside them, an id that is there twice, or bytes that are not
    UTF-8 JSON.
    """
    check_address(path)
    rows = read_records(path)
    if not rows:
        raise InputError(f"{path} has no rows; expected one question per line. Fetch it again")
    items, trimmed = [], 0
    for number, row in enumerate(rows, start=1):
        item, cut = _item(row, path, number)
        items.append(item)
        trimmed += cut
    twice = [i for i, n in Counter(item.id for item in items).items() if n > 1]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} ids are there more than once, as {twice[0]!r}; expected each once, since "
            "languages are joined by it. Remove the copies"
        )
    return items, trimmed


def facts_of(items: list[Item], *, language: str, file: str, trimmed: int, converted: bool) -> LanguageFacts:
    """Count what is odd in the items of one file."""
    found = [_option_texts(item) for item in items]
    texts = [[plain(c) for c in own or item.choices] for own, item in zip(found, items, strict=True)]
    odd = {
        "unparsed": [i.id for i, own in zip(items, found, strict=True) if own is None],
        "duplicated": [i.id for i, t in zip(items, texts, strict=True) if len(set(t)) < len(t)],
        "replaced": [i.id for i in items if any(map(_REPLACED.search, (i.prompt, *i.choices)))],
        "recoded": [i.id for i in items if any(map(_recoded, (i.prompt, *i.choices)))],
    }
    return LanguageFacts(
        language=language,
        file=file,
        rows=len(items),
        duplicated=len(odd["duplicated"]),
        unparsed=len(odd["unparsed"]),
        tied=sum(t.count(t[i.label]) > 1 for t, i in zip(texts, items, strict=True)),
        replaced=len(odd["replaced"]),
        recoded=len(odd["recoded"]),
        trimmed=trimmed,
        ids={name: tuple(own[:_NAMED]) for name, own in odd.items() if own},
        converted=converted,
    )


def _option_texts(item: Item) -> tuple[str, ...] | None:
    try:
        return option_texts(item)
    except InputError:
        return None


def _recoded(text: str) -> bool:
    """Is the text, as the bytes of a Western encoding, valid UTF-8, as “cafÃ©” is? Proper text is not: its
    letters beyond ASCII do not follow each other as the bytes of UTF-8 do."""
    for encoding in () if text.isascii() else ("cp1252", "latin-1"):
        try:
            text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False


def _visible(text: str) -> bool:
    """Has the text any character that is seen? White space, marks of direction and zero width are not."""
    return any(unicodedata.category(c)[0] not in "ZC" for c in text)


def _item(row: dict[str, Any], path: str, number: int) -> tuple[Item, bool]:
    where = f"{path}, row {number} (id {row.get('_id')!r})"
    if lacking := [f for f in FIELDS if f not in row]:
        raise InputError(f"{where}: no field {lacking[0]!r}; expected {', '.join(FIELDS)}. Mend the row")
    name, prompt, choices, label = (row[f] for f in FIELDS)
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise InputError(f"{where}: _id is {type(name).__name__}, expected a text or whole number")
    if not isinstance(prompt, str) or not _visible(prompt):
        raise InputError(f"{where}: prompt is {_short(prompt)}, expected a text that is not empty")
    texts = cast(list[Any], choices) if isinstance(choices, list) else []
    if len(texts) < 2:
        raise InputError(f"{where}: choices is {_short(choices)}, expected a list of two or more texts")
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not _visible(text):
            raise InputError(
                f"{where}: choice {place} is {_short(text)}, expected a text that is not empty; mend the "
                "row, or remove the id in every language"
            )
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(texts):
        raise InputError(
            f"{where}: label is {_short(label)}, expected the index of the right choice, 0 to "
            f"{len(texts) - 1}; mend the row"
        )
    item = Item(id=str(name), prompt=prompt.rstrip(), choices=tuple(t.strip() for t in texts), label=label)
    return item, item.prompt != prompt or list(item.choices) != texts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
