"""Work on a piece that was cut off: done batches are not scored again, and nothing else is trusted."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quadmix.annotate.partial import Missing, annotate_batches
from quadmix.corpus.read import DocBatch


def batches(texts: str = "abcdef", size: int = 2) -> Iterator[DocBatch]:
    for start in range(0, len(texts), size):
        some = list(texts[start : start + size])
        yield DocBatch(doc_id=[f"id-{t}" for t in some], text=some, rows=pa.record_batch({"text": some}))


class Rater:
    """Counts what it scores, and is cut off after so many batches."""

    def __init__(self, after: int = 99) -> None:
        self.after, self.seen = after, list[str]()

    def __call__(self, batch: DocBatch, missing: Missing) -> pa.RecordBatch:
        if self.after == 0:
            raise KeyboardInterrupt
        self.after -= 1
        self.seen += batch.text
        missing.setdefault("score", Counter())["nan"] += 1
        scores = np.array([ord(t) for t in batch.text], np.float32)
        return pa.record_batch({"doc_id": pa.array(batch.doc_id, pa.string()), "score": scores})


def run(path: Path, rater: Rater, digest: str = "d", texts: str = "abcdef") -> tuple[pa.Table, Missing]:
    found, missing = annotate_batches(batches(texts), rater, path, digest=digest, seconds=0)
    return pa.Table.from_batches(found), missing


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    path = tmp_path / "part.parquet"
    with pytest.raises(KeyboardInterrupt):
        run(path, Rater(after=2))
    return path


def test_the_next_attempt_goes_on_and_gives_the_same(cut: Path, tmp_path: Path) -> None:
    rater = Rater()
    table, missing = run(cut, rater)
    whole, counted = run(tmp_path / "other", Rater())
    assert rater.seen == ["e", "f"]
    assert table.equals(whole)
    assert missing == counted == {"score": {"nan": 3}}


def test_other_work_is_not_trusted(cut: Path) -> None:
    rater = Rater()
    run(cut, rater, digest="of other annotators")
    assert rater.seen == list("abcdef")


def test_other_documents_are_scored_from_where_they_differ(cut: Path) -> None:
    rater = Rater()
    table, _ = run(cut, rater, texts="abXdef")
    assert rater.seen == list("Xdef")
    assert table["score"].to_pylist() == [float(ord(c)) for c in "abXdef"]


def test_a_damaged_file_is_not_trusted(cut: Path) -> None:
    cut.write_bytes(cut.read_bytes()[:-20])
    rater = Rater()
    run(cut, rater)
    assert rater.seen == list("abcdef")


def test_without_a_path_nothing_is_kept(tmp_path: Path) -> None:
    found, _ = annotate_batches(batches(), Rater(), None, digest="d", seconds=0)
    assert sum(b.num_rows for b in found) == 6
    assert not list(tmp_path.iterdir())
