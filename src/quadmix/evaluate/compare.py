"""The final comparison at equal training tokens, and the RegMix-style search for a domain mixture.

In: the rungs of the ladder. Out: a `Comparison`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from quadmix.errors import SearchError
from quadmix.rng import stream
from quadmix.search.model import Fit, cross_fit, fit_model, whole
from quadmix.search.space import share_table
from quadmix.search.swarm import check_swarm, combined
from quadmix.types import (
    Comparison,
    Confirmation,
    Floats,
    Objective,
    Proposal,
    Rung,
    Transfer,
    Trial,
)

CHOSEN = "quadmix"
TOP_MIXTURES = 128  # RegMix averages the 128 best of its simulated mixtures


def compare(
    rungs: Sequence[Rung],
    proposal: Proposal,
    confirmation: Confirmation,
    *,
    transfers: Sequence[Transfer] = (),
    pool_share: float = 1.0,
    proxies: Mapping[str, int] | None = None,
    overlaps: Mapping[str, int] | None = None,
) -> Comparison:
    """Return the comparison over all rungs; its own table and verdict are those of the first one.

    Raises SearchError where no model of the chosen selector finished in the first rung.
    """
    base = rungs[0]
    if CHOSEN not in {m.label for m in base.measured}:
        raise SearchError(
            f"no comparison model of the chosen θ finished ({'; '.join(base.flags) or 'no reason given'}); "
            "see evaluate.training"
        )
    return Comparison(
        chosen=CHOSEN,
        measured=base.measured,
        against=base.against,
        predicted=_predictions(proposal, confirmation),
        model_parameters=base.parameters,
        train_tokens=base.train_tokens,
        target_weights=dict(proposal.target_weights),
        verdict=base.verdict,
        pool_share=pool_share,
        proxies=dict(proxies or {}),
        rungs=tuple(rungs),
        transfers=tuple(transfers),
        overlaps=dict(overlaps or {}),
    )


def regmix_mixture(
    trials: Sequence[Trial], mixtures: Floats, candidates: Floats, objective: Objective, *, seed: int
) -> tuple[Floats, dict[str, Any]]:
    """Return the domain shares (M,) that RegMix's procedure finds, and how well its surrogate does.

    mixtures: (K, M) shares of the trials. One surrogate per target on the shares, the mean of the best
    `TOP_MIXTURES` of `candidates` (n, M). The published LightGBM needs hundreds of proxies; with the few of a
    laptop run this baseline gets the same surrogates, objective and ceilings as ours, so that it is not a
    crippled rival.
    """
    done = [i for i, t in enumerate(trials) if t.status == "done"]
    if len(done) < 8:
        raise SearchError(f"the RegMix baseline has {len(done)} successful proxies, needs at least 8")
    domains = tuple(map(str, range(mixtures.shape[1])))
    losses = {t: np.array([trials[i].losses[t].bits_per_byte for i in done]) for t in objective.weights}
    swarm, _ = check_swarm([trials[i].trial_id for i in done], share_table(mixtures[done], domains), losses)
    own = replace(
        objective,
        weights={t: w for t, w in objective.weights.items() if t in swarm.losses},
        ceilings={t: c for t, c in objective.ceilings.items() if t in swarm.losses},
    )
    cross = cross_fit(swarm, Fit(), stream(seed, "regmix-folds"))
    predicted = fit_model(swarm, cross, own).acquisition(share_table(candidates, domains), caution=0.0)
    best = np.argsort(predicted, kind="stable")[: max(1, min(TOP_MIXTURES, len(candidates) // 100))]
    shares = candidates[best].mean(axis=0)
    correlation: Any = spearmanr(combined(own, swarm.losses), whole(cross.chosen, own).mean)
    return shares, {"trials": len(done), "spearman": float(correlation.statistic)}


def _predictions(proposal: Proposal, confirmation: Confirmation) -> dict[str, float]:
    """Return predicted objectives (proxy size) of the labels of the comparison that carry a θ."""
    by_name = {c.name: c.predicted for c in proposal.candidates}
    named = {"quadmix": confirmation.winner, "prior-mean": "prior-mean"}
    return {label: by_name[name] for label, name in named.items() if name in by_name}
