"""A program for the crash tests: select and materialise a tiny corpus, in children that may be killed.

In: the folder of a world that `build` made, then one JSON line per case on stdin. Out: one for each.
Everything is imported and surveyed once; each case is a fork of that state in a process group of its own, so
that a case costs what its work costs and not the start of an interpreter.
"""

import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from select import select
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

import quadmix.engine.pool
from quadmix.annotate.table import Surveyed, survey_parts
from quadmix.corpus.read import read_documents
from quadmix.corpus.scan import open_corpus
from quadmix.engine.tasks import Place, run_tasks, session
from quadmix.io.atomic import read_value, write_json, write_table
from quadmix.materialise.selecting import fit_corpus_normaliser, select_corpus
from quadmix.materialise.verify import verify_run
from quadmix.materialise.write import materialise
from quadmix.mixing.normalise import Normaliser
from quadmix.recipe import CorpusSection, DomainSection, MaterialiseSection
from quadmix.types import Corpus, CriterionInfo, Theta

DOMAINS = ("arts", "code", "law")
CRITERIA = (
    CriterionInfo(name="edu", declared="higher", kind="column", digest="a"),
    CriterionInfo(name="noise", declared="lower", kind="column", digest="b"),
)
THETA = Theta(
    weights=np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]),
    steepness=np.array([20.0, 100.0, 5.0]),
    cutoff=np.array([0.5, 0.4, 0.6]),
    exponent=np.array([1.0, 2.0, 0.5]),
    floor=np.array([0.02, 0.0, 0.1]),
)
DOCUMENTS, FILE_DOCUMENTS = 240, 120
SPLIT_BYTES, SHARD_BYTES = 9_000, 8_000
HANGS = 120.0
CALLS = ("open", "read", "write", "fsync", "close", "rename", "list", "unlink", "mkdir")  # of faulty_disk.c
EXACT_DOCUMENTS = 100  # fewer than the largest domain has: the passes that count in bins run too


@dataclass(frozen=True, kw_only=True)
class World:
    """What all cases share and no kill can reach."""

    corpus: Corpus
    surveyed: Surveyed
    normaliser: Normaliser


def build(folder: Path) -> None:
    """Write two files of input, the frozen corpus in base/, and one annotation part per split."""
    rng = np.random.default_rng(11)
    rows = [
        {"id": f"doc-{i}", "text": f"Text {i} é " + "word " * int(rng.integers(20, 60)), "tag": i % 7}
        for i in range(DOCUMENTS)
    ]
    folder.mkdir(parents=True)
    lines = [orjson.dumps(row) + b"\n" for row in rows[:FILE_DOCUMENTS]]
    (folder / "a.jsonl").write_bytes(b"".join([*lines[:50], b'{"id": "cut", \n', *lines[50:]]))
    pq.write_table(pa.Table.from_pylist(rows[FILE_DOCUMENTS:]), folder / "b.parquet", row_group_size=40)
    section = CorpusSection(
        paths=[str(folder / "a.jsonl"), str(folder / "b.parquet")], split_bytes=SPLIT_BYTES
    )
    corpus = open_corpus(section, str(folder / "base"), mapper=here)
    for split, count in zip(corpus.splits, corpus.counts, strict=True):
        size = count.documents
        ids = [i for batch in read_documents(corpus, split) for i in batch.doc_id]
        table = pa.table(
            {
                "doc_id": ids,
                "tokens": rng.integers(5, 60, size).astype(np.int32),
                "domain": np.array(DOMAINS)[rng.choice(3, size, p=[0.6, 0.3, 0.1])],
                "score:edu": np.where(rng.random(size) < 0.05, np.nan, rng.normal(size=size)).astype("f4"),
                "score:noise": rng.random(size).astype("f4"),
            }
        )
        write_table(folder / "annotations" / f"part-{split.index:05d}.parquet", table)
    write_json(folder / "base" / "theta.json", THETA)


