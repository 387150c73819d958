"""What a judge has answered and what it has cost: a file that survives a kill, and a budget that holds.

In: the file (JSON lines, written by `Ledger`). Out: the answers by key, requests and tokens spent. Each
request is named before it leaves and again when it ends; one without an end (the process was killed) counts
as spent in full. So a budget holds for all calls that share the file. One process at a time may use it.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from quadmix.errors import InputError
from quadmix.io.atomic import append_event, naming


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that all calls that share a ledger may spend; None = no limit.

    requests: sent, failed ones included. tokens: in and out, as the server counts them; a request whose count
    is not known (no `usage`, a timeout) counts as much as it could have taken at most.
    """

    requests: int | None = None
    tokens: int | None = None


class Ledger:
    """answers: key -> answers so far. requests, tokens: spent. bytes_in, tokens_in: of the prompts that the
    server counted. torn: lines that a kill had cut. Its methods may be called from any thread."""

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path, self.budget, self._lock = path, budget, threading.Lock()
        self.answers: dict[str, list[str]] = {}
        self.requests = self.tokens = self._held_requests = self._held_tokens = 0
        self.torn = self._tail = self.bytes_in = self.tokens_in = 0
        under_way: dict[str, int] = {}
        if path.exists():
            with naming(path), path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    self._read(line, number, under_way)
        self.tokens += sum(under_way.values())

    def _read(self, line: bytes, number: int, under_way: dict[str, int]) -> None:
        try:
            row = orjson.loads(line if line.endswith(b"\n") else b"")
        except orjson.JSONDecodeError:
            self.torn, self._tail = self.torn + 1, 0 if line.endswith(b"\n") else len(line)
            return
        try:
            if row["event"] == "sent":
                self.requests += 1
                under_way[row["id"]] = row["most"]
            else:
                under_way.pop(row["id"])
                self._end(row)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{self.path}, line {number}: expected a request that was sent or ended, found {line[:80]!r}"
                "; this is no ledger of a judge, name another file"
            ) from error

    def _end(self, row: dict[str, Any]) -> None:
        self.tokens += row["tokens"]
        if row["event"] == "answer":
            self.answers.setdefault(row["key"], []).extend(row["answers"])
            if row["tokens_in"]:
                self.bytes_in, self.tokens_in = (
                    self.bytes_in + row["bytes"],
                    self.tokens_in + row["tokens_in"],
                )

    def repair(self) -> None:
        """Cut a torn line off the end, so that what is written next begins a line."""
        if self._tail:
            os.truncate(self.path, self.path.stat().st_size - self._tail)
            self._tail = 0

    def hold(self, requests: int, tokens: int) -> bool:
        """Set aside what may be spent; False if that does not fit beside what is spent and held."""
        with self._lock:
            limits = (
                (self.requests + self._held_requests + requests, self.budget.requests),
                (self.tokens + self._held_tokens + tokens, self.budget.tokens),
            )
            fits = all(limit is None or wanted <= limit for wanted, limit in limits)
            if fits:
                self._held_requests, self._held_tokens = (
                    self._held_requests + requests,
                    self._held_tokens + tokens,
                )
            return fits

    def release(self, requests: int, tokens: int) -> None:
        """Give back what was held and is not needed."""
        with self._lock:
            self._held_requests, self._held_tokens = (
                self._held_requests - requests,
                self._held_tokens - tokens,
            )

    def sent(self, most: int) -> str:
        """Note that a request leaves, of those held, that may take `most` tokens; return its id."""
        with self._lock:
            id_ = f"{os.getpid()}-{self.requests}"
            append_event(self.path, {"event": "sent", "id": id_, "most": most})
            self.requests, self._held_requests = self.requests + 1, self._held_requests - 1
            return id_

    def ended(self, row: dict[str, Any], released: int) -> None:
        """Note what came of a request, and give back `released` tokens that were held for it."""
        with self._lock:
            append_event(self.path, row)
            self._held_tokens -= released
            self._end(row)
