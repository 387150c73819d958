"""Many pairs put to a judge: against a real server on loopback, whose own counts are the oracle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge_server import KEY
from judge_world import Server, running

from quadmix.errors import InputError, StoreError
from quadmix.raters.endpoint import RefusedError
from quadmix.raters.judge import Judge, prompt
from quadmix.raters.judging import Judged, choose_active, estimate_judging, judge_pairs
from quadmix.raters.spending import Budget


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with running() as found:
        yield found


def pairs(count: int, tag: str = "") -> list[tuple[str, str]]:
    """Texts whose quality is a number that the scripted judge reads; some first ones are better, some not."""
    return [
        (f"quality {2 * i % 3 + 5 * (1 - i % 2)} x {i} {tag}", f"quality 3 y {i} {tag}") for i in range(count)
    ]


def ask(server: Server, mode: str, ledger: Path, found: list[tuple[str, str]], **more: Any) -> Judged:
    settings = {"judge": Judge(), "workers": 4, **more}
    endpoint = server.endpoint(mode, **settings.pop("endpoint", {}))
    return judge_pairs(found, endpoint, ledger=ledger, **settings)


def test_the_better_text_wins_in_both_orders_and_in_the_order_of_the_pairs(
    server: Server, tmp_path: Path
) -> None:
    found = ask(server, "plain", tmp_path / "l.jsonl", pairs(9))
    expected = [float(int(x.split()[1]) > int(y.split()[1])) for x, y in pairs(9)]
    assert found.p.tolist() == expected
    assert set(expected) == {0.0, 1.0}
    assert found.answered.all()
    assert (found.left, found.reasons, found.first) == (0, {}, 0.5)
    assert (found.requests, server.count("plain")) == (18, 18)  # one request per order, with n = 4
    assert found.tokens == server.count("plain", "tokens")


def test_a_judge_that_prefers_what_is_shown_first_says_nothing(server: Server, tmp_path: Path) -> None:
    found = ask(server, "first", tmp_path / "l.jsonl", pairs(3))
    assert found.p.tolist() == [0.5] * 3
    assert found.first == 1.0


def test_a_real_language_model_held_to_two_letters(server: Server, tmp_path: Path) -> None:
    """Its letters are drawn, so the votes differ; the same call again, and a fresh one, give the same."""
    first, second = server.get("/ids")[:2]
    bias = {str(first): 100.0, str(second): 100.0}
    judge = Judge(generations=6, max_tokens=1, logit_bias=bias)
    found = ask(server, "model", tmp_path / "l.jsonl", pairs(3), judge=judge)
    assert found.votes.sum(axis=2).tolist() == [[6, 6]] * 3
    assert len({tuple(v) for v in found.votes.reshape(-1, 2).tolist()}) > 1
    share = found.votes[:, :, 1] / 6
    assert found.p == pytest.approx(1 - (share[:, 0] + 1 - share[:, 1]) / 2)
    asked = server.count("model")
    again = ask(server, "model", tmp_path / "l.jsonl", pairs(3), judge=judge)
    assert (again.requests, server.count("model")) == (0, asked)
    assert np.array_equal(again.votes, found.votes)
    fresh = ask(server, "model", tmp_path / "other.jsonl", pairs(3), judge=judge, workers=1)
    assert np.array_equal(fresh.votes, found.votes)


def test_a_real_language_model_that_babbles_abstains(server: Server, tmp_path: Path) -> None:
    judge = Judge(max_tokens=3, logit_bias={str(letter): -100.0 for letter in server.get("/ids")})
    found = ask(server, "model-2", tmp_path / "l.jsonl", pairs(2), judge=judge)
    assert np.isnan(found.p).all()
    assert found.answered.all()
    assert found.reasons == {"no_letter": 2 * 2 * 4}
    with pytest.raises(InputError, match=r"none of the first \d+ answers of the judge is a vote"):
        ask(server, "model-2", tmp_path / "l.jsonl", pairs(30), judge=judge)
    assert server.count("model-2") < 40  # of 60, and the 4 before


def test_what_is_no_vote_is_counted_by_its_reason(server: Server, tmp_path: Path) -> None:
    """Of three requests one has no choices, one is no JSON, one holds a single vote in four."""
    found = ask(server, "garbage", tmp_path / "l.jsonl", pairs(3), workers=1)
    assert found.reasons == {"no_choices": 8, "no_letter": 6, "not_json": 8}
    assert int(found.votes.sum()) == 2
    assert np.isnan(found.p).all()
    assert (found.left, found.answered.tolist()) == (0, [True] * 3)


def test_a_server_that_ignores_n_is_asked_once_per_answer(server: Server, tmp_path: Path) -> None:
    found = ask(server, "single", tmp_path / "l.jsonl", pairs(3))
    assert found.votes.sum(axis=2).tolist() == [[4, 4]] * 3
    assert found.requests == server.count("single") == 24
    two = ask(server, "plain-2", tmp_path / "l2.jsonl", pairs(3), judge=Judge(per_request=3))
    assert two.requests == server.count("plain-2") == 12
    assert np.array_equal(two.votes, found.votes)


def test_a_pair_that_comes_again_or_turned_round_is_asked_once(server: Server, tmp_path: Path) -> None:
    x, y = pairs(1)[0]
    found = ask(server, "plain-3", tmp_path / "l.jsonl", [(x, y), (y, x), (x, y), ("", y), (x, " \n")])
    assert found.p[:3].tolist() == [1.0, 0.0, 1.0]
    assert np.isnan(found.p[3:]).all()
    assert found.reasons == {"empty_text": 2}
    assert (found.left, server.count("plain-3")) == (0, 2)


def test_a_text_that_the_server_refuses_costs_one_pair(server: Server, tmp_path: Path) -> None:
    """What was held for the rest of that pair is given back: eleven requests are enough."""
    found = pairs(6)
    found[2] = (found[2][0] + " forbidden", found[2][1])
    result = ask(server, "filter", tmp_path / "l.jsonl", found, budget=Budget(requests=11))
    assert result.answered.tolist() == [True, True, False, True, True, True]
    assert (result.left, result.reasons) == (0, {"refused": 1})
    with pytest.raises(RefusedError, match="status 400"):
        ask(server, "invalid", tmp_path / "l2.jsonl", pairs(30))
    assert server.count("invalid") < 16
    with pytest.raises(RefusedError, match="status 400"):
        ask(server, "invalid", tmp_path / "l2.jsonl", pairs(2))


@pytest.mark.parametrize("workers", [1, 6])
def test_a_budget_of_requests_is_spent_and_not_exceeded(server: Server, tmp_path: Path, workers: int) -> None:
    mode = f"slow-{workers}"
    found = ask(server, mode, tmp_path / "l.jsonl", pairs(8), budget=Budget(requests=9), workers=workers)
    assert found.requests == server.count(mode) == 8  # a pair takes two, and is begun whole
    assert found.answered.tolist() == [True] * 4 + [False] * 4
    assert (found.left, np.isnan(found.p).tolist()) == (4, [False] * 4 + [True] * 4)
    more = ask(server, mode, tmp_path / "l.jsonl", pairs(8), budget=Budget(requests=12), workers=workers)
    assert (more.requests, more.total_requests, more.left) == (4, 12, 2)
    assert server.count(mode) == 12


@pytest.mark.parametrize("workers", [1, 6])
def test_a_budget_of_tokens_holds_by_the_servers_own_count(
    server: Server, tmp_path: Path, workers: int
) -> None:
    """Eight pairs cost more than the budget; of that, no more is left than the next pair could have taken."""
    mode, limit = f"slow-t{workers}", 9000
    found = ask(server, mode, tmp_path / "l.jsonl", pairs(8), budget=Budget(tokens=limit), workers=workers)
    spent = server.count(mode, "tokens")
    bound = 2 * (len(prompt(*pairs(1)[0])) + 256 + 4 * 8 + 10)
    assert found.tokens == spent <= limit
    assert spent > limit - bound
    assert 0 < found.left < 8
    assert found.answered.tolist() == sorted(found.answered.tolist(), reverse=True)
    assert found.left == 8 - int(found.answered.sum())


def test_which_pairs_a_budget_reaches_does_not_depend_on_the_workers(server: Server, tmp_path: Path) -> None:
    reached = [
        ask(
            server, "slow-w", tmp_path / f"{w}.jsonl", pairs(8), budget=Budget(tokens=9000), workers=w
        ).answered.tolist()
        for w in (1, 3, 8)
    ]
    assert reached[0] == reached[1] == reached[2]


def test_what_may_have_been_billed_is_spent(server: Server, tmp_path: Path) -> None:
    """A request that timed out counts as the most that it could take; a second try may not fit any more."""
    one = 2 * (len(prompt(*pairs(1)[0]).encode()) + 256 + 4 * 8)
    patience = {"timeout": 0.3, "attempts": 5}
    found = ask(server, "hang", tmp_path / "l.jsonl", pairs(1), budget=Budget(tokens=one), endpoint=patience)
    assert (found.tokens, found.requests, found.left) == (one, 2, 1)
    assert server.count("hang") == 2
    uncounted = ask(server, "uncounted", tmp_path / "l2.jsonl", pairs(1))
    assert (uncounted.tokens, uncounted.left) == (one, 0)


def test_attempts_that_failed_count_as_requests(server: Server, tmp_path: Path) -> None:
    found = ask(server, "flaky", tmp_path / "l.jsonl", pairs(4), budget=Budget(requests=10), workers=1)
    assert found.requests == server.count("flaky") == 10
    assert found.tokens == server.count("flaky", "tokens")
    assert (int(found.answered.sum()), found.left) == (2, 2)


def test_a_server_that_fails_ends_the_call_and_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    ask(server, "plain-4", ledger, pairs(3))
    with pytest.raises(StoreError, match="the same command goes on"):
        ask(server, "broken", ledger, pairs(6), endpoint={"attempts": 2})
    done = ask(server, "plain-4", ledger, pairs(6))
    assert (done.answered.all(), server.count("plain-4")) == (True, 12)
    assert done.total_requests == 12 + server.count("broken")


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from judge_world import Server
from test_raters_judging import ask, pairs
ask(Server(int(sys.argv[2])), "slow-k", Path(sys.argv[3]), pairs(30))
"""


