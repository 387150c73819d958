"""A local folder in the hub's format -> configuration, tokenizer and model, checked.

In: a `Placed` folder. Out: what transformers made of it. Nothing is fetched, and no code of the folder runs
unless the card says it needs to (`fetch.place` has asked for consent by then). transformers fills weights
that the folder lacks with random ones and goes on: that is refused here.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quadmix.annotate.models.base import Placed
from quadmix.annotate.models.devices import import_torch, import_transformers
from quadmix.errors import InputError

UNLIMITED = 1_000_000  # a tokenizer that does not know its limit says 1e30
_CODE = ". A model that needs code of its repository has remote_code: true on its card"
PADDED_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "xmod"}


def read_config(placed: Placed) -> Any:
    """Return the configuration of the folder; InputError if there is none that transformers knows."""
    return _read(placed, "AutoConfig", "config.json of a model type that is known")


def read_tokenizer(placed: Placed) -> Any:
    """Return the tokenizer of the folder; InputError if there is none that works."""
    return _read(placed, "AutoTokenizer", "the tokenizer's files (tokenizer.json, tokenizer_config.json)")


def read_model(placed: Placed, auto: str, *, unused: str | None = None, **extra: Any) -> Any:
    """Return the model of the folder, made by a class of transformers such as `AutoModel`.

    unused: how the names of weights start that the caller has no use for; they may be missing.
    InputError if weights are missing or have another shape than config.json says.
    """
    model, facts = _read(
        placed, auto, "weights that fit config.json", output_loading_info=True, dtype="auto", **extra
    )
    wrong = missing_weights(model, facts)
    wrong = [key for key in wrong if unused is None or not key.startswith(unused)]
    if wrong:
        raise InputError(
            f"card {placed.card.name!r}: {placed.folder} lacks {len(wrong)} weights of a "
            f"{type(model).__name__} ({', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}), they would "
            "be random. Is the family of the card right, and the download complete?"
        )
    return model


def missing_weights(model: Any, loading: Mapping[str, Any]) -> list[str]:
    """Return the weights that a folder lacks or has in another shape, which transformers drew at random.

    loading: what `from_pretrained` says with `output_loading_info`.
    """
    wrong = sorted(str(key) for key in loading["missing_keys"] if not _free(model, str(key)))
    return wrong + sorted(str(key) for key in loading.get("mismatched_keys", ()))


def values_config(placed: Placed, values: dict[str, Any]) -> Any:
    """Return the configuration made of the values of a config.json; InputError if the type is not known."""
    transformers = import_transformers(f"the model {placed.card.name!r}")
    try:
        rest = {key: value for key, value in values.items() if key != "model_type"}
        return transformers.AutoConfig.for_model(str(values.get("model_type")), **rest)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"card {placed.card.name!r}: the encoder's config.json has model_type "
            f"{values.get('model_type')!r}, which transformers {transformers.__version__} does not know"
        ) from error


def model_from_tensors(placed: Placed, config: Any, tensors: dict[str, Any]) -> Any:
    """Return the encoder of `config` with these weights; InputError if any is missing, spare or misshapen."""
    torch, transformers = import_torch("a model"), import_transformers(f"the model {placed.card.name!r}")
    with torch.device("meta"):  # nothing is drawn at random, nothing is held twice
        empty = transformers.AutoModel.from_config(config)
    expected = empty.state_dict()
    wrong = [key for key in expected if key not in tensors or tensors[key].shape != expected[key].shape]
    wrong += [key for key in tensors if key not in expected and not key.endswith("position_ids")]
    if wrong:
        raise InputError(
            f"card {placed.card.name!r}: {len(wrong)} tensors in {placed.folder} are not those of a "
            f"{config.model_type} with {config.num_hidden_layers} layers of {config.hidden_size} "
            f"({', '.join(sorted(wrong)[:3])}{', ...' if len(wrong) > 3 else ''}); is `base` the right one?"
        )
    with quiet(transformers):
        return type(empty).from_pretrained(
            None, config=config, state_dict={key: tensors[key] for key in expected}
        )


def longest_input(config: Any, tokenizer: Any) -> int | None:
    """Return how many tokens the model can read, special tokens included; None if nothing limits it."""
    limits = [int(getattr(tokenizer, "model_max_length", UNLIMITED) or UNLIMITED)]
    positions = positions_of(config)
    if positions is not None:
        limits.append(positions)
    return min(limits) if min(limits) < UNLIMITED else None


def positions_of(config: Any) -> int | None:
    """Return the positions the model has; None where they are relative and unlimited."""
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or getattr(config, "position_biased_input", True) is False:
        return None
    taken = (config.pad_token_id or 0) + 1 if config.model_type in PADDED_POSITIONS else 0
    return int(positions) - taken


def check_window(placed: Placed, config: Any) -> None:
    """InputError if the card's window is longer than the model's positions."""
    window, positions = placed.card.input.window, positions_of(config)
    if window is not None and positions is not None and window > positions:
        raise InputError(
            f"card {placed.card.name!r}: input.window is {window} tokens, but the model in "
            f"{placed.folder} has {positions} positions; set input.window to at most that"
        )


def pad_id(config: Any, tokenizer: Any) -> int:
    """Return the id that fills up a window. The model's own comes first: some count from it."""
    for known in (getattr(config, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None)):
        if known is not None:
            return int(known)
    return 0


def _read(placed: Placed, auto: str, expected: str, **extra: Any) -> Any:
    transformers = import_transformers(f"the model {placed.card.name!r}")
    if not placed.folder.is_dir():
        raise InputError(
            f"card {placed.card.name!r}: the folder {placed.folder} does not exist; name the one that "
            "holds the model's files"
        )
    remote = placed.card.remote_code
    try:
        with quiet(transformers):
            return getattr(transformers, auto).from_pretrained(
                str(placed.folder), local_files_only=True, trust_remote_code=remote, **extra
            )
    except Exception as error:  # of half a dozen libraries; whatever it is, these files cannot be used
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"card {placed.card.name!r}: {auto} cannot read {placed.folder} ({reason}); expected {expected}"
            + (_CODE if not remote and _names_code(placed.folder) else "")
        ) from error


def _names_code(folder: Path) -> bool:
    """Return whether the folder's configuration names code of its own; False where it cannot be read."""
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        try:
            given: Any = json.loads(file.read_bytes())
        except (OSError, ValueError):  # absent or damaged: that is the failure, and it is told already
            continue
        if isinstance(given, dict) and "auto_map" in given:
            return True
    return False


@contextmanager
def quiet(transformers: Any) -> Generator[None]:
    """No progress bars and no warnings of transformers: what matters is checked and said by us."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _free(model: Any, key: str) -> bool:
    """Return whether a tensor may be absent: a buffer, which is computed, or one tied to another."""
    return key not in dict(model.named_parameters(remove_duplicate=False)) or key in (
        getattr(model, "all_tied_weights_keys", None) or ()
    )
