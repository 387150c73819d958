"""The comparison, the domains, the ledger and how the run went as plain numbers for report.json.

In: the loaded run. Out: JSON values whose keys docs/report.md describes; no text of a document. What a stage
has not written is an empty mapping or list; a number that is not known is null.
"""

from collections import Counter
from typing import Any

from quadmix.report import figures, health
from quadmix.report.compared import state_of
from quadmix.report.load import RunFiles
from quadmix.types import Comparison, Measured, Paired, Rung, to_json


def comparison_numbers(comparison: Comparison | None) -> dict[str, Any]:
    """Return every rung with its selectors, best first, and the chosen one's paired difference to each."""
    if comparison is None:
        return {}
    rungs = [_rung(r, comparison.chosen) for r in comparison.rungs] or [_older(comparison)]
    return {
        "chosen": comparison.chosen,
        "pool_share": comparison.pool_share,
        "target_weights": comparison.target_weights,
        "rungs": rungs,
    }


def _rung(rung: Rung, chosen: str) -> dict[str, Any]:
    return {
        "name": rung.name,
        "parameters": rung.parameters,
        "train_tokens": rung.train_tokens,
        "learning_rate": rung.learning_rate,
        "budget": rung.budget,
        "match": rung.match,
        "seeds": rung.seeds,
        "confidence": rung.confidence,
        "detectable": rung.detectable,
        "promised": rung.promised,
        "selectors": _selectors(rung.measured, rung.against, chosen),
        "left_out": rung.left_out,
    }


def _older(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison of a file without rungs as its only one."""
    return {
        "name": "",
        "parameters": comparison.model_parameters,
        "train_tokens": comparison.train_tokens,
        "seeds": max((len(m.values) for m in comparison.measured), default=0),
        "selectors": _selectors(comparison.measured, comparison.against, comparison.chosen),
    }


def _selectors(measured: tuple[Measured, ...], against: tuple[Paired, ...], chosen: str) -> list[Any]:
    pairs = {p.control: p for p in against if p.label == chosen}
    return [
        {
            "label": m.label, "mean": m.mean, "low": m.low, "high": m.high,
            "seeds": len(m.values), "selected_tokens": m.selected_tokens,
            "unique_tokens": m.unique_tokens, "epochs": m.epochs, "against": _pair(pairs.get(m.label)),
        }
        for m in sorted(measured, key=lambda m: m.mean)
    ]  # fmt: skip


def _pair(pair: Paired | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return {
        "difference": pair.difference, "low": pair.low, "high": pair.high,
        "stderr": pair.stderr, "seeds": pair.pairs, "state": state_of(pair),
    }  # fmt: skip


def domain_numbers(files: RunFiles) -> list[dict[str, Any]]:
    """Return the counts of every domain with its share before and after, the largest after first."""
    if files.dataset is None:
        return []
    return [
        {**to_json(d), "share_before": before, "share_after": after, "ratio": ratio}
        for d, before, after, ratio in figures.domain_rows(files.dataset)
    ]


def ledger_numbers(files: RunFiles) -> dict[str, Any]:
    """Return the ledger of the dataset, its budget and what it was written as."""
    if files.dataset is None:
        return {}
    dataset = files.dataset
    return {
        **to_json(dataset.ledger), "token_budget": dataset.token_budget, "shards": len(dataset.shards),
        "digest": dataset.digest,
    }  # fmt: skip


def health_numbers(files: RunFiles) -> dict[str, Any]:
    """Return seconds and amounts per stage, models per kind, hours, and rows in quarantine by reason."""
    times = health.stage_times(files)
    if not times:
        return {}
    known, trials = health.amounts(files), health.all_trials(files)
    stages: list[dict[str, Any]] = []
    for t in times:
        amount = known.get(t.stage)
        stages.append(
            {
                "stage": t.stage, "passes": t.passes, "seconds": t.seconds, "took_longer": t.more,
                "documents": amount.documents if amount else None,
                "tokens": amount.tokens if amount else None,
            }
        )  # fmt: skip
    models: list[dict[str, Any]] = []
    for kind in dict.fromkeys(t.kind for t in trials):
        mine = [t for t in trials if t.kind == kind]
        done = [t for t in mine if t.status == "done"]
        models.append(
            {
                "kind": kind, "done": len(done), "failed": len(mine) - len(done),
                "tokens": sum(t.train_tokens for t in done), "hours": sum(t.seconds for t in mine) / 3600,
            }
        )  # fmt: skip
    bad: Counter[str] = Counter()
    for row in files.records.bad_rows:
        bad[row.reason] += row.rows
    processes = files.records.history.processes
    return {
        "stages": stages,
        "hours": sum(t.seconds for t in times) / 3600,
        "worker_hours": health.worker_hours(files),
        "processes": len(processes),
        "models": models,
        "quarantine": dict(bad),
    }
