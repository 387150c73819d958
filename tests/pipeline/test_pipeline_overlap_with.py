"""Texts in many languages that the pool is held against, beside targets and benchmarks."""

from pathlib import Path

import numpy as np
import pytest
from tiny_run import demo_rows, tiny_settings, write_rows

from quadmix.annotate.run import AnnotationManifest, manifest_path
from quadmix.errors import InputError, RecipeError
from quadmix.io.atomic import read_json, read_value
from quadmix.pipeline import stages
from quadmix.pipeline.folder import identity_facts
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import run
from quadmix.recipe import check_recipe
from quadmix.types import Corpus

CHINESE = "水在标准大气压下于一百摄氏度沸腾，在零度结冰。"


def test_documents_with_a_passage_of_the_set_are_counted_and_kept_out_of_the_selection(
    tmp_path: Path,
) -> None:
    settings = tiny_settings(tmp_path)
    settings["annotate"]["exclude_overlap"] = True
    rows = demo_rows("pool.jsonl.zst", 200)
    for row in rows:
        row["length_score"] = 1.0
    rows[11]["text"] = f"before {CHINESE} after"
    write_rows(tmp_path / "pool-a.jsonl", rows)
    write_rows(tmp_path / "items.jsonl", [{"body": CHINESE}, {"body": rows[3]["text"][100:700]}])
    settings["annotate"]["overlap_with"] = [
        {"name": "zh", "path": str(tmp_path / "items.jsonl"), "text": "body"}
    ]
    recipe = check_recipe(settings)
    folder = run(recipe, until="annotate", progress=Progress(quiet=True)).folder
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    loaded = stages.load_table(folder, corpus, recipe)
    hit = np.flatnonzero(loaded.overlap & 1 << 1)  # the second set: after the target
    assert {3, 11} <= set(hit.tolist())
    assert (loaded.excluded[hit] != 0).all()
    manifest = read_value(manifest_path(folder), AnnotationManifest)
    assert manifest.overlap["texts:zh"] == len(hit)
    said = "\n".join(read_json(folder / "stages" / "annotate.json")["warnings"])
    assert f"annotate.overlap_with 'zh': {len(hit)} of 360 pool documents" in said


def test_a_recipe_without_such_sets_has_the_identity_of_before(tmp_path: Path) -> None:
    facts = identity_facts(check_recipe(tiny_settings(tmp_path)))
    assert not [name for name in facts if "overlap_with" in name]
    settings = tiny_settings(tmp_path)
    write_rows(tmp_path / "items.jsonl", [{"text": CHINESE}])
    settings["annotate"]["overlap_with"] = [{"name": "zh", "path": str(tmp_path / "items.jsonl")}]
    first = identity_facts(check_recipe(settings))
    write_rows(tmp_path / "items.jsonl", [{"text": CHINESE + "新"}])
    second = identity_facts(check_recipe(settings))
    assert {name for name in first if first[name] != second[name]} == {"files.annotate.overlap_with.zh"}


def test_sets_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    settings["annotate"]["overlap_with"] = [{"name": "zh", "path": str(tmp_path / "none.jsonl")}]
    with pytest.raises(InputError, match=r"annotate\.overlap_with\.zh"):
        run(check_recipe(settings), until="annotate", progress=Progress(quiet=True))
    write_rows(tmp_path / "items.jsonl", [{"text": "a"}])
    settings["annotate"]["overlap_with"] = [
        {"name": "zh", "path": str(tmp_path / "items.jsonl"), "text": "body"}
    ]
    with pytest.raises(InputError, match=r"overlap_with 'zh': .*row 0: no column 'body'; the row has text"):
        run(check_recipe(settings), until="annotate", progress=Progress(quiet=True))
    settings["annotate"]["overlap_with"] *= 2
    with pytest.raises(RecipeError, match="'zh' is used twice"):
        check_recipe(settings)
