"""Many pairs put to a judge: side by side, within a budget, each answer kept at once and never paid twice.

In: pairs of texts, an `Endpoint`, a `Judge`, a `Budget` and the file of the ledger. Out: a `Judged`; or,
before anything is spent, an `Estimate`. `choose_active` picks the pairs that are worth a judge's price.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError
from quadmix.raters.endpoint import Attempts, Endpoint, RefusedError, complete
from quadmix.raters.judge import (
    Judge,
    first_share,
    judge_key,
    judge_probability,
    prompt,
    read_answer,
    request_body,
)
from quadmix.raters.spending import Budget, Ledger
from quadmix.rng import keyed_uniform
from quadmix.types import Floats

REFUSED, EMPTY = "refused", "empty_text"
ABOUT_THE_TEXT = (400, 413, 422)  # too long, filtered: another text may pass
_PATIENCE = 8  # refusals in a row that are no longer about the text
_LEAST = 64  # answers without a single vote after which no further one is paid
_TEMPLATE = 256  # most tokens that a chat template adds to a prompt
BYTES_PER_TOKEN = 4.0  # until the server has counted
TextPairs = Sequence[tuple[str, str]]
Keys = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is still to be asked. pairs: with at least one request. requests: if the server honours `n`.

    tokens_in: expected, at the bytes per token that the server counted so far (4 before). tokens_out: at
    most. tokens_most: in and out, at most. cost: of tokens_in and tokens_out at the prices given. A server
    that ignores `n` is sent a request per answer, with up to `generations` times tokens_in.
    """

    pairs: int
    requests: int
    tokens_in: int
    tokens_out: int
    tokens_most: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """P pairs judged.

    p: (P,) float64, probability that the first text of a pair is better; NaN = the judge abstains or has not
    answered. votes: (P, 2, 2) int32, see `judge_probability`. answered: (P,) bool, all generations of both
    orders are there. left: pairs not answered since the budget ended. reasons: answers that are no votes, by
    reason; REFUSED and EMPTY count pairs, so answered + left + refused + empty = P. first: share of votes for
    the text shown first. requests, tokens: spent by this call; total_requests, total_tokens: by all that
    share the ledger. torn: its cut lines.
    """

    p: Floats
    votes: NDArray[np.int32]
    answered: NDArray[np.bool_]
    left: int
    reasons: dict[str, int]
    first: float
    requests: int
    tokens: int
    total_requests: int
    total_tokens: int
    torn: int


def judge_pairs(
    pairs: TextPairs, endpoint: Endpoint, judge: Judge, *, ledger: Path,
    budget: Budget | None = None, workers: int = 8, progress: Callable[[int, int], None] | None = None,
) -> Judged:  # fmt: skip
    """Ask the judge about P pairs of texts, in their order until the budget ends.

    A pair begins only if all its requests fit into the budget with the most tokens that they may take; so
    which pairs are asked does not depend on `workers`, unless a request has to be sent again. What the ledger
    holds is not asked again. Raises as `complete`, and InputError if the first answers hold no vote or the
    server counts more tokens than a budget of tokens can allow for.
    """
    asking = _Asking(endpoint, judge, Ledger(ledger, budget or Budget()), threading.Event())
    asking.ledger.repair()
    spent = asking.ledger.requests, asking.ledger.tokens
    keys = _keys(pairs, asking)
    tally = _Tally(total=len(keys), progress=progress)
    _ask_all(asking, _jobs(pairs, keys, asking), workers, tally)
    return _judged(keys, tally.refused, asking, spent)


def estimate_judging(
    pairs: TextPairs, endpoint: Endpoint, judge: Judge, *, ledger: Path,
    price_in: float | None = None, price_out: float | None = None,
) -> Estimate:  # fmt: skip
    """Return what `judge_pairs` would still ask; nothing is sent. Prices are per million tokens."""
    asking = _Asking(endpoint, judge, Ledger(ledger, Budget()), threading.Event())
    known = asking.ledger
    rate = known.tokens_in / known.bytes_in if known.bytes_in else 1 / BYTES_PER_TOKEN
    count = requests = size = most = 0
    for job in _jobs(pairs, _keys(pairs, asking), asking):
        if job is not None:
            count, requests, most = count + 1, requests + job.requests, most + job.tokens
            size += sum(len(q.encode()) * len(asking.parts(k)) for k, q in job.questions.items())
    out = most - size - requests * _TEMPLATE
    cost = ((price_in or 0.0) * size * rate + (price_out or 0.0) * out) / 1e6
    return Estimate(
        pairs=count, requests=requests, tokens_in=round(size * rate), tokens_out=out, tokens_most=most,
        cost=None if price_in is None and price_out is None else cost,
    )  # fmt: skip


