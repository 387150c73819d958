"""Benchmarks as windows of tokens: one set per benchmark, one row per choice of an item.

In: `BenchmarkItems`, the tokenizer. Out: a folder in the layout of `proxy.targets`, and `items.json`, which
says what each row is. Contexts and continuations are encoded as lm-evaluation-harness does
(`TemplateLM._encode_pair`, `HFLM._loglikelihood_tokens`): white space at the end of a context moves to the
continuation, both are encoded together, the continuation is what follows as many tokens as the context has
alone, end-of-document comes first, and of a row that is too long the last context + 1 tokens are kept. A
continuation longer than the context, which the harness refuses, is scored whole in several windows; the
manifest's warnings count such rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import InputError
from quadmix.io.atomic import read_value, value_digest, write_json
from quadmix.proxy.targets import TargetSet, TokenRow, cut_windows, is_whole, open_targets, write_sets


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTable:
    """What the rows of one benchmark's set are.

    item, choice, characters: (R,) per row: which item, which of its choices, and the length of the choice's
    text, by which accuracy is normalised. gold: (I,) the right choice of every item. chance: accuracy of
    guessing, None for kind "greedy". blank: the choices stand in the contexts, so that lengths say nothing.
    """

    name: str
    kind: Literal["choices", "greedy"]
    item: tuple[int, ...]
    choice: tuple[int, ...]
    characters: tuple[int, ...]
    gold: tuple[int, ...]
    chance: float | None
    blank: bool
    rows_in: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    benchmarks: tuple[ChoiceTable, ...]
    version: int = 1


def encode_benchmarks(
    benchmarks: Sequence[BenchmarkItems], tokenizer: Tokenizer, context: int, folder: str
) -> list[TargetSet]:
    """Encode all benchmarks into `folder`, or reuse what is there from the same texts.

    Raises InputError naming benchmark, item and choice for a continuation without a token of its own.
    """
    source = value_digest([tokenizer.digest, context, "benchmark", list(benchmarks)])
    if is_whole(folder, source):
        return open_targets(folder)
    sets = [
        cut_windows(items.name, "benchmark", choice_rows(items, tokenizer), context) for items in benchmarks
    ]
    Path(folder, "manifest.json").unlink(missing_ok=True)  # of other texts: it vouches for items.json too
    write_json(Path(folder, "items.json"), _Index(benchmarks=tuple(_table(items) for items in benchmarks)))
    return write_sets(sets, folder, context, source, tokenizer.digest, kind="benchmark")


def read_choices(folder: str | Path) -> dict[str, ChoiceTable]:
    """Return what the rows of every benchmark of a folder are, by name, in the order of the sets."""
    file = Path(folder, "items.json")
    if not file.exists():
        raise InputError(
            f"benchmark folder {str(folder)!r} has no items.json; run the evaluate stage to build it"
        )
    return {table.name: table for table in read_value(file, _Index).benchmarks}


def choice_rows(items: BenchmarkItems, tokenizer: Tokenizer) -> list[TokenRow]:
    """Return the token ids of every (item, choice) in order; bytes are those of the continuation."""
    pairs = [
        _moved(context, continuation)
        for contexts, continuations in zip(items.contexts, items.continuations, strict=True)
        for context, continuation in zip(contexts, continuations, strict=True)
    ]
    heads = tokenizer.encode([context for context, _ in pairs])
    wholes = tokenizer.encode([context + continuation for context, continuation in pairs])
    rows: list[TokenRow] = []
    for index, ((_, continuation), head, whole) in enumerate(zip(pairs, heads, wholes, strict=True)):
        if len(whole) <= len(head):
            table = _table(items)
            raise InputError(
                f"benchmark {items.name!r}, item {table.item[index]}, choice {table.choice[index]}: "
                f"{continuation[:60]!r} has no token of its own after its prompt with this tokenizer; "
                "remove the row, or begin the choice with white space"
            )
        rows.append(
            TokenRow(
                ids=[tokenizer.end_of_document, *head, *whole[len(head) :]],
                unscored=1 + len(head),
                bytes=len(continuation.encode()),
            )
        )
    return rows


def _moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _table(items: BenchmarkItems) -> ChoiceTable:
    return ChoiceTable(
        name=items.name,
        kind=items.kind,
        item=tuple(i for i, choices in enumerate(items.choices) for _ in choices),
        choice=tuple(c for choices in items.choices for c in range(len(choices))),
        characters=tuple(len(text) for choices in items.choices for text in choices),
        gold=items.gold,
        chance=items.chance,
        blank=items.blank,
        rows_in=items.rows_in,
    )
