"""Is an export what the dataset holds? (promise P12): every document compared by checksum, some by text.

In: what went into the files, what the format's reader finds in them. Out: counts, or an IntegrityError.
"""

from collections.abc import Callable, Iterator

import numpy as np
import xxhash

from quadmix.errors import IntegrityError
from quadmix.materialise.exports.kinds import Document, Vocabulary
from quadmix.rng import stream

_SAMPLES = 16


class Tally:
    """Counts and checksum of documents in their order; keeps those at the places in `wanted`."""

    def __init__(self, wanted: frozenset[int], eos_id: int = -1) -> None:
        self.documents = self.tokens = self.eos_inside = 0
        self.kept: dict[int, Document] = {}
        self._wanted, self._eos_id = wanted, eos_id
        self._sum = xxhash.xxh3_128()

    def add(self, document: Document) -> None:
        """Count one more document."""
        if self.documents in self._wanted:
            self.kept[self.documents] = Document(doc_id=document.doc_id, text=document.text, ids=document.ids)
        self.documents += 1
        if document.ids is None:
            self._update(document.doc_id.encode())
            self._update(document.text.encode())
        else:
            self.tokens += len(document.ids)
            self.eos_inside += bool((document.ids[:-1] == self._eos_id).any())
            self._update(document.ids.astype("<u4").tobytes())

    def _update(self, data: bytes) -> None:
        self._sum.update(len(data).to_bytes(8, "little"))
        self._sum.update(data)

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()


def sample_places(documents: int, seed: int) -> frozenset[int]:
    """Return the places of the first and the last document and of some between, by seed."""
    drawn = stream(seed, "export samples").integers(0, documents, _SAMPLES - 2)
    return frozenset({0, documents - 1, *(int(i) for i in drawn)})


def check_export(
    written: Tally, found: Iterator[Document], words: Vocabulary | None, advance: Callable[[int], None]
) -> int:
    """Compare what is in the files with what went into them; return how many samples came back to the letter.

    IntegrityError names the first sample that differs, or the counts.
    """
    read = Tally(frozenset(written.kept))
    for document in found:
        read.add(document)
        advance(1)
    exact = sum(_same(place, written.kept[place], got, words) for place, got in read.kept.items())
    if (read.documents, read.tokens, read.digest) != (written.documents, written.tokens, written.digest):
        raise IntegrityError(
            f"the files hold {read.documents:,} documents and {read.tokens:,} tokens with checksum "
            f"{read.digest}; written were {written.documents:,} and {written.tokens:,} with "
            f"{written.digest}. Nothing was kept; is the disk sound?"
        )
    return exact


def _same(place: int, given: Document, got: Document, words: Vocabulary | None) -> bool:
    """Does the document come back to the letter? IntegrityError if it is another one."""
    if given.ids is None or got.ids is None or words is None:
        same, exact = (given.doc_id, given.text) == (got.doc_id, got.text), True
    else:
        text = words.tokenizer.decode(got.ids[:-1].tolist())
        same = np.array_equal(given.ids, got.ids) and int(got.ids[-1]) == words.tokenizer.end_of_document
        same = same and text == words.tokenizer.decode(given.ids[:-1].tolist())
        exact = text == given.text
    if not same:
        raise IntegrityError(
            f"document {place} ({given.doc_id!r}) is another one when it is read back; nothing was kept"
        )
    return exact
