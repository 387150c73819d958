"""`quadmix init`: look at the first rows of a corpus and write a recipe that says what was found.

Columns by name, where they follow a known convention by that; further numeric columns become criteria (their
direction is a guess that the file says to check); a string column with few values becomes the domain.
"""

import json
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from quadmix.corpus.columns import Convention, convention_columns, detect_convention, lookup
from quadmix.corpus.rows import valid_rows
from quadmix.corpus.schema import Columns, final_schema, observe_rows
from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import write_text
from quadmix.io.formats import is_columnar
from quadmix.io.fs import expand
from quadmix.io.readers import plan_splits, read_arrow, read_rows
from quadmix.io.rows import read_records
from quadmix.types import ColumnMap, Split

SAMPLE = 2_000
_NOT_SCORES = ("token_count", "tokens", "n_tokens", "length", "int_score", "year", "id", "index")
_LOWER = ("perplexity", "ppl", "toxicity", "spam")
_DOMAIN_NAMES = ("domain", "domain_hint", "topic", "source", "category", "language")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    """A numeric column that becomes a criterion. known: by a convention; else the direction is a guess."""

    column: str
    direction: str
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the columns mean."""

    convention: Convention | None
    columns: ColumnMap
    domain: str | None
    scores: tuple[_Score, ...]

    def lines(self) -> list[str]:
        """Return the mapping in words."""
        known, columns = self.convention, self.columns
        tokens = f"{columns.tokens} (counted with {known.tokenizer})" if known and columns.tokens else ""
        criteria = ", ".join(f"{s.column} ({s.direction}{'' if s.known else '?'})" for s in self.scores)
        return [
            f"names     {f'those of {known.name}' if known else 'of no known convention'}",
            f"text      {columns.text}",
            f"id        {columns.id or 'none: ids are made from file and row'}",
            f"tokens    {tokens or 'counted when the corpus is annotated'}",
            f"domain    {self.domain or 'none found: one domain; see annotate.domain in the recipe'}",
            f"criteria  {criteria or 'no numeric columns: the built-in heuristic'}",
        ]


def write_draft(paths: Sequence[str], out: Path, *, targets: Sequence[str], name: str) -> list[str]:
    """Write a recipe for `paths` and return the lines that tell the user what was detected.

    Raises RecipeError when `out` exists, InputError when no text column is found.
    """
    if out.exists():
        raise RecipeError(f"{out} exists; choose another name with --out, or remove it first")
    files = expand(paths)
    rows = _first_rows(files)
    if not rows:
        raise InputError(
            f"the first files of {', '.join(paths)} hold no readable row; expected JSON lines, Parquet, "
            "Arrow or WARC with text in it"
        )
    found = _look(rows)
    write_text(out, _render(paths, name, found, targets))
    return [
        f"{len(files)} files; first {len(rows):,} rows read",
        *found.lines(),
        f"wrote     {out}; check it, then: quadmix plan {out}",
    ]


def _first_rows(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows from the start of a few files, spread over the list."""
    chosen = [files[i] for i in sorted({0, len(files) // 3, 2 * len(files) // 3, len(files) - 1})]
    rows: list[dict[str, Any]] = []
    for path in chosen:
        rows += islice(_sound_values(plan_splits([path], 1 << 40)[0]), SAMPLE // len(chosen))
    return rows


def _sound_values(split: Split) -> Iterator[dict[str, Any]]:
    if not is_columnar(split.format):
        for batch in read_rows(split, max_row_bytes=64_000_000, bad=lambda _bad: None):
            yield from batch.values
        return
    for batch in read_arrow(split):
        valid = valid_rows(batch.table, split.path)
        table = batch.table if valid is None else batch.table.take(pa.array(valid, pa.int64()))
        # dates are neither text nor numbers, and their nanoseconds do not fit Python's
        arrays = [pa.nulls(len(c)) if pa.types.is_temporal(c.type) else c for c in table.columns]
        yield from pa.RecordBatch.from_arrays(arrays, names=table.schema.names).to_pylist()


def _look(rows: Sequence[dict[str, Any]]) -> _Found:
    seen: Columns = {}
    observe_rows(seen, list(rows))
    schema = final_schema(seen)[0]
    convention = detect_convention(schema)
    columns = _supported(convention_columns(schema, convention), rows)
    roles = {columns.text, columns.id, columns.tokens}
    names = sorted(n for n in schema.names if n not in roles)
    return _Found(
        convention=convention,
        columns=columns,
        domain=_domain_column(rows, names, convention),
        scores=_score_columns(rows, names, convention),
    )


def _supported(columns: ColumnMap, rows: Sequence[dict[str, Any]]) -> ColumnMap:
    """Return the roles without nested ids and token counts that some of the rows do not have."""
    identity, tokens = columns.id, columns.tokens
    if identity and "." in identity and any(lookup(row, identity) is None for row in rows):
        identity = None
    if tokens and not all(type(n) is int and n > 0 for n in (row.get(tokens) for row in rows)):
        tokens = None
    return ColumnMap(text=columns.text, id=identity, tokens=tokens)


def _domain_column(
    rows: Sequence[dict[str, Any]], names: Sequence[str], convention: Convention | None
) -> str | None:
    """Return a string column whose values repeat: those of the convention, then well-known names, then any.

    One that is the same in all rows is taken only if there is no better one, and only if its name is known.
    """
    known = dict.fromkeys((*(convention.domains if convention else ()), *_DOMAIN_NAMES))
    passive = set(convention.passive if convention else ())
    constant: list[str] = []
    for name in [n for n in known if n in names] + [n for n in names if n not in known]:
        values = [row.get(name) for row in rows]
        if name in passive or not all(isinstance(v, str) and 0 < len(v) <= 60 for v in values):
            continue
        distinct, share = len(set(values)), 5 if name in known else 20
        if 1 < distinct <= max(2, min(60, len(rows) // share)):
            return name
        if distinct == 1 and name in known:
            constant.append(name)
    return constant[0] if constant else None


def _score_columns(
    rows: Sequence[dict[str, Any]], names: Sequence[str], convention: Convention | None
) -> tuple[_Score, ...]:
    known = dict(convention.scores) if convention else {}
    passive = {*_NOT_SCORES, *(convention.passive if convention else ())}
    found: list[_Score] = []
    for name in names:
        values = [row.get(name) for row in rows if row.get(name) is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not values or not numbers or len(set(values)) <= 2:
            continue
        if name in known:
            found.append(_Score(column=name, direction=known[name], known=True))
        elif name not in passive:
            guess = "lower" if any(w in name.lower() for w in _LOWER) else "higher"
            found.append(_Score(column=name, direction=guess, known=False))
    return tuple(found)


def _render(
    paths: Sequence[str],
    name: str,
    found: _Found,
    targets: Sequence[str],
) -> str:
    quoted = ", ".join(json.dumps(str(Path(p).absolute()) if "://" not in p else p) for p in paths)
    criteria = [
        f"    - {{name: {_slug(s.column, {'rules'})}, kind: column, column: {json.dumps(s.column)}, "
        f"direction: {s.direction}}}{'' if s.known else '  # a guess'}"
        for s in found.scores
    ] + ["    - {name: rules, kind: heuristic}  # Gopher/C4/FineWeb rules, no model needed"]
    place = f"{{kind: column, column: {json.dumps(found.domain)}}}" if found.domain else "{kind: single}"
    lines = [
        "# Written by `quadmix init`. Every key, its default and its meaning: docs/recipe.schema.json",
        f"name: {name}",
        "seed: 0",
        "",
        "corpus:",
        f"  paths: [{quoted}]",
        *_column_lines(found),
        "",
        "annotate:",
        f"  domain: {place}",
        "  criteria:           # check every direction: is a higher or a lower number better?",
        *criteria,
        "    # a classifier of your own, trained here: texts you want more of against a sample of the pool",
        "    # - {name: reference, kind: linear, good: [{path: reference.jsonl, text: text}]}",
        "    # a regression on labelled documents (larger label = better):",
        "    # - {name: edu, kind: regression, labelled: [{path: labelled.jsonl, text: text, label: score}]}",
        "",
        "budget:",
        "  share: 0.1          # of the pool's tokens, copies counted; or `tokens: 3_000_000_000`",
        "  # train_tokens: ... # length of the final training, if it repeats the selection",
        "",
        "targets:              # what the model should be good at: train or dev splits, never test splits",
        *(
            _target_lines(targets)
            or ["  - {name: questions, path: questions.jsonl, prompt: question, answer: answer}"]
        ),
        "",
        "proxy:",
        "  trials: 64          # more trials: a better surrogate; fewer than 30 drown in noise",
        "  training: {tokens: 1_000_000}",
        "",
    ]
    return "\n".join(lines)


def _column_lines(found: _Found) -> list[str]:
    """Return the roles as the recipe states them; what the corpus would detect alike is left out."""
    columns, known = found.columns, found.convention
    if known is None:
        return []
    roles = {"text": columns.text, "id": columns.id, "tokens": columns.tokens}
    stated = ", ".join(f"{role}: {json.dumps(name)}" for role, name in roles.items() if name)
    whose = f"; {columns.tokens} counts tokens of {known.tokenizer}" if columns.tokens else ""
    return [f"  columns: {{{stated}}}  # as in {known.name}{whose}"]


def _target_lines(targets: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for path in targets:
        records = read_records(path)
        if not records:
            raise InputError(f"target {path!r} has no row; expected one JSON object per line, or Parquet")
        row = records[0]
        splits = {r.get("split") for r in records}
        split = next((f", split: {name}" for name in ("train", "dev", "validation") if name in splits), "")
        place = json.dumps(str(Path(path).absolute()))
        part = f"name: {_slug(Path(path).name.split('.')[0])}, path: {place}{split}"
        prompt = next((k for k in ("prompt", "query", "question", "instruction") if k in row), None)
        answer = next(
            (k for k in ("answer", "answers", "response", "output", "completion") if k in row), None
        )
        if "choices" in row and "gold" in row and prompt:
            lines.append(f"  - {{{part}, prompt: {prompt}, choices: choices, gold: gold, loss: all}}")
        elif prompt and answer:
            lines.append(f"  - {{{part}, prompt: {prompt}, answer: {answer}}}")
        elif "text" in row:
            lines.append(f"  - {{{part}, text: text}}")
        else:
            raise InputError(
                f"target {path!r} has the columns {', '.join(sorted(row))}; expected prompt and answer, "
                "prompt, choices and gold, or text"
            )
    return lines


def _slug(name: str, taken: AbstractSet[str] = frozenset()) -> str:
    """Return a name that a recipe accepts: ASCII letters, digits and ._- only, none of `taken`."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name).strip("-._")
    clean = clean[:70] or "unnamed"
    return f"{clean}-column" if clean in taken else clean
