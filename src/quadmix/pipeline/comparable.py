"""Two runs side by side: do trials of the earlier one mean the same in this one, and over which axes?

In: an earlier run's folder and this run. Out: why no trial of it applies, field by field; or how its domains
and criteria lie in this run's, and with that a trial over this run's axes that selects what it selected.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.annotate.run import AnnotationManifest, manifest_path
from quadmix.errors import InputError
from quadmix.io.atomic import file_digest, read_json, read_value
from quadmix.io.trials import is_dropped
from quadmix.mixing.prior import Prior, prior_mean
from quadmix.pipeline.folder import Job
from quadmix.pipeline.mix import Mix
from quadmix.pipeline.stages import load_table
from quadmix.proxy.targets import target_digests
from quadmix.recipe import Recipe, load_recipe
from quadmix.types import Annotations, Corpus, Theta, Trial

_MOVED = 0.2  # a domain's tokens, the budget's share and the epochs may differ by this much
_NO_WEIGHT = 1e-6  # a criterion with less weight everywhere ordered nothing
_NO_SHARE = 1e-3  # a domain with less of the selected tokens did not matter
_EQUAL = ("proxy.model", "proxy.training", "proxy.common", "proxy.pool", "mixing.normaliser",
          "mixing.rank_mode", "annotate.missing", "annotate.exclude_overlap")  # fmt: skip
_NAMES_ONLY = ("size",)  # of a model: its layers, width, heads and mlp are compared instead
_NEEDED = ("recipe.resolved.yaml", "corpus/manifest.json", "annotations/manifest.json", "tokenizer.json",
           "targets/manifest.json", "stages/mixing.json")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunFacts:
    """What is compared of a run. table: its selectable documents. targets: name -> digest of its windows.
    budget: selected tokens per selectable token. epochs: how often the final training sees them.
    software: the versions that trained its proxies."""

    folder: Path
    recipe: Recipe
    table: Annotations
    corpus: str
    labeller: str
    tokenizer: str
    targets: dict[str, str]
    software: str
    budget: float
    epochs: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axes:
    """How this run's axes lie in an earlier run's. domains, criteria: index there, or None where new.
    gone: names that this run does not have, with their index there. size: how many domains and criteria
    there. centre: θ of the prior's middle."""

    domains: tuple[int | None, ...]
    criteria: tuple[int | None, ...]
    gone_domains: dict[str, int]
    gone_criteria: dict[str, int]
    size: tuple[int, int]
    centre: Theta


def facts_here(job: Job, mix: Mix) -> RunFacts:
    """Return what is compared of the run that goes on."""
    return RunFacts(
        folder=job.folder, recipe=job.recipe, table=mix.whole.table,
        budget=mix.whole.budget / float(mix.whole.table.tokens.sum(dtype=np.float64)),
        epochs=mix.train_tokens / mix.whole.budget, **_digests(job.folder),
    )  # fmt: skip


def facts_there(folder: Path) -> RunFacts:
    """Read what is compared of an earlier run; InputError if it did not get as far as its swarm."""
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise InputError(f"it has no {missing[0]}, so it did not get as far as its swarm")
    recipe = load_recipe(str(folder / "recipe.resolved.yaml"))
    corpus = read_value(folder / "corpus" / "manifest.json", Corpus)
    mixing = read_json(folder / "stages" / "mixing.json")["facts"]
    return RunFacts(
        folder=folder, recipe=recipe, table=load_table(folder, corpus, recipe).selectable,
        budget=mixing["budget"] / mixing["tokens"], epochs=mixing["train_tokens"] / mixing["budget"],
        **_digests(folder),
    )  # fmt: skip


def _digests(folder: Path) -> dict[str, Any]:
    annotations = read_value(manifest_path(folder), AnnotationManifest)
    identity = read_json(folder / "identity.json")
    return {
        "software": f"quadmix {identity.get('tool')}, torch {identity.get('library.torch')}",
        "corpus": annotations.corpus,
        "labeller": annotations.domain.digest,
        "tokenizer": file_digest(folder / "tokenizer.json"),
        "targets": target_digests(folder / "targets"),
    }


