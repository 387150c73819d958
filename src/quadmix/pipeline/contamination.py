"""Contamination guards: what the pool, the targets and the benchmarks share, as numbers and warnings.

In: targets and benchmarks as texts, the counts of the annotations. Out: counts and warnings, or a refusal;
and the rows of the targets that may judge, since a row that shares a passage with rows that steered the
search is no fresh row (several questions may ask about one passage).
The pool is held against both by runs of 13 words (`annotate.overlap`). A benchmark is held against the
targets by the same runs and by whole items, since a short question never reaches 13 words. An item counts as
standing in a target when its words are those of a row, or when most of its 13-word runs are in the target's:
one shared run alone may be a phrase or a passage that several questions ask about (compare Touvron et al.
2023, arXiv 2307.09288, appendix A.6, where the share of contaminated tokens tells such cases apart).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quadmix.annotate.overlap import (
    BITS,
    NGRAM,
    Hashes,
    count_shared,
    count_short,
    ngram_hashes,
    plain_words,
)
from quadmix.annotate.run import REST
from quadmix.annotate.survey import EXCLUDED_REASONS, OVERLAP
from quadmix.corpus.benchmarks import BenchmarkItems
from quadmix.corpus.targets import TargetText, read_all_rows, read_text_set
from quadmix.errors import InputError
from quadmix.recipe import BenchmarkSection, TargetSection, TextSet

LEAST_JUDGES = 8  # rows of a target that must be left to judge
BENCHMARK = "benchmark:"  # before the name of a benchmark; the name of a target has no colon
TEXTS = "texts:"  # before the name of a set in annotate.overlap_with
_LABELS = frozenset({"question", "answer"})  # prompts are often dressed with them, on one side only


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What one benchmark shares with one target. items: of the benchmark. shared: items with at least one
    13-word run, or all words, in common with the target. inside: items that stand in it (see above)."""

    items: int
    shared: int
    inside: int


def overlap_texts(
    targets: Sequence[TargetText], benchmarks: Sequence[BenchmarkItems] = (), sets: Sequence[TextSet] = ()
) -> dict[str, list[str]]:
    """Return name -> texts of all that the pool is held against: targets first, so that they have the bits of
    their own where there are more than 31 sets; then benchmarks as `benchmark:<name>`, and as `texts:<name>`
    the sets of annotate.overlap_with, which are read now."""
    found = {t.name: t.texts() for t in targets} | {f"{BENCHMARK}{b.name}": b.texts() for b in benchmarks}
    return found | {f"{TEXTS}{s.name}": read_text_set(s) for s in sets}


def _seen(targets: Sequence[TargetText]) -> tuple[set[tuple[str, ...]], Hashes]:
    """Return what a row can share with these targets: rows as a whole, and 13-word runs."""
    texts = [text for target in targets for text in target.texts()]
    return {_whole(text) for text in texts}, ngram_hashes(texts)


def _shared(target: TargetText, wholes: set[tuple[str, ...]], runs: Hashes) -> list[bool]:
    return [_whole(text) in wholes or count_shared(ngram_hashes([text]), runs) > 0 for text in target.texts()]


def _whole(text: str) -> tuple[str, ...]:
    """Return the words of a row; one without words stands for itself."""
    return _key(text) or (text,)


def clean_judges(
    steering: Sequence[TargetText], judging: Sequence[TargetText]
) -> tuple[list[TargetText], dict[str, int]]:
    """Return the judging targets without the rows that share a passage with a steering row of any target,
    and target -> how many such rows it had (targets without any are left out).

    A passage is a run of 13 words, or all words of the row. A target of fewer than `LEAST_JUDGES` judging
    rows keeps them all. InputError where fewer than `LEAST_JUDGES` of a larger one would be left.
    """
    wholes, runs = _seen(steering)
    judges: list[TargetText] = []
    counts: dict[str, int] = {}
    for target in judging:
        shared = _shared(target, wholes, runs)
        size, found = len(shared), sum(shared)
        if found:
            counts[target.name] = found
        if size < LEAST_JUDGES or not found:
            judges.append(target)
            continue
        if size - found < LEAST_JUDGES:
            raise InputError(
                f"target {target.name!r}: {found:,} of the {size:,} rows that would judge share {NGRAM} "
                f"words in a row, or all words, with rows that steer the search; {size - found} are left to "
                f"judge, expected {LEAST_JUDGES} or more. Give it more rows (`limit`, `path`), take out "
                "repeated rows and headers that all rows share, or compare nothing (evaluate.enabled: false)"
            )
        judges.append(target.take([i for i, known in enumerate(shared) if not known]))
    return judges, counts


