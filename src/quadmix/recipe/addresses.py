"""The addresses in a recipe: no keys inside them, known schemes only, and which of them use the network.

In: settings as the user wrote them, and the checked recipe. Out: RecipeErrors that echo no key; a list.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from quadmix.errors import RecipeError
from quadmix.recipe.rating import RaterRecipe
from quadmix.recipe.sections import Recipe
from quadmix.urls import holds_secret, is_remote, redact, refusal


def refuse_secrets(settings: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError if any value is an address with a key inside, before a message could show it."""
    for place, text in _strings(settings):
        if holds_secret(text):
            raise RecipeError(f"{where}: {place}: {refusal(text)}")


def check_addresses(recipe: Recipe | RaterRecipe, keys: tuple[str, ...], where: str) -> None:
    """Raise RecipeError for an address of an unknown scheme, one that needs the network in an offline run,
    and for a run folder in a store. keys: those of a recipe that hold paths."""
    if is_remote(recipe.run.folder):
        raise RecipeError(
            f"{where}: run.folder is {redact(recipe.run.folder)!r}; expected a folder on this machine or on "
            "shared storage. The finished dataset goes to a store with materialise.out"
        )
    for place, text in _paths(recipe, keys):
        if reason := refusal(text, allow_http=bool(recipe.run.allow_http)):
            raise RecipeError(f"{where}: {place}: {reason}")
        if recipe.run.offline and is_remote(text):
            raise RecipeError(
                f"{where}: {place}: address {text!r} would use the network, but the run is offline "
                "(--offline, run.offline); copy the files to this machine, or run without it"
            )


def remote_addresses(recipe: Recipe | RaterRecipe, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return what of a recipe uses the network, as "key: address"."""
    return tuple(f"{place}: {text}" for place, text in _paths(recipe, keys) if is_remote(text))


def _paths(recipe: Recipe | RaterRecipe, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for place, text in _strings(recipe.model_dump()):
        if any(part in keys for part in place.split(".")):
            yield place, text


def _strings(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, Mapping):
        for key, item in cast(Mapping[str, Any], node).items():
            yield from _strings(item, f"{place}.{key}" if place else str(key))
    elif isinstance(node, list | tuple):
        for number, item in enumerate(cast(list[Any], node)):
            yield from _strings(item, f"{place}.{number}")
