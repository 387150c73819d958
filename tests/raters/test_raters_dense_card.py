"""A head over the vectors of a real (tiny, random) encoder, from training to the scores of its card."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
from annotate.models.encoder_world import alone
from tiny_encoders import place_encoder, save_encoder, some_pairs, some_texts

from quadmix.annotate.models import batches
from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.load import forget_models, load_model
from quadmix.annotate.models.rated import by_windows, language_rows, read_rater
from quadmix.annotate.models.rater import Asked, ModelAnnotator, asked_digest
from quadmix.errors import InputError
from quadmix.io.atomic import write_json
from quadmix.raters.dense import DenseTraining, rater_scores, save_dense, train_dense
from quadmix.raters.embeddings import embed
from quadmix.raters.heads import HeadKind
from quadmix.raters.scored import WindowRule, score_windows, window_rule
from quadmix.raters.table import Texts
from quadmix.recipe.cards import load_card, save_card

SETTINGS = Settings(device="cpu", threads=1, batch_tokens=512)
CLOSE = 2e-5  # float32 sums in another order


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


def long_texts() -> Texts:
    """Texts of 5, 20, 34 and 12 words, and one of two hundred."""
    words = " ".join(some_texts(60)[0].text).split()
    made = [" ".join(words[at : at + n]) for at, n in ((0, 5), (5, 20), (30, 34), (70, 12), (100, 200))]
    ids = tuple(f"i{n}" for n in range(len(made)))
    return Texts(
        ids=ids, source=ids, origin=("",) * len(ids), language=("en", "de", "sw", "en", "xx"),
        text=tuple(made),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "poso"])
def test_each_window_is_scored_alone_and_a_text_is_their_mean_by_tokens(
    kind: HeadKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 14 words between the special tokens, eight at most, whatever the encoder's card says of
    joining them; each goes through the encoder once, for a score and for what a table says of it. In training
    the same scores come from the cached vectors."""
    encoder, folder = tmp_path / "encoder", tmp_path / "rater"
    model = save_encoder(encoder)
    base = place_encoder(encoder, window=16)
    assert base.card.input.aggregate == "first"
    made, share = some_texts(120)
    trained = load_model(by_windows(base), SETTINGS).outputs(made.text).values
    training = DenseTraining(head=kind, hidden=16, batch=64, epochs=2, lr=1e-2)
    rater = train_dense(trained, made, some_pairs(share, 200, held=40), training)
    folder.mkdir()
    save_card(folder / "base.yaml", base.card)
    save_dense(folder, rater, name="ours", base=base.card, base_name="base.yaml")
    placed = place(load_card(str(folder / "card.yaml")), beside=folder)
    assert window_rule(placed) == WindowRule(size=16, unit="tokens", most=8)

    texts = long_texts()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    pieces = [[t.split()[at : at + 14] for at in range(0, len(t.split()), 14)][:8] for t in texts.text]
    each: list[np.ndarray] = []
    for own, code in zip(pieces, texts.language, strict=True):
        vectors = [alone(model, tokenizer, " ".join(p)).last_hidden_state[0].mean(dim=0).numpy() for p in own]
        unit = np.stack([v / np.linalg.norm(v) for v in vectors])
        each.append(rater_scores(rater.weights, unit, [code] * len(unit)))
    expected = [np.average(s, weights=[len(p) for p in own]) for s, own in zip(each, pieces, strict=True)]
    assert abs(np.mean(each[2]) - expected[2]) > 10 * CLOSE, "windows of 14, 14 and 6 words"

    read = [0]
    real = batches.run_pieces

    def counted(model: Any, pieces: Any, budget: Any) -> Any:
        read[0] += len(pieces)
        return real(model, pieces, budget)

    monkeypatch.setattr(batches, "run_pieces", counted)
    annotator = ModelAnnotator.make("ours", Asked(placed=placed, settings=SETTINGS, language="language"))
    rows = pa.RecordBatch.from_pydict({"language": list(texts.language)})
    found = score_windows(annotator, texts.text, rows)
    assert read == [sum(map(len, pieces))] == [1 + 2 + 3 + 1 + 8]
    np.testing.assert_allclose(found.score, expected, rtol=0, atol=CLOSE)
    assert found.windows.tolist() == [1, 2, 3, 1, 8]
    np.testing.assert_allclose(found.first, [s[0] for s in each], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(found.least, [s.min() for s in each], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(found.spread, [s.std() for s in each], rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(annotator.score(texts.text, rows).values, found.score.astype(np.float32))

    read[0] = 0
    cached = embed(texts, by_windows(base), SETTINGS, tmp_path / "cache")
    languages = language_rows(texts.language, rater.weights.languages)
    np.testing.assert_allclose(cached.scores(rater.weights, languages), expected, rtol=0, atol=CLOSE)
    assert read == [15]
    turned = embed(texts.take([4, 3, 2, 1, 0]), by_windows(base), SETTINGS, tmp_path / "cache")
    assert read == [15], "no text is encoded twice"
    scores = turned.scores(rater.weights, languages[::-1])
    np.testing.assert_array_equal(scores[::-1], cached.scores(rater.weights, languages))


def test_a_rater_that_joined_its_windows_is_refused(tmp_path: Path) -> None:
    """Its card would give other scores of long texts under the same digest."""
    write_json(tmp_path / "rater.json", {"kind": "vectors", "languages": ["en"], "version": 1})
    (tmp_path / "rater.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="version is 1, expected 2; train the rater again"):
        read_rater(tmp_path)
