"""R5, how much to select: ω x 0.5, 1, 2, 3, 6 at fixed training tokens and at fixed epochs.

The paper (Table 2) compares 30B, 90B and 180B selected tokens at 500B training tokens, that is 16.7, 5.6 and
2.8 epochs, and finds the smallest best. Here θ* is loosened by one factor on its cutoffs, so that it selects
that many times the tokens, and 1M models are trained
- `tokens`: on 1M tokens each, whatever the selection (x1 is seen four times: a quarter of the usual pool),
- `epochs`: on one epoch of each selection (x1 is 0.5M tokens),
and random documents in the same amounts beside them. At fixed tokens x0.5 is seen 8 times, x6 two thirds of
once: fewer epochs than any of the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from common import Choice, Study, by_theta, opened, pair_interval, parser, save, target_losses, train
from shared import pool_part, result_name, with_recipe

from quadmix.evaluate.sampling import random_copies
from quadmix.pipeline.mix import Part
from quadmix.recipe import LADDER, ModelSection
from quadmix.rng import derived_seed
from quadmix.types import Theta, Trial

Rows = list[dict[str, object]]
FACTORS = (0.5, 1.0, 2.0, 3.0, 6.0)
SEEDS = 5


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument("--factors", default=",".join(f"{f:g}" for f in FACTORS), help="of ω, 1 among them")
    options.add_argument("--seeds", type=int, default=SEEDS)
    args = options.parse_args()
    factors = [float(f) for f in args.factors.split(",")]
    if 1.0 not in factors or min(factors) <= 0:
        raise SystemExit(f"--factors {args.factors}: expected numbers above 0, 1 among them")
    with opened(args.overrides, args.recipe) as study:
        found = [*fixed_tokens(study, factors, args.seeds), *fixed_epochs(study, factors, args.seeds)]
        save(result_name("r5_tokens", args), {"seeds": args.seeds, "rows": found}, study)


def fixed_tokens(study: Study, factors: Sequence[float], seeds: int) -> Rows:
    base = pool_part(study, 250_000)
    choices = {f"{kind} x{f:g}": _choice(study, base, f, kind) for f in factors for kind in ("θ*", "random")}
    return _rows(study, "r5-tokens", "tokens", choices, 1_000_000, seeds)


def fixed_epochs(study: Study, factors: Sequence[float], seeds: int) -> Rows:
    base, found = pool_part(study, 500_000), Rows()
    for f in factors:
        choices = {f"{kind} x{f:g}": _choice(study, base, f, kind) for kind in ("θ*", "random")}
        found += _rows(study, f"r5-epochs-{f:g}", "epochs", choices, round(500_000 * f), seeds)
    return found


def _choice(study: Study, base: Part, factor: float, kind: str) -> Choice:
    part = replace(base, budget=base.budget * factor)
    if kind == "θ*":
        return by_theta(part, study.confirmation.theta)
    seed = study.recipe.seed
    return Choice(
        part=part,
        copies=lambda s: random_copies(part.table, part.budget, seed=derived_seed(seed, "baseline", s)),
    )


def _rows(
    study: Study, name: str, match: str, choices: dict[str, Choice], tokens: int, seeds: int
) -> Rows:  # fmt: skip
    training = study.recipe.evaluate.training.model_copy(update={"tokens": tokens})
    trials = train(study, name, choices, ModelSection.model_validate(LADDER["1M"]), training, seeds=seeds)
    return rows(match, trials, study.recipe.targets[0].name, {k: c.theta for k, c in choices.items()})


def rows(match: str, trials: Sequence[Trial], target: str, thetas: Mapping[str, Theta | None]) -> Rows:
    """Return a row per label ("θ* x2", "random x2"), with differences over the seeds that both finished.

    thetas: of each label, None where documents are random. At fixed tokens every size is held against x1.
    """
    losses, out = target_losses(trials, target), Rows()
    for label, theta in thetas.items():
        kind, factor = label.split()
        own = [t for t in trials if t.label == label]
        controls = {"minus_x1": f"{kind} x1"} if match == "tokens" and factor != "x1" else {}
        if kind == "θ*":
            controls["minus_random"] = f"random {factor}"
        values = losses.get(label, {})
        cutoffs = np.asarray([]) if theta is None else theta.cutoff
        out.append(
            {
                "match": match, "label": label, "values": [*values.values()],
                "mean": float(np.mean([*values.values()])) if values else None,
                "train_tokens": own[0].train_tokens,
                "selected_tokens": float(np.mean([t.selected_tokens for t in own])),
                "unique_tokens": float(np.mean([t.unique_tokens for t in own])),
                "epochs": float(np.mean([t.epochs for t in own])),
                "cutoff_mean": float(cutoffs.mean()) if len(cutoffs) else None,
                "cutoffs_at_one": int((cutoffs >= 1).sum()),
                **{key: pair_interval(values, losses.get(control, {})) for key, control in controls.items()},
            }
        )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
