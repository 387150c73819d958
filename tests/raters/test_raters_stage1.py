"""Stage 1 labels what was carried over, and nothing else; what it changed is counted."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from parallel_world import make_world, write_settings
from safetensors.numpy import load_file, save_file
from tiny_encoders import save_encoder

from quadmix.codec import to_json
from quadmix.errors import RecipeError
from quadmix.raters.making import PairsMade, make_pairs, rater_folder
from quadmix.raters.scored import load_rater_model
from quadmix.raters.table import PARALLEL, Pairs, Texts, read_pairs, read_texts
from quadmix.raters.telling import pairs_lines
from quadmix.recipe import load_rater


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rater.yaml, corpus.jsonl and a random encoder, with which stage 1 is quick."""
    folder = tmp_path_factory.mktemp("stage1")
    write_settings(folder, make_world(folder))
    save_encoder(folder / "encoder")
    (folder / "encoder.yaml").write_text(
        f"name: tiny\nfamily: embedding\nrole: embedding\nmodel: {folder / 'encoder'}\n"
        "licence: none\nsource: made here\ndescription: random\n"
        "input: {pooling: mean}\noutput: {kind: vector}\n",
        "utf-8",
    )
    return folder


def make(world: Path, name: str, *overrides: str, source: str = "stage1_model"):
    tier = ("encoder.kind=frozen", f"encoder.model={world / 'encoder.yaml'}", "encoder.epochs=3")
    chosen = (f"name={name}", f"transfer.label_source={source}", "pairs.count=60", *tier, *overrides)
    recipe = load_rater(str(world / "rater.yaml"), chosen)
    made = make_pairs(recipe, rater_folder(recipe))
    texts = read_texts(rater_folder(recipe) / "texts.parquet")
    return made, texts, read_pairs(rater_folder(recipe) / "pairs.parquet", texts)


def voted_on(texts: Texts, row: int) -> str:
    """The English text behind a text: itself, its original, or the translation of it."""
    if texts.language[row] == "en":
        return texts.text[row]
    ids = dict(zip(texts.ids, range(len(texts)), strict=True))
    origin = texts.origin[row]
    if origin:
        return texts.text[ids[origin]]
    (english,) = [i for i, o in enumerate(texts.origin) if o == texts.ids[row] and texts.language[i] == "en"]
    return texts.text[english]


def stage1_score(world: Path, name: str):
    """Return the score of one text at a time by the only model in the folder of stage 1."""
    (card,) = (world / "raters" / name / "stage1").glob("*/model/card.yaml")
    rater = load_rater_model(card, "cpu")
    rows = pa.RecordBatch.from_arrays([pa.array(["en"])], names=["language"])
    return lambda text: float(rater.score([text], rows).values[0])


def check(world: Path, name: str, made: PairsMade, texts: Texts, pairs: Pairs, votes: Pairs) -> None:
    """Hold every label against the vote or the model's probability, whichever it should be."""
    score = stage1_score(world, name)
    moved, turned, decided = list[float](), 0, 0
    for row in range(len(pairs)):
        a, b, p, vote = (int(pairs.a[row]), int(pairs.b[row]), float(pairs.p[row]), float(votes.p[row]))
        codes = {texts.language[a], texts.language[b]}
        if pairs.kind[row] == PARALLEL or pairs.held[row] or codes == {"en"}:
            assert p == vote
            continue
        apart = score(voted_on(texts, a)) - score(voted_on(texts, b))
        assert p == pytest.approx(1 / (1 + math.exp(-apart)), abs=1e-5)
        moved.append(abs(p - vote))
        decided += vote != 0.5
        turned += vote != 0.5 and (p > 0.5) != (vote > 0.5)
    facts = made.stage1
    assert facts is not None
    assert (facts.labelled, facts.kept) == (len(moved), 0)
    assert facts.moved == pytest.approx(np.mean(moved), abs=1e-5)
    assert facts.turned == pytest.approx(turned / decided)
    assert f"it labels {len(moved)} training pairs" in "\n".join(pairs_lines(made))


def test_pairs_with_a_translation_get_the_probability_of_their_originals_and_others_keep_the_votes(
    world: Path,
) -> None:
    plain, _, votes = make(world, "plain", source="votes")
    made, texts, pairs = make(world, "told")
    assert plain.stage1 is None
    for name in ("a", "b", "kind", "held", "weight"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(votes, name))
    check(world, "told", made, texts, pairs, votes)
    score = stage1_score(world, "told")
    own = [
        (1 + np.sign(score(texts.text[a]) - score(texts.text[b])) * np.sign(p - 0.5)) / 2
        for a, b, p, held, kind in zip(pairs.a, pairs.b, pairs.p, pairs.held, pairs.kind, strict=True)
        if held and kind == 0 and p != 0.5 and texts.language[a] == texts.language[b] == "en"
    ]
    assert made.stage1 is not None
    assert (made.stage1.accuracy.n, made.stage1.accuracy.value) == (len(own), pytest.approx(np.mean(own)))


def test_native_texts_get_the_probability_of_their_translations(world: Path) -> None:
    *_, votes = make(world, "plain-m", "transfer.direction=M", source="votes")
    made, texts, pairs = make(world, "told-m", "transfer.direction=M")
    check(world, "told-m", made, texts, pairs, votes)


def test_a_killed_call_trains_stage_1_once_and_another_encoder_trains_another(world: Path) -> None:
    made = make(world, "again")[0]
    (card,) = (world / "raters/again/stage1").glob("*/model/card.yaml")
    stamp = card.stat().st_mtime_ns
    (world / "raters/again/pairs.json").unlink()
    assert to_json(make(world, "again")[0]) == to_json(made)
    assert card.stat().st_mtime_ns == stamp
    kept = sorted(p.name for p in (world / "raters/again/embeddings").iterdir())
    assert make(world, "again", "encoder.max_unknown=0.9")[0].request == made.request
    other = make(world, "again", "encoder.epochs=1")[0]
    assert other.request != made.request
    assert len(list((world / "raters/again/stage1").glob("*/model/card.yaml"))) == 2
    assert sorted(p.name for p in (world / "raters/again/embeddings").iterdir()) == kept, "encoded once"
    votes = make(world, "again", source="votes")[0]
    assert make(world, "again", "encoder.epochs=7", source="votes")[0].request == votes.request


def test_another_encoder_in_the_same_folder_labels_anew(world: Path, tmp_path: Path) -> None:
    """Nothing of the settings changes, but a file: what stage 1 was trained on is another encoder."""
    card, folder = tmp_path / "encoder.yaml", tmp_path / "encoder"
    shutil.copytree(world / "encoder", folder)
    card.write_text((world / "encoder.yaml").read_text("utf-8").replace(str(world / "encoder"), str(folder)))
    made = make(world, "files", f"encoder.model={card}")[0]
    assert to_json(make(world, "files", f"encoder.model={card}")[0]) == to_json(made)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: 2 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    other = make(world, "files", f"encoder.model={card}")[0]
    assert other.request != made.request
    assert made.stage1 is not None
    assert other.stage1 is not None
    assert other.stage1.digest != made.stage1.digest
    assert len(list((world / "raters/files/stage1").glob("*/model/card.yaml"))) == 2


def test_nothing_to_label_is_refused(world: Path) -> None:
    with pytest.raises(RecipeError, match="transfers nothing that it could label"):
        make(world, "none", "transfer.translator.kind=none")
