"""Which head a rater should have: every one trained on the same vectors and pairs, judged by one rule.

In: the settings of a rater with a frozen encoder. Out: `HeadComparison`, also in heads.json of its folder.
The held-out pairs, of which the rater's report is made, decide nothing here: heads are trained and judged on
parts of the training sources (`inner_split`).
"""

from collections.abc import Sequence

from quadmix.errors import RecipeError
from quadmix.io.atomic import write_json
from quadmix.io.lease import lease
from quadmix.raters.compared import Tell, telling
from quadmix.raters.comparing import LEAST_SEEDS, HeadComparison, compare_heads
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.table import PAIRS, TEXTS, read_pairs, read_texts
from quadmix.raters.tiers import EMBEDDINGS, dense_training, embedded, inner_split, known_scripts
from quadmix.recipe import RaterRecipe

HEADS = "heads.json"


def choose_head(
    recipe: RaterRecipe,
    *,
    seeds: int = LEAST_SEEDS,
    tail: Sequence[str] | None = None,
    tell: Tell | None = None,
) -> HeadComparison:
    """Return the comparison of the heads; the pairs are made and the texts embedded where they are not yet.

    tail: languages that matter, those with few pairs where left out. Raises RecipeError for another encoder.
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
        vectors, pairs = embedded(recipe, folder / EMBEDDINGS, texts, pairs, tell)
        inner = inner_split(texts, pairs, recipe.seed)
        found = compare_heads(
            vectors.values, texts, inner, dense_training(recipe), seeds=seeds, tail=tail,
            progress=telling(tell, "train heads"),
        )  # fmt: skip
        write_json(folder / HEADS, found)
    return found
