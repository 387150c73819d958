"""The token pool: bytes, order, reuse, and what must be refused."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers

from quadmix.corpus.read import DocBatch
from quadmix.corpus.tokenizer import Tokenizer, train_tokenizer
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import file_digest, write_array
from quadmix.proxy import pool as room
from quadmix.proxy.pool import build_pool, open_pool
from quadmix.proxy.targets import IGNORE, encode_heldout
from quadmix.rng import doc_keys
from quadmix.types import Annotations, ColumnMap, Corpus, CriterionInfo, Split, SplitCount

TEXTS = [f"document {i}: " + "the quick brown fox jümps " * (i % 7 + 1) for i in range(30)]
IDS = [f"id-{i}" for i in range(30)]
BORDERS = (0, 12, 13, 30)  # documents per split: 12, 1, 17


def fake_read(corpus: Corpus, split: Split, *, columns: Sequence[str] | None = None) -> Iterator[DocBatch]:
    """Stand-in for the corpus room: two documents per batch."""
    assert columns == ()
    rows = pa.RecordBatch.from_pylist([{"n": 1}])
    for start in range(BORDERS[split.index], BORDERS[split.index + 1], 2):
        stop = min(start + 2, BORDERS[split.index + 1])
        yield DocBatch(doc_id=IDS[start:stop], text=TEXTS[start:stop], rows=rows)


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "read_documents", fake_read)


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(TEXTS, 320), encoding="utf-8")
    return str(path)


def world(held_out: Sequence[int] = ()) -> tuple[Corpus, Annotations]:
    splits = tuple(Split(index=i, path=f"{i}.jsonl", format="jsonl") for i in range(3))
    counts = tuple(
        SplitCount(split=i, rows=BORDERS[i + 1] - BORDERS[i], documents=0, text_bytes=0) for i in range(3)
    )
    corpus = Corpus(
        files=(), splits=splits, columns=ColumnMap(text="text"), counts=counts, schema="", digest="corpus"
    )
    held = np.zeros(30, np.bool_)
    held[list(held_out)] = True
    annotations = Annotations(
        doc_id=pa.chunked_array([pa.array(IDS)]),
        keys=doc_keys(IDS),
        tokens=np.full(30, 20, np.int32),
        domain=(np.arange(30) % 2).astype(np.int16),
        scores=np.zeros((30, 1), np.float32),
        held_out=held,
        split=np.repeat([0, 1, 2], np.diff(BORDERS)).astype(np.int32),
        criteria=(CriterionInfo(name="c", declared="lower", kind="column", digest=""),),
        domains=("even", "odd"),
    )
    return corpus, annotations


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def backwards(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """As if workers finished in another order; results still in task order."""
    return [function(task) for task in reversed(tasks)][::-1]


def test_pool_holds_each_document_with_its_end(tokenizer_path: str, tmp_path: Path) -> None:
    """Decoding every slice gives the text back, followed by one end-of-document; other rows are absent."""
    corpus, annotations = world()
    rows = np.array([0, 3, 11, 12, 13, 29], dtype=np.int64)
    pool = build_pool(corpus, annotations, tokenizer_path, str(tmp_path), rows=rows, mapper=serial)
    tokenizer = Tokenizer.load(tokenizer_path)
    assert pool.tokens.dtype == np.uint16
    assert pool.rows.tolist() == rows.tolist()
    assert pool.keys.tolist() == annotations.keys[rows].tolist()
    assert pool.domain.tolist() == [0, 1, 1, 0, 1, 1]
    for i, row in enumerate(rows):
        ids = pool.tokens[pool.offsets[i] : pool.offsets[i + 1]].tolist()
        assert tokenizer.decode(ids[:-1]) == TEXTS[row]
        assert ids[-1] == tokenizer.end_of_document
    assert int(pool.lengths.sum()) == len(pool.tokens)


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    """Ids above 65,535 come back from a uint32 pool as the words that they are."""
    words = sorted({word for text in TEXTS for word in text.split()})
    vocab = {f"filler{i}": i for i in range(65_536)} | {word: 65_536 + i for i, word in enumerate(words)}
    model = tokenizers.models.WordLevel(vocab | {"<|endoftext|>": len(vocab)}, unk_token="filler0")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    corpus, annotations = world()
    rows = np.arange(30, dtype=np.int64)
    build_pool(
        corpus, annotations, str(tmp_path / "tokenizer.json"), str(tmp_path / "p"), rows=rows, mapper=serial
    )
    pool = open_pool(tmp_path / "p")
    assert pool.tokens.dtype == np.uint32
    assert pool.manifest.vocab_size == len(vocab) + 1
    for i in range(30):
        *ids, end = pool.tokens[pool.offsets[i] : pool.offsets[i + 1]].tolist()
        assert [words[t - 65_536] for t in ids] == TEXTS[i].split()
        assert end == len(vocab)


def test_pool_bytes_do_not_depend_on_the_mapper(tokenizer_path: str, tmp_path: Path) -> None:
    """Tasks done in another order give the same files, and no parts are left."""
    corpus, annotations = world()
    rows = np.arange(30, dtype=np.int64)
    for name, mapper in (("a", serial), ("b", backwards)):
        build_pool(corpus, annotations, tokenizer_path, str(tmp_path / name), rows=rows, mapper=mapper)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["domain.npy", "keys.npy", "manifest.json", "offsets.npy", "rows.npy", "tokens.npy"]
    for name in files:
        assert file_digest(tmp_path / "a" / name) == file_digest(tmp_path / "b" / name)


def test_pool_is_reused_only_for_the_same_inputs(tokenizer_path: str, tmp_path: Path) -> None:
    """A second call does no work; other rows rebuild."""
    corpus, annotations = world()
    calls: list[int] = []

    def counting(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        calls.append(len(tasks))
        return serial(function, tasks)

    folder = str(tmp_path)
    for stop in (30, 30, 12):
        rows = np.arange(stop, dtype=np.int64)
        pool = build_pool(corpus, annotations, tokenizer_path, folder, rows=rows, mapper=counting)
        assert len(pool) == stop
    assert calls == [3, 1]


def test_refuses_held_out_missing_and_broken(tokenizer_path: str, tmp_path: Path) -> None:
    """Held-out rows, an empty pool, a document that is gone and arrays that disagree are errors by name."""
    corpus, annotations = world(held_out=[4])
    every = np.arange(30, dtype=np.int64)
    with pytest.raises(InputError, match="reserved for evaluation"):
        build_pool(corpus, annotations, tokenizer_path, str(tmp_path), rows=every, mapper=serial)
    with pytest.raises(InputError, match="no document"):
        build_pool(corpus, annotations, tokenizer_path, str(tmp_path), rows=every[:0], mapper=serial)
    annotations.keys[5] = 123
    rows = np.array([5, 6], dtype=np.int64)
    with pytest.raises(IntegrityError, match="found 1 of 2 annotated documents"):
        build_pool(corpus, annotations, tokenizer_path, str(tmp_path), rows=rows, mapper=serial)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        open_pool(tmp_path)
    build_pool(corpus, annotations, tokenizer_path, str(tmp_path), rows=rows[1:], mapper=serial)
    write_array(tmp_path / "tokens.npy", np.zeros(3, np.uint16))
    with pytest.raises(IntegrityError, match="remove the folder"):
        open_pool(tmp_path)


def test_heldout_sets_are_capped_per_domain(tokenizer_path: str, tmp_path: Path) -> None:
    """Each domain's set scores held-out text only, at most the given bytes, and counts them exactly."""
    corpus, annotations = world(held_out=[1, 2, 3, 6, 8, 10, 14, 20])
    tokenizer = Tokenizer.load(tokenizer_path)
    sets = encode_heldout(
        corpus, annotations, tokenizer, str(tmp_path / "h"), context=16, max_bytes=400, mapper=serial
    )
    assert [s.name for s in sets] == ["even", "odd"]
    for number, item in enumerate(sets):
        assert item.kind == "heldout"
        held = [TEXTS[i] for i in np.flatnonzero(annotations.held_out & (annotations.domain == number))]
        pieces = []
        for row in range(len(item.bytes)):
            labels = item.labels[item.row == row]
            pieces.append(tokenizer.decode(labels[labels != IGNORE].tolist()))
        assert all(any(text.startswith(piece) for text in held) for piece in pieces)
        assert [len(p.encode()) for p in pieces] == item.bytes.tolist()
        assert 0 < item.bytes.sum() <= 400
    full = encode_heldout(
        corpus, annotations, tokenizer, str(tmp_path / "f"), context=16, max_bytes=10**6, mapper=backwards
    )
    assert [len(s.bytes) for s in full] == [6, 2]
    expected = sum(len(TEXTS[i].encode()) for i in np.flatnonzero(annotations.held_out))
    assert sum(int(s.bytes.sum()) for s in full) == expected
