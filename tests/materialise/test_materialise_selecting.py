"""The streaming selection against the one in memory, on the same documents."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quadmix.annotate.survey import SELECTABLE
from quadmix.annotate.table import LoadedAnnotations, Surveyed, load_table, survey_parts
from quadmix.engine.tasks import Place, run_tasks
from quadmix.errors import BudgetError
from quadmix.io.atomic import file_digest, write_table
from quadmix.materialise.ranks import read_ranks
from quadmix.materialise.selecting import fit_corpus_normaliser, rough_domains, select_corpus
from quadmix.materialise.table import read_manifest, read_selection
from quadmix.mixing.normalise import Kind, Normaliser, fit_normaliser, normalise
from quadmix.mixing.rank import RankMode
from quadmix.mixing.select import select
from quadmix.mixing.tally import (
    add_bins,
    closed_bins,
    finer_edges,
    first_edges,
    merge_tallies,
    open_bins,
    tally,
    tally_bins,
)
from quadmix.recipe import DomainSection
from quadmix.types import CriterionInfo, Theta

CRITERIA = (
    CriterionInfo(name="edu", declared="higher", kind="column", digest="a"),
    CriterionInfo(name="noise", declared="lower", kind="column", digest="b"),
)
DOMAINS = DomainSection(kind="column", column="x", min_documents=1, min_token_share=0.0)
THETA = Theta(
    weights=np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]),
    steepness=np.array([20.0, 100.0, 5.0]),
    cutoff=np.array([0.4, 0.3, 0.5]),
    exponent=np.array([1.0, 2.0, 0.5]),
    floor=np.array([0.02, 0.0, 0.1]),
)


@dataclass(frozen=True, kw_only=True)
class World:
    surveyed: Surveyed
    loaded: LoadedAnnotations
    normaliser: Normaliser


def write_parts(folder: Path, documents: int, parts: int, seed: int = 1, prefix: str = "d") -> list[Path]:
    """Annotation parts of unequal size with ties, missing scores and a part without documents."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, documents, parts - 2)).tolist()
    paths: list[Path] = []
    for i, (start, stop) in enumerate(
        zip([0, *edges, documents], [*edges, documents, documents], strict=True)
    ):
        size = stop - start
        edu = np.where(rng.random(size) < 0.5, rng.integers(0, 6, size), rng.normal(2, 1, size))
        part = {
            "doc_id": pa.array([f"{prefix}{j}" for j in range(start, stop)], pa.string()),
            "tokens": pa.array(rng.integers(1, 500, size), pa.int32()),
            "domain": pa.array(
                np.array(["a", "b", "c"])[rng.choice(3, size, p=[0.6, 0.3, 0.1])], pa.string()
            ),
            "score:edu": pa.array(np.where(rng.random(size) < 0.05, np.nan, edu).astype(np.float32)),
            "score:noise": pa.array(rng.random(size).astype(np.float32)),
        }
        paths.append(folder / f"part-{i:05d}.parquet")
        write_table(paths[-1], pa.table(part))
    return paths


def build(folder: Path, documents: int = 3000, parts: int = 6) -> World:
    paths = write_parts(folder / "annotations", documents, parts)
    surveyed = survey_parts(paths, CRITERIA, DOMAINS, holdout=0.05, seed=4)
    loaded = load_table(surveyed)
    return World(surveyed=surveyed, loaded=loaded, normaliser=fit_normaliser(loaded.selectable))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def run(world: World, folder: Path, **changes: Any) -> Any:
    asked: dict[str, Any] = {"seed": 3} | changes
    return select_corpus(folder, world.surveyed, THETA, world.normaliser, **asked)


def runner(executor: str) -> Any:
    def mapped(
        function: Callable[[Any], Any], tasks: Sequence[Any], fold: Callable[[int, Any], None] | None = None
    ) -> list[Any]:
        return run_tasks(function, tasks, place=Place(executor, 2), on_done=fold, keep=fold is None)  # pyright: ignore[reportArgumentType]

    return mapped


def files(folder: Path) -> dict[str, str]:
    return {p.name: file_digest(p) for p in (folder / "selection").iterdir() if p.is_file()}


