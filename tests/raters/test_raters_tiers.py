"""What the tiers have in common: cards that say what was learnt from, encoders that are looked at, texts
that cannot be read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_encoders import save_encoder, some_texts

from quadmix.annotate.circularity import circularity
from quadmix.errors import InputError
from quadmix.io.atomic import read_json, write_json
from quadmix.raters.scored import load_rater_model, score_texts
from quadmix.raters.table import (
    CROSS,
    MONO,
    Pairs,
    Ratings,
    Texts,
    write_pairs,
    write_ratings,
    write_texts,
)
from quadmix.raters.tiers import inner_split, train_tier
from quadmix.raters.training import train_rater
from quadmix.recipe import RaterRecipe, load_rater
from quadmix.recipe.cards import load_card, save_card

SOURCES, HELD = 48, 16

SETTINGS = """
name: small
texts: {{paths: ["{folder}/parallel/*.jsonl"], in_language: en, same: same}}
raters:
  - {{name: web, kind: model, model: dclm-fasttext, path: /nowhere}}
  - {{name: ours, kind: linear, good: [{{path: {folder}/judged/kept.jsonl}}], bad: [{{path: plain.jsonl}}]}}
encoder: {{kind: {kind}, model: {folder}/encoder.yaml, pooling: mean, epochs: 1, batch: 32}}
run: {{device: cpu}}
"""


def settings(folder: Path, kind: str) -> RaterRecipe:
    """Settings whose encoder is `encoder` in the folder, where two files of documents lie, too."""
    save_encoder(folder / "encoder")
    (folder / "encoder.yaml").write_text(
        "name: tiny\nfamily: embedding\nrole: embedding\nmodel: encoder\nlicence: none\nsource: here\n"
        "description: random\ninput: {pooling: mean, window: 48}\noutput: {kind: vector}\n",
        "utf-8",
    )
    (folder / "parallel").mkdir()
    for name in ("tico", "ntrex"):
        (folder / "parallel" / f"{name}.jsonl").write_text("{}\n", "utf-8")
    (folder / "rater.yaml").write_text(SETTINGS.format(folder=folder, kind=kind), "utf-8")
    return load_rater(str(folder / "rater.yaml"))


def world(unread: int = 0) -> tuple[Texts, Pairs]:
    """Documents in English and German, both with the same words; the last 16 are held out, and of as many as
    `unread` of these the German text has nothing that an encoder could read."""
    made, share = some_texts(SOURCES)
    german = [f"{t} {t.split()[0]}" for t in made.text]
    german[SOURCES - unread :] = ["\u200b"] * unread
    ids = [f"{code}{i}" for code in ("en", "de") for i in range(SOURCES)]
    texts = Texts(
        ids=tuple(ids), source=tuple(i[2:] for i in ids), language=tuple(i[:2] for i in ids),
        origin=("",) * SOURCES + tuple(ids[:SOURCES]), text=(*made.text, *german),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    a, b = rng.integers(SOURCES, size=(2, 400))
    held = a >= SOURCES - HELD
    good = (a != b) & (held == (b >= SOURCES - HELD))
    a, b, held = a[good], b[good], held[good]
    left, right = rng.integers(2, size=(2, len(a)))
    kind = np.where(left == right, MONO, CROSS).astype(np.int8)
    pairs = Pairs(
        a=(a + SOURCES * left).astype(np.int32), b=(b + SOURCES * right).astype(np.int32), kind=kind,
        p=(share[a] > share[b]).astype(np.float64), weight=np.ones(len(a)), held=held,
    )  # fmt: skip
    return texts, pairs


@pytest.mark.parametrize("kind", ["hashed", "frozen", "finetune"])
def test_a_card_says_what_a_rater_and_its_voters_have_learnt_from(kind: str, tmp_path: Path) -> None:
    recipe = settings(tmp_path, kind)
    train_tier(recipe, tmp_path / "out", *world(), None, vectors=tmp_path / "vectors")
    card = load_card(str(tmp_path / "out/model/card.yaml"))
    own = ("parallel/ntrex.jsonl", "parallel/tico.jsonl", "judged/kept.jsonl", f"{tmp_path.name}/plain.jsonl")
    assert card.trained_on == (*own, *load_card("dclm-fasttext").trained_on)
    assert len(circularity(card.trained_on, ["/data/tico.jsonl", "teknium/OpenHermes-2.5", "other"])) == 2
    if kind == "finetune":
        assert card.trained_languages == ("de", "en")
        assert card.languages == ("*",), "others are scored, too"


def test_documents_that_share_text_are_on_one_side_where_settings_are_chosen() -> None:
    """A hundred documents, each under two names with other words around the run that they share."""
    run = [" ".join(f"w{i}x{k}" for k in range(13)) for i in range(100)]
    ids = [f"{twin}{i}" for twin in "ab" for i in range(100)]
    text = [f"{twin} {run[i]} {twin}{i}" for twin in "ab" for i in range(100)]
    texts = Texts(
        ids=tuple(ids), source=tuple(ids), origin=("",) * 200, language=("en",) * 200, text=tuple(text)
    )
    rng = np.random.default_rng(0)
    a = np.arange(200, dtype=np.int32)[rng.permutation(2_000) % 200]
    b = ((a + rng.integers(1, 200, 2_000)) % 200).astype(np.int32)
    pairs = Pairs(
        a=a, b=b, p=np.ones(2_000), weight=np.ones(2_000), kind=np.full(2_000, MONO, np.int8),
        held=np.zeros(2_000, np.bool_),
    )  # fmt: skip
    inner = inner_split(texts, pairs, 0)
    held, rest = (
        {int(row) % 100 for side in (inner.a, inner.b) for row in side[part]}
        for part in (inner.held, ~inner.held)
    )
    assert held
    assert not held & rest
    assert len(held | rest) == 100


def prepared(folder: Path, texts: Texts, pairs: Pairs) -> Path:
    """Write what the step `pairs` leaves."""
    folder.mkdir()
    values = np.arange(len(texts), dtype=np.float32)[:, None]
    write_texts(folder / "texts.parquet", texts)
    write_pairs(folder / "pairs.parquet", pairs, texts)
    write_ratings(folder / "ratings.parquet", Ratings(names=("web",), values=values), texts)
    return folder


@pytest.mark.parametrize("kind", ["frozen", "finetune"])
def test_another_encoder_under_the_same_name_is_noticed(kind: str, tmp_path: Path) -> None:
    recipe = settings(tmp_path, kind)
    folder = prepared(tmp_path / "out", *world())
    first = train_rater(recipe, folder, "pairs")
    stamp = (folder / "model/card.yaml").stat().st_mtime_ns
    assert train_rater(recipe, folder, "pairs").request == first.request
    assert (folder / "model/card.yaml").stat().st_mtime_ns == stamp, "nothing was trained"
    weights = tmp_path / "encoder/model.safetensors"
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    second = train_rater(recipe, folder, "pairs")
    assert second.request != first.request
    assert second.digest != first.digest


def test_a_text_that_cannot_be_read_has_no_part_in_report_and_offsets(tmp_path: Path) -> None:
    """Four German texts of the sixteen documents that are held out: no number of theirs is made up."""
    texts, pairs = world(unread=4)
    folder = prepared(tmp_path / "out", texts, pairs)
    found = train_rater(settings(tmp_path, "frozen"), folder, "pairs")
    assert found.unread == {"no_tokens": 4}
    german, english = found.card.languages
    assert (german.language, german.texts, german.unread) == ("de", 12, 4)
    assert (english.texts, english.unread) == (16, 0)
    assert german.parallel is not None
    assert german.parallel.mse.n == 12
    assert found.offsets is not None
    assert {one.language: one.sources for one in found.offsets.languages} == {"de": 12, "en": 12}
    assert found.card.warnings[0].startswith(
        "4 of 96 texts have no score; left out are 4 that would be judged"
    )


def numbers(model: Path) -> bytes:
    """All weights of a rater, whatever order its file has them in."""
    found = {name: value for path in model.rglob("*.safetensors") for name, value in load_file(path).items()}
    return b"".join(found[name].tobytes() for name in sorted(found))


@pytest.mark.parametrize("kind", ["frozen", "finetune"])
def test_a_call_killed_before_its_report_leaves_none_of_other_settings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A is trained, B stops between its rater and its report: A is trained again, to the same numbers."""
    recipe = settings(tmp_path, kind)
    folder = prepared(tmp_path / "out", *world())
    first = train_rater(recipe, folder, "pairs")
    before = numbers(folder / "model")

    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("quadmix.raters.training._report", killed)
        with pytest.raises(OSError, match="killed"):
            train_rater(recipe.model_copy(update={"seed": 1}), folder, "pairs")
    assert numbers(folder / "model") != before, "the rater of B"
    again = train_rater(recipe, folder, "pairs")
    assert numbers(folder / "model") == before
    assert again.request == first.request


