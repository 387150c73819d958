"""Models of cards in a whole run's annotation: real files, real workers, bad input, resume, the commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tiny_run import demo_rows, tiny_recipe, tiny_settings
from typer.testing import CliRunner

from quadmix.annotate.models.train_fasttext import FastTextTraining, train_fasttext
from quadmix.annotate.prepare import adopt_annotators
from quadmix.cli.main import app
from quadmix.errors import IdentityError, InputError, RecipeError
from quadmix.io.atomic import read_value
from quadmix.pipeline.raters import diagnose_run
from quadmix.pipeline.run import run
from quadmix.recipe import Recipe
from quadmix.types import Corpus

SMALL = FastTextTraining(dim=16, bucket=600_000, epochs=3, heldout=0.2)


@pytest.fixture(scope="module")
def rater(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fastText rater trained on the demo's reference text against its pool."""
    folder = tmp_path_factory.mktemp("rater")
    good = [r["text"][:1500] for r in demo_rows("reference.jsonl.zst", 60)]
    bad = [r["text"][:1500] for r in demo_rows("pool.jsonl.zst", 460)[400:]]
    train_fasttext(good, bad, folder, name="mine", training=SMALL)
    return folder


def recipe_with(folder: Path, rater: Path, **changes: Any) -> Recipe:
    criteria = [
        {"name": "rules", "kind": "heuristic"},
        {"name": "mine", "kind": "model", "model": str(rater / "card.yaml")},
    ]
    return tiny_recipe(folder, annotate__criteria=criteria, **changes)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def scores(folder: Path, name: str = "mine") -> np.ndarray:
    parts = sorted((folder / "annotations").glob("part-*.parquet"))
    return np.concatenate([pq.read_table(p)[f"score:{name}"].to_numpy() for p in parts])


def test_a_run_scores_with_a_model_as_the_library_does(tmp_path: Path, rater: Path) -> None:
    import fasttext

    done = run(recipe_with(tmp_path, rater), until="annotate")
    library = fasttext.load_model(str(rater / "model.bin"))
    rows = [json.loads(x) for f in ("pool-a", "pool-b") for x in lines_of(tmp_path / f"{f}.jsonl")]
    expected = []
    for row in rows:
        labels, values = library.predict(" ".join(row["text"].strip().splitlines()), k=2)
        expected.append(dict(zip(labels, values, strict=True))["__label__good"])
    np.testing.assert_allclose(scores(done.folder), np.clip(expected, 0, 1), atol=1e-6)
    manifest = json.loads((done.folder / "annotations" / "manifest.json").read_text())
    (card,) = [c for c in manifest["criteria"] if c["name"] == "mine"]
    assert (card["kind"], card["direction"]) == ("model:fasttext", "higher")


def test_executors_and_workers_change_nothing(tmp_path: Path, rater: Path) -> None:
    one = run(recipe_with(tmp_path / "a", rater), until="annotate").folder
    two = run(
        recipe_with(tmp_path / "b", rater, run__executor="processes", run__workers=2), until="annotate"
    ).folder
    names = sorted(p.name for p in (one / "annotations").glob("part-*.parquet"))
    assert len(names) > 2
    for name in names:
        assert (one / "annotations" / name).read_bytes() == (two / "annotations" / name).read_bytes()


def test_clusters_give_domains_without_labels_and_new_files_the_same(tmp_path: Path) -> None:
    changes = {"annotate__domain": {"kind": "clusters", "clusters": 6, "min_documents": 5}}
    first = run(tiny_recipe(tmp_path / "a", **changes), until="annotate").folder
    parts = sorted((first / "annotations").glob("part-*.parquet"))
    labels = [x for p in parts for x in pq.read_table(p)["domain"].to_pylist()]
    assert 3 <= len(set(labels)) <= 7
    truth = [r["domain_hint"] for r in demo_rows("pool.jsonl.zst", 360)]
    groups = [[t for x, t in zip(labels, truth, strict=True) if x == label] for label in sorted(set(labels))]
    pure = sum(max(Counter(group).values()) for group in groups)
    assert pure > 1.5 * max(Counter(truth).values())