def here(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def load(folder: Path) -> World:
    """Read and survey what `build` wrote."""
    parts = sorted((folder / "annotations").glob("*.parquet"))
    domains = DomainSection(kind="column", column="x", min_documents=1, min_token_share=0.0)
    surveyed = survey_parts(parts, CRITERIA, domains, holdout=0.05, seed=4)
    return World(
        corpus=read_value(folder / "base" / "corpus" / "manifest.json", Corpus),
        surveyed=surveyed,
        normaliser=fit_corpus_normaliser(surveyed),
    )


def prepare(world: Path, folder: Path) -> None:
    """Make a run folder as it is before the selection."""
    shutil.copytree(world / "base", folder)


def produce(
    world: World,
    folder: Path,
    place: Place,
    *,
    order: str = "shuffled",
    format: str = "parquet",
    shuffle: int | None = None,
    wrap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]] | None = None,
) -> None:
    """Select and materialise in `folder`. shuffle: seed of the order in which tasks are given out.

    wrap: puts another function in the place of each that is given out.
    """

    def spread(
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        *,
        fold: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        turn = list(range(len(tasks)))
        if shuffle is not None:
            random.Random(shuffle).shuffle(turn)
        results: dict[int, Any] = {}

        def take(place: int, result: Any) -> None:
            results[turn[place]] = None if fold else result
            if fold:
                fold(turn[place], result)

        run_tasks(
            wrap(function) if wrap else function,
            [tasks[i] for i in turn],
            place=place,
            on_done=take,
            keep=False,
        )
        return [] if fold else [results[i] for i in range(len(tasks))]

    with session(place):
        select_corpus(
            folder, world.surveyed, THETA, world.normaliser, seed=3, exact_documents=EXACT_DOCUMENTS,
            runner=spread,
        )  # fmt: skip
        materialise(
            world.corpus, folder, seed=7, budget=4000, identity="i", theta_label="t", mapper=spread,
            section=MaterialiseSection(shard_bytes=SHARD_BYTES, order=order, format=format),  # pyright: ignore[reportArgumentType]
        )  # fmt: skip


def serve(folder: Path) -> None:
    """Answer one case per line; see `Server.run` in crash_cases.py."""
    world = load(folder)
    print(json.dumps({"threads": len(os.listdir("/proc/self/task"))}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(world, json.loads(line))), flush=True)


def answer(world: World, case: dict[str, Any]) -> dict[str, Any]:
    told = Path(case["folder"] + ".told")
    told.unlink(missing_ok=True)
    start = time.monotonic()
    child = os.fork()
    if not child:
        work(world, case, told)
    killed = watch(child, case)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = told.read_text() if told.is_file() else "{}"
    return {"status": status, "killed": killed, "seconds": time.monotonic() - start, **json.loads(text)}


def work(world: World, case: dict[str, Any], told: Path) -> None:
    """Body of a child: one run; what it has to tell goes to a file beside the run folder."""
    os.setsid()
    out: dict[str, Any] = {}
    code = 1
    try:
        os.environ["QUADMIX_FAULT"] = case.get("point", "")
        if case["start"] == "fork":  # a worker then costs no interpreter's start either
            quadmix.engine.pool.get_context = lambda _method: get_context("fork")  # pyright: ignore[reportAttributeAccessIssue]
        library = arm(case.get("call"))
        place = Place(case["executor"], case["workers"], case.get("address"))
        try:
            produce(
                world, Path(case["folder"]), place, order=case["order"], format=case["format"],
                shuffle=case.get("shuffle"),
            )  # fmt: skip
        finally:
            if library:
                library.fault_off()
                out["calls"] = [library.fault_calls(kind) for kind in range(len(CALLS))]
                out["failed"] = library.fault_path().decode()
        code = 0
    except Exception as error:
        out |= {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    told.write_text(json.dumps(out))
    os._exit(code)


def arm(call: dict[str, Any] | None) -> Any:
    """Ask the preloaded library for a failure: kind, number of the call, errno, once or from then on."""
    if call is None:
        return None
    library = ctypes.CDLL(None)
    library.fault_path.restype = ctypes.c_char_p
    library.fault_arm(CALLS.index(call["kind"]), call["n"], call["errno"], int(call["sticky"]))
    return library


def watch(child: int, case: dict[str, Any]) -> bool:
    """Kill the child's process group, or one of its workers, after so many seconds; was there one to kill?

    A child that hangs is killed too, and then says nothing.
    """
    handle = os.pidfd_open(child)
    try:
        after = case.get("kill_after")
        if select([handle], [], [], HANGS if after is None else after)[0]:
            return False
        if after is None or case.get("victim") != "worker":
            kill_all(child)
            return True
        workers = sorted(children_of(child))
        if workers:
            with suppress(ProcessLookupError):
                os.kill(random.Random(case["seed"]).choice(workers), signal.SIGKILL)
        if not select([handle], [], [], HANGS)[0]:
            kill_all(child)
        return bool(workers)
    finally:
        os.close(handle)


def kill_all(child: int) -> None:
    """Kill a child that was not waited for, so that the number is still its own, with its process group."""
    with suppress(ProcessLookupError):  # it has just begun, and has no group yet
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)


def children_of(parent: int) -> list[int]:
    """Return the living children of a process, its tracker of shared resources aside."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and b"resource_tracker" not in command:
            found.append(int(stat.parent.name))
    return found


def check(folder: Path) -> None:
    """Say what `verify_run` finds, as JSON."""
    report = verify_run(folder)
    print(json.dumps({"failed": [c.name for c in report.checks if not c.ok], "stray": report.stray}))


def drive(world: Path, folder: Path, address: Path) -> None:
    """Select and materialise on a Ray cluster."""
    produce(load(world), folder, Place("ray", 0, str(address)))


COMMANDS: dict[str, Callable[..., None]] = {"build": build, "serve": serve, "check": check, "drive": drive}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
