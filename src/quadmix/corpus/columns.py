"""What the user's columns mean: which holds the text, the id, the domain, the token count.

In: the schema of the files and the names in the recipe. Out: a `ColumnMap`, and for a new recipe the
convention of a published corpus that the names follow. A name is a column as it stands; only when there is
none, its dots lead into nested fields.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import pyarrow as pa

from quadmix.corpus.schema import decode_json, is_json
from quadmix.errors import InputError
from quadmix.recipe.sections import Columns
from quadmix.types import ColumnMap

TEXT_NAMES = ("text", "raw_content", "content", "document")
ID_NAMES = ("id", "doc_id", "uid", "uuid")
SOURCE_NAMES = ("url", "source_domain", "host", "source")
LANGUAGE_NAMES = ("language", "lang")
_DCLM_SCORE = "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """The column names of a family of published corpora. It applies if all of `every` and one of
    `some` exist.

    text, ids: the columns of these roles, ids in order of preference. tokens, tokenizer: token counts, and
    whose. scores: quality scores with the direction that is better. domains: in order of preference.
    passive: columns that are neither a score nor a domain, whatever their values look like.
    """

    name: str
    every: tuple[str, ...]
    some: tuple[str, ...]
    text: str = "text"
    ids: tuple[str, ...] = ID_NAMES
    tokens: str | None = None
    tokenizer: str = ""
    scores: tuple[tuple[str, Literal["higher", "lower"]], ...] = ()
    domains: tuple[str, ...] = ()
    passive: tuple[str, ...] = ()


CONVENTIONS = (  # the first that applies is taken
    Convention(
        name="DCLM",
        every=("text", "url"),
        some=(_DCLM_SCORE, "language_id_whole_page_fasttext", "bff_contained_ngram_count_before_dedupe"),
        ids=(*ID_NAMES, "metadata.WARC-Record-ID"),
        scores=((_DCLM_SCORE, "higher"),),
        passive=("bff_contained_ngram_count_before_dedupe", "previous_word_count", "warcinfo"),
    ),
    Convention(
        name="RedPajama-v2",
        every=("raw_content",),
        some=("doc_id", "quality_signals", "digest", "nlines"),
        text="raw_content",
        ids=("doc_id", "id"),
        scores=(("perplexity", "lower"), ("ccnet_perplexity", "lower")),
        domains=("language",),
        passive=(
            "bucket", "cc_segment", "date_download", "digest", "language_score", "length", "line_ids",
            "nlines", "original_length", "original_nlines", "partition",
        ),
    ),
    Convention(
        name="FineWeb",
        every=("text", "id", "dump", "url"),
        some=("file_path", "token_count", "language_score"),
        tokens="token_count",
        tokenizer="gpt2",
        scores=(("score", "higher"),),
        domains=("language", "dump"),
        passive=(
            "date", "file_path", "int_score", "language_score", "language_script", "minhash_cluster_size",
            "token_count", "top_langs",
        ),
    ),
    Convention(
        name="Dolma",
        every=("id", "text", "source"),
        some=("added", "created", "attributes", "metadata"),
        domains=("source",),
        passive=("added", "created", "version"),
    ),
)  # fmt: skip


def detect_convention(schema: pa.Schema) -> Convention | None:
    """Return the convention that the columns follow; None where they are nobody's."""
    names = set(schema.names)
    fits = (c for c in CONVENTIONS if names.issuperset(c.every) and not names.isdisjoint(c.some))
    return next(fits, None)


def convention_columns(schema: pa.Schema, convention: Convention | None) -> ColumnMap:
    """Return the roles of the columns by a convention; InputError where there is no text column."""
    if convention is None:
        return detect_columns(schema, Columns())
    return ColumnMap(
        text=convention.text,
        id=next((n for n in convention.ids if has_column(schema, n)), None),
        tokens=convention.tokens if convention.tokens in schema.names else None,
    )


def detect_columns(schema: pa.Schema, section: Columns) -> ColumnMap:
    """Return the roles of the columns: names in the recipe win, text and id are otherwise detected.

    InputError names a column that is missing, with the columns there are.
    """
    for role in ("text", "id", "tokens", "source", "language"):
        name = getattr(section, role)
        if name is not None and not has_column(schema, name):
            raise InputError(
                f"corpus.columns.{role} is {name!r}, but the files have {_present(schema)}; name one of these"
            )
    text = section.text or next((n for n in TEXT_NAMES if n in schema.names), None)
    if text is None:
        raise InputError(
            f"no text column found: looked for {', '.join(TEXT_NAMES)}, the files have {_present(schema)}; "
            "name it in corpus.columns.text"
        )
    identity = section.id or next((n for n in ID_NAMES if n in schema.names and n != text), None)
    return counted_columns(ColumnMap(text=text, id=identity, tokens=section.tokens), schema, section)


def counted_columns(columns: ColumnMap, schema: pa.Schema, section: Columns) -> ColumnMap:
    """Return the roles with those columns that are only counted; which documents there are hangs on none."""
    return replace(
        columns,
        source=section.source or _first(schema, SOURCE_NAMES, columns.text),
        language=section.language or _first(schema, LANGUAGE_NAMES, columns.text),
    )


def _first(schema: pa.Schema, names: tuple[str, ...], text: str) -> str | None:
    """Return the first of the names that is a column of strings."""
    kinds = {f.name: f.type for f in schema if f.name != text}
    return next((n for n in names if n in kinds and _is_string(kinds[n])), None)


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _present(schema: pa.Schema) -> str:
    names = ", ".join(map(repr, schema.names[:40])) or "no columns"
    return names + (f" and {len(schema) - 40} more" if len(schema) > 40 else "")


def has_column(schema: pa.Schema, name: str) -> bool:
    """Is there a column `name`, or nested fields along its dots? (JSON text may hold any.)"""
    if name in schema.names:
        return True
    root, *steps = name.split(".")
    if root not in schema.names:
        return False
    if is_json(schema.field(root)):
        return True
    kind = schema.field(root).type
    for step in steps:
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            return False
        kind = kind.field(step).type
    return bool(steps)


def root_of(names: list[str], name: str) -> str:
    """Return the top-level column that holds `name`."""
    return name if name in names else name.split(".")[0]


def lookup(row: dict[str, Any], name: str) -> Any:
    """Return the value of a column, dotted for nested fields; None where it is missing."""
    if name in row:
        return row[name]
    value: Any = row
    for step in name.split("."):
        if not isinstance(value, dict):
            return None
        value = cast(dict[str, Any], value).get(step)
    return value


def column_values(rows: pa.RecordBatch, name: str) -> list[Any]:
    """Return the values of one column of a batch, dotted for nested fields, JSON text decoded."""
    root = root_of(rows.schema.names, name)
    if root not in rows.schema.names:
        raise InputError(f"no column {name!r}; the files have {_present(rows.schema)}")
    values = rows.column(root).to_pylist()
    if is_json(rows.schema.field(root)):
        values = [decode_json(v) for v in values]
    return values if root == name else [lookup({root: v}, name) for v in values]
