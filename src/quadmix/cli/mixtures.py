"""Mixtures of other tools' swarms on the command line: `quadmix search --trials`, `quadmix trials export`.

In: options as text. Out: DIR/proposal.json and DIR/shares.csv, and what `proposal.py` prints.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quadmix.cli.proposal import Found, excluded_lines, write_shares
from quadmix.errors import RecipeError

if TYPE_CHECKING:
    from quadmix.recipe import SearchSection
    from quadmix.search.exchange import MixtureTable, ShareWishes
    from quadmix.types import Floats

MOST_EPOCHS = 4.0  # how often a domain may be repeated unless --repetition says it
_USED = ("mode", "surrogate", "candidates", "top_k", "objective")  # keys of a recipe's search section

_PANEL = "With --trials: a mixture from the CSV files of any swarm"


def _opt(*names: str, metavar: str, text: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=_PANEL)


Many = list[str] | None
TrialFiles = Annotated[
    tuple[str, str] | None,
    _opt("--trials", metavar="RATIOS METRICS", text="CSV files of a swarm, instead of a RECIPE"),
]
Targets = Annotated[
    Many, _opt("--target", metavar="NAME[=WEIGHT]", text="a metric that counts; may repeat; default: all")
]
Worst = Annotated[
    bool, typer.Option("--worst", help="judge by the metric that is worst off", rich_help_panel=_PANEL)
]
AtMost = Annotated[
    Many, _opt("--at-most", metavar="METRIC=LOSS", text="a loss not to be exceeded; may repeat")
]
MinShare = Annotated[Many, _opt("--min-share", metavar="DOMAIN=SHARE", text="least share; may repeat")]
MaxShare = Annotated[Many, _opt("--max-share", metavar="DOMAIN=SHARE", text="largest share; may repeat")]
Fixed = Annotated[Many, _opt("--fixed", metavar="DOMAIN=SHARE", text="a share that is given; may repeat")]
Tokens = Annotated[
    str | None,
    _opt(
        "--tokens", metavar="FILE", text="what the pool holds: CSV (domain,tokens) or JSON {domain: tokens}"
    ),
]
Budget = Annotated[
    float | None, _opt("--budget", metavar="TOKENS", text="tokens of the training; caps what is scarce")
]
Repetition = Annotated[
    float | None, _opt("--repetition", metavar="N", text="most epochs of a domain under --budget; default: 4")
]
Current = Annotated[
    str | None, _opt("--current", metavar="FILE", text="the mixture in use (domain,share), to compare with")
]
Higher = Annotated[
    Many, _opt("--higher-is-better", metavar="METRIC", text="an accuracy; it is negated; may repeat")
]
Kind = Annotated[str | None, _opt("--surrogate", metavar="KIND", text="as search.surrogate of a recipe")]
Seed = Annotated[int | None, _opt("--seed", metavar="N", text="of folds and draws; default: 0")]
Out = Annotated[Path | None, _opt("--out", metavar="DIR", text="where to write; default: proposal/")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOptions:
    """The options of `search --trials` as they were typed; None or empty: not given."""

    targets: Sequence[str]
    worst: bool
    at_most: Sequence[str]
    min_share: Sequence[str]
    max_share: Sequence[str]
    fixed: Sequence[str]
    tokens: str | None
    budget: float | None
    repetition: float | None
    current: str | None
    higher: Sequence[str]
    surrogate: str | None
    seed: int | None
    out: Path | None

    @property
    def given(self) -> list[str]:
        """The options that were given, as a user writes them."""
        names = {"targets": "target", "higher": "higher_is_better"}
        set_ = [f for f in self.__dataclass_fields__ if getattr(self, f) not in (None, False, [], ())]
        return ["--" + names.get(f, f).replace("_", "-") for f in set_]


def check_usage(
    recipe: str | None, trials: tuple[str, str] | None, options: MixtureOptions, workers: int | None,
    accept_unconfirmed: bool,
) -> None:  # fmt: skip
    """Refuse (exit code 2) anything but one of RECIPE and --trials, or an option that goes with the other."""
    if (recipe is None) == (trials is None):
        got = "neither" if recipe is None else "both"
        raise typer.BadParameter(
            f"expected exactly one of RECIPE and --trials RATIOS METRICS, got {got}. With a recipe, the "
            "swarm is trained here; with --trials, its results are read from two CSV files"
        )
    if trials is None and options.given:
        raise typer.BadParameter(f"{options.given[0]} goes with --trials; in a recipe it is a key of its own")
    if trials is not None and (workers is not None or accept_unconfirmed):
        raise typer.BadParameter("--workers and --accept-unconfirmed go with a RECIPE, not with --trials")


def search_mixtures(
    trials: tuple[str, str], options: MixtureOptions, overrides: Sequence[str], *, quiet: bool = True
) -> Found:
    """Read a swarm, propose a mixture, write DIR/proposal.json and DIR/shares.csv."""
    from quadmix.io.atomic import write_json
    from quadmix.search.exchange import read_mixtures
    from quadmix.search.shares import propose_shares

    section = search_section(overrides, options.surrogate)
    weights = _pairs("--target", options.targets, default=1.0)
    ceilings = _pairs("--at-most", options.at_most)
    if bad := [name for name, weight in weights.items() if not weight > 0]:
        raise RecipeError(f"--target {bad[0]}={weights[bad[0]]:g}: expected a weight above 0")
    only = {**weights, **ceilings} if weights else {}
    table = read_mixtures(*trials, only=list(only), higher=list(options.higher))
    worst = options.worst or section.objective == "worst"
    wishes, notes = make_wishes(table, options, weights, ceilings, how="worst" if worst else "mean")
    if not quiet:
        size = f"{len(table)} runs, {len(table.domains)} domains, {len(table.metrics)} metrics"
        typer.echo(f"{size}: fitting and searching; minutes where there are hundreds of runs", err=True)
    proposal = propose_shares(table, wishes, section, seed=options.seed or 0)
    folder = options.out or Path("proposal")
    write_json(folder / "proposal.json", proposal)
    found = Found(proposal=proposal, table=table, wishes=wishes, notes=(*table.notes, *notes), folder=folder)
    write_shares(found)
    return found


def make_wishes(
    table: "MixtureTable", options: MixtureOptions, weights: dict[str, float], ceilings: dict[str, float],
    *, how: Literal["mean", "worst"],
) -> tuple["ShareWishes", list[str]]:  # fmt: skip
    """Check the options against the swarm; return the wishes and notes on them."""
    import numpy as np

    from quadmix.search.exchange import ShareWishes, check_known
    from quadmix.search.wishes import current_shares, natural_shares, share_bounds

    check_known([*weights, *ceilings], table.metrics, "metric", "the runs")
    if weights and (apart := [name for name in ceilings if name not in weights]):
        raise RecipeError(
            f"--at-most {apart[0]}: only targets get a surrogate, so a ceiling needs its metric among "
            f"them; add --target {apart[0]}=0.01, or another small weight"
        )
    for name in options.higher:
        if ceilings.get(name, -1.0) > 0:
            raise RecipeError(
                f"--at-most {name}={ceilings[name]:g}: metric {name!r} is negated (--higher-is-better); "
                f"to keep it at {ceilings[name]:g} or more, write --at-most {name}=-{ceilings[name]:g}"
            )
    natural = natural_shares(options.tokens, table.domains, table.shares)
    caps, notes = _caps(natural.tokens, options)
    least = _shares("--min-share", options.min_share)
    most = _shares("--max-share", options.max_share)
    fixed = _shares("--fixed", options.fixed)
    bounds = share_bounds(table, least=least, most=most, fixed=fixed, caps=caps)
    current = current_shares(options.current, table.domains) if options.current else None
    if current is not None and (unseen := float(current[table.unseen].sum())) > 0:
        notes.append(f"{unseen:.1%} of the current mixture is in domains that no run has: a guess")
    if (np.abs(bounds.project(natural.shares[None])[0] - natural.shares) > 1e-6).any():
        notes.append("natural breaks the bounds; what is predicted is the nearest mixture within them")
    wishes = ShareWishes(
        weights=weights, how=how, ceilings=ceilings, bounds=bounds,
        natural=natural.shares, current=current,
    )  # fmt: skip
    return wishes, [natural.note, *notes]


def search_section(overrides: Sequence[str], surrogate: str | None) -> "SearchSection":
    """Return the settings of the search: defaults, `search.key=value` and --surrogate."""
    from quadmix.recipe import check_recipe

    settings: dict[str, Any] = {}
    for override in [*overrides, *([f"search.surrogate={surrogate}"] if surrogate else [])]:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("search."):
            raise RecipeError(f"--set {override!r}: with --trials, expected search.key=value")
        try:
            settings[key.removeprefix("search.")] = json.loads(value)
        except ValueError:
            settings[key.removeprefix("search.")] = value
    rest = {"name": "x", "corpus": {"paths": ["x"]}, "budget": {"share": 0.1}}
    rest |= {"targets": [{"name": "x", "path": "x", "text": "x"}]}
    section = check_recipe({**rest, "search": settings}, where="--set").search
    if idle := sorted(settings.keys() - set(_USED)):
        raise RecipeError(f"--set search.{idle[0]} has no effect with --trials; what has: {', '.join(_USED)}")
    return section


def export_trials(run: str | Path, format: Literal["olmix", "regmix"], out: str | Path) -> list[str]:
    """Write the random trials of a run as another tool reads them; return what was written, as lines."""
    from quadmix.search.exchange import run_mixtures, write_olmix, write_regmix

    if format not in ("olmix", "regmix"):
        raise RecipeError(f"--format {format!r}: expected olmix or regmix")
    table = run_mixtures(run)
    paths = (write_olmix if format == "olmix" else write_regmix)(out, table)
    return [
        f"{len(table)} runs, {len(table.domains)} domains, {len(table.metrics)} metrics",
        *(str(path) for path in paths),
        *excluded_lines(table.excluded),
    ]


def _caps(tokens: "Floats | None", options: MixtureOptions) -> tuple["Floats | None", list[str]]:
    """Return the largest shares (M,) that the pool can give: repetition · tokens / budget."""
    if options.budget is None:
        if options.repetition is not None:
            raise RecipeError(
                "--repetition needs --budget TOKENS, as the cap is repetition · tokens / budget"
            )
        return None, []
    if tokens is None:
        raise RecipeError("--budget needs --tokens FILE: how many tokens every domain has")
    repetition = MOST_EPOCHS if options.repetition is None else options.repetition
    for option, value in (("--budget", options.budget), ("--repetition", repetition)):
        if not 0 < value < math.inf:
            raise RecipeError(f"{option} {value:g}: expected a number above 0")
    note = f"at {options.budget:,.0f} tokens no domain is repeated more than {repetition:g} times"
    return repetition * tokens / options.budget, [note]


def _shares(option: str, texts: Sequence[str]) -> dict[str, float]:
    pairs = _pairs(option, texts)
    for name, share in pairs.items():
        if not 0 <= share <= 1:
            raise RecipeError(f"{option} {name}={share:g}: expected a share from 0 to 1")
    return pairs


def _pairs(option: str, texts: Sequence[str], *, default: float | None = None) -> dict[str, float]:
    """Return NAME=NUMBER texts as a mapping; each name once."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not equals and default is not None:
            name, value = text, default
        else:
            try:
                value = float(number)
            except ValueError:
                value = math.nan
        if not name or not math.isfinite(value):
            raise RecipeError(f"{option} {text!r}: expected NAME=NUMBER" + (" or NAME" if default else ""))
        if name in found:
            raise RecipeError(f"{option} names {name!r} twice; say it once")
        found[name] = value
    return found
