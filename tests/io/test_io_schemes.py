"""Which addresses are opened at all: schemes, keys, private hosts, offline; and that no key is shown."""

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quadmix.errors import InputError, MissingExtraError, RecipeError, StoreError
from quadmix.io.door import ALLOW_HTTP, OFFLINE, network, network_environment, open_door
from quadmix.io.fs import expand, file_info, file_size, open_input
from quadmix.recipe import Recipe, check_recipe, remote_paths
from quadmix.urls import forbidden_host, redact, refusal

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (OFFLINE, ALLOW_HTTP):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect or to resolve a name fails the test."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a.jsonl", "github://o/r/a.jsonl", "ssh://h/a", "sftp://h/a", "smb://h/a", "dask://x", "S3://b/a",
        "s3a://b/a", "data://x", "reference://x", "nosuch://x", "http://h/a.jsonl", "https://h/a.jsonl",
        "simplecache::s3://b/a", "filecache::file:///a", "zip://a::s3://b/z", "simplecache::/etc/passwd",
    ],
)  # fmt: skip
def test_other_schemes_and_chains_are_refused_with_the_allowed_ones(url: str, no_connection: None) -> None:
    for call in (lambda: expand([url]), lambda: open_input(url), lambda: file_size(url)):
        with pytest.raises(InputError, match=r"expected one of s3://, gs://, gcs://, az://, abfs://"):
            call()
    with pytest.raises(RecipeError, match=r"corpus\.paths\.0: address .*expected one of s3://"):
        recipe(paths=[url])


@pytest.mark.parametrize(
    "url", ["s3://b/part-?.jsonl", "s3://b/k?versionId=1", "s3://b/key=1/token=2/a.jsonl", "abfs://c@acc/a",
            "hf://datasets/o/n@main/a.parquet", "file:///a", "/a/b::c.jsonl", "memory://a", "rel/a.jsonl"]
)  # fmt: skip
def test_plain_addresses_are_not_refused(url: str) -> None:
    assert refusal(url) is None


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA123:{KEY}@bucket/a.jsonl", f"s3://{KEY.replace('/', '')}@bucket/a.jsonl",
        f"s3://bucket/a.jsonl?aws_secret_access_key={KEY}", f"s3://bucket/a.jsonl?X-Amz-Signature={KEY}",
        f"az://c/a.jsonl?sv=1&sig={KEY}", f"abfs://c:{KEY}@acc/a.jsonl", f"gs://b/a.jsonl?access_token={KEY}",
        f"hf://datasets/o/n/a.jsonl?token={KEY}", f"https://user:{KEY}@h/a.jsonl", f"https://h/a?password={KEY}",
    ],
)  # fmt: skip
def test_keys_in_addresses_are_refused_and_never_shown(url: str, no_connection: None) -> None:
    for call in (lambda: expand([url]), lambda: recipe(paths=[url]), lambda: recipe(out=url)):
        with pytest.raises((StoreError, RecipeError), match="holds a user name, key or token") as caught:
            call()
        shown = "".join(map(str, (caught.value, caught.value.__cause__, caught.value.__context__)))
        assert "***" in shown
        for piece in (KEY, *KEY.split("/")):
            assert piece not in shown


def test_a_key_in_the_wrong_place_of_a_recipe_is_not_shown_either() -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe({"name": "x", "budgets": f"s3://A:{KEY}@b", "corpus": 1})
    assert KEY not in str(caught.value)


def test_secrets_of_the_environment_are_cut_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("MY_TOKEN", "1")  # too short to be one: messages with a 1 stay readable
    assert redact(f"signed with {KEY}: 1 error") == "signed with ***: 1 error"


def recipe(**changes: Any) -> Recipe:
    """A checked recipe; paths, out, offline, allow_http set those keys."""
    materialise = {"out": changes["out"]} if "out" in changes else {}
    run = {k: changes[k] for k in ("offline", "allow_http", "folder") if k in changes}
    return check_recipe({
        "name": "r", "corpus": {"paths": changes.get("paths", ["a.jsonl"])}, "budget": {"share": 0.5},
        "targets": [{"name": "t", "path": "t.jsonl", "text": "text"}], "materialise": materialise, "run": run,
    })  # fmt: skip


