"""The judge and the translator of a rater's settings, made ready; both are options that cost money or time.

In: the settings, texts. Out: the judge's votes with what they cost; a `Translator`.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quadmix.annotate.models.base import Settings
from quadmix.errors import InputError
from quadmix.io.atomic import append_event, read_text
from quadmix.io.door import is_offline
from quadmix.raters.endpoint import Attempts, Endpoint, RefusedError, complete
from quadmix.raters.judge import Judge
from quadmix.raters.judging import (
    ABOUT_THE_TEXT,
    BYTES_PER_TOKEN,
    Estimate,
    Judged,
    choose_active,
    estimate_judging,
    judge_pairs,
)
from quadmix.raters.rating import Progress
from quadmix.raters.seq2seq import Seq2Seq, load_seq2seq, place_seq2seq
from quadmix.raters.spending import Budget
from quadmix.raters.table import Rows, Texts
from quadmix.raters.translate import ApiTranslator, NotTranslatedError, Translator
from quadmix.raters.votes import JudgeVotes
from quadmix.recipe import RaterRecipe
from quadmix.types import Floats, Ints

LEDGER, SPENT = "judge.jsonl", "translator.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFacts:
    """What the judge did. asked: pairs chosen for it. voted: with a vote. left: not answered when the budget
    ended. reasons: answers that are no votes. first: share of votes for the text shown first, before both
    orders are averaged. requests, tokens: spent by all calls together."""

    model: str
    asked: int
    voted: int
    left: int
    reasons: dict[str, int]
    first: float
    requests: int
    tokens: int


def judge_votes(
    recipe: RaterRecipe,
    folder: Path,
    texts: Texts,
    cheap: Floats,
    sides: tuple[Rows, Rows],
    progress: Progress | None,
) -> tuple[JudgeVotes, JudgeFacts]:
    """Ask the judge about the pairs on which the other raters split most.

    cheap: (P,) share of the raters for side a, NaN where none votes. sides: (P,) rows of `texts` each.
    """
    section = recipe.judge
    assert section is not None
    order = _chosen(recipe, texts, cheap, sides)
    asked = judge_questions(recipe, texts, cheap, sides)
    judged: Judged = judge_pairs(
        asked, _endpoint(recipe), _judge(recipe), ledger=folder / LEDGER,
        budget=Budget(requests=section.max_requests, tokens=section.max_tokens), workers=section.parallel,
        progress=progress,
    )  # fmt: skip
    p = np.full(len(cheap), np.nan)
    p[order] = judged.p
    facts = JudgeFacts(
        model=section.model, asked=len(asked), voted=int((~np.isnan(judged.p)).sum()), left=judged.left,
        reasons=dict(judged.reasons), first=judged.first, requests=judged.total_requests,
        tokens=judged.total_tokens,
    )  # fmt: skip
    return JudgeVotes(p=p, weight=section.weight, vote=section.vote), facts


def judge_questions(
    recipe: RaterRecipe, texts: Texts, cheap: Floats, sides: tuple[Rows, Rows]
) -> list[tuple[str, str]]:
    """Return the pairs of texts that the judge is asked about, those on which the raters split most first."""
    a, b = sides
    return [(texts.text[a[i]], texts.text[b[i]]) for i in _chosen(recipe, texts, cheap, sides).tolist()]


def _chosen(recipe: RaterRecipe, texts: Texts, cheap: Floats, sides: tuple[Rows, Rows]) -> Ints:
    section = recipe.judge
    assert section is not None
    a, b = sides
    names = [f"{texts.ids[i]}\x1f{texts.ids[j]}" for i, j in zip(a.tolist(), b.tolist(), strict=True)]
    return choose_active(cheap, names, section.pairs or len(names), seed=recipe.seed)


def estimate(recipe: RaterRecipe, folder: Path, texts: list[tuple[str, str]]) -> Estimate:
    """Return what the judge would still be asked about pairs of texts, and its cost; nothing is sent."""
    section = recipe.judge
    assert section is not None
    return estimate_judging(
        texts, _endpoint(recipe), _judge(recipe), ledger=folder / LEDGER, price_in=section.price_in,
        price_out=section.price_out,
    )  # fmt: skip


def translator_of(recipe: RaterRecipe, folder: Path) -> Translator:
    """Return the translator of kind model or api."""
    section = recipe.transfer.translator
    if section.kind == "api":
        return api_translator(recipe, folder)
    if section.path is None:
        raise InputError("transfer.translator of kind 'model' needs `path`, the folder of the model")
    how = Seq2Seq(codes=section.codes, how=section.how, template=section.template, beams=section.beams)
    settings = Settings(device=recipe.run.device)
    return load_seq2seq(section.path, how, settings=settings, offline=is_offline())


def translator_digest(recipe: RaterRecipe) -> str | None:
    """Return the digest of the files of a translator of kind model, None for the other kinds; nothing is
    loaded."""
    section = recipe.transfer.translator
    if section.kind != "model" or section.path is None:
        return None
    return place_seq2seq(section.path, offline=is_offline()).digest


def api_translator(recipe: RaterRecipe, folder: Path) -> ApiTranslator:
    """Return the translator behind an API; nothing is sent yet."""
    section, transfer = recipe.transfer.translator, recipe.transfer
    if section.endpoint is None or section.model is None:
        raise InputError("transfer.translator of kind 'api' needs `endpoint` and `model`")
    if not transfer.languages:
        raise InputError("transfer.translator of kind 'api' needs transfer.languages, the targets")
    endpoint = Endpoint(
        address=section.endpoint, model=section.model, key_variable=section.key_from or "",
    )  # fmt: skip
    spent = _Requests(folder / SPENT, section.max_requests)
    attempts = Attempts(before=spent.take, failed=lambda reason, billed: None, stop=threading.Event())

    def ask(messages: list[dict[str, str]]) -> str:
        body = {"model": section.model, "messages": messages, "temperature": 0}
        try:
            found = complete(endpoint, body, attempts)
        except Exception as error:
            if isinstance(error, RefusedError) and error.status in ABOUT_THE_TEXT:
                raise NotTranslatedError(str(error)) from error
            attempts.stop.set()  # what waits beside it is not sent any more
            raise
        return found.texts[0] or "" if found.texts else ""

    languages = tuple(sorted({transfer.source, *transfer.languages, *transfer.without}))
    return ApiTranslator(ask=ask, model=section.model, languages=languages, workers=section.parallel)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatingEstimate:
    """What the translator would still be asked. requests: one per text and language. characters: of the texts
    to be translated. tokens_in, tokens_out: expected, at 4 bytes per token and as long as the text; a script
    that the model cuts finely takes more. cost: at the prices given. left: requests that the budget has."""

    requests: int
    characters: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    left: int


def estimate_translating(
    recipe: RaterRecipe, folder: Path, missing: Sequence[tuple[str, str, str]]
) -> TranslatingEstimate:
    """Return what translations would cost: (source language, target, text); nothing is sent."""
    section, translator = recipe.transfer.translator, api_translator(recipe, folder)
    asked = sum(len(translator.prompt(text, source, target).encode()) for source, target, text in missing)
    answered = sum(len(text.encode()) for *_, text in missing)
    tokens_in, tokens_out = round(asked / BYTES_PER_TOKEN), round(answered / BYTES_PER_TOKEN)
    priced = section.price_in is not None or section.price_out is not None
    cost = ((section.price_in or 0.0) * tokens_in + (section.price_out or 0.0) * tokens_out) / 1e6
    return TranslatingEstimate(
        requests=len(missing), characters=sum(len(text) for *_, text in missing),
        tokens_in=tokens_in, tokens_out=tokens_out, cost=cost if priced else None,
        left=max(0, section.max_requests - _Requests(folder / SPENT, section.max_requests).sent),
    )  # fmt: skip


class _Requests:
    """Requests sent to the translator by all calls together, one line each, so that a restart has no new
    budget."""

    def __init__(self, path: Path, most: int) -> None:
        self.path, self.most, self._lock = path, most, threading.Lock()
        self.sent = len(read_text(path).splitlines()) if path.is_file() else 0

    def take(self) -> None:
        """Count one more request before it leaves, from any thread; InputError where the budget is spent."""
        with self._lock:
            if self.sent >= self.most:
                raise InputError(
                    f"transfer.translator.max_requests, {self.most:,}, is used up; all that was translated "
                    "is kept: raise it and call again"
                )
            append_event(self.path, {"request": self.sent + 1})
            self.sent += 1


def _endpoint(recipe: RaterRecipe) -> Endpoint:
    section = recipe.judge
    assert section is not None
    return Endpoint(
        address=section.endpoint, model=section.model, key_variable=section.key_from or "",
        timeout=section.timeout,
    )  # fmt: skip


def _judge(recipe: RaterRecipe) -> Judge:
    section = recipe.judge
    assert section is not None
    return Judge(generations=section.generations, temperature=section.temperature, seed=recipe.seed)
