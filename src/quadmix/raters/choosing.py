"""Which head a rater should have: every one trained on the same vectors and pairs, judged by one rule.

In: the settings of a rater with a frozen encoder. Out: `HeadComparison`, also in heads.json of its folder.
The held-out pairs, of which the rater's report is made, decide nothing here: heads are trained and judged on
parts of the training sources (`inner_split`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import write_json
from quadmix.io.lease import lease
from quadmix.raters.arms import HeadData
from quadmix.raters.compared import Tell, telling
from quadmix.raters.comparing import LEAST_SEEDS, HeadComparison
from quadmix.raters.domains import code_domains
from quadmix.raters.headcurve import label_curve
from quadmix.raters.headruns import compare_heads
from quadmix.raters.learning import trained_languages
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.table import MONO, PAIRS, TEXTS, Pairs, Texts, join_pairs, read_pairs, read_texts
from quadmix.raters.tiers import EMBEDDINGS, dense_training, embedded, inner_split, known_scripts
from quadmix.recipe import RaterRecipe

HEADS, RESULTS = "heads.json", "heads"


def choose_head(
    recipe: RaterRecipe,
    *,
    seeds: int = LEAST_SEEDS,
    tail: Sequence[str] | None = None,
    curve: Sequence[int] = (),
    tell: Tell | None = None,
) -> HeadComparison:
    """Return the comparison of the heads; the pairs are made and the texts embedded where they are not yet.

    tail: languages that matter, `tail_languages` where left out. curve: training pairs per tail language at
    which the curve over labels is to have a point. A killed call goes on where it was. Raises RecipeError for
    another encoder.
    """
    if recipe.encoder.kind != "frozen":
        raise RecipeError(
            f"encoder.kind is {recipe.encoder.kind!r}; heads are compared on a frozen encoder: set "
            "encoder.kind: frozen and encoder.model"
        )
    folder = rater_folder(recipe)
    make_pairs(recipe, folder, tell)
    with lease(folder):
        texts = read_texts(folder / TEXTS)
        pairs = read_pairs(folder / PAIRS, texts)
        known_scripts(recipe, texts, pairs)
        tail = tail_languages(pairs, texts) if tail is None else tail
        vectors, pairs = embedded(recipe, folder / EMBEDDINGS, texts, pairs, tell)
        inner = inner_split(texts, pairs, recipe.seed)
        trained = np.isin(texts.language, trained_languages(inner, texts))
        # of the held-out pairs only those of untrained languages are read: they are told apart
        apart = pairs.take(pairs.held & (pairs.kind == MONO) & ~trained[pairs.a])
        inner = join_pairs(inner, apart)
        domains = code_domains(recipe, folder, texts)
        data = HeadData(vectors=vectors.values, texts=texts, pairs=inner, domains=domains)
        training, store = dense_training(recipe), folder / RESULTS
        found = compare_heads(
            data, training, seeds=seeds, tail=tail, store=store, progress=telling(tell, "train heads")
        )
        if curve:
            progress = telling(tell, "train heads of the curve")
            points = label_curve(
                data, training, sizes=curve, seeds=seeds, tail=tail, store=store, progress=progress
            )
            found = replace(found, curve=points)
        write_json(folder / HEADS, found)
    return found


def tail_languages(pairs: Pairs, texts: Texts, *, share: float = 0.25) -> tuple[str, ...]:
    """Return the languages with fewer training pairs than `share` of the one with most, but with some.

    Raises InputError where there are none, as with languages balanced: then somebody must say which matter.
    """
    counts = dict.fromkeys(trained_languages(pairs, texts), 0)
    for row in np.flatnonzero(~pairs.held).tolist():
        for code in {texts.language[int(pairs.a[row])], texts.language[int(pairs.b[row])]}:
            counts[code] += 1
    few = tuple(code for code, n in counts.items() if n < share * max(counts.values()))
    if not few:
        told = ", ".join(f"{code} {n:,}" for code, n in counts.items())
        raise InputError(
            f"no language has fewer training pairs than {share:.0%} of the one with most ({told}), so "
            "nothing says which languages matter; name them with --tail"
        )
    return few
