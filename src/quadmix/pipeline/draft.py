"""`quadmix init`: look at the first rows of a corpus and write a recipe that says what was found.

Columns by name; numeric columns become criteria (their direction is a guess that the file says to
check); a string column with few values becomes the domain.
"""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from quadmix.corpus.columns import detect_columns
from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import write_text
from quadmix.io.fs import expand
from quadmix.io.readers import plan_splits, read_arrow, read_rows
from quadmix.io.rows import read_records
from quadmix.recipe import Columns

SAMPLE = 2_000
_NOT_SCORES = ("token_count", "tokens", "n_tokens", "length", "int_score", "year", "id", "index")
_LOWER = ("perplexity", "ppl", "toxicity", "spam")
_EXAMPLE_TARGET = "  - {name: questions, path: questions.jsonl, prompt: question, answer: answer}"
_DOMAIN_NAMES = ("domain", "domain_hint", "topic", "source", "category", "language")


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
            f"the first files of {', '.join(paths)} hold no readable row; is this JSONL or Parquet?"
        )
    names = sorted({key for row in rows for key in row})
    columns = detect_columns(pa.schema([(n, pa.null()) for n in names]), Columns())
    domain = _domain_column(rows, names, {columns.text, columns.id})
    scores = _score_columns(rows, [n for n in names if n not in (columns.text, columns.id)])
    text = _render(paths, name, domain, scores, targets)
    write_text(out, text)
    return [
        f"{len(files)} files; first {len(rows):,} rows read",
        f"text      {columns.text}",
        f"id        {columns.id or 'none: ids are made from file and row'}",
        f"domain    {domain or 'none found: one domain; see annotate.domain in the recipe'}",
        f"criteria  {', '.join(s for s, _ in scores) or 'no numeric columns: the built-in heuristic'}",
        f"wrote     {out}; check it, then: quadmix plan {out}",
    ]


def _first_rows(files: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows from the start of a few files, spread over the list."""
    chosen = [files[i] for i in sorted({0, len(files) // 3, 2 * len(files) // 3, len(files) - 1})]
    rows: list[dict[str, Any]] = []
    for path in chosen:
        split = plan_splits([path], 1 << 40)[0]
        if split.format == "parquet":
            batches = (b.table.to_pylist() for b in read_arrow(split))
        else:
            batches = (b.values for b in read_rows(split, max_row_bytes=64_000_000, bad=lambda _bad: None))
        rows += islice(chain.from_iterable(batches), SAMPLE // len(chosen))
    return rows


def _domain_column(
    rows: Sequence[dict[str, Any]], names: Sequence[str], taken: set[str | None]
) -> str | None:
    """Return a string column whose values repeat, named ones first."""
    ordered = [n for n in _DOMAIN_NAMES if n in names] + [n for n in names if n not in _DOMAIN_NAMES]
    for name in ordered:
        values = [row.get(name) for row in rows]
        if name in taken or not all(isinstance(v, str) and 0 < len(v) <= 60 for v in values):
            continue
        share = 5 if name in _DOMAIN_NAMES else 20
        if len(set(values)) <= max(2, min(60, len(rows) // share)):
            return name
    return None


def _score_columns(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in names:
        values = [row.get(name) for row in rows if row.get(name) is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if values and numbers and name not in _NOT_SCORES and len(set(values)) > 2:
            found.append((name, "lower" if any(w in name.lower() for w in _LOWER) else "higher"))
    return found


def _render(
    paths: Sequence[str],
    name: str,
    domain: str | None,
    scores: Sequence[tuple[str, str]],
    targets: Sequence[str],
) -> str:
    quoted = ", ".join(json.dumps(str(Path(p).absolute()) if "://" not in p else p) for p in paths)
    criteria = [
        f"    - {{name: {_slug(s, {'rules'})}, kind: column, column: {json.dumps(s)}, direction: {d}}}"
        for s, d in scores
    ] + ["    - {name: rules, kind: heuristic}  # Gopher/C4/FineWeb rules, no model needed"]
    place = f"{{kind: column, column: {json.dumps(domain)}}}" if domain else "{kind: single}"
    lines = [
        "# Written by `quadmix init`. Every key, its default and its meaning: docs/recipe.schema.json",
        f"name: {name}",
        "seed: 0",
        "",
        "corpus:",
        f"  paths: [{quoted}]",
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
