"""What stands on the screen: a live table under pseudo-terminals of several widths, plain lines elsewhere."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from quadmix.pipeline.snapshot import Snapshot, StageState, TrialCounts
from quadmix.pipeline.terminal import line, table

EVIL = "\x1b]0;owned\x07\x1b[2J\u202ename\r\n\x9b31m"
RUN = f"""
import contextlib, sys, time
from pathlib import Path
from quadmix.pipeline.progress import Progress
progress, stack = Progress(), contextlib.ExitStack()
stack.enter_context(progress.recording(Path(sys.argv[1])))
progress.expect(["corpus", "swarm", "evaluate"])
progress.plan({{"corpus": 1.0, "swarm": 6.0, "evaluate": 60.0}})
with progress.row("corpus"), progress.stage("corpus", 5, "pieces") as step:
    for _ in range(5):
        time.sleep(0.05)
        step.advance(documents=1000)
with progress.row("swarm"), progress.stage("swarm", 12, "models", trains=20000) as step:
    step.advance(4)
    step.advance(failed=True)
    step.retry(2)
    progress.note("a note: [bold]{{{EVIL!r}}}")
    time.sleep(WAIT)
    step.advance(3)
    time.sleep(1.5)
    progress.note("a later note")
with progress.row({EVIL!r}), progress.stage({EVIL!r}, 2, "pieces") as step:
    time.sleep(1.5)
    step.advance(2)
