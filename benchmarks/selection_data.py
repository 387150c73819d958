"""What `selection.py` measures on: shards of text with the selection beside them, and a table without text.

Everything is a function of a size. Documents have log-normal lengths, 26 domains of unequal size, and three
criteria: whole numbers with ties, a probability, and one without bounds. Texts are words of a Zipf
vocabulary, a third of them from the few that the document keeps coming back to, so that zstd finds about as
much to do as in real text.

    <folder>/annotations/  one part per shard, as the stage `annotate` writes them
    <folder>/shards/       Parquet, zstd: id, text, url, language, date, domain, tokens, three scores, copies
    <folder>/copies/       how often each document of a shard is selected, as numpy arrays
    <folder>/run/          corpus/manifest.json, which the scan of the shards leaves
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quadmix.annotate.table import Surveyed, survey_parts
from quadmix.corpus.scan import open_corpus
from quadmix.engine.pool import name_of
from quadmix.engine.tasks import Place, run_tasks
from quadmix.materialise.selecting import fit_corpus_normaliser, select_corpus
from quadmix.materialise.table import SelectionManifest, part_name, read_part
from quadmix.mixing.batch import fit_budgets, stack_thetas
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.recipe import CorpusSection, DomainSection
from quadmix.rng import doc_keys
from quadmix.types import CriterionInfo, Theta

DOMAINS, SEED, SHARE = 26, 7, 0.15
WORDS, TOPIC, URN = 60_000, 48, 1 << 20
CODEC, GROUP_ROWS, BATCH_ROWS = "zstd", 10_000, 1_000
LENGTH = (5.9, 1.0)  # mean and sd of the log of a document's words
SECTION = DomainSection(kind="column", column="domain", min_documents=1, min_token_share=0.0)
CRITERIA = (
    CriterionInfo(name="edu", declared="higher", kind="column", digest="1"),
    CriterionInfo(name="quality", declared="higher", kind="column", digest="2"),
    CriterionInfo(name="perplexity", declared="lower", kind="column", digest="3"),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """shards x documents in each."""

    shards: int
    documents: int
    seed: int = SEED


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """One part to make. text: of a shard beside it, with the copies of its documents."""

    folder: str
    part: int
    size: Size


@dataclass(kw_only=True)
class Clock:
    """Runs passes somewhere and notes the seconds of each; several passes of one function are added."""

    place: Place
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def __call__(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        /,
        *,
        fold: Callable[[int, Any], None] | None = None,
    ) -> list[Any]:
        begun = time.perf_counter()
        done = run_tasks(function, tasks, place=self.place, on_done=fold, keep=fold is None)
        name = name_of(function)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        self.calls[name] = self.calls.get(name, 0) + 1
        return done


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A selection and what led to it. budget: tokens asked for."""

    surveyed: Surveyed
    theta: Theta
    manifest: SelectionManifest
    budget: int


def select(run: Path, parts: Sequence[Path], clock: Clock) -> Selected:
    """Select a share of the tokens as `quadmix run` does with a θ from elsewhere: nothing is known but θ and
    the annotation parts."""
    surveyed = survey_parts(parts, CRITERIA, SECTION, seed=SEED, mapper=clock)
    normaliser = fit_corpus_normaliser(surveyed, runner=clock)
    budget = int(SHARE * surveyed.open_tokens.sum())
    prior = Prior(num_domains=DOMAINS, num_criteria=len(CRITERIA))
    (drawn,) = draw_theta(np.random.default_rng(SEED), prior, 1)
    fitted = fit_budgets(stack_thetas([drawn]), surveyed.open_tokens, float(budget))
    theta = fitted.batch.theta(0)
    manifest = select_corpus(run, surveyed, theta, normaliser, seed=SEED, runner=clock)
    return Selected(surveyed=surveyed, theta=theta, manifest=manifest, budget=budget)


