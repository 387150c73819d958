"""Target files of a search: what is scored, on which items, with which weights; and the piece of recipe."""

from pathlib import Path

import orjson
import pytest
import yaml
from engine_world import standin
from tiny_run import tiny_settings, write_rows

from quadmix.corpus.targets import read_target
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError
from quadmix.evaluate.mubench.forms import questions
from quadmix.evaluate.mubench.load import load_task
from quadmix.evaluate.mubench.target_files import Native, TargetFiles, write_targets
from quadmix.io.atomic import write_text
from quadmix.pipeline.contamination import overlap_texts
from quadmix.proxy.targets import IGNORE, target_set
from quadmix.recipe import TargetSection, check_recipe

TASKS = ("snli", "mnli", "winogrande", "bmlama")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin(tmp_path_factory.mktemp("targets") / "bench", items=60)


@pytest.fixture(scope="module")
def made(data: Path) -> tuple[Path, TargetFiles]:
    out = data.parent / "targets"
    write_rows(data.parent / "native.jsonl", [{"body": f"native text {i}"} for i in range(5)])
    native = {"qab": Native(path=str(data.parent / "native.jsonl"), column="body")}
    return out, write_targets(data, out, tasks=TASKS, rows=16, weights={"qab": 2.0}, native=native)


def rows_of(out: Path, name: str) -> list[dict[str, str]]:
    return [orjson.loads(line) for line in (out / f"{name}.jsonl").read_bytes().splitlines()]


def test_only_items_of_the_part_target_are_in_it_the_same_in_every_language(made, data: Path) -> None:
    out, _ = made
    allowed = {t: set(load_task(data, t, "lighteval", split="target").ids) for t in TASKS}
    seen = []
    for language in ("qaa", "qab", "qac", "qad"):
        rows = rows_of(out, f"{language}-understanding")
        assert all(row["id"] in allowed[row["task"]] for row in rows)
        seen.append([(row["task"], row["id"]) for row in rows])
    assert all(ids == seen[0] for ids in seen)
    # half of the rows are WinoGrande, a quarter each of the two tasks of the NLI family
    counts = {task: sum(t == task for t, _ in seen[0]) for task in TASKS}
    assert counts == {"snli": 4, "mnli": 4, "winogrande": min(8, len(allowed["winogrande"])), "bmlama": 0}


def test_prompt_and_answer_are_those_of_the_right_option(made, data: Path) -> None:
    out, _ = made
    for language in ("qaa", "qad"):
        for name in ("understanding", "factual"):
            asked = {
                (task, q.id): q
                for task in TASKS
                for q in questions(
                    task, "lighteval", language, load_task(data, task, "lighteval").items[language]
                )
            }
            for row in rows_of(out, f"{language}-{name}"):
                q = asked[row["task"], row["id"]]
                assert row["prompt"] + row["answer"] == q.contexts[q.label] + q.continuations[q.label]
                assert row["answer"] == q.continuations[q.label]


def test_every_language_weighs_what_was_asked_and_its_targets_share_it(made) -> None:
    _, found = made
    weights = {t.name: t.weight for t in found.targets}
    assert weights["qaa-understanding"] == weights["qaa-factual"] == pytest.approx(1 / 2)
    assert weights["qab-native"] == weights["qab-factual"] == pytest.approx(2 / 3)
    assert sum(w for name, w in weights.items() if name.startswith("qab")) == pytest.approx(2)


def test_the_piece_of_recipe_is_read_as_written_and_its_answers_alone_are_scored(
    made, data: Path, tmp_path: Path
) -> None:
    out, found = made
    piece = yaml.safe_load(Path(found.fragment).read_text(encoding="utf-8"))
    settings = tiny_settings(tmp_path)
    for one in (*piece["targets"], *piece["annotate"]["overlap_with"]):
        assert Path(one["path"]).is_file()
        assert Path(one["path"]).is_absolute()  # the piece can go into a recipe in any folder
    settings["targets"] = piece["targets"]
    settings["annotate"] |= piece["annotate"]
    recipe = check_recipe(settings)
    assert [t.name for t in recipe.targets] == [t.name for t in found.targets]
    target = read_target(next(t for t in recipe.targets if t.name == "qad-factual"), seed=0)
    write_text(tmp_path / "t.json", train_tokenizer(list(target.texts()), 300))
    scored = target_set(target, Tokenizer.load(tmp_path / "t.json"), 64)
    assert scored.bytes.tolist() == [len(row["answer"].encode()) for row in rows_of(out, "qad-factual")]
    labels = scored.labels[scored.row == 0]
    answer = Tokenizer.load(tmp_path / "t.json").decode(labels[labels != IGNORE].tolist())
    assert answer == target.answers[0]
    texts = overlap_texts([], [], recipe.annotate.overlap_with)
    assert set(texts) == {f"texts:mubench-{c}" for c in ("qaa", "qab", "qac", "qad")}


def test_the_pool_is_held_against_all_items_of_every_part_and_the_development_split(made, data: Path) -> None:
    out, found = made
    rows = {row["text"] for row in rows_of(out, "texts-qac")}
    count = 0
    for task in TASKS:
        for split in ("test", "dev"):
            items = load_task(data, task, "lighteval", ["qac"], split).items["qac"]
            asked = questions(task, "lighteval", "qac", items)
            assert {q.contexts[q.label] + q.continuations[q.label] for q in asked} <= rows
            count += len(items)
    assert found.texts["qac"] == count


def test_what_does_not_belong_to_the_languages_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="language 'de' is given a weight or native text, but is not among"):
        write_targets(data, tmp_path / "a", tasks=["bmlama"], weights={"de": 1.0})
    write_rows(tmp_path / "n.jsonl", [{"text": "x"}])
    native = {"qaa": Native(path=str(tmp_path / "n.jsonl"), column="body")}
    with pytest.raises(InputError, match=r"native text of 'qaa': .*has no column 'body'"):
        write_targets(data, tmp_path / "b", tasks=["bmlama"], native=native)


def test_a_target_of_the_benchmark_is_a_target_like_any_other(made) -> None:
    out, _ = made
    section = TargetSection(
        name="x", path=str(out / "qaa-factual.jsonl"), prompt="prompt", answer="answer", limit=3
    )
    assert len(read_target(section, seed=0).answers) == 3
