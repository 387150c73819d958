"""R7, does a ranking at proxy size hold for larger models, and for another learning rate?

Twelve mixtures (θ*, the prior mean, random documents, the best criterion alone, eight random θ) are trained
at 0.3M, 1M, 5M and 20M parameters on as many tokens, every size on selections of its own, and at 1M with an
eighth, half and twice the learning rate (the other sizes have the rate of 1M).
Olmix reports 0.73 between 1M proxies and 1B models; DataDecide speaks of decision accuracy.
"""

from collections.abc import Sequence

from common import Choice, Study, by_theta, opened, parser, save, train
from shared import pool_part, result_name, with_recipe

from quadmix.evaluate.cuts import top_copies
from quadmix.evaluate.rungs import build_rung
from quadmix.evaluate.sampling import random_copies
from quadmix.evaluate.transfer import transfer
from quadmix.mixing.prior import draw_theta, prior_mean
from quadmix.proxy.model import parameter_count
from quadmix.recipe import LADDER, ModelSection
from quadmix.rng import derived_seed, stream
from quadmix.types import Rung

TOKENS = 400_000
SIZES = {"0.3M": 4, "1M": 4, "5M": 3, "20M": 2}  # seeds
RATES = (0.125, 0.5, 2.0)
RATE_SEEDS = 3
RANDOM = 8
_APART = 100  # seeds between the selections of two sizes: each draws its own documents


def main() -> None:
    options = with_recipe(parser(str(__doc__)))
    options.add_argument("--sizes", default=",".join(SIZES), help="sizes to train, the smallest first")
    options.add_argument(
        "--seeds",
        default=str(max(SIZES.values())),
        help="at most as many of a size: one number, or one per size",
    )
    options.add_argument(
        "--rates", type=rates_of, default=list(RATES), help="factors of the learning rate at 1M, as 0.5,2"
    )
    options.add_argument("--rate-seeds", type=int, default=RATE_SEEDS, help="seeds of every learning rate")
    args = options.parse_args()
    names = args.sizes.split(",")
    if "1M" not in names or not set(names) <= set(SIZES):
        raise SystemExit(
            f"--sizes {args.sizes}: expected some of {', '.join(SIZES)}, 1M among them (the rates' own)"
        )
    seeds = seeds_of(names, args.seeds)
    with opened(args.overrides, args.recipe) as study:
        sizes = [_rung(study, size, size, seeds[size], 1.0) for size in names]
        rates = [_rung(study, f"1M lr x{f:g}", "1M", args.rate_seeds, f) for f in args.rates]
        seed = study.recipe.seed
        one = next(r for r in sizes if r.name == "1M")
        save(
            result_name("r7_transfer", args),
            {
                "tokens": TOKENS,
                "rungs": [*sizes, *rates],
                "sizes": [transfer(a, b, seed=seed) for i, a in enumerate(sizes) for b in sizes[i + 1 :]],
                "rates": [transfer(one, r, seed=seed) for r in rates],
            },
            study,
        )


def seeds_of(sizes: Sequence[str], asked: str) -> dict[str, int]:
    """Return the seeds of every size: `asked` is one number for all, or as many as there are sizes."""
    numbers = [int(n) if n.isdecimal() else 0 for n in asked.split(",")]
    if len(numbers) == 1:
        numbers *= len(sizes)
    if len(numbers) != len(sizes) or min(numbers) < 1:
        raise SystemExit(
            f"--seeds {asked}: expected one number from 1 on, or one for each of {', '.join(sizes)}"
        )
    return {size: min(n, SIZES[size]) for size, n in zip(sizes, numbers, strict=True)}


def rates_of(asked: str) -> list[float]:
    """Return the factors of the learning rate; argparse names the option when this raises ValueError."""
    factors = [float(f) for f in asked.split(",")]
    if not all(0 < f < float("inf") for f in factors):
        raise ValueError(asked)
    return factors


def _choices(study: Study) -> dict[str, Choice]:
    part, seed = pool_part(study, TOKENS), study.recipe.seed
    thetas = {"quadmix": study.confirmation.theta, "prior-mean": prior_mean(study.mix.prior)}
    for number in range(RANDOM):
        thetas[f"theta:{number:03}"] = draw_theta(stream(seed, "r7", number), study.mix.prior, 1)[0]
    choices = {label: by_theta(part, theta) for label, theta in thetas.items()}
    best = _best_criterion(study)

    def random(s: int):
        return random_copies(part.table, part.budget, seed=derived_seed(seed, "baseline", s))

    def top(s: int):
        return top_copies(
            part.table, part.normalised, best, part.budget, seed=derived_seed(seed, "baseline", s)
        )

    name = study.recipe.annotate.criteria[best].name
    return {
        **choices,
        "random": Choice(part=part, copies=random),
        f"top:{name}": Choice(part=part, copies=top),
    }


def _best_criterion(study: Study) -> int:
    """Return the criterion whose θ alone was predicted best (`single:<criterion>` of the proposal)."""
    names = [c.name for c in study.recipe.annotate.criteria]
    single = [c for c in study.proposal.candidates if c.name.startswith("single:")]
    return names.index(min(single, key=lambda c: c.predicted).name.partition(":")[2])


def _rung(study: Study, name: str, size: str, seeds: int, rate: float) -> Rung:
    model = ModelSection.model_validate({"size": size, **LADDER[size]})
    base = study.recipe.evaluate.training
    training = base.model_copy(update={"tokens": TOKENS, "peak_lr": base.peak_lr * rate})
    trials = train(
        study, f"r7-{name.replace(' ', '-')}", _choices(study), model, training, seeds=seeds,
        first_draw=_APART * list(SIZES).index(size),
    )  # fmt: skip
    return build_rung(
        trials, [], study.proposal.objective, name=name,
        parameters=parameter_count(model, model.padded(study.pool.manifest.vocab_size)),
        train_tokens=trials[0].train_tokens, learning_rate=training.peak_lr, budget=1.0, match="tokens",
        promised=float("nan"), left_out={}, chosen="quadmix", confidence=0.95, seed=study.recipe.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
