"""The finished dataset out to an object store, shard by shard, the manifest last.

In: dataset/ of a run folder, and an address (`materialise.out`). Out: the same files under that address. A
reader that goes by manifest.json sees no dataset, and then all of it (promise P3). What has arrived and been
checked is noted in published/ of the run folder, so the same call after a kill uploads only what is missing,
and gives the same objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from quadmix.codec import from_json
from quadmix.errors import IdentityError, InputError, IntegrityError
from quadmix.io.atomic import read_value, write_json
from quadmix.io.faults import fault_point
from quadmix.io.store import Stored, listing, publish, read_bytes, remote_digest, stored_info
from quadmix.materialise.checks import Check
from quadmix.materialise.facts import FACTS
from quadmix.types import DatasetManifest, ShardInfo
from quadmix.urls import redact

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
RECORDS = "published"
SUMMARY = "dataset.json"
MANIFEST = "manifest.json"
CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A dataset in a store. digest: its manifest's. shards: as they were checked, in the manifest's order."""

    url: str
    digest: str
    shards: tuple[Stored, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all shards together."""
        return sum(s.bytes for s in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTask:
    """One committed shard of `run_folder`/dataset to bring to the folder `url` of a store."""

    run_folder: str
    url: str
    shard: ShardInfo
    keep_local: bool = True


def publish_dataset(
    run_folder: str | Path, url: str, mapper: Mapper, *, keep_local: bool = True
) -> Published:
    """Bring the finished dataset of a run folder to a store; the same call again goes on, or does nothing.

    mapper: (function, tasks) -> results in task order. keep_local: False removes each local shard once its
    upload has been checked. Raises IdentityError if another dataset is there, StoreError if the store does
    not answer or refuses, IntegrityError if a shard differs from the manifest.
    """
    folder, url = Path(run_folder), url.rstrip("/")
    manifest = _manifest(folder)
    _check_place(url, manifest)
    tasks = [
        UploadTask(run_folder=str(folder), url=url, shard=s, keep_local=keep_local) for s in manifest.shards
    ]
    shards: list[Stored] = mapper(publish_shard, tasks)
    _check_arrived(url, manifest)
    for name in (*FACTS, CARD):
        if (beside := folder / "dataset" / name).is_file():
            publish(beside, f"{url}/{name}", replace=True)
    fault_point("publish.before_manifest")
    publish(folder / "dataset" / MANIFEST, f"{url}/{MANIFEST}")
    result = Published(url=url, digest=manifest.digest, shards=tuple(shards))
    write_json(folder / RECORDS / SUMMARY, result)
    return result


def publish_shard(task: UploadTask) -> Stored:
    """Upload one shard unless the store holds it already; may be called as soon as the shard is committed."""
    local = Path(task.run_folder, "dataset", task.shard.name)
    address = f"{task.url}/{task.shard.name}"
    done = _still_there(task, address)
    if done is None:
        if not local.is_file():
            raise IntegrityError(
                f"{local} is not here and {redact(address)} does not hold it (expected {task.shard.bytes:,} "
                f"bytes, digest {task.shard.digest[:12]}); remove dataset/ and run the same command again"
            )
        done = publish(local, address)
        if (done.bytes, done.digest) != (task.shard.bytes, task.shard.digest):
            raise IntegrityError(
                f"{local} was changed after it was committed (digest {done.digest[:12]}, the manifest says "
                f"{task.shard.digest[:12]}); remove it, {redact(address)} and dataset/{MANIFEST}, and run "
                "the same command again"
            )
        write_json(_record(task.run_folder, task.shard.name), done)
        fault_point("publish.after_shard")
    if not task.keep_local:
        local.unlink(missing_ok=True)
    return done


def is_published(run_folder: str | Path, shard: ShardInfo) -> bool:
    """Has this very shard been uploaded and checked, so that its local file need not be there?

    Says what the records say; whether the object is still there is for `verify_published`.
    """
    file = _record(run_folder, shard.name)
    if not file.is_file():
        return False
    stored = read_value(file, Stored)
    return (stored.bytes, stored.digest) == (shard.bytes, shard.digest)


def published_url(run_folder: str | Path) -> str | None:
    """Return where the dataset of a run was published whole, or None."""
    file = Path(run_folder, RECORDS, SUMMARY)
    return read_value(file, Published).url if file.is_file() else None


def verify_published(run_folder: str | Path) -> tuple[Check, ...]:
    """Read every object of a published dataset again and compare it with the manifest of the run folder.

    One check per shard, one for the manifest, one for the files around them. Reads all bytes from the store.
    """
    folder = Path(run_folder)
    url = published_url(folder)
    if url is None:
        raise InputError(
            f"{folder} has no published dataset ({RECORDS}/{SUMMARY} is missing); set materialise.out and "
            "run `quadmix materialise`"
        )
    manifest = _manifest(folder)
    checks = [_check_shard(url, shard) for shard in manifest.shards]
    here = (folder / "dataset" / MANIFEST).read_bytes()
    same = read_bytes(f"{url}/{MANIFEST}") == here
    detail = f"{redact(url)}/{MANIFEST} " + ("is the run's" if same else "is missing or another one")
    checks.append(Check(name="published manifest", ok=same, detail=detail))
    stray = sorted(listing(url).keys() - {s.name for s in manifest.shards} - {MANIFEST, CARD, *FACTS})
    around = f"ignored, not of this dataset: {', '.join(stray[:5])}" if stray else "nothing else lies there"
    checks.append(Check(name="published folder", ok=True, detail=around))
    return tuple(checks)


def _manifest(folder: Path) -> DatasetManifest:
    path = folder / "dataset" / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, so there is no finished dataset; run `quadmix materialise` to its end"
        )
    return read_value(path, DatasetManifest)


def _record(run_folder: str | Path, name: str) -> Path:
    return Path(run_folder, RECORDS, f"{name}.json")


def _still_there(task: UploadTask, address: str) -> Stored | None:
    """Return the shard's record if the object is as it was when its content was checked."""
    if not is_published(task.run_folder, task.shard):
        return None
    known = read_value(_record(task.run_folder, task.shard.name), Stored)
    now = stored_info(address) if known.url == address else None
    if now is None or now.bytes != known.bytes:
        return None
    if known.etag:
        return known if now.etag == known.etag else None
    return known if remote_digest(address) == known.digest else None


def _check_place(url: str, manifest: DatasetManifest) -> None:
    """Refuse a folder of a store that holds another dataset, with what differs."""
    there = read_bytes(f"{url}/{MANIFEST}")
    if there is None:
        return
    try:
        other = from_json(DatasetManifest, orjson.loads(there), where=f"{redact(url)}/{MANIFEST}")
    except (orjson.JSONDecodeError, InputError) as error:
        raise IdentityError(
            f"{redact(url)} holds a {MANIFEST} that is not quadmix's; name an empty place in materialise.out"
        ) from error
    names = [f.name for f in fields(DatasetManifest) if getattr(other, f.name) != getattr(manifest, f.name)]
    if names:
        shown = "; ".join(f"{n}: {_short(other, n)} there, {_short(manifest, n)} here" for n in names)
        raise IdentityError(
            f"{redact(url)} holds another dataset ({shown}); name another place in materialise.out, or "
            "remove what lies there"
        )


def _short(manifest: DatasetManifest, name: str) -> str:
    value = getattr(manifest, name)
    return f"{len(value)} entries" if isinstance(value, tuple) else repr(value)[:60]


def _check_arrived(url: str, manifest: DatasetManifest) -> None:
    """Before the manifest makes them visible: are all shards there, as large as they should be?"""
    sizes = listing(url)
    for shard in manifest.shards:
        if sizes.get(shard.name) != shard.bytes:
            raise IntegrityError(
                f"{redact(url)}/{shard.name} has {sizes.get(shard.name)} bytes, expected {shard.bytes:,}: "
                "another process changed it. The manifest was not published; give the same command again"
            )


def _check_shard(url: str, shard: ShardInfo) -> Check:
    address = f"{url}/{shard.name}"
    digest = remote_digest(address)
    detail = (
        f"{redact(address)} is missing" if digest is None else f"digest {digest}, recorded {shard.digest}"
    )
    return Check(name=f"published {shard.name}", ok=digest == shard.digest, detail=detail)
