"""R5, how much to select: ω x 0.5, 1, 2, 3, 6 at fixed training tokens and at fixed epochs.

The paper (Table 2) compares 30B, 90B and 180B selected tokens at 500B training tokens, that is 16.7, 5.6 and
2.8 epochs, and finds the smallest best. Here θ* is loosened by one factor on its cutoffs, so that it selects
that many times the tokens, and 1M models are trained
- `tokens`: on 1M tokens each, whatever the selection (x1 is seen four times: a quarter of the usual pool),
- `epochs`: on one epoch of each selection (x1 is 0.5M tokens),
and random documents in the same amounts beside them.
"""

from dataclasses import replace

import numpy as np
from common import Choice, Study, by_theta, differences, opened, parser, save, target_losses, train

from quadmix.evaluate.sampling import random_copies
from quadmix.pipeline.mix import Part
from quadmix.recipe import LADDER, ModelSection
from quadmix.rng import derived_seed

FACTORS = (0.5, 1.0, 2.0, 3.0, 6.0)
SEEDS = 5


def main() -> None:
    args = parser(str(__doc__)).parse_args()
    with opened(args.overrides) as study:
        rows = [*fixed_tokens(study), *fixed_epochs(study)]
        save("r5_tokens", {"seeds": SEEDS, "rows": rows}, study)


def fixed_tokens(study: Study) -> list[dict[str, object]]:
    base = study.part(250_000)
    choices = {f"{kind} x{f:g}": _choice(study, base, f, kind) for f in FACTORS for kind in ("θ*", "random")}
    return _rows(study, "r5-tokens", "tokens", choices, 1_000_000)


def fixed_epochs(study: Study) -> list[dict[str, object]]:
    base, rows = study.part(500_000), list[dict[str, object]]()
    for f in FACTORS:
        choices = {f"{kind} x{f:g}": _choice(study, base, f, kind) for kind in ("θ*", "random")}
        rows += _rows(study, f"r5-epochs-{f:g}", "epochs", choices, round(500_000 * f))
    return rows


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
    study: Study, name: str, match: str, choices: dict[str, Choice], tokens: int
) -> list[dict[str, object]]:
    training = study.recipe.evaluate.training.model_copy(update={"tokens": tokens})
    trials = train(study, name, choices, ModelSection.model_validate(LADDER["1M"]), training, seeds=SEEDS)
    target = study.recipe.targets[0].name
    against = {}
    for label in choices:
        kind = label.split()[0]
        control = f"{kind} x1" if match == "tokens" else label
        if label != control:
            against[label] = next(
                d for d in differences(trials, study.proposal.objective, control) if d["label"] == label
            )
    out: list[dict[str, object]] = []
    for label, choice in choices.items():
        values = target_losses(trials, target).get(label, [])
        own = [t for t in trials if t.label == label]
        cutoffs = [] if choice.theta is None else choice.theta.cutoff.tolist()
        out.append(
            {
                "match": match, "label": label, "mean": float(np.mean(values)) if values else None,
                "values": values, "train_tokens": own[0].train_tokens,
                "selected_tokens": float(np.mean([t.selected_tokens for t in own])),
                "unique_tokens": float(np.mean([t.unique_tokens for t in own])),
                "epochs": float(np.mean([t.epochs for t in own])),
                "cutoff_mean": float(np.mean(cutoffs)) if cutoffs else None,
                "cutoffs_at_one": int(np.sum(np.asarray(cutoffs) >= 1)) if cutoffs else None,
                "minus_x1": against.get(label),
            }
        )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
