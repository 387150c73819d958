"""What a recipe's models would cost: measured here on documents made of the fixed texts."""

import time
from collections.abc import Iterator

from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.prepare import asked_of, model_users, place_model
from quadmix.annotate.models.rater import Asked, prepare_text, template_columns
from quadmix.engine.tasks import slots
from quadmix.errors import StoreError
from quadmix.pipeline.place import rating_place
from quadmix.recipe import Recipe, fixed_texts

DOCUMENT = 4_000  # characters, about what web documents have
BATCH = 16


def rating_seconds(recipe: Recipe, text_bytes: float, *, seconds: float) -> tuple[float, tuple[str, ...]]:
    """Return the estimated seconds of all models of the recipe over `text_bytes`, and the models that are not
    on this machine, whose time is not in it; nothing is fetched.

    Each model is loaded and run for about `seconds`; documents are taken to have 4,000 characters. Raises
    InputError for a model whose files are not what its card says.
    """
    cost: dict[str, float] = {}
    absent: list[str] = []
    for user in model_users(recipe.annotate):
        try:
            asked = asked_of(recipe.annotate, place_model(user, offline=True))
        except StoreError:
            absent.append(str(user.model))
            continue
        if asked.placed.digest not in cost:
            cost[asked.placed.digest] = _per_document(asked, seconds)
    workers = slots(rating_place(recipe)) if cost else 1
    return sum(cost.values()) * text_bytes / DOCUMENT / workers, tuple(dict.fromkeys(absent))


def _per_document(asked: Asked, seconds: float) -> float:
    model, card = load_model(asked.placed, asked.settings), asked.placed.card
    columns = dict.fromkeys(template_columns(card.input.template), "")
    batches = ([prepare_text(card, t, columns) for t in batch] for batch in _batches())
    model.outputs(next(batches))  # the first call also warms up
    begun, documents = time.perf_counter(), 0
    while documents == 0 or time.perf_counter() - begun < seconds:
        model.outputs(next(batches))
        documents += BATCH
    forget_models()
    return (time.perf_counter() - begun) / documents


def _batches() -> Iterator[list[str]]:
    """Yield batches of documents that differ, without end."""
    text = "\n".join(fixed_texts())
    text *= 2 + (DOCUMENT * 2) // len(text)
    start = 0
    while True:
        starts = [(start + 97 * i) % (len(text) - DOCUMENT) for i in range(BATCH)]
        yield [text[s : s + DOCUMENT] for s in starts]
        start += 97 * BATCH
