"""Selection per cell (language, topic) from tables of scores, against a slow version of the same."""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from quadmix.annotate.annotator import Scored
from quadmix.cli.main import app
from quadmix.errors import BudgetError, InputError, QuadmixError, RecipeError
from quadmix.raters import scored
from quadmix.raters.scoring import Columns, score_files
from quadmix.raters.selecting import Budget, select_scored
from quadmix.recipe.cards import CardInput
from quadmix.rng import keyed_uniform

TOPICS = ["news", "science", "stories", "tiny", None]


def documents(seed: int = 0, count: int = 900) -> list[dict[str, Any]]:
    """Stories score low, science high; `tiny` is a rare topic, some documents have no topic or no score."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        topic = TOPICS[rng.choice(5, p=[0.4, 0.3, 0.22, 0.03, 0.05])]
        score = round(float(rng.normal(loc={"stories": -3, "science": 1}.get(str(topic), 0))), 1)
        rows.append({
            "id": f"d{i}", "language": str(rng.choice(["de", "en", "sw"], p=[0.3, 0.6, 0.1])),
            "units": int(rng.lognormal(4, 1)) + 1, "topic": topic,
            "score": None if rng.random() < 0.05 else score,
        })  # fmt: skip
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def cli(*words: str):
    return CliRunner().invoke(app, ["rater", "select", *words])


def select(rows: list[dict[str, Any]], folder: Path, *words: str) -> tuple[set[str], dict[str, Any]]:
    """Return the ids in the file that the command writes, and what it reports."""
    out = folder / "taken.parquet"
    done = cli(write(folder / "scores.parquet", rows), "--out", str(out), "--cell", "topic", "--json", *words)
    assert done.exit_code == 0, (done.output, done.exception)
    taken = pq.read_table(out).to_pylist()
    topics = {r["id"]: r["topic"] for r in rows}
    assert all(topics[r["id"]] == r["topic"] for r in taken)
    return {r["id"] for r in taken}, json.loads(done.stdout)


def slow_cells(rows: list[dict[str, Any]], least: float) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells with their documents; "": the small ones and those without a topic."""
    units: dict[tuple[str, str], int] = defaultdict(int)
    for r in rows:
        units[r["language"], r["topic"] or ""] += r["units"] if r["score"] is not None else 0
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for r in rows:
        name = r["topic"] or ""
        own = name if name and units[r["language"], name] >= least else ""
        cells[r["language"], own].append(r)
    return cells


def best_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    known = [r for r in rows if r["score"] is not None]
    return sorted(known, key=lambda r: (-r["score"], float(keyed_uniform(0, [r["id"]], "ties")[0])))


def slow_take(rows: list[dict[str, Any]], budget: float, held: set[str]) -> None:
    """Add the ids of the best documents that are not held yet, until the budget is reached."""
    spent = 0
    for r in best_first(rows):
        if spent >= budget:
            return
        if r["id"] not in held:
            held.add(r["id"])
            spent += r["units"]


def scored_units(rows: list[dict[str, Any]]) -> int:
    return sum(r["units"] for r in rows if r["score"] is not None)


def slow_select(rows: list[dict[str, Any]], least: float, share: float, floor: float | None) -> set[str]:
    held: set[str] = set()
    for mine in slow_cells(rows, least).values():
        slow_take(mine, (share if floor is None else floor) * scored_units(mine), held)
    if floor is not None:
        for code in {r["language"] for r in rows}:
            own = [r for r in rows if r["language"] == code]
            spent = sum(r["units"] for r in own if r["id"] in held)
            slow_take(own, share * scored_units(own) - spent, held)
    return held


@pytest.mark.parametrize(("least", "share"), [(2_000, 0.1), (0, 0.25), (1e9, 0.1)])
def test_every_cell_gives_the_same_share_as_its_language(tmp_path: Path, least: float, share: float) -> None:
    rows = documents()
    taken, found = select(rows, tmp_path, "--share", str(share), "--cell-min", str(least))
    assert taken == slow_select(rows, least, share, None)
    cells = slow_cells(rows, least)
    assert {(c["language"], c["cell"]) for c in found["cells"]} == set(cells)
    for c in found["cells"]:
        mine = cells[c["language"], c["cell"]]
        kept = [r for r in mine if r["id"] in taken]
        assert c["pool_units"] == scored_units(mine)
        assert c["kept_units"] == sum(r["units"] for r in kept)
        assert c["share"] == pytest.approx(c["kept_units"] / c["pool_units"])
        assert c["budget"] == pytest.approx(share * c["pool_units"])
        assert 0 <= c["kept_units"] - c["budget"] + 1e-9 <= max(r["units"] for r in kept)
        assert (c["documents"], c["pool_documents"]) == (len(kept), len(mine))
        assert c["unscored"] == sum(r["score"] is None for r in mine)
        assert c["threshold"] == min(r["score"] for r in kept)