def test_a_call_that_was_killed_goes_on_and_pays_nothing_twice(server: Server, tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(server.port), str(ledger)]
    ) as child:
        while server.count("slow-k", "answers") < 12:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.5)  # what is under way at the server ends
    killed = server.count("slow-k")
    rows = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    answered = {r["key"] for r in rows if r["event"] == "answer"}
    sent = [r for r in rows if r["event"] == "sent"]
    assert 8 <= len(answered) < 60
    assert killed <= len(sent) <= killed + 4
    with ledger.open("ab") as file:
        file.write(b'{"event":"answer","id":"1-1","ke')  # as a write that was cut leaves it
    found = ask(server, "slow-k", ledger, pairs(30))
    assert found.answered.all()
    assert found.torn == 1
    assert server.count("slow-k") - killed == found.requests == 60 - len(answered)
    assert found.total_requests == len(sent) + found.requests
    open_ = sum(r["most"] for r in sent) - sum(
        next(s["most"] for s in sent if s["id"] == r["id"]) for r in rows if r["event"] == "answer"
    )
    known = sum(r["tokens"] for r in rows if r["event"] == "answer")
    assert found.total_tokens == known + open_ + found.tokens  # a request without an end is spent in full
    again = ask(server, "slow-k", ledger, pairs(30))
    assert (again.requests, again.torn) == (0, 0)
    assert again.p.tolist() == found.p.tolist()


