"""A corpus in an S3 store read by worker processes, and a dataset published to one: whole or not there."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from object_store import CANARY, DENIED, SLOW, Store, files, running_store

from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import IdentityError, InputError, IntegrityError, StoreError
from quadmix.io.atomic import file_digest, write_json
from quadmix.io.door import network
from quadmix.io.fs import expand, file_info, open_input
from quadmix.io.readers import open_parquet
from quadmix.materialise.publish import (
    Published,
    is_published,
    publish_dataset,
    published_url,
    verify_published,
)
from quadmix.recipe.sections import CorpusSection
from quadmix.types import Corpus, DatasetManifest, Ledger, ShardInfo

OUT = "s3://out/data/v1"


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with running_store(["pool", "out"]) as store:
        for name, data in inputs().items():
            files().pipe_file(f"pool/{name}", data)
        yield store


@pytest.fixture
def store(server: Store) -> Iterator[Store]:
    server.clear()
    yield server
    server.clear()
    fs = files()
    for name in fs.find("out"):
        fs.rm_file(name)


def inputs() -> dict[str, bytes]:
    """Four formats' worth of one corpus, with things beside it that do not belong."""
    rows = [{"id": f"d{i:04d}", "text": f"text number {i} " * 20} for i in range(400)]
    lines = [orjson.dumps(r) + b"\n" for r in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows[200:300]), sink, row_group_size=25)
    return {
        "in/a.jsonl": b"".join(lines[:100]),
        "in/sub/b.jsonl.zst": zstandard.compress(b"".join(lines[100:200])),
        "in/c.parquet": sink.getvalue().to_pybytes(),
        "in/notes.md": b"no data",
        "in/.hidden.jsonl": b"rubbish",
        "d.jsonl": b"".join(lines[300:]),
    }


