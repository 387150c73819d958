"""The selection and the dataset, computed once more in SQL by DuckDB, which shares no code with the library.

Only the documents' hash numbers and the factors of the domains are given to it; ties, missing scores, ranks,
curves (η = 1, closed form) and draws are its own.
"""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from materialise_run import DOMAINS, Run, build_run, documents, write_inputs

from quadmix.io.atomic import read_table
from quadmix.materialise.ledger import domain_tokens
from quadmix.materialise.table import read_manifest, read_selection
from quadmix.rng import keyed_uniform
from quadmix.types import Theta

SIZE = 400
# One domain sees the rounded criterion alone and is full of ties; one is thinned, one scaled up.
EXPONENT_ONE = Theta(
    weights=np.array([[1.0, 0.0], [0.9, 0.1], [0.2, 0.8]]),
    steepness=np.array([20.0, 100.0, 5.0]),
    cutoff=np.array([0.4, 0.6, 0.3]),
    exponent=np.ones(3),
    floor=np.array([0.02, 0.0, 0.1]),
    scale=np.array([1.0, 0.7, 1.9]),
)

SQL = """
WITH pool AS (
    SELECT s.*, t.w_edu, t.w_noise, t.steep, t.omega, t.epsilon, t.scale, t.factor, u.uniform
    FROM selection s JOIN theta t USING (domain) JOIN uniforms u USING (key)
    WHERE s.excluded IS NULL
),
-- Token-weighted mid-rank of each criterion among all documents that have it.
edu AS (
    SELECT score, (SUM(t) OVER (ORDER BY score) - t / 2) / SUM(t) OVER () AS percentile
    FROM (
        SELECT "score:edu" AS score, SUM(tokens)::DOUBLE AS t FROM pool
        WHERE NOT isnan("score:edu") GROUP BY score
    )
),
noise AS (
    SELECT score, (SUM(t) OVER (ORDER BY score) - t / 2) / SUM(t) OVER () AS percentile
    FROM (SELECT "score:noise" AS score, SUM(tokens)::DOUBLE AS t FROM pool GROUP BY score)
),
-- Equation 1: the weights of the criteria that are present; if these have none, equal ones.
mixed AS (
    SELECT pool.*, edu.percentile AS p_edu, noise.percentile AS p_noise,
        CASE WHEN isnan("score:edu") THEN "norm:noise"::DOUBLE
             ELSE w_edu * "norm:edu"::DOUBLE + w_noise * "norm:noise"::DOUBLE END AS q
    FROM pool LEFT JOIN edu ON edu.score = "score:edu" JOIN noise ON noise.score = "score:noise"
),
-- Equation 2: every document covers an interval of its domain's tokens; ties share one.
ranked AS (
    SELECT *,
        SUM(tokens) OVER (PARTITION BY domain ORDER BY merged RANGE UNBOUNDED PRECEDING)::DOUBLE AS through,
        SUM(tokens) OVER (PARTITION BY domain, merged)::DOUBLE AS tied,
        SUM(tokens) OVER (PARTITION BY domain)::DOUBLE AS total
    FROM mixed
),
placed AS (SELECT *, (through - tied) / total AS low, through / total AS high FROM ranked),
-- Equation 3, averaged over the interval: the integral of 2 / (1 + exp(-l (w - r))) up to the cutoff.
curved AS (
    SELECT *, scale * (epsilon + CASE WHEN low >= omega THEN 0 ELSE
        2 / steep * (ln(1 + exp(steep * (omega - low))) - ln(1 + exp(steep * (omega - least(high, omega)))))
        / (high - low) END) AS s
    FROM placed
)
-- The draw compares the stored S: in the last of its bits two ways of adding floats may differ.
SELECT *, floor(expected) + CASE WHEN expected = floor(expected) THEN 0
    WHEN uniform / (expected - floor(expected)) < factor THEN 1 ELSE 0 END AS c
FROM curved ORDER BY split, row
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("duckdb")
    docs = documents(SIZE)
    return build_run(folder / "run", write_inputs(folder / "in", docs), docs, theta=EXPONENT_ONE)


@pytest.fixture(scope="module")
def sql(run: Run) -> dict[str, np.ndarray]:
    """Return the columns of SQL's answer, selectable documents in corpus order."""
    return answer(run.folder, EXPONENT_ONE)


