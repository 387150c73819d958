"""A real S3-compatible server on loopback (moto), with a place to break its answers, for tests."""

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

CANARY = "canary/SECRET+of+40+characters/0123456789"
Answer = tuple[str, bytes]


class Store:
    """The server. requests: (method, path, range) of each since `clear`. fault: gives an answer instead."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._handle, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.clear()

    def clear(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self.fault: Callable[[str, str, int], Answer | None] = lambda _method, _path, _number: None

    def _handle(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path, environ.get("HTTP_RANGE", "")))
        answer = self.fault(method, path, len(self.requests))
        if answer is None:
            return self._app(environ, start)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
        return [] if method == "HEAD" else [answer[1]]  # a body there would be read as the next answer

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def refuse(status: str, code: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return status, body.encode()


SLOW = refuse("503 Slow Down", "SlowDown")
DENIED = refuse("403 Forbidden", "AccessDenied")


@contextmanager
def running_store(buckets: Iterable[str]) -> Generator[Store]:
    """Start the server, point this process and its children at it, and make the buckets."""
    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "QUADMIX_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", store.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # our own retries are under test, not botocore's
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.setattr("quadmix.io.store._WAIT", 0.01)
        s3fs.S3FileSystem.clear_instance_cache()
        client = files()
        for bucket in buckets:
            client.mkdir(bucket)
        yield store
        s3fs.S3FileSystem.clear_instance_cache()
    store.stop()


def files() -> Any:
    """Return the test's own view of the store, never a cached one."""
    fs = s3fs.S3FileSystem()
    fs.invalidate_cache()
    return fs
