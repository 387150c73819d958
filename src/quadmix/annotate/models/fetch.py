"""A card -> its files on this machine, checked before anything of them is loaded.

In: a card, and where the user says its files are: a local file or folder, else the hub. Out: a `Placed`: the
folder, and one digest over what the card says of input and output and over the sha256 of every file that will
be read. A file whose sha256 is not the card's is refused; code of a repository is accepted only at the commit
that the user names (promise: nothing runs that was not agreed to).
"""

import json
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from quadmix.annotate.models.base import Placed
from quadmix.errors import InputError, MissingExtraError, StoreError
from quadmix.io.atomic import value_digest
from quadmix.io.door import explained, is_offline
from quadmix.io.hashing import sha256_file
from quadmix.recipe.cards import ModelCard, card_folder, card_names, load_card
from quadmix.urls import redact

Where = str | Path | None
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_READ = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_FILES = (".arpa", ".bin", ".ftz", ".onnx", ".safetensors", ".yaml", ".yml")  # a model by these is no hub id
_TORCH = ("pytorch_model*.bin",)
_CONFIG = ("config.json",)
_SINGLE_FILE = ("fasttext", "ngram")
KNOWN_BASES = ("microsoft/deberta-v3-base", "microsoft/mdeberta-v3-base")  # of hub-heads, see heads.BASES
# what of a card changes what comes out; names, licences and notes do not
_SETTINGS = {"family", "input", "output", "prompt", "answers", "direction", "languages", "head"}


def place(
    card: ModelCard,
    *,
    path: Where = None,
    accept_remote_code: str | None = None,
    offline: bool = False,
    beside: Where = None,
    config_only: bool = False,
) -> Placed:
    """Return the card with its files found and checked; its `files` and `revision` say what was found.

    path: a local file or folder of the model; None: `card.model`, which is a file or folder relative to
    `beside` (the folder of the user's own card), or an id on the hub. accept_remote_code: the commit whose
    code may run. config_only: no weights are read. What a head stands on (`card.base`) is looked for in
    `base/` beside the head, then as the card says; below a hub-head, whose weights are whole, it is the
    config alone.

    Raises InputError for files that are missing or not the card's, and for code that was not agreed to;
    StoreError where the hub would be needed and may not be used, or does not answer; MissingExtraError
    without huggingface_hub.
    """
    card = _agreed(card, accept_remote_code)
    local = _local(card, path, beside)
    offline = offline or is_offline()
    card, folder, keys = (
        _found(card, local, config_only) if local else _downloaded(card, offline, config_only)
    )
    if card.family not in _SINGLE_FILE and (folder / "adapter_config.json").is_file():
        raise InputError(
            f"card {card.name!r}: {folder} holds adapter_config.json, which takes weights from elsewhere; "
            "merge the adapter into the model and name that folder"
        )
    if card.remote_code:
        _refuse_foreign_code(card, folder)
        if local:
            _refuse_unread_code(card, folder)
    digests = {name: sha256_file(folder / name) for name in keys}
    for name, digest in digests.items():
        _compare(card, folder / name, card.files.get(name), digest)
    below = card.base or (card.family == "hub-head" and (folder / "base").is_dir())
    base = _base(card, folder, accept_remote_code, offline) if below else None
    named = {name: digests[name] for name in dict.fromkeys((*card.files, *digests)) if name in digests}
    return Placed(
        card=card.model_copy(update={"files": named}),
        folder=folder,
        digest=_digest(card, {keys[name]: digest for name, digest in digests.items()}, base),
        base=base,
    )


def _digest(card: ModelCard, files: dict[str, str], base: Placed | None) -> str:
    settings = card.model_dump(mode="json", include=_SETTINGS)
    return value_digest([settings, sorted(files.items()), base.digest if base else None])


def _compare(card: ModelCard, file: Path, expected: str | None, got: str) -> None:
    if expected is not None and got != expected.lower():
        raise InputError(
            f"card {card.name!r}: {file} has the sha256 {got}, expected {expected}; it is not the file that "
            "the card describes: fetch it again, or write a card of your own for it"
        )


# Code of a repository