def incomparable(here: RunFacts, there: RunFacts) -> list[str]:
    """Return why losses or θ of an earlier run mean something else here, field by field; [] if not so."""
    problems = [
        f"{name} is {got!r} there, {now!r} here" for name, got, now in _settings(there.recipe, here.recipe)
    ]
    if there.tokenizer != here.tokenizer:
        problems.append(
            f"the tokenizer is {there.tokenizer[:8]} there, {here.tokenizer[:8]} here: to reuse the trials, "
            f"set tokenizer.path: {there.folder.absolute() / 'tokenizer.json'}"
        )
    if there.labeller != here.labeller:
        problems.append("annotate.domain labels documents otherwise: domains of one name are not the same")
    for name, got, now in (
        ("budget as a share of the pool", there.budget, here.budget),
        ("number of epochs of the final training", there.epochs, here.epochs),
    ):
        if _moved(got, now):
            problems.append(f"the {name} is {got:.3g} there, {now:.3g} here, more than {_MOVED:.0%} apart")
    before, after = _domain_tokens(there.table), _domain_tokens(here.table)
    problems += [
        f"domain {name!r} has {after[name]:,} tokens here, {size:,} there "
        f"({after[name] / max(size, 1) - 1:+.0%}, expected within {_MOVED:.0%})"
        for name, size in before.items()
        if name in after and _moved(size, after[name])
    ]
    return problems


def _settings(there: Recipe, here: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value there, value here) of the settings that must be equal and are not."""
    before, after = (r.model_dump(mode="json") for r in (there, here))
    for path in _EQUAL:
        section, key = path.split(".")
        old, new = before[section][key], after[section][key]
        if isinstance(old, dict):
            names = [n for n in old if n not in _NAMES_ONLY and old[n] != new[n]]
            yield from ((f"{path}.{name}", old[name], new[name]) for name in names)
        elif old != new and not (isinstance(old, list) and sorted(old) == sorted(new)):
            yield path, old, new


def _moved(before: float, after: float) -> bool:
    return abs(after - before) > _MOVED * before


def _domain_tokens(table: Annotations) -> dict[str, int]:
    return {n: round(t) for n, t in zip(table.domains, table.domain_tokens().tolist(), strict=True)}


def match_axes(here: RunFacts, there: RunFacts, prior: Prior) -> Axes:
    """Match domains by name, criteria by name, direction and the digest of their annotator."""
    domains = {name: i for i, name in enumerate(there.table.domains)}
    criteria = {(c.name, c.declared, c.digest): j for j, c in enumerate(there.table.criteria)}
    mine = [(c.name, c.declared, c.digest) for c in here.table.criteria]
    return Axes(
        domains=tuple(domains.get(name) for name in here.table.domains),
        criteria=tuple(criteria.get(c) for c in mine),
        gone_domains={n: i for n, i in domains.items() if n not in here.table.domains},
        gone_criteria={c[0]: j for c, j in criteria.items() if c not in mine},
        size=(len(there.table.domains), len(there.table.criteria)),
        centre=prior_mean(prior),
    )


def projected(trial: Trial, axes: Axes) -> Trial | str:
    """Return the trial over this run's axes, or why it does not apply."""
    theta = trial.theta
    if trial.status != "done":
        return trial.reason if is_dropped(trial) else "it failed there"
    if theta is None or theta.weights.shape != axes.size or len(trial.shares) != theta.num_domains:
        return "it carries no θ over the domains and criteria of its run"
    for name, j in axes.gone_criteria.items():
        if (theta.weights[:, j] >= _NO_WEIGHT).any():
            return f"it gives weight to criterion {name!r}, which is gone or made otherwise here"
    for name, i in axes.gone_domains.items():
        if trial.shares[i] >= _NO_SHARE:
            return f"it selects from domain {name!r}, which is gone here"
    shares = tuple(0.0 if i is None else trial.shares[i] for i in axes.domains)
    return replace(trial, theta=_theta(theta, axes), shares=shares)


def _theta(theta: Theta, axes: Axes) -> Theta:
    """Return θ over this run's axes; it selects what it selected. New domains are closed (ω = ε = 0)."""
    known = np.array([i is not None for i in axes.domains])
    rows = np.array([i or 0 for i in axes.domains])
    weights = np.zeros((len(rows), len(axes.criteria)))
    for n, j in enumerate(axes.criteria):
        if j is not None:
            weights[:, n] = theta.weights[rows, j]
    weights = np.where(known[:, None], weights, axes.centre.weights)
    centre = replace(axes.centre, cutoff=np.zeros(len(rows)), floor=np.zeros(len(rows)))
    return Theta(
        weights=weights / weights.sum(axis=1, keepdims=True),
        **{
            name: np.where(known, getattr(theta, name)[rows], getattr(centre, name))
            for name in ("steepness", "cutoff", "exponent", "floor", "scale")
        },
    )
