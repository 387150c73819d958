"""Text of English and a second language for `language_ratio.py`: what is trained on, held out, and asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.errors import InputError
from quadmix.io.rows import read_records
from quadmix.rng import keyed_uniform
from quadmix.types import Ints

DOMAINS = ("english", "second", "parallel", "apart")
HELD_OUT, OPTIONS = 0.05, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """training: domain -> texts; those of `apart` are those of `parallel`, one language in each.
    heldout: language -> texts. sentences: (English, second) of FLORES."""

    training: dict[str, list[str]]
    heldout: dict[str, list[str]]
    sentences: list[tuple[str, str]]


def read_material(data: Path, language: str) -> Material:
    """Read all text of both languages; English web text is cut to the bytes of the other one, by a hash."""
    many = data / "multilingual"
    second = {r["id"]: r["text"] for r in read_records(str(many / "web_registers.jsonl.zst"))
              if r["iso3"] == language}  # fmt: skip
    if not second:
        raise InputError(f"web_registers has no text in {language!r}; expected zho, fra, ind, fin, swe, ...")
    web = {r["id"]: r["text"] for r in read_records(str(data / "corpus" / "web.jsonl.zst"))}
    english = cut_to(web, sum(len(t.encode()) for t in second.values()))
    split = {"english": halves(english), "second": halves(second)}
    both = [
        lines
        for name in ("ntrex_docs", "tico19_docs")
        for lines in paired_lines(read_records(str(many / f"{name}.jsonl.zst")), language)
    ]
    return Material(
        training={
            **{name: rest for name, (_, rest) in split.items()},
            "parallel": [interleaved(lines) for lines in both],
            "apart": ["\n".join(own) for lines in both for own in zip(*lines, strict=True)],
        },
        heldout={name: held for name, (held, _) in split.items()},
        sentences=aligned(read_records(str(many / "sib200.jsonl.zst")), language),
    )


def cut_to(texts: dict[str, str], limit: int) -> dict[str, str]:
    """Return texts in the order of a hash of their ids, up to about `limit` bytes."""
    ids = list(texts)
    out: dict[str, str] = {}
    for i in np.argsort(keyed_uniform(0, ids, "language-ratio"), kind="stable"):
        if limit <= 0:
            break
        out[ids[i]] = texts[ids[i]]
        limit -= len(texts[ids[i]].encode())
    return out


def halves(texts: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return (held out, training), by a hash of the ids; at least one text is held out."""
    draw = keyed_uniform(0, list(texts), "held-out")
    held = (draw <= max(HELD_OUT, draw.min())).tolist()
    rows = list(zip(texts.values(), held, strict=True))
    return [text for text, out in rows if out], [text for text, out in rows if not out]


def paired_lines(rows: Sequence[dict[str, Any]], language: str) -> list[list[tuple[str, str]]]:
    """Return the lines of each document that both languages have, in pairs.

    Which language comes first in all pairs of a document alternates by a hash. A document whose lines do not
    pair is left out.
    """
    by: dict[str, dict[str, str]] = {}
    for row in rows:
        by.setdefault(row["parallel_id"], {})[row["iso3"]] = row["text"]
    both = {i: (v["eng"], v[language]) for i, v in by.items() if {"eng", language} <= v.keys()}
    out: list[list[tuple[str, str]]] = []
    for first, (english, second) in zip(
        keyed_uniform(0, list(both), "first") < 0.5, both.values(), strict=True
    ):
        a, b = english.split("\n"), second.split("\n")
        if len(a) == len(b):
            out.append(list(zip(a, b, strict=True) if first else zip(b, a, strict=True)))
    return out


def interleaved(lines: Sequence[tuple[str, str]]) -> str:
    """Return one text: a line of each language by turns."""
    return "\n".join(f"{one}\n{other}" for one, other in lines)


def aligned(rows: Sequence[dict[str, Any]], language: str) -> list[tuple[str, str]]:
    """Return FLORES sentences in both languages; of several scripts of one language the first by name."""
    own = sorted({r["lang"] for r in rows if r["iso3"] == language})
    first = {r["parallel_id"]: r["text"] for r in rows if r["lang"] == "eng_Latn"}
    second = {r["parallel_id"]: r["text"] for r in rows if own and r["lang"] == own[0]}
    return [(first[i], second[i]) for i in sorted(first.keys() & second.keys())]


def choice_items(sentences: Sequence[tuple[str, str]], which: int) -> BenchmarkItems:
    """Return the items of one language: go on with the first half of a sentence. Which other sentences give
    the wrong options, and the place of the right one, are the same in both languages."""
    cuts = [cut(pair[which]) for pair in sentences]
    count = len(sentences)
    contexts, continuations, gold = [], [], []
    for i, (head, tail) in enumerate(cuts):
        luck = keyed_uniform(0, [f"{i}:{k}" for k in range(count)], "wrong")
        others = [int(k) for k in np.argsort(luck, kind="stable") if k != i][: OPTIONS - 1]
        place = int(keyed_uniform(0, [str(i)], "place")[0] * OPTIONS)
        ends = [cuts[k][1] for k in others]
        contexts.append((head,) * OPTIONS)
        continuations.append((*ends[:place], tail, *ends[place:]))
        gold.append(place)
    return BenchmarkItems(
        name=f"flores-{DOMAINS[which]}", contexts=tuple(contexts), continuations=tuple(continuations),
        choices=tuple(tuple(c.strip() for c in row) for row in continuations), gold=tuple(gold),
        kind="choices", rows_in=count,
    )  # fmt: skip


def cut(text: str) -> tuple[str, str]:
    """Return both halves of a sentence, cut before the space nearest to its middle, if there are any."""
    middle = len(text) // 2
    spaces = [i for i, c in enumerate(text) if c == " "]
    place = min(spaces, key=lambda i: abs(i - middle)) if len(spaces) > 2 else middle
    return text[:place], text[place:]


def consistency(first: Ints, second: Ints, gold: Ints) -> dict[str, float]:
    """Return accuracies, agreement (mlc), its parts, and kappa: agreement beyond that of shuffled answers."""
    same, right = first == second, [own == gold for own in (first, second)]
    shares = [np.bincount(own, minlength=OPTIONS) / len(own) for own in (first, second)]
    chance = float(shares[0] @ shares[1])
    mlc = float(same.mean())
    return {
        "acc_english": float(right[0].mean()), "acc_second": float(right[1].mean()), "mlc": mlc,
        "mlc_right": float((right[0] & right[1]).mean()), "mlc_wrong": float((same & ~right[0]).mean()),
        "kappa": (mlc - chance) / (1 - chance) if chance < 1 else float("nan"),
    }  # fmt: skip


def text_nulls(items: Sequence[BenchmarkItems]) -> dict[str, dict[str, float]]:
    """Return what always taking the shortest, or the longest option reaches."""
    sizes = [np.array([[len(c.encode()) for c in row] for row in own.choices]) for own in items]
    gold = np.array(items[0].gold)
    return {
        name: consistency(*(pick(own, axis=1) for own in sizes), gold)
        for name, pick in (("shortest", np.argmin), ("longest", np.argmax))
    }