def _agreed(card: ModelCard, accepted: str | None) -> ModelCard:
    """Return the card with the commit that was agreed to as its revision."""
    if not card.remote_code:
        return card
    if card.revision is not None and not _COMMIT.fullmatch(card.revision):
        raise InputError(
            f"card {card.name!r}: loading runs code, but its revision is {card.revision!r}; expected a "
            "commit of 40 hex digits, which cannot move"
        )
    wanted = card.revision or "the commit you have read, 40 hex digits"
    if accepted is None or not _COMMIT.fullmatch(accepted):
        raise InputError(
            f"card {card.name!r}: loading runs Python code from the repository {card.model!r}, and "
            f"accept_remote_code is {accepted!r}; read that code, then pass accept_remote_code: {wanted}"
        )
    if card.revision and accepted != card.revision:
        raise InputError(
            f"card {card.name!r}: accept_remote_code is {accepted}, expected {card.revision}, the commit "
            "that the card pins; for another commit write a card of your own"
        )
    return card.model_copy(update={"revision": accepted})


def _refuse_foreign_code(card: ModelCard, folder: Path) -> None:
    """Refuse an `auto_map` that takes code from yet another repository: no commit of that one is pinned."""
    for file in sorted(path for path in folder.rglob("*.json") if path.is_file()):
        if foreign := sorted({name for name in _code_names(file) if "--" in name}):
            raise InputError(
                f"card {card.name!r}: {file}: auto_map names {foreign[0]!r}, code of another repository at "
                "no fixed commit; copy that code into the model's folder and name it there"
            )


def _code_names(file: Path) -> list[str]:
    """Return what every `auto_map` in a JSON file names, however deep it stands."""
    found: list[str] = []

    def look(node: dict[str, Any]) -> dict[str, Any]:
        if "auto_map" in node:
            found.append(str(node["auto_map"]))
        return node

    try:
        json.loads(file.read_bytes(), object_hook=look)
    except ValueError:
        return []  # the loader will not read it either
    return found


def _code(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if p.is_file())


def _refuse_unread_code(card: ModelCard, folder: Path) -> None:
    """Refuse code in a local folder that the card does not pin: no commit says what is in it."""
    code = {name: sha256_file(folder / name) for name in _code(folder)}
    if unread := [name for name in code if card.files.get(name) is None]:
        lines = "; ".join(f"{name}: {code[name]}" for name in unread)
        raise InputError(
            f"card {card.name!r}: loading runs Python code in {folder}, which carries no commit. Read the "
            f"code, then put its digests under `files` of a card of your own: {lines}"
        )


# Where files lie


def _local(card: ModelCard, path: Where, beside: Where) -> Path | None:
    """Return the local file or folder of the model, None if it has to come from the hub."""
    if path is not None:
        if "://" in str(path):
            raise InputError(
                f"card {card.name!r}: path is {redact(str(path))!r}, expected a file or folder on this "
                "machine"
            )
        if not Path(path).exists():
            raise InputError(
                f"card {card.name!r}: {path} does not exist; expected the model's file or folder"
            )
        return Path(path)
    own = Path(beside or ".") / Path(card.model).expanduser()
    if (beside is not None or Path(card.model).is_absolute()) and own.exists():
        return own
    if not _HUB_ID.fullmatch(card.model) or own.suffix in _FILES:
        raise InputError(
            f"card {card.name!r}: model is {redact(card.model)!r}: {redact(str(own))} does not exist, and "
            "it is no id on the hub (owner/name); pass the path of the model's file or folder"
        )
    return None


def _found(card: ModelCard, local: Path, config_only: bool) -> tuple[ModelCard, Path, dict[str, str]]:
    """Return the card, the folder, and the files that are read: name -> its name in the digest."""
    if local.is_dir():
        return card, local, _keys(card, local, config_only)
    if card.family not in _SINGLE_FILE:
        raise InputError(
            f"card {card.name!r}: {local} is a file, expected the folder with the model "
            f"(family {card.family})"
        )
    others = list(card.files)[1:]
    named = {local.name: next(iter(card.files.values()), None)} | {n: card.files[n] for n in others}
    first = next(iter(card.files), local.name)
    card = card.model_copy(update={"files": named})
    return card, local.parent, _keys(card, local.parent, config_only) | {local.name: first}


