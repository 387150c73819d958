"""What annotations already say of the comparison, checked before any proxy is trained.

In: the run and its mix. Out: an error for a rung that cannot be, a note for a baseline that will be left out.
"""

from dataclasses import replace

import numpy as np

from quadmix.errors import BudgetError, ScoreError, SearchError
from quadmix.evaluate.compare import CHOSEN
from quadmix.evaluate.selectors import choose
from quadmix.evaluate.tasks import check_task_names
from quadmix.mixing.prior import prior_mean
from quadmix.mixing.rank import pool_tokens
from quadmix.pipeline.contestants import Prepared, rung_part, selector_pool
from quadmix.pipeline.folder import Job, stage_done
from quadmix.pipeline.ladder import RungPlan, contestant_labels, rung_plans
from quadmix.pipeline.mix import Mix, Part
from quadmix.rng import derived_seed
from quadmix.types import Theta


def check_comparison(job: Job, mix: Mix) -> None:
    """Refuse what the comparison could not do, and say which baselines it will leave out.

    Raises RecipeError for a domain named like an average, BudgetError for a rung whose budget the pool or the
    limits cannot give, or whose training a fresh pool is too small for. θ* is not known yet, so that a rung
    is held against the most generous θ. Where the swarm is trained already, budgets are left to `evaluate`.
    """
    check_task_names(mix.full.domains)
    if stage_done(job.folder, "swarm"):
        return
    for plan in rung_plans(job.recipe.evaluate):
        try:
            part = rung_part(job.recipe, mix, plan)
            _check_supply(plan, part)
            part.calibrate(_most_generous(mix))
        except BudgetError as error:
            raise BudgetError(f"rung {plan.name!r}: {error}") from error
        for label, why in _short(job, mix, plan, part).items():
            job.progress.note(f"{plan.stage}: {label} will be left out: {why}")


def _check_supply(plan: RungPlan, part: Part) -> None:
    budget, available = part.budget, float(pool_tokens(part.table).sum())
    if budget > available * (1 + 1e-9):
        raise BudgetError(
            f"{plan.budget:g} times the budget is {budget:,.0f} tokens, the pool holds {available:,.0f}: "
            f"lower its `budget` to {plan.budget * available / budget:.2f} at most, or add documents"
        )


def _most_generous(mix: Mix) -> Theta:
    """Return a θ with all cutoffs open: it can be fitted to whatever the limits allow."""
    return replace(prior_mean(mix.prior), cutoff=np.ones(mix.prior.num_domains))


def _short(job: Job, mix: Mix, plan: RungPlan, part: Part) -> dict[str, str]:
    """Return the baselines that cannot meet a rung's budget, with the reason; those that need more than the
    table (RegMix's mixture, DSIR's weights) are known later."""
    pool, found = selector_pool(job.recipe, mix, part, Prepared()), dict[str, str]()
    for label in contestant_labels(job.recipe, plan):
        if label == CHOSEN:
            continue
        try:
            choose(label, pool, part.budget, draw=derived_seed(job.recipe.seed, "baseline", 0))
        except BudgetError as error:
            found[label] = str(error)
        except (ScoreError, SearchError):
            continue
    return found
