"""The section "Where do the tokens come from?": concentration of sources, and texts that repeat.

In: dataset/sources.json and duplicates.json, which the stage that copies the text has counted. Out: HTML and
two figures. Of a run without these files it says what is missing and how to get it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quadmix.report.html import Gallery, Html, absent, details, join, not_run, note, section, show, table, tag
from quadmix.report.load import RunFiles
from quadmix.report.plots import (
    ACCENT,
    BAR,
    ORANGE,
    RED,
    Picture,
    Words,
    picture,
    ratio_axis,
    trim_middle,
)
from quadmix.report.records import DUPLICATES, SOURCES
from quadmix.report.text import clean, count, num, percent, short, sig
from quadmix.types.facts import DuplicateFacts, SourceCount, SourceFacts

TITLE = "Where do the tokens come from?"
SHOWN = 20
OWN = 0.8  # share of the pool's documents from which on their sources tell nothing
OLDER = "the dataset was written by a version of quadmix that did not count it"


def concentration(files: RunFiles, gallery: Gallery) -> Html:
    """Sources before and after, and repeated texts."""
    if files.dataset is None:
        return absent("sources", TITLE, "no dataset has been written")
    return section(
        "sources",
        TITLE,
        *_sources(files.records.sources, gallery),
        tag("h3", "Texts that are there more than once"),
        *_duplicates(files.records.duplicates, gallery),
        source=[
            path
            for path, found in ((SOURCES, files.records.sources), (DUPLICATES, files.records.duplicates))
            if found is not None
        ],
    )


# --------------------------------------------------------------------------- sources
def _sources(facts: SourceFacts | None, gallery: Gallery) -> list[Html]:
    if facts is None:
        return [not_run(f"sources were not counted: {OLDER}")]
    if facts.reason:
        return [not_run(f"sources were not counted: {facts.reason}")]
    if not facts.top:
        return [not_run(f"sources were not counted: the column {facts.column!r} is empty in every document")]
    shown = [
        show(gallery, source_shares(facts)),
        _spread_table(facts),
        _source_table(facts, shown_sources(facts)),
    ]
    if alone(facts):
        return [note(_alone_said(facts)), details("The largest sources all the same", *shown)]
    return [note(_sources_said(facts)), *shown]


def alone(facts: SourceFacts) -> bool:
    """Return whether there are nearly as many sources in the pool as documents."""
    return facts.before.sources >= OWN * max(1, facts.before.documents)


def _alone_said(facts: SourceFacts) -> str:
    each = (
        "every document is" if facts.before.sources == facts.before.documents else "nearly every document is"
    )
    return (
        f"By the column {facts.column} {each} a source of its own ({count(facts.before.sources)} sources, "
        f"{count(facts.before.documents)} documents in the pool): nothing can be said about how concentrated "
        "the tokens are. Name a column that many documents share, such as a site or a collection, in "
        "corpus.columns.source."
    )


def _sources_said(facts: SourceFacts) -> str:
    before, after = facts.before, facts.after
    said = (
        f"By the column {facts.column}: {count(before.sources)} sources in the pool, {count(after.sources)} "
        f"in the dataset. Its tokens are as concentrated as if they came from {sig(after.effective)} equally "
        f"large sources, those of the pool from {sig(before.effective)}."
    )
    if facts.unnamed.documents_in:
        said += (
            f" {count(facts.unnamed.documents_in)} documents name no source and are left out: "
            f"{percent(_share(facts.unnamed.tokens_out, _total(facts)))} of the dataset's tokens."
        )
    return said


def _total(facts: SourceFacts) -> int:
    return facts.after.tokens + facts.unnamed.tokens_out


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def shown_sources(facts: SourceFacts) -> list[SourceCount]:
    """Return the 20 largest sources of the dataset, the largest first."""
    return sorted(facts.top, key=lambda s: (-s.tokens_out, -s.tokens_in, s.source))[:SHOWN]


def shares(facts: SourceFacts, row: SourceCount) -> tuple[float, float, float]:
    """Return the source's share before and after, and their ratio."""
    before, after = _share(row.tokens_in, facts.before.tokens), _share(row.tokens_out, facts.after.tokens)
    return before, after, after / before if before else float("nan")