def test_a_report_beside_another_rater_is_not_returned(tmp_path: Path) -> None:
    recipe = settings(tmp_path, "frozen")
    texts, pairs = world()
    for name, seed in (("one", 0), ("two", 1)):
        folder = prepared(tmp_path / name, texts, pairs)
        train_rater(recipe.model_copy(update={"seed": seed}), folder, "pairs")
    own, other = (tmp_path / name / "model" for name in ("one", "two"))
    before = numbers(own)
    assert numbers(other) != before
    shutil.rmtree(own)
    shutil.copytree(other, own)
    train_rater(recipe, tmp_path / "one", "pairs")
    assert numbers(own) == before


def test_a_head_is_refused_over_another_encoder_of_the_same_width(tmp_path: Path) -> None:
    texts, pairs = world()
    train_tier(
        settings(tmp_path, "frozen"), tmp_path / "out", texts, pairs, None, vectors=tmp_path / "vectors"
    )
    card = tmp_path / "out/model/card.yaml"
    some = texts.take(range(4))
    assert np.isfinite(score_texts(load_rater_model(card, "cpu"), some)).all()
    weights = tmp_path / "encoder/model.safetensors"
    save_file({name: -value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    other = load_rater_model(card, "cpu")
    with pytest.raises(InputError, match=r"encoder lies 'tiny' with .*or train the rater again"):
        score_texts(other, some)
    facts = card.parent / "rater.json"
    kept = read_json(facts)
    del kept["embedder"]
    write_json(facts, kept)
    unpinned = load_card(str(card)).model_copy(update={"files": {}})
    save_card(card, unpinned)
    assert np.isfinite(score_texts(load_rater_model(card, "cpu"), some)).all(), "written without the digest"
