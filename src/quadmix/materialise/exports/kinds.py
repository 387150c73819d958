"""What an exporter is and what it is given: documents in the order of the dataset, shard by shard.

A format is one `ExportFormat` value: two functions, `write` and `read`, and what must be known about it. The
formats of QuaDMix stand in `registry.BUILT_IN`; a package of yours adds one by an entry point of the group
`quadmix.exporters` that names such a value:

    [project.entry-points."quadmix.exporters"]
    mine = "my_package.export:FORMAT"

`write(source, folder)` puts all documents of `source.shards()`, in their order, into the empty `folder`.
`read(source, folder)` yields them again from the files alone. What was written is compared with what is read,
document by document, before the folder becomes visible.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quadmix.corpus.tokenizer import Tokenizer
from quadmix.types import DatasetManifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One row of the dataset: a document, or a copy of one.

    ids: (T,) int64 token ids ending in the end-of-document token, None in a format of texts. row: the user's
    columns and the struct `quadmix` in a format of texts, else {}. A reader fills what its files hold: ids,
    or doc_id and text.
    """

    doc_id: str = ""
    text: str = ""
    ids: NDArray[np.int64] | None = None
    row: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """One file of the dataset. name: inside `Source.dataset`. documents: to be gone through once."""

    index: int
    name: str
    rows: int
    documents: Iterator[Document]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """How texts become tokens. eos: the end-of-document token as text. dtype: of the ids on disk. name: what
    the consumer may load the tokenizer by, "" if nobody said."""

    tokenizer: Tokenizer
    eos: str
    dtype: np.dtype[Any]
    name: str = ""


class Source(Protocol):
    """The dataset as a writer sees it."""

    @property
    def dataset(self) -> Path: ...
    @property
    def manifest(self) -> DatasetManifest: ...
    @property
    def text(self) -> str:
        """Name of the text column; dots lead into nested fields."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """Of a format of tokens only."""
        ...

    def shards(self) -> Iterator[Shard]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format. holds: token ids or texts. dtype: of the ids for a tokenizer with that many entries.
    package, extra: the library that writes it, "" if QuaDMix does, and how it is installed with QuaDMix."""

    name: str
    holds: Literal["tokens", "texts"]
    write: Callable[[Source, Path], None]
    read: Callable[[Source, Path], Iterator[Document]]
    dtype: Callable[[int], np.dtype[Any]] = lambda entries: np.dtype(
        np.uint16 if entries <= 1 << 16 else np.uint32
    )
    package: str = ""
    extra: str = ""


class Step(Protocol):
    """Progress of one stage."""

    def advance(self, n: int = 1) -> None: ...


class Watch(Protocol):
    """Who is told how far an export is; `quadmix.pipeline.progress.Progress` is one."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Step]: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """One file of an export; digest: xxh3-128 of its bytes."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportManifest:
    """export.json: what the folder holds and where it came from; written last.

    library, library_version: what wrote the files. dataset: digest of the dataset; order: of its rows, kept.
    documents: rows, copies counted. tokens: with one end-of-document token each; 0 in a format of texts, as
    are the fields down to eos_id. eos_inside: documents whose text itself gave that token. sampled: documents
    compared with the dataset by text after reading back; exact: of these, how many came back to the letter
    (fewer if the tokenizer does not keep all characters). plan: digest of what was asked for.
    """

    format: str
    library: str
    library_version: str
    quadmix: str
    dataset: str
    order: Literal["shuffled", "corpus"]
    documents: int
    tokens: int = 0
    dtype: str = ""
    tokenizer: str = ""
    entries: int = 0
    eos: str = ""
    eos_id: int = 0
    eos_inside: int = 0
    sampled: int = 0
    exact: int = 0
    files: tuple[ExportFile, ...] = ()
    plan: str = ""
    version: int = 1

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files)