def test_a_recipe_says_what_uses_the_network_and_offline_refuses_it(no_connection: None) -> None:
    assert remote_paths(recipe(paths=["a", "s3://b/p"], out="gs://b/out")) == (
        "corpus.paths.1: s3://b/p", "materialise.out: gs://b/out",
    )  # fmt: skip
    assert remote_paths(recipe(paths=["memory://a", "file:///x"])) == ()
    for changes in ({"paths": ["s3://b/p"]}, {"out": "gs://b/out"}):
        with pytest.raises(RecipeError, match="would use the network, but the run is offline"):
            recipe(offline=True, **changes)
    assert recipe(offline=True).run.offline
    with pytest.raises(RecipeError, match=r"run\.folder is 's3://b/runs'; expected a folder on this machine"):
        recipe(folder="s3://b/runs")
    with pytest.raises(RecipeError, match=r"no materialise\.out to publish to"):
        check_recipe({**recipe().model_dump(), "materialise": {"keep_local": False}})


@pytest.mark.parametrize(
    "url", ["s3://b/a.jsonl", "gs://b/a.jsonl", "hf://datasets/o/n/a.jsonl", "https://h/a"]
)
def test_offline_refuses_before_any_connection(url: str, no_connection: None) -> None:
    with network(offline=True, allow_http=True):
        for call in (lambda: expand([url]), lambda: open_input(url), lambda: file_info(url)):
            with pytest.raises(StoreError, match="would use the network, which is switched off"):
                call()


def test_the_environment_carries_offline_and_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    with network(offline=True, allow_http="private"):
        assert network_environment()[OFFLINE] == os.environ["HF_HUB_OFFLINE"] == "1"
        assert network_environment()[ALLOW_HTTP] == "private"
        assert expand([str(tmp_path)]) == [str(tmp_path / "a.jsonl")]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert network_environment() == {}
    monkeypatch.setenv(OFFLINE, "1")
    with network(), pytest.raises(StoreError, match="switched off"):
        expand(["s3://b/a"])


def test_a_store_without_its_library_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'quadmix\[gcs\]'"):
        open_door("gs://b/a")


@pytest.mark.parametrize(
    ("address", "without", "private"),
    [
        ("93.184.216.34", True, True), ("2606:2800:220:1::1", True, True), ("127.0.0.1", False, True),
        ("::1", False, True), ("10.1.2.3", False, True), ("192.168.0.1", False, True),
        ("0.0.0.0", False, True),
        ("169.254.169.254", False, False), ("fe80::1", False, False), ("fd00:ec2::254", False, False),
        ("::ffff:169.254.169.254", False, False), ("64:ff9b::a9fe:a9fe", False, False),
    ],
)  # fmt: skip
def test_numeric_hosts(address: str, without: bool, private: bool) -> None:
    assert (forbidden_host(address, allow_private=False) is None) is without
    assert (forbidden_host(address, allow_private=True) is None) is private


TARGETS = {"/v4": "http://169.254.169.254/latest/meta-data", "/v6": "http://[fe80::1]/x"}


class Web(http.server.BaseHTTPRequestHandler):
    """Serves /a.jsonl; the paths of TARGETS are redirects."""

    def do_GET(self) -> None:
        body = b'{"text": "x"}\n'
        if self.path in TARGETS:
            self.send_response(302)
            self.send_header("Location", TARGETS[self.path])
            body = b""
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_http_of_this_machine_only_where_private_hosts_are_allowed(web: str) -> None:
    with network(allow_http="private"):
        assert file_info(f"{web}/a.jsonl").bytes == 14
    local = web.replace("127.0.0.1", "localhost")
    for url in (f"{web}/a.jsonl", f"{local}/a.jsonl"):
        with network(allow_http=True), pytest.raises(StoreError, match="is a private or local address"):
            file_info(url)


@pytest.mark.parametrize("path", TARGETS)
def test_a_redirect_to_a_metadata_service_is_not_followed(web: str, path: str) -> None:
    with network(allow_http="private"), pytest.raises(StoreError, match="link-local or metadata address"):
        file_info(web + path)
