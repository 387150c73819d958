"""A watched run: the page follows its files, says what is at work, survives broken files, and ends."""

import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from report.report_fixture import make_run

from quadmix.errors import InputError, MissingExtraError
from quadmix.io.atomic import write_json
from quadmix.io.lease import lease
from quadmix.report import watch as watching
from quadmix.report.html import Html
from quadmix.report.watch import Watched, banner, dress, run_state, stamp, state_words, watch

PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; script-src 'sha256-abc='; style-src 'none'\">\n</head><body>\n"
    '<main id="main">\nbody {}\n</main>\n</body></html>\n'
)
WRITTEN = datetime(2026, 5, 17, 9, 3, 1, tzinfo=UTC)


def reloads(page: str) -> bool:
    """Does the page load itself again?"""
    assert 'http-equiv="refresh"' not in page  # it would close folds and move the place
    return "location.reload()" in page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder at work: a lease that lives, one trial, progress."""
    write_json(tmp_path / "trials/prior-0000.json", {"n": 1})
    alive(tmp_path)
    write_json(
        tmp_path / "progress.json",
        {"stage": "swarm", "done": 12, "total": 40, "unit": "models", "eta_s": 200.4},
    )
    return tmp_path


def alive(folder: Path, age: float = 0.0) -> None:
    write_json(folder / "lease.json", {"heartbeat": time.time() - age, "pid": 1})


def finish(folder: Path) -> None:
    write_json(folder / "stages/report.json", {"stage": "report"})
    (folder / "lease.json").unlink()


@pytest.fixture
def renders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """Write a page that counts how often it was written; return what redact was each time."""
    calls: list[bool | None] = []

    def write(run_folder: Path, *, redact: bool | None, dress: Callable[[str], str]) -> Path:
        calls.append(redact)
        page = Path(run_folder) / "report.html"
        page.write_text(dress(PAGE.format(len(calls))))
        return page

    monkeypatch.setattr(watching, "write_report", write)
    monkeypatch.setattr(watching, "SHARE", 1.0)  # render at every change, however long the last one took
    return calls


def following(folder: Path, acts: list[Callable[[], object]]) -> tuple[Watched, list[str]]:
    """Return how to watch a folder in which one thing happens at each pause; then the run finishes."""
    said: list[str] = []
    todo: Iterator[Callable[[], object]] = iter([*acts, lambda: finish(folder)])
    return Watched(every=5.0, say=said.append, pause=lambda _: next(todo)()), said


def test_it_writes_again_only_when_a_file_of_the_page_changed(folder: Path, renders: list[bool | None]):
    seen: list[int] = []
    how, said = following(
        folder,
        [
            lambda: seen.append(len(renders)),
            lambda: seen.append(len(renders)) or write_json(folder / "trials/prior-0001.json", {"n": 2}),
            lambda: seen.append(len(renders)),
        ],
    )
    assert watch(folder, how) == folder / "report.html"
    assert seen == [1, 1, 2]
    assert len(renders) == 3  # once more at the end
    assert len(said) == 3
    assert said[0].endswith("at work: swarm, 12 of 40 models, about 3:20 left in all")
    assert said[-1].endswith("the run is finished")


def test_the_page_asks_to_be_loaded_again_until_the_run_is_finished(folder: Path, renders: list[bool | None]):
    pages: list[str] = []

    def look() -> None:
        pages.append((folder / "report.html").read_text(encoding="utf-8"))

    def progress() -> None:
        write_json(folder / "progress.json", {"stage": "swarm", "done": 13, "total": 40, "unit": "models"})

    how, _ = following(folder, [look, progress, look])
    watch(folder, how)
    assert all(map(reloads, pages))
    assert "At work: swarm, 12 of 40 models, about 3:20 left in all." in pages[0]
    assert "At work: swarm, 13 of 40 models, time left not known." in pages[1]
    assert "body 1" in pages[1]  # the same rendering: progress alone draws no figures
    assert (folder / "report.html").read_text(encoding="utf-8") == PAGE.format(2)


def test_ctrl_c_leaves_a_page_that_does_not_ask_again(folder: Path, renders: list[bool | None]):
    def stop() -> None:
        assert reloads((folder / "report.html").read_text(encoding="utf-8"))
        raise KeyboardInterrupt

    how, _ = following(folder, [stop])
    with pytest.raises(KeyboardInterrupt):
        watch(folder, how)
    assert (folder / "report.html").read_text(encoding="utf-8") == PAGE.format(1)


def test_a_termination_leaves_the_page_as_ctrl_c_does(tmp_path: Path):
    """A real process, a real SIGTERM while the run goes on."""
    run = make_run(tmp_path / "run", documents=200)
    alive(run, age=-600)
    page = run / "report.html"
    command = [sys.executable, "-m", "quadmix", "report", str(run), "--watch", "--every", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"written; the run has begun" in process.stderr.readline()
            assert reloads(page.read_text(encoding="utf-8"))
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"stopped watching" in said
    text = page.read_text(encoding="utf-8")
    assert not reloads(text)
    assert "The run has begun" not in text
    assert text.endswith("</html>\n")


def test_the_handler_of_the_program_around_is_put_back(folder: Path, renders: list[bool | None]):
    before = signal.getsignal(signal.SIGTERM)
    how, _ = following(folder, [lambda: os.kill(os.getpid(), signal.SIGTERM)])
    with pytest.raises(KeyboardInterrupt):
        watch(folder, how)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_page_is_loaded_again_when_the_next_can_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Rendering takes 3 s and may take a tenth of the time: not before 30 s after its begin, and 3 s more."""
    now = [1000.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])

    def write(run_folder: Path, *, redact: bool | None, dress: Callable[[str], str]) -> Path:
        now[0] += 3.0
        page = Path(run_folder) / "report.html"
        page.write_text(dress(PAGE.format("x")))
        return page

    monkeypatch.setattr(watching, "write_report", write)
    waits: list[int] = []

    def look() -> None:
        text = (folder / "report.html").read_text(encoding="utf-8")
        waits.append(int(re.search(r'data-wait="(\d+)"', text)[1]))  # type: ignore[index]
        now[0] += 5.0

    def progress() -> None:
        write_json(folder / "progress.json", {"stage": "swarm", "done": len(waits), "total": 40})

    watch(folder, following(folder, [look, progress, look, look])[0])
    assert waits == [30, 25, 25]  # 27 s of rest and 3 of rendering; the box was renewed after 5; nothing new


