"""QuaDMix: from a pool of scored documents and a token budget to the dataset that trains the best model.

    import quadmix
    result = quadmix.run(quadmix.load_recipe("recipe.yaml"))

The method's functions work on plain numpy arrays without any run folder. Names are loaded on first use,
so that `import quadmix` stays light (no torch, lightgbm or transformers).
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from quadmix.errors import QuadmixError
    from quadmix.materialise.explain import explain
    from quadmix.materialise.verify import verify_run
    from quadmix.materialise.write import materialise as materialise_dataset
    from quadmix.mixing.curve import curve_mass, expected_copies, mean_copies
    from quadmix.mixing.draw import draw_copies
    from quadmix.mixing.merge import merge_scores
    from quadmix.mixing.normalise import fit_normaliser, normalise
    from quadmix.mixing.prior import Prior, draw_theta, mean_theta, prior_mean
    from quadmix.mixing.quota import fit_budget
    from quadmix.mixing.rank import rank_within_domain
    from quadmix.mixing.select import select
    from quadmix.mixing.sweep import sweep, sweep_table
    from quadmix.pipeline.run import run
    from quadmix.proxy.swarm import run_swarm
    from quadmix.recipe import Recipe, load_recipe
    from quadmix.report.write import write_report
    from quadmix.search.propose import propose
    from quadmix.types import Annotations, Theta, Trial

_HOME = {
    "Annotations": "types",
    "Prior": "mixing.prior",
    "QuadmixError": "errors",
    "Recipe": "recipe",
    "Theta": "types",
    "Trial": "types",
    "curve_mass": "mixing.curve",
    "draw_copies": "mixing.draw",
    "draw_theta": "mixing.prior",
    "expected_copies": "mixing.curve",
    "explain": "materialise.explain",
    "fit_budget": "mixing.quota",
    "fit_normaliser": "mixing.normalise",
    "load_recipe": "recipe",
    "materialise_dataset": "materialise.write:materialise",
    "mean_copies": "mixing.curve",
    "mean_theta": "mixing.prior",
    "merge_scores": "mixing.merge",
    "normalise": "mixing.normalise",
    "prior_mean": "mixing.prior",
    "propose": "search.propose",
    "rank_within_domain": "mixing.rank",
    "run": "pipeline.run",
    "run_swarm": "proxy.swarm",
    "select": "mixing.select",
    "sweep": "mixing.sweep",
    "sweep_table": "mixing.sweep",
    "verify_run": "materialise.verify",
    "write_report": "report.write",
}

__all__ = [
    "Annotations",
    "Prior",
    "QuadmixError",
    "Recipe",
    "Theta",
    "Trial",
    "curve_mass",
    "draw_copies",
    "draw_theta",
    "expected_copies",
    "explain",
    "fit_budget",
    "fit_normaliser",
    "load_recipe",
    "materialise_dataset",
    "mean_copies",
    "mean_theta",
    "merge_scores",
    "normalise",
    "prior_mean",
    "propose",
    "rank_within_domain",
    "run",
    "run_swarm",
    "select",
    "sweep",
    "sweep_table",
    "verify_run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quadmix' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(f"quadmix.{module}"), attribute or name)
