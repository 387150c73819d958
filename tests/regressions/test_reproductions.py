"""R1 to R6b of thirteen failures that were reproduced in other tools; here each must not happen.

Every test runs the real pipeline on files; its docstring says what the other tool did with the same input.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from regression_world import (
    KILL_POINTS,
    SUFFIXES,
    Begun,
    Reference,
    command,
    dataset_rows,
    documents,
    encode,
    encode_table,
    files_of,
    fill,
    home,
    pages,
    put,
    quarantine,
    quiet,
    recipe,
    settings,
    write,
)

from quadmix.annotate import heuristic
from quadmix.errors import (
    IdentityError,
    InputError,
    Interrupted,
    ScoreError,
)
from quadmix.io.atomic import read_json
from quadmix.materialise.verify import verify_run
from quadmix.pipeline import stages
from quadmix.types import DatasetManifest


def conserved(manifest: DatasetManifest) -> bool:
    ledger = manifest.ledger
    lost = sum(ledger.dropped.values()) + sum(ledger.quarantined.values())
    return ledger.rows_in == ledger.selected + lost


def test_r1_after_kill_and_relaunch_the_counts_are_of_the_whole_input(
    killed: Begun, reference: Reference, tmp_path: Path
) -> None:
    """datatrove: crash, relaunch: stats.json says 600 of 800 rows, those of the last session alone."""
    folder = killed.copy(tmp_path)
    manifest = killed.again(folder)
    assert manifest.ledger.rows_in == 240
    assert manifest.ledger == reference.manifest.ledger
    assert manifest.digest == reference.manifest.digest
    facts = [read_json(home(folder) / "stages" / f"{s}.json")["facts"] for s in ("corpus", "annotate")]
    assert [f["documents"] for f in facts] == [240, 240]


def test_r1_a_relaunch_in_the_middle_of_annotation_counts_all_pieces(
    tmp_path: Path, source: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datatrove: as above; here the first session ends after one of several pieces."""
    chosen = recipe(tmp_path, source, corpus__paths=[str(reference.pool)])
    calls: list[int] = []
    original = stages.annotate_split

    def stopped(task: Any) -> Any:
        calls.append(task.split)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(task)

    with monkeypatch.context() as patch:
        patch.setattr("quadmix.pipeline.applying.annotate_split", stopped)
        with pytest.raises(Interrupted):
            quiet(chosen, "materialise")
    assert len(list((home(tmp_path) / "annotations").glob("part-*"))) == 1
    manifest = quiet(chosen, "materialise").manifest
    assert manifest is not None
    assert manifest.digest == reference.manifest.digest
    facts = read_json(home(tmp_path) / "stages" / "annotate.json")["facts"]
    assert facts["documents"] == 240
    assert facts["tokens"] == manifest.ledger.tokens_in


@pytest.mark.parametrize("killed", KILL_POINTS[:1], indirect=True)
def test_r2_a_relaunch_with_other_workers_never_duplicates(
    killed: Begun, reference: Reference, tmp_path: Path
) -> None:
    """datatrove: relaunch with tasks 4 -> 8 in one folder: exit 0, 900 rows of which 800 unique."""
    folder = killed.copy(tmp_path)
    manifest = killed.again(folder, run__workers=2, run__executor="processes")
    assert manifest.digest == reference.manifest.digest
    rows = Counter((r["quadmix"]["doc_id"], r["quadmix"]["copy_index"]) for r in dataset_rows(home(folder)))
    assert sum(rows.values()) == manifest.ledger.copies
    assert max(rows.values()) == 1


@pytest.mark.parametrize("killed", KILL_POINTS[::2], indirect=True)
def test_r2_a_relaunch_with_other_pieces_is_refused_and_names_the_field(
    killed: Begun, tmp_path: Path
) -> None:
    """datatrove: as above; how the input is cut into pieces is part of the run's identity."""
    folder = killed.copy(tmp_path)
    with pytest.raises(IdentityError, match=r"recipe\.corpus\.split_bytes: folder has 20000, now 9000"):
        killed.again(folder, corpus__split_bytes=9000)
    assert files_of(home(folder)) == killed.files


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"seed": 1}, ["recipe.seed"]),
        ({"budget__share": 0.4}, ["recipe.budget.share"]),
        (
            {"annotate__min_coverage": 0.5, "materialise__format": "jsonl.zst"},
            ["recipe.annotate.min_coverage", "recipe.materialise.format"],
        ),
    ],
)
def test_r3_another_recipe_in_the_same_folder_is_refused_with_the_fields(
    changes: dict[str, Any], fields: list[str], reference: Reference, tmp_path: Path
) -> None:
    """datatrove: another pipeline, same logging_dir: exit 0 and no output at all."""
    folder = reference.copy(tmp_path)
    with pytest.raises(IdentityError, match="belongs to another run") as raised:
        reference.again(folder, **changes)
    assert all(f in str(raised.value) for f in fields)
    assert files_of(home(folder)) == reference.files


