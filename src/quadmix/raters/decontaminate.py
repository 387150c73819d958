"""Benchmark text is kept out of a rater's pairs: it would be what the rater likes (MuRating, section 13.11).

In: documents, benchmark files. Out: the documents without those that share a run of words with a benchmark,
and without their versions in other languages, which say the same; counts per language and per file. A run is
13 words (`annotate.overlap`, after Brown et al. 2020), 13 signs of Han and kana, 26 of scripts whose words
are written together with several signs each. Of 123 Khmer and 123 Thai news texts (NTREX) 89 and 4 share 13
signs with other people's texts on other subjects (TICO-19, tldr), 2 and none share 20, none 26; of Chinese
and Japanese ones none shares 13.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from quadmix.annotate.overlap import NGRAM, ngram_hashes, overlap_bits, target_bit
from quadmix.errors import InputError
from quadmix.io.fs import expand
from quadmix.io.rows import read_records
from quadmix.raters.excerpts import unit_spans
from quadmix.raters.table import Texts

LONG = 26  # signs of a run in Thai, Lao, Khmer and Myanmar
SHARES, VERSION_SHARES = "shares a run of words with a benchmark", "a version of it does with a benchmark"
_MANY_SIGNS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A file. texts: in it. short: of these, those of fewer words than a run, which are found nowhere.
    documents: that share a run with it (from the 31st file on: with any of these files)."""

    path: str
    texts: int
    short: int
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cleaned:
    """texts: those that are left. dropped: language -> reason -> documents."""

    texts: Texts
    dropped: dict[str, dict[str, int]]
    benchmarks: tuple[Benchmark, ...]


def drop_benchmarks(texts: Texts, paths: Sequence[str]) -> Cleaned:
    """Return the documents that share no run of words with any text of the files, nor does a version of them.

    paths: JSONL or Parquet files; every string in a row is a text, also those in lists. Raises InputError for
    a file without any text that is long enough to be found.
    """
    files = {path: [t for row in read_records(path) for t in _strings(row)] for path in expand(paths)}
    runs = np.array([run_length(text) for text in texts.text], np.int64)
    bits = np.zeros(len(texts), np.int32)
    for n in (NGRAM, LONG):
        rows = np.flatnonzero(runs == n).tolist()
        hashes = [ngram_hashes(found, n, words_of) for found in files.values()]
        bits[rows] = overlap_bits([texts.text[i] for i in rows], hashes, n, words_of)
    benchmarks = tuple(
        Benchmark(
            path=path, texts=len(found), short=sum(len(words_of(t.lower())) < run_length(t) for t in found),
            documents=int((bits >> target_bit(number) & 1).sum()),
        )
        for number, (path, found) in enumerate(files.items())
    )  # fmt: skip
    for one in benchmarks:
        if one.short == one.texts:
            raise InputError(
                f"texts.decontaminate: {one.path} has {one.texts:,} texts, none of {NGRAM} words or more, so "
                "that nothing of it can be found; expected questions or passages: name another file, or "
                "leave it out"
            )
    source = np.asarray(texts.source, np.str_)
    gone = np.isin(source, np.unique(source[bits != 0]))
    dropped: dict[str, Counter[str]] = {}
    for row in np.flatnonzero(gone).tolist():
        dropped.setdefault(texts.language[row], Counter())[SHARES if bits[row] else VERSION_SHARES] += 1
    return Cleaned(
        texts=texts.take(np.flatnonzero(~gone).tolist()), benchmarks=benchmarks,
        dropped={code: dict(sorted(dropped[code].items())) for code in sorted(dropped)},
    )  # fmt: skip


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a row, whatever it is nested in."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in cast(dict[str, Any], value).values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in cast(list[Any], value):
            yield from _strings(one)


def words_of(text: str) -> list[str]:
    """Return the words of a text, signs where it is written without spaces, without punctuation."""
    return [text[start:stop] for start, stop in unit_spans(text).tolist() if text[start].isalnum()]


def run_length(text: str) -> int:
    """Return how many words in a row make a run in a text: `LONG` where most of them are signs of a script
    with several signs to a word."""
    words = words_of(text)
    signs = sum(any(low <= ord(word[0]) <= high for low, high in _MANY_SIGNS) for word in words)
    return LONG if 2 * signs > len(words) else NGRAM