@pytest.mark.parametrize("mode", ["interval", "paper", "hash-tiebreak"])
def test_copies_and_ranks_are_those_of_the_selection_in_memory(
    world: World, tmp_path: Path, mode: RankMode
) -> None:
    run(world, tmp_path, rank_mode=mode)
    table, chosen = read_selection(tmp_path), world.loaded.selectable
    norms = normalise(world.normaliser, chosen.scores, chosen.domain)
    expected = select(THETA, norms, chosen, seed=3, rank_mode=mode)
    rows = world.loaded.excluded == SELECTABLE
    assert np.array_equal(table.copies[rows], expected.copies)
    assert np.array_equal(table.ranks.low[rows], expected.ranks.low)
    assert np.array_equal(table.ranks.high[rows], expected.ranks.high)
    assert np.array_equal(table.expected[rows], expected.expected)
    assert np.array_equal(table.merged[rows], expected.merged)
    assert not table.copies[~rows].any()
    assert table.doc_id.to_pylist() == world.loaded.table.doc_id.to_pylist()


def test_domains_in_bins_have_ranks_within_a_ten_thousandth(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "exact")
    run(world, tmp_path / "rough", exact_documents=0)
    exact, rough = read_selection(tmp_path / "exact"), read_selection(tmp_path / "rough")
    rows = exact.selectable
    for name in ("low", "high"):
        gap = np.abs(getattr(exact.ranks, name)[rows] - getattr(rough.ranks, name)[rows])
        assert gap.max() <= 1e-4 + 500 / float(world.surveyed.open_tokens.min())  # a document cannot be cut
    tokens = exact.tokens[rows].astype(np.float64)
    for m, longest in enumerate(np.maximum.reduceat(np.full(3, 500), [0, 1, 2])):
        mine = exact.domain[rows] == m
        wanted = tokens[mine] @ rough.expected[rows][mine]
        assert abs(tokens[mine] @ rough.copies[rows][mine] - wanted) <= longest
        assert wanted == pytest.approx(tokens[mine] @ exact.expected[rows][mine], rel=1e-9)


def test_every_executor_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "serial", exact_documents=500)
    for executor in ("threads", "processes"):
        run(world, tmp_path / executor, exact_documents=500, runner=runner(executor))
        assert files(tmp_path / executor) == files(tmp_path / "serial")


def test_the_same_call_again_reads_what_is_there_and_another_replaces_it(
    world: World, tmp_path: Path
) -> None:
    first = run(world, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "selection").iterdir()}
    assert run(world, tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "selection").iterdir()} == before
    other = run(world, tmp_path, seed=5)
    assert other.digest != first.digest
    assert other == read_manifest(tmp_path)
    assert not (tmp_path / "selection" / ".work").exists()


def test_counts_add_up_and_the_rank_table_holds_all_tokens(world: World, tmp_path: Path) -> None:
    manifest = run(world, tmp_path)
    table = read_selection(tmp_path)
    assert sum(p.documents for p in manifest.parts) == len(table)
    assert sum(p.selected for p in manifest.parts) == int((table.copies > 0).sum())
    assert sum(sum(p.dropped.values()) for p in manifest.parts) == int((table.copies == 0).sum())
    assert sum(d.tokens_out for p in manifest.parts for d in p.domains) == table.tokens_out
    assert read_ranks(tmp_path).tokens.tolist() == world.surveyed.open_tokens.tolist()


_CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_materialise_selecting import build, run
run(build(Path(sys.argv[1]) / "world"), Path(sys.argv[1]), exact_documents=500)
"""


@pytest.mark.parametrize("point", ["select.merged@3", "select.part@2", "select.before_manifest"])
def test_killed_anywhere_the_same_call_gives_the_same_bytes(world: World, tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path), str(Path(__file__).parent)]
    killed = subprocess.run(command, env={**os.environ, "QUADMIX_FAULT": point}, check=False, timeout=120)
    assert killed.returncode == -9
    assert not (tmp_path / "selection" / "manifest.json").exists()
    again = build(tmp_path / "world")
    run(again, tmp_path, exact_documents=500)
    run(again, tmp_path / "whole", exact_documents=500)
    assert files(tmp_path) == files(tmp_path / "whole")


def test_hash_tiebreak_refuses_domains_that_do_not_fit(world: World, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"rank_mode is hash-tiebreak.*raise exact_documents"):
        run(world, tmp_path, rank_mode="hash-tiebreak", exact_documents=10)


def test_no_selectable_document_is_refused(world: World, tmp_path: Path) -> None:
    empty = replace(world.surveyed, open_documents=np.zeros(3))
    with pytest.raises(BudgetError, match="no document may be selected"):
        select_corpus(tmp_path, empty, THETA, world.normaliser, seed=0)


@pytest.mark.parametrize("kind", ["rank-global", "rank-domain", "robust-z"])
def test_the_normaliser_is_fitted_part_by_part(world: World, kind: Kind) -> None:
    chosen = world.loaded.selectable
    exact = normalise(fit_normaliser(chosen, kind), chosen.scores, chosen.domain)
    streamed = fit_corpus_normaliser(world.surveyed, kind)
    assert np.array_equal(normalise(streamed, chosen.scores, chosen.domain), exact, equal_nan=True)
    coarse = fit_corpus_normaliser(world.surveyed, kind, exact_documents=0)
    near = normalise(coarse, chosen.scores, chosen.domain)
    gap = np.abs(near - exact)
    assert np.nanmax(gap) < 1e-2  # two neighbours became one value: half a document of the smallest domain
    assert np.nanmean(gap) < 1e-4


def test_the_smallest_domains_are_exact() -> None:
    assert rough_domains(np.array([50.0, 10.0, 30.0]), 40) == (0,)
    assert rough_domains(np.array([50.0, 10.0, 30.0]), 90) == ()
    assert rough_domains(np.array([50.0, 0.0, 30.0]), 0) == (0, 2)


values = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.25, 0.5]), st.floats(0, 1), st.floats(0.5, 0.5 + 1e-9)),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(documents=values, parts=st.integers(1, 4), seed=st.integers(0, 99))
def test_bins_do_not_depend_on_grouping_and_end_light_or_pure(
    documents: list[tuple[float, int]], parts: int, seed: int
) -> None:
    merged = np.array([d[0] for d in documents])
    tokens = np.array([d[1] for d in documents], dtype=np.int32)
    owner = np.random.default_rng(seed).integers(0, parts, len(merged))
    groups = [owner == i for i in range(parts)]
    whole = tally(merged, tokens)
    assert_equal(merge_tallies([tally(merged[g], tokens[g]) for g in groups]), whole)
    edges: NDArray[np.float64] | None = first_edges(float(merged.min()), float(merged.max()))
    while edges is not None:
        total = open_bins(edges)
        for group in groups:
            add_bins(total, tally_bins(merged[group], tokens[group], edges))
        last = closed_bins(total)
        edges = finer_edges(last, edges)
    assert last.tokens.sum() == tokens.sum()
    assert ((last.low == last.high) | (last.tokens <= 1e-4 * tokens.sum())).all()


def assert_equal(a: Any, b: Any) -> None:
    assert np.array_equal(a.low, b.low)
    assert np.array_equal(a.tokens, b.tokens)


_MEASURED = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
import test_materialise_selecting as t
paths = []
for i in range(int(sys.argv[2])):
    paths += t.write_parts(Path(sys.argv[1]) / str(i), 30_000, 2, seed=i, prefix=f"{i}-")[:1]
surveyed = t.survey_parts(paths, t.CRITERIA, t.DOMAINS)
normaliser = t.fit_corpus_normaliser(surveyed, exact_documents=1000)
t.select_corpus(Path(sys.argv[1]) / "run", surveyed, t.THETA, normaliser, seed=3, exact_documents=1000)
status = Path("/proc/self/status").read_text()  # ru_maxrss would be the parent's
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def peak_kilobytes(folder: Path, parts: int) -> int:
    command = [sys.executable, "-c", _MEASURED, str(folder), str(parts), str(Path(__file__).parent)]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=240).stdout)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    small, large = peak_kilobytes(tmp_path / "small", 4), peak_kilobytes(tmp_path / "large", 40)
    table = 1_080_000 * 80 / 1000  # kilobytes that the additional documents would take as one table
    assert large - small < table / 3


def test_a_partial_is_named_in_errors() -> None:
    from quadmix.engine.pool import name_of

    assert name_of(partial(run, folder=None)) == "run"
