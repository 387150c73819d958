"""Raters trained on what the run is judged by: told by the names on their cards, and by shared passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from quadmix.annotate.circularity import circularity, criterion_circularity, shared_warnings
from quadmix.annotate.models.prepare import model_users
from quadmix.io.atomic import read_json, value_digest, write_json
from quadmix.io.fs import file_info
from quadmix.recipe import Recipe, load_card


def circular_warnings(recipe: Recipe, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the raters that were trained on a target. texts: of each target."""
    named = [*(t.name for t in recipe.targets), *(t.path for t in recipe.targets)]
    found: list[str] = []
    for user in model_users(recipe.annotate):
        name = getattr(user, "name", "annotate.domain")
        found += circularity(load_card(str(user.model)).trained_on, named, rater=f"criterion {name!r}")
    for criterion in recipe.annotate.criteria:
        found += shared_warnings(criterion_circularity(criterion, texts))
    return found


def kept_warnings(
    folder: Path, recipe: Recipe, texts: Mapping[str, Sequence[str]], targets: str
) -> list[str]:
    """Return `circular_warnings`, read again where nothing they depend on has changed.

    targets: digest of their passages.
    """
    sets = [s for c in recipe.annotate.criteria for s in (*c.good, *c.bad, *c.labelled)]
    asked = value_digest(
        [
            targets,
            recipe.annotate.model_dump(mode="json"),
            [file_info(s.path).digest for s in sets],
            [(t.name, t.path) for t in recipe.targets],
        ]
    )
    path = folder / "annotators" / "circularity.json"
    if path.is_file() and (kept := read_json(path)).get("asked") == asked:
        return list(kept["warnings"])
    found = circular_warnings(recipe, texts)
    write_json(path, {"asked": asked, "warnings": found})
    return found
