"""The arms of a comparison of heads: how each is trained on the same pairs, and what it says of held ones.

In: vectors, texts, pairs, the seed's number. Out: of every arm the (P,) differences s(a) - s(b) of the judged
pairs. With a folder, what the heads of one seed say is one file there, and a killed comparison repeats the
heads of one seed at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from quadmix.io.atomic import read_table, value_digest, write_table
from quadmix.raters.comparing import BALANCED, GATED, PLACEBO, SEPARATE, WIDE
from quadmix.raters.dense import DenseTraining, TrainedHead, train_head
from quadmix.raters.learning import canonical, trained_languages
from quadmix.raters.table import MONO, Pairs, Texts
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints

LEAST_SEPARATE = 500  # monolingual training pairs of a language that has a head of its own
VERSION = 2  # of what is kept: files of another one are not read
Numbers = NDArray[np.float32]
Heard = Callable[[str, TrainedHead], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadData:
    """What heads are trained and judged on. vectors: (D, d) float32 of the texts. domains: (D,) of the texts,
    "" = unknown, as a feature of the code; None: the code has none."""

    vectors: Numbers
    texts: Texts
    pairs: Pairs
    domains: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """What all arms of a comparison share. own: language -> the pairs of a head of its own."""

    data: HeadData
    own: dict[str, Pairs]

    def scored(self, arm: str, training: DenseTraining, number: int) -> tuple[TrainedHead, Numbers]:
        """Return an arm's head of one seed, and its scores of all texts. The placebo is POSO (on `dealt`)."""
        settings, domains = self._arm(arm, training, number)
        told = self.data.texts
        head = train_head(self.data.vectors, told, self.data.pairs, settings, domains)
        scores = head.scores(self.data.vectors, told.language, domains)
        for code, pairs in self.own.items() if arm == SEPARATE else ():
            rows = np.array([c == code for c in told.language])
            alone = train_head(self.data.vectors, told, pairs, self._alone(settings, pairs))
            scores[rows] = alone.scores(self.data.vectors[rows], [code] * int(rows.sum()))
        return head, scores

    def _alone(self, settings: DenseTraining, own: Pairs) -> DenseTraining:
        """Return the settings of a head of its own: as many steps as the shared head has, however few its
        pairs are."""
        batches = [-(-int((~pairs.held).sum()) // settings.batch) for pairs in (self.data.pairs, own)]
        return replace(settings, epochs=round(settings.epochs * batches[0] / batches[1]))

    def _arm(self, arm: str, training: DenseTraining, number: int) -> tuple[DenseTraining, list[str] | None]:
        """Return how an arm is trained, and the domains that it is told."""
        settings: Any = replace(training, seed=training.seed + number)
        if arm == WIDE:
            wide = replace(settings, head="concat", hidden=self._wide(training.hidden))
            return wide, self.data.domains
        if arm in (BALANCED, SEPARATE):
            return replace(settings, head="plain", balanced=arm == BALANCED), None
        return replace(settings, head=GATED[0] if arm == PLACEBO else arm), self.data.domains

    def _wide(self, hidden: int) -> int:
        """Return the hidden units with which concat has as many parameters as POSO."""
        from quadmix.raters.heads import CODE, GATE_HIDDEN

        code = CODE * (2 if self.data.domains is None else 3)
        own, gate = self.data.vectors.shape[1] + 2, GATE_HIDDEN * (code + 1) + (GATE_HIDDEN + 1) * hidden
        return round((own * hidden + gate) / (own + code))


def dealt(data: HeadData, seed: int) -> HeadData:
    """Return the data with every pair told the languages, and domains, of another one, drawn by the seed.

    A pair's two texts get the codes of the two sides of the other, which is of the same kind, of the same
    part, and of one domain if it is: so both sides of a monolingual pair have one code, as before, and each
    part has as many pairs of each code. A text is there once for each code that it is dealt, at most two rows
    for each pair. pairs: in the order of `canonical`.
    """
    texts, pairs = data.texts, canonical(data.pairs, data.texts)
    domains = data.domains or [""] * len(texts)
    one = np.array([domains[a] == domains[b] != "" for a, b in zip(pairs.a, pairs.b, strict=True)], np.bool_)
    keys = [f"{texts.ids[a]}\x1f{texts.ids[b]}" for a, b in zip(pairs.a, pairs.b, strict=True)]
    group = (pairs.kind.astype(np.int64) * 2 + pairs.held) * 2 + one
    order = np.lexsort((keyed_uniform(seed, keys, "placebo"), group))
    of = np.empty(len(pairs), np.int64)
    of[order] = np.argsort(group, kind="stable")
    place, sides = dict[tuple[int, str, str], int](), list[list[int]]()
    for side in (pairs.a, pairs.b):
        told = [(int(i), texts.language[j], domains[j]) for i, j in zip(side, side[of].tolist(), strict=True)]
        sides.append([place.setdefault(code, len(place)) for code in told])
    rows = [row for row, _, _ in place]
    copies = replace(
        texts.take(rows),
        ids=tuple(f"{texts.ids[row]}\x1f{language}\x1f{domain}" for row, language, domain in place),
        language=tuple(language for _, language, _ in place),
    )
    a, b = np.array(sides, np.int32)
    return HeadData(
        vectors=data.vectors[rows], texts=copies, pairs=replace(pairs, a=a, b=b),
        domains=None if data.domains is None else [domain for _, _, domain in place],
    )  # fmt: skip


def separate_languages(pairs: Pairs, texts: Texts, *, least: int | None = None) -> dict[str, Pairs]:
    """Return the monolingual pairs, ties too, of each language with enough of them that train and prefer a
    side, and with such that are held. least: how many are enough, LEAST_SEPARATE where left out."""
    least = LEAST_SEPARATE if least is None else least
    language = np.array(texts.language, dtype=object).astype(str)
    mono, decided = pairs.kind == MONO, pairs.p != 0.5
    found: dict[str, Pairs] = {}
    for code in sorted(set(texts.language)):
        own = mono & (language[pairs.a] == code)
        if (own & decided & ~pairs.held).sum() >= least and (own & decided & pairs.held).any():
            found[code] = pairs.take(own)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Held monolingual pairs, ties too. place: (P,) among all pairs, canonical. language: (P,). trained:
    (P,), is there a training pair with a text in it? across: pairs of two domains, or of unknown ones, that
    are not among them since the code has the domain."""

    pairs: Pairs
    place: Ints
    language: NDArray[np.str_]
    trained: NDArray[np.bool_]
    across: int

    @staticmethod
    def of(data: HeadData) -> "Judged":
        """Return the pairs that the arms are judged on."""
        texts, pairs, domains = data.texts, data.pairs, data.domains
        found = canonical(pairs, texts)
        place, across = np.flatnonzero(found.held & (found.kind == MONO)), 0
        found = found.take(place)
        if domains is not None:
            named = np.array(domains, dtype=object).astype(str)
            one = (named[found.a] == named[found.b]) & (named[found.a] != "")
            found, place, across = found.take(one), place[one], int((~one).sum())
        language = np.array([texts.language[i] for i in found.a.tolist()], dtype=np.str_)
        trained = np.isin(language, trained_languages(pairs, texts))
        return Judged(pairs=found, place=place, language=language, trained=trained, across=across)

    def right(self, differences: Floats) -> Floats:
        """Return (S, P) of differences (S, P): 1 where the preferred side has the larger score, 0.5 where
        both have the same."""
        return (1.0 + np.sign(differences) * np.sign(self.pairs.p - 0.5)) / 2.0


def differences(
    world: World,
    judged: Judged,
    arms: Sequence[str],
    training: DenseTraining,
    number: int,
    *,
    file: Path | None = None,
    told: Callable[[], None] | None = None,
    heard: Heard | None = None,
) -> dict[str, Numbers]:
    """Return arm -> (P,) float32 differences of the judged pairs by the heads of seed `number`.

    file: where they are kept, read instead of trained if it is there. told: called before each head is
    trained. heard: given each arm and its head, before the file is written.
    """
    if file is not None and file.is_file():
        table = read_table(file)
        return {arm: table[arm].to_numpy() for arm in arms}
    found: dict[str, Numbers] = {}
    for arm in arms:
        if told:
            told()
        own, asked = world, judged.pairs
        if arm == PLACEBO:
            own = World(data=dealt(world.data, training.seed + number), own={})
            asked = own.data.pairs.take(judged.place)
        head, scores = own.scored(arm, training, number)
        found[arm] = scores[asked.a] - scores[asked.b]
        if heard:
            heard(arm, head)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_table(file, pa.table({arm: pa.array(values) for arm, values in found.items()}))
    return found


def digest_of(data: HeadData, training: DenseTraining, arms: Sequence[str]) -> str:
    """Return what names the results of all arms and seeds: a file of other data is not read."""
    pairs, texts = data.pairs, data.texts
    arrays = data.vectors, pairs.a, pairs.b, pairs.p, pairs.weight, pairs.kind, pairs.held
    digests = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return value_digest(
        [VERSION, digests, texts.ids, texts.language, texts.source, data.domains, training, list(arms)]
    )
