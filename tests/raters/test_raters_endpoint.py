"""The client of chat completions against a real server on loopback."""

import socket
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest
from judge_server import KEY
from judge_world import Server, running

from quadmix.errors import InputError, StoreError
from quadmix.io.door import network
from quadmix.raters.endpoint import Attempts, Completion, Endpoint, RefusedError, complete, list_models


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with running() as found:
        yield found


def body(**more: Any) -> dict[str, Any]:
    text = "quality 1 or quality 2?"
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "n": 2, **more}


class Log:
    """Counts what the client says of its attempts."""

    def __init__(self) -> None:
        self.sent = 0
        self.failures: list[tuple[str, bool]] = []
        self.stop = threading.Event()

    def __call__(self) -> Attempts:
        return Attempts(before=self._before, failed=lambda r, b: self.failures.append((r, b)), stop=self.stop)

    def _before(self) -> None:
        self.sent += 1


def test_an_answer_with_its_tokens(server: Server) -> None:
    assert complete(server.endpoint("first"), body()) == Completion(
        texts=("**A**.", "**A**."), tokens_in=len("quality 1 or quality 2?") // 2, tokens_out=4
    )


def test_a_server_without_usage(server: Server) -> None:
    found = complete(server.endpoint("uncounted"), body())
    assert (found.tokens_in, found.tokens_out, len(found.texts)) == (None, None, 2)


def test_the_models_of_a_server(server: Server) -> None:
    assert list_models(server.endpoint("first")) == ("tiny", "other")


def test_too_many_requests_waits_as_asked_and_goes_on(server: Server) -> None:
    log, start = Log(), time.monotonic()
    assert complete(server.endpoint("busy"), body(), log()).texts
    assert time.monotonic() - start >= 1.0  # Retry-After: 1, where the backoff is 0.01 s
    assert (log.sent, log.failures) == (2, [("status 429", False)])


def test_a_wait_that_is_too_long_ends_the_attempts(server: Server) -> None:
    with pytest.raises(StoreError, match=r"status 429 and asks to wait 3600 s .*the same command goes on"):
        complete(server.endpoint("later"), body())
    assert server.count("later") == 1


def test_a_quota_that_is_used_up_is_not_asked_again(server: Server) -> None:
    with pytest.raises(RefusedError, match="quota is used up; raise it"):
        complete(server.endpoint("quota"), body())
    assert server.count("quota") == 1


def test_a_broken_server_is_asked_as_often_as_said(server: Server) -> None:
    log = Log()
    with pytest.raises(StoreError, match=r"gave no answer, last: status 500 \(attempts 3"):
        complete(server.endpoint("broken", attempts=3), body(), log())
    assert server.count("broken") == log.sent == 3
    assert log.failures == [("status 500", False)] * 3


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_server_that_hangs_or_drips_is_left_in_time(server: Server, mode: str) -> None:
    log, start = Log(), time.monotonic()
    with pytest.raises(StoreError, match="last: timeout"):
        complete(server.endpoint(mode, timeout=0.4, attempts=2), body(), log())
    assert time.monotonic() - start < 2.5
    assert log.failures == [("timeout", True)] * 2


def test_an_answer_that_is_cut_may_have_been_billed(server: Server) -> None:
    log = Log()
    with pytest.raises(StoreError, match="last: ConnectionError"):
        complete(server.endpoint("cut", attempts=1), body(), log())
    assert [billed for _, billed in log.failures] == [True]


def test_nobody_listens() -> None:
    log = Log()
    settings = {"address": "http://127.0.0.1:9/v1", "model": "m", "attempts": 2, "backoff": 0.01}
    with network(allow_http="private"), pytest.raises(StoreError, match="last: ConnectionRefusedError"):
        complete(Endpoint(**settings), body(), log())  # pyright: ignore[reportArgumentType]
    assert log.failures == [("ConnectionRefusedError", False)] * 2


def test_once_stopped_nothing_is_sent(server: Server) -> None:
    log = Log()
    log.stop.set()
    with pytest.raises(StoreError, match="stopped"):
        complete(server.endpoint("broken-2"), body(), log())
    assert server.count("broken-2") == log.sent == 0


def test_a_redirect_is_not_followed(server: Server) -> None:
    before = server.count("first")
    with pytest.raises(RefusedError, match="status 307") as caught:
        complete(server.endpoint("moved"), body())
    assert (caught.value.status, server.count("first")) == (307, before)


