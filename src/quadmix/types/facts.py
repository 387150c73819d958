"""Values about the documents of a dataset that are counted while its text is copied: where they come from,
which language they are in, which say the same. Shape letters: N criteria, C cuts.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """Documents and tokens of one source in the pool (`in`) and in the dataset (`out`, copies counted)."""

    source: str
    documents_in: int
    tokens_in: int
    documents_out: int
    unique_tokens: int
    tokens_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Concentration:
    """How the tokens are spread over the sources that have any.

    effective: 1 / Σ p², p the share of a source in the tokens: so many equally large sources would be as
    concentrated. gini: 0 = all alike, towards 1 = one has everything. largest: share of the largest source.
    """

    sources: int
    documents: int
    tokens: int
    effective: float
    gini: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """dataset/sources.json. plan: of the dataset's manifest. column: of the corpus; "" if nothing was
    counted, and `reason` says why.

    unnamed: documents without a value, which are in no other number here. before, after: the pool, and the
    dataset with its copies. top: the largest sources of either. digest: of all the rest.
    """

    plan: str
    column: str
    reason: str
    unnamed: SourceCount
    before: Concentration
    after: Concentration
    top: tuple[SourceCount, ...]
    digest: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageCell:
    """Tokens of one language in one domain, in the pool and in the dataset."""

    language: str
    domain: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRow:
    """One language ("" = the documents without a value).

    selectable_tokens: of documents that might have been selected. within: (C,) those of them whose rank is
    at most each of `LanguageFacts.cuts`. known: (N,) selectable documents with the score. mean: (N,) their
    mean normalised score, smaller = better, NaN without any.
    """

    language: str
    documents_in: int
    tokens_in: int
    documents_out: int
    unique_tokens: int
    tokens_out: int
    selectable_tokens: int
    within: tuple[int, ...]
    known: tuple[int, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageFacts:
    """dataset/languages.json, languages by tokens. plan, column, reason, digest: as in `SourceFacts`."""

    plan: str
    column: str
    reason: str
    criteria: tuple[str, ...]
    cuts: tuple[float, ...]
    languages: tuple[LanguageRow, ...]
    cells: tuple[LanguageCell, ...]
    digest: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGroup:
    """Selected documents of one text. ids: of the first few. copies, tokens_out: of all of them together.

    tokens: of the first of them.
    """

    ids: tuple[str, ...]
    documents: int
    copies: int
    tokens: int
    tokens_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFacts:
    """dataset/duplicates.json: selected documents with the same text, white space and case put aside.

    documents, unique_tokens, tokens_out: of the dataset. texts: different ones. text_tokens: tokens of every
    text once. groups: texts of two or more documents; grouped, group_tokens, group_tokens_out: what they
    hold. repeated_tokens: tokens of all documents of the groups but the first of each.
    """

    plan: str
    reason: str
    documents: int = 0
    texts: int = 0
    unique_tokens: int = 0
    tokens_out: int = 0
    text_tokens: int = 0
    groups: int = 0
    grouped: int = 0
    group_tokens: int = 0
    group_tokens_out: int = 0
    repeated_tokens: int = 0
    top: tuple[TextGroup, ...] = ()
    digest: str = ""
    version: int = 1
