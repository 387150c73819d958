"""DSIR over a corpus: aligned with the rows, the same bytes however it runs, resumed, reused, made anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import bare_table, tiny_recipe

from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.corpus.targets import TargetText, read_target
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import IntegrityError
from quadmix.evaluate.dsir import NgramSettings, bucket_counts, hash_ngrams, log_ratio, log_weights
from quadmix.io.atomic import file_digest, read_value
from quadmix.pipeline import importance
from quadmix.pipeline.importance import ImportanceManifest, importance_weights
from quadmix.types import Annotations, Corpus, Floats

SETTINGS = NgramSettings(min_words=100)


@dataclass(frozen=True, kw_only=True)
class World:
    corpus: Corpus
    table: Annotations
    targets: list[TargetText]
    texts: list[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("importance")
    recipe = tiny_recipe(folder)
    corpus = open_corpus(recipe.corpus, str(folder / "run"), mapper=serial)
    table = bare_table(corpus)
    targets = [read_target(t, seed=recipe.seed) for t in recipe.targets]
    batches = [batch for split in corpus.splits for batch in read_documents(corpus, split)]
    texts = [text for batch in batches for text in batch.text]
    return World(corpus=corpus, table=table, targets=targets, texts=texts)


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def processes(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return run_tasks(function, tasks, place=Place(executor="processes", workers=2))


def backwards(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in reversed(tasks)][::-1]


def weigh(world: World, folder: Path, mapper: Any = serial, **changed: Any) -> Floats:
    world = replace(world, **changed)
    return importance_weights(
        world.corpus, world.table, world.targets, folder, mapper=mapper, settings=SETTINGS
    )


def at_once(texts: Sequence[str], targets: Sequence[TargetText]) -> Floats:
    """The weights from all texts in one batch."""
    wanted = [text for target in targets for text in target.texts()]
    pool, target = (hash_ngrams(some, SETTINGS) for some in (texts, wanted))
    ratio = log_ratio(bucket_counts(target, SETTINGS), bucket_counts(pool, SETTINGS))
    return log_weights(pool, ratio, SETTINGS)


def test_every_row_gets_the_weight_of_its_own_text(world: World, tmp_path: Path) -> None:
    assert len(world.corpus.splits) > 3
    found = weigh(world, tmp_path)
    expected = at_once(world.texts, world.targets)
    assert found.tobytes() == expected.tobytes()
    short = [hash_ngrams([text], SETTINGS).words[0] < 100 for text in world.texts]
    assert (np.isnan(found) == short).all()
    assert 0 < np.isnan(found).sum() < len(found) / 2
    manifest = read_value(tmp_path / "manifest.json", ImportanceManifest)
    assert (manifest.documents, manifest.short) == (len(found), np.isnan(found).sum())
    assert manifest.target_ngrams == len(
        hash_ngrams([t for target in world.targets for t in target.texts()], SETTINGS).bucket
    )


def test_the_pool_is_what_the_table_holds(world: World, tmp_path: Path) -> None:
    rows = np.flatnonzero(np.arange(len(world.table)) % 3 != 1)
    found = weigh(world, tmp_path, table=world.table.take(rows))
    assert found.tobytes() == at_once([world.texts[i] for i in rows], world.targets).tobytes()


def test_workers_order_and_batches_change_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh(world, tmp_path / "one")
    weigh(world, tmp_path / "two", processes)
    monkeypatch.setattr(importance, "BATCH_CHARACTERS", 5_000)
    weigh(world, tmp_path / "backwards", backwards)
    for name in ("weights.npy", "manifest.json"):
        assert len({file_digest(tmp_path / way / name) for way in ("one", "two", "backwards")}) == 1
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["manifest.json", "weights.npy"]


@pytest.mark.parametrize("stop", [1, 7])
def test_an_interrupted_call_is_resumed_where_it_stopped(world: World, tmp_path: Path, stop: int) -> None:
    pieces = len(world.corpus.splits)
    done: list[Path] = []

    def stopping(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        for task in tasks:
            if len(done) == stop:
                raise KeyboardInterrupt
            function(task)
            done.append(Path(task.file))
        return []

    with pytest.raises(KeyboardInterrupt):
        weigh(world, tmp_path, stopping)
    assert all(path.exists() for path in done)
    assert not (tmp_path / "manifest.json").exists()
    left: list[int] = []

    def counting(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        left.append(len(tasks))
        return serial(function, tasks)

    resumed = weigh(world, tmp_path, counting)
    assert left == [max(pieces - stop, 0), pieces - max(stop - pieces, 0)]
    assert resumed.tobytes() == at_once(world.texts, world.targets).tobytes()


def refuse(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    raise AssertionError(f"{len(tasks)} pieces were to be read again")


def test_whole_weights_are_reused_and_stale_or_damaged_ones_made_anew(world: World, tmp_path: Path) -> None:
    first = weigh(world, tmp_path)
    assert weigh(world, tmp_path, refuse).tobytes() == first.tobytes()
    other = [replace(world.targets[0], prompts=world.targets[0].prompts[:20],
                     answers=world.targets[0].answers[:20])]  # fmt: skip
    changed = weigh(world, tmp_path, targets=other)
    assert changed.tobytes() == at_once(world.texts, other).tobytes()
    assert changed.tobytes() != first.tobytes()
    assert weigh(world, tmp_path, refuse, targets=other).tobytes() == changed.tobytes()
    assert weigh(world, tmp_path).tobytes() == first.tobytes()
    file = tmp_path / "weights.npy"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert weigh(world, tmp_path).tobytes() == first.tobytes()


def test_parts_for_other_inputs_are_removed(world: World, tmp_path: Path) -> None:
    stale = tmp_path / "parts-0123456789abcdef"
    stale.mkdir()
    (stale / "weights-00000.npy").write_bytes(b"old")
    weigh(world, tmp_path)
    assert not stale.exists()


def test_a_table_of_another_corpus_is_refused(world: World, tmp_path: Path) -> None:
    keys = world.table.keys.copy()
    keys[5] += 1
    with pytest.raises(IntegrityError, match="annotated documents; the file changed since"):
        weigh(world, tmp_path, table=replace(world.table, keys=keys))
    split = world.table.split.copy()
    split[-1] = 99
    with pytest.raises(IntegrityError, match=r"in splits of the corpus; expected all"):
        weigh(world, tmp_path, table=replace(world.table, split=split))
