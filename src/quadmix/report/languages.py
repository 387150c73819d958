"""The section "Which languages are in it?": tokens, scores and cuts per language.

In: dataset/languages.json, which the stage that copies the text has counted. Out: HTML and two figures. With
one language, or none known, it is one line.
"""

from typing import Any

import numpy as np

from quadmix.report.concentration import OLDER
from quadmix.report.figures import heat
from quadmix.report.html import Gallery, Html, absent, details, note, section, show, table
from quadmix.report.load import RunFiles
from quadmix.report.plots import ACCENT, BAR, Picture, Words, picture, ratio_axis, trim
from quadmix.report.records import LANGUAGES
from quadmix.report.text import clean, count, num, percent
from quadmix.types.facts import LanguageFacts, LanguageRow

TITLE = "Which languages are in it?"
SHOWN = 20


def languages(files: RunFiles, gallery: Gallery) -> Html:
    """Languages before and after, over domains, their scores, and what a cut would leave of them."""
    facts = files.records.languages
    if files.dataset is None:
        return absent("languages", TITLE, "no dataset has been written")
    if facts is None or facts.reason:
        return absent("languages", TITLE, f"languages were not counted: {facts.reason if facts else OLDER}")
    if len(facts.languages) < 2:
        only = " and ".join(repr(name_of(row)) for row in facts.languages) or "nothing"
        said = f"One language: the column {facts.column} holds {only} in every document."
        return section("languages", TITLE, note(said), source=[LANGUAGES])
    return section(
        "languages",
        TITLE,
        note(f"By the column {facts.column}, {count(len(facts.languages))} values."),
        show(gallery, language_shares(facts)),
        _token_table(facts),
        note(
            "Parity: a criterion that rates one language worse than another may know that language less, or "
            "its documents may be worse. Below: its mean normalised score, 0 = best; a criterion that treats "
            "all alike has about the same number in every row."
        ),
        show(gallery, language_scores(facts)),
        _cut_table(facts),
        _cell_table(facts),
        source=[LANGUAGES],
    )


def name_of(row: LanguageRow) -> str:
    """Return what a language is called on the page."""
    return row.language or "(none given)"


def language_rows(facts: LanguageFacts) -> list[tuple[LanguageRow, float, float, float]]:
    """Return (language, share before, share after, their ratio), in the order of the file."""
    total_in = sum(r.tokens_in for r in facts.languages) or 1
    total_out = sum(r.tokens_out for r in facts.languages) or 1
    rows = [(r, r.tokens_in / total_in, r.tokens_out / total_out) for r in facts.languages]
    return [(r, a, b, b / a if a else float("nan")) for r, a, b in rows]


def language_shares(facts: LanguageFacts) -> Picture:
    """Shares of the languages before and after, and their ratio on a log axis."""
    rows = language_rows(facts)
    shown = rows[:SHOWN]
    y = np.arange(len(shown))[::-1]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        left.barh(y + 0.19, [100 * r[1] for r in shown], 0.36, color=BAR, label="pool")
        left.barh(y - 0.19, [100 * r[2] for r in shown], 0.36, color=ACCENT, label="dataset")
        left.set_yticks(y, [trim(clean(name_of(r[0]))) for r in shown])
        left.set_xlabel("share of tokens, %")
        left.legend(loc="lower right")
        ratio_axis(right, y, np.array([r[3] for r in shown]))

    first = rows[0]
    words = Words(
        name="language-shares",
        caption="Tokens per language before and after; right: how much a language grew or shrank.",
        alt=f"Bars of token shares for {len(shown)} languages. {clean(name_of(first[0]))}, the largest of "
        f"the pool, goes from {percent(first[1])} to {percent(first[2])}.",
        source=(LANGUAGES,),
    )
    columns = ("language", "documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out",
               "share_before", "share_after", "ratio")  # fmt: skip
    data = [
        (r.language, r.documents_in, r.tokens_in, r.documents_out, r.unique_tokens, r.tokens_out, a, b, c)
        for r, a, b, c in rows
    ]
    return picture(words, (10.4, 1.0 + 0.34 * len(shown)), draw, columns=columns, rows=data)


def _token_table(facts: LanguageFacts) -> Html:
    rows = [
        [
            name_of(r), count(r.documents_in), count(r.tokens_in), percent(a, 2), count(r.documents_out),
            count(r.unique_tokens), count(r.tokens_out), percent(b, 2), f"{num(c, 2)}×",
        ]
        for r, a, b, c in language_rows(facts)
    ]  # fmt: skip
    headers = ["language", "documents in", "tokens in", "share", "documents out", "unique tokens",
               "tokens out", "share", "ratio"]  # fmt: skip
    return table(headers, rows, caption="Tokens per language", source=[LANGUAGES])


def language_scores(facts: LanguageFacts) -> Picture:
    """Mean normalised score of every criterion per language."""
    shown = facts.languages[:SHOWN]
    matrix = np.array([row.mean for row in shown], dtype=np.float64)
    known = matrix[np.isfinite(matrix)]
    limit = max(1.0, float(np.abs(known).max(initial=0.0)))

    def draw(figure: Any) -> None:
        names = ([name_of(row) for row in shown], list(facts.criteria))
        heat(figure.subplots(), matrix, names=names, limits=(-limit if (known < 0).any() else 0.0, limit))

    words = Words(
        name="language-scores",
        caption="Mean normalised score of each criterion per language, over the documents that have it; "
        "0 = best, 0.5 = the middle of the pool where scores are normalised to ranks.",
        alt=f"Heat map of {len(shown)} languages by {len(facts.criteria)} criteria.",
        source=(LANGUAGES,),
    )
    rows = [
        (row.language, name, known, mean)
        for row in facts.languages
        for name, known, mean in zip(facts.criteria, row.known, row.mean, strict=True)
    ]
    columns = ("language", "criterion", "documents", "mean_normalised_score")
    size = (2.6 + 1.15 * len(facts.criteria), 1.1 + 0.3 * len(shown))
    return picture(words, size, draw, columns=columns, rows=rows)


def _cut_table(facts: LanguageFacts) -> Html:
    rows: list[list[str]] = []
    for row in facts.languages:
        open_tokens = row.selectable_tokens or float("nan")
        kept = [percent(w / open_tokens) for w in row.within]
        rows.append(
            [name_of(row), count(row.selectable_tokens), *kept, percent(row.unique_tokens / open_tokens)]
        )
    cuts = [f"best {percent(cut, 0)}" for cut in facts.cuts]
    caption = (
        "What would be left of a language if every domain were cut at its best 5, 10, … % of tokens by the "
        "merged score, and what the dataset has of it (each document once)"
    )
    return table(
        ["language", "selectable tokens", *cuts, "chosen"], rows, caption=caption, source=[LANGUAGES]
    )


def _cell_table(facts: LanguageFacts) -> Html:
    names = {row.language: name_of(row) for row in facts.languages}
    rows = [[names[c.language], c.domain, count(c.tokens_in), count(c.tokens_out)] for c in facts.cells]
    headers = ["language", "domain", "tokens in", "tokens out"]
    cells = table(headers, rows, caption="Tokens per language and domain", words=2, source=[LANGUAGES])
    return details("Languages in each domain", cells)