def processes(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return run_tasks(function, tasks, place=Place("processes", 2))


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def documents(corpus: Corpus) -> list[str]:
    return [d for s in corpus.splits for b in read_documents(corpus, s, columns=()) for d in b.doc_id]


def test_folders_globs_and_keys_are_found_with_their_addresses(store: Store) -> None:
    everything = ["s3://pool/in/a.jsonl", "s3://pool/in/c.parquet", "s3://pool/in/sub/b.jsonl.zst"]
    assert expand(["s3://pool/in"]) == expand(["s3://pool/in/"]) == everything
    assert expand(["s3://pool/**/*.zst", "s3://pool/in/?.jsonl"]) == [everything[0], everything[2]]
    assert expand(["s3://pool/d.jsonl"]) == ["s3://pool/d.jsonl"]


def test_worker_processes_read_the_same_corpus_from_a_store_as_from_disk(
    store: Store, tmp_path: Path
) -> None:
    for name, data in inputs().items():
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pool" / name).write_bytes(data)
    remote = CorpusSection(paths=["s3://pool/in", "s3://pool/d.jsonl"], split_bytes=5000)
    local = CorpusSection(paths=[str(tmp_path / "pool/in"), str(tmp_path / "pool/d.jsonl")], split_bytes=5000)
    there = open_corpus(remote, str(tmp_path / "there"), mapper=processes)
    here = open_corpus(local, str(tmp_path / "here"), mapper=serial)
    assert sorted(documents(there)) == sorted(documents(here)) == [f"d{i:04d}" for i in range(400)]
    assert len(there.splits) > 6
    assert {f.digest for f in there.files} == {f.digest for f in here.files}


def test_parquet_columns_are_read_by_ranges(store: Store) -> None:
    """Of 30 MB, one column of one row group and the footer: less than a tenth is fetched."""
    rng, sink = np.random.default_rng(0), pa.BufferOutputStream()
    big = pa.array([rng.bytes(1000) for _ in range(30_000)])
    pq.write_table(pa.table({"small": np.arange(30_000), "big": big}), sink, row_group_size=10_000)
    data = sink.getvalue().to_pybytes()
    files().pipe_file("out/wide.parquet", data)
    store.clear()
    with open_parquet("s3://out/wide.parquet") as file:
        assert file.read_row_group(1, columns=["small"])["small"][0].as_py() == 10_000
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", r) for m, _, r in store.requests if m == "GET"]
    assert all(ranges)
    assert ranges
    assert sum(int(r[2]) - int(r[1]) + 1 for r in ranges if r) < len(data) / 10


def test_a_file_is_digested_once_per_process_until_it_changes(store: Store) -> None:
    files().pipe_file("out/x.jsonl", b"1" * 1000)
    first = file_info("s3://out/x.jsonl")
    store.clear()
    assert file_info("s3://out/x.jsonl") == first
    assert "GET" not in [m for m, _, _ in store.requests]
    files().pipe_file("out/x.jsonl", b"2" * 1000)
    assert file_info("s3://out/x.jsonl").digest != first.digest


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "s3://nowhere/in",
            "'s3://nowhere/in' (failed: .*bucket does not exist.*check the bucket|matches no)",
        ),
        ("s3://nowhere/*.jsonl", "'s3://nowhere/.*(check the bucket|matches no file)"),
        ("s3://pool/none.jsonl", "'s3://pool/none.jsonl' matches no file"),
        ("s3://pool/none/*.jsonl", "matches no file"),
    ],
)
def test_missing_buckets_and_keys_are_named(store: Store, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand([path])


def test_no_permission_is_not_taken_for_absence(store: Store) -> None:
    store.fault = lambda _m, _p, _n: DENIED
    for call in (
        lambda: expand(["s3://pool/in"]),
        lambda: expand(["s3://pool/in/*"]),
        lambda: open_input("s3://pool/d.jsonl"),
        lambda: file_info("s3://pool/d.jsonl"),
    ):
        with pytest.raises(StoreError, match="check the permissions, and that credentials are where"):
            call()


def test_an_error_in_the_middle_of_a_file_in_a_worker_names_it(store: Store, tmp_path: Path) -> None:
    section = CorpusSection(paths=["s3://pool/in"])
    warm = [file_info(path) for path in expand(section.paths)]
    assert len(warm) == 3
    store.fault = lambda m, p, _n: DENIED if m == "GET" and p.endswith("b.jsonl.zst") else None
    with pytest.raises(StoreError, match=r"reading 's3://pool/in/sub/b\.jsonl\.zst' failed"):
        open_corpus(section, str(tmp_path), mapper=processes)


def test_offline_in_the_parent_holds_in_the_workers(store: Store, tmp_path: Path) -> None:
    with network(offline=True), pytest.raises(StoreError, match="switched off"):
        processes(file_info, ["s3://pool/d.jsonl"])
    assert store.requests == []


# what is published


def dataset(folder: Path, seed: int = 1) -> DatasetManifest:
    """A finished dataset of five shards in a run folder, without the work of making one."""
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    shards: list[ShardInfo] = []
    for number in range(5):
        file = folder / "dataset" / f"part-{number:05d}.parquet"
        file.write_bytes(np.random.default_rng([seed, number]).bytes(20_000 + number))
        shards.append(
            ShardInfo(
                name=file.name, rows=10, bytes=file.stat().st_size, digest=file_digest(file), tokens=100
            )
        )
    ledger = Ledger(rows_in=50, selected=50, dropped={}, quarantined={}, copies=50, tokens_in=500,
                    unique_tokens=500, tokens_out=500)  # fmt: skip
    manifest = DatasetManifest(
        format="parquet", shards=tuple(shards), ledger=ledger, domains=(), token_budget=500, identity="id",
        theta_label="theta-star", seed=seed, digest=f"digest-{seed}",
    )  # fmt: skip
    (folder / "dataset" / "README.md").write_text("card")
    write_json(folder / "dataset" / "manifest.json", manifest)
    return manifest


def puts(store: Store) -> list[str]:
    return [p.removeprefix("/out/data/v1/") for m, p, _ in store.requests if m == "PUT"]


def same_bytes(folder: Path) -> bool:
    there = {n.removeprefix("out/data/v1/"): files().cat(n) for n in files().find("out/data/v1")}
    return there == {p.name: p.read_bytes() for p in (folder / "dataset").iterdir()}


def test_the_manifest_comes_last_and_everything_is_the_same(store: Store, tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    done = publish_dataset(tmp_path, OUT + "/", serial)
    sent = puts(store)
    assert sent[:5] == [s.name for s in manifest.shards]
    assert sent[5:] == ["README.md", "manifest.json"]
    assert same_bytes(tmp_path)
    assert (done.url, done.bytes) == (OUT, sum(s.bytes for s in manifest.shards))
    assert published_url(tmp_path) == OUT
    assert all(c.ok for c in verify_published(tmp_path))
    store.clear()
    assert publish_dataset(tmp_path, OUT, serial) == done
    assert puts(store) == []


PUBLISH = (
    "import sys\nfrom quadmix.materialise.publish import publish_dataset\n"
    "publish_dataset(sys.argv[1], sys.argv[2], lambda f, ts: [f(t) for t in ts])"
)


def killed(folder: Path, point: str) -> None:
    """Publish in another process that kills itself at a point."""
    command = [sys.executable, "-c", PUBLISH, str(folder), OUT]
    settings = {**os.environ, "QUADMIX_FAULT": point}
    done = subprocess.run(command, env=settings, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(
    ("point", "left"),
    [("publish.after_shard@2", 3), ("publish.after_shard@5", 0), ("publish.before_manifest", 0)],
)
def test_after_a_kill_only_the_rest_is_uploaded(store: Store, tmp_path: Path, point: str, left: int) -> None:
    manifest = dataset(tmp_path)
    killed(tmp_path, point)
    assert not files().exists("out/data/v1/manifest.json")
    store.clear()
    publish_dataset(tmp_path, OUT, serial)
    assert [n for n in puts(store) if n.startswith("part")] == [s.name for s in manifest.shards[5 - left :]]
    assert same_bytes(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_another_dataset_in_the_same_place_is_refused(store: Store, tmp_path: Path, whole: bool) -> None:
    """With the difference if it is whole; by its first shard if its publication was killed."""
    dataset(tmp_path / "a")
    dataset(tmp_path / "b", seed=2)
    if whole:
        publish_dataset(tmp_path / "a", OUT, serial)
        message = r"s3://out/data/v1 holds another dataset \(shards: 5 entries there, .*seed: 1 there, 2 here"
    else:
        killed(tmp_path / "a", "publish.after_shard@2")
        message = r"part-00000\.parquet is there already with other content"
    before = {n: files().cat(n) for n in files().find("out")}
    with pytest.raises(IdentityError, match=message):
        publish_dataset(tmp_path / "b", OUT, serial)
    assert {n: files().cat(n) for n in files().find("out")} == before


def test_local_shards_go_after_their_upload_if_asked(store: Store, tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    store.fault = lambda m, p, _n: DENIED if m == "PUT" and p.endswith("part-00003.parquet") else None
    with pytest.raises(StoreError):
        publish_dataset(tmp_path, OUT, serial, keep_local=False)
    left = sorted(p.name for p in (tmp_path / "dataset").glob("part-*"))
    assert left == [s.name for s in manifest.shards[3:]]
    assert [is_published(tmp_path, s) for s in manifest.shards] == [True, True, True, False, False]
    store.clear()
    publish_dataset(tmp_path, OUT, serial, keep_local=False)
    assert sorted(p.name for p in (tmp_path / "dataset").iterdir()) == ["README.md", "manifest.json"]
    assert all(c.ok for c in verify_published(tmp_path))
    files().rm_file("out/data/v1/part-00001.parquet")
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is not here and .* does not hold it"):
        publish_dataset(tmp_path, OUT, serial, keep_local=False)


@pytest.mark.parametrize("nth", [1, 4, 7, 11, 15, 18, 21])
def test_a_store_that_is_busy_at_any_request_changes_nothing(store: Store, tmp_path: Path, nth: int) -> None:
    dataset(tmp_path)
    store.fault = lambda _m, _p, number: SLOW if number == nth else None
    publish_dataset(tmp_path, OUT, serial)
    assert len(store.requests) > nth
    assert same_bytes(tmp_path)


def test_changed_or_missing_remote_bytes_fail_their_check(store: Store, tmp_path: Path) -> None:
    dataset(tmp_path)
    publish_dataset(tmp_path, OUT, serial)
    whole = files().cat("out/data/v1/part-00001.parquet")
    files().pipe_file("out/data/v1/part-00001.parquet", whole[:-1] + b"?" if whole[-1:] != b"?" else b"!")
    files().rm_file("out/data/v1/part-00004.parquet")
    files().pipe_file("out/data/v1/other.txt", b"x")
    checks = verify_published(tmp_path)
    assert [c.name for c in checks if not c.ok] == [
        "published part-00001.parquet", "published part-00004.parquet",
    ]  # fmt: skip
    assert "other.txt" in checks[-1].detail


def test_a_shard_that_was_changed_here_is_not_published(store: Store, tmp_path: Path) -> None:
    manifest = dataset(tmp_path)
    file = tmp_path / "dataset" / manifest.shards[2].name
    file.write_bytes(b"?" + file.read_bytes()[1:])
    with pytest.raises(IntegrityError, match="was changed after it was committed"):
        publish_dataset(tmp_path, OUT, serial)
    assert not files().exists("out/data/v1/manifest.json")


def test_the_secret_is_in_no_file_and_no_message(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == CANARY
    open_corpus(CorpusSection(paths=["s3://pool/in"]), str(tmp_path), mapper=serial)
    dataset(tmp_path)
    publish_dataset(tmp_path, OUT, processes)
    messages = list[str]()
    store.fault = lambda _m, _p, _n: DENIED
    for call in (lambda: publish_dataset(tmp_path, OUT, serial), lambda: expand(["s3://pool/in"]),
                 lambda: processes(file_info, ["s3://pool/d.jsonl"])):  # fmt: skip
        with pytest.raises(StoreError) as caught:
            call()
        messages += [repr(caught.value), str(caught.getrepr(style="long"))]
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    out = capfd.readouterr()
    for piece in (CANARY, *CANARY.split("/")[1:2]):
        assert piece.encode() not in written
        assert not any(piece in text for text in (*messages, out.out, out.err, caplog.text))


def test_the_summary_reads_back(store: Store, tmp_path: Path) -> None:
    from quadmix.io.atomic import read_value

    dataset(tmp_path)
    done = publish_dataset(tmp_path, OUT, serial)
    assert read_value(tmp_path / "published" / "dataset.json", Published) == done
