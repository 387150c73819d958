"""The server of judge_server.py in a process of its own, for the tests of the judge."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadmix.io.door import network
from quadmix.raters.endpoint import Endpoint


@dataclass(frozen=True)
class Server:
    port: int

    def endpoint(self, mode: str, **settings: Any) -> Endpoint:
        return Endpoint(
            **{"address": self.address(mode), "model": "tiny", "timeout": 30.0, "backoff": 0.01, **settings}
        )

    def address(self, mode: str) -> str:
        return f"http://127.0.0.1:{self.port}/{mode}/v1"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.load(answer)

    def count(self, mode: str, what: str = "requests") -> int:
        """What the server itself has counted: requests, answers, or tokens of its answers."""
        return self.get("/counts").get(mode, {}).get(what, 0)


@contextmanager
def running() -> Generator[Server]:
    """Run a server, with private addresses allowed; it ends with its standard input."""
    program = str(Path(__file__).with_name("judge_server.py"))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, program], stdin=pipe, stdout=pipe) as process:
        assert process.stdin
        assert process.stdout
        try:
            with network(allow_http="private"):
                yield Server(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