def make_corpus(folder: Path, size: Size) -> None:
    """Make shards, annotations and the selection among them; a folder that was made is left as it is."""
    if (folder / "run" / "corpus" / "manifest.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    make_parts(folder, size)
    tasks = [PartTask(folder=str(folder), part=i, size=size) for i in range(size.shards)]
    parts = sorted((folder / "annotations").glob("part-*.parquet"))
    selected = select(folder / "chosen", parts, Clock(place=Place("threads", 2)))
    (folder / "copies").mkdir()
    for part in selected.manifest.parts:
        np.save(copies_file(folder, part.split), read_part(folder / "chosen", part.split).copies)
    run_tasks(write_shard, tasks, place=Place("processes", 2))
    shards = [str(folder / "shards" / part_name(i)) for i in range(size.shards)]
    section = CorpusSection(paths=shards, split_bytes=1 << 40)
    open_corpus(section, str(folder / "run"), mapper=Clock(place=Place("processes", 2)))
    shutil.rmtree(folder / "chosen")


def make_parts(folder: Path, size: Size) -> list[Path]:
    """Make the annotation parts alone."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    tasks = [PartTask(folder=str(folder), part=i, size=size) for i in range(size.shards)]
    run_tasks(write_annotations, tasks, place=Place("processes", 2))
    return sorted((folder / "annotations").glob("part-*.parquet"))


def copies_file(folder: Path, part: int) -> Path:
    return folder / "copies" / f"part-{part:05d}.npy"


def write_annotations(task: PartTask) -> None:
    """Write one annotation part."""
    table = annotations(task)
    pq.write_table(table, Path(task.folder) / "annotations" / part_name(task.part), compression="zstd")


def annotations(task: PartTask) -> pa.Table:
    """Return the annotations of one part: ids, keys, lengths, domains, scores that depend on both."""
    rng = np.random.default_rng([task.size.seed, 1, task.part])
    size = task.size.documents
    ids = hex_ids(rng, size)
    words = np.clip(rng.lognormal(*LENGTH, size), 5, 20_000).astype(np.int64)
    weights = 1.0 / np.arange(1, DOMAINS + 1) ** 0.8
    domain = rng.choice(DOMAINS, size, p=weights / weights.sum())
    latent = rng.normal(size=size) + 0.3 * np.log(words / 400) + 0.5 * np.sin(domain)
    noise = rng.normal(size=(3, size))
    quality = 1.0 / (1.0 + np.exp(-2.0 * (latent + noise[1])))
    labels = pa.array([f"domain-{m:02d}" for m in range(DOMAINS)])
    return pa.table(
        {
            "doc_id": ids,
            "key": pa.array(doc_keys(ids.to_pylist()), pa.uint64()),
            "tokens": pa.array((1.3 * words).astype(np.int32)),
            "domain": labels.take(pa.array(domain)),
            "score:edu": pa.array(np.clip(np.round(2.0 + latent + noise[0]), 0, 5).astype(np.float32)),
            "score:quality": pa.array(quality.astype(np.float32)),
            "score:perplexity": pa.array(np.exp(4.0 - 0.3 * latent + 0.5 * noise[2]).astype(np.float32)),
        }
    )


def hex_ids(rng: np.random.Generator, size: int) -> pa.Array:
    """Return random ids of 16 hexadecimal digits."""
    raw = rng.integers(0, 256, (size, 8), dtype=np.uint8)
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    letters = np.stack([digits[raw >> 4], digits[raw & 15]], axis=2).reshape(size, 16)
    offsets = (16 * np.arange(size + 1)).astype(np.int32)
    return pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(letters.tobytes()))


@cache
def vocabulary() -> pa.Array:
    """Return the words, frequent and short ones first; the second half ends a sentence."""
    rng = np.random.default_rng(SEED)
    onsets = ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "st", "tr", "ch", "v", "w", ""]
    vowels, codas = ["a", "e", "i", "o", "u", "ea", "io"], ["", "", "n", "r", "s", "t", "l", "ng", "nd"]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        count = 1 + int(rng.poisson(0.3 + 0.22 * np.log1p(len(words))))
        parts = (
            onsets[rng.integers(18)] + vowels[rng.integers(7)] + codas[rng.integers(9)] for _ in range(count)
        )
        words["".join(parts)] = None
    return pa.array([*words, *(f"{w}." for w in words)], pa.string())


@cache
def urn() -> np.ndarray:
    """Return words as often as they occur, to draw from by a random index."""
    weights = 1.0 / (np.arange(WORDS) + 2.7) ** 1.07
    edges = np.round(np.cumsum(weights / weights.sum()) * URN).astype(np.int64)
    return np.searchsorted(edges, np.arange(URN), side="right").clip(0, WORDS - 1).astype(np.int32)


def texts(rng: np.random.Generator, words: np.ndarray) -> pa.Array:
    """Return a text for each number of words."""
    total = int(words.sum())
    chosen = urn()[rng.integers(0, URN, total, dtype=np.uint32)]
    topics = urn()[rng.integers(0, URN, (len(words), TOPIC), dtype=np.uint32)]
    document = np.repeat(np.arange(len(words)), words)
    again = np.flatnonzero(rng.random(total, dtype=np.float32) < 0.35)
    chosen[again] = topics[document[again], rng.integers(0, TOPIC, len(again))]
    chosen[rng.random(total, dtype=np.float32) < 1 / 14] += WORDS
    offsets = np.concatenate([[0], np.cumsum(words)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), vocabulary().take(pa.array(chosen)))
    return pc.binary_join(lists, " ")


def write_shard(task: PartTask) -> None:
    """Write one shard: the user's file, with the copies of the selection as one of his columns."""
    folder, rng = Path(task.folder), np.random.default_rng([task.size.seed, 2, task.part])
    known = pq.read_table(folder / "annotations" / part_name(task.part))
    size = known.num_rows
    words = (known["tokens"].to_numpy() / 1.3).round().astype(np.int64)
    paths = pa.array([f"https://www.site-{s}.example/{p}" for s, p in rng.integers(0, 1 << 20, (size, 2))])
    table = pa.table(
        {
            "id": known["doc_id"],
            "text": texts(rng, words),
            "url": paths,
            "language": pa.array(np.full(size, "en")),
            "date": pa.array(rng.integers(1_400_000_000, 1_700_000_000, size), pa.timestamp("s")),
            "domain": known["domain"],
            "tokens": known["tokens"],
            **{c.name: known[f"score:{c.name}"] for c in CRITERIA},
            "copies": pa.array(np.load(copies_file(folder, task.part)), pa.int32()),
        }
    )
    (folder / "shards").mkdir(exist_ok=True)
    path = folder / "shards" / part_name(task.part)
    pq.write_table(table, path, compression=CODEC, row_group_size=GROUP_ROWS)
