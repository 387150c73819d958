"""R3, why does DSIR win on the target? The same search with a criterion that knows the target's text.

DSIR takes the documents whose words are likest to the target's: it reads the rows that steer the search and,
beyond the recipe's limit, every row of the target's file that shares no passage with a judging row. The four
criteria of studies/study.yaml know nothing of them. Here a fifth one does: `likeness`, a linear classifier of
what DSIR reads, row for row, against a sample of the pool. If that text is DSIR's whole advantage, θ* catches
up with DSIR on the rows that judge, which neither has seen. Everything else is as in R3, with new proxies,
since θ has one more weight; θ*, DSIR, the prior mean and random documents train 1M models with five seeds.

Cost: 64 proxies, the confirmation and 20 models of 1M parameters, about 35 minutes on two idle cores.
"""

from pathlib import Path

import orjson
from common import HERE, comparison_facts, parser, save

from quadmix.corpus.targets import read_target
from quadmix.io.atomic import write_bytes
from quadmix.pipeline.contamination import steering_text
from quadmix.pipeline.folder import run_folder
from quadmix.pipeline.run import run
from quadmix.pipeline.stages import target_halves
from quadmix.recipe import CriterionSection, LabelledSet, Recipe, load_recipe

NAME = "likeness"
SETTINGS = (
    "run.accept_unconfirmed=true", f"name=study-{NAME}", "evaluate.ladder=[]", "proxy.save_weights=false",
    "evaluate.baselines=[random, prior-mean, dsir]",
)  # fmt: skip


def main() -> None:
    args = parser(str(__doc__)).parse_args()
    plain = load_recipe(str(HERE / "study.yaml"), [*SETTINGS, *args.overrides])
    recipe = with_likeness(plain, run_folder(plain).with_suffix(".jsonl"))
    result = run(recipe)
    assert result.confirmation is not None
    weights = result.confirmation.theta.weights.mean(axis=0).tolist()
    names = [c.name for c in recipe.annotate.criteria]
    facts = {"weights": dict(zip(names, weights, strict=True))}
    save(f"r3_{NAME}", {**comparison_facts(result), **facts}, run=result)


def with_likeness(recipe: Recipe, file: Path) -> Recipe:
    """Return the recipe with the criterion; `file` gets what DSIR reads, and no row that judges."""
    read = [read_target(section, seed=recipe.seed) for section in recipe.targets]
    known = steering_text(recipe.targets, target_halves(read, True, recipe.seed))
    texts = [text for target in known for text in target.texts()]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    likeness = CriterionSection(name=NAME, kind="linear", good=[LabelledSet(path=str(file))])
    criteria = [*recipe.annotate.criteria, likeness]
    return recipe.model_copy(update={"annotate": recipe.annotate.model_copy(update={"criteria": criteria})})


if __name__ == "__main__":
    main()