stack.close()
"""
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A terminal that knows what the display uses; anything else fails. lines: what stands on it."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.at, self.column = width, [""], 0, 0

    def feed(self, data: bytes) -> None:
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", data.decode()):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            elif token[0] == "\x1b":
                self._control(token[2:-1], token[-1])
            else:
                self._write(token)

    def _control(self, number: str, kind: str) -> None:
        if kind == "A":
            self.at = max(0, self.at - int(number or 1))
        elif kind == "K":
            assert number == "2"
            self.lines[self.at] = ""
        else:
            assert kind in "mhl", (number, kind)

    def _write(self, text: str) -> None:
        for character in text:
            if self.column == self.width:
                self.column = 0
                self._down()
            row = self.lines[self.at].ljust(self.column)
            self.lines[self.at] = row[: self.column] + character + row[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.at += 1
        if self.at == len(self.lines):
            self.lines.append("")


def seen(
    folder: Path,
    width: int,
    *,
    resized: int | None = None,
    wait: float = 1.5,
    environment: dict[str, str] | None = None,
) -> tuple[bytes, list[list[str]]]:
    """Run the made-up run under a pseudo-terminal; return its bytes and the screen after every reading."""
    ours, theirs = pty.openpty()
    _resize(ours, width)
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")}
    command = [sys.executable, "-c", RUN.replace("WAIT", str(wait)), str(folder)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**plain, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **(environment or {})},
    ) as process:  # fmt: skip
        os.close(theirs)
        screen, raw, screens = Screen(width), b"", list[list[str]]()
        for data in iter(lambda: _read(ours), b""):
            raw += data
            screen.feed(data)
            screens.append([text.rstrip() for text in screen.lines])
            if resized and any("swarm" in text and "5/12" in text for text in screen.lines):
                _resize(ours, resized)
                screen.width = resized
        os.close(ours)
    assert process.returncode == 0
    return raw, screens


def _read(file: int) -> bytes:
    """Return what was drawn in one go, nothing at the end."""
    deadline, data = time.monotonic() + 60, b""
    while time.monotonic() < deadline:
        if select.select([file], [], [], 0.1)[0]:
            try:
                data += os.read(file, 65536)
            except OSError:  # the other end is closed: how Linux says so
                return data
        elif data:
            return data
    pytest.fail("the run said nothing for a minute")


def _resize(file: int, width: int) -> None:
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))


def find(screens: list[list[str]], wanted: Callable[[str], object]) -> list[str]:
    """Return the first screen with a line as wanted."""
    found = next((s for s in screens if any(map(wanted, s))), None)
    assert found is not None, "\n\n".join("\n".join(s) for s in screens)
    return found


@pytest.mark.parametrize("width", [80, 200])
def test_a_live_table_on_a_terminal(tmp_path: Path, width: int) -> None:
    raw, screens = seen(tmp_path, width)
    early = find(screens, lambda text: "5/12 models" in text)
    swarm = next(text for text in early if "5/12 models" in text)
    assert swarm.startswith("▸ swarm")
    assert "4/1/2" in swarm
    assert any(re.match(r"✓ corpus .*\d:\d\d", text) for text in early)
    assert any(text.startswith("  evaluate") for text in early)
    if width == 200:
        assert "━━━━━───────" in swarm
        busy = find(screens, lambda text: "8/12 models" in text and "tokens/s" in text)
        assert any("k tokens/s" in text for text in busy)
    assert all(len(text) <= width for screen in screens for text in screen)
    last = screens[-1]
    head = next(i for i, text in enumerate(last) if text.lstrip().startswith("stage"))
    assert any("a note" in text for text in last[:head])  # notes stand above the table
    assert not any("note" in text for text in last[head:])
    assert sum("a later note" in text for text in last) == 1
    assert sum(text.startswith("✓ swarm") for text in last) == 1
    assert raw.endswith(b"\x1b[?25h") or raw.rindex(b"\x1b[?25h") > raw.rindex(
        b"\x1b[?25l"
    )  # the cursor is back


def test_names_and_notes_can_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    raw, screens = seen(tmp_path, 120)
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]", ESCAPES.sub(b"", raw))
    assert b"\x1b" not in ESCAPES.sub(b"", raw)
    assert b"\x1b[2J" not in raw
    text = raw.decode()
    assert not re.search("[\x80-\x9f\u202e]", text)
    assert any("⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2J⟨U+202E⟩name" in row for row in screens[-1])
    assert any("[bold]" in row for row in screens[-1])  # shown, not obeyed


def test_a_terminal_that_becomes_narrower_or_wider(tmp_path: Path) -> None:
    for width, resized in ((200, 60), (60, 200)):
        _, screens = seen(tmp_path, width, resized=resized, wait=2.5)
        last = screens[-1]
        final = last[max(i for i, text in enumerate(last) if text.lstrip().startswith("stage")) :]
        assert all(len(text) <= resized for text in final)
        assert sum(text.startswith("✓") for text in final) == 3


def test_without_colour(tmp_path: Path) -> None:
    raw, _ = seen(tmp_path, 100, environment={"NO_COLOR": "1"})
    assert b"\x1b[1A" in raw  # a live table all the same
    assert not re.search(rb"\x1b\[(\d+;)*(3[0-8]|9[0-7]|4[0-8])(;\d+)*m", raw)
    coloured, _ = seen(tmp_path, 100)
    assert re.search(rb"\x1b\[32m", coloured)


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    raw, _ = seen(tmp_path, 80, environment={"TERM": "dumb"})
    assert b"\x1b" not in raw
    assert "swarm: 12/12 models (100%)" in raw.decode()


def test_no_terminal_gets_plain_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN.replace("WAIT", "0.1"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b""
    assert b"\x1b" not in done.stderr
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("corpus: 0/5 pieces (0%), 0:00 elapsed")
    assert any(
        text.startswith("swarm: 12/12 models (100%), ") and "1 failed, 2 retried" in text for text in lines
    )


def shown(stages: int = 3) -> Snapshot:
    """A run in the middle of its second stage."""
    trials = TrialCounts(done=150, failed=2, retried=8, total=1024)
    states = ["done", "running"] + ["waiting"] * (stages - 2)
    return Snapshot(
        state="running", error="", pid=1, host="here", stage="evaluate large-model-with-a-long-name",
        done=152, total=1024, unit="models", fraction=0.16, trials=trials,
        rates={"models_per_s": 0.01, "tokens_per_s": 123_456.0},
        started="", updated="", elapsed_s=4000, eta_s=90_000, stage_eta_s=40_000,
        stages=tuple(
            StageState(
                name="evaluate" if s == "running" else f"stage-{i}", state=s,
                seconds=None if s == "waiting" else 3600.0,
                eta_s={"running": 40_000.0, "waiting": 700.0}.get(s),
                trials=trials if s == "running" else None,
            )
            for i, s in enumerate(states)
        ),
    )  # fmt: skip


def drawn(snapshot: Snapshot, width: int, height: int = 24, *, plain: bool = False) -> list[str]:
    console = Console(width=width, height=height, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table(snapshot, width, height, plain=plain))
    return [text.rstrip() for text in capture.get().splitlines()]


def test_the_table_in_full() -> None:
    lines = [re.sub(" +", " ", text) for text in drawn(shown(), 130)]
    assert lines == [
        " stage done rate ok/fail/retry time left",
        "✓ stage-0 1:00:00",
        "▸ evaluate large-model-... ━━────────── 152/1,024 models 123 k tokens/s 150/2/8 1:00:00 11:06:40",
        " stage-2 (11:40)",
        "1:06:40 elapsed, about 25:00:00 left in all",
    ]


def test_without_room_for_a_bar_the_share_stands_there() -> None:
    short = replace(shown(), stage="evaluate")
    assert any("▸ evaluate ━━────────── 152/1,024" in text for text in drawn(short, 100))
    assert any("▸ evaluate 16% 152/1,024 models 123 k tokens/s" in text for text in drawn(short, 84))


def test_both_rates_where_there_is_room_for_them() -> None:
    """Documents and tokens per second; a narrow table gives up the bar first, then the second rate."""
    rates = {"documents_per_s": 2340.0, "tokens_per_s": 123_456.0, "bytes_per_s": 5e6}
    both = replace(shown(), stage="evaluate", rates=rates)
    assert any("▸ evaluate ━━────────── 152/1,024 models 123 k tokens/s, 2.34 k documents/s" in text
               for text in drawn(both, 120))  # fmt: skip
    assert any("▸ evaluate 16% 152/1,024 models 123 k tokens/s, 2.34 k documents/s" in text
               for text in drawn(both, 105))  # fmt: skip
    narrow = next(text for text in drawn(both, 84) if "evaluate" in text)
    assert "123 k tokens/s" in narrow
    assert "documents/s" not in narrow


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_counts_are_whole(width: int) -> None:
    lines = drawn(shown(), width)
    assert len(lines) == 5
    assert all(len(text) <= width for text in lines)
    if width >= 60:
        assert any("152/1,024 models" in text and "11:06:40" in text for text in lines)
    if width >= 80:
        assert any("150/2/8" in text for text in lines)


def test_a_terminal_too_low_for_all_stages_shows_the_one_at_work() -> None:
    lines = drawn(shown(stages=30), 80, height=10)
    assert len(lines) <= 9
    assert any(text.startswith("▸ evaluate") for text in lines)
    assert lines[-1].startswith("1:06:40 elapsed")


def test_ascii_alone_where_the_terminal_has_nothing_else() -> None:
    assert "\n".join(drawn(shown(), 130, plain=True)).isascii()


def test_a_line_of_a_log_says_what_is_known_and_no_more() -> None:
    known = line(shown())
    assert known == (
        "evaluate large-model-with-a-long-name: 152/1,024 models (16%), 1:06:40 elapsed, 123 k tokens/s, "
        "2 failed, 8 retried, about 11:06:40 left of this, about 25:00:00 left in all"
    )
    assert "left" not in line(replace(shown(), eta_s=None, stage_eta_s=None))
