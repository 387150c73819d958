"""Labelled pairs and translations -> the pairs a multilingual rater is trained on.

In: `Texts` with originals and translations, and labelled `Pairs` of some of them. Out: `Pairs` of three
kinds: monolingual (A^m, B^m) and cross-lingual (A^m, B^m'), which carry the label of (A, B), and parallel
(A^m, A^m') with label 0.5. Versions of a text are its original and the translations of it.

Direction E: the labelled sides are originals (English), and all their versions take part. Direction M: a
labelled side is the English translation of a native original, and its label goes to that original, which
alone takes part in labelled pairs; the English translation serves in parallel pairs, and natives in English
may be labelled directly. The source language is one of the languages.

Weights: let L_pair be the (weighted) mean loss over monolingual and cross-lingual pairs, and L_par the mean
over parallel pairs of -log sigma(d) - log sigma(-d), which is twice the cross-entropy at p = 0.5. The loss of
the paper is L_pair + lambda L_par. A labelled pair keeps its weight w; a parallel pair gets

    2 lambda (sum of w over labelled pairs) / (number of parallel pairs),

so that sum(weight * cross-entropy) / sum(w) is exactly that loss, whatever the composition.
Training and validation part are scaled each by itself.

Draws are keyed by the ids of texts: the order of rows changes nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from quadmix.errors import InputError, IntegrityError
from quadmix.raters.pairs import check_split
from quadmix.raters.table import CROSS, KINDS, MONO, PARALLEL, Pairs, Texts
from quadmix.rng import doc_keys, keyed_uniform

Direction = Literal["E", "M", "both"]
NO_TEXT, NO_PAIR = "no translation survived", "no labelled pair could use its texts"
NO_SIDES, NOT_WANTED, TOO_FEW = "a side has no version left", "of a kind not wanted", "too few"
_PARTS = ("train", "held")
Numbers = tuple[int, int, int]  # of pairs per kind
Two = tuple[str, str]
Versions = Mapping[int, Mapping[str, int]]  # row of an original -> language -> row of its version
Ties = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """mono, cross, parallel: proportions of the kinds; mono and cross share out the labelled pairs, parallel
    pairs are as many beside them as the proportion says. parallel_weight: lambda, 0 = no parallel pairs.
    reuse: each labelled pair is used in both roles, for small budgets; else in one.
    least: pairs of the training part from which on a language is not reported as having too few."""

    direction: Direction = "E"
    mono: float = 150.0
    cross: float = 150.0
    parallel: float = 75.0
    parallel_weight: float = 1.0
    reuse: bool = False
    least: int = 20

    def __post_init__(self) -> None:
        if min(self.mono, self.cross, self.parallel, self.parallel_weight) < 0 or self.mono + self.cross == 0:
            raise InputError(
                f"composition {self.mono:g}:{self.cross:g}:{self.parallel:g} with parallel_weight "
                f"{self.parallel_weight:g}: expected numbers >= 0, and mono or cross above 0"
            )

    def wanted(self, pairs: int) -> Numbers:
        """Return the numbers of monolingual, cross-lingual and parallel pairs from so many labelled ones."""
        whole = max(self.mono, self.cross) if self.reuse else self.mono + self.cross
        mono = round(pairs * self.mono / whole)
        cross = round(pairs * self.cross / whole) if self.reuse else pairs - mono
        parallel = round(pairs * self.parallel / whole) if self.parallel_weight > 0 else 0
        return mono, cross, parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What was composed. pairs: training part first, by kind. wanted, made: part -> kind -> pairs. sides:
    kind -> language -> texts of the training part's pairs that stand in it (both sides of a pair count).
    unused: reason -> labelled pairs that serve no kind. missing: language -> why it has no pair, or too few.
    """

    pairs: Pairs
    wanted: dict[str, dict[str, int]]
    made: dict[str, dict[str, int]]
    sides: dict[str, dict[str, int]]
    unused: dict[str, int]
    missing: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """A labelled pair in canonical orientation (the smaller id first): language -> row per side."""

    a: Mapping[str, int]
    b: Mapping[str, int]
    roots: tuple[int, int]
    p: float
    weight: float
    key: str

    @property
    def can_mono(self) -> bool:
        return bool(self.a.keys() & self.b.keys())

    @property
    def can_cross(self) -> bool:
        return bool(self.a) and bool(self.b) and len(self.a.keys() | self.b.keys()) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    a: int
    b: int
    p: float
    weight: float
    kind: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Pairs under construction, and how often each language was drawn per kind (monolingual: twice)."""

    rows: list[_Row] = field(default_factory=list[_Row])
    used: list[Counter[str]] = field(default_factory=lambda: [Counter[str]() for _ in KINDS])

    def add(self, kind: int, languages: Two, rows: tuple[int, int], p: float, weight: float) -> None:
        self.used[kind].update(languages)
        self.rows.append(_Row(a=rows[0], b=rows[1], p=p, weight=weight, kind=kind))


def compose_pairs(
    texts: Texts,
    labelled: Pairs,
    composition: Composition | None = None,
    *,
    languages: Collection[str] | None = None,
    seed: int = 0,
) -> Composed:
    """Compose the pairs of all kinds, languages balanced, each part by itself.

    labelled: pairs of rows of `texts`, of two different originals, with p, weight and held; their kind is not
    read. A pair that cannot stand in for its kind (a translation was lost) takes the other one where it can.
    languages: those that are wanted; None: all that occur. Balance: each draw takes the language used least
    so far among those that the pair has, ties by chance.

    Raises InputError for labelled pairs that do not fit the direction, and where no pair at all can be made;
    IntegrityError for a source in both parts, translations of translations, two versions in one language, and
    a translation that names another source than its original.
    """
    how = composition or Composition()
    wanted_languages = set(texts.language) if languages is None else set(languages)
    roots = _roots(texts)
    versions = _versions(texts, roots, wanted_languages)
    check_split(texts, labelled)
    parts, unused = (_Part(), _Part()), Counter[str]()
    wanted: dict[str, dict[str, int]] = {}
    for number, name in enumerate(_PARTS):
        rows = np.flatnonzero(labelled.held == bool(number)).tolist()
        pairs = [_labelled(texts, labelled, row, roots, versions, how.direction) for row in rows]
        numbers = how.wanted(len(pairs))
        wanted[name] = dict(zip(KINDS, numbers, strict=True))
        unused += _labelled_kinds(parts[number], pairs, numbers, how, seed)
        _draw_parallel(parts[number], texts, pairs, versions, numbers[PARALLEL], seed)
    if not any(row.kind != PARALLEL for part in parts for row in part.rows):
        raise InputError(
            f"none of {len(labelled)} labelled pairs can be carried over to "
            f"{', '.join(sorted(wanted_languages))} ({dict(unused)}); are the translations of their texts "
            "among the texts?"
        )
    made = {
        name: {kind: sum(row.kind == k for row in part.rows) for k, kind in enumerate(KINDS)}
        for name, part in zip(_PARTS, parts, strict=True)
    }
    return Composed(
        pairs=_joined(parts, how.parallel_weight),
        wanted=wanted,
        made=made,
        sides={kind: dict(sorted(parts[0].used[k].items())) for k, kind in enumerate(KINDS)},
        unused=dict(unused),
        missing=_missing(parts[0], texts, wanted_languages, how.least),
    )


def _roots(texts: Texts) -> list[int]:
    """Return for each text the row of its original: itself, or what it translates."""
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    roots = [place.get(origin, -1) if origin else row for row, origin in enumerate(texts.origin)]
    for row, root in enumerate(roots):
        if root < 0 or texts.origin[root]:
            raise IntegrityError(
                f"text {texts.ids[row]!r} translates {texts.origin[row]!r}, expected the id of an original "
                "among the texts; pass originals and their direct translations together"
            )
    return roots


def _versions(texts: Texts, roots: Sequence[int], languages: Collection[str]) -> dict[int, dict[str, int]]:
    """Return row of an original -> language -> row of its version, for the languages wanted."""
    versions: dict[int, dict[str, int]] = defaultdict(dict)
    for row, (root, language) in enumerate(zip(roots, texts.language, strict=True)):
        if language in languages and versions[root].setdefault(language, row) != row:
            raise IntegrityError(
                f"texts {texts.ids[versions[root][language]]!r} and {texts.ids[row]!r} are both the version "
                f"in {language!r} of {texts.ids[root]!r}, expected one per language; remove one"
            )
    return versions


def _labelled(
    texts: Texts, labelled: Pairs, row: int, roots: Sequence[int],
    versions: Versions, direction: Direction,
) -> _Labelled:  # fmt: skip
    a, b = int(labelled.a[row]), int(labelled.b[row])
    native = bool(texts.origin[a] or texts.origin[b])  # labelled through a translation: direction M
    if direction == "E" and native:
        raise InputError(
            f"labelled pair {row} ({texts.ids[a]!r}, {texts.ids[b]!r}) has a translation as a side; "
            "direction E expects originals. Set direction to M or both"
        )
    p = float(labelled.p[row])
    if texts.ids[b] < texts.ids[a]:  # the draw is the same whichever side stands first
        a, b, p = b, a, 1.0 - p
    if roots[a] == roots[b]:
        raise InputError(
            f"labelled pair {row} ({texts.ids[a]!r}, {texts.ids[b]!r}) compares versions of one text, "
            "expected two texts; remove the pair"
        )
    sides = [versions.get(roots[side], {}) for side in (a, b)]
    if native or direction == "M":
        sides = [{k: v for k, v in side.items() if not texts.origin[v]} for side in sides]
    return _Labelled(
        a=sides[0], b=sides[1], roots=(roots[a], roots[b]), p=p, weight=float(labelled.weight[row]),
        key=f"{texts.ids[a]}\x1f{texts.ids[b]}",
    )  # fmt: skip


def _labelled_kinds(
    part: _Part, pairs: Sequence[_Labelled], numbers: Numbers, how: Composition, seed: int
) -> Counter[str]:
    """Add the monolingual and cross-lingual pairs; return how many labelled pairs serve none, by reason."""
    order = _keyed_order([pair.key for pair in pairs], seed, "compose:role")
    only_mono = [i for i in order if pairs[i].can_mono and not pairs[i].can_cross]
    only_cross = [i for i in order if pairs[i].can_cross and not pairs[i].can_mono]
    both = [i for i in order if pairs[i].can_mono and pairs[i].can_cross]
    if how.reuse:
        mono, cross = [*only_mono, *both][: numbers[MONO]], [*only_cross, *both][: numbers[CROSS]]
    else:
        split = min(max(0, numbers[MONO] - len(only_mono)), len(both)) if how.cross > 0 else len(both)
        mono = [*only_mono, *both[:split]] if how.mono > 0 else []
        cross = [*only_cross, *both[split:]] if how.cross > 0 else []
    _draw_labelled(part, MONO, [pairs[i] for i in mono], seed)
    _draw_labelled(part, CROSS, [pairs[i] for i in cross], seed)
    served = {*mono, *cross}
    lost = [pair for i, pair in enumerate(pairs) if i not in served]
    return Counter(NOT_WANTED if pair.can_mono or pair.can_cross else NO_SIDES for pair in lost)


def _draw_labelled(part: _Part, kind: int, pairs: Sequence[_Labelled], seed: int) -> None:
    """Give each pair the language, or the two, that were used least so far."""
    names = sorted({language for pair in pairs for language in (*pair.a, *pair.b)})
    ties = _ties(names, [pair.key for pair in pairs], seed, f"compose:{KINDS[kind]}")
    shared = [p.a.keys() & p.b.keys() if kind == MONO else p.a.keys() | p.b.keys() for p in pairs]
    for i in _scarce_last(shared):
        pair, used = pairs[i], part.used[kind]
        if kind == MONO:
            first = second = _least_used(shared[i], used, ties, i)
        else:
            # where b has one language alone, a must not take it
            taken = pair.b.keys() if len(pair.b) == 1 else ()
            first = _least_used(pair.a.keys() - taken, used, ties, i)
            second = _least_used(pair.b.keys() - {first}, used, ties, i)
        part.add(kind, (first, second), (pair.a[first], pair.b[second]), pair.p, pair.weight)


def _draw_parallel(
    part: _Part, texts: Texts, pairs: Sequence[_Labelled], versions: Versions, many: int, seed: int
) -> None:
    """Add `many` parallel pairs of the originals that labelled pairs name, or as many as there are: one of
    each, then a second one of each in other languages, and so on."""
    roots = [root for root in {r for pair in pairs for r in pair.roots} if len(versions.get(root, ())) > 1]
    roots = sorted(roots, key=lambda root: texts.ids[root])
    roots = [roots[i] for i in _keyed_order([texts.ids[r] for r in roots], seed, "compose:parallel")]
    names = sorted({language for root in roots for language in versions[root]})
    done: dict[int, set[frozenset[str]]] = {root: set() for root in roots}
    made, turn = 0, 0
    while made < many and roots:
        ties = _ties(names, [texts.ids[root] for root in roots], seed, f"compose:parallel:{turn}")
        left: list[int] = []
        for i in _scarce_last([versions[root].keys() for root in roots[: many - made]]):
            root = roots[i]
            drawn = _parallel_languages(versions[root].keys(), done[root], part.used[PARALLEL], ties, i)
            done[root].add(frozenset(drawn))
            rows = (versions[root][drawn[0]], versions[root][drawn[1]])
            part.add(PARALLEL, drawn, rows, 0.5, 1.0)
            if len(done[root]) < len(versions[root]) * (len(versions[root]) - 1) // 2:
                left.append(root)
        made, turn, roots = made + min(len(roots), many - made), turn + 1, left


def _parallel_languages(
    languages: Collection[str], done: set[frozenset[str]], used: Counter[str], ties: Ties, i: int
) -> tuple[str, str]:
    """Return two of the languages that were not taken together before; there must be two."""
    partners = {
        one: {other for other in languages if other != one and frozenset((one, other)) not in done}
        for one in languages
    }
    first = _least_used([one for one in languages if partners[one]], used, ties, i)
    return first, _least_used(partners[first], used, ties, i)


def _scarce_last(languages: Sequence[Collection[str]]) -> list[int]:
    """Return the order in which languages are given out: those that have a rare one come last, when it is
    the least used and therefore taken."""
    known = Counter(language for some in languages for language in some)
    return sorted(range(len(languages)), key=lambda i: -min(known[language] for language in languages[i]))


def _least_used(languages: Iterable[str], used: Counter[str], ties: Ties, i: int) -> str:
    return min(languages, key=lambda language: (used[language], ties[language][i], language))


def _ties(languages: Sequence[str], keys: Sequence[str], seed: int, name: str) -> Ties:
    """Return language -> (n,) uniforms, one per key: the order among equally used languages. A fixed order
    would always put the same languages together."""
    hashed = doc_keys(keys)
    return {language: keyed_uniform(seed, hashed, f"{name}:{language}").tolist() for language in languages}


def _keyed_order(keys: Sequence[str], seed: int, name: str) -> list[int]:
    draws = keyed_uniform(seed, doc_keys(keys), name).tolist()
    return sorted(range(len(keys)), key=lambda i: (draws[i], keys[i]))


def _joined(parts: Sequence[_Part], parallel_weight: float) -> Pairs:
    rows: list[_Row] = []
    held: list[bool] = []
    for number, part in enumerate(parts):
        total = sum(row.weight for row in part.rows if row.kind != PARALLEL)
        many = sum(row.kind == PARALLEL for row in part.rows)
        # a part without labelled pairs has no L_pair to be scaled by
        scaled = 2 * parallel_weight * ((total or many) / many) if many else 0.0
        rows += [replace(row, weight=scaled) if row.kind == PARALLEL else row for row in part.rows]
        held += [bool(number)] * len(part.rows)
    return Pairs(
        a=np.array([row.a for row in rows], np.int32),
        b=np.array([row.b for row in rows], np.int32),
        p=np.array([row.p for row in rows], np.float64),
        weight=np.array([row.weight for row in rows], np.float64),
        kind=np.array([row.kind for row in rows], np.int8),
        held=np.array(held, np.bool_),
    )


def _missing(part: _Part, texts: Texts, languages: Iterable[str], least: int) -> dict[str, str]:
    present, missing = set(texts.language), dict[str, str]()
    for language in sorted(languages):
        pairs = part.used[MONO][language] // 2 + part.used[CROSS][language]
        if language not in present:
            missing[language] = NO_TEXT
        elif pairs == 0:
            missing[language] = NO_PAIR
        elif pairs < least:
            missing[language] = f"{TOO_FEW}: {pairs} pairs, expected at least {least}"
    return missing
