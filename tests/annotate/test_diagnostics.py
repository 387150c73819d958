"""Diagnosis of made-up parts: known correlations come back, what drifts is flagged, what is small is not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp, spearmanr

from quadmix.annotate import diagnostics
from quadmix.annotate.diagnosis_text import diagnosis_lines
from quadmix.annotate.diagnostics import ALL, Diagnosis, add_counts, count_part, diagnose
from quadmix.annotate.table import Surveyed, survey_parts
from quadmix.codec import from_json, to_json
from quadmix.errors import IntegrityError
from quadmix.io.atomic import write_table
from quadmix.recipe import DomainSection
from quadmix.types import CriterionInfo

Rows = dict[str, NDArray[Any]]
SIZES = (2_000, 1_500, 2_500)


def rows_of(rng: np.random.Generator, count: int, **changes: Any) -> Rows:
    """Three criteria: `low` is `edu` with noise and points the other way, `odd` is on its own."""
    edu = rng.normal(size=count)
    rows: Rows = {
        "domain": rng.choice(["web", "books", "code"], size=count, p=[0.6, 0.3, 0.1]),
        "tokens": np.exp(rng.normal(6, 1, size=count)).astype(np.int32) + 1,
        "edu": edu,
        "low": -edu + rng.normal(size=count),
        "odd": rng.normal(size=count),
    }
    return rows | {k: np.asarray(v) for k, v in changes.items()}


def write_parts(
    folder: Path, parts: Sequence[Rows], directions: dict[str, str] | None = None, **section: Any
) -> Surveyed:
    directions = directions or {"edu": "higher", "low": "lower", "odd": "higher"}
    paths, first = [folder / f"part-{i:05d}.parquet" for i in range(len(parts))], 0
    for path, rows in zip(paths, parts, strict=True):
        count = len(rows["tokens"])
        columns = {
            "doc_id": pa.array([f"d{first + i}" for i in range(count)], pa.string()),
            "tokens": pa.array(rows["tokens"], pa.int32()),
            "domain": pa.array(rows["domain"].tolist(), pa.string()),
        }
        scores = {f"score:{n}": pa.array(rows[n], pa.float32(), from_pandas=False) for n in directions}
        write_table(path, pa.table(columns | scores))
        first += count
    criteria = tuple(
        CriterionInfo(name=n, declared="lower" if d == "lower" else "higher", kind="column", digest=n)
        for n, d in directions.items()
    )
    domain = DomainSection.model_validate({"min_documents": 1, "min_token_share": 0.0, **section})
    return survey_parts(paths, criteria, domain)


def healthy(folder: Path, sizes: Sequence[int] = SIZES, **changes: Any) -> tuple[Surveyed, Rows]:
    rng = np.random.default_rng(3)
    parts = [rows_of(rng, n, **{k: v(n) for k, v in changes.items()}) for n in sizes]
    whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return write_parts(folder, parts), whole


def test_correlations_are_those_of_scipy_in_all_documents_and_per_domain(tmp_path: Path) -> None:
    surveyed, rows = healthy(tmp_path)
    found = diagnose(surveyed)
    assert [g.name for g in found.groups] == [ALL, "web", "books", "code"]
    goodness = {"edu": rows["edu"], "low": -rows["low"], "odd": rows["odd"]}
    for group in found.groups:
        inside = np.ones(6_000, bool) if group.name == ALL else rows["domain"] == group.name
        assert group.documents == group.sampled == inside.sum()
        assert (group.pairs == inside.sum()).all()
        for i, a in enumerate(goodness.values()):
            for j, b in enumerate(goodness.values()):
                expected = spearmanr(a[inside].astype(np.float32), b[inside].astype(np.float32)).statistic
                assert group.correlation[i, j] == pytest.approx(expected, abs=1e-9)
            expected = spearmanr(a[inside].astype(np.float32), rows["tokens"][inside]).statistic
            assert group.length_bias[i] == pytest.approx(expected, abs=1e-9)
    assert found.groups[0].correlation[0, 1] > 0.6
    assert found.warnings == ()
    assert diagnosis_lines(found)[-1] == "Nothing to warn of."


def test_a_correlation_that_holds_in_one_domain_only_is_seen_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rng, 3_000)
    web = rows["domain"] == "web"
    rows["odd"] = np.where(web, rows["edu"], -rows["edu"]) + rng.normal(size=3_000)
    groups = {g.name: g for g in diagnose(write_parts(tmp_path, [rows])).groups}
    assert groups["web"].correlation[0, 2] > 0.6
    assert groups["books"].correlation[0, 2] < -0.6
    assert abs(groups[ALL].correlation[0, 2]) < 0.3


def test_missing_scores_count_against_coverage_and_leave_pairs_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rng, 1_000)
    rows["edu"][rows["domain"] == "code"] = np.nan
    group = {g.name: g for g in diagnose(write_parts(tmp_path, [rows])).groups}
    code = int((rows["domain"] == "code").sum())
    assert group[ALL].coverage.tolist() == pytest.approx([1 - code / 1_000, 1, 1])
    assert group["code"].coverage.tolist() == [0, 1, 1]
    assert group[ALL].pairs[0, 1] == 1_000 - code
    assert np.isnan(group["code"].correlation[0, 1])
    assert np.isnan(group["code"].length_bias[0])


def test_redundant_criteria_are_named_and_opposite_ones_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rng, 500)
    rows["low"] = -rows["edu"] + 0.01 * rng.normal(size=500)
    rows["odd"] = -(rows["edu"] ** 3)
    warnings = diagnose(write_parts(tmp_path, [rows])).warnings
    assert [w for w in warnings if "'edu' and 'low'" in w and "one of them is enough" in w]
    assert [w for w in warnings if "'edu' and 'odd'" in w and "declared the wrong way round" in w]


def test_constant_nearly_constant_and_long_criteria_are_named(tmp_path: Path) -> None:
    rows = rows_of(np.random.default_rng(0), 1_000)
    rows["edu"] = np.full(1_000, 3.0)
    rows["low"] = np.where(np.arange(1_000) < 5, 1.0, 0.0)
    rows["odd"] = np.log(rows["tokens"])
    found = diagnose(write_parts(tmp_path, [rows]))
    assert "criterion 'edu' is constant: it orders nothing and only dilutes the others" in found.warnings
    assert "criterion 'low' is nearly constant: 99.50% of its scores are one value" in found.warnings
    assert any("'odd' follows document length" in w and "all documents +1.00" in w for w in found.warnings)
    assert np.isnan(found.groups[0].correlation[0]).all()
    assert found.groups[0].constant == ("edu",)


def test_a_criterion_that_is_flat_in_one_domain_is_named_with_it(tmp_path: Path) -> None:
    rows = rows_of(np.random.default_rng(0), 1_000)
    rows["odd"][rows["domain"] == "code"] = 0.0
    warnings = diagnose(write_parts(tmp_path, [rows])).warnings
    assert any("'odd' is constant or nearly so in the domains code" in w for w in warnings)


def drifted(folder: Path, last: Rows) -> Diagnosis:
    rng = np.random.default_rng(1)
    return diagnose(write_parts(folder, [*(rows_of(rng, 1_000) for _ in range(9)), last]))


def flags(found: Diagnosis) -> set[tuple[str, str]]:
    drift = found.drift
    return {(drift.shards[s], drift.measures[k]) for s, k in np.argwhere(drift.flagged).tolist()}


def test_a_shard_whose_scores_moved_is_flagged_and_the_others_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = drifted(tmp_path, rows_of(rng, 1_000, odd=rng.normal(size=1_000) + 1.0))
    assert flags(found) == {("part-00009.parquet", "score:odd")}
    assert any(
        w.startswith("score:odd differs in 1 of 10 shards") and "part-00009" in w for w in found.warnings
    )
    assert found.drift.given_domains[9, 2] > 0.3


def test_a_small_shard_is_not_flagged_by_chance(tmp_path: Path) -> None:
    """Eight documents lie far from all by chance; the same distance in many documents is drift."""
    small = drifted(tmp_path, rows_of(np.random.default_rng(4), 8))
    assert small.drift.distance[9, :3].max() > 0.25
    assert flags(small) == set()


def test_many_shards_of_one_distribution_raise_no_flag(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    found = diagnose(write_parts(tmp_path, [rows_of(rng, int(n)) for n in rng.integers(1, 300, size=60)]))
    assert flags(found) == set()
    assert np.nanmax(found.drift.distance) > 0.5


def test_other_domains_are_flagged_and_explain_the_scores_that_follow_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)

    def by_domain(rows: Rows) -> Rows:
        return rows | {"odd": rng.normal(size=len(rows["odd"])) + 3.0 * (rows["domain"] == "code")}

    parts = [by_domain(rows_of(rng, 1_000)) for _ in range(9)]
    parts.append(by_domain(rows_of(rng, 1_000, domain=np.full(1_000, "code"))))
    found = diagnose(write_parts(tmp_path, parts))
    last = "part-00009.parquet"
    assert flags(found) == {(last, "domains"), (last, "score:odd")}
    assert found.drift.distance[9, 2] > 0.5
    assert found.drift.given_domains[9, 2] < 0.06


def test_a_shard_without_scores_is_flagged_by_its_coverage(tmp_path: Path) -> None:
    found = drifted(tmp_path, rows_of(np.random.default_rng(7), 1_000, edu=np.full(1_000, np.nan)))
    assert flags(found) == {("part-00009.parquet", "coverage:edu")}
    assert np.isnan(found.drift.distance[9, 0])
    assert found.drift.distance[9, 3] == pytest.approx(0.9)


def test_distances_are_those_of_scipy_up_to_the_quantiles(tmp_path: Path) -> None:
    surveyed, rows = healthy(tmp_path)
    drift = diagnose(surveyed).drift
    ends = np.cumsum(SIZES)
    for s, (start, end) in enumerate(zip(ends - SIZES, ends, strict=True)):
        exact = ks_2samp(rows["edu"][start:end], rows["edu"]).statistic
        assert exact - 1 / 64 <= drift.distance[s, 0] <= exact + 1e-6
        share = np.array([(rows["domain"][start:end] == d).mean() for d in ("books", "code", "web")])
        whole = np.array([(rows["domain"] == d).mean() for d in ("books", "code", "web")])
        assert drift.distance[s, 6] == pytest.approx(np.abs(share - whole).sum() / 2)


def test_an_empty_shard_has_no_distances_and_no_flag(tmp_path: Path) -> None:
    found = drifted(tmp_path, rows_of(np.random.default_rng(8), 0))
    assert np.isnan(found.drift.distance[9]).all()
    assert flags(found) == set()
    assert found.drift.documents[9] == 0


def test_the_diagnosis_does_not_depend_on_how_parts_are_cut_or_ordered(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    surveyed, rows = healthy(tmp_path / "a")
    cut = [{k: v[i : i + 500] for k, v in rows.items()} for i in range(0, 6_000, 500)]
    other = diagnose(write_parts(tmp_path / "b", cut))
    first = diagnose(surveyed, mapper=lambda f, tasks: [f(t) for t in tasks])
    assert to_json(first.groups) == to_json(other.groups)


def test_counts_add_up_in_any_grouping_and_the_sample_stays_within_its_limit(tmp_path: Path) -> None:
    surveyed, rows = healthy(tmp_path)
    parts = [count_part(t) for t in surveyed.tasks]
    once = add_counts(parts, 1_000)
    twice = add_counts([add_counts(parts[1:], 1_000), parts[0]], 1_000)
    assert to_json(once) == to_json(twice)
    assert len(once.draw) == 1_000
    assert once.documents.sum() == len(rows["edu"])
    assert once.draw.max() <= np.sort(np.concatenate([p.draw for p in parts]))[999]


def test_a_large_corpus_is_sampled_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surveyed, rows = healthy(tmp_path)
    tasks = tuple(replace(t, sample=0.25) for t in surveyed.tasks)
    monkeypatch.setattr(diagnostics, "_AT_ONCE", 2)
    found = diagnose(replace(surveyed, tasks=tasks))
    assert found.groups[0].documents == 6_000
    assert 1_300 < found.groups[0].sampled < 1_700
    exact = spearmanr(rows["edu"], -rows["low"]).statistic
    assert found.groups[0].correlation[0, 1] == pytest.approx(exact, abs=0.06)


def test_a_diagnosis_survives_json_and_its_lines_name_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    found = drifted(tmp_path, rows_of(rng, 1_000, odd=rng.normal(size=1_000) + 1.0))
    found = replace(found, circular=("the rater was trained on the target",))
    text = orjson.dumps(to_json(found))
    assert to_json(from_json(Diagnosis, orjson.loads(text))) == to_json(found)
    lines = "\n".join(diagnosis_lines(found))
    assert "10,000 documents, 3 domains, 10 shards" in lines
    for wanted in ("edu with low", "books", "coverage", "score:odd: median", "flagged 1"):
        assert wanted in lines
    assert "! the rater was trained on the target" in lines


def test_one_criterion_has_no_pairs(tmp_path: Path) -> None:
    rows = rows_of(np.random.default_rng(0), 100)
    found = diagnose(write_parts(tmp_path, [rows], {"edu": "higher"}))
    assert "  one criterion: nothing to compare" in diagnosis_lines(found)


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    surveyed, _ = healthy(tmp_path, (40, 40))
    (tmp_path / "part-00001.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is absent"):
        diagnose(surveyed)
