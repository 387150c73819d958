"""What a cut by score keeps of whom: domains, lengths, scripts, narrative text, languages (MuRating, 13.6).

In: scores (larger = better), tokens, languages, ids and, batch by batch, the texts. Out: `BiasAudit`: tokens
kept / tokens of the pool for each group, where the best share of every language is kept, and where one cut
over all languages is made.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.raters.budgets import Choice, language_rows, pool_by_language, top_per_language
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Floats

Kind = Literal["language", "domain", "length", "narrative", "script"]
READ = 8000  # characters of a text that are looked at
LOST, ENOUGH = 0.5, 10.0  # a group is called lost below this ratio, if so many documents of it were due
THIRDS = ("expository third", "middle third", "narrative third")
_SPEECH = re.compile(r"[\"“”„‟«»「」『』?!？！؟]|^\s*[—–―]\s?(?=\w)", re.MULTILINE)
_FACTS = re.compile(r"[\d()\[\]{}（）:：;；/|]")
_ONE_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Described:
    """narrative: (D,) float64, larger = more like a story. script: (D,) such as LATIN; none: no letters."""

    narrative: Floats
    script: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What was kept of one group. language: "" = all of them together.

    kept: tokens kept / tokens of the pool. ratio: kept / that of all documents of the same language (1 = the
    cut takes no notice of the group).
    """

    kind: Kind
    group: str
    language: str
    documents: int
    pool_tokens: int
    kept_documents: int
    kept_tokens: int
    kept: float
    ratio: float
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasAudit:
    """share: of the tokens that each cut keeps. by_language, pooled: groups under the two cuts.

    least, most: the smallest and the largest share of a language that the pooled cut keeps; `share` both if
    scores are comparable across languages and languages equally good. unscored: documents without a score,
    kept by no cut and counted in the pool.
    """

    share: float
    unscored: int
    by_language: tuple[Share, ...]
    pooled: tuple[Share, ...]
    least: float
    most: float


def describe(texts: Sequence[str]) -> Described:
    """Return what is counted of some texts; texts may be given in batches of any size.

    narrative: marks of direct speech (quotation marks, a dash that opens a line), of questions and
    exclamations, minus digits, brackets, colons, semicolons and slashes, per letter; of the first `READ`
    characters. It needs no list of words, so it is the same in all languages, but it is a proxy. By AUC it
    tells English fiction and children's stories from encyclopedias, textbooks, papers and manuals (.99) and
    children's stories from news, health and legal text in eleven languages (.91-.98); web pages that people
    labelled as narrative, most of them news and blogs, it hardly finds (.47-.79 in nine languages). Values
    compare within a language alone.
    script: of most letters of the first 2,000 characters; kana and Chinese characters are one (CJK).
    """
    described = [_describe(text) for text in texts]
    return Described(
        narrative=np.array([d for d, _ in described], np.float64), script=tuple(s for _, s in described)
    )


def bias_audit(
    scores: Floats,
    tokens: NDArray[np.integer],
    language: Sequence[str],
    ids: Sequence[str],
    described: Described,
    *,
    domain: Sequence[str] | None = None,
    share: float = 0.1,
) -> BiasAudit:
    """Return what the best `share` of the tokens keeps of each group, per language and over all of them.

    scores: (D,), larger = better, NaN = none. tokens: (D,) > 0. domain: (D,) names. Length deciles and thirds
    by `narrative` are made within each language, of equally many documents. A group is `lost` where its ratio
    is below LOST though at least ENOUGH documents of it were due.
    Raises ScoreError for columns of different lengths or a share outside 0..1, BudgetError where too few
    documents have a score to keep the share.
    """
    if not 0 < share < 1:
        raise ScoreError(f"the share of an audit is {share}, expected between 0 and 1")
    given = [("domain", domain)] if domain is not None else []
    columns = [*given, ("narrative", described.narrative.tolist()), ("script", described.script)]
    for what, column in [*columns, ("language", language), ("ids", ids)]:
        if len(column) != len(scores):
            raise ScoreError(f"{what} has {len(column)} rows, expected {len(scores)} as there are scores")
    ties = keyed_uniform(0, doc_keys(ids), "ties")
    groups: dict[Kind, NDArray[np.str_]] = {
        "language": np.asarray(language, np.str_),
        "length": _slices(
            tokens.astype(np.float64), language, ties, [f"decile {i:02d}" for i in range(1, 11)]
        ),
        "narrative": _slices(described.narrative, language, ties, THIRDS),
        "script": np.asarray(described.script, np.str_),
    }
    if domain is not None:
        groups["domain"] = np.asarray(domain, np.str_)
    pool = pool_by_language(tokens, language)
    every = "all languages"
    apart = top_per_language(scores, tokens, language, ids, {n: share * t for n, t in pool.items()})
    pooled = top_per_language(scores, tokens, [every] * len(scores), ids, {every: share * sum(pool.values())})
    shares = _shares(pooled, tokens, language, groups)
    kept = [s.kept for s in shares if s.kind == "language"]
    return BiasAudit(
        share=share, unscored=int(np.isnan(scores).sum()), pooled=shares,
        by_language=_shares(apart, tokens, language, groups), least=min(kept), most=max(kept),
    )  # fmt: skip


