"""Stage 1 as a source of labels: a rater of the raters' own language, whose probabilities label other pairs.

In: texts, pairs of texts in that language labelled by votes, and the pairs composed of them and their
translations. Out: the composed pairs in which every training pair with a side in another language has the
label sigmoid(s(a) - s(b)) of stage 1, s being the score of the text that was voted on. Pairs in the language
itself keep the votes, and so do all held-out pairs: a rater is judged by votes, never by its own teacher.

MuRating transfers votes (section 10.7) and so does this package unless told otherwise. A model smooths the
steps of a few votes, and errs where it has learnt them badly; it has seen the training pairs that it labels.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from quadmix.io.atomic import value_digest
from quadmix.raters.compared import Tell
from quadmix.raters.measures import Measured, pair_accuracy
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import PARALLEL, Pairs, Rows, Texts
from quadmix.raters.tiers import EMBEDDINGS, MODEL, encoder_digest, train_tier
from quadmix.recipe import RaterRecipe
from quadmix.types import Floats, Ints

FOLDER = "stage1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1:
    """encoder: its tier. digest: of the model. pairs: labelled by votes, that it was trained on. accuracy: on
    the held-out votes. labelled: training pairs that have its label; kept: those that would, but whose texts
    it could not read. moved: mean |label - vote|; turned: share of the pairs with a preference whose
    preferred side is the other one."""

    encoder: str
    digest: str
    pairs: int
    accuracy: Measured
    labelled: int
    kept: int
    moved: float
    turned: float

    def line(self) -> str:
        """Return it as text."""
        a = self.accuracy
        return (
            f"stage 1 ({self.encoder}): {self.pairs:,} pairs, accuracy on held-out votes {a.value:.3f} "
            f"[{a.low:.3f}, {a.high:.3f}] ({a.n:,}); it labels {self.labelled:,} training pairs, which moves "
            f"labels by {self.moved:.2f} and turns {self.turned:.1%}; {self.kept:,} keep their votes"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relabelled:
    """pairs: the composed ones with their labels. facts: what gave them."""

    pairs: Pairs
    facts: Stage1


def label_by_stage1(
    recipe: RaterRecipe, folder: Path, texts: Texts, voted: Pairs, composed: Pairs, tell: Tell | None
) -> Relabelled:
    """Train stage 1 on the votes and label the composed training pairs that are not in its language.

    voted, composed: of rows of `texts`; voted: both sides in the language of the raters. Raises InputError
    for votes that nothing can be learnt from, and for an encoder that cannot be used.
    """
    rows = np.unique(np.concatenate([voted.a, voted.b]))
    place = np.full(len(texts), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    own = texts.take(rows.tolist())
    inner = replace(voted, a=place[voted.a], b=place[voted.b])
    digest, scores = _scores(recipe, folder, own, inner, tell)
    held = inner.take(inner.held & (inner.p != 0.5))
    held = held.take(np.isfinite(scores[held.a] - scores[held.b]))
    source = np.unique(np.asarray(own.source, np.str_), return_inverse=True)[1].astype(np.int64)
    right = (1 + np.sign(scores[held.a] - scores[held.b]) * np.sign(held.p - 0.5)) / 2

    of = _voted_on(texts, rows)
    foreign = np.array([code != recipe.transfer.source for code in texts.language], np.bool_)
    ours = (composed.kind != PARALLEL) & ~composed.held & (foreign[composed.a] | foreign[composed.b])
    label = expit(scores[place[of[composed.a]]] - scores[place[of[composed.b]]])
    known = ours & np.isfinite(label)
    p = np.where(known, label, composed.p)
    decided = known & (composed.p != 0.5)
    turned = (p[decided] - 0.5) * (composed.p[decided] - 0.5) < 0
    facts = Stage1(
        encoder=recipe.encoder.kind, digest=digest, pairs=int((~voted.held).sum()),
        accuracy=pair_accuracy(right, source[held.a], source[held.b]), labelled=int(known.sum()),
        kept=int((ours & ~known).sum()),
        moved=float(np.abs(p - composed.p)[known].mean()) if known.any() else float("nan"),
        turned=float(turned.mean()) if decided.any() else float("nan"),
    )  # fmt: skip
    return Relabelled(pairs=replace(composed, p=p), facts=facts)


def _scores(
    recipe: RaterRecipe, folder: Path, texts: Texts, pairs: Pairs, tell: Tell | None
) -> tuple[str, Floats]:
    """Return the digest of stage 1 and its scores (D,), NaN where a text cannot be read; trained if it is not
    there yet."""
    told_nothing = recipe.encoder.model_copy(update={"code": ["language"]})
    plain = recipe.model_copy(
        update={"name": f"{recipe.name}-stage1", "head": "plain", "encoder": told_nothing}
    )
    encoder = plain.encoder.model_dump(mode="json", exclude={"max_unknown", "code"})
    key = value_digest(["stage1", 2, texts, pairs, encoder, encoder_digest(plain), plain.seed])
    home = folder / FOLDER / key[:16]
    if not (home / MODEL / "card.yaml").is_file():
        shutil.rmtree(home / MODEL, ignore_errors=True)
        train_tier(plain, home, texts, pairs, tell, vectors=folder / EMBEDDINGS)
    model = load_rater_model(home / MODEL / "card.yaml", plain.run.device)
    return model.card.digest, score_texts(model, texts, tell)


def _voted_on(texts: Texts, rows: Rows) -> Ints:
    """Return (D,) for each text the row of the text that was voted on in its stead: itself, its original
    (direction E), or its translation (direction M)."""
    where = {id_: row for row, id_ in enumerate(texts.ids)}
    voted = set(rows.tolist())
    of = np.arange(len(texts))
    for row in rows.tolist():
        if texts.origin[row]:
            of[where[texts.origin[row]]] = row
    for row, origin in enumerate(texts.origin):
        if row not in voted and origin:
            of[row] = where[origin]
    return of