def test_the_key_stands_in_no_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_ENTRY", KEY)
    named = {"key_variable": "JUDGE_ENTRY"}
    assert ask(server, "auth", tmp_path / "l.jsonl", pairs(2), endpoint=named).answered.all()
    with pytest.raises(RefusedError) as caught:
        ask(server, "invalid-2", tmp_path / "l.jsonl", pairs(2, "new"), endpoint=named)
    assert KEY not in str(caught.value)
    files = list(tmp_path.iterdir())
    assert files
    assert all(KEY.encode() not in f.read_bytes() for f in files)


def test_a_file_that_is_no_ledger_is_refused(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "l.jsonl"
    file.write_text('{"event": "start", "stage": "corpus"}\n')
    with pytest.raises(InputError, match=r"l\.jsonl, line 1: expected a request that was sent or ended"):
        ask(server, "plain", file, pairs(1))


def test_the_estimate_is_what_is_then_asked(server: Server, tmp_path: Path) -> None:
    """The server counts 2 bytes per token: half the default, until it has counted."""
    ledger, endpoint, judge = tmp_path / "l.jsonl", server.endpoint("plain-5"), Judge(max_tokens=2)
    found = pairs(5)
    size = sum(len(prompt(x, y).encode()) + len(prompt(y, x).encode()) for x, y in found)
    blind = estimate_judging(found, endpoint, judge, ledger=ledger, price_in=2.0, price_out=10.0)
    assert (blind.pairs, blind.requests, blind.tokens_in) == (5, 10, round(size / 4))
    assert blind.tokens_out == 5 * 2 * 4 * 2
    assert blind.tokens_most == size + 10 * 256 + blind.tokens_out
    assert blind.cost == pytest.approx((2.0 * size / 4 + 10.0 * 80) / 1e6)
    assert server.count("plain-5") == 0
    assert not ledger.exists()
    judge_pairs(found[:2], endpoint, judge, ledger=ledger)
    rest = estimate_judging(found, endpoint, judge, ledger=ledger)
    before = server.count("plain-5", "tokens")
    done = judge_pairs(found, endpoint, judge, ledger=ledger)
    assert (rest.pairs, rest.requests, rest.cost) == (3, 6, None)
    assert done.requests == 6
    assert rest.tokens_in == pytest.approx(server.count("plain-5", "tokens") - before - 6 * 8, abs=6)
    assert estimate_judging(found, endpoint, judge, ledger=ledger).requests == 0


def test_progress_ends_with_all_pairs(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    ask(server, "plain-6", tmp_path / "l.jsonl", pairs(4), progress=lambda d, t: told.append((d, t)))
    assert told[-1] == (4, 4)
    assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_the_judge_is_asked_where_the_cheap_raters_are_split() -> None:
    p = np.array([0.0, 0.5, 1 / 3, np.nan, 2 / 3, 0.5, 1.0])
    ids = list("abcdefg")
    chosen = choose_active(p, ids, 4, seed=1).tolist()
    assert set(chosen[:2]) == {1, 5}
    assert set(chosen[2:]) == {2, 4}
    assert sorted(choose_active(p, ids, 99, seed=1).tolist()) == [0, 1, 2, 4, 5, 6]
    assert choose_active(p, ids, 0, seed=1).tolist() == []


def test_ties_are_broken_by_the_names_of_the_pairs() -> None:
    ids = [f"pair-{i}" for i in range(200)]
    p = np.where(np.arange(200) % 2, 1 / 3, 2 / 3)
    chosen = {ids[i] for i in choose_active(p, ids, 50, seed=1)}
    turned = {ids[::-1][i] for i in choose_active(p[::-1], ids[::-1], 50, seed=1)}
    assert chosen == turned
    assert chosen != {ids[i] for i in choose_active(p, ids, 50, seed=2)}
    assert 10 < sum(int(i.split("-")[1]) % 2 for i in chosen) < 40  # no side of 1/2 goes first