def audit_lines(audit: BiasAudit) -> list[str]:
    """Return the audit as lines of text: groups over all languages, then what is lost in single ones."""
    lines = [
        f"one cut over all languages at the best {audit.share:.0%} of tokens keeps {audit.least:.1%} to "
        f"{audit.most:.1%} of a language"
    ]
    if audit.unscored:
        lines.append(f"{audit.unscored} documents have no score and are kept by no cut")
    both = zip(audit.by_language, audit.pooled, strict=True)  # same groups in the same order
    for apart, pooled in both:
        if not apart.language:
            lines.append(
                f"{apart.kind:<10}{apart.group:<20}{apart.documents:>9,} documents, kept {apart.kept:.1%} "
                f"(cut per language), {pooled.kept:.1%} (one cut)"
            )
    for name, shares in (("cut per language", audit.by_language), ("one cut", audit.pooled)):
        for s in filter(lambda s: s.lost, shares):
            whose = f" of {s.language}" if s.language else ""
            lines.append(
                f"warning: {name}: {s.kind} {s.group}{whose} keeps {s.ratio:.2f} times the average share; "
                "keep it with `quadmix rater select --cell COLUMN --floor SHARE` if it is wanted"
            )
    return lines


def _describe(text: str) -> tuple[float, str]:
    text = text[:READ]
    letters = sum(map(str.isalpha, text))
    narrative = (len(_SPEECH.findall(text)) - len(_FACTS.findall(text))) / max(letters, 1)
    counts: dict[str, int] = {}
    for character in filter(str.isalpha, text[:2000]):
        name = _script(character)
        counts[name] = counts.get(name, 0) + 1
    return narrative, max(sorted(counts), key=counts.__getitem__, default="none")


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "unnamed").split()[0]
    return _ONE_SCRIPT.get(first, first)


def _slices(value: Floats, language: Sequence[str], ties: Floats, names: Sequence[str]) -> NDArray[np.str_]:
    """Return for each document which of len(names) equal slices of its language it is in, smallest first."""
    place = np.zeros(len(value), np.int64)
    for rows in language_rows(language).values():
        order = rows[np.lexsort((ties[rows], value[rows]))]
        place[order] = np.arange(len(rows)) * len(names) // len(rows)
    return np.asarray(names, np.str_)[place]


def _share(
    kind: Kind, group: str, language: str, tokens: NDArray[np.integer],
    at: NDArray[np.bool_], kept: NDArray[np.bool_], taken: NDArray[np.bool_],
) -> Share:  # fmt: skip
    """Return one group of the d documents of a language. at, kept, taken: (d,) in it, kept of it, of all."""
    pool, out, all_out = (int(tokens[mask].sum(dtype=np.int64)) for mask in (at, kept, taken))
    due = all_out / int(tokens.sum(dtype=np.int64))
    ratio = out / pool / due if due > 0 else float("nan")
    return Share(
        kind=kind, group=group, language=language, documents=int(at.sum()), pool_tokens=pool,
        kept_documents=int(kept.sum()), kept_tokens=out, kept=out / pool, ratio=ratio,
        lost=ratio < LOST and float(at.sum() * taken.mean()) >= ENOUGH,
    )  # fmt: skip


def _shares(
    choice: Choice, tokens: NDArray[np.integer], language: Sequence[str], groups: dict[Kind, NDArray[np.str_]]
) -> tuple[Share, ...]:
    """Return the groups of all documents, then those of each language."""
    everything = np.arange(len(tokens))
    found: list[Share] = []
    for name, rows in [("", everything), *language_rows(language).items()]:
        taken = choice.taken[rows]
        for kind, column in groups.items():
            if not (name and kind == "language"):
                for group in np.unique(column[rows]).tolist():
                    at = column[rows] == group
                    found.append(_share(kind, group, name, tokens[rows], at, at & taken, taken))
    return tuple(found)