def test_r3_other_inputs_under_the_same_names_are_refused_and_the_same_elsewhere_are_not(
    source: Path, reference: Reference, tmp_path: Path
) -> None:
    """datatrove: as above; what counts is what the files hold, not where they lie."""
    folder = reference.copy(tmp_path)
    fill(folder)
    assert write(folder, source) == reference.manifest
    put(folder, "b.jsonl.zst", pages(120, first=700))
    with pytest.raises(IdentityError, match=r"files\.corpus: folder has '\w+', now '\w+'"):
        write(folder, source)


def with_bad_byte(suffix: str) -> bytes:
    """100 good documents and one whose text is not UTF-8, in the middle."""
    key = suffix.replace(".", "-")
    rows = [
        {k: v for k, v in p.items() if k != "meta"} | {"id": f"{key}-{i}"} for i, p in enumerate(pages(101))
    ]
    if suffix not in ("parquet", "arrow"):
        lines = [encode([r], "jsonl").rstrip(b"\n") for r in rows]
        lines[50] = lines[50].replace("é".encode(), b"\xe9")
        return encode(lines, suffix)
    table = pa.Table.from_pylist(rows)
    values = [r["text"].encode() for r in rows]
    values[50] = values[50].replace("é".encode(), b"\xe9")
    binary = pa.array(values, pa.binary())
    text = pa.StringArray.from_buffers(len(values), *binary.buffers()[1:], binary.buffers()[0])
    return encode_table(table.set_column(table.schema.names.index("text"), "text", text), suffix)


def test_r4_one_bad_byte_costs_one_row_in_every_format(tmp_path: Path, source: Path) -> None:
    """datatrove: one line of 101 has a bad byte: the 100 good documents are lost, in no counter."""
    (tmp_path / "in").mkdir()
    for suffix in SUFFIXES:
        (tmp_path / "in" / f"x.{suffix}").write_bytes(with_bad_byte(suffix))
    manifest = write(tmp_path, source)
    assert conserved(manifest)
    assert manifest.ledger.rows_in == 101 * len(SUFFIXES)
    assert manifest.ledger.quarantined == {"invalid_utf8": len(SUFFIXES)}
    bad = quarantine(home(tmp_path))
    assert sorted(Path(r["path"]).name for r in bad) == sorted(f"x.{s}" for s in SUFFIXES)
    assert {(r["row"], r["reason"], b"\xe9" in r["data"]) for r in bad} == {(50, "invalid_utf8", True)}
    expected = {f"{s.replace('.', '-')}-{i}" for s in SUFFIXES for i in range(101) if i != 50}
    assert {d["doc_id"] for d in documents(home(tmp_path))} == expected
    assert all(c.ok for c in verify_run(home(tmp_path)).checks)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
@pytest.mark.parametrize("cut", [0.02, 0.5, 0.9, -1])
def test_r5_a_file_cut_short_fails_the_run_by_name(tmp_path: Path, suffix: str, cut: float) -> None:
    """datatrove: a .jsonl.zst cut in half gives 2,410 of 5,000 rows, "completed"."""
    put(tmp_path, "good.jsonl", pages(20, first=700))
    path = put(tmp_path, f"cut.{suffix}", pages(500))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut) if cut > 0 else int(cut)])
    with pytest.raises(InputError, match=rf"cut\.{suffix}' is truncated or corrupt .*fetch it again"):
        quiet(recipe(tmp_path), "annotate")
    there = files_of(home(tmp_path))
    assert "corpus/manifest.json" not in there
    assert not any(n.startswith(("annotations/", "dataset/")) for n in there)
    path.write_bytes(data)  # mended: another run, since its input is another
    assert quiet(recipe(tmp_path, name="mended"), "annotate").folder.name == "mended"
    assert len(documents(tmp_path / "runs" / "mended")) == 520


def test_r5_the_command_exits_with_an_error(tmp_path: Path) -> None:
    """datatrove: as above, with exit 0."""
    path = put(tmp_path, "a.jsonl.zst", pages(200))
    path.write_bytes(path.read_bytes()[:-200])
    done = command(tmp_path, settings(tmp_path), "annotate")
    assert done.returncode == 1
    assert "a.jsonl.zst' is truncated or corrupt" in done.stderr
    assert "Traceback" not in done.stderr