def judge_warnings(judging: Sequence[TargetText], shared: Mapping[str, int]) -> list[str]:
    """Return one warning for every target with rows that share a passage with those that steer.

    judging: the targets before `clean_judges`. shared: its counts.
    """
    out: list[str] = []
    for target in judging:
        size, found = len(target.answers), shared.get(target.name, 0)
        if found:
            kept = "they are kept, since the target has so few: its loss partly says what steered the search"
            dropped = f"they are left out, {size - found:,} judge"
            out.append(
                f"target {target.name!r}: {found:,} of {size:,} judging rows share {NGRAM} words in a row, "
                f"or all words, with rows that steer the search; {kept if size < LEAST_JUDGES else dropped}"
            )
    return out


def steering_text(
    sections: Sequence[TargetSection],
    halves: Mapping[str, Sequence[TargetText]],
    *,
    accept_test: bool = False,
) -> list[TargetText]:
    """Return all that may be known of the targets when the other rows judge: the rows that steered the
    search, and every row of the targets' files, beyond `limit`, that shares no passage with a judging row.

    halves: of `stages.target_halves`. Without judges every row of the files is returned.
    """
    steered = {target.name: set(target.texts()) for target in halves["targets"]}
    wholes, runs = _seen(halves.get("judges", ()))
    out: list[TargetText] = []
    for section in sections:
        target = read_all_rows(section, accept_test=accept_test)
        own, shared = steered[section.name], _shared(target, wholes, runs)
        rows = [i for i, text in enumerate(target.texts()) if text in own or not shared[i]]
        out.append(target.take(rows))
    return out


def refuse_same_rows(targets: Sequence[TargetSection], benchmarks: Sequence[BenchmarkSection]) -> None:
    """Raise InputError for a benchmark that is read from the file and split of a target; one without a
    `split` reads every row. `limit` may keep single rows apart, but not what they ask about."""
    for benchmark in benchmarks:
        for target in targets:
            same = benchmark.split == target.split or None in (benchmark.split, target.split)
            if same and _address(benchmark.path) == _address(target.path):
                raise InputError(
                    f"benchmark {benchmark.name!r} reads {benchmark.path} with split {benchmark.split!r}, "
                    f"the target {target.name!r} the same file with split {target.split!r}, expected "
                    "different rows: the mixture is searched on them, so accuracy there proves nothing. "
                    "Give the two different splits (`split: ...`), or remove one of them"
                )


def _address(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)


def benchmark_target_overlap(
    targets: Sequence[TargetText], benchmarks: Sequence[BenchmarkItems]
) -> dict[tuple[str, str], Shared]:
    """Return (benchmark, target) -> what they share, of the pairs that share anything."""
    out: dict[tuple[str, str], Shared] = {}
    items = {b.name: [(_key(text), ngram_hashes([text])) for text in b.texts()] for b in benchmarks}
    for target in targets if benchmarks else ():
        texts = target.texts()
        rows, runs = {_key(text) for text in texts}, ngram_hashes(texts)
        for name, asked in items.items():
            same = [key in rows and bool(key) for key, _ in asked]
            common = [count_shared(windows, runs) for _, windows in asked]
            shared = sum(s or n > 0 for s, n in zip(same, common, strict=True))
            inside = sum(
                s or 2 * n > len(windows) for s, n, (_, windows) in zip(same, common, asked, strict=True)
            )
            if shared:
                out[name, target.name] = Shared(items=len(asked), shared=shared, inside=inside)
    return out


def _key(text: str) -> tuple[str, ...]:
    return tuple(w for w in plain_words(text) if w not in _LABELS)


