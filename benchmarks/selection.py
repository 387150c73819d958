"""What the selection of a corpus costs: beside the least any tool must do, beside others, and at scale.

    python benchmarks/selection.py [--quick] [--only materialise|ray|datatrove|table|sweep ...] [--rounds 3]
                                   [--folder F] [--documents N]

Data are made on the spot (`selection_data.py`), all with one seed: 40 zstd shards, 1.2 GB in all, of which
15 % of the tokens are selected, and their annotation parts. Every contender runs in a fresh process, in turn
round after round; ratios are taken inside a round and medians given. Seconds count from the first look at the
data to the last byte, without the start of Python; files are in the page cache; memory is the peak of the
whole process tree (proportional set size ten times a second, or the resident set of the leader if larger).

materialise: `floor` knows the copies of every document beforehand: it reads all columns in batches of 1,000
    rows with two threads and writes the selected rows in row groups of 10,000, same codec. `threads` and
    `processes` are ours: survey of the annotation parts, normaliser, budget, selection, and the dataset in
    the order of the corpus, checked and committed; its text is copied by two threads, or by two processes
    (numbers are always in threads, as `quadmix run` does it on one machine). `duckdb`, where installed: a
    join with the copies, known beforehand. The scan of the corpus and the annotators are no part of the
    selection and are not counted.
ray: `processes` against a Ray cluster of two workers that is there already and does everything; its start
    is given apart.
datatrove: keep or drop by a column of the same shards, two workers; ParquetReader and LambdaFilter as they
    are, ParquetWriter with the same codec, row groups of 10,000, no page index and no content-defined
    chunks (which are its default, and slower); each kept document once, where ours writes all copies.
table: annotations of 100 million documents without text (--documents), within 8 GB.
sweep: `sweep.py`, as a part of this.
`cpu` is the processor time of the whole tree, its start left out: the ratio to look at where a part says
`void`, which is where contenders did not get their two cores.
The last line is one JSON object with all numbers and what passed. --quick: a tenth of the text, 5 million
documents; bars are stated for the full size.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from selection_data import (
    BATCH_ROWS,
    CODEC,
    GROUP_ROWS,
    SEED,
    Clock,
    Size,
    copies_file,
    make_corpus,
    make_parts,
    select,
)

from quadmix.engine.tasks import Place, session
from quadmix.io.atomic import read_value
from quadmix.materialise.write import materialise
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus

SPEED, MEMORY, RAY, DATATROVE, TABLE_GB = 0.87, 1.5, 1.25, 5.0, 8.0
TABLE_PART = 500_000  # documents
WORKERS = 2
THREADS = Place("threads", WORKERS)
Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where data lie and runs go."""

    folder: Path
    quick: bool
    rounds: int
    documents: int

    @property
    def corpus(self) -> Path:
        return self.folder / ("corpus-quick" if self.quick else "corpus")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where data are made, and found again (a temporary folder)"
    )
    parser.add_argument("--documents", type=int, default=0, help="of the table: 100 million, 5 with --quick")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        sys.stdout.write(json.dumps(STEPS[options.step](options.folder, options.out)) + "\n")
        return
    documents = options.documents or (5_000_000 if options.quick else 100_000_000)
    with tempfile.TemporaryDirectory(prefix="quadmix-selection-") as temporary:
        work = Work(
            folder=options.folder or Path(temporary), quick=options.quick, rounds=options.rounds,
            documents=documents,
        )  # fmt: skip
        found = {part: PARTS[part](work) for part in options.only}
    passed = {f"{part}.{name}": ok for part in found for name, ok in found[part].get("passed", {}).items()}
    result = {
        "quick": options.quick,
        "rounds": options.rounds,
        "passed": passed,
        **found,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def machine() -> Facts:
    """Return what the numbers depend on."""
    names = ("numpy", "pyarrow", "duckdb", "ray", "datatrove")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = {name: version(name) for name in names} | {"python": platform.python_version()}
    return {"cores": len(os.sched_getaffinity(0)), "memory_gb": round(memory, 1), "versions": versions}


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# The parts


def measure_materialise(work: Work) -> Facts:
    """The dataset against the floor, with threads and with processes."""
    corpus = text_corpus(work)
    names = ["floor", "threads", "processes", *(["duckdb"] if version("duckdb") else [])]
    rounds = interleaved(corpus, names, work.rounds)
    check_rows(rounds, ["floor", "threads", "processes"])
    speed = {n: ratios(rounds, "floor", n) for n in names[1:]}
    memory = {n: ratios(rounds, n, "floor", "gb") for n in names[1:]}
    show(rounds)
    return {
        "seconds": medians(rounds), "gb": medians(rounds, "gb"),
        "cpu": medians(rounds, "cpu"), "cores": medians(rounds, "cores"),
        "speed": {n: median(v) for n, v in speed.items()}, "speed_rounds": speed,
        "cpu_speed": {n: median(ratios(rounds, "floor", n, "cpu")) for n in names[1:]}, "void": void(rounds),
        "memory": {n: median(v) for n, v in memory.items()},
        "passes": {n: [r[n]["passes"] for r in rounds] for n in ("threads", "processes")},
        "input": input_facts(corpus), "bars": {"speed": SPEED, "memory": MEMORY},
        "passed": {
            "threads_speed": median(speed["threads"]) >= SPEED,
            "processes_speed": median(speed["processes"]) >= SPEED,
            "threads_memory": median(memory["threads"]) <= MEMORY,
            "processes_memory": median(memory["processes"]) <= MEMORY,
        },
    }  # fmt: skip


def measure_ray(work: Work) -> Facts:
    """The same job by two local processes and by two workers of a Ray cluster."""
    if not version("ray"):
        return {"skipped": "ray is not installed"}
    rounds = interleaved(text_corpus(work), ["processes", "ray"], work.rounds)
    show(rounds)
    times = ratios(rounds, "ray", "processes")
    same = len({(r[n]["dataset"], r[n]["selection"]) for r in rounds for n in r}) == 1
    return {
        "seconds": medians(rounds), "times": median(times), "times_rounds": times,
        "cpu": medians(rounds, "cpu"), "cores": medians(rounds, "cores"), "void": void(rounds),
        "start_seconds": median(r["ray"]["start"] for r in rounds),
        "passes": {n: [r[n]["passes"] for r in rounds] for n in ("processes", "ray")},
        "bars": {"times": RAY}, "passed": {"times": median(times) <= RAY, "same_digests": same},
    }  # fmt: skip


def measure_datatrove(work: Work) -> Facts:
    """Ours, selection and all, against datatrove with the selection known."""
    if not version("datatrove"):
        return {"skipped": "datatrove is not installed"}
    rounds = interleaved(text_corpus(work), ["threads", "processes", "datatrove"], work.rounds)
    show(rounds)
    for row in rounds:
        if row["datatrove"]["rows"] != row["threads"]["documents"]:
            raise SystemExit(f"datatrove kept other documents than were selected: {row}")
    times = {n: ratios(rounds, "datatrove", n) for n in ("threads", "processes")}
    gb = medians(rounds, "gb")
    return {
        "seconds": medians(rounds), "gb": gb,
        "times": {n: median(v) for n, v in times.items()}, "times_rounds": times,
        "cpu": medians(rounds, "cpu"), "cores": medians(rounds, "cores"), "void": void(rounds),
        "cpu_times": {n: median(ratios(rounds, "datatrove", n, "cpu")) for n in times},
        "bars": {"times": DATATROVE},
        "passed": {
            "times": median(times["threads"]) >= DATATROVE, "memory": gb["threads"] <= gb["datatrove"],
            "processes_times": median(times["processes"]) >= DATATROVE,
            "processes_memory": gb["processes"] <= gb["datatrove"],
        },
    }  # fmt: skip


def measure_table(work: Work) -> Facts:
    """The selection among very many documents, without their text."""
    folder = work.folder / "table"
    shutil.rmtree(folder, ignore_errors=True)
    parts = max(1, work.documents // TABLE_PART)
    begun = time.perf_counter()
    make_parts(folder, Size(shards=parts, documents=work.documents // parts))
    made = time.perf_counter() - begun
    found = measured("table", folder, work.folder / "out")
    shutil.rmtree(folder)
    sys.stderr.write(f"table {found['seconds']:.1f} s, {found['gb']:.2f} GB\n")
    return found | {
        "made_seconds": made, "bars": {"gb": TABLE_GB}, "passed": {"gb": found["gb"] <= TABLE_GB},
    }  # fmt: skip


def measure_sweep(work: Work) -> Facts:
    """The sweep's own benchmark."""
    script = Path(__file__).with_name("sweep.py")
    if not script.is_file():
        return {"skipped": f"{script.name} is not there"}
    command = [sys.executable, str(script), *(["--quick"] if work.quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"passed": {"sweep": bool(found["passed"])}}


def text_corpus(work: Work) -> Path:
    make_corpus(work.corpus, Size(shards=40, documents=1_600 if work.quick else 16_000))
    return work.corpus


def input_facts(corpus: Path) -> Facts:
    shards = sorted((corpus / "shards").glob("*.parquet"))
    files = [pq.ParquetFile(path) for path in shards]
    groups = [f.metadata.row_group(g).total_byte_size for f in files for g in range(f.num_row_groups)]
    return {
        "shards": len(shards), "documents": sum(f.metadata.num_rows for f in files),
        "gb": sum(p.stat().st_size for p in shards) / 1e9, "plain_gb": sum(groups) / 1e9,
    }  # fmt: skip


# Rounds of fresh processes


def interleaved(corpus: Path, names: list[str], rounds: int) -> list[dict[str, Facts]]:
    """Return what each contender gave in each round; every other round runs them backwards."""
    found: list[dict[str, Facts]] = []
    for number in range(rounds):
        order = names if number % 2 == 0 else names[::-1]
        found.append({name: measured(name, corpus, corpus.parent / "out") for name in order})
    return found


def measured(step: str, folder: Path, out: Path) -> Facts:
    """Run one step in a fresh process and return its facts with the peak of its memory in GB."""
    shutil.rmtree(out, ignore_errors=True)
    if (folder / "run").is_dir():
        shutil.copytree(folder / "run", out)
    out.mkdir(exist_ok=True)
    os.sync()  # nobody pays for what another wrote
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--out", str(out)]
    tree = Tree()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        texts: list[str] = []
        reader = threading.Thread(target=lambda: texts.append(process.stdout.read()))  # type: ignore[union-attr]
        reader.start()
        while process.poll() is None:
            tree.look(process.pid)
            time.sleep(0.1)
        reader.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    facts = json.loads(texts[0].strip().splitlines()[-1])
    shutil.rmtree(out)
    cpu = facts["own_cpu"] + sum(seconds for pid, seconds in tree.cpu.items() if pid != process.pid)
    return facts | {
        "gb": max(tree.peak, facts["own_bytes"]) / 1e9, "cpu": cpu, "cores": cpu / facts["seconds"]
    }  # fmt: skip


@dataclass
class Tree:
    """A process and its descendants as they were seen. peak: bytes. cpu: seconds of each so far."""

    peak: int = 0
    cpu: dict[int, float] = field(default_factory=dict)

    def look(self, root: int) -> None:
        children: dict[int, list[int]] = {}
        spent: dict[int, float] = {}
        for pid, parent, seconds in running():
            children.setdefault(parent, []).append(pid)
            spent[pid] = seconds
        total, open_ = 0, [root]
        while open_:
            one = open_.pop()
            open_ += children.get(one, [])
            self.cpu[one] = spent.get(one, self.cpu.get(one, 0.0))
            total += proportional_bytes(one)
        self.peak = max(self.peak, total)


def running() -> Iterator[tuple[int, int, float]]:
    """Yield (process, parent, its processor seconds) of all that run."""
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                yield int(entry.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, pages that others share counted in part; 0 if it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


def ratios(rounds: list[dict[str, Facts]], upper: str, lower: str, what: str = "seconds") -> list[float]:
    return [r[upper][what] / r[lower][what] for r in rounds]


def medians(rounds: list[dict[str, Facts]], what: str = "seconds") -> dict[str, float]:
    return {name: median(r[name][what] for r in rounds) for name in rounds[0]}


def void(rounds: list[dict[str, Facts]]) -> bool:
    """Did other programs use the machine, so that ratios of seconds mean little? Then look at `cpu`."""
    return any(r[n]["cores"] < 0.6 * WORKERS for r in rounds for n in r if n != "ray")


def show(rounds: list[dict[str, Facts]]) -> None:
    for name in rounds[0]:
        seconds, gb = [r[name]["seconds"] for r in rounds], [r[name]["gb"] for r in rounds]
        line = f"{name:10} {median(seconds):7.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
        sys.stderr.write(
            f"{line}  {median(gb):5.2f} GB  {median(r[name]['cpu'] for r in rounds):6.2f} s cpu\n"
        )


def check_rows(rounds: list[dict[str, Facts]], names: list[str]) -> None:
    """Nobody may win by writing less."""
    if len({r[n]["rows"] for r in rounds for n in names}) != 1:
        raise SystemExit(f"the contenders wrote different numbers of rows: {rounds}")


# Steps: each in a process of its own


@dataclass(frozen=True, kw_only=True)
class Begun:
    """When a step began, on the wall and on the processor."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)


def step_ours(folder: Path, out: Path, numbers: Place, text: Place) -> Facts:
    """Select at one place and write at another; `out` holds corpus/manifest.json already."""
    clock, writing = Clock(place=numbers), Clock(place=text)
    begun = Begun()
    corpus = read_value(out / "corpus" / "manifest.json", Corpus)
    selected = select(out, annotation_parts(folder), clock)
    dataset = materialise(
        corpus, out, section=MaterialiseSection(order="corpus"), seed=SEED, budget=selected.budget,
        identity="benchmark", theta_label="benchmark", mapper=writing,
    )  # fmt: skip
    return own(begun) | {
        "passes": clock.seconds | writing.seconds,
        "rows": sum(s.rows for s in dataset.shards), "documents": dataset.ledger.selected,
        "dataset": dataset.digest, "selection": selected.manifest.digest,
    }  # fmt: skip


def step_ray(folder: Path, out: Path) -> Facts:
    """The same on a Ray cluster; it starts with the session, its workers with a task that does nothing."""
    place = Place("ray", WORKERS)
    begun = Begun()
    with session(place):
        Clock(place=place)(os.path.basename, ["warm"] * (2 * WORKERS))
        start = own(begun)["seconds"]
        return step_ours(folder, out, place, place) | {"start": start}


def step_floor(folder: Path, out: Path) -> Facts:
    """Read everything, write what is selected; the selection is known beforehand."""
    shards = sorted((folder / "shards").glob("*.parquet"))
    begun = Begun()
    with ThreadPoolExecutor(WORKERS) as pool:
        rows = sum(pool.map(partial(filter_shard, folder, out), range(len(shards)), shards))
    return own(begun) | {"rows": rows}


def filter_shard(folder: Path, out: Path, number: int, path: Path) -> int:
    """Write the copies of one shard and return how many there were."""
    copies, rows = np.load(copies_file(folder, number)), 0
    sink = out / path.name
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(sink, file.schema_arrow, compression=CODEC) as writer,
    ):
        for table in grouped(file, copies):
            writer.write_table(table)
            rows += table.num_rows
    return rows


def grouped(file: pq.ParquetFile, copies: np.ndarray) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    seen = rows = 0
    for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
        wanted = copies[seen : seen + batch.num_rows]
        seen += batch.num_rows
        if wanted.any():
            held.append(batch.take(pa.array(np.repeat(np.arange(len(wanted)), wanted))))
            rows += held[-1].num_rows
        if rows >= GROUP_ROWS:
            yield pa.Table.from_batches(held).combine_chunks()
            held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def step_duckdb(folder: Path, out: Path) -> Facts:
    """Join with one row per copy, known beforehand."""
    import duckdb

    ids = [pq.read_table(p, columns=["doc_id"])["doc_id"] for p in annotation_parts(folder)]
    copies = np.concatenate([np.load(copies_file(folder, i)) for i in range(len(ids))])
    chosen = pa.chunked_array([c for i in ids for c in i.chunks]).take(
        pa.array(np.repeat(np.arange(len(copies)), copies))
    )
    pq.write_table(pa.table({"id": chosen}), out / "chosen.parquet")
    begun = Begun()
    duckdb.execute(f"SET threads = {WORKERS}; SET preserve_insertion_order = false")
    duckdb.execute(
        f"COPY (SELECT d.* FROM read_parquet('{folder}/shards/*.parquet') d "
        f"JOIN read_parquet('{out}/chosen.parquet') c ON d.id = c.id) TO '{out}/dataset' "
        f"(FORMAT parquet, CODEC {CODEC}, ROW_GROUP_SIZE {GROUP_ROWS}, PER_THREAD_OUTPUT)"
    )
    facts = own(begun)
    rows = sum(pq.ParquetFile(p).metadata.num_rows for p in (out / "dataset").glob("*.parquet"))
    return facts | {"rows": rows}


def step_datatrove(folder: Path, out: Path) -> Facts:
    """Keep or drop by the column `copies`."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    shards = len(list((folder / "shards").glob("*.parquet")))
    executor = LocalPipelineExecutor(
        [
            ParquetReader(str(folder / "shards"), batch_size=BATCH_ROWS),
            LambdaFilter(lambda doc: doc.metadata["copies"] > 0),
            ParquetWriter(
                str(out / "dataset"), compression=CODEC, batch_size=GROUP_ROWS, expand_metadata=True,
                use_content_defined_chunking=False, write_page_index=False,
            ),
        ],
        tasks=shards, workers=WORKERS, logging_dir=str(out / "logs"),
    )  # fmt: skip
    begun = Begun()
    executor.run()
    facts = own(begun)
    rows = sum(pq.ParquetFile(p).metadata.num_rows for p in (out / "dataset").glob("*.parquet"))
    return facts | {"rows": rows}


def step_table(folder: Path, out: Path) -> Facts:
    """Select among the documents of the annotation parts."""
    clock = Clock(place=THREADS)
    begun = Begun()
    selected = select(out, annotation_parts(folder), clock)
    return own(begun) | {
        "passes": clock.seconds, "calls": clock.calls,
        "documents": sum(p.documents for p in selected.manifest.parts),
        "selected": sum(p.selected for p in selected.manifest.parts),
    }  # fmt: skip


def annotation_parts(folder: Path) -> list[Path]:
    return sorted((folder / "annotations").glob("part-*.parquet"))


def own(begun: Begun) -> Facts:
    """Return what this process took since `begun`; own_bytes: its largest resident set."""
    seconds, cpu = time.perf_counter() - begun.wall, time.process_time() - begun.cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "own_cpu": cpu, "own_bytes": peak}


STEPS: dict[str, Callable[[Path, Path], Facts]] = {
    "floor": step_floor,
    "threads": partial(step_ours, numbers=THREADS, text=THREADS),
    "processes": partial(step_ours, numbers=THREADS, text=Place("processes", WORKERS)),
    "ray": step_ray,
    "duckdb": step_duckdb,
    "datatrove": step_datatrove,
    "table": step_table,
}
PARTS: dict[str, Callable[[Work], Facts]] = {
    "materialise": measure_materialise,
    "ray": measure_ray,
    "datatrove": measure_datatrove,
    "table": measure_table,
    "sweep": measure_sweep,
}

if __name__ == "__main__":
    main()