POISON = "This page is POISON."


def poisoned(folder: Path, count: int = 2000) -> list[str]:
    """Write documents of which one breaks an annotator; return their ids."""
    rows = pages(count)
    rows[count // 2 + 3]["text"] += POISON
    put(folder, "a.jsonl", rows)
    return [r["id"] for r in rows]


def break_rules(monkeypatch: pytest.MonkeyPatch, outcome: float | Exception) -> None:
    original = heuristic.heuristic_scores

    def broken(texts: Sequence[str]) -> np.ndarray:
        found = original(texts)
        for i in (i for i, text in enumerate(texts) if POISON in text):
            if isinstance(outcome, Exception):
                raise outcome
            found[i] = outcome
        return found

    monkeypatch.setattr(heuristic, "heuristic_scores", broken)


def scores(folder: Path) -> dict[str, float]:
    parts = sorted((home(folder) / "annotations").glob("part-*"))
    rows = [r for p in parts for r in pq.read_table(p, columns=["doc_id", "score:rules"]).to_pylist()]
    return {r["doc_id"]: r["score:rules"] for r in rows}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(ZeroDivisionError(POISON), "failed_ZeroDivisionError"), (float("nan"), "not_finite")],
)
def test_r6_an_annotator_that_fails_on_one_document_costs_its_score_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: float | Exception, reason: str
) -> None:
    """Data-Juicer: an operator raises on 1 of 2,000: the batch becomes empty, 1,000 rows are left, exit 0."""
    ids = poisoned(tmp_path)
    quiet(recipe(tmp_path, name="sound"), "annotate")
    (tmp_path / "runs" / "sound").rename(tmp_path / "sound")
    break_rules(monkeypatch, outcome)
    quiet(recipe(tmp_path), "annotate")
    found = scores(tmp_path)
    assert list(found) == ids
    assert [i for i, v in found.items() if np.isnan(v)] == ["page-01003"]
    (home(tmp_path)).rename(tmp_path / "broken")
    (tmp_path / "sound").rename(home(tmp_path))
    sound = scores(tmp_path)
    assert {i: v for i, v in found.items() if i != "page-01003"} == {
        i: v for i, v in sound.items() if i != "page-01003"
    }
    facts = read_json(tmp_path / "broken" / "stages" / "annotate.json")
    assert facts["facts"]["missing"] == {"score:rules": {reason: 1}}
    assert facts["facts"]["coverage"]["rules"] == 1999 / 2000
    assert f"score:rules: {reason} for 1 of 2000 documents" in facts["warnings"]


def test_r6_below_the_coverage_that_the_recipe_wants_the_run_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data-Juicer: as above; half of the documents are gone and nothing stops."""
    poisoned(tmp_path, 200)
    break_rules(monkeypatch, ZeroDivisionError(POISON))
    message = r"'rules' covers 99.5\d*% of .* at least 99.9\d*% \(failed_ZeroDivisionError: 1\)"
    with pytest.raises(ScoreError, match=message) as raised:
        quiet(recipe(tmp_path), "annotate")
    assert POISON not in str(raised.value)


def test_r6_an_annotator_that_fails_on_every_document_ends_the_run_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data-Juicer: as above; an annotator that never works is a bug, not two hundred bad documents."""
    put(tmp_path, "a.jsonl", [p | {"text": p["text"] + POISON} for p in pages(200)])
    break_rules(monkeypatch, ZeroDivisionError("its own error"))
    with pytest.raises(ZeroDivisionError, match="its own error"):
        quiet(recipe(tmp_path), "annotate")


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_r6b_a_shard_that_cannot_be_written_fails_the_run_until_it_can(
    reference: Reference, tmp_path: Path, executor: str
) -> None:
    """Data-Juicer: sharded export with one unwritable shard: 1,500 of 2,000 rows, no error."""
    folder = reference.copy(tmp_path)
    dataset = home(folder) / "dataset"
    shutil.rmtree(dataset)
    obstacle = dataset / reference.manifest.shards[1].name
    (obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=obstacle.name):
        reference.again(folder, run__executor=executor)
    assert not (dataset / "manifest.json").exists()
    with pytest.raises(InputError, match="no finished dataset"):
        verify_run(home(folder))
    shutil.rmtree(obstacle)
    assert reference.again(folder) == reference.manifest
