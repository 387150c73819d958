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
from quadmix.raters.comparing import BALANCED, PLACEBO, SEPARATE, WIDE
from quadmix.raters.dense import DenseTraining, TrainedHead, train_head
from quadmix.raters.learning import canonical, trained_languages
from quadmix.raters.table import MONO, Pairs, Texts
from quadmix.rng import keyed_uniform
from quadmix.types import Floats

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
        """Return an arm's head of one seed, and its scores of all texts."""
        settings, told, domains = self._arm(arm, training, number)
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

    def _arm(
        self, arm: str, training: DenseTraining, number: int
    ) -> tuple[DenseTraining, Texts, list[str] | None]:
        """Return how an arm is trained, and the texts with the languages and domains that it is told."""
        settings: Any = replace(training, seed=training.seed + number)
        if arm == WIDE:
            return (
                replace(settings, head="concat", hidden=self._wide(training.hidden)),
                self.data.texts,
                self.data.domains,
            )
        if arm in (BALANCED, SEPARATE):
            return replace(settings, head="plain", balanced=arm == BALANCED), self.data.texts, None
        if arm != PLACEBO:
            return replace(settings, head=arm), self.data.texts, self.data.domains
        order = np.argsort(keyed_uniform(settings.seed, self.data.texts.ids, "placebo"), kind="stable")
        of = np.empty(len(order), np.int64)
        of[order] = np.argsort(
            np.array(self.data.texts.ids), kind="stable"
        )  # the code of another text, all of it
        told = replace(self.data.texts, language=tuple(self.data.texts.language[i] for i in of.tolist()))
        domains = None if self.data.domains is None else [self.data.domains[i] for i in of.tolist()]
        return replace(settings, head="poso"), told, domains

    def _wide(self, hidden: int) -> int:
        """Return the hidden units with which concat has as many parameters as POSO."""
        from quadmix.raters.heads import CODE, GATE_HIDDEN

        code = CODE * (2 if self.data.domains is None else 3)
        own, gate = self.data.vectors.shape[1] + 2, GATE_HIDDEN * (code + 1) + (GATE_HIDDEN + 1) * hidden
        return round((own * hidden + gate) / (own + code))


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
    """Held monolingual pairs, ties too. language: (P,). trained: (P,), is there a training pair with a text
    in it? across: pairs of two domains, or of unknown ones, that are not among them since the code has the
    domain."""

    pairs: Pairs
    language: NDArray[np.str_]
    trained: NDArray[np.bool_]
    across: int

    @staticmethod
    def of(data: HeadData) -> "Judged":
        """Return the pairs that the arms are judged on."""
        texts, pairs, domains = data.texts, data.pairs, data.domains
        found = canonical(pairs, texts)
        found, across = found.take(found.held & (found.kind == MONO)), 0
        if domains is not None:
            named = np.array(domains, dtype=object).astype(str)
            one = (named[found.a] == named[found.b]) & (named[found.a] != "")
            found, across = found.take(one), int((~one).sum())
        language = np.array([texts.language[i] for i in found.a.tolist()], dtype=np.str_)
        trained = np.isin(language, trained_languages(pairs, texts))
        return Judged(pairs=found, language=language, trained=trained, across=across)

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
        head, scores = world.scored(arm, training, number)
        found[arm] = scores[judged.pairs.a] - scores[judged.pairs.b]
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
