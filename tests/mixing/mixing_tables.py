"""Small tables and θ for the tests of the room `mixing`."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from quadmix.rng import doc_keys
from quadmix.types import Annotations, CriterionInfo, Theta


def make_table(
    tokens: ArrayLike, domain: ArrayLike, scores: ArrayLike, *, domains: int = 0, held_out: ArrayLike = ()
) -> Annotations:
    tokens, domain = np.asarray(tokens, dtype=np.int32), np.asarray(domain, dtype=np.int16)
    scores = np.asarray(scores, dtype=np.float32)
    scores = scores[:, None] if scores.ndim == 1 else scores
    ids = [f"doc-{i}" for i in range(len(tokens))]
    count = domains or (int(domain.max()) + 1 if len(domain) else 1)
    held = np.asarray(held_out, dtype=np.bool_)
    return Annotations(
        doc_id=pa.chunked_array([pa.array(ids, pa.string())]),
        keys=doc_keys(ids),
        tokens=tokens,
        domain=domain,
        scores=scores,
        held_out=held if len(held) else np.zeros(len(tokens), dtype=np.bool_),
        split=np.zeros(len(tokens), dtype=np.int32),
        criteria=tuple(
            CriterionInfo(name=f"c{n}", declared="lower", kind="column", digest="")
            for n in range(scores.shape[1])
        ),
        domains=tuple(f"m{m}" for m in range(count)),
    )


def random_table(
    seed: int, documents: int = 600, domains: int = 4, criteria: int = 3, *, ties: bool = False
) -> Annotations:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(documents, criteria))
    if ties:
        scores = np.round(scores)
    return make_table(
        rng.lognormal(5, 1.1, documents).astype(np.int32) + 1,
        rng.integers(0, domains, documents),
        scores,
        domains=domains,
    )


def one_domain(
    steepness: float, cutoff: float, exponent: float, floor: float = 0.0, scale: float = 1.0
) -> Theta:
    return Theta(
        weights=np.ones((1, 1)),
        steepness=np.array([steepness]),
        cutoff=np.array([cutoff]),
        exponent=np.array([exponent]),
        floor=np.array([floor]),
        scale=np.array([scale]),
    )


def curve_parameters() -> st.SearchStrategy[tuple[float, float, float, float]]:
    """(λ, ω, η, ε) far beyond the prior: flat to step, empty to full window."""
    return st.tuples(
        st.floats(-3, 5).map(lambda e: 10.0**e),
        st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-6, 1.0)),
        st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 6.0)),
        st.floats(0.0, 0.01),
    )
