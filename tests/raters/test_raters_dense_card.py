"""A head over the vectors of a real (tiny, random) encoder, from training to the scores of its card."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_encoders import place_encoder, save_encoder, some_pairs, some_texts

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.rater import Asked, ModelAnnotator, asked_digest
from quadmix.errors import InputError
from quadmix.raters.dense import DenseTraining, rater_scores, save_dense, train_dense
from quadmix.raters.heads import HeadKind
from quadmix.recipe.cards import load_card, save_card

SETTINGS = Settings(device="cpu", threads=1)


@pytest.mark.parametrize("kind", ["plain", "poso"])
def test_card_of_a_head_scores_as_the_head_does(kind: HeadKind, tmp_path: Path) -> None:
    encoder, folder = tmp_path / "encoder", tmp_path / "rater"
    save_encoder(encoder)
    base = place_encoder(encoder)
    texts, share = some_texts(120)
    vectors = load_model(base, SETTINGS).outputs(texts.text).values
    training = DenseTraining(head=kind, hidden=16, batch=64, epochs=2, lr=1e-2)
    rater = train_dense(vectors, texts, some_pairs(share, 200, held=40), training)
    folder.mkdir()
    save_card(folder / "base.yaml", base.card)
    save_dense(folder, rater, name="ours", base=base.card, base_name="base.yaml")
    card = load_card(str(folder / "card.yaml"))
    assert card.reads_language == (kind == "poso")
    placed = place(card, beside=folder)
    asked = Asked(placed=placed, settings=SETTINGS, language="lang")
    assert ("lang" in asked.columns) == (kind == "poso")
    annotator = ModelAnnotator.make("ours", asked)
    given, told = texts.text[:12], list(texts.language[:12])
    scored = annotator.score(given, pa.RecordBatch.from_pydict({"lang": told}))
    np.testing.assert_allclose(scored.values, rater_scores(rater.weights, vectors[:12], told), atol=2e-5)
    bfloat = Asked(placed=placed, settings=Settings(device="cpu", precision="bfloat16"), language="lang")
    assert asked_digest(bfloat) != asked_digest(asked)  # the embedder below runs in another format
    forget_models()
    wrong = card.model_copy(update={"reads_language": kind != "poso"})
    with pytest.raises(InputError, match="on the language; correct the card"):
        load_model(place(wrong, beside=folder), SETTINGS)
