"""Small pools for the tests of selectors: skewed lengths, several domains, missing scores where asked for."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from quadmix.evaluate.languages import Languages
from quadmix.evaluate.selectors import Pool
from quadmix.mixing.normalise import fit_normaliser, normalise
from quadmix.mixing.prior import Prior
from quadmix.mixing.select import group
from quadmix.rng import doc_keys
from quadmix.types import Annotations, CriterionInfo

LABELS = (
    "random", "prior-mean", "random-mean", "global-cut", "top:a", "top:c", "top-domain:b", "criteria-mix",
    "qurating", "upsampling", "dsir", "regmix", "theta:000", "theta:011", "top-language:b",
    "qurating-language", "fineweb2-hq",
)  # fmt: skip
BY_DOMAIN = ("prior-mean", "random-mean", "regmix", "theta:000", "theta:011")


def make_table(seed: int = 0, documents: int = 400, domains: int = 4, criteria: str = "abc", *,
               missing: float = 0.0, decimals: int | None = None) -> Annotations:  # fmt: skip
    rng = np.random.default_rng(seed)
    ids = [f"d{i}" for i in range(documents)]
    scores = rng.normal(size=(documents, len(criteria)))
    if decimals is not None:
        scores = np.round(scores, decimals)
    gone = rng.random(scores.shape) < missing
    gone[:, 0] &= ~gone.all(axis=1)  # a document without any score is for the tests that say so
    scores[gone] = np.nan
    return Annotations(
        doc_id=pa.chunked_array([pa.array(ids)]),
        keys=doc_keys(ids),
        tokens=(rng.lognormal(4, 1.3, documents) + 1).astype(np.int32),
        domain=np.minimum(rng.geometric(0.5, documents) - 1, domains - 1).astype(np.int16),
        scores=scores.astype(np.float32),
        held_out=np.zeros(documents, dtype=np.bool_),
        split=np.zeros(documents, dtype=np.int32),
        criteria=tuple(CriterionInfo(name=n, declared="lower", kind="column", digest="") for n in criteria),
        domains=tuple(f"m{m}" for m in range(domains)),
    )


def make_pool(table: Annotations) -> Pool:
    shares = np.sqrt(np.maximum(table.domain_tokens(), 1.0)) * (table.domain_tokens() > 0)
    return Pool(
        table=table,
        normalised=normalise(fit_normaliser(table), table.scores, table.domain),
        grouped=group(table),
        prior=Prior(num_domains=len(table.domains), num_criteria=len(table.criteria)),
        seed=7,
        importance=-2.0 * np.nan_to_num(table.scores[:, 0].astype(np.float64)),
        shares=shares / shares.sum(),
        languages=Languages(code=(table.keys % np.uint64(3)).astype(np.int32), names=("", "de", "en")),
    )


def shuffled(pool: Pool, order: np.ndarray) -> Pool:
    """Return the same documents in another order."""
    old = pool.table
    table = replace(
        old, doc_id=old.doc_id.take(pa.array(order)), keys=old.keys[order], tokens=old.tokens[order],
        domain=old.domain[order], scores=old.scores[order], held_out=old.held_out[order],
        split=old.split[order],
    )  # fmt: skip
    assert pool.importance is not None
    assert pool.languages is not None
    return replace(
        pool, table=table, normalised=pool.normalised[order], grouped=group(table),
        importance=pool.importance[order], languages=pool.languages.take(order),
    )  # fmt: skip


def taken(pool: Pool, copies: np.ndarray) -> int:
    return int((copies.astype(np.int64) * pool.table.tokens).sum())
