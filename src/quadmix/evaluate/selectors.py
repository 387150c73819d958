"""All selectors of the comparison behind one interface: a label, a pool and a budget in, copies out.

In: `Pool`, a budget in tokens (copies counted), a label, the seed of the draw. Out: `Chosen`.

Every selector meets the same budget: to within one document, or where tokens are settled domain by domain (θ
and RegMix) to within one document per domain. docs/baselines.md says what each does and where it comes from.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import BudgetError, RecipeError, ScoreError, SearchError
from quadmix.evaluate.cuts import global_cut_copies, top_copies, top_domain_copies, union_copies
from quadmix.evaluate.languages import (
    Languages,
    quantile_copies,
    sampled_language_copies,
    top_language_copies,
)
from quadmix.evaluate.mixtures import mixture_copies
from quadmix.evaluate.sampling import gumbel_copies, log_importance, mean_score, random_copies
from quadmix.evaluate.upsampling import upsampled_copies
from quadmix.mixing.limits import Limits
from quadmix.mixing.prior import Prior, draw_theta, prior_mean, random_mean
from quadmix.mixing.quota import Method, fit_budget
from quadmix.mixing.rank import Grouped, RankMode
from quadmix.mixing.sampling import standardise
from quadmix.mixing.select import select
from quadmix.recipe import Baseline
from quadmix.rng import stream
from quadmix.types import Annotations, Copies, Floats, Theta

Need = Literal["importance", "shares", "languages"]
NEEDS: Mapping[Baseline, Need] = {  # field of the pool
    "dsir": "importance", "regmix": "shares", "criteria-language": "languages",
    "qurating-language": "languages", "fineweb2-hq": "languages",
}  # fmt: skip
_THETA, _TOP, _TOP_DOMAIN, _TOP_LANGUAGE = "theta:", "top:", "top-domain:", "top-language:"
_SAME_AS_TOP = ("criteria-mix", "global-cut")  # of a single criterion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """What every selector gets.

    table: (D,) documents. normalised: (D, N), 0 = best, NaN = missing. grouped, prior, limits, rank_mode,
    method: how θ are drawn and fitted, as in the run (limits bind θ alone). seed: the run's, for random θ.
    importance: (D,) log importance weights of DSIR, NaN = none. shares: (M,) the mixture of RegMix.
    languages: of the documents. temperature: τ of `qurating` and `qurating-language`. language_alpha: see
    `language_parts`.
    """

    table: Annotations
    normalised: NDArray[np.float32]
    grouped: Grouped
    prior: Prior
    seed: int
    limits: Limits | None = None
    rank_mode: RankMode = "interval"
    method: Method = "cutoff"
    importance: Floats | None = None
    shares: Floats | None = None
    languages: Languages | None = None
    temperature: float = 2.0
    language_alpha: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """A selection. theta: the fitted θ behind it, None where it is none. copies: (D,) int32."""

    label: str
    theta: Theta | None
    copies: Copies


def baseline_labels(
    baselines: Sequence[Baseline], criteria: Sequence[str], random_thetas: int = 0
) -> tuple[str, ...]:
    """Return the labels that the names in a recipe stand for, in their order, each once.

    With a single criterion `criteria-mix` and `global-cut` are its top cut: beside `criteria` left out.
    """
    labels: list[str] = []
    for name in baselines:
        if name == "criteria":
            labels += [f"{_TOP}{c}" for c in criteria]
        elif name == "criteria-domain":
            labels += [f"{_TOP_DOMAIN}{c}" for c in criteria]
        elif name == "criteria-language":
            labels += [f"{_TOP_LANGUAGE}{c}" for c in criteria]
        elif not (name in _SAME_AS_TOP and len(criteria) == 1 and "criteria" in baselines):
            labels.append(name)
    labels += [f"{_THETA}{i:03d}" for i in range(random_thetas)]
    return tuple(dict.fromkeys(labels))


def from_theta(label: str) -> bool:
    """Return whether the selection of a label comes from a θ (and shares its draw with other θ)."""
    return label in ("prior-mean", "random-mean") or label.startswith(_THETA)


def choose(label: str, pool: Pool, budget: float, *, draw: int) -> Chosen:
    """Return what the selector `label` takes of the pool for `budget` tokens, copies counted.

    draw: seed of everything random but the θ themselves, which belong to the run's seed and their number.
    Raises BudgetError with what was asked, what can be reached and the remedy; RecipeError for an unknown
    label, ScoreError or SearchError where the pool lacks what the label's baseline needs (`NEEDS`).
    """
    try:
        if from_theta(label):
            theta, copies = theta_copies(_theta(label, pool), pool, budget, seed=draw)
        else:
            theta, copies = None, _selector(label, pool)(budget, draw)
        _check_reached(label, pool, budget, copies)
    except BudgetError as error:
        raise BudgetError(f"baseline {label!r}: {error}") from error
    return Chosen(label=label, theta=theta, copies=copies)


def theta_copies(theta: Theta, pool: Pool, budget: float, *, seed: int) -> tuple[Theta, Copies]:
    """Return θ fitted to the budget (any earlier thinning undone) and the copies it draws."""
    fitted = fit_budget(
        replace(theta, scale=np.ones(theta.num_domains)), pool.table, budget,
        method=pool.method, rank_mode=pool.rank_mode, limits=pool.limits,
        normalised=pool.normalised, grouped=pool.grouped,
    )  # fmt: skip
    selection = select(
        fitted, pool.normalised, pool.table, seed=seed, rank_mode=pool.rank_mode, grouped=pool.grouped
    )
    return fitted, selection.copies


def _theta(label: str, pool: Pool) -> Theta:
    if label == "prior-mean":
        return prior_mean(pool.prior)
    if label == "random-mean":
        return random_mean(pool.prior, pool.seed)
    number = label.removeprefix(_THETA)
    if not (number.isascii() and number.isdecimal()):
        raise RecipeError(f"selector {label!r}: expected a number behind {_THETA!r}, such as theta:000")
    return draw_theta(stream(pool.seed, "compare-theta", int(number)), pool.prior, 1)[0]


def _selector(label: str, pool: Pool) -> Callable[[float, int], Copies]:
    """Return (budget, seed) -> copies for a label that is no θ."""
    table, normalised = pool.table, pool.normalised
    for prefix, cut in ((_TOP, top_copies), (_TOP_DOMAIN, top_domain_copies)):
        if label.startswith(prefix):
            n = _criterion(label.removeprefix(prefix), table)
            return lambda budget, seed: cut(table, normalised, n, budget, seed=seed)
    if label.startswith(_TOP_LANGUAGE):
        n = _criterion(label.removeprefix(_TOP_LANGUAGE), table)
        return lambda budget, seed: _top_language(pool, n, budget, seed)
    found: dict[str, Callable[[float, int], Copies]] = {
        "random": lambda budget, seed: random_copies(table, budget, seed=seed),
        "criteria-mix": lambda budget, seed: union_copies(table, normalised, budget, seed=seed),
        "global-cut": lambda budget, seed: global_cut_copies(table, normalised, budget, seed=seed),
        "upsampling": lambda budget, seed: upsampled_copies(table, normalised, budget, seed=seed),
        "qurating": lambda budget, seed: _qurating(pool, budget, seed),
        "dsir": lambda budget, seed: _dsir(pool, budget, seed),
        "regmix": lambda budget, seed: _regmix(pool, budget, seed),
        "qurating-language": lambda budget, seed: _qurating_language(pool, budget, seed),
        "fineweb2-hq": lambda budget, seed: quantile_copies(
            mean_score(normalised), _languages(pool, "fineweb2-hq"), table, budget, seed=seed
        ),
    }
    if label not in found:
        names = [
            *found,
            "prior-mean",
            "random-mean",
            "theta:NNN",
            "top:<criterion>",
            "top-domain:<criterion>",
            "top-language:<criterion>",
        ]
        raise RecipeError(f"there is no selector {label!r}; expected one of {', '.join(names)}")
    return found[label]


def _top_language(pool: Pool, criterion: int, budget: float, seed: int) -> Copies:
    name = pool.table.criteria[criterion].name
    return top_language_copies(
        pool.normalised[:, criterion].astype(np.float64), _languages(pool, f"{_TOP_LANGUAGE}{name}"),
        pool.table, budget, alpha=pool.language_alpha, seed=seed, needs=f"a score of {name!r}",
    )  # fmt: skip


def _qurating_language(pool: Pool, budget: float, seed: int) -> Copies:
    _check_temperature(pool)
    return sampled_language_copies(
        mean_score(pool.normalised), _languages(pool, "qurating-language"), pool.table, budget,
        alpha=pool.language_alpha, temperature=pool.temperature, seed=seed,
    )  # fmt: skip


def _languages(pool: Pool, label: str) -> Languages:
    if pool.languages is None:
        raise ScoreError(f"selector {label!r} needs the pool's `languages`, of every document")
    return pool.languages


def _check_temperature(pool: Pool) -> None:
    if not pool.temperature > 0:
        raise RecipeError(f"evaluate.temperature is {pool.temperature}, expected > 0")


def _qurating(pool: Pool, budget: float, seed: int) -> Copies:
    _check_temperature(pool)
    logits = standardise(-mean_score(pool.normalised))
    return gumbel_copies(logits, pool.table, budget, temperature=pool.temperature, seed=seed)


def _dsir(pool: Pool, budget: float, seed: int) -> Copies:
    if pool.importance is None:
        raise ScoreError("selector 'dsir' needs the pool's `importance`, (D,) log importance weights")
    logits = log_importance(pool.importance, len(pool.table))
    return gumbel_copies(logits, pool.table, budget, temperature=1.0, seed=seed, needs="an importance weight")


def _regmix(pool: Pool, budget: float, seed: int) -> Copies:
    if pool.shares is None:
        raise SearchError(
            "selector 'regmix' needs the pool's `shares`, (M,) the mixture that its swarm found"
        )
    if not budget > 0:
        raise BudgetError(f"the budget is {budget:,.0f} tokens, expected more than 0")
    return mixture_copies(pool.shares, pool.table, budget, seed=seed)


def _criterion(name: str, table: Annotations) -> int:
    names = [c.name for c in table.criteria]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
        raise RecipeError(f"a selector names the criterion {name!r}, which the table does not have; {hint}")
    return names.index(name)


def _check_reached(label: str, pool: Pool, budget: float, copies: Copies) -> None:
    """Raise BudgetError where the tokens are off by more than whole documents explain."""
    table = pool.table
    reached = float((copies.astype(np.float64) * table.tokens).sum())
    parts = len(table.domains) if from_theta(label) or label == "regmix" else 1
    if abs(reached - budget) > parts * int(table.tokens.max()):
        raise BudgetError(
            f"took {reached:,.0f} tokens, asked for {budget:,.0f}; lower the budget or add documents"
        )