def refuse_contained(found: Mapping[tuple[str, str], Shared]) -> None:
    """Raise InputError for a benchmark of which more than half of the items stand in a target."""
    for (benchmark, target), shared in found.items():
        if 2 * shared.inside > shared.items:
            raise InputError(
                f"benchmark {benchmark!r}: {shared.inside:,} of {shared.items:,} items stand in the target "
                f"{target!r} (the same words, or most of their {NGRAM}-word runs), expected at most half: "
                "the mixture is searched on them, so accuracy there proves nothing. Give the two different "
                "splits (`split: ...`), or remove one of them"
            )


def shared_warnings(found: Mapping[tuple[str, str], Shared]) -> list[str]:
    """Return one warning for every benchmark and target that share items or passages."""
    return [
        f"benchmark {benchmark!r}: {s.shared:,} of {s.items:,} items share {NGRAM} words in a row, or all "
        f"words, with the target {target!r} ({s.inside:,} stand in it); the mixture was searched on these"
        for (benchmark, target), s in found.items()
    ]


def overlap_warnings(
    overlap: Mapping[str, int], documents: int, *, sets: Sequence[str] = (), excluded: bool = False
) -> list[str]:
    """Return one warning per target or benchmark of which pool documents hold passages (13 words in a row).

    overlap: name -> documents, as in the manifest of the annotations. sets: all names in their order, to say
    which ones the shared count stands for. excluded: are such documents kept from being selected?
    """
    return [
        f"{_spelt(name, sets)}: {count:,} of {documents:,} pool documents ({count / documents:.2%}) share "
        f"{NGRAM} words in a row with it; {_consequence(name, excluded)}"
        for name, count in sorted(overlap.items())
        if count
    ]


def _spelt(name: str, sets: Sequence[str] = ()) -> str:
    if name == REST and len(sets) > BITS:
        rest = [_spelt(n) for n in sets[BITS - 1 :]]
        shown = ", ".join(rest[:3]) + (f" and {len(rest) - 3} more" if len(rest) > 3 else "")
        return f"{len(rest)} sets counted together ({shown})"
    if name.startswith(BENCHMARK):
        return f"benchmark {name.removeprefix(BENCHMARK)!r}"
    if name.startswith(TEXTS):
        return f"annotate.overlap_with {name.removeprefix(TEXTS)!r}"
    return f"target {name!r}"


def _consequence(name: str, excluded: bool) -> str:
    if excluded:
        return "annotate.exclude_overlap keeps them out of the selection"
    if name.startswith((BENCHMARK, TEXTS)):
        return "its accuracy then partly measures memory; annotate.exclude_overlap: true keeps them out"
    return "its loss then partly measures copying"


def short_counts(texts: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return name -> texts too short for the search by 13-word runs, of the sets that have any."""
    counts = {name: count_short(rows) for name, rows in texts.items()}
    return {name: count for name, count in counts.items() if count}


def short_warnings(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Say how many items the search of the pool could not see, so that silence is not taken for absence."""
    parts = [f"{_spelt(n)} {count:,} of {len(texts[n]):,}" for n, count in short_counts(texts).items()]
    if not parts:
        return []
    return [
        f"items of fewer than {NGRAM} words cannot be found in the pool, so that nothing is known of "
        f"{', '.join(parts)}"
    ]


def contamination_warnings(
    texts: Mapping[str, Sequence[str]], overlap: Mapping[str, int], documents: int, *, excluded: bool
) -> list[str]:
    """Return all that is to be said about the pool and the sets in `texts` (see `overlap_texts`).

    overlap, documents: from the manifest of the annotations. excluded: annotate.exclude_overlap.
    """
    out = overlap_warnings(overlap, documents, sets=tuple(texts), excluded=excluded)
    if excluded and not texts:
        out.append(
            "annotate.exclude_overlap is true, but the recipe has no target and no benchmark to hold the "
            "pool against: nothing was excluded"
        )
    return out + short_warnings(texts)


def overlap_facts(
    texts: Mapping[str, Sequence[str]], dropped: Mapping[str, int]
) -> dict[str, int | dict[str, int]]:
    """Return the facts of the annotate stage: items that were too short to be found, and documents that may
    not be selected for their overlap (only where they are excluded)."""
    reason = EXCLUDED_REASONS[OVERLAP]
    out: dict[str, int | dict[str, int]] = {"overlap_short": short_counts(texts)}
    return out | ({"overlap_excluded": dropped[reason]} if reason in dropped else {})
