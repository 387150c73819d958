"""The step `pairs` on a small corpus: every label is the vote of the raters, every translation its own, and
what is lost is counted."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from parallel_world import LANGUAGES, make_world, translate, write_settings

from quadmix.codec import to_json
from quadmix.errors import InputError, RecipeError
from quadmix.raters import making
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.table import CROSS, MONO, PARALLEL, read_pairs, read_ratings, read_texts
from quadmix.raters.telling import pairs_lines
from quadmix.recipe import load_rater


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def make(tmp_path: Path, corpus: Path, *overrides: str):
    recipe = load_rater(str(write_settings(tmp_path, corpus)), overrides)
    folder = rater_folder(recipe)
    made = make_pairs(recipe, folder)
    texts = read_texts(folder / "texts.parquet")
    return (
        made,
        texts,
        read_pairs(folder / "pairs.parquet", texts),
        read_ratings(folder / "ratings.parquet", texts),
    )


def test_labels_are_the_votes_of_the_raters_in_every_language(tmp_path: Path, corpus: Path):
    made, texts, pairs, ratings = make(tmp_path, corpus)
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    origin = [place[o] if o else row for row, o in enumerate(texts.origin)]
    languages = set()
    for a, b, p, kind in zip(pairs.a, pairs.b, pairs.p, pairs.kind, strict=True):
        codes = texts.language[a], texts.language[b]
        languages |= set(codes)
        if kind == PARALLEL:
            assert p == 0.5
            assert origin[a] == origin[b]
            assert codes[0] != codes[1]
            continue
        assert (codes[0] == codes[1]) == (kind == MONO)
        ours, theirs = ratings.values[origin[a]], ratings.values[origin[b]]
        votes = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in zip(ours, theirs, strict=True)
                 if not (np.isnan(x) or np.isnan(y))]  # fmt: skip
        assert len(votes) >= 2
        assert p == pytest.approx(np.mean(votes))
    assert languages == {"en", *LANGUAGES}
    train = {
        k: int(((pairs.kind == i) & ~pairs.held).sum()) for i, k in enumerate(("mono", "cross", "parallel"))
    }
    assert made.made["train"] == train
    assert train["mono"] == train["cross"] == pytest.approx(2 * train["parallel"], abs=1)
    facts = made.directions[0]
    assert facts.labelled == facts.drawn - sum(facts.unlabelled.values()) - sum(facts.refused.values())


def test_a_translation_is_cut_where_its_original_is(tmp_path: Path, corpus: Path):
    _, texts, _, _ = make(tmp_path, corpus)
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    seen = 0
    for row, o in enumerate(texts.origin):
        if o:
            seen += 1
            assert texts.text[row] == translate(texts.text[place[o]], texts.language[row])
            assert texts.source[row] == texts.source[place[o]]
    assert seen > 100


def test_held_pairs_are_asked_in_every_language_and_share_no_source_with_training(
    tmp_path: Path, corpus: Path
):
    _, texts, pairs, _ = make(tmp_path, corpus, "transfer.without=[xb]")
    sources = [
        {texts.source[r] for side in (pairs.a, pairs.b) for r in side[pairs.held == held]}
        for held in (True, False)
    ]
    assert not sources[0] & sources[1]
    trained = {texts.language[r] for side in (pairs.a, pairs.b) for r in side[~pairs.held]}
    assert trained == {"en", "xa"}
    mono = pairs.held & (pairs.kind == MONO)
    count = {c: sum(texts.language[r] == c for r in pairs.a[mono]) for c in ("en", "xa", "xb")}
    assert count["en"] == count["xa"] == count["xb"] > 0
    assert (pairs.kind[~pairs.held] == CROSS).any()


def test_the_other_direction_labels_native_texts_by_their_translation(tmp_path: Path, corpus: Path):
    made, texts, pairs, ratings = make(tmp_path, corpus, "transfer.direction=M")
    english = {o: row for row, o in enumerate(texts.origin) if o}
    for a, b, p, kind in zip(pairs.a, pairs.b, pairs.p, pairs.kind, strict=True):
        if kind == PARALLEL:
            continue
        assert "en" not in (texts.language[a], texts.language[b])
        x, y = (ratings.values[english[texts.ids[r]]] for r in (a, b))
        votes = [1.0 if u > v else 0.5 if u == v else 0.0 for u, v in zip(x, y, strict=True)
                 if not (np.isnan(u) or np.isnan(v))]  # fmt: skip
        assert p == pytest.approx(np.mean(votes))
    assert made.directions[0].direction == "M"
    (tmp_path / "both").mkdir()
    both = make(tmp_path / "both", corpus, "transfer.direction=both")[0]
    assert [d.direction for d in both.directions] == ["E", "M"]


def test_the_same_settings_load_what_is_there_and_others_make_it_anew(tmp_path: Path, corpus: Path):
    first = make(tmp_path, corpus)[0]
    path = tmp_path / "raters/small/pairs.parquet"
    stamp = path.stat().st_mtime_ns
    assert to_json(make(tmp_path, corpus)[0]) == to_json(first)
    assert path.stat().st_mtime_ns == stamp
    other = make(tmp_path, corpus, "seed=3")[0]
    assert other.request != first.request
    assert other.digest != first.digest


def test_a_call_killed_among_its_tables_leaves_no_facts_of_other_settings(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
):
    """A is made, B stops before its last table: A is made again, to the same digest."""
    first = make(tmp_path, corpus)[0]
    folder = tmp_path / "raters/small"

    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(making, "write_pairs", killed)
        with pytest.raises(OSError, match="killed"):
            make(tmp_path, corpus, "seed=3")
    assert not (folder / "pairs.json").exists()
    again, _, pairs, _ = make(tmp_path, corpus)
    assert again.digest == first.digest
    assert int((~pairs.held).sum()) == sum(first.made["train"].values())


def test_tables_that_are_not_those_of_the_facts_are_made_anew(tmp_path: Path, corpus: Path):
    first = make(tmp_path, corpus)[0]
    table = tmp_path / "raters/small/pairs.parquet"
    before = table.read_bytes()
    make(tmp_path, corpus, "seed=3", "name=other")
    table.write_bytes((tmp_path / "raters/other/pairs.parquet").read_bytes())
    assert table.read_bytes() != before
    assert make(tmp_path, corpus)[0].digest == first.digest
    assert table.read_bytes() == before
    table.unlink()
    make(tmp_path, corpus)
    assert table.read_bytes() == before


def test_another_translation_model_on_disk_makes_the_pairs_anew(tmp_path: Path, corpus: Path):
    """The digest of what was made changes with the files of a local model, and without it with nothing."""
    (tmp_path / "mt").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "mt" / name).write_bytes(b"{}")
    more = ["transfer.translator.kind=model", f"transfer.translator.path={tmp_path / 'mt'}"]
    recipe = load_rater(str(write_settings(tmp_path, corpus)), more)
    before = making.pairs_request(recipe)
    assert making.pairs_request(recipe) == before
    (tmp_path / "mt" / "model.safetensors").write_bytes(b"other weights")
    assert making.pairs_request(recipe) != before


def test_other_domains_are_another_digest(tmp_path: Path, corpus: Path):
    """The report audits by domain, and is loaded again by the digest of what it was made from."""
    rows = [orjson.loads(line) for line in corpus.read_bytes().splitlines()]
    for place, row in enumerate(rows):
        row |= {"topic": place % 3, "genre": place % 2}
    path = tmp_path / "domains.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    one, two = (make(tmp_path, path, f"texts.domain={name}")[0] for name in ("topic", "genre"))
    assert one.made == two.made
    assert one.digest != two.digest


def test_the_settings_are_kept_with_every_default_and_read_back_as_they_were(tmp_path: Path, corpus: Path):
    make(tmp_path, corpus, "pairs.max_uses=3")
    kept = tmp_path / "raters/small/recipe.resolved.yaml"
    asked = load_rater(str(tmp_path / "rater.yaml"), ["pairs.max_uses=3"])
    assert load_rater(str(kept)) == asked
    assert "least_voters: 2" in kept.read_text("utf-8"), "a default"


def test_the_order_of_the_rows_changes_nothing(tmp_path: Path, corpus: Path):
    first = make(tmp_path, corpus)[0]
    lines = corpus.read_bytes().splitlines()
    (tmp_path / "shuffled").mkdir()
    shuffled = tmp_path / "shuffled/corpus.jsonl"
    order = np.random.default_rng(0).permutation(len(lines))
    shuffled.write_bytes(b"\n".join(lines[i] for i in order) + b"\n")
    second = make(tmp_path / "shuffled", shuffled)[0]
    assert second.digest == first.digest


def test_bad_rows_are_counted_and_the_lines_say_so(tmp_path: Path, corpus: Path):
    lines = corpus.read_bytes().splitlines()
    lines += [
        orjson.dumps({"id": "x", "lang": "xa", "same": "s1", "text": "another text"}),
        b'{"lang": "en"}',
    ]
    lines += [orjson.dumps({"id": "y", "lang": "xb", "same": "s1000", "text": "  "})]
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    made = make(tmp_path, path)[0]
    assert made.rows == len(lines)
    assert (
        sum(made.languages.values()) + sum(n for d in made.dropped.values() for n in d.values()) == made.rows
    )
    text = "\n".join(pairs_lines(made))
    assert "dropped, xb: empty text 1" in text
    assert "dropped, xa: id and language twice, another text 1" in text
    assert "agreement of the raters" in text


def test_what_cannot_be_used_is_refused_with_its_name(tmp_path: Path, corpus: Path):
    with pytest.raises(InputError, match=r"'de'.*no document is in that language; found en, xa, xb"):
        make(tmp_path, corpus, "transfer.languages=[de]")
    with pytest.raises(InputError, match="have no column 'nope'"):
        make(tmp_path, corpus, "raters.0.column=nope")
    with pytest.raises(InputError, match=r"no text is in the original language 'eng'"):
        make(tmp_path, corpus, "transfer.source=eng")
    with pytest.raises(RecipeError, match="least_voters is 5, but there are 3 voters"):
        make(tmp_path, corpus, "pairs.least_voters=5")
    with pytest.raises(RecipeError, match=r"unknown key 'pairs.cuont'; did you mean 'count'"):
        make(tmp_path, corpus, "pairs.cuont=5")


def test_raters_who_all_abstain_are_named_with_counts(tmp_path: Path, corpus: Path):
    rows = [orjson.loads(line) for line in corpus.read_bytes().splitlines()]
    for row in rows:
        row.pop("web", None)
        row["edu"] = None
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    with pytest.raises(InputError, match="0 labelled pairs for training and 0 held out"):
        make(tmp_path, path, "raters.1.column=edu", "raters.2.kind=column", "raters.2.column=edu")


def test_a_weight_counts_in_the_vote(tmp_path: Path, corpus: Path):
    _, texts, pairs, ratings = make(tmp_path, corpus, "pairs.weights={edu: 3}")
    place = {id_: row for row, id_ in enumerate(texts.ids)}
    weights = [3.0, 1.0, 1.0]
    for a, b, p, kind in zip(pairs.a, pairs.b, pairs.p, pairs.kind, strict=True):
        if kind == PARALLEL:
            continue
        x, y = (ratings.values[place[texts.origin[r]] if texts.origin[r] else r] for r in (a, b))
        votes = [(w, 1.0 if u > v else 0.5 if u == v else 0.0) for u, v, w in zip(x, y, weights, strict=True)
                 if not (np.isnan(u) or np.isnan(v))]  # fmt: skip
        assert p == pytest.approx(sum(w * v for w, v in votes) / sum(w for w, _ in votes))
    with pytest.raises(RecipeError, match="'nobody'"):
        make(tmp_path, corpus, "pairs.weights={nobody: 3}")
