"""Read, check, override and print recipes.

In: a YAML file (safe loader, no tags) and `a.b=c` overrides. Out: a frozen `Recipe`. An unknown key is
an error that names the nearest known key; every default is written into `recipe.resolved.yaml`.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError

from quadmix.errors import RecipeError
from quadmix.recipe.addresses import check_addresses, refuse_secrets, remote_addresses
from quadmix.recipe.base import Section
from quadmix.recipe.proxies import LADDER
from quadmix.recipe.rating import RaterRecipe
from quadmix.recipe.sections import Recipe

T = TypeVar("T", Recipe, RaterRecipe)

# keys of the recipe that hold paths, in whatever section
PATH_KEYS = ("path", "paths", "decontaminate", "reuse", "current", "theta_from", "out")
_PRESETS = Path(__file__).parent.parent / "data" / "presets"


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; relative paths inside it are taken from the recipe's own folder.

    Raises RecipeError for a missing file, YAML that does not parse, an unknown or ill-typed key.
    """
    settings = _read(path, overrides, remedy="`quadmix init` writes one")
    return check_recipe(settings, base=Path(path).resolve().parent, where=path)


def load_rater(path: str, overrides: Sequence[str] = ()) -> RaterRecipe:
    """Read the settings of a rater's training, as `load_recipe` reads a recipe."""
    settings = _read(path, overrides, remedy="docs/murating.md shows one")
    return _checked(RaterRecipe, settings, Path(path).resolve().parent, path)


def _read(path: str, overrides: Sequence[str], *, remedy: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"recipe {path!r} does not exist; {remedy}")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path!r} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path!r} holds {type(data).__name__}, expected a mapping of sections")
    settings = cast(dict[str, Any], data)
    for override in overrides:
        _apply(settings, override)
    return settings


def preset_settings(name: str) -> dict[str, Any]:
    """Return the sections that a preset sets; RecipeError names the presets if there is no such one."""
    return cast(dict[str, Any], yaml.safe_load(preset_text(name)))


def preset_text(name: str) -> str:
    """Return a preset as its commented YAML."""
    if name not in preset_names():
        raise RecipeError(f"there is no preset {name!r}; there are: {', '.join(preset_names())}")
    return (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def preset_names() -> list[str]:
    """Return the presets from the smallest to the largest."""
    return ["smoke", "laptop", "workstation", "paper"]


def _under(base: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the user's settings over it, section by section; a `size` replaces base's shape."""
    shape = LADDER["1M"] if settings.get("size") else {}
    out = {key: value for key, value in base.items() if key not in shape}
    for key, value in settings.items():
        mine = out.get(key)
        both = isinstance(mine, dict) and isinstance(value, dict)
        out[key] = _under(cast(dict[str, Any], mine), cast(dict[str, Any], value)) if both else value
    return out


def check_recipe(settings: Mapping[str, Any], *, base: Path | None = None, where: str = "recipe") -> Recipe:
    """Check a mapping against the schema, over its preset if it names one, and make its relative paths
    absolute from `base`."""
    if settings.get("preset") is not None:
        refuse_secrets(settings, where)
        settings = _under(preset_settings(str(settings["preset"])), settings)
    return _checked(Recipe, settings, base, where)


def _checked(cls: type[T], settings: Mapping[str, Any], base: Path | None, where: str) -> T:
    refuse_secrets(settings, where)
    try:
        recipe = cls.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error, cls)}") from error
    check_addresses(recipe, PATH_KEYS, where)
    return _absolute(recipe, base) if base else recipe


def remote_paths(recipe: Recipe) -> tuple[str, ...]:
    """Return what of a recipe uses the network, as "key: address"."""
    return remote_addresses(recipe, PATH_KEYS)


def dump_recipe(recipe: Recipe | RaterRecipe) -> str:
    """Return the recipe with every default, as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """Return the JSON Schema of the recipe (for editors; published under docs/)."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override!r}: expected a.b=value")
    *parents, leaf = key.split(".")
    node: Any = settings
    for name in parents:
        step = _step(node, name, override)
        if isinstance(step, str):
            node.setdefault(step, {})
        node = node[step]
        if type(node) not in (dict, list):
            raise RecipeError(f"--set {override!r}: {name!r} is not a section")
    try:
        node[_step(node, leaf, override)] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override!r}: the value is not valid YAML: {error}") from error


def _step(node: Any, name: str, override: str) -> str | int:
    """Return one step of a key: a name in a section, a place in a list (targets.0.limit)."""
    if not isinstance(node, list):
        return name
    items = cast(list[Any], node)
    if not name.isdecimal() or int(name) >= len(items):
        last = len(items) - 1
        raise RecipeError(f"--set {override!r}: {name!r} is no place in a list, expected 0 to {last}")
    return int(name)


def _explain(error: ValidationError, cls: type[Section]) -> str:
    lines: list[str] = []
    for item in error.errors():
        place = ".".join(map(str, item["loc"])) or "top level"
        if item["type"] == "extra_forbidden":
            known = sorted(_known_keys(item["loc"], cls))
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            lines.append(f"unknown key {place!r}; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{place!r} is missing")
        else:
            got = repr(item.get("input"))
            shown = got if len(got) <= 80 else got[:77] + "..."
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {message} (got {shown})" if item["type"] != "value_error" else message)
    return "; ".join(lines)


def _known_keys(location: tuple[int | str, ...], cls: type[Section]) -> set[str]:
    """Walk the schema along an error's location to the keys that its parent section knows."""
    schema = cls.model_json_schema()
    node: dict[str, Any] = schema
    for part in location[:-1]:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        reference = node.get("$ref") or next((a["$ref"] for a in node.get("allOf", []) if "$ref" in a), None)
        if reference:
            node = schema["$defs"][reference.rsplit("/", 1)[-1]]
    return set(node.get("properties", {}))


def _absolute(recipe: T, base: Path) -> T:
    def fix(path: str) -> str:
        return path if "://" in path or Path(path).is_absolute() else str(base / path)

    def fix_all(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {k: fix_all(v, k) for k, v in cast(dict[str, Any], node).items()}
        if isinstance(node, list):
            return [fix_all(v, key) for v in cast(list[Any], node)]
        named = key in PATH_KEYS or (key == "model" and str(node).endswith((".yaml", ".yml")))
        return fix(node) if named and isinstance(node, str) else node

    return type(recipe).model_validate(fix_all(recipe.model_dump()))
