"""The same text under several ids, or a long run of words in several texts, does not straddle the split."""

from pathlib import Path

import orjson
import pytest
from parallel_world import make_world, write_settings

from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.related import COMMON, Related, related_sources
from quadmix.raters.table import Texts, read_pairs, read_texts
from quadmix.raters.telling import pairs_lines
from quadmix.recipe import load_rater

RUN = [f"word{chr(97 + i)}" for i in range(13)]


def documents(*texts: str) -> Texts:
    ids = tuple(f"s{i:02}" for i in range(len(texts)))
    return Texts(ids=ids, source=ids, origin=("",) * len(ids), language=("en",) * len(ids), text=texts)


def test_equal_words_and_runs_of_thirteen_join_and_so_do_chains() -> None:
    long, tail = " ".join(RUN), "v w u t s r q p o n m l k"
    found, counts = related_sources(
        documents("A short one.", "other", "a SHORT one", f"x {long} y", f"z {long}, {tail}",
                  tail, " ".join(RUN[:12]), "!!", "!?")
    )  # fmt: skip
    assert found == {
        "s00": "s00", "s01": "s01", "s02": "s00", "s03": "s03", "s04": "s03", "s05": "s03", "s06": "s06",
        "s07": "s07", "s08": "s08",
    }  # fmt: skip
    assert counts == Related(sources=5, groups=2, largest=3)


@pytest.mark.parametrize("many", [COMMON, COMMON + 1])
def test_a_formula_in_many_documents_joins_none(many: int) -> None:
    counts = related_sources(documents(*(f"{i} {' '.join(RUN)} {i}" for i in range(many))))[1]
    assert counts == (Related(sources=many, groups=1, largest=many) if many <= COMMON else Related())
    same = related_sources(documents(*[" ".join(RUN)] * many))[1]
    assert same.largest == many


def test_no_documents_and_translations_are_no_trouble() -> None:
    assert related_sources(documents()) == ({}, Related())
    texts = Texts(ids=("en/a", "xa/a", "en/b"), source=("a", "a", "b"), origin=("", "en/a", ""),
                  language=("en", "xa", "en"), text=("one", "two", "two"))  # fmt: skip
    assert related_sources(texts)[1] == Related()


def test_the_same_text_under_two_ids_stands_on_one_side_of_the_split(tmp_path: Path) -> None:
    rows = [orjson.loads(line) for line in make_world(tmp_path).read_bytes().splitlines()]
    rows += [row | {"id": f"again-{row['id']}", "same": f"again-{row['same']}"} for row in rows]
    path = tmp_path / "twice.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    recipe = load_rater(str(write_settings(tmp_path, path)), ["pairs.count=150"])
    folder = rater_folder(recipe)
    made = make_pairs(recipe, folder)
    texts = read_texts(folder / "texts.parquet")
    pairs = read_pairs(folder / "pairs.parquet", texts)
    sides = [
        {texts.source[i].removeprefix("again-") for side in (part.a, part.b) for i in side.tolist()}
        for part in (pairs.take(pairs.held), pairs.take(~pairs.held))
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert made.related == Related(sources=120, groups=60, largest=2)
    assert "warning: 120 documents share a text or a run" in "\n".join(pairs_lines(made))