def test_a_changed_file_is_refused(tmp_path: Path, rater: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("card.yaml", "model.bin"):
        (copy / name).write_bytes((rater / name).read_bytes())
    with (copy / "model.bin").open("r+b") as file:
        file.seek(2_000)
        file.write(b"\0\1\2\3")
    with pytest.raises(InputError, match=r"model\.bin.*expected.*"):
        run(recipe_with(tmp_path, copy), until="annotate")
    assert not list(tmp_path.glob("runs/*/annotations/*"))


def test_a_missing_folder_a_missing_card_and_a_column_that_is_not_there(tmp_path: Path, rater: Path) -> None:
    with pytest.raises(InputError, match=r"/no.* does not exist|/no "):
        run(
            tiny_recipe(
                tmp_path / "a",
                annotate__criteria=[
                    {
                        "name": "m",
                        "kind": "model",
                        "model": "dclm-fasttext",
                        "path": str(tmp_path / "nowhere"),
                    }
                ],
            ),
            until="annotate",
        )
    with pytest.raises(InputError, match="there is no card 'dclm-fastext'"):
        run(
            tiny_recipe(
                tmp_path / "b", annotate__criteria=[{"name": "m", "kind": "model", "model": "dclm-fastext"}]
            ),
            until="annotate",
        )
    card = yaml.safe_load((rater / "card.yaml").read_text())
    card["languages"], card["model"] = ["en"], str(rater / "model.bin")
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(card))
    criteria = [{"name": "m", "kind": "model", "model": str(own)}]
    with pytest.raises(InputError, match="the files have no column 'lang'"):
        run(
            tiny_recipe(tmp_path / "c", annotate__criteria=criteria, annotate__language="lang"),
            until="annotate",
        )


def test_a_model_that_scores_too_few_documents_stops_the_run(tmp_path: Path, rater: Path) -> None:
    """Never a default score: documents in another language have none, and the coverage says so."""
    settings = tiny_settings(tmp_path)
    for name in ("pool-a", "pool-b"):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in lines_of(path)]
        path.write_text(
            "".join(json.dumps(r | {"lang": "en" if i % 2 else "fr"}) + "\n" for i, r in enumerate(rows))
        )
    card = yaml.safe_load((rater / "card.yaml").read_text())
    card["languages"], card["model"] = ["en"], str(rater / "model.bin")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(card))
    settings["annotate"] |= {
        "language": "lang", "criteria": [{"name": "mine", "kind": "model", "model": "own.yaml"}],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["annotate", str(tmp_path / "recipe.yaml"), "--quiet"])
    assert result.exit_code == 1
    text = result.output + str(result.exception or "")
    manifest = json.loads(next(tmp_path.glob("runs/*/annotations/manifest.json")).read_text())
    assert manifest["missing"]["score:mine"] == {"language_outside_card": 180}
    assert "mine" in text
    assert "min_coverage" in text


