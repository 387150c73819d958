"""What cannot be compared is said before any proxy is trained."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import demo_rows, tiny_recipe, write_rows

from quadmix.errors import BudgetError, QuadmixError, RecipeError
from quadmix.mixing.prior import prior_mean
from quadmix.pipeline import comparing, stages
from quadmix.pipeline import run as run_module
from quadmix.pipeline.feasible import check_comparison
from quadmix.pipeline.folder import open_run
from quadmix.pipeline.progress import Progress
from quadmix.pipeline.run import run
from quadmix.recipe import Recipe
from quadmix.types import Confirmation


class Noted(Progress):
    """A progress display that keeps its notes."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Reached(Exception):
    """The swarm would be trained now."""


@pytest.fixture
def until_swarm(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recipe], list[str]]:
    """Run a recipe up to its swarm; return the notes."""

    def stop(*_: Any) -> Any:
        raise Reached

    def start(recipe: Recipe) -> list[str]:
        progress = Noted()
        with pytest.raises(Reached):
            run(recipe, progress=progress)
        return progress.notes

    monkeypatch.setattr(run_module, "train_swarm", stop)
    monkeypatch.setattr(stages, "plan_progress", lambda _: None)
    return start


def refused(recipe: Recipe, error: type[QuadmixError], message: str) -> None:
    with pytest.raises(error, match=message):
        run(recipe, progress=Progress(quiet=True))
    folder = Path(recipe.run.folder) / recipe.name
    assert (folder / "stages" / "mixing.json").exists()
    assert not list(folder.rglob("trials/*"))
    assert not (folder / "pool").exists()


def test_a_rung_that_selects_more_than_the_pool_holds_is_refused(
    tmp_path: Path, until_swarm: Callable[[Recipe], list[str]]
) -> None:
    """The pool holds five times a budget of a fifth of it."""
    ladder = [{"name": "x3", "budget": 3.0}, {"name": "x9", "budget": 9.0, "baselines": ["random"]}]
    too_much = r"rung 'x9': 9 times the budget is [\d,]+ tokens, the pool holds [\d,]+: .* to 5\.00 at most"
    refused(tiny_recipe(tmp_path, evaluate__ladder=ladder), BudgetError, too_much)
    ladder[1]["budget"] = 4.9
    until_swarm(tiny_recipe(tmp_path, evaluate__ladder=ladder))


def test_a_rung_that_no_mixture_reaches_within_the_repetition_cap_is_refused(
    tmp_path: Path, until_swarm: Callable[[Recipe], list[str]]
) -> None:
    """Half a copy of every document at most: half of the pool, two and a half budgets of a fifth."""
    ladder = [{"name": "more", "budget": 3.0}]
    settings: dict[str, Any] = {"mixing": {"repetition_cap": 0.5}, "evaluate__ladder": ladder}
    refused(tiny_recipe(tmp_path, **settings), BudgetError, r"rung 'more': token budget .* exceeds")
    ladder[0]["budget"] = 2.4
    until_swarm(tiny_recipe(tmp_path, **settings))


@pytest.mark.usefixtures("until_swarm")
def test_a_domain_named_like_an_average_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    rows = demo_rows("pool.jsonl.zst", 360)
    for number, row in enumerate(rows):
        row |= {"length_score": float(number % 97), "domain_hint": ("macro", "web")[number % 2]}
    write_rows(tmp_path / "pool-a.jsonl", rows[:200])
    write_rows(tmp_path / "pool-b.jsonl", rows[200:])
    refused(recipe, RecipeError, "is named 'macro'")


def test_a_baseline_that_cannot_meet_the_budget_is_named_before_the_swarm(
    tmp_path: Path, until_swarm: Callable[[Recipe], list[str]]
) -> None:
    """Every second document has a length: half of the pool cannot fill a budget of 0.6 of it."""
    recipe = tiny_recipe(
        tmp_path, budget__share=0.6, annotate__missing="renormalise", annotate__min_coverage=0.1,
        evaluate__baselines=["random", "criteria", "prior-mean", "dsir", "regmix"],
        evaluate__ladder=[{"name": "less", "budget": 0.5}],
    )  # fmt: skip
    rows = demo_rows("pool.jsonl.zst", 360)
    for number, row in enumerate(rows):
        row |= {"text": row["text"][:1500], "length_score": float(number) if number % 2 else None}
    write_rows(tmp_path / "pool-a.jsonl", rows[:200])
    write_rows(tmp_path / "pool-b.jsonl", rows[200:])
    notes = [n for n in until_swarm(recipe) if "will be left out" in n]
    assert len(notes) == 1, notes
    assert notes[0].startswith("evaluate: top:length will be left out: baseline 'top:length': a budget of ")
    assert "tokens of documents with a score of 'length'" in notes[0]
    asked, there = (int(n.replace(",", "")) for n in re.findall(r"(?:budget of|are) ([\d,]+)", notes[0]))
    assert asked / 2 < there < asked


def test_a_rung_that_the_best_mixture_cannot_reach_is_refused_before_any_baseline_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thinned, a θ with cutoffs of 5 % gives about 6 % of the pool, one with open cutoffs all of it."""
    recipe = tiny_recipe(
        tmp_path, budget={"share": 0.04, "method": "thin"}, evaluate__ladder=[{"name": "x3", "budget": 3.0}]
    )
    monkeypatch.setattr(comparing, "_prepare", lambda *_: pytest.fail("RegMix's swarm would be trained now"))
    with open_run(recipe, Progress(quiet=True)) as job:
        corpus, targets = stages.open_pool(job), stages.read_targets(job)
        mix = stages.prepare_mixing(job, stages.annotate(job, corpus, targets))
        check_comparison(job, mix)  # some θ could
        confirmation = Confirmation(winner="", theta=prior_mean(mix.prior), confirmed=True, reason="",
                                    measured=(), against=())  # fmt: skip
        unused: Any = None
        judged = comparing.Judged(corpus=corpus, mix=mix, pool=unused, targets=targets, benchmarks=(),
                                  proposal=unused, confirmation=confirmation)  # fmt: skip
        with pytest.raises(BudgetError, match=r"rung 'x3': token budget .* exceeds"):
            comparing.evaluate(job, judged)
