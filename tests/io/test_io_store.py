"""publish: one finished, checked upload to a real S3 server; what is refused, what is tried again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import DENIED, SLOW, Store, files, running_store

from quadmix.errors import IdentityError, IntegrityError, StoreError
from quadmix.io import store as module
from quadmix.io.atomic import file_digest
from quadmix.io.store import listing, publish, read_bytes, remote_digest, remove, stored_info


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with running_store(["bucket"]) as store:
        yield store


@pytest.fixture
def store(server: Store) -> Iterator[Store]:
    server.clear()
    yield server
    server.clear()
    fs = files()
    for name in fs.find("bucket"):
        fs.rm_file(name)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "part.parquet"
    path.write_bytes(bytes(range(256)) * 300)
    return path


def test_what_was_published_is_there_and_proved_by_the_etag(store: Store, local: Path) -> None:
    done = publish(local, "s3://bucket/d/part.parquet")
    assert files().cat("bucket/d/part.parquet") == local.read_bytes()
    assert (done.bytes, done.digest, done.proof) == (76_800, file_digest(local), "etag")
    assert [m for m, _, _ in store.requests].count("PUT") == 1


def test_a_large_file_goes_in_parts_that_appear_together(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 5 << 20)  # the least that S3 takes
    big = tmp_path / "big"
    big.write_bytes(bytes(range(251)) * 50_000)
    done = publish(big, "s3://bucket/big")
    assert done.proof == "etag"
    assert done.etag.endswith("-3")
    sent = [m for m, _, _ in store.requests if m in ("PUT", "POST")]
    assert sent == ["POST", "PUT", "PUT", "PUT", "POST"]  # the last one joins them
    assert remote_digest("s3://bucket/big") == file_digest(big)


def test_an_etag_of_another_kind_is_settled_by_reading_back(store: Store, local: Path) -> None:
    """A multipart object of other part sizes has an etag that is no checksum of the whole."""
    files().put_file(str(local), "bucket/a")
    client_etag = stored_info("s3://bucket/a")
    assert client_etag is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_etag", lambda _: "0" * 32)
        assert publish(local, "s3://bucket/a").proof == "read"
    assert [m for m, _, _ in store.requests].count("PUT") == 1  # the test's own


def test_the_same_content_is_not_sent_again_and_other_content_refused(store: Store, local: Path) -> None:
    publish(local, "s3://bucket/a")
    publish(local, "s3://bucket/a")
    assert [m for m, _, _ in store.requests].count("PUT") == 1
    local.write_bytes(b"other")
    with pytest.raises(
        IdentityError, match=r"s3://bucket/a is there already with other content \(76,800 bytes"
    ):
        publish(local, "s3://bucket/a")
    assert publish(local, "s3://bucket/a", replace=True).bytes == 5


def test_of_two_writers_one_is_refused(store: Store, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's object appears between the look and the upload: the store refuses to replace it."""
    look, calls = module._info, list[int]()  # pyright: ignore[reportPrivateUsage]

    def late(fs: Any, root: str) -> Any:
        calls.append(1)
        if len(calls) == 1:
            found = look(fs, root)
            files().pipe_file("bucket/a", b"the other writer's")
            return found
        return look(fs, root)

    monkeypatch.setattr(module, "_info", late)
    with pytest.raises(IdentityError, match="is there already"):
        publish(local, "s3://bucket/a")
    assert files().cat("bucket/a") == b"the other writer's"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_busy_store_is_asked_again(store: Store, local: Path, number: int) -> None:
    store.fault = lambda _m, _p, n: SLOW if n == number else None
    publish(local, "s3://bucket/a")
    assert files().cat("bucket/a") == local.read_bytes()


def test_a_store_that_stays_busy_is_given_up_after_bounded_tries(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    store.fault = lambda m, _p, _n: SLOW if m == "PUT" else None
    with pytest.raises(StoreError, match=r"publishing to 's3://bucket/a' failed: .*the same command goes on"):
        publish(local, "s3://bucket/a")
    assert [m for m, _, _ in store.requests].count("PUT") == module.TRIES
    assert stored_info("s3://bucket/a") is None


def test_no_permission_is_said_at_once(store: Store, local: Path) -> None:
    store.fault = lambda m, _p, _n: DENIED if m == "PUT" else None
    with pytest.raises(StoreError, match="check the permissions, and that credentials are where"):
        publish(local, "s3://bucket/a")
    assert [m for m, _, _ in store.requests].count("PUT") == 1


def test_a_missing_bucket_is_an_error_that_names_it(store: Store, local: Path) -> None:
    with pytest.raises(StoreError, match=r"publishing to 's3://nowhere/a' failed: .*bucket does not exist"):
        publish(local, "s3://nowhere/a")


def test_wrong_bytes_are_sent_again_and_never_left(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sent = module._put, list[int]()  # pyright: ignore[reportPrivateUsage]

    def corrupt(fs: Any, path: Path, root: str, kind: str, *, create: bool) -> None:
        sent.append(1)
        if len(sent) <= wrong:
            fs.pipe_file(root, b"x" * path.stat().st_size)
        else:
            put(fs, path, root, kind, create=create)

    monkeypatch.setattr(module, "_put", corrupt)
    wrong = 1
    assert publish(local, "s3://bucket/a").proof == "etag"
    sent.clear()
    wrong = 99
    with pytest.raises(IntegrityError, match=f"after {module.TRIES} uploads"):
        publish(local, "s3://bucket/b")
    assert stored_info("s3://bucket/b") is None


def test_listing_reading_and_removing(store: Store, local: Path) -> None:
    for name in ("d/x", "d/sub/y", "dd/z"):
        files().pipe_file(f"bucket/{name}", name.encode())
    assert listing("s3://bucket/d/") == {"x": 3, "sub/y": 7}
    assert listing("s3://bucket/none") == {}
    assert read_bytes("s3://bucket/d/x") == b"d/x"
    assert read_bytes("s3://bucket/d/none") is None
    assert remote_digest("s3://bucket/none") is None
    remove("s3://bucket/d/x")
    remove("s3://bucket/d/x")
    assert listing("s3://bucket/d") == {"sub/y": 7}


def test_another_process_s_objects_are_seen_at_once(store: Store) -> None:
    """No stale listing: the object is written behind this process's back, after it has listed."""
    assert listing("s3://bucket/fresh") == {}
    files().pipe_file("bucket/fresh/a", b"1")
    assert listing("s3://bucket/fresh") == {"a": 1}


def test_a_local_folder_is_a_place_too(tmp_path: Path, local: Path) -> None:
    done = publish(local, str(tmp_path / "out" / "a"))
    assert done.proof == "read"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    assert listing(str(tmp_path / "out")) == {"a": 76_800}