def test_small_cells_and_documents_without_a_topic_are_counted(tmp_path: Path) -> None:
    rows = documents()
    _, found = select(rows, tmp_path, "--cell-min", "2000")
    assert found["by"] == {"column": "topic", "least": 2000.0, "floor": None}
    kept = {(c["language"], c["cell"]) for c in found["cells"]}
    for c in found["cells"]:
        own = {r["topic"] for r in rows if r["language"] == c["language"] and r["topic"]}
        small = {name for name in own if (c["language"], name) not in kept}
        missing = sum(r["topic"] is None for r in rows if r["language"] == c["language"])
        assert (c["merged"], c["unnamed"]) == ((len(small), missing) if not c["cell"] else (0, 0))
    assert ("en", "tiny") not in kept
    text = cli(str(tmp_path / "scores.parquet"), "--out", str(tmp_path / "x"), "--cell", "topic",
               "--cell-min", "2000").output  # fmt: skip
    missing = sum(r["topic"] is None for r in rows)
    assert f"{missing} documents have no 'topic'" in text
    assert f"{sum(c['merged'] for c in found['cells'])} smaller ones" in text


def test_a_floor_keeps_of_every_cell_and_gives_the_rest_to_the_best(tmp_path: Path) -> None:
    rows = documents()
    plain = tmp_path / "plain.parquet"
    assert cli(write(tmp_path / "scores.parquet", rows), "--out", str(plain)).exit_code == 0
    without = {r["id"] for r in pq.read_table(plain).to_pylist()}
    assert not any(r["id"] in without for r in rows if r["topic"] == "stories"), "what the floor is for"
    taken, found = select(rows, tmp_path, "--floor", "0.04", "--cell-min", "500")
    assert taken == slow_select(rows, 500, 0.1, 0.04)
    assert all(c["share"] >= 0.04 for c in found["cells"])
    assert {c["share"] > 0.1 for c in found["cells"]} == {True, False}
    for one in found["languages"]:
        own = [r for r in rows if r["language"] == one["language"]]
        assert one["budget"] == pytest.approx(0.1 * scored_units(own))
        largest = max(r["units"] for r in own if r["id"] in taken)
        cells = sum(c["language"] == one["language"] for c in found["cells"])
        assert -1e-6 <= one["tokens"] - one["budget"] <= cells * largest


def test_with_the_share_of_the_language_as_floor_cells_get_equal_shares(tmp_path: Path) -> None:
    rows = documents(1)
    equal, _ = select(rows, tmp_path, "--cell-min", "0")
    floored, _ = select(rows, tmp_path, "--cell-min", "0", "--floor", "0.1")
    assert floored == equal


@pytest.mark.parametrize("name", ["top", "sample", "threshold"])
def test_neither_the_order_of_rows_nor_of_files_changes_a_selection(tmp_path: Path, name: str) -> None:
    rows, how = documents(2), ["--how", name, "--seed", "3"]
    floor = [] if name == "threshold" else ["--floor", "0.05"]
    once, _ = select(rows, tmp_path, "--cell-min", "300", *how, *floor)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    mixed = [rows[i] for i in order]
    files = [write(tmp_path / "b.parquet", mixed[:500]), write(tmp_path / "a.parquet", mixed[500:])]
    out = tmp_path / "again.parquet"
    done = cli(*files, "--out", str(out), "--cell", "topic", "--cell-min", "300", *how, *floor)
    assert done.exit_code == 0, done.exception
    assert {r["id"] for r in pq.read_table(out).to_pylist()} == once


def test_another_seed_draws_other_documents_within_the_same_budgets(tmp_path: Path) -> None:
    rows = documents(2)
    how = ["--cell-min", "300", "--how", "sample"]
    (one, first), (two, second) = (select(rows, tmp_path, *how, "--seed", s) for s in ("1", "2"))
    assert one != two
    assert [c["budget"] for c in first["cells"]] == [c["budget"] for c in second["cells"]]


