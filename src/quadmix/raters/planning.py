"""What the pairs of a rater would still cost: the judge, and a translator behind an API.

In: the settings. Out: a `SpendingPlan`; nothing is sent. The pairs are drawn, cut and rated as they will be,
so that the counts are those of the pairs that would be asked about. Where the judge would read translations
that are not made yet (direction M), their originals stand in for them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from quadmix.raters.asking import (
    TranslatingEstimate,
    api_translator,
    estimate,
    estimate_translating,
    judge_questions,
)
from quadmix.raters.compared import TRANSLATIONS, Drawing, Tell, compared, draw_sides, targets_of, telling
from quadmix.raters.judging import Estimate
from quadmix.raters.making import Inputs, directions_of, read_inputs
from quadmix.raters.rating import rate
from quadmix.raters.table import Ratings, Rows, Texts
from quadmix.raters.translate import Pending, pending_translations
from quadmix.raters.votes import label_pairs, voting_settings
from quadmix.recipe import RaterRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePlan:
    """What the judge would still be asked. pairs: chosen for it. stand_ins: pairs of texts in whose place
    their originals were counted, since they are not translated yet."""

    model: str
    pairs: int
    stand_ins: int
    estimate: Estimate

    def lines(self) -> list[str]:
        """Return it as text."""
        e = self.estimate
        lines = [
            f"judge {self.model}: {e.pairs:,} of {self.pairs:,} pairs are not answered yet",
            f"{e.requests:,} requests, about {e.tokens_in:,} tokens in, at most {e.tokens_out:,} out",
            _cost(e.cost, "judge"),
        ]
        if self.stand_ins:
            lines.append(
                f"{self.stand_ins:,} of the pairs are not translated yet: their originals were counted"
            )
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatorPlan:
    """What the translator would still be asked. wanted: translations in all, also those that are there."""

    model: str
    wanted: int
    estimate: TranslatingEstimate

    def lines(self) -> list[str]:
        """Return it as text."""
        e = self.estimate
        lines = [
            f"translator {self.model}: {e.requests:,} of {self.wanted:,} translations are not made yet",
            f"{e.requests:,} requests, {e.characters:,} characters, about {e.tokens_in:,} tokens in and "
            f"{e.tokens_out:,} out",
            _cost(e.cost, "transfer.translator"),
        ]
        if e.left < e.requests:
            lines.append(
                f"warning: transfer.translator.max_requests allows {e.left:,} more requests: it stops there"
            )
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingPlan:
    """None: there is no such party, or it costs nothing."""

    judge: JudgePlan | None
    translator: TranslatorPlan | None

    def lines(self) -> list[str]:
        """Return it as text."""
        parts = [part.lines() for part in (self.judge, self.translator) if part is not None]
        return [line for part in parts for line in part] or [
            "nothing would be paid for: there is no `judge`, and transfer.translator is not of kind api"
        ]


def plan_spending(recipe: RaterRecipe, folder: Path, tell: Tell | None = None) -> SpendingPlan:
    """Return what judge and translator would be asked; nothing is sent.

    Raises InputError for documents or raters that cannot be used.
    """
    paid = recipe.transfer.translator.kind == "api"
    if recipe.judge is None and not paid:
        return SpendingPlan(judge=None, translator=None)
    inputs = read_inputs(recipe, folder)
    questions, stand_ins = list[tuple[str, str]](), 0
    missing, wanted = dict[tuple[str, str, str], None](), 0
    for direction in directions_of(recipe):
        drawing = draw_sides(recipe, inputs.documents, inputs.raters, inputs.languages, direction, tell)
        pending = _pending(recipe, folder, inputs, drawing, direction) if paid else None
        if pending is not None:
            wanted, missing = wanted + pending.wanted, missing | dict.fromkeys(pending.missing)
        if recipe.judge is not None:
            asked = _asked(recipe, folder, inputs, drawing, direction, pending, tell)
            questions, stand_ins = questions + asked.questions, stand_ins + asked.stand_ins
    translator, judge = None, None
    if paid:
        whole = estimate_translating(recipe, folder, tuple(missing))
        translator = TranslatorPlan(
            model=str(recipe.transfer.translator.model), wanted=wanted, estimate=whole
        )
    if recipe.judge is not None:
        judge = JudgePlan(
            model=recipe.judge.model, pairs=len(questions), stand_ins=stand_ins,
            estimate=estimate(recipe, folder, questions),
        )  # fmt: skip
    return SpendingPlan(judge=judge, translator=translator)


def _pending(recipe: RaterRecipe, folder: Path, inputs: Inputs, drawing: Drawing, direction: str) -> Pending:
    targets = targets_of(recipe, inputs.languages, direction)
    translator = api_translator(recipe, folder)
    return pending_translations(drawing.sides.texts, translator, targets, folder / TRANSLATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    questions: list[tuple[str, str]]
    stand_ins: int


def _asked(
    recipe: RaterRecipe,
    folder: Path,
    inputs: Inputs,
    drawing: Drawing,
    direction: str,
    pending: Pending | None,
    tell: Tell | None,
) -> _Asked:
    """Return the pairs of texts that the judge is asked about in one direction."""
    sides = drawing.sides
    if direction == "M" and recipe.transfer.translator.kind in ("parallel", "none"):
        step = compared(recipe, folder, inputs.documents, inputs.raters, inputs.languages, direction, tell)
        return _Asked(questions=_questions(recipe, step.judged, step.ratings, step.a, step.b), stand_ins=0)
    texts, untold = sides.texts, set[str]()
    if direction == "M":
        known, source = pending.known if pending else {}, recipe.transfer.source
        untold = {text for row, text in enumerate(texts.text) if (row, source) not in known}
        text = tuple(known.get((row, source), text) for row, text in enumerate(texts.text))
        ids = tuple(f"{source}/{id_}" for id_ in texts.ids)  # as translations have them: they break ties
        texts = replace(texts, text=text, ids=ids)
    rated = rate(texts, inputs.raters, inputs.documents.records, telling(tell, f"rate texts ({direction})"))
    questions = _questions(recipe, texts, rated.ratings, sides.a, sides.b)
    return _Asked(questions=questions, stand_ins=sum(bool(untold & set(pair)) for pair in questions))


def _questions(
    recipe: RaterRecipe, texts: Texts, ratings: Ratings, a: Rows, b: Rows
) -> list[tuple[str, str]]:
    weights, ties = voting_settings(recipe, ratings.names)
    cheap = label_pairs(ratings.values[a], ratings.values[b], weights=weights, tie_eps=ties, least=1)
    return judge_questions(recipe, texts, cheap.p, (a, b))


def _cost(cost: float | None, where: str) -> str:
    return (
        f"cost: unknown, give {where}.price_in and {where}.price_out" if cost is None else f"cost: {cost:.2f}"
    )
