"""Writes a small, plausible run folder without the pipeline: real types, real files, a hand-made θ.

`nasty=True` gives domains, ids and texts that attack HTML, JSON, SVG, CSV and terminals.
"""

import itertools
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from quadmix.codec import to_json
from quadmix.io.atomic import file_digest, write_json, write_table, write_text
from quadmix.materialise.table import SelectedSplit, SelectionInfo, part_name, write_manifest
from quadmix.recipe import check_recipe, dump_recipe
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import (
    Batch,
    Candidate,
    Comparison,
    Confirmation,
    CriterionInfo,
    DatasetManifest,
    DomainTokens,
    Effect,
    Interaction,
    LearningCurve,
    LearningPoint,
    Ledger,
    Loss,
    Measured,
    Objective,
    Optimism,
    Paired,
    Parity,
    Proposal,
    ShardInfo,
    SurrogateReport,
    Theta,
    Trial,
)
from quadmix.types.results import Standing

CRITERIA = ("edu", "fluency", "heuristic")
DOMAINS = ("web", "books", "code", "science", "forum", "other")
ATTACK = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\x1b[31mred\x1b[0m\u202egpj.exe\x00'
NASTY_DOMAINS = (ATTACK, "=cmd|' /C calc'!A0", "$\\frac{1}{0}$", "日本語", "-1+1", "a&amp;<b>'\"")
TARGETS = ("arc-easy", "wiki")


def make_run(
    folder: Path,
    *,
    documents: int = 4000,
    nasty: bool = False,
    confirmed: bool = True,
    gains: dict[str, float] | None = None,
    text: str | None = None,
) -> Path:
    """Write the folder and return it. gains: per baseline, the measured gain of θ* in bits per byte."""
    rng = np.random.default_rng(7)
    domains = NASTY_DOMAINS if nasty else DOMAINS
    theta = make_theta(rng, len(domains))
    manifest = write_selection_table(folder, rng, theta, domains, documents, text or ATTACK * nasty)
    write_json(folder / "dataset/manifest.json", manifest)
    write_json(folder / "theta.json", theta)
    write_text(folder / "recipe.resolved.yaml", dump_recipe(check_recipe(RECIPE)))
    write_json(folder / "identity.json", {"recipe": "a1b2", "tool": "0.1.0", "identity": "c0ffee"})
    for name, seconds in (("corpus", 1.2), ("annotate", 8.5), ("swarm", 61.0), ("search", 4.4)):
        warn = ["domain 'news' has 12 documents and was merged into 'other'"] if name == "annotate" else []
        facts = {"documents": documents, **({"not_trained": 0} if name == "swarm" else {})}
        write_json(
            folder / f"stages/{name}.json",
            {"stage": name, "seconds": seconds, "warnings": warn, "facts": facts},
        )
    facts = {"same": {"best-observed": "theta-star"}}
    write_json(folder / "stages/confirm.json", {"stage": "confirm", "seconds": 9.0, "facts": facts})
    own = ATTACK if nasty else "edu"
    write_swarm(folder, rng, own, len(domains))
    write_search(folder, rng, theta, confirmed, domains, f"single:{own}")
    write_json(folder / "evaluate/comparison.json", make_comparison(rng, domains, gains or GAINS))
    return folder


RECIPE = {
    "name": "fixture",
    "corpus": {"paths": ["/data/pool"]},
    "budget": {"share": 0.07},
    "targets": [{"name": n, "path": "/data/t.jsonl", "text": "text"} for n in TARGETS],
}
GAINS = {"prior-mean": 0.013, "random": 0.052, "top:edu": 0.004, "regmix": 0.021}


def make_theta(rng: np.random.Generator, m: int) -> Theta:
    """A θ with windows between 3 and 10 % of a domain's tokens."""
    return Theta(
        weights=rng.dirichlet(np.ones(len(CRITERIA)), size=m),
        steepness=10 ** rng.uniform(1.2, 2.6, m),
        cutoff=rng.uniform(0.03, 0.1, m),
        exponent=rng.uniform(0.3, 1.0, m),
        floor=rng.uniform(0.0, 0.001, m),
    )


def write_selection_table(
    folder: Path, rng: np.random.Generator, theta: Theta, domains: tuple[str, ...], d: int, text: str | None
) -> DatasetManifest:
    """Write selection/ in two parts and samples.parquet; return the manifest that agrees with them."""
    m = len(domains)
    domain = rng.choice(m, size=d, p=np.arange(m, 0, -1) / np.arange(m + 1).sum())
    tokens = rng.lognormal(5.5, 0.7, d).astype(np.int32) + 5
    common = rng.normal(size=d)
    scores = (0.7 * common[:, None] + rng.normal(size=(d, 3)) + 0.2 * domain[:, None]).astype(np.float32)
    norms = (np.argsort(np.argsort(scores, axis=0), axis=0) / d).astype(np.float32)
    merged = (norms * theta.weights[domain]).sum(axis=1)
    low, high, expected = np.zeros(d), np.zeros(d), np.zeros(d)
    for i in range(m):
        mine = np.flatnonzero(domain == i)
        mine = mine[np.argsort(merged[mine])]
        edges = np.concatenate([[0], np.cumsum(tokens[mine])]) / tokens[mine].sum()
        low[mine], high[mine] = edges[:-1], edges[1:]
        rank = (low[mine] + high[mine]) / 2
        bracket = 2 / (1 + np.exp(-theta.steepness[i] * (theta.cutoff[i] - rank)))
        inside = np.where(rank <= theta.cutoff[i], bracket ** theta.exponent[i], 0)
        expected[mine] = inside + theta.floor[i]
    ids = [f"doc-{i:06d}{ATTACK if domains is NASTY_DOMAINS else ''}" for i in range(d)]
    uniform = keyed_uniform(0, ids, "copies")
    copies = (np.floor(expected) + (uniform < expected % 1)).astype(np.int32)
    columns = {
        "doc_id": ids,
        "domain": [domains[i] for i in domain],
        "tokens": tokens,
        **{f"score:{c}": scores[:, n] for n, c in enumerate(CRITERIA)},
        **{f"norm:{c}": norms[:, n] for n, c in enumerate(CRITERIA)},
        "merged": merged,
        "rank_low": low,
        "rank_high": high,
        "expected": expected,
        "copies": copies,
    }
    info = SelectionInfo(
        criteria=tuple(
            CriterionInfo(name=c, declared="higher", kind="column", digest="x") for c in CRITERIA
        ),
        domains=domains, seed=0, rank_mode="interval", key="k", factors=(1.0,) * m,
    )  # fmt: skip
    keys = pa.array(doc_keys(columns["doc_id"]), pa.uint64())
    table = pa.table(
        {**columns, "key": keys, "held_out": np.zeros(d, bool), "excluded": pa.nulls(d, pa.string())}
    )
    parts = [
        write_split(folder, info, k, table.slice(k * (d // 2), d // 2 + k * (d % 2)), domain)
        for k in range(2)
    ]
    write_manifest(folder, info, parts)
    sample_rows = np.concatenate([np.flatnonzero(copies > 0)[:60], np.flatnonzero(copies == 0)[:60]])
    samples = pa.table({**columns, "uniform": uniform, "factor": np.ones(d)}).take(pa.array(sample_rows))
    strata = ["top", "kept", "borderline"] * 20 + ["dropped", "dropped_high", "disagree"] * 20
    body = [text or f"Document {i}. " + "The quick brown fox reads a chapter. " * 40 for i in sample_rows]
    samples = samples.append_column("stratum", [strata[: len(sample_rows)]]).append_column("text", [body])
    write_table(folder / "samples.parquet", samples)
    return make_manifest(domains, domain, tokens, copies, expected)


def write_split(
    folder: Path, info: SelectionInfo, split: int, table: pa.Table, domain: np.ndarray
) -> SelectedSplit:
    """Write one part and return what it holds."""
    path = folder / "selection" / part_name(split)
    write_table(path, table.replace_schema_metadata({b"quadmix.selection": orjson.dumps(to_json(info))}))
    copies = table["copies"].to_numpy()
    start = split * (len(domain) // 2)
    counts = make_manifest(
        info.domains, domain[start : start + len(table)], table["tokens"].to_numpy(), copies,
        table["expected"].to_numpy(),
    )  # fmt: skip
    return SelectedSplit(
        split=split, name=path.name, digest=file_digest(path), documents=len(table),
        selected=int((copies > 0).sum()), dropped={"not_drawn": int((copies == 0).sum())},
        copies=int(copies.sum()), domains=counts.domains,
    )  # fmt: skip


def make_manifest(domains, domain, tokens, copies, expected) -> DatasetManifest:
    """The manifest of these copies, with three quarantined rows."""

    def total(values, i):
        return int(values[domain == i].sum())

    rows = tuple(
        DomainTokens(
            domain=name,
            documents_in=total(tokens > 0, i),
            tokens_in=total(tokens, i),
            documents_out=total(copies > 0, i),
            unique_tokens=total(tokens * (copies > 0), i),
            tokens_out=total(tokens * copies, i),
            expected_tokens=float((tokens * expected)[domain == i].sum()),
        )
        for i, name in enumerate(domains)
    )
    out = int((tokens * copies).sum())
    ledger = Ledger(
        rows_in=len(tokens) + 3,
        selected=int((copies > 0).sum()),
        dropped={"not selected": int((copies == 0).sum())},
        quarantined={"invalid_json": 2, "empty_text": 1},
        copies=int(copies.sum()),
        tokens_in=int(tokens.sum()),
        unique_tokens=int((tokens * (copies > 0)).sum()),
        tokens_out=out,
    )
    shard = ShardInfo(name="part-00000.parquet", rows=int(copies.sum()), bytes=1, digest="d", tokens=out)
    return DatasetManifest(
        format="parquet", shards=(shard,), ledger=ledger, domains=rows, token_budget=round(out * 1.002),
        identity="c0ffee", theta_label="theta", seed=0, digest="0123abcd",
    )  # fmt: skip


def label_of(k: int, criterion: str) -> str:
    """Three recipes, a design, two aimed batches."""
    recipes = ("recipe:prior-mean", f"recipe:single:{criterion}", "current")
    return recipes[k] if k < 3 else f"design-{k:04d}" if k < 22 else "batch-2" if k < 34 else "batch-3"


def write_swarm(folder: Path, rng: np.random.Generator, criterion: str, domains: int, n: int = 40) -> None:
    """Trials of the swarm, six repeats and two failures."""
    for k in range(n + 8):
        kind = "prior" if k < n else "repeat" if k < n + 6 else "prior"
        spread = 0.03 if kind == "prior" else 0.004
        losses = {t: one_loss(1.9 + 0.2 * i + rng.normal(0, spread)) for i, t in enumerate(TARGETS)}
        failed = k >= n + 6
        curve = tuple((s, float(9 * (s + 1) ** -0.15 + rng.normal(0, 0.05))) for s in range(0, 200, 10))
        trial = Trial(
            trial_id=f"{kind}-{k:04d}", kind=kind, label=label_of(k, criterion), theta=None, seed=k,
            selected_tokens=100_000, unique_tokens=80_000, train_tokens=1_000_000, epochs=1.0, heldout={},
            status="failed" if failed else "done", reason="loss became NaN at step 41" if failed else "",
            losses={} if failed else losses, curve=curve, seconds=2.0,
            shares=tuple(np.roll(np.arange(domains) + 1.0, k) / sum(range(domains + 1))),
        )  # fmt: skip
        write_json(folder / f"trials/{trial.trial_id}.json", trial)


def one_loss(value: float) -> Loss:
    return Loss(bits_per_byte=float(value), stderr=0.004, rows=500, tokens=50_000, bytes=200_000)


def write_search(folder, rng, theta: Theta, confirmed: bool, domains: tuple[str, ...], single: str) -> None:
    """Three batches, a proposal with all its evidence, and a confirmation by two rounds."""
    reports = tuple(
        make_diagnostics(rng, t, kind, rho) for t in ("objective", *TARGETS) for kind, rho in SURROGATES
    )
    known = [Batch(trials=n, best=1.91, improvement=0.0213, noise=0.004) for n in (22, 34)]
    sizes = zip((22, 12, 6), (None, *known), strict=True)
    write_json(folder / "search/batches.json", [
        {"labels": ["x"] * n, "thetas": [], "seen": seen} for n, seen in sizes
    ])  # fmt: skip
    shares = {d: (i + 1) / sum(range(len(domains) + 1)) for i, d in enumerate(domains)}
    names = ("theta-star", "paper", "best-observed", "prior-mean", single)
    candidates = tuple(
        Candidate(
            name=name, theta=theta, predicted=1.9612 + 0.003 * i, predicted_low=1.95, predicted_high=1.99,
            losses={}, shares=shares,
        ) for i, name in enumerate(names)
    )  # fmt: skip
    proposal = Proposal(
        candidates=candidates, objective=Objective(weights={t: 0.5 for t in TARGETS}), diagnostics=reports,
        trials_used=46, trials_excluded={"prior-0046": "loss became NaN at step 41"}, noise_sd=0.004,
        spread_sd=0.03, feature_names=tuple(f"share[{d}]" for d in domains), surrogate="gp",
        learning=make_learning(), batches=tuple(known), effects=make_effects(domains), best_observed=1.9077,
        interactions=make_interactions(domains),
        optimism=Optimism(promised=1.9512, judged=1.9634, optimism=0.0122, halves=(0.01, 0.0144)),
    )  # fmt: skip
    write_json(folder / "search/proposal.json", proposal)
    gain = 0.012 if confirmed else 0.001
    confirmation = Confirmation(
        winner="theta-star", theta=theta, confirmed=confirmed,
        against=(make_pair("theta-star", "prior-mean", gain),),
        reason="Confirmed: 3 seeds." if confirmed else "Not confirmed: the gain is inside the noise.",
        needed="" if confirmed else "About 77 seeds would show it.",
        measured=(
            make_measured(rng, "theta-star", 1.97, ()), make_measured(rng, "prior-mean", 1.97 + gain, ()),
            make_measured(rng, single, 1.9977, ()),
        ),
        rounds=(
            Standing(label="theta-star", round=2, seeds=6, mean=1.97, behind=0.0),
            Standing(label="prior-mean", round=2, seeds=6, mean=1.97 + gain, behind=gain),
            Standing(label=single, round=1, seeds=3, mean=1.9977, behind=0.0277, left="among the worse of 2"),
        ),
    )  # fmt: skip
    write_json(folder / "search/confirm.json", confirmation)


def make_learning() -> LearningCurve:
    points = [LearningPoint(trials=n, rmse=e, r2=0.5) for n, e in ((9, 0.0271), (18, 0.0214), (32, 0.0183))]
    return LearningCurve(points=tuple(points), forecast=LearningPoint(trials=132, rmse=0.0127, r2=0.8))


def make_effects(domains: tuple[str, ...]) -> tuple[Effect, ...]:
    """Cutoffs that matter, exponents that do not."""
    strong = [
        Effect(group="cutoff", domain=d, range=0.05 / (i + 1), difference=-0.0061, low=-0.009, high=-0.002,
               flat=False) for i, d in enumerate(domains)
    ]  # fmt: skip
    flat = [
        Effect(group="exponent", domain=d, range=0.0, difference=0.0, low=0.0, high=0.0, flat=True)
        for d in domains
    ]
    whole = Effect(
        group="*", domain=domains[0], range=0.06, difference=-0.001, low=-0.01, high=0.01, flat=False
    )
    return (whole, *strong, *flat)


def make_interactions(domains: tuple[str, ...]) -> tuple[Interaction, ...]:
    """The first pair is clear, the others are not."""
    return tuple(
        Interaction(
            domain=a, other=b, difference=-0.002 / (i + 1), low=-0.004, high=-0.001 if not i else 0.004
        )
        for i, (a, b) in enumerate(itertools.combinations(domains, 2))
    )


SURROGATES = (("gp", 0.86), ("lightgbm", 0.71))


def make_diagnostics(rng: np.random.Generator, target: str, kind: str, rho: float) -> SurrogateReport:
    measured = rng.normal(1.95, 0.03, 40)
    predicted = 1.95 + rho * (measured - 1.95) + rng.normal(0, 0.03 * (1 - rho**2) ** 0.5, 40)
    points = tuple(
        Parity(trial_id=f"prior-{i:04d}", measured=a, predicted=b, stderr=0.01)
        for i, (a, b) in enumerate(zip(measured.tolist(), predicted.tolist(), strict=True))
    )
    return SurrogateReport(
        target=target, surrogate=kind, spearman=rho, spearman_low=rho - 0.1, spearman_high=rho + 0.06,
        rmse=0.012, r2=rho**2, regret_at_1=0.004, pairwise_accuracy=0.84, interval_coverage=0.91,
        noise_sd=0.004, spread_sd=0.03, parity=points, regret_at_5=0.0021, best_decile_bias=-0.0067,
        members={"gp-ard": 0.75, "ridge": 0.25} if kind == "gp" and target != "objective" else {},
    )  # fmt: skip


def make_pair(label: str, control: str, gain: float) -> Paired:
    return Paired(
        label=label, control=control, difference=-gain, low=-gain - 0.006, high=-gain + 0.006,
        stderr=0.002, pairs=3,
    )  # fmt: skip


def make_measured(rng: np.random.Generator, label: str, mean: float, domains: tuple[str, ...]) -> Measured:
    values = tuple((mean + rng.normal(0, 0.003, 3)).tolist())
    return Measured(
        label=label, mean=mean, low=mean - 0.007, high=mean + 0.007, values=values,
        losses={t: mean + 0.1 * i for i, t in enumerate(TARGETS)}, heldout={d: mean + 0.3 for d in domains},
        selected_tokens=210_000, unique_tokens=165_000, epochs=1.0,
    )  # fmt: skip


def make_comparison(
    rng: np.random.Generator, domains: tuple[str, ...], gains: dict[str, float]
) -> Comparison:
    """θ* against every baseline with the given gains."""
    means = {"quadmix": 1.602, **{name: 1.602 + gain for name, gain in gains.items()}}
    return Comparison(
        chosen="quadmix",
        measured=tuple(make_measured(rng, n, v, domains) for n, v in means.items()),
        against=tuple(make_pair("quadmix", name, gain) for name, gain in gains.items()),
        predicted={"quadmix": 1.61, "prior-mean": 1.62},
        model_parameters=1_100_000,
        train_tokens=2_100_000,
        target_weights={t: 0.5 for t in TARGETS},
        verdict="",
    )
