"""Thousands of θ over one big table: the sweep beside sorting every θ, and what the sweep gets wrong.

    python benchmarks/sweep.py [--quick] [--documents 10_000_000] [--thetas 3000] [--exact 5] [--bins 2048]
                               [--threads 2] [--kind uniform|ties|gaps]

A synthetic table (26 domains of unequal size, 3 criteria, log-normal lengths) and draws of Algorithm 1, each
fitted to 5 % of the tokens. The θ are swept in as many parts as there are θ to sort, and after each part one
θ is sorted, so that both see the same machine; ratios are taken part by part, medians printed.

sweep: fit to the budget, tokens, unique tokens, shares, mean ranks: ms per θ on all threads.
cpu:   processor time of that, all threads together; half of it is what two idle cores would need.
exact: merge_scores, rank_within_domain and mean_copies for one θ, the table grouped beforehand.
sort:  of that the sorting alone, of float32 scores that are merged already, domain by domain, on as many
       threads as the sweep: the least that any way with exact ranks has to do.
Errors are the largest of any domain, relative to exact, over the θ that were sorted. Compiling (two seconds)
and grouping the table (`grouping_seconds`) are not in the times. --quick: a tenth of the θ, and of the bar on
seconds; the table stays, since its size is the point. The last line is JSON; `cores` is how many the sweep
got, and a bar on seconds that was missed with fewer than 0.8 per thread is `void`: others used the machine.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from quadmix.mixing.curve import mean_copies
from quadmix.mixing.merge import merge_scores
from quadmix.mixing.prior import Prior, draw_theta
from quadmix.mixing.rank import Grouped, group_by_domain, rank_within_domain
from quadmix.mixing.sweep import Sweep, SweepTable, sweep, sweep_table
from quadmix.mixing.sweep_kernel import merge_columns
from quadmix.types import Theta

DOMAINS, CRITERIA, SHARE = 26, 3, 0.05
SECONDS, TIMES = 30.0, 50.0  # for 3,000 θ over 10 million documents; against sorting
ERROR = 2e-3


@dataclass(frozen=True)
class Pool:
    """A synthetic table as the user has it."""

    scores: np.ndarray
    tokens: np.ndarray
    domain: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--thetas", type=int, default=3000)
    parser.add_argument("--exact", type=int, default=0, help="θ to sort: 5, or 2 with --quick")
    parser.add_argument("--bins", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", default="uniform", choices=("uniform", "ties", "gaps"))
    options = parser.parse_args()
    documents, sorted_ = options.documents, options.exact or (2 if options.quick else 5)
    count = max(sorted_, options.thetas // (10 if options.quick else 1))
    pool = make_pool(documents, options.kind)
    begun = time.perf_counter()
    table = sweep_table(pool.scores, pool.tokens, pool.domain, DOMAINS)
    grouping = time.perf_counter() - begun
    prior = Prior(num_domains=DOMAINS, num_criteria=CRITERIA)
    thetas = draw_theta(np.random.default_rng(1), prior, count)
    result = measure(pool, table, thetas, sorted_, options.bins, options.threads)
    bar = SECONDS * (documents / 10_000_000) * (count / 3000)
    right = max(result["error_tokens"], result["error_unique"], result["error_rank"]) <= ERROR
    fast = result["seconds"] <= bar
    result |= {
        "documents": documents, "thetas": count, "bins": options.bins, "threads": options.threads,
        "kind": options.kind, "grouping_seconds": grouping, "bar_seconds": bar, "bar_times": TIMES,
        "bar_error": ERROR, "passed": bool(fast and right and result["times_exact"] >= TIMES),
        "void": bool(not fast and result["cores"] < 0.8 * options.threads),
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")


def make_pool(documents: int, kind: str) -> Pool:
    rng = np.random.default_rng(0)
    scores = rng.random((documents, CRITERIA), dtype=np.float32)
    if kind == "ties":
        scores = np.round(scores * 20) / np.float32(20)
    if kind == "gaps":
        scores[rng.random(documents) < 0.1, 0] = np.nan
    tokens = np.minimum(rng.lognormal(6, 1.1, documents), 1e6).astype(np.int32) + 1
    sizes = np.exp(rng.normal(0, 1, DOMAINS))
    domain = rng.choice(DOMAINS, documents, p=sizes / sizes.sum()).astype(np.int16)
    return Pool(scores=scores, tokens=tokens, domain=domain)


def measure(
    pool: Pool, table: SweepTable, thetas: list[Theta], sorted_: int, bins: int, threads: int
) -> dict[str, Any]:
    budget = SHARE * float(table.pool.sum())
    grouped = group_by_domain(pool.domain, DOMAINS)
    sweep(table, thetas[:2], token_budget=budget, bins=bins, threads=threads)  # compiles
    rows: dict[str, list[float]] = {n: [] for n in ("sweep", "cpu", "exact", "sort", "times", "times_sort")}
    errors, seconds = np.zeros(3), 0.0
    for part in np.array_split(np.arange(len(thetas)), sorted_):
        begun, spent = time.perf_counter(), time.process_time()
        found = sweep(table, [thetas[k] for k in part], token_budget=budget, bins=bins, threads=threads)
        taken = time.perf_counter() - begun
        seconds += taken
        rows["cpu"].append((time.process_time() - spent) / len(part))
        rows["sweep"].append(taken / len(part))
        wrong, exact = against(pool, grouped, found, 0)
        errors = np.maximum(errors, wrong)
        rows["exact"].append(exact)
        rows["sort"].append(sort_time(table, found.batch.theta(0), threads))
        rows["times"].append(rows["exact"][-1] / rows["sweep"][-1])
        rows["times_sort"].append(rows["sort"][-1] / rows["sweep"][-1])
    for name in ("sweep", "cpu", "exact", "sort"):
        values = [1e3 * v for v in rows[name]]
        sys.stdout.write(f"{name:6} {median(values):9.2f} ms per θ ({min(values):.2f}-{max(values):.2f})\n")
    sys.stdout.write(
        f"times  {median(rows['times']):9.1f} x exact, {median(rows['times_sort']):.1f} x sort\n"
    )
    return {
        "seconds": seconds, "ms_per_theta": 1e3 * median(rows["sweep"]),
        "cpu_ms_per_theta": 1e3 * median(rows["cpu"]), "cores": sum(rows["cpu"]) / sum(rows["sweep"]),
        "exact_ms": 1e3 * median(rows["exact"]), "sort_ms": 1e3 * median(rows["sort"]),
        "times_exact": median(rows["times"]), "times_sort": median(rows["times_sort"]),
        "error_tokens": errors[0], "error_unique": errors[1], "error_rank": errors[2],
    }  # fmt: skip


def against(pool: Pool, grouped: Grouped, found: Sweep, k: int) -> tuple[np.ndarray, float]:
    """Return the largest relative errors of tokens, unique tokens and mean rank; seconds of the exact way."""
    theta = found.batch.theta(k)
    begun = time.perf_counter()
    merged = merge_scores(pool.scores, theta.weights, pool.domain)
    ranks = rank_within_domain(merged, pool.tokens, pool.domain, grouped=grouped)
    copies = mean_copies(ranks, theta, pool.domain)
    taken = time.perf_counter() - begun

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(pool.domain, weights=pool.tokens * values, minlength=DOMAINS)

    tokens = total(copies)
    rank = total(copies * 0.5 * (ranks.low + ranks.high)) / tokens
    pairs = (
        (found.tokens[k], tokens),
        (found.unique[k], total(np.minimum(1.0, copies))),
        (found.rank[k], rank),
    )
    return np.array([np.abs(mine / true - 1).max() for mine, true in pairs]), taken


def sort_time(table: SweepTable, theta: Theta, threads: int) -> float:
    """Return the seconds to sort every domain's merged scores, `threads` domains at a time."""
    blocks = [slice(a, b) for a, b in zip(table.starts[:-1], table.starts[1:], strict=True)]
    weights = theta.weights.astype(np.float32)
    merged = [
        merge_columns(table.scores[:, b], weights[m], bool(table.gaps[m])) for m, b in enumerate(blocks)
    ]
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(np.argsort, merged))
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