def test_another_model_is_refused_with_both_names(server: Server) -> None:
    with pytest.raises(InputError, match=r"model 'tiny' and 'another-model' answered; .*aliases"):
        complete(server.endpoint("other"), body())
    assert complete(server.endpoint("other", aliases=("another-model",)), body()).texts


def test_answers_that_are_none_are_named(server: Server) -> None:
    found = [complete(server.endpoint("garbage"), body()) for _ in range(3)]
    assert {f.reason for f in found} == {"no_choices", "not_json", ""}
    assert complete(server.endpoint("empty"), body()).texts == (None, "**B**.")


def test_the_key_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of these modes repeat the header that they were sent."""
    monkeypatch.setenv("JUDGE_ENTRY", f" {KEY}\n")
    endpoint = server.endpoint("auth", key_variable="JUDGE_ENTRY")
    assert complete(endpoint, body()).texts
    assert KEY not in repr(endpoint)
    with pytest.raises(RefusedError, match=r"Bearer \*\*\*") as caught:
        complete(server.endpoint("invalid", key_variable="JUDGE_ENTRY"), body())
    assert KEY not in "".join(map(str, (caught.value, caught.value.__context__, caught.value.__cause__)))
    monkeypatch.setenv("JUDGE_ENTRY", "wrong-" + KEY)
    with pytest.raises(
        RefusedError, match=r"status 401; check the key in the .* variable JUDGE_ENTRY"
    ) as caught:
        complete(endpoint, body())
    assert KEY not in str(caught.value)
    assert server.count("auth") == 2


@pytest.mark.parametrize("value", ["", "  ", "sk-ü", "sk-a\nX-Other: b"])
def test_a_key_that_cannot_be_one_is_refused_unseen(
    server: Server, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("JUDGE_ENTRY", value)
    with pytest.raises(InputError, match="JUDGE_ENTRY holds no API key") as caught:
        complete(server.endpoint("first", key_variable="JUDGE_ENTRY"), body())
    assert "sk-" not in str(caught.value)


def test_a_key_does_not_travel_in_the_clear_to_a_public_host(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quadmix.raters import endpoint as module

    monkeypatch.setenv("JUDGE_ENTRY", KEY)
    monkeypatch.setattr(module, "forbidden_host", lambda _address, *, allow_private: None)  # as if public
    before = server.count("first")
    with pytest.raises(StoreError, match="a key is not sent over http://"):
        complete(server.endpoint("first", key_variable="JUDGE_ENTRY"), body())
    assert complete(server.endpoint("first"), body()).texts
    assert server.count("first") == before + 1


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        ({"allow_http": True}, "private or local address"),
        ({}, "set run.allow_http to true"),
        ({"allow_http": "private", "offline": True}, "would use the network, which is switched off"),
    ],
)
def test_the_door_of_the_project_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, allowed: dict[str, Any], reason: str
) -> None:
    monkeypatch.delenv("QUADMIX_ALLOW_HTTP")
    before = server.count("first")
    with network(**allowed), pytest.raises(StoreError, match=reason):
        complete(server.endpoint("first"), body())
    assert server.count("first") == before


@pytest.mark.parametrize(
    "bad", [{"address": "ftp://h/v1"}, {"address": "h/v1"}, {"model": ""}, {"timeout": 0.0}, {"attempts": 0}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        Endpoint(**{"address": "https://h/v1", "model": "m", **bad})


def test_a_private_host_is_refused_before_it_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUADMIX_ALLOW_HTTP", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(
            address=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", model="m", timeout=2.0
        )
        with network(allow_http=True), pytest.raises(StoreError, match="private or local address"):
            complete(endpoint, body())
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name service may answer with a public address first, and then with a private one."""
    from quadmix.raters import endpoint as module

    honest = module.check_host
    looked = iter([lambda _url: None])  # the first look is passed
    monkeypatch.setattr(module, "check_host", lambda url: next(looked, honest)(url))
    monkeypatch.setenv("QUADMIX_ALLOW_HTTP", "1")
    before = server.count("first")
    with pytest.raises(StoreError, match="private or local address"):
        complete(server.endpoint("first"), body())
    assert server.count("first") == before