def source_shares(facts: SourceFacts) -> Picture:
    """Shares of the largest sources before and after, and their ratio on a log axis."""
    shown = shown_sources(facts)
    values = [shares(facts, row) for row in shown]
    y = np.arange(len(shown))[::-1]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        left.barh(y + 0.19, [100 * v[0] for v in values], 0.36, color=BAR, label="pool")
        left.barh(y - 0.19, [100 * v[1] for v in values], 0.36, color=ACCENT, label="dataset")
        left.set_yticks(y, trim_middle([clean(row.source) for row in shown], 38))
        left.set_xlabel("share of tokens, %")
        left.legend(loc="lower right")
        ratio_axis(right, y, np.array([v[2] for v in values]))

    largest = clean(shown[0].source)
    words = Words(
        name="source-shares",
        caption=f"The {len(shown)} sources with most tokens in the dataset; right: how much their share grew "
        "or shrank.",
        alt=f"Bars of token shares for {len(shown)} sources. Largest is {largest} with "
        f"{percent(values[0][1])} of the dataset, {percent(values[0][0])} of the pool.",
        source=(SOURCES,),
    )
    columns = ("source", "documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out",
               "share_before", "share_after", "ratio")  # fmt: skip
    rows = [
        (r.source, r.documents_in, r.tokens_in, r.documents_out, r.unique_tokens, r.tokens_out,
         *shares(facts, r)) for r in facts.top
    ]  # fmt: skip
    return picture(words, (10.4, 1.0 + 0.34 * len(shown)), draw, columns=columns, rows=rows)


def _spread_table(facts: SourceFacts) -> Html:
    rows = [
        [
            name, count(side.sources), count(side.documents), count(side.tokens), sig(side.effective, 4),
            num(side.gini, 3), percent(side.largest),
        ]
        for name, side in (("pool", facts.before), ("dataset", facts.after))
    ]  # fmt: skip
    headers = ["", "sources", "documents", "tokens", "effective number", "Gini", "largest source"]
    caption = (
        "Concentration over tokens, copies counted: effective number = 1 / Σ p²; Gini 0 = all alike, 1 = one "
        "source has everything (at most 0.0003 too low, as sizes are grouped); counts are exact"
    )
    return table(headers, rows, caption=caption, source=[SOURCES])


def _source_table(facts: SourceFacts, shown: Sequence[SourceCount]) -> Html:
    rows: list[list[str]] = []
    for row in shown:
        before, after, ratio = shares(facts, row)
        copies = _share(row.tokens_out, row.unique_tokens)
        rows.append(
            [
                row.source, count(row.documents_in), count(row.tokens_in), percent(before, 2),
                count(row.documents_out), count(row.tokens_out), percent(after, 2), f"{num(ratio, 2)}×",
                num(copies, 2),
            ]
        )  # fmt: skip
    headers = ["source", "documents in", "tokens in", "share", "documents out", "tokens out", "share",
               "ratio", "copies"]  # fmt: skip
    caption = (
        f"The {len(rows)} largest sources of the dataset; copies = how often its chosen tokens are there"
    )
    return table(headers, rows, caption=caption, source=[SOURCES])


# --------------------------------------------------------------------------- repeated texts
def _duplicates(facts: DuplicateFacts | None, gallery: Gallery) -> list[Html]:
    if facts is None:
        return [not_run(f"repeated texts were not counted: {OLDER}")]
    if facts.reason:
        return [not_run(f"repeated texts were not counted: {facts.reason}")]
    parts = [note(_repeats_said(facts)), show(gallery, repeated_tokens(facts))]
    if facts.groups:
        parts += [_amplified_table(facts), _group_table(facts)]
    return [join(*parts)]