def choose_active(p: Floats, ids: Sequence[str], count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the `count` places of `p` (P,) nearest to 0.5, the nearest first.

    p: share of the cheap raters for one side; NaN (too few of them) is never chosen. ids: (P,) distinct names
    of the pairs, from which ties are broken, so that the order of the rows does not matter.
    """
    distance = np.abs(p - 0.5).round(9)  # 1/3 and 2/3 are as far
    order = np.lexsort((keyed_uniform(seed, ids, "judge"), distance))
    return order[~np.isnan(distance[order])][:count].astype(np.int64)


class _SpentError(Exception):
    """The budget ends within a pair, of which a request had to be sent again."""


@dataclass(kw_only=True)
class _Job:
    """One pair to be asked. questions: key -> prompt, per order. requests, tokens: needed, then held."""

    questions: dict[str, str]
    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Asking:
    endpoint: Endpoint
    judge: Judge
    ledger: Ledger
    stop: threading.Event

    def parts(self, key: str) -> list[int]:
        """Return how many answers each request still needed for an order asks for."""
        lacking, parts = self.judge.generations - len(self.ledger.answers.get(key, ())), list[int]()
        while lacking > 0:
            parts.append(self.judge.asked_at_once(lacking))
            lacking -= parts[-1]
        return parts

    def most(self, question: str, many: int) -> int:
        """Return the most tokens of a request for `many` answers: a token is no less than a byte."""
        return len(question.encode()) + _TEMPLATE + many * self.judge.max_tokens

    def job(self, questions: dict[str, str]) -> _Job:
        sizes = [self.most(question, many) for key, question in questions.items() for many in self.parts(key)]
        return _Job(questions=questions, requests=len(sizes), tokens=sum(sizes))

    def ask(self, job: _Job) -> list[str] | RefusedError:
        """Ask for all that a job, which is held, lacks; return the answers, or why its text is refused."""
        found: list[str] = []
        try:
            for key, question in job.questions.items():
                while parts := self.parts(key):
                    found += self._request(job, key, question, parts[0])
        except _SpentError:
            pass
        except RefusedError as error:
            if error.status not in ABOUT_THE_TEXT:
                raise
            return error
        finally:
            self.ledger.release(job.requests, job.tokens)
        return found

    def _request(self, job: _Job, key: str, question: str, many: int) -> list[str]:
        most, id_ = self.most(question, many), ""

        def before() -> None:
            nonlocal id_
            more = max(0, 1 - job.requests), max(0, most - job.tokens)
            if any(more) and not self.ledger.hold(*more):
                raise _SpentError
            job.requests, job.tokens = job.requests + more[0] - 1, job.tokens + more[1] - most
            id_ = self.ledger.sent(most)

        def failed(reason: str, billed: bool) -> None:
            spent = most if billed else 0
            self.ledger.ended({"event": "failed", "id": id_, "reason": reason, "tokens": spent}, spent)
            job.tokens += most - spent

        have = len(self.ledger.answers.get(key, ()))
        body = request_body(self.judge, self.endpoint.model, question, key=key, have=have, many=many)
        reply = complete(self.endpoint, body, Attempts(before=before, failed=failed, stop=self.stop))
        counted = reply.tokens_in is not None and reply.tokens_out is not None
        spent = (reply.tokens_in or 0) + (reply.tokens_out or 0) if counted else most
        answers = [read_answer(text) for text in reply.texts[:many]] or [reply.reason] * many
        row = {"event": "answer", "id": id_, "key": key, "answers": answers, "tokens": spent}
        self.ledger.ended({**row, "bytes": len(question.encode()), "tokens_in": reply.tokens_in}, most)
        if spent > most and self.ledger.budget.tokens is not None:
            raise InputError(
                f"endpoint {self.endpoint.address!r} counts {spent} tokens for a request that should take "
                f"{most} at most, so a budget of tokens cannot be kept; set one of requests instead"
            )
        return answers


def _keys(pairs: TextPairs, asking: _Asking) -> list[Keys | None]:
    """Return the keys of both orders of each pair, None where a text is empty."""

    def key(x: str, y: str) -> str:
        return judge_key(asking.judge, asking.endpoint.model, x, y)

    return [(key(x, y), key(y, x)) if x.strip() and y.strip() else None for x, y in pairs]


def _jobs(pairs: TextPairs, keys: Sequence[Keys | None], asking: _Asking) -> Iterator[_Job | None]:
    """Yield what is to be asked for each pair, None if nothing is; a pair that comes again is asked once."""
    seen: set[str] = set()
    for (x, y), pair in zip(pairs, keys, strict=True):
        if pair is None or pair[0] in seen or not any(asking.parts(k) for k in pair):
            yield None
            continue
        seen.update(pair)
        yield asking.job({pair[0]: prompt(x, y), pair[1]: prompt(y, x)})


def _ask_all(asking: _Asking, jobs: Iterator[_Job | None], workers: int, tally: "_Tally") -> None:
    """Ask all jobs that the budget has room for, `workers` at once."""
    running: dict[Future[list[str] | RefusedError], _Job] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="quadmix-judge") as pool:
        try:
            for job in jobs:
                if job is None:
                    tally.done += 1
                    continue
                while len(running) >= workers:
                    tally.collect(running)
                while not (room := asking.ledger.hold(job.requests, job.tokens)) and running:
                    tally.collect(running)
                if not room:
                    break
                running[pool.submit(asking.ask, job)] = job
            while running:
                tally.collect(running)
        finally:
            asking.stop.set()  # after an error, or Ctrl-C, what waits does not ask again
    tally.close()


@dataclass(kw_only=True)
class _Tally:
    """Counts what is done, and stops before much is paid where a server refuses all, or gives no vote."""

    total: int
    progress: Callable[[int, int], None] | None
    done: int = 0
    refused: set[str] = field(default_factory=set[str])
    answers: Counter[str] = field(default_factory=Counter[str])
    in_a_row: list[RefusedError] = field(default_factory=list[RefusedError])

    def collect(self, running: "dict[Future[list[str] | RefusedError], _Job]") -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            self._add(running.pop(future), future.result())
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)

    def _add(self, job: _Job, found: list[str] | RefusedError) -> None:
        if isinstance(found, RefusedError):
            self.refused.update(job.questions)
            self.in_a_row.append(found)
            if len(self.in_a_row) >= _PATIENCE:
                raise found
            return
        self.in_a_row.clear()
        self.answers.update(found)
        if self.answers.total() >= _LEAST and not (self.answers["A"] or self.answers["B"]):
            raise InputError(
                f"none of the first {self.answers.total()} answers of the judge is a vote "
                f"({dict(self.answers)}): check the model; raise max_tokens if it thinks before it answers"
            )

    def close(self) -> None:
        if self.in_a_row and not self.answers:
            raise self.in_a_row[-1]
        if self.progress:
            self.progress(self.done, self.total)


def _judged(
    keys: Sequence[Keys | None], refused: set[str], asking: _Asking, spent: tuple[int, int]
) -> Judged:
    ledger, many = asking.ledger, asking.judge.generations
    votes = np.zeros((len(keys), 2, 2), np.int32)
    answered = np.zeros(len(keys), np.bool_)
    reasons: Counter[str] = Counter()
    for row, pair in enumerate(keys):
        found = [ledger.answers.get(key, [])[:many] for key in pair or ()]
        for order, answers in enumerate(found):
            votes[row, order] = answers.count("A"), answers.count("B")
            reasons.update(answer for answer in answers if answer not in ("A", "B"))
        answered[row] = bool(found) and all(len(answers) == many for answers in found)
        if not answered[row] and (pair is None or pair[0] in refused):
            reasons[EMPTY if pair is None else REFUSED] += 1
    return Judged(
        p=np.where(answered, judge_probability(votes, many), np.nan), votes=votes, answered=answered,
        left=len(keys) - int(answered.sum()) - reasons[REFUSED] - reasons[EMPTY],
        reasons={r: count for r, count in sorted(reasons.items()) if count}, first=first_share(votes),
        requests=ledger.requests - spent[0], tokens=ledger.tokens - spent[1],
        total_requests=ledger.requests, total_tokens=ledger.tokens, torn=ledger.torn,
    )  # fmt: skip
