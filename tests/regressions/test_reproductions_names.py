"""R11 and R12 of thirteen failures that were reproduced in other tools; here each must not happen.

Every test runs the real pipeline on files; its docstring says what the other tool did with the same input.
"""

import html.parser
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from regression_world import (
    QUADMIX,
    dataset_rows,
    files_of,
    fill,
    home,
    make_source,
    pages,
    put,
    quiet,
    recipe,
    settings,
)

from quadmix.cli.main import main
from quadmix.errors import (
    RecipeError,
)
from quadmix.recipe import check_recipe

NASTY = (
    "../../x", "/etc/passwd", "con", "a\0b", "line\nbreak", "<script>alert(1)</script>", "\x1b[31mred\x1b[0m",
    "|pipe", "=cmd()", "\u202egpj.exe", "..", "a/b\\c", "%2e%2e%2f", "~root", "$(id)", "`id`",
)  # fmt: skip


@pytest.fixture(scope="session")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with report whose domains, ids and texts are attacks; the run folder's parent."""
    folder = tmp_path_factory.mktemp("nasty")
    home_of_theta = make_source(folder / "theta", NASTY)
    rows = pages(16 * 20, domains=NASTY)
    for i, row in enumerate(rows):
        attack = NASTY[i * 7 % len(NASTY)]
        row |= {"id": f"{attack}{i}", "language": attack, "text": f"{attack} {row['text']}"}
    put(folder / "work", "a.jsonl", rows)
    quiet(recipe(folder / "work", home_of_theta, budget__share=0.9))
    return folder / "work"


def test_r11_names_from_the_data_never_become_paths(nasty: Path, source: Path, tmp_path: Path) -> None:
    """datatrove: a template with ${lang} and the language ../../x writes outside of the output folder."""
    plain = [p | {"language": ("en", "de", "fr", "it")[i % 4]} for i, p in enumerate(pages(16 * 20))]
    put(tmp_path, "a.jsonl", plain)
    quiet(recipe(tmp_path, source, budget__share=0.9))

    def names(folder: Path) -> set[str]:
        return {n for n in files_of(folder) if "/part-" not in n}

    assert names(nasty) - {"target/in/t.jsonl"} == names(tmp_path) - {"target/in/t.jsonl"}
    parts = {Path(n).name for n in files_of(nasty / "runs") if "/part-" in n}
    assert all(n.removeprefix("part-").split(".")[0].isdecimal() for n in parts)
    domains = {r["quadmix"]["domain"] for r in dataset_rows(home(nasty))}
    assert domains == {n.strip() for n in NASTY}


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text inside of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def hidden(text: str) -> set[str]:
    """Control, bidirectional and other marks that a terminal or a page would obey."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"}


def test_r11_names_and_texts_are_inert_in_card_and_report(nasty: Path) -> None:
    """Data-Juicer's pages show text as HTML; here markup and control characters of the data stay text."""
    page = (home(nasty) / "report.html").read_text()
    parsed = Page(page)
    assert len(parsed.scripts) == 3  # the blocks of texts and of numbers, and the one script of the page
    assert not any("alert(1)" in s and "<" in s for s in parsed.scripts[:2])
    assert parsed.handlers == []
    assert "script-src 'sha256-" in page
    card = (home(nasty) / "dataset" / "README.md").read_text()
    assert "<script" not in card
    table = [line for line in card.split("## Domains before and after")[1].split("##")[0].split("\n") if line]
    assert len(table) == 2 + len(NASTY)
    assert {len(line.replace("\\|", "").split("|")) for line in table} == {10}
    for name in ("report.html", "report.json", "dataset/README.md"):
        assert hidden((home(nasty) / name).read_text()) == set(), name
    for figure in (home(nasty) / "figures").glob("*.csv"):
        content = figure.read_text()
        assert hidden(content) == set()
        assert not any(line.startswith(("=", "+", "@", '"=')) for line in content.splitlines())


def on_terminal(*arguments: str) -> str:
    """Run the command line with a terminal as stdout and stderr; return what it wrote."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*QUADMIX, *arguments], stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    process.wait()
    return out.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_r11_names_are_inert_on_the_terminal(nasty: Path, json: list[str]) -> None:
    """Escape sequences in an id or a domain must not reach the terminal that prints them."""
    ids = [r["id"] for r in dataset_rows(home(nasty)) if "\x1b" in r["id"]]
    shown = on_terminal("explain", str(home(nasty)), ids[0], *json)
    assert "red" in shown
    assert hidden(shown) == set()
    assert hidden(on_terminal("diff", str(home(nasty)), str(home(nasty)), *json)) == set()


def test_r11_names_are_inert_in_error_messages(nasty: Path) -> None:
    """As above, for messages on stderr that quote the data."""
    shown = on_terminal("explain", str(home(nasty)), "\x1b[31mred\x1b[0m no such id")
    assert "is not in this run" in shown
    assert hidden(shown) == set()


def test_r12_a_recipe_with_a_key_in_an_address_is_refused_without_showing_it(tmp_path: Path) -> None:
    """datatrove: executor.pik holds the S3 key and secret of the storage options."""
    for url in (
        "s3://AKIAEXAMPLE:CANARY-key@bucket/pool",
        "https://store/pool.jsonl?X-Amz-Signature=CANARY-key",
        "az://container/pool?sig=CANARY-key&se=2030",
        "hf://user:CANARY-key@datasets/x/y",
    ):
        given = settings(tmp_path)
        given["corpus"]["paths"] = [url]
        with pytest.raises(RecipeError, match="holds a user name, key or token") as raised:
            check_recipe(given)
        assert "CANARY" not in str(raised.value)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
    done = subprocess.run(
        [*QUADMIX, "annotate", str(tmp_path / "recipe.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "CANARY" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_r12_secrets_of_the_environment_are_in_no_file_and_no_message(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """datatrove: as above; here no file of the run, no log and no error holds a key of the environment."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GOOGLE_API_KEY", "SERVICE_PASSWORD")
    for name in names:
        monkeypatch.setenv(name, f"CANARY-{name[::-1]}")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings(fill(tmp_path).parent, source)))

    def call(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["quadmix", "run", str(tmp_path / "recipe.yaml"), *options])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    assert call() == 0
    put(tmp_path, "b.jsonl.zst", pages(20, first=300))
    assert call() == 1  # refused: another input
    assert call("--set", f"corpus.paths=[/nowhere/{os.environ['HF_TOKEN']}]") == 1
    there = files_of(tmp_path / "runs")
    assert not any(n.endswith((".pik", ".pkl", ".pickle")) for n in there)
    said = capfd.readouterr()
    assert "belongs to another run" in said.err
    assert "matches no file" in said.err
    assert not any(b"CANARY" in t for t in (*there.values(), said.out.encode(), said.err.encode()))