def test_a_threshold_keeps_the_same_share_of_documents_of_every_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{code}-{topic}-{i}", "language": code, "units": 5, "topic": f"t{topic}",
         "score": float(rng.normal() + topic)}
        for code in ("de", "en") for topic in range(12) for i in range(30)
    ]  # fmt: skip
    _, found = select(rows, tmp_path, "--how", "threshold", "--share", "0.2", "--cell-min", "1")
    assert [c["documents"] for c in found["cells"]] == [6] * 24
    assert all(c["budget"] is None for c in found["cells"])


def test_a_language_without_a_part_is_left_out_floor_or_not(tmp_path: Path) -> None:
    rows = documents()
    taken, found = select(rows, tmp_path, "--part", "de=1", "--units", "1000", "--floor", "0.01",
                          "--cell-min", "100")  # fmt: skip
    assert {r["language"] for r in rows if r["id"] in taken} == {"de"}
    assert {c["kept_units"] for c in found["cells"] if c["language"] != "de"} == {0}


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["--cell", "genre"], InputError, "there is no column 'genre'.*--carry genre"),
        (["--cell", "empty"], InputError, "column 'empty' is empty in all 900 documents"),
        (["--cell", "tags"], InputError, "column 'tags' holds list"),
        (["--cell", "units"], RecipeError, "--cell units: expected a column that says what"),
        (["--cell", "topic", "--floor", "0.2"], BudgetError, "in 3 of 3 languages: 'de' .*at most 0.1"),
        (["--cell", "topic", "--floor", "0"], RecipeError, "--floor is 0.0"),
        (["--cell", "topic", "--cell-min", "-1"], RecipeError, "--cell-min is -1"),
        (["--cell", "topic", "--floor", "0.1", "--how", "threshold"], RecipeError, "it reads no --floor"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, words: list[str], error: type[QuadmixError], says: str
) -> None:
    write(tmp_path / "s.parquet", [{**r, "empty": " ", "tags": ["a"]} for r in documents()])
    with pytest.raises(error, match=says):
        raise cli(str(tmp_path / "s.parquet"), "--out", str(tmp_path / "x.parquet"), *words).exception
    assert not (tmp_path / "x.parquet").exists()


def test_a_floor_without_cells_is_a_wrong_use(tmp_path: Path) -> None:
    table = write(tmp_path / "s.parquet", documents())
    for words in (["--floor", "0.1"], ["--cell-min", "5"]):
        assert cli(table, "--out", str(tmp_path / "x.parquet"), *words).exit_code == 2


def by_length() -> Any:
    """A rater that needs no model: longer is better."""
    card = SimpleNamespace(
        reads_language=False,
        name="length",
        reads_domains=(),
        family="test",
        input=CardInput(),
        languages=("*",),
        trained_languages=(),
    )
    return SimpleNamespace(
        asked=SimpleNamespace(placed=SimpleNamespace(card=card, base=None), settings=None),
        card=SimpleNamespace(digest="0"),
        score=lambda texts, _: Scored(values=np.array([len(t) for t in texts], np.float32), missing={}),
    )  # fmt: skip


def test_a_named_column_is_carried_through_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scored, "load_model", lambda *_: None)
    rows = [
        {"id": "a", "text": "one two", "topic": "news", "year": 1999},
        {"id": "b", "text": "three", "topic": None},
        {"id": "c", "text": "four five six", "topic": "science", "year": 2001},
    ]
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    out = tmp_path / "s.parquet"
    columns = Columns(in_language="en", carry=("topic", "year"))
    found = score_files(by_length(), [str(path)], out, columns)
    assert found.carried == {"topic": 1, "year": 1}
    table = pq.read_table(out)
    assert table["topic"].to_pylist() == ["news", None, "science"]
    assert table["year"].to_pylist() == ["1999", None, "2001"]
    assert table["score"].to_pylist() == [7.0, 5.0, 13.0]
    assert cli(str(out), "--out", str(tmp_path / "t.parquet"), "--cell", "topic").exit_code == 0
    for name, says in (("genre", "no such column; its first row has id"), ("units", "has a column of that")):
        with pytest.raises(InputError, match=says):
            score_files(by_length(), [str(path)], out, Columns(in_language="en", carry=(name,)))
    path.write_bytes(orjson.dumps({"id": "a", "text": "x", "topic": ["news"]}))
    with pytest.raises(InputError, match="row 0: column 'topic' holds list"):
        score_files(by_length(), [str(path)], out, Columns(in_language="en", carry=("topic",)))


def test_a_quantile_of_everything_is_refused_by_the_option_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^--share is 1, but --how threshold"):
        select_scored([], tmp_path / "best.parquet", budget=Budget(share=1.0), how="threshold")