def _keys(card: ModelCard, folder: Path, config_only: bool) -> dict[str, str]:
    names = _CONFIG if config_only else _named(card)
    if card.family not in _SINGLE_FILE and not config_only:
        # both kinds of weights: which of them is read is the library's affair
        names = (*names, *_matching(folder, (*_patterns(card), *_TORCH)))
        if card.remote_code:
            names = (*names, *_code(folder))
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise InputError(
            f"card {card.name!r}: {folder / absent[0]} does not exist; expected "
            f"{', '.join(_CONFIG if config_only else _named(card))} in the model's folder"
        )
    if not names:
        raise InputError(
            f"card {card.name!r}: there is no file of a model in {folder}; expected "
            f"{'a file named under `files`' if card.family in _SINGLE_FILE else ', '.join(_READ)}"
        )
    return {name: name for name in sorted(set(names))}


def _named(card: ModelCard) -> tuple[str, ...]:
    """Return the files that the card names itself."""
    tokenizer = f"{card.input.segment}/tokenizer.json" if card.input.segment else None
    return tuple(dict.fromkeys(n for n in (*card.files, card.head, tokenizer) if n))


def _patterns(card: ModelCard) -> Sequence[str]:
    return (*_READ, "*.py") if card.remote_code else _READ


def _matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Return the files of the folder itself; loaders read none below it that the card does not name."""
    names = [p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return [n for n in names if any(fnmatch(n, pattern) for pattern in patterns)]


# The hub


def _downloaded(card: ModelCard, offline: bool, config_only: bool) -> tuple[ModelCard, Path, dict[str, str]]:
    """Return the card with the commit that was fetched, its folder in the hub's cache, and the files read."""
    patterns = _CONFIG if config_only else _named(card)
    if card.family not in _SINGLE_FILE and not config_only:
        patterns = (*patterns, *_patterns(card), *_TORCH)
    if not patterns:
        raise InputError(f"card {card.name!r}: `files` is empty; expected the model's file in {card.model!r}")
    try:
        folder = _snapshot(card, patterns, offline)
    except StoreError as error:
        if "/" in card.model:
            raise
        raise InputError(
            f"card {card.name!r}: model is {card.model!r}, which is neither a file or folder beside the card "
            f"nor to be had from the hub; pass its folder as `path` ({error})"
        ) from error
    commit = folder.name if _COMMIT.fullmatch(folder.name) else card.revision
    return card.model_copy(update={"revision": commit}), folder, _keys(card, folder, config_only)


def _snapshot(card: ModelCard, patterns: Sequence[str], offline: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "annotate", f"fetching {card.model!r}") from error
    wanted: dict[str, Any] = {"revision": card.revision, "allow_patterns": list(patterns)}
    if not offline:
        with explained(f"hf://{card.model}", "downloading"):
            return Path(snapshot_download(card.model, **wanted))
    try:  # what was downloaded before needs no network
        return Path(snapshot_download(card.model, local_files_only=True, **wanted))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"card {card.name!r}: model {card.model!r} is not on this machine, and the network is switched "
            "off (--offline, run.offline or QUADMIX_OFFLINE); name a local folder with `path`, or go online"
        ) from error


# The embedder below a head


def _base(card: ModelCard, folder: Path, accepted: str | None, offline: bool) -> Placed | None:
    name, near = str(card.base), folder / "base"
    if card.family == "hub-head" and name in KNOWN_BASES and not near.is_dir():
        return None  # its layers are known, and its weights are in the head's own file
    own = name.endswith((".yaml", ".yml"))
    if own or name in card_names():
        found = load_card(str(folder / name) if own else name)
        beside = card_folder(str(folder / name)) if own else None
    else:
        found = ModelCard(
            name=f"{card.name}-base", family="embedding", role="embedding", model=name,
            licence="see the model", source=card.source, description=f"the base of {card.name}",
            input=card.input,
            output={"kind": "vector"},  # pyright: ignore[reportArgumentType]  (pydantic makes it)
        )  # fmt: skip
        beside = folder
    path = near if near.is_dir() else None
    return place(
        found, path=path, accept_remote_code=accepted, offline=offline, beside=beside,
        config_only=card.family == "hub-head",
    )  # fmt: skip
