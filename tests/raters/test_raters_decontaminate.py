"""Documents that stand in a benchmark reach no pair, in no language, and are counted."""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parallel_world import make_world, write_settings

from quadmix.errors import InputError
from quadmix.raters.decontaminate import SHARES, VERSION_SHARES, drop_benchmarks
from quadmix.raters.making import make_pairs, rater_folder
from quadmix.raters.table import Texts, read_texts
from quadmix.raters.telling import pairs_lines
from quadmix.recipe import load_rater


def texts(*given: tuple[str, str, str]) -> Texts:
    """(source, language, text) of each."""
    return Texts(
        ids=tuple(f"{code}/{source}" for source, code, _ in given), source=tuple(s for s, _, _ in given),
        origin=("",) * len(given), language=tuple(c for _, c, _ in given), text=tuple(t for *_, t in given),
    )  # fmt: skip


def write(path: Path, rows: list[dict]) -> str:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return str(path)


WORDS = [f"word{chr(97 + i)}" for i in range(26)]
HINDI = "भारत की राजधानी नई दिल्ली में हर साल गणतंत्र दिवस पर बड़ी परेड होती है जिसे देखने लोग दूर से आते"
CHINESE = "春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少"
THAI = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและมีประชากรมากที่สุด"


@pytest.mark.parametrize(
    ("language", "benchmark", "found", "clean"),
    [
        ("en", " ".join(WORDS), f"x {' '.join(WORDS[5:18])} y", f"x {' '.join(WORDS[5:17])} y"),
        ("en", " ".join(WORDS), f"x {', '.join(WORDS[5:18]).upper()}! y", " ".join(WORDS[5:18][::-1])),
        ("hi", HINDI, " ".join(HINDI.split()[2:15]), " ".join(HINDI.split()[2:14])),
        ("zh", f"題目：{CHINESE}", f"他說{CHINESE[3:16]}了", f"他說{CHINESE[3:15]}了"),
        ("th", THAI, f"ว่า{THAI[4:40]}นะ", f"ว่า{THAI[4:26]}นะ"),
    ],
)
def test_a_run_is_thirteen_words_or_signs_and_longer_where_words_have_several_signs(
    tmp_path: Path, language: str, benchmark: str, found: str, clean: str
) -> None:
    path = write(tmp_path / "b.jsonl", [{"question": benchmark, "id": 3}])
    given = texts(("s", language, found), ("t", language, clean))
    cleaned = drop_benchmarks(given, [path])
    assert cleaned.texts.source == ("t",)
    assert cleaned.dropped == {language: {SHARES: 1}}


def test_every_string_of_a_row_is_searched_whatever_it_is_nested_in(tmp_path: Path) -> None:
    long = [" ".join(f"{word}{i}" for word in WORDS) for i in range(4)]
    rows = [{"q": long[0], "choices": {"text": [long[1], "no"], "label": ["A", "B"]}}]
    first = write(tmp_path / "a.jsonl", rows)
    second = str(tmp_path / "b.parquet")
    pq.write_table(pa.table({"deep": [[{"answers": [long[2]]}]], "none": [None]}), second)
    given = texts(*((str(i), "en", f"before {text} after") for i, text in enumerate(long)))
    cleaned = drop_benchmarks(given, [first, second])
    assert cleaned.texts.source == ("3",)
    counts = [(Path(b.path).name, b.texts, b.short, b.documents) for b in cleaned.benchmarks]
    assert counts == [("a.jsonl", 5, 3, 2), ("b.parquet", 1, 0, 1)]


def test_versions_of_a_document_leave_with_it_and_files_that_can_find_nothing_are_refused(
    tmp_path: Path,
) -> None:
    german = [f"wort{chr(97 + i)}" for i in range(26)]
    path = write(tmp_path / "b.jsonl", [{"q": " ".join(german)}])
    given = texts(("s", "en", " ".join(WORDS)), ("s", "de", " ".join(german)), ("t", "de", "etwas anderes"))
    cleaned = drop_benchmarks(given, [path])
    assert cleaned.texts.ids == ("de/t",)
    assert cleaned.dropped == {"de": {SHARES: 1}, "en": {VERSION_SHARES: 1}}
    short = write(tmp_path / "short.jsonl", [{"q": "Why is the sky blue?", "a": "Rayleigh"}])
    with pytest.raises(InputError, match=r"short.jsonl has 2 texts, none of 13 words or more"):
        drop_benchmarks(given, [path, short])


def test_no_pair_has_a_text_of_a_benchmark_and_the_counts_add_up(tmp_path: Path) -> None:
    corpus = make_world(tmp_path)
    rows = [orjson.loads(line) for line in corpus.read_bytes().splitlines()]
    rng = np.random.default_rng(4)
    asked: list[dict] = []
    for row in rows:
        words = row["text"].split()
        if row["lang"] == "en" and rng.random() < 0.2:
            at = int(rng.integers(0, len(words) - 20))
            asked.append({"question": "Complete: " + " ".join(words[at : at + 20])})
        if row["id"] == "xa11":
            asked.append({"question": row["text"]})
    write(tmp_path / "bench.jsonl", asked)
    path = write_settings(tmp_path, corpus)
    recipe = load_rater(str(path), ["texts.decontaminate=[bench.jsonl]"])
    made = make_pairs(recipe, rater_folder(recipe))

    def runs(text: str) -> set[tuple[str, ...]]:
        words = [w for w in text.lower().replace(":", " ").split() if w != "."]
        return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}

    known = set.union(*(runs(one["question"]) for one in asked))
    hit = {row["id"]: bool(known & runs(row["text"])) for row in rows}
    sources = {row["same"] for row in rows if hit[row["id"]]}
    assert 3 < len(sources) < 30
    assert "s11" in sources
    used = set(read_texts(rater_folder(recipe) / "texts.parquet").source)
    assert used
    assert not used & sources
    for code in ("en", "xa", "xb"):
        own = sum(hit[row["id"]] for row in rows if row["lang"] == code)
        counts = made.dropped[code]
        assert counts.get(SHARES, 0) == own
        assert counts.get(VERSION_SHARES, 0) == len(sources) - own
    assert sum(made.languages.values()) + 3 * len(sources) == made.rows
    assert f"benchmark bench.jsonl: {sum(hit.values())} documents share a run" in "\n".join(pairs_lines(made))
    (tmp_path / "bench.jsonl").write_bytes(orjson.dumps(asked[0]))
    assert make_pairs(recipe, rater_folder(recipe)).request != made.request, "another file is another request"
    write(tmp_path / "all.jsonl", [{"text": row["text"]} for row in rows])
    with pytest.raises(InputError, match="each of the 60 documents in 'en' shares a run of words"):
        make_pairs(load_rater(str(path), ["texts.decontaminate=[all.jsonl]"]), rater_folder(recipe))