def test_a_kill_in_the_middle_of_a_piece_costs_what_was_not_kept(tmp_path: Path, rater: Path) -> None:
    settings = tiny_settings(tmp_path, corpus__split_bytes=10_000_000, run__checkpoint_seconds=0)
    settings["annotate"]["criteria"] = [{"name": "mine", "kind": "model", "model": str(rater / "card.yaml")}]
    # more than one batch of a piece
    rows = [r for f in ("pool-a", "pool-b") for r in lines_of(tmp_path / f"{f}.jsonl")]
    many = [json.dumps(json.loads(r) | {"id": f"{i}"}) for i, r in enumerate(rows * 8)]
    (tmp_path / "pool-a.jsonl").write_text("\n".join(many) + "\n")
    (tmp_path / "pool-b.jsonl").unlink()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    command = [
        sys.executable,
        "-c",
        "from quadmix.cli.main import main; main()",
        "annotate",
        str(recipe),
        "--quiet",
    ]
    killed = subprocess.run(
        command, env=os.environ | {"QUADMIX_FAULT": "annotate.partial@2"}, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    (kept,) = tmp_path.glob("runs/*/annotations/.work/part-*.parquet")
    assert pq.read_table(kept).num_rows >= 1000
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    folder = next(tmp_path.glob("runs/*"))
    assert not (folder / "annotations" / ".work").exists()
    assert len(scores(folder)) == 2880
    assert np.isfinite(scores(folder)).all()


def test_a_plan_counts_the_models_time_and_names_those_that_are_not_here(tmp_path: Path, rater: Path) -> None:
    from quadmix.pipeline.rating import rating_seconds

    recipe = recipe_with(tmp_path, rater)
    seconds, absent = rating_seconds(recipe, 4e9, seconds=0.05)
    twice, _ = rating_seconds(recipe, 8e9, seconds=0.05)
    assert absent == ()
    assert seconds > 1  # a million documents
    assert 1 < twice / seconds < 4
    criteria = [{"name": "d", "kind": "model", "model": "dclm-fasttext"}]
    assert rating_seconds(tiny_recipe(tmp_path, annotate__criteria=criteria), 4e9, seconds=0.05) == (
        0.0, ("dclm-fasttext",),
    )  # fmt: skip


def unpinned(rater: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the rater whose card names no digests."""
    folder.mkdir()
    (folder / "model.bin").write_bytes((rater / "model.bin").read_bytes())
    card = yaml.safe_load((rater / "card.yaml").read_text())
    card |= {"files": {"model.bin": None}, **changes}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder


def test_a_model_that_changes_is_another_run(tmp_path: Path, rater: Path) -> None:
    copy = unpinned(rater, tmp_path / "copy")
    recipe = recipe_with(tmp_path, copy)
    folder = run(recipe, until="annotate").folder
    before = {p.name: p.read_bytes() for p in (folder / "annotations").glob("part-*")}
    data = bytearray((copy / "model.bin").read_bytes())
    data[-2] ^= 1  # the last bits of a weight
    (copy / "model.bin").write_bytes(data)
    with pytest.raises(IdentityError, match=r"files\.annotate\.mine\.model"):
        run(recipe, until="annotate")
    with pytest.raises(InputError, match="other models"):
        diagnose_run(folder)
    assert {p.name: p.read_bytes() for p in (folder / "annotations").glob("part-*")} == before


def test_another_corpus_is_scored_by_the_same_models_wherever_they_lie(tmp_path: Path, rater: Path) -> None:
    first = recipe_with(tmp_path / "a", unpinned(rater, tmp_path / "here"))
    source = run(first, until="annotate").folder
    moved = recipe_with(tmp_path / "b", unpinned(rater, tmp_path / "there"))
    corpus = read_value(source / "corpus" / "manifest.json", Corpus)
    shutil.rmtree(tmp_path / "here")
    adopted = adopt_annotators(source, tmp_path / "new", moved.annotate, corpus)
    scored = adopted.criteria[1].score(["some text"], pa.RecordBatch.from_pydict({"text": ["some text"]}))
    assert np.isfinite(scored.values).all()
    other = recipe_with(tmp_path / "c", unpinned(rater, tmp_path / "other", direction="lower"))
    with pytest.raises(RecipeError, match="the model of 'mine' has digest"):
        adopt_annotators(source, tmp_path / "newer", other.annotate, corpus)


def test_every_column_that_a_model_reads_must_be_there(tmp_path: Path, rater: Path) -> None:
    reads = {"input": {"template": "{url} {text}", "one_line": True}, "languages": ["en"]}
    copy = unpinned(rater, tmp_path / "copy", **reads)
    recipe = recipe_with(tmp_path, copy, annotate__language="domain_hint")
    with pytest.raises(InputError, match=r"the model of 'mine': the files have no column 'url'"):
        run(recipe, until="annotate")