def answer(folder: Path, theta: Theta) -> dict[str, np.ndarray]:
    manifest, table = read_manifest(folder), read_selection(folder)
    parts = [
        read_table(folder / "selection" / p.name)
        .append_column("split", pa.array([p.split] * p.documents))
        .append_column("row", pa.array(np.arange(p.documents)))
        for p in manifest.parts
    ]
    with duckdb.connect() as base:
        base.register("selection", pa.concat_tables(parts))
        base.register("theta", pa.table({
            "domain": list(manifest.info.domains), "w_edu": theta.weights[:, 0],
            "w_noise": theta.weights[:, 1], "steep": theta.steepness, "omega": theta.cutoff,
            "epsilon": theta.floor, "scale": theta.scale, "factor": list(manifest.info.factors),
        }))  # fmt: skip
        uniform = keyed_uniform(manifest.info.seed, table.keys, "copies")
        base.register("uniforms", pa.table({"key": table.keys, "uniform": uniform}))
        found = base.sql(SQL).to_arrow_table()
    return {name: found[name].to_numpy() for name in found.column_names}


def test_ties_missing_scores_and_fractions_occur(run: Run, sql: dict[str, np.ndarray]):
    assert len(sql["key"]) == read_selection(run.folder).selectable.sum() > 300
    assert (sql["tied"] > sql["tokens"]).sum() > 50
    assert np.isnan(sql["score:edu"]).sum() > 10
    assert {0, 1, 2} <= set(sql["copies"].tolist())


def test_percentiles_and_merged_scores(sql: dict[str, np.ndarray]):
    known = ~np.isnan(sql["score:edu"])
    assert np.abs(sql["p_edu"][known] - sql["norm:edu"][known]).max() < 2**-24  # float32
    assert np.abs(sql["p_noise"] - sql["norm:noise"]).max() < 2**-24
    assert np.abs(sql["q"] - sql["merged"]).max() < 1e-9


def test_every_rank_interval(sql: dict[str, np.ndarray]):
    assert np.abs(sql["low"] - sql["rank_low"]).max() < 1e-9
    assert np.abs(sql["high"] - sql["rank_high"]).max() < 1e-9


def test_expected_copies_of_every_document(sql: dict[str, np.ndarray]):
    assert np.abs(sql["s"] - sql["expected"]).max() < 1e-9


def test_copies_of_every_document(sql: dict[str, np.ndarray]):
    assert np.array_equal(sql["c"], sql["copies"])


def test_the_sums_of_the_manifest(run: Run, sql: dict[str, np.ndarray]):
    recorded = {d.domain: d for d in domain_tokens(read_manifest(run.folder))}
    assert set(recorded) == set(DOMAINS)
    for name, domain in recorded.items():
        mine = sql["domain"] == name
        tokens, copies = sql["tokens"][mine].astype(np.int64), sql["c"][mine].astype(np.int64)
        assert domain.tokens_out == tokens @ copies
        assert domain.documents_out == (copies > 0).sum()
        assert domain.expected_tokens == pytest.approx(tokens @ sql["s"][mine], rel=1e-9)


def test_the_rows_of_the_dataset(run: Run, sql: dict[str, np.ndarray]):
    """Read with DuckDB's own Parquet reader: every document as often as SQL says, every copy index once."""
    manifest = run.write()
    files = [str(run.folder / "dataset" / s.name) for s in manifest.shards]
    assert len(files) > 2
    with duckdb.connect() as base:
        rows = base.execute(
            "SELECT quadmix.doc_id, count(*), count(DISTINCT quadmix.copy_index), "
            "max(quadmix.copy_index) + 1 FROM read_parquet($files) GROUP BY 1",
            {"files": files},
        ).fetchall()
    expected = {i: c for i, c in zip(sql["doc_id"].tolist(), sql["c"].tolist(), strict=True) if c}
    assert {doc: count for doc, count, _, _ in rows} == expected
    assert all(count == distinct == last for _, count, distinct, last in rows)
