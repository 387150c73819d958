"""What people say of the user's documents, to hold a rater's scores against; nothing is trained on it.

In: the section `texts` with its key `human`. Out: id of a text -> number, larger = better.
"""

from quadmix.errors import InputError
from quadmix.io.atomic import value_digest
from quadmix.io.fs import expand, file_info
from quadmix.io.rows import read_records
from quadmix.raters.table import Texts
from quadmix.recipe.rating import TextsSection


def with_labels(pairs_digest: str, section: TextsSection) -> str:
    """Return the digest of pairs, and of the labels that a report on them is made with."""
    if section.human is None:
        return pairs_digest
    files = [file_info(path).digest for path in expand(section.paths)]
    return value_digest([pairs_digest, section.human, section.same or section.id, files])


def human_labels(section: TextsSection, texts: Texts) -> dict[str, float] | None:
    """Return the labels of the texts, None where the settings name no column of them.

    A text has the number of its document, as have its translations: the first number that the document's rows
    give. Rows without a value say nothing. Raises InputError for a value that is no finite number, and where
    no document has one.
    """
    if section.human is None:
        return None
    found: dict[str, float] = {}
    for path in expand(section.paths):
        for number, row in enumerate(read_records(path)):
            value = row.get(section.human)
            if value is None or value != value:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) == float("inf"):
                raise InputError(
                    f"{path}, row {number}: column {section.human!r} (texts.human) holds {value!r}, expected "
                    "a finite number, larger = better, or nothing"
                )
            found.setdefault(str(row.get(section.same or section.id)), float(value))
    labels = {i: found[s] for i, s in zip(texts.ids, texts.source, strict=True) if s in found}
    if not labels:
        raise InputError(
            f"texts.human: no document of the pairs has a number in column {section.human!r}; name another "
            "column, or leave the key out"
        )
    return labels