def _repeats_said(facts: DuplicateFacts) -> str:
    if not facts.groups:
        return (
            f"No two of the {count(facts.documents)} chosen documents have the same text, white space and "
            "case put aside."
        )
    inside, outside = amplification(facts)
    return (
        f"{count(facts.grouped)} of the {count(facts.documents)} chosen documents share their text with "
        f"another one (white space and case put aside): {count(facts.groups)} texts. A token of such a "
        f"document is in the dataset {num(inside, 2)} times, of any other {num(outside, 2)} times. Reworded "
        "copies were not looked for."
    )


def amplification(facts: DuplicateFacts) -> tuple[float, float]:
    """Return the mean copies of tokens of documents that share their text, and of all other documents."""
    outside = _share(facts.tokens_out - facts.group_tokens_out, facts.unique_tokens - facts.group_tokens)
    return _share(facts.group_tokens_out, facts.group_tokens), outside


def token_parts(facts: DuplicateFacts) -> list[tuple[str, int]]:
    """Return what the tokens of the dataset are, in four parts that add up to all of them."""
    copied = facts.group_tokens_out - facts.group_tokens
    return [
        ("every text once", facts.text_tokens),
        ("other documents of the same text", facts.repeated_tokens),
        ("copies of documents that share their text", copied),
        ("copies of other documents", facts.tokens_out - facts.unique_tokens - copied),
    ]


def repeated_tokens(facts: DuplicateFacts) -> Picture:
    """One bar: the tokens of the dataset as new text, same texts, and copies."""
    parts = token_parts(facts)
    colours = (ACCENT, RED, ORANGE, BAR)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        left = 0.0
        for (name, tokens), colour in zip(parts, colours, strict=True):
            width = 100 * _share(tokens, facts.tokens_out)
            axis.barh([0], [width], 0.6, left=left, color=colour, label=f"{name}: {short(tokens)}")
            left += width
        axis.set_yticks([])
        axis.set_xlim(0, 100)
        axis.set_ylim(-0.4, 0.4)
        axis.set_xlabel("share of the dataset's tokens, %")
        figure.legend(loc="outside upper left", ncols=2)

    words = Words(
        name="repeated-tokens",
        caption="The tokens of the dataset: every text once, further documents with the same text, and "
        "copies that were drawn.",
        alt=f"One bar of four parts. {percent(_share(facts.text_tokens, facts.tokens_out))} of the tokens "
        "are texts seen for the first time.",
        source=(DUPLICATES,),
    )
    rows = [(name, tokens, _share(tokens, facts.tokens_out)) for name, tokens in parts]
    return picture(words, (10.4, 1.5), draw, columns=("part", "tokens", "share"), rows=rows)


def _amplified_table(facts: DuplicateFacts) -> Html:
    repeats = facts.repeated_tokens
    with_copies = facts.group_tokens_out - (facts.group_tokens - repeats)
    rows = [
        ["without copies", count(repeats), percent(_share(repeats, facts.unique_tokens), 2)],
        ["with copies", count(with_copies), percent(_share(with_copies, facts.tokens_out), 2)],
    ]
    caption = (
        "Tokens that repeat a text which several documents have, beyond the first time, and their share of "
        "the tokens; texts are compared by a 64-bit hash"
    )
    return table(["", "repeated tokens", "share"], rows, caption=caption, source=[DUPLICATES])


def _group_table(facts: DuplicateFacts) -> Html:
    rows = [
        [
            ", ".join(group.ids) + (" …" if group.documents > len(group.ids) else ""),
            count(group.documents), count(group.copies), count(group.tokens), count(group.tokens_out),
        ]
        for group in facts.top
    ]  # fmt: skip
    headers = ["documents", "how many", "times in the dataset", "tokens each", "tokens in all"]
    caption = f"The {len(rows)} texts of several documents that are in the dataset most often, by ids"
    return table(headers, rows, caption=caption, source=[DUPLICATES])