def test_a_broken_file_is_said_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the real report: half of a JSON file, then the whole one."""
    run = make_run(tmp_path / "run", documents=200)
    monkeypatch.setattr(watching, "SHARE", 1.0)
    alive(run)
    confirm, pages = run / "search/confirm.json", list[str]()
    whole = confirm.read_bytes()

    def look() -> None:
        pages.append((run / "report.html").read_text(encoding="utf-8"))

    how, said = following(
        run,
        [
            look,
            lambda: confirm.write_bytes(whole[: len(whole) // 2]),
            look,
            look,
            lambda: confirm.write_bytes(whole),
            look,
        ],
    )
    watch(run, how)
    broken = [text for text in said if text.startswith("not written, trying again: ")]
    assert len(broken) == 1
    assert "confirm.json is not valid JSON" in broken[0]
    assert pages[1] == pages[0]
    assert re.sub("Written at .*?</time>|data-.*?>", "", pages[3]) == re.sub(
        "Written at .*?</time>|data-.*?>", "", pages[0]
    )
    last = (run / "report.html").read_text(encoding="utf-8")
    assert reloads(pages[0])
    assert not reloads(last)
    assert 'id="verdict"' in last


def test_a_file_with_other_content_than_expected_does_not_end_it(
    folder: Path, renders: list[bool | None], monkeypatch: pytest.MonkeyPatch
):
    good, fail = watching.write_report, [KeyError("copies"), OSError("gone"), None]

    def write(run_folder: Path, *, redact: bool | None, dress: Callable[[str], str]) -> Path:
        if fail and (error := fail.pop(0)):
            raise error
        return good(run_folder, redact=redact, dress=dress)

    monkeypatch.setattr(watching, "write_report", write)
    how, said = following(folder, [lambda: None, lambda: None])
    watch(folder, how)
    assert [text.startswith("not written") for text in said] == [True, True, False, False]


def test_a_missing_library_ends_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def write(*_: object, **__: object) -> Path:
        raise MissingExtraError("matplotlib", "report", "the report's figures")

    monkeypatch.setattr(watching, "write_report", write)
    with pytest.raises(MissingExtraError, match=r"quadmix\[report\]"):
        watch(folder, following(folder, [])[0])


def test_rendering_takes_a_share_of_the_time_only(
    folder: Path, renders: list[bool | None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "SHARE", 1e-9)
    change = [lambda k=k: write_json(folder / f"trials/prior-{k:04d}.json", {}) for k in range(1, 5)]
    watch(folder, following(folder, change)[0])
    assert len(renders) == 2  # the first, and the one of the end, which waits for nothing


def test_what_follows_a_new_page_is_called_with_each(folder: Path, renders: list[bool | None]):
    called: list[int] = []
    how, _ = following(folder, [lambda: None])
    watch(
        folder, Watched(every=5, redact=True, say=how.say, pause=how.pause, changed=lambda: called.append(1))
    )
    assert len(called) == len(renders) == 2
    assert renders == [True, True]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        watch(tmp_path / "none", Watched())


# --------------------------------------------------------------------------- parts
def test_the_stamp_leaves_out_what_the_watch_and_the_sinks_write(folder: Path):
    before = stamp(folder)
    assert [Path(p).name for p in before] == ["prior-0000.json"]
    for name in ("report.html", "report.json", "progress.json", "lease.json", "figures/a.json"):
        write_json(folder / name, {"x": 1})
    for name in ("wandb/run/a.json", "tensorboard/x/a.json", "trials/.tmp-1-a.json", "pool/tokens.bin"):
        write_json(folder / name, {"x": 1})
    assert stamp(folder) == before
    write_json(folder / "search/proposal.json", {"x": 1})
    assert len(stamp(folder)) == 2


def test_a_run_is_at_work_while_its_lease_lives(folder: Path):
    assert run_state(folder) == "working"
    write_json(folder / "stages/report.json", {})  # of an earlier pass
    assert run_state(folder) == "working"
    alive(folder, age=120)
    assert run_state(folder) == "finished"
    (folder / "stages/report.json").unlink()
    assert run_state(folder) == "waiting"
    (folder / "lease.json").write_bytes(b"{half")
    assert run_state(folder) == "waiting"
    (folder / "lease.json").unlink()
    with lease(folder):  # what a real run writes
        assert run_state(folder) == "working"


def test_words_of_every_state(folder: Path):
    assert state_words(folder, "finished") == "the run is finished"
    assert state_words(folder, "waiting") == "no process works on this run at present"
    (folder / "progress.json").write_bytes(b"")
    assert state_words(folder, "working") == "the run has begun"
    write_json(folder / "progress.json", {"stage": "<b>", "done": 1, "total": 0, "eta_s": 7300})
    assert state_words(folder, "working") == "at work: <b>, about 2:01:40 left in all"


def test_the_box_says_when_it_was_written_and_escapes_names():
    box = banner("at work: <b>", 12.4, WRITTEN)
    assert "At work: &lt;b&gt;." in box
    assert '<time datetime="2026-05-17T09:03:01Z">2026-05-17 09:03:01 UTC</time>' in box
    assert 'data-wait="12"' in box
    assert f'data-written="{WRITTEN.timestamp():.0f}"' in box
    assert 'data-wait="2"' in banner("x", 0.01, WRITTEN)


def test_the_policy_allows_the_script_of_the_watch_and_no_other():
    page = dress(PAGE, Html("<p>x</p>"))
    scripts = re.findall("<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(hashes) == 1
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-abc='; style-src" in page
    assert page.index("<p>x</p>") < page.index("body {}")
    assert page.endswith("</script>\n</body></html>\n")


@pytest.mark.parametrize(
    "text", ["<html></html>", PAGE.replace("</html>", ""), PAGE.replace("main id", "main a")]
)
def test_a_page_of_something_else_is_not_dressed(text: str):
    with pytest.raises(InputError, match="does not begin as a page of quadmix does"):
        dress(text, Html("x"))
